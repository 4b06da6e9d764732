/* The data path of an NBD connection. One receiver job reads many requests with one system call,
 * cuts them out of its buffer and starts them; each lives in a slot of a pool made when the
 * connection was, and is answered when it has ended, in any order:
 *
 *   rx_more ─▶ rx_came ─▶ rx_parse ─▶ request_begin ─▶ …_submit ─▶ …_ended ─▶ request_reply ─▶ request_over
 *      ▲           │         │ no slot, or no memory                  ▲  │ pieces left             │
 *      └───────────┴─────────┴─▶ rx_block ─▶ rx_resume                └──┘         wakes rx_block ◀┘
 *
 * Small payloads are copied out of the buffer; of a large one the rest is received straight into its
 * own page-aligned memory, with the next request's head behind it. Replies queued in one turn of the
 * loop leave together (env's doing).
 *
 * A client that doesn't take its answers is disconnected after a while (nbd_unread.h).
 *
 * Back-pressure is not reading: when slots or memory are short the receiver stops, and what the
 * client has already sent stays where it is. A request that is refused costs a slot and no memory;
 * its payload is read past. Written data is private to its request, so nothing is BLK_UNSTABLE. */
#include "agent/exports/nbd_transmission.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/exports/nbd_unread.h"
#include "agent/exports/nbd_wire.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "core/plant.h"

#define RX_BYTES (256u << 10)     /* of the receive buffer */
#define LARGE_BYTES (32u << 10)   /* payloads from here on are worth receiving in place */
#define PIECES 4u                 /* parts of one request that the node has at a time */
#define EXTENTS_MAX 1024u         /* in one answer to BLOCK_STATUS */

struct nbd_request {
	struct job job;
	struct nbd_transmission *t;
	struct nbd_request *next_free;
	struct nbd_request_head head;
	uint64_t done;            /* bytes of the range that were given to the node */
	void *buffer;             /* from the slab, or NULL */
	uint32_t buffer_bytes;
	struct blk_map map;       /* BLOCK_STATUS: extents lie in `buffer` */
	struct blk_io io[PIECES];
	struct iovec iov[PIECES];
	uint8_t reply[NBD_REPLY_HEAD_MAX];
	struct iovec reply_iov[2];
	struct nbd_answer answer;
};

struct nbd_transmission {
	struct nbd_service *service;
	struct stream *stream;
	struct nbd_limits limits;
	struct job over;                /* held by the receiver and by each request */
	bool closing;                   /* take no more requests */
	/* the receiver */
	struct job rx_job;
	struct stream_io rx_io;
	struct iovec rx_iov[2];
	uint8_t *rx;                    /* RX_BYTES */
	uint32_t rx_start, rx_end;      /* what came and isn't used yet */
	struct nbd_request *filling;    /* a WRITE whose payload is coming … */
	uint32_t filled;                /* … of which so many bytes are here */
	uint64_t drain;                 /* bytes to read past */
	bool large;                     /* the last payload was a large one: expect another */
	bool blocked;                   /* for want of a slot or of memory */
	struct link starved;            /* in service->starved while it waits for others' memory */
	/* requests */
	struct nbd_request *requests;   /* all */
	struct nbd_request *free;
	unsigned in_flight;
	uint64_t bytes;                 /* of buffers */
	struct nbd_unread unread;
	bool rx_gone;                   /* nothing is received any more */
};

/* ---- memory ---- */

static void rx_resume(struct job *job);

static void rx_wake(struct nbd_transmission *t)
{
	if (!t->blocked)
		return;
	t->blocked = false;
	job_put(&t->rx_job, 0);
}

static void wake_first(struct nbd_service *s)
{
	if (!link_empty(&s->starved))
		rx_wake(container_of(s->starved.next, struct nbd_transmission, starved));
}

/* It doesn't wait for others' memory any more; there may be some for the next. */
static void leave_queue(struct nbd_transmission *t)
{
	if (link_empty(&t->starved))
		return;
	link_drop(&t->starved);
	wake_first(t->service);
}

