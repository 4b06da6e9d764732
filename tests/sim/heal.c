#include "tests/sim/heal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/store/store_scrub.h"
#include "parallax/store/wanted.h"
#include "parallax/volume/blob.h"
#include "parallax/volume/volume_private.h"
#include "server/keeper_private.h"
#include "tests/sim/read_repair.h"

enum { HEAL_S = 240 };
#define LATE_NS (12 * NS_PER_S)

struct heal {
	struct scenario_run *run;
	struct sim *sim;
	struct block_server *servers;
	unsigned count, gone, at, drained; /* drained: which, or `count` */
	struct owner o;
	struct owner user;     /* it has "v" attached; its env is NULL: nobody has */
	struct catalog_sim *catalogs;
	struct sim_host *host;
	struct found_list list[16];
	uint64_t fences[16][64]; /* of segments that aren't there */
	unsigned fence_count[16];
	struct placement *map;
	uuid ids[16];          /* before any disk was replaced */
	const uuid *lost;      /* NULL, or another one that an operator removes */
	unsigned removed;      /* bits: an operator removes it */
};

#define FAIL(h, ...) scenario_fail((h)->run, __VA_ARGS__)

static bool runs(const struct heal *h, unsigned server) { return !(h->gone & 1u << server); }

/* ---- the volume that stays attached ---- */

#define IDLE_NS (30 * NS_PER_S)
#define ATTACH_NS (300 * NS_PER_S)

static int user_open(void *arg)
{
	struct heal *h = arg;
	struct report report = { "" };
	struct volume_limits limits = { .cache_bytes = 32 * BLOCK_BYTES, .segment_blocks = 128, .replay_bytes = 256 * BLOCK_BYTES, .checkpoint_ns = NS_PER_S };
	int r = -EAGAIN;
	h->user.accept_flushed = true;
	uint64_t until_ns = env_now_ns(h->user.env) + ATTACH_NS;
	for (unsigned attempt = 0; r < 0 && env_now_ns(h->user.env) < until_ns; attempt++) {
		report.text[0] = '\0';
		if (attempt)
			fiber_sleep(&h->user.env->loop, 100 * NS_PER_MS);
		r = owner_open(&h->user, "v", &limits, /* force= */ true, &report);
	}
	if (r < 0) {
		FAIL(h, "the volume can't be attached: %s", report_text(&report, r));
		return r;
	}
	uint8_t *b = env_alloc_aligned(BLOCK_BYTES);
	memset(b, 1, BLOCK_BYTES);
	for (unsigned n = (unsigned)(sim_random(h->sim) % 4); r == 0 && n > 0; n--)
		r = blk_write_wait(h->user.node, b, BLOCK_BYTES, 0, 0);
	free(b);
	if (r < 0)
		FAIL(h, "the attached volume can't be written: %d", r);
	return r;
}

/* Attached while one of the servers is away; then, or if the others are too few, that is back. */
static void attach(struct heal *h)
{
	struct scenario_task t;
	unsigned late = h->gone || h->removed || h->lost ? h->count : (unsigned)(sim_random(h->sim) % (h->count + 1));
	if (late < h->count) {
		sim_note(h->sim, "%s is away", h->servers[late].domain);
		block_server_end(&h->servers[late], sim_random(h->sim) % 2);
	}
	owner_begin(&h->user, h->sim, h->host, h->catalogs, /* locks= */ false);
	scenario_task_start(&t, h->user.env, user_open, h);
	for (uint64_t until = sim_now_ns(h->sim) + LATE_NS; !t.ended && sim_now_ns(h->sim) < until && sim_step(h->sim);)
		;
	if (late < h->count)
		block_server_begin(&h->servers[late], h->run, h->sim, h->catalogs);
	if (!scenario_step_until(h->run, h->sim, &t.ended, 10000000))
		FAIL(h, "attaching doesn't end");
	if (!t.ended)
		sim_kill(h->user.env);
	while (!t.ended)
		sim_drain_dead(h->user.env);
}

static bool user_alive(void *arg, const struct meta_owner *owner)
{
	const struct heal *h = container_of((struct owner *)arg, struct heal, o);
	return h->user.volume && owner->stamp == h->user.volume->stamp;
}

static void detach(struct heal *h)
{
	if (!h->user.env)
		return;
	int r = sim_run_fiber(h->user.env, owner_close, &h->user);
	if (r < 0)
		FAIL(h, "the attached volume can't be detached: %d", r);
	owner_end(&h->user);
}

