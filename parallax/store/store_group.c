/* A snapshot of several volumes at one instant (R22): who takes it.
 *
 *   group/G ─▶ mark all ─▶ release all ─▶ one transaction: group/G away, all snapshots there
 *                 └──(one fails)──┴──────────┴──▶ group/G away ─▶ tell all
 *
 * It may die anywhere: holds end by their deadlines, and what finds group/G later deletes it. Volumes that nobody has are
 * opened before the first mark, and are asked like the others. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "core/option.h"
#include "core/plant.h"
#include "parallax/store/store_private.h"
#include "parallax/volume/volume_group.h"

#define HOLD_NS (3 * NS_PER_S)     /* from the beginning to the last release: so long writes may wait */
#define TELL_NS (2 * NS_PER_S)
#define RETRY_NS (50 * NS_PER_MS)
#define STALE_NS (600 * NS_PER_S)  /* a group that is older was interrupted */
enum { TRIES = 6, MOVED_TRIES = 40, COMMIT_TRIES = 600, STALE_MAX = 50 };

struct member {
	struct group *group;
	const char *text;                /* VOLUME@SNAP */
	char name[STORE_NAME_BYTES], snapshot[STORE_NAME_BYTES];
	uint64_t volume;
	bool idle;
	struct volume *own;              /* idle: opened by us */
	struct store_holder holder;      /* otherwise */
	struct volume_mark mark;
	int status;
	struct report report;
};

struct group {
	struct store *store;
	uint64_t id, revision, due_ns, began_ns;
	unsigned count;
	struct member members[STORE_GROUP_MAX];
};

/* ---- asking all of them at once ---- */

static int ask(struct member *m, const char *verb, const char *arg, uint64_t deadline_ns, char **ret_json)
{
	struct store *s = m->group->store;
	char id[24];
	const char *args[] = { id, arg, NULL };
	snprintf(id, sizeof id, "%016" PRIx64, m->group->id);
	return m->own ? volume_group_control(m->own, verb, args, ret_json, &m->report)
		      : s->forward(s->forward_arg, &m->holder, verb, args, deadline_ns, ret_json, &m->report);
}

/* What is left until nobody holds any more. */
static uint64_t left_ns(const struct group *g)
{
	uint64_t now = env_now_ns(g->store->env);
	return g->due_ns > now ? g->due_ns - now : 1;
}

static int mark_one(void *arg)
{
	struct member *m = arg;
	char ms[24], *json = NULL;
	snprintf(ms, sizeof ms, "%" PRIu64, div_up(left_ns(m->group), NS_PER_MS));
	m->status = ask(m, "group-mark", ms, left_ns(m->group), &json);
	if (m->status == 0)
		m->status = volume_mark_decode(json ? json : "", &m->mark);
	free(json);
	return 0;
}

static int release_one(void *arg)
{
	struct member *m = arg;
	char *json = NULL;
	m->status = ask(m, "group-release", NULL, left_ns(m->group), &json);
	free(json);
	return 0;
}

static int tell_one(void *arg)
{
	struct member *m = arg;
	char *json = NULL;
	ask(m, "group-end", NULL, TELL_NS, &json); /* only hastens what it finds out by itself */
	free(json);
	return 0;
}

static void ask_all(struct group *g, int (*one)(void *member))
{
	struct loop *loop = &g->store->env->loop;
	struct job j;
	job_init(&j, loop);
	for (unsigned i = 0; i < g->count; i++) {
		job_hold(&j);
		int r = fiber_start(loop, one, &g->members[i], &j);
		if (r < 0) {
			g->members[i].status = r;
			job_put(&j, 0);
		}
	}
	fiber_wait(&j);
}

static int first_failure(struct group *g, struct report *report)
{
	for (unsigned i = 0; i < g->count; i++) {
		struct member *m = &g->members[i];
		if (m->status < 0)
			return report_set(report, m->status, "volume %s: %s", m->name, report_text(&m->report, m->status));
	}
	return 0;
}

/* ---- group/G ---- */

static bool unknown(int status) { return status == -ETIMEDOUT || status == -EBUSY; }

