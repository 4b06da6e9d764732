#include "parallax/volume/doomed.h"

#include <errno.h>
#include <stdlib.h>

#include "core/array.h"
#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/catalog/meta.h"

enum { READ_TOGETHER = CATALOG_TXN_MAX, COUNTED_TOGETHER = CATALOG_TXN_MAX / 2, FORGOTTEN_TOGETHER = 50 };

void doomed_free(struct doomed *d)
{
	free(d->entries);
	*d = (struct doomed){ 0 };
}

/* ---- what is noted ---- */

static int find_note(void *arg, const char *key, const struct catalog_value *value)
{
	struct doomed *d = arg;
	uint64_t volume, mark;
	if (!meta_reap_parse(key, &volume, &mark))
		return 0;
	if (!mark) {
		d->whole = value->revision;
		return 0;
	}
	if (array_more(&d->entries, d->count) < 0)
		return -ENOMEM;
	d->entries[d->count++] = (struct doomed_snapshot){ .mark_seq = mark, .noted = value->revision };
	return 0;
}

static int find_notes(struct catalog *c, uint64_t volume, struct doomed *d)
{
	char prefix[META_KEY_BYTES];
	meta_key_reap(volume, prefix);
	return catalog_list(c, prefix, find_note, d);
}

/* ---- the snapshots ---- */

static void fill(struct doomed_snapshot *s, const struct meta_snapshot *m, uint64_t revision)
{
	s->revision = m->doomed ? revision : 0;
	s->rootless = !m->has_root;
}

struct reading {
	struct catalog_want wants[READ_TOGETHER];
	char keys[READ_TOGETHER][META_KEY_BYTES];
};

static int read_some(struct catalog *c, uint64_t volume, struct doomed_snapshot *of, unsigned count, struct reading *b)
{
	for (unsigned i = 0; i < count; i++) {
		meta_key_snapshot(volume, of[i].mark_seq, b->keys[i]);
		b->wants[i] = (struct catalog_want){ .key = b->keys[i] };
	}
	int r = catalog_get_many(c, b->wants, count);
	if (r < 0)
		return r;
	for (unsigned i = 0; r == 0 && i < count; i++) {
		const struct catalog_value *v = &b->wants[i].value;
		struct meta_snapshot m;
		r = v->revision ? meta_snapshot_decode(v->bytes, v->length, &m) : 0;
		if (r == 0 && v->revision)
			fill(&of[i], &m, v->revision);
	}
	catalog_wants_free(b->wants, count);
	return r;
}

static int read_noted(struct catalog *c, uint64_t volume, struct doomed *d)
{
	struct reading *b = malloc(sizeof *b);
	int r = b ? 0 : -ENOMEM;
	for (size_t at = 0; r == 0 && at < d->count; at += READ_TOGETHER)
		r = read_some(c, volume, d->entries + at, (unsigned)MIN(d->count - at, (size_t)READ_TOGETHER), b);
	free(b);
	return r;
}

struct census {
	const struct doomed *noted;
	struct doomed found;
	size_t at; /* in `noted` */
};

/* Both are in order of marks. */
static int census_entry(void *arg, const char *key, const struct catalog_value *value)
{
	struct census *n = arg;
	struct meta_snapshot m;
	(void)key;
	int r = meta_snapshot_decode(value->bytes, value->length, &m);
	if (r < 0)
		return r;
	n->found.newest_root = m.root.pointer.position;
	if (!m.doomed)
		return 0;
	if (array_more(&n->found.entries, n->found.count) < 0)
		return -ENOMEM;
	struct doomed_snapshot *s = &n->found.entries[n->found.count++];
	*s = (struct doomed_snapshot){ .mark_seq = m.mark_seq };
	fill(s, &m, value->revision);
	while (n->at < n->noted->count && n->noted->entries[n->at].mark_seq < m.mark_seq)
		n->at++; /* of one that is gone: it is found when only those that are noted are looked at */
	if (n->at < n->noted->count && n->noted->entries[n->at].mark_seq == m.mark_seq)
		s->noted = n->noted->entries[n->at].noted;
	return 0;
}

static int read_all(struct catalog *c, uint64_t volume, struct doomed *d)
{
	char prefix[META_KEY_BYTES];
	struct census n = { .noted = d, .found = { .whole = d->whole } };
	meta_key_snapshots(volume, prefix);
	int r = catalog_list(c, prefix, census_entry, &n);
	doomed_free(d);
	*d = n.found;
	return r;
}

/* ---- who holds them ---- */

