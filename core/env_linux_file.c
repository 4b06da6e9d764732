/* File I/O of the real world.
 *
 * Files with O_DIRECT in force go through libaio: what is queued in a turn goes to the
 * kernel a few at a time, completions are taken from the ring in user space. Buffered reads and writes
 * are copied from and to the page cache by the loop itself, as far as that needs no waiting. Everything else is
 * done by workers with ordinary calls: unaligned memory (through an aligned buffer), more iovec entries than the
 * kernel takes, the rest of a transfer that came back short, what would have had to wait, what the kernel
 * refused with EAGAIN, and all operations that change extents. Nothing is allocated per request. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/env_linux.h"

/* iocbs per io_submit. Small, so that the first of many are done, and answered, while the last
 * are being submitted: with all 32 of a deep queue in one call the disk is idle between waves
 * (measured: reads 12 %, writes 30 % slower, for no less CPU). */
#define AIO_BATCH 4
/* The most that is copied from or to the page cache on the loop's own thread: some 20 microseconds. */
#define CACHED_BYTES ((size_t)128 << 10)
/* Buffered writes where the file system can't be asked not to wait (ext4 to this day): page by page they need
 * nothing from the disk, so the loop does them itself; but when too much is dirty the kernel has them wait. After one that took
 * SLOW_NS or longer, workers do them for SLOW_PARTS times as long: waiting so costs the loop a hundredth of its time at most. */
#define SLOW_NS NS_PER_MS
#define SLOW_PARTS 100
#define CACHED_PAGE_BYTES 4096u

/* Of the kernel's errors what is about the request, or may end when somebody acts, keeps its name. The rest is a disk, or what is between, that failed, and the kernel has
 * a number for each kind of that (blk_errors[] in its block/blk-core.c): with direct I/O a sector that can't be read is ENODATA, a disk that doesn't
 * answer ETIMEDOUT, one that is gone ENODEV. Whoever reads here has other meanings for these: that something is free, a log's end, a server that is away. */
static int transfer_status(int status)
{
	switch (-status) {
	case 0: case EACCES: case EAGAIN: case EBADF: case EBUSY: case EDQUOT: case EFAULT: case EFBIG: case EINTR: case EINVAL: case EISDIR:
	case ENOMEM: case ENOSPC: case ENOSYS: case EOPNOTSUPP: case EPERM: case EROFS: case ETXTBSY:
		return status;
	default:
		return -EIO;
	}
}

static bool is_transfer(const struct file_io *io) { return io->op == FILE_READ || io->op == FILE_WRITE || io->op == FILE_SYNC; }

static void io_end(struct file_io *io, int status)
{
	struct file_linux *f = file_linux_of(io->file);
	struct job *parent = io->parent;
	assert(f->in_flight > 0);
	f->in_flight--;
	io->status = is_transfer(io) ? transfer_status(status) : status;
	job_put(parent, io->status);
}

/* Copies what the page cache has. Bytes, or -1 with errno. */
static ssize_t cached_read(struct file_linux *f, const struct file_io *io)
{
	if (f->no_nowait_read)
		return -1;
	ssize_t n = preadv2(f->fd, io->iov, io->iov_count, (off_t)io->offset, RWF_NOWAIT);
	f->no_nowait_read = n < 0 && errno == EOPNOTSUPP;
	return n;
}

/* Writes into the page cache, unless that would take long, or has lately. Bytes, or -1. */
static ssize_t cached_write(struct env_linux *el, struct file_linux *f, const struct file_io *io)
{
	if (!f->no_nowait_write) {
		ssize_t n = pwritev2(f->fd, io->iov, io->iov_count, (off_t)io->offset, RWF_NOWAIT);
		f->no_nowait_write = n < 0 && errno == EOPNOTSUPP;
		if (!f->no_nowait_write)
			return n;
	}
	if ((io->offset | io->length) % CACHED_PAGE_BYTES || el->now_ns < f->slow_until_ns)
		return -1;
	uint64_t begun_ns = env_linux_clock_ns();
	ssize_t n = pwritev(f->fd, io->iov, io->iov_count, (off_t)io->offset);
	uint64_t took_ns = env_linux_clock_ns() - begun_ns;
	if (took_ns >= SLOW_NS)
		f->slow_until_ns = begun_ns + took_ns * SLOW_PARTS;
	return n;
}

