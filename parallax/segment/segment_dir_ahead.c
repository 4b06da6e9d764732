/* Room ahead of the appends (R35), in small steps, so that an idle volume costs little.
 *
 * Usually the next 4 MiB are allocated (fallocate). But writing to allocated, never written blocks makes the file system
 * change its metadata, which the next fdatasync has to commit, and which waits for commits under way, other processes'
 * too. (ext4, 68 KiB appends with a sync after each: 0.22 ms so, 0.17 ms on written blocks; while others kept the
 * journal busy about 5 ms and 0.6 ms, not measured side by side.) So where users sync often, the next MiB is written
 * with zeroes instead, once, in the background; where they don't, that would halve the bandwidth. Recycled files need
 * neither.
 *
 *     │ answered │ being appended │ ready │ being zeroed │
 *                                         ▲ an append that reaches beyond this waits for the zeroes */
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/segment/segment_dir.h"

#define SYNC_OFTEN_BYTES (256u << 10) /* appended per sync, or less */

struct prepare {
	struct job job;
	struct file_io io;
	struct iovec vec;
	struct copy *copy;
	uint64_t end;
};

static uint64_t file_end(const struct copy *c)
{
	return COPY_BASE + (uint64_t)c->slot.header.size_blocks * BLOCK_BYTES;
}

/* Small segments take small steps. */
static uint64_t step_bytes(const struct copy *c, bool zero)
{
	uint64_t part = round_up((uint64_t)c->slot.header.size_blocks * BLOCK_BYTES / 16, BLOCK_BYTES);
	return MIN(part, zero ? ZERO_STEP_BYTES : ALLOCATE_STEP_BYTES);
}

static void *zeroes(struct segment_dir *d)
{
	if (!d->zeroes) {
		d->zeroes = env_alloc_aligned(ZERO_STEP_BYTES);
		if (d->zeroes)
			memset(d->zeroes, 0, ZERO_STEP_BYTES);
	}
	return d->zeroes;
}

uint64_t copy_first_step(struct copy *c, enum file_op *ret_op, struct iovec *ret_iov)
{
	bool zero = c->dir->sync_often && zeroes(c->dir);
	uint64_t length = MIN(step_bytes(c, zero), file_end(c) - COPY_BASE);
	*ret_op = zero ? FILE_WRITE : FILE_ALLOCATE;
	*ret_iov = (struct iovec){ c->dir->zeroes, length };
	return length;
}

bool copy_must_stall(const struct copy *c, const struct segment_io *io)
{
	if (PLANTED(segment_zero_no_stall))
		return false;
	return !link_empty(&c->stalled) ||
	       (c->zeroing && COPY_BASE + ((uint64_t)io->block + io->blocks) * BLOCK_BYTES > c->ready);
}

static void prepare_done(struct job *j)
{
	struct prepare *p = container_of(j, struct prepare, job);
	struct copy *c = p->copy;
	struct link list;
	c->ready = MAX(c->ready, p->end); /* failed or not: an append says so if space lacks */
	c->preparing = c->zeroing = false;
	free(p);
	link_init(&list);
	link_splice(&list, &c->stalled);
	for (struct link *l; (l = link_pop(&list));)
		copy_append_start(container_of(l, struct dir_frame, link));
	copy_busy_end(c);
	fiber_cond_wake(&c->idle);
	copy_release(c);
}

void copy_prepare_wait(struct copy *c)
{
	while (c->preparing)
		fiber_cond_wait(&c->dir->env->loop, &c->idle);
}

static void often_judge(struct copy *c, uint64_t end)
{
	uint64_t appended = end - MIN(end, c->ready_marked);
	if (appended < ZERO_STEP_BYTES / 2 && appended < step_bytes(c, true))
		return;
	c->dir->sync_often = (uint64_t)c->syncs_marked * SYNC_OFTEN_BYTES >= appended;
	c->ready_marked = end;
	c->syncs_marked = 0;
}

void copy_prepare(struct copy *c)
{
	uint64_t end = COPY_BASE + (uint64_t)c->accepted * BLOCK_BYTES;
	if (c->preparing || c->ready >= file_end(c))
		return;
	often_judge(c, end);
	bool zero = c->dir->sync_often && zeroes(c->dir);
	uint64_t step = step_bytes(c, zero);
	if (end + (zero ? step : step / 2) < c->ready)
		return;
	struct prepare *p = calloc(1, sizeof *p);
	if (!p)
		return;
	uint64_t from = MAX(c->ready, end); /* nothing was accepted beyond */
	p->copy = c;
	p->end = MIN(from + step, file_end(c));
	p->vec = (struct iovec){ c->dir->zeroes, p->end - from };
	p->io = (struct file_io){ .op = zero ? FILE_WRITE : FILE_ALLOCATE, .offset = from, .length = p->end - from,
				  .iov = &p->vec, .iov_count = 1 };
	if (from >= p->end) {
		free(p);
		c->ready = UINT64_MAX;
		return;
	}
	c->ready = from;
	c->preparing = true;
	c->zeroing = zero;
	c->users++;
	c->busy++;
	job_init(&p->job, &c->dir->env->loop);
	file_submit(c->file, &p->io, &p->job);
	job_then(&p->job, prepare_done);
}
