/* The simulated network: streams between processes, listeners, partitions.
 *
 * Each direction of a connection is a queue of pieces on their way to the receiving end:
 *
 *     stream_send ─▶ sends ─(pump: room left)─▶ pieces ─(latency, in order)─▶ buffer ─▶ stream_recv
 *
 * The end of a stream is a piece like any other, so it arrives after what was sent before. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/env_sim_world.h"
#include "core/fiber.h"

#define ADDRESS_MAX 200
#define BUFFER_DEFAULT (256u << 10)
#define CUT_POLL_NS (20 * NS_PER_MS)
#define CUT_GIVE_UP_NS (30 * NS_PER_S)
#define CONNECT_GIVE_UP_NS (60 * NS_PER_S)
#define HALF_DROP_NS (5 * NS_PER_S)
#define BACKLOG 128u

struct sim_stream {
	struct stream stream; /* first */
	struct sim_process *process;
	struct sim_stream *peer;  /* NULL: it was closed */
	struct link link;         /* process.streams, or listener.pending */
	struct sim_host *from;    /* where the other end is */
	bool local;               /* a unix socket */
	bool ended;               /* the peer's end arrived, or a reset */
	bool shut;                /* by this end */
	struct link sends;        /* stream_io */
	bool pump_due;
	struct sim_event pump;
	struct stream_io *recv;
	struct link pieces;       /* on their way here, in order */
	size_t on_the_way;        /* bytes */
	uint8_t *buffer;          /* arrived, not received */
	size_t buffered, room;
};

struct piece {
	struct sim_event event;
	struct link link;
	struct sim_stream *to;
	uint64_t held_since_ns; /* by a partition; 0: not */
	bool end;               /* the stream ends here */
	bool lost;              /* and without a word: the sender lost power */
	size_t length;
	uint8_t bytes[];
};

struct sim_listener {
	struct listener listener; /* first */
	struct sim_process *process;
	struct link link, all;    /* process.listeners, sim.listeners */
	char address[ADDRESS_MAX];
	struct sim_host *host;
	struct link pending;      /* streams nobody accepted yet */
	unsigned pending_count;
	struct fiber_cond wake;
	bool closed;
	unsigned refs;            /* the opener's and those of waiting accepts */
};

static struct sim_stream *stream_of(struct stream *s) { return container_of(s, struct sim_stream, stream); }

static bool cut_between(const struct sim *sim, const struct sim_host *from, const struct sim_host *to)
{
	link_for (l, &sim->cuts) {
		const struct sim_cut *c = container_of(l, struct sim_cut, link);
		if (c->from == from && c->to == to)
			return true;
	}
	return false;
}

/* ---- receiving ---- */

static void stream_pump_later(struct sim_stream *s);

static void recv_end(struct sim_stream *s, int status)
{
	struct stream_io *io = s->recv;
	s->recv = NULL;
	io->status = status;
	job_put(io->parent, status);
}

/* Moves what has arrived to who waits for it. */
static void recv_progress(struct sim_stream *s)
{
	struct stream_io *io = s->recv;
	if (!io)
		return;
	size_t want = iov_bytes(io->iov, io->iov_count) - io->done, n = MIN(want, s->buffered);
	if (n) {
		iov_scatter(io->iov, io->iov_count, io->done, s->buffer, n);
		memmove(s->buffer, s->buffer + n, s->buffered - n);
		s->buffered -= n;
		io->done += n;
		if (s->peer)
			stream_pump_later(s->peer);
	}
	if (io->done >= MAX(io->minimum, (size_t)1) || n == want)
		recv_end(s, 0);
	else if (s->ended || s->shut)
		recv_end(s, -ECONNRESET);
}

static void sends_fail(struct sim_stream *s, int status)
{
	for (struct link *l; (l = link_pop(&s->sends));) {
		struct stream_io *io = container_of(l, struct stream_io, link);
		io->status = status;
		job_put(io->parent, status);
	}
}

static void stream_reset(struct sim_stream *s)
{
	s->ended = true;
	sends_fail(s, -ECONNRESET);
	recv_progress(s);
}

/* ---- pieces ---- */

static void piece_free(struct piece *c)
{
	link_drop(&c->link);
	c->to->on_the_way -= c->length;
	free(c);
}

