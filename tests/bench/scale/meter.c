#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/catalog/catalog_etcd_wire.h"
#include "tests/bench/scale/scale.h"

enum { RACK = 25 }; /* servers */

struct metered {
	struct catalog catalog; /* first */
	struct catalog *below;
	struct meter *meter;
};

static struct metered *metered_of(struct catalog *c) { return container_of(c, struct metered, catalog); }

static void keep(uint8_t **bytes, size_t *length, const struct catalog_change *c)
{
	free(*bytes);
	*bytes = malloc(c->length + 1);
	memcpy(*bytes, c->bytes, c->length);
	*length = c->length;
}

static int meter_txn(struct catalog *c, const struct catalog_txn *t, uint64_t *ret_revision)
{
	struct meter *m = metered_of(c)->meter;
	m->compares += t->change_count == 0;
	m->puts += t->change_count > 0;
	for (unsigned i = 0; i < t->change_count; i++) {
		const struct catalog_change *change = &t->change[i];
		const char *end = strrchr(change->key, '/');
		m->bytes_put += change->length;
		if (end && strcmp(end, "/log") == 0 && change->length > m->log_length)
			keep(&m->log, &m->log_length, change);
		if (end && strcmp(end, "/owner") == 0 && change->bytes)
			keep(&m->owner, &m->owner_length, change);
	}
	return catalog_txn(metered_of(c)->below, t, ret_revision);
}

static int meter_get(struct catalog *c, const char *key, struct catalog_value *ret)
{
	struct meter *m = metered_of(c)->meter;
	int r = catalog_get(metered_of(c)->below, key, ret);
	m->gets++;
	m->bytes_read += ret->length;
	return r;
}

static int meter_get_many(struct catalog *c, struct catalog_want *wants, unsigned count)
{
	struct meter *m = metered_of(c)->meter;
	int r = catalog_get_many(metered_of(c)->below, wants, count);
	m->gets++;
	for (unsigned i = 0; r == 0 && i < count; i++)
		m->bytes_read += wants[i].value.length;
	return r;
}

static int meter_count(struct catalog *c, struct catalog_tally *tallies, unsigned count)
{
	metered_of(c)->meter->gets++;
	return catalog_count(metered_of(c)->below, tallies, count);
}

struct listing {
	struct meter *meter;
	uint64_t keys;
	int (*entry)(void *arg, const char *key, const struct catalog_value *value);
	void *arg;
};

static int meter_entry(void *arg, const char *key, const struct catalog_value *value)
{
	struct listing *l = arg;
	l->meter->bytes_read += value->length;
	if (l->keys++ % 16384 == 0)
		l->meter->heap_most = MAX(l->meter->heap_most, heap_now());
	return l->entry(l->arg, key, value);
}

static int meter_list(struct catalog *c, const char *prefix, int (*entry)(void *arg, const char *key, const struct catalog_value *value), void *arg)
{
	struct listing l = { metered_of(c)->meter, 0, entry, arg };
	int r = catalog_list(metered_of(c)->below, prefix, meter_entry, &l);
	l.meter->lists++;
	l.meter->keys += l.keys;
	l.meter->pages += div_up(MAX(l.keys, UINT64_C(1)), ETCD_PAGE);
	return r;
}

static void meter_close(struct catalog *c)
{
	catalog_close(metered_of(c)->below);
	free(metered_of(c));
}

static int meter_lease(struct catalog *c, unsigned ttl_s, const char *key, struct catalog_lease **ret)
{
	struct meter *m = metered_of(c)->meter;
	*ret = calloc(1, sizeof **ret);
	**ret = (struct catalog_lease){ c, 1 };
	m->leases++;
	m->beats += (double)NS_PER_S / (double)catalog_lease_beat_ns(ttl_s);
	if (key)
		scale_put(metered_of(c)->below, key, "", 0);
	return 0;
}

static void meter_lease_end(struct catalog_lease *l) { free(l); }

static int meter_watch(struct catalog *c, const char *prefix, const struct catalog_watch *how, struct catalog_watch **ret)
{
	(void)prefix;
	*ret = calloc(1, sizeof **ret);
	**ret = *how;
	metered_of(c)->meter->watches++;
	return 0;
}

static void meter_watch_end(struct catalog_watch *w) { free(w); }

static const struct catalog_ops meter_ops = {
	.txn = meter_txn, .get = meter_get, .get_many = meter_get_many, .count = meter_count, .list = meter_list, .close = meter_close, .lease = meter_lease,
	.lease_end = meter_lease_end, .watch = meter_watch, .watch_end = meter_watch_end,
};

struct catalog *meter_open(struct meter *m, struct catalog *below)
{
	struct metered *n = calloc(1, sizeof *n);
	*n = (struct metered){ { .ops = &meter_ops, .env = below->env }, below, m };
	return &n->catalog;
}

struct traffic meter_since(const struct meter *then, const struct meter *now, double seconds)
{
	return (struct traffic){
		.gets = (double)(now->gets - then->gets) / seconds,
		.compares = (double)(now->compares - then->compares) / seconds,
		.puts = (double)(now->puts - then->puts) / seconds,
		.pages = (double)(now->pages - then->pages) / seconds,
		.bytes_read = (double)(now->bytes_read - then->bytes_read) / seconds,
		.bytes_put = (double)(now->bytes_put - then->bytes_put) / seconds,
		.beats = now->beats,
		.watches = now->watches,
	};
}

/* ---- what else all use ---- */

double cpu_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

size_t heap_now(void)
{
	struct mallinfo2 m = mallinfo2();
	return m.uordblks + m.hblkhd;
}

void step_for(struct sim *sim, uint64_t ns)
{
	for (uint64_t until = sim_now_ns(sim) + ns; sim_now_ns(sim) < until;)
		if (!sim_step(sim))
			scale_fail("the simulated world came to rest");
}

void scale_servers(struct placed_server *list, unsigned count, uint64_t seed)
{
	unsigned racks = count < 4 * RACK ? 4 : count / RACK;
	for (unsigned i = 0; i < count; i++) {
		list[i] = (struct placed_server){ .weight = 4000u << i / racks % 3 };
		put_le64(list[i].id.bytes, placement_mix(seed + 2 * i));
		put_le64(list[i].id.bytes + 8, placement_mix(seed + 2 * i + 1));
		snprintf(list[i].domain, sizeof list[i].domain, "rack%u", i % racks);
	}
}

void scale_put(struct catalog *c, const char *key, const void *bytes, size_t length)
{
	struct catalog_txn *t = malloc(sizeof *t);
	catalog_txn_init(t);
	catalog_txn_put(t, key, bytes, length);
	int r = catalog_txn(c, t, NULL);
	if (r < 0)
		scale_fail("a transaction failed: %d", r);
	free(t);
}

void scale_fail(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fputs("scale: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}
