/* A copy of which the disk can't read either slot (server/rebuild.c, segment_dir_install.c): it is replaced from a server that has the segment sealed, and from no other. */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/env_ops.h"
#include "core/fiber.h"
#include "server/keeper_private.h"
#include "server/mend.h"
#include "tests/unit/copytest.h"

static const struct env_ops *real;
static char bad[64];            /* the slots of this file can't be read; "": all can */
static struct file *bad_file;   /* it is open */
static unsigned tried;          /* reads that failed so */

static int open_file(struct env *env, const char *path, int flags, struct file **ret_file)
{
	int r = real->file_open(env, path, flags, ret_file);
	if (r == 0 && strcmp(path, bad) == 0)
		bad_file = *ret_file;
	return r;
}

static int close_file(struct env *env, struct file *f)
{
	bad_file = f == bad_file ? NULL : bad_file;
	return real->file_close(env, f);
}

static int rename_file(struct env *env, const char *from, const char *to)
{
	int r = real->rename(env, from, to);
	if (r == 0 && strcmp(to, bad) == 0)
		bad[0] = '\0';
	return r;
}

static void submit(struct file *f, struct file_io *io, struct job *parent)
{
	if (!*bad || f != bad_file || io->op != FILE_READ || io->offset >= 2 * BLOCK_BYTES) {
		real->file_submit(f, io, parent);
		return;
	}
	tried++;
	io->done = 0;
	io->status = -EIO;
	job_put(parent, io->status);
}

enum theirs { NONE, UNSEALED, SEALED };

struct rig {
	struct world *w;
	struct keeper k;
	struct env_ops ops;
	uint64_t segment;
};

static void open_dirs(struct rig *g)
{
	struct world *w = g->w;
	struct report report = { "" };
	struct segment_dir_options a = { .create = true, .address = "a", .domain = "a", .files_max = 1 }, b = { .create = true, .address = "b", .domain = "b" };
	cr_assert_eq(segment_dir_open(w->env, "/a", w->catalog, &a, &w->a, &report), 0, "%s", report.text);
	cr_assert_eq(segment_dir_open(w->env, "/b", w->catalog, &b, &w->b, &report), 0, "%s", report.text);
	struct placed_server one = { .id = w->a->id, .weight = 1, .domain = "a" }, two = { .id = w->b->id, .weight = 1, .domain = "b" };
	cr_assert_eq(placement_join(w->catalog, &one, &report), 0, "%s", report.text);
	cr_assert_eq(placement_join(w->catalog, &two, &report), 0, "%s", report.text);
	g->k = (struct keeper){ .env = w->env, .catalog = w->catalog, .dir = w->a, .options = { .round_ns = NS_PER_S } };
	fiber_cond_init(&g->k.ended);
	cr_assert_eq(copies_open(w->env, w->catalog, &g->k.copies, &report), 0, "%s", report.text);
	copies_peer(g->k.copies, &w->b->id)->server = w->b;
}

static void close_dirs(struct rig *g)
{
	copies_peer(g->k.copies, &g->w->b->id)->server = NULL; /* ours */
	rebuild_forget(&g->k);
	copies_close(g->k.copies);
	cr_assert_eq(segment_server_close(g->w->a), 0);
	cr_assert_eq(segment_server_close(g->w->b), 0);
}

static void rounds(struct rig *g, unsigned count)
{
	struct keeper *k = &g->k;
	uint64_t until = k->status.rounds + count;
	k->fibers = 1;
	cr_assert_eq(fiber_start(&g->w->env->loop, rebuild_fiber, k, NULL), 0);
	for (unsigned n = 0; k->status.rounds < until && n < 10000; n++)
		fiber_sleep(&g->w->env->loop, 10 * NS_PER_MS);
	cr_assert_geq(k->status.rounds, until);
	k->closing = true;
	keeper_wake(k, &k->rebuild_nap);
	while (k->fibers)
		fiber_sleep(&g->w->env->loop, NS_PER_MS);
	k->closing = false;
}

static int stat_here(struct rig *g, struct segment_io *io)
{
	*io = (struct segment_io){ .op = SEGMENT_STAT, .segment = g->segment };
	return segment_wait(g->w->a, io);
}

