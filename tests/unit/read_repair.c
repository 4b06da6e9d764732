/* Read repair on three servers: what a read finds to be wrong on one of them is right there soon afterwards, sealed or not; nothing else is changed, and
 * nobody is believed. What a seal says of a copy that is damaged already. */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/placement.h"
#include "parallax/segment_remote.h"
#include "parallax/segment_scrub.h"
#include "parallax/volume_private.h"
#include "server/found.h"
#include "server/keeper.h"
#include "server/scrub.h"
#include "server/server.h"
#include "tests/unit/volumetest.h"

enum { SERVERS = 3, BLOCKS = 40, FIRST = 2 /* blocks of a file before those of the segment */, PATIENCE = 200 };

struct one_server {
	struct cluster_rig *rig;
	char domain[8], address[24];
	struct sim_host *host;
	struct env *env;
	struct catalog *catalog;
	struct segment_server *dir;
	struct server *server;
	struct scrub *scrub;
	struct keeper *keeper; /* NULL: it rebuilds nothing */
};

struct cluster_rig {
	struct volume_rig g; /* first: its functions are used */
	struct one_server servers[SERVERS];
	struct segment_io io; /* what is asked of a directory, and the answer */
	struct scrub_slice slice;
	uint64_t segment;
	uint32_t end;
	int status;
	uint8_t *run; /* all blocks */
	unsigned shift; /* the first block's value */
};

static int begin_body(void *arg)
{
	struct one_server *s = arg;
	struct segment_dir_options o = { .create = true, .address = s->address, .domain = s->domain };
	struct placed_server placed = { .weight = 1 };
	struct server_limits limits = { 0 };
	struct scrub_options scrubs = { .directory = "/data" };
	struct listener *l;
	int r = segment_dir_open(s->env, "/data", s->catalog, &o, &s->dir, &s->rig->g.report);
	if (r == 0)
		r = stream_listen(s->env, s->address, &l);
	if (r == 0)
		r = server_start(s->env, l, s->dir, &limits, &s->server);
	if (r < 0)
		return r;
	snprintf(placed.domain, sizeof placed.domain, "%s", s->domain);
	placed.id = s->dir->id;
	r = placement_join(s->catalog, &placed, &s->rig->g.report);
	return r == 0 ? scrub_start(s->env, s->catalog, s->dir, s->server, &scrubs, &s->scrub) : r;
}

static int end_body(void *arg)
{
	struct one_server *s = arg;
	keeper_stop(s->keeper);
	s->keeper = NULL;
	scrub_stop(s->scrub);
	server_stop(s->server, NS_PER_S);
	return segment_server_close(s->dir);
}

static void server_begin(struct cluster_rig *c, unsigned i)
{
	struct one_server *s = &c->servers[i];
	s->env = sim_process_create(c->g.sim, s->host);
	s->catalog = catalog_sim_open(c->g.catalogs, s->env);
	cr_assert_eq(sim_run_fiber(s->env, begin_body, s), 0, "%s", c->g.report.text);
}

static void server_end(struct cluster_rig *c, unsigned i)
{
	struct one_server *s = &c->servers[i];
	sim_kill(s->env);
	sim_drain_dead(s->env);
	sim_run_fiber(s->env, end_body, s);
	catalog_close(s->catalog);
	sim_process_destroy(s->env);
	s->env = NULL;
}

static int create_body(void *arg)
{
	struct cluster_rig *c = arg;
	struct store_volume_options o = { .size_bytes = BLOCKS * BLOCK_BYTES, .replicas = SERVERS, .min_replicas = 2 };
	return store_volume_create(&c->g.store, "v", &o, &c->g.report);
}

static int close_body(void *arg)
{
	struct cluster_rig *c = arg;
	cr_assert_eq(blk_close(c->g.node), 0);
	c->g.node = NULL;
	int r = volume_close(c->g.volume);
	c->g.volume = NULL;
	return r;
}

/* Attached by who is near the second server. */
static void open_near(struct cluster_rig *c)
{
	c->g.places.ops.domain = c->servers[1].domain;
	cr_assert_eq(volume_rig_open(&c->g), 0, "%s", c->g.report.text);
}

