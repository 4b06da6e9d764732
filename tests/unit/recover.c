/* Taking a volume over (parallax/volume/recover.c) from servers that fail in the midst of it, on three of them. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "tests/unit/clustertest.h"

/* ---- what the fullest copy can't read ---- */

static unsigned unread;

/* All of it can be read but the last record, when that is read alone: to copy it. (Its walk reads no more than headers where records are long.) */
static void holed_submit(struct segment_server *s, struct segment_io *io)
{
	bool lost = io->op == SEGMENT_READ && io->blocks == 2;
	unread += lost;
	if (lost)
		between_answer(io, -EIO);
	else
		between_pass(s, io);
}

static int unanswered_writer(void *arg)
{
	struct cluster_rig *c = arg;
	static uint8_t page[BLOCK_BYTES] __attribute__((aligned(BLOCK_BYTES)));
	return blk_write_wait(c->g.node, page, BLOCK_BYTES, 0, 0);
}

static int unanswered_body(void *arg)
{
	struct cluster_rig *c = arg;
	cr_assert_eq(fiber_start(&c->g.env->loop, unanswered_writer, c, NULL), 0);
	return fiber_sleep(&c->g.env->loop, 50 * NS_PER_MS);
}

/* Only the first server has a record, which was never acknowledged: the others have all that was. The writer is dead. */
static void leave_tail(struct cluster_rig *c)
{
	for (unsigned i = 1; i < SERVERS; i++)
		sim_partition(c->g.sim, c->g.host, c->servers[i].host, true);
	cr_assert_eq(volume_rig_run(&c->g, unanswered_body), 0);
	volume_rig_kill(&c->g);
	for (unsigned i = 1; i < SERVERS; i++) { /* so that they never hear of it */
		cluster_server_end(c, i);
		sim_partition(c->g.sim, c->g.host, c->servers[i].host, false);
		cluster_server_begin(c, i);
	}
}

Test(recover, a_tail_that_its_only_server_cant_read_keeps_nobody_from_attaching)
{
	struct cluster_rig *c = cluster_make();
	leave_tail(c);
	between(c->servers[0].dir, holed_submit);
	volume_rig_begin(&c->g);
	cluster_open(c);
	cr_assert(unread, "nothing was to be copied from it");
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	cluster_free(c);
}

/* ---- what the only whole copy can't read at the moment ---- */

enum { LATER = 5 };

static void failing_once(struct segment_server *s, struct segment_io *io)
{
	bool fails = io->op == SEGMENT_READ && unread++ == 0;
	if (fails)
		between_answer(io, -EIO);
	else
		between_pass(s, io);
}

static int write_later_body(void *arg)
{
	struct cluster_rig *c = arg;
	for (unsigned b = 0; b < LATER; b++) {
		memset(c->g.buffer, (int)b + 100, BLOCK_BYTES);
		cr_assert_eq(blk_write_wait(c->g.node, c->g.buffer, BLOCK_BYTES, b * BLOCK_BYTES, 0), 0);
	}
	return 0;
}

static int read_later_body(void *arg)
{
	struct cluster_rig *c = arg;
	for (unsigned b = 0; b < LATER; b++) {
		cr_assert_eq(blk_read_wait(c->g.node, c->g.buffer, BLOCK_BYTES, b * BLOCK_BYTES), 0);
		cr_assert_eq(c->g.buffer[99], b + 100, "block %u, which was acknowledged, is lost", b);
	}
	return 0;
}

/* Two servers lost power; the third has all that was acknowledged, and its disk fails one read. */
Test(recover, one_failed_read_of_the_only_whole_copy_loses_nothing)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, write_later_body), 0);
	volume_rig_kill(&c->g);
	for (unsigned i = 1; i < SERVERS; i++) {
		sim_power_loss(c->servers[i].host);
		cluster_server_end(c, i);
		cluster_server_begin(c, i);
	}
	unread = 0;
	between(c->servers[0].dir, failing_once);
	volume_rig_begin(&c->g);
	c->g.places.ops.domain = c->servers[1].domain;
	int r = volume_rig_open(&c->g);
	cr_assert(unread && (r == 0 || (r == -EIO && strstr(c->g.report.text, "--accept-flushed"))), "%d %s", r, c->g.report.text);
	if (r < 0)
		cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, read_later_body), 0);
	cluster_free(c);
}

