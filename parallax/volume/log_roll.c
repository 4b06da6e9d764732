/* The roller: keeps LOG_SEGMENTS_AHEAD segments or more created and listed ahead of the current one
 * (R12: created before they are listed), and records the cuts of finished ones (R11, R15). */
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/volume/volume_private.h"

#define SPARE_NS NS_PER_S
enum { CREATE_TRIES = 8, IDS_TAKEN = 32 };

static unsigned segments_ahead(const struct volume *v)
{
	unsigned n = 0;
	link_for(l, &v->log.segments) {
		const struct log_segment *g = container_of(l, struct log_segment, link);
		n += !g->finished && g != v->log.current;
	}
	return n;
}

/* More where a checkpoint's table is longer: guest data waits while what is listed is less than the next one may need (R20). */
static unsigned ahead_wanted(const struct volume *v)
{
	uint64_t blocks = checkpoint_table_reserve(v) * 2;
	return (unsigned)MIN(MAX(div_up(blocks, v->limits.segment_blocks) + 1, (uint64_t)LOG_SEGMENTS_AHEAD), (uint64_t)LOG_SEGMENTS_AHEAD_MAX);
}

/* Finished, and all of its records are acknowledged, but its cut isn't recorded. */
static bool is_uncut(const struct log_segment *g) { return g->finished && !g->cut && g->acked == g->next; }

static bool any_uncut(const struct volume *v)
{
	link_for(l, &v->log.segments)
		if (is_uncut(container_of(l, struct log_segment, link)))
			return true;
	return false;
}

/* Enough servers where it belongs, whether they answer or not, aren't among the `full` ones. */
static bool may_have_room(struct volume *v, uint64_t id, unsigned full)
{
	struct peer *peers[META_REPLICAS_MAX];
	return copies_targets(v->copies, id, v->meta.replicas, peers) >= full + v->meta.min_replicas;
}

/* A server that can't make a file, because its file system became read only or a directory was taken away, has a disk that failed, which may be mended. What is about us, or
 * about the segment, isn't that. */
static bool disk_failed(int status)
{
	static const int others[] = { 0, -EPERM, -ESHUTDOWN, -EEXIST, -ESTALE, -EINVAL, -ENOSPC, -EAGAIN, -EBUSY };
	for (unsigned i = 0; i < ARRAY_COUNT(others); i++)
		if (status == others[i])
			return false;
	return !segment_away(status);
}

/* Too few could make it. A lack of space is why only if it would be without what is away now, or fails otherwise (R16): that is waited for. */
static int why_not_created(struct volume *v, uint64_t id, const struct segment_io *ios, unsigned count)
{
	unsigned full = 0;
	int r = 0;
	for (unsigned i = 0; i < count; i++) {
		full += ios[i].status == -ENOSPC;
		if (ios[i].status < 0 && ios[i].status != -ENOSPC && r == 0)
			r = ios[i].status;
	}
	if (full && !may_have_room(v, id, full))
		return -ENOSPC;
	return r && (v->meta.embedded || !disk_failed(r)) ? r : -ENOTCONN;
}

/* On all of the servers where it belongs that can be asked (R12), which are connected with now; -ENOTCONN when those are too few. Then, or when too few
 * could make it, none has it. -ENOSPC: for want of space. `ret_used`: may any of them have it still? */
static int create_sized(struct volume *v, uint64_t id, uint64_t epoch, uint32_t blocks, bool reserve, struct meta_segment *ret, bool *ret_used)
{
	struct peer *peers[META_REPLICAS_MAX];
	struct segment_io ios[META_REPLICAS_MAX];
	struct meta_segment g = { .id = id, .epoch = epoch, .salt = env_random(v->env), .size_blocks = blocks };
	unsigned n = copies_place(v->copies, id, v->meta.replicas, v->meta.min_replicas, peers);
	*ret_used = false;
	if (n < v->meta.min_replicas)
		return -ENOTCONN;
	for (unsigned i = 0; i < n; i++)
		ios[i] = (struct segment_io){ .op = SEGMENT_CREATE, .segment = id, .epoch = epoch,
					      .incarnation = peer_incarnation(peers[i]), .reserve = reserve,
					      .header = { id, v->meta.volume, epoch, g.salt, blocks } };
	unsigned good = peers_wait(peers, ios, n);
	for (unsigned i = 0; i < n; i++) {
		*ret_used |= ios[i].status < 0 && ios[i].status != -ENOSPC;
		peers[i]->fails = disk_failed(ios[i].status) ? ios[i].status : 0;
		peers[i]->fails_incarnation = peer_incarnation(peers[i]);
		if (ios[i].status == 0)
			g.ensemble[g.ensemble_count++] = (struct meta_replica){ peers[i]->id, ios[i].incarnation };
	}
	if (good >= v->meta.min_replicas) {
		*ret = g;
		return 0;
	}
	int r = why_not_created(v, id, ios, n);
	for (unsigned i = 0; i < n; i++)
		if (ios[i].status == 0) {
			struct segment_io io = { .op = SEGMENT_DELETE, .segment = id, .epoch = epoch };
			*ret_used |= peer_wait(peers[i], &io) < 0;
		}
	return r;
}

