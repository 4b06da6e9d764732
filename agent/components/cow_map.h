/* The map of a cow layer in memory, and how it reaches the disk.
 *
 * A change of state is made in memory when the data it speaks of has been written, and becomes part of the file at the
 * next commit. A commit takes a snapshot of the changed pages, makes the data durable, writes the snapshot over the older
 * copy of each page, and makes that durable: so the map on disk never speaks of data that isn't there, and a torn
 * page leaves the copy before it. Commits run one at a time; flushes that wait share the next.
 *
 * Both copies of a page take their space in the file before its first change is made, so that a full file system refuses a write, and never the
 * commit of one that was acknowledged: those of them that are blank are written, as what they are. That is done for all pages that are asked for
 * at a time, and by one only, since a later commit writes there, too.
 *
 *     commit_start ─▶ [header: not clean ─▶] commit_sync_data ─▶ [commit_write ─▶ commit_sync_map ─▶] commit_done */
#ifndef AQ_COW_MAP_H
#define AQ_COW_MAP_H
#include "agent/components/cow_format.h"
#include "core/blk.h"

struct cow_page; /* the map of one group */

struct cow_map {
	struct blk_node *top; /* the file; borrowed */
	struct cow_header header;
	unsigned header_slot; /* the copy on disk that is in force */
	bool header_blank;    /* the other one may take no space */
	uint64_t group_count;
	struct cow_page **page; /* NULL: everything is the parent's */
	uint64_t page_count, commits, pages_written;
	struct link dirty, committing; /* of struct cow_page */
	struct link waiting, running;  /* of struct cow_commit */
	struct link wanting, reserving; /* of struct cow_reserve */
	bool read_only;
	bool sync_failed;              /* the file may have forgotten data that no commit has made durable */
	struct job job;
	struct blk_io io;
	struct iovec iov;
	uint8_t *header_page;
	struct job reserve_job;
	uint8_t *blank;                /* two pages of zeroes */
	struct iovec blank_iov[2];     /* one of them, and both */
};

/* Somebody who waits until there is room for the pages of these groups. */
struct cow_reserve {
	struct job *parent;
	uint64_t first, last;
	struct link link;
};

/* Somebody who waits for a commit. */
struct cow_commit {
	struct job *parent;
	struct link link;
};

/* FIBER. Reads header and map from the file. With `force`, the good copy of a damaged page is used. */
int cow_map_load(struct cow_map *m, struct blk_node *top, bool read_only, bool force, const char *path,
		 struct report *report);
/* FIBER. Writes a header that says so, durably. */
int cow_map_note_parent(struct cow_map *m, uint64_t identity);
/* FIBER. Both copies of the header take their space: for a layer of a program that didn't see to that, and that was never written. 0 or -errno. */
int cow_map_reserve_header(struct cow_map *m);
/* FIBER. Commits what is left, marks the file clean, frees. Harmless on a zeroed or half-loaded map. */
int cow_map_close(struct cow_map *m);

/* `block` counts COW_BLOCKs of the disk. */
enum cow_state cow_map_state(const struct cow_map *m, uint64_t block);
/* Makes sure that states of these blocks can be set, and committed. Holds `parent` if that takes a while, and puts it with 0, -ENOSPC or what
 * else the file says; `r` is the caller's until then. 0 or -ENOMEM. */
int cow_map_prepare(struct cow_map *m, struct cow_reserve *r, uint64_t block, uint64_t count, struct job *parent);
/* After cow_map_prepare(). */
void cow_map_set(struct cow_map *m, uint64_t block, uint64_t count, enum cow_state state);
/* -EIO if this block's data may have been forgotten by the file: it was never committed, and a sync has failed. */
int cow_map_check_data(const struct cow_map *m, uint64_t block);
/* True if the map has nothing of that block's group: all of it is the parent's. */
bool cow_map_is_untouched(const struct cow_map *m, uint64_t block);
/* True if the states of the blocks are on disk as they are in memory. */
bool cow_map_settled(const struct cow_map *m, uint64_t block, uint64_t count);
/* Holds `parent` and puts it when all that was set and written before is durable. */
void cow_map_commit(struct cow_map *m, struct cow_commit *c, struct job *parent);
#endif
