/* TLS below the RPC, in the simulated world: who is let in and who isn't, what is said to him, what strangers can hold
 * up, and that bytes arrive as they were sent, in any pieces, over changes of keys. */
#include <criterion/criterion.h>
#include <errno.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/env_sim.h"
#include "core/fiber.h"
#include "proto/door.h"
#include "proto/rpc.h"
#include "tests/unit/tlstest.h"

#define DAY_S UINT64_C(86400)

struct world {
	struct sim *sim;
	struct env *client, *server;
	struct tlstest_authority ours, theirs;
	uint64_t now_s;
	struct rpc_server *rpc;
	struct rpc_server_options options;
	const char *address, *host;
	struct report report;
	char who[IDENTITY_HOST_BYTES];
	enum identity_role role;
};

static void handle(void *arg, struct rpc_request *r)
{
	struct world *w = arg;
	cr_assert(r->who);
	strcpy(w->who, r->who->host);
	w->role = r->who->role;
	rpc_reply(r, 0, NULL, NULL, NULL, 0);
}

static int listen_up(void *arg)
{
	struct world *w = arg;
	w->options.service = "test";
	w->options.handle = handle;
	w->options.arg = w;
	return rpc_listen(w->server, "tls:server:1", &w->options, &w->rpc, &w->report);
}

static int listen_down(void *arg)
{
	rpc_server_close(((struct world *)arg)->rpc, 0);
	return 0;
}

static int call_once(void *arg)
{
	struct world *w = arg;
	struct rpc_client_options o = { .service = "test", .roles = ROLE_SERVER, .host = w->host };
	struct rpc_client *c;
	struct rpc_call call;
	int r = rpc_connect(w->client, w->address, &o, &c, &w->report);
	if (r < 0)
		return r;
	rpc_call_init(&call, 1, NULL, NULL);
	r = rpc_call_wait(c, &call, &w->report);
	rpc_call_clean(&call);
	rpc_close(c);
	return r;
}

static struct identity *identity(struct world *w, enum identity_role role, const char *host)
{
	return tlstest_identity(&w->ours, &w->ours, role, host, w->now_s, DAY_S);
}

static void setup(struct world *w, unsigned roles)
{
	*w = (struct world){ .sim = sim_create(1, NULL), .address = "tls:server:1", .options.roles = roles };
	w->client = sim_process_create(w->sim, sim_host_create(w->sim, "client", 1 << 20, 512));
	w->server = sim_process_create(w->sim, sim_host_create(w->sim, "server", 1 << 20, 512));
	w->now_s = env_wall_ns(w->client) / NS_PER_S;
	tlstest_authority(&w->ours, w->now_s);
	tlstest_authority(&w->theirs, w->now_s);
	w->client->identity = identity(w, ROLE_AGENT, "alpha");
	w->server->identity = identity(w, ROLE_SERVER, "beta");
	cr_assert_eq(sim_run_fiber(w->server, listen_up, w), 0, "%s", w->report.text);
}

static void be(struct env *env, struct identity *i)
{
	identity_put(env->identity);
	env->identity = i;
}

static void teardown(struct world *w)
{
	sim_run_fiber(w->server, listen_down, w);
	be(w->client, NULL);
	be(w->server, NULL);
	sim_process_destroy(w->client);
	sim_process_destroy(w->server);
	sim_destroy(w->sim);
	tlstest_authority_free(&w->ours);
	tlstest_authority_free(&w->theirs);
}

static void expect(struct world *w, int status, const char *text)
{
	w->report.text[0] = 0;
	w->who[0] = 0;
	int r = sim_run_fiber(w->client, call_once, w);
	cr_assert_eq(r, status, "%d, not %d: %s", r, status, w->report.text);
	cr_assert(strstr(w->report.text, text), "'%s' isn't in: %s", text, w->report.text);
	cr_assert_eq(w->who[0] != 0, status == 0);
}

Test(tls, who_is_enrolled_is_let_in_and_known)
{
	struct world w;
	setup(&w, ROLE_AGENT);
	expect(&w, 0, "");
	cr_assert_str_eq(w.who, "alpha");
	cr_assert_eq(w.role, ROLE_AGENT);
	teardown(&w);
}

