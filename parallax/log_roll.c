/* The roller: keeps LOG_SEGMENTS_AHEAD segments created and listed ahead of the current one
 * (R12: created before they are listed), and records the cuts of finished ones (R11, R15). */
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "parallax/volume_private.h"

static unsigned segments_ahead(const struct volume *v)
{
	unsigned n = 0;
	link_for(l, &v->log.segments) {
		const struct log_segment *g = container_of(l, struct log_segment, link);
		n += !g->finished && g != v->log.current;
	}
	return n;
}

/* The oldest finished segment whose records are all acknowledged and whose cut isn't recorded. */
static struct log_segment *finished_uncut(struct volume *v)
{
	link_for(l, &v->log.segments) {
		struct log_segment *g = container_of(l, struct log_segment, link);
		if (g->finished && !g->cut && g->acked == g->next)
			return g;
	}
	return NULL;
}

/* One id above last_id, created on the server. */
static int create_one(struct volume *v, uint64_t above, bool reserve, struct meta_segment *ret)
{
	uint64_t id;
	int r = catalog_counter_take(v->catalog, "counter/segment", above, 1, &id);
	if (r < 0)
		return r;
	struct meta_segment g = { .id = id, .epoch = v->epoch, .salt = env_random(v->env), .size_blocks = v->limits.segment_blocks,
				  .ensemble_count = 1,
				  .ensemble = { { v->server->id, v->server->incarnation } } };
	struct segment_io io = { .op = SEGMENT_CREATE, .segment = id, .epoch = v->epoch, .incarnation = v->server->incarnation,
				 .reserve = reserve, .header = { id, v->meta.volume, v->epoch, g.salt, g.size_blocks } };
	r = segment_wait(v->server, &io);
	if (r == 0)
		*ret = g;
	return r;
}

int log_create_segments(struct volume *v, struct meta_log *log, unsigned count, bool reserve)
{
	int r = 0;
	for (unsigned i = 0; r == 0 && i < count; i++) {
		if (log->segment_count == META_SEGMENTS_MAX)
			return -EMLINK;
		r = create_one(v, log->last_id, reserve, &log->segments[log->segment_count]);
		if (r == 0)
			log->last_id = log->segments[log->segment_count++].id;
	}
	return r;
}

int log_segment_listed(struct volume *v, const struct meta_segment *meta)
{
	int r = space_add_segment(&v->space, meta->id, meta->size_blocks);
	return r < 0 ? r : log_segment_add(v, meta) ? 0 : -ENOMEM;
}

void log_record_cut(struct meta_log *log, const struct log_segment *g)
{
	for (uint32_t i = 0; i < log->segment_count; i++) {
		struct meta_segment *m = &log->segments[i];
		if (m->id != g->meta.id)
			continue;
		m->cut = true;
		m->length = g->acked;
		m->prev = g->acked_crc;
	}
}

void log_seal(struct volume *v, const struct log_segment *g)
{
	struct segment_io io = { .op = SEGMENT_SEAL, .segment = g->meta.id, .epoch = v->epoch, .block = g->acked, .crc = g->acked_crc };
	segment_wait(v->server, &io); /* only hastens what any later owner or server can do */
}

/* One transaction: the cut of the oldest finished segment, if there is one, and new segments. */
static int roll(struct volume *v)
{
	struct publication *p = malloc(sizeof *p);
	int r = p ? 0 : -ENOMEM;
	if (r == 0 && finished_uncut(v))
		r = log_flush_wait(v); /* a cut is synced first */
	if (r < 0) {
		free(p);
		return r;
	}
	publish_begin(v, p); /* keeps the mender out, too */
	struct log_segment *done = finished_uncut(v);
	if (done && done->synced < done->acked)
		done = NULL;
	uint32_t before = p->log.segment_count;
	unsigned ahead = segments_ahead(v);
	r = log_create_segments(v, &p->log, ahead < LOG_SEGMENTS_AHEAD ? LOG_SEGMENTS_AHEAD - ahead : 0,
				/* reserve= */ v->frees_only || (v->log.full && log_room(v) <= checkpoint_reserve(v)));
	bool full = r == -ENOSPC;
	if (v->log.mending || (r < 0 && !(done && full))) {
		publish_abort(p);
		free(p);
		return r;
	}
	if (done)
		log_record_cut(&p->log, done);
	struct meta_log *log = &p->log;
	r = publish_commit(p);
	for (uint32_t i = before; r == 0 && i < log->segment_count; i++)
		r = log_segment_listed(v, &log->segments[i]);
	free(p);
	if (r == 0 && done) {
		done->cut = true;
		log_seal(v, done);
		log_segment_drop(v, done);
	}
	return r == 0 && full ? -ENOSPC : r;
}

static bool roll_due(struct volume *v)
{
	if (v->log.mending || v->meta.segment_count >= META_SEGMENTS_MAX - 4)
		return false;
	return segments_ahead(v) < LOG_SEGMENTS_AHEAD || finished_uncut(v);
}

static int roller(void *arg)
{
	struct volume *v = arg;
	struct log *l = &v->log;
	while (!v->closing && !v->failed) {
		if (!roll_due(v)) {
			fiber_cond_wait(&v->env->loop, &l->changed);
			continue;
		}
		int r = roll(v);
		l->full = r == -ENOSPC;
		log_pump(v);
		if (r == -ESHUTDOWN)
			volume_fail(v, r);
		if (r < 0 && !v->failed) /* the catalog or the server is away, or full: writes go on in what is listed */
			fiber_sleep(&v->env->loop, 100 * NS_PER_MS);
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