/* -EAGAIN: not now (somebody who gives back will wake us). -ENOMEM: the machine is out of it. */
static int buffer_get(struct nbd_transmission *t, uint32_t bytes, void **ret_buffer)
{
	struct nbd_service *s = t->service;
	uint64_t total = t->bytes + slab_class_bytes(bytes);
	if (total > NBD_CONNECTION_BYTES)
		return -EAGAIN;
	bool others = !link_empty(&s->starved) && s->starved.next != &t->starved; /* who needs much would never get it, if who needs little took what is given back */
	if (total > NBD_SHARE_BYTES && (others || s->slab.used + slab_class_bytes(bytes) > NBD_SERVICE_BYTES)) {
		if (link_empty(&t->starved))
			link_push(&s->starved, &t->starved);
		return -EAGAIN;
	}
	leave_queue(t);
	void *b = slab_get(&s->slab, bytes);
	if (!b)
		return -ENOMEM;
	t->bytes = total;
	*ret_buffer = b;
	return 0;
}

static void request_free_buffer(struct nbd_request *r)
{
	struct nbd_transmission *t = r->t;
	if (!r->buffer)
		return;
	slab_put(&t->service->slab, r->buffer, r->buffer_bytes);
	t->bytes -= slab_class_bytes(r->buffer_bytes);
	r->buffer = NULL;
	wake_first(t->service);
}

/* ---- requests: the answer ---- */

/* True when the node and the client owe each other nothing but a payload that is still coming. */
static bool transmission_quiet(const struct nbd_transmission *t)
{
	return t->in_flight == (t->filling ? 1 : 0);
}

/* The slot is free again; the connection may be over with it. */
static void request_release(struct nbd_request *r)
{
	struct nbd_transmission *t = r->t;
	request_free_buffer(r);
	r->next_free = t->free;
	t->free = r;
	t->in_flight--;
	rx_wake(t);
	if (t->closing && transmission_quiet(t))
		stream_shutdown(t->stream);
	if (t->rx_gone && t->in_flight == 0)
		nbd_unread_stop(&t->unread);
	job_put(&t->over, 0);
}

static void request_over(struct job *job)
{
	struct nbd_request *r = container_of(job, struct nbd_request, job);
	nbd_unread_taken(&r->t->unread, &r->answer);
	request_release(r);
}

static uint32_t request_put_extents(struct nbd_request *r);

/* Writes the answer's head and finds its data; returns the head's length. */
static uint32_t request_compose(struct nbd_request *r, int status, uint32_t *ret_data_bytes)
{
	const struct nbd_request_head *h = &r->head;
	bool chunk = r->t->limits.structured && (h->type == NBD_CMD_READ || h->type == NBD_CMD_BLOCK_STATUS);
	*ret_data_bytes = 0;
	if (chunk && status)
		return nbd_put_chunk_error(r->reply, h->cookie, status);
	if (status == 0 && h->type == NBD_CMD_BLOCK_STATUS) {
		uint32_t count = request_put_extents(r);
		*ret_data_bytes = nbd_status_bytes(count);
		return nbd_put_chunk_status(r->reply, h->cookie, NBD_CONTEXT_ALLOCATION, count);
	}
	if (status == 0 && h->type == NBD_CMD_READ)
		*ret_data_bytes = h->length;
	return chunk ? nbd_put_chunk_data(r->reply, h->cookie, h->offset, h->length)
		     : nbd_put_simple(r->reply, h->cookie, status);
}

/* Last statement of a step. */
static void request_reply(struct nbd_request *r, int status)
{
	uint32_t data_bytes;
	uint32_t head_bytes = request_compose(r, status, &data_bytes);
	if (data_bytes == 0)
		request_free_buffer(r);
	r->reply_iov[0] = (struct iovec){ r->reply, head_bytes };
	r->reply_iov[1] = (struct iovec){ r->buffer, data_bytes };
	r->answer.send = (struct stream_io){ .iov = r->reply_iov, .iov_count = data_bytes ? 2 : 1 };
	nbd_unread_add(&r->t->unread, &r->answer);
	stream_send(r->t->stream, &r->answer.send, &r->job);
	job_then(&r->job, request_over);
}

