/* Taking a volume over (R17), also from an owner that closed it cleanly, when there is simply nothing
 * listed. Nothing is served before the one transaction that fixes the lengths and lists our first segments. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/volume/blob.h"
#include "parallax/volume/volume_private.h"

/* An uncut segment's copies, as its servers found them. */
struct found {
	struct peer *peers[META_REPLICAS_MAX];
	struct segment_io ios[META_REPLICAS_MAX];
	unsigned source;               /* whose length it is */
	bool bad[META_REPLICAS_MAX];   /* it was, and couldn't be read to its end */
	struct peer *holders[META_REPLICAS_MAX]; /* have all of it, verified and synced */
	unsigned holder_count;
};

struct recovery {
	struct volume *v;
	struct replay walk;
	struct found found[META_SEGMENTS_MAX];
	bool accept_flushed;
	bool without;                         /* the operator accepts that a segment is missing */
	uint8_t *kept;                        /* what the first walk saw, for the replay: see keep_record() */
	size_t kept_bytes, kept_room;
	bool kept_all;
};

/* ---- what the first walk saw ---- */

enum { AHEAD_ENTRIES = 256 }; /* whose leaves are loaded together */
#define MAP_STEP_NS (50 * NS_PER_MS)

/* Within the cache's budget, of which the replay's dirty nodes take a half at most. */
static size_t kept_limit(const struct volume *v) { return v->limits.cache_bytes / 4; }

/* Its entries and checksums follow it. */
struct kept_record {
	struct record record;
	size_t bytes; /* all of it */
};

static int keep_record(struct replay *p, struct record *r)
{
	struct recovery *c = container_of(p, struct recovery, walk);
	size_t entries = r->entry_count * sizeof *r->entries, crcs = r->payload_blocks * sizeof *r->crcs;
	struct kept_record k = { *r, round_up(sizeof k + entries + crcs, 8) };
	if (c->kept_all && c->kept_bytes + k.bytes > c->kept_room) {
		size_t room = 2 * (c->kept_bytes + k.bytes);
		uint8_t *kept = room <= kept_limit(p->volume) ? realloc(c->kept, room) : NULL;
		c->kept_all = kept != NULL;
		c->kept = kept ? kept : c->kept;
		c->kept_room = kept ? room : c->kept_room;
	}
	if (!c->kept_all)
		return 0; /* the log will be read again */
	uint8_t *to = c->kept + c->kept_bytes;
	memcpy(to, &k, sizeof k);
	memcpy(to + sizeof k, r->entries, entries);
	memcpy(to + sizeof k + entries, r->crcs, crcs);
	c->kept_bytes += k.bytes;
	return 0;
}

/* ---- lengths ---- */

static int missing(const struct meta_segment *m, const struct found *f, struct report *report)
{
	char who[META_TEXT_MAX];
	peers_missing(f->peers, m->ensemble_count, who, sizeof who);
	return report_set(report, -ENOTCONN, "the end of its log can't be had: too few of its servers answer, missing: %s (bring them back, then attach again)",
			  who[0] ? who : "one that was lost meanwhile");
}

static int fence_failed(const struct volume *v, uint64_t segment, int status, struct report *report)
{
	if (status == -EPROTONOSUPPORT)
		return report_set(report, status, "segment %llu is of a newer version than %s (upgrade %s)", (unsigned long long)segment,
				  v->server ? "this program knows" : "a server that has it knows", v->server ? "this program" : "the servers");
	return report_set(report, status, "segment %llu can't be taken over: %s", (unsigned long long)segment, errno_text(status));
}

/* A sync of every copy there is failed once, so what wasn't flushed by then may be missing. R17.2: the operator decides. */
static int judge_broken(struct recovery *c, const struct segment_io *io, struct report *report)
{
	if (io->lost_synced)
		return report_set(report, -EIO, "the only copy of segment %llu is damaged or an older one: writes that were flushed are missing from it "
				  "(restore the store with its catalog from a backup, or roll back to a snapshot)", (unsigned long long)io->segment);
	if (!c->accept_flushed)
		return report_set(report, -EIO, "a disk write failed under it: all that was flushed is there, later writes may be lost "
				  "(attach with --accept-flushed to go on without them)");
	return 0;
}

