#include "server/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/version.h"
#include "parallax/segment/segment_wire.h"

struct server {
	struct env *env;
	struct segment_server *segments;
	struct rpc_server *rpc;
	const struct server_rules *rules;
	void (*scrub)(void *arg, struct rpc_request *r); /* NULL: nobody does */
	void *scrub_arg;
	struct link free; /* server_op.link */
};

/* One operation, from its request to its reply; it lives as long as the request. */
struct server_op {
	struct job job;
	struct link link;
	struct server *server;
	struct rpc_request *request;
	struct segment_io io;
	struct iovec iov;
	uint8_t *bits; /* STAT: what is free, LIST: what has changed, if that is wanted */
};

static struct server_op *server_op_get(struct server *s)
{
	struct link *l = link_pop(&s->free);
	struct server_op *op = l ? container_of(l, struct server_op, link) : malloc(sizeof *op);
	if (!op)
		return NULL;
	*op = (struct server_op){ .server = s };
	link_init(&op->link);
	return op;
}

/* What people should read when an operation is refused; the status alone decides. */
static const char *server_text(int status)
{
	switch (status) {
	case -EPERM: return "the segment is fenced above this epoch";
	case -ESTALE: return "the copy isn't whole, or the server was restarted since";
	case -EROFS: return "the segment is sealed";
	case -EINVAL: return "that isn't where the copy ends";
	case -ENOENT: return "the server has no copy of this segment";
	case -EEXIST: return "the server has a copy of this segment already";
	case -ENOSPC: return "the server is full";
	case -EIO: return "the server's disk reported an error";
	case -EPROTONOSUPPORT: return "what is there is of a newer version than this server knows (upgrade it)";
	default: return NULL;
	}
}

static void server_reply(struct server_op *op)
{
	struct server *s = op->server;
	struct segment_io *io = &op->io;
	Aquifer__Segment__Reply m;
	uint32_t bytes = io->op == SEGMENT_READ ? op->request->reply_limit : segment_fills(io->op) ? io->filled : 0;
	segment_wire_reply(io, &m);
	if (io->op != SEGMENT_APPEND && io->op != SEGMENT_READ) {
		m.free_bytes = s->segments->free_bytes;
		m.total_bytes = s->segments->total_bytes;
	}
	rpc_reply_bytes(op->request, &m.base, bytes);
}

static void server_done(struct job *j)
{
	struct server_op *op = container_of(j, struct server_op, job);
	struct server *s = op->server;
	uint8_t *bits = op->bits;
	if (j->status < 0)
		rpc_reply(op->request, j->status, server_text(j->status), NULL, NULL, 0);
	else
		server_reply(op);
	free(bits);
	link_push(&s->free, &op->link);
}

static void server_info(struct server *s, struct rpc_request *r)
{
	Aquifer__Segment__Info m = AQUIFER__SEGMENT__INFO__INIT;
	m.server.data = s->segments->id.bytes;
	m.server.len = sizeof s->segments->id.bytes;
	m.incarnation = s->segments->incarnation;
	m.free_bytes = s->segments->free_bytes;
	m.total_bytes = s->segments->total_bytes;
	m.software = (char *)(uintptr_t)"aquifer " AQ_VERSION;
	m.protocol = rpc_protocol_newest;
	rpc_reply_bytes(r, &m.base, 0);
}

/* How the keeper's work goes. */
static void server_status(struct server *s, struct rpc_request *r)
{
	Aquifer__Segment__Status m = AQUIFER__SEGMENT__STATUS__INIT;
	if (!s->rules) {
		rpc_reply(r, -EAGAIN, "the server has just begun, or is about to end", NULL, NULL, 0);
		return;
	}
	uint64_t round = r->method == AQUIFER__SEGMENT__METHOD__GC ? s->rules->gc(s->rules) : 0;
	s->rules->status(s->rules, &m);
	m.gc_rounds = round ? round : m.gc_rounds;
	rpc_reply_bytes(r, &m.base, 0);
}

/* A copy is made where its segment belongs, and said to be there only under one and the same map (R33). */
static int server_allows(const struct server *s, const struct segment_io *io, const char **ret_why)
{
	const struct server_rules *k = s->rules;
	if (io->op == SEGMENT_CREATE && k && !k->belongs(k, io->segment)) {
		*ret_why = "by the map of servers the segment doesn't belong here";
		return -ESTALE;
	}
	if (io->op == SEGMENT_HOLDS && (!k || k->map(k) != io->map || k->going == io->segment)) {
		*ret_why = "that is not the map of servers that is known here";
		return -ESTALE;
	}
	if (io->op == SEGMENT_TRIM && k && k->going == io->segment) {
		*ret_why = "the copy is about to go where the segment belongs";
		return -EAGAIN;
	}
	return 0;
}

