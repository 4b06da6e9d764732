/* A tapdisk with a volume on three servers, in the simulated world: what it asks of the catalog when nothing is written, and when 1 MiB a second is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "tests/bench/scale/scale.h"
#include "tests/sim/owner.h"

enum { SERVERS = 3, WRITE_BYTES = 64 << 10, WRITE_SECONDS = 140, IDLE_SECONDS = 300 };

struct world {
	struct scenario_run run;
	struct sim *sim;
	struct catalog_sim *catalogs;
	struct block_server servers[SERVERS];
	struct owner o;
	struct meter meter;
	uint64_t writes;
};

static int attach(void *arg)
{
	struct world *w = arg;
	struct report report = { "" };
	struct store_volume_options how = { .size_bytes = UINT64_C(1) << 30, .replicas = 3 };
	struct volume_limits limits = { .segment_blocks = (64 << 20) / BLOCK_BYTES };
	int r = store_volume_create(&w->o.store, "v", &how, &report);
	free(w->meter.log);
	free(w->meter.owner);
	w->meter = (struct meter){ 0 };
	if (r == 0)
		r = owner_open(&w->o, "v", &limits, /* force= */ false, &report);
	if (r < 0)
		scale_fail("a volume can't be opened: %s", report_text(&report, r));
	return 0;
}

static int write_on(void *arg)
{
	struct world *w = arg;
	struct loop *loop = &w->o.env->loop;
	uint8_t *b = env_alloc_aligned(WRITE_BYTES);
	memset(b, 7, WRITE_BYTES);
	int r = 0;
	for (unsigned i = 0; r == 0 && i < WRITE_SECONDS * ((1 << 20) / WRITE_BYTES); i++) {
		uint64_t place = placement_mix(++w->writes) % ((UINT64_C(1) << 30) / WRITE_BYTES);
		r = blk_write_wait(w->o.node, b, WRITE_BYTES, place * WRITE_BYTES, 0);
		fiber_sleep(loop, NS_PER_S / ((1 << 20) / WRITE_BYTES));
	}
	free(b);
	if (r < 0)
		scale_fail("a write failed: %d", r);
	return 0;
}

static void show(const char *what, const struct traffic *t)
{
	printf("%-28s %8.3f %8.3f %8.3f %8.2f %8.2f %8u %10.0f %10.0f\n", what, t->gets, t->compares, t->puts, t->pages, t->beats, t->watches, t->bytes_read, t->bytes_put);
}

static void take(uint8_t **to, size_t *to_length, uint8_t **from, size_t from_length)
{
	*to = *from;
	*to_length = from_length;
	*from = NULL;
}

void scale_tapdisk(struct scale *s)
{
	struct world *w = calloc(1, sizeof *w);
	w->run.seed = 1;
	w->sim = sim_create(1, NULL);
	w->catalogs = catalog_sim_create(w->sim);
	for (unsigned i = 0; i < SERVERS; i++) {
		block_server_init(&w->servers[i], w->sim, i, UINT64_C(8) << 30);
		block_server_begin(&w->servers[i], &w->run, w->sim, w->catalogs);
	}
	owner_begin(&w->o, w->sim, sim_host_create(w->sim, "host", UINT64_C(1) << 30, 4096), w->catalogs, /* locks= */ false);
	w->o.catalog = w->o.places.catalog = w->o.store.catalog = meter_open(&w->meter, w->o.catalog);
	sim_run_fiber(w->o.env, attach, w);
	double opening = (double)(w->meter.gets + w->meter.compares);
	struct meter then = w->meter;
	step_for(w->sim, IDLE_SECONDS * NS_PER_S);
	s->idle = meter_since(&then, &w->meter, IDLE_SECONDS);
	then = w->meter;
	uint64_t begin = sim_now_ns(w->sim);
	sim_run_fiber(w->o.env, write_on, w);
	s->writing = meter_since(&then, &w->meter, (double)(sim_now_ns(w->sim) - begin) / (double)NS_PER_S);
	printf("%-28s %8s %8s %8s %8s %8s %8s %10s %10s\n", "a second", "gets", "compares", "puts", "pages", "beats", "watches", "bytes read", "bytes put");
	show("attached, idle", &s->idle);
	show("writing 1 MiB a second", &s->writing);
	printf("   opening it: %.0f gets with %d servers, one for each of them (a list, beyond 16); its record has up to %zu bytes\n", opening, SERVERS, w->meter.log_length);
	sim_run_fiber(w->o.env, owner_close, &w->o);
	owner_end(&w->o);
	for (unsigned i = 0; i < SERVERS; i++)
		block_server_end(&w->servers[i], /* power= */ false);
	catalog_sim_destroy(w->catalogs);
	sim_destroy(w->sim);
	take(&s->log, &s->log_length, &w->meter.log, w->meter.log_length);
	take(&s->owner, &s->owner_length, &w->meter.owner, w->meter.owner_length);
	free(w);
}
