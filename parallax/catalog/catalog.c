#include "parallax/catalog/catalog.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "core/plant.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/catalog/catalog_etcd.h"
#include "parallax/catalog/catalog_etcd_wire.h"
#include "parallax/catalog/catalog_sqlite.h"

enum { LEASE_TRIES = 5 };

void catalog_value_free(struct catalog_value *v)
{
	free(v->bytes);
	*v = (struct catalog_value){ 0 };
}

void catalog_wants_free(struct catalog_want *wants, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		catalog_value_free(&wants[i].value);
}

void catalog_close(struct catalog *c)
{
	if (c)
		c->ops->close(c);
}

void catalog_txn_init(struct catalog_txn *t)
{
	t->compare_count = t->change_count = 0;
}

void catalog_txn_compare(struct catalog_txn *t, const char *key, uint64_t revision)
{
	assert(t->compare_count < CATALOG_TXN_MAX);
	t->compare[t->compare_count++] = (struct catalog_compare){ key, revision };
}

void catalog_txn_put(struct catalog_txn *t, const char *key, const void *bytes, size_t length)
{
	assert(t->change_count < CATALOG_TXN_MAX && length <= CATALOG_VALUE_MAX && bytes);
	t->change[t->change_count++] = (struct catalog_change){ .key = key, .bytes = bytes, .length = length };
}

void catalog_txn_delete(struct catalog_txn *t, const char *key)
{
	assert(t->change_count < CATALOG_TXN_MAX);
	t->change[t->change_count++] = (struct catalog_change){ .key = key };
}

/* An unknown outcome is harmless here: at worst a range of numbers is never used. */
static int change_at(struct catalog *c, const char *key, uint64_t revision, const void *bytes, size_t length)
{
	struct catalog_txn t;
	catalog_txn_init(&t);
	catalog_txn_compare(&t, key, revision);
	if (bytes)
		catalog_txn_put(&t, key, bytes, length);
	else
		catalog_txn_delete(&t, key);
	return catalog_txn(c, &t, NULL);
}

int catalog_put_at(struct catalog *c, const char *key, uint64_t revision, const void *bytes, size_t length)
{
	return bytes ? change_at(c, key, revision, bytes, length) : -ENOMEM;
}

int catalog_delete_at(struct catalog *c, const char *key, uint64_t revision) { return change_at(c, key, revision, NULL, 0); }

int catalog_counter_take(struct catalog *c, const char *key, uint64_t above, uint64_t count, uint64_t *ret_first)
{
	unsigned unknown = 0;
	for (unsigned attempt = 0; attempt < 1000 && unknown < 10; attempt++) {
		struct catalog_value v;
		int r = catalog_get(c, key, &v);
		if (r < 0 && r != -ENOENT)
			return r;
		bool damaged = r == 0 && v.length != 8;
		uint64_t last = r == 0 && !damaged ? get_le64(v.bytes) : 0, revision = v.revision;
		catalog_value_free(&v);
		if (damaged)
			return -EUCLEAN; /* a number given twice would be the end of somebody's data */
		uint64_t first = MAX(last, above) + 1;
		uint8_t next[8];
		put_le64(next, first + count - 1);
		r = catalog_put_at(c, key, revision, next, sizeof next);
		if (r == 0) {
			*ret_first = first;
			return 0;
		}
		if (r != -EAGAIN && r != -ETIMEDOUT)
			return r;
		unknown += r == -ETIMEDOUT; /* whoever asks knows how long to go on */
		fiber_sleep(&c->env->loop, (attempt < 10 ? 1 : 20) * NS_PER_MS);
	}
	return -ETIMEDOUT;
}

/* A transaction that changes nothing is a read, for etcd too. */
int catalog_same(struct catalog *c, const char *key, uint64_t revision)
{
	struct catalog_txn *t = malloc(sizeof *t);
	if (!t)
		return -ENOMEM;
	catalog_txn_init(t);
	catalog_txn_compare(t, key, revision);
	int r = catalog_txn(c, t, NULL);
	free(t);
	return r == 0 ? 1 : r == -EAGAIN ? 0 : r;
}

/* ---- leases ---- */

int catalog_lease(struct catalog *c, unsigned ttl_s, const char *key, struct catalog_lease **ret_lease)
{
	return c->ops->lease ? c->ops->lease(c, ttl_s, key, ret_lease) : -ENOTSUP;
}

uint64_t catalog_lease_id(const struct catalog_lease *l) { return l->id; }

void catalog_lease_end(struct catalog_lease *l)
{
	if (l)
		l->catalog->ops->lease_end(l);
}

void catalog_txn_lease(struct catalog_txn *t, const struct catalog_lease *l)
{
	assert(t->change_count > 0);
	t->change[t->change_count - 1].lease = l->id;
}

static int lease_put_at(struct catalog_lease *l, const char *key, uint64_t revision)
{
	struct catalog_txn *t = malloc(sizeof *t);
	if (!t)
		return -ENOMEM;
	catalog_txn_init(t);
	if (!PLANTED(lease_put_blind))
		catalog_txn_compare(t, key, revision);
	catalog_txn_put(t, key, "", 0);
	catalog_txn_lease(t, l);
	int r = catalog_txn(l->catalog, t, NULL);
	free(t);
	return r;
}

/* Each attempt compares the key's revision, so one that is late fails, once a later one has put the key. */
int catalog_lease_put(struct catalog_lease *l, const char *key)
{
	int r = lease_put_at(l, key, 0);
	for (unsigned attempt = 0; r == -EAGAIN && attempt < LEASE_TRIES; attempt++) {
		struct catalog_value there;
		r = catalog_get(l->catalog, key, &there);
		if (r == 0 || r == -ENOENT)
			r = lease_put_at(l, key, there.revision);
		catalog_value_free(&there);
	}
	return r == -EAGAIN ? -EBUSY : r;
}

