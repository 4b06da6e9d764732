/* Opening, locking and mapping files, and directories: plain system calls, each made by a
 * worker because any of them can wait for a disk or a network file system. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/env_linux.h"

/* ---- opening ---- */

struct open_call {
	const char *path;
	int flags;
	struct file_linux *file;
};

/* What direct I/O needs aligned. False: this file has none after all. */
static bool direct_limits(struct file_linux *f)
{
	int sector;
	f->io_align = f->memory_align = 512;
	if (f->is_block_device) {
		if (ioctl(f->fd, BLKSSZGET, &sector) == 0 && sector > 0)
			f->io_align = f->memory_align = (uint32_t)sector;
		return true;
	}
	struct statx sx;
	if (statx(f->fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_DIOALIGN, &sx) < 0)
		return true;
	if (sx.stx_mask & STATX_DIOALIGN) {
		if (!is_power_of_two(sx.stx_dio_offset_align) || !is_power_of_two(sx.stx_dio_mem_align))
			return false;
		f->io_align = sx.stx_dio_offset_align;
		f->memory_align = sx.stx_dio_mem_align;
		return true;
	}
	return true; /* network, FUSE, btrfs: they don't say, and take sectors */
}

/* O_DIRECT is set afterwards, because an open() that it makes fail may have created the file. */
static void direct_try(struct file_linux *f, int status_flags)
{
	if (fcntl(f->fd, F_SETFL, status_flags | O_DIRECT) == 0) {
		f->direct = direct_limits(f);
		if (f->direct)
			return;
		fcntl(f->fd, F_SETFL, status_flags);
	}
	f->io_align = f->memory_align = 1;
}

