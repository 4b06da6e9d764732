/* Block requests on a volume.
 *
 *   read   lookup ─(a node is loaded, again)─▶ reads of runs, several at once ─▶ … ─▶ end
 *   write  range lock ─▶ read the partial edges ─▶ volume_write (1 to 3 pieces) ─▶ flush if FUA ─▶ end
 *
 * Whole blocks share the range lock, partial ones own theirs until the map has changed. Buffers are
 * sent to the log as they are, unless they are unstable (guest memory), unaligned or in too many pieces:
 * then a copy is made. */
#include "parallax/volume/volume_node.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "core/plant.h"
#include "parallax/volume/volume_group.h"
#include "parallax/volume/volume_status.h"
#include "parallax/volume/volume_wait.h"

#define LANDS_NS (10 * NS_PER_MS) /* between looks whether what was given up is in the map */
enum { CLEAR_BLOCKS = 65536 };

static void read_lookup(struct job *j), read_issue(struct job *j), read_check(struct job *j);
static void write_locked(struct job *j), write_edges_known(struct job *j), write_edges_read(struct job *j), write_next(struct job *j),
	write_written(struct job *j), frame_end(struct job *j);

void volume_node_init(struct volume_node *n, struct volume *v, struct volume_reader *d)
{
	n->volume = v;
	n->reader = d;
	range_lock_init(&n->lock);
	fiber_mutex_init(&n->resizing);
	link_init(&n->intake.waiting);
	fiber_cond_init(&n->intake.changed);
	volume_wait_init(n);
	n->io_timeout_ns = d ? volume_reader_io_timeout_ns(d) : 0;
	n->node.info = (struct blk_info){
		.size = v ? volume_size(v) : d ? volume_reader_size(d) : 0, .block_size = 512, .preferred_size = BLOCK_BYTES,
		.memory_align = BLOCK_BYTES, .max_transfer = (uint64_t)(VOLUME_IO_BLOCKS - 1) * BLOCK_BYTES, .read_only = d,
		.can_discard = true, .can_zero = true, .can_map = true, .discard_zeroes = true, .multi_client = true,
		.identity = v ? volume_identity(v) : d ? volume_reader_identity(d) : 0,
	};
}

void volume_node_end(struct volume_node *n) { volume_wait_end(n); }

static int node_lookup(struct volume_node *n, uint64_t first, uint32_t count, struct pointer *ret, struct job *parent)
{
	return n->volume ? volume_lookup(n->volume, first, count, ret, parent) : volume_reader_lookup(n->reader, first, count, ret, parent);
}

static int node_skip_holes(struct volume_node *n, uint64_t *first, uint64_t end, struct job *parent)
{
	return n->volume ? volume_skip_holes(n->volume, first, end, parent) : volume_reader_skip_holes(n->reader, first, end, parent);
}

static struct sources *node_sources(struct volume_node *n)
{
	return n->volume ? volume_sources(n->volume) : volume_reader_sources(n->reader);
}

/* ---- frames ---- */

static bool makes_edges(const struct volume_frame *f) { return f->head || f->tail; }

void volume_node_finish(struct volume_frame *f, int status)
{
	struct blk_node *node = &f->n->node;
	for (unsigned i = 0; i < 2; i++)
		free(f->edge[i]);
	free(f->copy);
	volume_wait_over(f, status);
	blk_end(f->io, status && f->expired ? -EIO : status);
	blk_frame_put(node, f);
}

static void frame_finish(struct volume_frame *f, int status)
{
	struct volume_node *n = f->n;
	volume_node_finish(f, status);
	if (--n->intake.in_flight == 0 && n->intake.held)
		fiber_cond_wake(&n->intake.changed);
}

static void frame_end(struct job *j)
{
	struct volume_frame *f = container_of(j, struct volume_frame, job);
	if (f->io->op == BLK_WRITE || f->io->op == BLK_ZERO || f->io->op == BLK_DISCARD)
		range_release(&f->n->lock, &f->range);
	frame_finish(f, j->status);
}

/* ---- reading ---- */

static void read_lookup(struct job *j)
{
	struct volume_frame *f = container_of(j, struct volume_frame, job);
	f->phase = PHASE_MAP;
	int r = j->status ? j->status : node_lookup(f->n, f->first, (uint32_t)f->blocks, f->pointers, j);
	if (r == -EAGAIN) {
		job_then(j, read_lookup);
		return;
	}
	f->at = 0;
	f->bounced = false;
	if (r < 0)
		job_hold(j), job_put(j, r);
	job_then(j, r < 0 ? frame_end : read_issue);
}

