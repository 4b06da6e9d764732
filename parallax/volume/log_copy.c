/* Copies of a segment that is to be cut: bringing them to its length, and new ones where too few have it (R15 a). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/volume/volume_private.h"

enum { COPY_TRIES = 3 };

/* The other copy isn't to blame, and may be the only one that has it: see copy_fresh(). */
static int source_status(int status) { return status == -EIO ? -EREMOTEIO : segment_away(status) ? -EHOSTDOWN : status; }

static int copy_once(struct volume *v, uint64_t segment, struct peer *source, struct peer *to, uint32_t from, uint32_t length)
{
	uint8_t *bytes = env_alloc_aligned(RECORD_BYTES_MAX);
	int r = bytes ? 0 : -ENOMEM;
	for (uint32_t block = from, n; r == 0 && block < length; block += n) {
		n = MIN(length - block, (uint32_t)RECORD_BLOCKS_MAX);
		struct iovec iov = { bytes, (size_t)n * BLOCK_BYTES };
		struct segment_io io = { .op = SEGMENT_READ, .segment = segment, .block = block, .blocks = n, .iov = &iov, .iov_count = 1 };
		r = source_status(peer_wait(source, &io));
		io = (struct segment_io){ .op = SEGMENT_REPAIR, .segment = segment, .epoch = v->epoch, .block = block, .blocks = n,
					  .iov = &iov, .iov_count = 1 };
		if (r == 0)
			r = peer_wait(to, &io);
	}
	free(bytes);
	return r;
}

/* How much of it, which is there from `block` on, is whole records. */
static uint32_t good_blocks(const struct segment_header *h, uint32_t block, const uint8_t *bytes, uint32_t count)
{
	for (uint32_t n = 0;;) {
		const uint8_t *at = bytes + (size_t)n * BLOCK_BYTES;
		struct record r;
		if (n == count || record_decode(at, (size_t)(count - n) * BLOCK_BYTES, h, block + n, &r) != 0 || record_blocks(&r) > count - n ||
		    record_check_payload(&r, at + (size_t)r.header_blocks * BLOCK_BYTES) != 0)
			return n;
		n += record_blocks(&r);
	}
}

/* Records of the source from `block` on, checked, as many as there is room for in RECORD_BYTES_MAX. 0 and their blocks; -EBADMSG: the first can be read,
 * and is never good; or why it can't be read. */
static int read_records(struct volume *v, const struct meta_segment *m, struct peer *source, uint32_t block, uint32_t length, uint8_t *bytes, uint32_t *ret_blocks)
{
	struct segment_header h = { .segment = m->id, .volume = v->meta.volume, .epoch = m->epoch, .salt = m->salt, .size_blocks = m->size_blocks };
	uint32_t n = MIN(length - block, (uint32_t)RECORD_BLOCKS_MAX);
	int r = -EIO, bad = 0;
	for (unsigned i = 0; i < COPY_TRIES; i++) {
		struct iovec iov = { bytes, (size_t)n * BLOCK_BYTES };
		struct segment_io io = { .op = SEGMENT_READ, .segment = m->id, .block = block, .blocks = n, .iov = &iov, .iov_count = 1 };
		r = peer_wait(source, &io);
		*ret_blocks = r == 0 ? good_blocks(&h, block, bytes, n) : 0;
		if (*ret_blocks)
			return 0;
		bad = r == 0 ? -EBADMSG : bad;
	}
	return bad ? bad : r;
}

/* All that a copy made from it would have. 0, or why not. */
static int source_is_right(struct volume *v, const struct meta_segment *m, struct peer *source, uint32_t length)
{
	uint8_t *bytes = env_alloc_aligned(RECORD_BYTES_MAX);
	int r = bytes ? 0 : -ENOMEM;
	for (uint32_t block = 1, n = 0; r == 0 && block < length; block += n)
		r = read_records(v, m, source, block, length, bytes, &n);
	free(bytes);
	return PLANTED(copy_fresh_unread) ? 0 : r;
}

static bool source_damaged(struct volume *v, const struct meta_segment *m, struct peer *source, uint32_t from, uint32_t length)
{
	uint8_t *bytes = env_alloc_aligned(RECORD_BYTES_MAX);
	uint32_t n;
	bool damaged = bytes && read_records(v, m, source, from, length, bytes, &n) == -EBADMSG;
	free(bytes);
	return damaged && !PLANTED(copy_blames_target);
}

/* Nothing is written there that isn't known to be right: what is damaged in the source may be right in that copy. */
int log_copy_rewrite(struct volume *v, const struct meta_segment *m, struct peer *source, struct peer *to, uint32_t length)
{
	struct segment_io io;
	uint8_t *bytes = env_alloc_aligned(RECORD_BYTES_MAX);
	int r = bytes ? 0 : -ENOMEM;
	for (uint32_t block = 1, n = 0; r == 0 && block < length; block += n) {
		r = read_records(v, m, source, block, length, bytes, &n);
		if (r < 0) {
			r = source_status(r);
			break;
		}
		struct iovec iov = { bytes, (size_t)n * BLOCK_BYTES };
		io = (struct segment_io){ .op = SEGMENT_REPAIR, .segment = m->id, .epoch = v->epoch, .block = block, .blocks = n, .iov = &iov, .iov_count = 1 };
		r = peer_wait(to, &io);
	}
	free(bytes);
	io = (struct segment_io){ .op = SEGMENT_FENCE, .segment = m->id, .epoch = v->epoch }; /* it is scanned */
	if (r == 0)
		r = peer_wait(to, &io);
	return r == 0 && io.length < length ? -EIO : r;
}

