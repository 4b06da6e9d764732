/* Serves one driver's node by one export, for tests and measurements without a tapdisk:
 *
 *     serve [--read-only] EXPORT ADDRESS DRIVER WORD|KEY=VALUE…
 *     serve nbd unix:/tmp/s.sock raw /tmp/a.img
 *
 * Prints the device once it can be used. SIGTERM ends it, unless it is in use (then it says so and
 * goes on); SIGINT ends it by force. */
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "agent/exports/export.h"
#include "core/drivers.h"
#include "core/fiber.h"

struct serve {
	struct env *env;
	const struct blk_driver *driver;
	struct blk_open how;
	const struct export_driver *kind;
	struct export_how export_how;
	struct blk_node *node;
};

static int failed(const char *what, int status, const struct report *report)
{
	fprintf(stderr, "serve: %s failed: %s\n", what, report_text(report, status));
	return status;
}

/* FIBER. Until a signal has ended the export. */
static void serve_until_told(struct serve *s, struct export *e, int signal_fd)
{
	for (;;) {
		struct fd_watch w;
		struct job j;
		struct signalfd_siginfo info;
		struct report report = { "" };
		job_init(&j, &s->env->loop);
		fd_watch_start(s->env, &w, signal_fd, &j);
		fiber_wait(&j);
		if (read(signal_fd, &info, sizeof info) != sizeof info)
			continue;
		int r = s->kind->close(e, info.ssi_signo == SIGINT, &report);
		if (r == 0)
			return;
		failed("close", r, &report);
	}
}

static int serve_run(void *arg)
{
	struct serve *s = arg;
	struct report report = { "" };
	struct export *e;
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	int signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	int r = blk_open(s->env, s->driver, &s->how, NULL, 0, &s->node, &report);
	if (r < 0)
		return failed("open", r, &report);
	r = s->kind->open(s->env, s->node, &s->export_how, &e, &report);
	if (r == 0) {
		printf("%s\n", e->device);
		fflush(stdout);
		serve_until_told(s, e, signal_fd);
	} else {
		failed("export", r, &report);
	}
	close(signal_fd);
	int closed = blk_close(s->node);
	return r < 0 ? r : closed;
}

static int usage(void)
{
	fprintf(stderr, "usage: serve [--read-only] EXPORT ADDRESS DRIVER WORD|KEY=VALUE…\n");
	return 2;
}

static int parse_options(struct serve *s, int count, char **words, struct option_values *ret)
{
	const char *key[OPTION_MAX], *value[OPTION_MAX];
	struct report report = { "" };
	if (count > OPTION_MAX)
		return usage();
	for (int i = 0; i < count; i++) {
		char *equal = words[i][0] == '/' ? NULL : strchr(words[i], '=');
		key[i] = equal ? words[i] : NULL;
		value[i] = equal ? equal + 1 : words[i];
		if (equal)
			*equal = '\0';
	}
	int r = option_parse(s->driver->options, key, value, (unsigned)count, ret, &report);
	return r < 0 ? failed("options", r, &report) : 0;
}

int main(int argc, char **argv)
{
	struct serve s = { .export_how = { .name = "disk", .run_dir = "/run" }, .how = { .holder = "serve", .root = "" } };
	int at = 1;
	if (at < argc && strcmp(argv[at], "--read-only") == 0) {
		s.export_how.read_only = s.how.read_only = true;
		at++;
	}
	if (argc - at < 3)
		return usage();
	s.kind = export_find(argv[at]);
	s.export_how.address = argv[at + 1];
	s.driver = driver_find(argv[at + 2]);
	struct option_values options;
	if (!s.kind || !s.driver || parse_options(&s, argc - at - 3, argv + at + 3, &options) != 0)
		return usage();
	s.how.options = &options;
	sigset_t set;
	sigfillset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	int r = env_linux_create(0, &s.env);
	if (r < 0)
		return failed("start", r, NULL), 1;
	r = env_linux_run_fiber(s.env, serve_run, &s);
	env_linux_destroy(s.env);
	return r < 0;
}
