/* The configuration file, ROOT/etc/aquifer/aquifer.conf: lines of `key = value`; # begins a comment.
 * Only programs' main files and store_open() read it. */
#ifndef AQ_CONFIG_H
#define AQ_CONFIG_H
#include "core/env.h"
#include "core/report.h"

#define CONFIG_VALUE_BYTES 1024

/* FIBER. 0; -ENOENT: no file, or no such key; other: a report names file and line. `root`: AQUIFER_ROOT, "" if none. */
int config_get(struct env *env, const char *root, const char *key, char ret_value[CONFIG_VALUE_BYTES],
	       struct report *report);
/* FIBER. Sets a key in the file, which is made if it isn't there; all else in it stays. Durable, and whole at any time. */
int config_set(struct env *env, const char *root, const char *key, const char *value, struct report *report);
/* FIBER. The catalog's URL: `given` if not NULL, else the file's `catalog`, else the embedded store's, which is
 * sqlite:ROOT/var/lib/aquifer/catalog.db. 0 or -errno with a report. */
int config_catalog_url(struct env *env, const char *root, const char *given, char ret_url[CONFIG_VALUE_BYTES],
		       struct report *report);

/* FIBER. What this host is called among those that share a catalog: the file's `host`, else the machine's name. */
int config_host(struct env *env, const char *root, char ret_host[64], struct report *report);
/* FIBER. What fails together with this host, as servers call it (--domain): `domain =`, else as config_host(). */
int config_domain(struct env *env, const char *root, char ret_domain[64], struct report *report);

/* One line, in place; codec only. 0 and key and value (borrowed); -ENOENT: nothing in it; -EINVAL. */
int config_parse_line(char *line, const char **ret_key, const char **ret_value);
#endif
