/* Streams of the real world: non-blocking sockets, edge-triggered.
 *
 * A stream remembers whether its socket may have something to read and room to write, so
 * a system call is made only when it can succeed: a receive tries at once if there may be
 * data and otherwise waits for the next edge; sends are queued and leave at the end of the
 * turn in one sendmsg. Lists of sends may be longer than one call takes; partial sends go
 * on at the next edge. Sockets' own errors end what is queued; EPIPE is reported as
 * ECONNRESET. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/env_linux.h"
#include "core/fiber.h"

#define RETRY_NS (20 * NS_PER_MS) /* when a unix listener's backlog or the descriptor table is full */
#define STREAM_EVENTS (EPOLLIN | EPOLLRDHUP) /* what is always watched */
#define FLUSHES_CALM 64
/* Of a unix socket, as far as the system allows: with its usual 208 KiB, one large payload fills it and each
 * switches to the peer and back. */
#define UNIX_SEND_BYTES (1 << 20)
#define RECV_IOV 64               /* entries of one receive after a partial one */
/* Of TCP: a peer whose host has gone without a word is noticed after three minutes, also by who only waits for what it will say. */
enum { ALIVE_IDLE_S = 60, ALIVE_AGAIN_S = 15, ALIVE_TRIES = 8 };

struct stream_linux {
	struct stream stream; /* first */
	struct source source;
	int fd;
	bool readable, writable; /* as far as we know */
	bool watched_out;        /* for room to write too, see sends_watch() */
	unsigned flushes;        /* since that was last needed */
	bool hung_up;            /* the end of what comes is in the socket: reading it tells */
	bool down;               /* stream_shutdown() */
	int send_error;          /* 0 or -errno: sending has failed for good */
	struct stream_io *receive;
	struct link sends;       /* stream_io.link */
	struct link dirty;       /* in env_linux.dirty_streams */
	struct connect *connect; /* while stream_connect() waits */
};

static struct stream_linux *stream_of(struct stream *s) { return (struct stream_linux *)s; }

/* ---- receiving ---- */

static void receive_end(struct stream_linux *s, int status)
{
	struct stream_io *io = s->receive;
	s->receive = NULL;
	io->status = status;
	job_put(io->parent, status);
}

static void receive_try(struct stream_linux *s)
{
	struct stream_io *io = s->receive;
	struct iovec iov[RECV_IOV];
	while (s->readable) {
		struct msghdr m = { .msg_iov = iov };
		int count;
		size_t room = iov_rest(io->iov, io->iov_count, io->done, iov, RECV_IOV, &count);
		m.msg_iovlen = (size_t)count;
		if (room == 0 || (io->done > 0 && io->done >= io->minimum))
			break;
		ssize_t n = recvmsg(s->fd, &m, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			s->readable = false;
			break;
		}
		if (n <= 0) {
			receive_end(s, n == 0 ? -ECONNRESET : -errno);
			return;
		}
		io->done += (size_t)n;
		/* Less than asked for: the socket is empty, and the next edge is still to come. */
		if ((size_t)n < room && !s->hung_up)
			s->readable = false;
	}
	if (io->done >= io->minimum)
		receive_end(s, 0);
}

void env_linux_stream_recv(struct stream *stream, struct stream_io *io, struct job *parent)
{
	struct stream_linux *s = stream_of(stream);
	(void)parent; /* io->parent */
	assert(!s->receive);
	s->receive = io;
	if (s->down)
		receive_end(s, -ECONNRESET);
	else
		receive_try(s);
}

/* ---- sending ---- */

static void send_end(struct stream_io *io, int status)
{
	io->status = status;
	job_put(io->parent, status);
}

static void sends_end(struct stream_linux *s, int status)
{
	for (struct link *l; (l = link_pop(&s->sends));)
		send_end(container_of(l, struct stream_io, link), status);
}

