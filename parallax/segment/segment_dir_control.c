/* The control path of a data directory: create, fence, stat, seal, repair, trim, delete, each in a
 * fiber with the copy's mutex held. What each makes durable before it is answered:
 *
 *   create   slots and block 0, the file's name          fence    the epoch, in the slot or a .fence file
 *   repair   the bytes                                   seal     data and footer, then the slot that says so
 *   delete   that the name is gone                       trim     the bitmap (segment_dir_trim.c)
 *
 * A seal syncs twice, because a slot that says "sealed" before the data is there would lie. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/segment/segment_dir.h"

static void results_fill(const struct copy *c, struct segment_io *io)
{
	io->state = copy_state(c);
	io->length = c->exists ? c->length : 0;
	io->sealed = c->slot.sealed;
	io->last_crc = c->exists ? c->last_crc : 0;
	io->last_seq = c->exists ? c->last_seq : 0;
	io->fenced_epoch = c->fenced_epoch;
	io->lost_synced = copy_lost_synced(c);
	io->trimmed = c->exists ? c->trimmed : 0;
	io->present = c->exists ? copy_present(c) : 0;
}

/* ---- create ---- */

int copy_directory(const struct copy *c)
{
	char path[DIR_PATH_MAX], parent[DIR_PATH_MAX];
	dir_path(c->dir, path, "segments/%02x", (unsigned)(c->id & 0xff));
	dir_path(c->dir, parent, "segments");
	int r = env_mkdir(c->dir->env, path);
	return r < 0 ? r : env_sync_dir(c->dir->env, parent);
}

/* R32: below the reserve no data segments; what is left is for checkpoints, which free space. */
static int room_once(struct segment_dir *d, uint32_t blocks, bool may_use_reserve)
{
	uint64_t segment = (uint64_t)blocks * BLOCK_BYTES;
	int r = dir_space(d);
	if (r < 0)
		return r;
	uint64_t free_bytes = d->server.free_bytes, total = d->server.total_bytes;
	uint64_t reserve = MIN(MAX(total / 50, 8 * segment), total / 4);
	if (free_bytes < segment || (!may_use_reserve && free_bytes - segment < reserve))
		return -ENOSPC;
	return 0;
}

static int file_wait(struct copy *c, struct file_io *io)
{
	struct job j;
	job_init(&j, &c->dir->env->loop);
	file_submit(c->file, io, &j);
	return fiber_wait(&j);
}

/* Files kept to be recycled are space, too, and so is what waits to become holes. */
int dir_room(struct segment_dir *d, uint32_t blocks, bool reserve)
{
	int r = room_once(d, blocks, reserve);
	if (r != -ENOSPC || (d->pool_count == 0 && link_empty(&d->late)))
		return r;
	dir_late_end(d);
	return room_once(d, blocks, reserve);
}

/* Slots and block 0, in one write, and room for the first appends, or for all: what is made from the reserve is for when others have the rest of the disk.
 * Of the file `there` bytes are allocated already, and were written. */
static int create_write(struct copy *c, const struct segment_header *h, uint64_t there, bool reserve)
{
	uint8_t *blocks = env_alloc_aligned((SLOT_COUNT + 1) * BLOCK_BYTES);
	if (!blocks)
		return -ENOMEM;
	uint64_t end = COPY_BASE + (uint64_t)h->size_blocks * BLOCK_BYTES;
	/* it may be one of those that are asked what was appended, and wasn't there: store.md, R17.2 */
	bool copies = c->fenced_epoch && c->fenced_epoch >= h->epoch && !PLANTED(segment_copy_counts_early);
	c->slot = (struct copy_slot){ .header = *h, .incarnation = copies ? 0 : c->dir->state.incarnation, .generation = 1,
				      .fenced_epoch = c->fenced_epoch };
	for (unsigned i = 0; i < SLOT_COUNT; i++)
		copy_slot_encode(&c->slot, blocks + i * BLOCK_BYTES);
	segment_header_encode(h, blocks + COPY_BASE);
	struct file_io size = { .op = FILE_TRUNCATE, .offset = end };
	struct file_io room = { .offset = COPY_BASE, .iov_count = 1 };
	struct iovec vec;
	room.iov = &vec;
	room.length = copy_first_step(c, &room.op, &vec);
	if (reserve && !PLANTED(reserve_unallocated)) {
		room.op = FILE_ALLOCATE;
		room.length = end - COPY_BASE;
	}
	c->ready = there >= end ? UINT64_MAX : MAX(COPY_BASE + room.length, round_down(there, BLOCK_BYTES));
	c->ready_marked = COPY_BASE;
	c->syncs_marked = 0;
	int r = file_wait(c, &size);
	if (r == 0 && there < COPY_BASE + room.length)
		r = file_wait(c, &room);
	if (r == -EOPNOTSUPP || r == -ENOTSUP)
		r = 0; /* a file system without allocation ahead */
	if (r == 0)
		r = file_write_wait(c->file, blocks, (SLOT_COUNT + 1) * BLOCK_BYTES, 0);
	if (r == 0)
		r = file_sync_wait(c->file);
	free(blocks);
	return r;
}

