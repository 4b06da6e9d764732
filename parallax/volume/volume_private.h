/* An open volume's parts and how they belong together:
 *
 *   volume_write ─▶ log (gather, send, acknowledge in order) ─▶ apply (map and accounting) ─▶ the guest
 *                    │  roller: lists segments ahead, cuts finished ones
 *                    │  mender: a server failed: cut, go on in a fresh segment (R16)
 *                    └─ flush: sync rounds
 *   checkpoint: freeze ─ nodes ─ dead lists ─ space table ─ summary ─ sync ─ one transaction (R19)
 *   publish: the owner's catalog transactions, one at a time (R3, R4)
 */
#ifndef AQ_VOLUME_PRIVATE_H
#define AQ_VOLUME_PRIVATE_H
#include "core/fiber.h"
#include "parallax/map/space.h"
#include "parallax/map/tree.h"
#include "parallax/volume/doomed.h"
#include "parallax/volume/volume.h"

enum {
	LOG_WINDOW_MAX = 8,
	LOG_DATA_BLOCKS = 512,      /* payload of one data record: 2 MiB */
	LOG_IOV_MAX = 900,
	LOG_HEADER_BLOCKS = 3,      /* enough for LOG_DATA_BLOCKS entries */
	LOG_CLEAR_ROOM = 16,        /* blocks that only discards may use when space runs out */
	LOG_SEGMENTS_AHEAD = 2,
	LOG_SEGMENTS_AHEAD_MAX = 16,
	LOG_STEP_BLOCKS = 256,      /* of a segment so many are allocated when it is made, or a sixteenth */
	LOG_RESERVE_BLOCKS = 1024,  /* a segment from the reserve is small, and all of it is allocated: 4 MiB */
	/* the catalog's list of META_SEGMENTS_MAX: checkpoint before it gets longer; no segments ahead from here on; and only one
	 * at a time, so that many takeovers in a row find room, each of which begins with a checkpoint */
	LOG_SEGMENTS_LISTED = 40,
	LOG_SEGMENTS_ROLLED = 48,
	LOG_SEGMENTS_WANTED = 56,   /* … unless a checkpoint waits for it */
};

/* ---- log ---- */

struct log_segment {
	struct meta_segment meta;
	struct peer *peers[META_REPLICAS_MAX]; /* of meta.ensemble */
	uint32_t next;          /* block of the next record */
	uint32_t acked;         /* length acknowledged, blocks */
	uint32_t synced;        /* length known durable */
	uint32_t acked_crc;     /* header CRC of the last record within acked; 0: none */
	bool finished, cut;     /* no more records; recorded in the catalog */
	uint64_t asked[META_REPLICAS_MAX]; /* log_leave.c: in this later incarnation its server said whether it has all that was acknowledged */
	bool whole[META_REPLICAS_MAX];     /* … and it has */
	struct link retained;   /* acknowledged, not synced: log_retain.c */
	struct link link;
};

/* A record that isn't guest data: nodes, tables, marks. */
struct log_append {
	enum record_kind kind;
	uint64_t mark;
	const struct record_entry *entries;
	uint32_t entry_count, payload_blocks;
	const struct iovec *iov;    /* borrowed, stable */
	int iov_count;
	bool hold;                  /* a mark: nothing that follows it is applied until the group's hold ends */
	struct job *parent;
	/* results, good when parent is put without error */
	uint64_t seq, position, payload_position;
	uint32_t header_crc;
	/* the log's */
	const uint32_t *crcs;       /* the caller's: of the payload blocks */
	/* NULL, or fills what depends on where it is, and the checksums of that: its payload will be at `payload_position`. Called just before it is
	 * sent, and again if it has to be sent elsewhere. */
	void (*placed)(struct log_append *a, uint64_t payload_position);
	struct link link;
};

