/* Versions of the RPC's protocol: which one is spoken, what is said when there is none, and what came with version 2: a call that is
 * canceled is answered without its payload, and a peer of version 1 isn't told. */
#include <errno.h>
#include <string.h>

#include "core/bytes.h"
#include "tests/unit/rpctest.h"

RPC_TEST(versions_next_to_each_other_meet_others_do_not)
{
	struct world *w = arg;
	struct report report;
	w->options.protocol_oldest = 4;
	w->options.protocol = 5;
	world_listen(w);
	cr_assert_eq(connect_as(w, "test", 5, 6, &report), 0);
	cr_assert_eq(connect_as(w, "test", 3, 4, &report), 0);
	cr_assert_eq(connect_as(w, "test", 4, 5, &report), 0);
	cr_assert_eq(connect_as(w, "test", 6, 7, &report), -EPROTONOSUPPORT);
	cr_assert(strstr(report.text, "upgrade the older"), "%s", report.text);
	cr_assert_eq(connect_as(w, "test", 2, 3, &report), -EPROTONOSUPPORT);
	cr_assert_eq(connect_as(w, "other", 4, 5, &report), -EPROTONOSUPPORT);
	cr_assert(strstr(report.text, "server for \"test\""), "%s", report.text);
	rpc_server_close(w->server, 0);
	return 0;
}

RPC_TEST(the_highest_version_that_both_speak_is_spoken)
{
	struct world *w = arg;
	static const uint32_t ranges[][5] = { { 1, 2, 1, 2, 2 }, { 1, 1, 1, 2, 1 }, { 1, 2, 1, 1, 1 }, { 2, 3, 1, 2, 2 }, { 1, 9, 4, 7, 7 } };
	for (unsigned i = 0; i < ARRAY_COUNT(ranges); i++) {
		w->options.protocol_oldest = ranges[i][0];
		w->options.protocol = ranges[i][1];
		world_listen(w);
		struct rpc_client *c = world_connect(w, (struct rpc_client_options){ .protocol_oldest = ranges[i][2], .protocol = ranges[i][3] });
		cr_assert_eq(rpc_protocol(c), ranges[i][4]);
		rpc_close(c);
		rpc_server_close(w->server, 0);
	}
	return 0;
}

/* Whoever waits in the background says why, too. */
RPC_TEST(a_server_without_a_common_version_is_named_so)
{
	struct world *w = arg;
	struct rpc_client *c;
	struct rpc_client_options o = { .service = "test", .lazy = true, .reconnect = true, .retry_min_ns = NS_PER_MS };
	w->options.protocol_oldest = 8;
	w->options.protocol = 9;
	world_listen(w);
	cr_assert_eq(rpc_connect(w->env, w->address, &o, &c, NULL), 0);
	for (unsigned i = 0; i < 1000 && !rpc_refused(c)[0]; i++)
		fiber_sleep(&w->env->loop, NS_PER_MS);
	cr_assert_str_eq(rpc_refused(c), "the server speaks versions 8 to 9 of the protocol, the client 1 to 2 (upgrade the older)");
	cr_assert_not(rpc_connected(c));
	rpc_server_close(w->server, 0);
	w->options.protocol_oldest = 2; /* it is replaced */
	world_listen(w);
	cr_assert_eq(rpc_wait_connected(c, NS_PER_S), 0);
	cr_assert_str_empty(rpc_refused(c));
	rpc_close(c);
	rpc_server_close(w->server, 0);
	return 0;
}

