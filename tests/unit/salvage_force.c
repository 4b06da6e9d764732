/* `cluster recover --force` may go back to a checkpoint before the last one: who had the volume then, and lives, frees nothing any more (parallax/store/store_recover_fence.c). */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "parallax/segment/segment_dir.h"
#include "tests/unit/salvagetest.h"

static int io_body(void *arg)
{
	struct one_server *s = arg;
	return segment_wait(s->dir, &s->rig->io);
}

/* One block, which by a later checkpoint nobody needs. */
static int ask(struct cluster_rig *c, unsigned server, enum segment_op op, uint64_t segment, uint64_t epoch)
{
	static const uint8_t bits[SEGMENT_BITMAP_BYTES] = { 0x80 };
	c->io = (struct segment_io){ .op = op, .segment = segment, .epoch = epoch, .blocks = 8, .trim = op == SEGMENT_TRIM ? bits : NULL };
	return sim_run_fiber(c->servers[server].env, io_body, &c->servers[server]);
}

static uint64_t segment, epoch;

static void lose_with_owner(struct cluster_rig *c, unsigned owners)
{
	cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
	for (unsigned i = 0; i < owners; i++) {
		salvage_next_owner(c);
		cluster_open(c);
	}
	cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
	segment = container_of(c->g.volume->log.segments.next, struct log_segment, link)->meta.id;
	epoch = c->g.volume->epoch;
	salvage_lose_catalog(c);
	cluster_server_end(c, 2);
}

Test(salvage_force, an_owner_from_before_frees_nothing_any_more)
{
	struct cluster_rig *c = cluster_make();
	lose_with_owner(c, 2);
	cr_assert_eq(volume_rig_run(&c->g, salvage_force), 0, "%s", c->g.report.text);
	cr_assert_eq(salvage_counts[STORE_RECOVERED_NEWER], 1);
	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(ask(c, i, SEGMENT_TRIM, segment, epoch), -EPERM);
		cr_assert_eq(ask(c, i, SEGMENT_DELETE, segment, epoch), -EPERM);
	}
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	cr_assert_eq(ask(c, 0, SEGMENT_TRIM, segment, c->g.volume->epoch), 0, "who has it now may");
	cr_assert_eq(ask(c, 1, SEGMENT_TRIM, segment, 0), 0, "and servers, among themselves");
	cluster_free(c);
}

/* ---- what was freed by a checkpoint that is gone back from ---- */

enum { FREED = 16, FREED_DATA = 7 }; /* the segment's first blocks; every other one is a record's header */

static void free_some(struct cluster_rig *c, unsigned server)
{
	static const uint8_t bits[SEGMENT_BITMAP_BYTES] = { 0xff, 0xff };
	c->io = (struct segment_io){ .op = SEGMENT_TRIM, .segment = segment, .epoch = epoch, .blocks = FREED, .trim = bits };
	cr_assert_eq(sim_run_fiber(c->servers[server].env, io_body, &c->servers[server]), 0);
}

/* On so many of the two servers that answer. */
static void recover_freed(unsigned freed, uint64_t lost)
{
	struct cluster_rig *c = cluster_make();
	lose_with_owner(c, 1);
	for (unsigned i = 0; i < freed; i++)
		free_some(c, i);
	cr_assert_eq(volume_rig_run(&c->g, salvage_force), 0, "%s", c->g.report.text);
	cr_assert_eq(salvage_counts[STORE_RECOVERED_NEWER], 1);
	cr_expect_eq(salvage_lost, lost, "%llu blocks are said to be lost", (unsigned long long)salvage_lost);
	cr_expect(!salvage_lost_more);
	cluster_free(c);
}

Test(salvage_force, what_is_needed_again_and_was_freed_everywhere_is_told)
{
	recover_freed(2, FREED_DATA);
	recover_freed(1, 0);
	recover_freed(0, 0);
}

/* ---- what is fenced, and then can't be read ---- */

static unsigned fenced;

static void submit(struct segment_server *s, struct segment_io *io)
{
	fenced += io->op == SEGMENT_FENCE;
	if (io->op == SEGMENT_READ && fenced)
		between_answer(io, -EIO);
	else
		between_pass(s, io);
}

static int body_owner(void *arg)
{
	struct cluster_rig *c = arg;
	struct meta_owner owner;
	uint64_t id;
	cr_assert_eq(store_find_volume(&c->g.places, "v", &id, &c->g.report), 0);
	cr_assert_eq(meta_get_owner(c->g.places.catalog, id, &owner, NULL), 0);
	epoch = owner.epoch;
	return owner.state;
}

/* It is given up, and opened by its backup's record, or recovered later. */
Test(salvage_force, a_fence_of_a_recovery_that_failed_keeps_nobody_out)
{
	struct cluster_rig *c = cluster_make();
	lose_with_owner(c, 2);
	for (unsigned i = 0; i < 2; i++)
		between(c->servers[i].dir, submit);
	salvage_may_fail = true;
	cr_assert_eq(volume_rig_run(&c->g, salvage_force), 0, "%s", c->g.report.text);
	cr_assert(fenced && salvage_counts[STORE_RECOVERED_NOT] == 1);
	for (unsigned i = 0; i < 2; i++)
		between(c->servers[i].dir, NULL);
	cr_assert_eq(volume_rig_run(&c->g, body_owner), OWNER_FREE);
	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(ask(c, i, SEGMENT_STAT, segment, 0), 0);
		cr_assert(c->io.fenced_epoch && c->io.fenced_epoch <= epoch, "fenced at %llu, and the next owner gets %llu", (unsigned long long)c->io.fenced_epoch, (unsigned long long)epoch + 1);
	}
	salvage_may_fail = false;
	cluster_server_begin(c, 2);
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	salvage_must_have_all(c);
	cluster_free(c);
}
