/* Scrubbing: see segment_scrub.h. */
#include "parallax/segment/segment_scrub.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/segment/segment_dir.h"

enum { TRIES = 3 }; /* a bit may flip on the way */
#define AGAIN_NS (20 * NS_PER_MS)

/* A copy's file, and what is known of it. */
struct look {
	struct file *file;
	uint64_t segment;
	uint32_t length;
	const struct copy_map *map; /* packed */
	const uint8_t *trim;        /* NULL: nothing is free */
	const uint32_t *known;      /* not sealed: what was appended; otherwise NULL, and the footer says */
	uint8_t *footer;
	const uint8_t *crcs;
};

static uint64_t base_of(const struct look *l) { return l->map ? PACK_BASE : COPY_BASE; }

static uint32_t crc_at(const struct look *l, uint32_t place) { return l->known ? l->known[place] : get_le32(l->crcs + (size_t)place * 4); }

static int footer_read(struct look *l)
{
	if (l->known)
		return 0;
	uint32_t count = l->map ? l->map->count : l->length;
	size_t bytes = segment_footer_bytes(count);
	struct segment_footer f;
	int r = -EBADMSG;
	l->footer = env_alloc_aligned(bytes);
	if (!l->footer)
		return -ENOMEM;
	for (int try = 0; try < TRIES && r == -EBADMSG; try++) {
		size_t done = 0;
		r = file_read_wait(l->file, l->footer, bytes, base_of(l) + (uint64_t)count * BLOCK_BYTES, &done);
		if (r == 0)
			r = done == bytes ? segment_footer_decode(l->footer, bytes, &f, &l->crcs) : -EBADMSG;
		if (r == 0 && (f.segment != l->segment || f.length_blocks != count))
			r = -EBADMSG;
		r = r == -EIO ? -EBADMSG : r;
	}
	return r;
}

/* ---- a slice ---- */

struct slice {
	uint32_t block[SCRUB_SLICE_BLOCKS], place[SCRUB_SLICE_BLOCKS];
	uint32_t count, next;
};

/* The next blocks below `end` that aren't free, and where they are among those of the file; none farther apart than a slice is long. */
static void slice_choose(const struct look *l, uint32_t from, uint32_t end, struct slice *s)
{
	uint32_t place = 0;
	end = MIN(end, l->length);
	s->count = 0;
	s->next = from;
	for (uint32_t b = 0; b < end; b++) {
		if (l->map && (b >= l->map->blocks || !bit_get(l->map->bits, b)))
			continue;
		if (b >= from && !(l->trim && bit_get(l->trim, b))) {
			if (s->count == SCRUB_SLICE_BLOCKS || (s->count && place - s->place[0] >= SCRUB_SLICE_BLOCKS)) {
				s->next = b;
				return;
			}
			s->block[s->count] = b;
			s->place[s->count++] = place;
		}
		place++;
	}
	s->next = 0;
}

static bool is_right(const struct look *l, const struct slice *s, uint32_t i, const uint8_t *bytes)
{
	return crc32c(0, bytes, BLOCK_BYTES) == crc_at(l, s->place[i]);
}

/* By itself, and again. */
static int block_again(const struct look *l, const struct slice *s, uint32_t i, uint8_t *page)
{
	int r = -EBADMSG;
	for (int try = 0; try < TRIES && r == -EBADMSG; try++) {
		r = file_read_wait(l->file, page, BLOCK_BYTES, base_of(l) + (uint64_t)s->place[i] * BLOCK_BYTES, NULL);
		if (r == -EIO || (r == 0 && !is_right(l, s, i, page)))
			r = -EBADMSG;
	}
	return r;
}

static int slice_read(const struct look *l, const struct slice *s, uint8_t *bytes, struct scrub_slice *ret)
{
	uint32_t span = s->count ? s->place[s->count - 1] - s->place[0] + 1 : 0;
	int r = span ? file_read_wait(l->file, bytes, (size_t)span * BLOCK_BYTES, base_of(l) + (uint64_t)s->place[0] * BLOCK_BYTES, NULL) : 0;
	if (r < 0 && r != -EIO)
		return r;
	bool all = r == 0;
	ret->next = s->next;
	for (uint32_t i = 0; i < s->count; i++) {
		uint8_t *page = bytes + (size_t)(s->place[i] - s->place[0]) * BLOCK_BYTES;
		r = all && is_right(l, s, i, page) ? 0 : block_again(l, s, i, page);
		if (r == -EBADMSG) {
			ret->bad = true;
			ret->bad_block = s->block[i];
			ret->bad_crc = crc_at(l, s->place[i]);
			ret->next = i + 1 < s->count ? s->block[i + 1] : s->next;
			return 0;
		}
		if (r < 0)
			return r;
		ret->blocks++;
	}
	return 0;
}

