/* FUSE requests and what becomes of them.
 *
 *   LOOKUP OPEN GETATTR STATFS …   answered at once, from constants: the file never changes its
 *                                  name or size, so the kernel may cache them for ever
 *   READ WRITE FSYNC FALLOCATE     a blk_io each; the answer goes out from its completion
 *
 * Promises: a request's buffer is its own from reception to answer, however many others
 * come and go meanwhile; FSYNC is answered when the node's flush has ended, never before;
 * PUNCH_HOLE is answered with success only where the hole reads as zeroes afterwards,
 * because the loop driver uses it both for discard and for write-zeroes. */
#include "agent/exports/loop_request.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/plant.h"

/* Newer than Debian 12's header: */
#ifndef FOPEN_PARALLEL_DIRECT_WRITES
#define FOPEN_PARALLEL_DIRECT_WRITES (1 << 6)
#endif

enum { INODE_ROOT = FUSE_ROOT_ID, INODE_DIR, INODE_FILE };
#define DIR_NAME "aquifer"
#define FOR_EVER_S UINT64_C(1000000000) /* how long the kernel may cache names and attributes */

/* The tree is /aquifer/NAME: what losetup shows as the backing file. */
void loop_fuse_path(const char *name, char *ret_path) { snprintf(ret_path, 80, DIR_NAME "/%.63s", name); }

/* ---- answers ---- */

/* Some errors would be taken for something else: the kernel remembers ENOSYS and never flushes
 * again; it would retry EAGAIN and EINTR; it refuses an answer with its internal numbers. */
static int wire_error(int status)
{
	if (status == -ENOSYS || status == -EAGAIN || status == -EINTR || status <= -512)
		return -EIO;
	return status;
}

/* ENOENT: the asker went away. ENODEV: the connection ended. Both need nothing from us. */
static void answer_iov(struct loop_fuse *f, const struct iovec *iov, int count)
{
	if (f->fd < 0)
		return;
	while (writev(f->fd, iov, count) < 0 && errno == EINTR)
		;
}

static void answer(struct loop_fuse *f, uint64_t unique, int status, const void *data, size_t bytes)
{
	if (status < 0)
		bytes = 0;
	struct fuse_out_header h = { .len = (uint32_t)(sizeof h + bytes), .error = status, .unique = unique };
	struct iovec iov[2] = { { &h, sizeof h }, { (void *)(uintptr_t)data, bytes } };
	answer_iov(f, iov, bytes ? 2 : 1);
}

/* ---- requests answered at once ---- */

/* Copies what follows the header, which may reach into the first chunk; pads with zeroes. */
static void body_copy(struct loop_fuse *f, size_t body_bytes, void *to, size_t bytes)
{
	size_t in_head = LOOP_HEAD_BYTES - sizeof(struct fuse_in_header);
	size_t n = MIN(bytes, body_bytes);
	memset(to, 0, bytes);
	memcpy(to, f->head + sizeof(struct fuse_in_header), MIN(n, in_head));
	if (n > in_head)
		memcpy((char *)to + in_head, f->chunks[f->chunks_free - 1], n - in_head);
}

static uint32_t granularity(const struct loop_fuse *f)
{
	uint32_t want = MAX(f->node->info.preferred_size, f->node->info.block_size);
	return is_power_of_two(want) ? MIN(MAX(want, 512), 1u << 20) : 4096;
}

static struct fuse_attr attributes(const struct loop_fuse *f, uint64_t inode)
{
	struct fuse_attr a = { .ino = inode, .nlink = 1, .blksize = granularity(f) };
	a.mode = inode == INODE_FILE ? S_IFREG | 0600 : S_IFDIR | 0700;
	if (inode == INODE_FILE) {
		a.size = f->node->info.size;
		a.blocks = a.size / 512;
	}
	return a;
}

