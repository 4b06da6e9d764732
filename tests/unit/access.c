/* Who may take part: tokens, requests and answers through a catalog in a file, between roots that stand for hosts. */
#include "parallax/access/access.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/catalog/catalog_access.h"
#include "parallax/catalog/meta.h"
#include "tests/unit/tempdir.h"
#include "tests/unit/tlstest.h"

#define NOW UINT64_C(1800000000)

/* ---- codecs ---- */

Test(access, a_token_is_read_as_it_was_printed_and_no_other_way)
{
	struct access_token t = { .id = 0x123456789abcdef1, .roles = ROLE_ANY }, back;
	char text[ACCESS_TOKEN_BYTES], other[ACCESS_TOKEN_BYTES];
	for (unsigned i = 0; i < 32; i++) {
		t.seed[i] = (uint8_t)(i * 37);
		t.authority[i] = (uint8_t)(255 - i * 11);
	}
	access_token_print(&t, text);
	cr_assert_eq(strlen(text), 112);
	cr_assert_eq(access_token_parse(text, &back), 0);
	cr_assert_eq(back.id, t.id);
	cr_assert_eq(back.roles, t.roles);
	cr_assert_eq(memcmp(t.seed, back.seed, 32), 0);
	cr_assert_eq(memcmp(t.authority, back.authority, 32), 0);
	for (size_t i = 0; text[i]; i++) {
		strcpy(other, text);
		other[i] = other[i] == 'A' ? 'B' : 'A';
		cr_assert_eq(access_token_parse(other, &back), -EINVAL, "letter %zu", i);
		other[i] = 0;
		cr_assert_eq(access_token_parse(other, &back), -EINVAL, "%zu letters", i);
	}
	snprintf(other, sizeof other, "%sA", text);
	cr_assert_eq(access_token_parse(other, &back), -EINVAL);
	cr_assert_eq(access_token_parse("", &back), -EINVAL);
	static const struct {
		const char *token, *said;
		int status;
	} read[] = {
		{ "aquifer2.AAAA", "the token is of version 2, newer than this program knows (1): upgrade this program", -EPROTONOSUPPORT },
		{ "aquifer17.", "the token is of version 17", -EPROTONOSUPPORT },
		{ "aquifer0.AAAA", "that is no token", -EINVAL },
		{ "aquifer1.AAAA", "that is no token", -EINVAL },
		{ "aquifer2", "that is no token", -EINVAL },
		{ "web1", "that is no token", -EINVAL },
	};
	for (unsigned i = 0; i < ARRAY_COUNT(read); i++) {
		struct report report = { "" };
		cr_assert_eq(access_token_read(read[i].token, &back, &report), read[i].status, "%s", read[i].token);
		cr_assert_eq(strncmp(report.text, read[i].said, strlen(read[i].said)), 0, "%s", report.text);
	}
}

struct asking {
	struct tlstest_authority authority;
	struct access_token token;
	struct access_token_record record;
	struct access_question *q;
	char *key;
};

static void sign(struct asking *a)
{
	cr_assert_eq(access_question_pack(a->q), 0);
	a->q->signature_length = 64;
	cr_assert_eq(certificate_seed_sign(a->token.seed, a->q->signed_bytes, a->q->signed_length, a->q->signature), 0);
}

static void certify(struct asking *a) { cr_assert_eq(access_token_record_sign(&a->record, a->authority.key), 0); }

static void asking_make(struct asking *a)
{
	uint8_t *request;
	*a = (struct asking){ .token = { .id = 7, .roles = ROLE_AGENT }, .record = { .roles = ROLE_AGENT, .granted = ROLE_AGENT, .expires_s = NOW + 10 } };
	tlstest_authority(&a->authority, NOW);
	cr_assert_eq(certificate_random(a->token.seed, 32), 0);
	cr_assert_eq(certificate_seed_public(a->token.seed, a->record.key), 0);
	certify(a);
	a->q = calloc(1, sizeof *a->q);
	a->q->role = ROLE_AGENT;
	a->q->token = 7;
	strcpy(a->q->host, "beta");
	cr_assert_eq(certificate_key(&a->key), 0);
	cr_assert_eq(certificate_request(a->key, &request, &a->q->request_length), 0);
	memcpy(a->q->request, request, a->q->request_length);
	free(request);
	sign(a);
}

