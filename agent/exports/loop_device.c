/* Binding a file to /dev/loopN, letting go again, and the way out when its server hangs.
 *
 * The device has the kernel's autoclear flag: it is freed at its last close. So we keep it
 * open while we live, and a tapdisk that is killed leaves nothing behind once its users
 * have gone.
 *
 * The open file is kept inside a socket's receive queue, not as a descriptor. If we were
 * killed while there are dirty pages in the device's page cache, its last close writes
 * them out, through the FUSE connection; was that still open, the dying process would wait for
 * itself for ever. The kernel closes the files of a dying process in batches: first
 * the descriptors, among them the connection, which ends it; and only what it finds inside a closed
 * socket after that. */
#include "agent/exports/loop_device.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/blkpg.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "agent/exports/users.h"

#define FREE_TRIES 64      /* another process may take the free device first, each time */
#define USER_TRIES 20      /* udev looks at a device after each writer has closed it */
#define USER_PAUSE_MS 100
#define PARTITIONS_MAX 128

static void pause_ms(long ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };
	nanosleep(&t, NULL);
}

/* ---- holding ---- */

static int hold_put(struct loop_device *d, int device_fd)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &device_fd, sizeof device_fd);
	int r = sendmsg(pair[0], &m, 0) < 0 ? -errno : 0;
	close(pair[0]);
	if (r < 0)
		close(pair[1]);
	else
		d->hold = pair[1];
	return r;
}

/* The descriptor, or -errno; the socket is gone afterwards. */
static int hold_take(struct loop_device *d)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	char byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
	if (recvmsg(d->hold, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0)
		return -errno;
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	if (!c || c->cmsg_type != SCM_RIGHTS)
		return -EIO;
	int fd;
	memcpy(&fd, CMSG_DATA(c), sizeof fd);
	close(d->hold);
	d->hold = -1;
	return fd;
}

/* ---- binding ---- */

static void write_sysfs(int number, const char *file, const char *value)
{
	char path[96];
	snprintf(path, sizeof path, "/sys/block/loop%d/%s", number, file);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return; /* only hints to schedulers and mkfs are set this way */
	ssize_t n = write(fd, value, strlen(value));
	(void)n;
	close(fd);
}

