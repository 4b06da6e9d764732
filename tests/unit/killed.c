/* Lives that end by a kill, and what they leave behind. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "core/bytes.h"
#include "parallax/store/store_check.h"
#include "parallax/store/verify.h"
#include "parallax/volume/volume_private.h"
#include "tests/unit/volumetest.h"

static int body_write(void *arg)
{
	struct volume_rig *g = arg;
	memset(g->buffer, 7, BLOCK_BYTES);
	return blk_write_wait(g->node, g->buffer, BLOCK_BYTES, 0, 0);
}

/* Each leaves one segment more in the catalog's list; the next one must always find room in it. */
Test(killed, the_list_of_segments_never_fills)
{
	struct volume_rig *g = volume_rig_make(3, 64 * BLOCK_BYTES);
	unsigned longest = 0;
	for (unsigned life = 0; life < 2 * META_SEGMENTS_MAX; life++) {
		if (life) {
			volume_rig_kill(g); /* before a checkpoint can begin by itself */
			volume_rig_begin(g);
		}
		cr_assert_eq(volume_rig_open(g), 0, "life %u: %s", life, g->report.text);
		longest = MAX(longest, g->volume->meta.segment_count);
		cr_assert_eq(volume_rig_run(g, body_write), 0, "life %u", life);
	}
	cr_assert(longest >= LOG_SEGMENTS_LISTED - 1 && longest < META_SEGMENTS_MAX - 8, "%u", longest);
	volume_rig_free(g);
}

static int body_verify(void *arg)
{
	struct volume_rig *g = arg;
	int r = volume_checkpoint(g->volume);
	return r < 0 ? r : volume_verify_space(g->volume, &g->report);
}

static void note_free(void *arg, const char *key, const struct catalog_value *value)
{
	struct meta_owner owner;
	if (strstr(key, "/owner"))
		*(bool *)arg |= meta_owner_decode(value->bytes, value->length, &owner) == 0 && owner.state == OWNER_FREE;
}

/* Closing ends with a transaction that lists nothing any more; the files of segments that were never used go after it. Without a
 * write there is no checkpoint either that would have them in its table. */
Test(killed, a_kill_while_closing_leaves_no_segment_behind)
{
	unsigned between = 0;
	for (unsigned steps = 0; steps < 400; steps += 4) {
		struct volume_rig *g = volume_rig_make(4, 64 * BLOCK_BYTES);
		cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
		cr_assert_eq(fiber_start(&g->env->loop, volume_rig_close, g, NULL), 0);
		for (unsigned n = 0; n < steps && sim_step(g->sim); n++)
			;
		bool is_free = false;
		catalog_sim_each(g->catalogs, "volume/", note_free, &is_free);
		between += is_free;
		volume_rig_kill(g);
		volume_rig_begin(g);
		cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
		cr_assert_eq(volume_rig_run(g, body_verify), 0, "killed %u steps after closing began: %s", steps, g->report.text);
		volume_rig_free(g);
	}
	cr_assert_gt(between, 0);
}

static void says_fault(void *arg, const char *volume, const char *text) { cr_assert_fail("%s: %s: %s", (const char *)arg, volume, text); }

static int body_check(void *arg)
{
	struct volume_rig *g = arg;
	struct store_check how = { .fault = says_fault, .arg = "a check" };
	int r = store_check(&g->store, &how, &g->report);
	cr_assert_eq(how.incomplete, 0u);
	return r;
}

/* Nor does a check that comes before the next opener call what was left a fault. */
Test(killed, a_check_after_a_kill_while_closing_finds_no_fault)
{
	for (unsigned steps = 1; steps < 400; steps += 4) {
		struct volume_rig *g = volume_rig_make(4, 64 * BLOCK_BYTES);
		cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
		cr_assert_eq(fiber_start(&g->env->loop, volume_rig_close, g, NULL), 0);
		for (unsigned n = 0; n < steps && sim_step(g->sim); n++)
			;
		volume_rig_kill(g);
		volume_rig_begin(g);
		cr_assert_eq(volume_rig_run(g, body_check), 0, "killed %u steps after closing began: %s", steps, g->report.text);
		volume_rig_free(g);
	}
}

static bool marked;

static int body_catalog_fails(void *arg)
{
	struct volume_rig *g = arg;
	if (marked) /* that is to get its root */
		cr_assert_eq(volume_snapshot(g->volume, "s", &g->report), 0, "%s", g->report.text);
	uint64_t began_ns = env_now_ns(g->env);
	catalog_sim_outage(g->catalogs, true);
	cr_assert_lt(volume_checkpoint(g->volume), 0);
	cr_assert_lt(env_now_ns(g->env) - began_ns, 60 * NS_PER_S);
	cr_assert_eq(blk_write_wait(g->node, g->buffer, BLOCK_BYTES, 0, 0), -EIO, "a volume whose catalog is broken must say so");
	catalog_sim_outage(g->catalogs, false);
	return 0;
}

/* Every commit of an embedded volume's catalog fails, as on a file system that became read only: nothing hangs. */
static void catalog_fails(void)
{
	struct volume_rig *g = volume_rig_make(6, 64 * BLOCK_BYTES);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_write), 0);
	cr_assert_eq(volume_rig_run(g, body_catalog_fails), 0);
	volume_rig_kill(g);
	volume_rig_begin(g);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_write), 0);
	volume_rig_free(g);
}

Test(killed, a_catalog_that_takes_nothing_ends_an_embedded_volume) { catalog_fails(); }

Test(killed, also_with_a_snapshot_that_has_no_root_yet)
{
	marked = true;
	catalog_fails();
}
