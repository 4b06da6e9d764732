/* Starting the two daemons with their arguments. */
#ifndef AQ_LAUNCH_H
#define AQ_LAUNCH_H
#include <sys/types.h>

#include "core/env.h"
#include "core/report.h"

/* FIBER. Starts the agent of `root` and waits until it answers. 0 also if another start was faster. */
int launch_agent(struct env *env, const char *root, struct report *report);

struct launch_tapdisk {
	const char *root, *directory; /* its run directory, which exists */
	const char *name, *graph;
	const char *export;           /* NULL: the graph's own */
	const char *listen;           /* NULL: none */
	bool read_only, force, accept_flushed, incoming;
	uint64_t incoming_ms;         /* 0: for ever */
};
/* 0 with the process and the pipe for spawn_wait(). */
int launch_tapdisk(const struct launch_tapdisk *how, pid_t *ret_pid, int *ret_ready, struct report *report);
#endif