Test(tls, who_is_not_gets_nothing_and_hears_why)
{
	struct world w;
	setup(&w, ROLE_AGENT);
	be(w.client, NULL);
	expect(&w, -EACCES, "isn't enrolled");
	be(w.client, tlstest_identity(&w.theirs, &w.ours, ROLE_AGENT, "alpha", w.now_s, DAY_S));
	expect(&w, -EACCES, "doesn't accept this host's certificate: unknown CA");
	be(w.client, tlstest_identity(&w.theirs, &w.theirs, ROLE_AGENT, "alpha", w.now_s, DAY_S));
	expect(&w, -EKEYREJECTED, "its certificate isn't accepted");
	be(w.client, identity(&w, ROLE_SERVER, "alpha"));
	expect(&w, -EACCES, "doesn't accept this host's certificate: unsupported certificate");
	be(w.client, tlstest_identity(&w.ours, &w.ours, ROLE_AGENT, "alpha", w.now_s - 3 * DAY_S, DAY_S));
	expect(&w, -EACCES, "doesn't accept this host's certificate: certificate expired (or its clock is wrong)");
	be(w.client, tlstest_identity(&w.ours, &w.ours, ROLE_AGENT, "alpha", w.now_s + DAY_S, DAY_S));
	expect(&w, -EACCES, "doesn't accept this host's certificate");
	be(w.client, identity(&w, ROLE_AGENT, "alpha"));
	expect(&w, 0, "");
	teardown(&w);
}

/* Another server of the cluster, which has got hold of the address. */
Test(tls, a_certificate_of_another_host_is_not_the_one_that_is_meant)
{
	struct world w;
	setup(&w, ROLE_AGENT);
	w.host = "beta";
	expect(&w, 0, "");
	be(w.server, identity(&w, ROLE_SERVER, "gamma"));
	expect(&w, -EKEYREJECTED, "it is host gamma's, not beta's");
	be(w.server, identity(&w, ROLE_SERVER, "betamax"));
	expect(&w, -EKEYREJECTED, "it is host betamax's, not beta's");
	w.host = "";
	expect(&w, 0, "");
	teardown(&w);
}

Test(tls, a_server_is_checked_too)
{
	struct world w;
	setup(&w, ROLE_ANY);
	be(w.server, tlstest_identity(&w.theirs, &w.ours, ROLE_SERVER, "beta", w.now_s, DAY_S));
	expect(&w, -EKEYREJECTED, "its certificate isn't accepted");
	be(w.server, identity(&w, ROLE_AGENT, "beta"));
	expect(&w, -EKEYREJECTED, "its certificate isn't accepted");
	be(w.server, tlstest_identity(&w.ours, &w.ours, ROLE_SERVER, "beta", w.now_s - 3 * DAY_S, DAY_S));
	expect(&w, -EKEYREJECTED, "certificate has expired");
	be(w.server, NULL);
	expect(&w, -ECONNRESET, "");
	be(w.server, identity(&w, ROLE_SERVER, "beta"));
	expect(&w, 0, "");
	teardown(&w);
}

Test(tls, the_revoked_are_refused_until_they_have_a_new_certificate)
{
	struct world w;
	setup(&w, ROLE_AGENT);
	struct identity_revoked gone[2] = { { "gamma", w.now_s }, { "alpha", w.now_s } };
	cr_assert_eq(identity_revoke(w.server->identity, gone, 2), 0);
	expect(&w, -EACCES, "doesn't accept this host's certificate: certificate revoked");
	be(w.client, tlstest_identity(&w.ours, &w.ours, ROLE_AGENT, "alpha", w.now_s + 10, DAY_S));
	expect(&w, 0, "");
	cr_assert_eq(identity_revoke(w.server->identity, NULL, 0), 0);
	cr_assert_eq(identity_revoke(w.server->identity, gone, IDENTITY_REVOKED_MAX + 1), -E2BIG);
	teardown(&w);
}

static int hold_a_connection(void *arg)
{
	struct world *w = arg;
	struct rpc_client_options o = { .service = "test" };
	struct rpc_client *c;
	cr_assert_eq(rpc_connect(w->client, w->address, &o, &c, &w->report), 0);
	struct identity_revoked gone = { "alpha", w->now_s };
	rpc_server_check_peers(w->rpc);
	fiber_sleep(&w->client->loop, NS_PER_S);
	cr_assert(rpc_connected(c));
	cr_assert_eq(identity_revoke(w->server->identity, &gone, 1), 0);
	rpc_server_check_peers(w->rpc);
	fiber_sleep(&w->client->loop, NS_PER_S);
	cr_assert(!rpc_connected(c));
	rpc_close(c);
	return 0;
}

