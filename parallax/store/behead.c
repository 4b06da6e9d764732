#include "parallax/store/behead.h"

#include <errno.h>
#include <stdlib.h>

#include "core/plant.h"
#include "parallax/volume/volume_private.h"

enum { AWAY_S = 30, AGAIN_MS = 200 };

/* Servers that are away are waited for, but not for ever: somebody gave a command, and it can be done later. */
static int read_block(struct volume *v, const struct pointer *at, void *page)
{
	uint64_t until_ns = env_now_ns(v->env) + AWAY_S * NS_PER_S;
	int r = sources_read_now(&v->sources, at, page);
	while (segment_away(r) && !v->failed && env_now_ns(v->env) < until_ns && fiber_sleep(&v->env->loop, AGAIN_MS * NS_PER_MS) == 0)
		r = sources_read_now(&v->sources, at, page);
	return r;
}

/* Frees what lies below a pointer and was born after the borders; what is older is the snapshot's too, whole subtrees of it. */
static int free_head(struct volume *v, const struct pointer *at, uint32_t level, const struct space_list *newest)
{
	if (at->position == 0 || at->position <= newest->node_end)
		return 0;
	struct pointer *slots = env_alloc_aligned(BLOCK_BYTES);
	int r = slots ? read_block(v, at, slots) : -ENOMEM;
	for (unsigned i = 0; r == 0 && i < NODE_FANOUT; i++) {
		if (level > 0)
			r = free_head(v, &slots[i], level - 1, newest);
		else if (slots[i].position > newest->mark_position)
			space_free(&v->space, slots[i].position);
	}
	free(slots);
	if (r == 0)
		space_free(&v->space, at->position);
	return r;
}

static int forget_index(struct volume *v, const struct space_chunk *index)
{
	uint8_t *block = env_alloc_aligned(BLOCK_BYTES);
	int r = block ? read_block(v, &index->at, block) : -ENOMEM;
	for (uint32_t i = 0; r == 0 && i < index->count; i++) {
		struct space_chunk c;
		r = space_index_decode(index, block, i, &c);
		if (r == 0)
			space_free(&v->space, c.at.position);
	}
	free(block);
	return r;
}

static int forget_list(struct volume *v, struct space_list *l)
{
	int r = 0;
	for (uint32_t i = 0; r == 0 && i < l->chunk_count; i++) {
		r = l->chunks[i].index && !PLANTED(behead_index_only) ? forget_index(v, &l->chunks[i]) : 0;
		space_free(&v->space, l->chunks[i].at.position);
	}
	if (r < 0)
		return r;
	for (unsigned k = 0; k < 2; k++)
		if (l->written[k].count)
			space_free(&v->space, l->written[k].at.position);
	space_list_clear(&v->space, l);
	return 0;
}

/* 1: it was longer than its newest snapshot. What goes wrong in the middle fails the volume: half of it must not be published. */
static int cut_back(struct volume *v)
{
	struct meta_snapshot s;
	if (v->space.list_count == 0)
		return 0;
	struct space_list *newest = &v->space.lists[v->space.list_count - 1];
	int r = meta_get_snapshot(v->catalog, v->id, newest->mark_seq, &s, NULL);
	if (r < 0 || !s.has_root)
		return r ? r : -EAGAIN;
	if (v->meta.root.pointer.position == s.root.pointer.position)
		return 0;
	r = free_head(v, &v->meta.root.pointer, v->meta.root.level, newest);
	r = r ? r : forget_list(v, newest);
	if (r < 0) {
		volume_fail(v, r);
		return r;
	}
	tree_settle(&v->tree);
	tree_destroy(&v->tree);
	tree_init(&v->tree, v->env, sources_read_nodes, &v->sources, &s.root.pointer, s.root.level,
		  (unsigned)(v->limits.cache_bytes / BLOCK_BYTES));
	v->space.mapped = s.mapped_blocks;
	checkpoint_dirty(v);
	return 1;
}

int volume_behead(struct volume *v)
{
	int r = volume_checkpoint(v); /* now the tree is on disk, and nothing is pending */
	if (r < 0)
		return r;
	/* no other one has frozen what is taken away now, or keeps it because it failed, or publishes a part of this */
	fiber_mutex_lock(&v->env->loop, &v->checkpointing);
	r = v->failed ? v->failed : link_empty(&v->marks) ? cut_back(v) : -EAGAIN;
	fiber_mutex_unlock(&v->checkpointing);
	r = r == 1 ? checkpoint_run(v) : r;
	checkpoint_delete_all(v);
	return r;
}
