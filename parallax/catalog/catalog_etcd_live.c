/* Leases and watches: what goes on in the background of an etcd catalog, each a fiber of its own.
 *
 *   lease   granted ─▶ heartbeat every third of its time ─▶ … ─▶ revoked        (connections of its own)
 *                          └─▶ etcd says it is gone: id 0, granted anew if there is a key to keep
 *   watch   asked ─▶ a line at once, that it is there ─▶ a line for each change: wake ─▶ … ─▶ the answer ends: wake, ask again in a second
 *              └─▶ nothing, or that it isn't let in: logged in anew, and asked again
 *
 * A watch needs no revision and misses nothing that matters: it wakes when it begins, and whoever waits looks for himself. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "parallax/catalog/catalog_etcd_call.h"

#define AGAIN_NS NS_PER_S
#define LINE_MAX_BYTES ((size_t)1 << 20)

/* What leases and watches have in common: a fiber that ends when it is told. */
struct life {
	struct etcd *etcd;
	struct link link;
	struct job pause_job;
	struct timer pause;
	struct fiber_cond ended;
	bool stop, running;
};

static void life_init(struct life *l, struct etcd *e)
{
	l->etcd = e;
	timer_init(&l->pause);
	fiber_cond_init(&l->ended);
	link_push(&e->lives, &l->link);
}

static int life_start(struct life *l, int (*run)(void *arg), void *arg)
{
	l->running = true;
	int r = fiber_start(&l->etcd->catalog.env->loop, run, arg, NULL);
	if (r < 0)
		l->running = false;
	return r;
}

/* Waits, unless it is told to end. */
static void life_pause(struct life *l, uint64_t ns)
{
	struct env *env = l->etcd->catalog.env;
	if (l->stop)
		return;
	job_init(&l->pause_job, &env->loop);
	timer_start(env, &l->pause, ns, &l->pause_job);
	fiber_wait(&l->pause_job);
}

static int life_over(struct life *l)
{
	l->running = false;
	fiber_cond_wake(&l->ended);
	return 0;
}

static void life_stop(struct life *l)
{
	struct env *env = l->etcd->catalog.env;
	l->stop = true;
	timer_cancel(env, &l->pause);
	while (l->running)
		fiber_cond_wait(&env->loop, &l->ended);
	link_drop(&l->link);
}

/* ---- leases ---- */

struct etcd_lease {
	struct catalog_lease lease; /* first */
	struct life life;
	unsigned ttl_s;
	char key[CATALOG_KEY_MAX + 1]; /* "": none */
};

static int lease_call(struct etcd_lease *l, const char *path, uint64_t ttl_s, uint64_t *ret_id, uint64_t *ret_ttl_s)
{
	struct etcd *e = l->life.etcd;
	struct etcd_call call = { .path = path, .request = etcd_lease_request(l->lease.id, ttl_s), .answer_max = 16 << 10, .client = e->beat };
	int r = etcd_call(e, &call);
	if (r == 0 && ret_id)
		r = etcd_lease_answer(call.answer, call.answer_length, ret_id, ret_ttl_s);
	free(call.answer);
	return r;
}

/* Granted, and its key put. */
static int lease_take(struct etcd_lease *l)
{
	uint64_t ttl_s;
	int r = lease_call(l, "/v3/lease/grant", l->ttl_s, &l->lease.id, &ttl_s);
	if (r == 0 && l->key[0])
		return catalog_lease_put(&l->lease, l->key);
	return r == -EBADMSG ? -EPROTO : r;
}

static void beat_once(struct etcd_lease *l, uint64_t *ret_pause_ns)
{
	uint64_t id, ttl_s, every_ns = catalog_lease_beat_ns(l->ttl_s);
	int r = l->lease.id ? lease_call(l, "/v3/lease/keepalive", 0, &id, &ttl_s) : -ENOENT;
	if ((r == 0 && ttl_s == 0) || r == -ENOENT) {
		l->lease.id = 0;
		r = lease_take(l);
		if (r < 0)
			l->lease.id = 0; /* one that was granted, and whose key wasn't put, runs out */
	}
	*ret_pause_ns = r == 0 ? every_ns : MIN(AGAIN_NS, every_ns);
}

static int beat(void *arg)
{
	struct etcd_lease *l = arg;
	uint64_t pause_ns = catalog_lease_beat_ns(l->ttl_s);
	for (;;) {
		life_pause(&l->life, pause_ns);
		if (l->life.stop)
			return life_over(&l->life);
		beat_once(l, &pause_ns);
	}
}

int etcd_lease(struct catalog *c, unsigned ttl_s, const char *key, struct catalog_lease **ret_lease)
{
	struct etcd *e = etcd_of(c);
	struct etcd_lease *l = calloc(1, sizeof *l);
	const struct http_tls tls = etcd_tls(&e->access);
	int r = l ? 0 : -ENOMEM;
	if (r == 0 && !e->beat)
		r = http_client_create(c->env, &tls, &e->beat);
	if (r < 0) {
		free(l);
		return r;
	}
	l->lease.catalog = c;
	l->ttl_s = ttl_s;
	snprintf(l->key, sizeof l->key, "%s", key ? key : "");
	life_init(&l->life, e);
	r = lease_take(l);
	if (r == 0)
		r = life_start(&l->life, beat, l);
	if (r < 0) {
		link_drop(&l->life.link);
		free(l);
		return r;
	}
	*ret_lease = &l->lease;
	return 0;
}

void etcd_lease_end(struct catalog_lease *lease)
{
	struct etcd_lease *l = container_of(lease, struct etcd_lease, lease);
	life_stop(&l->life);
	if (l->lease.id && !lease->catalog->why[0]) /* while etcd is away that would only take time: it runs out by itself */
		lease_call(l, "/v3/lease/revoke", 0, NULL, NULL);
	free(l);
}