/* Without udev or devtmpfs nobody makes the node of a device whose number is new. */
static int device_open(int number, bool read_only, char *path, size_t path_size)
{
	snprintf(path, path_size, "/dev/loop%d", number);
	int flags = (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
	int fd = open(path, flags);
	if (fd >= 0 || errno != ENOENT)
		return fd < 0 ? -errno : fd;
	char sys[64];
	unsigned major_number, minor_number;
	snprintf(sys, sizeof sys, "/sys/block/loop%d/dev", number);
	FILE *f = fopen(sys, "re");
	int n = f ? fscanf(f, "%u:%u", &major_number, &minor_number) : 0;
	if (f)
		fclose(f);
	if (n != 2)
		return -ENXIO;
	if (mknod(path, S_IFBLK | 0600, makedev(major_number, minor_number)) < 0 && errno != EEXIST)
		return -errno;
	fd = open(path, flags);
	return fd < 0 ? -errno : fd;
}

/* -EBUSY: somebody else was faster. */
static int configure(int control, const struct loop_bind *how, int *ret_number, int *ret_fd, char *path, size_t path_size)
{
	int number = ioctl(control, LOOP_CTL_GET_FREE);
	if (number < 0)
		return -errno;
	int fd = device_open(number, how->read_only, path, path_size);
	if (fd < 0)
		return fd == -ENXIO ? -EBUSY : fd;
	struct loop_config c = { .fd = (uint32_t)how->file, .block_size = how->block_size };
	c.info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO | (how->read_only ? LO_FLAGS_READ_ONLY : 0);
	snprintf((char *)c.info.lo_file_name, sizeof c.info.lo_file_name, "aquifer:%s", how->name);
	if (ioctl(fd, LOOP_CONFIGURE, &c) < 0) {
		int r = -errno;
		close(fd);
		return r;
	}
	*ret_number = number;
	*ret_fd = fd;
	return 0;
}

/* What was asked for must be what we got: without direct I/O there would be a second page cache below the first,
 * and requests of the loop driver would wait for one another. */
static int verify(int fd, const struct loop_bind *how, struct report *report)
{
	struct loop_info64 info;
	uint64_t size = 0;
	int block_size = 0;
	if (ioctl(fd, LOOP_GET_STATUS64, &info) < 0 || ioctl(fd, BLKGETSIZE64, &size) < 0 || ioctl(fd, BLKSSZGET, &block_size) < 0)
		return report_set(report, -errno, "read the loop device's status: %s", strerror(errno));
	if (!(info.lo_flags & LO_FLAGS_DIRECT_IO))
		return report_set(report, -EOPNOTSUPP, "the kernel did not turn on direct I/O for the loop device");
	if (!(info.lo_flags & LO_FLAGS_AUTOCLEAR))
		return report_set(report, -EOPNOTSUPP, "the kernel did not accept that the loop device frees itself");
	if (size != how->size)
		return report_set(report, -EIO, "the loop device has %llu bytes, not %llu", (unsigned long long)size,
				  (unsigned long long)how->size);
	if ((uint32_t)block_size != how->block_size)
		return report_set(report, -EIO, "the loop device has blocks of %d bytes, not %u", block_size, how->block_size);
	return 0;
}

/* Partitions that somebody made known (partx -a) stay with the device, whatever it is used for next. */
static void partitions_drop(int fd)
{
	for (int i = 1; i <= PARTITIONS_MAX; i++) {
		struct blkpg_partition p = { .pno = i };
		struct blkpg_ioctl_arg a = { .op = BLKPG_DEL_PARTITION, .datalen = sizeof p, .data = &p };
		if (ioctl(fd, BLKPG, &a) < 0 && errno != ENXIO && errno != EBUSY)
			return; /* it has none and can have none */
	}
}

int loop_device_bind(const struct loop_bind *how, struct loop_device *ret_device, struct report *report)
{
	struct loop_device d = { .hold = -1 };
	struct stat st;
	int number = -1, fd = -1, r = -EBUSY;
	if (fstat(how->file, &st) < 0)
		return report_set(report, -errno, "look at the served file: %s", strerror(errno));
	d.backing_dev = st.st_dev;
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0)
		return report_set(report, -errno, "open /dev/loop-control: %s (load the loop module, and run as root)",
				  strerror(errno));
	for (int i = 0; r == -EBUSY && i < FREE_TRIES; i++) {
		if (i > 8)
			pause_ms(10);
		r = configure(control, how, &number, &fd, d.path, sizeof d.path);
	}
	close(control);
	if (r < 0)
		return report_set(report, r, "set up a loop device: %s", strerror(-r));
	write_sysfs(number, "queue/rotational", how->rotational ? "1" : "0");
	partitions_drop(fd); /* of an earlier use that ended badly */
	r = verify(fd, how, report);
	if (r == 0) {
		r = hold_put(&d, fd);
		if (r < 0)
			report_set(report, r, "keep the loop device open: %s", strerror(-r));
	}
	close(fd); /* the last close if we failed, and then the device is free again */
	if (r == 0)
		*ret_device = d;
	return r;
}

