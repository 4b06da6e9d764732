#include "parallax/segment/segment_wire.h"

#include <errno.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/segment/placement.h"
#include "parallax/segment/segment_share.h"

#define METHOD(name) AQUIFER__SEGMENT__METHOD__##name

static const Aquifer__Segment__Method methods[] = {
	[SEGMENT_CREATE] = METHOD(CREATE), [SEGMENT_APPEND] = METHOD(APPEND), [SEGMENT_READ] = METHOD(READ),
	[SEGMENT_SYNC] = METHOD(SYNC),	   [SEGMENT_FENCE] = METHOD(FENCE),   [SEGMENT_SEAL] = METHOD(SEAL),
	[SEGMENT_REPAIR] = METHOD(REPAIR), [SEGMENT_DELETE] = METHOD(DELETE), [SEGMENT_STAT] = METHOD(STAT),
	[SEGMENT_TRIM] = METHOD(TRIM),	   [SEGMENT_LIST] = METHOD(LIST),     [SEGMENT_FETCH] = METHOD(FETCH),
	[SEGMENT_HOLDS] = METHOD(HOLDS),
};

Aquifer__Segment__Method segment_wire_method(enum segment_op op)
{
	return methods[op];
}

int segment_wire_op(uint32_t method, enum segment_op *ret_op)
{
	for (unsigned op = 0; op < ARRAY_COUNT(methods); op++) {
		if (method == (uint32_t)methods[op]) {
			*ret_op = (enum segment_op)op;
			return 0;
		}
	}
	return -ENOSYS;
}

void segment_wire_request(const struct segment_io *io, struct segment_request *ret)
{
	aquifer__segment__request__init(&ret->message);
	Aquifer__Segment__Request *m = &ret->message;
	m->segment = io->segment;
	m->epoch = io->epoch;
	m->incarnation = io->incarnation;
	m->block = io->block;
	m->blocks = io->blocks;
	m->crc = io->crc;
	m->reserve = io->reserve;
	m->pack = io->pack;
	m->want_trim = io->op == SEGMENT_STAT && io->free_bits;
	if (io->op == SEGMENT_TRIM) {
		m->trim.data = (uint8_t *)(uintptr_t)io->trim;
		m->trim.len = div_up(io->blocks, 8);
	}
	if (io->op == SEGMENT_LIST && io->groups) {
		m->groups.data = (uint8_t *)(uintptr_t)io->groups;
		m->groups.len = io->group_count / 8;
	}
	if (io->op == SEGMENT_LIST && io->changed) {
		m->want_changes = true;
		m->index = io->index;
		m->change = io->change;
	}
	m->map = io->map;
	if (io->op != SEGMENT_CREATE)
		return;
	aquifer__segment__header__init(&ret->header);
	m->header = &ret->header;
	m->header->volume.data = (uint8_t *)(uintptr_t)io->header.volume.bytes;
	m->header->volume.len = sizeof io->header.volume.bytes;
	m->header->epoch = io->header.epoch;
	m->header->salt = io->header.salt;
	m->header->size_blocks = io->header.size_blocks;
}

static const char *parse_header(const Aquifer__Segment__Request *m, struct segment_io *io)
{
	const Aquifer__Segment__Header *h = m->header;
	if (!h || h->volume.len != sizeof io->header.volume.bytes)
		return "no segment header, or one without a volume";
	if (h->size_blocks < 2 || h->size_blocks > SEGMENT_BLOCKS_MAX)
		return "the segment's size is out of range";
	io->header.segment = m->segment;
	memcpy(io->header.volume.bytes, h->volume.data, h->volume.len);
	io->header.epoch = h->epoch;
	io->header.salt = h->salt;
	io->header.size_blocks = h->size_blocks;
	return NULL;
}

