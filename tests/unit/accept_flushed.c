/* attach --accept-flushed: an embedded volume whose disk failed a sync. Without the option the attach is refused and says
 * what to do; with it the volume goes on with all that was flushed. On simulated disks. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/env_sim.h"
#include "core/fiber.h"
#include "parallax/store_private.h"
#include "parallax/volume_node.h"
#include "tests/sim/catalog_sim.h"

enum { BLOCKS = 64 };

struct rig {
	struct sim *sim;
	struct sim_host *host;
	struct catalog_sim *catalogs;
	struct env *env;
	struct places places;
	struct store store;
	struct volume *volume;
	struct blk_driver driver;
	struct blk_node *node;
	struct report report;
	bool accept_flushed;
	uint8_t *buffer;
};

static int open_embedded(void *arg, uint64_t volume, bool create, struct segment_server **ret, struct report *report)
{
	struct rig *g = arg;
	char path[64];
	snprintf(path, sizeof path, "/v%llu", (unsigned long long)volume);
	struct segment_dir_options o = { .create = create };
	return segment_dir_open(g->env, path, g->places.catalog, &o, ret, report);
}

static int node_open(struct blk_node *node, const struct blk_open *how, struct report *report)
{
	struct rig *g = (struct rig *)(uintptr_t)how->root; /* the one free pointer of blk_open */
	(void)report;
	volume_node_init(container_of(node, struct volume_node, node), g->volume, NULL);
	return 0;
}

static void process_begin(struct rig *g)
{
	g->env = sim_process_create(g->sim, g->host);
	g->places = (struct places){ .env = g->env, .catalog = catalog_sim_open(g->catalogs, g->env) };
	g->places.ops = (struct volume_places){ .open_embedded = open_embedded, .arg = g };
	g->store = (struct store){ .env = g->env, .places = &g->places, .catalog = g->places.catalog };
}

static int body_close(void *arg)
{
	struct rig *g = arg;
	blk_close(g->node);
	int r = volume_close(g->volume);
	g->node = NULL;
	g->volume = NULL;
	return r;
}

static void process_end(struct rig *g)
{
	sim_kill(g->env);
	sim_drain_dead(g->env);
	sim_run_fiber(g->env, body_close, g);
	catalog_close(g->places.catalog);
	sim_process_destroy(g->env);
}

static int body_create(void *arg)
{
	struct rig *g = arg;
	struct store_volume_options o = { .size_bytes = BLOCKS * BLOCK_BYTES };
	return store_volume_create(&g->store, "v", &o, &g->report);
}

static int body_open(void *arg)
{
	struct rig *g = arg;
	uint64_t id;
	g->report.text[0] = '\0';
	int r = store_find_volume(&g->places, "v", &id, &g->report);
	struct volume_open how = { .catalog = g->places.catalog, .places = &g->places.ops, .volume = id, .holder = "test",
				   .accept_flushed = g->accept_flushed, .limits.segment_blocks = 256 };
	if (r == 0)
		r = volume_open(g->env, &how, &g->volume, &g->report);
	if (r < 0)
		return r;
	g->driver = (struct blk_driver){ .name = "volume", .node_size = sizeof(struct volume_node),
					 .frame_size = sizeof(struct volume_frame), .depth = 8, .open = node_open,
					 .submit = volume_node_submit };
	struct blk_open node_how = { .node_name = "v", .root = (const char *)g };
	return blk_open(g->env, &g->driver, &node_how, NULL, 0, &g->node, &g->report);
}

static int block_write(struct rig *g, unsigned block, int byte)
{
	memset(g->buffer, byte, BLOCK_BYTES);
	return blk_write_wait(g->node, g->buffer, BLOCK_BYTES, (uint64_t)block * BLOCK_BYTES, 0);
}

static int block_byte(struct rig *g, unsigned block)
{
	int r = blk_read_wait(g->node, g->buffer, BLOCK_BYTES, (uint64_t)block * BLOCK_BYTES);
	for (unsigned i = 1; r == 0 && i < BLOCK_BYTES; i++)
		cr_assert_eq(g->buffer[i], g->buffer[0], "block %u is no block that was written", block);
	return r < 0 ? r : g->buffer[0];
}

static int flush(struct rig *g) { return blk_op_wait(g->node, BLK_FLUSH, 0, 0, 0); }

