#include "parallax/map/tree.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/map/tree_private.h"

static_assert(sizeof(struct pointer) == 16 && __BYTE_ORDER == __LITTLE_ENDIAN,
	      "slots are used in memory as they are on disk");

enum { SLAB_NODES = 64, SPARE_MAX = 4 * SLAB_NODES };
#define PATH_NODES 8

static inline struct pointer slot_of(struct tree_node *n) { return (struct pointer){ (uint64_t)(uintptr_t)n, 0, SLOT_MEMORY }; }

/* ---- node objects: many at a time, because a page that is allocated alone takes two ---- */

struct tree_slab {
	struct link link;
	unsigned used;       /* nodes that aren't spare */
	uint8_t *pages;
	struct tree_node nodes[SLAB_NODES];
};

static bool slab_new(struct tree *t)
{
	struct tree_slab *s = calloc(1, sizeof *s);
	if (s)
		s->pages = env_alloc_aligned((size_t)SLAB_NODES * BLOCK_BYTES);
	if (!s || !s->pages) {
		free(s);
		return false;
	}
	for (unsigned i = 0; i < SLAB_NODES; i++) {
		struct tree_node *n = &s->nodes[i];
		*n = (struct tree_node){ .slots = (struct pointer *)(void *)(s->pages + (size_t)i * BLOCK_BYTES), .slab = s };
		link_init(&n->lru);
		link_push(&t->spare, &n->lru);
	}
	t->spare_count += SLAB_NODES;
	link_push(&t->slabs, &s->link);
	return true;
}

static void slab_free(struct tree *t, struct tree_slab *s)
{
	for (unsigned i = 0; i < SLAB_NODES; i++)
		link_drop(&s->nodes[i].lru);
	t->spare_count -= SLAB_NODES;
	link_drop(&s->link);
	free(s->pages);
	free(s);
}

static void node_evict(struct tree *t, struct tree_node *n);

/* Whoever needs a node after another, down a path, must find the first ones still there when the last is loaded, or he would
 * begin again for ever: so a few are kept however many are dirty. */
static bool may_evict(const struct tree *t)
{
	const struct link *l = t->lru.next;
	for (unsigned n = 0; n < PATH_NODES; n++, l = l->next)
		if (l == &t->lru)
			return false;
	return l != &t->lru;
}

static void make_room(struct tree *t)
{
	while (t->node_count >= t->node_budget && may_evict(t))
		node_evict(t, container_of(t->lru.next, struct tree_node, lru));
}

struct tree_node *tree_node_new(struct tree *t, uint32_t level, uint64_t first)
{
	make_room(t);
	if (link_empty(&t->spare) && !slab_new(t))
		return NULL;
	struct tree_node *n = container_of(link_pop(&t->spare), struct tree_node, lru);
	t->spare_count--;
	n->slab->used++;
	*n = (struct tree_node){ .slots = n->slots, .slab = n->slab, .generation = t->generation, .level = level, .first = first, .references = 1 };
	link_init(&n->lru);
	t->node_count++;
	return n;
}

void tree_node_free(struct tree *t, struct tree_node *n)
{
	t->node_count--;
	t->spare_count++;
	link_push_front(&t->spare, &n->lru); /* used again first, so that whole slabs become free */
	if (--n->slab->used == 0 && t->spare_count > SPARE_MAX)
		slab_free(t, n->slab);
}

static void node_evict(struct tree *t, struct tree_node *n)
{
	assert(n->references == 0 && n->written);
	link_drop(&n->lru);
	if (n->hashed)
		HASH_DEL(t->cached, n);
	tree_node_free(t, n);
}

static void node_ref(struct tree_node *n)
{
	if (n->references++ == 0)
		link_drop(&n->lru);
}

/* An unwritten node nobody refers to any more: its children lose a reference each. */
static void node_destroy(struct tree *t, struct tree_node *n)
{
	for (unsigned i = 0; n->level > 0 && i < NODE_FANOUT; i++)
		if (slot_in_memory(&n->slots[i]))
			tree_node_unref(t, slot_node(&n->slots[i]));
	if (n->origin_node)
		tree_node_unref(t, n->origin_node);
	if (!n->written)
		t->dirty_count--;
	tree_node_free(t, n);
}

void tree_node_unref(struct tree *t, struct tree_node *n)
{
	assert(n->references > 0);
	if (--n->references > 0)
		return;
	if (n->hashed && n->replaced)
		link_push_front(&t->lru, &n->lru);
	else if (n->hashed)
		link_push(&t->lru, &n->lru);
	else
		node_destroy(t, n);
}

struct tree_node *tree_cache_find(struct tree *t, const struct pointer *at)
{
	struct tree_node *n;
	HASH_FIND(hh, t->cached, &at->position, sizeof at->position, n);
	if (n && n->references == 0) { /* most recently used goes last */
		link_drop(&n->lru);
		link_push(&t->lru, &n->lru);
	}
	return n;
}

void tree_cache_add(struct tree *t, struct tree_node *n)
{
	HASH_ADD_KEYPTR(hh, t->cached, &n->at.position, sizeof n->at.position, n);
	n->hashed = true;
}

