/* What a server of a cluster does by itself, beside serving:
 *
 *   rebuild   makes the copies that the map says it should have and that it lacks, from its peers' sealed ones; takes seals and
 *             trims that it missed; deletes what doesn't belong here when all that it belongs to have it (R33)
 *   gc        asks R31's question for each of its copies, and deletes what nobody will ever ask for
 *
 *   manager   changes the map of servers, if it is elected: who drains, is lost or removed
 *
 * Each in a fiber of its own, round after round. What can't be done now is tried in the next round; only what was found out in
 * the same round is believed. */
#ifndef AQ_KEEPER_H
#define AQ_KEEPER_H
#include "parallax/copies/copies.h"
#include "server/server.h"

struct keeper;

#define KEEPER_ROUND_NS (5 * NS_PER_S)
#define KEEPER_GC_NS (3600 * NS_PER_S)
#define KEEPER_GC_FIRST_NS (60 * NS_PER_S)
#define KEEPER_MANAGER_NS (2 * NS_PER_S)
#define KEEPER_LOST_NS (600 * NS_PER_S)
#define KEEPER_REBUILD_RATE (UINT64_C(200) << 20) /* aquifer-server's default: bytes a second */

struct keeper_options { /* 0: the default, above */
	uint64_t bytes_per_s;   /* rebuilding reads at most so much; 0: no limit */
	uint64_t round_ns;      /* between rounds of rebuilding */
	uint64_t gc_ns;         /* between rounds of gc … */
	uint64_t gc_first_ns;   /* … and before the first */
	uint64_t manager_ns;    /* between looks at the servers */
	uint64_t lost_ns;       /* a server that doesn't answer for so long is lost */
	void (*elsewhere)(void *arg, const char *address); /* this server was started there, from another copy of its directory, and has nothing to say
	                                                     * here any more; once. May be NULL */
	void *arg;
};

/* FIBER. Borrows all until keeper_stop(). `dir` is the data directory that `server` serves; it is in the map. 0 or -errno with a report. */
int keeper_start(struct env *env, struct catalog *catalog, struct segment_server *dir, struct server *server,
		 const struct keeper_options *options, struct keeper **ret, struct report *report);
void keeper_stop(struct keeper *k); /* FIBER; accepts NULL */

struct keeper_status {
	uint64_t map;                     /* revision that it knows */
	uint64_t copies, unsealed;        /* in the directory, as of the last round */
	uint64_t missing, missing_bytes;  /* copies that it should have and hasn't, left to do */
	uint64_t rebuilt, rebuilt_bytes;  /* since it was started */
	uint64_t bytes_per_s;             /* of late */
	uint64_t misplaced, removed;      /* copies that don't belong here; those that were deleted since it was started */
	uint64_t sealed, united;          /* copies that took a seal, and trims, from peers */
	uint64_t failures;                /* copies that couldn't be made, so far */
	int failing;                      /* why the last one couldn't be: -errno; 0: it could */
	uint64_t rounds;
	uint64_t silent;                  /* servers that didn't answer in the last round */
	bool idle;                        /* the last round left nothing to do */
	bool settled;                     /* and it asked everybody */
	uint8_t held[PLACEMENT_GROUPS_MAX / 8]; /* groups of which it has copies … */
	uint32_t held_rounds;             /* … found in so many rounds under this map */
	uint64_t gc_asked, gc_rounds;     /* rounds that were asked for or due; that have ended */
	uint64_t gc_freed, gc_freed_bytes;
	uint64_t gc_unanswered;           /* copies of which nothing is known, in the last round: kept */
	bool gc_failed;                   /* the last round couldn't find out everything */
	bool gc_refused;                  /* the catalog was restored, and nobody has confirmed it yet */
};
const struct keeper_status *keeper_status(const struct keeper *k);
/* A round of gc now; returns what gc_rounds will be, at least, when it has ended. */
uint64_t keeper_gc(struct keeper *k);
void keeper_hurry(struct keeper *k); /* a round of rebuilding now */
#endif
