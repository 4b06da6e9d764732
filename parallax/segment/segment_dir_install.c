/* A sealed copy made from another server's (R33): written beside, as a packed one (segment_dir_pack.c), page by page as FETCH
 * gives them, each block checked against the footer's CRC that came with it; complete and durable before it takes its name.
 *
 *     begin ─▶ page, page … ─▶ end: every block came, or is free
 *                └──────────▶ abort
 *
 * It takes the place of an unsealed or a broken copy, never of a sealed, whole one. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/segment/segment_dir.h"
#include "parallax/segment/segment_share.h"

struct segment_install {
	struct segment_dir *dir;
	struct share_entry entry;
	struct file *file;
	char path[DIR_PATH_MAX];
	struct copy_map *map;
	uint32_t *crcs;
	uint64_t to;        /* where the file goes on */
	uint32_t next;      /* blocks below have come, or won't */
};

static void install_free(struct segment_install *i)
{
	if (i->file)
		file_close(i->dir->env, i->file);
	free(i->map);
	free(i->crcs);
	free(i);
}

void segment_dir_install_abort(struct segment_install *i)
{
	if (!i)
		return;
	char path[DIR_PATH_MAX];
	struct env *env = i->dir->env;
	memcpy(path, i->path, sizeof path);
	install_free(i);
	env_unlink(env, path);
}

static int file_op(struct segment_install *i, enum file_op op, uint64_t offset, uint64_t length)
{
	struct file_io io = { .op = op, .offset = offset, .length = length };
	struct job j;
	job_init(&j, &i->dir->env->loop);
	file_submit(i->file, &io, &j);
	return fiber_wait(&j);
}

static int install_open(struct segment_install *i)
{
	struct segment_dir *d = i->dir;
	int r = dir_room(d, i->entry.header.size_blocks, /* reserve= */ false);
	if (r == 0)
		r = pool_open_file(d, i->path, &i->file);
	if (r < 0)
		return r;
	uint64_t blocks = MIN(i->entry.present, i->entry.length);
	r = file_op(i, FILE_ALLOCATE, 0, PACK_BASE + blocks * BLOCK_BYTES + segment_footer_bytes((uint32_t)blocks)); /* together on the disk */
	return r == -EOPNOTSUPP || r == -ENOTSUP ? 0 : r;
}

/* What is there already: 0 if it may be replaced. Asked before anything is fetched, and again at the end. What the disk can't read may be as good as
 * what comes, and is no better: that is sealed, and all of it was checked. */
static int install_may(struct copy *c)
{
	int r = dir_load(c); /* of a newer version: it is no less than what would come */
	if (r == -EIO && !PLANTED(install_keeps_unreadable))
		return 0;
	return r == 0 && c->exists && c->slot.sealed && copy_state(c) == COPY_WHOLE ? -EEXIST : r;
}

static int install_look(struct segment_dir *d, uint64_t segment)
{
	struct copy *c = copy_hold(d, segment);
	if (!c)
		return -ENOMEM;
	fiber_mutex_lock(&d->env->loop, &c->mutex);
	int r = install_may(c);
	fiber_mutex_unlock(&c->mutex);
	copy_release(c);
	return r;
}

int segment_dir_install_begin(struct segment_server *s, const struct share_entry *e, struct segment_install **ret)
{
	int r = install_look(dir_of(s), e->header.segment);
	struct segment_install *i = r == 0 ? calloc(1, sizeof *i) : NULL;
	if (!i)
		return r ? r : -ENOMEM;
	i->dir = dir_of(s);
	i->entry = *e;
	i->to = PACK_BASE;
	i->map = calloc(1, sizeof *i->map);
	i->crcs = calloc(e->length, sizeof *i->crcs);
	r = i->map && i->crcs ? install_open(i) : -ENOMEM;
	if (r == 0) {
		i->map->blocks = e->length;
		*ret = i;
	} else if (i->file) {
		segment_dir_install_abort(i);
	} else {
		install_free(i);
	}
	return r;
}

uint32_t segment_dir_install_next(const struct segment_install *i) { return i->next; }

static bool is_its_header(const struct segment_install *i, const void *block)
{
	struct segment_header h;
	const struct segment_header *e = &i->entry.header;
	return segment_header_decode(block, &h) == 0 && h.segment == e->segment && h.epoch == e->epoch && h.salt == e->salt &&
	       h.size_blocks == e->size_blocks && memcmp(h.volume.bytes, e->volume.bytes, sizeof h.volume.bytes) == 0;
}

int segment_dir_install_page(struct segment_install *i, void *page, size_t bytes, uint64_t next)
{
	uint32_t count = 0, length = i->entry.length;
	int r = next > i->next && next <= length ? share_page_check(page, bytes, i->next, (uint32_t)next, &count) : -EBADMSG;
	if (PLANTED(install_unchecked) && r == -EBADMSG && next > i->next && next <= length && bytes >= SHARE_HEAD_BYTES) {
		count = get_le32(page);
		r = count <= SHARE_FETCH_MAX && bytes == SHARE_HEAD_BYTES + (size_t)count * BLOCK_BYTES ? 0 : r;
	}
	if (r == 0 && i->next == 0 && (count == 0 || share_head_block(page, 0) != 0 || !is_its_header(i, share_block(page, 0))))
		r = -EBADMSG;
	if (r == 0 && count)
		r = file_write_wait(i->file, share_block(page, 0), (size_t)count * BLOCK_BYTES, i->to);
	if (r < 0)
		return r;
	for (uint32_t k = 0; k < count; k++) {
		i->crcs[i->map->count++] = share_head_crc(page, k);
		bit_set(i->map->bits, share_head_block(page, k));
	}
	i->to += (uint64_t)count * BLOCK_BYTES;
	i->next = (uint32_t)next;
	return 0;
}

