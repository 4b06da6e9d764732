#include "parallax/catalog_etcd_call.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"

void etcd_headers(const struct etcd *e, const char *ret_headers[3])
{
	unsigned n = 0;
	ret_headers[n++] = "Content-Type: application/json";
	if (e->login[0])
		ret_headers[n++] = e->login;
	ret_headers[n] = NULL;
}

/* "etcd1:2379: Connection refused" */
static void set_why(struct etcd *e, unsigned which, const char *why)
{
	snprintf(e->catalog.why, sizeof e->catalog.why, "etcd at %.100s: %.140s", strstr(e->at.url[which], "//") + 2, why);
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
	set_why(e, which, r.why[0] ? r.why : why);
	http_request_free(&r);
	return status;
}

int etcd_login(struct etcd *e, unsigned which)
{
	char token[ETCD_TOKEN_BYTES];
	bool sent;
	int r = 0;
	fiber_mutex_lock(&e->catalog.env->loop, &e->logging_in);
	if (e->user && !e->login[0]) {
		struct etcd_call call = { .path = "/v3/auth/authenticate", .answer_max = ETCD_TOKEN_BYTES + 4096 };
		char *request = etcd_login_request(e->user, e->password);
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
		if (!e->user || attempt == 2)
			return -EACCES;
		if (strcmp(used, e->login) == 0)
			e->login[0] = 0; /* unless another fiber has a new one already */
	}
}

static bool try_elsewhere(int status)
{
	return status == -ENOTCONN || status == -ETIMEDOUT || status == -EBUSY;
}

int etcd_call(struct etcd *e, struct etcd_call *call)
{
	int r = call->request ? -ENOTCONN : -ENOMEM;
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
	free(call->request);
	call->request = NULL;
	if (r == 0)
		e->catalog.why[0] = 0;
	return !try_elsewhere(r) ? r : doubt ? -ETIMEDOUT : -ENOTCONN;
}
