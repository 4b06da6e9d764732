/* The store: opening it, transactions, finding volumes, snapshots and holders. Volumes' life is in store_volume.c, snapshots and clones in
 * store_snapshot.c, freeing in store_reap.c, differences in store_diff.c. */
#include "parallax/store/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/config.h"
#include "core/fiber.h"
#include "core/option.h"
#include "parallax/store/store_private.h"

/* How often a holder that is just moving is looked for. */
#define MOVE_TRIES 50
#define MOVE_PAUSE_NS (100 * NS_PER_MS)
#define PASS_NS (3 * NS_PER_S) /* one that has waited in vain for longer isn't tried again */
/* How often the catalog is asked what became of a transaction. */
#define ASK_TRIES 100
#define ASK_NS (50 * NS_PER_MS)
/* How long a command goes on with a transaction whose outcome is unknown. */
#define STORE_PATIENCE_NS (60 * NS_PER_S)

int store_open(struct env *env, const struct store_options *options, struct store **ret_store, struct report *report)
{
	struct store *s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	s->env = env;
	s->forward = options->forward;
	s->forward_arg = options->forward_arg;
	char *url = s->url;
	snprintf(s->root, sizeof s->root, "%s", options->root ? options->root : "");
	int r = config_catalog_url(env, options->root, options->catalog_url, s->url, report);
	if (r == 0)
		r = places_open(env, options->root, url, options->create, &s->places, report);
	if (r < 0) {
		free(s);
		return r;
	}
	s->cluster = strncmp(url, "sqlite:", 7) != 0;
	s->catalog = s->places->catalog;
	*ret_store = s;
	return 0;
}

int store_close(struct store *s)
{
	if (!s)
		return 0;
	places_close(s->places);
	free(s);
	return 0;
}

int store_name_split(const char *text, char *ret_volume, char *ret_snapshot, struct report *report)
{
	const char *at = strchr(text, '@');
	size_t n = at ? (size_t)(at - text) : strlen(text);
	if (n >= STORE_NAME_BYTES || (at && strlen(at + 1) >= STORE_NAME_BYTES))
		return report_set(report, -EINVAL, "'%s': a name has at most 63 characters", text);
	snprintf(ret_volume, STORE_NAME_BYTES, "%.*s", (int)n, text);
	snprintf(ret_snapshot, STORE_NAME_BYTES, "%s", at ? at + 1 : "");
	if (!name_valid(ret_volume) || (at && !name_valid(ret_snapshot)))
		return report_set(report, -EINVAL, "'%s' is not VOLUME%s (letters, digits, . _ -)", text, at ? "@SNAPSHOT" : "");
	return 0;
}

/* ---- catalog helpers ---- */

int store_txn(struct catalog *c, const struct catalog_txn *t)
{
	uint64_t until_ns = env_now_ns(c->env) + STORE_PATIENCE_NS;
	bool unknown = false;
	int r;
	for (unsigned attempt = 0; attempt < 100; attempt++) {
		r = catalog_txn(c, t, NULL);
		unknown |= r == -ETIMEDOUT;
		if (r != -ETIMEDOUT && !(unknown && catalog_away(r)))
			break;
		if (env_now_ns(c->env) > until_ns)
			break;
		fiber_sleep(&c->env->loop, 50 * NS_PER_MS);
	}
	return unknown && catalog_away(r) ? -ETIMEDOUT : r;
}

int store_get_name(struct catalog *c, const char *name, struct meta_name *ret)
{
	int r = -ETIMEDOUT;
	for (unsigned attempt = 0; attempt < ASK_TRIES && catalog_away(r) && !c->env->dead; attempt++) {
		if (attempt)
			fiber_sleep(&c->env->loop, ASK_NS);
		r = meta_get_name(c, name, ret, NULL);
	}
	return r;
}

