/* raw: the bytes of a file or block device, as they are.
 *
 * Requests that the file can take as they are go through the merge scheduler without a copy. Others (memory
 * or offsets that O_DIRECT doesn't take, very long iovecs) go through one of a few bounce buffers, with a
 * read-modify-write cycle under the range lock where they cover a device block only partly; so the node's
 * block size is 512 whatever the disk's is.
 *
 * Sizes: a file that isn't a multiple of 512 bytes ends in zeroes up to the next multiple; opening it for
 * writing makes them real. If the device's blocks are larger than 512 and the size isn't a multiple of them,
 * writing through O_DIRECT would change the size, so such a file is written through the page cache.
 *
 * What can go wrong: the file shrinks underneath: reads of what is gone fail with -EIO, never zeroes. */
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/drivers.h"
#include "core/fiber.h"
#include "core/merge.h"
#include "core/plant.h"
#include "formats/image_lock.h"
#include "formats/raw_create.h"

#define RAW_SECTOR 512u
#define RAW_TRANSFER_MAX (32u << 20)
#define RAW_SEGMENTS_MAX 1024 /* what the kernel takes in one request */
#define BOUNCE_BYTES (128u << 10)
#define BOUNCE_COUNT 4
#define CLAIM_ATTEMPTS 20
#define CLAIM_PAUSE_NS (25 * NS_PER_MS)

struct bounce {
	struct link link;
	char *data;
};

struct raw {
	struct blk_node node;
	struct file *file;
	struct file_info info;
	uint32_t align;          /* offset and length of what goes to the file; a power of two */
	struct image_lock lock;
	struct merge merge;
	bool no_punch, no_zero;  /* the file can't: learnt from its refusal */
	struct bounce bounce[BOUNCE_COUNT];
	struct link bounces_free, bounce_waiters;
	uint64_t bounced;
};

/* READ, WRITE as they are:   raw_submit ─────────────────────────▶ raw_direct_done ─┐
 * READ, WRITE by a bounce:   raw_bounce ─▶ _locked ─▶ _chunk ─▶ [_merge ─▶] _copied ─▶ … _end ─▶ raw_settle ─▶ raw_finish
 * DISCARD, ZERO:             raw_clear ─▶ raw_clear_done ─▶ (next way | raw_bounce) ─┘      (sync after FUA)
 * FLUSH, MAP:                raw_submit ─▶ raw_finish */
struct raw_frame {
	struct job job;
	struct raw *raw;
	struct blk_io *io;
	struct merge_io child;
	struct range range;            /* bounce: the request, rounded to whole device blocks */
	struct bounce *bounce;
	struct link link;              /* in bounce_waiters */
	uint64_t position;             /* bounce: bytes of the request done */
	uint64_t chunk_start, chunk_bytes;
	bool loaded;                   /* bounce: the chunk's old content was read */
	struct iovec vec;
	enum { CLEAR_PUNCH, CLEAR_ZERO, CLEAR_WRITE } clear;
};

static void raw_finish(struct job *j);
static void raw_settle(struct job *j);

static void raw_child(struct raw_frame *f, enum file_op op, uint64_t offset, uint64_t length)
{
	f->child = (struct merge_io){ .op = op, .offset = offset, .length = length };
}

/* ---- end of file ---- */

/* 0, or -EIO if a read of `length` at `offset` that brought `done` missed bytes the file had when it was opened. */
static int raw_check_read(const struct raw *r, uint64_t offset, uint64_t length, uint64_t done)
{
	uint64_t there = offset < r->info.size ? MIN(length, r->info.size - offset) : 0;
	if (PLANTED(raw_short_read))
		return 0;
	return done < there ? -EIO : 0;
}

/* ---- the straight way ---- */

static bool raw_fits(const struct raw *r, const struct blk_io *io)
{
	if (r->align == 1 && r->info.memory_align <= 1)
		return io->iov_count <= RAW_SEGMENTS_MAX;
	return (io->offset | io->length) % r->align == 0 && io->iov_count <= RAW_SEGMENTS_MAX &&
	       iov_aligned(io->iov, io->iov_count, MAX(r->info.memory_align, 1u), r->align);
}

