/* Waiting for a file descriptor that only the kernel or another process makes readable. */
#ifndef AQ_WAIT_H
#define AQ_WAIT_H
#include "core/env.h"

/* FIBER. Until `fd` is readable or hung up, at most `timeout_ns` (0: for ever). 0 or -ETIMEDOUT. */
int wait_readable(struct env *env, int fd, uint64_t timeout_ns);
#endif
