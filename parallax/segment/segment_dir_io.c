/* The data path of a data directory: reads, appends, syncs, as jobs.
 *
 *     append ─▶ accepted (in order) ─▶ written, several at once, any order ─▶ answered, in order
 *
 *     length ≤ accepted; [length, accepted) is being written. When a write fails, it and all
 *     behind it fail; what was answered before stays good, so the copy isn't broken.
 *
 * Buffers go to the disk as they are if they are aligned; others are copied. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/segment/segment_dir.h"

bool copy_ready(const struct copy *c, enum segment_op op)
{
	if (c->deleting || c->opening || !link_empty(&c->waiting) || !c->loaded || !c->file)
		return false;
	return op == SEGMENT_READ || c->scanned;
}

/* Lets the file I/O use the caller's memory, or a copy of it. */
static int frame_vectors(struct dir_frame *f)
{
	const struct segment_io *io = f->io;
	size_t bytes = (size_t)io->blocks * BLOCK_BYTES;
	f->file_io.iov = io->iov;
	f->file_io.iov_count = io->iov_count;
	if (iov_aligned(io->iov, io->iov_count, f->copy->info.memory_align, f->copy->info.io_align))
		return 0;
	f->bounce = env_alloc_aligned(bytes);
	if (!f->bounce)
		return -ENOMEM;
	if (io->op != SEGMENT_READ)
		iov_gather(io->iov, io->iov_count, 0, f->bounce, bytes);
	f->bounce_vec = (struct iovec){ f->bounce, bytes };
	f->file_io.iov = &f->bounce_vec;
	f->file_io.iov_count = 1;
	return 0;
}

static bool io_sound(const struct segment_io *io, uint32_t size_blocks)
{
	return range_within(io->block, io->blocks, size_blocks) && io->blocks &&
	       iov_bytes(io->iov, io->iov_count) == (uint64_t)io->blocks * BLOCK_BYTES;
}

/* ---- read ---- */

static void read_done(struct job *j)
{
	struct dir_frame *f = container_of(j, struct dir_frame, job);
	int r = f->file_io.status;
	size_t bytes = (size_t)f->io->blocks * BLOCK_BYTES;
	if (r == 0 && f->file_io.done < bytes)
		r = -EINVAL; /* beyond what there is */
	if (r == 0 && f->bounce)
		iov_scatter(f->io->iov, f->io->iov_count, 0, f->bounce, bytes);
	copy_busy_end(f->copy);
	dir_frame_end(f, r);
}

void copy_read_start(struct dir_frame *f)
{
	struct copy *c = f->copy;
	struct segment_io *io = f->io;
	int r = c->exists ? 0 : -ENOENT;
	if (r == 0 && !io_sound(io, c->slot.header.size_blocks))
		r = -EINVAL;
	if (r == 0)
		r = copy_find(c, io->block, io->blocks, &f->file_io.offset);
	if (r == 0)
		r = frame_vectors(f);
	if (r < 0) {
		dir_frame_end(f, r);
		return;
	}
	c->busy++;
	f->file_io.op = FILE_READ;
	f->file_io.length = (uint64_t)io->blocks * BLOCK_BYTES;
	file_submit(c->file, &f->file_io, &f->job);
	job_then(&f->job, read_done);
}

/* ---- append ---- */

