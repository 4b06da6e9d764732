#include "proto/identity.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/crc.h"
#include "core/option.h"
#include "proto/tls.h"

#define AUTHORITIES_MAX 16u
#define CHAIN_BYTES_MAX (16 << 10) /* of what a peer sends as its certificates */
static const char uri_prefix[] = "aquifer:";

const char *identity_role_name(enum identity_role role)
{
	return role == ROLE_AGENT ? "agent" : role == ROLE_SERVER ? "server" : "nobody";
}

enum identity_role identity_role_of(const char *word)
{
	return strcmp(word, "agent") == 0 ? ROLE_AGENT : strcmp(word, "server") == 0 ? ROLE_SERVER : 0;
}

/* ---- certificates ---- */

static BIO *text_bio(const char *pem) { return BIO_new_mem_buf(pem, (int)MIN(strlen(pem), (size_t)1 << 20)); }

X509 *identity_certificate(const char *pem)
{
	BIO *b = text_bio(pem);
	X509 *x = b ? PEM_read_bio_X509(b, NULL, NULL, NULL) : NULL;
	BIO_free(b);
	ERR_clear_error();
	return x;
}

static int parse_uri(const char *uri, size_t length, struct identity_name *ret)
{
	char text[IDENTITY_HOST_BYTES + 32];
	if (length >= sizeof text || memchr(uri, 0, length) || length < strlen(uri_prefix))
		return -EBADMSG;
	memcpy(text, uri, length);
	text[length] = 0;
	char *slash = strchr(text, '/');
	if (memcmp(text, uri_prefix, strlen(uri_prefix)) != 0 || !slash)
		return -EBADMSG;
	*slash = 0;
	ret->role = identity_role_of(text + strlen(uri_prefix));
	if (!ret->role || !name_valid(slash + 1) || strlen(slash + 1) >= sizeof ret->host)
		return -EBADMSG;
	strcpy(ret->host, slash + 1);
	return 0;
}

static int time_of(const ASN1_TIME *t, uint64_t *ret_s)
{
	struct tm tm;
	time_t s = t && ASN1_TIME_to_tm(t, &tm) == 1 ? timegm(&tm) : -1;
	*ret_s = (uint64_t)s;
	return s < 0 ? -EBADMSG : 0;
}

/* Exactly one name of ours: none could be chosen among two. */
int identity_of(const X509 *certificate, struct identity_name *ret)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	struct identity_name found = { 0 };
	int r = -EBADMSG;
	for (int i = 0; i < (names ? sk_GENERAL_NAME_num(names) : 0); i++) {
		const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);
		if (n->type != GEN_URI)
			continue;
		const ASN1_IA5STRING *uri = n->d.uniformResourceIdentifier;
		bool second = r == 0;
		r = parse_uri((const char *)ASN1_STRING_get0_data(uri), (size_t)ASN1_STRING_length(uri), &found);
		if (second || r < 0) {
			r = -EBADMSG;
			break;
		}
	}
	GENERAL_NAMES_free(names);
	if (r == 0 && (time_of(X509_get0_notBefore(certificate), &found.issued_s) < 0 ||
		       time_of(X509_get0_notAfter(certificate), &found.expires_s) < 0))
		r = -EBADMSG;
	if (r == 0) {
		found.issued_s += IDENTITY_SKEW_S;
		*ret = found;
	}
	return r;
}

/* ---- an identity ---- */

static int bad(struct report *report, const char *what)
{
	unsigned long e = ERR_get_error();
	ERR_clear_error();
	const char *why = e ? ERR_reason_error_string(e) : NULL;
	return report_set(report, -EBADMSG, "%s: %s", what, why ? why : "it makes no sense");
}

