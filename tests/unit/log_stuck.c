/* An embedded log for which no segment can be made any more, as when its directory is gone: that ends in an error, for who writes and for who detaches. */
#include <criterion/criterion.h>
#include <errno.h>

#include "parallax/volume/volume_private.h"
#include "tests/unit/between.h"
#include "tests/unit/volumetest.h"

enum { BLOCKS = 4096, FAILS = 1000 }; /* of a segment's 256; attempts, ten a second */

static struct {
	unsigned left; /* so many fail */
	int status;
} creating;

static void creating_submit(struct segment_server *s, struct segment_io *io)
{
	if (io->op != SEGMENT_CREATE || creating.left == 0) {
		between_pass(s, io);
		return;
	}
	creating.left--;
	between_answer(io, creating.status);
}

static struct volume_rig *rig_make(int status, unsigned fails)
{
	struct volume_rig *g = volume_rig_make(1, (uint64_t)BLOCKS * BLOCK_BYTES);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	between(g->volume->copies->peers[0]->server, creating_submit);
	creating.left = fails;
	creating.status = status;
	return g;
}

/* More than there is room for in what is listed. */
static int write_all(void *arg)
{
	struct volume_rig *g = arg;
	int r = 0;
	for (unsigned b = 0; b < BLOCKS && r == 0; b++)
		r = blk_write_wait(g->node, g->buffer, BLOCK_BYTES, (uint64_t)b * BLOCK_BYTES, 0);
	return r;
}

static void end_with(int status)
{
	struct volume_rig *g = rig_make(status, FAILS);
	cr_assert_eq(volume_rig_run(g, write_all), -EIO, "it waited");
	cr_assert_eq(g->volume->failed, -EIO);
	cr_assert_gt(creating.left, FAILS / 2, "%u attempts", FAILS - creating.left);
	volume_rig_free(g);
}

Test(log_stuck, where_the_directory_is_gone_writes_fail) { end_with(-ENOENT); }
Test(log_stuck, where_files_cant_be_made_writes_fail) { end_with(-EROFS); }
Test(log_stuck, where_the_disk_fails_writes_fail) { end_with(-EIO); }

/* As long as an operator needs to look. */
Test(log_stuck, what_fails_for_some_seconds_is_no_error)
{
	struct volume_rig *g = rig_make(-EIO, 50);
	cr_assert_eq(volume_rig_run(g, write_all), 0);
	cr_assert_eq(creating.left, 0);
	volume_rig_free(g);
}
