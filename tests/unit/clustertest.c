#include "tests/unit/clustertest.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/segment/placement.h"

static int begin_body(void *arg)
{
	struct one_server *s = arg;
	struct segment_dir_options o = { .create = true, .address = s->address, .domain = s->domain };
	struct placed_server placed = { .weight = 1 };
	struct server_limits limits = { 0 };
	struct scrub_options scrubs = { .directory = "/data" };
	struct listener *l;
	int r = segment_dir_open(s->env, "/data", s->catalog, &o, &s->dir, &s->rig->g.report);
	if (r == 0)
		r = stream_listen(s->env, s->address, &l);
	if (r == 0)
		r = server_start(s->env, l, s->dir, &limits, &s->server);
	if (r < 0)
		return r;
	snprintf(placed.domain, sizeof placed.domain, "%s", s->domain);
	placed.id = s->dir->id;
	r = placement_join(s->catalog, &placed, &s->rig->g.report);
	return r == 0 ? scrub_start(s->env, s->catalog, s->dir, s->server, &scrubs, &s->scrub) : r;
}

static int end_body(void *arg)
{
	struct one_server *s = arg;
	keeper_stop(s->keeper);
	s->keeper = NULL;
	scrub_stop(s->scrub);
	server_stop(s->server, NS_PER_S);
	return segment_server_close(s->dir);
}

void cluster_server_begin(struct cluster_rig *c, unsigned i)
{
	struct one_server *s = &c->servers[i];
	s->env = sim_process_create(c->g.sim, s->host);
	s->catalog = catalog_sim_open(c->g.catalogs, s->env);
	cr_assert_eq(sim_run_fiber(s->env, begin_body, s), 0, "%s", c->g.report.text);
}

void cluster_server_end(struct cluster_rig *c, unsigned i)
{
	struct one_server *s = &c->servers[i];
	sim_kill(s->env);
	sim_drain_dead(s->env);
	sim_run_fiber(s->env, end_body, s);
	catalog_close(s->catalog);
	sim_process_destroy(s->env);
	s->env = NULL;
}

static int create_body(void *arg)
{
	struct cluster_rig *c = arg;
	struct store_volume_options o = { .size_bytes = BLOCKS * BLOCK_BYTES, .replicas = SERVERS, .min_replicas = 2 };
	return store_volume_create(&c->g.store, "v", &o, &c->g.report);
}

int cluster_close(void *arg)
{
	struct cluster_rig *c = arg;
	cr_assert_eq(blk_close(c->g.node), 0);
	c->g.node = NULL;
	int r = volume_close(c->g.volume);
	c->g.volume = NULL;
	return r;
}

void cluster_between(struct cluster_rig *c, between_submit *submit)
{
	for (unsigned i = 0; i < SERVERS; i++)
		between(c->servers[i].dir, submit);
}

void cluster_open(struct cluster_rig *c)
{
	c->g.places.ops.domain = c->servers[1].domain;
	cr_assert_eq(volume_rig_open(&c->g), 0, "%s", c->g.report.text);
}

static int write_body(void *arg)
{
	struct cluster_rig *c = arg;
	for (unsigned b = 0; b < BLOCKS; b++) {
		memset(c->g.buffer, (int)b + 1, BLOCK_BYTES);
		cr_assert_eq(blk_write_wait(c->g.node, c->g.buffer, BLOCK_BYTES, b * BLOCK_BYTES, BLK_FUA), 0);
	}
	return 0;
}

struct cluster_rig *cluster_make(void)
{
	struct cluster_rig *c = calloc(1, sizeof *c);
	cr_assert(c);
	c->g.sim = sim_create(3, NULL);
	c->g.buffer = env_alloc_aligned(BLOCK_BYTES);
	c->g.segment_blocks = 256;
	c->shift = 1;
	c->g.host = sim_host_create(c->g.sim, "h", UINT64_C(16) << 20, 4096);
	c->g.catalogs = catalog_sim_create(c->g.sim);
	for (unsigned i = 0; i < SERVERS; i++) {
		struct one_server *s = &c->servers[i];
		s->rig = c;
		snprintf(s->domain, sizeof s->domain, "s%u", i);
		snprintf(s->address, sizeof s->address, "tcp:s%u:7000", i);
		s->host = sim_host_create(c->g.sim, s->domain, UINT64_C(64) << 20, 4096);
		cluster_server_begin(c, i);
	}
	volume_rig_begin(&c->g);
	cr_assert_eq(volume_rig_run(&c->g, create_body), 0, "%s", c->g.report.text);
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, write_body), 0);
	return c;
}

void cluster_free(struct cluster_rig *c)
{
	volume_rig_kill(&c->g);
	for (unsigned i = 0; i < SERVERS; i++)
		if (c->servers[i].env)
			cluster_server_end(c, i);
	catalog_sim_destroy(c->g.catalogs);
	sim_destroy(c->g.sim);
	free(c->g.buffer);
	free(c);
}

/* ---- on the disks ---- */

static int note_id(void *arg, uint64_t segment)
{
	struct cluster_rig *c = arg;
	c->segment = segment > c->segment ? segment : c->segment;
	return 0;
}

static int ids_body(void *arg)
{
	struct one_server *s = arg;
	return segment_dir_ids(s->dir, note_id, s->rig);
}

struct place cluster_find(struct cluster_rig *c, unsigned server, unsigned block)
{
	struct place p = { .segment = 0 };
	uint8_t page[BLOCK_BYTES], wanted[BLOCK_BYTES];
	memset(wanted, (int)(c->shift + block), sizeof wanted);
	c->segment = 0;
	cr_assert_eq(sim_run_fiber(c->servers[server].env, ids_body, &c->servers[server]), 0);
	for (p.segment = 1; p.segment <= c->segment; p.segment++) {
		snprintf(p.path, sizeof p.path, "/data/segments/%02x/%012" PRIx64 ".seg", (unsigned)(p.segment & 0xff), p.segment);
		for (p.offset = 0; sim_disk_read(c->servers[server].host, p.path, p.offset, page, BLOCK_BYTES) == 0; p.offset += BLOCK_BYTES)
			if (memcmp(page, wanted, BLOCK_BYTES) == 0)
				return p;
	}
	cr_assert_fail("server %u hasn't got block %u", server, block);
	return p;
}

void cluster_flip(struct cluster_rig *c, unsigned server, const struct place *p)
{
	cr_assert_eq(sim_disk_flip(c->servers[server].host, p->path, p->offset + 99, 8), 0);
}

bool cluster_is_whole(struct cluster_rig *c, unsigned server, const struct place *p, unsigned block)
{
	uint8_t page[BLOCK_BYTES], wanted[BLOCK_BYTES];
	memset(wanted, (int)(c->shift + block), sizeof wanted);
	cr_assert_eq(sim_disk_read(c->servers[server].host, p->path, p->offset, page, BLOCK_BYTES), 0);
	return memcmp(page, wanted, BLOCK_BYTES) == 0;
}

/* ---- reading ---- */

int cluster_read(void *arg)
{
	struct cluster_rig *c = arg;
	for (unsigned b = 0; b < BLOCKS; b++) {
		int r = blk_read_wait(c->g.node, c->g.buffer, BLOCK_BYTES, b * BLOCK_BYTES);
		if (r < 0)
			return r;
		cr_assert_eq(c->g.buffer[99], (uint8_t)(b + c->shift), "block %u is %u", b, c->g.buffer[99]);
	}
	fiber_sleep(&c->g.env->loop, 100 * NS_PER_MS);
	return 0;
}
