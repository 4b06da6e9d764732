/* Images that none of our drivers reads, known by what they begin (or end) with, so that a FILE whose format isn't named is not
 * taken for a raw disk, which would destroy it with the first write. */
#ifndef AQ_FOREIGN_H
#define AQ_FOREIGN_H
#include <stddef.h>
#include <stdint.h>

#define FOREIGN_TAIL_BYTES 512u

struct foreign {
	const char *name; /* "a qcow2 image" */
	const char *cure; /* what people do with it */
};

/* `head`: the first bytes of a file; `tail`: its last FOREIGN_TAIL_BYTES, NULL if it has less. NULL: nothing that we know. */
const struct foreign *foreign_find(const uint8_t *head, size_t length, const uint8_t *tail);
#endif
