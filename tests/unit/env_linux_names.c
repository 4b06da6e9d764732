/* Names that are looked up where nobody answers (core/env_linux_address.c). */
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <semaphore.h>
#include <string.h>
#include <time.h>

#include "core/env.h"
#include "core/fiber.h"

enum { LOOKUPS = 40, HANGS_S = 10 };

static sem_t answers; /* so many hanging look-ups are let go */
static unsigned late; /* … were not, in HANGS_S */

/* In the place of the library's, for this program: of hosts of the domain "hangs" nobody knows. */
int getaddrinfo(const char *restrict node, const char *restrict service, const struct addrinfo *restrict hints, struct addrinfo **restrict ret)
{
	int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
	const char *domain = node ? strrchr(node, '.') : NULL;
	*(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
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
