/* Rebuilding, in rounds. A round looks at some placement groups at a time: what is here, what the peers have, and for each segment
 *
 *     a peer has it sealed, and here is     and it
 *       nothing                             belongs here    ─▶ a copy is made from theirs, unless R31 says that nobody wants it
 *       one that isn't sealed               belongs here    ─▶ it takes the seal, or is replaced if it can't
 *       a broken one                        belongs here    ─▶ it is replaced
 *       a sealed one                                        ─▶ trims that it missed are taken
 *       any                                 doesn't         ─▶ it is deleted when all where it belongs say, under this map, that they have it
 *
 * Where there is no room for a copy none is made in that round, but all else is done: what goes makes some.
 *
 * First all is looked at, so that there is an estimate; then, if there is anything to do, again, and that is done. What had nothing to do when it was looked at, and
 * hasn't changed since, isn't looked at (seen.h). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "server/keeper_private.h"

enum {
	ASK_ALL = 64,        /* servers are asked each time; more, each … */
	ASK_ALL_ROUNDS = 64, /* … so many rounds */
	CHUNKS = 8,          /* of the groups, one after the other, … */
	CHUNK_COPIES = 8192, /* … where there are more copies here than that: so much less is in memory at a time */
	KNOWN_MAX = 1 << 18, /* volumes */
};
#define FIRST_NS (500 * NS_PER_MS)

struct round {
	struct keeper *k;
	bool acts, asks_all;
	uint64_t revision;
	struct wanted *wanted;      /* lazy */
	int wanted_status;          /* not 0: the catalog doesn't answer */
	struct found_list list;
	bool incomplete, left;      /* somebody wasn't asked; something is left to do */
	bool full;                  /* there is no room for a copy: none is made any more */
	uint64_t silent;
	struct group_set held;
	unsigned chunk;             /* groups */
	struct group_set looked;    /* of those, at which it looked */
	bool unsure;                /* what the catalog said of a segment may be otherwise the next time */
	uint64_t copies, unsealed, misplaced, missing, missing_bytes;
};

/* ---- what is where ---- */

static const uuid *target_id(const struct keeper *k, const struct placement_group *g, unsigned i) { return &k->copies->map.servers[g->target[i]].id; }

/* Which of a group's targets we are; META_REPLICAS_MAX: none. */
static unsigned my_place(const struct keeper *k, const struct placement_group *g)
{
	for (unsigned i = 0; i < g->target_count; i++)
		if (memcmp(target_id(k, g, i), &k->dir->id, sizeof(uuid)) == 0)
			return i;
	return META_REPLICAS_MAX;
}

static int by_id(const void *a, const void *b)
{
	const struct found *x = a, *y = b;
	if (x->e.header.segment != y->e.header.segment)
		return x->e.header.segment < y->e.header.segment ? -1 : 1;
	if (!x->peer != !y->peer)
		return x->peer ? 1 : -1; /* ours first */
	return x->peer ? memcmp(&x->peer->id, &y->peer->id, sizeof(uuid)) : 0;
}

/* Whom to ask: in a large cluster not all each time, but who is, or was, a server of one of those groups. Others give nothing a place by their maps;
 * what they have is from before they left the map, and came back. */
static void find_members(const struct placement *map, const struct group_set *groups, bool *members)
{
	for (unsigned g = 0; g < groups->count && g < map->group_count; g++) {
		const struct placement_group *p = &map->groups[g];
		for (unsigned i = 0; group_in(groups, g) && i < (unsigned)p->target_count + p->former_count; i++)
			members[i < p->target_count ? p->target[i] : p->former[i - p->target_count]] = true;
	}
}

/* The i-th server of the map, if it is to be asked. */
static struct peer *other(const struct round *r, const bool *members, uint32_t i)
{
	struct peer *p = members[i] ? copies_placed(r->k->copies, i) : NULL;
	return p && memcmp(&p->id, &r->k->dir->id, sizeof p->id) != 0 ? p : NULL;
}

static bool same_map(const struct round *r) { return r->k->copies->map.revision == r->revision; }

static void note_silent(struct round *r, uint32_t i, uint64_t *silent)
{
	bool lost = r->k->copies->map.servers[i].state == PLACED_LOST; /* nobody waits for it */
	r->incomplete |= !lost;
	*silent += !lost;
}

static bool is_end(int status) { return status == -ENOMEM || status == -ESHUTDOWN; }

