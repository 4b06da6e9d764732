/* Who we are to etcd, as etc/aquifer/aquifer.conf says: `catalog-ca`, `catalog-cert`, `catalog-key`: files in PEM; `catalog-user`
 * and `catalog-password-file`, whose first line is the password. */
#ifndef AQ_CATALOG_ACCESS_H
#define AQ_CATALOG_ACCESS_H
#include "parallax/catalog/catalog.h"

/* FIBER. Reads what the catalog of `url` needs, nothing for a file. 0 or -errno with a report; catalog_access_free() in any case. */
int catalog_access_load(struct env *env, const char *root, const char *url, struct catalog_access *ret, struct report *report);
/* FIBER. Opens the catalog of `given`, NULL: the configured one. -ENOENT: there is none. */
int catalog_open_configured(struct env *env, const char *root, const char *given, struct catalog **ret_catalog, struct report *report);
int catalog_access_copy(const struct catalog_access *a, struct catalog_access *ret); /* 0 or -ENOMEM */
bool catalog_access_differ(const struct catalog_access *a, const struct catalog_access *b); /* … in who we are */
void catalog_access_free(struct catalog_access *a);
#endif
