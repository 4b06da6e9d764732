/* Space comes back: doomed snapshots, deleted and rolled-back heads, whole volumes (R25, R29). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "parallax/behead.h"
#include "parallax/store_private.h"

struct census {
	unsigned alive, held, all;
	uint64_t marks[256]; /* to be removed with the volume, a batch at a time */
};

static int census_entry(void *arg, const struct meta_snapshot *m)
{
	struct census *c = arg;
	c->alive += !m->doomed;
	c->held += m->clones > 0 || m->readers > 0;
	if (c->all < ARRAY_COUNT(c->marks))
		c->marks[c->all] = m->mark_seq;
	c->all++;
	return 0;
}

/* The keys of a volume that is gone; snapshots first, a few at a time, the log last. */
static int remove_keys(struct store *s, uint64_t volume)
{
	char keys[40][META_KEY_BYTES];
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
		}
		r = store_txn(s->catalog, t);
		if (c->all <= n)
			break;
	}
	free(t);
	free(c);
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
	}
	return r ? r : remove_keys(s, volume);
}

/* True if the volume is gone. */
static bool reap_one(struct store *s, uint64_t volume, struct meta_log *log)
{
	struct census *c = calloc(1, sizeof *c);
	struct volume *v;
	bool gone = false;
	if (c && meta_get_log(s->catalog, volume, log, NULL) == 0 && store_each_snapshot(s->catalog, volume, census_entry, c) == 0) {
		if (log->doomed && c->alive == 0 && c->held == 0) {
			gone = destroy(s, volume, log) == 0;
		} else if (store_maintain(s->places, volume, &v, NULL) == 0) {
			if (log->doomed)
				volume_behead(v);
			volume_checkpoint(v);
			volume_close(v);
		}
	}
	free(c);
	return gone;
}

void store_reap(struct store *s, uint64_t volume)
{
	struct meta_log *log = malloc(sizeof *log);
	/* a volume that goes lets go of its parent's snapshot, which may have waited only for that */
	while (log && volume && reap_one(s, volume, log)) {
		uint64_t parent = log->parent_volume;
		if (parent)
			store_hold_snapshot(s, parent, log->parent_mark, -1);
		volume = parent;
	}
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
	char keys[3][META_KEY_BYTES];
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
		r = store_txn(s->catalog, t);
	}
	free(t);
	free(owner_bytes);
	free(log_bytes);
	free(log);
	return r;
}

int store_volume_delete(struct store *s, const char *name, bool with_snapshots, struct report *report)
{
	struct meta_name named;
	uint64_t id;
	int r = store_find_volume(s->places, name, &id, report);
	if (r == 0)
		r = meta_get_name(s->catalog, name, &named, NULL);
	struct meta_owner owner;
	if (r == 0 && meta_get_owner(s->catalog, named.volume, &owner, NULL) == 0 && places_holder_alive(s->places, &owner))
		return report_set(report, -EBUSY, "it is attached as %s (detach it first)", owner.holder);
	if (r == 0)
		r = doom_snapshots(s, named.volume, with_snapshots, report);
	for (uint32_t i = 0; r == 0 && i < named.history_count; i++)
		r = doom_snapshots(s, named.history[i], with_snapshots, report);
	if (r == 0)
		r = doom_volume(s, name, &named, report);
	if (r < 0)
		return report_set(report, r, "the catalog: %s", strerror(-r));
	store_reap(s, named.volume);
	for (uint32_t i = 0; i < named.history_count; i++)
		store_reap(s, named.history[i]);
	return 0;
}
