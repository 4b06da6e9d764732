/* Taking a volume over from servers that were restarted, and whose disks are slow (parallax/volume/recover.c): several segments are fenced at once, and yet each may
 * take as long as one by itself. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/env_ops.h"
#include "core/fiber.h"
#include "tests/unit/clustertest.h"

#define READING_NS (900 * NS_PER_MS) /* of one copy to its end */
enum { LONG_BYTES = 64 << 10 };

static const struct env_ops *real;
static struct env_ops slow;
static struct disk {
	struct env *env;
	uint64_t busy_until_ns;
} disks[SERVERS];

struct reading {
	struct job job;
	struct timer timer;
	struct file *file;
	struct file_io *io;
	struct job *parent;
};

static void reading_due(struct job *j)
{
	struct reading *r = container_of(j, struct reading, job);
	if (j->status == 0) {
		real->file_submit(r->file, r->io, r->parent);
	} else {
		r->io->status = j->status;
		job_put(r->parent, j->status);
	}
	free(r);
}

static struct disk *disk_of(struct env *env)
{
	for (unsigned i = 0; i < SERVERS; i++)
		if (disks[i].env == env)
			return &disks[i];
	return NULL;
}

/* A disk does one long read after the other. */
static void submit(struct file *f, struct file_io *io, struct job *parent)
{
	struct disk *d = disk_of(f->env);
	struct reading *r = d && io->op == FILE_READ && io->length >= LONG_BYTES ? calloc(1, sizeof *r) : NULL;
	if (!r) {
		real->file_submit(f, io, parent);
		return;
	}
	uint64_t now = env_now_ns(f->env);
	*r = (struct reading){ .file = f, .io = io, .parent = parent };
	d->busy_until_ns = MAX(d->busy_until_ns, now) + READING_NS;
	timer_init(&r->timer);
	job_init(&r->job, &f->env->loop);
	timer_start(f->env, &r->timer, d->busy_until_ns - now, &r->job);
	job_then(&r->job, reading_due);
}

Test(recover_slow, each_segment_may_take_as_long_as_one)
{
	struct cluster_rig *c = cluster_make();
	volume_rig_kill(&c->g);
	for (unsigned i = 0; i < SERVERS; i++) {
		cluster_server_end(c, i);
		cluster_server_begin(c, i);
		disks[i] = (struct disk){ .env = c->servers[i].env };
		real = c->servers[i].env->ops;
		slow = *real;
		slow.file_submit = submit;
		c->servers[i].env->ops = &slow;
	}
	volume_rig_begin(&c->g);
	cluster_open(c);
	for (unsigned i = 0; i < SERVERS; i++) {
		cr_assert_geq(disks[i].busy_until_ns, 3 * READING_NS, "nothing was read");
		disks[i].env = NULL;
	}
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	cluster_free(c);
}