/* ---- watches of engines that have none: a look every second ---- */

#define POLL_NS NS_PER_S

struct poll {
	struct catalog_watch watch; /* first */
	struct timer timer;
	struct job job;
	struct fiber_cond ended;
	bool stop, running;
};

static void poll_due(struct job *j)
{
	struct poll *p = container_of(j, struct poll, job);
	struct env *env = p->watch.catalog->env;
	if (p->stop || j->status < 0) {
		p->running = false;
		fiber_cond_wake(&p->ended);
		return;
	}
	fiber_cond_wake(p->watch.changed);
	timer_start(env, &p->timer, POLL_NS, j);
	job_then(j, poll_due);
}

static int poll_start(struct catalog *c, const struct catalog_watch *how, struct catalog_watch **ret_watch)
{
	struct poll *p = calloc(1, sizeof *p);
	if (!p)
		return -ENOMEM;
	p->watch = *how;
	p->running = true;
	timer_init(&p->timer);
	fiber_cond_init(&p->ended);
	job_init(&p->job, &c->env->loop);
	timer_start(c->env, &p->timer, POLL_NS, &p->job);
	job_then(&p->job, poll_due);
	*ret_watch = &p->watch;
	return 0;
}

static void poll_end(struct catalog_watch *w)
{
	struct poll *p = container_of(w, struct poll, watch);
	p->stop = true;
	timer_cancel(w->catalog->env, &p->timer);
	while (p->running)
		fiber_cond_wait(&w->catalog->env->loop, &p->ended);
	free(p);
}

int catalog_watch_seen(struct catalog *c, const char *prefix, struct fiber_cond *changed, catalog_seen *seen, void *arg, struct catalog_watch **ret_watch)
{
	const struct catalog_watch how = { c, changed, seen, arg };
	return c->ops->watch ? c->ops->watch(c, prefix, &how, ret_watch) : poll_start(c, &how, ret_watch);
}

int catalog_watch(struct catalog *c, const char *prefix, struct fiber_cond *changed, struct catalog_watch **ret_watch)
{
	return catalog_watch_seen(c, prefix, changed, NULL, NULL, ret_watch);
}

void catalog_watch_end(struct catalog_watch *w)
{
	if (!w)
		return;
	if (w->catalog->ops->watch_end)
		w->catalog->ops->watch_end(w);
	else
		poll_end(w);
}

/* ---- opening ---- */

const char *catalog_text(const struct catalog *c, int status)
{
	return c->why[0] ? c->why : status == -EDQUOT ? "it is out of quota" : status == -ENOTCONN ? "it can't be reached"
	       : status == -EUCLEAN ? "it is damaged (aquifer cluster check says where; aquifer cluster restore takes a backup)" : errno_text(status);
}

bool catalog_is_file(const char *url) { return strncmp(url, "sqlite:", 7) == 0; }

int catalog_url_check(const char *url, struct report *report)
{
	if (strncmp(url, "etcd:", 5) != 0)
		return catalog_is_file(url) && url[7] ? 0 : report_set(report, -EINVAL, "catalog '%s' is not a catalog URL (give sqlite:PATH or etcd:http[s]://HOST:PORT[,HOST:PORT...])", url);
	struct etcd_endpoints *at = malloc(sizeof *at);
	int r = at ? etcd_endpoints_parse(url + 5, at, report) : -ENOMEM;
	free(at);
	return r;
}

/* The keys of `also` are read as well. */
static int open_and(struct env *env, const char *url, const struct catalog_access *access, bool create, struct catalog_want *also, unsigned count,
		    struct catalog **ret_catalog, struct report *report)
{
	if (strncmp(url, "etcd:", 5) == 0)
		return catalog_etcd_open(env, url + 5, access, create, also, count, ret_catalog, report);
	struct catalog *c;
	int r = catalog_url_check(url, report);
	if (r == 0)
		r = catalog_sqlite_open(env, url + 7, create, &c, report);
	if (r < 0)
		return r;
	r = count ? catalog_get_many(c, also, count) : 0;
	if (r < 0) {
		report_set(report, r, "catalog %s: %s", url, catalog_text(c, r));
		catalog_close(c);
		return r;
	}
	*ret_catalog = c;
	return 0;
}

int catalog_open_any(struct env *env, const char *url, const struct catalog_access *access, bool create, struct catalog **ret_catalog,
		     struct report *report)
{
	return open_and(env, url, access, create, NULL, 0, ret_catalog, report);
}

int catalog_open(struct env *env, const char *url, const struct catalog_access *access, bool create, struct catalog **ret_catalog,
		 struct report *report)
{
	struct catalog_want marks[CATALOG_MARKS];
	struct catalog *c;
	catalog_marks_wanted(marks);
	int r = open_and(env, url, access, create, marks, CATALOG_MARKS, &c, report);
	if (r < 0)
		return r;
	r = catalog_marks_judge(marks, url, report);
	catalog_wants_free(marks, CATALOG_MARKS);
	if (r < 0)
		catalog_close(c);
	else
		*ret_catalog = c;
	return r;
}

int catalog_any(struct catalog *c, const char *prefix)
{
	struct catalog_tally t = { .prefix = prefix };
	int r = catalog_count(c, &t, 1);
	return r < 0 ? r : t.count > 0;
}
