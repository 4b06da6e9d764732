#include "parallax/catalog/catalog_etcd_call.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/config.h"
#include "parallax/catalog/catalog_access.h"

void etcd_headers(const struct etcd *e, const char *ret_headers[3])
{
	unsigned n = 0;
	ret_headers[n++] = "Content-Type: application/json";
	if (e->login[0])
		ret_headers[n++] = e->login;
	ret_headers[n] = NULL;
}

/* "etcd1:2379: Connection refused" */
static void set_why(struct etcd *e, const char *url, const char *why)
{
	const char *at = strstr(url, "//");
	at = at ? at + 2 : url; /* there is no such address any more */
	snprintf(e->catalog.why, sizeof e->catalog.why, "etcd at %.*s: %.140s", (int)MIN(strcspn(at, "/"), (size_t)100), at, why);
}

/* One try at one address. `ret_sent`: it may have been carried out although there is no answer. */
static int call_once(struct etcd *e, unsigned which, struct etcd_call *call, const char *request, bool *ret_sent)
{
	char url[ETCD_URL_BYTES + 64];
	const char *headers[3];
	snprintf(url, sizeof url, "%s%s", e->at.url[which], call->path);
	etcd_headers(e, headers);
	struct http_request r = { .url = url, .headers = headers, .body = request, .body_length = strlen(request), .reply_max = call->answer_max,
				  .connect_timeout_ns = ETCD_CONNECT_NS, .timeout_ns = ETCD_ANSWER_NS, .repeatable = !call->change };
	int status = http_wait(call->client ? call->client : e->http, &r);
	*ret_sent = r.sent;
	if (status == 0 && r.http_status == 200) {
		call->answer = r.reply;
		call->answer_length = r.reply_length;
		return 0;
	}
	char why[ETCD_WHY_BYTES];
	if (status == 0)
		status = etcd_error_answer(r.http_status, r.reply, r.reply_length, why);
	else if (call->change && r.sent)
		status = -ETIMEDOUT; /* also where the answer is too long, or there was no memory for it */
	else if (status != -EMSGSIZE && status != -ENOMEM)
		status = r.sent ? -ETIMEDOUT : -ENOTCONN;
	set_why(e, url, r.why[0] ? r.why : why);
	http_request_free(&r);
	return status;
}

int etcd_login(struct etcd *e, unsigned which)
{
	char token[ETCD_TOKEN_BYTES];
	bool sent;
	int r = 0;
	fiber_mutex_lock(&e->catalog.env->loop, &e->logging_in);
	if (e->access.user && !e->login[0]) {
		struct etcd_call call = { .path = "/v3/auth/authenticate", .answer_max = ETCD_TOKEN_BYTES + 4096 };
		char *request = etcd_login_request(e->access.user, e->access.password);
		r = request ? call_once(e, which, &call, request, &sent) : -ENOMEM;
		if (r == 0) {
			r = etcd_login_answer(call.answer, call.answer_length, token);
			free(call.answer);
		}
		if (r == 0)
			snprintf(e->login, sizeof e->login, "Authorization: %s", token);
		if (request)
			explicit_bzero(request, strlen(request));
		free(request);
	}
	fiber_mutex_unlock(&e->logging_in);
	return r == -ETIMEDOUT ? -ENOTCONN : r; /* whatever it was, the call itself wasn't sent */
}

/* At one address, logged in. A token ends when it isn't used for minutes, or with the server that gave it. */
static int call_at(struct etcd *e, unsigned which, struct etcd_call *call, bool *ret_sent)
{
	char used[sizeof e->login];
	*ret_sent = false;
	for (unsigned attempt = 0;; attempt++) {
		int r = etcd_login(e, which);
		if (r < 0)
			return r;
		strcpy(used, e->login);
		r = call_once(e, which, call, call->request, ret_sent);
		if (r != -EKEYREJECTED)
			return r;
		*ret_sent = false;
		if (!e->access.user || attempt == 2)
			return -EACCES;
		if (strcmp(used, e->login) == 0)
			e->login[0] = 0; /* unless another fiber has a new one already */
	}
}

