/* What the log's segments say while the catalog is lost (parallax/store/salvage.c): where reads fail, and where nobody knows a cut. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "tests/unit/salvagetest.h"

/* ---- reads that fail ---- */

static struct {
	unsigned at, upto, count; /* reads: these fail; there were so many */
	struct sim *drops;        /* as the connection is lost; NULL: as the disk says so */
} reads;

static void failing_submit(struct segment_server *s, struct segment_io *io)
{
	bool fails = io->op == SEGMENT_READ && reads.count >= reads.at && reads.count < reads.upto;
	reads.count += io->op == SEGMENT_READ;
	if (fails && reads.drops)
		sim_doses(reads.drops)->drop = 1000000;
	if (fails && !reads.drops)
		between_answer(io, -EIO);
	else
		between_pass(s, io);
}

static int drop_no_more(void *arg)
{
	struct cluster_rig *c = arg;
	while (fiber_sleep(&c->g.env->loop, 5 * NS_PER_MS) == 0)
		sim_doses(c->g.sim)->drop = 0;
	return 0;
}

static int body_drop(void *arg)
{
	struct cluster_rig *c = arg;
	return fiber_start(&c->g.env->loop, drop_no_more, c, NULL);
}

static void fail_reads(struct cluster_rig *c, unsigned at, unsigned count, bool drops)
{
	cluster_between(c, failing_submit);
	reads.at = at;
	reads.upto = at + count;
	reads.count = 0;
	reads.drops = drops ? c->g.sim : NULL;
	if (drops)
		cr_assert_eq(volume_rig_run(&c->g, body_drop), 0);
}

/* Of a log with several segments that weren't cut some reads fail, of all copies one after the other, but not for ever: what was written last is found, or nothing is. Where it was the
 * connection that is done by itself. */
static void fail_each_read(bool drops)
{
	salvage_may_fail = true;
	for (unsigned at = 0; at == 0 || reads.count > reads.at; at++) {
		struct cluster_rig *c = cluster_make();
		cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
		catalog_sim_outage(c->g.catalogs, true);
		for (unsigned i = 0; i < 4; i++)
			cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
		volume_rig_kill(&c->g);
		catalog_sim_outage(c->g.catalogs, false);
		volume_rig_begin(&c->g);
		cr_assert_eq(volume_rig_run(&c->g, salvage_restore), 0);
		fail_reads(c, at, drops ? 1 : SERVERS, drops);
		cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
		cluster_between(c, NULL);
		cr_assert(!drops || salvage_counts[STORE_RECOVERED_NOT] == 0, "from read %u on", at);
		if (salvage_counts[STORE_RECOVERED_NOT])
			cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
		cluster_open(c);
		cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
		cluster_free(c);
	}
}

Test(salvage_reads, reads_that_fail) { fail_each_read(false); }
Test(salvage_reads, connections_that_are_lost) { fail_each_read(true); }

/* ---- cuts that nobody knows ---- */

static int write_again(void *arg)
{
	struct cluster_rig *c = arg;
	for (unsigned b = 0; b < BLOCKS / 2; b++) {
		memset(c->g.buffer, (int)(b + c->shift), BLOCK_BYTES);
		cr_assert_eq(blk_write_wait(c->g.node, c->g.buffer, BLOCK_BYTES, b * BLOCK_BYTES, BLK_FUA), 0);
	}
	return 0;
}

static int checkpoint_fiber(void *arg) { return volume_checkpoint(arg); }

static int body_checkpoint_unpublished(void *arg)
{
	struct cluster_rig *c = arg;
	cr_assert_eq(fiber_start(&c->g.env->loop, checkpoint_fiber, c->g.volume, NULL), 0);
	return fiber_sleep(&c->g.env->loop, 5 * NS_PER_S);
}

/* All that is in use and isn't listed is sealed somewhere, or will never be copied. */
static int body_sealed(void *arg)
{
	struct cluster_rig *c = arg;
	struct volume *v = c->g.volume;
	unsigned before = 0;
	for (uint32_t i = 0; i < v->space.segment_count; i++) {
		const struct space_segment *g = &v->space.segments[i];
		bool sealed = g->id >= v->meta.segments[0].id || g->live == 0;
		before += !sealed;
		for (unsigned k = 0; k < v->copies->count; k++) {
			struct segment_io io = { .op = SEGMENT_STAT, .segment = g->id };
			sealed |= peer_wait(v->copies->peers[k], &io) == 0 && io.sealed;
		}
		cr_expect(sealed, "segment %llu isn't sealed", (unsigned long long)g->id);
	}
	cr_assert_gt(before, 0u);
	return 0;
}

/* The catalog was away when a segment was finished, and replay began behind it, before it was lost. */
Test(salvage_reads, a_finished_segment_that_was_not_cut)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
	catalog_sim_outage(c->g.catalogs, true);
	uint64_t first = c->g.volume->meta.segments[0].id;
	for (unsigned i = 0; i < 5; i++)
		cr_assert_eq(volume_rig_run(&c->g, write_again), 0);
	cr_assert_eq(volume_rig_run(&c->g, body_checkpoint_unpublished), 0);
	cr_assert_gt(c->g.volume->log.current->meta.id, first);
	volume_rig_kill(&c->g);
	catalog_sim_outage(c->g.catalogs, false);
	volume_rig_begin(&c->g);
	cr_assert_eq(volume_rig_run(&c->g, salvage_restore), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	cr_assert_eq(salvage_counts[STORE_RECOVERED_NEWER], 1);
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
	cr_assert_eq(volume_rig_run(&c->g, body_sealed), 0);
	cluster_free(c);
}

/* ---- who has what is cut ---- */

static int seal_one(void *arg)
{
	struct cluster_rig *c = arg;
	struct volume *v = c->g.volume;
	const struct log_segment *s = v->log.current;
	struct segment_io seal = { .op = SEGMENT_SEAL, .segment = s->meta.id, .epoch = v->epoch, .block = s->acked, .crc = s->acked_crc };
	return peer_wait(s->peers[0], &seal);
}

/* It counts as held by all that have it, not only by who has sealed it already. */
Test(salvage_reads, a_segment_that_one_of_three_has_sealed)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
	uint64_t segment = c->g.volume->log.current->meta.id;
	cr_assert_eq(volume_rig_run(&c->g, seal_one), 0);
	salvage_lose_catalog(c);
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	cluster_open(c);
	const struct meta_segment *m = c->g.volume->meta.segments;
	while (m->id != segment)
		m++;
	cr_assert(m->cut);
	cr_assert_eq(m->ensemble_count, SERVERS);
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	cluster_free(c);
}
