/* What volumes there are, and how each is. A round trip to the catalog for each of a thousand volumes' records would take seconds; so those of LIST_TOGETHER
 * volumes are read at once: their records, the snapshots that they began as, and how many snapshots they have. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "parallax/store/store_private.h"
#include "parallax/volume/volume_status.h"

/* How long a holder is waited for that only has to say how it is. */
#define HOLDER_PATIENCE_NS (2 * NS_PER_S)
#define HOLDER_CHECKPOINT_NS (5 * NS_PER_S)

enum { LIST_TOGETHER = CATALOG_TXN_MAX / 2 }; /* two keys each */

/* ---- which volume has which name ---- */

static int names_add(struct store_names *l, const char *name, const struct meta_name *named)
{
	if (array_more(&l->entries, l->count) < 0)
		return -ENOMEM;
	snprintf(l->entries[l->count].name, STORE_NAME_BYTES, "%s", name);
	l->entries[l->count++].named = *named;
	return 0;
}

static int names_entry(void *arg, const char *key, const struct catalog_value *value)
{
	struct meta_name named;
	int r = meta_name_decode(value->bytes, value->length, &named);
	return r < 0 ? r : names_add(arg, key + strlen("name/"), &named);
}

int store_names_read(struct store *s, struct store_names *ret, struct report *report)
{
	*ret = (struct store_names){ 0 };
	int r = catalog_list(s->catalog, "name/", names_entry, ret);
	return r < 0 ? report_set(report, r, "the catalog: %s", catalog_text(s->catalog, r)) : 0;
}

/* The name that a volume, or what it was before a rollback, has now; NULL: none, it was deleted. */
static const char *names_find(const struct store_names *l, uint64_t volume)
{
	for (size_t i = 0; i < l->count; i++) {
		const struct meta_name *m = &l->entries[i].named;
		bool found = m->volume == volume;
		for (uint32_t k = 0; !found && k < m->history_count; k++)
			found = m->history[k] == volume;
		if (found)
			return l->entries[i].name;
	}
	return NULL;
}

/* ---- some of them together ---- */

struct listed {
	const struct store_named *named;
	int status;              /* -ENOENT: it was deleted meanwhile */
	uint64_t parent, mark;   /* 0: none */
	struct store_volume volume;
};

struct listing {
	struct store *store;
	const struct store_names *names;
	struct meta_log log;     /* one at a time */
	struct catalog_want wants[CATALOG_TXN_MAX];
	struct catalog_tally tallies[CATALOG_TXN_MAX];
	char keys[CATALOG_TXN_MAX][META_KEY_BYTES];
	struct listed some[LIST_TOGETHER];
	unsigned count;
	struct kept {            /* a deleted volume, the last one asked for: often many are clones of one */
		uint64_t volume, parent, bytes;
		bool by_one;
	} kept;
};

/* Reads the first `count` of `keys`; the values are in `wants`, to be freed. */
static int listing_read(struct listing *l, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		l->wants[i] = (struct catalog_want){ .key = l->keys[i] };
	return count ? catalog_get_many(l->store->catalog, l->wants, count) : 0;
}

static void fill_log(struct listed *one, const struct meta_log *log)
{
	one->volume = (struct store_volume){ .id = one->named->named.volume, .size_bytes = log->size_bytes, .used_bytes = log->mapped_blocks * BLOCK_BYTES,
		.exclusive_bytes = log->live_blocks * BLOCK_BYTES, .snapshot_bytes = log->dead_blocks * BLOCK_BYTES, .replicas = log->replicas,
		.min_replicas = log->min_replicas, .io_timeout_ms = log->io_timeout_ms, .created_ns = log->created_ns, .embedded = log->embedded,
		.table_bytes = log->space.length };
	snprintf(one->volume.name, sizeof one->volume.name, "%s", one->named->name);
	one->parent = log->parent_volume;
	one->mark = log->parent_mark;
}

