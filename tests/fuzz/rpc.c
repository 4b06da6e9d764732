/* The RPC against a peer that sends anything: the frame codec, the segment service's server, and a
 * client with calls under way. The world is a stub: one stream that yields the input, timers of
 * which only those without delay come.
 *
 * Input: a byte of mode (bit 0: we are the client; bit 1: no good greeting first; the rest: how
 * finely the stream is cut up), then frames:
 *
 *     | kind, 0x40: bad checksum, 0x80: raw | header bytes, 16 bits | payload bytes, 24 bits | header …
 *
 * The harness computes the checksum and supplies zeroes as payload, as a fuzzer wouldn't get
 * past the former and shouldn't waste its time on the latter. Raw: the bytes are sent as they are. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/env_ops.h"
#include "core/fiber.h"
#include "parallax/segment/segment_wire.h"
#include "server/server.h"

#define WIRE_MAX (512u << 10)
#define PAYLOAD_SUPPLIED_MAX (64u << 10)
#define CALLS 8

struct stub {
	struct env env;
	struct stream stream;
	bool client, greet, shut;
	size_t piece;
	uint8_t *wire;
	size_t wire_bytes, at;
	struct stream_io *receive;
	struct segment_server segments;
	unsigned answers;
	struct link due; /* timers */
};

static struct stub *stub_of(struct env *env)
{
	return container_of(env, struct stub, env);
}

/* ---- the world ---- */

static uint64_t stub_now(struct env *env)
{
	(void)env;
	return 1000;
}

static void stub_timer_start(struct env *env, struct timer *t, uint64_t delay_ns, struct job *parent)
{
	t->due_ns = stub_now(env) + delay_ns;
	t->parent = parent;
	if (delay_ns == 0)
		link_push(&stub_of(env)->due, &t->link);
}

static void stub_timer_cancel(struct env *env, struct timer *t)
{
	struct job *parent = t->parent;
	(void)env;
	link_drop(&t->link);
	t->parent = NULL;
	job_put(parent, -ECANCELED);
}

/* Runs everything; only timers of no delay ever come, when there is nothing else to do. */
static void stub_run(struct stub *s)
{
	struct link *l;
	do {
		loop_run_ready(&s->env.loop);
		if ((l = link_pop(&s->due))) {
			struct timer *t = container_of(l, struct timer, link);
			struct job *parent = t->parent;
			t->parent = NULL;
			job_put(parent, 0);
		}
	} while (l);
}

static int stub_connect(struct env *env, const char *address, uint64_t timeout_ns, struct stream **ret_stream)
{
	(void)address;
	(void)timeout_ns;
	*ret_stream = &stub_of(env)->stream;
	return 0;
}

static void stub_receive_end(struct stub *s, size_t done, int status)
{
	struct stream_io *io = s->receive;
	s->receive = NULL;
	io->done = done;
	io->status = status;
	job_put(io->parent, status);
}

static void stub_recv(struct stream *stream, struct stream_io *io, struct job *parent)
{
	struct stub *s = stub_of(stream->env);
	(void)parent;
	assert(!s->receive);
	s->receive = io;
	size_t room = iov_bytes(io->iov, io->iov_count), n = MAX(s->piece, io->minimum);
	assert(io->minimum > 0 && io->minimum <= room);
	n = MIN(MIN(n, room), s->wire_bytes - s->at);
	if (s->shut)
		n = 0;
	iov_scatter(io->iov, io->iov_count, 0, s->wire + s->at, n);
	s->at += n;
	stub_receive_end(s, n, n < io->minimum ? -ECONNRESET : 0);
}

static void stub_send(struct stream *stream, struct stream_io *io, struct job *parent)
{
	(void)io;
	job_put(parent, stub_of(stream->env)->shut ? -ECONNRESET : 0);
}

static void stub_shutdown(struct stream *stream)
{
	stub_of(stream->env)->shut = true;
}

static void stub_close(struct stream *stream)
{
	assert(stub_of(stream->env)->shut);
}

static uint32_t stub_peer_uid(struct stream *stream)
{
	(void)stream;
	return 0;
}

static const struct env_ops stub_ops = {
	.now_ns = stub_now,
	.random = stub_now,
	.timer_start = stub_timer_start,
	.timer_cancel = stub_timer_cancel,
	.stream_connect = stub_connect,
	.stream_recv = stub_recv,
	.stream_send = stub_send,
	.stream_shutdown = stub_shutdown,
	.stream_close = stub_close,
	.stream_peer_uid = stub_peer_uid,
};

/* Segments that have everything, and refuse now and then. */
static void stub_submit(struct segment_server *segments, struct segment_io *io)
{
	struct stub *s = container_of(segments, struct stub, segments);
	assert(io->segment != 0 && io->segment >> 48 == 0);
	assert(io->block <= SEGMENT_BLOCKS_MAX && io->block + (uint64_t)io->iov_count <= SEGMENT_BLOCKS_MAX);
	if (io->op == SEGMENT_READ || io->op == SEGMENT_APPEND || io->op == SEGMENT_REPAIR)
		assert(iov_bytes(io->iov, io->iov_count) == (uint64_t)io->blocks * BLOCK_BYTES);
	else
		assert(io->iov_count == 0);
	if (io->op == SEGMENT_TRIM)
		assert(io->blocks && io->blocks <= SEGMENT_BLOCKS_MAX);
	if (io->op == SEGMENT_READ)
		iov_zero(io->iov, io->iov_count, 0, (uint64_t)io->blocks * BLOCK_BYTES);
	for (uint32_t i = 0; io->op == SEGMENT_TRIM && i < div_up(io->blocks, 8); i++)
		io->trimmed += io->trim[i] & 1;
	io->length = io->block;
	io->status = s->answers++ % 5 == 4 ? -EPERM : 0;
	job_put(io->parent, io->status);
}

