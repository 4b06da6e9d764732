/* Serves one driver's node as a loop device, for tests of the export alone:
 *
 *     loopserve [--read-only] [--plant NAME] NAME DRIVER WORD|KEY=VALUE…
 *     loopserve --abort DEVICE          ends the FUSE connection behind a device whose server hangs
 *
 * Prints the device's path once it is there. SIGTERM detaches and exits unless the device is in use (then it says
 * so and goes on), SIGINT detaches by force, SIGUSR1 prints the node's counters. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "agent/exports/export.h"
#include "agent/exports/loop_device.h"
#include "agent/guard.h"
#include "core/drivers.h"
#include "core/fiber.h"
#include "core/plant.h"

struct serve {
	struct env *env;
	struct blk_open how;
	const struct blk_driver *driver;
	struct export_how export_how;
	struct blk_node *node;
	struct export *export;
};

static int failed(const char *what, int status, const struct report *report)
{
	fprintf(stderr, "loopserve: %s failed: %s\n", what, report_text(report, status));
	return status;
}

static void counters_print(const struct serve *s)
{
	for (int op = 0; op < BLK_OP_COUNT; op++)
		printf("%s %llu %llu\n", blk_op_name((enum blk_op)op), (unsigned long long)s->node->counters.requests[op],
		       (unsigned long long)s->node->counters.bytes[op]);
	printf("in_flight_max %u\nclients %llu\nend\n", s->node->counters.in_flight_max,
	       (unsigned long long)s->export->clients);
	fflush(stdout);
}

/* FIBER. Until the device is detached. */
static void obey(struct serve *s, int signal_fd)
{
	for (bool detached = false; !detached;) {
		struct fd_watch w;
		struct job j;
		struct signalfd_siginfo info;
		job_init(&j, &s->env->loop);
		fd_watch_start(s->env, &w, signal_fd, &j);
		fiber_wait(&j);
		if (read(signal_fd, &info, sizeof info) != sizeof info)
			continue;
		if (info.ssi_signo == SIGUSR1) {
			counters_print(s);
			continue;
		}
		struct report report = { 0 };
		int r = s->export->driver->close(s->export, info.ssi_signo == SIGINT, &report);
		if (r < 0)
			failed("detach", r, &report);
		else
			detached = true;
	}
}

static int serve_run(void *arg)
{
	struct serve *s = arg;
	struct report report = { 0 };
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	int r = blk_open(s->env, s->driver, &s->how, NULL, 0, &s->node, &report);
	if (r < 0)
		return failed("open", r, &report);
	r = export_loop.open(s->env, s->node, &s->export_how, &s->export, &report);
	if (r == 0) {
		int signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
		printf("%s\n", s->export->device);
		fflush(stdout);
		obey(s, signal_fd);
		close(signal_fd);
	} else {
		failed("attach", r, &report);
	}
	int closed = blk_close(s->node);
	return r < 0 ? r : closed;
}

static int usage(void)
{
	fprintf(stderr, "usage: loopserve [--read-only] [--plant NAME] NAME DRIVER WORD|KEY=VALUE…\n"
			"       loopserve --abort DEVICE\n");
	return 2;
}

int main(int argc, char **argv)
{
	struct serve s = { .export_how = { .run_dir = "/run" } };
	struct report report = { 0 };
	if (argc == 3 && strcmp(argv[1], "--abort") == 0) {
		int r = loop_connection_abort(argv[2], &report);
		return r < 0 ? failed("abort", r, &report), 1 : 0;
	}
	int at = 1;
	for (; at < argc && strncmp(argv[at], "--", 2) == 0; at++) {
		if (strcmp(argv[at], "--read-only") == 0) {
			s.export_how.read_only = s.how.read_only = true;
#ifdef AQ_PLANTS
		} else if (strcmp(argv[at], "--plant") == 0 && at + 1 < argc) {
			plant_active = argv[++at];
#endif
		} else {
			return usage();
		}
	}
	if (argc - at < 2)
		return usage();
	s.export_how.name = argv[at++];
	s.driver = driver_find(argv[at++]);
	if (!s.driver || argc - at > OPTION_MAX)
		return usage();
	const char *key[OPTION_MAX], *value[OPTION_MAX];
	for (int i = at; i < argc; i++) {
		char *equal = strchr(argv[i], '=');
		key[i - at] = equal ? argv[i] : NULL;
		value[i - at] = equal ? equal + 1 : argv[i];
		if (equal)
			*equal = 0;
	}
	struct option_values options;
	int r = option_parse(s.driver->options, key, value, (unsigned)(argc - at), &options, &report);
	if (r < 0)
		return failed("options", r, &report), 2;
	s.how.options = &options;
	s.how.holder = "loopserve";
	s.how.root = "";
	sigset_t set;
	sigfillset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	guard_process(&report);
	if (report.text[0])
		fprintf(stderr, "loopserve: note: %s\n", report.text);
	r = env_linux_create(0, &s.env);
	if (r < 0)
		return failed("start", r, NULL), 1;
	r = env_linux_run_fiber(s.env, serve_run, &s);
	env_linux_destroy(s.env);
	return r < 0;
}