Test(tls, connections_of_the_revoked_end)
{
	struct world w;
	setup(&w, ROLE_AGENT);
	sim_run_fiber(w.client, hold_a_connection, &w);
	teardown(&w);
}

static int hold_a_revoked_server(void *arg)
{
	struct world *w = arg;
	struct rpc_client_options o = { .service = "test", .reconnect = true };
	struct identity_revoked gone = { "beta", w->now_s };
	struct rpc_client *c;
	cr_assert_eq(rpc_connect(w->client, w->address, &o, &c, &w->report), 0);
	fiber_sleep(&w->client->loop, 20 * NS_PER_S);
	cr_assert(rpc_connected(c));
	cr_assert_str_eq(rpc_refused(c), "");
	cr_assert_eq(identity_revoke(w->client->identity, &gone, 1), 0);
	fiber_sleep(&w->client->loop, 20 * NS_PER_S);
	cr_assert(!rpc_connected(c));
	cr_assert(strstr(rpc_refused(c), "certificate revoked"), "%s", rpc_refused(c));
	cr_assert_eq(identity_revoke(w->client->identity, NULL, 0), 0);
	cr_assert_eq(rpc_wait_connected(c, 20 * NS_PER_S), 0);
	cr_assert_str_eq(rpc_refused(c), "");
	rpc_close(c);
	return 0;
}

Test(tls, a_server_that_is_revoked_is_let_go_of)
{
	struct world w;
	setup(&w, ROLE_AGENT);
	sim_run_fiber(w.client, hold_a_revoked_server, &w);
	teardown(&w);
}

static struct rpc_client *lasting;

static int be_refused(void *arg)
{
	struct world *w = arg;
	struct rpc_client_options o = { .service = "test", .reconnect = true, .lazy = true };
	cr_assert_eq(rpc_connect(w->client, w->address, &o, &lasting, &w->report), 0);
	fiber_sleep(&w->client->loop, 20 * NS_PER_S);
	cr_assert(!rpc_connected(lasting) && strstr(rpc_refused(lasting), "certificate revoked"), "%s", rpc_refused(lasting));
	return 0;
}

static int be_alone(void *arg)
{
	struct world *w = arg;
	fiber_sleep(&w->client->loop, 60 * NS_PER_S);
	cr_assert_str_eq(rpc_refused(lasting), "");
	rpc_close(lasting);
	return 0;
}

Test(tls, who_has_gone_refuses_nobody_any_more)
{
	struct world w;
	setup(&w, ROLE_AGENT);
	struct identity_revoked gone = { "alpha", w.now_s };
	cr_assert_eq(identity_revoke(w.server->identity, &gone, 1), 0);
	sim_run_fiber(w.client, be_refused, &w);
	sim_run_fiber(w.server, listen_down, &w);
	w.rpc = NULL;
	sim_run_fiber(w.client, be_alone, &w);
	teardown(&w);
}

Test(tls, plain_text_and_tls_do_not_mix)
{
	struct world w;
	setup(&w, ROLE_AGENT);
	w.address = "tcp:server:1";
	w.report.text[0] = 0;
	cr_assert_lt(sim_run_fiber(w.client, call_once, &w), 0);
	cr_assert_eq(w.who[0], 0);
	teardown(&w);
}

/* ---- strangers ---- */

struct stranger {
	struct world *w;
	const uint8_t *bytes;
	size_t length;
	struct stream *stream;
};

static int say(void *arg)
{
	struct stranger *s = arg;
	int r = stream_connect(s->w->client, "tcp:server:1", NS_PER_S, &s->stream);
	return r < 0 || s->length == 0 ? r : stream_send_wait(s->stream, s->bytes, s->length);
}

static int rest_short(void *arg) { return fiber_sleep(&((struct world *)arg)->client->loop, 50 * NS_PER_MS); }
static int rest(void *arg) { return fiber_sleep(&((struct world *)arg)->client->loop, NS_PER_S); }
static int rest_long(void *arg) { return fiber_sleep(&((struct world *)arg)->client->loop, 2 * DOOR_NS); }

