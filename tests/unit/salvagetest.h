/* A cluster's catalog is kept, lost, restored, and what was written since is recovered (parallax/store/store_recover.h). */
#ifndef AQ_SALVAGETEST_H
#define AQ_SALVAGETEST_H
#include "parallax/catalog/catalog_copy.h"
#include "parallax/store/store_recover.h"
#include "tests/unit/clustertest.h"

extern struct catalog_image salvage_image;                  /* the backup */
extern unsigned salvage_counts[STORE_RECOVERED_NOT + 1];    /* of the last recovery; */
extern bool salvage_behind;                                 /* … some volume is without what was written last */
extern uint64_t salvage_lost;                               /* … blocks that it needs are nowhere; */
extern bool salvage_lost_more;                              /* … and what is below those */
extern bool salvage_may_fail;                               /* volumes may be left */

/* Bodies for volume_rig_run(). The first four take a rig of an embedded volume, too. */
int salvage_backup(void *arg);
int salvage_restore(void *arg);
int salvage_recover(void *arg);
int salvage_force(void *arg);
int salvage_write(void *arg);      /* all blocks, anew */
int salvage_checkpoint(void *arg);

void salvage_next_owner(struct cluster_rig *c);    /* who had it was killed */
void salvage_lose_catalog(struct cluster_rig *c);  /* and the backup is restored */
void salvage_must_have_all(struct cluster_rig *c); /* opened, it is what was written, and goes on */
#endif
