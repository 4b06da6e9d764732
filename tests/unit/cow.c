/* cow over simulated disks: random requests against the oracle, power losses at any step, damage, growth, refusals. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/components/cow_file.h"
#include "agent/components/cow_format.h"
#include "core/bytes.h"
#include "core/crc.h"
#include "core/drivers.h"
#include "core/fiber.h"
#include "tests/unit/blktest.h"
#include "tests/unit/simfile.h"

#define PARENT_BYTES ((UINT64_C(100) << 20) + 3 * 512)
#define SIZE_WORD "size=128M"
#define WINDOW (512 * 512u) /* large enough that fresh blocks remain to the end */

struct world {
	struct simfile s;
	struct blktest test;
	struct blk_node *parent, *node;
	const char *words[4];
	bool read_only, force;
	struct report report;
};

/* ---- opening and closing ---- */

static int world_open(void *arg)
{
	struct world *w = arg;
	w->report = (struct report){ "" };
	w->node = NULL;
	int r = blktest_open(w->s.env, &driver_raw, NULL, /* read_only= */ true, (const char *[]){ "/parent.img", NULL },
			     &w->parent, &w->report);
	if (r == 0)
		r = blktest_open(w->s.env, &driver_cow, w->parent, w->read_only, w->words, &w->node, &w->report);
	if (r < 0) {
		blk_close(w->parent);
		w->parent = NULL;
	}
	w->test.node = w->node;
	return r;
}

static int world_close(void *arg)
{
	struct world *w = arg;
	int r = blk_close(w->node);
	blk_close(w->parent);
	w->node = w->parent = NULL;
	return r;
}

static void run_ok(struct world *w, int (*run)(void *), void *arg)
{
	int r = sim_run_fiber(w->s.env, run, arg);
	cr_assert_eq(r, 0, "seed %lu: %s: %s%s", (unsigned long)w->test.seed, strerror(-r), w->report.text, w->test.why);
}

static void refused(struct world *w, int status, const char *words)
{
	int r = sim_run_fiber(w->s.env, world_open, w);
	cr_assert_eq(r, status, "%d: %s", r, w->report.text);
	cr_assert(strstr(w->report.text, words), "'%s' doesn't say '%s'", w->report.text, words);
}

static void fill_parent(struct world *w, uint64_t from, uint64_t to)
{
	uint8_t data[512];
	for (uint64_t at = from; at < to && at < PARENT_BYTES; at += 512) {
		blktest_fill(data, at / 512, BLKTEST_PARENT);
		sim_disk_write(w->s.host, "/parent.img", at, data, sizeof data);
	}
}

/* The disk's start, the seam of two groups, and the end of the parent. */
static void world_start(struct world *w, uint64_t seed, uint32_t io_align)
{
	*w = (struct world){ .words = { "/top.raw", SIZE_WORD } };
	simfile_start(&w->s, seed, io_align);
	simfile_make(&w->s, "/parent.img", PARENT_BYTES);
	w->test = (struct blktest){ .seed = seed, .base = { 0, COW_GROUP_DATA - WINDOW / 2, PARENT_BYTES - WINDOW / 2 + 512 },
				    .base_count = 3, .window = WINDOW, .slots = 12, .operations = 400, .length_max = 24,
				    .unaligned_memory = true };
	blktest_init(&w->test, BLKTEST_PARENT);
	for (unsigned b = 0; b < w->test.base_count; b++) {
		fill_parent(w, w->test.base[b], w->test.base[b] + WINDOW);
		for (unsigned i = 0; i < WINDOW / 512; i++)
			if (w->test.base[b] + i * 512 >= PARENT_BYTES)
				w->test.sector[b * (WINDOW / 512) + i].history[0].id = 0;
	}
}

static void world_stop(struct world *w)
{
	blktest_free(&w->test);
	simfile_stop(&w->s);
}

/* ---- random requests ---- */

