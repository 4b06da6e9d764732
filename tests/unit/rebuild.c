/* What a server does with a copy that belongs elsewhere (server/rebuild.c): the other server only says that it has one, and remembers what it is told. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "server/keeper_private.h"
#include "tests/sim/catalog_sim.h"

enum { BLOCKS = 128, FREE_FROM = 10, FREE = 20 };

struct holder { /* a server with one sealed copy */
	struct segment_server server; /* first */
	struct share_entry entry;
	bool gone;
	bool denies;                  /* that it has one, when asked */
	unsigned asked;
	uint8_t bits[SEGMENT_BITMAP_BYTES]; /* what it knows to be free */
};

static void answer(struct segment_server *server, struct segment_io *io)
{
	struct holder *h = (struct holder *)server;
	io->status = h->gone && io->op != SEGMENT_LIST ? -ENOENT : 0;
	switch (io->op) {
	case SEGMENT_LIST:
		io->filled = 0;
		io->next = 0;
		if (!h->gone && io->segment < h->entry.header.segment) {
			share_entry_encode(&h->entry, io->iov[0].iov_base);
			io->filled = SHARE_ENTRY_BYTES;
		}
		break;
	case SEGMENT_STAT:
		io->sealed = true;
		io->trimmed = h->entry.trimmed;
		if (io->free_bits)
			memcpy(io->free_bits, h->bits, sizeof h->bits);
		break;
	case SEGMENT_TRIM:
		for (unsigned i = 0; i < BLOCKS / 8; i++)
			h->bits[i] |= io->trim[i];
		break;
	case SEGMENT_DELETE: h->gone = true; break;
	case SEGMENT_HOLDS:
		h->asked++;
		io->status = h->denies ? -EAGAIN : 0;
		break;
	default: io->status = -EOPNOTSUPP;
	}
	job_put(io->parent, io->status);
}

static const struct segment_server_ops holds = { .submit = answer };

struct rebuild_rig {
	struct sim *sim;
	struct catalog_sim *catalogs;
	struct env *env;
	struct keeper k;
	struct known_volume known;
	struct holder here, there;
};

static void make_holder(struct holder *h, struct env *env, uint8_t id)
{
	h->server.env = env;
	h->server.ops = &holds;
	h->server.id.bytes[0] = id;
	h->entry = (struct share_entry){ .header = { .volume = { "volume" }, .epoch = 1, .size_blocks = BLOCKS }, .sealed = true, .whole = true, .length = BLOCKS,
					 .present = BLOCKS };
}

/* Two servers, and a volume of one copy for each segment: here is the second in its group. */
static void make_map(struct rebuild_rig *g)
{
	struct placed_server one = { .weight = 1, .domain = "here" }, two = { .weight = 1, .domain = "there" };
	struct report report = { "" };
	one.id = g->here.server.id;
	two.id = g->there.server.id;
	cr_assert_eq(placement_join(g->k.catalog, &one, &report), 0, "%s", report.text);
	cr_assert_eq(placement_join(g->k.catalog, &two, &report), 0, "%s", report.text);
	cr_assert_eq(copies_open(g->env, g->k.catalog, &g->k.copies, &report), 0, "%s", report.text);
	copies_peer(g->k.copies, &two.id)->server = &g->there.server;
	const struct placement *map = &g->k.copies->map;
	uint64_t id = 1;
	while (memcmp(&map->servers[placement_group_of(map, id)->target[1]].id, &one.id, sizeof one.id) != 0)
		id++;
	g->here.entry.header.segment = g->there.entry.header.segment = id;
	g->known = (struct known_volume){ .volume = g->here.entry.header.volume, .replicas = 1 };
	struct known_volume *known = &g->known;
	HASH_ADD(hh, g->k.known, volume, sizeof known->volume, known);
}

static void rounds(struct rebuild_rig *g)
{
	struct keeper *k = &g->k;
	k->fibers = 1;
	cr_assert_eq(fiber_start(&g->env->loop, rebuild_fiber, k, NULL), 0);
	for (unsigned n = 0; !g->here.gone && n < 10000; n++)
		fiber_sleep(&g->env->loop, NS_PER_MS);
	k->closing = true;
	keeper_wake(k, &k->rebuild_nap);
	while (k->fibers)
		fiber_sleep(&g->env->loop, NS_PER_MS);
	k->closing = false;
}

static void leave_map(struct rebuild_rig *g)
{
	copies_peer(g->k.copies, &g->there.server.id)->server = NULL; /* ours */
	HASH_CLEAR(hh, g->k.known);
	copies_close(g->k.copies);
}

static int leaves(void *arg)
{
	struct rebuild_rig *g = arg;
	make_map(g);
	for (unsigned b = FREE_FROM; b < FREE_FROM + FREE; b++)
		g->here.bits[b / 8] |= (uint8_t)(1u << b % 8);
	g->here.entry.trimmed = FREE;
	rounds(g);
	leave_map(g);
	return 0;
}

static int stays(void *arg)
{
	struct rebuild_rig *g = arg;
	make_map(g);
	g->there.denies = true;
	rounds(g);
	cr_assert_gt(g->there.asked, 0);
	cr_assert_not(g->here.gone, "it went before the other one said that it has it");
	g->there.denies = false;
	rounds(g);
	leave_map(g);
	return 0;
}

static void run(struct rebuild_rig *g, int (*what)(void *arg))
{
	g->sim = sim_create(1, NULL);
	g->catalogs = catalog_sim_create(g->sim);
	g->env = sim_process_create(g->sim, sim_host_create(g->sim, "here", 1 << 20, 4096));
	make_holder(&g->here, g->env, 1);
	make_holder(&g->there, g->env, 2);
	g->k = (struct keeper){ .env = g->env, .catalog = catalog_sim_open(g->catalogs, g->env), .dir = &g->here.server, .options = { .round_ns = NS_PER_S } };
	fiber_cond_init(&g->k.ended);
	cr_assert_eq(sim_run_fiber(g->env, what, g), 0);
	cr_assert(g->here.gone, "it belongs elsewhere, and stays");
	catalog_close(g->k.catalog);
	sim_process_destroy(g->env);
	catalog_sim_destroy(g->catalogs);
	sim_destroy(g->sim);
}

Test(rebuild, a_copy_that_goes_hands_on_what_it_knows_to_be_free)
{
	struct rebuild_rig g = { 0 };
	run(&g, leaves);
	cr_assert(memcmp(g.here.bits, g.there.bits, BLOCKS / 8) == 0, "nobody knows any more what is free");
}

Test(rebuild, a_copy_goes_only_when_those_that_it_belongs_to_say_that_they_have_it)
{
	struct rebuild_rig g = { 0 };
	run(&g, stays);
}
