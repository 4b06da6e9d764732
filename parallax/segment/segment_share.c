#include "parallax/segment/segment_share.h"

#include <errno.h>
#include <string.h>

#include "core/bytes.h"

enum { ENTRY_SEALED = 1, ENTRY_WHOLE = 2 };

void share_entry_encode(const struct share_entry *e, void *bytes)
{
	uint8_t *b = bytes;
	memset(b, 0, SHARE_ENTRY_BYTES);
	put_le64(b, e->header.segment);
	memcpy(b + 8, e->header.volume.bytes, 16);
	put_le64(b + 24, e->header.epoch);
	put_le64(b + 32, e->header.salt);
	put_le32(b + 40, e->header.size_blocks);
	put_le32(b + 44, e->length);
	put_le32(b + 48, e->prev);
	put_le32(b + 52, (e->sealed ? ENTRY_SEALED : 0) | (e->whole ? ENTRY_WHOLE : 0));
	put_le64(b + 56, e->last_seq);
	put_le32(b + 64, e->trimmed);
	put_le32(b + 68, e->trim_crc);
	put_le32(b + 72, e->present);
}

int share_entry_decode(const void *bytes, struct share_entry *ret)
{
	const uint8_t *b = bytes;
	struct share_entry e = {
		.header = { .segment = get_le64(b), .epoch = get_le64(b + 24), .salt = get_le64(b + 32), .size_blocks = get_le32(b + 40) },
		.length = get_le32(b + 44), .prev = get_le32(b + 48),
		.sealed = get_le32(b + 52) & ENTRY_SEALED, .whole = get_le32(b + 52) & ENTRY_WHOLE,
		.last_seq = get_le64(b + 56), .trimmed = get_le32(b + 64), .trim_crc = get_le32(b + 68), .present = get_le32(b + 72),
	};
	memcpy(e.header.volume.bytes, b + 8, 16);
	if (e.header.segment == 0 || e.header.segment >> 48 || e.header.size_blocks < 2 || e.header.size_blocks > SEGMENT_BLOCKS_MAX ||
	    e.length > e.header.size_blocks || e.trimmed > SEGMENT_BLOCKS_MAX || e.present > SEGMENT_BLOCKS_MAX || (e.sealed && e.length == 0))
		return -EBADMSG;
	*ret = e;
	return 0;
}

void share_head_set(void *page, uint32_t i, uint32_t block, uint32_t crc)
{
	put_le32((uint8_t *)page + 8 + (size_t)i * 8, block);
	put_le32((uint8_t *)page + 12 + (size_t)i * 8, crc);
}

void share_head_end(void *page, uint32_t count)
{
	put_le32(page, count);
	memset((uint8_t *)page + 4, 0, 4);
	memset((uint8_t *)page + 8 + (size_t)count * 8, 0, SHARE_HEAD_BYTES - 8 - (size_t)count * 8);
}

uint32_t share_head_block(const void *page, uint32_t i) { return get_le32((const uint8_t *)page + 8 + (size_t)i * 8); }
uint32_t share_head_crc(const void *page, uint32_t i) { return get_le32((const uint8_t *)page + 12 + (size_t)i * 8); }

int share_page_check(const void *page, size_t bytes, uint32_t from, uint32_t length, uint32_t *ret_count)
{
	uint32_t count = bytes >= SHARE_HEAD_BYTES ? get_le32(page) : UINT32_MAX;
	if (count > SHARE_FETCH_MAX || bytes != SHARE_HEAD_BYTES + (size_t)count * BLOCK_BYTES)
		return -EBADMSG;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t block = share_head_block(page, i);
		if (block < from || block >= length)
			return -EBADMSG;
		from = block + 1;
		if (crc32c(0, (const uint8_t *)page + SHARE_HEAD_BYTES + (size_t)i * BLOCK_BYTES, BLOCK_BYTES) != share_head_crc(page, i))
			return -EBADMSG;
	}
	*ret_count = count;
	return 0;
}

uint64_t share_room(const struct segment_io *io)
{
	switch (io->op) {
	case SEGMENT_LIST: return SHARE_LIST_BYTES;
	case SEGMENT_FETCH: return SHARE_HEAD_BYTES + (uint64_t)io->blocks * BLOCK_BYTES;
	default: return 0;
	}
}
