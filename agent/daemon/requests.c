/* What the agent does for the command line. Each request is a fiber of its own; a tap that it
 * looks at is `used` meanwhile, since anything may have ended across a suspension. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/daemon/agent.h"
#include "agent/daemon/answer.h"
#include "agent/daemon/client.h"
#include "agent/daemon/launch.h"
#include "agent/daemon/log.h"
#include "agent/daemon/memory.h"
#include "agent/daemon/spawn.h"
#include "agent/exports/loop_device.h"
#include "core/option.h"
#include "core/version.h"

/* A graph opens in well under a second, but a volume may have 256 MiB of log to replay, from a slow disk. */
#define START_NS (120 * NS_PER_S)
#define START_FORCED_NS (3 * NS_PER_S)
#define CLOSE_NS (120 * NS_PER_S)
#define CLOSE_FORCED_NS (10 * NS_PER_S)
#define END_NS (10 * NS_PER_S)
#define KILL_NS (2 * NS_PER_S) /* a process that can die has died by then */
#define SHOW_NS (10 * NS_PER_S)

/* ---- attach ---- */

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
	r = spawn_wait(a->env, ready, START_NS, &text, report);
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

static json_t *tap_json(const struct tap *tap)
{
	json_t *j = json_array();
	for (unsigned i = 0; i < tap->state.device_count; i++)
		json_array_append_new(j, tap_device_json(tap, i));
	return j;
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

static int attach(struct agent *a, struct rpc_request *r, json_t **ret, struct report *report)
{
	Aquifer__AttachCall *q = (void *)rpc_request_body(r, &aquifer__attach_call__descriptor);
	if (!q)
		return -EBADMSG;
	const char *export = q->export;
	struct plan_how how = { .name = q->name, .exports = &export, .export_count = export[0] ? 1 : 0, .listen = q->listen,
				.read_only = q->read_only };
	struct plan plan;
	struct tap *tap;
	int status = plan_make(r->payload, r->payload_bytes, &how, &plan, report);
	if (status < 0)
		return status;
	char *text = graph_print(plan.graph);
	await_killed(a, &plan);
	status = text ? check_memory(a, plan.graph, report) : -ENOMEM;
	if (status == 0)
		status = taps_reserve(&a->taps, &plan, &tap, report);
	if (status == 0) {
		struct launch_tapdisk l = { .root = a->options->root, .directory = tap->directory, .name = plan.device[0].name,
					    .graph = text, .read_only = q->read_only, .force = q->force,
					    .accept_flushed = q->accept_flushed };
		l.export = plan.graph->export_count ? NULL : plan.device[0].export->name;
		l.listen = q->listen[0] ? q->listen : NULL;
		status = start_tapdisk(a, tap, &l, report);
		if (status == 0)
			*ret = tap_json(tap);
		tap_unuse(tap);
	}
	free(text);
	plan_free(&plan);
	return status;
}

/* ---- detach ---- */

/* FIBER. One call to a tapdisk. */
static int ask_tapdisk(struct agent *a, struct tap *tap, const struct client_call *call, char **ret_text,
		       struct report *report)
{
	struct rpc_client *client;
	int r = client_connect(a->env, tap->directory, "control.sock", "tapdisk", &client, report);
	if (r < 0)
		return report_set(report, r, "the tapdisk (pid %d) doesn't answer", (int)tap->state.pid);
	r = client_call(client, call, ret_text, report);
	rpc_close(client);
	return r == -ENOTCONN ? report_set(report, r, "its tapdisk (pid %d) closed the connection (see %s/log)", (int)tap->state.pid, tap->directory) : r;
}

/* On a worker thread: opening a device may wait for somebody who waits for the hung tapdisk. */
static int abort_loop(void *device)
{
	return loop_connection_abort(device, NULL);
}

/* FIBER. Kills a tapdisk that doesn't answer. One that can't even die (it waits for a disk) still holds
 * up the users of its loop devices: their connections are ended for it. */
static void kill_hung(struct agent *a, struct tap *tap)
{
	tap_kill(tap);
	if (tap_wait_end(tap, KILL_NS) == 0)
		return;
	for (unsigned i = 0; i < tap->state.device_count; i++)
		if (strcmp(tap->state.device[i].export, "loop") == 0)
			env_offload_wait(a->env, abort_loop, tap->state.device[i].device);
	tap_wait_end(tap, END_NS);
}

/* After CLOSE: which devices stay? With none, wait for its end. */
static int after_close(struct agent *a, struct tap *tap, const char *name, const char *text, bool force, struct report *report)
{
	json_t *left = json_loads(text, 0, NULL);
	size_t count = json_array_size(left);
	json_decref(left);
	for (unsigned i = 0; count && i < tap->state.device_count; i++)
		if (!strcmp(tap->state.device[i].name, name)) {
			tap_forget_device(tap, i);
			return 0;
		}
	if (tap_wait_end(tap, force ? CLOSE_FORCED_NS : END_NS) == 0) {
		tap_forget(tap);
		return 0;
	}
	if (!force)
		return report_set(report, -ETIMEDOUT, "the device is closed, but its tapdisk (pid %d) doesn't end (detach --force kills it)",
				  (int)tap->state.pid);
	kill_hung(a, tap);
	tap_forget(tap);
	return 0;
}

/* FIBER. A tapdisk that is just starting is waited for: whoever asked for it may be gone, and then nobody else would detach
 * it. With force, one that takes long is killed, and who waits for it is told. */
static int await_start(struct agent *a, struct tap *tap, bool force, struct report *report)
{
	uint64_t until = env_now_ns(a->env) + (force ? START_FORCED_NS : START_NS);
	tap_use(tap);
	while (tap->listed && tap->phase == TAP_STARTING && env_now_ns(a->env) < until)
		fiber_sleep(&a->env->loop, 10 * NS_PER_MS);
	bool starting = tap->listed && tap->phase == TAP_STARTING;
	if (starting && force) {
		tap_kill(tap);
		tap_wait_end(tap, END_NS);
	}
	tap_unuse(tap);
	return starting && !force ? report_set(report, -EBUSY, "it is still starting (try again, or detach --force)") : 0;
}

/* FIBER. `name` is gone afterwards, or the report says why not. */
static int detach_one(struct agent *a, const char *name, bool force, struct report *report)
{
	unsigned index;
	struct tap *tap = taps_find(&a->taps, name, &index);
	if (tap && tap->phase == TAP_STARTING) {
		int r = await_start(a, tap, force, report);
		if (r < 0)
			return r;
		tap = taps_find(&a->taps, name, &index);
	}
	if (!tap || tap->phase == TAP_STARTING)
		return 0; /* gone meanwhile; or killed, and who started it cleans up */
	if (tap->phase == TAP_DIED) {
		tap_forget_device(tap, index);
		return 0;
	}
	char device[64];
	snprintf(device, sizeof device, "%s", name);
	Aquifer__CloseCall q = AQUIFER__CLOSE_CALL__INIT;
	q.device = device;
	q.force = force;
	struct client_call call = { .method = AQUIFER__TAPDISK_METHOD__TAPDISK_CLOSE, .request = &q.base,
				    .deadline_ns = force ? CLOSE_FORCED_NS : CLOSE_NS };
	char *text = NULL;
	tap_use(tap);
	bool last = tap->state.device_count == 1;
	if (last)
		tap->phase = TAP_STOPPING;
	int r = ask_tapdisk(a, tap, &call, &text, report);
	if (r == 0) {
		r = after_close(a, tap, device, text, force, report);
	} else if (tap->pidfd < 0 || (r == -ENOTCONN && tap_wait_end(tap, NS_PER_S) == 0)) {
		tap_forget(tap); /* it died meanwhile: gone is gone */
		r = 0;
	} else if (force && (r == -ETIMEDOUT || r == -ENOTCONN)) {
		log_line("tapdisk %s (pid %d) doesn't answer and is killed, as asked", tap->state.name, (int)tap->state.pid);
		kill_hung(a, tap);
		tap_forget(tap);
		r = 0;
	}
	if (r < 0 && last && tap->phase == TAP_STOPPING)
		tap->phase = TAP_RUNNING;
	free(text);
	tap_unuse(tap);
	return r;
}

static int append_name(char ***names, size_t *count, const char *name)
{
	char **more = realloc(*names, (*count + 1) * sizeof **names);
	if (!more)
		return -ENOMEM;
	*names = more;
	more[*count] = strdup(name);
	return more[*count] ? (++*count, 0) : -ENOMEM;
}

/* Names, not taps: they come and go while the fiber waits. */
static int names_to_detach(struct agent *a, const Aquifer__DetachCall *q, char ***names, size_t *count,
			   struct report *report)
{
	unsigned index;
	int r = 0;
	if (!q->all) {
		struct tap *tap = taps_find(&a->taps, q->device, &index);
		if (!tap)
			return report_set(report, -ENOENT, "there is no device %s (aquifer list shows them)", q->device);
		return append_name(names, count, tap->state.device[index].name);
	}
	link_for(l, &a->taps.list) {
		struct tap *tap = container_of(l, struct tap, link);
		for (unsigned i = 0; r == 0 && i < tap->state.device_count; i++)
			r = append_name(names, count, tap->state.device[i].name);
	}
	return r;
}

/* Names the device where that isn't said already, and the cure. */
static void tell_refusal(const Aquifer__DetachCall *q, const char *name, int status, const char *why, struct report *report)
{
	size_t n = strlen(name);
	bool named = !q->all || (!strncmp(why, name, n) && why[n] == ' ');
	report_set(report, status, "%s%s%s%s", named ? "" : name, named ? "" : ": ", why,
		   status == -EBUSY ? " (end that first, or detach --force)" : "");
}

static int detach(struct agent *a, struct rpc_request *r, json_t **ret, struct report *report)
{
	Aquifer__DetachCall *q = (void *)rpc_request_body(r, &aquifer__detach_call__descriptor);
	if (!q)
		return -EBADMSG;
	char **names = NULL;
	size_t count = 0, failed = 0;
	int status = names_to_detach(a, q, &names, &count, report);
	json_t *gone = json_array();
	for (size_t i = 0; status == 0 && i < count; i++) {
		struct report why = { 0 };
		int one = detach_one(a, names[i], q->force, &why);
		if (one == 0) {
			json_array_append_new(gone, json_string(names[i]));
			continue;
		}
		if (failed++ == 0)
			tell_refusal(q, names[i], one, report_text(&why, one), report);
	}
	if (failed) {
		status = -EBUSY;
		if (failed > 1)
			snprintf(report->text + strlen(report->text), sizeof report->text - strlen(report->text),
				 " (and %zu more of %zu)", failed - 1, count);
	}
	for (size_t i = 0; i < count; i++)
		free(names[i]);
	free(names);
	*ret = gone;
	return status;
}

/* ---- looking ---- */

static json_t *list_json(struct agent *a)
{
	json_t *j = json_array();
	link_for(l, &a->taps.list) {
		struct tap *tap = container_of(l, struct tap, link);
		for (unsigned i = 0; i < tap->state.device_count; i++)
			json_array_append_new(j, tap_device_json(tap, i));
	}
	return j;
}

static json_t *status_json(struct agent *a)
{
	char socket[PATHS_MAX];
	paths_agent_socket(a->options->root, socket);
	return json_pack("{s:s, s:i, s:s, s:I, s:i, s:s}", "state", "running", "pid", (int)getpid(), "version", AQ_VERSION,
			 "started_ns", (json_int_t)a->start_ns, "devices", (int)taps_device_count(&a->taps), "socket", socket);
}

static int show(struct agent *a, struct rpc_request *r, char **ret_text, struct report *report)
{
	Aquifer__DeviceCall *q = (void *)rpc_request_body(r, &aquifer__device_call__descriptor);
	if (!q)
		return -EBADMSG;
	struct tap *tap = taps_find(&a->taps, q->device, NULL);
	if (!tap)
		return report_set(report, -ENOENT, "there is no device %s (aquifer list shows them)", q->device);
	if (tap->phase == TAP_DIED)
		return report_set(report, -ESRCH, "its tapdisk died: %s (attach it again)", tap->died);
	struct client_call call = { .method = AQUIFER__TAPDISK_METHOD__TAPDISK_SHOW, .deadline_ns = SHOW_NS };
	tap_use(tap);
	int status = ask_tapdisk(a, tap, &call, ret_text, report);
	tap_unuse(tap);
	return status;
}

/* ---- dispatch ---- */

void agent_handle(void *arg, struct rpc_request *r)
{
	struct agent *a = arg;
	struct report report = { 0 };
	json_t *j = NULL;
	char *text = NULL;
	int status = 0;
	bool end = false;
	if (r->peer_uid != 0 && r->peer_uid != geteuid())
		status = report_set(&report, -EPERM, "only the agent's user and root may do that");
	else if (a->ending)
		status = report_set(&report, -ESHUTDOWN, "the agent is ending (try again)");
	else if (r->method == AQUIFER__AGENT_METHOD__AGENT_ATTACH)
		status = attach(a, r, &j, &report);
	else if (r->method == AQUIFER__AGENT_METHOD__AGENT_DETACH)
		status = detach(a, r, &j, &report);
	else if (r->method == AQUIFER__AGENT_METHOD__AGENT_LIST)
		j = list_json(a);
	else if (r->method == AQUIFER__AGENT_METHOD__AGENT_STATUS)
		j = status_json(a);
	else if (r->method == AQUIFER__AGENT_METHOD__AGENT_SHOW)
		status = show(a, r, &text, &report);
	else if (r->method == AQUIFER__AGENT_METHOD__AGENT_STOP)
		j = list_json(a), end = true;
	else
		status = report_set(&report, -EOPNOTSUPP, "this agent doesn't know method %u (is it older than the command?)",
				    r->method);
	if (j && !text)
		text = json_dumps(j, JSON_COMPACT);
	json_decref(j);
	control_answer(r, status, text, &report);
	free(text);
	if (end) {
		log_line("told to stop; devices stay");
		a->ending = true;
		fiber_cond_wake(&a->end);
	}
}
