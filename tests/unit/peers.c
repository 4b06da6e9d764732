/* Who is connected with when: servers that are needed, as soon as they are, and no others. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/copies/copies.h"
#include "server/server.h"
#include "tests/sim/catalog_sim.h"

enum { SERVERS = 12 };

/* A server that answers everything, and has nothing. */
struct answerer {
	struct segment_server base;
	struct sim_host *host;
	struct env *env; /* NULL: it doesn't run */
	struct server *server;
	char address[24];
	unsigned asked;
};

struct peers_rig {
	struct sim *sim;
	struct catalog_sim *catalogs;
	struct sim_host *host;
	struct env *env;
	struct catalog *catalog;
	struct answerer servers[SERVERS];
	struct copies *c;
	int (*body)(struct peers_rig *g);
};

static void answer(struct segment_server *s, struct segment_io *io)
{
	container_of(s, struct answerer, base)->asked++;
	io->status = 0;
	io->state = COPY_WHOLE;
	job_put(io->parent, 0);
}

static const struct segment_server_ops answerer_ops = { .submit = answer };

static int serve(void *arg)
{
	struct answerer *a = arg;
	struct listener *l;
	a->base.env = a->env;
	a->base.incarnation++;
	int r = stream_listen(a->env, a->address, &l);
	return r ? r : server_start(a->env, l, &a->base, &(struct server_limits){ 0 }, &a->server);
}

static int stop(void *arg)
{
	struct answerer *a = arg;
	server_stop(a->server, 0);
	return 0;
}

static void server_up(struct peers_rig *g, unsigned i)
{
	g->servers[i].env = sim_process_create(g->sim, g->servers[i].host);
	cr_assert_eq(sim_run_fiber(g->servers[i].env, serve, &g->servers[i]), 0);
}

static void server_down(struct peers_rig *g, unsigned i)
{
	struct answerer *a = &g->servers[i];
	if (!a->env)
		return;
	sim_kill(a->env);
	sim_drain_dead(a->env);
	sim_run_fiber(a->env, stop, a);
	sim_process_destroy(a->env);
	a->env = NULL;
}

/* Group n has the servers n, n + 1 and n + 2 (modulo all). */
static int put_map(void *arg)
{
	struct peers_rig *g = arg;
	struct placement *p = calloc(1, sizeof *p);
	char key[META_KEY_BYTES];
	size_t n;
	p->revision = 1;
	p->server_count = SERVERS;
	p->group_count = PLACEMENT_GROUPS_MIN;
	for (unsigned i = 0; i < SERVERS; i++) {
		struct meta_server m = { .incarnation = 1 };
		p->servers[i].id = g->servers[i].base.id;
		snprintf(p->servers[i].domain, sizeof p->servers[i].domain, "d%u", i);
		snprintf(m.address, sizeof m.address, "%s", g->servers[i].address);
		uint8_t *bytes = meta_server_encode(&m, &n);
		meta_key_server(&p->servers[i].id, key);
		cr_assert_eq(catalog_put_at(g->catalog, key, 0, bytes, n), 0);
		free(bytes);
	}
	for (unsigned k = 0; k < PLACEMENT_GROUPS_MIN; k++) {
		p->groups[k].target_count = 3;
		for (unsigned i = 0; i < 3; i++)
			p->groups[k].target[i] = (uint16_t)((k + i) % SERVERS);
	}
	int r = placement_write(g->catalog, p, 0);
	free(p);
	return r;
}

static int run_body(void *arg)
{
	struct peers_rig *g = arg;
	cr_assert_eq(copies_open(g->env, g->catalog, &g->c, NULL), 0);
	int r = g->body(g);
	copies_close(g->c);
	return r;
}

