/* The authority's side: its key, tokens, answers, revocations. Every decision is one transaction that compares what it was
 * made from, so two agents with the authority's key don't get in each other's way, and a token counts once. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/access/access.h"
#include "proto/access.pb-c.h"

#define KEY_AUTHORITY "access/authority"
#define ANSWERS "access/answer/"

static uint64_t now_s(struct catalog *c) { return env_wall_ns(c->env) / NS_PER_S; }

static int say_catalog(struct catalog *c, int status, struct report *report)
{
	return report_set(report, status, "the catalog: %s", catalog_text(c, status));
}

/* ---- the authority itself ---- */

struct authority {
	char *certificate, *key;
};

static void authority_free(struct authority *a)
{
	free(a->certificate);
	certificate_wipe(a->key);
	*a = (struct authority){ 0 };
}

/* -ENOENT without a report: it isn't on this host. */
static int authority_read(struct env *env, const char *root, struct authority *ret, struct report *report)
{
	*ret = (struct authority){ 0 };
	int r = access_read(env, root, "authority.key", &ret->key, report);
	if (r == 0)
		r = access_read(env, root, "authority.crt", &ret->certificate, report);
	if (r < 0)
		authority_free(ret);
	return r;
}

bool access_authority_here(struct env *env, const char *root)
{
	struct authority a;
	bool here = authority_read(env, root, &a, NULL) == 0;
	authority_free(&a);
	return here;
}

static int authority_new(struct env *env, const char *root, struct authority *ret, struct report *report)
{
	uint32_t number;
	char label[64], *there = NULL;
	int r = access_read(env, root, "authority.crt", &there, report);
	free(there);
	if (r != -ENOENT)
		return r < 0 ? r : report_set(report, -EEXIST, "this host belongs to a cluster whose authority is elsewhere (etc/aquifer/tls/authority.crt)");
	r = certificate_random(&number, sizeof number);
	snprintf(label, sizeof label, "Aquifer cluster %08x", number);
	if (r == 0)
		r = certificate_key(&ret->key);
	if (r == 0)
		r = certificate_authority(ret->key, label, env_wall_ns(env) / NS_PER_S, &ret->certificate);
	if (r == 0)
		r = access_write(env, root, "authority.crt", ret->certificate, report);
	return r == 0 ? access_write(env, root, "authority.key", ret->key, report) : r;
}

/* FIBER. */
static int put_new(struct catalog *c, const char *key, const void *bytes, size_t length)
{
	struct catalog_txn *t = malloc(sizeof *t);
	if (!t)
		return -ENOMEM;
	catalog_txn_init(t);
	catalog_txn_compare(t, key, 0);
	catalog_txn_put(t, key, bytes, length);
	int r = catalog_txn(c, t, NULL);
	free(t);
	return r;
}

static int note_authority(struct catalog *c, const struct authority *a, struct report *report)
{
	Aquifer__Access__Authority m = AQUIFER__ACCESS__AUTHORITY__INIT;
	struct catalog_value there;
	m.certificate = a->certificate;
	size_t length = aquifer__access__authority__get_packed_size(&m);
	uint8_t *bytes = malloc(length);
	if (!bytes)
		return -ENOMEM;
	aquifer__access__authority__pack(&m, bytes);
	int r = put_new(c, KEY_AUTHORITY, bytes, length);
	if (r == -EAGAIN || r == -ETIMEDOUT) {
		r = catalog_get(c, KEY_AUTHORITY, &there);
		if (r == 0 && (there.length != length || memcmp(there.bytes, bytes, length) != 0))
			r = report_set(report, -EEXIST, "the cluster has an authority already, on another host");
		catalog_value_free(&there);
	}
	free(bytes);
	return r < 0 ? say_catalog(c, r, report) : 0;
}

int access_authority_make(struct catalog *c, const char *root, struct report *report)
{
	struct authority a;
	int r = authority_read(c->env, root, &a, report);
	if (r == -ENOENT)
		r = authority_new(c->env, root, &a, report);
	if (r == 0)
		r = note_authority(c, &a, report);
	authority_free(&a);
	return r;
}

int access_not_here(struct catalog *c, const char *cure, struct report *report)
{
	struct catalog_value there;
	int r = catalog_get(c, KEY_AUTHORITY, &there);
	catalog_value_free(&there);
	if (r == -ENOENT)
		return report_set(report, r, "the cluster has no authority yet (make it, on this host: aquifer cluster init --authority-only)");
	return report_set(report, -ENOENT, "the cluster's authority isn't on this host, but where `aquifer cluster init` was done (%s)", cure);
}

