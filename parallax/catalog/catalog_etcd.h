/* The catalog on an etcd cluster, version 3.4 or later: see catalog_open(). */
#ifndef AQ_CATALOG_ETCD_H
#define AQ_CATALOG_ETCD_H
#include "parallax/catalog/catalog.h"

/* FIBER. `addresses`: "http[s]://HOST:PORT[,…]". `also`: up to four keys that are read in the same round trip, see catalog_get_many(). */
int catalog_etcd_open(struct env *env, const char *addresses, const struct catalog_access *access, bool create, struct catalog_want *also,
		      unsigned also_count, struct catalog **ret_catalog, struct report *report);
#endif
