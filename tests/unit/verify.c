/* verify: it agrees with what is right however requests race, and stops at what is wrong. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "tests/unit/blktest.h"
#include "tests/unit/graphtest.h"

static void opens(const char *text, uint64_t seed, void (*run)(struct graphtest *t))
{
	struct graphtest t = { .text = text, .run = run };
	int r = graphtest(&t, seed);
	cr_assert_eq(r, 0, "%s: %s", text, report_text(&t.report, r));
}

static void assert_agrees(struct graphtest *t)
{
	cr_assert_eq(graphtest_item(t, "verify-1", "stopped"), 0);
	cr_assert(graphtest_item(t, "verify-1", "compared_bytes") > 0);
}

/* ---- what is right ---- */

static void random_run(struct graphtest *t)
{
	struct blktest b = { .node = t->root, .seed = 5, .base = { 0, 1 << 20 }, .base_count = 2, .window = 256 * 512, .slots = 20,
			     .operations = 1500, .length_max = 40, .unaligned_memory = true };
	blktest_init(&b, 0);
	cr_assert_eq(blktest_run(&b), 0);
	cr_assert_eq(blktest_check(&b), 0);
	cr_assert_eq(b.errors, 0);
	blktest_free(&b);
	assert_agrees(t);
}

Test(verify, random_requests)
{
	opens("verify(delay(ram(4M), jitter=2ms), delay(ram(4M), jitter=2ms))", 1, random_run);
	opens("verify(ram(4M), ram(8M))", 2, random_run);
}

/* Requests that overlap, in flight together: both sides must see them in one order. */
struct racer {
	struct graphtest *test;
};

static int race(void *arg)
{
	struct racer *r = arg;
	struct blk_node *n = r->test->root;
	uint8_t *data = env_alloc_aligned(16384);
	int status = 0;
	for (unsigned i = 0; i < 60 && status == 0; i++) {
		uint64_t x = env_random(r->test->env);
		uint64_t offset = x % 16 * 512, length = 512 * (1 + (x >> 8) % 16);
		unsigned flags = (x >> 16) % 4 == 0 ? BLK_UNSTABLE : 0;
		memset(data, (int)(x >> 24), length);
		switch ((x >> 32) % 8) {
		case 0: status = blk_op_wait(n, BLK_ZERO, offset, length, 0); break;
		case 1: status = blk_op_wait(n, BLK_DISCARD, offset, length, 0); break;
		case 2:
		case 3:
		case 4: status = blk_write_wait(n, data, length, offset, flags); break;
		default: status = blk_read_wait(n, data, length, offset);
		}
	}
	free(data);
	return status;
}

static void race_run(struct graphtest *t)
{
	struct racer r = { .test = t };
	struct job all;
	job_init(&all, &t->env->loop);
	for (unsigned i = 0; i < 30; i++) {
		job_hold(&all);
		cr_assert_eq(fiber_start(&t->env->loop, race, &r, &all), 0);
	}
	cr_assert_eq(fiber_wait(&all), 0);
	assert_agrees(t);
}

Test(verify, overlapping_requests_are_ordered)
{
	for (uint64_t seed = 1; seed <= 5; seed++)
		opens("verify(delay(ram(1M), jitter=5ms), delay(ram(1M), jitter=5ms))", seed, race_run);
}

/* A buffer that changes while it is being written: both sides get one copy. */
struct scribble {
	struct blk_node *node;
	uint8_t *data;
};

static int scribble_write(void *arg)
{
	struct scribble *s = arg;
	return blk_write_wait(s->node, s->data, 4096, 0, BLK_UNSTABLE);
}

static void unstable_run(struct graphtest *t)
{
	struct scribble s = { t->root, env_alloc_aligned(4096) };
	memset(s.data, 1, 4096);
	struct job j;
	job_init(&j, &t->env->loop);
	job_hold(&j);
	cr_assert_eq(fiber_start(&t->env->loop, scribble_write, &s, &j), 0);
	for (unsigned i = 2; i < 40; i++) {
		fiber_sleep(&t->env->loop, NS_PER_MS);
		memset(s.data, (int)i, 4096);
	}
	cr_assert_eq(fiber_wait(&j), 0);
	cr_assert_eq(blk_read_wait(t->root, s.data, 4096, 0), 0);
	free(s.data);
	assert_agrees(t);
}

Test(verify, unstable_buffers) { opens("verify(delay(ram(1M), write=5ms), delay(ram(1M), write=30ms))", 1, unstable_run); }

/* ---- what is wrong ---- */

static char *difference(struct graphtest *t)
{
	struct blk_node *n = graph_named_node(t->graph, "verify-1");
	char *json = NULL;
	cr_assert_eq(n->driver->control(n, "difference", (const char *const[]){ NULL }, &json, NULL), 0);
	return json;
}

