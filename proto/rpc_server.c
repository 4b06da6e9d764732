/* The server's side. A peer (connection) says hello first, then sends calls; each becomes an
 * rpc_request, which lives until its reply has been handed to the kernel:
 *
 *     header ─▶ buffers reserved (payload and room for the reply's) ─▶ payload received ─▶ handle()
 *            ─▶ rpc_reply() ─▶ sent ─▶ released
 *
 * Back-pressure: when a peer has too many requests under way, or the pool of payload
 * buffers has none left for it, its header isn't taken and receiving pauses; the peers
 * wait for the pool in order. A request reserves all it needs at once and never waits for more, so
 * requests can't wait for one another. One peer may have half of the pool.
 *
 * A peer that is silent, doesn't take its replies, or breaks the protocol is closed; its requests
 * are still answered by the handler, into nothing. Peers that haven't said hello take nobody's place: they have what the others
 * leave, and when that is all taken one of them goes (core/strangers.h). */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "core/version.h"
#include "core/plant.h"
#include "core/strangers.h"
#include "proto/door.h"
#include "proto/rpc.h"

#define CONNECTIONS_SPARE 8u /* taken beyond the limit: who says hello there is told so */
#define IN_FLIGHT_DEFAULT 256u
#define POOL_DEFAULT (UINT64_C(64) << 20)
#define GREETING_NS (10 * NS_PER_S)
#define LINGER_POLL_NS (10 * NS_PER_MS)

struct rpc_server {
	struct env *env;
	struct rpc_server_options options;
	struct listener *listener;
	struct door *door;          /* NULL: plain text */
	struct link peers, waiting; /* waiting: peers paused for the pool, in order */
	struct strangers strangers; /* peers that haven't said hello, and weren't told to go */
	unsigned peer_count, greeted_count;
	struct pool pool;
	bool closing, accepting;
	struct fiber_cond changed;  /* accepting, peer_count, requests under way */
	struct timer clock;
	struct job clock_job;
	bool clock_running, clock_graced;
};

struct rpc_peer {
	struct rpc_server *server;
	struct channel channel;
	struct link link, waiting;
	struct stranger stranger;
	bool greeted, idle, refused;
	uint64_t last_id, opened_ns, pool_used;
	unsigned in_flight;
	uint32_t uid;
	uint32_t protocol;           /* spoken with it, once greeted */
	struct rpc_request *current; /* being received */
	struct link open, spare;     /* requests without a reply; for reuse */
};

static void peer_free_maybe(struct rpc_peer *p);
static void server_wake_waiting(struct rpc_server *s);

/* ---- requests ---- */

static struct rpc_request *request_get(struct rpc_peer *p)
{
	struct link *l = link_pop(&p->spare);
	struct rpc_request *r = l ? container_of(l, struct rpc_request, link) : malloc(sizeof *r);
	if (!r)
		return NULL;
	memset(r, 0, offsetof(struct rpc_request, send));
	link_init(&r->link);
	channel_send_init(&r->send);
	arena_init(&r->arena);
	r->peer = p;
	r->peer_uid = p->uid;
	r->who = p->channel.tls ? &p->channel.tls->peer : NULL;
	return r;
}

static void request_put_buffers(struct rpc_request *r)
{
	struct rpc_peer *p = r->peer;
	pool_put(&p->server->pool, &r->payload_buffer);
	pool_put(&p->server->pool, &r->reply_buffer);
	pool_put(&p->server->pool, &r->head_buffer);
	p->pool_used -= r->cost;
	r->cost = 0;
}

/* The request is over, sent or not: everything goes back, and whoever waited for it goes on. */
static void request_free(struct rpc_request *r)
{
	struct rpc_peer *p = r->peer;
	struct rpc_server *s = p->server;
	if (r->released)
		r->released(r);
	channel_send_clean(&r->send);
	arena_reset(&r->arena);
	request_put_buffers(r);
	link_push(&p->spare, &r->link);
	server_wake_waiting(s);
	channel_resume(&p->channel);
}

static void request_sent(struct channel_send *send, int status)
{
	struct rpc_request *r = container_of(send, struct rpc_request, send);
	struct rpc_peer *p = r->peer;
	(void)status; /* a failed send ends the connection */
	assert(p->in_flight > 0);
	p->in_flight--;
	request_free(r);
	if (p->refused && p->in_flight == 0)
		channel_down(&p->channel, -ECONNREFUSED);
	fiber_cond_wake(&p->server->changed);
	peer_free_maybe(p);
}

