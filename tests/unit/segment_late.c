/* Holes for what is free come a while later (segment_dir_late.c): in time for nobody to miss the space, and not for nothing. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/segment/segment_dir.h"
#include "tests/unit/copytest.h"

enum { FREED = 160, SHORT_WHILE = 5, LONG_WHILE = 30, DELETED_TOGETHER = 40, POOL_EMBEDDED = 4 };

static void delete(struct world *w, uint64_t id)
{
	struct segment_io io = { .op = SEGMENT_DELETE, .segment = id, .epoch = 5 };
	cr_assert_eq(segment_wait(w->a, &io), 0);
}

static void open_dir(struct world *w, uint64_t size_limit)
{
	struct segment_dir_options o = { .create = true, .size_limit = size_limit };
	cr_assert_eq(segment_dir_open(w->env, "/a", w->catalog, &o, &w->a, NULL), 0);
}

/* The first hole of all is made at once, to see whether there can be any. */
static void begin(struct world *w)
{
	open_dir(w, 0);
	make_copy(w, w->a, 1, true);
	trim(w->a, 1, 16, FREED, false);
	delete(w, 1);
}

static uint64_t space(struct world *w)
{
	uint64_t free_bytes = 0, total;
	cr_assert_eq(env_space(w->env, "/a", &free_bytes, &total), 0);
	return free_bytes / BLOCK_BYTES;
}

static void wait_s(struct world *w, unsigned seconds) { cr_assert_eq(fiber_sleep(&w->env->loop, seconds * NS_PER_S), 0); }

static int body_later(void *arg)
{
	struct world *w = arg;
	begin(w);
	make_copy(w, w->a, 7, true);
	uint64_t before = space(w);
	trim(w->a, 7, 16, FREED, false);
	cr_assert_eq(space(w), before);
	struct segment_io io = { .op = SEGMENT_READ, .segment = 7, .block = 20, .blocks = 1 };
	cr_assert_eq(ask(w->a, &io, w->page, BLOCK_BYTES), -ENODATA, "free at once, for readers");
	wait_s(w, SHORT_WHILE);
	cr_assert_eq(space(w), before);
	wait_s(w, LONG_WHILE);
	cr_assert_eq(space(w), before + FREED);
	return segment_server_close(w->a);
}

Test(segment_late, what_is_free_becomes_a_hole_later) { copytest_run(body_later); }

/* The trims of a copy that are under way to be deleted cost nothing, and its blocks are the next one's. */
static int body_recycled(void *arg)
{
	struct world *w = arg;
	begin(w);
	make_copy(w, w->a, 7, true);
	uint64_t before = space(w);
	trim(w->a, 7, 16, FREED, false);
	delete(w, 7);
	cr_assert_eq(space(w), before, "kept to be recycled");
	make_copy(w, w->a, 8, true);
	cr_assert_eq(space(w), before);
	wait_s(w, LONG_WHILE);
	cr_assert_eq(space(w), before, "holes for the one that was there would be in the new one now");
	for (uint32_t block = 0; block < LENGTH; block++) {
		struct segment_io io = { .op = SEGMENT_READ, .segment = 8, .block = block, .blocks = 1 };
		cr_assert_eq(ask(w->a, &io, w->page, BLOCK_BYTES), 0);
		cr_assert(block == 0 || (block - 1) % (PAYLOAD + 1) == 0 || w->page[0] == (uint8_t)((block - 1) / (PAYLOAD + 1) + (block - 1) % (PAYLOAD + 1) - 1 + 8));
	}
	return segment_server_close(w->a);
}

Test(segment_late, a_copy_that_dies_soon_leaves_a_whole_file) { copytest_run(body_recycled); }

static int body_pool(void *arg)
{
	struct world *w = arg;
	begin(w);
	uint64_t empty = space(w), one;
	make_copy(w, w->a, 7, true);
	one = empty - space(w);
	delete(w, 7);
	cr_assert_eq(space(w), empty - one);
	wait_s(w, 2 * LONG_WHILE);
	cr_assert_geq(space(w) + 2, empty, "nobody wanted it"); /* directories may have grown */
	return segment_server_close(w->a);
}

Test(segment_late, a_recycled_file_is_kept_for_a_while) { copytest_run(body_pool); }

static int body_closed(void *arg)
{
	struct world *w = arg;
	begin(w);
	make_copy(w, w->a, 7, true);
	uint64_t before = space(w);
	trim(w->a, 7, 16, FREED, false);
	cr_assert_eq(segment_server_close(w->a), 0);
	cr_assert_eq(space(w), before + FREED);
	return 0;
}

