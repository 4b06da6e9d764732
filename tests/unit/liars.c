/* Servers that lie (liar.h): what is asked of them ends, with an error where it can be seen that they do; what a volume reads is right,
 * or an error, whatever one of its two servers says. */
#include "tests/unit/liar.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/segment/segment_share.h"
#include "parallax/store/store_private.h"
#include "parallax/volume/volume_node.h"
#include "server/keeper.h"
#include "server/server.h"
#include "tests/sim/catalog_sim.h"

enum { BLOCKS = 48, SEGMENT = 256, RUNS = 40 };

struct world {
	struct sim *sim;
	struct catalog_sim *catalogs;
	struct env *honest_env, *liar_env, *owner_env;
	struct sim_host *owner_host;
	struct catalog *honest_catalog, *liar_catalog;
	struct liar liar;
	struct segment_server *dir;
	struct server *server;
	struct keeper *keeper;
	enum lie lie;            /* that one … */
	uint32_t in_a_million;   /* … or any, so often */
	uint32_t only;           /* method; 0: of all */
	/* the owner */
	struct places places;
	struct store store;
	struct volume *volume;
	struct blk_driver driver;
	struct blk_node *node;
	uint8_t *page, *expected;
	bool may[BLOCKS][256];   /* what a block may be: what was written last, and after errors also that */
	unsigned wrong, failed, right, opens_failed;
	struct report report;
};

static enum lie choose(void *arg, uint32_t method)
{
	struct world *w = arg;
	if (w->only && method != w->only)
		return LIE_NONE;
	return w->in_a_million ? sim_chance(w->sim, w->in_a_million) ? (enum lie)(sim_random(w->sim) % LIE_KINDS) : LIE_NONE : w->lie;
}

static uint64_t draw(void *arg) { return sim_random(((struct world *)arg)->sim); }

static int begin_liar(void *arg)
{
	struct world *w = arg;
	return liar_start(&w->liar, w->liar_env, w->liar_catalog, "/data", "tcp:liar:1", "liar");
}

static int end_liar(void *arg)
{
	liar_stop(&((struct world *)arg)->liar);
	return 0;
}

static int begin_honest(void *arg)
{
	struct world *w = arg;
	struct segment_dir_options o = { .create = true, .address = "tcp:honest:1", .domain = "honest" };
	struct server_limits limits = { 0 };
	struct placed_server placed = { .weight = 1, .domain = "honest" };
	struct keeper_options keeps = { .round_ns = NS_PER_S };
	struct listener *l;
	cr_assert_eq(segment_dir_open(w->honest_env, "/data", w->honest_catalog, &o, &w->dir, &w->report), 0, "%s", w->report.text);
	cr_assert_eq(stream_listen(w->honest_env, "tcp:honest:1", &l), 0);
	cr_assert_eq(server_start(w->honest_env, l, w->dir, &limits, &w->server), 0);
	placed.id = w->dir->id;
	cr_assert_eq(placement_join(w->honest_catalog, &placed, &w->report), 0, "%s", w->report.text);
	return keeper_start(w->honest_env, w->honest_catalog, w->dir, w->server, &keeps, &w->keeper, &w->report);
}

static int end_honest(void *arg)
{
	struct world *w = arg;
	keeper_stop(w->keeper);
	server_stop(w->server, 0);
	return segment_server_close(w->dir);
}

static struct env *process(struct world *w, const char *host)
{
	return sim_process_create(w->sim, sim_host_create(w->sim, host, 128 << 20, 4096));
}

static void owner_begin(struct world *w)
{
	w->owner_env = sim_process_create(w->sim, w->owner_host);
	w->places = (struct places){ .env = w->owner_env, .catalog = catalog_sim_open(w->catalogs, w->owner_env), .dir = "" };
	w->store = (struct store){ .env = w->owner_env, .places = &w->places, .catalog = w->places.catalog };
}

static void owner_end(struct world *w)
{
	catalog_close(w->places.catalog);
	sim_process_destroy(w->owner_env);
}