/* ---- requests: READ and WRITE, and WRITE_ZEROES where the node can't ---- */

static unsigned request_fua(const struct nbd_request *r)
{
	return (r->head.flags & NBD_CMD_FLAG_FUA) && r->head.type != NBD_CMD_READ && !PLANTED(nbd_fua_forgotten)
		       ? BLK_FUA : 0;
}

/* The most the node takes at a time, a multiple of its block size. */
static uint64_t piece_bytes_max(const struct nbd_request *r)
{
	const struct blk_info *info = &r->t->service->node->info;
	uint64_t max = info->max_transfer ? info->max_transfer : SLAB_BYTES_MAX;
	return MAX(round_down(max, info->block_size), info->block_size);
}

static void pieces_ended(struct job *job);

/* Gives the node the next PIECES parts of the range, with what belongs there of the buffer; for WRITE_ZEROES the same zeroes again and again. */
static void pieces_submit(struct nbd_request *r)
{
	struct nbd_service *s = r->t->service;
	bool zeroes = r->head.type == NBD_CMD_WRITE_ZEROES;
	uint64_t piece_bytes = zeroes ? MIN(piece_bytes_max(r), NBD_ZEROES_BYTES) : piece_bytes_max(r);
	for (unsigned i = 0; i < PIECES && r->done < r->head.length; i++) {
		uint64_t n = MIN(piece_bytes, r->head.length - r->done);
		r->iov[i] = (struct iovec){ zeroes ? s->zeroes : (uint8_t *)r->buffer + r->done, n };
		r->io[i] = (struct blk_io){
			.op = r->head.type == NBD_CMD_READ ? BLK_READ : BLK_WRITE,
			.flags = request_fua(r),
			.offset = r->head.offset + r->done,
			.length = n,
			.iov = &r->iov[i],
			.iov_count = 1,
		};
		r->done += n;
		blk_submit(s->node, &r->io[i], &r->job);
	}
	job_then(&r->job, pieces_ended);
}

static void pieces_ended(struct job *job)
{
	struct nbd_request *r = container_of(job, struct nbd_request, job);
	if (job->status == 0 && r->done < r->head.length)
		pieces_submit(r);
	else
		request_reply(r, job->status);
}

/* ---- requests: FLUSH, TRIM, WRITE_ZEROES ---- */

static void simple_ended(struct job *job)
{
	struct nbd_request *r = container_of(job, struct nbd_request, job);
	if (r->head.type == NBD_CMD_WRITE_ZEROES && job->status == -ENOTSUP &&
	    !(r->head.flags & NBD_CMD_FLAG_FAST_ZERO)) {
		job->status = 0;
		pieces_submit(r);
		return;
	}
	request_reply(r, job->status);
}

static void simple_submit(struct nbd_request *r, enum blk_op op)
{
	unsigned flags = op == BLK_FLUSH ? 0 : request_fua(r);
	if (op == BLK_ZERO && !(r->head.flags & NBD_CMD_FLAG_NO_HOLE))
		flags |= BLK_MAY_UNMAP;
	if (op == BLK_ZERO && (r->head.flags & NBD_CMD_FLAG_FAST_ZERO))
		flags |= BLK_FAST_ONLY;
	r->io[0] = (struct blk_io){ .op = op, .flags = flags };
	if (op != BLK_FLUSH) {
		r->io[0].offset = r->head.offset;
		r->io[0].length = r->head.length;
	}
	blk_submit(r->t->service->node, &r->io[0], &r->job);
	job_then(&r->job, simple_ended);
}

/* ---- requests: BLOCK_STATUS ---- */

static void map_ended(struct job *job);

/* Asks the node about what is left of the range; extents go behind those known already. */
static void map_submit(struct nbd_request *r)
{
	r->io[0] = (struct blk_io){
		.op = BLK_MAP,
		.offset = r->head.offset + r->done,
		.length = r->head.length - r->done,
		.map = &r->map,
	};
	blk_submit(r->t->service->node, &r->io[0], &r->job);
	job_then(&r->job, map_ended);
}

