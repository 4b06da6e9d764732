/* What scenario `operator` knows of its world, for its parts: scenario_operator.c, operator_cluster.c. */
#ifndef AQ_SIM_OPERATOR_H
#define AQ_SIM_OPERATOR_H
#include "core/bytes.h"
#include "parallax/catalog/catalog_copy.h"
#include "tests/sim/owner.h"
#include "tests/sim/scenario.h"

enum {
	SERVERS_MAX = 4,
	ATTACHED = 2,
	VOLUMES_MAX = 8,
	SNAPSHOTS_MAX = 12,
	BLOCKS_MAX = 400,
	STEPS_MAX = 40000000,
};

struct contents {
	unsigned blocks;
	uint8_t byte[BLOCKS_MAX]; /* of all of the block; 0: also one that was never written */
	unsigned unsure, unsure_count; /* blocks that a write which failed may have changed, … */
	uint8_t unsure_byte;      /* … to this */
};

/* Is it known what is in it? */
static inline bool contents_sure(const struct contents *c, unsigned block) { return block < c->unsure || block >= c->unsure + c->unsure_count; }

struct known_volume {
	bool used;
	char name[STORE_NAME_BYTES];
	struct contents now;
};

struct known_snapshot {
	bool used;
	struct known_volume *of;
	char name[STORE_NAME_BYTES];
	struct contents was;
};

struct operator_world;

struct seat { /* an attached volume, in a process of its own */
	struct operator_world *w;
	struct known_volume *volume;
	struct owner o;
	char control[16];
	struct scenario_task task;
	bool open, still, idle, stop, over; /* still: asked not to write; idle: it doesn't */
};

struct operator_world {
	struct scenario_run *run;
	struct sim *sim;
	struct catalog_sim *catalogs;
	struct sim_host *host, *desk_host;
	struct block_server servers[SERVERS_MAX];
	unsigned server_count, next_name;
	struct keeper_options keeps;
	struct volume_limits limits;
	struct seat seats[ATTACHED];
	struct known_volume volumes[VOLUMES_MAX];
	struct known_snapshot snapshots[SNAPSHOTS_MAX];
	struct owner desk;
	struct scenario_task task;
	bool programs;             /* desk and seats are as programs are: owner_store(), owner_attach(), with an agent on the seats' host */
	struct owner agent;
	struct scenario_task agent_task;
	bool agent_there, agent_stop;
	struct catalog_image kept; /* a backup of the catalog */
	bool calm, drained, losing; /* losing: the catalog is another one by now, so that seats' requests may fail */
	unsigned without;          /* server, + 1, that is away while a lost catalog's volumes are recovered: others have the same; 0: none */
	unsigned removed;          /* which server, + 1, is out of the map until it is started again */
};

#define FAIL(w, ...) scenario_fail((w)->run, __VA_ARGS__)

static inline uint64_t draw(struct operator_world *w, uint64_t below) { return sim_random(w->sim) % below; }

/* In a calm world nothing fails. True if it went well. */
static inline bool expect(struct operator_world *w, int r, const char *what, const char *name, const struct report *report)
{
	if (r < 0 && w->calm)
		FAIL(w, "%s %s: %s (%d)", what, name, report_text(report, r), r);
	return r >= 0;
}

/* A request that can't be granted says why, unless the world is in the way. */
static inline void refused(struct operator_world *w, int r, const char *what, const struct report *report)
{
	if (r == 0)
		FAIL(w, "%s: not refused", what);
	else if (!report->text[0] && w->calm)
		FAIL(w, "%s: refused without a word (%d)", what, r);
}

/* One that is known, attached or not; NULL: there is none. */
struct known_volume *any_volume(struct operator_world *w, bool attached);

struct known_volume *free_volume(struct operator_world *w);
struct known_snapshot *any_snapshot(struct operator_world *w);
struct seat *seat_of(struct operator_world *w, const struct known_volume *v); /* NULL: it isn't attached */
void new_name(struct operator_world *w, char ret[STORE_NAME_BYTES]);
void snapshot_text(const struct known_snapshot *s, char ret[STORE_SNAPSHOT_NAME_BYTES]);
/* FIBERs. All of a node, or of a snapshot, compared with what it must be; one that nobody has, changed at the desk and read. */
int read_node(struct operator_world *w, const char *what, struct blk_node *n, const struct contents *c);
int read_snapshot(struct operator_world *w, const struct known_snapshot *s);
int read_mark(struct operator_world *w, const struct known_snapshot *s, uint64_t volume, uint64_t mark_seq);
int use_volume(struct operator_world *w, struct known_volume *v, const char *name);

/* operator_program.c: FIBERs but for the first two. */
void programs_begin(struct operator_world *w);
void programs_end(struct operator_world *w);
int operator_open(struct operator_world *w, struct owner *o, const char *name, struct report *report);
void command_set(struct operator_world *w, struct report *report);
void command_import_killed(struct operator_world *w, struct report *report);
void command_attach_snapshot(struct operator_world *w, struct report *report);
void command_ask_seats(struct operator_world *w, struct report *report);

/* operator_catalog.c: FIBERs. At the end, when all is calm: what is wrong with the catalog is found; it moves to another place. */
void damage_catalog(struct operator_world *w);
void move_catalog(struct operator_world *w);

/* operator_lost.c. A backup is kept (FIBER); the catalog is lost, when nothing is written any more. */
void keep_backup(struct operator_world *w);
void lose_catalog(struct operator_world *w);
/* All seats, each closed or killed; or they write again. */
void seats_end(struct operator_world *w);
void seats_go_on(struct operator_world *w);

/* operator_cluster.c: FIBERs. */
void command_check(struct operator_world *w, struct report *report);
void command_scrub(struct operator_world *w, struct report *report);
void command_gc(struct operator_world *w, struct report *report);
void command_status(struct operator_world *w, struct report *report);
void command_servers(struct operator_world *w, struct report *report);
void command_agents(struct operator_world *w, struct report *report);
void command_backup(struct operator_world *w, struct report *report);
void judge_status(struct operator_world *w, const struct store_status *t, bool settled);
#endif
