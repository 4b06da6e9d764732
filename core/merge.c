#include "core/merge.h"

#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/plant.h"

/* What goes to the file as one request.
 *
 *   queue ─▶ batch_start ─(file)─▶ batch_done ─▶ members end
 *                                     └ error, several members: batch_retry, one by one ┘ */
struct merge_batch {
	struct job job;
	struct merge *merge;
	struct file_io io;
	struct iovec *vector;    /* limits.segments_max entries */
	struct link members;     /* of struct merge_io, by offset */
	unsigned member_count;
	struct merge_io *single; /* during a retry: the one at the file */
	struct link link;
};

static void merge_dispatch(struct job *j);
static void batch_retry(struct merge_batch *b);

int merge_init(struct merge *m, struct env *env, struct file *file, const struct merge_limits *limits)
{
	*m = (struct merge){ .env = env, .file = file, .limits = *limits };
	assert(limits->in_flight_max > 0 && limits->hold_above > 0);
	range_lock_init(&m->lock);
	link_init(&m->queue);
	link_init(&m->batches_free);
	link_init(&m->sync_waiting);
	link_init(&m->sync_running);
	for (unsigned i = 0; i < MERGE_STREAMS; i++)
		m->stream_end[i] = UINT64_MAX;
	unsigned segments = limits->segments_max;
	m->batches = calloc(limits->in_flight_max, sizeof *m->batches);
	m->vectors = calloc((size_t)limits->in_flight_max * segments, sizeof *m->vectors);
	if (!m->batches || !m->vectors) {
		merge_destroy(m);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < limits->in_flight_max; i++) {
		struct merge_batch *b = &m->batches[i];
		b->merge = m;
		b->vector = m->vectors + (size_t)i * segments;
		link_init(&b->members);
		link_push(&m->batches_free, &b->link);
	}
	return 0;
}

void merge_destroy(struct merge *m)
{
	assert(!m->in_flight && !m->queued && range_lock_idle(&m->lock));
	free(m->batches);
	free(m->vectors);
	m->batches = NULL;
	m->vectors = NULL;
}

/* ---- arrival ---- */

/* Does this request go on where a recent one ended? Notes where this one ends. */
static bool stream_continues(struct merge *m, const struct merge_io *io)
{
	for (unsigned i = 0; i < MERGE_STREAMS; i++)
		if (m->stream_end[i] == io->offset) {
			m->stream_end[i] = io->offset + io->length;
			return true;
		}
	m->stream_end[m->stream_next++ % MERGE_STREAMS] = io->offset + io->length;
	return false;
}

static bool queued_before(const struct merge_io *a, const struct merge_io *b)
{
	if (a->generation != b->generation)
		return a->generation < b->generation;
	if (a->op != b->op)
		return a->op < b->op;
	return a->offset < b->offset;
}

static void queue_insert(struct merge *m, struct merge_io *io)
{
	struct link *at = &m->queue;
	while (at->prev != &m->queue && queued_before(io, container_of(at->prev, struct merge_io, link)))
		at = at->prev;
	link_push(at, &io->link); /* in front of `at` */
	m->queued++;
}

static void dispatch_soon(struct merge *m)
{
	if (m->dispatch_pending || m->queued == 0)
		return;
	m->dispatch_pending = true;
	job_init(&m->dispatch_job, &m->env->loop);
	job_then(&m->dispatch_job, merge_dispatch);
}

/* The request's range is its own: nothing that is under way conflicts. */
static void merge_enqueue(struct job *j)
{
	struct merge_io *io = container_of(j, struct merge_io, job);
	struct merge *m = io->merge;
	io->generation = m->generation;
	io->sequential = stream_continues(m, io);
	io->hold_until = m->completions + m->limits.hold_above;
	queue_insert(m, io);
	dispatch_soon(m);
}

static void sync_start(struct merge *m);