static void stops_run(struct graphtest *t)
{
	cr_assert_eq(graphtest_write(t->root, 0, 65536, 0x11), 0);
	char *none = difference(t);
	cr_assert_str_eq(none, "null");
	free(none);
	struct blk_node *bad = graph_named_node(t->graph, "bad");
	uint8_t block[512];
	memset(block, 0x11, sizeof block);
	block[100] = 0x22;
	cr_assert_eq(blk_write_wait(bad, block, 512, 8192, 0), 0);
	cr_assert_eq(graphtest_read(t->root, 0, 8192, 0x11), 0, "not reached yet");
	cr_assert_eq(graphtest_read(t->root, 4096, 8192, 0x11), -EIO);
	cr_assert_eq(graphtest_item(t, "verify-1", "difference_offset"), 8292);
	char *json = difference(t);
	cr_assert_str_eq(json, "{\"offset\":8292,\"what\":\"read of 8192 bytes at 4096: first difference at byte 8292: "
			       "bad has 22 11 11 11 11 11 11 11, the oracle ram-1 has 11 11 11 11 11 11 11 11\"}");
	free(json);
	cr_assert_eq(graphtest_read(t->root, 0, 512, 0x11), -EIO, "for good");
	cr_assert_eq(graphtest_write(t->root, 0, 512, 0x11), -EIO);
	cr_assert_eq(blk_op_wait(t->root, BLK_FLUSH, 0, 0, 0), -EIO);
	cr_assert_eq(bad->counters.requests[BLK_FLUSH], 0);
}

Test(verify, stops_at_the_first_difference) { opens("bad = ram(1M)\nverify(bad, ram(1M))", 1, stops_run); }

/* The difference lies at the end of an iovec of odd pieces. */
static void pieces_run(struct graphtest *t)
{
	uint8_t data[1024] = { 0 };
	cr_assert_eq(graphtest_write(graph_named_node(t->graph, "bad"), 512, 512, 9), 0);
	struct iovec iov[] = { { data, 3 }, { data + 3, 0 }, { data + 3, 700 }, { data + 703, 321 } };
	struct blk_io io = { .op = BLK_READ, .length = 1024, .iov = iov, .iov_count = 4 };
	struct job j;
	job_init(&j, t->root->loop);
	blk_submit(t->root, &io, &j);
	cr_assert_eq(fiber_wait(&j), -EIO);
	cr_assert_eq(graphtest_item(t, "verify-1", "difference_offset"), 512);
}

Test(verify, compares_any_iovec) { opens("bad = ram(1M)\nverify(bad, ram(1M))", 1, pieces_run); }

static void lost_run(struct graphtest *t)
{
	cr_assert_eq(graphtest_write(t->root, 0, 4096, 1), 0);
	cr_assert_eq(blk_op_wait(t->root, BLK_ZERO, 0, 4096, 0), 0);
	cr_assert_eq(graphtest_read(t->root, 0, 4096, 0), 0);
	cr_assert_eq(graphtest_write(t->root, 0, 4096, 1), 0);
	cr_assert_eq(blk_op_wait(t->root, BLK_DISCARD, 0, 4096, 0), 0);
	cr_assert_eq(graphtest_read(t->root, 0, 4096, 0), 0);
	assert_agrees(t);
}

Test(verify, discard_and_zero_are_mirrored) { opens("verify(ram(1M), ram(1M))", 1, lost_run); }

/* ---- failures ---- */

static void failed_write_run(struct graphtest *t)
{
	cr_assert_eq(graphtest_write(t->root, 0, 16384, 1), 0);
	cr_assert_eq(graphtest_write(t->root, 4096, 8192, 2), -ENOSPC, "the node's error is what the user sees");
	uint8_t data[16384];
	cr_assert_eq(blk_read_wait(t->root, data, 16384, 0), 0, "what is undefined isn't compared");
	cr_assert_eq(graphtest_item(t, "verify-1", "undefined_ranges"), 1);
	cr_assert_eq(graphtest_write(t->root, 6144, 2048, 3), 0);
	cr_assert_eq(graphtest_item(t, "verify-1", "undefined_ranges"), 2);
	cr_assert_eq(graphtest_read(t->root, 6144, 2048, 3), 0);
	cr_assert_eq(graphtest_write(graph_named_node(t->graph, "inner"), 4096, 512, 9), 0);
	cr_assert_eq(blk_read_wait(t->root, data, 16384, 0), 0);
	cr_assert_eq(graphtest_write(t->root, 0, 16384, 4), 0);
	cr_assert_eq(graphtest_item(t, "verify-1", "undefined_ranges"), 0);
	cr_assert_eq(graphtest_write(graph_named_node(t->graph, "inner"), 4096, 512, 9), 0);
	cr_assert_eq(blk_read_wait(t->root, data, 16384, 0), -EIO, "defined again, so compared again");
	cr_assert_eq(graphtest_item(t, "verify-1", "difference_offset"), 4096);
}

