/* verify(node, oracle): proves a node right while it is being used. What changes the node is done to the oracle too (a
 * simpler node of at least the same size and, at the start, the same content); what is read from the node is read from the
 * oracle and compared. At the first difference it says on stderr where and what, and all requests from then on fail
 * with -EIO: nothing goes on working with data that was proved wrong.
 *
 * Overlapping requests take turns (range lock), so both sides see the same order. A buffer that may change while it is being
 * written (BLK_UNSTABLE) is copied first, or the two sides could be given different bytes. A discard zeroes, so that its
 * result is defined. After a write that failed, what it would have covered is undefined until it is written again
 * and isn't compared; there may be VERIFY_SPANS such places.
 *
 * What it can't do: compare allocation maps; and tell a wrong read from a reader that writes into its own buffer. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/components/pass.h"
#include "core/bytes.h"
#include "core/drivers.h"
#include "core/plant.h"
#include "core/range.h"

#define VERIFY_BUFFERS 8
#define VERIFY_BUFFER_BYTES (1u << 20) /* also the largest transfer */
#define VERIFY_SPANS 256

struct span {
	uint64_t start, end; /* bytes */
};

struct buffer {
	struct link link;
	uint8_t *data;
};

struct verify {
	struct blk_node node;
	struct range_lock lock;
	struct buffer buffer[VERIFY_BUFFERS];
	struct link buffers_free, buffer_waiters;
	struct span undefined[VERIFY_SPANS]; /* disjoint, in no order */
	unsigned undefined_count;
	bool stopped;
	char why[256];                       /* once stopped */
	uint64_t difference_offset;
	uint64_t compared_bytes;
};

/* verify_submit ─(range)─▶ verify_start ─(buffer)─▶ verify_go ─(both)────────────────────────▶ verify_judge
 *                                                      └─(ZERO, DISCARD: node)─▶ verify_second ─▶┘ */
struct verify_frame {
	struct job job;
	struct verify *verify;
	struct blk_io *io;
	struct blk_io child_io[2];
	struct range range;
	bool locked;
	struct buffer *buffer;
	struct iovec vec;
	struct link link;                    /* in buffer_waiters */
};

/* ---- what is undefined ---- */

static bool undefined_add(struct verify *v, uint64_t start, uint64_t end)
{
	if (v->undefined_count == VERIFY_SPANS)
		return false;
	v->undefined[v->undefined_count++] = (struct span){ start, end };
	return true;
}

/* False if there is no room for what a split leaves. */
static bool undefined_remove(struct verify *v, uint64_t start, uint64_t end)
{
	for (unsigned i = v->undefined_count; i-- > 0;) {
		struct span s = v->undefined[i];
		if (s.end <= start || s.start >= end)
			continue;
		v->undefined[i] = v->undefined[--v->undefined_count];
		if (s.start < start && !undefined_add(v, s.start, start))
			return false;
		if (s.end > end && !undefined_add(v, end, s.end))
			return false;
	}
	return true;
}

/* The next defined run in [at, end); false if there is none. */
static bool defined_next(const struct verify *v, uint64_t at, uint64_t end, struct span *ret)
{
	bool moved;
	do {
		moved = false;
		for (unsigned i = 0; i < v->undefined_count; i++)
			if (v->undefined[i].start <= at && v->undefined[i].end > at) {
				at = v->undefined[i].end;
				moved = true;
			}
	} while (moved);
	if (at >= end)
		return false;
	*ret = (struct span){ at, end };
	for (unsigned i = 0; i < v->undefined_count; i++)
		if (v->undefined[i].start > at)
			ret->end = MIN(ret->end, v->undefined[i].start);
	return true;
}

/* ---- stopping for good ---- */

static int verify_stop(struct verify *v, uint64_t offset)
{
	v->stopped = true;
	v->difference_offset = offset;
	fprintf(stderr, "aquifer: %s: %s; all its requests fail from now on\n", v->node.name, v->why);
	return -EIO;
}

