#include "parallax/format.h"

#include <errno.h>
#include <string.h>

#include "core/bytes.h"

/* A block's last four bytes hold the CRC of the rest. */
static void seal_block(uint8_t *b) { put_le32(b + BLOCK_BYTES - 4, crc32c(0, b, BLOCK_BYTES - 4)); }
static bool block_sound(const uint8_t *b) { return get_le32(b + BLOCK_BYTES - 4) == crc32c(0, b, BLOCK_BYTES - 4); }

/* ---- segment header ----
 *  0  magic "AQSEGMNT"   8 version u32   12 size_blocks u32   16 segment u64
 * 24  volume 16 bytes   40 epoch u64     48 salt u64          4092 crc u32      rest zero */

#define SEGMENT_MAGIC UINT64_C(0x544e4d4745535141)

void segment_header_encode(const struct segment_header *h, void *block)
{
	uint8_t *b = block;
	memset(b, 0, BLOCK_BYTES);
	put_le64(b, SEGMENT_MAGIC);
	put_le32(b + 8, FORMAT_VERSION);
	put_le32(b + 12, h->size_blocks);
	put_le64(b + 16, h->segment);
	memcpy(b + 24, h->volume.bytes, 16);
	put_le64(b + 40, h->epoch);
	put_le64(b + 48, h->salt);
	seal_block(b);
}

int segment_header_decode(const void *block, struct segment_header *ret)
{
	const uint8_t *b = block;
	if (get_le64(b) != SEGMENT_MAGIC || !block_sound(b))
		return -EBADMSG;
	if (get_le32(b + 8) > FORMAT_VERSION)
		return -EPROTONOSUPPORT;
	struct segment_header h = { .segment = get_le64(b + 16), .epoch = get_le64(b + 40),
				    .salt = get_le64(b + 48), .size_blocks = get_le32(b + 12) };
	memcpy(h.volume.bytes, b + 24, 16);
	if (h.segment == 0 || h.segment >> 48 || h.size_blocks < 2 || h.size_blocks > SEGMENT_BLOCKS_MAX)
		return -EBADMSG;
	*ret = h;
	return 0;
}

/* ---- record header ----
 *  0 magic u32 "AQRC"   4 header crc u32 (of all header blocks, this field zero)
 *  8 version u16       10 kind u8   11 zero       12 header_blocks u32   16 payload_blocks u32
 * 20 entry_count u32   24 segment u64   32 block u32   36 prev u32   40 epoch u64   48 seq u64
 * 56 salt u64          64 acked u64     72 synced u64  80 mark u64   88 zero to 96
 * 96 entries, 16 bytes each {first u64, count u32, extra u32}, then a CRC32C u32 per payload block */

#define RECORD_MAGIC 0x43525141u
#define RECORD_FIXED 96u
#define ENTRY_BYTES 16u

uint32_t record_header_blocks(uint32_t entry_count, uint32_t payload_blocks)
{
	return (uint32_t)div_up(RECORD_FIXED + (uint64_t)entry_count * ENTRY_BYTES + (uint64_t)payload_blocks * 4, BLOCK_BYTES);
}

static uint32_t header_crc(const uint8_t *b, uint32_t header_blocks)
{
	static const uint8_t zero[4];
	uint32_t crc = crc32c(0, b, 4);
	crc = crc32c(crc, zero, 4);
	return crc32c(crc, b + 8, header_blocks * BLOCK_BYTES - 8);
}

