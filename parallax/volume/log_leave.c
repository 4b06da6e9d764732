/* The log leaves open segments that are badly placed, as after a failure (log_mend.c): they are cut and it goes on in others, also when
 * nothing is written; what was in them is sealed then, so that servers can make the copies where they belong. It leaves
 *
 *   a segment with a copy on a server where nothing belongs any more: one that drains, is lost or gave groups to another;
 *   one with fewer copies in use than there could be, for instance because it was made while a server was away that is back now.
 *
 * All of that is looked at every second, in memory. To leave needs a moment's wait (all of a server's users see it come back at the same time), a
 * server that answers and has room, and that no group has too few servers: else the log, and with it who reads, would
 * wait for one. What leaving doesn't make better (a server that takes nothing) is tried again later and later. */
#include <errno.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/volume/volume_private.h"

#define LOOK_NS NS_PER_S
#define SETTLE_NS (2 * NS_PER_S)
#define PAUSE_MIN_NS (5 * NS_PER_S)
#define PAUSE_MAX_NS (300 * NS_PER_S)
enum { LOOKS_PER_CATALOG = 16 }; /* servers may have other addresses, or room again */

static bool ends(const struct volume *v) { return v->closing || v->close_by_ns || v->failed || v->env->dead; }
static bool is_open(const struct log_segment *g) { return !g->cut && !g->finished; }

/* Connections with those that have the log's end, and those where it belongs, are kept, also while nothing is written: that they are lost, or come back, is
 * seen so, and the next write doesn't wait. */
static void keep_connected(struct volume *v)
{
	link_for(l, &v->log.segments) {
		const struct log_segment *g = container_of(l, struct log_segment, link);
		for (uint32_t i = 0; i < g->meta.ensemble_count; i++)
			peer_want(g->peers[i]);
		copies_want(v->copies, g->meta.id, v->meta.replicas);
	}
}

/* ---- servers that were restarted ---- */

/* Their copies take no more appends, but as long as none comes they may be as good as any. */
static bool is_restarted(const struct log_segment *g, uint32_t i)
{
	return peer_connected(g->peers[i]) && g->peers[i]->server->incarnation != g->meta.ensemble[i].incarnation;
}

static bool is_asked(const struct log_segment *g, uint32_t i) { return g->asked[i] == peer_incarnation(g->peers[i]); }

static struct log_segment *find_unasked(struct volume *v, uint32_t *ret_index)
{
	link_for(l, &v->log.segments) {
		struct log_segment *g = container_of(l, struct log_segment, link);
		for (uint32_t i = 0; is_open(g) && i < g->meta.ensemble_count; i++)
			if (is_restarted(g, i) && !is_asked(g, i)) {
				*ret_index = i;
				return g;
			}
	}
	return NULL;
}

static struct log_segment *find_segment(struct volume *v, uint64_t id)
{
	link_for(l, &v->log.segments) {
		struct log_segment *g = container_of(l, struct log_segment, link);
		if (g->meta.id == id)
			return g;
	}
	return NULL;
}

/* Once for each incarnation: has it all still? */
static void ask_restarted(struct volume *v)
{
	uint32_t i;
	for (struct log_segment *g; !ends(v) && !v->log.mending && (g = find_unasked(v, &i));) {
		struct peer *p = g->peers[i];
		uint64_t incarnation = peer_incarnation(p);
		struct segment_io io = { .op = SEGMENT_STAT, .segment = g->meta.id };
		int r = peer_wait(p, &io);
		g = find_segment(v, io.segment);
		if (r < 0 && r != -ENOENT)
			return; /* at the next look */
		if (!g || i >= g->meta.ensemble_count || g->peers[i] != p)
			continue;
		g->asked[i] = incarnation;
		g->whole[i] = r == 0 && io.state == COPY_WHOLE && io.length >= g->acked;
	}
}

/* ---- what is badly placed ---- */

static unsigned in_use(const struct volume *v, const struct log_segment *g)
{
	unsigned n = 0;
	for (uint32_t i = 0; i < g->meta.ensemble_count; i++)
		n += peer_connected(g->peers[i]) && copies_belongs(v->copies, g->meta.id, g->peers[i]) &&
		     (!is_restarted(g, i) || (is_asked(g, i) && g->whole[i]));
	return n;
}

