/* Making a volume: its numbers and its keys, in one transaction (R23, R24).
 *
 *   read at once: both counters, for a clone its parent's record and the snapshot's ─▶ one transaction: compares these, raises the counters,
 *   puts name, log, owner, what holds the snapshot, what says that it is an import ─▶ somebody was faster: again
 *
 * So it costs a read and a write, and no number is lost by an attempt that fails. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/store/store_private.h"

#define TRIES 100
#define PAUSE_NS_MAX (20 * NS_PER_MS)

enum { WANT_VOLUME, WANT_SEGMENT, WANT_SNAPSHOT, WANT_PARENT, WANTS };

struct making {
	struct store *store;
	const char *name, *import;
	struct meta_log *log;
	struct catalog_want wants[WANTS];
	unsigned want_count;
	char keys[WANTS][META_KEY_BYTES];
	uint64_t id, border;
	bool depth_known;
	/* the transaction's */
	struct catalog_txn txn;
	uint8_t counters[2][8];
	char log_key[META_KEY_BYTES], owner_key[META_KEY_BYTES], name_key[META_KEY_BYTES], import_key[META_KEY_BYTES], hold_keys[2][META_KEY_BYTES];
};

int store_too_deep(struct report *report)
{
	return report_set(report, -EMLINK, "it would be a clone of a clone … more than %d deep (export the snapshot and import it)", SOURCES_MAX);
}

void store_hold_snapshot(uint64_t clone, const struct meta_log *log, uint64_t revision, struct catalog_txn *t, char (*keys)[META_KEY_BYTES])
{
	meta_key_snapshot(log->parent_volume, log->parent_mark, keys[0]);
	meta_key_clone(log->parent_volume, log->parent_mark, clone, keys[1]);
	catalog_txn_compare(t, keys[0], revision);
	catalog_txn_put(t, keys[1], "", 0);
}

static void new_fill(struct store *s, uint64_t id, uint64_t border, struct meta_log *log)
{
	put_le64(log->volume.bytes, env_random(s->env));
	put_le64(log->volume.bytes + 8, id);
	log->origin = position_make(border, 0xffff);
	log->last_id = border;
	log->from_seq = 1;
	log->created_ns = env_wall_ns(s->env);
}

void store_clone_fill(struct store *s, uint64_t id, uint64_t border, const struct meta_log *parent, const struct meta_snapshot *m, struct meta_log *log)
{
	*log = (struct meta_log){ .size_bytes = m->size_bytes, .replicas = parent->replicas, .min_replicas = parent->min_replicas,
		.io_timeout_ms = parent->io_timeout_ms, .parent_volume = log->parent_volume, .parent_mark = log->parent_mark, .root = m->root,
		.embedded = parent->embedded, .mapped_blocks = m->mapped_blocks };
	new_fill(s, id, border, log);
}

/* ---- reading ---- */

static void wants_init(struct making *m)
{
	snprintf(m->keys[WANT_VOLUME], META_KEY_BYTES, "%s", META_COUNTER_VOLUME);
	snprintf(m->keys[WANT_SEGMENT], META_KEY_BYTES, "%s", META_COUNTER_SEGMENT);
	m->want_count = m->log->parent_volume ? WANTS : WANT_SNAPSHOT;
	if (m->log->parent_volume) {
		meta_key_snapshot(m->log->parent_volume, m->log->parent_mark, m->keys[WANT_SNAPSHOT]);
		meta_key_log(m->log->parent_volume, m->keys[WANT_PARENT]);
	}
	for (unsigned i = 0; i < m->want_count; i++)
		m->wants[i].key = m->keys[i];
}

/* The number after the counter's, and after `above`. A damaged one is never begun anew: a number given twice would be the end of somebody's data. */
static int number_after(const struct catalog_want *w, uint64_t above, uint64_t *ret)
{
	if (w->value.revision && w->value.length != 8)
		return -EUCLEAN;
	*ret = MAX(w->value.revision ? get_le64(w->value.bytes) : 0, above) + 1;
	return 0;
}

static int check_depth(struct making *m, const struct meta_log *parent, struct report *report)
{
	int depth = m->depth_known || !parent->parent_volume ? 0 : sources_depth(m->store->catalog, parent->parent_volume);
	m->depth_known = depth >= 0;
	return depth < 0 ? depth : depth + 1 > SOURCES_MAX ? store_too_deep(report) : 0;
}

/* -ENODATA: the snapshot has no root yet. */
static int fill_clone(struct making *m, struct report *report)
{
	struct meta_log *parent = malloc(sizeof *parent);
	const struct catalog_value *snapshot = &m->wants[WANT_SNAPSHOT].value, *log = &m->wants[WANT_PARENT].value;
	struct meta_snapshot s;
	int r = !parent ? -ENOMEM : !snapshot->revision || !log->revision ? -ENOENT : meta_snapshot_decode(snapshot->bytes, snapshot->length, &s);
	if (r == 0 && s.doomed)
		r = -ENOENT;
	if (r == -ENOENT)
		report_set(report, r, "the snapshot is gone");
	if (r == 0)
		r = meta_log_decode(log->bytes, log->length, parent);
	if (r == 0)
		r = check_depth(m, parent, report);
	if (r == 0 && !s.has_root)
		r = -ENODATA;
	if (r == 0)
		r = number_after(&m->wants[WANT_SEGMENT], parent->last_id, &m->border); /* R1 */
	if (r == 0)
		store_clone_fill(m->store, m->id, m->border, parent, &s, m->log);
	free(parent);
	return r;
}

