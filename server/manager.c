/* The manager: one server, elected through the catalog, changes the map of servers:
 *
 *     an operator drains it ─▶ draining          it doesn't answer for long ─▶ lost ─▶ it answers again ─▶ in
 *     an operator removed it, or its key is gone ─▶ out of the map
 *     a former server of a group says, twice and under this map, that it has nothing of it any more ─▶ it isn't former any more
 *
 * Elected is who holds the key `manager` with his lease; where the catalog has no leases (a file, so all are on one host) the first of
 * the map that answers. Two at a time do no harm: each change compares the map with the one it was made from, and follows from
 * what all can see.
 *
 * None is lost when half of the others don't answer either, nor the last but one place: then nothing would be gained by it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "server/keeper_private.h"

enum { LEASE_S = 10 };
#define FORGET_NS (30 * NS_PER_S) /* large maps aren't written more often for that alone: all read them */

/* ---- election ---- */

static bool is_key_mine(struct keeper *k, const struct catalog_value *v)
{
	return v->length == sizeof k->dir->id.bytes && memcmp(v->bytes, k->dir->id.bytes, v->length) == 0;
}

/* With leases. */
static bool elected(struct keeper *k)
{
	struct catalog_value v;
	int r = catalog_get(k->catalog, META_MANAGER, &v);
	bool mine = r == 0 && is_key_mine(k, &v);
	catalog_value_free(&v);
	if (r != -ENOENT)
		return mine && catalog_lease_id(k->lease);
	struct catalog_txn *t = malloc(sizeof *t);
	if (t && catalog_lease_id(k->lease)) {
		catalog_txn_init(t);
		catalog_txn_compare(t, META_MANAGER, 0);
		catalog_txn_put(t, META_MANAGER, k->dir->id.bytes, sizeof k->dir->id.bytes);
		catalog_txn_lease(t, k->lease);
		mine = catalog_txn(k->catalog, t, NULL) == 0;
	}
	free(t);
	return mine;
}

static bool is_first(struct keeper *k)
{
	const struct placement *map = &k->copies->map;
	for (uint32_t i = 0; i < map->server_count; i++) {
		if (memcmp(&map->servers[i].id, &k->dir->id, sizeof(uuid)) == 0)
			return true;
		struct peer *p = copies_peer(k->copies, &map->servers[i].id);
		if (p && peer_reach(p))
			return false;
	}
	return false;
}

static bool is_manager(struct keeper *k)
{
	if (!k->lease && !k->no_leases)
		k->no_leases = catalog_lease(k->catalog, LEASE_S, NULL, &k->lease) == -ENOTSUP;
	return k->lease ? elected(k) : k->no_leases && is_first(k);
}

/* ---- who is there ---- */

struct view {
	struct keeper *k;
	struct placement *map;          /* as the catalog has it */
	uint64_t revision;              /* of its key */
	struct placed_server servers[PLACEMENT_SERVERS_MAX];
	uint32_t at[PLACEMENT_SERVERS_MAX]; /* of each of them, in the map */
	bool answers[PLACEMENT_SERVERS_MAX];
	unsigned count, present, silent; /* of those that aren't lost */
	struct { bool there, draining, removed; } said[PLACEMENT_SERVERS_MAX]; /* by their keys; of each in the map */
};

/* Since when it is silent: nobody is, of whom that isn't known for as long as this is the manager. */
static bool silent_for_long(struct keeper *k, struct peer *p, bool answers)
{
	uint64_t now = env_now_ns(k->env);
	if (answers || p->heard_ns < k->manager_ns)
		p->heard_ns = now;
	return now - p->heard_ns >= k->options.lost_ns;
}

/* The manager is connected with all: who is lost is seen by that. */
static bool is_heard(struct peer *p)
{
	peer_want(p);
	return peer_usable(p) && peer_connected(p);
}

