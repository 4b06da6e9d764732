/* agent start, stop, status, restart, list. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/cli/ask.h"
#include "agent/cli/store_cli.h"
#include "agent/daemon/state.h"
#include "core/fiber.h"

#define STOP_NS (10 * NS_PER_S)
#define STOP_POLL_NS (10 * NS_PER_MS)

/* FIBER. One call without arguments; *ret_json is the caller's. -ENOTCONN: no agent. */
static int ask(struct cli *c, bool start, uint32_t method, json_t **ret_json)
{
	struct client_call call = { .method = method };
	return cli_ask_agent(c, start, &call, "the agent", ret_json);
}

static void print_status(json_t *j)
{
	int devices = (int)json_integer_value(json_object_get(j, "devices"));
	printf("running, pid %d, version %s, %d device%s\n", (int)json_integer_value(json_object_get(j, "pid")),
	       json_string_value(json_object_get(j, "version")), devices, devices == 1 ? "" : "s");
	json_decref(j);
}

static int ask_status(struct cli *c, bool start)
{
	json_t *j;
	int r = ask(c, start, AQUIFER__AGENT_METHOD__AGENT_STATUS, &j);
	if (r < 0)
		return r;
	if (cli_flag(c, CLI_JSON))
		return cli_print_json(j);
	print_status(j);
	return 0;
}

int cli_agent_start(struct cli *c) { return ask_status(c, /* start= */ true); }
int cli_agent_status(struct cli *c) { return ask_status(c, /* start= */ false); }

/* FIBER. Until nobody holds the agent's lock. */
static int wait_end(struct cli *c)
{
	char run[PATHS_MAX], path[PATHS_MAX];
	paths_run(c->root, run);
	paths_agent_lock(c->root, path);
	cli_waits(c, "the agent to end");
	for (uint64_t waited = 0; state_file_locked(path); waited += STOP_POLL_NS) {
		if (waited > STOP_NS)
			return report_set(&c->report, -ETIMEDOUT, "the agent doesn't end (see %s/agent.log)", run);
		fiber_sleep(&c->env->loop, STOP_POLL_NS);
	}
	return 0;
}

/* FIBER. *ret_devices: what stays attached. */
static int stop(struct cli *c, json_t **ret_devices)
{
	int r = ask(c, /* start= */ false, AQUIFER__AGENT_METHOD__AGENT_STOP, ret_devices);
	if (r == 0 && (r = wait_end(c)) < 0)
		json_decref(*ret_devices);
	return r;
}

static int print_staying(const struct cli *c, json_t *devices)
{
	size_t stay = 0;
	if (cli_flag(c, CLI_JSON))
		return cli_print_json(devices);
	for (size_t i = 0; i < json_array_size(devices); i++) {
		const json_t *d = json_array_get(devices, i);
		if (!strcmp(json_string_value(json_object_get(d, "state")), "died"))
			continue;
		if (stay++ == 0)
			printf("These stay attached, served by their tapdisks:\n");
		printf("  %s  %s  (pid %d)\n", json_string_value(json_object_get(d, "name")),
		       json_string_value(json_object_get(d, "device")), (int)json_integer_value(json_object_get(d, "pid")));
	}
	json_decref(devices);
	return 0;
}

int cli_agent_stop(struct cli *c)
{
	json_t *devices;
	int r = stop(c, &devices);
	if (r == -ENOTCONN && cli_flag(c, CLI_JSON))
		return cli_print_json(json_array());
	if (r == -ENOTCONN) {
		printf("The agent isn't running.\n");
		return 0;
	}
	return r == 0 ? print_staying(c, devices) : r;
}

int cli_agent_restart(struct cli *c)
{
	json_t *devices;
	int r = stop(c, &devices);
	if (r == 0)
		json_decref(devices);
	if (r < 0 && r != -ENOTCONN)
		return r;
	c->report.text[0] = 0;
	return cli_agent_start(c);
}

/* ---- those of other hosts ---- */

static int list_agent(void *arg, const struct store_agent *a)
{
	struct listing *l = arg;
	char since[32];
	const char *state = a->alive ? "up" : "gone";
	if (l->json)
		return json_array_append_new(l->json, json_pack("{s:s, s:s, s:s, s:i, s:s, s:I}", "host", a->host, "address", a->address, "version", a->version,
								"protocol", (int)a->protocol, "state", state, "since_ns", (json_int_t)a->since_ns));
	table_cell(l->table, "%s", a->host);
	table_cell(l->table, "%s", a->address);
	table_cell(l->table, "%s", a->version);
	table_cell(l->table, "%u", a->protocol);
	table_cell(l->table, "%s", state);
	table_cell(l->table, "%s", cli_time(a->since_ns, since));
	return 0;
}

int cli_agent_list(struct cli *c)
{
	static const char *const headings[] = { "HOST", "ADDRESS", "VERSION", ">PROTOCOL", "STATE", "SINCE", NULL };
	struct listing l;
	struct store *s;
	int r = cli_list_begin(c, headings, &l, &s);
	if (r < 0)
		return r == -ENOENT ? cli_list_empty(c) : r;
	return cli_list_end(c, &l, s, store_agent_list(s, list_agent, &l, &c->report));
}
