/* Times one driver without any export: blkbench DRIVER OPTIONS… -- PATTERN QD BLOCK SECONDS
 * PATTERN: randread randwrite read write. Prints requests per second, MiB/s and the driver's counters. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "core/bytes.h"
#include "core/drivers.h"
#include "core/fiber.h"

#define QD_MAX 256u

struct bench {
	struct env *env;
	struct blk_node *node;
	const char *words[OPTION_MAX];
	unsigned word_count;
	const char *driver, *pattern;
	unsigned qd;
	uint64_t block, seconds, end_ns, next, done, errors;
};

struct client {
	struct bench *b;
	char *memory;
};

static int client_run(void *arg)
{
	struct client *c = arg;
	struct bench *b = c->b;
	uint64_t blocks = b->node->info.size / b->block;
	bool random = strncmp(b->pattern, "rand", 4) == 0, write = strstr(b->pattern, "write") != NULL;
	while (env_now_ns(b->env) < b->end_ns) {
		uint64_t at = (random ? env_random(b->env) : b->next++) % blocks * b->block;
		int r = write ? blk_write_wait(b->node, c->memory, b->block, at, 0)
			      : blk_read_wait(b->node, c->memory, b->block, at);
		b->errors += r < 0;
		if (++b->done % 1024 == 0) /* a driver that answers at once never lets the loop, and its clock, come round */
			fiber_sleep(&b->env->loop, 0);
	}
	return 0;
}

static void print_item(void *arg, const char *key, uint64_t value)
{
	(void)arg;
	printf(" %s=%llu", key, (unsigned long long)value);
}

static int open_node(struct bench *b)
{
	const struct blk_driver *driver = driver_find(b->driver);
	const char *key[OPTION_MAX], *value[OPTION_MAX];
	struct option_values options;
	struct report report = { "no such driver" };
	int r = -ENOENT;
	for (unsigned i = 0; i < b->word_count; i++) {
		char *equals = strchr(b->words[i], '=');
		key[i] = equals ? b->words[i] : NULL;
		value[i] = equals ? equals + 1 : b->words[i];
		if (equals)
			*equals = '\0';
	}
	if (driver) {
		report.text[0] = '\0';
		r = option_parse(driver->options, key, value, b->word_count, &options, &report);
	}
	struct blk_open how = { .options = &options, .root = "/tmp", .holder = "blkbench" };
	if (r == 0)
		r = blk_open(b->env, driver, &how, NULL, 0, &b->node, &report);
	if (r < 0)
		fprintf(stderr, "blkbench: %s: %s\n", b->driver, report_text(&report, r));
	return r;
}

static int bench_run(void *arg)
{
	struct bench *b = arg;
	static struct client client[QD_MAX];
	if (open_node(b) < 0)
		return 1;
	uint64_t start = env_now_ns(b->env);
	b->end_ns = start + b->seconds * NS_PER_S;
	struct job all;
	job_init(&all, &b->env->loop);
	for (unsigned i = 0; i < b->qd; i++) {
		client[i] = (struct client){ b, env_alloc_aligned(b->block) };
		memset(client[i].memory, (int)i + 1, b->block);
		job_hold(&all);
		fiber_start(&b->env->loop, client_run, &client[i], &all);
	}
	fiber_wait(&all);
	double seconds = (double)(env_now_ns(b->env) - start) / 1e9;
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	double cpu = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
	printf("%s qd=%u %lluK: %.0f/s %.1f MiB/s, %.1f us CPU each, errors %llu;", b->pattern, b->qd,
	       (unsigned long long)b->block / 1024, (double)b->done / seconds,
	       (double)(b->done * b->block) / seconds / 1048576, cpu * 1e6 / (double)b->done,
	       (unsigned long long)b->errors);
	if (b->node->driver->describe)
		b->node->driver->describe(b->node, print_item, NULL);
	printf("\n");
	for (unsigned i = 0; i < b->qd; i++)
		free(client[i].memory);
	return blk_close(b->node);
}

int main(int argc, char **argv)
{
	struct bench b = { .driver = argv[1] };
	int i = 2;
	for (; i < argc && strcmp(argv[i], "--") != 0 && b.word_count < OPTION_MAX; i++)
		b.words[b.word_count++] = argv[i];
	if (argc - i != 5 || parse_size(argv[i + 3], &b.block) < 0 || b.block == 0) {
		fprintf(stderr, "usage: blkbench DRIVER OPTIONS... -- randread|randwrite|read|write QD BLOCK SECONDS\n");
		return 2;
	}
	b.pattern = argv[i + 1];
	b.qd = MIN((unsigned)atoi(argv[i + 2]), QD_MAX);
	b.seconds = (uint64_t)atoi(argv[i + 4]);
	if (env_linux_create(0, &b.env) < 0)
		return 1;
	int r = env_linux_run_fiber(b.env, bench_run, &b);
	env_linux_destroy(b.env);
	return r < 0 ? 1 : r;
}
