/* A watch of a catalog on etcd that ends while it is logging in, or is none. The etcd is a thread here that says what such a one would. */
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "parallax/catalog/catalog_etcd_call.h"

struct fake {
	struct env *env;
	int listener;
	pthread_t thread;
	char url[64];
	const char *first;       /* what it says to the first watch; NULL: nothing */
	volatile bool logging_in, may_log_in;
	volatile unsigned logins, watches, watches_led; /* … that are to end where there is no leader */
};

/* One request, whose body is short. */
static bool take_request(int fd, char *text, size_t room)
{
	size_t n = 0;
	ssize_t got;
	text[0] = 0;
	while (!strstr(text, "\r\n\r\n") || text[n - 1] != '}') {
		if (n + 1 == room || (got = read(fd, text + n, room - 1 - n)) <= 0)
			return false;
		text[n += (size_t)got] = 0;
	}
	return true;
}

/* Until its client has gone. */
static void talk(struct fake *f, int fd)
{
	static const char token[] = "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"token\":\"t\"}";
	char text[4096];
	while (take_request(fd, text, sizeof text)) {
		bool login = strncmp(text, "POST /v3/auth", 13) == 0;
		f->logins += login;
		f->watches_led += !login && strstr(text, "Grpc-Metadata-hasleader: true\r\n");
		f->watches += !login;
		f->logging_in = login;
		while (login && !f->may_log_in)
			usleep(1000);
		const char *says = login ? token : f->watches == 1 ? f->first : NULL;
		if (says && write(fd, says, strlen(says)) < 0)
			break;
	}
}

/* Its watches never end. */
static void *serve(void *arg)
{
	struct fake *f = arg;
	for (int fd; (fd = accept(f->listener, NULL, NULL)) >= 0; close(fd))
		talk(f, fd);
	return NULL;
}

static int let_in(void *arg)
{
	struct fake *f = arg;
	fiber_sleep(&f->env->loop, 20 * NS_PER_MS); /* until the watch is told to end */
	f->may_log_in = true;
	return 0;
}

struct client {
	struct etcd e;
	struct fiber_cond changed;
	struct catalog_watch *w;
};

static void begin(struct client *c, struct fake *f)
{
	static char user[] = "u", password[] = "p";
	*c = (struct client){ .e = { .catalog.env = f->env, .access = { .user = user, .password = password } } };
	const struct catalog_watch how = { &c->e.catalog, &c->changed, NULL, NULL };
	fiber_cond_init(&c->changed);
	fiber_mutex_init(&c->e.logging_in);
	link_init(&c->e.lives);
	cr_assert_eq(etcd_endpoints_parse(f->url, &c->e.at, NULL), 0);
	cr_assert_eq(http_client_create(f->env, NULL, &c->e.http), 0);
	cr_assert_eq(etcd_watch(&c->e.catalog, "k", &how, &c->w), 0);
}

static int body_end(void *arg)
{
	struct fake *f = arg;
	struct client c;
	begin(&c, f);
	while (!f->logging_in)
		fiber_sleep(&f->env->loop, NS_PER_MS);
	cr_assert_eq(fiber_start(&f->env->loop, let_in, f, NULL), 0);
	etcd_watch_end(c.w);
	cr_assert_eq(f->watches, 0, "one that was ended before is asked for");
	http_client_close(c.e.http);
	return 0;
}

static int body_again(void *arg)
{
	struct fake *f = arg;
	struct client c;
	f->may_log_in = true;
	begin(&c, f);
	while (f->watches < 2)
		fiber_sleep(&f->env->loop, NS_PER_MS);
	cr_assert_eq(f->logins, 2, "with a token that isn't taken any more");
	cr_assert_eq(f->watches_led, 2);
	etcd_watch_end(c.w);
	http_client_close(c.e.http);
	return 0;
}

static void with_fake(int (*body)(void *arg), const char *first)
{
	struct fake f = { .listener = socket(AF_INET, SOCK_STREAM, 0), .first = first };
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof a;
	cr_assert(bind(f.listener, (void *)&a, n) == 0 && listen(f.listener, 8) == 0 && getsockname(f.listener, (void *)&a, &n) == 0);
	snprintf(f.url, sizeof f.url, "http://127.0.0.1:%u", ntohs(a.sin_port));
	cr_assert_eq(pthread_create(&f.thread, NULL, serve, &f), 0);
	cr_assert_eq(env_linux_create(0, &f.env), 0);
	cr_assert_eq(env_linux_run_fiber(f.env, body, &f), 0);
	env_linux_destroy(f.env);
	shutdown(f.listener, SHUT_RDWR);
	pthread_join(f.thread, NULL);
	close(f.listener);
}

Test(etcd_watch, one_that_ends_while_it_logs_in, .timeout = 20) { with_fake(body_end, NULL); }

/* As etcd 3.4 does with a token that it doesn't know: it says nothing at all, for ever. */
Test(etcd_watch, one_that_isnt_answered_is_asked_for_again, .timeout = 20) { with_fake(body_again, NULL); }

/* As 3.5 does. */
Test(etcd_watch, one_that_is_canceled_is_asked_for_again, .timeout = 20)
{
	with_fake(body_again, "HTTP/1.1 200 OK\r\n\r\n{\"result\":{\"header\":{},\"created\":true,\"canceled\":true,\"cancel_reason\":\"no permission\"}}\n");
}
