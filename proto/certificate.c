#include "proto/certificate.h"

#include <errno.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"

#define PEM_MAX ((size_t)1 << 20)

void certificate_wipe(char *text)
{
	if (text)
		explicit_bzero(text, strlen(text));
	free(text);
}

int certificate_random(void *bytes, size_t length) { return RAND_bytes(bytes, (int)length) == 1 ? 0 : -EIO; }

/* ---- texts ---- */

/* The PEM text that was written, which is wiped there. */
static int text_of(BIO *b, int written, char **ret)
{
	char *bytes, *text = NULL;
	long n = b ? BIO_get_mem_data(b, &bytes) : 0;
	if (written == 1 && n > 0 && (text = malloc((size_t)n + 1))) {
		memcpy(text, bytes, (size_t)n);
		text[n] = 0;
		OPENSSL_cleanse(bytes, (size_t)n);
	}
	BIO_free(b);
	ERR_clear_error();
	*ret = text;
	return text ? 0 : -ENOMEM;
}

static EVP_PKEY *key_of(const char *pem)
{
	BIO *b = BIO_new_mem_buf(pem, (int)MIN(strlen(pem), PEM_MAX));
	EVP_PKEY *key = b ? PEM_read_bio_PrivateKey(b, NULL, NULL, NULL) : NULL;
	BIO_free(b);
	ERR_clear_error();
	return key;
}

int certificate_key(char **ret_key)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	BIO *b = key ? BIO_new(BIO_s_mem()) : NULL;
	int r = text_of(b, b ? PEM_write_bio_PrivateKey(b, key, NULL, NULL, 0, NULL, NULL) : 0, ret_key);
	EVP_PKEY_free(key);
	return r;
}

/* ---- certificates ---- */

static bool extend(X509 *x, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX c;
	X509V3_set_ctx(&c, issuer, x, NULL, NULL, 0);
	X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &c, nid, value);
	bool good = e && X509_add_ext(x, e, -1) == 1;
	X509_EXTENSION_free(e);
	return good;
}

static bool set_times(X509 *x, uint64_t now_s, uint64_t life_s)
{
	return ASN1_TIME_set(X509_getm_notBefore(x), (time_t)(now_s - IDENTITY_SKEW_S)) &&
	       ASN1_TIME_set(X509_getm_notAfter(x), (time_t)(now_s + life_s));
}

static bool set_serial(X509 *x)
{
	uint64_t serial;
	return certificate_random(&serial, sizeof serial) == 0 && ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), serial >> 1 | 1) == 1;
}

static bool set_name(X509_NAME *n, const char *field, const char *value)
{
	return X509_NAME_add_entry_by_txt(n, field, MBSTRING_UTF8, (const unsigned char *)value, -1, -1, 0) == 1;
}

static int certificate_text(X509 *x, char **ret)
{
	BIO *b = BIO_new(BIO_s_mem());
	return text_of(b, b ? PEM_write_bio_X509(b, x) : 0, ret);
}

