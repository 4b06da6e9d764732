/* Packing (R30): a sealed copy gets a new file with only those of its blocks that aren't free, in their order, and a map
 * that tells which these are. Addresses don't change: a block's place in the file is its rank in the map.
 *
 *     file block 0        1        2     3                   3 + count
 *                slot 0 │ slot 1 │ map │ blocks, as mapped │ footer: a CRC for each of them
 *
 * The new file is verified by the old footer, complete and durable before it takes the old one's name; the map never
 * changes. Whoever has the old file open (segment_reader.c) finds it empty, and opens the new one. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/segment/segment_dir.h"

#define MAP_MAGIC UINT64_C(0x010050414d435141) /* "AQCMAP", 0, 1 */
#define MAP_BITS 64u
enum { PACK_BLOCKS = 256 }; /* read and written at once: 1 MiB each */

/* ---- the map ----
 * 0 magic u64   8 version u32   12 blocks u32   16 segment u64   24 count u32   64 bitmap   4092 crc u32 */

void copy_map_encode(const struct copy_map *m, uint64_t segment, void *block)
{
	uint8_t *b = block;
	memset(b, 0, BLOCK_BYTES);
	put_le64(b, MAP_MAGIC);
	put_le32(b + 8, DIR_VERSION);
	put_le32(b + 12, m->blocks);
	put_le64(b + 16, segment);
	put_le32(b + 24, m->count);
	memcpy(b + MAP_BITS, m->bits, BITMAP_BYTES);
	put_le32(b + BLOCK_BYTES - 4, crc32c(0, b, BLOCK_BYTES - 4));
}

void map_rank(struct copy_map *m)
{
	m->count = 0;
	for (uint32_t i = 0; i < BITMAP_BYTES; i++) {
		if (i % 32 == 0)
			m->rank[i / 32] = (uint16_t)m->count;
		m->count += (uint32_t)__builtin_popcount(m->bits[i]);
	}
}

int copy_map_decode(const void *block, uint64_t segment, struct copy_map *ret)
{
	const uint8_t *b = block;
	if (get_le64(b) != MAP_MAGIC)
		return -ENODATA;
	if (get_le32(b + BLOCK_BYTES - 4) != crc32c(0, b, BLOCK_BYTES - 4))
		return -EBADMSG;
	if (get_le32(b + 8) > DIR_VERSION)
		return -EPROTONOSUPPORT;
	ret->blocks = get_le32(b + 12);
	memcpy(ret->bits, b + MAP_BITS, BITMAP_BYTES);
	map_rank(ret);
	if (ret->blocks > SEGMENT_BLOCKS_MAX || ret->count != get_le32(b + 24) || get_le64(b + 16) != segment)
		return -EBADMSG;
	return 0;
}

static uint32_t map_place(const struct copy_map *m, uint32_t block)
{
	uint32_t place = m->rank[block / 256];
	for (uint32_t i = block / 256 * 32; i < block / 8; i++)
		place += (uint32_t)__builtin_popcount(m->bits[i]);
	return place + (uint32_t)__builtin_popcount(m->bits[block / 8] & ((1u << block % 8) - 1));
}

int copy_map_find(const struct copy_map *m, uint32_t block, uint32_t blocks, uint64_t *ret_offset)
{
	for (uint32_t b = block; b < block + blocks; b++)
		if (b >= m->blocks || !bit_get(m->bits, b))
			return -ENODATA;
	*ret_offset = PACK_BASE + (uint64_t)map_place(m, block) * BLOCK_BYTES;
	return 0;
}

/* ---- packing ---- */

struct pack {
	struct copy *copy;
	struct file *file;      /* the new one */
	struct copy_map *map;   /* the new one */
	uint64_t from, to;      /* bytes: where the old file's blocks begin; where the new one's go on */
	uint32_t old_count;
	uint8_t *footer;        /* the old one */
	const uint8_t *old_crcs;
	uint32_t *crcs;         /* of what is in the new file */
	uint32_t packed;
	uint8_t *in;
	struct iovec kept[PACK_BLOCKS / 2 + 1]; /* runs of blocks that stay, in `in` */
};

static int pack_wait(struct segment_dir *d, struct file *f, struct file_io *io)
{
	struct job j;
	job_init(&j, &d->env->loop);
	file_submit(f, io, &j);
	return fiber_wait(&j);
}

static int pack_footer_read(struct pack *p)
{
	struct copy *c = p->copy;
	size_t bytes = segment_footer_bytes(p->old_count);
	struct segment_footer f;
	int r = -EBADMSG;
	p->footer = env_alloc_aligned(bytes);
	if (!p->footer)
		return -ENOMEM;
	for (int try = 0; try < 3 && r == -EBADMSG; try++) {
		size_t done = 0;
		r = file_read_wait(c->file, p->footer, bytes, p->from + (uint64_t)p->old_count * BLOCK_BYTES, &done);
		if (r == 0)
			r = done == bytes ? segment_footer_decode(p->footer, bytes, &f, &p->old_crcs) : -EBADMSG;
		if (r == 0 && (f.segment != c->id || f.length_blocks != p->old_count))
			r = -EBADMSG;
	}
	if (r == -EBADMSG || r == -EIO)
		copy_damaged(c, 0, 1); /* who looks at any block finds it */
	return r;
}

