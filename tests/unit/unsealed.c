/* Which cuts stay in a volume's record when its log needs them no more (parallax/volume/unsealed.c), with servers that only say whether their copy is sealed. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/volume/volume_private.h"
#include "tests/unit/maptest.h"
#include "tests/unit/volumetest.h"

enum { SERVERS = 3, FIRST = 5, BLOCKS = 128, LENGTH = 40, CRC = 0x1234 };

struct sealer { /* a server */
	struct segment_server server; /* first */
	bool away, ill;               /* it doesn't answer; its copies can't be sealed */
	unsigned asked;
};

struct rig {
	struct map_rig w;
	struct volume *volume;
	struct sealer servers[SERVERS];
};

static void answer(struct segment_server *server, struct segment_io *io)
{
	struct sealer *s = (struct sealer *)server;
	cr_assert_eq(io->op, SEGMENT_SEAL);
	cr_assert_eq(io->block, (uint32_t)LENGTH);
	cr_assert_eq(io->crc, (uint32_t)CRC);
	s->asked++;
	io->status = s->ill ? -ESTALE : 0;
	job_put(io->parent, io->status);
}

static bool is_up(const struct segment_server *server) { return !((const struct sealer *)server)->away; }

static const struct segment_server_ops seals = { .submit = answer, .up = is_up };

/* All segments belong on `a` and `b`. */
static void belong_on(struct rig *g, uint16_t a, uint16_t b)
{
	g->w.copies->map.revision++;
	for (unsigned n = 0; n < PLACEMENT_GROUPS_MIN; n++)
		map_rig_place(&g->w, n, 2, (uint16_t[]){ a, b });
}

/* As much of a volume as is looked at: a list of cut segments, which servers 0 and 1 hold, and the accounting of them. */
static void make_volume(struct rig *g, unsigned count)
{
	struct volume *v = g->volume = calloc(1, sizeof *v);
	v->env = g->w.env;
	v->copies = g->w.copies;
	v->meta.replicas = 2;
	space_init(&v->space);
	for (unsigned i = 0; i < count; i++) {
		struct meta_segment *m = &v->meta.segments[v->meta.segment_count++];
		*m = (struct meta_segment){ .id = FIRST + i, .epoch = 1, .size_blocks = BLOCKS, .ensemble_count = 2, .cut = true, .length = LENGTH, .prev = CRC };
		for (unsigned k = 0; k < 2; k++)
			m->ensemble[k].server = g->w.copies->map.servers[k].id;
		cr_assert_eq(space_add_segment(&v->space, m->id, BLOCKS), 0);
	}
}

/* What a checkpoint does. Returns how many cuts are kept. */
static unsigned checkpoint(struct rig *g, uint64_t before)
{
	unsealed_seal(g->volume, before);
	unsealed_let_go(g->volume, &g->volume->meta, before);
	return g->volume->meta.unsealed_count;
}

static int body_kept(void *arg)
{
	struct rig *g = arg;
	g->servers[1].away = true;
	cr_expect_eq(checkpoint(g, FIRST + 1), 1u);
	cr_expect_eq(g->volume->meta.segment_count, 1u, "what replay needs is still listed");
	cr_expect_eq(g->volume->meta.unsealed[0].id, (uint64_t)FIRST);
	cr_expect_gt(g->servers[0].asked, 0u);
	cr_expect_eq(checkpoint(g, FIRST + 1), 1u, "its holder is still away");
	g->servers[1].away = false;
	g->servers[1].ill = true;
	cr_expect_eq(checkpoint(g, FIRST + 1), 1u, "its holder can't seal it");
	g->servers[1].ill = false;
	cr_expect_eq(checkpoint(g, FIRST + 1), 0u, "all are sealed");
	return 0;
}

static int body_elsewhere(void *arg)
{
	struct rig *g = arg;
	g->servers[1].away = true;
	cr_expect_eq(checkpoint(g, FIRST + 2), 2u);
	g->servers[2].ill = true;
	belong_on(g, 0, 2);
	cr_expect_eq(checkpoint(g, FIRST + 2), 2u, "it isn't there yet");
	g->servers[2].ill = false;
	cr_expect_eq(checkpoint(g, FIRST + 2), 0u, "it is on all servers where it belongs");
	return 0;
}

