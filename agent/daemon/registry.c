#include "agent/daemon/registry.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon/log.h"
#include "agent/daemon/peer.h"
#include "agent/daemon/plan.h"
#include "core/config.h"
#include "core/version.h"
#include "parallax/catalog/catalog.h"

#define LOOK_NS (10 * NS_PER_S)
#define AGAIN_NS (2 * NS_PER_S)
#define END_NS (5 * NS_PER_S)
#define PATIENCE_NS (3 * NS_PER_S) /* for an agent that has just begun */
#define LISTEN_DEFAULT "127.0.0.1:0"

/* ---- where ---- */

/* What agent.listen says, else the loopback, where the catalog is one that hosts share. -ENOENT: this host is alone. */
static int listen_where(struct registry *g, char ret[CONFIG_VALUE_BYTES], struct report *report)
{
	char url[CONFIG_VALUE_BYTES];
	int r = config_get(g->env, g->root, "agent.listen", ret, report);
	if (r != -ENOENT)
		return r == 0 ? plan_check_listen(ret, report) : r;
	r = config_catalog_url(g->env, g->root, NULL, url, report);
	if (r == 0 && catalog_is_file(url))
		return -ENOENT;
	strcpy(ret, LISTEN_DEFAULT);
	return r;
}

/* Any of this machine's addresses: nobody can be told that. */
static bool is_wildcard(const char *address)
{
	return strncmp(address, "tcp:0.0.0.0:", 12) == 0 || strncmp(address, "tcp:[::]:", 9) == 0;
}

/* With certificates if this host has them; without, others on the network only when the configuration says so by name. */
static int secure(struct registry *g, struct listener *l, struct report *report)
{
	char plain[CONFIG_VALUE_BYTES];
	if (strncmp(listener_address(l), "tcp:127.", 8) == 0 || strncmp(listener_address(l), "tcp:[::1]:", 10) == 0)
		strcpy(plain, "yes");
	else if (config_get(g->env, g->root, "agent.plain-text", plain, NULL) < 0)
		strcpy(plain, "no");
	g->service.roles = g->env->identity ? ROLE_AGENT : 0;
	return g->service.roles || strcmp(plain, "yes") == 0
		       ? 0
		       : report_set(report, -EACCES, "agent.listen isn't loopback, and this host isn't enrolled (aquifer cluster join, then aquifer agent restart; "
						     "or agent.plain-text = yes, which lets in anybody who reads the network)");
}

static int listen_there(struct registry *g, struct report *report)
{
	char where[CONFIG_VALUE_BYTES], address[CONFIG_VALUE_BYTES + 16], told[CONFIG_VALUE_BYTES];
	struct listener *l;
	int r = listen_where(g, where, report);
	if (r < 0)
		return r;
	snprintf(address, sizeof address, strchr(where, ':') ? "tcp:%s" : "tcp:127.0.0.1:%s", where);
	if ((r = stream_listen(g->env, address, &l)) < 0)
		return report_set(report, r, "other hosts' agents can't be listened for on %s: %s (see agent.listen in etc/aquifer/aquifer.conf)", where, errno_text(r));
	if ((r = secure(g, l, report)) < 0) {
		listener_close(l);
		return r;
	}
	r = config_get(g->env, g->root, "agent.advertise", told, report);
	if (r == 0)
		snprintf(g->address, sizeof g->address, "tcp:%.250s", told);
	else if (r == -ENOENT && is_wildcard(listener_address(l)))
		r = report_set(report, -EINVAL, "agent.listen = %s: other hosts can't connect to that (say with agent.advertise = ADDR:PORT what they can)", where);
	else if (r == -ENOENT)
		r = snprintf(g->address, sizeof g->address, "%s", listener_address(l)) < (int)sizeof g->address ? 0 : -ENAMETOOLONG;
	if (r < 0) {
		listener_close(l);
		return r;
	}
	if (g->service.roles)
		memcpy(g->address, "tls:", 4);
	r = rpc_listen_on(g->env, l, &g->service, &g->server);
	return r < 0 ? report_set(report, r, "listening on %s: %s", where, errno_text(r)) : 0;
}

/* ---- the entry ---- */

