/* Worker threads of the real world: blocking calls and long computations happen here.
 *
 * The pool starts with one thread and grows while work waits and no thread is idle, up to
 * a fixed limit. One worker at a time is on its way to the queue: whoever takes something
 * and leaves something calls the next. So work that waits for disks spreads over all threads,
 * and work that doesn't is done by the few that are awake. There are two queues, offloads and file operations, which take turns; one
 * thread is always left for file operations, so that slow offloads cannot stop a device; and name servers that don't answer
 * have half of the threads at most (env_linux_address.c). Work of one turn is handed over under one lock;
 * results come back by an eventfd that is written only when the loop may not know yet. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/env_linux.h"

#define THREADS_DEFAULT 4
#define THREADS_GROWTH 4 /* times what was asked for, at most */
#define THREADS_MAX 64
#define THREAD_STACK_BYTES ((size_t)512 << 10)

static struct link *work_pop(struct work *w, struct link *queue)
{
	struct link *l = link_pop(queue);
	if (l)
		w->queued--;
	return l;
}

static struct link *work_take(struct work *w, bool *ret_offload)
{
	bool may_offload = !link_empty(&w->offloads) &&
			   (w->offloads_running + 1 < w->thread_limit || w->thread_limit == 1);
	if (may_offload && (link_empty(&w->files) || !w->offload_last)) {
		*ret_offload = true;
		w->offloads_running++;
		w->offload_last = true;
		return work_pop(w, &w->offloads);
	}
	*ret_offload = false;
	w->offload_last = false;
	return work_pop(w, &w->files);
}

/* Returns true if the loop has to be told. */
static bool work_ended(struct work *w, struct link *l, bool offload)
{
	bool tell = link_empty(&w->offloads_done) && link_empty(&w->files_done);
	if (offload) {
		w->offloads_running--;
		link_push(&w->offloads_done, l);
	} else {
		link_push(&w->files_done, l);
	}
	return tell;
}

static void event_raise(int fd)
{
	uint64_t one = 1;
	ssize_t n = write(fd, &one, sizeof one);
	assert(n == sizeof one);
}

static int worker_start(struct work *w);

/* The lock is held. Calls a worker if there is work and nobody is coming. A thread that cannot
 * be had is no error: those there are will come to the work. */
static void work_call(struct work *w)
{
	if (w->queued == 0 || w->waking)
		return;
	if (w->idle) {
		w->waking = true;
		sem_post(&w->call);
	} else if (w->thread_count < w->thread_limit && !w->stopping) {
		w->waking = worker_start(w) == 0;
	}
}

static void *worker(void *arg)
{
	struct work *w = arg;
	void *buffer = NULL;
	pthread_mutex_lock(&w->lock);
	w->waking = false;
	for (;;) {
		bool offload;
		struct link *l = work_take(w, &offload);
		if (!l) {
			if (w->stopping)
				break;
			w->idle++;
			pthread_mutex_unlock(&w->lock);
			while (sem_wait(&w->call) < 0)
				; /* EINTR */
			pthread_mutex_lock(&w->lock);
			w->idle--;
			w->waking = false;
			continue;
		}
		work_call(w);
		pthread_mutex_unlock(&w->lock);
		if (offload) {
			struct offload *o = container_of(l, struct offload, link);
			o->status = o->run(o);
		} else {
			env_linux_file_work(container_of(l, struct file_io, link), &buffer);
		}
		pthread_mutex_lock(&w->lock);
		if (work_ended(w, l, offload))
			event_raise(w->event_fd);
	}
	pthread_mutex_unlock(&w->lock);
	free(buffer);
	return NULL;
}

static int worker_start(struct work *w)
{
	sigset_t all, before;
	pthread_attr_t attr;
	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = pthread_create(&w->threads[w->thread_count], &attr, worker, w);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	if (r == 0)
		w->thread_count++;
	return -r;
}

static void work_ready(struct source *s, uint32_t events)
{
	(void)events;
	struct work *w = container_of(s, struct work, source);
	struct link offloads, files;
	link_init(&offloads);
	link_init(&files);
	pthread_mutex_lock(&w->lock);
	link_splice(&offloads, &w->offloads_done);
	link_splice(&files, &w->files_done);
	pthread_mutex_unlock(&w->lock);
	for (struct link *l; (l = link_pop(&offloads));) {
		struct offload *o = container_of(l, struct offload, link);
		job_put(o->parent, o->status);
	}
	for (struct link *l; (l = link_pop(&files));)
		env_linux_file_worked(container_of(l, struct file_io, link));
}

int env_linux_work_create(struct env_linux *el, unsigned threads)
{
	struct work *w = &el->work;
	if (threads == 0)
		threads = THREADS_DEFAULT;
	w->thread_limit = threads * THREADS_GROWTH < THREADS_MAX ? threads * THREADS_GROWTH : THREADS_MAX;
	struct link *const lists[] = { &w->offloads,   &w->files,        &w->offloads_done,
				       &w->files_done, &w->new_offloads, &w->new_files };
	for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
		link_init(lists[i]);
	pthread_mutex_init(&w->lock, NULL);
	sem_init(&w->call, 0, 0);
	w->source.ready = work_ready;
	w->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r = w->event_fd < 0 ? -errno : env_linux_watch(el, w->event_fd, EPOLLIN, &w->source);
	w->threads = r < 0 ? NULL : calloc(w->thread_limit, sizeof *w->threads);
	if (r == 0)
		r = w->threads ? worker_start(w) : -ENOMEM;
	if (r < 0)
		env_linux_work_destroy(el);
	return r;
}

void env_linux_work_destroy(struct env_linux *el)
{
	struct work *w = &el->work;
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	for (unsigned i = 0; i < w->thread_count; i++)
		sem_post(&w->call);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->thread_count; i++)
		pthread_join(w->threads[i], NULL);
	free(w->threads);
	if (w->event_fd >= 0)
		close(w->event_fd);
	sem_destroy(&w->call);
	pthread_mutex_destroy(&w->lock);
}

void env_linux_offload(struct env *env, struct offload *o, struct job *parent)
{
	struct work *w = &env_linux_of(env)->work;
	o->parent = parent;
	o->status = 0;
	link_push(&w->new_offloads, &o->link);
	w->new_count++;
}

void env_linux_work_file(struct env_linux *el, struct file_io *io)
{
	link_push(&el->work.new_files, &io->link);
	el->work.new_count++;
}

void env_linux_work_flush(struct env_linux *el)
{
	struct work *w = &el->work;
	if (w->new_count == 0)
		return;
	pthread_mutex_lock(&w->lock);
	link_splice(&w->offloads, &w->new_offloads);
	link_splice(&w->files, &w->new_files);
	w->queued += w->new_count;
	w->new_count = 0;
	work_call(w);
	pthread_mutex_unlock(&w->lock);
}
