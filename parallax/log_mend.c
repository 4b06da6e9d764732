/* The mender (R16 for one copy): an append or a sync failed. Sending stops; once everything in
 * flight is answered, each segment that isn't cut yet is cut at its *acknowledged* length, the
 * empty ones ahead are dropped, fresh ones are listed, all in one transaction; then what was
 * not acknowledged is sent again, same seq, in a fresh segment. Flushes wait meanwhile.
 *
 * The server may be away for long: then requests wait and the mender asks again. A copy that
 * lost what it had acknowledged (power loss) is filled up from memory (log_retain.c); one that is broken ends the
 * volume with EIO (R14): with a single copy there is nothing else. */
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "parallax/volume_private.h"

static bool all_answered(const struct volume *v)
{
	link_for(l, &v->log.flying)
		if (!container_of(l, struct log_record, link)->answered)
			return false;
	return !v->log.syncing;
}

/* Makes [0, acked) of the segment durable and verified on its server. 0; -EIO for good; away. */
static int settle_segment(struct volume *v, struct log_segment *g)
{
	struct segment_io io = { .op = SEGMENT_FENCE, .segment = g->meta.id, .epoch = v->epoch };
	int r = segment_wait(v->server, &io);
	if (r < 0)
		return r == -ENOENT && g->acked == 1 ? 0 : r;
	if (io.state == COPY_BROKEN)
		return -EIO;
	if (io.length < g->acked) { /* it lost power (R14) */
		r = log_retain_refill(v, g, io.length);
		if (r < 0)
			return r;
	}
	io = (struct segment_io){ .op = SEGMENT_REPAIR, .segment = g->meta.id, .epoch = v->epoch, .block = g->acked };
	r = segment_wait(v->server, &io);
	if (r == 0)
		g->synced = g->acked;
	return r;
}

static int settle_all(struct volume *v)
{
	int r = 0;
	link_for(l, &v->log.segments) {
		struct log_segment *g = container_of(l, struct log_segment, link);
		if (r == 0 && !g->cut && g->acked > g->synced)
			r = settle_segment(v, g);
	}
	return r;
}

/* The empty segments leave the list; used ones get their cut. */
static void cut_all(struct volume *v, struct meta_log *log)
{
	link_for(l, &v->log.segments) {
		struct log_segment *g = container_of(l, struct log_segment, link);
		if (g->acked > 1) {
			log_record_cut(log, g);
			continue;
		}
		uint32_t kept = 0;
		for (uint32_t i = 0; i < log->segment_count; i++)
			if (log->segments[i].id != g->meta.id)
				log->segments[kept++] = log->segments[i];
		log->segment_count = kept;
	}
}

static void replace_segments(struct volume *v, struct link *old)
{
	struct log *l = &v->log;
	l->current = NULL;
	link_splice(old, &l->segments);
}

static int mend_once(struct volume *v)
{
	struct publication *p = malloc(sizeof *p);
	if (!p)
		return -ENOMEM;
	publish_begin(v, p);
	int r = settle_all(v);
	if (r == 0) {
		cut_all(v, &p->log);
		r = log_create_segments(v, &p->log, 1 + LOG_SEGMENTS_AHEAD, /* reserve= */ true);
	}
	if (r < 0) {
		publish_abort(p);
		free(p);
		return r;
	}
	struct meta_log *log = &p->log;
	uint32_t first_new = log->segment_count - 1 - LOG_SEGMENTS_AHEAD;
	r = publish_commit(p);
	if (r < 0) {
		free(p);
		return r;
	}
	struct link old;
	link_init(&old);
	replace_segments(v, &old);
	for (uint32_t i = first_new; r == 0 && i < log->segment_count; i++)
		r = log_segment_listed(v, &log->segments[i]);
	free(p);
	for (struct link *k; (k = link_pop(&old));) {
		struct log_segment *g = container_of(k, struct log_segment, link);
		if (r == 0 && g->acked > 1)
			log_seal(v, g);
		log_retain_drop(v, g, UINT32_MAX);
		free(g);
	}
	return r;
}

static int mender(void *arg)
{
	struct volume *v = arg;
	struct log *l = &v->log;
	while (!v->failed && !all_answered(v))
		fiber_cond_wait(&v->env->loop, &l->changed);
	int r = -EIO;
	while (!v->failed) {
		r = v->env->dead ? -ESHUTDOWN : mend_once(v);
		if (r == 0 || r == -EPERM || r == -EIO || r == -ENOMEM || r == -ESHUTDOWN)
			break;
		/* nobody can be reached, or there is no space: ask again; a closing volume doesn't wait for ever */
		fiber_sleep(&v->env->loop, (segment_away(r) ? 50 : 200) * NS_PER_MS);
	}
	if (r < 0)
		volume_fail(v, r == -EPERM || r == -ESHUTDOWN ? r : -EIO);
	l->mending = false;
	l->fibers--;
	if (r == 0) {
		v->counters.mends++;
		l->current = container_of(l->segments.next, struct log_segment, link);
		l->synced_seq = MAX(l->synced_seq, l->acked_seq);
		log_resend(v);
		log_flush_kick(v);
		log_pump(v);
	}
	fiber_cond_wake(&l->changed);
	return 0;
}

void log_trouble(struct volume *v, int status)
{
	struct log *l = &v->log;
	if (status == -EPERM) { /* fenced: somebody else owns it now (R18) */
		volume_fail(v, -EPERM);
		return;
	}
	if (l->mending || v->failed)
		return;
	l->mending = true;
	l->fibers++;
	if (fiber_start(&v->env->loop, mender, v, NULL) < 0) {
		l->fibers--;
		volume_fail(v, -ENOMEM);
	}
}

bool log_unsettled(void *volume)
{
	struct volume *v = volume;
	if (v->failed || v->closing)
		return false;
	if (v->log.mending)
		return true;
	link_for(l, &v->log.segments) {
		struct log_segment *g = container_of(l, struct log_segment, link);
		if (!g->cut && g->acked > g->synced && g->meta.ensemble[0].incarnation != v->server->incarnation) {
			log_trouble(v, -ESTALE);
			return true;
		}
	}
	return false;
}