void merge_submit(struct merge *m, struct merge_io *io, struct job *parent)
{
	job_hold(parent);
	io->parent = parent;
	io->merge = m;
	io->status = 0;
	io->done = 0;
	if (io->op == FILE_SYNC && m->sync_error != 0 && !PLANTED(merge_sync_forgets)) {
		io->status = m->sync_error;
		job_put(parent, io->status);
		return;
	}
	if (io->op == FILE_SYNC) {
		m->counters.syncs_in++;
		m->generation++;
		bool join = PLANTED(merge_sync_join) && !link_empty(&m->sync_running);
		link_push(join ? &m->sync_running : &m->sync_waiting, &io->link);
		sync_start(m);
		return;
	}
	m->counters.requests_in++;
	job_init(&io->job, &m->env->loop);
	if (PLANTED(merge_cross_overlap))
		io->locked = true;
	if (!io->locked) {
		io->range = (struct range){ .start = io->offset, .end = io->offset + io->length,
					    .exclusive = io->op != FILE_READ };
		range_acquire(&m->lock, &io->range, &io->job);
	}
	if (io->job.pending == 1)
		merge_enqueue(&io->job); /* only queues: nothing completes from in here */
	else
		job_then(&io->job, merge_enqueue);
}

static void member_end(struct merge *m, struct merge_io *io, int status)
{
	io->status = status;
	if (!io->locked)
		range_release(&m->lock, &io->range);
	job_put(io->parent, status);
}

/* ---- a batch at the file ---- */

static void batch_end(struct merge_batch *b)
{
	struct merge *m = b->merge;
	link_push(&m->batches_free, &b->link);
	m->in_flight--;
	m->completions++;
	dispatch_soon(m);
}

/* A read of several members that met the end of the file: each gets its part of `done`. */
static size_t member_done(const struct merge_batch *b, const struct merge_io *io)
{
	uint64_t skip = io->offset - b->io.offset;
	if (io->op != FILE_READ || b->io.done <= skip)
		return 0;
	return MIN(b->io.done - skip, io->length);
}

static void batch_done(struct job *j)
{
	struct merge_batch *b = container_of(j, struct merge_batch, job);
	int status = j->status;
	if (status != 0 && b->member_count > 1 && !PLANTED(merge_error_all)) {
		b->merge->counters.split++;
		batch_retry(b);
		return;
	}
	for (struct link *l; (l = link_pop(&b->members));) {
		struct merge_io *io = container_of(l, struct merge_io, link);
		io->done = member_done(b, io);
		member_end(b->merge, io, status);
	}
	batch_end(b);
}

static void batch_retry_done(struct job *j)
{
	struct merge_batch *b = container_of(j, struct merge_batch, job);
	b->single->done = b->io.done;
	member_end(b->merge, b->single, j->status);
	batch_retry(b);
}

/* Whose bytes failed? The members' ranges are still theirs, so repeating is harmless. */
static void batch_retry(struct merge_batch *b)
{
	struct link *l = link_pop(&b->members);
	if (!l) {
		batch_end(b);
		return;
	}
	struct merge_io *io = b->single = container_of(l, struct merge_io, link);
	b->io = (struct file_io){ .op = io->op, .offset = io->offset, .length = io->length, .iov = io->iov,
				  .iov_count = io->iov_count };
	job_init(&b->job, &b->merge->env->loop);
	file_submit(b->merge->file, &b->io, &b->job);
	job_then(&b->job, batch_retry_done);
}

/* ---- dispatch ---- */

/* A run: neighbours in the queue that can go as one request. */
struct run {
	struct merge_io *first;
	struct link *next; /* the first queue element behind it */
	unsigned count, segments;
	uint64_t bytes;
};

static void run_find(const struct merge *m, struct link *at, struct run *ret)
{
	struct merge_io *io = container_of(at, struct merge_io, link);
	*ret = (struct run){ .first = io, .next = at->next, .count = 1, .segments = (unsigned)io->iov_count,
			     .bytes = io->length };
	while (ret->next != &m->queue) {
		const struct merge_io *n = container_of(ret->next, struct merge_io, link);
		if (n->op != io->op || n->generation != io->generation || n->offset != io->offset + ret->bytes ||
		    ret->bytes + n->length > m->limits.bytes_max ||
		    ret->segments + (unsigned)n->iov_count > m->limits.segments_max)
			break;
		ret->bytes += n->length;
		ret->segments += (unsigned)n->iov_count;
		ret->count++;
		ret->next = ret->next->next;
	}
}

