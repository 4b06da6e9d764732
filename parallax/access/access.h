/* Access control: who may take part in the cluster. The authority is a key and a certificate on one host (or on some);
 * a host that wants to take part leaves a request in the catalog, signed with a token (or, to renew, with the certificate
 * it has), and the authority's agent leaves the answer there. So nobody listens for strangers, and no key travels.
 *
 *     joining host                          catalog                         the authority's agent
 *     key, request ──signed──▶ access/request/ID ──watched──▶ token there, not expired, not used for this role?
 *     check, write the file ◀── access/answer/ID ◀── one transaction: token used, answer put, request gone
 *
 * The catalog holds no secret: of a token it has a public key, signed by the authority. Who can write the catalog can keep others out, but let nobody
 * in who had no token; nor a revoked one where an agent or a server has seen that he is, for each remembers it. */
#ifndef AQ_ACCESS_H
#define AQ_ACCESS_H
#include "parallax/catalog/catalog.h"
#include "proto/certificate.h"

#define ACCESS_TOKEN_TTL_S UINT64_C(3600)
#define ACCESS_TOKEN_TTL_MAX_S (UINT64_C(30) * 86400)
#define ACCESS_WAIT_NS (30 * NS_PER_S)         /* for an answer */
#define ACCESS_FORGET_S UINT64_C(600)          /* requests and answers are taken away after that */
#define ACCESS_RENEW_S (UINT64_C(60) * 86400)  /* before it runs out, a certificate is renewed */
#define ACCESS_WARN_S (UINT64_C(30) * 86400)   /* and if that didn't work, people are told */
enum {
	ACCESS_TOKEN_BYTES = 128, /* of a token's text, with its NUL */
	ACCESS_PEM_MAX = 8192,
	ACCESS_QUESTION_MAX = 16384,
	ACCESS_PASS_MAX = 256,    /* requests looked at at a time */
};
#define ACCESS_REQUESTS "access/request/"
#define ACCESS_TOKENS "access/token/"
#define ACCESS_REVOKED "access/revoked/"

/* ---- codecs (access_wire.c): bytes and texts to structs ---- */

/* A token's text is "aquifer1." and base64url of: id, roles, seed, SHA-256 of the authority's certificate, CRC32C of all that. */
struct access_token {
	uint64_t id;
	unsigned roles;
	uint8_t seed[32];
	uint8_t authority[CERTIFICATE_PRINT_BYTES];
};
void access_token_print(const struct access_token *t, char ret[ACCESS_TOKEN_BYTES]);
int access_token_parse(const char *text, struct access_token *ret); /* -EINVAL */
/* The same; -EPROTONOSUPPORT: of a newer version. With a report. */
int access_token_read(const char *text, struct access_token *ret, struct report *report);

struct access_question {
	enum identity_role role;
	char host[IDENTITY_HOST_BYTES];
	uint8_t request[CERTIFICATE_REQUEST_MAX];
	size_t request_length;
	uint64_t token;
	char certificate[ACCESS_PEM_MAX]; /* "" with a token */
	/* as it was signed */
	uint8_t signed_bytes[ACCESS_QUESTION_MAX];
	size_t signed_length;
	uint8_t signature[CERTIFICATE_SIGNATURE_MAX];
	size_t signature_length;
	uint64_t asked_s;
};
/* Packs what is to be signed into signed_bytes. 0 or -EMSGSIZE. */
int access_question_pack(struct access_question *q);
/* The value of access/request/ID, malloc'd; NULL: no memory. */
uint8_t *access_request_encode(const struct access_question *q, size_t *ret_length);
int access_request_decode(const void *bytes, size_t length, struct access_question *ret); /* -EBADMSG; everything within its limits */

/* ---- the authority (access_authority.c) ---- */

/* FIBER. Makes the authority's key and certificate on this host, unless they are there, and notes the certificate in the catalog.
 * -EEXIST: the catalog names another one. */
int access_authority_make(struct catalog *c, const char *root, struct report *report);
/* FIBER. -ENOENT with a report: it isn't on this host, and `cure` helps; or there is none yet. */
int access_not_here(struct catalog *c, const char *cure, struct report *report);
/* FIBER. Is it on this host? */
bool access_authority_here(struct env *env, const char *root);
/* FIBER. A token for each of `roles` once, for `host` (NULL: any). -ENOENT: the authority isn't on this host. */
int access_token_new(struct catalog *c, const char *root, unsigned roles, const char *host, uint64_t ttl_s, char ret_text[ACCESS_TOKEN_BYTES],
		     struct report *report);
/* FIBER. Answers the requests that are there; `tidy`: and takes away what is past its time. `said` is told of each answer. 0 or -errno of
 * the catalog. */
