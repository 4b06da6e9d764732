/* What is free of a copy (R28): a bitmap beside the slot, in which bits are only ever set.
 *
 * It has no effect on a copy that isn't sealed: the length of that is found by its records. In sealed ones, runs of
 * PUNCH_BLOCKS and more become holes (segment_dir_late.c), when the bitmap is durable: before, a power loss could leave holes in what nothing says is free, which
 * looks damaged, at all servers at once, until its sender, who has no answer, sends it again. The rest waits until the copy is packed (R30). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/segment/segment_dir.h"

int copy_find(const struct copy *c, uint32_t block, uint32_t blocks, uint64_t *ret_offset)
{
	if (c->trim && c->slot.sealed)
		for (uint32_t b = block; b < block + blocks && b < c->slot.length; b++)
			if (bit_get(c->trim, b))
				return -ENODATA;
	if (c->mapless)
		return -EIO;
	*ret_offset = COPY_BASE + (uint64_t)block * BLOCK_BYTES;
	return c->map ? copy_map_find(c->map, block, blocks, ret_offset) : 0;
}

/* ---- loading ---- */

void copy_trim_forget(struct copy *c)
{
	free(c->trim);
	free(c->map);
	c->trim = NULL;
	c->map = NULL;
	c->mapless = false;
	c->trimmed = 0;
}

/* What is beyond the cut doesn't count. */
static void trim_count(struct copy *c)
{
	uint32_t blocks = c->slot.sealed ? c->slot.length : c->slot.header.size_blocks;
	c->trimmed = 0;
	for (uint32_t b = 0; c->trim && b < blocks; b++)
		c->trimmed += bit_get(c->trim, b);
}

/* The newest bitmap that isn't torn. */
static int trim_read(struct copy *c, const uint8_t *slots)
{
	uint64_t generation = 0;
	for (unsigned i = 0; i < SLOT_COUNT; i++) {
		struct copy_slot s;
		uint8_t bits[BITMAP_BYTES];
		if (copy_slot_decode(slots + i * BLOCK_BYTES, &s) < 0 || s.header.segment != c->id || s.generation < generation ||
		    !copy_slot_trim(slots + i * BLOCK_BYTES, &s, bits))
			continue;
		if (!c->trim)
			c->trim = malloc(BITMAP_BYTES);
		if (!c->trim)
			return -ENOMEM;
		memcpy(c->trim, bits, BITMAP_BYTES);
		generation = s.generation;
	}
	trim_count(c);
	return 0;
}

/* A copy without its map counts for nothing, but it can be told, given up and replaced. */
static int map_read(struct copy *c)
{
	uint8_t *block = env_alloc_aligned(BLOCK_BYTES);
	struct copy_map *m = malloc(sizeof *m);
	int r = block && m ? -EIO : -ENOMEM;
	for (int try = 0; try < 3 && (r == -EIO || r == -EBADMSG || r == -ENODATA); try++) { /* a bit may flip on the way */
		r = file_read_wait(c->file, block, BLOCK_BYTES, MAP_BASE, NULL);
		if (r == 0)
			r = copy_map_decode(block, c->id, m);
	}
	free(block);
	if (r == 0)
		c->map = m;
	else
		free(m);
	c->mapless = r == -EIO || r == -EBADMSG || r == -ENODATA;
	return c->mapless ? 0 : r;
}

int copy_trim_load(struct copy *c, const uint8_t *slots)
{
	copy_trim_forget(c);
	int r = trim_read(c, slots);
	if (r == 0 && c->slot.packed)
		r = map_read(c);
	return r;
}

/* ---- runs of free blocks ---- */

struct run {
	uint32_t next;          /* block where the search goes on */
	uint32_t place;         /* of `next` among the blocks of the file */
	uint32_t first, count;  /* found: places */
	bool given;
};

/* The next run of blocks that are free and neighbours in the file. */
static bool run_next(const struct copy *c, const uint8_t *given, struct run *r)
{
	r->count = 0;
	r->given = given == NULL;
	for (; c->trim && r->next < c->slot.length; r->next++) {
		if (c->map && !bit_get(c->map->bits, r->next))
			continue;
		if (bit_get(c->trim, r->next)) {
			r->first = r->count++ ? r->first : r->place;
			r->given |= given && bit_get(given, r->next);
		} else if (r->count) {
			return true;
		}
		r->place++;
	}
	return r->count > 0;
}