Test(segment_late, closing_leaves_nothing_for_later) { copytest_run(body_closed); }

/* Of a disk that is nearly full nothing is kept. */
static int body_short(void *arg)
{
	struct world *w = arg;
	begin(w);
	make_copy(w, w->a, 7, true);
	struct file *f;
	cr_assert_eq(file_open(w->env, "/other", FILE_OPEN_WRITE | FILE_OPEN_CREATE, &f), 0);
	struct file_io io = { .op = FILE_ALLOCATE, .length = (space(w) - 8) * BLOCK_BYTES };
	struct job j;
	job_init(&j, &w->env->loop);
	file_submit(f, &io, &j);
	cr_assert_eq(fiber_wait(&j), 0);
	file_close(w->env, f);
	cr_assert_eq(segment_dir_space(w->a), 0);
	uint64_t before = space(w);
	trim(w->a, 7, 16, FREED, false);
	cr_assert_eq(space(w), before + FREED);
	return segment_server_close(w->a);
}

Test(segment_late, when_space_is_short_holes_come_at_once) { copytest_run(body_short); }

/* ---- what is remembered ---- */

/* The checksums of all of a segment, which a copy that isn't sealed has in memory, are a hundred times what is known of one that is gone. */
static int body_forgotten(void *arg)
{
	struct world *w = arg;
	open_dir(w, 0);
	for (unsigned sealed = 0; sealed < 2; sealed++) {
		uint64_t id = 7 + sealed;
		make_copy(w, w->a, id, sealed);
		struct copy *c = copy_hold(dir_of(w->a), id);
		cr_assert(c->exists && (sealed || c->crcs));
		delete(w, id);
		cr_assert(!c->exists && !c->crcs);
		copy_release(c);
	}
	make_copy(w, w->a, 7, true); /* it may come again */
	return segment_server_close(w->a);
}

Test(segment_late, a_copy_that_is_gone_takes_no_memory_for_its_checksums) { copytest_run(body_forgotten); }

/* ---- which files are recycled ---- */

static int count_name(void *arg, const char *name)
{
	(void)name;
	++*(unsigned *)arg;
	return 0;
}

static unsigned recycled(struct world *w)
{
	unsigned count = 0;
	cr_assert_eq(env_list_dir(w->env, "/a/recycle", count_name, &count), 0);
	return count;
}

static int body_together(void *arg)
{
	struct world *w = arg;
	struct segment_io ios[DELETED_TOGETHER];
	struct job jobs[DELETED_TOGETHER];
	begin(w);
	for (unsigned i = 0; i < DELETED_TOGETHER; i++)
		make_copy(w, w->a, 100 + i, true);
	for (unsigned i = 0; i < DELETED_TOGETHER; i++) {
		ios[i] = (struct segment_io){ .op = SEGMENT_DELETE, .segment = 100 + i, .epoch = 5 };
		job_init(&jobs[i], &w->env->loop);
		segment_submit(w->a, &ios[i], &jobs[i]);
	}
	for (unsigned i = 0; i < DELETED_TOGETHER; i++)
		cr_assert_eq(fiber_wait(&jobs[i]), 0);
	cr_assert_eq(recycled(w), POOL_EMBEDDED);
	wait_s(w, 2 * LONG_WHILE);
	cr_assert_eq(recycled(w), 0, "none that nobody remembers");
	return segment_server_close(w->a);
}

Test(segment_late, those_deleted_together_are_recycled_up_to_the_limit) { copytest_run(body_together); }

/* What was never written to its end is a file with holes. */
static int body_unwritten(void *arg)
{
	struct world *w = arg;
	begin(w);
	make_copy(w, w->a, 7, false);
	delete(w, 7);
	cr_assert_eq(recycled(w), 0);
	make_copy(w, w->a, 8, true);
	delete(w, 8);
	cr_assert_eq(recycled(w), 1);
	return segment_server_close(w->a);
}

Test(segment_late, only_what_was_written_to_its_end_is_recycled) { copytest_run(body_unwritten); }

/* ---- what waits keeps nothing else ---- */

static int body_files(void *arg)
{
	struct world *w = arg;
	begin(w);
	struct segment_dir *d = dir_of(w->a);
	d->files_max = 2;
	for (uint64_t id = 10; id < 20; id++)
		make_copy(w, w->a, id, true);
	uint64_t before = space(w);
	for (uint64_t id = 10; id < 20; id++)
		trim(w->a, id, 16, PUNCH_BLOCKS, false);
	cr_assert_leq(d->files, 3, "%u files are open", d->files);
	cr_assert_eq(space(w), before);
	wait_s(w, LONG_WHILE);
	cr_assert_eq(space(w), before + 10 * PUNCH_BLOCKS);
	return segment_server_close(w->a);
}