/* ---- life ---- */

void tree_init(struct tree *t, struct env *env, tree_read *read, void *arg, const struct pointer *root, uint32_t level,
	       unsigned node_budget)
{
	*t = (struct tree){ .env = env, .read = read, .read_arg = arg, .root = *root, .level = level, .generation = 1,
			    .node_budget = node_budget };
	link_init(&t->lru);
	fiber_cond_init(&t->settled);
	link_init(&t->spare);
	link_init(&t->slabs);
}

void tree_destroy(struct tree *t)
{
	assert(!t->loads);
	if (slot_in_memory(&t->root))
		tree_node_unref(t, slot_node(&t->root));
	while (!link_empty(&t->lru))
		node_evict(t, container_of(t->lru.next, struct tree_node, lru));
	assert(t->node_count == 0);
	while (!link_empty(&t->slabs))
		slab_free(t, container_of(t->slabs.next, struct tree_slab, link));
}

uint32_t tree_level_for(uint64_t blocks)
{
	uint32_t level = 0;
	while (slot_blocks(level + 1) < blocks)
		level++;
	return level;
}

int tree_grow(struct tree *t, uint64_t blocks)
{
	uint32_t level = tree_level_for(blocks);
	while (t->level < level) {
		if (slot_hole(&t->root)) {
			t->level = level;
			break;
		}
		struct tree_node *n = tree_node_new(t, t->level + 1, 0);
		if (!n)
			return -ENOMEM;
		memset(n->slots, 0, BLOCK_BYTES);
		n->slots[0] = t->root;
		t->root = slot_of(n);
		t->level++;
		t->dirty_count++;
	}
	return 0;
}

/* ---- finding and changing ---- */

/* The node behind a slot, if it is in memory. 0, or -EAGAIN with the need. */
static int slot_resolve(struct tree *t, const struct pointer *slot, uint32_t level, uint64_t first,
			struct tree_node **ret_node, struct tree_need *ret_need)
{
	if (slot_in_memory(slot)) {
		*ret_node = slot_node(slot);
		return 0;
	}
	*ret_node = tree_cache_find(t, slot);
	if (*ret_node)
		return 0;
	*ret_need = (struct tree_need){ *slot, level, first };
	return -EAGAIN;
}

int tree_leaf_read(struct tree *t, uint64_t block, struct tree_node **ret_leaf, uint64_t *ret_span, struct tree_need *ret_need)
{
	const struct pointer *slot = &t->root;
	uint64_t first = 0;
	for (uint32_t level = t->level;; level--) {
		uint64_t covers = slot_blocks(level + 1);
		if (slot_hole(slot)) {
			*ret_leaf = NULL;
			*ret_span = first + covers - block;
			return 0;
		}
		struct tree_node *n;
		int r = slot_resolve(t, slot, level, first, &n, ret_need);
		if (r < 0)
			return r;
		if (level == 0) {
			*ret_leaf = n;
			*ret_span = first + covers - block;
			t->hits++;
			return 0;
		}
		unsigned i = slot_index(block, level);
		first += i * slot_blocks(level);
		slot = &n->slots[i];
	}
}

/* A copy of `n` that the current generation owns. */
static struct tree_node *node_copy(struct tree *t, struct tree_node *n)
{
	node_ref(n); /* making room must not evict what we copy */
	struct tree_node *copy = tree_node_new(t, n->level, n->first);
	if (!copy) {
		tree_node_unref(t, n);
		return NULL;
	}
	memcpy(copy->slots, n->slots, BLOCK_BYTES);
	for (unsigned i = 0; n->level > 0 && i < NODE_FANOUT; i++) {
		struct pointer *slot = &copy->slots[i];
		if (slot_in_memory(slot) && slot_node(slot)->written)
			*slot = slot_node(slot)->at; /* not to keep it in memory through one copy after another */
		else if (slot_in_memory(slot))
			node_ref(slot_node(slot));
	}
	n->replaced = true;
	if (n->written) {
		copy->origin = n->at;
		tree_node_unref(t, n);
	} else {
		copy->origin_node = n; /* our reference */
	}
	t->dirty_count++;
	return copy;
}

/* Makes the slot refer to a node of the current generation. */
static int slot_own(struct tree *t, struct pointer *slot, uint32_t level, uint64_t first, struct tree_node **ret_node,
		    struct tree_need *ret_need)
{
	struct tree_node *n, *own;
	if (slot_hole(slot)) {
		own = tree_node_new(t, level, first);
		if (!own)
			return -ENOMEM;
		memset(own->slots, 0, BLOCK_BYTES);
		t->dirty_count++;
	} else {
		int r = slot_resolve(t, slot, level, first, &n, ret_need);
		if (r < 0)
			return r;
		bool mine = slot_in_memory(slot) && !n->written && (n->generation == t->generation || PLANTED(tree_freeze_no_copy));
		if (mine) {
			*ret_node = n;
			return 0;
		}
		own = node_copy(t, n);
		if (!own)
			return -ENOMEM;
		if (slot_in_memory(slot))
			tree_node_unref(t, n);
	}
	*slot = slot_of(own);
	*ret_node = own;
	return 0;
}

