/* cow: a writable layer in a file of its own over any parent, which is only read.
 *
 * Each 4 KiB block of the disk is the parent's, the layer's (data), or zero. Reads go where the block is, without a copy
 * and without locks. Writes to blocks that are the layer's go straight to the file. Other writes (allocating) own their
 * blocks' range while they run: they write whole blocks, filling the edges from the parent, and then change the
 * state. Allocating writes to different blocks run in parallel. When the map reaches the disk is cow_map's business.
 *
 * What can go wrong: a write that fails half-way leaves blocks of the parent as they were. After a sync of the file
 * has failed, data that was never committed may be gone: reading it fails, and the layer is as before it when it is opened
 * again. */
#include <errno.h>
#include <stdlib.h>

#include "agent/components/cow_file.h"
#include "agent/components/cow_map.h"
#include "core/bytes.h"
#include "core/drivers.h"
#include "core/plant.h"
#include "core/range.h"

#define PIECES 4
#define PIECE_SEGMENTS 16
#define PADS 32

static const uint8_t zeroes[COW_BLOCK];

/* Two blocks for the edges of an allocating write. */
struct pad {
	struct link link;
	uint8_t *block[2];
};

struct cow {
	struct blk_node node;
	struct blk_node *top; /* the file, a raw node of our own */
	struct cow_map map;
	struct range_lock lock;
	struct pad pad[PADS];
	uint8_t *pad_memory;
	struct link pads_free, pad_waiters;
	uint64_t allocating, padded; /* writes */
};

struct piece {
	struct blk_io io;
	struct iovec iov[PIECE_SEGMENTS], *heap;
};

/* READ                  cow_read ⟲ ──────────────────────────────────────────────▶ cow_end
 * WRITE to own blocks   cow_write_pieces ⟲ ─────────────────────────────────────▶ cow_settle ─▶ cow_end
 * WRITE, allocating     cow_alloc ─▶ [cow_pad_load ─▶] cow_pad_loaded ─▶ cow_write_pieces ⟲ ─▶ cow_written ─┘ (FUA: commit)
 *                                                                       (failed: cow_give_back ⟲) ─┘
 * ZERO, DISCARD         cow_clear ─▶ [allocating write for each partial block] ⟲ ─▶ (cow_punch ─▶ cow_punched) ⟲ ─▶ cow_settle ─▶ cow_end
 * FLUSH                 commit ─▶ cow_end
 * MAP                   cow_map_step ⟲ ─▶ cow_end */
struct cow_frame {
	struct job job;
	struct cow *cow;
	struct blk_io *io;
	struct range range;
	bool locked, settled;          /* settled: FUA went down with the write, or nothing is left to commit */
	uint64_t position;             /* bytes of what is being done that are done */
	struct piece piece[PIECES];
	unsigned piece_count;
	/* a write: `write_iov` holds [write_start, write_end) of the disk */
	uint64_t write_start, write_end;
	const struct iovec *write_iov;
	int write_count;
	struct iovec joined[PIECE_SEGMENTS], *joined_heap; /* pad, the user's memory, pad */
	struct pad *pad;
	struct link link;              /* in pad_waiters */
	struct cow_commit commit;
	struct cow_reserve reserve;    /* of what is being written or cleared */
	/* a map request */
	struct blk_map child_map;
	/* a clear: which edge comes next, and whether what is being punched is zero without a word in the map */
	unsigned edge;
	bool clear;
	struct iovec edge_iov;
};

static void cow_settle(struct job *j);
static void cow_end(struct job *j);
static void cow_write_pieces(struct job *j);
static void cow_clear(struct job *j);

/* What is seen of the parent: of one that has grown no more than the layer was made over. One that is smaller than that isn't opened, but may shrink. */
static uint64_t parent_end(const struct cow *c) { return MIN(c->map.header.parent_size, c->node.child[0]->info.size); }

static uint64_t block_of(uint64_t offset) { return offset / COW_BLOCK; }
static uint64_t blocks_upto(uint64_t end) { return div_up(end, COW_BLOCK); }

