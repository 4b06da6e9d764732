/* A keeper from inside: what keeper.c, rebuild.c, pull.c, manager.c and gc.c share. */
#ifndef AQ_KEEPER_PRIVATE_H
#define AQ_KEEPER_PRIVATE_H
#include <uthash.h>

#include "parallax/copies/repairs.h"
#include "parallax/segment/segment_share.h"
#include "parallax/store/wanted.h"
#include "server/keeper.h"
#include "server/seen.h"

struct nap { /* a fiber's sleep that can be cut short */
	struct timer timer;
	struct job job;
	bool hurry;
};

struct known_volume { /* 80 bytes each, of all volumes of which copies were seen */
	uuid volume;
	uint32_t replicas;
	UT_hash_handle hh;
};

struct keeper {
	struct env *env;
	struct catalog *catalog;
	struct segment_server *dir;
	struct server *server;
	struct server_rules rules;
	struct keeper_options options;
	struct copies *copies;   /* of all servers, this one too; its map is the keeper's */
	struct keeper_status status;
	uint64_t due_ns;         /* the limit: no more is read before that */
	uint64_t window_ns, window_bytes; /* for bytes_per_s: since when, how much */
	struct known_volume *known; /* rebuild.c's, and … */
	struct seen seen;        /* … this */
	bool gc_runs;
	struct repairs repairs;  /* what was wrong of what peers sent */
	struct nap rebuild_nap, gc_nap, manager_nap;
	struct catalog_lease *lease; /* manager.c */
	bool no_leases, watched;
	struct fiber_cond manager_changed; /* somebody is elected, or isn't any more */
	uint64_t own_key;        /* the revision of this server's key when it was looked at; 0: it wasn't */
	bool elsewhere;          /* it is the server no more */
	uint64_t forgot_ns;      /* when former servers were forgotten last */
	uint64_t manager_ns;     /* it is the manager since then; 0: it isn't */
	unsigned fibers;
	bool closing;
	struct fiber_cond ended;
};

/* Copies as they were listed. */
struct found {
	struct share_entry e;
	struct peer *peer; /* NULL: ours */
};
struct found_list {
	struct found *entries;
	size_t count;
};

static inline bool keeper_ends(const struct keeper *k) { return k->closing || k->env->dead; }
/* FIBER. */
void keeper_nap(struct keeper *k, struct nap *nap, uint64_t ns);
void keeper_wake(struct keeper *k, struct nap *nap); /* not FIBER; ends it, or the next one */
/* FIBER. Appends what `peer` (NULL: this directory) has in `groups` (NULL: all). */
int keeper_list(struct keeper *k, struct peer *peer, const struct group_set *groups, struct found_list *list);
/* FIBER. One operation on this directory. */
int keeper_own(struct keeper *k, struct segment_io *io);

/* pull.c: FIBER. Makes a copy from those of `sources`, all sealed alike. */
int pull_copy(struct keeper *k, const struct found *sources, size_t count);
size_t pull_source(uint64_t segment, size_t count); /* which of them it is read from first */
/* FIBER. Takes what is free of a sealed copy, as its peers know; those that don't answer are passed over. */
int pull_frees(struct keeper *k, const struct found *sources, size_t count);

/* rebuild.c: FIBER, as long as the keeper lives; what it remembers of others is no more so. */
int rebuild_fiber(void *keeper);
void rebuild_forget(struct keeper *k);
/* manager.c: FIBERs likewise. */
int manager_fiber(void *keeper);
int manager_watch_fiber(void *keeper);
/* gc.c: FIBER likewise. */
int gc_fiber(void *keeper);
#endif
