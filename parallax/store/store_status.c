#include "parallax/access/access.h"
#include "parallax/store/store_status.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "core/config.h"
#include "core/fiber.h"
#include "core/option.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/copies/copies.h"
#include "parallax/segment/placement.h"
#include "parallax/store/store_check_private.h"
#include "parallax/store/store_private.h"

enum { ASKED_AT_ONCE = 32 };
#define ASK_NS (2 * NS_PER_S)

struct work {
	struct store *store;
	struct store_status *t;
	struct report *report;
};

int store_status_problem(struct store_status *t, const char *format, ...)
{
	va_list ap;
	if (array_more(&t->problems, t->problem_count) < 0)
		return -ENOMEM;
	va_start(ap, format);
	int n = vasprintf(&t->problems[t->problem_count], format, ap);
	va_end(ap);
	t->problem_count += n >= 0;
	return n < 0 ? -ENOMEM : 0;
}

/* ---- thresholds ---- */

int store_warn_parse(const char *text, struct store_warn *ret)
{
	struct store_warn w = { 0 };
	const char *p = text;
	do {
		char *end;
		unsigned long n = *p >= '0' && *p <= '9' ? strtoul(p, &end, 10) : 0;
		if (n < 1 || n > 100 || (*end && *end != ',') || w.count == STORE_WARN_MAX || (w.count && n <= w.percent[w.count - 1]))
			return -EINVAL;
		w.percent[w.count++] = (unsigned)n;
		p = *end ? end + 1 : NULL;
	} while (p);
	*ret = w;
	return 0;
}

int store_warn_read(struct env *env, const char *root, struct store_warn *ret, struct report *report)
{
	char text[CONFIG_VALUE_BYTES];
	*ret = (struct store_warn){ .percent = { 80, 90, 95 }, .count = 3 };
	int r = config_get(env, root, "warn-full", text, report);
	if (r == -ENOENT && !(report && report->text[0]))
		return 0;
	if (r == 0 && store_warn_parse(text, ret) < 0)
		r = report_set(report, -EINVAL, "etc/aquifer/aquifer.conf: `warn-full = %.100s' is no list of rising percentages (for example 80,90,95)", text);
	return r;
}

unsigned store_warn_level(const struct store_warn *w, unsigned percent)
{
	unsigned n = 0;
	while (n < w->count && percent >= w->percent[n])
		n++;
	return n;
}

/* As segment_dir_control.c reckons, with the segments that a store of such servers has (volume.c). */
uint64_t store_reserve_bytes(uint64_t total_bytes)
{
	uint64_t segment = (uint64_t)SEGMENT_BLOCKS_DEFAULT * BLOCK_BYTES;
	while (total_bytes && segment > UINT64_C(4) << 20 && segment > total_bytes / 64)
		segment /= 2;
	return MIN(MAX(total_bytes / 50, 8 * segment), total_bytes / 4);
}

/* ---- the catalog ---- */

/* Does it take changes? An etcd out of quota, or a file system that is full, answers reads all the same; and while nothing has to be noted, nobody else would know. */
static int try_catalog(struct work *w)
{
	int r = store_health_write(w->store, "status", 0, 0);
	w->t->catalog_read_only = r == -EACCES; /* for who looks; what that means for others their volumes say */
	if (r == -EACCES)
		return 0;
	return r == 0 ? 0 : store_status_problem(w->t, "the catalog takes no changes: %s%s", catalog_text(w->store->catalog, r),
						 r == -EDQUOT ? " (give etcd room: docs/cluster.md, \"etcd\")" : "");
}

static int look_at_catalog(struct work *w)
{
	struct store_status *t = w->t;
	uint64_t began = env_now_ns(w->store->env);
	int r = catalog_mark_read(w->store->catalog, STORE_RESTORED, t->restored, sizeof t->restored, w->report);
	t->catalog_ns = env_now_ns(w->store->env) - began;
	if (r == 0)
		r = store_health_read(w->store, "check", &t->check);
	if (r == 0)
		r = store_health_read(w->store, "scrub", &t->scrub);
	if (r < 0)
		return report_set(w->report, r, "the catalog: %s", catalog_text(w->store->catalog, r));
	r = store_status_members(w->store->env, w->store->root, w->store->url, t, w->report);
	for (size_t i = 0; r == 0 && i < t->member_count; i++)
		if (!t->members[i].answers)
			r = store_status_problem(t, "the catalog's member %s doesn't answer: %s", t->members[i].url, t->members[i].why);
	if (r < 0)
		return r;
	r = try_catalog(w);
	if (r < 0)
		return r;
	if (t->restored[0] && catalog_recover_wanted(w->store->catalog, NULL) == 1)
		r = store_status_problem(t, "the catalog was restored from a backup on %s, and no volume can be attached until what was written since was looked for (aquifer cluster recover)", t->restored);
	else if (t->restored[0] && !isdigit((unsigned char)t->restored[0])) /* no date: segment_dir_server.c */
		r = store_status_problem(t, "a server came that had a newer catalog than this, or another one meanwhile, and nothing is freed until it is confirmed that this one is right "
					    "(aquifer volume list; then: aquifer cluster restore --confirm)");
	else if (t->restored[0])
		r = store_status_problem(t, "the catalog was restored from a backup on %s, and nothing is freed until that is confirmed (aquifer cluster restore --confirm)", t->restored);
	if (r == 0 && t->check.faults)
		r = store_status_problem(t, "the last check found %" PRIu64 " fault%s (aquifer cluster check says which)", t->check.faults, t->check.faults == 1 ? "" : "s");
	if (r == 0 && t->scrub.faults)
		r = store_status_problem(t, "the last scrub found %" PRIu64 " damaged block%s that could not be repaired (aquifer cluster scrub says where)", t->scrub.faults,
			    t->scrub.faults == 1 ? "" : "s");
	return r;
}

