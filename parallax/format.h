/* The store's bytes on disk: segment header, record header, pointers, footer.
 * Codecs only: buffer in, struct or error out; no I/O, no allocation. All numbers are
 * little-endian. docs/formats/store.md draws the same layouts. */
#ifndef AQ_FORMAT_H
#define AQ_FORMAT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/crc.h"

#define BLOCK_BYTES 4096u
#define SEGMENT_BLOCKS_DEFAULT 16384u /* 64 MiB */
#define SEGMENT_ID_MAX ((UINT64_C(1) << 48) - 1)
#define SEGMENT_BLOCKS_MAX 28672u     /* so that the bitmap of what is free fits beside a copy's slot, see segment_dir.h */
#define RECORD_BYTES_MAX (4u << 20)   /* header and payload */
#define RECORD_BLOCKS_MAX (RECORD_BYTES_MAX / BLOCK_BYTES)
#define FORMAT_VERSION 1u

typedef struct {
	uint8_t bytes[16];
} uuid;

/* ---- segment header: block 0 of every segment ---- */

struct segment_header {
	uint64_t segment;     /* 48 bits, never 0 */
	uuid volume;
	uint64_t epoch;
	uint64_t salt;        /* random: neither a recycled file nor guest data can pass for a record */
	uint32_t size_blocks; /* with block 0 */
};
void segment_header_encode(const struct segment_header *h, void *block);
/* 0; -EBADMSG: not a segment header or a bad checksum; -EPROTONOSUPPORT: a newer version. */
int segment_header_decode(const void *block, struct segment_header *ret);

/* ---- records ---- */

enum record_kind {
	RECORD_DATA = 1,
	RECORD_DISCARD,
	RECORD_NODES,
	RECORD_FREES,
	RECORD_MARK,
	RECORD_CHECKPOINT,
};

/* What an extent of the volume does in this record. DATA: `count` payload blocks for volume
 * blocks from `first` on. DISCARD: no payload. NODES: `first` is the node's first volume
 * block, `count` 1, level in `extra`. Others: as the kind says. */
struct record_entry {
	uint64_t first;
	uint32_t count;
	uint32_t extra;
};

struct record {
	enum record_kind kind;
	uint64_t segment;
	uint32_t block;          /* where the header begins, in blocks from the segment's start */
	uint64_t epoch, seq, salt;
	uint32_t prev;           /* CRC of the previous record's header (0 for a volume's first) */
	uint64_t acked, synced;  /* highest seq acknowledged, flushed, when this was made */
	uint64_t mark;           /* MARK: the snapshot's id */
	uint32_t header_blocks, payload_blocks;
	uint32_t entry_count;
	const struct record_entry *entries; /* encode: the caller's; decode: use record_entry_at() */
	const uint32_t *crcs;               /* encode: CRC32C of each payload block */
	uint32_t header_crc;                /* filled by both */
	const uint8_t *bytes;               /* decode: the header's bytes, borrowed */
};

/* Header blocks that a record of so many entries and payload blocks needs. */
uint32_t record_header_blocks(uint32_t entry_count, uint32_t payload_blocks);
/* Fills header_blocks * BLOCK_BYTES bytes at `buffer`, and r->header_blocks and r->header_crc. */
void record_encode(struct record *r, void *buffer);
/* Checks everything that can be checked without the payload against the segment it should be in:
 * magic, version, checksum, salt, segment, position, sizes. `length`: bytes available at `buffer`.
 * 0; -ENODATA: no record here (the log ends); -EBADMSG: a damaged one; -EAGAIN: needs more bytes, at
 * least ret->header_blocks blocks; -EPROTONOSUPPORT. */
int record_decode(const void *buffer, size_t length, const struct segment_header *in, uint32_t block,
		  struct record *ret);
struct record_entry record_entry_at(const struct record *r, uint32_t index);
uint32_t record_crc_at(const struct record *r, uint32_t payload_block);
/* 0 if every payload block has its checksum, -EBADMSG otherwise. */
int record_check_payload(const struct record *r, const void *payload);
static inline uint32_t record_blocks(const struct record *r) { return r->header_blocks + r->payload_blocks; }

/* ---- footer of a sealed segment: after block `length` - 1 in the file, see docs/formats ---- */

struct segment_footer {
	uint64_t segment;
	uint32_t length_blocks; /* with block 0 */
	uint32_t prev;          /* header CRC of the last record within */
	uint64_t last_seq;
};
/* Bytes of a footer for `length_blocks`: one header and a CRC per block, in whole blocks. */
size_t segment_footer_bytes(uint32_t length_blocks);
void segment_footer_encode(const struct segment_footer *f, const uint32_t *block_crcs, void *buffer);
int segment_footer_decode(const void *buffer, size_t length, struct segment_footer *ret, const uint8_t **ret_crcs);

/* ---- pointers ---- */

/* 16 bytes: segment 48 bits, block 16 bits, CRC32C of the block, flags. All zero: nothing there. */
struct pointer {
	uint64_t position; /* segment << 16 | block; grows with seq; 0: hole */
	uint32_t crc;
	uint32_t flags;    /* 0 */
};
static inline uint64_t position_make(uint64_t segment, uint32_t block) { return segment << 16 | block; }
static inline uint64_t position_segment(uint64_t position) { return position >> 16; }
static inline uint32_t position_block(uint64_t position) { return (uint32_t)(position & 0xffff); }

#define NODE_FANOUT 256u
#define NODE_FANOUT_BITS 8u
void pointer_encode(const struct pointer *p, void *bytes);
struct pointer pointer_decode(const void *bytes);
#endif
