/* Copies: their slots, their state, loading and scanning.
 *
 * A copy's file:  slot 0 │ slot 1 │ segment: block 0 … size_blocks - 1 │ (sealed: footer after the cut)
 *
 * A slot:  0 magic "AQCOPY\0\1"   8 version u32   12 flags u32 (1 sealed, 2 broken, 4 packed)   16 generation u64
 *         24 incarnation u64     32 fenced_epoch u64   40 segment u64   48 volume 16 bytes
 *         64 epoch u64           72 salt u64           80 size_blocks u32
 *         84 length u32          88 prev u32           92 trimmed u32   96 last_seq u64
 *        104 crc of the bitmap u32                    508 crc u32
 *        512 bitmap: a bit for each block that is free for ever; zero to 4096; only there if `trimmed` isn't 0
 *
 * The slot with the greater generation counts. Both are written when the copy is made, so one
 * that can't be read is damage (a torn write can't do that: a slot is one sector): what it said,
 * a fence perhaps, may be lost, and the copy is doubtful. The bitmap may be torn; then the other slot's counts, which has
 * all that was answered before. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/segment/segment_dir.h"

#define SLOT_BYTES 512u
#define SLOT_MAGIC UINT64_C(0x010059504f435141)
enum { SLOT_SEALED = 1, SLOT_BROKEN = 2, SLOT_PACKED = 4 };
_Static_assert(SLOT_BYTES + BITMAP_BYTES <= BLOCK_BYTES, "the bitmap fits beside the slot");

void copy_slot_encode(const struct copy_slot *s, void *block)
{
	uint8_t *b = block;
	memset(b, 0, BLOCK_BYTES);
	put_le64(b, SLOT_MAGIC);
	put_le32(b + 8, DIR_VERSION);
	put_le32(b + 12, (s->sealed ? SLOT_SEALED : 0) | (s->broken ? SLOT_BROKEN : 0) | (s->packed ? SLOT_PACKED : 0));
	put_le64(b + 16, s->generation);
	put_le64(b + 24, s->incarnation);
	put_le64(b + 32, s->fenced_epoch);
	put_le64(b + 40, s->header.segment);
	memcpy(b + 48, s->header.volume.bytes, 16);
	put_le64(b + 64, s->header.epoch);
	put_le64(b + 72, s->header.salt);
	put_le32(b + 80, s->header.size_blocks);
	put_le32(b + 84, s->length);
	put_le32(b + 88, s->prev);
	put_le64(b + 96, s->last_seq);
	if (s->trim && s->trimmed) {
		put_le32(b + 92, s->trimmed);
		memcpy(b + SLOT_BYTES, s->trim, div_up(s->header.size_blocks, 8));
		put_le32(b + 104, crc32c(0, b + SLOT_BYTES, BITMAP_BYTES));
	}
	put_le32(b + SLOT_BYTES - 4, crc32c(0, b, SLOT_BYTES - 4));
}

int copy_slot_decode(const void *block, struct copy_slot *ret)
{
	const uint8_t *b = block;
	if (get_le64(b) != SLOT_MAGIC || get_le32(b + SLOT_BYTES - 4) != crc32c(0, b, SLOT_BYTES - 4))
		return -EBADMSG;
	if (get_le32(b + 8) > DIR_VERSION)
		return -EPROTONOSUPPORT;
	struct copy_slot s = {
		.header = { .segment = get_le64(b + 40), .epoch = get_le64(b + 64), .salt = get_le64(b + 72),
			    .size_blocks = get_le32(b + 80) },
		.generation = get_le64(b + 16), .incarnation = get_le64(b + 24), .fenced_epoch = get_le64(b + 32),
		.sealed = get_le32(b + 12) & SLOT_SEALED, .broken = get_le32(b + 12) & SLOT_BROKEN,
		.packed = get_le32(b + 12) & SLOT_PACKED, .trimmed = get_le32(b + 92),
		.length = get_le32(b + 84), .prev = get_le32(b + 88), .last_seq = get_le64(b + 96),
	};
	memcpy(s.header.volume.bytes, b + 48, 16);
	if (s.header.size_blocks < 2 || s.header.size_blocks > SEGMENT_BLOCKS_MAX || s.length > s.header.size_blocks)
		return -EBADMSG;
	*ret = s;
	return 0;
}

static bool slot_trim_whole(const uint8_t *block)
{
	return get_le32(block + 104) == crc32c(0, block + SLOT_BYTES, BITMAP_BYTES);
}

bool copy_slot_trim(const void *block, const struct copy_slot *s, uint8_t *ret_trim)
{
	if (s->trimmed == 0 || !slot_trim_whole(block))
		return false;
	memcpy(ret_trim, (const uint8_t *)block + SLOT_BYTES, BITMAP_BYTES);
	return true;
}

void copy_path(const struct copy *c, char ret_path[DIR_PATH_MAX])
{
	dir_path(c->dir, ret_path, "segments/%02x/%012" PRIx64 ".seg", (unsigned)(c->id & 0xff), c->id);
}

bool copy_lost_synced(const struct copy *c)
{
	return c->exists && !c->slot.sealed && (c->lost_synced || c->slot.incarnation == 0 || c->slot.incarnation < c->dir->state.stale_before);
}

enum copy_state copy_state(const struct copy *c)
{
	const struct dir_server *s = &c->dir->state;
	if (!c->exists)
		return COPY_ABSENT;
	if (c->broken || c->mapless)
		return COPY_BROKEN;
	if (c->slot.sealed)
		return COPY_WHOLE;
	if (copy_lost_synced(c))
		return COPY_BROKEN;
	return c->damaged || c->lost_acked || c->slot.incarnation < s->doubtful_before ? COPY_DOUBTFUL : COPY_WHOLE;
}

/* ---- loading ---- */

