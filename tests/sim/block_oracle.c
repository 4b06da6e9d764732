#include "tests/sim/block_oracle.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"

enum write_state { WRITE_FLYING, WRITE_DONE, WRITE_FAILED };

struct write {
	uint64_t sector, count;
	uint64_t start, end; /* moments; end only once it isn't flying */
	enum write_state state;
	bool zero, durable;
};

struct history {
	uint32_t *writes; /* that may be there, by start */
	uint32_t count, room;
};

struct block_oracle {
	uint64_t sectors, clock;
	uint64_t flushed; /* writes that ended before this are durable */
	uint64_t lost;           /* when a flush failed last */
	struct history *history;
	struct write *writes; /* by id; 0: zeroes from the start, 1: the base content */
	uint32_t count, room;
};

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

static void history_add(struct history *h, uint32_t id)
{
	if (h->count == h->room) {
		h->room = h->room ? 2 * h->room : 4;
		h->writes = must(realloc(h->writes, h->room * sizeof *h->writes));
	}
	h->writes[h->count++] = id;
}

static uint32_t write_add(struct block_oracle *o, const struct write *w)
{
	if (o->count == o->room) {
		o->room = o->room ? 2 * o->room : 64;
		o->writes = must(realloc(o->writes, o->room * sizeof *o->writes));
	}
	o->writes[o->count] = *w;
	return o->count++;
}

struct block_oracle *block_oracle_create(uint64_t sectors, bool base_content)
{
	struct block_oracle *o = must(calloc(1, sizeof *o));
	o->sectors = sectors;
	o->clock = 1;
	o->history = must(calloc(sectors, sizeof *o->history));
	struct write first = { .count = sectors, .state = WRITE_DONE, .durable = true, .zero = true };
	write_add(o, &first);
	first.zero = false;
	write_add(o, &first);
	for (uint64_t i = 0; i < sectors; i++)
		history_add(&o->history[i], base_content);
	return o;
}

struct block_oracle *block_oracle_copy(const struct block_oracle *from)
{
	struct block_oracle *o = must(malloc(sizeof *o));
	*o = *from;
	o->writes = must(malloc(o->room * sizeof *o->writes));
	memcpy(o->writes, from->writes, o->count * sizeof *o->writes);
	o->history = must(calloc(o->sectors, sizeof *o->history));
	for (uint64_t i = 0; i < o->sectors; i++)
		for (uint32_t k = 0; k < from->history[i].count; k++)
			history_add(&o->history[i], from->history[i].writes[k]);
	return o;
}

void block_oracle_free(struct block_oracle *o)
{
	if (!o)
		return;
	for (uint64_t i = 0; i < o->sectors; i++)
		free(o->history[i].writes);
	free(o->history);
	free(o->writes);
	free(o);
}

uint64_t block_oracle_sectors(const struct block_oracle *o) { return o->sectors; }

void block_oracle_fill(void *to, uint64_t sector, uint64_t id)
{
	uint8_t *b = to;
	if (id == 0) {
		memset(b, 0, ORACLE_SECTOR);
		return;
	}
	for (unsigned i = 0; i < ORACLE_SECTOR; i += 16) {
		put_le64(b + i, id);
		put_le64(b + i + 8, sector << 16 | i);
	}
}

/* ---- writing ---- */

uint64_t block_oracle_write(struct block_oracle *o, uint64_t sector, uint64_t count, bool zero)
{
	assert(range_within(sector, count, o->sectors));
	struct write w = { .sector = sector, .count = count, .start = ++o->clock, .zero = zero };
	uint32_t id = write_add(o, &w);
	for (uint64_t i = 0; i < count; i++)
		history_add(&o->history[sector + i], id);
	return id;
}

void block_oracle_written(struct block_oracle *o, uint64_t id, int status, bool fua)
{
	struct write *w = &o->writes[id];
	assert(w->state == WRITE_FLYING);
	w->end = ++o->clock;
	w->state = status || w->start < o->lost ? WRITE_FAILED : WRITE_DONE;
	w->durable = w->state == WRITE_DONE && fua;
}

uint64_t block_oracle_begin(struct block_oracle *o) { return ++o->clock; }

/* ---- what may be there ---- */

static uint64_t write_end(const struct write *w) { return w->state == WRITE_FLYING ? UINT64_MAX : w->end; }

static bool write_kept(const struct block_oracle *o, const struct write *w)
{
	return w->state == WRITE_DONE && (w->durable || w->end < o->flushed);
}

static bool write_matches(const struct block_oracle *o, uint32_t id, uint64_t sector, const void *bytes)
{
	uint8_t want[ORACLE_SECTOR];
	block_oracle_fill(want, sector, o->writes[id].zero ? 0 : id);
	return memcmp(want, bytes, ORACLE_SECTOR) == 0;
}

static int say_unknown(char *why, size_t size, uint64_t sector, const uint8_t *bytes)
{
	snprintf(why, size, "sector %llu reads as nothing that was ever written there (%016llx %016llx …)",
		 (unsigned long long)sector, (unsigned long long)get_le64(bytes), (unsigned long long)get_le64(bytes + 8));
	return -1;
}

static int say_replaced(char *why, size_t size, uint64_t sector, uint32_t id, uint32_t by)
{
	snprintf(why, size, "sector %llu reads as write %u, which write %u had replaced", (unsigned long long)sector, id, by);
	return -1;
}

