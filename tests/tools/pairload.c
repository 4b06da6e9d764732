/* Which of two NBD exports is faster, and how sure is that?
 *
 *     pairload [OPTION…] randread|randwrite DEPTH SLICE_MS PAIRS URI@PID URI@PID      a line for each pair
 *     pairload summary <LINES                                                         what they come to
 *
 * 4 KiB requests at random places, DEPTH of them under way, a slice of time on one export, then a slice on the other, in
 * the order A B B A A B B A …, so that what the machine does slowly or at times hits both. Each A and the B next to it
 * are a pair. Lines of several runs may be put together. A line:
 *
 *     number of the pair  A's IOPS  B's IOPS  A's CPU per request, ns  B's
 *
 * CPU is of the processes with those pids, by the scheduler's clock of each process (ns, not ticks), from the beginning of the pair to its
 * end, so what one does in the other's slice counts too.
 *
 *     -s PID,PID…     what serves both: its CPU counts for whose slice it is
 *     -c COMMAND      after that, run by the shell when all is connected and has run for a moment, B goes first
 *     -f              B is fresh: it goes first, and gets nothing before
 *     -w              what is written is one word again and again, which a memory disk keeps in no space
 *
 * The summary, one line:
 *
 *     B's IOPS in parts of A's (median of the pairs)  low  high  A's IOPS  B's IOPS (medians)  B's CPU in parts of A's (median)  low  high
 *     A's CPU, us  B's CPU, us (medians)  pairs
 *
 * From low to high: where the median is with 95 % probability (by order statistics, whatever the distribution). */
#include <errno.h>
#include <inttypes.h>
#include <libnbd.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096u
#define DEPTH_MAX 256u
#define SHARED_MAX 16u
#define PAIRS_MAX 100000u

struct side {
	struct nbd_handle *nbd;
	clockid_t clock;        /* its process's */
	uint64_t blocks, done;
	double shared_ns;       /* of those that serve both, in its slices */
};

struct pair {
	double iops[2], cpu_ns[2];
};

struct slot {
	struct side *side;
	char *block;
	bool free;
};

static struct slot slots[DEPTH_MAX];
static unsigned depth, under_way;
static bool writes, words;
static clockid_t shared[SHARED_MAX];
static unsigned shared_count;
static uint64_t random_state = 88172645463325252u;