struct log_record {             /* in flight or being applied */
	struct job job;
	struct volume *volume;
	struct segment_io io[META_REPLICAS_MAX]; /* one for each copy */
	struct record head;
	uint8_t *header;        /* LOG_HEADER_BLOCKS blocks, aligned */
	struct record_entry entries[LOG_DATA_BLOCKS];
	uint32_t crcs[LOG_DATA_BLOCKS];
	struct iovec iov[LOG_IOV_MAX + 1];
	int iov_count;
	struct link writes;     /* of struct volume_write; or */
	unsigned write_count;
	struct log_append *append;
	struct log_segment *segment;
	bool answered, acked, placed;
	int status;
	struct link link;
};

struct log_sync {
	struct segment_io io;
	struct peer *peer;
};

struct log {
	struct link segments;   /* finished ones, the current one, those ahead; by id */
	struct log_segment *current;
	uint64_t next_seq, acked_seq, synced_seq;
	uint32_t last_crc;      /* header CRC of the last record sent */
	uint32_t acked_crc;     /* of the last one acknowledged */
	struct link writes, appends;     /* waiting, FIFO */
	struct link flying;     /* by seq */
	struct link applying;   /* acknowledged, by seq */
	struct link idle;       /* free records */
	unsigned flying_count, window;
	unsigned queued, flying_writes;  /* guest writes waiting, and in the records that fly */
	unsigned depth;         /* how many of both there were lately, times DEPTH_UNIT */
	struct log_record *records;
	bool append_next;       /* fairness between appends and writes */
	bool mending;
	uint64_t mending_ns;    /* since when */
	bool mending_quiet;     /* and nothing is in flight at any server */
	uint64_t expired_seq;   /* greatest of a write that was given up after it was acknowledged */
	/* space: no data segment can be had; so guest data is refused until one can; nor one from the reserve (R32) */
	bool full, starved, dry;
	uint64_t kept_from;     /* segments from this id on are made from the reserve; UINT64_MAX: none */
	bool short_of_space;    /* why it is being mended: an append found the disk full */
	uint64_t spare_id;      /* taken from the counter, not used yet; 0: none; when: */
	uint64_t spare_ns;
	/* flush */
	struct link flushes;
	bool syncing;
	struct job sync_job;
	uint64_t sync_seq;
	struct log_sync *syncs; /* of the round under way: one for each copy */
	unsigned sync_count;
	/* log_retain.c */
	uint64_t retained_bytes;
	bool retain_syncing;
	struct job retain_job;
	struct volume_flush retain_flush;
	/* fibers */
	struct fiber_cond changed;  /* something the roller, the mender or a checkpoint waits for may have happened */
	unsigned fibers;
	uint64_t bytes_since_from;
};

/* How far a record has been applied to the map. */
struct apply_cursor {
	uint32_t entry, payload;
	uint64_t block;         /* within the entry */
	bool begun;
};

/* log_leave.c */
struct log_leave {
	struct timer timer;     /* until the next look */
	struct job job;
	bool hurry;             /* it is now */
	unsigned reads;         /* of the map of servers, that are due */
	uint64_t due_ns;        /* then short segments are left; 0: there are none */
	uint64_t not_before_ns, pause_ns;
};

/* Its part in a snapshot of several volumes: volume_group.c. */
struct volume_group {
	uint64_t id;            /* 0: it is in none */
	uint64_t deadline_ns;   /* then the hold ends by itself */
	uint64_t tired_ns;      /* then it waits no more for the outcome */
	uint64_t seq;           /* of its mark; 0: none yet */
	bool marking;           /* the mark is being made */
	bool held;              /* what follows the mark isn't applied, so nobody is answered and no read sees it */
	bool over, broken;      /* the hold has ended; before it was released */
	bool asked;             /* it was given up: it waits no more */
};

/* ---- the volume ---- */

