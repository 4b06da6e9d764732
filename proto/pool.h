/* Page-aligned buffers for payloads, bounded in sum. Buffers are made on demand and kept
 * for reuse, since fresh pages cost more than the copy they save. Whoever finds the pool
 * empty waits and stops receiving: back-pressure is the peer's, not memory's. */
#ifndef AQ_POOL_H
#define AQ_POOL_H
#include <stddef.h>
#include <stdint.h>

enum { POOL_CLASSES = 12 }; /* 4 KiB, 8 KiB … 4 MiB, and the largest payload */

struct pool_buffer {
	void *bytes;       /* page aligned; NULL: none */
	uint32_t class;
};

struct pool {
	uint64_t limit, used, kept;    /* bytes: may be handed out, are, lie ready */
	void *free[POOL_CLASSES];
};
void pool_init(struct pool *p, uint64_t limit_bytes);
/* All buffers have been put back. */
void pool_destroy(struct pool *p);
/* What a buffer of `bytes` counts against the limit; `bytes` at most FRAME_PAYLOAD_MAX. */
uint64_t pool_cost(size_t bytes);
/* 0, or -EAGAIN when that would exceed the limit, or -ENOMEM. No bytes: an empty buffer, always 0. */
int pool_get(struct pool *p, size_t bytes, struct pool_buffer *ret_buffer);
void pool_put(struct pool *p, struct pool_buffer *b); /* accepts an empty one, and leaves one */
#endif