static int server_parse(struct server_op *op, struct rpc_request *r, const char **ret_why)
{
	const Aquifer__Segment__Request *m =
		(const Aquifer__Segment__Request *)rpc_request_body(r, &aquifer__segment__request__descriptor);
	*ret_why = "that is no request";
	if (!m)
		return -EBADMSG;
	int status = segment_wire_parse(r->method, m, r->payload_bytes, r->reply_limit, &op->io, ret_why);
	if (status == 0)
		status = server_allows(op->server, &op->io, ret_why);
	if (status < 0)
		return status;
	if ((op->io.op == SEGMENT_STAT && m->want_trim) || (op->io.op == SEGMENT_LIST && m->want_changes)) {
		op->bits = malloc(MAX(SEGMENT_BITMAP_BYTES, SEGMENT_GROUPS_BYTES));
		*(op->io.op == SEGMENT_STAT ? &op->io.free_bits : &op->io.changed) = op->bits;
		*ret_why = NULL;
		if (!op->bits)
			return -ENOMEM;
	}
	bool reads = op->io.op == SEGMENT_READ || segment_fills(op->io.op);
	op->iov.iov_base = reads ? r->reply_payload : r->payload;
	op->iov.iov_len = reads ? r->reply_limit : r->payload_bytes;
	if (op->iov.iov_len > 0) {
		op->io.iov = &op->iov;
		op->io.iov_count = 1;
	}
	return 0;
}

static void server_handle(void *arg, struct rpc_request *r)
{
	struct server *s = arg;
	if (r->method == AQUIFER__SEGMENT__METHOD__INFO) {
		server_info(s, r);
		return;
	}
	if (r->method == AQUIFER__SEGMENT__METHOD__STATUS || r->method == AQUIFER__SEGMENT__METHOD__GC) {
		server_status(s, r);
		return;
	}
	if (r->method == AQUIFER__SEGMENT__METHOD__SCRUB && s->scrub) {
		s->scrub(s->scrub_arg, r);
		return;
	}
	struct server_op *op = server_op_get(s);
	const char *why = NULL;
	int status = op ? server_parse(op, r, &why) : -ENOMEM;
	if (status < 0) {
		if (op)
			link_push(&s->free, &op->link);
		rpc_reply(r, status, why, NULL, NULL, 0);
		return;
	}
	op->request = r;
	job_init(&op->job, &s->env->loop);
	segment_submit(s->segments, &op->io, &op->job);
	job_then(&op->job, server_done);
}

static struct server *server_new(struct env *env, struct segment_server *segments)
{
	struct server *s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	s->env = env;
	s->segments = segments;
	link_init(&s->free);
	return s;
}

enum { FILES_OTHER = 128 }; /* the catalog, other servers, what is under way */

static unsigned connections(const struct server_limits *l) { return l->connections_max ? l->connections_max : SERVER_CONNECTIONS_DEFAULT; }

uint64_t server_wants_files(const struct server_limits *limits) { return (uint64_t)connections(limits) + SEGMENT_FILES_DEFAULT + FILES_OTHER; }

unsigned server_share_files(uint64_t files, struct server_limits *limits)
{
	uint64_t rest = files > 2 * FILES_OTHER ? files - FILES_OTHER : files / 2;
	unsigned segments = (unsigned)MIN(rest / 4, (uint64_t)SEGMENT_FILES_DEFAULT), wanted = connections(limits);
	limits->connections_max = (unsigned)MIN(MAX(rest - segments, UINT64_C(1)), (uint64_t)wanted);
	return MAX((unsigned)MIN(rest - limits->connections_max, (uint64_t)SEGMENT_FILES_DEFAULT), 1u);
}

static struct rpc_server_options server_options(struct server *s, const struct server_limits *limits)
{
	return (struct rpc_server_options){
		.service = SEGMENT_SERVICE,
		.handle = server_handle,
		.arg = s,
		.connections_max = connections(limits),
		.in_flight = limits->in_flight,
		.pool_bytes = limits->pool_bytes,
		.roles = limits->roles,
	};
}

int server_start(struct env *env, struct listener *listener, struct segment_server *segments,
		 const struct server_limits *limits, struct server **ret_server)
{
	struct server *s = server_new(env, segments);
	if (!s) {
		listener_close(listener);
		return -ENOMEM;
	}
	struct rpc_server_options o = server_options(s, limits);
	int r = rpc_listen_on(env, listener, &o, &s->rpc);
	if (r < 0) {
		free(s);
		return r;
	}
	*ret_server = s;
	return 0;
}

int server_create(struct env *env, struct segment_server *segments, const struct server_limits *limits,
		  struct server **ret_server)
{
	struct server *s = server_new(env, segments);
	if (!s)
		return -ENOMEM;
	struct rpc_server_options o = server_options(s, limits);
	int r = rpc_server_create(env, &o, &s->rpc);
	if (r < 0) {
		free(s);
		return r;
	}
	*ret_server = s;
	return 0;
}

void server_rules(struct server *s, const struct server_rules *rules) { s->rules = rules; }

void server_scrubber(struct server *s, void (*handle)(void *arg, struct rpc_request *r), void *arg)
{
	s->scrub = handle;
	s->scrub_arg = arg;
}

struct rpc_server *server_rpc(struct server *s)
{
	return s->rpc;
}

void server_stop(struct server *s, uint64_t drain_ns)
{
	if (!s)
		return;
	rpc_server_close(s->rpc, drain_ns);
	for (struct link *l; (l = link_pop(&s->free));)
		free(container_of(l, struct server_op, link));
	free(s);
}
