/* The data directory: R6–R9, R32, R34, R35, on simulated disks that lose what wasn't synced,
 * and on a real one. The random walk over crashes is the simulator's scenario `segment`. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/env_sim.h"
#include "core/fiber.h"
#include "parallax/catalog/meta.h"
#include "parallax/segment/segment.h"
#include "parallax/segment/segment_reader.h"
#include "tests/sim/catalog_sim.h"
#include "tests/unit/tempdir.h"

#define SIZE_BLOCKS 256u
#define EPOCH 5u

/* ---- a world with one directory ---- */

struct rig {
	struct sim *sim;
	struct sim_host *host;
	struct catalog_sim *catalogs;
	struct env *env;
	struct catalog *catalog;
	struct segment_server *server;
	struct segment_dir_options options;
	struct report report;
	const char *path;
	int (*body)(struct rig *r); /* what the fiber runs */
	uint8_t *scratch;
};

static int body_run(void *arg)
{
	struct rig *r = arg;
	return r->body(r);
}

static int rig_do(struct rig *r, int (*body)(struct rig *r))
{
	r->body = body;
	return sim_run_fiber(r->env, body_run, r);
}

static int body_open(struct rig *r)
{
	r->report.text[0] = '\0';
	return segment_dir_open(r->env, r->path, r->catalog, &r->options, &r->server, &r->report);
}

static int body_close(struct rig *r)
{
	struct segment_server *s = r->server;
	r->server = NULL;
	return segment_server_close(s);
}

static void rig_process(struct rig *r)
{
	r->env = sim_process_create(r->sim, r->host);
	r->catalog = catalog_sim_open(r->catalogs, r->env);
}

static struct rig rig_make(uint64_t seed, uint64_t disk_bytes)
{
	struct rig r = { .sim = sim_create(seed, NULL), .path = "/data", .options.create = true };
	r.host = sim_host_create(r.sim, "h", disk_bytes, 4096);
	r.catalogs = catalog_sim_create(r.sim);
	r.scratch = env_alloc_aligned(RECORD_BYTES_MAX);
	rig_process(&r);
	return r;
}

static void rig_process_end(struct rig *r)
{
	rig_do(r, body_close);
	catalog_close(r->catalog);
	sim_process_destroy(r->env);
}

static void rig_free(struct rig *r)
{
	rig_process_end(r);
	catalog_sim_destroy(r->catalogs);
	sim_destroy(r->sim);
	free(r->scratch);
}

enum rig_end { END_CLEAN, END_KILL, END_POWER };

/* The process ends, in one way or another, and another one opens the directory. */
static void rig_restart(struct rig *r, enum rig_end how)
{
	if (how == END_KILL)
		sim_kill(r->env);
	else if (how == END_POWER)
		sim_power_loss(r->host);
	if (how != END_CLEAN)
		sim_drain_dead(r->env);
	rig_process_end(r);
	rig_process(r);
	cr_assert_eq(rig_do(r, body_open), 0, "%s", r->report.text);
}

/* ---- a chain of records ---- */

struct chain {
	struct segment_header header;
	uint32_t block, prev;
	uint64_t seq, acked, synced;
};

static struct chain chain_make(uint64_t segment)
{
	return (struct chain){ .header = { .segment = segment, .volume = { "volume" }, .epoch = EPOCH, .salt = segment * 77 + 1,
					   .size_blocks = SIZE_BLOCKS },
			       .block = 1 };
}

/* Encodes the next record with `payload` blocks into `buffer`; returns its blocks. */
static uint32_t chain_next(struct chain *c, uint32_t payload, uint8_t *buffer)
{
	uint32_t crcs[64], header = record_header_blocks(1, payload);
	struct record_entry e = { .first = c->seq * 100, .count = payload };
	for (uint32_t i = 0; i < payload; i++) {
		uint8_t *b = buffer + (size_t)(header + i) * BLOCK_BYTES;
		memset(b, (int)(c->seq + i + 1), BLOCK_BYTES);
		crcs[i] = crc32c(0, b, BLOCK_BYTES);
	}
	struct record r = { .kind = RECORD_DATA, .segment = c->header.segment, .block = c->block, .epoch = c->header.epoch,
			    .seq = ++c->seq, .salt = c->header.salt, .prev = c->prev, .acked = c->acked, .synced = c->synced,
			    .payload_blocks = payload, .entry_count = 1, .entries = &e, .crcs = crcs };
	record_encode(&r, buffer);
	c->prev = r.header_crc;
	c->block += record_blocks(&r);
	return record_blocks(&r);
}

static int op_create(struct rig *r, const struct chain *c)
{
	struct segment_io io = { .op = SEGMENT_CREATE, .segment = c->header.segment, .epoch = c->header.epoch, .header = c->header };
	return segment_wait(r->server, &io);
}

