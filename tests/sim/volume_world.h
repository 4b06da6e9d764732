/* What scenarios `volume`, `cluster` and `rebuild` know of their world, for their parts: scenario_volume.c, volume_commands.c. */
#ifndef AQ_SIM_VOLUME_WORLD_H
#define AQ_SIM_VOLUME_WORLD_H
#include "core/bytes.h"
#include "parallax/catalog/catalog_copy.h"
#include "tests/sim/moments.h"
#include "tests/sim/oracle.h"
#include "tests/sim/owner.h"
#include "tests/sim/troubles.h"

enum {
	SNAPSHOTS_MAX = 24,
	CLIENTS_MAX = 6,
	CLONES_MAX = 3,
	OP_SECTORS_MAX = 64,
	SERVERS_MAX = 4,
	STEPS_MAX = 3000000,
};

struct snapshot {
	bool used, known, doomed;  /* known: `bytes` is what it shows, for ever; not known: taken between began and ended */
	bool acked, late;          /* late: the oracle has forgotten what it must show; only that it stays can be checked */
	char name[32];
	uint64_t began, ended, mark;
	uint8_t *bytes;
	unsigned users;            /* clients that are at it */
};

struct clone {
	bool used, acked, written; /* written: and closed, so that a checkpoint is in its segments */
	bool unflushed;            /* written, and not closed since: what is lost with the power may be missing, */
	uint64_t power_losses;     /* … which went so often before */
	char name[32];
	uint8_t *bytes;            /* what it shows; NULL: not known (a write to it was interrupted) */
};

struct volume_world;

struct client {
	struct volume_world *w;
	struct scenario_task task;
	unsigned ops;
};

struct volume_world {
	struct scenario_run *run;
	struct sim *sim;
	struct sim_host *host;
	struct catalog_sim *catalogs;
	struct oracle *oracle;
	struct snapshot snapshots[SNAPSHOTS_MAX];
	struct clone clones[CLONES_MAX];
	struct snapshot *rolling_back; /* interrupted: it may have happened */
	unsigned next_name, life;
	uint64_t size_bytes;
	bool may_fail; /* something other than connections has failed, or may have */
	bool remote, faults, cluster;
	/* of all of a run's lives: so that one thing meets itself */
	bool dense, few_flushes;     /* one trouble soon after the other; little of what is written is durable */
	bool blackouts;              /* what ends a life is mostly that everything loses power, and only then a server is gone for ever */
	bool drains;                 /* an operator drains servers, one at a time, and uses them again; until he isn't answered */
	unsigned drained;            /* that one, + 1; 0: none */
	uint64_t map_revision;       /* when the life began */
	bool two;                    /* two servers may be in trouble at the same time: requests wait when too few are left */
	enum moment favourite;
	bool focused;
	enum trouble_kind focus;     /* most troubles are this one */
	struct keeper_options keeps; /* scenario rebuild: what servers do by themselves */
	struct catalog_image kept;   /* a backup of the catalog; no keys: none was made */
	bool found_again;            /* the catalog was lost */
	unsigned kept_drained;       /* `drained` of that time: it is so again when that is restored */
	uint64_t syncs_failed; /* when the last life began to be served */
	/* this life's */
	struct owner o;
	struct block_server servers[SERVERS_MAX];
	unsigned server_count;
	uint32_t replicas, min_replicas, io_timeout_ms;
	unsigned lost_power;       /* servers (bits) that may lack what was acknowledged since the volume was opened */
	struct troubles troubles;
	unsigned damaged;          /* servers (bits) that put some writes where they don't belong, or lose bits */
	struct client clients[CLIENTS_MAX];
	struct volume_limits limits;
	bool io_failed;
};

#define FAIL(w, ...) scenario_fail((w)->run, __VA_ARGS__)
#define LIFE(w) (w)->life

static inline uint64_t draw(struct volume_world *w, uint64_t below) { return sim_random(w->sim) % below; }
static inline uint64_t disk_bytes(const struct volume_world *w) { return (uint64_t)oracle_sectors(w->oracle) * ORACLE_SECTOR; }

/* One that can be compared and isn't deleted; NULL: none was hit upon. */
struct snapshot *known_snapshot(struct volume_world *w);

/* volume_lost.c: a backup of the catalog, now; and it is lost, and restored from that. */
void volume_backup(struct volume_world *w);
void volume_loses_catalog(struct volume_world *w);
bool volume_can_be_found(struct volume_world *w); /* … then */

/* volume_commands.c: the store's operations, by a process of their own, which may be killed in the middle. */
void commands(struct volume_world *w);
/* FIBER. I9 and I10 of what is published of a volume that nobody has recovered yet. */
void check_published(struct volume_world *w);
void undo_drains(struct volume_world *w);
void delete_all(struct volume_world *w); /* and nothing may be left */
#endif