ProtobufCMessage *rpc_request_body(struct rpc_request *r, const ProtobufCMessageDescriptor *type)
{
	return protobuf_c_message_unpack(type, &r->arena.allocator, r->body.len, r->body.data);
}

static int request_pack(struct rpc_request *r, int status, const char *text, const ProtobufCMessage *message,
			uint64_t payload_bytes)
{
	Aquifer__Envelope e = AQUIFER__ENVELOPE__INIT;
	e.status = status;
	if (text && status < 0)
		e.text = (char *)(uintptr_t)text;
	return channel_send_pack(&r->send, FRAME_REPLY, &e, message, payload_bytes);
}

void rpc_reply(struct rpc_request *r, int status, const char *text, const ProtobufCMessage *message,
	       const struct iovec *payload, int payload_count)
{
	struct rpc_peer *p = r->peer;
	assert(!r->replied && status <= 0);
	r->replied = true;
	link_drop(&r->link);
	if (r->canceled) { /* it is answered all the same, for the client's slot, but nobody will look at it */
		status = -ECANCELED;
		text = NULL;
		message = NULL;
		payload_count = 0;
	}
	uint64_t payload_bytes = iov_bytes(payload, payload_count);
	assert(payload_bytes <= r->reply_limit);
	int failed = p->channel.down ? -ENOTCONN : request_pack(r, status, text, message, payload_bytes);
	if (failed == -EMSGSIZE) { /* our answer is too long: say so, rather than nothing */
		payload_count = 0;
		failed = request_pack(r, -EMSGSIZE, "the answer is longer than a reply can be", NULL, 0);
	}
	if (failed == 0) {
		channel_send(&p->channel, &r->send, r->id, payload, payload_count, request_sent);
		return;
	}
	channel_down(&p->channel, failed);
	request_sent(&r->send, failed);
}

void rpc_reply_bytes(struct rpc_request *r, const ProtobufCMessage *message, uint32_t bytes)
{
	assert(bytes <= r->reply_limit);
	r->reply_iov = (struct iovec){ r->reply_payload, bytes };
	rpc_reply(r, 0, NULL, message, &r->reply_iov, bytes ? 1 : 0);
}

/* ---- buffers ---- */

/* All that the request needs, or nothing: 0, -EAGAIN (the peer waits; it is resumed), -ENOMEM. `head_bytes`: what the
 * header's message needs beyond what a request can hold itself. */
static int request_reserve(struct rpc_request *r, size_t payload_bytes, size_t reply_bytes, size_t head_bytes)
{
	struct rpc_peer *p = r->peer;
	struct rpc_server *s = p->server;
	uint64_t cost = pool_cost(payload_bytes) + pool_cost(reply_bytes) + pool_cost(head_bytes);
	if (cost == 0)
		return 0;
	if (p->pool_used > 0 && p->pool_used + cost > s->pool.limit / 2)
		return -EAGAIN; /* resumed when a request of its own is released */
	bool turn = link_empty(&s->waiting) || s->waiting.next == &p->waiting;
	int status = turn ? pool_get(&s->pool, payload_bytes, &r->payload_buffer) : -EAGAIN;
	if (status == 0)
		status = pool_get(&s->pool, reply_bytes, &r->reply_buffer);
	if (status == 0)
		status = pool_get(&s->pool, head_bytes, &r->head_buffer);
	if (status == 0) {
		r->cost = cost;
		p->pool_used += cost;
		link_drop(&p->waiting);
		server_wake_waiting(s); /* there may be enough for the next one too */
		return 0;
	}
	request_put_buffers(r);
	if (status == -EAGAIN && link_empty(&p->waiting))
		link_push(&s->waiting, &p->waiting);
	return status;
}

static void server_wake_waiting(struct rpc_server *s)
{
	if (!link_empty(&s->waiting) && !PLANTED(rpc_pool_no_wake))
		channel_resume(&container_of(s->waiting.next, struct rpc_peer, waiting)->channel);
}

/* ---- receiving ---- */