/* Worth waiting for more? Only when the file has work enough, and not for long. */
static bool run_hold(const struct merge *m, const struct run *run)
{
	return m->in_flight >= m->limits.hold_above && run->first->sequential &&
	       run->bytes < m->limits.hold_bytes_max && m->completions < run->first->hold_until;
}

static void batch_start(struct merge *m, const struct run *run)
{
	struct merge_batch *b = container_of(link_pop(&m->batches_free), struct merge_batch, link);
	struct merge_io *io = run->first;
	b->member_count = run->count;
	b->io = (struct file_io){ .op = io->op, .offset = io->offset, .length = run->bytes, .iov = io->iov,
				  .iov_count = io->iov_count };
	if (run->count > 1 && io->iov_count > 0) {
		b->io.iov = b->vector;
		b->io.iov_count = 0;
	}
	for (struct link *l = &io->link, *next; l != run->next; l = next) {
		next = l->next;
		io = container_of(l, struct merge_io, link);
		link_drop(l);
		link_push(&b->members, l);
		if (b->io.iov == b->vector)
			for (int i = 0; i < io->iov_count; i++)
				b->vector[b->io.iov_count++] = io->iov[i];
	}
	m->queued -= run->count;
	m->in_flight++;
	m->counters.requests_out++;
	job_init(&b->job, &m->env->loop);
	file_submit(m->file, &b->io, &b->job);
	job_then(&b->job, batch_done);
}

static void merge_dispatch(struct job *j)
{
	struct merge *m = container_of(j, struct merge, dispatch_job);
	m->dispatch_pending = false;
	struct run run;
	for (struct link *at = m->queue.next; at != &m->queue; at = run.next) {
		if (m->in_flight >= m->limits.in_flight_max)
			break;
		run_find(m, at, &run);
		if (run_hold(m, &run))
			m->counters.held += run.count;
		else
			batch_start(m, &run);
	}
	if (m->in_flight < m->limits.in_flight_max || m->queued == 0) {
		m->full_turns = 0;
	} else if (++m->full_turns >= m->limits.in_flight_max && !PLANTED(merge_overtake_for_ever)) {
		m->full_turns = 0;
		m->generation++; /* what comes from now on goes behind those that wait, wherever it is in the file */
	}
}

/* ---- syncs ---- */

static void syncs_end(struct link *syncs, int status)
{
	for (struct link *l; (l = link_pop(syncs));) {
		struct merge_io *io = container_of(l, struct merge_io, link);
		io->status = status;
		job_put(io->parent, status);
	}
}

static void sync_done(struct job *j)
{
	struct merge *m = container_of(j, struct merge, sync_job);
	if (j->status != 0 && m->sync_error == 0)
		m->sync_error = j->status;
	syncs_end(&m->sync_running, j->status);
	/* Those that wait would cover what this one has lost as well. */
	if (m->sync_error != 0 && !PLANTED(merge_sync_forgets))
		syncs_end(&m->sync_waiting, m->sync_error);
	sync_start(m);
}

/* One at a time: a sync covers only what had completed when it started, so later ones wait for the next. */
static void sync_start(struct merge *m)
{
	if (!link_empty(&m->sync_running) || link_empty(&m->sync_waiting))
		return;
	link_splice(&m->sync_running, &m->sync_waiting);
	m->counters.syncs_out++;
	m->sync_io = (struct file_io){ .op = FILE_SYNC };
	job_init(&m->sync_job, &m->env->loop);
	file_submit(m->file, &m->sync_io, &m->sync_job);
	job_then(&m->sync_job, sync_done);
}
