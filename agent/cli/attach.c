/* attach and detach. The command line knows the working directory, so it makes paths
 * absolute and checks what can be checked; the agent does the rest. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cli/ask.h"
#include "agent/cli/graph_cli.h"
#include "agent/daemon/plan.h"

/* What was asked for, as a plan and its canonical text. */
static int make_plan(struct cli *c, char **ret_text)
{
	const char *export = cli_option(c, CLI_AS);
	struct plan_how how = { .name = cli_option(c, CLI_NAME), .exports = &export, .export_count = export ? 1 : 0,
				.listen = cli_option(c, CLI_LISTEN), .read_only = cli_flag(c, CLI_READ_ONLY) };
	char directory[PATHS_MAX], *text;
	size_t length;
	int r = cli_graph_text(c, cli_option(c, CLI_GRAPH), c->arg[0], &text, &length, directory);
	if (r < 0)
		return r;
	how.directory = directory;
	struct plan plan;
	r = plan_make(text, length, &how, &plan, &c->report);
	free(text);
	if (r < 0)
		return c->arg_count ? cli_graph_hint(c, c->arg[0], r) : r;
	*ret_text = graph_print(plan.graph);
	plan_free(&plan);
	return *ret_text ? 0 : -ENOMEM;
}

static int check_options(struct cli *c)
{
	const char *as = cli_option(c, CLI_AS);
	char names[128];
	if ((c->arg_count == 1) == cli_flag(c, CLI_GRAPH))
		return cli_usage(c, c->arg_count ? "both a graph file and '%s'" : "an argument is missing: %s",
				 c->arg_count ? c->arg[0] : "aquifer attach GRAPH|VOLUME|VOLUME@SNAP|FILE");
	if (as && !export_find(as))
		return cli_usage(c, "there is no export '%s' for --as: there are %s", as, plan_export_names(names));
	if (cli_flag(c, CLI_LISTEN) && (!as || strcmp(as, "nbd")))
		return cli_usage(c, "--listen goes with --as nbd only");
	struct report why = { 0 };
	if (cli_flag(c, CLI_LISTEN) && plan_check_listen(cli_option(c, CLI_LISTEN), &why) < 0)
		return cli_usage(c, "%s", why.text);
	if (cli_flag(c, CLI_INCOMING) && (cli_flag(c, CLI_FORCE) || cli_flag(c, CLI_READ_ONLY) || cli_flag(c, CLI_ACCEPT_FLUSHED)))
		return cli_usage(c, "--incoming waits until the volume is let go, for writing: it goes with neither --force, --read-only nor --accept-flushed");
	if (cli_flag(c, CLI_GRAPH)) /* what failed is about that file */
		snprintf(c->what, sizeof c->what, "attach %.200s", cli_option(c, CLI_GRAPH));
	if (cli_flag(c, CLI_NAME))
		return cli_name(c, "device", cli_option(c, CLI_NAME));
	return 0;
}

int cli_attach(struct cli *c)
{
	json_t *devices;
	char *graph;
	int r;
	if ((r = check_options(c)) < 0 || (r = make_plan(c, &graph)) < 0)
		return r;
	Aquifer__AttachCall q = AQUIFER__ATTACH_CALL__INIT;
	q.name = cli_text(cli_option(c, CLI_NAME));
	q.export = cli_text(cli_option(c, CLI_AS));
	q.listen = cli_text(cli_option(c, CLI_LISTEN));
	q.read_only = cli_flag(c, CLI_READ_ONLY);
	q.force = cli_flag(c, CLI_FORCE);
	q.accept_flushed = cli_flag(c, CLI_ACCEPT_FLUSHED);
	q.incoming = cli_flag(c, CLI_INCOMING);
	struct client_call call = { .method = AQUIFER__AGENT_METHOD__AGENT_ATTACH, .request = &q.base, .text = graph };
	r = cli_ask_agent(c, /* start= */ true, &call, "the device to be ready (its log is in run/aquifer/tapdisks)", &devices);
	free(graph);
	if (r < 0)
		return c->arg_count ? cli_graph_hint(c, c->arg[0], r) : r;
	if (cli_flag(c, CLI_JSON))
		return cli_print_json(devices);
	for (size_t i = 0; i < json_array_size(devices); i++)
		printf("%s\n", json_string_value(json_object_get(json_array_get(devices, i), "device")));
	json_decref(devices);
	return 0;
}

int cli_detach(struct cli *c)
{
	json_t *names;
	if ((c->arg_count == 1) == cli_flag(c, CLI_ALL))
		return cli_usage(c, c->arg_count ? "both a device and --all" : "which device? NAME, DEVICE or --all");
	if (cli_flag(c, CLI_ALL))
		snprintf(c->what, sizeof c->what, "detach --all");
	Aquifer__DetachCall q = AQUIFER__DETACH_CALL__INIT;
	q.device = cli_text(c->arg_count ? c->arg[0] : "");
	q.all = cli_flag(c, CLI_ALL);
	q.force = cli_flag(c, CLI_FORCE);
	struct client_call call = { .method = AQUIFER__AGENT_METHOD__AGENT_DETACH, .request = &q.base };
	int r = cli_ask_agent(c, /* start= */ true, &call, "what was written to be durable", &names);
	if (r == 0 && cli_flag(c, CLI_JSON))
		return cli_print_json(names);
	if (r == 0)
		json_decref(names);
	return r;
}
