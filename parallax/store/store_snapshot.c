/* Snapshots, clones, rollback: everything but taking the mark is a catalog transaction. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "core/option.h"
#include "parallax/store/store_private.h"
#include "parallax/volume/clones.h"

/* ---- create ---- */

int store_snapshot_create(struct store *s, const char *const *names, unsigned count, struct report *report)
{
	char volume[STORE_NAME_BYTES], snapshot[STORE_NAME_BYTES];
	struct store_seen seen;
	uint64_t id = 0;
	if (count == 0 || count > STORE_GROUP_MAX)
		return report_set(report, -EINVAL, "from 1 to %d snapshots can be taken at one instant", STORE_GROUP_MAX);
	if (count > 1)
		return store_group_create(s, names, count, report);
	int r = store_name_split(names[0], volume, snapshot, report);
	if (r == 0 && !snapshot[0])
		r = report_set(report, -EINVAL, "'%s' names no snapshot (give VOLUME@SNAPSHOT)", names[0]);
	if (r == 0)
		r = store_find_unmarked(s, volume, snapshot, &id, &seen, report);
	if (r < 0)
		return r;
	const char *args[] = { snapshot, NULL };
	struct volume *v;
	r = store_ask_or_maintain(s, volume, id, &seen, "snapshot", args, &v, report);
	if (r < 0 || !v)
		return r;
	r = volume_snapshot(v, snapshot, report);
	int closed = volume_close(v);
	return r ? r : closed;
}

/* ---- list ---- */

struct snapshot_list {
	int (*entry)(void *arg, const struct store_snapshot *snapshot);
	void *arg;
	bool space; /* with what deleting each frees */
	struct report *report;
	struct meta_snapshot *found;
	size_t count;
};

/* Collected first: `entry` may print or ask, while the catalog isn't being listed. */
static int collect_snapshot(void *arg, const struct meta_snapshot *m)
{
	struct snapshot_list *l = arg;
	if (m->doomed)
		return 0;
	if (array_more(&l->found, l->count) < 0)
		return -ENOMEM;
	l->found[l->count++] = *m;
	return 0;
}

static int list_one_volume(struct store *s, struct snapshot_list *l, const char *name, uint64_t volume)
{
	struct store_space *space = NULL;
	struct clones clones = { 0 };
	l->count = 0;
	int r = store_each_snapshot(s->catalog, volume, collect_snapshot, l);
	if (r == 0 && l->count)
		r = clones_read(s->catalog, volume, &clones);
	if (r == 0 && l->count && l->space)
		r = store_space_open(s, volume, &space, l->report);
	for (size_t i = 0; r == 0 && i < l->count; i++) {
		const struct meta_snapshot *m = &l->found[i];
		struct store_snapshot out = { .size_bytes = m->size_bytes, .created_ns = m->created_ns };
		snprintf(out.volume, sizeof out.volume, "%s", name);
		snprintf(out.name, sizeof out.name, "%s", m->name);
		out.clones = clones_of(&clones, m->mark_seq);
		if (space && out.clones == 0)
			r = store_space_snapshot(space, m->mark_seq, &out.frees_bytes);
		if (r == 0)
			r = l->entry(l->arg, &out);
	}
	store_space_close(space);
	clones_free(&clones);
	return r;
}

static int list_one_name(struct store *s, struct snapshot_list *l, const char *name, const struct meta_name *named)
{
	int r = 0;
	for (uint32_t i = named->history_count + 1; r == 0 && i-- > 0;) /* the oldest first */
		r = list_one_volume(s, l, name, i == 0 ? named->volume : named->history[i - 1]);
	return r;
}

struct names {
	struct store *store;
	struct snapshot_list *list;
};

static int list_volume_snapshots(void *arg, const struct store_volume *v)
{
	struct names *n = arg;
	struct meta_name named;
	int r = meta_get_name(n->store->catalog, v->name, &named, NULL);
	return r == 0 ? list_one_name(n->store, n->list, v->name, &named) : r == -ENOENT ? 0 : r;
}

int store_snapshot_list(struct store *s, const char *volume, int (*entry)(void *arg, const struct store_snapshot *snapshot), void *arg,
			struct report *report)
{
	struct snapshot_list l = { .entry = entry, .arg = arg, .space = volume != NULL, .report = report };
	struct names n = { s, &l };
	struct meta_name named;
	int r;
	if (volume) {
		uint64_t id;
		r = store_find_volume(s->places, volume, &id, report);
		if (r == 0)
			r = meta_get_name(s->catalog, volume, &named, NULL);
		if (r == 0)
			r = list_one_name(s, &l, volume, &named);
	} else {
		r = store_volume_list(s, list_volume_snapshots, &n, report);
	}
	free(l.found);
	return r < 0 ? report_set(report, r, "the catalog: %s", catalog_text(s->catalog, r)) : r;
}

/* ---- delete ---- */

struct deleting {
	struct store *store;
	char (*volumes)[STORE_NAME_BYTES]; /* of each */
	struct store_mark *marks;
	unsigned count;
	struct meta_name named;            /* of the last one looked for: often all are of one volume */
	struct store_seen seen;            /* its owner */
};

