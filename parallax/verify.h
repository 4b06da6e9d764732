/* Recounting what is live from all roots (invariant I10). */
#ifndef AQ_VERIFY_H
#define AQ_VERIFY_H
#include "parallax/volume.h"

/* FIBER. Also: nothing is in an embedded volume's directory that no table has (I14).
 * Walks the head's and every snapshot's tree as last published, adds the dead lists' own blocks, and compares with the
 * accounting, segment by segment. 0; -EUCLEAN with a report of the first difference; -EAGAIN: something changed meanwhile
 * (checkpoint and ask again); other: what couldn't be read. */
int volume_verify_space(struct volume *v, struct report *report);
#endif
