#include "parallax/segment/placement.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "core/report.h"
#include "proto/store.pb-c.h"

#define JOIN_TRIES 200

static bool same_id(const uuid *a, const uuid *b) { return memcmp(a, b, sizeof *a) == 0; }

uint64_t placement_mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

unsigned placement_group_number(unsigned groups, uint64_t segment) { return (unsigned)(placement_mix(segment) % groups); }

const struct placement_group *placement_group_of(const struct placement *p, uint64_t segment)
{
	return &p->groups[p->group_count ? placement_group_number(p->group_count, segment) : 0];
}

bool placement_same_domain(const struct placed_server *a, const struct placed_server *b)
{
	return same_id(&a->id, &b->id) || (a->domain[0] && strcmp(a->domain, b->domain) == 0);
}

unsigned placement_domains(const struct placement *p)
{
	unsigned n = 0;
	for (uint32_t i = 0; i < p->server_count; i++) {
		bool first = true;
		for (uint32_t k = 0; k < i; k++)
			first &= !placement_same_domain(&p->servers[i], &p->servers[k]);
		n += first;
	}
	return n;
}

bool placement_forget_former(struct placement *p, unsigned group, const uint8_t *gone)
{
	struct placement_group *g = &p->groups[group];
	uint8_t kept = 0, before = g->former_count;
	for (unsigned i = 0; i < before; i++)
		if (!(gone[g->former[i] / 8] >> g->former[i] % 8 & 1))
			g->former[kept++] = g->former[i];
	g->former_count = kept;
	return kept < before;
}

void placement_copy(struct placement *to, const struct placement *from)
{
	uint32_t servers = MAX(to->server_count, from->server_count), groups = MAX(to->group_count, from->group_count);
	to->revision = from->revision;
	to->server_count = from->server_count;
	to->group_count = from->group_count;
	memcpy(to->servers, from->servers, servers * sizeof *to->servers);
	memcpy(to->groups, from->groups, groups * sizeof *to->groups);
}

unsigned placement_version(const struct placement *p)
{
	return p->group_count > PLACEMENT_GROUPS_MIN || p->server_count > PLACEMENT_SERVERS_MAX_1 ? PLACEMENT_VERSION : 1;
}

/* ---- in the catalog ---- */

struct map_pack {
	Aquifer__Store__PgMap map;
	Aquifer__Store__PlacedServer servers[PLACEMENT_SERVERS_MAX], *server_pointers[PLACEMENT_SERVERS_MAX];
	Aquifer__Store__Group groups[PLACEMENT_GROUPS_MAX], *group_pointers[PLACEMENT_GROUPS_MAX];
	uint32_t numbers[PLACEMENT_GROUPS_MAX][PLACEMENT_CANDIDATES_MAX];
};

static void pack_group(const struct placement_group *g, uint32_t *numbers, Aquifer__Store__Group *to)
{
	aquifer__store__group__init(to);
	for (unsigned i = 0; i < g->target_count; i++)
		numbers[i] = g->target[i];
	for (unsigned i = 0; i < g->former_count; i++)
		numbers[META_REPLICAS_MAX + i] = g->former[i];
	to->n_target = g->target_count;
	to->target = numbers;
	to->n_former = g->former_count;
	to->former = numbers + META_REPLICAS_MAX;
}