/* The power goes after a random number of steps of `run`. */
static void run_and_crash(struct world *w, int (*run)(void *), void *arg, uint64_t steps)
{
	struct job done;
	job_init(&done, &w->s.env->loop);
	job_hold(&done);
	fiber_start(&w->s.env->loop, run, arg, &done);
	for (uint64_t n = steps; n > 0 && done.pending > 1 && sim_step(w->s.sim); n--)
		;
	simfile_crash(&w->s);
	cr_assert_eq(done.pending, 1, "it didn't end");
	cr_assert(!w->test.failed, "seed %lu: %s", (unsigned long)w->test.seed, w->test.why);
}

static void check(struct world *w)
{
	run_ok(w, world_open, w);
	run_ok(w, blktest_check, &w->test);
	run_ok(w, world_close, w);
}

static void random_rounds(uint64_t seed, unsigned rounds, bool crash)
{
	struct world w;
	world_start(&w, seed, seed % 3 ? 512 : 4096);
	for (unsigned round = 0; round < rounds; round++) {
		run_ok(&w, world_open, &w);
		if (crash) {
			run_and_crash(&w, blktest_run, &w.test, 100 + sim_random(w.s.sim) % 3000);
			sim_run_fiber(w.s.env, world_close, &w);
			simfile_reboot(&w.s);
		} else {
			run_ok(&w, blktest_run, &w.test);
			run_ok(&w, world_close, &w);
		}
		check(&w);
	}
	cr_assert_eq(w.test.errors, 0);
	world_stop(&w);
}

Test(cow, random_requests)
{
	for (uint64_t seed = 1; seed <= 12; seed++)
		random_rounds(seed, 3, false);
}

Test(cow, a_power_loss_loses_nothing_that_was_flushed)
{
	for (uint64_t seed = 1; seed <= 90; seed++)
		random_rounds(seed, 2, true);
}

/* kill -9, not a power loss: everything that completed is there except what the map didn't say yet. */
Test(cow, a_kill_leaves_a_good_layer)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct world w;
		struct job done;
		world_start(&w, seed, 512);
		run_ok(&w, world_open, &w);
		job_init(&done, &w.s.env->loop);
		job_hold(&done);
		fiber_start(&w.s.env->loop, blktest_run, &w.test, &done);
		for (uint64_t n = 100 + sim_random(w.s.sim) % 4000; n > 0 && sim_step(w.s.sim); n--)
			;
		sim_kill(w.s.env);
		sim_drain_dead(w.s.env);
		cr_assert(!w.test.failed, "seed %lu: %s", (unsigned long)seed, w.test.why);
		sim_run_fiber(w.s.env, world_close, &w);
		simfile_reboot(&w.s);
		check(&w);
		world_stop(&w);
	}
}

/* ---- making and growing ---- */

Test(cow, a_power_loss_while_the_file_is_made_leaves_none_or_a_good_one)
{
	for (uint64_t seed = 1; seed <= 80; seed++) {
		struct world w;
		world_start(&w, seed, 512);
		run_and_crash(&w, world_open, &w, seed);
		sim_run_fiber(w.s.env, world_close, &w);
		simfile_reboot(&w.s);
		check(&w);
		world_stop(&w);
	}
}

static int write_one(void *arg)
{
	struct world *w = arg;
	uint8_t data[512];
	memset(data, 0x77, sizeof data);
	return blk_write_wait(w->node, data, sizeof data, 0, BLK_FUA);
}

static int read_both_ends(void *arg)
{
	struct world *w = arg;
	uint8_t data[512];
	int r = blk_read_wait(w->node, data, sizeof data, 0);
	cr_assert(r == 0 && data[0] == 0x77 && data[511] == 0x77);
	r = blk_read_wait(w->node, data, sizeof data, w->node->info.size - 512);
	cr_assert(r == 0 && data[0] == 0 && data[511] == 0, "what was grown is zero");
	memset(data, 0x77, sizeof data);
	return blk_write_wait(w->node, data, sizeof data, w->node->info.size - 512, 0);
}