/* Takes note that the kernel took `n` bytes; sends that are complete end. */
static void sends_advance(struct stream_linux *s, size_t n)
{
	link_for_safe(l, next, &s->sends) {
		struct stream_io *io = container_of(l, struct stream_io, link);
		size_t rest = 0, skip = io->sent;
		for (int i = 0; i < io->iov_count; i++) {
			size_t cut = MIN(skip, io->iov[i].iov_len);
			skip -= cut;
			rest += io->iov[i].iov_len - cut;
		}
		if (rest > n) {
			io->sent += n;
			return;
		}
		n -= rest;
		io->sent += rest;
		link_drop(l);
		send_end(io, 0);
	}
	assert(n == 0);
}

/* Gathers as much as one call takes; returns its bytes. */
static size_t sends_gather(struct env_linux *el, struct stream_linux *s, size_t *ret_count)
{
	size_t sum = 0;
	int used = 0;
	link_for(l, &s->sends) {
		const struct stream_io *io = container_of(l, struct stream_io, link);
		int count;
		sum += iov_rest(io->iov, io->iov_count, io->sent, el->send_iov + used, IOV_LIMIT - used, &count);
		used += count;
		if (used == IOV_LIMIT)
			break;
	}
	*ret_count = used;
	return sum;
}

/* A unix socket gives an edge for every piece that the peer takes out, so room to write is watched only after
 * it was missing, and until FLUSHES_CALM flushes have found enough. 0, or -errno: not watched. */
static int sends_watch(struct env_linux *el, struct stream_linux *s, bool on)
{
	struct epoll_event e = { .events = STREAM_EVENTS | EPOLLET | (on ? EPOLLOUT : 0), .data.ptr = &s->source };
	if (s->watched_out != on && epoll_ctl(el->epoll_fd, EPOLL_CTL_MOD, s->fd, &e) < 0)
		return -errno;
	s->watched_out = on;
	s->flushes = 0;
	return 0;
}

/* Sending has failed for good. */
static void sends_fail(struct stream_linux *s, int error)
{
	s->send_error = error == EPIPE ? -ECONNRESET : -error;
	sends_end(s, s->send_error);
}

static void sends_try(struct env_linux *el, struct stream_linux *s)
{
	while (s->writable && !link_empty(&s->sends)) {
		struct msghdr m = { .msg_iov = el->send_iov };
		size_t count, sum = sends_gather(el, s, &count);
		m.msg_iovlen = count;
		ssize_t n = sum ? sendmsg(s->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			/* If room came meanwhile, a change of what is watched tells at once. */
			s->writable = false;
			int r = sends_watch(el, s, /* on= */ true);
			if (r < 0)
				sends_fail(s, -r);
			return;
		}
		if (n < 0) {
			sends_fail(s, errno);
			return;
		}
		sends_advance(s, (size_t)n);
	}
	if (s->watched_out && link_empty(&s->sends) && ++s->flushes == FLUSHES_CALM)
		sends_watch(el, s, /* on= */ false);
}

void env_linux_stream_send(struct stream *stream, struct stream_io *io, struct job *parent)
{
	struct stream_linux *s = stream_of(stream);
	(void)parent; /* io->parent */
	if (s->down || s->send_error) {
		send_end(io, s->down ? -ECONNRESET : s->send_error);
		return;
	}
	link_push(&s->sends, &io->link);
	if (link_empty(&s->dirty))
		link_push(&env_linux_of(stream->env)->dirty_streams, &s->dirty);
}

void env_linux_streams_flush(struct env_linux *el)
{
	for (struct link *l; (l = link_pop(&el->dirty_streams));)
		sends_try(el, container_of(l, struct stream_linux, dirty));
}

/* ---- the life of a stream ---- */

struct connect {
	struct job wait;  /* holds: the connection's outcome, and the end of `timeout` */
	struct job timeout;
	struct timer timer;
	struct stream_linux *stream;
	int status;
};