static void asking_free(struct asking *a)
{
	tlstest_authority_free(&a->authority);
	certificate_wipe(a->key);
	free(a->q);
}

static void expect(struct asking *a, const struct access_token_record *record, uint64_t now_s, const char *why)
{
	struct report report = { "" };
	int r = access_question_check(a->q, record, a->authority.certificate, now_s, &report);
	cr_assert_eq(r, *why ? -EACCES : 0, "%s", report.text);
	cr_assert(strstr(report.text, why), "%s", report.text);
}

Test(access, a_token_is_good_for_what_it_says_and_until_then)
{
	struct asking a;
	asking_make(&a);
	expect(&a, &a.record, NOW, "");
	expect(&a, &a.record, NOW + 10, "");
	expect(&a, &a.record, NOW + 11, "has expired");
	expect(&a, NULL, NOW, "has been used");
	strcpy(a.record.host, "beta");
	expect(&a, &a.record, NOW, "wasn't made by this authority");
	certify(&a);
	expect(&a, &a.record, NOW, "");
	strcpy(a.record.host, "gamma");
	certify(&a);
	expect(&a, &a.record, NOW, "for host gamma");
	a.record.host[0] = 0;
	certify(&a);
	a.record.roles = 0;
	expect(&a, &a.record, NOW, "isn't for an agent");
	a.record.roles = a.record.granted = ROLE_ANY;
	expect(&a, &a.record, NOW, "wasn't made by this authority");
	certify(&a);
	a.record.expires_s += 1000;
	expect(&a, &a.record, NOW, "wasn't made by this authority");
	a.record.expires_s -= 1000;
	a.q->signed_bytes[a.q->signed_length - 1] ^= 1;
	expect(&a, &a.record, NOW, "isn't signed");
	sign(&a);
	a.q->signature[5] ^= 1;
	expect(&a, &a.record, NOW, "isn't signed");
	sign(&a);
	a.q->signature_length = 63;
	expect(&a, &a.record, NOW, "isn't signed");
	sign(&a);
	expect(&a, &a.record, NOW, "");
	a.token.seed[0] ^= 1; /* another token's */
	sign(&a);
	expect(&a, &a.record, NOW, "isn't signed");
	asking_free(&a);
}

Test(access, a_certificate_is_renewed_for_who_has_it)
{
	struct asking a;
	char *certificate = NULL, *other_key;
	asking_make(&a);
	struct access_question *q = a.q;
	cr_assert_eq(certificate_issue(a.authority.certificate, a.authority.key, q->request, q->request_length, ROLE_AGENT, "beta", NOW, 1000,
				       &certificate, NULL), 0);
	q->token = 0;
	strcpy(q->certificate, certificate);
	cr_assert_eq(access_question_pack(q), 0);
	cr_assert_eq(certificate_sign(a.key, q->signed_bytes, q->signed_length, q->signature, &q->signature_length), 0);
	expect(&a, NULL, NOW, "");
	expect(&a, NULL, NOW + 1001, "isn't valid");
	strcpy(q->host, "gamma");
	expect(&a, NULL, NOW, "another's");
	strcpy(q->host, "beta");
	q->role = ROLE_SERVER;
	expect(&a, NULL, NOW, "another's");
	q->role = ROLE_AGENT;
	cr_assert_eq(certificate_key(&other_key), 0);
	cr_assert_eq(certificate_sign(other_key, q->signed_bytes, q->signed_length, q->signature, &q->signature_length), 0);
	expect(&a, NULL, NOW, "isn't signed");
	certificate_wipe(other_key);
	free(certificate);
	asking_free(&a);
}