/* ---- pieces: requests to the parent or the file ---- */

static void pieces_reset(struct cow_frame *f)
{
	for (unsigned i = 0; i < f->piece_count; i++) {
		free(f->piece[i].heap);
		f->piece[i].heap = NULL;
	}
	f->piece_count = 0;
}

/* Starts a request for `length` bytes, `skip` bytes into the iovec. 0, or -ENOMEM for a very long iovec. */
static int piece_start(struct cow_frame *f, struct blk_node *to, enum blk_op op, unsigned flags, uint64_t offset,
		       uint64_t length, const struct iovec *iov, int iov_count, uint64_t skip)
{
	struct piece *p = &f->piece[f->piece_count];
	p->heap = NULL;
	p->io = (struct blk_io){ .op = op, .flags = flags, .offset = offset, .length = length };
	if (iov && skip == 0 && length == iov_bytes(iov, iov_count)) {
		p->io.iov = iov;
		p->io.iov_count = iov_count;
	} else if (iov) {
		p->io.iov = p->iov;
		p->io.iov_count = iov_slice(iov, iov_count, skip, length, p->iov, PIECE_SEGMENTS);
		if (p->io.iov_count < 0) {
			p->heap = malloc((size_t)iov_count * sizeof *p->heap);
			if (!p->heap)
				return -ENOMEM;
			p->io.iov = p->heap;
			p->io.iov_count = iov_slice(iov, iov_count, skip, length, p->heap, iov_count);
		}
	}
	f->piece_count++;
	blk_submit(to, &p->io, &f->job);
	return 0;
}

/* How far from `offset` on, but not beyond `end`, blocks are in the same state and the same group. */
static uint64_t run_end(const struct cow *c, uint64_t offset, uint64_t end, enum cow_state state)
{
	uint64_t group_end = round_down(offset, COW_GROUP_DATA) + COW_GROUP_DATA, at = offset;
	end = MIN(end, group_end);
	while (at < end && cow_map_state(&c->map, block_of(at)) == state)
		at = round_down(at, COW_BLOCK) + COW_BLOCK;
	return MIN(at, end);
}

static bool all_in_state(const struct cow *c, uint64_t offset, uint64_t end, enum cow_state state)
{
	for (uint64_t b = block_of(offset); b < blocks_upto(end); b++)
		if (cow_map_state(&c->map, b) != state)
			return false;
	return true;
}

/* ---- read ---- */

/* One run at f->position: starts a request or fills in zeroes. Returns the bytes it covers, or -errno. */
static int64_t cow_read_run(struct cow_frame *f)
{
	struct cow *c = f->cow;
	struct blk_io *io = f->io;
	struct blk_node *parent = c->node.child[0];
	uint64_t at = io->offset + f->position, end = io->offset + io->length;
	enum cow_state state = cow_map_state(&c->map, block_of(at));
	end = run_end(c, at, end, state);
	int r = 0;
	if (state == COW_PARENT && at < parent_end(c)) {
		end = MIN(end, parent_end(c));
		r = piece_start(f, parent, BLK_READ, 0, at, end - at, io->iov, io->iov_count, f->position);
	} else if (state == COW_DATA) {
		r = cow_map_check_data(&c->map, block_of(at));
		if (r == 0)
			r = piece_start(f, c->top, BLK_READ, 0, cow_place(at), end - at, io->iov, io->iov_count, f->position);
	} else {
		iov_zero(io->iov, io->iov_count, f->position, end - at);
	}
	return r < 0 ? r : (int64_t)(end - at);
}

/* What was read while a sync failed may have been forgotten just before. */
static void cow_read_done(struct job *j)
{
	struct cow_frame *f = container_of(j, struct cow_frame, job);
	struct cow *c = f->cow;
	const struct blk_io *io = f->io;
	for (uint64_t b = block_of(io->offset); c->map.sync_failed && j->status == 0 && b < blocks_upto(io->offset + io->length); b++)
		if (cow_map_state(&c->map, b) == COW_DATA)
			j->status = cow_map_check_data(&c->map, b);
	job_then(j, cow_end);
}

