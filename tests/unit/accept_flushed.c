/* attach --accept-flushed: an embedded volume whose disk failed a sync. Without the option the attach is refused and says
 * what to do; with it the volume goes on with all that was flushed. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/volumetest.h"

static int block_write(struct volume_rig *g, unsigned block, int byte)
{
	memset(g->buffer, byte, BLOCK_BYTES);
	return blk_write_wait(g->node, g->buffer, BLOCK_BYTES, (uint64_t)block * BLOCK_BYTES, 0);
}

static int block_byte(struct volume_rig *g, unsigned block)
{
	int r = blk_read_wait(g->node, g->buffer, BLOCK_BYTES, (uint64_t)block * BLOCK_BYTES);
	for (unsigned i = 1; r == 0 && i < BLOCK_BYTES; i++)
		cr_assert_eq(g->buffer[i], g->buffer[0], "block %u is no block that was written", block);
	return r < 0 ? r : g->buffer[0];
}

static int flush(struct volume_rig *g) { return blk_op_wait(g->node, BLK_FLUSH, 0, 0, 0); }

/* Block 0 and 1 are flushed, block 1 to 3 then written again, and the disk fails the flush. */
static int body_break(void *arg)
{
	struct volume_rig *g = arg;
	for (unsigned i = 0; i < 2; i++)
		cr_assert_eq(block_write(g, i, 10 + (int)i), 0);
	cr_assert_eq(flush(g), 0);
	for (unsigned i = 1; i < 4; i++)
		cr_assert_eq(block_write(g, i, 20 + (int)i), 0);
	sim_doses(g->sim)->sync_error = 1000000;
	cr_assert_eq(flush(g), -EIO);
	sim_doses(g->sim)->sync_error = 0;
	cr_assert_lt(block_write(g, 5, 1), 0, "a volume that lost writes must not go on");
	return 0;
}

/* What was flushed; of the rest a prefix. */
static int body_check(void *arg)
{
	struct volume_rig *g = arg;
	cr_assert_eq(block_byte(g, 0), 10);
	int one = block_byte(g, 1), two = block_byte(g, 2), three = block_byte(g, 3);
	cr_assert(one == 11 || one == 21, "%d", one);
	cr_assert(two == 0 || (two == 22 && one == 21), "%d after %d", two, one);
	cr_assert(three == 0 || (three == 23 && two == 22), "%d after %d", three, two);
	return 0;
}

static int body_use(void *arg)
{
	struct volume_rig *g = arg;
	body_check(g);
	cr_assert_eq(block_write(g, 9, 99), 0);
	return flush(g);
}

static int body_used(void *arg)
{
	struct volume_rig *g = arg;
	body_check(g);
	cr_assert_eq(block_byte(g, 9), 99);
	return 0;
}

static struct volume_rig *rig_broken(uint64_t seed, bool stays)
{
	struct volume_rig *g = volume_rig_make(seed, 64 * BLOCK_BYTES);
	sim_doses(g->sim)->sync_error_stays = stays ? 1000000 : 0;
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_break), 0);
	volume_rig_kill(g);
	return g;
}

Test(accept_flushed, goes_on_with_what_was_flushed)
{
	unsigned refused = 0;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct volume_rig *g = rig_broken(seed, false);
		volume_rig_begin(g);
		if (volume_rig_open(g) == 0) { /* the disk failed the mark that it failed, too: then what a scan finds counts */
			cr_assert_eq(volume_rig_run(g, body_check), 0);
			volume_rig_free(g);
			continue;
		}
		refused++;
		cr_assert(strstr(g->report.text, "--accept-flushed"), "%s", g->report.text);
		g->accept_flushed = true;
		cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
		cr_assert_eq(volume_rig_run(g, body_use), 0);
		volume_rig_kill(g);
		sim_power_loss(g->host); /* what was accepted must be durable now */
		volume_rig_begin(g);
		g->accept_flushed = false;
		cr_assert_eq(volume_rig_open(g), 0, "once is enough: %s", g->report.text);
		cr_assert_eq(volume_rig_run(g, body_used), 0);
		volume_rig_free(g);
	}
	cr_assert_gt(refused, 5, "%u", refused);
}

static int served[4]; /* what blocks 0 to 3 showed */

static int body_remember(void *arg)
{
	struct volume_rig *g = arg;
	for (unsigned i = 0; i < 4; i++)
		served[i] = block_byte(g, i);
	return 0;
}