static bool try_elsewhere(int status)
{
	return status == -ENOTCONN || status == -ETIMEDOUT || status == -EBUSY;
}

static int call_anywhere(struct etcd *e, struct etcd_call *call)
{
	int r = -ENOTCONN;
	bool doubt = false;
	for (unsigned tried = 0; tried < e->at.count && try_elsewhere(r); tried++) {
		unsigned which = e->current;
		bool sent;
		r = call_at(e, which, call, &sent);
		doubt |= r == -ETIMEDOUT;
		if (!try_elsewhere(r))
			break;
		if (e->current == which)
			e->current = (which + 1) % e->at.count;
		if (r == -ETIMEDOUT && call->change)
			break;
	}
	return !try_elsewhere(r) ? r : doubt ? -ETIMEDOUT : -ENOTCONN;
}

static bool is_own(struct env *env, const char *url)
{
	char host[ETCD_URL_BYTES];
	const char *at = strstr(url, "://") + 3, *end = strrchr(at, ':');
	if (at[0] == '[')
		at++, end--;
	snprintf(host, sizeof host, "%.*s", (int)(end - at), at);
	return env_own_address(env, host);
}

unsigned etcd_first(struct env *env, const struct etcd_endpoints *at)
{
	unsigned own[ETCD_ENDPOINTS_MAX], count = 0;
	for (unsigned i = 0; i < at->count; i++)
		if (is_own(env, at->url[i]))
			own[count++] = i;
	return count ? own[env_random(env) % count] : (unsigned)(env_random(env) % at->count);
}

#define ACCESS_NS NS_PER_S /* between looks at the files */

/* FIBER. Members that were replaced have other addresses. Only for who knows which store is his: what is there may be another's. */
static void read_addresses(struct etcd *e)
{
	char url[CONFIG_VALUE_BYTES];
	struct etcd_endpoints *at = malloc(sizeof *at);
	bool good = at && config_get(e->catalog.env, e->access.root, "catalog", url, NULL) == 0 && strncmp(url, "etcd:", 5) == 0 &&
		    etcd_endpoints_parse(url + 5, at, NULL) == 0 && at->tls == e->at.tls;
	if (good && (at->count != e->at.count || memcmp(at->url, e->at.url, sizeof at->url) != 0)) {
		e->at = *at;
		e->current = etcd_first(e->catalog.env, at);
		e->accesses++;
	}
	free(at);
}

/* FIBER. What can't be read, because it is just being written say, is left as it is until the next time. */
static void read_access(struct etcd *e)
{
	struct catalog_access access;
	uint64_t now_ns = env_now_ns(e->catalog.env);
	if (!e->access.root || now_ns - e->access_ns < ACCESS_NS)
		return;
	e->access_ns = now_ns;
	int r = catalog_access_load(e->catalog.env, e->access.root, "etcd:", &access, NULL);
	const struct http_tls tls = etcd_tls(&access);
	access.configured = e->access.configured;
	if (r == 0 && catalog_access_differ(&access, &e->access) && http_client_renew(e->http, &tls) == 0 && (!e->beat || http_client_renew(e->beat, &tls) == 0)) {
		struct catalog_access before = e->access;
		e->access = access;
		e->accesses++;
		e->login[0] = 0;
		access = before;
	}
	catalog_access_free(&access);
	if (e->access.configured && e->id[0])
		read_addresses(e);
}

/* A certificate that isn't accepted looks like a peer that can't be reached, or went away. */
static bool may_be_access(const struct etcd_call *call, int status)
{
	return status == -EACCES || status == -ENOTCONN || (status == -ETIMEDOUT && !call->change);
}

int etcd_call(struct etcd *e, struct etcd_call *call)
{
	unsigned accesses = e->accesses;
	int r = call->request ? call_anywhere(e, call) : -ENOMEM;
	if (may_be_access(call, r))
		read_access(e);
	if (may_be_access(call, r) && e->accesses != accesses)
		r = call_anywhere(e, call);
	free(call->request);
	call->request = NULL;
	if (r == 0)
		e->catalog.why[0] = 0;
	return r;
}
