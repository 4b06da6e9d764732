#include "proto/channel.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/blk.h"
#include "core/bytes.h"

static void channel_received(struct job *j);

/* ---- below: the stream, or TLS over one ---- */

static void below_recv(struct channel *c, struct stream_io *io, struct job *parent)
{
	if (c->tls)
		tls_recv(c->tls, io, parent);
	else
		stream_recv(c->stream, io, parent);
}

static void below_send(struct channel *c, struct stream_io *io, struct job *parent)
{
	if (c->tls)
		tls_send(c->tls, io, parent);
	else
		stream_send(c->stream, io, parent);
}

static void below_shutdown(struct channel *c)
{
	if (c->tls)
		tls_shutdown(c->tls);
	else
		stream_shutdown(c->stream);
}

/* ---- */

int channel_init(struct channel *c, struct env *env, struct stream *stream, struct tls *tls, const struct channel_ops *ops)
{
	*c = (struct channel){ .env = env, .stream = stream, .tls = tls, .ops = ops };
	c->rx = malloc(CHANNEL_RX_BYTES);
	if (!c->rx)
		return -ENOMEM;
	c->received_ns = c->sent_ns = env_now_ns(env);
	c->need = FRAME_PREFIX_BYTES;
	return 0;
}

void channel_destroy(struct channel *c)
{
	assert(!c->receiving && c->sending == 0);
	stream_close(c->stream);
	tls_close(c->tls);
	free(c->rx);
	c->stream = NULL;
	c->tls = NULL;
	c->rx = NULL;
}

/* The next places to receive into: the rest of the payload, then the buffer. Sets direct. */
static int channel_places(struct channel *c)
{
	int n = 0;
	uint64_t skip = c->to_done, left = c->in_payload && c->to ? c->to_bytes - c->to_done : 0;
	c->direct = 0;
	for (int i = 0; i < c->to_count && left > 0 && n < CHANNEL_IOV - 1; i++) {
		if (skip >= c->to[i].iov_len) {
			skip -= c->to[i].iov_len;
			continue;
		}
		size_t length = MIN(c->to[i].iov_len - skip, left);
		c->iov[n++] = (struct iovec){ (char *)c->to[i].iov_base + skip, length };
		skip = 0;
		left -= length;
		c->direct += length;
	}
	if (left > 0)
		return n;
	if (c->start > 0) {
		memmove(c->rx, c->rx + c->start, c->end - c->start);
		c->end -= c->start;
		c->start = 0;
	}
	size_t want = (c->need > c->end ? c->need - c->end : 0) + CHANNEL_AHEAD_BYTES;
	c->iov[n++] = (struct iovec){ c->rx + c->end, MIN(want, CHANNEL_RX_BYTES - c->end) };
	return n;
}

static void channel_receive(struct channel *c)
{
	int count = channel_places(c);
	size_t minimum = c->direct;
	if (minimum == 0)
		minimum = c->in_payload ? 1 : c->need - c->end;
	c->io = (struct stream_io){ .iov = c->iov, .iov_count = count, .minimum = minimum };
	job_init(&c->job, &c->env->loop);
	below_recv(c, &c->io, &c->job);
	job_then(&c->job, channel_received);
}

/* Runs the receiving side from the ready queue, whether or not it will receive. */
static void channel_kick(struct channel *c)
{
	c->receiving = true;
	c->io = (struct stream_io){ 0 };
	c->direct = 0;
	job_init(&c->job, &c->env->loop);
	job_then(&c->job, channel_received);
}

void channel_start(struct channel *c)
{
	channel_kick(c);
}

void channel_resume(struct channel *c)
{
	if (!c->paused || c->down)
		return;
	c->paused = false;
	if (!c->receiving)
		channel_kick(c);
}

void channel_payload_to(struct channel *c, const struct iovec *iov, int count)
{
	c->to = iov;
	c->to_count = count;
}

static bool channel_take_payload(struct channel *c)
{
	uint64_t n = MIN(c->end - c->start, c->to_bytes - c->to_done);
	if (c->to && n > 0)
		iov_scatter(c->to, c->to_count, c->to_done, c->rx + c->start, n);
	c->start += n;
	c->to_done += n;
	return c->to_done == c->to_bytes;
}

