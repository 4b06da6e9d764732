#include "tests/sim/oracle.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"

#define NEVER UINT64_MAX

struct write {
	uint64_t id;            /* index + 1 */
	uint64_t start, end;    /* end NEVER: under way; start NEVER: must not show */
	uint32_t first, count;
	bool zero, acked, durable;
	bool missing;           /* the recovery after it showed only what came before it */
};

struct sector {
	uint64_t *writes;       /* ids, oldest first; 0 is what was there in the beginning, or at the last recovery */
	uint32_t count, room;
	uint64_t base;          /* value of that: a write's id, 0 for zeroes */
};

struct oracle {
	uint32_t sector_count;
	uint64_t now, epoch_start;
	struct write *writes;
	uint64_t write_count, write_room, first_of_life;
	struct sector *sectors;
	bool server_power;
	bool power;             /* since the last recovery: only durable writes are sure */
	char text[256];
};

struct oracle *oracle_create(uint32_t sectors)
{
	struct oracle *o = calloc(1, sizeof *o);
	o->sector_count = sectors;
	o->sectors = calloc(sectors, sizeof *o->sectors);
	return o;
}

void oracle_destroy(struct oracle *o)
{
	if (!o)
		return;
	for (uint32_t i = 0; i < o->sector_count; i++)
		free(o->sectors[i].writes);
	free(o->sectors);
	free(o->writes);
	free(o);
}

uint32_t oracle_sectors(const struct oracle *o) { return o->sector_count; }
uint64_t oracle_now(struct oracle *o) { return ++o->now; }

static struct write *write_of(struct oracle *o, uint64_t id) { return &o->writes[id - 1]; }

static void sector_fill(uint64_t id, uint32_t sector, uint8_t *to)
{
	uint64_t x = id * UINT64_C(0x9E3779B97F4A7C15) ^ sector;
	put_le64(to, id);
	put_le64(to + 8, sector);
	for (unsigned i = 16; i < ORACLE_SECTOR; i += 8) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		put_le64(to + i, x);
	}
}

/* Which write's bytes these are: its id, 0 for zeroes, NEVER for neither. */
static uint64_t sector_value(const struct oracle *o, uint32_t sector, const uint8_t *bytes)
{
	static const uint8_t zeroes[ORACLE_SECTOR];
	uint8_t want[ORACLE_SECTOR];
	uint64_t id = get_le64(bytes);
	if (memcmp(bytes, zeroes, ORACLE_SECTOR) == 0)
		return 0;
	if (id == 0 || id > o->write_count)
		return NEVER;
	sector_fill(id, sector, want);
	return memcmp(bytes, want, ORACLE_SECTOR) == 0 ? id : NEVER;
}

uint64_t oracle_write_begin(struct oracle *o, uint32_t first, uint32_t count, bool zero, void *ret_bytes)
{
	assert(first + count <= o->sector_count);
	if (o->write_count == o->write_room) {
		o->write_room = o->write_room ? o->write_room * 2 : 256;
		o->writes = realloc(o->writes, o->write_room * sizeof *o->writes);
	}
	uint64_t id = ++o->write_count;
	*write_of(o, id) = (struct write){ .id = id, .start = ++o->now, .end = NEVER, .first = first, .count = count, .zero = zero };
	for (uint32_t s = first; s < first + count; s++) {
		struct sector *k = &o->sectors[s];
		if (k->count == k->room) {
			k->room = k->room ? k->room * 2 : 8;
			k->writes = realloc(k->writes, k->room * sizeof *k->writes);
		}
		k->writes[k->count++] = id;
		if (!zero)
			sector_fill(id, s, (uint8_t *)ret_bytes + (size_t)(s - first) * ORACLE_SECTOR);
	}
	return id;
}

void oracle_write_end(struct oracle *o, uint64_t id, bool acked, bool durable)
{
	struct write *w = write_of(o, id);
	w->end = ++o->now;
	w->acked = acked;
	w->durable = acked && durable;
}

void oracle_write_never(struct oracle *o, uint64_t id) { write_of(o, id)->start = NEVER; }

void oracle_flushed(struct oracle *o, uint64_t began)
{
	for (uint64_t id = o->first_of_life + 1; id <= o->write_count; id++) {
		struct write *w = write_of(o, id);
		if (w->acked && w->end < began)
			w->durable = true;
	}
}

static bool sure(const struct oracle *o, const struct write *w) { return w->acked && (!o->power || w->durable); }

/* Is there a write that certainly came after `end` and was certainly there before `by`? */
static bool superseded(struct oracle *o, const struct sector *k, uint64_t end, uint64_t by)
{
	for (uint32_t i = 0; i < k->count; i++) {
		const struct write *w = write_of(o, k->writes[i]);
		if (sure(o, w) && w->start > end && w->end < by)
			return true;
	}
	return false;
}

/* May the sector have shown `value` at some time within [began, ended]? */
static bool possible(struct oracle *o, const struct sector *k, uint64_t value, uint64_t began, uint64_t ended)
{
	if (value == k->base && !superseded(o, k, o->epoch_start, began))
		return true;
	for (uint32_t i = 0; i < k->count; i++) {
		const struct write *w = write_of(o, k->writes[i]);
		if ((w->zero ? 0 : w->id) == value && w->start <= ended && !superseded(o, k, w->end, began))
			return true;
	}
	return false;
}

