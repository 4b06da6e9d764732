/* Copies made from copies (R33): what a directory lists, what is fetched from one and installed in another, what is refused. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/segment/placement.h"
#include "parallax/segment/segment_share.h"
#include "tests/unit/copytest.h"

static struct share_entry entry_of(struct world *w, struct segment_server *s, uint64_t id)
{
	struct segment_io io = { .op = SEGMENT_LIST, .segment = id - 1 };
	struct share_entry e = { 0 };
	cr_assert_eq(ask(s, &io, w->page, SHARE_LIST_BYTES), 0);
	if (io.filled)
		cr_assert_eq(share_entry_decode(w->page, &e), 0);
	return e;
}

/* Reads of a block are the same here and there, or free. */
static void compare(struct world *w, uint64_t id)
{
	for (uint32_t b = 0; b < LENGTH; b++) {
		struct segment_io io = { .op = SEGMENT_READ, .segment = id, .block = b, .blocks = 1 };
		int there = ask(w->a, &io, w->page, BLOCK_BYTES), here = ask(w->b, &io, w->page + BLOCK_BYTES, BLOCK_BYTES);
		cr_assert_eq(there, here, "block %u: %d, %d", b, there, here);
		cr_assert(there == -ENODATA || (there == 0 && memcmp(w->page, w->page + BLOCK_BYTES, BLOCK_BYTES) == 0), "block %u", b);
	}
	struct share_entry a = entry_of(w, w->a, id), c = entry_of(w, w->b, id);
	cr_assert(c.sealed && c.whole && c.length == LENGTH && c.prev == a.prev && c.last_seq == a.last_seq && c.trimmed == a.trimmed && c.trim_crc == a.trim_crc);
}

static int install(struct world *w, uint64_t id, uint32_t at_once)
{
	struct share_entry e = entry_of(w, w->a, id);
	struct segment_install *i;
	uint8_t frees[SEGMENT_BITMAP_BYTES];
	int r = segment_dir_install_begin(w->b, &e, &i);
	while (r == 0 && segment_dir_install_next(i) < e.length) {
		struct segment_io io = { .op = SEGMENT_FETCH, .segment = id, .block = segment_dir_install_next(i), .blocks = at_once };
		cr_assert_eq(ask(w->a, &io, w->page, share_room(&io)), 0);
		r = segment_dir_install_page(i, w->page, io.filled, io.next);
	}
	struct segment_io io = { .op = SEGMENT_STAT, .segment = id, .free_bits = frees };
	cr_assert_eq(segment_wait(w->a, &io), 0);
	return r ? r : segment_dir_install_end(i, frees);
}

static void begin(struct world *w)
{
	struct segment_dir_options o = { .create = true };
	cr_assert_eq(segment_dir_open(w->env, "/a", w->catalog, &o, &w->a, NULL), 0);
	cr_assert_eq(segment_dir_open(w->env, "/b", w->catalog, &o, &w->b, NULL), 0);
}

static int end(struct world *w)
{
	int r = segment_server_close(w->b);
	return segment_server_close(w->a) ?: r;
}

static int body_copies(void *arg)
{
	struct world *w = arg;
	begin(w);
	make_copy(w, w->a, 7, true);
	cr_assert_eq(install(w, 7, SHARE_FETCH_MAX), 0);
	compare(w, 7);
	cr_assert_eq(install(w, 7, 50), -EEXIST, "never over a sealed, whole one");
	make_copy(w, w->a, 8, true);
	trim(w->a, 8, 20, 60, false); /* a hole */
	trim(w->a, 8, 101, 1, false);
	cr_assert_eq(install(w, 8, 50), 0);
	compare(w, 8);
	make_copy(w, w->a, 9, true);
	trim(w->a, 9, 20, 60, true);  /* packed there … */
	trim(w->a, 9, 120, 3, false); /* … and not again yet */
	make_copy(w, w->b, 9, false); /* here it was never sealed */
	cr_assert_eq(install(w, 9, 7), 0);
	compare(w, 9);
	trim(w->a, 9, 200, 3, true);
	trim(w->b, 9, 200, 3, true);
	compare(w, 9);
	segment_server_close(w->b); /* all of it is on the disk */
	struct segment_dir_options o = { 0 };
	cr_assert_eq(segment_dir_open(w->env, "/b", w->catalog, &o, &w->b, NULL), 0);
	for (uint64_t id = 7; id <= 9; id++)
		compare(w, id);
	return end(w);
}

Test(segment_share, a_copy_is_as_its_source) { copytest_run(body_copies); }