/* Keeps the message until the handler unpacks it: the receive buffer will be reused. */
static void request_keep_body(struct rpc_request *r, const ProtobufCBinaryData *body)
{
	r->body.len = body->len;
	r->body.data = r->head_buffer.bytes ? r->head_buffer.bytes : r->arena.allocator.alloc(&r->arena, body->len);
	if (body->len > 0)
		memcpy(r->body.data, body->data, body->len);
}

static int request_begin(struct rpc_request *r, const struct frame *f, const Aquifer__Envelope *e)
{
	size_t head_bytes = e->body.len > ARENA_INLINE_BYTES / 4 ? e->body.len : 0;
	int status = request_reserve(r, f->payload_bytes, e->reply_limit, head_bytes);
	if (status < 0)
		return status;
	request_keep_body(r, &e->body);
	r->method = e->method;
	r->id = e->id;
	r->payload = r->payload_buffer.bytes;
	r->payload_bytes = f->payload_bytes;
	r->reply_payload = r->reply_buffer.bytes;
	r->reply_limit = e->reply_limit;
	r->payload_iov = (struct iovec){ r->payload, r->payload_bytes };
	if (r->payload_bytes)
		channel_payload_to(&r->peer->channel, &r->payload_iov, 1);
	return 0;
}

static int peer_header_call(struct rpc_peer *p, const struct frame *f, const Aquifer__Envelope *e)
{
	bool call = f->kind == FRAME_CALL;
	if ((e->id <= p->last_id && !PLANTED(rpc_replay)) || e->reply_limit > FRAME_PAYLOAD_MAX || (f->kind == FRAME_HELLO) == p->greeted)
		return -EPROTO;
	if (!call && (f->payload_bytes || e->reply_limit))
		return -EPROTO;
	if (p->server->closing && call)
		return -EAGAIN; /* never taken: the client sees the connection end */
	/* a hello and a ping don't count, but can't be many either */
	if (p->in_flight >= p->server->options.in_flight + (call ? 0 : 1))
		return -EAGAIN;
	struct rpc_request *r = request_get(p);
	if (!r)
		return -ENOMEM;
	int status = request_begin(r, f, e);
	if (status < 0) {
		arena_reset(&r->arena);
		link_push(&p->spare, &r->link);
		return status;
	}
	p->last_id = e->id;
	p->current = r;
	return 0;
}

/* A call that was answered meanwhile is none any more, so an id that isn't found is nothing unusual. */
static int peer_header_cancel(struct rpc_peer *p, const struct frame *f, const Aquifer__Envelope *e)
{
	if (p->protocol < RPC_PROTOCOL_CANCEL || f->payload_bytes || e->reply_limit || e->id > p->last_id)
		return -EPROTO;
	link_for (l, &p->open) {
		struct rpc_request *r = container_of(l, struct rpc_request, link);
		r->canceled |= r->id == e->id && r->kind == FRAME_CALL;
	}
	return 0;
}

static int peer_header(struct channel *c, const struct frame *f)
{
	struct rpc_peer *p = container_of(c, struct rpc_peer, channel);
	if (f->kind == FRAME_REPLY || p->refused)
		return -EPROTO;
	struct arena arena;
	arena_init(&arena);
	Aquifer__Envelope *e = frame_envelope(f, &arena.allocator);
	int status = !e ? -EPROTO : f->kind == FRAME_CANCEL ? peer_header_cancel(p, f, e) : peer_header_call(p, f, e);
	if (status == 0 && p->current)
		p->current->kind = f->kind;
	arena_reset(&arena);
	return status;
}

/* ---- what the RPC layer answers itself ---- */

static void peer_refuse(struct rpc_request *r, int status, const char *text)
{
	r->peer->refused = true; /* closed when this has been sent */
	rpc_reply(r, status, text, NULL, NULL, 0);
}

