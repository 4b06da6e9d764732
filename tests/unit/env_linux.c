/* The real world's env: files, locks, timers, offloads, streams. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/env.h"
#include "core/fiber.h"

static struct env *env;
static char dir[64];

/* Directly on the disk: /tmp may be a tmpfs, which has no O_DIRECT worth the name. */
static void setup(void)
{
	snprintf(dir, sizeof dir, "/var/tmp/aquifer-unit-XXXXXX");
	cr_assert(mkdtemp(dir));
	cr_assert_eq(env_linux_create(0, &env), 0);
}

static void teardown(void)
{
	char command[128];
	env_linux_destroy(env);
	snprintf(command, sizeof command, "rm -rf %s", dir);
	cr_assert_eq(system(command), 0);
}

static const char *in_dir(const char *name)
{
	static char path[4][128];
	static unsigned next;
	char *p = path[next++ % 4];
	snprintf(p, sizeof path[0], "%s/%s", dir, name);
	return p;
}

static void run(int (*test)(void *arg))
{
	cr_assert_eq(env_linux_run_fiber(env, test, NULL), 0);
}

static void fill(char *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1103515245 + 12345;
		p[i] = (char)(seed >> 16);
	}
}

TestSuite(env_linux, .init = setup, .fini = teardown, .timeout = 60);

/* ---- files ---- */

static int file_basics(const char *name, int flags)
{
	struct file *f;
	struct file_info info;
	char *data = env_alloc_aligned(64 << 10), *back = env_alloc_aligned(64 << 10);
	size_t done;
	cr_assert_eq(file_open(env, in_dir(name), FILE_OPEN_WRITE | FILE_OPEN_CREATE | FILE_OPEN_NEW | flags, &f), 0);
	fill(data, 64 << 10, 1);
	cr_assert_eq(file_write_wait(f, data, 64 << 10, 4096), 0);
	cr_assert_eq(file_sync_wait(f), 0);
	cr_assert_eq(file_stat(f, &info), 0);
	cr_assert_eq(info.size, 68 << 10);
	cr_assert_eq(file_read_wait(f, back, 64 << 10, 4096, NULL), 0);
	cr_assert_arr_eq(data, back, 64 << 10);
	/* end of file: short, then nothing, and without `done` an error */
	cr_assert_eq(file_read_wait(f, back, 64 << 10, 64 << 10, &done), 0);
	cr_assert_eq(done, 4096);
	cr_assert_arr_eq(data + (60 << 10), back, 4096);
	cr_assert_eq(file_read_wait(f, back, 4096, 1 << 20, &done), 0);
	cr_assert_eq(done, 0);
	cr_assert_eq(file_read_wait(f, back, 4096, 1 << 20, NULL), -EIO);
	cr_assert_eq(file_close(env, f), 0);
	cr_assert_eq(file_open(env, in_dir(name), FILE_OPEN_CREATE | FILE_OPEN_NEW, &f), -EEXIST);
	free(data);
	free(back);
	return 0;
}

static int buffered(void *arg)
{
	(void)arg;
	return file_basics("buffered", 0);
}
Test(env_linux, buffered_file) { run(buffered); }

static int direct(void *arg)
{
	(void)arg;
	return file_basics("direct", FILE_OPEN_DIRECT);
}
Test(env_linux, direct_file) { run(direct); }

/* ---- streams ---- */

static int pair(const char *address, struct stream **a, struct stream **b);

static struct listener *echo_listener;
static struct stream *accepted;

static int accept_one(void *arg)
{
	(void)arg;
	return stream_accept(echo_listener, &accepted);
}

static int pair(const char *address, struct stream **a, struct stream **b)
{
	struct job j;
	cr_assert_eq(stream_listen(env, address, &echo_listener), 0);
	job_init(&j, &env->loop);
	job_hold(&j);
	cr_assert_eq(fiber_start(&env->loop, accept_one, NULL, &j), 0);
	cr_assert_eq(stream_connect(env, listener_address(echo_listener), NS_PER_S * 10, a), 0);
	cr_assert_eq(fiber_wait(&j), 0);
	*b = accepted;
	listener_close(echo_listener);
	return 0;
}

static int both_ways(const char *address)
{
	struct stream *a, *b;
	char out[1000], in[1000];
	pair(address, &a, &b);
	fill(out, sizeof out, 7);
	cr_assert_eq(stream_send_wait(a, out, sizeof out), 0);
	cr_assert_eq(stream_recv_wait(b, in, sizeof in), 0);
	cr_assert_arr_eq(in, out, sizeof in);
	cr_assert_eq(stream_send_wait(b, out, 10), 0);
	cr_assert_eq(stream_recv_wait(a, in, 10), 0);
	stream_close(a);
	cr_assert_eq(stream_recv_wait(b, in, 10), -ECONNRESET);
	stream_close(b);
	return 0;
}

static int tcp_stream(void *arg)
{
	(void)arg;
	return both_ways("tcp:127.0.0.1:0");
}
Test(env_linux, tcp_stream) { run(tcp_stream); }

static int unix_stream(void *arg)
{
	char address[128];
	(void)arg;
	snprintf(address, sizeof address, "unix:%s", in_dir("s"));
	return both_ways(address);
}
Test(env_linux, unix_stream) { run(unix_stream); }
