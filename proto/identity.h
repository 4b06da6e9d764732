/* Who a process is to others, and who they may be: its certificate and key, the cluster's
 * authorities, and the hosts whose certificates count no more. A certificate names a role and a
 * host in a URI: aquifer:ROLE/HOST.
 *
 * An env has one identity at most, in env->identity: every connection to a "tls:" address and every
 * server that asks for certificates uses that. It may be replaced at any time; connections keep the one they began with. */
#ifndef AQ_IDENTITY_H
#define AQ_IDENTITY_H
#include <openssl/ssl.h>

#include "core/env.h"
#include "core/report.h"

/* Bits: a set says who may be at the other end. */
enum identity_role { ROLE_AGENT = 1, ROLE_SERVER = 2, ROLE_ANY = 3 };
enum {
	IDENTITY_HOST_BYTES = 64,
	IDENTITY_REVOKED_MAX = 4096,
	IDENTITY_SKEW_S = 3600,        /* certificates are valid so long before they were made: clocks differ */
	IDENTITY_RECORD_BYTES = 16384, /* what one record of TLS carries */
};

struct identity_name {
	enum identity_role role;
	char host[IDENTITY_HOST_BYTES];
	uint64_t issued_s, expires_s;  /* since 1970 */
};

/* Certificates of `host` made until then count no more. */
struct identity_revoked {
	char host[IDENTITY_HOST_BYTES];
	uint64_t until_s;
};

struct identity {
	struct identity_name name;     /* ours */
	uint32_t trusts;               /* CRC of the authorities' text: to see whether it is another */
	/* private */
	unsigned references;
	SSL_CTX *context;
	BIO_METHOD *bio;
	struct identity_revoked *revoked;
	size_t revoked_count;
	uint8_t stage[IDENTITY_RECORD_BYTES]; /* where the next record is gathered; never kept across a suspension */
};

/* PEM texts; authorities may be several certificates. */
struct identity_pem {
	const char *authorities, *certificate, *key;
};
/* 0 with one reference, or -errno with a report. */
int identity_create(const struct identity_pem *pem, struct identity **ret, struct report *report);
struct identity *identity_get(struct identity *i);
void identity_put(struct identity *i); /* accepts NULL */

/* Copies the list. 0 or -ENOMEM; -E2BIG beyond IDENTITY_REVOKED_MAX. */
int identity_revoke(struct identity *i, const struct identity_revoked *list, size_t count);
bool identity_is_revoked(const struct identity *i, const struct identity_name *name);

const char *identity_role_name(enum identity_role role); /* "agent", "server" */
/* 0 if the word is no role. */
enum identity_role identity_role_of(const char *word);
/* What a certificate says. 0 or -EBADMSG. */
int identity_of(const X509 *certificate, struct identity_name *ret);
/* The first certificate of a PEM text; the caller's. NULL: there is none. */
X509 *identity_certificate(const char *pem);
#endif
