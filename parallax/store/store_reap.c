/* Space comes back: doomed snapshots, deleted and rolled-back heads, whole volumes (R25, R29). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/store/behead.h"
#include "parallax/store/store_private.h"
#include "parallax/store/wanted.h"
#include "parallax/volume/doomed.h"

/* All of a volume's snapshots, those that are doomed too. */
struct census {
	size_t count, alive;
	uint64_t *marks; /* malloc'd */
};

static int census_entry(void *arg, const struct meta_snapshot *m)
{
	struct census *c = arg;
	if (array_more(&c->marks, c->count) < 0)
		return -ENOMEM;
	c->marks[c->count++] = m->mark_seq;
	c->alive += !m->doomed;
	return 0;
}

static int census_take(struct store *s, uint64_t volume, struct census *ret)
{
	*ret = (struct census){ 0 };
	return store_each_snapshot(s->catalog, volume, census_entry, ret);
}

enum { REMOVED_TOGETHER = CATALOG_TXN_MAX - 4 };

struct removing {
	struct store *store;
	uint64_t volume;
	const struct meta_log *log;
	struct catalog_txn txn;
	char keys[REMOVED_TOGETHER][META_KEY_BYTES], log_key[META_KEY_BYTES], owner_key[META_KEY_BYTES], hold[META_KEY_BYTES];
	char parent[META_KEY_BYTES], note[META_KEY_BYTES];
	bool noted;
};

static int remove_snapshots(struct removing *r, const struct census *c)
{
	int status = 0;
	for (size_t at = 0; status == 0 && at < c->count;) {
		catalog_txn_init(&r->txn);
		for (unsigned n = 0; at < c->count && n < REMOVED_TOGETHER; n++, at++) {
			meta_key_snapshot(r->volume, c->marks[at], r->keys[n]);
			catalog_txn_delete(&r->txn, r->keys[n]);
		}
		status = store_txn(r->store->catalog, &r->txn);
	}
	return status;
}

/* It lets go of its parent's snapshot: if that was deleted, somebody should look whether it can be freed now. Whether it was is compared, unless
 * it can't be told: then a note does no harm. */
static int let_go(struct removing *r)
{
	const struct meta_log *log = r->log;
	struct meta_snapshot m;
	uint64_t revision;
	r->noted = false;
	if (!log->parent_volume)
		return 0;
	meta_key_clone(log->parent_volume, log->parent_mark, r->volume, r->hold);
	catalog_txn_delete(&r->txn, r->hold);
	int status = meta_get_snapshot(r->store->catalog, log->parent_volume, log->parent_mark, &m, &revision);
	if (status == -ENOENT || catalog_away(status))
		return status == -ENOENT ? 0 : status;
	meta_key_snapshot(log->parent_volume, log->parent_mark, r->parent);
	meta_key_reap_snapshot(log->parent_volume, log->parent_mark, r->note);
	if (status == 0)
		catalog_txn_compare(&r->txn, r->parent, revision);
	r->noted = (status < 0 || m.doomed) && !PLANTED(reap_note_lost);
	if (r->noted)
		catalog_txn_put(&r->txn, r->note, "", 0);
	return 0;
}

static int remove_volume(struct removing *r)
{
	int status = -EAGAIN;
	for (unsigned attempt = 0; status == -EAGAIN && attempt < 100; attempt++) {
		catalog_txn_init(&r->txn);
		meta_key_log(r->volume, r->log_key);
		meta_key_owner(r->volume, r->owner_key);
		catalog_txn_delete(&r->txn, r->log_key);
		catalog_txn_delete(&r->txn, r->owner_key);
		status = let_go(r);
		if (status == 0)
			status = store_txn(r->store->catalog, &r->txn);
	}
	return status;
}

