/* Jobs and the loop: what waits, what runs, in which order, with which status. */
#include <criterion/criterion.h>
#include <errno.h>

#include "core/job.h"

struct counted {
	struct job job;
	int runs, seen_status;
	int order;
};

static int order_next;

static void counted_step(struct job *j)
{
	struct counted *c = container_of(j, struct counted, job);
	c->runs++;
	c->seen_status = j->status;
	c->order = order_next++;
}

Test(job, runs_only_when_all_is_put_and_never_inside_a_put)
{
	struct loop loop;
	struct counted c = { .runs = 0 };
	loop_init(&loop, NULL);
	job_init(&c.job, &loop);
	job_hold(&c.job);
	job_hold(&c.job);
	job_then(&c.job, counted_step);
	cr_assert_eq(loop_run_ready(&loop), 0);
	job_put(&c.job, 0);
	cr_assert_eq(loop_run_ready(&loop), 0);
	job_put(&c.job, 0);
	cr_assert_eq(c.runs, 0, "a put must not run the step");
	cr_assert_eq(loop_run_ready(&loop), 1);
	cr_assert_eq(c.runs, 1);
	cr_assert_eq(loop.steps, 1);
}

Test(job, keeps_the_first_error)
{
	struct loop loop;
	struct counted c = { .runs = 0 };
	loop_init(&loop, NULL);
	job_init(&c.job, &loop);
	for (int i = 0; i < 3; i++)
		job_hold(&c.job);
	job_then(&c.job, counted_step);
	job_put(&c.job, 0);
	job_put(&c.job, -EIO);
	job_put(&c.job, -ENOSPC);
	loop_run_ready(&loop);
	cr_assert_eq(c.seen_status, -EIO);
}

Test(job, runs_in_the_order_of_becoming_ready)
{
	struct loop loop;
	struct counted c[5] = { 0 };
	loop_init(&loop, NULL);
	order_next = 0;
	for (int i = 0; i < 5; i++) {
		job_init(&c[i].job, &loop);
		job_hold(&c[i].job);
		job_then(&c[i].job, counted_step);
	}
	for (int i = 4; i >= 0; i--)
		job_put(&c[i].job, 0);
	cr_assert(loop_run_one(&loop));
	cr_assert_eq(c[4].runs, 1);
	cr_assert_eq(c[3].runs, 0);
	cr_assert_eq(loop_run_ready(&loop), 4);
	for (int i = 0; i < 5; i++)
		cr_assert_eq(c[i].order, 4 - i);
	cr_assert_not(loop_run_one(&loop));
}

static void chain_step(struct job *j)
{
	struct counted *c = container_of(j, struct counted, job);
	if (++c->runs < 10)
		job_then(j, chain_step);
}

Test(job, a_step_may_go_on_without_waiting)
{
	struct loop loop;
	struct counted c = { .runs = 0 };
	loop_init(&loop, NULL);
	job_init(&c.job, &loop);
	job_then(&c.job, chain_step);
	cr_assert_eq(loop_run_ready(&loop), 10);
	cr_assert_eq(c.runs, 10);
}

/* The simulator's shuffle: other orders than FIFO come up, each job still runs exactly once,
 * and the same seed gives the same order. */
static void shuffled(uint64_t seed, int ret_order[8])
{
	struct loop loop;
	struct counted c[8] = { 0 };
	loop_init(&loop, NULL);
	loop.shuffle_state = seed;
	order_next = 0;
	for (int i = 0; i < 8; i++) {
		job_init(&c[i].job, &loop);
		job_then(&c[i].job, counted_step);
	}
	cr_assert_eq(loop_run_ready(&loop), 8);
	for (int i = 0; i < 8; i++) {
		cr_assert_eq(c[i].runs, 1);
		ret_order[i] = c[i].order;
	}
}

Test(job, shuffle_is_complete_and_reproducible)
{
	int a[8], b[8], moved = 0;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		shuffled(seed, a);
		shuffled(seed, b);
		cr_assert_arr_eq(a, b, sizeof a);
		for (int i = 0; i < 8; i++)
			moved += a[i] != i;
	}
	cr_assert_gt(moved, 0);
}