Test(cow, grows_but_does_not_shrink)
{
	struct world w;
	world_start(&w, 1, 512);
	w.words[1] = NULL; /* the parent's size */
	run_ok(&w, world_open, &w);
	cr_assert_eq(w.node->info.size, PARENT_BYTES);
	run_ok(&w, write_one, &w);
	run_ok(&w, world_close, &w);
	w.words[1] = "size=1G";
	run_ok(&w, world_open, &w);
	cr_assert_eq(w.node->info.size, 1 << 30);
	run_ok(&w, read_both_ends, &w);
	run_ok(&w, world_close, &w);
	w.words[1] = NULL;
	run_ok(&w, world_open, &w);
	cr_assert_eq(w.node->info.size, 1 << 30);
	run_ok(&w, world_close, &w);
	w.words[1] = "size=512M";
	refused(&w, -EINVAL, "can't shrink");
	world_stop(&w);
}

/* ---- refusals ---- */

Test(cow, a_file_that_is_no_layer_is_not_touched)
{
	struct world w;
	world_start(&w, 1, 512);
	for (unsigned i = 0; i < 2; i++) {
		static const uint8_t words[] = "precious data";
		uint8_t after[sizeof words];
		simfile_make(&w.s, "/top.raw", i ? 200 << 20 : 8192);
		sim_disk_write(w.s.host, "/top.raw", 0, words, sizeof words);
		refused(&w, -EINVAL, "/top.raw is not a cow layer");
		sim_disk_read(w.s.host, "/top.raw", 0, after, sizeof after);
		cr_assert_arr_eq(words, after, sizeof words);
	}
	world_stop(&w);
}

Test(cow, says_what_it_refuses)
{
	struct world w;
	world_start(&w, 1, 512);
	w.words[1] = "size=1M";
	refused(&w, -EINVAL, "less than its parent");
	w.words[1] = NULL;
	w.read_only = true;
	refused(&w, -ENOENT, "open /top.raw: No such file");
	w.read_only = false;
	run_ok(&w, world_open, &w);
	struct world other = w;
	other.s.env = sim_process_create(w.s.sim, w.s.host);
	refused(&other, -EBUSY, "/top.raw is in use by the unit test");
	sim_process_destroy(other.s.env);
	run_ok(&w, world_close, &w);
	simfile_make(&w.s, "/parent.img", 1 << 20);
	refused(&w, -EINVAL, "made over a parent of");
	world_stop(&w);
}

Test(cow, a_truncated_layer_is_refused)
{
	struct world w;
	uint8_t pages[2 * COW_PAGE];
	world_start(&w, 1, 512);
	run_ok(&w, world_open, &w);
	run_ok(&w, world_close, &w);
	sim_disk_read(w.s.host, "/top.raw", 0, pages, sizeof pages);
	simfile_make(&w.s, "/top.raw", 64 << 20);
	sim_disk_write(w.s.host, "/top.raw", 0, pages, sizeof pages);
	w.words[1] = NULL;
	refused(&w, -EIO, "was truncated");
	simfile_make(&w.s, "/top.raw", 1 << 20); /* not even a group */
	sim_disk_write(w.s.host, "/top.raw", 0, pages, sizeof pages);
	refused(&w, -EIO, "was truncated");
	world_stop(&w);
}

/* What it is made under is overwritten when it is there. */
Test(cow, making_a_layer_takes_nobodys_file)
{
	struct world w;
	uint8_t other[COW_PAGE], after[COW_PAGE];
	world_start(&w, 1, 512);
	memset(other, 'o', sizeof other);
	simfile_make(&w.s, "/top.raw.new", sizeof other);
	sim_disk_write(w.s.host, "/top.raw.new", 0, other, sizeof other);
	run_ok(&w, world_open, &w);
	run_ok(&w, write_one, &w);
	run_ok(&w, world_close, &w);
	cr_assert_eq(sim_disk_read(w.s.host, "/top.raw.new", 0, after, sizeof after), 0);
	cr_assert_arr_eq(after, other, sizeof after);
	world_stop(&w);
}

