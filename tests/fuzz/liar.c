/* An honest block server, which rebuilds, scrubs and manages, and its only peer, who lies (tests/unit/liar.h) as the input says: a byte for each of his
 * answers, and the rest for what he says then. A command asks both how they do. What must hold: all of it ends, nothing is allocated beyond
 * limits, and what the honest one has stays as it was. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/store/store_private.h"
#include "parallax/store/store_scrub.h"
#include "server/keeper.h"
#include "server/scrub.h"
#include "tests/sim/catalog_sim.h"
#include "tests/unit/liar.h"

enum { SIZE = 16, COPIES = 6 };

struct world {
	struct sim *sim;
	struct env *honest, *lies;
	struct catalog *honest_catalog, *liar_catalog;
	struct liar liar;
	struct segment_server *dir;
	struct server *server;
	struct keeper *keeper;
	struct scrub *scrub;
	const uint8_t *input, *end;
	uint32_t crcs[COPIES + 1][3];
};

static uint8_t *page;

static uint8_t next(struct world *w) { return w->input < w->end ? *w->input++ : 0; }

static enum lie choose(void *arg, uint32_t method)
{
	(void)method;
	enum lie lie = (enum lie)(next(arg) % (LIE_KINDS + 4));
	return lie < LIE_KINDS ? lie : LIE_NONE;
}

static uint64_t draw(void *arg)
{
	uint64_t n = 0;
	for (unsigned i = 0; i < 8; i++)
		n = n << 8 | next(arg);
	return n;
}

/* A sealed copy of three blocks. */
static void make_copy(struct world *w, struct segment_server *s, uint64_t id, uint32_t *ret_crcs)
{
	struct segment_header h = { .segment = id, .volume = { "v" }, .epoch = 5, .salt = id, .size_blocks = SIZE };
	uint32_t crc;
	struct record_entry e = { .first = id, .count = 1 };
	memset(page + BLOCK_BYTES, (int)id, BLOCK_BYTES);
	crc = crc32c(0, page + BLOCK_BYTES, BLOCK_BYTES);
	struct record r = { .kind = RECORD_DATA, .segment = id, .block = 1, .epoch = 5, .seq = 1, .salt = id, .payload_blocks = 1, .entry_count = 1, .entries = &e, .crcs = &crc };
	record_encode(&r, page);
	struct iovec v = { page, 2 * BLOCK_BYTES };
	struct segment_io ios[] = {
		{ .op = SEGMENT_CREATE, .segment = id, .epoch = 5, .header = h },
		{ .op = SEGMENT_APPEND, .segment = id, .epoch = 5, .incarnation = s->incarnation, .block = 1, .blocks = 2, .iov = &v, .iov_count = 1 },
		{ .op = SEGMENT_SEAL, .segment = id, .epoch = 5, .block = 3, .crc = r.header_crc },
	};
	for (unsigned i = 0; i < 3; i++)
		if (segment_wait(s, &ios[i]) < 0)
			abort();
	(void)w;
	if (!ret_crcs)
		return;
	segment_header_encode(&h, page + 2 * BLOCK_BYTES);
	ret_crcs[0] = crc32c(0, page + 2 * BLOCK_BYTES, BLOCK_BYTES);
	ret_crcs[1] = crc32c(0, page, BLOCK_BYTES);
	ret_crcs[2] = crc;
}

static int begin_liar(void *arg)
{
	struct world *w = arg;
	int r = liar_start(&w->liar, w->lies, w->liar_catalog, "/data", "tcp:liar:1", "liar");
	for (uint64_t id = COPIES / 2; r == 0 && id <= 2 * COPIES; id++)
		make_copy(w, w->liar.dir, id, NULL);
	return r;
}

static int end_liar(void *arg)
{
	liar_stop(&((struct world *)arg)->liar);
	return 0;
}