/* The first `up` servers run. */
static void rig_run(unsigned up, int (*body)(struct peers_rig *g))
{
	struct peers_rig *g = calloc(1, sizeof *g);
	g->sim = sim_create(5, NULL);
	g->catalogs = catalog_sim_create(g->sim);
	g->host = sim_host_create(g->sim, "h", 1 << 20, 4096);
	g->env = sim_process_create(g->sim, g->host);
	g->catalog = catalog_sim_open(g->catalogs, g->env);
	g->body = body;
	for (unsigned i = 0; i < SERVERS; i++) {
		struct answerer *a = &g->servers[i];
		char name[8];
		snprintf(name, sizeof name, "s%u", i);
		snprintf(a->address, sizeof a->address, "tcp:%s:7000", name);
		a->base = (struct segment_server){ .ops = &answerer_ops, .id = { { (uint8_t)(i + 1) } }, .total_bytes = UINT64_C(1) << 40 };
		a->host = sim_host_create(g->sim, name, 1 << 20, 4096);
		if (i < up)
			server_up(g, i);
	}
	cr_assert_eq(sim_run_fiber(g->env, put_map, g), 0);
	cr_assert_eq(sim_run_fiber(g->env, run_body, g), 0);
	for (unsigned i = 0; i < SERVERS; i++)
		server_down(g, i);
	catalog_close(g->catalog);
	sim_process_destroy(g->env);
	catalog_sim_destroy(g->catalogs);
	sim_destroy(g->sim);
	free(g);
}

/* A bit for each server that there is a connection with, or that one is tried with. */
static unsigned connections(struct peers_rig *g)
{
	unsigned bits = 0;
	for (unsigned i = 0; i < SERVERS; i++)
		bits |= copies_placed(g->c, i)->server ? 1u << i : 0;
	return bits;
}

/* A segment of the group that begins with that server. */
static uint64_t segment_at(struct peers_rig *g, unsigned server)
{
	uint64_t segment = 1;
	while (placement_group_of(&g->c->map, segment)->target[0] != server)
		segment++;
	return segment;
}

static int read_at(struct peers_rig *g, uint64_t segment)
{
	static uint8_t page[BLOCK_BYTES];
	struct peer *list[PLACEMENT_CANDIDATES_MAX];
	struct iovec v = { page, sizeof page };
	struct segment_io io = { .op = SEGMENT_READ, .segment = segment, .block = 1, .blocks = 1, .iov = &v, .iov_count = 1 };
	cr_assert_eq(copies_candidates(g->c, segment, list), 3);
	uint64_t began = env_now_ns(g->env);
	peer_asked(list[0]);
	int r = peer_wait(list[0], &io);
	if (r == 0)
		peer_answered(list[0], 1, env_now_ns(g->env) - began);
	return r;
}

static int wait_for(struct peers_rig *g, uint64_t ns) { return fiber_sleep(&g->env->loop, ns); }

static int needs(struct peers_rig *g)
{
	wait_for(g, NS_PER_S);
	cr_assert_eq(connections(g), 0, "nobody was needed yet");
	cr_assert_eq(copies_await(g->c, NULL), 0);
	wait_for(g, COPIES_IDLE_NS + NS_PER_S * 20);
	cr_assert_eq(connections(g), 0, "what nobody needs any more goes");
	uint64_t one = segment_at(g, 1), five = segment_at(g, 5);
	cr_assert_eq(read_at(g, one), 0);
	cr_assert_eq(connections(g), 1u << 1, "the first of the group is enough: %x", connections(g));
	for (unsigned i = 0; i < 300; i++) {
		cr_assert_eq(read_at(g, one), 0);
		wait_for(g, NS_PER_S);
	}
	cr_assert_eq(connections(g), 1u << 1, "all its reads are of one: %x", connections(g));
	cr_assert_eq(read_at(g, five), 0);
	cr_assert_eq(connections(g), 1u << 1 | 1u << 5);
	for (unsigned i = 0; i < 100; i++) {
		peer_want(copies_placed(g->c, 9));
		wait_for(g, NS_PER_S);
	}
	cr_assert_eq(connections(g), 1u << 9, "what is kept is kept: %x", connections(g));
	cr_assert_eq(peer_incarnation(copies_placed(g->c, 5)), 1, "it is known though it is gone");
	return 0;
}

Test(peers, who_is_needed_is_connected_with) { rig_run(SERVERS, needs); }

