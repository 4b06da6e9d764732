/* A volume that is opened while its disk is full, and goes on when there is space again: what is written then is there after the
 * next kill, although a checkpoint came before the first write (it had no segment to begin the log with). */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/volume/volume_private.h"
#include "tests/unit/volumetest.h"

#define DISK_BYTES (UINT64_C(16) << 20)
enum { BEFORE = 7, AFTER = 9, BALLAST_BYTES = 64 << 10 };

static int body_write_before(void *arg)
{
	struct volume_rig *g = arg;
	memset(g->buffer, BEFORE, BLOCK_BYTES);
	return blk_write_wait(g->node, g->buffer, BLOCK_BYTES, 0, BLK_FUA);
}

/* At most `limit` bytes, or as much as there is. */
static int fill(struct volume_rig *g, const char *path, uint64_t limit)
{
	struct file *f;
	uint8_t *bytes = env_alloc_aligned(BALLAST_BYTES);
	memset(bytes, 1, BALLAST_BYTES);
	int r = file_open(g->env, path, FILE_OPEN_WRITE | FILE_OPEN_CREATE, &f);
	uint64_t at = 0;
	for (size_t n = BALLAST_BYTES; r == 0 && n >= BLOCK_BYTES && at < limit;) {
		int w = file_write_wait(f, bytes, n, at);
		at += w == 0 ? n : 0;
		n /= w == 0 ? 1 : 2;
	}
	file_close(g->env, f);
	free(bytes);
	return r;
}

/* Opening needs a little: the directory notes that it is in use. */
static int body_fill(void *arg)
{
	struct volume_rig *g = arg;
	int r = fill(g, "/slack", BALLAST_BYTES);
	if (r == 0)
		r = fill(g, "/ballast", UINT64_MAX);
	return r ? r : env_unlink(g->env, "/slack");
}

static int body_go_on(void *arg)
{
	struct volume_rig *g = arg;
	memset(g->buffer, AFTER, BLOCK_BYTES);
	cr_assert_eq(log_room(g->volume), 0, "the disk isn't full");
	cr_assert_eq(env_unlink(g->env, "/ballast"), 0);
	while (log_room(g->volume) == 0)
		fiber_sleep(&g->env->loop, 10 * NS_PER_MS);
	cr_assert_eq(volume_checkpoint(g->volume), 0);
	int r = -ENOSPC;
	for (unsigned i = 0; i < 100 && r == -ENOSPC; i++) { /* the first segment may be one for checkpoints alone */
		r = blk_write_wait(g->node, g->buffer, BLOCK_BYTES, BLOCK_BYTES, BLK_FUA);
		fiber_sleep(&g->env->loop, 10 * NS_PER_MS);
	}
	return r;
}

static int body_check(void *arg)
{
	struct volume_rig *g = arg;
	cr_assert_eq(blk_read_wait(g->node, g->buffer, BLOCK_BYTES, 0), 0);
	cr_assert_eq(g->buffer[0], BEFORE);
	cr_assert_eq(blk_read_wait(g->node, g->buffer, BLOCK_BYTES, BLOCK_BYTES), 0);
	cr_assert_eq(g->buffer[0], AFTER, "what was written and synced is lost");
	return 0;
}

Test(volume_full, a_checkpoint_before_the_first_segment)
{
	struct volume_rig *g = volume_rig_make_on(1, 1 << 20, DISK_BYTES);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_write_before), 0);
	volume_rig_kill(g);
	volume_rig_begin(g);
	cr_assert_eq(volume_rig_run(g, body_fill), 0);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_go_on), 0);
	volume_rig_kill(g);
	volume_rig_begin(g);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	volume_rig_run(g, body_check);
	volume_rig_free(g);
}