/* The keys of a volume that is gone; snapshots first, a few at a time, the log and its hold on its parent last. Who has the parent is told. */
static int remove_keys(struct store *s, uint64_t volume, const struct meta_log *log, const struct census *c)
{
	static const char *const soon[] = { "soon", NULL };
	struct removing *r = calloc(1, sizeof *r);
	if (!r)
		return -ENOMEM;
	r->store = s;
	r->volume = volume;
	r->log = log;
	int status = remove_snapshots(r, c);
	if (status == 0)
		status = remove_volume(r);
	if (status == 0 && r->noted)
		store_ask_holder(s, "", log->parent_volume, "checkpoint", soon, NULL);
	free(r);
	return status;
}

/* All where it belongs say that they don't have it, and nobody else says he does: then one that is lost doesn't matter any more. One that is
 * too short has been created there and never was a holder's. */
static bool is_gone(struct copies *c, uint64_t position)
{
	uint64_t segment = position_segment(position);
	struct peer *peers[PLACEMENT_CANDIDATES_MAX];
	struct segment_io ios[PLACEMENT_CANDIDATES_MAX];
	unsigned n = copies_candidates(c, segment, peers), gone = 0;
	for (unsigned i = 0; i < n; i++)
		ios[i] = (struct segment_io){ .op = SEGMENT_STAT, .segment = segment };
	peers_wait(peers, ios, n);
	for (unsigned i = 0; i < n; i++) {
		bool lost = segment_away(ios[i].status) && !copies_belongs(c, segment, peers[i]);
		gone += lost || ios[i].status == -ENOENT ||
			(ios[i].status == 0 && (ios[i].state == COPY_ABSENT || ios[i].length <= position_block(position)));
	}
	return n > 0 && gone == n;
}

/* What the table and the log list; the table's own segment last, so that it tells the rest also after an interruption. When it is gone
 * there is nothing left but what the log lists. */
static int delete_listed(const struct meta_log *log, struct copies *c, struct wanted *w)
{
	uint64_t table = position_segment(log->space.pointer.position);
	struct wanted_volume *v = wanted_find(w, &log->volume);
	int r = v ? wanted_load(w, v) : -ENOENT;
	if (r == 0) {
		for (size_t i = 0; r == 0 && i < v->count; i++)
			r = v->segments[i] == table ? 0 : copies_delete(c, v->segments[i], 0);
	} else if (r != -ENOENT && table && is_gone(c, log->space.pointer.position)) {
		r = 0;
		for (uint32_t i = 0; r == 0 && i < log->segment_count; i++)
			r = copies_delete(c, log->segments[i].id, 0);
	}
	return r == 0 && table ? copies_delete(c, table, 0) : r;
}

/* It can't be opened: an interrupted destruction has taken away what that needs, or a server is lost for ever that may know the end
 * of its log. Nobody needs that end any more. What this doesn't know of is found by the servers (R31). */
static int destroy_closed(struct store *s, const struct meta_log *log)
{
	struct copies *c;
	struct wanted *w = NULL;
	int r = copies_open(s->env, s->catalog, &c, NULL);
	if (r < 0)
		return r;
	peers_await(c->peers, c->count, c->count);
	r = wanted_open(s->catalog, c, &w);
	if (r == 0)
		r = delete_listed(log, c, w);
	wanted_close(w);
	copies_close(c);
	return r;
}

static int destroy(struct store *s, uint64_t volume, const struct meta_log *log, const struct census *c)
{
	struct volume *v;
	int r;
	if (log->embedded) {
		r = places_remove_embedded(s->places, volume, NULL);
	} else {
		r = store_maintain(s->places, volume, &v, NULL);
		if (r == 0)
			r = volume_destroy(v);
		else if (r == -ENOENT || r == -EUCLEAN || r == -EIO || segment_away(r))
			r = destroy_closed(s, log);
	}
	return r ? r : remove_keys(s, volume, log, c);
}

