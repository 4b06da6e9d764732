/* What of a volume waits to be freed, as the catalog notes it: `reap/V/M`, one key for each deleted snapshot that somebody should look at; and `reap/V`, which
 * says that all of the volume is to be looked at: its head was deleted or rolled back, or an older program has deleted something.
 *
 *   delete a snapshot, or the last clone of a deleted one ─▶ reap/V/M ─┬─ nothing holds it ─▶ dropped by a checkpoint, whose transaction deletes both keys
 *                                                                       ├─ clones hold it ──▶ the note is deleted: the last of them puts it again
 *                                                                       └─ others read it ──▶ it stays until the next look, in ten minutes at most
 *
 * So what a deletion costs doesn't depend on how many snapshots there are, nor on how many of those that were deleted are held. */
#ifndef AQ_DOOMED_H
#define AQ_DOOMED_H
#include "parallax/catalog/catalog.h"

struct doomed_snapshot {
	uint64_t mark_seq;
	uint64_t revision; /* of the snapshot's key; 0: there is no such snapshot, or it isn't deleted */
	uint64_t noted;    /* of its note; 0: there is none */
	bool rootless;     /* its root comes with the next checkpoint */
	bool cloned, read; /* who holds it; for good, since a deleted one gets no new clones or readers */
};

struct doomed {
	struct doomed_snapshot *entries; /* by mark_seq */
	size_t count;
	uint64_t whole;       /* revision of reap/V; 0: there is none */
	uint64_t newest_root; /* position of the newest snapshot's, of all there are; only if `whole` */
};

int doomed_find(struct catalog *c, uint64_t volume, struct doomed *ret); /* FIBER. 0 or -errno, then it is empty */
void doomed_free(struct doomed *d);
/* Something of it can be freed, as far as the catalog knows. */
static inline bool doomed_droppable(const struct doomed_snapshot *s) { return s->revision && !s->cloned && !s->read; }
/* FIBER. Deletes the notes of snapshots that are gone, or that clones hold, unless something was noted again since. */
void doomed_forget(struct catalog *c, uint64_t volume, const struct doomed *d);
int doomed_forget_all(struct catalog *c, uint64_t volume); /* FIBER. The volume is gone: all of its notes */
#endif
