/* Connections with servers: who is needed is connected with, and let go when it isn't for long. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/report.h"
#include "parallax/copies/copies_private.h"
#include "parallax/segment/segment_share.h"

#define PROBE_NS (300 * NS_PER_MS)
enum { SWEEPS = 4 };      /* in the time after which a connection is idle */
enum { TRIED_FIRST = 4 }; /* servers, when any will do */

struct peer *peer_new(struct copies *c, const uuid *id)
{
	struct peer *p = calloc(1, sizeof *p);
	if (!p)
		return NULL;
	p->copies = c;
	p->id = *id;
	link_init(&p->waiting);
	return p;
}

/* ---- connecting ---- */

bool peer_idle(const struct peer *p) { return !p->server && p->address[0] && !p->copies->closing; }

/* The attempt is over: what waited for it goes on, or ends. */
static void end_waiting(struct peer *p, bool up)
{
	p->trying = false;
	for (struct link *l; (l = link_pop(&p->waiting));) {
		struct segment_io *io = container_of(l, struct segment_io, link);
		struct job *parent = io->parent;
		int r = up ? 0 : -ENOTCONN;
		if (up)
			segment_submit(p->server, io, parent);
		else
			io->status = r;
		job_put(parent, r);
	}
	fiber_cond_wake(&p->copies->changed); /* peer_reach() */
}

static void tried(void *arg, int status)
{
	struct peer *p = arg;
	if (status == 0)
		p->up_ns = env_now_ns(p->copies->env);
	if (p->trying)
		end_waiting(p, status == 0);
	else
		fiber_cond_wake(&p->copies->changed);
}

static void connect_to(struct peer *p)
{
	int r = segment_remote_start(p->copies->env, p->address, &p->id, p->host, COPIES_DEADLINE_NS, tried, p, &p->server);
	p->trying = r == 0;
	if (r < 0) {
		p->server = NULL;
		end_waiting(p, false);
	}
}

void peer_want(struct peer *p)
{
	p->used_ns = env_now_ns(p->copies->env);
	if (peer_idle(p))
		connect_to(p);
}

static struct segment_server *take_server(struct peer *p)
{
	struct segment_server *s = p->server;
	p->incarnation = s ? s->incarnation : p->incarnation;
	p->server = NULL;
	return s;
}

void peer_moved(struct peer *p, const char *address, const char *host)
{
	struct segment_server *old = take_server(p);
	bool needed = p->used_ns && env_now_ns(p->copies->env) - p->used_ns < p->copies->idle_ns;
	snprintf(p->address, sizeof p->address, "%s", address);
	snprintf(p->host, sizeof p->host, "%s", host);
	if (old || needed)
		connect_to(p);
	segment_server_close(old);
}

/* All are cut before one is waited for: attempts to connect end in their own time. */
void peers_end(struct peer *const *peers, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct peer *p = peers[i];
		struct segment_server *s = take_server(p);
		p->suspect = false;
		end_waiting(p, false);
		if (!s)
			continue;
		if (s->ops->cut)
			s->ops->cut(s);
		p->ending = s;
	}
	for (unsigned i = 0; i < count; i++) {
		struct segment_server *s = peers[i]->ending;
		peers[i]->ending = NULL;
		segment_server_close(s);
	}
}

static bool is_unneeded(const struct peer *p, uint64_t now)
{
	return p->server && p->address[0] && !p->trying && !p->probing && now - p->used_ns >= p->copies->idle_ns;
}

int peers_sweep(void *arg)
{
	struct copies *c = arg;
	while (!c->closing && !c->env->dead) {
		job_init(&c->sweep_job, &c->env->loop);
		timer_start(c->env, &c->sweep, c->idle_ns / SWEEPS, &c->sweep_job);
		if (fiber_wait(&c->sweep_job) == -ESHUTDOWN)
			break;
		for (unsigned i = 0; i < c->count && !c->closing; i++)
			if (is_unneeded(c->peers[i], env_now_ns(c->env)))
				peers_end(&c->peers[i], 1);
	}
	c->sweeping = false;
	fiber_cond_wake(&c->changed);
	return 0;
}