/* What changed there: what of `mine` isn't as it was when it was looked at goes into r->looked. */
static int ask_peers(struct round *r, const bool *members, const struct group_set *mine, uint64_t *silent)
{
	struct copies *c = r->k->copies;
	struct seen *seen = &r->k->seen;
	for (uint32_t i = 0; i < c->map.server_count; i++) { /* all at once */
		struct peer *p = other(r, members, i);
		if (p)
			peer_want(p);
	}
	for (uint32_t i = 0; same_map(r) && i < c->map.server_count; i++) {
		struct peer *p = other(r, members, i);
		if (!p)
			continue;
		struct group_set news = *mine;
		int s = peer_usable(p) ? seen_ask(r->k, &seen->servers[i], p) : -ENOTCONN;
		if (is_end(s))
			return s;
		if (!same_map(r))
			break;
		if (s < 0) {
			note_silent(r, i, silent);
			continue;
		}
		groups_remove(&news, &seen->servers[i].groups);
		groups_add(&r->looked, &news);
	}
	return 0;
}

/* Of those groups what the others have. Who doesn't tell isn't part of what is found out. */
static int list_peers(struct round *r, const bool *members, const struct group_set *groups, uint64_t *silent)
{
	struct copies *c = r->k->copies;
	struct seen *seen = &r->k->seen;
	for (uint32_t i = 0; same_map(r) && i < c->map.server_count; i++) {
		struct peer *p = other(r, members, i);
		struct seen_server *v = &seen->servers[i];
		size_t before = r->list.count;
		groups_remove(&v->groups, groups);
		if (!p || !seen_answered(seen, v))
			continue;
		int s = keeper_list(r->k, p, groups, &r->list);
		if (is_end(s))
			return s;
		if (!same_map(r))
			break;
		if (s < 0) {
			r->list.count = before;
			note_silent(r, i, silent);
		} else if (v->index) {
			groups_add(&v->groups, groups);
		}
	}
	return 0;
}

/* Nothing is known of them until all of it was looked at. */
static void forget_groups(struct round *r, const struct group_set *groups)
{
	for (unsigned g = 0; g < r->held.count; g++)
		if (group_in(groups, g))
			r->k->seen.of[g] = (struct seen_group){ 0 };
}

static int look_at_peers(struct round *r, const struct group_set *mine)
{
	struct copies *c = r->k->copies;
	struct group_set own = r->looked, here;
	bool members[PLACEMENT_SERVERS_MAX] = { false };
	uint64_t silent = 0;
	if (c->map.server_count <= ASK_ALL || r->asks_all)
		memset(members, true, c->map.server_count);
	else
		find_members(&c->map, mine, members);
	int s = ask_peers(r, members, mine, &silent);
	struct group_set groups = r->looked; /* but those that are nothing to us */
	for (unsigned i = 0; i < sizeof groups.bits; i++)
		groups.bits[i] &= mine->bits[i];
	here = r->looked;
	groups_remove(&here, &own);
	forget_groups(r, &here);
	if (s == 0 && same_map(r) && groups_any(&here))
		s = keeper_list(r->k, NULL, &here, &r->list);
	if (s == 0 && groups_any(&groups))
		s = list_peers(r, members, &groups, &silent);
	r->silent = MAX(r->silent, silent);
	return s;
}

/* What is here of the groups that are looked at; of the others it is known. */
static void count_own(struct round *r, unsigned first, unsigned end)
{
	struct seen *seen = &r->k->seen;
	for (size_t i = 0; i < r->list.count; i++) {
		const struct found *f = &r->list.entries[i];
		struct seen_group *of = &seen->of[placement_group_number(seen->groups, f->e.header.segment)];
		of->copies += !f->peer;
		of->unsealed += !f->peer && !f->e.sealed;
	}
	for (unsigned g = first; g < end; g++) {
		r->copies += seen->of[g].copies;
		r->unsealed += seen->of[g].unsealed;
		if (seen->of[g].copies)
			group_add(&r->held, g);
	}
}

/* Fills the list with all copies in groups from `first` on that concern us, those that belong here, or of which we have any, but for groups of which it is known that
 * there is nothing to do. */
