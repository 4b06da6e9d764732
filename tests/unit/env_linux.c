/* The real world's env: files, locks, timers, offloads, streams. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/env.h"
#include "core/fiber.h"
#include "tests/unit/tempdir.h"

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
	env_linux_destroy(env);
	tempdir_remove(dir);
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

/* Aligned on the disk, not in memory, and cut into pieces no sector would be; also longer than a worker's buffer. */
static int unaligned(void *arg)
{
	enum { BYTES = 768 << 10 };
	struct file *f;
	(void)arg;
	char *data = malloc(BYTES + 64), *back = malloc(BYTES + 64);
	fill(data, BYTES + 64, 2);
	memset(back, 0, BYTES + 64);
	struct iovec to[3] = { { data + 1, 1000 }, { data + 1001, 5 }, { data + 1006, BYTES - 1005 } };
	struct iovec from[2] = { { back + 3, 77777 }, { back + 77780, BYTES - 77777 } };
	struct file_io w = { .op = FILE_WRITE, .offset = 8192, .length = BYTES, .iov = to, .iov_count = 3 };
	struct file_io r = { .op = FILE_READ, .offset = 8192, .length = BYTES, .iov = from, .iov_count = 2 };
	struct job j;
	cr_assert_eq(file_open(env, in_dir("u"), FILE_OPEN_WRITE | FILE_OPEN_CREATE | FILE_OPEN_DIRECT, &f), 0);
	job_init(&j, &env->loop);
	file_submit(f, &w, &j);
	cr_assert_eq(fiber_wait(&j), 0);
	job_init(&j, &env->loop);
	file_submit(f, &r, &j);
	cr_assert_eq(fiber_wait(&j), 0);
	cr_assert_eq(r.done, BYTES);
	cr_assert_arr_eq(back + 3, data + 1, BYTES);
	/* 1000 bytes less: the file ends within a sector, and within the last buffer */
	struct file_io t = { .op = FILE_TRUNCATE, .offset = 8192 + BYTES - 1000 };
	job_init(&j, &env->loop);
	file_submit(f, &t, &j);
	cr_assert_eq(fiber_wait(&j), 0);
	job_init(&j, &env->loop);
	file_submit(f, &r, &j);
	cr_assert_eq(fiber_wait(&j), 0);
	cr_assert_eq(r.done, BYTES - 1000);
	char *sector = env_alloc_aligned(4096);
	size_t done;
	cr_assert_eq(file_read_wait(f, sector, 4096, 8192 + BYTES - 4096, &done), 0);
	cr_assert_eq(done, 3096);
	cr_assert_eq(file_close(env, f), 0);
	free(sector);
	free(data);
	free(back);
	return 0;
}
Test(env_linux, direct_file_takes_unaligned_memory) { run(unaligned); }

/* More entries than the kernel takes in one call. */
static int many_pieces(int flags, size_t piece)
{
	enum { COUNT = 2500 };
	struct iovec to[COUNT], from[COUNT];
	struct file *f;
	size_t bytes = COUNT * piece;
	char *data = env_alloc_aligned(bytes), *back = env_alloc_aligned(bytes);
	fill(data, bytes, 3);
	for (size_t i = 0; i < COUNT; i++) {
		to[i] = (struct iovec){ data + i * piece, piece };
		from[i] = (struct iovec){ back + (COUNT - 1 - i) * piece, piece };
	}
	struct file_io w = { .op = FILE_WRITE, .length = bytes, .iov = to, .iov_count = COUNT };
	struct file_io r = { .op = FILE_READ, .length = bytes, .iov = from, .iov_count = COUNT };
	struct job j;
	cr_assert_eq(file_open(env, in_dir("m"), FILE_OPEN_WRITE | FILE_OPEN_CREATE | flags, &f), 0);
	job_init(&j, &env->loop);
	file_submit(f, &w, &j);
	cr_assert_eq(fiber_wait(&j), 0);
	job_init(&j, &env->loop);
	file_submit(f, &r, &j);
	cr_assert_eq(fiber_wait(&j), 0);
	for (size_t i = 0; i < COUNT; i++)
		cr_assert_arr_eq(back + (COUNT - 1 - i) * piece, data + i * piece, piece);
	cr_assert_eq(file_close(env, f), 0);
	free(data);
	free(back);
	return 0;
}

