/* Bits that flip on the way from a disk, while the volume of a killed process is opened: nothing that was acknowledged may be
 * thought never to have been written. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "core/fiber.h"
#include "tests/unit/volumetest.h"

enum { WRITES = 6, SEEDS = 150 };

static int body_write(void *arg)
{
	struct volume_rig *g = arg;
	for (unsigned i = 0; i < WRITES; i++) {
		memset(g->buffer, (int)i + 1, BLOCK_BYTES);
		cr_assert_eq(blk_write_wait(g->node, g->buffer, BLOCK_BYTES, i * BLOCK_BYTES, BLK_FUA), 0);
	}
	return 0;
}

static int body_check(void *arg)
{
	struct volume_rig *g = arg;
	for (unsigned i = 0; i < WRITES; i++) {
		cr_assert_eq(blk_read_wait(g->node, g->buffer, BLOCK_BYTES, i * BLOCK_BYTES), 0);
		cr_assert_eq(g->buffer[0], i + 1, "block %u is lost", i);
	}
	return 0;
}

Test(volume_flips, while_opening)
{
	unsigned opened = 0;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct volume_rig *g = volume_rig_make(seed, 1 << 20);
		cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
		cr_assert_eq(volume_rig_run(g, body_write), 0);
		volume_rig_kill(g);
		volume_rig_begin(g);
		sim_doses(g->sim)->read_flip = 100000;
		int r = volume_rig_open(g);
		opened += r == 0;
		sim_doses(g->sim)->read_flip = 0;
		if (r < 0) { /* refused is not lost */
			volume_rig_kill(g);
			volume_rig_begin(g);
			cr_assert_eq(volume_rig_open(g), 0, "seed %llu: %s", (unsigned long long)seed, g->report.text);
		}
		volume_rig_run(g, body_check);
		volume_rig_free(g);
	}
	cr_assert(opened > SEEDS / 2, "%u of %u opened", opened, SEEDS);
}