/* The server of `protocol` is told of what is canceled or overdue, or isn't, and all goes on. */
static void cancel_at(struct world *w, uint32_t protocol)
{
	static uint8_t page[65536];
	struct iovec v = { page, sizeof page };
	struct rpc_call call;
	struct job ended;
	bool told = protocol >= RPC_PROTOCOL_CANCEL;
	w->options.protocol = protocol;
	world_listen(w);
	struct rpc_client *c = world_connect(w, (struct rpc_client_options){ .lost = count_lost, .arg = w });
	rpc_call_init(&call, NEVER, NULL, NULL);
	call.reply_payload = &v;
	call.reply_payload_count = 1;
	job_init(&ended, &w->env->loop);
	rpc_submit(c, &call, &ended);
	while (w->kept_count == 0)
		fiber_sleep(&w->env->loop, NS_PER_MS);
	rpc_cancel(c, &call);
	cr_assert_eq(fiber_wait(&ended), -ECANCELED);
	rpc_call_clean(&call);
	cr_assert_eq(call_plain(c, NEVER, 5 * NS_PER_MS), -ETIMEDOUT);
	cr_assert_eq(call_plain(c, FAIL, 0), -ENOSPC); /* by now the server has seen all that was sent before */
	cr_assert_eq(w->kept_count, 2);
	cr_assert_eq(w->kept[0]->canceled, told);
	cr_assert_eq(w->kept[1]->canceled, told);
	memset(page, 0x11, sizeof page);
	let_go(w);
	cr_assert_eq(call_plain(c, FAIL, 0), -ENOSPC); /* the late replies have come */
	for (size_t i = 0; i < sizeof page; i++)
		cr_assert_eq(page[i], 0x11, "a buffer that isn't lent any more");
	for (unsigned i = 0; i < 300; i++) { /* no slot is lost */
		rpc_call_init(&call, NEVER, NULL, NULL);
		job_init(&ended, &w->env->loop);
		rpc_submit(c, &call, &ended);
		while (w->kept_count == 0)
			fiber_sleep(&w->env->loop, 0);
		rpc_cancel(c, &call);
		cr_assert_eq(fiber_wait(&ended), -ECANCELED);
		rpc_call_clean(&call);
		let_go(w);
	}
	cr_assert_eq(call_plain(c, FAIL, 0), -ENOSPC);
	cr_assert_eq(w->lost, 0);
	rpc_close(c);
	rpc_server_close(w->server, 0);
	cr_assert_eq(w->kept_count, 0);
}

RPC_TEST(who_cancels_a_call_tells_a_server_that_understands_it)
{
	cancel_at(arg, RPC_PROTOCOL);
	return 0;
}

RPC_TEST(who_cancels_a_call_does_not_tell_an_older_server)
{
	cancel_at(arg, RPC_PROTOCOL_CANCEL - 1);
	return 0;
}

/* What comes over the wire: an answer without the payload, and nothing for ids that are no calls under way. */
RPC_TEST(a_canceled_call_is_answered_without_payload)
{
	struct world *w = arg;
	struct liar l = { .world = w };
	struct frame f;
	world_listen(w);
	liar_connect(&l, true);
	Aquifer__Envelope e = AQUIFER__ENVELOPE__INIT, cancel = AQUIFER__ENVELOPE__INIT;
	e.method = NEVER;
	e.reply_limit = 8192;
	for (e.id = 11; e.id <= 12; e.id++)
		cr_assert_eq(liar_write(&l, FRAME_CALL, &e, NULL, 0), 0);
	static const uint64_t ids[] = { 3, 10, 11, 11 };
	for (unsigned i = 0; i < ARRAY_COUNT(ids); i++) {
		cancel.id = ids[i];
		cr_assert_eq(liar_write(&l, FRAME_CANCEL, &cancel, NULL, 0), 0);
	}
	e.id = 13;
	e.method = FAIL;
	cr_assert_eq(liar_write(&l, FRAME_CALL, &e, NULL, 0), 0);
	cr_assert_eq(liar_read(&l, &f), 0);
	cr_assert_eq(l.id, 13);
	let_go(w);
	cr_assert_eq(liar_read(&l, &f), 0);
	cr_assert(l.id == 11 && f.payload_bytes == 0);
	Aquifer__Envelope *got = frame_envelope(&f, NULL);
	cr_assert_eq(got->status, -ECANCELED);
	aquifer__envelope__free_unpacked(got, NULL);
	cr_assert_eq(liar_read(&l, &f), 0);
	cr_assert(l.id == 12 && f.payload_bytes == 8192);
	stream_shutdown(l.stream);
	stream_close(l.stream);
	rpc_server_close(w->server, 0);
	return 0;
}

/* A peer of the version before would break off, too. */
RPC_TEST(a_cancel_that_was_not_agreed_on_ends_the_connection)
{
	struct world *w = arg;
	struct liar l = { .world = w };
	w->options.protocol = RPC_PROTOCOL_CANCEL - 1;
	world_listen(w);
	l.protocol_oldest = RPC_PROTOCOL_CANCEL - 1;
	liar_connect(&l, true);
	Aquifer__Envelope e = AQUIFER__ENVELOPE__INIT;
	e.id = 10;
	liar_write(&l, FRAME_CANCEL, &e, NULL, 0);
	liar_is_thrown_out(&l, 0, "a cancel in version 1");
	rpc_server_close(w->server, 0);
	return 0;
}