/* Somebody reads a snapshot that was deleted meanwhile, here or on another host. Also when the catalog doesn't say. */
static bool has_readers(struct store *s, uint64_t volume, const struct census *c)
{
	const struct volume_places *p = &s->places->ops;
	char readers[META_KEY_BYTES];
	meta_key_readers(volume, readers);
	if (!PLANTED(readers_unseen) && catalog_any(s->catalog, readers) != 0)
		return true;
	for (size_t i = 0; p->snapshot_idle && i < c->count; i++)
		if (p->snapshot_idle(p->arg, volume, c->marks[i]) != 0)
			return true;
	return false;
}

/* All of it is doomed: it goes as a whole. */
static int destroy_unread(struct store *s, uint64_t volume, const struct meta_log *log)
{
	struct census c;
	int r = census_take(s, volume, &c); /* nobody adds to it any more */
	if (r == 0)
		r = c.alive || has_readers(s, volume, &c) ? -EBUSY : destroy(s, volume, log, &c);
	free(c.marks);
	return r;
}

int store_forsaken(struct store *s, uint64_t volume, const struct meta_log *log)
{
	char names[META_KEY_BYTES], clones[META_KEY_BYTES];
	struct catalog_tally t[] = { { .prefix = names }, { .prefix = clones } };
	if (!log->doomed)
		return 0;
	meta_key_snapshot_name(volume, "", names);
	meta_key_clones(volume, clones);
	int r = catalog_count(s->catalog, t, 2);
	return r < 0 ? r : t[0].count == 0 && t[1].count == 0;
}

/* Unless something more was noted since. An attempt of unknown outcome may arrive when that is long so. */
static void forget_whole(struct store *s, uint64_t volume, uint64_t revision)
{
	char key[META_KEY_BYTES];
	struct catalog_txn *t = malloc(sizeof *t);
	if (!t)
		return;
	meta_key_reap(volume, key);
	catalog_txn_init(t);
	catalog_txn_compare(t, key, revision);
	catalog_txn_delete(t, key);
	store_txn(s->catalog, t);
	free(t);
}

/* Frees what can be freed now of an existing volume that stays and that nobody has. 1: by that something else may be possible, or to be forgotten. */
static int free_some(struct store *s, uint64_t volume, const struct meta_log *log)
{
	struct doomed d;
	struct volume *v;
	int r = doomed_find(s->catalog, volume, &d);
	if (r < 0)
		return r;
	doomed_forget(s->catalog, volume, &d);
	size_t waiting = 0, droppable = 0;
	for (size_t i = 0; i < d.count; i++) {
		waiting += d.entries[i].revision && !d.entries[i].cloned;
		droppable += doomed_droppable(&d.entries[i]);
	}
	bool whole = d.whole, beheaded = !log->doomed || !d.whole || log->root.pointer.position == d.newest_root;
	if (d.whole && waiting == 0 && beheaded)
		forget_whole(s, volume, d.whole);
	doomed_free(&d);
	if ((droppable == 0 && beheaded) || store_maintain(s->places, volume, &v, NULL) < 0)
		return 0;
	uint64_t dropped = 0;
	r = volume_reap(v, &dropped);
	if (log->doomed && r == 0)
		r = volume_behead(v);
	volume_close(v);
	return r == 0 && (log->doomed || whole) && (dropped || !beheaded);
}

/* Nor is one taken from another host that let its lease run out: it may serve its guest all the same, and space can wait until somebody attaches it. */
static bool is_held(struct store *s, const struct catalog_value *value)
{
	struct meta_owner owner;
	return value->revision && meta_owner_decode(value->bytes, value->length, &owner) == 0 &&
	       (places_attached_elsewhere(s->places, &owner) || places_holder_alive(s->places, &owner));
}

