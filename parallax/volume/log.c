/* The log's writer: gathers what waits into records, sends them to the current segment, a
 * window of them at a time, and acknowledges them in order (R10). A segment's last record is
 * acknowledged before the next segment's first is sent (R11). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/volume/volume_private.h"

static void log_answered(struct job *j);

enum { DEPTH_UNIT = 256 };

/* ---- life ---- */

int log_init(struct volume *v)
{
	struct log *l = &v->log;
	link_init(&l->segments);
	link_init(&l->writes);
	link_init(&l->appends);
	link_init(&l->flying);
	link_init(&l->applying);
	link_init(&l->idle);
	link_init(&l->flushes);
	fiber_cond_init(&l->changed);
	l->window = v->limits.window;
	l->kept_from = UINT64_MAX;
	l->records = calloc(LOG_WINDOW_MAX * 2, sizeof *l->records);
	if (!l->records)
		return -ENOMEM;
	for (unsigned i = 0; i < LOG_WINDOW_MAX * 2; i++) {
		struct log_record *r = &l->records[i];
		r->volume = v;
		r->header = env_alloc_aligned((size_t)LOG_HEADER_BLOCKS * BLOCK_BYTES);
		if (!r->header)
			return -ENOMEM;
		link_init(&r->writes);
		link_push(&l->idle, &r->link);
	}
	return 0;
}

void log_destroy(struct volume *v)
{
	struct log *l = &v->log;
	while (!link_empty(&l->segments))
		log_segment_drop(v, container_of(l->segments.next, struct log_segment, link));
	for (unsigned i = 0; l->records && i < LOG_WINDOW_MAX * 2; i++)
		free(l->records[i].header);
	free(l->records);
	free(l->syncs);
}

struct log_segment *log_segment_add(struct volume *v, const struct meta_segment *meta)
{
	struct log_segment *g = calloc(1, sizeof *g);
	if (!g)
		return NULL;
	g->meta = *meta;
	for (uint32_t i = 0; i < meta->ensemble_count; i++) {
		g->peers[i] = copies_peer(v->copies, &meta->ensemble[i].server);
		if (!g->peers[i]) {
			free(g);
			return NULL;
		}
	}
	g->next = g->acked = g->synced = 1;
	link_init(&g->retained);
	link_push(&v->log.segments, &g->link);
	return g;
}

void log_segment_drop(struct volume *v, struct log_segment *g)
{
	if (v->log.current == g)
		v->log.current = NULL;
	log_retain_drop(v, g, UINT32_MAX);
	link_drop(&g->link);
	free(g);
}

static uint64_t room_from(const struct volume *v, uint64_t segment)
{
	uint64_t room = 0;
	link_for(l, &v->log.segments) {
		const struct log_segment *g = container_of(l, struct log_segment, link);
		if (!g->finished && g->meta.id >= segment)
			room += g->meta.size_blocks - g->next;
	}
	return room;
}

uint64_t log_room(const struct volume *v) { return room_from(v, 0); }

uint64_t log_room_kept(const struct volume *v) { return room_from(v, v->log.kept_from); }

/* What a server allocates of a segment when it is made: segment_dir_ahead.c. */
static uint32_t first_step(const struct log_segment *g) { return MIN(g->meta.size_blocks / 16, (uint32_t)LOG_STEP_BLOCKS); }

uint64_t log_room_certain(const struct volume *v)
{
	uint64_t room = log_room_kept(v);
	link_for(l, &v->log.segments) {
		const struct log_segment *g = container_of(l, struct log_segment, link);
		if (!g->finished && g->meta.id < v->log.kept_from)
			room += first_step(g) - MIN(first_step(g), g->next);
	}
	return room;
}

/* ---- failing ---- */

static void flying_less(struct log *l, const struct log_record *r)
{
	l->flying_count--;
	l->flying_writes -= r->write_count;
}

static void end_write(struct volume_write *w, int status)
{
	w->busy = false;
	job_put(w->parent, status);
}

static void fail_writes(struct volume *v, int status)
{
	for (struct link *k; (k = link_pop(&v->log.writes));)
		end_write(container_of(k, struct volume_write, link), status);
	v->log.queued = 0;
}

static void fail_appends(struct volume *v, int status)
{
	for (struct link *k; (k = link_pop(&v->log.appends));)
		job_put(container_of(k, struct log_append, link)->parent, status);
}

