/* The last record of a checkpoint: what the catalog is about to be told of the volume. Nobody reads it while there is a catalog; when that was lost, and
 * what its backup has is older, the volume goes on from the newest one that its segments have (store_recover.c). */
#ifndef AQ_SUMMARY_H
#define AQ_SUMMARY_H
#include "parallax/catalog/meta.h"

/* Of how many snapshots, the newest, it tells: a few blocks' worth. Older ones are in any backup that is worth its name. */
enum { SUMMARY_SNAPSHOTS_MAX = 128, SUMMARY_BLOCKS_MAX = 8 };

struct summary {
	uint64_t volume;     /* its number in the catalog */
	uint64_t written_ns; /* since 1970 */
	struct meta_log log; /* as it will be, but without segments: those are found */
	struct meta_snapshot *snapshots; /* by mark; live ones that have their roots */
	uint32_t snapshot_count;
};

/* In whole blocks, page aligned; free() it. NULL: no memory. `*ret_length`: without what fills the last block. */
uint8_t *summary_encode(const struct summary *s, size_t *ret_length);
/* Does this block begin one? Then `*ret_length` is how many bytes it has; false also for one of more than SUMMARY_BLOCKS_MAX. */
bool summary_begins(const void *block, size_t *ret_length);
/* The checksum of its block `i`, from 1 on, as its first block, which begins it, says. */
uint32_t summary_crc(const void *block, uint32_t i);
/* 0, -EUCLEAN (damaged), -EPROTONOSUPPORT (newer), -ENOMEM. Allocates ret->snapshots. */
int summary_decode(const void *bytes, size_t length, struct summary *ret);
void summary_free(struct summary *s);
#endif