static void world_make(struct world *w, uint64_t seed)
{
	*w = (struct world){ .sim = sim_create(seed, NULL) };
	w->catalogs = catalog_sim_create(w->sim);
	w->honest_env = process(w, "honest");
	w->liar_env = process(w, "liar");
	w->owner_host = sim_host_create(w->sim, "owner", 128 << 20, 4096);
	w->honest_catalog = catalog_sim_open(w->catalogs, w->honest_env);
	w->liar_catalog = catalog_sim_open(w->catalogs, w->liar_env);
	w->liar = (struct liar){ .choose = choose, .draw = draw, .arg = w };
	cr_assert_eq(sim_run_fiber(w->liar_env, begin_liar, w), 0);
	cr_assert_eq(sim_run_fiber(w->honest_env, begin_honest, w), 0, "%s", w->report.text);
	owner_begin(w);
	w->page = env_alloc_aligned(BLOCK_BYTES);
	w->expected = env_alloc_aligned(BLOCK_BYTES);
}

static void world_free(struct world *w)
{
	w->lie = LIE_NONE;
	w->in_a_million = 0;
	cr_assert_eq(sim_run_fiber(w->honest_env, end_honest, w), 0);
	sim_run_fiber(w->liar_env, end_liar, w);
	catalog_close(w->honest_catalog);
	catalog_close(w->liar_catalog);
	owner_end(w);
	sim_process_destroy(w->honest_env);
	sim_process_destroy(w->liar_env);
	catalog_sim_destroy(w->catalogs);
	sim_destroy(w->sim);
	free(w->page);
	free(w->expected);
}

/* ---- one operation after the other ---- */

static const enum segment_op all_ops[] = { SEGMENT_CREATE, SEGMENT_APPEND, SEGMENT_READ, SEGMENT_SYNC, SEGMENT_FENCE, SEGMENT_SEAL, SEGMENT_REPAIR,
					   SEGMENT_DELETE, SEGMENT_STAT, SEGMENT_TRIM, SEGMENT_LIST, SEGMENT_FETCH, SEGMENT_HOLDS };

static bool must_fail(enum lie lie, enum segment_op op)
{
	return lie == LIE_ERROR || lie == LIE_SILENT || (op == SEGMENT_READ && (lie == LIE_CUT || lie == LIE_NO_PAYLOAD));
}

static void ask(struct world *w, struct segment_server *s, enum segment_op op, uint8_t *bytes)
{
	static uint8_t bits[SEGMENT_BITMAP_BYTES], free_bits[SEGMENT_BITMAP_BYTES];
	bool sends = op == SEGMENT_APPEND || op == SEGMENT_REPAIR, reads = op == SEGMENT_READ;
	struct segment_io io = { .op = op, .segment = 7, .epoch = 5, .incarnation = s->incarnation, .block = op == SEGMENT_READ ? 0 : 1, .blocks = 1,
				 .header = { 7, { "v" }, 5, 1, 64 }, .trim = bits, .free_bits = free_bits };
	struct iovec v = { bytes, sends || reads ? BLOCK_BYTES : op == SEGMENT_LIST ? SHARE_LIST_BYTES : SHARE_HEAD_BYTES + BLOCK_BYTES };
	memset(free_bits, 0xee, sizeof free_bits);
	if (sends || reads || segment_fills(op)) {
		io.iov = &v;
		io.iov_count = 1;
	}
	int r = segment_wait(s, &io);
	cr_assert(r <= 0 && r >= -4095, "%d", r);
	cr_assert_eq(r, io.status);
	if (must_fail(w->lie, op))
		cr_assert_lt(r, 0, "lie %d of operation %d is believed", w->lie, op);
	if (r < 0)
		return;
	cr_assert(io.length <= SEGMENT_BLOCKS_MAX && io.trimmed <= SEGMENT_BLOCKS_MAX && io.present <= SEGMENT_BLOCKS_MAX && io.state <= COPY_ABSENT);
	cr_assert_leq(io.filled, v.iov_len);
}