static int op_append_bytes(struct rig *r, const struct chain *c, uint32_t block, uint32_t blocks, void *bytes)
{
	struct iovec v = { bytes, (size_t)blocks * BLOCK_BYTES };
	struct segment_io io = { .op = SEGMENT_APPEND, .segment = c->header.segment, .epoch = c->header.epoch,
				 .incarnation = r->server->incarnation, .block = block, .blocks = blocks, .iov = &v, .iov_count = 1 };
	return segment_wait(r->server, &io);
}

static int op_append(struct rig *r, struct chain *c, uint32_t payload)
{
	uint32_t block = c->block, blocks = chain_next(c, payload, r->scratch);
	return op_append_bytes(r, c, block, blocks, r->scratch);
}

static int op_simple(struct rig *r, enum segment_op op, uint64_t segment, uint64_t epoch, uint32_t block, uint32_t crc,
		     struct segment_io *ret)
{
	*ret = (struct segment_io){ .op = op, .segment = segment, .epoch = epoch, .incarnation = r->server->incarnation,
				    .block = block, .crc = crc };
	return segment_wait(r->server, ret);
}

static struct segment_io op_stat(struct rig *r, uint64_t segment)
{
	struct segment_io io;
	cr_assert_eq(op_simple(r, SEGMENT_STAT, segment, 0, 0, 0, &io), 0);
	return io;
}

static int op_read(struct rig *r, uint64_t segment, uint32_t block, uint8_t *to)
{
	struct iovec v = { to, BLOCK_BYTES };
	struct segment_io io = { .op = SEGMENT_READ, .segment = segment, .block = block, .blocks = 1, .iov = &v, .iov_count = 1 };
	return segment_wait(r->server, &io);
}

/* ---- the life of a segment ---- */

static int body_life(struct rig *r)
{
	struct chain c = chain_make(7);
	struct segment_io io;
	cr_assert_eq(op_stat(r, 7).state, COPY_ABSENT);
	cr_assert_eq(op_append(r, &c, 1), -ENOENT);
	c = chain_make(7);
	cr_assert_eq(op_create(r, &c), 0);
	cr_assert_eq(op_create(r, &c), 0, "a repetition");
	for (uint32_t i = 0; i < 10; i++)
		cr_assert_eq(op_append(r, &c, 1 + i), 0);
	io = op_stat(r, 7);
	cr_assert(io.state == COPY_WHOLE && io.length == c.block && io.last_crc == c.prev && io.last_seq == 10 && !io.sealed);
	cr_assert_eq(op_read(r, 7, 2, r->scratch), 0);
	cr_assert(r->scratch[0] == 1 && r->scratch[4095] == 1);
	cr_assert_eq(op_read(r, 7, 2, r->scratch + 8), 0, "unaligned memory");
	cr_assert_eq(r->scratch[8], 1);
	cr_assert_eq(op_read(r, 7, SIZE_BLOCKS, r->scratch), -EINVAL);
	cr_assert_eq(op_simple(r, SEGMENT_SYNC, 7, EPOCH, c.block, 0, &io), 0);
	cr_assert_eq(op_simple(r, SEGMENT_SYNC, 7, EPOCH, c.block + 1, 0, &io), -EINVAL);
	cr_assert_eq(op_simple(r, SEGMENT_SEAL, 7, EPOCH, c.block, c.prev ^ 1, &io), -EBADMSG);
	cr_assert_eq(op_simple(r, SEGMENT_SEAL, 7, EPOCH, c.block, c.prev, &io), 0);
	cr_assert_eq(op_simple(r, SEGMENT_SEAL, 7, EPOCH, c.block, c.prev, &io), 0);
	cr_assert_eq(op_simple(r, SEGMENT_SEAL, 7, EPOCH, c.block - 1, c.prev, &io), -EROFS);
	cr_assert_eq(op_append(r, &c, 1), -EROFS);
	return 0;
}

static int body_life_after(struct rig *r)
{
	struct segment_io io = op_stat(r, 7);
	cr_assert(io.state == COPY_WHOLE && io.sealed && io.last_seq == 10);
	cr_assert_eq(op_read(r, 7, 2, r->scratch), 0);
	cr_assert_eq(r->scratch[0], 1);
	return 0;
}

Test(segment_dir, the_life_of_a_segment)
{
	struct rig r = rig_make(1, 64 << 20);
	cr_assert_eq(rig_do(&r, body_open), 0, "%s", r.report.text);
	cr_assert_eq(r.server->incarnation, 1);
	rig_do(&r, body_life);
	rig_restart(&r, END_CLEAN);
	cr_assert_eq(r.server->incarnation, 2);
	rig_do(&r, body_life_after);
	rig_restart(&r, END_POWER);
	rig_do(&r, body_life_after);
	rig_free(&r);
}

/* ---- what a restart makes of open copies ---- */

static int body_three(struct rig *r) /* three records, two of them synced */
{
	struct chain c = chain_make(9);
	struct segment_io io;
	cr_assert_eq(op_create(r, &c), 0);
	cr_assert_eq(op_append(r, &c, 2), 0);
	cr_assert_eq(op_append(r, &c, 2), 0);
	cr_assert_eq(op_simple(r, SEGMENT_SYNC, 9, EPOCH, c.block, 0, &io), 0);
	c.acked = 2;
	return op_append(r, &c, 2);
}

