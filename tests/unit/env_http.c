/* HTTP of the real world: answers, long and broken ones, time-outs, nobody there, connections that die while they are kept. The peer is
 * a thread here with a few lines for each answer. */
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/env.h"
#include "core/fiber.h"

/* What the peer does with each request on each connection, in order; NULL: closes the connection instead. */
struct peer {
	int listener;
	pthread_t thread;
	char url[64];
	const char *const *answers;
	unsigned requests; /* it has seen */
	char last[4096];
};

/* Reads one request with its body; false at end of file. */
static bool take_request(struct peer *p, int fd)
{
	char text[sizeof p->last] = "";
	size_t n = 0;
	for (;;) {
		char *body = strstr(text, "\r\n\r\n"), *length = strcasestr(text, "Content-Length: ");
		if (body && n >= (size_t)(body + 4 - text) + (length ? (size_t)atoi(length + 16) : 0)) {
			strcpy(p->last, text);
			return true;
		}
		ssize_t got = read(fd, text + n, sizeof text - 1 - n);
		if (got <= 0)
			return false;
		n += (size_t)got;
		text[n] = 0;
	}
}

static void *peer_run(void *arg)
{
	struct peer *p = arg;
	const char *const *next = p->answers;
	while (*next) {
		int fd = accept(p->listener, NULL, NULL);
		while (fd >= 0 && *next && take_request(p, fd)) {
			p->requests++;
			const char *answer = *next++;
			if (strcmp(answer, "die") == 0)
				break;
			if (strcmp(answer, "hang") == 0) {
				char c;
				if (read(fd, &c, 1) < 0)
					break;
				break;
			}
			if (write(fd, answer, strlen(answer)) < 0)
				break;
		}
		close(fd);
	}
	return NULL;
}

static void peer_start(struct peer *p, const char *const *answers)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof a;
	*p = (struct peer){ .answers = answers, .listener = socket(AF_INET, SOCK_STREAM, 0) };
	cr_assert(bind(p->listener, (void *)&a, n) == 0 && listen(p->listener, 8) == 0 && getsockname(p->listener, (void *)&a, &n) == 0);
	snprintf(p->url, sizeof p->url, "http://127.0.0.1:%u/x", ntohs(a.sin_port));
	pthread_create(&p->thread, NULL, peer_run, p);
}

static void peer_end(struct peer *p)
{
	shutdown(p->listener, SHUT_RDWR);
	pthread_join(p->thread, NULL);
	close(p->listener);
}

static void in_a_fiber(int (*run)(void *arg), void *arg)
{
	struct env *env;
	cr_assert_eq(env_linux_create(0, &env), 0);
	*(struct env **)arg = env;
	cr_assert_eq(env_linux_run_fiber(env, run, arg), 0);
	env_linux_destroy(env);
}

struct rig {
	struct env *env; /* first */
	struct peer peer;
	struct http_client *client;
};

#define OK(body_length, body) "HTTP/1.1 200 OK\r\nContent-Length: " #body_length "\r\n\r\n" body

static struct http_request post(const struct rig *r, const char *body)
{
	return (struct http_request){ .url = r->peer.url, .body = body, .body_length = strlen(body), .reply_max = 1000, .timeout_ns = 10 * NS_PER_S };
}

