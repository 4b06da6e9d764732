/* What a directory tells other servers of its copies (segment_share.h): a list of all, and the blocks of one.
 *
 * The list is an index in memory, by id, made when it is first asked for: ids from the directories' names, the rest of an
 * entry from the copy's file when it is first listed. From then on whatever changes a copy changes its entry. 130 bytes a copy; what comes
 * or goes moves eight for each that has a greater id. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/blk.h"
#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/segment/placement.h"
#include "parallax/segment/segment_dir.h"
#include "parallax/segment/segment_share.h"

/* ---- the index ---- */

#define UNREAD_NS (30 * NS_PER_S) /* a disk that fails may take seconds for each read, and each peer asks for a list every few seconds */

struct dir_index_entry {
	struct share_entry entry;
	bool known; /* otherwise only its id is */
	uint64_t again_ns; /* not known, as it couldn't be read: not before this is that tried again */
};

struct dir_index {
	struct dir_index_entry **entries; /* by id */
	size_t count;
	bool full; /* all ids are in it */
	uint64_t name, change;                 /* random; grows with each change … */
	uint64_t changed[PLACEMENT_GROUPS_MAX]; /* … the last of each group, at the finest */
};

/* Whoever has listed its group before this doesn't know it. */
static void index_changed(struct dir_index *x, uint64_t id)
{
	if (!PLANTED(index_changes_untold))
		x->changed[placement_group_number(PLACEMENT_GROUPS_MAX, id)] = ++x->change;
}

