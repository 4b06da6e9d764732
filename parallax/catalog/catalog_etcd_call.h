/* Calls to an etcd cluster: which of its addresses, logged in, and what can be known of the outcome.
 *
 * An address that can't be reached, or doesn't answer, is left for the next one, which later calls begin with. Where none lets us in, who we are is read again:
 * passwords and certificates are changed while devices are in use. */
#ifndef AQ_CATALOG_ETCD_CALL_H
#define AQ_CATALOG_ETCD_CALL_H
#include "core/fiber.h"
#include "parallax/catalog/catalog_etcd_wire.h"

#define ETCD_CONNECT_NS (2 * NS_PER_S)
#define ETCD_ANSWER_NS (5 * NS_PER_S)
#define ETCD_REPLY_MAX ((size_t)4 << 20)

struct etcd {
	struct catalog catalog;
	struct etcd_endpoints at;
	char id[ETCD_ID_BYTES];    /* of the store that was opened; "": it has none yet, and none is compared */
	unsigned current;          /* the address that answered last */
	struct http_client *http;
	struct http_client *beat;  /* of leases: connections of its own; NULL until there is one */
	struct catalog_access access; /* owned */
	uint64_t access_ns;        /* when it was read */
	unsigned accesses;         /* grows when it is another */
	bool out_of_quota;         /* so it said last */
	char login[ETCD_TOKEN_BYTES + 32]; /* "Authorization: TOKEN"; "": not logged in */
	struct fiber_mutex logging_in;
	struct link lives;         /* leases and watches: catalog_etcd_live.c */
};
static inline struct http_tls etcd_tls(const struct catalog_access *a) { return (struct http_tls){ a->authorities, a->certificate, a->key }; }
static inline struct etcd *etcd_of(struct catalog *c) { return container_of(c, struct etcd, catalog); }

struct etcd_call {
	const char *path;          /* "/v3/kv/txn" */
	char *request;             /* freed by etcd_call(); NULL is -ENOMEM */
	size_t answer_max;
	bool change;               /* not to be tried again where it may have arrived */
	struct http_client *client;/* NULL: the usual one */
	uint8_t *answer;           /* malloc'd, the caller's, when 0 is returned */
	size_t answer_length;
};
/* FIBER. 0: an answer 200. -ENOTCONN: certainly not carried out, nobody can be asked now. -ETIMEDOUT: no answer, perhaps carried
 * out. -EMSGSIZE: the answer is too long. Others as etcd_error_answer(). The catalog's `why` says more. */
int etcd_call(struct etcd *e, struct etcd_call *call);
/* Which address is asked first: one that is this host's own, by its number, is the nearest, and can be reached when the network can't; else any, so that
 * not everybody asks the same one. */
unsigned etcd_first(struct env *env, const struct etcd_endpoints *at);
/* FIBER. Logs in at the address `which`, if there is a user and no token. */
int etcd_login(struct etcd *e, unsigned which);
/* Headers of each request. */
void etcd_headers(const struct etcd *e, const char *ret_headers[3]);
/* catalog_etcd_live.c */
int etcd_lease(struct catalog *c, unsigned ttl_s, const char *key, struct catalog_lease **ret_lease);
void etcd_lease_end(struct catalog_lease *l);
int etcd_watch(struct catalog *c, const char *prefix, const struct catalog_watch *how, struct catalog_watch **ret_watch);
void etcd_watch_end(struct catalog_watch *w);
#endif