/* Checks the records in an append against the chain and notes their checksums. */
static int append_records(struct dir_frame *f)
{
	struct copy *c = f->copy;
	struct segment_io *io = f->io;
	uint32_t crc = c->accepted_crc;
	uint64_t seq = c->accepted_seq;
	uint8_t *scratch = NULL;
	int r = 0;
	for (uint32_t at = 0; at < io->blocks && r == 0;) {
		struct record rec;
		size_t left = (size_t)(io->blocks - at) * BLOCK_BYTES, have = BLOCK_BYTES;
		const uint8_t *bytes = NULL;
		if (at == 0 && io->iov[0].iov_len >= BLOCK_BYTES) {
			bytes = io->iov[0].iov_base;
			have = round_down(MIN(left, io->iov[0].iov_len), BLOCK_BYTES);
		}
		for (r = -EAGAIN; r == -EAGAIN && have <= left;) {
			if (!bytes) {
				free(scratch);
				scratch = malloc(have);
				if (!scratch)
					return -ENOMEM;
				iov_gather(io->iov, io->iov_count, (uint64_t)at * BLOCK_BYTES, scratch, have);
			}
			r = record_decode(bytes ? bytes : scratch, have, &c->slot.header, io->block + at, &rec);
			if (r == -EAGAIN) {
				have = (size_t)rec.header_blocks * BLOCK_BYTES;
				bytes = NULL;
			}
		}
		if (r == 0 && (record_blocks(&rec) > io->blocks - at || (seq && (rec.prev != crc || rec.seq != seq + 1))))
			r = -EBADMSG;
		if (r < 0)
			break;
		for (uint32_t i = 0; c->crcs && i < rec.header_blocks; i++)
			c->crcs[rec.block + i] = crc32c(0, rec.bytes + (size_t)i * BLOCK_BYTES, BLOCK_BYTES);
		for (uint32_t i = 0; c->crcs && i < rec.payload_blocks; i++)
			c->crcs[rec.block + rec.header_blocks + i] = record_crc_at(&rec, i);
		crc = rec.header_crc;
		seq = rec.seq;
		at += record_blocks(&rec);
	}
	free(scratch);
	f->last_crc = crc;
	f->last_seq = seq;
	return r == -ENODATA || r == -EAGAIN ? -EBADMSG : r;
}

static int append_check(const struct copy *c, const struct segment_io *io)
{
	if (!c->exists)
		return -ENOENT;
	if (c->fenced_epoch > io->epoch && !PLANTED(segment_no_fence_check))
		return -EPERM;
	if (c->slot.generation == 0)
		return -ESTALE; /* both slots are damaged: whose it is isn't known, which is no reason to take the volume from its owner */
	if (c->slot.header.epoch != io->epoch)
		return -EPERM; /* one writer, one epoch, for ever */
	if (c->slot.sealed || c->sealing)
		return -EROFS;
	if (io->incarnation != c->dir->state.incarnation || copy_state(c) != COPY_WHOLE)
		return -ESTALE;
	if (!io_sound(io, c->slot.header.size_blocks) || io->block > c->accepted)
		return -EINVAL;
	return c->failing;
}

/* Answers what is written, in order. */
static void appends_answer(struct copy *c)
{
	while (!link_empty(&c->appends)) {
		struct dir_frame *f = container_of(c->appends.next, struct dir_frame, link);
		if (!f->done)
			return;
		link_drop(&f->link);
		int r = f->file_io.status;
		if (c->failing == 0 && r == 0) {
			c->length += (uint32_t)(f->file_io.length / BLOCK_BYTES);
			c->last_crc = f->last_crc;
			c->last_seq = f->last_seq;
			c->dirty = true;
		} else if (c->failing == 0) {
			c->failing = r; /* what was answered before is there; the writer cuts there and goes on elsewhere */
		}
		r = c->failing;
		if (link_empty(&c->appends)) {
			c->accepted = c->length;
			c->accepted_crc = c->last_crc;
			c->accepted_seq = c->last_seq;
			c->failing = 0;
			fiber_cond_wake(&c->idle);
		}
		dir_frame_end(f, r);
	}
}

static void append_done(struct job *j)
{
	struct dir_frame *f = container_of(j, struct dir_frame, job);
	struct copy *c = f->copy;
	f->done = true;
	if (PLANTED(segment_append_out_of_order_answer) && f->file_io.status == 0) {
		job_put(f->io->parent, 0);
		f->io = NULL;
	}
	appends_answer(c);
}

