/* gc on a server (server/gc.c): what goes though it can't be asked for. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/segment/placement.h"
#include "server/keeper.h"
#include "tests/unit/copytest.h"

enum { NOBODYS = 5, NAMELESS = 6, FENCED = 7 };

static int note(void *arg, uint64_t segment)
{
	*(unsigned *)arg += segment == NOBODYS || segment == NAMELESS || segment == FENCED;
	return 0;
}

static unsigned copies_of(struct world *w)
{
	unsigned n = 0;
	cr_assert_eq(segment_dir_ids(w->a, note, &n), 0);
	return n;
}

static unsigned fences_of(struct world *w)
{
	unsigned n = 0;
	cr_assert_eq(segment_dir_fences(w->a, note, &n), 0);
	return n;
}

static int note_new(void *arg, const char *name)
{
	*(unsigned *)arg += strstr(name, ".new") != NULL;
	return 0;
}

static unsigned unwritten_of(struct world *w)
{
	unsigned n = 0;
	cr_assert_eq(env_list_dir(w->env, "/a/segments/07", note_new, &n), 0);
	return n;
}

/* As who died while he wrote a fence leaves it. */
static void leave_unwritten(struct world *w)
{
	struct file *f;
	cr_assert_eq(file_open(w->env, "/a/segments/07/000000000107.new", FILE_OPEN_WRITE | FILE_OPEN_CREATE, &f), 0);
	file_close(w->env, f);
	cr_assert_eq(unwritten_of(w), 1);
}

static void open_dir(struct world *w)
{
	struct segment_dir_options o = { .create = true, .address = "tcp:h:7000" };
	cr_assert_eq(segment_dir_open(w->env, "/a", w->catalog, &o, &w->a, NULL), 0);
}

static int body_make(void *arg)
{
	struct world *w = arg;
	open_dir(w);
	make_copy(w, w->a, NOBODYS, true);
	make_copy(w, w->a, NAMELESS, true);
	struct segment_io io = { .op = SEGMENT_FENCE, .segment = FENCED, .epoch = 5 };
	cr_assert_eq(segment_wait(w->a, &io), 0);
	return segment_server_close(w->a);
}

static int body_gc(void *arg)
{
	struct world *w = arg;
	struct report report = { "" };
	struct server_limits limits = { 0 };
	struct keeper_options options = { .gc_first_ns = NS_PER_S };
	struct placed_server placed = { .weight = 1 };
	struct listener *listener;
	struct server *server;
	struct keeper *k;
	open_dir(w);
	placed.id = w->a->id;
	cr_assert_eq(stream_listen(w->env, "tcp:h:7000", &listener), 0);
	cr_assert_eq(server_start(w->env, listener, w->a, &limits, &server), 0);
	cr_assert_eq(placement_join(w->catalog, &placed, &report), 0, "%s", report.text);
	cr_assert_eq(keeper_start(w->env, w->catalog, w->a, server, &options, &k, &report), 0, "%s", report.text);
	cr_assert_eq(copies_of(w), 2);
	cr_assert_eq(fences_of(w), 1);
	leave_unwritten(w);
	for (unsigned i = 0; i < 100 && keeper_status(k)->gc_rounds == 0; i++)
		fiber_sleep(&w->env->loop, NS_PER_S);
	cr_assert_eq(keeper_status(k)->gc_failed, false);
	cr_assert_eq(copies_of(w), 0);
	cr_assert_eq(fences_of(w), 0);
	cr_assert_eq(unwritten_of(w), 0);
	keeper_stop(k);
	server_stop(server, NS_PER_S);
	return segment_server_close(w->a);
}

static int body(void *arg)
{
	int r = body_make(arg);
	if (r < 0)
		return r;
	damage_slots(arg, NAMELESS);
	return body_gc(arg);
}

Test(gc, a_copy_of_which_nothing_is_known_goes_when_no_volume_lists_it_and_so_does_a_fence) { copytest_run(body); }
