/* What agents and commands of other hosts ask for. Who doesn't know this agent's token gets nothing. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon/agent.h"
#include "agent/daemon/answer.h"
#include "agent/daemon/client.h"

struct tap *agent_tap_of(struct agent *a, const char *control)
{
	char own[PATHS_MAX + 32];
	link_for(l, &a->taps.list) {
		struct tap *tap = container_of(l, struct tap, link);
		snprintf(own, sizeof own, "unix:%s/control.sock", tap->directory);
		if (strcmp(own, control) == 0 && tap->phase != TAP_DIED)
			return tap;
	}
	return NULL;
}

static int control(struct agent *a, const Aquifer__PeerControlCall *q, char **ret_text, struct report *report)
{
	if (!q->call)
		return -EBADMSG;
	if (!agent_tap_of(a, q->control))
		return report_set(report, -ESRCH, "its tapdisk isn't there any more");
	const char **args = calloc(q->call->n_args + 1, sizeof *args);
	if (!args)
		return -ENOMEM;
	for (size_t i = 0; i < q->call->n_args; i++)
		args[i] = q->call->args[i];
	struct tapdisk_control call = { .node = q->call->node, .driver = q->call->driver, .subject = q->call->subject, .verb = q->call->verb,
					.args = args, .deadline_ns = q->deadline_ms * NS_PER_MS };
	int r = client_tapdisk_control(a->env, q->control, &call, ret_text, report);
	free(args);
	return r;
}

/* The body, if who sends it knows the token. */
static void *body_of(struct agent *a, struct rpc_request *r, const ProtobufCMessageDescriptor *type, const ProtobufCBinaryData *(*token)(const void *body),
		     int *status, struct report *report)
{
	void *body = rpc_request_body(r, type);
	*status = !body ? -EBADMSG : registry_knows(&a->registry, token(body)) ? 0 : report_set(report, -EACCES, "that is for those who know this agent's token");
	return *status == 0 ? body : NULL;
}

static const ProtobufCBinaryData *control_token(const void *body) { return &((const Aquifer__PeerControlCall *)body)->token; }

static const ProtobufCBinaryData *migrate_token(const void *body) { return &((const Aquifer__PeerMigrateCall *)body)->token; }
static const ProtobufCBinaryData *incoming_token(const void *body) { return &((const Aquifer__PeerIncomingCall *)body)->token; }
static const ProtobufCBinaryData *offer_token(const void *body) { return &((const Aquifer__PeerOfferCall *)body)->token; }

static int dispatch(struct agent *a, struct rpc_request *r, json_t **ret_json, char **ret_text, struct report *report)
{
	void *body;
	int status = 0;
	switch (r->method) {
	case AQUIFER__PEER_METHOD__PEER_CONTROL:
		body = body_of(a, r, &aquifer__peer_control_call__descriptor, control_token, &status, report);
		return body ? control(a, body, ret_text, report) : status;
	case AQUIFER__PEER_METHOD__PEER_MIGRATE:
		body = body_of(a, r, &aquifer__peer_migrate_call__descriptor, migrate_token, &status, report);
		return !body ? status : ((Aquifer__PeerMigrateCall *)body)->call ? agent_migrate(a, ((Aquifer__PeerMigrateCall *)body)->call, ret_json, report) : -EBADMSG;
	case AQUIFER__PEER_METHOD__PEER_INCOMING:
		body = body_of(a, r, &aquifer__peer_incoming_call__descriptor, incoming_token, &status, report);
		return body ? agent_incoming(a, body, r->payload, r->payload_bytes, ret_json, report) : status;
	case AQUIFER__PEER_METHOD__PEER_ACTIVATE:
		body = body_of(a, r, &aquifer__peer_offer_call__descriptor, offer_token, &status, report);
		return body ? agent_activate(a, body, ret_json, report) : status;
	case AQUIFER__PEER_METHOD__PEER_CANCEL:
		body = body_of(a, r, &aquifer__peer_offer_call__descriptor, offer_token, &status, report);
		return body ? agent_cancel(a, body, report) : status;
	default:
		return report_set(report, -EOPNOTSUPP, "this agent doesn't know method %u (is it older than who asks?)", r->method);
	}
}

void agent_peer_handle(void *arg, struct rpc_request *r)
{
	struct agent *a = arg;
	struct report report = { 0 };
	char *text = NULL;
	json_t *j = NULL;
	int status = a->ending ? report_set(&report, -ESHUTDOWN, "the agent is ending (try again)") : dispatch(a, r, &j, &text, &report);
	control_answer(r, status, j, text, &report);
}