static void piece_kill(struct sim_event *e) { piece_free(container_of(e, struct piece, event)); }

static void pieces_drop(struct sim_stream *to)
{
	while (!link_empty(&to->pieces)) {
		struct piece *c = container_of(to->pieces.next, struct piece, link);
		sim_event_remove(to->process->sim, &c->event);
		piece_free(c);
	}
}

/* The connection breaks: both ends learn it, each at once; what is under way is lost. */
static void connection_drop(struct sim_stream *s)
{
	sim_trace(s->process->sim, s->process, "dropped", 0, 0);
	if (sim_random(s->process->sim) & 1)
		s->buffered = 0;
	struct sim_stream *peer = s->peer;
	pieces_drop(s);
	stream_reset(s);
	if (peer) {
		pieces_drop(peer);
		stream_reset(peer);
	}
}

static struct piece *piece_send(struct sim_stream *to, size_t length, uint64_t delay_ns);

/* One end learns that the connection broke, and perhaps makes a new one; what was under way to the other still arrives there, late: after what is
 * sent on the new one. That end learns it later, or when it sends. */
static void connection_half_drop(struct sim_stream *knows)
{
	struct sim_stream *deaf = knows->peer;
	struct sim *sim = knows->process->sim;
	sim_trace(sim, knows->process, "half dropped", 0, 0);
	knows->peer = deaf->peer = NULL;
	pieces_drop(knows);
	stream_reset(knows);
	if (!link_empty(&deaf->pieces)) { /* the others never before the first */
		struct sim_event *first = &container_of(deaf->pieces.next, struct piece, link)->event;
		sim_event_remove(sim, first);
		sim_event_add(sim, first, NULL, sim_below(sim, HALF_DROP_NS));
	}
	struct piece *end = piece_send(deaf, 0, sim_below(sim, 2 * HALF_DROP_NS));
	end->end = end->lost = true;
}

static void piece_arrives(struct piece *c)
{
	struct sim_stream *s = c->to;
	if (s->shut) { /* nobody reads it */
		piece_free(c);
		return;
	}
	if (c->length > s->room - s->buffered) {
		s->room = s->buffered + c->length;
		s->buffer = realloc(s->buffer, s->room);
		if (!s->buffer)
			abort();
	}
	if (c->length)
		memcpy(s->buffer + s->buffered, c->bytes, c->length);
	s->buffered += c->length;
	bool end = c->end;
	piece_free(c);
	if (end)
		stream_reset(s);
	else
		recv_progress(s);
}

static void piece_fire(struct sim_event *e)
{
	struct piece *c = container_of(e, struct piece, event);
	struct sim_stream *s = c->to;
	struct sim *sim = s->process->sim;
	if (s->pieces.next != &c->link) { /* never before what was sent earlier */
		uint64_t due = container_of(s->pieces.next, struct piece, link)->event.due_ns;
		sim_event_add(sim, e, NULL, MAX(due, sim->now_ns) - sim->now_ns + 1);
		return;
	}
	if (!s->local && cut_between(sim, s->from, s->process->host)) {
		if (!c->held_since_ns)
			c->held_since_ns = sim->now_ns;
		if (sim->now_ns - c->held_since_ns < CUT_GIVE_UP_NS)
			sim_event_add(sim, e, NULL, CUT_POLL_NS);
		else
			connection_drop(s);
		return;
	}
	if (!c->lost && sim_happens(sim, SIM_DROP, sim->doses.drop)) {
		bool half = s->peer && sim_random(sim) & 1;
		if (half && sim_random(sim) & 1) { /* who sent it: the rest comes after it */
			piece_arrives(c);
			connection_half_drop(s->peer);
			return;
		}
		size_t part = sim_below(sim, c->length + 1);
		s->on_the_way -= c->length - part;
		c->length = part;
		c->end = false;
		piece_arrives(c);
		if (half)
			connection_half_drop(s);
		else
			connection_drop(s);
		return;
	}
	piece_arrives(c);
}

