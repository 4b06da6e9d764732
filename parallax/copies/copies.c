#include "parallax/copies/copies_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/report.h"

#define LOOK_NS NS_PER_S
#define LOOK_AGAIN_NS (10 * NS_PER_S) /* what was measured so long ago, */
enum { LOOK_AGAIN_READS = 256 };   /* … and so many reads, is measured again, by one read */
#define IDLE_LOOK_AGAIN_NS (3600 * NS_PER_S) /* who is idle is connected with to be measured after so long */
#define HINT_NS (60 * NS_PER_S)
#define FAR_NS NS_PER_MS           /* what takes more than so much, and twice as long as elsewhere, is far */
#define SLOW_NS NS_PER_S           /* how long a server that was late is asked last */
enum { LOOK_UP_MAX = 16 };         /* addresses asked for one by one */
enum { SMALL_BLOCKS = 16 };        /* a read of more is measured as so many of that size */

/* ---- who there is ---- */

static struct peer *find(const struct copies *c, const uuid *id)
{
	for (unsigned i = 0; i < c->count; i++)
		if (memcmp(&c->peers[i]->id, id, sizeof *id) == 0)
			return c->peers[i];
	return NULL;
}

struct peer *copies_peer(struct copies *c, const uuid *id)
{
	struct peer *p = find(c, id);
	if (p || c->count == COPIES_PEERS_MAX || !(p = peer_new(c, id)))
		return p;
	c->peers[c->count++] = p;
	copies_look(c);
	return p;
}

struct peer *copies_placed(struct copies *c, uint32_t index)
{
	const uuid *id = &c->map.servers[index].id;
	struct peer *p = c->placed[index];
	if (!p || memcmp(&p->id, id, sizeof *id) != 0) /* of a map before */
		p = c->placed[index] = copies_peer(c, id);
	return p;
}

void copies_look(struct copies *c)
{
	if (!c->catalog || env_now_ns(c->env) < c->look_ns)
		return;
	c->stale = true;
	fiber_cond_wake(&c->changed);
}

/* ---- where segments are ---- */

static bool holds_peer(struct peer *const *list, unsigned count, const struct peer *p)
{
	for (unsigned i = 0; i < count; i++)
		if (list[i] == p)
			return true;
	return false;
}

static bool any(struct peer *p)
{
	(void)p;
	return true;
}

/* Those of the group's first `replicas` servers that are so. */
static unsigned group_peers(struct copies *c, const struct placement_group *g, unsigned replicas, bool (*is)(struct peer *p), struct peer **ret)
{
	unsigned n = 0;
	for (unsigned i = 0; i < g->target_count && i < replicas; i++) {
		struct peer *p = copies_placed(c, g->target[i]);
		if (p && is(p))
			ret[n++] = p;
	}
	return n;
}

static unsigned segment_peers(struct copies *c, uint64_t segment, unsigned replicas, bool (*is)(struct peer *p), struct peer **ret)
{
	if (!c->catalog) {
		ret[0] = c->peers[0];
		return 1;
	}
	return c->map.revision ? group_peers(c, placement_group_of(&c->map, segment), replicas, is, ret) : 0;
}

unsigned copies_place(struct copies *c, uint64_t segment, unsigned replicas, unsigned least, struct peer **ret)
{
	if (c->catalog && c->map.revision == 0)
		copies_look(c);
	peers_try(ret, copies_targets(c, segment, replicas, ret), least);
	return copies_connected(c, segment, replicas, ret);
}

unsigned copies_connected(struct copies *c, uint64_t segment, unsigned replicas, struct peer **ret)
{
	return segment_peers(c, segment, replicas, peer_connected, ret);
}

unsigned copies_targets(struct copies *c, uint64_t segment, unsigned replicas, struct peer **ret) { return segment_peers(c, segment, replicas, any, ret); }

void copies_want(struct copies *c, uint64_t segment, unsigned replicas)
{
	struct peer *peers[META_REPLICAS_MAX];
	unsigned n = copies_targets(c, segment, replicas, peers);
	for (unsigned i = 0; i < n; i++)
		peer_want(peers[i]);
}

void copies_want_log(struct copies *c, const struct meta_log *log)
{
	for (uint32_t i = 0; i < log->segment_count; i++)
		for (uint32_t k = 0; k < log->segments[i].ensemble_count && !log->segments[i].cut; k++) {
			struct peer *p = copies_peer(c, &log->segments[i].ensemble[k].server);
			if (p)
				peer_want(p);
		}
}

static bool group_has(struct copies *c, const struct placement_group *g, unsigned replicas, unsigned least)
{
	struct peer *peers[META_REPLICAS_MAX];
	return group_peers(c, g, replicas, peer_hopeful, peers) >= least;
}

