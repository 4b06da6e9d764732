/* The FUSE side of the loop export against a scripted kernel: a seqpacket socket carries whole
 * messages, as /dev/fuse does. The node holds each request until the test lets it end. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/exports/loop_request.h"
#include "core/bytes.h"

/* ---- a node that waits ---- */

#define HELD_MAX 64
struct held {
	struct blk_node node;
	struct blk_io *io[HELD_MAX];
	unsigned count;
};

static void held_submit(struct blk_node *node, struct blk_io *io)
{
	struct held *h = container_of(node, struct held, node);
	h->io[h->count++] = io;
}

static const struct blk_driver driver_held = {
	.name = "held", .summary = "holds requests", .node_size = sizeof(struct held), .submit = held_submit,
};

struct bench {
	struct env *env;
	struct held *held;
	struct loop_fuse *fuse;
	int kernel; /* the other end of "/dev/fuse" */
	struct blk_info info;
	unsigned depth;
	bool read_only, gone;
	uint64_t unique;
	void (*body)(struct bench *b);
};

static void gone(void *arg) { ((struct bench *)arg)->gone = true; }

static int bench_fiber(void *arg)
{
	struct bench *b = arg;
	struct blk_open how = { .node_name = "held" };
	struct blk_node *node;
	int pair[2];
	/* A driver without children gets its info from its open(); this one's comes from the test. */
	struct blk_node parent = { .info = b->info };
	cr_assert_eq(blk_open(b->env, &driver_held, &how, (struct blk_node *[]){ &parent }, 1, &node, NULL), 0);
	b->held = container_of(node, struct held, node);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	int room = 4 << 20;
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
	setsockopt(pair[1], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
	struct loop_fuse_how serve = { .name = "disk", .depth = b->depth, .read_only = b->read_only, .gone = gone, .arg = b };
	cr_assert_eq(loop_fuse_serve(b->env, &b->held->node, &serve, pair[1], &b->fuse, NULL), 0);
	b->kernel = pair[0];
	b->body(b);
	loop_fuse_destroy(b->fuse);
	close(b->kernel);
	return blk_close(node);
}

static void bench(struct bench *b)
{
	if (b->info.size == 0)
		b->info = (struct blk_info){ .size = 8 << 20, .block_size = 512, .preferred_size = 4096, .can_discard = true,
					     .can_zero = true, .discard_zeroes = true };
	cr_assert_eq(env_linux_create(1, &b->env), 0);
	cr_assert_eq(env_linux_run_fiber(b->env, bench_fiber, b), 0);
	env_linux_destroy(b->env);
}

/* ---- the kernel's side ---- */

static uint64_t say(struct bench *b, uint32_t opcode, uint64_t inode, const void *body, size_t body_bytes, const void *data,
		    size_t data_bytes)
{
	struct fuse_in_header h = { .len = (uint32_t)(sizeof h + body_bytes + data_bytes), .opcode = opcode, .nodeid = inode,
				    .unique = ++b->unique };
	struct iovec iov[3] = { { &h, sizeof h }, { (void *)(uintptr_t)body, body_bytes }, { (void *)(uintptr_t)data, data_bytes } };
	cr_assert_eq(writev(b->kernel, iov, 3), (ssize_t)h.len);
	return b->unique;
}

/* Lets the loop run for a while; true as soon as an answer is there. */
static bool answered(struct bench *b, struct fuse_out_header *ret_header, void *data, size_t room, size_t *ret_bytes)
{
	static char buffer[(1 << 20) + 4096];
	for (int i = 0; i < 100; i++) {
		ssize_t n = recv(b->kernel, buffer, sizeof buffer, MSG_DONTWAIT);
		if (n >= (ssize_t)sizeof *ret_header) {
			memcpy(ret_header, buffer, sizeof *ret_header);
			cr_assert_eq(ret_header->len, n);
			size_t bytes = (size_t)n - sizeof *ret_header;
			cr_assert_leq(bytes, room);
			memcpy(data, buffer + sizeof *ret_header, bytes);
			*ret_bytes = bytes;
			return true;
		}
		fiber_sleep(&b->env->loop, NS_PER_MS);
	}
	return false;
}

/* The answer to `unique` must come, with this error, and with `room` bytes unless it is an error. */
static void expect(struct bench *b, uint64_t unique, int error, void *data, size_t room)
{
	struct fuse_out_header h;
	char none[16];
	size_t bytes;
	cr_assert(answered(b, &h, data ? data : none, data ? room : sizeof none, &bytes), "no answer");
	cr_assert_eq(h.unique, unique);
	cr_assert_eq(h.error, error, "error %d, not %d", h.error, error);
	cr_assert_eq(bytes, error || !data ? 0 : room, "%zu bytes", bytes);
}

static void expect_silence(struct bench *b)
{
	char data[64];
	for (int i = 0; i < 10; i++)
		fiber_sleep(&b->env->loop, NS_PER_MS);
	ssize_t n = recv(b->kernel, data, sizeof data, MSG_DONTWAIT);
	cr_assert(n < 0 && errno == EAGAIN, "an answer came too early");
}

static void wait_held(struct bench *b, unsigned count)
{
	for (int i = 0; i < 500 && b->held->count < count; i++)
		fiber_sleep(&b->env->loop, NS_PER_MS);
	cr_assert_eq(b->held->count, count);
}

static uint64_t say_write(struct bench *b, uint64_t offset, const void *data, uint32_t bytes)
{
	struct fuse_write_in in = { .offset = offset, .size = bytes };
	return say(b, FUSE_WRITE, 3, &in, sizeof in, data, bytes);
}

static uint64_t say_read(struct bench *b, uint64_t offset, uint32_t bytes)
{
	struct fuse_read_in in = { .offset = offset, .size = bytes };
	return say(b, FUSE_READ, 3, &in, sizeof in, NULL, 0);
}

static uint64_t say_fallocate(struct bench *b, uint32_t mode, uint64_t offset, uint64_t length)
{
	struct fuse_fallocate_in in = { .offset = offset, .length = length, .mode = mode };
	return say(b, FUSE_FALLOCATE, 3, &in, sizeof in, NULL, 0);
}

static void write_answered(struct bench *b, uint64_t unique, uint32_t bytes)
{
	struct fuse_write_out out;
	expect(b, unique, 0, &out, sizeof out);
	cr_assert_eq(out.size, bytes);
}

/* ---- tests ---- */

static void negotiates(struct bench *b)
{
	struct fuse_init_in in = { .major = 7, .minor = 45, .flags = ~0u & ~(1u << 31) };
	struct fuse_init_out out;
	expect(b, say(b, FUSE_INIT, 0, &in, sizeof in, NULL, 0), 0, &out, sizeof out);
	cr_assert_eq(out.major, 7);
	cr_assert_eq(out.max_write, 1 << 20);
	cr_assert_eq(out.max_pages, 256);
	cr_assert_eq(out.max_background, LOOP_FUSE_DEPTH);
	cr_assert(out.flags & FUSE_ASYNC_DIO);
	cr_assert_not(out.flags & FUSE_WRITEBACK_CACHE, "the page cache must stay out of it");
	cr_assert_eq(out.flags2, 0);
}
Test(loop_fuse, negotiates)
{
	struct bench b = { .body = negotiates };
	bench(&b);
}

static void refuses_old_kernel(struct bench *b)
{
	struct fuse_init_in in = { .major = 7, .minor = 26, .flags = FUSE_ASYNC_DIO };
	expect(b, say(b, FUSE_INIT, 0, &in, sizeof in, NULL, 0), -EPROTO, NULL, 0);
	for (int i = 0; i < 500 && !b->gone; i++)
		fiber_sleep(&b->env->loop, NS_PER_MS);
	cr_assert(b->gone);
}
Test(loop_fuse, refuses_old_kernel)
{
	struct bench b = { .body = refuses_old_kernel };
	bench(&b);
}

static void names_and_attributes(struct bench *b)
{
	struct fuse_entry_out entry;
	struct fuse_open_out open_out;
	struct fuse_statfs_out statfs_out;
	struct fuse_open_in open_in = { .flags = O_RDWR | O_DIRECT };
	expect(b, say(b, FUSE_LOOKUP, 1, "aquifer", 8, NULL, 0), 0, &entry, sizeof entry);
	cr_assert_eq(entry.nodeid, 2);
	expect(b, say(b, FUSE_LOOKUP, 2, "disk", 5, NULL, 0), 0, &entry, sizeof entry);
	cr_assert_eq(entry.nodeid, 3);
	cr_assert_eq(entry.attr.size, 8 << 20);
	cr_assert_gt(entry.attr_valid, 1000000, "a stopped server must not be asked for attributes");
	expect(b, say(b, FUSE_LOOKUP, 2, "other", 6, NULL, 0), -ENOENT, NULL, 0);
	/* A name longer than what fits behind the header reaches into the data chunk. */
	char name[200];
	memset(name, 'n', sizeof name);
	name[sizeof name - 1] = 0;
	expect(b, say(b, FUSE_LOOKUP, 2, name, sizeof name, NULL, 0), -ENOENT, NULL, 0);
	expect(b, say(b, FUSE_OPEN, 3, &open_in, sizeof open_in, NULL, 0), 0, &open_out, sizeof open_out);
	cr_assert(open_out.open_flags & FOPEN_DIRECT_IO);
	expect(b, say(b, FUSE_STATFS, 3, NULL, 0, NULL, 0), 0, &statfs_out, sizeof statfs_out);
	cr_assert_eq(statfs_out.st.bsize, 4096);
	expect(b, say(b, FUSE_GETXATTR, 3, NULL, 0, NULL, 0), -ENOSYS, NULL, 0);
}
Test(loop_fuse, names_and_attributes)
{
	struct bench b = { .body = names_and_attributes };
	bench(&b);
}

/* What the well-known daemon gets wrong: its one request buffer is overwritten while a write waits. */
static void a_write_keeps_its_buffer(struct bench *b)
{
	static char data[8][4096], large[1 << 20];
	uint64_t unique[8];
	for (int i = 0; i < 8; i++) {
		memset(data[i], 'a' + i, sizeof data[i]);
		unique[i] = say_write(b, (uint64_t)i * 4096, data[i], 4096);
	}
	wait_held(b, 8);
	memset(large, 'L', sizeof large);
	uint64_t last = say_write(b, 1 << 20, large, sizeof large);
	uint64_t read = say_read(b, 0, 4096);
	wait_held(b, 10);
	for (int i = 0; i < 8; i++) {
		struct blk_io *io = b->held->io[i];
		cr_assert_eq(io->op, BLK_WRITE);
		cr_assert_eq(io->offset, (uint64_t)i * 4096);
		cr_assert_eq((uintptr_t)io->iov[0].iov_base % 4096, 0, "data is page aligned");
		cr_assert_eq(memcmp(io->iov[0].iov_base, data[i], 4096), 0, "write %d was overwritten", i);
	}
	cr_assert_eq(iov_bytes(b->held->io[8]->iov, b->held->io[8]->iov_count), sizeof large);
	for (int i = 7; i >= 0; i--) { /* in any order */
		blk_end(b->held->io[i], 0);
		write_answered(b, unique[i], 4096);
	}
	blk_end(b->held->io[8], 0);
	write_answered(b, last, sizeof large);
	memset(b->held->io[9]->iov[0].iov_base, 'R', 4096);
	blk_end(b->held->io[9], 0);
	static char got[4096];
	expect(b, read, 0, got, sizeof got);
	cr_assert_eq(got[4095], 'R');
}
Test(loop_fuse, a_write_keeps_its_buffer)
{
	struct bench b = { .body = a_write_keeps_its_buffer };
	bench(&b);
}

static void fsync_waits_for_the_flush(struct bench *b)
{
	struct fuse_fsync_in in = { 0 };
	uint64_t unique = say(b, FUSE_FSYNC, 3, &in, sizeof in, NULL, 0);
	wait_held(b, 1);
	cr_assert_eq(b->held->io[0]->op, BLK_FLUSH);
	expect_silence(b);
	blk_end(b->held->io[0], 0);
	expect(b, unique, 0, NULL, 0);
	/* ENOSYS would switch flushes off in the kernel for ever. */
	unique = say(b, FUSE_FSYNC, 3, &in, sizeof in, NULL, 0);
	wait_held(b, 2);
	blk_end(b->held->io[1], -ENOSYS);
	expect(b, unique, -EIO, NULL, 0);
}
Test(loop_fuse, fsync_waits_for_the_flush)
{
	struct bench b = { .body = fsync_waits_for_the_flush };
	bench(&b);
}

static void clears(struct bench *b)
{
	static const struct {
		bool can_discard, discard_zeroes, can_zero;
		uint32_t mode;
		int error, op;
		unsigned flags;
	} cases[] = {
		{ true, true, true, FALLOC_FL_PUNCH_HOLE, 0, BLK_DISCARD, 0 },
		{ true, true, false, FALLOC_FL_PUNCH_HOLE, 0, BLK_DISCARD, 0 },
		/* A discard that need not leave zeroes is not enough: the loop driver also writes zeroes like this. */
		{ true, false, true, FALLOC_FL_PUNCH_HOLE, 0, BLK_ZERO, BLK_MAY_UNMAP },
		{ true, false, false, FALLOC_FL_PUNCH_HOLE, -EOPNOTSUPP, 0, 0 },
		{ false, false, true, FALLOC_FL_PUNCH_HOLE, 0, BLK_ZERO, BLK_MAY_UNMAP },
		{ false, false, true, FALLOC_FL_ZERO_RANGE, 0, BLK_ZERO, 0 },
		{ true, true, false, FALLOC_FL_ZERO_RANGE, -EOPNOTSUPP, 0, 0 },
		{ true, true, true, 0, -EOPNOTSUPP, 0, 0 },
		{ true, true, true, FALLOC_FL_COLLAPSE_RANGE, -EOPNOTSUPP, 0, 0 },
	};
	unsigned count = 0;
	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		struct blk_info *info = &b->held->node.info;
		info->can_discard = cases[i].can_discard;
		info->discard_zeroes = cases[i].discard_zeroes;
		info->can_zero = cases[i].can_zero;
		uint64_t unique = say_fallocate(b, cases[i].mode | FALLOC_FL_KEEP_SIZE, 4096, 8192);
		if (cases[i].error == 0) {
			wait_held(b, ++count);
			struct blk_io *io = b->held->io[count - 1];
			cr_assert_eq((int)io->op, cases[i].op, "case %zu", i);
			cr_assert_eq(io->flags, cases[i].flags, "case %zu", i);
			cr_assert(io->offset == 4096 && io->length == 8192);
			blk_end(io, 0);
		}
		expect(b, unique, cases[i].error, NULL, 0);
	}
}
Test(loop_fuse, clears)
{
	struct bench b = { .body = clears };
	bench(&b);
}