static void raw_direct_done(struct job *j)
{
	struct raw_frame *f = container_of(j, struct raw_frame, job);
	struct blk_io *io = f->io;
	if (io->op == BLK_READ && j->status == 0 && f->child.done < io->length) {
		j->status = raw_check_read(f->raw, io->offset, io->length, f->child.done);
		iov_zero(io->iov, io->iov_count, f->child.done, io->length - f->child.done);
	}
	raw_settle(j);
}

static void raw_direct(struct raw_frame *f)
{
	struct blk_io *io = f->io;
	raw_child(f, io->op == BLK_READ ? FILE_READ : FILE_WRITE, io->offset, io->length);
	f->child.iov = io->iov;
	f->child.iov_count = io->iov_count;
	merge_submit(&f->raw->merge, &f->child, &f->job);
	job_then(&f->job, raw_direct_done);
}

/* ---- the way through a bounce buffer, chunk by chunk ---- */

static void raw_bounce_locked(struct job *j);
static void raw_bounce_chunk(struct job *j);
static void raw_bounce_merge(struct job *j);
static void raw_bounce_copied(struct job *j);
static void raw_bounce_end(struct job *j);

static void raw_bounce(struct raw_frame *f)
{
	struct raw *r = f->raw;
	r->bounced++;
	f->position = 0;
	f->range = (struct range){ .start = round_down(f->io->offset, r->align),
				   .end = round_up(f->io->offset + f->io->length, r->align),
				   .exclusive = f->io->op != BLK_READ };
	if (!PLANTED(raw_skip_lock))
		range_acquire(&r->merge.lock, &f->range, &f->job);
	job_then(&f->job, raw_bounce_locked);
}

static void raw_bounce_locked(struct job *j)
{
	struct raw_frame *f = container_of(j, struct raw_frame, job);
	struct link *l = link_pop(&f->raw->bounces_free);
	f->bounce = l ? container_of(l, struct bounce, link) : NULL;
	if (!f->bounce) { /* raw_bounce_end() of another hands its own over */
		job_hold(j);
		link_push(&f->raw->bounce_waiters, &f->link);
	}
	job_then(j, raw_bounce_chunk);
}

static void raw_bounce_io(struct raw_frame *f, enum file_op op)
{
	f->vec = (struct iovec){ f->bounce->data, f->chunk_bytes };
	raw_child(f, op, f->chunk_start, f->chunk_bytes);
	f->child.iov = &f->vec;
	f->child.iov_count = 1;
	f->child.locked = true;
	merge_submit(&f->raw->merge, &f->child, &f->job);
}

/* Bytes of the request in this chunk, and where they begin in it. */
static uint64_t chunk_inner(const struct raw_frame *f, uint64_t *ret_skip)
{
	uint64_t start = f->io->offset + f->position, end = f->io->offset + f->io->length;
	*ret_skip = start - f->chunk_start;
	return MIN(end, f->chunk_start + f->chunk_bytes) - start;
}

static void raw_bounce_chunk(struct job *j)
{
	struct raw_frame *f = container_of(j, struct raw_frame, job);
	struct blk_io *io = f->io;
	if (j->status != 0 || f->position == io->length) {
		raw_bounce_end(j);
		return;
	}
	f->chunk_start = round_down(io->offset + f->position, f->raw->align);
	f->chunk_bytes = MIN(f->range.end - f->chunk_start, BOUNCE_BYTES);
	uint64_t skip, inner = chunk_inner(f, &skip);
	bool whole = skip == 0 && inner == f->chunk_bytes;
	f->loaded = io->op == BLK_READ || !whole;
	if (!f->loaded) {
		raw_bounce_merge(j);
		return;
	}
	raw_bounce_io(f, FILE_READ);
	job_then(j, raw_bounce_merge);
}

