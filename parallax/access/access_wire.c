#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/crc.h"
#include "core/option.h"
#include "parallax/access/access.h"
#include "proto/access.pb-c.h"
#include "proto/arena.h"

/* ---- tokens ---- */

enum { TOKEN_VERSION = 1 };
static const char token_prefix[] = "aquifer1.";
static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
enum { TOKEN_RAW = 8 + 1 + 32 + CERTIFICATE_PRINT_BYTES + 4, TOKEN_DIGITS = (TOKEN_RAW * 8 + 5) / 6 };

void access_token_print(const struct access_token *t, char ret[ACCESS_TOKEN_BYTES])
{
	uint8_t raw[TOKEN_RAW + 2] = { 0 };
	put_le64(raw, t->id);
	raw[8] = (uint8_t)t->roles;
	memcpy(raw + 9, t->seed, 32);
	memcpy(raw + 41, t->authority, CERTIFICATE_PRINT_BYTES);
	put_le32(raw + TOKEN_RAW - 4, crc32c(0, raw, TOKEN_RAW - 4));
	char *to = ret + snprintf(ret, ACCESS_TOKEN_BYTES, "%s", token_prefix);
	for (unsigned i = 0; i < TOKEN_DIGITS; i++) {
		unsigned bit = i * 6, two = (unsigned)raw[bit / 8] << 8 | raw[bit / 8 + 1];
		*to++ = digits[two >> (10 - bit % 8) & 63];
	}
	*to = 0;
	explicit_bzero(raw, sizeof raw);
}

int access_token_parse(const char *text, struct access_token *ret)
{
	uint8_t raw[TOKEN_RAW + 2] = { 0 };
	const char *from = text + strlen(token_prefix);
	if (strncmp(text, token_prefix, strlen(token_prefix)) != 0 || strlen(from) != TOKEN_DIGITS)
		return -EINVAL;
	for (unsigned i = 0; i < TOKEN_DIGITS; i++) {
		const char *digit = strchr(digits, from[i]);
		if (!digit)
			return -EINVAL;
		unsigned bit = i * 6, two = (unsigned)(digit - digits) << (10 - bit % 8);
		raw[bit / 8] |= (uint8_t)(two >> 8);
		raw[bit / 8 + 1] |= (uint8_t)two;
	}
	if (get_le32(raw + TOKEN_RAW - 4) != crc32c(0, raw, TOKEN_RAW - 4) || get_le64(raw) == 0 || raw[TOKEN_RAW] || !raw[8] ||
	    (raw[8] & ~ROLE_ANY))
		return -EINVAL;
	ret->id = get_le64(raw);
	ret->roles = raw[8];
	memcpy(ret->seed, raw + 9, 32);
	memcpy(ret->authority, raw + 41, CERTIFICATE_PRINT_BYTES);
	explicit_bzero(raw, sizeof raw);
	return 0;
}

int access_token_read(const char *text, struct access_token *ret, struct report *report)
{
	unsigned version = 0;
	int n = 0;
	if (sscanf(text, "aquifer%3u.%n", &version, &n) == 1 && n > 0 && version > TOKEN_VERSION)
		return report_newer(report, "the token", version, TOKEN_VERSION);
	int r = access_token_parse(text, ret);
	return r < 0 ? report_set(report, r, "that is no token, or not all of it (it begins with aquifer1. and has 112 characters)") : 0;
}

/* ---- requests ---- */

int access_question_pack(struct access_question *q)
{
	Aquifer__Access__Question m = AQUIFER__ACCESS__QUESTION__INIT;
	m.role = q->role;
	m.host = q->host;
	m.request.data = q->request;
	m.request.len = q->request_length;
	m.token = q->token;
	m.certificate = q->certificate;
	size_t n = aquifer__access__question__get_packed_size(&m);
	if (n > sizeof q->signed_bytes)
		return -EMSGSIZE;
	q->signed_length = aquifer__access__question__pack(&m, q->signed_bytes);
	return 0;
}

uint8_t *access_request_encode(const struct access_question *q, size_t *ret_length)
{
	Aquifer__Access__Request m = AQUIFER__ACCESS__REQUEST__INIT;
	m.question.data = (uint8_t *)(uintptr_t)q->signed_bytes;
	m.question.len = q->signed_length;
	m.signature.data = (uint8_t *)(uintptr_t)q->signature;
	m.signature.len = q->signature_length;
	m.asked_s = q->asked_s;
	uint8_t *bytes = malloc(aquifer__access__request__get_packed_size(&m));
	if (bytes)
		*ret_length = aquifer__access__request__pack(&m, bytes);
	return bytes;
}

