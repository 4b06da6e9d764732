/* What a segment's servers are told to be free (parallax/trim.c), with servers that only say whether they have a copy. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/volume_private.h"
#include "tests/sim/catalog_sim.h"

enum { SERVERS = 2, SEGMENT = 5, BLOCKS = 128, FREE_FROM = 10, FREE = 20 };

struct trim_rig;

struct told { /* a server, and what it was told */
	struct segment_server server; /* first */
	struct trim_rig *rig;
	bool has_copy;
	unsigned asked;
	uint8_t bits[BLOCKS / 8];
};

struct trim_rig {
	struct sim *sim;
	struct catalog_sim *catalogs;
	struct env *env;
	struct copies *copies;
	struct volume *volume;
	struct told servers[SERVERS];
};

static void answer(struct segment_server *server, struct segment_io *io)
{
	struct told *t = (struct told *)server;
	cr_assert_eq(io->op, SEGMENT_TRIM);
	cr_assert_eq(io->segment, (uint64_t)SEGMENT);
	t->asked++;
	io->status = t->has_copy ? 0 : -ENOENT;
	if (t->has_copy) {
		memcpy(t->bits, io->trim, sizeof t->bits);
		io->sealed = true;
		io->present = BLOCKS;
	}
	job_put(io->parent, io->status);
}

static const struct segment_server_ops tells = { .submit = answer };

/* All segments belong on this one. */
static void belongs_on(struct trim_rig *g, unsigned server)
{
	g->copies->map.revision++;
	for (unsigned n = 0; n < PLACEMENT_GROUPS_MIN; n++) {
		g->copies->map.groups[n].target_count = 1;
		g->copies->map.groups[n].target[0] = (uint16_t)server;
	}
}

static struct copies *make_copies(struct trim_rig *g)
{
	struct copies *c = calloc(1, sizeof *c);
	c->env = g->env;
	c->catalog = catalog_sim_open(g->catalogs, g->env);
	fiber_cond_init(&c->changed);
	c->map.server_count = SERVERS;
	c->map.group_count = PLACEMENT_GROUPS_MIN;
	for (unsigned i = 0; i < SERVERS; i++) {
		g->servers[i].server.ops = &tells;
		g->servers[i].rig = g;
		c->map.servers[i].id.bytes[0] = (uint8_t)(i + 1);
		copies_peer(c, &c->map.servers[i].id)->server = &g->servers[i].server;
	}
	c->stale = false;
	return c;
}

/* As much of a volume as the trimmer looks at: one segment, some blocks of which are free since the last checkpoint. */
static struct volume *make_volume(struct trim_rig *g)
{
	struct volume *v = calloc(1, sizeof *v);
	v->env = g->env;
	v->copies = g->copies;
	v->meta.replicas = 1;
	v->meta.from_position = position_make(SEGMENT + 1, 1);
	v->limits = (struct volume_limits){ .segment_blocks = BLOCKS, .replay_bytes = BLOCKS * BLOCK_BYTES };
	fiber_cond_init(&v->trims);
	fiber_cond_init(&v->log.changed);
	space_init(&v->space);
	cr_assert_eq(space_add_segment(&v->space, SEGMENT, BLOCKS), 0);
	space_unused(&v->space, position_make(SEGMENT, FREE_FROM), FREE);
	space_published(&v->space);
	return v;
}

static uint32_t unsent(const struct trim_rig *g) { return frees_count(space_find(&g->volume->space, SEGMENT)->frees, FREES_UNSENT); }

/* The copy is on server 1, and the map that the volume has says 0. */
static int told_to_nobody(void *arg)
{
	struct trim_rig *g = arg;
	struct volume *v = g->volume;
	cr_assert_eq(unsent(g), (uint32_t)FREE);
	v->trim_hurry = true;
	cr_assert_eq(trim_start(v), 0);
	fiber_sleep(&g->env->loop, NS_PER_S);
	cr_expect_eq(g->servers[0].asked, 1u, "not again until the next checkpoint");
	cr_expect_eq(unsent(g), (uint32_t)FREE, "nobody has been told, and it is forgotten");
	cr_expect(g->copies->stale, "the map isn't looked at");
	belongs_on(g, 1);
	space_find(&v->space, SEGMENT)->stuck = false; /* as the next checkpoint does */
	trim_kick(v);
	fiber_sleep(&g->env->loop, NS_PER_S);
	cr_expect_eq(unsent(g), 0u);
	unsigned wrong = 0;
	for (unsigned b = 0; b < BLOCKS; b++)
		wrong += (g->servers[1].bits[b / 8] >> b % 8 & 1) != (b >= FREE_FROM && b < FREE_FROM + FREE);
	cr_expect_eq(wrong, 0u, "%u blocks", wrong);
	v->closing = true;
	trim_kick(v);
	while (v->log.fibers)
		fiber_sleep(&g->env->loop, NS_PER_MS);
	return 0;
}

Test(trim, what_nobody_was_told_is_told_who_has_the_copy_later)
{
	struct trim_rig g = { .sim = sim_create(1, NULL) };
	g.catalogs = catalog_sim_create(g.sim);
	g.env = sim_process_create(g.sim, sim_host_create(g.sim, "h", 1 << 20, 4096));
	g.copies = make_copies(&g);
	g.volume = make_volume(&g);
	g.servers[1].has_copy = true;
	belongs_on(&g, 0);
	cr_assert_eq(sim_run_fiber(g.env, told_to_nobody, &g), 0);
	space_destroy(&g.volume->space);
	for (unsigned i = 0; i < g.copies->count; i++)
		free(g.copies->peers[i]);
	catalog_close(g.copies->catalog);
	free(g.volume);
	free(g.copies);
	sim_process_destroy(g.env);
	catalog_sim_destroy(g.catalogs);
	sim_destroy(g.sim);
}
