/* Addresses in words: "unix:/path", "tcp:HOST:PORT", "tcp:[V6]:PORT". */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/env_linux.h"

struct resolve {
	char host[256];
	char port[6];
	int flags;
	struct address *ret;
	unsigned count;
};

static int resolve_status(int eai)
{
	switch (eai) {
	case EAI_NONAME:
	case EAI_NODATA:
		return -ENXIO;
	case EAI_MEMORY:
		return -ENOMEM;
	case EAI_SYSTEM:
		return errno ? -errno : -EHOSTUNREACH;
	default:
		return -EHOSTUNREACH;
	}
}

static int resolve_run(void *arg)
{
	struct resolve *c = arg;
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = c->flags | AI_NUMERICSERV }, *all;
	int eai = getaddrinfo(c->host, c->port, &hints, &all);
	if (eai != 0)
		return resolve_status(eai);
	for (struct addrinfo *a = all; a && c->count < ADDRESS_MAX; a = a->ai_next) {
		struct address *to = &c->ret[c->count++];
		memset(to, 0, sizeof *to);
		memcpy(&to->name, a->ai_addr, a->ai_addrlen);
		to->length = a->ai_addrlen;
	}
	freeaddrinfo(all);
	return c->count ? 0 : -ENXIO;
}

static bool port_valid(const char *text)
{
	size_t n = strspn(text, "0123456789");
	return n > 0 && n <= 5 && text[n] == 0 && strtoul(text, NULL, 10) <= 65535;
}

/* Splits "HOST:PORT" or "[V6]:PORT". */
static int tcp_split(const char *text, struct resolve *c)
{
	const char *host = text, *end;
	if (text[0] == '[') {
		host++;
		end = strchr(host, ']');
		if (!end || end[1] != ':' || !memchr(host, ':', (size_t)(end - host)))
			return -EINVAL;
		text = end + 2;
		c->flags |= AI_NUMERICHOST;
	} else {
		end = strchr(host, ':');
		if (!end || strchr(end + 1, ':'))
			return -EINVAL;
		text = end + 1;
	}
	size_t n = (size_t)(end - host);
	if (n == 0 || !port_valid(text))
		return -EINVAL;
	if (n >= sizeof c->host)
		return -ENAMETOOLONG;
	memcpy(c->host, host, n);
	snprintf(c->port, sizeof c->port, "%s", text);
	return 0;
}

static int unix_address(const char *path, struct address *ret)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&ret->name;
	size_t n = strlen(path);
	if (n == 0)
		return -EINVAL;
	if (n >= sizeof un->sun_path)
		return -ENAMETOOLONG;
	memset(ret, 0, sizeof *ret);
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, n + 1);
	ret->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
	return 0;
}

/* A name server that doesn't answer keeps a worker for as long as it likes: some are left to whoever doesn't ask it. */
static int resolve_elsewhere(struct env_linux *el, struct resolve *c)
{
	while (el->lookups >= el->work.thread_limit / 2)
		fiber_cond_wait(&el->env.loop, &el->lookup_ended);
	el->lookups++;
	int r = env_offload_wait(&el->env, resolve_run, c);
	el->lookups--;
	fiber_cond_wake(&el->lookup_ended);
	return r;
}

int env_linux_resolve(struct env *env, const char *text, bool passive, struct address *ret, unsigned *ret_count)
{
	if (strncmp(text, "unix:", 5) == 0) {
		*ret_count = 1;
		return unix_address(text + 5, ret);
	}
	if (strncmp(text, "tcp:", 4) != 0)
		return -EINVAL;
	struct resolve c = { .flags = passive ? AI_PASSIVE : 0, .ret = ret };
	int r = tcp_split(text + 4, &c);
	if (r < 0)
		return r;
	int flags = c.flags;
	c.flags |= AI_NUMERICHOST; /* needs no worker: nobody is asked */
	r = resolve_run(&c);
	if (r == -ENXIO && !(flags & AI_NUMERICHOST)) {
		c.flags = flags | AI_ADDRCONFIG;
		r = resolve_elsewhere(env_linux_of(env), &c);
	}
	*ret_count = c.count;
	return r;
}

void env_linux_address_format(const struct address *a, char ret_text[ADDRESS_TEXT_MAX])
{
	char host[INET6_ADDRSTRLEN] = "?";
	if (a->name.ss_family == AF_UNIX) {
		const struct sockaddr_un *un = (const struct sockaddr_un *)&a->name;
		snprintf(ret_text, ADDRESS_TEXT_MAX, "unix:%s", un->sun_path);
	} else if (a->name.ss_family == AF_INET6) {
		const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)&a->name;
		inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof host);
		snprintf(ret_text, ADDRESS_TEXT_MAX, "tcp:[%s]:%u", host, ntohs(in->sin6_port));
	} else {
		const struct sockaddr_in *in = (const struct sockaddr_in *)&a->name;
		inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
		snprintf(ret_text, ADDRESS_TEXT_MAX, "tcp:%s:%u", host, ntohs(in->sin_port));
	}
}

/* Only an address of ours can be bound to. */
bool env_linux_own_address(struct env *env, const char *host)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
	bool four = inet_pton(AF_INET, host, &in.sin_addr) == 1, six = !four && inet_pton(AF_INET6, host, &in6.sin6_addr) == 1;
	(void)env;
	if (!four && !six)
		return strcmp(host, "localhost") == 0;
	int fd = socket(four ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool own = fd >= 0 && (four ? bind(fd, (struct sockaddr *)&in, sizeof in) : bind(fd, (struct sockaddr *)&in6, sizeof in6)) == 0;
	if (fd >= 0)
		close(fd);
	return own;
}
