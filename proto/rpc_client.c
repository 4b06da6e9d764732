/* The client's side. A connection's life:
 *
 *     DOWN ──connect──▶ GREETING ──hello, greet()──▶ UP ──lost──▶ (all calls end) ──pause──▶ DOWN …
 *
 * rpc_connect() makes the first connection itself; a keeper fiber then waits for the end of
 * each connection and makes the next. One clock (a timer) ends calls at their deadlines
 * and pings the server, which is lost when nothing comes from it for too long.
 *
 * A call is QUEUED (in order, until a slot is free), SENT (has a slot), then ENDED. If its
 * deadline passes while nothing of ours is borrowed any more, it ends and leaves its
 * slot *abandoned*, which swallows the late reply (and the server is told that it need not be long); if its buffers are still in use, the
 * connection is given up, for that is the only way to get them back. So a reply with an id that has no
 * slot is a lie, and ends the connection too. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "core/version.h"
#include "core/plant.h"
#include "proto/rpc.h"

enum client_state { CLIENT_DOWN, CLIENT_GREETING, CLIENT_UP };
enum call_state { CALL_NEW, CALL_QUEUED, CALL_SENT, CALL_ENDED };

#define IN_FLIGHT_DEFAULT 256u
#define IN_FLIGHT_MAX 4096u
#define GRACE_NS (5 * NS_PER_MS)
#define ERRNO_MAX 4095
#define SLOTS_SPARE 1u /* beyond in_flight, for the ping */
enum { CANCELS_MAX = 8 }; /* on their way at a time: more aren't sent, for a cancel only saves work */

struct slot {
	uint64_t id;           /* 0: free */
	struct rpc_call *call; /* NULL: abandoned */
};

struct rpc_client {
	struct env *env;
	struct rpc_client_options options;
	char *address, *stream_address; /* the latter without TLS */
	char host[IDENTITY_HOST_BYTES]; /* options.host */
	enum client_state state;
	bool closing, keeping;
	struct channel channel;
	bool channel_used;          /* from channel_init until it is idle */
	int lost_status;
	char refused[128];          /* why the server won't have us, or we the server, "" if nobody said at the last attempt */
	bool refused_now;           /* that is of this attempt */
	struct link queued, sent;   /* calls, oldest first */
	struct slot *slots;
	unsigned slots_used, slots_max; /* slots_max: what the server allows too */
	uint64_t next_id;
	struct rpc_call *receiving; /* the call whose payload is being received */
	struct slot *replied;       /* the slot whose reply is being received */
	struct arena arena;         /* for envelopes */
	struct fiber_cond changed;  /* state or channel_used */
	struct timer clock, pause;
	struct job clock_job;
	bool clock_running, clock_graced;
	struct job ping_job;
	struct rpc_call ping;
	bool pinging;
	uint64_t ping_ns;
	uint32_t protocol;          /* spoken with the server */
	struct channel_send cancels[CANCELS_MAX];
};

static void client_clock(struct job *j);
static void client_clock_hurry(struct rpc_client *c, uint64_t due_ns);
static void client_start_queued(struct rpc_client *c);

/* ---- calls ---- */

void rpc_call_init(struct rpc_call *call, uint32_t method, const ProtobufCMessage *request,
		   const ProtobufCMessageDescriptor *reply_type)
{
	memset(call, 0, offsetof(struct rpc_call, send));
	call->method = method;
	call->request = request;
	call->reply_type = reply_type;
	call->kind = FRAME_CALL;
	call->text = "";
	link_init(&call->link);
	channel_send_init(&call->send);
	arena_init(&call->arena);
}

void rpc_call_clean(struct rpc_call *call)
{
	assert(call->state == CALL_NEW || call->state == CALL_ENDED);
	channel_send_clean(&call->send);
	arena_reset(&call->arena);
	call->reply = NULL;
	call->text = "";
}

/* The call has its result; it ends now if nothing of it is borrowed any more. */
static void call_end_maybe(struct rpc_client *c, struct rpc_call *call)
{
	if (call->send.active || c->receiving == call)
		return;
	link_drop(&call->link);
	if (call->status < 0)
		call->reply = NULL;
	job_put(call->parent, call->status);
}

static void call_end(struct rpc_client *c, struct rpc_call *call, int status)
{
	assert(call->state != CALL_ENDED);
	call->state = CALL_ENDED;
	call->status = status;
	call_end_maybe(c, call);
}

