/* How long requests on a volume wait for a server that can't be reached. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/segment/placement.h"
#include "parallax/volume/volume_node.h"
#include "parallax/volume/volume_wait.h"
#include "server/server.h"
#include "tests/unit/volumetest.h"

enum { LIMIT_MS = 3000, BLOCKS = 300 };

/* ---- a server, and a volume on it ---- */

struct away_rig {
	struct volume_rig g;        /* first: its functions are used */
	struct sim_host *server_host;
	struct env *server_env;
	struct catalog *server_catalog;
	struct segment_server *dir;
	struct server *server;
	unsigned ended;
	int status[4];
	uint64_t took_ns[4];
};

static int server_body(void *arg)
{
	struct away_rig *a = arg;
	struct segment_dir_options o = { .create = true, .address = "tcp:s:7000", .domain = "s" };
	struct server_limits limits = { 0 };
	struct listener *l;
	struct placed_server placed = { .weight = 1, .domain = "s" };
	int r = segment_dir_open(a->server_env, "/data", a->server_catalog, &o, &a->dir, &a->g.report);
	if (r == 0)
		r = stream_listen(a->server_env, "tcp:s:7000", &l);
	if (r == 0)
		r = server_start(a->server_env, l, a->dir, &limits, &a->server);
	placed.id = r == 0 ? a->dir->id : placed.id;
	return r == 0 ? placement_join(a->server_catalog, &placed, &a->g.report) : r;
}

static int server_end_body(void *arg)
{
	struct away_rig *a = arg;
	server_stop(a->server, NS_PER_S);
	return segment_server_close(a->dir);
}

static void server_begin(struct away_rig *a)
{
	a->server_env = sim_process_create(a->g.sim, a->server_host);
	a->server_catalog = catalog_sim_open(a->g.catalogs, a->server_env);
	cr_assert_eq(sim_run_fiber(a->server_env, server_body, a), 0, "%s", a->g.report.text);
}

static void server_end(struct away_rig *a)
{
	sim_kill(a->server_env);
	sim_drain_dead(a->server_env);
	sim_run_fiber(a->server_env, server_end_body, a);
	catalog_close(a->server_catalog);
	sim_process_destroy(a->server_env);
}

static int create_body(void *arg)
{
	struct away_rig *a = arg;
	struct store_volume_options o = { .size_bytes = BLOCKS * BLOCK_BYTES, .io_timeout_ms = LIMIT_MS };
	return store_volume_create(&a->g.store, "v", &o, &a->g.report);
}

static struct away_rig *away_rig_make(uint64_t seed)
{
	struct away_rig *a = calloc(1, sizeof *a);
	cr_assert(a);
	a->g.sim = sim_create(seed, NULL);
	a->g.buffer = env_alloc_aligned(BLOCK_BYTES);
	a->g.segment_blocks = 256;
	a->g.host = sim_host_create(a->g.sim, "h", UINT64_C(16) << 20, 4096);
	a->server_host = sim_host_create(a->g.sim, "s", UINT64_C(64) << 20, 4096);
	a->g.catalogs = catalog_sim_create(a->g.sim);
	server_begin(a);
	volume_rig_begin(&a->g);
	cr_assert_eq(volume_rig_run(&a->g, create_body), 0, "%s", a->g.report.text);
	cr_assert_eq(volume_rig_open(&a->g), 0, "%s", a->g.report.text);
	return a;
}

static void away_rig_free(struct away_rig *a)
{
	volume_rig_kill(&a->g);
	server_end(a);
	catalog_sim_destroy(a->g.catalogs);
	sim_destroy(a->g.sim);
	free(a->g.buffer);
	free(a);
}

/* ---- requests ---- */

static int put(struct away_rig *a, unsigned block, uint64_t skip, uint64_t bytes, uint8_t value)
{
	uint8_t *b = env_alloc_aligned(BLOCK_BYTES);
	memset(b, value, BLOCK_BYTES);
	int r = blk_write_wait(a->g.node, b, bytes, block * BLOCK_BYTES + skip, 0);
	free(b);
	return r;
}

