#include "tests/sim/catalog_sim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/env_sim_world.h"
#include "core/fiber.h"

#define LATE_DEFAULT_NS (10 * NS_PER_S)
#define LATENCY_DEFAULT_NS NS_PER_MS

struct item {
	char *key;
	struct catalog_value value;
	uint64_t lease;        /* 0: it stays */
};

struct catalog_sim {
	struct sim *sim;
	struct catalog_sim_doses doses;
	bool down;
	uint64_t revision;
	struct item *items; /* by key */
	size_t count, room;
	unsigned clients;
	struct link late, watches, grants;
	uint64_t next_grant;
	void (*applied)(void *arg, const struct catalog_txn *t);
	void *applied_arg;
};

struct client {
	struct catalog catalog; /* first */
	struct catalog_sim *s;
};

struct watch {
	struct catalog_watch watch; /* first */
	struct link link, news;
	char prefix[CATALOG_KEY_MAX + 1];
};

/* On its way to a watch: what a transaction changed of that. */
struct news {
	struct sim_event event;
	struct link link;
	struct watch *w;
	unsigned count;
	struct item items[CATALOG_TXN_MAX]; /* value.bytes NULL: deleted */
};

/* A lease as the catalog has it: it runs out, whatever has become of who took it, unless it hears of him. */
struct grant {
	struct sim_event event;
	struct link link;
	struct catalog_sim *s;
	uint64_t id, ttl_ns;
};

/* As its process has it. */
struct lease {
	struct catalog_lease lease; /* first */
	struct sim_event beat;
	unsigned ttl_s;
	char key[CATALOG_KEY_MAX + 1]; /* "": none */
};

/* A transaction that arrives when its sender doesn't wait for it any more; owns its strings. */
struct late {
	struct sim_event event;
	struct link link;
	struct catalog_sim *s;
	struct catalog_txn txn;
};

/* ---- the map ---- */