static int take_init(struct loop_fuse *f, uint64_t unique, size_t body_bytes)
{
	struct fuse_init_in in;
	body_copy(f, body_bytes, &in, sizeof in);
	/* 7.28 is Linux 4.20, which brought requests of more than 128 KiB. */
	if (in.major != FUSE_KERNEL_VERSION || in.minor < 28 || !(in.flags & FUSE_MAX_PAGES)) {
		answer(f, unique, -EPROTO, NULL, 0);
		return -EPROTO;
	}
	struct fuse_init_out out = {
		.major = FUSE_KERNEL_VERSION,
		.minor = MIN(in.minor, FUSE_KERNEL_MINOR_VERSION),
		.max_readahead = in.max_readahead,
		.flags = in.flags & (FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO | FUSE_MAX_PAGES),
		/* Direct I/O of a loop device is "background" to FUSE: let all of it come. */
		.max_background = (uint16_t)MIN(f->depth, UINT16_MAX),
		.congestion_threshold = (uint16_t)MIN(f->depth, UINT16_MAX),
		.max_write = f->transfer_max,
		.time_gran = 1,
		.max_pages = (uint16_t)(f->transfer_max / 4096),
	};
	answer(f, unique, 0, &out, sizeof out);
	return 0;
}

static void take_lookup(struct loop_fuse *f, const struct fuse_in_header *h, size_t body_bytes)
{
	char name[256];
	body_copy(f, body_bytes, name, sizeof name);
	name[sizeof name - 1] = 0;
	uint64_t inode = 0;
	if (h->nodeid == INODE_ROOT && strcmp(name, DIR_NAME) == 0)
		inode = INODE_DIR;
	else if (h->nodeid == INODE_DIR && strcmp(name, f->name) == 0)
		inode = INODE_FILE;
	struct fuse_entry_out out = { .nodeid = inode, .generation = 1, .entry_valid = FOR_EVER_S,
				      .attr_valid = FOR_EVER_S, .attr = attributes(f, inode) };
	answer(f, h->unique, inode ? 0 : -ENOENT, &out, sizeof out);
}

static void take_getattr(struct loop_fuse *f, const struct fuse_in_header *h)
{
	struct fuse_attr_out out = { .attr_valid = FOR_EVER_S, .attr = attributes(f, h->nodeid) };
	answer(f, h->unique, 0, &out, sizeof out);
}

/* FOPEN_DIRECT_IO: nothing of the file is ever in the page cache, whoever opens it and however, so
 * there is no second copy that could be stale. Without FOPEN_PARALLEL_DIRECT_WRITES the kernel
 * would take the inode's lock exclusively for each write. */
static void take_open(struct loop_fuse *f, const struct fuse_in_header *h, size_t body_bytes)
{
	struct fuse_open_in in;
	body_copy(f, body_bytes, &in, sizeof in);
	int status = 0;
	if (h->nodeid != INODE_FILE)
		status = -EISDIR;
	else if (f->read_only && (in.flags & O_ACCMODE) != O_RDONLY)
		status = -EROFS;
	struct fuse_open_out out = { .open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES };
	answer(f, h->unique, status, &out, sizeof out);
}

/* The loop driver takes f_bsize for the granularity of discards. */
static void take_statfs(struct loop_fuse *f, const struct fuse_in_header *h)
{
	uint32_t unit = granularity(f);
	struct fuse_statfs_out out = { .st = { .bsize = unit, .frsize = unit, .namelen = 255,
					       .blocks = f->node->info.size / unit } };
	answer(f, h->unique, 0, &out, sizeof out);
}

/* ---- requests for the node ---- */

int loop_chunks_iov(const struct loop_fuse *f, uint64_t bytes, struct iovec *ret_iov)
{
	int count = 0;
	for (unsigned i = 1; bytes; i++) {
		char *chunk = f->chunks[f->chunks_free - i];
		size_t n = MIN(bytes, LOOP_CHUNK_BYTES);
		if (count && (char *)ret_iov[count - 1].iov_base + ret_iov[count - 1].iov_len == chunk)
			ret_iov[count - 1].iov_len += n;
		else
			ret_iov[count++] = (struct iovec){ chunk, n };
		bytes -= n;
	}
	return count;
}