static struct slot *slot_find(struct rpc_client *c, uint64_t id)
{
	for (unsigned i = 0; id != 0 && i < c->slots_used; i++)
		if (c->slots[i].id == id)
			return &c->slots[i];
	return PLANTED(rpc_any_reply) && c->slots_used ? &c->slots[0] : NULL;
}

/* Slots in use are kept together at the front, so that looking one up is short when few are in use;
 * replies mostly come in order, the oldest first. */
static void slot_free(struct rpc_client *c, struct slot *s)
{
	struct slot *last = &c->slots[--c->slots_used];
	memmove(s, s + 1, (size_t)((char *)last - (char *)s));
	*last = (struct slot){ 0 };
}

static void call_sent(struct channel_send *s, int status)
{
	struct rpc_call *call = container_of(s, struct rpc_call, send);
	struct rpc_client *c = container_of(s->channel, struct rpc_client, channel);
	(void)status; /* a failed send ends the connection, and that the call */
	if (call->state == CALL_ENDED)
		call_end_maybe(c, call);
}

static void call_start(struct rpc_client *c, struct rpc_call *call)
{
	call->id = c->next_id++;
	call->state = CALL_SENT;
	c->slots[c->slots_used++] = (struct slot){ call->id, call };
	link_drop(&call->link);
	link_push(&c->sent, &call->link);
	channel_send(&c->channel, &call->send, call->id, call->payload, call->payload_count, call_sent);
}

static void client_start_queued(struct rpc_client *c)
{
	while (!c->channel.down && c->slots_used < c->slots_max && !link_empty(&c->queued))
		call_start(c, container_of(c->queued.next, struct rpc_call, link));
}

static int call_pack(struct rpc_call *call)
{
	Aquifer__Envelope e = AQUIFER__ENVELOPE__INIT;
	uint64_t room = iov_bytes(call->reply_payload, call->reply_payload_count);
	if (room > RPC_PAYLOAD_MAX)
		return -EMSGSIZE;
	e.method = call->method;
	e.reply_limit = (uint32_t)room;
	return channel_send_pack(&call->send, call->kind, &e, call->request,
				 iov_bytes(call->payload, call->payload_count));
}

void rpc_submit(struct rpc_client *c, struct rpc_call *call, struct job *parent)
{
	job_hold(parent);
	assert(call->state == CALL_NEW);
	call->parent = parent;
	int r = c->state == CLIENT_UP || (c->state == CLIENT_GREETING && call->early) ? 0 : -ENOTCONN;
	if (r == 0 && c->channel.down)
		r = -ENOTCONN;
	if (r == 0)
		r = call_pack(call);
	if (r < 0) {
		call_end(c, call, r);
		return;
	}
	call->state = CALL_QUEUED;
	link_push(&c->queued, &call->link);
	if (call->deadline_ns) {
		call->due_ns = env_now_ns(c->env) + call->deadline_ns;
		client_clock_hurry(c, call->due_ns);
	}
	if (call->kind == FRAME_PING)
		call_start(c, call);
	else
		client_start_queued(c);
}

static void cancel_sent(struct channel_send *s, int status)
{
	(void)status; /* a failed send ends the connection */
	channel_send_clean(s);
}

/* Tells a server that understands it that nobody waits for the answer to call `id`. */
static void client_cancel(struct rpc_client *c, uint64_t id)
{
	Aquifer__Envelope e = AQUIFER__ENVELOPE__INIT;
	unsigned i = 0;
	while (i < CANCELS_MAX && c->cancels[i].active)
		i++;
	if (c->protocol < RPC_PROTOCOL_CANCEL || c->channel.down || i == CANCELS_MAX)
		return;
	if (channel_send_pack(&c->cancels[i], FRAME_CANCEL, &e, NULL, 0) == 0)
		channel_send(&c->channel, &c->cancels[i], id, NULL, 0, cancel_sent);
}

/* It ends, and its late reply is thrown away. */
static void call_abandon(struct rpc_client *c, struct rpc_call *call, int status)
{
	if (call->state == CALL_SENT) {
		slot_find(c, call->id)->call = NULL;
		client_cancel(c, call->id);
	}
	call_end(c, call, status);
}

void rpc_cancel(struct rpc_client *c, struct rpc_call *call)
{
	if (call->state != CALL_ENDED && !call->send.active && c->receiving != call)
		call_abandon(c, call, -ECANCELED);
}

