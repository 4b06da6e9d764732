#include "agent/exports/slab.h"

#include <assert.h>
#include <stdlib.h>

#include "core/env.h"

static unsigned class_of(uint32_t bytes)
{
	assert(bytes > 0 && bytes <= SLAB_BYTES_MAX);
	return bytes <= 1u << SLAB_SHIFT_MIN ? 0 : 32u - (unsigned)__builtin_clz(bytes - 1) - SLAB_SHIFT_MIN;
}

static uint32_t class_bytes(unsigned c)
{
	return UINT32_C(1) << (SLAB_SHIFT_MIN + c);
}

void slab_init(struct slab *s, uint64_t kept_max)
{
	*s = (struct slab){ .kept_max = kept_max };
}

void slab_fini(struct slab *s)
{
	assert(s->used == 0);
	for (unsigned c = 0; c < SLAB_CLASSES; c++) {
		while (s->free[c]) {
			void *b = s->free[c];
			s->free[c] = *(void **)b;
			free(b);
		}
	}
	s->kept = 0;
}

uint32_t slab_class_bytes(uint32_t bytes)
{
	return class_bytes(class_of(bytes));
}

void *slab_get(struct slab *s, uint32_t bytes)
{
	unsigned c = class_of(bytes);
	void *b = s->free[c];
	if (b) {
		s->free[c] = *(void **)b;
		s->kept -= class_bytes(c);
	} else if (!(b = env_alloc_aligned(class_bytes(c)))) {
		return NULL;
	}
	s->used += class_bytes(c);
	return b;
}

void slab_put(struct slab *s, void *buffer, uint32_t bytes)
{
	if (!buffer)
		return;
	unsigned c = class_of(bytes);
	assert(s->used >= class_bytes(c));
	s->used -= class_bytes(c);
	if (s->kept + class_bytes(c) > s->kept_max) {
		free(buffer);
		return;
	}
	*(void **)buffer = s->free[c];
	s->free[c] = buffer;
	s->kept += class_bytes(c);
}
