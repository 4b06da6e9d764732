/* Applying acknowledged records, in order, to the map and the accounting; then the guest is
 * answered. A record is applied at once unless a tree node has to be read first. Replay after a
 * crash applies the same records by the same code. */
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/volume/volume_private.h"

enum { PREFETCH_NODES = 64, PREFETCH_LOOKS = 1024 };

static void slot_set(struct volume *v, struct pointer *slot, const struct pointer *to, int *status)
{
	if (slot->position && *status == 0)
		*status = space_data_replaced(&v->space, slot->position);
	v->space.mapped_pending += (to->position != 0) - (slot->position != 0);
	*slot = *to;
}

/* A run of a data entry within one leaf. */
static int apply_data(struct volume *v, const struct record *r, const struct record_entry *e, uint64_t payload_position,
		      struct apply_cursor *at, struct tree_need *need)
{
	uint64_t block = e->first + at->block;
	struct tree_node *leaf;
	int status = tree_leaf_write(&v->tree, block, &leaf, need);
	if (status < 0)
		return status;
	uint32_t n = (uint32_t)MIN(e->count - at->block, (uint64_t)NODE_FANOUT - tree_slot(block));
	status = space_reserve(&v->space, n);
	if (status < 0)
		return status;
	for (uint32_t i = 0; i < n; i++) {
		struct pointer to = { payload_position + at->payload + i, r->crcs[at->payload + i], 0 };
		slot_set(v, &leaf->slots[tree_slot(block + i)], &to, &status);
	}
	at->block += n;
	at->payload += n;
	return status;
}

static bool leaf_has(const struct tree_node *leaf, unsigned slot, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		if (leaf->slots[slot + i].position)
			return true;
	return false;
}

/* A run of a discard entry: a hole as large as it is, or within one leaf. */
static int apply_clear(struct volume *v, const struct record_entry *e, struct apply_cursor *at, struct tree_need *need)
{
	uint64_t block = e->first + at->block, span;
	struct tree_node *leaf;
	int status = tree_leaf_read(&v->tree, block, &leaf, &span, need);
	if (status < 0)
		return status;
	uint64_t n = MIN(span, e->count - at->block);
	if (leaf && leaf_has(leaf, tree_slot(block), n)) {
		status = tree_leaf_write(&v->tree, block, &leaf, need);
		if (status == 0)
			status = space_reserve(&v->space, (uint32_t)n);
		if (status < 0)
			return status;
		struct pointer hole = { 0 };
		for (uint64_t i = 0; i < n; i++)
			slot_set(v, &leaf->slots[tree_slot(block + i)], &hole, &status);
	}
	at->block += n;
	return status;
}

int apply_record(struct volume *v, const struct record *r, uint64_t payload_position, struct apply_cursor *at,
		 struct tree_need *need)
{
	if (!at->begun) {
		at->begun = true;
		if (r->payload_blocks)
			space_data_written(&v->space, payload_position, r->payload_blocks);
		checkpoint_dirty(v);
	}
	uint64_t blocks = div_up(v->meta.size_bytes, BLOCK_BYTES);
	for (; at->entry < r->entry_count; at->entry++, at->block = 0) {
		const struct record_entry *e = &r->entries[at->entry];
		if (!range_within(e->first, e->count, MAX(blocks, UINT64_C(1) << (NODE_FANOUT_BITS * (v->tree.level + 1)))))
			return -EUCLEAN;
		while (at->block < e->count) {
			int status = r->kind == RECORD_DATA ? apply_data(v, r, e, payload_position, at, need)
							    : apply_clear(v, e, at, need);
			if (status < 0)
				return status;
		}
	}
	return 0;
}

/* Loads together what the rest of the record needs, as far as that can be seen: one after the other a record of scattered
 * writes to a volume whose map isn't in memory would take a disk's latency for each. Fewer where dirty nodes leave
 * little room, so that what is loaded isn't evicted before it is used. */
