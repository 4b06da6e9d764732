/* A space table that is larger than the segments that are listed ahead: what snapshots of many TiB have in their dead lists, or what a server that is away hasn't been told. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/volume/blob.h"
#include "parallax/volume/volume_private.h"
#include "parallax/volume/volume_status.h"
#include "tests/unit/volumetest.h"

enum { CHUNKS = 100000, WRITES = 300 };

/* As if so many had been written. Nobody reads them, as the snapshot stays. */
static void lengthen(struct space *s)
{
	struct space_list *l = &s->lists[0];
	l->chunks = realloc(l->chunks, CHUNKS * sizeof *l->chunks);
	cr_assert(l->chunks);
	s->chunk_sum += CHUNKS - l->chunk_count;
	for (; l->chunk_count < CHUNKS; l->chunk_count++)
		l->chunks[l->chunk_count] = (struct space_chunk){ .at = { 1, 1, 0 }, .count = 1, .min = 1, .max = 1 };
	l->chunk_room = CHUNKS;
}

static int body_write(void *arg)
{
	struct volume_rig *g = arg;
	struct volume *v = g->volume;
	cr_assert_eq(volume_rig_write(g), 0);
	cr_assert_eq(volume_snapshot(v, "s", &g->report), 0, "%s", g->report.text);
	cr_assert_eq(volume_checkpoint(v), 0);
	lengthen(&v->space);
	cr_assert_gt(space_table_blocks_max(&v->space), (uint64_t)3 * g->segment_blocks);
	uint64_t before = v->counters.checkpoints;
	memset(g->buffer, 5, BLOCK_BYTES);
	for (unsigned i = 0; i < WRITES; i++)
		cr_assert_eq(blk_write_wait(g->node, g->buffer, BLOCK_BYTES, (uint64_t)(i % 50) * BLOCK_BYTES, BLK_FUA), 0);
	fiber_sleep(&g->env->loop, 10 * NS_PER_S);
	cr_expect_leq(v->counters.checkpoints - before, 5u, "%llu checkpoints", (unsigned long long)(v->counters.checkpoints - before));
	return 0;
}

/* What a checkpoint writes of it is no reason for the next one, also where it is more than is to be replayed at most. */
static int body_replayed(void *arg)
{
	struct volume_rig *g = arg;
	g->volume->limits.replay_bytes = UINT64_C(1) << 20;
	return body_write(g);
}

/* What those hear who ask its holder. */
static void expect_told(struct volume *v, const char *words)
{
	struct volume_status now, s;
	char text[320];
	volume_status(v, &now);
	char *json = volume_status_encode(&now);
	cr_assert_eq(volume_status_decode(json, &s), 0, "%s", json);
	volume_status_text(&s, 1, 0, text, sizeof text);
	cr_expect(strstr(text, words), "%s", text);
	free(json);
}

/* A table that nobody could read isn't published: not one that is too long. */
static int body_too_long(void *arg)
{
	struct volume_rig *g = arg;
	struct volume *v = g->volume;
	const uint32_t more = BLOB_BYTES_MAX / 40;
	cr_assert_eq(volume_rig_write(g), 0);
	cr_assert_eq(volume_snapshot(v, "s", &g->report), 0, "%s", g->report.text);
	cr_assert_eq(volume_snapshot(v, "newest", &g->report), 0, "%s", g->report.text);
	cr_assert_eq(volume_checkpoint(v), 0);
	uint64_t generation = v->meta.generation;
	v->space.index_from = UINT64_MAX;
	v->space.lists[0].chunk_count += more; /* they aren't looked at */
	v->space.chunk_sum += more;
	cr_expect_eq(volume_checkpoint(v), -EFBIG);
	cr_expect_eq(v->meta.generation, generation);
	expect_told(v, "(delete snapshots)");
	v->space.lists[0].chunk_count -= more;
	v->space.chunk_sum -= more;
	cr_expect_eq(volume_checkpoint(v), 0);
	expect_told(v, "good");
	return volume_rig_check(g);
}

static void run(int (*body)(void *arg))
{
	struct volume_rig *g = volume_rig_make_on(1, UINT64_C(1) << 30, UINT64_C(1) << 30);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	volume_rig_run(g, body);
	volume_rig_free(g);
}

Test(volume_table, is_no_reason_for_another_one) { run(body_replayed); }
Test(volume_table, that_is_too_long_is_not_published) { run(body_too_long); }

Test(volume_table, that_becomes_too_long_is_told_of_before)
{
	char text[320] = "";
	cr_expect(!volume_table_long(BLOB_BYTES_MAX / 2, text, sizeof text));
	cr_expect(volume_table_long(BLOB_BYTES_MAX / 5 * 4, text, sizeof text));
	cr_expect(strstr(text, "204 of at most 256 MiB") && strstr(text, "(delete snapshots)"), "%s", text);
}

/* Guest data waits while what is listed is less than a checkpoint may need (R20), so that much has to be listed. */
Test(volume_table, writes_go_on_however_long_it_is) { run(body_write); }