static void note(void *arg, uint64_t id) { *(uint64_t *)arg = id; }

static int body_freed(void *arg)
{
	struct rig *g = arg;
	uint64_t freed = 0;
	g->servers[1].away = true;
	cr_expect_eq(checkpoint(g, FIRST + 2), 2u);
	space_data_written(&g->volume->space, position_make(FIRST + 1, 1), 1);
	space_fold(&g->volume->space);
	space_take_free(&g->volume->space, FIRST + 2, note, &freed);
	cr_expect_eq(freed, (uint64_t)FIRST);
	cr_expect_eq(checkpoint(g, FIRST + 2), 1u, "what is free needs no seal");
	cr_expect_eq(g->volume->meta.unsealed[0].id, (uint64_t)FIRST + 1);
	return 0;
}

static int body_many(void *arg)
{
	struct rig *g = arg;
	g->servers[0].away = g->servers[1].away = true;
	cr_expect_eq(checkpoint(g, UINT64_MAX), (unsigned)META_UNSEALED_MAX);
	cr_expect_eq(g->volume->meta.unsealed[META_UNSEALED_MAX - 1].id, (uint64_t)FIRST + META_SEGMENTS_MAX - 1);
	cr_expect_eq(g->volume->meta.unsealed[0].id, (uint64_t)FIRST + META_SEGMENTS_MAX - META_UNSEALED_MAX, "the oldest go");
	return 0;
}

static void run(unsigned segments, int (*body)(void *arg))
{
	struct rig g = { 0 };
	map_rig_make(&g.w, 1, SERVERS);
	g.w.copies->look_ns = 0;
	for (unsigned i = 0; i < SERVERS; i++) {
		g.servers[i].server.ops = &seals;
		map_rig_serve(&g.w, i, &g.servers[i].server);
	}
	belong_on(&g, 0, 1);
	make_volume(&g, segments);
	cr_assert_eq(sim_run_fiber(g.w.env, body, &g), 0);
	space_destroy(&g.volume->space);
	g.w.copies->closing = true;
	sim_kill(g.w.env);
	sim_drain_dead(g.w.env);
	free(g.volume);
	map_rig_free(&g.w);
}

Test(unsealed, a_cut_is_kept_until_its_holders_are_sealed) { run(2, body_kept); }
Test(unsealed, a_cut_is_kept_until_those_it_belongs_to_have_it_sealed) { run(2, body_elsewhere); }
Test(unsealed, what_is_free_needs_no_cut) { run(2, body_freed); }
Test(unsealed, no_more_are_kept_than_there_is_room_for) { run(META_SEGMENTS_MAX, body_many); }

/* ---- closing ---- */

static struct meta_log published;

static int body_read(void *arg)
{
	struct volume_rig *g = arg;
	struct meta_name named;
	int r = meta_get_name(g->places.catalog, "v", &named, NULL);
	return r ? r : meta_get_log(g->places.catalog, named.volume, &published, NULL);
}

/* Who closes seals his last segments when that is published, and may be killed before. */
Test(unsealed, a_closed_volume_keeps_its_last_cuts)
{
	struct volume_rig *g = volume_rig_make(1, 1 << 20);
	const struct meta_log *log = &published;
	uint64_t last = 0;
	for (unsigned life = 0; life < 3; life++) {
		cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
		cr_assert_eq(volume_rig_run(g, volume_rig_write), 0);
		cr_assert_eq(volume_rig_run(g, volume_rig_close), 0);
		cr_assert_eq(volume_rig_run(g, body_read), 0);
		cr_expect_eq(log->segment_count, 0u);
		cr_assert_eq(log->unsealed_count, 1u, "life %u: %u", life, log->unsealed_count); /* the one before was sealed */
		cr_expect_gt(log->unsealed[0].id, last);
		cr_expect_gt(log->unsealed[0].length, (uint32_t)VOLUME_RIG_WRITES);
		last = log->unsealed[0].id;
	}
	volume_rig_free(g);
}