/* What a client says first, from one that talks to nobody. `newest`: 0 for our own. */
static size_t first_words(struct world *w, int newest, uint8_t *ret, size_t room)
{
	struct tls t = { .env = w->client, .roles = ROLE_ANY };
	SSL *ssl = SSL_new(w->client->identity->context);
	BIO *b = BIO_new(BIO_s_mem()), *none = BIO_new(BIO_s_mem());
	BIO_set_mem_eof_return(none, -1);
	SSL_set_bio(ssl, none, b);
	SSL_set_app_data(ssl, &t);
	if (newest) {
		SSL_set_min_proto_version(ssl, newest);
		SSL_set_max_proto_version(ssl, newest);
		SSL_set_cipher_list(ssl, "ALL");
	}
	SSL_set_connect_state(ssl);
	SSL_do_handshake(ssl);
	int n = BIO_read(b, ret, (int)room);
	SSL_free(ssl);
	cr_assert_gt(n, 50);
	return (size_t)n;
}

Test(tls, half_a_handshake_or_a_damaged_one_leads_nowhere, .timeout = 60)
{
	struct world w;
	uint8_t hello[2048], bad[2048];
	setup(&w, ROLE_AGENT);
	size_t n = first_words(&w, 0, hello, sizeof hello);
	for (unsigned i = 0; i < 120; i++) {
		memcpy(bad, hello, n);
		size_t length = i % 2 ? n : 1 + (i * 5) % n;
		if (i % 2)
			bad[(i * 7) % n] ^= (uint8_t)(1 << i % 8);
		struct stranger s = { &w, bad, length, NULL };
		cr_assert_eq(sim_run_fiber(w.client, say, &s), 0);
		sim_run_fiber(w.client, rest, &w);
		stream_shutdown(s.stream);
		stream_close(s.stream);
	}
	sim_run_fiber(w.client, rest, &w);
	cr_assert_eq(rpc_server_connections(w.rpc), 0);
	expect(&w, 0, "");
	teardown(&w);
}

static int answer_of(void *arg)
{
	struct stranger *s = arg;
	uint8_t answer[7] = { 0 };
	int r = say(s);
	if (r == 0)
		r = stream_recv_wait(s->stream, answer, sizeof answer);
	cr_assert_eq(answer[0], 21, "no alert but %u", answer[0]);
	cr_assert_eq(answer[6], SSL_AD_PROTOCOL_VERSION);
	return r;
}

Test(tls, older_versions_and_so_renegotiation_are_refused)
{
	struct world w;
	uint8_t hello[2048];
	setup(&w, ROLE_AGENT);
	struct stranger s = { &w, hello, first_words(&w, TLS1_2_VERSION, hello, sizeof hello), NULL };
	cr_assert_eq(sim_run_fiber(w.client, answer_of, &s), 0);
	stream_shutdown(s.stream);
	stream_close(s.stream);
	teardown(&w);
}

Test(tls, a_crowd_of_strangers_keeps_nobody_out, .timeout = 60)
{
	enum { CROWD = 200 };
	struct world w;
	struct stranger s[CROWD];
	setup(&w, ROLE_AGENT);
	for (unsigned i = 0; i < CROWD; i++) {
		s[i] = (struct stranger){ &w, (const uint8_t *)"\x16\x03\x01\x01", i % 5, NULL };
		cr_assert_eq(sim_run_fiber(w.client, say, &s[i]), 0);
		if (i % 50 == 49)
			expect(&w, 0, "");
	}
	sim_run_fiber(w.client, rest_long, &w); /* nobody stands there that long */
	cr_assert_eq(rpc_server_connections(w.rpc), 0);
	for (unsigned i = 0; i < CROWD; i++) {
		uint8_t byte;
		struct iovec v = { &byte, 1 };
		struct stream_io io = { .iov = &v, .iov_count = 1, .minimum = 1 };
		struct job j;
		job_init(&j, &w.client->loop);
		stream_recv(s[i].stream, &io, &j);
		cr_assert_eq(io.status, -ECONNRESET, "stranger %u is connected still", i);
		stream_close(s[i].stream);
	}
	expect(&w, 0, "");
	teardown(&w);
}

/* ---- bytes ---- */

