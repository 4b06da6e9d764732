/* What is left of a volume whose head is gone. */
#ifndef AQ_BEHEAD_H
#define AQ_BEHEAD_H
#include "parallax/volume/volume.h"

/* FIBER. The head becomes what the newest snapshot is: all that only the head reaches is freed, and the snapshot's dead
 * list with it, since nothing has died since. The volume is idle and doomed. Without snapshots: nothing. 0 or -errno. */
int volume_behead(struct volume *v);
#endif
