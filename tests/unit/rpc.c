/* The RPC over real sockets: one env, client and server in it, and peers that lie. */
#include "tests/unit/rpctest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/fiber.h"

/* ---- what works ---- */

RPC_TEST(message_and_payload_of_every_size_come_back)
{
	struct world *w = arg;
	world_listen(w);
	struct rpc_client *c = world_connect(w, (struct rpc_client_options){ 0 });
	uint8_t *out = malloc(RPC_PAYLOAD_MAX), *in = malloc(RPC_PAYLOAD_MAX);
	for (size_t i = 0; i < RPC_PAYLOAD_MAX; i++)
		out[i] = (uint8_t)(i * 7 + (i >> 12));
	const size_t sizes[] = { 0, 1, 511, 4096, 8192, 32767, 65536, 100000, 1 << 20, 4 << 20, RPC_PAYLOAD_MAX };
	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
		size_t n = sizes[i], cut = n / 3;
		struct iovec from[2] = { { out, cut }, { out + cut, n - cut } };
		struct iovec to[3] = { { in, n / 2 }, { in + n / 2, 0 }, { in + n / 2, n - n / 2 } };
		Aquifer__Hello h = AQUIFER__HELLO__INIT;
		h.software = (char *)"many taps";
		h.protocol = (uint32_t)n;
		struct rpc_call call;
		rpc_call_init(&call, ECHO, &h.base, &aquifer__hello__descriptor);
		call.payload = from;
		call.payload_count = 2;
		call.reply_payload = to;
		call.reply_payload_count = 3;
		memset(in, 0, n);
		cr_assert_eq(rpc_call_wait(c, &call, NULL), 0);
		cr_assert_eq(call.reply_payload_bytes, n);
		cr_assert(memcmp(in, out, n) == 0);
		cr_assert_str_eq(((Aquifer__Hello *)call.reply)->software, "many taps");
		cr_assert_eq(((Aquifer__Hello *)call.reply)->protocol, n);
		rpc_call_clean(&call);
	}
	rpc_close(c);
	rpc_server_close(w->server, 0);
	cr_assert_eq(w->released, w->handled);
	free(out);
	free(in);
	return 0;
}

struct pipelined {
	struct rpc_call call;
	uint8_t out[9000], in[9000];
	struct iovec from, to;
};

RPC_TEST(hundreds_at_a_time_through_a_small_pool_and_few_slots)
{
	struct world *w = arg;
	w->options.in_flight = 5;
	w->options.pool_bytes = 1; /* the least there is */
	world_listen(w);
	struct rpc_client *c = world_connect(w, (struct rpc_client_options){ .in_flight = 50 });
	enum { COUNT = 600 };
	struct pipelined *p = calloc(COUNT, sizeof *p);
	Aquifer__Hello h = AQUIFER__HELLO__INIT;
	struct job all;
	job_init(&all, &w->env->loop);
	for (unsigned i = 0; i < COUNT; i++) {
		memset(p[i].out, (int)i, sizeof p[i].out);
		p[i].from = (struct iovec){ p[i].out, i * 37 % sizeof p[i].out };
		p[i].to = (struct iovec){ p[i].in, sizeof p[i].in };
		h.in_flight = i;
		rpc_call_init(&p[i].call, ECHO, &h.base, &aquifer__hello__descriptor);
		p[i].call.payload = &p[i].from;
		p[i].call.payload_count = 1;
		p[i].call.reply_payload = &p[i].to;
		p[i].call.reply_payload_count = 1;
		rpc_submit(c, &p[i].call, &all);
	}
	cr_assert_eq(fiber_wait(&all), 0);
	for (unsigned i = 0; i < COUNT; i++) {
		cr_assert_eq(((Aquifer__Hello *)p[i].call.reply)->in_flight, i);
		cr_assert_eq(p[i].call.reply_payload_bytes, p[i].from.iov_len);
		cr_assert(memcmp(p[i].in, p[i].out, p[i].from.iov_len) == 0);
		rpc_call_clean(&p[i].call);
	}
	free(p);
	rpc_close(c);
	rpc_server_close(w->server, 0);
	return 0;
}

