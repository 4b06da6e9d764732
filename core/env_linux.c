/* The real world's env: creation, and the turn of its loop (see env_linux.h). */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "core/env_linux.h"
#include "core/fiber.h"

#define EVENTS_PER_TURN 64
/* Jobs run in one round at most, so that a busy chain of jobs cannot keep I/O from being noticed. */
#define STEPS_PER_ROUND 4096
/* Rounds without a look at descriptors and timers. */
#define ROUNDS_PER_TURN 8

/* ---- clock, random, boot id ---- */

static uint64_t clock_ns(clockid_t id)
{
	struct timespec t;
	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

uint64_t env_linux_clock_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

static uint64_t env_linux_now_ns(struct env *env) { return env_linux_of(env)->now_ns; }

static uint64_t env_linux_wall_ns(struct env *env)
{
	(void)env;
	return clock_ns(CLOCK_REALTIME);
}

/* The kernel's own generator, a buffer full at a time: numbers nobody can guess. */
static uint64_t env_linux_random(struct env *env)
{
	struct env_linux *el = env_linux_of(env);
	if (el->random_left == 0) {
		/* Up to 256 bytes are never interrupted; before the pool is ready it waits. */
		ssize_t n = getrandom(el->random, sizeof el->random, 0);
		if (n != sizeof el->random) {
			fprintf(stderr, "aquifer: getrandom: %s\n", strerror(errno));
			abort();
		}
		el->random_left = RANDOM_WORDS;
	}
	return el->random[--el->random_left];
}

static void env_linux_boot_id(struct env *env, char ret_id[37])
{
	(void)env;
	memset(ret_id, 0, 37);
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, ret_id, 36);
	if (fd >= 0)
		close(fd);
	/* Without /proc: an id that no boot has, so nothing is taken for "the same boot". */
	if (n != 36)
		snprintf(ret_id, 37, "%08lx-0000-0000-0000-%012lx", env_linux_random(env) & 0xffffffff,
			 env_linux_random(env) & 0xffffffffffff);
}

static uint64_t env_linux_pids(struct env *env)
{
	char link[32] = "";
	unsigned number = 0;
	(void)env;
	return readlink("/proc/self/ns/pid", link, sizeof link - 1) > 0 && sscanf(link, "pid:[%u]", &number) == 1 ? number : 0;
}

/* ---- watched descriptors ---- */

