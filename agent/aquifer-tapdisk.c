/* aquifer-tapdisk: serves one graph. This file reads the command line; agent/daemon/tapdisk.c does the rest.
 * The agent starts it with --run-dir and --ready-fd; by hand it prints its devices and stays in the foreground. */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/daemon/args.h"
#include "agent/daemon/log.h"
#include "agent/daemon/paths.h"
#include "agent/daemon/process.h"
#include "agent/daemon/spawn.h"
#include "agent/daemon/tapdisk.h"
#include "agent/guard.h"
#include "core/version.h"
#include "proto/identity.h"

#define INCOMING_MS_MAX (24 * 3600 * 1000)

struct arguments {
	const char *root, *graph_file, *graph;
	const char *exports[STATE_DEVICES_MAX];
	struct plan_how how;
	struct tapdisk_options options;
	struct report report;
	bool usage; /* what failed is how it was called */
	struct env *env;
};

enum { KEY_ROOT = 0x100, KEY_READY, KEY_RUN_DIR, KEY_EXPORT, KEY_NAME, KEY_LISTEN, KEY_GRAPH, KEY_READ_ONLY, KEY_FORCE,
       KEY_ACCEPT_FLUSHED, KEY_INCOMING, KEY_HELP, KEY_VERSION };

static const struct argp_option options[] = {
	{ "export", KEY_EXPORT, "KIND[:ADDRESS]", 0,
	  "loop, loop:NAME, nbd, nbd:PATH (a unix socket) or nbd:tcp:HOST:PORT; may be repeated; default: loop", 0 },
	{ "name", KEY_NAME, "NAME", 0, "The device's name; default: the volume's, or the file's without its suffix", 0 },
	{ "graph", KEY_GRAPH, "FILE", 0, "Serve the graph in FILE, with its own exports", 0 },
	{ "read-only", KEY_READ_ONLY, NULL, 0, "Nothing can be written", 0 },
	{ "force", KEY_FORCE, NULL, 0, "Fence another holder", 0 },
	{ "accept-flushed", KEY_ACCEPT_FLUSHED, NULL, 0, "Go on with what was flushed where later writes are lost", 0 },
	{ "incoming", KEY_INCOMING, "MS", OPTION_ARG_OPTIONAL, "The devices are there at once; requests wait until the volume's holder lets it go, at most for so long", 0 },
	{ "root", KEY_ROOT, "DIR", 0, "Put what lives under /etc, /run and /var/lib below DIR (default: $AQUIFER_ROOT)", 0 },
	{ "listen", KEY_LISTEN, "HOST:PORT", OPTION_HIDDEN, "nbd's TCP port", 0 },
	{ "run-dir", KEY_RUN_DIR, "DIR", OPTION_HIDDEN, "The agent's directory for this tapdisk", 0 },
	{ "ready-fd", KEY_READY, "FD", OPTION_HIDDEN, "Say there when it is up", 0 },
	{ "help", KEY_HELP, NULL, 0, "Say all this", 1 },
	{ "version", KEY_VERSION, NULL, 0, "Print the version", 1 },
	{ 0 },
};

static const struct argp argp;

