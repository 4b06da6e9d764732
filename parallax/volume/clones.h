/* Which of a volume's snapshots have clones: their keys in the catalog, read at once. A doomed snapshot gets no new ones, so whoever wants to know
 * whether one that is doomed is held reads this after that. 8 bytes a clone. */
#ifndef AQ_CLONES_H
#define AQ_CLONES_H
#include "parallax/catalog/catalog.h"

struct clones {
	uint64_t *marks; /* of their snapshots, ascending; one for each clone */
	size_t count;
};

int clones_read(struct catalog *c, uint64_t volume, struct clones *ret); /* FIBER. 0 or -errno, then it is empty */
uint32_t clones_of(const struct clones *l, uint64_t mark_seq);           /* how many that snapshot has */
void clones_free(struct clones *l);
#endif
