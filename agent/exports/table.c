/* The table of exports: one sorted line each. */
#include <string.h>

#include "agent/exports/export.h"

const struct export_driver *const export_table[] = {
	&export_loop,
	&export_nbd,
	NULL,
};

const struct export_driver *export_find(const char *name)
{
	for (const struct export_driver *const *e = export_table; *e; e++)
		if (strcmp((*e)->name, name) == 0)
			return *e;
	return NULL;
}