struct counting {
	struct catalog_tally tallies[2 * COUNTED_TOGETHER];
	char keys[2 * COUNTED_TOGETHER][META_KEY_BYTES];
	struct doomed_snapshot *of[COUNTED_TOGETHER];
	unsigned count;
};

static int count_some(struct catalog *c, uint64_t volume, struct counting *b)
{
	for (unsigned i = 0; i < b->count; i++) {
		meta_key_snapshot_clones(volume, b->of[i]->mark_seq, b->keys[2 * i]);
		meta_key_snapshot_readers(volume, b->of[i]->mark_seq, b->keys[2 * i + 1]);
		b->tallies[2 * i].prefix = b->keys[2 * i];
		b->tallies[2 * i + 1].prefix = b->keys[2 * i + 1];
	}
	int r = b->count ? catalog_count(c, b->tallies, 2 * b->count) : 0;
	for (unsigned i = 0; r == 0 && i < b->count; i++) {
		b->of[i]->cloned = b->tallies[2 * i].count > 0;
		b->of[i]->read = b->tallies[2 * i + 1].count > 0 && !PLANTED(readers_unseen);
	}
	b->count = 0;
	return r;
}

/* After they were found doomed: who came before is seen now, and nobody can come any more. */
static int count_holders(struct catalog *c, uint64_t volume, struct doomed *d)
{
	struct counting *b = calloc(1, sizeof *b);
	int r = b ? 0 : -ENOMEM;
	for (size_t i = 0; r == 0 && i < d->count; i++) {
		if (d->entries[i].revision)
			b->of[b->count++] = &d->entries[i];
		if (b->count == COUNTED_TOGETHER)
			r = count_some(c, volume, b);
	}
	if (r == 0)
		r = count_some(c, volume, b);
	free(b);
	return r;
}

int doomed_find(struct catalog *c, uint64_t volume, struct doomed *ret)
{
	*ret = (struct doomed){ 0 };
	int r = find_notes(c, volume, ret);
	if (r == 0)
		r = ret->whole ? read_all(c, volume, ret) : ret->count ? read_noted(c, volume, ret) : 0;
	if (r == 0 && ret->count)
		r = count_holders(c, volume, ret);
	if (r < 0)
		doomed_free(ret);
	return r;
}

/* ---- forgetting ---- */

struct forgetting {
	struct catalog_txn txn;
	char keys[FORGOTTEN_TOGETHER][META_KEY_BYTES];
};

/* One that was noted again since keeps the others; then it is for the next look. An attempt of unknown outcome deletes nothing that was noted later. */
static void forget_some(struct catalog *c, struct forgetting *f)
{
	if (f->txn.change_count)
		catalog_txn(c, &f->txn, NULL);
	catalog_txn_init(&f->txn);
}

void doomed_forget(struct catalog *c, uint64_t volume, const struct doomed *d)
{
	struct forgetting *f = malloc(sizeof *f);
	if (!f)
		return;
	catalog_txn_init(&f->txn);
	for (size_t i = 0; i < d->count; i++) {
		const struct doomed_snapshot *s = &d->entries[i];
		if (!s->noted || (s->revision && !s->cloned))
			continue;
		char *key = f->keys[f->txn.change_count];
		meta_key_reap_snapshot(volume, s->mark_seq, key);
		catalog_txn_compare(&f->txn, key, s->noted);
		catalog_txn_delete(&f->txn, key);
		if (f->txn.change_count == FORGOTTEN_TOGETHER)
			forget_some(c, f);
	}
	forget_some(c, f);
	free(f);
}

int doomed_forget_all(struct catalog *c, uint64_t volume)
{
	struct doomed d = { 0 };
	struct forgetting *f = malloc(sizeof *f);
	char whole[META_KEY_BYTES];
	int r = f ? find_notes(c, volume, &d) : -ENOMEM;
	meta_key_reap(volume, whole);
	for (size_t at = 0; r == 0 && at < d.count;) {
		catalog_txn_init(&f->txn);
		for (; at < d.count && f->txn.change_count < FORGOTTEN_TOGETHER; at++) {
			char *key = f->keys[f->txn.change_count];
			meta_key_reap_snapshot(volume, d.entries[at].mark_seq, key);
			catalog_txn_delete(&f->txn, key);
		}
		r = catalog_txn(c, &f->txn, NULL);
	}
	if (r == 0 && d.whole)
		r = catalog_delete_at(c, whole, d.whole);
	doomed_free(&d);
	free(f);
	return r;
}