struct volume {
	struct env *env;
	struct catalog *catalog;
	const struct volume_places *places;
	struct volume_limits limits;
	uint64_t id, epoch;
	struct meta_log meta;           /* as the catalog has it */
	uint64_t meta_revision, owner_revision;
	struct meta_owner owner;
	uint64_t stamp;                 /* of our owner record */
	struct catalog_lease *alive;    /* NULL: the engine has none */
	struct fiber_mutex creating;    /* segments, until they are listed; locked before `publishing` */
	struct fiber_mutex publishing;
	struct segment_server *server;  /* an embedded volume's directory, else NULL */
	struct copies *copies;          /* that alone, or the cluster's, which are the sources' */
	struct file *lock;
	struct sources sources;
	struct tree tree;
	struct space space;
	struct log log;
	int failed;                     /* 0, or why everything fails (R18, R14) */
	bool closing;
	bool space_loaded;
	bool was_free;                  /* when it was acquired */
	bool handed;                    /* it was offered to us: somebody waits */
	struct meta_segment next;       /* made for the owner after this one, not listed; id 0: none */
	uint64_t close_by_ns;           /* closing: what can't be had until then is left to the next opener; 0: not closing */
	/* applying */
	struct {
		struct job job;
		struct apply_cursor cursor;
		bool busy, waiting;     /* within a record; for a node */
	} apply;
	uint64_t applied_seq;
	/* checkpoint */
	struct fiber_mutex checkpointing;
	struct fiber_mutex marking;     /* from a mark's append to the outcome of its transaction: nothing is frozen (R21) */
	struct link marks;              /* struct pending_mark: taken since the last checkpoint's freeze */
	unsigned mark_count;
	struct fiber_cond settled, due; /* no record is half applied; a checkpoint is due */
	struct fiber_cond map_changed;  /* the map of servers; see log_leave.c */
	struct log_leave leave;
	struct timer tick;              /* runs while something is dirty */
	struct job tick_job;
	bool ticking, dirty, checkpoint_wanted;
	/* checkpoint_drop.c: snapshots that were deleted */
	bool doomed_unknown;            /* look in the catalog what waits */
	bool doomed_unread;             /* the last time it didn't say, or a list couldn't be read */
	struct doomed doomed;           /* what waits, as it was found; */
	size_t doomed_at;               /* those before this one are dealt with */
	bool end_dropped;               /* with the end of a head that was deleted or rolled back; and that isn't published yet */
	uint64_t drop_steps, dropped;   /* grow with each that is done for that; with each that goes */
	struct timer reap;              /* runs until the next checkpoint for them: `reaping` */
	struct job reap_job;
	bool reaping;
	unsigned reap_retries;          /* in a row of those that were `doomed_unread` */
	struct timer look;              /* runs until the catalog is asked, without a checkpoint, whether something waits: `looking` */
	struct job look_job;
	bool looking, looks_rarely;
	uint64_t checkpoint_took_ns;    /* the last one */
	unsigned node_limit;            /* dirty nodes that make a checkpoint start */
	struct fiber_mutex deleting;    /* of those: */
	uint64_t *freed;                /* segments out of the table, to be deleted once that is published; of the first `freed_due` it is */
	uint32_t freed_count, freed_due, freed_room;
	uint64_t table_last;            /* the last checkpoint's table has the segments up to this one */
	uint64_t version_end;           /* greatest position of a node of any version older than those in `marks` */
	uint64_t newest_mark;           /* seq of the newest mark, 0: none */
	/* checkpoint_summary.c: the newest snapshots that have their roots, once the last summary was read for them */
	struct meta_snapshot *newest;
	uint32_t newest_count;
	bool newest_known;
	struct volume_group group;
	bool away;                      /* the mender found that its servers can't be reached now */
	bool catalog_away;              /* a transaction waits for the catalog; because: */
	char catalog_why[192];
	uint64_t waits_ns;              /* since when it is one or the other; wall clock */
	int checkpoint_failed;          /* with what the last one did, 0: it didn't; and since when they do, on this process' clock */
	uint64_t checkpoint_failed_ns;
	/* unsealed.c: of those that the last checkpoint asked for, the ones that are sealed wherever that matters */
	uint64_t sealed[META_SEGMENTS_MAX + META_UNSEALED_MAX];
	unsigned sealed_count;
	/* trim.c */
	struct fiber_cond trims;        /* there may be something to send */
	bool trim_hurry, trim_idle;     /* the volume closes; nothing is left to be sent */
	bool trim_kicked;               /* there is something, since that was looked at */
	uint8_t *trim_bits;             /* that fiber's */
	bool trim_behind;               /* packing doesn't keep up: guest data waits */
	struct volume_counters counters;
};