static int many(void *arg)
{
	(void)arg;
	many_pieces(0, 3);
	many_pieces(FILE_OPEN_DIRECT, 512);
	return 0;
}
Test(env_linux, more_pieces_than_the_kernel_takes) { run(many); }

/* More requests at once than there are aio slots; all end, each once, with its own bytes. */
static int deep(void *arg)
{
	enum { COUNT = 1000 };
	static struct file_io io[COUNT];
	static struct iovec v[COUNT];
	struct file *f;
	struct job j;
	(void)arg;
	char *data = env_alloc_aligned(COUNT * 512), *back = env_alloc_aligned(COUNT * 512);
	fill(data, COUNT * 512, 4);
	cr_assert_eq(file_open(env, in_dir("d"), FILE_OPEN_WRITE | FILE_OPEN_CREATE | FILE_OPEN_DIRECT, &f), 0);
	cr_assert_eq(file_write_wait(f, data, COUNT * 512, 0), 0);
	job_init(&j, &env->loop);
	for (size_t i = 0; i < COUNT; i++) {
		v[i] = (struct iovec){ back + i * 512, 512 };
		io[i] = (struct file_io){ .op = FILE_READ, .offset = i * 512, .length = 512, .iov = &v[i], .iov_count = 1 };
		file_submit(f, &io[i], &j);
	}
	cr_assert_eq(fiber_wait(&j), 0);
	cr_assert_arr_eq(back, data, COUNT * 512);
	for (size_t i = 0; i < COUNT; i++)
		cr_assert_eq(io[i].done, 512);
	/* overwrites and syncs mixed */
	job_init(&j, &env->loop);
	for (size_t i = 0; i < COUNT; i++) {
		io[i].op = i % 3 ? FILE_WRITE : FILE_SYNC;
		v[i].iov_base = data + (COUNT - 1 - i) * 512;
		file_submit(f, &io[i], &j);
	}
	cr_assert_eq(fiber_wait(&j), 0);
	cr_assert_eq(file_read_wait(f, back, COUNT * 512, 0, NULL), 0);
	for (size_t i = 0; i < COUNT; i++)
		cr_assert_arr_eq(back + i * 512, data + (i % 3 ? COUNT - 1 - i : i) * 512, 512);
	cr_assert_eq(file_close(env, f), 0);
	free(data);
	free(back);
	return 0;
}
Test(env_linux, deeper_than_the_aio_queue) { run(deep); }

static int file_op(struct file *f, enum file_op op, uint64_t offset, uint64_t length)
{
	struct file_io io = { .op = op, .offset = offset, .length = length };
	struct job j;
	job_init(&j, &env->loop);
	file_submit(f, &io, &j);
	return fiber_wait(&j);
}

static void map_is(struct file *f, uint64_t offset, uint64_t length, uint64_t want_length, bool want_data)
{
	uint64_t n = 0;
	bool data = !want_data;
	cr_assert_eq(file_map(f, offset, length, &n, &data), 0);
	cr_assert_eq(n, want_length, "map at %lu: %lu", offset, n);
	cr_assert_eq(data, want_data, "map at %lu", offset);
}

