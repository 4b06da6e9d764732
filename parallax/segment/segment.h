/* Copies of segments, and who holds them: one interface for a directory in this process
 * (segment_dir.c; R34's embedded server) and for an aquifer-server reached by RPC
 * (segment_remote.c). The rules are store.md's R6–R9; whoever implements this keeps them.
 *
 * All operations are asynchronous: segment_submit() holds `parent`, which is put with the
 * status. Appends to one segment are answered in order, each only when all up to it are
 * written. Buffers are borrowed until completion and page aligned if the caller wants speed. */
#ifndef AQ_SEGMENT_H
#define AQ_SEGMENT_H
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "core/env.h"
#include "parallax/format.h"

enum segment_op {
	SEGMENT_CREATE, /* make the file, write block 0 durably: header */
	SEGMENT_APPEND, /* R6: iov is whole blocks at `block` */
	SEGMENT_READ,   /* `blocks` blocks at `block` into iov; any copy may answer, open or sealed */
	SEGMENT_SYNC,   /* R7: [0, block) is durable */
	SEGMENT_FENCE,  /* R8: durable; fills length, state, last_crc, last_seq */
	SEGMENT_SEAL,   /* R9: cut to `block`, chain ends with `crc`; footer; synced */
	SEGMENT_REPAIR, /* takeover: append verified bytes under the taker's epoch, whatever the copy's state, at
			   `block` <= its length; only while fenced at exactly `epoch` and not sealed. Durable when
			   answered, as is all that was there before (written again where a sync failed, or may have);
			   `blocks` 0 only makes durable what is there (a doubtful copy refuses SYNC) */
	SEGMENT_DELETE, /* R29: gone for ever, its file may be recycled; 0 also if it isn't there. Not by who was fenced (`epoch` 0: who isn't an owner): a
			   taker may have made it anew, or counts on it */
	SEGMENT_STAT,   /* as FENCE but fences nothing */
	SEGMENT_TRIM,   /* R28: `trim` has a bit for each of the first `blocks` blocks, set for those that are free for ever.
			   United with what the copy knows, durable when answered, from any sender but one who was fenced (`epoch` 0: who isn't
			   an owner), in any order; takes effect when the copy is sealed. With `pack` a sealed copy is rewritten without its free
			   blocks (R30). Fills what STAT does. Block 0 is never free. */
	/* what servers ask one another, see segment_share.h: */
	SEGMENT_LIST,   /* entries of copies with ids above `segment` in `groups` into iov: `filled` bytes; `next`: ids up to
			   which it looked, 0: all there are */
	SEGMENT_FETCH,  /* sealed: a page with its blocks from `block` on that aren't free, at most `blocks`, and their footer's
			   CRCs into iov; `next`: the first block that was not looked at */
	SEGMENT_HOLDS,  /* 0: under revision `map` of the map it has [0, block), sealed with `crc`, whole and durably, and
			   that isn't about to go; else -ESTALE or -ENOENT */
	SEGMENT_OPS,
};

#define SEGMENT_BITMAP_BYTES ((SEGMENT_BLOCKS_MAX + 7) / 8)

enum copy_state {
	COPY_WHOLE,    /* has everything it answered */
	COPY_DOUBTFUL, /* has at least what it synced */
	COPY_BROKEN,   /* a sync failed, or something that was synced is missing: for good */
	COPY_ABSENT,
};

