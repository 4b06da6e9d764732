/* Scenarios of the simulator: each runs a world from a seed and checks it against an oracle.
 * A new one: a file tests/sim/scenario_NAME.c and a line in main.c's table. */
#ifndef AQ_SCENARIO_H
#define AQ_SCENARIO_H
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/env_sim.h"

struct scenario_run {
	uint64_t seed;
	FILE *trace;          /* NULL: quiet; pass it to sim_trace_to() */
	bool failed;
	char why[512];        /* the first failure */
	uint64_t steps;       /* filled by scenario_end() */
	uint64_t hash;
	uint64_t faults[SIM_FAULTS];
};

struct scenario {
	const char *name, *summary;
	unsigned share;       /* where all scenarios are run, one seed for so many of the others, for its are long; 0: as many */
	/* Runs one seed; says what is wrong with scenario_fail(). Frees everything, also after a failure. */
	void (*run)(struct scenario_run *run);
};

extern const struct scenario scenario_cluster, scenario_graph, scenario_group, scenario_image, scenario_move, scenario_operator, scenario_rebuild, scenario_segment, scenario_takeover, scenario_volume;

/* Records the first failure. */
void scenario_fail(struct scenario_run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define SCENARIO_CHECK(run, condition, ...)                  \
	do {                                                 \
		if (!(condition))                            \
			scenario_fail((run), __VA_ARGS__);   \
	} while (0)
/* Makes the world of this run, and notes how it went before it is destroyed. */
struct sim *scenario_sim(struct scenario_run *run, const struct sim_doses *doses);
void scenario_end(struct scenario_run *run, struct sim *sim);
/* Steps the world until `*stop`, at most `steps` steps; true if it stopped. A world at rest before is a failure. */
bool scenario_step_until(struct scenario_run *run, struct sim *sim, const bool *stop, uint64_t steps);
/* Was a request that ended with `status` given up, as the volume says (its io-timeout; 0: never)? It may not be earlier, and one that had to
 * wait must be, not much later. NULL: nobody is there to ask. */
bool scenario_gave_up(struct scenario_run *run, struct sim *sim, int status, uint64_t began_ns, uint32_t limit_ms);

/* A fiber that the scenario runs next to the world; `ended` when it has. */
struct scenario_task {
	struct job job;
	int status;
	bool ended;
};
void scenario_task_start(struct scenario_task *t, struct env *env, int (*run)(void *arg), void *arg);
#endif
