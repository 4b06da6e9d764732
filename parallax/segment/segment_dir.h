/* A data directory from inside: what segment_dir*.c share. Callers use parallax/segment/segment.h.
 * The bytes are drawn in docs/formats/data-directory.md. */
#ifndef AQ_SEGMENT_DIR_H
#define AQ_SEGMENT_DIR_H
#include "core/fiber.h"
#include "parallax/segment/segment.h"
#include "parallax/segment/segment_scan.h"

#define DIR_VERSION 1u
#define DIR_PATH_MAX 1024
#define SLOT_COUNT 2u
#define COPY_BASE ((uint64_t)SLOT_COUNT * BLOCK_BYTES) /* file offset of a segment's block 0 */
#define ALLOCATE_STEP_BYTES (4u << 20)                 /* allocated ahead, R35 … */
#define ZERO_STEP_BYTES (1u << 20)                     /* … or zeroed, see segment_dir_ahead.c */
#define POOL_FILES_MAX 32u                             /* recycled files kept, at most: see pool_limit() */
#define TABLE_BUCKETS 1024u
#define COPIES_MAX 4096u                               /* in memory, when idle */
#define SCANS_MAX 16u                                  /* at once: each has 4 MiB in memory */

/* ---- the file `server` (segment_dir_server.c) ---- */

struct dir_server {
	uuid id;
	uint64_t incarnation;     /* the last that is known to be in the catalog */
	uint64_t intent;          /* the one being raised to, or the same */
	char boot_id[37];         /* of the machine that used it last */
	bool clean;               /* stopped in order: everything answered since unsynced_before is durable */
	uint64_t doubtful_before; /* unsealed copies made in earlier incarnations may lack what they answered */
	uint64_t stale_before;    /* … come from an older state of this disk and count for nothing */
	uint64_t unsynced_before; /* … become doubtful when the boot id changes, even after a clean stop */
};

void dir_server_encode(const struct dir_server *s, void *block);
/* 0, -EBADMSG, -EPROTONOSUPPORT */
int dir_server_decode(const void *block, struct dir_server *ret);

/* ---- copies ---- */

/* What a copy's file says of itself, in two slots that are written in turn. */
struct copy_slot {
	struct segment_header header;
	uint64_t generation;
	uint64_t incarnation; /* of the server when it was made; 0: made to be copied into, and not sealed yet */
	uint64_t fenced_epoch;
	bool sealed, broken;
	uint32_t length;      /* sealed: the cut */
	uint32_t prev;        /* sealed: CRC of the last record's header */
	uint64_t last_seq;    /* sealed */
	bool packed;          /* the file has a map, and only the blocks that the map has */
	uint32_t trimmed;     /* bits set in … */
	const uint8_t *trim;  /* encode: the bitmap of free blocks, the caller's; NULL: none */
};
void copy_slot_encode(const struct copy_slot *s, void *block);
int copy_slot_decode(const void *block, struct copy_slot *ret); /* 0, -EBADMSG, -EPROTONOSUPPORT */

/* The bitmap in a slot's block; false: there is none, or it is torn. */
bool copy_slot_trim(const void *block, const struct copy_slot *s, uint8_t *ret_trim);

/* ---- packed copies (segment_dir_pack.c) ---- */

#define BITMAP_BYTES SEGMENT_BITMAP_BYTES
static inline bool bit_get(const uint8_t *bits, uint32_t i) { return bits[i / 8] >> (i % 8) & 1; }
static inline void bit_set(uint8_t *bits, uint32_t i) { bits[i / 8] |= (uint8_t)(1u << (i % 8)); }

/* Which blocks of a segment a packed file has, in their order. */
struct copy_map {
	uint32_t blocks, count;                 /* bits; of those set */
	uint16_t rank[BITMAP_BYTES / 32 + 1];   /* set bits before each 32 bytes */
	uint8_t bits[BITMAP_BYTES];
};
#define MAP_BASE COPY_BASE                      /* where it is in the file … */
#define PACK_BASE (MAP_BASE + BLOCK_BYTES)      /* … and the first of the blocks */
void copy_map_encode(const struct copy_map *m, uint64_t segment, void *block);
/* 0; -ENODATA: no map, the file isn't packed; -EBADMSG; -EPROTONOSUPPORT. */
int copy_map_decode(const void *block, uint64_t segment, struct copy_map *ret);
/* Where [block, block + blocks) is in the file: 0; -ENODATA: not all of it is there. */
int copy_map_find(const struct copy_map *m, uint32_t block, uint32_t blocks, uint64_t *ret_offset);

