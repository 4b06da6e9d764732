#include "parallax/store/verify.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/store/verify_private.h"
#include "parallax/volume/volume_private.h"

int verify_fault(struct verify_work *w, int status, const char *format, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	w->how->faults++;
	return w->how->fault(w->how->arg, status, text);
}

/* ---- segments ---- */

struct verify_segment *verify_find(struct verify_work *w, uint64_t segment)
{
	size_t at = array_place(w->segments, w->segment_count, id, segment);
	return at < w->segment_count && w->segments[at].id == segment ? &w->segments[at] : NULL;
}

/* 1: the bit was set already; -ENOMEM. */
static int set_bit(const struct verify_segment *g, uint8_t **bits, uint32_t block)
{
	if (!*bits && !(*bits = calloc(1, div_up(g->blocks, 8))))
		return -ENOMEM;
	uint8_t *byte = &(*bits)[block / 8], bit = (uint8_t)(1u << block % 8);
	int was = (*byte & bit) != 0;
	*byte |= bit;
	return was;
}

static struct verify_segment *find_block(struct verify_work *w, uint64_t position, int *ret_status)
{
	struct verify_segment *g = verify_find(w, position_segment(position));
	*ret_status = 0;
	if (g && position_block(position) > 0 && position_block(position) < g->blocks)
		return g;
	*ret_status = verify_fault(w, -EUCLEAN, "segment %llu, block %u: %s has it, and there is no such %s", (unsigned long long)position_segment(position),
				   position_block(position), w->where, g ? "block" : "segment in the volume's table");
	return NULL;
}

int verify_use(struct verify_work *w, uint64_t position)
{
	int r;
	struct verify_segment *g = find_block(w, position, &r);
	if (!g)
		return r;
	r = set_bit(g, &g->used, position_block(position));
	if (r > 0)
		return verify_fault(w, -EUCLEAN, "segment %llu, block %u is used twice, the second time by %s", (unsigned long long)g->id,
				    position_block(position), w->where);
	g->reached += r == 0;
	w->how->live += r == 0;
	return r;
}

/* The block at `position` is on a list. */
static int verify_dead(struct verify_work *w, uint64_t position)
{
	int r;
	struct verify_segment *g = find_block(w, position, &r);
	if (!g)
		return r;
	r = set_bit(g, &g->dead, position_block(position));
	return r <= 0 ? r : verify_fault(w, -EUCLEAN, "segment %llu, block %u is on two dead lists, or twice on %s", (unsigned long long)g->id,
					 position_block(position), w->where);
}

/* ---- the table, copied: an open volume's may move while we read ---- */

static int copy_list(struct verify_list *l, const struct space_list *from)
{
	uint32_t written = (from->written[0].count > 0) + (from->written[1].count > 0);
	l->mark_seq = from->mark_seq;
	l->loose_count = from->tail[0].count + from->tail[1].count;
	l->chunks = malloc((from->chunk_count + written + 1) * sizeof *l->chunks);
	l->loose = malloc((l->loose_count + 1) * sizeof *l->loose);
	if (!l->chunks || !l->loose)
		return -ENOMEM;
	if (from->chunk_count)
		memcpy(l->chunks, from->chunks, from->chunk_count * sizeof *l->chunks);
	l->chunk_count = from->chunk_count;
	for (unsigned k = 0, at = 0; k < 2; k++) { /* what is in an unfinished chunk is in memory, too */
		if (from->written[k].count) {
			l->chunks[l->chunk_count] = from->written[k];
			l->chunks[l->chunk_count++].count = 0;
		}
		if (from->tail[k].count)
			memcpy(l->loose + at, from->tail[k].entries, from->tail[k].count * sizeof *l->loose);
		at += from->tail[k].count;
	}
	return 0;
}

