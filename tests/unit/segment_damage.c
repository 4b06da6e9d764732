/* A copy whose slots are both damaged: what its writer is told. One of which a slot is where the disk can't read. */
#include <criterion/criterion.h>
#include <errno.h>

#include "core/bytes.h"
#include "core/env_ops.h"
#include "tests/unit/copytest.h"

static void open_dir(struct world *w)
{
	struct segment_dir_options o = { .create = true };
	cr_assert_eq(segment_dir_open(w->env, "/a", w->catalog, &o, &w->a, NULL), 0);
}

static int body(void *arg)
{
	struct world *w = arg;
	open_dir(w);
	make_copy(w, w->a, 3, false);
	cr_assert_eq(segment_server_close(w->a), 0);
	damage_slots(w, 3);
	open_dir(w);
	struct segment_io io = { .op = SEGMENT_APPEND, .segment = 3, .epoch = 5, .incarnation = w->a->incarnation, .block = LENGTH, .blocks = PAYLOAD + 1 };
	cr_assert_eq(ask(w->a, &io, w->page, (PAYLOAD + 1) * BLOCK_BYTES), -ESTALE);
	return segment_server_close(w->a);
}

/* -EPERM would make the volume's owner believe that somebody else owns it now (R18). */
Test(segment_damage, who_is_not_known_to_be_an_owner_is_not_refused_as_one_that_was_fenced) { copytest_run(body); }

static const struct env_ops *real;
static uint64_t bad = UINT64_MAX; /* this page of any file can't be read until it is written */
static bool other_bad;            /* and so the one before it */

static void submit(struct file *f, struct file_io *io, struct job *parent)
{
	uint64_t first = other_bad ? bad - BLOCK_BYTES : bad;
	bool there = io->offset <= bad && io->offset + io->length > first;
	if (there && io->op == FILE_WRITE)
		bad = UINT64_MAX;
	if (!there || io->op != FILE_READ) {
		real->file_submit(f, io, parent);
		return;
	}
	io->done = 0;
	io->status = -EIO;
	job_put(parent, io->status);
}

/* The other slot tells as much as where this one is torn; and the next time it is written it is elsewhere on the disk. */
static int body_sector(void *arg)
{
	struct world *w = arg;
	struct env_ops ops = *w->env->ops;
	real = w->env->ops;
	ops.file_submit = submit;
	open_dir(w);
	make_copy(w, w->a, 3, /* sealed= */ true);
	w->env->ops = &ops;
	for (unsigned slot = 0; slot < 2; slot++) {
		cr_assert_eq(segment_server_close(w->a), 0);
		open_dir(w);
		bad = slot * BLOCK_BYTES;
		struct segment_io io = { .op = SEGMENT_STAT, .segment = 3 };
		cr_assert_eq(segment_wait(w->a, &io), 0);
		cr_assert(io.sealed == (slot == 1) || io.state == COPY_DOUBTFUL, "slot %u", slot);
		cr_assert_eq(io.length, (uint32_t)LENGTH);
		bad = UINT64_MAX;
	}
	cr_assert_eq(segment_server_close(w->a), 0);
	open_dir(w);
	bad = BLOCK_BYTES;
	other_bad = true;
	struct segment_io io = { .op = SEGMENT_STAT, .segment = 3 };
	cr_assert_eq(segment_wait(w->a, &io), -EIO, "it may be the disk that is gone for a moment: nothing is judged by that");
	bad = UINT64_MAX;
	w->env->ops = real;
	return segment_server_close(w->a);
}

Test(segment_damage, one_slot_will_do_where_the_other_one_cant_be_read) { copytest_run(body_sector); }

static void submit_unsynced(struct file *f, struct file_io *io, struct job *parent)
{
	if (io->op != FILE_SYNC) {
		real->file_submit(f, io, parent);
		return;
	}
	io->status = -EIO;
	job_put(parent, io->status);
}

static int note_name(void *arg, const char *name)
{
	(void)name;
	++*(unsigned *)arg;
	return 0;
}

static int body_fence(void *arg)
{
	struct world *w = arg;
	struct env_ops ops = *w->env->ops;
	unsigned names = 0;
	open_dir(w);
	real = w->env->ops;
	ops.file_submit = submit_unsynced;
	w->env->ops = &ops;
	struct segment_io io = { .op = SEGMENT_FENCE, .segment = 3, .epoch = 5 };
	cr_assert_eq(segment_wait(w->a, &io), -EIO);
	w->env->ops = real;
	cr_assert_eq(env_list_dir(w->env, "/a/segments/03", note_name, &names), 0);
	cr_assert_eq(names, 0);
	return segment_server_close(w->a);
}

Test(segment_damage, a_fence_that_cannot_be_written_leaves_nothing) { copytest_run(body_fence); }
