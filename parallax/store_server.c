/* The servers of the cluster, as its map and they themselves say. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "parallax/copies.h"
#include "parallax/store_private.h"

/* Segments that belong there, in parts of a thousand of all; each copy counts. */
static unsigned share_of(const struct placement *map, uint32_t server)
{
	unsigned has = 0, all = 0;
	for (unsigned g = 0; g < PLACEMENT_GROUPS; g++)
		for (unsigned i = 0; i < map->groups[g].target_count; i++) {
			has += map->groups[g].target[i] == server;
			all++;
		}
	return all ? has * 1000 / all : 0;
}

static void fill(const struct copies *c, uint32_t index, struct peer *p, struct store_server *ret)
{
	const struct placed_server *placed = &c->map.servers[index];
	struct meta_server m;
	*ret = (struct store_server){ .weight = placed->weight, .share = share_of(&c->map, index), .answers = peer_usable(p) };
	for (unsigned i = 0; i < sizeof p->id.bytes; i++)
		snprintf(ret->id + 2 * i, 3, "%02x", p->id.bytes[i]);
	snprintf(ret->address, sizeof ret->address, "%s", p->address);
	snprintf(ret->domain, sizeof ret->domain, "%s", placed->domain);
	if (meta_get_server(c->catalog, &p->id, &m, NULL) == 0)
		ret->incarnation = m.incarnation;
	if (p->server && !ret->answers)
		snprintf(ret->why, sizeof ret->why, "%s", segment_why(p->server));
	if (ret->answers) {
		ret->free_bytes = p->server->free_bytes;
		ret->total_bytes = p->server->total_bytes;
	}
}

int store_server_list(struct store *s, int (*entry)(void *arg, const struct store_server *server), void *arg, struct report *report)
{
	struct copies *c;
	int r = copies_open(s->env, s->catalog, &c, report);
	if (r < 0)
		return r;
	peers_await(c->peers, c->count, c->count);
	for (uint32_t i = 0; r == 0 && i < c->map.server_count; i++) {
		struct store_server server;
		struct peer *p = copies_peer(c, &c->map.servers[i].id);
		r = p ? 0 : -ENOMEM;
		if (r == 0) {
			fill(c, i, p, &server);
			r = entry(arg, &server);
		}
	}
	copies_close(c);
	return r;
}