/* 1: the volume is gone, or its head changed; 0: nothing more can be done now. Of one that somebody has it is his. */
static int reap_one(struct store *s, uint64_t volume, struct meta_log *log)
{
	char keys[2][META_KEY_BYTES];
	struct catalog_want wants[] = { { .key = keys[0] }, { .key = keys[1] } };
	meta_key_log(volume, keys[0]);
	meta_key_owner(volume, keys[1]);
	int r = catalog_get_many(s->catalog, wants, 2);
	if (r < 0)
		return 0;
	bool there = wants[0].value.revision, held = is_held(s, &wants[1].value);
	r = there ? meta_log_decode(wants[0].value.bytes, wants[0].value.length, log) : 0;
	catalog_wants_free(wants, 2);
	if (!there) {
		doomed_forget_all(s->catalog, volume);
		return 1;
	}
	if (r < 0 || held)
		return 0;
	r = store_forsaken(s, volume, log);
	if (r == 0)
		return free_some(s, volume, log) == 1;
	if (r < 0 || destroy_unread(s, volume, log) < 0)
		return 0;
	doomed_forget_all(s->catalog, volume);
	return 1;
}

struct waiting {
	uint64_t *volumes; /* malloc'd */
	size_t count;
};

/* All of them: those that come first may be the ones that wait for others. In order of volumes. */
static int note_waiting(void *arg, const char *key, const struct catalog_value *value)
{
	struct waiting *w = arg;
	uint64_t volume, mark;
	(void)value;
	if (!meta_reap_parse(key, &volume, &mark) || (w->count && w->volumes[w->count - 1] == volume))
		return 0;
	if (array_more(&w->volumes, w->count) < 0)
		return -ENOMEM;
	w->volumes[w->count++] = volume;
	return 0;
}

void store_reap(struct store *s)
{
	struct meta_log *log = malloc(sizeof *log);
	struct waiting w = { 0 };
	bool again = log && catalog_recover_unfinished(s->catalog) == 0;
	/* a volume that goes lets go of its parent's snapshot, which may have waited only for that: until nothing moves */
	for (unsigned round = 0; again && round < SOURCES_MAX; round++) {
		again = false;
		w.count = 0;
		if (catalog_list(s->catalog, "reap/", note_waiting, &w) < 0)
			break;
		for (size_t i = 0; i < w.count; i++)
			again |= reap_one(s, w.volumes[i], log) == 1;
	}
	free(w.volumes);
	free(log);
}

/* ---- deleting a volume ---- */

struct doom {
	uint64_t volume;
	struct store_mark *marks;
	size_t count;
	bool any_alive;
};

static int doom_entry(void *arg, const struct meta_snapshot *m)
{
	struct doom *d = arg;
	if (m->doomed)
		return 0;
	d->any_alive = true;
	if (array_more(&d->marks, d->count) < 0)
		return -ENOMEM;
	d->marks[d->count++] = (struct store_mark){ d->volume, m->mark_seq };
	return 0;
}

static int doom_snapshots(struct store *s, uint64_t volume, bool allowed, struct report *report)
{
	struct doom d = { .volume = volume };
	int r = store_each_snapshot(s->catalog, volume, doom_entry, &d);
	if (r == 0 && d.any_alive && !allowed)
		r = report_set(report, -ENOTEMPTY, "it has snapshots (delete them first, or give --with-snapshots)");
	if (r == 0)
		r = store_doom_all(s, d.marks, d.count);
	free(d.marks);
	return r;
}

