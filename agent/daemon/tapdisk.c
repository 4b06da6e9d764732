#include "agent/daemon/tapdisk.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/daemon/log.h"
#include "agent/daemon/paths.h"
#include "agent/daemon/process.h"
#include "agent/daemon/spawn.h"
#include "parallax/volume/places.h"

#define DRAIN_NS (2 * NS_PER_S)
#define LINGER_NS (500 * NS_PER_MS)
/* How often a tapdisk that was told to end looks whether its device is still in use, and whether it was told again. */
#define BUSY_POLL_NS NS_PER_S
#define AGAIN_POLL_NS (50 * NS_PER_MS)

/* ---- up ---- */

static void path_in(const struct tapdisk *t, const char *file, char ret[PATHS_MAX])
{
	snprintf(ret, PATHS_MAX, "%s/%s", t->options->run_dir, file);
}

static int open_graph(struct tapdisk *t, struct report *report)
{
	const struct tapdisk_options *o = t->options;
	char holder[128], control[PATHS_MAX] = "";
	snprintf(holder, sizeof holder, "device %s (tapdisk pid %d)", t->state.name, (int)getpid());
	if (o->run_dir)
		snprintf(control, sizeof control, "unix:%s/control.sock", o->run_dir);
	bool writes = false;
	for (unsigned i = 0; i < o->plan->device_count; i++)
		writes |= !o->plan->device[i].read_only;
	struct graph_how how = { .holder = holder, .pid = (uint64_t)getpid(), .control = o->run_dir ? control : NULL, .root = o->root,
				 .read_only = o->read_only || !writes, .force = o->force, .accept_flushed = o->accept_flushed,
				 .incoming = o->incoming, .incoming_ms = o->incoming_ms };
	int r = graph_open(t->env, o->plan->graph, &how, &t->graph, report);
	if (r == 0)
		o->plan->graph = NULL; /* the instance's now */
	return r;
}

static struct blk_node *node_of(struct tapdisk *t, unsigned index)
{
	return graph_of(t->graph)->export_count ? graph_export_node(t->graph, index) : graph_root_node(t->graph);
}

static int open_export(struct tapdisk *t, unsigned index, const char *run_dir, struct report *report)
{
	const struct plan_device *d = &t->options->plan->device[index];
	struct blk_node *node = node_of(t, index);
	uint64_t size = node->info.size;
	struct export_how how = { .name = d->name, .address = d->address[0] ? d->address : NULL, .run_dir = run_dir,
				  .read_only = d->read_only || node->info.read_only, .queue_depth = d->queue_depth, .log = log_line };
	int r = d->export->open(t->env, node, &how, &t->export[index], report);
	if (r < 0)
		return report_prefix(report, r, "%s %s", d->export->name, d->name);
	struct tap_device *s = &t->state.device[index];
	snprintf(s->name, sizeof s->name, "%s", d->name);
	snprintf(s->export, sizeof s->export, "%s", d->export->name);
	snprintf(s->device, sizeof s->device, "%s", t->export[index]->device);
	snprintf(s->node, sizeof s->node, "%s", node->name);
	t->size[index] = size;
	return 0;
}

/* Sockets that exports make live there; by hand, with an address for each, nobody needs it. */
static int exports_directory(struct tapdisk *t, char ret[PATHS_MAX], struct report *report)
{
	paths_exports(t->options->root, ret);
	for (unsigned i = 0; i < t->options->plan->device_count; i++)
		if (!t->options->plan->device[i].address[0])
			return paths_make(ret, report);
	return 0;
}

static int listen_on(struct tapdisk *t, struct report *report)
{
	char address[PATHS_MAX];
	struct rpc_server_options o = { .service = "tapdisk", .handle = tapdisk_handle, .arg = t, .in_fiber = true };
	int r = paths_socket_address(t->options->run_dir, "control.sock", address, &t->directory_fd, report);
	return r < 0 ? r : rpc_listen(t->env, address, &o, &t->server, report);
}

static int publish(struct tapdisk *t, struct report *report)
{
	char path[PATHS_MAX], *text = tap_state_encode(&t->state);
	int r = text ? 0 : -ENOMEM;
	if (r == 0 && t->options->run_dir) {
		path_in(t, "status", path);
		r = state_file_write(path, text, strlen(text));
		if (r < 0)
			report_set(report, r, "%s: %s", path, strerror(-r));
	}
	if (r == 0 && t->options->ready_fd >= 0 && ready_good(t->options->ready_fd, text) < 0)
		r = report_set(report, -EPIPE, "who started this tapdisk is gone");
	free(text);
	if (r == 0 && t->options->up)
		t->options->up(t->options->arg, &t->state);
	return r;
}