/* Here and now, if it can be; otherwise a worker does it, or what is left of it, or finds out what is wrong. */
static void buffered_transfer(struct env_linux *el, struct file_linux *f, struct file_io *io)
{
	ssize_t n = -1;
	if (!f->direct && io->length <= CACHED_BYTES && io->iov_count <= IOV_LIMIT)
		n = io->op == FILE_READ ? cached_read(f, io) : cached_write(el, f, io);
	if (n > 0)
		io->done = (size_t)n;
	if (io->done == io->length)
		io_end(io, 0);
	else
		env_linux_work_file(el, io);
}

void env_linux_file_submit(struct file *file, struct file_io *io, struct job *parent)
{
	struct env_linux *el = env_linux_of(file->env);
	struct file_linux *f = file_linux_of(file);
	(void)parent; /* io->parent */
	io->status = 0;
	io->done = 0;
	f->in_flight++;
	bool transfer = io->op == FILE_READ || io->op == FILE_WRITE;
	assert(!transfer || iov_bytes(io->iov, io->iov_count) == io->length);
	if (!f->writable && io->op != FILE_READ && io->op != FILE_SYNC) {
		io_end(io, -EBADF);
	} else if (io->length == 0 && io->op != FILE_SYNC && io->op != FILE_TRUNCATE) {
		io_end(io, 0);
	} else if (el->aio.context && (io->op == FILE_SYNC || (transfer && f->direct && io->iov_count <= IOV_LIMIT &&
							       iov_aligned(io->iov, io->iov_count, f->memory_align,
									   f->io_align)))) {
		link_push(&el->aio.queue, &io->link);
	} else if (transfer) {
		buffered_transfer(el, f, io);
	} else {
		env_linux_work_file(el, io);
	}
}

/* ---- libaio ---- */

static void aio_ready(struct source *s, uint32_t events)
{
	(void)events;
	env_linux_aio_reap(container_of(s, struct env_linux, aio.source));
}

void env_linux_aio_init(struct env_linux *el)
{
	link_init(&el->aio.queue);
	el->aio.event_fd = -1;
}

static int aio_set_up(struct env_linux *el)
{
	struct aio *a = &el->aio;
	a->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (a->event_fd < 0)
		return -errno;
	/* The kernel limits the sum over all processes; without any of it workers do all I/O. */
	for (a->depth = AIO_DEPTH; a->depth >= 16; a->depth /= 4)
		if (io_setup((int)a->depth, &a->context) == 0)
			break;
	if (!a->context)
		return -EAGAIN;
	a->slots = calloc(a->depth, sizeof *a->slots);
	if (!a->slots)
		return -ENOMEM;
	for (unsigned i = 0; i < a->depth; i++) {
		a->slots[i].next_free = a->free;
		a->free = &a->slots[i];
	}
	a->source.ready = aio_ready;
	return env_linux_watch(el, a->event_fd, EPOLLIN, &a->source);
}

void env_linux_aio_start(struct env_linux *el)
{
	if (el->aio.started)
		return;
	el->aio.started = true;
	if (aio_set_up(el) < 0)
		env_linux_aio_destroy(el);
}

void env_linux_aio_destroy(struct env_linux *el)
{
	struct aio *a = &el->aio;
	if (a->context)
		io_destroy(a->context);
	if (a->event_fd >= 0)
		close(a->event_fd);
	free(a->slots);
	a->context = NULL;
	a->event_fd = -1;
	a->slots = a->free = NULL;
}

static struct iocb *slot_prepare(struct aio *a, struct file_io *io)
{
	struct aio_slot *s = a->free;
	int fd = file_linux_of(io->file)->fd;
	a->free = s->next_free;
	a->in_flight++;
	s->io = io;
	switch (io->op) {
	case FILE_READ:
		io_prep_preadv(&s->control, fd, io->iov, io->iov_count, (long long)io->offset);
		break;
	case FILE_WRITE:
		io_prep_pwritev(&s->control, fd, io->iov, io->iov_count, (long long)io->offset);
		break;
	default:
		io_prep_fdsync(&s->control, fd);
		break;
	}
	io_set_eventfd(&s->control, a->event_fd);
	s->control.data = s;
	return &s->control;
}