RPC_TEST(large_payloads_of_several_clients_share_the_pool)
{
	struct world *w = arg;
	w->options.pool_bytes = 1;
	world_listen(w);
	enum { CLIENTS = 4, CALLS = 5 };
	struct rpc_client *c[CLIENTS];
	struct rpc_call call[CLIENTS][CALLS];
	uint8_t *in = malloc(RPC_PAYLOAD_MAX);
	struct iovec to = { in, RPC_PAYLOAD_MAX };
	struct job all;
	job_init(&all, &w->env->loop);
	for (int i = 0; i < CLIENTS; i++) {
		c[i] = world_connect(w, (struct rpc_client_options){ 0 });
		for (int k = 0; k < CALLS; k++) {
			rpc_call_init(&call[i][k], FILL, NULL, NULL);
			call[i][k].reply_payload = &to; /* all the same place and content */
			call[i][k].reply_payload_count = 1;
			rpc_submit(c[i], &call[i][k], &all);
		}
	}
	cr_assert_eq(fiber_wait(&all), 0);
	for (int i = 0; i < CLIENTS; i++) {
		for (int k = 0; k < CALLS; k++) {
			cr_assert_eq(call[i][k].reply_payload_bytes, RPC_PAYLOAD_MAX);
			rpc_call_clean(&call[i][k]);
		}
		rpc_close(c[i]);
	}
	cr_assert_eq(in[0], 0x5a);
	cr_assert_eq(in[RPC_PAYLOAD_MAX - 1], 0x5a);
	free(in);
	rpc_server_close(w->server, 0);
	return 0;
}

RPC_TEST(handler_in_a_fiber_may_suspend)
{
	struct world *w = arg;
	w->options.in_fiber = true;
	world_listen(w);
	struct rpc_client *c = world_connect(w, (struct rpc_client_options){ 0 });
	struct rpc_call call[10];
	struct job all;
	job_init(&all, &w->env->loop);
	for (int i = 0; i < 10; i++) {
		rpc_call_init(&call[i], SLOW, NULL, NULL);
		rpc_submit(c, &call[i], &all);
	}
	cr_assert_eq(fiber_wait(&all), 0);
	for (int i = 0; i < 10; i++)
		rpc_call_clean(&call[i]);
	rpc_close(c);
	rpc_server_close(w->server, 0);
	return 0;
}

RPC_TEST(errors_carry_status_and_sentence)
{
	struct world *w = arg;
	world_listen(w);
	struct rpc_client *c = world_connect(w, (struct rpc_client_options){ 0 });
	struct rpc_call call;
	struct report report = { 0 };
	rpc_call_init(&call, FAIL, NULL, NULL);
	cr_assert_eq(rpc_call_wait(c, &call, &report), -ENOSPC);
	cr_assert_str_eq(report.text, "the store is full");
	rpc_call_clean(&call);
	cr_assert_eq(call_plain(c, 999, 0), -ENOSYS);
	cr_assert_eq(call_plain(c, HUGE_ANSWER, 0), -EMSGSIZE);
	cr_assert_eq(call_plain(c, FAIL, 0), -ENOSPC); /* the connection is as good as before */
	rpc_close(c);
	rpc_server_close(w->server, 0);
	return 0;
}

RPC_TEST(too_large_a_call_is_refused_here)
{
	struct world *w = arg;
	world_listen(w);
	struct rpc_client *c = world_connect(w, (struct rpc_client_options){ 0 });
	struct rpc_call call;
	char *text = malloc(FRAME_HEADER_MAX + 1);
	struct iovec v = { text, RPC_PAYLOAD_MAX + 1 };
	memset(text, 'x', FRAME_HEADER_MAX);
	text[FRAME_HEADER_MAX] = 0;
	Aquifer__Hello h = AQUIFER__HELLO__INIT;
	h.software = text;
	rpc_call_init(&call, ECHO, &h.base, NULL);
	cr_assert_eq(rpc_call_wait(c, &call, NULL), -EMSGSIZE);
	rpc_call_clean(&call);
	rpc_call_init(&call, ECHO, NULL, NULL);
	call.payload = &v;
	call.payload_count = 1;
	cr_assert_eq(rpc_call_wait(c, &call, NULL), -EMSGSIZE);
	rpc_call_clean(&call);
	rpc_call_init(&call, ECHO, NULL, NULL);
	call.reply_payload = &v;
	call.reply_payload_count = 1;
	cr_assert_eq(rpc_call_wait(c, &call, NULL), -EMSGSIZE);
	rpc_call_clean(&call);
	free(text);
	rpc_close(c);
	rpc_server_close(w->server, 0);
	return 0;
}