/* Block 0 and 1 are flushed, block 1 to 3 then written again, and the disk fails the flush. */
static int body_break(void *arg)
{
	struct rig *g = arg;
	for (unsigned i = 0; i < 2; i++)
		cr_assert_eq(block_write(g, i, 10 + (int)i), 0);
	cr_assert_eq(flush(g), 0);
	for (unsigned i = 1; i < 4; i++)
		cr_assert_eq(block_write(g, i, 20 + (int)i), 0);
	sim_doses(g->sim)->sync_error = 1000000;
	cr_assert_eq(flush(g), -EIO);
	sim_doses(g->sim)->sync_error = 0;
	cr_assert_lt(block_write(g, 5, 1), 0, "a volume that lost writes must not go on");
	return 0;
}

/* What was flushed; of the rest a prefix. */
static int body_check(void *arg)
{
	struct rig *g = arg;
	cr_assert_eq(block_byte(g, 0), 10);
	int one = block_byte(g, 1), two = block_byte(g, 2), three = block_byte(g, 3);
	cr_assert(one == 11 || one == 21, "%d", one);
	cr_assert(two == 0 || (two == 22 && one == 21), "%d after %d", two, one);
	cr_assert(three == 0 || (three == 23 && two == 22), "%d after %d", three, two);
	return 0;
}

static int body_use(void *arg)
{
	struct rig *g = arg;
	body_check(g);
	cr_assert_eq(block_write(g, 9, 99), 0);
	return flush(g);
}

static int body_used(void *arg)
{
	struct rig *g = arg;
	body_check(g);
	cr_assert_eq(block_byte(g, 9), 99);
	return 0;
}

static struct rig rig_broken(uint64_t seed)
{
	struct rig g = { .sim = sim_create(seed, NULL), .buffer = env_alloc_aligned(BLOCK_BYTES) };
	g.host = sim_host_create(g.sim, "h", UINT64_C(64) << 20, 4096);
	g.catalogs = catalog_sim_create(g.sim);
	process_begin(&g);
	cr_assert_eq(sim_run_fiber(g.env, body_create, &g), 0, "%s", g.report.text);
	cr_assert_eq(sim_run_fiber(g.env, body_open, &g), 0, "%s", g.report.text);
	cr_assert_eq(sim_run_fiber(g.env, body_break, &g), 0);
	process_end(&g);
	return g;
}

static void rig_free(struct rig *g)
{
	process_end(g);
	catalog_sim_destroy(g->catalogs);
	sim_destroy(g->sim);
	free(g->buffer);
}

Test(accept_flushed, goes_on_with_what_was_flushed)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct rig g = rig_broken(seed);
		process_begin(&g);
		cr_assert_eq(sim_run_fiber(g.env, body_open, &g), -EIO);
		cr_assert(strstr(g.report.text, "--accept-flushed"), "%s", g.report.text);
		g.accept_flushed = true;
		cr_assert_eq(sim_run_fiber(g.env, body_open, &g), 0, "%s", g.report.text);
		cr_assert_eq(sim_run_fiber(g.env, body_use, &g), 0);
		process_end(&g);
		sim_power_loss(g.host); /* what was accepted must be durable now */
		process_begin(&g);
		g.accept_flushed = false;
		cr_assert_eq(sim_run_fiber(g.env, body_open, &g), 0, "once is enough: %s", g.report.text);
		cr_assert_eq(sim_run_fiber(g.env, body_used, &g), 0);
		rig_free(&g);
	}
}

/* Not even with the option when a flushed write is missing. */
Test(accept_flushed, does_not_accept_less)
{
	struct rig g = rig_broken(1);
	uint8_t zeroes[2 * BLOCK_BYTES] = { 0 };
	uint64_t segment = 1;
	char path[64];
	for (; segment < 8; segment++) { /* both slots of the segment that was written first: nothing is known of it */
		snprintf(path, sizeof path, "/v1/segments/%02x/%012llx.seg", (unsigned)segment, (unsigned long long)segment);
		if (sim_disk_write(g.host, path, 0, zeroes, sizeof zeroes) == 0)
			break;
	}
	cr_assert_lt(segment, 8, "there is no segment");
	process_begin(&g);
	g.accept_flushed = true;
	cr_assert_eq(sim_run_fiber(g.env, body_open, &g), -EIO);
	cr_assert(strstr(g.report.text, "flushed are missing"), "%s", g.report.text);
	rig_free(&g);
}
