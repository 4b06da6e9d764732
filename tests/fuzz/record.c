/* The codecs of what lies on disks: segment header, record, footer, space table, nodes. The first byte says which; for those
 * with a checksum the harness puts the right one in (unless bit 7 says not to), as a fuzzer would hardly get past it. What is accepted
 * must make sense, and encode to what it was. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "parallax/format.h"
#include "parallax/map/space.h"

static const struct segment_header home = { .segment = 5, .volume = { "v" }, .epoch = 3, .salt = 7, .size_blocks = 2000 };

static void fuzz_segment_header(uint8_t *b, bool seal)
{
	struct segment_header h;
	uint8_t again[BLOCK_BYTES];
	if (seal)
		put_le32(b + BLOCK_BYTES - 4, crc32c(0, b, BLOCK_BYTES - 4));
	if (segment_header_decode(b, &h) < 0)
		return;
	assert(h.segment && h.segment >> 48 == 0 && h.size_blocks >= 2 && h.size_blocks <= SEGMENT_BLOCKS_MAX);
	segment_header_encode(&h, again);
	assert(memcmp(again + 12, b + 12, 44) == 0);
}

/* The header's checksum covers all of its blocks but the field itself. */
static void record_seal(uint8_t *b, size_t length)
{
	uint64_t blocks = get_le32(b + 12);
	if (blocks == 0 || blocks > length / BLOCK_BYTES)
		return;
	put_le32(b + 4, 0);
	put_le32(b + 4, crc32c(0, b, (size_t)blocks * BLOCK_BYTES));
}

static void fuzz_record(uint8_t *b, size_t length, bool seal)
{
	struct record r;
	if (seal) {
		put_le32(b, 0x43525141u);
		put_le64(b + 24, home.segment);
		put_le32(b + 32, 9);
		put_le64(b + 56, home.salt);
		record_seal(b, length);
	}
	int status = record_decode(b, length, &home, 9, &r);
	if (status == -11) /* its checksum isn't known yet: that much is to be read, and nothing else of it counts */
		assert(r.header_blocks && r.header_blocks <= RECORD_BLOCKS_MAX && r.header_blocks <= home.size_blocks - 9);
	if (status == 0)
		assert(r.header_blocks && record_blocks(&r) <= RECORD_BLOCKS_MAX && record_blocks(&r) <= home.size_blocks - 9);
	if (status != 0)
		return;
	assert(r.kind >= RECORD_DATA && r.kind <= RECORD_CHECKPOINT && r.seq && r.epoch == home.epoch);
	uint64_t covered = 0;
	for (uint32_t i = 0; i < r.entry_count; i++)
		covered += record_entry_at(&r, i).count;
	if (r.kind == RECORD_DATA)
		assert(covered == r.payload_blocks);
	uint32_t sum = 0;
	for (uint32_t i = 0; i < r.payload_blocks; i++)
		sum += record_crc_at(&r, i);
	(void)sum;
	uint8_t *payload = calloc(r.payload_blocks + 1, BLOCK_BYTES);
	if (payload)
		(void)record_check_payload(&r, payload);
	free(payload);
}

static void fuzz_footer(uint8_t *b, size_t length, bool seal)
{
	struct segment_footer f;
	const uint8_t *crcs;
	size_t bytes = segment_footer_bytes(get_le32(b + 12) % (SEGMENT_BLOCKS_MAX + 2));
	if (seal && bytes <= length)
		put_le32(b + 28, crc32c(crc32c(0, b, 28), b + 32, bytes - 32));
	if (segment_footer_decode(b, length, &f, &crcs) < 0)
		return;
	assert(f.length_blocks && f.length_blocks <= SEGMENT_BLOCKS_MAX);
	assert(crcs + (size_t)f.length_blocks * 4 <= b + length);
}

static void fuzz_space(const uint8_t *b, size_t length)
{
	struct space s;
	space_init(&s);
	if (space_decode(&s, b, length) == 0) {
		size_t bytes = space_encoded_bytes(&s);
		uint8_t *again = malloc(bytes);
		struct space t;
		(void)length;
		space_encode(&s, again);
		space_init(&t);
		assert(space_decode(&t, again, bytes) == 0 && space_live(&t) == space_live(&s) && t.list_count == s.list_count);
		for (uint32_t i = 0; i < s.segment_count; i++)
			assert(space_find(&s, s.segments[i].id) == &s.segments[i] && s.segments[i].live <= s.segments[i].blocks);
		space_destroy(&t);
		free(again);
	}
	space_destroy(&s);
}

static void fuzz_node(const uint8_t *b)
{
	uint8_t again[16];
	for (unsigned i = 0; i < NODE_FANOUT; i++) {
		struct pointer p = pointer_decode(b + i * 16);
		pointer_encode(&p, again);
		assert(memcmp(again, b + i * 16, 16) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	unsigned what = data[0] & 7;
	bool seal = !(data[0] & 0x80);
	if (what == 3) {
		uint8_t *exact = malloc(size); /* so that reading beyond is seen */
		memcpy(exact, data + 1, size - 1);
		fuzz_space(exact, size - 1);
		free(exact);
		return 0;
	}
	size_t length = round_up(size, BLOCK_BYTES); /* blocks come whole */
	uint8_t *b = calloc(1, length);
	memcpy(b, data + 1, size - 1);
	switch (what) {
	case 0: fuzz_segment_header(b, seal); break;
	case 1: fuzz_record(b, length, seal); break;
	case 2: fuzz_footer(b, length, seal); break;
	case 4: fuzz_node(b); break;
	default: break;
	}
	free(b);
	return 0;
}