/* ---- a source that goes away ---- */

static struct {
	struct cluster_rig *rig;
	uint32_t blocks; /* with a read of so many; 0: with any */
	bool gone;
} leaving;

static void cut_off(struct cluster_rig *c, unsigned i, bool cut)
{
	sim_partition(c->g.sim, c->g.host, c->servers[i].host, cut);
	sim_partition(c->g.sim, c->servers[i].host, c->g.host, cut);
}

static void leaving_submit(struct segment_server *s, struct segment_io *io)
{
	struct cluster_rig *c = leaving.rig;
	for (unsigned i = 0; i < SERVERS && io->op == SEGMENT_READ && !leaving.gone; i++)
		if (c->servers[i].dir == s && (leaving.blocks == 0 || io->blocks == leaving.blocks)) {
			cut_off(c, i, true);
			leaving.gone = true;
		}
	between_pass(s, io);
}

/* The first that is asked for such a read isn't heard of any more. */
static void leave(struct cluster_rig *c, uint32_t blocks)
{
	leaving.rig = c;
	leaving.blocks = blocks;
	leaving.gone = false;
	cluster_between(c, leaving_submit);
}

static void come_back(struct cluster_rig *c)
{
	cluster_between(c, NULL);
	for (unsigned i = 0; i < SERVERS; i++)
		cut_off(c, i, false);
}

Test(recover, a_source_that_goes_away_while_it_is_walked_costs_nothing)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, write_later_body), 0);
	volume_rig_kill(&c->g);
	leave(c, 0);
	volume_rig_begin(&c->g);
	cluster_open(c);
	cr_assert(leaving.gone);
	cr_assert_eq(volume_rig_run(&c->g, read_later_body), 0);
	cluster_free(c);
}

/* It alone had a record, which nobody else needs. */
Test(recover, a_source_that_goes_away_while_it_is_copied_costs_nothing)
{
	struct cluster_rig *c = cluster_make();
	leave_tail(c);
	leave(c, 2);
	volume_rig_begin(&c->g);
	cluster_open(c);
	cr_assert(leaving.gone, "nothing was to be copied from it");
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	cluster_free(c);
}

/* The others lost power, so that they may have less. */
static void leave_only_source(bool accept_flushed)
{
	struct cluster_rig *c = cluster_make();
	c->g.accept_flushed = accept_flushed;
	cr_assert_eq(volume_rig_run(&c->g, write_later_body), 0);
	volume_rig_kill(&c->g);
	for (unsigned i = 1; i < SERVERS; i++) {
		sim_power_loss(c->servers[i].host);
		cluster_server_end(c, i);
		cluster_server_begin(c, i);
	}
	leave(c, 0);
	volume_rig_begin(&c->g);
	int r = volume_rig_open(&c->g);
	cr_assert(segment_away(r) && strstr(c->g.report.text, c->servers[0].address), "%d %s", r, c->g.report.text);
	come_back(c);
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, read_later_body), 0);
	cluster_free(c);
}

Test(recover, the_only_whole_source_is_waited_for) { leave_only_source(false); }
Test(recover, the_only_whole_source_is_waited_for_whatever_is_accepted) { leave_only_source(true); }

/* ---- a source that is damaged, though its server doesn't know it ---- */

struct damage {
	unsigned source, other, third; /* servers */
	struct place header;
	uint8_t before[BLOCK_BYTES];
};

static unsigned server_of(struct cluster_rig *c, const uuid *id)
{
	for (unsigned i = 0; i < SERVERS; i++)
		if (memcmp(&c->servers[i].dir->id, id, sizeof *id) == 0)
			return i;
	cr_assert_fail();
	return 0;
}

/* Of equal copies the first is walked. */
static void damage_source(struct cluster_rig *c, struct damage *d)
{
	const struct meta_replica *in = container_of(c->g.volume->log.segments.next, struct log_segment, link)->meta.ensemble;
	d->source = server_of(c, &in[0].server);
	d->other = server_of(c, &in[1].server);
	d->third = server_of(c, &in[2].server);
	d->header = cluster_find(c, d->source, 20);
	d->header.offset -= BLOCK_BYTES;
	volume_rig_kill(&c->g);
	sim_disk_read(c->servers[d->source].host, d->header.path, d->header.offset, d->before, BLOCK_BYTES);
	cluster_flip(c, d->source, &d->header);
}