static void map_begin(struct nbd_request *r)
{
	unsigned max = r->head.flags & NBD_CMD_FLAG_REQ_ONE ? 1 : EXTENTS_MAX;
	r->map = (struct blk_map){ .extents = r->buffer, .max = max };
	map_submit(r);
}

/* `map` is a window on the extents in `buffer`: what lies before it is known. Cuts the new ones at the
 * end of the range and moves the window behind them. -EIO if there are none. */
static int map_take(struct nbd_request *r)
{
	unsigned taken = 0;
	while (taken < r->map.count && r->done < r->head.length) {
		struct blk_extent *e = &r->map.extents[taken];
		if (e->length == 0)
			return -EIO;
		e->length = MIN(e->length, r->head.length - r->done);
		r->done += e->length;
		taken++;
	}
	r->map.extents += taken;
	r->map.max -= taken;
	r->map.count = 0;
	return taken ? 0 : -EIO;
}

static void map_ended(struct job *job)
{
	struct nbd_request *r = container_of(job, struct nbd_request, job);
	int status = job->status;
	if (status == 0)
		status = map_take(r);
	if (status == 0 && r->done < r->head.length && r->map.max)
		map_submit(r);
	else
		request_reply(r, status);
}

/* Turns the extents in `buffer` into the wire's, in place (those are smaller), neighbours of a kind merged. */
static uint32_t request_put_extents(struct nbd_request *r)
{
	const struct blk_extent *extents = r->buffer;
	unsigned known = (unsigned)(r->map.extents - extents);
	uint32_t count = 0, length = 0;
	for (unsigned i = 0; i < known; i++) {
		struct blk_extent e = extents[i]; /* the wire's extent may lie on it */
		bool same_as_next = i + 1 < known && extents[i + 1].flags == e.flags;
		length += (uint32_t)e.length;
		if (same_as_next)
			continue;
		nbd_put_extent((uint8_t *)r->buffer + nbd_status_bytes(count++), length, e.flags);
		length = 0;
	}
	return count;
}

/* ---- requests: the beginning ---- */

static void request_submit(struct nbd_request *r)
{
	switch (r->head.type) {
	case NBD_CMD_READ:
	case NBD_CMD_WRITE:
		pieces_submit(r);
		break;
	case NBD_CMD_FLUSH:
		simple_submit(r, BLK_FLUSH);
		break;
	case NBD_CMD_TRIM:
		simple_submit(r, BLK_DISCARD);
		break;
	case NBD_CMD_WRITE_ZEROES:
		simple_submit(r, BLK_ZERO);
		break;
	case NBD_CMD_BLOCK_STATUS:
		map_begin(r);
		break;
	default: /* CACHE: nothing here is made faster by reading it before it is wanted */
		request_reply(r, 0);
		break;
	}
}

static uint32_t request_buffer_bytes(const struct nbd_request_head *h)
{
	if (h->type == NBD_CMD_READ || h->type == NBD_CMD_WRITE)
		return h->length;
	return h->type == NBD_CMD_BLOCK_STATUS ? EXTENTS_MAX * (uint32_t)sizeof(struct blk_extent) : 0;
}

static struct nbd_request *request_take(struct nbd_transmission *t, const struct nbd_request_head *head, void *buffer)
{
	struct nbd_request *r = t->free;
	t->free = r->next_free;
	t->in_flight++;
	job_hold(&t->over);
	job_init(&r->job, &t->service->env->loop);
	r->head = *head;
	r->done = 0;
	r->buffer = buffer;
	r->buffer_bytes = buffer ? request_buffer_bytes(head) : 0;
	return r;
}

/* ---- the receiver ---- */

static void rx_over(struct nbd_transmission *t)
{
	struct nbd_request *unfinished = t->filling;
	t->filling = NULL;
	leave_queue(t);
	t->rx_gone = true;
	if (unfinished)
		request_release(unfinished);
	if (t->in_flight == 0)
		nbd_unread_stop(&t->unread);
	job_put(&t->over, 0);
}

/* Waits until rx_wake(). */
static void rx_block(struct nbd_transmission *t)
{
	t->blocked = true;
	job_hold(&t->rx_job);
	job_then(&t->rx_job, rx_resume);
}

