/* The catalog is lost when a segment has been cut, and no server heard of that, but those after it are sealed (parallax/store/salvage.c). */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/segment/segment_dir.h"
#include "tests/unit/salvagetest.h"

static const struct catalog_ops *real_catalog;
static bool held;

static int held_txn(struct catalog *c, const struct catalog_txn *t, uint64_t *ret_revision) { return held ? -ETIMEDOUT : real_catalog->txn(c, t, ret_revision); }

static uint64_t unsealed; /* nobody is told where this one was cut */

static void submit(struct segment_server *s, struct segment_io *io)
{
	if (io->op == SEGMENT_SEAL && io->segment == unsealed)
		between_answer(io, -EIO);
	else
		between_pass(s, io);
}

static bool ended;

static int checkpoint(void *arg)
{
	cr_assert_eq(salvage_checkpoint(arg), 0);
	ended = true;
	return 0;
}

enum { LIVE = 10 }; /* so many blocks are left where they are: in the first segment */

static int write_again(struct cluster_rig *c, unsigned b, unsigned flags)
{
	memset(c->g.buffer, (int)(b + c->shift), BLOCK_BYTES);
	return blk_write_wait(c->g.node, c->g.buffer, BLOCK_BYTES, b * BLOCK_BYTES, flags);
}

/* While the catalog is slow the third segment is reached, and a checkpoint's summary is in it. The first is cut then, and the second. */
static int body_cut(void *arg)
{
	struct cluster_rig *c = arg;
	struct volume *v = c->g.volume;
	const struct log *l = &v->log;
	struct catalog_ops ops = *c->g.places.catalog->ops;
	uint64_t second = container_of(l->current->link.next, struct log_segment, link)->meta.id;
	real_catalog = c->g.places.catalog->ops;
	ops.txn = held_txn;
	c->g.places.catalog->ops = &ops;
	unsealed = l->current->meta.id;
	held = true;
	for (unsigned i = 0; l->current->meta.id <= second; i++)
		cr_assert_eq(write_again(c, LIVE + i % (BLOCKS - LIVE), 0), 0);
	cr_assert_eq(write_again(c, LIVE, BLK_FUA), 0);
	ended = false;
	cr_assert_eq(fiber_start(&c->g.env->loop, checkpoint, c, NULL), 0);
	fiber_sleep(&c->g.env->loop, NS_PER_S);
	cr_assert(!ended);
	held = false;
	while (!ended)
		fiber_sleep(&c->g.env->loop, 10 * NS_PER_MS);
	fiber_sleep(&c->g.env->loop, NS_PER_S);
	c->g.places.catalog->ops = real_catalog;
	return 0;
}

static int body_stat(void *arg)
{
	struct one_server *s = arg;
	return segment_wait(s->dir, &s->rig->io);
}

static unsigned sealed_at(struct cluster_rig *c, uint64_t segment)
{
	unsigned n = 0;
	for (unsigned i = 0; i < SERVERS; i++) {
		c->io = (struct segment_io){ .op = SEGMENT_STAT, .segment = segment };
		cr_assert_eq(sim_run_fiber(c->servers[i].env, body_stat, &c->servers[i]), 0);
		n += c->io.sealed;
	}
	return n;
}

/* The backup was made a moment earlier, when the cut waited for the catalog: it lists the segment open, and replay begins behind it. */
static struct meta_segment uncut_in_backup(uint64_t segment)
{
	struct meta_log *log = malloc(sizeof *log);
	struct meta_segment was = { .id = 0 };
	for (size_t i = 0; i < salvage_image.count; i++) {
		const char *key = salvage_image.keys[i].key;
		size_t n = strlen(key), length;
		if (strncmp(key, "volume/", 7) != 0 || n < 4 || strcmp(key + n - 4, "/log") != 0)
			continue;
		cr_assert_eq(meta_log_decode(salvage_image.keys[i].bytes, salvage_image.keys[i].length, log), 0);
		for (uint32_t k = 0; k < log->segment_count; k++) {
			struct meta_segment *m = &log->segments[k];
			if (m->id >= position_segment(log->from_position))
				continue;
			was = m->id == segment ? *m : was;
			m->cut = false;
			m->length = m->prev = 0;
		}
		uint8_t *bytes = meta_log_encode(log, &length);
		free(salvage_image.keys[i].bytes);
		salvage_image.keys[i].bytes = bytes;
		salvage_image.keys[i].length = length;
	}
	cr_assert(was.cut);
	free(log);
	return was;
}

