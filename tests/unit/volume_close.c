/* Closing a volume at any moment of a checkpoint that runs by itself: everything is there when it is opened again. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/store/verify.h"
#include "tests/unit/volumetest.h"

enum { WRITES = 40 };

static int body_write(void *arg)
{
	struct volume_rig *g = arg;
	for (unsigned i = 0; i < WRITES; i++) {
		memset(g->buffer, (int)i + 1, BLOCK_BYTES);
		cr_assert_eq(blk_write_wait(g->node, g->buffer, BLOCK_BYTES, i * BLOCK_BYTES, 0), 0);
	}
	return 0;
}

static int body_close_within(void *arg)
{
	struct volume_rig *g = arg;
	/* it starts one */
	cr_assert_eq(volume_snapshot(g->volume, "s", &g->report), 0, "%s", g->report.text);
	fiber_sleep(&g->env->loop, sim_random(g->sim) % (20 * NS_PER_MS));
	return volume_rig_close(g);
}

static int body_check(void *arg)
{
	struct volume_rig *g = arg;
	for (unsigned i = 0; i < WRITES; i++) {
		cr_assert_eq(blk_read_wait(g->node, g->buffer, BLOCK_BYTES, i * BLOCK_BYTES), 0);
		cr_assert_eq(g->buffer[0], i + 1, "block %u is lost", i);
	}
	uint64_t volume, mark;
	struct meta_snapshot s;
	cr_assert_eq(store_find_snapshot(&g->places, "v", "s", &volume, &mark, NULL), 0);
	cr_assert_eq(meta_get_snapshot(g->places.catalog, volume, mark, &s, NULL), 0);
	cr_assert(s.has_root, "nobody will give the snapshot its map");
	return 0;
}

Test(volume_close, within_a_checkpoint)
{
	for (uint64_t seed = 1; seed <= 30; seed++) {
		struct volume_rig *g = volume_rig_make(seed, 1 << 20);
		cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
		cr_assert_eq(volume_rig_run(g, body_write), 0);
		cr_assert_eq(volume_rig_run(g, body_close_within), 0, "seed %llu", (unsigned long long)seed);
		cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
		volume_rig_run(g, body_check);
		volume_rig_free(g);
	}
}

/* ---- a disk that fails some writes while a volume is closed ---- */

static int body_close_ill(void *arg)
{
	struct volume_rig *g = arg;
	sim_doses(g->sim)->write_error = 150000;
	int r = volume_rig_close(g);
	sim_doses(g->sim)->write_error = 0;
	return r;
}

static int body_all_accounted(void *arg)
{
	struct volume_rig *g = arg;
	for (unsigned i = 0; i < WRITES; i++) {
		cr_assert_eq(blk_read_wait(g->node, g->buffer, BLOCK_BYTES, i * BLOCK_BYTES), 0);
		cr_assert_eq(g->buffer[0], i + 1, "block %u is lost", i);
	}
	int r = -EAGAIN;
	for (unsigned i = 0; i < 100 && r == -EAGAIN; i++) {
		cr_assert_eq(volume_checkpoint(g->volume), 0);
		r = volume_verify_space(g->volume, &g->report);
	}
	return r;
}

/* The log goes on in another segment, which the table that is being written doesn't know; the next owner must. */
Test(volume_close, on_a_disk_that_fails)
{
	unsigned closed = 0;
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct volume_rig *g = volume_rig_make(seed, 1 << 20);
		cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
		cr_assert_eq(volume_rig_run(g, body_write), 0);
		closed += volume_rig_run(g, body_close_ill) == 0;
		cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
		cr_assert_eq(volume_rig_run(g, body_all_accounted), 0, "seed %llu: %s", (unsigned long long)seed, g->report.text);
		volume_rig_free(g);
	}
	cr_assert(closed > 10, "%u", closed);
}

/* ---- a catalog that now and then doesn't say what became of a request ---- */

static int body_come_and_go(void *arg)
{
	struct volume_rig *g = arg;
	struct store_volume_options o = { .size_bytes = 1 << 20 };
	int r = store_volume_create(&g->store, "w", &o, &g->report);
	if (r == 0)
		r = store_volume_rename(&g->store, "w", "x", &g->report);
	if (r == 0)
		r = store_volume_delete(&g->store, "x", false, &g->report);
	return r == -ETIMEDOUT ? 0 : r; /* looking something up may fail so, and says so */
}

Test(volume_close, what_was_deleted_is_said_to_be)
{
	for (uint64_t seed = 1; seed <= 400; seed++) {
		struct volume_rig *g = volume_rig_make(seed, 1 << 20);
		catalog_sim_doses(g->catalogs)->timeout = 150000;
		cr_assert_eq(volume_rig_run(g, body_come_and_go), 0, "seed %llu: %s", (unsigned long long)seed, g->report.text);
		catalog_sim_doses(g->catalogs)->timeout = 0;
		volume_rig_free(g);
	}
}