/* ---- greeting ---- */

static int greet(void *arg, struct rpc_client *c, struct report *report)
{
	struct world *w = arg;
	struct rpc_call call;
	cr_assert_eq(call_plain(c, FAIL, 0), -ENOTCONN); /* others are not let in yet */
	rpc_call_init(&call, FAIL, NULL, NULL);
	call.early = true;
	cr_assert_eq(rpc_call_wait(c, &call, NULL), -ENOSPC);
	rpc_call_clean(&call);
	w->greeted++;
	return report_set(report, w->greeting, "wrong server");
}

RPC_TEST(greeting_comes_before_other_calls_and_may_refuse)
{
	struct world *w = arg;
	world_listen(w);
	struct rpc_client_options o = { .service = "test", .greet = greet, .arg = w };
	struct rpc_client *c = world_connect(w, o);
	cr_assert_eq(w->greeted, 1);
	rpc_close(c);
	struct report report = { 0 };
	w->greeting = -ESTALE;
	cr_assert_eq(rpc_connect(w->env, w->address, &o, &c, &report), -ESTALE);
	cr_assert(strstr(report.text, "wrong server"));
	rpc_server_close(w->server, 0);
	return 0;
}

RPC_TEST(more_connections_than_allowed_are_told_so)
{
	struct world *w = arg;
	struct report report;
	w->options.connections_max = 1;
	world_listen(w);
	struct rpc_client *c = world_connect(w, (struct rpc_client_options){ 0 });
	cr_assert_eq(connect_as(w, "test", 0, 0, &report), -EBUSY);
	cr_assert(strstr(report.text, "as many connections"), "%s", report.text);
	rpc_close(c);
	while (rpc_server_connections(w->server) > 0)
		fiber_sleep(&w->env->loop, NS_PER_MS);
	cr_assert_eq(connect_as(w, "test", 0, 0, &report), 0);
	rpc_server_close(w->server, 0);
	return 0;
}

RPC_TEST(nobody_there_is_one_clear_line)
{
	struct world *w = arg;
	struct report report;
	cr_assert_lt(connect_as(w, "test", 0, 0, &report), 0);
	cr_assert(strstr(report.text, w->address), "%s", report.text);
	return 0;
}

/* ---- deadlines and losses ---- */

RPC_TEST(deadline_ends_a_call_and_its_late_reply_is_swallowed)
{
	struct world *w = arg;
	world_listen(w);
	struct rpc_client *c = world_connect(w, (struct rpc_client_options){ .in_flight = 2 });
	cr_assert_eq(call_plain(c, NEVER, 5 * NS_PER_MS), -ETIMEDOUT);
	cr_assert_eq(call_plain(c, FAIL, 0), -ENOSPC);
	cr_assert_eq(call_plain(c, NEVER, 5 * NS_PER_MS), -ETIMEDOUT);
	cr_assert_eq(call_plain(c, FAIL, 5 * NS_PER_MS), -ETIMEDOUT); /* no slot is left: queued */
	let_go(w);
	cr_assert_eq(call_plain(c, FAIL, 0), -ENOSPC);
	cr_assert(rpc_connected(c));
	rpc_close(c);
	rpc_server_close(w->server, 0);
	return 0;
}

static int close_server(void *arg)
{
	struct world *w = arg;
	rpc_server_close(w->server, 0);
	return 0;
}