struct pair {
	struct world *w;
	struct door *door;
	struct listener *listener;
	struct tls *client, *server;
	size_t bytes;
	uint64_t seed;
	bool ask_for_keys;
};

static void admit(void *arg, struct tls *tls) { ((struct pair *)arg)->server = tls; }

static int accept_one(void *arg)
{
	struct pair *p = arg;
	struct stream *s;
	cr_assert_eq(stream_accept(p->listener, &s), 0);
	return door_enter(p->door, s);
}

static int pair_listen(void *arg)
{
	struct pair *p = arg;
	p->door = door_new(p->w->server, ROLE_ANY, admit, p);
	cr_assert_eq(stream_listen(p->w->server, "tcp:server:2", &p->listener), 0);
	return fiber_start(&p->w->server->loop, accept_one, p, NULL);
}

static int pair_connect(void *arg)
{
	struct pair *p = arg;
	struct stream *s;
	cr_assert_eq(stream_connect(p->w->client, "tcp:server:2", NS_PER_S, &s), 0);
	int r = tls_connect(p->w->client, s, ROLE_ANY, NULL, NS_PER_S, &p->client, &p->w->report);
	while (r == 0 && !p->server)
		fiber_sleep(&p->w->client->loop, NS_PER_MS);
	return r;
}

static int pair_close(void *arg)
{
	struct pair *p = arg;
	tls_shutdown(p->server);
	tls_close(p->server);
	listener_close(p->listener);
	door_close(p->door);
	return 0;
}

static int door_shut(void *arg)
{
	door_close(((struct pair *)arg)->door);
	return 0;
}

static uint8_t byte_at(size_t i) { return (uint8_t)(i * 31 + i / 251); }

static uint64_t draw(struct pair *p, uint64_t below)
{
	p->seed = p->seed * 6364136223846793005u + 1442695040888963407u;
	return (p->seed >> 33) % below;
}

/* All bytes, in sends of any size and number of pieces, several at a time. */
static int send_all(void *arg)
{
	struct pair *p = arg;
	enum { MANY = 8, PIECES = 5 };
	struct stream_io io[MANY];
	struct iovec v[MANY][PIECES];
	uint8_t *bytes = malloc(p->bytes);
	for (size_t i = 0; i < p->bytes; i++)
		bytes[i] = byte_at(i);
	for (size_t at = 0; at < p->bytes;) {
		struct job j;
		job_init(&j, &p->w->client->loop);
		for (unsigned n = 0; n < MANY; n++) {
			int count = (int)draw(p, PIECES + 1);
			for (int i = 0; i < count; i++) {
				size_t length = draw(p, draw(p, 4) ? 300 : 60000);
				length = MIN(length, p->bytes - at);
				v[n][i] = (struct iovec){ bytes + at, length };
				at += length;
			}
			io[n] = (struct stream_io){ .iov = v[n], .iov_count = count };
			tls_send(p->client, &io[n], &j);
		}
		if (p->ask_for_keys)
			cr_assert_eq(SSL_key_update(p->client->ssl, SSL_KEY_UPDATE_REQUESTED), 1);
		cr_assert_eq(fiber_wait(&j), 0);
	}
	free(bytes);
	return 0;
}

static int receive_all(void *arg)
{
	struct pair *p = arg;
	static uint8_t buffer[100000];
	for (size_t at = 0; at < p->bytes;) {
		size_t a = 1 + draw(p, 50000), b = 1 + draw(p, 50000);
		a = MIN(a, p->bytes - at);
		b = MIN(b, p->bytes - at - a);
		struct iovec v[2] = { { buffer, a }, { buffer + a, b } };
		struct stream_io io = { .iov = v, .iov_count = 2, .minimum = 1 + draw(p, a + b) };
		struct job j;
		job_init(&j, &p->w->server->loop);
		tls_recv(p->server, &io, &j);
		cr_assert_eq(fiber_wait(&j), 0);
		cr_assert(io.done >= io.minimum && io.done <= a + b);
		for (size_t i = 0; i < io.done; i++)
			cr_assert_eq(buffer[i], byte_at(at + i), "byte %zu is wrong", at + i);
		at += io.done;
	}
	return 0;
}

