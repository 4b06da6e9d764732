/* A random user of a block node, with an oracle: like fsx, with many requests in flight and, in the
 * simulator, with crashes. Every sector written carries the number of its write, so that what is read
 * back says which write it is; the oracle knows which ones may be there. Requests in flight at the same
 * time never overlap (then there would be no one answer) but are close to each other. */
#ifndef AQ_BLKTEST_H
#define AQ_BLKTEST_H
#include "core/blk.h"

#define BLKTEST_BASES 4
#define BLKTEST_HISTORY 48
#define BLKTEST_SECTOR 512u
#define BLKTEST_PARENT 1u       /* the write that blktest_fill() is taken for */

struct blktest_version {
	uint32_t id;       /* of the write; 0: zeroes; BLKTEST_ANY: undefined */
	uint64_t done_seq; /* 0: not completed */
};
#define BLKTEST_ANY UINT32_MAX

/* What may be in a sector: history[count - 1] now, any of them after a crash. */
struct blktest_sector {
	struct blktest_version history[BLKTEST_HISTORY];
	unsigned count;
	bool busy;
};

struct blktest {
	/* set by the test */
	struct blk_node *node;
	uint64_t seed;
	uint64_t base[BLKTEST_BASES]; /* the test works in [base, base + window) of the node */
	unsigned base_count;
	uint64_t window;              /* bytes */
	unsigned slots;               /* requests in flight */
	unsigned operations;          /* to do, in all */
	unsigned length_max;          /* sectors */
	bool unaligned_memory;
	bool no_discard, no_flush;
	bool syncs_fail;              /* injected errors may meet syncs */
	bool urgent;                  /* most requests write, and many of them FUA */
	/* what came of it */
	bool failed;
	char why[160];                /* the first wrong byte */
	uint64_t errors;              /* requests that failed with something else than -ESHUTDOWN */
	/* the test's own */
	bool lossy;                   /* a sync failed: nobody knows what the kernel has forgotten */
	struct blktest_sector *sector;
	uint64_t random, sequence;
	uint32_t next_id;
	unsigned issued, syncing;
};

/* Everything reads as write `id` (0: zeroes). */
void blktest_init(struct blktest *t, uint32_t id);
void blktest_free(struct blktest *t);
/* FIBER. Does t->operations; stops at -ESHUTDOWN, and with -EILSEQ at the first wrong byte. Requests may fail: then
 * what they wrote may be there or not. */
int blktest_run(void *t);
/* FIBER. Reads everything: after a crash, any version since the last flush is right, and is what counts from now on.
 * Flushes, so that it is durable. -EILSEQ at the first wrong byte. */
int blktest_check(void *t);
/* The bytes of sector number `sector` (of the node) as write `id` leaves them. */
void blktest_fill(void *to, uint64_t sector, uint32_t id);
uint64_t blktest_draw(struct blktest *t, uint64_t below);

/* FIBER. Opens driver over children with options "key=value" or "value", ended by NULL. */
extern const char *blktest_root; /* AQUIFER_ROOT for it; "" in the simulator */
int blktest_open(struct env *env, const struct blk_driver *driver, struct blk_node *child, bool read_only,
		 const char *const *words, struct blk_node **ret_node, struct report *report);
#endif
