/* Which versions of the protocol this program speaks. An object of its own, so that tests can link the same programs as of the version
 * before, or of one after (make/versions.mk). */
#include "proto/rpc.h"

#ifndef AQ_PROTOCOL_NEWEST
#define AQ_PROTOCOL_NEWEST RPC_PROTOCOL
#define AQ_PROTOCOL_OLDEST RPC_PROTOCOL_OLDEST
#endif

const uint32_t rpc_protocol_newest = AQ_PROTOCOL_NEWEST, rpc_protocol_oldest = AQ_PROTOCOL_OLDEST;
