/* The recount of a volume against accounting that was made wrong on purpose, number by number. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "core/bytes.h"
#include "parallax/store/verify.h"
#include "parallax/volume/volume_private.h"
#include "tests/unit/volumetest.h"

/* A history: data, a snapshot, overwrites and discards, one more snapshot, overwrites. */
static int body_write(void *arg)
{
	struct volume_rig *g = arg;
	int r = 0;
	for (unsigned round = 0; r == 0 && round < 3; round++) {
		char name[] = { 'a', (char)('0' + round), 0 };
		for (unsigned b = 0; r == 0 && b < 40; b++) {
			memset(g->buffer, (int)(1 + round + b), BLOCK_BYTES);
			r = blk_write_wait(g->node, g->buffer, BLOCK_BYTES, (round * 9 + b * 3) % 200 * BLOCK_BYTES, 0);
		}
		if (r == 0 && round < 2)
			r = volume_snapshot(g->volume, name, &g->report);
	}
	for (unsigned i = 0; r == 0 && i < 2; i++)
		r = volume_checkpoint(g->volume);
	return r;
}

static int body_verify(void *arg)
{
	struct volume_rig *g = arg;
	g->report.text[0] = '\0';
	return volume_verify_space(g->volume, &g->report);
}

static void says(struct volume_rig *g, const char *what)
{
	int r = volume_rig_run(g, body_verify);
	cr_assert_eq(r, -EUCLEAN, "%d: %s instead of: %s", r, g->report.text, what);
	cr_assert(strstr(g->report.text, what), "it says: %s; and not: %s", g->report.text, what);
}

Test(store_check, every_number_that_is_wrong_is_named)
{
	struct volume_rig *g = volume_rig_make(5, 256 * BLOCK_BYTES);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_write), 0, "%s", g->report.text);
	struct volume *v = g->volume;
	cr_assert_eq(volume_rig_run(g, body_verify), 0, "%s", g->report.text);
	cr_assert(v->space.list_count == 2 && v->space.dead > 0);

	v->meta.mapped_blocks++;
	says(g, "its head maps");
	v->meta.mapped_blocks--;
	v->meta.live_blocks--;
	says(g, "the catalog says that");
	v->meta.live_blocks++;
	v->meta.dead_blocks++;
	says(g, "snapshots alone keep");
	v->meta.dead_blocks--;

	struct space_segment *s = v->space.segments;
	while (s->live == 0)
		s++;
	s->live++;
	says(g, "blocks are accounted live");
	s->live--;

	/* a list: one entry less, another's entry, one twice */
	struct space_tail *t = &v->space.lists[1].tail[0];
	cr_assert_gt(t->count, 1);
	t->count--;
	says(g, "it isn't on its list");
	t->count++;
	uint64_t was = t->entries[0];
	t->entries[0] = t->entries[1];
	says(g, "is on two dead lists, or twice on");
	t->entries[0] = position_make(UINT64_C(1) << 40, 3);
	says(g, "there is no such segment");
	t->entries[0] = was;

	/* roots */
	struct meta_root root = v->meta.root;
	v->meta.root.pointer.position++;
	cr_assert_eq(volume_rig_run(g, body_verify), -EIO, "%s", g->report.text);
	cr_assert(strstr(g->report.text, "a node of its head"), "%s", g->report.text);
	v->meta.root = root;
	v->meta.root.level = 9;
	says(g, "has a map of 9 levels");
	v->meta.root = root;
	cr_assert_eq(volume_rig_run(g, body_verify), 0, "%s", g->report.text);
	volume_rig_free(g);
}