struct maker {
	struct env *env;
	struct report report;
	int status;
};

static int make_layer(void *arg)
{
	struct maker *m = arg;
	fiber_sleep(&m->env->loop, env_random(m->env) % NS_PER_MS);
	m->status = cow_file_prepare(m->env, "/top.raw", 0, &(struct blk_info){ .size = 1 << 20 }, /* rebase= */ false, &m->report);
	return 0;
}

/* Whoever comes second finds it made, or being made; what the other does meanwhile isn't taken for anything else. */
Test(cow, two_may_make_a_layer_at_once)
{
	for (uint64_t seed = 1; seed <= 300; seed++) {
		struct simfile s;
		struct job done;
		simfile_start(&s, seed, 512);
		struct maker m[2] = { { .env = s.env }, { .env = sim_process_create(s.sim, s.host) } };
		job_init(&done, &s.env->loop);
		for (unsigned i = 0; i < 2; i++) {
			job_hold(&done);
			fiber_start(&m[i].env->loop, make_layer, &m[i], &done);
		}
		while (sim_step(s.sim))
			;
		for (unsigned i = 0; i < 2; i++)
			cr_assert(m[i].status == 0 || (m[i].status == -EAGAIN && strstr(m[i].report.text, "another process is creating it")), "seed %lu: %d: %s",
				  (unsigned long)seed, m[i].status, m[i].report.text);
		cr_assert(m[0].status == 0 || m[1].status == 0);
		cr_assert_eq(done.pending, 1);
		sim_process_destroy(m[1].env);
		simfile_stop(&s);
	}
}

/* ---- damage ---- */

static int flush(void *arg) { return blk_op_wait(((struct world *)arg)->node, BLK_FLUSH, 0, 0, 0); }

/* In whichever copy of the header: the other one is older. Nothing is written, also not where it is to grow. */
Test(cow, a_layer_of_a_newer_version_is_refused_and_not_touched)
{
	struct world w;
	uint8_t was[2 * COW_PAGE], newer[2 * COW_PAGE], after[2 * COW_PAGE];
	world_start(&w, 1, 512);
	run_ok(&w, world_open, &w);
	run_ok(&w, write_one, &w);
	run_ok(&w, world_close, &w); /* both copies have been written by now */
	sim_disk_read(w.s.host, "/top.raw", 0, was, sizeof was);
	for (unsigned copy = 0; copy < 2; copy++) {
		uint8_t *page = newer + copy * COW_PAGE;
		memcpy(newer, was, sizeof newer);
		put_le32(page + 8, COW_VERSION + 2);
		put_le32(page + 12, 0);
		put_le32(page + 12, crc32c(0, page, COW_PAGE));
		sim_disk_write(w.s.host, "/top.raw", 0, newer, sizeof newer);
		for (unsigned i = 0; i < 2; i++) {
			w.words[1] = i ? "size=1G" : NULL;
			refused(&w, -EPROTONOSUPPORT, "/top.raw is of version 3, newer than this program knows (1): upgrade this program");
			sim_disk_read(w.s.host, "/top.raw", 0, after, sizeof after);
			cr_assert_arr_eq(after, newer, sizeof after);
		}
	}
	sim_disk_write(w.s.host, "/top.raw", 0, was, sizeof was);
	w.words[1] = NULL;
	run_ok(&w, world_open, &w);
	run_ok(&w, world_close, &w);
	world_stop(&w);
}

