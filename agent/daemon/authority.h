/* What an agent does for the cluster's access control: it keeps this host's certificates from running out, and where the authority's
 * key is, it answers requests for certificates. */
#ifndef AQ_AUTHORITY_H
#define AQ_AUTHORITY_H
#include "core/fiber.h"
#include "parallax/access/access.h"

struct authority_service {
	struct env *env;
	const char *root;
	char url[1024];               /* of the catalog that is open; "": none */
	struct catalog *catalog;
	struct catalog_watch *watch;
	struct fiber_cond changed;    /* the requests, or it is time */
	struct timer timer;
	struct job timer_job;
	bool stop, running, ticking;
	uint64_t renewal_ns, tidy_ns; /* when certificates are looked at next, and what is past its time */
	char said[768];
};

/* FIBER. Loads this host's certificate first, if there is one. */
void authority_start(struct authority_service *s, struct env *env, const char *root);
void authority_end(struct authority_service *s); /* FIBER */
#endif
