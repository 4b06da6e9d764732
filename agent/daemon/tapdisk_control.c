/* What a tapdisk answers on its control socket: show, close, control. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/daemon/answer.h"
#include "agent/daemon/log.h"
#include "agent/daemon/paths.h"
#include "agent/daemon/tapdisk.h"
#include "core/version.h"
#include "proto/control.pb-c.h"

/* ---- show ---- */

static void add_item(void *arg, const char *key, uint64_t value)
{
	json_object_set_new(arg, key, json_integer((json_int_t)value));
}

static json_t *counters_json(const struct blk_counters *c)
{
	json_t *j = json_pack("{s:i, s:i}", "in_flight", (int)c->in_flight, "in_flight_max", (int)c->in_flight_max);
	for (int op = 0; op < BLK_OP_COUNT; op++)
		json_object_set_new(j, blk_op_name((enum blk_op)op),
				    json_pack("{s:I, s:I, s:I, s:I}", "requests", (json_int_t)c->requests[op], "bytes",
					      (json_int_t)c->bytes[op], "errors", (json_int_t)c->errors[op], "busy_ns",
					      (json_int_t)c->busy_ns[op]));
	return j;
}

static json_t *waits_json(const struct blk_waits *w)
{
	json_t *requests = json_object();
	for (int op = 0; op < BLK_OP_COUNT; op++)
		if (w->requests[op])
			json_object_set_new(requests, blk_op_name((enum blk_op)op), json_integer(w->requests[op]));
	return json_pack("{s:o, s:I, s:s, s:I, s:I, s:I, s:s, s:I, s:s}", "requests", requests, "oldest_ns", (json_int_t)w->oldest_ns, "for", w->what, "since_ns",
			 (json_int_t)w->since_ns, "limit_ms", (json_int_t)(w->limit_ns / NS_PER_MS), "timed_out", (json_int_t)w->timed_out, "last",
			 w->timed_out ? blk_op_name(w->last_op) : "", "last_ns", (json_int_t)w->last_ns, "last_for", w->last_for);
}

static void add_node(void *arg, struct blk_node *n, const char *args)
{
	json_t *children = json_array(), *items = json_object();
	for (unsigned i = 0; i < n->child_count; i++)
		json_array_append_new(children, json_string(n->child[i]->name));
	if (n->driver->describe)
		n->driver->describe(n, add_item, items);
	char state[16] = "", why[256] = "";
	if (n->driver->condition)
		n->driver->condition(n, state, why, sizeof why);
	json_t *node = json_pack("{s:s, s:s, s:s, s:I, s:i, s:b, s:o, s:o, s:o}", "name", n->name, "driver",
					     n->driver->name, "args", args, "size", (json_int_t)n->info.size, "block_size",
					     (int)n->info.block_size, "read_only", n->info.read_only, "children", children,
					     "counters", counters_json(&n->counters), "items", items);
	if (state[0])
		json_object_set_new(node, "condition", json_pack("{s:s, s:s}", "state", state, "reason", why));
	struct blk_waits waits;
	if (n->driver->waits && n->driver->waits(n, &waits))
		json_object_set_new(node, "waits", waits_json(&waits));
	json_array_append_new(arg, node);
}

static json_t *devices_json(const struct tapdisk *t)
{
	json_t *j = json_array();
	for (unsigned i = 0; i < t->state.device_count; i++) {
		const struct tap_device *d = &t->state.device[i];
		if (t->export[i])
			json_array_append_new(j, json_pack("{s:s, s:s, s:s, s:s, s:I}", "name", d->name, "export", d->export,
							   "device", d->device, "node", d->node, "clients",
							   (json_int_t)t->export[i]->clients));
	}
	return j;
}

static json_t *show_json(struct tapdisk *t)
{
	json_t *nodes = json_array();
	char *dot = graph_dot(t->graph, t->state.name);
	graph_walk(t->graph, add_node, nodes);
	json_t *j = json_pack("{s:s, s:i, s:s, s:b, s:s, s:o, s:o, s:s}", "name", t->state.name, "pid", (int)getpid(), "version",
			      AQ_VERSION, "read_only", t->state.read_only, "graph", t->state.graph, "devices",
			      devices_json(t), "nodes", nodes, "dot", dot ? dot : "");
	free(dot);
	return j;
}