/* The chunk's old content is there (if it matters): hand it up, or put the new bytes in and write it. */
static void raw_bounce_merge(struct job *j)
{
	struct raw_frame *f = container_of(j, struct raw_frame, job);
	struct blk_io *io = f->io;
	uint64_t skip, inner = chunk_inner(f, &skip);
	if (f->loaded && j->status == 0 && f->child.done < f->chunk_bytes) {
		j->status = raw_check_read(f->raw, f->chunk_start, f->chunk_bytes, f->child.done);
		memset(f->bounce->data + f->child.done, 0, f->chunk_bytes - f->child.done);
	}
	if (j->status == 0 && io->op == BLK_READ)
		iov_scatter(io->iov, io->iov_count, f->position, f->bounce->data + skip, inner);
	if (j->status == 0 && io->op == BLK_WRITE)
		iov_gather(io->iov, io->iov_count, f->position, f->bounce->data + skip, inner);
	if (j->status == 0 && io->op > BLK_WRITE)
		memset(f->bounce->data + skip, 0, inner);
	if (j->status == 0 && io->op != BLK_READ)
		raw_bounce_io(f, FILE_WRITE);
	job_then(j, raw_bounce_copied);
}

static void raw_bounce_copied(struct job *j)
{
	struct raw_frame *f = container_of(j, struct raw_frame, job);
	uint64_t skip;
	f->position += chunk_inner(f, &skip);
	raw_bounce_chunk(j);
}

static void raw_bounce_end(struct job *j)
{
	struct raw_frame *f = container_of(j, struct raw_frame, job);
	struct raw *r = f->raw;
	struct link *l = link_pop(&r->bounce_waiters);
	if (l) {
		struct raw_frame *next = container_of(l, struct raw_frame, link);
		next->bounce = f->bounce;
		job_put(&next->job, 0);
	} else {
		link_push(&r->bounces_free, &f->bounce->link);
	}
	if (!PLANTED(raw_skip_lock))
		range_release(&r->merge.lock, &f->range);
	raw_settle(j);
}

/* ---- discard and zero: punch a hole, else let the file write zeroes, else write them ---- */

static bool raw_unsupported(int status)
{
	return status == -EOPNOTSUPP || status == -ENOSYS || status == -EINVAL || status == -ENODEV;
}

static void raw_clear_done(struct job *j);

static void raw_clear(struct raw_frame *f)
{
	struct raw *r = f->raw;
	struct blk_io *io = f->io;
	uint32_t granule = r->info.is_block_device ? MAX(r->info.io_align, RAW_SECTOR) : 1;
	uint64_t start = io->offset, end = io->offset + io->length;
	bool advisory = io->op == BLK_DISCARD && !r->node.info.discard_zeroes;
	if (advisory) {
		start = round_up(start, granule);
		end = round_down(end, granule);
	}
	if (f->clear == CLEAR_PUNCH && (r->no_punch || (start | end) % granule))
		f->clear = CLEAR_ZERO;
	if (advisory && (f->clear != CLEAR_PUNCH || start >= end)) {
		raw_settle(&f->job); /* a discard may do nothing */
		return;
	}
	bool fast_only = io->op == BLK_ZERO && (io->flags & BLK_FAST_ONLY);
	if (f->clear == CLEAR_ZERO && (r->no_zero || (start | end) % granule || (fast_only && r->info.is_block_device)))
		f->clear = CLEAR_WRITE;
	if (f->clear == CLEAR_WRITE && fast_only) {
		f->job.status = -ENOTSUP;
		raw_settle(&f->job);
		return;
	}
	if (f->clear == CLEAR_WRITE) {
		raw_bounce(f);
		return;
	}
	raw_child(f, f->clear == CLEAR_PUNCH ? FILE_DISCARD : FILE_ZERO, start, end - start);
	merge_submit(&r->merge, &f->child, &f->job);
	job_then(&f->job, raw_clear_done);
}

