/* The NBD export: negotiation, requests and their answers, the end. (nbd_limits.c: what it costs at most.) */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/exports/nbd_handshake.h"
#include "agent/exports/nbd_wire.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "tests/unit/nbdtest.h"

/* ---- negotiation ---- */

static void script_options(void)
{
	uint8_t data[256], *big = calloc(1, NBD_OPTION_DATA_MAX + 1);
	uint32_t length;
	struct stream *s = hello(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
	put_option(s, NBD_OPT_LIST, NULL, 0);
	cr_assert_eq(get_answer(s, NBD_OPT_LIST, data, &length), NBD_REP_SERVER);
	cr_assert(length == 6 && get_be32(data) == 2 && memcmp(data + 4, "vm", 2) == 0);
	cr_assert_eq(get_answer(s, NBD_OPT_LIST, data, &length), NBD_REP_ACK);
	cr_assert_eq(ask_option(s, NBD_OPT_LIST, "x", 1), NBD_REP_ERR_INVALID);
	cr_assert_eq(ask_option(s, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ERR_UNSUP);
	cr_assert_eq(ask_option(s, 0xdeadbeef, "whatever", 8), NBD_REP_ERR_UNSUP);
	cr_assert_eq(ask_option(s, NBD_OPT_GO, data, go_data(data, "other")), NBD_REP_ERR_UNKNOWN);
	cr_assert_eq(ask_option(s, NBD_OPT_INFO, data, go_data(data, "vm") - 1), NBD_REP_ERR_INVALID);
	cr_assert_eq(ask_option(s, NBD_OPT_GO, big, NBD_OPTION_DATA_MAX + 1), NBD_REP_ERR_TOO_BIG);
	uint8_t meta[64] = { 0 };
	cr_assert_eq(ask_option(s, NBD_OPT_SET_META_CONTEXT, meta, 8), NBD_REP_ERR_INVALID, "before structured replies");
	put_option(s, NBD_OPT_LIST_META_CONTEXT, meta, 8);
	cr_assert_eq(get_answer(s, NBD_OPT_LIST_META_CONTEXT, data, &length), NBD_REP_META_CONTEXT);
	cr_assert(length == 19 && memcmp(data + 4, "base:allocation", 15) == 0);
	cr_assert_eq(get_answer(s, NBD_OPT_LIST_META_CONTEXT, data, &length), NBD_REP_ACK);
	uint16_t flags = go(s);
	cr_assert_eq(flags & (NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES),
		     NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES);
	cr_assert_eq(flags & (NBD_FLAG_READ_ONLY | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_ROTATIONAL | NBD_FLAG_SEND_DF), 0);
	hang_up(s);
	s = hello(NBD_FIXED_NEWSTYLE);
	cr_assert_eq(ask_option(s, NBD_OPT_ABORT, NULL, 0), NBD_REP_ACK);
	expect_hang_up(s);
	s = hello(NBD_FIXED_NEWSTYLE);
	put_option(s, NBD_OPT_EXPORT_NAME, "other", 5);
	expect_hang_up(s);
	expect_hang_up(hello(0x80000000)); /* a flag nobody knows */
	s = hello(NBD_FIXED_NEWSTYLE);
	put(s, "GET / HTTP/1.1\r\n\r\n", 18);
	expect_hang_up(s);
	free(big);
}

Test(nbd, options)
{
	run(script_options);
}

static void script_export_name(void)
{
	uint8_t reply[NBD_EXPORT_BYTES + NBD_EXPORT_ZEROES], block[512];
	for (unsigned zeroes = 0; zeroes < 2; zeroes++) {
		struct stream *s = hello(NBD_FIXED_NEWSTYLE | (zeroes ? 0 : NBD_NO_ZEROES));
		put_option(s, NBD_OPT_EXPORT_NAME, "vm", zeroes ? 0 : 2);
		get(s, reply, NBD_EXPORT_BYTES + (zeroes ? NBD_EXPORT_ZEROES : 0));
		cr_assert_eq(get_be64(reply), MIB);
		cr_assert(get_be16(reply + 8) & NBD_FLAG_SEND_FLUSH);
		cr_assert_eq(read_bytes(s, 0, block, sizeof block), 0);
		put_request(s, NBD_CMD_DISC, 0, 1, 0, 0);
		expect_hang_up(s);
	}
}

Test(nbd, export_name)
{
	run(script_export_name);
}

static void script_flags(void)
{
	struct stream *s = hello(NBD_FIXED_NEWSTYLE);
	uint16_t flags = go(s);
	cr_assert(flags & NBD_FLAG_READ_ONLY && flags & NBD_FLAG_CAN_MULTI_CONN && flags & NBD_FLAG_ROTATIONAL);
	cr_assert_eq(flags & (NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES), 0);
	uint8_t block[512] = { 1 };
	cr_assert_eq(write_bytes(s, 0, 0, block, sizeof block), 1 /* EPERM */);
	cr_assert_eq(request(s, NBD_CMD_WRITE_ZEROES, 0, 0, 512), 1);
	cr_assert_eq(request(s, NBD_CMD_TRIM, 0, 0, 512), 1);
	cr_assert_eq(read_bytes(s, 0, block, sizeof block), 0);
	cr_assert_eq(block[0], 0);
	hang_up(s);
}

Test(nbd, read_only_and_flags)
{
	the.read_only = true;
	memory_info = (struct blk_info){ .size = MIB, .block_size = 512, .can_discard = true, .multi_client = true,
					 .rotational = true };
	run(script_flags);
}

/* ---- requests ---- */

static void script_simple(void)
{
	struct stream *s = client(/* structured= */ false);
	uint8_t out[4096], in[4096];
	fill(out, sizeof out, 3);
	cr_assert_eq(write_bytes(s, 0, 8192, out, sizeof out), 0);
	cr_assert_eq(the.memory->flags_seen & BLK_FUA, 0);
	cr_assert_eq(read_bytes(s, 8192, in, sizeof in), 0);
	cr_assert_eq(memcmp(in, out, sizeof in), 0);
	cr_assert_eq(request(s, NBD_CMD_FLUSH, 0, 0, 0), 0);
	cr_assert_eq(the.memory->flushes, 1);
	cr_assert_eq(write_bytes(s, NBD_CMD_FLAG_FUA, 0, out, 512), 0);
	cr_assert(the.memory->flags_seen & BLK_FUA, "FUA reaches the node");
	cr_assert_eq(request(s, NBD_CMD_CACHE, 0, 0, 4096), 0);
	cr_assert_eq(request(s, NBD_CMD_TRIM, 0, 8192, 512), 0);
	cr_assert_eq(the.memory->bytes[8192 + 1], 0);
	cr_assert_eq(request(s, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE, 8704, 512), 0);
	cr_assert_eq(the.memory->flags_seen & (BLK_MAY_UNMAP | BLK_FAST_ONLY), 0);
	cr_assert_eq(request(s, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FAST_ZERO, 9216, 512), 0);
	cr_assert_eq(the.memory->flags_seen & (BLK_MAY_UNMAP | BLK_FAST_ONLY), BLK_MAY_UNMAP | BLK_FAST_ONLY);
	cr_assert_eq(request(s, NBD_CMD_BLOCK_STATUS, 0, 0, 4096), 22, "not negotiated");
	the.memory->fail = -ENOSPC;
	cr_assert_eq(write_bytes(s, 0, 0, out, 512), 28);
	the.memory->fail = -EIO;
	cr_assert_eq(read_bytes(s, 0, in, 512), 5);
	hang_up(s);
}

Test(nbd, simple_replies)
{
	run(script_simple);
}

/* A chunk's head; returns its type. All ours are the only one of their reply. */
static uint16_t get_chunk(struct stream *s, uint32_t *ret_length)
{
	uint8_t b[NBD_CHUNK_BYTES];
	get(s, b, sizeof b);
	cr_assert_eq(get_be32(b), NBD_CHUNK_MAGIC);
	cr_assert_eq(get_be16(b + 4), NBD_CHUNK_DONE);
	*ret_length = get_be32(b + 16);
	return get_be16(b + 6);
}

static void script_structured(void)
{
	struct stream *s = client(/* structured= */ true);
	uint8_t out[8192], in[8192], head[8];
	uint32_t length;
	fill(out, sizeof out, 9);
	cr_assert_eq(write_bytes(s, 0, 4096, out, sizeof out), 0);
	put_request(s, NBD_CMD_READ, NBD_CMD_FLAG_DF, 1, 4096, sizeof in);
	cr_assert_eq(get_chunk(s, &length), NBD_CHUNK_OFFSET_DATA);
	cr_assert_eq(length, 8 + sizeof in);
	get(s, head, 8);
	cr_assert_eq(get_be64(head), 4096);
	get(s, in, sizeof in);
	cr_assert_eq(memcmp(in, out, sizeof in), 0);
	put_request(s, NBD_CMD_READ, 0, 2, MIB, 512);
	cr_assert_eq(get_chunk(s, &length), NBD_CHUNK_ERROR);
	cr_assert_eq(length, 6);
	get(s, head, 6);
	cr_assert_eq(get_be32(head), 22);
	cr_assert_eq(get_be16(head + 4), 0);
	hang_up(s);
}

Test(nbd, structured_replies)
{
	run(script_structured);
}

static void expect_extents(struct stream *s, unsigned count, const uint32_t (*extents)[2])
{
	uint32_t length;
	uint8_t b[4 + 16 * 8];
	cr_assert_eq(get_chunk(s, &length), NBD_CHUNK_BLOCK_STATUS);
	cr_assert_eq(length, 4 + 8 * count);
	get(s, b, length);
	cr_assert_eq(get_be32(b), NBD_CONTEXT_ALLOCATION);
	for (unsigned i = 0; i < count; i++) {
		cr_assert_eq(get_be32(b + 4 + 8 * i), extents[i][0], "extent %u", i);
		cr_assert_eq(get_be32(b + 8 + 8 * i), extents[i][1], "extent %u", i);
	}
}

static void script_block_status(void)
{
	struct stream *s = client(/* structured= */ true);
	put_request(s, NBD_CMD_BLOCK_STATUS, 0, 1, 4096, 320 * KIB);
	expect_extents(s, 6, (uint32_t[][2]){ { 60 * KIB, 0 }, { 64 * KIB, 3 }, { 64 * KIB, 0 }, { 64 * KIB, 3 },
					      { 64 * KIB, 0 }, { 4 * KIB, 3 } });
	put_request(s, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 1, 4096, 320 * KIB);
	expect_extents(s, 1, (uint32_t[][2]){ { 60 * KIB, 0 } });
	put_request(s, NBD_CMD_BLOCK_STATUS, 0, 1, 0, 512);
	expect_extents(s, 1, (uint32_t[][2]){ { 512, 0 } });
	/* More extents than one answer holds: it ends early, and says so by its length. */
	the.memory->extent_bytes = 512;
	the.memory->map_at_a_time = UINT32_MAX;
	uint32_t length;
	put_request(s, NBD_CMD_BLOCK_STATUS, 0, 1, 0, MIB);
	cr_assert_eq(get_chunk(s, &length), NBD_CHUNK_BLOCK_STATUS);
	cr_assert_eq(length, 4 + 8 * 1024);
	uint8_t *b = malloc(length);
	get(s, b, length);
	for (unsigned i = 0; i < 1024; i++)
		cr_assert(get_be32(b + 4 + 8 * i) == 512 && get_be32(b + 8 + 8 * i) == (i % 2 ? 3 : 0));
	free(b);
	hang_up(s);
}

Test(nbd, block_status)
{
	run(script_block_status);
}

/* A node that takes 4 KiB at a time, zeroes nothing by itself, and clients that want more. */
static void script_split(void)
{
	struct stream *s = client(/* structured= */ false);
	static uint8_t out[200 * KIB], in[200 * KIB];
	fill(out, sizeof out, 21);
	cr_assert_eq(write_bytes(s, NBD_CMD_FLAG_FUA, 512, out, sizeof out), 0);
	cr_assert_eq(the.memory->requests, 50);
	cr_assert_eq(read_bytes(s, 512, in, sizeof in), 0);
	cr_assert_eq(memcmp(in, out, sizeof in), 0);
	cr_assert_eq(request(s, NBD_CMD_WRITE_ZEROES, 0, 1024, 100 * KIB), 0);
	cr_assert_eq(read_bytes(s, 512, in, sizeof in), 0);
	memset(out + 512, 0, 100 * KIB);
	cr_assert_eq(memcmp(in, out, sizeof in), 0);
	cr_assert_eq(request(s, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FAST_ZERO, 0, 512), 95);
	the.memory->fail = -EIO;
	cr_assert_eq(write_bytes(s, 0, 512, out, sizeof out), 5);
	hang_up(s);
}

Test(nbd, large_requests_are_split)
{
	memory_info = (struct blk_info){ .size = MIB, .block_size = 512, .max_transfer = 4096 + 100 };
	run(script_split);
}

/* Many requests in one send, of all sizes, more than the connection may have under way. */
static void script_pipeline(void)
{
	struct stream *s = client(/* structured= */ false);
	static uint8_t out[4 * MIB];
	uint32_t at = 0, count = 0;
	for (uint64_t offset = 0; offset < 900 * KIB; count++) {
		uint32_t n = count % 5 == 4 ? 64 * KIB : 512 * (1 + count % 3);
		uint8_t *p = out + at;
		put_be32(p, NBD_REQUEST_MAGIC);
		put_be16(p + 4, 0);
		put_be16(p + 6, NBD_CMD_WRITE);
		put_be64(p + 8, count);
		put_be64(p + 16, offset);
		put_be32(p + 24, n);
		fill(p + NBD_REQUEST_BYTES, n, count);
		at += NBD_REQUEST_BYTES + n;
		offset += n;
	}
	put(s, out, at);
	for (uint32_t i = 0; i < count; i++) {
		uint64_t cookie;
		cr_assert_eq(get_simple(s, &cookie), 0);
		cr_assert_eq(cookie, i, "this node keeps the order");
	}
	for (uint32_t p = 0, offset = 0; p < at;) {
		uint32_t n = get_be32(out + p + 24);
		cr_assert_eq(memcmp(the.memory->bytes + offset, out + p + NBD_REQUEST_BYTES, n), 0, "at %u", offset);
		p += NBD_REQUEST_BYTES + n;
		offset += n;
	}
	hang_up(s);
}

Test(nbd, pipelined_writes)
{
	the.queue_depth = 4;
	run(script_pipeline);
}

/* ---- hostile clients ---- */

static void script_refused(void)
{
	struct stream *s = client(/* structured= */ false);
	static uint8_t big[33 * MIB];
	uint8_t block[512];
	fill(block, sizeof block, 1);
	cr_assert_eq(write_bytes(s, 0, MIB - 512, big, 1024), 28, "beyond the end");
	cr_assert_eq(write_bytes(s, 0, UINT64_MAX - 511, big, 1024), 28, "wraps round");
	cr_assert_eq(write_bytes(s, 0, 0, big, 100), 22, "not a block");
	cr_assert_eq(write_bytes(s, 0x8000, 0, big, 512), 22, "flags nobody knows");
	put_request(s, NBD_CMD_WRITE, 0, 1, 0, sizeof big);
	cr_assert_eq(get_simple(s, NULL), 22, "longer than is allowed, and told before it is sent");
	put(s, big, sizeof big);
	cr_assert_eq(the.memory->requests, 0);
	cr_assert_eq(write_bytes(s, 0, 0, block, sizeof block), 0, "and still in step");
	cr_assert_eq(memcmp(the.memory->bytes, block, sizeof block), 0);
	cr_assert_eq(read_bytes(s, 0, block, 0), 22);
	cr_assert_eq(read_bytes(s, 0, block, UINT32_MAX), 22);
	cr_assert_eq(request(s, 4711, 0, 0, 512), 22);
	put_request(s, NBD_CMD_READ, 0, 1, 0, 512);
	put(s, big, 512);
	cr_assert_eq(get_simple(s, NULL), 0);
	get(s, block, 512);
	expect_hang_up(s); /* zeroes are no request */
}

Test(nbd, refused_requests)
{
	run(script_refused);
}

/* Leaving in the middle of everything. */
static void script_leave(void)
{
	static uint8_t half[64 * KIB];
	struct stream *s = dial();
	hang_up(s);
	s = hello(NBD_FIXED_NEWSTYLE);
	put(s, "IHAV", 4);
	hang_up(s);
	s = client(/* structured= */ false);
	put(s, half, 10);
	hang_up(s);
	s = client(/* structured= */ false);
	put_request(s, NBD_CMD_WRITE, 0, 1, 0, 128 * KIB);
	put(s, half, sizeof half);
	settle();
	hang_up(s);
	the.memory->hold = true;
	s = client(/* structured= */ true);
	for (unsigned i = 0; i < 10; i++)
		put_request(s, NBD_CMD_READ, 0, i, 0, 64 * KIB);
	settle();
	hang_up(s);
	settle();
	cr_assert_eq(the.memory->requests, 10);
	cr_assert_eq(the.export->clients, 1, "the one whose requests are still under way");
	memory_let_go(the.memory);
	settle();
	cr_assert_eq(the.export->clients, 0);
	struct report report = { "" };
	cr_assert_eq(export_nbd.close(the.export, /* force= */ false, &report), 0, "nobody is left: %s", report.text);
	the.export = NULL;
}

Test(nbd, clients_that_vanish)
{
	run(script_leave);
}

/* ---- closing ---- */

static int close_forced(void *arg)
{
	(void)arg;
	return export_nbd.close(the.export, /* force= */ true, NULL);
}

static void script_close(void)
{
	struct report report = { "" };
	struct stream *s = client(/* structured= */ false);
	uint8_t block[512] = { 0 };
	char expected[128];
	cr_assert_eq(read_bytes(s, 0, block, sizeof block), 0);
	cr_assert_eq(export_nbd.close(the.export, /* force= */ false, &report), -EBUSY);
	snprintf(expected, sizeof expected, "vm is in use by 1 NBD client (pid %d)", (int)getpid());
	cr_assert_str_eq(report.text, expected);
	struct stream *more = client(/* structured= */ false);
	report.text[0] = 0;
	cr_assert_eq(export_nbd.close(the.export, /* force= */ false, &report), -EBUSY);
	snprintf(expected, sizeof expected, "vm is in use by 2 NBD clients (pid %d)", (int)getpid());
	cr_assert_str_eq(report.text, expected, "%s", report.text);
	hang_up(more);
	cr_assert_eq(read_bytes(s, 0, block, sizeof block), 0, "it goes on");
	/* Forced: what is under way ends and is answered, then the line goes dead. */
	the.memory->hold = true;
	block[0] = 42;
	put_request(s, NBD_CMD_WRITE, 0, 1, 0, sizeof block);
	put(s, block, sizeof block);
	settle();
	struct job closed;
	job_init(&closed, &the.env->loop);
	job_hold(&closed);
	cr_assert_eq(fiber_start(&the.env->loop, close_forced, NULL, &closed), 0);
	settle();
	put_request(s, NBD_CMD_READ, 0, 2, 0, 512); /* too late */
	memory_let_go(the.memory);
	uint64_t cookie;
	cr_assert_eq(get_simple(s, &cookie), 0);
	cr_assert_eq(cookie, 1);
	expect_hang_up(s);
	cr_assert_eq(fiber_wait(&closed), 0);
	cr_assert_eq(the.memory->bytes[0], 42);
	the.export = NULL;
}

Test(nbd, closing)
{
	run(script_close);
}

/* ---- addresses ---- */

static void script_addresses(void)
{
	struct report report = { "" };
	struct blk_node *node = &the.memory->node;
	struct export *e;
	char path[200];
	snprintf(path, sizeof path, "nbd+unix:///vm?socket=%s/vm.nbd", the.directory);
	cr_assert_str_eq(the.export->device, path);
	struct export_how how = { .name = "two", .address = "tcp:0", .run_dir = the.directory };
	cr_assert_eq(export_nbd.open(the.env, node, &how, &e, &report), 0, "%s", report.text);
	cr_assert_eq(strncmp(e->device, "nbd://127.0.0.1:", 16), 0, "%s", e->device);
	cr_assert_str_eq(strrchr(e->device, '/'), "/two");
	cr_assert_eq(export_nbd.close(e, false, &report), 0);
	how.address = "nonsense";
	cr_assert_eq(export_nbd.open(the.env, node, &how, &e, &report), -EINVAL);
	cr_assert_str_eq(report.text, "'nonsense' is no address (give unix:/PATH or tcp:HOST:PORT)");
	report.text[0] = '\0';
	how.address = the.address;
	cr_assert_eq(export_nbd.open(the.env, node, &how, &e, &report), -EADDRINUSE);
	report.text[0] = '\0';
	memset(path, 'x', sizeof path);
	memcpy(path, "unix:/", 6);
	path[sizeof path - 1] = '\0';
	how.address = path;
	cr_assert_eq(export_nbd.open(the.env, node, &how, &e, &report), -ENAMETOOLONG);
	cr_assert(strstr(report.text, "107 characters"), "%s", report.text);
	snprintf(path, sizeof path, "unix:%s/with space&more", the.directory);
	cr_assert_eq(export_nbd.open(the.env, node, &how, &e, NULL), 0);
	cr_assert_str_eq(strrchr(e->device, '/'), "/with%20space%26more");
	cr_assert_eq(export_nbd.close(e, false, NULL), 0);
}

Test(nbd, addresses)
{
	run(script_addresses);
}

Test(nbd, table)
{
	cr_assert_eq(export_find("nbd"), &export_nbd);
	cr_assert_null(export_find("nbdx"));
}