RPC_TEST(all_calls_end_when_the_server_goes_and_later_ones_find_the_next_server)
{
	struct world *w = arg;
	world_listen(w);
	struct rpc_client *c = world_connect(
		w, (struct rpc_client_options){ .reconnect = true, .in_flight = 4, .lost = count_lost, .arg = w });
	struct rpc_call call[10];
	struct job each[10], closed;
	for (int i = 0; i < 10; i++) {
		rpc_call_init(&call[i], NEVER, NULL, NULL);
		job_init(&each[i], &w->env->loop);
		rpc_submit(c, &call[i], &each[i]);
	}
	while (w->kept_count < 4)
		fiber_sleep(&w->env->loop, NS_PER_MS);
	job_init(&closed, &w->env->loop);
	job_hold(&closed);
	cr_assert_eq(fiber_start(&w->env->loop, close_server, w, &closed), 0);
	for (int i = 0; i < 10; i++) {
		cr_assert_eq(fiber_wait(&each[i]), -ENOTCONN);
		rpc_call_clean(&call[i]);
	}
	cr_assert_eq(w->lost, 1);
	cr_assert_eq(call_plain(c, FAIL, 0), -ENOTCONN);
	let_go(w); /* answered into nothing, and only then can the server end */
	cr_assert_eq(fiber_wait(&closed), 0);
	cr_assert_eq(w->released, w->handled);
	world_listen(w);
	cr_assert_eq(rpc_wait_connected(c, 20 * NS_PER_S), 0);
	cr_assert_eq(call_plain(c, FAIL, 0), -ENOSPC);
	rpc_close(c);
	rpc_server_close(w->server, 0);
	return 0;
}

RPC_TEST(closing_a_client_ends_its_calls)
{
	struct world *w = arg;
	world_listen(w);
	struct rpc_client *c = world_connect(w, (struct rpc_client_options){ .reconnect = true });
	static uint8_t bytes[4 << 20];
	struct iovec v = { bytes, sizeof bytes };
	struct rpc_call call;
	struct job j;
	job_init(&j, &w->env->loop);
	rpc_call_init(&call, NEVER, NULL, NULL);
	call.payload = &v; /* more than a socket holds: it is still being sent */
	call.payload_count = 1;
	rpc_submit(c, &call, &j);
	rpc_close(c);
	cr_assert_eq(j.pending, 1, "the call has ended by now");
	cr_assert_eq(fiber_wait(&j), -ENOTCONN);
	rpc_call_clean(&call);
	let_go(w);
	rpc_server_close(w->server, 0);
	return 0;
}

RPC_TEST(a_server_that_closes_answers_what_is_under_way)
{
	struct world *w = arg;
	w->options.in_fiber = true;
	world_listen(w);
	struct rpc_client *c = world_connect(w, (struct rpc_client_options){ 0 });
	struct rpc_call call;
	struct job j;
	job_init(&j, &w->env->loop);
	rpc_call_init(&call, SLOW, NULL, NULL);
	rpc_submit(c, &call, &j);
	while (w->handled == 0)
		fiber_sleep(&w->env->loop, NS_PER_MS);
	rpc_server_close(w->server, 20 * NS_PER_S);
	cr_assert_eq(fiber_wait(&j), 0);
	rpc_call_clean(&call);
	rpc_close(c);
	return 0;
}

/* ---- peers that lie: a bare stream on one side ---- */

static void liar_welcome(struct liar *l)
{
	struct frame f;
	cr_assert_eq(liar_read(l, &f), 0);
	cr_assert_eq(f.kind, FRAME_HELLO);
	Aquifer__Hello h = AQUIFER__HELLO__INIT;
	h.service = (char *)"test";
	h.protocol = h.protocol_oldest = RPC_PROTOCOL;
	h.in_flight = 16;
	Aquifer__Envelope e = AQUIFER__ENVELOPE__INIT;
	e.id = l->id;
	cr_assert_eq(liar_write(l, FRAME_REPLY, &e, &h.base, 0), 0);
}

/* What a lying server answers to the first call after the greeting. */
struct lie {
	const char *what;
	enum frame_kind kind;
	uint64_t id_add;
	uint32_t payload_bytes;
	int status;
	const char *raw; /* sent instead */
	size_t raw_bytes;
	int times;
};

