/* A log that lacks copies because a server was full gets them when that one has room again, also if nothing is written: nobody but the log itself asks it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/volume/volume_status.h"
#include "tests/unit/clustertest.h"

enum { FULL = 2, PIECE_BYTES = 1 << 20, PATIENCE_S = 60 };

/* All but one MiB, which is less than is kept for checkpoints. */
static int fill(void *arg)
{
	struct one_server *s = arg;
	struct file *f;
	uint64_t left, total, at = 0;
	uint8_t *bytes = env_alloc_aligned(PIECE_BYTES);
	cr_assert(bytes);
	memset(bytes, 1, PIECE_BYTES);
	int r = file_open(s->env, "/ballast", FILE_OPEN_WRITE | FILE_OPEN_CREATE, &f);
	for (; r == 0 && (r = env_space(s->env, "/", &left, &total)) == 0 && left > 2 * PIECE_BYTES; at += PIECE_BYTES)
		r = file_write_wait(f, bytes, PIECE_BYTES, at);
	file_close(s->env, f);
	free(bytes);
	return r == 0 ? segment_dir_space(s->dir) : r;
}

static int empty(void *arg)
{
	struct one_server *s = arg;
	int r = env_unlink(s->env, "/ballast");
	return r == 0 ? segment_dir_space(s->dir) : r;
}

static int write_one(void *arg)
{
	struct cluster_rig *c = arg;
	return blk_write_wait(c->g.node, c->g.buffer, BLOCK_BYTES, 0, BLK_FUA);
}

static uint32_t short_segments(struct cluster_rig *c)
{
	struct volume_status s;
	volume_status(c->g.volume, &s);
	return s.below;
}

static int wait_for_copies(void *arg)
{
	struct cluster_rig *c = arg;
	for (unsigned i = 0; short_segments(c) && i < PATIENCE_S; i++)
		fiber_sleep(&c->g.env->loop, NS_PER_S);
	return 0;
}

/* … or because its disk failed, so often that it is to be tried again in an hour; but then its server is started again. */
static int look_for_ages(void *arg)
{
	struct cluster_rig *c = arg;
	struct volume *v = c->g.volume;
	for (unsigned i = 0; i < v->copies->count; i++)
		if (strcmp(v->copies->peers[i]->address, c->servers[FULL].address) == 0) {
			v->copies->peers[i]->fails = -EROFS;
			v->copies->peers[i]->fails_incarnation = peer_incarnation(v->copies->peers[i]);
		}
	v->leave.due_ns = v->leave.not_before_ns = env_now_ns(v->env) + 3600 * NS_PER_S;
	return 0;
}

Test(log_leave, a_server_that_was_started_again_after_its_disk_failed)
{
	struct cluster_rig *c = cluster_make();
	struct volume_status s;
	volume_rig_run(&c->g, look_for_ages);
	cluster_server_end(c, FULL);
	cr_assert_eq(volume_rig_run(&c->g, write_one), 0);
	cr_assert_gt(short_segments(c), 0u);
	cluster_server_begin(c, FULL);
	volume_rig_run(&c->g, wait_for_copies);
	volume_status(c->g.volume, &s);
	cr_assert_eq(s.below, 0u, "its disk is mended, and nobody tries");
	cr_assert_eq(s.failing[0], '\0', "it isn't failing any more: %s", s.failing);
	volume_rig_run(&c->g, cluster_close);
	cluster_free(c);
}

Test(log_leave, a_server_that_has_room_again)
{
	struct cluster_rig *c = cluster_make();
	cluster_server_end(c, FULL);
	cr_assert_eq(volume_rig_run(&c->g, write_one), 0);
	cr_assert_gt(short_segments(c), 0u);
	cluster_server_begin(c, FULL);
	cr_assert_eq(sim_run_fiber(c->servers[FULL].env, fill, &c->servers[FULL]), 0);
	volume_rig_run(&c->g, wait_for_copies);
	cr_assert_gt(short_segments(c), 0u, "there is no room for a third copy");
	cr_assert_eq(sim_run_fiber(c->servers[FULL].env, empty, &c->servers[FULL]), 0);
	volume_rig_run(&c->g, wait_for_copies);
	cr_assert_eq(short_segments(c), 0u, "there is room again, and nobody knows");
	volume_rig_run(&c->g, cluster_close);
	cluster_free(c);
}
