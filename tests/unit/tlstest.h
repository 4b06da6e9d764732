/* Authorities and identities for tests. */
#ifndef AQ_TLSTEST_H
#define AQ_TLSTEST_H
#include "proto/certificate.h"

struct tlstest_authority {
	char *key, *certificate;
};
void tlstest_authority(struct tlstest_authority *a, uint64_t now_s);
void tlstest_authority_free(struct tlstest_authority *a);
/* Of `a`, trusting `trusted`. */
struct identity *tlstest_identity(const struct tlstest_authority *a, const struct tlstest_authority *trusted, enum identity_role role,
				  const char *host, uint64_t now_s, uint64_t life_s);
#endif