/* Those of the blocks [first, end) of `in` that stay, where they are. */
static int pack_kept(struct pack *p, uint32_t first, uint32_t end, const bool *keep)
{
	int n = 0;
	uint64_t length = 0;
	for (uint32_t i = first; i < end; i++) {
		if (!keep[i])
			continue;
		if (i == first || !keep[i - 1])
			p->kept[n++] = (struct iovec){ p->in + (size_t)i * BLOCK_BYTES, 0 };
		p->kept[n - 1].iov_len += BLOCK_BYTES;
		length += BLOCK_BYTES;
	}
	struct file_io io = { .op = FILE_WRITE, .offset = p->to, .length = length, .iov = p->kept, .iov_count = n };
	p->to += length;
	return n ? pack_wait(p->copy->dir, p->file, &io) : 0;
}

static bool pack_is_right(const struct pack *p, uint32_t place, uint32_t i)
{
	return crc32c(0, p->in + (size_t)i * BLOCK_BYTES, BLOCK_BYTES) == get_le32(p->old_crcs + (size_t)(place + i) * 4);
}

/* Those of the window that are bad, or all of it if it can't be read: neighbours as one. */
static void pack_tell(const struct pack *p, uint32_t place, uint32_t first, uint32_t end, const bool *keep, const uint32_t *block, bool unread)
{
	uint32_t from = 0, count = 0;
	for (uint32_t i = first; i < end; i++) {
		if (!keep[i] || (!unread && pack_is_right(p, place, i)))
			continue;
		if (count && block[i] == from + count) {
			count++;
			continue;
		}
		if (count)
			copy_damaged(p->copy, from, count);
		from = block[i];
		count = 1;
	}
	if (count)
		copy_damaged(p->copy, from, count);
}

/* Blocks [place, place + count) of the old file; `keep` says which of them stay, `block` which they are. */
static int pack_window(struct pack *p, uint32_t place, uint32_t count, const bool *keep, const uint32_t *block)
{
	uint32_t first = 0, end = count;
	while (first < count && !keep[first])
		first++;
	while (end > first && !keep[end - 1])
		end--;
	int r = 0;
	for (int try = 0; try < 3; try++) { /* a bit may flip on the way */
		uint32_t bad = 0;
		if (end > first)
			r = file_read_wait(p->copy->file, p->in + (size_t)first * BLOCK_BYTES, (size_t)(end - first) * BLOCK_BYTES,
					   p->from + (uint64_t)(place + first) * BLOCK_BYTES, NULL);
		for (uint32_t i = first; r == 0 && i < end; i++)
			bad += keep[i] && !pack_is_right(p, place, i);
		r = r == 0 && bad ? -EBADMSG : r;
		if (r != -EBADMSG && r != -EIO)
			break;
	}
	if (r == -EBADMSG || r == -EIO)
		pack_tell(p, place, first, end, keep, block, /* unread= */ r == -EIO);
	for (uint32_t i = first; i < end; i++)
		if (keep[i])
			p->crcs[p->packed++] = get_le32(p->old_crcs + (size_t)(place + i) * 4);
	return r ? r : pack_kept(p, first, end, keep);
}

static int pack_blocks(struct pack *p)
{
	const struct copy *c = p->copy;
	bool keep[PACK_BLOCKS];
	uint32_t block[PACK_BLOCKS], place = 0, n = 0;
	int r = 0;
	for (uint32_t b = 0; r == 0 && b < c->slot.length; b++) {
		if (c->map && !bit_get(c->map->bits, b))
			continue;
		block[n] = b;
		keep[n++] = bit_get(p->map->bits, b);
		if (n == PACK_BLOCKS) {
			r = pack_window(p, place, n, keep, block);
			place += n;
			n = 0;
		}
	}
	return r == 0 && n ? pack_window(p, place, n, keep, block) : r;
}