static int copy_table(struct verify_work *w)
{
	const struct space *s = w->how->space;
	w->segments = calloc(s->segment_count + 1, sizeof *w->segments);
	w->lists = calloc(s->list_count + 1, sizeof *w->lists);
	int r = w->segments && w->lists ? 0 : -ENOMEM;
	for (uint32_t i = 0; r == 0 && i < s->segment_count; i++) {
		const struct space_segment *g = &s->segments[i];
		w->segments[w->segment_count++] = (struct verify_segment){ .id = g->id, .blocks = g->blocks, .live = g->live };
		r = g->pending ? -EAGAIN : 0;
	}
	for (uint32_t i = 0; r == 0 && i < s->list_count; i++) {
		r = s->lists[i].pending.count ? -EAGAIN : copy_list(&w->lists[i], &s->lists[i]);
		w->list_count++;
	}
	w->how->segments = w->segment_count;
	return r;
}

static void work_free(struct verify_work *w)
{
	for (uint32_t i = 0; i < w->segment_count; i++) {
		free(w->segments[i].used);
		free(w->segments[i].dead);
	}
	for (uint32_t i = 0; i < w->list_count; i++) {
		free(w->lists[i].chunks);
		free(w->lists[i].loose);
	}
	verify_walk_free(w);
	free(w->segments);
	free(w->lists);
	free(w->table);
}

/* ---- dead lists ---- */

static int read_chunk(struct verify_work *w, struct verify_list *l, const struct space_chunk *c);

static int read_index(struct verify_work *w, struct verify_list *l, const struct space_chunk *index, const uint8_t *block)
{
	uint64_t before = l->entries;
	int r = 0;
	for (uint32_t i = 0; r == 0 && i < index->count; i++) {
		struct space_chunk c;
		r = space_index_decode(index, block, i, &c);
		r = r ? verify_fault(w, -EUCLEAN, "%s: an index has an entry that is none", w->where) : read_chunk(w, l, &c);
	}
	return r || w->partial || l->entries - before == index->entries ? r : verify_fault(w, -EUCLEAN, "%s: an index has %llu entries, and says %u", w->where,
											   (unsigned long long)(l->entries - before), index->entries);
}

static int read_entries(struct verify_work *w, struct verify_list *l, const struct space_chunk *c, const uint8_t *block)
{
	int r = 0;
	for (uint32_t i = 0; r == 0 && i < c->count; i++) {
		uint64_t position = get_le64(block + (size_t)i * 8);
		if (position < c->min || position > c->max)
			r = verify_fault(w, -EUCLEAN, "%s: an entry is out of its order", w->where);
		if (r == 0)
			r = verify_dead(w, position);
	}
	l->entries += c->count;
	return r;
}

static int read_chunk(struct verify_work *w, struct verify_list *l, const struct space_chunk *c)
{
	int r = verify_use(w, c->at.position);
	if (r < 0 || c->count == 0)
		return r;
	uint8_t *block = env_alloc_aligned(BLOCK_BYTES);
	r = block ? sources_read_wait(w->how->sources, &c->at, block) : -ENOMEM;
	if (r == 0) {
		r = c->index ? read_index(w, l, c, block) : read_entries(w, l, c, block);
	} else if (block) {
		w->partial = true;
		r = verify_fault(w, r, "a part of %s, in segment %llu, can't be read: %s", w->where, (unsigned long long)position_segment(c->at.position),
				 errno_text(r));
	}
	free(block);
	return r;
}

static int read_list(struct verify_work *w, struct verify_list *l)
{
	char where[128];
	int r = 0;
	snprintf(where, sizeof where, "the dead list of snapshot %s", l->name);
	w->where = where;
	for (uint32_t i = 0; r == 0 && i < l->chunk_count; i++)
		r = read_chunk(w, l, &l->chunks[i]);
	for (uint32_t i = 0; r == 0 && i < l->loose_count; i++)
		r = verify_dead(w, l->loose[i]);
	l->entries += l->loose_count;
	return r;
}

static int read_lists(struct verify_work *w)
{
	int r = 0;
	for (uint32_t i = 0; r == 0 && i < w->list_count; i++)
		r = read_list(w, &w->lists[i]);
	return r;
}

/* ---- roots ---- */