static enum placed_state state_of(struct view *v, const struct placed_server *s, bool draining, bool *ret_answers, bool *ret_late)
{
	struct peer *p = copies_peer(v->k->copies, &s->id);
	*ret_answers = p && is_heard(p);
	*ret_late = p && silent_for_long(v->k, p, *ret_answers);
	if (s->state == PLACED_LOST && !*ret_answers)
		return PLACED_LOST;
	return draining ? PLACED_DRAINING : PLACED_IN;
}

/* Are there two domains, or more, without it? */
static bool two_domains(const struct view *v, unsigned but)
{
	const struct placed_server *one = NULL;
	for (unsigned i = 0; i < v->count; i++) {
		if (i == but || v->servers[i].state != PLACED_IN)
			continue;
		if (one && !placement_same_domain(one, &v->servers[i]))
			return true;
		one = &v->servers[i];
	}
	return false;
}

static int note_said(void *arg, const char *key, const struct catalog_value *value)
{
	struct view *v = arg;
	struct meta_server m;
	uuid id;
	if (!meta_server_id(key, &id))
		return 0;
	uint32_t i = 0;
	while (i < v->map->server_count && memcmp(&v->map->servers[i].id, &id, sizeof id) != 0)
		i++;
	if (i == v->map->server_count)
		return 0;
	int r = meta_server_decode(value->bytes, value->length, &m);
	v->said[i].there = r == 0;
	v->said[i].draining = m.draining;
	v->said[i].removed = m.removed;
	return r;
}

/* What the servers should be. 0 or -errno: then it isn't known. */
static int view_fill(struct view *v)
{
	bool late[PLACEMENT_SERVERS_MAX] = { false };
	int r = placement_read(v->k->catalog, v->map, &v->revision);
	if (r == 0)
		r = catalog_list(v->k->catalog, "server/", note_said, v);
	for (uint32_t i = 0; r == 0 && i < v->map->server_count; i++) {
		struct placed_server *s = &v->servers[v->count];
		if (!v->said[i].there || v->said[i].removed)
			continue;
		*s = v->map->servers[i];
		s->state = state_of(v, s, v->said[i].draining, &v->answers[v->count], &late[v->count]);
		v->present += s->state != PLACED_LOST;
		v->silent += s->state != PLACED_LOST && !v->answers[v->count];
		v->at[v->count++] = i;
	}
	for (unsigned i = 0; r == 0 && i < v->count; i++)
		if (late[i] && v->servers[i].state != PLACED_LOST && 2 * v->silent < v->present && two_domains(v, i))
			v->servers[i].state = PLACED_LOST;
	return r;
}

static bool differs(const struct view *v)
{
	bool d = v->count != v->map->server_count;
	for (unsigned i = 0; i < v->count; i++)
		d |= v->servers[i].state != v->map->servers[v->at[i]].state;
	return d;
}

/* ---- former servers ---- */

/* Which groups a server has nothing of, by its own word, under this map. */
static bool ask_held(struct view *v, unsigned i, uint8_t held[PLACEMENT_GROUPS_MAX / 8])
{
	struct segment_status s;
	struct peer *p = copies_peer(v->k->copies, &v->servers[i].id);
	if (!p || peer_status(p, false, &s) < 0 || s.map != v->map->revision || s.held_rounds < 2)
		return false;
	memcpy(held, s.held, sizeof s.held);
	return true;
}

static bool forget_formers(struct view *v)
{
	bool changed = false, former[PLACEMENT_SERVERS_MAX] = { false };
	for (unsigned g = 0; g < v->map->group_count; g++)
		for (unsigned f = 0; f < v->map->groups[g].former_count; f++)
			former[v->map->groups[g].former[f]] = true;
	for (unsigned i = 0; i < v->count; i++) {
		uint8_t held[PLACEMENT_GROUPS_MAX / 8], gone[PLACEMENT_SERVERS_MAX / 8] = { 0 };
		if (!former[v->at[i]] || !ask_held(v, i, held))
			continue;
		gone[v->at[i] / 8] |= (uint8_t)(1u << v->at[i] % 8);
		for (unsigned g = 0; g < v->map->group_count; g++)
			if (!(held[g / 8] >> g % 8 & 1))
				changed |= placement_forget_former(v->map, g, gone);
	}
	return changed;
}