/* Reads go to the server that was near, also when others had to be connected with to know it. */
static int nearest(struct peers_rig *g)
{
	uint64_t one = segment_at(g, 1);
	copies_set_domain(g->c, "d2");
	for (unsigned i = 0; i < 20; i++)
		cr_assert_eq(read_at(g, one), 0);
	cr_assert_eq(connections(g), 1u << 2, "the near one isn't the first of its group: %x", connections(g));
	cr_assert_eq(copies_placed(g->c, 2)->reads, 20);
	copies_set_domain(g->c, "elsewhere");
	sim_doses(g->sim)->net_ns = 20 * NS_PER_MS; /* all are far: which is the nearest is worth a connection with each */
	for (unsigned i = 0; i < 50; i++)
		cr_assert_eq(read_at(g, one), 0);
	cr_assert_eq(connections(g), 1u << 1 | 1u << 2 | 1u << 3, "%x", connections(g));
	for (unsigned i = 0; i < 600; i++) {
		cr_assert_eq(read_at(g, one), 0);
		wait_for(g, NS_PER_S / 4);
	}
	unsigned bits = connections(g);
	cr_assert(bits == 1u << 1 || bits == 1u << 2 || bits == 1u << 3, "to be measured is no need: %x", bits);
	return 0;
}

Test(peers, near_ones_are_asked_though_nobody_was_connected_with) { rig_run(SERVERS, nearest); }

/* How long the connection took is no distance. */
static int distance(struct peers_rig *g)
{
	uint64_t one = segment_at(g, 1);
	cr_assert_eq(read_at(g, one), 0);
	uint64_t first = copies_placed(g->c, 1)->read_ns;
	for (unsigned i = 0; i < 100; i++)
		cr_assert_eq(read_at(g, one), 0);
	cr_assert(first < 3 * copies_placed(g->c, 1)->read_ns, "%llu, then %llu ns", (unsigned long long)first, (unsigned long long)copies_placed(g->c, 1)->read_ns);
	return 0;
}

Test(peers, a_connection_is_no_distance) { rig_run(SERVERS, distance); }

/* Servers 4 and above don't run. */
static int some_away(struct peers_rig *g)
{
	struct peer *list[PLACEMENT_CANDIDATES_MAX];
	char who[META_TEXT_MAX];
	uint64_t four = segment_at(g, 4), three = segment_at(g, 3), began = env_now_ns(g->env);
	cr_assert(peer_usable(copies_placed(g->c, 4)), "nobody knows yet");
	cr_assert_eq(read_at(g, four), -ENOTCONN);
	cr_assert_lt(env_now_ns(g->env) - began, 100 * NS_PER_MS, "who is refused doesn't wait");
	cr_assert(!peer_usable(copies_placed(g->c, 4)));
	cr_assert_eq(copies_place(g->c, three, 3, 1, list), 1);
	cr_assert_eq(list[0], copies_placed(g->c, 3));
	cr_assert_eq(copies_place(g->c, segment_at(g, 0), 3, 2, list), 3);
	cr_assert_eq(copies_place(g->c, segment_at(g, 2), 2, 2, list), 2);
	peers_missing(g->c->peers, g->c->count, who, sizeof who);
	cr_assert(strstr(who, "s4:") && strstr(who, "s5:") && !strstr(who, "s7:") && !strstr(who, "s1:"), "%s", who);
	copies_missing(g->c, who, sizeof who);
	cr_assert(strstr(who, "s4:") && strstr(who, "s5:"), "%s", who);
	struct placed_server five = g->c->map.servers[5];
	memset(&g->c->map.servers[5].id, 0xff, sizeof(uuid)); /* it is removed */
	copies_missing(g->c, who, sizeof who);
	cr_assert(strstr(who, "s4:") && !strstr(who, "s5:"), "%s", who);
	g->c->map.servers[5] = five;
	struct peer *twice[] = { copies_placed(g->c, 4), copies_placed(g->c, 4) }; /* a server, and the one whose place it took */
	peers_missing(twice, 2, who, sizeof who);
	cr_assert(strstr(who, "s4:") && !strstr(strstr(who, "s4:") + 1, "s4:"), "%s", who);
	cr_assert(copies_enough(g->c, 3, 1) && !copies_enough(g->c, 3, 2), "of a group two are known to be away");
	server_up(g, 4);
	for (unsigned i = 0; i < 100 && !peer_connected(copies_placed(g->c, 4)); i++)
		wait_for(g, 100 * NS_PER_MS);
	cr_assert_eq(read_at(g, four), 0);
	return 0;
}

Test(peers, who_is_away_is_known_when_he_is_needed) { rig_run(4, some_away); }

static int any_will_do(struct peers_rig *g)
{
	struct report report = { "" };
	cr_assert_eq(copies_await(g->c, &report), 0, "%s", report.text);
	return 0;
}

