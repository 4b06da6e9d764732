/* The store's bytes on disk: what is encoded comes back; one flipped bit anywhere is noticed; numbers that make no sense and
 * versions to come are refused. */
#include "parallax/format.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"

static const struct segment_header home = { .segment = 77, .volume = { "volume" }, .epoch = 9, .salt = 0x1234567890abcdef, .size_blocks = 4096 };

static void reseal(uint8_t *block) { put_le32(block + BLOCK_BYTES - 4, crc32c(0, block, BLOCK_BYTES - 4)); }

Test(format, segment_header_round_trip)
{
	uint8_t b[BLOCK_BYTES];
	struct segment_header h;
	segment_header_encode(&home, b);
	cr_assert_eq(segment_header_decode(b, &h), 0);
	cr_assert(h.segment == 77 && h.epoch == 9 && h.salt == home.salt && h.size_blocks == 4096 && memcmp(&h.volume, &home.volume, 16) == 0);
}

Test(format, segment_header_notices_each_bit)
{
	uint8_t b[BLOCK_BYTES];
	struct segment_header h;
	segment_header_encode(&home, b);
	for (unsigned i = 0; i < BLOCK_BYTES * 8; i += i < 64 * 8 ? 1 : 61) {
		b[i / 8] ^= (uint8_t)(1 << i % 8);
		cr_assert_eq(segment_header_decode(b, &h), -EBADMSG, "bit %u", i);
		b[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	put_le32(b + 8, FORMAT_VERSION + 1);
	reseal(b);
	cr_assert_eq(segment_header_decode(b, &h), -EPROTONOSUPPORT);
}

Test(format, segment_header_hostile_numbers)
{
	static const struct segment_header bad[] = {
		{ .segment = 0, .size_blocks = 100 },
		{ .segment = UINT64_C(1) << 48, .size_blocks = 100 },
		{ .segment = 1, .size_blocks = 1 },
		{ .segment = 1, .size_blocks = 0 },
		{ .segment = 1, .size_blocks = SEGMENT_BLOCKS_MAX + 1 },
	};
	uint8_t b[BLOCK_BYTES];
	struct segment_header h;
	for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
		segment_header_encode(&bad[i], b);
		cr_assert_eq(segment_header_decode(b, &h), -EBADMSG, "%u", i);
	}
}

/* ---- records ---- */

enum { ENTRIES = 300, PAYLOAD = 900 };
static struct record_entry entries[ENTRIES];
static uint32_t crcs[RECORD_BLOCKS_MAX];

static struct record sample(enum record_kind kind)
{
	for (unsigned i = 0; i < ENTRIES; i++)
		entries[i] = (struct record_entry){ 1000 + 10 * i, kind == RECORD_NODES ? 1 : 3, kind == RECORD_NODES };
	for (unsigned i = 0; i < PAYLOAD; i++)
		crcs[i] = i * 2654435761u;
	struct record r = { .kind = kind, .segment = home.segment, .block = 5, .epoch = home.epoch, .seq = 1000, .salt = home.salt, .prev = 0xabc,
			    .acked = 990, .synced = 980, .mark = 0, .entries = entries, .crcs = crcs };
	switch (kind) {
	case RECORD_DATA: r.entry_count = ENTRIES; r.payload_blocks = PAYLOAD; break;
	case RECORD_DISCARD: r.entry_count = ENTRIES; break;
	case RECORD_NODES: r.entry_count = r.payload_blocks = 20; break;
	case RECORD_MARK: break;
	default: r.payload_blocks = 7;
	}
	return r;
}

Test(format, record_round_trip)
{
	uint8_t *b = malloc(RECORD_BYTES_MAX);
	for (enum record_kind kind = RECORD_DATA; kind <= RECORD_CHECKPOINT; kind++) {
		struct record r = sample(kind), got;
		record_encode(&r, b);
		cr_assert_eq(record_decode(b, (size_t)r.header_blocks * BLOCK_BYTES, &home, 5, &got), 0, "%d", kind);
		cr_assert(got.kind == kind && got.seq == 1000 && got.prev == 0xabc && got.acked == 990 && got.synced == 980);
		cr_assert(got.header_crc == r.header_crc && got.header_blocks == r.header_blocks && got.payload_blocks == r.payload_blocks);
		for (uint32_t i = 0; i < got.entry_count; i++) {
			struct record_entry e = record_entry_at(&got, i);
			cr_assert(e.first == entries[i].first && e.count == entries[i].count && e.extra == entries[i].extra);
		}
		for (uint32_t i = 0; i < got.payload_blocks; i++)
			cr_assert_eq(record_crc_at(&got, i), crcs[i]);
	}
	free(b);
}

Test(format, record_header_in_parts_asks_for_more)
{
	uint8_t *b = malloc(RECORD_BYTES_MAX);
	struct record r = sample(RECORD_DATA), got;
	record_encode(&r, b);
	cr_assert_gt(r.header_blocks, 1);
	cr_assert_eq(record_decode(b, 100, &home, 5, &got), -ENODATA);
	cr_assert_eq(record_decode(b, BLOCK_BYTES, &home, 5, &got), -EAGAIN);
	cr_assert_eq(got.header_blocks, r.header_blocks);
	free(b);
}

/* Where it must be, and where it isn't: another place, segment, salt or epoch is no record of ours. */
Test(format, record_elsewhere)
{
	uint8_t *b = malloc(RECORD_BYTES_MAX);
	struct record r = sample(RECORD_DISCARD), got;
	record_encode(&r, b);
	size_t bytes = (size_t)r.header_blocks * BLOCK_BYTES;
	struct segment_header other = home;
	cr_assert_eq(record_decode(b, bytes, &home, 6, &got), -ENODATA);
	other.salt++;
	cr_assert_eq(record_decode(b, bytes, &other, 5, &got), -ENODATA);
	other = home;
	other.segment++;
	cr_assert_eq(record_decode(b, bytes, &other, 5, &got), -ENODATA);
	other = home;
	other.epoch++;
	cr_assert_eq(record_decode(b, bytes, &other, 5, &got), -EBADMSG);
	other = home;
	other.size_blocks = 6; /* it doesn't fit */
	cr_assert_eq(record_decode(b, bytes, &other, 5, &got), -EBADMSG);
	free(b);
}

Test(format, record_notices_each_bit)
{
	uint8_t *b = malloc(RECORD_BYTES_MAX);
	struct record r = sample(RECORD_DATA), got;
	record_encode(&r, b);
	size_t bytes = (size_t)r.header_blocks * BLOCK_BYTES;
	for (size_t i = 0; i < bytes * 8; i += i < 200 * 8 ? 1 : 97) {
		b[i / 8] ^= (uint8_t)(1 << i % 8);
		cr_assert_neq(record_decode(b, bytes, &home, 5, &got), 0, "bit %zu", i);
		b[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	cr_assert_eq(record_decode(b, bytes, &home, 5, &got), 0);
	free(b);
}

/* Numbers with a right checksum that make no sense. */
Test(format, record_hostile_numbers)
{
	uint8_t *b = malloc(2 * RECORD_BYTES_MAX);
	struct record got;
	struct record_entry one = { 0, 1, 0 };
	struct {
		struct record r;
		struct record_entry e;
	} bad[] = {
		{ .r = { .kind = 0, .entry_count = 0 } },
		{ .r = { .kind = RECORD_CHECKPOINT + 1 } },
		{ .r = { .kind = RECORD_MARK, .seq = UINT64_MAX } },                         /* becomes 0 below */
		{ .r = { .kind = RECORD_DATA, .entry_count = 1, .payload_blocks = 2 } },     /* one block is nobody's */
		{ .r = { .kind = RECORD_DATA, .entry_count = 1, .payload_blocks = 0 } },
		{ .r = { .kind = RECORD_DISCARD, .entry_count = 1, .payload_blocks = 1 } },
		{ .r = { .kind = RECORD_DISCARD, .entry_count = 1 }, .e = { 0, 0, 0 } },     /* nothing at all */
		{ .r = { .kind = RECORD_DISCARD, .entry_count = 1 }, .e = { UINT64_C(1) << 40, 1, 0 } },
		{ .r = { .kind = RECORD_DISCARD, .entry_count = 1 }, .e = { UINT64_MAX, UINT32_MAX, 0 } },
		{ .r = { .kind = RECORD_FREES, .payload_blocks = RECORD_BLOCKS_MAX } },      /* longer than a record may be */
	};
	for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
		struct record r = bad[i].r;
		struct record_entry e = bad[i].r.kind == RECORD_DISCARD && i > 5 ? bad[i].e : one;
		r.segment = home.segment;
		r.block = 5;
		r.epoch = home.epoch;
		r.salt = home.salt;
		r.seq = bad[i].r.seq == UINT64_MAX ? 0 : 7;
		r.entries = &e;
		r.crcs = crcs;
		record_encode(&r, b);
		cr_assert_eq(record_decode(b, (size_t)r.header_blocks * BLOCK_BYTES, &home, 5, &got), -EBADMSG, "case %u", i);
	}
	free(b);
}

Test(format, record_counts_that_lie)
{
	uint8_t *b = malloc(RECORD_BYTES_MAX);
	struct record r = sample(RECORD_DISCARD), got;
	record_encode(&r, b);
	static const uint32_t lies[] = { 0, 1, 301, 0x7fffffff, 0xffffffff };
	for (unsigned field = 12; field <= 20; field += 4)
		for (unsigned i = 0; i < ARRAY_COUNT(lies); i++) {
			uint32_t was = get_le32(b + field);
			put_le32(b + field, lies[i]);
			if (lies[i] != was)
				cr_assert_neq(record_decode(b, (size_t)r.header_blocks * BLOCK_BYTES, &home, 5, &got), 0, "%u %u", field, lies[i]);
			put_le32(b + field, was);
		}
	free(b);
}

Test(format, record_of_a_newer_version)
{
	uint8_t *b = malloc(RECORD_BYTES_MAX);
	struct record r = sample(RECORD_MARK), got;
	record_encode(&r, b);
	put_le16(b + 8, FORMAT_VERSION + 1);
	put_le32(b + 4, 0);
	put_le32(b + 4, crc32c(0, b, BLOCK_BYTES));
	cr_assert_eq(record_decode(b, BLOCK_BYTES, &home, 5, &got), -EPROTONOSUPPORT);
	free(b);
}

static void seal_newer(uint8_t *b, uint32_t blocks)
{
	put_le16(b + 8, FORMAT_VERSION + 1);
	put_le32(b + 4, 0);
	put_le32(b + 4, crc32c(0, b, (size_t)blocks * BLOCK_BYTES));
}

/* After a damaged one the log ends; so one that is only not understood mustn't look damaged, whatever is in it. */
Test(format, record_of_a_newer_version_with_other_fields)
{
	uint8_t *b = malloc(3 * BLOCK_BYTES);
	struct record r = sample(RECORD_MARK), got;
	record_encode(&r, b);
	memset(b + BLOCK_BYTES, 0x17, 2 * BLOCK_BYTES);
	for (unsigned at = 10; at < 100; at++) {
		uint8_t was = b[at];
		if (at == 12)
			at = 16; /* how long the header is: */
		if (at == 24)
			at = 36; /* whose it is */
		if (at == 56)
			at = 64;
		b[at] = (uint8_t)~b[at];
		seal_newer(b, 1);
		cr_assert_eq(record_decode(b, BLOCK_BYTES, &home, 5, &got), -EPROTONOSUPPORT, "byte %u", at);
		b[at] = was;
	}
	put_le32(b + 12, 3);
	seal_newer(b, 3);
	cr_assert_eq(record_decode(b, BLOCK_BYTES, &home, 5, &got), -EAGAIN);
	cr_assert_eq(got.header_blocks, 3);
	cr_assert_eq(record_decode(b, 3 * BLOCK_BYTES, &home, 5, &got), -EPROTONOSUPPORT);
	b[2 * BLOCK_BYTES] ^= 1; /* torn */
	cr_assert_eq(record_decode(b, 3 * BLOCK_BYTES, &home, 5, &got), -EBADMSG);
	static const uint32_t lies[] = { 0, RECORD_BLOCKS_MAX + 1, UINT32_MAX };
	for (unsigned i = 0; i < ARRAY_COUNT(lies); i++) {
		put_le32(b + 12, lies[i]);
		seal_newer(b, 1);
		cr_assert_eq(record_decode(b, 3 * BLOCK_BYTES, &home, 5, &got), -EBADMSG, "%u header blocks", lies[i]);
	}
	free(b);
}

Test(format, payload_is_checked_block_by_block)
{
	uint8_t *b = malloc(BLOCK_BYTES), *payload = malloc(3 * BLOCK_BYTES);
	uint32_t sums[3];
	for (unsigned i = 0; i < 3 * BLOCK_BYTES; i++)
		payload[i] = (uint8_t)(i * 7);
	for (unsigned i = 0; i < 3; i++)
		sums[i] = crc32c(0, payload + i * BLOCK_BYTES, BLOCK_BYTES);
	struct record_entry e = { 8, 3, 0 };
	struct record r = { .kind = RECORD_DATA, .segment = home.segment, .block = 5, .epoch = home.epoch, .seq = 1, .salt = home.salt,
			    .entries = &e, .entry_count = 1, .crcs = sums, .payload_blocks = 3 }, got;
	record_encode(&r, b);
	cr_assert_eq(record_decode(b, BLOCK_BYTES, &home, 5, &got), 0);
	cr_assert_eq(record_check_payload(&got, payload), 0);
	for (unsigned i = 0; i < 3 * BLOCK_BYTES; i += 511) {
		payload[i] ^= 4;
		cr_assert_eq(record_check_payload(&got, payload), -EBADMSG);
		payload[i] ^= 4;
	}
	free(b);
	free(payload);
}

/* ---- footer, pointers ---- */

Test(format, footer)
{
	static const uint32_t lengths[] = { 1, 2, 1014, 1015, SEGMENT_BLOCKS_MAX };
	uint32_t *sums = calloc(SEGMENT_BLOCKS_MAX, sizeof *sums);
	for (uint32_t i = 0; i < SEGMENT_BLOCKS_MAX; i++)
		sums[i] = i * 40503;
	for (unsigned n = 0; n < ARRAY_COUNT(lengths); n++) {
		struct segment_footer f = { .segment = 3, .length_blocks = lengths[n], .prev = 17, .last_seq = 99 }, got;
		size_t bytes = segment_footer_bytes(lengths[n]);
		uint8_t *b = malloc(bytes);
		const uint8_t *there;
		segment_footer_encode(&f, sums, b);
		cr_assert_eq(segment_footer_decode(b, bytes, &got, &there), 0);
		cr_assert(got.segment == 3 && got.length_blocks == lengths[n] && got.prev == 17 && got.last_seq == 99);
		for (uint32_t i = 0; i < lengths[n]; i++)
			cr_assert_eq(get_le32(there + 4 * i), sums[i]);
		if (bytes > BLOCK_BYTES)
			cr_assert_eq(segment_footer_decode(b, bytes - BLOCK_BYTES, &got, &there), -EBADMSG);
		for (size_t i = 0; i < bytes * 8; i += i < 48 * 8 ? 1 : 4001) {
			b[i / 8] ^= (uint8_t)(1 << i % 8);
			cr_assert_eq(segment_footer_decode(b, bytes, &got, &there), -EBADMSG, "%u bit %zu", n, i);
			b[i / 8] ^= (uint8_t)(1 << i % 8);
		}
		put_le32(b + 12, 0); /* of no blocks */
		cr_assert_eq(segment_footer_decode(b, bytes, &got, &there), -EBADMSG);
		put_le32(b + 12, UINT32_MAX);
		cr_assert_eq(segment_footer_decode(b, bytes, &got, &there), -EBADMSG);
		free(b);
	}
	free(sums);
}

Test(format, pointers)
{
	uint8_t b[16];
	struct pointer p = { position_make(UINT64_C(0xffffffffffff), 0xffff), 0xdeadbeef, 0 }, got;
	pointer_encode(&p, b);
	got = pointer_decode(b);
	cr_assert(got.position == p.position && got.crc == p.crc && got.flags == 0);
	cr_assert(position_segment(p.position) == UINT64_C(0xffffffffffff) && position_block(p.position) == 0xffff);
	cr_assert_lt(position_make(5, 0xffff), position_make(6, 0));
}
