/* raw, over the simulated disk: random requests of every alignment against the oracle, crashes, locks,
 * odd sizes, files that shrink. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/drivers.h"
#include "core/fiber.h"
#include "tests/unit/blktest.h"
#include "tests/unit/simfile.h"

struct world {
	struct simfile s;
	struct blktest test;
	struct blk_node *node;
	const char *words[4];
	bool read_only;
	struct report report;
	uint8_t *buffer;
};

static int world_open(void *arg)
{
	struct world *w = arg;
	w->report = (struct report){ "" };
	w->node = NULL;
	return blktest_open(w->s.env, &driver_raw, NULL, w->read_only, w->words, &w->node, &w->report);
}

static int world_close(void *arg)
{
	struct world *w = arg;
	int r = blk_close(w->node);
	w->node = NULL;
	return r;
}

static void world_start(struct world *w, uint64_t seed, uint32_t io_align, const char *direct)
{
	*w = (struct world){ .words = { "/a.img", direct } };
	simfile_start(&w->s, seed, io_align);
}

static void run_ok(struct world *w, int (*run)(void *), void *arg)
{
	int r = sim_run_fiber(w->s.env, run, arg);
	cr_assert_eq(r, 0, "seed %lu: %s: %s%s", (unsigned long)w->test.seed, strerror(-r), w->report.text, w->test.why);
}

/* ---- random requests ---- */

static void random_rounds(uint64_t seed, uint32_t io_align, const char *direct, bool crash)
{
	struct world w;
	world_start(&w, seed, io_align, direct);
	simfile_make(&w.s, "/a.img", 1 << 20);
	w.test = (struct blktest){ .seed = seed, .base = { 0, 700 * 512 }, .base_count = 2, .window = 96 * 512,
				   .slots = 12, .operations = 300, .length_max = 24, .unaligned_memory = true };
	blktest_init(&w.test, 0);
	for (unsigned round = 0; round < 3; round++) {
		run_ok(&w, world_open, &w);
		w.test.node = w.node;
		if (crash) {
			struct job done;
			job_init(&done, &w.s.env->loop);
			job_hold(&done);
			fiber_start(&w.s.env->loop, blktest_run, &w.test, &done);
			for (uint64_t n = 200 + sim_random(w.s.sim) % 2000; n > 0 && sim_step(w.s.sim); n--)
				;
			simfile_crash(&w.s);
			cr_assert_eq(done.pending, 1, "the test didn't end");
			cr_assert(!w.test.failed, "seed %lu: %s", (unsigned long)seed, w.test.why);
			sim_run_fiber(w.s.env, world_close, &w);
			simfile_reboot(&w.s);
		} else {
			run_ok(&w, blktest_run, &w.test);
			run_ok(&w, world_close, &w);
		}
		run_ok(&w, world_open, &w);
		w.test.node = w.node;
		run_ok(&w, blktest_check, &w.test);
		run_ok(&w, world_close, &w);
	}
	cr_assert_eq(w.test.errors, 0);
	blktest_free(&w.test);
	simfile_stop(&w.s);
}

Test(raw, random_requests_on_512_byte_blocks)
{
	for (uint64_t seed = 1; seed <= 8; seed++)
		random_rounds(seed, 512, "direct=on", false);
}

Test(raw, random_requests_on_4k_blocks)
{
	for (uint64_t seed = 1; seed <= 12; seed++)
		random_rounds(seed, 4096, "direct=on", false);
}

Test(raw, random_requests_through_the_page_cache)
{
	for (uint64_t seed = 1; seed <= 8; seed++)
		random_rounds(seed, 4096, "direct=off", false);
}

Test(raw, a_crash_loses_nothing_that_was_flushed)
{
	for (uint64_t seed = 1; seed <= 24; seed++)
		random_rounds(seed, seed % 2 ? 512 : 4096, seed % 3 ? "direct=on" : "direct=off", true);
}

/* ---- sizes ---- */

static int write_end(void *arg)
{
	struct world *w = arg;
	memset(w->buffer, 0x55, 512);
	return blk_write_wait(w->node, w->buffer, 512, w->node->info.size - 512, BLK_FUA);
}

static int read_end(void *arg)
{
	struct world *w = arg;
	return blk_read_wait(w->node, w->buffer, 1024, w->node->info.size - 1024);
}