static int verify_oracle_failed(struct verify *v, const struct blk_io *io, int status)
{
	snprintf(v->why, sizeof v->why, "%s of %" PRIu64 " bytes at %" PRIu64 ": the oracle %s failed: %s", blk_op_name(io->op), io->length,
		 io->offset, v->node.child[1]->name, strerror(-status));
	return verify_stop(v, io->offset);
}

static int verify_lost_track(struct verify *v, const struct blk_io *io)
{
	snprintf(v->why, sizeof v->why, "%s of %" PRIu64 " bytes at %" PRIu64 ": more than %u places are undefined because writes failed",
		 blk_op_name(io->op), io->length, io->offset, VERIFY_SPANS);
	return verify_stop(v, io->offset);
}

static void hex(const uint8_t *bytes, uint64_t count, char ret[3 * 8 + 1])
{
	ret[0] = '\0';
	for (unsigned i = 0; i < MIN(count, 8u); i++)
		sprintf(ret + i * 3, " %02x", bytes[i]);
}

/* `is` and `want` are `length` bytes at `offset`, and differ. */
static int verify_differs(struct verify *v, const struct blk_io *io, uint64_t offset, const uint8_t *is, const uint8_t *want, uint64_t length)
{
	uint64_t i = 0;
	while (is[i] == want[i])
		i++;
	char is_text[3 * 8 + 1], want_text[3 * 8 + 1];
	hex(is + i, length - i, is_text);
	hex(want + i, length - i, want_text);
	snprintf(v->why, sizeof v->why, "read of %" PRIu64 " bytes at %" PRIu64 ": first difference at byte %" PRIu64 ": %s has%s, the oracle %s has%s",
		 io->length, io->offset, offset + i, v->node.child[0]->name, is_text, v->node.child[1]->name, want_text);
	return verify_stop(v, offset + i);
}

/* ---- comparing ---- */

/* `want` is what the oracle has for the whole of `io`. Goes through the reader's iovec piece by piece. */
static int verify_compare(struct verify *v, const struct blk_io *io, const uint8_t *want)
{
	uint64_t at = io->offset;
	for (int i = 0; i < io->iov_count; i++) {
		const uint8_t *is = io->iov[i].iov_base;
		uint64_t start = at, end = at + io->iov[i].iov_len;
		struct span s;
		for (; defined_next(v, at, end, &s); at = s.end) {
			const uint8_t *a = is + (s.start - start), *b = want + (s.start - io->offset);
			if (!PLANTED(verify_skip_compare) && memcmp(a, b, s.end - s.start) != 0)
				return verify_differs(v, io, s.start, a, b, s.end - s.start);
			v->compared_bytes += s.end - s.start;
		}
		at = end;
	}
	return 0;
}

static int verify_judge_read(struct verify *v, struct verify_frame *f)
{
	if (f->child_io[0].status)
		return f->child_io[0].status;
	if (f->child_io[1].status)
		return verify_oracle_failed(v, f->io, f->child_io[1].status);
	return verify_compare(v, f->io, f->buffer->data);
}

static int verify_judge_change(struct verify *v, struct verify_frame *f)
{
	const struct blk_io *io = f->io;
	uint64_t end = io->offset + io->length;
	int status = f->child_io[0].status;
	if (status == -ENOTSUP && (io->flags & BLK_FAST_ONLY))
		return status; /* the node would have had to write: it has done nothing */
	if (!undefined_remove(v, io->offset, end) || (status && !undefined_add(v, io->offset, end)))
		return verify_lost_track(v, io);
	if (!status && f->child_io[1].status)
		return verify_oracle_failed(v, io, f->child_io[1].status);
	return status;
}

/* ---- requests ---- */

static void verify_finish(struct verify_frame *f, int status)
{
	struct verify *v = f->verify;
	struct blk_io *io = f->io;
	struct link *l = f->buffer ? link_pop(&v->buffer_waiters) : NULL;
	if (l) {
		struct verify_frame *next = container_of(l, struct verify_frame, link);
		next->buffer = f->buffer;
		job_put(&next->job, 0);
	} else if (f->buffer) {
		link_push(&v->buffers_free, &f->buffer->link);
	}
	if (f->locked)
		range_release(&v->lock, &f->range);
	blk_frame_put(&v->node, f);
	blk_end(io, status);
}

