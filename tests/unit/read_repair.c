/* Read repair on three servers: what a read finds to be wrong on one of them is right there soon afterwards, sealed or not; nothing else is changed, and
 * nobody is believed. What a seal says of a copy that is damaged already. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/segment/placement.h"
#include "parallax/segment/segment_remote.h"
#include "parallax/segment/segment_scrub.h"
#include "parallax/volume/volume_private.h"
#include "server/found.h"
#include "tests/unit/clustertest.h"

enum { FIRST = 2 /* blocks of a file before those of the segment */, PATIENCE = 200 };

/* ---- reading ---- */

/* Until the second server's copy is right again, which is the one that is read: now and then another is, to measure it. */
static void read_until_whole(struct cluster_rig *c, const struct place *p, unsigned block)
{
	for (unsigned n = 0; n < PATIENCE && !cluster_is_whole(c, 1, p, block); n++)
		cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	cr_assert(cluster_is_whole(c, 1, p, block), "block %u isn't repaired", block);
}

static struct volume_counters counters(struct cluster_rig *c)
{
	struct volume_counters n;
	volume_count(c->g.volume, &n);
	return n;
}

/* ---- what is asked of the second server ---- */

static int look_body(void *arg)
{
	struct one_server *s = arg;
	return segment_dir_look(s->dir, s->rig->segment, 0, SEGMENT_BLOCKS_MAX, &s->rig->slice);
}

static int scrub_body(void *arg)
{
	struct one_server *s = arg;
	return segment_dir_scrub(s->dir, s->rig->segment, 0, NULL, &s->rig->slice);
}

static int io_body(void *arg)
{
	struct one_server *s = arg;
	return segment_wait(s->dir, &s->rig->io);
}

static int ask(struct cluster_rig *c, unsigned server, int (*body)(void *arg)) { return sim_run_fiber(c->servers[server].env, body, &c->servers[server]); }

Test(read_repair, what_a_read_finds_is_mended)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	cr_assert_eq(counters(c).read_damaged, 0);

	/* open: in the copy that is read, and in two of three */
	struct place p = cluster_find(c, 1, 7), q = cluster_find(c, 2, 8), q1 = cluster_find(c, 1, 8);
	cluster_flip(c, 1, &p);
	cluster_flip(c, 1, &q1);
	cluster_flip(c, 2, &q);
	c->segment = p.segment;
	cr_assert_eq(ask(c, 1, look_body), 0);
	cr_assert(c->slice.bad && c->slice.bad_block == p.offset / BLOCK_BYTES - FIRST);
	read_until_whole(c, &p, 7);
	read_until_whole(c, &q1, 8);
	cr_assert_gt(counters(c).read_damaged, 0);
	cr_assert_gt(counters(c).repairs_asked, 0);
	cr_assert_eq(counters(c).read_errors, 0);
	cr_assert_eq(ask(c, 1, look_body), 0);
	cr_assert_not(c->slice.bad);

	/* sealed */
	cr_assert_eq(volume_rig_run(&c->g, cluster_close), 0);
	c->segment = p.segment;
	cr_assert_eq(ask(c, 1, scrub_body), 0, "it isn't sealed");
	cr_assert_not(c->slice.bad);
	cluster_open(c);
	for (unsigned b = 0; b < BLOCKS; b += 13) {
		p = cluster_find(c, 1, b);
		cluster_flip(c, 1, &p);
		read_until_whole(c, &p, b);
	}
	cluster_free(c);
}

/* Each of three copies has two of the blocks wrong, and each block is right in one. */
static int write_run_body(void *arg)
{
	struct cluster_rig *c = arg;
	for (unsigned b = 0; b < BLOCKS; b++)
		memset(c->run + b * BLOCK_BYTES, (int)(c->shift + b), BLOCK_BYTES);
	return blk_write_wait(c->g.node, c->run, BLOCKS * BLOCK_BYTES, 0, BLK_FUA);
}

