/* A whole block server in the simulated world (directory, rebuilding, scrubbing, a catalog), and a client that says anything: every
 * method, with lengths, epochs, incarnations, ids and bytes as the input wants them, many of them nearly right. What must hold:
 * the server lives, each call ends, and it does as segment.h says (a small model follows): nothing is appended by who is fenced, nor where the copy
 * doesn't end; what is read is what was appended, sealed is what was there.
 *
 * Input: 8 bytes for each call: method, segment, epoch, place, and four that say how it is wrong. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/env_sim.h"
#include "core/fiber.h"
#include "parallax/segment/placement.h"
#include "parallax/segment/segment_share.h"
#include "parallax/segment/segment_wire.h"
#include "server/keeper.h"
#include "server/scrub.h"
#include "tests/sim/catalog_sim.h"

#define METHOD(name) AQUIFER__SEGMENT__METHOD__##name
#define ADDRESS "tcp:h:7000"
enum { SEGMENTS = 3, SIZE = 24, EPOCH = 5, CALLS_MAX = 64, ROOM = 5 << 20 };

/* What a copy must be; `lost`: something was done that isn't followed here. */
struct model {
	bool lost, exists, sealed;
	uint64_t fenced;
	uint32_t length, crc[SIZE];
	uint32_t chain[SIZE + 1]; /* header CRC of the record that ends there */
	uint64_t seq[SIZE + 1];
	bool ends[SIZE + 1];
};

struct world {
	struct sim *sim;
	struct env *env;
	struct catalog *catalog;
	struct segment_server *dir;
	struct server *server;
	struct keeper *keeper;
	struct scrub *scrub;
	struct rpc_client *client;
	struct model models[SEGMENTS + 1];
	const uint8_t *input;
	size_t length;
};

static uint8_t *page, *answer; /* ROOM each */

struct asked {
	uint32_t method;
	uint64_t segment;
	struct model *m;          /* NULL: of none that is followed */
	Aquifer__Segment__Request q;
	Aquifer__Segment__Header h;
	uint8_t volume[17], bits[64], groups[PLACEMENT_GROUPS_MIN / 8 + 1];
	uint32_t payload, room;
	bool next;                /* the payload is what belongs at `block` */
};

/* ---- what is asked ---- */

/* A record of two blocks that continues the copy at `block`. */
static void make_record(const struct model *m, uint64_t segment, uint32_t block, uint8_t fill)
{
	uint32_t crc;
	struct record_entry e = { .first = fill, .count = 1 };
	memset(page + BLOCK_BYTES, fill, BLOCK_BYTES);
	crc = crc32c(0, page + BLOCK_BYTES, BLOCK_BYTES);
	struct record r = { .kind = RECORD_DATA, .segment = segment, .block = block, .epoch = EPOCH, .seq = block <= SIZE ? m->seq[block] + 1 : 1,
			    .salt = segment, .prev = block <= SIZE ? m->chain[block] : 0, .payload_blocks = 1, .entry_count = 1, .entries = &e, .crcs = &crc };
	record_encode(&r, page);
}

static void fill_create(struct asked *a, const uint8_t *b)
{
	static const uint32_t sizes[] = { SIZE, SIZE, SIZE, SIZE, 2, 1, 0, SEGMENT_BLOCKS_MAX, SEGMENT_BLOCKS_MAX + 1, UINT32_MAX };
	aquifer__segment__header__init(&a->h);
	memset(a->volume, 'v', sizeof a->volume);
	a->h.volume = (ProtobufCBinaryData){ b[4] < 240 ? 16 : b[4] % 18, a->volume };
	a->h.epoch = b[5] < 240 ? EPOCH : b[5];
	a->h.salt = b[6] < 240 ? a->q.segment : b[6];
	a->h.size_blocks = sizes[b[7] % ARRAY_COUNT(sizes)];
	a->q.header = b[4] == 255 ? NULL : &a->h;
	a->q.reserve = b[7] & 64;
}

