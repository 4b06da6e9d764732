/* What happens to a scenario's servers, one thing after the other. Some of it is for ever: a disk that is lost, older than it was, or that puts
 * writes where they don't belong. That is survived by one server in a run, so the scenario lets it happen to one. */
#ifndef AQ_TROUBLES_H
#define AQ_TROUBLES_H
#include "tests/sim/owner.h"

enum trouble_kind {
	TROUBLE_KILL, TROUBLE_POWER, TROUBLE_PAUSE,
	TROUBLE_DEAF, TROUBLE_MUTE,     /* one way between it and the client */
	TROUBLE_SPLIT,                  /* one way between it and `other`, a server */
	TROUBLE_CATALOG,                /* no server's, but an outage */
	TROUBLE_FULL,                   /* somebody else fills its disk */
	TROUBLE_STALE,                  /* loses power, and comes back with its disk as it was earlier */
	TROUBLE_WIPED,                  /* loses power and its disk, and comes back with an empty one: as another server */
	TROUBLE_GONE,                   /* loses power, and never comes back */
};

/* From about step `from` on. */
struct trouble {
	enum trouble_kind kind;
	unsigned server, other;
	uint64_t from, lasts;
};

struct troubles {
	struct scenario_run *run;
	struct sim *sim;
	struct sim_host *client;
	struct catalog_sim *catalogs;
	struct block_server *servers;
	struct sim_disk_state *kept;    /* a disk as it was; NULL: none */
	unsigned kept_of;
	unsigned gone;                  /* servers (bits) that never come back */
	bool wiped;                     /* the one has another disk now; before that it was: */
	uuid lost;
	unsigned hurt;                  /* to which something for ever has happened: one at most */
	unsigned full, filled;          /* servers whose disks are full now; were since the scenario cleared it */
	bool no_room;                   /* so many of all these at once that a volume may have had no space; the scenario clears it */
};

/* Perhaps it is one of those that only several servers can have instead; `ever`: one may lose its disk. */
void trouble_draw_more(struct troubles *t, struct trouble *one, unsigned servers, bool ever);
/* Remembers a server's disk for TROUBLE_STALE. */
void troubles_keep(struct troubles *t, unsigned server);
/* `without`: further servers (bits) where nothing is made any more. Is there room for two copies? */
void troubles_look_for_room(struct troubles *t, unsigned without);
/* True: what the server answered and hadn't synced may be lost. */
bool trouble_begins(struct troubles *t, const struct trouble *one);
void trouble_ends(struct troubles *t, const struct trouble *one);
void troubles_end(struct troubles *t);
#endif