static struct piece *piece_send(struct sim_stream *to, size_t length, uint64_t delay_ns)
{
	struct sim *sim = to->process->sim;
	struct piece *c = sim_alloc(sizeof *c + length);
	c->event = (struct sim_event){ .name = "piece", .fire = piece_fire, .kill = piece_kill };
	c->to = to;
	c->length = length;
	to->on_the_way += length;
	link_push(&to->pieces, &c->link);
	sim_event_add(sim, &c->event, NULL, delay_ns);
	return c;
}

static uint64_t net_latency(const struct sim_stream *s)
{
	struct sim *sim = s->process->sim;
	return s->local ? 1 + sim_below(sim, 20000) : sim_latency(sim, sim->doses.net_ns, 200000);
}

/* ---- sending ---- */

static void pump_fire(struct sim_event *e)
{
	struct sim_stream *s = container_of(e, struct sim_stream, pump);
	struct sim *sim = s->process->sim;
	size_t limit = sim->doses.stream_buffer ? sim->doses.stream_buffer : BUFFER_DEFAULT;
	s->pump_due = false;
	while (!link_empty(&s->sends)) {
		struct stream_io *io = container_of(s->sends.next, struct stream_io, link);
		if (s->shut || s->ended || !s->peer) {
			sends_fail(s, -ECONNRESET);
			return;
		}
		size_t under_way = s->peer->on_the_way + s->peer->buffered;
		size_t left = iov_bytes(io->iov, io->iov_count) - io->sent;
		size_t n = MIN(left, limit - MIN(limit, under_way));
		if (left && n == 0)
			return; /* the receiver wakes us */
		if (n) {
			struct piece *c = piece_send(s->peer, n, net_latency(s));
			iov_gather(io->iov, io->iov_count, io->sent, c->bytes, n);
			io->sent += n;
			sim_trace(sim, s->process, "sent", n, 0);
		}
		if (n < left)
			return;
		link_drop(&io->link);
		job_put(io->parent, 0);
	}
}

static void pump_kill(struct sim_event *e) { container_of(e, struct sim_stream, pump)->pump_due = false; }

static void stream_pump_later(struct sim_stream *s)
{
	if (s->pump_due || s->process->env.dead || link_empty(&s->sends))
		return;
	s->pump_due = true;
	s->pump = (struct sim_event){ .name = "pump", .fire = pump_fire, .kill = pump_kill };
	sim_event_add(s->process->sim, &s->pump, s->process, 1 + sim_below(s->process->sim, 5000));
}

void sim_stream_send(struct stream *stream, struct stream_io *io, struct job *parent)
{
	struct sim_stream *s = stream_of(stream);
	int r = s->process->env.dead ? -ESHUTDOWN : s->shut || s->ended || !s->peer ? -ECONNRESET : 0;
	if (r < 0) {
		io->status = r;
		job_put(parent, r);
		return;
	}
	link_push(&s->sends, &io->link);
	stream_pump_later(s);
}

void sim_stream_recv(struct stream *stream, struct stream_io *io, struct job *parent)
{
	struct sim_stream *s = stream_of(stream);
	assert(!s->recv);
	if (s->process->env.dead) {
		io->status = -ESHUTDOWN;
		job_put(parent, -ESHUTDOWN);
		return;
	}
	s->recv = io;
	recv_progress(s);
}

/* ---- ends ---- */

static struct sim_stream *stream_new(struct sim_process *p, struct sim_host *from, bool local)
{
	struct sim_stream *s = sim_alloc(sizeof *s);
	s->stream.env = &p->env;
	s->process = p;
	s->from = from;
	s->local = local;
	link_init(&s->link);
	link_init(&s->sends);
	link_init(&s->pieces);
	return s;
}

/* The peer learns that this end is no more, after what was sent before. */
static void stream_part(struct sim_stream *s, bool lost)
{
	struct sim_stream *peer = s->peer;
	s->peer = NULL;
	if (!peer)
		return;
	peer->peer = NULL;
	uint64_t delay = lost ? sim_below(s->process->sim, 15 * NS_PER_S) : net_latency(s);
	struct piece *c = piece_send(peer, 0, delay);
	c->end = true;
	c->lost = lost;
}

static void stream_free(struct sim_stream *s)
{
	stream_part(s, false);
	pieces_drop(s);
	sim_event_remove(s->process->sim, &s->pump);
	link_drop(&s->link);
	free(s->buffer);
	free(s);
}

