#include "agent/exports/aside.h"

#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/fiber.h"

#define STACK_BYTES (256u << 10)

static void *aside_main(void *arg)
{
	struct aside *a = arg;
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

int aside_start(struct aside *a)
{
	sem_init(&a->work, 0, 0);
	a->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r = a->done_fd < 0 ? -errno : thread_start(a);
	if (r < 0) {
		if (a->done_fd >= 0)
			close(a->done_fd);
		a->done_fd = -1;
		sem_destroy(&a->work);
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
	eventfd_read(a->done_fd, &n);
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
}
