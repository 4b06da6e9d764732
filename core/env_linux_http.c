/* HTTP by libcurl's multi interface. Its sockets are in an epoll of their own, which the loop watches as one
 * descriptor; its timer is one of the loop's. Names are resolved by curl's own threads (AsynchDNS; without it there
 * is no client); certificates come as texts, so nothing is read from files but the system's authorities, once.
 *
 * curl sends a request again by itself when a kept connection turns out to be dead. Whether the first
 * try had any effect nobody knows, so that is refused here, unless the request is repeatable: the hook before each
 * try counts them, and tells at the same time whether anything has been sent at all. */
#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/env_linux.h"
#include "core/fiber.h"

#define EVENTS 16
#define LIBRARY "libcurl.so.4"
#define REPLY_BYTES_FIRST 4096

/* ---- the library ---- */

/* With what it brings along these are 30 libraries, more than half of the time that a command takes to start, and memory of every tapdisk: so it is loaded when
 * the first client is made. */
#define CURL_FUNCTIONS(X) \
	X(easy_cleanup) \
	X(easy_getinfo) \
	X(easy_init) \
	X(easy_setopt) \
	X(easy_strerror) \
	X(global_init) \
	X(multi_add_handle) \
	X(multi_cleanup) \
	X(multi_info_read) \
	X(multi_init) \
	X(multi_remove_handle) \
	X(multi_setopt) \
	X(multi_socket_action) \
	X(slist_append) \
	X(slist_free_all) \
	X(version_info)

static struct {
#define X(name) __typeof__(curl_##name) *(name);
	CURL_FUNCTIONS(X)
#undef X
	bool loaded;
} curl;

static void curl_begin(void)
{
	void *library = dlopen(LIBRARY, RTLD_LAZY);
	bool all = library;
#define X(name) *(void **)&curl.name = all ? dlsym(library, "curl_" #name) : NULL, all = all && curl.name;
	CURL_FUNCTIONS(X)
#undef X
	curl.loaded = all && curl.global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

struct http_linux {
	struct http_client client; /* first */
	CURLM *multi;
	int epoll_fd;
	struct fd_watch watch;
	struct job watch_job, timer_job;
	struct timer timer;
	uint64_t due_ns;           /* when curl wants to be called; 0: not at all */
	bool watch_busy, timer_busy, closing;
	struct fiber_cond idle;
	unsigned request_count;
	char *authorities, *certificate, *key;
};

static struct http_linux *http_linux_of(struct http_client *c) { return (struct http_linux *)c; }

/* ---- requests that have ended ---- */

static int status_of(const struct http_request *r, CURLcode code)
{
	switch (code) {
	case CURLE_OK: return 0;
	case CURLE_COULDNT_RESOLVE_HOST: return -EHOSTUNREACH;
	case CURLE_COULDNT_CONNECT: return -ECONNREFUSED;
	case CURLE_OPERATION_TIMEDOUT: return -ETIMEDOUT;
	case CURLE_OUT_OF_MEMORY: return -ENOMEM;
	case CURLE_WRITE_ERROR: return r->too_long ? -EMSGSIZE : -ENOMEM;
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_WEIRD_SERVER_REPLY: return -EPROTO;
	default: return -ECONNRESET;
	}
}

static void request_end(struct http_request *r, int status, CURLcode code)
{
	struct http_linux *c = http_linux_of(r->client);
	long answer = 0;
	curl.easy_getinfo(r->handle, CURLINFO_RESPONSE_CODE, &answer);
	curl.multi_remove_handle(c->multi, r->handle);
	curl.easy_cleanup(r->handle);
	curl.slist_free_all(r->header_list);
	c->request_count--;
	r->handle = r->header_list = NULL;
	r->http_status = (unsigned)answer;
	r->status = status;
	if (status < 0 && !r->why[0])
		snprintf(r->why, sizeof r->why, "%s", status == -EMSGSIZE ? "the answer is too long" : curl.easy_strerror(code));
	struct job *parent = r->parent, *more = r->more;
	r->parent = r->more = NULL;
	if (more)
		job_put(more, 0);
	job_put(parent, status);
}

static void end_finished(struct http_linux *c)
{
	int left;
	for (CURLMsg *m; (m = curl.multi_info_read(c->multi, &left));) {
		struct http_request *r = NULL;
		CURLcode code = m->data.result;
		if (m->msg != CURLMSG_DONE)
			continue;
		curl.easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &r);
		request_end(r, status_of(r, code), code);
	}
}