void sim_stream_shutdown(struct stream *stream)
{
	struct sim_stream *s = stream_of(stream);
	if (s->shut || s->process->env.dead)
		return;
	s->shut = true;
	s->buffered = 0;
	sends_fail(s, -ECONNRESET);
	recv_progress(s);
	stream_part(s, false);
}

void sim_stream_close(struct stream *stream)
{
	struct sim_stream *s = stream_of(stream);
	assert(!s->recv && link_empty(&s->sends));
	stream_free(s);
}

uint32_t sim_stream_peer_uid(struct stream *stream) { return stream_of(stream)->local ? 0 : (uint32_t)-1; }

void sim_stream_peer(struct stream *stream, struct stream_peer *ret)
{
	const struct sim_stream *s = stream_of(stream);
	ret->bytes[0] = s->local ? 1 : 2;
	if (!s->local)
		memcpy(ret->bytes + 1, s->from->name, strnlen(s->from->name, sizeof ret->bytes - 1));
}

/* ---- addresses and listeners ---- */

/* "unix:/path" stays; of "tcp:HOST:PORT" the host is found and the port returned. */
static int address_parse(struct sim_host *self, const char *address, struct sim_host **ret_host, bool *ret_local,
			 unsigned *ret_port)
{
	*ret_host = self;
	*ret_port = 0;
	*ret_local = strncmp(address, "unix:", 5) == 0;
	if (strlen(address) >= ADDRESS_MAX)
		return -ENAMETOOLONG;
	if (*ret_local)
		return 0;
	const char *colon = strrchr(address, ':');
	if (strncmp(address, "tcp:", 4) || colon < address + 4)
		return -EINVAL;
	char name[ADDRESS_MAX];
	size_t length = (size_t)(colon - address - 4);
	memcpy(name, address + 4, length);
	name[length] = '\0';
	*ret_port = (unsigned)strtoul(colon + 1, NULL, 10);
	static const char *const own[] = { "127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::]" };
	for (size_t i = 0; i < ARRAY_COUNT(own); i++)
		if (strcmp(name, own[i]) == 0)
			return 0;
	link_for (l, &self->sim->hosts) {
		struct sim_host *h = container_of(l, struct sim_host, link);
		if (strcmp(h->name, name) == 0) {
			*ret_host = h;
			return 0;
		}
	}
	return -ENOENT;
}

/* The form under which a listener is found. */
static void address_key(bool local, unsigned port, const char *address, char ret_key[ADDRESS_MAX])
{
	if (local)
		snprintf(ret_key, ADDRESS_MAX, "%s", address);
	else
		snprintf(ret_key, ADDRESS_MAX, "tcp:%u", port);
}

static struct sim_listener *listener_find(struct sim *sim, const struct sim_host *host, const char *key)
{
	link_for (l, &sim->listeners) {
		struct sim_listener *x = container_of(l, struct sim_listener, all);
		char own[ADDRESS_MAX];
		bool local = strncmp(x->address, "unix:", 5) == 0;
		address_key(local, local ? 0 : (unsigned)strtoul(strrchr(x->address, ':') + 1, NULL, 10), x->address, own);
		if (x->host == host && !x->closed && strcmp(own, key) == 0)
			return x;
	}
	return NULL;
}

static void listener_drop(struct sim_listener *l)
{
	if (--l->refs == 0)
		free(l);
}

static void listener_shut(struct sim_listener *l)
{
	if (l->closed)
		return;
	l->closed = true;
	link_drop(&l->all);
	while (!link_empty(&l->pending))
		stream_free(container_of(l->pending.next, struct sim_stream, link));
	fiber_cond_wake(&l->wake);
}