static void fail_records(struct volume *v, struct link *list, int status)
{
	for (struct link *k; (k = link_pop(list));) {
		struct log_record *r = container_of(k, struct log_record, link);
		for (struct link *w; (w = link_pop(&r->writes));)
			end_write(container_of(w, struct volume_write, link), status);
		if (r->append)
			job_put(r->append->parent, status);
		r->append = NULL;
		link_push(&v->log.idle, &r->link);
	}
}

/* Everything ends, now and later. What is in flight at the servers is waited for by log_answered(). */
void volume_fail(struct volume *v, int status)
{
	if (v->failed)
		return;
	v->failed = status;
	v->sources.patient = false;
	v->sources.unsettled = NULL;
	fail_writes(v, -EIO);
	fail_appends(v, -EIO);
	struct log *l = &v->log;
	struct link answered;
	link_init(&answered);
	link_for_safe(k, n, &l->flying) {
		struct log_record *r = container_of(k, struct log_record, link);
		if (r->answered) {
			link_drop(&r->link);
			link_push(&answered, &r->link);
			flying_less(l, r);
		}
	}
	fail_records(v, &answered, -EIO);
	if (!v->apply.waiting)
		apply_run(v);
	log_flush_fail(v);
	fiber_cond_wake(&l->changed);
}

/* ---- gathering ---- */

static void record_begin(struct log_record *r, enum record_kind kind)
{
	r->head = (struct record){ .kind = kind, .entries = r->entries, .crcs = r->crcs };
	r->iov_count = 1; /* the header's place */
	r->append = NULL;
	r->placed = false;
	r->write_count = 0;
}

static bool record_takes(const struct log_record *r, const struct volume_write *w, uint32_t room)
{
	if (w->clear != (r->head.kind == RECORD_DISCARD))
		return false;
	uint32_t payload = r->head.payload_blocks + (w->clear ? 0 : w->count);
	uint32_t entries = r->head.entry_count + 1;
	return entries <= LOG_DATA_BLOCKS && payload <= LOG_DATA_BLOCKS && r->iov_count + w->iov_count <= LOG_IOV_MAX &&
	       record_header_blocks(entries, payload) + payload <= room;
}

static void record_add(struct log *l, struct log_record *r, struct volume_write *w)
{
	struct record_entry *last = r->head.entry_count ? &r->entries[r->head.entry_count - 1] : NULL;
	if (last && last->first + last->count == w->first && last->count <= UINT32_MAX - w->count)
		last->count += w->count;
	else
		r->entries[r->head.entry_count++] = (struct record_entry){ w->first, w->count, 0 };
	if (!w->clear) {
		w->payload = r->head.payload_blocks;
		iov_block_crcs(w->iov, w->iov_count, 0, w->count, r->crcs + w->payload);
		for (int i = 0; i < w->iov_count; i++)
			r->iov[r->iov_count++] = w->iov[i];
		r->head.payload_blocks += w->count;
	}
	link_drop(&w->link);
	link_push(&r->writes, &w->link);
	w->record = r;
	l->queued--;
	r->write_count++;
}

static bool gather_writes(struct log *l, struct log_record *r, uint32_t room)
{
	struct volume_write *first = container_of(l->writes.next, struct volume_write, link);
	record_begin(r, first->clear ? RECORD_DISCARD : RECORD_DATA);
	while (!link_empty(&l->writes)) {
		struct volume_write *w = container_of(l->writes.next, struct volume_write, link);
		if (!record_takes(r, w, room))
			break;
		record_add(l, r, w);
	}
	return r->head.entry_count > 0;
}

static bool gather_append(struct log *l, struct log_record *r, uint32_t room)
{
	struct log_append *a = container_of(l->appends.next, struct log_append, link);
	if (record_header_blocks(a->entry_count, a->payload_blocks) + a->payload_blocks > room)
		return false;
	record_begin(r, a->kind);
	assert(a->payload_blocks <= LOG_DATA_BLOCKS && a->entry_count <= LOG_DATA_BLOCKS && a->iov_count <= LOG_IOV_MAX);
	r->head.mark = a->mark;
	for (uint32_t i = 0; i < a->entry_count; i++)
		r->entries[r->head.entry_count++] = a->entries[i];
	for (uint32_t i = 0; i < a->payload_blocks; i++)
		r->crcs[i] = a->crcs[i];
	r->head.payload_blocks = a->payload_blocks;
	for (int i = 0; i < a->iov_count; i++)
		r->iov[r->iov_count++] = a->iov[i];
	r->append = a;
	link_drop(&a->link);
	return true;
}

