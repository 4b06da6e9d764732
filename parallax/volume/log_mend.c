/* The mender (R16): an append or a sync failed. Sending stops; once everything in
 * flight is answered, each segment that isn't cut yet is cut at its *acknowledged* length, with those of its servers that
 * have that much, verified and synced; the
 * empty ones ahead are dropped, fresh ones are listed, all in one transaction; then what was
 * not acknowledged is sent again, same seq, in a fresh segment; if that is one from what is kept for checkpoints it waits again instead, with what waits for
 * room (log_refuse()). Flushes wait meanwhile.
 *
 * When only space was lacking, what was in flight is taken back and ends with -ENOSPC (P7), the segments ahead stay, and
 * checkpoints go on in what is allocated there.
 *
 * While fewer than min_replicas can be asked, requests wait and the mender asks again. A copy that
 * lost what it had acknowledged (power loss) is filled up from memory (log_retain.c). If every copy is broken the
 * volume ends with EIO (R14). */
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/volume/volume_private.h"

static bool all_answered(const struct volume *v)
{
	link_for(l, &v->log.flying)
		if (!container_of(l, struct log_record, link)->answered)
			return false;
	return !v->log.syncing;
}

/* Makes [0, acked) of a copy durable and verified. 0; -EIO it can't be; -EREMOTEIO its server failed to, which may be another matter next time; -EPERM
 * fenced; away. */
static int settle_copy(struct volume *v, struct log_segment *g, struct peer *at)
{
	struct segment_io io = { .op = SEGMENT_FENCE, .segment = g->meta.id, .epoch = v->epoch };
	int r = peer_wait(at, &io);
	if (r == -ENOENT)
		return g->acked == 1 ? 0 : -EIO; /* somebody took it away */
	if (r < 0)
		return log_failed_once(r);
	if (io.state == COPY_BROKEN)
		return -EIO;
	if (io.length < g->acked) { /* it lost power (R14) */
		r = log_retain_refill(v, g, at, io.length);
		if (r < 0)
			return r;
	}
	io = (struct segment_io){ .op = SEGMENT_REPAIR, .segment = g->meta.id, .epoch = v->epoch, .block = g->acked };
	return log_failed_once(peer_wait(at, &io));
}

/* Does what a server said end by itself? Anything else is a failure of what is below it, as of a file system that became read only. */
static bool server_waits(int status)
{
	return segment_away(status) || status == -ENOSPC || status == -EDQUOT || status == -EBUSY || status == -EAGAIN || status == -ESTALE;
}

/* R15 (a). Its ensemble is those that have it all, from now on. 0; -ENOTCONN: too few for now; -EREMOTEIO: each failed, or is of no use;
 * -EIO: nobody ever will; -EPERM fenced. */
