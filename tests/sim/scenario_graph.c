/* Scenario `graph`: random graphs of the drivers (raw, cow, ram, ro, verify, error, delay) over
 * simulated disks, used by several clients at once, through lives that end in order, by a kill, or
 * by a power loss at any event.
 *
 * Checked with the block oracle: every read; after each crash everything. A graph with a cow may
 * lose at a kill what wasn't flushed (its manual says so), a raw one only at a power loss. Errors
 * come from the disk, from a full disk, and from `error` nodes; a request that failed leaves its range undefined,
 * and nothing else. A node that doesn't answer leaves the world at rest, which is a failure too. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "agent/graph/instance.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "tests/sim/block_oracle.h"
#include "tests/sim/scenario.h"

#define CLIENTS 6
#define LENGTH_MAX 40u /* sectors */
#define READ_TRIES 40
#define STEPS_MAX 3000000u

enum leaf { LEAF_RAW, LEAF_COW, LEAF_COW_ON_COW, LEAF_RAM, LEAF_COUNT };

struct world {
	struct scenario_run *run;
	struct sim *sim;
	struct sim_host *host;
	struct env *env;
	struct graph_instance *graph;
	struct blk_node *root;
	struct block_oracle *oracle;
	char text[512];
	enum leaf leaf;
	bool verify, errors;
	bool durable;              /* clients who flush and write through all the time */
	bool flush_last;           /* this life ends with a flush */
	bool brief;                /* the first ends when the layer has just been made */
	uint64_t sectors;
	unsigned life, operations, clients, next_client;
	uint64_t syncs, syncing[CLIENTS]; /* syncs so far; which one each client waits for, 0: none */
	struct report report;
	bool crashed;              /* the last life ended by … */
	struct block_oracle_crash how;
};

static uint64_t draw(struct world *w, uint64_t below) { return sim_random(w->sim) % below; }

/* ---- the graph ---- */

