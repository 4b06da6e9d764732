/* Fibers on the real env: waiting, sleeping, conditions, the mutex, reuse of stacks. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "core/env.h"
#include "core/fiber.h"

static struct env *env;

static void setup(void) { cr_assert_eq(env_linux_create(1, &env), 0); }
static void teardown(void) { env_linux_destroy(env); }

TestSuite(fiber, .init = setup, .fini = teardown, .timeout = 60);

static int returns_arg(void *arg) { return *(int *)arg; }

Test(fiber, result_comes_back)
{
	int zero = 0, error = -ENOSPC;
	cr_assert_eq(env_linux_run_fiber(env, returns_arg, &zero), 0);
	cr_assert_eq(env_linux_run_fiber(env, returns_arg, &error), -ENOSPC);
}

/* ---- waiting ---- */

static int wait_nothing(void *arg)
{
	struct job j;
	(void)arg;
	job_init(&j, &env->loop);
	cr_assert_eq(fiber_wait(&j), 0);
	j.status = -EIO; /* as a put that came before */
	cr_assert_eq(fiber_wait(&j), -EIO);
	return 0;
}
Test(fiber, wait_for_nothing_returns_at_once)
{
	cr_assert_eq(env_linux_run_fiber(env, wait_nothing, NULL), 0);
}

static int child(void *arg)
{
	int *n = arg;
	for (int i = 0; i < 10; i++) {
		fiber_sleep(&env->loop, 0);
		(*n)++;
	}
	return -*n;
}

static int wait_children(void *arg)
{
	int n[20] = { 0 };
	struct job j;
	(void)arg;
	job_init(&j, &env->loop);
	for (int i = 0; i < 20; i++) {
		job_hold(&j);
		cr_assert_eq(fiber_start(&env->loop, child, &n[i], &j), 0);
	}
	cr_assert_eq(n[0], 0, "a fiber runs from the ready queue only");
	cr_assert_eq(fiber_wait(&j), -10);
	for (int i = 0; i < 20; i++)
		cr_assert_eq(n[i], 10);
	return 0;
}
Test(fiber, waits_for_many) { cr_assert_eq(env_linux_run_fiber(env, wait_children, NULL), 0); }

static int nested(void *arg)
{
	int depth = *(int *)arg - 1, r = 0;
	struct job j;
	if (depth == 0)
		return fiber_sleep(&env->loop, NS_PER_MS);
	job_init(&j, &env->loop);
	job_hold(&j);
	r = fiber_start(&env->loop, nested, &depth, &j);
	return r < 0 ? r : fiber_wait(&j);
}
Test(fiber, fibers_wait_for_fibers)
{
	int depth = 100;
	cr_assert_eq(env_linux_run_fiber(env, nested, &depth), 0);
}

/* Many more than are kept, with stacks that get dirty. */
static int dirties(void *arg)
{
	volatile char big[16 << 10];
	memset((char *)big, *(int *)arg, sizeof big);
	fiber_sleep(&env->loop, 0);
	for (size_t i = 0; i < sizeof big; i++)
		if (big[i] != (char)*(int *)arg)
			return -EIO;
	return 0;
}

static int stacks(void *arg)
{
	int value[300];
	(void)arg;
	for (int round = 0; round < 3; round++) {
		struct job j;
		job_init(&j, &env->loop);
		for (int i = 0; i < 300; i++) {
			value[i] = i;
			job_hold(&j);
			cr_assert_eq(fiber_start(&env->loop, dirties, &value[i], &j), 0);
		}
		cr_assert_eq(fiber_wait(&j), 0);
	}
	return 0;
}
Test(fiber, stacks_are_apart_and_reused) { cr_assert_eq(env_linux_run_fiber(env, stacks, NULL), 0); }

static int sleeps(void *arg)
{
	(void)arg;
	uint64_t before = env_now_ns(env);
	cr_assert_eq(fiber_sleep(&env->loop, 5 * NS_PER_MS), 0);
	cr_assert_geq(env_now_ns(env) - before, 5 * NS_PER_MS);
	return 0;
}
Test(fiber, sleeps_at_least_as_long_as_told) { cr_assert_eq(env_linux_run_fiber(env, sleeps, NULL), 0); }

/* ---- condition ---- */

static struct fiber_cond cond;
static int stage, woken;

static int cond_waiter(void *arg)
{
	(void)arg;
	while (stage == 0)
		fiber_cond_wait(&env->loop, &cond);
	woken++;
	return 0;
}

static int cond_test(void *arg)
{
	struct job j;
	(void)arg;
	fiber_cond_init(&cond);
	fiber_cond_wake(&cond); /* nobody there */
	job_init(&j, &env->loop);
	for (int i = 0; i < 5; i++) {
		job_hold(&j);
		cr_assert_eq(fiber_start(&env->loop, cond_waiter, NULL, &j), 0);
	}
	fiber_sleep(&env->loop, 0);
	fiber_cond_wake(&cond); /* too early: they wait again */
	fiber_sleep(&env->loop, 0);
	cr_assert_eq(woken, 0);
	stage = 1;
	fiber_cond_wake(&cond);
	cr_assert_eq(fiber_wait(&j), 0);
	cr_assert_eq(woken, 5);
	return 0;
}
Test(fiber, cond_wakes_all) { cr_assert_eq(env_linux_run_fiber(env, cond_test, NULL), 0); }

/* ---- mutex ---- */

static struct fiber_mutex mutex;
static int inside, turns, served[64];

static int mutex_user(void *arg)
{
	int id = *(int *)arg;
	for (int i = 0; i < 4; i++) {
		fiber_mutex_lock(&env->loop, &mutex);
		cr_assert_eq(inside++, 0);
		served[turns++] = id;
		fiber_sleep(&env->loop, 0);
		cr_assert_eq(--inside, 0);
		fiber_mutex_unlock(&mutex);
	}
	return 0;
}

static int mutex_test(void *arg)
{
	int id[8];
	struct job j;
	(void)arg;
	fiber_mutex_init(&mutex);
	job_init(&j, &env->loop);
	for (int i = 0; i < 8; i++) {
		id[i] = i;
		job_hold(&j);
		cr_assert_eq(fiber_start(&env->loop, mutex_user, &id[i], &j), 0);
	}
	cr_assert_eq(fiber_wait(&j), 0);
	cr_assert_eq(turns, 32);
	/* Fair: who asks again at once comes after all who were waiting, so the turns go round. */
	for (int i = 8; i < 32; i++)
		cr_assert_eq(served[i], served[i - 8]);
	return 0;
}
Test(fiber, mutex_excludes_and_is_fair) { cr_assert_eq(env_linux_run_fiber(env, mutex_test, NULL), 0); }