int rpc_call_wait(struct rpc_client *c, struct rpc_call *call, struct report *report)
{
	struct job j;
	job_init(&j, &c->env->loop);
	rpc_submit(c, call, &j);
	int r = fiber_wait(&j);
	if (r < 0 && call->text[0])
		report_set(report, r, "%s", call->text);
	return r;
}

/* ---- replies ---- */

/* Fills the call from the envelope; the message is unpacked in the call's own arena. */
static int reply_take(struct rpc_call *call, const Aquifer__Envelope *e, uint32_t payload_bytes)
{
	if (e->status > 0 || e->status < -ERRNO_MAX ||
	    payload_bytes > iov_bytes(call->reply_payload, call->reply_payload_count))
		return -EPROTO;
	call->status = e->status;
	call->reply_payload_bytes = payload_bytes;
	if (e->text[0]) {
		size_t n = strlen(e->text) + 1;
		char *text = call->arena.allocator.alloc(&call->arena, n);
		if (text)
			call->text = memcpy(text, e->text, n);
	}
	if (e->status == 0 && call->reply_type) {
		call->reply = protobuf_c_message_unpack(call->reply_type, &call->arena.allocator, e->body.len,
							e->body.data);
		if (!call->reply)
			return -EPROTO;
	}
	return 0;
}

static int client_header(struct channel *channel, const struct frame *f)
{
	struct rpc_client *c = container_of(channel, struct rpc_client, channel);
	if (f->kind != FRAME_REPLY)
		return -EPROTO;
	arena_reset(&c->arena);
	Aquifer__Envelope *e = frame_envelope(f, &c->arena.allocator);
	c->replied = e ? slot_find(c, e->id) : NULL;
	if (!c->replied)
		return -EPROTO;
	struct rpc_call *call = c->replied->call;
	if (!call)
		return 0; /* abandoned: the payload is thrown away */
	int r = reply_take(call, e, f->payload_bytes);
	if (r < 0)
		return r;
	c->receiving = call;
	channel_payload_to(channel, call->reply_payload, call->reply_payload_count);
	return 0;
}

static void client_frame(struct channel *channel)
{
	struct rpc_client *c = container_of(channel, struct rpc_client, channel);
	struct rpc_call *call = c->receiving;
	slot_free(c, c->replied);
	c->replied = NULL;
	c->receiving = NULL;
	if (call)
		call_end(c, call, call->status);
	client_start_queued(c);
}

/* ---- the end of a connection ---- */

static void client_note_refusal(struct rpc_client *c, const char *why)
{
	snprintf(c->refused, sizeof c->refused, "%s", why);
	c->refused_now = true;
}

static void client_end_all(struct rpc_client *c, struct link *calls)
{
	link_for_safe(l, next, calls) {
		struct rpc_call *call = container_of(l, struct rpc_call, link);
		if (call->state != CALL_ENDED)
			call_end(c, call, -ENOTCONN);
	}
}

static void client_down(struct channel *channel, int status)
{
	struct rpc_client *c = container_of(channel, struct rpc_client, channel);
	bool was_up = c->state == CLIENT_UP;
	c->state = CLIENT_DOWN;
	c->lost_status = status;
	if (channel->tls && tls_why(channel->tls))
		client_note_refusal(c, tls_why(channel->tls));
	memset(c->slots, 0, c->slots_used * sizeof *c->slots);
	c->slots_used = 0;
	c->replied = NULL;
	client_end_all(c, &c->sent);
	client_end_all(c, &c->queued);
	if (was_up && c->options.lost)
		c->options.lost(c->options.arg, status);
}

static void client_idle(struct channel *channel)
{
	struct rpc_client *c = container_of(channel, struct rpc_client, channel);
	struct rpc_call *call = c->receiving;
	c->receiving = NULL;
	if (call)
		call_end_maybe(c, call);
	assert(link_empty(&c->sent) && link_empty(&c->queued));
	channel_destroy(channel);
	c->channel_used = false;
	fiber_cond_wake(&c->changed);
}

static const struct channel_ops client_channel_ops = {
	.header = client_header,
	.frame = client_frame,
	.down = client_down,
	.idle = client_idle,
};

/* ---- the clock ---- */

static void client_clock_start(struct rpc_client *c)
{
	job_init(&c->clock_job, &c->env->loop);
	c->clock_running = true;
	c->clock.due_ns = env_now_ns(c->env);
	job_then(&c->clock_job, client_clock);
}