static int add_authorities(SSL_CTX *context, const char *pem, struct report *report)
{
	BIO *b = text_bio(pem);
	X509_STORE *store = SSL_CTX_get_cert_store(context);
	X509 *x;
	unsigned count = 0;
	int r = b ? 0 : -ENOMEM;
	while (r == 0 && count < AUTHORITIES_MAX && (x = PEM_read_bio_X509(b, NULL, NULL, NULL))) {
		count++;
		if (X509_STORE_add_cert(store, x) != 1)
			r = bad(report, "the authority's certificate");
		X509_free(x);
	}
	BIO_free(b);
	if (r == 0 && count == 0)
		return bad(report, "the authority's certificate");
	ERR_clear_error(); /* the end of the text */
	return r;
}

static int add_own(struct identity *i, const struct identity_pem *pem, struct report *report)
{
	X509 *x = identity_certificate(pem->certificate);
	if (!x)
		return report_set(report, -EBADMSG, "our certificate can't be read");
	int r = identity_of(x, &i->name);
	if (r < 0)
		report_set(report, r, "our certificate names no role and host");
	else if (SSL_CTX_use_certificate(i->context, x) != 1)
		r = bad(report, "our certificate");
	X509_free(x);
	if (r < 0)
		return r;
	BIO *b = text_bio(pem->key);
	EVP_PKEY *key = b ? PEM_read_bio_PrivateKey(b, NULL, NULL, NULL) : NULL;
	BIO_free(b);
	if (!key || SSL_CTX_use_PrivateKey(i->context, key) != 1)
		r = bad(report, "our key");
	EVP_PKEY_free(key);
	return r;
}

static int configure(SSL_CTX *c)
{
	/* no tickets, no resumption, nothing old, nothing to be negotiated again */
	if (SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) != 1 || SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_ciphersuites(c, "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384") != 1 ||
	    SSL_CTX_set_num_tickets(c, 0) != 1 || SSL_CTX_set1_groups_list(c, "X25519:P-256") != 1)
		return -ENOMEM;
	SSL_CTX_set_options(c, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_max_early_data(c, 0);
	SSL_CTX_set_max_cert_list(c, CHAIN_BYTES_MAX);
	SSL_CTX_set_verify_depth(c, 2);
	return 0;
}

int identity_create(const struct identity_pem *pem, struct identity **ret, struct report *report)
{
	struct identity *i = calloc(1, sizeof *i);
	if (!i)
		return -ENOMEM;
	i->references = 1;
	i->trusts = crc32c(0, pem->authorities, strlen(pem->authorities));
	i->context = SSL_CTX_new(TLS_method());
	i->bio = tls_bio_method();
	int r = i->context && i->bio ? configure(i->context) : -ENOMEM;
	if (r == 0)
		r = add_authorities(i->context, pem->authorities, report);
	if (r == 0)
		r = add_own(i, pem, report);
	if (r < 0) {
		identity_put(i);
		return r;
	}
	tls_context_prepare(i->context);
	*ret = i;
	return 0;
}

struct identity *identity_get(struct identity *i)
{
	i->references++;
	return i;
}

void identity_put(struct identity *i)
{
	if (!i || --i->references > 0)
		return;
	SSL_CTX_free(i->context);
	BIO_meth_free(i->bio);
	free(i->revoked);
	free(i);
}

/* ---- who counts no more ---- */

int identity_revoke(struct identity *i, const struct identity_revoked *list, size_t count)
{
	if (count > IDENTITY_REVOKED_MAX)
		return -E2BIG;
	struct identity_revoked *copy = calloc(MAX(count, (size_t)1), sizeof *copy);
	if (!copy)
		return -ENOMEM;
	if (count)
		memcpy(copy, list, count * sizeof *copy);
	free(i->revoked);
	i->revoked = copy;
	i->revoked_count = count;
	return 0;
}

bool identity_is_revoked(const struct identity *i, const struct identity_name *name)
{
	for (size_t n = 0; n < i->revoked_count; n++)
		if (strcmp(i->revoked[n].host, name->host) == 0 && name->issued_s <= i->revoked[n].until_s)
			return true;
	return false;
}