static int look(struct round *r, unsigned first)
{
	struct seen *seen = &r->k->seen;
	struct seen_server *own = seen_own(seen);
	struct group_set mine = { .count = r->held.count };
	unsigned end = first + r->chunk;
	r->looked = mine;
	for (unsigned g = first; g < end; g++) {
		if (!seen->of[g].idle || !group_in(&own->groups, g))
			group_add(&r->looked, g);
		else if (seen->of[g].copies)
			group_add(&mine, g);
		if (my_place(r->k, &r->k->copies->map.groups[g]) < META_REPLICAS_MAX)
			group_add(&mine, g);
	}
	r->list.count = 0;
	forget_groups(r, &r->looked);
	int s = groups_any(&r->looked) ? keeper_list(r->k, NULL, &r->looked, &r->list) : 0;
	for (size_t i = 0; i < r->list.count; i++)
		group_add(&mine, placement_group_number(mine.count, r->list.entries[i].e.header.segment));
	if (s == 0 && groups_any(&mine) && same_map(r))
		s = look_at_peers(r, &mine);
	if (s == 0 && own->index)
		groups_add(&own->groups, &r->looked);
	if (s == 0)
		count_own(r, first, end);
	if (s == 0 && r->list.count)
		qsort(r->list.entries, r->list.count, sizeof *r->list.entries, by_id);
	return s;
}

/* They were looked at, and nothing was done that may have changed what is there. */
static void conclude(struct round *r, unsigned first)
{
	for (unsigned g = first; g < first + r->chunk && !r->acts; g++)
		if (group_in(&r->looked, g))
			r->k->seen.of[g].idle = true;
}

/* ---- one segment ---- */

struct segment_look {
	const struct found *own;     /* NULL: nothing is here */
	struct found *sources;       /* sealed, whole, all alike */
	size_t count;
	unsigned place;              /* ours in its group */
	const struct placement_group *group;
};

static bool alike(const struct share_entry *a, const struct share_entry *b)
{
	return a->length == b->length && a->prev == b->prev && a->header.epoch == b->header.epoch && a->header.salt == b->header.salt &&
	       memcmp(&a->header.volume, &b->header.volume, sizeof(uuid)) == 0;
}

/* The catalog that doesn't answer isn't asked again in this round. */
static int learn(struct round *r, const struct share_entry *e, struct wanted_volume **ret)
{
	int s = r->wanted_status ? r->wanted_status : wanted_learn(r->wanted, &e->header.volume, ret);
	r->wanted_status = s == -ENOENT ? 0 : s;
	return s;
}

/* How many copies its volume has; 0: it is gone, or not known. It never changes, so most rounds need not ask the catalog. */
static uint32_t replicas_of(struct round *r, const struct share_entry *e)
{
	struct known_volume *known;
	HASH_FIND(hh, r->k->known, &e->header.volume, sizeof(uuid), known);
	if (known)
		return known->replicas;
	struct wanted_volume *v;
	uint32_t replicas = learn(r, e, &v) == 0 && !v->embedded ? v->replicas : 0;
	if (HASH_COUNT(r->k->known) >= KNOWN_MAX)
		rebuild_forget(r->k);
	if (replicas && (known = calloc(1, sizeof *known))) {
		known->volume = e->header.volume;
		known->replicas = replicas;
		HASH_ADD(hh, r->k->known, volume, sizeof known->volume, known);
	}
	return replicas;
}

void rebuild_forget(struct keeper *k)
{
	struct known_volume *v, *next;
	HASH_ITER(hh, k->known, v, next) {
		HASH_DEL(k->known, v);
		free(v);
	}
}

/* What is known here to be free those that keep the segment are to know, too: its owner was told so, and has forgotten it. From
 * now on nobody tells it to us (server.c). */
static int hand_frees(struct round *r, const struct share_entry *e, struct peer *const *peers, unsigned n)
{
	uint8_t bits[SEGMENT_BITMAP_BYTES];
	struct segment_io own = { .op = SEGMENT_STAT, .segment = e->header.segment, .free_bits = bits }, ios[META_REPLICAS_MAX];
	int s = keeper_own(r->k, &own);
	if (s < 0 || own.trimmed == 0 || PLANTED(rebuild_frees_go))
		return s;
	for (unsigned i = 0; i < n; i++)
		ios[i] = (struct segment_io){ .op = SEGMENT_TRIM, .segment = e->header.segment, .blocks = e->length, .trim = bits };
	return peers_wait(peers, ios, n) == n ? 0 : -EAGAIN;
}