/* ---- close ---- */

/* A close without --force: it may wait for a disk or a server as long as that takes, but who asked is told why after
 * CLOSE_PATIENCE_NS, and the close goes on without him. */
#define CLOSE_PATIENCE_NS (10 * NS_PER_S)
#define CLOSE_LOOK_NS (5 * NS_PER_MS)

struct closing {
	struct tapdisk *t;
	unsigned index;
	int status;
	struct report report;
	bool over, alone; /* alone: nobody waits for it any more */
};

static int close_run(void *arg)
{
	struct closing *c = arg;
	c->status = tapdisk_close(c->t, c->index, /* force= */ false, &c->report);
	c->over = true;
	if (c->alone) {
		log_line("%s: %s", c->t->state.device[c->index].name, c->status < 0 ? report_text(&c->report, c->status) : "closed at last");
		free(c);
	}
	return 0;
}

static int close_patiently(struct tapdisk *t, unsigned index, struct report *report)
{
	struct closing *c = calloc(1, sizeof *c);
	char why[256] = "";
	if (!c)
		return -ENOMEM;
	*c = (struct closing){ .t = t, .index = index };
	int r = fiber_start(&t->env->loop, close_run, c, NULL);
	if (r < 0) {
		free(c);
		return r;
	}
	uint64_t until = env_now_ns(t->env) + CLOSE_PATIENCE_NS;
	while (!c->over && !why[0]) {
		fiber_sleep(&t->env->loop, CLOSE_LOOK_NS);
		if (env_now_ns(t->env) >= until)
			tapdisk_trouble(t, why, sizeof why);
	}
	if (!c->over) {
		c->alone = true;
		return report_set(report, -ETIMEDOUT, "%s (it goes when that is over; detach --force gives up what wasn't flushed)", why);
	}
	*report = c->report;
	r = c->status;
	free(c);
	return r;
}

/* It is closing already, for a signal or for somebody who was told that it takes long. By force it ends soon, closed or not. */
static int close_ending(struct tapdisk *t, bool force, json_t **ret, struct report *report)
{
	char why[256] = "";
	uint64_t until = env_now_ns(t->env) + CLOSE_PATIENCE_NS;
	if (force)
		tapdisk_end_begin(t, /* forced= */ true);
	while (!t->over && (force || env_now_ns(t->env) < until))
		fiber_sleep(&t->env->loop, CLOSE_LOOK_NS);
	if (!t->over) {
		tapdisk_trouble(t, why, sizeof why);
		return report_set(report, -ETIMEDOUT, "%s (it goes when that is over; detach --force gives up what wasn't flushed)", why[0] ? why : "it is being closed");
	}
	*ret = json_array();
	return 0;
}

static int close_device(struct tapdisk *t, struct rpc_request *r, json_t **ret, struct report *report)
{
	Aquifer__CloseCall *q = (void *)rpc_request_body(r, &aquifer__close_call__descriptor);
	if (!q)
		return -EBADMSG;
	if (t->over || !t->graph)
		return close_ending(t, q->force, ret, report);
	int status = report_set(report, -ENOENT, "there is no device %s here", q->device);
	for (unsigned i = 0; i < t->state.device_count; i++) {
		if (strcmp(t->state.device[i].name, q->device) || !t->export[i])
			continue;
		report->text[0] = 0;
		status = q->force ? tapdisk_close(t, i, true, report) : close_patiently(t, i, report);
		break;
	}
	if (status == 0)
		*ret = devices_json(t);
	return status;
}

/* ---- control ---- */

struct search {
	const char *driver, *subject;
	struct blk_node *found;
};

/* `args` begin with the subject: "web1", or "web1, key=value". */
static void match(void *arg, struct blk_node *n, const char *args)
{
	struct search *s = arg;
	size_t length = strlen(s->subject);
	if (!strcmp(n->driver->name, s->driver) && !strncmp(args, s->subject, length) && (!args[length] || args[length] == ','))
		s->found = n;
}

