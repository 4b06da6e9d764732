/* A server beside as many others: its keeper's rounds, and the manager's, when nothing is to be done; and a round of gc over its copies. The others answer at once, and
 * have of what is here, a directory with copies, what belongs to them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/segment/segment_share.h"
#include "server/keeper_private.h"
#include "tests/bench/scale/world.h"

enum { COPIES = 2000, REPLICAS = 3, IDLE_SECONDS = 640 /* two of the rounds in which all are asked */, SAMPLE_SECONDS = 10, SIZE_BLOCKS = 16, FIRST_ID = 1 << 20 };

struct place {
	struct scale_world w;
	const struct scale *s;
	unsigned servers;
	struct segment_server *dir;
	struct other *others; /* by their numbers among the keeper's peers */
	struct share_entry *entries; /* of the copies */
	uint64_t list_bytes;
	struct server *server;
	struct keeper *keeper;
	unsigned lists, status;
	double peers; /* that it is connected with, on average */
};

/* ---- the others ---- */

struct other {
	struct segment_server server; /* first */
	struct place *place;
};

static bool is_targets(const struct placement *map, uint64_t segment, const uuid *server)
{
	const struct placement_group *g = placement_group_of(map, segment);
	for (unsigned i = 0; i < MIN((unsigned)g->target_count, (unsigned)REPLICAS); i++)
		if (memcmp(&map->servers[g->target[i]].id, server, sizeof *server) == 0)
			return true;
	return false;
}

static void other_list(struct place *p, const uuid *server, struct segment_io *io)
{
	const struct placement *map = &p->keeper->copies->map;
	uint8_t *page = io->iov[0].iov_base;
	p->lists++;
	if (io->changed) {
		memset(io->changed, 0, SEGMENT_GROUPS_BYTES);
		io->index = io->change = 1;
	}
	for (unsigned i = 0; i < COPIES && io->filled + SHARE_ENTRY_BYTES <= SHARE_LIST_BYTES; i++) {
		uint64_t id = p->entries[i].header.segment;
		unsigned g = placement_group_number(io->group_count, id);
		if (id <= io->segment || !(io->groups[g / 8] >> g % 8 & 1) || !is_targets(map, id, server))
			continue;
		share_entry_encode(&p->entries[i], page + io->filled);
		io->filled += SHARE_ENTRY_BYTES;
		io->next = i + 1 < COPIES ? id : 0;
	}
	p->list_bytes += io->filled;
	io->next = io->filled + SHARE_ENTRY_BYTES > SHARE_LIST_BYTES ? io->next : 0;
}

static void other_submit(struct segment_server *server, struct segment_io *io)
{
	struct other *o = container_of(server, struct other, server);
	io->filled = 0;
	io->next = 0;
	io->state = COPY_ABSENT;
	io->status = 0;
	if (io->op == SEGMENT_LIST)
		other_list(o->place, &server->id, io);
	job_put(io->parent, 0);
}

static int other_close(struct segment_server *server)
{
	(void)server;
	return 0;
}

static const struct segment_server_ops other_ops = { .submit = other_submit, .close = other_close };

static void let_others_answer(struct place *p)
{
	struct copies *c = p->keeper->copies;
	p->others = calloc(c->count, sizeof *p->others);
	for (unsigned i = 0; i < c->count; i++) {
		p->others[i] = (struct other){ .server = { .ops = &other_ops, .env = p->w.env, .id = c->peers[i]->id }, .place = p };
		if (memcmp(&c->peers[i]->id, &p->dir->id, sizeof(uuid)) != 0)
			c->peers[i]->server = &p->others[i].server;
	}
}

static void let_others_go(struct place *p)
{
	struct copies *c = p->keeper->copies;
	for (unsigned i = 0; i < c->count; i++)
		if (c->peers[i]->server && c->peers[i]->server->ops == &other_ops)
			c->peers[i]->server = NULL;
}

/* ---- this one ---- */

