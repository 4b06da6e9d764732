/* Reading the log back. Only headers are read where payloads are long; what the payloads hold was
 * checked by the server that says how long its copy is, and is checked again whenever it is read. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/volume/volume_private.h"

/* Read at a time: little where payloads are long, and more and more where the next record follows. */
enum { WINDOW_BLOCKS = 64, WINDOW_BLOCKS_MAX = 512 };
enum { READ_TRIES = 3 };

static bool is_in_ensemble(const struct meta_segment *m, const struct peer *p)
{
	for (uint32_t i = 0; i < m->ensemble_count; i++)
		if (memcmp(&m->ensemble[i].server, &p->id, sizeof p->id) == 0)
			return true;
	return false;
}

/* The `n`-th that may have the segment, NULL: there are no more. After those that had it when it was cut, those that have been given it
 * since (R33): the log may be read long after it was written. */
static struct peer *holder(const struct replay *p, uint32_t index, unsigned n)
{
	const struct meta_segment *m = &p->volume->meta.segments[index];
	if (p->source[index])
		return n == 0 ? p->source[index] : NULL;
	if (n < m->ensemble_count)
		return copies_peer(p->volume->copies, &m->ensemble[n].server);
	struct peer *candidates[PLACEMENT_CANDIDATES_MAX];
	unsigned count = copies_candidates(p->volume->copies, m->id, candidates), others = m->ensemble_count;
	for (unsigned i = 0; i < count; i++)
		if (!is_in_ensemble(m, candidates[i]) && others++ == n)
			return candidates[i];
	return NULL;
}

static int window_read(struct replay *p, struct peer *from, uint64_t segment, uint32_t block, uint32_t blocks)
{
	struct iovec iov = { p->window, (size_t)blocks * BLOCK_BYTES };
	struct segment_io io = { .op = SEGMENT_READ, .segment = segment, .block = block, .blocks = blocks, .iov = &iov, .iov_count = 1 };
	int r = peer_wait(from, &io);
	p->window_segment = r == 0 ? segment : 0;
	p->window_block = block;
	p->window_blocks = blocks;
	return r;
}

static int window_load(struct replay *p, uint32_t index, uint32_t block, uint32_t blocks)
{
	uint64_t segment = p->volume->meta.segments[index].id;
	if (p->window_segment == segment && block >= p->window_block && block + blocks <= p->window_block + p->window_blocks)
		return 0;
	bool follows = p->window_segment == segment && block >= p->window_block &&
		       block - p->window_block <= p->window_blocks + WINDOW_BLOCKS / 2;
	p->window_want = follows ? MIN(2 * p->window_want, (uint32_t)WINDOW_BLOCKS_MAX) : (uint32_t)WINDOW_BLOCKS;
	uint32_t n = MIN(MAX(blocks, p->window_want), p->length[index] - block);
	if (blocks > n || n > RECORD_BLOCKS_MAX)
		return -EBADMSG;
	struct peer *from;
	int r = -EIO;
	while ((from = holder(p, index, p->window_peer)) && (r = window_read(p, from, segment, block, n)) < 0)
		p->window_peer++;
	return r;
}

static int record_decode_at(struct replay *p, const struct segment_header *in, uint32_t index, uint32_t block, struct record *ret)
{
	int r = window_load(p, index, block, 1);
	uint32_t have = p->window_block + p->window_blocks - block;
	if (r == 0)
		r = record_decode(p->window + (size_t)(block - p->window_block) * BLOCK_BYTES, (size_t)have * BLOCK_BYTES, in, block, ret);
	if (r == -EAGAIN) {
		r = window_load(p, index, block, ret->header_blocks);
		have = p->window_block + p->window_blocks - block;
		if (r == 0)
			r = record_decode(p->window + (size_t)(block - p->window_block) * BLOCK_BYTES, (size_t)have * BLOCK_BYTES, in, block, ret);
	}
	return r == -EAGAIN || r == -ENODATA ? -EBADMSG : r;
}

/* From the first holder that has it in order. Each is asked several times: a bit may flip on the way. */
static int record_read(struct replay *p, const struct segment_header *in, uint32_t index, uint32_t block, struct record *ret)
{
	int r = record_decode_at(p, in, index, block, ret);
	for (unsigned tries = 1; r == -EBADMSG && tries < READ_TRIES;) {
		p->window_segment = 0;
		if (!holder(p, index, ++p->window_peer)) {
			p->window_peer = 0;
			tries++;
		}
		r = record_decode_at(p, in, index, block, ret);
	}
	return r;
}

