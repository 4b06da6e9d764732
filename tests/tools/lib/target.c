/* See target.h. */
#include "tests/tools/lib/target.h"

#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

struct target {
	struct nbd_handle *nbd; /* NULL: fd */
	int fd;
	bool is_device;
};

static bool is_nbd(const char *path)
{
	return strncmp(path, "nbd", 3) == 0 && strstr(path, "://");
}

/* libnbd's failures: its errno where it has one, which is never 0 then. */
static int nbd_result(int r)
{
	if (r == 0)
		return 0;
	errno = nbd_get_errno() ? nbd_get_errno() : EIO;
	return -1;
}

static int open_nbd(struct target *t, const char *uri)
{
	t->nbd = nbd_create();
	if (!t->nbd)
		return nbd_result(-1);
	return nbd_result(nbd_connect_uri(t->nbd, uri));
}

static int open_file(struct target *t, const char *path, const struct target_options *o)
{
	struct stat st;
	t->fd = open(path, (o->read_only ? O_RDONLY : O_RDWR) | (o->buffered ? 0 : O_DIRECT) | O_CLOEXEC);
	if (t->fd < 0 || fstat(t->fd, &st) < 0)
		return -1;
	t->is_device = S_ISBLK(st.st_mode);
	return 0;
}

int target_open(const char *path, const struct target_options *options, struct target **ret_target)
{
	struct target *t = calloc(1, sizeof *t);
	if (!t)
		return -1;
	t->fd = -1;
	if ((is_nbd(path) ? open_nbd(t, path) : open_file(t, path, options)) < 0) {
		int e = errno;
		target_close(t);
		errno = e;
		return -1;
	}
	*ret_target = t;
	return 0;
}

void target_close(struct target *t)
{
	if (!t)
		return;
	if (t->nbd)
		nbd_close(t->nbd);
	if (t->fd >= 0)
		close(t->fd);
	free(t);
}

int target_measure(struct target *t, uint64_t *ret_bytes, uint32_t *ret_sector)
{
	struct stat st;
	int sector = 512;
	*ret_sector = 512;
	if (t->nbd) {
		int64_t size = nbd_get_size(t->nbd), least = nbd_get_block_size(t->nbd, LIBNBD_SIZE_MINIMUM);
		if (size < 0 || least < 0)
			return nbd_result(-1);
		*ret_bytes = (uint64_t)size;
		*ret_sector = least > 512 ? (uint32_t)least : 512;
		return 0;
	}
	if (!t->is_device) {
		if (fstat(t->fd, &st) < 0)
			return -1;
		*ret_bytes = (uint64_t)st.st_size;
		return 0;
	}
	if (ioctl(t->fd, BLKGETSIZE64, ret_bytes) < 0 || ioctl(t->fd, BLKSSZGET, &sector) < 0)
		return -1;
	*ret_sector = (uint32_t)sector;
	return 0;
}

/* A short transfer is an error of its own. */
static int whole(ssize_t n, size_t bytes)
{
	if (n >= 0 && (size_t)n != bytes)
		errno = EIO;
	return n >= 0 && (size_t)n == bytes ? 0 : -1;
}

int target_read(struct target *t, void *to, size_t bytes, uint64_t offset)
{
	return t->nbd ? nbd_result(nbd_pread(t->nbd, to, bytes, offset, 0)) : whole(pread(t->fd, to, bytes, (off_t)offset), bytes);
}

int target_write(struct target *t, const void *from, size_t bytes, uint64_t offset)
{
	return t->nbd ? nbd_result(nbd_pwrite(t->nbd, from, bytes, offset, 0)) : whole(pwrite(t->fd, from, bytes, (off_t)offset), bytes);
}

int target_flush(struct target *t)
{
	return t->nbd ? nbd_result(nbd_flush(t->nbd, 0)) : fdatasync(t->fd);
}

static int clear_file(struct target *t, bool discard, size_t bytes, uint64_t offset)
{
	uint64_t range[2] = { offset, bytes };
	if (t->is_device)
		return ioctl(t->fd, discard ? BLKDISCARD : BLKZEROOUT, range);
	return fallocate(t->fd, (discard ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE, (off_t)offset,
			 (off_t)bytes);
}

int target_zero(struct target *t, size_t bytes, uint64_t offset)
{
	return t->nbd ? nbd_result(nbd_zero(t->nbd, bytes, offset, 0)) : clear_file(t, /* discard= */ false, bytes, offset);
}

int target_discard(struct target *t, size_t bytes, uint64_t offset)
{
	return t->nbd ? nbd_result(nbd_trim(t->nbd, bytes, offset, 0)) : clear_file(t, /* discard= */ true, bytes, offset);
}

const char *target_error(const struct target *t)
{
	const char *said = t && t->nbd ? nbd_get_error() : NULL;
	return said ? said : strerror(errno);
}