int env_linux_watch(struct env_linux *el, int fd, uint32_t events, struct source *source)
{
	struct epoll_event e = { .events = events | EPOLLET, .data.ptr = source };
	return epoll_ctl(el->epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

/* A fd_watch has no room for a struct source; its pointer is told apart by the lowest bit. */
#define WATCH_TAG 1u

static void env_linux_fd_watch_start(struct env *env, struct fd_watch *w, int fd, struct job *parent)
{
	struct env_linux *el = env_linux_of(env);
	struct epoll_event e = { .events = EPOLLIN | EPOLLRDHUP | (w->kept ? 0 : EPOLLONESHOT),
				 .data.u64 = (uint64_t)(uintptr_t)w | WATCH_TAG };
	w->fd = fd;
	w->parent = parent;
	if (w->kept && w->registered)
		return;
	/* One that ended before stays registered, disarmed, until its descriptor is closed. */
	int r = epoll_ctl(el->epoll_fd, EPOLL_CTL_MOD, fd, &e);
	if (r < 0 && errno == ENOENT)
		r = epoll_ctl(el->epoll_fd, EPOLL_CTL_ADD, fd, &e);
	w->registered = r == 0;
	if (r < 0) {
		w->parent = NULL;
		job_put(parent, -errno);
	}
}

static void watch_end(struct fd_watch *w, int status)
{
	struct job *parent = w->parent;
	w->parent = NULL;
	if (parent)
		job_put(parent, status);
}

static void watch_forget(struct env_linux *el, struct fd_watch *w)
{
	epoll_ctl(el->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	w->registered = false;
}

static void env_linux_fd_watch_cancel(struct env *env, struct fd_watch *w)
{
	watch_forget(env_linux_of(env), w);
	watch_end(w, -ECANCELED);
}

static void event_handle(struct env_linux *el, const struct epoll_event *e)
{
	if (e->data.u64 & WATCH_TAG) {
		struct fd_watch *w = (struct fd_watch *)(uintptr_t)(e->data.u64 & ~(uint64_t)WATCH_TAG);
		/* A kept one that nobody waits for would be reported in every turn. */
		if (!w->parent)
			watch_forget(el, w);
		watch_end(w, 0);
	} else {
		struct source *s = e->data.ptr;
		s->ready(s, e->events);
	}
}

/* ---- the turn ---- */

static void turn_jobs(struct env_linux *el)
{
	for (unsigned i = 0; i < STEPS_PER_ROUND && loop_run_one(&el->env.loop); i++)
		;
}

/* True if there is more to do before waiting for anything. */
static bool turn_round(struct env_linux *el)
{
	turn_jobs(el);
	env_linux_streams_flush(el);
	bool more = env_linux_aio_flush(el);
	env_linux_work_flush(el);
	env_linux_aio_reap(el);
	return more || !link_empty(&el->env.loop.ready);
}

static int turn_wait(struct env_linux *el, struct epoll_event *events, bool sleep)
{
	uint64_t wait_ns = 0;
	bool forever = sleep && el->timer_count == 0;
	if (sleep && el->timer_count) {
		uint64_t now_ns = env_linux_clock_ns(), due_ns = el->timers[0]->due_ns;
		wait_ns = due_ns > now_ns ? due_ns - now_ns : 0;
	}
	if (!el->no_pwait2) {
		struct timespec t = { (time_t)(wait_ns / NS_PER_S), (long)(wait_ns % NS_PER_S) };
		int n = epoll_pwait2(el->epoll_fd, events, EVENTS_PER_TURN, forever ? NULL : &t, NULL);
		if (n >= 0 || (errno != ENOSYS && errno != EPERM))
			return n;
		el->no_pwait2 = true;
	}
	uint64_t wait_ms = wait_ns / NS_PER_MS + (wait_ns % NS_PER_MS != 0);
	int timeout_ms = forever ? -1 : wait_ms > 3600 * 1000 ? 3600 * 1000 : (int)wait_ms;
	return epoll_wait(el->epoll_fd, events, EVENTS_PER_TURN, timeout_ms);
}

static void turn(struct env_linux *el, const bool *stop)
{
	struct epoll_event events[EVENTS_PER_TURN];
	bool more = true;
	for (unsigned i = 0; i < ROUNDS_PER_TURN && more; i++)
		more = turn_round(el);
	int n = turn_wait(el, events, /* sleep= */ !more && !*stop);
	el->now_ns = env_linux_clock_ns();
	for (int i = 0; i < n; i++) /* n < 0: a signal, or nothing that the next turn won't see again */
		event_handle(el, &events[i]);
	env_linux_timers_run(el);
}

void env_linux_run(struct env *env, const bool *stop)
{
	struct env_linux *el = env_linux_of(env);
	el->now_ns = env_linux_clock_ns();
	while (!*stop)
		turn(el, stop);
}

struct run_fiber {
	struct job job;
	bool ended;
};

static void run_fiber_ended(struct job *j)
{
	container_of(j, struct run_fiber, job)->ended = true;
}

int env_linux_run_fiber(struct env *env, int (*run)(void *arg), void *arg)
{
	struct run_fiber f = { .ended = false };
	job_init(&f.job, &env->loop);
	job_hold(&f.job);
	int r = fiber_start(&env->loop, run, arg, &f.job);
	if (r < 0)
		return r;
	job_then(&f.job, run_fiber_ended);
	env_linux_run(env, &f.ended);
	return f.job.status;
}

/* ---- creation ---- */

static const struct env_ops env_linux_ops = {
	.now_ns = env_linux_now_ns,
	.wall_ns = env_linux_wall_ns,
	.random = env_linux_random,
	.boot_id = env_linux_boot_id,
	.pids = env_linux_pids,
	.timer_start = env_linux_timer_start,
	.timer_cancel = env_linux_timer_cancel,
	.offload = env_linux_offload,
	.file_open = env_linux_file_open,
	.file_close = env_linux_file_close,
	.file_stat = env_linux_file_stat,
	.file_lock = env_linux_file_lock,
	.file_claim = env_linux_file_claim,
	.file_map = env_linux_file_map,
	.file_submit = env_linux_file_submit,
	.mkdir = env_linux_mkdir,
	.unlink = env_linux_unlink,
	.rmdir = env_linux_rmdir,
	.rename = env_linux_rename,
	.real_path = env_linux_real_path,
	.sync_dir = env_linux_sync_dir,
	.list_dir = env_linux_list_dir,
	.space = env_linux_space,
	.stream_connect = env_linux_stream_connect,
	.stream_listen = env_linux_stream_listen,
	.stream_accept = env_linux_stream_accept,
	.listener_close = env_linux_listener_close,
	.listener_address = env_linux_listener_address,
	.stream_recv = env_linux_stream_recv,
	.stream_send = env_linux_stream_send,
	.stream_shutdown = env_linux_stream_shutdown,
	.stream_close = env_linux_stream_close,
	.stream_peer_uid = env_linux_stream_peer_uid,
	.stream_peer_pid = env_linux_stream_peer_pid,
	.stream_peer = env_linux_stream_peer,
	.own_address = env_linux_own_address,
	.http_client_create = env_linux_http_client_create,
	.http_client_renew = env_linux_http_client_renew,
	.http_client_close = env_linux_http_client_close,
	.http_submit = env_linux_http_submit,
	.http_cancel = env_linux_http_cancel,
	.fd_watch_start = env_linux_fd_watch_start,
	.fd_watch_cancel = env_linux_fd_watch_cancel,
};

/* A file grown beyond RLIMIT_FSIZE is an error of that write, not of the process. */
static void ignore_file_limit_signal(void)
{
	struct sigaction now;
	if (sigaction(SIGXFSZ, NULL, &now) == 0 && now.sa_handler == SIG_DFL)
		signal(SIGXFSZ, SIG_IGN);
}

uint64_t env_linux_raise_files(void)
{
	struct rlimit l, all;
	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return UINT64_MAX;
	all = (struct rlimit){ l.rlim_max, l.rlim_max };
	return l.rlim_cur < l.rlim_max && setrlimit(RLIMIT_NOFILE, &all) == 0 ? l.rlim_max : l.rlim_cur;
}

int env_linux_create(unsigned threads, struct env **ret_env)
{
	int r = -ENOMEM;
	struct env_linux *el = calloc(1, sizeof *el);
	if (!el)
		return r;
	ignore_file_limit_signal();
	el->env.ops = &env_linux_ops;
	loop_init(&el->env.loop, &el->env);
	link_init(&el->dirty_streams);
	fiber_cond_init(&el->lookup_ended);
	el->now_ns = env_linux_clock_ns();
	el->send_iov = calloc(IOV_LIMIT, sizeof *el->send_iov);
	if (!el->send_iov)
		goto err_after_env;
	r = env_linux_timers_create(el);
	if (r < 0)
		goto err_after_env;
	el->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (el->epoll_fd < 0) {
		r = -errno;
		goto err_after_env;
	}
	env_linux_aio_init(el);
	r = env_linux_work_create(el, threads);
	if (r < 0)
		goto err_after_epoll;
	*ret_env = &el->env;
	return 0;

err_after_epoll:
	close(el->epoll_fd);
err_after_env:
	env_linux_timers_destroy(el);
	free(el->send_iov);
	free(el);
	return r;
}

void env_linux_destroy(struct env *env)
{
	if (!env)
		return;
	struct env_linux *el = env_linux_of(env);
	env_linux_work_destroy(el);
	env_linux_aio_destroy(el);
	close(el->epoll_fd);
	env_linux_timers_destroy(el);
	free(el->send_iov);
	free(el);
}
