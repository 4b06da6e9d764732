#include "tests/unit/tlstest.h"

#include <criterion/criterion.h>
#include <stdlib.h>

void tlstest_authority(struct tlstest_authority *a, uint64_t now_s)
{
	cr_assert_eq(certificate_key(&a->key), 0);
	cr_assert_eq(certificate_authority(a->key, "test", now_s, &a->certificate), 0);
}

void tlstest_authority_free(struct tlstest_authority *a)
{
	certificate_wipe(a->key);
	free(a->certificate);
}

struct identity *tlstest_identity(const struct tlstest_authority *a, const struct tlstest_authority *trusted, enum identity_role role,
				  const char *host, uint64_t now_s, uint64_t life_s)
{
	struct report report = { "" };
	struct identity *i = NULL;
	char *key, *certificate;
	uint8_t *request;
	size_t length;
	cr_assert_eq(certificate_key(&key), 0);
	cr_assert_eq(certificate_request(key, &request, &length), 0);
	cr_assert_eq(certificate_issue(a->certificate, a->key, request, length, role, host, now_s, life_s, &certificate, &report), 0, "%s",
		     report.text);
	struct identity_pem pem = { trusted->certificate, certificate, key };
	cr_assert_eq(identity_create(&pem, &i, &report), 0, "%s", report.text);
	certificate_wipe(key);
	free(certificate);
	free(request);
	return i;
}
