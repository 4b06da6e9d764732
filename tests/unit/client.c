/* Asking tapdisks: answers that are more than can be parsed, and answers that don't come. */
#include "agent/daemon/client.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/env_linux.h"
#include "core/fiber.h"

struct rig {
	struct env *env;
	char dir[64], control[96];
	unsigned depth; /* of the answer; 0: none comes */
	struct rpc_request *kept;
};

static void handle(void *arg, struct rpc_request *r)
{
	struct rig *g = arg;
	if (g->depth == 0) {
		g->kept = r;
		return;
	}
	memset(r->reply_payload, '[', g->depth);
	memset((char *)r->reply_payload + g->depth, ']', g->depth);
	rpc_reply_bytes(r, NULL, 2 * g->depth);
}

/* As all who ask do. */
static int ask(struct rig *g, unsigned depth)
{
	struct tapdisk_control call = { .driver = "volume", .subject = "v", .verb = "status" };
	struct report report = { "" };
	char *text = NULL;
	g->depth = depth;
	int r = client_tapdisk_control(g->env, g->control, &call, &text, &report);
	if (r == 0) {
		json_t *j = json_loads(text, 0, NULL);
		cr_assert(j);
		json_decref(j);
	} else {
		cr_assert(strstr(report.text, "makes no sense"), "%s", report.text);
	}
	free(text);
	return r;
}

static int deep_run(void *arg)
{
	struct rig *g = arg;
	struct rpc_server_options o = { .service = "tapdisk", .handle = handle, .arg = g };
	struct rpc_server *server;
	cr_assert_eq(rpc_listen(g->env, g->control, &o, &server, NULL), 0);
	cr_assert_eq(ask(g, 10), 0);
	cr_assert_eq(ask(g, 2000), -EPROTO);
	cr_assert_eq(ask(g, 100000), -EPROTO);
	rpc_server_close(server, 0);
	return 0;
}

static int late_run(void *arg)
{
	struct rig *g = arg;
	struct rpc_server_options o = { .service = "tapdisk", .handle = handle, .arg = g };
	struct tapdisk_control call = { .driver = "volume", .subject = "v", .verb = "checkpoint", .deadline_ns = 50 * NS_PER_MS };
	struct report report = { "" };
	struct rpc_server *server;
	char *text = NULL;
	cr_assert_eq(rpc_listen(g->env, g->control, &o, &server, NULL), 0);
	cr_assert_eq(client_tapdisk_control(g->env, g->control, &call, &text, &report), -ETIMEDOUT);
	cr_assert(strstr(report.text, "no answer in 50 ms, and it may yet be done"), "%s", report.text);
	report.text[0] = 0;
	client_late(CLIENT_CONTROL_NS, &report);
	cr_assert(strstr(report.text, "no answer in 60 s, and"), "%s", report.text);
	rpc_reply(g->kept, -EIO, NULL, NULL, NULL, 0);
	rpc_server_close(server, 0);
	return 0;
}

struct end {
	struct rig *g;
	struct rpc_server *server;
};

static int end_run(void *arg)
{
	struct end *e = arg;
	while (!e->g->kept)
		fiber_sleep(&e->g->env->loop, NS_PER_MS);
	rpc_server_close(e->server, 0);
	return 0;
}

static int lost_run(void *arg)
{
	struct rig *g = arg;
	struct end e = { .g = g };
	struct rpc_server_options o = { .service = "tapdisk", .handle = handle, .arg = g };
	struct tapdisk_control call = { .driver = "volume", .subject = "v", .verb = "checkpoint" };
	struct report report = { "" };
	struct job ended;
	char *text = NULL;
	cr_assert_eq(rpc_listen(g->env, g->control, &o, &e.server, NULL), 0);
	job_init(&ended, &g->env->loop);
	job_hold(&ended);
	cr_assert_eq(fiber_start(&g->env->loop, end_run, &e, &ended), 0);
	cr_assert_eq(client_tapdisk_control(g->env, g->control, &call, &text, &report), -ENOTCONN);
	cr_assert(strstr(report.text, "may have been done all the same"), "%s", report.text);
	rpc_reply(g->kept, -EIO, NULL, NULL, NULL, 0);
	return fiber_wait(&ended);
}

static void with_rig(int (*run)(void *arg))
{
	struct rig g = { .depth = 0 };
	snprintf(g.dir, sizeof g.dir, "/tmp/aqtest.XXXXXX");
	cr_assert(mkdtemp(g.dir));
	snprintf(g.control, sizeof g.control, "unix:%s/control.sock", g.dir);
	cr_assert_eq(env_linux_create(0, &g.env), 0);
	cr_assert_eq(env_linux_run_fiber(g.env, run, &g), 0);
	env_linux_destroy(g.env);
	cr_assert_eq(rmdir(g.dir), 0);
}

Test(client, an_answer_that_is_nested_deeper_than_a_stack) { with_rig(deep_run); }
Test(client, an_answer_that_does_not_come) { with_rig(late_run); }
Test(client, who_is_asked_ends, .timeout = 20) { with_rig(lost_run); }
