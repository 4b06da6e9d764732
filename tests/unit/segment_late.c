/* Holes for what is free come a while later (segment_dir_late.c): in time for nobody to miss the space, and not for nothing. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "tests/unit/copytest.h"

enum { FREED = 160, SHORT_WHILE = 5, LONG_WHILE = 30 };

static void begin(struct world *w)
{
	struct segment_dir_options o = { .create = true };
	cr_assert_eq(segment_dir_open(w->env, "/a", w->catalog, &o, &w->a, NULL), 0);
}

static uint64_t space(struct world *w)
{
	uint64_t free_bytes = 0, total;
	cr_assert_eq(env_space(w->env, "/a", &free_bytes, &total), 0);
	return free_bytes / BLOCK_BYTES;
}

static void delete(struct world *w, uint64_t id)
{
	struct segment_io io = { .op = SEGMENT_DELETE, .segment = id, .epoch = 5 };
	cr_assert_eq(segment_wait(w->a, &io), 0);
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
	begin(w);
	uint64_t before = space(w);
	struct segment_io io = { .op = SEGMENT_READ, .segment = 7, .block = 1, .blocks = 1 };
	cr_assert_eq(ask(w->a, &io, w->page, BLOCK_BYTES), 0, "somebody comes for it");
	wait_s(w, LONG_WHILE);
	cr_assert_eq(space(w), before + FREED);
	return segment_server_close(w->a);
}

Test(segment_late, what_waits_is_found_by_the_process_after_the_one_that_was_killed)
{
	struct world w = { .sim = sim_create(5, NULL), .page = env_alloc_aligned(RECORD_BYTES_MAX) };
	struct sim_host *host = sim_host_create(w.sim, "h", 64 << 20, 4096);
	struct catalog_sim *catalogs = catalog_sim_create(w.sim);
	for (unsigned life = 0; life < 2; life++) {
		w.env = sim_process_create(w.sim, host);
		w.catalog = catalog_sim_open(catalogs, w.env);
		cr_assert_eq(sim_run_fiber(w.env, life ? body_after : body_until_killed, &w), 0);
		if (life == 0) {
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