/* Not in memory any more: the next look is at the disk, which can't read it. */
static void break_slots(struct rig *g)
{
	struct segment_io io = { .op = SEGMENT_STAT, .segment = g->segment + 1000 };
	make_copy(g->w, g->w->a, io.segment, false);
	for (unsigned i = 0; i < 2; i++)
		cr_assert_eq(segment_wait(g->w->a, &io), 0);
	snprintf(bad, sizeof bad, "/a/segments/%02x/%012" PRIx64 ".seg", (unsigned)(g->segment & 0xff), g->segment);
	cr_assert_eq(stat_here(g, &io), -EIO, "it may be the disk that is gone for a moment: nothing else is judged by that");
}

static void begin(struct rig *g, struct world *w, enum theirs theirs)
{
	*g = (struct rig){ .w = w, .ops = *w->env->ops };
	real = w->env->ops;
	g->ops.file_open = open_file;
	g->ops.file_close = close_file;
	g->ops.file_submit = submit;
	g->ops.rename = rename_file;
	w->env->ops = &g->ops;
	open_dirs(g);
	g->segment = segment_placed(g->k.copies, 0, 0, &w->a->id);
	list_segment(w, g->segment);
	make_copy(w, w->a, g->segment, true);
	if (theirs != NONE)
		make_copy(w, w->b, g->segment, theirs == SEALED);
}

static int end(struct rig *g)
{
	close_dirs(g);
	g->w->env->ops = real;
	return 0;
}

static int body_replaced(void *arg)
{
	struct rig g;
	struct segment_io io;
	begin(&g, arg, SEALED);
	rounds(&g, 1); /* what is here was looked at, and was good */
	break_slots(&g);
	rounds(&g, 2);
	cr_assert_eq(stat_here(&g, &io), 0, "it can't be read, though another server has it: %d", io.status);
	cr_assert(io.sealed && io.state == COPY_WHOLE && io.length == LENGTH);
	cr_assert_eq(g.k.status.rebuilt, 1);
	return end(&g);
}

Test(rebuild_unreadable, a_copy_whose_slots_the_disk_cannot_read_is_replaced) { copytest_run(body_replaced); }

/* What can be read, and is no slot, is known to be lost. */
static int body_garbage(void *arg)
{
	struct rig g;
	struct segment_io io;
	begin(&g, arg, SEALED);
	rounds(&g, 1);
	break_slots(&g);
	bad[0] = '\0';
	damage_slots(g.w, g.segment);
	cr_assert_eq(stat_here(&g, &io), 0);
	cr_assert_eq(io.state, COPY_BROKEN);
	rounds(&g, 2);
	cr_assert_eq(stat_here(&g, &io), 0);
	cr_assert(io.sealed && io.state == COPY_WHOLE && io.length == LENGTH);
	return end(&g);
}

Test(rebuild_unreadable, a_copy_whose_slots_are_none_is_replaced) { copytest_run(body_garbage); }

static void stays(struct world *w, enum theirs theirs)
{
	struct rig g;
	struct segment_io io;
	begin(&g, w, theirs);
	break_slots(&g);
	rounds(&g, 2);
	cr_assert(*bad, "what may be the only copy was dropped");
	bad[0] = '\0';
	cr_assert_eq(stat_here(&g, &io), 0);
	cr_assert(io.sealed && io.state == COPY_WHOLE && io.length == LENGTH);
	end(&g);
}

static int body_only(void *arg)
{
	stays(arg, NONE);
	return 0;
}

static int body_unsealed(void *arg)
{
	stays(arg, UNSEALED);
	return 0;
}

Test(rebuild_unreadable, it_stays_if_nobody_else_has_one) { copytest_run(body_only); }
Test(rebuild_unreadable, it_stays_if_what_another_has_is_not_sealed) { copytest_run(body_unsealed); }