static void cow_read(struct job *j)
{
	struct cow_frame *f = container_of(j, struct cow_frame, job);
	pieces_reset(f);
	while (j->status == 0 && f->position < f->io->length && f->piece_count < PIECES) {
		int64_t n = cow_read_run(f);
		if (n < 0)
			j->status = (int)n;
		else
			f->position += (uint64_t)n;
	}
	bool more = j->status == 0 && f->position < f->io->length;
	job_then(j, more ? cow_read : cow_read_done);
}

/* ---- write ---- */

static void cow_written(struct job *j);

/* Writes write_iov to the file, a piece per group. */
static void cow_write_pieces(struct job *j)
{
	struct cow_frame *f = container_of(j, struct cow_frame, job);
	uint64_t length = f->write_end - f->write_start;
	unsigned flags = (f->settled ? f->io->flags & BLK_FUA : 0) | (f->io->flags & BLK_UNSTABLE);
	pieces_reset(f);
	while (j->status == 0 && f->position < length && f->piece_count < PIECES) {
		uint64_t at = f->write_start + f->position;
		uint64_t n = MIN(length - f->position, COW_GROUP_DATA - at % COW_GROUP_DATA);
		int r = piece_start(f, f->cow->top, BLK_WRITE, flags, cow_place(at), n, f->write_iov, f->write_count,
				    f->position);
		if (r < 0)
			j->status = r;
		f->position += n;
	}
	bool more = j->status == 0 && f->position < length;
	job_then(j, more ? cow_write_pieces : f->locked ? cow_written : cow_settle);
}

static void pad_put(struct cow_frame *f)
{
	struct cow *c = f->cow;
	struct pad *p = f->pad;
	struct link *l = link_pop(&c->pad_waiters);
	f->pad = NULL;
	if (l) {
		struct cow_frame *next = container_of(l, struct cow_frame, link);
		next->pad = p;
		job_put(&next->job, 0);
	} else {
		link_push(&c->pads_free, &p->link);
	}
}

static void cow_alloc_over(struct job *j)
{
	const struct cow_frame *f = container_of(j, struct cow_frame, job);
	if (f->io->op == BLK_WRITE)
		cow_settle(j);
	else
		cow_clear(j); /* a write for an edge */
}

/* Blocks that have not become the layer's take no space. */
static void cow_give_back(struct job *j)
{
	struct cow_frame *f = container_of(j, struct cow_frame, job);
	struct cow *c = f->cow;
	uint64_t start = round_down(f->write_start, COW_BLOCK), end = round_up(f->write_end, COW_BLOCK);
	pieces_reset(f);
	while (start + f->position < end && f->piece_count < PIECES) {
		uint64_t at = start + f->position;
		enum cow_state state = cow_map_state(&c->map, block_of(at));
		uint64_t to = run_end(c, at, end, state);
		if (state != COW_DATA)
			piece_start(f, c->top, BLK_DISCARD, 0, cow_place(at), to - at, NULL, 0, 0);
		f->position += to - at;
	}
	job_then(j, start + f->position < end ? cow_give_back : cow_alloc_over);
}

/* An allocating write has reached the file: its blocks are the layer's now. */
static void cow_written(struct job *j)
{
	struct cow_frame *f = container_of(j, struct cow_frame, job);
	bool in_part = j->status != 0 && f->position > 0;
	pieces_reset(f);
	free(f->joined_heap);
	f->joined_heap = NULL;
	if (f->pad)
		pad_put(f);
	if (j->status == 0)
		cow_map_set(&f->cow->map, block_of(f->write_start),
			    blocks_upto(f->write_end) - block_of(f->write_start), COW_DATA);
	f->position = 0;
	if (in_part && f->cow->top->info.can_discard && !PLANTED(cow_keeps_failed))
		cow_give_back(j);
	else
		cow_alloc_over(j);
}

/* Is the block at the edge `offset` cut there, and not the layer's yet? Then it must be filled up. */
static bool needs_pad(const struct cow_frame *f, uint64_t offset)
{
	return offset % COW_BLOCK && cow_map_state(&f->cow->map, block_of(offset)) != COW_DATA;
}