static int extents(int flags)
{
	enum { BYTES = 256 << 10, PART = 64 << 10 };
	struct file *f;
	struct file_info info;
	static const char zeroes[BYTES];
	char *data = env_alloc_aligned(BYTES), *back = env_alloc_aligned(BYTES);
	fill(data, BYTES, 5);
	cr_assert_eq(file_open(env, in_dir("e"), FILE_OPEN_WRITE | FILE_OPEN_CREATE | flags, &f), 0);
	cr_assert_eq(file_op(f, FILE_TRUNCATE, 1 << 20, 0), 0);
	cr_assert_eq(file_write_wait(f, data, BYTES, 0), 0);
	cr_assert_eq(file_sync_wait(f), 0);
	map_is(f, 0, 1 << 20, BYTES, true);
	map_is(f, 4096, 8192, 8192, true);
	map_is(f, BYTES, 4096, 4096, false);
	map_is(f, BYTES + 4096, 1 << 30, (1 << 20) - BYTES - 4096, false); /* to the end of the file */
	map_is(f, 1 << 20, 4096, 4096, true); /* behind it are no zeroes */
	map_is(f, 1 << 30, 4096, 4096, true);
	cr_assert_eq(file_op(f, FILE_DISCARD, PART, PART), 0);
	map_is(f, 0, BYTES, PART, true);
	map_is(f, PART, BYTES, PART, false);
	cr_assert_eq(file_op(f, FILE_ZERO, 2 * PART, PART), 0);
	cr_assert_eq(file_read_wait(f, back, BYTES, 0, NULL), 0);
	cr_assert_arr_eq(back, data, PART);
	cr_assert_arr_eq(back + PART, zeroes, 2 * PART);
	cr_assert_arr_eq(back + 3 * PART, data + 3 * PART, PART);
	cr_assert_eq(file_op(f, FILE_ALLOCATE, 0, 2 << 20), 0);
	cr_assert_eq(file_stat(f, &info), 0);
	cr_assert_eq(info.size, 1 << 20);
	cr_assert_eq(file_read_wait(f, back, PART, 0, NULL), 0);
	cr_assert_arr_eq(back, data, PART);
	cr_assert_eq(file_op(f, FILE_TRUNCATE, 4096, 0), 0);
	cr_assert_eq(file_stat(f, &info), 0);
	cr_assert_eq(info.size, 4096);
	cr_assert_eq(file_op(f, FILE_DISCARD, 0, 0), 0); /* nothing asked, nothing done */
	cr_assert_eq(file_close(env, f), 0);
	free(data);
	free(back);
	return 0;
}

static int extents_buffered(void *arg) { (void)arg; return extents(0); }
static int extents_direct(void *arg) { (void)arg; return extents(FILE_OPEN_DIRECT); }
Test(env_linux, discard_zero_allocate_truncate_map) { run(extents_buffered); }
Test(env_linux, discard_zero_allocate_truncate_map_direct) { run(extents_direct); }

/* A write that the kernel takes half of is gone on with, and its error is not lost. */
static int file_limit(int flags)
{
	struct rlimit limit = { 64 << 10, 64 << 10 };
	struct file *f;
	struct file_info info;
	char *data = env_alloc_aligned(32 << 10);
	fill(data, 32 << 10, 11);
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	cr_assert_eq(file_open(env, in_dir("limit"), FILE_OPEN_WRITE | FILE_OPEN_CREATE | flags, &f), 0);
	cr_assert_eq(file_write_wait(f, data, 32 << 10, 32 << 10), 0);
	cr_assert_eq(file_write_wait(f, data, 32 << 10, 48 << 10), -EFBIG);
	cr_assert_eq(file_op(f, FILE_TRUNCATE, 1 << 20, 0), -EFBIG);
	cr_assert_eq(file_stat(f, &info), 0);
	cr_assert_eq(info.size, 64 << 10);
	cr_assert_eq(file_close(env, f), 0);
	free(data);
	return 0;
}
static int limit_buffered(void *arg) { (void)arg; return file_limit(0); }
static int limit_direct(void *arg) { (void)arg; return file_limit(FILE_OPEN_DIRECT); }
Test(env_linux, half_a_write_is_no_success) { run(limit_buffered); }
Test(env_linux, half_a_write_is_no_success_direct) { run(limit_direct); }

