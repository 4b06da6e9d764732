/* raw and cow on real files: the same random user as in the simulator, and locks between real open files. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/drivers.h"
#include "core/fiber.h"
#include "tests/unit/blktest.h"

#define DISK_BYTES (8 << 20)

struct place {
	struct env *env;
	char dir[64], image[96], layer[96], direct[16];
	bool with_cow;
};

static void place_make(struct place *p, const char *direct)
{
	snprintf(p->dir, sizeof p->dir, "/tmp/aqtest.XXXXXX");
	cr_assert(mkdtemp(p->dir));
	snprintf(p->image, sizeof p->image, "%s/a.img", p->dir);
	snprintf(p->layer, sizeof p->layer, "%s/top.cow", p->dir);
	snprintf(p->direct, sizeof p->direct, "direct=%s", direct);
	int fd = open(p->image, O_CREAT | O_RDWR, 0600);
	cr_assert(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0);
	close(fd);
	blktest_root = p->dir;
	cr_assert_eq(env_linux_create(0, &p->env), 0);
}

static void place_remove(struct place *p)
{
	static const char *const dirs[] = { "run/aquifer/images", "run/aquifer", "run" };
	char path[128];
	env_linux_destroy(p->env);
	unlink(p->image);
	unlink(p->layer);
	for (unsigned i = 0; i < 3; i++) {
		snprintf(path, sizeof path, "%s/%s", p->dir, dirs[i]);
		cr_assert_eq(rmdir(path), 0, "%s: a note was left behind?", path);
	}
	cr_assert_eq(rmdir(p->dir), 0);
}

static int open_all(struct place *p, struct blk_node **ret_base, struct blk_node **ret_top)
{
	int r = blktest_open(p->env, &driver_raw, NULL, p->with_cow, (const char *[]){ p->image, p->direct, NULL }, ret_base, NULL);
	*ret_top = *ret_base;
	if (r == 0 && p->with_cow)
		r = blktest_open(p->env, &driver_cow, *ret_base, false, (const char *[]){ p->layer, p->direct, NULL }, ret_top, NULL);
	return r;
}

static int random_run(void *arg)
{
	struct place *p = arg;
	struct blktest t = { .seed = 7, .base = { 0, 1 << 20, DISK_BYTES - 128 * 512 }, .base_count = 3, .window = 128 * 512,
			     .slots = 16, .operations = 1500, .length_max = 40, .unaligned_memory = true };
	blktest_init(&t, 0);
	for (unsigned round = 0; round < 2; round++) {
		struct blk_node *base, *top;
		cr_assert_eq(open_all(p, &base, &top), 0);
		t.node = top;
		cr_assert_eq(blktest_run(&t), 0);
		cr_assert_eq(blktest_check(&t), 0);
		cr_assert_eq(t.errors, 0);
		cr_assert_eq(blk_close(top), 0);
		cr_assert(top == base || blk_close(base) == 0);
	}
	blktest_free(&t);
	return 0;
}

static void random_on_files(const char *direct, bool with_cow)
{
	struct place p = { .with_cow = with_cow };
	place_make(&p, direct);
	cr_assert_eq(env_linux_run_fiber(p.env, random_run, &p), 0);
	place_remove(&p);
}

Test(formats_linux, raw_direct) { random_on_files("on", false); }
Test(formats_linux, raw_buffered) { random_on_files("off", false); }
Test(formats_linux, cow_direct) { random_on_files("on", true); }
Test(formats_linux, cow_buffered) { random_on_files("off", true); }

static int locks_run(void *arg)
{
	struct place *p = arg;
	struct blk_node *a, *b;
	struct report report = { "" };
	const char *words[] = { p->image, NULL };
	cr_assert_eq(blktest_open(p->env, &driver_raw, NULL, false, words, &a, NULL), 0);
	cr_assert_eq(blktest_open(p->env, &driver_raw, NULL, false, words, &b, &report), -EBUSY);
	cr_assert(strstr(report.text, "in use by the unit test"), "%s", report.text);
	blk_close(a);
	cr_assert_eq(blktest_open(p->env, &driver_raw, NULL, true, words, &a, NULL), 0);
	cr_assert_eq(blktest_open(p->env, &driver_raw, NULL, true, words, &b, NULL), 0);
	blk_close(a);
	blk_close(b);
	words[0] = p->dir;
	report.text[0] = '\0';
	cr_assert_lt(blktest_open(p->env, &driver_raw, NULL, true, words, &a, &report), 0, "a directory is no image");
	cr_assert(strstr(report.text, "directory"), "%s", report.text);
	return 0;
}

Test(formats_linux, locks)
{
	struct place p = { .with_cow = false };
	place_make(&p, "on");
	cr_assert_eq(env_linux_run_fiber(p.env, locks_run, &p), 0);
	place_remove(&p);
}

/* ---- two that want the same image ---- */

