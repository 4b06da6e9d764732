/* Closing a volume at any moment of a checkpoint that runs by itself: everything is there when it is opened again. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "tests/unit/volumetest.h"

enum { WRITES = 40 };

static int body_write(void *arg)
{
	struct volume_rig *g = arg;
	for (unsigned i = 0; i < WRITES; i++) {
		memset(g->buffer, (int)i + 1, BLOCK_BYTES);
		cr_assert_eq(blk_write_wait(g->node, g->buffer, BLOCK_BYTES, i * BLOCK_BYTES, 0), 0);
	}
	return 0;
}

static int body_close_within(void *arg)
{
	struct volume_rig *g = arg;
	/* it starts one */
	cr_assert_eq(volume_snapshot(g->volume, "s", &g->report), 0, "%s", g->report.text);
	fiber_sleep(&g->env->loop, sim_random(g->sim) % (20 * NS_PER_MS));
	blk_close(g->node);
	g->node = NULL;
	int r = volume_close(g->volume);
	g->volume = NULL;
	return r;
}

static int body_check(void *arg)
{
	struct volume_rig *g = arg;
	for (unsigned i = 0; i < WRITES; i++) {
		cr_assert_eq(blk_read_wait(g->node, g->buffer, BLOCK_BYTES, i * BLOCK_BYTES), 0);
		cr_assert_eq(g->buffer[0], i + 1, "block %u is lost", i);
	}
	uint64_t volume, mark;
	struct meta_snapshot s;
	cr_assert_eq(store_find_snapshot(&g->places, "v", "s", &volume, &mark, NULL), 0);
	cr_assert_eq(meta_get_snapshot(g->places.catalog, volume, mark, &s, NULL), 0);
	cr_assert(s.has_root, "nobody will give the snapshot its map");
	return 0;
}

Test(volume_close, within_a_checkpoint)
{
	for (uint64_t seed = 1; seed <= 30; seed++) {
		struct volume_rig *g = volume_rig_make(seed, 1 << 20);
		cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
		cr_assert_eq(volume_rig_run(g, body_write), 0);
		cr_assert_eq(volume_rig_run(g, body_close_within), 0, "seed %llu", (unsigned long long)seed);
		cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
		volume_rig_run(g, body_check);
		volume_rig_free(g);
	}
}