void apply_prefetch(struct volume *v, const struct record *r, const struct apply_cursor *at, struct job *parent)
{
	const struct tree *t = &v->tree;
	unsigned room = t->node_budget > t->dirty_count ? (t->node_budget - t->dirty_count) / 4 : 0;
	unsigned left = MIN(room, (unsigned)PREFETCH_NODES), looks = PREFETCH_LOOKS;
	uint64_t block = at->block;
	for (uint32_t i = at->entry; i < r->entry_count; i++, block = 0) {
		const struct record_entry *e = &r->entries[i];
		while (block < e->count) {
			if (left == 0 || looks-- == 0)
				return;
			struct tree_node *leaf;
			struct tree_need need;
			uint64_t span = NODE_FANOUT - tree_slot(e->first + block);
			if (tree_leaf_read(&v->tree, e->first + block, &leaf, &span, &need) == -EAGAIN) {
				tree_load(&v->tree, &need, parent);
				left--;
			}
			block += span;
		}
	}
}

int apply_mark(struct volume *v, uint64_t seq, uint64_t position)
{
	struct pending_mark *m = calloc(1, sizeof *m);
	if (!m || space_mark(&v->space, seq, position) < 0) {
		free(m);
		return -ENOMEM;
	}
	m->seq = seq;
	m->newest_before = v->newest_mark;
	m->mapped = (uint64_t)((int64_t)v->space.mapped + v->space.mapped_pending);
	tree_freeze(&v->tree, &m->version);
	link_push(&v->marks, &m->link);
	v->mark_count++;
	v->newest_mark = seq;
	checkpoint_dirty(v);
	return 0;
}

/* ---- the queue ---- */

static void apply_resume(struct job *j)
{
	struct volume *v = container_of(j, struct volume, apply.job);
	v->apply.waiting = false;
	if (j->status)
		volume_fail(v, -EIO);
	apply_run(v);
	log_pump(v);
}

static void apply_wait(struct volume *v, const struct record *r, const struct tree_need *need)
{
	v->apply.waiting = true;
	job_init(&v->apply.job, &v->env->loop);
	tree_load(&v->tree, need, &v->apply.job);
	apply_prefetch(v, r, &v->apply.cursor, &v->apply.job);
	job_then(&v->apply.job, apply_resume);
}

static int apply_one(struct volume *v, struct log_record *r, struct tree_need *need)
{
	uint64_t position = position_make(r->head.segment, r->head.block);
	switch (r->head.kind) {
	case RECORD_DATA:
	case RECORD_DISCARD:
		return apply_record(v, &r->head, position + r->head.header_blocks, &v->apply.cursor, need);
	case RECORD_MARK: {
		int status = apply_mark(v, r->head.seq, position);
		if (status == 0 && r->append && r->append->hold)
			group_hold(v);
		return status;
	}
	default:
		return 0;
	}
}

void apply_run(struct volume *v)
{
	while (!v->apply.waiting && (!v->group.held || v->failed) && !link_empty(&v->log.applying)) {
		struct log_record *r = container_of(v->log.applying.next, struct log_record, link);
		struct tree_need need;
		if (!v->apply.busy)
			v->apply.cursor = (struct apply_cursor){ 0 };
		v->apply.busy = true;
		int status = v->failed ? 0 : apply_one(v, r, &need);
		if (status == -EAGAIN) {
			apply_wait(v, &r->head, &need);
			return;
		}
		v->apply.busy = false;
		if (status < 0)
			volume_fail(v, status);
		else if (!v->failed)
			trim_note_record(v, &r->head);
		v->applied_seq = r->head.seq;
		log_record_done(v, r);
	}
	checkpoint_consider(v);
	fiber_cond_wake(&v->settled);
}

void apply_settle(struct volume *v)
{
	while (v->apply.busy)
		fiber_cond_wait(&v->env->loop, &v->settled);
}