static int begin_honest(struct world *w)
{
	struct segment_dir_options o = { .create = true, .address = "tcp:honest:1", .domain = "honest" };
	struct server_limits limits = { 0 };
	struct keeper_options keeps = { .round_ns = NS_PER_S, .manager_ns = NS_PER_S };
	struct scrub_options scrubs = { .directory = "/data", .period_ns = 3600 * NS_PER_S };
	struct placed_server placed = { .weight = 1, .domain = "honest" };
	struct listener *l;
	int r = segment_dir_open(w->honest, "/data", w->honest_catalog, &o, &w->dir, NULL);
	for (uint64_t id = 1; r == 0 && id <= COPIES; id++)
		make_copy(w, w->dir, id, w->crcs[id]);
	if (r == 0)
		r = stream_listen(w->honest, "tcp:honest:1", &l);
	if (r == 0)
		r = server_start(w->honest, l, w->dir, &limits, &w->server);
	placed.id = w->dir->id;
	if (r == 0)
		r = placement_join(w->honest_catalog, &placed, NULL);
	if (r == 0)
		r = keeper_start(w->honest, w->honest_catalog, w->dir, w->server, &keeps, &w->keeper, NULL);
	return r ? r : scrub_start(w->honest, w->honest_catalog, w->dir, w->server, &scrubs, &w->scrub);
}

/* What the command line asks. */
static void look(struct world *w)
{
	struct copies *c;
	if (copies_open(w->honest, w->honest_catalog, &c, NULL) < 0)
		abort();
	copies_await(c, NULL);
	for (unsigned i = 0; i < c->count; i++) {
		struct store_server_work work;
		char id[33];
		for (unsigned k = 0; k < 16; k++)
			snprintf(id + 2 * k, 3, "%02x", c->peers[i]->id.bytes[k]);
		store_server_ask(c, id, &work);
		for (const char *p = work.software; *p; p++)
			assert(*p >= ' ' && *p < 127);
	}
	copies_close(c);
}

static void check(struct world *w)
{
	for (uint64_t id = 1; id <= COPIES; id++)
		for (uint32_t b = 0; b < 3; b++) {
			struct iovec v = { page, BLOCK_BYTES };
			struct segment_io io = { .op = SEGMENT_READ, .segment = id, .block = b, .blocks = 1, .iov = &v, .iov_count = 1 };
			int r = segment_wait(w->dir, &io); /* it may be gone: misplaced; and a block free, if the liar says so of a copy that both have */
			assert(r == -ENOENT || r == -ENODATA || (r == 0 && crc32c(0, page, BLOCK_BYTES) == w->crcs[id][b]));
		}
}

static int live(void *arg)
{
	struct world *w = arg;
	if (begin_honest(w) < 0)
		abort();
	for (unsigned i = 0; i < 4 && w->input < w->end; i++) {
		keeper_hurry(w->keeper);
		fiber_sleep(&w->honest->loop, 3 * NS_PER_S);
		look(w);
	}
	scrub_stop(w->scrub);
	keeper_stop(w->keeper);
	server_stop(w->server, NS_PER_S);
	check(w);
	return segment_server_close(w->dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world w = { .sim = sim_create(1, NULL), .input = data, .end = data + MIN(size, (size_t)2000) };
	struct catalog_sim *catalogs = catalog_sim_create(w.sim);
	if (!page)
		page = env_alloc_aligned(4 * BLOCK_BYTES);
	w.honest = sim_process_create(w.sim, sim_host_create(w.sim, "honest", 64 << 20, 4096));
	w.lies = sim_process_create(w.sim, sim_host_create(w.sim, "liar", 64 << 20, 4096));
	w.honest_catalog = catalog_sim_open(catalogs, w.honest);
	w.liar_catalog = catalog_sim_open(catalogs, w.lies);
	w.liar = (struct liar){ .choose = choose, .draw = draw, .arg = &w };
	if (sim_run_fiber(w.lies, begin_liar, &w) < 0 || sim_run_fiber(w.honest, live, &w) < 0)
		abort();
	w.end = w.input; /* he tells the truth at last */
	sim_run_fiber(w.lies, end_liar, &w);
	catalog_close(w.honest_catalog);
	catalog_close(w.liar_catalog);
	sim_process_destroy(w.honest);
	sim_process_destroy(w.lies);
	catalog_sim_destroy(catalogs);
	sim_destroy(w.sim);
	return 0;
}
