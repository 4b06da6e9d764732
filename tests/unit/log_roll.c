/* Segments for a log (parallax/log_roll.c) where not every group has enough servers. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "parallax/volume_private.h"
#include "tests/sim/catalog_sim.h"

enum { SERVERS = 4, WANTED = 3 };

/* Takes whatever is created there. */
struct taker {
	struct segment_server server; /* first */
	unsigned creates, deletes, leaves_after;
};

struct roll_rig {
	struct sim *sim;
	struct env *env;
	struct volume volume;
	struct taker servers[SERVERS];
	struct meta_log log;
};

static void taker_submit(struct segment_server *server, struct segment_io *io)
{
	struct taker *t = (struct taker *)server;
	t->creates += io->op == SEGMENT_CREATE;
	t->deletes += io->op == SEGMENT_DELETE;
	io->status = 0;
	job_put(io->parent, 0);
}

static const struct segment_server_ops taker_ops = { .submit = taker_submit };

/* Every other group has its servers, the rest are on two that are away. */
static struct copies *rig_copies(struct roll_rig *g, struct catalog *catalog)
{
	struct copies *c = calloc(1, sizeof *c);
	c->env = g->env;
	c->catalog = catalog;
	c->look_ns = UINT64_MAX;
	fiber_cond_init(&c->changed);
	c->map.revision = 1;
	c->map.server_count = SERVERS;
	c->map.group_count = PLACEMENT_GROUPS_MIN;
	for (unsigned i = 0; i < SERVERS; i++) {
		c->map.servers[i].id.bytes[0] = (uint8_t)(i + 1);
		g->servers[i].server = (struct segment_server){ .ops = &taker_ops, .env = g->env, .id = c->map.servers[i].id, .incarnation = 1 };
		copies_peer(c, &c->map.servers[i].id)->server = i < SERVERS / 2 ? &g->servers[i].server : NULL;
	}
	for (unsigned n = 0; n < PLACEMENT_GROUPS_MIN; n++) {
		c->map.groups[n].target_count = 2;
		for (unsigned i = 0; i < 2; i++)
			c->map.groups[n].target[i] = (uint16_t)(n % 2 * 2 + i);
	}
	return c;
}

/* Also where all servers go away when it was made on them. */
static bool up(const struct segment_server *server)
{
	const struct taker *t = (const struct taker *)server;
	return t->creates < t->leaves_after;
}

static const struct segment_server_ops leaver_ops = { .submit = taker_submit, .up = up };

static int make(void *arg)
{
	struct roll_rig *g = arg;
	return log_create_segments(&g->volume, &g->log, WANTED, /* reserve= */ true);
}

/* How many segments can be had for a log that wants three; at once. */
static unsigned made(uint64_t seed, unsigned leaves_after)
{
	struct roll_rig *g = calloc(1, sizeof *g);
	g->sim = sim_create(seed, NULL);
	struct catalog_sim *catalogs = catalog_sim_create(g->sim);
	g->env = sim_process_create(g->sim, sim_host_create(g->sim, "h", 1 << 20, 4096));
	struct catalog *catalog = catalog_sim_open(catalogs, g->env);
	struct copies *c = rig_copies(g, catalog);
	struct volume *v = &g->volume;
	v->env = g->env;
	v->catalog = catalog;
	v->copies = c;
	v->epoch = 2;
	v->meta.replicas = v->meta.min_replicas = 2;
	v->limits.segment_blocks = 256;
	g->log.last_id = seed * 1000;
	for (unsigned i = 0; leaves_after && i < SERVERS; i++) {
		g->servers[i].server.ops = &leaver_ops;
		g->servers[i].leaves_after = leaves_after;
	}
	uint64_t began = env_now_ns(g->env);
	cr_assert_eq(sim_run_fiber(g->env, make, g), 0);
	cr_assert_lt(env_now_ns(g->env) - began, leaves_after ? 3 * NS_PER_S : NS_PER_S);
	unsigned n = g->log.segment_count;
	cr_assert(n > 0 && g->log.last_id == g->log.segments[n - 1].id);
	for (unsigned i = 0; i < SERVERS / 2; i++)
		cr_assert(g->servers[i].creates == n && g->servers[i].deletes == 0, "made in vain: %u of %u", g->servers[i].creates - n, g->servers[i].creates);
	for (unsigned i = 0; i < c->count; i++)
		free(c->peers[i]);
	free(c);
	catalog_close(catalog);
	sim_process_destroy(g->env);
	catalog_sim_destroy(catalogs);
	sim_destroy(g->sim);
	free(g);
	return n;
}

Test(log_roll, ids_that_belong_to_servers_that_are_away_are_passed_over)
{
	for (unsigned seed = 1; seed <= 8; seed++)
		cr_assert_eq(made(seed, 0), WANTED);
}

/* One that was made isn't given up because the next can't be. */
Test(log_roll, one_segment_is_enough_to_go_on_in)
{
	for (unsigned seed = 1; seed <= 8; seed++)
		cr_assert_eq(made(seed, 1), 1);
}
