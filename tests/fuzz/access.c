/* What strangers can leave in the catalog for the cluster's authority: requests, tokens' records, and tokens on a command line. The
 * first byte says which. A question may come signed by the token, so that what lies behind the signature is reached as well;
 * whatever happens, only who signed with the token gets a certificate, and it says what the token allows. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "parallax/access/access.h"

#define NOW UINT64_C(1800000000)

static char *authority, *authority_key;
static uint8_t seed[32];
static struct access_token_record token = { .roles = ROLE_AGENT, .granted = ROLE_AGENT, .expires_s = NOW + 100 };

static void prepare(void)
{
	static const char name[] = "fuzz";
	if (authority)
		return;
	if (certificate_key(&authority_key) < 0 || certificate_authority(authority_key, name, NOW, &authority) < 0 ||
	    certificate_seed_public(seed, token.key) < 0 || access_token_record_sign(&token, authority_key) < 0)
		abort();
}

static int decide(const struct access_question *q, char **ret_certificate)
{
	struct report report = { "" };
	int r = access_question_check(q, &token, authority, NOW, &report);
	if (r == 0)
		r = certificate_issue(authority, authority_key, q->request, q->request_length, q->role, q->host, NOW, 1000, ret_certificate, &report);
	assert(r == 0 || report.text[0]);
	return r;
}

static void fuzz_request(const uint8_t *b, size_t n)
{
	static struct access_question q;
	char *certificate = NULL;
	if (access_request_decode(b, n, &q) < 0)
		return;
	assert(memchr(q.host, 0, sizeof q.host) && memchr(q.certificate, 0, sizeof q.certificate));
	assert(q.request_length <= sizeof q.request && q.signature_length <= sizeof q.signature && q.signed_length <= sizeof q.signed_bytes);
	decide(&q, &certificate);
	free(certificate);
}

/* The bytes are a question; the token signs it. */
static void fuzz_signed(const uint8_t *b, size_t n)
{
	static struct access_question q, back;
	struct identity_name name;
	char *certificate = NULL;
	size_t length;
	if (n > sizeof q.signed_bytes)
		return;
	memcpy(q.signed_bytes, b, n);
	q.signed_length = n;
	q.signature_length = 64;
	if (certificate_seed_sign(seed, b, n, q.signature) < 0)
		abort();
	uint8_t *bytes = access_request_encode(&q, &length);
	if (bytes && access_request_decode(bytes, length, &back) == 0 && decide(&back, &certificate) == 0) {
		assert(certificate_check(certificate, authority, NOW, &name) == 0);
		assert(name.role == back.role && back.role == ROLE_AGENT && strcmp(name.host, back.host) == 0);
		free(certificate);
	}
	free(bytes);
}

static void fuzz_record(const uint8_t *b, size_t n)
{
	struct access_token_record r;
	if (access_token_record_decode(b, n, &r) == 0)
		assert(memchr(r.host, 0, sizeof r.host) && r.roles <= ROLE_ANY && r.signature_length <= sizeof r.signature);
}

static void fuzz_token(const uint8_t *b, size_t n)
{
	struct access_token t;
	char *text = strndup((const char *)b, n), again[ACCESS_TOKEN_BYTES];
	if (text && access_token_parse(text, &t) == 0) {
		access_token_print(&t, again);
		assert(strcmp(text, again) == 0);
	}
	free(text);
}

static void fuzz_certificate(const uint8_t *b, size_t n)
{
	const unsigned char *at = b;
	struct identity_name name;
	X509 *x = d2i_X509(NULL, &at, (long)n);
	if (x && identity_of(x, &name) == 0)
		assert(name.host[0] && (name.role == ROLE_AGENT || name.role == ROLE_SERVER));
	X509_free(x);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	static void (*const targets[])(const uint8_t *b, size_t n) = { fuzz_request, fuzz_signed, fuzz_record, fuzz_token, fuzz_certificate };
	prepare();
	if (length > 0)
		targets[bytes[0] % 5](bytes + 1, length - 1);
	return 0;
}
