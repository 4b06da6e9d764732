#include "agent/daemon/answer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void control_answer(struct rpc_request *r, int status, json_t *json, char *text, const struct report *report)
{
	if (json && !text)
		text = json_dumps(json, JSON_COMPACT);
	json_decref(json);
	size_t n = text ? strlen(text) : 0;
	if (status == 0 && n > r->reply_limit)
		status = -EMSGSIZE;
	if (status == 0 && n)
		memcpy(r->reply_payload, text, n);
	free(text);
	if (status < 0)
		rpc_reply(r, status, report_text(report, status), NULL, NULL, 0);
	else
		rpc_reply_bytes(r, NULL, (uint32_t)n);
}