/* A loop device over a file, gone at its last close. Returns its descriptor, or -1 (no right, or none free). */
static int loop_device(char ret_path[32])
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
	if (control >= 0)
		close(control);
	if (number < 0)
		return -1;
	snprintf(ret_path, 32, "/dev/loop%d", number);
	int file = open(in_dir("backing"), O_RDWR | O_CREAT | O_CLOEXEC, 0600), fd = open(ret_path, O_RDWR | O_CLOEXEC);
	struct loop_config c = { .fd = (unsigned)file, .block_size = 512, .info.lo_flags = LO_FLAGS_AUTOCLEAR };
	if (file < 0 || fd < 0 || ftruncate(file, 1 << 20) < 0 || ioctl(fd, LOOP_CONFIGURE, &c) < 0) {
		close(fd);
		fd = -1;
	}
	close(file);
	return fd;
}

static int block_device(void *arg)
{
	enum { BYTES = 64 << 10 };
	static const char zeroes[BYTES];
	const char *path = arg;
	struct file *f;
	struct file_info info;
	char *data = env_alloc_aligned(BYTES), *back = env_alloc_aligned(BYTES);
	fill(data, BYTES, 12);
	cr_assert_eq(file_open(env, path, FILE_OPEN_WRITE | FILE_OPEN_DIRECT, &f), 0);
	cr_assert_eq(file_stat(f, &info), 0);
	cr_assert(info.is_block_device && info.direct);
	cr_assert_eq(info.size, 1 << 20);
	cr_assert_eq(info.io_align, 512);
	cr_assert_eq(file_write_wait(f, data, BYTES, 512), 0);
	cr_assert_eq(file_read_wait(f, back, BYTES, 512, NULL), 0);
	cr_assert_arr_eq(back, data, BYTES);
	cr_assert_eq(file_sync_wait(f), 0);
	map_is(f, 0, 1 << 20, 1 << 20, true);
	cr_assert_eq(file_op(f, FILE_ZERO, 8192, 4096), 0);
	cr_assert_eq(file_op(f, FILE_DISCARD, 16384, 8192), 0);
	cr_assert_eq(file_read_wait(f, back, BYTES, 512, NULL), 0);
	cr_assert_arr_eq(back, data, 7680);
	cr_assert_arr_eq(back + 7680, zeroes, 4096);
	cr_assert_arr_eq(back + 11776, data + 11776, 4096);
	cr_assert_arr_eq(back + 15872, zeroes, 8192);
	cr_assert_arr_eq(back + 24064, data + 24064, BYTES - 24064);
	size_t done;
	cr_assert_eq(file_read_wait(f, back, BYTES, (1 << 20) - 512, &done), 0);
	cr_assert_eq(done, 512);
	cr_assert_eq(file_write_wait(f, data, 1024, (1 << 20) - 512), -ENOSPC);
	cr_assert_eq(file_close(env, f), 0);
	free(data);
	free(back);
	return 0;
}

Test(env_linux, block_device)
{
	char path[32];
	int fd = loop_device(path);
	if (fd < 0)
		cr_skip_test("no loop device to be had");
	cr_assert_eq(env_linux_run_fiber(env, block_device, path), 0);
	close(fd);
}

static int bad_opens(void *arg)
{
	struct file *f = NULL;
	char buffer[512] = "";
	(void)arg;
	cr_assert_eq(mkfifo(in_dir("fifo"), 0600), 0);
	cr_assert_eq(file_open(env, in_dir("missing"), 0, &f), -ENOENT);
	cr_assert_eq(file_open(env, dir, 0, &f), -EISDIR);
	cr_assert_eq(file_open(env, dir, FILE_OPEN_WRITE, &f), -EISDIR);
	cr_assert_eq(file_open(env, in_dir("fifo"), 0, &f), -EINVAL, "a FIFO is no file, and nobody is waited for");
	cr_assert_eq(file_open(env, "/dev/null", 0, &f), -EINVAL);
	cr_assert_null(f);
	cr_assert_eq(file_open(env, in_dir("r"), FILE_OPEN_CREATE, &f), 0);
	cr_assert_eq(file_write_wait(f, buffer, sizeof buffer, 0), -EBADF);
	cr_assert_eq(file_op(f, FILE_TRUNCATE, 100, 0), -EBADF);
	cr_assert_eq(file_sync_wait(f), 0);
	cr_assert_eq(file_close(env, f), 0);
	cr_assert_eq(file_close(env, NULL), 0);
	return 0;
}
Test(env_linux, what_is_no_file_is_refused) { run(bad_opens); }

