/* A thread for calls that may wait for our own answers (agent/exports/aside.h). */
#include "agent/exports/aside.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <unistd.h>

#include "core/env_linux.h"
#include "core/env_ops.h"

static void no_watch(struct env *env, struct fd_watch *w, int fd, struct job *parent)
{
	(void)env, (void)w, (void)fd;
	job_put(parent, -ENOMEM);
}

static int slow(void *arg)
{
	usleep(20000);
	*(volatile bool *)arg = true;
	return 7;
}

static int body(void *arg)
{
	struct env *env = arg;
	const struct env_ops *real = env->ops;
	struct env_ops ops = *real;
	struct aside a;
	int keep = dup(0);
	cr_assert_eq(aside_start(&a, keep), 0);
	ops.fd_watch_start = no_watch;
	for (unsigned i = 0; i < 4; i++) {
		volatile bool done = false;
		env->ops = i % 2 ? real : &ops;
		cr_assert_eq(aside_wait(env, &a, slow, (void *)(uintptr_t)&done), 7);
		cr_assert(done, "it goes on with what its caller has given up");
	}
	env->ops = real;
	aside_stop(&a);
	close(keep);
	return 0;
}

Test(aside, waits_for_the_call_when_the_kernel_cannot_tell_of_its_end)
{
	struct env *env;
	cr_assert_eq(env_linux_create(1, &env), 0);
	cr_assert_eq(env_linux_run_fiber(env, body, env), 0);
	env_linux_destroy(env);
}