static void raw_clear_done(struct job *j)
{
	struct raw_frame *f = container_of(j, struct raw_frame, job);
	if (!raw_unsupported(j->status)) {
		raw_settle(j);
		return;
	}
	*(f->clear == CLEAR_PUNCH ? &f->raw->no_punch : &f->raw->no_zero) = true;
	f->clear = f->clear == CLEAR_PUNCH ? CLEAR_ZERO : CLEAR_WRITE;
	j->status = 0;
	raw_clear(f);
}

/* ---- allocation map ---- */

static void map_add(struct blk_map *map, uint64_t length, uint32_t flags)
{
	if (map->count > 0 && map->extents[map->count - 1].flags == flags)
		map->extents[map->count - 1].length += length;
	else
		map->extents[map->count++] = (struct blk_extent){ length, flags };
}

/* FIBER of its own: asking the file system blocks. */
static int raw_map(void *arg)
{
	struct raw_frame *f = arg;
	struct blk_io *io = f->io;
	struct blk_map *map = io->map;
	uint64_t done = 0;
	map->count = 0;
	while (done < io->length && map->count < map->max) {
		uint64_t n;
		bool data;
		int r = file_map(f->raw->file, io->offset + done, io->length - done, &n, &data);
		if (r < 0)
			return r;
		data |= n < RAW_SECTOR; /* the odd end of a file */
		n = MIN(data ? round_up(n, RAW_SECTOR) : round_down(n, RAW_SECTOR), io->length - done);
		map_add(map, n, data ? BLK_EXTENT_DATA : BLK_EXTENT_HOLE | BLK_EXTENT_ZERO);
		done += n;
	}
	return 0;
}

static void raw_map_start(struct raw_frame *f)
{
	job_hold(&f->job);
	int r = fiber_start(f->raw->node.loop, raw_map, f, &f->job);
	if (r < 0)
		job_put(&f->job, r);
	job_then(&f->job, raw_finish);
}

/* ---- requests ---- */

static void raw_submit(struct blk_node *node, struct blk_io *io)
{
	struct raw *r = container_of(node, struct raw, node);
	struct raw_frame *f = blk_frame_get(node);
	job_init(&f->job, node->loop);
	f->raw = r;
	f->io = io;
	f->child.locked = false;
	switch (io->op) {
	case BLK_READ:
	case BLK_WRITE:
		if (raw_fits(r, io))
			raw_direct(f);
		else
			raw_bounce(f);
		break;
	case BLK_FLUSH:
		raw_child(f, FILE_SYNC, 0, 0);
		merge_submit(&r->merge, &f->child, &f->job);
		job_then(&f->job, raw_finish);
		break;
	case BLK_DISCARD:
	case BLK_ZERO:
		f->clear = io->op == BLK_DISCARD || (io->flags & BLK_MAY_UNMAP) ? CLEAR_PUNCH : CLEAR_ZERO;
		raw_clear(f);
		break;
	case BLK_MAP:
		raw_map_start(f);
		break;
	case BLK_OP_COUNT:
		abort();
	}
}

/* The last step but one of everything that has changed or read the file. */
static void raw_settle(struct job *j)
{
	struct raw_frame *f = container_of(j, struct raw_frame, job);
	if (j->status == 0 && f->io->op != BLK_READ && (f->io->flags & BLK_FUA) && !PLANTED(raw_fua_lost)) {
		raw_child(f, FILE_SYNC, 0, 0);
		merge_submit(&f->raw->merge, &f->child, j);
	}
	job_then(j, raw_finish);
}

static void raw_finish(struct job *j)
{
	struct raw_frame *f = container_of(j, struct raw_frame, job);
	struct blk_node *node = &f->raw->node;
	struct blk_io *io = f->io;
	int status = j->status;
	blk_frame_put(node, f);
	blk_end(io, status);
}

/* ---- opening ---- */

