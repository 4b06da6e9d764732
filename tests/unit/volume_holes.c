/* Discarding and zeroing what holds nothing costs nothing, whatever the volume's size; what holds something goes. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/volumetest.h"

#define TEBIBYTE (UINT64_C(1) << 40)

static uint64_t records(const struct volume_rig *g)
{
	struct volume_counters c;
	volume_count(g->volume, &c);
	return c.records;
}

static void put(struct volume_rig *g, uint64_t offset)
{
	memset(g->buffer, 7, BLOCK_BYTES);
	cr_assert_eq(blk_write_wait(g->node, g->buffer, BLOCK_BYTES, offset, 0), 0);
}

static int byte_at(struct volume_rig *g, uint64_t offset)
{
	cr_assert_eq(blk_read_wait(g->node, g->buffer, BLOCK_BYTES, offset), 0);
	return g->buffer[0];
}

static int body_discard(void *arg)
{
	struct volume_rig *g = arg;
	uint64_t before = records(g);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(blk_op_wait(g->node, i ? BLK_ZERO : BLK_DISCARD, 0, g->size_bytes, 0), 0);
	cr_assert_eq(records(g), before, "%llu records to discard nothing", (unsigned long long)(records(g) - before));
	const uint64_t at[] = { 0, 3 * TEBIBYTE + 5 * BLOCK_BYTES, 3 * TEBIBYTE + 9 * BLOCK_BYTES, g->size_bytes - BLOCK_BYTES };
	for (unsigned i = 0; i < 4; i++)
		put(g, at[i]);
	before = records(g);
	cr_assert_eq(blk_op_wait(g->node, BLK_DISCARD, 512, g->size_bytes - 512 - BLOCK_BYTES, 0), 0);
	cr_assert_leq(records(g) - before, 2, "one for the partial block, one for two near one another");
	cr_assert_eq(byte_at(g, at[0]), 7, "the first sector was not discarded");
	cr_assert_eq(g->buffer[512], 0);
	cr_assert_eq(byte_at(g, at[1]), 0);
	cr_assert_eq(byte_at(g, at[2]), 0);
	cr_assert_eq(byte_at(g, at[3]), 7, "the last block was not discarded");
	return 0;
}

static int body_shrink(void *arg)
{
	struct volume_rig *g = arg;
	put(g, TEBIBYTE);
	put(g, 50 * TEBIBYTE);
	uint64_t before = records(g);
	cr_assert_eq(volume_resize(g->volume, TEBIBYTE + BLOCK_BYTES, true, &g->report), 0, "%s", g->report.text);
	cr_assert_leq(records(g) - before, 5, "one, and a checkpoint's");
	cr_assert_eq(volume_resize(g->volume, g->size_bytes, false, &g->report), 0, "%s", g->report.text);
	cr_assert_eq(byte_at(g, TEBIBYTE), 7);
	cr_assert_eq(byte_at(g, 50 * TEBIBYTE), 0, "what was cut off came back");
	return 0;
}

/* The checkpoint that a new volume begins with is no part of what is counted. */
static int body_settle(void *arg) { return volume_checkpoint(((struct volume_rig *)arg)->volume); }

static void run(int (*body)(void *arg))
{
	struct volume_rig *g = volume_rig_make(1, 64 * TEBIBYTE);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_settle), 0);
	volume_rig_run(g, body);
	volume_rig_free(g);
}

Test(volume_holes, discard) { run(body_discard); }
Test(volume_holes, shrink) { run(body_shrink); }