static int open_run(void *arg)
{
	struct open_call *c = arg;
	struct file_linux *f = c->file;
	int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK; /* not to hang at a FIFO */
	flags |= c->flags & FILE_OPEN_WRITE ? O_RDWR : O_RDONLY;
	flags |= c->flags & FILE_OPEN_CREATE ? O_CREAT : 0;
	flags |= c->flags & FILE_OPEN_CREATE && c->flags & FILE_OPEN_NEW ? O_EXCL : 0;
	do
		f->fd = open(c->path, flags, 0600);
	while (f->fd < 0 && errno == EINTR);
	if (f->fd < 0)
		return -errno;
	struct stat st;
	int r = fstat(f->fd, &st) < 0 ? -errno : 0;
	if (r == 0 && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		r = S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	int status_flags = flags & O_ACCMODE;
	if (r == 0 && fcntl(f->fd, F_SETFL, status_flags) < 0)
		r = -errno;
	if (r < 0) {
		close(f->fd);
		return r;
	}
	f->is_block_device = S_ISBLK(st.st_mode);
	f->writable = c->flags & FILE_OPEN_WRITE;
	f->io_align = f->memory_align = 1;
	if (c->flags & FILE_OPEN_DIRECT)
		direct_try(f, status_flags);
	return 0;
}

int env_linux_file_open(struct env *env, const char *path, int flags, struct file **ret_file)
{
	struct open_call c = { .path = path, .flags = flags, .file = calloc(1, sizeof *c.file) };
	if (!c.file)
		return -ENOMEM;
	c.file->file.env = env;
	c.file->claim_fd = -1;
	int r = env_brief_wait(env, open_run, &c);
	if (r < 0) {
		free(c.file);
		return r;
	}
	if (c.file->direct || (c.file->writable && !env->solitary))
		env_linux_aio_start(env_linux_of(env));
	*ret_file = &c.file->file;
	return 0;
}

static int close_run(void *arg)
{
	const struct file_linux *f = arg;
	if (f->claim_fd >= 0)
		close(f->claim_fd);
	/* EINTR: the descriptor is gone all the same. */
	return close(f->fd) < 0 && errno != EINTR ? -errno : 0;
}

int env_linux_file_close(struct env *env, struct file *file)
{
	struct file_linux *f = file_linux_of(file);
	assert(f->in_flight == 0);
	int r = env_brief_wait(env, close_run, f);
	free(f);
	return r;
}

/* ---- what is known of a file ---- */

struct stat_call {
	struct file_linux *file;
	struct file_info *info;
};

static int stat_run(void *arg)
{
	struct stat_call *c = arg;
	const struct file_linux *f = c->file;
	struct stat st;
	if (fstat(f->fd, &st) < 0)
		return -errno;
	uint64_t size = (uint64_t)st.st_size;
	if (f->is_block_device && ioctl(f->fd, BLKGETSIZE64, &size) < 0)
		return -errno;
	*c->info = (struct file_info){
		.size = size,
		.allocated = f->is_block_device ? size : (uint64_t)st.st_blocks * 512,
		.io_align = f->io_align,
		.memory_align = f->memory_align,
		.is_block_device = f->is_block_device,
		.direct = f->direct,
		.device = f->is_block_device ? st.st_rdev : st.st_dev,
		.inode = f->is_block_device ? 0 : st.st_ino,
	};
	return 0;
}

int env_linux_file_stat(struct file *f, struct file_info *ret_info)
{
	struct stat_call c = { file_linux_of(f), ret_info };
	return env_brief_wait(f->env, stat_run, &c);
}

struct lock_call {
	struct file_linux *file;
	bool exclusive;
};

static int lock_run(void *arg)
{
	const struct lock_call *c = arg;
	struct flock l = { .l_type = c->exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET };
	if (fcntl(c->file->fd, F_OFD_SETLK, &l) == 0)
		return 0;
	return errno == EACCES ? -EAGAIN : -errno;
}

int env_linux_file_lock(struct file *f, bool exclusive)
{
	struct lock_call c = { file_linux_of(f), exclusive };
	return env_brief_wait(f->env, lock_run, &c);
}

/* By a descriptor of its own: what is claimed must be there and locked before, and a claim by open() is for as long as that is open. */
static int claim_run(void *arg)
{
	struct file_linux *f = arg;
	char path[32];
	snprintf(path, sizeof path, "/proc/self/fd/%d", f->fd);
	f->claim_fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
	return f->claim_fd < 0 ? -errno : 0;
}

int env_linux_file_claim(struct file *file)
{
	struct file_linux *f = file_linux_of(file);
	return f->is_block_device && f->claim_fd < 0 ? env_brief_wait(file->env, claim_run, f) : 0;
}

enum { MAP_TRIES = 8 }; /* of a file that changes under us */

struct map_call {
	struct file_linux *file;
	uint64_t offset, length;
	bool data;
};

/* Bytes from c->offset to where what begins there ends; 0 or more, at most c->length. */
static uint64_t map_until(const struct map_call *c, off_t end)
{
	return end < 0 ? c->length : MIN((uint64_t)end - c->offset, c->length);
}

/* Of two questions the second may be answered of a file that has changed since the first. */
static int map_look(struct map_call *c)
{
	off_t data = lseek(c->file->fd, (off_t)c->offset, SEEK_DATA);
	if (data < 0 && errno == ENXIO) { /* no data from here to the end of the file, or beyond the end */
		off_t size = lseek(c->file->fd, 0, SEEK_END);
		if (size < 0)
			return -errno;
		c->data = c->offset >= (uint64_t)size;
		if (!c->data)
			c->length = map_until(c, size);
		return 0;
	}
	if (data < 0)
		return errno == EINVAL || errno == EOPNOTSUPP ? 0 : -errno;
	if ((uint64_t)data > c->offset) {
		c->data = false;
		c->length = map_until(c, data);
		return 0;
	}
	uint64_t length = map_until(c, lseek(c->file->fd, (off_t)c->offset, SEEK_HOLE));
	if (length == 0)
		return -EAGAIN; /* there was data, and by now there is a hole: somebody has just punched it */
	c->length = length;
	return 0;
}

static int map_run(void *arg)
{
	struct map_call *c = arg;
	int r = -EAGAIN;
	c->data = true;
	for (int i = 0; r == -EAGAIN && i < MAP_TRIES && !c->file->is_block_device; i++)
		r = map_look(c);
	return r == -EAGAIN ? 0 : r; /* what nobody can tell is data */
}

int env_linux_file_map(struct file *f, uint64_t offset, uint64_t length, uint64_t *ret_length, bool *ret_data)
{
	struct map_call c = { file_linux_of(f), offset, length, true };
	if (length == 0 || offset > INT64_MAX)
		return -EINVAL;
	int r = env_brief_wait(f->env, map_run, &c);
	if (r == 0) {
		*ret_length = c.length;
		*ret_data = c.data;
	}
	return r;
}

/* ---- directories ---- */

struct path_call {
	const char *path, *to;
	uint64_t free_bytes, total_bytes;
	struct dirent **names;
	int name_count;
};

static int mkdir_run(void *arg)
{
	const struct path_call *c = arg;
	struct stat st;
	if (mkdir(c->path, 0755) == 0)
		return 0;
	if (errno != EEXIST)
		return -errno;
	if (stat(c->path, &st) < 0)
		return -errno;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

static int unlink_run(void *arg)
{
	const struct path_call *c = arg;
	return unlink(c->path) < 0 ? -errno : 0;
}

static int rmdir_run(void *arg)
{
	const struct path_call *c = arg;
	return rmdir(c->path) < 0 ? -errno : 0;
}

static int rename_run(void *arg)
{
	const struct path_call *c = arg;
	return rename(c->path, c->to) < 0 ? -errno : 0;
}

static int sync_dir_run(void *arg)
{
	const struct path_call *c = arg;
	int fd = open(c->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int r = fsync(fd) < 0 ? -errno : 0;
	close(fd);
	return r;
}

static int space_run(void *arg)
{
	struct path_call *c = arg;
	struct statvfs s;
	if (statvfs(c->path, &s) < 0)
		return -errno;
	c->free_bytes = (uint64_t)s.f_bavail * s.f_frsize;
	c->total_bytes = (uint64_t)s.f_blocks * s.f_frsize;
	return 0;
}

static int not_dots(const struct dirent *d)
{
	return strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int list_run(void *arg)
{
	struct path_call *c = arg;
	c->name_count = scandir(c->path, &c->names, not_dots, by_bytes);
	return c->name_count < 0 ? -errno : 0;
}

static int path_call(struct env *env, int (*run)(void *arg), const char *path)
{
	struct path_call c = { .path = path };
	return env_offload_wait(env, run, &c);
}

int env_linux_mkdir(struct env *env, const char *path) { return path_call(env, mkdir_run, path); }
int env_linux_unlink(struct env *env, const char *path) { return path_call(env, unlink_run, path); }
int env_linux_rmdir(struct env *env, const char *path) { return path_call(env, rmdir_run, path); }
int env_linux_sync_dir(struct env *env, const char *path) { return path_call(env, sync_dir_run, path); }

int env_linux_rename(struct env *env, const char *from, const char *to)
{
	struct path_call c = { .path = from, .to = to };
	return env_offload_wait(env, rename_run, &c);
}

struct real_call {
	const char *path;
	char *real;
};

static int real_run(void *arg)
{
	struct real_call *c = arg;
	c->real = realpath(c->path, NULL);
	return c->real ? 0 : -errno;
}

int env_linux_real_path(struct env *env, const char *path, char *ret_path, size_t bytes)
{
	struct real_call c = { .path = path };
	int r = env_brief_wait(env, real_run, &c);
	if (r == 0 && strlen(c.real) >= bytes)
		r = -ENAMETOOLONG;
	if (r == 0)
		strcpy(ret_path, c.real);
	free(c.real);
	return r;
}

int env_linux_list_dir(struct env *env, const char *path, int (*entry)(void *arg, const char *name), void *arg)
{
	struct path_call c = { .path = path };
	int r = env_brief_wait(env, list_run, &c);
	if (r < 0)
		return r;
	for (int i = 0; i < c.name_count; i++) {
		if (r == 0)
			r = entry(arg, c.names[i]->d_name);
		free(c.names[i]);
	}
	free(c.names);
	return r;
}

int env_linux_space(struct env *env, const char *path, uint64_t *ret_free, uint64_t *ret_total)
{
	struct path_call c = { .path = path };
	int r = env_brief_wait(env, space_run, &c);
	if (r == 0) {
		*ret_free = c.free_bytes;
		*ret_total = c.total_bytes;
	}
	return r;
}