int tree_leaf_write(struct tree *t, uint64_t block, struct tree_node **ret_leaf, struct tree_need *ret_need)
{
	struct pointer *slot = &t->root;
	uint64_t first = 0;
	for (uint32_t level = t->level;; level--) {
		struct tree_node *n;
		int r = slot_own(t, slot, level, first, &n, ret_need);
		if (r < 0)
			return r;
		if (level == 0) {
			*ret_leaf = n;
			return 0;
		}
		unsigned i = slot_index(block, level);
		first += i * slot_blocks(level);
		slot = &n->slots[i];
	}
}

/* ---- versions ---- */

void tree_freeze(struct tree *t, struct tree_version *ret_version)
{
	*ret_version = (struct tree_version){ t->root, t->level };
	if (slot_in_memory(&t->root))
		node_ref(slot_node(&t->root));
	t->generation++;
}

void tree_version_release(struct tree *t, struct tree_version *v)
{
	if (slot_in_memory(&v->root))
		tree_node_unref(t, slot_node(&v->root));
	v->root = (struct pointer){ 0 };
}

struct pointer tree_version_root(const struct tree_version *v)
{
	if (!slot_in_memory(&v->root))
		return v->root;
	assert(slot_node(&v->root)->written);
	return slot_node(&v->root)->at;
}

static int batch_add(struct tree_batch *b, struct tree_node *n)
{
	if (array_more(&b->nodes, b->count) < 0)
		return -ENOMEM;
	node_ref(n);
	b->nodes[b->count++] = n;
	return 0;
}

/* Adds the unwritten nodes of `level` below `slot`. */
static int collect_level(struct tree_batch *b, const struct pointer *slot, uint32_t at_level, uint32_t level)
{
	if (!slot_in_memory(slot) || slot_node(slot)->written)
		return 0;
	struct tree_node *n = slot_node(slot);
	if (at_level == level)
		return batch_add(b, n);
	int r = 0;
	for (unsigned i = 0; r == 0 && i < NODE_FANOUT; i++)
		r = collect_level(b, &n->slots[i], at_level - 1, level);
	return r;
}

int tree_collect(struct tree *t, const struct tree_version *v, struct tree_batch *ret_batch)
{
	*ret_batch = (struct tree_batch){ 0 };
	int r = 0;
	for (uint32_t level = 0; r == 0 && level <= v->level; level++)
		r = collect_level(ret_batch, &v->root, v->level, level);
	if (r < 0)
		tree_batch_release(t, ret_batch);
	return r;
}

void tree_batch_release(struct tree *t, struct tree_batch *b)
{
	for (unsigned i = 0; i < b->count; i++)
		tree_node_unref(t, b->nodes[i]);
	free(b->nodes);
	*b = (struct tree_batch){ 0 };
	make_room(t);
}

bool tree_note_void(struct tree_node *n)
{
	n->holds_nothing = true;
	for (unsigned i = 0; n->holds_nothing && i < NODE_FANOUT; i++) {
		const struct pointer *slot = &n->slots[i];
		if (n->level == 0 || !slot_in_memory(slot))
			n->holds_nothing = slot_hole(slot);
		else if (slot_node(slot)->written)
			n->holds_nothing = slot_hole(&slot_node(slot)->at);
		else
			n->holds_nothing = slot_node(slot)->holds_nothing;
	}
	return n->holds_nothing;
}

void tree_note_place(struct tree_node *n, const struct pointer *at)
{
	assert(!n->written);
	n->at = *at;
}

void tree_page(const struct tree_node *n, struct pointer ret_page[NODE_FANOUT])
{
	memcpy(ret_page, n->slots, BLOCK_BYTES);
	for (unsigned i = 0; n->level > 0 && i < NODE_FANOUT; i++)
		if (slot_in_memory(&n->slots[i]))
			ret_page[i] = slot_node(&n->slots[i])->at;
}

bool tree_resolve(struct tree *t, struct tree_node *n)
{
	bool empty = true;
	for (unsigned i = 0; i < NODE_FANOUT; i++) {
		struct pointer *slot = &n->slots[i];
		if (n->level > 0 && slot_in_memory(slot)) {
			struct tree_node *child = slot_node(slot);
			assert(child->written);
			*slot = child->at;
			tree_node_unref(t, child);
		}
		empty &= slot_hole(slot);
	}
	return empty;
}

void tree_written(struct tree *t, struct tree_node *n, const struct pointer *at, struct pointer *ret_replaced)
{
	assert(!n->written);
	/* A frozen node that was never written (its checkpoint failed) stands for what it would have replaced. */
	const struct tree_node *from = n;
	while (!from->written && from->origin_node)
		from = from->origin_node;
	*ret_replaced = from->written ? from->at : from->origin;
	if (n->origin_node)
		tree_node_unref(t, n->origin_node);
	n->origin_node = NULL;
	n->at = *at;
	n->written = true;
	t->dirty_count--;
	if (at->position)
		tree_cache_add(t, n);
}