static int write_body(void *arg)
{
	struct cluster_rig *c = arg;
	for (unsigned b = 0; b < BLOCKS; b++) {
		memset(c->g.buffer, (int)b + 1, BLOCK_BYTES);
		cr_assert_eq(blk_write_wait(c->g.node, c->g.buffer, BLOCK_BYTES, b * BLOCK_BYTES, BLK_FUA), 0);
	}
	return 0;
}

static struct cluster_rig *cluster_make(void)
{
	struct cluster_rig *c = calloc(1, sizeof *c);
	cr_assert(c);
	c->g.sim = sim_create(3, NULL);
	c->g.buffer = env_alloc_aligned(BLOCK_BYTES);
	c->g.segment_blocks = 256;
	c->shift = 1;
	c->g.host = sim_host_create(c->g.sim, "h", UINT64_C(16) << 20, 4096);
	c->g.catalogs = catalog_sim_create(c->g.sim);
	for (unsigned i = 0; i < SERVERS; i++) {
		struct one_server *s = &c->servers[i];
		s->rig = c;
		snprintf(s->domain, sizeof s->domain, "s%u", i);
		snprintf(s->address, sizeof s->address, "tcp:s%u:7000", i);
		s->host = sim_host_create(c->g.sim, s->domain, UINT64_C(64) << 20, 4096);
		server_begin(c, i);
	}
	volume_rig_begin(&c->g);
	cr_assert_eq(volume_rig_run(&c->g, create_body), 0, "%s", c->g.report.text);
	open_near(c);
	cr_assert_eq(volume_rig_run(&c->g, write_body), 0);
	return c;
}

static void cluster_free(struct cluster_rig *c)
{
	volume_rig_kill(&c->g);
	for (unsigned i = 0; i < SERVERS; i++)
		if (c->servers[i].env)
			server_end(c, i);
	catalog_sim_destroy(c->g.catalogs);
	sim_destroy(c->g.sim);
	free(c->g.buffer);
	free(c);
}

/* ---- on the disks ---- */

struct place {
	char path[64];
	uint64_t segment, offset; /* of the page in the file */
};

static int note_id(void *arg, uint64_t segment)
{
	struct cluster_rig *c = arg;
	c->segment = segment > c->segment ? segment : c->segment;
	return 0;
}

static int ids_body(void *arg)
{
	struct one_server *s = arg;
	return segment_dir_ids(s->dir, note_id, s->rig);
}

/* Where a server has a block of the volume; they were written once. */
static struct place find(struct cluster_rig *c, unsigned server, unsigned block)
{
	struct place p = { .segment = 0 };
	uint8_t page[BLOCK_BYTES], wanted[BLOCK_BYTES];
	memset(wanted, (int)(c->shift + block), sizeof wanted);
	c->segment = 0;
	cr_assert_eq(sim_run_fiber(c->servers[server].env, ids_body, &c->servers[server]), 0);
	for (p.segment = 1; p.segment <= c->segment; p.segment++) {
		snprintf(p.path, sizeof p.path, "/data/segments/%02x/%012" PRIx64 ".seg", (unsigned)(p.segment & 0xff), p.segment);
		for (p.offset = 0; sim_disk_read(c->servers[server].host, p.path, p.offset, page, BLOCK_BYTES) == 0; p.offset += BLOCK_BYTES)
			if (memcmp(page, wanted, BLOCK_BYTES) == 0)
				return p;
	}
	cr_assert_fail("server %u hasn't got block %u", server, block);
	return p;
}

static void flip(struct cluster_rig *c, unsigned server, const struct place *p)
{
	cr_assert_eq(sim_disk_flip(c->servers[server].host, p->path, p->offset + 99, 8), 0);
}

static bool is_whole(struct cluster_rig *c, unsigned server, const struct place *p, unsigned block)
{
	uint8_t page[BLOCK_BYTES], wanted[BLOCK_BYTES];
	memset(wanted, (int)(c->shift + block), sizeof wanted);
	cr_assert_eq(sim_disk_read(c->servers[server].host, p->path, p->offset, page, BLOCK_BYTES), 0);
	return memcmp(page, wanted, BLOCK_BYTES) == 0;
}

