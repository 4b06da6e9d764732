/* A host's side: asking for a certificate and writing it down. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/config.h"
#include "core/fiber.h"
#include "core/option.h"
#include "parallax/access/access.h"
#include "proto/access.pb-c.h"

#define ASK_NS (200 * NS_PER_MS)

struct joining {
	struct catalog *c;
	const char *root;
	struct access_question question;
	struct access_token token;
	bool renews;
	char *old;                 /* of a renewal: the certificate and key it has */
	char *key;                 /* the new one */
	char *certificate, *authority;
	struct report *report;
};

static int set_host(struct joining *j)
{
	char *host = j->question.host;
	int r = config_host(j->c->env, j->root, host, j->report);
	if (r == 0 && !name_valid(host))
		r = report_set(j->report, -EINVAL, "this host's name, '%s', can't stand in a certificate (letters, digits, dots, dashes, at most 63; say another: host = NAME in etc/aquifer/aquifer.conf)", host);
	return r;
}

static int make_key(struct joining *j)
{
	struct access_question *q = &j->question;
	uint8_t *request;
	size_t length;
	int r = certificate_key(&j->key);
	if (r == 0)
		r = certificate_request(j->key, &request, &length);
	if (r < 0)
		return r;
	if (length <= sizeof q->request) {
		memcpy(q->request, request, length);
		q->request_length = length;
	} else {
		r = -EMSGSIZE;
	}
	free(request);
	return r;
}

/* The certificate alone: the key behind it stays here. */
static int set_old(struct joining *j)
{
	const char *end = strstr(j->old, "-----END CERTIFICATE-----");
	size_t n = end ? (size_t)(end - j->old) + strlen("-----END CERTIFICATE-----") : 0;
	if (n == 0 || n + 2 > sizeof j->question.certificate)
		return report_set(j->report, -EBADMSG, "the certificate this host has can't be read");
	memcpy(j->question.certificate, j->old, n);
	strcpy(j->question.certificate + n, "\n");
	return 0;
}

static int sign(struct joining *j)
{
	struct access_question *q = &j->question;
	int r = access_question_pack(q);
	if (r < 0)
		return r;
	q->asked_s = env_wall_ns(j->c->env) / NS_PER_S;
	if (j->renews)
		return certificate_sign(j->old, q->signed_bytes, q->signed_length, q->signature, &q->signature_length);
	q->signature_length = 64;
	return certificate_seed_sign(j->token.seed, q->signed_bytes, q->signed_length, q->signature);
}

/* ---- through the catalog ---- */

static int take_answer(struct joining *j, const struct catalog_value *v)
{
	Aquifer__Access__Answer *m = aquifer__access__answer__unpack(NULL, v->length, v->bytes);
	int r = -EBADMSG;
	if (!m)
		return report_set(j->report, r, "the authority's answer makes no sense (is it another version?)");
	if (m->status < 0) {
		r = report_set(j->report, m->status < -4095 ? -EACCES : m->status, "the authority refuses: %.400s", m->text);
	} else {
		j->certificate = strdup(m->certificate);
		j->authority = strdup(m->authority);
		r = j->certificate && j->authority ? 0 : -ENOMEM;
	}
	aquifer__access__answer__free_unpacked(m, NULL);
	return r;
}

static int change(struct catalog *c, const char *key, const void *bytes, size_t length)
{
	struct catalog_txn *t = malloc(sizeof *t);
	if (!t)
		return -ENOMEM;
	catalog_txn_init(t);
	if (bytes)
		catalog_txn_put(t, key, bytes, length);
	else
		catalog_txn_delete(t, key);
	int r = catalog_txn(c, t, NULL);
	free(t);
	return r;
}

static int wait_for_answer(struct joining *j, const char *key)
{
	struct env *env = j->c->env;
	struct catalog_value v = { 0 };
	uint64_t until = env_now_ns(env) + ACCESS_WAIT_NS;
	int r;
	while ((r = catalog_get(j->c, key, &v)) == -ENOENT || catalog_away(r)) {
		if (env_now_ns(env) >= until)
			return report_set(j->report, -ETIMEDOUT, "nobody answers (does the agent run on the host of the cluster's authority? aquifer agent start)");
		if (fiber_sleep(&env->loop, ASK_NS) < 0)
			return -ESHUTDOWN;
	}
	if (r < 0)
		return report_set(j->report, r, "the catalog: %s", catalog_text(j->c, r));
	r = take_answer(j, &v);
	catalog_value_free(&v);
	return r;
}

/* FIBER. */
static int ask(struct joining *j)
{
	char request_key[CATALOG_KEY_MAX + 1], answer_key[CATALOG_KEY_MAX + 1];
	uint64_t id;
	size_t length = 0;
	int r = sign(j);
	if (r == 0)
		r = certificate_random(&id, sizeof id);
	uint8_t *bytes = r == 0 ? access_request_encode(&j->question, &length) : NULL;
	if (r < 0 || !bytes)
		return r < 0 ? r : -ENOMEM;
	snprintf(request_key, sizeof request_key, "access/request/%016" PRIx64, id);
	snprintf(answer_key, sizeof answer_key, "access/answer/%016" PRIx64, id);
	r = change(j->c, request_key, bytes, length);
	free(bytes);
	if (r < 0)
		return report_set(j->report, r, "the catalog: %s", catalog_text(j->c, r));
	r = wait_for_answer(j, answer_key);
	change(j->c, r == -ETIMEDOUT ? request_key : answer_key, NULL, 0); /* if it stays, the authority takes it away later */
	return r;
}