struct segment_io {
	enum segment_op op;
	uint64_t segment;
	uint64_t epoch;
	uint64_t incarnation;         /* APPEND, SYNC: -ESTALE if the server is in another */
	uint32_t block, blocks;
	const struct iovec *iov;
	int iov_count;
	struct segment_header header; /* CREATE */
	bool reserve;                 /* CREATE: may use the reserve (R32): for checkpoints and what frees space */
	uint32_t crc;                 /* SEAL: header CRC of the last record within [0, block) */
	const uint8_t *trim;          /* TRIM: bit b % 8 of byte b / 8; borrowed */
	bool pack;                    /* TRIM */
	bool again;                   /* READ: what was read before was wrong */
	uint8_t *free_bits;           /* STAT: SEGMENT_BITMAP_BYTES, filled with what is known to be free; NULL: not wanted. All zero
					 with `trimmed` above 0: the server is of a version that can't say */
	const uint8_t *groups;        /* LIST: a bit for each placement group, borrowed; NULL: all */
	uint32_t group_count;         /* LIST: how many groups that makes of all */
	uint64_t map;                 /* HOLDS */
	uint8_t *changed;             /* LIST: SEGMENT_GROUPS_BYTES, filled with a bit for each of group_count groups: what is listed of it isn't what it was
					 when `index` and `change` were answered (0: never). NULL: not wanted. They become what they are now; index 0:
					 the server is of a version that can't say. What changes later has a greater one */
	uint64_t index, change;
	/* results */
	int status;
	uint32_t length;              /* FENCE, STAT: blocks, with block 0 */
	enum copy_state state;
	bool sealed;
	uint32_t last_crc;            /* of the last whole record's header; 0 if none */
	uint64_t last_seq;
	uint64_t fenced_epoch;
	bool lost_synced;             /* broken, and not even what was synced is there */
	uint32_t trimmed, present;    /* FENCE, STAT, TRIM: blocks known to be free; blocks that take space */
	uint32_t filled;              /* LIST, FETCH: bytes of iov */
	uint64_t next;                /* LIST, FETCH */
	/* the implementation's until completion */
	struct job *parent;
	struct link link;
	void *private;
};

/* The server can't be reached now; it may come back. */
static inline bool segment_away(int status)
{
	return status == -ENOTCONN || status == -ETIMEDOUT || status == -ECONNRESET;
}

/* Errors: -EPERM fenced above the epoch (R18: the owner ends); -ESTALE another incarnation, doubtful
 * or broken; -EINVAL block is not the length; -EROFS sealed; -ENOENT; -EEXIST; -ENOSPC; -ENOTCONN,
 * -ETIMEDOUT the server can't be reached (the operation may have happened); -ENODATA READ: trimmed; -EIO. */
struct segment_server;
struct segment_server_ops {
	void (*submit)(struct segment_server *s, struct segment_io *io);
	int (*close)(struct segment_server *s); /* FIBER; clean stop: later copies are whole */
	void (*cut)(struct segment_server *s);  /* it is closed soon: as much of that as doesn't wait; may be NULL */
	bool (*up)(const struct segment_server *s); /* connected now; NULL: always is */
	/* It isn't needed any more: ends with -ECANCELED, unless it ends by itself; NULL: always does. */
	void (*cancel)(struct segment_io *io);
	const char *(*why)(const struct segment_server *s); /* not up: one clause for people, "" if it isn't known; may be NULL */
};
struct segment_server {
	const struct segment_server_ops *ops;
	struct env *env;
	uuid id;
	uint64_t incarnation;         /* known once open; raised at each start */
	uint64_t free_bytes, total_bytes; /* last known */
	int gone;                         /* a directory: why its segments weren't found when that was looked last, 0: they were */
	uint32_t protocol;            /* an aquifer-server: the newest version that it speaks; otherwise 0 */
};

static inline void segment_submit(struct segment_server *s, struct segment_io *io, struct job *parent)
{
	job_hold(parent);
	io->parent = parent;
	s->ops->submit(s, io);
}
int segment_wait(struct segment_server *s, struct segment_io *io);  /* FIBER */
static inline bool segment_up(const struct segment_server *s) { return !s->ops->up || s->ops->up(s); }
static inline const char *segment_why(const struct segment_server *s) { return s->ops->why ? s->ops->why(s) : ""; }
int segment_server_close(struct segment_server *s);                 /* FIBER; accepts NULL */

/* Answered with as many bytes of iov as there are to tell. */
static inline bool segment_fills(enum segment_op op)
{
	return op == SEGMENT_LIST || op == SEGMENT_FETCH;
}