static int body_three_whole(struct rig *r)
{
	struct segment_io io = op_stat(r, 9);
	cr_assert_eq(io.state, COPY_WHOLE);
	cr_assert_eq(io.length, 10);
	struct chain c = chain_make(9);
	cr_assert_eq(op_append(r, &c, 1), -EINVAL, "not at its end, not a repetition");
	return 0;
}

static int body_three_doubtful(struct rig *r)
{
	struct segment_io io = op_stat(r, 9);
	cr_assert_eq(io.state, COPY_DOUBTFUL);
	cr_assert(io.length == 7 || io.length == 10);
	cr_assert_eq(op_simple(r, SEGMENT_SYNC, 9, EPOCH, 7, 0, &io), -ESTALE);
	return 0;
}

Test(segment_dir, a_kill_leaves_copies_whole_and_a_power_loss_doubtful)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct rig r = rig_make(seed, 64 << 20);
		cr_assert_eq(rig_do(&r, body_open), 0);
		rig_do(&r, body_three);
		rig_restart(&r, END_KILL);
		rig_do(&r, body_three_whole);
		if (seed % 2) { /* stopped in order, but what the killed one wrote was never synced */
			rig_restart(&r, END_CLEAN);
			rig_do(&r, body_three_whole);
			cr_assert_eq(rig_do(&r, body_close), 0);
		}
		rig_restart(&r, END_POWER);
		rig_do(&r, body_three_doubtful);
		rig_restart(&r, END_CLEAN);
		rig_do(&r, body_three_doubtful);
		rig_free(&r);
	}
}

Test(segment_dir, after_a_clean_stop_a_power_loss_takes_nothing)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct rig r = rig_make(seed, 64 << 20);
		cr_assert_eq(rig_do(&r, body_open), 0);
		rig_do(&r, body_three);
		cr_assert_eq(rig_do(&r, body_close), 0);
		rig_restart(&r, END_POWER);
		rig_do(&r, body_three_whole);
		rig_free(&r);
	}
}

/* ---- fences ---- */

static int body_fence(struct rig *r)
{
	struct chain c = chain_make(3);
	struct segment_io io;
	cr_assert_eq(op_create(r, &c), 0);
	cr_assert_eq(op_append(r, &c, 1), 0);
	cr_assert_eq(op_simple(r, SEGMENT_FENCE, 3, EPOCH + 1, 0, 0, &io), 0);
	cr_assert(io.length == 3 && io.last_seq == 1 && io.state == COPY_WHOLE);
	cr_assert_eq(op_append(r, &c, 1), -EPERM);
	cr_assert_eq(op_simple(r, SEGMENT_FENCE, 4, EPOCH + 1, 0, 0, &io), 0);
	cr_assert_eq(io.state, COPY_ABSENT);
	return 0;
}

static int body_fenced(struct rig *r)
{
	struct chain c = chain_make(4);
	struct segment_io io;
	cr_assert_eq(op_create(r, &c), -EPERM);
	cr_assert_eq(op_simple(r, SEGMENT_FENCE, 4, EPOCH, 0, 0, &io), -EPERM);
	cr_assert_eq(op_simple(r, SEGMENT_FENCE, 3, EPOCH, 0, 0, &io), -EPERM);
	cr_assert_eq(op_simple(r, SEGMENT_SYNC, 3, EPOCH, 1, 0, &io), -EPERM);
	cr_assert_eq(op_simple(r, SEGMENT_SEAL, 3, EPOCH, 1, 0, &io), -EPERM);
	cr_assert_eq(op_stat(r, 3).fenced_epoch, EPOCH + 1);
	return 0;
}

Test(segment_dir, a_fence_is_durable_also_for_a_segment_it_never_saw)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct rig r = rig_make(seed, 64 << 20);
		cr_assert_eq(rig_do(&r, body_open), 0);
		rig_do(&r, body_fence);
		rig_do(&r, body_fenced);
		rig_restart(&r, seed % 2 ? END_POWER : END_KILL);
		rig_do(&r, body_fenced);
		rig_free(&r);
	}
}

/* ---- cutting and repairing ---- */

static int body_cut(struct rig *r)
{
	struct chain c = chain_make(3), first = c;
	struct segment_io io;
	cr_assert_eq(op_create(r, &c), 0);
	cr_assert_eq(op_append(r, &c, 1), 0);
	first = c;
	cr_assert_eq(op_append(r, &c, 1), 0);
	cr_assert_eq(op_simple(r, SEGMENT_SEAL, 3, EPOCH, first.block, c.prev, &io), -EBADMSG, "another record's CRC");
	cr_assert_eq(op_simple(r, SEGMENT_SEAL, 3, EPOCH, first.block + 1, c.prev, &io), -EBADMSG, "in a record's middle");
	cr_assert_eq(op_simple(r, SEGMENT_SEAL, 3, EPOCH, c.block + 1, c.prev, &io), -EINVAL, "beyond its length");
	cr_assert_eq(op_simple(r, SEGMENT_SEAL, 3, EPOCH, first.block, first.prev, &io), 0);
	io = op_stat(r, 3);
	cr_assert(io.sealed && io.length == first.block && io.last_crc == first.prev && io.last_seq == 1);
	return 0;
}