static int fill_new(struct making *m)
{
	int r = number_after(&m->wants[WANT_SEGMENT], 0, &m->border);
	if (r == 0)
		new_fill(m->store, m->id, m->border, m->log);
	return r;
}

static int read_all(struct making *m, struct report *report)
{
	struct store *s = m->store;
	int r = -ENODATA;
	for (bool asked = false; r == -ENODATA; asked = true) {
		uint64_t volume = m->log->parent_volume, mark = m->log->parent_mark;
		if (asked && (r = store_want_root(s->places, volume, mark, s, report)) < 0)
			return r;
		catalog_wants_free(m->wants, m->want_count);
		r = catalog_get_many(s->catalog, m->wants, m->want_count);
		if (r == 0)
			r = number_after(&m->wants[WANT_VOLUME], 0, &m->id);
		if (r == 0)
			r = volume ? fill_clone(m, report) : fill_new(m);
	}
	snprintf(m->log->name, sizeof m->log->name, "%s", m->name);
	return r < 0 ? report_set(report, r, "the catalog: %s", catalog_text(s->catalog, r)) : 0;
}

/* ---- writing ---- */

static void put_counter(struct making *m, unsigned which, uint64_t number)
{
	put_le64(m->counters[which], number);
	catalog_txn_compare(&m->txn, m->keys[which], m->wants[which].value.revision);
	catalog_txn_put(&m->txn, m->keys[which], m->counters[which], sizeof m->counters[which]);
}

static int write_all(struct making *m)
{
	struct catalog_txn *t = &m->txn;
	struct meta_owner owner = { 0 };
	struct meta_name named = { .volume = m->id };
	size_t log_length = 0, owner_length = 0, name_length = 0;
	uint8_t *log = meta_log_encode(m->log, &log_length), *free_owner = meta_owner_encode(&owner, &owner_length), *name = meta_name_encode(&named, &name_length);
	int r = log && free_owner && name ? 0 : -ENOMEM;
	meta_key_log(m->id, m->log_key);
	meta_key_owner(m->id, m->owner_key);
	meta_key_name(m->name, m->name_key);
	store_import_key(m->id, m->import_key);
	if (r == 0) {
		catalog_txn_init(t);
		/* an attempt that arrives late finds a counter that has gone on: it can't make a volume empty again that was written since */
		put_counter(m, WANT_VOLUME, m->id);
		put_counter(m, WANT_SEGMENT, m->border);
		if (m->log->parent_volume)
			store_hold_snapshot(m->id, m->log, m->wants[WANT_SNAPSHOT].value.revision, t, m->hold_keys);
		catalog_txn_compare(t, m->name_key, 0);
		catalog_txn_compare(t, m->log_key, 0);
		catalog_txn_put(t, m->name_key, name, name_length);
		catalog_txn_put(t, m->log_key, log, log_length);
		catalog_txn_put(t, m->owner_key, free_owner, owner_length);
		if (m->import)
			catalog_txn_put(t, m->import_key, m->import, strlen(m->import));
		r = store_txn(m->store->catalog, t);
	}
	free(name);
	free(free_owner);
	free(log);
	return r;
}

/* A compare failed: it was ours (0), or the name is taken, or, most often, another took a number (-EAGAIN). */
static int look_why(struct making *m, struct report *report)
{
	struct store *s = m->store;
	struct meta_name there;
	int r = store_was_made(s, m->id, &m->log->volume);
	if (r == -EAGAIN && store_get_name(s->catalog, m->name, &there) == 0)
		return report_set(report, -EEXIST, "there is a volume '%s' already (choose another name, or delete it)", m->name);
	return r;
}

static int make(struct making *m, struct report *report)
{
	struct store *s = m->store;
	int r = -EAGAIN;
	for (unsigned attempt = 0; r == -EAGAIN && attempt < TRIES && !s->env->dead; attempt++) {
		if (attempt) /* apart from those who try the same */
			fiber_sleep(&s->env->loop, 1 + env_random(s->env) % MIN(attempt * 2 * NS_PER_MS, PAUSE_NS_MAX));
		r = read_all(m, report);
		if (r < 0)
			return r;
		r = write_all(m);
		if (r == -EAGAIN)
			r = look_why(m, report);
	}
	return store_txn_report(s, r, "others make volumes all the time, or the snapshot is changed again and again (try again)", report);
}

int store_make(struct store *s, const char *name, struct meta_log *log, const char *import, struct report *report)
{
	struct making *m = calloc(1, sizeof *m);
	if (!m)
		return -ENOMEM;
	m->store = s;
	m->name = name;
	m->import = import;
	m->log = log;
	wants_init(m);
	int r = make(m, report);
	catalog_wants_free(m->wants, m->want_count);
	free(m);
	return r;
}
