/* The space table's bytes: what a checkpoint writes of a struct space, and a takeover reads. docs/formats/store.md draws them. */
#include <errno.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/map/space_private.h"

/* header 48 bytes: magic "AQSPACE1" u64, version u32, segment count u32, list count u32, zero u32, mapped u64, dead u64, zero u64
 * segment 24 bytes (version 1: 16): id u64, live u32, blocks u32, present u32, frees u32
 * list 32 bytes: mark seq u64, mark position u64, node end u64, chunk count u32, zero u32; then its chunks,
 * 40 bytes each: position u64, crc u32, count u32, min u64, max u64, flags u32 (1: nodes; 2, since version 3: an index, a block of `count` chunks
 * likewise), positions in those of an index u32
 * then for each segment whose `frees` isn't 0 which blocks its server may not know to be free: with bit 31 a bitmap of
 * div_up(blocks, 8) bytes, otherwise as many u16 */

#define SPACE_MAGIC UINT64_C(0x3145434150535141)
#define SPACE_VERSION 3u
#define SPACE_VERSION_PLAIN 2u /* without an index, so that programs of before them read it */
#define HEADER_BYTES 48u
#define SEGMENT_BYTES 24u
#define SEGMENT_BYTES_1 16u
#define FREES_BITMAP (UINT32_C(1) << 31)
#define LIST_BYTES 32u
#define CHUNK_BYTES 40u
#define CHUNK_NODES 1u
#define CHUNK_INDEX 2u

uint64_t space_tail_blocks_max(const struct space *s)
{
	return s->loose / SPACE_CHUNK_ENTRIES + UINT64_C(3) * s->loose_lists;
}

uint64_t space_table_blocks_max(const struct space *s)
{
	/* a list of 512 has become a bitmap of 2 KiB */
	uint64_t frees = MIN(s->frees_count * 4, (uint64_t)s->segment_count * (SEGMENT_BLOCKS_MAX / 8));
	return div_up(HEADER_BYTES + (uint64_t)s->segment_count * SEGMENT_BYTES + (uint64_t)s->list_count * LIST_BYTES +
		      s->chunk_sum * CHUNK_BYTES + frees, BLOCK_BYTES);
}

/* Both that are published with the table. */
static uint32_t frees_form(const struct space_segment *g)
{
	if (!g->frees)
		return 0;
	const struct block_set *a = &g->frees->stage[FREES_FOLDED], *b = &g->frees->stage[FREES_UNSENT];
	uint32_t count = (uint32_t)a->count + b->count;
	bool dense = (a->count && a->dense) || (b->count && b->dense) || count > frees_list_max(g->blocks);
	return count && dense ? FREES_BITMAP : count;
}

static size_t frees_bytes(const struct space_segment *g, uint32_t form)
{
	return form & FREES_BITMAP ? div_up(g->blocks, 8) : form * 2;
}

static uint8_t *frees_encode(const struct space_segment *g, uint8_t *p)
{
	uint32_t form = frees_form(g);
	if (form & FREES_BITMAP) {
		memset(p, 0, frees_bytes(g, form));
		frees_bits(g->frees, FREES_FOLDED, p, g->blocks);
		frees_bits(g->frees, FREES_UNSENT, p, g->blocks);
		return p + frees_bytes(g, form);
	}
	for (enum frees_stage k = FREES_FOLDED; form && k <= FREES_UNSENT; k++)
		for (uint32_t i = 0; i < g->frees->stage[k].count; i++, p += 2)
			put_le16(p, g->frees->stage[k].list[i]);
	return p;
}

static size_t lists_bytes(const struct space *s)
{
	size_t bytes = 0;
	for (uint32_t i = 0; i < s->list_count; i++)
		if (s->lists[i].folded)
			bytes += LIST_BYTES + (size_t)space_list_chunks(&s->lists[i]) * CHUNK_BYTES;
	return bytes;
}

size_t space_encoded_bytes(const struct space *s)
{
	size_t bytes = HEADER_BYTES + (size_t)s->segment_count * SEGMENT_BYTES + lists_bytes(s);
	for (uint32_t i = 0; i < s->segment_count; i++)
		bytes += frees_bytes(&s->segments[i], frees_form(&s->segments[i]));
	return bytes;
}