/* Both, or that which the disk can read: a sector of the other may be bad. That then looks damaged. */
static int slots_read_once(struct copy *c, uint8_t *blocks, size_t *ret_done)
{
	int r = file_read_wait(c->file, blocks, SLOT_COUNT * BLOCK_BYTES, 0, ret_done);
	if (r != -EIO)
		return r;
	memset(blocks, 0, SLOT_COUNT * BLOCK_BYTES);
	for (unsigned i = 0; i < SLOT_COUNT; i++) {
		size_t done = 0;
		if (file_read_wait(c->file, blocks + i * BLOCK_BYTES, BLOCK_BYTES, i * BLOCK_BYTES, &done) == 0)
			r = 0;
	}
	*ret_done = SLOT_COUNT * BLOCK_BYTES;
	return r;
}

/* Reads the slots, again if they look damaged: a bit may flip on the way. */
static int slots_read(struct copy *c, uint8_t *blocks, struct copy_slot *ret, unsigned *ret_good)
{
	int r = -EIO;
	bool torn = false; /* a bitmap is, or seems so: the other one is older, and what is missing there would be forgotten */
	*ret_good = 0;
	for (int try = 0; try < 3 && (*ret_good < SLOT_COUNT || torn); try++) {
		size_t done = 0;
		r = slots_read_once(c, blocks, &done);
		if (r == -EIO)
			continue;
		if (r < 0)
			return r;
		*ret_good = 0;
		torn = false;
		for (unsigned i = 0; i < SLOT_COUNT; i++) {
			struct copy_slot s;
			int d = done < (i + 1) * BLOCK_BYTES ? -EBADMSG : copy_slot_decode(blocks + i * BLOCK_BYTES, &s);
			if (d == -EPROTONOSUPPORT)
				return d;
			if (d < 0 || s.header.segment != c->id)
				continue;
			torn |= s.trimmed && !slot_trim_whole(blocks + i * BLOCK_BYTES);
			if (*ret_good == 0 || s.generation > ret->generation)
				*ret = s;
			(*ret_good)++;
		}
	}
	return r;
}

static int copy_file_load(struct copy *c)
{
	uint8_t *blocks = env_alloc_aligned(SLOT_COUNT * BLOCK_BYTES);
	if (!blocks)
		return -ENOMEM;
	unsigned good = 0;
	int r = file_stat(c->file, &c->info);
	if (r == 0)
		r = slots_read(c, blocks, &c->slot, &good);
	if (r == 0 && good > 0)
		r = copy_trim_load(c, blocks);
	free(blocks);
	if (r < 0)
		return r;
	if (good == 0) { /* nothing is known of it: an id, and that it counts for nothing */
		c->slot = (struct copy_slot){ .header = { .segment = c->id, .size_blocks = 2 }, .broken = true };
		c->scanned = c->lost_synced = true;
		c->length = c->accepted = 1;
	}
	c->damaged = good < SLOT_COUNT;
	c->broken |= c->slot.broken;
	c->fenced_epoch = MAX(c->fenced_epoch, c->slot.fenced_epoch);
	if (c->ready == 0)
		c->ready = UINT64_MAX; /* nothing is appended to a copy of an earlier time */
	if (c->slot.sealed) {
		c->unverified = false;
		c->scanned = true;
		c->length = c->accepted = c->slot.length;
		c->synced = c->settled ? c->length : 0;
		c->last_crc = c->slot.prev;
		c->last_seq = c->slot.last_seq;
	}
	return 0;
}

