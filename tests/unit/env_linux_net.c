/* Streams and listeners of the real world. */
#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/env.h"
#include "core/fiber.h"
#include "tests/unit/tempdir.h"

static struct env *env;
static char dir[64], unix_text[128];

static void setup(void)
{
	snprintf(dir, sizeof dir, "/tmp/aquifer-unit-XXXXXX");
	cr_assert(mkdtemp(dir));
	snprintf(unix_text, sizeof unix_text, "unix:%s/s", dir);
	cr_assert_eq(env_linux_create(0, &env), 0);
}

static void teardown(void)
{
	env_linux_destroy(env);
	tempdir_remove(dir);
}

static void run(int (*test)(void *arg), const char *address)
{
	cr_assert_eq(env_linux_run_fiber(env, test, (void *)(uintptr_t)address), 0);
}

static void fill(char *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1103515245 + 12345;
		p[i] = (char)(seed >> 16);
	}
}

TestSuite(env_linux_net, .init = setup, .fini = teardown, .timeout = 60);
#define TEST_BOTH(name, run_)                                          \
	Test(env_linux_net, name##_tcp) { run(run_, "tcp:127.0.0.1:0"); } \
	Test(env_linux_net, name##_unix) { run(run_, unix_text); }

struct accept_call {
	struct listener *listener;
	struct stream *stream;
};

static int accept_run(void *arg)
{
	struct accept_call *c = arg;
	return stream_accept(c->listener, &c->stream);
}

static void pair(const char *address, struct stream **a, struct stream **b)
{
	struct accept_call c;
	struct job j;
	cr_assert_eq(stream_listen(env, address, &c.listener), 0);
	job_init(&j, &env->loop);
	job_hold(&j);
	cr_assert_eq(fiber_start(&env->loop, accept_run, &c, &j), 0);
	cr_assert_eq(stream_connect(env, listener_address(c.listener), NS_PER_S * 100, a), 0);
	cr_assert_eq(fiber_wait(&j), 0);
	*b = c.stream;
	listener_close(c.listener);
}

/* ---- sending and receiving ---- */

static int both_ways(void *arg)
{
	struct stream *a, *b;
	char out[1000], in[1000];
	pair(arg, &a, &b);
	fill(out, sizeof out, 7);
	cr_assert_eq(stream_send_wait(a, out, sizeof out), 0);
	cr_assert_eq(stream_recv_wait(b, in, sizeof in), 0);
	cr_assert_arr_eq(in, out, sizeof in);
	cr_assert_eq(stream_send_wait(b, out, 10), 0);
	cr_assert_eq(stream_recv_wait(a, in, 10), 0);
	cr_assert_arr_eq(in, out, 10);
	stream_close(a);
	cr_assert_eq(stream_recv_wait(b, in, 10), -ECONNRESET);
	stream_close(b);
	return 0;
}
TEST_BOTH(both_ways, both_ways)

/* Waits with a receive before anything is sent; `minimum` ends it early, with all that came. */
static int minimum(void *arg)
{
	struct stream *a, *b;
	char out[300], big[3][100];
	struct iovec v[3] = { { big[0], 100 }, { big[1], 100 }, { big[2], 100 } };
	struct stream_io io = { .iov = v, .iov_count = 3, .minimum = 28 };
	struct job j;
	pair(arg, &a, &b);
	fill(out, sizeof out, 8);
	job_init(&j, &env->loop);
	stream_recv(b, &io, &j);
	cr_assert_eq(stream_send_wait(a, out, 20), 0);
	fiber_sleep(&env->loop, NS_PER_MS);
	cr_assert_eq(j.pending, 2, "20 of 28 have come: it must wait");
	cr_assert_eq(stream_send_wait(a, out + 20, 130), 0);
	cr_assert_eq(fiber_wait(&j), 0);
	cr_assert_geq(io.done, 28);
	size_t got = io.done;
	if (got < 150) { /* TCP may cut as it likes */
		cr_assert_eq(stream_recv_wait(b, big[0] + got, 150 - got), 0);
	}
	cr_assert_arr_eq(big[0], out, 150);
	/* end of file before the minimum: what came is told */
	cr_assert_eq(stream_send_wait(a, out, 5), 0);
	stream_close(a);
	job_init(&j, &env->loop);
	stream_recv(b, &io, &j);
	cr_assert_eq(fiber_wait(&j), -ECONNRESET);
	cr_assert_eq(io.status, -ECONNRESET);
	cr_assert_eq(io.done, 5);
	stream_close(b);
	return 0;
}
TEST_BOTH(receive_minimum, minimum)

/* Many small sends of several pieces in one turn: more pieces than one call takes, and empty ones. */
static int coalesced(void *arg)
{
	enum { SENDS = 700, BYTES = 13 };
	static struct stream_io io[SENDS];
	static struct iovec v[SENDS][4];
	static char out[SENDS * BYTES], in[SENDS * BYTES];
	struct stream *a, *b;
	struct job j;
	pair(arg, &a, &b);
	fill(out, sizeof out, 9);
	job_init(&j, &env->loop);
	for (size_t i = 0; i < SENDS; i++) {
		char *p = out + i * BYTES;
		v[i][0] = (struct iovec){ p, 1 };
		v[i][1] = (struct iovec){ p + 1, 0 };
		v[i][2] = (struct iovec){ p + 1, 2 };
		v[i][3] = (struct iovec){ p + 3, BYTES - 3 };
		io[i] = (struct stream_io){ .iov = v[i], .iov_count = 4 };
		stream_send(a, &io[i], &j);
	}
	struct stream_io empty = { .iov_count = 0 };
	stream_send(a, &empty, &j);
	cr_assert_eq(fiber_wait(&j), 0);
	cr_assert_eq(stream_recv_wait(b, in, sizeof in), 0);
	cr_assert_arr_eq(in, out, sizeof in);
	stream_close(a);
	stream_close(b);
	return 0;
}
TEST_BOTH(sends_of_a_turn, coalesced)

/* One send is one message to the other side when it leaves in one call: a receive that is
 * satisfied by a single byte gets all that was queued in the turn. */
static int one_call(void *arg)
{
	struct stream *a, *b;
	char out[3] = "abc", in[16] = "";
	struct iovec v[3] = { { out, 1 }, { out + 1, 1 }, { out + 2, 1 } }, to = { in, sizeof in };
	struct stream_io io[3], receive = { .iov = &to, .iov_count = 1, .minimum = 1 };
	struct job j, r;
	pair(arg, &a, &b);
	job_init(&r, &env->loop);
	stream_recv(b, &receive, &r);
	fiber_sleep(&env->loop, 0);
	job_init(&j, &env->loop);
	for (int i = 0; i < 3; i++) {
		io[i] = (struct stream_io){ .iov = &v[i], .iov_count = 1 };
		stream_send(a, &io[i], &j);
	}
	cr_assert_eq(fiber_wait(&r), 0);
	cr_assert_eq(fiber_wait(&j), 0);
	cr_assert_eq(receive.done, 3);
	cr_assert_str_eq(in, "abc");
	stream_close(a);
	stream_close(b);
	return 0;
}
TEST_BOTH(sends_of_a_turn_leave_in_one_call, one_call)

/* Far more than the socket holds, both ways at once: partial sends, waiting for room. */
static int big_transfer(void *arg)
{
	enum { BYTES = 8 << 20, PIECES = 100 };
	struct stream *s[2];
	struct job j;
	char *out[2], *in[2];
	struct iovec v[2][PIECES], to[2];
	struct stream_io send[2], receive[2];
	pair(arg, &s[0], &s[1]);
	job_init(&j, &env->loop);
	for (unsigned k = 0; k < 2; k++) {
		out[k] = malloc(BYTES);
		in[k] = malloc(BYTES);
		fill(out[k], BYTES, 10 + k);
		for (size_t i = 0, at = 0; i < PIECES; i++) {
			size_t n = i + 1 < PIECES ? 1 + (i * 7919) % 100000 : BYTES - at;
			v[k][i] = (struct iovec){ out[k] + at, n };
			at += n;
		}
		to[k] = (struct iovec){ in[k], BYTES };
		send[k] = (struct stream_io){ .iov = v[k], .iov_count = PIECES };
		receive[k] = (struct stream_io){ .iov = &to[k], .iov_count = 1, .minimum = BYTES };
		stream_send(s[k], &send[k], &j);
	}
	for (unsigned k = 0; k < 2; k++)
		stream_recv(s[!k], &receive[k], &j);
	cr_assert_eq(fiber_wait(&j), 0);
	for (unsigned k = 0; k < 2; k++) {
		cr_assert_eq(memcmp(in[k], out[k], BYTES), 0);
		stream_close(s[k]);
		free(in[k]);
		free(out[k]);
	}
	return 0;
}
TEST_BOTH(more_than_the_socket_holds, big_transfer)

static int shut_down(void *arg)
{
	enum { BYTES = 8 << 20 };
	struct stream *a, *b;
	char in[10], *out = calloc(1, BYTES);
	struct iovec v = { in, sizeof in }, big = { out, BYTES };
	struct stream_io receive = { .iov = &v, .iov_count = 1, .minimum = 1 };
	struct stream_io send[3] = { { .iov = &big, .iov_count = 1 }, { .iov = &big, .iov_count = 1 }, { .iov = &v, .iov_count = 1 } };
	struct job r, j;
	pair(arg, &a, &b);
	job_init(&r, &env->loop);
	job_init(&j, &env->loop);
	stream_recv(a, &receive, &r);
	stream_send(a, &send[0], &j);
	fiber_sleep(&env->loop, NS_PER_MS); /* it is stuck half-way */
	cr_assert(send[0].sent > 0 && send[0].sent < BYTES);
	stream_send(a, &send[1], &j);
	stream_shutdown(a);
	stream_shutdown(a);
	stream_send(a, &send[2], &j); /* later ones end alike */
	cr_assert_eq(fiber_wait(&r), -ECONNRESET);
	cr_assert_eq(fiber_wait(&j), -ECONNRESET);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(send[i].status, -ECONNRESET);
	cr_assert_eq(stream_recv_wait(a, in, 1), -ECONNRESET);
	/* The other side: sending fails without a signal, receiving ends. */
	cr_assert_eq(stream_send_wait(b, out, BYTES), -ECONNRESET);
	int status;
	size_t came = 0;
	while ((status = stream_recv_wait(b, in, 1)) == 0)
		came++;
	cr_assert_eq(status, -ECONNRESET);
	cr_assert_leq(came, send[0].sent);
	stream_close(a);
	stream_close(b);
	stream_close(NULL);
	free(out);
	return 0;
}
TEST_BOTH(shutdown_ends_everything, shut_down)

/* ---- connecting and listening ---- */

static int addresses(void *arg)
{
	char text[400];
	struct stream *s = NULL;
	struct listener *l = NULL;
	(void)arg;
	static const char *const wrong[] = {
		"", "unix", "unix:", "tcp:", "tcp:host", "tcp::80", "tcp:localhost:", "tcp:localhost:x", "tcp:localhost:65536",
		"tcp:localhost:-1", "tcp:localhost:+1", "tcp:localhost: 1", "tcp:localhost:1x", "tcp:::1:80", "tcp:[::1]", "tcp:[::1]80",
		"tcp:[::1:80", "tcp:[127.0.0.1]:80", "udp:localhost:80", "/tmp/s",
	};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		cr_assert_eq(stream_connect(env, wrong[i], NS_PER_S, &s), -EINVAL, "%s", wrong[i]);
		cr_assert_eq(stream_listen(env, wrong[i], &l), -EINVAL, "%s", wrong[i]);
	}
	snprintf(text, sizeof text, "unix:/tmp/%0*d", 200, 0);
	cr_assert_eq(stream_listen(env, text, &l), -ENAMETOOLONG);
	cr_assert_eq(stream_connect(env, text, 0, &s), -ENAMETOOLONG);
	snprintf(text, sizeof text, "tcp:%0*d:80", 300, 0);
	cr_assert_eq(stream_connect(env, text, 0, &s), -ENAMETOOLONG);
	snprintf(text, sizeof text, "unix:%s/none/s", dir);
	cr_assert_eq(stream_listen(env, text, &l), -ENOENT);
	cr_assert_eq(stream_connect(env, text, 0, &s), -ENOENT);
	cr_assert(!s && !l);
	return 0;
}
Test(env_linux_net, addresses_that_are_none) { run(addresses, NULL); }

/* 107 characters are what a unix socket's path may have. */
static int longest_path(void *arg)
{
	char path[200];
	struct listener *l;
	struct stat st;
	(void)arg;
	int n = snprintf(path, sizeof path, "unix:%s/", dir);
	memset(path + n, 'p', 200 - n);
	path[5 + 107] = 0;
	cr_assert_eq(stream_listen(env, path, &l), 0);
	cr_assert_str_eq(listener_address(l), path);
	cr_assert_eq(stat(path + 5, &st), 0);
	listener_close(l);
	return 0;
}
Test(env_linux_net, longest_path) { run(longest_path, NULL); }

static int names(void *arg)
{
	struct listener *l;
	struct stream *s;
	char text[300];
	(void)arg;
	cr_assert_eq(stream_listen(env, "tcp:localhost:0", &l), 0);
	cr_assert_eq(stream_connect(env, listener_address(l), NS_PER_S, &s), 0);
	cr_assert_eq(stream_peer_uid(s), UINT32_MAX);
	stream_close(s);
	const char *port = strrchr(listener_address(l), ':');
	snprintf(text, sizeof text, "tcp:localhost%s", port);
	cr_assert_eq(stream_connect(env, text, NS_PER_S, &s), 0);
	stream_close(s);
	snprintf(text, sizeof text, "%s", listener_address(l));
	struct listener *second = NULL;
	cr_assert_eq(stream_listen(env, text, &second), -EADDRINUSE);
	listener_close(l);
	cr_assert_eq(stream_connect(env, text, NS_PER_S, &s), -ECONNREFUSED);
	cr_assert_eq(stream_listen(env, text, &second), 0); /* at once, in spite of TIME_WAIT */
	listener_close(second);
	listener_close(NULL);
	return 0;
}
Test(env_linux_net, names_and_ports) { run(names, NULL); }

/* Who is at the other end of what is accepted: connected from `address` (NULL: any). */
static struct stream_peer peer_from(struct listener *l, const char *address)
{
	struct stream *accepted;
	struct stream_peer peer;
	struct sockaddr_in to = { .sin_family = AF_INET }, from = to;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	to.sin_port = htons((uint16_t)atoi(strrchr(listener_address(l), ':') + 1));
	inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
	inet_pton(AF_INET, address, &from.sin_addr);
	cr_assert_eq(bind(fd, (struct sockaddr *)&from, sizeof from), 0);
	cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
	cr_assert_eq(stream_accept(l, &accepted), 0);
	stream_peer(accepted, &peer);
	stream_close(accepted);
	close(fd);
	return peer;
}

static bool same(struct stream_peer a, struct stream_peer b) { return memcmp(&a, &b, sizeof a) == 0; }

static int peers(void *arg)
{
	struct listener *tcp, *local;
	struct stream *s, *accepted;
	struct stream_peer first, none = { { 0 } };
	(void)arg;
	cr_assert_eq(stream_listen(env, "tcp:127.0.0.1:0", &tcp), 0);
	first = peer_from(tcp, "127.0.0.1");
	cr_assert_not(same(first, none));
	cr_assert(same(first, peer_from(tcp, "127.0.0.1")), "another port is another peer");
	cr_assert_not(same(first, peer_from(tcp, "127.0.0.2")));
	listener_close(tcp);
	cr_assert_eq(stream_listen(env, unix_text, &local), 0);
	cr_assert_eq(stream_connect(env, unix_text, NS_PER_S, &s), 0);
	cr_assert_eq(stream_accept(local, &accepted), 0);
	stream_peer(accepted, &first);
	cr_assert_not(same(first, none));
	stream_close(s);
	stream_close(accepted);
	listener_close(local);
	return 0;
}
Test(env_linux_net, peers_are_told_apart_by_their_addresses) { run(peers, NULL); }

static int v6(void *arg)
{
	struct listener *l;
	struct stream *s;
	(void)arg;
	int r = stream_listen(env, "tcp:[::1]:0", &l);
	if (r == -EADDRNOTAVAIL || r == -EAFNOSUPPORT)
		return 0; /* this machine has no IPv6 */
	cr_assert_eq(r, 0);
	cr_assert_eq(strncmp(listener_address(l), "tcp:[::1]:", 10), 0);
	cr_assert_eq(stream_connect(env, listener_address(l), NS_PER_S, &s), 0);
	stream_close(s);
	listener_close(l);
	return 0;
}
Test(env_linux_net, ipv6) { run(v6, NULL); }

static int unix_socket(void *arg)
{
	struct listener *l, *second;
	struct stream *s;
	struct stat st;
	const char *path = unix_text + 5;
	(void)arg;
	mode_t mask = umask(0);
	cr_assert_eq(stream_listen(env, unix_text, &l), 0);
	umask(mask);
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0600);
	cr_assert_eq(stream_listen(env, unix_text, &second), -EADDRINUSE);
	cr_assert_eq(stream_connect(env, unix_text, NS_PER_S, &s), 0);
	cr_assert_eq(stream_peer_uid(s), getuid());
	stream_close(s);
	listener_close(l);
	cr_assert_eq(stat(path, &st), -1, "its name goes with the listener");

	/* stale: bound by somebody who is gone */
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	strcpy(un.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	cr_assert_eq(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
	close(fd);
	cr_assert_eq(stream_connect(env, unix_text, NS_PER_S, &s), -ECONNREFUSED);
	cr_assert_eq(stream_listen(env, unix_text, &l), 0);
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0600);
	/* somebody else's name by now: closing must leave it */
	cr_assert_eq(unlink(path), 0);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	listener_close(l);
	cr_assert_eq(stat(path, &st), 0);
	/* and what is no socket is never removed */
	cr_assert_eq(stream_listen(env, unix_text, &l), -EADDRINUSE);
	cr_assert_eq(stat(path, &st), 0);
	return 0;
}
Test(env_linux_net, unix_sockets_and_their_names) { run(unix_socket, NULL); }

/* Closing wakes who waits in accept, also two of them. */
static int accept_closed(void *arg)
{
	struct accept_call c;
	struct job j[2];
	cr_assert_eq(stream_listen(env, arg, &c.listener), 0);
	for (int i = 0; i < 2; i++) {
		job_init(&j[i], &env->loop);
		job_hold(&j[i]);
		cr_assert_eq(fiber_start(&env->loop, accept_run, &c, &j[i]), 0);
	}
	fiber_sleep(&env->loop, NS_PER_MS);
	listener_close(c.listener);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(fiber_wait(&j[i]), -ESHUTDOWN);
	return 0;
}
TEST_BOTH(accept_ends_with_the_listener, accept_closed)

/* A peer that is there before anybody accepts, and more than one of them. */
static int accept_later(void *arg)
{
	struct listener *l;
	struct stream *near[5], *far[5];
	char c;
	cr_assert_eq(stream_listen(env, arg, &l), 0);
	for (int i = 0; i < 5; i++) {
		char id = (char)i;
		cr_assert_eq(stream_connect(env, listener_address(l), NS_PER_S, &near[i]), 0);
		cr_assert_eq(stream_send_wait(near[i], &id, 1), 0);
	}
	for (int i = 0; i < 5; i++) {
		cr_assert_eq(stream_accept(l, &far[i]), 0);
		cr_assert_eq(stream_recv_wait(far[i], &c, 1), 0);
		cr_assert_eq(c, i);
		stream_close(near[i]);
		stream_close(far[i]);
	}
	listener_close(l);
	return 0;
}
TEST_BOTH(accept_takes_who_waits, accept_later)

/* A listener whose backlog is full answers nobody: the time limit ends the attempt. */
static int connect_timeout(void *arg)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct stream *s[8] = { NULL };
	int r = 0, n = 0;
	(void)arg;
	strcpy(un.sun_path, unix_text + 5);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	cr_assert_eq(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
	cr_assert_eq(listen(fd, 1), 0);
	while (r == 0 && n < 8)
		r = stream_connect(env, unix_text, 30 * NS_PER_MS, &s[n++]);
	cr_assert_eq(r, -ETIMEDOUT);
	while (n > 0)
		stream_close(s[--n]);
	close(fd);
	return 0;
}
Test(env_linux_net, connect_times_out) { run(connect_timeout, NULL); }

/* A crowd at the door, and somebody else who has something to do. */
enum { CROWD = 300 };

struct crowd {
	struct listener *listener;
	unsigned accepted, turns;
};

static int accept_crowd(void *arg)
{
	struct crowd *c = arg;
	for (struct stream *s; c->accepted < CROWD; c->accepted++) {
		cr_assert_eq(stream_accept(c->listener, &s), 0);
		stream_close(s);
	}
	return 0;
}

static int go_on(void *arg)
{
	struct crowd *c = arg;
	for (; c->accepted < CROWD; c->turns++)
		fiber_sleep(&env->loop, 0);
	return 0;
}

static int accept_and_others(void *arg)
{
	struct crowd c = { 0 };
	struct stream *s[CROWD];
	struct job j;
	cr_assert_eq(stream_listen(env, arg, &c.listener), 0);
	for (unsigned i = 0; i < CROWD; i++)
		cr_assert_eq(stream_connect(env, listener_address(c.listener), NS_PER_S * 100, &s[i]), 0);
	job_init(&j, &env->loop);
	job_hold(&j);
	job_hold(&j);
	cr_assert_eq(fiber_start(&env->loop, go_on, &c, &j), 0);
	cr_assert_eq(fiber_start(&env->loop, accept_crowd, &c, &j), 0);
	fiber_wait(&j);
	cr_assert_geq(c.turns, CROWD / 30, "%u turns of the loop while %u came", c.turns, CROWD);
	for (unsigned i = 0; i < CROWD; i++)
		stream_close(s[i]);
	listener_close(c.listener);
	return 0;
}
TEST_BOTH(accept_lets_others_go_on, accept_and_others)
