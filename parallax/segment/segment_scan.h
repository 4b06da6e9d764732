/* Finds out what an unsealed copy of a segment holds, by walking its records. */
#ifndef AQ_SEGMENT_SCAN_H
#define AQ_SEGMENT_SCAN_H
#include "core/env.h"
#include "parallax/format.h"

struct segment_scan {
	uint32_t length;   /* blocks, with block 0: where the chain of good records ends */
	uint32_t last_crc; /* of the last record's header; 0: none */
	uint64_t last_seq;
	uint32_t flushed;  /* blocks, with block 0: what a record that is here says had been flushed when it was made */
	/* A later record says that what is missing here had been acknowledged, or flushed: the copy
	 * was damaged; its end is not just the torn end of a log. */
	bool lost_acked, lost_synced;
};

/* FIBER. Block 0 is at byte `base` of `file`. Stops at `limit` blocks (a cut: no record may cross it). Stores each block's
 * CRC32C in `crcs` if that isn't NULL (size_blocks entries; valid up to ret->length).
 * -EIO, -ENOMEM, -ESHUTDOWN: couldn't tell. */
int segment_scan(struct env *env, struct file *file, uint64_t base, const struct segment_header *header,
		 uint32_t limit, uint32_t *crcs, struct segment_scan *ret);
/* FIBER. What should be in it, as its records' headers say, whose chain is followed without looking at what they lead to: CRC32Cs of [0, *ret_length).
 * -EIO, -ENOMEM, -ESHUTDOWN. */
int segment_said(struct file *file, uint64_t base, const struct segment_header *header, uint32_t *crcs, uint32_t *ret_length);
#endif
