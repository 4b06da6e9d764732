/* Which blocks of one segment became free and on their way to its server are (R28):
 *
 *   pending ──(a checkpoint freezes)─▶ folded ──(it is published)─▶ unsent ──(the server has it)─▶ forgotten
 *
 * A set is a list of numbers while that is smaller than a bitmap. Lack of memory loses blocks: they come back when
 * their segment is free as a whole. Memory: at most SEGMENT_BLOCKS_MAX / 8 bytes a set. */
#ifndef AQ_FREES_H
#define AQ_FREES_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The longest list that isn't larger than a bitmap. */
static inline uint32_t frees_list_max(uint32_t size_blocks) { return (size_blocks + 7) / 8 / 2; }

struct block_set {
	uint16_t count, room; /* room: of the list; 0 with a bitmap */
	bool dense;
	union {
		uint16_t *list;
		uint8_t *bits;
	};
};

enum frees_stage { FREES_PENDING, FREES_FOLDED, FREES_UNSENT, FREES_STAGES };

struct frees {
	struct block_set stage[FREES_STAGES];
};

void frees_add(struct frees **f, enum frees_stage stage, uint32_t block, uint32_t size_blocks);
void frees_move(struct frees *f, enum frees_stage from, enum frees_stage to, uint32_t size_blocks); /* accepts NULL */
void frees_free(struct frees **f);
static inline uint32_t frees_count(const struct frees *f, enum frees_stage stage) { return f ? f->stage[stage].count : 0; }
/* Sets the bits of what is in a stage; the bitmap is the caller's. */
void frees_bits(const struct frees *f, enum frees_stage stage, uint8_t *bits, uint32_t size_blocks);
/* Takes out of a stage what `bits` has. */
void frees_remove(struct frees *f, enum frees_stage stage, const uint8_t *bits, uint32_t size_blocks);
#endif