/* ---- where the authority is ---- */

static int issue_here(struct joining *j)
{
	struct access_question *q = &j->question;
	char *authority_key = NULL;
	int r = access_read(j->c->env, j->root, "authority.key", &authority_key, j->report);
	if (r == 0)
		r = access_read(j->c->env, j->root, "authority.crt", &j->authority, j->report);
	if (r == 0)
		r = certificate_issue(j->authority, authority_key, q->request, q->request_length, q->role, q->host,
				      env_wall_ns(j->c->env) / NS_PER_S, CERTIFICATE_LIFE_S, &j->certificate, j->report);
	certificate_wipe(authority_key);
	return r;
}

/* ---- writing it down ---- */

/* Is it the authority that we know? */
static int check_authority(struct joining *j)
{
	uint8_t print[CERTIFICATE_PRINT_BYTES], known[CERTIFICATE_PRINT_BYTES];
	char *here = NULL;
	if (certificate_print(j->authority, print) < 0)
		return report_set(j->report, -EBADMSG, "the authority's certificate can't be read");
	if (!j->renews && j->question.token && memcmp(print, j->token.authority, sizeof print) != 0)
		return report_set(j->report, -EKEYREJECTED, "who answered isn't the authority that made the token");
	int r = access_read(j->c->env, j->root, "authority.crt", &here, j->report);
	if (r == 0 && (certificate_print(here, known) < 0 || memcmp(print, known, sizeof print) != 0))
		r = report_set(j->report, -EEXIST, "this host belongs to another cluster (its authority is in etc/aquifer/tls; remove that directory first)");
	free(here);
	return r == -ENOENT ? 0 : r;
}

static int check_certificate(struct joining *j)
{
	struct identity_name name;
	struct identity *i;
	struct identity_pem pem = { j->authority, j->certificate, j->key };
	int r = certificate_check(j->certificate, j->authority, env_wall_ns(j->c->env) / NS_PER_S, &name);
	if (r < 0)
		return report_set(j->report, r, "the certificate isn't valid here (do the clocks of this host and the authority's agree?)");
	if (name.role != j->question.role || strcmp(name.host, j->question.host) != 0)
		return report_set(j->report, -EKEYREJECTED, "the certificate is another's");
	r = identity_create(&pem, &i, j->report);
	if (r == 0)
		identity_put(i);
	return r;
}

static int write_down(struct joining *j, bool here)
{
	char *both = NULL;
	int r = check_authority(j);
	if (r == 0)
		r = check_certificate(j);
	if (r == 0 && asprintf(&both, "%s%s", j->certificate, j->key) < 0)
		r = -ENOMEM;
	if (r == 0)
		r = access_write(j->c->env, j->root, "authority.crt", j->authority, j->report);
	if (r == 0)
		r = access_write(j->c->env, j->root, access_file(j->question.role), both, j->report);
	certificate_wipe(both);
	if (r == 0 && here) /* otherwise the authority has noted it */
		access_issued_note(j->c, j->question.role, j->question.host, env_wall_ns(j->c->env) / NS_PER_S + CERTIFICATE_LIFE_S);
	return r;
}

static int join(struct joining *j, bool here)
{
	int r = set_host(j);
	if (r == 0)
		r = make_key(j);
	if (r == 0)
		r = here ? issue_here(j) : ask(j);
	return r == 0 ? write_down(j, here) : r;
}

static struct joining *joining_new(struct catalog *c, const char *root, enum identity_role role, struct report *report)
{
	struct joining *j = calloc(1, sizeof *j);
	if (j) {
		*j = (struct joining){ .c = c, .root = root, .report = report };
		j->question.role = role;
	}
	return j;
}

static void joining_free(struct joining *j)
{
	certificate_wipe(j->old);
	certificate_wipe(j->key);
	free(j->certificate);
	free(j->authority);
	explicit_bzero(j, sizeof *j);
	free(j);
}

int access_join(struct catalog *c, const char *root, const char *token, enum identity_role role, struct report *report)
{
	struct joining *j = joining_new(c, root, role, report);
	int r = j ? 0 : -ENOMEM;
	if (r < 0)
		return r;
	if (token)
		r = access_token_read(token, &j->token, report);
	if (r == 0 && !token && !access_authority_here(c->env, root))
		r = access_not_here(c, "a token is needed: aquifer cluster token, there; then aquifer cluster join TOKEN, here", report);
	j->question.token = j->token.id;
	if (r == 0)
		r = join(j, /* here= */ !token);
	joining_free(j);
	return r;
}

int access_renew(struct catalog *c, const char *root, enum identity_role role, struct report *report)
{
	struct joining *j = joining_new(c, root, role, report);
	if (!j)
		return -ENOMEM;
	j->renews = true;
	int r = access_read(c->env, root, access_file(role), &j->old, report);
	if (r == -ENOENT)
		report_set(report, r, "this host has no certificate for a%s", role == ROLE_AGENT ? "n agent" : " server");
	if (r == 0)
		r = set_old(j);
	if (r == 0)
		r = join(j, access_authority_here(c->env, root));
	joining_free(j);
	return r;
}