Test(segment_dir, a_seal_cuts)
{
	struct rig r = rig_make(2, 64 << 20);
	cr_assert_eq(rig_do(&r, body_open), 0);
	rig_do(&r, body_cut);
	rig_free(&r);
}

static int body_repair(struct rig *r)
{
	struct chain c = chain_make(9);
	struct segment_io io, stat;
	cr_assert_eq(op_simple(r, SEGMENT_FENCE, 9, EPOCH + 3, 0, 0, &stat), 0);
	cr_assert_eq(stat.state, COPY_DOUBTFUL);
	uint32_t blocks = 0;
	for (int i = 0; i < 3; i++)
		blocks += chain_next(&c, 2, r->scratch + (size_t)blocks * BLOCK_BYTES);
	struct iovec v = { r->scratch + (size_t)(stat.length - 1) * BLOCK_BYTES, (size_t)(c.block - stat.length) * BLOCK_BYTES };
	io = (struct segment_io){ .op = SEGMENT_REPAIR, .segment = 9, .epoch = EPOCH + 2, .block = stat.length,
				  .blocks = c.block - stat.length, .iov = &v, .iov_count = 1 };
	cr_assert_eq(segment_wait(r->server, &io), -EPERM);
	io.epoch = EPOCH + 3;
	cr_assert_eq(segment_wait(r->server, &io), 0);
	stat = op_stat(r, 9);
	cr_assert(stat.length == 10 && stat.last_seq == 3);
	cr_assert_eq(op_simple(r, SEGMENT_SEAL, 9, EPOCH + 3, 10, stat.last_crc, &io), 0);
	cr_assert_eq(op_stat(r, 9).state, COPY_WHOLE);
	return 0;
}

Test(segment_dir, a_taker_repairs_and_seals_a_doubtful_copy)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct rig r = rig_make(seed, 64 << 20);
		cr_assert_eq(rig_do(&r, body_open), 0);
		rig_do(&r, body_three);
		rig_restart(&r, END_POWER);
		rig_do(&r, body_repair);
		rig_free(&r);
	}
}

/* ---- damage ---- */

static int body_scan_after_flip(struct rig *r)
{
	struct segment_io io = op_stat(r, 9);
	cr_assert_eq(io.length, 4, "the first record is good");
	cr_assert_eq(io.state, COPY_DOUBTFUL, "the third one was made when the second was acknowledged");
	return 0;
}

static int body_scan_after_tail_flip(struct rig *r)
{
	struct segment_io io = op_stat(r, 9);
	cr_assert_eq(io.length, 7);
	cr_assert_eq(io.state, COPY_WHOLE);
	return 0;
}

static const char copy_file[] = "/data/segments/09/000000000009.seg";

Test(segment_dir, a_flipped_payload_ends_the_chain)
{
	for (int tail = 0; tail < 2; tail++) {
		struct rig r = rig_make(4, 64 << 20);
		cr_assert_eq(rig_do(&r, body_open), 0);
		rig_do(&r, body_three);
		sim_kill(r.env);
		cr_assert_eq(sim_disk_flip(r.host, copy_file, (2 + (tail ? 9 : 6)) * BLOCK_BYTES + 77, 4), 0);
		rig_restart(&r, END_KILL);
		rig_do(&r, tail ? body_scan_after_tail_flip : body_scan_after_flip);
		rig_free(&r);
	}
}

static int body_slot_damaged(struct rig *r)
{
	cr_assert_eq(op_stat(r, 9).state, COPY_DOUBTFUL);
	return 0;
}

Test(segment_dir, a_damaged_slot_makes_a_copy_doubtful)
{
	struct rig r = rig_make(4, 64 << 20);
	cr_assert_eq(rig_do(&r, body_open), 0);
	rig_do(&r, body_three);
	sim_kill(r.env);
	cr_assert_eq(sim_disk_flip(r.host, copy_file, 20, 4), 0);
	rig_restart(&r, END_KILL);
	rig_do(&r, body_slot_damaged);
	rig_free(&r);
}

static int body_sync_fails(struct rig *r)
{
	struct chain c = chain_make(9);
	struct segment_io io;
	cr_assert_eq(op_create(r, &c), 0);
	cr_assert_eq(op_append(r, &c, 2), 0);
	sim_doses(r->sim)->sync_error = 1000000;
	cr_assert_eq(op_simple(r, SEGMENT_SYNC, 9, EPOCH, c.block, 0, &io), -EIO);
	sim_doses(r->sim)->sync_error = 0;
	cr_assert_eq(op_simple(r, SEGMENT_SYNC, 9, EPOCH, c.block, 0, &io), -ESTALE);
	cr_assert_eq(op_append(r, &c, 2), -ESTALE);
	cr_assert_eq(op_stat(r, 9).state, COPY_BROKEN);
	return 0;
}