static void end_of_file(struct bench *b)
{
	static char got[1024];
	uint64_t unique = say_read(b, (8 << 20) - 1024, 4096); /* short, as of a file */
	wait_held(b, 1);
	cr_assert_eq(b->held->io[0]->length, 1024);
	blk_end(b->held->io[0], 0);
	expect(b, unique, 0, got, sizeof got);
	expect(b, say_read(b, 8 << 20, 4096), 0, NULL, 0);
	expect(b, say_read(b, UINT64_MAX - 100, 4096), 0, NULL, 0);
	expect(b, say_write(b, 8 << 20, got, 512), -ENOSPC, NULL, 0);
	expect(b, say_fallocate(b, FALLOC_FL_PUNCH_HOLE, 4096, UINT64_MAX - 511), -ENOSPC, NULL, 0);
	expect(b, say_write(b, 100, got, 512), -EINVAL, NULL, 0);
}
Test(loop_fuse, end_of_file)
{
	struct bench b = { .body = end_of_file };
	bench(&b);
}

static void read_only(struct bench *b)
{
	static char data[512];
	struct fuse_open_in open_in = { .flags = O_RDWR };
	expect(b, say(b, FUSE_OPEN, 3, &open_in, sizeof open_in, NULL, 0), -EROFS, NULL, 0);
	expect(b, say_write(b, 0, data, sizeof data), -EROFS, NULL, 0);
	expect(b, say_fallocate(b, FALLOC_FL_PUNCH_HOLE, 0, 512), -EROFS, NULL, 0);
}
Test(loop_fuse, read_only)
{
	struct bench b = { .body = read_only, .read_only = true };
	bench(&b);
}