static int find_one(struct deleting *d, const char *name, struct report *report)
{
	struct store *s = d->store;
	char snapshot[STORE_NAME_BYTES], *volume = d->volumes[d->count];
	int r = store_name_split(name, volume, snapshot, report);
	if (r == 0 && !snapshot[0])
		r = report_set(report, -EINVAL, "'%s' names no snapshot (give VOLUME@SNAPSHOT)", name);
	if (r == 0 && (d->count == 0 || strcmp(volume, d->volumes[d->count - 1]) != 0))
		r = store_find_name(s->catalog, volume, &d->named, NULL, report);
	if (r == 0)
		r = store_find_named(s->places, &d->named, volume, snapshot, &d->marks[d->count], &d->seen, report);
	d->count += r == 0;
	return r;
}

/* Whoever has the volume frees what it can, soon; it isn't waited for. */
static void tell_holders(const struct deleting *d)
{
	static const char *const soon[] = { "soon", NULL };
	for (unsigned i = 0; i < d->count; i++) {
		unsigned first = 0;
		while (d->marks[first].volume != d->marks[i].volume)
			first++;
		bool seen = d->count == 1 && d->marks[i].volume == d->named.volume;
		if (first == i)
			store_ask_holder_seen(d->store, d->volumes[i], d->marks[i].volume, seen ? &d->seen : NULL, "checkpoint", soon, NULL);
	}
}

int store_snapshots_delete(struct store *s, const char *const *names, unsigned count, struct report *report)
{
	struct deleting *d = calloc(1, sizeof *d);
	int r = d ? 0 : -ENOMEM;
	if (r == 0) {
		d->store = s;
		d->volumes = calloc(count + 1, sizeof *d->volumes);
		d->marks = calloc(count + 1, sizeof *d->marks);
		r = d->volumes && d->marks ? 0 : -ENOMEM;
	}
	for (unsigned i = 0; r == 0 && i < count; i++)
		r = find_one(d, names[i], report);
	if (r == 0) {
		r = store_doom_snapshots(s, d->marks, d->count);
		if (r < 0)
			report_set(report, r, "the catalog: %s", catalog_text(s->catalog, r));
		tell_holders(d); /* also where not all could be deleted */
		store_reap(s);
	}
	if (d) {
		free(d->volumes);
		free(d->marks);
	}
	free(d);
	return r;
}

int store_snapshot_delete(struct store *s, const char *name, struct report *report) { return store_snapshots_delete(s, &name, 1, report); }

/* ---- clone ---- */

static int find_snapshot(struct store *s, const char *text, uint64_t *ret_volume, uint64_t *ret_mark, struct report *report)
{
	char volume[STORE_NAME_BYTES], snapshot[STORE_NAME_BYTES];
	int r = store_name_split(text, volume, snapshot, report);
	if (r == 0 && !snapshot[0])
		r = report_set(report, -EINVAL, "'%s' is not a snapshot (give VOLUME@SNAPSHOT; take one first: aquifer snapshot create)", text);
	return r ? r : store_find_snapshot(s->places, volume, snapshot, ret_volume, ret_mark, report);
}

int store_clone(struct store *s, const char *snapshot, const char *name, struct report *report)
{
	if (!name_valid(name))
		return report_set(report, -EINVAL, "'%s' is not a volume name (letters, digits, . _ -; at most 63)", name);
	struct meta_log *log = calloc(1, sizeof *log);
	int r = log ? find_snapshot(s, snapshot, &log->parent_volume, &log->parent_mark, report) : -ENOMEM;
	if (r == 0)
		r = store_make(s, name, log, /* import= */ NULL, report);
	free(log);
	return r;
}

/* ---- rollback (R24) ---- */

/* The record of a volume that begins as the snapshot, which has its root. */
static int rolled_log(struct store *s, uint64_t volume, uint64_t mark, const char *name, struct meta_log *log, uint64_t *ret_id, uint64_t *ret_revision)
{
	struct meta_log *parent = malloc(sizeof *parent);
	struct meta_snapshot m;
	uint64_t border = 0;
	int r = parent ? meta_get_log(s->catalog, volume, parent, NULL) : -ENOMEM;
	if (r == 0)
		r = meta_get_snapshot(s->catalog, volume, mark, &m, ret_revision);
	if (r == 0 && m.doomed)
		r = -ENOENT;
	if (r == 0)
		r = catalog_counter_take(s->catalog, META_COUNTER_VOLUME, 0, 1, ret_id);
	if (r == 0)
		r = catalog_counter_take(s->catalog, META_COUNTER_SEGMENT, parent->last_id, 1, &border);
	if (r == 0) {
		log->parent_volume = volume;
		log->parent_mark = mark;
		store_clone_fill(s, *ret_id, border, parent, &m, log);
		snprintf(log->name, sizeof log->name, "%s", name);
	}
	free(parent);
	return r;
}