static void peer_hello(struct rpc_request *r)
{
	struct rpc_peer *p = r->peer;
	const struct rpc_server_options *o = &p->server->options;
	Aquifer__Hello *h = (Aquifer__Hello *)rpc_request_body(r, &aquifer__hello__descriptor);
	char text[256];
	if (!h) {
		peer_refuse(r, -EBADMSG, "that is no greeting");
		return;
	}
	if (p->server->greeted_count >= o->connections_max) {
		peer_refuse(r, -EBUSY, "the server has as many connections as it takes");
		return;
	}
	if (strcmp(h->service, o->service) != 0) {
		snprintf(text, sizeof text, "this is a server for \"%s\", not for \"%.64s\"", o->service, h->service);
		peer_refuse(r, -EPROTONOSUPPORT, text);
		return;
	}
	if (h->protocol < o->protocol_oldest || h->protocol_oldest > o->protocol ||
	    h->protocol_oldest > h->protocol) {
		snprintf(text, sizeof text,
			 "the server speaks versions %u to %u of the protocol, the client %u to %u (upgrade the older)",
			 o->protocol_oldest, o->protocol, h->protocol_oldest, h->protocol);
		peer_refuse(r, -EPROTONOSUPPORT, text);
		return;
	}
	Aquifer__Hello answer = AQUIFER__HELLO__INIT;
	answer.service = (char *)(uintptr_t)o->service;
	p->protocol = MIN(h->protocol, o->protocol);
	answer.protocol = answer.protocol_oldest = p->protocol;
	answer.in_flight = o->in_flight;
	answer.payload_limit = FRAME_PAYLOAD_MAX;
	answer.software = (char *)(uintptr_t)"aquifer " AQ_VERSION;
	p->greeted = true;
	p->server->greeted_count++;
	strangers_leave(&p->server->strangers, &p->stranger);
	rpc_reply(r, 0, NULL, &answer.base, NULL, 0);
}

static int request_run(void *arg)
{
	struct rpc_request *r = arg;
	struct rpc_server *s = r->peer->server;
	s->options.handle(s->options.arg, r);
	return 0;
}

static void peer_frame(struct channel *c)
{
	struct rpc_peer *p = container_of(c, struct rpc_peer, channel);
	struct rpc_server *s = p->server;
	struct rpc_request *r = p->current;
	if (!r)
		return; /* a cancel */
	p->current = NULL;
	p->in_flight++;
	link_push(&p->open, &r->link);
	if (r->kind == FRAME_HELLO)
		peer_hello(r);
	else if (r->kind == FRAME_PING)
		rpc_reply(r, 0, NULL, NULL, NULL, 0);
	else if (!s->options.in_fiber)
		s->options.handle(s->options.arg, r);
	else if (fiber_start(&s->env->loop, request_run, r, NULL) < 0)
		rpc_reply(r, -ENOMEM, NULL, NULL, NULL, 0);
}

/* ---- the end of a connection ---- */

static void peer_down(struct channel *c, int status)
{
	struct rpc_peer *p = container_of(c, struct rpc_peer, channel);
	(void)status;
	if (!link_empty(&p->waiting)) {
		link_drop(&p->waiting);
		server_wake_waiting(p->server);
	}
}

static void peer_idle(struct channel *c)
{
	struct rpc_peer *p = container_of(c, struct rpc_peer, channel);
	p->idle = true;
	if (p->current) {
		struct rpc_request *r = p->current;
		p->current = NULL;
		request_free(r);
	}
	peer_free_maybe(p);
}

static const struct channel_ops peer_channel_ops = {
	.header = peer_header,
	.frame = peer_frame,
	.down = peer_down,
	.idle = peer_idle,
};

static void peer_free_maybe(struct rpc_peer *p)
{
	struct rpc_server *s = p->server;
	if (!p->idle || p->in_flight > 0)
		return;
	assert(p->pool_used == 0 && link_empty(&p->waiting));
	for (struct link *l; (l = link_pop(&p->spare));)
		free(container_of(l, struct rpc_request, link));
	channel_destroy(&p->channel);
	link_drop(&p->link);
	strangers_leave(&s->strangers, &p->stranger);
	s->peer_count--;
	s->greeted_count -= p->greeted;
	free(p);
	fiber_cond_wake(&s->changed);
}

/* ---- listening ---- */

/* There is a place for one more, or somebody is on his way out for it. */
static bool server_room(struct rpc_server *s)
{
	struct stranger *out = strangers_excess(&s->strangers);
	if (s->peer_count < s->options.connections_max + CONNECTIONS_SPARE)
		return true;
	if (!out)
		return false;
	strangers_leave(&s->strangers, out);
	channel_down(&container_of(out, struct rpc_peer, stranger)->channel, -EBUSY);
	return true;
}

