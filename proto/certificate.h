/* Makes keys, requests, authorities and certificates: all that a cluster's certificate authority does. Texts in and
 * out, no files. Keys are P-256. PEM texts returned are malloc'd; wipe keys with certificate_wipe().
 * All return 0, or -errno with a report where there is one. */
#ifndef AQ_CERTIFICATE_H
#define AQ_CERTIFICATE_H
#include "proto/identity.h"

#define CERTIFICATE_LIFE_S (UINT64_C(365) * 86400)
#define AUTHORITY_LIFE_S (UINT64_C(3650) * 86400)
enum {
	CERTIFICATE_REQUEST_MAX = 4096,  /* bytes of a request, more isn't looked at */
	CERTIFICATE_PRINT_BYTES = 32,
	CERTIFICATE_SIGNATURE_MAX = 128,
};

int certificate_key(char **ret_key);
int certificate_authority(const char *key, const char *label, uint64_t now_s, char **ret_certificate);
/* PKCS #10, DER, malloc'd; it says nothing but the key, and proves that who asks has it. */
int certificate_request(const char *key, uint8_t **ret_request, size_t *ret_length);
/* A certificate for who asks, for so long. -EBADMSG: not a request of ours, whatever is wrong with it. */
int certificate_issue(const char *authority, const char *authority_key, const void *request, size_t length, enum identity_role role,
		      const char *host, uint64_t now_s, uint64_t life_s, char **ret_certificate, struct report *report);
/* Is it of that authority and valid now? Fills what it says. -EKEYREJECTED, -EBADMSG. */
int certificate_check(const char *certificate, const char *authority, uint64_t now_s, struct identity_name *ret);
/* SHA-256 of its DER. */
int certificate_print(const char *certificate, uint8_t ret[CERTIFICATE_PRINT_BYTES]);
/* By a key, and its check by the certificate. */
int certificate_sign(const char *key, const void *bytes, size_t length, uint8_t ret[CERTIFICATE_SIGNATURE_MAX], size_t *ret_length);
int certificate_verify(const char *certificate, const void *bytes, size_t length, const void *signature, size_t signature_length);
/* Ed25519, whose private key is any 32 bytes: what a token can carry. Signatures have 64 bytes. */
int certificate_seed_public(const uint8_t seed[32], uint8_t ret_public[32]);
int certificate_seed_sign(const uint8_t seed[32], const void *bytes, size_t length, uint8_t ret[64]);
int certificate_seed_verify(const uint8_t public[32], const void *bytes, size_t length, const uint8_t signature[64]);
/* Random bytes nobody can guess. */
int certificate_random(void *bytes, size_t length);
void certificate_wipe(char *text); /* and frees; accepts NULL */
#endif