static bool is_absent(const struct segment_io *io) { return io->status == -ENOENT || (io->status == 0 && io->state == COPY_ABSENT); }

/* Of broken ones, what was synced counts more than what is there. */
static bool is_better(const struct segment_io *a, const struct segment_io *than)
{
	if (a->lost_synced != than->lost_synced && !PLANTED(recover_longest_broken))
		return than->lost_synced;
	return a->length > than->length;
}

/* The longest copy in that state. False: there is none. */
static bool longest(const struct meta_segment *m, struct found *f, enum copy_state state)
{
	bool any = false;
	for (unsigned i = 0; i < m->ensemble_count; i++) {
		const struct segment_io *io = &f->ios[i];
		if (PLANTED(recover_any_copy) && io->status == 0 && !is_absent(io)) {
			f->source = i;
			return true;
		}
		if (io->status || is_absent(io) || io->state != state || f->bad[i] || (any && !is_better(io, &f->ios[f->source])))
			continue;
		f->source = i;
		any = true;
	}
	return any;
}

/* A whole copy has all that was acknowledged, if its disk kept it. What another one has beyond that was checked by its server likewise and continues it (R2), and
 * that it was acknowledged isn't known; but if the end of the whole one is damaged it was. */
static void take_longer(const struct meta_segment *m, struct found *f)
{
	for (unsigned i = 0; i < m->ensemble_count && !PLANTED(recover_whole_alone); i++) {
		const struct segment_io *io = &f->ios[i];
		if (io->status == 0 && io->state == COPY_DOUBTFUL && !f->bad[i] && io->length > f->ios[f->source].length)
			f->source = i;
	}
}

/* A segment that isn't cut is only found sealed when the catalog was restored from a backup of the time before: the cut was recorded then (R9), and whoever
 * has the seal has exactly what was acknowledged. */
static bool any_sealed(const struct meta_segment *m, struct found *f)
{
	for (unsigned i = 0; i < m->ensemble_count; i++) {
		const struct segment_io *io = &f->ios[i];
		if (io->status || !io->sealed || is_absent(io) || io->state != COPY_WHOLE || f->bad[i])
			continue;
		f->source = i;
		return true;
	}
	return false;
}

/* FIBER. */
static bool is_restored(const struct volume *v)
{
	char when[64];
	return catalog_mark_read(v->catalog, STORE_RESTORED, when, sizeof when, NULL) == 0 && when[0];
}

/* It was durable before it was listed (R12). But since a backup was taken it may have been used and freed, or, which is more likely, have been given up without
 * being used, when the volume was closed: only the latter loses nothing, and nobody can tell. */
static int nowhere(struct recovery *c, uint32_t index, struct report *report)
{
	struct volume *v = c->v;
	const struct meta_segment *m = &v->meta.segments[index];
	struct found *f = &c->found[index];
	uint64_t from = v->meta.from_position;
	bool begins_in_it = m->id == position_segment(from) && position_block(from) > 1;
	bool restored = !begins_in_it && m->id >= position_segment(from) && is_restored(v);
	if (restored && c->accept_flushed) {
		f->source = 0;
		f->ios[0].length = 0;
		c->without = true;
		return 0;
	}
	return report_set(report, -EUCLEAN, restored ? "segment %llu is missing: since the backup of the catalog it was given up, or used and freed (attach with --accept-flushed goes on "
						       "without it; or roll back to a snapshot)"
						     : "segment %llu is missing (restore the store with its catalog from a backup, or roll back to a snapshot)",
			  (unsigned long long)m->id);
}

/* R17.2. One that is whole, or longer, has all that was acknowledged; without a whole one, when all were asked, the longest doubtful one has all
 * that was flushed. */