/* ---- the end ---- */

/* Slots, map and footer; then all of it is durable. */
static int install_write(struct segment_install *i, const struct copy_slot *slot)
{
	const struct share_entry *e = &i->entry;
	size_t bytes = segment_footer_bytes(i->map->count);
	uint8_t *footer = env_alloc_aligned(bytes), *head = env_alloc_aligned(PACK_BASE);
	struct segment_footer f = { .segment = e->header.segment, .length_blocks = i->map->count, .prev = e->prev, .last_seq = e->last_seq };
	int r = footer && head ? 0 : -ENOMEM;
	if (r == 0) {
		segment_footer_encode(&f, i->crcs, footer);
		for (unsigned k = 0; k < SLOT_COUNT; k++)
			copy_slot_encode(slot, head + k * BLOCK_BYTES);
		copy_map_encode(i->map, e->header.segment, head + MAP_BASE);
		r = file_write_wait(i->file, footer, bytes, i->to);
	}
	if (r == 0)
		r = file_write_wait(i->file, head, PACK_BASE, 0);
	if (r == 0)
		r = file_op(i, FILE_TRUNCATE, i->to + bytes, 0);
	if (r == 0)
		r = file_sync_wait(i->file);
	free(footer);
	free(head);
	return r;
}

/* Nobody uses what is there, and nobody will until `deleting` is reset. */
static void quiesce(struct copy *c)
{
	c->sealing = true;
	copy_appends_wait(c);
	copy_prepare_wait(c);
	c->deleting = true;
	while (c->busy || !link_empty(&c->appends))
		fiber_cond_wait(&c->dir->env->loop, &c->idle);
	c->sealing = false;
}

/* It is in the place of what was there; what was known of that isn't true any more. */
static int take_place(struct copy *c)
{
	struct segment_dir *d = c->dir;
	char parent[DIR_PATH_MAX], fence[DIR_PATH_MAX];
	d->size_used -= MIN(d->size_used, c->charged);
	copy_forget(c);
	free(c->crcs);
	c->crcs = NULL;
	c->loaded = c->exists = c->scanned = c->dirty = c->broken = c->rewritten = c->damaged = false;
	c->lost_acked = c->lost_synced = c->unverified = c->settled = false;
	c->accepted_crc = 0;
	c->accepted_seq = 0;
	c->synced = 0;
	c->ready = 0;
	c->slot = (struct copy_slot){ 0 };
	dir_path(d, parent, "segments/%02x", (unsigned)(c->id & 0xff));
	dir_path(d, fence, "segments/%02x/%012" PRIx64 ".fence", (unsigned)(c->id & 0xff), c->id);
	env_unlink(d->env, fence); /* the slot says it */
	int r = env_sync_dir(d->env, parent);
	c->settled = r == 0;
	int loaded = copy_load(c);
	d->size_used += c->charged;
	return r ? r : loaded;
}

static int install_switch(struct segment_install *i, struct copy *c)
{
	char path[DIR_PATH_MAX];
	copy_path(c, path);
	quiesce(c);
	int r = env_rename(i->dir->env, i->path, path);
	if (r == 0)
		r = take_place(c);
	c->deleting = false;
	if (r == 0)
		r = copy_trim_sealed(c); /* what became free after it had come */
	index_note(c);
	return r;
}

static int install_end(struct segment_install *i, struct copy *c, uint8_t *frees)
{
	const struct share_entry *e = &i->entry;
	uint32_t trimmed = 0;
	int r = install_may(c);
	if (r < 0)
		return r;
	for (uint32_t b = 0; b < e->length; b++) {
		if (b && c->exists && c->trim && bit_get(c->trim, b) && !PLANTED(install_forgets_own_frees)) /* said to this server while the others were asked */
			bit_set(frees, b);
		if (!bit_get(frees, b) && !bit_get(i->map->bits, b))
			return -EBADMSG;
		trimmed += bit_get(frees, b);
	}
	struct copy_slot slot = { .header = e->header, .incarnation = c->dir->state.incarnation, .generation = 2, .fenced_epoch = c->fenced_epoch,
				  .sealed = true, .length = e->length, .prev = e->prev, .last_seq = e->last_seq, .packed = true,
				  .trim = frees, .trimmed = trimmed };
	r = copy_directory(c);
	if (r == 0)
		r = install_write(i, &slot);
	return r ? r : install_switch(i, c);
}

int segment_dir_install_end(struct segment_install *i, const uint8_t *given)
{
	struct segment_dir *d = i->dir;
	uint8_t frees[BITMAP_BYTES] = { 0 };
	struct copy *c = copy_hold(d, i->entry.header.segment);
	for (uint32_t b = 1; b < i->entry.length; b++)
		if (bit_get(given, b))
			bit_set(frees, b);
	map_rank(i->map);
	int r = c && i->next == i->entry.length ? 0 : c ? -EINVAL : -ENOMEM;
	if (r == 0) {
		fiber_mutex_lock(&d->env->loop, &c->mutex);
		r = install_end(i, c, frees);
		fiber_mutex_unlock(&c->mutex);
	}
	if (c)
		copy_release(c);
	if (r < 0)
		segment_dir_install_abort(i);
	else
		install_free(i);
	dir_evict(d);
	return r;
}
