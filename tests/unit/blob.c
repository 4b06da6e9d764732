/* blob.h: runs of bytes in the log, at every number of levels; and roots that make no sense. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "core/bytes.h"
#include "parallax/volume/blob.h"
#include "parallax/volume/volume_private.h"
#include "tests/unit/volumetest.h"

static uint8_t *pattern(size_t length)
{
	uint8_t *b = env_alloc_aligned(round_up(length, BLOCK_BYTES));
	memset(b, 0, round_up(length, BLOCK_BYTES));
	for (size_t i = 0; i < length; i++)
		b[i] = (uint8_t)(i * 31 + (i >> 8) * 7 + (i >> 16));
	return b;
}

static struct meta_root write_one(struct volume *v, size_t length)
{
	struct meta_root root = { 0 };
	uint8_t *b = pattern(length);
	cr_assert_eq(blob_write(v, b, length, NULL, &root), 0, "%zu bytes", length);
	free(b);
	return root;
}

static const struct { size_t length; unsigned level; } sizes[] = {
	{ 1, 0 }, { BLOCK_BYTES, 0 }, { BLOCK_BYTES + 1, 1 }, { 65 * BLOCK_BYTES, 1 }, { NODE_FANOUT * BLOCK_BYTES, 1 },
	{ NODE_FANOUT * BLOCK_BYTES + 1, 2 }, { (size_t)3 * NODE_FANOUT * BLOCK_BYTES - 5, 2 },
};

static int body_round_trip(void *arg)
{
	struct volume *v = ((struct volume_rig *)arg)->volume;
	struct meta_root roots[ARRAY_COUNT(sizes)];
	for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++)
		roots[i] = write_one(v, sizes[i].length);
	for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) { /* after all were written: none lies over another */
		uint8_t *want = pattern(sizes[i].length), *got = NULL;
		cr_assert_eq(roots[i].level, sizes[i].level, "%zu bytes in %u levels", sizes[i].length, (unsigned)roots[i].level);
		cr_assert_eq(roots[i].length, sizes[i].length);
		cr_assert_eq(blob_read(&v->sources, &roots[i], &got), 0, "%zu bytes", sizes[i].length);
		cr_assert_eq(memcmp(got, want, sizes[i].length), 0, "%zu bytes came back as others", sizes[i].length);
		free(got);
		free(want);
	}
	return 0;
}

/* All that it was written in: `blocks` payload, and headers. */
struct seen {
	uint64_t blocks;
	unsigned records;
};

static void see_record(void *arg, uint64_t position, uint32_t blocks)
{
	struct seen *s = arg;
	cr_assert(position && blocks > 1);
	s->blocks += blocks;
	s->records++;
}

static int body_records(void *arg)
{
	struct volume *v = ((struct volume_rig *)arg)->volume;
	struct meta_root root = write_one(v, (size_t)130 * BLOCK_BYTES);
	struct seen s = { 0 };
	cr_assert_eq(blob_records(&v->sources, &root, see_record, &s), 0);
	cr_assert_eq(s.records, 4, "%u: 64 + 64 + 2 blocks, and one of pointers", s.records);
	cr_assert_eq(s.blocks, 130 + 1 + s.records, "%u blocks", (unsigned)s.blocks);
	return 0;
}

static int body_nonsense(void *arg)
{
	struct volume *v = ((struct volume_rig *)arg)->volume;
	struct meta_root good = write_one(v, (size_t)3 * BLOCK_BYTES), bad;
	uint8_t *got = NULL;
	bad = good, bad.length = 0;
	cr_assert_eq(blob_read(&v->sources, &bad, &got), -EUCLEAN, "no bytes");
	bad = good, bad.length = UINT64_MAX;
	cr_assert_eq(blob_read(&v->sources, &bad, &got), -EUCLEAN, "more than there may be");
	bad = good, bad.level = 200;
	cr_assert_eq(blob_read(&v->sources, &bad, &got), -EUCLEAN, "more levels than there may be");
	bad = good, bad.level = 0;
	cr_assert_eq(blob_read(&v->sources, &bad, &got), -EUCLEAN, "fewer levels than it needs");
	bad = good, bad.length = (size_t)300 * BLOCK_BYTES;
	cr_assert_eq(blob_read(&v->sources, &bad, &got), -EUCLEAN, "more blocks than a level has pointers");
	bad = good, bad.length = (size_t)5 * BLOCK_BYTES;
	cr_assert_lt(blob_read(&v->sources, &bad, &got), 0, "more blocks than were written");
	bad = good, bad.pointer.crc ^= 1;
	cr_assert_lt(blob_read(&v->sources, &bad, &got), 0, "another's checksum");
	cr_assert_null(got, "nothing is handed out with an error");
	cr_assert_eq(blob_read(&v->sources, &good, &got), 0);
	free(got);
	return 0;
}

static void with_volume(int (*body)(void *arg))
{
	struct volume_rig *g = volume_rig_make(2, 64 * BLOCK_BYTES);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body), 0);
	volume_rig_free(g);
}

Test(blob, what_was_written_comes_back) { with_volume(body_round_trip); }
Test(blob, its_records_are_found) { with_volume(body_records); }
Test(blob, a_root_that_makes_no_sense_is_refused) { with_volume(body_nonsense); }