static int roll_prepare(struct store *s, const char *snapshot, const char *name, struct meta_log *log, uint64_t *ret_id, uint64_t *ret_revision,
			struct report *report)
{
	uint64_t id, mark;
	int r = find_snapshot(s, snapshot, &id, &mark, report);
	int depth = r == 0 ? sources_depth(s->catalog, id) : 0;
	if (depth > SOURCES_MAX)
		r = store_too_deep(report);
	if (r == 0)
		r = store_want_root(s->places, id, mark, s, report);
	if (r == 0)
		r = rolled_log(s, id, mark, name, log, ret_id, ret_revision);
	return r < 0 ? report_set(report, r, "the catalog: %s", catalog_text(s->catalog, r)) : 0;
}

/* Volumes that are gone leave the history: without snapshots of its own none outlives the rollback. */
static void prune_history(struct store *s, struct meta_name *named)
{
	uint32_t kept = 0;
	char key[META_KEY_BYTES];
	for (uint32_t i = 0; i < named->history_count; i++) {
		struct catalog_value v;
		meta_key_log(named->history[i], key);
		int r = catalog_get(s->catalog, key, &v);
		catalog_value_free(&v);
		if (r != -ENOENT) /* also when the catalog doesn't say */
			named->history[kept++] = named->history[i];
	}
	named->history_count = kept;
}

static int swap_names(struct store *s, const char *name, uint64_t id, const struct meta_log *log, uint64_t snapshot_revision, struct report *report)
{
	char keys[6][META_KEY_BYTES];
	struct meta_name named;
	struct meta_owner owner = { 0 }, old_owner;
	struct meta_log *old = malloc(sizeof *old);
	uint64_t name_revision, owner_revision, old_revision;
	int r = old ? meta_get_name(s->catalog, name, &named, &name_revision) : -ENOMEM;
	if (r == 0)
		r = meta_get_owner(s->catalog, named.volume, &old_owner, &owner_revision);
	if (r == 0)
		r = meta_get_log(s->catalog, named.volume, old, &old_revision);
	if (r == 0)
		r = store_refuse_owner(s->places, named.volume, &old_owner, report);
	if (r == 0)
		prune_history(s, &named);
	if (r == 0 && named.history_count == META_HISTORY_MAX)
		r = report_set(report, -EMLINK, "it was rolled back %d times and keeps snapshots of each (clone it and delete it)", META_HISTORY_MAX);
	if (r < 0) {
		free(old);
		return r;
	}
	meta_key_name(name, keys[0]);
	meta_key_log(id, keys[1]);
	meta_key_owner(id, keys[2]);
	meta_key_log(named.volume, keys[3]);
	meta_key_owner(named.volume, keys[4]);
	meta_key_reap(named.volume, keys[5]);
	for (uint32_t i = named.history_count++; i > 0; i--)
		named.history[i] = named.history[i - 1];
	named.history[0] = named.volume;
	named.volume = id;
	old->doomed = true;
	old->stamp = env_random(s->env);
	old_owner.epoch++; /* whoever held it, dead or paused, is fenced */
	old_owner.state = OWNER_FREE;
	size_t n[5];
	uint8_t *bytes[5] = { meta_name_encode(&named, &n[0]), meta_log_encode(log, &n[1]), meta_owner_encode(&owner, &n[2]),
			      meta_log_encode(old, &n[3]), meta_owner_encode(&old_owner, &n[4]) };
	struct catalog_txn *t = malloc(sizeof *t);
	char hold_keys[2][META_KEY_BYTES];
	r = t ? 0 : -ENOMEM;
	for (unsigned i = 0; i < 5; i++)
		r = bytes[i] ? r : -ENOMEM;
	if (r == 0) {
		catalog_txn_init(t);
		store_hold_snapshot(id, log, snapshot_revision, t, hold_keys);
		catalog_txn_compare(t, keys[0], name_revision);
		catalog_txn_compare(t, keys[3], old_revision);
		catalog_txn_compare(t, keys[4], owner_revision);
		for (unsigned i = 0; i < 5; i++)
			catalog_txn_put(t, keys[i], bytes[i], n[i]);
		catalog_txn_put(t, keys[5], "", 0);
		r = store_txn(s->catalog, t);
	}
	for (unsigned i = 0; i < 5; i++)
		free(bytes[i]);
	free(t);
	free(old);
	return store_txn_report(s, r == -EAGAIN ? store_was_made(s, id, &log->volume) : r, "the volume was changed meanwhile (try again)", report);
}

int store_snapshot_rollback(struct store *s, const char *name, struct report *report)
{
	char volume[STORE_NAME_BYTES], snapshot[STORE_NAME_BYTES];
	uint64_t id, before, revision;
	struct meta_log *log = calloc(1, sizeof *log);
	int r = log ? store_name_split(name, volume, snapshot, report) : -ENOMEM;
	if (r == 0)
		r = store_find_volume(s->places, volume, &before, report);
	if (r == 0)
		r = store_refuse_held(s->places, before, report);
	if (r == 0)
		r = roll_prepare(s, name, volume, log, &id, &revision, report);
	if (r == 0)
		r = swap_names(s, volume, id, log, revision, report);
	free(log);
	if (r == 0)
		store_reap(s);
	return r;
}