bool copies_enough(struct copies *c, unsigned replicas, unsigned least)
{
	for (unsigned g = 0; g < c->map.group_count; g++)
		if (!group_has(c, &c->map.groups[g], replicas, least))
			return false;
	return true;
}

bool copies_better_elsewhere(struct copies *c, uint64_t segment, unsigned replicas, unsigned least)
{
	if (!c->catalog || c->map.revision == 0 || group_has(c, placement_group_of(&c->map, segment), replicas, least))
		return false;
	for (unsigned g = 0; g < c->map.group_count; g++)
		if (group_has(c, &c->map.groups[g], replicas, least))
			return true;
	return false;
}

/* ---- who is near ---- */

/* Was it not asked for long, in time and in reads? Then one read of those to come is asked of it. */
static bool is_due(const struct peer *p, uint64_t now)
{
	return !p->looked_ns || (now - p->looked_ns >= LOOK_AGAIN_NS && p->copies->asked - p->looked_asked >= LOOK_AGAIN_READS);
}

static void looked(struct peer *p, uint64_t now)
{
	p->looked_ns = now;
	p->looked_asked = p->copies->asked;
}

void peer_asked(struct peer *p)
{
	uint64_t now = env_now_ns(p->copies->env);
	p->copies->asked++;
	if (!is_due(p, now))
		return;
	p->anew = true;
	looked(p, now);
}

static void measure(struct peer *p, uint32_t blocks, uint64_t took_ns)
{
	uint64_t now = env_now_ns(p->copies->env);
	took_ns = MIN(took_ns, now - p->up_ns); /* it waited for the connection before */
	took_ns = MAX(took_ns / div_up(MAX(blocks, 1u), SMALL_BLOCKS), UINT64_C(1));
	p->read_ns = p->anew || !p->read_ns ? took_ns : MAX(p->read_ns - p->read_ns / 8 + took_ns / 8, UINT64_C(1));
	p->anew = false;
	looked(p, now);
}

void peer_answered(struct peer *p, uint32_t blocks, uint64_t took_ns)
{
	p->reads++;
	measure(p, blocks, took_ns);
}

void peer_late(struct peer *p, uint32_t blocks, uint64_t took_ns)
{
	p->slow_ns = env_now_ns(p->copies->env) + SLOW_NS;
	measure(p, blocks, took_ns);
}

static bool peer_slow(const struct peer *p) { return p->slow_ns && p->slow_ns > env_now_ns(p->copies->env); }

/* The same of one that nobody needs, and that isn't near: it is connected with for that only when it might be better. */
static bool is_idle_due(const struct peer *p, uint64_t best_ns, uint64_t now)
{
	return best_ns > FAR_NS && (!p->looked_ns || now - p->looked_ns >= IDLE_LOOK_AGAIN_NS);
}

/* 0: to be measured, 1 near, 2, 3 far. */
static unsigned distance(const struct peer *p, uint64_t best_ns, uint64_t now)
{
	if (peer_idle(p) && !p->near ? is_idle_due(p, best_ns, now) : is_due(p, now))
		return 0;
	if (best_ns && p->read_ns > 2 * best_ns && p->read_ns > best_ns + FAR_NS)
		return 3;
	return p->near ? 1 : 2;
}

/* In place; the order of those that are alike stays. */
static void nearest_first(const struct copies *c, struct peer **peers, unsigned count)
{
	uint64_t now = env_now_ns(c->env), best_ns = 0;
	for (unsigned i = 0; i < count; i++)
		if (peers[i]->read_ns && (!best_ns || peers[i]->read_ns < best_ns))
			best_ns = peers[i]->read_ns;
	for (unsigned i = 1; i < count; i++) {
		struct peer *p = peers[i];
		unsigned d = distance(p, best_ns, now), k = i;
		for (; k > 0 && distance(peers[k - 1], best_ns, now) > d; k--)
			peers[k] = peers[k - 1];
		peers[k] = p;
	}
}

static struct peer *hint_of(const struct copies *c, uint64_t segment)
{
	unsigned at = segment % COPIES_HINTS;
	return c->hints[at].segment == segment && env_now_ns(c->env) < c->hints[at].until_ns ? c->hints[at].peer : NULL;
}

/* Those that nobody should ask first come behind the `n` others. */
static unsigned add_last(struct peer **ret, unsigned n, struct peer *const *list, unsigned count)
{
	for (unsigned i = 0; i < count && n < PLACEMENT_CANDIDATES_MAX; i++)
		ret[n++] = list[i];
	return n;
}

