/* What a segment's servers are told to be free (parallax/volume/trim.c), with servers that only say whether they have a copy. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/volume/volume_private.h"
#include "tests/unit/maptest.h"

enum { SERVERS = 2, FREED = 4, SEGMENT = 5, BLOCKS = 128, FREE_FROM = 10, FREE = 20 };

struct trim_rig;

struct told { /* a server, and what it was told */
	struct segment_server server; /* first */
	struct trim_rig *rig;
	bool has_copy, refuses;
	unsigned asked, deleted;
	uint8_t bits[BLOCKS / 8];
};

struct trim_rig {
	struct map_rig w;
	struct volume *volume;
	struct told servers[SERVERS];
};

static void answer(struct segment_server *server, struct segment_io *io)
{
	struct told *t = (struct told *)server;
	cr_assert(io->op == SEGMENT_TRIM || io->op == SEGMENT_DELETE);
	cr_assert_eq(io->segment, (uint64_t)(io->op == SEGMENT_TRIM ? SEGMENT : FREED));
	t->asked++;
	io->status = t->refuses ? -EIO : t->has_copy ? 0 : -ENOENT;
	t->deleted += io->op == SEGMENT_DELETE && io->status == 0;
	if (io->op == SEGMENT_TRIM && io->status == 0) {
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
	g->w.copies->map.revision++;
	for (unsigned n = 0; n < PLACEMENT_GROUPS_MIN; n++)
		map_rig_place(&g->w, n, 1, (uint16_t[]){ (uint16_t)server });
}

/* As much of a volume as the trimmer looks at: one segment, some blocks of which are free since the last checkpoint. */
static struct volume *make_volume(struct trim_rig *g)
{
	struct volume *v = calloc(1, sizeof *v);
	v->env = g->w.env;
	v->copies = g->w.copies;
	v->meta.replicas = 1;
	v->meta.from_position = position_make(SEGMENT + 1, 1);
	v->limits = (struct volume_limits){ .segment_blocks = BLOCKS, .replay_bytes = BLOCKS * BLOCK_BYTES };
	fiber_cond_init(&v->trims);
	fiber_mutex_init(&v->deleting);
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
	fiber_sleep(&g->w.env->loop, NS_PER_S);
	cr_expect_eq(g->servers[0].asked, 1u, "not again until the next checkpoint");
	cr_expect_eq(unsent(g), (uint32_t)FREE, "nobody has been told, and it is forgotten");
	cr_expect(g->w.copies->stale, "the map isn't looked at");
	belongs_on(g, 1);
	space_find(&v->space, SEGMENT)->stuck = false; /* as the next checkpoint does */
	trim_kick(v);
	fiber_sleep(&g->w.env->loop, NS_PER_S);
	cr_expect_eq(unsent(g), 0u);
	unsigned wrong = 0;
	for (unsigned b = 0; b < BLOCKS; b++)
		wrong += (g->servers[1].bits[b / 8] >> b % 8 & 1) != (b >= FREE_FROM && b < FREE_FROM + FREE);
	cr_expect_eq(wrong, 0u, "%u blocks", wrong);
	v->closing = true;
	trim_kick(v);
	while (v->log.fibers)
		fiber_sleep(&g->w.env->loop, NS_PER_MS);
	return 0;
}

static void run(int (*body)(void *arg), unsigned has_copy)
{
	struct trim_rig g = { 0 };
	map_rig_make(&g.w, 1, SERVERS);
	g.w.copies->look_ns = 0;
	for (unsigned i = 0; i < SERVERS; i++) {
		g.servers[i] = (struct told){ .server.ops = &tells, .rig = &g };
		map_rig_serve(&g.w, i, &g.servers[i].server);
	}
	g.volume = make_volume(&g);
	g.servers[has_copy].has_copy = true;
	belongs_on(&g, 0);
	cr_assert_eq(sim_run_fiber(g.w.env, body, &g), 0);
	space_destroy(&g.volume->space);
	free(g.volume->freed);
	free(g.volume);
	map_rig_free(&g.w);
}

Test(trim, what_nobody_was_told_is_told_who_has_the_copy_later) { run(told_to_nobody, 1); }

/* Its server can't write, and then can; nothing is written meanwhile, so that there is no checkpoint. */
static int refused_once(void *arg)
{
	struct trim_rig *g = arg;
	struct volume *v = g->volume;
	g->servers[0].refuses = true;
	v->freed = calloc(1, sizeof *v->freed);
	v->freed[0] = FREED;
	v->freed_count = v->freed_due = v->freed_room = 1;
	cr_assert_eq(trim_start(v), 0);
	fiber_sleep(&g->w.env->loop, 5 * NS_PER_S);
	cr_expect_eq(unsent(g), (uint32_t)FREE);
	cr_expect_eq(v->freed_due, 1u);
	cr_expect_leq(g->servers[0].asked, 10u, "asked %u times", g->servers[0].asked);
	g->servers[0].refuses = false;
	fiber_sleep(&g->w.env->loop, 30 * NS_PER_S);
	cr_expect_eq(unsent(g), 0u, "it isn't tried again");
	cr_expect_eq(g->servers[0].deleted, 1u);
	cr_expect_eq(v->freed_count, 0u);
	v->closing = true;
	trim_kick(v);
	while (v->log.fibers)
		fiber_sleep(&g->w.env->loop, NS_PER_MS);
	return 0;
}

Test(trim, what_a_server_refused_is_tried_again_without_a_checkpoint) { run(refused_once, 0); }

/* The trimmer waits to try again what was refused, when the volume is closed: nobody would until it's opened again. */
static int closed_while_refused(void *arg)
{
	struct trim_rig *g = arg;
	struct volume *v = g->volume;
	g->servers[0].refuses = true;
	cr_assert_eq(trim_start(v), 0);
	fiber_sleep(&g->w.env->loop, NS_PER_S);
	cr_expect_eq(unsent(g), (uint32_t)FREE);
	g->servers[0].refuses = false;
	trim_finish(v, env_now_ns(g->w.env) + 2 * NS_PER_S);
	cr_expect_eq(unsent(g), 0u, "a close tells nobody");
	v->closing = true;
	trim_kick(v);
	while (v->log.fibers)
		fiber_sleep(&g->w.env->loop, NS_PER_MS);
	return 0;
}

Test(trim, a_close_tries_again_what_a_server_refused) { run(closed_while_refused, 0); }

/* And what still is refused doesn't keep it. */
static int closed_and_refused(void *arg)
{
	struct trim_rig *g = arg;
	struct volume *v = g->volume;
	g->servers[0].refuses = true;
	cr_assert_eq(trim_start(v), 0);
	fiber_sleep(&g->w.env->loop, NS_PER_S);
	uint64_t began_ns = env_now_ns(g->w.env);
	trim_finish(v, began_ns + 2 * NS_PER_S);
	cr_expect_lt(env_now_ns(g->w.env) - began_ns, NS_PER_S);
	cr_expect_eq(g->servers[0].asked, 2u);
	v->closing = true;
	trim_kick(v);
	while (v->log.fibers)
		fiber_sleep(&g->w.env->loop, NS_PER_MS);
	return 0;
}

Test(trim, a_close_does_not_wait_for_a_server_that_refuses) { run(closed_and_refused, 0); }