/* What of a recycled file needn't be made ready: all, or nobody knows where it has holes. */
static uint64_t recycled_bytes(const struct file_info *i) { return i->allocated >= i->size ? i->size : 0; }

static int create_file(struct copy *c, const struct segment_header *h, bool reserve)
{
	struct segment_dir *d = c->dir;
	char from[DIR_PATH_MAX], to[DIR_PATH_MAX], parent[DIR_PATH_MAX];
	copy_path(c, to);
	dir_path(d, parent, "segments/%02x", (unsigned)(c->id & 0xff));
	int r = copy_directory(c);
	if (r == 0)
		r = pool_open_file(d, from, &c->file);
	if (r < 0)
		return r;
	copy_opened(c);
	r = file_stat(c->file, &c->info);
	if (r == 0)
		r = create_write(c, h, recycled_bytes(&c->info), reserve);
	if (r == 0)
		r = env_rename(d->env, from, to);
	if (r == 0)
		r = env_sync_dir(d->env, parent);
	if (r < 0) {
		copy_forget(c);
		env_unlink(d->env, from);
		env_unlink(d->env, to);
	}
	return r;
}

static bool headers_equal(const struct segment_header *a, const struct segment_header *b)
{
	return a->segment == b->segment && a->epoch == b->epoch && a->salt == b->salt && a->size_blocks == b->size_blocks &&
	       memcmp(a->volume.bytes, b->volume.bytes, sizeof a->volume.bytes) == 0;
}

static int control_create(struct copy *c, struct segment_io *io)
{
	const struct segment_header *h = &io->header;
	if (h->segment != c->id || h->size_blocks < 2 || h->size_blocks > SEGMENT_BLOCKS_MAX)
		return -EINVAL;
	if (c->exists)
		return headers_equal(&c->slot.header, h) && copy_state(c) == COPY_WHOLE ? copy_settle(c) : -EEXIST;
	if (c->fenced_epoch > MAX(io->epoch, h->epoch))
		return -EPERM;
	int r = dir_room(c->dir, h->size_blocks, io->reserve);
	if (r == 0)
		r = create_file(c, h, io->reserve);
	if (r < 0)
		return r;
	c->exists = c->scanned = c->settled = true;
	c->broken = c->damaged = c->lost_acked = c->lost_synced = c->unverified = c->rewritten = c->sealing = false;
	c->length = c->accepted = c->synced = c->flushed = 1;
	c->last_crc = c->accepted_crc = 0;
	c->last_seq = c->accepted_seq = 0;
	copy_charge(c);
	free(c->crcs);
	c->crcs = calloc(h->size_blocks, sizeof *c->crcs); /* without it a seal reads everything */
	uint8_t block[BLOCK_BYTES];
	segment_header_encode(h, block);
	if (c->crcs)
		c->crcs[0] = crc32c(0, block, BLOCK_BYTES);
	return 0;
}

/* ---- fence and stat ---- */

/* A fence of a segment that isn't here: a file of its own. */
static int fence_file_write(struct copy *c)
{
	struct segment_dir *d = c->dir;
	char path[DIR_PATH_MAX], fresh[DIR_PATH_MAX], parent[DIR_PATH_MAX];
	struct file *f = NULL;
	dir_path(d, parent, "segments/%02x", (unsigned)(c->id & 0xff));
	dir_path(d, path, "segments/%02x/%012" PRIx64 ".fence", (unsigned)(c->id & 0xff), c->id);
	dir_path(d, fresh, "segments/%02x/%012" PRIx64 ".new", (unsigned)(c->id & 0xff), c->id);
	uint8_t *block = env_alloc_aligned(BLOCK_BYTES);
	if (!block)
		return -ENOMEM;
	struct copy_slot s = { .header = { .segment = c->id, .size_blocks = 2 }, .fenced_epoch = c->fenced_epoch };
	copy_slot_encode(&s, block);
	int r = copy_directory(c);
	if (r == 0)
		r = file_open(d->env, fresh, FILE_OPEN_WRITE | FILE_OPEN_CREATE, &f);
	if (r == 0) {
		r = file_write_wait(f, block, BLOCK_BYTES, 0);
		if (r == 0)
			r = file_sync_wait(f);
		file_close(d->env, f);
	}
	if (r == 0)
		r = env_rename(d->env, fresh, path);
	if (r < 0)
		env_unlink(d->env, fresh);
	if (r == 0)
		r = env_sync_dir(d->env, parent);
	free(block);
	return r;
}

