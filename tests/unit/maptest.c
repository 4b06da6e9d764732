#include "tests/unit/maptest.h"

#include <stdlib.h>

void map_rig_make(struct map_rig *r, uint64_t seed, unsigned servers)
{
	*r = (struct map_rig){ .sim = sim_create(seed, NULL) };
	r->catalogs = catalog_sim_create(r->sim);
	r->env = sim_process_create(r->sim, sim_host_create(r->sim, "h", 1 << 20, 4096));
	struct copies *c = r->copies = calloc(1, sizeof *c);
	c->env = r->env;
	c->catalog = catalog_sim_open(r->catalogs, r->env);
	c->look_ns = UINT64_MAX;
	fiber_cond_init(&c->changed);
	c->map.revision = 1;
	c->map.server_count = servers;
	c->map.group_count = PLACEMENT_GROUPS_MIN;
	for (unsigned i = 0; i < servers; i++)
		c->map.servers[i].id.bytes[0] = (uint8_t)(i + 1);
	for (unsigned i = 0; i < servers; i++)
		map_rig_serve(r, i, NULL);
	c->stale = false;
}

void map_rig_free(struct map_rig *r)
{
	for (unsigned i = 0; i < r->copies->count; i++)
		free(r->copies->peers[i]);
	catalog_close(r->copies->catalog);
	free(r->copies);
	sim_process_destroy(r->env);
	catalog_sim_destroy(r->catalogs);
	sim_destroy(r->sim);
}

void map_rig_serve(struct map_rig *r, unsigned index, struct segment_server *server)
{
	const uuid *id = &r->copies->map.servers[index].id;
	if (server)
		server->id = *id;
	copies_peer(r->copies, id)->server = server;
}

void map_rig_place(struct map_rig *r, unsigned group, unsigned count, const uint16_t *servers)
{
	struct placement_group *g = &r->copies->map.groups[group];
	g->target_count = (uint8_t)count;
	for (unsigned i = 0; i < count; i++)
		g->target[i] = servers[i];
}