/* ---- what curl calls ---- */

static int socket_changed(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket)
{
	struct http_linux *c = arg;
	struct epoll_event e = { .data.fd = fd };
	(void)easy;
	(void)socket;
	if (what == CURL_POLL_REMOVE) {
		epoll_ctl(c->epoll_fd, EPOLL_CTL_DEL, fd, NULL); /* unless it was closed already */
		return 0;
	}
	e.events = (what & CURL_POLL_IN ? EPOLLIN : 0u) | (what & CURL_POLL_OUT ? EPOLLOUT : 0u);
	if (epoll_ctl(c->epoll_fd, EPOLL_CTL_MOD, fd, &e) < 0 && errno == ENOENT && epoll_ctl(c->epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0)
		return -1;
	return 0;
}

static void timer_start_for(struct http_linux *c);

static int timer_changed(CURLM *multi, long ms, void *arg)
{
	struct http_linux *c = arg;
	(void)multi;
	c->due_ns = ms < 0 ? 0 : env_now_ns(c->client.env) + (uint64_t)ms * NS_PER_MS;
	if (c->timer_busy)
		timer_cancel(c->client.env, &c->timer); /* its step looks anew */
	else if (c->due_ns)
		timer_start_for(c);
	return 0;
}

static size_t reply_arrived(char *bytes, size_t size, size_t count, void *arg)
{
	struct http_request *r = arg;
	size_t n = size * count, want = r->reply_length + n;
	if (want < n || want > r->reply_max) {
		r->too_long = true;
		return 0;
	}
	if (want + 1 > r->reply_room) {
		size_t room = MAX(MAX(want + 1, 2 * r->reply_room), (size_t)REPLY_BYTES_FIRST);
		room = MIN(room, r->reply_max + 1);
		uint8_t *reply = realloc(r->reply, room);
		if (!reply)
			return 0;
		r->reply = reply;
		r->reply_room = room;
	}
	memcpy(r->reply + r->reply_length, bytes, n);
	r->reply_length = want;
	r->reply[want] = 0;
	struct job *more = r->more;
	r->more = NULL;
	if (more) {
		r->reply_seen = want;
		job_put(more, 0);
	}
	return n;
}

static int before_sending(void *arg, char *ip, char *local_ip, int port, int local_port)
{
	struct http_request *r = arg;
	(void)ip;
	(void)local_ip;
	(void)port;
	(void)local_port;
	if (r->sent && !r->repeatable)
		return CURL_PREREQFUNC_ABORT;
	r->sent = true;
	r->sent_ns = env_now_ns(r->client->env);
	return CURL_PREREQFUNC_OK;
}

/* A new connection. A peer whose machine is gone answers nothing, while one that is only slow acknowledges what it is sent (its kernel does): so that is
 * waited for no longer than for a connection. Another try after that would wait once more; one after a kept connection that ended at once wouldn't. */
static int before_connecting(void *arg, curl_socket_t fd, curlsocktype purpose)
{
	struct http_request *r = arg;
	unsigned ms = (unsigned)(r->connect_timeout_ns / NS_PER_MS);
	(void)purpose;
	if (r->sent && (!r->repeatable || (ms && env_now_ns(r->client->env) - r->sent_ns >= r->connect_timeout_ns / 2)))
		return CURL_SOCKOPT_ERROR;
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms); /* not a reason to do without */
	return CURL_SOCKOPT_OK;
}

/* ---- what the loop calls ---- */

static void timer_due(struct job *j)
{
	struct http_linux *c = container_of(j, struct http_linux, timer_job);
	int running;
	c->timer_busy = false;
	if (c->closing) {
		fiber_cond_wake(&c->idle);
		return;
	}
	if (c->due_ns && c->due_ns <= env_now_ns(c->client.env)) {
		c->due_ns = 0;
		curl.multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
		end_finished(c);
	}
	if (c->due_ns && !c->timer_busy)
		timer_start_for(c);
}

