#include "server/watch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/fiber.h"
#include "core/option.h"
#include "parallax/segment/segment.h"

#define EVERY_NS (5 * NS_PER_S)
enum { SLACK_PERCENT = 2 }; /* so much below a threshold it is over: not each time that a file comes or goes */

struct watch {
	struct env *env;
	struct segment_server *dir;
	struct store_warn warn;
	void (*log)(void *arg, const char *text);
	void *arg;
	unsigned level;      /* thresholds that were reached and said */
	bool refusing, gone;
	struct timer timer;
	struct job nap;
	bool closing, running;
	struct fiber_cond ended;
};

static void say_level(struct watch *w, unsigned percent, bool rising)
{
	char text[256], free_text[24], total[24];
	snprintf(text, sizeof text, "%s%u %% of the space is used, %s of %s are free%s", rising ? "warning: " : "", percent,
		 format_size_human(w->dir->free_bytes, free_text), format_size_human(w->dir->total_bytes, total),
		 rising ? " (free some, or add a server)" : " again");
	w->log(w->arg, text);
}

static void look(struct watch *w)
{
	int there = segment_dir_there(w->dir);
	if (there < 0 && !w->gone) {
		char text[256];
		snprintf(text, sizeof text, "warning: the directory of its segments isn't found: %s (was it deleted, or unmounted? what is written to files that are open is lost when this ends)", errno_text(there));
		w->log(w->arg, text);
	}
	w->gone = there < 0;
	if (segment_dir_space(w->dir) < 0)
		return;
	unsigned percent = store_used_percent(w->dir->free_bytes, w->dir->total_bytes);
	unsigned level = store_warn_level(&w->warn, percent);
	if (level > w->level) {
		w->level = level;
		say_level(w, percent, /* rising= */ true);
	} else if (w->level && percent + SLACK_PERCENT < w->warn.percent[w->level - 1]) {
		w->level = level;
		say_level(w, percent, /* rising= */ false);
	}
	bool refusing = w->dir->free_bytes < store_reserve_bytes(w->dir->total_bytes);
	if (refusing && !w->refusing)
		w->log(w->arg, "warning: it is full: what is left is kept for checkpoints and for freeing space; new data is refused");
	w->refusing = refusing;
}

static int watch_fiber(void *arg)
{
	struct watch *w = arg;
	while (!w->closing && !w->env->dead) {
		look(w);
		job_init(&w->nap, &w->env->loop);
		timer_start(w->env, &w->timer, EVERY_NS, &w->nap);
		fiber_wait(&w->nap);
	}
	w->running = false;
	fiber_cond_wake(&w->ended);
	return 0;
}

int watch_start(struct env *env, struct segment_server *dir, const struct store_warn *warn, void (*log)(void *arg, const char *text), void *arg,
		struct watch **ret)
{
	struct watch *w = calloc(1, sizeof *w);
	if (!w)
		return -ENOMEM;
	*w = (struct watch){ .env = env, .dir = dir, .warn = *warn, .log = log, .arg = arg, .running = true };
	timer_init(&w->timer);
	fiber_cond_init(&w->ended);
	int r = fiber_start(&env->loop, watch_fiber, w, NULL);
	if (r < 0)
		free(w);
	else
		*ret = w;
	return r;
}

void watch_stop(struct watch *w)
{
	if (!w)
		return;
	w->closing = true;
	timer_cancel(w->env, &w->timer);
	while (w->running)
		fiber_cond_wait(&w->env->loop, &w->ended);
	free(w);
}
