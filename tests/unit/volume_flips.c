/* Bits that flip on the way from a disk, while the volume of a killed process is opened: nothing that was acknowledged may be
 * thought never to have been written. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "core/fiber.h"
#include "tests/unit/volumetest.h"

enum { SEEDS = 150 };

Test(volume_flips, while_opening)
{
	unsigned opened = 0;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct volume_rig *g = volume_rig_make(seed, 1 << 20);
		cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
		cr_assert_eq(volume_rig_run(g, volume_rig_write), 0);
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
		volume_rig_run(g, volume_rig_check);
		volume_rig_free(g);
	}
	cr_assert(opened > SEEDS / 2, "%u of %u opened", opened, SEEDS);
}
