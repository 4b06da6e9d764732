/* ram against the oracle, its limit, and giving memory back. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/drivers.h"
#include "tests/unit/blktest.h"
#include "tests/unit/simfile.h"

static uint64_t in_use; /* forked: one test's own */

static void note_memory(void *arg, const char *key, uint64_t value)
{
	(void)arg;
	if (strcmp(key, "memory_bytes") == 0)
		in_use = value;
}

static uint64_t memory_of(struct blk_node *n)
{
	driver_ram.describe(n, note_memory, NULL);
	return in_use;
}

static int random_run(void *arg)
{
	struct blktest *t = arg;
	struct simfile *s = (void *)(uintptr_t)t->base[3];
	struct blk_node *n;
	cr_assert_eq(blktest_open(s->env, &driver_ram, NULL, false, (const char *[]){ "8M", NULL }, &n, NULL), 0);
	t->node = n;
	t->base[3] = 0;
	blktest_init(t, 0);
	int r = blktest_run(t);
	cr_assert_eq(r, 0);
	cr_assert_eq(blktest_check(t), 0);
	cr_assert_eq(blk_op_wait(n, BLK_DISCARD, 0, n->info.size, 0), 0);
	cr_assert_eq(memory_of(n), 0, "all of it was discarded");
	return blk_close(n);
}

Test(ram, random_requests)
{
	for (uint64_t seed = 1; seed <= 6; seed++) {
		struct simfile s;
		simfile_start(&s, seed, 512);
		struct blktest t = { .seed = seed, .base = { 0, (2 << 20) - 16384, 4 << 20, (uintptr_t)&s }, .base_count = 3,
				     .window = 64 * 512, .slots = 4, .operations = 600, .length_max = 40,
				     .unaligned_memory = true };
		cr_assert_eq(sim_run_fiber(s.env, random_run, &t), 0);
		cr_assert_eq(t.errors, 0);
		blktest_free(&t);
		simfile_stop(&s);
	}
}

static int limit_run(void *arg)
{
	struct simfile *s = arg;
	struct blk_node *n;
	struct report report = { "" };
	char data[8192];
	memset(data, 1, sizeof data);
	cr_assert_eq(blktest_open(s->env, &driver_ram, NULL, false, (const char *[]){ "1G", "memory=16K", NULL }, &n, NULL), 0);
	cr_assert_eq(blk_write_wait(n, data, 8192, 0, 0), 0);
	cr_assert_eq(blk_write_wait(n, data, 8192, 1 << 29, 0), 0);
	cr_assert_eq(blk_write_wait(n, data, 512, 1 << 28, 0), -ENOSPC);
	cr_assert_eq(blk_write_wait(n, data, 512, 512, 0), 0, "overwriting needs no memory");
	cr_assert_eq(blk_op_wait(n, BLK_ZERO, 4096, 4096, BLK_MAY_UNMAP), 0);
	cr_assert_eq(blk_write_wait(n, data, 512, 1 << 28, 0), 0, "a page was given back");
	struct blk_extent e[8];
	struct blk_map map = { .extents = e, .max = 8 };
	cr_assert_eq(blk_map_wait(n, 0, n->info.size, &map), 0);
	cr_assert_eq(map.count, 6);
	cr_assert(e[0].length == 4096 && e[0].flags == BLK_EXTENT_DATA);
	cr_assert(e[1].length == (1 << 28) - 4096 && e[1].flags == (BLK_EXTENT_HOLE | BLK_EXTENT_ZERO));
	cr_assert(e[4].length == 8192 && e[4].flags == BLK_EXTENT_DATA);
	blk_close(n);
	cr_assert_eq(blktest_open(s->env, &driver_ram, NULL, false, (const char *[]){ "1000", NULL }, &n, &report), -EINVAL);
	cr_assert(strstr(report.text, "not a multiple of 512"));
	return 0;
}

Test(ram, memory_is_limited_and_given_back)
{
	struct simfile s;
	simfile_start(&s, 1, 512);
	cr_assert_eq(sim_run_fiber(s.env, limit_run, &s), 0);
	simfile_stop(&s);
}