void record_encode(struct record *r, void *buffer)
{
	uint8_t *b = buffer;
	r->header_blocks = record_header_blocks(r->entry_count, r->payload_blocks);
	memset(b, 0, (size_t)r->header_blocks * BLOCK_BYTES);
	put_le32(b, RECORD_MAGIC);
	put_le16(b + 8, FORMAT_VERSION);
	b[10] = (uint8_t)r->kind;
	put_le32(b + 12, r->header_blocks);
	put_le32(b + 16, r->payload_blocks);
	put_le32(b + 20, r->entry_count);
	put_le64(b + 24, r->segment);
	put_le32(b + 32, r->block);
	put_le32(b + 36, r->prev);
	put_le64(b + 40, r->epoch);
	put_le64(b + 48, r->seq);
	put_le64(b + 56, r->salt);
	put_le64(b + 64, r->acked);
	put_le64(b + 72, r->synced);
	put_le64(b + 80, r->mark);
	uint8_t *p = b + RECORD_FIXED;
	for (uint32_t i = 0; i < r->entry_count; i++, p += ENTRY_BYTES) {
		put_le64(p, r->entries[i].first);
		put_le32(p + 8, r->entries[i].count);
		put_le32(p + 12, r->entries[i].extra);
	}
	for (uint32_t i = 0; i < r->payload_blocks; i++, p += 4)
		put_le32(p, r->crcs[i]);
	r->header_crc = header_crc(b, r->header_blocks);
	put_le32(b + 4, r->header_crc);
	r->bytes = b;
}

/* The entries of data and discard records must make sense together: no overflow, payload accounted for. */
static bool entries_sound(const struct record *r)
{
	uint64_t covered = 0;
	for (uint32_t i = 0; i < r->entry_count; i++) {
		struct record_entry e = record_entry_at(r, i);
		if (r->kind == RECORD_DATA || r->kind == RECORD_DISCARD)
			if (e.count == 0 || e.first >> 40 || e.first + e.count > UINT64_C(1) << 40)
				return false;
		covered += e.count;
	}
	return r->kind == RECORD_DISCARD ? r->payload_blocks == 0
	       : r->kind == RECORD_DATA || r->kind == RECORD_NODES ? covered == r->payload_blocks : true;
}

int record_decode(const void *buffer, size_t length, const struct segment_header *in, uint32_t block, struct record *ret)
{
	const uint8_t *b = buffer;
	if (length < BLOCK_BYTES)
		return -ENODATA;
	if (get_le32(b) != RECORD_MAGIC || get_le64(b + 56) != in->salt || get_le64(b + 24) != in->segment ||
	    get_le32(b + 32) != block)
		return -ENODATA;
	uint32_t left = in->size_blocks - MIN(block, in->size_blocks);
	struct record r = { .kind = b[10], .segment = in->segment, .block = block, .prev = get_le32(b + 36),
			    .epoch = get_le64(b + 40), .seq = get_le64(b + 48), .salt = in->salt,
			    .acked = get_le64(b + 64), .synced = get_le64(b + 72), .mark = get_le64(b + 80),
			    .header_blocks = get_le32(b + 12), .payload_blocks = get_le32(b + 16),
			    .entry_count = get_le32(b + 20), .header_crc = get_le32(b + 4), .bytes = b };
	/* what every version has where it is now: a newer record must not look like a damaged one, after which a log is cut */
	if (r.header_blocks == 0 || r.header_blocks > MIN(left, RECORD_BLOCKS_MAX))
		return -EBADMSG;
	if (length < (size_t)r.header_blocks * BLOCK_BYTES) {
		*ret = r;
		return -EAGAIN;
	}
	if (header_crc(b, r.header_blocks) != r.header_crc)
		return -EBADMSG;
	if (get_le16(b + 8) > FORMAT_VERSION)
		return -EPROTONOSUPPORT;
	if (r.entry_count > RECORD_BYTES_MAX / ENTRY_BYTES || r.payload_blocks > RECORD_BLOCKS_MAX ||
	    r.header_blocks != record_header_blocks(r.entry_count, r.payload_blocks) || record_blocks(&r) > MIN(left, RECORD_BLOCKS_MAX))
		return -EBADMSG;
	if (r.kind < RECORD_DATA || r.kind > RECORD_CHECKPOINT || r.epoch != in->epoch || r.seq == 0 || !entries_sound(&r))
		return -EBADMSG;
	*ret = r;
	return 0;
}