unsigned copies_candidates(struct copies *c, uint64_t segment, struct peer **ret)
{
	if (!c->catalog) {
		ret[0] = c->peers[0];
		return 1;
	}
	struct peer *away[PLACEMENT_CANDIDATES_MAX], *slow[PLACEMENT_CANDIDATES_MAX];
	unsigned n = 0, away_count = 0, slow_count = 0;
	struct peer *hint = hint_of(c, segment);
	if (hint && peer_usable(hint) && !peer_slow(hint))
		ret[n++] = hint;
	unsigned hinted = n, former = n;
	if (c->map.revision == 0)
		return n;
	const struct placement_group *g = placement_group_of(&c->map, segment);
	for (unsigned i = 0; i < (unsigned)g->target_count + g->former_count; i++) {
		struct peer *p = copies_placed(c, i < g->target_count ? g->target[i] : g->former[i - g->target_count]);
		if (i == g->target_count)
			former = n;
		if (!p || holds_peer(ret, n, p))
			continue;
		if (peer_usable(p) && peer_slow(p) && slow_count < PLACEMENT_CANDIDATES_MAX)
			slow[slow_count++] = p;
		else if (peer_usable(p) && n < PLACEMENT_CANDIDATES_MAX)
			ret[n++] = p;
		else if (away_count < PLACEMENT_CANDIDATES_MAX)
			away[away_count++] = p;
	}
	nearest_first(c, ret + hinted, (g->former_count ? former : n) - hinted); /* former ones are asked for what is found on no other */
	n = add_last(ret, n, slow, slow_count);
	return add_last(ret, n, away, away_count);
}

bool copies_belongs(const struct copies *c, uint64_t segment, const struct peer *p)
{
	if (!c->catalog)
		return true;
	const struct placement_group *g = placement_group_of(&c->map, segment);
	for (unsigned i = 0; i < g->target_count; i++)
		if (memcmp(&c->map.servers[g->target[i]].id, &p->id, sizeof p->id) == 0)
			return true;
	return false;
}

int copies_delete(struct copies *c, uint64_t segment, uint64_t epoch)
{
	struct peer *peers[PLACEMENT_CANDIDATES_MAX];
	struct segment_io ios[PLACEMENT_CANDIDATES_MAX];
	unsigned n = copies_candidates(c, segment, peers), asked = 0;
	int r = n ? 0 : -ENOTCONN;
	while (asked < n && peer_usable(peers[asked])) { /* those that aren't come last; one that hangs would be waited for, each time */
		ios[asked] = (struct segment_io){ .op = SEGMENT_DELETE, .segment = segment, .epoch = epoch };
		asked++;
	}
	for (unsigned i = asked; i < n; i++)
		ios[i] = (struct segment_io){ .status = -ENOTCONN };
	unsigned good = peers_wait(peers, ios, asked);
	for (unsigned i = 0; i < n; i++)
		if (good == 0 || !segment_away(ios[i].status) || copies_belongs(c, segment, peers[i]))
			r = r ? r : ios[i].status;
	return r;
}

void copies_found(struct copies *c, uint64_t segment, struct peer *at)
{
	c->hints[segment % COPIES_HINTS].segment = segment;
	c->hints[segment % COPIES_HINTS].peer = at;
	c->hints[segment % COPIES_HINTS].until_ns = env_now_ns(c->env) + HINT_NS;
}

uint64_t copies_smallest(struct copies *c)
{
	uint64_t least = 0;
	for (unsigned i = 0; i < c->count; i++) {
		uint64_t bytes = peer_connected(c->peers[i]) ? c->peers[i]->server->total_bytes : 0;
		least = bytes && (!least || bytes < least) ? bytes : least;
	}
	for (uint32_t i = 0; i < c->map.server_count; i++) { /* those of less than 2 GiB have the same weight */
		uint64_t bytes = c->map.servers[i].weight > 1 ? (uint64_t)c->map.servers[i].weight << 30 : 0;
		least = bytes && (!least || bytes < least) ? bytes : least;
	}
	return least;
}

/* ---- what the catalog says ---- */

static bool is_away(const struct peer *p) { return p->server ? !p->trying && !segment_up(p->server) : !p->address[0]; }

/* FIBER. There is `m` in the catalog of it. */
static void note_address(struct copies *c, struct peer *p, const struct meta_server *m)
{
	bool same = strcmp(m->address, p->address) == 0 && strcmp(m->host, p->host) == 0;
	if (m->address[0] && !same && !c->closing)
		peer_moved(p, m->address, m->host);
}

/* FIBER. Somebody else may have done it meanwhile. */
static void look_up(struct copies *c, struct peer *p)
{
	struct meta_server m = { .incarnation = 0 };
	struct segment_server *old = p->server;
	if (meta_get_server(c->catalog, &p->id, &m, NULL) == 0 && p->server == old)
		note_address(c, p, &m);
}

static int note_entry(void *arg, const char *key, const struct catalog_value *value)
{
	struct copies *c = arg;
	struct meta_server m;
	uuid id;
	struct peer *p = meta_server_id(key, &id) ? find(c, &id) : NULL;
	if (p && is_away(p) && meta_server_decode(value->bytes, value->length, &m) == 0)
		note_address(c, p, &m);
	return 0;
}

