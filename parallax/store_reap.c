/* Space comes back: doomed snapshots, deleted and rolled-back heads, whole volumes (R25, R29). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "parallax/behead.h"
#include "parallax/store_private.h"
#include "parallax/wanted.h"

struct census {
	unsigned alive, all, doomed, droppable;
	uint64_t volume, newest_root;
	struct catalog *catalog;
	uint64_t marks[256]; /* to be removed with the volume, a batch at a time */
};

static int census_entry(void *arg, const struct meta_snapshot *m)
{
	struct census *c = arg;
	c->alive += !m->doomed;
	if (c->all < ARRAY_COUNT(c->marks))
		c->marks[c->all] = m->mark_seq;
	c->all++;
	return 0;
}

/* The keys of a volume that is gone; snapshots first, a few at a time, the log and its hold on its parent last. */
static int remove_keys(struct store *s, uint64_t volume, const struct meta_log *log)
{
	char keys[41][META_KEY_BYTES];
	struct census *c = malloc(sizeof *c);
	struct catalog_txn *t = malloc(sizeof *t);
	int r = c && t ? 0 : -ENOMEM;
	while (r == 0) {
		*c = (struct census){ 0 };
		r = store_each_snapshot(s->catalog, volume, census_entry, c);
		unsigned n = MIN(c->all, 38u);
		if (r < 0)
			break;
		catalog_txn_init(t);
		for (unsigned i = 0; i < n; i++) {
			meta_key_snapshot(volume, c->marks[i], keys[i]);
			catalog_txn_delete(t, keys[i]);
		}
		if (c->all <= n) {
			meta_key_log(volume, keys[38]);
			meta_key_owner(volume, keys[39]);
			catalog_txn_delete(t, keys[38]);
			catalog_txn_delete(t, keys[39]);
			if (log->parent_volume) {
				meta_key_clone(log->parent_volume, log->parent_mark, volume, keys[40]);
				catalog_txn_delete(t, keys[40]);
			}
		}
		r = store_txn(s->catalog, t);
		if (c->all <= n)
			break;
	}
	free(t);
	free(c);
	return r;
}

