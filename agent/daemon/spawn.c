#include "agent/daemon/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/daemon/wait.h"

extern char **environ;

/* Everything the child gets: null, log, log, pipe. */
static int set_files(posix_spawn_file_actions_t *a, const char *log, int pipe_fd)
{
	int e = posix_spawn_file_actions_addopen(a, 0, "/dev/null", O_RDONLY, 0);
	if (!e)
		e = posix_spawn_file_actions_addopen(a, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (!e)
		e = posix_spawn_file_actions_adddup2(a, 1, 2);
	if (!e)
		e = posix_spawn_file_actions_adddup2(a, pipe_fd, SPAWN_READY_FD);
	if (!e)
		e = posix_spawn_file_actions_addclosefrom_np(a, SPAWN_READY_FD + 1);
	if (!e)
		e = posix_spawn_file_actions_addchdir_np(a, "/");
	return -e;
}

/* A session of its own; no blocked or ignored signals inherited. */
static int set_attributes(posix_spawnattr_t *t)
{
	sigset_t none, all;
	sigemptyset(&none);
	sigfillset(&all);
	int e = posix_spawnattr_setflags(t, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	if (!e)
		e = posix_spawnattr_setsigmask(t, &none);
	if (!e)
		e = posix_spawnattr_setsigdefault(t, &all);
	return -e;
}

static const char *cure(int status)
{
	switch (-status) {
	case EMFILE:
	case ENFILE: return "raise the limit of open files";
	case EAGAIN: return "raise the limit of processes";
	case ENOMEM: return "there is no memory for it";
	default: return "may you run it, and write its log?";
	}
}

int spawn_daemon(char *const *argv, const char *log, pid_t *ret_pid, int *ret_ready, struct report *report)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) < 0)
		return report_set(report, -errno, "%s could not be started: %m (%s)", argv[0], cure(-errno));
	/* dup2 onto itself would keep close-on-exec: move the write end out of the way. */
	int high = fcntl(fds[1], F_DUPFD_CLOEXEC, SPAWN_READY_FD + 1);
	close(fds[1]);
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;
	posix_spawn_file_actions_init(&files);
	posix_spawnattr_init(&attributes);
	int r = high < 0 ? -errno : set_files(&files, log, high);
	if (r == 0)
		r = set_attributes(&attributes);
	if (r == 0)
		r = -posix_spawn(ret_pid, argv[0], &files, &attributes, argv, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&files);
	if (high >= 0)
		close(high);
	if (r < 0) {
		close(fds[0]);
		return report_set(report, r, "%s could not be started, with %s for its log: %s (%s)", argv[0], log, strerror(-r), cure(r));
	}
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	*ret_ready = fds[0];
	return 0;
}

/* Reads to the end of the pipe. */
static int read_all(struct env *env, int fd, uint64_t timeout_ns, char **ret_text)
{
	uint64_t until = env_now_ns(env) + timeout_ns;
	char *text = malloc(SPAWN_READY_MAX + 1);
	size_t n = 0;
	int r = text ? 0 : -ENOMEM;
	while (r == 0) {
		ssize_t got = read(fd, text + n, SPAWN_READY_MAX - n);
		if (got == 0)
			break;
		if (got > 0)
			n += (size_t)got;
		else if (errno != EAGAIN && errno != EINTR)
			r = -errno;
		else if (env_now_ns(env) >= until)
			r = -ETIMEDOUT;
		else
			r = wait_readable(env, fd, until - env_now_ns(env));
	}
	if (r < 0) {
		free(text);
		return r;
	}
	while (n && text[n - 1] == '\n')
		n--;
	text[n] = 0;
	*ret_text = text;
	return 0;
}

int spawn_wait(struct env *env, int ready, uint64_t timeout_ns, char **ret_text, struct report *report)
{
	char *text;
	int r = read_all(env, ready, timeout_ns, &text);
	if (r == -ETIMEDOUT)
		return report_set(report, r, "it did not get ready within %u seconds", (unsigned)(timeout_ns / NS_PER_S));
	if (r < 0)
		return r;
	if (!strncmp(text, "good ", 5)) {
		memmove(text, text + 5, strlen(text + 5) + 1);
		*ret_text = text;
		return 0;
	}
	int at = 0, status = 0;
	if (sscanf(text, "bad %d %n", &status, &at) == 1 && at && status < 0)
		report_set(report, status, "%s", text + at);
	else
		status = -ECHILD;
	free(text);
	return status;
}

void spawn_last_line(const char *log, char *ret, size_t room)
{
	char tail[1024];
	ret[0] = 0;
	int fd = open(log, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	off_t size = lseek(fd, 0, SEEK_END);
	off_t from = size > (off_t)sizeof tail - 1 ? size - (off_t)sizeof tail + 1 : 0;
	ssize_t n = pread(fd, tail, sizeof tail - 1, from);
	close(fd);
	while (n > 0 && tail[n - 1] == '\n')
		n--;
	if (n <= 0)
		return;
	tail[n] = 0;
	const char *line = strrchr(tail, '\n');
	snprintf(ret, room, "%s", line ? line + 1 : tail);
}

static int say(int fd, const char *text)
{
	size_t n = strlen(text), done = 0;
	while (done < n) {
		ssize_t w = write(fd, text + done, n - done);
		if (w < 0 && errno != EINTR)
			return -errno;
		done += w > 0 ? (size_t)w : 0;
	}
	return 0;
}

int ready_good(int fd, const char *text)
{
	if (fd < 0)
		return 0;
	int r = say(fd, "good ");
	if (r == 0)
		r = say(fd, text);
	close(fd);
	return r;
}

void ready_bad(int fd, int status, const char *sentence)
{
	if (fd < 0)
		return;
	char text[1200];
	snprintf(text, sizeof text, "bad %d %s", status, sentence);
	say(fd, text);
	close(fd);
}