/* Entries and checksums as arrays, as apply_record() wants them. */
static void record_unpack(struct replay *p, struct record *r)
{
	for (uint32_t i = 0; i < r->entry_count; i++)
		p->entries[i] = record_entry_at(r, i);
	for (uint32_t i = 0; i < r->payload_blocks; i++)
		p->crcs[i] = record_crc_at(r, i);
	r->entries = p->entries;
	r->crcs = p->crcs;
}

static int unreadable(struct replay *p, uint32_t index, int status, struct report *report)
{
	struct peer *holders[META_REPLICAS_MAX];
	char who[META_TEXT_MAX];
	unsigned n = 0;
	uint64_t id = p->volume->meta.segments[index].id;
	while (n < META_REPLICAS_MAX && (holders[n] = holder(p, index, n)))
		n++;
	peers_missing(holders, n, who, sizeof who);
	if (!segment_away(status) || !who[0])
		return report_set(report, status, "segment %llu can't be read: %s", (unsigned long long)id, errno_text(status));
	return report_set(report, status, "segment %llu, a part of its log, can't be had: none of its servers answers, missing: %s (bring one back, then attach again)",
			  (unsigned long long)id, who);
}

static int walk_segment(struct replay *p, uint32_t index, struct report *report)
{
	const struct meta_segment *m = &p->volume->meta.segments[index];
	struct segment_header in = { m->id, p->volume->meta.volume, m->epoch, m->salt, m->size_blocks };
	uint64_t from = p->volume->meta.from_position;
	uint32_t block = m->id == position_segment(from) ? position_block(from) : 1;
	bool first = true;
	int r = 0;
	p->window_peer = 0;
	while (r == 0 && block < p->length[index]) {
		struct record rec;
		r = record_read(p, &in, index, block, &rec);
		bool follows = r == 0 && ((rec.seq == p->seq + 1 && rec.prev == p->crc) || (first && PLANTED(log_no_chain)));
		if ((r == 0 || r == -EBADMSG) && !follows) {
			/* R17.3: not the log's continuation. Not if it can't be decoded: who said how long the segment is could. */
			if (r == 0 && first && p->chosen[index]) {
				p->length[index] = 1;
				p->broken = true;
				p->missing = MAX(p->missing, rec.synced);
				return 0;
			}
			p->stuck = index + 1;
			return report_set(report, -EUCLEAN, "the log is damaged: segment %llu, block %u does not continue it",
					  (unsigned long long)m->id, block);
		}
		if (r < 0) {
			p->unread = r == -EIO;
			p->gone = p->source[index] && segment_away(r) && !PLANTED(recover_source_stays);
			p->stuck = p->unread || p->gone ? index + 1 : 0;
			return unreadable(p, index, r, report);
		}
		first = false;
		p->seq = rec.seq;
		p->crc = rec.header_crc;
		p->acked = MAX(p->acked, rec.acked);
		p->synced = MAX(p->synced, rec.synced);
		p->bytes += (uint64_t)record_blocks(&rec) * BLOCK_BYTES;
		record_unpack(p, &rec);
		if (p->record)
			r = p->record(p, &rec);
		block += record_blocks(&rec);
	}
	return r;
}

int replay_walk(struct replay *p, struct report *report)
{
	const struct meta_log *log = &p->volume->meta;
	p->window = env_alloc_aligned(RECORD_BYTES_MAX);
	p->entries = malloc(RECORD_BYTES_MAX / sizeof *p->entries * sizeof *p->entries);
	p->crcs = malloc(RECORD_BLOCKS_MAX * sizeof *p->crcs);
	int r = p->window && p->entries && p->crcs ? 0 : -ENOMEM;
	p->seq = log->from_seq - 1;
	p->crc = log->from_prev;
	p->window_segment = p->stuck = 0;
	p->missing = 0;
	p->unread = p->gone = false;
	for (uint32_t i = 0; r == 0 && i < log->segment_count; i++) {
		if (log->segments[i].id < position_segment(log->from_position))
			continue;
		if (p->broken && p->chosen[i])
			p->length[i] = 1;
		r = walk_segment(p, i, report);
	}
	free(p->window);
	free(p->entries);
	free(p->crcs);
	return r;
}