Test(raw, an_odd_size_ends_in_zeroes)
{
	struct world w;
	world_start(&w, 1, 512, "direct=on");
	w.buffer = env_alloc_aligned(4096);
	simfile_make(&w.s, "/a.img", 8192 + 100);
	uint8_t tail[100];
	memset(tail, 0xaa, sizeof tail);
	sim_disk_write(w.s.host, "/a.img", 8192, tail, sizeof tail);
	for (unsigned writable = 0; writable < 2; writable++) {
		w.read_only = !writable;
		run_ok(&w, world_open, &w);
		cr_assert_eq(w.node->info.size, 8192 + 512);
		run_ok(&w, read_end, &w);
		for (unsigned i = 0; i < 512; i++)
			cr_assert_eq(w.buffer[512 + i], i < 100 ? 0xaa : 0);
		if (writable)
			run_ok(&w, write_end, &w);
		run_ok(&w, world_close, &w);
	}
	uint8_t end[512];
	sim_disk_read(w.s.host, "/a.img", 8192, end, sizeof end);
	cr_assert(end[0] == 0x55 && end[511] == 0x55);
	free(w.buffer);
	simfile_stop(&w.s);
}

static int size_of(void *arg)
{
	struct world *w = arg;
	struct file *f;
	struct file_info info;
	if (file_open(w->s.env, "/a.img", 0, &f) < 0 || file_stat(f, &info) < 0)
		return -EIO;
	file_close(w->s.env, f);
	return (int)info.size;
}

Test(raw, a_write_at_the_end_does_not_change_the_size_on_4k_blocks)
{
	struct world w;
	world_start(&w, 1, 4096, "direct=on");
	w.buffer = env_alloc_aligned(4096);
	simfile_make(&w.s, "/a.img", 8192 + 512);
	run_ok(&w, world_open, &w);
	run_ok(&w, write_end, &w);
	run_ok(&w, world_close, &w);
	cr_assert_eq(sim_run_fiber(w.s.env, size_of, &w), 8192 + 512);
	free(w.buffer);
	simfile_stop(&w.s);
}

static int shrink(void *arg)
{
	struct world *w = arg;
	struct file *f;
	struct file_io io = { .op = FILE_TRUNCATE, .offset = 4096 };
	struct job j;
	int r = file_open(w->s.env, "/a.img", FILE_OPEN_WRITE, &f);
	if (r < 0)
		return r;
	job_init(&j, &w->s.env->loop);
	file_submit(f, &io, &j);
	r = fiber_wait(&j);
	file_close(w->s.env, f);
	return r;
}

/* A user who copies by the map must not take what is gone for zeroes. */
static int map_shrunk(void *arg)
{
	struct world *w = arg;
	struct blk_extent e[4];
	struct blk_map map = { .extents = e, .max = 4 };
	int r = blk_map_wait(w->node, 4096, 65536 - 4096, &map);
	cr_assert_eq(map.count, 1);
	cr_assert_eq(e[0].flags, BLK_EXTENT_DATA);
	return r;
}

Test(raw, a_file_that_shrank_gives_errors_not_zeroes)
{
	for (unsigned aligned = 0; aligned < 2; aligned++) {
		struct world w;
		world_start(&w, 1, 4096, "direct=on");
		uint8_t *memory = env_alloc_aligned(8192);
		w.buffer = memory + (aligned ? 0 : 512); /* the second time through the bounce buffer */
		simfile_make(&w.s, "/a.img", 65536);
		run_ok(&w, world_open, &w);
		run_ok(&w, read_end, &w);
		run_ok(&w, shrink, &w);
		cr_assert_eq(sim_run_fiber(w.s.env, read_end, &w), -EIO);
		run_ok(&w, map_shrunk, &w);
		run_ok(&w, world_close, &w);
		free(memory);
		simfile_stop(&w.s);
	}
}

static void refused(struct world *w, int status, const char *words)
{
	int r = sim_run_fiber(w->s.env, world_open, w);
	cr_assert_eq(r, status, "%d: %s", r, w->report.text);
	cr_assert(strstr(w->report.text, words), "'%s' doesn't say '%s'", w->report.text, words);
}

Test(raw, says_what_it_refuses)
{
	struct world w;
	world_start(&w, 1, 512, "direct=on");
	refused(&w, -ENOENT, "open /a.img: No such file");
	simfile_make(&w.s, "/a.img", 0);
	refused(&w, -EINVAL, "/a.img is empty");
	simfile_stop(&w.s);
}

/* ---- locks ---- */

static int count_one(void *arg, const char *name)
{
	(void)name;
	++*(int *)arg;
	return 0;
}

