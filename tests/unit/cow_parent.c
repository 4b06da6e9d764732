/* cow: which parent a layer was made over, and what it sees of one that has grown. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "agent/components/cow_format.h"
#include "core/drivers.h"
#include "tests/unit/blktest.h"
#include "tests/unit/simfile.h"

#define SMALL ((UINT64_C(1) << 20) + 3 * 512) /* ends within a block */
#define LARGE (UINT64_C(2) << 20)

struct world {
	struct simfile s;
	struct blk_node *parent, *node;
	uint64_t identity; /* the parent's; 0: it has none */
	const char *words[4];
	bool read_only;
	struct report report;
	uint64_t at; /* of what is read or written */
	uint8_t byte;
};

static void world_start(struct world *w)
{
	*w = (struct world){ .words = { "/top.cow" } };
	simfile_start(&w->s, 1, 512);
}

/* Its content is `byte`. */
static void parent_make(struct world *w, uint64_t size, uint8_t byte)
{
	uint8_t data[512];
	memset(data, byte, sizeof data);
	simfile_make(&w->s, "/parent.img", size);
	for (uint64_t at = 0; at < size; at += sizeof data)
		sim_disk_write(w->s.host, "/parent.img", at, data, sizeof data);
}

static int world_open(void *arg)
{
	struct world *w = arg;
	w->report = (struct report){ "" };
	w->node = NULL;
	int r = blktest_open(w->s.env, &driver_raw, NULL, /* read_only= */ true, (const char *[]){ "/parent.img", NULL }, &w->parent, &w->report);
	cr_assert_eq(r, 0, "%s", w->report.text);
	w->parent->info.identity = w->identity;
	r = blktest_open(w->s.env, &driver_cow, w->parent, w->read_only, w->words, &w->node, &w->report);
	if (r < 0)
		blk_close(w->parent);
	return r;
}

static int world_close(void *arg)
{
	struct world *w = arg;
	int r = blk_close(w->node);
	blk_close(w->parent);
	return r;
}

static void open_ok(struct world *w)
{
	int r = sim_run_fiber(w->s.env, world_open, w);
	cr_assert_eq(r, 0, "%d: %s", r, w->report.text);
}

static void close_ok(struct world *w) { cr_assert_eq(sim_run_fiber(w->s.env, world_close, w), 0); }

static void opens(struct world *w)
{
	open_ok(w);
	close_ok(w);
}

static void refused(struct world *w, const char *words)
{
	int r = sim_run_fiber(w->s.env, world_open, w);
	cr_assert_eq(r, -EINVAL, "%d: %s", r, w->report.text);
	cr_assert(strstr(w->report.text, words), "'%s' doesn't say '%s'", w->report.text, words);
}

static int write_sector(void *arg)
{
	struct world *w = arg;
	uint8_t data[512];
	memset(data, w->byte, sizeof data);
	return blk_write_wait(w->node, data, sizeof data, w->at, 0);
}

static int read_sector(void *arg)
{
	struct world *w = arg;
	uint8_t data[512];
	int r = blk_read_wait(w->node, data, sizeof data, w->at);
	w->byte = data[0];
	cr_assert(memcmp(data, data + 1, sizeof data - 1) == 0);
	return r;
}

static void writes(struct world *w, uint64_t at, uint8_t byte)
{
	w->at = at;
	w->byte = byte;
	cr_assert_eq(sim_run_fiber(w->s.env, write_sector, w), 0);
}

static void reads(struct world *w, uint64_t at, uint8_t byte)
{
	w->at = at;
	cr_assert_eq(sim_run_fiber(w->s.env, read_sector, w), 0);
	cr_assert_eq(w->byte, byte, "at %llu is %x, not %x", (unsigned long long)at, w->byte, byte);
}

/* ---- which it is ---- */

Test(cow_parent, another_of_the_same_size_is_refused)
{
	struct world w;
	world_start(&w);
	parent_make(&w, SMALL, 1);
	w.identity = 5;
	open_ok(&w);
	writes(&w, 0, 9);
	close_ok(&w);
	opens(&w);
	w.identity = 6;
	refused(&w, "/top.cow was made over another parent than raw (give it that; or, if this one has the same content, rebase=on)");
	w.words[1] = "rebase=on"; /* it has the same content */
	open_ok(&w);
	reads(&w, 0, 9);
	close_ok(&w);
	w.words[1] = NULL;
	opens(&w);
	w.identity = 5;
	refused(&w, "another parent");
	w.identity = 0; /* nobody knows */
	opens(&w);
	simfile_stop(&w.s);
}

