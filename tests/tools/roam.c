/* roam SEED BLOCKS TARGET...: a guest whose disk moves. Eight threads, each with its own part of the first BLOCKS 4 KiB blocks, write, read and
 * compare, and flush through one target until that fails, then through the next, with the same request, until one takes it; nothing else may be read than what
 * was acknowledged last. SIGUSR1 makes it read and compare all between two requests, and print "checked N, E errors, p99 P ms, slowest S ms": how often it did so, how
 * many requests failed until then at a target that was open, and how long requests took since the last time. SIGTERM ends it: all is read and compared once more, and the requests that found their target gone are printed, with how long each took in ms. A
 * request that nobody takes for a minute, or a wrong block, is a failure. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/tools/lib/target.h"

enum { THREADS = 8, BLOCK = 4096, TARGETS_MAX = 8, BLOCKS_MAX = 1 << 20, MOVES_MAX = 16384, TOOK_MAX = 65536 };
#define PATIENCE_S 60.0

static const char *paths[TARGETS_MAX];
static unsigned path_count, block_count;
static atomic_bool stop, failed;
static atomic_uint moves, errors;
static atomic_uint checks_wanted;               /* SIGUSR1s so far */
static atomic_uint checks_done;                 /* by all threads together */
static double move_ms[MOVES_MAX];
static atomic_uint took_ms[TOOK_MAX];           /* requests by how long they took, since the last check */
static atomic_ulong done;

struct guest {
	pthread_t thread;
	unsigned index, at;      /* of the target in use */
	struct target *target[TARGETS_MAX];
	uint64_t random;
	uint32_t *version;       /* of each of its blocks, as acknowledged last; 0: never written */
	unsigned checks;         /* of all of its blocks, done for SIGUSR1 */
	uint8_t *buffer;
};

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t draw(struct guest *g, uint64_t below)
{
	g->random = g->random * 6364136223846793005u + 1442695040888963407u;
	return (g->random >> 33) % below;
}

static void fill(uint8_t *to, uint64_t block, uint32_t version)
{
	for (size_t i = 0; i < BLOCK; i += 16) {
		uint64_t words[2] = { version ? block : 0, version ? (uint64_t)version << 16 | i / 16 : 0 };
		memcpy(to + i, words, sizeof words);
	}
}

enum what { WRITE, READ, FLUSH };

static int attempt(struct guest *g, enum what what, uint64_t block)
{
	static const struct target_options how = { 0 };
	struct target **t = &g->target[g->at];
	if (!*t && target_open(paths[g->at], &how, t) < 0)
		return -1;
	int r = what == WRITE ? target_write(*t, g->buffer, BLOCK, block * BLOCK) :
		what == READ ? target_read(*t, g->buffer, BLOCK, block * BLOCK) : target_flush(*t);
	if (r == 0)
		return 0;
	errors++;
	target_close(*t); /* its process may be another one next time */
	*t = NULL;
	return -1;
}

/* By whichever target takes it. */
static int request(struct guest *g, enum what what, uint64_t block)
{
	double began = now();
	unsigned first = g->at;
	for (unsigned attempts = 0; attempt(g, what, block) < 0; attempts++) {
		if (now() - began > PATIENCE_S) {
			fprintf(stderr, "roam: no target takes a request on block %" PRIu64 " for a minute: %s\n", block, strerror(errno));
			failed = true;
		}
		if (failed)
			return -1;
		g->at = (g->at + 1) % path_count;
		if (attempts % path_count == path_count - 1)
			usleep(2000);
	}
	double ms = (now() - began) * 1000;
	took_ms[ms < TOOK_MAX ? (unsigned)ms : TOOK_MAX - 1]++;
	if (g->at != first) {
		unsigned m = atomic_fetch_add(&moves, 1);
		if (m < MOVES_MAX)
			move_ms[m] = ms;
	}
	done++;
	return 0;
}

static uint64_t block_of(const struct guest *g, uint64_t i) { return i * THREADS + g->index; }

static int compare(struct guest *g, uint64_t i)
{
	static const char zero[16];
	uint8_t want[BLOCK];
	if (request(g, READ, block_of(g, i)) < 0)
		return -1;
	fill(want, block_of(g, i), g->version[i]);
	if (memcmp(want, g->buffer, BLOCK) == 0)
		return 0;
	uint64_t got[2];
	memcpy(got, g->buffer, sizeof got);
	fprintf(stderr, "roam: block %" PRIu64 " holds %s%" PRIu64 ", version %" PRIu64 ", instead of version %u (through %s)\n", block_of(g, i),
		memcmp(g->buffer, zero, 16) ? "block " : "zeroes, ", got[0], got[1] >> 16, g->version[i], paths[g->at]);
	failed = true;
	return -1;
}

