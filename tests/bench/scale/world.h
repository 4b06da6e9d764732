/* A process with a catalog that counts, and what there is for all volumes in it. */
#ifndef AQ_BENCH_SCALE_WORLD_H
#define AQ_BENCH_SCALE_WORLD_H
#include "core/env_sim.h"
#include "tests/bench/scale/scale.h"

struct scale_world {
	struct sim *sim;
	struct catalog_sim *catalogs;
	struct env *env;
	struct catalog *below, *catalog; /* the one that counts is before the other */
	struct meter meter;
};
void scale_world_begin(struct scale_world *w);
/* All volumes' keys. `whole`: the servers', too, and their map; otherwise no volume has a space table, for no server has it either. */
void scale_world_fill(struct scale_world *w, const struct scale *s, bool whole);
void scale_world_end(struct scale_world *w); /* nothing uses the catalog any more */
uuid scale_volume_uuid(uint64_t volume);
#endif
