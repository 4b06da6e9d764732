/* The catalog on an etcd cluster, version 3.4 or later: see catalog_open(). */
#ifndef AQ_CATALOG_ETCD_H
#define AQ_CATALOG_ETCD_H
#include "parallax/catalog.h"

/* FIBER. `addresses`: "http[s]://HOST:PORT[,…]". */
int catalog_etcd_open(struct env *env, const char *addresses, const struct catalog_access *access, bool create,
		      struct catalog **ret_catalog, struct report *report);
#endif
