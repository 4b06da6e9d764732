/* The segment service over RPC, both ends, with a fake that remembers what it was asked. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/segment/segment_wire.h"
#include "server/server.h"

/* ---- the fake: answers as told, at once or when let go ---- */

struct fake {
	struct segment_server base;
	struct segment_io last;      /* the last request, and the answer to give */
	uint8_t *payload;            /* of the last request */
	uint64_t payload_bytes;
	bool payload_aligned;
	uint8_t trim[4];
	int status;
	struct segment_io result;
	bool hold;
	struct segment_io *held[64];
	unsigned held_count, asked;
};

static void fake_answer(struct fake *f, struct segment_io *io)
{
	io->status = f->status;
	io->length = f->result.length;
	io->state = f->result.state;
	io->sealed = f->result.sealed;
	io->last_crc = f->result.last_crc;
	io->last_seq = f->result.last_seq;
	io->fenced_epoch = f->result.fenced_epoch;
	io->trimmed = f->result.trimmed;
	io->present = f->result.present;
	for (unsigned i = 0; io->free_bits && i < SEGMENT_BITMAP_BYTES; i++)
		io->free_bits[i] = i < 100 ? (uint8_t)i : 0;
	job_put(io->parent, io->status);
}

static void fake_submit(struct segment_server *s, struct segment_io *io)
{
	struct fake *f = container_of(s, struct fake, base);
	f->asked++;
	f->last = *io;
	if (io->op == SEGMENT_TRIM)
		memcpy(f->trim, io->trim, MIN(sizeof f->trim, div_up(io->blocks, 8)));
	f->payload_bytes = iov_bytes(io->iov, io->iov_count);
	if (io->op == SEGMENT_READ) {
		for (uint64_t at = 0; at < f->payload_bytes; at += 4) {
			uint32_t word = io->block * 1024 + (uint32_t)at / 4;
			iov_scatter(io->iov, io->iov_count, at, &word, 4);
		}
	} else if (f->payload_bytes) {
		f->payload_aligned = (uintptr_t)io->iov[0].iov_base % 4096 == 0;
		iov_gather(io->iov, io->iov_count, 0, f->payload, f->payload_bytes);
	}
	if (f->hold)
		f->held[f->held_count++] = io;
	else
		fake_answer(f, io);
}

static void fake_let_go(struct fake *f)
{
	f->hold = false;
	for (unsigned i = 0; i < f->held_count; i++)
		fake_answer(f, f->held[i]);
	f->held_count = 0;
}

static int fake_close(struct segment_server *s)
{
	(void)s;
	return 0;
}

static const struct segment_server_ops fake_ops = { .submit = fake_submit, .close = fake_close };

struct world {
	struct env *env;
	char directory[64], address[96];
	struct fake fake;
	struct server *server;
	struct segment_server *remote;
};

static void serve(struct world *w)
{
	struct listener *l;
	cr_assert_eq(stream_listen(w->env, w->address, &l), 0);
	cr_assert_eq(server_start(w->env, l, &w->fake.base, &(struct server_limits){ 0 }, &w->server), 0);
}

static void remote_open(struct world *w, uint64_t deadline_ns)
{
	struct report report = { 0 };
	int r = segment_remote_open(w->env, w->address, deadline_ns, &w->remote, &report);
	cr_assert_eq(r, 0, "%s", report_text(&report, r));
}

static void world_run(int (*run)(void *arg))
{
	struct world w = { .directory = "/tmp/aq-segment-XXXXXX" };
	cr_assert(mkdtemp(w.directory));
	snprintf(w.address, sizeof w.address, "unix:%s/s", w.directory);
	cr_assert_eq(env_linux_create(1, &w.env), 0);
	w.fake.base = (struct segment_server){ .ops = &fake_ops, .env = w.env, .id = { "0123456789abcdef" }, .incarnation = 7,
						.free_bytes = 1000, .total_bytes = 2000 };
	w.fake.payload = malloc(RECORD_BYTES_MAX);
	cr_assert_eq(env_linux_run_fiber(w.env, run, &w), 0);
	env_linux_destroy(w.env);
	free(w.fake.payload);
	unlink(w.address + 5);
	rmdir(w.directory);
}