static int describe_self(struct tapdisk *t)
{
	const struct plan *p = t->options->plan;
	t->state.pid = getpid();
	t->state.read_only = t->options->read_only;
	snprintf(t->state.name, sizeof t->state.name, "%s", p->device[0].name);
	env_boot_id(t->env, t->state.boot_id);
	t->state.device_count = p->device_count;
	t->state.graph = graph_print(p->graph);
	return t->state.graph ? process_start_ticks(t->state.pid, &t->state.start_ticks) : -ENOMEM;
}

static int start(struct tapdisk *t, struct report *report)
{
	char exports[PATHS_MAX];
	int r = describe_self(t);
	if (r == 0 && t->options->run_dir)
		r = state_lock(t->options->run_dir, &t->lock_fd, report);
	if (r == 0)
		r = exports_directory(t, exports, report);
	if (r == 0)
		r = open_graph(t, report);
	for (unsigned i = 0; r == 0 && i < t->options->plan->device_count; i++)
		r = open_export(t, i, exports, report);
	if (r == 0 && t->options->run_dir)
		r = listen_on(t, report);
	if (r == 0)
		tapdisk_condition_look(t);
	if (r == 0 && t->lock_fd >= 0)
		state_beat(t->lock_fd, env_now_ns(t->env));
	return r == 0 ? publish(t, report) : r;
}

/* ---- down ---- */

static unsigned open_count(const struct tapdisk *t)
{
	unsigned n = 0;
	for (unsigned i = 0; i < t->state.device_count; i++)
		n += t->export[i] != NULL;
	return n;
}

/* FIBER. What was written is durable; then closing can be cut short without losing anything. */
static int flush_graph(struct tapdisk *t)
{
	int status = 0;
	for (unsigned i = 0; i < t->state.device_count; i++) {
		struct blk_node *node = node_of(t, i);
		int r = node->info.read_only || !tapdisk_serves(node) ? 0 : blk_op_wait(node, BLK_FLUSH, 0, 0, 0);
		if (status == 0)
			status = r;
	}
	t->flushed = status == 0;
	return status;
}

/* FIBER. With force a flush that fails is no reason to say so: who asked gives up what wasn't flushed. */
static void close_graph(struct tapdisk *t, bool force, struct report *report)
{
	struct graph_instance *graph = t->graph;
	int flushed = flush_graph(t);
	t->graph = NULL; /* nobody looks at nodes that are being closed */
	t->closed_status = graph_close(graph);
	if (t->closed_status == 0 && !force)
		t->closed_status = flushed;
	if (t->closed_status == -EPERM)
		report_set(report, -EPERM, "the device is closed; another holder had taken its volume over, so what was written since is not in it");
	else if (t->closed_status == -EFBIG && t->flushed)
		report_set(report, -EFBIG, "the device is closed and nothing is lost, but its last checkpoint could not be made: its space table would be too long (delete snapshots; the next attach reads the log since the one before)");
	else if (t->closed_status < 0)
		report_set(report, t->closed_status, "the device is closed, but not all could be written: %s",
			   strerror(-t->closed_status));
}

static void rewrite_status(struct tapdisk *t)
{
	struct tap_state left = t->state;
	char path[PATHS_MAX], *text;
	if (!t->options->run_dir)
		return;
	left.device_count = 0;
	for (unsigned i = 0; i < t->state.device_count; i++)
		if (t->export[i])
			left.device[left.device_count++] = t->state.device[i];
	path_in(t, "status", path);
	text = tap_state_encode(&left);
	int r = text ? state_file_write(path, text, strlen(text)) : -ENOMEM;
	if (r < 0)
		log_line("%s: %s; an agent that starts later will show a device that is gone", path, strerror(-r));
	free(text);
}

static int close_locked(struct tapdisk *t, unsigned index, bool force, struct report *report)
{
	struct export *e = t->export[index];
	if (!e)
		return 0;
	tapdisk_condition_let_go(t);
	int r = e->driver->close(e, force, report);
	if (r < 0)
		return r;
	t->export[index] = NULL;
	if (open_count(t)) {
		rewrite_status(t);
		return 0;
	}
	close_graph(t, force, report);
	t->over = true;
	fiber_cond_wake(&t->end);
	return t->closed_status;
}