static bool user_full(const struct heal *h)
{
	if (!h->user.volume)
		return true;
	const struct volume *v = h->user.volume;
	bool full = !v->log.mending && !v->failed;
	link_for(l, &v->log.segments) {
		const struct log_segment *g = container_of(l, struct log_segment, link);
		unsigned targets = placement_group_of(h->map, g->meta.id)->target_count;
		full &= g->meta.ensemble_count >= MIN(targets, v->meta.replicas);
		for (uint32_t i = 0; i < g->meta.ensemble_count; i++)
			full &= copies_belongs(v->copies, g->meta.id, g->peers[i]);
	}
	return full && v->copies->map.revision == h->map->revision;
}

static void fail_user(struct heal *h)
{
	const struct volume *v = h->user.volume;
	char text[256] = "";
	size_t n = 0;
	link_for(l, &v->log.segments) {
		const struct log_segment *g = container_of(l, struct log_segment, link);
		if (n < sizeof text)
			n += (size_t)snprintf(text + n, sizeof text - n, " %llu:%u%s", (unsigned long long)g->meta.id, g->meta.ensemble_count, g->cut ? " cut" : g->finished ? " finished" : "");
	}
	FAIL(h, "an idle volume's open segments don't get all their copies: map %u of %u, failed %d, mending %d, left %u times:%s", (unsigned)v->copies->map.revision,
	     (unsigned)h->map->revision, v->failed, v->log.mending, (unsigned)v->counters.leaves, text);
}

/* When all is as it should be, an idle volume leaves nothing. */
static void check_rest(struct heal *h)
{
	uint64_t leaves = h->user.volume ? h->user.volume->counters.leaves : 0, until = sim_now_ns(h->sim) + IDLE_NS;
	while (h->user.volume && !h->run->failed && sim_now_ns(h->sim) < until && sim_step(h->sim))
		;
	if (h->user.volume && h->user.volume->counters.leaves > leaves)
		FAIL(h, "an idle volume goes on leaving its segments: %u times, then %u", (unsigned)leaves, (unsigned)(h->user.volume->counters.leaves - leaves));
}

/* ---- settling ---- */

static bool settled(const struct heal *h, const uint64_t *rounds, const uint64_t *gc)
{
	for (unsigned i = 0; i < h->count; i++) {
		const struct keeper_status *s = runs(h, i) ? keeper_status(h->servers[i].keeper) : NULL;
		if (s && (s->rounds < rounds[i] || s->gc_rounds < gc[i] || s->gc_failed || !s->settled || s->map != h->map->revision))
			return false;
	}
	return true;
}

static int read_map(void *arg)
{
	struct heal *h = arg;
	placement_read(h->o.catalog, h->map, NULL);
	return 0;
}

static const struct placed_server *placed(const struct heal *h, const uuid *id)
{
	for (uint32_t i = 0; i < h->map->server_count; i++)
		if (memcmp(&h->map->servers[i].id, id, sizeof *id) == 0)
			return &h->map->servers[i];
	return NULL;
}

/* The map says what operators want, who is gone is lost, and all others are in. */
static bool all_as_said(const struct heal *h)
{
	bool said = !h->lost || !placed(h, h->lost);
	for (unsigned i = 0; i < h->count; i++) {
		const struct placed_server *p = placed(h, &h->ids[i]);
		if (h->removed & 1u << i)
			said &= !p;
		else
			said &= p && p->state == (!runs(h, i) && h->count > 2 ? PLACED_LOST : i == h->drained ? PLACED_DRAINING : PLACED_IN);
	}
	return said;
}

