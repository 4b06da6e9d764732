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
	unsigned creates, deletes;
};

struct roll_rig {
	struct sim *sim;
	struct env *env;
	struct volume volume;
	struct taker servers[SERVERS];
	struct meta_log log;
	unsigned attempts;
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

/* As the mender does: again and again, until there is one to go on in. */
static int mend(void *arg)
{
	struct roll_rig *g = arg;
	int r = -ENOTCONN;
	for (; r < 0 && g->attempts < 1000; g->attempts++) {
		g->log = (struct meta_log){ .last_id = g->log.last_id };
		r = log_create_segments(&g->volume, &g->log, WANTED, /* reserve= */ true);
		cr_assert(r == 0 || r == -ENOTCONN, "%d", r);
		if (r < 0)
			fiber_sleep(&g->env->loop, 100 * NS_PER_MS);
	}
	return r;
}

/* One that was made isn't given up because the next can't be: where half of the groups lack servers three in a row would be had in one of eight attempts. */
Test(log_roll, one_segment_is_enough_to_go_on)
{
	for (unsigned seed = 1; seed <= 8; seed++) {
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
		cr_assert_eq(sim_run_fiber(g->env, mend, g), 0);
		cr_assert(g->log.segment_count > 0 && g->log.segment_count <= WANTED);
		cr_assert_eq(g->log.last_id, g->log.segments[g->log.segment_count - 1].id);
		for (unsigned i = 0; i < SERVERS / 2; i++)
			cr_assert(g->servers[i].creates == g->log.segment_count && g->servers[i].deletes == 0, "made in vain: %u of %u",
				  g->servers[i].creates - g->log.segment_count, g->servers[i].creates);
		for (unsigned i = 0; i < c->count; i++)
			free(c->peers[i]);
		free(c);
		catalog_close(catalog);
		sim_process_destroy(g->env);
		catalog_sim_destroy(catalogs);
		sim_destroy(g->sim);
		free(g);
	}
}