Test(cow_parent, a_layer_that_doesnt_know_its_parent_learns_it_when_it_is_opened_for_writing)
{
	struct world w;
	uint8_t pages[2 * COW_PAGE];
	struct cow_header h;
	world_start(&w);
	parent_make(&w, SMALL, 1);
	opens(&w); /* as one of a program that didn't know the field */
	w.identity = 5;
	w.read_only = true;
	opens(&w);
	sim_disk_read(w.s.host, "/top.cow", 0, pages, sizeof pages);
	cr_assert(cow_header_choose(pages, &h) == COW_OK && h.parent_identity == 0);
	w.read_only = false;
	opens(&w);
	sim_disk_read(w.s.host, "/top.cow", 0, pages, sizeof pages);
	cr_assert(cow_header_decode(pages, &h) == COW_OK && cow_header_decode(pages + COW_PAGE, &h) == COW_OK, "a copy was taken away");
	open_ok(&w);
	writes(&w, 0, 9);
	close_ok(&w);
	sim_disk_read(w.s.host, "/top.cow", 0, pages, sizeof pages);
	cr_assert(cow_header_choose(pages, &h) == COW_OK && h.parent_identity == 5 && h.clean);
	w.identity = 6;
	refused(&w, "another parent");
	simfile_stop(&w.s);
}

Test(cow_parent, a_layer_is_itself_a_parent_with_an_identity)
{
	struct world w;
	world_start(&w);
	parent_make(&w, SMALL, 1);
	open_ok(&w);
	uint64_t first = w.node->info.identity;
	close_ok(&w);
	open_ok(&w);
	cr_assert(first && w.node->info.identity == first);
	close_ok(&w);
	w.words[0] = "/other.cow";
	open_ok(&w);
	cr_assert(w.node->info.identity && w.node->info.identity != first);
	close_ok(&w);
	simfile_stop(&w.s);
}

/* ---- how large it is ---- */

/* The layer of 4 MiB over SMALL, over LARGE now: all of what is behind the end that it knows reads as zeroes, also within a block that is filled up. */
static void sees_no_more(struct world *w)
{
	open_ok(w);
	cr_assert_eq(w->node->info.size, 4 << 20);
	reads(w, SMALL - 512, 1);
	reads(w, SMALL, 0);
	reads(w, LARGE - 512, 0);
	writes(w, SMALL - 1024, 9); /* in the block in which it ends */
	reads(w, SMALL - 512, 1);
	reads(w, SMALL, 0);
	writes(w, LARGE - 512, 9); /* in one that it hasn't */
	reads(w, LARGE - 1024, 0);
	close_ok(w);
}

static void note_pages(void *arg, const char *key, uint64_t value)
{
	if (strcmp(key, "map_pages") == 0)
		*(uint64_t *)arg = value;
}

static int discard_all(void *arg)
{
	struct world *w = arg;
	uint64_t pages;
	int r = blk_op_wait(w->node, BLK_DISCARD, 0, w->node->info.size, 0);
	w->node->driver->describe(w->node, note_pages, &pages);
	cr_assert_eq(pages, 3, "%llu", (unsigned long long)pages); /* the parent's end; and what was written */
	return r;
}

Test(cow_parent, behind_its_end_what_was_never_written_needs_no_discarding)
{
	struct world w;
	world_start(&w);
	parent_make(&w, SMALL, 1);
	w.words[1] = "size=1G";
	open_ok(&w);
	writes(&w, UINT64_C(400) << 20, 9);
	writes(&w, UINT64_C(900) << 20, 9);
	cr_assert_eq(sim_run_fiber(w.s.env, discard_all, &w), 0);
	for (unsigned i = 0; i < 2; i++) {
		reads(&w, 0, 0);
		reads(&w, UINT64_C(400) << 20, 0);
		reads(&w, UINT64_C(900) << 20, 0);
		reads(&w, UINT64_C(1000) << 20, 0);
		close_ok(&w);
		open_ok(&w);
	}
	writes(&w, UINT64_C(1000) << 20, 7);
	reads(&w, UINT64_C(1000) << 20, 7);
	close_ok(&w);
	simfile_stop(&w.s);
}

Test(cow_parent, one_that_has_grown_is_seen_as_far_as_it_was)
{
	struct world w;
	world_start(&w);
	parent_make(&w, SMALL, 1);
	w.identity = 5;
	w.words[1] = "size=4M";
	opens(&w);
	w.words[1] = NULL;
	parent_make(&w, LARGE, 1);
	sees_no_more(&w);
	parent_make(&w, SMALL - 512, 1);
	refused(&w, "was made over a parent of 1050112, but raw has 1025K (give it the parent it was made with, or make this one as large again)");
	w.words[1] = "rebase=on";
	refused(&w, "make this one as large again");
	simfile_stop(&w.s);
}

Test(cow_parent, one_without_an_identity_is_told_by_its_size)
{
	struct world w;
	world_start(&w);
	parent_make(&w, SMALL, 1);
	w.words[1] = "size=4M";
	opens(&w);
	w.words[1] = NULL;
	parent_make(&w, LARGE, 1);
	refused(&w, "but raw has 2M (give it the parent it was made with; or, if this one is that and has grown, rebase=on)");
	w.words[1] = "rebase=on";
	sees_no_more(&w);
	simfile_stop(&w.s);
}