/* Blocks from `at` on that can be read in one go: side by side in one segment, and either all whole or one partial. */
static uint32_t run_length(const struct volume_frame *f, uint32_t at)
{
	const struct pointer *p = f->pointers;
	uint32_t n = 1, last = (uint32_t)f->blocks - 1;
	if ((at == 0 && f->head) || (at == last && f->tail))
		return 1;
	while (at + n <= last && !(at + n == last && f->tail)) {
		bool next = p[at].position == 0 ? p[at + n].position == 0 : p[at + n].position == p[at].position + n;
		if (!next)
			break;
		n++;
	}
	return n;
}

/* Where block `at` begins within the guest's buffer, and how much of it the guest wants. */
static uint64_t block_skip(const struct volume_frame *f, uint32_t at) { return at == 0 ? 0 : (uint64_t)at * BLOCK_BYTES - f->head; }

static uint8_t *edge_buffer(struct volume_frame *f, unsigned which)
{
	if (!f->edge[which])
		f->edge[which] = env_alloc_aligned(BLOCK_BYTES);
	f->edge_iov[which] = (struct iovec){ f->edge[which], BLOCK_BYTES };
	return f->edge[which];
}

static bool is_partial(const struct volume_frame *f, uint32_t at)
{
	return (at == 0 && f->head) || (at + 1 == f->blocks && f->tail);
}
static unsigned edge_of(const struct volume_frame *f, uint32_t at) { return at == 0 && f->head ? 0 : 1; }

/* A block in more pieces than a frame has iovecs: through memory of our own, alone. */
static int read_bounced(struct volume_frame *f, const struct pointer *p)
{
	if (!f->copy)
		f->copy = env_alloc_aligned(BLOCK_BYTES);
	if (!f->copy)
		return -ENOMEM;
	f->copy_iov = (struct iovec){ f->copy, BLOCK_BYTES };
	f->bounced = true;
	f->bounced_block = f->at++;
	sources_read(node_sources(f->n), &f->reads[VOLUME_FRAME_READS - 1], p, 1, &f->copy_iov, 1, &f->job);
	return 0;
}

static void read_unbounce(struct volume_frame *f)
{
	if (f->bounced)
		iov_scatter(f->io->iov, f->io->iov_count, block_skip(f, f->bounced_block), f->copy, BLOCK_BYTES);
	f->bounced = false;
}

/* Starts what can be started at once; f->at goes on. */
static int read_runs(struct volume_frame *f)
{
	unsigned reads = 0;
	int iovs = 0;
	while (f->at < f->blocks && reads < VOLUME_FRAME_READS) {
		uint32_t n = run_length(f, f->at);
		bool partial = is_partial(f, f->at);
		const struct pointer *p = &f->pointers[f->at];
		uint64_t want = (uint64_t)n * BLOCK_BYTES - (f->at == 0 ? f->head : 0) - (f->at + n == f->blocks ? f->tail : 0);
		if (p->position == 0) {
			iov_zero(f->io->iov, f->io->iov_count, block_skip(f, f->at), want);
		} else if (partial) {
			unsigned which = edge_of(f, f->at);
			if (!edge_buffer(f, which))
				return -ENOMEM;
			sources_read(node_sources(f->n), &f->reads[reads++], p, 1, &f->edge_iov[which], 1, &f->job);
		} else {
			int used;
			while ((used = iov_slice(f->io->iov, f->io->iov_count, block_skip(f, f->at), (uint64_t)n * BLOCK_BYTES, f->iovs + iovs,
						 VOLUME_FRAME_IOVS - iovs)) < 0 && n > 1)
				n /= 2;
			if (used < 0)
				return iovs ? 0 : read_bounced(f, p); /* the iovecs are used up: the next round */
			sources_read(node_sources(f->n), &f->reads[reads++], p, n, f->iovs + iovs, used, &f->job);
			iovs += used;
		}
		f->at += n;
	}
	return 0;
}

