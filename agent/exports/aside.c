#include "agent/exports/aside.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/fiber.h"

#define STACK_BYTES (256u << 10)
#define POLL_NS (5 * NS_PER_MS)

static int close_between(int first, int last)
{
	return first > last || close_range((unsigned)first, (unsigned)last, 0) == 0 ? 0 : -errno;
}

/* A table of descriptors of our own, with nothing in it but what is needed. */
static int own_descriptors(const struct aside *a)
{
	int low = MIN(a->keep, a->done_fd), high = MAX(a->keep, a->done_fd);
	if (unshare(CLONE_FILES) < 0)
		return -errno;
	int r = close_between(3, low - 1);
	if (r == 0)
		r = close_between(low + 1, high - 1);
	return r ? r : close_between(high + 1, INT_MAX);
}

static void *aside_main(void *arg)
{
	struct aside *a = arg;
	a->start_status = own_descriptors(a);
	sem_post(&a->ready);
	for (;;) {
		while (sem_wait(&a->work) < 0)
			;
		if (!a->run)
			return NULL;
		a->result = a->run(a->arg);
		eventfd_write(a->done_fd, 1);
	}
}

static int thread_start(struct aside *a)
{
	pthread_attr_t attr;
	sigset_t all, before;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the main thread's */
	int r = -pthread_create(&a->thread, &attr, aside_main, a);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return r;
}

int aside_start(struct aside *a, int keep)
{
	sem_init(&a->work, 0, 0);
	sem_init(&a->ready, 0, 0);
	a->keep = keep;
	a->run = NULL;
	a->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r = a->done_fd < 0 ? -errno : thread_start(a);
	if (r == 0) {
		while (sem_wait(&a->ready) < 0)
			;
		r = a->start_status;
		if (r < 0) {
			sem_post(&a->work);
			pthread_join(a->thread, NULL);
		}
	}
	if (r < 0) {
		if (a->done_fd >= 0)
			close(a->done_fd);
		a->done_fd = -1;
		sem_destroy(&a->work);
		sem_destroy(&a->ready);
	}
	return r;
}

int aside_wait(struct env *env, struct aside *a, int (*run)(void *arg), void *arg)
{
	struct fd_watch w;
	struct job j;
	a->run = run;
	a->arg = arg;
	sem_post(&a->work);
	job_init(&j, &env->loop);
	fd_watch_start(env, &w, a->done_fd, &j);
	fiber_wait(&j);
	eventfd_t n;
	while (eventfd_read(a->done_fd, &n) < 0) /* it can't be watched (no memory): what it works on is the caller's all the same */
		fiber_sleep(&env->loop, POLL_NS);
	return a->result;
}

void aside_stop(struct aside *a)
{
	if (a->done_fd < 0)
		return;
	a->run = NULL;
	sem_post(&a->work);
	pthread_join(a->thread, NULL);
	close(a->done_fd);
	a->done_fd = -1;
	sem_destroy(&a->work);
	sem_destroy(&a->ready);
}