static int choose_source(struct recovery *c, uint32_t index, struct report *report)
{
	struct volume *v = c->v;
	const struct meta_segment *m = &v->meta.segments[index];
	struct found *f = &c->found[index];
	unsigned away = 0, absent = 0;
	int other = 0;
	for (unsigned i = 0; i < m->ensemble_count; i++) {
		away += segment_away(f->ios[i].status);
		absent += is_absent(&f->ios[i]);
		other = f->ios[i].status && !segment_away(f->ios[i].status) && !is_absent(&f->ios[i]) ? f->ios[i].status : other;
	}
	if (other == -EPERM || other == -ESHUTDOWN)
		return fence_failed(v, m->id, other, report);
	if (any_sealed(m, f))
		return 0;
	if (longest(m, f, COPY_WHOLE)) {
		take_longer(m, f);
		return 0;
	}
	if (away && !(c->accept_flushed && away + absent < m->ensemble_count))
		return missing(m, f, report);
	if (longest(m, f, COPY_DOUBTFUL))
		return 0;
	if (longest(m, f, COPY_BROKEN))
		return judge_broken(c, &f->ios[f->source], report);
	if (other)
		return fence_failed(v, m->id, other, report);
	return nowhere(c, index, report);
}

enum { FENCED_AT_ONCE = 4 }; /* segments: each copy that has no end yet is read to its end, a window of 4 MiB at a time */

static struct segment_io fence_of(const struct volume *v, const struct meta_segment *m)
{
	return (struct segment_io){ .op = PLANTED(recover_no_fence) ? SEGMENT_STAT : SEGMENT_FENCE, .segment = m->id, .epoch = v->epoch };
}

/* What is asked of whom, for one segment. */
static int fence_prepare(struct recovery *c, uint32_t index, struct report *report)
{
	struct volume *v = c->v;
	const struct meta_segment *m = &v->meta.segments[index];
	struct found *f = &c->found[index];
	if (v->server && memcmp(m->ensemble[0].server.bytes, v->server->id.bytes, sizeof v->server->id.bytes) != 0)
		return report_set(report, -EUCLEAN, "its data directory isn't the one it was written to (restore that, or roll back to a snapshot)");
	for (unsigned i = 0; i < m->ensemble_count; i++) {
		f->peers[i] = copies_peer(v->copies, &m->ensemble[i].server);
		if (!f->peers[i])
			return -ENOMEM;
		f->ios[i] = fence_of(v, m);
	}
	peers_await(f->peers, m->ensemble_count, MIN(m->ensemble_count, v->meta.min_replicas));
	return 0;
}

static bool enough_answered(const struct recovery *c, uint32_t index)
{
	const struct found *f = &c->found[index];
	unsigned n = 0;
	for (unsigned i = 0; i < c->v->meta.segments[index].ensemble_count; i++)
		n += !segment_away(f->ios[i].status);
	return n >= c->v->meta.min_replicas;
}

/* A disk that reads several copies to their ends takes longer for each; who was too late with that is asked again, about one at a time. False: nobody was. */
static bool fence_late(struct recovery *c, uint32_t index)
{
	const struct meta_segment *m = &c->v->meta.segments[index];
	struct found *f = &c->found[index];
	struct peer *peers[META_REPLICAS_MAX];
	struct segment_io ios[META_REPLICAS_MAX];
	unsigned place[META_REPLICAS_MAX], n = 0;
	for (unsigned i = 0; i < m->ensemble_count; i++)
		if (f->ios[i].status == -ETIMEDOUT) {
			place[n] = i;
			peers[n] = f->peers[i];
			ios[n++] = fence_of(c->v, m);
		}
	peers_wait(peers, ios, n);
	for (unsigned i = 0; i < n; i++)
		f->ios[place[i]] = ios[i];
	return n > 0;
}