/* What the guest wants of the partial blocks that were read. */
static void read_copy_edges(struct volume_frame *f)
{
	uint32_t last = (uint32_t)f->blocks - 1;
	if (f->head && f->pointers[0].position)
		iov_scatter(f->io->iov, f->io->iov_count, 0, f->edge[0] + f->head, MIN((uint64_t)BLOCK_BYTES - f->head, f->io->length));
	if (f->tail && f->pointers[last].position && !(last == 0 && f->head))
		iov_scatter(f->io->iov, f->io->iov_count, block_skip(f, last), f->edge[1], BLOCK_BYTES - f->tail);
}

static void read_issue(struct job *j)
{
	struct volume_frame *f = container_of(j, struct volume_frame, job);
	f->phase = PHASE_READ;
	if (j->status == 0)
		read_unbounce(f);
	int r = j->status ? 0 : read_runs(f);
	if (r < 0)
		job_hold(j), job_put(j, r);
	job_then(j, j->status || f->at == f->blocks ? read_check : read_issue);
}

static void read_check(struct job *j)
{
	struct volume_frame *f = container_of(j, struct volume_frame, job);
	if (j->status == 0) {
		read_unbounce(f);
		read_copy_edges(f);
	}
	/* A block overwritten meanwhile may be gone: what is there now counts. One that stays unreadable is EIO. */
	if (j->status && j->status != -ENOMEM && !f->expired && f->attempts++ == 0) {
		j->status = 0;
		job_then(j, read_lookup);
		return;
	}
	frame_end(j);
}

/* ---- writing ---- */

static void write_start(struct volume_frame *f)
{
	struct blk_io *io = f->io;
	bool whole = !makes_edges(f);
	f->range = (struct range){ .start = f->first, .end = f->first + f->blocks, .exclusive = !whole };
	if (PLANTED(volume_partial_no_lock))
		f->range.exclusive = false;
	f->phase = PHASE_LOCK;
	range_acquire(&f->n->lock, &f->range, &f->job);
	(void)io;
	job_then(&f->job, write_locked);
}

/* Pointers of the (at most two) partial blocks: into pointers[0] and [1]. */
static void write_locked(struct job *j)
{
	struct volume_frame *f = container_of(j, struct volume_frame, job);
	int r = f->expired ? -EIO : j->status;
	if (r == 0 && makes_edges(f) && volume_expired_lands(f->n->volume)) {
		timer_start(f->n->node.env, &f->again, LANDS_NS, j);
		job_then(j, write_locked);
		return;
	}
	f->phase = PHASE_MAP;
	if (r == 0 && (f->head || (f->blocks == 1 && f->tail)))
		r = node_lookup(f->n, f->first, 1, &f->pointers[0], j);
	if (r == 0 && f->tail && f->blocks > 1)
		r = node_lookup(f->n, f->first + f->blocks - 1, 1, &f->pointers[1], j);
	if (r == -EAGAIN) {
		job_then(j, write_locked);
		return;
	}
	if (r < 0)
		job_hold(j), job_put(j, r);
	job_then(j, r < 0 ? frame_end : write_edges_known);
}

static int read_edge(struct volume_frame *f, unsigned which)
{
	uint8_t *b = edge_buffer(f, which);
	if (!b)
		return -ENOMEM;
	if (f->pointers[which].position)
		sources_read(node_sources(f->n), &f->reads[which], &f->pointers[which], 1, &f->edge_iov[which], 1, &f->job);
	else
		memset(b, 0, BLOCK_BYTES);
	return 0;
}

static void write_edges_known(struct job *j)
{
	struct volume_frame *f = container_of(j, struct volume_frame, job);
	int r = 0;
	f->phase = PHASE_READ;
	if (f->head || (f->blocks == 1 && f->tail))
		r = read_edge(f, 0);
	if (r == 0 && f->tail && f->blocks > 1)
		r = read_edge(f, 1);
	if (r < 0)
		job_hold(j), job_put(j, r);
	job_then(j, write_edges_read);
}

/* The guest's bytes, or zeroes, into a partial block. */
static void merge_edge(struct volume_frame *f, unsigned which)
{
	const struct blk_io *io = f->io;
	uint64_t from = which == 0 ? f->head : 0, skip = which == 0 ? 0 : io->length - (BLOCK_BYTES - f->tail);
	uint64_t n = which == 0 ? MIN(BLOCK_BYTES - f->head, io->length) : BLOCK_BYTES - f->tail;
	if (io->op == BLK_WRITE)
		iov_gather(io->iov, io->iov_count, skip, f->edge[which] + from, n);
	else
		memset(f->edge[which] + from, 0, n);
}

