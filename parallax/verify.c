#include "parallax/verify.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "parallax/volume_private.h"

struct seen {
	uint64_t segment;
	uint64_t bits[SEGMENT_BLOCKS_MAX / 64];
	uint32_t count;
};

struct verify {
	struct volume *v;
	struct seen **seen; /* by the table's index */
	struct meta_root *roots;
	size_t root_count;
};

/* Notes a position; false if it was seen before, or isn't this volume's own. */
static bool note(struct verify *y, uint64_t position)
{
	struct space_segment *g = space_find(&y->v->space, position_segment(position));
	if (!g)
		return false;
	size_t index = (size_t)(g - y->v->space.segments);
	if (!y->seen[index])
		y->seen[index] = calloc(1, sizeof *y->seen[index]);
	if (!y->seen[index])
		return false;
	uint64_t *word = &y->seen[index]->bits[position_block(position) / 64], bit = UINT64_C(1) << (position_block(position) % 64);
	bool fresh = !(*word & bit);
	*word |= bit;
	y->seen[index]->count += fresh;
	return fresh;
}

/* What is below a node that was seen before was seen, too; a parent's blocks aren't ours. */
static int walk(struct verify *y, const struct pointer *at, uint32_t level)
{
	if (at->position == 0 || !note(y, at->position))
		return 0;
	struct pointer *slots = env_alloc_aligned(BLOCK_BYTES);
	int r = slots ? sources_read_wait(&y->v->sources, at, slots) : -ENOMEM;
	for (unsigned i = 0; r == 0 && i < NODE_FANOUT; i++) {
		if (level > 0)
			r = walk(y, &slots[i], level - 1);
		else if (slots[i].position)
			note(y, slots[i].position);
	}
	free(slots);
	return r;
}

static int add_root(void *arg, const char *key, const struct catalog_value *value)
{
	struct verify *y = arg;
	struct meta_snapshot s;
	(void)key;
	int r = meta_snapshot_decode(value->bytes, value->length, &s);
	if (r < 0 || !s.has_root)
		return r < 0 ? r : -EAGAIN;
	/* a doomed one whose list is being dealt with holds nothing any more */
	if (!space_list_find(&y->v->space, s.mark_seq))
		return 0;
	struct meta_root *roots = realloc(y->roots, (y->root_count + 1) * sizeof *roots);
	if (!roots)
		return -ENOMEM;
	y->roots = roots;
	y->roots[y->root_count++] = s.root;
	return 0;
}

static int compare(struct verify *y, struct report *report)
{
	const struct space *s = &y->v->space;
	for (uint32_t i = 0; i < s->segment_count; i++) {
		uint32_t found = y->seen[i] ? y->seen[i]->count : 0;
		if (s->segments[i].pending)
			return -EAGAIN;
		if (found != s->segments[i].live)
			return report_set(report, -EUCLEAN, "segment %llu: %u blocks are accounted live, %u are", (unsigned long long)s->segments[i].id,
					  s->segments[i].live, found);
	}
	return 0;
}

/* I10: of a segment of which all was sent, what isn't live is what its server knows to be free. What isn't sealed yet can't be
 * compared, nor what is being sent. */
static int compare_trimmed(struct verify *y, struct report *report)
{
	struct volume *v = y->v;
	uint64_t from = position_segment(v->meta.from_position), generation = v->meta.generation;
	int r = 0;
	for (uint32_t i = 0; r == 0 && i < v->space.segment_count && v->space.segments[i].id < from; i++) {
		struct space_segment g = v->space.segments[i];
		if (frees_count(g.frees, FREES_PENDING) + frees_count(g.frees, FREES_FOLDED) + frees_count(g.frees, FREES_UNSENT) || g.stuck)
			continue;
		struct peer *peers[PLACEMENT_CANDIDATES_MAX];
		unsigned n = copies_candidates(v->copies, g.id, peers);
		for (unsigned k = 0; r == 0 && k < n; k++) {
			struct segment_io io = { .op = SEGMENT_STAT, .segment = g.id, .epoch = v->epoch };
			if (peer_wait(peers[k], &io) < 0 || io.state == COPY_ABSENT || !io.sealed)
				continue;
			if (v->meta.generation != generation || v->dirty)
				return -EAGAIN;
			if (g.live + io.trimmed + 1 != io.length)
				r = report_set(report, -EUCLEAN, "segment %llu: of %u blocks %u are accounted live, and a server knows %u to be free",
					       (unsigned long long)g.id, io.length, g.live, io.trimmed);
		}
	}
	return r;
}

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
	if (!v->meta.embedded)
		return 0;
	int r = segment_dir_ids(v->server, find_orphan, &d);
	if (r == 0 && v->meta.generation != generation)
		r = -EAGAIN;
	return r == 0 && d.orphan ? report_set(report, -EUCLEAN, "segment %llu is nobody's", (unsigned long long)d.orphan) : r;
}

int volume_verify_space(struct volume *v, struct report *report)
{
	struct verify y = { .v = v };
	char prefix[META_KEY_BYTES];
	uint64_t generation = v->meta.generation;
	uint32_t segments = v->space.segment_count;
	if (v->dirty || !link_empty(&v->marks))
		return -EAGAIN;
	y.seen = calloc(segments + 1, sizeof *y.seen);
	if (!y.seen)
		return -ENOMEM;
	meta_key_snapshots(v->id, prefix);
	int r = catalog_list(v->catalog, prefix, add_root, &y);
	if (r == 0)
		r = walk(&y, &v->meta.root.pointer, v->meta.root.level);
	for (size_t i = 0; r == 0 && i < y.root_count; i++)
		r = walk(&y, &y.roots[i].pointer, y.roots[i].level);
	for (uint32_t i = 0; r == 0 && i < v->space.list_count; i++) {
		const struct space_list *l = &v->space.lists[i];
		for (uint32_t c = 0; c < l->chunk_count; c++)
			note(&y, l->chunks[c].at.position);
		for (unsigned k = 0; k < 2; k++)
			if (l->written[k].count)
				note(&y, l->written[k].at.position);
	}
	if (v->meta.generation != generation || v->space.segment_count != segments)
		r = -EAGAIN;
	if (r == 0)
		r = compare(&y, report);
	if (r == 0)
		r = compare_trimmed(&y, report);
	if (r == 0)
		r = check_directory(v, report);
	for (uint32_t i = 0; i < segments; i++)
		free(y.seen[i]);
	free(y.seen);
	free(y.roots);
	return r;
}

/* ---- copies ---- */

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
	if (r == -EUCLEAN && v->meta.stamp != log->stamp) /* checkpoints delete what is free */
		r = -EAGAIN;
	free(log);
	return r;
}
