/* Each snapshot has a list in the space table until its space is free, so that the newest table says which there are. What they are called and where their roots
 * are is in the catalog, or in the summary. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/store/store_recover_private.h"

struct listed {
	struct meta_snapshot snapshot;
	uint64_t revision;
};

struct listing {
	struct listed *entries; /* by mark */
	size_t count;
};

static int note(void *arg, const char *key, const struct catalog_value *value)
{
	struct listing *l = arg;
	(void)key;
	if (array_more(&l->entries, l->count) < 0)
		return -ENOMEM;
	l->entries[l->count].revision = value->revision;
	return meta_snapshot_decode(value->bytes, value->length, &l->entries[l->count++].snapshot);
}

static bool is_listed(const struct listing *l, uint64_t mark_seq)
{
	size_t at = array_place(l->entries, l->count, snapshot.mark_seq, mark_seq);
	return at < l->count && l->entries[at].snapshot.mark_seq == mark_seq;
}

static const struct meta_snapshot *find(const struct meta_snapshot *s, uint32_t count, uint64_t mark_seq)
{
	size_t at = array_place(s, count, mark_seq, mark_seq);
	return at < count && s[at].mark_seq == mark_seq ? &s[at] : NULL;
}

/* ---- changes, each a transaction of its own: all can be done again ---- */

/* One that is doomed has no name any more, and who has it by now keeps it. */
static int take_name(struct recovering *r, const char *name, uint64_t mark_seq, char *key, struct catalog_txn *t)
{
	struct catalog_value v;
	meta_key_snapshot_name(r->id, name, key);
	int status = catalog_get(r->store->catalog, key, &v);
	if (status < 0)
		return status == -ENOENT ? 0 : status;
	if (v.length == 8 && get_le64(v.bytes) == mark_seq) {
		catalog_txn_compare(t, key, v.revision);
		catalog_txn_delete(t, key);
	}
	catalog_value_free(&v);
	return 0;
}

/* `was`: as the catalog has it, or NULL. */
static int put(struct recovering *r, const struct meta_snapshot *m, const struct listed *was)
{
	struct catalog *c = r->store->catalog;
	struct catalog_txn *t = malloc(sizeof *t);
	char key[META_KEY_BYTES], name_key[META_KEY_BYTES], old_key[META_KEY_BYTES], note_key[META_KEY_BYTES];
	uint8_t seq[8];
	size_t length = 0;
	uint8_t *bytes = meta_snapshot_encode(m, &length);
	int status = t && bytes ? 0 : -ENOMEM;
	meta_key_snapshot(r->id, m->mark_seq, key);
	meta_key_snapshot_name(r->id, m->name, name_key);
	meta_key_reap_snapshot(r->id, m->mark_seq, note_key);
	put_le64(seq, m->mark_seq);
	if (status == 0) {
		catalog_txn_init(t);
		catalog_txn_compare(t, key, was ? was->revision : 0);
		catalog_txn_put(t, key, bytes, length);
		if (m->doomed)
			catalog_txn_put(t, note_key, "", 0);
		else
			catalog_txn_put(t, name_key, seq, sizeof seq);
		if (m->doomed && was && !PLANTED(recover_keeps_name))
			status = take_name(r, was->snapshot.name, m->mark_seq, old_key, t);
		if (status == 0)
			status = store_txn(c, t);
	}
	free(bytes);
	free(t);
	return status;
}

static int forget_clone(void *arg, const char *key, const struct catalog_value *value)
{
	struct listing *clones = arg;
	(void)value;
	if (array_more(&clones->entries, clones->count) < 0)
		return -ENOMEM;
	clones->entries[clones->count++].revision = strtoull(strrchr(key, '/') + 1, NULL, 16);
	return 0;
}

