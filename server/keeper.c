#include "server/keeper_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "core/report.h"

enum { LISTED_MAX = 4 << 20 }; /* copies that a peer is believed to have */

/* ---- naps ---- */

void keeper_nap(struct keeper *k, struct nap *nap, uint64_t ns)
{
	if (!nap->hurry && !keeper_ends(k)) {
		job_init(&nap->job, &k->env->loop);
		timer_start(k->env, &nap->timer, ns, &nap->job);
		fiber_wait(&nap->job);
	}
	nap->hurry = false;
}

void keeper_wake(struct keeper *k, struct nap *nap)
{
	nap->hurry = true;
	timer_cancel(k->env, &nap->timer);
}

void keeper_hurry(struct keeper *k) { keeper_wake(k, &k->rebuild_nap); }

/* One that is under way may have passed what the caller means: the next one counts. */
uint64_t keeper_gc(struct keeper *k)
{
	k->status.gc_asked = MAX(k->status.gc_asked, k->status.gc_rounds + (k->gc_runs ? 2 : 1));
	keeper_wake(k, &k->gc_nap);
	return k->status.gc_asked;
}

const struct keeper_status *keeper_status(const struct keeper *k) { return &k->status; }

/* ---- what both fibers do ---- */

int keeper_own(struct keeper *k, struct segment_io *io) { return segment_wait(k->dir, io); }

static int list_add(struct found_list *list, struct peer *peer, const struct share_entry *e)
{
	if (array_more(&list->entries, list->count) < 0)
		return -ENOMEM;
	list->entries[list->count++] = (struct found){ *e, peer };
	return 0;
}

/* A page; `after` goes on, to 0 when all was told. Ids that don't grow, or pages without any, would go on for ever. */
static int list_page(struct keeper *k, struct peer *peer, const struct group_set *groups, uint8_t *page, uint64_t *after, struct found_list *list)
{
	struct iovec v = { page, SHARE_LIST_BYTES };
	struct segment_io io = { .op = SEGMENT_LIST, .segment = *after, .groups = groups ? groups->bits : NULL, .group_count = groups ? groups->count : 0,
				 .iov = &v, .iov_count = 1 };
	int r = peer ? peer_wait(peer, &io) : keeper_own(k, &io);
	uint64_t last = *after;
	for (uint32_t at = 0; r == 0 && at + SHARE_ENTRY_BYTES <= io.filled; at += SHARE_ENTRY_BYTES) {
		struct share_entry e;
		r = share_entry_decode(page + at, &e);
		if (r == 0 && e.header.segment <= last)
			r = -EBADMSG;
		last = e.header.segment;
		if (r == 0 && (!groups || group_in(groups, placement_group_number(groups->count, last))))
			r = list_add(list, peer, &e);
	}
	if (r == 0 && io.next && (io.next < last || last == *after))
		r = -EBADMSG;
	*after = io.next;
	return r;
}

int keeper_list(struct keeper *k, struct peer *peer, const struct group_set *groups, struct found_list *list)
{
	uint8_t *page = malloc(SHARE_LIST_BYTES);
	uint64_t after = 0;
	size_t before = list->count;
	int r = page ? 0 : -ENOMEM;
	do
		r = r ? r : keeper_ends(k) ? -ESHUTDOWN : peer && list->count - before > LISTED_MAX ? -E2BIG : list_page(k, peer, groups, page, &after, list);
	while (r == 0 && after);
	free(page);
	return r;
}

/* ---- what others ask ---- */

static uint64_t rules_map(const struct server_rules *rules) { return container_of(rules, const struct keeper, rules)->copies->map.revision; }

static bool rules_belongs(const struct server_rules *rules, uint64_t segment)
{
	const struct keeper *k = container_of(rules, const struct keeper, rules);
	const struct placement *map = &k->copies->map;
	const struct placement_group *g = placement_group_of(map, segment);
	for (unsigned i = 0; i < g->target_count; i++)
		if (memcmp(&map->servers[g->target[i]].id, &k->dir->id, sizeof(uuid)) == 0)
			return true;
	return map->revision == 0;
}

