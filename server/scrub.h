/* Scrubbing: a server reads all its sealed copies again, slowly, once in each period; and at once when it is asked. What is wrong
 * is mended block by block from other servers' copies; a copy whose footer is damaged is given up, and replaced by rebuilding (keeper.h).
 * What a reader found to be wrong is looked at and mended beside that, at once (found.h), also in copies that aren't sealed yet.
 * A file `scrub` in the data directory remembers how far it is; losing that costs reading again. */
#ifndef AQ_SCRUB_H
#define AQ_SCRUB_H
#include "parallax/catalog/catalog.h"
#include "server/server.h"

struct scrub;

struct scrub_options {         /* 0: the default */
	const char *directory; /* the data directory's path, borrowed */
	uint64_t period_ns;    /* 14 days */
	uint64_t bytes_per_s;  /* when it is asked, at most so much: 64 MiB/s */
	/* A line for the log. NULL: none. */
	void (*log)(void *arg, const char *text);
	void *arg;
};

/* FIBER. Borrows all until scrub_stop(). */
int scrub_start(struct env *env, struct catalog *catalog, struct segment_server *dir, struct server *server, const struct scrub_options *options,
		struct scrub **ret);
void scrub_stop(struct scrub *s); /* FIBER; accepts NULL */
#endif