struct segment_dir;

struct copy {
	struct link hash, lru;
	struct link open;         /* among those with a file, in the same order */
	struct segment_dir *dir;
	uint64_t id;
	unsigned users;           /* operations that use it; it isn't evicted meanwhile */
	struct fiber_mutex mutex; /* one control operation at a time */
	bool loaded;              /* exists, slot and (if it does) file are known */
	bool exists;
	struct file *file;
	struct file_info info;
	struct fiber_mutex slot_mutex;
	struct copy_slot slot;    /* as it was read or written last; slot.trim is this copy's: */
	uint8_t *trim;            /* what is free; NULL: nothing */
	uint32_t trimmed;         /* bits set in it */
	struct copy_map *map;     /* packed: what the file has */
	bool mapless;             /* packed, and the map can't be read: nothing in the file can be found */
	uint64_t charged;         /* copy_bytes(), as it is in the directory's size_used */
	bool found;               /* whether holes are missing was looked at */
	/* segment_dir_late.c */
	struct link late;         /* among those that wait for holes */
	uint64_t late_ns, late_bytes; /* until when; in how much of it */
	uint8_t *late_given;      /* which blocks became free since the last holes; NULL: none */
	bool settled;             /* that is durable, and so is the file's name */
	uint64_t fenced_epoch;    /* takes effect at once, durable before it is answered */
	bool broken, breaking;    /* likewise; it is being written down */
	bool damaged;             /* a slot is unreadable: doubtful */
	bool lost_acked, lost_synced; /* the last scan found evidence: doubtful, broken until repaired */
	bool unverified;          /* was repaired: to be scanned before its length is told */
	bool rewritten;           /* by this process, after one that didn't end well: see copy_unsure() */
	unsigned busy;            /* reads, syncs and allocations under way */
	bool deleting;            /* operations wait until it is gone */
	bool sealing;             /* a cut was recorded: no more appends */

	bool scanned;             /* length, last_crc, last_seq are known */
	uint32_t length;          /* blocks that were answered, or found */
	uint32_t last_crc;
	uint64_t last_seq;
	uint32_t *crcs;           /* of [0, length); NULL: not known. While it isn't scanned of [0, said), as the records' headers have them: what should be there */
	uint32_t said;
	uint32_t flushed;         /* [0, flushed) was, as the scan's records say */
	/* the chain with what is being written */
	uint32_t accepted, accepted_crc;
	uint64_t accepted_seq;
	struct link appends;      /* frames, in order */
	int failing;              /* an append failed; those behind it fail too */
	struct fiber_cond idle;   /* no append under way; nothing under way */
	bool dirty;               /* answered since the last sync */

	uint32_t synced;          /* [0, synced) is durable */
	bool sync_running;
	struct link syncs;        /* frames that wait for the next sync */

	/* segment_dir_ahead.c */
	uint64_t ready;           /* file bytes that are allocated or zeroed; UINT64_MAX: no matter */
	bool preparing, zeroing;  /* more are being made ready; by writing */
	struct link stalled;      /* appends that reach into what is being zeroed, in order */
	uint64_t ready_marked;    /* where the appends were when … */
	unsigned syncs_marked;    /* … this count of syncs began */
	struct link waiting;      /* frames that came before it was ready, in order */
	bool opening;
};

struct segment_dir {
	struct segment_server server; /* first */
	struct env *env;
	struct catalog *catalog;
	char path[DIR_PATH_MAX];
	struct file *lock;
	struct dir_server state;
	struct link table[TABLE_BUCKETS];
	struct link lru, open;    /* copies in memory, and those of them whose files are open, least recently used first */
	unsigned copies, files;
	unsigned files_max;     /* open when idle: options.files_max, or what the process may have */
	struct link frames_free;
	unsigned under_way;       /* operations */
	struct fiber_cond quiet;
	struct fiber_mutex evict;
	bool sync_often;          /* users sync so often that zeroing ahead pays */
	void *zeroes;             /* ZERO_STEP_BYTES; NULL until needed */
	uint64_t size_limit, size_used; /* bytes; used only with a limit */
	bool no_holes, holes;     /* the file system can't punch any; it can. Neither: it wasn't tried */
	struct fiber_mutex pack_mutex; /* one copy at a time is packed */
	unsigned scans;                /* under way */
	struct fiber_cond scan_ended;
	uint32_t *pool;           /* numbers of files */
	unsigned pool_count, pool_room;
	unsigned pool_coming;     /* being given */
	uint64_t pool_next;
	uint64_t pool_ns;         /* when a file was taken or given last */
	struct dir_index *index; /* segment_dir_share.c; NULL: nobody has asked */
	void (*damage)(void *arg, uint64_t segment, uint32_t block, uint32_t blocks); /* see segment_dir_on_damage() */
	void *damage_arg;
	struct link late;         /* copies, in the order of their turns */
	uint64_t late_bytes;      /* that wait to become holes */
	struct timer late_timer;
	struct job late_job;
	bool late_running;
	bool embedded;            /* for one volume */
	bool closing;
};

