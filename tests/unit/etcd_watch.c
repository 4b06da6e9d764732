/* A watch of a catalog on etcd that ends while it is logging in. The etcd is a thread here that says what such a one would. */
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "parallax/catalog_etcd_call.h"

struct fake {
	struct env *env;
	int listener;
	pthread_t thread;
	char url[64];
	volatile bool logging_in, may_log_in;
	unsigned watches;
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

/* Its watches never end. */
static void *serve(void *arg)
{
	static const char token[] = "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"token\":\"t\"}";
	struct fake *f = arg;
	char text[4096];
	int fd = accept(f->listener, NULL, NULL);
	while (fd >= 0 && take_request(fd, text, sizeof text)) {
		bool login = strncmp(text, "POST /v3/auth", 13) == 0;
		f->watches += !login;
		f->logging_in = login;
		while (login && !f->may_log_in)
			usleep(1000);
		if (login && write(fd, token, sizeof token - 1) < 0)
			break;
	}
	close(fd);
	return NULL;
}

static int let_in(void *arg)
{
	struct fake *f = arg;
	fiber_sleep(&f->env->loop, 20 * NS_PER_MS); /* until the watch is told to end */
	f->may_log_in = true;
	return 0;
}

static int body_end(void *arg)
{
	struct fake *f = arg;
	static char user[] = "u", password[] = "p";
	struct etcd e = { .catalog.env = f->env, .access = { .user = user, .password = password } };
	struct fiber_cond changed;
	struct catalog_watch *w;
	const struct catalog_watch how = { &e.catalog, &changed, NULL, NULL };
	fiber_cond_init(&changed);
	fiber_mutex_init(&e.logging_in);
	link_init(&e.lives);
	cr_assert_eq(etcd_endpoints_parse(f->url, &e.at, NULL), 0);
	cr_assert_eq(http_client_create(f->env, NULL, &e.http), 0);
	cr_assert_eq(etcd_watch(&e.catalog, "k", &how, &w), 0);
	while (!f->logging_in)
		fiber_sleep(&f->env->loop, NS_PER_MS);
	cr_assert_eq(fiber_start(&f->env->loop, let_in, f, NULL), 0);
	etcd_watch_end(w);
	cr_assert_eq(f->watches, 0, "one that was ended before is asked for");
	http_client_close(e.http);
	return 0;
}

Test(etcd_watch, one_that_ends_while_it_logs_in, .timeout = 20)
{
	struct fake f = { .listener = socket(AF_INET, SOCK_STREAM, 0) };
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof a;
	cr_assert(bind(f.listener, (void *)&a, n) == 0 && listen(f.listener, 8) == 0 && getsockname(f.listener, (void *)&a, &n) == 0);
	snprintf(f.url, sizeof f.url, "http://127.0.0.1:%u", ntohs(a.sin_port));
	cr_assert_eq(pthread_create(&f.thread, NULL, serve, &f), 0);
	cr_assert_eq(env_linux_create(0, &f.env), 0);
	cr_assert_eq(env_linux_run_fiber(f.env, body_end, &f), 0);
	env_linux_destroy(f.env);
	shutdown(f.listener, SHUT_RDWR);
	pthread_join(f.thread, NULL);
	close(f.listener);
}