static int settle_segment(struct volume *v, struct log_segment *g)
{
	struct peer *holders[META_REPLICAS_MAX];
	unsigned count = 0;
	bool waits = false, failed = false;
	for (uint32_t i = 0; i < g->meta.ensemble_count; i++) {
		int r = peer_usable(g->peers[i]) ? settle_copy(v, g, g->peers[i]) : -ENOTCONN;
		if (r == -EPERM || r == -ESHUTDOWN || r == -ENOMEM)
			return r;
		waits |= server_waits(r);
		failed |= r < 0 && r != -EIO && !server_waits(r);
		if (r == 0)
			holders[count++] = g->peers[i];
	}
	count = log_copy_fresh(v, &g->meta, g->acked, NULL, 0, holders, count);
	if (count < v->meta.min_replicas && !(PLANTED(mend_any_copy) && count))
		return count || waits ? -ENOTCONN : failed ? -EREMOTEIO : -EIO;
	g->meta.ensemble_count = count;
	for (unsigned i = 0; i < count; i++) {
		g->peers[i] = holders[i];
		g->meta.ensemble[i] = (struct meta_replica){ holders[i]->id, peer_incarnation(holders[i]) };
	}
	g->synced = g->acked;
	return 0;
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

static bool is_ahead(const struct volume *v, const struct log_segment *g) { return !g->finished && g != v->log.current; }

/* Used ones get their cut. The empty ones leave the list, but for those ahead when only space was lacking: their server is
 * as good as it was, and what is allocated in them may be all there is. */
static unsigned cut_all(struct volume *v, struct meta_log *log)
{
	unsigned ahead = 0;
	link_for(l, &v->log.segments) {
		struct log_segment *g = container_of(l, struct log_segment, link);
		if (g->acked > 1 || (v->log.short_of_space && !is_ahead(v, g))) {
			log_record_cut(log, g);
			continue;
		}
		if (v->log.short_of_space) {
			ahead++;
			continue;
		}
		uint32_t kept = 0;
		for (uint32_t i = 0; i < log->segment_count; i++)
			if (log->segments[i].id != g->meta.id)
				log->segments[kept++] = log->segments[i];
		log->segment_count = kept;
	}
	return ahead;
}

/* What leaves the log's list: `old`. */
static void take_old(struct volume *v, struct link *old)
{
	struct log *l = &v->log;
	link_for_safe(k, n, &l->segments) {
		struct log_segment *g = container_of(k, struct log_segment, link);
		if (l->short_of_space && is_ahead(v, g))
			continue;
		link_drop(&g->link);
		link_push(old, &g->link);
	}
	l->current = NULL;
}

/* 0 also when there is no space for new segments; then nothing may be listed. */
static int mend_publish(struct volume *v, struct publication *p)
{
	publish_begin(v, p);
	int r = settle_all(v);
	uint32_t before = UINT32_MAX;
	if (r == 0) {
		unsigned ahead = cut_all(v, &p->log);
		before = p->log.segment_count;
		r = ahead ? 0 : log_create_segments(v, &p->log, 1 + LOG_SEGMENTS_AHEAD, /* reserve= */ true);
		if (r == -ENOSPC)
			r = 0;
	}
	if (r < 0) {
		log_forget_created(v, &p->log, before);
		publish_abort(p);
		return r;
	}
	r = publish_commit(p);
	if (r < 0) {
		log_forget_created(v, &p->log, before);
		return r;
	}
	struct link old;
	link_init(&old);
	take_old(v, &old);
	for (uint32_t i = before; r == 0 && i < p->log.segment_count; i++)
		r = log_segment_listed(v, &p->log.segments[i]);
	for (struct link *k; (k = link_pop(&old));) {
		struct log_segment *g = container_of(k, struct log_segment, link);
		if (r == 0 && g->acked > 1)
			log_seal(g);
		log_retain_drop(v, g, UINT32_MAX);
		free(g);
	}
	return r;
}

static int mend_once(struct volume *v)
{
	struct publication *p = malloc(sizeof *p);
	if (!p)
		return -ENOMEM;
	fiber_mutex_lock(&v->env->loop, &v->creating);
	int r = mend_publish(v, p);
	fiber_mutex_unlock(&v->creating);
	free(p);
	return r;
}

enum { MEND_WAIT_MS = 100 };

bool log_waits_for(const struct volume *v, int status)
{
	if (v->meta.embedded && status == -ETIMEDOUT) /* nothing of it is away: its catalog is a file that takes nothing */
		return false;
	return server_waits(status) || catalog_away(status);
}

/* May it be better later? The server or the catalog is away, busy, restarting, or lacks space. What else there is may be
 * a file system that became read only, or a disk that failed once: it is asked again for a while, so that an operator can act. Only
 * these attempts count: a server that was away for long may fail once when it is back. */
static bool mend_again(const struct volume *v, int status, unsigned *failures)
{
	if (status == -EPERM || status == -EIO || status == -ENOMEM || status == -ESHUTDOWN || volume_gives_up(v))
		return false;
	return log_waits_for(v, status) || (*failures)++ < LOG_ATTEMPTS_MAX;
}

void log_note_away(struct volume *v, int status)
{
	bool away = segment_away(status) && !v->catalog_away;
	if (away && !v->away)
		v->waits_ns = env_wall_ns(v->env);
	v->away = away;
}

/* All that flies may go on in the current segment. Guest data has no place in one that was made from what is kept (R32), which may be as long as any. */
static bool may_resend(const struct volume *v)
{
	const struct log *l = &v->log;
	const struct log_segment *g = l->current;
	uint64_t blocks = 0;
	link_for(k, &l->flying)
		blocks += record_blocks(&container_of(k, struct log_record, link)->head);
	return g->meta.id < l->kept_from && g->next + blocks <= g->meta.size_blocks;
}

static void mended(struct volume *v)
{
	struct log *l = &v->log;
	v->counters.mends++;
	l->short_of_space = false;
	l->current = link_empty(&l->segments) ? NULL : container_of(l->segments.next, struct log_segment, link);
	l->synced_seq = MAX(l->synced_seq, l->acked_seq);
	if (!l->current)
		log_withdraw(v);
	else if (may_resend(v))
		log_resend(v);
	else
		log_take_back(v);
	log_flush_kick(v);
	log_pump(v);
}

static int mender(void *arg)
{
	struct volume *v = arg;
	struct log *l = &v->log;
	while (!v->failed && !all_answered(v))
		fiber_cond_wait(&v->env->loop, &l->changed);
	l->mending_quiet = true;
	if (l->short_of_space && !v->failed) {
		l->full = l->starved = true;
		log_withdraw(v);
		log_refuse(v);
	}
	int r = -EIO;
	for (unsigned failures = 0; !v->failed;) {
		r = v->env->dead ? -ESHUTDOWN : mend_once(v);
		if (r == 0 || !mend_again(v, r, &failures))
			break;
		log_note_away(v, r);
		log_refuse(v);
		fiber_sleep(&v->env->loop, MEND_WAIT_MS * NS_PER_MS);
	}
	if (r < 0)
		volume_fail(v, r == -EPERM || r == -ESHUTDOWN ? r : -EIO);
	v->away = l->mending = l->mending_quiet = false;
	l->fibers--;
	if (r == 0)
		mended(v);
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
	l->mending_ns = env_now_ns(v->env);
	l->short_of_space = status == -ENOSPC;
	l->fibers++;
	if (fiber_start(&v->env->loop, mender, v, NULL) < 0) {
		l->fibers--;
		volume_fail(v, -ENOMEM);
	}
}

static bool was_restarted(const struct log_segment *g)
{
	for (uint32_t i = 0; i < g->meta.ensemble_count; i++)
		if (g->peers[i]->server && segment_up(g->peers[i]->server) && g->meta.ensemble[i].incarnation != g->peers[i]->server->incarnation)
			return true;
	return false;
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
		if (!g->cut && g->acked > g->synced && was_restarted(g)) {
			log_trouble(v, -ESTALE);
			return true;
		}
	}
	return false;
}
