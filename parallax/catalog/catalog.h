/* The catalog: a small ordered map with revisions and compare-and-swap transactions, the
 * common ground of SQLite (embedded) and etcd (cluster). A few KiB per volume, nothing per
 * write. All calls are FIBER. Keys are printable ASCII of at most 255 bytes, values at most 256 KiB. */
#ifndef AQ_CATALOG_H
#define AQ_CATALOG_H
#include <errno.h>
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
	uint64_t lease;     /* put: gone when that lease is; 0: stays */
};

/* A key that is to be read, and what it is. */
struct catalog_want {
	const char *key;
	struct catalog_value value; /* all zero: absent */
};

/* How many keys there are with a prefix. */
struct catalog_tally {
	const char *prefix;
	uint64_t count;
};

struct catalog_txn {
	struct catalog_compare compare[CATALOG_TXN_MAX];
	unsigned compare_count;
	struct catalog_change change[CATALOG_TXN_MAX];
	unsigned change_count;
};

struct catalog;
struct catalog_lease;
struct catalog_watch;
struct fiber_cond;
/* A key that changed, with its value; NULL: it was deleted. */
typedef void catalog_seen(void *arg, const char *key, const struct catalog_value *value);
struct catalog_ops {
	int (*txn)(struct catalog *c, const struct catalog_txn *t, uint64_t *ret_revision);
	int (*get)(struct catalog *c, const char *key, struct catalog_value *ret_value);
	int (*get_many)(struct catalog *c, struct catalog_want *wants, unsigned count);
	int (*count)(struct catalog *c, struct catalog_tally *tallies, unsigned count);
	int (*list)(struct catalog *c, const char *prefix,
		    int (*entry)(void *arg, const char *key, const struct catalog_value *value), void *arg);
	void (*close)(struct catalog *c);
	int (*lease)(struct catalog *c, unsigned ttl_s, const char *key, struct catalog_lease **ret_lease); /* NULL: no leases */
	void (*lease_end)(struct catalog_lease *l);
	/* NULL: by polling. `how`: to be copied into what is returned */
	int (*watch)(struct catalog *c, const char *prefix, const struct catalog_watch *how, struct catalog_watch **ret_watch);
	void (*watch_end)(struct catalog_watch *w);
	/* Puts that key, or deletes it (`text` NULL): from then on who has the catalog open, but for `c`, finds another store there, and again its own.
	 * Until it is known. NULL: nobody has it open for long who isn't looked for. */
	int (*set_aside)(struct catalog *c, const char *key, const char *text);
};
/* What an engine's own lease and watch begin with. */
struct catalog_lease {
	struct catalog *catalog;
	uint64_t id;        /* 0: it has run out */
};
struct catalog_watch {
	struct catalog *catalog;
	struct fiber_cond *changed;
	catalog_seen *seen; /* may be NULL */
	void *arg;
};
struct catalog {
	const struct catalog_ops *ops;
	struct env *env;
	char why[256];      /* why the last call failed, one clause for people; "": nothing to add to its status */
};

/* Applies all changes if all compares hold, atomically and durably. 0; -EAGAIN: a compare failed, nothing
 * changed; -ETIMEDOUT: the outcome is unknown (R4: repeat the same until it is known); other: certainly not applied. Those
 * of catalog_away() may be different later. */
static inline int catalog_txn(struct catalog *c, const struct catalog_txn *t, uint64_t *ret_revision)
{
	return c->ops->txn(c, t, ret_revision);
}
/* -ENOENT if absent (then ret_value is all zero). */
static inline int catalog_get(struct catalog *c, const char *key, struct catalog_value *ret_value)
{
	return c->ops->get(c, key, ret_value);
}
/* FIBER. At most CATALOG_TXN_MAX keys, of small records, as they are at one instant; in one round trip. 0: also where some are absent, and the values are
 * the caller's (catalog_wants_free()); else none was read. */
static inline int catalog_get_many(struct catalog *c, struct catalog_want *wants, unsigned count)
{
	return c->ops->get_many(c, wants, count);
}
void catalog_wants_free(struct catalog_want *wants, unsigned count);
/* FIBER. At most CATALOG_TXN_MAX prefixes, as they are at one instant, in one round trip; nothing is read of what the keys say. 0: all are counted; else none. */
static inline int catalog_count(struct catalog *c, struct catalog_tally *tallies, unsigned count)
{
	return c->ops->count(c, tallies, count);
}
/* In key order, from one consistent state. A non-zero result of `entry` ends and is returned. */
static inline int catalog_list(struct catalog *c, const char *prefix,
			       int (*entry)(void *arg, const char *key, const struct catalog_value *value), void *arg)
{
	return c->ops->list(c, prefix, entry, arg);
}
/* FIBER. Is that still the revision of its last change? 1, 0 or -errno. For values that are large and change seldom, where a look takes a round trip. */
int catalog_same(struct catalog *c, const char *key, uint64_t revision);
int catalog_any(struct catalog *c, const char *prefix); /* FIBER. 1: there is a key with that prefix; 0: none; -errno: not known */
/* Nothing was changed or learnt, and it may be better later: nobody can be asked (-ENOTCONN) or answers in time, somebody else
 * writes for long (-EBUSY), the engine's quota is used up (-EDQUOT), the user's rights are gone (-EACCES). */
