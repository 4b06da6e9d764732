/* ro, error and delay: what passes, what doesn't, and when. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/blktest.h"
#include "tests/unit/graphtest.h"

static void opens(const char *text, void (*run)(struct graphtest *t))
{
	struct graphtest t = { .text = text, .run = run };
	int r = graphtest(&t, 1);
	cr_assert_eq(r, 0, "%s: %s", text, report_text(&t.report, r));
}

static void refused(const char *text, const char *message)
{
	struct graphtest t = { .text = text };
	cr_assert_eq(graphtest(&t, 1), -EINVAL, "%s", text);
	cr_assert_str_eq(t.report.text, message);
}

/* ---- ro ---- */

static void ro_run(struct graphtest *t)
{
	struct blk_node *ram = graph_named_node(t->graph, "ram-1");
	cr_assert(t->root->info.read_only && !t->root->info.can_discard && !t->root->info.can_zero);
	cr_assert_eq(t->root->info.size, 1 << 20);
	cr_assert_eq(graphtest_read(t->root, 4096, 8192, 0), 0);
	cr_assert_eq(graphtest_write(t->root, 0, 512, 1), -EROFS);
	cr_assert_eq(blk_op_wait(t->root, BLK_DISCARD, 0, 4096, 0), -EROFS);
	cr_assert_eq(blk_op_wait(t->root, BLK_ZERO, 0, 4096, 0), -EROFS);
	cr_assert_eq(blk_op_wait(t->root, BLK_FLUSH, 0, 0, 0), 0);
	struct blk_extent e[4];
	struct blk_map map = { .extents = e, .max = 4 };
	cr_assert_eq(blk_map_wait(t->root, 0, 1 << 20, &map), 0);
	cr_assert(map.count == 1 && e[0].flags == (BLK_EXTENT_HOLE | BLK_EXTENT_ZERO));
	cr_assert_eq(ram->counters.requests[BLK_WRITE] + ram->counters.requests[BLK_ZERO] + ram->counters.requests[BLK_DISCARD], 0);
	cr_assert_eq(ram->counters.requests[BLK_READ], 1);
	cr_assert(ram->info.read_only, "the child is opened read only");
}

Test(ro, refuses_writes_and_passes_the_rest) { opens("ro(ram(1M))", ro_run); }

/* ---- error ---- */

static void error_every_run(struct graphtest *t)
{
	for (unsigned i = 1; i <= 12; i++)
		cr_assert_eq(graphtest_read(t->root, i * 512, 512, 0), i > 3 && (i - 3) % 4 == 0 && i <= 11 ? -ENOSPC : 0, "%u", i);
	cr_assert_eq(graphtest_write(t->root, 0, 512, 7), 0);
	cr_assert_eq(graphtest_item(t, "error-1", "matched"), 12);
	cr_assert_eq(graphtest_item(t, "error-1", "refused"), 2);
}

Test(error, every_nth_after_some_and_so_many)
{
	opens("error(ram(1M), op=read, every=4, after=3, count=2, errno=ENOSPC)", error_every_run);
}

static void error_range_run(struct graphtest *t)
{
	cr_assert_eq(graphtest_write(t->root, 0, 8192, 1), 0);
	cr_assert_eq(graphtest_write(t->root, 4096, 8192, 2), -EIO);
	cr_assert_eq(graphtest_write(t->root, 12288 - 512, 512, 2), -EIO);
	cr_assert_eq(graphtest_write(t->root, 12288, 512, 3), 0);
	cr_assert_eq(graphtest_read(t->root, 0, 8192, 1), 0);
	cr_assert_eq(graphtest_read(t->root, 8192, 512, 1), -EIO);
	cr_assert_eq(blk_op_wait(t->root, BLK_FLUSH, 0, 0, 0), 0);
	cr_assert_eq(graphtest_read(graph_named_node(t->graph, "ram-1"), 8192, 4096, 0), 0, "what failed did nothing");
}

Test(error, range) { opens("error(ram(1M), offset=8K, length=4K)", error_range_run); }

static void error_late_run(struct graphtest *t)
{
	cr_assert_eq(graphtest_write(t->root, 0, 4096, 5), -ETIMEDOUT);
	cr_assert_eq(graphtest_read(t->root, 0, 4096, 5), 0, "it was done all the same");
	cr_assert_eq(blk_op_wait(t->root, BLK_FLUSH, 0, 0, 0), -ETIMEDOUT);
}

Test(error, late) { opens("error(ram(1M), op=write+flush, late=on, errno=ETIMEDOUT)", error_late_run); }

static void error_all_run(struct graphtest *t)
{
	struct blk_extent e;
	struct blk_map map = { .extents = &e, .max = 1 };
	cr_assert_eq(graphtest_read(t->root, 0, 512, 0), -EIO);
	cr_assert_eq(graphtest_write(t->root, 0, 512, 0), -EIO);
	cr_assert_eq(blk_op_wait(t->root, BLK_FLUSH, 0, 0, 0), -EIO);
	cr_assert_eq(blk_op_wait(t->root, BLK_DISCARD, 0, 512, 0), -EIO);
	cr_assert_eq(blk_op_wait(t->root, BLK_ZERO, 0, 512, 0), -EIO);
	cr_assert_eq(blk_map_wait(t->root, 0, 512, &map), -EIO);
	cr_assert_eq(graph_named_node(t->graph, "ram-1")->counters.in_flight_max, 0);
}