static int body_refuses(void *arg)
{
	struct world *w = arg;
	begin(w);
	make_copy(w, w->a, 7, true);
	struct share_entry e = entry_of(w, w->a, 7), other = e;
	struct segment_install *i;
	uint8_t frees[SEGMENT_BITMAP_BYTES] = { 0 };
	struct segment_io io = { .op = SEGMENT_FETCH, .segment = 7, .blocks = 100 };
	cr_assert_eq(ask(w->a, &io, w->page, share_room(&io)), 0);
	cr_assert(io.filled == SHARE_HEAD_BYTES + 100 * BLOCK_BYTES && io.next == 100);
	cr_assert_eq(segment_dir_install_begin(w->b, &e, &i), 0);
	w->page[SHARE_HEAD_BYTES + 5000] ^= 1; /* damaged on the way */
	cr_assert_eq(segment_dir_install_page(i, w->page, io.filled, io.next), -EBADMSG);
	w->page[SHARE_HEAD_BYTES + 5000] ^= 1;
	cr_assert_eq(segment_dir_install_page(i, w->page, io.filled - 1, io.next), -EBADMSG);
	cr_assert_eq(segment_dir_install_page(i, w->page, io.filled, LENGTH + 1), -EBADMSG);
	cr_assert_eq(segment_dir_install_page(i, w->page, io.filled, 99), -EBADMSG, "a block beyond what was looked at");
	cr_assert_eq(segment_dir_install_page(i, w->page, io.filled, io.next), 0);
	cr_assert_eq(segment_dir_install_page(i, w->page, io.filled, io.next), -EBADMSG, "not again");
	cr_assert_eq(segment_dir_install_end(i, frees), -EINVAL, "half of it");
	other.header.salt++;
	cr_assert_eq(segment_dir_install_begin(w->b, &other, &i), 0);
	cr_assert_eq(segment_dir_install_page(i, w->page, io.filled, io.next), -EBADMSG, "another segment's");
	segment_dir_install_abort(i);
	cr_assert_eq(segment_dir_install_begin(w->b, &e, &i), 0);
	cr_assert_eq(segment_dir_install_page(i, w->page, io.filled, io.next), 0);
	share_head_end(w->page, 0); /* the source says that nothing else is there, though nothing is free */
	cr_assert_eq(segment_dir_install_page(i, w->page, SHARE_HEAD_BYTES, LENGTH), 0);
	cr_assert_eq(segment_dir_install_end(i, frees), -EBADMSG);
	cr_assert_eq(entry_of(w, w->b, 7).length, 0, "nothing came of it");
	make_copy(w, w->a, 8, false);
	io = (struct segment_io){ .op = SEGMENT_FETCH, .segment = 8, .blocks = 100 };
	cr_assert_eq(ask(w->a, &io, w->page, share_room(&io)), -ESTALE, "an open one is no source");
	return end(w);
}

Test(segment_share, what_a_peer_says_is_checked) { copytest_run(body_refuses); }

static int body_lists(void *arg)
{
	struct world *w = arg;
	begin(w);
	enum { COUNT = 1000 };
	unsigned seen = 0;
	for (uint64_t id = 1; id <= COUNT; id++) {
		struct segment_io io = { .op = SEGMENT_CREATE, .segment = id, .epoch = 5, .header = { id, { "v" }, 5, 1, 2 } };
		cr_assert_eq(segment_wait(w->a, &io), 0);
		if (id == 500) {
			struct segment_io first = { .op = SEGMENT_LIST };
			cr_assert_eq(ask(w->a, &first, w->page, SHARE_LIST_BYTES), 0);
		}
	}
	struct segment_io gone = { .op = SEGMENT_DELETE, .segment = 77 };
	cr_assert_eq(segment_wait(w->a, &gone), 0);
	uint8_t groups[PLACEMENT_GROUPS_MIN / 8];
	for (unsigned half = 0; half < 2; half++) {
		memset(groups, half ? 0xaa : 0x55, sizeof groups);
		uint64_t after = 0;
		do {
			struct segment_io io = { .op = SEGMENT_LIST, .segment = after, .groups = groups, .group_count = PLACEMENT_GROUPS_MIN };
			cr_assert_eq(ask(w->a, &io, w->page, SHARE_LIST_BYTES), 0);
			for (uint32_t at = 0; at < io.filled; at += SHARE_ENTRY_BYTES, seen++) {
				struct share_entry e;
				cr_assert_eq(share_entry_decode(w->page + at, &e), 0);
				cr_assert(e.header.segment > after && e.header.segment != 77);
				cr_assert_eq(placement_group_number(PLACEMENT_GROUPS_MIN, e.header.segment) % 2, half);
				after = e.header.segment;
			}
			cr_assert(io.next == 0 || io.next >= after);
			after = io.next;
		} while (after);
	}
	cr_assert_eq(seen, COUNT - 1);
	return end(w);
}