/* ---- tokens ---- */

static void key_of(const char *prefix, uint64_t id, char ret[CATALOG_KEY_MAX + 1]) { snprintf(ret, CATALOG_KEY_MAX + 1, "%s%016" PRIx64, prefix, id); }

int access_token_new(struct catalog *c, const char *root, unsigned roles, const char *host, uint64_t ttl_s, char ret_text[ACCESS_TOKEN_BYTES],
		     struct report *report)
{
	struct authority a;
	struct access_token t = { .roles = roles };
	struct access_token_record record = { .roles = roles, .granted = roles, .expires_s = now_s(c) + ttl_s };
	char key[CATALOG_KEY_MAX + 1];
	size_t length;
	int r = authority_read(c->env, root, &a, report);
	if (r == -ENOENT)
		return access_not_here(c, "do it there", report);
	if (r < 0)
		return r;
	snprintf(record.host, sizeof record.host, "%s", host ? host : "");
	r = certificate_print(a.certificate, t.authority);
	if (r == 0)
		r = certificate_random(&t.id, sizeof t.id);
	t.id |= 1; /* 0 is none */
	if (r == 0)
		r = certificate_random(t.seed, sizeof t.seed);
	if (r == 0)
		r = certificate_seed_public(t.seed, record.key);
	if (r == 0)
		r = access_token_record_sign(&record, a.key);
	authority_free(&a);
	uint8_t *bytes = r == 0 ? access_token_record_encode(&record, &length) : NULL;
	if (r == 0)
		r = bytes ? 0 : -ENOMEM;
	key_of(ACCESS_TOKENS, t.id, key);
	if (r == 0 && (r = put_new(c, key, bytes, length)) < 0)
		say_catalog(c, r, report);
	free(bytes);
	if (r == 0)
		access_token_print(&t, ret_text);
	explicit_bzero(&t, sizeof t);
	return r;
}

/* ---- may it? ---- */

static int check_token(const struct access_question *q, const struct access_token_record *t, const char *authority, uint64_t now,
		       struct report *report)
{
	uint8_t made[ACCESS_RECORD_MAX];
	if (t && certificate_verify(authority, made, access_token_record_signed(t, made), t->signature, t->signature_length) < 0)
		return report_set(report, -EACCES, "the token wasn't made by this authority");
	if (!t || t->expires_s < now)
		return report_set(report, -EACCES, "the token has been used or has expired (make another: aquifer cluster token)");
	if (!(t->roles & q->role) && !PLANTED(access_token_any_role))
		return report_set(report, -EACCES, "the token isn't for a%s, or was used for that", q->role == ROLE_AGENT ? "n agent" : " server");
	if (t->host[0] && strcmp(t->host, q->host) != 0)
		return report_set(report, -EACCES, "the token is for host %s, not for %s", t->host, q->host);
	if (q->signature_length != 64 || certificate_seed_verify(t->key, q->signed_bytes, q->signed_length, q->signature) < 0)
		return report_set(report, -EACCES, "the request isn't signed by its token");
	return 0;
}

static int check_renewal(const struct access_question *q, const char *authority, uint64_t now, struct report *report)
{
	struct identity_name name;
	if (certificate_check(q->certificate, authority, now, &name) < 0)
		return report_set(report, -EACCES, "the certificate that is to be renewed isn't valid (enrol the host again: aquifer cluster token)");
	if (name.role != q->role || strcmp(name.host, q->host) != 0)
		return report_set(report, -EACCES, "the certificate that is to be renewed is another's");
	if (certificate_verify(q->certificate, q->signed_bytes, q->signed_length, q->signature, q->signature_length) < 0)
		return report_set(report, -EACCES, "the request isn't signed by its certificate");
	return 0;
}

int access_question_check(const struct access_question *q, const struct access_token_record *token, const char *authority, uint64_t now,
			  struct report *report)
{
	return q->token ? check_token(q, token, authority, now, report) : check_renewal(q, authority, now, report);
}

/* ---- answering ---- */

struct serving {
	struct catalog *c;
	struct authority authority;
	struct identity_revoked *revoked;
	size_t revoked_count;
	void (*said)(void *arg, const char *line);
	void *arg;
	/* one request */
	struct access_question question;
	struct access_token_record token;
	struct catalog_txn txn;
};