/* A frozen version that is still to be written: a snapshot's, or, with seq 0, what a checkpoint that failed had frozen. */
struct pending_mark {
	uint64_t seq;
	struct tree_version version;
	uint64_t newest_before;         /* the mark before it */
	uint64_t mapped;
	uint64_t last_node;             /* greatest position of a node written for it */
	uint64_t node_end;              /* of its snapshot: what it shares with older versions included */
	struct link link;
};

/* log.c */
int log_init(struct volume *v);
void log_destroy(struct volume *v);
void log_append(struct volume *v, struct log_append *a, struct job *parent); /* put when acknowledged and applied */
int log_append_wait(struct volume *v, struct log_append *a);                 /* FIBER */
void log_pump(struct volume *v);
void log_resend(struct volume *v);      /* everything in flight, in the current segment */
void log_withdraw(struct volume *v);    /* everything in flight, all of it answered, ends with -ENOSPC */
void log_refuse(struct volume *v);      /* guest data that waits ends with -ENOSPC if there is no space for it */
uint64_t log_room(const struct volume *v); /* blocks left in listed segments; */
uint64_t log_room_kept(const struct volume *v); /* … in those that were made from the reserve, all of which is allocated; */
uint64_t log_room_certain(const struct volume *v); /* … and at the beginning of the others, which is, too */
struct log_segment *log_segment_add(struct volume *v, const struct meta_segment *meta); /* NULL: no memory */
void log_segment_drop(struct volume *v, struct log_segment *g);
void log_record_done(struct volume *v, struct log_record *r); /* applied */
void volume_fail(struct volume *v, int status);
/* log_expire.c */
void log_take_back(struct volume *v);   /* everything in flight, all of it answered, waits again, before what waits already */
/* log_retain.c */
void log_retain(struct volume *v, const struct log_record *r); /* it is acknowledged */
void log_retain_drop(struct volume *v, struct log_segment *g, uint32_t synced);
bool log_retain_full(const struct volume *v);
/* FIBER. A server has only [0, length): gives it the rest of what is acknowledged. -EIO: that can't be had; -EREMOTEIO: the server failed. */
int log_retain_refill(struct volume *v, struct log_segment *g, struct peer *to, uint32_t length);
/* A server that failed to do something hasn't said what its copy is worth: it does when it is asked again. */
static inline int log_failed_once(int status) { return status == -EIO ? -EREMOTEIO : status; }
enum { LOG_ATTEMPTS_MAX = 100 };
/* log_copy.c: FIBER */
/* Gives `to`, fenced at our epoch, what the source has in [from, length), and lets it verify that. -EIO: it is never right;
 * -EBADMSG: what the source has isn't; -EREMOTEIO: the source can't be read; -EHOSTDOWN: it is away. */
int log_copy_blocks(struct volume *v, const struct meta_segment *m, struct peer *source, struct peer *to, uint32_t from, uint32_t length);
/* `to`, fenced at our epoch, is damaged, though its server doesn't know it: writes all of [0, length) there again, and lets it verify that. Errors likewise. */
int log_copy_rewrite(struct volume *v, const struct meta_segment *m, struct peer *source, struct peer *to, uint32_t length);
/* Makes further copies of [0, length), where the segment belongs, but for those `without`, until there are min_replicas; `holders` has room for
 * META_REPLICAS_MAX. Returns how many there are now. */
unsigned log_copy_fresh(struct volume *v, const struct meta_segment *m, uint32_t length, struct peer *const *without, unsigned without_count,
			struct peer **holders, unsigned count);
/* log_sync.c */
int log_flush_wait(struct volume *v);   /* FIBER */
void log_flush_kick(struct volume *v);
void log_flush_fail(struct volume *v);
/* log_roll.c: FIBERs that live as long as the volume */
int log_roll_start(struct volume *v);
/* FIBER: on the server and in `log`; 0: one at least, fewer than `count` where servers are away. With `reserve`, when there is no space, small ones from what is kept for checkpoints;
 * then guest data is refused from now on. */
