/* Walking the records of a segment.
 *
 *   block 0 │ record │ record │ … │ record │ torn, lost or never written │ perhaps more
 *                                          ▲ length                        ▲ looked at for evidence only
 *
 * A record counts iff its header and every payload block have their checksums and it continues
 * the chain (prev, seq). A mismatch is read again before it is believed: what comes from
 * a disk may be flipped on the way. After the end, up to AHEAD_BLOCKS are searched for
 * records that were made when the missing one had been acknowledged. */
#include "parallax/segment/segment_scan.h"

#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/plant.h"

#define WINDOW_BLOCKS RECORD_BLOCKS_MAX
#define AHEAD_BLOCKS (4 * RECORD_BLOCKS_MAX)
#define READ_TRIES 3

struct walk {
	struct file *file;
	uint64_t base;
	const struct segment_header *header;
	uint32_t limit;
	uint8_t *window;     /* with a block behind it, for walk_nothing() */
	uint32_t window_block, window_blocks; /* what the window holds */
	uint64_t first_seq;
	uint32_t *ends; /* of the records from first_seq on: blocks */
};

/* Makes `count` blocks (or as many as there are) from `block` on available. */
static int walk_fill(struct walk *w, uint32_t block, uint32_t count)
{
	count = MIN(count, w->limit - block);
	if (block >= w->window_block && block + count <= w->window_block + w->window_blocks)
		return 0;
	size_t bytes = (size_t)MIN(WINDOW_BLOCKS, w->limit - block) * BLOCK_BYTES, done = 0;
	int r = -EIO;
	w->window_blocks = 0;
	for (int i = 0; i < READ_TRIES && r == -EIO; i++)
		r = file_read_wait(w->file, w->window, bytes, w->base + (uint64_t)block * BLOCK_BYTES, &done);
	if (r < 0)
		return r;
	memset(w->window + done, 0, bytes - done); /* the file may be shorter */
	w->window_block = block;
	w->window_blocks = (uint32_t)(bytes / BLOCK_BYTES);
	return 0;
}

static uint8_t *walk_at(struct walk *w, uint32_t block)
{
	return w->window + (size_t)(block - w->window_block) * BLOCK_BYTES;
}

/* Decodes the record at `block`: 0, -ENODATA, -EBADMSG, -EPROTONOSUPPORT, or an error of reading. */
static int walk_header(struct walk *w, uint32_t block, struct record *ret)
{
	uint32_t need = 1;
	for (;;) {
		int r = walk_fill(w, block, need);
		if (r < 0)
			return r;
		uint32_t have = w->window_block + w->window_blocks - block;
		r = record_decode(walk_at(w, block), (size_t)have * BLOCK_BYTES, w->header, block, ret);
		if (r != -EAGAIN)
			return r;
		if (need == ret->header_blocks || have >= ret->header_blocks || ret->header_blocks > w->limit - block)
			return -EBADMSG;
		need = ret->header_blocks;
	}
}

static int walk_record_once(struct walk *w, uint32_t block, struct record *ret)
{
	int r = walk_header(w, block, ret);
	if (r < 0)
		return r;
	if (record_blocks(ret) > w->limit - block)
		return -EBADMSG;
	r = walk_fill(w, block, record_blocks(ret));
	if (r < 0)
		return r;
	ret->bytes = walk_at(w, block);
	if (PLANTED(segment_scan_no_payload_check))
		return 0;
	return record_check_payload(ret, ret->bytes + (size_t)ret->header_blocks * BLOCK_BYTES);
}

/* Is there no record? One block, read again, is enough to see it. 0: there may be one; -ENODATA, -ESHUTDOWN. */
static int walk_nothing(struct walk *w, uint32_t block)
{
	uint8_t *again = w->window + (size_t)WINDOW_BLOCKS * BLOCK_BYTES;
	struct record rec;
	size_t done = 0;
	int r = file_read_wait(w->file, again, BLOCK_BYTES, w->base + (uint64_t)block * BLOCK_BYTES, &done);
	if (r < 0)
		return r == -EIO ? 0 : r;
	memset(again + done, 0, BLOCK_BYTES - done);
	return record_decode(again, BLOCK_BYTES, w->header, block, &rec) == -ENODATA ? -ENODATA : 0;
}

static int walk_record(struct walk *w, uint32_t block, struct record *ret)
{
	int r = walk_record_once(w, block, ret);
	for (int i = 1; i < READ_TRIES && (r == -EBADMSG || r == -ENODATA); i++) {
		if (r == -ENODATA && (r = walk_nothing(w, block)) < 0)
			break;
		w->window_blocks = 0;
		r = walk_record_once(w, block, ret);
	}
	return r;
}

static void crcs_fill(uint32_t *crcs, const struct record *r)
{
	for (uint32_t i = 0; i < r->header_blocks; i++)
		crcs[r->block + i] = crc32c(0, r->bytes + (size_t)i * BLOCK_BYTES, BLOCK_BYTES);
	for (uint32_t i = 0; i < r->payload_blocks; i++)
		crcs[r->block + r->header_blocks + i] = record_crc_at(r, i);
}