static int raw_bounces_make(struct raw *r)
{
	link_init(&r->bounces_free);
	link_init(&r->bounce_waiters);
	for (unsigned i = 0; i < BOUNCE_COUNT; i++) {
		r->bounce[i].data = env_alloc_aligned(BOUNCE_BYTES);
		if (!r->bounce[i].data)
			return -ENOMEM;
		link_push(&r->bounces_free, &r->bounce[i].link);
	}
	return 0;
}

static void raw_free(struct raw *r)
{
	for (unsigned i = 0; i < BOUNCE_COUNT; i++)
		free(r->bounce[i].data);
	merge_destroy(&r->merge);
}

/* FIBER. Makes the zeroes behind an odd size real. */
static int raw_pad(struct raw *r, uint64_t size)
{
	struct file_io io = { .op = FILE_TRUNCATE, .offset = size };
	struct job j;
	job_init(&j, r->node.loop);
	file_submit(r->file, &io, &j);
	int status = fiber_wait(&j);
	return status < 0 ? status : file_stat(r->file, &r->info);
}

/* FIBER. Can the file be punched? Tried behind its end, where nothing changes. */
static bool raw_can_punch(struct raw *r)
{
	struct file_io io = { .op = FILE_DISCARD, .offset = round_up(r->info.size, 65536), .length = 65536 };
	struct job j;
	job_init(&j, r->node.loop);
	file_submit(r->file, &io, &j);
	return fiber_wait(&j) == 0;
}

/* FIBER. Reads the first bytes, so that what can't be read is refused at once. */
static int raw_probe(struct raw *r)
{
	void *p = r->bounce[0].data;
	size_t done;
	return file_read_wait(r->file, p, MAX(r->align, 4096u), 0, &done);
}

/* FIBER. */
static int raw_open_file(struct raw *r, const char *path, bool direct, bool read_only, struct report *report)
{
	int flags = (direct ? FILE_OPEN_DIRECT : 0) | (read_only ? 0 : FILE_OPEN_WRITE);
	int status = file_open(r->node.env, path, flags, &r->file);
	if (status == -EROFS || status == -EACCES || status == -EPERM)
		return report_set(report, status, "open %s: %s%s", path, strerror(-status),
				  read_only ? "" : " (check its permissions, or open it read-only)");
	if (status < 0)
		return report_path(report, status, "open", path);
	status = file_stat(r->file, &r->info);
	if (status < 0) {
		report_set(report, status, "%s: %s", path, strerror(-status));
		file_close(r->node.env, r->file);
	}
	return status;
}

/* FIBER. Who has just ended may have given back his lock and not yet his claim. */
static int raw_claim(struct raw *r)
{
	int status;
	for (unsigned i = 0; (status = file_claim(r->file)) == -EBUSY && i < CLAIM_ATTEMPTS; i++)
		if (fiber_sleep(r->node.loop, CLAIM_PAUSE_NS) < 0)
			break;
	return status;
}

/* FIBER. Everything that needs the lock. */
static int raw_prepare(struct raw *r, const char *path, bool read_only, struct report *report)
{
	int status = read_only ? 0 : raw_claim(r);
	if (status == -EBUSY)
		return report_set(report, status, "%s is mounted, or a part of another device (lsblk shows of what; end that first, or open it read-only)", path);
	if (status == 0)
		status = file_stat(r->file, &r->info); /* again: now nobody else changes it */
	r->align = MAX(r->info.io_align, 1u);
	if (status == 0 && r->info.size == 0)
		return report_set(report, -EINVAL, "%s is empty (give it a size: aquifer image create raw, or truncate -s)", path);
	if (status == 0 && r->align > BOUNCE_BYTES)
		return report_set(report, -ENOTSUP, "%s wants %u-byte blocks (try direct=off)", path, r->align);
	if (status == 0)
		status = raw_probe(r);
	if (status == 0 && !read_only && r->info.size % RAW_SECTOR)
		status = raw_pad(r, round_up(r->info.size, RAW_SECTOR));
	if (status < 0)
		return report_set(report, status, "%s: %s", path, strerror(-status));
	r->no_punch = !read_only && !r->info.is_block_device && !raw_can_punch(r);
	return 0;
}