static int body_answers(void *arg)
{
	struct rig *r = arg;
	static const char *const headers[] = { "X-Test: 1", NULL };
	cr_assert_eq(http_client_create(r->env, NULL, &r->client), 0);
	struct http_request q = post(r, "hello");
	q.headers = headers;
	cr_assert_eq(http_wait(r->client, &q), 0, "%s", q.why);
	cr_assert(q.http_status == 200 && q.reply_length == 3 && strcmp((char *)q.reply, "abc") == 0 && q.sent);
	cr_assert(strncmp(r->peer.last, "POST /x HTTP/1.1\r\n", 18) == 0 && strstr(r->peer.last, "\r\nX-Test: 1\r\n") && strstr(r->peer.last, "\r\n\r\nhello"));
	cr_assert(!strstr(r->peer.last, "Expect"));
	http_request_free(&q);
	q = post(r, "again");
	cr_assert_eq(http_wait(r->client, &q), 0);
	cr_assert_eq(q.http_status, 503);
	http_request_free(&q);
	/* longer than is wanted */
	q = post(r, "long");
	q.reply_max = 4;
	cr_assert_eq(http_wait(r->client, &q), -EMSGSIZE);
	http_request_free(&q);
	/* not HTTP */
	q = post(r, "what");
	int e = http_wait(r->client, &q);
	cr_assert(e == -EPROTO || e == -ECONNRESET || e == -EMSGSIZE, "%d", e);
	cr_assert(q.why[0] && q.sent);
	http_request_free(&q);
	http_client_close(r->client);
	return 0;
}

Test(env_http, answers)
{
	static const char *const answers[] = { OK(3, "abc"), "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", OK(5, "12345"), "SSH-2.0-x\r\n", NULL };
	struct rig r;
	peer_start(&r.peer, answers);
	in_a_fiber(body_answers, &r);
	peer_end(&r.peer);
}

/* A connection that dies while it is kept: what isn't repeatable isn't sent a second time, and is known to have been sent. */
static int body_dies(void *arg)
{
	struct rig *r = arg;
	cr_assert_eq(http_client_create(r->env, NULL, &r->client), 0);
	struct http_request q = post(r, "one");
	cr_assert_eq(http_wait(r->client, &q), 0);
	http_request_free(&q);
	q = post(r, "two");
	cr_assert_eq(http_wait(r->client, &q), -ECONNRESET, "%s", q.why);
	cr_assert(q.sent);
	http_request_free(&q);
	cr_assert_eq(r->peer.requests, 2);
	q = post(r, "three");
	cr_assert_eq(http_wait(r->client, &q), 0);
	http_request_free(&q);
	q = post(r, "four"); /* dies, and comes again */
	q.repeatable = true;
	cr_assert_eq(http_wait(r->client, &q), 0, "%s", q.why);
	cr_assert_eq(r->peer.requests, 5);
	http_request_free(&q);
	http_client_close(r->client);
	return 0;
}

Test(env_http, kept_connections_die)
{
	static const char *const answers[] = { OK(0, ""), "die", OK(0, ""), "die", OK(0, ""), NULL };
	struct rig r;
	peer_start(&r.peer, answers);
	in_a_fiber(body_dies, &r);
	peer_end(&r.peer);
}

/* For how many ms our end of a connection with the peer waits until something that was sent is acknowledged; 0: there is none, or it waits as long as the kernel likes. */
static unsigned silence_ms(const struct rig *r)
{
	for (int fd = 3; fd < 256; fd++) {
		struct sockaddr_in a = { .sin_family = 0 };
		socklen_t n = sizeof a, m = sizeof(unsigned);
		unsigned ms = 0;
		char url[sizeof r->peer.url];
		if (getpeername(fd, (void *)&a, &n) < 0 || a.sin_family != AF_INET)
			continue;
		snprintf(url, sizeof url, "http://127.0.0.1:%u/x", ntohs(a.sin_port));
		if (strcmp(url, r->peer.url) == 0 && getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, &m) == 0)
			return ms;
	}
	return 0;
}

static int body_gone(void *arg)
{
	struct rig *r = arg;
	cr_assert_eq(http_client_create(r->env, NULL, &r->client), 0);
	struct http_request q = post(r, "x");
	q.connect_timeout_ns = 1500 * NS_PER_MS;
	cr_assert_eq(http_wait(r->client, &q), 0, "%s", q.why);
	cr_assert_eq(silence_ms(r), 1500u, "a machine that is gone is waited for as long as one that is slow");
	http_request_free(&q);
	http_client_close(r->client);
	return 0;
}

