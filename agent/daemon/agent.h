/* The agent: one per host (per AQUIFER_ROOT). It starts tapdisks, watches them, and answers
 * the command line on ROOT/run/aquifer/agent.sock. It holds no guest data and no state of its
 * own: what it knows is in the run directory, so that it can be killed at any time. */
#ifndef AQ_AGENT_H
#define AQ_AGENT_H
#include "agent/daemon/paths.h"
#include "agent/daemon/registry.h"
#include "agent/daemon/taps.h"
#include "proto/rpc.h"

struct agent_options {
	const char *root;   /* absolute, "" if none */
	int ready_fd;       /* see spawn.h; -1: none */
};

struct agent {
	struct env *env;
	const struct agent_options *options;
	struct taps taps;
	struct rpc_server *server;
	struct registry registry;
	int lock_fd, directory_fd;
	uint64_t start_ns;
	bool ending;
	struct fiber_cond end;
};

/* FIBER. Runs until it is told to stop, by SIGTERM or by `agent stop`. 0 or -errno with a report. */
int agent_run(struct env *env, const struct agent_options *options, struct report *report);

/* requests.c: rpc_server_options.handle. FIBER. */
void agent_handle(void *arg, struct rpc_request *r);
/* peers.c: the same for what other hosts ask. FIBER. */
void agent_peer_handle(void *arg, struct rpc_request *r);
/* Whose control socket is "unix:/…/control.sock"; NULL: of none of this agent's. */
struct tap *agent_tap_of(struct agent *a, const char *control);
#endif