/* Under one map: asked, answered, and begun to be deleted. */
static int remove_misplaced(struct round *r, const struct segment_look *l, unsigned replicas)
{
	struct keeper *k = r->k;
	const struct share_entry *e = &l->sources[0].e;
	struct peer *peers[META_REPLICAS_MAX] = { NULL };
	struct segment_io ios[META_REPLICAS_MAX];
	unsigned n = MIN((unsigned)l->group->target_count, replicas);
	if (k->copies->map.revision != r->revision)
		return -ESTALE;
	for (unsigned i = 0; i < n; i++) {
		peers[i] = copies_peer(k->copies, target_id(k, l->group, i));
		if (!peers[i] || !peer_usable(peers[i]))
			return -ENOTCONN;
		ios[i] = (struct segment_io){ .op = SEGMENT_HOLDS, .segment = e->header.segment, .map = r->revision, .block = e->length, .crc = e->prev };
	}
	unsigned good = peers_wait(peers, ios, n);
	if (n == 0 || (good < n && !PLANTED(misplaced_goes_early)) || k->copies->map.revision != r->revision)
		return -EAGAIN;
	k->rules.going = e->header.segment;
	int s = hand_frees(r, e, peers, n);
	if (s == 0 && k->copies->map.revision != r->revision)
		s = -EAGAIN;
	struct segment_io io = { .op = SEGMENT_DELETE, .segment = e->header.segment };
	if (s == 0)
		s = keeper_own(k, &io);
	k->rules.going = 0;
	k->status.removed += s == 0;
	return s;
}

static int take_seal(struct round *r, const struct segment_look *l)
{
	const struct share_entry *e = &l->sources[0].e;
	struct segment_io io = { .op = SEGMENT_SEAL, .segment = e->header.segment, .epoch = UINT64_MAX, .block = e->length, .crc = e->prev };
	int s = keeper_own(r->k, &io);
	r->k->status.sealed += s == 0;
	return s ? s : pull_frees(r->k, l->sources, l->count);
}

static int make_copy(struct round *r, const struct segment_look *l)
{
	struct keeper *k = r->k;
	struct wanted_volume *v;
	if (learn(r, &l->sources[0].e, &v) < 0 && r->wanted_status)
		return r->wanted_status;
	if (wanted_ask(r->wanted, &l->sources[0].e.header) == WANTED_NO)
		return 0;
	int s = pull_copy(k, l->sources, l->count);
	k->status.rebuilt += s == 0;
	bool failed = s < 0 && s != -ESHUTDOWN && s != -EEXIST;
	k->status.failures += failed;
	k->status.failing = failed ? s : 0;
	return s == -EEXIST ? 0 : s;
}

static size_t differing(const struct segment_look *l)
{
	size_t n = 0;
	for (size_t i = 0; i < l->count; i++)
		n += l->sources[i].e.trimmed && l->sources[i].e.trim_crc != l->own->e.trim_crc;
	return n;
}

/* It isn't ours to have. */
static int act_misplaced(struct round *r, const struct segment_look *l, unsigned replicas)
{
	r->misplaced++;
	return r->acts ? remove_misplaced(r, l, replicas) : -EAGAIN;
}

static int act_missing(struct round *r, const struct segment_look *l)
{
	uint32_t blocks = l->sources[0].e.length - l->sources[0].e.trimmed;
	if (!r->acts) {
		r->missing++;
		r->missing_bytes += (uint64_t)blocks * BLOCK_BYTES;
		return -EAGAIN;
	}
	int s = -EINVAL;
	if (l->own && l->own->e.whole)
		s = take_seal(r, l);
	if (s < 0)
		s = r->full ? -ENOSPC : make_copy(r, l);
	r->full |= s == -ENOSPC;
	if (s == 0)
		r->k->status.missing -= r->k->status.missing > 0;
	return s;
}

/* 0: it is as it should be. */
static int act(struct round *r, const struct segment_look *l)
{
	if (l->count == 0)
		return 0;
	bool sealed = l->own && l->own->e.sealed && l->own->e.whole;
	if (sealed && !alike(&l->own->e, &l->sources[0].e))
		return -EUCLEAN; /* I2 is broken; nothing is done about it here */
	int united = 0;
	if (sealed && differing(l)) {
		united = r->acts ? pull_frees(r->k, l->sources, l->count) : -EAGAIN;
		r->k->status.united += r->acts && united == 0;
	}
	if (l->place == META_REPLICAS_MAX && !l->own)
		return 0;
	if (sealed && l->place == 0)
		return united;
	if (l->place == 0)
		return act_missing(r, l);
	uint32_t replicas = replicas_of(r, &l->sources[0].e);
	r->unsure |= replicas == 0;
	if (replicas == 0)
		return r->wanted_status ? r->wanted_status : united; /* gc's */
	if (l->place >= replicas)
		return l->own ? act_misplaced(r, l, replicas) : united;
	return sealed ? united : act_missing(r, l);
}