static int read_run_body(void *arg)
{
	struct cluster_rig *c = arg;
	memset(c->run, 0, BLOCKS * BLOCK_BYTES);
	int r = blk_read_wait(c->g.node, c->run, BLOCKS * BLOCK_BYTES, 0);
	for (unsigned b = 0; r == 0 && b < BLOCKS; b++)
		for (unsigned i = 0; i < BLOCK_BYTES; i++)
			cr_assert_eq(c->run[b * BLOCK_BYTES + i], c->shift + b, "block %u, byte %u", b, i);
	return r;
}

Test(read_repair, a_run_that_no_copy_has_right_is_read_block_by_block)
{
	struct cluster_rig *c = cluster_make();
	static const unsigned flips[][2] = { { 0, 10 }, { 1, 10 }, { 1, 11 }, { 2, 11 }, { 0, 30 }, { 2, 30 } };
	c->run = env_alloc_aligned(BLOCKS * BLOCK_BYTES);
	c->shift = 101;
	cr_assert_eq(volume_rig_run(&c->g, write_run_body), 0);
	for (unsigned i = 0; i < 6; i++) {
		struct place p = cluster_find(c, flips[i][0], flips[i][1]);
		cluster_flip(c, flips[i][0], &p);
	}
	cr_assert_eq(volume_rig_run(&c->g, read_run_body), 0);
	cr_assert_eq(counters(c).read_errors, 0);
	struct place p = cluster_find(c, 0, 20);
	for (unsigned i = 0; i < SERVERS; i++)
		cluster_flip(c, i, &p);
	cr_assert_eq(volume_rig_run(&c->g, read_run_body), -EIO, "nobody has it");
	free(c->run);
	cluster_free(c);
}

/* Damaged before it was sealed: by a server that took the appends it is sealed with what they should be, so that it is found and mended; one that has
 * nothing but its disk refuses. */
Test(read_repair, a_seal_does_not_make_a_bad_block_good)
{
	for (int restarted = 0; restarted < 2; restarted++) {
		struct cluster_rig *c = cluster_make();
		struct place p = cluster_find(c, 1, 20);
		cluster_flip(c, 1, &p);
		if (restarted)
			cluster_server_end(c, 1);
		cr_assert_eq(volume_rig_run(&c->g, cluster_close), 0);
		if (restarted) {
			c->segment = p.segment;
			c->io = (struct segment_io){ .op = SEGMENT_STAT, .segment = p.segment };
			cr_assert_eq(ask(c, 2, io_body), 0);
			cr_assert(c->io.sealed);
			c->io = (struct segment_io){ .op = SEGMENT_SEAL, .segment = p.segment, .epoch = 100, .block = c->io.length, .crc = c->io.last_crc };
			cluster_server_begin(c, 1);
			cr_assert_eq(ask(c, 1, io_body), -EINVAL);
			cr_assert_eq(ask(c, 1, look_body), -ENOENT);
		} else {
			c->segment = p.segment;
			cr_assert_eq(ask(c, 1, scrub_body), 0);
			cr_assert(c->slice.bad && c->slice.bad_block == p.offset / BLOCK_BYTES - FIRST);
			cluster_open(c);
			read_until_whole(c, &p, 20);
		}
		if (restarted)
			cluster_open(c);
		cluster_free(c);
	}
}

/* ---- what can't be mended, and who lies ---- */

/* As a reader does: so many blocks from the bad one on. */
static int tell_bad(struct cluster_rig *c, uint32_t blocks, struct rpc_call *ret_call)
{
	Aquifer__Segment__ScrubRequest q = AQUIFER__SEGMENT__SCRUB_REQUEST__INIT;
	q.segment = c->segment;
	q.block = c->slice.bad_block;
	q.blocks = blocks;
	return segment_remote_call(c->g.volume->copies->peers[0]->server, AQUIFER__SEGMENT__METHOD__SCRUB, &q.base, &aquifer__segment__scrub__descriptor, ret_call, NULL);
}