Test(segment_share, a_list_has_every_copy_once) { copytest_run(body_lists); }

/* What its own server was told of a copy that is being replaced, after the others had been asked. */
static int body_freed_meanwhile(void *arg)
{
	struct world *w = arg;
	struct segment_install *i;
	uint8_t frees[SEGMENT_BITMAP_BYTES] = { 0 };
	begin(w);
	make_copy(w, w->a, 7, true);
	make_copy(w, w->b, 7, false);
	struct share_entry e = entry_of(w, w->a, 7);
	cr_assert_eq(segment_dir_install_begin(w->b, &e, &i), 0);
	while (segment_dir_install_next(i) < e.length) {
		struct segment_io io = { .op = SEGMENT_FETCH, .segment = 7, .block = segment_dir_install_next(i), .blocks = 50 };
		cr_assert_eq(ask(w->a, &io, w->page, share_room(&io)), 0);
		cr_assert_eq(segment_dir_install_page(i, w->page, io.filled, io.next), 0);
	}
	trim(w->b, 7, 20, 30, false);
	cr_assert_eq(segment_dir_install_end(i, frees), 0);
	cr_assert_eq(entry_of(w, w->b, 7).trimmed, 30);
	trim(w->a, 7, 20, 30, false);
	compare(w, 7);
	return end(w);
}

Test(segment_share, what_is_said_to_be_free_while_a_copy_is_replaced_is_not_forgotten) { copytest_run(body_freed_meanwhile); }

/* ---- what a power loss leaves of a trim ---- */

static int open_one(void *arg)
{
	struct world *w = arg;
	struct segment_dir_options o = { .create = true };
	return segment_dir_open(w->env, "/a", w->catalog, &o, &w->a, NULL);
}

static int close_one(void *arg) { return segment_server_close(((struct world *)arg)->a); }

static int make_sealed(void *arg)
{
	make_copy(arg, ((struct world *)arg)->a, 7, true);
	return 0;
}

/* Answered by nobody. */
static int trim_many(void *arg)
{
	struct world *w = arg;
	uint8_t bits[SIZE_BLOCKS / 8] = { 0 };
	memset(bits + 2, 0xff, 20);
	struct segment_io io = { .op = SEGMENT_TRIM, .segment = 7, .blocks = SIZE_BLOCKS, .trim = bits };
	return segment_wait(w->a, &io);
}

static int right_or_free(void *arg)
{
	struct world *w = arg;
	for (uint32_t b = 1; b < LENGTH; b++) {
		uint32_t n = (b - 1) / (PAYLOAD + 1), at = (b - 1) % (PAYLOAD + 1);
		struct segment_io io = { .op = SEGMENT_READ, .segment = 7, .block = b, .blocks = 1 };
		int r = ask(w->a, &io, w->page, BLOCK_BYTES);
		cr_assert(r == 0 || r == -ENODATA, "block %u: %d", b, r);
		cr_assert(r || !at || w->page[0] == (uint8_t)(n + at - 1 + 7), "block %u is neither free nor what was written", b);
	}
	return 0;
}

static void trim_interrupted(uint64_t seed, uint64_t steps)
{
	struct world w = { .sim = sim_create(seed, NULL), .page = env_alloc_aligned(RECORD_BYTES_MAX) };
	struct sim_host *host = sim_host_create(w.sim, "h", 64 << 20, 4096);
	struct catalog_sim *catalogs = catalog_sim_create(w.sim);
	for (unsigned life = 0; life < 2; life++) {
		struct job j;
		w.env = sim_process_create(w.sim, host);
		w.catalog = catalog_sim_open(catalogs, w.env);
		cr_assert_eq(sim_run_fiber(w.env, open_one, &w), 0);
		cr_assert_eq(sim_run_fiber(w.env, life ? right_or_free : make_sealed, &w), 0);
		job_init(&j, &w.env->loop);
		job_hold(&j);
		cr_assert_eq(fiber_start(&w.env->loop, trim_many, &w, &j), 0);
		while (steps > 0 && sim_step(w.sim))
			steps--;
		sim_power_loss(host);
		sim_drain_dead(w.env);
		sim_run_fiber(w.env, close_one, &w);
		catalog_close(w.catalog);
		sim_process_destroy(w.env);
	}
	catalog_sim_destroy(catalogs);
	sim_destroy(w.sim);
	free(w.page);
}

Test(segment_share, a_power_loss_while_something_is_freed_leaves_it_right_or_free)
{
	for (uint64_t seed = 1; seed <= 60; seed++)
		trim_interrupted(seed, seed % 30);
}