static int body_sync_fails_once(struct rig *r)
{
	struct chain c = chain_make(9);
	struct segment_io io;
	cr_assert_eq(op_create(r, &c), 0);
	cr_assert_eq(op_append(r, &c, 2), 0);
	sim_doses(r->sim)->sync_error = 500000;
	int s = op_simple(r, SEGMENT_SYNC, 9, EPOCH, c.block, 0, &io);
	sim_doses(r->sim)->sync_error = 0;
	return s == -EIO && op_stat(r, 9).state == COPY_BROKEN;
}

static int body_broken(struct rig *r) { return op_stat(r, 9).state == COPY_BROKEN; }

Test(segment_dir, a_failed_sync_breaks_a_copy_for_good)
{
	struct rig r = rig_make(4, 64 << 20);
	cr_assert_eq(rig_do(&r, body_open), 0);
	rig_do(&r, body_sync_fails);
	rig_free(&r);
	unsigned failed = 0, remembered = 0;
	for (uint64_t seed = 1; seed <= 20; seed++) { /* writing that down may fail as well */
		r = rig_make(seed, 64 << 20);
		cr_assert_eq(rig_do(&r, body_open), 0);
		bool fails = rig_do(&r, body_sync_fails_once) == 1;
		rig_restart(&r, END_KILL);
		failed += fails;
		remembered += fails && rig_do(&r, body_broken) == 1;
		rig_free(&r);
	}
	cr_assert(failed > 3 && remembered > 0, "%u of %u", remembered, failed);
}

/* ---- space ---- */

static int body_full(struct rig *r)
{
	struct chain c;
	uint64_t id = 0;
	int s;
	do {
		c = chain_make(++id);
		c.header.size_blocks = 2048;
		s = op_create(r, &c);
	} while (s == 0 && id < 100);
	cr_assert_eq(s, -ENOSPC);
	struct segment_io io = { .op = SEGMENT_CREATE, .segment = id, .epoch = EPOCH, .header = c.header, .reserve = true };
	cr_assert_eq(segment_wait(r->server, &io), 0, "the reserve");
	/* then the disk fills from elsewhere: that has its room, of another one an append fails, and nothing else */
	struct file *f;
	cr_assert_eq(file_open(r->env, "/other", FILE_OPEN_WRITE | FILE_OPEN_CREATE, &f), 0);
	uint64_t at = 0;
	while (file_write_wait(f, r->scratch, 4096, at) == 0)
		at += 4096;
	while (c.block + 17 <= c.header.size_blocks)
		cr_assert_eq(op_append(r, &c, 16), 0, "the reserve isn't there");
	c = chain_make(id = 2);
	while ((s = op_append(r, &c, 16)) == 0)
		;
	cr_assert_eq(s, -ENOSPC);
	uint32_t length = op_stat(r, id).length;
	cr_assert_eq(op_stat(r, id).state, COPY_WHOLE);
	cr_assert_eq(op_simple(r, SEGMENT_DELETE, 1, EPOCH, 0, 0, &io), 0);
	cr_assert_eq(op_simple(r, SEGMENT_DELETE, 1, EPOCH, 0, 0, &io), 0);
	cr_assert_eq(op_stat(r, 1).state, COPY_ABSENT);
	cr_assert_eq(env_unlink(r->env, "/other"), 0);
	file_close(r->env, f);
	cr_assert_eq(c.block - length, 17);
	s = op_append_bytes(r, &c, length, 17, r->scratch);
	cr_assert_eq(s, 0, "the same again, now there is room: %d", s);
	/* a recycled file shows nothing of what it was */
	c = chain_make(1000);
	io = (struct segment_io){ .op = SEGMENT_CREATE, .segment = 1000, .epoch = EPOCH, .header = c.header, .reserve = true };
	cr_assert_eq(segment_wait(r->server, &io), 0);
	return 0;
}

static int body_recycled_empty(struct rig *r)
{
	cr_assert_eq(op_stat(r, 1000).length, 1);
	return 0;
}

Test(segment_dir, a_full_disk_loses_nothing_and_recovers)
{
	struct rig r = rig_make(4, 64 << 20);
	cr_assert_eq(rig_do(&r, body_open), 0);
	rig_do(&r, body_full);
	rig_restart(&r, END_KILL);
	rig_do(&r, body_recycled_empty);
	rig_free(&r);
}

/* ---- order and repetition ---- */

struct burst_append {
	struct job job;
	struct segment_io io;
	struct iovec vec[2];
	bool ended;
	unsigned *order;
	unsigned number;
};

static void burst_ended(struct job *j)
{
	struct burst_append *b = container_of(j, struct burst_append, job);
	b->ended = true;
	b->number = (*b->order)++;
}