/* All where it belongs say that they don't have it, and nobody else says he does: then one that is lost doesn't matter any more. */
static bool is_gone(struct copies *c, uint64_t segment)
{
	struct peer *peers[PLACEMENT_CANDIDATES_MAX];
	struct segment_io ios[PLACEMENT_CANDIDATES_MAX];
	unsigned n = copies_candidates(c, segment, peers), gone = 0;
	for (unsigned i = 0; i < n; i++)
		ios[i] = (struct segment_io){ .op = SEGMENT_STAT, .segment = segment };
	peers_wait(peers, ios, n);
	for (unsigned i = 0; i < n; i++) {
		bool lost = segment_away(ios[i].status) && !copies_belongs(c, segment, peers[i]);
		gone += lost || ios[i].status == -ENOENT || (ios[i].status == 0 && ios[i].state == COPY_ABSENT);
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
	} else if (r != -ENOENT && table && is_gone(c, table)) {
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

static int destroy(struct store *s, uint64_t volume, const struct meta_log *log)
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
	return r ? r : remove_keys(s, volume, log);
}

static int is_clone(void *arg, const char *key, const struct catalog_value *value)
{
	(void)arg;
	(void)key;
	(void)value;
	return 1;
}

/* Also when the catalog doesn't say. */
static bool has_clones(struct store *s, uint64_t volume)
{
	char prefix[META_KEY_BYTES];
	meta_key_clones(volume, prefix);
	return catalog_list(s->catalog, prefix, is_clone, NULL) != 0;
}

struct marks {
	uint64_t *marks;
	size_t count;
};

static int note_mark(void *arg, const struct meta_snapshot *m)
{
	struct marks *l = arg;
	uint64_t *marks = realloc(l->marks, (l->count + 1) * sizeof *marks);
	if (!marks)
		return -ENOMEM;
	l->marks = marks;
	l->marks[l->count++] = m->mark_seq;
	return 0;
}

/* Somebody reads a snapshot that was deleted meanwhile. Also when the catalog doesn't say. */
static bool has_readers(struct store *s, uint64_t volume)
{
	const struct volume_places *p = &s->places->ops;
	struct marks l = { 0 };
	bool read = p->snapshot_idle && store_each_snapshot(s->catalog, volume, note_mark, &l) != 0;
	for (size_t i = 0; !read && p->snapshot_idle && i < l.count; i++)
		read = p->snapshot_idle(p->arg, volume, l.marks[i]) != 0;
	free(l.marks);
	return read;
}

static int is_droppable(void *arg, const struct meta_snapshot *m)
{
	struct census *c = arg;
	char prefix[META_KEY_BYTES];
	c->newest_root = m->root.pointer.position;
	if (!m->doomed)
		return 0;
	meta_key_snapshot_clones(c->volume, m->mark_seq, prefix);
	c->doomed++;
	c->droppable += catalog_list(c->catalog, prefix, is_clone, NULL) == 0;
	return 0;
}

/* Frees what can be freed now of an existing volume that stays. True if nothing is left that waits. */
static bool reap_some(struct store *s, uint64_t volume, const struct meta_log *log, struct census *c)
{
	struct volume *v;
	c->volume = volume;
	c->catalog = s->catalog;
	if (store_each_snapshot(s->catalog, volume, is_droppable, c) < 0)
		return false;
	bool beheaded = !log->doomed || log->root.pointer.position == c->newest_root;
	if (c->doomed == 0 && beheaded)
		return true;
	if ((c->droppable == 0 && beheaded) || store_maintain(s->places, volume, &v, NULL) < 0)
		return false;
	if (!beheaded)
		volume_behead(v);
	volume_checkpoint(v);
	volume_close(v);
	return false; /* the next look tells */
}

/* 1: the volume is gone; 0: nothing of it waits; -errno: something does. */
static int reap_one(struct store *s, uint64_t volume, struct meta_log *log)
{
	struct census *c = calloc(1, sizeof *c);
	if (!c)
		return -ENOMEM;
	int r = meta_get_log(s->catalog, volume, log, NULL);
	if (r == -ENOENT) {
		free(c);
		*log = (struct meta_log){ 0 };
		return 1;
	}
	if (r == 0)
		r = store_each_snapshot(s->catalog, volume, census_entry, c);
	if (r == 0 && log->doomed && c->alive == 0 && !has_clones(s, volume))
		r = !has_readers(s, volume) && destroy(s, volume, log) == 0 ? 1 : -EAGAIN;
	else if (r == 0)
		r = reap_some(s, volume, log, c) ? 0 : -EAGAIN;
	free(c);
	return r;
}

static void forget_reap(struct store *s, uint64_t volume)
{
	char key[META_KEY_BYTES];
	struct catalog_txn *t = malloc(sizeof *t);
	if (!t)
		return;
	meta_key_reap(volume, key);
	catalog_txn_init(t);
	catalog_txn_delete(t, key);
	store_txn(s->catalog, t);
	free(t);
}

struct waiting {
	uint64_t *volumes;
	size_t count, room;
};

/* All of them: those that come first may be the ones that wait for others. */
static int note_waiting(void *arg, const char *key, const struct catalog_value *value)
{
	struct waiting *w = arg;
	(void)value;
	if (w->count == w->room) {
		size_t room = w->room ? 2 * w->room : 64;
		uint64_t *volumes = realloc(w->volumes, room * sizeof *volumes);
		if (!volumes)
			return -ENOMEM;
		w->volumes = volumes;
		w->room = room;
	}
	w->volumes[w->count++] = strtoull(key + strlen("reap/"), NULL, 16);
	return 0;
}

void store_reap(struct store *s)
{
	struct meta_log *log = malloc(sizeof *log);
	struct waiting w = { 0 };
	bool again = log;
	/* a volume that goes lets go of its parent's snapshot, which may have waited only for that: until nothing moves */
	for (unsigned round = 0; again && round < SOURCES_MAX; round++) {
		again = false;
		w.count = 0;
		if (catalog_list(s->catalog, "reap/", note_waiting, &w) < 0)
			break;
		for (size_t i = 0; i < w.count; i++) {
			int r = reap_one(s, w.volumes[i], log);
			if (r >= 0)
				forget_reap(s, w.volumes[i]);
			again |= r == 1;
		}
	}
	free(w.volumes);
	free(log);
}

/* ---- deleting a volume ---- */

struct doom {
	struct store *store;
	uint64_t *marks;
	size_t count;
	bool any_alive;
};

static int doom_entry(void *arg, const struct meta_snapshot *m)
{
	struct doom *d = arg;
	if (m->doomed)
		return 0;
	d->any_alive = true;
	uint64_t *marks = realloc(d->marks, (d->count + 1) * sizeof *marks);
	if (!marks)
		return -ENOMEM;
	d->marks = marks;
	d->marks[d->count++] = m->mark_seq;
	return 0;
}

static int doom_snapshots(struct store *s, uint64_t volume, bool allowed, struct report *report)
{
	struct doom d = { .store = s };
	int r = store_each_snapshot(s->catalog, volume, doom_entry, &d);
	if (r == 0 && d.any_alive && !allowed)
		r = report_set(report, -ENOTEMPTY, "it has snapshots (delete them first, or give --with-snapshots)");
	for (size_t i = 0; r == 0 && i < d.count; i++)
		r = store_doom_snapshot(s, volume, d.marks[i]);
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
	if (r == 0 && places_holder_alive(s->places, &owner))
		r = report_set(report, -EBUSY, "it is attached as %s (detach it first)", owner.holder);
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
	struct meta_name there;
	if (r == -EAGAIN && store_get_name(s->catalog, name, &there) == -ENOENT)
		r = 0; /* an attempt of unknown outcome had arrived */
	free(log);
	return r;
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
	struct meta_owner owner;
	if (r == 0 && store_holder(s->places, named.volume, &owner))
		return report_set(report, -EBUSY, "it is attached as %s (detach it first)", owner.holder);
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