int access_serve(struct catalog *c, const char *root, bool tidy, void (*said)(void *arg, const char *line), void *arg, struct report *report);
/* May it have a certificate, and why not? Codec and signatures only: `token` NULL if there is none. */
struct access_token_record {
	uint8_t key[32];
	unsigned roles, granted;
	uint64_t expires_s;
	char host[IDENTITY_HOST_BYTES];
	uint8_t signature[CERTIFICATE_SIGNATURE_MAX];
	size_t signature_length;
};
/* Signed by the authority, so that who can write the catalog can't make tokens. */
enum { ACCESS_RECORD_MAX = 160 };
size_t access_token_record_signed(const struct access_token_record *t, uint8_t ret[ACCESS_RECORD_MAX]); /* what is signed; its length */
int access_token_record_sign(struct access_token_record *t, const char *authority_key);
uint8_t *access_token_record_encode(const struct access_token_record *t, size_t *ret_length); /* malloc'd; NULL: no memory */
int access_question_check(const struct access_question *q, const struct access_token_record *token, const char *authority, uint64_t now_s,
			  struct report *report);
int access_token_record_decode(const void *bytes, size_t length, struct access_token_record *ret);
/* ---- hosts (access_hosts.c) ---- */

struct access_issued {
	char host[IDENTITY_HOST_BYTES];
	enum identity_role role;
	uint64_t expires_s; /* since 1970 */
};
/* Notes until when the host's certificate is good: in a transaction (the bytes are freed by the caller when it is over; NULL: no memory),
 * or by itself (FIBER). */
uint8_t *access_issued_put(struct catalog_txn *t, enum identity_role role, const char *host, uint64_t expires_s, char ret_key[CATALOG_KEY_MAX + 1]);
int access_issued_note(struct catalog *c, enum identity_role role, const char *host, uint64_t expires_s);
int access_issued_list(struct catalog *c, int (*entry)(void *arg, const struct access_issued *issued), void *arg); /* FIBER */
/* Should somebody do something about it? */
bool access_issued_warns(const struct access_issued *i, uint64_t now_s, char *ret_text, size_t bytes);
/* FIBER. Has anything been heard of a host of that name? A certificate, also one that was revoked, a token for it by name, an agent or a server. 0: it hasn't;
 * 1; or -errno of the catalog. */
int access_heard_of(struct catalog *c, const char *host);
/* FIBER. From now on certificates of the host count no more, until it has new ones. */
int access_revoke(struct catalog *c, const char *host, struct report *report);
/* FIBER. The list as the catalog has it, malloc'd. */
int access_revoked(struct catalog *c, struct identity_revoked **ret, size_t *ret_count);
/* FIBER. … and what this host has seen of it before (access_revoked.c). With `keep` it is remembered from now on, and what the catalog lacks is put there
 * again: what agents and servers do. */
int access_revoked_known(struct catalog *c, const char *root, bool keep, struct identity_revoked **ret, size_t *ret_count);

/* ---- taking part (access_join.c) ---- */

/* FIBER. Gets a certificate for this host (config_host()) in that role and writes it down: with a token; without one (NULL) where the
 * authority is. -ETIMEDOUT: nobody answered. */
int access_join(struct catalog *c, const char *root, const char *token, enum identity_role role, struct report *report);
/* FIBER. A new one for the one it has, which must count still. */
int access_renew(struct catalog *c, const char *root, enum identity_role role, struct report *report);

/* ---- files (access_files.c): ROOT/etc/aquifer/tls/ ---- */

/* FIBER. env->identity becomes what is written there for the role, if it isn't already. -ENOENT: nothing is, nothing changed. Whoever
 * destroys the env puts env->identity. */
int access_load(struct env *env, const char *root, enum identity_role role, struct report *report);
/* FIBER. Texts, malloc'd; `which`: "authority.crt", "authority.key", "agent.pem", "server.pem". -ENOENT without a report. */
int access_read(struct env *env, const char *root, const char *which, char **ret_text, struct report *report);
/* FIBER. Whole or not at all, durable, mode 0600. */
int access_write(struct env *env, const char *root, const char *which, const char *text, struct report *report);
const char *access_file(enum identity_role role);

/* Keeps env->identity as the files and the catalog say, looking every ACCESS_KEEP_NS; with `changed` also when somebody was revoked, which is then remembered. */
#define ACCESS_KEEP_NS (10 * NS_PER_S)
struct access_keeper;
/* FIBER. Looks once before it returns. `changed` (may be NULL) is told each time the list of the revoked was read. NULL: no memory. */
struct access_keeper *access_keeper_start(struct catalog *c, const char *root, enum identity_role role, void (*changed)(void *arg), void *arg);
void access_keeper_stop(struct access_keeper *k); /* FIBER; accepts NULL; the catalog is open still */
#endif