static int body_burst(struct rig *r)
{
	struct chain c = chain_make(8);
	struct burst_append a[6] = { 0 };
	unsigned order = 0;
	uint8_t *at = r->scratch;
	cr_assert_eq(op_create(r, &c), 0);
	for (unsigned i = 0; i < 6; i++) {
		uint32_t block = c.block, blocks = chain_next(&c, 3, at);
		a[i].vec[0] = (struct iovec){ at, 100 }; /* odd pieces, also within the header */
		a[i].vec[1] = (struct iovec){ at + 100, (size_t)blocks * BLOCK_BYTES - 100 };
		a[i].io = (struct segment_io){ .op = SEGMENT_APPEND, .segment = 8, .epoch = EPOCH,
					       .incarnation = r->server->incarnation, .block = block, .blocks = blocks,
					       .iov = a[i].vec, .iov_count = 2 };
		a[i].order = &order;
		job_init(&a[i].job, &r->env->loop);
		segment_submit(r->server, &a[i].io, &a[i].job);
		job_then(&a[i].job, burst_ended);
		at += (size_t)blocks * BLOCK_BYTES;
	}
	while (order < 6)
		fiber_sleep(&r->env->loop, 1000);
	for (unsigned i = 0; i < 6; i++)
		cr_assert_eq(a[i].io.status, 0);
	cr_assert_eq(op_append_bytes(r, &c, 1, 4, r->scratch), 0, "a repetition is answered again");
	r->scratch[60] ^= 1;
	cr_assert_eq(op_append_bytes(r, &c, 1, 4, r->scratch), -EINVAL, "another record isn't");
	cr_assert_eq(op_append_bytes(r, &c, c.block + 1, 4, r->scratch), -EINVAL, "a gap");
	cr_assert_eq(op_append_bytes(r, &c, c.block, 4, r->scratch), -EBADMSG, "not a record for this place");
	struct segment_io io = op_stat(r, 8);
	cr_assert(io.length == c.block && io.last_crc == c.prev);
	c.header.epoch++;
	cr_assert_eq(op_append(r, &c, 1), -EPERM, "another epoch");
	return 0;
}

Test(segment_dir, appends_in_flight_together_and_again)
{
	for (uint64_t seed = 1; seed <= 10; seed++) {
		struct rig r = rig_make(seed, 64 << 20);
		cr_assert_eq(rig_do(&r, body_open), 0);
		rig_do(&r, body_burst);
		rig_free(&r);
	}
}

static int list_entry(void *arg, uint64_t segment)
{
	return segment == ++*(unsigned *)arg ? 0 : -EBADMSG;
}

static int body_many(struct rig *r)
{
	unsigned count = 0;
	for (uint64_t id = 1; id <= 300; id++) {
		struct chain c = chain_make(id);
		c.header.size_blocks = 8;
		cr_assert_eq(op_create(r, &c), 0);
		cr_assert_eq(op_append(r, &c, 1), 0);
		struct segment_io io;
		cr_assert_eq(op_simple(r, SEGMENT_SYNC, id, EPOCH, c.block, 0, &io), 0);
	}
	cr_assert_eq(segment_dir_ids(r->server, list_entry, &count), 0);
	cr_assert_eq(count, 300);
	for (uint64_t id = 1; id <= count; id++) {
		struct segment_io io;
		cr_assert(op_simple(r, SEGMENT_STAT, id, 0, 0, 0, &io) == 0 && io.length == 3);
	}
	return 0;
}

Test(segment_dir, more_segments_than_open_files)
{
	struct rig r = rig_make(1, 64 << 20);
	cr_assert_eq(rig_do(&r, body_open), 0);
	rig_do(&r, body_many);
	rig_free(&r);
}

/* ---- who it is ---- */

Test(segment_dir, one_process_at_a_time)
{
	struct rig r = rig_make(1, 64 << 20), second = r;
	rig_process(&second);
	cr_assert_eq(rig_do(&r, body_open), 0);
	cr_assert_eq(rig_do(&second, body_open), -EBUSY);
	cr_assert(strstr(second.report.text, "in use by another process"));
	sim_kill(r.env);
	cr_assert_eq(rig_do(&second, body_open), 0, "%s", second.report.text);
	cr_assert_eq(second.server->incarnation, 2);
	rig_process_end(&second);
	rig_free(&r);
}

Test(segment_dir, what_it_is_not_opened_with)
{
	struct rig r = rig_make(1, 64 << 20);
	r.options.create = false;
	cr_assert_eq(rig_do(&r, body_open), -ENOENT);
	cr_assert(strstr(r.report.text, "/data"));
	r.options.create = true;
	cr_assert_eq(rig_do(&r, body_open), 0);
	cr_assert_eq(rig_do(&r, body_close), 0);
	sim_disk_flip(r.host, "/data/server", 33, 1);
	cr_assert_eq(rig_do(&r, body_open), -EUCLEAN);
	cr_assert(strstr(r.report.text, "/data/server is damaged"));
	sim_disk_flip(r.host, "/data/server", 33, 1);
	uint8_t block[BLOCK_BYTES];
	sim_disk_read(r.host, "/data/server", 0, block, sizeof block);
	put_le32(block + 8, 2);
	put_le32(block + BLOCK_BYTES - 4, crc32c(0, block, BLOCK_BYTES - 4));
	sim_disk_write(r.host, "/data/server", 0, block, sizeof block);
	cr_assert_eq(rig_do(&r, body_open), -EPROTONOSUPPORT);
	cr_assert(strstr(r.report.text, "/data/server is of version 2, newer than this program knows (1)"));
	sim_disk_remove(r.host, "/data/server");
	rig_free(&r);
}