static int add_snapshot(void *arg, const char *key, const struct catalog_value *value)
{
	struct verify_work *w = arg;
	struct meta_snapshot s;
	int r = meta_snapshot_decode(value->bytes, value->length, &s);
	if (r < 0) {
		w->partial = true;
		return verify_fault(w, r, "%s can't be understood: %s", key, errno_text(r));
	}
	struct verify_list *l = NULL;
	for (uint32_t i = 0; i < w->list_count && !l; i++)
		l = w->lists[i].mark_seq == s.mark_seq ? &w->lists[i] : NULL;
	/* without a root it isn't in the table yet, and the log has all of it; a doomed one may be just dealt with */
	if (!l)
		return s.doomed || !s.has_root ? 0 : verify_fault(w, -EUCLEAN, "snapshot %s isn't in the volume's table", s.name);
	if (!s.has_root) {
		w->partial = true;
		return verify_fault(w, -EUCLEAN, "snapshot %s is in the volume's table and has no root", s.name);
	}
	l->snapshot = true;
	l->root = s.root;
	l->mapped = s.mapped_blocks;
	snprintf(l->name, sizeof l->name, "%s", s.name);
	return 0;
}

static int find_snapshots(struct verify_work *w)
{
	char prefix[META_KEY_BYTES];
	meta_key_snapshots(w->how->volume, prefix);
	int r = catalog_list(w->how->catalog, prefix, add_snapshot, w);
	for (uint32_t i = 0; r == 0 && i < w->list_count; i++) {
		if (w->lists[i].snapshot)
			continue;
		w->partial = true;
		r = verify_fault(w, -EUCLEAN, "the volume's table has a snapshot (mark %llu) that the catalog doesn't have", (unsigned long long)w->lists[i].mark_seq);
	}
	return r;
}

/* What a clone began as. */
static int find_base(struct verify_work *w, struct meta_root *ret)
{
	const struct meta_log *log = w->how->log;
	struct meta_snapshot s;
	*ret = (struct meta_root){ 0 };
	if (!log->parent_volume)
		return 0;
	int r = meta_get_snapshot(w->how->catalog, log->parent_volume, log->parent_mark, &s, NULL);
	if (r == 0 && s.has_root) {
		*ret = s.root;
		w->mapped = (int64_t)s.mapped_blocks;
		return 0;
	}
	w->base_unknown = w->partial = true;
	return verify_fault(w, r == 0 || r == -ENOENT ? -EUCLEAN : r, "the snapshot that it began as %s", r == 0 ? "has no root" : r == -ENOENT ? "isn't there" : errno_text(r));
}

static int compare_mapped(struct verify_work *w, uint64_t says)
{
	return w->partial || w->mapped == (int64_t)says ? 0 : verify_fault(w, -EUCLEAN, "%s maps %lld blocks, and is accounted for %llu", w->where,
									   (long long)w->mapped, (unsigned long long)says);
}

static int walk_roots(struct verify_work *w)
{
	struct meta_root base;
	struct verify_list *before = NULL;
	char where[128];
	int r = find_base(w, &base);
	w->where = where;
	for (uint32_t i = 0; r == 0 && i < w->list_count; i++) {
		struct verify_list *l = &w->lists[i];
		if (!l->snapshot)
			continue;
		snprintf(where, sizeof where, "snapshot %s", l->name);
		r = verify_walk(w, &l->root, &base, before);
		if (r == 0)
			r = compare_mapped(w, l->mapped);
		base = l->root;
		before = l;
	}
	snprintf(where, sizeof where, "its head");
	if (r == 0)
		r = verify_walk(w, &w->how->log->root, &base, before);
	return r ? r : compare_mapped(w, w->how->log->mapped_blocks);
}

/* ---- sums ---- */

