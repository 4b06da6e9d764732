#include "agent/daemon/client.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/daemon/launch.h"
#include "agent/daemon/paths.h"
#include "core/fiber.h"
#include "core/modest.h"

#define ANSWER_DEPTH_MAX 32 /* levels of an answer's JSON: whoever asked parses it on a fiber's stack */
#define AGENT_LAUNCHES 6 /* each waits for the lock of another, and then: longer in all than an agent takes to end */
#define AGENT_TRIES 40
#define AGENT_PAUSE_NS (50 * NS_PER_MS)

static int connect_within(struct env *env, const char *directory, const char *socket, const char *service, uint64_t timeout_ns,
			  struct rpc_client **ret_client, struct report *report)
{
	char address[PATHS_MAX];
	struct report why = { 0 };
	int fd, r = paths_socket_address(directory, socket, address, &fd, &why);
	struct rpc_client_options o = { .service = service, .connect_timeout_ns = timeout_ns };
	if (r == 0)
		r = rpc_connect(env, address, &o, ret_client, &why);
	if (fd >= 0)
		close(fd);
	if (r == -ENOENT || r == -ECONNREFUSED || r == -ENOTCONN)
		return -ENOTCONN;
	if (r == -ETIMEDOUT)
		return report_set(report, r, "the %s doesn't answer, it may be stopped or hang: %s (%s)", service, report_text(&why, r),
				  strcmp(service, "agent") == 0 ? "kill -9 it; devices stay" : "detach --force ends it");
	return r < 0 ? report_set(report, r, "the %s can't be reached: %s%s", service, report_text(&why, r),
				  r == -EACCES ? " (it serves root and its own user only)" : r == -ENOTDIR ? " (check the name of the root directory)" : "") : 0;
}

int client_connect(struct env *env, const char *directory, const char *socket, const char *service,
		   struct rpc_client **ret_client, struct report *report)
{
	return connect_within(env, directory, socket, service, 0, ret_client, report);
}

int client_agent(struct env *env, const char *root, bool start, struct rpc_client **ret_client, struct report *report)
{
	char run[PATHS_MAX];
	paths_run(root, run);
	int r = client_connect(env, run, "agent.sock", "agent", ret_client, report);
	if (r != -ENOTCONN)
		return r;
	if (!start)
		return report_set(report, r, "the agent isn't running (aquifer agent start)");
	/* Who holds the lock is another command's agent, which listens in a moment, or one that is ending, and then none listens until one is started again. */
	for (int launches = 0; launches < AGENT_LAUNCHES; launches++) {
		if ((r = launch_agent(env, root, report)) < 0)
			return r;
		for (int i = 0; i < AGENT_TRIES; i++) {
			r = client_connect(env, run, "agent.sock", "agent", ret_client, report);
			if (r != -ENOTCONN)
				return r;
			fiber_sleep(&env->loop, AGENT_PAUSE_NS);
		}
	}
	return report_set(report, r, "the agent ended right after it started (see %s/agent.log)", run);
}

int client_call(struct rpc_client *client, const struct client_call *call, char **ret_text, struct report *report)
{
	struct iovec out = { (void *)(uintptr_t)call->text, call->text ? strlen(call->text) : 0 };
	char *text = NULL;
	size_t most = call->answer_max ? call->answer_max : RPC_PAYLOAD_MAX;
	if (ret_text && !(text = malloc(most + 1)))
		return -ENOMEM;
	struct iovec in = { text, most };
	struct rpc_call c;
	rpc_call_init(&c, call->method, call->request, NULL);
	c.payload = &out;
	c.payload_count = call->text ? 1 : 0;
	c.reply_payload = &in;
	c.reply_payload_count = text ? 1 : 0;
	c.deadline_ns = call->deadline_ns;
	int r = rpc_call_wait(client, &c, report);
	if (r == 0 && text && !modest_json(text, c.reply_payload_bytes, UINT_MAX, ANSWER_DEPTH_MAX))
		r = report_set(report, -EPROTO, "its answer makes no sense (is it another version?)");
	if (r == 0 && text) {
		text[c.reply_payload_bytes] = 0;
		char *fit = realloc(text, c.reply_payload_bytes + 1);
		*ret_text = fit ? fit : text;
	} else {
		free(text);
	}
	rpc_call_clean(&c);
	return r == -ENOTCONN ? report_set(report, r, "the connection was lost before the answer came, and it may have been done all the same (see: aquifer list)") : r;
}

void client_control_call(const struct tapdisk_control *call, Aquifer__ControlCall *q)
{
	aquifer__control_call__init(q);
	q->node = (char *)(uintptr_t)(call->node ? call->node : "");
	q->driver = (char *)(uintptr_t)(call->driver ? call->driver : "");
	q->subject = (char *)(uintptr_t)(call->subject ? call->subject : "");
	q->verb = (char *)(uintptr_t)call->verb;
	q->args = (char **)(uintptr_t)call->args;
	while (call->args && call->args[q->n_args])
		q->n_args++;
}

int client_late(uint64_t deadline_ns, struct report *report)
{
	bool long_one = deadline_ns >= NS_PER_S;
	return report_set(report, -ETIMEDOUT, "no answer in %u %s, and it may yet be done (its requests may wait for servers or the catalog: aquifer list there says so)",
			  (unsigned)(deadline_ns / (long_one ? NS_PER_S : NS_PER_MS)), long_one ? "s" : "ms");
}

int client_tapdisk_control(struct env *env, const char *control, const struct tapdisk_control *call, char **ret_json,
			   struct report *report)
{
	char directory[PATHS_MAX];
	const char *slash = strrchr(control, '/');
	if (strncmp(control, "unix:/", 6) || (size_t)(slash - control - 5) >= sizeof directory)
		return report_set(report, -EHOSTUNREACH, "the holder can't be reached from here (its address is '%s')", control);
	memcpy(directory, control + 5, (size_t)(slash - control - 5));
	directory[slash - control - 5] = 0;
	struct rpc_client *client;
	uint64_t began_ns = env_now_ns(env);
	int r = connect_within(env, directory, slash + 1, "tapdisk", call->deadline_ns, &client, report);
	if (r < 0) /* nobody there: it has ended since */
		return report_set(report, r == -ENOTCONN ? -ESHUTDOWN : r, "the holder doesn't answer at %s", control);
	Aquifer__ControlCall q;
	client_control_call(call, &q);
	struct client_call c = { .method = AQUIFER__TAPDISK_METHOD__TAPDISK_CONTROL, .request = &q.base,
				 .deadline_ns = CLIENT_CONTROL_NS };
	if (call->deadline_ns) {
		uint64_t took_ns = env_now_ns(env) - began_ns;
		c.deadline_ns = call->deadline_ns > took_ns ? call->deadline_ns - took_ns : 1;
	}
	r = client_call(client, &c, ret_json, report);
	rpc_close(client);
	return r == -ETIMEDOUT ? client_late(call->deadline_ns ? call->deadline_ns : CLIENT_CONTROL_NS, report) : r;
}