static int count_notes(void *arg)
{
	int count = 0;
	int r = env_list_dir(((struct world *)arg)->s.env, "/run/aquifer/images", count_one, &count);
	return r < 0 ? r : count;
}

/* Of an image that nobody writes, killed readers leave no more notes than one. */
Test(raw, readers_remove_the_notes_of_dead_ones)
{
	struct world w;
	world_start(&w, 1, 512, "direct=on");
	simfile_make(&w.s, "/a.img", 65536);
	for (unsigned i = 0; i < 5; i++) {
		struct world reader = w;
		reader.s.env = sim_process_create(w.s.sim, w.s.host);
		reader.read_only = true;
		run_ok(&reader, world_open, &reader);
		cr_assert_eq(sim_run_fiber(w.s.env, count_notes, &w), 1);
		sim_kill(reader.s.env);
		sim_drain_dead(reader.s.env);
		sim_run_fiber(reader.s.env, world_close, &reader);
		sim_process_destroy(reader.s.env);
	}
	simfile_stop(&w.s);
}

Test(raw, one_writer_or_many_readers)
{
	struct world w, other;
	world_start(&w, 1, 512, "direct=on");
	simfile_make(&w.s, "/a.img", 65536);
	other = w;
	other.s.env = sim_process_create(w.s.sim, w.s.host);
	run_ok(&w, world_open, &w);
	refused(&other, -EBUSY, "/a.img is in use by the unit test");
	other.read_only = true;
	refused(&other, -EBUSY, "in use by the unit test");
	run_ok(&w, world_close, &w);
	run_ok(&other, world_open, &other);
	w.read_only = true;
	run_ok(&w, world_open, &w);
	run_ok(&w, world_close, &w);
	w.read_only = false;
	refused(&w, -EBUSY, "in use by the unit test");
	/* The holder is killed: its note stays behind and must not matter. */
	sim_kill(other.s.env);
	sim_drain_dead(other.s.env);
	sim_run_fiber(other.s.env, world_close, &other);
	sim_process_destroy(other.s.env);
	run_ok(&w, world_open, &w);
	run_ok(&w, world_close, &w);
	cr_assert_eq(sim_run_fiber(w.s.env, count_notes, &w), 0, "notes were left behind");
	simfile_stop(&w.s);
}

/* ---- the allocation map ---- */

static int map_some(void *arg)
{
	struct world *w = arg;
	struct blk_extent e[8];
	struct blk_map map = { .extents = e, .max = 8 };
	memset(w->buffer, 1, 4096);
	int r = blk_write_wait(w->node, w->buffer, 4096, 65536, 0);
	if (r == 0)
		r = blk_map_wait(w->node, 0, w->node->info.size, &map);
	cr_assert_eq(r, 0);
	uint64_t at = 0;
	for (unsigned i = 0; i < map.count; at += e[i++].length) {
		bool data = at <= 65536 && 65536 < at + e[i].length;
		cr_assert_eq(e[i].flags == BLK_EXTENT_DATA, data, "extent %u at %lu", i, (unsigned long)at);
	}
	cr_assert_eq(at, w->node->info.size);
	return 0;
}

Test(raw, maps_data_and_holes)
{
	struct world w;
	world_start(&w, 1, 512, "direct=on");
	w.buffer = env_alloc_aligned(4096);
	simfile_make(&w.s, "/a.img", 1 << 20);
	run_ok(&w, world_open, &w);
	run_ok(&w, map_some, &w);
	run_ok(&w, world_close, &w);
	free(w.buffer);
	simfile_stop(&w.s);
}

/* ---- errors ---- */

static int flush(void *arg) { return blk_op_wait(((struct world *)arg)->node, BLK_FLUSH, 0, 0, 0); }

Test(raw, after_a_failed_sync_no_flush_succeeds)
{
	struct world w;
	world_start(&w, 1, 512, "direct=on");
	w.buffer = env_alloc_aligned(4096);
	simfile_make(&w.s, "/a.img", 65536);
	run_ok(&w, world_open, &w);
	sim_doses(w.s.sim)->sync_error = 1000000;
	cr_assert_eq(sim_run_fiber(w.s.env, flush, &w), -EIO);
	*sim_doses(w.s.sim) = (struct sim_doses){ 0 };
	cr_assert_eq(sim_run_fiber(w.s.env, flush, &w), -EIO, "what the kernel forgot isn't durable");
	sim_run_fiber(w.s.env, world_close, &w);
	free(w.buffer);
	simfile_stop(&w.s);
}
