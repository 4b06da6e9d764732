/* A simulated machine with data directories, and copies of segments made in them by hand. */
#ifndef AQ_COPYTEST_H
#define AQ_COPYTEST_H
#include "core/env_sim.h"
#include "parallax/copies/copies.h"
#include "parallax/segment/segment.h"
#include "tests/sim/catalog_sim.h"

enum { SIZE_BLOCKS = 256, PAYLOAD = 9, RECORDS = 24, LENGTH = 1 + RECORDS * (PAYLOAD + 1) };

struct world {
	struct sim *sim;
	struct env *env;
	struct catalog *catalog;
	struct segment_server *a, *b;
	uint8_t *page;
	uint32_t crc;
};

/* A machine of 64 MiB, on which the fiber `body` runs with a struct world; it opens and closes the directories. */
void copytest_run(int (*body)(void *arg));
/* FIBER, what follows. An operation whose blocks are one buffer. */
int ask(struct segment_server *s, struct segment_io *io, void *bytes, size_t room);
/* A segment full of records, LENGTH blocks, and sealed if it is wished. */
void make_copy(struct world *w, struct segment_server *s, uint64_t id, bool seal);
/* Both slots of /a's copy can't be read any more: not even whose it is is known. It isn't in use. */
void damage_slots(struct world *w, uint64_t id);
/* The first segment after `after` in whose group that server is the one at `place`; not FIBER. */
uint64_t segment_placed(struct copies *c, uint64_t after, unsigned place, const uuid *server);
/* The volume of the segments that make_copy() makes, of one copy for each, lists it on /a. */
void list_segment(struct world *w, uint64_t id);
/* Says that `count` blocks are free. */
void trim(struct segment_server *s, uint64_t id, uint32_t from, uint32_t count, bool pack);
#endif
