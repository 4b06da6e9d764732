/* What a scenario's clients ask of a node beside plain reads and writes: buffers in many pieces, and maps of what is allocated. */
#ifndef AQ_SIM_PIECES_H
#define AQ_SIM_PIECES_H
#include "core/blk.h"
#include "core/env_sim.h"

/* FIBERs. blk_read_wait() and blk_write_wait(), of a buffer that is many pieces, as long as it comes; or just those, three times out of four. */
int pieces_read(struct sim *sim, struct blk_node *n, void *buffer, uint64_t length, uint64_t offset);
int pieces_write(struct sim *sim, struct blk_node *n, const void *buffer, uint64_t length, uint64_t offset, unsigned flags);
/* FIBER. Which sectors are holes, which read as zeroes; -EPROTO: the map is of another range, or of none. */
int pieces_map(struct blk_node *n, uint64_t offset, uint64_t length, bool *ret_holes);
#endif
