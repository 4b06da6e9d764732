/* The radix tree that maps a volume's blocks to pointers, in memory.
 *
 * A node is 256 slots of 16 bytes, on disk and in memory alike. On disk a slot is a pointer or a
 * hole; in memory it may also refer to a node object (SLOT_MEMORY), which is how changes are kept
 * until a checkpoint writes them. The tree is persistent: freezing takes a reference to the root
 * and begins a new *generation*; whoever then changes a node of an older generation copies it
 * first. So a snapshot or a checkpoint costs nothing at the instant it is taken.
 *
 *     current root ──▶ node (gen 7, dirty) ──▶ node (gen 6, frozen, maybe unwritten) ──▶ pointer on disk
 *     version 6    ──▶ node (gen 6)        ──▶ the same node ─────────┘
 *
 * Written nodes are cached by position, replaced ones and then the least recently used first out; dirty ones are never
 * evicted: the volume bounds them by checkpoints. */
#ifndef AQ_TREE_H
#define AQ_TREE_H
#include <stdbool.h>
#include <stdint.h>
#include <uthash.h>

#include "core/env.h"
#include "core/fiber.h"
#include "parallax/format.h"

enum { SLOT_MEMORY = 1 }; /* in pointer.flags, only in memory: position is a struct tree_node * */

struct tree_node {
	struct pointer *slots;     /* NODE_FANOUT of them, one page */
	struct tree_slab *slab;    /* that it is one of */
	uint64_t generation;       /* that it was made or loaded in; only the current one may be changed */
	struct pointer at;         /* where it is on disk; position 0 with `written`: it was empty, so a hole */
	struct pointer origin;     /* what it replaces on disk; position 0: nothing */
	struct tree_node *origin_node; /* or a frozen node that isn't written yet (a reference) */
	uint64_t first;            /* first volume block below it */
	uint32_t level;            /* 0: its slots are data */
	uint32_t references;       /* slots, versions and pins */
	bool written, hashed;
	bool replaced;             /* by a copy, so that nobody will look for it: first out */
	bool holds_nothing;        /* tree_note_void() */
	struct link lru;           /* in the tree's lru while written, hashed and unreferenced */
	UT_hash_handle hh;
};

/* A node that must be read before an operation can go on. */
struct tree_need {
	struct pointer at;
	uint32_t level;
	uint64_t first;
};

/* Reads `count` blocks, up to TREE_RUN_MAX, that lie side by side, verified against their CRCs, into a page each; both arrays are the
 * caller's again when it returns. Holds and puts `parent`. */
enum { TREE_RUN_MAX = 64 };
typedef void tree_read(void *arg, const struct pointer *at, void *const *pages, unsigned count, struct job *parent);

struct tree_load;

struct tree {
	struct env *env;
	tree_read *read;
	void *read_arg;
	struct pointer root;       /* a slot */
	uint32_t level;            /* of the root; it covers 256^(level+1) blocks */
	uint64_t generation;
	struct tree_node *cached;  /* hash by at.position */
	struct link lru, spare, slabs;
	struct tree_load *loads;   /* under way; hash by position */
	unsigned runs;             /* of them that nobody asked for, reads */
	struct fiber_cond settled; /* none is under way */
	unsigned node_count, dirty_count, spare_count, node_budget;
	uint64_t hits, misses;
};

struct tree_version {
	struct pointer root;       /* a slot; a reference is held if it is in memory */
	uint32_t level;
};

/* `node_budget`: nodes kept in memory, dirty ones included (these can exceed it). */
void tree_init(struct tree *t, struct env *env, tree_read *read, void *arg, const struct pointer *root, uint32_t level,
	       unsigned node_budget);
void tree_destroy(struct tree *t); /* it has settled; versions are released */
/* FIBER. Nothing is asked of it any more: waits until no load is under way. */
void tree_settle(struct tree *t);
/* Level that a volume of so many blocks needs at least. */
uint32_t tree_level_for(uint64_t blocks);
/* Makes the tree tall enough. -ENOMEM. */
int tree_grow(struct tree *t, uint64_t blocks);

/* The leaf that holds `block`, or NULL for a hole; `*ret_span`: blocks from `block` on that the answer holds for
 * (to the leaf's end, or the hole's). 0, or -EAGAIN with what to tree_load() first. The leaf is good until the
 * next suspension. */
int tree_leaf_read(struct tree *t, uint64_t block, struct tree_node **ret_leaf, uint64_t *ret_span, struct tree_need *ret_need);
/* The same to change it: owned by the current generation, made if missing. Also -ENOMEM. */
int tree_leaf_write(struct tree *t, uint64_t block, struct tree_node **ret_leaf, struct tree_need *ret_need);
static inline unsigned tree_slot(uint64_t block) { return (unsigned)(block % NODE_FANOUT); }

/* Holds `parent` until the node is in the cache (or 0 if it is already there); puts -EIO … on failure. While less than half of the budget
 * is used, leaves that lie beside a leaf on disk are read too: what one checkpoint wrote, so that a map that isn't in memory yet comes
 * in with few reads. */
void tree_load(struct tree *t, const struct tree_need *need, struct job *parent);

/* `parent` waits no longer for any node: what was held for it is put with `status`. Loading goes on. */
void tree_abandon(struct tree *t, struct job *parent, int status);

/* Everything up to now is `ret_version`; later changes copy. */
void tree_freeze(struct tree *t, struct tree_version *ret_version);
void tree_version_release(struct tree *t, struct tree_version *v);

/* ---- writing a version: what a checkpoint does ---- */

/* All unwritten nodes of the version, leaves first, level by level; a reference each. */
struct tree_batch {
	struct tree_node **nodes;
	unsigned count;
};
int tree_collect(struct tree *t, const struct tree_version *v, struct tree_batch *ret_batch); /* 0 or -ENOMEM */
void tree_batch_release(struct tree *t, struct tree_batch *b);
/* Several nodes at once, of which some are children of others, children first: which of them hold nothing (they need no writing); where each is to
 * be, as long as that isn't certain; what a node's page will be then. All that isn't written of its children is among them. Then for each, in the
 * same order, tree_resolve() and tree_written(). */
bool tree_note_void(struct tree_node *n);
void tree_note_place(struct tree_node *n, const struct pointer *at);
void tree_page(const struct tree_node *n, struct pointer ret_page[NODE_FANOUT]);
/* Prepares a node whose children are all written: slots become pointers. True if it holds nothing, then it needs no
 * writing: call tree_written() with position 0. */
bool tree_resolve(struct tree *t, struct tree_node *n);
/* The node is at `at` now. Fills what it replaced on disk (position 0: nothing). */
void tree_written(struct tree *t, struct tree_node *n, const struct pointer *at, struct pointer *ret_replaced);
/* A version's root as a disk pointer, once all of it is written. */
struct pointer tree_version_root(const struct tree_version *v);
#endif