/* ---- reading ---- */

static int read_body(void *arg)
{
	struct cluster_rig *c = arg;
	for (unsigned b = 0; b < BLOCKS; b++) {
		int r = blk_read_wait(c->g.node, c->g.buffer, BLOCK_BYTES, b * BLOCK_BYTES);
		if (r < 0)
			return r;
		cr_assert_eq(c->g.buffer[99], b + 1, "block %u is %u", b, c->g.buffer[99]);
	}
	fiber_sleep(&c->g.env->loop, 100 * NS_PER_MS);
	return 0;
}

/* Until the second server's copy is right again, which is the one that is read: now and then another is, to measure it. */
static void read_until_whole(struct cluster_rig *c, const struct place *p, unsigned block)
{
	for (unsigned n = 0; n < PATIENCE && !is_whole(c, 1, p, block); n++)
		cr_assert_eq(volume_rig_run(&c->g, read_body), 0);
	cr_assert(is_whole(c, 1, p, block), "block %u isn't repaired", block);
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
	return segment_dir_scrub(s->dir, s->rig->segment, 0, &s->rig->slice);
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
	cr_assert_eq(volume_rig_run(&c->g, read_body), 0);
	cr_assert_eq(counters(c).read_damaged, 0);

	/* open: in the copy that is read, and in two of three */
	struct place p = find(c, 1, 7), q = find(c, 2, 8), q1 = find(c, 1, 8);
	flip(c, 1, &p);
	flip(c, 1, &q1);
	flip(c, 2, &q);
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
	cr_assert_eq(volume_rig_run(&c->g, close_body), 0);
	c->segment = p.segment;
	cr_assert_eq(ask(c, 1, scrub_body), 0, "it isn't sealed");
	cr_assert_not(c->slice.bad);
	open_near(c);
	for (unsigned b = 0; b < BLOCKS; b += 13) {
		p = find(c, 1, b);
		flip(c, 1, &p);
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
		struct place p = find(c, flips[i][0], flips[i][1]);
		flip(c, flips[i][0], &p);
	}
	cr_assert_eq(volume_rig_run(&c->g, read_run_body), 0);
	cr_assert_eq(counters(c).read_errors, 0);
	struct place p = find(c, 0, 20);
	for (unsigned i = 0; i < SERVERS; i++)
		flip(c, i, &p);
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
		struct place p = find(c, 1, 20);
		flip(c, 1, &p);
		if (restarted)
			server_end(c, 1);
		cr_assert_eq(volume_rig_run(&c->g, close_body), 0);
		if (restarted) {
			c->segment = p.segment;
			c->io = (struct segment_io){ .op = SEGMENT_STAT, .segment = p.segment };
			cr_assert_eq(ask(c, 2, io_body), 0);
			cr_assert(c->io.sealed);
			c->io = (struct segment_io){ .op = SEGMENT_SEAL, .segment = p.segment, .epoch = 100, .block = c->io.length, .crc = c->io.last_crc };
			server_begin(c, 1);
			cr_assert_eq(ask(c, 1, io_body), -EINVAL);
			cr_assert_eq(ask(c, 1, look_body), -ENOENT);
		} else {
			c->segment = p.segment;
			cr_assert_eq(ask(c, 1, scrub_body), 0);
			cr_assert(c->slice.bad && c->slice.bad_block == p.offset / BLOCK_BYTES - FIRST);
			open_near(c);
			read_until_whole(c, &p, 20);
		}
		if (restarted)
			open_near(c);
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
	struct place p = find(c, server, 3);
	cr_assert_eq(tell(c, p.segment, 1, 100), 0);
	cr_assert_eq(tell(c, p.segment + 100, 1, 1), 0, "it has no such copy");
	cr_assert_eq(tell(c, UINT64_MAX, 1, 1), -EINVAL);
	cr_assert_eq(tell(c, p.segment, 1, 0), -EINVAL);
	cr_assert_eq(tell(c, p.segment, SEGMENT_BLOCKS_MAX - 1, 2), -EINVAL);
	cr_assert_eq(tell(c, p.segment, UINT32_MAX, UINT32_MAX), -EINVAL);
	cr_assert_eq(tell(c, p.segment, 1, 1), 0, "all was right");
	cr_assert(is_whole(c, server, &p, 3));

	/* what is damaged everywhere stays, is counted once, and reading it is an error */
	struct place all[SERVERS];
	for (unsigned i = 0; i < SERVERS; i++) {
		all[i] = find(c, i, 3);
		flip(c, i, &all[i]);
	}
	uint32_t block = (uint32_t)(p.offset / BLOCK_BYTES) - FIRST;
	for (unsigned n = 0; n < 3; n++)
		tell(c, p.segment, block, 1);
	cr_assert_eq(tell(c, p.segment, block, 1), 1, "it is counted again: %d", c->status);
	cr_assert_eq(volume_rig_run(&c->g, read_body), -EIO);
	cr_assert_eq(counters(c).repairs_asked, 0);
	flip(c, (server + 1) % SERVERS, &all[(server + 1) % SERVERS]);
	tell(c, p.segment, block, 1);
	cr_assert(is_whole(c, server, &p, 3));
	cluster_free(c);
}

