/* A volume whose catalog was lost, and restored from a backup that was taken while the volume was attached (R5): what was written or done since has changed its
 * segments, but not what the catalog says of them. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/volume/volume_private.h"
#include "tests/unit/volumetest.h"

enum { LATER = 100, LATER_BLOCKS = 400 }; /* more than a segment */

struct restored_rig {
	struct volume_rig *g;
	struct catalog_image backup;
};
static struct restored_rig *rig;

static int body_backup(void *arg)
{
	struct volume_rig *g = arg;
	volume_rig_write(g);
	return catalog_image_read(g->places.catalog, &rig->backup, &g->report);
}

static int body_write_later(void *arg)
{
	struct volume_rig *g = arg;
	for (unsigned i = 0; i < LATER_BLOCKS; i++) {
		memset(g->buffer, 77, BLOCK_BYTES);
		cr_assert_eq(blk_write_wait(g->node, g->buffer, BLOCK_BYTES, (LATER + i) * BLOCK_BYTES, BLK_FUA), 0);
	}
	fiber_sleep(&g->env->loop, NS_PER_S); /* the first segment is cut, and sealed */
	return 0;
}

static int body_restore(void *arg)
{
	struct volume_rig *g = arg;
	struct catalog *c = g->places.catalog;
	cr_assert_eq(catalog_image_raise(&rig->backup, &g->report), 0, "%s", g->report.text);
	cr_assert_eq(catalog_image_erase(c, &g->report), 0);
	cr_assert_eq(catalog_image_write(c, &rig->backup, &g->report), 0, "%s", g->report.text);
	cr_assert_eq(catalog_mark(c, STORE_RESTORED, "today", &g->report), 0);
	catalog_image_free(&rig->backup);
	return 0;
}

static int body_confirm(void *arg)
{
	struct volume_rig *g = arg;
	return catalog_mark(g->places.catalog, STORE_RESTORED, NULL, &g->report);
}

static int body_check(void *arg)
{
	struct volume_rig *g = arg;
	for (unsigned i = 0; i < VOLUME_RIG_WRITES; i++) {
		cr_assert_eq(blk_read_wait(g->node, g->buffer, BLOCK_BYTES, i * BLOCK_BYTES), 0);
		cr_assert_eq(g->buffer[0], i + 1, "block %u of the time of the backup", i);
	}
	/* what came later is there up to some moment */
	bool gone = false;
	for (unsigned i = 0; i < LATER_BLOCKS; i++) {
		cr_assert_eq(blk_read_wait(g->node, g->buffer, BLOCK_BYTES, (LATER + i) * BLOCK_BYTES), 0);
		cr_assert(g->buffer[0] == 0 || (g->buffer[0] == 77 && !gone), "block %u", i);
		gone = g->buffer[0] == 0;
	}
	memset(g->buffer, 99, BLOCK_BYTES);
	return blk_write_wait(g->node, g->buffer, BLOCK_BYTES, 0, BLK_FUA);
}

static void begin(uint64_t seed)
{
	static struct restored_rig r;
	rig = &r;
	r = (struct restored_rig){ .g = volume_rig_make(seed, 1024 * BLOCK_BYTES) };
	cr_assert_eq(volume_rig_open(r.g), 0, "%s", r.g->report.text);
	cr_assert_eq(volume_rig_run(r.g, body_backup), 0, "%s", r.g->report.text);
}

static void again(void)
{
	volume_rig_begin(rig->g);
	cr_assert_eq(volume_rig_run(rig->g, body_restore), 0);
}

Test(restored, written_since)
{
	for (uint64_t seed = 1; seed <= 5; seed++) {
		begin(seed);
		cr_assert_eq(volume_rig_run(rig->g, body_write_later), 0);
		volume_rig_kill(rig->g);
		again();
		cr_assert_eq(volume_rig_open(rig->g), 0, "%s", rig->g->report.text);
		cr_assert_eq(volume_rig_run(rig->g, body_check), 0);
		/* it is an ordinary one again */
		cr_assert_eq(volume_rig_run(rig->g, volume_rig_close), 0);
		cr_assert_eq(volume_rig_open(rig->g), 0, "%s", rig->g->report.text);
		volume_rig_free(rig->g);
	}
}