static size_t item_find(const struct catalog_sim *s, const char *key, bool *ret_found)
{
	size_t low = 0, high = s->count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		int c = strcmp(s->items[middle].key, key);
		if (c == 0) {
			*ret_found = true;
			return middle;
		}
		if (c < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*ret_found = false;
	return low;
}

static uint64_t item_revision(const struct catalog_sim *s, const char *key)
{
	bool found;
	size_t i = item_find(s, key, &found);
	return found ? s->items[i].value.revision : 0;
}

static void item_free(struct item *i)
{
	free(i->key);
	catalog_value_free(&i->value);
}

static void item_set(struct catalog_sim *s, const struct catalog_change *c)
{
	bool found;
	size_t i = item_find(s, c->key, &found);
	if (found) {
		item_free(&s->items[i]);
		memmove(s->items + i, s->items + i + 1, (s->count - i - 1) * sizeof *s->items);
		s->count--;
	}
	if (!c->bytes)
		return;
	if (s->count == s->room) {
		s->room = s->room ? 2 * s->room : 64;
		s->items = realloc(s->items, s->room * sizeof *s->items);
		if (!s->items)
			abort();
	}
	memmove(s->items + i + 1, s->items + i, (s->count - i) * sizeof *s->items);
	struct item n = { .key = strdup(c->key), .value = { sim_alloc(c->length + 1), c->length, s->revision }, .lease = c->lease };
	memcpy(n.value.bytes, c->bytes, c->length);
	s->items[i] = n;
	s->count++;
}

/* ---- watches ---- */

static void news_free(struct news *n)
{
	for (unsigned i = 0; i < n->count; i++)
		item_free(&n->items[i]);
	link_drop(&n->link);
	free(n);
}

static void news_fire(struct sim_event *e)
{
	struct news *n = container_of(e, struct news, event);
	const struct catalog_watch *w = &n->w->watch;
	for (unsigned i = 0; w->seen && i < n->count; i++)
		w->seen(w->arg, n->items[i].key, n->items[i].value.bytes ? &n->items[i].value : NULL);
	fiber_cond_wake(w->changed);
	news_free(n);
}

static void news_kill(struct sim_event *e) { news_free(container_of(e, struct news, event)); }

static struct catalog_value value_copy(const struct catalog_value *v)
{
	struct catalog_value n = { sim_alloc(v->length + 1), v->length, v->revision };
	memcpy(n.bytes, v->bytes, v->length);
	return n;
}

static void watch_tell(struct catalog_sim *s, struct watch *w, const struct catalog_txn *t)
{
	struct news *n = sim_alloc(sizeof *n);
	n->w = w;
	link_init(&n->link);
	for (unsigned i = 0; i < t->change_count; i++) {
		const struct catalog_change *c = &t->change[i];
		struct catalog_value v = { (void *)(uintptr_t)c->bytes, c->length, s->revision };
		if (strncmp(c->key, w->prefix, strlen(w->prefix)) == 0)
			n->items[n->count++] = (struct item){ .key = strdup(c->key), .value = c->bytes ? value_copy(&v) : (struct catalog_value){ 0 } };
	}
	struct sim_process *p = process_of(w->watch.catalog->env);
	if (n->count == 0 || w->watch.catalog->env->dead || s->down || sim_below(s->sim, 1000000) < s->doses.deaf) {
		news_free(n);
		return;
	}
	n->event = (struct sim_event){ .name = "watch", .fire = news_fire, .kill = news_kill };
	link_push(&w->news, &n->link);
	sim_event_add(s->sim, &n->event, p, sim_latency(s->sim, s->doses.latency_ns, LATENCY_DEFAULT_NS));
}

static struct grant *grant_find(const struct catalog_sim *s, uint64_t id)
{
	link_for(l, &s->grants)
		if (container_of(l, struct grant, link)->id == id)
			return container_of(l, struct grant, link);
	return NULL;
}

static int txn_apply(struct catalog_sim *s, const struct catalog_txn *t, uint64_t *ret_revision)
{
	for (unsigned i = 0; i < t->compare_count; i++)
		if (item_revision(s, t->compare[i].key) != t->compare[i].revision)
			return -EAGAIN;
	for (unsigned i = 0; i < t->change_count; i++)
		if (t->change[i].lease && !grant_find(s, t->change[i].lease))
			return -ENOENT;
	s->revision++;
	for (unsigned i = 0; i < t->change_count; i++)
		item_set(s, &t->change[i]);
	if (ret_revision)
		*ret_revision = s->revision;
	sim_trace(s->sim, NULL, "catalog", s->revision, t->change_count);
	link_for(l, &s->watches)
		watch_tell(s, container_of(l, struct watch, link), t);
	if (s->applied)
		s->applied(s->applied_arg, t);
	return 0;
}

/* ---- late transactions ---- */

static void late_free(struct late *l)
{
	for (unsigned i = 0; i < l->txn.compare_count; i++)
		free((char *)(uintptr_t)l->txn.compare[i].key);
	for (unsigned i = 0; i < l->txn.change_count; i++) {
		free((char *)(uintptr_t)l->txn.change[i].key);
		free((char *)(uintptr_t)l->txn.change[i].bytes);
	}
	link_drop(&l->link);
	free(l);
}

static void late_fire(struct sim_event *e)
{
	struct late *l = container_of(e, struct late, event);
	txn_apply(l->s, &l->txn, NULL);
	late_free(l);
}

static void late_kill(struct sim_event *e) { late_free(container_of(e, struct late, event)); }

static void late_add(struct catalog_sim *s, const struct catalog_txn *t)
{
	struct late *l = sim_alloc(sizeof *l);
	l->s = s;
	l->txn = *t;
	for (unsigned i = 0; i < t->compare_count; i++)
		l->txn.compare[i].key = strdup(t->compare[i].key);
	for (unsigned i = 0; i < t->change_count; i++) {
		struct catalog_change *c = &l->txn.change[i];
		c->key = strdup(c->key);
		if (!c->bytes)
			continue;
		void *copy = sim_alloc(c->length + 1);
		memcpy(copy, t->change[i].bytes, c->length);
		c->bytes = copy;
	}
	l->event = (struct sim_event){ .name = "late transaction", .fire = late_fire, .kill = late_kill };
	link_push(&s->late, &l->link);
	sim_event_add(s->sim, &l->event, NULL, sim_below(s->sim, s->doses.late_ns ? s->doses.late_ns : LATE_DEFAULT_NS));
}

/* ---- calls ---- */

/* The way there or back. */
static int travel(struct client *c)
{
	return sim_sleep(process_of(c->catalog.env), sim_latency(c->s->sim, c->s->doses.latency_ns, LATENCY_DEFAULT_NS));
}

static int sim_txn(struct catalog *catalog, const struct catalog_txn *t, uint64_t *ret_revision)
{
	struct client *c = container_of(catalog, struct client, catalog);
	struct catalog_sim *s = c->s;
	for (unsigned i = 0; i < t->change_count; i++)
		assert(strlen(t->change[i].key) <= CATALOG_KEY_MAX && t->change[i].length <= CATALOG_VALUE_MAX);
	if (catalog->env->dead) /* who is dead sends nothing more, however its fibers end */
		return -ESHUTDOWN;
	int r = travel(c);
	if (r < 0) { /* killed on the way: it was sent, or not */
		if (r == -ESHUTDOWN && sim_random(s->sim) & 1)
			late_add(s, t);
		return r;
	}
	if (s->down || sim_happens(s->sim, SIM_CATALOG_TIMEOUT, s->doses.timeout)) {
		uint64_t how = sim_below(s->sim, 3);
		if (how == 0 && !s->down)
			txn_apply(s, t, NULL);
		else if (how == 1)
			late_add(s, t);
		r = sim_sleep(process_of(catalog->env), NS_PER_S);
		return r < 0 ? r : -ETIMEDOUT;
	}
	uint64_t revision = 0;
	int result = txn_apply(s, t, &revision);
	r = travel(c);
	if (r == 0 && result == 0 && ret_revision)
		*ret_revision = revision;
	return r < 0 ? r : result;
}

static int read_begin(struct client *c)
{
	int r = travel(c);
	if (r == 0 && (c->s->down || sim_happens(c->s->sim, SIM_CATALOG_TIMEOUT, c->s->doses.timeout))) {
		r = sim_sleep(process_of(c->catalog.env), NS_PER_S);
		return r < 0 ? r : -ETIMEDOUT;
	}
	return r;
}

static int sim_get(struct catalog *catalog, const char *key, struct catalog_value *ret_value)
{
	struct client *c = container_of(catalog, struct client, catalog);
	*ret_value = (struct catalog_value){ 0 };
	int r = read_begin(c);
	if (r < 0)
		return r;
	bool found;
	size_t i = item_find(c->s, key, &found);
	struct catalog_value v = found ? value_copy(&c->s->items[i].value) : (struct catalog_value){ 0 };
	r = travel(c);
	if (r < 0 || !found) {
		catalog_value_free(&v);
		return r < 0 ? r : -ENOENT;
	}
	*ret_value = v;
	return 0;
}

static int sim_get_many(struct catalog *catalog, struct catalog_want *wants, unsigned count)
{
	struct client *c = container_of(catalog, struct client, catalog);
	assert(count <= CATALOG_TXN_MAX);
	int r = read_begin(c);
	if (r < 0)
		return r;
	for (unsigned n = 0; n < count; n++) {
		bool found;
		size_t i = item_find(c->s, wants[n].key, &found);
		wants[n].value = found ? value_copy(&c->s->items[i].value) : (struct catalog_value){ 0 };
	}
	r = travel(c);
	if (r < 0)
		catalog_wants_free(wants, count);
	return r;
}

/* How many items there are from that one on with the prefix. */
static size_t items_below(const struct catalog_sim *s, const char *prefix, size_t *ret_first)
{
	bool found;
	size_t first = item_find(s, prefix, &found), count = 0;
	while (first + count < s->count && strncmp(s->items[first + count].key, prefix, strlen(prefix)) == 0)
		count++;
	*ret_first = first;
	return count;
}

static int sim_count(struct catalog *catalog, struct catalog_tally *tallies, unsigned count)
{
	struct client *c = container_of(catalog, struct client, catalog);
	size_t first;
	assert(count <= CATALOG_TXN_MAX);
	int r = read_begin(c);
	if (r < 0)
		return r;
	for (unsigned n = 0; n < count; n++)
		tallies[n].count = items_below(c->s, tallies[n].prefix, &first);
	return travel(c);
}

static int sim_list(struct catalog *catalog, const char *prefix,
		    int (*entry)(void *arg, const char *key, const struct catalog_value *value), void *arg)
{
	struct client *c = container_of(catalog, struct client, catalog);
	struct catalog_sim *s = c->s;
	int r = read_begin(c);
	if (r < 0)
		return r;
	/* `entry` may suspend and change things: it sees the state of this moment. */
	size_t first, count = items_below(s, prefix, &first);
	struct item *copy = sim_alloc((count + 1) * sizeof *copy);
	for (size_t i = 0; i < count; i++)
		copy[i] = (struct item){ .key = strdup(s->items[first + i].key), .value = value_copy(&s->items[first + i].value) };
	r = travel(c);
	for (size_t i = 0; i < count && r == 0; i++)
		r = entry(arg, copy[i].key, &copy[i].value);
	for (size_t i = 0; i < count; i++)
		item_free(&copy[i]);
	free(copy);
	return r;
}

static int sim_watch(struct catalog *catalog, const char *prefix, const struct catalog_watch *how, struct catalog_watch **ret_watch)
{
	struct client *c = container_of(catalog, struct client, catalog);
	struct watch *w = sim_alloc(sizeof *w);
	w->watch = *how;
	snprintf(w->prefix, sizeof w->prefix, "%s", prefix);
	link_init(&w->news);
	link_push(&c->s->watches, &w->link);
	fiber_cond_wake(how->changed);
	*ret_watch = &w->watch;
	return 0;
}

static void sim_watch_end(struct catalog_watch *watch)
{
	struct watch *w = container_of(watch, struct watch, watch);
	struct client *c = container_of(watch->catalog, struct client, catalog);
	while (!link_empty(&w->news)) {
		struct news *n = container_of(w->news.next, struct news, link);
		sim_event_remove(c->s->sim, &n->event);
		news_free(n);
	}
	link_drop(&w->link);
	free(w);
}

/* ---- leases ---- */

/* Its keys go with it. */
static void grant_end(struct grant *g)
{
	struct catalog_sim *s = g->s;
	struct catalog_txn t;
	do {
		catalog_txn_init(&t);
		for (size_t i = 0; i < s->count && t.change_count < CATALOG_TXN_MAX; i++)
			if (s->items[i].lease == g->id)
				catalog_txn_delete(&t, strdup(s->items[i].key));
		if (t.change_count)
			txn_apply(s, &t, NULL);
		for (unsigned i = 0; i < t.change_count; i++)
			free((char *)(uintptr_t)t.change[i].key);
	} while (t.change_count == CATALOG_TXN_MAX);
	link_drop(&g->link);
	free(g);
}

static void grant_fire(struct sim_event *e)
{
	struct grant *g = container_of(e, struct grant, event);
	sim_trace(g->s->sim, NULL, "a lease runs out", g->id, 0);
	grant_end(g);
}

static void grant_kill(struct sim_event *e) { free(container_of(e, struct grant, event)); }

static uint64_t grant_new(struct catalog_sim *s, unsigned ttl_s)
{
	struct grant *g = sim_alloc(sizeof *g);
	*g = (struct grant){ .s = s, .id = ++s->next_grant, .ttl_ns = ttl_s * NS_PER_S };
	g->event = (struct sim_event){ .name = "lease", .fire = grant_fire, .kill = grant_kill };
	link_push(&s->grants, &g->link);
	sim_event_add(s->sim, &g->event, NULL, g->ttl_ns);
	return g->id;
}

/* After the first one had run out. The key is put with it, and nothing else, at once. */
static void lease_take(struct catalog_sim *s, struct lease *l)
{
	struct catalog_txn t;
	l->lease.id = grant_new(s, l->ttl_s);
	catalog_txn_init(&t);
	if (!l->key[0])
		return;
	catalog_txn_put(&t, l->key, "", 0);
	catalog_txn_lease(&t, &l->lease);
	txn_apply(s, &t, NULL);
}

/* While a lease lasts, and its holder knows of it, its key is there, and the lease's. */
static void lease_check(const struct catalog_sim *s, const struct lease *l)
{
	bool found;
	size_t i = item_find(s, l->key, &found);
	if (!l->key[0] || (found && s->items[i].lease == l->lease.id))
		return;
	fprintf(stderr, "the key %s of lease %" PRIu64 " is %s\n", l->key, l->lease.id, found ? "another's" : "gone");
	abort();
}

/* One that isn't heard, because there is an outage, or the process is stopped, is sent again in its time: it may be too late then. */
static void lease_beat(struct sim_event *e)
{
	struct lease *l = container_of(e, struct lease, beat);
	struct client *c = container_of(l->lease.catalog, struct client, catalog);
	struct catalog_sim *s = c->s;
	struct sim_process *p = process_of(c->catalog.env);
	if (!p->paused && !s->down && !sim_happens(s->sim, SIM_CATALOG_TIMEOUT, s->doses.timeout)) {
		struct grant *g = grant_find(s, l->lease.id);
		if (g) {
			lease_check(s, l);
			sim_event_remove(s->sim, &g->event);
			sim_event_add(s->sim, &g->event, NULL, g->ttl_ns);
		} else {
			lease_take(s, l);
		}
	}
	sim_event_add(s->sim, &l->beat, p, catalog_lease_beat_ns(l->ttl_s));
}

static void lease_kill(struct sim_event *e) { (void)e; } /* who has it frees it */

static int sim_lease(struct catalog *catalog, unsigned ttl_s, const char *key, struct catalog_lease **ret_lease)
{
	struct client *c = container_of(catalog, struct client, catalog);
	struct lease *l = sim_alloc(sizeof *l);
	l->lease.catalog = catalog;
	l->ttl_s = ttl_s;
	snprintf(l->key, sizeof l->key, "%s", key ? key : "");
	int r = read_begin(c);
	if (r == 0) {
		l->lease.id = grant_new(c->s, ttl_s);
		r = l->key[0] ? catalog_lease_put(&l->lease, l->key) : travel(c);
	}
	if (r < 0) { /* what was granted runs out */
		free(l);
		return r;
	}
	l->beat = (struct sim_event){ .name = "heartbeat", .fire = lease_beat, .kill = lease_kill };
	sim_event_add(c->s->sim, &l->beat, process_of(catalog->env), catalog_lease_beat_ns(ttl_s));
	*ret_lease = &l->lease;
	return 0;
}

static void sim_lease_end(struct catalog_lease *lease)
{
	struct lease *l = container_of(lease, struct lease, lease);
	struct client *c = container_of(lease->catalog, struct client, catalog);
	if (l->beat.index)
		sim_event_remove(c->s->sim, &l->beat);
	if (!c->catalog.env->dead && read_begin(c) == 0) {
		struct grant *g = grant_find(c->s, l->lease.id);
		if (g) {
			sim_event_remove(c->s->sim, &g->event);
			grant_end(g);
		}
	}
	free(l);
}

static void sim_close(struct catalog *catalog)
{
	struct client *c = container_of(catalog, struct client, catalog);
	c->s->clients--;
	free(c);
}

#define CALLS .txn = sim_txn, .get = sim_get, .get_many = sim_get_many, .count = sim_count, .list = sim_list, .close = sim_close
#define WATCHES .watch = sim_watch, .watch_end = sim_watch_end
#define LEASES .lease = sim_lease, .lease_end = sim_lease_end
static const struct catalog_ops sim_catalog_ops[2][2] = { { { CALLS }, { CALLS, LEASES } }, { { CALLS, WATCHES }, { CALLS, WATCHES, LEASES } } };

/* ---- making one ---- */

struct catalog_sim *catalog_sim_create(struct sim *sim)
{
	struct catalog_sim *s = sim_alloc(sizeof *s);
	s->sim = sim;
	link_init(&s->late);
	link_init(&s->watches);
	link_init(&s->grants);
	return s;
}

void catalog_sim_destroy(struct catalog_sim *s)
{
	if (!s)
		return;
	assert(s->clients == 0 && link_empty(&s->watches));
	while (!link_empty(&s->late)) {
		struct late *l = container_of(s->late.next, struct late, link);
		sim_event_remove(s->sim, &l->event);
		late_free(l);
	}
	for (struct link *l; (l = link_pop(&s->grants));) {
		struct grant *g = container_of(l, struct grant, link);
		sim_event_remove(s->sim, &g->event);
		free(g);
	}
	for (size_t i = 0; i < s->count; i++)
		item_free(&s->items[i]);
	free(s->items);
	free(s);
}

struct catalog_sim_doses *catalog_sim_doses(struct catalog_sim *s) { return &s->doses; }
void catalog_sim_outage(struct catalog_sim *s, bool down)
{
	if (down && !s->down)
		sim_fault(s->sim, SIM_CATALOG_OUTAGE);
	s->down = down;
}

uint64_t catalog_sim_revision(const struct catalog_sim *s) { return s->revision; }

struct catalog *catalog_sim_open(struct catalog_sim *s, struct env *env)
{
	struct client *c = sim_alloc(sizeof *c);
	c->catalog = (struct catalog){ .ops = &sim_catalog_ops[s->doses.watches][s->doses.leases], .env = env };
	c->s = s;
	s->clients++;
	return &c->catalog;
}

void catalog_sim_each(struct catalog_sim *s, const char *prefix,
		      void (*entry)(void *arg, const char *key, const struct catalog_value *value), void *arg)
{
	bool found;
	for (size_t i = item_find(s, prefix, &found); i < s->count; i++) {
		if (strncmp(s->items[i].key, prefix, strlen(prefix)))
			return;
		entry(arg, s->items[i].key, &s->items[i].value);
	}
}

void catalog_sim_watch(struct catalog_sim *s, void (*applied)(void *arg, const struct catalog_txn *t), void *arg)
{
	s->applied = applied;
	s->applied_arg = arg;
}
