/* Where blocks can be read: a volume's own segments, and those of the volumes it was cloned from.
 * Segment ids only grow, and a clone's own ones are above its origin, so the id says whose it is. */
#ifndef AQ_SOURCES_H
#define AQ_SOURCES_H
#include "parallax/catalog/catalog.h"
#include "parallax/catalog/meta.h"
#include "parallax/copies/copies.h"
#include "parallax/copies/hedge.h"
#include "parallax/copies/repairs.h"
#include "parallax/segment/segment.h"

/* How a volume reaches the servers that hold segments; the simulator brings its own. */
struct volume_places {
	/* FIBER. The directory server of an embedded volume, locked (R34); -EBUSY if another process has it. */
	int (*open_embedded)(void *arg, uint64_t volume, bool create, struct segment_server **ret, struct report *report);
	/* FIBER. The same to read only, without the lock: for clones and readers. */
	int (*open_embedded_reader)(void *arg, uint64_t volume, struct segment_server **ret, struct report *report);
	/* FIBER. A lock that lives as long as this process: for volumes on servers, so that a second attach on this host is
	 * refused before anything is fenced. -EBUSY. NULL: none. */
	int (*lock)(void *arg, uint64_t volume, struct file **ret, struct report *report);
	/* FIBER. -EBUSY while somebody reads the snapshot (then it isn't removed yet). NULL: nobody does. */
	int (*snapshot_idle)(void *arg, uint64_t volume, uint64_t mark_seq);
	/* FIBER. Ends a holder on this host for good (R34, --force); -EBUSY if it can't. NULL: nobody can be evicted. */
	int (*evict)(void *arg, const struct meta_owner *owner, struct report *report);
	/* FIBER. Is the process that an owner record names alive on this host? NULL: nobody knows, it may be. */
	bool (*holder_alive)(void *arg, const struct meta_owner *owner);
	/* FIBER. Does somebody on another host have it, as far as is known? NULL: nobody does. */
	bool (*held_elsewhere)(void *arg, const struct meta_owner *owner);
	/* Does a device on another host have it, or is to have it, whatever its lease says? What only maintains a volume doesn't take it from one. NULL: none. */
	bool (*attached_elsewhere)(void *arg, const struct meta_owner *owner);
	const char *boot;   /* this machine's boot id: written into owner records, so that what they say of a process isn't believed of another that has its number; NULL: not known */
	uint64_t pids;      /* beside it, in an owner record's way; 0: not known */
	uint64_t began_ticks; /* when this process began: who has its number later isn't it; 0: not known */
	const char *domain; /* this host's: servers in the same are the nearest; NULL: not known */
	void *arg;
};

enum { SOURCES_MAX = 1024 }; /* a clone of a clone …: volumes whose segments one volume may read, itself included */

struct source {
	uint64_t above;        /* segments with greater ids, up to those of the source before */
	struct copies *copies; /* an embedded volume's own, or those of the cluster, which all others share */
	struct segment_server *reader; /* an embedded volume's directory, opened here; NULL: somebody else's */
};

struct sources {
	struct env *env;
	struct source *source; /* the newest first */
	unsigned count;
	struct copies *cluster; /* NULL: no source is there */
	/* What reads do while their server can't be reached: wait for it, as writes do; or fail at once. Off until a
	 * volume is open, so that opening it says what is missing, and again when it has failed. */
	bool patient;
	/* Asked when a read failed: may its server be about to be given back what it lost (R14)? Then it is read again. NULL: no. */
	bool (*unsettled)(void *arg);
	void *unsettled_arg;
	struct hedges hedges;
	struct repairs repairs;
	struct link waiting;    /* block_read.waits: those whose servers are all away, the oldest first */
	uint64_t retries, errors, hedged, hedges_won; /* reads; the last two: that were late, and that another server answered first */
	uint64_t damaged; /* answers of one server of several that weren't the block, or that its disk couldn't read */
};

/* FIBER. The volume's own segments first, then its ancestors'. `own`: an embedded volume's, which it has open for writing, and
 * which stay the caller's; of another volume, the cluster's, open already, which are taken over; NULL: opened as a reader's. 0 or -errno with a report. */