static int body_raise(struct rig *r) /* somebody restored an old state of the disk */
{
	struct meta_server m = { .incarnation = 50 };
	size_t length;
	uint8_t *bytes = meta_server_encode(&m, &length);
	char key[META_KEY_BYTES];
	struct catalog_value v;
	struct catalog_txn t;
	meta_key_server(&r->server->id, key);
	cr_assert_eq(catalog_get(r->catalog, key, &v), 0);
	catalog_txn_init(&t);
	catalog_txn_compare(&t, key, v.revision);
	catalog_txn_put(&t, key, bytes, length);
	catalog_value_free(&v);
	int s = catalog_txn(r->catalog, &t, NULL);
	free(bytes);
	return s;
}

Test(segment_dir, an_old_disk_counts_for_nothing)
{
	struct rig r = rig_make(1, 64 << 20);
	cr_assert_eq(rig_do(&r, body_open), 0);
	rig_do(&r, body_three);
	rig_do(&r, body_life);
	cr_assert_eq(rig_do(&r, body_raise), 0);
	rig_restart(&r, END_CLEAN);
	cr_assert_eq(r.server->incarnation, 51);
	cr_assert_eq(rig_do(&r, body_broken), 1);
	rig_do(&r, body_life_after); /* what is sealed is what it is */
	rig_free(&r);
}

Test(segment_dir, an_unknown_outcome_of_the_catalog_is_resolved)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct rig r = rig_make(seed, 64 << 20);
		catalog_sim_doses(r.catalogs)->timeout = 600000;
		cr_assert_eq(rig_do(&r, body_open), 0, "%s", r.report.text);
		rig_do(&r, body_three);
		rig_restart(&r, END_KILL);
		rig_do(&r, body_three_whole);
		rig_free(&r);
	}
}

/* ---- the real world ---- */

static int body_real(void *arg)
{
	struct rig *r = arg;
	char url[256];
	snprintf(url, sizeof url, "sqlite:%s/catalog", r->path);
	cr_assert_eq(catalog_open(r->env, url, NULL, true, &r->catalog, &r->report), 0, "%s", r->report.text);
	char data[256];
	snprintf(data, sizeof data, "%s/data", r->path);
	r->path = data;
	cr_assert_eq(body_open(r), 0, "%s", r->report.text);
	body_life(r);
	body_fence(r);
	body_fenced(r);
	body_three(r);
	cr_assert_eq(body_close(r), 0);
	cr_assert_eq(body_open(r), 0, "%s", r->report.text);
	cr_assert_eq(r->server->incarnation, 2);
	body_life_after(r);
	body_fenced(r);
	body_three_whole(r);
	body_burst(r);
	cr_assert_eq(body_close(r), 0);
	catalog_close(r->catalog);
	return 0;
}

Test(segment_dir, on_a_real_file_system)
{
	char dir[] = "/tmp/aq-segment-dir-XXXXXX";
	cr_assert(mkdtemp(dir));
	struct rig r = { .path = dir, .options.create = true, .scratch = env_alloc_aligned(RECORD_BYTES_MAX) };
	cr_assert_eq(env_linux_create(0, &r.env), 0);
	cr_assert_eq(env_linux_run_fiber(r.env, body_real, &r), 0);
	env_linux_destroy(r.env);
	free(r.scratch);
	tempdir_remove(dir);
}

/* ---- trims and packing ---- */

enum { TRIM_LENGTH = 241 }; /* 24 records of 9 payload blocks, and block 0 */

static bool free_[SIZE_BLOCKS];

static void op_trim(struct rig *r, uint32_t from, uint32_t count, uint32_t step, bool pack, struct segment_io *ret)
{
	uint8_t bits[SIZE_BLOCKS / 8] = { 0 };
	for (uint32_t b = from; b < from + count; b += step) {
		bits[b / 8] |= (uint8_t)(1u << b % 8);
		free_[b] |= b > 0 && b < TRIM_LENGTH;
	}
	*ret = (struct segment_io){ .op = SEGMENT_TRIM, .segment = 7, .blocks = SIZE_BLOCKS, .trim = bits, .pack = pack };
	cr_assert_eq(segment_wait(r->server, ret), 0);
	ret->trim = NULL;
}