static int question_decode(const Aquifer__Access__Request *outer, const Aquifer__Access__Question *m, struct access_question *ret)
{
	if (m->role != ROLE_AGENT && m->role != ROLE_SERVER)
		return -EBADMSG;
	if (!name_valid(m->host) || strlen(m->host) >= sizeof ret->host || strlen(m->certificate) >= sizeof ret->certificate)
		return -EBADMSG;
	if (m->request.len == 0 || m->request.len > sizeof ret->request || !m->token == !m->certificate[0])
		return -EBADMSG;
	ret->role = m->role;
	strcpy(ret->host, m->host);
	memcpy(ret->request, m->request.data, m->request.len);
	ret->request_length = m->request.len;
	ret->token = m->token;
	strcpy(ret->certificate, m->certificate);
	memcpy(ret->signed_bytes, outer->question.data, outer->question.len);
	ret->signed_length = outer->question.len;
	memcpy(ret->signature, outer->signature.data, outer->signature.len);
	ret->signature_length = outer->signature.len;
	ret->asked_s = outer->asked_s;
	return 0;
}

int access_request_decode(const void *bytes, size_t length, struct access_question *ret)
{
	struct arena arena;
	arena_init(&arena);
	int r = -EBADMSG;
	Aquifer__Access__Question *m = NULL;
	Aquifer__Access__Request *outer = aquifer__access__request__unpack(&arena.allocator, length, bytes);
	if (outer && outer->question.len <= sizeof ret->signed_bytes && outer->signature.len > 0 && outer->signature.len <= sizeof ret->signature)
		m = aquifer__access__question__unpack(&arena.allocator, outer->question.len, outer->question.data);
	if (m) {
		memset(ret, 0, sizeof *ret);
		r = question_decode(outer, m, ret);
	}
	arena_reset(&arena);
	return r;
}

int access_token_record_decode(const void *bytes, size_t length, struct access_token_record *ret)
{
	struct arena arena;
	arena_init(&arena);
	int r = -EBADMSG;
	Aquifer__Access__Token *m = aquifer__access__token__unpack(&arena.allocator, length, bytes);
	if (m && m->key.len == sizeof ret->key && m->signature.len > 0 && m->signature.len <= sizeof ret->signature && (!m->host[0] || (name_valid(m->host) && strlen(m->host) < sizeof ret->host))) {
		*ret = (struct access_token_record){ .roles = m->roles & m->granted & ROLE_ANY, .granted = m->granted, .expires_s = m->expires_s };
		memcpy(ret->signature, m->signature.data, m->signature.len);
		ret->signature_length = m->signature.len;
		memcpy(ret->key, m->key.data, sizeof ret->key);
		strcpy(ret->host, m->host);
		r = 0;
	}
	arena_reset(&arena);
	return r;
}

static void record_message(const struct access_token_record *t, Aquifer__Access__Token *m)
{
	aquifer__access__token__init(m);
	m->key.data = (uint8_t *)(uintptr_t)t->key;
	m->key.len = sizeof t->key;
	m->expires_s = t->expires_s;
	m->host = (char *)(uintptr_t)t->host;
	m->granted = t->granted;
}

uint8_t *access_token_record_encode(const struct access_token_record *t, size_t *ret_length)
{
	Aquifer__Access__Token m;
	record_message(t, &m);
	m.roles = t->roles;
	m.signature.data = (uint8_t *)(uintptr_t)t->signature;
	m.signature.len = t->signature_length;
	uint8_t *bytes = malloc(aquifer__access__token__get_packed_size(&m));
	if (bytes)
		*ret_length = aquifer__access__token__pack(&m, bytes);
	return bytes;
}

size_t access_token_record_signed(const struct access_token_record *t, uint8_t ret[ACCESS_RECORD_MAX])
{
	Aquifer__Access__Token m;
	record_message(t, &m);
	return aquifer__access__token__get_packed_size(&m) <= ACCESS_RECORD_MAX ? aquifer__access__token__pack(&m, ret) : 0;
}

int access_token_record_sign(struct access_token_record *t, const char *authority_key)
{
	uint8_t bytes[ACCESS_RECORD_MAX];
	return certificate_sign(authority_key, bytes, access_token_record_signed(t, bytes), t->signature, &t->signature_length);
}