static int tell_body(void *arg)
{
	struct cluster_rig *c = arg;
	struct rpc_call call;
	int r = tell_bad(c, c->end, &call);
	c->status = r == 0 ? (int)((const Aquifer__Segment__Scrub *)call.reply)->read_bad : r;
	rpc_call_clean(&call);
	fiber_sleep(&c->g.env->loop, 300 * NS_PER_MS);
	return 0;
}

static int tell(struct cluster_rig *c, uint64_t segment, uint32_t block, uint32_t blocks)
{
	c->segment = segment;
	c->slice.bad_block = block;
	c->end = blocks;
	cr_assert_eq(volume_rig_run(&c->g, tell_body), 0);
	return c->status;
}

Test(read_repair, nobody_is_believed)
{
	struct cluster_rig *c = cluster_make();
	const struct peer *first = c->g.volume->copies->peers[0];
	unsigned server = (unsigned)(first->address[5] - '0'); /* tcp:s0:7000 */
	struct place p = cluster_find(c, server, 3);
	cr_assert_eq(tell(c, p.segment, 1, 100), 0);
	cr_assert_eq(tell(c, p.segment + 100, 1, 1), 0, "it has no such copy");
	cr_assert_eq(tell(c, UINT64_MAX, 1, 1), -EINVAL);
	cr_assert_eq(tell(c, p.segment, 1, 0), -EINVAL);
	cr_assert_eq(tell(c, p.segment, SEGMENT_BLOCKS_MAX - 1, 2), -EINVAL);
	cr_assert_eq(tell(c, p.segment, UINT32_MAX, UINT32_MAX), -EINVAL);
	cr_assert_eq(tell(c, p.segment, 1, 1), 0, "all was right");
	cr_assert(cluster_is_whole(c, server, &p, 3));

	/* what is damaged everywhere stays, is counted once, and reading it is an error */
	struct place all[SERVERS];
	for (unsigned i = 0; i < SERVERS; i++) {
		all[i] = cluster_find(c, i, 3);
		cluster_flip(c, i, &all[i]);
	}
	uint32_t block = (uint32_t)(p.offset / BLOCK_BYTES) - FIRST;
	for (unsigned n = 0; n < 3; n++)
		tell(c, p.segment, block, 1);
	cr_assert_eq(tell(c, p.segment, block, 1), 1, "it is counted again: %d", c->status);
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), -EIO);
	cr_assert_eq(counters(c).repairs_asked, 0);
	cluster_flip(c, (server + 1) % SERVERS, &all[(server + 1) % SERVERS]);
	tell(c, p.segment, block, 1);
	cr_assert(cluster_is_whole(c, server, &p, 3));
	cluster_free(c);
}

/* ---- what servers find themselves ---- */

/* Steps until server `i` has the block right; a minute at most. */
static void step_until_whole(struct cluster_rig *c, unsigned i, const struct place *p, unsigned block)
{
	uint64_t until = sim_now_ns(c->g.sim) + 60 * NS_PER_S;
	while (!cluster_is_whole(c, i, p, block) && sim_now_ns(c->g.sim) < until)
		cr_assert(sim_step(c->g.sim));
	cr_assert(cluster_is_whole(c, i, p, block), "block %u isn't repaired on server %u", block, i);
}

/* Of a sealed copy most becomes free, and it is packed; what stays is damaged. */
Test(read_repair, what_packing_finds_is_mended)
{
	struct cluster_rig *c = cluster_make();
	uint8_t bits[SEGMENT_BITMAP_BYTES] = { 0 };
	cr_assert_eq(volume_rig_run(&c->g, cluster_close), 0);
	struct place p = cluster_find(c, 1, 20), q = cluster_find(c, 1, 35);
	cluster_flip(c, 1, &p);
	cluster_flip(c, 1, &q);
	for (uint32_t b = 1; b < 30; b++)
		bits[b / 8] |= (uint8_t)(1u << b % 8);
	c->io = (struct segment_io){ .op = SEGMENT_TRIM, .segment = p.segment, .epoch = 100, .blocks = 30, .trim = bits, .pack = true };
	cr_assert_eq(ask(c, 1, io_body), 0, "it stays as it is");
	step_until_whole(c, 1, &p, 20);
	step_until_whole(c, 1, &q, 35);
	cr_assert_eq(cluster_find(c, 1, 35).offset, q.offset);
	cr_assert_eq(ask(c, 1, io_body), 0);
	cr_assert_lt(cluster_find(c, 1, 35).offset, q.offset, "it isn't packed");
	cluster_open(c);
	cluster_free(c);
}