/* A fence of a segment that wasn't here then. */
static int fence_file_load(struct copy *c)
{
	char path[DIR_PATH_MAX];
	struct file *f;
	dir_path(c->dir, path, "segments/%02x/%012" PRIx64 ".fence", (unsigned)(c->id & 0xff), c->id);
	int r = file_open(c->dir->env, path, 0, &f);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	uint8_t *block = env_alloc_aligned(BLOCK_BYTES);
	struct copy_slot s;
	r = -ENOMEM;
	for (int try = 0; block && try < 3 && r != 0; try++) {
		size_t done = 0;
		r = file_read_wait(f, block, BLOCK_BYTES, 0, &done);
		if (r == 0)
			r = done == BLOCK_BYTES ? copy_slot_decode(block, &s) : -EBADMSG;
	}
	free(block);
	file_close(c->dir->env, f);
	if (r == -EBADMSG) { /* fenced at nobody knows what: for everybody */
		c->fenced_epoch = UINT64_MAX;
		return 0;
	}
	if (r == 0)
		c->fenced_epoch = MAX(c->fenced_epoch, s.fenced_epoch);
	return r;
}

void copy_opened(struct copy *c)
{
	c->dir->files++;
	link_push(&c->dir->open, &c->open);
}

int copy_load(struct copy *c)
{
	char path[DIR_PATH_MAX];
	if (c->loaded && (c->file || !c->exists))
		return 0;
	copy_path(c, path);
	int r = file_open(c->dir->env, path, FILE_OPEN_WRITE | FILE_OPEN_DIRECT, &c->file);
	if (r == -ENOENT || r == -ENOTDIR) {
		c->exists = false;
		r = fence_file_load(c);
		c->loaded = r == 0;
		return r;
	}
	if (r < 0)
		return r;
	copy_opened(c);
	c->exists = true;
	r = copy_file_load(c);
	if (r == 0 && c->slot.generation <= 1) /* its making may have failed half-way, and it was fenced as absent */
		r = fence_file_load(c);
	c->loaded = r == 0;
	c->charged = r == 0 ? copy_bytes(c) : c->charged ? c->charged : c->info.size; /* it is counted already */
	if (r == 0)
		copy_late_found(c);
	if (r < 0)
		copy_forget(c);
	return r;
}

bool copy_unsure(const struct copy *c)
{
	return c->exists && !c->rewritten && c->slot.incarnation < c->dir->state.unsynced_before;
}

/* Block 0 and a slot are written again, unless it is known that they are of no use or are durable. */
static int settle_head(struct copy *c)
{
	if (!c->slot.sealed && !c->broken) {
		uint8_t *block = env_alloc_aligned(BLOCK_BYTES);
		if (!block)
			return -ENOMEM;
		segment_header_encode(&c->slot.header, block);
		int r = file_write_wait(c->file, block, BLOCK_BYTES, COPY_BASE);
		free(block);
		if (r < 0)
			return r;
	}
	return copy_slot_write(c, NULL);
}

int copy_settle(struct copy *c)
{
	char parent[DIR_PATH_MAX];
	if (c->settled || PLANTED(segment_answers_unsettled))
		return 0;
	int r = !c->exists ? 0 : copy_unsure(c) ? settle_head(c) : copy_fdatasync(c);
	dir_path(c->dir, parent, "segments/%02x", (unsigned)(c->id & 0xff));
	if (r == 0)
		r = env_sync_dir(c->dir->env, parent);
	if (r == -ENOENT && !c->exists)
		r = 0; /* no directory, no name */
	c->settled = r == 0;
	return r;
}

void copy_forget(struct copy *c)
{
	if (c->file) {
		c->dir->files--;
		link_drop(&c->open);
		struct file *f = c->file;
		c->file = NULL;
		copy_trim_forget(c);
		file_close(c->dir->env, f);
	}
}

