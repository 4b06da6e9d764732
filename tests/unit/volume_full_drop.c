/* A snapshot is deleted while its volume's disk is full to the last byte, and what is to be done for that needs more of the log than is left: it is done in parts, each of
 * which gives space back. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/volume/volume_private.h"
#include "tests/unit/volumetest.h"

#define DISK_BYTES (UINT64_C(512) << 20)
enum {
	CHUNKS = 120,      /* of the younger snapshot's dead list, */
	OLD = 448,         /* each with so many blocks that the older one has, too, */
	YOUNG = 64,        /* and so many that it hasn't */
	LOOSE = 256,
	PART = 128,
	BALLAST_BYTES = 1 << 20,
};

static int write_run(struct volume_rig *g, uint64_t first, uint32_t count)
{
	uint8_t *bytes = env_alloc_aligned(PART * BLOCK_BYTES);
	int r = 0;
	memset(bytes, 5, PART * BLOCK_BYTES);
	for (uint32_t done = 0; r == 0 && done < count; done += PART)
		r = blk_write_wait(g->node, bytes, (uint64_t)MIN(count - done, (uint32_t)PART) * BLOCK_BYTES, (first + done) * BLOCK_BYTES, 0);
	free(bytes);
	return r;
}

static int discard(struct volume_rig *g, uint64_t first, uint32_t count)
{
	return blk_op_wait(g->node, BLK_DISCARD, first * BLOCK_BYTES, (uint64_t)count * BLOCK_BYTES, 0);
}

/* All that there is, but for `left` bytes. `at`: how much of it others had before. */
static void fill(struct volume_rig *g, uint64_t *at, uint64_t left)
{
	struct file *f;
	uint8_t *bytes = env_alloc_aligned(BALLAST_BYTES);
	memset(bytes, 1, BALLAST_BYTES);
	cr_assert_eq(file_open(g->env, "/ballast", FILE_OPEN_WRITE | FILE_OPEN_CREATE, &f), 0);
	for (size_t n = BALLAST_BYTES; n >= BLOCK_BYTES;) {
		uint64_t total, free_bytes;
		cr_assert_eq(env_space(g->env, "", &free_bytes, &total), 0);
		int w = free_bytes < left + n ? -ENOSPC : file_write_wait(f, bytes, n, *at);
		*at += w == 0 ? n : 0;
		n /= w == 0 ? 1 : 2;
	}
	file_close(g->env, f);
	free(bytes);
}

static void doom(struct volume_rig *g, uint64_t mark)
{
	volume_rig_doom(g, mark);
	volume_reap_soon(g->volume);
}

/* The younger one's dead list has chunks that are to be read, and put together anew for the older one. */
static void make_lists(struct volume_rig *g, uint64_t young, uint64_t loose)
{
	cr_assert_eq(write_run(g, 0, CHUNKS * OLD), 0);
	cr_assert_eq(volume_snapshot(g->volume, "old", &g->report), 0, "%s", g->report.text);
	cr_assert_eq(write_run(g, young, CHUNKS * YOUNG), 0);
	cr_assert_eq(write_run(g, loose, LOOSE), 0);
	cr_assert_eq(volume_snapshot(g->volume, "young", &g->report), 0, "%s", g->report.text);
	for (unsigned i = 0; i < CHUNKS; i++) {
		cr_assert_eq(discard(g, (uint64_t)i * OLD, OLD), 0);
		cr_assert_eq(discard(g, young + (uint64_t)i * YOUNG, YOUNG), 0);
		cr_assert_eq(volume_checkpoint(g->volume), 0);
	}
}

/* Whatever comes free meanwhile goes to others, too. */
struct filler {
	struct volume_rig *g;
	uint64_t at;
	bool stops, ended;
};

static int filler(void *arg)
{
	struct filler *f = arg;
	for (; !f->stops; fiber_sleep(&f->g->env->loop, NS_PER_MS / 10))
		fill(f->g, &f->at, 0);
	f->ended = true;
	return 0;
}

/* First there is what servers keep for checkpoints; then others have that, too, and discards use up what the log has. */
static void fill_all(struct volume_rig *g, uint64_t loose)
{
	struct volume *v = g->volume;
	struct filler f = { .g = g };
	int r = 0;
	fill(g, &f.at, UINT64_C(3) << 20);
	for (unsigned i = 0; r == 0 && i < 10000; i++)
		r = write_run(g, loose, 1);
	cr_assert_eq(r, -ENOSPC);
	fiber_sleep(&g->env->loop, NS_PER_S);
	cr_assert_eq(fiber_start(&g->env->loop, filler, &f, NULL), 0);
	for (unsigned i = 0; i < 2000 && log_room(v) > checkpoint_reserve(v) + 4; i++) {
		discard(g, loose + i % LOOSE, 1);
		fiber_sleep(&g->env->loop, NS_PER_MS);
	}
	fiber_sleep(&g->env->loop, NS_PER_S);
	for (f.stops = true; !f.ended;)
		fiber_sleep(&g->env->loop, NS_PER_MS);
	cr_assert(v->log.full);
}

