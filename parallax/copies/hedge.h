/* Hedged reads: one that takes much longer than reads usually do is asked of another server too, and the first good answer counts.
 *
 * The rival reads into memory of its own, for the server that is late may still fill the reader's: that answer is given up
 * (segment_server_ops.cancel), and only when it can't come any more are the rival's blocks copied. Few at a time, so that servers which are all slow
 * aren't asked twice for everything. */
#ifndef AQ_HEDGE_H
#define AQ_HEDGE_H
#include "core/fiber.h"
#include "core/link.h"
#include "parallax/segment/segment.h"

struct block_read;
struct peer;

enum { RIVALS_MAX = 16, RIVAL_BLOCKS_MAX = 256 };

struct hedges {
	struct env *env;
	struct link reads;      /* block_read.slow: under way, the oldest first */
	struct link rivals;
	unsigned count;         /* of rivals */
	bool running, closing;
	struct fiber_cond changed;
	uint64_t usual_ns;      /* what reads took lately */
};

/* One rival, beside a block_read or left over from one. */
struct rival {
	struct job job;
	struct segment_io io;
	struct iovec iov;
	struct hedges *hedges;
	struct block_read *read; /* NULL: it has its answer */
	struct peer *peer;
	uint64_t since_ns;
	bool good;               /* read and verified */
	struct link link;
};

void hedges_init(struct hedges *h, struct env *env);
int hedges_start(struct hedges *h); /* where there are several servers. 0 or -ENOMEM */
void hedges_end(struct hedges *h);  /* FIBER. No read is under way any more */
void hedge_watch(struct hedges *h, struct block_read *r);   /* it has been asked of r->peer */
void hedge_answered(struct hedges *h, struct block_read *r, int status);
void hedge_forget(struct block_read *r); /* its rival isn't needed */
void hedge_take(struct block_read *r);   /* the good rival's blocks; then it is forgotten */
#endif