static const char *say(struct oracle *o, uint32_t sector, uint64_t value, const char *what)
{
	const struct sector *k = &o->sectors[sector];
	int n = snprintf(o->text, sizeof o->text, "sector %u: %s: read %lld, base %llu, writes", sector, what,
			 value == NEVER ? -1LL : (long long)value, (unsigned long long)k->base);
	for (uint32_t i = k->count > 4 ? k->count - 4 : 0; i < k->count && n < (int)sizeof o->text; i++) {
		const struct write *w = write_of(o, k->writes[i]);
		n += snprintf(o->text + n, sizeof o->text - (size_t)n, " %llu[%llu,%lld%s%s%s]", (unsigned long long)w->id,
			      (unsigned long long)w->start, w->end == NEVER ? -1LL : (long long)w->end, w->acked ? " acked" : "",
			      w->durable ? " durable" : "", w->zero ? " zero" : "");
	}
	return o->text;
}

const char *oracle_read(struct oracle *o, uint32_t first, uint32_t count, const void *bytes, uint64_t began)
{
	uint64_t ended = ++o->now;
	for (uint32_t s = first; s < first + count; s++) {
		uint64_t value = sector_value(o, s, (const uint8_t *)bytes + (size_t)(s - first) * ORACLE_SECTOR);
		if (value == NEVER || !possible(o, &o->sectors[s], value, began, ended))
			return say(o, s, value, "wrong or stale");
	}
	return NULL;
}

void oracle_crash(struct oracle *o, bool power)
{
	++o->now;
	for (uint64_t id = o->first_of_life + 1; id <= o->write_count; id++)
		if (write_of(o, id)->end == NEVER)
			write_of(o, id)->end = o->now;
	o->power |= power || o->server_power;
}

void oracle_crash_server(struct oracle *o) { o->server_power = true; }

/* Is `y` missing where it should show: the sector shows only what certainly came before it? */
static bool lost(struct oracle *o, const struct write *y, const uint64_t *values)
{
	for (uint32_t s = y->first; s < y->first + y->count; s++) {
		const struct sector *k = &o->sectors[s];
		bool later = false;
		for (uint32_t i = 0; i < k->count && !later; i++) {
			const struct write *w = write_of(o, k->writes[i]);
			later = (w->zero ? 0 : w->id) == values[s] && (w->id == y->id || w->end > y->start);
		}
		if (!later)
			return true;
	}
	return false;
}

/* A write that shows although one that was acknowledged before it began doesn't: no prefix. Only writes that began before
 * `until` are looked at. */
static const char *check_prefix(struct oracle *o, const uint64_t *values, uint64_t until)
{
	uint64_t latest = 0;
	for (uint32_t s = 0; s < o->sector_count; s++)
		if (values[s] > o->first_of_life && values[s] != NEVER && write_of(o, values[s])->start > latest)
			latest = write_of(o, values[s])->start;
	for (uint64_t id = o->first_of_life + 1; id <= o->write_count; id++) {
		const struct write *y = write_of(o, id);
		if (!y->acked || y->end >= latest || y->start >= until || !lost(o, y, values))
			continue;
		snprintf(o->text, sizeof o->text, "write %llu (sectors %u+%u) is missing although a later one shows", (unsigned long long)id,
			 y->first, y->count);
		return o->text;
	}
	return NULL;
}

static const char *check_all(struct oracle *o, const void *bytes, uint64_t began, uint64_t ended, uint64_t *values, const char *what)
{
	for (uint32_t s = 0; s < o->sector_count; s++) {
		values[s] = sector_value(o, s, (const uint8_t *)bytes + (size_t)s * ORACLE_SECTOR);
		if (values[s] == NEVER || !possible(o, &o->sectors[s], values[s], began, ended))
			return say(o, s, values[s], what);
	}
	return check_prefix(o, values, ended);
}

static void begin_again(struct oracle *o, const uint64_t *values)
{
	o->epoch_start = ++o->now;
	o->power = o->server_power = false;
	o->first_of_life = o->write_count;
	for (uint32_t s = 0; s < o->sector_count; s++) {
		o->sectors[s].base = values[s];
		o->sectors[s].count = 0;
	}
}

const char *oracle_recovered(struct oracle *o, const void *bytes)
{
	uint64_t *values = malloc(o->sector_count * sizeof *values);
	const char *why = check_all(o, bytes, o->now + 1, o->now + 1, values, "lost or wrong after a crash");
	for (uint64_t id = o->first_of_life + 1; id <= o->write_count; id++)
		write_of(o, id)->missing = lost(o, write_of(o, id), values);
	if (!why)
		begin_again(o, values);
	free(values);
	return why;
}

bool oracle_late_ack(const struct oracle *o, uint64_t id) { return !o->writes[id - 1].missing; }

void oracle_assume(struct oracle *o, const void *bytes)
{
	uint64_t *values = malloc(o->sector_count * sizeof *values);
	for (uint32_t s = 0; s < o->sector_count; s++)
		values[s] = sector_value(o, s, (const uint8_t *)bytes + (size_t)s * ORACLE_SECTOR);
	begin_again(o, values);
	free(values);
}

const char *oracle_snapshot(struct oracle *o, const void *bytes, uint64_t began, uint64_t ended)
{
	uint64_t *values = malloc(o->sector_count * sizeof *values);
	const char *why = check_all(o, bytes, began, ended, values, "wrong in a snapshot");
	free(values);
	return why;
}