/* The whole blocks between the edges as an iovec the log can keep: the guest's own, or a copy. */
static int middle_iov(struct volume_frame *f, uint64_t skip, uint64_t bytes, struct volume_write *w)
{
	const struct blk_io *io = f->io;
	int used = iov_slice(io->iov, io->iov_count, skip, bytes, f->iovs, VOLUME_FRAME_IOVS);
	if (used >= 0 && !(io->flags & BLK_UNSTABLE) && iov_aligned(f->iovs, used, 512, 512)) {
		w->iov = f->iovs;
		w->iov_count = used;
		return 0;
	}
	f->copy = env_alloc_aligned(bytes);
	if (!f->copy)
		return -ENOMEM;
	iov_gather(io->iov, io->iov_count, skip, f->copy, bytes);
	f->copy_iov = (struct iovec){ f->copy, bytes };
	w->iov = &f->copy_iov;
	w->iov_count = 1;
	return 0;
}

static void add_edge(struct volume_frame *f, unsigned which, uint64_t block)
{
	merge_edge(f, which);
	f->writes[f->write_count++] = (struct volume_write){ .first = block, .count = 1, .iov = &f->edge_iov[which], .iov_count = 1 };
}

static void write_edges_read(struct job *j)
{
	struct volume_frame *f = container_of(j, struct volume_frame, job);
	bool first_partial = f->head || (f->blocks == 1 && f->tail), last_partial = f->tail && f->blocks > 1;
	uint64_t middle = f->blocks - first_partial - last_partial, first = f->first + first_partial;
	int r = j->status;
	f->phase = PHASE_LOG;
	f->write_count = 0;
	if (r == 0 && first_partial)
		add_edge(f, 0, f->first);
	if (r == 0 && last_partial)
		add_edge(f, 1, f->first + f->blocks - 1);
	if (r == 0 && middle && f->io->op == BLK_WRITE) {
		struct volume_write *w = &f->writes[f->write_count];
		*w = (struct volume_write){ .first = first, .count = (uint32_t)middle };
		r = middle_iov(f, first_partial ? BLOCK_BYTES - f->head : 0, middle * BLOCK_BYTES, w);
		f->write_count += r == 0;
	}
	f->cleared = f->io->op == BLK_WRITE ? middle : 0;
	if (r < 0 && j->status == 0)
		job_hold(j), job_put(j, r);
	for (unsigned i = 0; r == 0 && i < f->write_count; i++)
		volume_write(f->n->volume, &f->writes[i], j);
	job_then(j, r < 0 ? frame_end : write_next);
}

/* A large discard goes in parts, so that nothing else waits for long; what is a hole already is left out. */
static void write_next(struct job *j)
{
	struct volume_frame *f = container_of(j, struct volume_frame, job);
	bool first_partial = f->head || (f->blocks == 1 && f->tail), last_partial = f->tail && f->blocks > 1;
	uint64_t middle = f->blocks - first_partial - last_partial;
	if (j->status || f->cleared == middle) {
		write_written(j);
		return;
	}
	uint64_t start = f->first + first_partial, first = start + f->cleared;
	int r = volume_skip_holes(f->n->volume, &first, start + middle, j);
	f->cleared = first - start;
	f->phase = r == -EAGAIN ? PHASE_MAP : PHASE_LOG;
	if (r < 0 || f->cleared == middle) {
		if (r < 0 && r != -EAGAIN)
			job_hold(j), job_put(j, r);
		job_then(j, write_next);
		return;
	}
	uint32_t n = (uint32_t)MIN(middle - f->cleared, (uint64_t)CLEAR_BLOCKS);
	f->writes[0] = (struct volume_write){ .first = first, .count = n, .clear = true };
	f->write_count = 1;
	f->cleared += n;
	volume_write(f->n->volume, &f->writes[0], j);
	job_then(j, write_next);
}

static void write_written(struct job *j)
{
	struct volume_frame *f = container_of(j, struct volume_frame, job);
	f->phase = PHASE_LOG;
	if (j->status == 0 && (f->io->flags & BLK_FUA))
		volume_flush(f->n->volume, &f->flush, j);
	job_then(j, frame_end);
}

/* ---- map ---- */

static bool map_add(struct blk_map *m, uint64_t length, uint32_t flags)
{
	if (m->count && m->extents[m->count - 1].flags == flags) {
		m->extents[m->count - 1].length += length;
		return true;
	}
	if (m->count == m->max)
		return false;
	m->extents[m->count++] = (struct blk_extent){ length, flags };
	return true;
}