static int pack_ends(struct pack *p, const struct copy_slot *slot)
{
	struct copy *c = p->copy;
	size_t bytes = segment_footer_bytes(p->map->count);
	uint8_t *footer = env_alloc_aligned(bytes), *head = env_alloc_aligned(PACK_BASE);
	struct segment_footer f = { .segment = c->id, .length_blocks = p->map->count, .prev = slot->prev, .last_seq = slot->last_seq };
	int r = footer && head ? 0 : -ENOMEM;
	if (r == 0) {
		segment_footer_encode(&f, p->crcs, footer);
		for (unsigned i = 0; i < SLOT_COUNT; i++)
			copy_slot_encode(slot, head + i * BLOCK_BYTES);
		copy_map_encode(p->map, c->id, head + MAP_BASE);
		r = file_write_wait(p->file, footer, bytes, p->to);
	}
	if (r == 0)
		r = file_write_wait(p->file, head, PACK_BASE, 0);
	struct file_io io = { .op = FILE_TRUNCATE, .offset = p->to + bytes };
	if (r == 0) /* a recycled file is longer */
		r = pack_wait(c->dir, p->file, &io);
	if (r == 0 && !PLANTED(segment_pack_no_sync))
		r = file_sync_wait(p->file);
	free(footer);
	free(head);
	return r;
}

/* The new file takes the old one's name. Reads that come meanwhile wait. */
static int pack_switch(struct pack *p, const char *fresh, const struct copy_slot *slot)
{
	struct copy *c = p->copy;
	struct segment_dir *d = c->dir;
	char path[DIR_PATH_MAX], parent[DIR_PATH_MAX];
	copy_path(c, path);
	dir_path(d, parent, "segments/%02x", (unsigned)(c->id & 0xff));
	c->deleting = true;
	while (c->busy)
		fiber_cond_wait(&d->env->loop, &c->idle);
	int r = env_rename(d->env, fresh, path);
	if (r < 0) {
		c->deleting = false;
		return r;
	}
	struct file *old = c->file;
	c->file = p->file;
	p->file = NULL;
	free(c->map);
	c->map = p->map;
	p->map = NULL;
	c->slot = *slot;
	c->slot.trim = NULL;
	c->settled = PLANTED(segment_pack_no_sync);
	c->deleting = false;
	r = copy_settle(c);
	if (r == 0) { /* its space, whoever has it open */
		struct file_io io = { .op = FILE_TRUNCATE, .offset = 0 };
		pack_wait(d, old, &io);
	}
	file_close(d->env, old);
	return r;
}

static int pack_write(struct pack *p, char path[DIR_PATH_MAX])
{
	struct copy *c = p->copy;
	struct copy_slot slot = c->slot;
	slot.packed = true;
	slot.trim = c->trim;
	slot.trimmed = c->trimmed;
	slot.generation++;
	slot.broken |= c->broken;
	slot.fenced_epoch = MAX(slot.fenced_epoch, c->fenced_epoch);
	int r = pool_open_file(c->dir, path, &p->file);
	if (r == 0) { /* together on the disk */
		struct file_io io = { .op = FILE_ALLOCATE, .length = PACK_BASE + (uint64_t)p->map->count * BLOCK_BYTES + segment_footer_bytes(p->map->count) };
		r = pack_wait(c->dir, p->file, &io);
		r = r == -EOPNOTSUPP || r == -ENOTSUP ? 0 : r;
	}
	if (r == 0)
		r = pack_footer_read(p);
	if (r == 0)
		r = pack_blocks(p);
	if (r == 0)
		r = pack_ends(p, &slot);
	return r ? r : pack_switch(p, path, &slot);
}

static int pack_run(struct copy *c)
{
	char path[DIR_PATH_MAX];
	struct pack p = { .copy = c, .from = c->map ? PACK_BASE : COPY_BASE, .to = PACK_BASE,
			  .old_count = c->map ? c->map->count : c->slot.length };
	p.map = calloc(1, sizeof *p.map);
	p.crcs = calloc(p.old_count + 1, sizeof *p.crcs);
	p.in = env_alloc_aligned(PACK_BLOCKS * BLOCK_BYTES);
	int r = p.map && p.crcs && p.in ? 0 : -ENOMEM;
	if (r == 0) {
		p.map->blocks = c->slot.length;
		for (uint32_t b = 0; b < c->slot.length; b++)
			if (!(c->trim && bit_get(c->trim, b)) && (!c->map || bit_get(c->map->bits, b)))
				bit_set(p.map->bits, b);
		map_rank(p.map);
		r = pack_write(&p, path);
		if (p.file) { /* it has no name of its own yet */
			file_close(c->dir->env, p.file);
			env_unlink(c->dir->env, path);
		}
	}
	free(p.map);
	free(p.crcs);
	free(p.in);
	free(p.footer);
	return r;
}

int copy_pack(struct copy *c)
{
	if (c->trimmed == 0 || c->mapless || (c->map && c->trimmed + c->map->count <= c->slot.length))
		return 0; /* as small as it gets */
	fiber_mutex_lock(&c->dir->env->loop, &c->dir->pack_mutex);
	int r = pack_run(c);
	fiber_mutex_unlock(&c->dir->pack_mutex);
	return r == -EBADMSG ? 0 : r; /* a block that is damaged can't be copied; the rest stays as it is */
}