Test(env_http, a_machine_that_is_gone)
{
	static const char *const answers[] = { OK(0, ""), NULL };
	struct rig r;
	peer_start(&r.peer, answers);
	in_a_fiber(body_gone, &r);
	peer_end(&r.peer);
}

static int body_nobody(void *arg)
{
	struct rig *r = arg;
	cr_assert_eq(http_client_create(r->env, NULL, &r->client), 0);
	struct http_request q = { .url = "http://127.0.0.1:1/", .body = "", .reply_max = 10 };
	cr_assert_eq(http_wait(r->client, &q), -ECONNREFUSED);
	cr_assert(!q.sent && q.why[0]);
	http_request_free(&q);
	q = (struct http_request){ .url = "http://no-such-host.invalid:1/", .body = "", .reply_max = 10 };
	cr_assert_eq(http_wait(r->client, &q), -EHOSTUNREACH);
	cr_assert(!q.sent);
	http_request_free(&q);
	q = (struct http_request){ .url = "file:///etc/passwd", .body = "", .reply_max = 10 };
	cr_assert_lt(http_wait(r->client, &q), 0);
	cr_assert(!q.sent && q.reply_length == 0);
	http_request_free(&q);
	q = (struct http_request){ .url = "https://127.0.0.1:1/", .body = "", .reply_max = 10 };
	cr_assert_lt(http_wait(r->client, &q), 0);
	http_request_free(&q);
	http_client_close(r->client);
	return 0;
}

Test(env_http, nobody_there)
{
	struct rig r;
	in_a_fiber(body_nobody, &r);
}

/* One that gets no answer in time; and one that is given up, from outside. The loop goes on meanwhile. */
static int body_hangs(void *arg)
{
	struct rig *r = arg;
	cr_assert_eq(http_client_create(r->env, NULL, &r->client), 0);
	struct http_request q = post(r, "x");
	q.timeout_ns = 50 * NS_PER_MS;
	cr_assert_eq(http_wait(r->client, &q), -ETIMEDOUT);
	cr_assert(q.sent);
	http_request_free(&q);
	struct job j;
	q = post(r, "y");
	job_init(&j, &r->env->loop);
	http_submit(r->client, &q, &j);
	fiber_sleep(&r->env->loop, 20 * NS_PER_MS);
	cr_assert_not_null(q.parent);
	http_cancel(&q);
	cr_assert_eq(fiber_wait(&j), -ECANCELED);
	http_cancel(&q); /* nothing */
	http_request_free(&q);
	http_client_close(r->client);
	return 0;
}

Test(env_http, no_answer)
{
	static const char *const answers[] = { "hang", "hang", NULL };
	struct rig r;
	peer_start(&r.peer, answers);
	in_a_fiber(body_hangs, &r);
	peer_end(&r.peer);
}

/* An answer that comes piece by piece, and only so much of it is kept. */
static int body_pieces(void *arg)
{
	struct rig *r = arg;
	cr_assert_eq(http_client_create(r->env, NULL, &r->client), 0);
	struct http_request q = post(r, "x");
	struct job whole, more;
	size_t taken = 0;
	job_init(&whole, &r->env->loop);
	http_submit(r->client, &q, &whole);
	while (q.parent) {
		job_init(&more, &r->env->loop);
		http_more(&q, &more);
		fiber_wait(&more);
		taken += q.reply_length;
		http_take(&q, q.reply_length);
	}
	cr_assert_eq(fiber_wait(&whole), 0, "%s", q.why);
	cr_assert_eq(taken + q.reply_length, 8);
	http_request_free(&q);
	http_client_close(r->client);
	return 0;
}

Test(env_http, piece_by_piece)
{
	static const char *const answers[] = { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\ndefgh\r\n0\r\n\r\n", NULL };
	struct rig r;
	peer_start(&r.peer, answers);
	in_a_fiber(body_pieces, &r);
	peer_end(&r.peer);
}
