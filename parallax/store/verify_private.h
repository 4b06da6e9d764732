/* What verify*.c share: what is known of each segment while a volume is verified. */
#ifndef AQ_VERIFY_PRIVATE_H
#define AQ_VERIFY_PRIVATE_H
#include "parallax/store/verify.h"

struct verify_segment {
	uint64_t id;
	uint32_t blocks, live;   /* as the table says */
	uint32_t reached;        /* bits set in: */
	uint8_t *used, *dead;    /* reached from a root or a dead list's own block; on a dead list. NULL: none */
};

struct verify_list {
	uint64_t mark_seq;
	char name[64];           /* of the snapshot; "" until it is known */
	struct space_chunk *chunks;
	uint64_t *loose;         /* positions that are in no chunk yet */
	uint32_t chunk_count, loose_count;
	bool snapshot;           /* there is one with this mark */
	struct meta_root root;
	uint64_t mapped;         /* blocks its tree maps, as the catalog says */
	uint64_t entries, gone;  /* on the list; found to be */
};

struct verify_window;
struct verify_work {
	struct verify *how;
	uint64_t above;          /* segments with greater ids are its own */
	struct verify_segment *segments;
	uint32_t segment_count;
	struct verify_list *lists;
	uint32_t list_count;
	struct verify_window *windows[8]; /* by level */
	struct { uint64_t position; uint32_t blocks; } *table; /* records of the table itself */
	size_t table_count;
	const char *where;       /* what is being walked, for people */
	bool partial;            /* something couldn't be read: counts say nothing */
	bool base_unknown;       /* what a clone began as can't be had */
	int64_t mapped;          /* blocks mapped by what was walked last */
	uint64_t nodes;
	int failed;
};

/* All return 0, or what ends it all. */
int verify_fault(struct verify_work *w, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));
struct verify_segment *verify_find(struct verify_work *w, uint64_t segment);
static inline bool verify_own(const struct verify_work *w, uint64_t position) { return position_segment(position) > w->above; }
/* The block at `position` is used, for the first time; of the table if it is its own. */
int verify_use(struct verify_work *w, uint64_t position);

/* verify_walk.c: FIBER. What `root` has and `base` doesn't is used now; what only `base` has is gone, and must be on `list` (NULL: it
 * is somebody else's). */
int verify_walk(struct verify_work *w, const struct meta_root *root, const struct meta_root *base, struct verify_list *list);
void verify_walk_free(struct verify_work *w);
/* verify_copies.c: FIBER. What the servers have of each segment. */
int verify_servers(struct verify_work *w);
#endif