static void client_clock_hurry(struct rpc_client *c, uint64_t due_ns)
{
	if (timer_running(&c->clock) && c->clock.due_ns > due_ns)
		timer_cancel(c->env, &c->clock);
}

static void call_expire(struct rpc_client *c, struct rpc_call *call)
{
	if ((call->send.active || c->receiving == call) && !PLANTED(rpc_deadline_takes_buffers)) {
		call_end(c, call, -ETIMEDOUT);
		channel_down(&c->channel, -ETIMEDOUT);
		return;
	}
	call_abandon(c, call, -ETIMEDOUT);
}

/* Ends what is overdue; returns the next deadline, at most `next`. */
static uint64_t client_expire(struct rpc_client *c, struct link *calls, uint64_t next)
{
	uint64_t now = env_now_ns(c->env);
restart:
	link_for_safe(l, n, calls) {
		struct rpc_call *call = container_of(l, struct rpc_call, link);
		if (!call->due_ns || call->state == CALL_ENDED)
			continue;
		if (call->due_ns <= now) {
			call_expire(c, call);
			goto restart; /* the connection may have gone, and all calls with it */
		}
		next = MIN(next, call->due_ns);
	}
	return next;
}

static void client_pinged(struct job *j)
{
	struct rpc_client *c = container_of(j, struct rpc_client, ping_job);
	rpc_call_clean(&c->ping);
	c->pinging = false;
	fiber_cond_wake(&c->changed);
}

/* At most one ping is under way, so the spare slot is free for it. */
static void client_ping(struct rpc_client *c)
{
	if (c->state != CLIENT_UP || c->channel.down)
		return;
	if (c->channel.tls && c->env->identity && identity_is_revoked(c->env->identity, &c->channel.tls->peer)) {
		channel_down(&c->channel, -EACCES);
		return;
	}
	if (c->pinging) {
		if (env_now_ns(c->env) - c->channel.received_ns >= c->options.silence_ns)
			channel_down(&c->channel, -ETIMEDOUT);
		return;
	}
	c->pinging = true;
	rpc_call_init(&c->ping, 0, NULL, NULL);
	c->ping.kind = FRAME_PING;
	job_init(&c->ping_job, &c->env->loop);
	rpc_submit(c, &c->ping, &c->ping_job);
	job_then(&c->ping_job, client_pinged);
}

static void client_clock(struct job *j)
{
	struct rpc_client *c = container_of(j, struct rpc_client, clock_job);
	if (c->closing || (j->status < 0 && j->status != -ECANCELED)) {
		c->clock_running = false;
		fiber_cond_wake(&c->changed);
		return;
	}
	uint64_t now = env_now_ns(c->env);
	/* A clock that comes late was not the server's fault: we were stopped, or starved, and
	 * what came meanwhile hasn't been received. Let that be done first, once. */
	if (j->status == 0 && !c->clock_graced && now - c->clock.due_ns > c->options.silence_ns / 8) {
		c->clock_graced = true;
		timer_start(c->env, &c->clock, GRACE_NS, j);
		job_then(j, client_clock);
		return;
	}
	c->clock_graced = false;
	j->status = 0;
	if (now >= c->ping_ns) {
		client_ping(c);
		c->ping_ns = now + c->options.silence_ns / 2;
	}
	uint64_t next = client_expire(c, &c->sent, c->ping_ns);
	next = client_expire(c, &c->queued, next);
	timer_start(c->env, &c->clock, next > now ? next - now : 1, j);
	job_then(j, client_clock);
}

/* ---- connecting ---- */

static int client_hello(struct rpc_client *c, struct report *report)
{
	Aquifer__Hello hello = AQUIFER__HELLO__INIT;
	hello.service = (char *)(uintptr_t)c->options.service;
	hello.protocol_oldest = c->options.protocol_oldest;
	hello.protocol = c->options.protocol;
	hello.in_flight = c->options.in_flight;
	hello.payload_limit = RPC_PAYLOAD_MAX;
	hello.software = (char *)(uintptr_t)"aquifer " AQ_VERSION;
	struct rpc_call call;
	rpc_call_init(&call, 0, &hello.base, &aquifer__hello__descriptor);
	call.kind = FRAME_HELLO;
	call.early = true;
	call.deadline_ns = c->options.connect_timeout_ns;
	int r = rpc_call_wait(c, &call, report);
	if (r == 0) {
		Aquifer__Hello *h = (Aquifer__Hello *)call.reply;
		if (h->protocol < hello.protocol_oldest || h->protocol > hello.protocol || h->in_flight == 0)
			r = report_set(report, -EPROTO, "the server's greeting makes no sense");
		else
			c->slots_max = MIN(c->options.in_flight, h->in_flight);
		c->protocol = r == 0 ? h->protocol : 0;
	}
	if (r == -EPROTONOSUPPORT)
		client_note_refusal(c, call.text);
	rpc_call_clean(&call);
	return r;
}

