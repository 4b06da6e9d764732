/* Copying nodes: what comes out is what went in; holes aren't read, zeroes aren't written. */
#include "agent/cli/copy.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/drivers.h"
#include "tests/unit/blktest.h"


#define MIB (1u << 20)

static void fill(struct blk_node *n, uint64_t offset, uint64_t length, uint8_t byte)
{
	uint8_t *b = malloc(length);
	memset(b, byte, length);
	cr_assert_eq(blk_write_wait(n, b, length, offset, 0), 0);
	free(b);
}

static struct blk_node *ram(struct env *env, const char *size)
{
	struct blk_node *n;
	struct report report = { 0 };
	cr_assert_eq(blktest_open(env, &driver_ram, NULL, false, (const char *const[]){ size, NULL }, &n, &report), 0, "%s",
		     report.text);
	return n;
}

static int compare(void *arg)
{
	struct env *env = arg;
	struct blk_node *from = ram(env, "10M"), *to = ram(env, "10M");
	fill(from, 0, 512, 1);
	fill(from, 3 * MIB - 512, 1024, 2);
	fill(from, 5 * MIB, 64 << 10, 0);
	fill(from, 10 * MIB - 512, 512, 3);
	struct copy c = { .from = from, .to = to };
	cr_assert_eq(copy_run(&c), 0);
	uint8_t *a = malloc(10 * MIB), *b = malloc(10 * MIB);
	cr_assert_eq(blk_read_wait(from, a, 10 * MIB, 0), 0);
	cr_assert_eq(blk_read_wait(to, b, 10 * MIB, 0), 0);
	cr_assert_eq(memcmp(a, b, 10 * MIB), 0);
	cr_assert_lt(c.read_bytes, 4u * MIB);
	cr_assert_leq(c.written_bytes, c.read_bytes - (64 << 10));
	cr_assert_eq(to->counters.requests[BLK_FLUSH], 1u);
	free(a);
	free(b);
	blk_close(from);
	blk_close(to);
	return 0;
}

static int interrupted(void *arg)
{
	struct env *env = arg;
	struct blk_node *from = ram(env, "10M"), *to = ram(env, "10M");
	bool stop = true;
	fill(from, 0, MIB, 1);
	struct copy c = { .from = from, .to = to, .stop = &stop };
	cr_assert_eq(copy_run(&c), -EINTR);
	cr_assert_eq(c.written_bytes, 0u);
	blk_close(from);
	blk_close(to);
	return 0;
}

static int broken(void *arg)
{
	struct env *env = arg;
	struct blk_node *under = ram(env, "10M"), *from, *to = ram(env, "10M");
	struct report report = { 0 };
	fill(under, 0, 10 * MIB, 7);
	cr_assert_eq(blktest_open(env, &driver_error, under, false, (const char *const[]){ "op=read", NULL }, &from, &report), 0,
		     "%s", report.text);
	struct copy c = { .from = from, .to = to };
	cr_assert_eq(copy_run(&c), -EIO);
	cr_assert_eq(c.bad_offset, 0u);
	cr_assert_not(c.bad_write);
	struct copy check = { .from = from, .keep_going = true };
	cr_assert_eq(copy_run(&check), 0);
	cr_assert_eq(check.bad_bytes, 10u * MIB);
	blk_close(from);
	blk_close(under);
	blk_close(to);
	return 0;
}

static void run(int (*test)(void *arg))
{
	struct env *env;
	cr_assert_eq(env_linux_create(0, &env), 0);
	cr_assert_eq(env_linux_run_fiber(env, test, env), 0);
	env_linux_destroy(env);
}

Test(copy, sparse) { run(compare); }
Test(copy, stops_when_told) { run(interrupted); }
Test(copy, counts_what_cannot_be_read) { run(broken); }