static void connect_ended(struct stream_linux *s, int status)
{
	struct connect *c = s->connect;
	s->connect = NULL;
	c->status = status;
	timer_cancel(s->stream.env, &c->timer);
	job_put(&c->wait, 0);
}

static void stream_ready(struct source *source, uint32_t events)
{
	struct stream_linux *s = container_of(source, struct stream_linux, source);
	if (s->connect) {
		int error = 0;
		socklen_t n = sizeof error;
		if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
			return;
		if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
			error = errno;
		connect_ended(s, -error);
	}
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		s->hung_up = true;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
		s->readable = true;
		if (s->receive)
			receive_try(s);
	}
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) {
		s->writable = true;
		if (!link_empty(&s->sends) && link_empty(&s->dirty))
			link_push(&env_linux_of(s->stream.env)->dirty_streams, &s->dirty);
	}
}

/* What would keep a stream slow. Failure of these is no reason to do without it. */
static void socket_tune(int fd)
{
	static const int one = 1, room = UNIX_SEND_BYTES, idle = ALIVE_IDLE_S, again = ALIVE_AGAIN_S, tries = ALIVE_TRIES;
	int family = 0;
	socklen_t n = sizeof family;
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &n) < 0)
		return;
	if (family == AF_UNIX) {
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &again, sizeof again);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &tries, sizeof tries);
}

int env_linux_stream_make(struct env *env, int fd, struct stream **ret_stream)
{
	struct stream_linux *s = calloc(1, sizeof *s);
	if (!s) {
		close(fd);
		return -ENOMEM;
	}
	s->stream.env = env;
	s->source.ready = stream_ready;
	s->fd = fd;
	s->readable = s->writable = s->watched_out = true;
	link_init(&s->sends);
	link_init(&s->dirty);
	socket_tune(fd);
	int r = env_linux_watch(env_linux_of(env), fd, STREAM_EVENTS | EPOLLOUT, &s->source);
	if (r < 0) {
		close(fd);
		free(s);
		return r;
	}
	*ret_stream = &s->stream;
	return 0;
}

void env_linux_stream_shutdown(struct stream *stream)
{
	struct stream_linux *s = stream_of(stream);
	if (s->down)
		return;
	s->down = true;
	shutdown(s->fd, SHUT_RDWR);
	link_drop(&s->dirty);
	sends_end(s, -ECONNRESET);
	if (s->receive)
		receive_end(s, -ECONNRESET);
}

void env_linux_stream_close(struct stream *stream)
{
	struct stream_linux *s = stream_of(stream);
	assert(!s->receive && link_empty(&s->sends) && !s->connect);
	link_drop(&s->dirty);
	close(s->fd);
	free(s);
}

/* Who was at the other end of a unix socket when it connected; false for other sockets. */
static bool peer(struct stream *stream, struct ucred *ret)
{
	socklen_t n = sizeof *ret;
	struct sockaddr_storage name = { .ss_family = AF_UNSPEC };
	socklen_t name_length = sizeof name;
	int fd = stream_of(stream)->fd;
	if (getsockname(fd, (struct sockaddr *)&name, &name_length) < 0 || name.ss_family != AF_UNIX)
		return false;
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret, &n) == 0;
}

uint32_t env_linux_stream_peer_uid(struct stream *stream)
{
	struct ucred c;
	return peer(stream, &c) ? c.uid : UINT32_MAX;
}

uint32_t env_linux_stream_peer_pid(struct stream *stream)
{
	struct ucred c;
	return peer(stream, &c) ? (uint32_t)c.pid : 0;
}