uint8_t *placement_encode(const struct placement *p, size_t *ret_length)
{
	struct map_pack *m = malloc(sizeof *m);
	if (!m)
		return NULL;
	aquifer__store__pg_map__init(&m->map);
	m->map.version = placement_version(p);
	m->map.revision = p->revision;
	m->map.n_servers = p->server_count;
	m->map.servers = m->server_pointers;
	for (uint32_t i = 0; i < p->server_count; i++) {
		aquifer__store__placed_server__init(&m->servers[i]);
		m->servers[i].server = (ProtobufCBinaryData){ 16, (uint8_t *)(uintptr_t)p->servers[i].id.bytes };
		m->servers[i].domain = (char *)(uintptr_t)p->servers[i].domain;
		m->servers[i].weight = p->servers[i].weight;
		m->servers[i].state = p->servers[i].state;
		m->server_pointers[i] = &m->servers[i];
	}
	m->map.n_groups = p->group_count;
	m->map.groups = m->group_pointers;
	for (unsigned g = 0; g < p->group_count; g++) {
		pack_group(&p->groups[g], m->numbers[g], &m->groups[g]);
		m->group_pointers[g] = &m->groups[g];
	}
	uint8_t *bytes = malloc(aquifer__store__pg_map__get_packed_size(&m->map));
	if (bytes)
		*ret_length = aquifer__store__pg_map__pack(&m->map, bytes);
	free(m);
	return bytes;
}

static int unpack_list(const uint32_t *from, size_t count, unsigned room, uint32_t servers, uint16_t *ret, uint8_t *ret_count)
{
	if (count > room)
		return -EUCLEAN;
	for (size_t i = 0; i < count; i++) {
		if (from[i] >= servers)
			return -EUCLEAN;
		ret[i] = (uint16_t)from[i];
	}
	*ret_count = (uint8_t)count;
	return 0;
}

bool placement_groups_valid(size_t count) { return count >= PLACEMENT_GROUPS_MIN && count <= PLACEMENT_GROUPS_MAX && (count & (count - 1)) == 0; }

static int map_unpack(const Aquifer__Store__PgMap *from, struct placement *ret)
{
	if (from->version > PLACEMENT_VERSION)
		return -EPROTONOSUPPORT;
	if (from->n_servers > PLACEMENT_SERVERS_MAX || !placement_groups_valid(from->n_groups) || from->revision == 0)
		return -EUCLEAN;
	memset(ret, 0, sizeof *ret);
	ret->revision = from->revision;
	ret->server_count = (uint32_t)from->n_servers;
	ret->group_count = (uint32_t)from->n_groups;
	for (uint32_t i = 0; i < ret->server_count; i++) {
		const Aquifer__Store__PlacedServer *s = from->servers[i];
		if (s->server.len != 16 || (s->domain && strlen(s->domain) >= sizeof ret->servers[i].domain))
			return -EUCLEAN;
		memcpy(ret->servers[i].id.bytes, s->server.data, 16);
		strcpy(ret->servers[i].domain, s->domain ? s->domain : "");
		ret->servers[i].weight = s->weight;
		ret->servers[i].state = s->state <= PLACED_LOST ? (enum placed_state)s->state : PLACED_DRAINING; /* of a newer version */
	}
	int r = 0;
	for (unsigned g = 0; r == 0 && g < ret->group_count; g++) {
		const Aquifer__Store__Group *f = from->groups[g];
		struct placement_group *to = &ret->groups[g];
		r = unpack_list(f->target, f->n_target, META_REPLICAS_MAX, ret->server_count, to->target, &to->target_count);
		if (r == 0)
			r = unpack_list(f->former, f->n_former, PLACEMENT_FORMER_MAX, ret->server_count, to->former, &to->former_count);
	}
	return r;
}

int placement_decode(const void *bytes, size_t length, struct placement *ret)
{
	Aquifer__Store__PgMap *m = length <= CATALOG_VALUE_MAX ? aquifer__store__pg_map__unpack(NULL, length, bytes) : NULL;
	if (!m)
		return -EUCLEAN;
	int r = map_unpack(m, ret);
	aquifer__store__pg_map__free_unpacked(m, NULL);
	return r;
}

int placement_read(struct catalog *c, struct placement *ret, uint64_t *ret_revision)
{
	struct catalog_value v;
	int r = catalog_get(c, PLACEMENT_KEY, &v);
	if (r == 0)
		r = placement_decode(v.bytes, v.length, ret);
	if (r == -ENOENT) {
		memset(ret, 0, sizeof *ret);
		r = 0;
	}
	if (ret_revision)
		*ret_revision = v.revision;
	catalog_value_free(&v);
	return r;
}

