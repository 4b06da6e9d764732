/* How the agent starts a tapdisk: names reserved, memory looked at, the process started and waited for until it is up. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/daemon/agent.h"
#include "agent/daemon/launch.h"
#include "agent/daemon/log.h"
#include "agent/daemon/memory.h"
#include "agent/daemon/spawn.h"

#define END_NS (10 * NS_PER_S)
#define UNKNOWN_END_NS (2 * NS_PER_S)

/* Nothing of a tapdisk that failed stays: process, directory, names. */
static void undo_start(struct tap *tap)
{
	if (tap_wait_end(tap, NS_PER_S) < 0) {
		tap_kill(tap);
		tap_wait_end(tap, END_NS);
	}
	tap_forget(tap);
}

static int start_failed(struct tap *tap, int r, struct report *report)
{
	bool silent = r == -ECHILD;
	if (r == -ETIMEDOUT)
		tap_kill(tap);
	if (silent && tap_wait_end(tap, NS_PER_S) == 0) {
		report_set(report, r, "the tapdisk %s", tap->died[0] ? tap->died : "ended without a word");
	} else if (silent) {
		report_set(report, r, "the tapdisk said nothing that makes sense (is it another version?)");
		tap_kill(tap);
	}
	undo_start(tap);
	return silent ? -EIO : r;
}

/* FIBER. Runs the tapdisk of a reserved tap until it is up. */
static int start_tapdisk(struct agent *a, struct tap *tap, const struct launch_tapdisk *how, struct report *report)
{
	char *text = NULL;
	pid_t pid;
	int ready, r = launch_tapdisk(how, &pid, &ready, report);
	if (r < 0) {
		tap_forget(tap);
		return r;
	}
	if ((r = tap_watch(tap, pid)) < 0) {
		close(ready);
		tap_forget(tap);
		return report_set(report, r, "the tapdisk can't be watched: %s", strerror(-r));
	}
	r = spawn_wait(a->env, ready, AGENT_START_NS, &text, report);
	close(ready);
	struct tap_state s = { 0 };
	if (r == 0)
		r = tap_state_decode(text, strlen(text), &s, report);
	free(text);
	if (r == 0 && (s.device_count != tap->state.device_count || s.pid != pid)) {
		tap_state_free(&s);
		r = report_set(report, -EPROTO, "the tapdisk says something else than it was asked for");
	}
	if (r < 0)
		return start_failed(tap, r, report);
	tap->state = s;
	if (tap->pidfd < 0) { /* ready, and dead right after it */
		tap_forget(tap);
		return report_set(report, -EIO, "the tapdisk %s", tap->died);
	}
	tap->phase = TAP_RUNNING;
	log_line("tapdisk %s (pid %d) serves %s", s.name, (int)s.pid, s.graph);
	return 0;
}

/* FIBER. A tapdisk that was killed a moment ago may still be ending: its names are free when it has. */
static void await_killed(struct agent *a, const struct plan *plan)
{
	for (unsigned i = 0; i < plan->device_count; i++) {
		struct tap *tap = taps_find(&a->taps, plan->device[i].name, NULL);
		if (!tap || tap->pidfd < 0 || !process_is_ending(tap->state.pid))
			continue;
		tap_use(tap);
		tap_wait_end(tap, END_NS);
		tap_unuse(tap);
	}
}

/* FIBER. taps_reserve(). One of which only the lock is known may be ending, too: it was killed, and its status is stale. */
static int reserve(struct agent *a, const struct plan *plan, struct tap **ret_tap, struct report *report)
{
	uint64_t until = env_now_ns(a->env) + UNKNOWN_END_NS;
	int r;
	while ((r = taps_reserve(&a->taps, plan, ret_tap, report)) == -EBUSY && env_now_ns(a->env) < until) {
		if (fiber_sleep(&a->env->loop, 10 * NS_PER_MS) < 0)
			break;
		report->text[0] = '\0'; /* what comes of it may be something else */
	}
	return r;
}

/* One tapdisk too many would make the kernel kill one that serves. Those that are just starting have not taken theirs yet. */
static int check_memory(struct agent *a, const struct graph *g, struct report *report)
{
	uint64_t need = memory_need(g), room = memory_room("/proc", "/sys/fs/cgroup"), starting = 0;
	char need_text[24], room_text[24];
	link_for(l, &a->taps.list)
		starting += container_of(l, struct tap, link)->phase == TAP_STARTING;
	if (room / (starting + 1) >= need)
		return 0;
	return report_set(report, -ENOMEM, "there is no memory for one more tapdisk: it may need %s, and %s are left%s (detach something, or allow more)",
			  format_size_human(need, need_text), format_size_human(room, room_text), starting ? ", for others too that are starting" : "");
}

/* A volume by itself can come from another host; what else a graph has is this host's own. */
static int check_incoming(const struct graph *g, struct report *report)
{
	return plan_volume(g) ? 0 : report_set(report, -EINVAL, "only a volume by itself can be attached before its holder lets go of it");
}

int agent_attach(struct agent *a, const Aquifer__AttachCall *q, const char *graph, size_t length, struct tap **ret_tap, struct report *report)
{
	const char *export = q->export;
	struct plan_how how = { .name = q->name, .exports = &export, .export_count = export[0] ? 1 : 0, .listen = q->listen,
				.read_only = q->read_only };
	struct plan plan;
	struct tap *tap;
	int status = plan_make(graph, length, &how, &plan, report);
	if (status < 0)
		return status;
	char *text = graph_print(plan.graph);
	taps_refresh(&a->taps);
	await_killed(a, &plan);
	status = !text ? -ENOMEM : q->incoming ? check_incoming(plan.graph, report) : 0;
	if (status == 0)
		status = check_memory(a, plan.graph, report);
	if (status == 0)
		status = reserve(a, &plan, &tap, report);
	if (status == 0) {
		struct launch_tapdisk l = { .root = a->options->root, .directory = tap->directory, .name = plan.device[0].name,
					    .graph = text, .read_only = q->read_only, .force = q->force,
					    .accept_flushed = q->accept_flushed, .incoming = q->incoming,
					    .incoming_ms = q->incoming_ms };
		l.export = plan.graph->export_count ? NULL : plan.device[0].export->name;
		l.listen = q->listen[0] ? q->listen : NULL;
		status = start_tapdisk(a, tap, &l, report);
		if (status == 0)
			*ret_tap = tap;
		else
			tap_unuse(tap);
	}
	free(text);
	plan_free(&plan);
	return status;
}