static int compare(struct verify_work *w)
{
	const struct meta_log *log = w->how->log;
	uint64_t live = 0, dead = 0;
	int r = 0;
	for (uint32_t i = 0; r == 0 && i < w->segment_count; i++) {
		const struct verify_segment *g = &w->segments[i];
		live += g->live;
		if (g->reached != g->live)
			r = verify_fault(w, -EUCLEAN, "segment %llu: %u blocks are accounted live, %u are", (unsigned long long)g->id, g->live, g->reached);
	}
	for (uint32_t i = 0; r == 0 && i < w->list_count; i++) {
		const struct verify_list *l = &w->lists[i];
		dead += l->entries;
		if (l->gone != l->entries)
			r = verify_fault(w, -EUCLEAN, "the dead list of snapshot %s has %llu blocks, and %llu should be there", l->name,
					 (unsigned long long)l->entries, (unsigned long long)l->gone);
	}
	if (r == 0 && live != log->live_blocks)
		r = verify_fault(w, -EUCLEAN, "the catalog says that %llu blocks live, and the volume's table has %llu", (unsigned long long)log->live_blocks,
				 (unsigned long long)live);
	if (r == 0 && dead != log->dead_blocks)
		r = verify_fault(w, -EUCLEAN, "the catalog says that snapshots alone keep %llu blocks, and the dead lists have %llu",
				 (unsigned long long)log->dead_blocks, (unsigned long long)dead);
	return r;
}

static bool changed(const struct verify *y) { return y->changed && y->changed(y->arg); }

int verify_run(struct verify *y)
{
	struct verify_work w = { .how = y, .above = position_segment(y->log->origin), .where = "" };
	y->segments = y->live = y->faults = y->copies_missing = y->copies_away = y->lost = 0;
	int r = copy_table(&w);
	if (r == 0)
		r = find_snapshots(&w);
	if (r == 0)
		r = read_lists(&w);
	if (r == 0)
		r = walk_roots(&w);
	if (r == 0 && changed(y))
		r = -EAGAIN;
	if (r == 0 && !w.partial)
		r = compare(&w);
	if (r == 0)
		r = verify_servers(&w);
	if (r == 0 && changed(y))
		r = -EAGAIN;
	y->partial = w.partial;
	work_free(&w);
	return r;
}

/* ---- an open volume ---- */

struct directory {
	struct volume *v;
	uint64_t orphan;
};

static int find_orphan(void *arg, uint64_t segment)
{
	struct directory *d = arg;
	struct volume *v = d->v;
	bool known = segment > v->meta.last_id || space_find(&v->space, segment);
	for (unsigned i = 0; i < v->freed_count; i++)
		known |= v->freed[i] == segment; /* it is going */
	d->orphan = known ? d->orphan : segment;
	return 0;
}

/* I14: what is in an embedded volume's directory is in its table. */
static int check_directory(struct volume *v, struct report *report)
{
	struct directory d = { .v = v };
	uint64_t generation = v->meta.generation;
	if (!v->meta.embedded || catalog_recover_wanted(v->catalog, NULL) >= 0) /* until a restoration is confirmed nothing goes (orphans.c) */
		return 0;
	int r = segment_dir_ids(v->server, find_orphan, &d);
	if (r == 0 && v->meta.generation != generation)
		r = -EAGAIN;
	return r == 0 && d.orphan ? report_set(report, -EUCLEAN, "segment %llu is nobody's", (unsigned long long)d.orphan) : r;
}

struct opened {
	struct volume *v;
	uint64_t generation;
	struct report *report;
	int status;
};

static bool opened_changed(void *arg)
{
	const struct opened *o = arg;
	return o->v->dirty || o->v->meta.generation != o->generation;
}

/* The first will do; and it may come of a change. */
static int opened_fault(void *arg, int status, const char *text)
{
	struct opened *o = arg;
	o->status = opened_changed(o) ? -EAGAIN : report_set(o->report, status, "%s", text);
	return o->status;
}