static int keeper_body(void *arg)
{
	struct one_server *s = arg;
	struct keeper_options o = { .round_ns = NS_PER_S / 5 };
	return keeper_start(s->env, s->catalog, s->dir, s->server, &o, &s->keeper, &s->rig->g.report);
}

static int give_up_body(void *arg)
{
	struct one_server *s = arg;
	return segment_dir_give_up(s->dir, s->rig->segment);
}

/* Two servers' copies are damaged, each in another place, and the third one makes its own of them. */
Test(read_repair, what_rebuilding_finds_is_mended)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, cluster_close), 0);
	struct place p = cluster_find(c, 0, 10), q = cluster_find(c, 1, 30), own = cluster_find(c, 2, 10);
	cluster_flip(c, 0, &p);
	cluster_flip(c, 1, &q);
	c->segment = p.segment;
	cr_assert_eq(ask(c, 2, give_up_body), 0);
	cluster_flip(c, 2, &own);
	cr_assert_eq(ask(c, 2, keeper_body), 0, "%s", c->g.report.text);
	step_until_whole(c, 0, &p, 10);
	step_until_whole(c, 1, &q, 30);
	uint64_t until = sim_now_ns(c->g.sim) + 60 * NS_PER_S;
	while (keeper_status(c->servers[2].keeper)->rebuilt == 0 && sim_now_ns(c->g.sim) < until)
		cr_assert(sim_step(c->g.sim));
	cr_assert_eq(keeper_status(c->servers[2].keeper)->rebuilt, 1);
	cluster_find(c, 2, 10);
	cluster_open(c);
	cluster_free(c);
}

static int tell_there_body(void *arg)
{
	struct one_server *s = arg;
	struct cluster_rig *c = s->rig;
	struct segment_server *there;
	struct rpc_call call;
	Aquifer__Segment__ScrubRequest q = AQUIFER__SEGMENT__SCRUB_REQUEST__INIT;
	q.segment = c->segment;
	q.block = c->slice.bad_block;
	q.blocks = 3;
	int r = segment_remote_open(s->env, c->servers[1].address, NS_PER_S, &there, &c->g.report);
	if (r < 0)
		return r;
	r = segment_remote_call(there, AQUIFER__SEGMENT__METHOD__SCRUB, &q.base, &aquifer__segment__scrub__descriptor, &call, NULL);
	rpc_call_clean(&call);
	segment_server_close(there);
	return r;
}

/* Nobody has asked the server yet whether it has everything still, for the volume's host doesn't reach it. */
Test(read_repair, an_open_copy_is_mended_where_the_server_was_restarted)
{
	struct cluster_rig *c = cluster_make();
	struct place p = cluster_find(c, 1, 20);
	cluster_server_end(c, 1);
	sim_partition(c->g.sim, c->g.host, c->servers[1].host, true);
	sim_partition(c->g.sim, c->servers[1].host, c->g.host, true);
	cluster_flip(c, 1, &p);
	cluster_server_begin(c, 1);
	c->segment = p.segment;
	cr_assert_eq(ask(c, 1, scrub_body), -ENOENT, "it is sealed");
	cr_assert_eq(ask(c, 1, look_body), 0);
	cr_assert(c->slice.bad && c->slice.bad_block == p.offset / BLOCK_BYTES - FIRST);
	cr_assert_eq(ask(c, 0, tell_there_body), 0, "%s", c->g.report.text);
	step_until_whole(c, 1, &p, 20);
	c->io = (struct segment_io){ .op = SEGMENT_STAT, .segment = p.segment };
	cr_assert_eq(ask(c, 1, io_body), 0);
	cr_assert_eq(c->io.state, COPY_WHOLE);
	cr_assert_gt(c->io.length, p.offset / BLOCK_BYTES - FIRST);
	cr_assert_eq(ask(c, 1, look_body), 0);
	cr_assert_not(c->slice.bad);
	sim_partition(c->g.sim, c->g.host, c->servers[1].host, false);
	sim_partition(c->g.sim, c->servers[1].host, c->g.host, false);
	cluster_free(c);
}