static void cow_pad_load(struct job *j);
static void cow_pad_loaded(struct job *j);

/* The range is owned. [write_start, write_end) is to be written from write_iov. Meanwhile the map gets its room, or else it fails. */
static void cow_alloc(struct job *j)
{
	struct cow_frame *f = container_of(j, struct cow_frame, job);
	struct cow *c = f->cow;
	f->position = 0;
	c->allocating++;
	j->status = cow_map_prepare(&c->map, &f->reserve, block_of(f->write_start),
				    blocks_upto(f->write_end) - block_of(f->write_start), j);
	if (j->status == 0 && (needs_pad(f, f->write_start) || needs_pad(f, f->write_end))) {
		struct link *l = link_pop(&c->pads_free);
		f->pad = l ? container_of(l, struct pad, link) : NULL;
		c->padded++;
		if (!f->pad) { /* pad_put() of another hands its own over */
			job_hold(j);
			link_push(&c->pad_waiters, &f->link);
		}
		job_then(j, cow_pad_load);
		return;
	}
	cow_write_pieces(j);
}

/* Reads the block around an edge into a pad. */
static int pad_load(struct cow_frame *f, unsigned which, uint64_t edge)
{
	struct cow *c = f->cow;
	struct blk_node *parent = c->node.child[0];
	uint64_t start = round_down(edge, COW_BLOCK);
	struct iovec *iov = &f->piece[f->piece_count].iov[0];
	*iov = (struct iovec){ f->pad->block[which], COW_BLOCK };
	memset(iov->iov_base, 0, COW_BLOCK);
	if (cow_map_state(&c->map, block_of(edge)) != COW_PARENT || start >= parent_end(c))
		return 0;
	iov->iov_len = MIN(COW_BLOCK, parent_end(c) - start);
	return piece_start(f, parent, BLK_READ, 0, start, iov->iov_len, iov, 1, 0);
}

static void cow_pad_load(struct job *j)
{
	struct cow_frame *f = container_of(j, struct cow_frame, job);
	int r = 0;
	f->piece_count = 0;
	if (needs_pad(f, f->write_start))
		r = pad_load(f, 0, f->write_start);
	if (r == 0 && needs_pad(f, f->write_end))
		r = pad_load(f, 1, f->write_end);
	if (r < 0)
		j->status = r;
	job_then(j, cow_pad_loaded);
}

/* Puts the pads before and behind what is written, which then is whole blocks at those edges. */
static int join_pads(struct cow_frame *f)
{
	bool head = needs_pad(f, f->write_start), tail = needs_pad(f, f->write_end);
	uint64_t before = f->write_start % COW_BLOCK, behind = COW_BLOCK - f->write_end % COW_BLOCK;
	struct iovec *v = f->joined;
	int n = 0;
	if (f->write_count + 2 > PIECE_SEGMENTS) {
		v = f->joined_heap = malloc((size_t)(f->write_count + 2) * sizeof *v);
		if (!v)
			return -ENOMEM;
	}
	if (head)
		v[n++] = (struct iovec){ f->pad->block[0], before };
	for (int i = 0; i < f->write_count; i++)
		v[n++] = f->write_iov[i];
	if (tail)
		v[n++] = (struct iovec){ f->pad->block[1] + f->write_end % COW_BLOCK, behind };
	if (head)
		f->write_start -= before;
	if (tail)
		f->write_end += behind;
	f->write_iov = v;
	f->write_count = n;
	return 0;
}

static void cow_pad_loaded(struct job *j)
{
	struct cow_frame *f = container_of(j, struct cow_frame, job);
	pieces_reset(f);
	if (j->status == 0)
		j->status = join_pads(f);
	cow_write_pieces(j);
}

