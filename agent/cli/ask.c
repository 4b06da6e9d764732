#include "agent/cli/ask.h"

#include <errno.h>
#include <stdlib.h>

int cli_answer(struct cli *c, char *text, json_t **ret_json)
{
	*ret_json = json_loads(text, 0, NULL);
	free(text);
	return *ret_json ? 0 : report_set(&c->report, -EPROTO, "the agent's answer makes no sense (is it another version?)");
}

int cli_ask_agent(struct cli *c, bool start, const struct client_call *call, const char *waits, json_t **ret_json)
{
	struct rpc_client *client;
	char *text = NULL;
	cli_waits(c, "the agent");
	int r = client_agent(c->env, c->root, start, &client, &c->report);
	if (r < 0)
		return r;
	cli_waits(c, "%s", waits);
	r = client_call(client, call, &text, &c->report);
	rpc_close(client);
	return r < 0 ? r : cli_answer(c, text, ret_json);
}