static bool may_forget(const struct view *v)
{
	return placement_version(v->map) == 1 || !v->k->forgot_ns || env_now_ns(v->k->env) - v->k->forgot_ns >= FORGET_NS;
}

/* ---- rounds ---- */

static void manage(struct keeper *k)
{
	struct view *v = calloc(1, sizeof *v);
	if (v)
		v->map = malloc(sizeof *v->map);
	if (v && v->map) {
		v->k = k;
		int r = view_fill(v);
		bool change = r == 0 && v->map->revision && differs(v);
		if (change)
			r = placement_change_known(k->catalog, v->map, v->servers, v->count); /* -EXFULL: what is under way ends first */
		else if (r == 0 && v->map->revision && may_forget(v) && (change = forget_formers(v))) {
			v->map->revision++;
			k->forgot_ns = env_now_ns(k->env);
		}
		if (r == 0 && change && placement_write(k->catalog, v->map, v->revision) == 0)
			keeper_hurry(k);
	}
	if (v)
		free(v->map);
	free(v);
}

/* A manager that died is succeeded as soon as its lease has run out, and a new map known, not at the next look. */
int manager_watch_fiber(void *arg)
{
	static const char *const keys[] = { META_MANAGER, PLACEMENT_KEY };
	struct keeper *k = arg;
	struct catalog_watch *watches[ARRAY_COUNT(keys)] = { NULL };
	k->watched = true;
	for (unsigned i = 0; i < ARRAY_COUNT(keys); i++)
		if (catalog_watch(k->catalog, keys[i], &k->manager_changed, &watches[i]) < 0)
			k->watched = false; /* by looking, then */
	while (k->watched && !keeper_ends(k)) {
		fiber_cond_wait(&k->env->loop, &k->manager_changed);
		keeper_wake(k, &k->manager_nap);
	}
	for (unsigned i = 0; i < ARRAY_COUNT(keys); i++)
		catalog_watch_end(watches[i]);
	k->fibers--;
	fiber_cond_wake(&k->ended);
	return 0;
}

/* Who isn't the manager, and hears of it when there is none, need not look as often. */
static uint64_t look_again_ns(const struct keeper *k)
{
	return k->watched && !k->manager_ns ? MAX(k->options.manager_ns, (uint64_t)LEASE_S * NS_PER_S) : k->options.manager_ns;
}

/* Its directory was copied, and the copy started while nobody here answered. Who writes is connected with one of the two, and what one answers the other
 * lacks: the one that was started last is the server. */
static void look_for_another(struct keeper *k)
{
	char key[META_KEY_BYTES];
	struct meta_server m;
	meta_key_server(&k->dir->id, key);
	if (k->elsewhere || (k->own_key && catalog_same(k->catalog, key, k->own_key) != 0) ||
	    meta_get_server(k->catalog, &k->dir->id, &m, &k->own_key) < 0 || m.incarnation <= k->dir->incarnation)
		return;
	k->elsewhere = true;
	if (k->options.elsewhere)
		k->options.elsewhere(k->options.arg, m.address);
}

int manager_fiber(void *arg)
{
	struct keeper *k = arg;
	while (!keeper_ends(k)) {
		keeper_nap(k, &k->manager_nap, look_again_ns(k));
		if (keeper_ends(k) || copies_read_map(k->copies) < 0)
			continue;
		look_for_another(k);
		bool is = is_manager(k);
		k->manager_ns = !is ? 0 : k->manager_ns ? k->manager_ns : env_now_ns(k->env);
		if (is)
			manage(k);
	}
	catalog_lease_end(k->lease);
	k->lease = NULL;
	k->fibers--;
	fiber_cond_wake(&k->ended);
	return 0;
}
