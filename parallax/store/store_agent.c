/* Agents in the catalog: agent/HOST says where one is and what to show it, alive/STAMP that it lives (where the engine has leases).
 * Each writes its own (agent/daemon/registry.c). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/array.h"
#include "core/bytes.h"
#include "core/option.h"
#include "parallax/store/store_private.h"
#include "proto/rpc.h"

const char *store_url(const struct store *s) { return s->url; }
const char *store_host(const struct store *s) { return s->places->host; }

/* FIBER. As far as is known. */
static bool agent_alive(struct places *p, const char *host, const struct meta_agent *agent)
{
	struct meta_owner as_owner = { .state = OWNER_HELD, .pid = agent->pid, .stamp = agent->stamp, .pids = agent->pids,
				       .began_ticks = agent->began_ticks };
	snprintf(as_owner.host, sizeof as_owner.host, "%s", host);
	memcpy(as_owner.boot, agent->boot, sizeof as_owner.boot);
	return places_holder_alive(p, &as_owner);
}

static void describe(struct places *p, const char *host, const struct meta_agent *m, struct store_agent *ret)
{
	*ret = (struct store_agent){ .since_ns = m->since_ns, .protocol = m->protocol ? m->protocol : 1, .alive = agent_alive(p, host, m) };
	snprintf(ret->host, sizeof ret->host, "%s", host);
	snprintf(ret->address, sizeof ret->address, "%s", m->address);
	snprintf(ret->version, sizeof ret->version, "%s", m->version);
	memcpy(ret->token, m->token, sizeof ret->token);
}

int store_agent_find(struct store *s, const char *host, struct store_agent *ret_agent, struct report *report)
{
	struct places *p = s->places;
	struct meta_agent m;
	int r = name_valid(host) ? meta_get_agent(p->catalog, host, &m, NULL) : -ENOENT;
	if (r == -ENOENT)
		return report_set(report, r, "no agent of a host '%s' is known (see: aquifer agent list; start it there: aquifer agent start)", host);
	if (r < 0)
		return report_set(report, r, "the catalog: %s", catalog_text(p->catalog, r));
	describe(p, host, &m, ret_agent);
	return ret_agent->alive ? 0 : report_set(report, -EHOSTDOWN, "the agent of host %s doesn't run, or can't reach the catalog (start it there: aquifer agent start)", host);
}

struct agent_list {
	struct {
		char host[64];
		struct meta_agent agent;
	} *found;
	size_t count;
};

static int collect(void *arg, const char *key, const struct catalog_value *value)
{
	struct agent_list *l = arg;
	if (array_more(&l->found, l->count) < 0)
		return -ENOMEM;
	snprintf(l->found[l->count].host, sizeof l->found->host, "%s", key + strlen(META_AGENTS));
	int r = meta_agent_decode(value->bytes, value->length, &l->found[l->count].agent);
	l->count += r == 0;
	return r;
}

int store_agent_list(struct store *s, int (*entry)(void *arg, const struct store_agent *agent), void *arg, struct report *report)
{
	struct agent_list l = { 0 };
	int r = catalog_list(s->catalog, META_AGENTS, collect, &l);
	if (r < 0)
		report_set(report, r, "the catalog: %s", catalog_text(s->catalog, r));
	for (size_t i = 0; r == 0 && i < l.count; i++) {
		struct store_agent out;
		describe(s->places, l.found[i].host, &l.found[i].agent, &out);
		r = entry(arg, &out);
	}
	free(l.found);
	return r;
}

int store_volume_holder(struct store *s, const char *name, struct store_holder *ret_holder, struct report *report)
{
	uint64_t id;
	int r = store_find_volume(s->places, name, &id, report);
	return r < 0 ? r : store_look_for_holder(s, name, id, ret_holder, report);
}

/* ---- an agent's own ---- */

enum { ALIVE_S = 10 };

struct store_registration {
	struct store *store;
	struct meta_agent agent;
	struct catalog_lease *alive; /* NULL: the engine has none */
};

const uint8_t *store_agent_token(const struct store_registration *r) { return r->agent.token; }

