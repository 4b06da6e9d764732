#include "tests/unit/rpctest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/blk.h"
#include "core/bytes.h"

static void count_released(struct rpc_request *r)
{
	struct world *w = r->private;
	w->released++;
}

static void reply_huge(struct rpc_request *r)
{
	Aquifer__Hello h = AQUIFER__HELLO__INIT;
	char *text = malloc(FRAME_HEADER_MAX + 1);
	memset(text, 'x', FRAME_HEADER_MAX);
	text[FRAME_HEADER_MAX] = 0;
	h.software = text;
	rpc_reply(r, 0, NULL, &h.base, NULL, 0);
	free(text);
}

static void handle(void *arg, struct rpc_request *r)
{
	struct world *w = arg;
	w->handled++;
	r->private = w;
	r->released = count_released;
	switch (r->method) {
	case ECHO: {
		ProtobufCMessage *m = rpc_request_body(r, &aquifer__hello__descriptor);
		uint32_t n = MIN(r->payload_bytes, r->reply_limit);
		if (n)
			memcpy(r->reply_payload, r->payload, n);
		if (m)
			rpc_reply_bytes(r, m, n);
		else
			rpc_reply(r, -EBADMSG, "no message", NULL, NULL, 0);
		return;
	}
	case FAIL:
		rpc_reply(r, -ENOSPC, "the store is full", NULL, NULL, 0);
		return;
	case NEVER:
		w->kept[w->kept_count++] = r;
		return;
	case SLOW:
		fiber_sleep(&w->env->loop, 20 * NS_PER_MS);
		rpc_reply(r, 0, NULL, NULL, NULL, 0);
		return;
	case FILL:
		memset(r->reply_payload, 0x5a, r->reply_limit);
		rpc_reply_bytes(r, NULL, r->reply_limit);
		return;
	case HUGE_ANSWER:
		reply_huge(r);
		return;
	default:
		rpc_reply(r, -ENOSYS, NULL, NULL, NULL, 0);
	}
}

void let_go(struct world *w)
{
	unsigned n = w->kept_count;
	w->kept_count = 0;
	for (unsigned i = 0; i < n; i++)
		rpc_reply_bytes(w->kept[i], NULL, w->kept[i]->reply_limit);
}

void world_listen(struct world *w)
{
	struct report report = { 0 };
	w->options.service = "test";
	w->options.handle = handle;
	w->options.arg = w;
	int r = rpc_listen(w->env, w->address, &w->options, &w->server, &report);
	cr_assert_eq(r, 0, "%s", report_text(&report, r));
}

struct rpc_client *world_connect(struct world *w, struct rpc_client_options o)
{
	struct rpc_client *c = NULL;
	struct report report = { 0 };
	o.service = "test";
	o.retry_min_ns = NS_PER_MS;
	int r = rpc_connect(w->env, w->address, &o, &c, &report);
	cr_assert_eq(r, 0, "%s", report_text(&report, r));
	return c;
}

void world_run(int (*run)(void *arg))
{
	struct world w = { 0 };
	strcpy(w.directory, "/tmp/aq-rpc-XXXXXX");
	cr_assert(mkdtemp(w.directory));
	snprintf(w.address, sizeof w.address, "unix:%s/s", w.directory);
	cr_assert_eq(env_linux_create(1, &w.env), 0);
	cr_assert_eq(env_linux_run_fiber(w.env, run, &w), 0);
	env_linux_destroy(w.env);
	unlink(w.address + 5);
	rmdir(w.directory);
}

int call_plain(struct rpc_client *c, uint32_t method, uint64_t deadline_ns)
{
	struct rpc_call call;
	rpc_call_init(&call, method, NULL, NULL);
	call.deadline_ns = deadline_ns;
	int r = rpc_call_wait(c, &call, NULL);
	rpc_call_clean(&call);
	return r;
}

void count_lost(void *arg, int status)
{
	struct world *w = arg;
	cr_assert_lt(status, 0);
	w->lost++;
}

int connect_as(struct world *w, const char *service, uint32_t oldest, uint32_t newest, struct report *report)
{
	struct rpc_client *c;
	struct rpc_client_options o = { .service = service, .protocol_oldest = oldest, .protocol = newest };
	*report = (struct report){ 0 };
	int r = rpc_connect(w->env, w->address, &o, &c, report);
	if (r == 0)
		rpc_close(c);
	return r;
}

/* ---- peers that lie ---- */

int liar_read(struct liar *l, struct frame *f)
{
	size_t need;
	int r = stream_recv_wait(l->stream, l->bytes, FRAME_PREFIX_BYTES);
	if (r < 0)
		return r;
	frame_decode(l->bytes, FRAME_PREFIX_BYTES, f, &need);
	cr_assert_leq(need, sizeof l->bytes);
	r = stream_recv_wait(l->stream, l->bytes + FRAME_PREFIX_BYTES, need - FRAME_PREFIX_BYTES);
	if (r < 0)
		return r;
	cr_assert_eq(frame_decode(l->bytes, need, f, &need), 0);
	Aquifer__Envelope *e = frame_envelope(f, NULL);
	cr_assert(e);
	l->id = e->id;
	aquifer__envelope__free_unpacked(e, NULL);
	return 0;
}

int liar_write(struct liar *l, enum frame_kind kind, const Aquifer__Envelope *e, const ProtobufCMessage *body,
		      uint32_t payload_bytes)
{
	uint8_t b[1024];
	size_t n = frame_bytes(e, body);
	cr_assert_leq(n, sizeof b);
	frame_encode(kind, e, body, payload_bytes, b);
	frame_seal(b, e->id);
	return stream_send_wait(l->stream, b, n);
}

void liar_connect(struct liar *l, bool hello)
{
	struct frame f;
	cr_assert_eq(stream_connect(l->world->env, l->world->address, 0, &l->stream), 0);
	if (!hello)
		return;
	Aquifer__Hello h = AQUIFER__HELLO__INIT;
	Aquifer__Envelope e = AQUIFER__ENVELOPE__INIT;
	h.service = (char *)"test";
	h.protocol = RPC_PROTOCOL;
	h.protocol_oldest = l->protocol_oldest ? l->protocol_oldest : RPC_PROTOCOL;
	e.id = 10;
	cr_assert_eq(liar_write(l, FRAME_HELLO, &e, &h.base, 0), 0);
	cr_assert_eq(liar_read(l, &f), 0);
	cr_assert_eq(f.kind, FRAME_REPLY);
}

void liar_is_thrown_out(struct liar *l, int answers, const char *what)
{
	struct frame f;
	Aquifer__Envelope e = AQUIFER__ENVELOPE__INIT;
	e.id = 5000;
	e.method = FAIL;
	liar_write(l, FRAME_CALL, &e, NULL, 0);
	while (liar_read(l, &f) == 0)
		cr_assert_geq(--answers, 0, "%s: still served", what);
	stream_shutdown(l->stream);
	stream_close(l->stream);
}