/* gc, then rounds of rebuilding that find nothing, at all of them. */
static void settle(struct heal *h)
{
	uint64_t rounds[16] = { 0 }, gc[16] = { 0 }, begin = sim_now_ns(h->sim);
	for (unsigned i = 0; i < h->count; i++) {
		if (!runs(h, i))
			continue;
		if (!h->servers[i].keeper) {
			FAIL(h, "%s has no keeper", h->servers[i].domain);
			return;
		}
		rounds[i] = keeper_status(h->servers[i].keeper)->rounds + 2;
		gc[i] = keeper_gc(h->servers[i].keeper);
		keeper_hurry(h->servers[i].keeper);
	}
	for (uint64_t look = begin; !h->run->failed && sim_now_ns(h->sim) - begin < HEAL_S * NS_PER_S && sim_step(h->sim);) {
		if (sim_now_ns(h->sim) < look)
			continue;
		look = sim_now_ns(h->sim) + NS_PER_S;
		sim_run_fiber(h->o.env, read_map, h);
		if (settled(h, rounds, gc) && user_full(h))
			break;
	}
	if (!user_full(h))
		fail_user(h);
	for (unsigned i = 0; i < h->count && !settled(h, rounds, gc); i++) {
		const struct keeper_status *s = runs(h, i) ? keeper_status(h->servers[i].keeper) : NULL;
		if (s && (!s->idle || s->gc_failed || s->missing))
			FAIL(h, "%s doesn't settle: idle %d, gc failed %d, %u missing, %u misplaced, %u failed, %u rounds, %u of gc, %u silent, map %u of %u", h->servers[i].domain,
			     s->idle, s->gc_failed, (unsigned)s->missing, (unsigned)s->misplaced, (unsigned)s->failures, (unsigned)s->rounds, (unsigned)s->gc_rounds, (unsigned)s->silent,
			     (unsigned)s->map, (unsigned)h->map->revision);
	}
	if (!settled(h, rounds, gc))
		FAIL(h, "the servers don't settle");
}

static void scrub_fault(void *arg, const char *where, const char *text, bool repaired)
{
	struct heal *h = arg;
	sim_note(h->sim, "scrub: %s: %s", where, text);
	if (!repaired)
		FAIL(h, "%s: %s, and isn't repaired", where, text);
}

static int scrub_run(void *arg)
{
	struct heal *h = arg;
	struct report report = { "" };
	struct store_scrub how = { .fault = scrub_fault, .arg = h };
	int r = store_scrub(&h->o.store, &how, &report);
	if (r < 0)
		FAIL(h, "the servers can't be asked to scrub: %s", report_text(&report, r));
	return r < 0 ? r : how.bad > 0;
}

/* What is damaged on one server is mended with what others have, and is well then. */
static void scrub(struct heal *h)
{
	int r = h->run->failed ? 0 : sim_run_fiber(h->o.env, scrub_run, h);
	if (r > 0 && !h->run->failed) {
		settle(h);
		if (!h->run->failed && sim_run_fiber(h->o.env, scrub_run, h) > 0)
			FAIL(h, "what was mended is damaged again");
	}
}

/* Every block that isn't free is what its footer says, and so what it is elsewhere. */
static void read_copy(struct heal *h, const struct share_entry *e, uint8_t *page)
{
	int r = 0;
	for (uint64_t block = 0; r == 0 && block < e->length;) {
		struct iovec v = { page, RECORD_BYTES_MAX };
		struct segment_io io = { .op = SEGMENT_FETCH, .segment = e->header.segment, .block = (uint32_t)block, .blocks = SHARE_FETCH_MAX, .iov = &v, .iov_count = 1 };
		uint32_t count;
		r = keeper_own(h->servers[h->at].keeper, &io);
		if (r == 0)
			r = share_page_check(page, io.filled, (uint32_t)block, e->length, &count);
		block = io.next;
	}
	if (r < 0 && r != -ENOENT)
		FAIL(h, "segment %llu: the copy on %s is damaged (%d)", (unsigned long long)e->header.segment, h->servers[h->at].domain, r);
}

static int note_fence(void *arg, uint64_t segment)
{
	struct heal *h = arg;
	if (h->fence_count[h->at] < ARRAY_COUNT(h->fences[0]))
		h->fences[h->at][h->fence_count[h->at]++] = segment;
	return 0;
}

static int list_one(void *arg)
{
	struct heal *h = arg;
	segment_dir_fences(h->servers[h->at].dir, note_fence, h);
	struct found_list *l = &h->list[h->at];
	uint8_t *page = env_alloc_aligned(RECORD_BYTES_MAX);
	int r = keeper_list(h->servers[h->at].keeper, NULL, NULL, l);
	for (size_t i = 0; r == 0 && i < l->count; i++)
		if (l->entries[i].e.sealed && l->entries[i].e.whole)
			read_copy(h, &l->entries[i].e, page);
	free(page);
	return r;
}

/* ---- checking ---- */

static const struct share_entry *copy_at(const struct heal *h, unsigned server, uint64_t segment)
{
	for (size_t i = 0; i < h->list[server].count; i++)
		if (h->list[server].entries[i].e.header.segment == segment)
			return &h->list[server].entries[i].e;
	return NULL;
}

