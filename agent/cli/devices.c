/* list and show. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/cli/ask.h"
#include "core/blk.h"
#include "parallax/store/store.h"

extern char **environ;

static const char *text_at(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));
	return s ? s : "";
}

static uint64_t number_at(const json_t *j, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(j, key));
}

/* ---- list ---- */

#define GRAPH_COLUMNS 96
#define REASON_COLUMNS 30 /* what is longer makes the table too wide for all */

int cli_list(struct cli *c)
{
	static const char *const headings[] = { "NAME", "DEVICE", "EXPORT", "GRAPH", "STATE", ">PID", NULL };
	struct client_call call = { .method = AQUIFER__AGENT_METHOD__AGENT_LIST };
	json_t *devices;
	int r = cli_ask_agent(c, /* start= */ true, &call, "the agent", &devices);
	if (r < 0)
		return r;
	if (cli_flag(c, CLI_JSON))
		return cli_print_json(devices);
	struct table *t = table_new(headings);
	table_elastic(t, 3);
	for (size_t i = 0; i < json_array_size(devices); i++) {
		const json_t *d = json_array_get(devices, i);
		const char *reason = text_at(d, "reason"), *device = text_at(d, "device");
		bool below = strlen(reason) > REASON_COLUMNS;
		/* A graph file's graph has lines. */
		char *graph = NULL;
		if (asprintf(&graph, "%s...", text_at(d, "graph")) < 0)
			abort();
		graph[strlen(graph) - 3] = 0; /* room for the "…" */
		cut_text(graph, GRAPH_COLUMNS);
		for (char *p = graph; *p; p++)
			if (*p == '\n')
				*p = ';';
		table_cell(t, "%s", text_at(d, "name"));
		table_cell(t, "%s", device[0] ? device : "-");
		table_cell(t, "%s", text_at(d, "export"));
		table_cell(t, "%s", graph[0] ? graph : "-");
		if (reason[0] && !below)
			table_cell(t, "%s (%s)", text_at(d, "state"), reason);
		else
			table_cell(t, "%s", text_at(d, "state"));
		table_cell(t, "%" PRIu64, number_at(d, "pid"));
		if (below)
			table_note(t, reason);
		free(graph);
	}
	table_print(t, stdout);
	json_decref(devices);
	return 0;
}

/* ---- show ---- */

static void print_counters(const json_t *node)
{
	const json_t *c = json_object_get(node, "counters");
	char bytes[24];
	for (int op = 0; op < BLK_OP_COUNT; op++) {
		const json_t *o = json_object_get(c, blk_op_name((enum blk_op)op));
		uint64_t requests = number_at(o, "requests");
		if (!requests)
			continue;
		printf("    %-8s %12" PRIu64 " requests  %12s  %8.1f us each  %" PRIu64 " errors\n", blk_op_name((enum blk_op)op),
		       requests, format_size_human(number_at(o, "bytes"), bytes),
		       (double)number_at(o, "busy_ns") / (double)requests / 1000, number_at(o, "errors"));
	}
	printf("    in flight %" PRIu64 ", at most %" PRIu64 " so far\n", number_at(c, "in_flight"), number_at(c, "in_flight_max"));
	const char *key;
	json_t *value;
	json_object_foreach(json_object_get(node, "items"), key, value)
		printf("    %-24s %" JSON_INTEGER_FORMAT "\n", key, json_integer_value(value));
}

/* "3 writes and 1 flush wait since … for …", and how many were given up. */
static void print_waits(const json_t *w)
{
	char requests[96], since[32], limit[24];
	struct blk_waits waits = { 0 };
	uint64_t timed_out = number_at(w, "timed_out");
	for (int op = 0; op < BLK_OP_COUNT; op++)
		waits.requests[op] = (unsigned)number_at(json_object_get(w, "requests"), blk_op_name((enum blk_op)op));
	blk_waits_text(&waits, requests, sizeof requests);
	store_io_timeout_text((uint32_t)number_at(w, "limit_ms"), limit);
	if (number_at(w, "oldest_ns"))
		printf("    %s wait since %s (at most: %s) for %s\n", requests, cli_time(number_at(w, "oldest_ns"), since), limit, text_at(w, "for"));
	else if (text_at(w, "for")[0])
		printf("    waits since %s for %s\n", cli_time(number_at(w, "since_ns"), since), text_at(w, "for"));
	if (timed_out)
		printf("    %" PRIu64 " requests ended with an I/O error because they had waited too long; the last one, a %s, at %s, for %s\n", timed_out,
		       text_at(w, "last"), cli_time(number_at(w, "last_ns"), since), text_at(w, "last_for"));
}