int loop_device_resize(const struct loop_device *device, int file, uint64_t size, struct report *report)
{
	struct statx st;
	uint64_t now = 0;
	/* The kernel goes by the size it knows of the file: have it ask. */
	if (statx(file, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_SIZE, &st) < 0)
		return report_set(report, -errno, "look at the served file: %s", strerror(errno));
	int fd = open(device->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return report_set(report, -errno, "open %s: %s", device->path, strerror(errno));
	int r = ioctl(fd, LOOP_SET_CAPACITY, 0) < 0 || ioctl(fd, BLKGETSIZE64, &now) < 0 ? -errno : 0;
	close(fd);
	if (r < 0)
		return report_set(report, r, "set the size of %s: %s", device->path, strerror(-r));
	if (now != size)
		return report_set(report, -EIO, "%s has %llu bytes, not %llu", device->path, (unsigned long long)now,
				  (unsigned long long)size);
	return 0;
}

/* Our own hold keeps it open, so that the kernel doesn't do this when its last user closes it. */
int loop_device_forget(const struct loop_device *device, struct report *report)
{
	int fd = open(device->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return report_set(report, -errno, "open %s: %s", device->path, strerror(errno));
	int r = ioctl(fd, BLKFLSBUF, 0) < 0 ? -errno : 0;
	close(fd);
	return r < 0 ? report_set(report, r, "write out what is in memory of %s: %s", device->path, strerror(-r)) : 0;
}

/* ---- letting go ---- */

static int refuse_user(const struct loop_device *d, const struct block_users *u, struct report *report)
{
	if (u->count)
		return report_set(report, -EBUSY, "%s is %s", d->path, u->text);
	return report_set(report, -EBUSY, "%s is in use by somebody /proc does not show", d->path);
}

/* After LOOP_CLR_FD, as the only opener, the device is closed to others: it answers that it isn't
 * bound. If it still is, somebody has it open. */
static bool still_used(const struct loop_device *d, int fd)
{
	struct loop_info64 info;
	return ioctl(fd, LOOP_CLR_FD) < 0 ? errno != ENXIO :
	       ioctl(fd, LOOP_GET_STATUS64, &info) == 0 && info.lo_device == d->backing_dev;
}

/* 0: the kernel will let nobody else in, and nobody is. */
static int release_unused(const struct loop_device *d, int fd, struct report *report)
{
	struct block_users u = { 0 };
	for (int i = 0; i < USER_TRIES; i++) {
		int r = block_users(d->path, &u);
		if (r < 0)
			return report_set(report, r, "find the users of %s: %s", d->path, strerror(-r));
		if (u.count && !u.only_probing)
			break;
		if (u.count == 0) {
			/* Nobody is there to make new dirty pages, except between here and the next line: then we are refused. */
			if (fsync(fd) < 0)
				return report_set(report, -errno, "write out what %s still has in memory: %s (detach --force gives it up)", d->path,
						  strerror(errno));
			partitions_drop(fd);
			if (!still_used(d, fd))
				return 0;
		}
		pause_ms(USER_PAUSE_MS);
	}
	return refuse_user(d, &u, report);
}

int loop_device_release(struct loop_device *d, bool force, struct report *report)
{
	if (d->hold < 0)
		return 0;
	int fd = hold_take(d);
	if (fd < 0)
		return report_set(report, fd, "take back %s: %s", d->path, strerror(-fd));
	struct report refusal = { 0 };
	int r = release_unused(d, fd, &refusal);
	if (r < 0 && !force) {
		report_set(report, r, "%s", report_text(&refusal, r));
		if (hold_put(d, fd) < 0)
			return r; /* nothing holds it but its users: it goes with the last of them */
	} else {
		r = 0;
	}
	close(fd);
	return r;
}

/* ---- the way out when the server hangs ---- */

static int connection_of(int fd, const char *device, unsigned *ret_connection, struct report *report)
{
	struct loop_info64 info;
	/* From the attributes the kernel keeps: the server isn't asked. */
	if (ioctl(fd, LOOP_GET_STATUS64, &info) < 0)
		return report_set(report, -errno, "%s: %s", device, errno == ENXIO ? "this loop device is not in use" : strerror(errno));
	if (strncmp((char *)info.lo_file_name, "aquifer:", 8) != 0)
		return report_set(report, -EINVAL, "%s is not one of ours", device);
	*ret_connection = minor(info.lo_device);
	return 0;
}

/* The control file system need not be mounted on this machine: a detached mount of it will do. */
static int control_mount(void)
{
	int fs = fsopen("fusectl", FSOPEN_CLOEXEC);
	if (fs < 0)
		return -errno;
	int m = fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0 ? -1 : fsmount(fs, FSMOUNT_CLOEXEC, 0);
	int r = m < 0 ? -errno : m;
	close(fs);
	return r;
}

static int connection_abort(unsigned connection)
{
	int m = control_mount();
	if (m < 0)
		return m;
	char path[32];
	snprintf(path, sizeof path, "%u/abort", connection);
	int fd = openat(m, path, O_WRONLY | O_CLOEXEC);
	int r = fd < 0 || write(fd, "1", 1) < 0 ? -errno : 0;
	if (fd >= 0)
		close(fd);
	close(m);
	return r;
}

int loop_connection_abort(const char *device, struct report *report)
{
	/* Kept open to the end: while the loop device is ours, no other connection can have this number. */
	int fd = open(device, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return report_set(report, -errno, "open %s: %s", device, strerror(errno));
	unsigned connection = 0;
	int r = connection_of(fd, device, &connection, report);
	if (r == 0) {
		r = connection_abort(connection);
		if (r < 0)
			report_set(report, r, "abort FUSE connection %u of %s: %s", connection, device, strerror(-r));
	}
	close(fd);
	return r;
}