/* The sources come first of what the peers have. */
static void pick_sources(struct segment_look *l, struct found *entries, size_t count)
{
	l->sources = entries;
	for (size_t i = 0; i < count; i++) {
		struct found f = entries[i];
		if (!f.e.sealed || !f.e.whole || (l->count && !alike(&f.e, &l->sources[0].e)))
			continue;
		entries[i] = entries[l->count];
		entries[l->count++] = f;
	}
}

static int act_on_list(struct round *r)
{
	for (size_t i = 0, end; i < r->list.count && r->k->copies->map.revision == r->revision; i = end) {
		struct found *f = &r->list.entries[i];
		uint64_t id = f->e.header.segment;
		for (end = i; end < r->list.count && r->list.entries[end].e.header.segment == id;)
			end++;
		struct segment_look l = { .own = f->peer ? NULL : f, .group = placement_group_of(&r->k->copies->map, id) };
		l.place = my_place(r->k, l.group);
		size_t first = i + (l.own != NULL);
		pick_sources(&l, r->list.entries + first, end - first);
		r->unsure = false;
		int s = act(r, &l);
		r->left |= s != 0;
		if (s != 0 || r->unsure)
			group_remove(&r->looked, placement_group_number(r->looked.count, id));
		if (keeper_ends(r->k))
			return -ESHUTDOWN;
	}
	return 0;
}

/* ---- rounds ---- */

static int go_round(struct round *r)
{
	int s = seen_begin(&r->k->seen, &r->k->copies->map);
	r->held.count = r->k->copies->map.group_count;
	r->chunk = r->held.count / (r->k->status.copies > CHUNK_COPIES ? CHUNKS : 1);
	r->asks_all = r->k->status.rounds % ASK_ALL_ROUNDS == 0;
	r->wanted = wanted_open_lazy(r->k->catalog, r->k->copies);
	s = r->wanted ? s : -ENOMEM;
	if (s == 0)
		s = seen_ask(r->k, seen_own(&r->k->seen), NULL);
	for (unsigned g = 0; s == 0 && g < r->held.count; g += r->chunk) {
		s = look(r, g);
		if (s == 0)
			s = act_on_list(r);
		if (s == 0 && same_map(r))
			conclude(r, g);
	}
	if (s == 0 && r->k->copies->map.revision != r->revision)
		s = -ESTALE;
	free(r->list.entries);
	r->list = (struct found_list){ 0 };
	wanted_close(r->wanted);
	r->wanted = NULL;
	return s;
}

static void publish(struct keeper *k, const struct round *r)
{
	struct keeper_status *s = &k->status;
	bool same = s->map == r->revision && memcmp(s->held, r->held.bits, sizeof s->held) == 0;
	s->held_rounds = same ? s->held_rounds + 1 : 1;
	memcpy(s->held, r->held.bits, sizeof s->held);
	s->map = r->revision;
	s->copies = r->copies;
	s->unsealed = r->unsealed;
	s->silent = r->silent;
	s->misplaced = r->misplaced;
	s->missing = r->missing;
	s->missing_bytes = r->missing_bytes;
	s->idle = !r->left;
	s->settled = s->idle && !r->incomplete;
}

static void round_once(struct keeper *k)
{
	int r = copies_read_map(k->copies);
	if (r < 0 || k->copies->map.revision == 0)
		return;
	if (k->status.rounds == 0) /* they are being connected to */
		fiber_sleep(&k->env->loop, FIRST_NS);
	struct round plan = { .k = k, .revision = k->copies->map.revision };
	if (go_round(&plan) < 0)
		return;
	publish(k, &plan);
	struct round doing = { .k = k, .acts = true, .revision = plan.revision };
	if (plan.left && k->copies->map.revision == plan.revision) {
		k->status.idle = go_round(&doing) == 0 && !doing.left;
		k->status.settled = k->status.idle && !doing.incomplete;
	}
	k->status.rounds++;
}

int rebuild_fiber(void *arg)
{
	struct keeper *k = arg;
	while (!keeper_ends(k)) {
		round_once(k);
		keeper_nap(k, &k->rebuild_nap, k->options.round_ns);
	}
	seen_forget(&k->seen);
	k->fibers--;
	fiber_cond_wake(&k->ended);
	return 0;
}
