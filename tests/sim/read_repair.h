/* At the end of a scenario, when all is well: a block of an attached volume is damaged on the disk of the server it is read from, often on another's
 * too; it is read, and must be right, and soon be right on the disks that were asked, although nobody scrubs. So must two
 * blocks that lie side by side, of which no server has both right, and each has one. */
#ifndef AQ_READ_REPAIR_H
#define AQ_READ_REPAIR_H
#include "tests/sim/owner.h"

void read_repair_check(struct scenario_run *run, struct sim *sim, struct owner *user, struct block_server *servers, unsigned count);
#endif
