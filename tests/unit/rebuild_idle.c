/* Rounds of rebuilding in which nothing changed ask for no lists; what changed is found all the same (server/seen.c, segment_dir_share.c). */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/segment/placement.h"
#include "server/keeper_private.h"
#include "tests/unit/copytest.h"

enum { MANY = 8 };

struct rig {
	struct world *w;
	struct segment_server there; /* /b, as it is reached; first asks, then: */
	unsigned asked, lists;
	bool old, silent;
	struct keeper k;
	uint64_t here[MANY], missing; /* segments that are here and there; one more that belongs here */
};

static void submit(struct segment_server *s, struct segment_io *io)
{
	struct rig *g = container_of(s, struct rig, there);
	g->asked += io->op == SEGMENT_LIST && io->changed;
	g->lists += io->op == SEGMENT_LIST && !io->changed;
	if (g->old)
		io->changed = NULL; /* it ignores what it doesn't know */
	if (!g->silent) {
		g->w->b->ops->submit(g->w->b, io);
		return;
	}
	io->status = -ETIMEDOUT;
	job_put(io->parent, io->status);
}

static const struct segment_server_ops reaches = { .submit = submit };

static void open_dirs(struct rig *g, struct world *w)
{
	struct report report = { "" };
	struct segment_dir_options a = { .create = true, .address = "a", .domain = "a" }, b = { .create = true, .address = "b", .domain = "b" };
	*g = (struct rig){ .w = w };
	cr_assert_eq(segment_dir_open(w->env, "/a", w->catalog, &a, &w->a, &report), 0, "%s", report.text);
	cr_assert_eq(segment_dir_open(w->env, "/b", w->catalog, &b, &w->b, &report), 0, "%s", report.text);
	g->there = (struct segment_server){ .ops = &reaches, .env = w->env, .id = w->b->id };
	struct placed_server one = { .id = w->a->id, .weight = 1, .domain = "a" }, two = { .id = w->b->id, .weight = 1, .domain = "b" };
	cr_assert_eq(placement_join(w->catalog, &one, &report), 0, "%s", report.text);
	cr_assert_eq(placement_join(w->catalog, &two, &report), 0, "%s", report.text);
	g->k = (struct keeper){ .env = w->env, .catalog = w->catalog, .dir = w->a, .options = { .round_ns = NS_PER_S } };
	fiber_cond_init(&g->k.ended);
	cr_assert_eq(copies_open(w->env, w->catalog, &g->k.copies, &report), 0, "%s", report.text);
	copies_peer(g->k.copies, &w->b->id)->server = &g->there;
	uint64_t id = 0;
	for (unsigned i = 0; i < MANY; i++) {
		g->here[i] = id = segment_placed(g->k.copies, id, 0, &w->a->id);
		make_copy(w, w->a, id, true);
		make_copy(w, w->b, id, true);
	}
	g->missing = segment_placed(g->k.copies, id, 0, &w->a->id);
	list_segment(w, g->missing);
	g->k.fibers = 1;
	cr_assert_eq(fiber_start(&w->env->loop, rebuild_fiber, &g->k, NULL), 0);
}

static int close_dirs(struct rig *g)
{
	g->k.closing = true;
	keeper_wake(&g->k, &g->k.rebuild_nap);
	while (g->k.fibers)
		fiber_sleep(&g->w->env->loop, NS_PER_MS);
	copies_peer(g->k.copies, &g->w->b->id)->server = NULL; /* ours */
	rebuild_forget(&g->k);
	copies_close(g->k.copies);
	cr_assert_eq(segment_server_close(g->w->b), 0);
	return segment_server_close(g->w->a);
}

/* That begin after this; `g` counts in them. */
static void rounds(struct rig *g, unsigned count)
{
	uint64_t now = g->k.status.rounds;
	while (g->k.status.rounds == now)
		fiber_sleep(&g->w->env->loop, 10 * NS_PER_MS);
	g->asked = g->lists = 0;
	while (g->k.status.rounds < now + 1 + count)
		fiber_sleep(&g->w->env->loop, 10 * NS_PER_MS);
}

static void is_idle(struct rig *g, uint64_t copies)
{
	rounds(g, 10);
	cr_assert_eq(g->lists, 0, "%u lists in rounds in which nothing changed", g->lists);
	cr_assert_eq(g->asked, 10);
	cr_assert(g->k.status.settled && g->k.status.copies == copies && g->k.status.missing == 0);
}

static bool is_here(struct rig *g, uint64_t id)
{
	struct segment_io io = { .op = SEGMENT_STAT, .segment = id };
	cr_assert_eq(segment_wait(g->w->a, &io), 0);
	return io.sealed && io.state == COPY_WHOLE;
}

static int body_idle(void *arg)
{
	struct world *w = arg;
	struct rig g;
	open_dirs(&g, w);
	rounds(&g, 2);
	is_idle(&g, MANY);
	make_copy(w, w->b, g.missing, true); /* it changes there */
	rounds(&g, 3);
	cr_assert(is_here(&g, g.missing));
	is_idle(&g, MANY + 1);
	trim(w->b, g.here[3], 2, 9, false);
	rounds(&g, 3);
	struct segment_io io = { .op = SEGMENT_STAT, .segment = g.here[3] };
	cr_assert_eq(segment_wait(w->a, &io), 0);
	cr_assert_eq(io.trimmed, 9);
	is_idle(&g, MANY + 1);
	io = (struct segment_io){ .op = SEGMENT_DELETE, .segment = g.missing }; /* here */
	cr_assert_eq(segment_wait(w->a, &io), 0);
	rounds(&g, 3);
	cr_assert(is_here(&g, g.missing));
	is_idle(&g, MANY + 1);
	return close_dirs(&g);
}