/* A disk may take long to fail, and there may be thousands. */
static int body_seldom(void *arg)
{
	struct rig g;
	begin(&g, arg, NONE);
	break_slots(&g);
	tried = 0;
	rounds(&g, 1);
	unsigned once = tried;
	cr_assert_gt(once, 0);
	rounds(&g, 20);
	cr_assert_eq(tried, once, "it was read %u times for 20 lists", tried / once);
	fiber_sleep(&g.w->env->loop, 30 * NS_PER_S);
	rounds(&g, 2);
	cr_assert_gt(tried, once, "it is never tried again");
	bad[0] = '\0';
	return end(&g);
}

Test(rebuild_unreadable, it_is_not_read_again_for_each_list) { copytest_run(body_seldom); }

/* ---- what was taken away while it is open ---- */

static int body_gone(void *arg)
{
	struct rig g;
	struct world *w = arg;
	begin(&g, w, SEALED);
	struct segment_io stat, holds;
	cr_assert_eq(stat_here(&g, &stat), 0);
	holds = (struct segment_io){ .op = SEGMENT_HOLDS, .segment = g.segment, .block = stat.length, .crc = stat.last_crc };
	cr_assert_eq(segment_wait(w->a, &holds), 0);
	char path[64];
	snprintf(path, sizeof path, "/a/segments/%02x/%012" PRIx64 ".seg", (unsigned)(g.segment & 0xff), g.segment);
	cr_assert_eq(env_unlink(w->env, path), 0);
	cr_assert_eq(stat_here(&g, &stat), 0, "it is open, and can be read");
	cr_assert_eq(segment_wait(w->a, &holds), -ENOENT, "another copy may be deleted for one that isn't there");
	cr_assert_eq(segment_dir_there(w->a), 0);
	cr_assert_eq(env_rename(w->env, "/a/segments", "/a/elsewhere"), 0);
	cr_assert_eq(segment_dir_there(w->a), -ENOENT);
	cr_assert_eq(w->a->gone, -ENOENT);
	cr_assert_eq(env_rename(w->env, "/a/elsewhere", "/a/segments"), 0);
	cr_assert_eq(segment_dir_there(w->a), 0);
	return end(&g);
}

Test(rebuild_unreadable, a_file_that_was_deleted_is_no_copy_that_another_could_go_for) { copytest_run(body_gone); }

/* As if it were damaged: somebody says that it will be replaced, or that it can't. */
static int body_scrub(void *arg)
{
	struct rig g;
	struct scrub_slice slice;
	begin(&g, arg, SEALED);
	struct mender m = { .env = g.w->env, .catalog = g.w->catalog, .dir = g.w->a, .copies = g.k.copies };
	break_slots(&g);
	cr_assert_eq(segment_dir_scrub(g.w->a, g.segment, 0, NULL, &slice), -EIO);
	cr_assert_eq(segment_dir_look(g.w->a, g.segment, 0, LENGTH, &slice), -EIO);
	cr_assert(mend_copy(&m, g.segment, -EIO));
	cr_assert(*bad, "it is there until the other one has come");
	struct segment_io io = { .op = SEGMENT_DELETE, .segment = g.segment };
	cr_assert_eq(segment_wait(g.w->b, &io), 0);
	cr_assert_not(mend_copy(&m, g.segment, -EIO));
	bad[0] = '\0';
	return end(&g);
}

Test(rebuild_unreadable, who_scrubs_says_whether_another_takes_its_place) { copytest_run(body_scrub); }

/* The disk was gone for a moment only: the copy is as good as ever. */
static int body_moment(void *arg)
{
	struct rig g;
	struct scrub_slice slice;
	struct segment_io io;
	begin(&g, arg, SEALED);
	struct mender m = { .env = g.w->env, .catalog = g.w->catalog, .dir = g.w->a, .copies = g.k.copies };
	break_slots(&g);
	int why = segment_dir_scrub(g.w->a, g.segment, 0, NULL, &slice);
	cr_assert_eq(why, -EIO);
	bad[0] = '\0';
	mend_copy(&m, g.segment, why);
	cr_assert_eq(stat_here(&g, &io), 0);
	cr_assert(io.sealed && io.state == COPY_WHOLE, "it was given up");
	return end(&g);
}

Test(rebuild_unreadable, one_that_can_be_read_again_is_not_given_up) { copytest_run(body_moment); }
