/* nbdtest.h */
#include "tests/unit/nbdtest.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/exports/nbd_wire.h"
#include "core/bytes.h"
#include "core/env_sim.h"
#include "core/fiber.h"

struct blk_info memory_info;

static struct memory_node *memory_of(struct blk_node *n) { return (struct memory_node *)n; }

static int memory_open(struct blk_node *n, const struct blk_open *how, struct report *report)
{
	(void)how, (void)report;
	struct memory_node *m = memory_of(n);
	n->info = memory_info;
	m->bytes = calloc(1, n->info.size);
	m->extent_bytes = 64 * KIB;
	m->map_at_a_time = 3;
	link_init(&m->held);
	return m->bytes ? 0 : -ENOMEM;
}

static int memory_close(struct blk_node *n)
{
	free(memory_of(n)->bytes);
	return 0;
}

static void memory_map(struct memory_node *m, struct blk_io *io)
{
	uint64_t at = io->offset, end = io->offset + io->length;
	while (at < end && io->map->count < MIN(io->map->max, m->map_at_a_time)) {
		uint64_t n = m->extent_bytes - at % m->extent_bytes;
		io->map->extents[io->map->count++] = (struct blk_extent){
			n, at / m->extent_bytes % 2 ? BLK_EXTENT_HOLE | BLK_EXTENT_ZERO : BLK_EXTENT_DATA };
		at += n;
	}
}

void memory_do(struct memory_node *m, struct blk_io *io)
{
	int r = 0;
	if (io->op == BLK_READ || io->op == BLK_WRITE)
		r = m->fail;
	if (io->op == BLK_READ && r == 0 && !m->lazy)
		iov_scatter(io->iov, io->iov_count, 0, m->bytes + io->offset, io->length);
	else if (io->op == BLK_WRITE && r == 0)
		iov_gather(io->iov, io->iov_count, 0, m->bytes + io->offset, io->length);
	else if (io->op == BLK_ZERO || io->op == BLK_DISCARD)
		memset(m->bytes + io->offset, 0, io->length);
	else if (io->op == BLK_MAP)
		memory_map(m, io);
	blk_end(io, r);
}

static void memory_submit(struct blk_node *n, struct blk_io *io)
{
	struct memory_node *m = memory_of(n);
	m->flags_seen |= io->flags;
	m->requests++;
	m->flushes += io->op == BLK_FLUSH;
	if (m->hold)
		link_push(&m->held, &io->link);
	else
		memory_do(m, io);
}

void memory_let_go(struct memory_node *m)
{
	m->hold = false;
	for (struct link *l; (l = link_pop(&m->held));)
		memory_do(m, container_of(l, struct blk_io, link));
}

static const struct blk_driver driver_memory = {
	.name = "memory",
	.node_size = sizeof(struct memory_node),
	.open = memory_open,
	.close = memory_close,
	.submit = memory_submit,
};

/* ---- the setting: node, export, clients ---- */

struct setting the;

static void note(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(the.log, sizeof the.log, format, args);
	va_end(args);
}

static int setting_fiber(void *arg)
{
	(void)arg;
	struct blk_node *node;
	struct blk_open how = { .node_name = "disk" };
	struct report report = { "" };
	cr_assert_eq(blk_open(the.env, &driver_memory, &how, NULL, 0, &node, &report), 0, "%s", report.text);
	the.memory = memory_of(node);
	snprintf(the.address, sizeof the.address, "unix:%s/vm.nbd", the.directory);
	struct export_how export_how = { .name = "vm", .run_dir = the.directory, .read_only = the.read_only,
					 .queue_depth = the.queue_depth, .log = note };
	cr_assert_eq(export_nbd.open(the.env, node, &export_how, &the.export, &report), 0, "%s", report.text);
	the.script();
	if (the.export)
		cr_assert_eq(export_nbd.close(the.export, true, &report), 0, "%s", report.text);
	cr_assert_eq(blk_close(node), 0);
	return 0;
}