/* One operation under way. */
struct dir_frame {
	struct job job;
	struct segment_dir *dir;
	struct copy *copy;
	struct segment_io *io;
	struct file_io file_io;
	struct link link;
	bool done;
	void *bounce;
	struct iovec bounce_vec;
	uint32_t last_crc;        /* APPEND: of the last record in it */
	uint64_t last_seq;
};

static inline struct segment_dir *dir_of(struct segment_server *s) { return container_of(s, struct segment_dir, server); }

/* segment_dir.c */
void dir_frame_end(struct dir_frame *f, int status); /* ends the operation, lets go of the copy */
struct copy *copy_hold(struct segment_dir *d, uint64_t id); /* NULL: no memory */
void copy_release(struct copy *c);
void dir_evict(struct segment_dir *d); /* FIBER. Closes and forgets what is idle, down to the limits */
/* FIBER. copy_load(); where the process has no descriptors left others' files are closed first. */
int dir_load(struct copy *c);
int dir_space(struct segment_dir *d); /* FIBER. What is free, for others to know */
void dir_path(const struct segment_dir *d, char ret_path[DIR_PATH_MAX], const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* segment_dir_server.c. FIBER */
int dir_server_start(struct segment_dir *d, const struct segment_dir_options *options, struct report *report);
int dir_server_write(struct segment_dir *d);

/* segment_dir_copy.c. All FIBER, the copy's mutex held, but for the first two. */
enum copy_state copy_state(const struct copy *c);
bool copy_lost_synced(const struct copy *c);   /* something that was synced is missing, as far as it shows */
void copy_opened(struct copy *c);              /* its file is; not FIBER */
int copy_load(struct copy *c);                 /* -ENOENT isn't an error here: see c->exists */
int copy_scan(struct copy *c);                 /* after copy_load() */
/* segment_scan() of its first `limit` blocks, when it has its turn: after a power failure who takes volumes over asks for hundreds. */
int copy_scan_file(struct copy *c, uint32_t limit, uint32_t *crcs, struct segment_scan *ret);
/* An earlier process may have died between writing and syncing what this one reads: before anything is
 * answered because of it, it is made durable. */
int copy_settle(struct copy *c);
/* Not FIBER. An earlier process may have died with a failed sync of it that it couldn't write down (COPY_BROKEN) either. Then
 * what can be read may be in no memory that lasts, and a sync proves nothing: the kernel reports what it lost only once. */
bool copy_unsure(const struct copy *c);
void copy_forget(struct copy *c);              /* closes its file; it is loaded again when needed */
int copy_fdatasync(struct copy *c);            /* a failure breaks the copy */
void copy_break(struct copy *c);               /* and writes that down as well as it can */
/* Durable: what is known of the copy, and `seal`'s length, prev and last_seq if it isn't NULL. */
int copy_slot_write(struct copy *c, const struct copy_slot *seal);
void copy_appends_wait(struct copy *c);
void copy_busy_end(struct copy *c); /* not FIBER */
void copy_path(const struct copy *c, char ret_path[DIR_PATH_MAX]);

/* segment_dir_trim.c. FIBER, the copy's mutex held; all but the first. */
uint32_t copy_present(const struct copy *c);    /* blocks that take space; not FIBER */
uint64_t copy_bytes(const struct copy *c);      /* what the directory's size limit counts; a function of what is in its file */
void copy_charge(struct copy *c);               /* it has changed; not FIBER */
void copy_trim_forget(struct copy *c);          /* not FIBER */
int copy_trim_load(struct copy *c, const uint8_t *slots); /* the bitmap and the map; the slots are read */
int copy_punch(struct copy *c, const uint8_t *given, uint32_t least); /* holes where runs of free blocks are, those that have one of
					       `given` (NULL: all), and are no shorter than `least` */
/* Blocks in those runs; not FIBER. */
uint32_t copy_runs(const struct copy *c, const uint8_t *given, uint32_t least);
int copy_trim_sealed(struct copy *c);           /* it is sealed: what was known to be free takes effect */
int control_trim(struct copy *c, struct segment_io *io);
/* Where a read of a copy goes in its file. */
int copy_find(const struct copy *c, uint32_t block, uint32_t blocks, uint64_t *ret_offset);
enum { PUNCH_BLOCKS = 16 }; /* shorter runs of free blocks wait for packing: holes would scatter what is written later */

/* segment_dir_pack.c. FIBER, the copy's mutex held. Gives a sealed copy a file without its free blocks. */
int copy_pack(struct copy *c);

void map_rank(struct copy_map *m); /* counts, for copy_map_find(); not FIBER */

/* segment_dir_scrub.c. Not FIBER: these blocks of the copy are damaged, one at least. */
void copy_damaged(const struct copy *c, uint32_t block, uint32_t blocks);

/* segment_dir_control.c. FIBER; run a whole operation. */
int dir_control(struct dir_frame *f);
int dir_drop_unwritten_fence(struct segment_dir *d, uint64_t segment);
/* Is there room for `blocks` more (R32)? 0 or -ENOSPC. */
int dir_room(struct segment_dir *d, uint32_t blocks, bool reserve);
int copy_directory(const struct copy *c); /* the directory segments/XX, durably there */

/* segment_dir_share.c */
int dir_list(struct dir_frame *f); /* FIBER; runs a whole operation */
void index_note(struct copy *c);   /* not FIBER: it is loaded, or gone; what others are told of it may have changed */
void index_doubt(struct copy *c);  /* not FIBER: it can't be read, so nothing is told of it until it can */
void index_free(struct dir_index *x);
/* FIBER, the copy's mutex held. */
int control_fetch(struct copy *c, struct segment_io *io);
int control_holds(struct copy *c, const struct segment_io *io);

/* segment_dir_rewrite.c. FIBER, the copy's mutex held. Writes once more what the scan found and no record says was flushed; not synced. */
int copy_rewrite(struct copy *c);

/* segment_dir_ahead.c */
void copy_prepare(struct copy *c); /* not FIBER; when appends were accepted */
void copy_prepare_wait(struct copy *c); /* FIBER. Until nothing is being written beyond the appends */
bool copy_must_stall(const struct copy *c, const struct segment_io *io);
uint64_t copy_first_step(struct copy *c, enum file_op *ret_op, struct iovec *ret_iov); /* FIBER. What to make ready in a new file */

/* segment_dir_late.c. The bitmap is durable (or settled later): its runs become holes in a while, or now. FIBER, the copy's mutex held. */
int copy_punch_late(struct copy *c, const uint8_t *given);
void copy_late_found(struct copy *c);      /* it was loaded: holes may be missing that an earlier process had waiting; not FIBER */
void copy_late_forget(struct copy *c);     /* its file has gone; not FIBER */
void dir_late_start(struct segment_dir *d); /* something waits; not FIBER */
void dir_late_stop(struct segment_dir *d); /* FIBER. It is closing: nothing of this runs any more */
void dir_late_end(struct segment_dir *d);  /* FIBER. Nothing waits any more: it was given back */

/* segment_dir_pool.c. FIBER */
int pool_open(struct segment_dir *d);
/* A file to make a copy in: a recycled one or a new one, at `ret_path`; the caller's, to be renamed or unlinked. How much of a recycled one is
 * allocated is for its file_info to say: it may be what a process that was killed left half made. */
int pool_open_file(struct segment_dir *d, char ret_path[DIR_PATH_MAX], struct file **ret_file);
int pool_give(struct segment_dir *d, const char *path, bool whole); /* takes the file away, durably; `whole`: all of it was written */
void pool_drain(struct segment_dir *d); /* gives all of it back */
void pool_free(struct segment_dir *d);  /* not FIBER; the files stay */

/* segment_dir_io.c. Start an operation on a copy that is ready; the frame ends by itself. */
bool copy_ready(const struct copy *c, enum segment_op op);
void copy_read_start(struct dir_frame *f);
void copy_append_start(struct dir_frame *f);
void copy_sync_start(struct dir_frame *f);
#endif