/* What isn't free reads as it was written: record n, from 0, has its header at 1 + 10 n. */
static void trim_check(struct rig *r, struct segment_server *s, bool refuses)
{
	uint8_t bits[SEGMENT_BITMAP_BYTES] = { 1 };
	struct segment_io io = { .op = SEGMENT_STAT, .segment = 7, .free_bits = bits };
	cr_assert_eq(segment_wait(s, &io), 0);
	cr_assert(io.sealed && io.length == TRIM_LENGTH && io.state == COPY_WHOLE);
	for (uint32_t b = 0; b < SEGMENT_BLOCKS_MAX; io.trimmed -= b < SIZE_BLOCKS && free_[b], b++)
		cr_assert_eq(bits[b / 8] >> b % 8 & 1, b < SIZE_BLOCKS && free_[b], "block %u", b);
	cr_assert_eq(io.trimmed, 0);
	for (uint32_t b = 1; b < TRIM_LENGTH; b++) {
		struct iovec v = { r->scratch, BLOCK_BYTES };
		struct segment_io read = { .op = SEGMENT_READ, .segment = 7, .block = b, .blocks = 1, .iov = &v, .iov_count = 1 };
		int status = segment_wait(s, &read);
		cr_assert(status == 0 || free_[b], "block %u: %d", b, status);
		cr_assert(!refuses || !free_[b] || status == -ENODATA);
		uint32_t n = (b - 1) / 10, at = (b - 1) % 10;
		if (!free_[b] && at)
			cr_assert(r->scratch[0] == (uint8_t)(n + at) && r->scratch[4095] == r->scratch[0], "block %u", b);
	}
}

static int body_trim(struct rig *r)
{
	struct chain c = chain_make(7);
	struct segment_io io;
	struct segment_server *reader;
	memset(free_, 0, sizeof free_);
	cr_assert_eq(op_create(r, &c), 0);
	while (c.block < TRIM_LENGTH)
		cr_assert_eq(op_append(r, &c, 9), 0);
	op_trim(r, 100, 30, 3, true, &io); /* remembered */
	cr_assert(!io.sealed && io.present == TRIM_LENGTH && io.trimmed == 10);
	cr_assert_eq(op_simple(r, SEGMENT_SYNC, 7, EPOCH, c.block, 0, &io), 0);
	cr_assert_eq(op_simple(r, SEGMENT_SEAL, 7, EPOCH, c.block, c.prev, &io), 0);
	cr_assert_eq(segment_reader_open(r->env, r->path, &reader), 0);
	trim_check(r, r->server, true);
	trim_check(r, reader, false);
	op_trim(r, 100, 1, 1, false, &io);
	op_trim(r, 210, 20, 1, false, &io); /* a long run goes */
	uint64_t before = sim_disk_used(r->host), free_before = r->server->free_bytes;
	op_trim(r, 1, 40, 1, false, &io); /* another one some seconds later */
	cr_assert_eq(r->server->free_bytes - free_before, 40 * BLOCK_BYTES);
	cr_assert(io.present == TRIM_LENGTH - 60 && io.trimmed == 70);
	cr_assert_eq(fiber_sleep(&r->env->loop, 30 * NS_PER_S), 0);
	cr_assert_eq(before - sim_disk_used(r->host), 40 * BLOCK_BYTES);
	op_trim(r, 200, SIZE_BLOCKS - 200, 2, false, &io); /* also beyond the end */
	trim_check(r, r->server, true);
	trim_check(r, reader, false);
	op_trim(r, 50, 1, 1, true, &io);
	cr_assert(io.present == TRIM_LENGTH - io.trimmed);
	trim_check(r, r->server, true);
	for (uint32_t b = 60; b < 100; b += 7) { /* the reader has the old file open, which is empty now */
		struct iovec v = { r->scratch, BLOCK_BYTES };
		struct segment_io read = { .op = SEGMENT_READ, .segment = 7, .block = b, .blocks = 1, .iov = &v, .iov_count = 1 };
		int status = segment_wait(reader, &read);
		read.again = true;
		cr_assert(status == -EBADMSG || b > 60);
		cr_assert_eq(segment_wait(reader, &read), 0);
	}
	trim_check(r, reader, true);
	op_trim(r, 130, 70, 1, false, &io); /* in a packed file, too */
	cr_assert(io.present == TRIM_LENGTH - io.trimmed);
	trim_check(r, r->server, true);
	op_trim(r, 42, 80, 4, true, &io); /* packed again */
	cr_assert(io.present == TRIM_LENGTH - io.trimmed);
	cr_assert_eq(r->server->free_bytes, r->options.size_limit - (io.present + 1) * BLOCK_BYTES, "and one block of footer");
	trim_check(r, r->server, true);
	return segment_server_close(reader);
}

static int body_trim_after(struct rig *r)
{
	struct segment_io io = op_stat(r, 7);
	trim_check(r, r->server, true);
	cr_assert_eq(r->server->free_bytes, r->options.size_limit - (io.present + 1) * BLOCK_BYTES);
	return 0;
}

Test(segment_dir, what_is_free_of_a_copy_takes_no_space_and_the_rest_stays)
{
	struct rig r = rig_make(5, 64 << 20);
	r.options.size_limit = 16 << 20;
	cr_assert_eq(rig_do(&r, body_open), 0, "%s", r.report.text);
	rig_do(&r, body_trim);
	rig_restart(&r, END_POWER);
	rig_do(&r, body_trim_after);
	rig_free(&r);
}