static void die(const char *what)
{
	const char *why = nbd_get_error();
	fprintf(stderr, "pairload: %s: %s\n", what, why ? why : strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t random_number(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static clockid_t clock_of(const char *pid)
{
	clockid_t clock;
	errno = clock_getcpuclockid(atoi(pid), &clock);
	if (atoi(pid) <= 0 || errno)
		die(pid);
	return clock;
}

static double cpu_ns(clockid_t clock)
{
	struct timespec t;
	if (clock_gettime(clock, &t) < 0)
		die("the CPU time of a process");
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double shared_ns(void)
{
	double sum = 0;
	for (unsigned i = 0; i < shared_count; i++)
		sum += cpu_ns(shared[i]);
	return sum;
}

static int ended(void *arg, int *error)
{
	struct slot *slot = arg;
	if (*error) {
		errno = *error;
		die("a request");
	}
	slot->free = true;
	slot->side->done++;
	under_way--;
	return 1;
}

static void start(struct side *s, struct slot *slot)
{
	uint64_t offset = random_number() % s->blocks * BLOCK;
	nbd_completion_callback callback = { .callback = ended, .user_data = slot };
	slot->side = s;
	slot->free = false;
	under_way++;
	for (unsigned w = 0; writes && w < (words ? BLOCK / 8 : 1); w++)
		((uint64_t *)(void *)slot->block)[w] = random_state;
	int64_t r = writes ? nbd_aio_pwrite(s->nbd, slot->block, BLOCK, offset, callback, 0)
			   : nbd_aio_pread(s->nbd, slot->block, BLOCK, offset, callback, 0);
	if (r < 0)
		die("start a request");
}

/* Requests per second. */
static double slice(struct side *s, double seconds)
{
	uint64_t before = s->done;
	double begin = now(), end, busy = shared_ns();
	do {
		for (unsigned i = 0; i < depth; i++)
			if (slots[i].free)
				start(s, &slots[i]);
		if (nbd_poll(s->nbd, -1) < 0)
			die("poll");
		end = now();
	} while (end < begin + seconds);
	while (under_way)
		if (nbd_poll(s->nbd, -1) < 0)
			die("poll");
	end = now();
	s->shared_ns += shared_ns() - busy;
	return (double)(s->done - before) / (end - begin);
}

static void open_side(struct side *s, char *what)
{
	char *at = strrchr(what, '@');
	if (!at) {
		fprintf(stderr, "pairload: %s: no @PID\n", what);
		exit(2);
	}
	s->clock = clock_of(at + 1);
	*at = 0;
	s->nbd = nbd_create();
	if (!s->nbd || nbd_connect_uri(s->nbd, what) < 0)
		die(what);
	int64_t size = nbd_get_size(s->nbd);
	if (size < BLOCK)
		die("size");
	s->blocks = (uint64_t)size / BLOCK;
}

/* ---- pairs ---- */

static double side_cpu_ns(const struct side *s) { return cpu_ns(s->clock) + s->shared_ns; }

static struct pair measure(struct side *side, unsigned first, double seconds)
{
	struct pair p;
	uint64_t done[2];
	double cpu[2];
	for (int i = 0; i < 2; i++) {
		done[i] = side[i].done;
		cpu[i] = side_cpu_ns(&side[i]);
	}
	p.iops[first] = slice(&side[first], seconds);
	p.iops[!first] = slice(&side[!first], seconds);
	for (int i = 0; i < 2; i++)
		p.cpu_ns[i] = (side_cpu_ns(&side[i]) - cpu[i]) / (double)(side[i].done - done[i]);
	return p;
}

static int run(const char *command, bool fresh, double seconds, unsigned pairs, char **what)
{
	struct side side[2] = { 0 };
	for (unsigned i = 0; i < depth; i++) {
		slots[i] = (struct slot){ .block = aligned_alloc(BLOCK, BLOCK), .free = true };
		for (unsigned w = 0; w < BLOCK / 8; w++)
			((uint64_t *)(void *)slots[i].block)[w] = random_number();
	}
	random_state ^= (uint64_t)time(NULL) << 20;
	for (int i = 0; i < 2; i++) {
		open_side(&side[i], what[i]);
		if (i == 0 || !fresh)
			slice(&side[i], seconds / 4); /* what a first request costs is not the question */
	}
	if (command && system(command) != 0)
		die(command);
	for (unsigned i = 0; i < pairs; i++) {
		struct pair p = measure(side, (i + (fresh || command)) % 2, seconds);
		printf("%u %.0f %.0f %.0f %.0f\n", i, p.iops[0], p.iops[1], p.cpu_ns[0], p.cpu_ns[1]);
	}
	return 0;
}

/* ---- summary ---- */

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double median(double *v, unsigned count)
{
	qsort(v, count, sizeof *v, by_size);
	return v[count / 2];
}

static void ratios(double *v, unsigned count, double ret[3])
{
	int half = (int)ceil(0.98 * sqrt(count)), low = (int)count / 2 - half, high = (int)count / 2 + half;
	ret[0] = median(v, count);
	ret[1] = v[low < 0 ? 0 : low];
	ret[2] = v[high >= (int)count ? (int)count - 1 : high];
}

static int summary(void)
{
	static double v[6][PAIRS_MAX]; /* the columns, and both ratios */
	double iops[3], cpu[3];
	unsigned n = 0;
	while (n < PAIRS_MAX && scanf("%*u %lf %lf %lf %lf", &v[0][n], &v[1][n], &v[2][n], &v[3][n]) == 4) {
		v[4][n] = v[1][n] / v[0][n];
		v[5][n] = v[3][n] / v[2][n];
		n++;
	}
	if (n == 0) {
		fprintf(stderr, "pairload: no pairs\n");
		return 1;
	}
	ratios(v[4], n, iops);
	ratios(v[5], n, cpu);
	printf("%.3f %.3f %.3f %.0f %.0f %.3f %.3f %.3f %.2f %.2f %u\n", iops[0], iops[1], iops[2], median(v[0], n), median(v[1], n), cpu[0],
	       cpu[1], cpu[2], median(v[2], n) / 1000, median(v[3], n) / 1000, n);
	return 0;
}

static void shared_add(char *pids)
{
	for (char *rest = pids, *pid; (pid = strsep(&rest, ","));)
		if (*pid && shared_count < SHARED_MAX)
			shared[shared_count++] = clock_of(pid);
}

int main(int argc, char **argv)
{
	const char *command = NULL;
	bool fresh = false;
	int option;
	if (argc == 2 && strcmp(argv[1], "summary") == 0)
		return summary();
	while ((option = getopt(argc, argv, "s:c:fw")) > 0) {
		if (option == 's')
			shared_add(optarg);
		else if (option == 'c')
			command = optarg;
		else if (option == 'f')
			fresh = true;
		else if (option == 'w')
			words = true;
		else
			return 2;
	}
	argv += optind;
	if (argc - optind != 6) {
		fprintf(stderr, "usage: pairload [-s PID,…] [-c COMMAND] [-f] [-w] randread|randwrite DEPTH SLICE_MS PAIRS URI@PID URI@PID\n"
				"       pairload summary\n");
		return 2;
	}
	writes = strcmp(argv[0], "randwrite") == 0;
	depth = (unsigned)atoi(argv[1]);
	double seconds = atof(argv[2]) / 1000;
	unsigned pairs = (unsigned)atoi(argv[3]);
	if (depth == 0 || depth > DEPTH_MAX || pairs == 0 || pairs > PAIRS_MAX) {
		fprintf(stderr, "pairload: DEPTH from 1 to %u, PAIRS from 1 to %u\n", DEPTH_MAX, PAIRS_MAX);
		return 2;
	}
	return run(command, fresh, seconds, pairs, argv + 4);
}