static bool other_id_better(struct volume *v, uint64_t id) { return copies_better_elsewhere(v->copies, id, v->meta.replicas, v->meta.min_replicas); }

/* The first of some ids, given away for it, whose servers aren't known to be away. */
static int take_better(struct volume *v)
{
	struct log *l = &v->log;
	uint64_t first;
	int r = catalog_counter_take(v->catalog, META_COUNTER_SEGMENT, l->spare_id, IDS_TAKEN, &first);
	if (r < 0)
		return r;
	l->spare_id = first;
	while (l->spare_id < first + IDS_TAKEN - 1 && other_id_better(v, l->spare_id))
		l->spare_id++;
	return 0;
}

/* An id that no server has is kept for further attempts; for some time, because others may belong to servers that have room for it, and not when it is
 * known that servers are away which it belongs to, and others don't. */
static int spare_id(struct volume *v, uint64_t above)
{
	struct log *l = &v->log;
	uint64_t now = env_now_ns(v->env);
	if (l->spare_id > above && now - l->spare_ns < SPARE_NS && !other_id_better(v, l->spare_id))
		return 0;
	l->spare_ns = now;
	int r = catalog_counter_take(v->catalog, META_COUNTER_SEGMENT, MAX(above, l->spare_id), 1, &l->spare_id);
	if (r == 0 && other_id_better(v, l->spare_id))
		r = take_better(v);
	publish_note(v, r);
	return r;
}

/* Once it is full it stays so when a server goes away. */
static bool lacks_space(const struct log *l, int status) { return status == -ENOSPC || (status == -ENOTCONN && l->full); }

/* One id above last_id, created on its servers. */
static int create_once(struct volume *v, uint64_t above, bool reserve, struct meta_segment *ret)
{
	struct log *l = &v->log;
	bool used, used_again = false;
	int r = spare_id(v, above);
	if (r < 0)
		return r;
	uint64_t id = l->spare_id;
	r = create_sized(v, id, v->epoch, v->limits.segment_blocks, false, ret, &used);
	if (r == 0) {
		l->full = l->starved = l->dry = false;
		l->kept_from = UINT64_MAX;
	}
	if (lacks_space(l, r) && reserve && !used) {
		uint64_t blocks = MAX(checkpoint_reserve(v) + LOG_CLEAR_ROOM, (uint64_t)LOG_RESERVE_BLOCKS);
		r = create_sized(v, id, v->epoch, (uint32_t)MIN(blocks, (uint64_t)v->limits.segment_blocks), true, ret, &used_again);
		l->full = true;
		l->dry = r == -ENOSPC;
		l->kept_from = MIN(l->kept_from, id);
	}
	if (r == 0 || used || used_again)
		l->spare_id = 0;
	return r;
}

/* Which servers are away is known once they were asked; then another id may do. */
static int create_one(struct volume *v, uint64_t above, bool reserve, struct meta_segment *ret)
{
	struct log *l = &v->log;
	int r = create_once(v, above, reserve, ret);
	for (unsigned i = 1; i < CREATE_TRIES && segment_away(r) && !v->catalog_away && l->spare_id && other_id_better(v, l->spare_id) && !v->failed &&
			     !v->close_by_ns; i++)
		r = create_once(v, above, reserve, ret);
	return r;
}

/* One is enough to go on in: it isn't given up because the servers of the next are away; and of what is kept for checkpoints no more is taken at once, as all of it
 * is allocated, and many volumes may be opened, or lose a server, in the same moment. */
int log_create_segments(struct volume *v, struct meta_log *log, unsigned count, bool reserve)
{
	int r = 0;
	if (log->segment_count >= LOG_SEGMENTS_ROLLED)
		count = MIN(count, 1u);
	for (unsigned i = 0; r == 0 && i < count; i++) {
		if (log->segment_count == META_SEGMENTS_MAX)
			return -EMLINK;
		r = create_one(v, log->last_id, reserve, &log->segments[log->segment_count]);
		if (r == 0)
			log->last_id = log->segments[log->segment_count++].id;
		if (r == 0 && log->last_id >= v->log.kept_from && !PLANTED(reserve_ahead))
			return 0;
		if (i > 0 && segment_away(r))
			return 0;
	}
	return r;
}