/* FIBER. */
static int close_one(struct tapdisk *t, unsigned index, bool force, struct report *report)
{
	fiber_mutex_lock(&t->env->loop, &t->closing);
	while (t->controls > 0)
		fiber_cond_wait(&t->env->loop, &t->controlled);
	int r = close_locked(t, index, force, report);
	fiber_mutex_unlock(&t->closing);
	return r;
}

int tapdisk_close(struct tapdisk *t, unsigned index, bool force, struct report *report)
{
	bool last = t->export[index] && open_count(t) == 1;
	if (last && force)
		tapdisk_end_begin(t, /* forced= */ true);
	int r = close_one(t, index, force, report);
	if (last && force && !t->over)
		tapdisk_end_over(t);
	return r;
}

/* One try to end: every device that lets go is closed. */
static void try_to_end(struct tapdisk *t, bool force, bool say)
{
	for (unsigned i = 0; i < t->state.device_count; i++) {
		struct report why = { 0 };
		tapdisk_end_begin(t, force);
		int r = close_one(t, i, force, &why);
		if (r < 0 && t->over)
			log_line("%s", report_text(&why, r));
		else if (r < 0 && say)
			log_line("told to end, but: %s; it ends when that is over (a second signal ends it now)", report_text(&why, r));
	}
}

static void on_signal(void *arg, int signal_number)
{
	struct tapdisk *t = arg;
	if (signal_number == SIGHUP && t->terms) /* the kernel's and the shell's, for one terminal */
		return;
	log_line("signal %d: %s", signal_number, t->terms ? "ending now" : "ending");
	t->terms++;
	tapdisk_end_begin(t, /* forced= */ t->terms > 1); /* whatever it is at */
	fiber_cond_wake(&t->end);
}

static void serve(struct tapdisk *t)
{
	unsigned said = 0;
	while (!t->over) {
		if (t->terms == 0) {
			fiber_cond_wait(&t->env->loop, &t->end);
			continue;
		}
		unsigned terms = t->terms;
		try_to_end(t, terms > 1, said != terms);
		said = terms;
		if (t->over || t->terms != terms)
			continue;
		tapdisk_end_over(t); /* it is in use: that may last */
		for (uint64_t slept = 0; t->terms == terms && slept < BUSY_POLL_NS; slept += AGAIN_POLL_NS)
			fiber_sleep(&t->env->loop, AGAIN_POLL_NS);
	}
}

/* Also after a start that failed half-way. */
static void finish(struct tapdisk *t, struct report *report)
{
	tapdisk_condition_let_go(t);
	static const char *const files[] = { "status", "control.sock", "lock" };
	char path[PATHS_MAX];
	for (unsigned i = 0; i < t->state.device_count; i++)
		if (t->export[i])
			t->export[i]->driver->close(t->export[i], /* force= */ true, NULL);
	if (t->graph)
		close_graph(t, /* force= */ true, report);
	/* Without a status its end is an orderly one. */
	for (size_t i = 0; t->options->run_dir && i < 2; i++) {
		path_in(t, files[i], path);
		unlink(path);
	}
	rpc_server_linger(t->server, LINGER_NS);
	rpc_server_close(t->server, DRAIN_NS);
	if (t->directory_fd >= 0)
		close(t->directory_fd);
	if (t->lock_fd >= 0)
		close(t->lock_fd);
	tap_state_free(&t->state);
}

int tapdisk_run(struct env *env, const struct tapdisk_options *options, struct report *report)
{
	struct tapdisk *t = calloc(1, sizeof *t);
	struct process_signals signals;
	if (!t)
		return -ENOMEM;
	t->env = env;
	t->options = options;
	t->lock_fd = t->directory_fd = -1;
	fiber_mutex_init(&t->closing);
	fiber_mutex_init(&t->resizing);
	fiber_cond_init(&t->controlled);
	fiber_cond_init(&t->end);
	int r = process_signals_start(&signals, env, on_signal, t);
	if (r == 0) {
		r = start(t, report);
		if (r == 0) {
			tapdisk_trouble_watch(t);
			serve(t);
			tapdisk_trouble_end(t);
		}
		if (r < 0 && r != -EPIPE)
			ready_bad(options->ready_fd, r, report_text(report, r));
		finish(t, report);
		process_signals_stop(&signals);
		tapdisk_end_stop(t);
	}
	if (r == 0)
		r = t->closed_status;
	free(t);
	return r;
}
