/* The simulator's driver: runs scenarios over seeds. Every failure prints the seed and the
 * command that shows it again; so does a crash. In the build of `make mutants` --plant NAME
 * switches a planted bug on.
 *
 * Exit 0: all good; 1: a seed failed; 2: wrong usage. */
#include <argp.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "tests/sim/scenario.h"

static const struct scenario *const scenarios[] = { /* sorted */
	&scenario_cluster,
	&scenario_graph,
	&scenario_group,
	&scenario_image,
	&scenario_move,
	&scenario_operator,
	&scenario_rebuild,
	&scenario_segment,
	&scenario_takeover,
	&scenario_volume,
};

static struct {
	uint64_t first, count;
	const char *scenario, *plant;
	bool trace, verbose, again;
} options = { .first = 1, .count = 100 };

/* ---- crashes name their seed, too ---- */

static char crash_text[256];

static void crashed(int sig)
{
	ssize_t ignored = write(STDERR_FILENO, crash_text, strlen(crash_text));
	(void)ignored;
	signal(sig, SIG_DFL);
	raise(sig);
}

static void replay_text(char *to, size_t size, const struct scenario *s, uint64_t seed)
{
	snprintf(to, size, "make %s SCENARIO=%s SEED=%llu%s%s", options.plant ? "mutant" : "sim", s->name,
		 (unsigned long long)seed, options.plant ? " PLANT=" : "", options.plant ? options.plant : "");
}

/* ---- running ---- */

/* Of all seeds of a scenario. */
struct totals {
	uint64_t steps, faults[SIM_FAULTS];
};

static bool run_seed(const struct scenario *s, uint64_t seed, struct totals *totals, uint64_t *ret_hash)
{
	char replay[128];
	struct scenario_run run = { .seed = seed, .trace = options.trace ? stdout : NULL };
	replay_text(replay, sizeof replay, s, seed);
	snprintf(crash_text, sizeof crash_text, "sim: %s: seed %llu: crashed\n  again: %s\n", s->name,
		 (unsigned long long)seed, replay);
	s->run(&run);
	totals->steps += run.steps;
	for (unsigned i = 0; i < SIM_FAULTS; i++)
		totals->faults[i] += run.faults[i];
	*ret_hash = run.hash;
	if (options.verbose)
		printf("%s seed %llu: %llu steps, hash %016llx%s\n", s->name, (unsigned long long)seed,
		       (unsigned long long)run.steps, (unsigned long long)run.hash, run.failed ? ", FAILED" : "");
	if (!run.failed)
		return true;
	fflush(stdout);
	fprintf(stderr, "sim: %s: seed %llu: %s\n  again: %s   (build/sim --trace shows each step)\n", s->name,
		(unsigned long long)seed, run.why, replay);
	return false;
}

/* How many of its seeds are wanted. */
static uint64_t seed_count(const struct scenario *s) { return options.scenario || !s->share ? options.count : div_up(options.count, s->share); }

static void print_totals(const struct scenario *s, const struct totals *t)
{
	bool any = false;
	printf("sim: %s: %llu seeds from %llu good, %llu steps", s->name, (unsigned long long)seed_count(s), (unsigned long long)options.first,
	       (unsigned long long)t->steps);
	for (unsigned i = 0; i < SIM_FAULTS; i++) {
		if (t->faults[i])
			printf("%s%llu %s", any ? ", " : "; ", (unsigned long long)t->faults[i], sim_fault_name(i));
		any |= t->faults[i] > 0;
	}
	printf("\n");
	fflush(stdout);
}

static bool run_scenario(const struct scenario *s)
{
	struct totals totals = { 0 };
	uint64_t hash, again;
	for (uint64_t i = 0; i < seed_count(s); i++) {
		bool good = run_seed(s, options.first + i, &totals, &hash);
		if (good && options.again && !options.trace) { /* is a seed a run? */
			good = run_seed(s, options.first + i, &totals, &again) && hash == again;
			if (hash != again)
				fprintf(stderr, "sim: %s: seed %llu: two runs differ\n", s->name,
					(unsigned long long)(options.first + i));
		}
		if (!good)
			return false;
	}
	print_totals(s, &totals);
	return true;
}

/* ---- the command line ---- */

enum { OPTION_SEEDS = 256, OPTION_FIRST, OPTION_PLANT, OPTION_TRACE, OPTION_TWICE, OPTION_LIST };
static const struct argp_option option_list[] = {
	{ "seed", 's', "N", 0, "run this one seed", 0 },
	{ "seeds", OPTION_SEEDS, "N", 0, "run so many seeds (default 100)", 0 },
	{ "first", OPTION_FIRST, "N", 0, "the first of them (default 1)", 0 },
	{ "scenario", 'c', "NAME", 0, "only this scenario (default: all)", 0 },
	{ "plant", OPTION_PLANT, "NAME", 0, "switch a planted bug on (make mutants)", 0 },
	{ "trace", OPTION_TRACE, NULL, 0, "print each step", 0 },
	{ "twice", OPTION_TWICE, NULL, 0, "run each seed twice and compare", 0 },
	{ "verbose", 'v', NULL, 0, "a line for each seed", 0 },
	{ "list", OPTION_LIST, NULL, 0, "list the scenarios", 0 },
	{ 0 },
};

static uint64_t number(struct argp_state *state, const char *arg)
{
	char *end;
	uint64_t n = strtoull(arg, &end, 0);
	if (*arg == '\0' || *end)
		argp_error(state, "'%s' is not a number", arg);
	return n;
}

static error_t option_parse(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case 's':
		options.first = number(state, arg);
		options.count = 1;
		break;
	case OPTION_SEEDS: options.count = number(state, arg); break;
	case OPTION_FIRST: options.first = number(state, arg); break;
	case 'c': options.scenario = arg; break;
	case OPTION_PLANT: options.plant = arg; break;
	case OPTION_TRACE: options.trace = true; break;
	case OPTION_TWICE: options.again = true; break;
	case 'v': options.verbose = true; break;
	case OPTION_LIST:
		for (size_t i = 0; i < ARRAY_COUNT(scenarios); i++)
			printf("%-10s %s\n", scenarios[i]->name, scenarios[i]->summary);
		exit(0);
	default: return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct argp parser = { option_list, option_parse, NULL, "Runs scenarios in the simulated world.", NULL, NULL, NULL };
	argp_err_exit_status = 2;
	argp_parse(&parser, argc, argv, 0, NULL, NULL);
#ifdef AQ_PLANTS
	plant_active = options.plant;
#else
	if (options.plant) {
		fprintf(stderr, "sim: this build has no planted bugs (make mutants builds one)\n");
		return 2;
	}
#endif
	signal(SIGABRT, crashed);
	signal(SIGSEGV, crashed);
	bool found = false;
	for (size_t i = 0; i < ARRAY_COUNT(scenarios); i++) {
		if (options.scenario && strcmp(scenarios[i]->name, options.scenario))
			continue;
		found = true;
		if (!run_scenario(scenarios[i]))
			return 1;
	}
	if (!found) {
		fprintf(stderr, "sim: there is no scenario '%s' (see --list)\n", options.scenario);
		return 2;
	}
	return 0;
}