/* FIBER. Of all that are away: one by one, or, if they are many, from a list. */
static void look_up_away(struct copies *c)
{
	unsigned away = 0;
	for (unsigned i = 0; i < c->count; i++)
		away += is_away(c->peers[i]);
	if (away > LOOK_UP_MAX) {
		catalog_list(c->catalog, "server/", note_entry, c);
		return;
	}
	for (unsigned i = 0; i < c->count && !c->closing; i++)
		if (is_away(c->peers[i]))
			look_up(c, c->peers[i]);
}

static void note_near(struct copies *c)
{
	for (uint32_t i = 0; i < c->map.server_count; i++) {
		struct peer *p = copies_placed(c, i);
		if (p)
			p->near = c->domain[0] && strcmp(c->map.servers[i].domain, c->domain) == 0;
	}
}

void copies_set_domain(struct copies *c, const char *domain)
{
	snprintf(c->domain, sizeof c->domain, "%s", domain);
	note_near(c);
}

/* It grows with the cluster, and is looked at every few seconds. (Where there are no watches, there is no network between.) */
static bool has_map(struct copies *c, int *ret_status)
{
	int r = c->map_key && c->catalog->ops->watch ? catalog_same(c->catalog, PLACEMENT_KEY, c->map_key) : 0;
	*ret_status = MIN(r, 0);
	return r > 0;
}

int copies_read_map(struct copies *c)
{
	int r;
	if (has_map(c, &r) || r < 0)
		return r;
	uint64_t key = 0;
	struct placement *map = malloc(sizeof *map);
	r = map ? placement_read(c->catalog, map, &key) : -ENOMEM;
	if (r == 0 && map->revision >= c->map.revision) {
		placement_copy(&c->map, map);
		c->map_key = key;
	}
	free(map);
	for (uint32_t i = 0; r == 0 && i < c->map.server_count; i++)
		r = copies_placed(c, i) ? 0 : -ENOMEM;
	note_near(c);
	return r;
}

static int keep(void *arg)
{
	struct copies *c = arg;
	while (!c->closing) {
		if (!c->stale || c->env->dead) {
			fiber_cond_wait(&c->env->loop, &c->changed);
			continue;
		}
		c->stale = false;
		copies_read_map(c);
		look_up_away(c);
		c->look_ns = env_now_ns(c->env) + LOOK_NS;
		c->stale = false;
	}
	c->keeping = false;
	fiber_cond_wake(&c->changed);
	return 0;
}

/* ---- life ---- */

static struct copies *copies_new(struct env *env)
{
	struct copies *c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	c->env = env;
	c->idle_ns = COPIES_IDLE_NS;
	fiber_cond_init(&c->changed);
	timer_init(&c->sweep);
	return c;
}

int copies_open(struct env *env, struct catalog *catalog, struct copies **ret, struct report *report)
{
	struct copies *c = copies_new(env);
	if (!c)
		return -ENOMEM;
	c->catalog = catalog;
	int r = copies_read_map(c);
	if (r < 0)
		report_set(report, r, "the catalog's map of servers can't be read: %s", errno_text(r));
	if (r == 0) {
		r = fiber_start(&env->loop, keep, c, NULL);
		c->keeping = r == 0;
	}
	if (r == 0) {
		r = fiber_start(&env->loop, peers_sweep, c, NULL);
		c->sweeping = r == 0;
	}
	if (r == 0)
		look_up_away(c);
	if (r < 0)
		copies_close(c);
	else
		*ret = c;
	return r;
}

struct copies *copies_embedded(struct env *env, struct segment_server *dir)
{
	struct copies *c = copies_new(env);
	struct peer *p = c ? copies_peer(c, &dir->id) : NULL;
	if (!p) {
		free(c);
		return NULL;
	}
	p->server = dir;
	return c;
}

void copies_cut(struct copies *c)
{
	c->closing = true;
	fiber_cond_wake(&c->changed);
	if (c->catalog)
		peers_end(c->peers, c->count);
}

static bool probing(const struct copies *c)
{
	for (unsigned i = 0; i < c->count; i++)
		if (c->peers[i]->probing)
			return true;
	return false;
}

void copies_close(struct copies *c)
{
	if (!c)
		return;
	c->closing = true;
	fiber_cond_wake(&c->changed);
	timer_cancel(c->env, &c->sweep);
	while (c->keeping || c->sweeping)
		fiber_cond_wait(&c->env->loop, &c->changed);
	if (c->catalog)
		peers_end(c->peers, c->count);
	while (probing(c))
		fiber_cond_wait(&c->env->loop, &c->changed);
	for (unsigned i = 0; i < c->count; i++)
		free(c->peers[i]);
	free(c);
}