static const struct lie lies[] = {
	{ .what = "another's id", .kind = FRAME_REPLY, .id_add = 1000, .times = 1 },
	{ .what = "the greeting's id again", .kind = FRAME_REPLY, .id_add = -1ULL, .times = 1 },
	{ .what = "more payload than asked", .kind = FRAME_REPLY, .payload_bytes = 4097, .times = 1 },
	{ .what = "a positive status", .kind = FRAME_REPLY, .status = 5, .times = 1 },
	{ .what = "a status that is no errno", .kind = FRAME_REPLY, .status = INT32_MIN, .times = 1 },
	{ .what = "a call", .kind = FRAME_CALL, .times = 1 },
	{ .what = "no frame", .raw = "HTTP/1.1 400 Bad Request\r\n\r\n", .raw_bytes = 28, .times = 1 },
	{ .what = "half a frame and the end", .raw = "AQPR\1\0\3\0\377\0\0\0", .raw_bytes = 12, .times = 1 },
	{ .what = "an answer twice", .kind = FRAME_REPLY, .times = 2 },
};

static int lying_server(void *arg)
{
	struct liar *l = arg;
	for (size_t i = 0; i < ARRAY_COUNT(lies); i++) {
		struct frame f;
		cr_assert_eq(stream_accept(l->listener, &l->stream), 0);
		liar_welcome(l);
		cr_assert_eq(liar_read(l, &f), 0);
		Aquifer__Envelope e = AQUIFER__ENVELOPE__INIT;
		e.id = l->id + lies[i].id_add;
		e.status = lies[i].status;
		for (int k = 0; k < lies[i].times; k++) {
			if (lies[i].raw)
				stream_send_wait(l->stream, lies[i].raw, lies[i].raw_bytes);
			else
				liar_write(l, lies[i].kind, &e, NULL, lies[i].payload_bytes);
		}
		if (lies[i].raw_bytes != 12) /* the client hangs up */
			cr_assert_lt(liar_read(l, &f), 0, "%s", lies[i].what);
		stream_shutdown(l->stream);
		stream_close(l->stream);
	}
	return 0;
}

RPC_TEST(a_lying_server_loses_the_connection_and_nothing_else)
{
	struct liar l = { .world = arg };
	struct world *w = arg;
	static uint8_t page[4096];
	struct iovec v = { page, sizeof page };
	cr_assert_eq(stream_listen(w->env, w->address, &l.listener), 0);
	struct job ended;
	job_init(&ended, &w->env->loop);
	job_hold(&ended);
	fiber_start(&w->env->loop, lying_server, &l, &ended);
	for (size_t i = 0; i < ARRAY_COUNT(lies); i++) {
		struct rpc_client *c = world_connect(w, (struct rpc_client_options){ .lost = count_lost, .arg = w });
		struct rpc_call call;
		rpc_call_init(&call, ECHO, NULL, NULL);
		call.reply_payload = &v;
		call.reply_payload_count = 1;
		int r = rpc_call_wait(c, &call, NULL);
		cr_assert_eq(r, lies[i].times == 2 ? 0 : -ENOTCONN, "%s: %d", lies[i].what, r);
		while (rpc_connected(c))
			fiber_sleep(&w->env->loop, NS_PER_MS);
		cr_assert_eq(w->lost, i + 1, "%s", lies[i].what);
		rpc_call_clean(&call);
		rpc_close(c);
	}
	cr_assert_eq(fiber_wait(&ended), 0);
	listener_close(l.listener);
	return 0;
}

static int silent_server(void *arg)
{
	struct liar *l = arg;
	struct frame f;
	cr_assert_eq(stream_accept(l->listener, &l->stream), 0);
	liar_welcome(l);
	while (liar_read(l, &f) == 0)
		;
	stream_shutdown(l->stream);
	stream_close(l->stream);
	return 0;
}

RPC_TEST(a_server_that_falls_silent_is_lost_even_without_deadlines)
{
	struct liar l = { .world = arg };
	struct world *w = arg;
	cr_assert_eq(stream_listen(w->env, w->address, &l.listener), 0);
	struct job ended;
	job_init(&ended, &w->env->loop);
	job_hold(&ended);
	fiber_start(&w->env->loop, silent_server, &l, &ended);
	struct rpc_client *c = world_connect(w, (struct rpc_client_options){ .silence_ns = 20 * NS_PER_MS });
	cr_assert_eq(call_plain(c, ECHO, 0), -ENOTCONN);
	cr_assert_eq(fiber_wait(&ended), 0);
	rpc_close(c);
	listener_close(l.listener);
	return 0;
}