/* Owns the blocks of the request from the next step on. */
static void cow_lock(struct cow_frame *f)
{
	f->range = (struct range){ .start = round_down(f->io->offset, COW_BLOCK),
				   .end = round_up(f->io->offset + f->io->length, COW_BLOCK), .exclusive = true };
	f->locked = true;
	if (!PLANTED(cow_skip_lock))
		range_acquire(&f->cow->lock, &f->range, &f->job);
}

static void cow_write(struct cow_frame *f)
{
	struct cow *c = f->cow;
	struct blk_io *io = f->io;
	uint64_t end = io->offset + io->length;
	f->write_start = io->offset;
	f->write_end = end;
	f->write_iov = io->iov;
	f->write_count = io->iov_count;
	if (all_in_state(c, io->offset, end, COW_DATA)) {
		f->settled = PLANTED(cow_fua_unsettled) ||
			     cow_map_settled(&c->map, block_of(io->offset), blocks_upto(end) - block_of(io->offset));
		cow_write_pieces(&f->job);
		return;
	}
	cow_lock(f);
	job_then(&f->job, cow_alloc);
}

/* ---- zero and discard ---- */

static void cow_punch(struct job *j);

/* Zeroes that part of a block at an edge of the request, if it is cut there; false if there is nothing to write. */
static bool cow_clear_edge(struct cow_frame *f, unsigned edge)
{
	struct blk_io *io = f->io;
	uint64_t start = io->offset, end = io->offset + io->length;
	bool one_block = block_of(start) == block_of(end - 1);
	if (edge == 0)
		end = MIN(end, round_up(start, COW_BLOCK));
	else
		start = MAX(start, round_down(end, COW_BLOCK));
	if (start >= end || end - start == COW_BLOCK || (edge == 1 && one_block && io->offset % COW_BLOCK))
		return false;
	if (io->op == BLK_DISCARD || cow_map_state(&f->cow->map, block_of(start)) == COW_ZERO)
		return false;
	f->write_start = start;
	f->write_end = end;
	f->edge_iov = (struct iovec){ (void *)(uintptr_t)zeroes, end - start };
	f->write_iov = &f->edge_iov;
	f->write_count = 1;
	return true;
}

/* The range is owned. First the edges, by writing; then whole blocks, in the map. */
static void cow_clear(struct job *j)
{
	struct cow_frame *f = container_of(j, struct cow_frame, job);
	while (j->status == 0 && f->edge < 2)
		if (cow_clear_edge(f, f->edge++)) {
			cow_alloc(j);
			return;
		}
	f->position = 0;
	cow_punch(j);
}

/* From there on the group is zero, and the map has nothing to say about it, as of most of a large layer over a small image. */
static bool is_clear(const struct cow *c, uint64_t offset) { return offset >= parent_end(c) && cow_map_is_untouched(&c->map, block_of(offset)); }

/* The part that cow_punch() has begun, to f->position. */
static void cow_punched(struct job *j)
{
	struct cow_frame *f = container_of(j, struct cow_frame, job);
	uint64_t start = round_up(f->io->offset, COW_BLOCK), end = round_down(f->io->offset + f->io->length, COW_BLOCK);
	pieces_reset(f);
	if (j->status == 0 && !f->clear)
		cow_map_set(&f->cow->map, block_of(f->write_start), block_of(start + f->position - f->write_start), PLANTED(cow_zero_parent) ? COW_PARENT : COW_ZERO);
	job_then(j, j->status == 0 && start + f->position < end ? cow_punch : cow_settle);
}

/* Whole blocks become zero, and what they took of the file is given back; also where the map knows of nothing: what was written and not
 * committed before a kill is in the file all the same. And also where the map gets no room: then there may be some the next time. */