static void fill_blocks(struct world *w, struct asked *a, const uint8_t *b)
{
	static const uint32_t places[] = { 0, 1, 2, 5, SIZE - 1, SIZE, SIZE + 1, SEGMENT_BLOCKS_MAX - 1, SEGMENT_BLOCKS_MAX, UINT32_MAX };
	static const uint32_t counts[] = { 1, 2, 3, SIZE, 0, RECORD_BLOCKS_MAX, RECORD_BLOCKS_MAX + 1, SEGMENT_BLOCKS_MAX, UINT32_MAX, SHARE_FETCH_MAX };
	static const uint64_t incarnations[] = { 0, 1, UINT64_MAX };
	a->q.block = a->m && b[3] < 128 ? a->m->length : places[b[3] % ARRAY_COUNT(places)];
	a->q.blocks = counts[b[4] % ARRAY_COUNT(counts)];
	a->q.incarnation = b[5] < 200 ? w->dir->incarnation : incarnations[b[5] % ARRAY_COUNT(incarnations)];
	a->q.crc = a->m && a->q.block <= SIZE && b[6] < 200 ? a->m->chain[a->q.block] : b[6];
	a->q.map = b[6] & 3;
	a->q.pack = b[7] & 1;
	a->q.want_trim = b[7] & 2;
	bool sends = a->method == METHOD(APPEND) || a->method == METHOD(REPAIR);
	if (!sends)
		return;
	a->next = b[7] < 200 && a->m && a->q.block <= SIZE;
	if (a->next)
		make_record(a->m, a->q.segment, a->q.block, b[6]);
	else
		memset(page, b[7], 2 * BLOCK_BYTES);
	a->q.blocks = b[4] < 200 ? 2 : a->q.blocks;
	a->payload = MIN(a->q.blocks, RECORD_BLOCKS_MAX) * BLOCK_BYTES;
	if (b[5] >= 200 && b[5] < 240)
		a->payload = a->payload + b[5] - 220;
	a->payload = MIN(a->payload, (uint32_t)RPC_PAYLOAD_MAX);
	a->next &= a->payload == 2 * BLOCK_BYTES;
}

static void fill_bits(struct asked *a, const uint8_t *b)
{
	memset(a->bits, 0, sizeof a->bits);
	a->bits[b[4] % 3] = b[5];
	a->q.trim = (ProtobufCBinaryData){ a->method == METHOD(TRIM) && b[6] < 200 ? div_up(MIN(a->q.blocks, 8u * sizeof a->bits), 8) : b[6] % sizeof a->bits, a->bits };
	memset(a->groups, b[5], sizeof a->groups);
	a->q.groups = (ProtobufCBinaryData){ b[6] < 200 ? (b[7] & 1) * PLACEMENT_GROUPS_MIN / 8 : b[6] % sizeof a->groups, a->groups };
}

static void fill(struct world *w, struct asked *a, const uint8_t *b)
{
	static const uint32_t methods[] = { METHOD(CREATE), METHOD(APPEND), METHOD(READ), METHOD(SYNC), METHOD(FENCE), METHOD(SEAL), METHOD(REPAIR),
		METHOD(DELETE), METHOD(STAT), METHOD(TRIM), METHOD(LIST), METHOD(FETCH), METHOD(HOLDS), METHOD(STATUS), METHOD(GC), METHOD(SCRUB), METHOD(INFO),
		METHOD(APPEND), METHOD(APPEND), METHOD(NONE), 17, UINT32_MAX };
	static const uint64_t odd[] = { 0, UINT64_C(1) << 48, (UINT64_C(1) << 48) - 1, UINT64_MAX }, epochs[] = { EPOCH - 1, EPOCH + 1, 0, UINT64_MAX };
	*a = (struct asked){ .method = methods[b[0] % ARRAY_COUNT(methods)] };
	aquifer__segment__request__init(&a->q);
	a->q.segment = b[1] < 240 ? 1 + (uint64_t)b[1] % SEGMENTS : odd[b[1] % ARRAY_COUNT(odd)];
	a->m = a->q.segment >= 1 && a->q.segment <= SEGMENTS ? &w->models[a->q.segment] : NULL;
	a->q.epoch = b[2] < 200 ? EPOCH : epochs[b[2] % ARRAY_COUNT(epochs)];
	if (a->method == METHOD(CREATE))
		fill_create(a, b);
	else
		fill_blocks(w, a, b);
	fill_bits(a, b);
	struct segment_io io = { .blocks = a->q.blocks };
	if (segment_wire_op(a->method, &io.op) == 0)
		a->room = (uint32_t)MIN(io.op == SEGMENT_READ ? (uint64_t)a->q.blocks * BLOCK_BYTES : share_room(&io), (uint64_t)RPC_PAYLOAD_MAX);
	if (b[2] >= 250)
		a->room = b[3] * 100u;
}