static void timer_start_for(struct http_linux *c)
{
	struct env *env = c->client.env;
	uint64_t now_ns = env_now_ns(env);
	c->timer_busy = true;
	job_init(&c->timer_job, &env->loop);
	timer_start(env, &c->timer, c->due_ns > now_ns ? c->due_ns - now_ns : 0, &c->timer_job);
	job_then(&c->timer_job, timer_due);
}

static void watch_start(struct http_linux *c);

static void sockets_ready(struct job *j)
{
	struct http_linux *c = container_of(j, struct http_linux, watch_job);
	struct epoll_event e[EVENTS];
	int running, n = c->closing ? 0 : epoll_wait(c->epoll_fd, e, EVENTS, 0);
	c->watch_busy = false;
	if (c->closing) {
		fiber_cond_wake(&c->idle);
		return;
	}
	for (int i = 0; i < n; i++) {
		int what = (e[i].events & (EPOLLIN | EPOLLHUP) ? CURL_CSELECT_IN : 0) | (e[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
			   (e[i].events & EPOLLERR ? CURL_CSELECT_ERR : 0);
		curl.multi_socket_action(c->multi, e[i].data.fd, what, &running);
	}
	end_finished(c);
	watch_start(c);
}

static void watch_start(struct http_linux *c)
{
	struct env *env = c->client.env;
	c->watch_busy = true;
	job_init(&c->watch_job, &env->loop);
	fd_watch_start(env, &c->watch, c->epoll_fd, &c->watch_job);
	job_then(&c->watch_job, sockets_ready);
}

/* ---- requests ---- */

/* What curl has no memory for isn't left out: without our authorities it would trust the system's. */
static bool set_blob(CURL *h, CURLoption option, char *text)
{
	struct curl_blob blob = { text, text ? strlen(text) : 0, CURL_BLOB_COPY };
	return !text || curl.easy_setopt(h, option, &blob) == CURLE_OK;
}

static bool set_tls(const struct http_linux *c, CURL *h)
{
	return set_blob(h, CURLOPT_CAINFO_BLOB, c->authorities) && set_blob(h, CURLOPT_SSLCERT_BLOB, c->certificate) && set_blob(h, CURLOPT_SSLKEY_BLOB, c->key);
}

static bool set_headers(struct http_request *r)
{
	static const char *const none[] = { NULL };
	struct curl_slist *list = curl.slist_append(NULL, "Expect:"); /* no waiting for "100 Continue" */
	for (const char *const *header = r->headers ? r->headers : none; list && *header; header++) {
		struct curl_slist *longer = curl.slist_append(list, *header);
		if (!longer)
			curl.slist_free_all(list);
		list = longer;
	}
	r->header_list = list;
	return list != NULL;
}

static void set_options(struct http_request *r)
{
	CURL *h = r->handle;
	curl.easy_setopt(h, CURLOPT_URL, r->url);
	curl.easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
	curl.easy_setopt(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl.easy_setopt(h, CURLOPT_PROXY, ""); /* whatever the environment says */
	curl.easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
	curl.easy_setopt(h, CURLOPT_TCP_KEEPALIVE, 1L);
	curl.easy_setopt(h, CURLOPT_HTTPHEADER, r->header_list);
	if (r->body) {
		curl.easy_setopt(h, CURLOPT_POSTFIELDS, r->body);
		curl.easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body_length);
	}
	if (r->connect_timeout_ns)
		curl.easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS, (long)(r->connect_timeout_ns / NS_PER_MS));
	if (r->timeout_ns)
		curl.easy_setopt(h, CURLOPT_TIMEOUT_MS, (long)(r->timeout_ns / NS_PER_MS));
	curl.easy_setopt(h, CURLOPT_ERRORBUFFER, r->why);
	curl.easy_setopt(h, CURLOPT_PRIVATE, r);
	curl.easy_setopt(h, CURLOPT_WRITEFUNCTION, reply_arrived);
	curl.easy_setopt(h, CURLOPT_WRITEDATA, r);
	curl.easy_setopt(h, CURLOPT_PREREQFUNCTION, before_sending);
	curl.easy_setopt(h, CURLOPT_PREREQDATA, r);
	curl.easy_setopt(h, CURLOPT_SOCKOPTFUNCTION, before_connecting);
	curl.easy_setopt(h, CURLOPT_SOCKOPTDATA, r);
}

void env_linux_http_submit(struct http_client *client, struct http_request *r)
{
	struct http_linux *c = http_linux_of(client);
	struct job *parent = r->parent;
	static_assert(HTTP_WHY_BYTES >= CURL_ERROR_SIZE, "curl writes its reasons there");
	assert(!c->closing);
	r->header_list = NULL;
	r->handle = curl.easy_init();
	if (r->handle && set_headers(r) && set_tls(c, r->handle)) {
		set_options(r);
		c->request_count++;
		if (curl.multi_add_handle(c->multi, r->handle) == CURLM_OK)
			return;
		c->request_count--;
	}
	if (r->handle)
		curl.easy_cleanup(r->handle);
	curl.slist_free_all(r->header_list);
	r->parent = NULL;
	r->status = -ENOMEM;
	job_put(parent, -ENOMEM);
}

void env_linux_http_cancel(struct http_request *r) { request_end(r, -ECANCELED, CURLE_ABORTED_BY_CALLBACK); }

/* ---- clients ---- */

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static char *copy_of(const char *text) { return text ? strdup(text) : NULL; }

static void forget_tls(struct http_linux *c)
{
	free(c->authorities);
	free(c->certificate);
	if (c->key)
		explicit_bzero(c->key, strlen(c->key));
	free(c->key);
}

/* Requests have copies of their own, and curl goes on with a kept connection only where they are the same. */
int env_linux_http_client_renew(struct http_client *client, const struct http_tls *tls)
{
	struct http_linux *c = http_linux_of(client);
	char *authorities = copy_of(tls->authorities), *certificate = copy_of(tls->certificate), *key = copy_of(tls->key);
	if ((tls->authorities && !authorities) || (tls->certificate && !certificate) || (tls->key && !key)) {
		free(authorities);
		free(certificate);
		free(key);
		return -ENOMEM;
	}
	forget_tls(c);
	c->authorities = authorities;
	c->certificate = certificate;
	c->key = key;
	return 0;
}

static int client_set_up(struct http_linux *c, const struct http_tls *tls)
{
	c->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (c->epoll_fd < 0)
		return -errno;
	c->multi = curl.multi_init();
	if (!c->multi || env_linux_http_client_renew(&c->client, tls) < 0)
		return -ENOMEM;
	curl.multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, socket_changed);
	curl.multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
	curl.multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, timer_changed);
	curl.multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
	return 0;
}