static const char *parse_blocks(const struct segment_io *io, uint64_t payload_bytes, uint64_t reply_limit)
{
	bool sends = io->op == SEGMENT_APPEND || io->op == SEGMENT_REPAIR, reads = io->op == SEGMENT_READ;
	if (io->block > SEGMENT_BLOCKS_MAX)
		return "the block is beyond any segment";
	bool none = io->blocks == 0 && io->op != SEGMENT_REPAIR; /* that one may only make durable what is there */
	if ((sends || reads) && (none || io->blocks > RECORD_BLOCKS_MAX ||
				 !range_within(io->block, io->blocks, SEGMENT_BLOCKS_MAX)))
		return "the range is beyond any segment, or longer than a record";
	if (!PLANTED(wire_no_length) && payload_bytes != (sends ? (uint64_t)io->blocks * BLOCK_BYTES : 0))
		return "the payload isn't as long as it should be";
	if (reply_limit != (reads ? (uint64_t)io->blocks * BLOCK_BYTES : share_room(io)))
		return "the room for the reply isn't what was asked for";
	if (io->op == SEGMENT_FETCH && (io->blocks == 0 || io->blocks > SHARE_FETCH_MAX || io->block >= SEGMENT_BLOCKS_MAX))
		return "the blocks are beyond any segment, or more than a page has";
	return NULL;
}

/* The bits stay in the message. */
_Static_assert(SEGMENT_GROUPS_BYTES == PLACEMENT_GROUPS_MAX / 8, "a bit for each");

static const char *parse_groups(const Aquifer__Segment__Request *m, struct segment_io *io)
{
	size_t count = m->groups.len * 8;
	if (count != 0 && !placement_groups_valid(count))
		return "the groups' bitmap isn't as long as it should be";
	io->group_count = (uint32_t)count;
	io->groups = m->groups.len ? m->groups.data : NULL;
	io->index = m->index;
	io->change = m->change;
	return m->want_changes && count == 0 ? "changes are wanted of no groups" : NULL;
}

static const char *parse_trim(const Aquifer__Segment__Request *m, struct segment_io *io)
{
	if (io->blocks == 0 || io->blocks > SEGMENT_BLOCKS_MAX || m->trim.len != div_up(io->blocks, 8))
		return "the bitmap isn't as long as it should be, or longer than any segment's";
	io->trim = m->trim.data;
	io->pack = m->pack;
	return NULL;
}

int segment_wire_parse(uint32_t method, const Aquifer__Segment__Request *m, uint64_t payload_bytes,
		       uint64_t reply_limit, struct segment_io *ret_io, const char **ret_why)
{
	struct segment_io io = { 0 };
	*ret_why = "there is no such operation";
	if (segment_wire_op(method, &io.op) < 0)
		return -ENOSYS;
	io.segment = m->segment;
	io.epoch = m->epoch;
	io.incarnation = m->incarnation;
	io.block = m->block;
	io.blocks = m->blocks;
	io.crc = m->crc;
	io.reserve = m->reserve;
	io.map = m->map;
	const char *why = (io.segment == 0 && io.op != SEGMENT_LIST) || io.segment > SEGMENT_ID_MAX ? "that is no segment id" : NULL;
	if (!why)
		why = parse_blocks(&io, payload_bytes, reply_limit);
	if (!why && io.op == SEGMENT_CREATE)
		why = parse_header(m, &io);
	if (!why && io.op == SEGMENT_TRIM)
		why = parse_trim(m, &io);
	if (!why && io.op == SEGMENT_LIST)
		why = parse_groups(m, &io);
	*ret_why = why;
	if (why)
		return -EINVAL;
	*ret_io = io;
	return 0;
}

