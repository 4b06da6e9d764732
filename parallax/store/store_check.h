/* `cluster check`: everything recomputed from the roots, and compared with what the catalog, the volumes' tables and the servers say.
 *
 * A volume that nobody has and that wasn't closed in order is recovered first, as attaching it would; otherwise nothing is changed. A volume
 * that is attached is checked as of its last checkpoint (and isn't complete, if its holder is on another host and hasn't renewed its lease, or in another container); if it publishes others faster than its map can be read, it is only told so. */
#ifndef AQ_STORE_CHECK_H
#define AQ_STORE_CHECK_H
#include "parallax/store/store.h"

struct store_checked {
	char name[STORE_NAME_BYTES + 32]; /* "web1"; of one that was deleted "web1 (deleted)" */
	uint64_t id;
	bool attached;
	bool complete;
	char why[384];             /* not complete: one clause */
	uint64_t segments, live_bytes, faults;
	uint64_t copies_missing, copies_away; /* fewer than there should be: on servers that answer; on servers that don't */
};

struct store_check {
	const char *volume;        /* only this one; NULL: all, and the catalog */
	/* One line. `volume`: NULL if it is the catalog's. */
	void (*fault)(void *arg, const char *volume, const char *text);
	void (*checked)(void *arg, const struct store_checked *v);
	void (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);
	void *arg;
	/* results */
	uint64_t faults, volumes, incomplete;
	uint64_t orphans, orphan_bytes; /* copies on servers that are nobody's: gc frees them */
};
enum { STORE_CHECK_FAULTS_MAX = 100 }; /* lines for one volume; what is beyond is counted */

/* FIBER. 0: it was done, how->faults tells what was found; -errno with a report. When and how it ended is kept for `cluster status`. */
int store_check(struct store *s, struct store_check *how, struct report *report);

/* ---- the last one ---- */

struct store_health {
	uint64_t when_ns;          /* since 1970; 0: never */
	uint64_t faults, incomplete;
};
int store_health_read(struct store *s, const char *what, struct store_health *ret); /* FIBER. 0 also if never */
#endif
