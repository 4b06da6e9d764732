/* A log that goes on elsewhere (parallax/volume/log_mend.c) when several servers are in trouble at once. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "tests/unit/clustertest.h"

static struct {
	unsigned appends, fences, repairs; /* so many of them fail, on any server */
	int status;                        /* … with that */
	unsigned waits;                    /* before those so many fences are to be asked again */
} failing;

static bool fails(unsigned *left)
{
	bool one = *left > 0;
	*left -= one;
	return one;
}

static void failing_submit(struct segment_server *s, struct segment_io *io)
{
	if (io->op == SEGMENT_FENCE && fails(&failing.waits)) {
		between_answer(io, -EAGAIN);
		return;
	}
	if ((io->op == SEGMENT_APPEND && fails(&failing.appends)) || (io->op == SEGMENT_FENCE && fails(&failing.fences)) ||
	    (io->op == SEGMENT_REPAIR && fails(&failing.repairs))) {
		between_answer(io, failing.status);
		return;
	}
	between_pass(s, io);
}

/* Written, but not flushed, before and when servers fail. */
static int write_body(void *arg)
{
	struct cluster_rig *c = arg;
	for (unsigned b = 0; b < BLOCKS; b++) {
		if (b == BLOCKS / 2)
			failing.appends = 1;
		memset(c->g.buffer, (int)(b + c->shift), BLOCK_BYTES);
		int r = blk_write_wait(c->g.node, c->g.buffer, BLOCK_BYTES, b * BLOCK_BYTES, 0);
		if (r < 0)
			return r;
	}
	return 0;
}

/* One append fails, and then so many fences and repairs. */
static struct cluster_rig *make_failing(int status, unsigned waits, unsigned fences, unsigned repairs)
{
	struct cluster_rig *c = cluster_make();
	c->shift = 100;
	failing.status = status;
	failing.appends = 0;
	failing.waits = waits;
	failing.fences = fences;
	failing.repairs = repairs;
	cluster_between(c, failing_submit);
	return c;
}

static void free_failing(struct cluster_rig *c)
{
	cluster_between(c, NULL);
	cluster_free(c);
}

/* What fails once on each server is no reason to end: no copy has said that it is of no use. */
static void write_with(unsigned waits, unsigned fences, unsigned repairs)
{
	struct cluster_rig *c = make_failing(-EIO, waits, fences, repairs);
	cr_assert_eq(volume_rig_run(&c->g, write_body), 0);
	cr_assert_eq(failing.appends + failing.waits + failing.fences + failing.repairs, 0, "not as many were asked");
	cr_assert_gt(c->g.volume->counters.mends, 0);
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	free_failing(c);
}

Test(log_mend, two_servers_that_cant_be_asked_are_asked_again) { write_with(0, 2, 0); }
Test(log_mend, all_servers_that_cant_be_asked_are_asked_again) { write_with(0, SERVERS, 0); }
Test(log_mend, all_servers_that_cant_sync_what_they_have_are_asked_again) { write_with(0, 0, SERVERS); }

/* For longer than they would be asked if that was a failure. */
Test(log_mend, servers_that_fail_once_after_they_were_waited_for_are_asked_again) { write_with(150 * SERVERS, SERVERS, 0); }

/* As on a file system that became read only between a write and its flush: after a while it is an error. Requests don't wait for ever for servers that are there. */
static void end_with(int status, unsigned fences, unsigned repairs)
{
	struct cluster_rig *c = make_failing(status, 0, fences, repairs);
	cr_assert_eq(volume_rig_run(&c->g, write_body), -EIO, "it waited until they failed no more");
	cr_assert_eq(c->g.volume->failed, -EIO);
	free_failing(c);
}

Test(log_mend, servers_that_can_write_nothing_any_more_end_the_volume) { end_with(-EROFS, 0, 1000 * SERVERS); }
Test(log_mend, servers_that_can_write_no_fence_any_more_end_the_volume) { end_with(-EROFS, 1000 * SERVERS, 0); }
Test(log_mend, servers_whose_files_cant_be_opened_end_the_volume) { end_with(-EACCES, 0, 1000 * SERVERS); }