Test(rebuild_idle, a_round_in_which_nothing_changed_asks_for_no_lists) { copytest_run(body_idle); }

/* What was found out without it isn't so with it. */
static int body_silent(void *arg)
{
	struct world *w = arg;
	struct rig g;
	struct segment_io io;
	open_dirs(&g, w);
	rounds(&g, 2);
	make_copy(w, w->b, g.missing, true);
	rounds(&g, 3);
	is_idle(&g, MANY + 1);
	g.silent = true;
	rounds(&g, 1);
	cr_assert(!g.k.status.settled && g.k.status.silent == 1);
	io = (struct segment_io){ .op = SEGMENT_DELETE, .segment = g.missing };
	cr_assert_eq(segment_wait(w->a, &io), 0);
	rounds(&g, 2); /* that group was looked at, and nobody has it */
	cr_assert_not(is_here(&g, g.missing));
	g.silent = false; /* and there nothing has changed */
	rounds(&g, 3);
	cr_assert(is_here(&g, g.missing));
	is_idle(&g, MANY + 1);
	return close_dirs(&g);
}

Test(rebuild_idle, a_server_that_was_silent_is_looked_at_when_it_answers) { copytest_run(body_silent); }

/* Its list is another one: what it was before the restart says nothing. */
static int body_restart(void *arg)
{
	struct world *w = arg;
	struct rig g;
	struct segment_dir_options b = { .address = "b", .domain = "b" };
	open_dirs(&g, w);
	rounds(&g, 2);
	is_idle(&g, MANY);
	g.silent = true;
	cr_assert_eq(segment_server_close(w->b), 0);
	cr_assert_eq(segment_dir_open(w->env, "/b", w->catalog, &b, &w->b, NULL), 0);
	make_copy(w, w->b, g.missing, true); /* fewer changes than there were */
	g.silent = false;
	rounds(&g, 3);
	cr_assert(is_here(&g, g.missing));
	is_idle(&g, MANY + 1);
	return close_dirs(&g);
}

Test(rebuild_idle, a_server_that_was_restarted_is_looked_at) { copytest_run(body_restart); }

static int body_old(void *arg)
{
	struct world *w = arg;
	struct rig g;
	open_dirs(&g, w);
	g.old = true;
	rounds(&g, 10);
	cr_assert_geq(g.lists, 10);
	make_copy(w, w->b, g.missing, true);
	rounds(&g, 3);
	cr_assert(is_here(&g, g.missing));
	g.old = false;
	rounds(&g, 3);
	is_idle(&g, MANY + 1);
	return close_dirs(&g);
}

Test(rebuild_idle, a_server_that_cannot_say_is_asked_for_its_list_each_time) { copytest_run(body_old); }

/* ---- what a directory says ---- */

struct asker {
	uint64_t index, change;
	uint8_t changed[SEGMENT_GROUPS_BYTES];
};

static unsigned changes(struct world *w, struct asker *a, uint32_t count)
{
	uint8_t none[SEGMENT_GROUPS_BYTES] = { 0 };
	unsigned n = 0;
	struct segment_io io = { .op = SEGMENT_LIST, .segment = SEGMENT_ID_MAX, .groups = none, .group_count = count, .changed = a->changed, .index = a->index, .change = a->change };
	cr_assert_eq(ask(w->a, &io, w->page, SHARE_LIST_BYTES), 0);
	cr_assert_eq(io.filled, 0);
	a->index = io.index;
	a->change = io.change;
	for (uint32_t g = 0; g < count; g++)
		n += a->changed[g / 8] >> g % 8 & 1;
	return n;
}

static void only(struct world *w, struct asker *a, uint32_t count, uint64_t id)
{
	uint32_t g = placement_group_number(count, id);
	cr_assert_eq(changes(w, a, count), 1);
	cr_assert(a->changed[g / 8] >> g % 8 & 1);
	cr_assert_eq(changes(w, a, count), 0);
}

static int body_changes(void *arg)
{
	struct world *w = arg;
	struct segment_dir_options o = { .create = true };
	struct asker a = { 0 }, b = { 0 };
	cr_assert_eq(segment_dir_open(w->env, "/a", w->catalog, &o, &w->a, NULL), 0);
	make_copy(w, w->a, 5, true);
	cr_assert_eq(changes(w, &a, 256), 256);
	cr_assert_eq(changes(w, &b, 1024), 1024);
	make_copy(w, w->a, 9, false);
	only(w, &a, 256, 9);
	only(w, &b, 1024, 9);
	trim(w->a, 5, 2, 1, false);
	only(w, &a, 256, 5);
	struct segment_io io = { .op = SEGMENT_STAT, .segment = 5 };
	cr_assert_eq(segment_wait(w->a, &io), 0);
	cr_assert_eq(changes(w, &a, 256), 0);
	io = (struct segment_io){ .op = SEGMENT_DELETE, .segment = 9 };
	cr_assert_eq(segment_wait(w->a, &io), 0);
	only(w, &a, 256, 9);
	cr_assert_eq(changes(w, &b, 1024), 2);
	b.change += 1000; /* of another life */
	cr_assert_eq(changes(w, &b, 1024), 1024);
	cr_assert_eq(segment_server_close(w->a), 0);
	cr_assert_eq(segment_dir_open(w->env, "/a", w->catalog, &o, &w->a, NULL), 0);
	cr_assert_eq(changes(w, &a, 256), 256);
	return segment_server_close(w->a);
}

Test(rebuild_idle, a_directory_says_which_groups_have_changed) { copytest_run(body_changes); }