/* Unsealed it would never be copied to another server. `late`: the backup has the cuts. */
static void recover_cut(bool late)
{
	struct cluster_rig *c = cluster_make();
	if (!late)
		cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
	cluster_between(c, submit);
	cr_assert_eq(volume_rig_run(&c->g, body_cut), 0);
	uint64_t first = unsealed;
	cr_assert_eq(sealed_at(c, first), 0);
	cr_assert_eq(sealed_at(c, first + 1), SERVERS);
	salvage_next_owner(c);
	if (late)
		cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_restore), 0);
	unsealed = 0;
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	cr_assert_eq(salvage_counts[late ? STORE_RECOVERED_SAME : STORE_RECOVERED_NEWER], 1);
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
	cr_assert_eq(sealed_at(c, first), SERVERS);
	cluster_free(c);
}

/* By then one of its servers had heard of the cut, which no record has. */
Test(salvage_cut, what_waited_for_its_cut_in_the_backup_is_sealed_everywhere_though_one_has_the_seal)
{
	struct cluster_rig *c = cluster_make();
	cluster_between(c, submit);
	cr_assert_eq(volume_rig_run(&c->g, body_cut), 0);
	uint64_t first = unsealed;
	salvage_next_owner(c);
	cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
	struct meta_segment m = uncut_in_backup(first);
	cr_assert_eq(volume_rig_run(&c->g, salvage_restore), 0);
	unsealed = 0;
	c->io = (struct segment_io){ .op = SEGMENT_SEAL, .segment = first, .epoch = UINT64_MAX, .block = m.length, .crc = m.prev };
	cr_assert_eq(sim_run_fiber(c->servers[0].env, body_stat, &c->servers[0]), 0);
	cr_assert_eq(sealed_at(c, first), 1);
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
	cr_assert_eq(sealed_at(c, first), SERVERS);
	cluster_free(c);
}

Test(salvage_cut, what_comes_before_a_sealed_segment_is_cut_too) { recover_cut(false); }
Test(salvage_cut, what_the_backup_says_of_a_cut_stays) { recover_cut(true); }

/* ---- the newest segment, of which one copy is damaged ---- */

static uint64_t generation;

static int body_generation(void *arg)
{
	struct cluster_rig *c = arg;
	struct meta_log *log = malloc(sizeof *log);
	uint64_t id;
	cr_assert_eq(store_find_volume(&c->g.places, "v", &id, &c->g.report), 0);
	cr_assert_eq(meta_get_log(c->g.places.catalog, id, log, NULL), 0);
	generation = log->generation;
	free(log);
	return 0;
}

/* All servers lose power, so that no copy is whole; or all but one, whose copy is. That one ends before the checkpoint that was published last. */
static void recover_damaged(unsigned server, bool whole)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
	cr_assert_eq(volume_rig_run(&c->g, body_generation), 0);
	uint64_t published = generation;
	struct place p = cluster_find(c, server, BLOCKS - 1);
	p.offset -= whole ? BLOCK_BYTES : 0; /* the record's header */
	volume_rig_kill(&c->g);
	for (unsigned i = 0; i < SERVERS; i++) {
		if (i == server && whole)
			continue;
		sim_power_loss(c->servers[i].host);
		cluster_server_end(c, i);
	}
	cluster_flip(c, server, &p);
	for (unsigned i = 0; i < SERVERS; i++)
		if (i != server || !whole)
			cluster_server_begin(c, i);
	volume_rig_begin(&c->g);
	cr_assert_eq(volume_rig_run(&c->g, salvage_restore), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	cr_assert_eq(volume_rig_run(&c->g, body_generation), 0);
	cr_assert_eq(generation, published, "what was freed by the newest checkpoint is needed by this one");
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	cluster_free(c);
}

Test(salvage_cut, a_damaged_copy_isnt_the_end_where_others_go_on)
{
	for (unsigned i = 0; i < SERVERS; i++)
		recover_damaged(i, false);
}

/* Whoever takes the volume goes by the longest, too. */
Test(salvage_cut, a_whole_copy_isnt_the_end_where_others_have_more)
{
	for (unsigned i = 0; i < SERVERS; i++)
		recover_damaged(i, true);
}

/* ---- a sealed segment, of which one copy's beginning is damaged ---- */

/* What is there is no record, and isn't free either: it isn't what a later checkpoint has let go. */
static void recover_front(unsigned server)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
	struct place p = cluster_find(c, server, 0);
	p.offset = COPY_BASE + BLOCK_BYTES; /* the first record */
	salvage_next_owner(c);
	cluster_open(c); /* cuts it */
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	cr_assert_eq(sealed_at(c, p.segment), SERVERS);
	salvage_next_owner(c);
	cluster_flip(c, server, &p);
	cr_assert_eq(volume_rig_run(&c->g, salvage_restore), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	cr_assert_eq(salvage_counts[STORE_RECOVERED_NOT], 0, "server %u", server);
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	cluster_free(c);
}

Test(salvage_cut, a_damaged_beginning_isnt_taken_for_a_free_one)
{
	for (unsigned i = 0; i < SERVERS; i++)
		recover_front(i);
}