/* Instead of what was there with `revision`. */
static int put_entry(struct store_registration *r, uint64_t revision)
{
	char key[META_KEY_BYTES];
	size_t length = 0;
	uint8_t *bytes = meta_agent_encode(&r->agent, &length);
	meta_key_agent(r->store->places->host, key);
	int status = catalog_put_at(r->store->catalog, key, revision, bytes, length);
	free(bytes);
	return status;
}

static int look(struct store_registration *r, struct meta_agent *ret_there, uint64_t *ret_revision)
{
	*ret_revision = 0;
	*ret_there = (struct meta_agent){ 0 };
	int status = meta_get_agent(r->store->catalog, r->store->places->host, ret_there, ret_revision);
	return status == -ENOENT || status == -EUCLEAN ? 0 : status;
}

static int enter(struct store_registration *r, struct report *report)
{
	struct places *p = r->store->places;
	struct meta_agent there;
	char key[META_KEY_BYTES];
	uint64_t revision;
	int status = look(r, &there, &revision);
	bool same = !places_pids_foreign(r->store->env, there.boot, there.pids);
	if (status == 0 && there.pid && !(same && there.pid == r->agent.pid) && agent_alive(p, p->host, &there))
		return report_set(report, -EADDRINUSE, "the agent with pid %llu%s is called %s too (give each its own name: host = NAME in etc/aquifer/aquifer.conf)",
				  (unsigned long long)there.pid, same ? "" : " on another machine", p->host);
	meta_key_alive(r->agent.stamp, key);
	if (status == 0 && !r->alive)
		status = catalog_lease(r->store->catalog, ALIVE_S, key, &r->alive);
	status = status == -ENOTSUP ? 0 : status;
	if (status == 0)
		status = put_entry(r, revision);
	return status < 0 ? report_set(report, status, "the catalog: %s", catalog_text(r->store->catalog, status)) : 0;
}

int store_agent_register(struct store *s, const char *address, const char *version, struct store_registration **ret_registration, struct report *report)
{
	struct store_registration *r = calloc(1, sizeof *r);
	if (!r)
		return -ENOMEM;
	r->store = s;
	r->agent = (struct meta_agent){ .stamp = env_random(s->env) | 1, .pid = (uint64_t)getpid(), .since_ns = env_wall_ns(s->env),
					 .pids = env_pids(s->env), .began_ticks = s->places->ops.began_ticks, .protocol = rpc_protocol_newest, .map_version = PLACEMENT_VERSION };
	snprintf(r->agent.address, sizeof r->agent.address, "%s", address);
	env_boot_id(s->env, r->agent.boot);
	snprintf(r->agent.version, sizeof r->agent.version, "%s", version);
	for (unsigned i = 0; i < META_TOKEN_BYTES; i += 8)
		put_le64(r->agent.token + i, env_random(s->env));
	int status = name_valid(s->places->host) ? enter(r, report)
		: report_set(report, -EINVAL, "'%s' can't be a host's name (give it one: host = NAME in etc/aquifer/aquifer.conf)", s->places->host);
	if (status < 0) {
		catalog_lease_end(r->alive);
		free(r);
		return status;
	}
	*ret_registration = r;
	return 0;
}

int store_agent_check(struct store_registration *r, struct report *report)
{
	struct meta_agent there;
	uint64_t revision;
	int status = look(r, &there, &revision);
	if (status < 0)
		return report_set(report, status, "the catalog: %s", catalog_text(r->store->catalog, status));
	if (there.stamp == r->agent.stamp)
		return 0;
	/* one that is dead leaves the place to the next who comes */
	if (there.stamp && agent_alive(r->store->places, r->store->places->host, &there))
		return report_set(report, -EEXIST, "another agent is called %s too, and has taken this one's place (give each its own name: host = NAME in "
				  "etc/aquifer/aquifer.conf)", r->store->places->host);
	return enter(r, report);
}

void store_agent_leave(struct store_registration *r)
{
	struct meta_agent there;
	char key[META_KEY_BYTES];
	uint64_t revision;
	if (!r)
		return;
	meta_key_agent(r->store->places->host, key);
	if (look(r, &there, &revision) == 0 && there.stamp == r->agent.stamp)
		catalog_delete_at(r->store->catalog, key, revision); /* otherwise it is shown as not alive */
	catalog_lease_end(r->alive);
	free(r);
}
