/* What servers tell one another about their copies, so that they can be rebuilt: bytes only. Whoever decodes them
 * takes nothing for granted.
 *
 *   LIST    entries, SHARE_ENTRY_BYTES each:
 *             0 id u64   8 volume 16 bytes   24 epoch u64   32 salt u64   40 size_blocks u32   44 length u32   48 prev u32
 *            52 flags u32 (1 sealed, 2 whole)   56 last_seq u64   64 trimmed u32   68 trim_crc u32   72 present u32   76 zero
 *   FETCH   a head of SHARE_HEAD_BYTES: 0 count u32, 4 zero, then `count` times block u32, CRC32C u32, by block; then those blocks */
#ifndef AQ_SEGMENT_SHARE_H
#define AQ_SEGMENT_SHARE_H
#include "parallax/segment/segment.h"

enum {
	SHARE_ENTRY_BYTES = 80,
	SHARE_LIST_BYTES = 16 * BLOCK_BYTES,  /* of a page of entries, at most */
	SHARE_HEAD_BYTES = 2 * BLOCK_BYTES,
	SHARE_FETCH_MAX = SHARE_HEAD_BYTES / 8 - 2, /* blocks; head and all are no longer than a record */
};

struct share_entry {
	struct segment_header header;
	bool sealed, whole;      /* whole: as its server knows, and no process may have died with a failed sync of it; only sealed and
				    whole copies are sources */
	uint32_t length, prev;   /* sealed: the cut */
	uint64_t last_seq;       /* sealed */
	uint32_t trimmed, trim_crc; /* what is free of it: how many blocks, and a checksum of which */
	uint32_t present;        /* blocks that take space */
};
void share_entry_encode(const struct share_entry *e, void *bytes);
int share_entry_decode(const void *bytes, struct share_entry *ret); /* 0, -EBADMSG */

/* The i-th block of a page: its number and checksum. */
static inline void *share_block(void *page, uint32_t i) { return (uint8_t *)page + SHARE_HEAD_BYTES + (size_t)i * BLOCK_BYTES; }
void share_head_set(void *page, uint32_t i, uint32_t block, uint32_t crc);
void share_head_end(void *page, uint32_t count);
/* How many blocks a page of `bytes` has, of a segment of `length` from `from` on, in order, each with its checksum right; -EBADMSG. */
int share_page_check(const void *page, size_t bytes, uint32_t from, uint32_t length, uint32_t *ret_count);
uint32_t share_head_block(const void *page, uint32_t i);
uint32_t share_head_crc(const void *page, uint32_t i);

/* ---- a sealed copy in a directory, made from pages (segment_dir_install.c). FIBER, all but next ---- */

struct segment_install;
/* -ENOSPC, …; -EEXIST: there is a sealed, whole copy already; -EPROTONOSUPPORT: there is one of a newer version */
int segment_dir_install_begin(struct segment_server *dir, const struct share_entry *e, struct segment_install **ret);
uint32_t segment_dir_install_next(const struct segment_install *i); /* the block that the next page begins with */
/* A page as FETCH answered it, and its `next`. -EBADMSG: it is damaged or makes no sense; may be given again. */
int segment_dir_install_page(struct segment_install *i, void *page, size_t bytes, uint64_t next);
/* `frees`: what is free of it, as its peers know. Ends the install also when it fails. -EBADMSG: neither came all blocks, nor are
 * those that didn't free; -EEXIST: there is a sealed copy already. */
int segment_dir_install_end(struct segment_install *i, const uint8_t *frees);
void segment_dir_install_abort(struct segment_install *i); /* accepts NULL */

/* Bytes that the answer to a request may have; 0: none. */
uint64_t share_room(const struct segment_io *io);
#endif
