/* aquifer-agent: the per-host daemon. This file reads the command line; agent/daemon/ does the rest. */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon/agent.h"
#include "agent/daemon/args.h"
#include "agent/daemon/process.h"
#include "core/version.h"
#include "proto/identity.h"

struct arguments {
	const char *root;
	struct agent_options options;
	struct report report;
	struct env *env;
};

enum { KEY_ROOT = 0x100, KEY_READY, KEY_HELP, KEY_VERSION };

static const struct argp_option options[] = {
	{ "root", KEY_ROOT, "DIR", 0, "Put what lives under /etc, /run and /var/lib below DIR (default: $AQUIFER_ROOT)", 0 },
	{ "ready-fd", KEY_READY, "FD", OPTION_HIDDEN, "Say there when it is up", 0 },
	{ "help", KEY_HELP, NULL, 0, "Say all this", 1 },
	{ "version", KEY_VERSION, NULL, 0, "Print the version", 1 },
	{ 0 },
};

static const struct argp argp;

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;
	switch (key) {
	case KEY_ROOT:
		if (!arg[0])
			return report_set(&a->report, EINVAL, "option --root needs a value; the host itself is /");
		a->root = arg;
		return 0;
	case KEY_READY:
		a->options.ready_fd = atoi(arg);
		fcntl(a->options.ready_fd, F_SETFD, FD_CLOEXEC);
		return 0;
	case KEY_HELP:
		argp_help(&argp, stdout, ARGP_HELP_USAGE | ARGP_HELP_DOC | ARGP_HELP_LONG, (char *)(uintptr_t)"aquifer-agent");
		args_said("aquifer-agent");
	case KEY_VERSION:
		printf("aquifer-agent %s\n", AQ_VERSION);
		args_said("aquifer-agent");
	case ARGP_KEY_ARG:
		return report_set(&a->report, EINVAL, "unexpected argument '%s'", arg);
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {
	.options = options,
	.parser = parse,
	.doc = "Starts and watches the tapdisks of this host, in the foreground; `aquifer agent start` runs it as a daemon."
	       "\vSIGTERM ends it; devices stay. One runs per host, or per --root.",
};

static int run(void *arg)
{
	struct arguments *a = arg;
	return agent_run(a->env, &a->options, &a->report);
}

int main(int argc, char **argv)
{
	static struct arguments a = { .options.ready_fd = -1 };
	static char root[PATHS_MAX];
	if (args_parse(&argp, argc, argv, &a, &a.report) < 0) {
		fprintf(stderr, "aquifer-agent: start failed: %s (see aquifer-agent --help)\n", a.report.text);
		return 2;
	}
	process_signals_block();
	int r = paths_resolve_root(a.root ? a.root : getenv("AQUIFER_ROOT"), root, &a.report);
	a.options.root = root;
	if (r == 0)
		r = env_linux_create(0, &a.env);
	if (r == 0) {
		r = env_linux_run_fiber(a.env, run, &a);
		identity_put(a.env->identity);
		env_linux_destroy(a.env);
	}
	if (r < 0)
		fprintf(stderr, "aquifer-agent: start failed: %s\n", report_text(&a.report, r));
	return r < 0 ? 1 : 0;
}