/* A device that its volume is to come back to may have a kernel's memory of what it was, which another host has changed since; and what wasn't written out must not be
 * written now. While it is away all requests fail, so none of that is read again before the volume is there. */
static int call_node(struct tapdisk *t, struct blk_node *node, const char *verb, const char *const *args, char **ret_text, struct report *report)
{
	if (strcmp(verb, "write-out") == 0)
		return tapdisk_forget(t, report);
	int r = strcmp(verb, "handover-expect") == 0 && tapdisk_moved(node) ? tapdisk_forget(t, report) : 0;
	return r < 0 ? r : node->driver->control(node, verb, args, ret_text, report);
}

static int control(struct tapdisk *t, struct rpc_request *r, char **ret_text, struct report *report)
{
	Aquifer__ControlCall *q = (void *)rpc_request_body(r, &aquifer__control_call__descriptor);
	if (!q)
		return -EBADMSG;
	struct search s = { .driver = q->driver, .subject = q->subject };
	if (q->node[0])
		s.found = graph_named_node(t->graph, q->node);
	else
		graph_walk(t->graph, match, &s);
	if (!s.found)
		return report_set(report, -ENOENT, "there is no node %s%s%s here", q->node[0] ? q->node : q->driver,
				  q->subject[0] ? " " : "", q->subject);
	if (!s.found->driver->control)
		return report_set(report, -EOPNOTSUPP, "%s nodes take no commands", s.found->driver->name);
	const char **args = calloc(q->n_args + 1, sizeof *args);
	if (!args)
		return -ENOMEM;
	for (size_t i = 0; i < q->n_args; i++)
		args[i] = q->args[i];
	/* The graph must not close under it. Others may be asked meanwhile: one that waits (for a snapshot of several volumes, say)
	 * may wait for what the next call brings. */
	for (uint64_t waited_ns = 0; fiber_mutex_held(&t->closing); waited_ns += CLOSE_LOOK_NS) {
		if (waited_ns >= CLOSE_PATIENCE_NS) {
			free(args);
			return report_set(report, -EBUSY, "its device is being detached, and waits (aquifer list says for what; detach --force ends it)");
		}
		fiber_sleep(&t->env->loop, CLOSE_LOOK_NS);
	}
	t->controls++;
	int status = t->over ? -ESHUTDOWN : call_node(t, s.found, q->verb, args, ret_text, report);
	if (status == 0)
		status = tapdisk_follow_sizes(t, report);
	tapdisk_condition_look(t);
	t->controls--;
	fiber_cond_wake(&t->controlled);
	if (status == -EOPNOTSUPP)
		report_set(report, status, "%s nodes don't know '%s'", s.found->driver->name, q->verb);
	free(args);
	return status;
}

/* ---- dispatch ---- */

void tapdisk_handle(void *arg, struct rpc_request *r)
{
	struct tapdisk *t = arg;
	struct report report = { 0 };
	json_t *j = NULL;
	char *text = NULL;
	int status = 0;
	if (r->peer_uid != 0 && r->peer_uid != geteuid())
		status = report_set(&report, -EPERM, "only the tapdisk's user and root may do that");
	else if (r->method == AQUIFER__TAPDISK_METHOD__TAPDISK_CLOSE)
		status = close_device(t, r, &j, &report);
	else if (t->over || !t->graph)
		status = report_set(&report, -ESHUTDOWN, "the tapdisk is ending");
	else if (r->method == AQUIFER__TAPDISK_METHOD__TAPDISK_SHOW)
		j = show_json(t);
	else if (r->method == AQUIFER__TAPDISK_METHOD__TAPDISK_CONTROL)
		status = control(t, r, &text, &report);
	else
		status = report_set(&report, -EOPNOTSUPP, "this tapdisk doesn't know method %u (is it older than the agent?)",
				    r->method);
	control_answer(r, status, j, text, &report);
}
