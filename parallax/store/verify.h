/* Recounting what is live from all roots (invariants I9, I10), and asking servers whether they have what they should (I3). */
#ifndef AQ_VERIFY_H
#define AQ_VERIFY_H
#include "parallax/map/space.h"
#include "parallax/volume/volume.h"

/* One published state of a volume, and what is found wrong with it.
 *
 * Every snapshot's tree is compared with its predecessor's, the oldest with the parent's that a clone began as, the head's with
 * the newest snapshot's: what is the same pointer is the same below. So each node is read once, and of each block it is known where
 * it first appears and where it goes: it must appear once in all, and what goes must be on the dead list of the snapshot that has it last.
 * The rest must be known to be free: by the table, or by every server with a copy. Nothing is changed.
 *
 * Memory: two bits for each block of the volume's own segments, 4 KiB for 64 MiB that are stored, whatever the volume's size;
 * 40 bytes for each 512 entries of dead lists; 1.3 MiB of buffers. */
struct verify {
	struct env *env;
	struct catalog *catalog;
	uint64_t volume;
	const struct meta_log *log;  /* borrowed, like the rest */
	struct sources *sources;
	struct copies *copies;       /* where its own segments are */
	struct space *space;         /* as of `log` */
	/* FIBER. Isn't the state that of `log` any more? NULL: it can't change. */
	bool (*changed)(void *arg);
	/* -EUCLEAN: it is wrong; other: it can't be read, and why. Not zero: enough, stop. */
	int (*fault)(void *arg, int status, const char *text);
	void (*progress)(void *arg, uint64_t blocks); /* so many of log->live_blocks were found; NULL */
	void *arg;
	/* results */
	uint64_t segments, live, faults;
	uint64_t copies_missing;     /* of segments, fewer than there should be; on servers that answered */
	uint64_t copies_away;        /* on servers that don't answer */
	uint64_t lost;               /* blocks in use that no copy has whose server answered */
	bool partial;                /* something couldn't be read, so that what is in use isn't all known */
};
/* FIBER. 0: done, y->faults tells; -EAGAIN: it changed meanwhile; what `fault` returned; -ENOMEM. */
int verify_run(struct verify *y);

/* FIBER. The same of an open volume, and nothing is in an embedded volume's directory that no table has (I14).
 * 0; -EUCLEAN with a report of the first fault; -EAGAIN: something changed meanwhile (checkpoint and ask again); other: what
 * couldn't be read. */
int volume_verify_space(struct volume *v, struct report *report);
/* FIBER. Of each segment in the log that is cut, enough servers are listed (R15), and each that answers and isn't broken has
 * all of it (I3), or has given it away to as many others as should have it. 0, -EUCLEAN with a report of the first that isn't so, -EAGAIN:
 * something changed meanwhile. */
int volume_verify_copies(struct volume *v, struct report *report);
#endif