/* ---- who lets go doesn't wait for a server that hangs ---- */

static int leave_body(void *arg)
{
	struct cluster_rig *c = arg;
	struct env *env = c->g.env;
	struct meta_log *log = malloc(sizeof *log);
	struct sources s;
	uint64_t id;
	cr_assert_eq(store_find_volume(&c->g.places, "v", &id, &c->g.report), 0);
	cr_assert_eq(meta_get_log(c->g.places.catalog, id, log, NULL), 0);
	for (int connected = 0; connected < 2; connected++) {
		cr_assert_eq(sources_open(&s, env, c->g.places.catalog, &c->g.places.ops, id, log, NULL, &c->g.report), 0, "%s", c->g.report.text);
		struct peer *p = copies_placed(s.cluster, 2);
		struct iovec v = { c->g.buffer, BLOCK_BYTES };
		struct segment_io io = { .op = SEGMENT_READ, .segment = 1, .block = 1, .blocks = 1, .iov = &v, .iov_count = 1 };
		struct job j;
		if (connected)
			cr_assert(peer_reach(p));
		sim_pause(c->servers[p->address[5] - '0'].env);
		repairs_note(&s.repairs, p, 1, 1, 1);
		job_init(&j, &env->loop);
		peer_submit(p, &io, &j);
		fiber_sleep(&env->loop, 50 * NS_PER_MS);
		uint64_t began = env_now_ns(env);
		sources_close(&s);
		cr_assert_eq(fiber_wait(&j), -ENOTCONN);
		cr_assert_lt(env_now_ns(env) - began, 100 * NS_PER_MS, "%llu ms", (unsigned long long)((env_now_ns(env) - began) / NS_PER_MS));
		for (unsigned i = 0; i < SERVERS; i++)
			sim_resume(c->servers[i].env);
	}
	free(log);
	return 0;
}

Test(read_repair, who_leaves_does_not_wait_for_what_is_being_told)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, cluster_close), 0);
	cr_assert_eq(volume_rig_run(&c->g, leave_body), 0);
	cluster_open(c);
	cluster_free(c);
}

static int timed_close_body(void *arg)
{
	struct cluster_rig *c = arg;
	uint64_t began = env_now_ns(c->g.env);
	int r = cluster_close(c);
	uint64_t took = env_now_ns(c->g.env) - began;
	cr_assert_lt(took, COPIES_DEADLINE_NS + NS_PER_S / 2, "%llu ms", (unsigned long long)(took / NS_PER_MS));
	return r;
}

/* Something is to be synced there, to be sealed and to be deleted. */
Test(read_repair, a_server_that_hangs_costs_a_detach_one_deadline)
{
	struct cluster_rig *c = cluster_make();
	sim_pause(c->servers[2].env);
	cr_assert_eq(volume_rig_run(&c->g, timed_close_body), 0);
	sim_resume(c->servers[2].env);
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	cluster_free(c);
}

/* ---- passes beside that ---- */

struct pass {
	struct segment_server *server;
	uint64_t number, ended;
};