static int body_same(void *arg)
{
	struct volume_rig *g = arg;
	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(block_byte(g, i), served[i], "block %u had been served with %d", i, served[i]);
	return 0;
}

/* The mark that a sync failed couldn't be written either, so the next owner serves what it finds; from then on that stays,
 * although what it found may have been readable only because the kernel hadn't dropped it yet. */
Test(accept_flushed, what_was_served_without_the_mark_stays)
{
	unsigned unmarked = 0;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct volume_rig *g = rig_broken(seed, true);
		volume_rig_begin(g);
		if (volume_rig_open(g) == 0) {
			unmarked++;
			cr_assert_eq(volume_rig_run(g, body_remember), 0);
			volume_rig_kill(g);
			sim_power_loss(g->host);
			volume_rig_begin(g);
			cr_assert_eq(volume_rig_open(g), 0, "seed %u: %s", (unsigned)seed, g->report.text);
			cr_assert_eq(volume_rig_run(g, body_same), 0);
		}
		volume_rig_free(g);
	}
	cr_assert_eq(unmarked, 20, "%u", unmarked);
}

/* Not even with the option when a flushed write is missing. */
Test(accept_flushed, does_not_accept_less)
{
	struct volume_rig *g = rig_broken(1, false);
	uint8_t zeroes[2 * BLOCK_BYTES] = { 0 };
	uint64_t segment = 1;
	char path[64];
	for (; segment < 8; segment++) { /* both slots of the segment that was written first: nothing is known of it */
		snprintf(path, sizeof path, VOLUME_RIG_DIR "/segments/%02x/%012llx.seg", (unsigned)segment, (unsigned long long)segment);
		if (sim_disk_write(g->host, path, 0, zeroes, sizeof zeroes) == 0)
			break;
	}
	cr_assert_lt(segment, 8, "there is no segment");
	volume_rig_begin(g);
	g->accept_flushed = true;
	cr_assert_eq(volume_rig_open(g), -EIO);
	cr_assert(strstr(g->report.text, "flushed are missing"), "%s", g->report.text);
	volume_rig_free(g);
}

/* Snapshot "b" is acknowledged, and the disk fails the sync of the checkpoint that would give it its root. */
static int body_snapshots(void *arg)
{
	struct volume_rig *g = arg;
	cr_assert_eq(block_write(g, 0, 10), 0);
	cr_assert_eq(volume_snapshot(g->volume, "a", &g->report), 0, "%s", g->report.text);
	cr_assert_eq(volume_checkpoint(g->volume), 0);
	cr_assert_eq(block_write(g, 0, 11), 0);
	cr_assert_eq(volume_snapshot(g->volume, "b", &g->report), 0, "%s", g->report.text);
	sim_doses(g->sim)->sync_error = 1000000;
	cr_assert_lt(volume_checkpoint(g->volume), 0);
	sim_doses(g->sim)->sync_error = 0;
	return 0;
}

static int body_roll_back(void *arg)
{
	struct volume_rig *g = arg;
	uint64_t volume, mark;
	cr_assert_eq(store_snapshot_rollback(&g->store, "v@a", &g->report), 0, "%s", g->report.text);
	cr_assert_eq(store_find_snapshot(&g->places, "v", "b", &volume, &mark, &g->report), 0, "%s", g->report.text);
	return store_want_root(&g->places, volume, mark, NULL, &g->report);
}

/* Nobody can attach what was rolled back, so nobody could accept that the end of its log is in doubt; its snapshots are before that. */
Test(accept_flushed, snapshots_of_what_was_rolled_back_are_there)
{
	unsigned refused = 0;
	for (uint64_t seed = 1; seed <= 10; seed++) {
		struct volume_rig *g = volume_rig_make(seed, 64 * BLOCK_BYTES);
		cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
		cr_assert_eq(volume_rig_run(g, body_snapshots), 0);
		volume_rig_kill(g);
		volume_rig_begin(g);
		if (volume_rig_open(g) < 0) { /* else the mark that the sync failed couldn't be written */
			refused++;
			cr_assert_eq(volume_rig_run(g, body_roll_back), 0, "seed %u: %s", (unsigned)seed, g->report.text);
		}
		volume_rig_free(g);
	}
	cr_assert_gt(refused, 2, "%u", refused);
}