int log_create_next(struct volume *v, uint64_t epoch, struct meta_segment *ret)
{
	uint64_t id;
	int r = catalog_counter_take(v->catalog, META_COUNTER_SEGMENT, MAX(v->meta.last_id, v->log.spare_id), 1, &id);
	bool used;
	return r < 0 ? r : create_sized(v, id, epoch, v->limits.segment_blocks, false, ret, &used);
}

void log_forget_created(struct volume *v, const struct meta_log *log, uint32_t kept)
{
	for (uint32_t i = kept; i < log->segment_count && !v->failed; i++)
		log_delete_segment(v, log->segments[i].id);
}

int log_delete_segment(struct volume *v, uint64_t segment) { return copies_delete(v->copies, segment, v->epoch); }

int log_segment_listed(struct volume *v, const struct meta_segment *meta)
{
	int r = space_add_segment(&v->space, meta->id, meta->size_blocks);
	return r < 0 ? r : log_segment_add(v, meta) ? 0 : -ENOMEM;
}

/* Its ensemble are the holders from now on: who left it has been left out of `g` (R15 a, R16). */
void log_record_cut(struct meta_log *log, const struct log_segment *g)
{
	for (uint32_t i = 0; i < log->segment_count; i++) {
		struct meta_segment *m = &log->segments[i];
		if (m->id != g->meta.id)
			continue;
		*m = g->meta;
		m->cut = true;
		m->length = g->acked;
		m->prev = g->acked_crc;
	}
}

/* Only hastens what any later owner or server can do: so nobody waits for one that hangs. */
void log_seal(const struct log_segment *g)
{
	struct peer *peers[META_REPLICAS_MAX];
	struct segment_io ios[META_REPLICAS_MAX];
	unsigned n = 0;
	for (uint32_t i = 0; i < g->meta.ensemble_count; i++) {
		if (!peer_usable(g->peers[i]))
			continue;
		ios[n] = (struct segment_io){ .op = SEGMENT_SEAL, .segment = g->meta.id, .epoch = g->meta.epoch, .block = g->acked, .crc = g->acked_crc };
		peers[n++] = g->peers[i];
	}
	peers_wait(peers, ios, n);
}

/* Full, and what is listed won't last for long, or it may be less than it seems: segments are allocated as they are written, and others may take what there is
 * meanwhile. So one checkpoint has room that is its own. */
static bool needs_reserve(const struct volume *v)
{
	uint64_t blocks = checkpoint_reserve(v);
	return v->log.full && (log_room(v) < 3 * blocks + LOG_CLEAR_ROOM || (log_room_kept(v) < blocks + LOG_CLEAR_ROOM && !PLANTED(reserve_late)));
}

/* Data segments; when there is no space for them, what the next checkpoints need, which free some. -ENOSPC: no data segment. */
static int create_ahead(struct volume *v, struct meta_log *log)
{
	struct log *l = &v->log;
	unsigned ahead = segments_ahead(v), wanted = ahead_wanted(v);
	unsigned room = log->segment_count < LOG_SEGMENTS_ROLLED ? LOG_SEGMENTS_ROLLED - log->segment_count : 0;
	int r = log_create_segments(v, log, ahead < wanted ? MIN(wanted - ahead, MAX(room, (unsigned)LOG_SEGMENTS_AHEAD)) : l->full, false);
	if (!lacks_space(l, r))
		return r;
	l->full = true;
	if (needs_reserve(v)) {
		r = log_create_segments(v, log, 1, true);
		if (r < 0 && !lacks_space(l, r))
			return r;
	}
	return l->full ? -ENOSPC : 0;
}

/* Those that are synced, as a cut has to be. All of them at once: were it one for each transaction, which lists up to two, the list would get longer and
 * longer where the catalog is slower than what is written. */
static unsigned find_cuts(const struct volume *v, struct log_segment *ret[META_SEGMENTS_MAX])
{
	unsigned n = 0;
	link_for(l, &v->log.segments) {
		struct log_segment *g = container_of(l, struct log_segment, link);
		if (is_uncut(g) && g->synced >= g->acked && n < META_SEGMENTS_MAX)
			ret[n++] = g;
	}
	return n;
}

/* They are cut. */
static void let_go(struct volume *v, struct log_segment *const *cuts, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		link_drop(&cuts[i]->link); /* ours alone: the mender may come while we wait */
	for (unsigned i = 0; i < count; i++) {
		log_seal(cuts[i]);
		log_segment_drop(v, cuts[i]);
	}
}

/* One transaction: the cuts of finished segments, if there are any, and the segments from `before` on in `made`, the log
 * that is to be. Nothing is left of those that aren't listed. */