Test(cow, a_flipped_bit_in_a_closed_map_is_noticed)
{
	struct world w;
	world_start(&w, 1, 512);
	run_ok(&w, world_open, &w);
	run_ok(&w, write_one, &w);
	run_ok(&w, world_close, &w);
	for (unsigned copy = 0; copy < 2; copy++) {
		uint64_t at = COW_MAP_START + copy * COW_PAGE + 100;
		uint8_t page[COW_PAGE];
		sim_disk_read(w.s.host, "/top.raw", round_down(at, COW_PAGE), page, sizeof page);
		sim_disk_flip(w.s.host, "/top.raw", at, 4);
		refused(&w, -EIO, "the map of group 0 is damaged");
		sim_disk_flip(w.s.host, "/top.raw", at, 4);
	}
	for (unsigned copy = 0; copy < 2; copy++) { /* of the header, one copy will do */
		sim_disk_flip(w.s.host, "/top.raw", copy * COW_PAGE + 30, 4);
		run_ok(&w, world_open, &w);
		run_ok(&w, write_one, &w);
		run_ok(&w, world_close, &w);
	}
	sim_disk_write(w.s.host, "/top.raw", 30, "x", 1);
	sim_disk_write(w.s.host, "/top.raw", COW_PAGE + 30, "x", 1);
	refused(&w, -EIO, "both copies of its header are damaged");
	world_stop(&w);
}

Test(cow, a_commit_that_fails_is_reported_and_made_up_for)
{
	struct world w;
	world_start(&w, 1, 512);
	run_ok(&w, world_open, &w);
	run_ok(&w, write_one, &w);
	w.test.sector[0].history[0].id = BLKTEST_ANY; /* write_one() is not the oracle's */
	sim_doses(w.s.sim)->write_error = 1000000;
	run_ok(&w, flush, &w); /* nothing to write */
	cr_assert_eq(sim_run_fiber(w.s.env, write_one, &w), -EIO);
	*sim_doses(w.s.sim) = (struct sim_doses){ 0 };
	run_ok(&w, blktest_run, &w.test);
	run_ok(&w, world_close, &w);
	check(&w);
	world_stop(&w);
}

static int write_unflushed(void *arg)
{
	uint8_t data[512] = { 1 };
	return blk_write_wait(((struct world *)arg)->node, data, sizeof data, 0, 0);
}

static int write_more_than_fits(void *arg)
{
	struct world *w = arg;
	struct iovec v = { calloc(1, 1 << 20), 1 << 20 };
	struct job j;
	struct blk_io io = { .op = BLK_WRITE, .offset = COW_GROUP_DATA - (512 << 10) + 512, .length = v.iov_len, .iov = &v, .iov_count = 1 };
	job_init(&j, &w->s.env->loop);
	blk_submit(w->node, &io, &j);
	int r = fiber_wait(&j);
	free(v.iov_base);
	return r;
}

Test(cow, a_write_that_fails_takes_no_space)
{
	struct world w;
	world_start(&w, 1, 512);
	run_ok(&w, world_open, &w);
	run_ok(&w, write_unflushed, &w);
	sim_host_fill(w.s.host, 256 << 10);
	uint64_t used = sim_disk_used(w.s.host) + 2 * COW_PAGE; /* the map of another group */
	for (unsigned i = 0; i < 8; i++) {
		cr_assert_eq(sim_run_fiber(w.s.env, write_more_than_fits, &w), -ENOSPC);
		cr_assert_eq(sim_disk_used(w.s.host), used);
	}
	run_ok(&w, flush, &w); /* there is room for the map */
	run_ok(&w, world_close, &w);
	world_stop(&w);
}

/* ---- a full file system ---- */

static int write_group(struct world *w, unsigned group)
{
	uint8_t data[COW_BLOCK];
	memset(data, (int)group + 1, sizeof data);
	return blk_write_wait(w->node, data, sizeof data, group * COW_GROUP_DATA, 0);
}

static int expect_group(struct world *w, unsigned group)
{
	uint8_t data[COW_BLOCK];
	int r = blk_read_wait(w->node, data, sizeof data, group * COW_GROUP_DATA);
	cr_expect(r < 0 || (data[0] == group + 1 && data[COW_BLOCK - 1] == group + 1), "group %u", group);
	return r;
}

