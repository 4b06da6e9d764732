/* What the catalog says of hosts: until when their certificates are good, for who wants to know in time, and who was revoked. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/option.h"
#include "parallax/access/access.h"
#include "parallax/catalog/meta.h"
#include "proto/access.pb-c.h"

#define ISSUED "access/issued/"

/* ---- until when ---- */

static void issued_key(enum identity_role role, const char *host, char ret[CATALOG_KEY_MAX + 1])
{
	snprintf(ret, CATALOG_KEY_MAX + 1, "%s%s/%s", ISSUED, identity_role_name(role), host);
}

uint8_t *access_issued_put(struct catalog_txn *t, enum identity_role role, const char *host, uint64_t expires_s, char ret_key[CATALOG_KEY_MAX + 1])
{
	Aquifer__Access__Issued m = AQUIFER__ACCESS__ISSUED__INIT;
	m.expires_s = expires_s;
	uint8_t *bytes = malloc(aquifer__access__issued__get_packed_size(&m));
	issued_key(role, host, ret_key);
	if (bytes)
		catalog_txn_put(t, ret_key, bytes, aquifer__access__issued__pack(&m, bytes));
	return bytes;
}

int access_issued_note(struct catalog *c, enum identity_role role, const char *host, uint64_t expires_s)
{
	char key[CATALOG_KEY_MAX + 1];
	struct catalog_txn *t = malloc(sizeof *t);
	if (!t)
		return -ENOMEM;
	catalog_txn_init(t);
	uint8_t *bytes = access_issued_put(t, role, host, expires_s, key);
	int r = bytes ? catalog_txn(c, t, NULL) : -ENOMEM;
	free(bytes);
	free(t);
	return r;
}

struct issued_list {
	int (*entry)(void *arg, const struct access_issued *issued);
	void *arg;
};

static int read_issued(void *arg, const char *key, const struct catalog_value *v)
{
	const struct issued_list *l = arg;
	struct access_issued i = { 0 };
	char role[16];
	const char *word = key + strlen(ISSUED), *slash = strchr(word, '/');
	snprintf(role, sizeof role, "%.*s", slash ? (int)(slash - word) : 0, word);
	i.role = identity_role_of(role);
	Aquifer__Access__Issued *m = aquifer__access__issued__unpack(NULL, v->length, v->bytes);
	if (m)
		i.expires_s = m->expires_s;
	if (m)
		aquifer__access__issued__free_unpacked(m, NULL);
	if (!m || !i.role || !name_valid(slash + 1))
		return 0; /* only people want to know */
	snprintf(i.host, sizeof i.host, "%.63s", slash + 1);
	return l->entry(l->arg, &i);
}

int access_issued_list(struct catalog *c, int (*entry)(void *arg, const struct access_issued *issued), void *arg)
{
	struct issued_list l = { entry, arg };
	return catalog_list(c, ISSUED, read_issued, &l);
}

bool access_issued_warns(const struct access_issued *i, uint64_t now_s, char *ret_text, size_t bytes)
{
	if (i->expires_s >= now_s + ACCESS_WARN_S)
		return false;
	const char *role = i->role == ROLE_AGENT ? "an agent" : "a server";
	if (i->expires_s <= now_s)
		snprintf(ret_text, bytes, "host %s's certificate as %s has run out (enrol it again: aquifer cluster token; or revoke it)", i->host, role);
	else
		snprintf(ret_text, bytes, "host %s's certificate as %s runs out in %u days (do its agent and the authority's run?)", i->host, role,
			 (unsigned)((i->expires_s - now_s) / 86400));
	return true;
}

/* ---- who is known ---- */

static int has_key(struct catalog *c, const char *key)
{
	struct catalog_value v = { 0 };
	int r = catalog_get(c, key, &v);
	catalog_value_free(&v);
	return r == -ENOENT ? 0 : r < 0 ? r : 1;
}

struct search {
	const char *host;
	bool found;
};