int volume_verify_space(struct volume *v, struct report *report)
{
	struct opened o = { .v = v, .generation = v->meta.generation, .report = report };
	struct meta_log *log = malloc(sizeof *log);
	if (!log)
		return -ENOMEM;
	*log = v->meta;
	struct verify y = { .env = v->env, .catalog = v->catalog, .volume = v->id, .log = log, .sources = &v->sources, .copies = v->copies, .space = &v->space,
			    .changed = opened_changed, .fault = opened_fault, .arg = &o };
	int r = v->dirty || !link_empty(&v->marks) ? -EAGAIN : verify_run(&y);
	if (r == 0)
		r = check_directory(v, report);
	free(log);
	return r;
}

/* ---- copies ---- */

/* As far as is known: it may not answer. */
static bool may_have_all(struct peer *p, const struct meta_segment *m)
{
	struct segment_io io = { .op = SEGMENT_STAT, .segment = m->id };
	int r = peer_wait(p, &io);
	return segment_away(r) || (r == 0 && io.sealed && io.state == COPY_WHOLE && io.length == m->length);
}

/* Those where it belongs come last: who gives a copy away does so when they have it, so that what moves meanwhile is seen somewhere. */
static unsigned count_copies(struct volume *v, const struct meta_segment *m)
{
	unsigned have = 0;
	for (unsigned last = 0; last < 2; last++)
		for (unsigned i = 0; i < v->copies->count; i++)
			if (copies_belongs(v->copies, m->id, v->copies->peers[i]) == last)
				have += may_have_all(v->copies->peers[i], m);
	return have;
}

/* A copy may go from where it was when the segment was cut (R33), and be on its way back, but as many as there should be stay: whoever gave one
 * away knew so many. Servers may act by a map that was the last one until just now, so one look isn't enough. */
static bool are_elsewhere(struct volume *v, const struct meta_segment *m)
{
	struct peer *peers[PLACEMENT_CANDIDATES_MAX];
	for (unsigned look = 0; look < 3; look++) {
		if (copies_read_map(v->copies) < 0)
			return true;
		unsigned n = copies_place(v->copies, m->id, v->meta.replicas, v->meta.replicas, peers);
		if (n == 0 || count_copies(v, m) >= n)
			return true;
	}
	return false;
}

static int verify_copy(struct volume *v, const struct meta_segment *m, const struct meta_replica *at, struct report *report)
{
	struct peer *p = copies_peer(v->copies, &at->server);
	struct segment_io io = { .op = SEGMENT_STAT, .segment = m->id };
	int r = p ? peer_wait(p, &io) : -ENOMEM;
	if (segment_away(r) || (r == 0 && io.state == COPY_BROKEN))
		return 0;
	if (r == 0 && io.state != COPY_ABSENT && io.length >= m->length)
		return 0;
	if (r < 0 && r != -ENOENT)
		return r;
	if (!v->meta.embedded && are_elsewhere(v, m))
		return 0;
	return report_set(report, -EUCLEAN, "segment %llu is cut at %u, but %s, a holder, has %u blocks of it", (unsigned long long)m->id,
			  m->length, p->address, r ? 0 : io.length);
}

int volume_verify_copies(struct volume *v, struct report *report)
{
	struct meta_log *log = malloc(sizeof *log);
	int r = log ? 0 : -ENOMEM;
	if (log)
		*log = v->meta;
	for (uint32_t i = 0; r == 0 && i < log->segment_count; i++) {
		const struct meta_segment *m = &log->segments[i];
		if (m->cut && m->ensemble_count < log->min_replicas)
			r = report_set(report, -EUCLEAN, "segment %llu was cut with %u copies", (unsigned long long)m->id, m->ensemble_count);
		for (uint32_t k = 0; r == 0 && m->cut && k < m->ensemble_count; k++)
			r = verify_copy(v, m, &m->ensemble[k], report);
	}
	uint64_t stamp = log ? log->stamp : 0;
	if (r == -EUCLEAN && (v->meta.stamp != stamp || meta_get_log(v->catalog, v->id, log, NULL) < 0 || log->stamp != stamp))
		r = -EAGAIN; /* checkpoints delete what is free, and servers what the catalog lists no more; it may know before we do */
	free(log);
	return r;
}
