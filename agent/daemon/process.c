#include "agent/daemon/process.h"

#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "core/fiber.h"

static void signal_set(sigset_t *set)
{
	struct sigaction hup;
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	if (sigaction(SIGHUP, NULL, &hup) == 0 && hup.sa_handler != SIG_IGN) /* one that is blocked would come even so */
		sigaddset(set, SIGHUP);
}

void process_signals_block(void)
{
	sigset_t set;
	signal_set(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static void watch(struct process_signals *s);

static void signal_came(struct job *j)
{
	struct process_signals *s = container_of(j, struct process_signals, job);
	if (j->status < 0) {
		s->active = false;
		return;
	}
	struct signalfd_siginfo info;
	int number = read(s->fd, &info, sizeof info) == sizeof info ? (int)info.ssi_signo : 0;
	watch(s);
	if (number)
		s->on_signal(s->arg, number);
}

static void watch(struct process_signals *s)
{
	job_init(&s->job, &s->env->loop);
	fd_watch_start(s->env, &s->watch, s->fd, &s->job);
	job_then(&s->job, signal_came);
}

int process_signals_start(struct process_signals *s, struct env *env, void (*on_signal)(void *arg, int signal_number),
			  void *arg)
{
	sigset_t set;
	signal_set(&set);
	*s = (struct process_signals){ .env = env, .on_signal = on_signal, .arg = arg, .active = true };
	s->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->fd < 0)
		return -errno;
	watch(s);
	return 0;
}

void process_signals_stop(struct process_signals *s)
{
	fd_watch_cancel(s->env, &s->watch);
	while (s->active)
		fiber_sleep(&s->env->loop, 0);
	close(s->fd);
}
