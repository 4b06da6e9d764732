/* A copy whose slots are both damaged: what its writer is told. */
#include <criterion/criterion.h>
#include <errno.h>

#include "core/bytes.h"
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