static bool belongs(const struct heal *h, const struct placement_group *g, unsigned replicas, unsigned server)
{
	for (unsigned i = 0; i < g->target_count && i < replicas; i++)
		if (memcmp(&h->map->servers[g->target[i]].id, &h->servers[server].dir->id, sizeof(uuid)) == 0)
			return true;
	return false;
}

/* One that is sealed anywhere. */
static void check_segment(struct heal *h, uint64_t id, unsigned replicas)
{
	const struct placement_group *g = placement_group_of(h->map, id);
	const struct share_entry *model = NULL;
	unsigned wanted_count = 0;
	for (unsigned i = 0; i < h->count; i++) {
		const struct share_entry *e = runs(h, i) ? copy_at(h, i, id) : NULL;
		model = e && e->sealed && e->whole ? e : model;
	}
	for (unsigned i = 0; model && i < h->count; i++) {
		const struct share_entry *e = runs(h, i) ? copy_at(h, i, id) : NULL;
		bool here = runs(h, i) && belongs(h, g, replicas, i);
		wanted_count += here;
		if (here && (!e || !e->sealed || !e->whole))
			FAIL(h, "segment %llu: %s should have it, and %s", (unsigned long long)id, h->servers[i].domain, e ? "has it, but not sealed and whole" : "hasn't");
		if (e && e->sealed && (e->length != model->length || e->prev != model->prev || e->trim_crc != model->trim_crc))
			FAIL(h, "segment %llu: copies differ: %s has %u blocks, %u free (another %u, %u)", (unsigned long long)id, h->servers[i].domain,
			     e->length, e->trimmed, model->length, model->trimmed);
	}
	for (unsigned i = 0; model && wanted_count == MIN((unsigned)g->target_count, replicas) && i < h->count; i++)
		if (runs(h, i) && copy_at(h, i, id) && !belongs(h, g, replicas, i))
			FAIL(h, "segment %llu: %s still has it, and needn't", (unsigned long long)id, h->servers[i].domain);
}

/* What is in use, and the log lists no more, was cut; so it is sealed, or nobody will ever copy it again. The lists may be older than that. */
static void check_sealed(struct heal *h, struct copies *c, const struct space_segment *g)
{
	int unsealed = -1;
	for (unsigned i = 0; i < h->count; i++) {
		const struct share_entry *e = runs(h, i) ? copy_at(h, i, g->id) : NULL;
		struct segment_io io = { .op = SEGMENT_STAT, .segment = g->id };
		if (e && (e->sealed || (peer_wait(copies_peer(c, &h->servers[i].dir->id), &io) == 0 && io.sealed)))
			return;
		unsealed = e ? (int)i : unsealed;
	}
	if (unsealed >= 0)
		FAIL(h, "segment %llu, with %u blocks in use: %s has it, and nobody has it sealed", (unsigned long long)g->id, g->live, h->servers[unsealed].domain);
}

static bool log_lists(const struct meta_log *log, uint64_t segment)
{
	for (uint32_t i = 0; i < log->segment_count; i++)
		if (log->segments[i].id == segment)
			return true;
	return false;
}

static int check_table(struct heal *h, struct copies *c, uint64_t volume)
{
	struct meta_log *log = malloc(sizeof *log);
	struct source source = { .copies = c };
	struct sources sources = { .env = h->o.env, .source = &source, .count = 1 };
	struct space space;
	uint8_t *bytes = NULL;
	space_init(&space);
	int r = meta_get_log(h->o.catalog, volume, log, NULL);
	if (r == 0 && log->space.pointer.position)
		r = blob_read(&sources, &log->space, &bytes);
	if (r == 0 && bytes)
		r = space_decode(&space, bytes, log->space.length);
	for (uint32_t i = 0; r == 0 && i < space.segment_count && !h->run->failed; i++)
		if (space.segments[i].live && !log_lists(log, space.segments[i].id))
			check_sealed(h, c, &space.segments[i]);
	space_destroy(&space);
	free(bytes);
	free(log);
	return r;
}

/* There may be another table by the time it is read. */
static int check_volume(struct heal *h, struct copies *c, uint64_t volume)
{
	int r = -EAGAIN;
	for (unsigned i = 0; r < 0 && i < 4 && fiber_sleep(&h->o.env->loop, 20 * NS_PER_MS) == 0; i++)
		r = check_table(h, c, volume);
	return r;
}

