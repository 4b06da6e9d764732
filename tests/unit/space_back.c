/* More segments than are deleted right after the checkpoint that frees them: they go all the same, when nobody writes, and when nobody has the volume any more. And what is
 * deleted goes though its holder never hears of it. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/segment/segment_dir.h"
#include "parallax/volume/volume_private.h"
#include "tests/unit/volumetest.h"

enum { SEGMENT_BLOCKS = 256, FREED = 600, PART = 128 };

static int count_one(void *arg, uint64_t segment)
{
	(void)segment;
	++*(unsigned *)arg;
	return 0;
}

static unsigned copies_there(struct volume_rig *g)
{
	unsigned n = 0;
	cr_assert_eq(segment_dir_ids(g->volume->server, count_one, &n), 0);
	return n;
}

static int write_much(struct volume_rig *g)
{
	uint8_t *part = env_alloc_aligned(PART * BLOCK_BYTES);
	memset(part, 5, PART * BLOCK_BYTES);
	for (unsigned i = 0; i < FREED * (SEGMENT_BLOCKS / PART); i++)
		cr_assert_eq(blk_write_wait(g->node, part, PART * BLOCK_BYTES, (uint64_t)i * PART * BLOCK_BYTES, 0), 0);
	free(part);
	return volume_checkpoint(g->volume);
}

static int body_discarded(void *arg)
{
	struct volume_rig *g = arg;
	cr_assert_eq(write_much(g), 0);
	cr_assert_geq(copies_there(g), FREED);
	cr_assert_eq(blk_op_wait(g->node, BLK_DISCARD, 0, g->size_bytes, 0), 0);
	cr_assert_eq(volume_checkpoint(g->volume), 0);
	fiber_sleep(&g->env->loop, 60 * NS_PER_S);
	unsigned left = copies_there(g);
	cr_expect_lt(left, 20u, "%u segments are left that nothing lives in", left);
	return 0;
}

static struct volume_rig *make(void)
{
	struct volume_rig *g = volume_rig_make_on(1, UINT64_C(1) << 30, UINT64_C(4) << 30);
	g->segment_blocks = SEGMENT_BLOCKS;
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	return g;
}

Test(space_back, what_a_discard_freed_while_nothing_is_written)
{
	struct volume_rig *g = make();
	volume_rig_run(g, body_discarded);
	volume_rig_free(g);
}

/* ---- a head that was rolled back ---- */

static int count_file(void *arg, const char *name)
{
	size_t n = strlen(name);
	*(unsigned *)arg += n > 4 && strcmp(name + n - 4, ".seg") == 0;
	return 0;
}

static unsigned files_there(struct volume_rig *g)
{
	char path[64];
	unsigned n = 0;
	for (unsigned i = 0; i < 256; i++) {
		snprintf(path, sizeof path, VOLUME_RIG_DIR "/segments/%02x", i);
		env_list_dir(g->env, path, count_file, &n);
	}
	return n;
}

static int body_snapshot(void *arg)
{
	struct volume_rig *g = arg;
	cr_assert_eq(volume_rig_write(g), 0);
	cr_assert_eq(volume_snapshot(g->volume, "s", &g->report), 0, "%s", g->report.text);
	return write_much(g);
}

static int body_roll_back(void *arg)
{
	struct volume_rig *g = arg;
	cr_assert_geq(files_there(g), FREED);
	cr_assert_eq(store_snapshot_rollback(&g->store, "v@s", &g->report), 0, "%s", g->report.text);
	unsigned left = files_there(g);
	cr_expect_lt(left, 20u, "%u segments are left of the head that is gone", left);
	return 0;
}

Test(space_back, what_a_rollback_has_freed)
{
	struct volume_rig *g = make();
	volume_rig_run(g, body_snapshot);
	cr_assert_eq(volume_rig_run(g, volume_rig_close), 0);
	volume_rig_run(g, body_roll_back);
	volume_rig_free(g);
}