/* R17.1: one that answers is enough to stop the old owner, for an append needs all. */
static int fence_segments(struct recovery *c, const uint32_t *indexes, unsigned count, struct report *report)
{
	struct peer *peers[FENCED_AT_ONCE * META_REPLICAS_MAX] = { NULL };
	struct segment_io ios[FENCED_AT_ONCE * META_REPLICAS_MAX];
	unsigned n = 0;
	int r = 0;
	for (unsigned k = 0; r == 0 && k < count; k++) {
		const struct found *f = &c->found[indexes[k]];
		r = fence_prepare(c, indexes[k], report);
		for (unsigned i = 0; r == 0 && i < c->v->meta.segments[indexes[k]].ensemble_count; i++) {
			peers[n] = f->peers[i];
			ios[n++] = f->ios[i];
		}
	}
	if (r < 0)
		return r;
	peers_wait(peers, ios, n);
	n = 0;
	for (unsigned k = 0; r == 0 && k < count; k++) {
		for (unsigned i = 0; i < c->v->meta.segments[indexes[k]].ensemble_count; i++)
			c->found[indexes[k]].ios[i] = ios[n++];
		r = choose_source(c, indexes[k], report);
		bool more = count > 1 && (segment_away(r) || (r == 0 && !enough_answered(c, indexes[k])));
		if (more && fence_late(c, indexes[k])) {
			if (report)
				report->text[0] = '\0';
			r = choose_source(c, indexes[k], report);
		}
	}
	return r;
}

static void take_sources(struct recovery *c)
{
	for (uint32_t i = 0; i < c->v->meta.segment_count; i++) {
		const struct found *f = &c->found[i];
		if (c->v->meta.segments[i].cut)
			continue;
		c->walk.length[i] = MAX(f->ios[f->source].length, UINT32_C(1));
		c->walk.source[i] = f->peers[f->source];
		c->walk.chosen[i] = true;
	}
}

/* Has any but the source all that was acknowledged? */
static bool other_whole(const struct meta_segment *m, const struct found *f)
{
	for (unsigned i = 0; i < m->ensemble_count; i++)
		if (i != f->source && !f->bad[i] && f->ios[i].status == 0 && f->ios[i].state == COPY_WHOLE)
			return true;
	return false;
}

/* What can't be read now isn't known to be lost: a whole copy is not given up for one that may have less. */
static bool is_kept(const struct recovery *c, const struct meta_segment *m, const struct found *f)
{
	return c->walk.unread && !c->accept_flushed && f->ios[f->source].state == COPY_WHOLE && !other_whole(m, f);
}

static void say_cure(struct report *report)
{
	size_t n = report ? strlen(report->text) : 0;
	if (n)
		snprintf(report->text + n, sizeof report->text - n, " (try again; if it stays so, attach with --accept-flushed to go on with what was flushed)");
}

/* The copy that the walk got stuck in is damaged, though its server doesn't know it; or its server is away since it was fenced, which is as if it had never
 * answered. Every whole copy has all that was acknowledged, so that another one will do. False: there is none. */
static bool choose_another(struct recovery *c, struct report *report)
{
	uint32_t index = c->walk.stuck - 1;
	struct report other = { "" };
	if (c->walk.stuck == 0 || c->v->meta.segments[index].cut || PLANTED(recover_one_source))
		return false;
	struct found *f = &c->found[index];
	if (is_kept(c, &c->v->meta.segments[index], f)) {
		say_cure(report);
		return false;
	}
	/* who says that it is to go on without servers didn't mean one that was there a moment ago */
	if (c->walk.gone && !other_whole(&c->v->meta.segments[index], f))
		return false;
	if (c->walk.gone)
		f->ios[f->source].status = -ENOTCONN;
	else
		f->bad[f->source] = true;
	if (choose_source(c, index, &other) < 0)
		return false;
	c->kept_bytes = 0;
	c->kept_all = true;
	c->walk.acked = c->walk.synced = c->walk.bytes = 0;
	c->walk.broken = false;
	take_sources(c);
	if (report)
		report->text[0] = '\0';
	return true;
}

/* The one before us had it made for us: our epoch is in it, so there was nobody to write. */
static bool is_ours(const struct volume *v, const struct meta_segment *m) { return !m->cut && (m->epoch == v->epoch || PLANTED(recover_adopts_any)); }

static int walk_log(struct recovery *c, struct report *report)
{
	int r = 0;
	for (bool again = true; again; again = r < 0 && choose_another(c, report))
		r = replay_walk(&c->walk, report);
	uint64_t missing = c->without || PLANTED(recover_next_unasked) ? 0 : c->walk.missing;
	if (r == 0 && MAX(c->walk.synced, missing) > c->walk.seq)
		r = report_set(report, -EIO, "writes that were flushed are missing from the log (the disk was replaced by an older copy?)");
	return r;
}

