/* Ending another process of ours that holds what we were told to take over (--force). Only in the real world: it is found by
 * its pid, and a pidfd makes sure that nobody is hit who got the pid later. */
#ifndef AQ_EVICT_H
#define AQ_EVICT_H
#include "core/env.h"

/* FIBER. A pidfd of process `pid`, if it runs `program` (the first 15 characters of its name; NULL: any). -ESRCH: it is gone, or it is
 * another program. The caller makes sure, afterwards, that the process he means was still alive. */
int evict_open(struct env *env, uint64_t pid, const char *program, int *ret_pidfd);
/* FIBER. Asks it to end, twice, as it lets go of users with the second time only; kills it if it hasn't ended after EVICT_GENTLE_MS;
 * returns 0 when it has ended, or -ETIMEDOUT. Closes the pidfd. */
int evict_end(struct env *env, int pidfd);
int evict_kill(struct env *env, int pidfd); /* FIBER. The same without asking */
void evict_cancel(int pidfd); /* it was somebody else */
enum { EVICT_GENTLE_MS = 2000, EVICT_KILLED_MS = 10000 };
#endif