static inline bool catalog_away(int status)
{
	return status == -ENOTCONN || status == -ETIMEDOUT || status == -EBUSY || status == -EDQUOT || status == -EACCES;
}
/* What a status means, for people. Borrowed until the next call. */
const char *catalog_text(const struct catalog *c, int status);
void catalog_value_free(struct catalog_value *v);
void catalog_close(struct catalog *c); /* accepts NULL */

void catalog_txn_init(struct catalog_txn *t);
void catalog_txn_compare(struct catalog_txn *t, const char *key, uint64_t revision);
void catalog_txn_put(struct catalog_txn *t, const char *key, const void *bytes, size_t length);
void catalog_txn_delete(struct catalog_txn *t, const char *key);

/* One key, if it still has that revision (0: is absent): as catalog_txn(). -ENOMEM also if `bytes` is NULL, as encoders return it. */
int catalog_put_at(struct catalog *c, const char *key, uint64_t revision, const void *bytes, size_t length);
int catalog_delete_at(struct catalog *c, const char *key, uint64_t revision);

/* Takes `count` numbers from the counter at `key`, all greater than `above`: first .. first + count - 1. */
int catalog_counter_take(struct catalog *c, const char *key, uint64_t above, uint64_t count, uint64_t *ret_first);

/* ---- leases: keys that end with who put them; for politeness only, safety never depends on them ---- */

/* FIBER. A lease that lasts `ttl_s` seconds beyond its last heartbeat, which is sent in the background until catalog_lease_end().
 * `key` (may be NULL; copied) is put with it, and again if it has run out in spite of the heartbeats, after an outage.
 * -ENOTSUP: the engine has none (SQLite: there a holder's lock tells whether it lives). */
int catalog_lease(struct catalog *c, unsigned ttl_s, const char *key, struct catalog_lease **ret_lease);
/* How often. */
static inline uint64_t catalog_lease_beat_ns(unsigned ttl_s) { return ttl_s > 1 ? (uint64_t)ttl_s * NS_PER_S / 3 : NS_PER_S / 2; }
/* For catalog_change.lease; 0 while it has run out, with all its keys. */
uint64_t catalog_lease_id(const struct catalog_lease *l);
void catalog_lease_end(struct catalog_lease *l); /* FIBER; accepts NULL. Its keys go now, or when it runs out. */
/* In the last change added to `t`. */
void catalog_txn_lease(struct catalog_txn *t, const struct catalog_lease *l);
/* FIBER, for engines: `key`, empty, is the lease's from now on, and what an earlier attempt with another lease sent takes it away no more, should it arrive
 * only now. As catalog_txn(); -ENOENT: the lease has run out. */
int catalog_lease_put(struct catalog_lease *l, const char *key);

/* ---- watches: hints ---- */

/* FIBER. Wakes `changed` soon after a key with that prefix has changed, and now and then without reason; after trouble it may be late,
 * so look also by yourself now and then. SQLite: wakes every second. */
int catalog_watch(struct catalog *c, const char *prefix, struct fiber_cond *changed, struct catalog_watch **ret_watch);
/* The same, and before that calls `seen` for what has changed, where the engine says so: also a hint, which may be late or missing, but what it tells has been
 * so at that revision. All changes of one transaction have one revision, and come together. */
int catalog_watch_seen(struct catalog *c, const char *prefix, struct fiber_cond *changed, catalog_seen *seen, void *arg, struct catalog_watch **ret_watch);
void catalog_watch_end(struct catalog_watch *w); /* FIBER; accepts NULL */

/* ---- opening ---- */

/* Who we are to etcd; all may be NULL. PEM texts. */
struct catalog_access {
	const char *authorities, *certificate, *key;
	const char *user, *password; /* both or none */
	const char *root;            /* where that was read (catalog_access_load()), and is read again when etcd doesn't let us in any more */
	bool configured;             /* the URL is from there as well: its members may have other addresses then */
};
/* "sqlite:PATH" or "etcd:http[s]://HOST:PORT[,HOST:PORT…]". 0 or -errno with a report (corrupt, newer version, not writable, moved away …).
 * Creates it unless `create` is false. `access` may be NULL. */
int catalog_open(struct env *env, const char *url, const struct catalog_access *access, bool create, struct catalog **ret_catalog,
		 struct report *report);
/* The same, but also of a catalog that was moved away or is being filled: see catalog_copy.h. */
int catalog_open_any(struct env *env, const char *url, const struct catalog_access *access, bool create, struct catalog **ret_catalog,
		     struct report *report);
/* A store is made by the first use of its catalog: of a file, but never in etcd, where an empty one may be one that was lost. */
bool catalog_is_file(const char *url);
/* Is it one of those forms? 0 or -EINVAL with a report. Nobody is asked. */
int catalog_url_check(const char *url, struct report *report);
#endif
