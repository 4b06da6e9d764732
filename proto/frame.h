/* The codec of RPC frames: buffer in, struct or error out; no I/O.
 *
 *   0       4        6      7  8             12              16      20
 *   | magic | version| kind |0 | header bytes | payload bytes | crc32c | header … | payload …
 *
 * All numbers are little-endian. The checksum covers the prefix up to itself and the
 * header; a payload brings its own checks with it (records have a CRC per block). Every
 * length is checked against the limits below before anything is allocated or awaited. */
#ifndef AQ_FRAME_H
#define AQ_FRAME_H
#include <stddef.h>
#include <stdint.h>

#include "proto/aquifer.pb-c.h"

enum {
	FRAME_PREFIX_BYTES = 20,
	FRAME_VERSION = 1,
	FRAME_HEADER_MAX = 64 << 10,
	FRAME_PAYLOAD_MAX = (4 << 20) + (64 << 10), /* a record, and some */
};

enum frame_kind {
	FRAME_HELLO = 1, /* the first call of a connection */
	FRAME_CALL,
	FRAME_REPLY,     /* to any of the others */
	FRAME_PING,      /* a call that the RPC layer answers itself */
	FRAME_CANCEL,    /* the call with this id needs no answer any more; from protocol 2 on; not answered itself */
};

struct frame {
	enum frame_kind kind;
	uint32_t header_bytes, payload_bytes;
	const uint8_t *header; /* borrowed from the buffer that was decoded */
};

/* Decodes prefix and header. 0; -EAGAIN: *ret_need bytes are needed in all; -EBADMSG: not a frame, or
 * damaged; -EPROTONOSUPPORT: a newer version of this layout; -EMSGSIZE: longer than allowed. */
int frame_decode(const void *buffer, size_t length, struct frame *ret_frame, size_t *ret_need);

/* Bytes of prefix and header for an envelope (its `body` is ignored) and a body (may be NULL). */
size_t frame_bytes(const Aquifer__Envelope *e, const ProtobufCMessage *body);
/* Writes frame_bytes() bytes, all but id and checksum; the caller has checked that they are at most
 * FRAME_PREFIX_BYTES + FRAME_HEADER_MAX, and `payload_bytes` at most FRAME_PAYLOAD_MAX. */
void frame_encode(enum frame_kind kind, const Aquifer__Envelope *e, const ProtobufCMessage *body,
		  uint32_t payload_bytes, void *buffer);
/* Completes an encoded frame: id (not 0) and checksum. */
void frame_seal(void *buffer, uint64_t id);
/* Unpacks the envelope from `allocator`. NULL: not one, or id 0. */
Aquifer__Envelope *frame_envelope(const struct frame *f, ProtobufCAllocator *allocator);
#endif
