/* A checkpoint's summary: what it says comes back, and nothing else is taken for one. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "parallax/volume/summary.h"

static struct summary *make(uint32_t snapshots)
{
	struct summary *s = calloc(1, sizeof *s);
	*s = (struct summary){ .volume = 7, .written_ns = 1234567890123, .snapshot_count = snapshots };
	s->log = (struct meta_log){ .size_bytes = 1 << 20, .replicas = 3, .min_replicas = 2, .last_id = 99, .generation = 5, .from_seq = 12, .from_position = position_make(8, 3),
				    .root = { { position_make(8, 9), 0xabcd, 0 }, 2, 0 }, .space = { { position_make(8, 11), 0x1234, 0 }, 0, 96 } };
	memset(s->log.volume.bytes, 3, 16);
	snprintf(s->log.name, sizeof s->log.name, "web");
	s->snapshots = calloc(snapshots + 1, sizeof *s->snapshots);
	for (uint32_t i = 0; i < snapshots; i++) {
		struct meta_snapshot *m = &s->snapshots[i];
		*m = (struct meta_snapshot){ .mark_seq = UINT64_MAX / 2 + i, .mark_position = UINT64_MAX / 4 + i, .has_root = true, .size_bytes = UINT64_C(1) << 46, .created_ns = UINT64_MAX / 3,
					     .node_end = UINT64_MAX / 5, .mapped_blocks = UINT64_MAX / 7, .root = { { UINT64_MAX / 2, 0xffffffff, 0 }, 4, 0 } };
		memset(m->name, 'a' + (int)(i % 26), sizeof m->name - 1);
	}
	return s;
}

static void destroy(struct summary *s)
{
	summary_free(s);
	free(s);
}

Test(summary, comes_back)
{
	for (uint32_t n = 0; n <= SUMMARY_SNAPSHOTS_MAX; n += SUMMARY_SNAPSHOTS_MAX / 2) {
		struct summary *s = make(n), *back = calloc(1, sizeof *back);
		size_t length = 0, said = 0;
		uint8_t *b = summary_encode(s, &length);
		cr_assert(b, "the longest names and the greatest numbers fit");
		cr_assert(summary_begins(b, &said));
		cr_assert_eq(said, length);
		cr_assert_leq(length, (size_t)SUMMARY_BLOCKS_MAX * BLOCK_BYTES);
		cr_assert_eq(summary_decode(b, round_up(length, BLOCK_BYTES), back), 0);
		cr_assert_eq(back->volume, 7);
		cr_assert_eq(back->written_ns, s->written_ns);
		cr_assert_eq(back->log.from_position, s->log.from_position);
		cr_assert_eq(back->log.root.pointer.crc, 0xabcd);
		cr_assert_str_eq(back->log.name, "web");
		cr_assert_eq(back->snapshot_count, n);
		for (uint32_t i = 0; i < n; i++) {
			cr_assert_eq(back->snapshots[i].mark_seq, s->snapshots[i].mark_seq);
			cr_assert_str_eq(back->snapshots[i].name, s->snapshots[i].name);
		}
		free(b);
		destroy(back);
		destroy(s);
	}
}

Test(summary, hostile)
{
	struct summary *s = make(3), back;
	size_t length = 0, said;
	uint8_t *b = summary_encode(s, &length);
	size_t room = round_up(length, BLOCK_BYTES);
	for (size_t bit = 0; bit < 8 * length; bit++) { /* any answer will do that isn't a crash */
		b[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (summary_decode(b, room, &back) == 0)
			summary_free(&back);
		b[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	put_le32(b + 8, (uint32_t)room); /* more than there is */
	cr_assert_eq(summary_decode(b, room, &back), -EUCLEAN);
	put_le32(b + 8, UINT32_MAX);
	cr_assert_not(summary_begins(b, &said));
	cr_assert_eq(summary_decode(b, room, &back), -EUCLEAN);
	put_le32(b + 8, (uint32_t)length - 17);
	cr_assert_eq(summary_decode(b, room, &back), -EUCLEAN);
	b[0] ^= 1;
	cr_assert_not(summary_begins(b, &said));
	free(b);
	destroy(s);
}
