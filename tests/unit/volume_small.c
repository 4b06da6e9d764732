/* A volume that fills a small store: most of the store is for data, and discarding gives it back. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "parallax/volume/volume_private.h"
#include "tests/unit/volumetest.h"

enum { DISK_MIB = 96, WRITE_BLOCKS = 128 };

/* Writes from the beginning on until there is no space: how many MiB; -errno. */
static int fill(struct volume_rig *g)
{
	uint64_t at = 0, step = (uint64_t)WRITE_BLOCKS * BLOCK_BYTES;
	uint8_t *bytes = env_alloc_aligned(step);
	int r = 0;
	memset(bytes, 5, step);
	while (r == 0 && at < g->size_bytes) {
		r = blk_write_wait(g->node, bytes, step, at, 0);
		at += r == 0 ? step : 0;
	}
	free(bytes);
	return r == 0 || r == -ENOSPC ? (int)(at >> 20) : r;
}

static int body_fill(void *arg)
{
	struct volume_rig *g = arg;
	int first = fill(g);
	cr_assert_geq(first, DISK_MIB / 2, "%d MiB of %d could be written", first, DISK_MIB);
	cr_assert_lt(first, DISK_MIB);
	cr_assert_eq(blk_op_wait(g->node, BLK_FLUSH, 0, 0, 0), 0);
	cr_assert_eq(blk_op_wait(g->node, BLK_DISCARD, 0, g->size_bytes, 0), 0);
	for (int i = 0; i < 4; i++)
		cr_assert_eq(volume_checkpoint(g->volume), 0);
	fiber_sleep(&g->env->loop, NS_PER_S); /* the roller asks for space every so often */
	int again = fill(g);
	cr_assert_geq(again, first / 2, "%d MiB after %d were given back", again, first);
	return 0;
}

Test(volume_small, most_of_a_small_store_is_for_data)
{
	struct volume_rig *g = volume_rig_make_on(5, (uint64_t)2 * DISK_MIB << 20, (uint64_t)DISK_MIB << 20);
	g->segment_blocks = 0;
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_fill), 0);
	volume_rig_free(g);
}