static void text_wrap(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void text_wrap(struct world *w, const char *format, ...)
{
	char old[sizeof w->text], head[128];
	va_list args;
	va_start(args, format);
	vsnprintf(head, sizeof head, format, args);
	va_end(args);
	snprintf(old, sizeof old, "%s", w->text);
	const char *hole = strchr(head, '%');
	snprintf(w->text, sizeof w->text, "%.*s%s%s", (int)(hole - head), head, old, hole + 1);
}

static void text_draw(struct world *w)
{
	static const char *const leaves[LEAF_COUNT] = {
		[LEAF_RAW] = "raw(/image)",
		[LEAF_COW] = "cow(/top, ro(raw(/image)))",
		[LEAF_COW_ON_COW] = "cow(/top, ro(cow(/middle, ro(raw(/image)))))",
	};
	if (w->leaf == LEAF_RAM)
		snprintf(w->text, sizeof w->text, "ram(%llu)", (unsigned long long)w->sectors * 512);
	else
		snprintf(w->text, sizeof w->text, "%s", leaves[w->leaf]);
	for (unsigned n = (unsigned)draw(w, 3); n > 0; n--) {
		if (draw(w, 2))
			text_wrap(w, "delay(%%, write=%ums, jitter=%ums)", (unsigned)draw(w, 3), (unsigned)draw(w, 5));
		else if (w->errors)
			text_wrap(w, "error(%%, rate=%u, op=%s, late=%s)", 1 + (unsigned)draw(w, 60), draw(w, 2) ? "read+write" : "write+flush+zero",
				  draw(w, 2) ? "on" : "off");
	}
	if (w->verify)
		text_wrap(w, "verify(%%, raw(/oracle))");
}

static void images_make(struct world *w)
{
	uint8_t sector[ORACLE_SECTOR];
	for (uint64_t i = 0; i < w->sectors; i++) {
		block_oracle_fill(sector, i, w->leaf == LEAF_RAM ? 0 : 1);
		sim_disk_write(w->host, "/image", i * ORACLE_SECTOR, sector, sizeof sector);
		if (w->verify)
			sim_disk_write(w->host, "/oracle", i * ORACLE_SECTOR, sector, sizeof sector);
	}
}

static int graph_start(struct world *w)
{
	struct graph *g = NULL;
	struct graph_how how = { .holder = "the simulator", .force = true };
	w->report.text[0] = '\0';
	int r = graph_parse(w->text, strlen(w->text), &g, &w->report);
	if (r == 0)
		r = graph_check(g, NULL, &w->report);
	if (r == 0)
		r = graph_open(w->env, g, &how, &w->graph, &w->report);
	if (r < 0)
		graph_free(g);
	else
		w->root = graph_root_node(w->graph);
	return r;
}

/* ---- requests ---- */

struct request {
	struct world *w;
	unsigned client;
	uint8_t *memory, *data; /* data: perhaps not aligned */
	uint64_t sector, count;
};

static void request_draw(struct request *q)
{
	struct world *w = q->w;
	q->count = 1 + draw(w, draw(w, 3) ? 9 : LENGTH_MAX);
	q->sector = draw(w, w->sectors - q->count + 1);
	if (draw(w, 3) == 0 && q->count > 8) { /* whole blocks */
		q->count = round_down(q->count, 8);
		q->sector = round_down(q->sector, 8);
	}
	q->data = q->memory + (draw(w, 4) ? 0 : 8 * draw(w, 64));
}

static int request_io(struct request *q, enum blk_op op, unsigned flags)
{
	uint64_t bytes = q->count * ORACLE_SECTOR, first = draw(q->w, bytes / 512 + 1) * 512;
	struct iovec v[2] = { { q->data, first }, { q->data + first, bytes - first } };
	bool one = first == 0 || first == bytes;
	if (one)
		v[0].iov_len = bytes;
	struct blk_io io = { .op = op, .flags = flags, .offset = q->sector * ORACLE_SECTOR, .length = bytes, .iov = v,
			     .iov_count = one ? 1 : 2 };
	if (op == BLK_FLUSH)
		io.offset = io.length = 0;
	struct job j;
	job_init(&j, &q->w->env->loop);
	q->w->syncing[q->client] = op == BLK_FLUSH || flags & BLK_FUA ? ++q->w->syncs : 0;
	blk_submit(q->w->root, &io, &j);
	int r = fiber_wait(&j);
	q->w->syncing[q->client] = 0;
	return r;
}

/* A sync that fails has taken what it should have covered before who asked for it hears so; what was read meanwhile is judged by what is known then. */
static void syncs_settle(struct world *w)
{
	uint64_t until = w->syncs;
	for (unsigned i = 0; i < CLIENTS; i++)
		while (w->errors && w->syncing[i] && w->syncing[i] <= until && !w->env->dead)
			fiber_sleep(&w->env->loop, NS_PER_MS / 100);
}

static bool status_good(struct world *w, int r)
{
	if (r == 0 || r == -ESHUTDOWN || (w->errors && (r == -EIO || r == -ENOSPC)))
		return true;
	scenario_fail(w->run, "life %u: a request failed: %s: %s", w->life, strerror(-r), w->text);
	return false;
}

static void client_write(struct request *q, bool zero)
{
	struct world *w = q->w;
	unsigned flags = draw(w, w->durable ? 2 : 8) == 0 ? BLK_FUA : 0;
	enum blk_op op = !zero ? BLK_WRITE : w->root->info.can_discard && w->root->info.discard_zeroes && draw(w, 2) ? BLK_DISCARD : BLK_ZERO;
	if (op == BLK_ZERO && !w->root->info.can_zero)
		return;
	if (op == BLK_ZERO && draw(w, 2))
		flags |= BLK_MAY_UNMAP;
	uint64_t id = block_oracle_write(w->oracle, q->sector, q->count, zero);
	for (uint64_t i = 0; i < q->count && !zero; i++)
		block_oracle_fill(q->data + i * ORACLE_SECTOR, q->sector + i, id);
	int r = request_io(q, op, flags);
	if (!w->env->dead)
		block_oracle_written(w->oracle, id, r, flags & BLK_FUA);
	if (!w->env->dead && r < 0 && flags & BLK_FUA) /* it may have been the sync */
		block_oracle_flushed(w->oracle, 0, r);
	status_good(w, r);
	sim_note(w->sim, "%s %llu: sectors %llu+%llu flags %x: %d", blk_op_name(op), (unsigned long long)id, (unsigned long long)q->sector,
		 (unsigned long long)q->count, flags, r);
}

static void client_read(struct request *q)
{
	struct world *w = q->w;
	char why[256];
	uint64_t began = block_oracle_begin(w->oracle);
	int r = request_io(q, BLK_READ, 0);
	syncs_settle(w);
	if (!status_good(w, r) || r < 0 || w->env->dead)
		return;
	if (block_oracle_read(w->oracle, began, q->sector, q->count, q->data, why, sizeof why) < 0)
		scenario_fail(w->run, "life %u: %s: %s", w->life, why, w->text);
}

static void client_flush(struct request *q)
{
	struct world *w = q->w;
	uint64_t began = block_oracle_begin(w->oracle);
	int r = request_io(q, BLK_FLUSH, 0);
	sim_note(w->sim, "flush: %d", r);
	if (r == -ENOSPC) /* what was acknowledged has its space */
		scenario_fail(w->run, "life %u: a flush failed: %s: %s", w->life, strerror(-r), w->text);
	if (status_good(w, r) && !w->env->dead)
		block_oracle_flushed(w->oracle, began, r);
}

static int client_run(void *arg)
{
	struct world *w = arg;
	struct request q = { .w = w, .client = w->next_client++, .memory = env_alloc_aligned((LENGTH_MAX + 1) * ORACLE_SECTOR + 4096) };
	while (w->operations && !w->run->failed && !w->env->dead) {
		w->operations--;
		request_draw(&q);
		switch (draw(w, w->durable ? 8 : 16)) {
		case 0: client_flush(&q); break;
		case 1: case 2: client_write(&q, /* zero= */ true); break;
		case 3: case 4: case 5: case 6: client_read(&q); break;
		case 7: fiber_sleep(&w->env->loop, draw(w, NS_PER_MS)); break;
		default: client_write(&q, /* zero= */ false); break;
		}
	}
	free(q.memory);
	w->clients--;
	return 0;
}

/* ---- lives ---- */

/* Reads everything and asks the oracle. */
static int content_check(struct world *w)
{
	struct request q = { .w = w };
	uint8_t *all = env_alloc_aligned(w->sectors * ORACLE_SECTOR);
	char why[256];
	int r = 0;
	for (q.sector = 0; q.sector < w->sectors && r == 0; q.sector += q.count) {
		q.count = MIN(LENGTH_MAX, w->sectors - q.sector);
		q.data = all + q.sector * ORACLE_SECTOR;
		r = -EIO;
		for (int try = 0; try < READ_TRIES && r == -EIO; try++)
			r = request_io(&q, BLK_READ, 0);
	}
	if (r == 0 && !w->env->dead) {
		if (block_oracle_recovered(w->oracle, &w->how, all, why, sizeof why) < 0)
			scenario_fail(w->run, "life %u, after %s: %s: %s", w->life, w->how.settles ? "a power loss" : w->crashed ? "a kill" : "a stop",
				      why, w->text);
	} else if (r != -ESHUTDOWN && !w->env->dead) {
		scenario_fail(w->run, "life %u: reading everything: %s: %s", w->life, strerror(-r), w->text);
	}
	free(all);
	return r;
}

static int life_run(void *arg)
{
	struct world *w = arg;
	int r = graph_start(w);
	if (r < 0) {
		w->graph = NULL;
		if (r != -ESHUTDOWN && !(w->errors && (r == -EIO || r == -ENOSPC)))
			scenario_fail(w->run, "life %u: open: %s: %s", w->life, report_text(&w->report, r), w->text);
		return r;
	}
	if (w->life > 1 && content_check(w) < 0)
		return 0;
	w->how = (struct block_oracle_crash){ .keeps = true }; /* judged; until this life ends otherwise */
	w->operations = 50 + (unsigned)draw(w, 200);
	w->clients = 1 + (unsigned)draw(w, CLIENTS);
	w->next_client = 0;
	memset(w->syncing, 0, sizeof w->syncing);
	for (unsigned n = w->clients; n > 0; n--)
		fiber_start(&w->env->loop, client_run, w, NULL);
	while (w->clients)
		if (fiber_sleep(&w->env->loop, NS_PER_MS) < 0)
			break;
	if (w->flush_last)
		client_flush(&(struct request){ .w = w });
	return 0;
}

static int life_close(void *arg)
{
	struct world *w = arg;
	struct graph_instance *g = w->graph;
	w->graph = NULL;
	return graph_close(g);
}

enum life_end { LIFE_CLEAN, LIFE_KILL, LIFE_POWER };

/* When the layer has its name, which isn't durable yet. */
static void step_until_named(struct world *w)
{
	uint8_t byte;
	for (unsigned n = 0; n < 200 && sim_disk_read(w->host, "/top", 0, &byte, 1) < 0 && sim_step(w->sim); n++)
		;
}

static bool life(struct world *w, enum life_end how)
{
	struct scenario_task task;
	uint64_t steps = how == LIFE_CLEAN ? STEPS_MAX : draw(w, 20000);
	w->life++;
	w->env = sim_process_create(w->sim, w->host);
	w->graph = NULL;
	sim_note(w->sim, "life %u begins: %s", w->life, w->text);
	scenario_task_start(&task, w->env, life_run, w);
	if (w->life == 1 && w->brief && how == LIFE_KILL) {
		step_until_named(w);
		steps = draw(w, 4);
	}
	bool ended = scenario_step_until(w->run, w->sim, &task.ended, steps);
	if (how == LIFE_CLEAN && !ended)
		scenario_fail(w->run, "life %u does not end: %s", w->life, w->text);
	int r = how == LIFE_CLEAN && ended && w->graph ? sim_run_fiber(w->env, life_close, w) : -ESHUTDOWN;
	bool clean = r == 0, cow = w->leaf == LEAF_COW || w->leaf == LEAF_COW_ON_COW;
	if (how == LIFE_POWER)
		sim_power_loss(w->host);
	else if (!clean)
		sim_kill(w->env);
	if (w->env->dead)
		sim_drain_dead(w->env);
	if (w->graph)
		sim_run_fiber(w->env, life_close, w);
	sim_process_destroy(w->env);
	sim_note(w->sim, "life %u ended: %s", w->life, how == LIFE_POWER ? "power loss" : clean ? "stopped" : "killed");
	w->crashed = !clean;
	/* A life that ends before it could read everything leaves what the one before left. */
	w->how.settles |= how == LIFE_POWER;
	w->how.keeps &= how != LIFE_POWER && (clean || !cow);
	return w->leaf != LEAF_RAM; /* nothing of it is left */
}

/* The layer in the middle is filled first, without faults, and then only read. */
static void middle_make(struct world *w)
{
	struct sim_doses doses = *sim_doses(w->sim);
	bool verify = w->verify;
	*sim_doses(w->sim) = (struct sim_doses){ 0 };
	w->verify = false;
	w->flush_last = true;
	snprintf(w->text, sizeof w->text, "cow(/middle, ro(raw(/image)))");
	life(w, LIFE_CLEAN);
	w->flush_last = false;
	w->verify = verify;
	*sim_doses(w->sim) = doses;
}

static void scenario_graph_run(struct scenario_run *run)
{
	struct world w = { .run = run, .how.keeps = true };
	w.sim = scenario_sim(run, NULL);
	struct sim_doses *d = sim_doses(w.sim);
	static const uint32_t slow[] = { 0, 0, 10000, 100000 };
	d->slow = slow[draw(&w, ARRAY_COUNT(slow))];
	w.leaf = (enum leaf)draw(&w, LEAF_COUNT);
	w.verify = draw(&w, 4) == 0 && w.leaf != LEAF_COW_ON_COW;
	w.errors = !w.verify && draw(&w, 2);
	if (w.errors) {
		d->read_error = (uint32_t)draw(&w, 5000);
		d->write_error = (uint32_t)draw(&w, 5000);
		d->sync_error = draw(&w, 2) ? (uint32_t)draw(&w, 30000) : 0;
	}
	w.durable = draw(&w, 3) == 0;
	w.sectors = 64 + draw(&w, 64) * 8 + (draw(&w, 4) ? 0 : draw(&w, 8));
	uint32_t align = draw(&w, 2) ? 512 : 4096;
	w.host = sim_host_create(w.sim, "host", w.errors && draw(&w, 3) == 0 ? w.sectors * 512 + (256u << 10) : 64u << 20, align);
	w.oracle = block_oracle_create(w.sectors, w.leaf != LEAF_RAM);
	images_make(&w);
	if (w.leaf == LEAF_COW_ON_COW)
		middle_make(&w);
	text_draw(&w);
	unsigned lives = 1 + (unsigned)draw(&w, 6);
	w.brief = w.leaf == LEAF_COW && !w.verify && draw(&w, 3) == 0;
	for (unsigned i = 0; i < lives && !run->failed; i++) {
		/* After a crash node and oracle differ where nothing was flushed; verify would say so. */
		enum life_end how = w.verify || draw(&w, 4) == 0 ? LIFE_CLEAN : draw(&w, 2) ? LIFE_KILL : LIFE_POWER;
		if (w.brief && i < 2 && draw(&w, 4)) /* who opens it next thinks that it has its name */
			how = i == 0 ? LIFE_KILL : LIFE_POWER;
		if (!life(&w, how))
			break;
	}
	block_oracle_free(w.oracle);
	scenario_end(run, w.sim);
}

const struct scenario scenario_graph = {
	.name = "graph",
	.summary = "random graphs of drivers under load, through crashes and errors",
	.run = scenario_graph_run,
};
