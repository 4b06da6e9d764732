/* Many operations on a store, one after the other, in one process:
 *
 *     crowd ROOT [URI] <OPERATIONS     one a line:
 *         snapshot VOLUME@SNAPSHOT | drop VOLUME@SNAPSHOT | clone VOLUME@SNAPSHOT NEW | create VOLUME BYTES | remove VOLUME
 *         step NUMBER BLOCKS           writes to URI (NBD) as step NUMBER of a history of BLOCKS blocks
 *     crowd check FILE NUMBER BLOCKS   FILE begins with what that history had after step NUMBER
 *
 * The history: step n writes block n % BLOCKS, and every 100th step all blocks; what is written says which step wrote it and where. So
 * what a snapshot holds follows from when it was taken. Prints for each kind of operation: NAME COUNT p50_us p99_us max_us seconds. */
#include <errno.h>
#include <inttypes.h>
#include <libnbd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/daemon/client.h"
#include "core/bytes.h"
#include "core/env.h"
#include "core/fiber.h"
#include "parallax/store/store.h"

enum { BLOCK = 4096, ALL_EVERY = 100 };

struct samples {
	uint64_t *us, sum;
	size_t count, room;
};

struct crowd {
	struct env *env;
	const char *root, *uri;
	struct store *store;
	struct nbd_handle *nbd;
	struct report report;
};

static int run_step(struct crowd *c, char **words);
static int run_snapshot(struct crowd *c, char **words) { return store_snapshot_create(c->store, (const char *const *)words, 1, &c->report); }
static int run_drop(struct crowd *c, char **words) { return store_snapshot_delete(c->store, words[0], &c->report); }
static int run_clone(struct crowd *c, char **words) { return store_clone(c->store, words[0], words[1], &c->report); }
static int run_remove(struct crowd *c, char **words) { return store_volume_delete(c->store, words[0], true, &c->report); }
static int run_create(struct crowd *c, char **words)
{
	struct store_volume_options o = { .size_bytes = strtoull(words[1], NULL, 10) };
	return store_volume_create(c->store, words[0], &o, &c->report);
}

static struct operation {
	const char *name;
	unsigned words;
	int (*run)(struct crowd *c, char **words);
	struct samples samples;
} operations[] = {
	{ "clone", 2, run_clone, { 0 } },       { "create", 2, run_create, { 0 } }, { "drop", 1, run_drop, { 0 } },
	{ "remove", 1, run_remove, { 0 } },     { "snapshot", 1, run_snapshot, { 0 } }, { "step", 2, run_step, { 0 } },
};

/* ---- the history ---- */

static void fill(uint64_t *block, uint64_t number, uint64_t at)
{
	for (unsigned i = 0; i < BLOCK / 8; i += 2) {
		block[i] = number;
		block[i + 1] = at;
	}
}

static int run_step(struct crowd *c, char **words)
{
	uint64_t number = strtoull(words[0], NULL, 10), blocks = strtoull(words[1], NULL, 10), block[BLOCK / 8];
	for (uint64_t at = 0; blocks && at < blocks; at++) {
		if (number % ALL_EVERY != 0 && at != number % blocks)
			continue;
		fill(block, number, at);
		if (!c->nbd || nbd_pwrite(c->nbd, block, BLOCK, at * BLOCK, 0) < 0)
			return report_set(&c->report, -EIO, "write block %" PRIu64 ": %s", at, c->nbd ? nbd_get_error() : "no URI");
	}
	return 0;
}

/* The last step, up to `number`, that wrote the block; 0: none did. */
static uint64_t writer(uint64_t number, uint64_t blocks, uint64_t at)
{
	uint64_t one = number >= at ? number - (number - at) % blocks : 0;
	return MAX(one, number - number % ALL_EVERY);
}

static int check(const char *path, uint64_t number, uint64_t blocks)
{
	uint64_t block[BLOCK / 8], want[BLOCK / 8];
	FILE *f = fopen(path, "r");
	for (uint64_t at = 0; f && at < blocks; at++) {
		uint64_t by = writer(number, blocks, at);
		memset(want, 0, sizeof want);
		if (by)
			fill(want, by, at);
		if (fread(block, BLOCK, 1, f) == 1 && memcmp(block, want, BLOCK) == 0)
			continue;
		fprintf(stderr, "crowd: %s: block %" PRIu64 " isn't what step %" PRIu64 " wrote: it says %" PRIu64 ", %" PRIu64 "\n", path, at, by, block[0], block[1]);
		fclose(f);
		return 1;
	}
	if (!f)
		perror(path);
	else
		fclose(f);
	return f ? 0 : 1;
}

