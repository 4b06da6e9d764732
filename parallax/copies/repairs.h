/* Read repair: a read that got a wrong block from one server, and the right one from another, has the first one's copy looked at.
 *
 * The server is only told where; it looks by itself and mends what is bad (server/scrub.h), so a wrong claim costs it reading. What is noted is little, and
 * kept in a ring: what was told lately isn't told again, and what doesn't fit is forgotten, for the next read finds it again. */
#ifndef AQ_REPAIRS_H
#define AQ_REPAIRS_H
#include "core/fiber.h"

struct peer;

enum { REPAIRS_MAX = 64, REPAIR_BLOCKS_MAX = 1024 /* of one */ };

struct repair {
	struct peer *peer;   /* whose copy */
	uint64_t segment, told_ns;
	uint32_t block, blocks;
};

struct repairs {
	struct env *env;
	struct repair ring[REPAIRS_MAX]; /* by number % REPAIRS_MAX */
	uint64_t noted, told;   /* from `told` up to `noted` they wait; those before were told */
	uint64_t asked;         /* that a server took */
	bool running, closing;
	struct fiber_cond changed;
};

void repairs_init(struct repairs *r, struct env *env);
int repairs_start(struct repairs *r); /* where there are several servers. 0 or -ENOMEM */
void repairs_end(struct repairs *r);  /* FIBER. What waits is forgotten; what is being told ends, with the connection (copies_cut()) or in COPIES_DEADLINE_NS */
/* Not suspended. */
void repairs_note(struct repairs *r, struct peer *peer, uint64_t segment, uint32_t block, uint32_t blocks);
#endif