static int channel_take_header(struct channel *c)
{
	struct frame f;
	int r = frame_decode(c->rx + c->start, c->end - c->start, &f, &c->need);
	if (r < 0)
		return r;
	c->to = NULL;
	c->to_count = 0;
	c->paused = true; /* before the call, so that a resume from within it counts */
	r = c->ops->header(c, &f);
	if (r == -EAGAIN)
		return r;
	c->paused = false;
	if (r < 0)
		return r;
	c->start += c->need;
	c->need = FRAME_PREFIX_BYTES;
	c->to_bytes = f.payload_bytes;
	c->to_done = 0;
	c->in_payload = true;
	return 0;
}

static void channel_take(struct channel *c)
{
	while (!c->down && !c->paused) {
		if (!c->in_payload) {
			int r = channel_take_header(c);
			if (r < 0 && r != -EAGAIN)
				channel_down(c, r);
			if (r < 0 && (r != -EAGAIN || c->paused || c->end - c->start < c->need))
				return;
		} else if (channel_take_payload(c)) {
			c->in_payload = false;
			c->ops->frame(c);
		} else {
			return;
		}
	}
}

static void channel_idle_maybe(struct channel *c)
{
	if (c->down && !c->receiving && c->sending == 0)
		c->ops->idle(c);
}

static void channel_received(struct job *j)
{
	struct channel *c = container_of(j, struct channel, job);
	if (!c->down && j->status < 0)
		channel_down(c, -ENOTCONN);
	if (!c->down) {
		uint64_t direct = MIN(c->io.done, c->direct);
		c->to_done += direct;
		c->end += c->io.done - direct;
		if (c->io.done > 0)
			c->received_ns = env_now_ns(c->env);
		channel_take(c);
	}
	if (!c->down && !c->paused) {
		channel_receive(c);
		return;
	}
	c->receiving = false;
	channel_idle_maybe(c);
}

void channel_down(struct channel *c, int status)
{
	if (c->down)
		return;
	c->down = true;
	below_shutdown(c);
	if (!c->receiving)
		channel_kick(c); /* so that idle() comes, and from a job */
	c->ops->down(c, status);
}

/* ---- sending ---- */

void channel_send_init(struct channel_send *s)
{
	s->channel = NULL;
	s->active = false;
	s->bytes = NULL;
}

void channel_send_clean(struct channel_send *s)
{
	assert(!s->active);
	if (s->bytes != s->inline_bytes)
		free(s->bytes);
	s->bytes = NULL;
}

int channel_send_pack(struct channel_send *s, enum frame_kind kind, const Aquifer__Envelope *e,
		      const ProtobufCMessage *body, uint64_t payload_bytes)
{
	size_t bytes = frame_bytes(e, body);
	if (bytes > FRAME_PREFIX_BYTES + FRAME_HEADER_MAX || payload_bytes > FRAME_PAYLOAD_MAX)
		return -EMSGSIZE;
	channel_send_clean(s);
	s->bytes = bytes <= sizeof s->inline_bytes ? s->inline_bytes : malloc(bytes);
	if (!s->bytes)
		return -ENOMEM;
	frame_encode(kind, e, body, (uint32_t)payload_bytes, s->bytes);
	s->head = (struct iovec){ s->bytes, bytes };
	return 0;
}

static void channel_sent(struct job *j)
{
	struct channel_send *s = container_of(j, struct channel_send, job);
	struct channel *c = s->channel;
	if (j->status < 0)
		channel_down(c, -ENOTCONN); /* while still active: down() must not think that it is over */
	else
		c->sent_ns = env_now_ns(c->env);
	s->active = false;
	c->sending--;
	bool last = c->down && !c->receiving && c->sending == 0;
	s->done(s, j->status);
	if (last)
		c->ops->idle(c);
}

void channel_send(struct channel *c, struct channel_send *s, uint64_t id, const struct iovec *payload, int count,
		  void (*done)(struct channel_send *s, int status))
{
	assert(!c->down && !s->active && s->bytes);
	frame_seal(s->bytes, id);
	if (c->sending++ == 0)
		c->sent_ns = env_now_ns(c->env);
	s->channel = c;
	s->done = done;
	s->active = true;
	s->head_io = (struct stream_io){ .iov = &s->head, .iov_count = 1 };
	job_init(&s->job, &c->env->loop);
	below_send(c, &s->head_io, &s->job);
	if (count > 0) {
		s->payload_io = (struct stream_io){ .iov = payload, .iov_count = count };
		below_send(c, &s->payload_io, &s->job);
	}
	job_then(&s->job, channel_sent);
}
