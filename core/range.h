/* Range lock: requests that overlap and must not race run in FIFO order; others never wait
 * for one another. A job takes all its ranges before its first step. Readers share. */
#ifndef AQ_RANGE_H
#define AQ_RANGE_H
#include <stdbool.h>
#include <stdint.h>

#include "core/job.h"

struct range {                 /* embedded in the frame that takes it */
	uint64_t start, end;   /* bytes (or any unit): [start, end), not empty */
	bool exclusive;
	struct job *job;
	/* below: the lock's own */
	uint64_t ticket;
	struct range *left, *right;
	uint64_t max_end;
	uint32_t priority;
};

struct range_lock {
	struct range *root;    /* interval tree (treap) by start, with the greatest end below */
	uint64_t next_ticket;
	uint64_t random;       /* priorities; the same for every lock, so runs can be repeated */
	unsigned count;
};

void range_lock_init(struct range_lock *lock);
/* Joins the queue; `job` is held once for each earlier conflicting range and put as those
 * unlock. Take it before job_then(); when the step runs, the range is owned. Ranges of one
 * job never conflict with each other. */
void range_acquire(struct range_lock *lock, struct range *r, struct job *job);
/* O(log n + conflicts), as is range_acquire(). */
void range_release(struct range_lock *lock, struct range *r);
static inline bool range_lock_idle(const struct range_lock *lock) { return lock->count == 0; }
#endif
