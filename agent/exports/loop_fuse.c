/* The FUSE connection: how it comes to be, receives, and ends.
 *
 *     /dev/fuse ──readable──▶ pump ── readv: header │ chunk chunk … ──▶ loop_request.c ──▶ node
 *        ▲                     │ no free request or chunks: pause                            │
 *        └────── writev ───────┴────────────────── request ends ◀───────────────────────────┘
 *
 * The protocol is spoken directly, not through libfuse: a WRITE's data then arrives page
 * aligned, with nothing copied but by the kernel, and nothing is allocated per request
 * (a block daemon that allocates can wait for memory that only its own writes would free).
 *
 * What can go wrong: the kernel ends the connection (umount -f, fusectl's abort): the
 * pump stops and says so; requests under way still end, unanswered. */
#include "agent/exports/loop_fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include "agent/exports/loop_request.h"
#include "core/bytes.h"

#define PUMP_BATCH_MAX 64u

_Static_assert(LOOP_HEAD_BYTES == 80, "a FUSE WRITE has 80 bytes before its data");

/* ---- mounting ---- */

uint32_t loop_fuse_transfer_max(const struct blk_node *node)
{
	uint64_t most = node->info.max_transfer;
	if (most == 0 || most > LOOP_TRANSFER_MAX)
		most = LOOP_TRANSFER_MAX;
	return (uint32_t)round_down(most, 4096);
}

/* The kernel's own words about a failed fsconfig or fsmount, if it has any. */
static int mount_error(int fs, int error, const char *what, struct report *report)
{
	char text[200];
	ssize_t n = read(fs, text, sizeof text - 1);
	if (n <= 0)
		return report_set(report, -error, "%s: %s", what, strerror(error));
	text[n] = 0;
	text[strcspn(text, "\n")] = 0;
	return report_set(report, -error, "%s: %s (%s)", what, strerror(error), text);
}