static int write_groups(void *arg)
{
	unsigned taken[2] = { 0 };
	int r = 0;
	for (unsigned i = 0; i < 2; i++)
		taken[i] = (r = write_group(arg, i)) == 0;
	cr_expect(r == 0 || r == -ENOSPC);
	if (!taken[1]) {
		r = blk_op_wait(((struct world *)arg)->node, BLK_ZERO, COW_GROUP_DATA, COW_BLOCK, 0); /* takes no more than the map */
		cr_expect(r == 0 || r == -ENOSPC);
	}
	return (int)(taken[0] | taken[1] << 1);
}

static int expect_groups(void *arg)
{
	struct world *w = arg;
	int r = 0;
	for (unsigned i = 0; r == 0 && i < 2; i++)
		if (w->test.operations >> i & 1)
			r = expect_group(w, i);
	return r;
}

/* What is acknowledged can be flushed: its map has room. */
Test(cow, a_full_file_system_refuses_writes_and_no_flush)
{
	bool all = false;
	for (unsigned left = 0; !all; left++) {
		struct world w;
		world_start(&w, 1, 512);
		run_ok(&w, world_open, &w);
		sim_host_fill(w.s.host, left * UINT64_C(4096));
		int taken = sim_run_fiber(w.s.env, write_groups, &w);
		cr_assert_eq(sim_run_fiber(w.s.env, flush, &w), 0, "with %u blocks left", left);
		sim_kill(w.s.env);
		sim_drain_dead(w.s.env);
		sim_run_fiber(w.s.env, world_close, &w);
		simfile_reboot(&w.s);
		w.test.operations = (unsigned)taken;
		run_ok(&w, world_open, &w);
		run_ok(&w, expect_groups, &w);
		run_ok(&w, world_close, &w); /* which says that it's clean */
		world_stop(&w);
		all = taken == 3;
		cr_assert_leq(left, 6u, "two blocks, and two map pages of two copies");
	}
}

static int discard_unflushed(void *arg) { return blk_op_wait(((struct world *)arg)->node, BLK_DISCARD, 0, COW_BLOCK, 0); }

/* The map doesn't say that there is anything; the file has it all the same. */
Test(cow, a_discard_gives_back_what_was_written_before_a_kill)
{
	struct world w;
	world_start(&w, 1, 512);
	run_ok(&w, world_open, &w);
	uint64_t used = sim_disk_used(w.s.host);
	run_ok(&w, write_unflushed, &w);
	sim_kill(w.s.env);
	sim_drain_dead(w.s.env);
	sim_run_fiber(w.s.env, world_close, &w);
	simfile_reboot(&w.s);
	run_ok(&w, world_open, &w);
	used += 2 * COW_PAGE; /* the map's */
	cr_assert_gt(sim_disk_used(w.s.host), used);
	run_ok(&w, discard_unflushed, &w);
	cr_assert_eq(sim_disk_used(w.s.host), used);
	run_ok(&w, world_close, &w);
	world_stop(&w);
}

static int read_one(void *arg)
{
	uint8_t data[512];
	return blk_read_wait(((struct world *)arg)->node, data, sizeof data, 0);
}

Test(cow, data_that_a_failed_sync_forgot_is_not_read_as_something_else)
{
	for (uint64_t seed = 1; seed <= 10; seed++) {
		struct world w;
		world_start(&w, seed, 512);
		run_ok(&w, world_open, &w);
		run_ok(&w, write_unflushed, &w);
		sim_doses(w.s.sim)->sync_error = 1000000;
		cr_assert_eq(sim_run_fiber(w.s.env, flush, &w), -EIO);
		*sim_doses(w.s.sim) = (struct sim_doses){ 0 };
		cr_assert_eq(sim_run_fiber(w.s.env, flush, &w), -EIO);
		cr_assert_eq(sim_run_fiber(w.s.env, read_one, &w), -EIO);
		sim_run_fiber(w.s.env, world_close, &w);
		check(&w); /* the parent's again: it was never flushed */
		world_stop(&w);
	}
}

