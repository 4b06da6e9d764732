/* How much the real env costs: a server that answers 4 KiB reads or writes of a file over a
 * unix socket, with nothing but the env in it, and a client that keeps DEPTH requests open.
 *
 *     env_bench FILE r|w DEPTH SECONDS [buffered|odd]
 *
 * odd: memory that O_DIRECT doesn't take, so that workers do all of it.
 *
 * Prints requests per second and the server's CPU per 1000 requests: what an export and a
 * graph can come near, and not beat. FILE must exist; `w` overwrites it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/env.h"
#include "core/fiber.h"

#define BLOCK ((size_t)4096)
#define HEAD 28
#define REPLY 16
#define DEPTH_MAX 256

struct config {
	const char *path, *address;
	bool write, buffered, odd;
	unsigned depth;
	double seconds;
};

static void die(const char *what, int status)
{
	fprintf(stderr, "env_bench: %s: %s\n", what, strerror(-status));
	exit(1);
}

/* ---- server ---- */

struct request {
	struct job job;
	struct server *server;
	struct request *next;
	struct file_io io;
	struct stream_io send;
	struct iovec iov, reply_iov[2];
	char reply[REPLY];
	char *block;
};

struct server {
	struct env *env;
	const struct config *config;
	struct stream *stream;
	struct file *file;
	struct job receive_job;
	struct stream_io receive;
	struct iovec iov;
	char *buffer;
	size_t have, buffer_bytes;
	struct request *free;
	bool ended;
};

static void request_over(struct job *j)
{
	struct request *r = container_of(j, struct request, job);
	r->next = r->server->free;
	r->server->free = r;
}

static void request_reply(struct job *j)
{
	struct request *r = container_of(j, struct request, job);
	r->reply_iov[0] = (struct iovec){ r->reply, REPLY };
	r->reply_iov[1] = (struct iovec){ r->block, BLOCK };
	r->send = (struct stream_io){ .iov = r->reply_iov, .iov_count = r->server->config->write ? 1 : 2 };
	stream_send(r->server->stream, &r->send, j);
	job_then(j, request_over);
}

static void request_start(struct server *s, const char *head)
{
	struct request *r = s->free;
	uint64_t offset;
	s->free = r->next;
	memcpy(&offset, head, sizeof offset);
	if (s->config->write)
		memcpy(r->block, head + HEAD, BLOCK);
	job_init(&r->job, &s->env->loop);
	r->iov = (struct iovec){ r->block, BLOCK };
	r->io = (struct file_io){ .op = s->config->write ? FILE_WRITE : FILE_READ, .offset = offset, .length = BLOCK,
				  .iov = &r->iov, .iov_count = 1 };
	file_submit(s->file, &r->io, &r->job);
	job_then(&r->job, request_reply);
}

static void server_receive(struct job *j);

static void server_came(struct job *j)
{
	struct server *s = container_of(j, struct server, receive_job);
	size_t at = 0, each = HEAD + (s->config->write ? BLOCK : 0);
	s->have += s->receive.done;
	for (; s->have - at >= each && s->free; at += each)
		request_start(s, s->buffer + at);
	memmove(s->buffer, s->buffer + at, s->have - at);
	s->have -= at;
	if (j->status)
		s->ended = true;
	else
		server_receive(j);
}

static void server_receive(struct job *j)
{
	struct server *s = container_of(j, struct server, receive_job);
	s->iov = (struct iovec){ s->buffer + s->have, s->buffer_bytes - s->have };
	s->receive = (struct stream_io){ .iov = &s->iov, .iov_count = 1, .minimum = 1 };
	stream_recv(s->stream, &s->receive, j);
	job_then(j, server_came);
}

static int server_open(void *arg)
{
	struct server *s = arg;
	struct listener *l;
	int r = file_open(s->env, s->config->path, FILE_OPEN_WRITE | (s->config->buffered ? 0 : FILE_OPEN_DIRECT), &s->file);
	if (r < 0)
		die(s->config->path, r);
	r = stream_listen(s->env, s->config->address, &l);
	if (r == 0)
		r = stream_accept(l, &s->stream);
	if (r == 0)
		listener_close(l);
	return r;
}

