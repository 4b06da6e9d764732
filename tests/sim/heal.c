#include "tests/sim/heal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/wanted.h"
#include "server/keeper_private.h"

enum { HEAL_S = 240 };

struct heal {
	struct scenario_run *run;
	struct sim *sim;
	struct block_server *servers;
	unsigned count, gone, at;
	struct owner o;
	struct found_list list[16];
	struct placement *map;
};

#define FAIL(h, ...) scenario_fail((h)->run, __VA_ARGS__)

static bool runs(const struct heal *h, unsigned server) { return !(h->gone & 1u << server); }

/* ---- settling ---- */

static bool settled(const struct heal *h, const uint64_t *rounds, const uint64_t *gc)
{
	for (unsigned i = 0; i < h->count; i++) {
		const struct keeper_status *s = runs(h, i) ? keeper_status(h->servers[i].keeper) : NULL;
		if (s && (s->rounds < rounds[i] || s->gc_rounds < gc[i] || (s->gc_failed && (!h->gone || s->gc_rounds < gc[i] + 3)) || s->missing || (!s->settled && !h->gone) || s->rounds < rounds[i] + (h->gone ? 3 : 0)))
			return false;
	}
	return true;
}

/* gc, then rounds of rebuilding that find nothing, at all of them. */
static void settle(struct heal *h)
{
	uint64_t rounds[16] = { 0 }, gc[16] = { 0 }, begin = sim_now_ns(h->sim);
	for (unsigned i = 0; i < h->count; i++) {
		if (!runs(h, i))
			continue;
		if (!h->servers[i].keeper) {
			FAIL(h, "%s has no keeper", h->servers[i].domain);
			return;
		}
		rounds[i] = keeper_status(h->servers[i].keeper)->rounds + 2;
		gc[i] = keeper_gc(h->servers[i].keeper);
		keeper_hurry(h->servers[i].keeper);
	}
	while (!settled(h, rounds, gc) && !h->run->failed) {
		if (!sim_step(h->sim) || sim_now_ns(h->sim) - begin > HEAL_S * NS_PER_S)
			break;
	}
	for (unsigned i = 0; i < h->count && !settled(h, rounds, gc); i++) {
		const struct keeper_status *s = runs(h, i) ? keeper_status(h->servers[i].keeper) : NULL;
		if (s && (!s->idle || s->gc_failed || s->missing))
			FAIL(h, "%s doesn't settle: %u missing, %u misplaced, %u failed, %u rounds, %u of gc, %u silent", h->servers[i].domain,
			     (unsigned)s->missing, (unsigned)s->misplaced, (unsigned)s->failures, (unsigned)s->rounds, (unsigned)s->gc_rounds, (unsigned)s->silent);
	}
	if (!settled(h, rounds, gc))
		FAIL(h, "the servers don't settle");
}

static int list_one(void *arg)
{
	struct heal *h = arg;
	return keeper_list(h->servers[h->at].keeper, NULL, NULL, &h->list[h->at]);
}

/* ---- checking ---- */

static const struct share_entry *copy_at(const struct heal *h, unsigned server, uint64_t segment)
{
	for (size_t i = 0; i < h->list[server].count; i++)
		if (h->list[server].entries[i].e.header.segment == segment)
			return &h->list[server].entries[i].e;
	return NULL;
}

static bool belongs(const struct heal *h, const struct placement_group *g, unsigned replicas, unsigned server)
{
	for (unsigned i = 0; i < g->target_count && i < replicas; i++)
		if (memcmp(&h->map->servers[g->target[i]].id, &h->servers[server].dir->id, sizeof(uuid)) == 0)
			return true;
	return false;
}

