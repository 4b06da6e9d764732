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
#include "agent/daemon/log.h"
#include "agent/exports/loop_device.h"
#include "core/array.h"
#include "core/option.h"
#include "core/version.h"

#define START_FORCED_NS (3 * NS_PER_S)
#define CLOSE_NS (120 * NS_PER_S)
#define CLOSE_FORCED_NS (10 * NS_PER_S)
#define END_NS (10 * NS_PER_S)
#define KILL_NS (2 * NS_PER_S) /* a process that can die has died by then */
#define SHOW_NS (10 * NS_PER_S)

/* ---- attach ---- */

static void add_devices(json_t *to, const struct tap *tap)
{
	for (unsigned i = 0; i < tap->state.device_count; i++)
		json_array_append_new(to, tap_device_json(tap, i));
}

static int attach(struct agent *a, struct rpc_request *r, json_t **ret, struct report *report)
{
	Aquifer__AttachCall *q = (void *)rpc_request_body(r, &aquifer__attach_call__descriptor);
	struct tap *tap;
	if (!q)
		return -EBADMSG;
	int status = agent_attach(a, q, r->payload, r->payload_bytes, &tap, report);
	if (status == 0) {
		*ret = json_array();
		add_devices(*ret, tap);
		tap_unuse(tap);
	}
	return status;
}

/* ---- detach ---- */

/* Somebody removed its run directory: nothing can be said to it any more but by signals. (A tapdisk that ends leaves its lock.) */
static bool is_cut_off(const struct tap *tap)
{
	char path[PATHS_MAX];
	return (size_t)snprintf(path, sizeof path, "%s/lock", tap->directory) < sizeof path && access(path, F_OK) < 0 && errno == ENOENT;
}