static int look_at_token(void *arg, const char *key, const struct catalog_value *v)
{
	struct search *s = arg;
	struct access_token_record t;
	(void)key;
	s->found |= access_token_record_decode(v->bytes, v->length, &t) == 0 && strcmp(t.host, s->host) == 0;
	return 0;
}

static int look_at_server(void *arg, const char *key, const struct catalog_value *v)
{
	struct search *s = arg;
	struct meta_server m;
	(void)key;
	s->found |= meta_server_decode(v->bytes, v->length, &m) == 0 && strcmp(m.host, s->host) == 0;
	return 0;
}

int access_heard_of(struct catalog *c, const char *host)
{
	char key[CATALOG_KEY_MAX + 1], agent[META_KEY_BYTES];
	struct search s = { .host = host };
	issued_key(ROLE_AGENT, host, key);
	int r = has_key(c, key);
	issued_key(ROLE_SERVER, host, key);
	r = r ? r : has_key(c, key);
	snprintf(key, sizeof key, "%s%s", ACCESS_REVOKED, host);
	r = r ? r : has_key(c, key);
	meta_key_agent(host, agent);
	r = r ? r : has_key(c, agent);
	r = r ? r : catalog_list(c, ACCESS_TOKENS, look_at_token, &s);
	if (r == 0 && !s.found)
		r = catalog_list(c, "server/", look_at_server, &s);
	return r ? r : s.found;
}

/* ---- who counts no more ---- */

int access_revoke(struct catalog *c, const char *host, struct report *report)
{
	Aquifer__Access__Revoked m = AQUIFER__ACCESS__REVOKED__INIT;
	uint8_t bytes[32];
	char key[CATALOG_KEY_MAX + 1], issued[2][CATALOG_KEY_MAX + 1], agent[META_KEY_BYTES];
	struct catalog_txn *t = malloc(sizeof *t);
	if (!t)
		return -ENOMEM;
	m.until_s = env_wall_ns(c->env) / NS_PER_S;
	assert(aquifer__access__revoked__get_packed_size(&m) <= sizeof bytes);
	snprintf(key, sizeof key, "%s%s", ACCESS_REVOKED, host);
	catalog_txn_init(t);
	catalog_txn_put(t, key, bytes, aquifer__access__revoked__pack(&m, bytes));
	for (unsigned i = 0; i < 2; i++) {
		issued_key(i ? ROLE_SERVER : ROLE_AGENT, host, issued[i]);
		catalog_txn_delete(t, issued[i]);
	}
	meta_key_agent(host, agent); /* of one that is gone; who lives enters it again */
	catalog_txn_delete(t, agent);
	int r = catalog_txn(c, t, NULL);
	free(t);
	return r < 0 ? report_set(report, r, "the catalog: %s", catalog_text(c, r)) : 0;
}

struct revoked_list {
	struct identity_revoked *list;
	size_t count;
};

static int add_revoked(void *arg, const char *key, const struct catalog_value *v)
{
	struct revoked_list *l = arg;
	const char *host = key + strlen(ACCESS_REVOKED);
	if (strlen(host) >= IDENTITY_HOST_BYTES || l->count == IDENTITY_REVOKED_MAX)
		return 0; /* no certificate names that */
	if (array_more(&l->list, l->count) < 0)
		return -ENOMEM;
	Aquifer__Access__Revoked *m = aquifer__access__revoked__unpack(NULL, v->length, v->bytes);
	struct identity_revoked *to = &l->list[l->count++];
	*to = (struct identity_revoked){ .until_s = m ? m->until_s : UINT64_MAX }; /* unreadable: all of them */
	strcpy(to->host, host);
	if (m)
		aquifer__access__revoked__free_unpacked(m, NULL);
	return 0;
}

int access_revoked(struct catalog *c, struct identity_revoked **ret, size_t *ret_count)
{
	struct revoked_list l = { 0 };
	int r = catalog_list(c, ACCESS_REVOKED, add_revoked, &l);
	if (r < 0) {
		free(l.list);
		return r;
	}
	*ret = l.list;
	*ret_count = l.count;
	return 0;
}