/* ---- what must be true then ---- */

static void append_done(struct world *w, struct asked *a)
{
	struct model *m = a->m;
	uint32_t block = a->q.block, blocks = a->payload / BLOCK_BYTES;
	if (a->method == METHOD(APPEND))
		assert(m->exists && !m->sealed && a->q.epoch == EPOCH && m->fenced <= EPOCH && a->q.incarnation == w->dir->incarnation && block <= m->length && blocks);
	else
		assert(m->exists && !m->sealed && a->q.epoch == m->fenced && block <= m->length);
	if (blocks == 0)
		return;
	if (a->method == METHOD(REPAIR) && !(a->next && block == m->length)) {
		m->lost = true; /* whatever it was, the next scan says what it amounts to */
		return;
	}
	if (block < m->length) { /* said again */
		assert(crc32c(0, page, BLOCK_BYTES) == m->crc[block]);
		return;
	}
	assert(a->next && block + 2 <= SIZE);
	for (uint32_t i = 0; i < 2; i++)
		m->crc[block + i] = crc32c(0, page + i * BLOCK_BYTES, BLOCK_BYTES);
	struct segment_header h = { .segment = a->q.segment, .epoch = EPOCH, .salt = a->q.segment, .size_blocks = SIZE };
	struct record r;
	memset(h.volume.bytes, 'v', sizeof h.volume.bytes);
	if (record_decode(page, 2 * BLOCK_BYTES, &h, block, &r) < 0)
		abort();
	m->length = block + 2;
	m->ends[m->length] = true;
	m->chain[m->length] = r.header_crc;
	m->seq[m->length] = r.seq;
}

static void create_done(struct asked *a)
{
	struct model *m = a->m;
	uint8_t block[BLOCK_BYTES];
	bool usual = a->h.epoch == EPOCH && a->h.salt == a->q.segment && a->h.size_blocks == SIZE;
	assert(a->q.header && a->h.volume.len == 16 && a->h.size_blocks >= 2 && a->h.size_blocks <= SEGMENT_BLOCKS_MAX);
	if (m->exists) {
		assert(usual);
		return;
	}
	assert(m->fenced <= MAX(a->q.epoch, a->h.epoch));
	if (!usual) {
		m->lost = true;
		return;
	}
	struct segment_header h = { .segment = a->q.segment, .epoch = EPOCH, .salt = a->q.segment, .size_blocks = SIZE };
	memset(h.volume.bytes, 'v', sizeof h.volume.bytes);
	segment_header_encode(&h, block);
	*m = (struct model){ .exists = true, .fenced = m->fenced, .length = 1 };
	m->crc[0] = crc32c(0, block, BLOCK_BYTES);
	m->ends[1] = true;
}