/* ---- who answers ---- */

static void probed(struct job *j)
{
	struct peer *p = container_of(j, struct peer, probe_job);
	p->probing = false;
	if (!segment_away(j->status) && j->status != -ESHUTDOWN)
		p->suspect = false;
	fiber_cond_wake(&p->copies->changed);
}

/* Any answer will do. */
static void probe(struct peer *p)
{
	struct env *env = p->copies->env;
	if (p->probing || p->copies->closing || env_now_ns(env) < p->probe_ns)
		return;
	p->probing = true;
	p->probe_ns = env_now_ns(env) + PROBE_NS;
	p->probe = (struct segment_io){ .op = SEGMENT_STAT, .segment = 1 };
	job_init(&p->probe_job, &env->loop);
	segment_submit(p->server, &p->probe, &p->probe_job);
	job_then(&p->probe_job, probed);
}

bool peer_connected(struct peer *p)
{
	if (!p->server || !segment_up(p->server))
		return false;
	if (p->suspect)
		probe(p);
	return !p->suspect;
}

bool peer_hopeful(struct peer *p) { return p->trying || peer_idle(p) || peer_connected(p); }

static bool is_away(const struct peer *p) { return !p->trying && !peer_idle(p) && (!p->server || !segment_up(p->server)); }

bool peer_usable(struct peer *p)
{
	if (is_away(p))
		copies_look(p->copies);
	return peer_hopeful(p);
}

/* peer_want(), and a look for its address if it is away; is it connected? */
static bool peer_wanted(struct peer *p)
{
	peer_want(p);
	if (is_away(p))
		copies_look(p->copies);
	return peer_connected(p);
}

bool peer_reach(struct peer *p)
{
	peer_want(p);
	while (p->trying)
		fiber_cond_wait(&p->copies->env->loop, &p->copies->changed);
	return peer_wanted(p);
}

uint64_t peer_incarnation(const struct peer *p) { return p->server ? p->server->incarnation : p->incarnation; }

/* One that lost its connection is known by that, and is as good as before once it has another. */
void peer_blame(struct peer *p, int status)
{
	if (status != -ETIMEDOUT)
		return;
	p->suspect = true;
	p->probe_ns = env_now_ns(p->copies->env) + PROBE_NS;
}

/* ---- operations ---- */

/* A read that only finds out how long one takes there doesn't mean that it is needed. */
static void note_need(struct peer *p, const struct segment_io *io)
{
	uint64_t before = p->used_ns;
	peer_want(p);
	if (io->op == SEGMENT_READ && p->anew)
		p->used_ns = before;
}

void peer_submit(struct peer *p, struct segment_io *io, struct job *parent)
{
	note_need(p, io);
	if (p->trying) {
		job_hold(parent);
		io->parent = parent;
		io->private = NULL;
		link_push(&p->waiting, &io->link);
		return;
	}
	if (p->server) {
		segment_submit(p->server, io, parent);
		return;
	}
	copies_look(p->copies);
	io->status = -ENOTCONN;
	job_hold(parent);
	job_put(parent, io->status);
}

void peer_cancel(struct peer *p, struct segment_io *io)
{
	link_for(l, &p->waiting) {
		if (l != &io->link)
			continue;
		link_drop(l);
		io->status = -ECANCELED;
		job_put(io->parent, io->status);
		return;
	}
	if (p->server && p->server->ops->cancel)
		p->server->ops->cancel(io);
}

int peer_wait(struct peer *p, struct segment_io *io)
{
	peers_wait(&p, io, 1);
	return io->status;
}

int peer_status(struct peer *p, bool gc, struct segment_status *ret)
{
	return p->copies->catalog && peer_reach(p) ? segment_remote_status(p->server, gc, ret) : -ENOTCONN;
}