/* What an earlier run left is where this one begins. */
static void learn(struct guest *g, uint64_t i)
{
	uint64_t got[2];
	if (request(g, READ, block_of(g, i)) < 0)
		return;
	memcpy(got, g->buffer, sizeof got);
	g->version[i] = (uint32_t)(got[1] >> 16);
	compare(g, i);
}

static void compare_all(struct guest *g)
{
	for (uint64_t i = 0; i < block_count / THREADS && !failed; i++)
		compare(g, i);
}

/* Begins to count anew. */
static void took(unsigned *ret_p99_ms, unsigned *ret_slowest_ms)
{
	static unsigned count[TOOK_MAX];
	unsigned long all = 0, seen = 0;
	for (unsigned ms = 0; ms < TOOK_MAX; ms++)
		all += count[ms] = atomic_exchange(&took_ms[ms], 0);
	*ret_p99_ms = *ret_slowest_ms = 0;
	for (unsigned ms = 0; ms < TOOK_MAX; ms++) {
		if (!count[ms])
			continue;
		if (seen < all - all / 100)
			*ret_p99_ms = ms;
		seen += count[ms];
		*ret_slowest_ms = ms;
	}
}

/* The thread that is the last one with it says so. */
static void check_now(struct guest *g)
{
	g->checks++;
	compare_all(g);
	if (failed || atomic_fetch_add(&checks_done, 1) + 1 != g->checks * THREADS)
		return;
	unsigned p99_ms, slowest_ms;
	took(&p99_ms, &slowest_ms);
	printf("checked %u, %u errors, p99 %u ms, slowest %u ms\n", g->checks, errors, p99_ms, slowest_ms);
	fflush(stdout);
}

static void *guest(void *arg)
{
	struct guest *g = arg;
	unsigned blocks = block_count / THREADS;
	for (uint64_t i = 0; i < blocks && !failed; i++)
		learn(g, i);
	while (!stop && !failed) {
		if (g->checks < checks_wanted)
			check_now(g);
		uint64_t i = draw(g, blocks), choice = draw(g, 10);
		if (choice == 0) {
			request(g, FLUSH, 0);
		} else if (choice < 4) {
			compare(g, i);
		} else {
			fill(g->buffer, block_of(g, i), g->version[i] + 1);
			if (request(g, WRITE, block_of(g, i)) == 0)
				g->version[i]++;
		}
	}
	compare_all(g);
	for (unsigned i = 0; i < path_count; i++)
		target_close(g->target[i]);
	return NULL;
}

static void on_term(int signal_number)
{
	(void)signal_number;
	stop = true;
}

static void on_usr1(int signal_number)
{
	(void)signal_number;
	checks_wanted++;
}

int main(int argc, char **argv)
{
	static struct guest guests[THREADS];
	if (argc < 4 || argc > 3 + TARGETS_MAX || (block_count = (unsigned)atoi(argv[2])) < THREADS || block_count > BLOCKS_MAX) {
		fprintf(stderr, "usage: roam SEED BLOCKS TARGET...\n");
		return 2;
	}
	path_count = (unsigned)argc - 3;
	for (unsigned i = 0; i < path_count; i++)
		paths[i] = argv[3 + i];
	signal(SIGTERM, on_term);
	signal(SIGUSR1, on_usr1);
	for (unsigned i = 0; i < THREADS; i++) {
		struct guest *g = &guests[i];
		*g = (struct guest){ .index = i, .random = strtoull(argv[1], NULL, 10) * THREADS + i, .version = calloc(block_count / THREADS, 4) };
		if (!g->version || posix_memalign((void **)&g->buffer, BLOCK, BLOCK) || pthread_create(&g->thread, NULL, guest, g))
			return 1;
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(guests[i].thread, NULL);
	for (unsigned i = 0; i < moves && i < MOVES_MAX; i++)
		printf("%.1f\n", move_ms[i]);
	fprintf(stderr, "roam: %lu requests, %u of them moved\n", done, moves);
	return failed ? 1 : 0;
}