/* A sealed copy of a segment that volume `volume` doesn't list any more: its id isn't above what the volume has listed. */
static int make_copy(struct place *p, unsigned n, uint64_t id, uint64_t volume, uint8_t *page)
{
	struct segment_header h = { .segment = id, .volume = scale_volume_uuid(volume), .epoch = 1, .salt = id * 77, .size_blocks = SIZE_BLOCKS };
	struct segment_io io = { .op = SEGMENT_CREATE, .segment = id, .epoch = 1, .header = h };
	int r = segment_wait(p->dir, &io);
	memset(page, 1, 2 * BLOCK_BYTES);
	uint32_t crc = crc32c(0, page + BLOCK_BYTES, BLOCK_BYTES);
	struct record_entry e = { .first = 0, .count = 1 };
	struct record rec = { .kind = RECORD_DATA, .segment = id, .block = 1, .epoch = 1, .seq = 1, .salt = h.salt, .payload_blocks = 1, .entry_count = 1, .entries = &e,
			      .crcs = &crc };
	record_encode(&rec, page);
	struct iovec v = { page, 2 * BLOCK_BYTES };
	io = (struct segment_io){ .op = SEGMENT_APPEND, .segment = id, .epoch = 1, .incarnation = p->dir->incarnation, .block = 1, .blocks = 2, .iov = &v, .iov_count = 1 };
	r = r ? r : segment_wait(p->dir, &io);
	io = (struct segment_io){ .op = SEGMENT_SEAL, .segment = id, .epoch = 1, .block = 3, .crc = rec.header_crc };
	p->entries[n] = (struct share_entry){ .header = h, .sealed = true, .whole = true, .length = 3, .prev = rec.header_crc, .last_seq = 1, .present = 3 };
	return r ? r : segment_wait(p->dir, &io);
}

/* The map with this server as its first. The copies are of segments that belong here. */
static struct placement *put_map(struct place *p)
{
	struct placed_server *list = calloc(p->servers, sizeof *list);
	struct placement *map = calloc(1, sizeof *map);
	char key[META_KEY_BYTES];
	size_t n;
	scale_servers(list, p->servers, 1);
	list[0].id = p->dir->id;
	placement_change(map, list, p->servers, true);
	for (unsigned i = 1; i < p->servers; i++) { /* without an address: nobody tries to connect to them */
		struct meta_server m = { .incarnation = 1 };
		uint8_t *bytes = meta_server_encode(&m, &n);
		meta_key_server(&list[i].id, key);
		scale_put(p->w.below, key, bytes, n);
		free(bytes);
	}
	uint8_t *bytes = placement_encode(map, &n);
	scale_put(p->w.below, PLACEMENT_KEY, bytes, n);
	free(bytes);
	free(list);
	return map;
}

static bool belongs(const struct placement *map, uint64_t id)
{
	const struct placement_group *g = placement_group_of(map, id);
	for (unsigned i = 0; i < g->target_count; i++)
		if (g->target[i] == 0)
			return true;
	return false;
}

static int begin(void *arg)
{
	struct place *p = arg;
	struct segment_dir_options how = { .create = true, .address = "tcp:host:7000", .domain = "rack0" };
	struct server_limits limits = { 0 };
	struct keeper_options keeps = { .gc_first_ns = 1000 * KEEPER_GC_NS };
	struct report report = { "" };
	struct listener *l;
	uint8_t *page = env_alloc_aligned(2 * BLOCK_BYTES);
	int r = segment_dir_open(p->w.env, "/data", p->w.below, &how, &p->dir, &report);
	struct placement *map = put_map(p);
	for (uint64_t i = 0, id = FIRST_ID; r == 0 && i < COPIES; id++) /* ids that no volume's log lists */
		if (belongs(map, id))
			r = make_copy(p, (unsigned)i, id, 1 + i % p->s->volumes, page), i++;
	free(page);
	free(map);
	if (r == 0)
		r = stream_listen(p->w.env, how.address, &l);
	if (r == 0)
		r = server_start(p->w.env, l, p->dir, &limits, &p->server);
	if (r < 0)
		scale_fail("a server doesn't start: %s", report_text(&report, r));
	p->w.meter = (struct meter){ 0 };
	r = keeper_start(p->w.env, p->w.catalog, p->dir, p->server, &keeps, &p->keeper, &report);
	if (r < 0)
		scale_fail("a keeper doesn't start: %s", report_text(&report, r));
	let_others_answer(p);
	return 0;
}

static int end(void *arg)
{
	struct place *p = arg;
	let_others_go(p);
	keeper_stop(p->keeper);
	server_stop(p->server, NS_PER_S);
	return segment_server_close(p->dir);
}

static int somebody_else_manages(void *arg)
{
	struct place *p = arg;
	uuid other = { { 1 } };
	scale_put(p->w.below, META_MANAGER, other.bytes, sizeof other.bytes);
	return 0;
}