static bool is_mended(struct cluster_rig *c, const struct damage *d)
{
	uint8_t page[BLOCK_BYTES];
	return sim_disk_read(c->servers[d->source].host, d->header.path, d->header.offset, page, BLOCK_BYTES) == 0 && memcmp(page, d->before, BLOCK_BYTES) == 0;
}

Test(recover, a_copy_that_is_damaged_is_written_again_before_it_counts)
{
	struct cluster_rig *c = cluster_make();
	struct damage d;
	damage_source(c, &d);
	sim_partition(c->g.sim, c->g.host, c->servers[d.third].host, true);
	volume_rig_begin(&c->g);
	cluster_open(c);
	cr_assert(is_mended(c, &d), "it counts as it is");
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	cluster_free(c);
}

static void unwritable(struct segment_server *s, struct segment_io *io)
{
	unread += io->op == SEGMENT_DELETE;
	if (io->op == SEGMENT_REPAIR && io->blocks)
		between_answer(io, -EIO);
	else
		between_pass(s, io);
}

/* Nor does it go, for what it has may be needed. */
Test(recover, a_copy_that_stays_damaged_does_not_count)
{
	struct cluster_rig *c = cluster_make();
	struct damage d;
	damage_source(c, &d);
	unread = 0;
	between(c->servers[d.source].dir, unwritable);
	sim_partition(c->g.sim, c->g.host, c->servers[d.third].host, true);
	volume_rig_begin(&c->g);
	c->g.places.ops.domain = c->servers[1].domain;
	int r = volume_rig_open(&c->g);
	cr_assert(segment_away(r) && strstr(c->g.report.text, c->servers[d.third].address), "%d %s", r, c->g.report.text); /* who would do is named */
	cr_assert_eq(unread, 0, "it was deleted");
	sim_partition(c->g.sim, c->g.host, c->servers[d.third].host, false);
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	for (uint32_t i = 0; i < c->g.volume->meta.segment_count; i++) {
		const struct meta_segment *m = &c->g.volume->meta.segments[i];
		for (uint32_t k = 0; k < m->ensemble_count && m->cut; k++)
			cr_assert_neq(server_of(c, &m->ensemble[k].server), d.source, "it counts");
	}
	cluster_free(c);
}

/* ---- a copy that is made anew ---- */

static int sync_body(void *arg)
{
	struct one_server *s = arg;
	return segment_wait(s->dir, &s->rig->io);
}

/* Server `i` can't sync what it has: its copy is of no use from then on. */
static void break_copy(struct cluster_rig *c, unsigned i)
{
	const struct log_segment *g = container_of(c->g.volume->log.segments.next, struct log_segment, link);
	c->io = (struct segment_io){ .op = SEGMENT_SYNC, .segment = g->meta.id, .epoch = c->g.volume->epoch, .incarnation = c->servers[i].dir->incarnation,
				     .block = g->acked };
	volume_rig_kill(&c->g);
	sim_doses(c->g.sim)->sync_error = 1000000;
	cr_assert_lt(sim_run_fiber(c->servers[i].env, sync_body, &c->servers[i]), 0);
	sim_doses(c->g.sim)->sync_error = 0;
}

/* Who copies to the first server isn't heard of any more when that has begun. */
static void unfinished(struct segment_server *s, struct segment_io *io)
{
	struct cluster_rig *c = leaving.rig;
	if (io->op == SEGMENT_REPAIR && io->blocks && s == c->servers[0].dir && !leaving.gone) {
		leaving.gone = true;
		cut_off(c, 0, true);
		cut_off(c, 1, true);
		between_answer(io, -EIO);
		return;
	}
	between_pass(s, io);
}

