#include "agent/daemon/answer.h"

#include <errno.h>
#include <string.h>

void control_answer(struct rpc_request *r, int status, const char *text, const struct report *report)
{
	size_t n = text ? strlen(text) : 0;
	if (status == 0 && n > r->reply_limit)
		status = -EMSGSIZE;
	if (status < 0) {
		rpc_reply(r, status, report_text(report, status), NULL, NULL, 0);
		return;
	}
	if (n)
		memcpy(r->reply_payload, text, n);
	rpc_reply_bytes(r, NULL, (uint32_t)n);
}