/* It was deleted, and nothing held it any more: clones that the backup has of it were deleted before. */
static int take_away(struct recovering *r, const struct listed *l, struct report *report)
{
	struct catalog *c = r->store->catalog;
	struct listing clones = { 0 };
	char key[META_KEY_BYTES], name_key[META_KEY_BYTES], note_key[META_KEY_BYTES], prefix[META_KEY_BYTES];
	meta_key_snapshot_clones(r->id, l->snapshot.mark_seq, prefix);
	int status = catalog_list(c, prefix, forget_clone, &clones);
	for (size_t i = 0; status == 0 && i < clones.count; i++)
		status = recover_forget(r->store, clones.entries[i].revision, report);
	free(clones.entries);
	struct catalog_txn *t = status == 0 ? malloc(sizeof *t) : NULL;
	if (!t)
		return status ? status : -ENOMEM;
	meta_key_snapshot(r->id, l->snapshot.mark_seq, key);
	meta_key_snapshot_name(r->id, l->snapshot.name, name_key);
	meta_key_reap_snapshot(r->id, l->snapshot.mark_seq, note_key);
	catalog_txn_init(t);
	catalog_txn_compare(t, key, l->revision);
	catalog_txn_delete(t, key);
	if (!l->snapshot.doomed)
		catalog_txn_delete(t, name_key);
	catalog_txn_delete(t, note_key);
	status = store_txn(c, t);
	free(t);
	return status;
}

/* Nobody knows its name or its root any more. */
static int doom(struct recovering *r, const struct space_list *l, const struct listed *was)
{
	struct meta_snapshot m = { .mark_seq = l->mark_seq, .mark_position = l->mark_position, .node_end = l->node_end, .doomed = true, .has_root = true,
				   .size_bytes = r->s.log.size_bytes };
	snprintf(m.name, sizeof m.name, "lost-%llu", (unsigned long long)l->mark_seq);
	return put(r, &m, was);
}

/* ---- which ---- */

/* Has a newer one its name? Then it was deleted before that was made, and is there because clones hold it. */
static bool outlived(struct recovering *r, const struct meta_snapshot *m, const struct meta_snapshot *newest, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (newest[i].mark_seq > m->mark_seq && !newest[i].doomed && strcmp(newest[i].name, m->name) == 0 && space_list_find(&r->table, newest[i].mark_seq))
			return true;
	return false;
}

/* One that the catalog has. */
static int settle(struct recovering *r, const struct listed *l, uint64_t from_seq, const struct meta_snapshot *newest, uint32_t count, struct report *report)
{
	uint64_t mark = l->snapshot.mark_seq;
	if (mark >= from_seq)
		return 0;
	const struct space_list *list = space_list_find(&r->table, mark);
	if (!list && PLANTED(recover_keeps_deleted))
		return 0;
	if (!list) {
		r->ret->snapshots_gone += !l->snapshot.doomed;
		return take_away(r, l, report);
	}
	bool doomed = l->snapshot.doomed || outlived(r, &l->snapshot, newest, count);
	r->ret->snapshots_gone += doomed && !l->snapshot.doomed;
	struct meta_snapshot m = l->snapshot;
	m.doomed = doomed;
	if (l->snapshot.has_root)
		return doomed == l->snapshot.doomed ? 0 : put(r, &m, l);
	const struct meta_snapshot *known = find(newest, count, mark);
	if (!known) {
		r->ret->snapshots_gone += !doomed;
		return doom(r, list, l);
	}
	m = *known;
	m.doomed = doomed;
	return put(r, &m, l);
}

/* One that the table has and the catalog hasn't. */
static int add(struct recovering *r, const struct space_list *list, const struct meta_snapshot *newest, uint32_t count)
{
	const struct meta_snapshot *known = find(newest, count, list->mark_seq);
	if (!known)
		return doom(r, list, NULL);
	struct meta_snapshot m = *known;
	m.doomed |= outlived(r, &m, newest, count);
	r->ret->snapshots_back += !m.doomed;
	return put(r, &m, NULL);
}

int recover_snapshots(struct recovering *r, uint64_t from_seq, const struct meta_snapshot *newest, uint32_t count, struct report *report)
{
	struct listing l = { 0 };
	char prefix[META_KEY_BYTES];
	meta_key_snapshots(r->id, prefix);
	int status = catalog_list(r->store->catalog, prefix, note, &l);
	for (size_t i = 0; status == 0 && i < l.count; i++)
		status = settle(r, &l.entries[i], from_seq, newest, count, report);
	for (uint32_t i = 0; status == 0 && i < r->table.list_count; i++)
		if (r->table.lists[i].mark_seq < from_seq && !is_listed(&l, r->table.lists[i].mark_seq))
			status = add(r, &r->table.lists[i], newest, count);
	free(l.entries);
	return status < 0 ? report_set(report, status, "its snapshots can't be recorded: %s", catalog_text(r->store->catalog, status)) : 0;
}