Test(access, a_request_is_read_as_it_was_written_and_damage_is_no_request)
{
	struct asking a;
	struct access_question *back = calloc(1, sizeof *back);
	asking_make(&a);
	size_t n;
	uint8_t *bytes = access_request_encode(a.q, &n);
	cr_assert_eq(access_request_decode(bytes, n, back), 0);
	cr_assert_eq(back->role, ROLE_AGENT);
	cr_assert_str_eq(back->host, "beta");
	cr_assert_eq(back->token, 7);
	cr_assert_eq(back->request_length, a.q->request_length);
	cr_assert_eq(memcmp(back->request, a.q->request, back->request_length), 0);
	unsigned refused = 0;
	for (size_t i = 0; i < n; i++) {
		bytes[i] ^= 0x20;
		struct report why = { "" };
		int r = access_request_decode(bytes, n, back);
		if (r == 0)
			r = access_question_check(back, &a.record, a.authority.certificate, NOW, &why);
		refused += r < 0;
		bytes[i] ^= 0x20;
	}
	cr_assert_geq(refused, n - 10); /* all but when it was asked */
	cr_assert_eq(access_request_decode(bytes, n / 2, back), -EBADMSG);
	cr_assert_eq(access_request_decode(bytes, 0, back), -EBADMSG);
	free(bytes);
	free(back);
	asking_free(&a);
}

Test(access, a_token_is_noted_and_read_back)
{
	struct access_token_record t = { .roles = ROLE_SERVER, .granted = ROLE_ANY, .expires_s = NOW, .host = "beta", .signature_length = 70 }, back;
	size_t n;
	memset(t.key, 7, sizeof t.key);
	memset(t.signature, 9, t.signature_length);
	uint8_t *bytes = access_token_record_encode(&t, &n);
	cr_assert_eq(access_token_record_decode(bytes, n, &back), 0);
	cr_assert(back.roles == t.roles && back.granted == t.granted && back.expires_s == NOW && back.signature_length == 70);
	cr_assert_str_eq(back.host, "beta");
	cr_assert_eq(memcmp(back.key, t.key, sizeof t.key), 0);
	cr_assert_eq(access_token_record_decode(bytes, n - 1, &back), -EBADMSG);
	cr_assert_eq(access_token_record_decode("", 0, &back), -EBADMSG);
	free(bytes);
	t.signature_length = 0; /* whose would it be? */
	bytes = access_token_record_encode(&t, &n);
	cr_assert_eq(access_token_record_decode(bytes, n, &back), -EBADMSG);
	free(bytes);
}

/* ---- through the catalog ---- */

struct world {
	struct env *env;
	char dir[64], alpha[80], beta[80], gamma[80];
	struct catalog *catalog;
	struct report report;
	bool stop, stopped;
	unsigned said, issued;
	int (*body)(struct world *w);
};

static void said(void *arg, const char *line)
{
	(void)line;
	((struct world *)arg)->said++;
}

/* The authority's agent. */
static int serve(void *arg)
{
	struct world *w = arg;
	while (!w->stop) {
		access_serve(w->catalog, w->alpha, /* tidy= */ true, said, w, NULL);
		fiber_sleep(&w->env->loop, 20 * NS_PER_MS);
	}
	w->stopped = true;
	return 0;
}

static void name_host(const char *root, const char *host)
{
	char command[400];
	snprintf(command, sizeof command, "mkdir -p %s/etc/aquifer && echo 'host = %s' >%s/etc/aquifer/aquifer.conf", root, host, root);
	cr_assert_eq(system(command), 0);
}