/* What comes out of the list, to be worked on when it is over. */
struct waiting {
	struct waiting_one {
		char key[CATALOG_KEY_MAX + 1];
		uint8_t *bytes;
		size_t length;
		uint64_t revision;
	} one[ACCESS_PASS_MAX];
	unsigned count;
};

static int collect(void *arg, const char *key, const struct catalog_value *v)
{
	struct waiting *w = arg;
	if (w->count == ACCESS_PASS_MAX)
		return 0;
	struct waiting_one *o = &w->one[w->count];
	o->bytes = malloc(v->length + 1);
	if (!o->bytes)
		return -ENOMEM;
	memcpy(o->bytes, v->bytes, v->length);
	o->length = v->length;
	o->revision = v->revision;
	snprintf(o->key, sizeof o->key, "%s", key);
	w->count++;
	return 0;
}

static void waiting_free(struct waiting *w)
{
	for (unsigned i = 0; w && i < w->count; i++)
		free(w->one[i].bytes);
	free(w);
}

static bool revoked(const struct serving *s, const struct access_question *q)
{
	X509 *x = q->token ? NULL : identity_certificate(q->certificate);
	struct identity_name name;
	struct identity list = { .revoked = s->revoked, .revoked_count = s->revoked_count };
	bool is = x && identity_of(x, &name) == 0 && identity_is_revoked(&list, &name);
	X509_free(x);
	return is;
}

/* FIBER. `*ret_status`: 0 and the certificate; otherwise no, and why. Adds to the transaction what hangs on the token. 0, or -errno of the
 * catalog: not now. */
static int decide(struct serving *s, int *ret_status, char **ret_certificate, char token_key[CATALOG_KEY_MAX + 1], struct report *report)
{
	struct access_question *q = &s->question;
	struct catalog_value v = { 0 };
	uint64_t revision = 0;
	bool known = false;
	int r = 0;
	if (q->token) {
		key_of(ACCESS_TOKENS, q->token, token_key);
		r = catalog_get(s->c, token_key, &v);
		if (r < 0 && r != -ENOENT)
			return r;
		revision = v.revision;
		known = r == 0 && access_token_record_decode(v.bytes, v.length, &s->token) == 0;
		catalog_value_free(&v);
	}
	r = access_question_check(q, known ? &s->token : NULL, s->authority.certificate, now_s(s->c), report);
	if (r == 0 && !PLANTED(access_renews_revoked) && revoked(s, q))
		r = report_set(report, -EACCES, "host %s was revoked (enrol it again: aquifer cluster token)", q->host);
	if (r == 0)
		r = certificate_issue(s->authority.certificate, s->authority.key, q->request, q->request_length, q->role, q->host, now_s(s->c),
				      CERTIFICATE_LIFE_S, ret_certificate, report);
	if (r == 0 && q->token)
		catalog_txn_compare(&s->txn, token_key, revision);
	*ret_status = r;
	return 0;
}

static uint8_t *answer_encode(struct serving *s, int status, const char *text, char *certificate, size_t *ret_length)
{
	Aquifer__Access__Answer m = AQUIFER__ACCESS__ANSWER__INIT;
	m.status = status;
	m.text = (char *)(uintptr_t)(status < 0 ? text : "");
	if (status == 0) {
		m.certificate = certificate;
		m.authority = s->authority.certificate;
	}
	m.asked_s = now_s(s->c);
	uint8_t *bytes = malloc(aquifer__access__answer__get_packed_size(&m));
	if (bytes)
		*ret_length = aquifer__access__answer__pack(&m, bytes);
	return bytes;
}

/* The token without the role, or gone. */
static uint8_t *spend_token(struct serving *s, const char *token_key)
{
	size_t length = 0;
	uint8_t *bytes = NULL;
	if (!s->question.token)
		return NULL;
	s->token.roles &= ~(unsigned)s->question.role;
	if (s->token.roles)
		bytes = access_token_record_encode(&s->token, &length);
	if (bytes)
		catalog_txn_put(&s->txn, token_key, bytes, length);
	else
		catalog_txn_delete(&s->txn, token_key);
	return bytes;
}