/* ---- sending ---- */

/* Its place is known; nobody reads its buffers (any more). */
static void record_place(struct log_record *r)
{
	struct log_append *a = r->append;
	if (!a || !a->placed || (r->placed && PLANTED(log_placed_once)))
		return;
	uint32_t header = record_header_blocks(r->head.entry_count, r->head.payload_blocks);
	a->placed(a, position_make(r->head.segment, r->head.block) + header);
	memcpy(r->crcs, a->crcs, r->head.payload_blocks * sizeof *r->crcs);
	r->placed = true;
}

/* Puts the record at the current segment's end and sends it. Its seq is set. */
static void record_send(struct volume *v, struct log_record *r)
{
	struct log *l = &v->log;
	struct log_segment *g = l->current;
	r->segment = g;
	r->head.segment = g->meta.id;
	r->head.epoch = g->meta.epoch;
	r->head.salt = g->meta.salt;
	r->head.block = g->next;
	r->head.prev = l->last_crc;
	r->head.acked = l->acked_seq;
	r->head.synced = l->synced_seq;
	record_place(r);
	record_encode(&r->head, r->header);
	l->last_crc = r->head.header_crc;
	r->iov[0] = (struct iovec){ r->header, (size_t)r->head.header_blocks * BLOCK_BYTES };
	g->next += record_blocks(&r->head);
	r->answered = false;
	job_init(&r->job, &v->env->loop);
	for (uint32_t i = 0; i < g->meta.ensemble_count; i++) {
		r->io[i] = (struct segment_io){ .op = SEGMENT_APPEND, .segment = g->meta.id, .epoch = g->meta.epoch,
						.incarnation = g->meta.ensemble[i].incarnation, .block = r->head.block,
						.blocks = record_blocks(&r->head), .iov = r->iov, .iov_count = r->iov_count };
		peer_submit(g->peers[i], &r->io[i], &r->job);
	}
	job_then(&r->job, log_answered);
}

/* The most writes that were under way lately; it sinks by a sixteenth with each record. */
static void depth_note(struct log *l)
{
	l->depth -= l->depth / 16;
	l->depth = MAX(l->depth, (l->queued + l->flying_writes) * DEPTH_UNIT);
}

static void record_fly(struct volume *v, struct log_record *r)
{
	struct log *l = &v->log;
	r->acked = false;
	r->head.seq = l->next_seq++;
	link_for(k, &r->writes)
		container_of(k, struct volume_write, link)->seq = r->head.seq;
	link_push(&l->flying, &r->link);
	l->flying_count++;
	l->flying_writes += r->write_count;
	depth_note(l);
	v->counters.records++;
	v->counters.data_blocks += r->head.kind == RECORD_DATA ? r->head.payload_blocks : 0;
	record_send(v, r);
	v->counters.appended_blocks += record_blocks(&r->head);
	l->bytes_since_from += (uint64_t)record_blocks(&r->head) * BLOCK_BYTES;
}

void log_resend(struct volume *v)
{
	struct log *l = &v->log;
	l->last_crc = l->acked_crc;
	link_for(k, &l->flying)
		record_send(v, container_of(k, struct log_record, link));
}

/* Nothing of it was acknowledged, so it never was; its numbers are used again, in another segment (R2), once the cut of this
 * one is recorded. */
void log_withdraw(struct volume *v)
{
	struct log *l = &v->log;
	struct link taken;
	link_init(&taken);
	link_splice(&taken, &l->flying);
	l->flying_count = l->flying_writes = 0;
	l->next_seq = l->acked_seq + 1;
	l->last_crc = l->acked_crc;
	fail_records(v, &taken, -ENOSPC);
}

/* The next segment ahead becomes the current one; false if there is none. */
static bool turn_segment(struct volume *v)
{
	struct log *l = &v->log;
	if (l->current)
		l->current->finished = true;
	link_for(k, &l->segments) {
		struct log_segment *g = container_of(k, struct log_segment, link);
		if (!g->finished && g != l->current) {
			l->current = g;
			fiber_cond_wake(&l->changed);
			return true;
		}
	}
	l->current = NULL;
	fiber_cond_wake(&l->changed);
	return false;
}

/* Segments are allocated as they are written (R35). When there is no space for another, those ahead, which have at least
 * their beginning allocated, are for what frees space. */
