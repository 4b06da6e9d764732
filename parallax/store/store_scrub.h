/* `cluster scrub`: every server reads its sealed copies again and mends what is damaged (server/scrub.h); embedded volumes are read
 * here, and nothing is mended. And how the servers' own work goes, for `cluster status`. */
#ifndef AQ_STORE_SCRUB_H
#define AQ_STORE_SCRUB_H
#include "parallax/store/store_check.h"

struct store_scrub {
	const char *volume;        /* its own segments alone; NULL: all */
	/* One line; `where`: the server's address, or "volume NAME". */
	void (*fault)(void *arg, const char *where, const char *text, bool repaired);
	void (*skipped)(void *arg, const char *where, const char *why);
	void (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);
	void *arg;
	/* results */
	uint64_t copies, bytes, bad, repaired, incomplete;
};
/* FIBER. 0: it was done, how->bad and how->incomplete tell; -errno with a report. */
int store_scrub(struct store *s, struct store_scrub *how, struct report *report);

struct store_server_work {
	char software[64];         /* "aquifer 0.1"; "": it didn't say */
	bool status, scrub;        /* it told: */
	uint64_t copies, missing, missing_bytes, bytes_per_s, misplaced, failures, silent;
	int failing;               /* why the last copy couldn't be made there: -errno; 0: it could */
	int gone;                  /* why it doesn't find the directory of its segments; 0: it does */
	bool settled;              /* nothing is left to be rebuilt */
	uint64_t scrub_finished_ns, scrub_bad, scrub_repaired; /* in its life */
	uint64_t read_bad, read_repaired; /* of these, what readers found since it was started */
	uint64_t scrub_unrepaired; /* as of the last pass over all */
};
/* FIBER. Asks the server with that id (hex), waiting for up to two seconds. `copies` is of copies_open(). */
struct copies;
void store_server_ask(struct copies *c, const char *id, struct store_server_work *ret);
#endif