static int body(void *arg)
{
	struct volume_rig *g = arg;
	struct meta_snapshot m;
	const uint64_t young = CHUNKS * OLD, loose = young + CHUNKS * YOUNG;
	make_lists(g, young, loose);
	uint64_t mark = g->volume->newest_mark;
	fiber_sleep(&g->env->loop, NS_PER_S);
	fill_all(g, loose);
	doom(g, mark);
	fiber_sleep(&g->env->loop, 60 * NS_PER_S);
	cr_expect_eq(meta_get_snapshot(g->places.catalog, 1, mark, &m, NULL), -ENOENT, "it is never freed");
	return write_run(g, loose, LOOSE);
}

Test(volume_full, a_snapshot_is_deleted_in_what_is_left)
{
	struct volume_rig *g = volume_rig_make_on(1, UINT64_C(1) << 30, DISK_BYTES);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_expect_eq(volume_rig_run(g, body), 0, "what was freed can't be written");
	volume_rig_free(g);
}

/* Nothing is kept: others had all before the volume noticed, and have at once whatever comes free. */
static int body_nothing_left(void *arg)
{
	struct volume_rig *g = arg;
	struct volume *v = g->volume;
	struct meta_snapshot m;
	struct filler f = { .g = g };
	const uint64_t young = CHUNKS * OLD, loose = young + CHUNKS * YOUNG;
	int r = 0;
	make_lists(g, young, loose);
	uint64_t mark = v->newest_mark;
	fiber_sleep(&g->env->loop, NS_PER_S);
	cr_assert_eq(fiber_start(&g->env->loop, filler, &f, NULL), 0);
	for (unsigned i = 0; r == 0 && i < 30000; i++)
		r = write_run(g, loose, 1);
	cr_assert_eq(r, -ENOSPC);
	doom(g, mark);
	fiber_sleep(&g->env->loop, 20 * NS_PER_S);
	cr_assert(v->log.full && v->checkpoint_failed == -ENOSPC);
	uint64_t steps = v->drop_steps;
	fiber_sleep(&g->env->loop, 20 * NS_PER_S);
	cr_expect_eq(v->drop_steps, steps, "each attempt needs more room than the one before");
	for (f.stops = true; !f.ended;)
		fiber_sleep(&g->env->loop, NS_PER_MS);
	cr_assert_eq(env_unlink(g->env, "/ballast"), 0);
	fiber_sleep(&g->env->loop, 60 * NS_PER_S);
	cr_expect_eq(meta_get_snapshot(g->places.catalog, 1, mark, &m, NULL), -ENOENT, "it is never freed");
	cr_expect(!v->log.full);
	return write_run(g, loose, LOOSE);
}

Test(volume_full, a_checkpoint_without_room_gets_no_longer)
{
	struct volume_rig *g = volume_rig_make_on(1, UINT64_C(1) << 30, DISK_BYTES);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_expect_eq(volume_rig_run(g, body_nothing_left), 0, "there is space, and it isn't noticed");
	volume_rig_free(g);
}

static unsigned unfinished(const struct volume *v)
{
	unsigned n = 0;
	link_for(l, &v->log.segments)
		n += !container_of(l, struct log_segment, link)->finished;
	return n;
}

static int body_certain(void *arg)
{
	struct volume_rig *g = arg;
	struct volume *v = g->volume;
	const unsigned step = g->segment_blocks / 16;
	cr_assert_eq(log_room_certain(v), unfinished(v) * (step - 1));
	cr_assert_eq(write_run(g, 0, 2 * step), 0);
	cr_assert_eq(log_room_certain(v), (unfinished(v) - 1) * (step - 1), "what is written isn't there any more");
	cr_assert_eq(log_room_kept(v), 0);
	return 0;
}

/* Of segments that may grow no more: their beginnings. */
Test(volume_full, what_is_certainly_allocated)
{
	struct volume_rig *g = volume_rig_make_on(1, UINT64_C(1) << 30, DISK_BYTES);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_certain), 0);
	volume_rig_free(g);
}