/* With two requests under way of two, the third waits in the kernel, and comes when one has ended. */
static void pressure_goes_back(struct bench *b)
{
	uint64_t unique[3];
	for (int i = 0; i < 3; i++)
		unique[i] = say_read(b, 0, 512);
	wait_held(b, 2);
	expect_silence(b);
	cr_assert_eq(b->held->count, 2);
	static char got[512];
	for (unsigned i = 0; i < 3; i++) {
		wait_held(b, i == 0 ? 2 : 3);
		blk_end(b->held->io[i], 0);
		expect(b, unique[i], 0, got, sizeof got);
	}
}
Test(loop_fuse, pressure_goes_back)
{
	struct bench b = { .body = pressure_goes_back, .depth = 2 };
	bench(&b);
}

/* Large requests use up the chunks before the requests: the pump waits for them, too. */
static void chunks_run_out(struct bench *b)
{
	static char large[1 << 20];
	uint64_t unique[3];
	for (int i = 0; i < 3; i++)
		unique[i] = say_write(b, 0, large, sizeof large);
	wait_held(b, 1);
	expect_silence(b);
	cr_assert_eq(b->held->count, 1);
	for (unsigned i = 0; i < 3; i++) {
		wait_held(b, i + 1);
		blk_end(b->held->io[i], 0);
		write_answered(b, unique[i], sizeof large);
	}
}
Test(loop_fuse, chunks_run_out)
{
	struct bench b = { .body = chunks_run_out, .depth = 4 };
	bench(&b);
}

