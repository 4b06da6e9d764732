#include "proto/frame.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/bytes.h"
#include "core/crc.h"
#include "core/plant.h"

#define MAGIC 0x52505141u /* "AQPR" */

enum {
	AT_MAGIC = 0,
	AT_VERSION = 4,
	AT_KIND = 6,
	AT_ZERO = 7,
	AT_HEADER_BYTES = 8,
	AT_PAYLOAD_BYTES = 12,
	AT_CRC = 16,
};

/* The envelope's id: field 1, fixed64, always written first. */
enum { ID_TAG = 0x09, AT_ID = FRAME_PREFIX_BYTES + 1, ID_BYTES = 9 };
/* The envelope's body: field 6, length-delimited, always written last. */
enum { BODY_TAG = 0x32 };

static uint32_t frame_crc(const uint8_t *p, uint32_t header_bytes)
{
	return crc32c(crc32c(0, p, AT_CRC), p + FRAME_PREFIX_BYTES, header_bytes);
}

int frame_decode(const void *buffer, size_t length, struct frame *ret_frame, size_t *ret_need)
{
	const uint8_t *p = buffer;
	*ret_need = FRAME_PREFIX_BYTES;
	if (length < FRAME_PREFIX_BYTES)
		return -EAGAIN;
	if (get_le32(p + AT_MAGIC) != MAGIC)
		return -EBADMSG;
	if (get_le16(p + AT_VERSION) != FRAME_VERSION)
		return -EPROTONOSUPPORT;
	if (p[AT_KIND] < FRAME_HELLO || p[AT_KIND] > FRAME_CANCEL || p[AT_ZERO] != 0)
		return -EBADMSG;
	uint32_t header_bytes = get_le32(p + AT_HEADER_BYTES), payload_bytes = get_le32(p + AT_PAYLOAD_BYTES);
	if (header_bytes > FRAME_HEADER_MAX || payload_bytes > FRAME_PAYLOAD_MAX)
		return -EMSGSIZE;
	*ret_need = FRAME_PREFIX_BYTES + header_bytes;
	if (length < *ret_need)
		return -EAGAIN;
	if (get_le32(p + AT_CRC) != frame_crc(p, header_bytes) && !PLANTED(frame_no_crc))
		return -EBADMSG;
	*ret_frame = (struct frame){
		.kind = p[AT_KIND],
		.header_bytes = header_bytes,
		.payload_bytes = payload_bytes,
		.header = p + FRAME_PREFIX_BYTES,
	};
	return 0;
}

static size_t varint_bytes(size_t v)
{
	size_t n = 1;
	for (; v >= 0x80; v >>= 7)
		n++;
	return n;
}

static uint8_t *varint_put(uint8_t *p, size_t v)
{
	for (; v >= 0x80; v >>= 7)
		*p++ = (uint8_t)(v | 0x80);
	*p++ = (uint8_t)v;
	return p;
}

/* The envelope without id and body, which frame_encode() places itself. */
static Aquifer__Envelope middle(const Aquifer__Envelope *e)
{
	Aquifer__Envelope m = *e;
	m.id = 0;
	m.body = (ProtobufCBinaryData){ 0 };
	return m;
}

size_t frame_bytes(const Aquifer__Envelope *e, const ProtobufCMessage *body)
{
	Aquifer__Envelope m = middle(e);
	size_t n = FRAME_PREFIX_BYTES + ID_BYTES + aquifer__envelope__get_packed_size(&m);
	size_t body_bytes = body ? protobuf_c_message_get_packed_size(body) : 0;
	return body_bytes ? n + 1 + varint_bytes(body_bytes) + body_bytes : n;
}

void frame_encode(enum frame_kind kind, const Aquifer__Envelope *e, const ProtobufCMessage *body,
		  uint32_t payload_bytes, void *buffer)
{
	Aquifer__Envelope m = middle(e);
	uint8_t *p = buffer, *q = p + FRAME_PREFIX_BYTES;
	assert(payload_bytes <= FRAME_PAYLOAD_MAX);
	*q = ID_TAG;
	memset(q + 1, 0, 8);
	q += ID_BYTES;
	q += aquifer__envelope__pack(&m, q);
	size_t body_bytes = body ? protobuf_c_message_get_packed_size(body) : 0;
	if (body_bytes) { /* as protobuf has it: what is empty isn't there */
		*q++ = BODY_TAG;
		q = varint_put(q, body_bytes);
		q += protobuf_c_message_pack(body, q);
	}
	size_t header_bytes = (size_t)(q - p) - FRAME_PREFIX_BYTES;
	assert(header_bytes <= FRAME_HEADER_MAX);
	put_le32(p + AT_MAGIC, MAGIC);
	put_le16(p + AT_VERSION, FRAME_VERSION);
	p[AT_KIND] = (uint8_t)kind;
	p[AT_ZERO] = 0;
	put_le32(p + AT_HEADER_BYTES, (uint32_t)header_bytes);
	put_le32(p + AT_PAYLOAD_BYTES, payload_bytes);
	put_le32(p + AT_CRC, 0);
}

void frame_seal(void *buffer, uint64_t id)
{
	uint8_t *p = buffer;
	assert(id != 0 && p[FRAME_PREFIX_BYTES] == ID_TAG);
	put_le64(p + AT_ID, id);
	put_le32(p + AT_CRC, frame_crc(p, get_le32(p + AT_HEADER_BYTES)));
}

Aquifer__Envelope *frame_envelope(const struct frame *f, ProtobufCAllocator *allocator)
{
	Aquifer__Envelope *e = aquifer__envelope__unpack(allocator, f->header_bytes, f->header);
	if (e && e->id == 0) {
		aquifer__envelope__free_unpacked(e, allocator);
		return NULL;
	}
	return e;
}
