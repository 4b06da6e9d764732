/* Timers of the real world: a binary heap of pointers, ordered by due time. Starting and cancelling cost O(log n); the heap grows by doubling
 * and never shrinks. Running out of memory for it ends the process: a timer that silently
 * never fires would hang whoever waits for it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/env_linux.h"

#define TIMERS_FIRST 1024

int env_linux_timers_create(struct env_linux *el)
{
	el->timers = malloc(TIMERS_FIRST * sizeof(struct timer *));
	el->timer_max = TIMERS_FIRST;
	return el->timers ? 0 : -ENOMEM;
}

void env_linux_timers_destroy(struct env_linux *el)
{
	free(el->timers);
}

static void heap_place(struct env_linux *el, unsigned at, struct timer *t)
{
	el->timers[at] = t;
	t->index = at;
}

static void heap_up(struct env_linux *el, unsigned at, struct timer *t)
{
	while (at > 0 && el->timers[(at - 1) / 2]->due_ns > t->due_ns) {
		heap_place(el, at, el->timers[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	heap_place(el, at, t);
}

static void heap_down(struct env_linux *el, unsigned at, struct timer *t)
{
	for (;;) {
		unsigned child = 2 * at + 1;
		if (child >= el->timer_count)
			break;
		if (child + 1 < el->timer_count && el->timers[child + 1]->due_ns < el->timers[child]->due_ns)
			child++;
		if (el->timers[child]->due_ns >= t->due_ns)
			break;
		heap_place(el, at, el->timers[child]);
		at = child;
	}
	heap_place(el, at, t);
}

void env_linux_timer_start(struct env *env, struct timer *t, uint64_t delay_ns, struct job *parent)
{
	struct env_linux *el = env_linux_of(env);
	if (el->timer_count == el->timer_max) {
		el->timer_max *= 2;
		el->timers = realloc(el->timers, el->timer_max * sizeof(struct timer *));
		if (!el->timers) {
			fprintf(stderr, "aquifer: out of memory for %u timers\n", el->timer_max);
			abort();
		}
	}
	t->parent = parent;
	t->due_ns = delay_ns > UINT64_MAX - el->now_ns ? UINT64_MAX : el->now_ns + delay_ns;
	heap_up(el, el->timer_count++, t);
}

static void timer_end(struct env_linux *el, struct timer *t, int status)
{
	assert(t->index < el->timer_count && el->timers[t->index] == t);
	struct timer *last = el->timers[--el->timer_count];
	if (last != t) {
		heap_up(el, t->index, last);
		heap_down(el, last->index, last);
	}
	struct job *parent = t->parent;
	t->parent = NULL;
	job_put(parent, status);
}

void env_linux_timer_cancel(struct env *env, struct timer *t)
{
	timer_end(env_linux_of(env), t, -ECANCELED);
}

void env_linux_timers_run(struct env_linux *el)
{
	while (el->timer_count && el->timers[0]->due_ns <= el->now_ns)
		timer_end(el, el->timers[0], 0);
}