/* ---- watches ---- */

struct etcd_watch {
	struct catalog_watch watch; /* first */
	struct life life;
	struct http_request request;
	struct timer patience;
	struct job patience_job;
	bool asking, patient;          /* under way; and the timer */
	bool heard, silent, canceled;  /* of the answer: some has come; none will; it says that there is no watch */
	char prefix[CATALOG_KEY_MAX + 1];
};

/* Tells of what is complete, and forgets it; true if there was a line. */
static bool take_lines(struct etcd_watch *w)
{
	struct http_request *r = &w->request;
	size_t taken = 0;
	const uint8_t *end;
	while (taken < r->reply_length && (end = memchr(r->reply + taken, '\n', r->reply_length - taken))) {
		size_t line = (size_t)(end - r->reply) - taken;
		w->canceled |= etcd_watch_answer(r->reply + taken, line, ETCD_PREFIX, w->watch.seen, w->watch.arg);
		taken += line + 1;
	}
	if (taken)
		http_take(r, taken);
	return taken > 0;
}

/* Step: etcd says at once that a watch is there. If it doesn't it stands still, or doesn't take our token any more: then it says nothing for ever (3.4), or that the
 * watch is canceled, and nothing after that. */
static void be_patient(struct job *j)
{
	struct etcd_watch *w = container_of(j, struct etcd_watch, patience_job);
	w->silent = j->status == 0 && !w->heard;
	if (w->silent && w->asking)
		http_cancel(&w->request);
	w->patient = false;
	fiber_cond_wake(&w->life.ended);
}

static void patience_begin(struct etcd_watch *w)
{
	struct env *env = w->life.etcd->catalog.env;
	w->patient = true;
	w->heard = w->silent = w->canceled = false;
	timer_init(&w->patience);
	job_init(&w->patience_job, &env->loop);
	timer_start(env, &w->patience, ETCD_ANSWER_NS, &w->patience_job);
	job_then(&w->patience_job, be_patient);
}

static void patience_end(struct etcd_watch *w)
{
	struct env *env = w->life.etcd->catalog.env;
	timer_cancel(env, &w->patience);
	while (w->patient)
		fiber_cond_wait(&env->loop, &w->life.ended);
}

/* A member that has lost the others would hear of nothing, and say nothing: it is to end the answer instead. */
#define HAS_LEADER "Grpc-Metadata-hasleader: true"

static void watch_headers(const struct etcd *e, const char *ret_headers[4])
{
	unsigned n = 0;
	etcd_headers(e, ret_headers);
	while (ret_headers[n])
		n++;
	ret_headers[n] = HAS_LEADER;
	ret_headers[n + 1] = NULL;
}

/* One answer, to its end. */
static void watch_once(struct etcd_watch *w, const char *body)
{
	struct etcd *e = w->life.etcd;
	struct loop *loop = &e->catalog.env->loop;
	char url[ETCD_URL_BYTES + 16], used[sizeof e->login];
	const char *headers[4];
	unsigned which = e->current;
	if (etcd_login(e, which) < 0 || w->life.stop) /* told while there was nothing to be canceled: its answer would never end */
		return;
	snprintf(url, sizeof url, "%s/v3/watch", e->at.url[which]);
	watch_headers(e, headers);
	strcpy(used, e->login);
	w->request = (struct http_request){ .url = url, .headers = headers, .body = body, .body_length = strlen(body), .reply_max = LINE_MAX_BYTES,
					    .connect_timeout_ns = ETCD_CONNECT_NS };
	struct job whole, more;
	job_init(&whole, loop);
	w->asking = true;
	patience_begin(w);
	http_submit(e->http, &w->request, &whole);
	while (w->request.parent) {
		job_init(&more, loop);
		http_more(&w->request, &more);
		fiber_wait(&more);
		if (take_lines(w)) {
			w->heard = true;
			fiber_cond_wake(w->watch.changed);
		}
		if (w->canceled)
			http_cancel(&w->request);
	}
	fiber_wait(&whole);
	w->asking = false;
	patience_end(w);
	bool refused = w->silent || w->canceled || (w->request.status == 0 && w->request.http_status == 401);
	if (refused && strcmp(used, e->login) == 0)
		e->login[0] = 0;
	if (e->current == which && !w->life.stop)
		e->current = (which + 1) % e->at.count;
	http_request_free(&w->request);
}

static int watcher(void *arg)
{
	struct etcd_watch *w = arg;
	char *body = etcd_watch_request(ETCD_PREFIX, w->prefix);
	while (!w->life.stop) {
		if (body)
			watch_once(w, body);
		fiber_cond_wake(w->watch.changed);
		life_pause(&w->life, AGAIN_NS);
	}
	free(body);
	return life_over(&w->life);
}

int etcd_watch(struct catalog *c, const char *prefix, const struct catalog_watch *how, struct catalog_watch **ret_watch)
{
	struct etcd_watch *w = calloc(1, sizeof *w);
	if (!w)
		return -ENOMEM;
	w->watch = *how;
	snprintf(w->prefix, sizeof w->prefix, "%s", prefix);
	life_init(&w->life, etcd_of(c));
	int r = life_start(&w->life, watcher, w);
	if (r < 0) {
		link_drop(&w->life.link);
		free(w);
		return r;
	}
	*ret_watch = &w->watch;
	return 0;
}

void etcd_watch_end(struct catalog_watch *watch)
{
	struct etcd_watch *w = container_of(watch, struct etcd_watch, watch);
	w->life.stop = true;
	if (w->asking)
		http_cancel(&w->request);
	life_stop(&w->life);
	free(w);
}
