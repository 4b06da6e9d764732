/* Which of two NBD exports is faster, and how sure is that?
 *
 *     pairload randread|randwrite DEPTH SLICE_MS PAIRS URI@PID URI@PID
 *
 * 4 KiB requests at random places, DEPTH of them under way, a slice of time on one export, then a slice on the other, in
 * the order A B B A A B B A …, so that what the machine does slowly or at times hits both. Each A and the B next to it
 * are a pair, and give a ratio. Prints one line:
 *
 *     B's IOPS in parts of A's (median of the pairs)  low  high  A's IOPS  B's IOPS  B's CPU per request in parts of A's
 *
 * From low to high: where the median is with 95 % probability (by order statistics, whatever the distribution). CPU is
 * of the processes with those pids, from the first slice to the last, so what one does in the other's slices counts too. */
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

struct side {
	struct nbd_handle *nbd;
	int pid;
	uint64_t blocks, done;
	double seconds, cpu_ms;
};

struct slot {
	struct side *side;
	char *block;
	bool free;
};

static struct slot slots[DEPTH_MAX];
static unsigned depth, under_way;
static bool writes;
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

/* User and system time of a process, ms. */
static double cpu_ms(int pid)
{
	char path[64], line[1024];
	unsigned long user = 0, system = 0;
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	FILE *f = fopen(path, "r");
	char *s = f && fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL;
	if (!s || sscanf(s + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
		die(path);
	fclose(f);
	return (double)(user + system) * 1000 / (double)sysconf(_SC_CLK_TCK);
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
	if (writes)
		memcpy(slot->block, &random_state, sizeof random_state);
	int64_t r = writes ? nbd_aio_pwrite(s->nbd, slot->block, BLOCK, offset, callback, 0)
			   : nbd_aio_pread(s->nbd, slot->block, BLOCK, offset, callback, 0);
	if (r < 0)
		die("start a request");
}

/* Requests per second. */
static double slice(struct side *s, double seconds)
{
	uint64_t before = s->done;
	double begin = now(), end;
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
	s->seconds += end - begin;
	return (double)(s->done - before) / (end - begin);
}

static void open_side(struct side *s, char *what)
{
	char *at = strrchr(what, '@');
	if (!at || !(s->pid = atoi(at + 1))) {
		fprintf(stderr, "pairload: %s: no @PID\n", what);
		exit(2);
	}
	*at = 0;
	s->nbd = nbd_create();
	if (!s->nbd || nbd_connect_uri(s->nbd, what) < 0)
		die(what);
	int64_t size = nbd_get_size(s->nbd);
	if (size < BLOCK)
		die("size");
	s->blocks = (uint64_t)size / BLOCK;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void report(double *ratio, unsigned pairs, const struct side *a, const struct side *b)
{
	qsort(ratio, pairs, sizeof *ratio, by_size);
	int half = (int)ceil(0.98 * sqrt(pairs)), low = (int)pairs / 2 - half, high = (int)pairs / 2 + half;
	low = low < 0 ? 0 : low;
	high = high >= (int)pairs ? (int)pairs - 1 : high;
	printf("%.3f %.3f %.3f %.0f %.0f %.3f\n", ratio[pairs / 2], ratio[low], ratio[high], (double)a->done / a->seconds,
	       (double)b->done / b->seconds, b->cpu_ms / (double)b->done / (a->cpu_ms / (double)a->done));
}

int main(int argc, char **argv)
{
	struct side side[2] = { 0 };
	if (argc != 7) {
		fprintf(stderr, "usage: pairload randread|randwrite DEPTH SLICE_MS PAIRS URI@PID URI@PID\n");
		return 2;
	}
	writes = strcmp(argv[1], "randwrite") == 0;
	depth = (unsigned)atoi(argv[2]);
	double seconds = atof(argv[3]) / 1000;
	unsigned pairs = (unsigned)atoi(argv[4]);
	double *ratio = calloc(pairs, sizeof *ratio);
	if (depth == 0 || depth > DEPTH_MAX || pairs == 0 || !ratio) {
		fprintf(stderr, "pairload: DEPTH from 1 to %u, PAIRS from 1\n", DEPTH_MAX);
		return 2;
	}
	for (unsigned i = 0; i < depth; i++) {
		slots[i] = (struct slot){ .block = aligned_alloc(BLOCK, BLOCK), .free = true };
		for (unsigned w = 0; w < BLOCK / 8; w++)
			((uint64_t *)(void *)slots[i].block)[w] = random_number();
	}
	random_state ^= (uint64_t)time(NULL) << 20;
	for (int i = 0; i < 2; i++) {
		open_side(&side[i], argv[5 + i]);
		slice(&side[i], seconds / 4); /* what a first request costs is not the question */
		side[i].done = 0;
		side[i].seconds = 0;
		side[i].cpu_ms = -cpu_ms(side[i].pid);
	}
	for (unsigned i = 0; i < pairs; i++) {
		double rate[2];
		unsigned first = i % 2;
		rate[first] = slice(&side[first], seconds);
		rate[!first] = slice(&side[!first], seconds);
		ratio[i] = rate[1] / rate[0];
	}
	for (int i = 0; i < 2; i++)
		side[i].cpu_ms += cpu_ms(side[i].pid);
	report(ratio, pairs, &side[0], &side[1]);
	return 0;
}
