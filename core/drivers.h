/* The table of block drivers: one sorted line per driver, in agent/graph/drivers.c. */
#ifndef AQ_DRIVERS_H
#define AQ_DRIVERS_H
#include "core/blk.h"

extern const struct blk_driver driver_cow, driver_delay, driver_error, driver_null, driver_ram, driver_raw, driver_ro,
	driver_verify, driver_volume;
extern const struct blk_driver *const driver_table[]; /* ends with NULL */
const struct blk_driver *driver_find(const char *name); /* NULL if none */
#endif
