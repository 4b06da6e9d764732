/* What a tapdisk says of a graph that has trouble: a volume that another holder took over, a server that is away. Every
 * second its nodes are asked; the sentence stands in the run directory's file `trouble` while it holds, where the agent
 * finds it without asking a process that may hang. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/daemon/log.h"
#include "agent/daemon/paths.h"
#include "agent/daemon/tapdisk.h"

#define LOOK_NS NS_PER_S

struct look {
	const struct blk_node *node;
	uint64_t failed, no_space, checkpoint, read_errors; /* its own */
	char *text;
	size_t bytes;
	char about[sizeof ((struct blk_waits *)0)->what]; /* what doesn't change with each request */
};

/* The items that drivers give their trouble in; see blk_driver.describe. */
static void note_item(void *arg, const char *key, uint64_t value)
{
	struct look *l = arg;
	if (strcmp(key, "failed") == 0)
		l->failed = value;
	else if (strcmp(key, "no_space") == 0)
		l->no_space = value;
	else if (strcmp(key, "checkpoint_failed") == 0)
		l->checkpoint = value;
	else if (strcmp(key, "read_errors") == 0)
		l->read_errors = value;
}

static void tell_failed(struct look *l)
{
	if (l->failed == EPERM)
		snprintf(l->text, l->bytes, "%s was taken over by another holder: nothing can be read or written here any more", l->node->name);
	else if (l->failed)
		snprintf(l->text, l->bytes, "%s failed (%s): nothing can be read or written any more", l->node->name, strerror((int)l->failed));
}

/* What doesn't keep its requests from going on. */
static void tell_lesser(struct look *l)
{
	if (l->text[0])
		return;
	if (l->no_space)
		snprintf(l->text, l->bytes, "%s: there is no space for what is written to it", l->node->name);
	else if (l->checkpoint)
		snprintf(l->text, l->bytes, "%s: its checkpoints fail, and before long writes wait for one: %s", l->node->name,
			 l->checkpoint == EFBIG ? "its space table would be too long (delete snapshots)" : strerror((int)l->checkpoint));
	else if (l->read_errors)
		snprintf(l->text, l->bytes, "%s: %llu reads failed, what they asked for is damaged or missing", l->node->name, (unsigned long long)l->read_errors);
}

static const char *time_text(uint64_t ns, char buffer[32])
{
	time_t seconds = (time_t)(ns / NS_PER_S);
	struct tm tm;
	if (!localtime_r(&seconds, &tm) || !strftime(buffer, 32, "%Y-%m-%d %H:%M:%S", &tm))
		snprintf(buffer, 32, "?");
	return buffer;
}

static void look_at_waits(struct look *l, const struct blk_waits *w)
{
	char requests[96], since[32];
	if (l->text[0] || !w->what[0])
		return;
	if (w->oldest_ns) {
		blk_waits_text(w, requests, sizeof requests);
		snprintf(l->text, l->bytes, "%s: %s wait since %s for %s", l->node->name, requests, time_text(w->oldest_ns, since), w->what);
	} else {
		snprintf(l->text, l->bytes, "%s waits since %s for %s", l->node->name, time_text(w->since_ns, since), w->what);
	}
	snprintf(l->about, sizeof l->about, "%s", w->what);
}

static void look_at_node(void *arg, struct blk_node *node, const char *args)
{
	struct look *l = arg;
	struct blk_waits w;
	(void)args;
	if (l->text[0])
		return;
	l->node = node;
	l->failed = l->no_space = l->checkpoint = l->read_errors = 0;
	if (node->driver->describe)
		node->driver->describe(node, note_item, l);
	tell_failed(l);
	if (node->driver->waits && node->driver->waits(node, &w))
		look_at_waits(l, &w);
	tell_lesser(l);
}

static void find_trouble(const struct tapdisk *t, struct look *l)
{
	l->text[0] = l->about[0] = '\0';
	if (t->graph)
		graph_walk(t->graph, look_at_node, l);
	else if (!t->over)
		snprintf(l->text, l->bytes, "%s", t->trouble[0] ? t->trouble : t->flushed ? "all is written, its graph is being closed" : "");
	if (!l->about[0])
		snprintf(l->about, sizeof l->about, "%s", l->text);
}

void tapdisk_trouble(const struct tapdisk *t, char *ret_text, size_t bytes)
{
	struct look l = { .text = ret_text, .bytes = bytes };
	find_trouble(t, &l);
}

static void write_down(const struct tapdisk *t, const char *text)
{
	char path[PATHS_MAX];
	snprintf(path, sizeof path, "%s/trouble", t->options->run_dir);
	int r = 0;
	if (text[0])
		r = state_file_write(path, text, strlen(text));
	else
		unlink(path);
	if (r < 0)
		log_line("%s: %s", path, strerror(-r));
}

static int beat_run(struct offload *o)
{
	const struct tapdisk *t = container_of(o, struct tapdisk, beat);
	state_beat(t->lock_fd, t->beat_ns);
	return 0;
}

static void beaten(struct job *j)
{
	struct tapdisk *t = container_of(j, struct tapdisk, beating);
	t->beats = false;
	fiber_cond_wake(&t->end);
}

/* On a worker: the run directory may be on a disk, whose file system may be slow, or frozen; no device waits for that. */
static void beat(struct tapdisk *t)
{
	if (t->lock_fd < 0 || t->beats)
		return;
	t->beats = true;
	t->beat_ns = env_now_ns(t->env);
	t->beat.run = beat_run;
	job_init(&t->beating, &t->env->loop);
	env_offload(t->env, &t->beat, &t->beating);
	job_then(&t->beating, beaten);
}

static void look(struct job *j)
{
	struct tapdisk *t = container_of(j, struct tapdisk, looking);
	char text[sizeof t->trouble];
	if (t->look_no_more) {
		t->looks = false;
		fiber_cond_wake(&t->end);
		return;
	}
	beat(t);
	tapdisk_condition_look(t);
	tapdisk_sizes_look(t);
	struct look l = { .text = text, .bytes = sizeof text };
	find_trouble(t, &l);
	if (t->graph && strcmp(l.about, t->trouble_about) != 0) /* how many wait now is no news */
		log_line("%s", text[0] ? text : "all is well again");
	if (t->graph && strcmp(text, t->trouble) != 0) {
		strcpy(t->trouble_about, l.about);
		strcpy(t->trouble, text);
		if (t->options->run_dir)
			write_down(t, text);
	}
	timer_start(t->env, &t->look_timer, LOOK_NS, j);
	job_then(j, look);
}

void tapdisk_trouble_watch(struct tapdisk *t)
{
	t->looks = true;
	timer_init(&t->look_timer);
	job_init(&t->looking, &t->env->loop);
	timer_start(t->env, &t->look_timer, LOOK_NS, &t->looking);
	job_then(&t->looking, look);
}

void tapdisk_trouble_end(struct tapdisk *t)
{
	t->look_no_more = true;
	timer_cancel(t->env, &t->look_timer);
	while (t->looks || t->beats)
		fiber_cond_wait(&t->env->loop, &t->end);
	tapdisk_condition_end(t);
	if (t->options->run_dir)
		write_down(t, "");
}
