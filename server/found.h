/* What readers say is wrong in this server's copies (SCRUB with a segment): a queue, which the scrubber works off beside its passes. Anybody may say anything:
 * the queue is short, each range counts once in it, and what is in it is only looked at; what then turns out to be right costs reading it. */
#ifndef AQ_FOUND_H
#define AQ_FOUND_H
#include <stdbool.h>
#include <stdint.h>

enum { FOUND_WAITING = 64, FOUND_BLOCKS_MAX = 1024, FOUND_KNOWN = 64 };

struct found_range {
	uint64_t segment;
	uint32_t block, blocks;
};

struct found {
	struct found_range range[FOUND_WAITING]; /* by number % FOUND_WAITING: from `taken` up to `added` */
	uint64_t added, taken;
	struct found_range known[FOUND_KNOWN];   /* one block each: that could not be repaired; the last of them */
	uint64_t known_count;
};

/* 0, also if it waits already; -EINVAL: no such range; -EBUSY: too many wait. */
int found_add(struct found *f, const struct found_range *range);
bool found_take(struct found *f, struct found_range *ret);
static inline bool found_waits(const struct found *f) { return f->added > f->taken; }
/* This block can't be repaired. False: that was known, so there is nothing new to tell. */
bool found_is_news(struct found *f, uint64_t segment, uint32_t block);
#endif