int log_create_segments(struct volume *v, struct meta_log *log, unsigned count, bool reserve);
/* FIBER. One that isn't ours but whose owner will have that epoch; on the servers only. `creating` is locked. */
int log_create_next(struct volume *v, uint64_t epoch, struct meta_segment *ret);
/* FIBER. What was created for `log` beyond the first `kept` isn't listed after all: deleted. */
void log_forget_created(struct volume *v, const struct meta_log *log, uint32_t kept);
int log_segment_listed(struct volume *v, const struct meta_segment *meta); /* it is in the catalog now: 0 or -ENOMEM */
void log_record_cut(struct meta_log *log, const struct log_segment *g);     /* at what is acknowledged */
void log_seal(const struct log_segment *g);                                /* FIBER; after the cut is recorded (R15 c) */
/* FIBER. Deletes all copies of a segment that can be reached. 0, or the status of one that couldn't be deleted. */
int log_delete_segment(struct volume *v, uint64_t segment);
/* log_leave.c: the fibers that leave segments which are badly placed */
int log_leave_start(struct volume *v);
/* Has that server room for what a log makes there? As far as is known. */
bool log_has_room(const struct volume *v, const struct peer *p);
/* log_mend.c */
/* Has the server been restarted, perhaps without all that it acknowledged? Then mending begins, if it hasn't. */
bool log_unsettled(void *volume);
void log_trouble(struct volume *v, int status);
/* Requests wait for servers if `status` says that those are away, and since when. */
void log_note_away(struct volume *v, int status);
/* Is what failed so waited for, as long as it takes? Else it is tried LOG_ATTEMPTS_MAX times, ten a second. */
bool log_waits_for(const struct volume *v, int status);
/* apply.c */
void apply_run(struct volume *v);
/* Goes on applying a data or discard record whose payload is at `payload_position`. 0: all of it; -EAGAIN: load `need`
 * first; -ENOMEM. */
int apply_record(struct volume *v, const struct record *r, uint64_t payload_position, struct apply_cursor *at,
		 struct tree_need *need);
/* Starts loading what else it will need; `parent` waits for that too. */
void apply_prefetch(struct volume *v, const struct record *r, const struct apply_cursor *at, struct job *parent);
int apply_mark(struct volume *v, uint64_t seq, uint64_t position); /* 0 or -ENOMEM */
void apply_settle(struct volume *v);    /* FIBER: waits until no record is half applied */
/* checkpoint.c */
int checkpoint_start(struct volume *v); /* the fiber that runs one when it is due */
void checkpoint_consider(struct volume *v); /* wakes it if one is due */
void checkpoint_dirty(struct volume *v);    /* something changed that a checkpoint would publish */
int checkpoint_run(struct volume *v);       /* FIBER: one now */
int volume_checkpoints_fail(const struct volume *v); /* -errno: they have for a while, or will always */
/* FIBER: one now, the last if `closing` (NULL: never) fits: then that is in its transaction, and `done`. */
struct volume_closing;
int checkpoint_closing(struct volume *v, struct volume_closing *closing);
/* FIBER. Of the segments that the last table has no more, which are to be deleted, so many at most; those that couldn't be come last. How many were. */
unsigned checkpoint_delete_freed(struct volume *v, unsigned most);
void checkpoint_delete_all(struct volume *v); /* FIBER. All that can be */
uint64_t checkpoint_reserve(const struct volume *v); /* blocks the next one may need, at most; */
uint64_t checkpoint_table_reserve(const struct volume *v); /* … for its table and indexes, of which another is no shorter */
/* checkpoint_drop.c */
enum {
	CHECKPOINT_DROPS = 32,
	CHECKPOINT_DROP_BLOCKS = 12, /* what one chunk of a dropped list can add to a checkpoint */
};
struct checkpoint_drops {
	struct checkpoint_drop {
		uint64_t mark_seq, revision;
	} entries[CHECKPOINT_DROPS];
	unsigned count, room;       /* so many fit into the transaction */
};
struct checkpoint_drop_keys {
	char snapshot[CHECKPOINT_DROPS][META_KEY_BYTES], note[CHECKPOINT_DROPS][META_KEY_BYTES], whole[META_KEY_BYTES];
};
bool checkpoint_reaps(const struct volume *v);      /* something waits, as far as is known */
void checkpoint_reap_later(struct volume *v);       /* it gets a checkpoint after a pause */
void checkpoint_look_later(struct volume *v);       /* then that is looked up, and it gets one only if there is something */
int checkpoint_drop(struct volume *v, struct checkpoint_drops *d); /* FIBER. Of what waits as much as fits: their lists are dealt with */
void checkpoint_drop_failed(struct volume *v);      /* the transaction wasn't published */
struct publication;
void checkpoint_drop_add(const struct volume *v, const struct checkpoint_drops *d, struct checkpoint_drop_keys *keys, struct publication *p);
/* checkpoint_summary.c: what a checkpoint will publish, `log`, and snapshots which have got their roots, by mark. It is to be appended right behind the table, whose root
 * will be in `space` when that is placed. */
