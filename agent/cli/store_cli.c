#include "agent/cli/store_cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon/client.h"

static int forward(void *arg, const struct store_holder *holder, const char *verb, const char *const *args,
		   uint64_t deadline_ns, char **ret_json, struct report *report)
{
	struct cli *c = arg;
	struct tapdisk_control call = { .driver = "volume", .subject = holder->volume, .verb = verb, .args = args,
					.deadline_ns = deadline_ns };
	return client_tapdisk_control(c->env, holder->control, &call, ret_json, report);
}

int cli_store_open(struct cli *c, bool create, struct store **ret_store)
{
	struct store_options o = { .root = c->root, .create = create, .forward = forward, .forward_arg = c };
	return store_open(c->env, &o, ret_store, &c->report);
}

int cli_store_close(struct cli *c, struct store *s, int r)
{
	int closed = store_close(s);
	if (r == 0 && closed < 0)
		r = report_set(&c->report, closed, "closing the store: %s", strerror(-closed));
	return r;
}