static void cow_punch(struct job *j)
{
	struct cow_frame *f = container_of(j, struct cow_frame, job);
	struct cow *c = f->cow;
	uint64_t start = round_up(f->io->offset, COW_BLOCK), end = round_down(f->io->offset + f->io->length, COW_BLOCK);
	bool punch = (f->io->op == BLK_DISCARD || (f->io->flags & BLK_MAY_UNMAP)) && c->top->info.can_discard;
	pieces_reset(f);
	if (j->status < 0 || start + f->position >= end) {
		cow_settle(j);
		return;
	}
	f->write_start = start + f->position;
	f->clear = is_clear(c, f->write_start);
	for (unsigned n = 0; start + f->position < end && n < PIECES && is_clear(c, start + f->position) == f->clear; n++) {
		uint64_t at = start + f->position, length = MIN(end - at, COW_GROUP_DATA - at % COW_GROUP_DATA);
		if (punch)
			piece_start(f, c->top, BLK_DISCARD, 0, cow_place(at), length, NULL, 0, 0);
		f->position += length;
	}
	int r = f->clear ? 0 : cow_map_prepare(&c->map, &f->reserve, block_of(f->write_start), block_of(start + f->position - f->write_start), j);
	j->status = j->status ? j->status : r;
	job_then(j, cow_punched);
}

/* ---- allocation map ---- */

static void map_add(struct blk_map *map, uint64_t length, uint32_t flags)
{
	if (map->count > 0 && map->extents[map->count - 1].flags == flags)
		map->extents[map->count - 1].length += length;
	else
		map->extents[map->count++] = (struct blk_extent){ length, flags };
}

/* Takes over what the parent said, which is behind our own extents in the same array. */
static void map_take(struct cow_frame *f)
{
	struct blk_map *map = f->io->map, *child = &f->child_map;
	uint64_t left = f->piece[0].io.length;
	for (unsigned i = 0; i < child->count && left > 0; i++) {
		struct blk_extent e = child->extents[i];
		e.length = MIN(e.length, left);
		map_add(map, e.length, e.flags);
		f->position += e.length;
		left -= e.length;
	}
	child->count = 0;
}

static void cow_map_step(struct job *j)
{
	struct cow_frame *f = container_of(j, struct cow_frame, job);
	struct cow *c = f->cow;
	struct blk_io *io = f->io;
	struct blk_map *map = io->map;
	struct blk_node *parent = c->node.child[0];
	if (f->piece_count && j->status == 0)
		map_take(f);
	pieces_reset(f);
	while (j->status == 0 && f->position < io->length && map->count < map->max) {
		uint64_t at = io->offset + f->position;
		enum cow_state state = cow_map_state(&c->map, block_of(at));
		uint64_t end = run_end(c, at, io->offset + io->length, state);
		if (state == COW_PARENT && at < parent_end(c)) {
			end = MIN(end, parent_end(c));
			f->child_map = (struct blk_map){ .extents = map->extents + map->count, .max = map->max - map->count };
			struct piece *p = &f->piece[f->piece_count++];
			p->heap = NULL;
			p->io = (struct blk_io){ .op = BLK_MAP, .offset = at, .length = end - at, .map = &f->child_map };
			blk_submit(parent, &p->io, j);
			job_then(j, cow_map_step);
			return;
		}
		map_add(map, end - at, state == COW_DATA ? BLK_EXTENT_DATA : BLK_EXTENT_HOLE | BLK_EXTENT_ZERO);
		f->position += end - at;
	}
	job_then(j, cow_end);
}

/* ---- requests ---- */

static void cow_submit(struct blk_node *node, struct blk_io *io)
{
	struct cow *c = container_of(node, struct cow, node);
	struct cow_frame *f = blk_frame_get(node);
	job_init(&f->job, node->loop);
	f->cow = c;
	f->io = io;
	f->locked = f->settled = false;
	f->position = 0;
	f->piece_count = 0;
	f->pad = NULL;
	f->joined_heap = NULL;
	f->edge = 0;
	switch (io->op) {
	case BLK_READ:
		cow_read(&f->job);
		break;
	case BLK_WRITE:
		cow_write(f);
		break;
	case BLK_FLUSH:
		cow_map_commit(&c->map, &f->commit, &f->job);
		job_then(&f->job, cow_end);
		break;
	case BLK_DISCARD:
	case BLK_ZERO:
		cow_lock(f);
		job_then(&f->job, cow_clear);
		break;
	case BLK_MAP:
		io->map->count = 0;
		cow_map_step(&f->job);
		break;
	case BLK_OP_COUNT:
		abort();
	}
}

