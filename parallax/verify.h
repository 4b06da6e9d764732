/* Recounting what is live from all roots (invariant I10), and asking servers whether they have what they should (I3). */
#ifndef AQ_VERIFY_H
#define AQ_VERIFY_H
#include "parallax/volume.h"

/* FIBER. Also: nothing is in an embedded volume's directory that no table has (I14).
 * Walks the head's and every snapshot's tree as last published, adds the dead lists' own blocks, and compares with the
 * accounting, segment by segment. 0; -EUCLEAN with a report of the first difference; -EAGAIN: something changed meanwhile
 * (checkpoint and ask again); other: what couldn't be read. */
int volume_verify_space(struct volume *v, struct report *report);
/* FIBER. Of each segment in the log that is cut, enough servers are listed (R15), and each that answers and isn't broken has
 * all of it (I3). 0, -EUCLEAN with a report of the first that isn't so, -EAGAIN: something changed meanwhile. */
int volume_verify_copies(struct volume *v, struct report *report);
#endif