/* Under the mutex, or it may be one that is being written. */
int dir_drop_unwritten_fence(struct segment_dir *d, uint64_t segment)
{
	char path[DIR_PATH_MAX];
	struct copy *c = copy_hold(d, segment);
	if (!c)
		return -ENOMEM;
	dir_path(d, path, "segments/%02x/%012" PRIx64 ".new", (unsigned)(segment & 0xff), segment);
	fiber_mutex_lock(&d->env->loop, &c->mutex);
	int r = env_unlink(d->env, path);
	fiber_mutex_unlock(&c->mutex);
	copy_release(c);
	dir_evict(d);
	return r == -ENOENT ? 0 : r;
}

static int fence_write(struct copy *c)
{
	if (!c->exists)
		return fence_file_write(c);
	int r = c->slot.fenced_epoch < c->fenced_epoch ? copy_slot_write(c, NULL) : 0;
	return r < 0 ? r : copy_settle(c);
}

static int control_fence(struct copy *c, struct segment_io *io)
{
	int r = 0;
	if (c->fenced_epoch > io->epoch) {
		io->fenced_epoch = c->fenced_epoch;
		return -EPERM;
	}
	c->fenced_epoch = io->epoch; /* from here on no append of an older epoch is accepted … */
	copy_appends_wait(c);        /* … and those that were are in the length */
	if (!PLANTED(segment_fence_volatile))
		r = fence_write(c);
	if (r == 0)
		r = copy_scan(c);
	if (r == 0)
		results_fill(c, io);
	return r;
}

/* As far as `trimmed` counts them. */
static void free_bits_fill(const struct copy *c, uint8_t *bits)
{
	uint32_t blocks = !c->exists || !c->trim ? 0 : c->slot.sealed ? c->slot.length : c->slot.header.size_blocks;
	memset(bits, 0, BITMAP_BYTES);
	for (uint32_t b = 0; b < blocks; b++)
		if (bit_get(c->trim, b))
			bit_set(bits, b);
}

static int control_stat(struct copy *c, struct segment_io *io)
{
	int r = copy_scan(c);
	if (r == 0)
		results_fill(c, io);
	if (r == 0 && io->free_bits)
		free_bits_fill(c, io->free_bits);
	return r;
}

/* ---- seal ---- */

/* The checksums of [0, length), with proof that the record before `length` has header CRC `crc`. */
static int seal_verify(struct copy *c, uint32_t length, uint32_t crc, uint32_t *crcs, uint64_t *ret_last_seq)
{
	struct segment_scan s;
	if (c->crcs && c->scanned && c->length == length && c->last_crc == crc) {
		memcpy(crcs, c->crcs, length * sizeof *crcs);
		*ret_last_seq = c->last_seq;
		return 0;
	}
	int r = copy_scan_file(c, length, crcs, &s);
	if (r < 0)
		return r;
	if (s.length < length)
		return c->length < length ? -EINVAL : -EBADMSG;
	*ret_last_seq = s.last_seq;
	return s.last_crc == crc ? 0 : -EBADMSG;
}

static int footer_write(struct copy *c, const struct segment_footer *footer, const uint32_t *crcs)
{
	size_t bytes = segment_footer_bytes(footer->length_blocks);
	uint8_t *buffer = env_alloc_aligned(bytes);
	if (!buffer)
		return -ENOMEM;
	segment_footer_encode(footer, crcs, buffer);
	uint64_t at = COPY_BASE + (uint64_t)footer->length_blocks * BLOCK_BYTES;
	int r = file_write_wait(c->file, buffer, bytes, at);
	if (r == 0) { /* gives back what was allocated beyond, and is never more than the file had if that is full */
		struct file_io io = { .op = FILE_TRUNCATE, .offset = at + bytes };
		r = file_wait(c, &io);
	}
	if (r == 0)
		r = copy_fdatasync(c);
	free(buffer);
	return r;
}