/* FIBER. One call to a tapdisk. */
static int ask_tapdisk(struct agent *a, struct tap *tap, const struct client_call *call, char **ret_text, struct report *report)
{
	struct rpc_client *client;
	int r = client_connect(a->env, tap->directory, "control.sock", "tapdisk", &client, report);
	if (r < 0 && tap->pidfd >= 0 && is_cut_off(tap))
		return report_set(report, r, "its run directory %s was removed, so it can't be asked (kill %d has it end in order, when nobody uses it)", tap->directory,
				  (int)tap->state.pid);
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

/* The device is gone, whoever took it away; of a process that is dead the others are to be seen as such. */
static void forget_device(struct tap *tap, const char *name)
{
	for (unsigned i = 0; tap->listed && i < tap->state.device_count; i++)
		if (!strcmp(tap->state.device[i].name, name)) {
			tap_forget_device(tap, i);
			return;
		}
}

static void forget_dead(struct tap *tap, const char *name)
{
	if (tap->phase == TAP_DIED)
		forget_device(tap, name);
	else
		tap_forget(tap);
}

/* A device of the same process that nobody wants to be rid of; NULL: none. */
static const char *in_want(const struct tap *tap)
{
	for (unsigned i = 0; i < tap->state.device_count; i++)
		if (!tap->state.device[i].unwanted)
			return tap->state.device[i].name;
	return NULL;
}

/* FIBER. One device of several takes long to close, by force: is the process alive, and serving others? Then it isn't killed. */
static int spare_others(struct agent *a, struct tap *tap, struct report *report)
{
	struct client_call call = { .method = AQUIFER__TAPDISK_METHOD__TAPDISK_SHOW, .deadline_ns = KILL_NS };
	char *text = NULL;
	if (!in_want(tap) || ask_tapdisk(a, tap, &call, &text, NULL) < 0)
		return 0;
	free(text);
	const char *other = in_want(tap);
	report->text[0] = '\0';
	return other ? report_set(report, -ETIMEDOUT, "it goes when its requests have ended; its tapdisk (pid %d) isn't killed, since it serves %s too (detach that as well, by force)",
				  (int)tap->state.pid, other) : 0;
}

/* After CLOSE: which devices stay? With none, wait for its end. */
static int after_close(struct agent *a, struct tap *tap, const char *name, const char *text, bool force, struct report *report)
{
	json_t *left = json_loads(text, 0, NULL);
	size_t count = json_array_size(left);
	json_decref(left);
	if (count) {
		forget_device(tap, name);
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
	forget_dead(tap, name);
	return 0;
}

/* FIBER. A tapdisk that is just starting is waited for: whoever asked for it may be gone, and then nobody else would detach
 * it. With force, one that takes long is killed, and who waits for it is told. */
static int await_start(struct agent *a, struct tap *tap, bool force, struct report *report)
{
	uint64_t until = env_now_ns(a->env) + (force ? START_FORCED_NS : AGENT_START_NS);
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
int agent_detach(struct agent *a, const char *name, bool force, struct report *report)
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
	tap->state.device[index].unwanted |= force;
	int r = ask_tapdisk(a, tap, &call, &text, report);
	if (r == 0) {
		r = after_close(a, tap, device, text, force, report);
	} else if (tap->pidfd < 0 || (r == -ENOTCONN && tap_wait_end(tap, NS_PER_S) == 0)) {
		forget_dead(tap, device); /* it died meanwhile: gone is gone */
		r = 0;
	} else if (force && (r == -ETIMEDOUT || r == -ENOTCONN)) {
		r = spare_others(a, tap, report);
		if (r == 0) {
			log_line("tapdisk %s (pid %d) doesn't answer and is killed, as asked", tap->state.name, (int)tap->state.pid);
			kill_hung(a, tap);
			forget_dead(tap, device);
		}
	} else if (force && last && tap_wait_end(tap, END_NS) == 0)
		tap_forget(tap); /* it lost something, and says so; the name is free all the same */
	if (r < 0 && last && tap->phase == TAP_STOPPING)
		tap->phase = TAP_RUNNING;
	free(text);
	tap_unuse(tap);
	return r;
}

static int append_name(char ***names, size_t *count, const char *name)
{
	char *text = array_more(names, *count) == 0 ? strdup(name) : NULL;
	if (!text)
		return -ENOMEM;
	(*names)[(*count)++] = text;
	return 0;
}

/* Names, not taps: they come and go while the fiber waits. */
static int names_to_detach(struct agent *a, const Aquifer__DetachCall *q, char ***names, size_t *count,
			   struct report *report)
{
	unsigned index;
	int r = 0;
	taps_refresh(&a->taps);
	if (!q->all) {
		struct tap *tap = taps_find(&a->taps, q->device, &index);
		if (!tap)
			return report_set(report, -ENOENT, "there is no device %s (aquifer list shows them)", q->device);
		return append_name(names, count, tap->state.device[index].name);
	}
	link_for(l, &a->taps.list) {
		struct tap *tap = container_of(l, struct tap, link);
		for (unsigned i = 0; r == 0 && i < tap->state.device_count; i++) {
			r = append_name(names, count, tap->state.device[i].name);
			tap->state.device[i].unwanted |= q->force;
		}
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
		int one = agent_detach(a, names[i], q->force, &why);
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
	taps_refresh(&a->taps);
	link_for(l, &a->taps.list)
		add_devices(j, container_of(l, struct tap, link));
	return j;
}

static json_t *status_json(struct agent *a)
{
	char socket[PATHS_MAX];
	paths_agent_socket(a->options->root, socket);
	taps_refresh(&a->taps);
	return json_pack("{s:s, s:i, s:s, s:I, s:i, s:s}", "state", "running", "pid", (int)getpid(), "version", AQ_VERSION,
			 "started_ns", (json_int_t)a->start_ns, "devices", (int)taps_device_count(&a->taps), "socket", socket);
}

static int show(struct agent *a, struct rpc_request *r, char **ret_text, struct report *report)
{
	Aquifer__DeviceCall *q = (void *)rpc_request_body(r, &aquifer__device_call__descriptor);
	if (!q)
		return -EBADMSG;
	taps_refresh(&a->taps);
	struct tap *tap = taps_find(&a->taps, q->device, NULL);
	if (!tap)
		return report_set(report, -ENOENT, "there is no device %s (aquifer list shows them)", q->device);
	if (tap->phase == TAP_DIED)
		return report_set(report, -ESRCH, "its tapdisk died: %s (attach it again)", tap->died);
	struct client_call call = { .method = AQUIFER__TAPDISK_METHOD__TAPDISK_SHOW, .deadline_ns = SHOW_NS };
	char why[256];
	if (tap_hangs(tap, why, sizeof why))
		return report_set(report, -ETIMEDOUT, "its tapdisk %s", why);
	tap_use(tap);
	int status = ask_tapdisk(a, tap, &call, ret_text, report);
	tap_unuse(tap);
	return status;
}

static int migrate(struct agent *a, struct rpc_request *r, json_t **ret, struct report *report)
{
	Aquifer__MigrateCall *q = (void *)rpc_request_body(r, &aquifer__migrate_call__descriptor);
	return q ? agent_migrate(a, q, ret, report) : -EBADMSG;
}

/* ---- what a command would do itself ---- */

/* The catalog is open here, which saves a command as much as it has to do. */
static int store_call(struct agent *a, struct rpc_request *r, struct report *report)
{
	Aquifer__StoreCall *q = (void *)rpc_request_body(r, &aquifer__store_call__descriptor);
	struct registry *g = &a->registry;
	if (!q)
		return -EBADMSG;
	if (!g->entry || strcmp(store_url(g->store), q->catalog) != 0)
		return report_set(report, -EOPNOTSUPP, "this agent hasn't that catalog open");
	const char *const *args = (const char *const *)q->args;
	int status = report_set(report, -EOPNOTSUPP, "this agent doesn't know '%.20s' (is it older than the command?)", q->verb);
	if (strcmp(q->verb, "snapshot") == 0 && q->n_args && q->n_args <= STORE_GROUP_MAX)
		report->text[0] = 0, status = store_snapshot_create(g->store, args, (unsigned)q->n_args, report);
	else if (strcmp(q->verb, "clone") == 0 && q->n_args == 2)
		report->text[0] = 0, status = store_clone(g->store, args[0], args[1], report);
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
	else if (r->method == AQUIFER__AGENT_METHOD__AGENT_MIGRATE)
		status = migrate(a, r, &j, &report);
	else if (r->method == AQUIFER__AGENT_METHOD__AGENT_STORE)
		status = store_call(a, r, &report);
	else if (r->method == AQUIFER__AGENT_METHOD__AGENT_STOP)
		j = list_json(a), end = true;
	else
		status = report_set(&report, -EOPNOTSUPP, "this agent doesn't know method %u (is it older than the command?)",
				    r->method);
	control_answer(r, status, j, text, &report);
	if (end) {
		log_line("told to stop; devices stay");
		a->ending = true;
		fiber_cond_wake(&a->end);
	}
}
