/* The RPC in the simulated world: connections that drop with any part delivered, refused connects,
 * delays, partitions, a server that is killed and comes back, at every seed. What must hold: each call
 * ends once; a call that succeeds has the payload and message of its own; when the world has
 * healed the client gets through again; a dead process unwinds. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/env_sim.h"
#include "core/fiber.h"
#include "proto/rpc.h"
#include "tests/unit/tlstest.h"

#define SEEDS 25
#define CALLS 60
#define PAYLOAD_MAX 20000u
#define SECRET 0x5eed

struct sim_rpc {
	struct sim *sim;
	struct sim_host *client_host, *server_host;
	struct env *client_env, *server_env;
	struct rpc_server *server;
	struct rpc_client *client;
	unsigned ok, failed, slow_pending;
	bool listening, stop;
	bool tls;
	struct tlstest_authority authority;
};

struct slow_reply {
	struct rpc_request *request;
	struct job job;
	struct timer timer;
};

static void reply_now(struct rpc_request *r)
{
	const Aquifer__Hello *m = (const Aquifer__Hello *)rpc_request_body(r, &aquifer__hello__descriptor);
	if (!m) {
		rpc_reply(r, -EBADMSG, NULL, NULL, NULL, 0);
		return;
	}
	uint32_t n = MIN(r->payload_bytes, r->reply_limit);
	for (uint32_t i = 0; i < n; i++)
		((uint8_t *)r->reply_payload)[i] = (uint8_t)(((uint8_t *)r->payload)[i] ^ 0xa5);
	Aquifer__Hello answer = AQUIFER__HELLO__INIT;
	answer.protocol = m->protocol + SECRET;
	rpc_reply_bytes(r, &answer.base, n);
}

static void reply_later(struct job *j)
{
	struct slow_reply *s = container_of(j, struct slow_reply, job);
	reply_now(s->request);
	free(s);
}

/* Answers in any order: one in three after up to a second. */
static void handle(void *arg, struct rpc_request *r)
{
	struct sim_rpc *t = arg;
	if (sim_random(t->sim) % 3) {
		reply_now(r);
		return;
	}
	struct slow_reply *s = malloc(sizeof *s);
	s->request = r;
	timer_init(&s->timer);
	job_init(&s->job, &t->server_env->loop);
	timer_start(t->server_env, &s->timer, sim_random(t->sim) % NS_PER_S, &s->job);
	job_then(&s->job, reply_later);
}

static int server_up(void *arg)
{
	struct sim_rpc *t = arg;
	struct rpc_server_options o = { .service = "sim", .handle = handle, .arg = t, .in_flight = 7, .pool_bytes = 1,
					.protocol = 1 + (uint32_t)sim_random(t->sim) % RPC_PROTOCOL };
	return rpc_listen(t->server_env, t->tls ? "tls:server:1" : "tcp:server:1", &o, &t->server, NULL);
}

static int server_down(void *arg)
{
	struct sim_rpc *t = arg;
	rpc_server_close(t->server, 0);
	return 0;
}

static int client_up(void *arg)
{
	struct sim_rpc *t = arg;
	struct rpc_client_options o = { .service = "sim", .reconnect = true, .in_flight = 16,
					.protocol = 1 + (uint32_t)sim_random(t->sim) % RPC_PROTOCOL };
	return rpc_connect(t->client_env, t->tls ? "tls:server:1" : "tcp:server:1", &o, &t->client, NULL);
}

static int client_down(void *arg)
{
	struct sim_rpc *t = arg;
	rpc_close(t->client);
	return 0;
}

struct sim_call {
	struct rpc_call call;
	uint8_t out[PAYLOAD_MAX], in[PAYLOAD_MAX];
	struct iovec from, to[2];
	uint32_t bytes;
};

