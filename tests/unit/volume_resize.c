/* A volume that was made larger, written there, and made smaller again, all of it before a checkpoint: it can be opened after a kill. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/volume/volume_private.h"
#include "tests/unit/volumetest.h"

#define SMALL (UINT64_C(256) * BLOCK_BYTES) /* one leaf */

static int body_to_and_fro(void *arg)
{
	struct volume_rig *g = arg;
	struct volume *v = g->volume;
	cr_assert_eq(volume_rig_write(g), 0);
	fiber_mutex_lock(&g->env->loop, &v->checkpointing); /* none ends before the kill */
	cr_assert_eq(volume_resize(v, 300 * SMALL, false, &g->report), 0, "%s", g->report.text);
	g->node->info.size = 300 * SMALL;
	memset(g->buffer, 9, BLOCK_BYTES);
	cr_assert_eq(blk_write_wait(g->node, g->buffer, BLOCK_BYTES, 200 * SMALL, BLK_FUA), 0);
	cr_assert_eq(volume_resize(v, SMALL, true, &g->report), 0, "%s", g->report.text);
	sim_kill(g->env);
	fiber_mutex_unlock(&v->checkpointing);
	return 0;
}

Test(volume_resize, larger_and_smaller_before_a_checkpoint)
{
	struct volume_rig *g = volume_rig_make(1, SMALL);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	volume_rig_run(g, body_to_and_fro);
	volume_rig_kill(g);
	volume_rig_begin(g);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, volume_rig_check), 0);
	volume_rig_free(g);
}
