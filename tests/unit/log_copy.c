/* Copies that are to be cut (parallax/volume/log_copy.c), on servers that answer what a test says. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "parallax/volume/volume_private.h"
#include "tests/unit/maptest.h"

enum { SERVERS = 3, SHORT = 5, LENGTH = 10, ID = 7, SALT = 3 };

struct scripted {
	struct segment_server server; /* first */
	int reads, repairs;           /* how these end */
	bool damaged, damaged_early;  /* what it has there is no record; up to SHORT */
	enum copy_state state;
	bool good;                    /* its copy becomes as long as it should be */
	unsigned deletes;
};

struct rig {
	struct map_rig w;
	struct volume volume;
	struct scripted servers[SERVERS];
	struct peer *peers[SERVERS];
};

/* A record of zeroes in [at, end). */
static void make(uint8_t *blocks, uint32_t at, uint32_t end, uint64_t seq, bool damaged)
{
	uint8_t *bytes = blocks + (size_t)at * BLOCK_BYTES;
	uint32_t crcs[LENGTH];
	struct record_entry e = { .first = 0, .count = end - at - 1 };
	for (uint32_t i = 0; i < e.count; i++)
		crcs[i] = crc32c(0, bytes + (size_t)(1 + i) * BLOCK_BYTES, BLOCK_BYTES);
	struct record r = { .kind = RECORD_DATA, .segment = ID, .block = at, .epoch = 1, .seq = seq, .salt = SALT, .payload_blocks = e.count, .entry_count = 1,
			    .entries = &e, .crcs = crcs };
	record_encode(&r, bytes);
	bytes[BLOCK_BYTES + 7] ^= damaged;
}

/* A record up to SHORT, and one up to LENGTH. */
static void fill(const struct scripted *s, struct segment_io *io)
{
	uint8_t *blocks = calloc(LENGTH, BLOCK_BYTES);
	make(blocks, 1, SHORT, 8, s->damaged_early);
	make(blocks, SHORT, LENGTH, 9, s->damaged);
	cr_assert_leq(io->block + io->blocks, LENGTH);
	iov_scatter(io->iov, io->iov_count, 0, blocks + (size_t)io->block * BLOCK_BYTES, (size_t)io->blocks * BLOCK_BYTES);
	free(blocks);
}

/* Each has a copy that is shorter than it should be, and stays so but for `good` ones. */
static void scripted_submit(struct segment_server *server, struct segment_io *io)
{
	struct scripted *s = (struct scripted *)server;
	switch (io->op) {
	case SEGMENT_CREATE: io->status = -EEXIST; break;
	case SEGMENT_READ:
		io->status = s->reads;
		fill(s, io);
		break;
	case SEGMENT_REPAIR: io->status = s->repairs; break;
	case SEGMENT_FENCE:
		io->status = 0;
		io->state = s->state;
		io->length = s->good ? LENGTH : SHORT;
		break;
	case SEGMENT_DELETE:
		s->deletes++;
		io->status = 0;
		break;
	default: io->status = -EINVAL; break;
	}
	job_put(io->parent, io->status);
}

static const struct segment_server_ops scripted_ops = { .submit = scripted_submit };

static void rig_map(struct rig *g)
{
	for (unsigned i = 0; i < SERVERS; i++) {
		g->servers[i].server = (struct segment_server){ .ops = &scripted_ops, .env = g->w.env, .incarnation = 1 };
		map_rig_serve(&g->w, i, &g->servers[i].server);
		g->peers[i] = copies_peer(g->w.copies, &g->servers[i].server.id);
	}
	for (unsigned n = 0; n < PLACEMENT_GROUPS_MIN; n++)
		map_rig_place(&g->w, n, SERVERS, (uint16_t[]){ 0, 1, 2 });
}

static int fresh(void *arg)
{
	struct rig *g = arg;
	struct meta_segment m = { .id = ID, .epoch = 1, .salt = SALT, .size_blocks = 100, .ensemble_count = 2 };
	struct peer *holders[META_REPLICAS_MAX] = { g->peers[0] };
	for (unsigned i = 0; i < m.ensemble_count; i++)
		m.ensemble[i].server = g->peers[i]->id;
	return (int)log_copy_fresh(&g->volume, &m, LENGTH, NULL, 0, holders, 1);
}