static void chunks_take(struct loop_request *r, uint64_t bytes)
{
	r->iov_count = loop_chunks_iov(r->fuse, bytes, r->iov + 1);
	r->fuse->chunks_free -= (unsigned)div_up(bytes, LOOP_CHUNK_BYTES);
}

/* In the opposite order, so that neighbours stay neighbours on the stack. */
static void chunks_give(struct loop_request *r)
{
	struct loop_fuse *f = r->fuse;
	for (; r->iov_count; r->iov_count--) {
		struct iovec *v = &r->iov[r->iov_count];
		for (uint64_t n = div_up(v->iov_len, LOOP_CHUNK_BYTES); n > 0; n--)
			f->chunks[f->chunks_free++] = (char *)v->iov_base + (n - 1) * LOOP_CHUNK_BYTES;
	}
}

static void request_done(struct job *job)
{
	struct loop_request *r = container_of(job, struct loop_request, job);
	struct loop_fuse *f = r->fuse;
	int status = wire_error(job->status);
	size_t bytes = sizeof r->out.header;
	int count = 1;
	if (status == 0 && r->opcode == FUSE_READ) {
		bytes += r->io.length;
		count += r->iov_count;
	} else if (status == 0 && r->opcode == FUSE_WRITE) {
		r->out.write.size = (uint32_t)r->io.length;
		bytes += sizeof r->out.write;
	}
	r->out.header.error = status;
	r->out.header.len = (uint32_t)bytes;
	r->iov[0].iov_base = &r->out;
	r->iov[0].iov_len = r->opcode == FUSE_READ ? sizeof r->out.header : bytes;
	answer_iov(f, r->iov, count);
	chunks_give(r);
	link_push_front(&f->requests_free, &r->link);
	f->in_flight--;
	loop_fuse_released(f);
}

/* `status` not 0: the request is answered with it. */
static void request_start(struct loop_request *r, int status)
{
	struct loop_fuse *f = r->fuse;
	job_init(&r->job, &f->env->loop);
	r->job.status = status;
	if (status == 0)
		blk_submit(f->node, &r->io, &r->job);
	if (PLANTED(loop_buffer_early) && r->opcode == FUSE_WRITE)
		chunks_give(r);
	job_then(&r->job, request_done);
}

static void take_read(struct loop_request *r)
{
	struct loop_fuse *f = r->fuse;
	struct fuse_read_in in;
	memcpy(&in, f->head + sizeof(struct fuse_in_header), sizeof in);
	uint64_t size = f->node->info.size;
	uint64_t length = in.offset < size ? MIN(in.size, size - in.offset) : 0;
	int status = length > f->transfer_max ? -EINVAL : 0;
	chunks_take(r, status ? 0 : length);
	r->io = (struct blk_io){ .op = BLK_READ, .offset = in.offset, .length = status ? 0 : length,
				 .iov = r->iov + 1, .iov_count = r->iov_count };
	if (status == 0 && length == 0)
		r->io.offset = 0; /* at or behind the end: an empty answer, which is no error */
	request_start(r, status);
}

static void take_write(struct loop_request *r, size_t body_bytes)
{
	struct loop_fuse *f = r->fuse;
	struct fuse_write_in in;
	memcpy(&in, f->head + sizeof(struct fuse_in_header), sizeof in);
	int status = 0;
	if (body_bytes < sizeof in || in.size != body_bytes - sizeof in || in.size > f->transfer_max)
		status = -EINVAL;
	else if (f->read_only)
		status = -EROFS;
	chunks_take(r, status ? 0 : in.size);
	r->io = (struct blk_io){ .op = BLK_WRITE, .offset = in.offset, .length = status ? 0 : in.size,
				 .iov = r->iov + 1, .iov_count = r->iov_count };
	request_start(r, status);
}

static void take_fsync(struct loop_request *r)
{
	r->io = (struct blk_io){ .op = BLK_FLUSH };
	if (PLANTED(loop_flush_ignored))
		r->io = (struct blk_io){ .op = BLK_DISCARD };
	request_start(r, 0);
}

