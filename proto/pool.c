#include "proto/pool.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "core/env.h"
#include "proto/frame.h"

#define SMALLEST 4096u

static uint64_t class_bytes(uint32_t class)
{
	return class == POOL_CLASSES - 1 ? FRAME_PAYLOAD_MAX : (uint64_t)SMALLEST << class;
}

static uint32_t class_of(size_t bytes)
{
	assert(bytes <= FRAME_PAYLOAD_MAX);
	uint32_t class = 0;
	while (class_bytes(class) < bytes)
		class++;
	return class;
}

void pool_init(struct pool *p, uint64_t limit_bytes)
{
	*p = (struct pool){ .limit = limit_bytes };
}

static void *free_pop(struct pool *p, uint32_t class)
{
	void *b = p->free[class];
	if (b) {
		p->free[class] = *(void **)b;
		p->kept -= class_bytes(class);
	}
	return b;
}

void pool_destroy(struct pool *p)
{
	assert(p->used == 0);
	for (uint32_t class = 0; class < POOL_CLASSES; class++)
		for (void *b; (b = free_pop(p, class));)
			free(b);
}

uint64_t pool_cost(size_t bytes)
{
	return bytes ? class_bytes(class_of(bytes)) : 0;
}

/* Frees kept buffers of other sizes until `bytes` more fit below the limit. */
static void pool_trim(struct pool *p, uint64_t bytes)
{
	for (uint32_t class = POOL_CLASSES; class-- > 0 && p->used + p->kept + bytes > p->limit;)
		for (void *b; p->used + p->kept + bytes > p->limit && (b = free_pop(p, class));)
			free(b);
}

int pool_get(struct pool *p, size_t bytes, struct pool_buffer *ret_buffer)
{
	*ret_buffer = (struct pool_buffer){ 0 };
	if (bytes == 0)
		return 0;
	uint32_t class = class_of(bytes);
	uint64_t cost = class_bytes(class);
	if (p->used + cost > p->limit)
		return -EAGAIN;
	void *b = free_pop(p, class);
	if (!b) {
		pool_trim(p, cost);
		b = env_alloc_aligned(cost);
		if (!b)
			return -ENOMEM;
	}
	p->used += cost;
	*ret_buffer = (struct pool_buffer){ b, class };
	return 0;
}

void pool_put(struct pool *p, struct pool_buffer *b)
{
	if (!b->bytes)
		return;
	uint64_t cost = class_bytes(b->class);
	assert(p->used >= cost);
	p->used -= cost;
	p->kept += cost;
	*(void **)b->bytes = p->free[b->class];
	p->free[b->class] = b->bytes;
	b->bytes = NULL;
}