static int ask_all(void *arg)
{
	struct world *w = arg;
	struct segment_server *s;
	uint8_t *bytes = env_alloc_aligned(SHARE_LIST_BYTES + SHARE_HEAD_BYTES);
	int r = segment_remote_open(w->owner_env, "tcp:liar:1", NS_PER_S, &s, &w->report);
	cr_assert_eq(r, 0, "%s", w->report.text);
	for (unsigned lie = LIE_NONE; lie < LIE_KINDS; lie++) {
		for (unsigned i = 0; i < ARRAY_COUNT(all_ops); i++) {
			struct segment_io io = { .op = SEGMENT_CREATE, .segment = 7, .epoch = 5, .header = { 7, { "v" }, 5, 1, 64 } };
			w->lie = LIE_NONE;
			while ((r = segment_wait(s, &io)) == -ENOTCONN)
				fiber_sleep(&w->owner_env->loop, 10 * NS_PER_MS);
			w->lie = (enum lie)lie;
			ask(w, s, all_ops[i], bytes);
		}
		for (unsigned gc = 0; gc < 2; gc++) {
			struct segment_status status;
			r = segment_remote_status(s, gc, &status);
			cr_assert(r <= 0);
		}
	}
	free(bytes);
	return segment_server_close(s);
}

Test(liars, every_lie_about_every_operation_ends_in_time_and_within_limits)
{
	struct world w;
	world_make(&w, 1);
	cr_assert_eq(sim_run_fiber(w.owner_env, ask_all, &w), 0);
	for (unsigned i = 0; i < LIE_KINDS; i++)
		cr_assert_gt(w.liar.told[i], 10, "lie %u", i);
	world_free(&w);
}

static int greet(void *arg)
{
	struct world *w = arg;
	static const enum lie lies[] = { LIE_ERROR, LIE_CUT, LIE_OTHER, LIE_HUGE, LIE_DATA, LIE_EPOCH };
	uuid id = w->liar.dir->id;
	for (unsigned i = 0; i < ARRAY_COUNT(lies) * 4; i++) {
		struct segment_server *s;
		struct segment_io io = { .op = SEGMENT_STAT, .segment = 7 };
		w->lie = lies[i / 4];
		w->only = AQUIFER__SEGMENT__METHOD__INFO;
		cr_assert_eq(segment_remote_start(w->owner_env, "tcp:liar:1", &id, "", NS_PER_S, NULL, NULL, &s), 0);
		fiber_sleep(&w->owner_env->loop, NS_PER_S);
		int r = segment_wait(s, &io);
		if (w->lie == LIE_OTHER)
			cr_assert_eq(r, -ENOTCONN, "another server is spoken to");
		cr_assert(r == 0 || r == -ENOTCONN || r == -ENOENT, "%d", r);
		segment_server_close(s);
	}
	w->only = 0;
	return 0;
}

Test(liars, who_lies_about_himself_is_not_spoken_to)
{
	struct world w;
	world_make(&w, 2);
	cr_assert_eq(sim_run_fiber(w.owner_env, greet, &w), 0);
	world_free(&w);
}

/* ---- a volume on two servers ---- */

static int node_open(struct blk_node *node, const struct blk_open *how, struct report *report)
{
	struct world *w = (struct world *)(uintptr_t)how->root; /* the one free pointer of blk_open */
	(void)report;
	volume_node_init(container_of(node, struct volume_node, node), w->volume, NULL);
	return 0;
}

static int open_volume(struct world *w)
{
	uint64_t id;
	w->report.text[0] = 0;
	int r = store_find_volume(&w->places, "v", &id, &w->report);
	struct volume_open how = { .catalog = w->places.catalog, .places = &w->places.ops, .volume = id, .holder = "test", .force = true, .limits.segment_blocks = SEGMENT };
	if (r == 0)
		r = volume_open(w->owner_env, &how, &w->volume, &w->report);
	if (r < 0)
		return r;
	w->driver = (struct blk_driver){ .name = "volume", .node_size = sizeof(struct volume_node), .frame_size = sizeof(struct volume_frame), .depth = 8,
					 .open = node_open, .submit = volume_node_submit };
	struct blk_open node_how = { .node_name = "v", .root = (const char *)w };
	return blk_open(w->owner_env, &w->driver, &node_how, NULL, 0, &w->node, &w->report);
}