/* Discard where that leaves zeroes, else zeroes that may deallocate; -EOPNOTSUPP where the node can do
 * neither: the kernel then stops offering it, and write-zeroes turns into ordinary writes. */
static int fallocate_op(const struct loop_fuse *f, uint32_t mode, enum blk_op *ret_op, unsigned *ret_flags)
{
	const struct blk_info *info = &f->node->info;
	mode &= ~(uint32_t)FALLOC_FL_KEEP_SIZE;
	*ret_op = BLK_ZERO;
	*ret_flags = 0;
	if (mode == FALLOC_FL_PUNCH_HOLE && info->can_discard && info->discard_zeroes)
		*ret_op = BLK_DISCARD;
	else if (mode == FALLOC_FL_PUNCH_HOLE && info->can_zero)
		*ret_flags = BLK_MAY_UNMAP;
	else if (mode != FALLOC_FL_ZERO_RANGE || !info->can_zero)
		return -EOPNOTSUPP;
	return 0;
}

static void take_fallocate(struct loop_request *r)
{
	struct loop_fuse *f = r->fuse;
	struct fuse_fallocate_in in;
	memcpy(&in, f->head + sizeof(struct fuse_in_header), sizeof in);
	enum blk_op op = BLK_ZERO;
	unsigned flags = 0;
	int status = f->read_only ? -EROFS : fallocate_op(f, in.mode, &op, &flags);
	r->io = (struct blk_io){ .op = op, .flags = flags, .offset = in.offset, .length = in.length };
	request_start(r, status);
}

static size_t body_minimum(uint32_t opcode)
{
	switch (opcode) {
	case FUSE_READ: return sizeof(struct fuse_read_in);
	case FUSE_WRITE: return sizeof(struct fuse_write_in);
	case FUSE_FALLOCATE: return sizeof(struct fuse_fallocate_in);
	case FUSE_FSYNC: return sizeof(struct fuse_fsync_in);
	default: return 0;
	}
}

static void request_take(struct loop_fuse *f, const struct fuse_in_header *h, size_t body_bytes)
{
	struct loop_request *r = container_of(link_pop(&f->requests_free), struct loop_request, link);
	f->in_flight++;
	r->opcode = h->opcode;
	r->iov_count = 0;
	r->out.header.unique = h->unique;
	if (body_bytes < body_minimum(h->opcode) || h->nodeid != INODE_FILE)
		request_start(r, -EINVAL);
	else if (h->opcode == FUSE_READ)
		take_read(r);
	else if (h->opcode == FUSE_WRITE)
		take_write(r, body_bytes);
	else if (h->opcode == FUSE_FSYNC)
		take_fsync(r);
	else
		take_fallocate(r);
}

int loop_request_take(struct loop_fuse *f, size_t bytes)
{
	struct fuse_in_header h;
	if (bytes < sizeof h)
		return -EPROTO;
	memcpy(&h, f->head, sizeof h);
	if (h.len != bytes)
		return -EPROTO;
	size_t body_bytes = bytes - sizeof h;
	switch (h.opcode) {
	case FUSE_READ:
	case FUSE_WRITE:
	case FUSE_FSYNC:
	case FUSE_FALLOCATE: request_take(f, &h, body_bytes); break;
	case FUSE_INIT: return take_init(f, h.unique, body_bytes);
	case FUSE_LOOKUP: take_lookup(f, &h, body_bytes); break;
	case FUSE_GETATTR: take_getattr(f, &h); break;
	case FUSE_OPEN: take_open(f, &h, body_bytes); break;
	case FUSE_STATFS: take_statfs(f, &h); break;
	case FUSE_RELEASE:
	case FUSE_DESTROY: answer(f, h.unique, 0, NULL, 0); break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT: break; /* these have no answer; I/O under way ends by itself */
	default: answer(f, h.unique, -ENOSYS, NULL, 0); /* the kernel then does without, for good */
	}
	return 0;
}
