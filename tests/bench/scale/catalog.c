/* What the catalog holds for all volumes, and what going through them costs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/store/wanted.h"
#include "tests/bench/scale/scale.h"
#include "tests/bench/scale/world.h"

struct item {
	char key[META_KEY_BYTES];
	uint8_t *bytes;
	size_t length;
};

struct fill {
	struct catalog *catalog;
	struct item *items;
	size_t count, room;
};

static void add(struct fill *f, const char *key, uint8_t *bytes, size_t length)
{
	if (f->count == f->room) {
		f->room = f->room ? 2 * f->room : 1 << 16;
		f->items = realloc(f->items, f->room * sizeof *f->items);
	}
	struct item *i = &f->items[f->count++];
	snprintf(i->key, sizeof i->key, "%s", key);
	i->bytes = bytes;
	i->length = length;
}

static int by_key(const void *a, const void *b) { return strcmp(((const struct item *)a)->key, ((const struct item *)b)->key); }

/* In order: the catalog in memory is an array. */
static int put_all(void *arg)
{
	struct fill *f = arg;
	for (size_t i = 0; i < f->count; i++) {
		scale_put(f->catalog, f->items[i].key, f->items[i].bytes, f->items[i].length);
		free(f->items[i].bytes);
	}
	free(f->items);
	return 0;
}

static uint8_t *copy_of(const void *bytes, size_t length)
{
	uint8_t *b = malloc(length + 1);
	memcpy(b, bytes, length);
	return b;
}

uuid scale_volume_uuid(uint64_t volume)
{
	uuid u;
	put_le64(u.bytes, placement_mix(volume));
	put_le64(u.bytes + 8, volume); /* as store_volume_create() does */
	return u;
}

/* As one that was written leaves it; of those that aren't attached, as one that was closed does: without segments. */
static void add_volume(struct fill *f, const struct scale *s, struct meta_log *log, uint64_t volume)
{
	char key[META_KEY_BYTES], name[32];
	size_t n;
	uint8_t *bytes;
	uint32_t segments = log->segment_count;
	log->volume = scale_volume_uuid(volume);
	snprintf(name, sizeof name, "vm%06llu-disk0", (unsigned long long)volume);
	snprintf(log->name, sizeof log->name, "%s", name);
	log->segment_count = volume <= s->attached ? segments : 0;
	bytes = meta_log_encode(log, &n);
	log->segment_count = segments;
	meta_key_log(volume, key);
	add(f, key, bytes, n);
	meta_key_owner(volume, key);
	add(f, key, copy_of(s->owner, s->owner_length), s->owner_length);
	struct meta_name m = { .volume = volume };
	bytes = meta_name_encode(&m, &n);
	meta_key_name(name, key);
	add(f, key, bytes, n);
	if (volume <= s->attached) {
		meta_key_alive(placement_mix(volume), key);
		add(f, key, copy_of("", 0), 0);
	}
	for (unsigned i = 1; i <= s->snapshots; i++) {
		struct meta_snapshot p = { .mark_seq = 1000 * i, .mark_position = log->last_id << 16, .has_root = true, .root = log->root, .node_end = log->last_id << 16,
					   .size_bytes = log->size_bytes, .created_ns = log->created_ns, .mapped_blocks = 1 << 20 };
		snprintf(p.name, sizeof p.name, "day%u", i);
		bytes = meta_snapshot_encode(&p, &n);
		meta_key_snapshot(volume, p.mark_seq, key);
		add(f, key, bytes, n);
		uint8_t *mark = malloc(8);
		put_le64(mark, p.mark_seq);
		meta_key_snapshot_name(volume, p.name, key);
		add(f, key, mark, 8);
	}
}

static void add_servers(struct fill *f, const struct scale *s)
{
	struct placed_server *list = calloc(s->servers, sizeof *list);
	struct placement *p = calloc(1, sizeof *p);
	char key[META_KEY_BYTES];
	size_t n;
	scale_servers(list, s->servers, 1);
	placement_change(p, list, s->servers, true);
	for (unsigned i = 0; i < s->servers; i++) {
		struct meta_server m = { .incarnation = 1 };
		snprintf(m.address, sizeof m.address, "tls:10.0.%u.%u:7700", i / 250, i % 250);
		snprintf(m.domain, sizeof m.domain, "%s", list[i].domain);
		uint8_t *bytes = meta_server_encode(&m, &n);
		meta_key_server(&list[i].id, key);
		add(f, key, bytes, n);
	}
	uint8_t *map = placement_encode(p, &n);
	add(f, PLACEMENT_KEY, map, n);
	free(p);
	free(list);
}

struct sum {
	uint64_t keys, bytes, volume_keys, volume_bytes;
};