int copy_scan_file(struct copy *c, uint32_t limit, uint32_t *crcs, struct segment_scan *ret)
{
	struct segment_dir *d = c->dir;
	while (d->scans >= SCANS_MAX)
		fiber_cond_wait(&d->env->loop, &d->scan_ended);
	d->scans++;
	int r = segment_scan(d->env, c->file, COPY_BASE, &c->slot.header, limit, crcs, ret);
	d->scans--;
	fiber_cond_wake(&d->scan_ended);
	return r;
}

int copy_scan(struct copy *c)
{
	if ((c->scanned && !c->unverified) || !c->exists)
		return 0;
	uint32_t size = c->slot.header.size_blocks;
	struct segment_scan s;
	uint32_t *crcs = calloc(size, sizeof *crcs);
	int r = crcs ? copy_scan_file(c, size, crcs, &s) : -ENOMEM;
	if (r < 0) {
		free(crcs);
		return r;
	}
	free(c->crcs);
	c->crcs = crcs;
	c->length = c->accepted = s.length;
	c->last_crc = c->accepted_crc = s.last_crc;
	c->last_seq = c->accepted_seq = s.last_seq;
	c->flushed = s.flushed;
	c->lost_acked = s.lost_acked;
	c->lost_synced = s.lost_synced;
	c->scanned = true;
	c->unverified = false;
	return 0;
}

/* ---- making things durable ---- */

int copy_fdatasync(struct copy *c)
{
	uint32_t length = c->scanned ? c->length : 0;
	c->dirty = false;
	int r = file_sync_wait(c->file);
	if (r == 0)
		c->synced = MAX(c->synced, length);
	else
		copy_break(c);
	return r;
}

/* Writes the other slot: what is there, with the fence and the breakage this process knows of, and
 * `seal` if that isn't NULL. One at a time, or one would undo the other. */
static int slot_write(struct copy *c, const struct copy_slot *seal, bool *ret_sync_failed)
{
	uint8_t *block = env_alloc_aligned(BLOCK_BYTES);
	*ret_sync_failed = false;
	if (!block)
		return -ENOMEM;
	fiber_mutex_lock(&c->dir->env->loop, &c->slot_mutex);
	struct copy_slot s = c->slot;
	s.trim = c->trim;
	s.trimmed = c->trimmed;
	if (seal) {
		s.sealed = true;
		s.incarnation = s.incarnation ? s.incarnation : c->dir->state.incarnation;
		s.length = seal->length;
		s.prev = seal->prev;
		s.last_seq = seal->last_seq;
	}
	s.fenced_epoch = MAX(s.fenced_epoch, c->fenced_epoch);
	s.broken |= c->broken;
	s.generation++;
	copy_slot_encode(&s, block);
	uint32_t length = c->scanned ? c->length : 0;
	int r = file_write_wait(c->file, block, BLOCK_BYTES, (s.generation % SLOT_COUNT) * BLOCK_BYTES);
	if (r == 0) {
		r = file_sync_wait(c->file);
		*ret_sync_failed = r < 0;
	}
	if (r == 0) {
		c->slot = s;
		c->slot.trim = NULL;
		c->synced = MAX(c->synced, length);
	}
	fiber_mutex_unlock(&c->slot_mutex);
	free(block);
	return r;
}

int copy_slot_write(struct copy *c, const struct copy_slot *seal)
{
	bool sync_failed;
	int r = slot_write(c, seal, &sync_failed);
	if (sync_failed)
		copy_break(c);
	return r;
}

/* A sync failed: the kernel has forgotten what it could not write. Never to be trusted again, so
 * it is written down at once; if even that fails, this process still knows and doesn't stop in
 * order, so that a later one writes again what its scan finds (copy_unsure()). */
void copy_break(struct copy *c)
{
	bool sync_failed;
	c->broken = true;
	c->rewritten = false;
	index_note(c);
	if (c->slot.broken || c->breaking || !c->file || c->dir->env->dead)
		return;
	c->breaking = true;
	slot_write(c, NULL, &sync_failed);
	c->breaking = false;
}

void copy_busy_end(struct copy *c)
{
	if (--c->busy == 0)
		fiber_cond_wake(&c->idle);
}

void copy_appends_wait(struct copy *c)
{
	while (!link_empty(&c->appends))
		fiber_cond_wait(&c->dir->env->loop, &c->idle);
}