static int no_direct(void *arg)
{
	struct file *f;
	struct file_info info;
	char buffer[100], back[100];
	(void)arg;
	/* procfs has no O_DIRECT; a sector of it can be read all the same. */
	cr_assert_eq(file_open(env, "/proc/self/stat", FILE_OPEN_DIRECT, &f), 0);
	cr_assert_eq(file_stat(f, &info), 0);
	cr_assert_not(info.direct);
	cr_assert_eq(info.io_align, 1);
	size_t done;
	cr_assert_eq(file_read_wait(f, buffer, 7, 0, &done), 0);
	cr_assert_eq(done, 7);
	cr_assert_eq(file_close(env, f), 0);
	/* buffered: any byte */
	cr_assert_eq(file_open(env, in_dir("b"), FILE_OPEN_WRITE | FILE_OPEN_CREATE, &f), 0);
	fill(buffer, sizeof buffer, 6);
	cr_assert_eq(file_write_wait(f, buffer, 100, 12345), 0);
	cr_assert_eq(file_read_wait(f, back, 98, 12346, NULL), 0);
	cr_assert_arr_eq(back, buffer + 1, 98);
	cr_assert_eq(file_close(env, f), 0);
	return 0;
}
Test(env_linux, falls_back_to_buffered) { run(no_direct); }

static int locks(void *arg)
{
	struct file *a, *b, *c;
	(void)arg;
	const char *path = in_dir("l");
	cr_assert_eq(file_open(env, path, FILE_OPEN_WRITE | FILE_OPEN_CREATE, &a), 0);
	cr_assert_eq(file_open(env, path, FILE_OPEN_WRITE, &b), 0);
	cr_assert_eq(file_open(env, path, FILE_OPEN_WRITE, &c), 0);
	cr_assert_eq(file_lock(a, true), 0);
	cr_assert_eq(file_lock(b, true), -EAGAIN);
	cr_assert_eq(file_lock(b, false), -EAGAIN);
	cr_assert_eq(file_lock(a, false), 0);
	cr_assert_eq(file_lock(b, false), 0);
	cr_assert_eq(file_lock(b, true), -EAGAIN);
	cr_assert_eq(file_close(env, c), 0); /* closing another open file must not lose it, as POSIX locks would be */
	cr_assert_eq(file_lock(b, true), -EAGAIN);
	cr_assert_eq(file_close(env, a), 0);
	cr_assert_eq(file_lock(b, true), 0);
	cr_assert_eq(file_close(env, b), 0);
	return 0;
}
Test(env_linux, locks_belong_to_the_open_file) { run(locks); }

static int list_entry(void *arg, const char *name)
{
	strcat(strcat(arg, name), " ");
	return strcmp(name, "stop") == 0 ? 7 : 0;
}