/* FIBER. Grants and refuses alike: the answer is there and the request gone, or nothing has happened. */
static int answer_one(struct serving *s, const struct waiting_one *o)
{
	struct report why = { "" };
	char token_key[CATALOG_KEY_MAX + 1], answer_key[CATALOG_KEY_MAX + 1], line[512], issued_key[CATALOG_KEY_MAX + 1], *certificate = NULL;
	uint8_t *issued = NULL;
	size_t length;
	catalog_txn_init(&s->txn);
	catalog_txn_compare(&s->txn, o->key, o->revision);
	catalog_txn_delete(&s->txn, o->key);
	int r = 0, status = access_request_decode(o->bytes, o->length, &s->question);
	if (status == 0)
		r = decide(s, &status, &certificate, token_key, &why);
	else
		report_set(&why, status, "that is no request");
	if (r < 0)
		return r;
	uint8_t *bytes = answer_encode(s, status, report_text(&why, status), certificate, &length), *token = NULL;
	r = bytes ? 0 : -ENOMEM;
	if (r == 0) {
		snprintf(answer_key, sizeof answer_key, "%s%.64s", ANSWERS, o->key + strlen(ACCESS_REQUESTS));
		catalog_txn_put(&s->txn, answer_key, bytes, length);
		if (status == 0) {
			token = spend_token(s, token_key);
			issued = access_issued_put(&s->txn, s->question.role, s->question.host, now_s(s->c) + CERTIFICATE_LIFE_S, issued_key);
		}
		r = catalog_txn(s->c, &s->txn, NULL);
	}
	const struct access_question *q = &s->question;
	if (status == 0)
		snprintf(line, sizeof line, "%s certificate for %s, host %s", q->token ? "a" : "a new", identity_role_name(q->role), q->host);
	else
		snprintf(line, sizeof line, "a request for a certificate was refused: %s", report_text(&why, status));
	if (r == 0)
		s->said(s->arg, line);
	free(bytes);
	free(token);
	free(issued);
	free(certificate);
	return r == -EAGAIN ? 0 : r; /* somebody else did it, or the token changed: next time */
}

/* ---- tidying up ---- */

static uint64_t answer_time(const uint8_t *bytes, size_t length)
{
	Aquifer__Access__Answer *m = aquifer__access__answer__unpack(NULL, length, bytes);
	uint64_t s = m ? m->asked_s + ACCESS_FORGET_S : 0;
	if (m)
		aquifer__access__answer__free_unpacked(m, NULL);
	return s;
}

static uint64_t token_time(const uint8_t *bytes, size_t length)
{
	struct access_token_record t;
	return access_token_record_decode(bytes, length, &t) == 0 ? t.expires_s : 0;
}

/* FIBER. Deletes what is past its time. */
static int take_away(struct catalog *c, const char *prefix, uint64_t (*until)(const uint8_t *bytes, size_t length), struct catalog_txn *t)
{
	struct waiting *w = calloc(1, sizeof *w);
	int r = w ? catalog_list(c, prefix, collect, w) : -ENOMEM;
	catalog_txn_init(t);
	for (unsigned i = 0; r == 0 && i < w->count && t->change_count < CATALOG_TXN_MAX / 2; i++)
		if (until(w->one[i].bytes, w->one[i].length) < now_s(c)) {
			catalog_txn_compare(t, w->one[i].key, w->one[i].revision);
			catalog_txn_delete(t, w->one[i].key);
		}
	if (r == 0 && t->change_count > 0)
		r = catalog_txn(c, t, NULL);
	waiting_free(w);
	return r == -EAGAIN ? 0 : r;
}

static int serve(struct serving *s, const char *root, bool tidy)
{
	struct waiting *w = calloc(1, sizeof *w);
	int r = w ? catalog_list(s->c, ACCESS_REQUESTS, collect, w) : -ENOMEM;
	if (r == 0 && w->count > 0)
		r = access_revoked_known(s->c, root, /* keep= */ true, &s->revoked, &s->revoked_count);
	for (unsigned i = 0; r == 0 && i < w->count; i++)
		r = answer_one(s, &w->one[i]);
	waiting_free(w);
	if (r == 0 && tidy)
		r = take_away(s->c, ANSWERS, answer_time, &s->txn);
	return r == 0 && tidy ? take_away(s->c, ACCESS_TOKENS, token_time, &s->txn) : r;
}

int access_serve(struct catalog *c, const char *root, bool tidy, void (*said)(void *arg, const char *line), void *arg, struct report *report)
{
	struct serving *s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	s->c = c;
	s->said = said;
	s->arg = arg;
	int r = authority_read(c->env, root, &s->authority, report);
	if (r == 0 && (r = serve(s, root, tidy)) < 0)
		say_catalog(c, r, report);
	authority_free(&s->authority);
	free(s->revoked);
	free(s);
	return r;
}
