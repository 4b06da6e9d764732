/* The processes of the store's scenarios: an owner, which may have a volume open, and a block server. Each has its own
 * env; killing one and closing what it had is the scenario's to do, in the order env_sim.h says. */
#ifndef AQ_OWNER_H
#define AQ_OWNER_H
#include "parallax/store/store_private.h"
#include "parallax/volume/volume_node.h"
#include "server/keeper.h"
#include "server/scrub.h"
#include "server/watch.h"
#include "tests/sim/catalog_sim.h"
#include "tests/sim/scenario.h"

struct owner_driver { /* a driver that knows its volume: no file-scope state */
	struct blk_driver driver;
	struct volume *volume;
};

struct owner {
	struct env *env;
	struct catalog *catalog;
	struct places places;
	struct store store;
	struct volume *volume;     /* with owner_open() */
	struct blk_node *node;
	struct owner_driver driver;
	const char *control;       /* for the owner record; NULL: none */
	bool locks;                /* takes the lock that keeps a second owner on this host out */
	bool accept_flushed;       /* owner_open(): an operator says so */
	struct store *opened;      /* with owner_store(); `store` is a copy of it, and store.places its places */
	bool attached;             /* with owner_attach(): its node has the volume */
	uint64_t idle_ns;          /* owner_open(): connections with servers that nobody needs end after so long; 0: as usual */
};

void owner_begin(struct owner *o, struct sim *sim, struct sim_host *host, struct catalog_sim *catalogs, bool locks);
/* For owner.idle_ns: in some runs they end while the scenario still goes on, in some even those that are needed now and then. */
uint64_t owner_idle_ns(const struct scenario_run *run);
/* In two runs of three dead lists have indexes, which take hundreds of thousands of chunks otherwise. */
void owner_limit_indexes(const struct scenario_run *run, struct volume_limits *l);
/* Nothing is open any more. */
void owner_end(struct owner *o);
/* FIBER. Opens the volume of that name, and a block node over it. */
int owner_open(struct owner *o, const char *name, const struct volume_limits *limits, bool force, struct report *report);
/* FIBERs. As programs do both: by what etc/aquifer/aquifer.conf of the process' host says, where `url` and its name are put before, with
 * the driver `volume`, and the catalog's leases for locks (catalog_url.h). */
int owner_store(struct owner *o, const char *host, const char *url, struct report *report);
int owner_attach(struct owner *o, const char *name, const struct volume_limits *limits, struct report *report);
int owner_store_close(void *owner); /* before owner_end() */
/* FIBER. By force, tried again for some ten seconds: what it needs may be away. */
int owner_seize(struct owner *o, const char *name, const struct volume_limits *limits, struct report *report);
/* FIBERs. A key that says that somebody on another host reads a snapshot (places_hold_snapshot()); it goes. And what leases do: those of
 * processes that are dead go. */
int owner_hold_snapshot(struct owner *o, uint64_t volume, uint64_t mark_seq, char ret_key[META_KEY_BYTES]);
int owner_let_go(struct owner *o, const char *key);
int owner_forget_holds(struct owner *o);
int owner_close(void *owner); /* FIBER; also half open, also in a dead env */
/* FIBER. A node over another volume of the owner's; `driver` lives as long as it. */
int owner_node(struct owner *o, struct owner_driver *driver, struct volume *v, struct blk_node **ret_node, struct report *report);

struct block_server {
	struct scenario_run *run;
	struct sim_host *host;
	char address[32], domain[16];
	struct env *env;           /* NULL: not running */
	struct catalog *catalog;
	struct segment_server *dir;
	const char *path;          /* of its data directory; NULL: /data */
	uuid id;                   /* once it has begun */
	struct server *server;
	const struct keeper_options *keeps; /* NULL: it doesn't rebuild, nor collect garbage */
	struct keeper *keeper;
	struct scrub *scrub;
	struct watch *watch;       /* says in the trace when its disk gets fuller */
	unsigned warned;           /* the last part that it spoke of, in percent */
	uint64_t scrub_ns;         /* its period; 0: always at it */
};

/* Its host, with a disk of that size; nothing runs yet. */
void block_server_init(struct block_server *s, struct sim *sim, unsigned index, uint64_t disk_bytes);
/* Starts it and waits until it serves. */
void block_server_begin(struct block_server *s, struct scenario_run *run, struct sim *sim, struct catalog_sim *catalogs);
void block_server_end(struct block_server *s, bool power); /* killed, or its host loses power */
#endif