void copy_append_start(struct dir_frame *f)
{
	struct copy *c = f->copy;
	struct segment_io *io = f->io;
	if (copy_must_stall(c, io)) {
		link_push(&c->stalled, &f->link);
		return;
	}
	int r = append_check(c, io);
	if (r == 0 && io->block < c->accepted) {
		/* A repetition: answered again if it is what is there, see dir_control(). */
		if (fiber_start(&c->dir->env->loop, (int (*)(void *))dir_control, f, NULL) < 0)
			dir_frame_end(f, -ENOMEM);
		return;
	}
	if (r == 0)
		r = append_records(f);
	if (r == 0)
		r = frame_vectors(f);
	if (r < 0) {
		dir_frame_end(f, r);
		return;
	}
	f->file_io.op = FILE_WRITE;
	f->file_io.offset = COPY_BASE + (uint64_t)io->block * BLOCK_BYTES;
	f->file_io.length = (uint64_t)io->blocks * BLOCK_BYTES;
	f->done = false;
	c->accepted += io->blocks;
	c->accepted_crc = f->last_crc;
	c->accepted_seq = f->last_seq;
	link_push(&c->appends, &f->link);
	file_submit(c->file, &f->file_io, &f->job);
	job_then(&f->job, append_done);
	copy_prepare(c);
}

/* ---- sync ---- */

struct sync {
	struct job job;
	struct file_io io;
	struct copy *copy;
	struct link frames;
	uint32_t length;
	int status;
};

static void syncs_start(struct copy *c);

static void sync_answer(struct sync *s, int status)
{
	for (struct link *l; (l = link_pop(&s->frames));)
		dir_frame_end(container_of(l, struct dir_frame, link), status);
	struct copy *c = s->copy;
	free(s);
	c->sync_running = false;
	if (!link_empty(&c->syncs))
		syncs_start(c);
	copy_busy_end(c);
	copy_release(c);
}

static int sync_break(void *arg) /* FIBER */
{
	struct sync *s = arg;
	copy_break(s->copy);
	sync_answer(s, s->status);
	return 0;
}

static void sync_done(struct job *j)
{
	struct sync *s = container_of(j, struct sync, job);
	struct copy *c = s->copy;
	s->status = s->io.status;
	if (s->status == 0) {
		c->synced = MAX(c->synced, s->length);
		sync_answer(s, 0);
		return;
	}
	/* Nobody may hear of it before it is written down. */
	if (fiber_start(&c->dir->env->loop, sync_break, s, NULL) < 0) {
		c->broken = true;
		sync_answer(s, s->status);
	}
}

static void syncs_start(struct copy *c)
{
	struct sync *s = calloc(1, sizeof *s);
	if (!s || c->broken) {
		free(s);
		for (struct link *l; (l = link_pop(&c->syncs));)
			dir_frame_end(container_of(l, struct dir_frame, link), c->broken ? -ESTALE : -ENOMEM);
		return;
	}
	s->copy = c;
	s->io.op = FILE_SYNC;
	s->length = c->length;
	c->syncs_marked++;
	link_init(&s->frames);
	link_splice(&s->frames, &c->syncs);
	c->sync_running = true;
	c->dirty = false;
	c->users++;
	c->busy++;
	job_init(&s->job, &c->dir->env->loop);
	file_submit(c->file, &s->io, &s->job);
	job_then(&s->job, sync_done);
}

static int sync_check(const struct copy *c, const struct segment_io *io)
{
	if (!c->exists)
		return -ENOENT;
	if (c->fenced_epoch > io->epoch)
		return -EPERM;
	if (c->slot.sealed)
		return io->block <= c->length ? 0 : -EINVAL;
	if (io->incarnation != c->dir->state.incarnation || copy_state(c) != COPY_WHOLE)
		return -ESTALE;
	return io->block <= c->length ? 0 : -EINVAL;
}

void copy_sync_start(struct dir_frame *f)
{
	struct copy *c = f->copy;
	int r = sync_check(c, f->io);
	if (r < 0 || f->io->block <= c->synced || PLANTED(segment_sync_early)) {
		dir_frame_end(f, r);
		return;
	}
	link_push(&c->syncs, &f->link);
	if (!c->sync_running)
		syncs_start(c);
}
