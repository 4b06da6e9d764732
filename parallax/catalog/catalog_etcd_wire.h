/* etcd's JSON gateway, bytes only: addresses, requests, answers. What an answer can make us allocate is limited: its length by
 * who reads it, its values and nesting here, before it is parsed. In etcd all keys of ours are below aquifer/:
 *
 *   aquifer/format    the layout's version, in decimal digits
 *   aquifer/id        of this store, made with it: 32 hex digits
 *   aquifer/kv/KEY    the catalog's keys
 *
 * Whoever has opened the store compares its id in each transaction, and reads in transactions: an etcd that was emptied, restored or
 * replaced meanwhile has another one, or none. Then revisions, which begin anew, would mean nothing.
 *
 * All functions that return char * give malloc'd text, NULL if out of memory. */
#ifndef AQ_CATALOG_ETCD_WIRE_H
#define AQ_CATALOG_ETCD_WIRE_H
#include "parallax/catalog/catalog.h"

#define ETCD_PREFIX "aquifer/kv/"
#define ETCD_FORMAT_KEY "aquifer/format"
#define ETCD_FORMAT 1
#define ETCD_ID_KEY "aquifer/id"

enum {
	ETCD_ENDPOINTS_MAX = 16, ETCD_URL_BYTES = 288, ETCD_KEY_BYTES = 300,
	ETCD_PAGE = 1000,            /* keys asked for at once, at most: etcd counts all that are left for each page */
	ETCD_LIST_ITEMS_MAX = 1 << 20, /* of a list, all pages together */
	ETCD_VALUES_MAX = 16384,     /* JSON values in an answer, at most: a page has some 8 for each key */
	ETCD_DEPTH_MAX = 16,
	ETCD_WHY_BYTES = 192, ETCD_TOKEN_BYTES = 4096,
	ETCD_ID_BYTES = 33,
};

#define ETCD_LIST_BYTES_MAX ((size_t)256 << 20) /* values, likewise */

struct etcd_endpoints {
	char url[ETCD_ENDPOINTS_MAX][ETCD_URL_BYTES]; /* "https://host:2379" */
	unsigned count;
	bool tls;
};
/* "http[s]://HOST:PORT[,HOST:PORT…]". 0, or -EINVAL with what is wrong. */
int etcd_endpoints_parse(const char *text, struct etcd_endpoints *ret, struct report *report);

/* ---- requests; `id` (NULL: any): what the store's must be ---- */

char *etcd_txn_request(const char *prefix, const struct catalog_txn *t, const char *id);
/* Keys from `key` on, to those that begin with `key` (prefix) or itself alone; at most `limit` (0: all). `after`: beyond that
 * key, NULL: from the beginning. `revision` 0: as of now. With an id it is for /v3/kv/txn, without for /v3/kv/range. */
char *etcd_range_request(const char *prefix, const char *key, bool all_below, const char *after, unsigned limit, uint64_t revision, const char *id);
/* The keys of `wants`, of one revision; for /v3/kv/txn. */
char *etcd_gets_request(const char *prefix, const struct catalog_want *wants, unsigned count, const char *id);
/* How many keys there are with each of these prefixes, of one revision; for /v3/kv/txn. */
char *etcd_counts_request(const char *prefix, const struct catalog_tally *tallies, unsigned count, const char *id);
char *etcd_login_request(const char *user, const char *password);
char *etcd_lease_request(uint64_t id, uint64_t ttl_s); /* id 0: grant; ttl_s 0: of the lease `id` */
char *etcd_watch_request(const char *prefix, const char *key);

/* ---- answers; -EBADMSG: it isn't one; -EREMCHG: the store's id is not `id` (that of the request) but ret_other ("": it has none) ---- */

struct etcd_item {
	char key[CATALOG_KEY_MAX + 1]; /* without the prefix */
	struct catalog_value value;
};
struct etcd_range {
	uint64_t revision; /* of the whole store, then */
	bool more;
	struct etcd_item *items; /* in order */
	size_t count;
};
int etcd_range_answer(const void *bytes, size_t length, const char *prefix, const char *id, struct etcd_range *ret, char ret_other[ETCD_ID_BYTES]);
/* Fills the values of all `wants`, or none. */
int etcd_gets_answer(const void *bytes, size_t length, const char *prefix, const char *id, struct catalog_want *wants, unsigned count, char ret_other[ETCD_ID_BYTES]);
int etcd_counts_answer(const void *bytes, size_t length, const char *id, struct catalog_tally *tallies, unsigned count, char ret_other[ETCD_ID_BYTES]);
void etcd_range_free(struct etcd_range *r);
int etcd_txn_answer(const void *bytes, size_t length, const char *id, bool *ret_succeeded, uint64_t *ret_revision, char ret_other[ETCD_ID_BYTES]);
int etcd_login_answer(const void *bytes, size_t length, char ret_token[ETCD_TOKEN_BYTES]);
/* A line of a watch's answer: tells of each change in it. What makes no sense is passed over: it is a hint, and the rest of the answer tells what is wrong.
 * `seen` may be NULL. True: nothing will come any more, although the answer doesn't end: it was canceled, as for want of permission. */
bool etcd_watch_answer(const void *bytes, size_t length, const char *prefix, catalog_seen *seen, void *arg);
/* Of a grant or a keepalive. `ret_ttl_s` 0: the lease is gone. */
int etcd_lease_answer(const void *bytes, size_t length, uint64_t *ret_id, uint64_t *ret_ttl_s);
/* What an answer that isn't 200 means, with its words cleaned for people:
 *
 *   -EKEYREJECTED log in (again)    -EACCES no permission, wrong password   -EDQUOT out of quota
 *   -ESTALE compacted               -E2BIG too large for this etcd          -EBUSY overloaded       -EPROTO refused otherwise
 *   -ENOENT a lease that is gone    -ETIMEDOUT nobody knows: no leader, a leader that changed, too slow, and all that is unknown
 *
 * All but the last: certainly not carried out. */
int etcd_error_answer(unsigned http_status, const void *bytes, size_t length, char ret_why[ETCD_WHY_BYTES]);
#endif
