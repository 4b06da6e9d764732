/* One worker thread signals and waits, blocking: the loop goes on meanwhile.
 *
 *   SIGTERM, every EVICT_AGAIN_MS ──EVICT_GENTLE_MS──▶ SIGKILL ──EVICT_KILLED_MS──▶ -ETIMEDOUT */
#include "core/evict.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EVICT_AGAIN_MS 100 /* signals that are sent at once are one */
#define COMM_BYTES 16      /* what the kernel keeps of a program's name, with a NUL */

/* FIBER. */
static bool runs(struct env *env, uint64_t pid, const char *program)
{
	char path[64], name[COMM_BYTES + 1] = "";
	struct file *f;
	size_t n = 0;
	snprintf(path, sizeof path, "/proc/%" PRIu64 "/comm", pid);
	if (file_open(env, path, 0, &f) < 0)
		return false;
	int r = file_read_wait(f, name, COMM_BYTES, 0, &n);
	file_close(env, f);
	name[strcspn(name, "\n")] = 0;
	return r == 0 && strncmp(name, program, COMM_BYTES - 1) == 0;
}

int evict_open(struct env *env, uint64_t pid, const char *program, int *ret_pidfd)
{
	if (pid == 0 || pid > INT32_MAX)
		return -ESRCH;
	int pidfd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
	if (pidfd < 0)
		return -errno;
	if (program && !runs(env, pid, program)) {
		close(pidfd);
		return -ESRCH;
	}
	*ret_pidfd = pidfd;
	return 0;
}

/* 0: it has ended; -ETIMEDOUT: not in that time. */
static int signal_and_wait(int pidfd, int signal_number, int wait_ms)
{
	if (syscall(SYS_pidfd_send_signal, pidfd, signal_number, NULL, 0) < 0 && errno != ESRCH)
		return -errno;
	struct pollfd gone = { .fd = pidfd, .events = POLLIN };
	int r = poll(&gone, 1, wait_ms);
	return r == 1 ? 0 : r == 0 || errno == EINTR ? -ETIMEDOUT : -errno;
}

static int end(void *arg)
{
	int pidfd = *(int *)arg, r = -ETIMEDOUT;
	for (int waited_ms = 0; r == -ETIMEDOUT && waited_ms < EVICT_GENTLE_MS; waited_ms += EVICT_AGAIN_MS)
		r = signal_and_wait(pidfd, SIGTERM, EVICT_AGAIN_MS);
	return r == -ETIMEDOUT ? signal_and_wait(pidfd, SIGKILL, EVICT_KILLED_MS) : r;
}

static int kill_it(void *arg) { return signal_and_wait(*(int *)arg, SIGKILL, EVICT_KILLED_MS); }

void evict_cancel(int pidfd) { close(pidfd); }

static int by_worker(struct env *env, int (*run)(void *arg), int pidfd)
{
	int r = env_offload_wait(env, run, &pidfd);
	close(pidfd);
	return r;
}

int evict_end(struct env *env, int pidfd) { return by_worker(env, end, pidfd); }
int evict_kill(struct env *env, int pidfd) { return by_worker(env, kill_it, pidfd); }