static void verify_judge(struct job *job)
{
	struct verify_frame *f = container_of(job, struct verify_frame, job);
	struct verify *v = f->verify;
	int status;
	if (v->stopped)
		status = -EIO;
	else if (f->io->op == BLK_READ)
		status = verify_judge_read(v, f);
	else if (f->io->op == BLK_FLUSH || f->io->op == BLK_MAP)
		status = job->status;
	else
		status = verify_judge_change(v, f);
	verify_finish(f, status);
}

/* The node has been zeroed; only then is the oracle, for the node may have said that it can't. */
static void verify_second(struct job *job)
{
	struct verify_frame *f = container_of(job, struct verify_frame, job);
	if (f->child_io[0].status == 0)
		blk_submit(f->verify->node.child[1], &f->child_io[1], job);
	job_then(job, verify_judge);
}

static void verify_requests(struct verify_frame *f)
{
	const struct verify *v = f->verify;
	const struct blk_io *io = f->io;
	f->child_io[0] = f->child_io[1] = pass_copy(io);
	if (f->buffer) {
		f->vec = (struct iovec){ f->buffer->data, io->length };
		f->child_io[1].iov = &f->vec;
		f->child_io[1].iov_count = 1;
	}
	if (io->op == BLK_WRITE && f->buffer) {
		iov_gather(io->iov, io->iov_count, 0, f->buffer->data, io->length);
		f->child_io[0].iov = &f->vec;
		f->child_io[0].iov_count = 1;
		f->child_io[0].flags = f->child_io[1].flags = io->flags & ~(unsigned)BLK_UNSTABLE;
	}
	if (io->op == BLK_DISCARD && !v->node.child[0]->info.discard_zeroes) {
		f->child_io[0].op = BLK_ZERO;
		f->child_io[0].flags = (io->flags & BLK_FUA) | BLK_MAY_UNMAP;
	}
	if (io->op == BLK_DISCARD || io->op == BLK_ZERO) {
		f->child_io[1].op = BLK_ZERO;
		f->child_io[1].flags = (io->flags & BLK_FUA) | BLK_MAY_UNMAP;
	}
}

static void verify_go(struct job *job)
{
	struct verify_frame *f = container_of(job, struct verify_frame, job);
	enum blk_op op = f->io->op;
	verify_requests(f);
	blk_submit(f->verify->node.child[0], &f->child_io[0], job);
	if (op == BLK_ZERO || op == BLK_DISCARD) {
		job_then(job, verify_second);
		return;
	}
	if (op != BLK_MAP)
		blk_submit(f->verify->node.child[1], &f->child_io[1], job);
	job_then(job, verify_judge);
}

static void verify_start(struct job *job)
{
	struct verify_frame *f = container_of(job, struct verify_frame, job);
	struct verify *v = f->verify;
	const struct blk_io *io = f->io;
	if (v->stopped) {
		verify_finish(f, -EIO);
		return;
	}
	if (io->op == BLK_READ || (io->op == BLK_WRITE && io->flags & BLK_UNSTABLE && !PLANTED(verify_skip_copy))) {
		struct link *l = link_pop(&v->buffers_free);
		f->buffer = l ? container_of(l, struct buffer, link) : NULL;
		if (!f->buffer) { /* verify_finish() of another hands its own over */
			job_hold(job);
			link_push(&v->buffer_waiters, &f->link);
		}
	}
	job_then(job, verify_go);
}

static void verify_submit(struct blk_node *node, struct blk_io *io)
{
	struct verify *v = container_of(node, struct verify, node);
	struct verify_frame *f = blk_frame_get(node);
	job_init(&f->job, node->loop);
	f->verify = v;
	f->io = io;
	f->buffer = NULL;
	link_init(&f->link);
	f->locked = io->op != BLK_FLUSH && io->op != BLK_MAP && !PLANTED(verify_skip_lock);
	if (f->locked) {
		f->range = (struct range){ .start = io->offset, .end = io->offset + io->length, .exclusive = io->op != BLK_READ };
		range_acquire(&v->lock, &f->range, &f->job);
	}
	job_then(&f->job, verify_start);
}