/* ---- servers ---- */

/* When a server was first seen not to answer; kept in the catalog until it answers. Nobody waits for it. */
static uint64_t away_since(struct store *s, const struct store_server *server)
{
	char key[META_KEY_BYTES];
	struct catalog_value v;
	struct catalog_txn *t = malloc(sizeof *t);
	uint64_t now = env_wall_ns(s->env), since = 0;
	uint8_t bytes[8];
	if (!t)
		return now;
	snprintf(key, sizeof key, "health/away/%s", server->id);
	int r = catalog_get(s->catalog, key, &v);
	bool there = r == 0;
	if (there && v.length == 8)
		since = get_le64(v.bytes);
	uint64_t revision = v.revision;
	catalog_value_free(&v);
	catalog_txn_init(t);
	catalog_txn_compare(t, key, revision);
	if (server->answers && there)
		catalog_txn_delete(t, key);
	put_le64(bytes, now);
	if (!server->answers && !since)
		catalog_txn_put(t, key, bytes, sizeof bytes);
	if (t->change_count && (r == 0 || r == -ENOENT))
		catalog_txn(s->catalog, t, NULL);
	free(t);
	return server->answers ? 0 : since ? since : now;
}

static int add_server(void *arg, const struct store_server *server)
{
	struct work *w = arg;
	if (array_more(&w->t->servers, w->t->server_count) < 0)
		return -ENOMEM;
	w->t->servers[w->t->server_count++] = (struct store_status_server){ .server = *server };
	return 0;
}

static int judge_server(struct work *w, struct store_status_server *e)
{
	struct store_status *t = w->t;
	const struct store_server *s = &e->server;
	const char *who = s->address[0] ? s->address : s->id;
	e->away_since_ns = away_since(w->store, s);
	if (!s->answers)
		return store_status_problem(t, s->why[0] ? "server %s can't be used from here: %s" : "server %s doesn't answer", who, s->why);
	e->reserve_bytes = store_reserve_bytes(s->total_bytes);
	e->used_percent = store_used_percent(s->free_bytes, s->total_bytes);
	e->level = store_warn_level(&t->warn, e->used_percent);
	int r = 0;
	if (e->work.gone)
		r = store_status_problem(t, "server %s doesn't find its segments: %s (was their directory deleted, or unmounted? it answers from files that it has open)", who, errno_text(e->work.gone));
	else if (e->work.missing && e->work.failing)
		r = store_status_problem(t, "server %s lacks %" PRIu64 " cop%s, and can't make %s: %s", who, e->work.missing, e->work.missing == 1 ? "y" : "ies",
			    e->work.missing == 1 ? "it" : "them", errno_text(e->work.failing));
	else if (e->work.missing)
		r = store_status_problem(t, "server %s lacks %" PRIu64 " cop%s, which %s being made from others", who, e->work.missing, e->work.missing == 1 ? "y" : "ies",
			    e->work.missing == 1 ? "is" : "are");
	if (r == 0 && e->work.scrub_unrepaired)
		r = store_status_problem(t, "server %s has %" PRIu64 " damaged block%s that no other copy could repair", who, e->work.scrub_unrepaired,
			    e->work.scrub_unrepaired == 1 ? "" : "s");
	if (r < 0)
		return r;
	if (s->free_bytes < e->reserve_bytes)
		return store_status_problem(t, "server %s is full: what is left is kept for checkpoints and for freeing space", who);
	return e->level >= 2 ? store_status_problem(t, "server %s is %u %% full", who, e->used_percent) : 0;
}