/* What was read may have been damaged on its way: the copy is scanned where it is now, and continued from where it is good. `ret_wrong`: it could be written,
 * and isn't right. */
static int copy_blocks(struct volume *v, const struct meta_segment *m, struct peer *source, struct peer *to, uint32_t from, uint32_t length, bool *ret_wrong)
{
	int r = 0;
	*ret_wrong = false;
	for (unsigned i = 0; r == 0 && i < COPY_TRIES && from < length; i++) {
		struct segment_io io = { .op = SEGMENT_FENCE, .segment = m->id, .epoch = v->epoch };
		r = copy_once(v, m->id, source, to, from, length);
		if (PLANTED(copy_unverified))
			return r;
		if (r == 0)
			r = peer_wait(to, &io);
		from = io.length;
	}
	*ret_wrong = r == 0 && from < length;
	if (*ret_wrong)
		r = source_damaged(v, m, source, from, length) ? -EBADMSG : -EIO;
	return r;
}

int log_copy_blocks(struct volume *v, const struct meta_segment *m, struct peer *source, struct peer *to, uint32_t from, uint32_t length)
{
	bool wrong;
	return copy_blocks(v, m, source, to, from, length, &wrong);
}

/* What was there before us. */
struct useless {
	bool useless; /* with -EIO: nothing there is worth anything for the cut */
	bool had;     /* but it may have blocks that can't be read elsewhere */
};

/* A copy there, fenced at our epoch like the others, before it is made: so its server knows that it doesn't count before it is sealed, for the next one may ask
 * that server while there is only a part of it. One that exists may be this segment's too: its server was left out before the segment was listed, or has lost
 * power since. What is in it is the same then, as far as it goes (R2). */
static int copy_try(struct volume *v, const struct meta_segment *m, uint32_t length, struct peer *source, struct peer *to, struct useless *ret)
{
	struct segment_io io = { .op = SEGMENT_FENCE, .segment = m->id, .epoch = v->epoch };
	bool wrong;
	int r = peer_wait(to, &io);
	ret->had = r == 0 && io.state != COPY_ABSENT;
	ret->useless = r == -ENOENT || (r == 0 && (io.state == COPY_ABSENT || io.state == COPY_BROKEN));
	if (r == -ENOENT || (r == 0 && io.state == COPY_ABSENT)) {
		io = (struct segment_io){ .op = SEGMENT_CREATE, .segment = m->id, .epoch = v->epoch, .incarnation = peer_incarnation(to),
					  .header = { m->id, v->meta.volume, m->epoch, m->salt, m->size_blocks } };
		r = peer_wait(to, &io);
		return r < 0 ? r : copy_blocks(v, m, source, to, 1, length, &wrong);
	}
	if (r < 0)
		return r;
	if (io.sealed)
		return -EROFS;
	if (io.state == COPY_BROKEN)
		return -EIO;
	if (io.length < length)
		return copy_blocks(v, m, source, to, io.length, length, &ret->useless);
	io = (struct segment_io){ .op = SEGMENT_REPAIR, .segment = m->id, .epoch = v->epoch, .block = length };
	return peer_wait(to, &io);
}

static bool is_among(struct peer *const *peers, unsigned count, const struct peer *p)
{
	for (unsigned i = 0; i < count; i++)
		if (peers[i] == p)
			return true;
	return false;
}

static bool is_listed(const struct meta_segment *m, const struct peer *p)
{
	for (uint32_t i = 0; i < m->ensemble_count; i++)
		if (memcmp(&m->ensemble[i].server, &p->id, sizeof p->id) == 0)
			return true;
	return false;
}

/* What is there and is of no use may go. Of a listed copy that is not so because it can't be written now: it has what was flushed, which counts when the source is
 * lost next. Nor does anything go before the source was read: a block that is damaged there, and nobody knew of, may be right in what is broken otherwise. */
static int copy_fresh(struct volume *v, const struct meta_segment *m, uint32_t length, struct peer *source, struct peer *to)
{
	struct useless was;
	int r = copy_try(v, m, length, source, to, &was);
	if (r != -EIO || (!was.useless && is_listed(m, to)))
		return r;
	r = was.had ? source_is_right(v, m, source, length) : 0;
	if (r < 0)
		return r;
	struct segment_io io = { .op = SEGMENT_DELETE, .segment = m->id, .epoch = v->epoch };
	r = peer_wait(to, &io);
	return r < 0 ? r : copy_try(v, m, length, source, to, &was);
}

unsigned log_copy_fresh(struct volume *v, const struct meta_segment *m, uint32_t length, struct peer *const *without, unsigned without_count,
			struct peer **holders, unsigned count)
{
	struct peer *places[META_REPLICAS_MAX];
	if (count == 0 || count >= v->meta.min_replicas)
		return count;
	unsigned n = copies_place(v->copies, m->id, META_REPLICAS_MAX, v->meta.min_replicas, places);
	for (int listed = 0; listed < 2; listed++) /* what a listed one has goes for a new copy only where nobody else can have that */
		for (unsigned i = 0; i < n && count < v->meta.min_replicas; i++)
			if ((is_listed(m, places[i]) == listed || PLANTED(copy_fresh_any)) && !is_among(holders, count, places[i]) &&
			    !is_among(without, without_count, places[i]) && copy_fresh(v, m, length, holders[0], places[i]) == 0)
				holders[count++] = places[i];
	return count;
}