/* ---- what servers find themselves ---- */

/* Steps until server `i` has the block right; a minute at most. */
static void step_until_whole(struct cluster_rig *c, unsigned i, const struct place *p, unsigned block)
{
	uint64_t until = sim_now_ns(c->g.sim) + 60 * NS_PER_S;
	while (!is_whole(c, i, p, block) && sim_now_ns(c->g.sim) < until)
		cr_assert(sim_step(c->g.sim));
	cr_assert(is_whole(c, i, p, block), "block %u isn't repaired on server %u", block, i);
}

/* Of a sealed copy most becomes free, and it is packed; what stays is damaged. */
Test(read_repair, what_packing_finds_is_mended)
{
	struct cluster_rig *c = cluster_make();
	uint8_t bits[SEGMENT_BITMAP_BYTES] = { 0 };
	cr_assert_eq(volume_rig_run(&c->g, close_body), 0);
	struct place p = find(c, 1, 20), q = find(c, 1, 35);
	flip(c, 1, &p);
	flip(c, 1, &q);
	for (uint32_t b = 1; b < 30; b++)
		bits[b / 8] |= (uint8_t)(1u << b % 8);
	c->io = (struct segment_io){ .op = SEGMENT_TRIM, .segment = p.segment, .epoch = 100, .blocks = 30, .trim = bits, .pack = true };
	cr_assert_eq(ask(c, 1, io_body), 0, "it stays as it is");
	step_until_whole(c, 1, &p, 20);
	step_until_whole(c, 1, &q, 35);
	cr_assert_eq(find(c, 1, 35).offset, q.offset);
	cr_assert_eq(ask(c, 1, io_body), 0);
	cr_assert_lt(find(c, 1, 35).offset, q.offset, "it isn't packed");
	open_near(c);
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
	cr_assert_eq(volume_rig_run(&c->g, close_body), 0);
	struct place p = find(c, 0, 10), q = find(c, 1, 30), own = find(c, 2, 10);
	flip(c, 0, &p);
	flip(c, 1, &q);
	c->segment = p.segment;
	cr_assert_eq(ask(c, 2, give_up_body), 0);
	flip(c, 2, &own);
	cr_assert_eq(ask(c, 2, keeper_body), 0, "%s", c->g.report.text);
	step_until_whole(c, 0, &p, 10);
	step_until_whole(c, 1, &q, 30);
	uint64_t until = sim_now_ns(c->g.sim) + 60 * NS_PER_S;
	while (keeper_status(c->servers[2].keeper)->rebuilt == 0 && sim_now_ns(c->g.sim) < until)
		cr_assert(sim_step(c->g.sim));
	cr_assert_eq(keeper_status(c->servers[2].keeper)->rebuilt, 1);
	find(c, 2, 10);
	open_near(c);
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
	struct place p = find(c, 1, 20);
	server_end(c, 1);
	sim_partition(c->g.sim, c->g.host, c->servers[1].host, true);
	sim_partition(c->g.sim, c->servers[1].host, c->g.host, true);
	flip(c, 1, &p);
	server_begin(c, 1);
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
	cr_assert_eq(volume_rig_run(&c->g, close_body), 0);
	cr_assert_eq(volume_rig_run(&c->g, leave_body), 0);
	open_near(c);
	cluster_free(c);
}