unsigned peers_wait(struct peer *const *peers, struct segment_io *ios, unsigned count)
{
	if (count == 0)
		return 0;
	struct job j;
	unsigned good = 0;
	job_init(&j, &peers[0]->copies->env->loop);
	for (unsigned i = 0; i < count; i++)
		peer_submit(peers[i], &ios[i], &j);
	fiber_wait(&j);
	for (unsigned i = 0; i < count; i++) {
		good += ios[i].status == 0;
		peer_blame(peers[i], ios[i].status);
	}
	return good;
}

/* ---- waiting for some ---- */

static unsigned count_connected(struct peer *const *peers, unsigned count, unsigned *ret_trying)
{
	unsigned n = 0;
	*ret_trying = 0;
	for (unsigned i = 0; i < count; i++) {
		n += peer_wanted(peers[i]);
		*ret_trying += peers[i]->trying;
	}
	return n;
}

/* `known`: it is enough to know of each. */
static unsigned await(struct peer *const *peers, unsigned count, unsigned need, bool known)
{
	struct env *env = peers[0]->copies->env;
	uint64_t begin = env_now_ns(env), enough = 0;
	for (;;) {
		unsigned unknown, n = count_connected(peers, count, &unknown);
		uint64_t now = env_now_ns(env);
		if (n == count || (known && !unknown) || (n >= need && enough && now - enough >= PEER_AWAIT_ALL_NS))
			return n;
		if (n >= need && !enough)
			enough = now;
		if (now - begin >= COPIES_DEADLINE_NS || fiber_sleep(&env->loop, PEER_AWAIT_STEP_NS) < 0)
			return n;
	}
}

bool peers_await(struct peer *const *peers, unsigned count, unsigned need)
{
	return count && await(peers, count, need, /* known= */ false) >= need;
}

void peers_try(struct peer *const *peers, unsigned count, unsigned least)
{
	if (count)
		await(peers, count, least, /* known= */ true);
}

/* In `map`, if that isn't NULL. */
static bool is_placed(const struct placement *map, const struct peer *p)
{
	for (uint32_t i = 0; map && i < map->server_count; i++)
		if (memcmp(&map->servers[i].id, &p->id, sizeof p->id) == 0)
			return true;
	return !map;
}

static bool is_missing(struct peer *p, const struct placement *map) { return !peer_connected(p) && !peer_idle(p) && is_placed(map, p); }

/* One that came back with an empty disk is another server at the same place. */
static bool same_address_before(struct peer *const *peers, unsigned i, const struct placement *map)
{
	for (unsigned k = 0; k < i; k++)
		if (strcmp(peers[k]->address, peers[i]->address) == 0 && is_missing(peers[k], map))
			return true;
	return false;
}

static void list_missing(struct peer *const *peers, unsigned count, const struct placement *map, char *ret_text, size_t bytes)
{
	size_t n = 0;
	*ret_text = '\0';
	for (unsigned i = 0; i < count && n < bytes; i++)
		if (is_missing(peers[i], map) && !same_address_before(peers, i, map)) {
			const char *why = peers[i]->server ? segment_why(peers[i]->server) : "";
			n += (size_t)snprintf(ret_text + n, bytes - n, "%s%s%s%s%s", n ? ", " : "",
					      peers[i]->address[0] ? peers[i]->address : "one that isn't in the catalog", *why ? " (" : "", why, *why ? ")" : "");
		}
}

void peers_missing(struct peer *const *peers, unsigned count, char *ret_text, size_t bytes) { list_missing(peers, count, NULL, ret_text, bytes); }

void copies_missing(const struct copies *c, char *ret_text, size_t bytes)
{
	list_missing(c->peers, c->count, &c->map, ret_text, bytes);
	if (!*ret_text)
		list_missing(c->peers, c->count, NULL, ret_text, bytes);
}