/* A disk that became a little larger isn't worth moving data for. */
static bool similar(uint32_t a, uint32_t b) { return MAX(a, b) - MIN(a, b) <= MAX(a, b) / 10; }

static bool knows(const struct placement *p, const struct placed_server *s)
{
	for (uint32_t i = 0; i < p->server_count; i++)
		if (same_id(&p->servers[i].id, &s->id))
			return strcmp(p->servers[i].domain, s->domain) == 0 && similar(p->servers[i].weight, s->weight);
	return false;
}

static int note_server(void *arg, const char *key, const struct catalog_value *value)
{
	struct meta_server m;
	(void)key;
	int r = meta_server_decode(value->bytes, value->length, &m);
	*(bool *)arg &= r == 0 && (m.removed || !m.address[0] || m.map_version >= PLACEMENT_VERSION); /* without an address: an embedded volume's */
	return 0;
}

static int note_agent(void *arg, const char *key, const struct catalog_value *value)
{
	struct meta_agent m;
	(void)key;
	*(bool *)arg &= meta_agent_decode(value->bytes, value->length, &m) == 0 && m.map_version >= PLACEMENT_VERSION;
	return 0;
}

int placement_change_known(struct catalog *c, struct placement *p, const struct placed_server *servers, unsigned count)
{
	bool newer = placement_wants_newer(p, servers, count);
	int r = newer ? catalog_list(c, "server/", note_server, &newer) : 0;
	if (r == 0 && newer)
		r = catalog_list(c, META_AGENTS, note_agent, &newer);
	return r < 0 ? r : placement_change(p, servers, count, newer);
}

static int with_server(struct catalog *c, struct placement *p, const struct placed_server *server)
{
	struct placed_server *list = calloc(p->server_count + 1, sizeof *list);
	if (!list)
		return -ENOMEM;
	unsigned count = 0, at = 0;
	for (; count < p->server_count; count++)
		list[count] = p->servers[count];
	while (at < count && !same_id(&list[at].id, &server->id))
		at++;
	enum placed_state state = at < count ? list[at].state : PLACED_IN;
	list[at] = *server;
	list[at].state = state;
	int r = placement_change_known(c, p, list, at == count ? count + 1 : count);
	free(list);
	return r;
}

int placement_write(struct catalog *c, const struct placement *p, uint64_t revision)
{
	size_t length = 0;
	uint8_t *bytes = placement_encode(p, &length);
	int r = bytes && length > CATALOG_VALUE_MAX ? -EXFULL : catalog_put_at(c, PLACEMENT_KEY, revision, bytes, length);
	free(bytes);
	return r;
}

static int join_once(struct catalog *c, struct placement *p, const struct placed_server *server)
{
	uint64_t revision;
	int r = placement_read(c, p, &revision);
	if (r < 0 || knows(p, server))
		return r;
	r = with_server(c, p, server);
	return r ? r : placement_write(c, p, revision);
}

int placement_join(struct catalog *c, const struct placed_server *server, struct report *report)
{
	struct placement *p = malloc(sizeof *p);
	int r = p ? -EAGAIN : -ENOMEM;
	for (unsigned i = 0; i < JOIN_TRIES && (r == -EAGAIN || r == -ETIMEDOUT || r == -EBUSY); i++) {
		if (i && fiber_sleep(&c->env->loop, 20 * NS_PER_MS) < 0)
			r = -ESHUTDOWN;
		else
			r = join_once(c, p, server);
	}
	free(p);
	if (r == -EXFULL)
		return report_set(report, r, "the servers' map can't change again before the copying that is under way has ended");
	if (r == -EOVERFLOW)
		return report_set(report, r, "join the map of servers: a map of more than %d servers isn't known to all servers and agents of this cluster (upgrade them; "
				  "remove those that are gone)", PLACEMENT_SERVERS_MAX_1);
	return r < 0 ? report_set(report, r, "join the map of servers: %s", errno_text(r)) : 0;
}