static int look_slice(struct look *l, uint32_t from, uint32_t end, struct scrub_slice *ret)
{
	struct slice *s = malloc(sizeof *s);
	uint8_t *bytes = env_alloc_aligned((size_t)SCRUB_SLICE_BLOCKS * BLOCK_BYTES);
	int r = s && bytes ? footer_read(l) : -ENOMEM;
	if (r == 0) {
		slice_choose(l, from, end, s);
		r = slice_read(l, s, bytes, ret);
	}
	free(bytes);
	free(s);
	free(l->footer);
	l->footer = NULL;
	return r;
}

/* ---- in an open directory ---- */

/* Of one that isn't sealed, what it should be is known by whoever took the appends, or read it all since. */
static bool is_known(const struct copy *c) { return c->crcs && (c->scanned ? !c->unverified : c->said > 1) && copy_state(c) == COPY_WHOLE; }

/* A server that was restarted, and wasn't asked yet whether it has everything: what its records' headers say, which hang together. What is mended by that is
 * what another server has, too. */
static int learn(struct copy *c)
{
	if (c->scanned || c->crcs || c->slot.sealed || !c->exists || c->broken)
		return 0;
	uint32_t *crcs = calloc(c->slot.header.size_blocks, sizeof *crcs), said = 0;
	int r = crcs ? segment_said(c->file, COPY_BASE, &c->slot.header, crcs, &said) : -ENOMEM;
	if (r < 0) {
		free(crcs);
		return r;
	}
	c->crcs = crcs;
	c->said = said;
	return 0;
}

static int with_copy(struct segment_server *dir, uint64_t segment, bool open_too, int (*run)(struct copy *c, void *arg), void *arg)
{
	struct segment_dir *d = dir_of(dir);
	struct copy *c = copy_hold(d, segment);
	if (!c)
		return -ENOMEM;
	fiber_mutex_lock(&d->env->loop, &c->mutex);
	int r = d->closing ? -ESHUTDOWN : dir_load(c);
	if (r == 0 && open_too && (r = learn(c)) == -EIO)
		r = -EAGAIN; /* it isn't its head that can't be read */
	if (r == 0)
		r = c->exists && !c->broken && (c->slot.sealed || (open_too && is_known(c))) ? run(c, arg) : -ENOENT;
	fiber_mutex_unlock(&c->mutex);
	copy_release(c);
	dir_evict(d);
	return r;
}

struct scrub_call {
	uint32_t from, end;
	const uuid *only;
	struct scrub_slice *ret;
};

static struct look look_at(const struct copy *c)
{
	bool sealed = c->slot.sealed;
	return (struct look){ .file = c->file, .segment = c->id, .length = sealed ? c->slot.length : c->scanned ? c->length : c->said, .map = c->map, .trim = c->trim,
			      .known = sealed ? NULL : c->crcs };
}

static int scrub_copy(struct copy *c, void *arg)
{
	const struct scrub_call *call = arg;
	struct look l = look_at(c);
	*call->ret = (struct scrub_slice){ .volume = c->slot.header.volume };
	if (call->only && memcmp(&c->slot.header.volume, call->only, sizeof(uuid)) != 0)
		return -EXDEV;
	return c->mapless ? -EBADMSG : look_slice(&l, call->from, call->end, call->ret);
}

int segment_dir_scrub(struct segment_server *dir, uint64_t segment, uint32_t from, const uuid *only, struct scrub_slice *ret)
{
	struct scrub_call call = { from, SEGMENT_BLOCKS_MAX, only, ret };
	return with_copy(dir, segment, /* open_too= */ false, scrub_copy, &call);
}

int segment_dir_look(struct segment_server *dir, uint64_t segment, uint32_t from, uint32_t end, struct scrub_slice *ret)
{
	struct scrub_call call = { from, end, NULL, ret };
	return with_copy(dir, segment, /* open_too= */ true, scrub_copy, &call);
}

struct mend_call {
	uint32_t block;
	const void *page;
};

static int mend_copy(struct copy *c, void *arg)
{
	const struct mend_call *m = arg;
	struct look l = look_at(c);
	struct slice s;
	uint64_t offset;
	if (m->block >= l.length || copy_find(c, m->block, 1, &offset) < 0)
		return -ENODATA;
	s.place[0] = (uint32_t)((offset - base_of(&l)) / BLOCK_BYTES);
	uint8_t *back = env_alloc_aligned(BLOCK_BYTES);
	int r = back ? footer_read(&l) : -ENOMEM;
	if (r == 0 && !is_right(&l, &s, 0, m->page) && !PLANTED(mend_unverified))
		r = -EBADMSG;
	if (r == 0)
		r = file_write_wait(c->file, m->page, BLOCK_BYTES, offset);
	if (r == 0)
		r = copy_fdatasync(c);
	if (r == 0)
		r = block_again(&l, &s, 0, back);
	free(l.footer);
	free(back);
	return r;
}