uint8_t *space_chunk_encode(const struct space_chunk *c, uint8_t *p)
{
	memset(p, 0, CHUNK_BYTES);
	put_le64(p, c->at.position);
	put_le32(p + 8, c->at.crc);
	put_le32(p + 12, c->count);
	put_le64(p + 16, c->min);
	put_le64(p + 24, c->max);
	put_le32(p + 32, (c->nodes ? CHUNK_NODES : 0) | (c->index ? CHUNK_INDEX : 0));
	put_le32(p + 36, c->index ? c->entries : 0);
	return p + CHUNK_BYTES;
}

static int chunk_decode(const uint8_t *p, bool indexes, struct space_chunk *ret)
{
	uint32_t flags = get_le32(p + 32);
	*ret = (struct space_chunk){ .at = { get_le64(p), get_le32(p + 8), 0 }, .count = get_le32(p + 12), .min = get_le64(p + 16), .max = get_le64(p + 24),
				     .nodes = flags & CHUNK_NODES, .index = indexes && flags & CHUNK_INDEX };
	ret->entries = ret->index ? get_le32(p + 36) : ret->count;
	if (ret->count == 0 || ret->count > (ret->index ? (uint32_t)SPACE_INDEX_CHUNKS : (uint32_t)SPACE_CHUNK_ENTRIES))
		return -EUCLEAN;
	return ret->entries < ret->count || ret->entries > SPACE_INDEX_CHUNKS * SPACE_CHUNK_ENTRIES ? -EUCLEAN : 0;
}

int space_index_decode(const struct space_chunk *index, const void *block, uint32_t i, struct space_chunk *ret)
{
	int r = chunk_decode((const uint8_t *)block + (size_t)i * CHUNK_BYTES, /* indexes= */ false, ret);
	return r ? r : ret->nodes != index->nodes || ret->min < index->min || ret->max > index->max ? -EUCLEAN : 0;
}

static uint8_t *list_encode(const struct space_list *l, uint8_t *p)
{
	memset(p, 0, LIST_BYTES);
	put_le64(p, l->mark_seq);
	put_le64(p + 8, l->mark_position);
	put_le64(p + 16, l->node_end);
	put_le32(p + 24, space_list_chunks(l));
	p += LIST_BYTES;
	for (uint32_t c = 0; c < l->chunk_count; c++)
		p = space_chunk_encode(&l->chunks[c], p);
	for (unsigned k = 0; k < 2; k++)
		if (l->written[k].count)
			p = space_chunk_encode(&l->written[k], p);
	return p;
}

static bool has_index(const struct space *s)
{
	for (uint32_t i = 0; i < s->list_count; i++)
		for (uint32_t c = 0; s->lists[i].folded && c < s->lists[i].chunk_count; c++)
			if (s->lists[i].chunks[c].index)
				return true;
	return false;
}

void space_encode(const struct space *s, void *buffer)
{
	uint8_t *p = buffer;
	uint32_t lists = 0;
	memset(p, 0, HEADER_BYTES);
	for (uint32_t i = 0; i < s->list_count; i++)
		lists += s->lists[i].folded;
	put_le64(p, SPACE_MAGIC);
	put_le32(p + 8, has_index(s) ? SPACE_VERSION : SPACE_VERSION_PLAIN);
	put_le32(p + 12, s->segment_count);
	put_le32(p + 16, lists);
	put_le64(p + 24, s->mapped);
	put_le64(p + 32, s->dead);
	p += HEADER_BYTES;
	for (uint32_t i = 0; i < s->segment_count; i++, p += SEGMENT_BYTES) {
		put_le64(p, s->segments[i].id);
		put_le32(p + 8, s->segments[i].live);
		put_le32(p + 12, s->segments[i].blocks);
		put_le32(p + 16, s->segments[i].present);
		put_le32(p + 20, frees_form(&s->segments[i]));
	}
	for (uint32_t i = 0; i < s->list_count; i++)
		if (s->lists[i].folded)
			p = list_encode(&s->lists[i], p);
	for (uint32_t i = 0; i < s->segment_count; i++)
		p = frees_encode(&s->segments[i], p);
}

