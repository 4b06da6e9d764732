/* Open segments leave servers where nothing belongs any more: one that drains, is lost or gave groups to another. When the map of
 * servers changes, a log with such a segment is cut and goes on elsewhere, as after a failure (log_mend.c); what was written is then sealed,
 * and its copies can be made where they belong. */
#include "parallax/volume_private.h"

/* Not while there are too few to go to: then it would only wait. */
static bool must_leave(struct volume *v, const struct log_segment *g)
{
	struct peer *places[META_REPLICAS_MAX];
	bool away = false;
	for (uint32_t i = 0; i < g->meta.ensemble_count; i++)
		away |= !copies_belongs(v->copies, g->meta.id, g->peers[i]);
	return away && copies_place(v->copies, g->meta.id, v->meta.replicas, places) >= v->meta.min_replicas;
}

static int leaver(void *arg)
{
	struct volume *v = arg;
	struct catalog_watch *watch = NULL;
	if (catalog_watch(v->catalog, PLACEMENT_KEY, &v->map_changed, &watch) < 0)
		watch = NULL; /* no memory; it will leave when the segments are full */
	while (watch && !v->closing && !v->failed) {
		fiber_cond_wait(&v->env->loop, &v->map_changed);
		if (v->closing || v->failed || v->env->dead || copies_read_map(v->copies) < 0 || v->copies->map.revision == 0)
			continue;
		bool leave = false;
		link_for(l, &v->log.segments) {
			const struct log_segment *g = container_of(l, struct log_segment, link);
			leave |= !g->cut && !g->finished && must_leave(v, g);
		}
		if (!leave || v->closing || v->failed)
			continue;
		log_trouble(v, -ESTALE);
		while (v->log.mending && !v->closing && !v->failed)
			fiber_sleep(&v->env->loop, NS_PER_MS);
		v->checkpoint_wanted = true; /* which deletes the empty ones that were listed there; an idle volume has no other */
		checkpoint_consider(v);
	}
	catalog_watch_end(watch);
	v->log.fibers--;
	fiber_cond_wake(&v->log.changed);
	return 0;
}

int log_leave_start(struct volume *v)
{
	if (v->meta.embedded)
		return 0;
	v->log.fibers++;
	int r = fiber_start(&v->env->loop, leaver, v, NULL);
	if (r < 0)
		v->log.fibers--;
	return r;
}
