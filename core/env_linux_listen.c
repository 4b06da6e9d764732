/* Listeners of the real world. A unix socket's name is made with mode 0600 in one step, a name
 * left behind by a process that is gone is replaced, and our own is removed at the end. What
 * only concerns the connection that was about to be accepted is no error of the listener's,
 * and a lack of descriptors or memory is waited out. Who connects faster than we accept doesn't keep the loop from its other work. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/env_linux.h"
#include "core/fiber.h"

#define BACKLOG 1024
#define SHORTAGE_NS (100 * NS_PER_MS) /* between attempts while descriptors or memory are short */
#define IN_A_ROW 8u /* accepted in one turn of the loop */

struct listener_linux {
	struct listener listener; /* first */
	struct source source;
	int fd;
	bool closed;
	unsigned waiting; /* fibers in accept; the last one frees a closed listener */
	unsigned in_a_row; /* attempts to accept since the loop last went on */
	struct fiber_cond cond;
	char text[ADDRESS_TEXT_MAX];
	dev_t unix_device; /* identity of the unix socket, to remove our own only */
	ino_t unix_inode;
};

static struct listener_linux *listener_of(struct listener *l) { return (struct listener_linux *)l; }

/* ---- binding ---- */

struct listen_call {
	struct address *address;
	struct listener_linux *listener;
};

static int listen_bind(int fd, const struct address *a)
{
	if (bind(fd, (const struct sockaddr *)&a->name, a->length) < 0 || listen(fd, BACKLOG) < 0)
		return -errno;
	return 0;
}

static int listen_tcp(int fd, struct address *a)
{
	int one = 1;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0)
		return -errno;
	if (a->name.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	int r = listen_bind(fd, a);
	a->length = sizeof a->name;
	if (r == 0 && getsockname(fd, (struct sockaddr *)&a->name, &a->length) < 0)
		r = -errno;
	return r;
}

/* Removes a socket that nobody listens at. -EADDRINUSE: it is no socket, or somebody does. */
static int stale_remove(const struct address *a)
{
	const char *path = ((const struct sockaddr_un *)&a->name)->sun_path;
	struct stat st;
	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EADDRINUSE;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	int r = connect(fd, (const struct sockaddr *)&a->name, a->length) < 0 ? errno : 0;
	close(fd);
	if (r != ECONNREFUSED)
		return r == ENOENT ? 0 : -EADDRINUSE;
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

void env_linux_remove_stale_socket(const char *path)
{
	struct address a = { .name = { .ss_family = AF_UNIX } };
	struct sockaddr_un *un = (struct sockaddr_un *)&a.name;
	size_t n = strlen(path);
	if (n >= sizeof un->sun_path)
		return; /* nobody can have listened there */
	memcpy(un->sun_path, path, n + 1);
	a.length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
	stale_remove(&a);
}

/* The directory is locked meanwhile: of two that find the same stale socket, or one bound
 * and not listening yet, the second must not remove the socket of the first. */
static int directory_lock(const char *path)
{
	char directory[sizeof((struct sockaddr_un *)0)->sun_path + 2];
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) + 1 : 0;
	memcpy(directory, path, n);
	memcpy(directory + n, n ? "" : ".", n ? 1 : 2);
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR) {
			int r = -errno;
			close(fd);
			return r;
		}
	return fd;
}

static int listen_unix(int fd, const struct address *a, struct listener_linux *l)
{
	const char *path = ((const struct sockaddr_un *)&a->name)->sun_path;
	struct stat st;
	int lock = directory_lock(path);
	if (lock < 0)
		return lock;
	int r = stale_remove(a);
	/* The mode of the unbound socket is that of the name bind() makes: never open to others. */
	if (r == 0 && fchmod(fd, 0600) < 0)
		r = -errno;
	if (r == 0)
		r = listen_bind(fd, a);
	if (r == 0 && lstat(path, &st) == 0) {
		l->unix_device = st.st_dev;
		l->unix_inode = st.st_ino;
	}
	close(lock);
	return r;
}

static int listen_run(void *arg)
{
	struct listen_call *c = arg;
	struct address *a = c->address;
	int fd = socket(a->name.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	int r = a->name.ss_family == AF_UNIX ? listen_unix(fd, a, c->listener) : listen_tcp(fd, a);
	if (r < 0) {
		close(fd);
		return r;
	}
	c->listener->fd = fd;
	env_linux_address_format(a, c->listener->text);
	return 0;
}

/* ---- the life of a listener ---- */

static void listener_ready(struct source *source, uint32_t events)
{
	(void)events;
	fiber_cond_wake(&container_of(source, struct listener_linux, source)->cond);
}

int env_linux_stream_listen(struct env *env, const char *address, struct listener **ret_listener)
{
	struct address all[ADDRESS_MAX];
	unsigned count = 0;
	int r = env_linux_resolve(env, address, /* passive= */ true, all, &count);
	if (r < 0)
		return r;
	struct listener_linux *l = calloc(1, sizeof *l);
	if (!l)
		return -ENOMEM;
	l->listener.env = env;
	l->source.ready = listener_ready;
	fiber_cond_init(&l->cond);
	struct listen_call c = { .address = &all[0], .listener = l };
	r = env_offload_wait(env, listen_run, &c);
	if (r < 0) {
		free(l);
		return r;
	}
	r = env_linux_watch(env_linux_of(env), l->fd, EPOLLIN, &l->source);
	if (r < 0) {
		env_linux_listener_close(&l->listener);
		return r;
	}
	*ret_listener = &l->listener;
	return 0;
}

/* FIBER. 0: try again; or -errno. */
static int accept_failed(struct listener_linux *l, int error)
{
	struct loop *loop = &l->listener.env->loop;
	switch (error) {
	case EAGAIN:
		l->in_a_row = 0;
		fiber_cond_wait(loop, &l->cond);
		return 0;
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM: /* a shortage passes; the peer waits in the backlog */
		fiber_sleep(loop, SHORTAGE_NS);
		return 0;
	case EBADF:
	case EINVAL:
	case ENOTSOCK:
		return -error;
	default: /* errors of the connection that was to be accepted */
		return 0;
	}
}

int env_linux_stream_accept(struct listener *listener, struct stream **ret_stream)
{
	struct listener_linux *l = listener_of(listener);
	int r = 0;
	l->waiting++;
	while (!l->closed && r == 0) {
		if (l->in_a_row++ == IN_A_ROW) {
			l->in_a_row = 0;
			fiber_sleep(&listener->env->loop, 0);
			continue;
		}
		int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			l->waiting--;
			return env_linux_stream_make(listener->env, fd, ret_stream);
		}
		r = accept_failed(l, errno);
	}
	l->waiting--;
	if (l->closed && l->waiting == 0)
		free(l);
	return r == 0 ? -ESHUTDOWN : r;
}

void env_linux_listener_close(struct listener *listener)
{
	struct listener_linux *l = listener_of(listener);
	struct stat st;
	const char *path = l->text + strlen("unix:");
	if (l->unix_inode && lstat(path, &st) == 0 && st.st_dev == l->unix_device && st.st_ino == l->unix_inode)
		unlink(path);
	close(l->fd);
	l->closed = true;
	fiber_cond_wake(&l->cond);
	if (l->waiting == 0)
		free(l);
}

const char *env_linux_listener_address(struct listener *l) { return listener_of(l)->text; }