static bool answers(const struct store_status *t, const struct placement *map, uint16_t index)
{
	char id[33];
	for (unsigned i = 0; i < 16; i++)
		snprintf(id + 2 * i, 3, "%02x", map->servers[index].id.bytes[i]);
	for (size_t i = 0; i < t->server_count; i++)
		if (strcmp(t->servers[i].server.id, id) == 0)
			return t->servers[i].server.answers;
	return false;
}

static void judge_group(struct store_status *t, const struct placement *map, const struct placement_group *g, unsigned want)
{
	unsigned there = 0, n = MIN(want, (unsigned)g->target_count);
	for (unsigned i = 0; i < n; i++)
		there += answers(t, map, g->target[i]);
	t->groups++;
	t->moving += g->former_count > 0;
	if (g->target_count < want)
		t->short_of++;
	else if (there == n)
		t->complete++;
	else if (there)
		t->degraded++;
	else
		t->lost++;
}

static int look_at_groups(struct work *w)
{
	struct store_status *t = w->t;
	struct placement *map = malloc(sizeof *map);
	int r = map ? placement_read(w->store->catalog, map, NULL) : -ENOMEM;
	unsigned want = 1;
	for (size_t i = 0; i < t->volume_count; i++) /* as many copies as any volume has */
		want = MAX(want, t->volumes[i].volume.embedded ? 1 : t->volumes[i].volume.replicas);
	for (unsigned g = 0; r == 0 && map->revision && map->server_count && g < map->group_count; g++)
		judge_group(t, map, &map->groups[g], want);
	if (r == 0)
		t->map_revision = map->revision;
	free(map);
	if (r < 0)
		return report_set(w->report, r, "the map of servers: %s", catalog_text(w->store->catalog, r));
	if (t->lost)
		r = store_status_problem(t, "%u of %u placement groups have no server that answers", t->lost, t->groups);
	if (r == 0 && t->short_of)
		r = store_status_problem(t, "%u of %u placement groups have fewer servers than volumes want copies", t->short_of, t->groups);
	if (r == 0 && t->degraded)
		r = store_status_problem(t, "%u of %u placement groups have fewer copies than wanted", t->degraded, t->groups);
	return r;
}

static unsigned answering(const struct store_status *t)
{
	unsigned n = 0;
	for (size_t i = 0; i < t->server_count; i++)
		n += t->servers[i].server.answers;
	return n;
}

static int look_at_servers(struct work *w)
{
	struct copies *c = NULL;
	int r = store_server_list(w->store, add_server, w, w->report);
	if (r == 0 && w->t->server_count)
		r = copies_open(w->store->env, w->store->catalog, &c, w->report);
	if (c)
		peers_await(c->peers, c->count, answering(w->t));
	for (size_t i = 0; c && i < w->t->server_count; i++)
		if (w->t->servers[i].server.answers)
			store_server_ask(c, w->t->servers[i].server.id, &w->t->servers[i].work);
	copies_close(c);
	for (size_t i = 0; r == 0 && i < w->t->server_count; i++)
		r = judge_server(w, &w->t->servers[i]);
	if (r == 0 && w->store->cluster && w->t->server_count == 0)
		r = store_status_problem(w->t, "there is no server in the cluster yet (see aquifer-server(8))");
	return r;
}

/* ---- volumes ---- */

static int add_volume(void *arg, const struct store_volume *v)
{
	struct work *w = arg;
	if (array_more(&w->t->volumes, w->t->volume_count) < 0)
		return -ENOMEM;
	w->t->volumes[w->t->volume_count++] = (struct store_status_volume){ .volume = *v };
	return 0;
}

struct ask {
	struct store *store;
	struct store_status_volume *v;
};

static int ask_one(void *arg)
{
	struct ask *a = arg;
	struct store_status_volume *v = a->v;
	struct report why = { "" };
	struct store_holder holder;
	char *json = NULL;
	static const char *const none[] = { NULL };
	int r = store_find_holder(a->store, v->volume.name, v->volume.id, NULL, &holder, &why);
	if (r == -ENXIO) {
		v->volume.state = STORE_FREE; /* it was let go meanwhile */
		return 0;
	}
	if (r == 0)
		r = a->store->forward(a->store->forward_arg, &holder, "status", none, ASK_NS, &json, &why);
	if (r == 0)
		r = volume_status_decode(json ? json : "", &v->status);
	v->asked = r == 0;
	if (r < 0)
		snprintf(v->why, sizeof v->why, "%s", report_text(&why, r));
	free(json);
	return 0;
}

static int ask_holders(struct work *w)
{
	struct loop *loop = &w->store->env->loop;
	struct ask asks[ASKED_AT_ONCE];
	struct job j;
	unsigned n = 0;
	int r = 0;
	job_init(&j, loop);
	for (size_t i = 0; r == 0 && i < w->t->volume_count; i++) {
		struct store_status_volume *v = &w->t->volumes[i];
		if (v->volume.state == STORE_HELD && v->volume.id && !v->volume.lapsed) {
			asks[n] = (struct ask){ w->store, v };
			job_hold(&j);
			r = fiber_start(loop, ask_one, &asks[n++], &j);
			if (r < 0)
				job_put(&j, 0);
		}
		if (n == ASKED_AT_ONCE) {
			fiber_wait(&j);
			job_init(&j, loop);
			n = 0;
		}
	}
	fiber_wait(&j);
	return r;
}