/* Before any mark: so whoever finds it gone knows that there is an outcome. */
static int group_begin(struct group *g)
{
	struct catalog *c = g->store->catalog;
	struct catalog_txn *t = malloc(sizeof *t);
	struct catalog_value seen = { 0 };
	char key[META_KEY_BYTES];
	uint8_t began[8];
	int r = t ? -ETIMEDOUT : -ENOMEM;
	g->id = env_random(g->store->env) | 1;
	meta_key_group(g->id, key);
	put_le64(began, env_wall_ns(g->store->env));
	for (unsigned attempt = 0; unknown(r) && attempt < TRIES; attempt++) {
		catalog_txn_init(t);
		catalog_txn_compare(t, key, 0);
		catalog_txn_put(t, key, began, sizeof began);
		r = catalog_txn(c, t, &g->revision);
		if (r == -EAGAIN) { /* an attempt of unknown outcome had arrived */
			r = catalog_get(c, key, &seen);
			g->revision = seen.revision;
			catalog_value_free(&seen);
		}
	}
	free(t);
	return r;
}

/* Deletes it, unless it is gone. 0: gone. */
static int group_void(struct catalog *c, const char *key)
{
	int r = -ETIMEDOUT;
	for (unsigned attempt = 0; (unknown(r) || r == -EAGAIN) && attempt < COMMIT_TRIES; attempt++) {
		struct catalog_value seen;
		if (attempt)
			fiber_sleep(&c->env->loop, RETRY_NS);
		r = catalog_get(c, key, &seen);
		uint64_t revision = seen.revision;
		catalog_value_free(&seen);
		if (r == -ENOENT)
			return 0;
		if (r == 0)
			r = catalog_delete_at(c, key, revision);
	}
	return r;
}

struct stale {
	uint64_t before_ns;
	unsigned count;
	char key[STALE_MAX][META_KEY_BYTES];
};

static int note_stale(void *arg, const char *key, const struct catalog_value *value)
{
	struct stale *s = arg;
	if (s->count < STALE_MAX && strlen(key) < META_KEY_BYTES && (value->length != 8 || get_le64(value->bytes) < s->before_ns))
		snprintf(s->key[s->count++], META_KEY_BYTES, "%s", key);
	return 0;
}

/* What those that were killed before any mark have left. Deleting a group that isn't stale would only make it fail. */
static void void_stale(struct store *s)
{
	struct stale *stale = calloc(1, sizeof *stale);
	uint64_t now = env_wall_ns(s->env);
	if (!stale)
		return;
	stale->before_ns = now > STALE_NS ? now - STALE_NS : 0;
	if (catalog_list(s->catalog, "group/", note_stale, stale) == 0)
		for (unsigned i = 0; i < stale->count; i++)
			group_void(s->catalog, stale->key[i]);
	free(stale);
}

/* ---- publishing ---- */

struct change {
	char snapshot[META_KEY_BYTES], name[META_KEY_BYTES], owner[META_KEY_BYTES];
	uint8_t seq[8], *bytes;
};

static int add_change(const struct member *m, uint64_t created_ns, struct change *c, struct catalog_txn *t)
{
	struct meta_snapshot s = { .mark_seq = m->mark.seq, .mark_position = m->mark.position, .size_bytes = m->mark.size_bytes,
				   .created_ns = created_ns };
	size_t length = 0;
	snprintf(s.name, sizeof s.name, "%s", m->snapshot);
	meta_key_snapshot(m->volume, m->mark.seq, c->snapshot);
	meta_key_snapshot_name(m->volume, m->snapshot, c->name);
	meta_key_owner(m->volume, c->owner);
	put_le64(c->seq, m->mark.seq);
	c->bytes = meta_snapshot_encode(&s, &length);
	if (!c->bytes)
		return -ENOMEM;
	if (!PLANTED(group_no_owner))
		catalog_txn_compare(t, c->owner, m->mark.owner_revision);
	catalog_txn_compare(t, c->name, 0);
	catalog_txn_put(t, c->name, c->seq, sizeof c->seq);
	catalog_txn_put(t, c->snapshot, c->bytes, length);
	return 0;
}

