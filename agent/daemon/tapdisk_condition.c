/* A tapdisk whose volume comes from another host or has gone to one. What its node says of that stands in the run directory's file `condition`
 * while it holds, the state's word first, where the agent finds it. One that nothing will come to any more ends by itself. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/daemon/log.h"
#include "agent/daemon/paths.h"
#include "agent/daemon/tapdisk.h"

struct look {
	char state[16], why[sizeof ((struct tapdisk *)0)->condition - 16];
};

static void look_at_node(void *arg, struct blk_node *node, const char *args)
{
	struct look *l = arg;
	char state[16], why[sizeof l->why];
	(void)args;
	if (!node->driver->condition || !node->driver->condition(node, state, why, sizeof why))
		return;
	memcpy(l->state, state, sizeof l->state);
	memcpy(l->why, why, sizeof l->why);
}

bool tapdisk_serves(const struct blk_node *node)
{
	char state[16], why[64];
	return !node->driver->condition || !node->driver->condition((struct blk_node *)(uintptr_t)node, state, why, sizeof why);
}

bool tapdisk_moved(struct blk_node *node)
{
	char state[16] = "", why[64];
	return node->driver->condition && node->driver->condition(node, state, why, sizeof why) && strcmp(state, "moved") == 0;
}

int tapdisk_forget(struct tapdisk *t, struct report *report)
{
	int status = 0;
	fiber_mutex_lock(&t->env->loop, &t->resizing);
	for (unsigned i = 0; status == 0 && i < t->state.device_count; i++)
		if (t->export[i] && t->export[i]->driver->forget)
			status = t->export[i]->driver->forget(t->export[i], report);
	fiber_mutex_unlock(&t->resizing);
	return status;
}

static void write_down(const struct tapdisk *t)
{
	char path[PATHS_MAX];
	int r = 0;
	if (!t->options->run_dir)
		return;
	snprintf(path, sizeof path, "%s/condition", t->options->run_dir);
	if (t->condition[0])
		r = state_file_write(path, t->condition, strlen(t->condition));
	else
		unlink(path);
	if (r < 0)
		log_line("%s: %s", path, strerror(-r));
}

void tapdisk_condition_look(struct tapdisk *t)
{
	struct look l = { 0 };
	char text[sizeof t->condition];
	if (!t->graph)
		return;
	graph_walk(t->graph, look_at_node, &l);
	snprintf(text, sizeof text, "%s%s%s", l.state, l.state[0] ? " " : "", l.why);
	if (strcmp(text, t->condition) == 0)
		return;
	log_line("%s", text[0] ? text : "serves");
	strcpy(t->condition, text);
	write_down(t);
	if (strcmp(l.state, "given-up") == 0 && t->terms == 0) {
		t->terms = 1;
		tapdisk_end_begin(t, /* forced= */ false);
		fiber_cond_wake(&t->end);
	}
}

void tapdisk_condition_end(struct tapdisk *t)
{
	t->condition[0] = '\0';
	write_down(t);
}

/* FIBER. Requests that wait for what will not come end, so that who holds the device open can let go. */
static void end_waiting(void *arg, struct blk_node *node, const char *args)
{
	static const char *const none[] = { "0", NULL };
	char state[16], why[64], *json = NULL;
	(void)arg;
	(void)args;
	if (!node->driver->condition || !node->driver->condition(node, state, why, sizeof why) || strcmp(state, "incoming") != 0)
		return;
	node->driver->control(node, "handover-cancel", none, &json, NULL);
	free(json);
}

void tapdisk_condition_let_go(struct tapdisk *t)
{
	if (t->graph)
		graph_walk(t->graph, end_waiting, NULL);
}

/* ---- sizes ---- */

/* FIBER. Devices follow their nodes, whose size may have changed before they were taken. */
int tapdisk_follow_sizes(struct tapdisk *t, struct report *report)
{
	int status = 0;
	fiber_mutex_lock(&t->env->loop, &t->resizing);
	if (t->graph)
		graph_follow_sizes(t->graph);
	for (unsigned i = 0; i < t->state.device_count; i++) {
		struct export *e = t->export[i];
		struct report why = { 0 };
		if (!e || e->node->info.size == t->size[i])
			continue;
		uint64_t size = e->node->info.size;
		int r = e->driver->resized ? e->driver->resized(e, &why) : 0;
		if (r < 0)
			status = report_set(report, r, "done, but the device %s has not followed: %s (detach and attach it again)", t->state.device[i].name,
					    report_text(&why, r));
		t->size[i] = size;
	}
	fiber_mutex_unlock(&t->resizing);
	return status;
}

static int follow(void *arg)
{
	struct tapdisk *t = arg;
	struct report report = { "" };
	int r = tapdisk_follow_sizes(t, &report);
	if (r < 0)
		log_line("%s", report_text(&report, r));
	t->controls--;
	fiber_cond_wake(&t->controlled);
	return 0;
}

void tapdisk_sizes_look(struct tapdisk *t)
{
	bool differs = false;
	if (t->graph)
		graph_follow_sizes(t->graph);
	for (unsigned i = 0; i < t->state.device_count; i++)
		differs |= t->export[i] && t->export[i]->node->info.size != t->size[i];
	if (!differs || t->controls || t->over || t->end_since_ns) /* a command sees to it itself */
		return;
	t->controls++; /* nothing is closed under it */
	if (fiber_start(&t->env->loop, follow, t, NULL) < 0)
		t->controls--;
}