Test(tls, bytes_arrive_as_they_were_sent_in_any_pieces_over_changes_of_keys, .timeout = 60)
{
	for (unsigned round = 0; round < 4; round++) {
		struct world w;
		setup(&w, ROLE_ANY);
		sim_doses(w.sim)->stream_buffer = round % 2 ? 3000 : 0;
		struct pair p = { .w = &w, .bytes = 1500000, .seed = round + 1, .ask_for_keys = round == 3 };
		struct job sent;
		cr_assert_eq(sim_run_fiber(w.server, pair_listen, &p), 0);
		cr_assert_eq(sim_run_fiber(w.client, pair_connect, &p), 0, "%s", w.report.text);
		cr_assert_str_eq(p.client->peer.host, "beta");
		cr_assert_str_eq(p.server->peer.host, "alpha");
		p.client->rekey_bytes = round == 2 ? 20000 : TLS_REKEY_BYTES;
		job_init(&sent, &w.client->loop);
		job_hold(&sent);
		cr_assert_eq(fiber_start(&w.client->loop, send_all, &p, &sent), 0);
		cr_assert_eq(sim_run_fiber(w.server, receive_all, &p), 0);
		while (sent.pending > 1)
			cr_assert(sim_step(w.sim));
		tls_shutdown(p.client);
		tls_close(p.client);
		sim_run_fiber(w.server, pair_close, &p);
		teardown(&w);
	}
}

static int connect_silently(void *arg)
{
	struct stranger *s = arg;
	return stream_connect(s->w->client, "tcp:server:2", NS_PER_S, &s->stream);
}

Test(tls, as_many_stand_at_the_door_as_fit)
{
	enum { CROWD = DOOR_MAX + 20 };
	struct world w;
	struct stranger s[CROWD];
	struct pair p = { .w = &w };
	setup(&w, ROLE_ANY);
	cr_assert_eq(sim_run_fiber(w.server, pair_listen, &p), 0);
	for (unsigned i = 0; i < CROWD; i++) {
		s[i] = (struct stranger){ .w = &w };
		cr_assert_eq(sim_run_fiber(w.client, connect_silently, &s[i]), 0);
		sim_run_fiber(w.client, rest_short, &w);
		cr_assert_eq(door_count(p.door), MIN(i + 1, DOOR_MAX));
		if (i + 1 < CROWD)
			cr_assert_eq(fiber_start(&w.server->loop, accept_one, &p, NULL), 0);
	}
	for (unsigned i = 0; i < CROWD; i++)
		stream_close(s[i].stream);
	listener_close(p.listener);
	p.listener = NULL;
	sim_run_fiber(w.server, door_shut, &p);
	teardown(&w);
}

static int connect_from(void *arg)
{
	struct stream **s = arg;
	struct env *env = (struct env *)*s;
	return stream_connect(env, "tcp:server:2", NS_PER_S, s);
}

Test(tls, a_crowd_from_one_address_pushes_out_nobody_from_another)
{
	enum { CROWD = DOOR_MAX + 20 };
	struct world w;
	struct stranger s[CROWD];
	struct pair p = { .w = &w };
	setup(&w, ROLE_ANY);
	struct env *other = sim_process_create(w.sim, sim_host_create(w.sim, "other", 1 << 20, 512));
	struct stream *slow = (struct stream *)other;
	cr_assert_eq(sim_run_fiber(w.server, pair_listen, &p), 0);
	cr_assert_eq(sim_run_fiber(other, connect_from, &slow), 0);
	sim_run_fiber(w.client, rest_short, &w);
	for (unsigned i = 0; i < CROWD; i++) {
		s[i] = (struct stranger){ .w = &w };
		cr_assert_eq(fiber_start(&w.server->loop, accept_one, &p, NULL), 0);
		cr_assert_eq(sim_run_fiber(w.client, connect_silently, &s[i]), 0);
		sim_run_fiber(w.client, rest_short, &w);
		cr_assert_eq(door_count(p.door), MIN(i + 2, DOOR_MAX));
	}
	uint8_t byte;
	struct iovec v = { &byte, 1 };
	struct stream_io io = { .iov = &v, .iov_count = 1, .minimum = 1 };
	struct job j;
	job_init(&j, &other->loop);
	stream_recv(slow, &io, &j);
	sim_run_fiber(w.client, rest_short, &w);
	cr_assert_eq(io.status, 0, "who came first, from another address, was sent away: %d", io.status);
	stream_shutdown(slow);
	cr_assert_eq(io.status, -ECONNRESET);
	stream_close(slow);
	for (unsigned i = 0; i < CROWD; i++)
		stream_close(s[i].stream);
	listener_close(p.listener);
	p.listener = NULL;
	sim_run_fiber(w.server, door_shut, &p);
	sim_process_destroy(other);
	teardown(&w);
}