static bool data_may_go(const struct log *l)
{
	if (!l->full)
		return true;
	const struct log_segment *g = l->current;
	return !l->starved && g && g->meta.id < l->kept_from && g->meta.size_blocks - g->next >= LOG_DATA_BLOCKS + LOG_HEADER_BLOCKS;
}

/* Guest data stops while listed space is what the next checkpoint may need (R20); discards, which free space, a
 * little later. */
static bool writes_may_go(struct volume *v)
{
	const struct volume_write *first = container_of(v->log.writes.next, struct volume_write, link);
	if (v->meta.segment_count >= LOG_SEGMENTS_ROLLED) /* what is still listed is for the checkpoint that makes the list shorter */
		return false;
	if (v->tree.dirty_count > v->node_limit * 2 || log_retain_full(v) || (!first->clear && (v->trim_behind || !data_may_go(&v->log))))
		return false;
	return log_room(v) > checkpoint_reserve(v) + (first->clear ? 0 : LOG_CLEAR_ROOM);
}

/* Honest (P7): what can't be written is refused at once. Discards may go on into the reserve, and nothing that frees
 * space is refused while there is any of that. */
void log_refuse(struct volume *v)
{
	struct log *l = &v->log;
	if (!l->full || v->failed)
		return;
	if (l->dry && !l->current && !l->mending)
		fail_appends(v, -ENOSPC);
	if (!l->starved && !link_empty(&l->writes) && !l->mending && !v->trim_behind && (!l->current || !writes_may_go(v)) &&
	    v->tree.dirty_count <= v->node_limit * 2)
		l->starved = true;
	if (!l->starved)
		return;
	bool clears_too = l->dry && (!l->current || log_room(v) <= checkpoint_reserve(v));
	link_for_safe(k, n, &l->writes) {
		struct volume_write *w = container_of(k, struct volume_write, link);
		if (w->clear && !clears_too)
			continue;
		link_drop(&w->link);
		l->queued--;
		end_write(w, -ENOSPC);
	}
}

/* A snapshot waits for it: it takes no turns. */
static bool mark_waits(const struct log *l)
{
	return !link_empty(&l->appends) && container_of(l->appends.next, struct log_append, link)->kind == RECORD_MARK;
}

static bool gather(struct volume *v, struct log_record *r, uint32_t room, bool *ret_any)
{
	struct log *l = &v->log;
	bool writes = !link_empty(&l->writes) && writes_may_go(v), appends = !link_empty(&l->appends);
	*ret_any = writes || appends;
	if (!*ret_any)
		return false;
	bool append = appends && (!writes || l->append_next || mark_waits(l));
	l->append_next = !append;
	return append ? gather_append(l, r, room) : gather_writes(l, r, room);
}

/* Beside a record that flies another is sent when half of the writes that may be expected are there: one for each write would cost
 * every server as much as one for all of them. */
static bool worth_sending(const struct log *l)
{
	return l->flying_count == 0 || !link_empty(&l->appends) || l->queued * 2 * DEPTH_UNIT >= l->depth || l->queued >= LOG_IOV_MAX / 2;
}

void log_pump(struct volume *v)
{
	struct log *l = &v->log;
	while (!v->failed && !l->mending && l->flying_count < l->window + mark_waits(l) && worth_sending(l) && !link_empty(&l->idle) &&
	       !(link_empty(&l->writes) && link_empty(&l->appends))) {
		if (!l->current && !turn_segment(v))
			break;
		struct log_record *r = container_of(l->idle.next, struct log_record, link);
		bool any;
		if (gather(v, r, l->current->meta.size_blocks - l->current->next, &any)) {
			link_drop(&r->link);
			record_fly(v, r);
			continue;
		}
		if (!any) { /* writes wait for room */
			checkpoint_consider(v);
			fiber_cond_wake(&l->changed);
			break;
		}
		if (l->flying_count > 0 && !PLANTED(log_no_chain))
			break; /* R11 */
		if (!turn_segment(v))
			break;
	}
	log_refuse(v);
}

/* ---- acknowledging ---- */

static void record_acked(struct volume *v, struct log_record *r)
{
	struct log *l = &v->log;
	struct log_segment *g = r->segment;
	r->acked = true;
	l->acked_seq = r->head.seq;
	l->acked_crc = r->head.header_crc;
	g->acked = r->head.block + record_blocks(&r->head);
	g->acked_crc = r->head.header_crc;
	log_retain(v, r);
	link_drop(&r->link);
	flying_less(l, r);
	link_push(&l->applying, &r->link);
}

