/* Segments for a log (parallax/volume/log_roll.c) where not every group has enough servers. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "parallax/volume/volume_private.h"
#include "tests/unit/maptest.h"

enum { SERVERS = 4, WANTED = 3 };

/* Takes whatever is created there, or answers so. */
struct taker {
	struct segment_server server; /* first */
	unsigned creates, deletes, leaves_after;
	int status;
	bool full; /* but for what is kept */
};

struct roll_rig {
	struct map_rig w;
	struct volume volume;
	struct taker servers[SERVERS];
	struct meta_log log;
};

static void taker_submit(struct segment_server *server, struct segment_io *io)
{
	struct taker *t = (struct taker *)server;
	t->creates += io->op == SEGMENT_CREATE;
	t->deletes += io->op == SEGMENT_DELETE;
	io->status = io->op != SEGMENT_CREATE ? 0 : t->full && !io->reserve ? -ENOSPC : t->status;
	job_put(io->parent, io->status);
}

static const struct segment_server_ops taker_ops = { .submit = taker_submit };

/* Every other group has its servers, the rest are on two that are away. */
static void rig_map(struct roll_rig *g)
{
	for (unsigned i = 0; i < SERVERS; i++)
		g->servers[i].server = (struct segment_server){ .ops = &taker_ops, .env = g->w.env, .incarnation = 1 };
	for (unsigned i = 0; i < SERVERS / 2; i++)
		map_rig_serve(&g->w, i, &g->servers[i].server);
	for (unsigned n = 0; n < PLACEMENT_GROUPS_MIN; n++)
		map_rig_place(&g->w, n, 2, n % 2 ? (uint16_t[]){ 2, 3 } : (uint16_t[]){ 0, 1 });
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

static struct roll_rig *rig_make(uint64_t seed)
{
	struct roll_rig *g = calloc(1, sizeof *g);
	map_rig_make(&g->w, seed, SERVERS);
	rig_map(g);
	struct volume *v = &g->volume;
	v->env = g->w.env;
	v->catalog = g->w.copies->catalog;
	v->copies = g->w.copies;
	v->epoch = 2;
	v->meta.replicas = v->meta.min_replicas = 2;
	v->limits.segment_blocks = 256;
	g->log.last_id = seed * 1000;
	return g;
}

static void rig_free(struct roll_rig *g)
{
	map_rig_free(&g->w);
	free(g);
}

/* How many segments can be had for a log that wants three; at once. */
static unsigned made(uint64_t seed, unsigned leaves_after)
{
	struct roll_rig *g = rig_make(seed);
	for (unsigned i = 0; leaves_after && i < SERVERS; i++) {
		g->servers[i].server.ops = &leaver_ops;
		g->servers[i].leaves_after = leaves_after;
	}
	uint64_t began = env_now_ns(g->w.env);
	cr_assert_eq(sim_run_fiber(g->w.env, make, g), 0);
	cr_assert_lt(env_now_ns(g->w.env) - began, leaves_after ? 3 * NS_PER_S : NS_PER_S);
	unsigned n = g->log.segment_count;
	cr_assert(n > 0 && g->log.last_id == g->log.segments[n - 1].id);
	for (unsigned i = 0; i < SERVERS / 2; i++)
		cr_assert(g->servers[i].creates == n && g->servers[i].deletes == 0, "made in vain: %u of %u", g->servers[i].creates - n, g->servers[i].creates);
	rig_free(g);
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

/* All of it is allocated, and who opens a volume or mends its log wants segments ahead. */
Test(log_roll, of_what_is_kept_for_checkpoints_one_is_taken)
{
	struct roll_rig *g = rig_make(1);
	g->volume.log.kept_from = UINT64_MAX;
	for (unsigned i = 0; i < SERVERS; i++)
		g->servers[i].full = true;
	cr_assert_eq(sim_run_fiber(g->w.env, make, g), 0);
	cr_assert_eq(g->log.segment_count, 1);
	cr_assert_eq(g->log.segments[0].id, g->volume.log.kept_from);
	cr_assert_eq(g->log.last_id, g->log.segments[0].id);
	rig_free(g);
}

/* ---- too few can make it ---- */

enum { COPIES = 3, AWAY = 1 };

static int make_one(void *arg)
{
	struct roll_rig *g = arg;
	return log_create_segments(&g->volume, &g->log, 1, /* reserve= */ false);
}

/* All segments belong on the first three servers, which answer so; two copies will do. */
static int why(int first, int second, int third, bool embedded)
{
	const int answers[COPIES] = { first, second, third };
	struct roll_rig *g = rig_make(1);
	g->volume.meta.replicas = COPIES;
	g->volume.meta.embedded = embedded;
	for (unsigned n = 0; n < PLACEMENT_GROUPS_MIN; n++)
		map_rig_place(&g->w, n, COPIES, (uint16_t[]){ 0, 1, 2 });
	for (unsigned i = 0; i < COPIES; i++) {
		g->servers[i].status = answers[i];
		map_rig_serve(&g->w, i, answers[i] == AWAY ? NULL : &g->servers[i].server);
	}
	int r = sim_run_fiber(g->w.env, make_one, g);
	rig_free(g);
	return r;
}

Test(log_roll, it_is_full_only_if_it_would_be_without_what_is_away)
{
	cr_assert_eq(why(0, 0, -ENOSPC, false), 0);
	cr_assert_eq(why(0, -ENOSPC, AWAY, false), -ENOTCONN);
	cr_assert_eq(why(-ENOSPC, -ENOSPC, AWAY, false), -ENOSPC);
	cr_assert_eq(why(0, -ENOSPC, -ENOSPC, false), -ENOSPC);
	cr_assert_eq(why(0, -ENOSPC, -EIO, false), -ENOTCONN);
}

/* A disk that can't make a file is one server's that failed; where it is the only one nothing is to be waited for. */
Test(log_roll, a_server_whose_disk_fails_is_as_good_as_away)
{
	cr_assert_eq(why(0, -EIO, AWAY, false), -ENOTCONN);
	cr_assert_eq(why(0, 0, -EIO, false), 0);
	cr_assert_eq(why(-EIO, -EIO, -EIO, true), -EIO);
	cr_assert_eq(why(0, -EROFS, -ENOENT, false), -ENOTCONN);
	cr_assert_eq(why(-EROFS, -EROFS, -EROFS, true), -EROFS);
	cr_assert_eq(why(0, -EPERM, -EROFS, false), -EPERM, "who is fenced waits for nobody");
}

/* ---- the catalog is away ---- */

static int make_with_spare(void *arg)
{
	struct roll_rig *g = arg;
	struct volume *v = &g->volume;
	do
		v->log.spare_id = ++g->log.last_id + 1;
	while (copies_better_elsewhere(g->w.copies, v->log.spare_id, v->meta.replicas, v->meta.min_replicas));
	v->log.spare_ns = env_now_ns(g->w.env);
	publish_note(v, -ENOTCONN);
	return log_create_segments(v, &g->log, 1, /* reserve= */ false);
}

/* An id that was kept needs no catalog, so that nothing was learnt of it. */
Test(log_roll, what_does_not_ask_the_catalog_does_not_say_that_it_is_back)
{
	struct roll_rig *g = rig_make(1);
	cr_assert_eq(sim_run_fiber(g->w.env, make_with_spare, g), 0);
	cr_assert(g->volume.catalog_away);
	rig_free(g);
}
