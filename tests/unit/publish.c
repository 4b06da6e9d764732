/* The owner's transactions (parallax/volume/publish.c) where the catalog answers late, and what it says then is of no use. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/volume/volume_private.h"
#include "tests/unit/volumetest.h"

/* The engine below, and what becomes of the volume's transactions. */
static struct {
	struct catalog_ops ops;
	const struct catalog_ops *real;
	bool lose;    /* the next one is applied, and its answer is lost; then … */
	bool damaged; /* … no record can be read */
	bool silent;  /* none that writes the log's record is applied, or answered */
	bool stops;   /* the process, for an hour, while the next one is under way, whose answer is lost */
	bool stops_get; /* likewise while the next snapshot is read */
} below;

static int bad_txn(struct catalog *c, const struct catalog_txn *t, uint64_t *ret_revision)
{
	bool log = false;
	for (unsigned i = 0; i < t->change_count; i++)
		log |= strstr(t->change[i].key, "/log") != NULL;
	if (log && below.silent)
		return -ETIMEDOUT;
	if (log && below.stops) {
		below.stops = false;
		fiber_sleep(&c->env->loop, 3600 * NS_PER_S);
		return -ETIMEDOUT;
	}
	int r = below.real->txn(c, t, ret_revision);
	if (!below.lose || t->compare_count < 2 || r < 0) /* it takes a number */
		return r;
	below.lose = false;
	below.damaged = true;
	return -ETIMEDOUT;
}

static int bad_get(struct catalog *c, const char *key, struct catalog_value *ret_value)
{
	if (below.stops_get && strncmp(key, "snapshot/", 9) == 0) {
		below.stops_get = false;
		*ret_value = (struct catalog_value){ 0 };
		fiber_sleep(&c->env->loop, 3600 * NS_PER_S);
		return -ETIMEDOUT;
	}
	int r = below.real->get(c, key, ret_value);
	if (r == 0 && below.damaged)
		ret_value->bytes[0] ^= 1;
	return r;
}

static void put_below(struct volume_rig *g)
{
	below.real = g->places.catalog->ops;
	below.ops = *below.real;
	below.ops.txn = bad_txn;
	below.ops.get = bad_get;
	below.lose = below.damaged = below.silent = below.stops = below.stops_get = false;
	g->places.catalog->ops = &below.ops;
}

static void lose_next(struct volume_rig *g)
{
	put_below(g);
	below.lose = true;
}

/* Neither outcome may be assumed (R4). */
static void end_unknown(struct volume_rig *g)
{
	cr_assert(below.damaged, "nothing was published");
	cr_expect_eq(g->volume->failed, -EUCLEAN, "it goes on as if it knew");
	cr_expect_eq(blk_write_wait(g->node, g->buffer, BLOCK_BYTES, 0, BLK_FUA), -EIO);
}

static struct volume_rig *rig_make(int (*body)(void *arg))
{
	struct volume_rig *g = volume_rig_make(1, 4 << 20);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, volume_rig_write), 0);
	cr_assert_eq(volume_rig_run(g, body), 0);
	g->places.catalog->ops = below.real;
	volume_rig_kill(g);
	volume_rig_begin(g);
	cr_assert_eq(volume_rig_open(g), 0, "what was listed is gone: %s", g->report.text);
	cr_assert_eq(volume_rig_run(g, volume_rig_check), 0);
	return g;
}

static int body_snapshot(void *arg)
{
	struct volume_rig *g = arg;
	lose_next(g);
	cr_assert_lt(volume_snapshot(g->volume, "s", &g->report), 0);
	end_unknown(g);
	return 0;
}

Test(publish, an_owner_that_cant_learn_whether_a_snapshot_was_taken_ends)
{
	volume_rig_free(rig_make(body_snapshot));
}

/* Until a segment is full, and others are listed. */
static int body_roll(void *arg)
{
	struct volume_rig *g = arg;
	lose_next(g);
	memset(g->buffer, 99, BLOCK_BYTES);
	for (unsigned i = 0; i < 1000 && !below.damaged; i++)
		cr_assert_eq(blk_write_wait(g->node, g->buffer, BLOCK_BYTES, (VOLUME_RIG_WRITES + i % 100) * BLOCK_BYTES, 0), 0);
	fiber_sleep(&g->env->loop, 200 * NS_PER_MS);
	end_unknown(g);
	return 0;
}

Test(publish, segments_that_may_be_listed_stay)
{
	volume_rig_free(rig_make(body_roll));
}

/* A file that takes nothing isn't away: who attaches isn't kept waiting, and learns why. */
Test(publish, who_cant_list_his_segments_in_a_file_says_so)
{
	struct volume_rig *g = volume_rig_make(1, 4 << 20);
	put_below(g);
	below.silent = true;
	cr_assert_eq(volume_rig_open(g), -EIO);
	cr_assert(strstr(g->report.text, "catalog"), "%s", g->report.text);
	below.silent = false;
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	g->places.catalog->ops = below.real;
	volume_rig_free(g);
}

static int body_stopped(void *arg)
{
	struct volume_rig *g = arg;
	put_below(g);
	below.stops = true;
	cr_assert_eq(volume_snapshot(g->volume, "s", &g->report), 0, "%s", g->report.text);
	cr_assert(!below.stops);
	return blk_write_wait(g->node, g->buffer, BLOCK_BYTES, 0, BLK_FUA);
}

/* It is the attempts that fail which say that a file takes nothing, not the clock. */
Test(publish, a_machine_that_was_stopped_asks_again)
{
	struct volume_rig *g = volume_rig_make(1, 4 << 20);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_stopped), 0);
	g->places.catalog->ops = below.real;
	volume_rig_free(g);
}

static int body_stopped_reading(void *arg)
{
	struct volume_rig *g = arg;
	put_below(g);
	cr_assert_eq(volume_snapshot(g->volume, "s", &g->report), 0, "%s", g->report.text);
	below.stops_get = true;
	cr_assert_eq(volume_checkpoint(g->volume), 0); /* the snapshot's root is recorded */
	cr_assert(!below.stops_get);
	return blk_write_wait(g->node, g->buffer, BLOCK_BYTES, 0, BLK_FUA);
}

Test(publish, nor_is_one_that_was_stopped_while_it_read)
{
	struct volume_rig *g = volume_rig_make(1, 4 << 20);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_stopped_reading), 0);
	g->places.catalog->ops = below.real;
	volume_rig_free(g);
}