static int forward(void *arg, const struct store_holder *holder, const char *verb, const char *const *args, uint64_t deadline_ns, char **ret_json,
		   struct report *report)
{
	const struct registry *g = arg;
	struct tapdisk_control call = { .driver = "volume", .subject = holder->volume, .verb = verb, .args = args, .deadline_ns = deadline_ns };
	return peer_tapdisk_control(g->env, holder, &call, ret_json, report);
}

static int open_store(struct registry *g, struct report *report)
{
	struct store_options o = { .root = g->root, .forward = forward, .forward_arg = g };
	int r = store_open(g->env, &o, &g->store, report);
	return r < 0 ? report_prefix(report, r, "the catalog can't be opened") : 0;
}

static int enter(struct registry *g, struct report *report)
{
	int r = store_agent_register(g->store, g->address, AQ_VERSION, &g->entry, report);
	if (r == 0)
		log_line("registered as the agent of host %s, at %s", store_host(g->store), g->address);
	return r < 0 ? report_prefix(report, r, "other hosts don't find this agent") : 0;
}

/* One step towards being known, or a look whether it still is. */
static int step(struct registry *g, struct report *report)
{
	int r = g->server ? 0 : listen_there(g, report);
	if (r == 0 && !g->store)
		r = open_store(g, report);
	if (r == 0)
		r = g->entry ? store_agent_check(g->entry, report) : enter(g, report);
	return r;
}

static void say(struct registry *g, int status, const struct report *report)
{
	const char *text = status < 0 ? report_text(report, status) : "";
	if (strcmp(text, g->said) == 0)
		return;
	if (text[0])
		log_line("%s; tried again every few seconds", text);
	snprintf(g->said, sizeof g->said, "%s", text);
}

static void pause_for(struct registry *g, uint64_t ns)
{
	if (g->stop)
		return;
	job_init(&g->pause_job, &g->env->loop);
	timer_start(g->env, &g->pause, ns, &g->pause_job);
	fiber_wait(&g->pause_job);
}

static int run(void *arg)
{
	struct registry *g = arg;
	while (!g->stop) {
		struct report report = { "" };
		int r = step(g, &report);
		if (r == -ENOENT && !g->server)
			break; /* alone */
		say(g, r, &report);
		pause_for(g, r == 0 ? LOOK_NS : AGAIN_NS);
	}
	g->running = false;
	fiber_cond_wake(&g->ended);
	return 0;
}

void registry_start(struct registry *g, struct env *env, const char *root, const struct rpc_server_options *service)
{
	*g = (struct registry){ .env = env, .root = root, .service = *service, .running = true };
	timer_init(&g->pause);
	fiber_cond_init(&g->ended);
	if (fiber_start(&env->loop, run, g, NULL) < 0)
		g->running = false;
}

void registry_end(struct registry *g, uint64_t drain_ns)
{
	if (!g->env)
		return;
	uint64_t until_ns = env_now_ns(g->env) + END_NS;
	g->stop = true;
	timer_cancel(g->env, &g->pause);
	while (g->running && env_now_ns(g->env) < until_ns)
		fiber_sleep(&g->env->loop, 10 * NS_PER_MS);
	rpc_server_close(g->server, drain_ns);
	g->server = NULL;
	if (g->running) /* a catalog that doesn't answer: the process ends anyhow */
		return;
	store_agent_leave(g->entry);
	store_close(g->store);
	g->entry = NULL;
	g->store = NULL;
}

struct store *registry_store(struct registry *g, struct report *report)
{
	uint64_t until_ns = env_now_ns(g->env) + PATIENCE_NS;
	while (!g->entry && g->running && !g->said[0] && env_now_ns(g->env) < until_ns)
		fiber_sleep(&g->env->loop, 10 * NS_PER_MS);
	if (g->entry)
		return g->store;
	if (g->running)
		report_set(report, -ENOTCONN, "this host's agent isn't registered: %s", g->said[0] ? g->said : "the catalog wasn't reached yet (try again)");
	else
		report_set(report, -ENOTCONN, "this host's agent is alone: no other host shares its catalog (see: aquifer cluster init --catalog)");
	return NULL;
}

bool registry_knows(const struct registry *g, const ProtobufCBinaryData *token)
{
	uint8_t differs = 0;
	if (!g->entry || token->len != 16)
		return false;
	for (unsigned i = 0; i < 16; i++)
		differs |= token->data[i] ^ store_agent_token(g->entry)[i];
	return differs == 0;
}
