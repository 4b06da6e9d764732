#include "agent/daemon/launch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/daemon/paths.h"
#include "agent/daemon/spawn.h"

#define AGENT_READY_NS (30 * NS_PER_S)

/* Said also if there is none: what is in the environment may be another. */
static char *root_argument(const char *root) { return (char *)(uintptr_t)(root[0] ? root : "/"); }

int launch_agent(struct env *env, const char *root, struct report *report)
{
	char program[PATHS_MAX], run[PATHS_MAX], log[PATHS_MAX], last[512], *text = NULL;
	pid_t pid;
	int ready, r;
	paths_run(root, run);
	paths_agent_log(root, log);
	if ((r = paths_program("aquifer-agent", program, report)) < 0 || (r = paths_make(run, report)) < 0)
		return report_prefix(report, r, "starting the agent");
	char *argv[] = { program, "--ready-fd", "3", "--root", root_argument(root), NULL };
	if ((r = spawn_daemon(argv, log, &pid, &ready, report)) < 0)
		return r;
	r = spawn_wait(env, ready, AGENT_READY_NS, &text, report);
	close(ready);
	free(text);
	if (r == -EBUSY) { /* one is running by now, or still */
		report->text[0] = '\0';
		return 0;
	}
	if (r == -ECHILD) {
		spawn_last_line(log, last, sizeof last);
		report_set(report, r, "it ended without a word%s%s (see %s)", last[0] ? "; its log ends: " : "", last, log);
	}
	return r < 0 ? report_prefix(report, r, "starting the agent") : 0;
}

int launch_tapdisk(const struct launch_tapdisk *how, pid_t *ret_pid, int *ret_ready, struct report *report)
{
	char program[PATHS_MAX], log[PATHS_MAX];
	char *argv[24], incoming[40] = "--incoming";
	int n = 0, r = paths_program("aquifer-tapdisk", program, report);
	if (r < 0)
		return r;
	if ((size_t)snprintf(log, sizeof log, "%s/log", how->directory) >= sizeof log)
		return -ENAMETOOLONG;
	if (how->incoming_ms)
		snprintf(incoming, sizeof incoming, "--incoming=%" PRIu64, how->incoming_ms);
	argv[n++] = program;
	argv[n++] = "--ready-fd";
	argv[n++] = "3";
	argv[n++] = "--run-dir";
	argv[n++] = (char *)(uintptr_t)how->directory;
	argv[n++] = "--root";
	argv[n++] = root_argument(how->root);
	if (how->export) {
		argv[n++] = "--name";
		argv[n++] = (char *)(uintptr_t)how->name;
		argv[n++] = "--export";
		argv[n++] = (char *)(uintptr_t)how->export;
	}
	if (how->listen) {
		argv[n++] = "--listen";
		argv[n++] = (char *)(uintptr_t)how->listen;
	}
	if (how->read_only)
		argv[n++] = "--read-only";
	if (how->force)
		argv[n++] = "--force";
	if (how->accept_flushed)
		argv[n++] = "--accept-flushed";
	if (how->incoming)
		argv[n++] = incoming;
	argv[n++] = "--";
	argv[n++] = (char *)(uintptr_t)how->graph;
	argv[n] = NULL;
	return spawn_daemon(argv, log, ret_pid, ret_ready, report);
}