int store_was_made(struct store *s, uint64_t id, const uuid *volume)
{
	struct meta_log *log = malloc(sizeof *log);
	uint64_t until_ns = env_now_ns(s->env) + STORE_PATIENCE_NS;
	int r = log ? -ETIMEDOUT : -ENOMEM;
	for (unsigned attempt = 0; attempt < ASK_TRIES && catalog_away(r) && !s->env->dead && env_now_ns(s->env) <= until_ns; attempt++) {
		if (attempt)
			fiber_sleep(&s->env->loop, ASK_NS);
		r = meta_get_log(s->catalog, id, log, NULL);
	}
	bool ours = r == 0 && memcmp(&log->volume, volume, sizeof *volume) == 0; /* who was faster may have taken that number */
	free(log);
	return ours ? 0 : r == 0 || r == -ENOENT ? -EAGAIN : -ETIMEDOUT;
}

int store_txn_report(struct store *s, int status, const char *changed, struct report *report)
{
	if (status == -ETIMEDOUT)
		return report_set(report, status, "whether it was done isn't known, the catalog doesn't say: %s (look with: aquifer volume list)", catalog_text(s->catalog, status));
	return status < 0 ? report_set(report, status, status == -EAGAIN ? "%s" : "the catalog: %s", status == -EAGAIN ? changed : catalog_text(s->catalog, status)) : 0;
}

struct each_snapshot {
	int (*entry)(void *arg, const struct meta_snapshot *m);
	void *arg;
};

static int each_snapshot(void *arg, const char *key, const struct catalog_value *value)
{
	const struct each_snapshot *e = arg;
	struct meta_snapshot m;
	(void)key;
	int r = meta_snapshot_decode(value->bytes, value->length, &m);
	return r < 0 ? r : e->entry(e->arg, &m);
}

int store_each_snapshot(struct catalog *c, uint64_t volume, int (*entry)(void *arg, const struct meta_snapshot *m), void *arg)
{
	char prefix[META_KEY_BYTES];
	struct each_snapshot e = { entry, arg };
	meta_key_snapshots(volume, prefix);
	return catalog_list(c, prefix, each_snapshot, &e);
}

/* ---- finding ---- */

int store_find_name(struct catalog *c, const char *name, struct meta_name *ret, uint64_t *ret_revision, struct report *report)
{
	int r = meta_get_name(c, name, ret, ret_revision);
	if (r == -ENOENT)
		return report_set(report, r, "there is no volume '%s' (see: aquifer volume list)", name);
	return r < 0 ? report_set(report, r, "the catalog: %s", catalog_text(c, r)) : 0;
}

int store_find_volume(struct places *p, const char *name, uint64_t *ret_volume, struct report *report)
{
	struct meta_name m;
	int r = store_find_name(p->catalog, name, &m, NULL, report);
	if (r == 0)
		*ret_volume = m.volume;
	return r;
}

/* Of the volume that has the name now, or of one that had it before a rollback: all are looked at in one go, with the owner record of the first. */
struct named_look {
	struct catalog_want wants[META_HISTORY_MAX + 3];
	char keys[META_HISTORY_MAX + 3][META_KEY_BYTES];
};

static void seen_owner(const struct catalog_want *w, struct store_seen *ret)
{
	ret->status = w->value.revision ? meta_owner_decode(w->value.bytes, w->value.length, &ret->owner) : -ENOENT;
}

/* Does the name's record say this? */
static bool is_named(const struct catalog_want *w, const struct meta_name *m)
{
	struct meta_name now;
	return w->value.revision && meta_name_decode(w->value.bytes, w->value.length, &now) == 0 && now.volume == m->volume &&
	       now.history_count == m->history_count && memcmp(now.history, m->history, m->history_count * sizeof *m->history) == 0;
}

