#include "tests/sim/catalog_url.h"

#include <errno.h>
#include <string.h>

#include "core/bytes.h"
#include "core/env.h"
#include "parallax/catalog/catalog_etcd.h"
#include "parallax/catalog/catalog_sqlite.h"
#include "parallax/store/store_private.h"

/* The linker's doing: the only way from an URL to a world is by what they share. */
static struct named {
	struct sim *sim;
	const char *where;
	struct catalog_sim *catalogs;
} names[4];

void catalog_url_name(struct sim *sim, const char *where, struct catalog_sim *catalogs)
{
	for (unsigned i = 0; i < ARRAY_COUNT(names); i++)
		if (names[i].sim == sim && strcmp(names[i].where, where) == 0)
			names[i].sim = NULL;
	for (unsigned i = 0; catalogs && i < ARRAY_COUNT(names); i++)
		if (!names[i].sim) {
			names[i] = (struct named){ sim, where, catalogs };
			return;
		}
}

void catalog_url_forget(struct sim *sim)
{
	for (unsigned i = 0; i < ARRAY_COUNT(names); i++)
		if (names[i].sim == sim)
			names[i].sim = NULL;
}

static struct catalog_sim *find(struct env *env, const char *where)
{
	for (unsigned i = 0; i < ARRAY_COUNT(names); i++)
		if (names[i].sim == sim_of(env) && strcmp(names[i].where, where) == 0)
			return names[i].catalogs;
	return NULL;
}

int __wrap_catalog_etcd_open(struct env *env, const char *addresses, const struct catalog_access *access, bool create, struct catalog_want *also, unsigned count,
			     struct catalog **ret_catalog, struct report *report);
int __wrap_catalog_etcd_open(struct env *env, const char *addresses, const struct catalog_access *access, bool create, struct catalog_want *also, unsigned count,
			     struct catalog **ret_catalog, struct report *report)
{
	struct catalog_sim *s = find(env, addresses);
	(void)access, (void)create;
	if (!s)
		return report_set(report, -ENOTCONN, "catalog etcd:%s: nobody is there", addresses);
	struct catalog *c = catalog_sim_open(s, env);
	int r = count ? catalog_get_many(c, also, count) : 0;
	if (r < 0) {
		catalog_close(c);
		return report_set(report, r, "catalog etcd:%s: it doesn't answer", addresses);
	}
	*ret_catalog = c;
	return 0;
}

/* The file is only there for those who look whether it is. */
int __wrap_catalog_sqlite_open(struct env *env, const char *path, bool create, struct catalog **ret_catalog, struct report *report);
int __wrap_catalog_sqlite_open(struct env *env, const char *path, bool create, struct catalog **ret_catalog, struct report *report)
{
	struct catalog_sim *s = find(env, path);
	struct file *f;
	int r = s ? file_open(env, path, FILE_OPEN_WRITE | (create ? FILE_OPEN_CREATE : 0), &f) : -ENOENT;
	if (r == 0) {
		r = file_write_wait(f, "catalog", 7, 0);
		file_close(env, f);
	}
	if (r < 0)
		return report_set(report, r, "catalog sqlite:%s: %s", path, r == -ENOENT ? "it isn't there" : "it can't be opened");
	*ret_catalog = catalog_sim_open(s, env);
	return 0;
}

/* Each etcd is asked by itself, and there is none. */
int __wrap_store_status_members(struct store *s, struct store_status *t, struct report *report);
int __wrap_store_status_members(struct store *s, struct store_status *t, struct report *report)
{
	(void)s, (void)t, (void)report;
	return 0;
}