/* ---- what a process that was killed has left ---- */

enum { LEFT = 1500, LAST_ID = 10000 };

/* As if it had freed them all. */
static int body_leave(void *arg)
{
	struct volume_rig *g = arg;
	struct volume *v = g->volume;
	v->meta.last_id = LAST_ID;
	v->dirty = true;
	cr_assert_eq(volume_checkpoint(v), 0);
	for (uint64_t id = LAST_ID - LEFT; id < LAST_ID; id++) {
		struct segment_io io = { .op = SEGMENT_CREATE, .segment = id, .epoch = v->epoch, .incarnation = v->server->incarnation,
					 .header = { id, v->meta.volume, v->epoch, id, 2 } };
		cr_assert_eq(segment_wait(v->server, &io), 0);
	}
	return 0;
}

static int body_find(void *arg)
{
	struct volume_rig *g = arg;
	fiber_sleep(&g->env->loop, 60 * NS_PER_S);
	unsigned left = copies_there(g);
	cr_expect_lt(left, 20u, "%u segments are left", left);
	return 0;
}

Test(space_back, what_was_freed_before_a_kill)
{
	struct volume_rig *g = make();
	volume_rig_run(g, body_leave);
	volume_rig_kill(g);
	volume_rig_begin(g);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	volume_rig_run(g, body_find);
	volume_rig_free(g);
}

/* ---- dead lists of one that is opened and closed again and again ---- */

enum { OPENINGS = 40 };
static unsigned opening;

/* The first has a snapshot, and each replaces a block that it has. */
static int body_replace(void *arg)
{
	struct volume_rig *g = arg;
	for (unsigned i = 0; opening == 0 && i < OPENINGS; i++)
		cr_assert_eq(blk_write_wait(g->node, g->buffer, BLOCK_BYTES, i * BLOCK_BYTES, 0), 0);
	if (opening == 0)
		cr_assert_eq(volume_snapshot(g->volume, "s", &g->report), 0, "%s", g->report.text);
	cr_assert_eq(blk_write_wait(g->node, g->buffer, BLOCK_BYTES, opening * BLOCK_BYTES, 0), 0);
	cr_assert_eq(volume_checkpoint(g->volume), 0);
	uint64_t chunks = g->volume->space.chunk_sum;
	cr_assert_leq(chunks, 4u, "%llu chunks of %u positions", (unsigned long long)chunks, opening + 1);
	return volume_rig_close(g);
}

Test(space_back, an_opening_leaves_no_chunk_behind)
{
	struct volume_rig *g = volume_rig_make(1, 1024 * BLOCK_BYTES);
	for (opening = 0; opening < OPENINGS; opening++) {
		cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
		cr_assert_eq(volume_rig_run(g, body_replace), 0);
	}
	volume_rig_free(g);
}

static int body_unsaid(void *arg)
{
	struct volume_rig *g = arg;
	struct meta_snapshot m;
	cr_assert_eq(volume_rig_write(g), 0);
	cr_assert_eq(volume_snapshot(g->volume, "s", &g->report), 0, "%s", g->report.text);
	uint64_t mark = g->volume->newest_mark;
	cr_assert_eq(volume_rig_write(g), 0);
	cr_assert_eq(volume_checkpoint(g->volume), 0);
	fiber_sleep(&g->env->loop, 60 * NS_PER_S); /* it has looked, as after each opening */
	volume_rig_doom(g, mark);
	fiber_sleep(&g->env->loop, 11 * 60 * NS_PER_S);
	cr_assert_eq(meta_get_snapshot(g->places.catalog, 1, mark, &m, NULL), -ENOENT, "it is never freed");
	return volume_rig_check(g);
}

Test(space_back, a_deletion_that_the_holder_is_not_told_of_is_found)
{
	struct volume_rig *g = volume_rig_make(1, 1 << 20);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_unsaid), 0);
	volume_rig_free(g);
}