struct checkpoint_summary;
int checkpoint_summary_make(struct volume *v, const struct meta_log *log, const struct meta_snapshot *fresh, uint32_t count, const struct meta_root *space,
			    struct checkpoint_summary **ret); /* FIBER */
struct log_append *checkpoint_summary_append(struct checkpoint_summary *c);
/* Whether it was appended or not. -ENOMEM: it isn't whole. `ret`: what leads to it. */
int checkpoint_summary_end(struct checkpoint_summary *c, struct meta_root *ret);
/* checkpoint_nodes.c: FIBER. Appends the unwritten nodes of a version, and accounts for them. `*end`: the greatest position of one (or as it was). */
enum { CHECKPOINT_RECORD_NODES = 64 };
int checkpoint_write_nodes(struct volume *v, const struct tree_version *version, uint64_t newest_mark, uint64_t *end);
/* trim.c: what became free goes to the server (R28), and sparse segments are packed (R30). */
int trim_start(struct volume *v);       /* the fiber that does it */
void trim_kick(struct volume *v);       /* a checkpoint was published */
void trim_finish(struct volume *v, uint64_t until_ns); /* FIBER. The volume is closing: all of it, until then */
void trim_note_record(struct volume *v, const struct record *r);   /* it is applied */
void trim_note_replayed(struct volume *v, const struct record *r); /* it is replayed */
int trim_note_table(struct volume *v);  /* FIBER. Where the last checkpoint's table and summary lie */
/* unsealed.c: cuts that the log needs no more, and some copy may. */
/* FIBER. Has sealed what ends before segment `before`, and what was let go of earlier; notes what needs it no more. */
void unsealed_seal(struct volume *v, uint64_t before);
/* Takes out of the list what is cut and ends before `before`, and keeps of it what isn't known to be sealed. */
void unsealed_let_go(struct volume *v, struct meta_log *log, uint64_t before);
/* Adds those that wait for their cut, behind which replay begins likewise: to a summary, from which nobody would know it who has no catalog. */
void unsealed_foresee(struct volume *v, struct meta_log *log, uint64_t before);
/* orphans.c: FIBER. Deletes what a dead owner of an embedded volume left in its directory. */
void orphans_delete(struct volume *v);
/* recover.c: FIBER. After acquire: fence, find the lengths, cut, list new segments, replay (R17). */
int recover_space(struct volume *v, struct report *report); /* FIBER. The accounting as of the checkpoint; recover() would else */
int recover(struct volume *v, bool accept_flushed, struct report *report);
/* replay.c: FIBER. Walks the log's records from `from` on, in order, through the segments of v->meta; `length` gives how far
 * each goes, by index. `record` is called for each, with entries and checksums in place. */
