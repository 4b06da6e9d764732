#include "parallax/catalog.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/catalog_sqlite.h"

void catalog_value_free(struct catalog_value *v)
{
	free(v->bytes);
	*v = (struct catalog_value){ 0 };
}

void catalog_close(struct catalog *c)
{
	if (c)
		c->ops->close(c);
}

void catalog_txn_init(struct catalog_txn *t)
{
	t->compare_count = t->change_count = 0;
}

void catalog_txn_compare(struct catalog_txn *t, const char *key, uint64_t revision)
{
	assert(t->compare_count < CATALOG_TXN_MAX);
	t->compare[t->compare_count++] = (struct catalog_compare){ key, revision };
}

void catalog_txn_put(struct catalog_txn *t, const char *key, const void *bytes, size_t length)
{
	assert(t->change_count < CATALOG_TXN_MAX && length <= CATALOG_VALUE_MAX && bytes);
	t->change[t->change_count++] = (struct catalog_change){ key, bytes, length };
}

void catalog_txn_delete(struct catalog_txn *t, const char *key)
{
	assert(t->change_count < CATALOG_TXN_MAX);
	t->change[t->change_count++] = (struct catalog_change){ key, NULL, 0 };
}

/* An unknown outcome is harmless here: at worst a range of numbers is never used. */
int catalog_counter_take(struct catalog *c, const char *key, uint64_t above, uint64_t count, uint64_t *ret_first)
{
	for (unsigned attempt = 0; attempt < 1000; attempt++) {
		struct catalog_value v;
		int r = catalog_get(c, key, &v);
		if (r < 0 && r != -ENOENT)
			return r;
		bool damaged = r == 0 && v.length != 8;
		uint64_t last = r == 0 && !damaged ? get_le64(v.bytes) : 0, revision = v.revision;
		catalog_value_free(&v);
		if (damaged)
			return -EUCLEAN; /* a number given twice would be the end of somebody's data */
		uint64_t first = MAX(last, above) + 1;
		uint8_t next[8];
		put_le64(next, first + count - 1);
		struct catalog_txn t;
		catalog_txn_init(&t);
		catalog_txn_compare(&t, key, revision);
		catalog_txn_put(&t, key, next, sizeof next);
		r = catalog_txn(c, &t, NULL);
		if (r == 0) {
			*ret_first = first;
			return 0;
		}
		if (r != -EAGAIN && r != -ETIMEDOUT)
			return r;
		fiber_sleep(&c->env->loop, (attempt < 10 ? 1 : 20) * NS_PER_MS);
	}
	return -ETIMEDOUT;
}

int catalog_open(struct env *env, const char *url, bool create, struct catalog **ret_catalog, struct report *report)
{
	if (strncmp(url, "sqlite:", 7) == 0 && url[7])
		return catalog_sqlite_open(env, url + 7, create, ret_catalog, report);
	if (strncmp(url, "etcd:", 5) == 0)
		return report_set(report, -ENOTSUP, "catalog '%s': this version has no etcd catalog (give sqlite:PATH)", url);
	return report_set(report, -EINVAL, "catalog '%s' is not a catalog URL (give sqlite:PATH)", url);
}