/* Takes the stream or the TLS connection over. */
static int peer_new(struct rpc_server *s, struct stream *stream, struct tls *tls)
{
	struct rpc_peer *p = NULL;
	int status = -EBUSY;
	if (!s->closing && server_room(s)) {
		p = calloc(1, sizeof *p);
		status = p ? channel_init(&p->channel, s->env, stream, tls, &peer_channel_ops) : -ENOMEM;
	}
	if (status < 0) {
		free(p);
		stream_close(stream);
		tls_close(tls);
		return status;
	}
	p->server = s;
	p->uid = stream_peer_uid(tls ? tls->stream : stream);
	p->opened_ns = env_now_ns(s->env);
	link_init(&p->waiting);
	link_init(&p->open);
	link_init(&p->spare);
	link_push(&s->peers, &p->link);
	strangers_enter(&s->strangers, &p->stranger, tls ? tls->stream : stream);
	s->peer_count++;
	channel_start(&p->channel);
	return 0;
}

static void server_admit(void *arg, struct tls *tls) { peer_new(arg, NULL, tls); }

int rpc_server_adopt(struct rpc_server *s, struct stream *stream)
{
	return s->door ? door_enter(s->door, stream) : peer_new(s, stream, NULL);
}

void rpc_server_check_peers(struct rpc_server *s)
{
	link_for_safe(l, next, &s->peers) {
		struct rpc_peer *p = container_of(l, struct rpc_peer, link);
		if (p->channel.tls && s->env->identity && identity_is_revoked(s->env->identity, &p->channel.tls->peer))
			channel_down(&p->channel, -EACCES);
	}
}

static int server_accept(void *arg)
{
	struct rpc_server *s = arg;
	while (!s->closing) {
		struct stream *stream;
		int r = stream_accept(s->listener, &stream);
		if (r == 0)
			rpc_server_adopt(s, stream);
		else if (r == -ESHUTDOWN)
			break;
		else if (fiber_sleep(&s->env->loop, 100 * NS_PER_MS) < 0) /* out of descriptors, say */
			break;
	}
	s->accepting = false;
	fiber_cond_wake(&s->changed);
	return 0;
}

static bool peer_overdue(const struct rpc_peer *p, uint64_t now)
{
	uint64_t silence = p->server->options.silence_ns;
	if (!p->greeted && now - p->opened_ns > MIN(silence, GREETING_NS))
		return true;
	if (p->channel.sending > 0 && now - p->channel.sent_ns > silence)
		return true;
	/* while it waits for us, silence is our doing */
	return p->in_flight == 0 && link_empty(&p->waiting) && now - p->channel.received_ns > silence;
}

static void server_clock(struct job *j)
{
	struct rpc_server *s = container_of(j, struct rpc_server, clock_job);
	if (s->closing || (j->status < 0 && j->status != -ECANCELED)) {
		s->clock_running = false;
		fiber_cond_wake(&s->changed);
		return;
	}
	uint64_t now = env_now_ns(s->env), period = MIN(s->options.silence_ns, GREETING_NS) / 4 + 1;
	/* when we come late, peers may have spoken in time without being heard: listen first */
	bool late = j->status == 0 && now - s->clock.due_ns > period / 2 && !s->clock_graced;
	s->clock_graced = late;
	j->status = 0;
	link_for_safe(l, next, &s->peers) {
		struct rpc_peer *p = container_of(l, struct rpc_peer, link);
		if (!late && !p->channel.down && peer_overdue(p, now))
			channel_down(&p->channel, -ETIMEDOUT);
	}
	timer_start(s->env, &s->clock, late ? period / 4 + 1 : period, j);
	job_then(j, server_clock);
}

int rpc_server_create(struct env *env, const struct rpc_server_options *options, struct rpc_server **ret_server)
{
	struct rpc_server *s = calloc(1, sizeof *s);
	struct door *door = NULL;
	if (!s)
		return -ENOMEM;
	if (options->roles && !(door = door_new(env, options->roles, server_admit, s))) {
		free(s);
		return -ENOMEM;
	}
	s->env = env;
	s->options = *options;
	struct rpc_server_options *o = &s->options;
	o->connections_max = o->connections_max ? o->connections_max : RPC_CONNECTIONS_DEFAULT;
	o->in_flight = o->in_flight ? o->in_flight : IN_FLIGHT_DEFAULT;
	o->silence_ns = o->silence_ns ? o->silence_ns : 60 * NS_PER_S;
	o->protocol = o->protocol ? o->protocol : rpc_protocol_newest;
	o->protocol_oldest = o->protocol_oldest ? o->protocol_oldest : rpc_protocol_oldest;
	/* two of the largest payloads and a header must fit, or a request could wait for ever */
	uint64_t pool_least = 2 * FRAME_PAYLOAD_MAX + pool_cost(FRAME_HEADER_MAX);
	pool_init(&s->pool, MAX(o->pool_bytes ? o->pool_bytes : POOL_DEFAULT, pool_least));
	link_init(&s->peers);
	link_init(&s->waiting);
	strangers_init(&s->strangers);
	fiber_cond_init(&s->changed);
	timer_init(&s->clock);
	job_init(&s->clock_job, &env->loop);
	s->clock_running = true;
	s->clock.due_ns = env_now_ns(env);
	job_then(&s->clock_job, server_clock);
	s->door = door;
	*ret_server = s;
	return 0;
}