static int find_lengths(struct recovery *c, struct report *report)
{
	struct volume *v = c->v;
	uint32_t open[FENCED_AT_ONCE];
	unsigned n = 0;
	int r = 0;
	for (uint32_t i = 0; r == 0 && i < v->meta.segment_count; i++) {
		if (v->meta.segments[i].cut)
			c->walk.length[i] = v->meta.segments[i].length;
		else if (!is_ours(v, &v->meta.segments[i]))
			open[n++] = i;
		if (n == FENCED_AT_ONCE || (n && i == v->meta.segment_count - 1)) {
			r = fence_segments(c, open, n, report);
			n = 0;
		}
	}
	take_sources(c);
	return r ? r : walk_log(c, report);
}

/* One copy has [0, length), verified and durable. */
static int settle_copy(struct volume *v, const struct meta_segment *m, struct found *f, unsigned i, uint32_t length)
{
	const struct segment_io *was = &f->ios[i];
	if (was->status)
		return was->status;
	if (is_absent(was))
		return -ENOENT;
	if (i != f->source && (was->state == COPY_BROKEN || (f->bad[i] && was->sealed))) /* it is for good where there is a better one */
		return -EIO;
	if (i != f->source && f->bad[i] && !PLANTED(recover_bad_holds)) /* what its server says of it is known to be wrong */
		return log_copy_rewrite(v, m, f->peers[f->source], f->peers[i], length);
	if (was->sealed) { /* the same seal again: that it is this one, and durable */
		struct segment_io seal = { .op = SEGMENT_SEAL, .segment = m->id, .epoch = v->epoch, .block = length, .crc = f->ios[f->source].last_crc };
		return peer_wait(f->peers[i], &seal);
	}
	if (was->length < length)
		return log_copy_blocks(v, m, f->peers[f->source], f->peers[i], was->length, length);
	struct segment_io io = { .op = SEGMENT_REPAIR, .segment = m->id, .epoch = v->epoch, .block = length };
	return peer_wait(f->peers[i], &io);
}

/* R17.4 with R15 (a): on enough servers verified and durable, where it will be cut. */
static int settle_segment(struct recovery *c, uint32_t index, struct report *report)
{
	struct volume *v = c->v;
	const struct meta_segment *m = &v->meta.segments[index];
	struct found *f = &c->found[index];
	struct peer *bad[META_REPLICAS_MAX];
	unsigned bad_count = 0;
	int why = 0;
	bool damaged = false, unread = false, gone = false, away = false;
	f->holder_count = 0;
	for (unsigned i = 0; i < m->ensemble_count; i++) {
		int r = settle_copy(v, m, f, i, c->walk.length[index]);
		if (f->bad[i])
			bad[bad_count++] = f->peers[i];
		gone |= r == -EHOSTDOWN || (i == f->source && segment_away(r));
		r = r == -EHOSTDOWN ? -ENOTCONN : r;
		if (r == 0)
			f->holders[f->holder_count++] = f->peers[i];
		why = r && (!why || segment_away(why)) ? r : why;
		away |= segment_away(r);
		damaged |= r == -EBADMSG;
		unread |= r == -EREMOTEIO;
	}
	c->walk.stuck = 0;
	f->holder_count = log_copy_fresh(v, m, c->walk.length[index], bad, bad_count, f->holders, f->holder_count);
	if (f->holder_count >= v->meta.min_replicas || (f->holder_count && PLANTED(recover_few_copies)))
		return 0;
	c->walk.gone = gone && !PLANTED(recover_source_stays);
	c->walk.stuck = c->walk.gone || (!segment_away(why) && (damaged || unread)) ? index + 1 : 0;
	c->walk.unread = !c->walk.gone && !damaged;
	/* what is wrong with another copy is no reason not to wait for the source, or, if that is fine, for who may have all, too */
	if (segment_away(why) || c->walk.gone || (away && f->holder_count))
		return missing(m, f, report);
	return report_set(report, why, "segment %llu can't be verified and synced: %s", (unsigned long long)m->id, errno_text(why));
}