/* Closing deletes the segments that were listed for what would be written next. Whether one had been used isn't known, so somebody must say so. */
Test(restored, closed_since)
{
	begin(1);
	cr_assert_eq(volume_rig_run(rig->g, volume_rig_close), 0);
	volume_rig_kill(rig->g);
	again();
	cr_assert_eq(volume_rig_open(rig->g), -EUCLEAN);
	cr_assert(strstr(rig->g->report.text, "attach with --accept-flushed"), "%s", rig->g->report.text);
	rig->g->accept_flushed = true;
	cr_assert_eq(volume_rig_open(rig->g), 0, "%s", rig->g->report.text);
	cr_assert_eq(volume_rig_run(rig->g, body_check), 0);
	volume_rig_free(rig->g);
}

/* Where nothing was restored a listed segment can't be missing, whatever is accepted. */
Test(restored, only_then)
{
	begin(1);
	cr_assert_eq(volume_rig_run(rig->g, volume_rig_close), 0);
	volume_rig_kill(rig->g);
	again();
	cr_assert_eq(volume_rig_run(rig->g, body_confirm), 0);
	rig->g->accept_flushed = true;
	cr_assert_eq(volume_rig_open(rig->g), -EUCLEAN);
	cr_assert(strstr(rig->g->report.text, "is missing"), "%s", rig->g->report.text);
	volume_rig_free(rig->g);
}

/* ---- what is deleted while not all could be recovered ---- */

static uint64_t snapshot_count(struct volume_rig *g)
{
	struct catalog_tally t = { .prefix = "snapshot/" };
	cr_assert_eq(catalog_count(g->places.catalog, &t, 1), 0);
	return t.count;
}

static int body_delete(void *arg)
{
	struct volume_rig *g = arg;
	struct store_mark of;
	cr_assert_eq(volume_snapshot(g->volume, "s", &g->report), 0, "%s", g->report.text);
	cr_assert_eq(store_find_snapshot(&g->places, "v", "s", &of.volume, &of.mark, &g->report), 0);
	cr_assert_eq(catalog_mark_recovered(g->places.catalog, &(struct catalog_since){ 1, 2 }, /* all= */ false, &g->report), 0);
	cr_assert_eq(store_doom_snapshot(&g->store, of.volume, of.mark), 0);
	volume_reap_soon(g->volume);
	fiber_sleep(&g->env->loop, NS_PER_S);
	uint64_t checkpoints = g->volume->counters.checkpoints;
	fiber_sleep(&g->env->loop, 60 * NS_PER_S);
	cr_expect_eq(snapshot_count(g), 1u, "it may be what another volume is to be recovered from");
	cr_expect_eq(g->volume->counters.checkpoints, checkpoints, "looking whether that is over costs checkpoints");
	return 0;
}

static int body_delete_confirm(void *arg)
{
	struct volume_rig *g = arg;
	cr_assert_eq(catalog_mark_confirmed(g->places.catalog, &g->report), 0);
	fiber_sleep(&g->env->loop, 60 * NS_PER_S);
	cr_expect_eq(snapshot_count(g), 0u, "nobody frees it");
	return 0;
}

/* Nobody tells who has the volume that it is over. */
Test(restored, what_waited_for_the_confirmation_is_freed)
{
	struct volume_rig *g = volume_rig_make(1, 1024 * BLOCK_BYTES);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_delete), 0);
	cr_assert_eq(volume_rig_run(g, body_delete_confirm), 0);
	volume_rig_free(g);
}

/* Nor is it waited for when that is closed meanwhile. */
Test(restored, a_volume_where_that_waits_is_closed)
{
	struct volume_rig *g = volume_rig_make(1, 1024 * BLOCK_BYTES);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_delete), 0);
	cr_assert_eq(volume_rig_run(g, volume_rig_close), 0);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_delete_confirm), 0);
	volume_rig_free(g);
}