static void sim_call_start(struct sim_rpc *t, struct sim_call *c, uint32_t number, struct job *all)
{
	Aquifer__Hello m = AQUIFER__HELLO__INIT;
	c->bytes = (uint32_t)sim_random(t->sim) % PAYLOAD_MAX;
	for (uint32_t i = 0; i < c->bytes; i++)
		c->out[i] = (uint8_t)(number + i * 7);
	c->from = (struct iovec){ c->out, c->bytes };
	uint32_t cut = c->bytes / 3;
	c->to[0] = (struct iovec){ c->in, cut };
	c->to[1] = (struct iovec){ c->in + cut, c->bytes - cut };
	m.protocol = number;
	rpc_call_init(&c->call, 1, &m.base, &aquifer__hello__descriptor);
	c->call.payload = &c->from;
	c->call.payload_count = 1;
	c->call.reply_payload = c->to;
	c->call.reply_payload_count = 2;
	if (sim_random(t->sim) % 2)
		c->call.deadline_ns = sim_random(t->sim) % (2 * NS_PER_S) + 1;
	rpc_submit(t->client, &c->call, all);
}

static void sim_call_check(struct sim_rpc *t, struct sim_call *c, uint32_t number)
{
	if (c->call.status < 0) {
		cr_assert(c->call.status == -ENOTCONN || c->call.status == -ETIMEDOUT || c->call.status == -ESHUTDOWN);
		cr_assert_null(c->call.reply);
		t->failed++;
	} else {
		cr_assert_eq(((Aquifer__Hello *)c->call.reply)->protocol, number + SECRET);
		cr_assert_eq(c->call.reply_payload_bytes, c->bytes);
		for (uint32_t i = 0; i < c->bytes; i++)
			cr_assert_eq(c->in[i], (uint8_t)(c->out[i] ^ 0xa5));
		t->ok++;
	}
	memset(c->in, 0xee, sizeof c->in);
	rpc_call_clean(&c->call);
}

/* Rounds of calls, some at a time, until told to stop. */
static int work(void *arg)
{
	struct sim_rpc *t = arg;
	struct sim_call *c = malloc(CALLS * sizeof *c);
	for (uint32_t number = 0; !t->stop && !t->client_env->dead; number += CALLS) {
		struct job all;
		job_init(&all, &t->client_env->loop);
		unsigned n = 1 + (unsigned)(sim_random(t->sim) % CALLS);
		for (unsigned i = 0; i < n; i++)
			sim_call_start(t, &c[i], number + i, &all);
		fiber_wait(&all);
		for (unsigned i = 0; i < n; i++)
			sim_call_check(t, &c[i], number + i);
		fiber_sleep(&t->client_env->loop, sim_random(t->sim) % (50 * NS_PER_MS));
	}
	free(c);
	return 0;
}

static int one_good_call(void *arg)
{
	struct sim_rpc *t = arg;
	struct sim_call *c = malloc(sizeof *c);
	int r;
	do {
		struct job j;
		job_init(&j, &t->client_env->loop);
		sim_call_start(t, c, 1, &j);
		c->call.deadline_ns = 0;
		r = fiber_wait(&j);
		sim_call_check(t, c, 1);
		if (r < 0 && fiber_sleep(&t->client_env->loop, 100 * NS_PER_MS) < 0)
			break;
	} while (r < 0);
	free(c);
	return r;
}

static struct identity *sim_identity(struct sim_rpc *t, enum identity_role role)
{
	return t->tls ? tlstest_identity(&t->authority, &t->authority, role, "host", env_wall_ns(t->client_env) / NS_PER_S, 86400) : NULL;
}

static void server_kill(struct sim_rpc *t)
{
	struct identity *identity = t->server_env->identity;
	sim_kill(t->server_env);
	sim_drain_dead(t->server_env);
	sim_run_fiber(t->server_env, server_down, t);
	sim_process_destroy(t->server_env);
	t->server_env = sim_process_create(t->sim, t->server_host);
	t->server_env->identity = identity;
	while (sim_run_fiber(t->server_env, server_up, t) < 0)
		;
}

static void steps(struct sim_rpc *t, unsigned n)
{
	while (n-- > 0 && sim_step(t->sim))
		;
}

static void misfortune(struct sim_rpc *t)
{
	switch (sim_random(t->sim) % 4) {
	case 0:
		server_kill(t);
		break;
	case 1:
		sim_partition(t->sim, t->client_host, t->server_host, true);
		steps(t, 300);
		sim_partition(t->sim, t->client_host, t->server_host, false);
		break;
	case 2:
		sim_pause(t->server_env);
		steps(t, 100);
		sim_resume(t->server_env);
		break;
	default:
		break;
	}
}

