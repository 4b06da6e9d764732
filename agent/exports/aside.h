/* A thread of one's own for calls that block, when a shared worker won't do: opening or closing a loop
 * device waits for answers of this very process, which may need a shared worker to give them. Made at
 * open, so that closing needs nothing that could be missing then.
 *
 * It has descriptors of its own: what it opens, only it can use and close, and whatever this process serves by
 * another descriptor ends with the other threads. Were they shared, a process killed while this thread waits for
 * its answer would wait for ever: the descriptor that would end the wait is closed by the last who shares it. */
#ifndef AQ_ASIDE_H
#define AQ_ASIDE_H
#include <pthread.h>
#include <semaphore.h>

#include "core/env.h"

struct aside {
	pthread_t thread;
	sem_t work, ready;
	int done_fd; /* an eventfd; -1: not started */
	int keep, start_status;
	int (*run)(void *arg); /* NULL: end */
	void *arg;
	int result;
};

/* 0 or -errno. Of what is open now the thread has only `keep` (and 0 to 2) afterwards; a copy, which it closes when it ends or
 * a call does. */
int aside_start(struct aside *a, int keep);
/* FIBER. Runs `run(arg)` on the thread and returns its result. One call at a time. */
int aside_wait(struct env *env, struct aside *a, int (*run)(void *arg), void *arg);
void aside_stop(struct aside *a); /* accepts one that was never started, if done_fd is -1 */
#endif