static int directories(void *arg)
{
	char names[200] = "";
	struct file *f;
	uint64_t free_bytes = 0, total = 0;
	(void)arg;
	cr_assert_eq(env_mkdir(env, in_dir("x")), 0);
	cr_assert_eq(env_mkdir(env, in_dir("x")), 0);
	static const char *const make[] = { "x/b", "x/a", "x/B", "x/.c" };
	for (int i = 0; i < 4; i++) {
		cr_assert_eq(file_open(env, in_dir(make[i]), FILE_OPEN_CREATE, &f), 0);
		cr_assert_eq(file_close(env, f), 0);
	}
	cr_assert_eq(env_mkdir(env, in_dir("x/a")), -ENOTDIR);
	cr_assert_eq(env_list_dir(env, in_dir("x"), list_entry, names), 0);
	cr_assert_str_eq(names, ".c B a b ");
	cr_assert_eq(env_rename(env, in_dir("x/a"), in_dir("x/stop")), 0);
	cr_assert_eq(env_sync_dir(env, in_dir("x")), 0);
	cr_assert_eq(env_list_dir(env, in_dir("x"), list_entry, names), 7);
	cr_assert_eq(env_list_dir(env, in_dir("y"), list_entry, names), -ENOENT);
	cr_assert_eq(env_rmdir(env, in_dir("x")), -ENOTEMPTY);
	static const char *const gone[] = { "x/b", "x/stop", "x/B", "x/.c" };
	for (int i = 0; i < 4; i++)
		cr_assert_eq(env_unlink(env, in_dir(gone[i])), 0);
	cr_assert_eq(env_unlink(env, in_dir("x/b")), -ENOENT);
	cr_assert_eq(env_rmdir(env, in_dir("x")), 0);
	cr_assert_eq(env_sync_dir(env, in_dir("x")), -ENOENT);
	cr_assert_eq(env_space(env, dir, &free_bytes, &total), 0);
	cr_assert(total > 0 && free_bytes <= total);
	return 0;
}
Test(env_linux, directories) { run(directories); }

/* ---- timers, offloads, descriptors ---- */

struct fire {
	struct job job;
	struct timer timer;
	int status;
	unsigned order;
};
static unsigned fired;

static void fire_step(struct job *j)
{
	struct fire *f = container_of(j, struct fire, job);
	f->status = j->status;
	f->order = fired++;
}

/* Started in a scrambled order, a third cancelled: the rest fire by due time, each once. */
static int timers(void *arg)
{
	enum { COUNT = 3000 }; /* more than the heap's first size */
	static struct fire f[COUNT];
	unsigned cancelled = 0, last = 0, seen = 0;
	(void)arg;
	for (unsigned i = 0; i < COUNT; i++) {
		unsigned due = i * 1789 % COUNT; /* coprime: a permutation */
		job_init(&f[due].job, &env->loop);
		timer_init(&f[due].timer);
		timer_start(env, &f[due].timer, NS_PER_MS + due * 10000, &f[due].job);
		job_then(&f[due].job, fire_step);
	}
	for (unsigned i = 0; i < COUNT; i += 3) {
		cr_assert(timer_running(&f[i].timer));
		timer_cancel(env, &f[i].timer);
		cr_assert_not(timer_running(&f[i].timer));
		timer_cancel(env, &f[i].timer);
		cancelled++;
	}
	fiber_sleep(&env->loop, 0);
	cr_assert_geq(fired, cancelled);
	fiber_sleep(&env->loop, 40 * NS_PER_MS);
	cr_assert_eq(fired, COUNT);
	for (unsigned i = 0; i < COUNT; i++) {
		cr_assert_eq(f[i].status, i % 3 ? 0 : -ECANCELED);
		if (i % 3 == 0)
			continue;
		cr_assert(seen++ == 0 || f[i].order > last);
		last = f[i].order;
	}
	return 0;
}
Test(env_linux, timers_fire_in_order_and_cancel) { run(timers); }

static pthread_mutex_t rendezvous_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t rendezvous_cond = PTHREAD_COND_INITIALIZER;
static int rendezvous_count;

/* Returns when three are here at the same time: they need three threads. */
static int rendezvous(struct offload *o)
{
	(void)o;
	pthread_mutex_lock(&rendezvous_lock);
	rendezvous_count++;
	pthread_cond_broadcast(&rendezvous_cond);
	while (rendezvous_count < 3)
		pthread_cond_wait(&rendezvous_cond, &rendezvous_lock);
	pthread_mutex_unlock(&rendezvous_lock);
	return -42;
}

static int nap(struct offload *o)
{
	(void)o;
	usleep(1000);
	return 0;
}

