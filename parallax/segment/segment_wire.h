/* Segment operations as messages of proto/segment.proto, for both ends of the wire. Codecs
 * only. The server's half takes nothing for granted: what it returns is within the
 * limits that segment.h's implementations assert. */
#ifndef AQ_SEGMENT_WIRE_H
#define AQ_SEGMENT_WIRE_H
#include "parallax/segment/segment.h"
#include "proto/segment.pb-c.h"

#define SEGMENT_SERVICE "segment"

/* A request message and what it points to. Must not move once filled. */
struct segment_request {
	Aquifer__Segment__Request message;
	Aquifer__Segment__Header header;
};

Aquifer__Segment__Method segment_wire_method(enum segment_op op);
/* 0 or -ENOSYS. */
int segment_wire_op(uint32_t method, enum segment_op *ret_op);
void segment_wire_request(const struct segment_io *io, struct segment_request *ret);
/* Fills what is asked (op, segment … header), not the iovec; `trim` points into the message. 0, or -EINVAL with a sentence. `payload_bytes`: what came
 * with it; `reply_limit`: what the caller has room for. */
int segment_wire_parse(uint32_t method, const Aquifer__Segment__Request *m, uint64_t payload_bytes,
		       uint64_t reply_limit, struct segment_io *ret_io, const char **ret_why);
void segment_wire_reply(const struct segment_io *io, Aquifer__Segment__Reply *ret);
/* 0 or -EPROTO. */
int segment_wire_result(const Aquifer__Segment__Reply *m, struct segment_io *io);
void segment_wire_status(const Aquifer__Segment__Status *m, struct segment_status *ret);
#endif