static void print_show(const json_t *j)
{
	char size[24];
	size_t i;
	const json_t *e;
	printf("graph:\n  ");
	for (const char *p = text_at(j, "graph"); *p; p++) { /* a graph file's graph has lines */
		putchar(*p);
		if (*p == '\n')
			fputs("  ", stdout);
	}
	putchar('\n');
	printf("tapdisk: pid %" PRIu64 ", version %s%s\n", number_at(j, "pid"), text_at(j, "version"),
	       json_is_true(json_object_get(j, "read_only")) ? ", read only" : "");
	printf("devices:\n");
	json_array_foreach(json_object_get(j, "devices"), i, e)
		printf("  %s  %s  (%s of %s, %" PRIu64 " connected)\n", text_at(e, "name"), text_at(e, "device"), text_at(e, "export"),
		       text_at(e, "node"), number_at(e, "clients"));
	printf("nodes:\n");
	json_array_foreach(json_object_get(j, "nodes"), i, e) {
		const json_t *condition = json_object_get(e, "condition");
		printf("  %s: %s(%s), %s%s%s%s%s%s\n", text_at(e, "name"), text_at(e, "driver"), text_at(e, "args"),
		       format_size(number_at(e, "size"), size), json_is_true(json_object_get(e, "read_only")) ? ", read only" : "", condition ? ", " : "",
		       text_at(condition, "state"), condition ? ": " : "", text_at(condition, "reason"));
		if (json_object_get(e, "waits"))
			print_waits(json_object_get(e, "waits"));
		print_counters(e);
	}
}

/* `dot` reads what we write; its output is ours. */
static int run_dot(struct cli *c, const char *dot)
{
	int fds[2], status = 0;
	pid_t pid;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	char *argv[] = { (char *)(uintptr_t)"dot", (char *)(uintptr_t)"-Tsvg", NULL };
	posix_spawn_file_actions_t files;
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_adddup2(&files, fds[0], 0);
	fflush(stdout);
	int e = posix_spawnp(&pid, "dot", &files, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&files);
	close(fds[0]);
	if (e) {
		close(fds[1]);
		return report_set(&c->report, -e, "the program dot could not be started: %s (install graphviz, or use --dot)", strerror(e));
	}
	signal(SIGPIPE, SIG_IGN); /* it may end without reading all: how it ended says more */
	size_t n = strlen(dot), done = 0;
	while (done < n) {
		ssize_t w = write(fds[1], dot + done, n - done);
		if (w <= 0)
			break;
		done += (size_t)w;
	}
	close(fds[1]);
	if (waitpid(pid, &status, 0) < 0 || status)
		return report_set(&c->report, -EIO, "the program dot failed (use --dot to see its input)");
	return 0;
}

int cli_show(struct cli *c)
{
	Aquifer__DeviceCall q = AQUIFER__DEVICE_CALL__INIT;
	q.device = cli_text(c->arg[0]);
	struct client_call call = { .method = AQUIFER__AGENT_METHOD__AGENT_SHOW, .request = &q.base };
	if (cli_flag(c, CLI_DOT) + cli_flag(c, CLI_SVG) + cli_flag(c, CLI_JSON) > 1)
		return cli_usage(c, "one of --dot, --svg and --json at a time");
	json_t *j;
	int r = cli_ask_agent(c, /* start= */ true, &call, "the agent", &j);
	if (r < 0)
		return r;
	if (cli_flag(c, CLI_JSON)) {
		json_object_del(j, "dot");
		return cli_print_json(j);
	}
	if (cli_flag(c, CLI_DOT))
		printf("%s", text_at(j, "dot"));
	else if (cli_flag(c, CLI_SVG))
		r = run_dot(c, text_at(j, "dot"));
	else
		print_show(j);
	json_decref(j);
	return r;
}