static void bad_requests(struct bench *b)
{
	static char data[512];
	struct fuse_write_in lie = { .offset = 0, .size = 1 << 20 };
	expect(b, say(b, FUSE_WRITE, 3, &lie, sizeof lie, data, sizeof data), -EINVAL, NULL, 0);
	lie.size = 0xffffffff;
	expect(b, say(b, FUSE_WRITE, 3, &lie, sizeof lie, data, sizeof data), -EINVAL, NULL, 0);
	expect(b, say(b, FUSE_WRITE, 3, &lie, 8, NULL, 0), -EINVAL, NULL, 0);
	expect(b, say(b, FUSE_READ, 3, &lie, 8, NULL, 0), -EINVAL, NULL, 0);
	expect(b, say(b, FUSE_FALLOCATE, 3, &lie, 8, NULL, 0), -EINVAL, NULL, 0);
	expect(b, say(b, FUSE_FSYNC, 2, &lie, sizeof lie, NULL, 0), -EINVAL, NULL, 0);
	struct fuse_read_in huge = { .offset = 0, .size = 4 << 20 };
	expect(b, say(b, FUSE_READ, 3, &huge, sizeof huge, NULL, 0), -EINVAL, NULL, 0);
	cr_assert_eq(b->held->count, 0);
	cr_assert_eq(b->fuse->chunks_free, b->fuse->chunk_count, "no chunk is lost");
	cr_assert_not(b->gone);
	/* A length that isn't the message's: this is not FUSE. */
	struct fuse_in_header h = { .len = 4000, .opcode = FUSE_GETATTR, .nodeid = 3, .unique = 99 };
	cr_assert_eq(write(b->kernel, &h, sizeof h), (ssize_t)sizeof h);
	for (int i = 0; i < 500 && !b->gone; i++)
		fiber_sleep(&b->env->loop, NS_PER_MS);
	cr_assert(b->gone);
}
Test(loop_fuse, bad_requests)
{
	struct bench b = { .body = bad_requests };
	bench(&b);
}