/* The last step but one of everything that changes the disk. */
static void cow_settle(struct job *j)
{
	struct cow_frame *f = container_of(j, struct cow_frame, job);
	if (j->status == 0 && (f->io->flags & BLK_FUA) && !f->settled)
		cow_map_commit(&f->cow->map, &f->commit, j);
	job_then(j, cow_end);
}

static void cow_end(struct job *j)
{
	struct cow_frame *f = container_of(j, struct cow_frame, job);
	struct cow *c = f->cow;
	struct blk_io *io = f->io;
	int status = j->status;
	pieces_reset(f);
	if (f->locked && !PLANTED(cow_skip_lock))
		range_release(&c->lock, &f->range);
	blk_frame_put(&c->node, f);
	blk_end(io, status);
}

/* ---- opening ---- */

static int cow_pads_make(struct cow *c)
{
	link_init(&c->pads_free);
	link_init(&c->pad_waiters);
	c->pad_memory = env_alloc_aligned(2 * PADS * COW_BLOCK);
	for (unsigned i = 0; c->pad_memory && i < PADS; i++) {
		for (unsigned k = 0; k < 2; k++)
			c->pad[i].block[k] = c->pad_memory + (2 * i + k) * COW_BLOCK;
		link_push(&c->pads_free, &c->pad[i].link);
	}
	return c->pad_memory ? 0 : -ENOMEM;
}

/* FIBER. The file as a raw node of our own: alignment, merging, locks and flushes are its business. */
static int cow_open_top(struct cow *c, const struct blk_open *how, struct report *report)
{
	const char *key[] = { "file", "direct" };
	const char *value[] = { option_string(how->options, "file"), option_bool(how->options, "direct") ? "on" : "off" };
	struct option_values options;
	char name[64];
	int r = option_parse(driver_raw.options, key, value, ARRAY_COUNT(key), &options, report);
	if (r < 0)
		return r;
	struct blk_open top = *how;
	snprintf(name, sizeof name, "%.58s.file", c->node.name);
	top.options = &options;
	top.node_name = name;
	return blk_open(c->node.env, &driver_raw, &top, NULL, 0, &c->top, report);
}

static uint64_t smaller_limit(uint64_t a, uint64_t b) { return a == 0 || (b != 0 && b < a) ? b : a; }

static void cow_describe_info(struct cow *c, bool read_only)
{
	const struct blk_info *parent = &c->node.child[0]->info, *top = &c->top->info;
	c->node.info = (struct blk_info){
		.size = c->map.header.size,
		.block_size = MAX(parent->block_size, top->block_size),
		.preferred_size = COW_BLOCK,
		.memory_align = MAX(parent->memory_align, top->memory_align),
		/* an allocating write may grow by a block at each end */
		.max_transfer = smaller_limit(parent->max_transfer, top->max_transfer - 2 * COW_BLOCK),
		.read_only = read_only,
		.can_discard = !read_only,
		.can_zero = !read_only,
		.can_map = true,
		.multi_client = true,
		.rotational = parent->rotational || top->rotational,
		.identity = c->map.header.id,
	};
}

/* Is it the parent that the layer was made over? */
static int cow_check_parent(const struct cow *c, bool rebase, const struct blk_open *how, const char *path, struct report *report)
{
	const struct cow_header *h = &c->map.header;
	const struct blk_info *parent = &c->node.child[0]->info;
	const char *below = how->below ? how->below : c->node.child[0]->name;
	char was[24], is[24];
	if (cow_header_fits(h, parent->size, parent->identity, rebase))
		return 0;
	if (parent->size < h->parent_size)
		return report_set(report, -EINVAL, "%s was made over a parent of %s, but %s has %s (give it the parent it was made with, or make this one as large again)", path,
				  format_size(h->parent_size, was), below, format_size(parent->size, is));
	if (h->parent_identity && parent->identity)
		return report_set(report, -EINVAL, "%s was made over another parent than %s (give it that; or, if this one has the same content, rebase=on)", path, below);
	return report_set(report, -EINVAL, "%s was made over a parent of %s, but %s has %s (give it the parent it was made with; or, if this one is that and has grown, rebase=on)",
			  path, format_size(h->parent_size, was), below, format_size(parent->size, is));
}