struct rival {
	struct place *place;
	struct blk_node *node;
	struct report report;
	int status;
};

static int rival_run(void *arg)
{
	struct rival *r = arg;
	r->report.text[0] = '\0';
	r->status = blktest_open(r->place->env, &driver_raw, NULL, false, (const char *[]){ r->place->image, NULL }, &r->node, &r->report);
	return 0;
}

static int count_entry(void *arg, const char *name)
{
	(void)name;
	++*(unsigned *)arg;
	return 0;
}

static unsigned notes(struct place *p)
{
	char path[128];
	unsigned n = 0;
	snprintf(path, sizeof path, "%s/run/aquifer/images", p->dir);
	cr_assert_eq(env_list_dir(p->env, path, count_entry, &n), 0);
	return n;
}

/* Who is refused doesn't take away the note of who got it, and knows who that is. */
static int rivals_run(void *arg)
{
	struct place *p = arg;
	for (unsigned i = 0; i < 40; i++) {
		struct rival two[2] = { { .place = p }, { .place = p } };
		struct job over;
		job_init(&over, &p->env->loop);
		for (unsigned k = 0; k < 2; k++) {
			job_hold(&over);
			cr_assert_eq(fiber_start(&p->env->loop, rival_run, &two[k], &over), 0);
		}
		fiber_wait(&over);
		struct rival *has = &two[two[0].status != 0], *other = &two[two[0].status == 0];
		cr_assert(has->status == 0 && other->status == -EBUSY, "%d %d", has->status, other->status);
		cr_assert_eq(notes(p), 1, "round %u", i);
		cr_assert(strstr(other->report.text, "in use by the unit test"), "round %u: %s", i, other->report.text);
		cr_assert_eq(blk_close(has->node), 0);
	}
	return 0;
}

Test(formats_linux, two_that_want_the_same_image)
{
	struct place p = { .with_cow = false };
	place_make(&p, "on");
	cr_assert_eq(env_linux_run_fiber(p.env, rivals_run, &p), 0);
	place_remove(&p);
}

/* ---- a map of what is being changed ---- */

struct changer {
	struct blk_node *node;
	bool stop;
	int status;
};

static int change(void *arg)
{
	struct changer *c = arg;
	void *data = env_alloc_aligned(65536);
	memset(data, 1, 65536);
	while (!c->stop && c->status == 0) {
		c->status = blk_write_wait(c->node, data, 65536, 0, 0);
		if (c->status == 0)
			c->status = blk_op_wait(c->node, BLK_DISCARD, 0, 65536, 0);
	}
	free(data);
	return c->status;
}

static int changing_run(void *arg)
{
	struct place *p = arg;
	struct changer c = { .stop = false };
	struct job over;
	cr_assert_eq(blktest_open(p->env, &driver_raw, NULL, false, (const char *[]){ p->image, p->direct, NULL }, &c.node, NULL), 0);
	job_init(&over, &p->env->loop);
	job_hold(&over);
	cr_assert_eq(fiber_start(&p->env->loop, change, &c, &over), 0);
	for (unsigned i = 0; i < 6000; i++) {
		struct blk_extent e[8];
		struct blk_map map = { .extents = e, .max = 8 };
		int r = blk_map_wait(c.node, 0, 1 << 20, &map);
		cr_assert_eq(r, 0, "map %u: %s", i, strerror(-r));
	}
	c.stop = true;
	cr_assert_eq(fiber_wait(&over), 0);
	return blk_close(c.node);
}

Test(formats_linux, a_map_of_what_is_being_changed)
{
	struct place p = { .with_cow = false };
	place_make(&p, "on");
	cr_assert_eq(env_linux_run_fiber(p.env, changing_run, &p), 0);
	place_remove(&p);
}
