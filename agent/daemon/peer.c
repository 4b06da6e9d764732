#include "agent/daemon/peer.h"

#include <errno.h>

#define CONNECT_NS (5 * NS_PER_S)
#define MARGIN_NS (500 * NS_PER_MS) /* so much later than the other agent who asks gives up, so that he hears why */

int peer_connect(struct env *env, const struct store_agent *agent, struct rpc_client **ret_client, struct report *report)
{
	struct rpc_client_options o = { .service = "peer", .connect_timeout_ns = CONNECT_NS, .roles = ROLE_AGENT, .host = agent->host };
	struct report why = { 0 };
	int r = rpc_connect(env, agent->address, &o, ret_client, &why);
	return r < 0 ? report_set(report, r, "the agent of host %s can't be reached at %s: %s", agent->host, agent->address, report_text(&why, r)) : 0;
}

int peer_tapdisk_control(struct env *env, const struct store_holder *holder, const struct tapdisk_control *call, char **ret_json,
			 struct report *report)
{
	if (!holder->elsewhere)
		return client_tapdisk_control(env, holder->control, call, ret_json, report);
	struct rpc_client *client;
	int r = peer_connect(env, &holder->agent, &client, report);
	if (r < 0)
		return r;
	uint64_t deadline_ns = call->deadline_ns ? call->deadline_ns : CLIENT_CONTROL_NS;
	Aquifer__ControlCall q = AQUIFER__CONTROL_CALL__INIT;
	Aquifer__PeerControlCall p = AQUIFER__PEER_CONTROL_CALL__INIT;
	client_control_call(call, &q);
	p.token = peer_token(&holder->agent);
	p.control = (char *)(uintptr_t)holder->control;
	p.call = &q;
	p.deadline_ms = deadline_ns / NS_PER_MS + 1;
	struct client_call c = { .method = AQUIFER__PEER_METHOD__PEER_CONTROL, .request = &p.base, .deadline_ns = deadline_ns + MARGIN_NS,
				 .answer_max = CLIENT_PEER_ANSWER_MAX };
	r = client_call(client, &c, ret_json, report);
	rpc_close(client);
	if (r == -ETIMEDOUT)
		client_late(deadline_ns, report);
	return r < 0 ? report_prefix(report, r, "on host %s", holder->agent.host) : 0;
}