static void sim_rpc_setup(struct sim_rpc *t, uint64_t seed, bool tls, const struct sim_doses *doses)
{
	*t = (struct sim_rpc){ .sim = sim_create(seed, NULL), .tls = tls };
	t->client_host = sim_host_create(t->sim, "client", 1 << 20, 512);
	t->server_host = sim_host_create(t->sim, "server", 1 << 20, 512);
	t->client_env = sim_process_create(t->sim, t->client_host);
	t->server_env = sim_process_create(t->sim, t->server_host);
	if (tls)
		tlstest_authority(&t->authority, env_wall_ns(t->client_env) / NS_PER_S);
	t->client_env->identity = sim_identity(t, ROLE_AGENT);
	t->server_env->identity = sim_identity(t, ROLE_SERVER);
	cr_assert_eq(sim_run_fiber(t->server_env, server_up, t), 0);
	cr_assert_eq(sim_run_fiber(t->client_env, client_up, t), 0);
	*sim_doses(t->sim) = *doses;
}

static void sim_rpc_teardown(struct sim_rpc *t)
{
	sim_run_fiber(t->client_env, client_down, t);
	sim_run_fiber(t->server_env, server_down, t);
	identity_put(t->client_env->identity);
	identity_put(t->server_env->identity);
	tlstest_authority_free(&t->authority);
	sim_process_destroy(t->client_env);
	sim_process_destroy(t->server_env);
	sim_destroy(t->sim);
}

static void calls_whatever_happens(bool tls, unsigned seeds)
{
	unsigned ok = 0, failed = 0;
	for (uint64_t seed = 1; seed <= seeds; seed++) {
		struct sim_rpc t;
		struct sim_doses doses = { .drop = seed % 3 ? 2000 : 0, .connect_refused = 100000, .slow = 5000,
					   .stream_buffer = seed % 2 ? 5000 : 0 };
		struct job worked;
		sim_rpc_setup(&t, seed, tls, &doses);
		job_init(&worked, &t.client_env->loop);
		job_hold(&worked);
		cr_assert_eq(fiber_start(&t.client_env->loop, work, &t, &worked), 0);
		for (int i = 0; i < 10; i++) {
			steps(&t, 800);
			misfortune(&t);
		}
		*sim_doses(t.sim) = (struct sim_doses){ 0 };
		t.stop = true;
		while (worked.pending > 1)
			cr_assert(sim_step(t.sim), "seed %lu: a call never ended", seed);
		cr_assert_eq(sim_run_fiber(t.client_env, one_good_call, &t), 0, "seed %lu", seed);
		ok += t.ok;
		failed += t.failed;
		sim_rpc_teardown(&t);
	}
	cr_assert_gt(ok, 100 * seeds / 10);
	cr_assert_gt(failed, seeds);
}

Test(rpc_sim, calls_end_once_with_their_own_answers_whatever_happens, .timeout = 120)
{
	calls_whatever_happens(/* tls= */ false, SEEDS);
}

Test(rpc_sim, calls_end_once_with_their_own_answers_whatever_happens_over_tls, .timeout = 120)
{
	calls_whatever_happens(/* tls= */ true, SEEDS / 2);
}

Test(rpc_sim, a_client_killed_amid_calls_unwinds, .timeout = 60)
{
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct sim_rpc t;
		struct sim_doses doses = { .drop = 500 };
		struct job worked;
		sim_rpc_setup(&t, seed, /* tls= */ seed % 2, &doses);
		job_init(&worked, &t.client_env->loop);
		job_hold(&worked);
		cr_assert_eq(fiber_start(&t.client_env->loop, work, &t, &worked), 0);
		steps(&t, (unsigned)(seed * 37 % 3000));
		sim_kill(t.client_env);
		sim_drain_dead(t.client_env);
		cr_assert_eq(worked.pending, 1, "seed %lu", seed);
		sim_rpc_teardown(&t);
	}
}
