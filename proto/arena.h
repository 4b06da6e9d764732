/* Memory for unpacked protobuf messages: grows only, freed as a whole, and bounded, since
 * a small message can unpack into a large one. The first bytes are part of the arena, so
 * that ordinary messages cost no malloc. An arena must not move while it is in use. */
#ifndef AQ_ARENA_H
#define AQ_ARENA_H
#include <stddef.h>
#include <protobuf-c/protobuf-c.h>

enum { ARENA_INLINE_BYTES = 768, ARENA_MAX = 1 << 20 };

struct arena_chunk;
struct arena {
	ProtobufCAllocator allocator; /* give this to unpack; NULL from it: over ARENA_MAX or out of memory */
	struct arena_chunk *chunks;
	char *next;                   /* free bytes in the current chunk */
	size_t left, used;
	_Alignas(16) char first[ARENA_INLINE_BYTES];
};
void arena_init(struct arena *a);
/* Frees everything; ready for use again. */
void arena_reset(struct arena *a);
#endif