static void fill_owner(struct store *s, struct store_volume *v, const struct meta_owner *owner)
{
	bool alive = places_holder_alive(s->places, owner) || places_held_contained(s->places, v->id, owner), hosts = s->cluster && owner->host[0];
	v->lapsed = !alive && places_attached_elsewhere(s->places, owner);
	const char *health = "good";
	v->epoch = owner->epoch;
	v->state = !alive && !v->lapsed ? STORE_FREE : owner->state == OWNER_OFFERED ? STORE_OFFERED : STORE_HELD;
	if (store_importing(s, v->id, v->name))
		health = alive ? STORE_IMPORTING : "a part of an import that didn't end (the next import deletes it)";
	else if (v->lapsed)
		health = "its holder hasn't renewed its lease; attach takes it over";
	else if (owner->state == OWNER_HELD && !alive)
		health = "its holder died; the next attach recovers it";
	snprintf(v->health, sizeof v->health, "%s", health);
	if (v->state == STORE_FREE)
		return;
	snprintf(v->holder.text, sizeof v->holder.text, "%.115s%s%.63s", owner->holder, hosts ? " on host " : "", hosts ? owner->host : "");
	snprintf(v->holder.control, sizeof v->holder.control, "%s", owner->control);
	snprintf(v->holder.volume, sizeof v->holder.volume, "%s", v->name);
}

static int fill_one(struct listing *l, struct listed *one, const struct catalog_value *log, const struct catalog_value *owner)
{
	struct meta_owner o;
	if (!log->revision || !owner->revision)
		return -ENOENT;
	int r = meta_log_decode(log->bytes, log->length, &l->log);
	if (r == 0)
		r = meta_owner_decode(owner->bytes, owner->length, &o);
	if (r < 0)
		return r;
	fill_log(one, &l->log);
	fill_owner(l->store, &one->volume, &o);
	return 0;
}

static int read_records(struct listing *l)
{
	for (unsigned i = 0; i < l->count; i++) {
		meta_key_log(l->some[i].named->named.volume, l->keys[2 * i]);
		meta_key_owner(l->some[i].named->named.volume, l->keys[2 * i + 1]);
	}
	int r = listing_read(l, 2 * l->count);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < l->count; i++)
		l->some[i].status = fill_one(l, &l->some[i], &l->wants[2 * i].value, &l->wants[2 * i + 1].value);
	catalog_wants_free(l->wants, 2 * l->count);
	return 0;
}

/* "web1@monday", as it is called now; untouched if the parent is gone. */
static void parent_text(struct listing *l, const struct listed *one, const struct meta_snapshot *m, char *ret)
{
	const char *name = names_find(l->names, one->parent);
	if (name || meta_get_log(l->store->catalog, one->parent, &l->log, NULL) == 0)
		snprintf(ret, STORE_PARENT_BYTES, "%s@%s%s", name ? name : l->log.name, m->name, name && !m->doomed ? "" : " (deleted)");
}

static int read_parents(struct listing *l)
{
	struct listed *of[LIST_TOGETHER];
	unsigned n = 0;
	for (unsigned i = 0; i < l->count; i++)
		if (l->some[i].status == 0 && l->some[i].parent) {
			meta_key_snapshot(l->some[i].parent, l->some[i].mark, l->keys[n]);
			of[n++] = &l->some[i];
		}
	int r = listing_read(l, n);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < n; i++) {
		struct meta_snapshot m;
		const struct catalog_value *v = &l->wants[i].value;
		if (v->revision && meta_snapshot_decode(v->bytes, v->length, &m) == 0)
			parent_text(l, of[i], &m, of[i]->volume.parent);
	}
	catalog_wants_free(l->wants, n);
	return 0;
}