/* ---- opening, closing, looking ---- */

static void verify_info(struct blk_info *info, const struct blk_info *oracle)
{
	bool zero = info->can_zero && oracle->can_zero;
	info->block_size = MAX(info->block_size, oracle->block_size);
	info->preferred_size = MAX(info->preferred_size, info->block_size);
	info->memory_align = MAX(info->memory_align, oracle->memory_align);
	info->max_transfer = MIN(info->max_transfer ? info->max_transfer : UINT64_MAX, VERIFY_BUFFER_BYTES);
	if (oracle->max_transfer)
		info->max_transfer = MIN(info->max_transfer, oracle->max_transfer);
	info->can_discard = zero || (info->can_discard && info->discard_zeroes && oracle->can_zero);
	info->discard_zeroes = true;
	info->can_zero = zero;
	info->multi_client = info->multi_client && oracle->multi_client;
}

static int verify_close(struct blk_node *node)
{
	struct verify *v = container_of(node, struct verify, node);
	assert(range_lock_idle(&v->lock) && link_empty(&v->buffer_waiters));
	for (unsigned i = 0; i < VERIFY_BUFFERS; i++)
		free(v->buffer[i].data);
	return 0;
}

static int verify_open(struct blk_node *node, const struct blk_open *how, struct report *report)
{
	struct verify *v = container_of(node, struct verify, node);
	const struct blk_node *oracle = node->child[1];
	range_lock_init(&v->lock);
	link_init(&v->buffers_free);
	link_init(&v->buffer_waiters);
	if (oracle->info.size < node->info.size)
		return report_set(report, -EINVAL, "the oracle %s is smaller than %s (%" PRIu64 " bytes, it needs %" PRIu64 ")", oracle->name,
				  node->child[0]->name, oracle->info.size, node->info.size);
	if (oracle->info.read_only && !node->info.read_only && !how->read_only)
		return report_set(report, -EROFS, "the oracle %s is read only, so it can't follow what is written", oracle->name);
	verify_info(&node->info, &oracle->info);
	for (unsigned i = 0; i < VERIFY_BUFFERS; i++) {
		v->buffer[i].data = env_alloc_aligned(VERIFY_BUFFER_BYTES);
		if (!v->buffer[i].data) {
			verify_close(node);
			return report_set(report, -ENOMEM, "no memory for %u buffers of %u bytes", VERIFY_BUFFERS, VERIFY_BUFFER_BYTES);
		}
		link_push(&v->buffers_free, &v->buffer[i].link);
	}
	return 0;
}

static void verify_describe(struct blk_node *node, void (*item)(void *arg, const char *key, uint64_t value), void *arg)
{
	const struct verify *v = container_of(node, struct verify, node);
	item(arg, "compared_bytes", v->compared_bytes);
	item(arg, "undefined_ranges", v->undefined_count);
	item(arg, "stopped", v->stopped);
	if (v->stopped)
		item(arg, "difference_offset", v->difference_offset);
}

/* `difference`: why it stopped, as JSON; null if it hasn't. */
static int verify_control(struct blk_node *node, const char *verb, const char *const *args, char **ret_json, struct report *report)
{
	const struct verify *v = container_of(node, struct verify, node);
	if (strcmp(verb, "difference") != 0)
		return -EOPNOTSUPP;
	if (args[0])
		return report_set(report, -EINVAL, "difference takes no argument");
	int n = v->stopped ? asprintf(ret_json, "{\"offset\":%" PRIu64 ",\"what\":\"%s\"}", v->difference_offset, v->why)
			   : asprintf(ret_json, "null");
	return n < 0 ? -ENOMEM : 0;
}

const struct blk_driver driver_verify = {
	.name = "verify",
	.summary = "compares a node with an oracle and stops at the first difference",
	.children_min = 2,
	.children_max = 2,
	.writes_child = true,
	.node_size = sizeof(struct verify),
	.frame_size = sizeof(struct verify_frame),
	.open = verify_open,
	.close = verify_close,
	.submit = verify_submit,
	.describe = verify_describe,
	.control = verify_control,
};