static int world_body(void *arg)
{
	struct world *w = arg;
	char url[128];
	snprintf(url, sizeof url, "sqlite:%s/catalog.db", w->dir);
	cr_assert_eq(catalog_open(w->env, url, NULL, /* create= */ true, &w->catalog, &w->report), 0, "%s", w->report.text);
	cr_assert_eq(access_authority_make(w->catalog, w->alpha, &w->report), 0, "%s", w->report.text);
	cr_assert_eq(fiber_start(&w->env->loop, serve, w, NULL), 0);
	w->body(w);
	w->stop = true;
	while (!w->stopped)
		fiber_sleep(&w->env->loop, NS_PER_MS);
	catalog_close(w->catalog);
	return 0;
}

static void world_run(int (*body)(struct world *w))
{
	struct world w = { .dir = "/tmp/aqaccess.XXXXXX", .body = body };
	cr_assert(mkdtemp(w.dir));
	snprintf(w.alpha, sizeof w.alpha, "%s/alpha", w.dir);
	snprintf(w.beta, sizeof w.beta, "%s/beta", w.dir);
	snprintf(w.gamma, sizeof w.gamma, "%s/gamma", w.dir);
	name_host(w.alpha, "alpha");
	name_host(w.beta, "beta");
	name_host(w.gamma, "gamma");
	cr_assert_eq(env_linux_create(1, &w.env), 0);
	cr_assert_eq(env_linux_run_fiber(w.env, world_body, &w), 0);
	identity_put(w.env->identity);
	env_linux_destroy(w.env);
	tempdir_remove(w.dir);
}