Test(segment_late, files_are_closed_while_their_copies_wait) { copytest_run(body_files); }

/* ---- a file system without holes ---- */

static int body_no_holes(void *arg)
{
	struct world *w = arg;
	open_dir(w, 0);
	make_copy(w, w->a, 7, true);
	uint8_t bits[SIZE_BLOCKS / 8] = { 0, 0, 0xff, 0xff, 0xff, 0xff };
	struct segment_io io = { .op = SEGMENT_TRIM, .segment = 7, .blocks = SIZE_BLOCKS, .trim = bits };
	cr_assert_eq(segment_wait(w->a, &io), 0);
	cr_assert(io.trimmed == 32 && io.present == LENGTH, "who decides what is packed has to know");
	uint64_t before = space(w);
	io.pack = true;
	cr_assert_eq(segment_wait(w->a, &io), 0);
	cr_assert_eq(io.present, LENGTH - 32);
	cr_assert_gt(space(w), before);
	return segment_server_close(w->a);
}

/* ---- a process is killed while something waits ---- */

static int body_until_killed(void *arg)
{
	struct world *w = arg;
	begin(w);
	make_copy(w, w->a, 7, true);
	trim(w->a, 7, 16, FREED, false);
	return 0;
}

static int body_close(void *arg) { return segment_server_close(((struct world *)arg)->a); }

static int body_after(void *arg)
{
	struct world *w = arg;
	open_dir(w, 0);
	uint64_t before = space(w);
	struct segment_io io = { .op = SEGMENT_READ, .segment = 7, .block = 1, .blocks = 1 };
	cr_assert_eq(ask(w->a, &io, w->page, BLOCK_BYTES), 0, "somebody comes for it");
	wait_s(w, LONG_WHILE);
	cr_assert_eq(space(w), before + FREED);
	cr_assert_eq(segment_server_close(w->a), 0);
	open_dir(w, 0);
	cr_assert_eq(ask(w->a, &io, w->page, BLOCK_BYTES), 0);
	cr_assert(link_empty(&dir_of(w->a)->late), "none are missing now");
	return segment_server_close(w->a);
}

static int body_untouched(void *arg)
{
	open_dir(arg, 0);
	return segment_server_close(((struct world *)arg)->a);
}

static int body_limited(void *arg)
{
	struct world *w = arg;
	open_dir(w, 64 << 20); /* looks at all copies, to count what they take */
	uint64_t before = space(w);
	wait_s(w, LONG_WHILE);
	cr_assert_eq(space(w), before + FREED);
	return segment_server_close(w->a);
}

/* The first of them is killed. */
static void lives(int (*const *bodies)(void *arg), unsigned count, bool no_holes)
{
	struct world w = { .sim = sim_create(5, NULL), .page = env_alloc_aligned(RECORD_BYTES_MAX) };
	struct sim_host *host = sim_host_create(w.sim, "h", 64 << 20, 4096);
	struct catalog_sim *catalogs = catalog_sim_create(w.sim);
	if (no_holes)
		sim_host_no_holes(host);
	for (unsigned life = 0; life < count; life++) {
		w.env = sim_process_create(w.sim, host);
		w.catalog = catalog_sim_open(catalogs, w.env);
		cr_assert_eq(sim_run_fiber(w.env, bodies[life], &w), 0);
		if (life == 0 && !no_holes) {
			sim_kill(w.env);
			sim_drain_dead(w.env);
			sim_run_fiber(w.env, body_close, &w);
		}
		catalog_close(w.catalog);
		sim_process_destroy(w.env);
	}
	catalog_sim_destroy(catalogs);
	sim_destroy(w.sim);
	free(w.page);
}

Test(segment_late, what_waits_is_found_by_the_process_after_the_one_that_was_killed)
{
	lives((int (*const[])(void *)){ body_until_killed, body_after }, 2, false);
}

Test(segment_late, what_waits_is_found_by_who_looks_at_it_first)
{
	lives((int (*const[])(void *)){ body_until_killed, body_untouched, body_untouched, body_after }, 4, false);
}

Test(segment_late, what_waits_is_found_where_space_is_counted_from_the_start)
{
	lives((int (*const[])(void *)){ body_until_killed, body_limited }, 2, false);
}

Test(segment_late, where_there_are_no_holes_none_are_told_of)
{
	lives((int (*const[])(void *)){ body_no_holes }, 1, true);
}