/* Each that isn't deleted has a name. */
static int count_snapshots(struct listing *l)
{
	for (unsigned i = 0; i < l->count; i++) {
		meta_key_snapshot_name(l->some[i].named->named.volume, "", l->keys[i]);
		l->tallies[i].prefix = l->keys[i];
	}
	int r = catalog_count(l->store->catalog, l->tallies, l->count);
	for (unsigned i = 0; r == 0 && i < l->count; i++)
		l->some[i].volume.snapshot_count = (uint32_t)l->tallies[i].count;
	return r;
}

/* What it was before a rollback is there for its snapshots alone. */
static int add_history(struct listing *l, uint64_t volume, struct store_volume *ret)
{
	struct catalog_tally names = { .prefix = l->keys[0] };
	int r = meta_get_log(l->store->catalog, volume, &l->log, NULL);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	meta_key_snapshot_name(volume, "", l->keys[0]);
	r = catalog_count(l->store->catalog, &names, 1);
	ret->exclusive_bytes += l->log.live_blocks * BLOCK_BYTES;
	ret->snapshot_bytes += l->log.live_blocks * BLOCK_BYTES;
	ret->snapshot_count += r == 0 ? (uint32_t)names.count : 0;
	return r;
}

/* A volume that was deleted, and is there for clones. */
static int look_kept(struct listing *l, uint64_t volume)
{
	struct catalog_tally clones = { .prefix = l->keys[0] };
	if (l->kept.volume == volume)
		return 0;
	l->kept.volume = 0;
	int r = meta_get_log(l->store->catalog, volume, &l->log, NULL);
	meta_key_clones(volume, l->keys[0]);
	if (r == 0)
		r = catalog_count(l->store->catalog, &clones, 1);
	if (r == 0)
		l->kept = (struct kept){ volume, l->log.parent_volume, l->log.live_blocks * BLOCK_BYTES, clones.count <= 1 };
	return r;
}

/* What deleted volumes that it was cloned from take: it goes with the last clone (R29). What it was before a rollback is counted already. */
static int add_kept(struct listing *l, struct listed *one)
{
	const struct meta_name *named = &one->named->named;
	bool alone = true;
	int r = 0;
	for (uint64_t at = one->parent; r == 0 && at;) {
		bool own = false;
		for (uint32_t k = 0; k < named->history_count; k++)
			own |= named->history[k] == at;
		if (!own && names_find(l->names, at))
			break;
		r = look_kept(l, at);
		alone &= r == 0 && (own || l->kept.by_one);
		if (r == 0 && !own) {
			one->volume.kept_bytes += l->kept.bytes;
			one->volume.exclusive_bytes += alone ? l->kept.bytes : 0;
		}
		at = l->kept.parent;
	}
	return r == -ENOENT ? 0 : r;
}

static int fill_some(struct listing *l)
{
	int r = read_records(l);
	if (r == 0)
		r = read_parents(l);
	if (r == 0)
		r = count_snapshots(l);
	for (unsigned i = 0; r == 0 && i < l->count; i++) {
		struct listed *one = &l->some[i];
		for (uint32_t k = 0; one->status == 0 && k < one->named->named.history_count; k++)
			one->status = add_history(l, one->named->named.history[k], &one->volume);
		if (one->status == 0)
			one->status = add_kept(l, one);
	}
	return r;
}

/* ---- showing one ---- */

int store_holder_fresh(struct store *s, const char *name, uint64_t volume, struct volume_status *ret)
{
	static const char *const none[] = { NULL };
	struct store_holder holder;
	char *json = NULL;
	int r = store_find_holder(s, name, volume, NULL, &holder, NULL);
	if (r == 0)
		r = s->forward(s->forward_arg, &holder, "status", none, HOLDER_PATIENCE_NS, &json, NULL);
	if (r == 0)
		r = volume_status_decode(json ? json : "", ret);
	free(json);
	if (r == 0 && !ret->failed && !ret->waits_for[0]) { /* else it would wait, too; as it will if that just begins */
		json = NULL;
		s->forward(s->forward_arg, &holder, "checkpoint", none, HOLDER_CHECKPOINT_NS, &json, NULL);
		free(json);
	}
	return r;
}