/* Does a write replace what was there before it? */
typedef bool counts_fn(const struct block_oracle *o, const struct write *w, uint64_t moment);

static bool counts_before(const struct block_oracle *o, const struct write *w, uint64_t moment)
{
	(void)o;
	return w->state == WRITE_DONE && w->end < moment;
}
static bool counts_kept(const struct block_oracle *o, const struct write *w, uint64_t moment)
{
	(void)moment;
	return write_kept(o, w);
}

/* A write that counts and began after `id` had ended; 0: none. */
static uint32_t replaced_by(const struct block_oracle *o, uint64_t sector, uint32_t id, counts_fn *counts, uint64_t moment)
{
	const struct history *h = &o->history[sector];
	for (uint32_t k = 0; k < h->count; k++) {
		const struct write *w = &o->writes[h->writes[k]];
		if (w->start > write_end(&o->writes[id]) && counts(o, w, moment))
			return h->writes[k];
	}
	return 0;
}

/* Which write the bytes are: the newest that matches and may be there. -1 with `why` if none. */
static int sector_judge(const struct block_oracle *o, uint64_t sector, const uint8_t *bytes, counts_fn *counts, uint64_t moment,
			uint32_t *ret_id, char *why, size_t size)
{
	const struct history *h = &o->history[sector];
	bool matched = false;
	for (uint32_t k = h->count; k-- > 0;) {
		uint32_t id = h->writes[k], by;
		if (!write_matches(o, id, sector, bytes))
			continue;
		by = replaced_by(o, sector, id, counts, moment);
		if (!by) {
			*ret_id = id;
			return 0;
		}
		if (!matched)
			say_replaced(why, size, sector, id, by);
		matched = true;
	}
	return matched ? -1 : say_unknown(why, size, sector, bytes);
}

int block_oracle_read(struct block_oracle *o, uint64_t began, uint64_t sector, uint64_t count, const void *bytes, char *why,
		      size_t why_size)
{
	for (uint64_t i = 0; i < count; i++) {
		uint32_t id;
		if (sector_judge(o, sector + i, (const uint8_t *)bytes + i * ORACLE_SECTOR, counts_before, began, &id, why, why_size) < 0)
			return -1;
	}
	return 0;
}

void block_oracle_flushed(struct block_oracle *o, uint64_t began, int status)
{
	if (status == 0) {
		o->flushed = MAX(o->flushed, began);
		return;
	}
	/* What a failed flush should have covered may be gone, and so may what was being written then. */
	o->lost = ++o->clock;
	for (uint32_t i = 2; i < o->count; i++)
		if (o->writes[i].state == WRITE_DONE && !write_kept(o, &o->writes[i])) {
			o->writes[i].state = WRITE_FAILED;
			o->writes[i].end = o->clock;
		}
}

/* ---- crashes ---- */

static int prefix_judge(const struct block_oracle *o, const uint32_t *seen, char *why, size_t why_size)
{
	uint32_t newest = 0;
	for (uint64_t i = 0; i < o->sectors; i++) /* zeroes may be older ones */
		if (!o->writes[seen[i]].zero && o->writes[seen[i]].start > o->writes[newest].start)
			newest = seen[i];
	for (uint64_t i = 0; i < o->sectors; i++) {
		uint32_t by = replaced_by(o, i, seen[i], counts_before, o->writes[newest].start);
		if (!by)
			continue;
		snprintf(why, why_size, "write %u is there, but write %u, which had completed before it began, isn't (sector %llu reads as %u)",
			 newest, by, (unsigned long long)i, seen[i]);
		return -1;
	}
	return 0;
}

static void settle(struct block_oracle *o, const uint32_t *seen)
{
	for (uint64_t i = 0; i < o->sectors; i++) {
		o->history[i].count = 0;
		history_add(&o->history[i], seen[i]);
		struct write *w = &o->writes[seen[i]];
		w->state = WRITE_DONE;
		w->durable = true;
		w->end = MIN(write_end(w), o->clock);
	}
}

int block_oracle_recovered(struct block_oracle *o, const struct block_oracle_crash *how, const void *bytes, char *why, size_t why_size)
{
	int r = 0;
	uint32_t *seen = must(calloc(o->sectors, sizeof *seen));
	++o->clock;
	if (how->keeps)
		o->flushed = MAX(o->flushed, how->settles ? o->clock : o->flushed);
	for (uint32_t i = 2; i < o->count; i++) {
		struct write *w = &o->writes[i];
		if (w->state == WRITE_FLYING || (w->state == WRITE_DONE && !how->keeps && !how->prefix && !write_kept(o, w))) {
			w->state = WRITE_FAILED;
			w->end = o->clock;
		}
	}
	for (uint64_t i = 0; i < o->sectors && r == 0; i++)
		r = sector_judge(o, i, (const uint8_t *)bytes + i * ORACLE_SECTOR, how->keeps ? counts_before : counts_kept, o->clock,
				 &seen[i], why, why_size);
	if (r == 0 && how->prefix)
		r = prefix_judge(o, seen, why, why_size);
	if (r == 0 && how->settles)
		settle(o, seen);
	++o->clock;
	free(seen);
	return r;
}