int sim_stream_listen(struct env *env, const char *address, struct listener **ret_listener)
{
	struct sim_process *p = process_of(env);
	struct sim_host *host;
	bool local;
	unsigned port;
	char key[ADDRESS_MAX];
	int r = sim_call_wait(p);
	if (r == 0)
		r = address_parse(p->host, address, &host, &local, &port);
	if (r == 0 && host != p->host)
		r = -EADDRNOTAVAIL;
	if (r < 0)
		return r;
	if (!local && port == 0)
		port = p->sim->next_port++;
	address_key(local, port, address, key);
	if (listener_find(p->sim, p->host, key))
		return -EADDRINUSE;
	struct sim_listener *l = sim_alloc(sizeof *l);
	l->listener.env = env;
	l->process = p;
	l->host = p->host;
	l->refs = 1;
	if (local)
		snprintf(l->address, sizeof l->address, "%s", address);
	else
		snprintf(l->address, sizeof l->address, "tcp:%s:%u", p->host->name, port);
	link_init(&l->pending);
	fiber_cond_init(&l->wake);
	link_push(&p->listeners, &l->link);
	link_push(&p->sim->listeners, &l->all);
	*ret_listener = &l->listener;
	return 0;
}

int sim_stream_accept(struct listener *listener, struct stream **ret_stream)
{
	struct sim_listener *l = container_of(listener, struct sim_listener, listener);
	l->refs++;
	while (!l->closed && link_empty(&l->pending))
		fiber_cond_wait(&l->process->env.loop, &l->wake);
	int r = l->closed ? -ESHUTDOWN : 0;
	if (r == 0) {
		struct sim_stream *s = container_of(link_pop(&l->pending), struct sim_stream, link);
		l->pending_count--;
		link_push(&l->process->streams, &s->link);
		*ret_stream = &s->stream;
	}
	listener_drop(l);
	return r;
}

void sim_listener_close(struct listener *listener)
{
	struct sim_listener *l = container_of(listener, struct sim_listener, listener);
	listener_shut(l);
	link_drop(&l->link);
	listener_drop(l);
}

const char *sim_listener_address(struct listener *listener)
{
	return container_of(listener, struct sim_listener, listener)->address;
}

/* ---- connecting ---- */

int sim_stream_connect(struct env *env, const char *address, uint64_t timeout_ns, struct stream **ret_stream)
{
	struct sim_process *p = process_of(env);
	struct sim *sim = p->sim;
	struct sim_host *host;
	bool local;
	unsigned port;
	char key[ADDRESS_MAX];
	int r = address_parse(p->host, address, &host, &local, &port);
	if (r == 0)
		r = sim_sleep(p, sim_latency(sim, sim->doses.net_ns, 200000));
	if (r < 0)
		return r;
	if (!local && (cut_between(sim, p->host, host) || cut_between(sim, host, p->host))) {
		r = sim_sleep(p, timeout_ns ? timeout_ns : CONNECT_GIVE_UP_NS);
		return r < 0 ? r : -ETIMEDOUT;
	}
	address_key(local, port, address, key);
	struct sim_listener *l = listener_find(sim, host, key);
	if (!l || l->pending_count >= BACKLOG || sim_happens(sim, SIM_CONNECT_REFUSED, sim->doses.connect_refused))
		return -ECONNREFUSED;
	struct sim_stream *mine = stream_new(p, host, local), *theirs = stream_new(l->process, p->host, local);
	mine->peer = theirs;
	theirs->peer = mine;
	link_push(&p->streams, &mine->link);
	link_push(&l->pending, &theirs->link);
	l->pending_count++;
	fiber_cond_wake(&l->wake);
	sim_trace(sim, p, "connected", l->process->number, 0);
	r = sim_sleep(p, sim_latency(sim, sim->doses.net_ns, 200000));
	if (r < 0) {
		sim_stream_close(&mine->stream);
		return r;
	}
	*ret_stream = &mine->stream;
	return 0;
}

/* ---- a process dies: the kernel closes for it, or power is gone and nobody says anything ---- */

void sim_net_process_died(struct sim_process *p, bool power)
{
	link_for (l, &p->listeners)
		listener_shut(container_of(l, struct sim_listener, link));
	link_for (l, &p->streams) {
		struct sim_stream *s = container_of(l, struct sim_stream, link);
		s->shut = true;
		sends_fail(s, -ESHUTDOWN);
		if (s->recv)
			recv_end(s, -ESHUTDOWN);
		pieces_drop(s);
		if (power && s->peer && sim_random(p->sim) & 1)
			pieces_drop(s->peer);
		stream_part(s, power);
	}
}