static int mount_detached(int fuse_fd, uint32_t transfer_max, int *ret_mount, struct report *report)
{
	char fd_text[16], max_text[16];
	snprintf(fd_text, sizeof fd_text, "%d", fuse_fd);
	snprintf(max_text, sizeof max_text, "%u", transfer_max);
	const char *const options[][2] = {
		{ "source", "aquifer" }, { "subtype", "aquifer" }, { "fd", fd_text },   { "rootmode", "40700" },
		{ "user_id", "0" },      { "group_id", "0" },      { "max_read", max_text },
	};
	int fs = fsopen("fuse", FSOPEN_CLOEXEC);
	if (fs < 0)
		return report_set(report, -errno, "open a FUSE file system: %s (is this root, and is the fuse module there?)",
				  strerror(errno));
	int r = 0;
	for (size_t i = 0; r == 0 && i < ARRAY_COUNT(options); i++)
		if (fsconfig(fs, FSCONFIG_SET_STRING, options[i][0], options[i][1], 0) < 0)
			r = mount_error(fs, errno, "set FUSE option", report);
	if (r == 0 && fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		r = mount_error(fs, errno, "create the FUSE file system", report);
	int m = -1;
	if (r == 0) {
		m = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
		if (m < 0)
			r = mount_error(fs, errno, "mount the FUSE file system", report);
	}
	close(fs);
	if (r == 0)
		*ret_mount = m;
	return r;
}

int loop_fuse_mount(uint32_t transfer_max, int *ret_fd, int *ret_mount, struct report *report)
{
	int fd = open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return report_set(report, -errno, "open /dev/fuse: %s (load the fuse module, and run as root)", strerror(errno));
	int r = mount_detached(fd, transfer_max, ret_mount, report);
	if (r < 0) {
		close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

/* ---- receiving ---- */

static bool pump_has_room(const struct loop_fuse *f)
{
	return !link_empty(&f->requests_free) && f->chunks_free >= LOOP_CHUNKS_MAX;
}

/* 0: received one. -EAGAIN: there is none. */
static int pump_receive(struct loop_fuse *f)
{
	struct iovec iov[1 + LOOP_CHUNKS_MAX];
	iov[0] = (struct iovec){ f->head, sizeof f->head };
	int count = loop_chunks_iov(f, LOOP_TRANSFER_MAX, iov + 1);
	ssize_t n = readv(f->fd, iov, 1 + count);
	if (n >= 0)
		return loop_request_take(f, (size_t)n);
	/* ENOENT: the request was withdrawn between waking us and now. */
	return errno == ENOENT || errno == EINTR ? 0 : -errno;
}

static void pump_end(struct loop_fuse *f, bool gone)
{
	f->pump_running = false;
	fiber_cond_wake(&f->idle);
	if (gone && f->gone)
		f->gone(f->gone_arg);
}

/* Receives as many requests as are under way, and one more: a lone reader costs no second
 * readv() that finds nothing, and under load the system calls per request go down. */
static void pump_step(struct job *job)
{
	struct loop_fuse *f = container_of(job, struct loop_fuse, pump);
	job->status = 0; /* a cancelled watch's -ECANCELED */
	if (f->fd < 0) {
		pump_end(f, /* gone= */ false);
		return;
	}
	int r = 0;
	for (unsigned left = MIN(f->in_flight + 1, PUMP_BATCH_MAX); r == 0 && left && pump_has_room(f); left--)
		r = pump_receive(f);
	if (r < 0 && r != -EAGAIN) {
		pump_end(f, /* gone= */ true);
		return;
	}
	f->paused = !pump_has_room(f);
	if (f->paused)
		job_hold(job); /* put by loop_fuse_released() */
	else
		fd_watch_start_kept(f->env, &f->watch, f->fd, job);
	job_then(job, pump_step);
}

static void pump_resume(struct loop_fuse *f)
{
	f->paused = false;
	job_put(&f->pump, 0);
}

void loop_fuse_released(struct loop_fuse *f)
{
	if (f->paused && pump_has_room(f))
		pump_resume(f);
	if (f->in_flight == 0)
		fiber_cond_wake(&f->idle);
}

/* ---- beginning and end ---- */

static void fuse_free(struct loop_fuse *f)
{
	if (f->fd >= 0)
		close(f->fd);
	if (f->pool)
		munmap(f->pool, (size_t)f->chunk_count * LOOP_CHUNK_BYTES);
	free(f->chunks);
	free(f->requests);
	free(f);
}

/* One chunk for each request, and as many again as the largest request needs. */
static int fuse_allocate(struct loop_fuse *f)
{
	f->chunk_count = f->depth + LOOP_CHUNKS_MAX;
	size_t bytes = (size_t)f->chunk_count * LOOP_CHUNK_BYTES;
	f->requests = calloc(f->depth, sizeof *f->requests);
	f->chunks = calloc(f->chunk_count, sizeof *f->chunks);
	void *pool = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pool == MAP_FAILED || !f->requests || !f->chunks) {
		if (pool != MAP_FAILED)
			munmap(pool, bytes);
		return -ENOMEM;
	}
	f->pool = pool;
	/* The data path must not be the one to ask for these pages. MAP_POPULATE does nothing in a process that has its
	 * memory locked as it is touched. */
	memset(pool, 0, bytes);
	for (unsigned i = f->chunk_count; i > 0; i--) /* the lowest on top: neighbours make one iovec */
		f->chunks[f->chunks_free++] = f->pool + (size_t)(i - 1) * LOOP_CHUNK_BYTES;
	for (unsigned i = 0; i < f->depth; i++) {
		f->requests[i].fuse = f;
		link_push(&f->requests_free, &f->requests[i].link);
	}
	return 0;
}

int loop_fuse_serve(struct env *env, struct blk_node *node, const struct loop_fuse_how *how, int fd,
		    struct loop_fuse **ret_fuse, struct report *report)
{
	struct loop_fuse *f = calloc(1, sizeof *f);
	if (!f) {
		close(fd);
		return report_set(report, -ENOMEM, "no memory for a FUSE connection");
	}
	f->env = env;
	f->node = node;
	snprintf(f->name, sizeof f->name, "%s", how->name);
	f->read_only = how->read_only;
	f->transfer_max = loop_fuse_transfer_max(node);
	f->depth = how->depth ? MIN(how->depth, LOOP_FUSE_DEPTH_MAX) : LOOP_FUSE_DEPTH;
	f->gone = how->gone;
	f->gone_arg = how->arg;
	f->fd = fd;
	link_init(&f->requests_free);
	fiber_cond_init(&f->idle);
	int r = fuse_allocate(f);
	if (r < 0) {
		report_set(report, r, "no memory for %u requests", f->depth);
		fuse_free(f);
		return r;
	}
	f->pump_running = true;
	job_init(&f->pump, &env->loop);
	job_then(&f->pump, pump_step);
	*ret_fuse = f;
	return 0;
}

void loop_fuse_cut(struct loop_fuse *f)
{
	if (f->fd < 0)
		return;
	fd_watch_cancel(f->env, &f->watch);
	if (f->paused)
		pump_resume(f);
	close(f->fd);
	f->fd = -1;
}

void loop_fuse_destroy(struct loop_fuse *f)
{
	if (!f)
		return;
	loop_fuse_cut(f);
	while (f->pump_running || f->in_flight)
		fiber_cond_wait(&f->env->loop, &f->idle);
	fuse_free(f);
}
