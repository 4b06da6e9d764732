/* The client of an aquifer-server: each segment_io becomes one call, its blocks go to the socket from where they
 * are and come from it to where they should be. Calls are pipelined; the server answers the appends of a
 * segment in order.
 *
 * What can go wrong: the connection is lost (every operation under way ends with -ENOTCONN,
 * and may have happened; a new connection is made in the background), a deadline passes
 * (-ETIMEDOUT, likewise). A server that comes back has another incarnation: appends and syncs
 * that name the old one are refused by the server itself, with -ESTALE. One address must go on
 * being one server: another one that answers there is not spoken to. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "core/plant.h"
#include "parallax/segment/segment_remote.h"
#include "parallax/segment/segment_wire.h"
#include "proto/rpc.h"

enum { PATIENT_DEADLINES = 15 }; /* packing and rebuilding are copying, and nobody waits for it */

static bool is_patient(enum segment_op op) { return op == SEGMENT_TRIM || op == SEGMENT_HOLDS || segment_fills(op); }

struct segment_remote {
	struct segment_server base;
	struct rpc_client *client;
	uint64_t deadline_ns;
	bool known;            /* base.id is */
	void (*tried)(void *arg, int status);
	void *tried_arg;
	struct link free;      /* remote_op.link; as many as were ever under way */
	unsigned busy;
	struct fiber_cond idle;
};

struct remote_op {
	struct job job;
	struct link link;
	struct segment_remote *remote;
	struct segment_io *io;
	struct segment_request request;
	struct rpc_call call;
};

static struct remote_op *remote_op_get(struct segment_remote *s)
{
	struct link *l = link_pop(&s->free);
	struct remote_op *op = l ? container_of(l, struct remote_op, link) : malloc(sizeof *op);
	if (!op)
		return NULL;
	link_init(&op->link);
	op->remote = s;
	s->busy++;
	return op;
}

/* What a failed call means for the operation. Breaches of the protocol have ended the connection. */
static int remote_status(int status)
{
	return status == -EPROTO || status == -EMSGSIZE ? -EIO : status;
}

static int remote_result(struct remote_op *op)
{
	struct segment_io *io = op->io;
	const Aquifer__Segment__Reply *m = (const Aquifer__Segment__Reply *)op->call.reply;
	if (PLANTED(remote_lost_is_done) && op->call.status == -ENOTCONN && io->op != SEGMENT_READ)
		return 0; /* it may have been carried out */
	if (op->call.status < 0)
		return remote_status(op->call.status);
	if (!m || segment_wire_result(m, io) < 0)
		return -EIO;
	if (m->total_bytes) {
		op->remote->base.free_bytes = m->free_bytes;
		op->remote->base.total_bytes = m->total_bytes;
	}
	io->filled = segment_fills(io->op) ? (uint32_t)op->call.reply_payload_bytes : 0;
	if (io->op == SEGMENT_READ && op->call.reply_payload_bytes != (uint64_t)io->blocks * BLOCK_BYTES)
		return -EIO;
	return 0;
}

static void remote_done(struct job *j)
{
	struct remote_op *op = container_of(j, struct remote_op, job);
	struct segment_remote *s = op->remote;
	struct segment_io *io = op->io;
	io->status = remote_result(op);
	io->private = NULL;
	rpc_call_clean(&op->call);
	link_push(&s->free, &op->link);
	if (--s->busy == 0)
		fiber_cond_wake(&s->idle);
	job_put(io->parent, io->status);
}

static void remote_submit(struct segment_server *base, struct segment_io *io)
{
	struct segment_remote *s = container_of(base, struct segment_remote, base);
	struct remote_op *op = remote_op_get(s);
	if (!op) {
		io->private = NULL;
		io->status = -ENOMEM;
		job_put(io->parent, io->status);
		return;
	}
	op->io = io;
	io->private = op;
	bool sends = io->op == SEGMENT_APPEND || io->op == SEGMENT_REPAIR;
	if (sends)
		io->blocks = (uint32_t)(iov_bytes(io->iov, io->iov_count) / BLOCK_BYTES);
	segment_wire_request(io, &op->request);
	rpc_call_init(&op->call, segment_wire_method(io->op), &op->request.message.base,
		      &aquifer__segment__reply__descriptor);
	op->call.deadline_ns = s->deadline_ns * (is_patient(io->op) ? PATIENT_DEADLINES : 1);
	if (sends) {
		op->call.payload = io->iov;
		op->call.payload_count = io->iov_count;
	} else if (io->op == SEGMENT_READ || segment_fills(io->op)) {
		op->call.reply_payload = io->iov;
		op->call.reply_payload_count = io->iov_count;
	}
	job_init(&op->job, &s->base.env->loop);
	rpc_submit(s->client, &op->call, &op->job);
	job_then(&op->job, remote_done);
}

