/* Copies that were not looked at since their server was started (copy_scan_file()): however many are asked for at once, a few are read at a time. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/env_ops.h"
#include "core/fiber.h"
#include "tests/unit/copytest.h"

enum { COPIES = 40, AT_ONCE = 16, LONG_BYTES = 64 << 10 };

static const struct env_ops *real;
static unsigned reading, most;

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
	reading--;
	real->file_submit(r->file, r->io, r->parent);
	free(r);
}

static void submit(struct file *f, struct file_io *io, struct job *parent)
{
	struct reading *r = io->op == FILE_READ && io->length >= LONG_BYTES ? calloc(1, sizeof *r) : NULL;
	if (!r) {
		real->file_submit(f, io, parent);
		return;
	}
	*r = (struct reading){ .file = f, .io = io, .parent = parent };
	reading++;
	most = MAX(most, reading);
	timer_init(&r->timer);
	job_init(&r->job, &f->env->loop);
	timer_start(f->env, &r->timer, 100 * NS_PER_MS, &r->job);
	job_then(&r->job, reading_due);
}

static void open_dir(struct world *w)
{
	struct report report = { "" };
	struct segment_dir_options o = { .create = true, .address = "a", .domain = "a" };
	cr_assert_eq(segment_dir_open(w->env, "/a", w->catalog, &o, &w->a, &report), 0, "%s", report.text);
}

static int body(void *arg)
{
	struct world *w = arg;
	struct segment_io ios[COPIES];
	struct job j;
	open_dir(w);
	for (unsigned i = 0; i < COPIES; i++)
		make_copy(w, w->a, i + 1, /* seal= */ false);
	cr_assert_eq(segment_server_close(w->a), 0);
	open_dir(w);
	real = w->env->ops;
	struct env_ops slow = *real;
	slow.file_submit = submit;
	w->env->ops = &slow;
	job_init(&j, &w->env->loop);
	for (unsigned i = 0; i < COPIES; i++) {
		ios[i] = (struct segment_io){ .op = SEGMENT_FENCE, .segment = i + 1, .epoch = 6 };
		segment_submit(w->a, &ios[i], &j);
	}
	cr_assert_eq(fiber_wait(&j), 0);
	for (unsigned i = 0; i < COPIES; i++)
		cr_assert(ios[i].length == LENGTH && ios[i].state == COPY_WHOLE);
	w->env->ops = real;
	cr_assert(most > 1 && most <= AT_ONCE, "%u are read at once", most);
	return segment_server_close(w->a);
}

Test(segment_scans, a_few_copies_are_read_at_a_time) { copytest_run(body); }