int sources_open(struct sources *s, struct env *env, struct catalog *catalog, const struct volume_places *places,
		 uint64_t volume, const struct meta_log *log, struct copies *own, struct report *report);
void sources_close(struct sources *s); /* FIBER */
/* FIBER. How many volumes' segments a clone of `volume` would read; -errno. */
int sources_depth(struct catalog *catalog, uint64_t volume);

/* A run of blocks that lie side by side in one segment. */
struct block_read {
	struct job job;
	struct sources *sources;
	struct segment_io io;
	struct timer again;
	const struct pointer *pointers;
	const struct iovec *iov;
	int iov_count;
	uint32_t count, attempts, looks;
	struct peer *asked[PLACEMENT_CANDIDATES_MAX]; /* the first `attempts` */
	struct peer *peer;      /* whose answer comes into iov */
	uint64_t since_ns;
	struct link slow;       /* hedges.reads */
	struct rival *rival;    /* NULL: none */
	struct read_apart *apart; /* NULL: it isn't read block by block */
	bool lost;              /* `peer` has failed, and the rival is waited for; with … */
	int status;             /* … this */
	struct peer *damaged;   /* whose answer was, and who is asked again when nobody else is left; NULL: none */
	bool twice;             /* he was */
	uint32_t bad;           /* a bit for each of `asked`: the answer was wrong, or its disk couldn't read it */
	bool away;              /* one that may have it couldn't be asked */
	bool absent;            /* one that should have it has it not, or can't read it: others are asked first for a while */
	bool gone;              /* it is free for ever, says one: nobody need be waited for */
	bool busy, expired;     /* under way; and given up by who asked */
	bool prompt;            /* servers that are away aren't waited for, however patient others are */
	struct link waits;      /* sources.waiting */
	uint64_t away_ns;       /* since then */
	struct job *parent;
};
/* Reads into iov (count * BLOCK_BYTES) and verifies each block (P3); what one server can't give, or gives wrongly, the next is
 * asked for, and if several had some of it wrong each block is asked for by itself; one whose answer was damaged is asked once more when nobody is left. When another had it right, it is told (repairs.h). Holds and puts
 * `parent`: -EIO if it can't be had; other errors as segment.h has them. All borrowed until then. */
void sources_read(struct sources *s, struct block_read *r, const struct pointer *pointers, uint32_t count,
		  const struct iovec *iov, int iov_count, struct job *parent);
/* Who asked gives up: it ends with -EIO, as soon as nobody fills its buffers any more, unless it ends well before. */
void block_read_expire(struct block_read *r);
/* For people: what the reads that have waited longest wait for, in one clause. False: none waits. `*ret_since_ns` is on
 * env_now_ns()'s clock. */
bool sources_waits(struct sources *s, char *ret_text, size_t bytes, uint64_t *ret_since_ns);
/* For people: which servers' reads it were, and how long they take lately (blk_driver.describe). */
void sources_describe(const struct sources *s, void (*item)(void *arg, const char *key, uint64_t value), void *arg);
/* For hedge.c: are these its blocks? 0, -EBADMSG. Who may be asked next? NULL: nobody. Its rival has an answer, which is good with status 0. */
int block_read_verify(const struct block_read *r, const struct iovec *iov, int iov_count);
struct peer *block_read_next_peer(const struct block_read *r);
void block_read_rival_done(struct block_read *r, int status);
/* For read_apart.c, which reads block by block what no copy has as a whole; false: no memory. How it ends; it is given up. */
bool block_read_apart(struct block_read *r);
void block_read_end(struct block_read *r, int status);
void block_read_apart_expire(struct block_read *r);
/* A tree_read, with the sources as argument. */
void sources_read_nodes(void *sources, const struct pointer *at, void *const *pages, unsigned count, struct job *parent);
/* FIBER: one block. The second doesn't wait for servers that are away: for what can be done later. */
int sources_read_wait(struct sources *s, const struct pointer *at, void *page);
int sources_read_now(struct sources *s, const struct pointer *at, void *page);
/* CRC32C of each of `blocks` blocks of an iovec, after its first `skip` bytes. */
void iov_block_crcs(const struct iovec *iov, int iov_count, uint64_t skip, uint32_t blocks, uint32_t *ret_crcs);
#endif