static int settle_lengths(struct recovery *c, struct report *report)
{
	int r = 0;
	for (uint32_t i = 0; r == 0 && i < c->v->meta.segment_count; i++)
		if (!c->v->meta.segments[i].cut && c->walk.length[i] > 1)
			r = settle_segment(c, i, report);
	return r;
}

static uint32_t last_crc(const struct recovery *c, uint32_t index) { return c->found[index].ios[c->found[index].source].last_crc; }

static void record_cuts(struct recovery *c, struct meta_log *log)
{
	uint32_t kept = 0;
	for (uint32_t i = 0; i < log->segment_count; i++) {
		struct meta_segment *m = &log->segments[i];
		if (!m->cut && c->walk.length[i] <= 1)
			continue; /* never used: its file goes with the next checkpoint */
		if (!m->cut) {
			m->cut = true;
			m->length = c->walk.length[i];
			m->prev = last_crc(c, i);
			m->ensemble_count = c->found[i].holder_count;
			for (uint32_t k = 0; k < m->ensemble_count; k++)
				m->ensemble[k] = (struct meta_replica){ c->found[i].holders[k]->id, peer_incarnation(c->found[i].holders[k]) };
		}
		log->segments[kept++] = *m;
	}
	log->segment_count = kept;
}

/* Only hastens what any later owner or server can do. */
static void seal_cuts(struct recovery *c, const struct meta_log *before)
{
	struct volume *v = c->v;
	for (uint32_t i = 0; i < before->segment_count; i++) {
		const struct meta_segment *m = &before->segments[i];
		const struct found *f = &c->found[i];
		struct segment_io ios[META_REPLICAS_MAX];
		if (m->cut || c->walk.length[i] <= 1)
			continue;
		for (unsigned k = 0; k < f->holder_count; k++)
			ios[k] = (struct segment_io){ .op = SEGMENT_SEAL, .segment = m->id, .epoch = v->epoch, .block = c->walk.length[i],
						      .crc = last_crc(c, i) };
		peers_wait(f->holders, ios, f->holder_count);
	}
}

/* ---- state as of the checkpoint ---- */

int recover_space(struct volume *v, struct report *report)
{
	uint8_t *bytes = NULL;
	int r = 0;
	if (v->meta.space.pointer.position) {
		r = blob_read(&v->sources, &v->meta.space, &bytes);
		if (r == 0)
			r = space_decode(&v->space, bytes, v->meta.space.length);
		free(bytes);
		if (r < 0)
			return report_set(report, r, "its space table, in segment %llu, can't be read: %s",
					  (unsigned long long)position_segment(v->meta.space.pointer.position), r == -EIO ? "it is damaged or missing there (restore it from a backup)" : errno_text(r));
	} else {
		v->space.mapped = v->meta.mapped_blocks; /* a clone begins with its parent's */
	}
	v->table_last = space_last_segment(&v->space);
	for (uint32_t i = 0; r == 0 && i < v->meta.segment_count; i++)
		r = space_add_segment(&v->space, v->meta.segments[i].id, v->meta.segments[i].size_blocks);
	if (r == 0)
		r = trim_note_table(v);
	v->version_end = v->meta.node_end;
	if (v->space.list_count)
		v->newest_mark = v->space.lists[v->space.list_count - 1].mark_seq;
	v->space_loaded = r == 0;
	return r;
}

/* ---- replay ---- */

/* The volume may have been larger when that was written, and since that checkpoint. */
static int grow(struct volume *v, const struct record *r)
{
	uint64_t end = 0;
	for (uint32_t i = 0; i < r->entry_count; i++) {
		if (!range_within(r->entries[i].first, r->entries[i].count, VOLUME_BYTES_MAX / BLOCK_BYTES))
			return -EUCLEAN;
		end = MAX(end, r->entries[i].first + r->entries[i].count);
	}
	return tree_grow(&v->tree, end);
}