/* Every server that an attached volume's open segment has a copy on has it, all of it. */
static void check_open(struct heal *h, const struct volume *v)
{
	link_for(l, &v->log.segments) {
		const struct log_segment *g = container_of(l, struct log_segment, link);
		for (unsigned i = 0; !g->cut && i < h->count; i++) {
			bool in = false;
			for (uint32_t k = 0; runs(h, i) && k < g->meta.ensemble_count; k++)
				in |= memcmp(&g->meta.ensemble[k].server, &h->servers[i].dir->id, sizeof(uuid)) == 0;
			const struct share_entry *e = in ? copy_at(h, i, g->meta.id) : NULL;
			if (in && (!e || !e->whole))
				FAIL(h, "open segment %llu: %s should have it, and %s", (unsigned long long)g->meta.id, h->servers[i].domain,
				     e ? "has lost some of it" : "hasn't");
		}
	}
}

static bool is_listed(const struct wanted *w, uint64_t id)
{
	for (size_t i = 0; i < w->count; i++)
		if (wanted_lists(&w->volumes[i], id))
			return true;
	return false;
}

/* What nobody lists needs no fence. */
static void check_fences(struct heal *h, const struct wanted *w, unsigned server)
{
	for (unsigned f = 0; f < h->fence_count[server]; f++) {
		uint64_t id = h->fences[server][f];
		if (!copy_at(h, server, id) && !is_listed(w, id))
			FAIL(h, "segment %llu is fenced on %s, and nobody lists it", (unsigned long long)id, h->servers[server].domain);
	}
}

/* Of one whose slots can't be read it is only known that no volume lists it. */
static bool is_nobodys(struct wanted *w, const struct share_entry *e)
{
	static const uuid none;
	bool known = memcmp(&e->header.volume, &none, sizeof none) != 0;
	return known ? wanted_ask(w, &e->header) == WANTED_NO : !is_listed(w, e->header.segment);
}

static int check_all(void *arg)
{
	struct heal *h = arg;
	struct copies *c;
	struct wanted *w;
	int r = copies_open(h->o.env, h->o.catalog, &c, NULL);
	if (r < 0)
		return r;
	peers_await(c->peers, c->count, c->count);
	r = wanted_open(h->o.catalog, c, &w);
	for (size_t i = 0; r == 0 && i < w->count; i++) {
		struct wanted_volume *v = &w->volumes[i];
		r = wanted_load(w, v);
		for (size_t k = 0; r == 0 && k < v->count && !h->run->failed; k++)
			check_segment(h, v->segments[k], v->replicas);
		if (r == 0 && !h->run->failed)
			r = check_volume(h, c, v->id);
	}
	if (r == 0 && h->user.volume)
		check_open(h, h->user.volume);
	if (r == 0 && h->drained < h->count)
		for (size_t i = 0; i < h->list[h->drained].count; i++)
			if (h->list[h->drained].entries[i].e.sealed || (h->user.volume && memcmp(&h->list[h->drained].entries[i].e.header.volume,
												  &h->user.volume->meta.volume, sizeof(uuid)) == 0))
				FAIL(h, "segment %llu: is still on %s, which is drained", (unsigned long long)h->list[h->drained].entries[i].e.header.segment,
				     h->servers[h->drained].domain);
	for (unsigned s = 0; r == 0 && s < h->count; s++)
		for (size_t i = 0; i < h->list[s].count && !h->run->failed; i++)
			if (is_nobodys(w, &h->list[s].entries[i].e))
				FAIL(h, "segment %llu: %s has it, and nobody wants it", (unsigned long long)h->list[s].entries[i].e.header.segment, h->servers[s].domain);
	for (unsigned s = 0; r == 0 && s < h->count; s++)
		check_fences(h, w, s);
	if (r == 0)
		wanted_close(w);
	copies_close(c);
	return r;
}

/* ---- what operators do ---- */

void id_text(const uuid *id, char ret[33])
{
	for (unsigned i = 0; i < sizeof(uuid); i++)
		snprintf(ret + 2 * i, 3, "%02x", id->bytes[i]);
}

/* A volume that is half destroyed has a table that can't be read: what was begun is done first; but for what waits for a server
 * that is gone, until that is out of the map. */