static int offload_result(void *arg) { return *(int *)arg; }

static int offloads(void *arg)
{
	struct offload three[3] = { { .run = rendezvous }, { .run = rendezvous }, { .run = rendezvous } };
	static struct offload many_naps[200];
	struct job j;
	int value = -7;
	(void)arg;
	cr_assert_eq(env_offload_wait(env, offload_result, &value), -7);
	job_init(&j, &env->loop);
	for (int i = 0; i < 3; i++) {
		env_offload(env, &three[i], &j);
		fiber_sleep(&env->loop, 0); /* not all in one turn */
	}
	cr_assert_eq(fiber_wait(&j), -42);
	job_init(&j, &env->loop);
	for (int i = 0; i < 200; i++) {
		many_naps[i].run = nap;
		env_offload(env, &many_naps[i], &j);
	}
	cr_assert_eq(fiber_wait(&j), 0);
	return 0;
}
Test(env_linux, offloads_run_in_parallel) { run(offloads); }

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static _Atomic int gate_count;

static int at_gate(struct offload *o)
{
	(void)o;
	gate_count++;
	pthread_mutex_lock(&gate);
	pthread_mutex_unlock(&gate);
	return 0;
}

/* Offloads that all hang must not stop a file that needs a worker. */
static int stuck_offloads(void *arg)
{
	static struct offload stuck[200];
	struct job j;
	struct file *f;
	(void)arg;
	cr_assert_eq(file_open(env, in_dir("f"), FILE_OPEN_WRITE | FILE_OPEN_CREATE, &f), 0);
	pthread_mutex_lock(&gate);
	job_init(&j, &env->loop);
	for (int i = 0; i < 200; i++) {
		stuck[i].run = at_gate;
		env_offload(env, &stuck[i], &j);
	}
	for (int before = -1; before != gate_count;) { /* until no more threads come */
		before = gate_count;
		fiber_sleep(&env->loop, 30 * NS_PER_MS);
	}
	cr_assert_geq(gate_count, 4);
	cr_assert_eq(file_write_wait(f, "data", 4, 0), 0);
	pthread_mutex_unlock(&gate);
	cr_assert_eq(fiber_wait(&j), 0);
	cr_assert_eq(file_close(env, f), 0);
	return 0;
}
Test(env_linux, stuck_offloads_leave_files_alone) { run(stuck_offloads); }

static int watches(void *arg)
{
	int p[2];
	char c;
	struct fd_watch w = { 0 };
	struct job j;
	(void)arg;
	cr_assert_eq(pipe(p), 0);
	for (int round = 0; round < 3; round++) {
		job_init(&j, &env->loop);
		fd_watch_start(env, &w, p[0], &j);
		fiber_sleep(&env->loop, 0);
		cr_assert_not_null(w.parent);
		cr_assert_eq(write(p[1], "x", 1), 1);
		cr_assert_eq(fiber_wait(&j), 0);
		cr_assert_null(w.parent);
		if (round == 1) { /* not read: nobody is told any more, and the next watch ends at once */
			fiber_sleep(&env->loop, 0);
			job_init(&j, &env->loop);
			fd_watch_start(env, &w, p[0], &j);
			cr_assert_eq(fiber_wait(&j), 0);
		}
		cr_assert_eq(read(p[0], &c, 1), 1);
	}
	job_init(&j, &env->loop);
	fd_watch_start(env, &w, p[0], &j);
	fd_watch_cancel(env, &w);
	cr_assert_eq(fiber_wait(&j), -ECANCELED);
	fd_watch_cancel(env, &w);
	job_init(&j, &env->loop);
	fd_watch_start(env, &w, p[0], &j);
	close(p[1]);
	cr_assert_eq(fiber_wait(&j), 0, "a hang-up is told as well");
	close(p[0]);
	job_init(&j, &env->loop);
	fd_watch_start(env, &w, p[0], &j);
	cr_assert_eq(fiber_wait(&j), -EBADF);
	return 0;
}
Test(env_linux, watches_descriptors) { run(watches); }