/* R32, and all that will be made there. */
bool log_has_room(const struct volume *v, const struct peer *p)
{
	uint64_t segment = (uint64_t)v->limits.segment_blocks * BLOCK_BYTES, total = p->server->total_bytes;
	uint64_t reserve = MIN(MAX(total / 50, 8 * segment), total / 4);
	return total == 0 || p->server->free_bytes > reserve + (2 + LOG_SEGMENTS_AHEAD) * segment;
}

static unsigned could_have(struct volume *v, const struct log_segment *g)
{
	struct peer *places[META_REPLICAS_MAX];
	unsigned n = copies_connected(v->copies, g->meta.id, v->meta.replicas, places), room = 0;
	for (unsigned i = 0; i < n; i++)
		room += log_has_room(v, places[i]);
	return room;
}

static bool is_short(struct volume *v, const struct log_segment *g)
{
	return is_open(g) && !v->log.full && could_have(v, g) > in_use(v, g) && !PLANTED(leave_nothing_short);
}

static bool is_misplaced(struct volume *v, const struct log_segment *g)
{
	struct peer *places[META_REPLICAS_MAX];
	bool away = false;
	for (uint32_t i = 0; i < g->meta.ensemble_count; i++)
		away |= !copies_belongs(v->copies, g->meta.id, g->peers[i]);
	return is_open(g) && away && copies_connected(v->copies, g->meta.id, v->meta.replicas, places) >= v->meta.min_replicas;
}

static bool lacks_server(struct volume *v, const struct log_segment *g)
{
	struct peer *places[META_REPLICAS_MAX];
	unsigned targets = placement_group_of(&v->copies->map, g->meta.id)->target_count;
	return copies_connected(v->copies, g->meta.id, v->meta.replicas, places) < MIN(targets, v->meta.replicas);
}

static bool any_is(struct volume *v, bool (*is)(struct volume *v, const struct log_segment *g))
{
	link_for(l, &v->log.segments)
		if (is(v, container_of(l, struct log_segment, link)))
			return true;
	return false;
}

/* Connected isn't alive: each server that a short segment lacks says something, and how much room it has. */
static void ask_places(struct volume *v)
{
	struct peer *places[META_REPLICAS_MAX];
	struct segment_io ios[META_REPLICAS_MAX];
	link_for(l, &v->log.segments) {
		const struct log_segment *g = container_of(l, struct log_segment, link);
		if (!is_short(v, g))
			continue;
		unsigned n = copies_connected(v->copies, g->meta.id, v->meta.replicas, places);
		for (unsigned i = 0; i < n; i++)
			ios[i] = (struct segment_io){ .op = SEGMENT_STAT, .segment = g->meta.id };
		peers_wait(places, ios, n);
		return; /* the list may be another one by now */
	}
}

/* Has an open segment no copy there, where one belongs? */
static bool is_wanted(const struct volume *v, const struct peer *p)
{
	link_for(l, &v->log.segments) {
		const struct log_segment *g = container_of(l, struct log_segment, link);
		bool there = false;
		for (uint32_t i = 0; i < g->meta.ensemble_count; i++)
			there |= g->peers[i] == p;
		if (is_open(g) && !there && copies_belongs(v->copies, g->meta.id, p))
			return true;
	}
	return false;
}

/* How much room a server has is known from its answers, and one that had none is asked for nothing else while nothing is written. */
static void ask_full(struct volume *v)
{
	for (unsigned i = 0; i < v->copies->count && !ends(v) && !PLANTED(leave_full_for_ever); i++) {
		struct peer *p = v->copies->peers[i];
		struct segment_io io = { .op = SEGMENT_STAT, .segment = 1 };
		if (peer_connected(p) && !log_has_room(v, p) && is_wanted(v, p))
			peer_wait(p, &io);
	}
}

/* ---- leaving ---- */

static void leave(struct volume *v)
{
	v->counters.leaves++;
	log_trouble(v, -ESTALE);
	while (v->log.mending && !ends(v))
		fiber_cond_wait(&v->env->loop, &v->log.changed);
	if (ends(v))
		return;
	v->checkpoint_wanted = true; /* which deletes the empty ones that were listed there; an idle volume has no other */
	checkpoint_consider(v);
}