RPC_TEST(a_silent_crowd_keeps_nobody_out)
{
	struct world *w = arg;
	enum { CROWD = 20, KNOWN = 3 };
	struct liar crowd[CROWD];
	struct rpc_client *c[KNOWN], *more;
	w->options.connections_max = KNOWN;
	world_listen(w);
	for (unsigned i = 0; i < CROWD; i++) {
		crowd[i] = (struct liar){ .world = w };
		liar_connect(&crowd[i], /* hello= */ false);
	}
	fiber_sleep(&w->env->loop, 20 * NS_PER_MS); /* all are accepted */
	for (unsigned i = 0; i < KNOWN; i++)
		c[i] = world_connect(w, (struct rpc_client_options){ 0 });
	for (unsigned i = 0; i < KNOWN; i++)
		cr_assert_eq(call_plain(c[i], ECHO, 0), 0);
	struct rpc_client_options o = { .service = "test" };
	struct report report = { "" };
	cr_assert_eq(rpc_connect(w->env, w->address, &o, &more, &report), -EBUSY, "%s", report.text);
	for (unsigned i = 0; i < CROWD; i++)
		stream_close(crowd[i].stream);
	for (unsigned i = 0; i < KNOWN; i++)
		rpc_close(c[i]);
	rpc_server_close(w->server, 0);
	return 0;
}

RPC_TEST(a_server_that_is_only_busy_is_not_lost)
{
	struct world *w = arg;
	world_listen(w);
	struct rpc_client *c = world_connect(w, (struct rpc_client_options){ .silence_ns = 400 * NS_PER_MS });
	cr_assert_eq(call_plain(c, NEVER, 1200 * NS_PER_MS), -ETIMEDOUT); /* pings are answered meanwhile */
	cr_assert(rpc_connected(c));
	let_go(w);
	rpc_close(c);
	rpc_server_close(w->server, 0);
	return 0;
}

/* Half of a reply's payload comes, then nothing: the caller gets its buffer back at the deadline. */
static int half_server(void *arg)
{
	struct liar *l = arg;
	struct frame f;
	static uint8_t half[100000];
	cr_assert_eq(stream_accept(l->listener, &l->stream), 0);
	liar_welcome(l);
	cr_assert_eq(liar_read(l, &f), 0);
	Aquifer__Envelope e = AQUIFER__ENVELOPE__INIT;
	e.id = l->id;
	liar_write(l, FRAME_REPLY, &e, NULL, 2 * sizeof half);
	stream_send_wait(l->stream, half, sizeof half);
	while (liar_read(l, &f) == 0)
		;
	stream_shutdown(l->stream);
	stream_close(l->stream);
	return 0;
}

RPC_TEST(deadline_amid_a_payload_gives_the_connection_up)
{
	struct liar l = { .world = arg };
	struct world *w = arg;
	static uint8_t whole[200000];
	struct iovec v = { whole, sizeof whole };
	cr_assert_eq(stream_listen(w->env, w->address, &l.listener), 0);
	struct job ended;
	job_init(&ended, &w->env->loop);
	job_hold(&ended);
	fiber_start(&w->env->loop, half_server, &l, &ended);
	struct rpc_client *c = world_connect(w, (struct rpc_client_options){ 0 });
	struct rpc_call call;
	rpc_call_init(&call, FILL, NULL, NULL);
	call.reply_payload = &v;
	call.reply_payload_count = 1;
	call.deadline_ns = 50 * NS_PER_MS;
	cr_assert_eq(rpc_call_wait(c, &call, NULL), -ETIMEDOUT);
	cr_assert_not(rpc_connected(c));
	cr_assert_eq(fiber_wait(&ended), 0);
	rpc_call_clean(&call);
	rpc_close(c);
	listener_close(l.listener);
	return 0;
}