static int replay_data(struct volume *v, const struct record *r)
{
	struct apply_cursor at = { 0 };
	struct tree_need need;
	uint64_t payload = position_make(r->segment, r->block) + r->header_blocks;
	int grown = grow(v, r);
	if (grown < 0)
		return grown;
	for (;;) {
		int status = apply_record(v, r, payload, &at, &need);
		if (status != -EAGAIN)
			return status;
		struct job j;
		job_init(&j, &v->env->loop);
		tree_load(&v->tree, &need, &j);
		apply_prefetch(v, r, &at, &j);
		status = fiber_wait(&j);
		if (status < 0)
			return status;
	}
}

static int replay_mark(struct volume *v, const struct record *r)
{
	struct meta_snapshot s;
	int status = meta_get_snapshot(v->catalog, v->id, r->seq, &s, NULL);
	if (status == -ENOENT)
		return 0; /* it was never published */
	return status < 0 ? status : apply_mark(v, r->seq, position_make(r->segment, r->block));
}

static int replay_record(struct replay *p, struct record *r)
{
	struct volume *v = p->volume;
	v->counters.replayed_records++;
	trim_note_replayed(v, r);
	if (PLANTED(recover_skip_discard) && r->kind == RECORD_DISCARD)
		return 0;
	switch (r->kind) {
	case RECORD_DATA:
	case RECORD_DISCARD: return replay_data(v, r);
	case RECORD_MARK: return replay_mark(v, r);
	default: return 0; /* what a checkpoint that was never published wrote */
	}
}

static size_t kept_at(const struct recovery *c, size_t at, struct kept_record *ret)
{
	memcpy(ret, c->kept + at, sizeof *ret);
	ret->record.bytes = NULL;
	ret->record.entries = (const void *)(c->kept + at + sizeof *ret);
	ret->record.crcs = (const void *)(ret->record.entries + ret->record.entry_count);
	return at + ret->bytes;
}

/* Loads together what the records from `at` on need: one record after the other would take a disk's latency for each. A round for each
 * level of the tree. Returns where the next ones begin; what fails is loaded again by who needs it. */
static size_t load_ahead(struct recovery *c, size_t at)
{
	struct volume *v = c->v;
	size_t end = at;
	for (uint64_t before = v->tree.misses - 1, rounds = 0; v->tree.misses != before && rounds < 4; rounds++) {
		struct job j;
		job_init(&j, &v->env->loop);
		before = v->tree.misses;
		end = at;
		for (uint32_t entries = 0; end < c->kept_bytes && entries < AHEAD_ENTRIES;) {
			struct kept_record k;
			struct apply_cursor start = { 0 };
			end = kept_at(c, end, &k);
			entries += k.record.entry_count;
			if ((k.record.kind == RECORD_DATA || k.record.kind == RECORD_DISCARD) && grow(v, &k.record) == 0)
				apply_prefetch(v, &k.record, &start, &j);
		}
		fiber_wait(&j);
	}
	return end;
}

static int replay_kept(struct recovery *c, struct report *report)
{
	int r = 0;
	for (size_t at = 0, ahead = 0; r == 0 && at < c->kept_bytes;) {
		struct kept_record k;
		if (at == ahead)
			ahead = load_ahead(c, at);
		size_t next = kept_at(c, at, &k);
		r = replay_record(&c->walk, &k.record);
		at = next;
		if (r < 0)
			report_set(report, r, "record %llu can't be replayed: %s", (unsigned long long)k.record.seq, strerror(-r));
	}
	c->v->log.bytes_since_from = c->walk.bytes;
	return r;
}

static int replay(struct recovery *c, struct report *report)
{
	if (c->kept_all)
		return replay_kept(c, report);
	struct volume *v = c->v;
	struct replay *p = calloc(1, sizeof *p);
	if (!p)
		return -ENOMEM;
	p->volume = v;
	p->record = replay_record;
	/* the list as it is now: what was dropped from it holds nothing */
	for (uint32_t i = 0; i < v->meta.segment_count; i++) {
		p->length[i] = v->meta.segments[i].cut ? v->meta.segments[i].length : 1;
		p->chosen[i] = !v->meta.segments[i].cut;
	}
	int r = replay_walk(p, report);
	if (r == 0 && p->seq != c->walk.seq)
		r = report_set(report, -EUCLEAN, "replay ended at record %llu instead of %llu", (unsigned long long)p->seq,
			       (unsigned long long)c->walk.seq);
	v->log.bytes_since_from = p->bytes;
	free(p);
	return r;
}