static struct rig *rig_make(void)
{
	struct rig *g = calloc(1, sizeof *g);
	map_rig_make(&g->w, 1, SERVERS);
	rig_map(g);
	g->volume.env = g->w.env;
	g->volume.copies = g->w.copies;
	g->volume.epoch = 2;
	g->volume.meta.min_replicas = 2;
	for (unsigned i = 0; i < SERVERS; i++)
		g->servers[i].state = COPY_DOUBTFUL;
	return g;
}

/* The second one is to be brought to the first one's length, or the third, which isn't listed; how often is the second one deleted? */
static unsigned deletes(int reads, int repairs, bool damaged, bool third)
{
	struct rig *g = rig_make();
	g->servers[0].reads = reads;
	g->servers[0].damaged = damaged;
	g->servers[1].repairs = repairs;
	g->servers[2].good = third;
	cr_assert_eq(sim_run_fiber(g->w.env, fresh, g), third ? 2 : 1);
	unsigned n = g->servers[1].deletes;
	cr_assert_eq(g->servers[0].deletes, 0);
	map_rig_free(&g->w);
	free(g);
	return n;
}

Test(log_copy, what_stays_bad_is_made_anew) { cr_assert_eq(deletes(0, 0, false, false), 1); }

/* What was flushed is in it, and is lost with the first one if it goes. */
Test(log_copy, what_cant_be_written_stays) { cr_assert_eq(deletes(0, -EIO, false, false), 0); }

/* What it has may be all there is of the blocks that the first one can't read. */
Test(log_copy, a_source_that_cant_be_read_costs_no_other_copy) { cr_assert_eq(deletes(-EIO, 0, false, false), 0); }

Test(log_copy, a_source_that_is_damaged_costs_no_other_copy) { cr_assert_eq(deletes(0, 0, true, false), 0); }

/* It is worth nothing where there is a better one; but if that is lost next, it is all there is. */
Test(log_copy, a_server_that_is_not_listed_is_asked_before_a_listed_copy_goes) { cr_assert_eq(deletes(0, 0, false, true), 0); }

/* The second one failed a sync, or stays bad behind what was there. Something before is damaged in the first one, and nobody has seen that yet. */
static unsigned deletes_of(enum copy_state state, bool damaged_early)
{
	struct rig *g = rig_make();
	g->servers[0].damaged_early = damaged_early;
	g->servers[1].state = state;
	cr_assert_eq(sim_run_fiber(g->w.env, fresh, g), 1);
	unsigned n = g->servers[1].deletes;
	map_rig_free(&g->w);
	free(g);
	return n;
}

Test(log_copy, what_is_broken_is_made_anew) { cr_assert_eq(deletes_of(COPY_BROKEN, false), 1); }
Test(log_copy, but_not_before_all_of_the_source_was_read) { cr_assert_eq(deletes_of(COPY_BROKEN, true), 0); }
Test(log_copy, nor_is_what_stays_bad) { cr_assert_eq(deletes_of(COPY_DOUBTFUL, true), 0); }

static int blocks_status;

static int copy_body(void *arg)
{
	struct rig *g = arg;
	const struct meta_segment m = { .id = ID, .epoch = 1, .salt = SALT, .size_blocks = 100 };
	blocks_status = log_copy_blocks(&g->volume, &m, g->peers[0], g->peers[1], SHORT, LENGTH);
	return 0;
}

/* Who takes a volume over looks for another source then. */
Test(log_copy, what_isnt_right_after_it_was_written_is_the_source_s_fault_if_that_is_damaged)
{
	for (unsigned damaged = 0; damaged < 2; damaged++) {
		struct rig *g = rig_make();
		g->servers[0].damaged = damaged;
		cr_assert_eq(sim_run_fiber(g->w.env, copy_body, g), 0);
		cr_expect_eq(blocks_status, damaged ? -EBADMSG : -EIO, "%d", blocks_status);
		map_rig_free(&g->w);
		free(g);
	}
}
