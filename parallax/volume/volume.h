/* A volume: a radix-tree virtual disk with one writer, on a log of segments. This header is what
 * the block driver, the command line's store operations and the simulator use; the parts behind
 * it are in volume_private.h. Everything is one loop's; functions marked FIBER may suspend. */
#ifndef AQ_VOLUME_H
#define AQ_VOLUME_H
#include "core/blk.h"
#include "parallax/catalog/catalog.h"
#include "parallax/catalog/meta.h"
#include "parallax/copies/sources.h"
#include "parallax/segment/segment.h"

struct tree;
struct volume;

struct volume_limits {             /* 0 means the default */
	uint64_t cache_bytes;      /* tree nodes in memory: 64 MiB (P5) */
	uint32_t segment_blocks;   /* 0: chosen, 16384 (64 MiB) or less in a small store */
	uint64_t replay_bytes;     /* checkpoint when so much log would have to be replayed: 192 MiB of the 256 allowed */
	uint64_t checkpoint_ns;    /* … and after so long with changes: 20 s (R20) */
	uint32_t window;           /* records in flight */
	uint32_t index_from;       /* dead lists' chunks in the space table; of more of them indexes are made: SPACE_INDEX_FROM */
	uint32_t index_chunks;     /* … of so many: SPACE_INDEX_CHUNKS */
	uint64_t retain_bytes;     /* kept of what servers have acknowledged and not synced (R14): 16 MiB */
};

/* The holder that commands are which open an idle volume themselves, for moments. */
#define VOLUME_MAINTENANCE "maintenance"
enum { VOLUME_MAINTENANCE_MS = 10000 }; /* for so long others wait for one */

/* What can be had before a volume is to be opened, so that opening it is quick. All may be 0. An opening that succeeds takes it over, and one that
 * fails may have taken some: what is left is not NULL. */
struct volume_warm {
	struct catalog_lease *alive; /* of meta_key_alive(acquisition) */
	struct copies *copies;       /* of the cluster */
	struct file *lock;           /* of this host */
};
struct volume_open;
/* FIBER. For a volume that will be acquired with that number. What can't be had is left out. */
void volume_warm_up(struct env *env, const struct volume_open *how, uint64_t acquisition, struct volume_warm *ret);
void volume_warm_end(struct env *env, struct volume_warm *w); /* FIBER */

/* What the catalog says of a volume that is offered. Whoever acquires it so compares both revisions, so nothing of it is old then. */
struct volume_seen {
	struct meta_owner owner;
	struct meta_log log;
	uint64_t owner_revision, log_revision;
};
/* FIBER. Reads both at once. */
int volume_look(struct env *env, struct catalog *catalog, uint64_t volume, struct volume_seen *ret);

struct volume_open {
	struct catalog *catalog;
	const struct volume_places *places;
	uint64_t volume;
	const char *holder, *control, *host; /* for the owner record */
	uint64_t pid;
	bool force;                /* fence a holder that still lives */
	uint64_t offer;            /* not 0: only if it is offered under this number; -ESTALE if it isn't (any more) */
	uint64_t former;           /* with `offer`: or if it is held by this acquisition still, whose offer failed; 0: none */
	uint64_t acquisition;      /* the number of this one (volume_acquisition); with `offer`: or if an attempt with it that failed has it. 0: random */
	struct volume_warm *warm;  /* NULL: nothing */
	const struct volume_seen *seen; /* NULL, or how it is now: nothing is asked again, and -EBUSY if it is different by then */
	bool accept_flushed;       /* where a sync of the only copy failed: go on with what it has; all that was flushed is in it */
	struct volume_limits limits;
};

/* FIBER. Acquires the volume (R17): takes over after a crash, fences, cuts, replays. -EBUSY: held, the report names the holder. */
int volume_open(struct env *env, const struct volume_open *how, struct volume **ret_volume, struct report *report);
/* FIBER. Nothing is in flight. Checkpoints, cuts every segment, frees the owner record; on failure the next opener
 * takes over as after a crash. Always frees the volume. Accepts NULL. */
int volume_close(struct volume *v);

/* To whom a volume is offered; `id` is a random number that those know who may take it: the target and, to take it back,
 * the one that offered it. One of them gets it (volume_open with `offer`); anybody, once the target is dead. */
struct volume_offer {
	uint64_t id;
	const char *holder, *control, *host; /* the target's, for the owner record */
	uint64_t pid;
};
/* FIBER. It will be offered: makes what whoever takes it goes on with, beforehand. What fails is left to him. */
int volume_ready_next(struct volume *v);
/* FIBER. As volume_close(), but the volume isn't free then: it is offered. 0: so it is. */
int volume_close_offering(struct volume *v, const struct volume_offer *to);

/* FIBER. Deletes every segment from its server and frees the volume, whose keys are the caller's to remove. */
int volume_destroy(struct volume *v);

uint64_t volume_size(const struct volume *v); /* bytes */
uint64_t volume_identity(const struct volume *v); /* for blk_info.identity */
uint64_t volume_acquisition(const struct volume *v); /* a number of its own, in the owner record */

/* ---- requests: what a frame of the block driver holds ---- */

struct volume_write {
	uint64_t first;            /* block */
	uint32_t count;            /* blocks; with `clear` any number, else at most VOLUME_IO_BLOCKS */
	bool clear;                /* discard: reads as zeroes afterwards, no data */
	const struct iovec *iov;   /* count * BLOCK_BYTES, borrowed, stable */
	int iov_count;
	struct job *parent;
	/* the log's until completion */
	struct link link;
	struct log_record *record; /* that it is in; NULL: none yet */
	bool busy;
	uint32_t payload;          /* index of its first payload block in the record */
	uint64_t seq;
};
enum { VOLUME_IO_BLOCKS = 256, VOLUME_MARKS_MAX = 24, VOLUME_HOLD_MS_MAX = 10000 };
#define VOLUME_BYTES_MAX (UINT64_C(64) << 40)