enum rx_result { RX_TAKEN, RX_BLOCKED, RX_OVER };

/* Begins the request at rx_start. If it can't now, nothing of it is used up. */
static enum rx_result rx_request(struct nbd_transmission *t)
{
	struct nbd_request_head head;
	if (nbd_get_request(t->rx + t->rx_start, &head) < 0 || head.type == NBD_CMD_DISC)
		return RX_OVER;
	if (!t->free)
		return RX_BLOCKED;
	t->limits.size = t->service->node->info.size; /* it may have grown */
	int status = nbd_check_request(&head, &t->limits);
	void *buffer = NULL;
	if (status == 0 && request_buffer_bytes(&head))
		status = buffer_get(t, request_buffer_bytes(&head), &buffer);
	if (status == -EAGAIN)
		return RX_BLOCKED;
	t->rx_start += NBD_REQUEST_BYTES;
	t->large = head.type == NBD_CMD_WRITE && head.length >= LARGE_BYTES;
	struct nbd_request *r = request_take(t, &head, buffer);
	if (status) {
		t->drain = head.type == NBD_CMD_WRITE && !PLANTED(nbd_payload_not_drained) ? head.length : 0;
		request_reply(r, status);
	} else if (head.type == NBD_CMD_WRITE) {
		t->filling = r;
		t->filled = 0;
	} else {
		request_submit(r);
	}
	return RX_TAKEN;
}

/* Uses what came for a payload that is awaited. True when it is complete, or none is awaited. */
static bool rx_payload(struct nbd_transmission *t)
{
	uint32_t have = t->rx_end - t->rx_start;
	if (t->drain) {
		uint32_t n = (uint32_t)MIN(have, t->drain);
		t->rx_start += n;
		t->drain -= n;
		return t->drain == 0;
	}
	struct nbd_request *r = t->filling;
	if (!r)
		return true;
	uint32_t n = MIN(have, r->head.length - t->filled);
	memcpy((uint8_t *)r->buffer + t->filled, t->rx + t->rx_start, n);
	t->rx_start += n;
	t->filled += n;
	if (t->filled < r->head.length)
		return false;
	t->filling = NULL;
	request_submit(r);
	return true;
}

static void rx_more(struct nbd_transmission *t);

/* Last statement of a step. */
static void rx_parse(struct nbd_transmission *t)
{
	while (rx_payload(t)) {
		if (t->closing) {
			rx_over(t);
			return;
		}
		if (t->rx_end - t->rx_start < NBD_REQUEST_BYTES)
			break;
		enum rx_result result = rx_request(t);
		if (result == RX_BLOCKED) {
			rx_block(t);
			return;
		}
		if (result == RX_OVER) {
			rx_over(t);
			return;
		}
	}
	rx_more(t);
}

static void rx_resume(struct job *job)
{
	rx_parse(container_of(job, struct nbd_transmission, rx_job));
}

static void rx_came(struct job *job)
{
	struct nbd_transmission *t = container_of(job, struct nbd_transmission, rx_job);
	uint32_t came = (uint32_t)t->rx_io.done;
	if (t->filling) {
		uint32_t in_place = MIN(came, t->filling->head.length - t->filled);
		t->filled += in_place;
		came -= in_place;
	}
	t->rx_end += came;
	if (t->rx_io.status < 0)
		rx_over(t);
	else
		rx_parse(t);
}

/* Receives what is awaited and, as far as it is there, what follows. Last statement of a step. */
static void rx_more(struct nbd_transmission *t)
{
	uint32_t have = t->rx_end - t->rx_start;
	memmove(t->rx, t->rx + t->rx_start, have); /* less than a request's head */
	t->rx_start = 0;
	t->rx_end = have;
	int n = 0;
	size_t minimum = t->drain ? MIN(t->drain, RX_BYTES) : NBD_REQUEST_BYTES - have;
	if (t->filling) {
		minimum = t->filling->head.length - t->filled;
		t->rx_iov[n++] = (struct iovec){ (uint8_t *)t->filling->buffer + t->filled, minimum };
	}
	/* Behind a large payload only a head is read ahead, so that the next payload needs no copying. */
	uint32_t room = (t->large && !t->drain ? NBD_REQUEST_BYTES : RX_BYTES) - have;
	t->rx_iov[n++] = (struct iovec){ t->rx + have, room };
	t->rx_io = (struct stream_io){ .iov = t->rx_iov, .iov_count = n, .minimum = minimum };
	stream_recv(t->stream, &t->rx_io, &t->rx_job);
	job_then(&t->rx_job, rx_came);
}