static int ask_pass(struct pass *p, bool begin)
{
	Aquifer__Segment__ScrubRequest q = AQUIFER__SEGMENT__SCRUB_REQUEST__INIT;
	struct rpc_call call;
	q.begin = begin;
	int r = segment_remote_call(p->server, AQUIFER__SEGMENT__METHOD__SCRUB, &q.base, &aquifer__segment__scrub__descriptor, &call, NULL);
	const Aquifer__Segment__Scrub *m = (const Aquifer__Segment__Scrub *)call.reply;
	p->ended = r == 0 ? m->ended : 0;
	if (r == 0 && begin)
		p->number = m->number;
	rpc_call_clean(&call);
	return r;
}

/* A block was just repaired: `slice.blocks` ms later a pass is asked for. */
static int pass_body(void *arg)
{
	struct cluster_rig *c = arg;
	struct env *env = c->g.env;
	struct pass p = { .server = c->g.volume->copies->peers[0]->server };
	fiber_sleep(&env->loop, (uint64_t)c->slice.blocks * NS_PER_MS);
	cr_assert_eq(ask_pass(&p, /* begin= */ true), 0);
	uint64_t began = env_now_ns(env);
	while (p.ended < p.number && env_now_ns(env) - began < 20 * NS_PER_S) {
		cr_assert_eq(ask_pass(&p, /* begin= */ false), 0);
		fiber_sleep(&env->loop, 10 * NS_PER_MS);
	}
	cr_assert_lt(env_now_ns(env) - began, 20 * NS_PER_S, "%u ms after a repair a pass is asked for, and doesn't begin", c->slice.blocks);
	return 0;
}

static int tell_soon_body(void *arg)
{
	struct cluster_rig *c = arg;
	struct rpc_call call;
	int r = tell_bad(c, 1, &call);
	rpc_call_clean(&call);
	return r;
}

Test(read_repair, a_pass_that_is_asked_for_while_the_last_repair_is_cleared_away_begins)
{
	struct cluster_rig *c = cluster_make();
	unsigned server = (unsigned)(c->g.volume->copies->peers[0]->address[5] - '0');
	struct place p = cluster_find(c, server, 3);
	catalog_sim_doses(c->g.catalogs)->latency_ns = 20 * NS_PER_MS; /* so that clearing away takes its time: somebody is asking it */
	for (unsigned n = 0; n < 60; n++) {
		cluster_flip(c, server, &p);
		c->segment = p.segment;
		c->slice = (struct scrub_slice){ .bad_block = (uint32_t)(p.offset / BLOCK_BYTES) - FIRST, .blocks = n };
		cr_assert_eq(volume_rig_run(&c->g, tell_soon_body), 0);
		while (!cluster_is_whole(c, server, &p, 3))
			cr_assert(sim_step(c->g.sim));
		cr_assert_eq(volume_rig_run(&c->g, pass_body), 0);
	}
	cluster_free(c);
}

Test(read_repair, what_waits_is_little)
{
	struct found *f = calloc(1, sizeof *f);
	struct found_range range = { 5, 10, 10 }, part = { 5, 12, 8 }, more = { 5, 12, 9 };
	cr_assert_eq(found_add(f, &range), 0);
	cr_assert_eq(found_add(f, &part), 0);
	cr_assert_eq(f->added, 1);
	cr_assert_eq(found_add(f, &more), 0);
	cr_assert_eq(f->added, 2);
	while (f->added < FOUND_WAITING) {
		more.segment++;
		cr_assert_eq(found_add(f, &more), 0);
	}
	more.segment++;
	cr_assert_eq(found_add(f, &more), -EBUSY);
	cr_assert_eq(found_add(f, &part), 0);
	cr_assert(found_take(f, &part) && part.block == 10 && part.blocks == 10);
	cr_assert_eq(found_add(f, &more), 0);
	for (unsigned n = 0; n < FOUND_WAITING; n++)
		cr_assert(found_take(f, &part));
	cr_assert_not(found_take(f, &part));
	for (unsigned n = 0; n < 2 * FOUND_KNOWN; n++) {
		cr_assert(found_is_news(f, 5, n));
		cr_assert_not(found_is_news(f, 5, n));
	}
	cr_assert(found_is_news(f, 5, 0), "what was known long ago may be told again");
	free(f);
}