/* Looks at headers after the end of the chain. */
static int walk_evidence(struct walk *w, struct segment_scan *s)
{
	uint64_t acked_min = UINT64_MAX, acked = 0, synced = 0;
	uint32_t end = MIN(w->limit, s->length + AHEAD_BLOCKS);
	for (uint32_t b = s->length; b < end;) {
		struct record rec;
		int r = walk_header(w, b, &rec);
		if (r == -EBADMSG || r == -ENODATA || (r == 0 && rec.seq <= s->last_seq)) {
			b++;
			continue;
		}
		if (r < 0)
			return r;
		acked_min = MIN(acked_min, rec.acked);
		acked = MAX(acked, rec.acked);
		synced = MAX(synced, rec.synced);
		b += record_blocks(&rec);
	}
	if (acked_min == UINT64_MAX)
		return 0;
	/* Everything before the segment's first record was acknowledged when that was made. */
	uint64_t missing = s->last_seq ? s->last_seq + 1 : acked_min + 1;
	s->lost_acked = acked >= missing;
	s->lost_synced = synced >= missing;
	return 0;
}

static uint32_t flushed_blocks(const struct walk *w, uint64_t synced, const struct segment_scan *s)
{
	if (s->last_seq == 0 || synced < w->first_seq)
		return 1;
	return w->ends[MIN(synced, s->last_seq) - w->first_seq];
}

static int walk_chain(struct walk *w, uint32_t *crcs, struct segment_scan *s)
{
	uint64_t synced = 0;
	while (s->length < w->limit) {
		struct record rec;
		int r = walk_record(w, s->length, &rec);
		if (r == -EBADMSG || r == -ENODATA)
			break;
		if (r < 0)
			return r;
		if (s->last_seq && (rec.prev != s->last_crc || rec.seq != s->last_seq + 1))
			break;
		if (crcs)
			crcs_fill(crcs, &rec);
		w->first_seq = s->last_seq ? w->first_seq : rec.seq;
		s->length += record_blocks(&rec);
		w->ends[rec.seq - w->first_seq] = s->length;
		synced = MAX(synced, rec.synced);
		s->last_crc = rec.header_crc;
		s->last_seq = rec.seq;
	}
	s->flushed = flushed_blocks(w, synced, s);
	return walk_evidence(w, s);
}

static void crc_header(const struct segment_header *header, void *block0, uint32_t *crcs)
{
	segment_header_encode(header, block0);
	crcs[0] = crc32c(0, block0, BLOCK_BYTES);
}

static int said_record(struct walk *w, uint32_t block, struct record *ret)
{
	int r = -EBADMSG;
	for (int i = 0; i < READ_TRIES && r == -EBADMSG; i++) {
		if (i)
			w->window_blocks = 0;
		r = walk_header(w, block, ret);
	}
	if (r == 0)
		ret->bytes = walk_at(w, block);
	return r;
}

int segment_said(struct file *file, uint64_t base, const struct segment_header *header, uint32_t *crcs, uint32_t *ret_length)
{
	struct walk w = { .file = file, .base = base, .header = header, .limit = header->size_blocks };
	struct record rec, last = { .seq = 0 };
	uint32_t length = 1;
	int r = 0;
	w.window = env_alloc_aligned((size_t)WINDOW_BLOCKS * BLOCK_BYTES);
	if (!w.window)
		return -ENOMEM;
	crc_header(header, w.window, crcs);
	while (length < w.limit && (r = said_record(&w, length, &rec)) == 0) {
		if (record_blocks(&rec) > w.limit - length || (last.seq && (rec.prev != last.header_crc || rec.seq != last.seq + 1)))
			break;
		crcs_fill(crcs, &rec);
		length += record_blocks(&rec);
		last = rec;
	}
	free(w.window);
	*ret_length = length;
	return r == -EBADMSG || r == -ENODATA ? 0 : r;
}

int segment_scan(struct env *env, struct file *file, uint64_t base, const struct segment_header *header,
		 uint32_t limit, uint32_t *crcs, struct segment_scan *ret)
{
	(void)env;
	struct walk w = { .file = file, .base = base, .header = header, .limit = limit };
	struct segment_scan s = { .length = 1 };
	w.ends = malloc((size_t)limit * sizeof *w.ends); /* no record is shorter than a block */
	w.window = env_alloc_aligned((size_t)(WINDOW_BLOCKS + 1) * BLOCK_BYTES);
	uint8_t *block0 = env_alloc_aligned(BLOCK_BYTES);
	int r = w.window && block0 && w.ends ? 0 : -ENOMEM;
	if (r == 0 && crcs)
		crc_header(header, block0, crcs);
	if (r == 0)
		r = walk_chain(&w, crcs, &s);
	free(block0);
	free(w.window);
	free(w.ends);
	if (r == 0)
		*ret = s;
	return r;
}