/* -ENOENT: there is none. `guessed`: the name of which `m` is a guess (NULL: it is known); -ESTALE: it isn't so. `ret_seen` may be NULL. */
static int look_for_named(struct catalog *c, const char *guessed, const struct meta_name *m, const char *snapshot, struct store_mark *ret, struct store_seen *ret_seen)
{
	struct named_look *l = calloc(1, sizeof *l);
	uint32_t n = m->history_count + 1, count = n + 1;
	if (!l)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		meta_key_snapshot_name(i == 0 ? m->volume : m->history[i - 1], snapshot, l->keys[i]);
	meta_key_owner(m->volume, l->keys[n]);
	if (guessed)
		meta_key_name(guessed, l->keys[count++]);
	for (uint32_t i = 0; i < count; i++)
		l->wants[i].key = l->keys[i];
	int r = catalog_get_many(c, l->wants, count);
	if (r == 0) {
		r = guessed && !is_named(&l->wants[n + 1], m) ? -ESTALE : -ENOENT;
		if (ret_seen)
			seen_owner(&l->wants[n], ret_seen);
		for (uint32_t i = 0; r == -ENOENT && i < n; i++)
			if (l->wants[i].value.length == 8) {
				*ret = (struct store_mark){ i == 0 ? m->volume : m->history[i - 1], get_le64(l->wants[i].value.bytes) };
				r = 0;
			}
		catalog_wants_free(l->wants, count);
	}
	free(l);
	return r;
}

int store_find_named(struct places *p, const struct meta_name *m, const char *name, const char *snapshot, struct store_mark *ret, struct store_seen *ret_seen,
		     struct report *report)
{
	int r = look_for_named(p->catalog, /* guessed= */ NULL, m, snapshot, ret, ret_seen);
	if (r == -ENOENT)
		return report_set(report, r, "there is no snapshot '%s@%s' (see: aquifer snapshot list %s)", name, snapshot, name);
	return r < 0 ? report_set(report, r, "the catalog: %s", catalog_text(p->catalog, r)) : 0;
}

int store_find_snapshot(struct places *p, const char *name, const char *snapshot, uint64_t *ret_volume, uint64_t *ret_mark,
			struct report *report)
{
	struct meta_name m;
	struct store_mark found;
	int r = store_find_name(p->catalog, name, &m, NULL, report);
	if (r == 0)
		r = store_find_named(p, &m, name, snapshot, &found, NULL, report);
	if (r == 0) {
		*ret_volume = found.volume;
		*ret_mark = found.mark;
	}
	return r;
}

static struct store_guess *guess_of(struct store *s, const char *name)
{
	for (unsigned i = 0; i < STORE_GUESSES; i++)
		if (strcmp(s->guesses[i].name, name) == 0)
			return &s->guesses[i];
	return NULL;
}

static void guess_keep(struct store *s, const char *name, const struct meta_name *m)
{
	struct store_guess *g = guess_of(s, name);
	if (!g)
		g = &s->guesses[s->next_guess++ % STORE_GUESSES];
	g->named = *m;
	snprintf(g->name, sizeof g->name, "%s", name);
}

int store_find_unmarked(struct store *s, const char *name, const char *snapshot, uint64_t *ret_volume, struct store_seen *ret_seen, struct report *report)
{
	const struct store_guess *g = guess_of(s, name);
	struct meta_name m;
	struct store_mark mark;
	int r = -ESTALE;
	if (g) {
		m = g->named;
		r = look_for_named(s->catalog, name, &m, snapshot, &mark, ret_seen);
	}
	if (r == -ESTALE) {
		if ((r = store_find_name(s->catalog, name, &m, NULL, report)) < 0)
			return r;
		guess_keep(s, name, &m);
		r = look_for_named(s->catalog, /* guessed= */ NULL, &m, snapshot, &mark, ret_seen);
	}
	*ret_volume = m.volume;
	if (r == 0)
		return report_set(report, -EEXIST, "there is a snapshot '%s@%s' already (choose another name, or delete it)", name, snapshot);
	return r == -ENOENT ? 0 : report_set(report, r, "the catalog: %s", catalog_text(s->catalog, r));
}

/* ---- holders ---- */

static int first_look(struct places *p, uint64_t volume, const struct store_seen *seen, struct meta_owner *ret_owner)
{
	*ret_owner = (struct meta_owner){ 0 };
	if (!seen)
		return meta_get_owner(p->catalog, volume, ret_owner, NULL);
	if (seen->status == 0)
		*ret_owner = seen->owner;
	return seen->status;
}

