#include "agent/components/cow_format.h"

#include "core/bytes.h"
#include "core/crc.h"

static const uint8_t magic[8] = "AQFCOW\r\n";
#define MAP_MAGIC UINT32_C(0x6d776f63) /* "cowm" */

/* Both kinds of page keep their checksum, over the page with zeroes in its place, here. */
#define CRC_AT 12u

static uint32_t page_crc(const uint8_t page[COW_PAGE])
{
	static const uint8_t zero[4];
	uint32_t crc = crc32c(0, page, CRC_AT);
	crc = crc32c(crc, zero, sizeof zero);
	return crc32c(crc, page + CRC_AT + 4, COW_PAGE - CRC_AT - 4);
}

static bool page_blank(const uint8_t page[COW_PAGE])
{
	return page[0] == 0 && memcmp(page, page + 1, COW_PAGE - 1) == 0;
}

/*  0 magic   8 version   12 crc   16 sequence   24 size   32 parent size   40 id   48 block bytes   52 clean
 * 56 group data bytes   64 group bytes   72 parent identity   80 … 4095 zero */
void cow_header_encode(const struct cow_header *h, uint8_t page[COW_PAGE])
{
	memset(page, 0, COW_PAGE);
	memcpy(page, magic, sizeof magic);
	put_le32(page + 8, COW_VERSION);
	put_le64(page + 16, h->sequence);
	put_le64(page + 24, h->size);
	put_le64(page + 32, h->parent_size);
	put_le64(page + 40, h->id);
	put_le32(page + 48, (uint32_t)COW_BLOCK);
	put_le32(page + 52, h->clean);
	put_le64(page + 56, COW_GROUP_DATA);
	put_le64(page + 64, COW_GROUP);
	put_le64(page + 72, h->parent_identity);
	put_le32(page + CRC_AT, page_crc(page));
}

enum cow_check cow_header_decode(const uint8_t page[COW_PAGE], struct cow_header *ret_header)
{
	if (page_blank(page))
		return COW_BLANK;
	if (memcmp(page, magic, sizeof magic) != 0)
		return COW_FOREIGN;
	if (get_le32(page + CRC_AT) != page_crc(page))
		return COW_DAMAGED;
	if (get_le32(page + 8) > COW_VERSION)
		return COW_NEWER;
	struct cow_header h = {
		.sequence = get_le64(page + 16),
		.size = get_le64(page + 24),
		.parent_size = get_le64(page + 32),
		.parent_identity = get_le64(page + 72),
		.id = get_le64(page + 40),
		.clean = get_le32(page + 52) == 1,
	};
	if (h.size == 0 || h.size > COW_SIZE_MAX || h.size % 512 || h.parent_size > h.size ||
	    get_le32(page + 8) != COW_VERSION || get_le32(page + 48) != COW_BLOCK || get_le32(page + 52) > 1 ||
	    get_le64(page + 56) != COW_GROUP_DATA || get_le64(page + 64) != COW_GROUP)
		return COW_DAMAGED;
	*ret_header = h;
	return COW_OK;
}

enum cow_check cow_header_choose(const uint8_t pages[2 * COW_PAGE], struct cow_header *ret_header)
{
	struct cow_header a, b;
	enum cow_check first = cow_header_decode(pages, &a), second = cow_header_decode(pages + COW_PAGE, &b);
	if (first == COW_NEWER || second == COW_NEWER)
		return COW_NEWER;
	if (first != COW_OK && second != COW_OK)
		return first == COW_BLANK || first == COW_FOREIGN ? COW_FOREIGN : COW_DAMAGED;
	*ret_header = second != COW_OK || (first == COW_OK && a.sequence > b.sequence) ? a : b;
	return COW_OK;
}

bool cow_header_fits(const struct cow_header *h, uint64_t parent_size, uint64_t parent_identity, bool rebase)
{
	bool known = h->parent_identity && parent_identity;
	return parent_size >= h->parent_size && (rebase || (known ? h->parent_identity == parent_identity : h->parent_size == parent_size));
}

uint32_t cow_header_version(const uint8_t pages[2 * COW_PAGE])
{
	struct cow_header h;
	return get_le32(pages + (cow_header_decode(pages, &h) == COW_NEWER ? 0 : COW_PAGE) + 8);
}

/* 0 magic   4 zero   8 zero   12 crc   16 id   24 sequence   32 group   40 zero   64 states */
void cow_map_seal(uint8_t page[COW_PAGE], uint64_t id, uint64_t group, uint64_t sequence)
{
	memset(page, 0, COW_STATE_START);
	put_le32(page, MAP_MAGIC);
	put_le64(page + 16, id);
	put_le64(page + 24, sequence);
	put_le64(page + 32, group);
	put_le32(page + CRC_AT, page_crc(page));
}

enum cow_check cow_map_check(const uint8_t page[COW_PAGE], uint64_t id, uint64_t group, uint64_t *ret_sequence)
{
	if (page_blank(page))
		return COW_BLANK;
	if (get_le32(page) != MAP_MAGIC || get_le32(page + CRC_AT) != page_crc(page) || get_le64(page + 16) != id ||
	    get_le64(page + 32) != group)
		return COW_DAMAGED;
	for (unsigned i = 0; i < COW_STATE_BYTES; i++) /* no block may be 3 */
		if (page[COW_STATE_START + i] & page[COW_STATE_START + i] >> 1 & 0x55)
			return COW_DAMAGED;
	*ret_sequence = get_le64(page + 24);
	return COW_OK;
}