/* The next `count` blocks of the request are all of a kind. False: there is no room for more. */
static bool map_blocks(struct volume_frame *f, uint64_t count, uint32_t flags)
{
	const struct blk_io *io = f->io;
	uint64_t start = (f->first + f->cleared) * BLOCK_BYTES, end = start + count * BLOCK_BYTES;
	f->cleared += count;
	return map_add(io->map, MIN(end, io->offset + io->length) - MAX(start, io->offset), flags);
}

static void map_full(struct job *j) { frame_finish(container_of(j, struct volume_frame, job), 0); }

/* Holes are passed over by subtrees, and what isn't one up to a record's worth per step, so that neither a huge volume without anything in it
 * nor one without a hole holds up the loop. */
static void map_step(struct job *j)
{
	struct volume_frame *f = container_of(j, struct volume_frame, job);
	uint64_t at = f->first + f->cleared, first = at;
	uint32_t n = 0;
	int r = j->status;
	bool more = r == 0;
	f->phase = PHASE_MAP;
	if (r == 0)
		r = node_skip_holes(f->n, &first, f->first + f->blocks, j);
	if (first > at && more)
		more = map_blocks(f, first - at, BLK_EXTENT_HOLE | BLK_EXTENT_ZERO);
	if (r == 0 && more) {
		n = (uint32_t)MIN(f->blocks - f->cleared, (uint64_t)VOLUME_IO_BLOCKS);
		r = n ? node_lookup(f->n, first, n, f->pointers, j) : 0;
	}
	if (r == -EAGAIN) { /* what is being loaded ends before the request does */
		job_then(j, more ? map_step : map_full);
		return;
	}
	more &= r == 0;
	for (uint32_t i = 0; more && i < n && f->pointers[i].position; i++)
		more = map_blocks(f, 1, BLK_EXTENT_DATA);
	if (more && f->cleared < f->blocks) {
		job_then(j, map_step);
		return;
	}
	frame_finish(f, r);
}

/* ---- submit ---- */

void volume_node_submit(struct blk_node *node, struct blk_io *io)
{
	struct volume_frame *f = blk_frame_get(node);
	f->n = container_of(node, struct volume_node, node);
	f->io = io;
	f->edge[0] = f->edge[1] = NULL;
	f->copy = NULL;
	f->attempts = 0;
	f->cleared = 0;
	f->first = io->offset / BLOCK_BYTES;
	f->blocks = div_up(io->offset + io->length, BLOCK_BYTES) - f->first;
	f->head = (uint32_t)(io->offset % BLOCK_BYTES);
	f->tail = (uint32_t)((f->first + f->blocks) * BLOCK_BYTES - (io->offset + io->length));
	link_init(&f->link);
	volume_wait_begin(f);
	/* what was acknowledged here is durable, or nothing ever was: making a loop device flushes, and so does taking it away */
	if (io->op == BLK_FLUSH && (f->n->intake.gone || f->n->intake.clean))
		volume_node_finish(f, 0);
	else if (f->n->intake.gone)
		volume_node_finish(f, f->n->intake.gone);
	else if (f->n->intake.held)
		link_push(&f->n->intake.waiting, &f->link);
	else
		volume_node_start(f);
}

void volume_node_start(struct volume_frame *f)
{
	struct blk_node *node = &f->n->node;
	if (f->io->offset + f->io->length > node->info.size) { /* it waited, and what it waited for has become smaller meanwhile */
		volume_node_finish(f, -EIO);
		return;
	}
	f->n->intake.in_flight++;
	job_init(&f->job, node->loop);
	switch (f->io->op) {
	case BLK_READ:
		job_then(&f->job, read_lookup);
		break;
	case BLK_FLUSH:
		f->phase = PHASE_LOG;
		if (f->n->volume)
			volume_flush(f->n->volume, &f->flush, &f->job);
		job_then(&f->job, frame_end);
		break;
	case BLK_MAP:
		job_then(&f->job, map_step);
		break;
	default:
		write_start(f);
	}
}

/* ---- what operators see and ask ---- */