/* 1: attached; 0: nobody has it; -errno: the catalog doesn't say. `seen` (NULL: nothing): what it said a moment ago. */
static int find_owner(struct places *p, uint64_t volume, const struct store_seen *seen, struct meta_owner *ret_owner)
{
	unsigned errors = 0;
	for (unsigned waited_ms = 0;; waited_ms += 50) {
		int r = first_look(p, volume, waited_ms ? NULL : seen, ret_owner);
		if ((r == 0 && !places_holder_alive(p, ret_owner)) || r == -ENOENT)
			return 0;
		if (r < 0 && ((r != -ETIMEDOUT && r != -EBUSY) || ++errors == 20))
			return r;
		if (r == 0 && (strcmp(ret_owner->holder, VOLUME_MAINTENANCE) != 0 || waited_ms >= VOLUME_MAINTENANCE_MS))
			return 1;
		fiber_sleep(&p->env->loop, 50 * NS_PER_MS);
	}
}

bool store_holder(struct places *p, uint64_t volume, struct meta_owner *ret_owner) { return find_owner(p, volume, NULL, ret_owner) > 0; }

static int look_for_holder(struct store *s, const char *name, uint64_t volume, const struct store_seen *seen, struct store_holder *ret_holder,
			   struct report *report)
{
	struct meta_owner o;
	int r = find_owner(s->places, volume, seen, &o);
	if (r <= 0) /* not known isn't nobody: who opens the volume then would take it away from its holder */
		return r < 0 ? report_set(report, r, "its owner record can't be read: %s", errno_text(r)) : -ENXIO;
	*ret_holder = (struct store_holder){ .elsewhere = places_held_elsewhere(s->places, &o) };
	snprintf(ret_holder->agent.host, sizeof ret_holder->agent.host, "%s", o.host);
	snprintf(ret_holder->text, sizeof ret_holder->text, "%s", o.holder);
	snprintf(ret_holder->control, sizeof ret_holder->control, "%s", o.control);
	snprintf(ret_holder->volume, sizeof ret_holder->volume, "%s", name);
	if (!o.control[0])
		return report_set(report, -EBUSY, "it is attached as %s%s%s, which can't be asked", o.holder, ret_holder->elsewhere ? " on host " : "",
				  ret_holder->elsewhere ? o.host : "");
	r = ret_holder->elsewhere ? store_agent_find(s, o.host, &ret_holder->agent, report) : 0;
	return r < 0 ? report_prefix(report, r, "it is attached as %s on host %s", o.holder, o.host) : 0;
}

int store_look_for_holder(struct store *s, const char *name, uint64_t volume, struct store_holder *ret_holder, struct report *report)
{
	return look_for_holder(s, name, volume, NULL, ret_holder, report);
}

int store_find_holder(struct store *s, const char *name, uint64_t volume, const struct store_seen *seen, struct store_holder *ret_holder, struct report *report)
{
	int r = look_for_holder(s, name, volume, seen, ret_holder, report);
	return r == 0 && !s->forward ? report_set(report, -EBUSY, "it is attached as %s, which can't be asked", ret_holder->text) : r;
}

int store_ask_holder_seen(struct store *s, const char *name, uint64_t volume, const struct store_seen *seen, const char *verb, const char *const *args,
			  struct report *report)
{
	struct report why;
	int r = -ESTALE;
	/* one that moves to another host is found there; where one is ending, nobody or the next one is found */
	for (unsigned attempt = 0; (r == -ESTALE || r == -ESHUTDOWN) && attempt < MOVE_TRIES; attempt++) {
		struct store_holder h;
		char *json = NULL;
		if (attempt)
			fiber_sleep(&s->env->loop, MOVE_PAUSE_NS);
		why.text[0] = '\0';
		r = store_find_holder(s, name, volume, attempt ? NULL : seen, &h, &why);
		if (r == 0)
			r = s->forward(s->forward_arg, &h, verb, args, /* deadline_ns= */ 0, &json, &why);
		free(json);
	}
	return r < 0 && why.text[0] ? report_set(report, r, "%s", why.text) : r;
}

int store_ask_holder(struct store *s, const char *name, uint64_t volume, const char *verb, const char *const *args,
		     struct report *report)
{
	return store_ask_holder_seen(s, name, volume, NULL, verb, args, report);
}

