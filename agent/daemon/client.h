/* Speaking to the agent and to tapdisks: connect, one call with texts both ways, close. */
#ifndef AQ_CLIENT_H
#define AQ_CLIENT_H
#include "core/report.h"
#include "proto/control.pb-c.h"
#include "proto/rpc.h"

/* FIBER. The socket may be deeper than a socket's address can be. -ENOTCONN: nobody is there. */
int client_connect(struct env *env, const char *directory, const char *socket, const char *service,
		   struct rpc_client **ret_client, struct report *report);
/* FIBER. The agent of `root`; with `start` it is started if it isn't running. -ENOTCONN: it isn't. */
int client_agent(struct env *env, const char *root, bool start, struct rpc_client **ret_client, struct report *report);

struct client_call {
	uint32_t method;
	const ProtobufCMessage *request;
	const char *text;         /* the call's payload; NULL: none */
	uint64_t deadline_ns;     /* 0: none */
	uint32_t answer_max;      /* bytes; 0: as long as an answer can be */
};
enum { CLIENT_PEER_ANSWER_MAX = 256 << 10 }; /* of other hosts' agents: a few numbers and names, which become JSON values of many times their length */
/* FIBER. *ret_text (may be NULL): the reply's payload, malloc'd, with a NUL; JSON that is nested too deep for a fiber's stack is -EPROTO. */
int client_call(struct rpc_client *client, const struct client_call *call, char **ret_text, struct report *report);

struct tapdisk_control {
	const char *node;         /* NULL: found by driver and subject */
	const char *driver, *subject;
	const char *verb;
	const char *const *args;  /* ends with NULL */
	uint64_t deadline_ns;     /* for all of it; 0: CLIENT_CONTROL_NS */
};
#define CLIENT_CONTROL_NS (60 * NS_PER_S)
/* As a message; borrows. */
void client_control_call(const struct tapdisk_control *call, Aquifer__ControlCall *ret);
/* FIBER. Asks the node of another process' tapdisk; `control` is its "unix:/…/control.sock". -ESHUTDOWN: it was ending, or has ended, and nothing was done. */
int client_tapdisk_control(struct env *env, const char *control, const struct tapdisk_control *call, char **ret_json,
			   struct report *report);
/* -ETIMEDOUT, with what it means that a command to a node wasn't answered in time, unless that is said already. */
int client_late(uint64_t deadline_ns, struct report *report);
#endif
