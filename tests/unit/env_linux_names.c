/* Names that are looked up where nobody answers (core/env_linux_address.c), and hosts that don't answer at their first address. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/env.h"
#include "core/fiber.h"

enum { LOOKUPS = 40, HANGS_S = 10 };

static sem_t answers; /* so many hanging look-ups are let go */
static unsigned late; /* … were not, in HANGS_S */

/* In the place of the library's, for this program: of hosts of the domain "hangs" nobody knows, those of "two" are 127.0.0.2 and 127.0.0.1. */
int getaddrinfo(const char *restrict node, const char *restrict service, const struct addrinfo *restrict hints, struct addrinfo **restrict ret)
{
	int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
	const char *domain = node ? strrchr(node, '.') : NULL;
	*(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
	if (domain && strcmp(domain, ".two") == 0 && !(hints->ai_flags & AI_NUMERICHOST))
		return real("127.0.0.2", service, hints, ret) || real("127.0.0.1", service, hints, &(*ret)->ai_next) ? EAI_FAIL : 0;
	if (!domain || strcmp(domain, ".hangs") != 0 || hints->ai_flags & AI_NUMERICHOST)
		return real(node, service, hints, ret);
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += HANGS_S;
	while (sem_timedwait(&answers, &until) < 0)
		if (errno == ETIMEDOUT) {
			__atomic_add_fetch(&late, 1, __ATOMIC_SEQ_CST);
			break;
		}
	return EAI_AGAIN;
}

static struct env *env;

static int connect_run(void *arg)
{
	struct stream *s;
	(void)arg;
	cr_assert_lt(stream_connect(env, "tcp:host.hangs:1", 60 * NS_PER_S, &s), 0);
	return 0;
}

/* Work of another kind: what waits is let go when it is done. */
static int answer(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < LOOKUPS; i++)
		sem_post(&answers);
	return 0;
}

static int test_run(void *arg)
{
	struct job j;
	(void)arg;
	job_init(&j, &env->loop);
	for (unsigned i = 0; i < LOOKUPS; i++) {
		job_hold(&j);
		cr_assert_eq(fiber_start(&env->loop, connect_run, NULL, &j), 0);
	}
	fiber_sleep(&env->loop, NS_PER_MS); /* they begin */
	cr_assert_eq(env_offload_wait(env, answer, NULL), 0);
	return fiber_wait(&j);
}

Test(env_linux_names, names_that_nobody_answers_for_leave_workers_for_others, .timeout = 120)
{
	sem_init(&answers, 0, 0);
	cr_assert_eq(env_linux_create(0, &env), 0);
	cr_assert_eq(env_linux_run_fiber(env, test_run, NULL), 0);
	cr_assert_eq(late, 0, "nothing else was done in %d s", HANGS_S);
	env_linux_destroy(env);
}

static int listen_at(const char *address, int port, int backlog, struct sockaddr_in *ret)
{
	socklen_t length = sizeof *ret;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	*ret = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	cr_assert_eq(inet_pton(AF_INET, address, &ret->sin_addr), 1);
	cr_assert_eq(bind(fd, (struct sockaddr *)ret, sizeof *ret), 0);
	cr_assert_eq(listen(fd, backlog), 0);
	cr_assert_eq(getsockname(fd, (struct sockaddr *)ret, &length), 0);
	return fd;
}

/* Its backlog is full, and nobody takes anything out: who connects now hears nothing. */
enum { WAITING = 4 };
static void fill(const struct sockaddr_in *at, int ret_fds[WAITING])
{
	for (unsigned i = 0; i < WAITING; i++) {
		ret_fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		connect(ret_fds[i], (const struct sockaddr *)at, sizeof *at);
	}
}

static int second_run(void *arg)
{
	struct sockaddr_in first, second;
	struct stream *s = NULL;
	char address[64];
	int waiting[WAITING];
	(void)arg;
	int silent = listen_at("127.0.0.2", 0, 0, &first);
	int port = ntohs(first.sin_port), good = listen_at("127.0.0.1", port, 8, &second);
	fill(&first, waiting);
	snprintf(address, sizeof address, "tcp:127.0.0.2:%d", port);
	cr_assert_eq(stream_connect(env, address, NS_PER_S / 2, &s), -ETIMEDOUT, "it answers");
	snprintf(address, sizeof address, "tcp:host.two:%d", port);
	cr_assert_eq(stream_connect(env, address, 4 * NS_PER_S, &s), 0, "its other address isn't tried");
	stream_close(s);
	for (unsigned i = 0; i < WAITING; i++)
		close(waiting[i]);
	close(silent);
	close(good);
	return 0;
}

Test(env_linux_names, an_address_where_nobody_answers_leaves_time_for_the_next, .timeout = 120)
{
	cr_assert_eq(env_linux_create(0, &env), 0);
	cr_assert_eq(env_linux_run_fiber(env, second_run, NULL), 0);
	env_linux_destroy(env);
}