/* Holds parent; put when the write is acknowledged and applied. The caller keeps overlapping
 * partial writes apart. */
void volume_write(struct volume *v, struct volume_write *w, struct job *parent);
/* Who asked gives up: it ends with -EIO, and may or may not have happened; if it hasn't when this volume next serves
 * anything that comes after it, it never will. Nothing that was acknowledged is touched. False: not yet, ask again: servers may
 * still be reading its buffers, or it is about to end by itself. */
bool volume_write_expire(struct volume *v, struct volume_write *w);
/* Durable: everything whose parent was put before. */
struct volume_flush {
	struct job *parent;
	struct link link;
	uint64_t seq;
};
void volume_flush(struct volume *v, struct volume_flush *f, struct job *parent);
/* It ends with -EIO. What it was to make durable is kept, and the next flush covers it as if this one had never been. */
void volume_flush_expire(struct volume *v, struct volume_flush *f);
/* Is something that was given up on its way into the map? Who reads a block to write it again in part must wait for that, or a
 * read could see it come and go. */
bool volume_expired_lands(const struct volume *v);
uint64_t volume_io_timeout_ns(const struct volume *v); /* 0: requests wait for ever */
/* Which of its requests can't go on because something can't be reached: those that write or flush; those that need a node of the map
 * or a block, for these see volume_sources(). */
bool volume_writes_wait(const struct volume *v);

/* Pointers of `count` blocks from `first`, now: 0, or -EAGAIN after starting to load what is missing (parent held: call again
 * when it has been put without error). */
int volume_lookup(struct volume *v, uint64_t first, uint32_t count, struct pointer *ret_pointers, struct job *parent);
/* Moves *first on, at most to `end`, past blocks of which the map holds nothing: clearing those would only fill the log. 0;
 * -EAGAIN: call again when what is held on `parent` has been put (nothing, if it was a long way: so that others get a turn). */
int volume_skip_holes(struct volume *v, uint64_t *first, uint64_t end, struct job *parent);
/* Where its blocks can be read; see sources.h. */
struct sources *volume_sources(struct volume *v);
struct tree *volume_tree(struct volume *v); /* of its map: for giving up a lookup */

/* ---- operations on an open volume, FIBER ---- */

/* A snapshot now (R21). -EEXIST, -EINVAL. It exists durably when this returns; its root comes with the next checkpoint. */
int volume_snapshot(struct volume *v, const char *name, struct report *report);
/* Publishes everything up to now and starts replay after it; removes doomed snapshots that nobody holds. */
int volume_checkpoint(struct volume *v);
/* Deleted snapshots that nothing holds are freed soon, as many at once as there are then. Not FIBER. */
void volume_reap_soon(struct volume *v);
/* FIBER. All of them, now; `ret_dropped`: how many went. */
int volume_reap(struct volume *v, uint64_t *ret_dropped);
int volume_resize(struct volume *v, uint64_t size_bytes, bool force, struct report *report);
int volume_set_io_timeout(struct volume *v, uint32_t ms, struct report *report);
/* FIBER. What it is called where there is nothing but what it says of itself (store_recover.h). Its name in the catalog is another matter. */
int volume_set_name(struct volume *v, const char *name, struct report *report);

struct volume_counters {
	uint64_t records, appended_blocks, data_blocks, syncs, checkpoints, snapshots, replayed_records, read_retries,
		read_errors, read_damaged, repairs_asked, hedged, hedges_won, mends, leaves, segments_freed, trims, packed;
	bool away;         /* its server can't be reached now */
	bool catalog_away; /* something waits for the catalog; writes go on as long as there are open segments */
	int checkpoint_failed; /* -errno: its checkpoints have been failing for a while */
	bool no_space;     /* guest data is refused until there is some */
	int failed;        /* it ended, every request fails: -errno; -EPERM: another owner has it */
	uint64_t log_bytes; /* would have to be replayed now */
	uint64_t nodes, dirty_nodes, node_hits, node_misses, mapped_blocks, live_blocks, dead_blocks;
};
void volume_count(const struct volume *v, struct volume_counters *ret);

/* ---- reading a snapshot, or a volume's last checkpoint, without being its owner ---- */

struct volume_reader;
struct volume_reader_open {
	struct catalog *catalog;
	const struct volume_places *places;
	uint64_t volume, mark_seq;
	uint64_t cache_bytes;
};
/* FIBER. The snapshot must have its root (has_root). The caller keeps a hold on it. */
int volume_reader_open(struct env *env, const struct volume_reader_open *how, struct volume_reader **ret_reader,
		       struct report *report);
int volume_reader_close(struct volume_reader *r); /* FIBER */
uint64_t volume_reader_size(const struct volume_reader *r);
uint64_t volume_reader_identity(const struct volume_reader *r); /* the snapshot's */
int volume_reader_lookup(struct volume_reader *r, uint64_t first, uint32_t count, struct pointer *ret_pointers, struct job *parent);
int volume_reader_skip_holes(struct volume_reader *r, uint64_t *first, uint64_t end, struct job *parent);
struct sources *volume_reader_sources(struct volume_reader *r);
struct tree *volume_reader_tree(struct volume_reader *r);
uint64_t volume_reader_io_timeout_ns(const struct volume_reader *r); /* as its volume said when it was opened */
#endif
