/* Flush: rounds of SYNC over every segment with acknowledged records that aren't durable yet, the
 * finished ones too (R13). One round at a time; flushes that come meanwhile share the next. */
#include <errno.h>
#include <stdlib.h>

#include "core/plant.h"
#include "parallax/volume/volume_private.h"

static void sync_done(struct job *j);

static void end_flushes(struct volume *v, uint64_t up_to, int status)
{
	struct log *l = &v->log;
	link_for_safe(k, n, &l->flushes) {
		struct volume_flush *f = container_of(k, struct volume_flush, link);
		if (f->seq > up_to)
			continue;
		link_drop(&f->link);
		job_put(f->parent, status);
	}
}

void log_flush_fail(struct volume *v) { end_flushes(v, UINT64_MAX, -EIO); }

static bool needs_sync(const struct log_segment *g)
{
	if (PLANTED(flush_current_only) && g->finished)
		return false;
	return g->acked > g->synced && !g->cut;
}

static void sync_start(struct volume *v)
{
	struct log *l = &v->log;
	unsigned count = 0;
	link_for(k, &l->segments) {
		const struct log_segment *g = container_of(k, struct log_segment, link);
		count += needs_sync(g) ? g->meta.ensemble_count : 0;
	}
	struct log_sync *syncs = realloc(l->syncs, (count + 1) * sizeof *syncs);
	if (!syncs) {
		volume_fail(v, -ENOMEM);
		return;
	}
	l->syncs = syncs;
	l->sync_count = 0;
	l->syncing = true;
	l->sync_seq = l->acked_seq;
	job_init(&l->sync_job, &v->env->loop);
	link_for(k, &l->segments) {
		struct log_segment *g = container_of(k, struct log_segment, link);
		if (!needs_sync(g))
			continue;
		for (uint32_t i = 0; i < g->meta.ensemble_count; i++) {
			struct log_sync *s = &syncs[l->sync_count++];
			s->peer = g->peers[i];
			s->io = (struct segment_io){ .op = SEGMENT_SYNC, .segment = g->meta.id, .epoch = v->epoch, .block = g->acked,
						     .incarnation = g->meta.ensemble[i].incarnation };
			if (!PLANTED(flush_no_sync) && !(i && PLANTED(flush_first_copy)))
				peer_submit(s->peer, &s->io, &l->sync_job);
		}
	}
	v->counters.syncs++;
	job_then(&l->sync_job, sync_done);
}

/* A refusal of the epoch outweighs the rest (R18). */
static int sync_status(struct volume *v, int status)
{
	const struct log *l = &v->log;
	bool fenced = false;
	for (unsigned i = 0; i < l->sync_count && status; i++) {
		peer_blame(l->syncs[i].peer, l->syncs[i].io.status);
		fenced |= l->syncs[i].io.status == -EPERM;
	}
	return fenced ? -EPERM : status;
}

static void note_synced(struct volume *v)
{
	struct log *l = &v->log;
	link_for(k, &l->segments) {
		struct log_segment *g = container_of(k, struct log_segment, link);
		for (unsigned i = 0; i < l->sync_count; i++)
			if (l->syncs[i].io.segment == g->meta.id && l->syncs[i].io.block > g->synced)
				g->synced = l->syncs[i].io.block;
		if (PLANTED(flush_current_only) && g->finished)
			g->synced = g->acked;
		log_retain_drop(v, g, g->synced);
	}
}

static void sync_done(struct job *j)
{
	struct log *l = container_of(j, struct log, sync_job);
	struct volume *v = container_of(l, struct volume, log);
	l->syncing = false;
	if (v->failed) {
		log_flush_fail(v);
		fiber_cond_wake(&l->changed);
		return;
	}
	if (j->status) {
		log_trouble(v, sync_status(v, j->status)); /* the flushes wait for the cut that follows */
		fiber_cond_wake(&l->changed);
		return;
	}
	note_synced(v);
	if (l->sync_seq > l->synced_seq)
		l->synced_seq = l->sync_seq;
	end_flushes(v, l->synced_seq, 0);
	log_flush_kick(v);
	log_pump(v); /* writes may have waited for this */
	fiber_cond_wake(&l->changed);
}

void log_flush_kick(struct volume *v)
{
	struct log *l = &v->log;
	if (v->failed) {
		log_flush_fail(v);
		return;
	}
	end_flushes(v, l->synced_seq, 0);
	/* a server that only lacks space can sync what it has */
	if (!link_empty(&l->flushes) && !l->syncing && (!l->mending || l->short_of_space))
		sync_start(v);
}

void volume_flush(struct volume *v, struct volume_flush *f, struct job *parent)
{
	job_hold(parent);
	f->parent = parent;
	f->seq = v->log.acked_seq;
	link_push(&v->log.flushes, &f->link);
	log_flush_kick(v);
}

int log_flush_wait(struct volume *v)
{
	struct volume_flush f;
	struct job j;
	job_init(&j, &v->env->loop);
	volume_flush(v, &f, &j);
	return fiber_wait(&j);
}
