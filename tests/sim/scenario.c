/* What scenarios use. */
#include "tests/sim/scenario.h"

#include <errno.h>
#include <stdarg.h>

#include "core/bytes.h"
#include "core/fiber.h"

void scenario_fail(struct scenario_run *run, const char *format, ...)
{
	if (run->failed)
		return;
	run->failed = true;
	va_list args;
	va_start(args, format);
	vsnprintf(run->why, sizeof run->why, format, args);
	va_end(args);
	if (run->trace)
		fprintf(run->trace, "FAILED: %s\n", run->why);
}

struct sim *scenario_sim(struct scenario_run *run, const struct sim_doses *doses)
{
	struct sim *sim = sim_create(run->seed, doses);
	sim_trace_to(sim, run->trace);
	return sim;
}

void scenario_end(struct scenario_run *run, struct sim *sim)
{
	run->steps = sim_steps(sim);
	run->hash = sim_trace_hash(sim);
	for (unsigned i = 0; i < SIM_FAULTS; i++)
		run->faults[i] = sim_faults(sim, i);
	sim_destroy(sim);
}

bool scenario_step_until(struct scenario_run *run, struct sim *sim, const bool *stop, uint64_t steps)
{
	for (; !*stop && steps > 0; steps--)
		if (!sim_step(sim)) {
			scenario_fail(run, "everything waits for something that will not happen");
			return false;
		}
	return *stop;
}

static void task_ended(struct job *j)
{
	struct scenario_task *t = container_of(j, struct scenario_task, job);
	t->status = j->status;
	t->ended = true;
}

#define GIVE_UP_SLACK_NS (10 * NS_PER_S) /* servers that hang are known to only after two seconds, and one after the other may, five times at worst */

bool scenario_gave_up(struct scenario_run *run, struct sim *sim, int status, uint64_t began_ns, uint32_t limit_ms)
{
	uint64_t limit_ns = limit_ms * NS_PER_MS, waited_ns = sim ? sim_now_ns(sim) - began_ns : 0;
	if (limit_ns && waited_ns > limit_ns + GIVE_UP_SLACK_NS)
		scenario_fail(run, "a request took %llu ms, and was to be given up after %u", (unsigned long long)(waited_ns / NS_PER_MS), limit_ms);
	bool gave_up = status == -EIO && limit_ns && waited_ns >= limit_ns;
	if (gave_up)
		sim_note(sim, "a request is given up after %llu ms", (unsigned long long)(waited_ns / NS_PER_MS));
	return gave_up;
}

void scenario_task_start(struct scenario_task *t, struct env *env, int (*run)(void *arg), void *arg)
{
	*t = (struct scenario_task){ 0 };
	job_init(&t->job, &env->loop);
	job_hold(&t->job);
	if (fiber_start(&env->loop, run, arg, &t->job) < 0)
		job_put(&t->job, -ENOMEM);
	job_then(&t->job, task_ended);
}
