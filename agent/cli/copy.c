/* A few fibers, each: take the next piece, read it, write it.
 *
 *     cursor ──take──▶ [worker 0] read ▶ write ─┐
 *            ──take──▶ [worker 1] …             ├─▶ all ended ▶ flush
 *            ──take──▶ …                        ┘
 *
 * Taking asks the source's map, one fiber at a time, and skips what it calls zero. */
#include "agent/cli/copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"

#define COPY_WORKERS 8
#define COPY_PIECE (1u << 20)
#define COPY_EXTENTS 64

struct copy_state {
	struct copy *copy;
	struct env *env;
	struct fiber_mutex taking;
	uint64_t cursor;          /* everything before is taken */
	struct blk_extent extents[COPY_EXTENTS];
	unsigned extent, extent_count;
	uint32_t piece, block;    /* bytes */
	int status;
};

static uint64_t limit(uint64_t piece, const struct blk_node *n)
{
	if (!n || n->info.max_transfer == 0 || n->info.max_transfer >= piece)
		return piece;
	return n->info.max_transfer;
}

/* FIBER. The extents from the cursor on; without a map all is data. */
static void ask_map(struct copy_state *s)
{
	struct blk_node *n = s->copy->from;
	uint64_t left = n->info.size - s->cursor;
	struct blk_map map = { .extents = s->extents, .max = COPY_EXTENTS };
	int r = blk_map_wait(n, s->cursor, left, &map);
	if (r < 0 || map.count == 0 || map.extents[0].length == 0) {
		s->extents[0] = (struct blk_extent){ left, BLK_EXTENT_DATA };
		map.count = 1;
	}
	s->extent = 0;
	s->extent_count = map.count;
}

static void advance(struct copy_state *s, uint64_t n)
{
	s->cursor += n;
	while (n && s->extent < s->extent_count) {
		struct blk_extent *e = &s->extents[s->extent];
		uint64_t part = MIN(n, e->length);
		e->length -= part;
		n -= part;
		if (e->length == 0)
			s->extent++;
	}
}

/* FIBER. The next piece of data; *ret_length 0 at the end. Pieces begin at multiples of the larger block. */
static void take(struct copy_state *s, uint64_t *ret_offset, uint32_t *ret_length)
{
	uint64_t size = s->copy->from->info.size;
	*ret_length = 0;
	fiber_mutex_lock(&s->env->loop, &s->taking);
	while (s->cursor < size && s->status == 0) {
		if (s->extent == s->extent_count)
			ask_map(s);
		const struct blk_extent *e = &s->extents[s->extent];
		uint64_t left = size - s->cursor, n = MIN(e->length, left);
		if (e->flags & BLK_EXTENT_ZERO) {
			uint64_t skip = n == left ? n : round_down(n, s->block);
			if (skip) {
				advance(s, skip);
				continue;
			}
		}
		n = MIN(MIN(round_up(n, s->block), s->piece), left);
		*ret_offset = s->cursor;
		*ret_length = (uint32_t)n;
		advance(s, n);
		break;
	}
	fiber_mutex_unlock(&s->taking);
}

static bool all_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static void failed(struct copy_state *s, int r, uint64_t offset, bool write)
{
	if (s->status == 0 && s->copy->bad_bytes == 0) {
		s->copy->bad_offset = offset;
		s->copy->bad_write = write;
	}
	if (s->status == 0 && (write || !s->copy->keep_going))
		s->status = r;
}

/* FIBER. */
static void one_piece(struct copy_state *s, uint8_t *buffer, uint64_t offset, uint32_t length)
{
	struct copy *c = s->copy;
	int r = blk_read_wait(c->from, buffer, length, offset);
	if (r < 0) {
		failed(s, r, offset, /* write= */ false);
		c->bad_bytes += length;
		return;
	}
	c->read_bytes += length;
	if (!c->to || all_zero(buffer, length))
		return;
	/* The target's blocks may be larger than the source's: its size is rounded up to them. */
	uint32_t whole = (uint32_t)round_up(length, c->to->info.block_size);
	memset(buffer + length, 0, whole - length);
	r = blk_write_wait(c->to, buffer, whole, offset, 0);
	if (r < 0)
		failed(s, r, offset, /* write= */ true);
	else
		c->written_bytes += length;
}

static int worker(void *arg)
{
	struct copy_state *s = arg;
	struct copy *c = s->copy;
	uint8_t *buffer = env_alloc_aligned(COPY_PIECE + 4096);
	if (!buffer)
		return -ENOMEM;
	for (;;) {
		uint64_t offset;
		uint32_t length;
		if (c->stop && *c->stop && s->status == 0)
			s->status = -EINTR;
		take(s, &offset, &length);
		if (length == 0)
			break;
		one_piece(s, buffer, offset, length);
		if (c->progress)
			c->progress(c->arg, s->cursor);
	}
	free(buffer);
	return 0;
}

int copy_run(struct copy *c)
{
	struct env *env = c->from->env;
	struct copy_state s = { .copy = c, .env = env };
	s.block = MAX(MAX(c->from->info.block_size, c->to ? c->to->info.block_size : 1), 4096u);
	s.piece = (uint32_t)round_down(limit(limit(COPY_PIECE, c->from), c->to), s.block);
	if (s.piece == 0)
		return -EINVAL;
	fiber_mutex_init(&s.taking);
	struct job all;
	job_init(&all, &env->loop);
	for (int i = 0; i < COPY_WORKERS; i++) {
		job_hold(&all);
		int r = fiber_start(&env->loop, worker, &s, &all);
		if (r < 0)
			job_put(&all, r);
	}
	int r = fiber_wait(&all);
	if (s.status)
		return s.status;
	if (r == 0 && c->progress)
		c->progress(c->arg, c->from->info.size);
	if (r == 0 && c->to)
		r = blk_op_wait(c->to, BLK_FLUSH, 0, 0, 0);
	return r;
}
