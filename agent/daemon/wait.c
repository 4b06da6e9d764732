/* Two things are started, the watch and the timer; whichever comes first cancels the other,
 * and the fiber goes on when both have ended.
 *
 *     watch ──▶ watch_ended: cancel timer ─┐
 *     timer ──▶ timer_ended: cancel watch ─┴─▶ done */
#include "agent/daemon/wait.h"

#include <errno.h>

#include "core/fiber.h"

struct waiter {
	struct env *env;
	struct job watch_job, timer_job, done;
	struct fd_watch watch;
	struct timer timer;
	bool watching, timing, readable;
};

static void watch_ended(struct job *j)
{
	struct waiter *w = container_of(j, struct waiter, watch_job);
	w->watching = false;
	w->readable = j->status == 0;
	if (w->timing)
		timer_cancel(w->env, &w->timer);
	job_put(&w->done, 0);
}

static void timer_ended(struct job *j)
{
	struct waiter *w = container_of(j, struct waiter, timer_job);
	w->timing = false;
	if (w->watching)
		fd_watch_cancel(w->env, &w->watch);
	job_put(&w->done, 0);
}

int wait_readable(struct env *env, int fd, uint64_t timeout_ns)
{
	struct waiter w = { .env = env, .watching = true, .timing = timeout_ns != 0 };
	job_init(&w.done, &env->loop);
	job_hold(&w.done);
	job_init(&w.watch_job, &env->loop);
	fd_watch_start(env, &w.watch, fd, &w.watch_job);
	if (timeout_ns) {
		job_hold(&w.done);
		timer_init(&w.timer);
		job_init(&w.timer_job, &env->loop);
		timer_start(env, &w.timer, timeout_ns, &w.timer_job);
		job_then(&w.timer_job, timer_ended);
	}
	job_then(&w.watch_job, watch_ended);
	fiber_wait(&w.done);
	return w.readable ? 0 : -ETIMEDOUT;
}
