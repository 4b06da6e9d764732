/* Page-aligned data buffers by size class (powers of two from a page up), kept after use so that
 * the data path rarely meets the allocator. What is handed out is limited by who asks, from
 * `used`; what is kept is limited here. */
#ifndef AQ_SLAB_H
#define AQ_SLAB_H
#include <stdint.h>

#define SLAB_SHIFT_MIN 12u
#define SLAB_CLASSES 14u /* 4 KiB … 32 MiB */
#define SLAB_BYTES_MAX (UINT32_C(1) << (SLAB_SHIFT_MIN + SLAB_CLASSES - 1))

struct slab {
	void *free[SLAB_CLASSES]; /* lists through the first word */
	uint64_t kept;            /* bytes in those */
	uint64_t kept_max;
	uint64_t used;            /* bytes handed out */
};

void slab_init(struct slab *s, uint64_t kept_max);
/* Frees what is kept; everything must have been put back. */
void slab_fini(struct slab *s);
/* What slab_get(bytes) will really take: bytes rounded up to their class. */
uint32_t slab_class_bytes(uint32_t bytes);
/* At most SLAB_BYTES_MAX. NULL: out of memory. */
void *slab_get(struct slab *s, uint32_t bytes);
/* `bytes` as given to slab_get. Accepts NULL. */
void slab_put(struct slab *s, void *buffer, uint32_t bytes);
#endif
