/* The contents of simulated files: sparse tables of 4 KiB chunks, counted, so that what is
 * in the page cache and what is on the platter share what they have in common. */
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/env_sim_world.h"

struct chunk {
	uint32_t refs;
	uint8_t data[CHUNK_BYTES];
};

/* Space is reserved, nothing is written: reads as zeroes. Not counted. */
static struct chunk reserved = { .refs = 1 };

static void chunk_drop(struct chunk *c)
{
	if (c && c != &reserved && --c->refs == 0)
		free(c);
}

/* What was there is dropped, or has become a part of `c`. */
static void chunk_put(struct image *m, size_t i, struct chunk *c)
{
	m->used += c && !m->chunks[i];
	m->used -= !c && m->chunks[i];
	m->chunks[i] = c;
}

static void image_grow(struct image *m, size_t count)
{
	if (count <= m->count)
		return;
	count = MAX(count, m->count + m->count / 2);
	m->chunks = realloc(m->chunks, count * sizeof *m->chunks);
	if (!m->chunks)
		abort();
	memset(m->chunks + m->count, 0, (count - m->count) * sizeof *m->chunks);
	m->count = count;
}

void image_free(struct image *m)
{
	for (size_t i = 0; i < m->count; i++)
		chunk_drop(m->chunks[i]);
	free(m->chunks);
	*m = (struct image){ 0 };
}

void image_share_range(struct image *to, const struct image *from, uint64_t offset, uint64_t length)
{
	image_grow(to, div_up(offset + length, CHUNK_BYTES));
	for (size_t i = offset / CHUNK_BYTES; i < div_up(offset + length, CHUNK_BYTES); i++) {
		struct chunk *c = i < from->count ? from->chunks[i] : NULL;
		if (c && c != &reserved)
			c->refs++;
		chunk_drop(to->chunks[i]);
		chunk_put(to, i, c);
	}
}

void image_share(struct image *to, const struct image *from)
{
	image_free(to);
	image_grow(to, from->count);
	for (size_t i = 0; i < from->count; i++) {
		to->chunks[i] = from->chunks[i];
		if (to->chunks[i] && to->chunks[i] != &reserved)
			to->chunks[i]->refs++;
	}
	to->used = from->used;
	to->size = from->size;
}

/* The chunk at `i`, for writing: exists and is not shared. */
static struct chunk *chunk_own(struct image *m, size_t i)
{
	image_grow(m, i + 1);
	struct chunk *old = m->chunks[i];
	if (old && old != &reserved && old->refs == 1)
		return old;
	struct chunk *c = sim_alloc(sizeof *c);
	c->refs = 1;
	if (old) {
		memcpy(c->data, old->data, CHUNK_BYTES);
		chunk_drop(old);
	}
	chunk_put(m, i, c);
	return c;
}

void image_read(const struct image *m, uint64_t offset, void *to, uint64_t length)
{
	for (uint64_t n; length; offset += n, length -= n, to = (uint8_t *)to + n) {
		size_t i = offset / CHUNK_BYTES, at = offset % CHUNK_BYTES;
		n = MIN(length, CHUNK_BYTES - at);
		if (i < m->count && m->chunks[i])
			memcpy(to, m->chunks[i]->data + at, n);
		else
			memset(to, 0, n);
	}
}

void image_write(struct image *m, uint64_t offset, const void *from, uint64_t length)
{
	m->size = MAX(m->size, offset + length);
	for (uint64_t n; length; offset += n, length -= n, from = (const uint8_t *)from + n) {
		size_t i = offset / CHUNK_BYTES, at = offset % CHUNK_BYTES;
		n = MIN(length, CHUNK_BYTES - at);
		memcpy(chunk_own(m, i)->data + at, from, n);
	}
}

void image_punch(struct image *m, uint64_t offset, uint64_t length)
{
	for (uint64_t n; length; offset += n, length -= n) {
		size_t i = offset / CHUNK_BYTES, at = offset % CHUNK_BYTES;
		n = MIN(length, CHUNK_BYTES - at);
		if (i >= m->count)
			return;
		if (!m->chunks[i])
			continue;
		if (n == CHUNK_BYTES) {
			chunk_drop(m->chunks[i]);
			chunk_put(m, i, NULL);
		} else {
			memset(chunk_own(m, i)->data + at, 0, n);
		}
	}
}

void image_reserve(struct image *m, uint64_t offset, uint64_t length)
{
	image_grow(m, div_up(offset + length, CHUNK_BYTES));
	for (size_t i = offset / CHUNK_BYTES; i < div_up(offset + length, CHUNK_BYTES); i++)
		if (!m->chunks[i])
			chunk_put(m, i, &reserved);
}

void image_truncate(struct image *m, uint64_t size)
{
	if (size < m->size)
		image_punch(m, size, round_up(m->size, CHUNK_BYTES) - size);
	/* what was reserved beyond the end goes too, as ftruncate() does */
	for (size_t i = div_up(size, CHUNK_BYTES); i < m->count; i++) {
		chunk_drop(m->chunks[i]);
		chunk_put(m, i, NULL);
	}
	m->size = size;
}

uint64_t image_used(const struct image *m) { return m->used * CHUNK_BYTES; }

uint64_t image_needs(const struct image *m, uint64_t offset, uint64_t length)
{
	uint64_t needs = 0;
	for (size_t i = offset / CHUNK_BYTES; i < div_up(offset + length, CHUNK_BYTES); i++)
		needs += i >= m->count || !m->chunks[i] ? CHUNK_BYTES : 0;
	return needs;
}

bool image_has_data(const struct image *m, uint64_t offset)
{
	size_t i = offset / CHUNK_BYTES;
	return i < m->count && m->chunks[i] && m->chunks[i] != &reserved;
}