static uint8_t get(struct away_rig *a, unsigned block, uint64_t skip)
{
	cr_assert_eq(blk_read_wait(a->g.node, a->g.buffer, BLOCK_BYTES, block * BLOCK_BYTES), 0);
	return a->g.buffer[skip];
}

static int flush(struct away_rig *a) { return blk_op_wait(a->g.node, BLK_FLUSH, 0, 0, 0); }

static int one(struct away_rig *a, unsigned which)
{
	switch (which) {
	case 0: return put(a, 1, 0, BLOCK_BYTES, 20);
	case 1: return blk_read_wait(a->g.node, a->g.buffer, BLOCK_BYTES, 0);
	case 2: return put(a, 2, 512, 512, 21);
	default: return flush(a);
	}
}

static int some_request(struct away_rig *a, unsigned which)
{
	uint64_t began_ns = env_now_ns(a->g.env);
	a->status[which] = one(a, which);
	a->took_ns[which] = env_now_ns(a->g.env) - began_ns;
	a->ended++;
	return 0;
}
static int request_0(void *arg) { return some_request(arg, 0); }
static int request_1(void *arg) { return some_request(arg, 1); }
static int request_2(void *arg) { return some_request(arg, 2); }
static int request_3(void *arg) { return some_request(arg, 3); }

static int begin_body(void *arg)
{
	struct away_rig *a = arg;
	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(put(a, i, 0, BLOCK_BYTES, (uint8_t)(i + 1)), 0);
	cr_assert_eq(flush(a), 0);
	return put(a, 3, 0, BLOCK_BYTES, 4); /* acknowledged, not flushed */
}

static int all_body(void *arg)
{
	struct away_rig *a = arg;
	int (*const requests[])(void *) = { request_0, request_1, request_2, request_3 };
	for (unsigned i = 0; i < 4; i++)
		fiber_start(&a->g.env->loop, requests[i], a, NULL);
	while (a->ended < 4)
		fiber_sleep(&a->g.env->loop, 50 * NS_PER_MS);
	return 0;
}

/* Nothing that was acknowledged is lost, what was given up is there or not, and what comes later is what it is. */
static int after_body(void *arg)
{
	struct away_rig *a = arg;
	struct blk_waits w;
	cr_assert_eq(put(a, 4, 0, BLOCK_BYTES, 5), 0);
	cr_assert_eq(put(a, 2, 1024, 512, 22), 0);
	cr_assert_eq(flush(a), 0);
	uint8_t one_ = get(a, 1, 0), two = get(a, 2, 512);
	cr_assert(one_ == 2 || one_ == 20);
	cr_assert(two == 3 || two == 21);
	cr_assert_eq(get(a, 2, 1024), 22);
	cr_assert_eq(get(a, 2, 0), 3);
	cr_assert_eq(get(a, 0, 0), 1);
	cr_assert_eq(get(a, 3, 0), 4);
	cr_assert_eq(get(a, 4, 0), 5);
	volume_wait_tell(a->g.node, &w);
	cr_assert_eq(w.oldest_ns, 0);
	cr_assert_eq(w.what[0], 0, "%s", w.what);
	cr_assert_eq(w.timed_out, 4);
	return 0;
}

static int close_body(void *arg)
{
	struct away_rig *a = arg;
	cr_assert_eq(blk_close(a->g.node), 0);
	a->g.node = NULL;
	int r = volume_close(a->g.volume);
	a->g.volume = NULL;
	return r;
}

Test(volume_wait, each_request_ends_once_after_the_limit)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct away_rig *a = away_rig_make(seed);
		cr_assert_eq(volume_rig_run(&a->g, begin_body), 0);
		bool killed = seed % 2;
		if (killed)
			server_end(a);
		else
			sim_pause(a->server_env);
		volume_rig_run(&a->g, all_body);
		for (unsigned i = 0; i < 4; i++) {
			cr_assert_eq(a->status[i], -EIO, "request %u: %d", i, a->status[i]);
			cr_assert_geq(a->took_ns[i], LIMIT_MS * NS_PER_MS, "request %u: before its time", i);
			/* a server that hangs is asked for 2 s before it is known to be away, and so is the next */
			cr_assert_leq(a->took_ns[i], (LIMIT_MS + 3000) * NS_PER_MS, "request %u: late", i);
		}
		if (killed)
			server_begin(a);
		else
			sim_resume(a->server_env);
		volume_rig_run(&a->g, after_body);
		cr_assert_eq(volume_rig_run(&a->g, close_body), 0);
		cr_assert_eq(volume_rig_open(&a->g), 0, "%s", a->g.report.text);
		away_rig_free(a);
	}
}