int segment_dir_mend(struct segment_server *dir, uint64_t segment, uint32_t block, const void *page)
{
	struct mend_call call = { block, page };
	return with_copy(dir, segment, /* open_too= */ true, mend_copy, &call);
}

static int give_up(struct copy *c, void *arg)
{
	(void)arg;
	copy_break(c);
	index_note(c);
	return 0;
}

/* What can't be read counts for nothing by itself (index_doubt()). */
int segment_dir_give_up(struct segment_server *dir, uint64_t segment)
{
	int r = with_copy(dir, segment, /* open_too= */ false, give_up, NULL);
	return r == -EIO ? 0 : r;
}

void segment_dir_on_damage(struct segment_server *dir, void (*found)(void *arg, uint64_t segment, uint32_t block, uint32_t blocks), void *arg)
{
	dir_of(dir)->damage = found;
	dir_of(dir)->damage_arg = arg;
}

void copy_damaged(const struct copy *c, uint32_t block, uint32_t blocks)
{
	if (c->dir->damage && !PLANTED(damage_untold))
		c->dir->damage(c->dir->damage_arg, c->id, block, blocks);
}

/* ---- in somebody else's ---- */

static int newest_slot(const uint8_t *slots, uint64_t segment, struct copy_slot *ret, uint8_t *ret_trim)
{
	uint64_t newest = 0, trim_of = 0;
	memset(ret_trim, 0, BITMAP_BYTES);
	for (unsigned i = 0; i < SLOT_COUNT; i++) {
		struct copy_slot s;
		int r = copy_slot_decode(slots + (size_t)i * BLOCK_BYTES, &s);
		if (r == -EPROTONOSUPPORT)
			return r; /* the other one is older, and isn't what the file is now */
		if (r < 0 || s.header.segment != segment)
			continue;
		if (s.generation >= trim_of && copy_slot_trim(slots + (size_t)i * BLOCK_BYTES, &s, ret_trim))
			trim_of = s.generation;
		if (s.generation > newest)
			*ret = s;
		newest = MAX(newest, s.generation);
	}
	return newest ? 0 : -EBADMSG;
}

static int path_scrub_once(struct file *file, uint64_t segment, uint32_t from, struct scrub_slice *ret)
{
	uint8_t trim[BITMAP_BYTES], *head = env_alloc_aligned(PACK_BASE);
	struct copy_map *map = malloc(sizeof *map);
	struct copy_slot slot;
	size_t done = 0;
	int r = head && map ? file_read_wait(file, head, PACK_BASE, 0, &done) : -ENOMEM;
	if (r == 0)
		r = done == PACK_BASE ? newest_slot(head, segment, &slot, trim) : -EBADMSG;
	struct look l = { .file = file, .segment = segment, .trim = trim };
	if (r == 0) {
		l.length = slot.length;
		ret->volume = slot.header.volume;
		r = slot.sealed && !slot.broken ? 0 : -ENOENT;
	}
	if (r == 0 && slot.packed) {
		r = copy_map_decode(head + MAP_BASE, segment, map);
		r = r == -ENODATA ? -EBADMSG : r;
		l.map = map;
	}
	if (r == 0)
		r = look_slice(&l, from, SEGMENT_BLOCKS_MAX, ret);
	free(map);
	free(head);
	return r;
}

/* Its owner may give it another file at any moment; then the old one is empty. */
int segment_path_scrub(struct env *env, const char *path, uint64_t segment, uint32_t from, struct scrub_slice *ret)
{
	char name[DIR_PATH_MAX + 64];
	int r = -EBADMSG;
	snprintf(name, sizeof name, "%s/segments/%02x/%012" PRIx64 ".seg", path, (unsigned)(segment & 0xff), segment);
	*ret = (struct scrub_slice){ 0 };
	for (int try = 0; try < TRIES && (r == -EBADMSG || ret->bad); try++) {
		struct file *f;
		if (try)
			fiber_sleep(&env->loop, AGAIN_NS);
		*ret = (struct scrub_slice){ 0 };
		r = file_open(env, name, FILE_OPEN_DIRECT, &f);
		if (r == -ENOENT || r == -ENOTDIR)
			return -ENOENT;
		if (r < 0)
			return r;
		r = path_scrub_once(f, segment, from, ret);
		file_close(env, f);
	}
	return r;
}
