/* The table of block drivers, sorted by name: one line each. */
#include "core/drivers.h"

#include <stddef.h>
#include <string.h>

const struct blk_driver *const driver_table[] = {
	&driver_cow,
	&driver_delay,
	&driver_error,
	&driver_null,
	&driver_ram,
	&driver_raw,
	&driver_ro,
	&driver_verify,
	&driver_volume,
	NULL,
};

const struct blk_driver *driver_find(const char *name)
{
	for (const struct blk_driver *const *d = driver_table; *d; d++)
		if (strcmp((*d)->name, name) == 0)
			return *d;
	return NULL;
}