struct record_entry record_entry_at(const struct record *r, uint32_t index)
{
	const uint8_t *p = r->bytes + RECORD_FIXED + (size_t)index * ENTRY_BYTES;
	return (struct record_entry){ get_le64(p), get_le32(p + 8), get_le32(p + 12) };
}

uint32_t record_crc_at(const struct record *r, uint32_t payload_block)
{
	return get_le32(r->bytes + RECORD_FIXED + (size_t)r->entry_count * ENTRY_BYTES + (size_t)payload_block * 4);
}

int record_check_payload(const struct record *r, const void *payload)
{
	for (uint32_t i = 0; i < r->payload_blocks; i++)
		if (crc32c(0, (const uint8_t *)payload + (size_t)i * BLOCK_BYTES, BLOCK_BYTES) != record_crc_at(r, i))
			return -EBADMSG;
	return 0;
}

/* ---- footer ----
 * 0 magic "AQFOOTER"  8 version u32  12 length_blocks u32  16 segment u64  24 prev u32  28 crc of the rest u32
 * 32 last_seq u64     40 a CRC32C u32 per block, zero to a whole block */

#define FOOTER_MAGIC UINT64_C(0x5245544f4f465141)
#define FOOTER_FIXED 40u

size_t segment_footer_bytes(uint32_t length_blocks)
{
	return round_up(FOOTER_FIXED + (size_t)length_blocks * 4, BLOCK_BYTES);
}

static uint32_t footer_crc(const uint8_t *b, size_t bytes)
{
	return crc32c(crc32c(0, b, 28), b + 32, bytes - 32);
}

void segment_footer_encode(const struct segment_footer *f, const uint32_t *block_crcs, void *buffer)
{
	uint8_t *b = buffer;
	size_t bytes = segment_footer_bytes(f->length_blocks);
	memset(b, 0, bytes);
	put_le64(b, FOOTER_MAGIC);
	put_le32(b + 8, FORMAT_VERSION);
	put_le32(b + 12, f->length_blocks);
	put_le64(b + 16, f->segment);
	put_le32(b + 24, f->prev);
	put_le64(b + 32, f->last_seq);
	for (uint32_t i = 0; i < f->length_blocks; i++)
		put_le32(b + FOOTER_FIXED + (size_t)i * 4, block_crcs[i]);
	put_le32(b + 28, footer_crc(b, bytes));
}

int segment_footer_decode(const void *buffer, size_t length, struct segment_footer *ret, const uint8_t **ret_crcs)
{
	const uint8_t *b = buffer;
	if (length < BLOCK_BYTES || get_le64(b) != FOOTER_MAGIC)
		return -EBADMSG;
	struct segment_footer f = { .segment = get_le64(b + 16), .length_blocks = get_le32(b + 12),
				    .prev = get_le32(b + 24), .last_seq = get_le64(b + 32) };
	if (f.length_blocks == 0 || f.length_blocks > SEGMENT_BLOCKS_MAX || segment_footer_bytes(f.length_blocks) > length ||
	    footer_crc(b, segment_footer_bytes(f.length_blocks)) != get_le32(b + 28))
		return -EBADMSG;
	if (get_le32(b + 8) > FORMAT_VERSION)
		return -EPROTONOSUPPORT;
	*ret = f;
	*ret_crcs = b + FOOTER_FIXED;
	return 0;
}

/* ---- pointers ---- */

void pointer_encode(const struct pointer *p, void *bytes)
{
	put_le64(bytes, p->position);
	put_le32((uint8_t *)bytes + 8, p->crc);
	put_le32((uint8_t *)bytes + 12, p->flags);
}

struct pointer pointer_decode(const void *bytes)
{
	return (struct pointer){ get_le64(bytes), get_le32((const uint8_t *)bytes + 8), get_le32((const uint8_t *)bytes + 12) };
}