static void serve(const struct config *config)
{
	struct server s = { .config = config, .buffer_bytes = 1 << 20, .buffer = env_alloc_aligned(1 << 20) };
	int r = env_linux_create(0, &s.env);
	if (r == 0)
		r = env_linux_run_fiber(s.env, server_open, &s);
	if (r < 0)
		die("server", r);
	for (unsigned i = 0; i < DEPTH_MAX; i++) {
		struct request *q = calloc(1, sizeof *q);
		q->block = (char *)env_alloc_aligned(2 * BLOCK) + (config->odd ? 8 : 0);
		q->server = &s;
		q->next = s.free;
		s.free = q;
	}
	job_init(&s.receive_job, &s.env->loop);
	server_receive(&s.receive_job);
	env_linux_run(s.env, &s.ended);
}

/* ---- client ---- */

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void client_send(int fd, const struct config *c, uint64_t blocks, unsigned count)
{
	static char out[DEPTH_MAX * (HEAD + BLOCK)];
	size_t each = HEAD + (c->write ? BLOCK : 0);
	for (unsigned i = 0; i < count; i++) {
		uint64_t offset = ((uint64_t)rand() << 31 | (uint64_t)rand()) % blocks * BLOCK;
		memcpy(out + i * each, &offset, sizeof offset);
	}
	for (size_t done = 0; done < count * each;) {
		ssize_t n = write(fd, out + done, count * each - done);
		if (n <= 0)
			die("client", -errno);
		done += (size_t)n;
	}
}

static uint64_t client(const struct config *c, uint64_t blocks)
{
	static char in[DEPTH_MAX * (REPLY + BLOCK)];
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	size_t each = REPLY + (c->write ? 0 : BLOCK), have = 0;
	snprintf(un.sun_path, sizeof un.sun_path, "%s", strchr(c->address, ':') + 1);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	for (int i = 0; connect(fd, (struct sockaddr *)&un, sizeof un) < 0; i++) {
		if (i == 1000)
			die("connect", -errno);
		usleep(1000);
	}
	uint64_t answered = 0;
	client_send(fd, c, blocks, c->depth);
	for (double end = now() + c->seconds; now() < end;) {
		ssize_t n = read(fd, in, sizeof in);
		if (n <= 0)
			die("client", -errno);
		have += (size_t)n;
		unsigned count = (unsigned)(have / each);
		have %= each;
		answered += count;
		if (count)
			client_send(fd, c, blocks, count);
	}
	close(fd);
	return answered;
}

int main(int argc, char **argv)
{
	char address[64], directory[] = "/tmp/env_bench-XXXXXX";
	if (argc < 5 || !mkdtemp(directory)) {
		fprintf(stderr, "usage: env_bench FILE r|w DEPTH SECONDS [buffered|odd]\n");
		return 2;
	}
	snprintf(address, sizeof address, "unix:%s/s", directory);
	const char *how = argc > 5 ? argv[5] : "direct";
	struct config c = { .path = argv[1], .address = address, .write = argv[2][0] == 'w', .buffered = strcmp(how, "buffered") == 0,
			    .odd = strcmp(how, "odd") == 0, .depth = (unsigned)atoi(argv[3]), .seconds = atof(argv[4]) };
	FILE *f = fopen(c.path, "r");
	if (!f || fseeko(f, 0, SEEK_END) < 0)
		die(c.path, -errno);
	uint64_t blocks = (uint64_t)ftello(f) / BLOCK;
	if (blocks == 0 || c.depth == 0 || c.depth > DEPTH_MAX)
		die("file or depth", -EINVAL);
	pid_t pid = fork();
	if (pid == 0) {
		serve(&c);
		exit(0);
	}
	uint64_t answered = client(&c, blocks);
	struct rusage u;
	int status;
	wait4(pid, &status, 0, &u);
	rmdir(directory);
	double cpu = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
	printf("%s depth %u %s: %.0f/s, %.2f ms of the server's CPU per 1000\n", c.write ? "write" : "read", c.depth,
	       how, (double)answered / c.seconds, cpu * 1e6 / (double)answered);
	return status != 0;
}