static int close_volume(void *arg)
{
	struct world *w = arg;
	blk_close(w->node);
	volume_close(w->volume);
	w->node = NULL;
	w->volume = NULL;
	return 0;
}

static void write_one(struct world *w)
{
	uint32_t b = (uint32_t)(sim_random(w->sim) % BLOCKS);
	uint8_t value = (uint8_t)(1 + sim_random(w->sim) % 255);
	memset(w->page, value, BLOCK_BYTES);
	if (blk_write_wait(w->node, w->page, BLOCK_BYTES, b * (uint64_t)BLOCK_BYTES, 0) == 0) {
		memset(w->may[b], 0, sizeof w->may[b]);
	} else {
		w->failed++;
	}
	w->may[b][value] = true;
}

/* What is read is what was acknowledged; or, where a write failed, that; or it fails. */
static void read_one(struct world *w, uint32_t b)
{
	if (blk_read_wait(w->node, w->page, BLOCK_BYTES, b * (uint64_t)BLOCK_BYTES) < 0) {
		w->failed++;
		return;
	}
	memset(w->expected, w->page[0], BLOCK_BYTES);
	bool good = memcmp(w->page, w->expected, BLOCK_BYTES) == 0 && w->may[b][w->page[0]];
	w->right += good;
	w->wrong += !good;
}

static int create_volume(void *arg)
{
	struct world *w = arg;
	struct store_volume_options o = { .size_bytes = BLOCKS * (uint64_t)BLOCK_BYTES, .replicas = 2, .min_replicas = 1 };
	for (unsigned b = 0; b < BLOCKS; b++)
		w->may[b][0] = true;
	return store_volume_create(&w->store, "v", &o, &w->report);
}

static int use_volume(void *arg)
{
	struct world *w = arg;
	int r = -1;
	for (unsigned tries = 0; r < 0 && tries < 4; tries++) {
		if (tries == 3)
			w->in_a_million = 0; /* he keeps us from it as long as he lies */
		if ((r = open_volume(w)) < 0) {
			w->opens_failed++;
			cr_assert(w->report.text[0]);
		}
	}
	for (unsigned i = 0; r == 0 && i < 60; i++)
		write_one(w);
	for (uint32_t b = 0; r == 0 && b < BLOCKS; b++)
		read_one(w, b);
	return 0;
}

/* It ends in order, or dies; then the next one takes over with what the two servers say. */
static void live(struct world *w)
{
	cr_assert_eq(sim_run_fiber(w->owner_env, create_volume, w), 0, "%s", w->report.text);
	for (unsigned round = 0; round < 5; round++) {
		w->in_a_million = round ? 100000 * (uint32_t)(1 + sim_random(w->sim) % 9) : 0;
		sim_run_fiber(w->owner_env, use_volume, w);
		if (round & 1) {
			sim_kill(w->owner_env);
			sim_drain_dead(w->owner_env);
		}
		sim_run_fiber(w->owner_env, close_volume, w);
		if (round & 1) {
			owner_end(w);
			owner_begin(w);
		}
	}
}

Test(liars, what_a_volume_reads_is_right_or_an_error)
{
	unsigned right = 0, failed = 0, opens_failed = 0;
	for (uint64_t seed = 1; seed <= RUNS; seed++) {
		struct world w;
		world_make(&w, seed);
		live(&w);
		cr_assert_eq(w.wrong, 0, "seed %u: %u blocks are wrong", (unsigned)seed, w.wrong);
		right += w.right;
		failed += w.failed;
		opens_failed += w.opens_failed;
		world_free(&w);
	}
	cr_assert_gt(right, RUNS * BLOCKS, "%u right, %u failed, %u times not opened", right, failed, opens_failed);
}