Test(error, all) { opens("error(ram(1M), op=all)", error_all_run); }

static void error_rate_run(struct graphtest *t)
{
	unsigned failed = 0;
	for (unsigned i = 0; i < 2000; i++)
		failed += graphtest_read(t->root, 0, 512, 0) == -EIO;
	cr_assert(failed > 100 && failed < 300, "%u of 2000 failed at 100 of 1000", failed);
	cr_assert_eq(graphtest_item(t, "error-1", "refused"), failed);
}

Test(error, rate) { opens("error(ram(1M), rate=100)", error_rate_run); }

static void error_none_run(struct graphtest *t) { cr_assert_eq(graphtest_write(t->root, 0, 512, 1), 0); }

Test(error, count_zero_fails_nothing) { opens("error(ram(1M), count=0)", error_none_run); }

Test(error, bad_options)
{
	refused("error(ram(1M), errno=EWHAT)",
		"line 1, column 16: error: errno=EWHAT is no error's name (there are EACCES EAGAIN EBADMSG EBUSY ECONNRESET EFBIG EINVAL EIO ENODEV ENOMEM ENOSPC ENOTSUP EPERM EROFS ESHUTDOWN ESTALE ETIMEDOUT)");
	refused("error(ram(1M), op=read+)",
		"line 1, column 16: error: op=read+ is no list of operations (join read, write, flush, discard, zero, map and all by +)");
	refused("error(ram(1M), rate=5, every=2)", "error-1: rate and every exclude each other (give one)");
	refused("error(ram(1M), rate=1001)", "line 1, column 16: error: rate=1001 is out of range (1 to 1000)");
}

/* ---- delay ---- */

static uint64_t time_of(struct graphtest *t, enum blk_op op)
{
	uint64_t start = env_now_ns(t->env);
	uint8_t data[512] = { 0 };
	int r = op == BLK_READ ? blk_read_wait(t->root, data, 512, 0) : op == BLK_WRITE ? blk_write_wait(t->root, data, 512, 0, 0)
								      : blk_op_wait(t->root, op, 0, op == BLK_FLUSH ? 0 : 512, 0);
	cr_assert_eq(r, 0);
	return env_now_ns(t->env) - start;
}

/* Virtual time: nothing but the delay takes any, up to the simulator's 1 ms of lateness. */
static void assert_took(uint64_t ns, uint64_t from, uint64_t to)
{
	cr_assert(ns >= from && ns <= to + 2 * NS_PER_MS, "%lu ns", (unsigned long)ns);
}

static void delay_run(struct graphtest *t)
{
	assert_took(time_of(t, BLK_READ), 20 * NS_PER_MS, 20 * NS_PER_MS);
	assert_took(time_of(t, BLK_WRITE), 7 * NS_PER_S, 7 * NS_PER_S);
	assert_took(time_of(t, BLK_ZERO), 7 * NS_PER_S, 7 * NS_PER_S);
	assert_took(time_of(t, BLK_DISCARD), 7 * NS_PER_S, 7 * NS_PER_S);
	assert_took(time_of(t, BLK_FLUSH), 0, 0);
	cr_assert_eq(graphtest_item(t, "delay-1", "delayed"), 4);
	cr_assert_eq(graphtest_item(t, "delay-1", "delayed_ms"), 21020);
}

Test(delay, by_operation) { opens("delay(ram(1M), read=20000us, write=7s)", delay_run); }

static void delay_jitter_run(struct graphtest *t)
{
	uint64_t least = UINT64_MAX, most = 0;
	for (unsigned i = 0; i < 50; i++) {
		uint64_t ns = time_of(t, BLK_FLUSH);
		assert_took(ns, 10 * NS_PER_MS, 110 * NS_PER_MS);
		least = ns < least ? ns : least;
		most = ns > most ? ns : most;
	}
	cr_assert(most - least > 20 * NS_PER_MS);
}

Test(delay, jitter) { opens("delay(ram(1M), flush=10, jitter=100ms)", delay_jitter_run); }

/* Many more requests than frames, all right and none lost. */
static void delay_random_run(struct graphtest *t)
{
	struct blktest b = { .node = t->root, .seed = 3, .base = { 0, 256 << 10 }, .base_count = 2, .window = 128 * 512, .slots = 200,
			     .operations = 2000, .length_max = 1 };
	blktest_init(&b, 0);
	cr_assert_eq(blktest_run(&b), 0);
	cr_assert_eq(blktest_check(&b), 0);
	cr_assert_eq(b.errors, 0);
	blktest_free(&b);
}

Test(delay, random_requests) { opens("delay(ram(1M), jitter=3ms)", delay_random_run); }
Test(error, random_requests_that_pass) { opens("error(ram(1M), count=0)", delay_random_run); }

Test(delay, bad_options)
{
	refused("delay(ram(1M), read=x)", "line 1, column 16: delay: read=x is no time of at most 60s (give digits and us, ms or s)");
	refused("delay(ram(1M), read=1min)", "line 1, column 16: delay: read=1min is no time of at most 60s (give digits and us, ms or s)");
	refused("delay(ram(1M), write=61s)", "line 1, column 16: delay: write=61s is no time of at most 60s (give digits and us, ms or s)");
	refused("delay(ram(1M), jitter=99999999999999999999)", "line 1, column 16: delay: jitter=99999999999999999999 is no time of at most 60s (give digits and us, ms or s)");
}