/* Repeated while its outcome is unknown (R4); volumes that are tired of waiting end that. */
static int send_commit(struct store *s, const struct catalog_txn *t)
{
	int r = -ETIMEDOUT;
	for (unsigned attempt = 0; unknown(r) && attempt < COMMIT_TRIES; attempt++) {
		if (attempt)
			fiber_sleep(&s->env->loop, RETRY_NS);
		r = catalog_txn(s->catalog, t, NULL);
	}
	return r;
}

static int group_commit(struct group *g, const char *key)
{
	struct catalog_txn *t = malloc(sizeof *t);
	struct change *changes = calloc(g->count, sizeof *changes);
	uint64_t created_ns = env_wall_ns(g->store->env);
	int r = t && changes ? 0 : -ENOMEM;
	if (r == 0) {
		catalog_txn_init(t);
		catalog_txn_compare(t, key, g->revision);
		catalog_txn_delete(t, key);
	}
	for (unsigned i = 0; r == 0 && i < g->count; i++)
		r = add_change(&g->members[i], created_ns, &changes[i], t);
	if (r == 0)
		r = send_commit(g->store, t);
	for (unsigned i = 0; changes && i < g->count; i++)
		free(changes[i].bytes);
	free(changes);
	free(t);
	return r;
}

/* group/G is gone: were the snapshots published? A mark's key is nobody else's. */
static int was_published(struct group *g, bool *ret_published)
{
	const struct member *m = &g->members[0];
	struct meta_snapshot s;
	int r = -ETIMEDOUT;
	for (unsigned attempt = 0; unknown(r) && attempt < COMMIT_TRIES; attempt++)
		r = meta_get_snapshot(g->store->catalog, m->volume, m->mark.seq, &s, NULL);
	*ret_published = r == 0 && strcmp(s.name, m->snapshot) == 0;
	return r == -ENOENT ? 0 : r;
}

/* Why a compare failed. */
static int explain(struct group *g, struct report *report)
{
	for (unsigned i = 0; i < g->count; i++) {
		const struct member *m = &g->members[i];
		struct meta_owner owner;
		uint64_t found, mark, revision = 0;
		if (store_find_snapshot(g->store->places, m->name, m->snapshot, &found, &mark, NULL) == 0)
			return report_set(report, -EEXIST, "there is a snapshot '%s' already (choose another name, or delete it)", m->text);
		if (meta_get_owner(g->store->catalog, m->volume, &owner, &revision) == 0 && revision != m->mark.owner_revision)
			return report_set(report, -ESTALE, "volume %s changed hands meanwhile (try again)", m->name);
	}
	return report_set(report, -EAGAIN, "a volume has waited too long for it (is the catalog slow? try again)");
}

/* All are marked and released, without a break: publishes, or makes sure that it never happens. */
static int group_publish(struct group *g, const char *key, struct report *report)
{
	int r = group_commit(g, key);
	if (r == 0)
		return 0;
	bool published = false;
	int gone = group_void(g->store->catalog, key);
	if (gone == 0)
		gone = was_published(g, &published);
	if (published)
		return 0;
	if (gone < 0)
		return report_set(report, gone, "the catalog doesn't say whether it was taken: %s (look with: aquifer snapshot list)", errno_text(gone));
	return r == -EAGAIN ? explain(g, report) : report_set(report, r, "the catalog: %s", catalog_text(g->store->catalog, r));
}

/* ---- all of it ---- */

static int group_once(struct group *g, struct report *report)
{
	char key[META_KEY_BYTES];
	int r = group_begin(g);
	if (r < 0)
		return report_set(report, r, "the catalog: %s", catalog_text(g->store->catalog, r));
	meta_key_group(g->id, key);
	g->due_ns = env_now_ns(g->store->env) + HOLD_NS;
	for (unsigned i = 0; i < g->count; i++)
		g->members[i].report.text[0] = '\0';
	ask_all(g, mark_one);
	r = first_failure(g, report);
	if (r == 0) {
		ask_all(g, release_one);
		r = PLANTED(group_commit_unchecked) ? 0 : first_failure(g, report);
	}
	if (r == 0)
		r = group_publish(g, key, report);
	else
		group_void(g->store->catalog, key);
	if (r < 0)
		ask_all(g, tell_one); /* volumes find out by themselves what was published */
	return r;
}

