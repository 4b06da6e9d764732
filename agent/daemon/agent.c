#include "agent/daemon/agent.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/daemon/log.h"
#include "agent/daemon/process.h"
#include "agent/daemon/spawn.h"

#define DRAIN_NS (2 * NS_PER_S)
#define LINGER_NS (500 * NS_PER_MS)
#define END_NS (8 * NS_PER_S) /* less than `agent stop` waits */
#define PEERS_MAX 64
#define PEER_POOL_BYTES (16 << 20)
#define LOCK_ATTEMPTS 40
#define LOCK_PAUSE_NS (50 * NS_PER_MS)

static int make_directories(struct agent *a, char run[PATHS_MAX], struct report *report)
{
	char exports[PATHS_MAX];
	paths_run(a->options->root, run);
	paths_exports(a->options->root, exports);
	int r = paths_make(run, report);
	if (r == 0)
		r = paths_make(a->taps.directory, report);
	return r == 0 ? paths_make(exports, report) : r;
}

/* An agent that was just killed or told to stop holds its lock until the kernel has taken it apart: a while is waited for that. */
static int take_lock(struct agent *a, struct report *report)
{
	char path[PATHS_MAX];
	struct report why = { 0 };
	int r;
	paths_agent_lock(a->options->root, path);
	for (unsigned attempt = 0; (r = state_lock_file(path, &a->lock_fd, &why)) == -EBUSY && attempt < LOCK_ATTEMPTS; attempt++) {
		why.text[0] = '\0';
		fiber_sleep(&a->env->loop, LOCK_PAUSE_NS);
	}
	if (r == -EBUSY)
		return report_set(report, r, "another agent runs already (it holds %s)", path);
	return r < 0 ? report_set(report, r, "%s", why.text) : 0;
}

static int listen_on(struct agent *a, const char *run, struct report *report)
{
	char address[PATHS_MAX];
	struct rpc_server_options o = { .service = "agent", .handle = agent_handle, .arg = a, .in_fiber = true };
	int r = paths_socket_address(run, "agent.sock", address, &a->directory_fd, report);
	return r < 0 ? r : rpc_listen(a->env, address, &o, &a->server, report);
}

static void stop(void *arg, int signal_number)
{
	struct agent *a = arg;
	log_line("signal %d: ending; devices stay", signal_number);
	a->ending = true;
	fiber_cond_wake(&a->end);
}

/* ---- ending ----
 *
 * Whoever asked for something is heard out for DRAIN_NS; but what he asked for may wait for a tapdisk that is starting, or for a catalog that
 * doesn't answer, as long as that takes. Meanwhile nobody could start another agent, and nothing here is needed by anybody: it could
 * have been killed as well. */

static void late(struct job *j)
{
	struct agent *a = container_of(j, struct agent, late_job);
	if (j->status == 0) {
		log_line("ended without waiting any longer for what it had been asked to do; devices stay");
		_exit(0);
	}
	a->may_be_late = false;
	fiber_cond_wake(&a->end);
}

static void late_begin(struct agent *a)
{
	a->may_be_late = true;
	timer_init(&a->late_timer);
	job_init(&a->late_job, &a->env->loop);
	timer_start(a->env, &a->late_timer, END_NS, &a->late_job);
	job_then(&a->late_job, late);
}

static void late_end(struct agent *a)
{
	timer_cancel(a->env, &a->late_timer);
	while (a->may_be_late)
		fiber_cond_wait(&a->env->loop, &a->end);
}

static int serve(struct agent *a, struct report *report)
{
	struct process_signals signals;
	char run[PATHS_MAX], socket[PATHS_MAX];
	int r;
	if ((r = make_directories(a, run, report)) < 0 || (r = take_lock(a, report)) < 0 ||
	    (r = taps_scan(&a->taps, report)) < 0 || (r = listen_on(a, run, report)) < 0)
		return r;
	if ((r = process_signals_start(&signals, a->env, stop, a)) < 0)
		return report_set(report, r, "signals: %s", strerror(-r));
	paths_agent_socket(a->options->root, socket);
	log_line("running as pid %d, %u devices, on %s", (int)getpid(), taps_device_count(&a->taps), socket);
	struct rpc_server_options peers = { .service = "peer", .handle = agent_peer_handle, .arg = a, .in_fiber = true, .connections_max = PEERS_MAX,
					    .pool_bytes = PEER_POOL_BYTES };
	authority_start(&a->authority, a->env, a->options->root);
	registry_start(&a->registry, a->env, a->options->root, &peers);
	ready_good(a->options->ready_fd, "{}");
	while (!a->ending)
		fiber_cond_wait(&a->env->loop, &a->end);
	late_begin(a);
	rpc_server_linger(a->server, LINGER_NS);
	rpc_server_close(a->server, DRAIN_NS);
	a->server = NULL;
	registry_end(&a->registry, DRAIN_NS);
	authority_end(&a->authority);
	late_end(a);
	unlink(socket);
	process_signals_stop(&signals);
	return 0;
}

int agent_run(struct env *env, const struct agent_options *options, struct report *report)
{
	char log[PATHS_MAX];
	struct agent *a = calloc(1, sizeof *a);
	if (!a)
		return -ENOMEM;
	a->env = env;
	a->options = options;
	a->lock_fd = a->directory_fd = -1;
	a->start_ns = env_wall_ns(env);
	fiber_cond_init(&a->end);
	taps_init(&a->taps, env, options->root);
	log_start(env, "aquifer-agent");
	paths_agent_log(options->root, log);
	log_limit(log);
	env_linux_raise_files();
	int r = serve(a, report);
	if (r < 0)
		ready_bad(options->ready_fd, r, report_text(report, r));
	rpc_server_close(a->server, 0);
	taps_close(&a->taps);
	if (a->directory_fd >= 0)
		close(a->directory_fd);
	if (a->lock_fd >= 0)
		close(a->lock_fd);
	if (!a->registry.running && !a->authority.running)
		free(a);
	return r;
}
