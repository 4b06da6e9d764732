/* Takeovers in a row, each of which leaves one segment more in the catalog's list: it must never get so long that the next
 * one finds no room in it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "core/bytes.h"
#include "parallax/volume_private.h"
#include "tests/unit/volumetest.h"

static int body_write(void *arg)
{
	struct volume_rig *g = arg;
	memset(g->buffer, 7, BLOCK_BYTES);
	return blk_write_wait(g->node, g->buffer, BLOCK_BYTES, 0, 0);
}

Test(recover_often, the_list_of_segments_never_fills)
{
	struct volume_rig *g = volume_rig_make(3, 64 * BLOCK_BYTES);
	unsigned longest = 0;
	for (unsigned life = 0; life < 2 * META_SEGMENTS_MAX; life++) {
		if (life) {
			volume_rig_kill(g); /* before a checkpoint can begin by itself */
			volume_rig_begin(g);
		}
		cr_assert_eq(volume_rig_open(g), 0, "life %u: %s", life, g->report.text);
		longest = MAX(longest, g->volume->meta.segment_count);
		cr_assert_eq(volume_rig_run(g, body_write), 0, "life %u", life);
	}
	cr_assert(longest >= LOG_SEGMENTS_LISTED - 1 && longest < META_SEGMENTS_MAX - 8, "%u", longest);
	volume_rig_free(g);
}