static void read_done(const struct asked *a, const struct rpc_call *c)
{
	const struct model *m = a->m;
	assert(m->exists && c->reply_payload_bytes == (uint64_t)a->q.blocks * BLOCK_BYTES);
	for (uint32_t i = 0; i < a->q.blocks && a->q.block + i < m->length; i++)
		assert(crc32c(0, answer + (size_t)i * BLOCK_BYTES, BLOCK_BYTES) == m->crc[a->q.block + i]);
}

static void fetch_done(const struct asked *a, const struct rpc_call *c)
{
	const struct model *m = a->m;
	uint32_t count;
	assert(m->exists && m->sealed && share_page_check(answer, c->reply_payload_bytes, a->q.block, m->length, &count) == 0 && count <= a->q.blocks);
	for (uint32_t i = 0; i < count; i++)
		assert(share_head_crc(answer, i) == m->crc[share_head_block(answer, i)]);
}

static void seal_done(struct asked *a)
{
	struct model *m = a->m;
	assert(m->exists && a->q.epoch >= m->fenced && a->q.block <= m->length && m->ends[a->q.block] && m->chain[a->q.block] == a->q.crc);
	assert(!m->sealed || m->length == a->q.block);
	m->sealed = true;
	m->length = a->q.block;
}

static void fence_done(struct asked *a, const Aquifer__Segment__Reply *r)
{
	struct model *m = a->m;
	assert(a->q.epoch >= m->fenced);
	m->fenced = a->q.epoch;
	assert(!m->exists || r->length == m->length);
}

/* LIST: of any segments. */
static void list_done(const struct rpc_call *c)
{
	uint64_t last = 0;
	assert(c->reply_payload_bytes % SHARE_ENTRY_BYTES == 0);
	for (uint64_t at = 0; at < c->reply_payload_bytes; at += SHARE_ENTRY_BYTES) {
		struct share_entry e;
		int r = share_entry_decode(answer + at, &e);
		assert(r == 0 && e.header.segment > last);
		last = e.header.segment;
	}
}

static void followed(struct world *w, struct asked *a, const struct rpc_call *c)
{
	switch (a->method) {
	case METHOD(CREATE): create_done(a); break;
	case METHOD(APPEND):
	case METHOD(REPAIR): append_done(w, a); break;
	case METHOD(READ): read_done(a, c); break;
	case METHOD(SYNC): assert(a->m->exists && a->q.epoch >= a->m->fenced && a->q.block <= a->m->length); break;
	case METHOD(SEAL): seal_done(a); break;
	case METHOD(FENCE): fence_done(a, (const Aquifer__Segment__Reply *)c->reply); break;
	case METHOD(FETCH): fetch_done(a, c); break;
	case METHOD(DELETE): *a->m = (struct model){ 0 }; break;
	case METHOD(HOLDS): assert(a->m->sealed && a->q.block == a->m->length); break;
	default: break;
	}
}

static void check(struct world *w, struct asked *a, const struct rpc_call *c)
{
	if (c->status == 0 && a->method == METHOD(LIST))
		list_done(c);
	if (c->status == 0 && a->method == METHOD(GC))
		for (unsigned i = 1; i <= SEGMENTS; i++)
			w->models[i].lost = true; /* whose volume isn't in the catalog may go */
	if (!a->m)
		return;
	if (c->status == 0 && a->method == METHOD(DELETE))
		*a->m = (struct model){ .lost = a->m->lost && w->keeper };
	else if (!a->m->lost && c->status == 0)
		followed(w, a, c);
	else if (c->status == -ENOTCONN || c->status == -ETIMEDOUT || c->status == -ENOSPC || c->status == -EMSGSIZE)
		a->m->lost |= c->status != -ENOSPC && c->status != -EMSGSIZE;
}