/* A kept watch stays registered between starts; one that nobody waits for doesn't keep the loop awake. */
static int keeps_watching(void *arg)
{
	int p[2];
	char c;
	struct fd_watch w = { 0 };
	struct job j;
	(void)arg;
	cr_assert_eq(pipe(p), 0);
	for (int round = 0; round < 3; round++) {
		job_init(&j, &env->loop);
		fd_watch_start_kept(env, &w, p[0], &j);
		fiber_sleep(&env->loop, 0);
		cr_assert_not_null(w.parent);
		cr_assert_eq(write(p[1], "x", 1), 1);
		cr_assert_eq(fiber_wait(&j), 0);
		cr_assert(w.registered);
		if (round == 1) {
			fiber_sleep(&env->loop, NS_PER_MS);
			cr_assert_not(w.registered, "reported once, then let be");
			job_init(&j, &env->loop);
			fd_watch_start_kept(env, &w, p[0], &j);
			cr_assert_eq(fiber_wait(&j), 0);
		}
		cr_assert_eq(read(p[0], &c, 1), 1);
	}
	job_init(&j, &env->loop);
	fd_watch_start_kept(env, &w, p[0], &j);
	fd_watch_cancel(env, &w);
	cr_assert_eq(fiber_wait(&j), -ECANCELED);
	cr_assert_not(w.registered);
	job_init(&j, &env->loop);
	fd_watch_start_kept(env, &w, p[0], &j);
	close(p[1]);
	cr_assert_eq(fiber_wait(&j), 0, "a hang-up is told as well");
	fd_watch_cancel(env, &w);
	close(p[0]);
	return 0;
}
Test(env_linux, keeps_watching) { run(keeps_watching); }

static int clocks(void *arg)
{
	char a[37], b[37];
	(void)arg;
	uint64_t now = env_now_ns(env);
	usleep(2000);
	cr_assert_eq(env_now_ns(env), now, "read once per turn");
	fiber_sleep(&env->loop, 0);
	cr_assert_gt(env_now_ns(env), now);
	cr_assert_gt(env_wall_ns(env), UINT64_C(1600000000) * NS_PER_S);
	env_boot_id(env, a);
	env_boot_id(env, b);
	cr_assert_eq(strlen(a), 36);
	cr_assert_str_eq(a, b);
	uint64_t all = 0, none = UINT64_MAX;
	for (int i = 0; i < 200; i++) {
		uint64_t r = env_random(env);
		all |= r;
		none &= r;
	}
	cr_assert_eq(all, UINT64_MAX);
	cr_assert_eq(none, 0);
	return 0;
}
Test(env_linux, clock_random_boot_id) { run(clocks); }

/* What it is in a container, as far as that matters: in a pid namespace. 0: we may not make one. */
static uint64_t pids_within(void)
{
	int out[2], status;
	uint64_t pids = 0;
	cr_assert_eq(pipe(out), 0);
	pid_t pid = fork();
	if (pid == 0) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWPID) < 0)
			_exit(77);
		pid_t first = fork();
		if (first == 0) {
			pids = env_pids(env);
			_exit(write(out[1], &pids, sizeof pids) == sizeof pids ? 0 : 1);
		}
		_exit(waitpid(first, &status, 0) == first && status == 0 ? 0 : 1);
	}
	cr_assert(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	if (WEXITSTATUS(status) != 77)
		cr_assert_eq(read(out[0], &pids, sizeof pids), sizeof pids);
	close(out[0]);
	close(out[1]);
	return pids;
}

static int containers(void *arg)
{
	(void)arg;
	uint64_t here = env_pids(env), there = pids_within();
	cr_assert(here && here == env_pids(env));
	cr_assert_neq(here, there, "a container is taken for its machine");
	return 0;
}
Test(env_linux, a_container_has_pids_of_its_own) { run(containers); }