struct catalog;
/* FIBER. Opens (makes, if `create`) a data directory: takes its OFD lock (-EBUSY: another process has it),
 * reads its UUID, raises its incarnation in the catalog (server/UUID), finds its copies and which are whole
 * (same boot id, or stopped cleanly). `size_limit` bytes of segment files at most, 0: the file system's.
 * `reserve`: fraction kept as R32 says when true. */
#define SEGMENT_FILES_DEFAULT 2048u /* opening one costs more than a read */
struct segment_dir_options {
	bool create;
	unsigned files_max;    /* open when idle; 0: SEGMENT_FILES_DEFAULT */
	uint64_t size_limit;
	const char *address;   /* registered in the catalog; NULL: embedded */
	const char *domain;    /* registered too: what fails together, "" or NULL if nobody said */
	const char *host;      /* likewise: whose certificate it has, "" or NULL if it has none */
};
int segment_dir_open(struct env *env, const char *path, struct catalog *catalog,
		     const struct segment_dir_options *options, struct segment_server **ret_server,
		     struct report *report);
/* FIBER. Looks how much space there is now: its free_bytes and total_bytes. 0 or -errno. */
int segment_dir_space(struct segment_server *s);
/* FIBER. 0, or why the directory that its segments are in isn't found: it was deleted, or unmounted, while this process has it open. `gone` remembers that. */
int segment_dir_there(struct segment_server *s);
/* FIBER. Calls `entry` with the id of each copy in the directory, in order, without looking into them. */
int segment_dir_ids(struct segment_server *s, int (*entry)(void *arg, uint64_t segment), void *arg);
/* FIBER. Of segments that were fenced there when they weren't (and may be by now). */
int segment_dir_fences(struct segment_server *s, int (*entry)(void *arg, uint64_t segment), void *arg);
/* FIBER. Fences that a process was writing when it died, and answered to nobody, are gone. 0 or -errno. */
int segment_dir_tidy(struct segment_server *s);
/* FIBER. The same as segment_dir_ids() of a directory that another process may have open. */
int segment_path_ids(struct env *env, const char *path, int (*entry)(void *arg, uint64_t segment), void *arg);

/* FIBER. A client of an aquifer-server. Reconnects by itself; operations fail with -ENOTCONN or
 * -ETIMEDOUT after `deadline_ns`. */
int segment_remote_open(struct env *env, const char *address, uint64_t deadline_ns,
			struct segment_server **ret_server, struct report *report);
/* How a server's own work goes (server/keeper.h), in parts. */
enum { SEGMENT_GROUPS_BYTES = 1024 }; /* a bit for each placement group, of which there may be so many */
struct segment_status {
	uint64_t map;                       /* revision that it knows */
	uint64_t copies, unsealed;          /* that it has */
	uint64_t missing, missing_bytes;    /* that it should have, and hasn't */
	uint64_t bytes_per_s;               /* that it copies just now */
	uint64_t misplaced;
	bool settled;
	uint8_t held[SEGMENT_GROUPS_BYTES]; /* a bit for each placement group of which it has copies */
	uint32_t held_rounds;
	uint64_t gc_rounds, gc_freed, gc_freed_bytes, gc_unanswered;
	bool gc_refused;
};
/* FIBER. Asks an aquifer-server; with `gc` it also begins a round of that, and gc_rounds is what it will be at least when that has
 * ended. -ENOSYS: an older one. */
int segment_remote_status(struct segment_server *s, bool gc, struct segment_status *ret);
/* The same for the server `id`, without waiting for it: the connection is made in the background, also if it isn't there yet. `host`: whose certificate it
 * must have at a "tls:" address; "": of any. `tried` (may be NULL) is called when an attempt has ended, until it is closed; 0: it is connected.
 * 0, -EINVAL (address), -ENOMEM. */
int segment_remote_start(struct env *env, const char *address, const uuid *id, const char *host, uint64_t deadline_ns,
			 void (*tried)(void *arg, int status), void *arg, struct segment_server **ret_server);
#endif