static int check_name(struct member *m, struct store_seen *ret_seen)
{
	struct store *s = m->group->store;
	struct report *report = &m->report;
	int r = store_name_split(m->text, m->name, m->snapshot, report);
	if (r == 0 && !name_valid(m->snapshot))
		r = report_set(report, -EINVAL, "'%s' names no snapshot (give VOLUME@SNAPSHOT)", m->text);
	return r < 0 ? r : store_find_unmarked(s, m->name, m->snapshot, &m->volume, ret_seen, report);
}

static int find_one(void *arg)
{
	struct member *m = arg;
	struct store_seen seen;
	m->report.text[0] = '\0';
	m->status = check_name(m, &seen);
	if (m->status == 0 && !m->own) {
		m->status = store_find_holder(m->group->store, m->name, m->volume, &seen, &m->holder, &m->report);
		m->idle = m->status == -ENXIO;
		m->status = m->idle ? 0 : m->status < 0 ? report_prefix(&m->report, m->status, "volume %s", m->name) : 0;
	}
	return 0;
}

static int find_members(struct group *g, struct report *report)
{
	ask_all(g, find_one);
	for (unsigned i = 0; i < g->count; i++) {
		const struct member *m = &g->members[i];
		if (m->status < 0)
			return report_set(report, m->status, "%s", report_text(&m->report, m->status));
		for (unsigned n = 0; n < i; n++)
			if (g->members[n].volume == m->volume)
				return report_set(report, -EINVAL, "volume %s is given twice (one snapshot of each volume)", m->name);
	}
	return 0;
}

static void close_idle(struct group *g)
{
	for (unsigned i = 0; i < g->count; i++) {
		volume_close(g->members[i].own); /* on failure the next opener recovers it: nothing is lost */
		g->members[i].own = NULL;
	}
}

/* -ESTALE: somebody has one of them by now. None is kept from others while that is looked for. */
static int open_idle(struct group *g, struct report *report)
{
	int r = 0;
	for (unsigned i = 0; r == 0 && i < g->count; i++) {
		struct member *m = &g->members[i];
		if (!m->idle || m->own)
			continue;
		r = store_maintain(g->store->places, m->volume, &m->own, report);
		if (r < 0)
			r = report_prefix(report, r == -EBUSY && store_passes(g->store->places, m->volume, g->began_ns) ? -ESTALE : r, "volume %s", m->name);
	}
	if (r == -ESTALE)
		close_idle(g);
	return r;
}

/* Of two that want the same volumes one goes first; and one that moves to another host, or is just being attached or let go, is looked for anew. */
static int group_take(struct group *g, struct report *report)
{
	struct store *s = g->store;
	unsigned busy = 1, moved = 1;
	for (bool look = true;;) {
		int r = look ? find_members(g, report) : 0;
		if (r < 0)
			return r;
		if (look && (r = open_idle(g, report)) < 0 && r != -ESTALE)
			return r;
		if (r == 0)
			r = group_once(g, report);
		look = r == -ESTALE || r == -ESHUTDOWN;
		if (look ? moved++ == MOVED_TRIES : r != -EBUSY || busy++ == TRIES)
			return r;
		fiber_sleep(&s->env->loop, RETRY_NS + env_random(s->env) % ((look ? 1 : busy) * 200 * NS_PER_MS));
		report->text[0] = '\0';
	}
}

int store_group_create(struct store *s, const char *const *names, unsigned count, struct report *report)
{
	struct report own_report = { "" };
	struct group *g = calloc(1, sizeof *g);
	if (!g)
		return -ENOMEM;
	report = report ? report : &own_report;
	g->store = s;
	g->count = count;
	g->began_ns = env_now_ns(s->env);
	for (unsigned i = 0; i < count; i++) {
		g->members[i].group = g;
		g->members[i].text = names[i];
	}
	void_stale(s);
	int r = group_take(g, report);
	close_idle(g);
	free(g);
	return r;
}