/* FIBER. Waits until nothing of the connection is left. */
static void client_wait_idle(struct rpc_client *c)
{
	while (c->channel_used || c->pinging)
		fiber_cond_wait(&c->env->loop, &c->changed);
}

/* FIBER. */
static int client_try(struct rpc_client *c, struct report *report)
{
	struct stream *stream = NULL;
	struct tls *tls = NULL;
	int r = stream_connect(c->env, c->stream_address, c->options.connect_timeout_ns, &stream);
	if (r == 0 && tls_address(c->address)) {
		struct report why = { "" };
		r = tls_connect(c->env, stream, c->options.roles, c->host[0] ? c->host : NULL, c->options.connect_timeout_ns, &tls, &why);
		stream = NULL;
		if (r == -EACCES || r == -EKEYREJECTED)
			client_note_refusal(c, why.text);
		if (r < 0)
			report_set(report, r, "%s", report_text(&why, r));
	}
	if (r == 0)
		r = c->closing ? -ENOTCONN : channel_init(&c->channel, c->env, stream, tls, &client_channel_ops);
	if (r < 0) {
		stream_close(stream);
		tls_close(tls);
		return r;
	}
	c->channel_used = true;
	c->lost_status = 0;
	c->protocol = 0;
	c->state = CLIENT_GREETING;
	c->slots_max = 1;
	channel_start(&c->channel);
	r = client_hello(c, report);
	if (r == 0 && c->options.greet)
		r = c->options.greet(c->options.arg, c, report);
	if (r == 0 && (c->channel.down || c->state != CLIENT_GREETING))
		r = -ENOTCONN;
	if (r < 0) {
		if (c->channel_used)
			channel_down(&c->channel, r);
		client_wait_idle(c);
		if (r == -ENOTCONN && c->lost_status == -EPROTONOSUPPORT) {
			client_note_refusal(c, "it answers in frames of a newer version than this program knows (upgrade this program)");
			r = -EPROTONOSUPPORT;
		}
		return c->refused_now ? report_set(report, r == -EPROTONOSUPPORT ? r : -EACCES, "%s", c->refused) : r;
	}
	c->state = CLIENT_UP;
	c->ping_ns = env_now_ns(c->env) + c->options.silence_ns / 2;
	client_clock_hurry(c, c->ping_ns);
	fiber_cond_wake(&c->changed);
	return 0;
}

/* FIBER. One attempt. What was said at the one before isn't so any more if nobody says it now: the server may be gone. */
static int client_attempt(struct rpc_client *c, struct report *report)
{
	c->refused_now = false;
	int r = client_try(c, report);
	if (!c->refused_now)
		c->refused[0] = 0;
	return r;
}

/* FIBER. */
static int client_pause(struct rpc_client *c, uint64_t ns)
{
	struct job j;
	job_init(&j, &c->env->loop);
	timer_start(c->env, &c->pause, ns, &j);
	return fiber_wait(&j);
}

static int client_keep(void *arg)
{
	struct rpc_client *c = arg;
	uint64_t pause_ns = c->options.lazy ? 0 : c->options.retry_min_ns;
	for (;;) {
		client_wait_idle(c);
		if (c->closing || !c->options.reconnect)
			break;
		/* spread, so that a server's clients don't all come back in the same instant */
		int r = pause_ns ? client_pause(c, pause_ns / 2 + env_random(c->env) % (pause_ns / 2 + 1)) : 0;
		if (c->closing || r < 0)
			break;
		r = client_attempt(c, NULL);
		if (c->options.tried && !c->closing)
			c->options.tried(c->options.arg, r);
		if (r == -ESHUTDOWN)
			break;
		pause_ns = r == 0 || pause_ns == 0 ? c->options.retry_min_ns : MIN(pause_ns * 2, c->options.retry_max_ns);
	}
	c->keeping = false;
	fiber_cond_wake(&c->changed);
	return 0;
}

static void client_free(struct rpc_client *c)
{
	arena_reset(&c->arena);
	free(c->slots);
	free(c->address);
	free(c->stream_address);
	free(c);
}

