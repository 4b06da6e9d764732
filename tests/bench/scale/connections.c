/* What an idle connection takes of a server: a process of its own that listens, and many clients here. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/env_linux.h"
#include "core/fiber.h"
#include "proto/rpc.h"
#include "server/server.h"
#include "tests/bench/scale/scale.h"

enum { FIRST = 100, CLIENTS = 1000 }; /* the first ones pay for what all use */

static void refuse(void *arg, struct rpc_request *r)
{
	(void)arg;
	rpc_reply(r, -ENOSYS, "", NULL, NULL, 0);
}

static int serve(void *arg)
{
	struct env *env = arg;
	struct rpc_server_options how = { .service = "scale", .handle = refuse, .connections_max = FIRST + CLIENTS };
	struct rpc_server *server;
	char address[64];
	snprintf(address, sizeof address, "unix:@scale-%d", (int)getppid());
	if (rpc_listen(env, address, &how, &server, NULL) < 0)
		_exit(1);
	for (;;)
		fiber_sleep(&env->loop, NS_PER_S);
}

/* Of the process, in bytes; 0: it is gone. */
static double resident(pid_t pid)
{
	char path[64];
	long pages = 0, all;
	snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
	FILE *f = fopen(path, "r");
	if (f && fscanf(f, "%ld %ld", &all, &pages) != 2)
		pages = 0;
	if (f)
		fclose(f);
	return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

struct clients {
	struct env *env;
	pid_t server;
	struct rpc_client *client[FIRST + CLIENTS];
	double before, after;
};

static void connect_from(struct clients *c, unsigned first, unsigned end)
{
	struct rpc_client_options how = { .service = "scale", .lazy = true, .reconnect = true };
	char address[64];
	snprintf(address, sizeof address, "unix:@scale-%d", (int)getpid());
	for (unsigned i = first; i < end; i++) {
		if (rpc_connect(c->env, address, &how, &c->client[i], NULL) < 0)
			scale_fail("no client");
		if (rpc_wait_connected(c->client[i], 10 * NS_PER_S) < 0)
			scale_fail("connection %u isn't made", i);
	}
}

static int run(void *arg)
{
	struct clients *c = arg;
	connect_from(c, 0, FIRST);
	c->before = resident(c->server);
	connect_from(c, FIRST, FIRST + CLIENTS);
	fiber_sleep(&c->env->loop, NS_PER_S);
	c->after = resident(c->server);
	for (unsigned i = 0; i < FIRST + CLIENTS; i++)
		rpc_close(c->client[i]);
	return 0;
}

static struct env *make_env(void)
{
	struct env *env;
	if (env_linux_create(0, &env) < 0)
		scale_fail("no loop");
	return env;
}

void scale_connections(struct scale *s)
{
	struct clients *c = calloc(1, sizeof *c);
	struct rlimit l;
	getrlimit(RLIMIT_NOFILE, &l);
	l.rlim_cur = l.rlim_max;
	setrlimit(RLIMIT_NOFILE, &l);
	fflush(stdout);
	c->server = fork();
	if (c->server == 0) {
		struct env *env = make_env();
		_exit(env_linux_run_fiber(env, serve, env) < 0);
	}
	c->env = make_env();
	env_linux_run_fiber(c->env, run, c);
	env_linux_destroy(c->env);
	kill(c->server, SIGKILL);
	waitpid(c->server, NULL, 0);
	printf("%d idle ones, in plain text: %.1f KiB of memory of the server each; %u are let in, which takes %.0f MiB\n", CLIENTS, (c->after - c->before) / CLIENTS / 1024,
	       (unsigned)SERVER_CONNECTIONS_DEFAULT, (c->after - c->before) / CLIENTS * SERVER_CONNECTIONS_DEFAULT / (1 << 20));
	(void)s;
	free(c);
}
