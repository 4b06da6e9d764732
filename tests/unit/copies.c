/* Which server reads are asked of: the nearest that is healthy. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "tests/unit/maptest.h"

enum { SERVERS = 3 };

/* Three servers in domains a, b and c, all of which have all segments, and how long their reads take. */
struct near_rig {
	struct map_rig w;
	struct copies *c; /* w's */
	struct segment_server servers[SERVERS];
	uint64_t latency_ns[SERVERS];
	unsigned reads[SERVERS];
	unsigned running, together; /* readers; reads at once of the far server, at most */
	unsigned far_now;
	uint64_t until_ns;
};

static const struct segment_server_ops always_up;

static unsigned index_of(const struct near_rig *g, const struct peer *p)
{
	unsigned i = 0;
	while (i < SERVERS && p->server != &g->servers[i])
		i++;
	cr_assert_lt(i, SERVERS, "a peer that is none of them");
	return i;
}

/* Group n has its servers in an order that begins with n % 3. */
static struct near_rig *rig_make(void)
{
	struct near_rig *g = calloc(1, sizeof *g);
	map_rig_make(&g->w, 1, SERVERS);
	g->c = g->w.copies;
	for (unsigned i = 0; i < SERVERS; i++) {
		g->servers[i].ops = &always_up;
		g->latency_ns[i] = 300000;
		g->c->map.servers[i].domain[0] = (char)('a' + i);
		map_rig_serve(&g->w, i, &g->servers[i]);
	}
	for (unsigned n = 0; n < PLACEMENT_GROUPS_MIN; n++)
		map_rig_place(&g->w, n, SERVERS, (uint16_t[]){ (uint16_t)(n % 3), (uint16_t)((n + 1) % 3), (uint16_t)((n + 2) % 3) });
	return g;
}

static void rig_free(struct near_rig *g)
{
	map_rig_free(&g->w);
	free(g);
}

static struct peer *first(struct near_rig *g, uint64_t segment)
{
	struct peer *list[PLACEMENT_CANDIDATES_MAX];
	cr_assert_eq(copies_candidates(g->c, segment, list), SERVERS);
	return list[0];
}

/* Reads one block after the other of all segments. */
static int reader(void *arg)
{
	struct near_rig *g = arg;
	for (uint64_t segment = 1; env_now_ns(g->w.env) < g->until_ns; segment++) {
		struct peer *p = first(g, segment);
		unsigned i = index_of(g, p);
		uint64_t began = env_now_ns(g->w.env);
		g->reads[i]++;
		peer_asked(p);
		if (g->latency_ns[i] > NS_PER_MS && ++g->far_now > g->together)
			g->together = g->far_now;
		fiber_sleep(&g->w.env->loop, g->latency_ns[i]);
		g->far_now -= g->latency_ns[i] > NS_PER_MS;
		peer_answered(p, 1, env_now_ns(g->w.env) - began);
	}
	g->running--;
	return 0;
}

static int readers(void *arg)
{
	struct near_rig *g = arg;
	memset(g->reads, 0, sizeof g->reads);
	g->together = 0;
	for (g->running = 0; g->running < 8; g->running++)
		fiber_start(&g->w.env->loop, reader, g, NULL);
	while (g->running)
		fiber_sleep(&g->w.env->loop, NS_PER_MS);
	return 0;
}

static void read_for(struct near_rig *g, uint64_t ns)
{
	g->until_ns = env_now_ns(g->w.env) + ns;
	sim_run_fiber(g->w.env, readers, g);
}

static unsigned percent(const struct near_rig *g, unsigned server)
{
	return g->reads[server] * 100 / (g->reads[0] + g->reads[1] + g->reads[2]);
}

Test(copies, equal_ones_share_the_segments_and_keep_them)
{
	struct near_rig *g = rig_make();
	struct peer *before[100];
	g->latency_ns[1] = 900000; /* within a millisecond is alike */
	for (unsigned i = 0; i < 100; i++)
		before[i] = first(g, i + 1);
	read_for(g, 30 * NS_PER_S);
	for (unsigned i = 0; i < SERVERS; i++)
		cr_assert(percent(g, i) > 25, "server %u has %u %% of the reads", i, percent(g, i));
	for (unsigned i = 0; i < 100; i++)
		cr_assert_eq(first(g, i + 1), before[i], "segment %u is read elsewhere now", i + 1);
	rig_free(g);
}

Test(copies, the_one_in_our_own_domain_is_asked)
{
	struct near_rig *g = rig_make();
	copies_set_domain(g->c, "b");
	read_for(g, 30 * NS_PER_S);
	cr_assert(percent(g, 1) >= 99, "%u %% of the reads", percent(g, 1));
	g->latency_ns[1] = 40 * NS_PER_MS; /* it is near, and of no use */
	read_for(g, 5 * NS_PER_S);
	read_for(g, 60 * NS_PER_S);
	cr_assert(percent(g, 1) == 0, "%u %% are read there all the same", percent(g, 1));
	g->latency_ns[1] = 300000;
	read_for(g, 15 * NS_PER_S);
	read_for(g, 5 * NS_PER_S);
	cr_assert(percent(g, 1) >= 99, "it is well again, and has %u %% of the reads", percent(g, 1));
	copies_set_domain(g->c, "nowhere");
	read_for(g, 5 * NS_PER_S);
	cr_assert(percent(g, 1) < 40);
	rig_free(g);
}