static int timed_close_body(void *arg)
{
	struct cluster_rig *c = arg;
	uint64_t began = env_now_ns(c->g.env);
	int r = close_body(c);
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
	open_near(c);
	cr_assert_eq(volume_rig_run(&c->g, read_body), 0);
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
	struct place p = find(c, server, 3);
	catalog_sim_doses(c->g.catalogs)->latency_ns = 20 * NS_PER_MS; /* so that clearing away takes its time: somebody is asking it */
	for (unsigned n = 0; n < 60; n++) {
		flip(c, server, &p);
		c->segment = p.segment;
		c->slice = (struct scrub_slice){ .bad_block = (uint32_t)(p.offset / BLOCK_BYTES) - FIRST, .blocks = n };
		cr_assert_eq(volume_rig_run(&c->g, tell_soon_body), 0);
		while (!is_whole(c, server, &p, 3))
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

/* ---- what the fullest copy can't read ---- */

static const struct segment_server_ops *whole_ops;
static struct segment_server_ops holed_ops;
static unsigned unread;

/* All of it can be read but the last record, when that is read alone: to copy it. (Its walk reads no more than headers where records are long.) */
static void holed_submit(struct segment_server *s, struct segment_io *io)
{
	bool lost = io->op == SEGMENT_READ && io->blocks == 2;
	unread += lost;
	if (lost) {
		io->status = -EIO;
		job_put(io->parent, io->status);
	} else {
		whole_ops->submit(s, io);
	}
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

/* Only the first server has a record, which was never acknowledged, and can't read it: the others have all that was. */
Test(read_repair, a_tail_that_its_only_server_cant_read_keeps_nobody_from_attaching)
{
	struct cluster_rig *c = cluster_make();
	for (unsigned i = 1; i < SERVERS; i++)
		sim_partition(c->g.sim, c->g.host, c->servers[i].host, true);
	cr_assert_eq(volume_rig_run(&c->g, unanswered_body), 0);
	volume_rig_kill(&c->g);
	for (unsigned i = 1; i < SERVERS; i++) { /* so that they never hear of it */
		server_end(c, i);
		sim_partition(c->g.sim, c->g.host, c->servers[i].host, false);
		server_begin(c, i);
	}
	whole_ops = c->servers[0].dir->ops;
	holed_ops = *whole_ops;
	holed_ops.submit = holed_submit;
	c->servers[0].dir->ops = &holed_ops;
	volume_rig_begin(&c->g);
	open_near(c);
	cr_assert(unread, "nothing was to be copied from it");
	cr_assert_eq(volume_rig_run(&c->g, read_body), 0);
	cluster_free(c);
}

/* ---- what the only whole copy can't read at the moment ---- */

enum { LATER = 5 };

static void failing_once(struct segment_server *s, struct segment_io *io)
{
	bool fails = io->op == SEGMENT_READ && unread++ == 0;
	if (fails) {
		io->status = -EIO;
		job_put(io->parent, io->status);
	} else {
		whole_ops->submit(s, io);
	}
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
Test(read_repair, one_failed_read_of_the_only_whole_copy_loses_nothing)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, write_later_body), 0);
	volume_rig_kill(&c->g);
	for (unsigned i = 1; i < SERVERS; i++) {
		sim_power_loss(c->servers[i].host);
		server_end(c, i);
		server_begin(c, i);
	}
	unread = 0;
	whole_ops = c->servers[0].dir->ops;
	holed_ops = *whole_ops;
	holed_ops.submit = failing_once;
	c->servers[0].dir->ops = &holed_ops;
	volume_rig_begin(&c->g);
	c->g.places.ops.domain = c->servers[1].domain;
	int r = volume_rig_open(&c->g);
	cr_assert(unread && (r == 0 || (r == -EIO && strstr(c->g.report.text, "--accept-flushed"))), "%d %s", r, c->g.report.text);
	if (r < 0)
		open_near(c);
	cr_assert_eq(volume_rig_run(&c->g, read_later_body), 0);
	cluster_free(c);
}