static int stub_segments_close(struct segment_server *s)
{
	(void)s;
	return 0;
}

static const struct segment_server_ops stub_segment_ops = { .submit = stub_submit, .close = stub_segments_close };

/* ---- the wire ---- */

static void wire_put(struct stub *s, const void *bytes, size_t n)
{
	n = MIN(n, WIRE_MAX - s->wire_bytes);
	if (bytes)
		memcpy(s->wire + s->wire_bytes, bytes, n);
	else
		memset(s->wire + s->wire_bytes, 0, n);
	s->wire_bytes += n;
}

static void wire_put_greeting(struct stub *s)
{
	uint8_t b[128];
	Aquifer__Envelope e = AQUIFER__ENVELOPE__INIT;
	Aquifer__Hello h = AQUIFER__HELLO__INIT;
	h.service = (char *)SEGMENT_SERVICE;
	h.protocol_oldest = h.protocol = RPC_PROTOCOL;
	h.in_flight = CALLS;
	frame_encode(s->client ? FRAME_REPLY : FRAME_HELLO, &e, &h.base, 0, b);
	frame_seal(b, 1);
	wire_put(s, b, frame_bytes(&e, &h.base));
}

static void wire_put_frames(struct stub *s, const uint8_t *p, size_t n)
{
	Aquifer__Envelope empty = AQUIFER__ENVELOPE__INIT;
	while (n >= 6) {
		uint8_t kind = p[0];
		uint32_t header = get_le16(p + 1), payload = get_le32(p + 2) >> 8;
		p += 6;
		n -= 6;
		header = (uint32_t)MIN(header, n);
		if (kind & 0x80) {
			wire_put(s, p, header);
		} else {
			uint8_t prefix[FRAME_PREFIX_BYTES + 64];
			frame_encode(FRAME_CALL, &empty, NULL, 0, prefix); /* for the magic */
			prefix[6] = kind & 0x3f;
			put_le32(prefix + 8, header);
			put_le32(prefix + 12, payload);
			uint32_t crc = crc32c(crc32c(0, prefix, 16), p, header);
			put_le32(prefix + 16, kind & 0x40 ? ~crc : crc);
			wire_put(s, prefix, FRAME_PREFIX_BYTES);
			wire_put(s, p, header);
			wire_put(s, NULL, MIN(payload, PAYLOAD_SUPPLIED_MAX));
		}
		p += header;
		n -= header;
	}
	wire_put(s, p, n);
}

/* ---- both sides ---- */

static int serve(void *arg)
{
	struct stub *s = arg;
	struct server *server;
	struct server_limits limits = { .in_flight = 4, .pool_bytes = 1 };
	assert(server_create(&s->env, &s->segments, &limits, &server) == 0);
	assert(rpc_server_adopt(server_rpc(server), &s->stream) == 0);
	while (rpc_server_connections(server_rpc(server)) > 0 && s->at < s->wire_bytes && !s->shut)
		fiber_sleep(&s->env.loop, 0);
	server_stop(server, 0);
	return 0;
}

static int call(void *arg)
{
	struct stub *s = arg;
	struct rpc_client *c;
	struct rpc_client_options o = { .service = SEGMENT_SERVICE, .in_flight = CALLS };
	static uint8_t page[CALLS][2 * BLOCK_BYTES];
	struct rpc_call calls[CALLS];
	struct iovec to[CALLS][2];
	struct job all;
	if (rpc_connect(&s->env, "stub:", &o, &c, NULL) < 0)
		return 0;
	job_init(&all, &s->env.loop);
	for (unsigned i = 0; i < CALLS; i++) {
		to[i][0] = (struct iovec){ page[i], 100 };
		to[i][1] = (struct iovec){ page[i] + 100, sizeof page[i] - 100 };
		rpc_call_init(&calls[i], i + 1, NULL, i & 1 ? &aquifer__segment__info__descriptor : &aquifer__segment__reply__descriptor);
		calls[i].reply_payload = to[i];
		calls[i].reply_payload_count = (int)i % 3;
		rpc_submit(c, &calls[i], &all);
	}
	fiber_wait(&all); /* they all end, by answers or with the stream */
	for (unsigned i = 0; i < CALLS; i++) {
		struct segment_io io = { 0 };
		if (calls[i].reply && !(i & 1))
			segment_wire_result((const Aquifer__Segment__Reply *)calls[i].reply, &io);
		rpc_call_clean(&calls[i]);
	}
	rpc_close(c);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stub s = { .env.ops = &stub_ops, .stream.env = &s.env };
	if (size < 1)
		return 0;
	s.client = data[0] & 1;
	s.greet = !(data[0] & 2);
	s.piece = (size_t)1 << (data[0] >> 2 & 31) % 18;
	s.segments = (struct segment_server){ .ops = &stub_segment_ops, .env = &s.env };
	s.wire = malloc(WIRE_MAX);
	loop_init(&s.env.loop, &s.env);
	link_init(&s.due);
	if (s.greet)
		wire_put_greeting(&s);
	wire_put_frames(&s, data + 1, size - 1);
	struct job done;
	job_init(&done, &s.env.loop);
	job_hold(&done);
	if (fiber_start(&s.env.loop, s.client ? call : serve, &s, &done) < 0)
		abort();
	stub_run(&s);
	assert(done.pending == 1); /* whatever came, it is over */
	free(s.wire);
	return 0;
}