static void sum_up(void *arg, const char *key, const struct catalog_value *value)
{
	struct sum *s = arg;
	bool volume = strncmp(key, "volume/", 7) == 0;
	s->keys++;
	s->bytes += strlen(key) + value->length;
	s->volume_keys += volume;
	s->volume_bytes += volume ? value->length : 0;
}

void scale_world_fill(struct scale_world *w, const struct scale *s, bool whole)
{
	struct fill f = { .catalog = w->below };
	struct meta_log *log = malloc(sizeof *log);
	if (meta_log_decode(s->log, s->log_length, log) < 0)
		scale_fail("a tapdisk's record can't be read");
	log->last_id = UINT64_C(1) << 40;
	if (!whole)
		log->space.pointer.position = 0;
	for (uint64_t v = 1; v <= s->volumes; v++)
		add_volume(&f, s, log, v);
	if (whole)
		add_servers(&f, s);
	free(log);
	qsort(f.items, f.count, sizeof *f.items, by_key);
	sim_run_fiber(w->env, put_all, &f);
}

void scale_world_begin(struct scale_world *w)
{
	*w = (struct scale_world){ .sim = sim_create(1, NULL) };
	w->catalogs = catalog_sim_create(w->sim);
	w->env = sim_process_create(w->sim, sim_host_create(w->sim, "host", UINT64_C(64) << 30, 4096));
	w->below = catalog_sim_open(w->catalogs, w->env);
	w->catalog = meter_open(&w->meter, w->below);
}

void scale_world_end(struct scale_world *w)
{
	catalog_close(w->catalog);
	sim_process_destroy(w->env);
	catalog_sim_destroy(w->catalogs);
	sim_destroy(w->sim);
}

/* ---- going through them ---- */

struct going {
	struct scale_world *w;
	struct wanted *wanted;
	unsigned found;
	int result;
};

static bool one_in_ten(const void *arg, const uuid *volume)
{
	(void)arg;
	return volume->bytes[0] < 26;
}

static int go_through(void *arg)
{
	struct going *g = arg;
	g->result = wanted_open_for(g->w->catalog, NULL, one_in_ten, NULL, &g->wanted);
	return 0;
}

static int look_up_some(void *arg)
{
	struct going *g = arg;
	g->wanted = wanted_open_lazy(g->w->catalog, NULL);
	for (uint64_t v = 1; v <= 1000; v++) {
		struct wanted_volume *found;
		uuid id = scale_volume_uuid(v);
		g->found += wanted_learn(g->wanted, &id, &found) == 0;
	}
	return 0;
}

void scale_catalog(struct scale *s)
{
	struct scale_world w;
	struct sum sum = { 0 };
	double kib = 1024, mib = 1024 * kib;
	scale_world_begin(&w);
	scale_world_fill(&w, s, /* whole= */ true);
	catalog_sim_each(w.catalogs, "", sum_up, &sum);
	s->catalog_keys = sum.keys;
	s->catalog_bytes = sum.bytes;
	s->volume_list_keys = sum.volume_keys;
	s->volume_list_bytes = sum.volume_bytes;
	printf("%-52s %12llu keys %10.1f MiB, keys and values\n", "all of it", (unsigned long long)sum.keys, (double)sum.bytes / mib);
	printf("%-52s %12.1f keys %10.1f KiB\n", "a volume", (double)sum.keys / s->volumes, (double)sum.bytes / s->volumes / kib);
	printf("%-52s %12llu keys %10.1f MiB, values\n", "volumes' records and owners, which gc lists", (unsigned long long)sum.volume_keys, (double)sum.volume_bytes / mib);
	struct going g = { .w = &w };
	size_t heap = heap_now();
	double begin = cpu_now();
	sim_run_fiber(w.env, go_through, &g);
	if (g.result < 0)
		scale_fail("the volumes can't be listed: %d", g.result);
	printf("%-52s %12.0f ms CPU %8.1f MiB kept, %.1f at most\n", "gc's look at them (one in ten has a copy there)", (cpu_now() - begin) * 1e3,
	       (double)(heap_now() - heap) / mib, (double)(w.meter.heap_most - heap) / mib);
	wanted_close(g.wanted);
	struct meter then = w.meter;
	begin = cpu_now();
	sim_run_fiber(w.env, look_up_some, &g);
	printf("%-52s %12.0f ms CPU %8llu gets\n", "rebuilding's look at 1000 of them", (cpu_now() - begin) * 1e3, (unsigned long long)(w.meter.gets - then.gets));
	if (g.found != MIN(1000u, s->volumes))
		scale_fail("%u volumes were found by their numbers", g.found);
	wanted_close(g.wanted);
	scale_world_end(&w);
}