static bool any_connected(struct copies *c)
{
	for (unsigned i = 0; i < c->count; i++)
		if (peer_connected(c->peers[i]))
			return true;
	return false;
}

/* Twice as many when all those have failed, or for each moment that passes. Not every process begins with the same. */
static bool reach_any(struct copies *c)
{
	struct env *env = c->env;
	uint64_t begin = env_now_ns(env), since = begin;
	unsigned first = c->count ? (unsigned)(env_random(env) % c->count) : 0, asked = MIN(c->count, (unsigned)TRIED_FIRST);
	while (!any_connected(c)) {
		unsigned trying = 0;
		for (unsigned i = 0; i < asked && i < c->count; i++) {
			struct peer *p = c->peers[(first + i) % c->count];
			peer_wanted(p);
			trying += p->trying;
		}
		uint64_t now = env_now_ns(env);
		if (!trying || now - since >= PEER_AWAIT_ALL_NS) {
			asked = MIN(2 * asked, c->count);
			since = now;
		}
		if (now - begin >= COPIES_DEADLINE_NS || fiber_sleep(&env->loop, PEER_AWAIT_STEP_NS) < 0)
			return false;
	}
	return true;
}

/* What keeps us from all of them alike is ours, and nothing that starting them would mend; "": there is no such thing. */
static const char *why_none(const struct copies *c)
{
	const char *why = NULL;
	for (unsigned i = 0; i < c->count; i++) {
		const char *one = c->peers[i]->server ? segment_why(c->peers[i]->server) : "";
		if (why && strcmp(why, one) != 0)
			return "";
		why = one;
	}
	return why && c->count > 1 ? why : "";
}

int copies_await(struct copies *c, struct report *report)
{
	char who[META_TEXT_MAX];
	if (!c->catalog || reach_any(c))
		return c->count ? 0 : report_set(report, -ENOENT, "the catalog has no server (start one: see aquifer-server(8))");
	if (*why_none(c))
		return report_set(report, -ENOTCONN, "none of the servers that hold it can be used from here: %s", why_none(c));
	peers_missing(c->peers, c->count, who, sizeof who);
	return report_set(report, -ENOTCONN, c->count == 1 ? "the server that holds it doesn't answer: %s (start it, then try again)"
							   : "none of the servers that hold it answers: %s (start them, then try again)", who);
}

/* ---- what they have ---- */

/* A page; `after` goes on, to 0 when all was told. */
static int list_page(struct peer *p, uint8_t *page, uint64_t *after, int (*entry)(void *arg, struct peer *p, const struct share_entry *e), void *arg)
{
	struct iovec v = { page, SHARE_LIST_BYTES };
	struct segment_io io = { .op = SEGMENT_LIST, .segment = *after, .iov = &v, .iov_count = 1 };
	uint64_t last = *after;
	int r = peer_wait(p, &io);
	for (uint32_t at = 0; r == 0 && at + SHARE_ENTRY_BYTES <= io.filled; at += SHARE_ENTRY_BYTES) {
		struct share_entry e;
		r = share_entry_decode(page + at, &e);
		if (r == 0 && e.header.segment <= last)
			r = -EBADMSG; /* ids grow, or it would go on for ever */
		last = e.header.segment;
		if (r == 0)
			r = entry(arg, p, &e);
	}
	if (r == 0 && io.next && (io.next < last || io.next <= *after))
		r = -EBADMSG;
	*after = io.next;
	return r;
}

int peer_list(struct peer *p, int (*entry)(void *arg, struct peer *p, const struct share_entry *e), void *arg)
{
	uint8_t *page = env_alloc_aligned(SHARE_LIST_BYTES);
	uint64_t after = 0;
	int r = page ? 0 : -ENOMEM;
	do
		r = r ? r : list_page(p, page, &after, entry, arg);
	while (r == 0 && after);
	free(page);
	return r;
}