static int list_made(struct volume *v, struct publication *p, const struct meta_log *made, uint32_t before)
{
	struct log_segment *cuts[META_SEGMENTS_MAX];
	publish_begin(v, p); /* keeps the mender out, too */
	unsigned count = find_cuts(v, cuts);
	if (v->closing || v->log.mending || (count == 0 && made->segment_count == before)) {
		publish_abort(p);
		log_forget_created(v, made, before);
		return 0;
	}
	struct meta_log *log = &p->log;
	uint32_t kept = log->segment_count; /* a checkpoint may have dropped some */
	for (uint32_t i = before; i < made->segment_count; i++)
		log->segments[log->segment_count++] = made->segments[i];
	log->last_id = made->last_id;
	for (unsigned i = 0; i < count; i++)
		log_record_cut(log, cuts[i]);
	int r = publish_commit(p);
	if (r < 0)
		log_forget_created(v, made, before);
	for (uint32_t i = kept; r == 0 && i < log->segment_count; i++)
		r = log_segment_listed(v, &log->segments[i]);
	if (r == 0)
		let_go(v, cuts, count);
	return r;
}

/* The list has room for further ones. When it hasn't, a checkpoint that waits for a place in the log gets one all the same: nothing else makes it shorter. */
static bool may_list(const struct volume *v)
{
	bool waits = !link_empty(&v->log.appends) && segments_ahead(v) == 0;
	return v->meta.segment_count < (waits ? LOG_SEGMENTS_WANTED : LOG_SEGMENTS_ROLLED);
}

/* Segments are made before anybody else's transaction is kept waiting: it takes milliseconds, and a snapshot is one transaction. */
static int roll(struct volume *v)
{
	struct publication *p = malloc(sizeof *p);
	struct meta_log *made = malloc(sizeof *made);
	int r = p && made ? 0 : -ENOMEM, full = 0;
	if (r == 0 && any_uncut(v))
		r = log_flush_wait(v); /* a cut is synced first */
	if (r == 0) {
		fiber_mutex_lock(&v->env->loop, &v->creating);
		*made = v->meta;
		uint32_t before = made->segment_count;
		full = v->closing || v->log.mending || !may_list(v) ? 0 : create_ahead(v, made);
		if (full < 0 && full != -ENOSPC) {
			log_forget_created(v, made, before);
			r = full;
		} else {
			r = list_made(v, p, made, before);
		}
		fiber_mutex_unlock(&v->creating);
	}
	free(made);
	free(p);
	return r ? r : full;
}

static bool roll_due(struct volume *v)
{
	if (v->log.mending)
		return false;
	return any_uncut(v) || (may_list(v) && (segments_ahead(v) < ahead_wanted(v) || v->log.full));
}

static bool writes_wait(const struct log *l) { return !link_empty(&l->writes) && l->flying_count == 0; }

/* A checkpoint's or a mark's record has no room, either. */
static bool any_waits(const struct log *l) { return (!link_empty(&l->writes) || !link_empty(&l->appends)) && l->flying_count == 0; }

/* An embedded log that can't go on because of something that doesn't end by itself: its directory is gone, say, or its disk fails. As when an append
 * fails (log_mend.c) that is an error after a while. */
static bool roll_again(const struct volume *v, int status, unsigned *failures)
{
	bool fails = status < 0 && status != -EMLINK && v->meta.embedded && !v->log.mending && any_waits(&v->log) && !log_waits_for(v, status);
	*failures = fails ? *failures + 1 : 0;
	return *failures <= LOG_ATTEMPTS_MAX;
}

static int roller(void *arg)
{
	struct volume *v = arg;
	struct log *l = &v->log;
	unsigned failures = 0;
	while (!v->closing && !v->failed) {
		if (!roll_due(v)) {
			fiber_cond_wait(&v->env->loop, &l->changed);
			continue;
		}
		int r = roll(v);
		log_pump(v);
		if (!v->log.mending)
			log_note_away(v, writes_wait(l) ? r : 0);
		bool again = roll_again(v, r, &failures);
		if (r < 0 && r != -ESHUTDOWN && again && !v->failed && !v->closing) /* the catalog or the server is away, or full: writes go on in what is listed */
			r = fiber_sleep(&v->env->loop, 100 * NS_PER_MS);
		if (r == -ESHUTDOWN)
			volume_fail(v, r);
		else if (!again && !v->failed)
			volume_fail(v, -EIO);
	}
	l->fibers--;
	fiber_cond_wake(&l->changed);
	return 0;
}

int log_roll_start(struct volume *v)
{
	v->log.fibers++;
	int r = fiber_start(&v->env->loop, roller, v, NULL);
	if (r < 0)
		v->log.fibers--;
	return r;
}