Test(copies, a_far_one_is_avoided_and_tried_again_by_one_read)
{
	struct near_rig *g = rig_make();
	g->latency_ns[2] = 30 * NS_PER_MS;
	read_for(g, NS_PER_S);
	cr_assert(g->reads[2] > 0, "nobody could know how far it is");
	read_for(g, 60 * NS_PER_S);
	cr_assert(g->reads[2] >= 4 && g->reads[2] <= 8, "%u of its reads in a minute", g->reads[2]);
	cr_assert_eq(g->together, 1, "%u at once, to find out how far it is", g->together);
	cr_assert(percent(g, 0) > 40 && percent(g, 1) > 30);
	g->latency_ns[2] = 300000;
	read_for(g, 15 * NS_PER_S);
	read_for(g, 5 * NS_PER_S);
	cr_assert(percent(g, 2) > 25, "it isn't far any more, and has %u %% of the reads", percent(g, 2));
	rig_free(g);
}

/* ---- many servers ---- */

enum { MANY = 100 };

struct many {
	struct env *env;
	struct catalog *catalog;
	unsigned addresses, near;
	bool placed;
};

static int body_many(void *arg)
{
	struct many *m = arg;
	struct placement *p = calloc(1, sizeof *p);
	struct placed_server *list = calloc(MANY, sizeof *list);
	struct copies *c = NULL;
	char key[META_KEY_BYTES];
	size_t n;
	for (unsigned i = 0; i < MANY; i++) {
		list[i] = (struct placed_server){ .id = { { (uint8_t)(i + 1) } }, .weight = 1 };
		snprintf(list[i].domain, sizeof list[i].domain, "d%u", i % 4);
		struct meta_server s = { .incarnation = 1 };
		snprintf(s.address, sizeof s.address, "tcp:nobody%u:1", i);
		uint8_t *bytes = meta_server_encode(&s, &n);
		meta_key_server(&list[i].id, key);
		cr_assert_eq(catalog_put_at(m->catalog, key, 0, bytes, n), 0);
		free(bytes);
	}
	cr_assert_eq(placement_change(p, list, MANY, true), 0);
	cr_assert_eq(placement_write(m->catalog, p, 0), 0);
	cr_assert_eq(copies_open(m->env, m->catalog, &c, NULL), 0);
	copies_set_domain(c, "d2");
	m->placed = true;
	for (unsigned i = 0; i < MANY; i++) {
		struct peer *peer = copies_placed(c, i);
		char want[32];
		snprintf(want, sizeof want, "tcp:nobody%u:1", i);
		m->addresses += strcmp(peer->address, want) == 0 && !peer->server;
		m->near += peer->near;
		m->placed &= peer == copies_peer(c, &list[i].id);
	}
	copies_close(c);
	free(list);
	free(p);
	return 0;
}

/* Their addresses come from a list, nobody is connected with before he is needed, and who is at an index of the map isn't looked for. */
Test(copies, a_hundred_servers)
{
	struct sim *sim = sim_create(1, NULL);
	struct catalog_sim *catalogs = catalog_sim_create(sim);
	struct env *env = sim_process_create(sim, sim_host_create(sim, "h", 1 << 20, 4096));
	struct many m = { .env = env, .catalog = catalog_sim_open(catalogs, env) };
	sim_run_fiber(env, body_many, &m);
	cr_assert(m.addresses == MANY && m.near == MANY / 4 && m.placed, "%u addresses, %u near", m.addresses, m.near);
	catalog_close(m.catalog);
	sim_process_destroy(env);
	catalog_sim_destroy(catalogs);
	sim_destroy(sim);
}

static int seldom(void *arg)
{
	struct near_rig *g = arg;
	memset(g->reads, 0, sizeof g->reads);
	for (uint64_t segment = 1; segment <= 120; segment++) {
		struct peer *p = first(g, segment);
		unsigned i = index_of(g, p);
		g->reads[i]++;
		peer_asked(p);
		fiber_sleep(&g->w.env->loop, g->latency_ns[i]);
		peer_answered(p, 1, g->latency_ns[i]);
		fiber_sleep(&g->w.env->loop, 5 * NS_PER_S);
	}
	return 0;
}

Test(copies, who_reads_seldom_measures_seldom)
{
	struct near_rig *g = rig_make();
	copies_set_domain(g->c, "a");
	g->latency_ns[2] = 30 * NS_PER_MS;
	sim_run_fiber(g->w.env, seldom, g);
	cr_assert_eq(g->reads[0], 118, "of 120 reads it has %u", g->reads[0]);
	rig_free(g);
}

Test(copies, what_is_late_comes_last_for_a_while_and_large_reads_are_no_distance)
{
	struct near_rig *g = rig_make();
	struct peer *list[PLACEMENT_CANDIDATES_MAX], *p = first(g, 1);
	for (unsigned i = 0; i < SERVERS; i++)
		peer_answered(g->c->peers[i], 1, 300000);
	peer_answered(p, 256, 16 * 300000);
	cr_assert_eq(first(g, 1), p);
	peer_late(p, 1, 500 * NS_PER_MS);
	copies_candidates(g->c, 1, list);
	cr_assert_eq(list[SERVERS - 1], p);
	rig_free(g);
}