static error_t parse_incoming(struct arguments *a, const char *text)
{
	char *end;
	errno = 0;
	a->options.incoming_ms = strtoull(text, &end, 10);
	if (errno || *end || text[0] < '0' || text[0] > '9' || a->options.incoming_ms > INCOMING_MS_MAX)
		return report_set(&a->report, EINVAL, "--incoming=%s is not a number of milliseconds, up to a day's", text);
	return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;
	switch (key) {
	case KEY_EXPORT:
		if (a->how.export_count == STATE_DEVICES_MAX)
			return report_set(&a->report, EINVAL, "more than %d exports", STATE_DEVICES_MAX);
		a->exports[a->how.export_count++] = arg;
		return 0;
	case KEY_NAME:
		a->how.name = arg;
		return 0;
	case KEY_LISTEN:
		a->how.listen = arg;
		return 0;
	case KEY_GRAPH:
		a->graph_file = arg;
		return 0;
	case KEY_READ_ONLY:
		a->how.read_only = a->options.read_only = true;
		return 0;
	case KEY_FORCE:
		a->options.force = true;
		return 0;
	case KEY_ACCEPT_FLUSHED:
		a->options.accept_flushed = true;
		return 0;
	case KEY_INCOMING:
		a->options.incoming = true;
		return arg ? parse_incoming(a, arg) : 0;
	case KEY_ROOT:
		if (!arg[0])
			return report_set(&a->report, EINVAL, "option --root needs a value; the host itself is /");
		a->root = arg;
		return 0;
	case KEY_RUN_DIR:
		a->options.run_dir = arg;
		return 0;
	case KEY_READY:
		a->options.ready_fd = atoi(arg);
		fcntl(a->options.ready_fd, F_SETFD, FD_CLOEXEC);
		return 0;
	case KEY_HELP:
		argp_help(&argp, stdout, ARGP_HELP_USAGE | ARGP_HELP_DOC | ARGP_HELP_LONG, (char *)(uintptr_t)"aquifer-tapdisk");
		args_said("aquifer-tapdisk");
	case KEY_VERSION:
		printf("aquifer-tapdisk %s\n", AQ_VERSION);
		args_said("aquifer-tapdisk");
	case ARGP_KEY_ARG:
		if (a->graph)
			return report_set(&a->report, EINVAL, "unexpected argument '%s' (quote the graph)", arg);
		a->graph = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {
	.options = options,
	.parser = parse,
	.args_doc = "GRAPH",
	.doc = "Serves one graph of block components, in the foreground. `aquifer attach` starts one for each device."
	       "\vPrints each device once it is there. SIGTERM closes them and ends; a device that is in use stays until it "
	       "isn't, or until a second SIGTERM.\n\n"
	       "  aquifer-tapdisk --export nbd:/tmp/s.sock 'raw(/images/a.img)'\n"
	       "  aquifer-tapdisk --export loop:web1 'cow(/vms/a.cow, ro(/images/b.img))'\n",
};

/* By hand: the devices on stdout; then what could not be had. */
static void print_devices(void *arg, const struct tap_state *s)
{
	const struct report *note = arg;
	for (unsigned i = 0; i < s->device_count; i++)
		printf("%s\n", s->device[i].device);
	fflush(stdout);
	if (note->text[0])
		log_line("note: %s", note->text);
}

static int run(void *arg)
{
	struct arguments *a = arg;
	return tapdisk_run(a->env, &a->options, &a->report);
}

static int start_failed(const struct arguments *a)
{
	ready_bad(a->options.ready_fd, -EINVAL, a->report.text);
	fprintf(stderr, "aquifer-tapdisk: start failed: %s%s\n", a->report.text, a->usage ? " (see aquifer-tapdisk --help)" : "");
	return a->usage ? 2 : 1;
}

/* The graph's text and its plan, before any work. What is wrong in the text is a failure, as it is for `aquifer attach`;
 * what doesn't go with it on the command line is wrong usage. */
static int make_plan(struct arguments *a, struct plan *ret_plan)
{
	char *text = NULL, here[PATHS_MAX];
	struct graph *g;
	size_t length = a->graph ? strlen(a->graph) : 0;
	int r = 0;
	if (!a->graph == !a->graph_file)
		return report_set(&a->report, -EINVAL, a->graph ? "both a graph and a graph file" : "the graph is missing");
	a->usage = false;
	if (a->graph_file && (r = state_file_read(a->graph_file, GRAPH_TEXT_MAX, &text, &length)) < 0)
		return report_path(&a->report, r, "open", a->graph_file);
	a->how.exports = a->exports;
	a->how.directory = getcwd(here, sizeof here);
	r = graph_read(text ? text : a->graph, length, &g, &a->report);
	if (r == 0) {
		graph_free(g);
		a->usage = true;
		r = plan_make(text ? text : a->graph, length, &a->how, ret_plan, &a->report);
	}
	free(text);
	return r;
}

int main(int argc, char **argv)
{
	static struct arguments a = { .options.ready_fd = -1, .usage = true };
	static char root[PATHS_MAX], log[PATHS_MAX], speaker[80];
	static struct plan plan;
	struct report note = { 0 };
	if (args_parse(&argp, argc, argv, &a, &a.report) < 0 || make_plan(&a, &plan) < 0)
		return start_failed(&a);
	if (paths_resolve_root(a.root ? a.root : getenv("AQUIFER_ROOT"), root, &a.report) < 0)
		return start_failed(&a);
	process_signals_block();
	env_linux_raise_files();
	guard_process(&note);
	snprintf(speaker, sizeof speaker, "tapdisk %s", plan.device[0].name);
	a.options.plan = &plan;
	a.options.root = root;
	if (a.options.ready_fd < 0) {
		a.options.up = print_devices;
		a.options.arg = &note;
	}
	int r = env_linux_create(0, &a.env);
	if (r == 0) {
		log_start(a.env, speaker);
		if (a.options.run_dir && (size_t)snprintf(log, sizeof log, "%s/log", a.options.run_dir) < sizeof log)
			log_limit(log);
		if (note.text[0] && a.options.ready_fd >= 0)
			log_line("note: %s", note.text);
		r = env_linux_run_fiber(a.env, run, &a);
		identity_put(a.env->identity);
		env_linux_destroy(a.env);
	} else {
		ready_bad(a.options.ready_fd, r, strerror(-r));
	}
	plan_free(&plan);
	if (r < 0)
		fprintf(stderr, "aquifer-tapdisk: %s failed: %s\n", plan.device[0].name, report_text(&a.report, r));
	return r < 0 ? 1 : 0;
}
