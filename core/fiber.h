/* Fibers: the control path in straight lines.
 *
 * The data path is frames and jobs. Opening, recovering, checkpointing, RPC handling of
 * control messages are long sequences with loops and error exits; they run in a fiber,
 * a stack of its own that is suspended while a job waits. A function marked FIBER in its
 * comment may suspend and must be called from a fiber; everything else may be called
 * from anywhere. Fibers of one loop never run in parallel, but anything may have changed
 * across a suspension. (Reasons in docs/decisions.md.) */
#ifndef AQ_FIBER_H
#define AQ_FIBER_H
#include "core/job.h"

struct fiber;

/* Starts `run(arg)` in a new fiber of `loop`; it runs from the ready queue, not now. `done`
 * (may be NULL) is put with run's result when it ends (the caller holds `done` first).
 * Returns 0 or -ENOMEM (then nothing will run and nothing is put). */
int fiber_start(struct loop *loop, int (*run)(void *arg), void *arg, struct job *done);

/* FIBER. Suspends until everything held on `j` has been put, and returns j->status:
 *     struct job j; job_init(&j, loop); blk_submit(n, &io, &j); r = fiber_wait(&j); */
int fiber_wait(struct job *j);
/* FIBER. Suspends for `ns` nanoseconds (at least until the ready queue has come round).
 * Returns 0, or -ESHUTDOWN if the env is shutting down. */
int fiber_sleep(struct loop *loop, uint64_t ns);

/* A condition that fibers wait for: wakes all waiters. Spurious wake-ups happen; wait in a loop. */
struct fiber_cond {
	struct link waiters;
};
void fiber_cond_init(struct fiber_cond *c);
void fiber_cond_wait(struct loop *loop, struct fiber_cond *c); /* FIBER */
void fiber_cond_wake(struct fiber_cond *c);

/* A mutual exclusion that is fair (FIFO). */
struct fiber_mutex {
	struct fiber_cond cond;
	uint32_t next_ticket, serving;
};
void fiber_mutex_init(struct fiber_mutex *m);
void fiber_mutex_lock(struct loop *loop, struct fiber_mutex *m); /* FIBER */
void fiber_mutex_unlock(struct fiber_mutex *m);
static inline bool fiber_mutex_held(const struct fiber_mutex *m) { return m->next_ticket != m->serving; }
#endif
