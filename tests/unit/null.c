#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "core/drivers.h"
#include "tests/unit/blktest.h"
#include "tests/unit/simfile.h"

static int null_run(void *arg)
{
	struct simfile *s = arg;
	struct blk_node *n;
	char data[4096];
	memset(data, 1, sizeof data);
	cr_assert_eq(blktest_open(s->env, &driver_null, NULL, false, (const char *[]){ "1T", NULL }, &n, NULL), 0);
	cr_assert_eq(n->info.size, UINT64_C(1) << 40);
	cr_assert_eq(blk_write_wait(n, data, sizeof data, n->info.size - sizeof data, BLK_FUA), 0);
	cr_assert_eq(blk_read_wait(n, data, sizeof data, n->info.size - sizeof data), 0);
	for (unsigned i = 0; i < sizeof data; i++)
		cr_assert_eq(data[i], 0);
	cr_assert_eq(blk_op_wait(n, BLK_FLUSH, 0, 0, 0), 0);
	cr_assert_eq(blk_op_wait(n, BLK_DISCARD, 0, n->info.size, 0), 0);
	cr_assert_eq(blk_read_wait(n, data, 512, n->info.size), -EINVAL);
	struct blk_extent e;
	struct blk_map map = { .extents = &e, .max = 1 };
	cr_assert_eq(blk_map_wait(n, 0, n->info.size, &map), 0);
	cr_assert(map.count == 1 && e.length == n->info.size && (e.flags & BLK_EXTENT_HOLE));
	blk_close(n);
	struct report report = { "" };
	cr_assert_eq(blktest_open(s->env, &driver_null, NULL, false, (const char *[]){ "777", NULL }, &n, &report), -EINVAL);
	cr_assert(strstr(report.text, "not a multiple of 512"));
	cr_assert_eq(blktest_open(s->env, &driver_null, NULL, false, (const char *[]){ NULL }, &n, &report), -EINVAL);
	return 0;
}

Test(null, swallows_and_gives_zeroes)
{
	struct simfile s;
	simfile_start(&s, 1, 512);
	cr_assert_eq(sim_run_fiber(s.env, null_run, &s), 0);
	simfile_stop(&s);
}