void segment_wire_reply(const struct segment_io *io, Aquifer__Segment__Reply *ret)
{
	static const Aquifer__Segment__State states[] = {
		[COPY_WHOLE] = AQUIFER__SEGMENT__STATE__WHOLE,
		[COPY_DOUBTFUL] = AQUIFER__SEGMENT__STATE__DOUBTFUL,
		[COPY_BROKEN] = AQUIFER__SEGMENT__STATE__BROKEN,
		[COPY_ABSENT] = AQUIFER__SEGMENT__STATE__ABSENT,
	};
	aquifer__segment__reply__init(ret);
	ret->length = io->length;
	ret->state = states[io->state];
	ret->sealed = io->sealed;
	ret->last_crc = io->last_crc;
	ret->last_seq = io->last_seq;
	ret->fenced_epoch = io->fenced_epoch;
	ret->lost_synced = io->lost_synced;
	ret->trimmed = io->trimmed;
	ret->present = io->present;
	if (io->free_bits) {
		ret->trim.data = io->free_bits;
		ret->trim.len = SEGMENT_BITMAP_BYTES;
		while (ret->trim.len && !io->free_bits[ret->trim.len - 1])
			ret->trim.len--;
	}
	ret->next = io->next;
	if (io->op != SEGMENT_LIST || !io->changed)
		return;
	ret->index = io->index;
	ret->change = io->change;
	ret->changed.data = io->changed;
	ret->changed.len = io->group_count / 8;
	while (ret->changed.len && !io->changed[ret->changed.len - 1])
		ret->changed.len--;
}

int segment_wire_result(const Aquifer__Segment__Reply *m, struct segment_io *io)
{
	static const enum copy_state states[] = {
		[AQUIFER__SEGMENT__STATE__WHOLE] = COPY_WHOLE,
		[AQUIFER__SEGMENT__STATE__DOUBTFUL] = COPY_DOUBTFUL,
		[AQUIFER__SEGMENT__STATE__BROKEN] = COPY_BROKEN,
		[AQUIFER__SEGMENT__STATE__ABSENT] = COPY_ABSENT,
	};
	if (m->length > SEGMENT_BLOCKS_MAX || m->trimmed > SEGMENT_BLOCKS_MAX || m->present > SEGMENT_BLOCKS_MAX || (unsigned)m->state >= ARRAY_COUNT(states) ||
	    m->trim.len > SEGMENT_BITMAP_BYTES || m->changed.len > SEGMENT_GROUPS_BYTES)
		return -EPROTO;
	io->length = m->length;
	io->state = states[m->state];
	io->sealed = m->sealed;
	io->last_crc = m->last_crc;
	io->last_seq = m->last_seq;
	io->fenced_epoch = m->fenced_epoch;
	io->lost_synced = m->lost_synced;
	io->trimmed = m->trimmed;
	io->present = m->present;
	if (io->free_bits) {
		memset(io->free_bits, 0, SEGMENT_BITMAP_BYTES);
		if (m->trim.len)
			memcpy(io->free_bits, m->trim.data, m->trim.len);
	}
	io->next = m->next;
	if (io->op == SEGMENT_LIST && io->changed) {
		io->index = m->index;
		io->change = m->change;
		memset(io->changed, 0, SEGMENT_GROUPS_BYTES);
		if (m->changed.len)
			memcpy(io->changed, m->changed.data, m->changed.len);
	}
	return 0;
}

void segment_wire_status(const Aquifer__Segment__Status *m, struct segment_status *ret)
{
	*ret = (struct segment_status){
		.map = m->map, .copies = m->copies, .unsealed = m->unsealed, .missing = m->missing, .missing_bytes = m->missing_bytes,
		.bytes_per_s = m->bytes_per_s, .misplaced = m->misplaced, .settled = m->settled, .held_rounds = m->held_rounds,
		.gc_rounds = m->gc_rounds, .gc_freed = m->gc_freed, .gc_freed_bytes = m->gc_freed_bytes, .gc_unanswered = m->gc_unanswered,
		.gc_refused = m->gc_refused,
	};
	memset(ret->held, 0xff, sizeof ret->held); /* of what it doesn't say, it may have some */
	if (m->held.len)
		memcpy(ret->held, m->held.data, MIN(m->held.len, sizeof ret->held));
}
