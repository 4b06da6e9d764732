#include "proto/arena.h"

#include <stdint.h>
#include <stdlib.h>

#define CHUNK_BYTES 4096u

struct arena_chunk {
	struct arena_chunk *next;
	_Alignas(16) char bytes[];
};

static void *arena_alloc(void *data, size_t size)
{
	struct arena *a = data;
	if (size > ARENA_MAX)
		return NULL;
	size = (size + 15) & ~(size_t)15;
	if (size > ARENA_MAX - a->used)
		return NULL;
	if (size > a->left) {
		size_t bytes = size > CHUNK_BYTES ? size : CHUNK_BYTES;
		struct arena_chunk *k = malloc(sizeof *k + bytes);
		if (!k)
			return NULL;
		k->next = a->chunks;
		a->chunks = k;
		a->next = k->bytes;
		a->left = bytes;
	}
	void *p = a->next;
	a->next += size;
	a->left -= size;
	a->used += size;
	return p;
}

static void arena_free(void *data, void *pointer)
{
	(void)data;
	(void)pointer; /* all at once, by arena_reset() */
}

void arena_init(struct arena *a)
{
	a->allocator = (ProtobufCAllocator){ arena_alloc, arena_free, a };
	a->chunks = NULL;
	arena_reset(a);
}

void arena_reset(struct arena *a)
{
	while (a->chunks) {
		struct arena_chunk *k = a->chunks;
		a->chunks = k->next;
		free(k);
	}
	a->next = a->first;
	a->left = sizeof a->first;
	a->used = 0;
}