struct replay {
	struct volume *volume;
	uint32_t length[META_SEGMENTS_MAX];
	bool chosen[META_SEGMENTS_MAX];         /* uncut: where the chain breaks it ends, and all that follow */
	struct peer *source[META_SEGMENTS_MAX]; /* whom to read it from; NULL: any of its holders */
	int (*record)(struct replay *p, struct record *r); /* NULL: only walk */
	uint64_t seq, acked, synced, bytes;     /* the last record's; greatest seen */
	uint64_t missing;                       /* greatest synced of one that doesn't continue the log: there was that much before it */
	uint32_t crc;
	bool broken;
	uint32_t stuck;                         /* it failed in this segment, by index + 1; 0: it didn't, or elsewhere */
	bool unread;                            /* … because it couldn't be read there, which may be better in a moment; */
	bool gone;                              /* … because its source is away now */
	uint8_t *window;
	unsigned window_peer;                   /* which of the holders it came from */
	uint64_t window_segment;
	uint32_t window_block, window_blocks, window_want;
	struct record_entry *entries;
	uint32_t *crcs;
};
int replay_walk(struct replay *p, struct report *report);
/* volume_acquire.c: FIBER, in this order */
int volume_open_place(struct volume *v, const struct volume_open *how, struct report *report);
/* Before the owner record names us: whoever sees that finds us alive. */
int volume_show_life(struct volume *v, const struct volume_open *how, struct report *report);
int volume_acquire(struct volume *v, const struct volume_open *how, struct report *report);
/* What came after that has failed, and nothing of ours goes on: the owner record doesn't name us as one who may serve a guest. Changes nothing if we aren't in it. */
void volume_disown(struct volume *v, const struct volume_open *how);
/* volume_close.c */
struct publication;
struct volume_closing {
	const struct volume_offer *to;          /* NULL: the volume will be free */
	char owner_key[META_KEY_BYTES];
	uint8_t *owner;
	size_t owner_bytes;
	bool done;                              /* it is published */
};
bool volume_gives_up(const struct volume *v); /* closing, and it takes too long */
bool volume_closing_fits(const struct volume *v, uint64_t table_last); /* nothing is left to be published after a checkpoint with such a table */
void volume_closing_add(struct volume_closing *c, struct publication *p);
/* FIBER. Publishes all there is and lets the volume go, and clears out. On failure that was not published, or nobody knows. */
int volume_close_cleanly(struct volume *v, const struct volume_offer *to);
/* volume_group.c */
void group_hold(struct volume *v);      /* its mark has been applied */
/* volume_snapshot.c: FIBERs. */
void snapshot_lock(struct volume *v);   /* `marking`; and there is room for a mark */
/* A mark, durable with all before it. `marking` is locked and stays so. On failure it never was. */
int snapshot_mark(struct volume *v, struct log_append *mark);
void snapshot_settle(struct volume *v, uint64_t seq, bool published); /* the outcome is known: unlocks `marking` */
/* publish.c */
struct publication {
	struct volume *volume;
	struct meta_log log;            /* to be changed */
	struct catalog_txn txn;         /* further changes; keys and bytes are the caller's until the end */
	bool impatient;                 /* fails where the catalog certainly didn't take it, also if it may later */
};
/* FIBER. begin waits its turn; then change p->log and p->txn; commit publishes with the epoch compared (R3, R4) and lets the
 * next one go on. commit: 0; -EPERM the epoch is lost (the volume has failed); other: certainly not published. */
void publish_begin(struct volume *v, struct publication *p);
int publish_commit(struct publication *p);
void publish_abort(struct publication *p);
/* Notes what came of a call of the catalog's, for those who look; returns catalog_away(status). */
bool publish_note(struct volume *v, int status);
struct publish_tries {
	uint64_t began_ns, tried_ns;    /* when this attempt began, to be set before the first; what those before took, by publish.c's measure */
};
/* FIBER. After a call that a publication needs: is it to be made again? Then a moment has passed. An embedded volume whose catalog doesn't answer for long
 * fails. */
bool publish_again(struct volume *v, int status, struct publish_tries *tries);
#endif