/* FIBER. Notes whose content it stands on: of a layer from before that was noted, and of one that is told to stand on another. */
static int cow_note_parent(struct cow *c, bool rebase)
{
	uint64_t identity = c->node.child[0]->info.identity;
	if (c->map.read_only || c->map.header.parent_identity == identity || (!rebase && identity == 0))
		return 0;
	int r = cow_map_note_parent(&c->map, identity);
	return r == -ENOSPC && !rebase ? 0 : r; /* it can be read all the same */
}

static int cow_open(struct blk_node *node, const struct blk_open *how, struct report *report)
{
	struct cow *c = container_of(node, struct cow, node);
	const char *path = option_string(how->options, "file");
	const struct blk_info *parent = &node->child[0]->info;
	bool rebase = option_bool(how->options, "rebase");
	int r = 0;
	if (parent->block_size > COW_BLOCK)
		return report_set(report, -ENOTSUP, "the parent's blocks are larger than %llu bytes", (unsigned long long)COW_BLOCK);
	range_lock_init(&c->lock);
	if (!how->read_only)
		r = cow_file_prepare(node->env, path, option_number(how->options, "size"), parent, rebase, report);
	if (r == 0)
		r = cow_open_top(c, how, report);
	if (r < 0)
		return r;
	r = cow_pads_make(c);
	if (r == 0)
		r = cow_map_load(&c->map, c->top, how->read_only, how->force, path, report);
	if (r == 0)
		r = cow_check_parent(c, rebase, how, path, report);
	if (r == 0)
		r = cow_note_parent(c, rebase);
	if (r == 0 && !how->read_only && (r = cow_map_reserve_header(&c->map)) == -ENOSPC)
		r = 0; /* it can be read all the same */
	if (r < 0) {
		c->map.read_only = true; /* nothing is written to what is refused */
		cow_map_close(&c->map);
		blk_close(c->top);
		free(c->pad_memory);
		return report_set(report, r, "%s: %s", path, strerror(-r));
	}
	cow_describe_info(c, how->read_only);
	return 0;
}

static int cow_close(struct blk_node *node)
{
	struct cow *c = container_of(node, struct cow, node);
	int r = cow_map_close(&c->map);
	int closed = blk_close(c->top);
	free(c->pad_memory);
	return r < 0 ? r : closed;
}

static void cow_describe(struct blk_node *node, void (*item)(void *arg, const char *key, uint64_t value), void *arg)
{
	const struct cow *c = container_of(node, struct cow, node);
	item(arg, "allocating", c->allocating);
	item(arg, "padded", c->padded);
	item(arg, "commits", c->map.commits);
	item(arg, "map_pages", c->map.page_count);
	item(arg, "map_pages_written", c->map.pages_written);
	driver_raw.describe(c->top, item, arg);
}

static const struct option_spec cow_options[] = {
	{ "direct", OPTION_BOOL, .help = "bypass the page cache (default on)", .number_default = 1 },
	{ "file", OPTION_STRING, .positional = true, .required = true, .help = "the layer's file; made if it is missing" },
	{ "rebase", OPTION_BOOL, .help = "the parent is another than it was made over, with the same content (default off)" },
	{ "size", OPTION_SIZE, .help = "of the disk, when the file is made or to grow it (default: the parent's)",
	  .number_min = 512, .number_max = COW_SIZE_MAX },
	{ NULL },
};

const struct blk_driver driver_cow = {
	.name = "cow",
	.summary = "a writable layer over a parent that is only read",
	.options = cow_options,
	.children_min = 1,
	.children_max = 1,
	.node_size = sizeof(struct cow),
	.frame_size = sizeof(struct cow_frame),
	.open = cow_open,
	.close = cow_close,
	.submit = cow_submit,
	.describe = cow_describe,
};