static void raw_describe_info(struct raw *r, bool read_only)
{
	r->node.info = (struct blk_info){
		.size = round_up(r->info.size, RAW_SECTOR),
		.block_size = RAW_SECTOR,
		.preferred_size = MAX(r->align, 4096u),
		.memory_align = MAX(r->info.memory_align, 1u),
		.max_transfer = RAW_TRANSFER_MAX,
		.read_only = read_only,
		.can_discard = !read_only && !r->no_punch,
		.discard_zeroes = !read_only && !r->no_punch && !r->info.is_block_device,
		.can_zero = !read_only,
		.can_map = !r->info.is_block_device,
		.multi_client = true,
	};
}

static int raw_open(struct blk_node *node, const struct blk_open *how, struct report *report)
{
	struct raw *r = container_of(node, struct raw, node);
	const char *path = option_string(how->options, "file");
	bool direct = option_bool(how->options, "direct");
	int status = raw_open_file(r, path, direct, how->read_only, report);
	if (status < 0)
		return status;
	uint64_t padded = round_up(r->info.size, RAW_SECTOR);
	if (r->info.direct && !how->read_only && padded % MAX(r->info.io_align, 1u)) {
		file_close(node->env, r->file); /* see the top of the file */
		status = raw_open_file(r, path, /* direct= */ false, how->read_only, report);
		if (status < 0)
			return status;
	}
	struct image_lock_who who = { .holder = how->holder, .pid = how->pid, .force = how->force };
	status = image_lock_take(node->env, how->root, r->file, path, !how->read_only, &who, &r->lock, report);
	if (status < 0)
		goto err_after_open;
	struct merge_limits limits = MERGE_LIMITS_DEFAULT;
	if (!option_bool(how->options, "merge"))
		limits.bytes_max = limits.hold_bytes_max = 0;
	status = raw_bounces_make(r);
	if (status == 0)
		status = merge_init(&r->merge, node->env, r->file, &limits);
	if (status < 0) {
		report_set(report, status, "%s: no memory for its buffers", path);
		goto err_after_lock;
	}
	status = raw_prepare(r, path, how->read_only, report);
	if (status < 0)
		goto err_after_lock;
	raw_describe_info(r, how->read_only);
	return 0;
err_after_lock:
	raw_free(r);
	image_lock_release(node->env, &r->lock);
err_after_open:
	file_close(node->env, r->file);
	return status;
}

static int raw_close(struct blk_node *node)
{
	struct raw *r = container_of(node, struct raw, node);
	raw_free(r);
	image_lock_release(node->env, &r->lock);
	return file_close(node->env, r->file);
}

static void raw_describe(struct blk_node *node, void (*item)(void *arg, const char *key, uint64_t value), void *arg)
{
	const struct raw *r = container_of(node, struct raw, node);
	const struct merge_counters *c = &r->merge.counters;
	item(arg, "direct", r->info.direct);
	item(arg, "requests_in", c->requests_in);
	item(arg, "requests_out", c->requests_out);
	item(arg, "syncs_in", c->syncs_in);
	item(arg, "syncs_out", c->syncs_out);
	item(arg, "held", c->held);
	item(arg, "split", c->split);
	item(arg, "bounced", r->bounced);
}

static const struct option_spec raw_options[] = {
	{ "direct", OPTION_BOOL, .help = "bypass the page cache (default on)", .number_default = 1 },
	{ "file", OPTION_STRING, .positional = true, .required = true, .help = "the file or block device" },
	{ "merge", OPTION_BOOL, .help = "merge neighbouring requests (default on)", .number_default = 1 },
	{ NULL },
};

const struct blk_driver driver_raw = {
	.name = "raw",
	.summary = "a file or block device, byte for byte",
	.options = raw_options,
	.node_size = sizeof(struct raw),
	.frame_size = sizeof(struct raw_frame),
	.open = raw_open,
	.close = raw_close,
	.submit = raw_submit,
	.describe = raw_describe,
	.create = raw_create,
};
