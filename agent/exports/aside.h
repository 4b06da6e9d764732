/* A thread of one's own for calls that block, when a shared worker won't do: opening or closing a loop
 * device waits for answers of this very process, which may need a shared worker to give them. Made at
 * open, so that closing needs nothing that could be missing then. */
#ifndef AQ_ASIDE_H
#define AQ_ASIDE_H
#include <pthread.h>
#include <semaphore.h>

#include "core/env.h"

struct aside {
	pthread_t thread;
	sem_t work;
	int done_fd; /* an eventfd; -1: not started */
	int (*run)(void *arg); /* NULL: end */
	void *arg;
	int result;
};

int aside_start(struct aside *a); /* 0 or -errno */
/* FIBER. Runs `run(arg)` on the thread and returns its result. One call at a time. */
int aside_wait(struct env *env, struct aside *a, int (*run)(void *arg), void *arg);
void aside_stop(struct aside *a); /* accepts one that was never started, if done_fd is -1 */
#endif
