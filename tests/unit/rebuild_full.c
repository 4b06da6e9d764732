/* A server that has no room for a copy that it lacks, and one that belongs elsewhere (server/rebuild.c). */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "core/fiber.h"
#include "server/keeper_private.h"
#include "tests/unit/copytest.h"

struct there { /* a server with two sealed copies */
	struct segment_server server; /* first */
	struct share_entry entries[2]; /* by id */
};

static void answer(struct segment_server *server, struct segment_io *io)
{
	struct there *t = (struct there *)server;
	io->status = io->op == SEGMENT_LIST || io->op == SEGMENT_HOLDS || io->op == SEGMENT_TRIM ? 0 : -EOPNOTSUPP;
	io->filled = 0;
	io->next = 0;
	for (unsigned i = 0; io->op == SEGMENT_LIST && i < 2; i++)
		if (io->segment < t->entries[i].header.segment) {
			share_entry_encode(&t->entries[i], (uint8_t *)io->iov[0].iov_base + io->filled);
			io->filled += SHARE_ENTRY_BYTES;
		}
	job_put(io->parent, io->status);
}

static const struct segment_server_ops answers = { .submit = answer };

static bool is_here(struct world *w, uint64_t id)
{
	struct segment_io io = { .op = SEGMENT_STAT, .segment = id };
	cr_assert_eq(segment_wait(w->a, &io), 0);
	return io.state != COPY_ABSENT;
}

static void rounds(struct world *w, struct keeper *k, uint64_t misplaced)
{
	k->fibers = 1;
	fiber_cond_init(&k->ended);
	cr_assert_eq(fiber_start(&w->env->loop, rebuild_fiber, k, NULL), 0);
	for (unsigned n = 0; is_here(w, misplaced) && n < 10000; n++)
		fiber_sleep(&w->env->loop, NS_PER_MS);
	k->closing = true;
	keeper_wake(k, &k->rebuild_nap);
	while (k->fibers)
		fiber_sleep(&w->env->loop, NS_PER_MS);
}

static int body(void *arg)
{
	struct world *w = arg;
	struct report report = { "" };
	struct segment_dir_options o = { .create = true, .address = "here", .domain = "here", .size_limit = 2 << 20 };
	cr_assert_eq(segment_dir_open(w->env, "/a", w->catalog, &o, &w->a, &report), 0, "%s", report.text);
	struct there there = { .server = { .ops = &answers, .env = w->env, .id.bytes[0] = 2 } };
	struct placed_server one = { .id = w->a->id, .weight = 1, .domain = "here" }, two = { .id = there.server.id, .weight = 1, .domain = "there" };
	struct keeper k = { .env = w->env, .catalog = w->catalog, .dir = w->a, .options = { .round_ns = NS_PER_S } };
	cr_assert_eq(placement_join(w->catalog, &one, &report), 0, "%s", report.text);
	cr_assert_eq(placement_join(w->catalog, &two, &report), 0, "%s", report.text);
	cr_assert_eq(copies_open(w->env, w->catalog, &k.copies, &report), 0, "%s", report.text);
	copies_peer(k.copies, &there.server.id)->server = &there.server;
	uint64_t lacking = segment_placed(k.copies, 0, 0, &w->a->id), misplaced = segment_placed(k.copies, lacking, 1, &w->a->id);
	list_segment(w, lacking);
	make_copy(w, w->a, misplaced, /* seal= */ true);
	for (unsigned i = 0; i < 2; i++)
		there.entries[i] = (struct share_entry){ .header = { .segment = i ? misplaced : lacking, .volume = { "volume" }, .epoch = 5, .salt = (i ? misplaced : lacking) * 77,
				.size_blocks = SIZE_BLOCKS }, .sealed = true, .whole = true, .length = LENGTH, .prev = w->crc, .last_seq = RECORDS, .present = LENGTH };
	rounds(w, &k, misplaced);
	cr_assert_not(is_here(w, misplaced), "as long as there is no room for one nothing goes that would make some");
	copies_peer(k.copies, &there.server.id)->server = NULL; /* ours */
	rebuild_forget(&k);
	copies_close(k.copies);
	return segment_server_close(w->a);
}

Test(rebuild_full, what_belongs_elsewhere_goes_all_the_same) { copytest_run(body); }
