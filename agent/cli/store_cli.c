#include "agent/cli/store_cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon/client.h"
#include "agent/daemon/peer.h"
#include "core/config.h"
#include "parallax/catalog/catalog.h"

static int forward(void *arg, const struct store_holder *holder, const char *verb, const char *const *args,
		   uint64_t deadline_ns, char **ret_json, struct report *report)
{
	struct cli *c = arg;
	struct tapdisk_control call = { .driver = "volume", .subject = holder->volume, .verb = verb, .args = args,
					.deadline_ns = deadline_ns };
	cli_waits(c, "%s", holder->text);
	return peer_tapdisk_control(c->env, holder, &call, ret_json, report);
}

int cli_store_open(struct cli *c, bool create, struct store **ret_store)
{
	struct store_options o = { .root = c->root, .create = create, .forward = forward, .forward_arg = c };
	cli_waits(c, "the catalog");
	int r = store_open(c->env, &o, ret_store, &c->report);
	cli_waits(c, "%s", "");
	return r;
}

int cli_store_by_agent(struct cli *c, const char *verb)
{
	char url[CONFIG_VALUE_BYTES];
	struct rpc_client *client;
	struct report report = { "" };
	if (config_catalog_url(c->env, c->root, NULL, url, &report) < 0 || catalog_is_file(url) || client_agent(c->env, c->root, /* start= */ false, &client, &report) < 0)
		return -EOPNOTSUPP; /* what is wrong is said by who does it then */
	Aquifer__StoreCall q = AQUIFER__STORE_CALL__INIT;
	struct client_call call = { .method = AQUIFER__AGENT_METHOD__AGENT_STORE, .request = &q.base };
	q.catalog = url;
	q.verb = (char *)(uintptr_t)verb;
	q.args = (char **)(uintptr_t)c->arg;
	q.n_args = (size_t)c->arg_count;
	cli_waits(c, "the agent, which asks whoever has the volume");
	int r = client_call(client, &call, NULL, &report);
	rpc_close(client);
	if (r == -EOPNOTSUPP || (r == -ESHUTDOWN && report.text[0])) /* older, another catalog's; ending */
		return -EOPNOTSUPP;
	if (r == -ENOTCONN && !report.text[0])
		report_set(&report, r, "the agent ended meanwhile, whether it was done isn't known (look with: aquifer volume list, aquifer snapshot list)");
	if (r < 0)
		c->report = report;
	return r;
}

int cli_store_close(struct cli *c, struct store *s, int r)
{
	int closed = store_close(s);
	if (r == 0 && closed < 0)
		r = report_set(&c->report, closed, "closing the store: %s", strerror(-closed));
	return r;
}

int cli_list_begin(struct cli *c, const char *const *headings, struct listing *l, struct store **ret_store)
{
	int r = cli_store_open(c, false, ret_store);
	*l = (struct listing){ 0 };
	if (r == 0 && cli_flag(c, CLI_JSON))
		l->json = json_array();
	else if (r == 0)
		l->table = table_new(headings);
	return r;
}

int cli_list_end(struct cli *c, struct listing *l, struct store *s, int r)
{
	r = cli_store_close(c, s, r);
	if (l->table)
		table_print(l->table, stdout);
	else if (r == 0)
		cli_print_json(l->json);
	else
		json_decref(l->json);
	return r;
}

int cli_list_empty(struct cli *c) { return cli_flag(c, CLI_JSON) ? cli_print_json(json_array()) : 0; }