/* One copy is broken for good, and the only whole one goes away when it is copied from: that is missing, which is to be said. */
Test(recover, a_source_that_goes_away_is_missing_whatever_is_broken)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, write_later_body), 0);
	const struct log_segment *g = container_of(c->g.volume->log.segments.next, struct log_segment, link);
	c->io = (struct segment_io){ .op = SEGMENT_SYNC, .segment = g->meta.id, .epoch = c->g.volume->epoch, .incarnation = c->servers[2].dir->incarnation,
				     .block = g->acked };
	cut_off(c, 1, true);
	cut_off(c, 2, true);
	cr_assert_eq(volume_rig_run(&c->g, unanswered_body), 0);
	volume_rig_kill(&c->g);
	sim_doses(c->g.sim)->sync_error = 1000000;
	cr_assert_lt(sim_run_fiber(c->servers[2].env, sync_body, &c->servers[2]), 0);
	sim_doses(c->g.sim)->sync_error = 0;
	sim_power_loss(c->servers[1].host);
	for (unsigned i = 1; i < SERVERS; i++) {
		cluster_server_end(c, i);
		cut_off(c, i, false);
		cluster_server_begin(c, i);
	}
	leave(c, 2);
	volume_rig_begin(&c->g);
	int r = volume_rig_open(&c->g);
	cr_assert(leaving.gone && segment_away(r) && strstr(c->g.report.text, c->servers[0].address), "%d %s", r, c->g.report.text);
	come_back(c);
	cluster_open(c);
	cluster_free(c);
}

/* A copy that somebody began to make in the place of one that was listed, and didn't complete, has not got what was acknowledged, though its server
 * has run without a break since it was made: the next one waits for who has. */
Test(recover, a_copy_that_was_begun_anew_is_no_source)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, write_later_body), 0);
	break_copy(c, 0);
	leave(c, UINT32_MAX);
	cluster_between(c, unfinished);
	cut_off(c, 2, true);
	volume_rig_begin(&c->g);
	c->g.places.ops.domain = c->servers[1].domain;
	cr_assert_lt(volume_rig_open(&c->g), 0);
	cr_assert(leaving.gone, "nothing was copied to it");
	sim_power_loss(c->servers[2].host);
	cluster_server_end(c, 2);
	cluster_server_begin(c, 2);
	cut_off(c, 0, false);
	cut_off(c, 2, false);
	int r = volume_rig_open(&c->g);
	cr_assert(segment_away(r) && strstr(c->g.report.text, c->servers[1].address), "%d %s", r, c->g.report.text);
	cut_off(c, 1, false);
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, read_later_body), 0);
	cluster_free(c);
}

static int own_io(struct cluster_rig *c, unsigned i, struct segment_io io)
{
	c->io = io;
	return sim_run_fiber(c->servers[i].env, sync_body, &c->servers[i]);
}

/* Somebody made the copy on `to` anew, from that on `from`, and recorded no cut. */
static void make_anew(struct cluster_rig *c, const struct meta_segment *m, uint32_t length, unsigned from, unsigned to)
{
	struct iovec iov = { env_alloc_aligned((size_t)length * BLOCK_BYTES), (size_t)(length - 1) * BLOCK_BYTES };
	struct segment_header h = { .segment = m->id, .epoch = m->epoch, .salt = m->salt, .size_blocks = m->size_blocks };
	memcpy(h.volume.bytes, c->g.volume->meta.volume.bytes, sizeof h.volume.bytes);
	struct segment_io io = { .segment = m->id, .epoch = m->epoch, .block = 1, .blocks = length - 1, .iov = &iov, .iov_count = 1, .header = h };
	const struct {
		enum segment_op op;
		unsigned at;
	} steps[] = { { SEGMENT_READ, from }, { SEGMENT_DELETE, to }, { SEGMENT_FENCE, to }, { SEGMENT_CREATE, to }, { SEGMENT_REPAIR, to } };
	for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++) {
		io.op = steps[i].op;
		cr_assert_eq(own_io(c, steps[i].at, io), 0);
	}
	free(iov.iov_base);
}