int certificate_authority(const char *key_text, const char *label, uint64_t now_s, char **ret_certificate)
{
	EVP_PKEY *key = key_of(key_text);
	X509 *x = key ? X509_new() : NULL;
	int r = x ? 0 : -ENOMEM;
	if (r == 0 && (X509_set_version(x, X509_VERSION_3) != 1 || !set_serial(x) || !set_times(x, now_s, AUTHORITY_LIFE_S) ||
		       !set_name(X509_get_subject_name(x), "O", "Aquifer") || !set_name(X509_get_subject_name(x), "CN", label) ||
		       X509_set_issuer_name(x, X509_get_subject_name(x)) != 1 || X509_set_pubkey(x, key) != 1 ||
		       !extend(x, x, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
		       !extend(x, x, NID_key_usage, "critical,keyCertSign") || !extend(x, x, NID_subject_key_identifier, "hash") ||
		       X509_sign(x, key, EVP_sha256()) == 0))
		r = -EIO;
	if (r == 0)
		r = certificate_text(x, ret_certificate);
	X509_free(x);
	EVP_PKEY_free(key);
	ERR_clear_error();
	return r;
}

int certificate_request(const char *key_text, uint8_t **ret_request, size_t *ret_length)
{
	EVP_PKEY *key = key_of(key_text);
	X509_REQ *q = key ? X509_REQ_new() : NULL;
	unsigned char *der = NULL;
	int n = -1;
	if (q && X509_REQ_set_version(q, 0) == 1 && X509_REQ_set_pubkey(q, key) == 1 && X509_REQ_sign(q, key, EVP_sha256()) > 0)
		n = i2d_X509_REQ(q, &der);
	X509_REQ_free(q);
	EVP_PKEY_free(key);
	uint8_t *copy = n > 0 ? malloc((size_t)n) : NULL;
	if (copy) {
		memcpy(copy, der, (size_t)n);
		*ret_request = copy;
		*ret_length = (size_t)n;
	}
	OPENSSL_free(der);
	ERR_clear_error();
	return copy ? 0 : -ENOMEM;
}

/* The key of a request, when all of it is as we make them. The caller frees `*ret_request`. */
static EVP_PKEY *request_key(const void *bytes, size_t length, X509_REQ **ret_request)
{
	const unsigned char *at = bytes;
	char group[32] = "";
	X509_REQ *q = length > 0 && length <= CERTIFICATE_REQUEST_MAX ? d2i_X509_REQ(NULL, &at, (long)length) : NULL;
	*ret_request = q;
	if (!q || at != (const unsigned char *)bytes + length)
		return NULL;
	EVP_PKEY *key = X509_REQ_get0_pubkey(q);
	size_t n;
	/* of other kinds some are weak, and some take seconds to check */
	if (!key || EVP_PKEY_get_base_id(key) != EVP_PKEY_EC || EVP_PKEY_get_group_name(key, group, sizeof group, &n) != 1 ||
	    strcmp(group, "prime256v1") != 0 || X509_REQ_verify(q, key) != 1)
		return NULL;
	return key;
}

static int issue(X509 *x, X509 *issuer, EVP_PKEY *issuer_key, EVP_PKEY *key, enum identity_role role, const char *host, uint64_t now_s,
		 uint64_t life_s)
{
	char uri[IDENTITY_HOST_BYTES + 64];
	snprintf(uri, sizeof uri, "URI:aquifer:%s/%s", identity_role_name(role), host);
	if (X509_set_version(x, X509_VERSION_3) != 1 || !set_serial(x) || !set_times(x, now_s, life_s) ||
	    !set_name(X509_get_subject_name(x), "O", "Aquifer") || !set_name(X509_get_subject_name(x), "OU", identity_role_name(role)) ||
	    !set_name(X509_get_subject_name(x), "CN", host) || X509_set_issuer_name(x, X509_get_subject_name(issuer)) != 1 ||
	    X509_set_pubkey(x, key) != 1 || !extend(x, issuer, NID_basic_constraints, "critical,CA:FALSE") ||
	    !extend(x, issuer, NID_key_usage, "critical,digitalSignature") || !extend(x, issuer, NID_ext_key_usage, "serverAuth,clientAuth") ||
	    !extend(x, issuer, NID_authority_key_identifier, "keyid") || !extend(x, issuer, NID_subject_alt_name, uri) ||
	    X509_sign(x, issuer_key, EVP_sha256()) == 0)
		return -EIO;
	return 0;
}

int certificate_issue(const char *authority, const char *authority_key, const void *request, size_t length, enum identity_role role,
		      const char *host, uint64_t now_s, uint64_t life_s, char **ret_certificate, struct report *report)
{
	X509_REQ *q = NULL;
	X509 *issuer = identity_certificate(authority), *x = X509_new();
	EVP_PKEY *issuer_key = key_of(authority_key);
	EVP_PKEY *key = request_key(request, length, &q);
	int r;
	if (!key)
		r = report_set(report, -EBADMSG, "that is no request for a certificate");
	else if (!issuer || !issuer_key || !x || X509_check_private_key(issuer, issuer_key) != 1)
		r = report_set(report, -EBADMSG, "the authority's certificate and key can't be used");
	else
		r = issue(x, issuer, issuer_key, key, role, host, now_s, life_s);
	if (r == 0)
		r = certificate_text(x, ret_certificate);
	EVP_PKEY_free(issuer_key);
	X509_REQ_free(q);
	X509_free(x);
	X509_free(issuer);
	ERR_clear_error();
	return r;
}

int certificate_check(const char *certificate, const char *authority, uint64_t now_s, struct identity_name *ret)
{
	X509 *x = identity_certificate(certificate), *a = identity_certificate(authority);
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *c = X509_STORE_CTX_new();
	int r = x && a ? identity_of(x, ret) : -EBADMSG;
	if (r == 0 && (!store || !c || X509_STORE_add_cert(store, a) != 1 || X509_STORE_CTX_init(c, store, x, NULL) != 1))
		r = -ENOMEM;
	if (r == 0) {
		X509_STORE_CTX_set_time(c, 0, (time_t)now_s);
		r = X509_verify_cert(c) == 1 ? 0 : -EKEYREJECTED;
	}
	X509_STORE_CTX_free(c);
	X509_STORE_free(store);
	X509_free(a);
	X509_free(x);
	ERR_clear_error();
	return r;
}

int certificate_print(const char *certificate, uint8_t ret[CERTIFICATE_PRINT_BYTES])
{
	X509 *x = identity_certificate(certificate);
	unsigned n = 0;
	int r = x && X509_digest(x, EVP_sha256(), ret, &n) == 1 && n == CERTIFICATE_PRINT_BYTES ? 0 : -EBADMSG;
	X509_free(x);
	return r;
}

/* ---- signatures ---- */

static int sign(EVP_PKEY *key, const EVP_MD *digest, const void *bytes, size_t length, uint8_t *ret, size_t *ret_length)
{
	EVP_MD_CTX *c = key ? EVP_MD_CTX_new() : NULL;
	int r = c && EVP_DigestSignInit(c, NULL, digest, NULL, key) == 1 && EVP_DigestSign(c, ret, ret_length, bytes, length) == 1 ? 0 : -EIO;
	EVP_MD_CTX_free(c);
	ERR_clear_error();
	return r;
}

static int check(EVP_PKEY *key, const EVP_MD *digest, const void *bytes, size_t length, const void *signature, size_t signature_length)
{
	EVP_MD_CTX *c = key ? EVP_MD_CTX_new() : NULL;
	int r = c && EVP_DigestVerifyInit(c, NULL, digest, NULL, key) == 1 &&
				EVP_DigestVerify(c, signature, signature_length, bytes, length) == 1
			? 0
			: -EKEYREJECTED;
	EVP_MD_CTX_free(c);
	ERR_clear_error();
	return r;
}

int certificate_sign(const char *key_text, const void *bytes, size_t length, uint8_t ret[CERTIFICATE_SIGNATURE_MAX], size_t *ret_length)
{
	EVP_PKEY *key = key_of(key_text);
	*ret_length = CERTIFICATE_SIGNATURE_MAX;
	int r = sign(key, EVP_sha256(), bytes, length, ret, ret_length);
	EVP_PKEY_free(key);
	return r;
}

int certificate_verify(const char *certificate, const void *bytes, size_t length, const void *signature, size_t signature_length)
{
	X509 *x = identity_certificate(certificate);
	int r = x ? check(X509_get0_pubkey(x), EVP_sha256(), bytes, length, signature, signature_length) : -EBADMSG;
	X509_free(x);
	return r;
}

int certificate_seed_public(const uint8_t seed[32], uint8_t ret_public[32])
{
	size_t n = 32;
	EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, 32);
	int r = key && EVP_PKEY_get_raw_public_key(key, ret_public, &n) == 1 ? 0 : -EIO;
	EVP_PKEY_free(key);
	ERR_clear_error();
	return r;
}

int certificate_seed_sign(const uint8_t seed[32], const void *bytes, size_t length, uint8_t ret[64])
{
	size_t n = 64;
	EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, 32);
	int r = sign(key, NULL, bytes, length, ret, &n);
	EVP_PKEY_free(key);
	return r;
}

int certificate_seed_verify(const uint8_t public[32], const void *bytes, size_t length, const uint8_t signature[64])
{
	EVP_PKEY *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public, 32);
	int r = check(key, NULL, bytes, length, signature, 64);
	EVP_PKEY_free(key);
	return r;
}