static void set_up(void (*script)(void))
{
	if (memory_info.size == 0)
		memory_info = (struct blk_info){ .size = MIB, .block_size = 512, .preferred_size = 4096,
						 .can_discard = true, .can_zero = true, .can_map = true };
	the.script = script;
}

/* Runs `script` in a fiber, with the export open; afterwards nothing may be left. */
void run(void (*script)(void))
{
	strcpy(the.directory, "/tmp/aquifer-nbd-XXXXXX");
	cr_assert(mkdtemp(the.directory));
	set_up(script);
	cr_assert_eq(env_linux_create(1, &the.env), 0);
	cr_assert_eq(env_linux_run_fiber(the.env, setting_fiber, NULL), 0);
	env_linux_destroy(the.env);
	cr_assert_eq(rmdir(the.directory), 0, "the socket is gone");
}

void run_sim(void (*script)(void))
{
	struct sim *sim = sim_create(1, NULL);
	strcpy(the.directory, "/run");
	set_up(script);
	the.env = sim_process_create(sim, sim_host_create(sim, "host", 1 << 20, 512));
	cr_assert_eq(sim_run_fiber(the.env, setting_fiber, NULL), 0);
	sim_process_destroy(the.env);
	sim_destroy(sim);
}

struct stream *dial(void)
{
	struct stream *s;
	cr_assert_eq(stream_connect(the.env, the.address, NS_PER_S, &s), 0);
	return s;
}

void put(struct stream *s, const void *bytes, size_t length)
{
	cr_assert_eq(stream_send_wait(s, bytes, length), 0);
}

void get(struct stream *s, void *bytes, size_t length)
{
	cr_assert_eq(stream_recv_wait(s, bytes, length), 0);
}

void expect_hang_up(struct stream *s)
{
	char byte;
	cr_assert_eq(stream_recv_wait(s, &byte, 1), -ECONNRESET);
	stream_shutdown(s);
	stream_close(s);
}

void hang_up(struct stream *s)
{
	stream_shutdown(s);
	stream_close(s);
}

