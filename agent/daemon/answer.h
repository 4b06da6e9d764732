/* How the agent and a tapdisk answer on their control sockets. */
#ifndef AQ_ANSWER_H
#define AQ_ANSWER_H
#include <jansson.h>

#include "core/report.h"
#include "proto/rpc.h"

/* `text`, or `json` (both may be NULL; they are taken over) as the reply's payload, or the report's sentence with a `status` below 0.
 * -EMSGSIZE: who asked has no room for it. */
void control_answer(struct rpc_request *r, int status, json_t *json, char *text, const struct report *report);
#endif