/* ---- certificates ---- */

Test(tls, requests_of_other_kinds_are_refused)
{
	struct tlstest_authority a;
	struct report report = { "" };
	uint8_t *request, copy[CERTIFICATE_REQUEST_MAX + 1];
	size_t n;
	char *key, *certificate = NULL;
	tlstest_authority(&a, 1800000000);
	cr_assert_eq(certificate_key(&key), 0);
	cr_assert_eq(certificate_request(key, &request, &n), 0);
	for (size_t i = 0; i <= n; i++) {
		memcpy(copy, request, n);
		if (i < n)
			copy[i] ^= 0x10;
		size_t length = i == n ? n - 1 : n;
		report.text[0] = 0;
		cr_assert_eq(certificate_issue(a.certificate, a.key, copy, length, ROLE_AGENT, "a", 1800000000, 1000, &certificate, &report), -EBADMSG,
			     "byte %zu", i);
	}
	cr_assert_eq(certificate_issue(a.certificate, a.key, copy, sizeof copy, ROLE_AGENT, "a", 1800000000, 1000, &certificate, &report), -EBADMSG);

	EVP_PKEY *rsa = EVP_RSA_gen(1024);
	X509_REQ *q = X509_REQ_new();
	unsigned char *der = NULL;
	X509_REQ_set_pubkey(q, rsa);
	cr_assert_gt(X509_REQ_sign(q, rsa, EVP_sha256()), 0);
	int length = i2d_X509_REQ(q, &der);
	cr_assert_eq(certificate_issue(a.certificate, a.key, der, (size_t)length, ROLE_AGENT, "a", 1800000000, 1000, &certificate, &report), -EBADMSG);
	OPENSSL_free(der);
	X509_REQ_free(q);
	EVP_PKEY_free(rsa);
	free(request);
	certificate_wipe(key);
	tlstest_authority_free(&a);
}

Test(tls, what_a_certificate_says_is_what_was_issued)
{
	struct tlstest_authority a, b;
	struct identity_name name;
	uint8_t *request, signature[CERTIFICATE_SIGNATURE_MAX];
	size_t n, signature_length;
	char *key, *certificate;
	const uint64_t now = 1800000000;
	tlstest_authority(&a, now);
	tlstest_authority(&b, now);
	cr_assert_eq(certificate_key(&key), 0);
	cr_assert_eq(certificate_request(key, &request, &n), 0);
	cr_assert_eq(certificate_issue(a.certificate, a.key, request, n, ROLE_SERVER, "h-1.example", now, 1000, &certificate, NULL), 0);
	cr_assert_eq(certificate_check(certificate, a.certificate, now, &name), 0);
	cr_assert_eq(name.role, ROLE_SERVER);
	cr_assert_str_eq(name.host, "h-1.example");
	cr_assert_eq(name.issued_s, now);
	cr_assert_eq(name.expires_s, now + 1000);
	cr_assert_eq(certificate_check(certificate, b.certificate, now, &name), -EKEYREJECTED);
	cr_assert_eq(certificate_check(certificate, a.certificate, now + 1001, &name), -EKEYREJECTED);
	cr_assert_eq(certificate_check("nonsense", a.certificate, now, &name), -EBADMSG);
	cr_assert_eq(certificate_check(a.certificate, a.certificate, now, &name), -EBADMSG);
	cr_assert_eq(certificate_sign(key, "text", 4, signature, &signature_length), 0);
	cr_assert_eq(certificate_verify(certificate, "text", 4, signature, signature_length), 0);
	cr_assert_eq(certificate_verify(certificate, "test", 4, signature, signature_length), -EKEYREJECTED);
	cr_assert_eq(certificate_verify(a.certificate, "text", 4, signature, signature_length), -EKEYREJECTED);
	free(request);
	free(certificate);
	certificate_wipe(key);
	tlstest_authority_free(&a);
	tlstest_authority_free(&b);
}