static void rules_status(const struct server_rules *rules, Aquifer__Segment__Status *m)
{
	struct keeper *k = container_of((struct server_rules *)(uintptr_t)rules, struct keeper, rules);
	struct keeper_status *s = &k->status;
	m->map = k->copies->map.revision;
	m->copies = s->copies;
	m->unsealed = s->unsealed;
	m->missing = s->missing;
	m->missing_bytes = s->missing_bytes;
	m->rebuilt = s->rebuilt;
	m->rebuilt_bytes = s->rebuilt_bytes;
	m->bytes_per_s = s->bytes_per_s;
	m->misplaced = s->misplaced;
	m->removed = s->removed;
	m->sealed = s->sealed;
	m->united = s->united;
	m->failures = s->failures;
	m->failing = (uint32_t)-s->failing;
	m->gone = (uint32_t)-k->dir->gone;
	m->rounds = s->rounds;
	m->silent = s->silent;
	m->settled = s->settled && s->map == m->map;
	m->held.data = s->held;
	m->held.len = MAX(k->copies->map.group_count, (uint32_t)PLACEMENT_GROUPS_MIN) / 8;
	m->held_rounds = s->map == m->map ? s->held_rounds : 0;
	m->gc_rounds = s->gc_rounds;
	m->gc_freed = s->gc_freed;
	m->gc_freed_bytes = s->gc_freed_bytes;
	m->gc_unanswered = s->gc_unanswered;
	m->gc_refused = s->gc_refused;
}

static uint64_t rules_gc(const struct server_rules *rules)
{
	struct keeper *k = container_of((struct server_rules *)(uintptr_t)rules, struct keeper, rules);
	keeper_hurry(k);
	return keeper_gc(k);
}

/* ---- life ---- */

static int fiber_begin(struct keeper *k, int (*run)(void *arg))
{
	k->fibers++;
	int r = fiber_start(&k->env->loop, run, k, NULL);
	k->fibers -= r < 0;
	return r;
}

int keeper_start(struct env *env, struct catalog *catalog, struct segment_server *dir, struct server *server,
		 const struct keeper_options *options, struct keeper **ret, struct report *report)
{
	struct keeper *k = calloc(1, sizeof *k);
	if (!k)
		return -ENOMEM;
	*k = (struct keeper){ .env = env, .catalog = catalog, .dir = dir, .server = server, .options = *options,
			      .rules = { .map = rules_map, .belongs = rules_belongs, .status = rules_status, .gc = rules_gc } };
	struct keeper_options *o = &k->options;
	o->round_ns = o->round_ns ? o->round_ns : KEEPER_ROUND_NS;
	o->gc_ns = o->gc_ns ? o->gc_ns : KEEPER_GC_NS;
	o->gc_first_ns = o->gc_first_ns ? o->gc_first_ns : KEEPER_GC_FIRST_NS;
	o->manager_ns = o->manager_ns ? o->manager_ns : KEEPER_MANAGER_NS;
	o->lost_ns = o->lost_ns ? o->lost_ns : KEEPER_LOST_NS;
	timer_init(&k->rebuild_nap.timer);
	timer_init(&k->manager_nap.timer);
	timer_init(&k->gc_nap.timer);
	fiber_cond_init(&k->ended);
	fiber_cond_init(&k->manager_changed);
	int r = copies_open(env, catalog, &k->copies, report);
	if (r < 0) {
		free(k);
		return r;
	}
	repairs_init(&k->repairs, env);
	server_rules(server, &k->rules);
	r = repairs_start(&k->repairs);
	if (r == 0)
		r = fiber_begin(k, rebuild_fiber);
	if (r == 0)
		r = fiber_begin(k, gc_fiber);
	if (r == 0)
		r = fiber_begin(k, manager_fiber);
	if (r == 0 && catalog->ops->watch)
		r = fiber_begin(k, manager_watch_fiber);
	if (r < 0)
		keeper_stop(k);
	else
		*ret = k;
	return r;
}

void keeper_stop(struct keeper *k)
{
	if (!k)
		return;
	k->closing = true;
	server_rules(k->server, NULL);
	keeper_wake(k, &k->rebuild_nap);
	keeper_wake(k, &k->gc_nap);
	keeper_wake(k, &k->manager_nap);
	fiber_cond_wake(&k->manager_changed);
	copies_cut(k->copies);
	repairs_end(&k->repairs);
	while (k->fibers)
		fiber_cond_wait(&k->env->loop, &k->ended);
	copies_close(k->copies);
	rebuild_forget(k);
	free(k);
}
