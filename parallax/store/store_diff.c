/* What changed between two snapshots, or a snapshot and the volume's last checkpoint: both trees are walked
 * together, and wherever they have the same pointer everything below is the same. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "parallax/map/tree.h"
#include "parallax/store/store_private.h"

struct side {
	struct sources sources;
	struct meta_root root;
	uint64_t size_bytes;
};

struct diff {
	struct side from, to;
	struct store_extent pending;
	int (*extent)(void *arg, const struct store_extent *e);
	void *arg;
};

/* ---- extents ---- */

static int emit(struct diff *d)
{
	struct store_extent e = d->pending;
	d->pending.length = 0;
	if (e.length == 0 || e.offset >= d->to.size_bytes)
		return 0;
	e.length = MIN(e.length, d->to.size_bytes - e.offset);
	return d->extent(d->arg, &e);
}

static int changed(struct diff *d, uint64_t block, uint64_t count, bool data)
{
	struct store_extent *p = &d->pending;
	uint64_t offset = block * BLOCK_BYTES, length = count * BLOCK_BYTES;
	if (p->length && p->data == data && p->offset + p->length == offset) {
		p->length += length;
		return 0;
	}
	int r = emit(d);
	*p = (struct store_extent){ offset, length, data };
	return r;
}

/* ---- walking ---- */

static uint64_t slot_blocks(uint32_t level) { return UINT64_C(1) << (NODE_FANOUT_BITS * level); }

/* The slots of a node, or all holes. A root that is lower than `level` is slot 0 of what would be above it. */
static int read_slots(struct side *s, const struct pointer *at, uint32_t level, uint32_t root_level, bool above, struct pointer *ret)
{
	memset(ret, 0, BLOCK_BYTES);
	if (above && level > root_level) {
		ret[0] = *at;
		return 0;
	}
	return at->position ? sources_read_wait(&s->sources, at, ret) : 0;
}

/* `…_above`: this pointer stands for a root that is further down. */
static int compare_nodes(struct diff *d, const struct pointer *a, bool a_above, const struct pointer *b, bool b_above, uint32_t level,
			 uint64_t first)
{
	if (a->position == b->position && a_above == b_above)
		return 0;
	struct pointer *slots = env_alloc_aligned(2 * BLOCK_BYTES), *sa = slots, *sb = slots ? slots + NODE_FANOUT : NULL;
	int r = slots ? read_slots(&d->from, a, level, d->from.root.level, a_above, sa) : -ENOMEM;
	if (r == 0)
		r = read_slots(&d->to, b, level, d->to.root.level, b_above, sb);
	for (unsigned i = 0; r == 0 && i < NODE_FANOUT; i++) {
		uint64_t block = first + i * slot_blocks(level);
		if (level > 0)
			r = compare_nodes(d, &sa[i], a_above && i == 0 && level > d->from.root.level + 1, &sb[i],
					  b_above && i == 0 && level > d->to.root.level + 1, level - 1, block);
		else if (sa[i].position != sb[i].position)
			r = changed(d, block, 1, sb[i].position != 0);
	}
	free(slots);
	return r;
}

static int compare(struct diff *d)
{
	uint32_t level = MAX(d->from.root.level, d->to.root.level);
	int r = compare_nodes(d, &d->from.root.pointer, level > d->from.root.level, &d->to.root.pointer, level > d->to.root.level, level, 0);
	return r ? r : emit(d);
}

/* ---- opening the sides ---- */

static int open_side(struct store *s, const char *text, struct side *side, uint64_t *ret_volume, struct report *report)
{
	static const char *const none[] = { NULL };
	char volume[STORE_NAME_BYTES], snapshot[STORE_NAME_BYTES];
	struct meta_log *log = malloc(sizeof *log);
	uint64_t mark = 0;
	int r = log ? store_name_split(text, volume, snapshot, report) : -ENOMEM;
	if (r == 0 && snapshot[0])
		r = store_find_snapshot(s->places, volume, snapshot, ret_volume, &mark, report);
	else if (r == 0)
		r = store_find_volume(s->places, volume, ret_volume, report);
	if (r == 0 && mark)
		r = store_want_root(s->places, *ret_volume, mark, s, report);
	if (r == 0 && !mark) {
		struct volume *v;
		r = store_ask_or_maintain(s, volume, *ret_volume, NULL, "checkpoint", none, &v, report);
		if (r == 0 && v)
			r = volume_close(v);
	}
	if (r == 0)
		r = meta_get_log(s->catalog, *ret_volume, log, NULL);
	if (r == 0) {
		side->root = log->root;
		side->size_bytes = log->size_bytes;
	}
	if (r == 0 && mark) {
		struct meta_snapshot m;
		r = meta_get_snapshot(s->catalog, *ret_volume, mark, &m, NULL);
		side->root = m.root;
		side->size_bytes = m.size_bytes;
	}
	if (r == 0)
		r = sources_open(&side->sources, s->env, s->catalog, &s->places->ops, *ret_volume, log, NULL, report);
	free(log);
	return r < 0 ? report_set(report, r, "%s: %s", text, errno_text(r)) : 0;
}

int store_diff(struct store *s, const char *from, const char *to, int (*extent)(void *arg, const struct store_extent *e), void *arg,
	       struct report *report)
{
	uint64_t from_volume, to_volume;
	struct diff *d = calloc(1, sizeof *d);
	if (!d)
		return -ENOMEM;
	d->extent = extent;
	d->arg = arg;
	int r = open_side(s, from, &d->from, &from_volume, report);
	if (r == 0)
		r = open_side(s, to, &d->to, &to_volume, report);
	if (r == 0 && (r = compare(d)) < 0)
		report_set(report, r, "the maps can't be read (if the volume is being written, take a snapshot and compare with that): %s",
			   errno_text(r));
	sources_close(&d->from.sources);
	sources_close(&d->to.sources);
	free(d);
	return r;
}
