/* The servers that hold a store's segments, as one process knows them: connections, the map of where segments belong, who
 * answers at the moment. An embedded volume has one, its directory in this process, and no map.
 *
 * A server is connected with when it is first needed, and what is submitted meanwhile waits for that one attempt; nobody needs all of a thousand.
 *
 *     (idle) ──peer_want()──▶ trying ──▶ up ◀──▶ away (tried again and again)
 *        ▲                                │        │
 *        └──── not needed for COPIES_IDLE_NS ──────┘
 *
 * One that is away, or let a deadline pass, isn't *usable* until it answers again; it is asked in the
 * background. Its address is looked up again in the catalog, and so is the map when a segment is found nowhere. */
#ifndef AQ_COPIES_H
#define AQ_COPIES_H
#include "core/fiber.h"
#include "parallax/segment/placement.h"
#include "parallax/segment/segment.h"

#define COPIES_DEADLINE_NS (2 * NS_PER_S) /* what a replica has to answer in (R16) */
#define COPIES_IDLE_NS (60 * NS_PER_S)    /* a connection that nobody needed for so long ends; longer than any operation takes */

struct copies;

struct peer {
	struct copies *copies;
	uuid id;
	struct segment_server *server; /* NULL: nobody needs it, or its address isn't known yet; may be replaced across a suspension */
	struct segment_server *ending; /* peers_end(): it was cut, and is to be closed */
	char address[META_TEXT_MAX], host[64]; /* as server/UUID has them; "": not known yet */
	bool trying;                   /* the first attempt to connect since it was needed is under way, for which … */
	struct link waiting;           /* … these wait: segment_io.link */
	uint64_t used_ns, up_ns;       /* when it was needed last; connected since then */
	uint64_t incarnation;          /* of the last connection that was ended */
	int fails;                     /* why its disk made no segment when it was asked last; 0: it did */
	uint64_t fails_incarnation;    /* … of the server, then */
	bool suspect, probing;
	uint64_t probe_ns;             /* next probe not before */
	uint64_t slow_ns;              /* reads ask others first until then */
	bool near;                     /* in our own failure domain */
	uint64_t read_ns;              /* what reads of up to 64 KiB took lately; 0: not known */
	uint64_t looked_ns, looked_asked; /* when that was, or one was asked to measure it again */
	bool anew;                     /* the next measurement replaces it */
	uint64_t reads;                /* that it answered well */
	uint64_t heard_ns;             /* server/manager.c's: it answered, then */
	struct segment_io probe;
	struct job probe_job;
};

enum { COPIES_PEERS_MAX = 2 * PLACEMENT_SERVERS_MAX, COPIES_HINTS = 1024 };

struct copies {
	struct env *env;
	struct catalog *catalog;       /* NULL: embedded */
	struct peer *peers[COPIES_PEERS_MAX];
	unsigned count;
	struct placement map;
	uint64_t map_key;              /* the revision of its key; 0: not known */
	struct peer *placed[PLACEMENT_SERVERS_MAX]; /* the map's servers, by index, as far as they were looked up: copies_placed() */
	char domain[64];               /* ours; "": not known */
	uint64_t asked;                /* reads, of all of them */
	struct {
		uint64_t segment;
		struct peer *peer;
		uint64_t until_ns;
	} hints[COPIES_HINTS];         /* who had it last time */
	bool closing, keeping, sweeping, stale; /* two fibers; stale: the map, or an address, may be */
	uint64_t look_ns;              /* next look into the catalog not before */
	uint64_t idle_ns;              /* COPIES_IDLE_NS; less only in tests */
	struct timer sweep;            /* idle connections are looked for */
	struct job sweep_job;
	struct fiber_cond changed;
};

/* FIBER. Reads the map and the addresses; connects with nobody. */
int copies_open(struct env *env, struct catalog *catalog, struct copies **ret, struct report *report);
/* One server, which stays the caller's. NULL: no memory. */
struct copies *copies_embedded(struct env *env, struct segment_server *dir);
void copies_close(struct copies *c); /* FIBER; accepts NULL */

/* The peer with that id; one that nobody has heard of is never usable. NULL: no memory, or too many. */
struct peer *copies_peer(struct copies *c, const uuid *id);
/* That of the map's server `index`, likewise. */
struct peer *copies_placed(struct copies *c, uint32_t index);
/* FIBER. In order of preference those of the first `replicas` servers where the segment belongs that answer. It connects with those that nobody needed
 * until now, and waits until that is done or has failed; for more than `least` of them a moment only. Returns how many. */
