/* The loop export: a real block device /dev/loopN on any Linux kernel, served by this process.
 *
 *     user ─ /dev/loopN ─ loop driver ─ FUSE file ─ /dev/fuse ─ loop_fuse.c ─ node
 *                    direct I/O: no page cache below the device's own
 *
 * write → WRITE, flush and FUA → FSYNC → flush, discard and write-zeroes → FALLOCATE →
 * discard or zero. Whatever was answered with success has been done.
 *
 * Parts: loop_fuse.c and loop_request.c the connection, loop_device.c the kernel's device, users.c
 * who has it open, aside.c the thread that makes the calls which wait for this process itself.
 *
 * The process must have called guard_process() (agent/guard.h) before: memory locked, an I/O flusher.
 *
 * What can go wrong: this process dies: the connection ends, users get I/O errors, the
 * kernel frees the device when the last of them has closed it. It hangs: they hang, nobody
 * else does (the file system is mounted nowhere); loop_connection_abort() is the way out. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/exports/aside.h"
#include "agent/exports/export.h"
#include "agent/exports/loop_device.h"
#include "agent/exports/loop_fuse.h"
#include "core/fiber.h"

/* A forced close whose node doesn't answer cuts the connection after this long. */
#define FORCE_PATIENCE_NS (5 * NS_PER_S)

struct loop_export {
	struct export export; /* first */
	struct aside aside;
	struct loop_fuse *fuse;
	struct loop_device device;
	int served;          /* the aside thread's: the served file's path, for asking the kernel to look at it again */
};

static void loop_gone(void *arg)
{
	struct loop_export *l = arg;
	l->export.clients = 0;
}

/* ---- opening ---- */

struct bind_call {
	struct loop_bind how;
	int mount;
	int *ret_served;
	struct loop_device *device;
	struct report *report;
};

/* On the aside thread, which has a mount descriptor of its own: opening the file asks the loop's thread for it. */
static int loop_bind_call(void *arg)
{
	struct bind_call *c = arg;
	char path[80];
	loop_fuse_path(c->how.name, path);
	c->how.file = openat(c->mount, path, (c->how.read_only ? O_RDONLY : O_RDWR) | O_DIRECT | O_CLOEXEC);
	if (c->how.file < 0)
		return report_set(c->report, -errno, "open the served file: %s", strerror(errno));
	int r = loop_device_bind(&c->how, c->device, c->report);
	close(c->how.file);
	if (r == 0)
		*c->ret_served = openat(c->mount, path, O_PATH | O_CLOEXEC);
	close(c->mount);
	return r;
}

/* Loop devices count in sectors of 512 bytes; larger blocks are the device's logical block size. */
static int loop_check(const struct blk_node *node, struct report *report)
{
	const struct blk_info *info = &node->info;
	if (info->size == 0 || info->size % 512)
		return report_set(report, -EINVAL, "size %llu is not a multiple of 512 bytes, so it can't be a block device (resize it first)",
				  (unsigned long long)info->size);
	if (info->block_size > 4096)
		return report_set(report, -EINVAL, "blocks of %u bytes are too large for a loop device (at most 4096)", info->block_size);
	if (loop_fuse_transfer_max(node) == 0)
		return report_set(report, -EINVAL, "%s takes no requests of 4096 bytes", node->name);
	return 0;
}

static int loop_attach(struct loop_export *l, const struct export_how *how, bool read_only, struct report *report)
{
	struct env *env = l->export.env;
	struct blk_node *node = l->export.node;
	struct loop_fuse_how serve = { .name = how->name, .read_only = read_only, .depth = how->queue_depth,
				       .gone = loop_gone, .arg = l };
	struct bind_call c = { .device = &l->device, .ret_served = &l->served, .report = report };
	int fd;
	int r = loop_fuse_mount(loop_fuse_transfer_max(node), &fd, &c.mount, report);
	if (r < 0)
		return r;
	r = loop_fuse_serve(env, node, &serve, fd, &l->fuse, report);
	if (r == 0) {
		r = aside_start(&l->aside, c.mount);
		if (r < 0)
			report_set(report, r, "start a thread: %s", strerror(-r));
	}
	if (r == 0) {
		c.how = (struct loop_bind){ .name = how->name, .size = node->info.size, .read_only = read_only,
					    .rotational = node->info.rotational };
		c.how.block_size = node->info.block_size > 512 ? node->info.block_size : 512;
		r = aside_wait(env, &l->aside, loop_bind_call, &c);
	}
	close(c.mount);
	return r;
}