static int tell_body(void *arg)
{
	struct away_rig *a = arg;
	struct blk_waits w;
	char text[96];
	cr_assert_eq(volume_set_io_timeout(a->g.volume, 0, &a->g.report), 0);
	cr_assert_eq(volume_wait_tell(a->g.node, &w), false);
	sim_pause(a->server_env);
	for (unsigned i = 0; i < 4; i++)
		fiber_start(&a->g.env->loop, (int (*const[])(void *)){ request_0, request_1, request_2, request_3 }[i], a, NULL);
	fiber_sleep(&a->g.env->loop, 60 * NS_PER_S);
	cr_assert_eq(a->ended, 0, "without a limit one was given up");
	cr_assert(volume_wait_tell(a->g.node, &w));
	blk_waits_text(&w, text, sizeof text);
	cr_assert_str_eq(text, "1 read, 2 writes and 1 flush");
	cr_assert(strstr(w.what, "missing: tcp:s:7000"), "%s", w.what);
	cr_assert(w.oldest_ns && w.oldest_ns <= w.since_ns + NS_PER_S);
	const char *const args[] = { "1000", NULL };
	char *json;
	cr_assert_eq(volume_node_control(a->g.node, "io-timeout", args, &json, &a->g.report), 0, "%s", a->g.report.text);
	fiber_sleep(&a->g.env->loop, 5 * NS_PER_S);
	cr_assert_eq(a->ended, 4, "a new limit doesn't hold for what waits already");
	sim_resume(a->server_env);
	fiber_sleep(&a->g.env->loop, 5 * NS_PER_S); /* until it was reached again, which may take longer than the limit */
	return put(a, 5, 0, BLOCK_BYTES, 6);
}

Test(volume_wait, tells_who_waits_for_what_and_follows_the_limit)
{
	struct away_rig *a = away_rig_make(5);
	cr_assert_eq(volume_rig_run(&a->g, begin_body), 0);
	cr_assert_eq(volume_rig_run(&a->g, tell_body), 0);
	away_rig_free(a);
}

Test(volume_wait, times)
{
	static const struct { const char *text; int status; uint32_t ms; } cases[] = {
		{ "forever", 0, 0 }, { "1s", 0, 1000 }, { "1500ms", 0, 1500 }, { "7d", 0, 604800000 }, { "5m", 0, 300000 }, { "2h", 0, 7200000 },
		{ "8d", -EINVAL, 0 }, { "999ms", -EINVAL, 0 }, { "0", -EINVAL, 0 }, { "0s", -EINVAL, 0 }, { "10", -EINVAL, 0 }, { "", -EINVAL, 0 },
		{ "-5s", -EINVAL, 0 }, { "5 s", -EINVAL, 0 }, { "99999999999d", -EINVAL, 0 }, { "5sec", -EINVAL, 0 }, { " 5s", -EINVAL, 0 },
	};
	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct report report = { "" };
		uint32_t ms = 1;
		cr_assert_eq(store_parse_io_timeout(cases[i].text, &ms, &report), cases[i].status, "'%s'", cases[i].text);
		cr_assert_eq(ms, cases[i].ms, "'%s'", cases[i].text);
	}
}

/* ---- a server that knows another map of servers for a while ---- */

static bool belongs_soon(const struct server_rules *r, uint64_t segment)
{
	static unsigned asked;
	(void)r;
	return segment > 0 && ++asked > 3;
}

Test(volume_wait, a_volume_is_opened_while_the_map_of_servers_changes)
{
	static const struct server_rules rules = { .belongs = belongs_soon };
	struct away_rig *a = away_rig_make(8);
	volume_rig_kill(&a->g);
	server_rules(a->server, &rules);
	volume_rig_begin(&a->g);
	cr_assert_eq(volume_rig_open(&a->g), 0, "%s", a->g.report.text);
	server_rules(a->server, NULL);
	away_rig_free(a);
}