/* ---- what it does ---- */

/* Whom it would be connected with now: those that it needed lately. */
static unsigned reached(const struct place *p)
{
	const struct copies *c = p->keeper->copies;
	unsigned n = 0;
	for (unsigned i = 0; i < c->count; i++)
		n += c->peers[i]->used_ns && sim_now_ns(p->w.sim) - c->peers[i]->used_ns < COPIES_IDLE_NS;
	return n;
}

static struct traffic idle(struct place *p, const char *what)
{
	double peers = 0;
	step_for(p->w.sim, 60 * NS_PER_S);
	struct meter then = p->w.meter;
	unsigned lists = p->lists;
	uint64_t list_bytes = p->list_bytes;
	double cpu = cpu_now();
	for (unsigned i = 0; i < IDLE_SECONDS; i += SAMPLE_SECONDS) {
		step_for(p->w.sim, SAMPLE_SECONDS * NS_PER_S);
		peers += (double)reached(p) * SAMPLE_SECONDS / IDLE_SECONDS;
	}
	p->peers = peers;
	struct traffic t = meter_since(&then, &p->w.meter, IDLE_SECONDS);
	printf("%6u %-20s %8.2f %8.2f %8.2f %8.2f %8.2f %8u %12.0f %8.1f %8.0f %8.2f %8.0f\n", p->servers, what, t.gets, t.compares, t.puts, t.pages, t.beats, t.watches, t.bytes_read,
	       (double)(p->lists - lists) / IDLE_SECONDS, (double)(p->list_bytes - list_bytes) / IDLE_SECONDS, (cpu_now() - cpu) / IDLE_SECONDS * 1e3, peers);
	return t;
}

static void collect(struct place *p, struct scale *s)
{
	struct meter then = p->w.meter;
	size_t heap = heap_now();
	double cpu = cpu_now();
	uint64_t want = keeper_gc(p->keeper);
	p->w.meter.heap_most = 0;
	while (keeper_status(p->keeper)->gc_rounds < want)
		if (!sim_step(p->w.sim))
			scale_fail("gc waits for something that will not happen");
	const struct keeper_status *k = keeper_status(p->keeper);
	if (k->gc_failed || k->gc_freed != COPIES)
		scale_fail("gc failed, or freed %llu of %d copies", (unsigned long long)k->gc_freed, COPIES);
	s->gc = meter_since(&then, &p->w.meter, (double)KEEPER_GC_NS / (double)NS_PER_S);
	printf("   gc of %d copies of %u volumes, all freed: %llu gets, %llu pages, %.1f MiB read, %.0f ms CPU, %.1f MiB at most\n", COPIES, MIN((unsigned)COPIES, s->volumes),
	       (unsigned long long)(p->w.meter.gets - then.gets), (unsigned long long)(p->w.meter.pages - then.pages),
	       (double)(p->w.meter.bytes_read - then.bytes_read) / (1 << 20), (cpu_now() - cpu) * 1e3, (double)(p->w.meter.heap_most - heap) / (1 << 20));
}

static void run(struct scale *s, unsigned servers, bool largest)
{
	struct place *p = calloc(1, sizeof *p);
	p->s = s;
	p->servers = servers;
	p->entries = calloc(COPIES, sizeof *p->entries);
	scale_world_begin(&p->w);
	scale_world_fill(&p->w, s, /* whole= */ false);
	sim_run_fiber(p->w.env, begin, p);
	struct traffic manager = idle(p, "the manager");
	sim_run_fiber(p->w.env, somebody_else_manages, p);
	struct traffic keeper = idle(p, "any other");
	if (largest) {
		s->manager = manager;
		s->keeper = keeper;
		s->reach_keeper = p->peers;
		collect(p, s);
	}
	sim_run_fiber(p->w.env, end, p);
	scale_world_end(&p->w);
	free(p->others);
	free(p->entries);
	free(p);
}

void scale_keepers(struct scale *s)
{
	printf("%6s %-20s %8s %8s %8s %8s %8s %8s %12s %8s %8s %8s %8s\n", "", "a second", "gets", "compares", "puts", "pages", "beats", "watches", "bytes read", "lists", "of bytes", "ms CPU",
	       "peers");
	run(s, 4, /* largest= */ false);
	run(s, 100, /* largest= */ false);
	run(s, s->servers, /* largest= */ true);
}
