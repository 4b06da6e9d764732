#include "agent/cli/ask.h"

#include <errno.h>
#include <stdlib.h>

#include "core/fiber.h"

#define ENDING_TRIES 10
#define ENDING_PAUSE_NS (100 * NS_PER_MS)

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
	int r = -ESHUTDOWN;
	/* One that is ending has done nothing of it: the next one does. */
	for (unsigned attempt = 0; r == -ESHUTDOWN && attempt < ENDING_TRIES; attempt++) {
		if (attempt)
			fiber_sleep(&c->env->loop, ENDING_PAUSE_NS);
		c->report.text[0] = 0;
		cli_waits(c, "the agent");
		r = client_agent(c->env, c->root, start, &client, &c->report);
		if (r < 0)
			return r;
		cli_waits(c, "%s", waits);
		r = client_call(client, call, &text, &c->report);
		rpc_close(client);
	}
	return r < 0 ? r : cli_answer(c, text, ret_json);
}
