#include "tests/unit/volumetest.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>

#include "core/fiber.h"
#include "parallax/segment/segment_reader.h"
#include "parallax/volume/volume_node.h"

static int open_embedded(void *arg, uint64_t volume, bool create, struct segment_server **ret, struct report *report)
{
	struct volume_rig *g = arg;
	char path[64];
	snprintf(path, sizeof path, "/volumes/%016" PRIx64, volume);
	struct segment_dir_options o = { .create = create };
	int r = create ? env_mkdir(g->env, "/volumes") : 0;
	if (r == 0 && create)
		r = env_sync_dir(g->env, "");
	return r < 0 ? r : segment_dir_open(g->env, path, g->places.catalog, &o, ret, report);
}

static int open_embedded_reader(void *arg, uint64_t volume, struct segment_server **ret, struct report *report)
{
	struct volume_rig *g = arg;
	char path[64];
	(void)report;
	snprintf(path, sizeof path, "/volumes/%016" PRIx64, volume);
	return segment_reader_open(g->env, path, ret);
}

static int node_open(struct blk_node *node, const struct blk_open *how, struct report *report)
{
	struct volume_rig *g = (struct volume_rig *)(uintptr_t)how->root; /* the one free pointer of blk_open */
	(void)report;
	volume_node_init(container_of(node, struct volume_node, node), g->volume, NULL);
	return 0;
}

static int node_close(struct blk_node *node)
{
	volume_node_end(container_of(node, struct volume_node, node));
	return 0;
}

void volume_rig_begin(struct volume_rig *g)
{
	g->env = sim_process_create(g->sim, g->host);
	g->places = (struct places){ .env = g->env, .catalog = catalog_sim_open(g->catalogs, g->env), .dir = "" };
	g->places.ops = (struct volume_places){ .open_embedded = open_embedded, .open_embedded_reader = open_embedded_reader, .arg = g };
	g->store = (struct store){ .env = g->env, .places = &g->places, .catalog = g->places.catalog };
}

int volume_rig_run(struct volume_rig *g, int (*body)(void *arg)) { return sim_run_fiber(g->env, body, g); }

int volume_rig_close(void *rig)
{
	struct volume_rig *g = rig;
	struct volume *v = g->volume;
	blk_close(g->node);
	g->node = NULL;
	g->volume = NULL;
	return volume_close(v);
}

void volume_rig_kill(struct volume_rig *g)
{
	sim_kill(g->env);
	sim_drain_dead(g->env);
	volume_rig_run(g, volume_rig_close);
	catalog_close(g->places.catalog);
	sim_process_destroy(g->env);
}

static int body_create(void *arg)
{
	struct volume_rig *g = arg;
	struct store_volume_options o = { .size_bytes = g->size_bytes };
	return store_volume_create(&g->store, "v", &o, &g->report);
}

static int body_open(void *arg)
{
	struct volume_rig *g = arg;
	uint64_t id;
	g->report.text[0] = '\0';
	int r = store_find_volume(&g->places, "v", &id, &g->report);
	struct volume_open how = { .catalog = g->places.catalog, .places = &g->places.ops, .volume = id, .holder = "test", .host = g->places.host, .pid = g->pid,
				   .accept_flushed = g->accept_flushed, .limits.segment_blocks = g->segment_blocks };
	if (r == 0)
		r = volume_open(g->env, &how, &g->volume, &g->report);
	if (r < 0)
		return r;
	g->driver = (struct blk_driver){ .name = "volume", .node_size = sizeof(struct volume_node),
					 .frame_size = sizeof(struct volume_frame), .depth = 8, .open = node_open,
					 .close = node_close, .submit = volume_node_submit };
	struct blk_open node_how = { .node_name = "v", .root = (const char *)g };
	return blk_open(g->env, &g->driver, &node_how, NULL, 0, &g->node, &g->report);
}

int volume_rig_open(struct volume_rig *g) { return volume_rig_run(g, body_open); }

struct volume_rig *volume_rig_make_on(uint64_t seed, uint64_t size_bytes, uint64_t disk_bytes)
{
	struct volume_rig *g = calloc(1, sizeof *g);
	cr_assert(g);
	g->sim = sim_create(seed, NULL);
	g->buffer = env_alloc_aligned(BLOCK_BYTES);
	g->size_bytes = size_bytes;
	g->host = sim_host_create(g->sim, "h", disk_bytes, 4096);
	g->segment_blocks = 256;
	g->catalogs = catalog_sim_create(g->sim);
	volume_rig_begin(g);
	cr_assert_eq(volume_rig_run(g, body_create), 0, "%s", g->report.text);
	return g;
}

struct volume_rig *volume_rig_make(uint64_t seed, uint64_t size_bytes)
{
	return volume_rig_make_on(seed, size_bytes, UINT64_C(64) << 20);
}

void volume_rig_free(struct volume_rig *g)
{
	volume_rig_kill(g);
	catalog_sim_destroy(g->catalogs);
	sim_destroy(g->sim);
	free(g->buffer);
	free(g);
}

int volume_rig_write(void *arg)
{
	struct volume_rig *g = arg;
	for (unsigned i = 0; i < VOLUME_RIG_WRITES; i++) {
		memset(g->buffer, (int)i + 1, BLOCK_BYTES);
		cr_assert_eq(blk_write_wait(g->node, g->buffer, BLOCK_BYTES, i * BLOCK_BYTES, BLK_FUA), 0);
	}
	return 0;
}

int volume_rig_check(void *arg)
{
	struct volume_rig *g = arg;
	for (unsigned i = 0; i < VOLUME_RIG_WRITES; i++) {
		cr_assert_eq(blk_read_wait(g->node, g->buffer, BLOCK_BYTES, i * BLOCK_BYTES), 0);
		cr_assert_eq(g->buffer[0], i + 1, "block %u is lost", i);
	}
	return 0;
}

void volume_rig_doom(struct volume_rig *g, uint64_t mark)
{
	struct meta_snapshot m;
	struct catalog_txn t;
	char key[META_KEY_BYTES], note[META_KEY_BYTES];
	size_t length;
	cr_assert_eq(meta_get_snapshot(g->places.catalog, 1, mark, &m, NULL), 0);
	m.doomed = true;
	uint8_t *bytes = meta_snapshot_encode(&m, &length);
	meta_key_snapshot(1, mark, key);
	meta_key_reap_snapshot(1, mark, note);
	catalog_txn_init(&t);
	catalog_txn_put(&t, key, bytes, length);
	catalog_txn_put(&t, note, "", 0);
	cr_assert_eq(catalog_txn(g->places.catalog, &t, NULL), 0);
	free(bytes);
}