int rpc_listen_on(struct env *env, struct listener *listener, const struct rpc_server_options *options,
		  struct rpc_server **ret_server)
{
	struct rpc_server *s;
	int r = rpc_server_create(env, options, &s);
	if (r < 0) {
		listener_close(listener);
		return r;
	}
	s->listener = listener;
	s->accepting = true;
	r = fiber_start(&env->loop, server_accept, s, NULL);
	if (r < 0) {
		s->accepting = false;
		rpc_server_close(s, 0);
		return r;
	}
	*ret_server = s;
	return 0;
}

int rpc_listen(struct env *env, const char *address, const struct rpc_server_options *options,
	       struct rpc_server **ret_server, struct report *report)
{
	struct rpc_server_options o = *options;
	struct listener *listener;
	char below[256];
	if (strlen(address) >= sizeof below)
		return report_set(report, -ENAMETOOLONG, "listen on %.100s...: the address is too long", address);
	tls_stream_address(address, below);
	if (tls_address(address))
		o.roles = o.roles ? o.roles : ROLE_ANY;
	int r = stream_listen(env, below, &listener);
	if (r < 0)
		return report_set(report, r, "listen on %s: %s", address, strerror(-r));
	return rpc_listen_on(env, listener, &o, ret_server);
}

unsigned rpc_server_connections(const struct rpc_server *s)
{
	return s->peer_count;
}

static bool server_busy(const struct rpc_server *s)
{
	link_for(l, &s->peers) {
		const struct rpc_peer *p = container_of(l, struct rpc_peer, link);
		if (p->in_flight > 0 && !p->channel.down)
			return true;
	}
	return false;
}

struct drain {
	struct rpc_server *server;
	struct timer timer;
	struct job job;
	bool over;
};

static void drain_over(struct job *j)
{
	struct drain *d = container_of(j, struct drain, job);
	d->over = true;
	fiber_cond_wake(&d->server->changed);
}

/* FIBER. Lets what is under way be answered, for so long. */
static void server_drain(struct rpc_server *s, uint64_t drain_ns)
{
	struct drain d = { .server = s };
	timer_init(&d.timer);
	job_init(&d.job, &s->env->loop);
	timer_start(s->env, &d.timer, drain_ns, &d.job);
	job_then(&d.job, drain_over);
	while (!d.over && server_busy(s))
		fiber_cond_wait(&s->env->loop, &s->changed);
	timer_cancel(s->env, &d.timer);
	while (!d.over)
		fiber_cond_wait(&s->env->loop, &s->changed);
}

void rpc_server_linger(struct rpc_server *s, uint64_t most_ns)
{
	for (uint64_t waited = 0; s && s->peer_count > 0 && waited < most_ns; waited += LINGER_POLL_NS)
		if (fiber_sleep(&s->env->loop, LINGER_POLL_NS) < 0)
			break;
}

void rpc_server_close(struct rpc_server *s, uint64_t drain_ns)
{
	if (!s)
		return;
	s->closing = true;
	listener_close(s->listener);
	timer_cancel(s->env, &s->clock);
	server_drain(s, drain_ns);
	link_for_safe(l, next, &s->peers)
		channel_down(&container_of(l, struct rpc_peer, link)->channel, -ESHUTDOWN);
	while (s->accepting || s->clock_running || s->peer_count > 0)
		fiber_cond_wait(&s->env->loop, &s->changed);
	door_close(s->door);
	pool_destroy(&s->pool);
	free(s);
}
