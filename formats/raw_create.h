#ifndef AQ_RAW_CREATE_H
#define AQ_RAW_CREATE_H
#include "core/blk.h"

/* FIBER. blk_driver.create of raw. */
int raw_create(struct env *env, const char *path, uint64_t size, const char *backing, struct report *report);
#endif