static int list_decode(struct space *s, bool indexes, const uint8_t **p, const uint8_t *end)
{
	if (end - *p < LIST_BYTES)
		return -EUCLEAN;
	uint64_t seq = get_le64(*p);
	uint32_t chunks = get_le32(*p + 24);
	if ((size_t)(end - *p - LIST_BYTES) / CHUNK_BYTES < chunks || (space_newest(s) && space_newest(s)->mark_seq >= seq))
		return -EUCLEAN;
	int r = space_mark(s, seq, get_le64(*p + 8));
	if (r < 0)
		return r;
	struct space_list *l = space_newest(s);
	l->node_end = get_le64(*p + 16);
	l->folded = true;
	*p += LIST_BYTES;
	for (uint32_t c = 0; r == 0 && c < chunks; c++, *p += CHUNK_BYTES) {
		struct space_chunk k;
		r = chunk_decode(*p, indexes, &k);
		r = r ? r : space_chunk_add(l, &k);
		s->chunk_sum += r == 0;
	}
	return r;
}

/* They were published with the table. */
static int frees_decode(struct space *s, struct space_segment *g, uint32_t form, const uint8_t **p, const uint8_t *end)
{
	size_t bytes = frees_bytes(g, form);
	if (PLANTED(trim_lost_at_takeover))
		return 0;
	if ((form & ~FREES_BITMAP) > g->blocks || (form & FREES_BITMAP && form != FREES_BITMAP) || (size_t)(end - *p) < bytes)
		return -EUCLEAN;
	for (uint32_t i = 0; !(form & FREES_BITMAP) && i < form; i++)
		space_frees_note(s, g, FREES_UNSENT, get_le16(*p + (size_t)i * 2));
	for (uint32_t b = 0; form & FREES_BITMAP && b < g->blocks; b++)
		if ((*p)[b / 8] >> (b % 8) & 1)
			space_frees_note(s, g, FREES_UNSENT, b);
	*p += bytes;
	return 0;
}

int space_decode(struct space *s, const void *buffer, size_t length)
{
	const uint8_t *p = buffer, *end = p + length;
	if (length < HEADER_BYTES || get_le64(p) != SPACE_MAGIC)
		return -EUCLEAN;
	if (get_le32(p + 8) > SPACE_VERSION)
		return -EPROTONOSUPPORT;
	uint32_t segments = get_le32(p + 12), lists = get_le32(p + 16);
	s->mapped = get_le64(p + 24);
	s->dead = get_le64(p + 32);
	p += HEADER_BYTES;
	bool old = get_le32((const uint8_t *)buffer + 8) < 2;
	size_t each = old ? SEGMENT_BYTES_1 : SEGMENT_BYTES;
	const uint8_t *entries = p;
	if ((size_t)(end - p) / each < segments)
		return -EUCLEAN;
	int r = 0;
	for (uint32_t i = 0; r == 0 && i < segments; i++, p += each) {
		uint64_t id = get_le64(p);
		uint32_t live = get_le32(p + 8), blocks = get_le32(p + 12);
		if (id == 0 || id >> 48 || blocks > SEGMENT_BLOCKS_MAX || live > blocks ||
		    (s->segment_count && s->segments[s->segment_count - 1].id >= id))
			return -EUCLEAN;
		r = space_add_segment(s, id, blocks);
		if (r == 0)
			s->segments[s->segment_count - 1].live = live;
		if (r == 0 && !old)
			s->segments[s->segment_count - 1].present = MIN(get_le32(p + 16), blocks);
	}
	for (uint32_t i = 0; r == 0 && i < lists; i++)
		r = list_decode(s, get_le32((const uint8_t *)buffer + 8) > SPACE_VERSION_PLAIN, &p, end);
	for (uint32_t i = 0; r == 0 && !old && i < segments; i++)
		r = frees_decode(s, &s->segments[i], get_le32(entries + i * each + 20), &p, end);
	return r;
}
