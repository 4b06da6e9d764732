/* I14: when everything is well again and the servers have had time, every sealed segment that a volume lists has its replicas
 * where the map says and nowhere else, copies are what their footers say and know the same blocks to be free, and no copy is left that nobody lists.
 * Volumes may be attached all the time, and idle: then their open segments have all their copies, too. */
#ifndef AQ_HEAL_H
#define AQ_HEAL_H
#include "tests/sim/owner.h"

/* The servers run, with keepers, but for those in `gone` (bits), and nothing else does: lets them settle, and checks. Some of those that
 * are gone return with an empty disk, some are removed by an operator, the others are lost; one that runs may be drained. Volume "v" may be opened before,
 * while a server is away, and stay open. `lost` (NULL: none) was a server whose disk was lost;
 * its successor runs. It is removed, too. `damaged`: some copies may be, and are to be found and mended. */
void heal_check(struct scenario_run *run, struct sim *sim, struct catalog_sim *catalogs, struct sim_host *host, struct block_server *servers,
		unsigned count, unsigned gone, const uuid *lost, bool damaged);
void id_text(const uuid *id, char ret[33]);
#endif
