/* The embedded catalog: one SQLite file (WAL, synchronous=FULL), shared by all processes of a host. */
#ifndef AQ_CATALOG_SQLITE_H
#define AQ_CATALOG_SQLITE_H
#include "parallax/catalog/catalog.h"

/* FIBER. See catalog_open(). */
int catalog_sqlite_open(struct env *env, const char *path, bool create, struct catalog **ret_catalog,
			struct report *report);
#endif