/* ---- operations ---- */

static int forward(void *arg, const struct store_holder *holder, const char *verb, const char *const *args, uint64_t deadline_ns, char **ret_json,
		   struct report *report)
{
	struct crowd *c = arg;
	struct tapdisk_control call = { .driver = "volume", .subject = holder->volume, .verb = verb, .args = args, .deadline_ns = deadline_ns };
	return client_tapdisk_control(c->env, holder->control, &call, ret_json, report);
}

static int samples_add(struct samples *s, uint64_t us)
{
	if (s->count == s->room) {
		size_t room = s->room ? 2 * s->room : 1024;
		uint64_t *more = realloc(s->us, room * sizeof *more);
		if (!more)
			return -ENOMEM;
		s->us = more;
		s->room = room;
	}
	s->us[s->count++] = us;
	s->sum += us;
	return 0;
}

static int run_line(struct crowd *c, char *line)
{
	char *words[4] = { NULL }, *rest = line;
	unsigned count = 0;
	while (count < ARRAY_COUNT(words) && (words[count] = strtok_r(rest, " \n", &rest)))
		count++;
	if (count == 0)
		return 0;
	for (size_t i = 0; i < ARRAY_COUNT(operations); i++) {
		struct operation *o = &operations[i];
		if (strcmp(words[0], o->name) != 0 || count != o->words + 1)
			continue;
		struct timespec a, b;
		clock_gettime(CLOCK_MONOTONIC, &a);
		int r = o->run(c, words + 1);
		clock_gettime(CLOCK_MONOTONIC, &b);
		return r < 0 ? r : samples_add(&o->samples, (uint64_t)((b.tv_sec - a.tv_sec) * 1000000 + (b.tv_nsec - a.tv_nsec) / 1000));
	}
	return report_set(&c->report, -EINVAL, "there is no such operation");
}

static int run(void *arg)
{
	struct crowd *c = arg;
	struct store_options o = { .root = c->root, .create = true, .forward = forward, .forward_arg = c };
	char line[512], said[512];
	int r = store_open(c->env, &o, &c->store, &c->report);
	said[0] = '\0';
	while (r == 0 && fgets(line, sizeof line, stdin)) {
		snprintf(said, sizeof said, "%.*s", (int)strcspn(line, "\n"), line);
		r = run_line(c, line);
	}
	if (r < 0)
		fprintf(stderr, "crowd: %s: %s\n", said, report_text(&c->report, r));
	store_close(c->store);
	return r;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static void print_samples(void)
{
	for (size_t i = 0; i < ARRAY_COUNT(operations); i++) {
		struct samples *s = &operations[i].samples;
		if (!s->count)
			continue;
		qsort(s->us, s->count, sizeof *s->us, by_size);
		printf("%-8s %6zu  p50 %" PRIu64 " us  p99 %" PRIu64 " us  worst %" PRIu64 " us  all %.1f s\n", operations[i].name, s->count, s->us[s->count / 2],
		       s->us[(s->count * 99 + 99) / 100 - 1], s->us[s->count - 1], (double)s->sum / 1e6);
		free(s->us);
	}
}

int main(int argc, char **argv)
{
	struct crowd c = { .root = argc > 1 ? argv[1] : "", .uri = argc > 2 ? argv[2] : NULL };
	if (argc == 5 && strcmp(argv[1], "check") == 0 && strtoull(argv[4], NULL, 10))
		return check(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
	if (argc < 2 || argc > 3) {
		fprintf(stderr, "usage: crowd ROOT [URI] <OPERATIONS, or crowd check FILE NUMBER BLOCKS\n");
		return 2;
	}
	if (c.uri && (!(c.nbd = nbd_create()) || nbd_connect_uri(c.nbd, c.uri) < 0)) {
		fprintf(stderr, "crowd: %s: %s\n", c.uri, nbd_get_error());
		return 1;
	}
	if (env_linux_create(0, &c.env) < 0)
		return 1;
	int r = env_linux_run_fiber(c.env, run, &c);
	env_linux_destroy(c.env);
	if (c.nbd)
		nbd_close(c.nbd);
	print_samples();
	return r == 0 ? 0 : 1;
}
