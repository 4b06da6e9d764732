/* Loop and job: the only scheduler there is.
 *
 * A job is a step function and a count of what it waits for. A step holds once for each
 * thing it starts (job_hold) and ends with job_then(next); each thing that ends puts
 * (job_put). When the count reaches zero the job goes to the loop's ready queue and
 * `next` runs from there, never from inside a completion, so nothing re-enters:
 *
 *     start ── hold, hold ── job_then(step2) ──(put, put)──▶ ready queue ──▶ step2 …
 *
 * One loop per thread; nothing here is thread-safe. */
#ifndef AQ_JOB_H
#define AQ_JOB_H
#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/link.h"

struct env;
struct fiber;

struct loop {
	struct link ready;
	struct env *env;
	uint64_t shuffle_state; /* not zero: pick among the first ready jobs at random (simulator) */
	uint64_t steps;
};

struct job;
typedef void job_step(struct job *job);

struct job {
	struct loop *loop;
	job_step *step;
	uint32_t pending;
	int status; /* 0, or the first error put */
	struct link link;
	struct fiber *fiber; /* the fiber that waits for this job, see fiber_wait() */
};

void loop_init(struct loop *loop, struct env *env);
/* Runs ready jobs until none is left; returns how many ran. */
unsigned loop_run_ready(struct loop *loop);
/* Runs one ready job; false if there is none. */
bool loop_run_one(struct loop *loop);

/* The job starts with one hold, which the first job_then() puts. */
static inline void job_init(struct job *j, struct loop *loop)
{
	j->loop = loop;
	j->step = NULL;
	j->pending = 1;
	j->status = 0;
	j->fiber = NULL;
	link_init(&j->link);
}

static inline void job_hold(struct job *j)
{
	assert(j->pending > 0);
	j->pending++;
}

/* One thing `j` held for has ended with `status` (0 or -errno; the first error is kept). */
static inline void job_put(struct job *j, int status)
{
	assert(j->pending > 0);
	if (status != 0 && j->status == 0)
		j->status = status;
	if (--j->pending == 0) {
		assert(j->step);
		link_push(&j->loop->ready, &j->link);
	}
}

/* Last statement of every step: run `step` once everything held has been put. The job
 * may be gone when this returns to the caller's caller, so touch nothing after it. */
static inline void job_then(struct job *j, job_step *step)
{
	j->step = step;
	job_put(j, 0);
}
#endif