/* The name goes and the head is doomed in one transaction, unless somebody has it. */
static int doom_volume(struct store *s, const char *name, struct meta_name *named, struct report *report)
{
	char keys[4][META_KEY_BYTES];
	struct meta_owner owner;
	struct meta_log *log = malloc(sizeof *log);
	uint64_t revisions[3];
	int r = log ? meta_get_name(s->catalog, name, named, &revisions[0]) : -ENOMEM;
	if (r == 0)
		r = meta_get_log(s->catalog, named->volume, log, &revisions[1]);
	if (r == 0)
		r = meta_get_owner(s->catalog, named->volume, &owner, &revisions[2]);
	if (r == 0)
		r = store_refuse_owner(s->places, named->volume, &owner, report);
	if (r < 0) {
		free(log);
		return r;
	}
	meta_key_name(name, keys[0]);
	meta_key_log(named->volume, keys[1]);
	meta_key_owner(named->volume, keys[2]);
	log->doomed = true;
	log->stamp = env_random(s->env);
	owner.epoch++;
	owner.state = OWNER_FREE;
	size_t log_length = 0, owner_length = 0;
	uint8_t *log_bytes = meta_log_encode(log, &log_length), *owner_bytes = meta_owner_encode(&owner, &owner_length);
	struct catalog_txn *t = malloc(sizeof *t);
	r = log_bytes && owner_bytes && t ? 0 : -ENOMEM;
	if (r == 0) {
		catalog_txn_init(t);
		for (unsigned i = 0; i < 3; i++)
			catalog_txn_compare(t, keys[i], revisions[i]);
		catalog_txn_delete(t, keys[0]);
		catalog_txn_put(t, keys[1], log_bytes, log_length);
		catalog_txn_put(t, keys[2], owner_bytes, owner_length);
		meta_key_reap(named->volume, keys[3]);
		catalog_txn_put(t, keys[3], "", 0);
		r = store_txn(s->catalog, t);
	}
	free(t);
	free(owner_bytes);
	free(log_bytes);
	free(log);
	if (r == -EAGAIN) {
		struct meta_name there;
		int found = store_get_name(s->catalog, name, &there);
		r = found == -ENOENT ? 0 : found == 0 ? -EAGAIN : -ETIMEDOUT; /* an attempt of unknown outcome had arrived; hadn't; not known */
	}
	return store_txn_report(s, r, "the volume was changed meanwhile (try again)", report);
}

/* The epoch goes up: whatever a dead owner's transaction of unknown outcome would still do (publish a snapshot), it can't any
 * more. */
static int fence_idle(struct store *s, uint64_t volume)
{
	char key[META_KEY_BYTES];
	meta_key_owner(volume, key);
	for (unsigned attempt = 0; attempt < 100; attempt++) {
		struct meta_owner owner;
		uint64_t revision;
		size_t length = 0;
		int r = meta_get_owner(s->catalog, volume, &owner, &revision);
		if (r < 0)
			return r;
		owner.epoch++;
		owner.state = OWNER_FREE;
		uint8_t *bytes = meta_owner_encode(&owner, &length);
		struct catalog_txn *t = malloc(sizeof *t);
		r = bytes && t ? 0 : -ENOMEM;
		if (r == 0) {
			catalog_txn_init(t);
			catalog_txn_compare(t, key, revision);
			catalog_txn_put(t, key, bytes, length);
			r = store_txn(s->catalog, t);
		}
		free(t);
		free(bytes);
		if (r != -EAGAIN)
			return r;
	}
	return -EAGAIN;
}

int store_volume_delete(struct store *s, const char *name, bool with_snapshots, struct report *report)
{
	struct meta_name named;
	uint64_t id;
	int r = store_find_volume(s->places, name, &id, report);
	if (r == 0)
		r = meta_get_name(s->catalog, name, &named, NULL);
	if (r == 0 && (r = store_refuse_held(s->places, named.volume, report)) < 0)
		return r;
	if (r == 0)
		r = fence_idle(s, named.volume);
	if (r == 0)
		r = doom_snapshots(s, named.volume, with_snapshots, report);
	for (uint32_t i = 0; r == 0 && i < named.history_count; i++)
		r = doom_snapshots(s, named.history[i], with_snapshots, report);
	if (r == 0)
		r = doom_volume(s, name, &named, report);
	if (r < 0)
		return report_set(report, r, "the catalog: %s", catalog_text(s->catalog, r));
	store_reap(s);
	return 0;
}