struct destroy {
	struct bench *bench;
	bool ended;
};

static int destroy_fiber(void *arg)
{
	struct destroy *d = arg;
	loop_fuse_destroy(d->bench->fuse);
	d->ended = true;
	return 0;
}

/* Cutting is at once; freeing waits for the node, which has our buffers. */
static void destroy_waits_for_the_node(struct bench *b)
{
	static char data[512];
	struct destroy d = { .bench = b };
	say_write(b, 0, data, sizeof data);
	wait_held(b, 1);
	struct job done;
	job_init(&done, &b->env->loop);
	job_hold(&done);
	cr_assert_eq(fiber_start(&b->env->loop, destroy_fiber, &d, &done), 0);
	for (int i = 0; i < 5; i++)
		fiber_sleep(&b->env->loop, NS_PER_MS);
	char byte;
	cr_assert_eq(recv(b->kernel, &byte, 1, MSG_DONTWAIT), 0, "the kernel sees the end");
	cr_assert_not(d.ended);
	blk_end(b->held->io[0], 0);
	cr_assert_eq(fiber_wait(&done), 0);
	cr_assert(d.ended);
	b->fuse = NULL;
}
Test(loop_fuse, destroy_waits_for_the_node)
{
	struct bench b = { .body = destroy_waits_for_the_node };
	bench(&b);
}

Test(loop_fuse, limits)
{
	struct blk_node node = { .info = { .max_transfer = 0 } };
	cr_assert_eq(loop_fuse_transfer_max(&node), 1 << 20);
	node.info.max_transfer = 32 << 20;
	cr_assert_eq(loop_fuse_transfer_max(&node), 1 << 20);
	node.info.max_transfer = 70000;
	cr_assert_eq(loop_fuse_transfer_max(&node), 69632);
	node.info.max_transfer = 4095;
	cr_assert_eq(loop_fuse_transfer_max(&node), 0);
	char path[80];
	loop_fuse_path("disk", path);
	cr_assert_str_eq(path, "aquifer/disk");
}