static int fill_volume(struct store *s, const struct store_names *names, const struct store_named *named, struct store_volume *ret)
{
	struct listing *l = calloc(1, sizeof *l);
	if (!l)
		return -ENOMEM;
	l->store = s;
	l->names = names;
	l->some[l->count++].named = named;
	int r = fill_some(l);
	r = r ? r : l->some[0].status;
	if (r == 0)
		*ret = l->some[0].volume;
	free(l);
	return r;
}

int store_volume_show(struct store *s, const char *name, struct store_volume *ret_volume, struct report *report)
{
	struct store_named named;
	struct volume_status status;
	snprintf(named.name, sizeof named.name, "%s", name);
	int r = store_find_name(s->catalog, name, &named.named, NULL, report);
	struct store_names names = { 0 };
	int asked = r == 0 ? store_holder_fresh(s, name, named.named.volume, &status) : -ENXIO; /* so that the numbers are of now */
	if (r == 0)
		r = store_names_read(s, &names, report);
	if (r == 0 && (r = fill_volume(s, &names, &named, ret_volume)) < 0)
		report_set(report, r, "the catalog: %s", catalog_text(s->catalog, r));
	if (r == 0 && asked == -ETIMEDOUT && ret_volume->state == STORE_HELD && strcmp(ret_volume->health, "good") == 0)
		snprintf(ret_volume->health, sizeof ret_volume->health, "not known: its holder doesn't answer (aquifer list on its host says more)");
	if (r == 0 && asked == 0 && ret_volume->state == STORE_HELD && strcmp(ret_volume->health, "good") == 0)
		volume_status_text(&status, ret_volume->replicas, env_wall_ns(s->env), ret_volume->health, sizeof ret_volume->health);
	if (r == 0 && strcmp(ret_volume->health, "good") == 0)
		volume_table_long(ret_volume->table_bytes, ret_volume->health, sizeof ret_volume->health);
	free(names.entries);
	return r;
}

/* ---- listing all ---- */

/* The others are all right. */
static void fill_unclear(struct listed *one)
{
	struct store_volume *v = &one->volume;
	*v = (struct store_volume){ .state = STORE_FREE };
	snprintf(v->name, sizeof v->name, "%s", one->named->name);
	snprintf(v->health, sizeof v->health, "%s", one->status == -EUCLEAN ? "its record in the catalog is damaged" :
							"its record is of a newer version than this program knows (upgrade this program)");
	one->status = 0;
}

static int list_some(struct listing *l, size_t first, int (*entry)(void *arg, const struct store_volume *v), void *arg)
{
	l->count = 0;
	for (size_t i = first; i < l->names->count && l->count < LIST_TOGETHER; i++)
		l->some[l->count++] = (struct listed){ .named = &l->names->entries[i] };
	int r = fill_some(l);
	for (unsigned i = 0; r == 0 && i < l->count; i++) {
		struct listed *one = &l->some[i];
		if (one->status == -EUCLEAN || one->status == -EPROTONOSUPPORT)
			fill_unclear(one);
		r = one->status == -ENOENT ? 0 : one->status == 0 ? entry(arg, &one->volume) : one->status;
	}
	return r;
}

int store_volume_list(struct store *s, int (*entry)(void *arg, const struct store_volume *v), void *arg, struct report *report)
{
	struct store_names names;
	int r = store_names_read(s, &names, report);
	struct listing *l = r == 0 ? calloc(1, sizeof *l) : NULL;
	if (r == 0 && !l)
		r = -ENOMEM;
	if (l) {
		l->store = s;
		l->names = &names;
	}
	for (size_t first = 0; r == 0 && first < names.count; first += LIST_TOGETHER)
		r = list_some(l, first, entry, arg);
	free(l);
	free(names.entries);
	return r;
}