void volume_node_describe(struct blk_node *node, void (*item)(void *arg, const char *key, uint64_t value), void *arg)
{
	struct volume_node *n = container_of(node, struct volume_node, node);
	if (!n->volume)
		return;
	struct volume_counters c;
	volume_count(n->volume, &c);
	const struct {
		const char *key;
		uint64_t value;
	} items[] = {
		{ "records", c.records }, { "data_blocks", c.data_blocks }, { "appended_blocks", c.appended_blocks }, { "syncs", c.syncs },
		{ "checkpoints", c.checkpoints }, { "snapshots", c.snapshots }, { "replayed_records", c.replayed_records },
		{ "log_bytes", c.log_bytes }, { "nodes", c.nodes }, { "dirty_nodes", c.dirty_nodes }, { "node_hits", c.node_hits },
		{ "node_misses", c.node_misses }, { "read_retries", c.read_retries }, { "read_errors", c.read_errors },
		{ "read_damaged", c.read_damaged }, { "repairs_asked", c.repairs_asked }, { "hedged", c.hedged }, { "hedges_won", c.hedges_won }, { "mends", c.mends },
		{ "mapped_blocks", c.mapped_blocks }, { "live_blocks", c.live_blocks }, { "dead_blocks", c.dead_blocks },
		{ "segments_freed", c.segments_freed }, { "away", c.away }, { "catalog_away", c.catalog_away }, { "checkpoint_failed", (uint64_t)-c.checkpoint_failed }, { "failed", (uint64_t)-c.failed },
		{ "no_space", c.no_space }, { "timed_out", n->wait.timed_out },
	};
	for (unsigned i = 0; i < ARRAY_COUNT(items); i++)
		item(arg, items[i].key, items[i].value);
	sources_describe(volume_sources(n->volume), item, arg);
}

/* Nobody writes what is cut off, or the block it is cut through, while that is cleared. */
static int node_shrink(struct volume_node *n, uint64_t size, struct report *report)
{
	struct blk_node *node = &n->node;
	struct range range = { .start = size / BLOCK_BYTES, .end = div_up(node->info.size, BLOCK_BYTES), .exclusive = true };
	struct job j;
	node->info.size = size; /* from here on it is refused */
	job_init(&j, node->loop);
	range_acquire(&n->lock, &range, &j);
	fiber_wait(&j);
	int r = volume_resize(n->volume, size, /* force= */ true, report);
	range_release(&n->lock, &range);
	return r;
}

static int node_resize(struct volume_node *n, uint64_t size, bool force, struct report *report)
{
	fiber_mutex_lock(n->node.loop, &n->resizing);
	bool shrinks = force && size && size % 512 == 0 && size < n->node.info.size;
	int r = shrinks ? node_shrink(n, size, report) : volume_resize(n->volume, size, force, report);
	n->node.info.size = volume_size(n->volume);
	fiber_mutex_unlock(&n->resizing);
	return r;
}

int volume_node_control(struct blk_node *node, const char *verb, const char *const *args, char **ret_json, struct report *report)
{
	struct volume_node *n = container_of(node, struct volume_node, node);
	*ret_json = NULL;
	if (!n->volume && !n->reader)
		return report_set(report, -EBUSY, "it is being handed over, or was (ask who has it now)");
	if (!n->volume)
		return report_set(report, -EROFS, "it is attached to read only");
	if (strcmp(verb, "snapshot") == 0 && args[0])
		return volume_snapshot(n->volume, args[0], report);
	if (strcmp(verb, "checkpoint") == 0 && args[0] && strcmp(args[0], "soon") == 0) { /* an older one does it at once */
		volume_reap_soon(n->volume);
		return 0;
	}
	if (strcmp(verb, "checkpoint") == 0)
		return volume_checkpoint(n->volume);
	if (strcmp(verb, "status") == 0) {
		struct volume_status status;
		volume_status(n->volume, &status);
		*ret_json = volume_status_encode(&status);
		return *ret_json ? 0 : -ENOMEM;
	}
	if (strcmp(verb, "io-timeout") == 0 && args[0]) {
		int r = volume_set_io_timeout(n->volume, (uint32_t)strtoul(args[0], NULL, 10), report);
		volume_wait_kick(n);
		return r;
	}
	if (strcmp(verb, "called") == 0 && args[0])
		return volume_set_name(n->volume, args[0], report);
	if (strcmp(verb, "resize") == 0 && args[0])
		return node_resize(n, strtoull(args[0], NULL, 10), args[1] && strcmp(args[1], "force") == 0, report);
	return volume_group_control(n->volume, verb, args, ret_json, report);
}