static void ask(struct world *w, const uint8_t *b)
{
	struct asked a;
	struct rpc_call c;
	fill(w, &a, b);
	Aquifer__Segment__ScrubRequest s = AQUIFER__SEGMENT__SCRUB_REQUEST__INIT;
	s.begin = b[3] & 1;
	if (b[6] & 1) { /* what a reader found */
		s.segment = a.q.segment;
		s.block = a.q.block;
		s.blocks = b[6] < 200 ? b[6] : a.q.blocks;
	}
	s.volume = (ProtobufCBinaryData){ b[4] < 200 ? (b[4] & 1) * 16 : b[4] % 18, a.volume };
	bool scrubs = a.method == METHOD(SCRUB) && b[5] < 240;
	struct iovec out = { page, a.payload }, in = { answer, a.room };
	rpc_call_init(&c, a.method, scrubs ? &s.base : &a.q.base,
		      a.method == METHOD(SCRUB) ? &aquifer__segment__scrub__descriptor
		      : a.method == METHOD(INFO) ? &aquifer__segment__info__descriptor
		      : a.method == METHOD(STATUS) || a.method == METHOD(GC) ? &aquifer__segment__status__descriptor : &aquifer__segment__reply__descriptor);
	c.payload = &out;
	c.payload_count = a.payload ? 1 : 0;
	c.reply_payload = &in;
	c.reply_payload_count = a.room ? 1 : 0;
	c.deadline_ns = 60 * NS_PER_S;
	rpc_call_wait(w->client, &c, NULL);
	assert(c.status != -ETIMEDOUT && c.status != -ENOTCONN); /* a request that can be framed is answered */
	assert(c.status < 0 || c.reply);
	check(w, &a, &c);
	rpc_call_clean(&c);
}

/* ---- the world ---- */

static int up(struct world *w)
{
	struct segment_dir_options o = { .create = true, .address = ADDRESS, .domain = "d" };
	struct server_limits limits = { 0 };
	struct keeper_options keeps = { .round_ns = 60 * NS_PER_S };
	struct scrub_options scrubs = { .directory = "/data", .period_ns = 3600 * NS_PER_S };
	struct rpc_client_options client = { .service = SEGMENT_SERVICE };
	struct placed_server placed = { .weight = 1, .domain = "d" };
	struct listener *l;
	int r = segment_dir_open(w->env, "/data", w->catalog, &o, &w->dir, NULL);
	if (r == 0)
		r = stream_listen(w->env, ADDRESS, &l);
	if (r == 0)
		r = server_start(w->env, l, w->dir, &limits, &w->server);
	placed.id = w->dir->id;
	if (r == 0)
		r = placement_join(w->catalog, &placed, NULL);
	if (r == 0)
		r = keeper_start(w->env, w->catalog, w->dir, w->server, &keeps, &w->keeper, NULL);
	if (r == 0)
		r = scrub_start(w->env, w->catalog, w->dir, w->server, &scrubs, &w->scrub);
	return r ? r : rpc_connect(w->env, ADDRESS, &client, &w->client, NULL);
}

static int live(void *arg)
{
	struct world *w = arg;
	if (up(w) < 0)
		abort();
	for (size_t at = 0, n = 0; at + 8 <= w->length && n < CALLS_MAX; at += 8, n++)
		ask(w, w->input + at);
	rpc_close(w->client);
	scrub_stop(w->scrub);
	keeper_stop(w->keeper);
	server_stop(w->server, NS_PER_S);
	return segment_server_close(w->dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world w = { .sim = sim_create(1, NULL), .input = data, .length = size };
	if (!page) {
		page = env_alloc_aligned(ROOM);
		answer = env_alloc_aligned(ROOM);
		memset(page, 0, ROOM);
	}
	struct catalog_sim *catalogs = catalog_sim_create(w.sim);
	w.env = sim_process_create(w.sim, sim_host_create(w.sim, "h", 64 << 20, 4096));
	w.catalog = catalog_sim_open(catalogs, w.env);
	if (sim_run_fiber(w.env, live, &w) < 0)
		abort();
	catalog_close(w.catalog);
	sim_process_destroy(w.env);
	catalog_sim_destroy(catalogs);
	sim_destroy(w.sim);
	return 0;
}