#define REMOTE_TEST(name)                                         \
	static int remote_##name(void *arg);                      \
	Test(segment_remote, name) { world_run(remote_##name); }  \
	static int remote_##name(void *arg)

REMOTE_TEST(every_operation_arrives_as_it_was_asked)
{
	struct world *w = arg;
	serve(w);
	remote_open(w, 0);
	cr_assert_arr_eq(w->remote->id.bytes, "0123456789abcdef", 16);
	cr_assert_eq(w->remote->incarnation, 7);
	cr_assert_eq(w->remote->total_bytes, 2000);
	w->fake.base.free_bytes = 500;
	w->fake.result = (struct segment_io){ .length = 28672, .trimmed = 77, .present = 28000, .state = COPY_DOUBTFUL, .sealed = true,
					      .last_crc = 0xfedcba98, .last_seq = UINT64_MAX, .fenced_epoch = 1 };
	const enum segment_op ops[] = { SEGMENT_CREATE, SEGMENT_SYNC, SEGMENT_FENCE, SEGMENT_SEAL, SEGMENT_DELETE, SEGMENT_STAT, SEGMENT_REPAIR, SEGMENT_TRIM };
	uint8_t bits[3] = { 1, 2, 0x80 };
	for (unsigned i = 0; i < ARRAY_COUNT(ops); i++) {
		struct segment_io io = { .op = ops[i], .segment = (UINT64_C(1) << 48) - 1 - i, .epoch = UINT64_MAX - i,
					 .incarnation = 7, .block = 28672 - i, .crc = 0x80000001u + i };
		io.header = (struct segment_header){ io.segment, { "VOLUMEvolumeVOLU" }, 3, 0x8877665544332211, 16384 };
		if (ops[i] == SEGMENT_TRIM) {
			io.trim = bits;
			io.blocks = 24;
			io.pack = true;
		}
		uint8_t free_bits[SEGMENT_BITMAP_BYTES];
		memset(free_bits, 0xee, sizeof free_bits);
		io.free_bits = ops[i] == SEGMENT_STAT ? free_bits : NULL;
		cr_assert_eq(segment_wait(w->remote, &io), 0);
		for (unsigned k = 0; io.free_bits && k < sizeof free_bits; k++)
			cr_assert_eq(free_bits[k], k < 100 ? k : 0);
		cr_assert_eq(w->fake.last.free_bits != NULL, ops[i] == SEGMENT_STAT);
		const struct segment_io *got = &w->fake.last;
		cr_assert_eq(got->op, ops[i]);
		cr_assert_eq(got->segment, io.segment);
		cr_assert_eq(got->epoch, io.epoch);
		cr_assert_eq(got->incarnation, 7);
		cr_assert_eq(got->block, io.block);
		cr_assert_eq(got->crc, io.crc);
		cr_assert_eq(w->fake.payload_bytes, 0);
		if (ops[i] == SEGMENT_CREATE) {
			cr_assert_eq(got->header.segment, io.segment);
			cr_assert_arr_eq(got->header.volume.bytes, io.header.volume.bytes, 16);
			cr_assert_eq(got->header.epoch, 3);
			cr_assert_eq(got->header.salt, io.header.salt);
			cr_assert_eq(got->header.size_blocks, 16384);
		}
		cr_assert_eq(got->pack, ops[i] == SEGMENT_TRIM);
		if (ops[i] == SEGMENT_TRIM) {
			cr_assert_eq(got->blocks, 24);
			cr_assert_arr_eq(w->fake.trim, bits, 3);
		}
		cr_assert_eq(io.trimmed, 77);
		cr_assert_eq(io.present, 28000);
		cr_assert_eq(io.length, 28672);
		cr_assert_eq(io.state, COPY_DOUBTFUL);
		cr_assert(io.sealed);
		cr_assert_eq(io.last_crc, 0xfedcba98);
		cr_assert_eq(io.last_seq, UINT64_MAX);
		cr_assert_eq(io.fenced_epoch, 1);
	}
	cr_assert_eq(w->remote->free_bytes, 500);
	segment_server_close(w->remote);
	server_stop(w->server, 0);
	return 0;
}

REMOTE_TEST(blocks_go_and_come_whole_into_scattered_places)
{
	struct world *w = arg;
	serve(w);
	remote_open(w, 0);
	uint8_t *bytes = malloc(RECORD_BYTES_MAX);
	for (size_t i = 0; i < RECORD_BYTES_MAX; i++)
		bytes[i] = (uint8_t)(i * 31 >> 4);
	const uint32_t counts[] = { 1, 2, 9, 16, 100, RECORD_BLOCKS_MAX };
	for (unsigned i = 0; i < ARRAY_COUNT(counts); i++) {
		size_t n = counts[i] * BLOCK_BYTES;
		struct iovec v[3] = { { bytes, 100 }, { bytes + 100, n - 300 }, { bytes + n - 200, 200 } };
		struct segment_io io = { .op = i & 1 ? SEGMENT_APPEND : SEGMENT_REPAIR, .segment = 5, .block = 17, .iov = v, .iov_count = 3 };
		cr_assert_eq(segment_wait(w->remote, &io), 0);
		cr_assert_eq(w->fake.last.blocks, counts[i]);
		cr_assert(w->fake.payload_aligned);
		cr_assert_eq(w->fake.payload_bytes, n);
		cr_assert(memcmp(w->fake.payload, bytes, n) == 0);
	}
	for (unsigned i = 0; i < ARRAY_COUNT(counts); i++) {
		size_t n = counts[i] * BLOCK_BYTES;
		struct iovec v[3] = { { bytes, 100 }, { bytes + 100, n - 300 }, { bytes + n - 200, 200 } };
		struct segment_io io = { .op = SEGMENT_READ, .segment = 5, .block = 3, .blocks = counts[i], .iov = v, .iov_count = 3 };
		memset(bytes, 0xee, n);
		cr_assert_eq(segment_wait(w->remote, &io), 0);
		for (size_t at = 0; at < n; at += 4)
			cr_assert_eq(get_le32(bytes + at), 3 * 1024 + at / 4);
	}
	free(bytes);
	segment_server_close(w->remote);
	server_stop(w->server, 0);
	return 0;
}

REMOTE_TEST(errors_arrive_as_they_are)
{
	struct world *w = arg;
	serve(w);
	remote_open(w, 0);
	const int errors[] = { EPERM, ESTALE, EINVAL, EROFS, ENOENT, EEXIST, ENOSPC, EIO };
	for (unsigned i = 0; i < ARRAY_COUNT(errors); i++) {
		struct segment_io io = { .op = SEGMENT_STAT, .segment = 1 };
		w->fake.status = -errors[i];
		cr_assert_eq(segment_wait(w->remote, &io), -errors[i]);
		cr_assert_eq(io.status, -errors[i]);
	}
	segment_server_close(w->remote);
	server_stop(w->server, 0);
	return 0;
}

REMOTE_TEST(operations_are_pipelined_in_order)
{
	struct world *w = arg;
	static uint8_t page[BLOCK_BYTES];
	struct iovec v = { page, sizeof page };
	struct segment_io io[40] = { 0 };
	struct job all;
	serve(w);
	remote_open(w, 0);
	w->fake.hold = true;
	job_init(&all, &w->env->loop);
	for (uint32_t i = 0; i < 40; i++) {
		io[i] = (struct segment_io){ .op = SEGMENT_APPEND, .segment = 9, .block = i + 1, .iov = &v, .iov_count = 1 };
		segment_submit(w->remote, &io[i], &all);
	}
	while (w->fake.held_count < 40) /* all of them under way before the first is answered */
		fiber_sleep(&w->env->loop, NS_PER_MS);
	for (uint32_t i = 0; i < 40; i++)
		cr_assert_eq(w->fake.held[i]->block, i + 1);
	fake_let_go(&w->fake);
	cr_assert_eq(fiber_wait(&all), 0);
	segment_server_close(w->remote);
	server_stop(w->server, 0);
	return 0;
}

REMOTE_TEST(deadline_loss_and_the_next_incarnation)
{
	struct world *w = arg;
	struct segment_io io = { .op = SEGMENT_STAT, .segment = 1 };
	serve(w);
	remote_open(w, NS_PER_S);
	w->fake.hold = true;
	cr_assert_eq(segment_wait(w->remote, &io), -ETIMEDOUT);
	fake_let_go(&w->fake);
	server_stop(w->server, 0);
	int r;
	while ((r = segment_wait(w->remote, &io)) == -ETIMEDOUT)
		;
	cr_assert_eq(r, -ENOTCONN);
	w->fake.base.incarnation = 8;
	w->fake.status = -ESTALE;
	serve(w);
	while ((r = segment_wait(w->remote, &io)) == -ENOTCONN || r == -ETIMEDOUT)
		fiber_sleep(&w->env->loop, NS_PER_MS);
	cr_assert_eq(r, -ESTALE, "the server says so, not the client");
	cr_assert_eq(w->remote->incarnation, 8);
	segment_server_close(w->remote);
	server_stop(w->server, 0);
	return 0;
}

REMOTE_TEST(another_server_at_the_address_is_not_spoken_to)
{
	struct world *w = arg;
	struct segment_io io = { .op = SEGMENT_STAT, .segment = 1 };
	serve(w);
	remote_open(w, 0);
	server_stop(w->server, 0);
	w->fake.base.id.bytes[0] ^= 1;
	w->fake.asked = 0;
	serve(w);
	for (int i = 0; i < 50; i++) {
		cr_assert_eq(segment_wait(w->remote, &io), -ENOTCONN);
		fiber_sleep(&w->env->loop, 4 * NS_PER_MS);
	}
	cr_assert_eq(w->fake.asked, 0);
	segment_server_close(w->remote);
	server_stop(w->server, 0);
	return 0;
}

/* ---- what the server takes from the wire ---- */

static int parse(uint32_t method, Aquifer__Segment__Request m, uint64_t payload_bytes, uint64_t reply_limit)
{
	struct segment_io io = { .segment = 12345 };
	const char *why = NULL;
	int r = segment_wire_parse(method, &m, payload_bytes, reply_limit, &io, &why);
	cr_assert((r == 0) == (why == NULL), "an error and its sentence go together");
	cr_assert(r == 0 || io.segment == 12345, "nothing is filled on failure");
	return r;
}

Test(segment_wire, refuses_what_is_out_of_range)
{
	Aquifer__Segment__Request m = AQUIFER__SEGMENT__REQUEST__INIT;
	m.segment = m.block = 1;
	m.blocks = 2;
	const Aquifer__Segment__Request ok = m;
	cr_assert_eq(parse(3, m, 8192, 0), 0);
	cr_assert_eq(parse(4, m, 0, 8192), 0);
	cr_assert_eq(parse(0, m, 0, 0), -ENOSYS);
	cr_assert_eq(parse(1, m, 0, 0), -ENOSYS);
	cr_assert_eq(parse(15, m, 0, 0), -ENOSYS);
	cr_assert_eq(parse(UINT32_MAX, m, 0, 0), -ENOSYS);
	cr_assert_eq(parse(3, m, 8191, 0), -EINVAL);
	cr_assert_eq(parse(3, m, 0, 8192), -EINVAL);
	cr_assert_eq(parse(3, m, 8192, 4096), -EINVAL);
	cr_assert_eq(parse(4, m, 0, 4096), -EINVAL);
	cr_assert_eq(parse(4, m, 0, 12288), -EINVAL);
	cr_assert_eq(parse(5, m, 4096, 0), -EINVAL);
	m.segment = 0;
	cr_assert_eq(parse(5, m, 0, 0), -EINVAL);
	m.segment = UINT64_C(1) << 48;
	cr_assert_eq(parse(5, m, 0, 0), -EINVAL);
	m = ok;
	m.block = SEGMENT_BLOCKS_MAX + 1;
	cr_assert_eq(parse(5, m, 0, 0), -EINVAL);
	m.block = UINT32_MAX;
	cr_assert_eq(parse(3, m, 8192, 0), -EINVAL);
	m.block = SEGMENT_BLOCKS_MAX - 1;
	cr_assert_eq(parse(4, m, 0, 8192), -EINVAL);
	m.blocks = 1;
	cr_assert_eq(parse(4, m, 0, 4096), 0);
	m.blocks = 0;
	cr_assert_eq(parse(4, m, 0, 0), -EINVAL);
	cr_assert_eq(parse(3, m, 0, 0), -EINVAL);
	cr_assert_eq(parse(8, m, 0, 0), 0);
	m.block = 1;
	m.blocks = RECORD_BLOCKS_MAX + 1;
	cr_assert_eq(parse(3, m, (uint64_t)m.blocks * BLOCK_BYTES, 0), -EINVAL);
	m.blocks = 1u << 20; /* times 4096 is 0 in 32 bits */
	cr_assert_eq(parse(3, m, 0, 0), -EINVAL);
}

Test(segment_wire, refuses_lists_and_pages_that_are_too_long)
{
	Aquifer__Segment__Request m = AQUIFER__SEGMENT__REQUEST__INIT;
	uint8_t groups[33] = { 1 };
	cr_assert_eq(parse(12, m, 0, 65536), 0, "from the start, of all groups");
	cr_assert_eq(parse(12, m, 0, 65535), -EINVAL);
	cr_assert_eq(parse(12, m, 0, 4 << 20), -EINVAL);
	m.groups = (ProtobufCBinaryData){ 32, groups };
	cr_assert_eq(parse(12, m, 0, 65536), 0);
	m.groups.len = 33;
	cr_assert_eq(parse(12, m, 0, 65536), -EINVAL);
	m = (Aquifer__Segment__Request)AQUIFER__SEGMENT__REQUEST__INIT;
	m.blocks = 10;
	cr_assert_eq(parse(13, m, 0, 8192 + 10 * 4096), -EINVAL, "of no segment");
	m.segment = 1;
	cr_assert_eq(parse(13, m, 0, 8192 + 10 * 4096), 0);
	cr_assert_eq(parse(13, m, 4096, 8192 + 10 * 4096), -EINVAL);
	m.blocks = 1022;
	cr_assert_eq(parse(13, m, 0, 4 << 20), 0);
	m.blocks = 1023;
	cr_assert_eq(parse(13, m, 0, 8192 + 1023 * 4096), -EINVAL);
	m.blocks = 0;
	cr_assert_eq(parse(13, m, 0, 8192), -EINVAL);
	cr_assert_eq(parse(14, m, 0, 0), 0);
}

Test(segment_wire, refuses_bad_headers)
{
	uint8_t volume[17] = { 1 };
	Aquifer__Segment__Header h = AQUIFER__SEGMENT__HEADER__INIT;
	Aquifer__Segment__Request m = AQUIFER__SEGMENT__REQUEST__INIT;
	m.segment = 1;
	cr_assert_eq(parse(2, m, 0, 0), -EINVAL);
	m.header = &h;
	h.size_blocks = 16384;
	h.volume.data = volume;
	for (h.volume.len = 0; h.volume.len <= 17; h.volume.len++)
		cr_assert_eq(parse(2, m, 0, 0), h.volume.len == 16 ? 0 : -EINVAL);
	h.volume.len = 16;
	const uint32_t sizes[] = { 0, 1, SEGMENT_BLOCKS_MAX + 1, UINT32_MAX };
	for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
		h.size_blocks = sizes[i];
		cr_assert_eq(parse(2, m, 0, 0), -EINVAL);
	}
}

Test(segment_wire, refuses_bitmaps_of_another_length)
{
	uint8_t bits[SEGMENT_BLOCKS_MAX / 8 + 1] = { 0 };
	Aquifer__Segment__Request m = AQUIFER__SEGMENT__REQUEST__INIT;
	m.segment = 1;
	m.trim.data = bits;
	cr_assert_eq(parse(11, m, 0, 0), -EINVAL);
	for (m.blocks = 1; m.blocks < 30; m.blocks++)
		for (m.trim.len = 0; m.trim.len < 6; m.trim.len++)
			cr_assert_eq(parse(11, m, 0, 0), m.trim.len == (m.blocks + 7) / 8 ? 0 : -EINVAL);
	m.blocks = SEGMENT_BLOCKS_MAX;
	m.trim.len = SEGMENT_BLOCKS_MAX / 8;
	cr_assert_eq(parse(11, m, 0, 0), 0);
	cr_assert_eq(parse(11, m, 4096, 0), -EINVAL);
	m.blocks = SEGMENT_BLOCKS_MAX + 1;
	m.trim.len++;
	cr_assert_eq(parse(11, m, 0, 0), -EINVAL);
}

Test(segment_wire, refuses_answers_that_make_no_sense)
{
	struct segment_io io = { 0 };
	Aquifer__Segment__Reply m = AQUIFER__SEGMENT__REPLY__INIT;
	cr_assert_eq(segment_wire_result(&m, &io), 0);
	m.length = SEGMENT_BLOCKS_MAX + 1;
	cr_assert_eq(segment_wire_result(&m, &io), -EPROTO);
	m.length = 0;
	m.trimmed = SEGMENT_BLOCKS_MAX + 1;
	cr_assert_eq(segment_wire_result(&m, &io), -EPROTO);
	m.trimmed = 0;
	m.present = SEGMENT_BLOCKS_MAX + 1;
	cr_assert_eq(segment_wire_result(&m, &io), -EPROTO);
	m.present = 0;
	m.state = (Aquifer__Segment__State)4;
	cr_assert_eq(segment_wire_result(&m, &io), -EPROTO);
	m.state = (Aquifer__Segment__State)-1;
	cr_assert_eq(segment_wire_result(&m, &io), -EPROTO);
}