static struct file_io *slot_free(struct aio *a, struct aio_slot *s)
{
	struct file_io *io = s->io;
	s->io = NULL;
	s->next_free = a->free;
	a->free = s;
	a->in_flight--;
	return io;
}

static struct file_io *slot_free_control(struct aio *a, struct iocb *control)
{
	return slot_free(a, container_of(control, struct aio_slot, control));
}

bool env_linux_aio_flush(struct env_linux *el)
{
	struct aio *a = &el->aio;
	struct iocb *batch[AIO_BATCH];
	long count = 0;
	while (count < AIO_BATCH && a->free && !link_empty(&a->queue))
		batch[count++] = slot_prepare(a, container_of(link_pop(&a->queue), struct file_io, link));
	if (count == 0)
		return false;
	long taken = io_submit(a->context, count, batch);
	long first = taken < 0 ? 0 : taken;
	/* The first not taken was refused: a worker finds out why, or does what aio cannot. -EAGAIN
	 * is a lack of slots in the kernel, which the next completion ends, if there is one to come. */
	bool full = taken == -EAGAIN && a->in_flight > (unsigned)count;
	if (taken < 0 && !full)
		env_linux_work_file(el, slot_free_control(a, batch[first++]));
	for (long i = count; i-- > first;)
		link_push_front(&a->queue, &slot_free_control(a, batch[i])->link);
	return !full && a->free && !link_empty(&a->queue);
}

static void aio_ended(struct env_linux *el, struct aio_slot *s, int64_t result)
{
	struct file_io *io = slot_free(&el->aio, s);
	if (io->op == FILE_SYNC) {
		/* EINVAL: this file has no aio fsync. */
		if (result == -EINVAL)
			env_linux_work_file(el, io);
		else
			io_end(io, (int)result);
	} else if (result == (int64_t)io->length) {
		io->done = io->length;
		io_end(io, 0);
	} else if (result == -EAGAIN || result == -EINTR) {
		env_linux_work_file(el, io);
	} else if (result < 0) {
		io_end(io, (int)result);
	} else {
		/* Short. A worker goes on from there and finds the end of file, or the error. */
		io->done = (size_t)result;
		env_linux_work_file(el, io);
	}
}

/* The ring that the kernel maps at the context's address (linux/fs/aio.c, stable ABI). */
struct aio_ring {
	uint32_t id, nr;
	uint32_t head; /* ours */
	uint32_t tail; /* the kernel's */
	uint32_t magic, compat_features, incompat_features, header_bytes;
	struct io_event events[];
};
#define AIO_RING_MAGIC 0xa10a10a1u

/* For a kernel whose ring isn't as we know it. */
static bool aio_reap_call(struct env_linux *el)
{
	struct io_event events[64];
	struct timespec none = { 0, 0 };
	int n, sum = 0;
	while ((n = io_getevents(el->aio.context, 0, ARRAY_COUNT(events), events, &none)) > 0) {
		for (int i = 0; i < n; i++)
			aio_ended(el, events[i].data, (int64_t)events[i].res);
		sum += n;
	}
	return sum > 0;
}

bool env_linux_aio_reap(struct env_linux *el)
{
	struct aio_ring *ring = (void *)el->aio.context;
	if (el->aio.in_flight == 0)
		return false;
	if (ring->magic != AIO_RING_MAGIC || ring->incompat_features)
		return aio_reap_call(el);
	uint32_t head = ring->head, first = head;
	while (head != __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE)) {
		struct io_event e = ring->events[head];
		head = head + 1 == ring->nr ? 0 : head + 1;
		__atomic_store_n(&ring->head, head, __ATOMIC_RELEASE);
		aio_ended(el, e.data, (int64_t)e.res);
	}
	return head != first;
}

/* ---- on workers ---- */