static int judge_volume(struct work *w, const struct store_status_volume *v)
{
	char text[320];
	if (strcmp(v->volume.health, "good") != 0)
		return strcmp(v->volume.health, STORE_IMPORTING) == 0 ? 0 : store_status_problem(w->t, "volume %s: %s", v->volume.name, v->volume.health);
	if (!v->asked && v->why[0])
		return store_status_problem(w->t, "volume %s: its holder can't be asked: %s", v->volume.name, v->why);
	volume_status_text(&v->status, v->volume.replicas, env_wall_ns(w->store->env), text, sizeof text); /* who isn't asked has nothing to say */
	if (strcmp(text, "good") == 0)
		volume_table_long(v->volume.table_bytes, text, sizeof text);
	return strcmp(text, "good") == 0 ? 0 : store_status_problem(w->t, "volume %s: %s", v->volume.name, text);
}

static int look_at_volumes(struct work *w)
{
	int r = ask_holders(w);
	for (size_t i = 0; r == 0 && i < w->t->volume_count; i++)
		r = judge_volume(w, &w->t->volumes[i]);
	return r;
}

/* ---- hosts ---- */

static int add_agent(void *arg, const struct store_agent *agent)
{
	struct work *w = arg;
	if (array_more(&w->t->agents, w->t->agent_count) < 0)
		return -ENOMEM;
	w->t->agents[w->t->agent_count++] = *agent;
	return agent->alive ? 0 : store_status_problem(w->t, "the agent of host %s ended without a word, or can't reach the catalog", agent->host);
}

/* ---- the embedded store's file system ---- */

static int look_at_directory(struct work *w)
{
	struct store_status *t = w->t;
	bool embedded = false;
	for (size_t i = 0; i < t->volume_count; i++)
		embedded |= t->volumes[i].volume.embedded;
	if (t->server_count && !embedded)
		return 0;
	snprintf(t->directory, sizeof t->directory, "%s", w->store->places->dir);
	if (w->store->cluster && !embedded)
		return 0;
	int r = env_space(w->store->env, t->directory, &t->free_bytes, &t->total_bytes);
	if (r < 0)
		return store_status_problem(t, "%s: %s", t->directory, errno_text(r));
	unsigned percent = store_used_percent(t->free_bytes, t->total_bytes);
	if (t->free_bytes < store_reserve_bytes(t->total_bytes))
		return store_status_problem(t, "the file system of %s is full: what is left is kept for checkpoints and for freeing space", t->directory);
	return store_warn_level(&t->warn, percent) >= 2 ? store_status_problem(t, "the file system of %s is %u %% full", t->directory, percent) : 0;
}

/* ---- certificates ---- */

static int judge_certificate(void *arg, const struct access_issued *issued)
{
	struct work *w = arg;
	char text[256];
	return access_issued_warns(issued, env_wall_ns(w->store->env) / NS_PER_S, text, sizeof text) ? store_status_problem(w->t, "%s", text) : 0;
}

static int look_at_certificates(struct work *w)
{
	int r = access_issued_list(w->store->catalog, judge_certificate, w);
	return r < 0 ? report_set(w->report, r, "the catalog: %s", catalog_text(w->store->catalog, r)) : 0;
}

int store_status(struct store *s, struct store_status **ret, struct report *report)
{
	struct store_status *t = calloc(1, sizeof *t);
	struct work w = { .store = s, .t = t, .report = report };
	*ret = t;
	if (!t)
		return -ENOMEM;
	snprintf(t->catalog_url, sizeof t->catalog_url, "%s", s->url);
	int r = store_warn_read(s->env, s->root, &t->warn, report);
	if (r == 0)
		r = look_at_catalog(&w);
	if (r == 0)
		r = look_at_servers(&w);
	if (r == 0)
		r = store_volume_list(s, add_volume, &w, report);
	if (r == 0)
		r = look_at_groups(&w);
	if (r == 0)
		r = look_at_volumes(&w);
	if (r == 0)
		r = store_agent_list(s, add_agent, &w, report);
	if (r == 0)
		r = look_at_certificates(&w);
	return r ? r : look_at_directory(&w);
}

void store_status_free(struct store_status *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->problem_count; i++)
		free(t->problems[i]);
	free(t->problems);
	free(t->members);
	free(t->servers);
	free(t->volumes);
	free(t->agents);
	free(t);
}