/* Is it time? Short ones are left a while after they were first seen, and each time later. */
static bool may_leave_short(struct volume *v)
{
	struct log_leave *s = &v->leave;
	uint64_t now = env_now_ns(v->env);
	if (!s->due_ns) {
		uint64_t settled_ns = now + SETTLE_NS + env_random(v->env) % SETTLE_NS;
		s->due_ns = MAX(settled_ns, s->not_before_ns);
	}
	if (now < s->due_ns)
		return false;
	ask_places(v);
	if (ends(v) || !any_is(v, is_short))
		return false;
	s->pause_ns = now > s->not_before_ns + PAUSE_MAX_NS ? PAUSE_MIN_NS : MIN(MAX(2 * s->pause_ns, PAUSE_MIN_NS), PAUSE_MAX_NS);
	s->not_before_ns = now + s->pause_ns;
	s->due_ns = 0;
	return true;
}

/* A server that was started again may have another disk: what was in vain before is tried anew, soon. */
static void forgive(struct volume *v)
{
	for (unsigned i = 0; i < v->copies->count; i++) {
		struct peer *p = v->copies->peers[i];
		if (!p->fails || !peer_connected(p) || peer_incarnation(p) == p->fails_incarnation || PLANTED(leave_fails_for_ever))
			continue;
		p->fails = 0;
		v->leave.pause_ns = v->leave.not_before_ns = v->leave.due_ns = 0;
	}
}

static void look(struct volume *v)
{
	if (v->leave.reads && copies_read_map(v->copies) == 0)
		v->leave.reads--;
	forgive(v);
	if (ends(v) || v->log.mending || v->copies->map.revision == 0)
		return;
	ask_restarted(v);
	bool is_bad = any_is(v, is_misplaced), shorter = any_is(v, is_short);
	if (!shorter)
		v->leave.due_ns = 0;
	if (ends(v) || v->log.mending || !(is_bad || shorter) || !copies_enough(v->copies, v->meta.replicas, v->meta.min_replicas))
		return;
	if ((is_bad || may_leave_short(v)) && !v->log.mending && !ends(v))
		leave(v);
}

static void nap(struct volume *v)
{
	struct log_leave *s = &v->leave;
	if (!s->hurry) {
		job_init(&s->job, &v->env->loop);
		timer_start(v->env, &s->timer, LOOK_NS, &s->job);
		fiber_wait(&s->job);
	}
	s->hurry = false;
}

static void fiber_ends(struct volume *v)
{
	v->log.fibers--;
	fiber_cond_wake(&v->log.changed);
}

static int leaver(void *arg)
{
	struct volume *v = arg;
	for (unsigned looks = 1; !ends(v); looks++) {
		nap(v);
		keep_connected(v);
		if (looks % LOOKS_PER_CATALOG == 0 && any_is(v, lacks_server))
			copies_look(v->copies);
		if (looks % LOOKS_PER_CATALOG == 0)
			ask_full(v);
		if (!ends(v))
			look(v);
	}
	fiber_ends(v);
	return 0;
}

/* Never busy, so that no change is missed. Read twice, because what is read while it changes may be the one before. */
static int watcher(void *arg)
{
	struct volume *v = arg;
	struct catalog_watch *watch = NULL;
	if (catalog_watch(v->catalog, PLACEMENT_KEY, &v->map_changed, &watch) < 0)
		watch = NULL; /* no memory; it will be seen when segments are full */
	while (!ends(v)) {
		fiber_cond_wait(&v->env->loop, &v->map_changed);
		v->leave.reads = v->catalog->ops->watch ? 2 : 1; /* without watches it wakes every second anyhow */
		v->leave.hurry = true;
		timer_cancel(v->env, &v->leave.timer);
	}
	catalog_watch_end(watch);
	fiber_ends(v);
	return 0;
}

static int begin(struct volume *v, int (*run)(void *arg))
{
	v->log.fibers++;
	int r = fiber_start(&v->env->loop, run, v, NULL);
	if (r < 0)
		v->log.fibers--;
	return r;
}

int log_leave_start(struct volume *v)
{
	if (v->meta.embedded)
		return 0;
	timer_init(&v->leave.timer);
	v->leave.reads = 1; /* of what changed since it was read for opening */
	int r = begin(v, watcher);
	return r < 0 ? r : begin(v, leaver);
}
