/* migrate. The agent of the host where the volume is attached does it; the command line finds it. */
#include <errno.h>
#include <string.h>

#include "agent/cli/ask.h"
#include "agent/cli/store_cli.h"
#include "agent/daemon/peer.h"

/* FIBER. By the agent of the host that has it. */
static int ask(struct cli *c, const struct store_holder *h, const Aquifer__MigrateCall *q, char **ret_answer)
{
	struct rpc_client *client;
	Aquifer__PeerMigrateCall p = AQUIFER__PEER_MIGRATE_CALL__INIT;
	struct client_call call = { .method = AQUIFER__AGENT_METHOD__AGENT_MIGRATE, .request = &q->base };
	if (h->elsewhere) {
		p.token = peer_token(&h->agent);
		p.call = (Aquifer__MigrateCall *)(uintptr_t)q;
		call = (struct client_call){ .method = AQUIFER__PEER_METHOD__PEER_MIGRATE, .request = &p.base };
	}
	int r = h->elsewhere ? peer_connect(c->env, &h->agent, &client, &c->report) : client_agent(c->env, c->root, /* start= */ true, &client, &c->report);
	if (r < 0)
		return r;
	cli_waits(c, "the hosts to hand it over");
	r = client_call(client, &call, ret_answer, &c->report);
	rpc_close(client);
	return r < 0 && h->elsewhere ? report_prefix(&c->report, r, "host %s", h->agent.host) : r;
}

static int find_holder(struct cli *c, struct store_holder *h)
{
	struct store *s;
	int r = cli_store_open(c, false, &s);
	if (r < 0)
		return r;
	r = store_volume_holder(s, c->arg[0], h, &c->report);
	if (r == -ENXIO)
		report_set(&c->report, r, "it isn't attached (attach it there: aquifer attach %s)", c->arg[0]);
	/* two roots that share a file are one host to the catalog, but each has an agent */
	if (r == 0 && !h->elsewhere && h->agent.host[0] && strcmp(h->agent.host, store_host(s)) != 0)
		h->elsewhere = store_agent_find(s, h->agent.host, &h->agent, NULL) == 0;
	return cli_store_close(c, s, r);
}

int cli_migrate(struct cli *c)
{
	struct store_holder h;
	Aquifer__MigrateCall q = AQUIFER__MIGRATE_CALL__INIT;
	char *answer = NULL;
	int r;
	if (!cli_flag(c, CLI_TO))
		return cli_usage(c, "where to? --to HOST (aquifer agent list shows the hosts)");
	if ((r = cli_name(c, "host", cli_option(c, CLI_TO))) < 0 || (r = cli_name(c, "volume", c->arg[0])) < 0 ||
	    (cli_flag(c, CLI_NAME) && (r = cli_name(c, "device", cli_option(c, CLI_NAME))) < 0))
		return r;
	q.volume = cli_text(c->arg[0]);
	q.to = cli_text(cli_option(c, CLI_TO));
	q.name = cli_text(cli_option(c, CLI_NAME));
	r = find_holder(c, &h);
	if (r == 0)
		r = ask(c, &h, &q, &answer);
	if (r < 0)
		return r;
	json_t *j;
	if ((r = cli_answer(c, answer, &j)) < 0)
		return r;
	if (cli_flag(c, CLI_JSON))
		return cli_print_json(j);
	printf("%s is on host %s now: %s; requests waited %.1f ms\n", c->arg[0], q.to, json_string_value(json_object_get(j, "device")),
	       (double)json_integer_value(json_object_get(j, "waited_ns")) / 1e6);
	json_decref(j);
	return 0;
}