/* ---- all of it ---- */

/* While the map of servers changes a server may know another one than we do, and refuse to make a copy. */
static int create_own(struct volume *v, struct meta_log *log)
{
	uint32_t want = log->segment_count + (v->handed ? 1 : 1 + LOG_SEGMENTS_AHEAD);
	uint64_t begin = env_now_ns(v->env);
	for (;;) {
		int r = log_create_segments(v, log, want - log->segment_count, /* reserve= */ true);
		if (r != -ESTALE || env_now_ns(v->env) - begin >= COPIES_DEADLINE_NS || PLANTED(recover_one_map))
			return r;
		r = fiber_sleep(&v->env->loop, MAP_STEP_NS);
		if (r == 0)
			r = copies_read_map(v->copies);
		if (r < 0)
			return r;
	}
}

static int list_own(struct recovery *c, struct report *report)
{
	struct volume *v = c->v;
	if (v->meta.segment_count == 1 && is_ours(v, &v->meta.segments[0]))
		return log_segment_listed(v, &v->meta.segments[0]);
	struct publication *p = malloc(sizeof *p);
	struct meta_log *before = malloc(sizeof *before);
	int r = p && before ? 0 : -ENOMEM;
	if (r == 0) {
		publish_begin(v, p);
		*before = p->log;
		record_cuts(c, &p->log);
		if (before->segment_count) /* they are to be in the space table, also if there is nothing to replay in them */
			checkpoint_dirty(v);
		uint32_t kept = p->log.segment_count;
		r = create_own(v, &p->log);
		if (r == -ENOSPC)
			r = 0; /* it can be read, and written when there is space again */
		if (r < 0) {
			report_set(report, r, r == -ENOTCONN ? "%u of the servers where it keeps its segments have to answer, and fewer do (start them, then attach again)"
							     : "a segment can't be created (%u copies of it are needed)", v->meta.min_replicas);
			publish_abort(p);
		} else {
			r = publish_commit(p);
			if (r == -EIO)
				report_set(report, r, "its record in the catalog can't be written: %s", v->failed ? v->catalog_why : catalog_text(v->catalog, r));
		}
		for (uint32_t i = kept; r == 0 && i < p->log.segment_count; i++)
			r = log_segment_listed(v, &p->log.segments[i]);
	}
	if (r == 0)
		seal_cuts(c, before);
	free(before);
	free(p);
	return r;
}

int recover(struct volume *v, bool accept_flushed, struct report *report)
{
	struct recovery *c = calloc(1, sizeof *c);
	if (!c)
		return -ENOMEM;
	c->v = v;
	c->walk.volume = v;
	c->walk.record = keep_record;
	c->kept_all = true;
	c->accept_flushed = accept_flushed;
	int r = find_lengths(c, report);
	if (r == 0)
		r = settle_lengths(c, report);
	while (r < 0 && c->walk.stuck && choose_another(c, report)) { /* the source was damaged after it had been read, by being written again, say; or it is away since */
		r = walk_log(c, report);
		if (r == 0)
			r = settle_lengths(c, report);
	}
	if (r == 0 && !v->space_loaded)
		r = recover_space(v, report);
	if (r == 0)
		r = list_own(c, report);
	struct log *l = &v->log;
	l->acked_seq = l->synced_seq = v->applied_seq = c->walk.seq;
	l->next_seq = c->walk.seq + 1;
	l->last_crc = l->acked_crc = c->walk.crc;
	if (r == 0)
		r = replay(c, report);
	if (r == 0 && !link_empty(&l->segments))
		l->current = container_of(l->segments.next, struct log_segment, link);
	free(c->kept);
	free(c);
	if (r == 0 && v->meta.embedded && !PLANTED(orphans_keep))
		orphans_delete(v);
	return r;
}
