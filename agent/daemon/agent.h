/* The agent: one per host (per AQUIFER_ROOT). It starts tapdisks, watches them, and answers
 * the command line on ROOT/run/aquifer/agent.sock. It holds no guest data and no state of its
 * own: what it knows is in the run directory, so that it can be killed at any time. */
#ifndef AQ_AGENT_H
#define AQ_AGENT_H
#include "agent/daemon/authority.h"
#include "agent/daemon/paths.h"
#include "agent/daemon/registry.h"
#include "agent/daemon/taps.h"
#include "proto/control.pb-c.h"
#include "proto/rpc.h"

/* A graph opens in well under a second, but a volume may have 256 MiB of log to replay, from a slow disk. */
#define AGENT_START_NS (120 * NS_PER_S)

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
	struct authority_service authority;
	int lock_fd, directory_fd;
	uint64_t start_ns;
	bool ending;
	struct fiber_cond end;
	struct timer late_timer; /* until it ends whatever it is at */
	struct job late_job;
	bool may_be_late;
};

/* FIBER. Runs until it is told to stop, by SIGTERM or by `agent stop`. 0 or -errno with a report. */
int agent_run(struct env *env, const struct agent_options *options, struct report *report);

/* requests.c: rpc_server_options.handle. FIBER. */
void agent_handle(void *arg, struct rpc_request *r);
/* The device is gone afterwards, or the report says why not. FIBER. */
int agent_detach(struct agent *a, const char *name, bool force, struct report *report);
/* peers.c: the same for what other hosts ask. FIBER. */
void agent_peer_handle(void *arg, struct rpc_request *r);
/* Whose control socket is "unix:/…/control.sock"; NULL: of none of this agent's. */
struct tap *agent_tap_of(struct agent *a, const char *control);
/* attach.c: a tapdisk for the graph, up. FIBER. The caller has one use of it. */
int agent_attach(struct agent *a, const Aquifer__AttachCall *q, const char *graph, size_t length, struct tap **ret_tap, struct report *report);
/* migrate.c: moves a volume that is attached here to another host. *ret: what was done. FIBER. */
int agent_migrate(struct agent *a, const Aquifer__MigrateCall *q, json_t **ret, struct report *report);
/* … and the other side of it, asked by the agent of the host where it is. FIBER. */
int agent_incoming(struct agent *a, const Aquifer__PeerIncomingCall *q, const char *graph, size_t length, json_t **ret, struct report *report);
int agent_activate(struct agent *a, const Aquifer__PeerOfferCall *q, json_t **ret, struct report *report);
int agent_cancel(struct agent *a, const Aquifer__PeerOfferCall *q, struct report *report);
#endif