static int seal_write(struct copy *c, uint32_t length, uint32_t crc)
{
	uint32_t *crcs = calloc(length, sizeof *crcs);
	struct copy_slot s = { .length = length, .prev = crc };
	if (!crcs)
		return -ENOMEM;
	int r = seal_verify(c, length, crc, crcs, &s.last_seq);
	struct segment_footer footer = { .segment = c->id, .length_blocks = length, .prev = crc, .last_seq = s.last_seq };
	if (r == 0) { /* the footer goes over what is beyond the cut, so that is gone whatever becomes of the seal */
		c->length = c->accepted = length;
		c->last_crc = c->accepted_crc = crc;
		c->last_seq = c->accepted_seq = s.last_seq;
		c->scanned = true;
		c->unverified = false;
		r = footer_write(c, &footer, crcs);
	}
	free(crcs);
	if (r == 0)
		r = copy_slot_write(c, &s);
	if (r < 0)
		return r;
	c->synced = length;
	free(c->crcs);
	c->crcs = NULL;
	return copy_trim_sealed(c);
}

static int control_seal(struct copy *c, struct segment_io *io)
{
	if (!c->exists)
		return -ENOENT;
	if (c->fenced_epoch > io->epoch)
		return -EPERM;
	if (c->slot.sealed) {
		int s = c->slot.length == io->block && c->slot.prev == io->crc ? copy_settle(c) : -EROFS;
		return s < 0 ? s : copy_trim_sealed(c);
	}
	if (c->broken)
		return -ESTALE; /* a sync failed here; an old or a damaged copy, repaired, will do */
	if (io->block == 0 || io->block > c->slot.header.size_blocks)
		return -EINVAL;
	c->sealing = true;
	copy_appends_wait(c);
	copy_prepare_wait(c); /* the footer goes there */
	int r = copy_scan(c);
	uint32_t length = io->block, crc = io->crc;
	if (PLANTED(segment_seal_no_cut) && r == 0) {
		length = c->length;
		crc = c->last_crc;
	}
	if (r == 0)
		r = c->length < length ? -EINVAL : seal_write(c, length, crc);
	c->sealing = false;
	return r;
}

/* ---- repair, delete ---- */

/* The bytes may end in the middle of a record; what they amount to is for the next scan to say. */
static int repair_write(struct copy *c, const struct segment_io *io)
{
	size_t bytes = (size_t)io->blocks * BLOCK_BYTES;
	if (iov_bytes(io->iov, io->iov_count) != bytes)
		return -EINVAL;
	uint8_t *copy = env_alloc_aligned(bytes);
	if (!copy)
		return -ENOMEM;
	iov_gather(io->iov, io->iov_count, 0, copy, bytes);
	int r = file_write_wait(c->file, copy, bytes, COPY_BASE + (uint64_t)io->block * BLOCK_BYTES);
	free(copy);
	c->unverified = true;
	c->dirty = true;
	c->synced = MIN(c->synced, io->block);
	if (r == 0)
		c->length = c->accepted = MAX(c->length, io->block + io->blocks);
	return r;
}

static int control_repair(struct copy *c, struct segment_io *io)
{
	if (!c->exists)
		return -ENOENT;
	if (c->slot.sealed)
		return -EROFS;
	if (c->fenced_epoch != io->epoch)
		return -EPERM;
	copy_appends_wait(c);
	copy_prepare_wait(c);
	bool rewrite = copy_unsure(c) || (c->broken && !c->rewritten);
	if (rewrite && !c->crcs)
		c->unverified = true; /* they are needed */
	int r = c->scanned && !rewrite ? 0 : copy_scan(c);
	if (r < 0)
		return r;
	if (io->block > c->length || !range_within(io->block, io->blocks, c->slot.header.size_blocks) ||
	    (io->blocks && io->block == 0))
		return -EINVAL;
	if (rewrite)
		r = copy_rewrite(c);
	if (r == 0 && io->blocks)
		r = repair_write(c, io);
	if (r == 0)
		r = copy_fdatasync(c);
	if (r == 0)
		c->rewritten |= rewrite;
	return r;
}

/* All of its file was written, and has no holes: worth to be recycled. */
static bool is_whole(struct copy *c)
{
	struct file_info info;
	return c->slot.sealed && !c->map && !c->mapless && file_stat(c->file, &info) == 0 && info.allocated >= info.size;
}

