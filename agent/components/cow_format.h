/* The bytes of a cow layer's file: header and map pages. Knows no files. See docs/formats/cow.md. */
#ifndef AQ_COW_FORMAT_H
#define AQ_COW_FORMAT_H
#include <stdbool.h>
#include <stdint.h>

#define COW_VERSION 1u
#define COW_BLOCK UINT64_C(4096)            /* what has a state of its own */
#define COW_GROUP_DATA (UINT64_C(63) << 20) /* bytes of the disk in a group */
#define COW_GROUP (UINT64_C(64) << 20)      /* bytes of the file in a group: 1 MiB for the map, then the data */
#define COW_DATA_START (UINT64_C(1) << 20)  /* of the data, in its group */
#define COW_MAP_START UINT64_C(8192)        /* of the two copies of the map page, in their group */
#define COW_PAGE 4096u                      /* bytes of a header or map page */
#define COW_GROUP_BLOCKS ((unsigned)(COW_GROUP_DATA / COW_BLOCK))
#define COW_STATE_BYTES (COW_GROUP_BLOCKS / 4)
#define COW_STATE_START 64u                 /* of the states, in a map page */
#define COW_SIZE_MAX (UINT64_C(64) << 40)

enum cow_state { COW_PARENT = 0, COW_DATA = 1, COW_ZERO = 2, COW_INVALID = 3 };

struct cow_header {
	uint64_t sequence;
	uint64_t size;        /* of the disk, bytes */
	uint64_t parent_size; /* bytes; the parent may have grown since, and what it has beyond isn't seen */
	uint64_t parent_identity; /* its info.identity; 0: not known */
	uint64_t id;          /* random; map pages repeat it */
	bool clean;           /* closed in order: every map page is whole */
};

enum cow_check {
	COW_OK,
	COW_FOREIGN, /* something else */
	COW_NEWER,   /* a version this program doesn't know */
	COW_DAMAGED, /* ours, but the checksum or a field is wrong */
	COW_BLANK,   /* zeroes */
};

void cow_header_encode(const struct cow_header *h, uint8_t page[COW_PAGE]);
enum cow_check cow_header_decode(const uint8_t page[COW_PAGE], struct cow_header *ret_header);
/* Of two copies, the newer good one. COW_OK, or what is wrong with the first. */
enum cow_check cow_header_choose(const uint8_t pages[2 * COW_PAGE], struct cow_header *ret_header);
/* Is a parent of that size and identity the one that the layer was made over? Those without an identity are told by their size; those with one may have grown.
 * `rebase`: another may do that is as large. */
bool cow_header_fits(const struct cow_header *h, uint64_t parent_size, uint64_t parent_identity, bool rebase);
/* What the copy that is COW_NEWER says. */
uint32_t cow_header_version(const uint8_t pages[2 * COW_PAGE]);

/* Fills in what surrounds the states, which are in the page already. */
void cow_map_seal(uint8_t page[COW_PAGE], uint64_t id, uint64_t group, uint64_t sequence);
/* COW_OK, COW_BLANK or COW_DAMAGED. */
enum cow_check cow_map_check(const uint8_t page[COW_PAGE], uint64_t id, uint64_t group, uint64_t *ret_sequence);

static inline enum cow_state cow_state_get(const uint8_t *states, unsigned block)
{
	return (enum cow_state)(states[block / 4] >> (block % 4 * 2) & 3);
}
static inline void cow_state_set(uint8_t *states, unsigned block, enum cow_state s)
{
	unsigned shift = block % 4 * 2;
	states[block / 4] = (uint8_t)((states[block / 4] & ~(3u << shift)) | (unsigned)s << shift);
}

/* Where a byte of the disk is in the file. */
static inline uint64_t cow_place(uint64_t offset)
{
	return offset / COW_GROUP_DATA * COW_GROUP + COW_DATA_START + offset % COW_GROUP_DATA;
}
static inline uint64_t cow_group_count(uint64_t size) { return (size + COW_GROUP_DATA - 1) / COW_GROUP_DATA; }
#endif