/* ---- the allocation map ---- */

static int map_check(void *arg)
{
	struct world *w = arg;
	struct blk_extent e[64];
	struct blk_map map = { .extents = e, .max = 64 };
	uint8_t data[4096] = { 1 };
	int r = blk_write_wait(w->node, data, sizeof data, 16384, 0);
	if (r == 0)
		r = blk_op_wait(w->node, BLK_DISCARD, 4096, 8192, 0);
	if (r == 0)
		r = blk_map_wait(w->node, 0, w->node->info.size, &map);
	if (r < 0)
		return r;
	cr_assert(e[0].length == 4096 && e[0].flags == BLK_EXTENT_DATA, "the parent's data");
	cr_assert(e[1].length == 8192 && e[1].flags == (BLK_EXTENT_HOLE | BLK_EXTENT_ZERO), "discarded");
	cr_assert(e[2].length == WINDOW - 12288 && e[2].flags == BLK_EXTENT_DATA, "the parent's and ours");
	cr_assert(e[3].flags == (BLK_EXTENT_HOLE | BLK_EXTENT_ZERO), "the parent's hole");
	uint64_t sum = 0;
	for (unsigned i = 0; i < map.count; i++)
		sum += e[i].length;
	cr_assert_eq(sum, w->node->info.size);
	return 0;
}

Test(cow, maps_what_is_where)
{
	struct world w;
	world_start(&w, 1, 512);
	run_ok(&w, world_open, &w);
	run_ok(&w, map_check, &w);
	run_ok(&w, world_close, &w);
	world_stop(&w);
}

/* ---- the format ---- */

Test(cow_format, header_and_map_survive_and_damage_is_seen)
{
	struct cow_header h = { .sequence = 7, .size = 1 << 30, .parent_size = 512, .id = 0x1122334455667788, .clean = true }, got;
	uint8_t page[COW_PAGE];
	uint64_t sequence;
	cow_header_encode(&h, page);
	cr_assert_eq(cow_header_decode(page, &got), COW_OK);
	cr_assert(got.sequence == 7 && got.size == h.size && got.parent_size == 512 && got.id == h.id && got.clean);
	for (unsigned i = 8; i < COW_PAGE; i++) {
		page[i] ^= 0x10;
		cr_assert_eq(cow_header_decode(page, &got), COW_DAMAGED, "byte %u", i);
		page[i] ^= 0x10;
	}
	memset(page, 0, sizeof page);
	cr_assert_eq(cow_map_check(page, 1, 2, &sequence), COW_BLANK);
	cow_state_set(page + COW_STATE_START, 5, COW_DATA);
	cow_state_set(page + COW_STATE_START, COW_GROUP_BLOCKS - 1, COW_ZERO);
	cow_map_seal(page, 1, 2, 9);
	cr_assert_eq(cow_map_check(page, 1, 2, &sequence), COW_OK);
	cr_assert_eq(sequence, 9);
	cr_assert_eq(cow_map_check(page, 1, 3, &sequence), COW_DAMAGED, "of another group");
	cr_assert_eq(cow_map_check(page, 2, 2, &sequence), COW_DAMAGED, "of another file");
	cow_state_set(page + COW_STATE_START, 5, COW_INVALID);
	cow_map_seal(page, 1, 2, 9);
	cr_assert_eq(cow_map_check(page, 1, 2, &sequence), COW_DAMAGED);
	cr_assert_eq(cow_place(0), 1 << 20);
	cr_assert_eq(cow_place(COW_GROUP_DATA), COW_GROUP + (1 << 20));
	cr_assert_eq(cow_place(COW_GROUP_DATA - 1), COW_GROUP - 1);
}