#define ACCESS_TEST(name)                                \
	static int access_##name(struct world *w);       \
	Test(access, name) { world_run(access_##name); } \
	static int access_##name(struct world *w)

static void good(struct world *w, int r) { cr_assert_eq(r, 0, "%s", report_text(&w->report, r)); }
static void bad(struct world *w, int r, int want, const char *text)
{
	cr_assert_eq(r, want, "%d: %s", r, w->report.text);
	cr_assert(strstr(w->report.text, text), "%s", w->report.text);
	w->report.text[0] = 0;
}

ACCESS_TEST(a_token_enrols_once_for_each_role)
{
	char token[ACCESS_TOKEN_BYTES];
	struct catalog_value v;
	bad(w, access_token_new(w->catalog, w->beta, ROLE_ANY, NULL, 60, token, &w->report), -ENOENT, "isn't on this host");
	good(w, access_token_new(w->catalog, w->alpha, ROLE_ANY, NULL, 60, token, &w->report));
	good(w, access_join(w->catalog, w->beta, token, ROLE_AGENT, &w->report));
	bad(w, access_join(w->catalog, w->gamma, token, ROLE_AGENT, &w->report), -EACCES, "isn't for an agent, or was used");
	good(w, access_join(w->catalog, w->beta, token, ROLE_SERVER, &w->report));
	bad(w, access_join(w->catalog, w->gamma, token, ROLE_SERVER, &w->report), -EACCES, "has been used");
	cr_assert_eq(w->said, 4);
	good(w, access_load(w->env, w->beta, ROLE_AGENT, &w->report));
	cr_assert_eq(w->env->identity->name.role, ROLE_AGENT);
	cr_assert_str_eq(w->env->identity->name.host, "beta");
	good(w, access_load(w->env, w->beta, ROLE_SERVER, &w->report));
	cr_assert_eq(w->env->identity->name.role, ROLE_SERVER);
	cr_assert_eq(access_load(w->env, w->gamma, ROLE_SERVER, &w->report), -ENOENT);
	/* nothing is left in the catalog but the authority */
	cr_assert_eq(catalog_get(w->catalog, "access/authority", &v), 0);
	catalog_value_free(&v);
	return 0;
}

static int count_one(void *arg, const char *key, const struct catalog_value *v)
{
	(void)key;
	(void)v;
	++*(unsigned *)arg;
	return 0;
}

static unsigned count(struct world *w, const char *prefix)
{
	unsigned n = 0;
	cr_assert_eq(catalog_list(w->catalog, prefix, count_one, &n), 0);
	return n;
}

static int sum_issued(void *arg, const struct access_issued *i)
{
	struct world *w = arg;
	cr_assert_str_eq(i->host, "beta");
	cr_assert_leq(i->expires_s, env_wall_ns(w->env) / NS_PER_S + CERTIFICATE_LIFE_S);
	cr_assert_geq(i->expires_s, env_wall_ns(w->env) / NS_PER_S + CERTIFICATE_LIFE_S - 60);
	w->issued += i->role;
	return 0;
}

ACCESS_TEST(until_when_certificates_are_good_is_known)
{
	char token[ACCESS_TOKEN_BYTES], text[256];
	struct access_issued i = { "beta", ROLE_SERVER, NOW };
	good(w, access_token_new(w->catalog, w->alpha, ROLE_ANY, NULL, 60, token, &w->report));
	good(w, access_join(w->catalog, w->beta, token, ROLE_AGENT, &w->report));
	good(w, access_join(w->catalog, w->beta, token, ROLE_SERVER, &w->report));
	good(w, access_issued_list(w->catalog, sum_issued, w));
	cr_assert_eq(w->issued, ROLE_AGENT + ROLE_SERVER);
	good(w, access_revoke(w->catalog, "beta", &w->report));
	w->issued = 0;
	good(w, access_issued_list(w->catalog, sum_issued, w));
	cr_assert_eq(w->issued, 0);
	good(w, access_join(w->catalog, w->alpha, NULL, ROLE_SERVER, &w->report));
	cr_assert_eq(count(w, "access/issued/server/alpha"), 1);
	cr_assert(!access_issued_warns(&i, NOW - ACCESS_WARN_S, text, sizeof text));
	cr_assert(access_issued_warns(&i, NOW - ACCESS_WARN_S + 1, text, sizeof text) && strstr(text, "runs out in 29 days"));
	cr_assert(access_issued_warns(&i, NOW, text, sizeof text) && strstr(text, "as a server has run out"));
	return 0;
}

ACCESS_TEST(nothing_is_left_behind_and_nothing_is_noted_that_is_secret)
{
	char token[ACCESS_TOKEN_BYTES];
	good(w, access_token_new(w->catalog, w->alpha, ROLE_AGENT, NULL, 60, token, &w->report));
	cr_assert_eq(count(w, "access/token/"), 1);
	good(w, access_join(w->catalog, w->beta, token, ROLE_AGENT, &w->report));
	cr_assert_eq(count(w, "access/token/"), 0);
	cr_assert_eq(count(w, "access/request/"), 0);
	cr_assert_eq(count(w, "access/answer/"), 0);
	good(w, access_join(w->catalog, w->alpha, NULL, ROLE_SERVER, &w->report)); /* the authority's own host */
	bad(w, access_join(w->catalog, w->gamma, NULL, ROLE_SERVER, &w->report), -ENOENT, "a token is needed");
	bad(w, access_join(w->catalog, w->gamma, "aquifer1.x", ROLE_SERVER, &w->report), -EINVAL, "no token");
	return 0;
}

ACCESS_TEST(an_authority_that_is_added_is_trusted_though_the_certificate_stays)
{
	char token[ACCESS_TOKEN_BYTES], *text = NULL, *key = NULL, *other = NULL, *both = NULL;
	uint64_t now_s = env_wall_ns(w->env) / NS_PER_S;
	good(w, access_token_new(w->catalog, w->alpha, ROLE_ANY, NULL, 60, token, &w->report));
	good(w, access_join(w->catalog, w->beta, token, ROLE_AGENT, &w->report));
	good(w, access_load(w->env, w->beta, ROLE_AGENT, &w->report));
	struct identity *before = identity_get(w->env->identity);
	good(w, access_load(w->env, w->beta, ROLE_AGENT, &w->report));
	cr_assert_eq(w->env->identity, before, "nothing was changed");
	good(w, certificate_key(&key));
	good(w, certificate_authority(key, "another", now_s, &other));
	good(w, access_read(w->env, w->beta, "authority.crt", &text, &w->report));
	cr_assert(asprintf(&both, "%s%s", text, other) > 0);
	good(w, access_write(w->env, w->beta, "authority.crt", both, &w->report));
	good(w, access_load(w->env, w->beta, ROLE_AGENT, &w->report));
	cr_assert_neq(w->env->identity, before, "it is as if nobody had been added");
	identity_put(before);
	certificate_wipe(key);
	free(text);
	free(other);
	free(both);
	return 0;
}

ACCESS_TEST(who_was_revoked_is_not_renewed_but_can_be_enrolled_again)
{
	char token[ACCESS_TOKEN_BYTES];
	struct identity_revoked *list;
	size_t n;
	bad(w, access_renew(w->catalog, w->beta, ROLE_AGENT, &w->report), -ENOENT, "no certificate");
	good(w, access_token_new(w->catalog, w->alpha, ROLE_ANY, NULL, 60, token, &w->report));
	good(w, access_join(w->catalog, w->beta, token, ROLE_AGENT, &w->report));
	good(w, access_renew(w->catalog, w->beta, ROLE_AGENT, &w->report));
	good(w, access_load(w->env, w->beta, ROLE_AGENT, &w->report));
	cr_assert_eq(access_revoked(w->catalog, &list, &n), 0);
	cr_assert_eq(n, 0);
	free(list);
	good(w, access_revoke(w->catalog, "beta", &w->report));
	cr_assert_eq(access_revoked(w->catalog, &list, &n), 0);
	cr_assert_eq(n, 1);
	cr_assert_str_eq(list[0].host, "beta");
	cr_assert_eq(identity_revoke(w->env->identity, list, n), 0);
	cr_assert(identity_is_revoked(w->env->identity, &w->env->identity->name));
	free(list);
	bad(w, access_renew(w->catalog, w->beta, ROLE_AGENT, &w->report), -EACCES, "was revoked");
	fiber_sleep(&w->env->loop, 1100 * NS_PER_MS); /* certificates count seconds */
	good(w, access_join(w->catalog, w->beta, token, ROLE_SERVER, &w->report));
	good(w, access_load(w->env, w->beta, ROLE_SERVER, &w->report));
	cr_assert(!identity_is_revoked(w->env->identity, &w->env->identity->name));
	return 0;
}

/* By a token for its name, though nobody came with it yet; by a certificate; by having been revoked. By its agent or a server of plain text, too. */
ACCESS_TEST(who_was_never_heard_of_is_not_revoked_by_mistake)
{
	char token[ACCESS_TOKEN_BYTES], key[META_KEY_BYTES];
	struct meta_server server = { .incarnation = 1, .address = "tcp:x:1", .host = "delta" };
	uuid id = { { 9 } };
	size_t n = 0;
	good(w, access_token_new(w->catalog, w->alpha, ROLE_ANY, NULL, 60, token, &w->report));
	cr_assert_eq(access_heard_of(w->catalog, "beta"), 0);
	good(w, access_join(w->catalog, w->beta, token, ROLE_AGENT, &w->report));
	cr_assert_eq(access_heard_of(w->catalog, "beta"), 1);
	cr_assert_eq(access_heard_of(w->catalog, "bet"), 0);
	cr_assert_eq(access_heard_of(w->catalog, "beta2"), 0);
	good(w, access_revoke(w->catalog, "beta", &w->report));
	cr_assert_eq(access_heard_of(w->catalog, "beta"), 1, "it may be revoked again");
	good(w, access_token_new(w->catalog, w->alpha, ROLE_SERVER, "epsilon", 60, token, &w->report));
	cr_assert_eq(access_heard_of(w->catalog, "epsilon"), 1);
	cr_assert_eq(access_heard_of(w->catalog, "delta"), 0);
	uint8_t *bytes = meta_server_encode(&server, &n);
	meta_key_server(&id, key);
	cr_assert_eq(catalog_put_at(w->catalog, key, 0, bytes, n), 0);
	free(bytes);
	cr_assert_eq(access_heard_of(w->catalog, "delta"), 1);
	meta_key_agent("zeta", key);
	cr_assert_eq(catalog_put_at(w->catalog, key, 0, "x", 1), 0);
	cr_assert_eq(access_heard_of(w->catalog, "zeta"), 1);
	return 0;
}

static void catalog_say(struct world *w, const char *key, const void *bytes, size_t n)
{
	struct catalog_txn *t = malloc(sizeof *t);
	catalog_txn_init(t);
	if (bytes)
		catalog_txn_put(t, key, bytes, n);
	else
		catalog_txn_delete(t, key);
	cr_assert_eq(catalog_txn(w->catalog, t, NULL), 0);
	free(t);
}

/* Until when `host` is revoked; 0: he isn't. */
static uint64_t revoked_until(struct world *w, const char *root, bool keep, const char *host)
{
	struct identity_revoked *list;
	size_t n;
	uint64_t until_s = 0;
	cr_assert_eq(access_revoked_known(w->catalog, root, keep, &list, &n), 0);
	for (size_t i = 0; i < n; i++)
		if (strcmp(list[i].host, host) == 0)
			until_s = list[i].until_s;
	free(list);
	return until_s;
}

ACCESS_TEST(a_revocation_outlives_its_entry_in_the_catalog)
{
	uint64_t now_s = env_wall_ns(w->env) / NS_PER_S;
	good(w, access_revoke(w->catalog, "beta", &w->report));
	cr_assert_eq(count(w, ACCESS_REVOKED), 1);
	uint64_t until_s = revoked_until(w, w->gamma, /* keep= */ false, "beta");
	cr_assert(until_s >= now_s && until_s <= now_s + 5);
	catalog_say(w, ACCESS_REVOKED "beta", NULL, 0);
	cr_assert_eq(revoked_until(w, w->gamma, /* keep= */ true, "beta"), 0); /* who hasn't seen it can't know */
	good(w, access_revoke(w->catalog, "beta", &w->report));
	until_s = revoked_until(w, w->gamma, /* keep= */ true, "beta");
	catalog_say(w, ACCESS_REVOKED "beta", NULL, 0);
	cr_assert_eq(revoked_until(w, w->gamma, /* keep= */ false, "beta"), until_s);
	cr_assert_eq(count(w, ACCESS_REVOKED), 0);
	cr_assert_eq(revoked_until(w, w->gamma, /* keep= */ true, "beta"), until_s);
	cr_assert_eq(revoked_until(w, w->beta, /* keep= */ false, "beta"), until_s, "it wasn't put back");
	/* nor is it made earlier */
	catalog_say(w, ACCESS_REVOKED "beta", "\x09\x01\0\0\0\0\0\0\0", 9);
	cr_assert_eq(revoked_until(w, w->gamma, /* keep= */ true, "beta"), until_s);
	cr_assert_eq(revoked_until(w, w->beta, /* keep= */ false, "beta"), until_s);
	/* what nobody can read, or means certificates to come, counts while it is there and no longer */
	catalog_say(w, ACCESS_REVOKED "delta", "?", 1);
	cr_assert_eq(revoked_until(w, w->gamma, /* keep= */ true, "delta"), UINT64_MAX);
	catalog_say(w, ACCESS_REVOKED "delta", NULL, 0);
	cr_assert_eq(revoked_until(w, w->gamma, /* keep= */ true, "delta"), 0);
	/* a file that was damaged takes nothing away from what the catalog says, and what it says of old certificates is dropped */
	good(w, access_write(w->env, w->gamma, "revoked", "\n\nx\n ../x 7\nbeta x\nepsilon 77\nzeta 18446744073709551615\nbeta", &w->report));
	cr_assert_eq(revoked_until(w, w->gamma, /* keep= */ true, "beta"), until_s);
	cr_assert_eq(revoked_until(w, w->gamma, /* keep= */ true, "epsilon"), 0);
	cr_assert_eq(revoked_until(w, w->gamma, /* keep= */ true, "zeta"), 0);
	catalog_say(w, ACCESS_REVOKED "beta", NULL, 0);
	cr_assert_eq(revoked_until(w, w->gamma, /* keep= */ true, "beta"), until_s, "it wasn't written down again");
	return 0;
}

/* Who can write the catalog may fill it with revocations of nobody; later ones count all the same, and are remembered no further than there is room. */
ACCESS_TEST(revocations_are_limited_and_what_is_remembered_leaves_room)
{
	uint64_t now_s = env_wall_ns(w->env) / NS_PER_S, until_s;
	char *text = malloc(IDENTITY_REVOKED_MAX * 40), *p = text;
	for (unsigned i = 0; i < IDENTITY_REVOKED_MAX + 10; i++)
		p += sprintf(p, "x%04u %llu\n", i, (unsigned long long)now_s - 5);
	good(w, access_write(w->env, w->gamma, "revoked", text, &w->report));
	free(text);
	good(w, access_revoke(w->catalog, "beta", &w->report));
	until_s = revoked_until(w, w->gamma, /* keep= */ false, "beta");
	cr_assert(until_s >= now_s);
	cr_assert_eq(revoked_until(w, w->gamma, /* keep= */ false, "x0000"), now_s - 5);
	cr_assert_eq(revoked_until(w, w->gamma, /* keep= */ false, "x4000"), 0);
	return 0;
}

ACCESS_TEST(one_cluster_has_one_authority)
{
	char token[ACCESS_TOKEN_BYTES], *text;
	good(w, access_authority_make(w->catalog, w->alpha, &w->report));
	bad(w, access_authority_make(w->catalog, w->gamma, &w->report), -EEXIST, "has an authority already");
	good(w, access_token_new(w->catalog, w->alpha, ROLE_ANY, NULL, 60, token, &w->report));
	bad(w, access_join(w->catalog, w->gamma, token, ROLE_AGENT, &w->report), -EEXIST, "belongs to another cluster");
	good(w, access_read(w->env, w->alpha, "authority.crt", &text, &w->report));
	free(text);
	return 0;
}

ACCESS_TEST(what_strangers_write_into_the_catalog_is_refused_and_goes)
{
	char key[64];
	for (unsigned i = 0; i < ACCESS_PASS_MAX + 50; i++) {
		struct catalog_txn *t = malloc(sizeof *t);
		catalog_txn_init(t);
		snprintf(key, sizeof key, "access/request/%s%04u", i % 7 ? "" : "with-a-name-longer-than-any-of-ours-", i);
		catalog_txn_put(t, key, "\x0a\x05junk!", 1 + i % 6);
		cr_assert_eq(catalog_txn(w->catalog, t, NULL), 0);
		free(t);
	}
	for (unsigned i = 0; count(w, "access/request/") > 0; i++) {
		cr_assert_lt(i, 1000);
		fiber_sleep(&w->env->loop, 10 * NS_PER_MS);
	}
	cr_assert_geq(w->said, ACCESS_PASS_MAX + 50);
	return 0;
}

ACCESS_TEST(damaged_files_are_named)
{
	good(w, access_join(w->catalog, w->alpha, NULL, ROLE_AGENT, &w->report));
	good(w, access_write(w->env, w->alpha, "agent.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &w->report));
	bad(w, access_load(w->env, w->alpha, ROLE_AGENT, &w->report), -EBADMSG, "etc/aquifer/tls");
	good(w, access_write(w->env, w->alpha, "agent.pem", "", &w->report));
	bad(w, access_load(w->env, w->alpha, ROLE_AGENT, &w->report), -EBADMSG, "certificate can't be read");
	cr_assert_null(w->env->identity);
	return 0;
}
