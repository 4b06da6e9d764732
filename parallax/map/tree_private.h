/* What tree.c and tree_load.c share. */
#ifndef AQ_TREE_PRIVATE_H
#define AQ_TREE_PRIVATE_H
#include "parallax/map/tree.h"

static inline bool slot_hole(const struct pointer *s) { return s->position == 0; }
static inline bool slot_in_memory(const struct pointer *s) { return s->flags & SLOT_MEMORY; }
static inline struct tree_node *slot_node(const struct pointer *s) { return (struct tree_node *)(uintptr_t)s->position; }
/* Blocks below one slot of a node of this level. */
static inline uint64_t slot_blocks(uint32_t level) { return UINT64_C(1) << (NODE_FANOUT_BITS * level); }
static inline unsigned slot_index(uint64_t block, uint32_t level) { return (unsigned)(block >> (NODE_FANOUT_BITS * level)) % NODE_FANOUT; }

struct tree_node *tree_node_new(struct tree *t, uint32_t level, uint64_t first); /* with a reference; NULL: no memory */
void tree_node_free(struct tree *t, struct tree_node *n);
void tree_node_unref(struct tree *t, struct tree_node *n);
struct tree_node *tree_cache_find(struct tree *t, const struct pointer *at); /* used now; NULL: it isn't there */
void tree_cache_add(struct tree *t, struct tree_node *n);
#endif