unsigned copies_place(struct copies *c, uint64_t segment, unsigned replicas, unsigned least, struct peer **ret);
/* Not suspended: those that are connected now. */
unsigned copies_connected(struct copies *c, uint64_t segment, unsigned replicas, struct peer **ret);
/* Not suspended: all of them, whether they answer or not. */
unsigned copies_targets(struct copies *c, uint64_t segment, unsigned replicas, struct peer **ret);
/* Those servers will be needed. */
void copies_want(struct copies *c, uint64_t segment, unsigned replicas);
/* … and so will those that have the open end of this log. */
void copies_want_log(struct copies *c, const struct meta_log *log);
/* Has every group `least` servers, among its first `replicas`, of which it isn't known that they are away? */
bool copies_enough(struct copies *c, unsigned replicas, unsigned least);
/* Hasn't that of the segment, though another has? */
bool copies_better_elsewhere(struct copies *c, uint64_t segment, unsigned replicas, unsigned least);
/* Servers in the failure domain `domain` are near. */
void copies_set_domain(struct copies *c, const char *domain);
/* All that may have a copy, the most promising first: those that answer and aren't late; of these near ones before others, and those whose
 * reads take much longer than another's last; for the rest as the map has them, so that all ask the same one for the same
 * blocks, which it then has in memory. At most PLACEMENT_CANDIDATES_MAX. */
unsigned copies_candidates(struct copies *c, uint64_t segment, struct peer **ret);
/* Is it one of those where the segment belongs? Otherwise it may have been, and what it misses of a delete or a trim it learns when it is back. */
bool copies_belongs(const struct copies *c, uint64_t segment, const struct peer *p);
void copies_found(struct copies *c, uint64_t segment, struct peer *at);
/* FIBER. Deletes every copy of it. 0, or the status of one that couldn't be deleted. */
int copies_delete(struct copies *c, uint64_t segment, uint64_t epoch);
/* It was found nowhere: is the map old? */
void copies_look(struct copies *c);

/* FIBER. Reads the map now, if it isn't the same. 0 or -errno. */
int copies_read_map(struct copies *c);
/* FIBER. What is under way ends with -ENOTCONN, and so does what follows; copies_close() is next. Where there is a catalog. */
void copies_cut(struct copies *c);

/* The size in bytes of the smallest server, as far as it is known; 0: it isn't. */
uint64_t copies_smallest(struct copies *c);

/* May it be asked: is it connected and answers, or was it idle until now? If it is away its address is looked for. */
bool peer_usable(struct peer *p);
bool peer_connected(struct peer *p); /* it is, and answers */
/* It is needed now, or soon. */
void peer_want(struct peer *p);
/* FIBER. The same, and waits for an attempt to connect that is under way: is it connected? For calls to p->server. */
bool peer_reach(struct peer *p);
uint64_t peer_incarnation(const struct peer *p); /* as of its last connection; 0: not known */
/* As segment_submit() and segment_wait(). What is lost or late makes the peer suspect. */
void peer_submit(struct peer *p, struct segment_io *io, struct job *parent);
void peer_blame(struct peer *p, int status);
/* For reads: it is asked for some blocks now; it has answered well, after so long; it hasn't, and another was faster. */
void peer_asked(struct peer *p);
void peer_answered(struct peer *p, uint32_t blocks, uint64_t took_ns);
void peer_late(struct peer *p, uint32_t blocks, uint64_t took_ns);
void peer_cancel(struct peer *p, struct segment_io *io); /* submitted, and not needed any more: see segment_server_ops */
int peer_wait(struct peer *p, struct segment_io *io); /* FIBER */
struct share_entry;
/* FIBER. Calls `entry` for each copy that it has, by id; a non-zero result ends and is returned. -EBADMSG: what it answers makes no sense. */
int peer_list(struct peer *p, int (*entry)(void *arg, struct peer *p, const struct share_entry *e), void *arg);
int peer_status(struct peer *p, bool gc, struct segment_status *ret); /* FIBER. segment_remote_status(); -ENOTCONN: it doesn't answer */
/* FIBER. One operation on several copies at once; each io->status tells. Returns how many succeeded. */
unsigned peers_wait(struct peer *const *peers, struct segment_io *ios, unsigned count);
/* FIBER. Waits until `need` of them are connected and, for a moment longer, all; at most COPIES_DEADLINE_NS. False: they aren't. */
bool peers_await(struct peer *const *peers, unsigned count, unsigned need);
/* FIBER. Waits likewise for any server: a few are tried, and more and more as long as none answers. 0, or -ENOTCONN naming them. */
int copies_await(struct copies *c, struct report *report);
/* "tcp:host:port, …": the addresses of those that are needed and not connected, for people. */
void peers_missing(struct peer *const *peers, unsigned count, char *ret_text, size_t bytes);
/* Of all; one that was removed from the cluster isn't worth a word, unless it is the only one. */
void copies_missing(const struct copies *c, char *ret_text, size_t bytes);
#endif