static int operate(void *arg)
{
	struct heal *h = arg;
	char id[33];
	struct report report = { "" };
	int r = 0;
	if (h->lost) {
		id_text(h->lost, id);
		r = store_server_remove(&h->o.store, id, /* force= */ true, &report);
	}
	for (unsigned i = 0; r == 0 && i < h->count; i++) {
		id_text(&h->ids[i], id);
		if (h->removed & 1u << i)
			r = store_server_remove(&h->o.store, id, /* force= */ true, &report);
		if (i == h->drained)
			r = store_server_drain(&h->o.store, id, /* undo= */ false, /* force= */ true, &report);
	}
	if (r < 0)
		FAIL(h, "an operator can't drain or remove: %s", report_text(&report, r));
	for (unsigned n = 0; n < 400 && !h->o.env->dead && (read_map(h) < 0 || !all_as_said(h)); n++)
		fiber_sleep(&h->o.env->loop, NS_PER_S / 2);
	if (!all_as_said(h))
		FAIL(h, "the manager doesn't do what operators want");
	store_reap(&h->o.store);
	fiber_sleep(&h->o.env->loop, LATE_NS); /* a dead owner's last transaction may still arrive */
	return 0;
}

/* Who is gone gets a new disk, is removed, or (once the others have waited long enough) lost. */
static void choose(struct heal *h, struct catalog_sim *catalogs)
{
	unsigned in = 0;
	h->drained = h->count;
	for (unsigned i = 0; i < h->count; i++) {
		if (h->gone & 1u << i && sim_random(h->sim) % 2) {
			sim_note(h->sim, "%s has a new disk", h->servers[i].domain);
			h->removed |= 1u << i;
			h->servers[i].path = "/new";
			block_server_begin(&h->servers[i], h->run, h->sim, catalogs);
			h->gone &= ~(1u << i);
		} else if (h->gone & 1u << i && sim_random(h->sim) % 2) {
			h->removed |= 1u << i;
		}
		in += runs(h, i);
	}
	if (in > 3 && sim_random(h->sim) % 2) {
		unsigned i = (unsigned)(sim_random(h->sim) % h->count);
		h->drained = runs(h, i) && !(h->removed & 1u << i) ? i : h->count;
	}
}

void heal_check(struct scenario_run *run, struct sim *sim, struct catalog_sim *catalogs, struct sim_host *host, struct block_server *servers,
		unsigned count, unsigned gone, const uuid *lost, bool damaged)
{
	struct heal *h = calloc(1, sizeof *h);
	*h = (struct heal){ .run = run, .sim = sim, .servers = servers, .count = count, .gone = gone, .catalogs = catalogs, .host = host, .lost = lost,
			    .map = calloc(1, sizeof *h->map) };
	sim_note(sim, "everything is well again");
	memset(sim_doses(sim), 0, sizeof *sim_doses(sim));
	for (unsigned i = 0; i < count; i++)
		sim_host_damages(servers[i].host, 0, 0);
	catalog_sim_doses(catalogs)->timeout = 0;
	for (unsigned i = 0; i < count; i++)
		h->ids[i] = servers[i].id;
	choose(h, catalogs);
	if (sim_random(sim) % 2)
		attach(h);
	owner_begin(&h->o, sim, host, catalogs, /* locks= */ false);
	h->o.places.ops.holder_alive = h->o.places.ops.held_elsewhere = user_alive;
	sim_run_fiber(h->o.env, operate, h);
	if (!run->failed)
		settle(h);
	if (damaged)
		scrub(h);
	if (h->user.volume && !run->failed)
		read_repair_check(run, sim, &h->user, servers, count);
	for (unsigned i = 0; i < count; i++) {
		const struct keeper_status *s = runs(h, i) && servers[i].keeper ? keeper_status(servers[i].keeper) : NULL;
		if (s)
			sim_note(sim, "%s: %u copies, rebuilt %u, removed %u, sealed %u, united %u, freed %u, failures %u, rounds %u", servers[i].domain,
				 (unsigned)s->copies, (unsigned)s->rebuilt, (unsigned)s->removed, (unsigned)s->sealed, (unsigned)s->united,
				 (unsigned)s->gc_freed, (unsigned)s->failures, (unsigned)s->rounds);
	}
	for (h->at = 0; h->at < count && !run->failed; h->at++)
		if (runs(h, h->at))
			sim_run_fiber(servers[h->at].env, list_one, h);
	int r = run->failed ? 0 : sim_run_fiber(h->o.env, check_all, h);
	if (r < 0)
		FAIL(h, "what is wanted can't be found out: %d", r);
	check_rest(h);
	detach(h);
	owner_end(&h->o);
	for (unsigned i = 0; i < count; i++)
		free(h->list[i].entries);
	free(h->map);
	free(h);
}