/* ---- the connection ---- */

/* Somebody else waits for memory and would take answers, this one has more than its share, and nobody else is about to give some back. */
static bool transmission_wanted(struct nbd_unread *u)
{
	struct nbd_transmission *t = container_of(u, struct nbd_transmission, unread);
	bool others = false;
	link_for(l, &t->service->starved)
		others |= l != &t->starved && !nbd_unread_stands(&container_of(l, struct nbd_transmission, starved)->unread);
	return others && t->service->leaving == 0 && t->bytes > NBD_SHARE_BYTES;
}

static void transmission_stalled(struct nbd_unread *u, uint64_t for_ns)
{
	struct nbd_transmission *t = container_of(u, struct nbd_transmission, unread);
	const struct nbd_service *s = t->service;
	uint32_t pid = stream_peer_pid(t->stream);
	char who[32] = "";
	if (pid)
		snprintf(who, sizeof who, " (pid %u)", pid);
	if (s->log)
		s->log("%s: an NBD client%s has not taken its answers for %llu s, and others wait for the memory they take: disconnected", s->name, who,
		       (unsigned long long)(for_ns / NS_PER_S));
	t->service->leaving++;
	t->closing = true; /* what it has asked for already, too, is more than it takes */
	rx_wake(t);
	stream_shutdown(t->stream);
}

static void transmission_free(struct nbd_transmission *t)
{
	if (!t)
		return;
	free(t->requests);
	free(t->rx);
	free(t);
}

static struct nbd_transmission *transmission_make(struct nbd_service *service, struct stream *stream,
						  const struct nbd_agreed *agreed)
{
	struct nbd_transmission *t = calloc(1, sizeof *t);
	if (!t)
		return NULL;
	t->service = service;
	t->stream = stream;
	t->limits = (struct nbd_limits){
		.block_size = service->node->info.block_size,
		.transfer_max = service->transfer_max,
		.read_only = service->read_only,
		.structured = agreed->structured,
		.map = agreed->map,
	};
	link_init(&t->starved);
	t->unread = (struct nbd_unread){ .env = service->env, .over = &t->over, .wanted = transmission_wanted, .stalled = transmission_stalled };
	nbd_unread_init(&t->unread);
	t->rx = env_alloc_aligned(RX_BYTES);
	t->requests = calloc(service->depth, sizeof *t->requests);
	if (!t->rx || !t->requests) {
		transmission_free(t);
		return NULL;
	}
	for (unsigned i = 0; i < service->depth; i++) {
		t->requests[i].t = t;
		t->requests[i].next_free = t->free;
		t->free = &t->requests[i];
	}
	return t;
}

int nbd_transmission_run(struct nbd_service *service, struct stream *stream, const struct nbd_agreed *agreed,
			 struct nbd_transmission **handle)
{
	struct nbd_transmission *t = transmission_make(service, stream, agreed);
	if (!t)
		return -ENOMEM;
	*handle = t;
	job_init(&t->over, &service->env->loop);
	job_hold(&t->over); /* the receiver's */
	job_init(&t->rx_job, &service->env->loop);
	rx_more(t);
	fiber_wait(&t->over);
	assert(t->in_flight == 0 && t->bytes == 0 && !t->blocked && link_empty(&t->starved));
	stream_shutdown(stream);
	service->leaving -= t->unread.told;
	*handle = NULL;
	transmission_free(t);
	return 0;
}

void nbd_transmission_finish(struct nbd_transmission *t)
{
	t->closing = true;
	rx_wake(t);
	if (transmission_quiet(t))
		stream_shutdown(t->stream);
}
