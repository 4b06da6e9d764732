/* Copying one block node into another, sparsely and with several requests under way. */
#ifndef AQ_COPY_H
#define AQ_COPY_H
#include "core/blk.h"

struct copy {
	struct blk_node *from, *to;     /* `to` is new: it reads as zeroes; NULL: only read, to see what can be read */
	void (*progress)(void *arg, uint64_t done_bytes); /* may be NULL */
	void *arg;
	const volatile bool *stop;      /* may be NULL; true ends it with -EINTR */
	bool keep_going;                /* count what can't be read instead of ending */
	/* results */
	uint64_t read_bytes, written_bytes, bad_bytes;
	uint64_t bad_offset;            /* of the first read or write that failed */
	bool bad_write;
};
/* FIBER. 0 or the first error. What the source's map calls a hole or zero isn't read, and zeroes aren't written. Ends
 * with a flush of `to`. */
int copy_run(struct copy *c);
#endif
