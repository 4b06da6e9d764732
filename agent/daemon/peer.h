/* Speaking to agents of other hosts, whose address and token the catalog has. */
#ifndef AQ_PEER_H
#define AQ_PEER_H
#include "agent/daemon/client.h"
#include "parallax/store/store.h"

/* FIBER. */
int peer_connect(struct env *env, const struct store_agent *agent, struct rpc_client **ret_client, struct report *report);
/* FIBER. client_tapdisk_control() of a volume's holder, wherever it is. */
int peer_tapdisk_control(struct env *env, const struct store_holder *holder, const struct tapdisk_control *call, char **ret_json,
			 struct report *report);
static inline ProtobufCBinaryData peer_token(const struct store_agent *agent)
{
	return (ProtobufCBinaryData){ sizeof agent->token, (uint8_t *)(uintptr_t)agent->token };
}
#endif