static void loop_free(struct loop_export *l)
{
	loop_fuse_destroy(l->fuse);
	aside_stop(&l->aside);
	free(l);
}

static int loop_open(struct env *env, struct blk_node *node, const struct export_how *how, struct export **ret_export,
		     struct report *report)
{
	int r = loop_check(node, report);
	if (r < 0)
		return r;
	struct loop_export *l = calloc(1, sizeof *l);
	if (!l)
		return report_set(report, -ENOMEM, "no memory for an export");
	l->export.driver = &export_loop;
	l->export.env = env;
	l->export.node = node;
	l->device.hold = l->served = -1;
	l->aside.done_fd = -1;
	snprintf(l->export.name, sizeof l->export.name, "%s", how->name);
	r = loop_attach(l, how, how->read_only || node->info.read_only, report);
	if (r < 0) {
		loop_free(l);
		return r;
	}
	snprintf(l->export.device, sizeof l->export.device, "%s", l->device.path);
	l->export.clients = 1;
	*ret_export = &l->export;
	return 0;
}

/* ---- resizing ---- */

struct resize_call {
	const struct loop_device *device;
	int served;
	uint64_t size;
	struct report *report;
};

static int loop_resize_call(void *arg)
{
	struct resize_call *c = arg;
	return loop_device_resize(c->device, c->served, c->size, c->report);
}

static int loop_resized(struct export *e, struct report *report)
{
	struct loop_export *l = container_of(e, struct loop_export, export);
	if (loop_check(e->node, report) < 0)
		return -EINVAL;
	struct resize_call c = { &l->device, l->served, e->node->info.size, report };
	return aside_wait(e->env, &l->aside, loop_resize_call, &c);
}

/* ---- what the kernel has in memory ---- */

struct forget_call {
	const struct loop_device *device;
	struct report *report;
};

static int loop_forget_call(void *arg)
{
	struct forget_call *c = arg;
	return loop_device_forget(c->device, c->report);
}

static int loop_forget(struct export *e, struct report *report)
{
	struct loop_export *l = container_of(e, struct loop_export, export);
	struct forget_call c = { &l->device, report };
	return aside_wait(e->env, &l->aside, loop_forget_call, &c);
}

/* ---- closing ---- */

struct release_call {
	struct loop_device *device;
	bool force;
	struct report *report;
};

static int loop_release_call(void *arg)
{
	struct release_call *c = arg;
	return loop_device_release(c->device, c->force, c->report);
}

/* Cuts the connection if a forced release takes too long, so that what it waits for fails. */
struct patience {
	struct timer timer;
	struct job job;
	struct loop_fuse *fuse;
	struct fiber_cond ended;
	bool running;
};

static void patience_end(struct job *job)
{
	struct patience *p = container_of(job, struct patience, job);
	if (job->status != -ECANCELED)
		loop_fuse_cut(p->fuse);
	p->running = false;
	fiber_cond_wake(&p->ended);
}

static int loop_release_forced(struct loop_export *l, struct release_call *c)
{
	struct env *env = l->export.env;
	struct patience p = { .fuse = l->fuse, .running = true };
	timer_init(&p.timer);
	fiber_cond_init(&p.ended);
	job_init(&p.job, &env->loop);
	timer_start(env, &p.timer, FORCE_PATIENCE_NS, &p.job);
	job_then(&p.job, patience_end);
	int r = aside_wait(env, &l->aside, loop_release_call, c);
	timer_cancel(env, &p.timer);
	while (p.running)
		fiber_cond_wait(&env->loop, &p.ended);
	return r;
}

static int loop_close(struct export *e, bool force, struct report *report)
{
	struct loop_export *l = container_of(e, struct loop_export, export);
	struct release_call c = { &l->device, force, report };
	int r = force ? loop_release_forced(l, &c) : aside_wait(e->env, &l->aside, loop_release_call, &c);
	if (r < 0 && !force)
		return r;
	loop_free(l);
	return 0;
}

const struct export_driver export_loop = {
	.name = "loop",
	.summary = "a kernel block device /dev/loopN",
	.open = loop_open,
	.close = loop_close,
	.resized = loop_resized,
	.forget = loop_forget,
};