static struct rpc_client *client_new(struct env *env, const char *address, const struct rpc_client_options *options)
{
	struct rpc_client *c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	c->env = env;
	c->options = *options;
	struct rpc_client_options *o = &c->options;
	o->connect_timeout_ns = o->connect_timeout_ns ? o->connect_timeout_ns : 5 * NS_PER_S;
	o->retry_min_ns = o->retry_min_ns ? o->retry_min_ns : 50 * NS_PER_MS;
	o->retry_max_ns = o->retry_max_ns ? o->retry_max_ns : 2 * NS_PER_S;
	o->silence_ns = o->silence_ns ? o->silence_ns : 10 * NS_PER_S;
	o->in_flight = MIN(o->in_flight ? o->in_flight : IN_FLIGHT_DEFAULT, IN_FLIGHT_MAX);
	o->protocol = o->protocol ? o->protocol : rpc_protocol_newest;
	o->protocol_oldest = o->protocol_oldest ? o->protocol_oldest : rpc_protocol_oldest;
	for (unsigned i = 0; i < CANCELS_MAX; i++)
		channel_send_init(&c->cancels[i]);
	arena_init(&c->arena);
	link_init(&c->queued);
	link_init(&c->sent);
	fiber_cond_init(&c->changed);
	timer_init(&c->clock);
	timer_init(&c->pause);
	c->next_id = 1;
	c->ping_ns = UINT64_MAX;
	o->roles = o->roles ? o->roles : ROLE_ANY;
	snprintf(c->host, sizeof c->host, "%s", o->host ? o->host : "");
	o->host = NULL;
	c->address = strdup(address);
	c->stream_address = strdup(address);
	c->slots = calloc(o->in_flight + SLOTS_SPARE, sizeof *c->slots);
	if (!c->address || !c->stream_address || !c->slots) {
		client_free(c);
		return NULL;
	}
	tls_stream_address(address, c->stream_address);
	return c;
}

int rpc_connect(struct env *env, const char *address, const struct rpc_client_options *options,
		struct rpc_client **ret_client, struct report *report)
{
	struct rpc_client *c = client_new(env, address, options);
	if (!c)
		return -ENOMEM;
	client_clock_start(c);
	int r = c->options.lazy ? 0 : client_attempt(c, report);
	if (r == 0) {
		c->keeping = true;
		r = fiber_start(&env->loop, client_keep, c, NULL);
		if (r < 0)
			c->keeping = false;
	}
	if (r < 0) {
		report_prefix(report, r, "connect to %s", address);
		rpc_close(c);
		return r;
	}
	*ret_client = c;
	return 0;
}

void rpc_cut(struct rpc_client *c)
{
	c->closing = true;
	if (c->channel_used)
		channel_down(&c->channel, -ENOTCONN);
	timer_cancel(c->env, &c->pause);
	timer_cancel(c->env, &c->clock);
}

void rpc_close(struct rpc_client *c)
{
	if (!c)
		return;
	rpc_cut(c);
	while (c->keeping || c->clock_running || c->channel_used || c->pinging)
		fiber_cond_wait(&c->env->loop, &c->changed);
	client_free(c);
}

uint32_t rpc_protocol(const struct rpc_client *c) { return c->protocol; }

const char *rpc_refused(const struct rpc_client *c) { return c->state == CLIENT_UP ? "" : c->refused; }

bool rpc_connected(const struct rpc_client *c)
{
	return c->state == CLIENT_UP;
}

struct connected_wait {
	struct rpc_client *client;
	struct timer timer;
	struct job job;
	bool over;
};

static void connected_wait_over(struct job *j)
{
	struct connected_wait *w = container_of(j, struct connected_wait, job);
	w->over = true;
	fiber_cond_wake(&w->client->changed);
}

int rpc_wait_connected(struct rpc_client *c, uint64_t timeout_ns)
{
	struct connected_wait w = { .client = c };
	timer_init(&w.timer);
	job_init(&w.job, &c->env->loop);
	timer_start(c->env, &w.timer, timeout_ns, &w.job);
	job_then(&w.job, connected_wait_over);
	while (!w.over && !rpc_connected(c) && c->keeping)
		fiber_cond_wait(&c->env->loop, &c->changed);
	timer_cancel(c->env, &w.timer);
	while (!w.over)
		fiber_cond_wait(&c->env->loop, &c->changed);
	return rpc_connected(c) ? 0 : -ETIMEDOUT;
}