int store_refuse_owner(struct places *p, uint64_t volume, const struct meta_owner *owner, struct report *report)
{
	bool elsewhere = places_attached_elsewhere(p, owner);
	if (places_holder_alive(p, owner))
		return report_set(report, -EBUSY, "it is attached as %s%s%s (detach it first)", owner->holder, elsewhere ? " on host " : "", elsewhere ? owner->host : "");
	if (places_held_contained(p, volume, owner))
		return report_set(report, -EBUSY, "it is attached as %s in another container (detach it there first)", owner->holder);
	if (elsewhere)
		return report_set(report, -EBUSY, "it is attached as %s on host %s, which hasn't renewed its lease (attach it on another host, which takes it over, and detach it, first)",
				  owner->holder, owner->host);
	return 0;
}

int store_refuse_held(struct places *p, uint64_t volume, struct report *report)
{
	struct meta_owner owner;
	int r = find_owner(p, volume, NULL, &owner);
	return r < 0 ? report_set(report, r, "its owner record can't be read: %s", catalog_text(p->catalog, r)) : store_refuse_owner(p, volume, &owner, report);
}

int store_maintain(struct places *p, uint64_t volume, struct volume **ret_volume, struct report *report)
{
	struct volume_open open = { .catalog = p->catalog, .places = &p->ops, .volume = volume, .holder = VOLUME_MAINTENANCE, .host = p->host,
				    .pid = (uint64_t)getpid() };
	return volume_open(p->env, &open, ret_volume, report);
}

bool store_passes(struct places *p, uint64_t volume, uint64_t began_ns)
{
	struct meta_owner o;
	return env_now_ns(p->env) - began_ns < PASS_NS && meta_get_owner(p->catalog, volume, &o, NULL) == 0 &&
	       (o.state == OWNER_FREE || strcmp(o.holder, VOLUME_MAINTENANCE) == 0 || places_holder_alive(p, &o));
}

int store_ask_or_maintain(struct store *s, const char *name, uint64_t volume, const struct store_seen *seen, const char *verb, const char *const *args,
			  struct volume **ret_volume, struct report *report)
{
	struct report why;
	uint64_t began_ns = env_now_ns(s->env);
	int r = -EBUSY;
	*ret_volume = NULL;
	for (unsigned attempt = 0; r == -EBUSY; attempt++) {
		if (attempt)
			fiber_sleep(&s->env->loop, MOVE_PAUSE_NS);
		r = store_ask_holder_seen(s, name, volume, attempt ? NULL : seen, verb, args, report);
		if (r != -ENXIO)
			return r;
		why.text[0] = '\0';
		r = store_maintain(s->places, volume, ret_volume, &why);
		if (r == -EBUSY && !store_passes(s->places, volume, began_ns))
			break;
	}
	return r < 0 && why.text[0] ? report_set(report, r, "%s", why.text) : r;
}

int store_want_root(struct places *p, uint64_t volume, uint64_t mark, struct store *s, struct report *report)
{
	static const char *const none[] = { NULL };
	struct report why = { "" };
	for (unsigned attempt = 0; attempt < 200; attempt++) {
		struct meta_snapshot m;
		struct meta_owner o;
		struct volume *v;
		int r = meta_get_snapshot(p->catalog, volume, mark, &m, NULL);
		if (r == -ETIMEDOUT)
			continue;
		if (r < 0 || m.has_root)
			return r < 0 ? report_set(report, r, "the snapshot is gone") : 0;
		r = meta_get_owner(p->catalog, volume, &o, NULL);
		if (r == 0 && places_holder_alive(p, &o)) {
			if (s && attempt % 20 == 0)
				store_ask_holder(s, "", volume, "checkpoint", none, NULL);
		} else if (r == 0 || r == -ENOENT) {
			why.text[0] = '\0';
			if (store_maintain(p, volume, &v, &why) == 0)
				volume_close(v); /* what it replays it publishes */
			else if (attempt >= 20 && places_attached_elsewhere(p, &o)) /* it isn't just coming back */
				return report_set(report, -EBUSY, "the snapshot's map isn't written yet, and %s", why.text);
		}
		fiber_sleep(&p->env->loop, 50 * NS_PER_MS);
	}
	return report_set(report, -ETIMEDOUT, "the volume's holder has not written the snapshot's map in 10 s");
}