static int none_will_do(struct peers_rig *g)
{
	struct report report = { "" };
	uint64_t began = env_now_ns(g->env);
	cr_assert_eq(copies_await(g->c, &report), -ENOTCONN);
	cr_assert(strstr(report.text, "tcp:s0:7000") && strstr(report.text, "tcp:s11:7000"), "%s", report.text);
	cr_assert_lt(env_now_ns(g->env) - began, COPIES_DEADLINE_NS + NS_PER_S);
	return 0;
}

Test(peers, one_of_twelve_is_found) { rig_run(1, any_will_do); }
Test(peers, all_are_named_when_none_answers) { rig_run(0, none_will_do); }

/* What waits for a connection can be given up, ends with the connections, and goes to where the server is by then. */
static int waiting(struct peers_rig *g)
{
	struct peer *p = copies_placed(g->c, 2);
	struct segment_io ios[3];
	struct job j;
	sim_partition(g->sim, g->host, g->servers[2].host, true);
	job_init(&j, &g->env->loop);
	for (unsigned i = 0; i < 3; i++) {
		ios[i] = (struct segment_io){ .op = SEGMENT_STAT, .segment = 1 };
		peer_submit(p, &ios[i], &j);
	}
	cr_assert(p->trying);
	peer_cancel(p, &ios[1]);
	cr_assert_eq(fiber_wait(&j), -ECANCELED);
	cr_assert_eq(ios[0].status, -ENOTCONN);
	cr_assert_eq(ios[1].status, -ECANCELED);
	cr_assert(!peer_usable(p));
	sim_partition(g->sim, g->host, g->servers[2].host, false);

	p = copies_placed(g->c, 3);
	sim_partition(g->sim, g->host, g->servers[3].host, true);
	job_init(&j, &g->env->loop);
	peer_submit(p, &ios[0], &j);
	copies_cut(g->c);
	cr_assert_eq(fiber_wait(&j), -ENOTCONN);
	cr_assert_eq(peer_wait(p, &ios[0]), -ENOTCONN);
	cr_assert_eq(connections(g), 0);
	return 0;
}

Test(peers, what_waits_for_a_connection_ends) { rig_run(SERVERS, waiting); }

/* Who waits until a server is connected hears of the end, too, though it comes while the connections before that one are being ended. */
struct reaching {
	struct peers_rig *g;
	struct peer *peer;
	uint64_t ended_ns;
};

static int reach(void *arg)
{
	struct reaching *r = arg;
	cr_assert(!peer_reach(r->peer));
	r->ended_ns = env_now_ns(r->g->env);
	return 0;
}

static int cut_while_reaching(struct peers_rig *g)
{
	struct reaching r = { .g = g, .peer = copies_placed(g->c, 7) };
	sim_partition(g->sim, g->host, g->servers[1].host, true);
	sim_partition(g->sim, g->host, g->servers[7].host, true);
	peer_want(copies_placed(g->c, 1));
	cr_assert_eq(fiber_start(&g->env->loop, reach, &r, NULL), 0);
	wait_for(g, NS_PER_MS);
	cr_assert(copies_placed(g->c, 1)->trying && r.peer->trying && !r.ended_ns);
	copies_cut(g->c);
	wait_for(g, 10 * NS_PER_MS);
	cr_assert(r.ended_ns, "it waits for what has ended");
	return 0;
}

Test(peers, who_waits_for_one_server_hears_of_the_end) { rig_run(SERVERS, cut_while_reaching); }

/* Attempts to connect that are under way can't be cut short, but nobody begins another while one is waited for. */
static int cut_many(struct peers_rig *g)
{
	for (unsigned i = 0; i < SERVERS; i++) {
		sim_partition(g->sim, g->host, g->servers[i].host, true);
		peer_want(copies_placed(g->c, i));
		wait_for(g, 170 * NS_PER_MS); /* not in step */
	}
	uint64_t began = env_now_ns(g->env);
	copies_cut(g->c);
	cr_assert_lt(env_now_ns(g->env) - began, COPIES_DEADLINE_NS + NS_PER_S, "%llu ms", (unsigned long long)((env_now_ns(g->env) - began) / NS_PER_MS));
	return 0;
}

Test(peers, many_that_hang_cost_one_deadline_in_the_end) { rig_run(SERVERS, cut_many); }
