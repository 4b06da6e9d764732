/* The catalog: a small ordered map with revisions and compare-and-swap transactions, the
 * common ground of SQLite (embedded) and etcd (cluster). A few KiB per volume, nothing per
 * write. All calls are FIBER. Keys are printable ASCII of at most 255 bytes, values at most 256 KiB. */
#ifndef AQ_CATALOG_H
#define AQ_CATALOG_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/env.h"

enum { CATALOG_TXN_MAX = 100, CATALOG_VALUE_MAX = 256 << 10, CATALOG_KEY_MAX = 255 };

struct catalog_value {
	uint8_t *bytes;     /* malloc'd, the caller's; NULL if absent */
	size_t length;
	uint64_t revision;  /* of its last change; 0: absent */
};

struct catalog_compare {
	const char *key;
	uint64_t revision;  /* must be its revision; 0: must be absent */
};

struct catalog_change {
	const char *key;
	const void *bytes;  /* NULL: delete */
	size_t length;
};

struct catalog_txn {
	struct catalog_compare compare[CATALOG_TXN_MAX];
	unsigned compare_count;
	struct catalog_change change[CATALOG_TXN_MAX];
	unsigned change_count;
};

struct catalog;
struct catalog_ops {
	int (*txn)(struct catalog *c, const struct catalog_txn *t, uint64_t *ret_revision);
	int (*get)(struct catalog *c, const char *key, struct catalog_value *ret_value);
	int (*list)(struct catalog *c, const char *prefix,
		    int (*entry)(void *arg, const char *key, const struct catalog_value *value), void *arg);
	void (*close)(struct catalog *c);
};
struct catalog {
	const struct catalog_ops *ops;
	struct env *env;
};

/* Applies all changes if all compares hold, atomically and durably. 0; -EAGAIN: a compare failed, nothing
 * changed; -ETIMEDOUT: the outcome is unknown (R4: repeat the same until it is known); other: certainly not applied. */
static inline int catalog_txn(struct catalog *c, const struct catalog_txn *t, uint64_t *ret_revision)
{
	return c->ops->txn(c, t, ret_revision);
}
/* -ENOENT if absent (then ret_value is all zero). */
static inline int catalog_get(struct catalog *c, const char *key, struct catalog_value *ret_value)
{
	return c->ops->get(c, key, ret_value);
}
/* In key order, from one consistent state. A non-zero result of `entry` ends and is returned. */
static inline int catalog_list(struct catalog *c, const char *prefix,
			       int (*entry)(void *arg, const char *key, const struct catalog_value *value), void *arg)
{
	return c->ops->list(c, prefix, entry, arg);
}
void catalog_value_free(struct catalog_value *v);
void catalog_close(struct catalog *c); /* accepts NULL */

void catalog_txn_init(struct catalog_txn *t);
void catalog_txn_compare(struct catalog_txn *t, const char *key, uint64_t revision);
void catalog_txn_put(struct catalog_txn *t, const char *key, const void *bytes, size_t length);
void catalog_txn_delete(struct catalog_txn *t, const char *key);

/* Takes `count` numbers from the counter at `key`, all greater than `above`: first .. first + count - 1. */
int catalog_counter_take(struct catalog *c, const char *key, uint64_t above, uint64_t count, uint64_t *ret_first);

/* "sqlite:PATH". 0 or -errno with a report (corrupt, newer version, not writable …). Creates it unless `create` is false. */
int catalog_open(struct env *env, const char *url, bool create, struct catalog **ret_catalog, struct report *report);
#endif