void env_linux_stream_peer(struct stream *stream, struct stream_peer *ret)
{
	struct sockaddr_storage name = { .ss_family = AF_UNSPEC };
	socklen_t length = sizeof name;
	uint32_t uid;
	if (getpeername(stream_of(stream)->fd, (struct sockaddr *)&name, &length) < 0)
		return; /* it is gone */
	ret->bytes[0] = (uint8_t)name.ss_family;
	if (name.ss_family == AF_INET)
		memcpy(ret->bytes + 1, &((const struct sockaddr_in *)&name)->sin_addr, sizeof(struct in_addr));
	else if (name.ss_family == AF_INET6)
		memcpy(ret->bytes + 1, &((const struct sockaddr_in6 *)&name)->sin6_addr, sizeof(struct in6_addr));
	else if ((uid = env_linux_stream_peer_uid(stream)) != UINT32_MAX)
		memcpy(ret->bytes + 1, &uid, sizeof uid);
}

/* ---- connecting ---- */

static void connect_timeout(struct job *j)
{
	struct connect *c = container_of(j, struct connect, timeout);
	if (c->stream->connect == c)
		connect_ended(c->stream, -ETIMEDOUT);
	job_put(&c->wait, 0);
}

/* FIBER. The connection of `s` is under way: waits for its outcome. */
static int connect_wait(struct stream_linux *s, uint64_t timeout_ns)
{
	struct env *env = s->stream.env;
	struct connect c = { .stream = s };
	job_init(&c.wait, &env->loop);
	job_hold(&c.wait);
	timer_init(&c.timer);
	s->connect = &c;
	if (timeout_ns != UINT64_MAX) {
		job_hold(&c.wait);
		job_init(&c.timeout, &env->loop);
		timer_start(env, &c.timer, timeout_ns, &c.timeout);
		job_then(&c.timeout, connect_timeout);
	}
	fiber_wait(&c.wait);
	return c.status;
}

/* FIBER. One address; `due_ns` on env_now_ns()'s clock. */
static int connect_to(struct env *env, const struct address *a, uint64_t due_ns, struct stream **ret_stream)
{
	int fd = socket(a->name.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	struct stream *s;
	int r;
	/* EAGAIN is a unix listener's full backlog, which no event tells the end of. */
	while ((r = connect(fd, (const struct sockaddr *)&a->name, a->length) < 0 ? -errno : 0) == -EAGAIN) {
		if (env_now_ns(env) >= due_ns) {
			r = -ETIMEDOUT;
			break;
		}
		fiber_sleep(&env->loop, RETRY_NS);
	}
	if (r < 0 && r != -EINPROGRESS && r != -EINTR) {
		close(fd);
		return r;
	}
	int under_way = r;
	r = env_linux_stream_make(env, fd, &s);
	if (r < 0)
		return r;
	if (under_way) {
		uint64_t now_ns = env_now_ns(env);
		r = connect_wait(stream_of(s), due_ns == UINT64_MAX ? UINT64_MAX : due_ns > now_ns ? due_ns - now_ns : 0);
	}
	if (r < 0) {
		env_linux_stream_close(s);
		return r;
	}
	*ret_stream = s;
	return 0;
}

/* What is left until `due_ns` is shared by `left` addresses: one where nobody answers (a host's IPv6 address, where only its IPv4 is routed) isn't all that
 * is tried. */
static uint64_t due_of_next(struct env *env, uint64_t due_ns, unsigned left)
{
	uint64_t now_ns = env_now_ns(env);
	return due_ns == UINT64_MAX || due_ns <= now_ns ? due_ns : now_ns + (due_ns - now_ns) / left;
}

int env_linux_stream_connect(struct env *env, const char *address, uint64_t timeout_ns, struct stream **ret_stream)
{
	struct address all[ADDRESS_MAX];
	unsigned count = 0;
	uint64_t due_ns = timeout_ns ? env_now_ns(env) + timeout_ns : UINT64_MAX;
	int r = env_linux_resolve(env, address, /* passive= */ false, all, &count);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < count; i++) {
		r = connect_to(env, &all[i], due_of_next(env, due_ns, count - i), ret_stream);
		if (r == 0 || (r == -ETIMEDOUT && env_now_ns(env) >= due_ns))
			break;
	}
	return r;
}