static void client_free(struct http_linux *c)
{
	curl.multi_cleanup(c->multi);
	if (c->epoll_fd >= 0)
		close(c->epoll_fd);
	forget_tls(c);
	free(c);
}

int env_linux_http_client_create(struct env *env, const struct http_tls *tls, struct http_client **ret_client)
{
	static const struct http_tls no_tls;
	pthread_once(&curl_once, curl_begin);
	if (!curl.loaded)
		return -ELIBACC;
	if (!(curl.version_info(CURLVERSION_NOW)->features & CURL_VERSION_ASYNCHDNS))
		return -ENOSYS; /* looking names up would stop the loop */
	struct http_linux *c = calloc(1, sizeof *c);
	if (!c)
		return -ENOMEM;
	c->client.env = env;
	timer_init(&c->timer);
	fiber_cond_init(&c->idle);
	int r = client_set_up(c, tls ? tls : &no_tls);
	if (r < 0) {
		client_free(c);
		return r;
	}
	watch_start(c);
	*ret_client = &c->client;
	return 0;
}

void env_linux_http_client_close(struct http_client *client)
{
	struct http_linux *c = http_linux_of(client);
	assert(c->request_count == 0);
	c->closing = true;
	if (c->watch_busy)
		fd_watch_cancel(client->env, &c->watch);
	if (c->timer_busy)
		timer_cancel(client->env, &c->timer);
	while (c->watch_busy || c->timer_busy)
		fiber_cond_wait(&client->env->loop, &c->idle);
	/* closing connections calls back, and must not start anything */
	curl.multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, NULL);
	curl.multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, NULL);
	client_free(c);
}