/* Of the servers where such a segment belongs enough haven't just said that they are full: one that wasn't there when this segment was made may be
 * among them, and one that is away now is waited for (R16). */
static bool room_elsewhere(struct volume *v, const struct log_record *r)
{
	struct peer *peers[META_REPLICAS_MAX];
	const struct log_segment *g = r->segment;
	unsigned n = (PLANTED(full_as_away) ? copies_connected : copies_targets)(v->copies, g->meta.id, v->meta.replicas, peers), left = n;
	for (unsigned i = 0; i < n; i++)
		for (uint32_t k = 0; k < g->meta.ensemble_count; k++)
			left -= g->peers[k] == peers[i] && r->io[k].status == -ENOSPC;
	return left >= v->meta.min_replicas;
}

/* What all of its copies say. A refusal of the epoch outweighs the rest (R18). A lack of space is the volume's only if it
 * leaves too few copies, also in another segment; otherwise that server is one that failed. */
static int record_status(struct volume *v, const struct log_record *r, int status)
{
	const struct log_segment *g = r->segment;
	uint32_t full = 0, n = g->meta.ensemble_count;
	bool fenced = false;
	for (uint32_t i = 0; i < n && status; i++) {
		peer_blame(g->peers[i], r->io[i].status);
		full += r->io[i].status == -ENOSPC;
		fenced |= r->io[i].status == -EPERM;
	}
	if (fenced)
		return -EPERM;
	if (full)
		return n - full >= v->meta.min_replicas || room_elsewhere(v, r) ? -ESTALE : -ENOSPC;
	return status;
}

static void log_answered(struct job *j)
{
	struct log_record *r = container_of(j, struct log_record, job);
	struct volume *v = r->volume;
	struct log *l = &v->log;
	r->answered = true;
	r->status = record_status(v, r, j->status);
	if (v->failed) {
		struct link one;
		link_init(&one);
		link_drop(&r->link);
		link_push(&one, &r->link);
		flying_less(l, r);
		fail_records(v, &one, -EIO);
		fiber_cond_wake(&l->changed);
		return;
	}
	while (!link_empty(&l->flying)) {
		struct log_record *first = container_of(l->flying.next, struct log_record, link);
		if (!first->answered || first->status)
			break;
		record_acked(v, first);
	}
	if (r->status)
		log_trouble(v, r->status);
	apply_run(v);
	log_pump(v);
	if (l->mending)
		fiber_cond_wake(&l->changed);
}

void log_record_done(struct volume *v, struct log_record *r)
{
	struct log *l = &v->log;
	link_drop(&r->link);
	int status = v->failed ? -EIO : 0;
	if (l->full && r->head.kind == RECORD_DISCARD)
		v->checkpoint_wanted = true; /* what it freed is needed */
	for (struct link *k; (k = link_pop(&r->writes));) {
		struct volume_write *w = container_of(k, struct volume_write, link);
		end_write(w, status);
	}
	if (r->append) {
		r->append->seq = r->head.seq;
		r->append->position = position_make(r->head.segment, r->head.block);
		r->append->payload_position = r->append->position + r->head.header_blocks;
		r->append->header_crc = r->head.header_crc;
		job_put(r->append->parent, status);
		r->append = NULL;
	}
	link_push(&l->idle, &r->link);
}

/* ---- what callers see ---- */

void volume_write(struct volume *v, struct volume_write *w, struct job *parent)
{
	job_hold(parent);
	w->parent = parent;
	w->record = NULL;
	w->busy = !v->failed;
	if (v->failed) {
		job_put(parent, -EIO);
		return;
	}
	link_push(&v->log.writes, &w->link);
	v->log.queued++;
	log_pump(v);
}

void log_append(struct volume *v, struct log_append *a, struct job *parent)
{
	job_hold(parent);
	a->parent = parent;
	if (v->failed) {
		job_put(parent, -EIO);
		return;
	}
	if (a->kind == RECORD_MARK)
		link_push_front(&v->log.appends, &a->link);
	else
		link_push(&v->log.appends, &a->link);
	log_pump(v);
}

int log_append_wait(struct volume *v, struct log_append *a)
{
	struct job j;
	job_init(&j, &v->env->loop);
	log_append(v, a, &j);
	return fiber_wait(&j);
}