/* FIBER. At each connection: who is it, and in which incarnation? */
static int remote_greet(void *arg, struct rpc_client *client, struct report *report)
{
	struct segment_remote *s = arg;
	struct rpc_call call;
	rpc_call_init(&call, AQUIFER__SEGMENT__METHOD__INFO, NULL, &aquifer__segment__info__descriptor);
	call.early = true;
	call.deadline_ns = s->deadline_ns;
	int r = rpc_call_wait(client, &call, report);
	const Aquifer__Segment__Info *m = (const Aquifer__Segment__Info *)call.reply;
	if (r == 0 && m->server.len != sizeof s->base.id.bytes)
		r = report_set(report, -EPROTO, "the server doesn't say who it is");
	else if (r == 0 && s->known && memcmp(s->base.id.bytes, m->server.data, m->server.len) != 0)
		r = report_set(report, -ESTALE, "another server answers there now");
	if (r == 0) {
		memcpy(s->base.id.bytes, m->server.data, m->server.len);
		s->base.incarnation = m->incarnation;
		s->base.free_bytes = m->free_bytes;
		s->base.total_bytes = m->total_bytes;
		s->base.protocol = m->protocol ? m->protocol : 1;
		s->known = true;
	}
	rpc_call_clean(&call);
	return r;
}

int segment_remote_call(struct segment_server *base, Aquifer__Segment__Method method, const ProtobufCMessage *request,
			const ProtobufCMessageDescriptor *reply, struct rpc_call *ret_call, struct report *report)
{
	struct segment_remote *s = container_of(base, struct segment_remote, base);
	rpc_call_init(ret_call, method, request, reply);
	ret_call->deadline_ns = s->deadline_ns;
	s->busy++; /* it isn't closed meanwhile */
	int r = rpc_call_wait(s->client, ret_call, report);
	if (--s->busy == 0)
		fiber_cond_wake(&s->idle);
	return r < 0 ? r : ret_call->reply ? 0 : -EPROTO;
}

int segment_remote_status(struct segment_server *base, bool gc, struct segment_status *ret)
{
	struct rpc_call call;
	int r = segment_remote_call(base, gc ? AQUIFER__SEGMENT__METHOD__GC : AQUIFER__SEGMENT__METHOD__STATUS, NULL,
				    &aquifer__segment__status__descriptor, &call, NULL);
	if (r == 0)
		segment_wire_status((const Aquifer__Segment__Status *)call.reply, ret);
	rpc_call_clean(&call);
	return remote_status(r);
}

static void remote_cut(struct segment_server *base) { rpc_cut(container_of(base, struct segment_remote, base)->client); }

static int remote_close(struct segment_server *base)
{
	struct segment_remote *s = container_of(base, struct segment_remote, base);
	rpc_close(s->client);
	while (s->busy > 0) /* they have their results, but perhaps not yet their ends */
		fiber_cond_wait(&base->env->loop, &s->idle);
	for (struct link *l; (l = link_pop(&s->free));)
		free(container_of(l, struct remote_op, link));
	free(s);
	return 0;
}

static void remote_cancel(struct segment_io *io)
{
	struct remote_op *op = io->private;
	if (op)
		rpc_cancel(op->remote->client, &op->call);
}

static bool remote_up(const struct segment_server *base)
{
	return rpc_connected(container_of(base, const struct segment_remote, base)->client);
}

static const char *remote_why(const struct segment_server *base)
{
	return rpc_refused(container_of(base, const struct segment_remote, base)->client);
}

static void remote_tried(void *arg, int status)
{
	struct segment_remote *s = arg;
	if (s->tried)
		s->tried(s->tried_arg, status);
}

static const struct segment_server_ops remote_ops = {
	.submit = remote_submit, .close = remote_close, .cut = remote_cut, .up = remote_up, .why = remote_why, .cancel = remote_cancel,
};

static int remote_open(struct env *env, const char *address, const uuid *id, const char *host, uint64_t deadline_ns,
		       void (*tried)(void *arg, int status), void *arg, struct segment_server **ret_server, struct report *report)
{
	struct segment_remote *s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	s->base.ops = &remote_ops;
	s->base.env = env;
	s->deadline_ns = deadline_ns;
	s->known = id != NULL;
	s->tried = tried;
	s->tried_arg = arg;
	if (id)
		s->base.id = *id;
	link_init(&s->free);
	fiber_cond_init(&s->idle);
	struct rpc_client_options o = {
		.service = SEGMENT_SERVICE,
		.reconnect = true,
		.lazy = id != NULL,
		.connect_timeout_ns = deadline_ns,
		.roles = ROLE_SERVER,
		.host = host,
		.greet = remote_greet,
		.tried = remote_tried,
		.arg = s,
	};
	int r = rpc_connect(env, address, &o, &s->client, report);
	if (r < 0) {
		free(s);
		return r;
	}
	*ret_server = &s->base;
	return 0;
}

int segment_remote_open(struct env *env, const char *address, uint64_t deadline_ns,
			struct segment_server **ret_server, struct report *report)
{
	return remote_open(env, address, NULL, NULL, deadline_ns, NULL, NULL, ret_server, report);
}

int segment_remote_start(struct env *env, const char *address, const uuid *id, const char *host, uint64_t deadline_ns,
			 void (*tried)(void *arg, int status), void *arg, struct segment_server **ret_server)
{
	return remote_open(env, address, id, host, deadline_ns, tried, arg, ret_server, NULL);
}