static int delete_file(struct copy *c)
{
	struct segment_dir *d = c->dir;
	char path[DIR_PATH_MAX];
	c->deleting = true; /* the file may become another segment's, so nobody may be using it */
	while (c->busy || !link_empty(&c->appends))
		fiber_cond_wait(&d->env->loop, &c->idle);
	copy_path(c, path);
	bool whole = is_whole(c);
	copy_forget(c);
	copy_late_forget(c);
	c->loaded = false;
	int r = pool_give(d, path, whole);
	c->deleting = false;
	if (r < 0)
		return r;
	c->exists = c->scanned = c->dirty = c->broken = c->rewritten = false;
	c->settled = true;
	c->fenced_epoch = 0;
	free(c->crcs); /* what is remembered of what is gone isn't to take a thousand times as much */
	c->crcs = NULL;
	c->slot = (struct copy_slot){ 0 };
	copy_charge(c);
	return 0;
}

/* Epoch 0: of this server itself, which has asked the catalog. A fence that can't be read holds against everybody, and nobody could delete what is under it. */
static int control_delete(struct copy *c, const struct segment_io *io)
{
	struct segment_dir *d = c->dir;
	char path[DIR_PATH_MAX], parent[DIR_PATH_MAX];
	int r;
	if (io->epoch && c->fenced_epoch > io->epoch && c->fenced_epoch != UINT64_MAX && !PLANTED(segment_delete_unfenced))
		return -EPERM;
	if (c->exists)
		return delete_file(c);
	if (c->fenced_epoch == 0)
		return copy_settle(c);
	dir_path(d, path, "segments/%02x/%012" PRIx64 ".fence", (unsigned)(c->id & 0xff), c->id);
	dir_path(d, parent, "segments/%02x", (unsigned)(c->id & 0xff));
	r = env_unlink(d->env, path);
	if (r == 0)
		r = env_sync_dir(d->env, parent);
	if (r == 0 || r == -ENOENT)
		c->fenced_epoch = 0;
	return r == -ENOENT ? 0 : r;
}

/* ---- an append that was accepted before ---- */

/* Answered again if its header is the one that is there. */
static int control_repeated(struct copy *c, struct segment_io *io)
{
	copy_appends_wait(c);
	if (io->block + io->blocks > c->length || io->block + io->blocks < io->block || io->blocks == 0)
		return -EINVAL;
	uint8_t *there = env_alloc_aligned(BLOCK_BYTES), *given = malloc(BLOCK_BYTES);
	int r = there && given ? 0 : -ENOMEM;
	if (r == 0 && iov_bytes(io->iov, io->iov_count) != (uint64_t)io->blocks * BLOCK_BYTES)
		r = -EINVAL;
	if (r == 0)
		r = file_read_wait(c->file, there, BLOCK_BYTES, COPY_BASE + (uint64_t)io->block * BLOCK_BYTES, NULL);
	if (r == 0) {
		iov_gather(io->iov, io->iov_count, 0, given, BLOCK_BYTES);
		r = memcmp(there, given, BLOCK_BYTES) == 0 ? 0 : -EINVAL; /* its CRC covers all of the header */
	}
	free(there);
	free(given);
	return r;
}

static int control_run(struct copy *c, struct segment_io *io)
{
	switch (io->op) {
	case SEGMENT_CREATE: return control_create(c, io);
	case SEGMENT_FENCE: return control_fence(c, io);
	case SEGMENT_STAT: return control_stat(c, io);
	case SEGMENT_SEAL: return control_seal(c, io);
	case SEGMENT_REPAIR: return control_repair(c, io);
	case SEGMENT_DELETE: return control_delete(c, io);
	case SEGMENT_APPEND: return control_repeated(c, io);
	case SEGMENT_HOLDS: return control_holds(c, io);
	case SEGMENT_FETCH: return control_fetch(c, io);
	case SEGMENT_TRIM: {
		int r = control_trim(c, io);
		if (r == 0)
			results_fill(c, io);
		return r;
	}
	default: return -EINVAL;
	}
}

int dir_control(struct dir_frame *f)
{
	struct copy *c = f->copy;
	dir_evict(c->dir);
	fiber_mutex_lock(&c->dir->env->loop, &c->mutex);
	int r = dir_load(c);
	if (r == 0) {
		r = control_run(c, f->io);
		index_note(c);
	}
	fiber_mutex_unlock(&c->mutex);
	dir_frame_end(f, r);
	return 0;
}