Test(verify, a_failed_write_leaves_its_range_undefined)
{
	opens("inner = ram(1M)\nverify(error(inner, op=write, after=1, count=1, errno=ENOSPC), ram(1M))", 1, failed_write_run);
	opens("inner = ram(1M)\nverify(error(inner, op=write, after=1, count=1, errno=ENOSPC, late=on), ram(1M))", 1, failed_write_run);
}

static void many_failures_run(struct graphtest *t)
{
	unsigned i = 0;
	for (; i < 256; i++)
		cr_assert_eq(graphtest_write(t->root, i * 1024, 512, 2), -EIO);
	cr_assert_eq(graphtest_item(t, "verify-1", "stopped"), 0);
	cr_assert_eq(graphtest_write(t->root, i * 1024, 512, 2), -EIO);
	cr_assert_eq(graphtest_item(t, "verify-1", "stopped"), 1);
	char *json = difference(t);
	cr_assert(strstr(json, "more than 256 places are undefined"));
	free(json);
}

Test(verify, too_many_failures_to_keep_track_of) { opens("verify(error(ram(1M), op=write), ram(1M))", 1, many_failures_run); }

/* A node that can't zero fast says so and has done nothing. */
static void not_fast_run(struct graphtest *t)
{
	cr_assert_eq(graphtest_write(t->root, 0, 4096, 1), 0);
	for (unsigned i = 0; i < 300; i++)
		cr_assert_eq(blk_op_wait(t->root, BLK_ZERO, i * 1024, 512, BLK_FAST_ONLY), -ENOTSUP);
	cr_assert_eq(graphtest_item(t, "verify-1", "undefined_ranges"), 0);
	cr_assert_eq(graphtest_read(t->root, 0, 4096, 1), 0);
	assert_agrees(t);
}

Test(verify, a_zeroing_that_would_not_be_fast_changes_nothing)
{
	opens("verify(error(ram(1M), op=zero, errno=ENOTSUP), ram(1M))", 1, not_fast_run);
}

static void read_error_run(struct graphtest *t)
{
	cr_assert_eq(graphtest_read(t->root, 0, 512, 0), -ETIMEDOUT);
	cr_assert_eq(graphtest_read(t->root, 0, 512, 0), 0);
	assert_agrees(t);
}

Test(verify, a_failed_read_is_passed_on)
{
	opens("verify(error(ram(1M), op=read, count=1, errno=ETIMEDOUT), ram(1M))", 1, read_error_run);
}

static void oracle_error_run(struct graphtest *t)
{
	cr_assert_eq(graphtest_read(t->root, 4096, 512, 0), -EIO);
	char *json = difference(t);
	cr_assert_str_eq(json, "{\"offset\":4096,\"what\":\"read of 512 bytes at 4096: the oracle error-1 failed: Connection timed out\"}");
	free(json);
	cr_assert_eq(graphtest_read(t->root, 4096, 512, 0), -EIO);
}

Test(verify, a_failed_oracle_stops_it)
{
	opens("verify(ram(1M), error(ram(1M), count=1, errno=ETIMEDOUT))", 1, oracle_error_run);
}

/* ---- opening ---- */

static void info_run(struct graphtest *t)
{
	cr_assert_eq(t->root->info.max_transfer, 1 << 20);
	cr_assert(t->root->info.can_zero && t->root->info.can_discard && t->root->info.discard_zeroes);
	struct blk_node *n = graph_named_node(t->graph, "verify-1");
	char *json = NULL;
	struct report why = { "" };
	cr_assert_eq(n->driver->control(n, "other", (const char *const[]){ NULL }, &json, &why), -EOPNOTSUPP);
	cr_assert_eq(n->driver->control(n, "difference", (const char *const[]){ "x", NULL }, &json, &why), -EINVAL);
}

Test(verify, info) { opens("verify(ram(1M), ram(1M))", 1, info_run); }

Test(verify, refuses_an_unfit_oracle)
{
	struct graphtest t = { .text = "verify(ram(1M), ram(512K))" };
	cr_assert_eq(graphtest(&t, 1), -EINVAL);
	cr_assert_str_eq(t.report.text, "verify-1: the oracle ram-2 is smaller than ram-1 (524288 bytes, it needs 1048576)");
	t = (struct graphtest){ .text = "verify(ram(1M), ro(ram(1M)))" };
	cr_assert_eq(graphtest(&t, 1), -EROFS);
	cr_assert_str_eq(t.report.text, "verify-1: the oracle ro-1 is read only, so it can't follow what is written");
}