/* One that is sealed anywhere. */
static void check_segment(struct heal *h, uint64_t id, unsigned replicas)
{
	const struct placement_group *g = placement_group_of(h->map, id);
	const struct share_entry *model = NULL;
	unsigned wanted_count = 0;
	for (unsigned i = 0; i < h->count; i++) {
		const struct share_entry *e = runs(h, i) ? copy_at(h, i, id) : NULL;
		model = e && e->sealed && e->whole ? e : model;
	}
	for (unsigned i = 0; model && i < h->count; i++) {
		const struct share_entry *e = runs(h, i) ? copy_at(h, i, id) : NULL;
		bool here = runs(h, i) && belongs(h, g, replicas, i);
		wanted_count += here;
		if (here && (!e || !e->sealed || !e->whole))
			FAIL(h, "segment %llu: %s should have it, and %s", (unsigned long long)id, h->servers[i].domain, e ? "has it, but not sealed and whole" : "hasn't");
		if (e && e->sealed && (e->length != model->length || e->prev != model->prev || e->trim_crc != model->trim_crc))
			FAIL(h, "segment %llu: copies differ: %s has %u blocks, %u free (another %u, %u)", (unsigned long long)id, h->servers[i].domain,
			     e->length, e->trimmed, model->length, model->trimmed);
	}
	for (unsigned i = 0; model && wanted_count == MIN((unsigned)g->target_count, replicas) && i < h->count; i++)
		if (runs(h, i) && copy_at(h, i, id) && !belongs(h, g, replicas, i))
			FAIL(h, "segment %llu: %s still has it, and needn't", (unsigned long long)id, h->servers[i].domain);
}

static int check_all(void *arg)
{
	struct heal *h = arg;
	struct copies *c;
	struct wanted *w;
	int r = placement_read(h->o.catalog, h->map, NULL);
	if (r == 0)
		r = copies_open(h->o.env, h->o.catalog, &c, NULL);
	if (r < 0)
		return r;
	peers_await(c->peers, c->count, c->count);
	r = wanted_open(h->o.catalog, c, &w);
	for (size_t i = 0; r == 0 && i < w->count; i++) {
		struct wanted_volume *v = &w->volumes[i];
		r = wanted_load(w, v);
		if (r < 0 && h->gone) { /* one whose destruction waits for a server that is gone */
			r = 0;
			continue;
		}
		for (size_t k = 0; r == 0 && k < v->count && !h->run->failed; k++)
			check_segment(h, v->segments[k], v->replicas);
	}
	for (unsigned s = 0; r == 0 && s < h->count; s++)
		for (size_t i = 0; i < h->list[s].count && !h->run->failed; i++)
			if (wanted_ask(w, &h->list[s].entries[i].e.header) == WANTED_NO)
				FAIL(h, "segment %llu: %s has it, and nobody wants it", (unsigned long long)h->list[s].entries[i].e.header.segment, h->servers[s].domain);
	if (r == 0)
		wanted_close(w);
	copies_close(c);
	return r;
}

/* A volume that is half destroyed has a table that can't be read. */
static int finish_commands(void *arg)
{
	struct heal *h = arg;
	store_reap(&h->o.store);
	return 0;
}

void heal_check(struct scenario_run *run, struct sim *sim, struct catalog_sim *catalogs, struct sim_host *host, struct block_server *servers,
		unsigned count, unsigned gone)
{
	struct heal *h = calloc(1, sizeof *h);
	*h = (struct heal){ .run = run, .sim = sim, .servers = servers, .count = count, .gone = gone, .map = malloc(sizeof *h->map) };
	sim_note(sim, "everything is well again");
	memset(sim_doses(sim), 0, sizeof *sim_doses(sim));
	catalog_sim_doses(catalogs)->timeout = 0;
	owner_begin(&h->o, sim, host, catalogs, /* locks= */ false);
	sim_run_fiber(h->o.env, finish_commands, h);
	owner_end(&h->o);
	settle(h);
	for (unsigned i = 0; i < count; i++) {
		const struct keeper_status *s = runs(h, i) && servers[i].keeper ? keeper_status(servers[i].keeper) : NULL;
		if (s)
			sim_note(sim, "%s: %u copies, rebuilt %u, removed %u, sealed %u, united %u, freed %u, failures %u, rounds %u", servers[i].domain,
				 (unsigned)s->copies, (unsigned)s->rebuilt, (unsigned)s->removed, (unsigned)s->sealed, (unsigned)s->united,
				 (unsigned)s->gc_freed, (unsigned)s->failures, (unsigned)s->rounds);
	}
	for (h->at = 0; h->at < count && !run->failed; h->at++)
		if (runs(h, h->at))
			sim_run_fiber(servers[h->at].env, list_one, h);
	if (!run->failed) {
		owner_begin(&h->o, sim, host, catalogs, /* locks= */ false);
		int r = sim_run_fiber(h->o.env, check_all, h);
		owner_end(&h->o);
		if (r < 0)
			FAIL(h, "what is wanted can't be found out: %d", r);
	}
	for (unsigned i = 0; i < count; i++)
		free(h->list[i].entries);
	free(h->map);
	free(h);
}