struct stream *hello(uint32_t flags)
{
	struct stream *s = dial();
	uint8_t in[NBD_HELLO_BYTES], out[4];
	get(s, in, sizeof in);
	cr_assert_eq(get_be64(in), NBD_MAGIC);
	cr_assert_eq(get_be64(in + 8), NBD_OPTION_MAGIC);
	cr_assert_eq(get_be16(in + 16), NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
	put_be32(out, flags);
	put(s, out, sizeof out);
	return s;
}

void put_option(struct stream *s, uint32_t code, const void *data, uint32_t length)
{
	uint8_t head[NBD_OPTION_BYTES];
	put_be64(head, NBD_OPTION_MAGIC);
	put_be32(head + 8, code);
	put_be32(head + 12, length);
	put(s, head, sizeof head);
	if (length)
		put(s, data, length);
}

/* One answer to option `code`; its data (at most 256 bytes) to `data`. Returns the type. */
uint32_t get_answer(struct stream *s, uint32_t code, uint8_t *data, uint32_t *ret_length)
{
	uint8_t head[NBD_OPTION_REPLY_BYTES];
	get(s, head, sizeof head);
	cr_assert_eq(get_be64(head), NBD_OPTION_REPLY_MAGIC);
	cr_assert_eq(get_be32(head + 8), code);
	uint32_t length = get_be32(head + 16);
	cr_assert_leq(length, 256);
	get(s, data, length);
	if (ret_length)
		*ret_length = length;
	return get_be32(head + 12);
}

uint32_t ask_option(struct stream *s, uint32_t code, const void *data, uint32_t length)
{
	uint8_t answer[256];
	put_option(s, code, data, length);
	return get_answer(s, code, answer, NULL);
}

uint32_t go_data(uint8_t *p, const char *name)
{
	uint32_t n = (uint32_t)strlen(name);
	put_be32(p, n);
	memcpy(p + 4, name, n);
	put_be16(p + 4 + n, 2);
	put_be16(p + 6 + n, NBD_INFO_NAME);
	put_be16(p + 8 + n, NBD_INFO_DESCRIPTION);
	return 10 + n;
}

/* GO, to the ACK; returns the transmission flags. */
uint16_t go(struct stream *s)
{
	uint8_t data[256];
	uint16_t flags = 0;
	uint32_t length, type;
	put_option(s, NBD_OPT_GO, data, go_data(data, "vm"));
	while ((type = get_answer(s, NBD_OPT_GO, data, &length)) == NBD_REP_INFO) {
		switch (get_be16(data)) {
		case NBD_INFO_EXPORT:
			cr_assert_eq(get_be64(data + 2), memory_info.size);
			flags = get_be16(data + 10);
			break;
		case NBD_INFO_BLOCK_SIZE:
			cr_assert_eq(get_be32(data + 2), memory_info.block_size);
			cr_assert_eq(get_be32(data + 10), 32 * MIB);
			break;
		case NBD_INFO_NAME:
			cr_assert_eq(length, 4);
			cr_assert_eq(memcmp(data + 2, "vm", 2), 0);
			break;
		}
	}
	cr_assert_eq(type, NBD_REP_ACK);
	cr_assert(flags & NBD_FLAG_HAS_FLAGS);
	return flags;
}

/* A client with or without structured replies and base:allocation. */
struct stream *client(bool structured)
{
	struct stream *s = hello(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
	if (structured) {
		uint8_t meta[64] = { 0 }, answer[256];
		put_be32(meta + 4, 1);
		put_be32(meta + 8, 15);
		memcpy(meta + 12, "base:allocation", 15);
		cr_assert_eq(ask_option(s, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
		cr_assert_eq(ask_option(s, NBD_OPT_SET_META_CONTEXT, meta, 27), NBD_REP_META_CONTEXT);
		cr_assert_eq(get_answer(s, NBD_OPT_SET_META_CONTEXT, answer, NULL), NBD_REP_ACK);
	}
	go(s);
	return s;
}

void put_request(struct stream *s, uint16_t type, uint16_t flags, uint64_t cookie, uint64_t offset, uint32_t length)
{
	uint8_t b[NBD_REQUEST_BYTES];
	put_be32(b, NBD_REQUEST_MAGIC);
	put_be16(b + 4, flags);
	put_be16(b + 6, type);
	put_be64(b + 8, cookie);
	put_be64(b + 16, offset);
	put_be32(b + 24, length);
	put(s, b, sizeof b);
}

/* A simple reply's head; returns the error, and the cookie if asked for. */
uint32_t get_simple(struct stream *s, uint64_t *ret_cookie)
{
	uint8_t b[NBD_SIMPLE_REPLY_BYTES];
	get(s, b, sizeof b);
	cr_assert_eq(get_be32(b), NBD_SIMPLE_REPLY_MAGIC);
	if (ret_cookie)
		*ret_cookie = get_be64(b + 8);
	return get_be32(b + 4);
}

uint32_t request(struct stream *s, uint16_t type, uint16_t flags, uint64_t offset, uint32_t length)
{
	uint64_t cookie;
	put_request(s, type, flags, 77 + offset, offset, length);
	uint32_t error = get_simple(s, &cookie);
	cr_assert_eq(cookie, 77 + offset);
	return error;
}

uint32_t write_bytes(struct stream *s, uint16_t flags, uint64_t offset, const void *bytes, uint32_t length)
{
	put_request(s, NBD_CMD_WRITE, flags, 5, offset, length);
	put(s, bytes, length);
	return get_simple(s, NULL);
}

uint32_t read_bytes(struct stream *s, uint64_t offset, void *bytes, uint32_t length)
{
	put_request(s, NBD_CMD_READ, 0, 6, offset, length);
	uint32_t error = get_simple(s, NULL);
	if (error == 0)
		get(s, bytes, length);
	return error;
}

void fill(uint8_t *bytes, size_t length, unsigned seed)
{
	for (size_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)(seed + i * 7 + i / 251);
}

/* Lets everything that is on its way arrive. */
void settle(void)
{
	for (int i = 0; i < 20; i++)
		fiber_sleep(&the.env->loop, NS_PER_MS);
}