static ssize_t transfer_once(const struct file_io *io, const struct iovec *iov, int count, uint64_t offset)
{
	int fd = file_linux_of(io->file)->fd;
	ssize_t n;
	do
		n = io->op == FILE_READ ? preadv(fd, iov, count, (off_t)offset)
					: pwritev(fd, iov, count, (off_t)offset);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* One step through the aligned buffer: what the guest's memory, or its cutting, doesn't allow directly. */
static ssize_t transfer_bounced(const struct file_io *io, uint64_t at, void **buffer)
{
	size_t n = MIN(io->length - at, WORK_BUFFER_BYTES);
	if (!*buffer)
		*buffer = env_alloc_aligned(WORK_BUFFER_BYTES);
	if (!*buffer)
		return -ENOMEM;
	struct iovec v = { *buffer, n };
	if (io->op == FILE_WRITE)
		iov_gather(io->iov, io->iov_count, at, *buffer, n);
	ssize_t r = transfer_once(io, &v, 1, io->offset + at);
	if (r > 0 && io->op == FILE_READ)
		iov_scatter(io->iov, io->iov_count, at, *buffer, (size_t)r);
	return r;
}

static int work_transfer(struct file_io *io, void **buffer)
{
	struct file_linux *f = file_linux_of(io->file);
	uint64_t at = io->done;
	while (at < io->length) {
		/* Direct I/O that stopped between two sectors: a read met the end of file; a write starts
		 * again at the sector, with the same bytes. */
		if (f->direct && at % f->io_align) {
			if (io->op == FILE_READ)
				break;
			at = round_down(at, f->io_align);
		}
		struct iovec iov[IOV_LIMIT];
		int count;
		iov_rest(io->iov, io->iov_count, at, iov, IOV_LIMIT, &count);
		ssize_t n = f->direct && !iov_aligned(iov, count, f->memory_align, f->io_align)
				    ? transfer_bounced(io, at, buffer)
				    : transfer_once(io, iov, count, io->offset + at);
		if (n < 0)
			return (int)n;
		if (n == 0 && io->op == FILE_WRITE)
			return -EIO;
		if (n == 0)
			break;
		at += (uint64_t)n;
		io->done = at;
	}
	return 0;
}

static int call_fallocate(const struct file_io *io, int mode)
{
	int r;
	do
		r = fallocate(file_linux_of(io->file)->fd, mode, (off_t)io->offset, (off_t)io->length);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

/* Where the file system cannot: plain writing. */
static int work_zero_write(struct file_io *io, void **buffer)
{
	if (!*buffer)
		*buffer = env_alloc_aligned(WORK_BUFFER_BYTES);
	if (!*buffer)
		return -ENOMEM;
	memset(*buffer, 0, WORK_BUFFER_BYTES);
	struct file_io write = { .op = FILE_WRITE, .file = io->file };
	for (uint64_t at = 0; at < io->length; at += write.length) {
		write.offset = io->offset + at;
		write.length = MIN(io->length - at, WORK_BUFFER_BYTES);
		write.done = 0;
		struct iovec v = { *buffer, write.length };
		write.iov = &v;
		write.iov_count = 1;
		int r = work_transfer(&write, buffer);
		if (r < 0)
			return r;
	}
	return 0;
}

static int work_zero(struct file_io *io, void **buffer)
{
	int r = call_fallocate(io, FALLOC_FL_ZERO_RANGE);
	return r == -EOPNOTSUPP ? work_zero_write(io, buffer) : r;
}

void env_linux_file_work(struct file_io *io, void **buffer)
{
	int fd = file_linux_of(io->file)->fd;
	switch (io->op) {
	case FILE_READ:
	case FILE_WRITE:
		io->status = work_transfer(io, buffer);
		break;
	case FILE_SYNC:
		io->status = fdatasync(fd) < 0 ? -errno : 0;
		break;
	case FILE_DISCARD:
		io->status = call_fallocate(io, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
		break;
	case FILE_ZERO:
		io->status = work_zero(io, buffer);
		break;
	case FILE_ALLOCATE:
		io->status = call_fallocate(io, FALLOC_FL_KEEP_SIZE);
		break;
	case FILE_TRUNCATE:
		io->status = ftruncate(fd, (off_t)io->offset) < 0 ? -errno : 0;
		break;
	}
}

void env_linux_file_worked(struct file_io *io)
{
	io_end(io, io->status);
}
