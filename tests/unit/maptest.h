/* A process that has a map of servers, each of which is whatever the test makes it. */
#ifndef AQ_MAPTEST_H
#define AQ_MAPTEST_H
#include "parallax/copies/copies.h"
#include "tests/sim/catalog_sim.h"

struct map_rig {
	struct sim *sim;
	struct catalog_sim *catalogs;
	struct env *env;
	struct copies *copies; /* with a catalog, into which it doesn't look by itself */
};
/* The servers' ids begin with 1, 2, …; none can be reached yet, and nothing belongs on them. */
void map_rig_make(struct map_rig *r, uint64_t seed, unsigned servers);
void map_rig_free(struct map_rig *r); /* the process, dead or alive, too */
/* Server `index` is that one, with that id; NULL: it can't be reached. */
void map_rig_serve(struct map_rig *r, unsigned index, struct segment_server *server);
/* What belongs to `group` belongs on `count` servers. */
void map_rig_place(struct map_rig *r, unsigned group, unsigned count, const uint16_t *servers);
#endif
