/* One connection's frames in and out: what the RPC client and server have in common.
 *
 * Receiving: frames are taken from a buffer that one receive may fill with several; the
 * rest of a large payload is received straight into the place that header() named.
 *
 *     ┌─▶ receive ─▶ header() ─▶ payload … ─▶ frame() ─┐
 *     └───────────────────────◀────────────────────────┘   header() = -EAGAIN: paused, until channel_resume()
 *
 * The end: whoever notices (a receive or send fails, the peer lies, the owner wants it) calls
 * channel_down(); down() is called once; idle() follows once nothing is under way any
 * more: only then may buffers given by header() be touched, and channel_destroy() be called. */
#ifndef AQ_CHANNEL_H
#define AQ_CHANNEL_H
#include "core/env.h"
#include "proto/frame.h"
#include "proto/tls.h"

enum {
	CHANNEL_IOV = 64,          /* places that one receive fills */
	CHANNEL_RX_BYTES = 96 << 10, /* receive buffer: the longest header, and some */
	CHANNEL_AHEAD_BYTES = 32 << 10, /* asked for beyond what is needed: more means more to copy, less more system calls */
	CHANNEL_INLINE_BYTES = 448,  /* frames up to this (without payload) cost no malloc */
};

struct channel;
struct channel_ops {
	/* A header has come. 0: take the payload to channel_payload_to(), or throw it away; -EAGAIN: ask again
	 * after channel_resume(); other: the peer is wrong, the channel goes down. */
	int (*header)(struct channel *c, const struct frame *f);
	/* The payload has come too. */
	void (*frame)(struct channel *c);
	void (*down)(struct channel *c, int status);
	void (*idle)(struct channel *c);
};

struct channel {
	struct env *env;
	struct stream *stream; /* NULL: tls */
	struct tls *tls;       /* NULL: plain text */
	const struct channel_ops *ops;
	uint64_t received_ns; /* when bytes last came */
	uint64_t sent_ns;     /* when a frame was last sent, or the first of the queue was queued */
	unsigned sending;     /* frames under way */
	bool down;
	/* private */
	bool receiving, paused, in_payload;
	struct job job;
	struct stream_io io;
	struct iovec iov[CHANNEL_IOV];
	uint64_t direct;      /* bytes of the receive under way that go to `to` */
	uint8_t *rx;
	size_t start, end, need;
	const struct iovec *to;
	int to_count;
	uint64_t to_bytes, to_done;
};

/* One frame to send, embedded in a call or request. */
struct channel_send {
	struct channel *channel;
	void (*done)(struct channel_send *s, int status);
	bool active;
	struct job job;
	struct stream_io head_io, payload_io;
	struct iovec head;
	uint8_t *bytes;       /* inline_bytes, or malloc'd */
	uint8_t inline_bytes[CHANNEL_INLINE_BYTES];
};

/* Takes over the stream, or the TLS connection (one of the two is NULL; channel_destroy closes it). 0 or -ENOMEM, then it is still
 * the caller's. */
int channel_init(struct channel *c, struct env *env, struct stream *stream, struct tls *tls, const struct channel_ops *ops);
/* Begins to receive. */
void channel_start(struct channel *c);
/* From within header(): where the payload goes; sums to at least its bytes; borrowed until frame() or idle(). */
void channel_payload_to(struct channel *c, const struct iovec *iov, int count);
void channel_resume(struct channel *c);
/* Ends everything with `status`; no effect the second time. */
void channel_down(struct channel *c, int status);
/* After idle(). */
void channel_destroy(struct channel *c);

void channel_send_init(struct channel_send *s);
/* Packs a frame. 0, -EMSGSIZE (header or payload too long) or -ENOMEM. */
int channel_send_pack(struct channel_send *s, enum frame_kind kind, const Aquifer__Envelope *e,
		      const ProtobufCMessage *body, uint64_t payload_bytes);
/* Sends what was packed as `id`, and the payload (borrowed until done). `done` is called from a job, not from
 * here. Not when the channel is down. */
void channel_send(struct channel *c, struct channel_send *s, uint64_t id, const struct iovec *payload, int count,
		  void (*done)(struct channel_send *s, int status));
void channel_send_clean(struct channel_send *s);
#endif
