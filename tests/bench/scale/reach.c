/* With how many of all servers a tapdisk is connected: its real connections, over the RPC, with servers that answer everything and have nothing, while its
 * log's end is kept, goes from segment to segment, or blocks of a whole volume are read at random. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/copies/copies.h"
#include "server/server.h"
#include "tests/bench/scale/world.h"

enum { AHEAD = 3 /* listed: one in use, and two */, SECONDS = 1200, SETTLE_SECONDS = 300, READS = 10 /* a second */, FIRST_PORT = 2000, SEGMENT_MIB = 64 };

struct answerer {
	struct segment_server base;
	struct server *server;
};

struct reach {
	struct scale_world w;
	const struct scale *s;
	struct env *there; /* all servers */
	struct answerer *servers;
	struct placed_server *list;
	struct copies *copies;
	uint8_t page[BLOCK_BYTES];
	bool writes, reads;
	double connected; /* found out: on average */
};

static void answer(struct segment_server *s, struct segment_io *io)
{
	(void)s;
	io->status = 0;
	io->state = COPY_WHOLE;
	job_put(io->parent, 0);
}

static const struct segment_server_ops answerer_ops = { .submit = answer };

static int serve(void *arg)
{
	struct reach *x = arg;
	for (unsigned i = 0; i < x->s->servers; i++) {
		struct answerer *a = &x->servers[i];
		struct listener *l;
		char address[32];
		snprintf(address, sizeof address, "tcp:there:%u", FIRST_PORT + i);
		a->base = (struct segment_server){ .ops = &answerer_ops, .env = x->there, .id = x->list[i].id, .incarnation = 1 };
		if (stream_listen(x->there, address, &l) < 0 || server_start(x->there, l, &a->base, &(struct server_limits){ 0 }, &a->server) < 0)
			scale_fail("a server doesn't start");
	}
	return 0;
}

static int stop(void *arg)
{
	struct reach *x = arg;
	for (unsigned i = 0; i < x->s->servers; i++)
		server_stop(x->servers[i].server, 0);
	return 0;
}

static int put_map(void *arg)
{
	struct reach *x = arg;
	struct placement *map = calloc(1, sizeof *map);
	char key[META_KEY_BYTES];
	size_t n;
	placement_change(map, x->list, x->s->servers, true);
	uint8_t *bytes = placement_encode(map, &n);
	scale_put(x->w.below, PLACEMENT_KEY, bytes, n);
	free(bytes);
	for (unsigned i = 0; i < x->s->servers; i++) {
		struct meta_server m = { .incarnation = 1 };
		snprintf(m.address, sizeof m.address, "tcp:there:%u", FIRST_PORT + i);
		bytes = meta_server_encode(&m, &n);
		meta_key_server(&x->list[i].id, key);
		scale_put(x->w.below, key, bytes, n);
		free(bytes);
	}
	free(map);
	if (copies_open(x->w.env, x->w.catalog, &x->copies, NULL) < 0)
		scale_fail("the map can't be read");
	return 0;
}

static int end(void *arg)
{
	struct reach *x = arg;
	copies_close(x->copies);
	return 0;
}

/* ---- what it does ---- */

static unsigned connected(const struct reach *x)
{
	unsigned n = 0;
	for (unsigned i = 0; i < x->copies->count; i++)
		n += x->copies->peers[i]->server != NULL;
	return n;
}

/* As volumes do (parallax/volume/log_roll.c, log_leave.c, sources.c). */
static void make_segment(struct reach *x, uint64_t id)
{
	struct peer *peers[META_REPLICAS_MAX];
	if (copies_place(x->copies, id, META_REPLICAS_MAX, META_REPLICAS_MAX, peers) != META_REPLICAS_MAX)
		scale_fail("servers don't answer");
}

static void read_one(struct reach *x, uint64_t number)
{
	struct peer *list[PLACEMENT_CANDIDATES_MAX];
	uint64_t segment = 1 + placement_mix(number) % MAX(x->s->volume_bytes / (SEGMENT_MIB << 20), UINT64_C(1));
	struct iovec v = { x->page, sizeof x->page };
	struct segment_io io = { .op = SEGMENT_READ, .segment = segment, .block = 1, .blocks = 1, .iov = &v, .iov_count = 1 };
	if (copies_candidates(x->copies, segment, list) == 0)
		scale_fail("a segment is nowhere");
	uint64_t began = env_now_ns(x->w.env);
	peer_asked(list[0]);
	if (peer_wait(list[0], &io) < 0)
		scale_fail("a read failed");
	peer_answered(list[0], 1, env_now_ns(x->w.env) - began);
}

static int live(void *arg)
{
	struct reach *x = arg;
	uint64_t next = 1 << 20, reads = 0;
	x->connected = 0;
	for (unsigned i = 0; i < AHEAD; i++)
		make_segment(x, next++);
	for (unsigned second = 0; second < SECONDS; second++) {
		if (x->writes && second % SEGMENT_MIB == 0) /* 1 MiB a second */
			make_segment(x, next++);
		for (uint64_t id = next - AHEAD; id < next; id++)
			copies_want(x->copies, id, META_REPLICAS_MAX);
		for (unsigned i = 0; x->reads && i < READS; i++)
			read_one(x, reads++);
		fiber_sleep(&x->w.env->loop, NS_PER_S);
		if (second >= SETTLE_SECONDS)
			x->connected += (double)connected(x) / (SECONDS - SETTLE_SECONDS);
	}
	return 0;
}

static double run(struct reach *x, bool writes, bool reads, const char *what)
{
	x->writes = writes;
	x->reads = reads;
	sim_run_fiber(x->w.env, live, x);
	printf("%-64s %6.1f of %u\n", what, x->connected, x->s->servers);
	return x->connected;
}

void scale_reach(struct scale *s)
{
	struct reach *x = calloc(1, sizeof *x);
	char what[96];
	x->s = s;
	x->servers = calloc(s->servers, sizeof *x->servers);
	x->list = calloc(s->servers, sizeof *x->list);
	scale_world_begin(&x->w);
	scale_servers(x->list, s->servers, 1);
	x->there = sim_process_create(x->w.sim, sim_host_create(x->w.sim, "there", 1 << 20, 4096));
	sim_run_fiber(x->there, serve, x);
	sim_run_fiber(x->w.env, put_map, x);
	s->reach_idle = run(x, false, false, "attached, idle");
	run(x, true, false, "writing 1 MiB a second");
	snprintf(what, sizeof what, "writing, and reading %u blocks a second of a volume of %.0f GiB", (unsigned)READS, (double)s->volume_bytes / (double)(1 << 30));
	s->reach = run(x, true, true, what);
	sim_run_fiber(x->w.env, end, x);
	sim_run_fiber(x->there, stop, x);
	sim_process_destroy(x->there);
	scale_world_end(&x->w);
	free(x->servers);
	free(x->list);
	free(x);
}
