/* When something is to happen to a scenario's volume: at a step, or a few steps after something that the volume itself does, because what
 * goes wrong often does so just there. */
#ifndef AQ_MOMENTS_H
#define AQ_MOMENTS_H
#include "core/env_sim.h"

struct volume;

enum moment {
	MOMENT_ANY,
	MOMENT_TURN,       /* the log goes on in the next segment */
	MOMENT_FLUSH,      /* what was acknowledged is durable */
	MOMENT_SNAPSHOT,   /* one is taken */
	MOMENT_CHECKPOINT, /* one is complete */
	MOMENT_TRIM,       /* servers have been told what is free */
	MOMENT_MEND,       /* a segment was cut because a copy failed */
	MOMENT_PUBLISH,    /* a transaction begins, or has ended */
};

struct due {
	enum moment moment;
	uint64_t from;     /* a step: the first such moment after it; UINT64_MAX: never */
	uint64_t then;     /* so many steps after it */
	uint64_t patience; /* steps; that long after `from` it doesn't wait any longer */
	/* its own */
	uint64_t mark;
	bool waits;
};

/* From step `from` on; most of them at some moment, most of these at the favourite. */
struct due due_draw(struct sim *sim, enum moment favourite, uint64_t from);
/* Asked at each step until it is. */
bool due_now(struct due *d, const struct volume *v, uint64_t step);
#endif