RPC_TEST(lying_clients_are_thrown_out_and_others_served)
{
	struct world *w = arg;
	struct liar l = { .world = w };
	world_listen(w);
	struct rpc_client *c = world_connect(w, (struct rpc_client_options){ 0 });
	const struct {
		const char *what;
		bool hello;
		enum frame_kind kind;
		uint64_t id;
		uint32_t reply_limit, payload_bytes;
		int times;
	} lie[] = {
		{ "a call before the greeting", false, FRAME_CALL, 11, 0, 0, 1 },
		{ "a ping before the greeting", false, FRAME_PING, 11, 0, 0, 1 },
		{ "a second greeting", true, FRAME_HELLO, 11, 0, 0, 1 },
		{ "a reply", true, FRAME_REPLY, 11, 0, 0, 1 },
		{ "a cancel before the greeting", false, FRAME_CANCEL, 11, 0, 0, 1 },
		{ "a cancel of a call that is to come", true, FRAME_CANCEL, 11, 0, 0, 1 },
		{ "a cancel with a payload", true, FRAME_CANCEL, 10, 0, 1, 1 },
		{ "a cancel with room for an answer", true, FRAME_CANCEL, 10, 1, 0, 1 },
		{ "an id that was used", true, FRAME_CALL, 10, 0, 0, 1 },
		{ "a call replayed", true, FRAME_CALL, 11, 0, 0, 2 },
		{ "room for too much", true, FRAME_CALL, 11, UINT32_MAX, 0, 1 },
		{ "a ping with payload", true, FRAME_PING, 11, 0, 4096, 1 },
		{ "a ping with room", true, FRAME_PING, 11, 4096, 0, 1 },
	};
	for (size_t i = 0; i < ARRAY_COUNT(lie); i++) {
		Aquifer__Envelope e = AQUIFER__ENVELOPE__INIT;
		liar_connect(&l, lie[i].hello);
		e.id = lie[i].id;
		e.method = FAIL;
		e.reply_limit = lie[i].reply_limit;
		for (int k = 0; k < lie[i].times; k++)
			liar_write(&l, lie[i].kind, &e, NULL, lie[i].payload_bytes);
		liar_is_thrown_out(&l, lie[i].times - 1, lie[i].what);
		cr_assert_eq(call_plain(c, FAIL, 0), -ENOSPC, "%s", lie[i].what);
	}
	const char junk[] = "GET / HTTP/1.1\r\nHost: aquifer\r\n\r\n";
	liar_connect(&l, true);
	stream_send_wait(l.stream, junk, sizeof junk);
	liar_is_thrown_out(&l, 0, "junk");
	/* a message that isn't one reaches the handler as such */
	struct rpc_call call;
	ProtobufCBinaryData broken = { 3, (uint8_t *)(uintptr_t)"\377\377\377" };
	Aquifer__Envelope not_hello = AQUIFER__ENVELOPE__INIT;
	not_hello.body = broken;
	not_hello.text = (char *)"field 5 of a Hello is a number, not a text";
	rpc_call_init(&call, ECHO, &not_hello.base, NULL);
	cr_assert_eq(rpc_call_wait(c, &call, NULL), -EBADMSG);
	rpc_call_clean(&call);
	rpc_close(c);
	rpc_server_close(w->server, 0);
	return 0;
}

RPC_TEST(silent_and_stalled_clients_are_closed_busy_ones_are_not)
{
	struct world *w = arg;
	struct liar silent = { .world = w }, half = { .world = w }, stalled = { .world = w };
	w->options.silence_ns = NS_PER_S;
	world_listen(w);
	struct rpc_client *c = world_connect(w, (struct rpc_client_options){ .silence_ns = 1500 * NS_PER_MS });
	liar_connect(&silent, false);
	liar_connect(&half, true);
	stream_send_wait(half.stream, "AQPR\1\0\2\0", 8);
	liar_connect(&stalled, true);
	Aquifer__Envelope e = AQUIFER__ENVELOPE__INIT;
	e.method = FILL;
	e.reply_limit = RPC_PAYLOAD_MAX;
	for (e.id = 11; e.id < 15; e.id++) /* asks, and never reads */
		liar_write(&stalled, FRAME_CALL, &e, NULL, 0);
	while (rpc_server_connections(w->server) > 1)
		fiber_sleep(&w->env->loop, NS_PER_MS);
	cr_assert_eq(call_plain(c, FAIL, 0), -ENOSPC);
	struct liar *all[] = { &silent, &half, &stalled };
	for (size_t i = 0; i < ARRAY_COUNT(all); i++) {
		stream_shutdown(all[i]->stream);
		stream_close(all[i]->stream);
	}
	rpc_close(c);
	rpc_server_close(w->server, 0);
	return 0;
}