static size_t index_place(const struct dir_index *x, uint64_t id)
{
	size_t low = 0, high = x->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (x->entries[middle]->entry.header.segment < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct dir_index_entry *index_find(struct dir_index *x, uint64_t id)
{
	size_t at = index_place(x, id);
	return at < x->count && x->entries[at]->entry.header.segment == id ? x->entries[at] : NULL;
}

static int index_add(struct dir_index *x, const struct dir_index_entry *e)
{
	size_t at = index_place(x, e->entry.header.segment);
	struct dir_index_entry *n = array_more(&x->entries, x->count) == 0 ? malloc(sizeof *n) : NULL;
	if (!n)
		return -ENOMEM;
	*n = *e;
	memmove(x->entries + at + 1, x->entries + at, (x->count - at) * sizeof *x->entries);
	x->entries[at] = n;
	x->count++;
	index_changed(x, e->entry.header.segment);
	return 0;
}

static void index_remove(struct dir_index *x, uint64_t id)
{
	size_t at = index_place(x, id);
	if (at == x->count || x->entries[at]->entry.header.segment != id)
		return;
	free(x->entries[at]);
	memmove(x->entries + at, x->entries + at + 1, (x->count - at - 1) * sizeof *x->entries);
	x->count--;
	index_changed(x, id);
}

void index_free(struct dir_index *x)
{
	for (size_t i = 0; x && i < x->count; i++)
		free(x->entries[i]);
	if (x)
		free(x->entries);
	free(x);
}

/* Block b is free, or the file hasn't it any more, which is the same. */
static bool is_free(const struct copy *c, uint32_t b)
{
	return (c->trim && bit_get(c->trim, b)) || (c->map && (b >= c->map->blocks || !bit_get(c->map->bits, b)));
}

/* What is beyond the cut doesn't matter, and copies may differ there. */
static void frees_fill(const struct copy *c, uint8_t bits[BITMAP_BYTES])
{
	memset(bits, 0, BITMAP_BYTES);
	for (uint32_t b = 1; b < (c->slot.sealed ? c->slot.length : c->slot.header.size_blocks); b++)
		if (is_free(c, b))
			bit_set(bits, b);
}

static bool is_same(const struct share_entry *a, const struct share_entry *b)
{
	uint8_t x[SHARE_ENTRY_BYTES], y[SHARE_ENTRY_BYTES];
	share_entry_encode(a, x);
	share_entry_encode(b, y);
	return memcmp(x, y, sizeof x) == 0;
}

void index_note(struct copy *c)
{
	struct dir_index *x = c->dir->index;
	uint8_t bits[BITMAP_BYTES];
	if (!x)
		return;
	if (!c->exists) {
		index_remove(x, c->id);
		return;
	}
	struct dir_index_entry e = { .known = true, .entry = { .header = c->slot.header, .sealed = c->slot.sealed,
		.whole = copy_state(c) == COPY_WHOLE && (c->slot.sealed || !copy_unsure(c)), .length = c->slot.sealed ? c->slot.length : 0, .prev = c->slot.prev,
		.last_seq = c->slot.last_seq, .present = copy_present(c) } };
	e.entry.header.segment = c->id;
	if (c->slot.sealed && (c->trim || c->map)) {
		frees_fill(c, bits);
		for (uint32_t b = 0; b < c->slot.length; b++)
			e.entry.trimmed += bit_get(bits, b);
		e.entry.trim_crc = e.entry.trimmed ? crc32c(0, bits, BITMAP_BYTES) : 0;
	}
	struct dir_index_entry *there = index_find(x, c->id);
	if (there && !(there->known && is_same(&there->entry, &e.entry)))
		index_changed(x, c->id);
	if (there)
		*there = e;
	else if (index_add(x, &e) < 0)
		x->full = false; /* no memory: it will be found again */
}

void index_doubt(struct copy *c)
{
	struct dir_index_entry *there = c->dir->index ? index_find(c->dir->index, c->id) : NULL;
	if (there)
		there->known = false;
	if (there)
		index_changed(c->dir->index, c->id);
}

static int note_id(void *arg, uint64_t id)
{
	struct dir_index *x = arg;
	struct dir_index_entry e = { .entry = { .header = { .segment = id } } };
	return index_find(x, id) ? 0 : index_add(x, &e);
}

/* Copies that come and go meanwhile are noted as in a full one; one that went after its name was read is found gone when it is listed. */
static int index_make(struct segment_dir *d)
{
	if (!d->index && (d->index = calloc(1, sizeof *d->index)))
		d->index->name = env_random(d->env) | 1;
	if (!d->index)
		return -ENOMEM;
	int r = d->index->full ? 0 : segment_dir_ids(&d->server, note_id, d->index);
	d->index->full |= r == 0;
	return r;
}

/* ---- LIST ---- */

static int look_at(struct segment_dir *d, uint64_t id)
{
	struct copy *c = copy_hold(d, id);
	if (!c)
		return -ENOMEM;
	fiber_mutex_lock(&d->env->loop, &c->mutex);
	int r = dir_load(c);
	if (r == 0)
		index_note(c);
	fiber_mutex_unlock(&c->mutex);
	copy_release(c);
	dir_evict(d);
	return r;
}

static bool in_groups(const struct segment_io *io, uint64_t id)
{
	return !io->groups || bit_get(io->groups, placement_group_number(io->group_count, id));
}

/* A group of few groups is several of many. */
static void changes_fill(const struct dir_index *x, struct segment_io *io)
{
	bool all = io->index != x->name || io->change > x->change;
	memset(io->changed, 0, SEGMENT_GROUPS_BYTES);
	for (uint32_t g = 0; g < PLACEMENT_GROUPS_MAX; g++)
		if (all || x->changed[g] > io->change)
			bit_set(io->changed, g % io->group_count);
	io->index = x->name;
	io->change = x->change;
}

/* For the list. One that can't be read at the moment is passed over: a later one will have it. */
static int look_for_list(struct segment_dir *d, uint64_t id)
{
	struct dir_index_entry *e = index_find(d->index, id);
	uint64_t now = env_now_ns(d->env);
	int r = e->again_ns > now && !PLANTED(unread_each_time) ? -EIO : look_at(d, id);
	if (r == 0 || r == -ENOMEM || r == -ESHUTDOWN)
		return r;
	index_changed(d->index, id); /* whoever asks for changes asks again */
	e = index_find(d->index, id);
	if (e && e->again_ns <= now)
		e->again_ns = now + UNREAD_NS;
	return 0;
}

static int list_fill(struct segment_dir *d, struct segment_io *io, uint8_t *bytes)
{
	struct dir_index *x = d->index;
	uint64_t after = io->segment;
	size_t at = index_place(x, after + 1);
	io->filled = 0;
	while (io->filled + SHARE_ENTRY_BYTES <= SHARE_LIST_BYTES && at < x->count) {
		bool wanted = in_groups(io, after = x->entries[at]->entry.header.segment);
		if (wanted && !x->entries[at]->known) {
			int r = look_for_list(d, after);
			if (r < 0)
				return r;
			at = index_place(x, after); /* meanwhile others came and went, or it did */
		}
		const struct dir_index_entry *e = at < x->count && x->entries[at]->entry.header.segment == after ? x->entries[at] : NULL;
		if (wanted && e && e->known) {
			share_entry_encode(&e->entry, bytes + io->filled);
			io->filled += SHARE_ENTRY_BYTES;
		}
		at += e != NULL;
	}
	io->next = at < x->count ? after : 0;
	return 0;
}

int dir_list(struct dir_frame *f)
{
	struct segment_dir *d = f->dir;
	struct segment_io *io = f->io;
	uint8_t *bytes = iov_bytes(io->iov, io->iov_count) >= SHARE_LIST_BYTES ? malloc(SHARE_LIST_BYTES) : NULL;
	int r = bytes ? index_make(d) : iov_bytes(io->iov, io->iov_count) < SHARE_LIST_BYTES ? -EINVAL : -ENOMEM;
	if (r == 0 && io->changed)
		changes_fill(d->index, io);
	if (r == 0)
		r = list_fill(d, io, bytes);
	if (r == 0)
		iov_scatter(io->iov, io->iov_count, 0, bytes, io->filled);
	free(bytes);
	dir_frame_end(f, r);
	return 0;
}

/* ---- HOLDS ---- */

/* Who asks deletes a copy that isn't where it belongs. A file that is open can be read though somebody has deleted it, or taken its file system away: not for longer than this
 * process runs. */
static int is_there(const struct copy *c)
{
	char path[DIR_PATH_MAX];
	uint64_t free_bytes, total;
	copy_path(c, path);
	return PLANTED(holds_what_is_gone) ? 0 : env_space(c->dir->env, path, &free_bytes, &total);
}

int control_holds(struct copy *c, const struct segment_io *io)
{
	int r = c->exists ? is_there(c) : -ENOENT;
	if (r < 0)
		return r;
	bool as_asked = c->slot.sealed && c->slot.length == io->block && c->slot.prev == io->crc;
	return as_asked && copy_state(c) == COPY_WHOLE ? copy_settle(c) : -ESTALE;
}

/* ---- FETCH ---- */

struct fetch {
	struct copy *copy;
	uint8_t *page;
	uint32_t count, most;
};

static int fetch_footer(struct copy *c, uint8_t **ret_footer, const uint8_t **ret_crcs)
{
	uint32_t count = c->map ? c->map->count : c->slot.length;
	uint64_t at = (c->map ? PACK_BASE : COPY_BASE) + (uint64_t)count * BLOCK_BYTES;
	size_t bytes = segment_footer_bytes(count);
	uint8_t *footer = env_alloc_aligned(bytes);
	int r = footer ? -EBADMSG : -ENOMEM;
	for (int try = 0; try < 3 && (r == -EBADMSG || r == -EIO) && footer; try++) { /* a bit may flip on the way */
		struct segment_footer f;
		size_t done = 0;
		r = file_read_wait(c->file, footer, bytes, at, &done);
		if (r == 0)
			r = done == bytes ? segment_footer_decode(footer, bytes, &f, ret_crcs) : -EBADMSG;
		if (r == 0 && (f.segment != c->id || f.length_blocks != count))
			r = -EBADMSG;
	}
	r = r == -EBADMSG ? -EIO : r;
	if (r == -EIO)
		copy_damaged(c, 0, 1); /* who looks at any block finds it */
	if (r < 0)
		free(footer);
	else
		*ret_footer = footer;
	return r;
}

/* A run of blocks that are neighbours in the file, straight to their places in the page. */
static int fetch_run(struct fetch *p, uint32_t block, uint32_t blocks)
{
	uint64_t offset;
	int r = copy_find(p->copy, block, blocks, &offset);
	if (r == 0)
		r = file_read_wait(p->copy->file, share_block(p->page, p->count), (size_t)blocks * BLOCK_BYTES, offset, NULL);
	if (r == -EIO)
		copy_damaged(p->copy, block, blocks);
	p->count += blocks;
	return r;
}

static int fetch_blocks(struct fetch *p, const uint8_t *crcs, struct segment_io *io)
{
	const struct copy *c = p->copy;
	uint32_t block = io->block, run = 0, noted = 0, place = 0;
	int r = 0;
	for (uint32_t b = 0; c->map && b < block; b++)
		place += bit_get(c->map->bits, b);
	place = c->map ? place : block;
	for (; r == 0 && block < c->slot.length && noted < p->most; block++) {
		bool present = !c->map || bit_get(c->map->bits, block);
		if (present && !is_free(c, block)) {
			share_head_set(p->page, noted++, block, get_le32(crcs + (size_t)place * 4));
			run++;
		} else if (run) {
			r = fetch_run(p, block - run, run);
			run = 0;
		}
		place += present;
	}
	if (r == 0 && run)
		r = fetch_run(p, block - run, run);
	share_head_end(p->page, noted);
	io->next = block;
	io->filled = (uint32_t)(SHARE_HEAD_BYTES + (size_t)noted * BLOCK_BYTES);
	return r;
}

int control_fetch(struct copy *c, struct segment_io *io)
{
	if (!c->exists)
		return -ENOENT;
	if (!c->slot.sealed || copy_state(c) != COPY_WHOLE)
		return -ESTALE;
	if (io->block >= c->slot.length || io->blocks == 0 || io->blocks > SHARE_FETCH_MAX || iov_bytes(io->iov, io->iov_count) < share_room(io))
		return -EINVAL;
	bool direct = io->iov_count == 1 && (uintptr_t)io->iov[0].iov_base % BLOCK_BYTES == 0;
	uint8_t *footer = NULL, *bounce = direct ? NULL : env_alloc_aligned(share_room(io));
	const uint8_t *crcs;
	struct fetch p = { .copy = c, .page = direct ? io->iov[0].iov_base : bounce, .most = io->blocks };
	int r = p.page ? fetch_footer(c, &footer, &crcs) : -ENOMEM;
	if (r == 0)
		r = fetch_blocks(&p, crcs, io);
	if (r == 0 && !direct)
		iov_scatter(io->iov, io->iov_count, 0, bounce, io->filled);
	free(footer);
	free(bounce);
	return r;
}