/* It has as much as the others, of which each failed a sync; but they have what was flushed for certain. */
Test(recover, of_broken_copies_one_that_has_all_that_was_flushed_is_taken)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, write_later_body), 0);
	const struct log_segment *g = container_of(c->g.volume->log.segments.next, struct log_segment, link);
	struct meta_segment m = g->meta;
	uint32_t acked = g->acked;
	unsigned first = server_of(c, &m.ensemble[0].server);
	make_anew(c, &m, acked, server_of(c, &m.ensemble[1].server), first);
	volume_rig_kill(&c->g);
	sim_doses(c->g.sim)->sync_error = 1000000;
	for (unsigned i = 0; i < SERVERS; i++)
		cr_assert(i == first || own_io(c, i, (struct segment_io){ .op = SEGMENT_SYNC, .segment = m.id, .epoch = m.epoch,
									   .incarnation = c->servers[i].dir->incarnation, .block = acked }) < 0);
	sim_doses(c->g.sim)->sync_error = 0;
	volume_rig_begin(&c->g);
	c->g.accept_flushed = true;
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, read_later_body), 0);
	cluster_free(c);
}

/* ---- a whole copy whose end is damaged ---- */

/* Its server is started anew, and finds less there than it had answered; power was not lost, so it calls it whole. The others lost power, and have all that was
 * flushed. */
Test(recover, a_whole_copy_that_lost_its_end_is_not_all_there_is)
{
	struct cluster_rig *c = cluster_make();
	struct place last = cluster_find(c, 0, BLOCKS - 1);
	volume_rig_kill(&c->g);
	for (unsigned i = 0; i < SERVERS; i++) {
		if (i)
			sim_power_loss(c->servers[i].host);
		else
			cluster_flip(c, i, &last);
		cluster_server_end(c, i);
		cluster_server_begin(c, i);
	}
	volume_rig_begin(&c->g);
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	cluster_free(c);
}

/* So many that another segment begins, while the catalog can't be told that the first one is full. */
static int fill_body(void *arg)
{
	struct cluster_rig *c = arg;
	const struct log_segment *first = container_of(c->g.volume->log.segments.next, struct log_segment, link);
	memset(c->g.buffer, 100, BLOCK_BYTES);
	for (unsigned n = 0; c->g.volume->log.current == first || n % 4; n++)
		cr_assert_eq(blk_write_wait(c->g.node, c->g.buffer, BLOCK_BYTES, n % BLOCKS * BLOCK_BYTES, BLK_FUA), 0);
	return 0;
}

static int filled_body(void *arg)
{
	struct cluster_rig *c = arg;
	for (unsigned b = 0; b < BLOCKS; b++) {
		cr_assert_eq(blk_read_wait(c->g.node, c->g.buffer, BLOCK_BYTES, b * BLOCK_BYTES), 0);
		cr_assert_eq(c->g.buffer[99], 100, "block %u, which was flushed, is lost", b);
	}
	return 0;
}

/* A copy lost its end, and another one all; in the next segment is said that what is missing was flushed. Who has it doesn't answer. */
Test(recover, what_was_flushed_before_the_next_segment_is_not_given_up)
{
	struct cluster_rig *c = cluster_make();
	const struct log_segment *g = container_of(c->g.volume->log.segments.next, struct log_segment, link);
	struct place last = { .segment = g->meta.id };
	snprintf(last.path, sizeof last.path, "/data/segments/%02x/%012llx.seg", (unsigned)(last.segment & 0xff), (unsigned long long)last.segment);
	catalog_sim_outage(c->g.catalogs, true);
	cr_assert_eq(volume_rig_run(&c->g, fill_body), 0);
	cr_assert(g->finished && !g->cut);
	last.offset = (uint64_t)(2 + g->acked - 1) * BLOCK_BYTES;
	volume_rig_kill(&c->g);
	catalog_sim_outage(c->g.catalogs, false);
	cluster_flip(c, 0, &last);
	for (last.offset = 0; last.offset < 2 * BLOCK_BYTES; last.offset += BLOCK_BYTES) /* both slots */
		cluster_flip(c, 1, &last);
	for (unsigned i = 0; i < SERVERS; i++) {
		cluster_server_end(c, i);
		cluster_server_begin(c, i);
	}
	cut_off(c, 2, true);
	volume_rig_begin(&c->g);
	c->g.places.ops.domain = c->servers[1].domain;
	int r = volume_rig_open(&c->g);
	cr_assert(r == -EIO && strstr(c->g.report.text, "flushed"), "%d %s", r, c->g.report.text);
	cut_off(c, 2, false);
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, filled_body), 0);
	cluster_free(c);
}
