#include "parallax/map/frees.h"

#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "parallax/format.h"

static bool get(const uint8_t *bits, uint32_t b) { return bits[b / 8] >> (b % 8) & 1; }

static void set_clear(struct block_set *s)
{
	free(s->dense ? (void *)s->bits : (void *)s->list);
	*s = (struct block_set){ 0 };
}

static void set_bits(const struct block_set *s, uint8_t *bits, uint32_t size_blocks)
{
	for (uint32_t i = 0; s->dense && i < div_up(size_blocks, 8); i++)
		bits[i] |= s->bits[i];
	for (uint32_t i = 0; !s->dense && i < s->count; i++)
		bits[s->list[i] / 8] |= (uint8_t)(1u << s->list[i] % 8);
}

/* The list has become as large as a bitmap. */
static bool set_densify(struct block_set *s, uint32_t size_blocks)
{
	uint8_t *bits = calloc(1, div_up(size_blocks, 8));
	if (!bits)
		return false;
	set_bits(s, bits, size_blocks);
	free(s->list);
	*s = (struct block_set){ .dense = true, .bits = bits };
	for (uint32_t i = 0; i < div_up(size_blocks, 8); i++)
		s->count = (uint16_t)(s->count + __builtin_popcount(bits[i]));
	return true;
}

static bool list_grow(struct block_set *s, uint32_t room_max)
{
	uint16_t room = (uint16_t)MIN(s->room ? 2u * s->room : 8u, room_max);
	uint16_t *list = realloc(s->list, room * sizeof *list);
	if (!list)
		return false;
	s->list = list;
	s->room = room;
	return true;
}

static void set_add(struct block_set *s, uint32_t block, uint32_t size_blocks)
{
	if (block >= size_blocks)
		return;
	if (!s->dense && s->count == s->room) {
		uint32_t room_max = frees_list_max(size_blocks);
		if (s->room == room_max ? !set_densify(s, size_blocks) : !list_grow(s, room_max))
			return;
	}
	if (!s->dense) {
		s->list[s->count++] = (uint16_t)block;
	} else if (!get(s->bits, block)) {
		s->bits[block / 8] |= (uint8_t)(1u << block % 8);
		s->count++;
	}
}

void frees_add(struct frees **f, enum frees_stage stage, uint32_t block, uint32_t size_blocks)
{
	if (!*f)
		*f = calloc(1, sizeof **f);
	if (*f)
		set_add(&(*f)->stage[stage], block, size_blocks);
}

void frees_move(struct frees *f, enum frees_stage from, enum frees_stage to, uint32_t size_blocks)
{
	if (!f || f->stage[from].count == 0)
		return;
	struct block_set *a = &f->stage[from], *b = &f->stage[to];
	if (b->count == 0) {
		set_clear(b);
		*b = *a;
		*a = (struct block_set){ 0 };
		return;
	}
	if (a->dense && !b->dense) { /* the smaller into the larger */
		struct block_set t = *a;
		*a = *b;
		*b = t;
	}
	for (uint32_t i = 0; !a->dense && i < a->count; i++)
		set_add(b, a->list[i], size_blocks);
	for (uint32_t i = 0; a->dense && i < size_blocks; i++)
		if (get(a->bits, i))
			set_add(b, i, size_blocks);
	set_clear(a);
}

void frees_free(struct frees **f)
{
	for (unsigned i = 0; *f && i < FREES_STAGES; i++)
		set_clear(&(*f)->stage[i]);
	free(*f);
	*f = NULL;
}

void frees_bits(const struct frees *f, enum frees_stage stage, uint8_t *bits, uint32_t size_blocks)
{
	if (f)
		set_bits(&f->stage[stage], bits, size_blocks);
}

void frees_remove(struct frees *f, enum frees_stage stage, const uint8_t *bits, uint32_t size_blocks)
{
	if (!f)
		return;
	struct block_set *s = &f->stage[stage], kept = { 0 };
	for (uint32_t i = 0; !s->dense && i < s->count; i++)
		if (!get(bits, s->list[i]))
			set_add(&kept, s->list[i], size_blocks);
	for (uint32_t b = 0; s->dense && b < size_blocks; b++)
		if (get(s->bits, b) && !get(bits, b))
			set_add(&kept, b, size_blocks);
	set_clear(s);
	*s = kept;
}