uint32_t copy_runs(const struct copy *c, const uint8_t *given, uint32_t least)
{
	uint32_t blocks = 0;
	for (struct run run = { 0 }; run_next(c, given, &run);)
		blocks += run.count >= least && run.given ? run.count : 0;
	return blocks;
}

uint32_t copy_present(const struct copy *c)
{
	if (!c->slot.sealed)
		return c->length;
	uint32_t present = c->map ? c->map->count : c->slot.length;
	return c->dir->no_holes ? present : present - copy_runs(c, NULL, PUNCH_BLOCKS);
}

uint64_t copy_bytes(const struct copy *c)
{
	if (!c->exists)
		return 0;
	if (!c->slot.sealed)
		return (uint64_t)c->slot.header.size_blocks * BLOCK_BYTES;
	return (uint64_t)copy_present(c) * BLOCK_BYTES + segment_footer_bytes(c->map ? c->map->count : c->slot.length);
}

void copy_charge(struct copy *c)
{
	uint64_t bytes = copy_bytes(c);
	c->dir->size_used = c->dir->size_used + bytes - MIN(c->charged, c->dir->size_used + bytes);
	c->charged = bytes;
}

int copy_punch(struct copy *c, const uint8_t *given, uint32_t least)
{
	uint64_t base = c->map ? PACK_BASE : COPY_BASE;
	int r = 0;
	for (struct run run = { 0 }; r == 0 && c->slot.sealed && !c->mapless && !c->dir->no_holes && run_next(c, given, &run);) {
		if (run.count < least || !run.given)
			continue;
		struct file_io io = { .op = FILE_DISCARD, .offset = base + (uint64_t)run.first * BLOCK_BYTES,
				      .length = (uint64_t)run.count * BLOCK_BYTES };
		struct job j;
		job_init(&j, &c->dir->env->loop);
		file_submit(c->file, &io, &j);
		r = fiber_wait(&j);
		c->dir->holes |= r == 0;
	}
	if (r == -EOPNOTSUPP || r == -ENOTSUP || r == -ENOSYS) {
		c->dir->no_holes = true; /* packing alone gives space back */
		r = 0;
	}
	return r;
}

/* ---- the operations ---- */

int copy_trim_sealed(struct copy *c)
{
	trim_count(c);
	int r = copy_punch_late(c, NULL);
	copy_charge(c);
	return r;
}

static int trim_unite(struct copy *c, const struct segment_io *io, uint8_t *given)
{
	uint32_t blocks = MIN(io->blocks, c->slot.sealed ? c->slot.length : c->slot.header.size_blocks);
	if (!c->trim)
		c->trim = calloc(1, BITMAP_BYTES);
	if (!c->trim)
		return -ENOMEM;
	if (PLANTED(segment_trim_replaces))
		memset(c->trim, 0, BITMAP_BYTES);
	for (uint32_t b = 1; b < blocks; b++)
		if (bit_get(io->trim, b))
			bit_set(given, b);
	for (uint32_t i = 0; i < BITMAP_BYTES; i++)
		c->trim[i] |= given[i];
	trim_count(c);
	return 0;
}

/* What is free is so for ever, whoever says it (R28); but where a lost catalog's volume was gone back with, by force, what an owner from before that says isn't any
 * more (parallax/store/store_recover_fence.c). Epoch 0: a server's, which has it of another copy. */
static bool trim_is_fenced(const struct copy *c, const struct segment_io *io)
{
	return io->epoch && c->fenced_epoch > io->epoch && c->fenced_epoch != UINT64_MAX && !PLANTED(segment_trim_unfenced);
}

int control_trim(struct copy *c, struct segment_io *io)
{
	uint8_t given[BITMAP_BYTES] = { 0 };
	if (!c->exists)
		return -ENOENT;
	if (trim_is_fenced(c, io))
		return -EPERM;
	if (io->blocks > c->slot.header.size_blocks)
		return -EINVAL;
	int r = copy_scan(c); /* for what is answered */
	if (r == 0)
		r = trim_unite(c, io, given);
	/* written also if nothing is new: after a sync that failed, what can be read need not be durable */
	if (r == 0 && !PLANTED(segment_trim_volatile))
		r = copy_slot_write(c, NULL);
	if (r == 0)
		r = copy_settle(c);
	if (r == 0)
		r = copy_punch_late(c, given);
	if (r == 0 && io->pack && c->slot.sealed)
		r = copy_pack(c);
	if (r == -ENOSPC && io->pack) /* then as holes, all of them; that needs none */
		r = copy_punch(c, NULL, 1);
	copy_charge(c);
	return r ? r : dir_space(c->dir);
}
