/* Scenario `volume`: the whole store through lives that end in every way.
 *
 * One volume, embedded or on one server, small segments and small limits so that turnover,
 * checkpoints and packing of everything happen all the time. A life: open (recover), check the disk and
 * every snapshot against the oracle, then clients read, write, flush, discard and take and delete
 * snapshots, until the process is killed, the power fails, or it closes in order; the server is
 * killed or loses power meanwhile. Between lives: clones, rollback, deletion by the store's
 * operations. Checked: P1, P2, P3 by the oracle; I11 for every snapshot; I10 by recounting. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "core/plant.h"
#include "parallax/segment_reader.h"
#include "parallax/store_private.h"
#include "parallax/verify.h"
#include "parallax/volume_node.h"
#include "server/server.h"
#include "tests/sim/catalog_sim.h"
#include "tests/sim/oracle.h"
#include "tests/sim/scenario.h"

enum {
	SNAPSHOTS_MAX = 24,
	CLIENTS_MAX = 6,
	OP_SECTORS_MAX = 64,
	STEPS_MAX = 3000000,
};

struct snapshot {
	bool used, known, doomed;  /* known: `bytes` is what it shows, for ever; not known: taken between began and ended */
	bool acked, unsure;        /* unsure: it couldn't be read before the oracle forgot what it is checked against */
	char name[32];
	uint64_t began, ended, mark;
	uint8_t *bytes;
};

struct volume_world;

struct sim_volume_driver { /* a driver that knows its volume: no file-scope state */
	struct blk_driver driver;
	struct volume *volume;
};

struct client {
	struct volume_world *w;
	struct scenario_task task;
	unsigned ops;
};

struct volume_world {
	struct scenario_run *run;
	struct sim *sim;
	struct sim_host *host, *server_host;
	struct catalog_sim *catalogs;
	struct oracle *oracle;
	struct snapshot snapshots[SNAPSHOTS_MAX];
	unsigned next_name, life, clones;
	uint64_t size_bytes;
	bool remote, faults;
	/* this life's */
	struct env *env, *server_env;
	struct catalog *catalog, *server_catalog;
	struct places places;
	struct store store;
	struct volume *volume;
	struct blk_node *node;
	struct sim_volume_driver driver;
	struct client clients[CLIENTS_MAX];
	struct segment_server *server_dir;
	struct server *server;
	struct volume_limits limits;
	bool io_failed, stopping;
};

#define FAIL(w, ...) scenario_fail((w)->run, __VA_ARGS__)
#define LIFE(w) (w)->life

static uint64_t draw(struct volume_world *w, uint64_t below) { return sim_random(w->sim) % below; }

/* ---- places ---- */

static int sim_embedded(void *arg, uint64_t volume, bool create, struct segment_server **ret, struct report *report)
{
	struct volume_world *w = arg;
	char path[64];
	snprintf(path, sizeof path, "/volumes/%llu", (unsigned long long)volume);
	struct segment_dir_options o = { .create = create };
	env_mkdir(w->env, "/volumes");
	env_sync_dir(w->env, "/");
	return segment_dir_open(w->env, path, w->catalog, &o, ret, report);
}

static int sim_reader(void *arg, uint64_t volume, struct segment_server **ret, struct report *report)
{
	struct volume_world *w = arg;
	char path[64];
	(void)report;
	snprintf(path, sizeof path, "/volumes/%llu", (unsigned long long)volume);
	return segment_reader_open(w->env, path, ret);
}

static int sim_lock(void *arg, uint64_t volume, struct file **ret, struct report *report)
{
	struct volume_world *w = arg;
	char path[64];
	(void)report;
	snprintf(path, sizeof path, "/lock-%llu", (unsigned long long)volume);
	int r = file_open(w->env, path, FILE_OPEN_WRITE | FILE_OPEN_CREATE, ret);
	if (r == 0 && (r = file_lock(*ret, true)) < 0) {
		file_close(w->env, *ret);
		*ret = NULL;
	}
	return r == -EAGAIN ? -EBUSY : r;
}

static int sim_remote(void *arg, const uuid *server, struct segment_server **ret, struct report *report)
{
	struct volume_world *w = arg;
	(void)server;
	return segment_remote_open(w->env, "tcp:server:7000", 2 * NS_PER_S, ret, report);
}

/* ---- the server's process ---- */

static int server_run(void *arg)
{
	struct volume_world *w = arg;
	struct segment_dir_options o = { .create = true, .address = "tcp:server:7000" };
	struct report report = { "" };
	struct listener *l;
	int r = -EAGAIN;
	while (r != 0 && !w->server_env->dead) {
		r = segment_dir_open(w->server_env, "/data", w->server_catalog, &o, &w->server_dir, &report);
		if (r < 0)
			fiber_sleep(&w->server_env->loop, 50 * NS_PER_MS);
	}
	if (r == 0)
		r = stream_listen(w->server_env, "tcp:server:7000", &l);
	if (r == 0)
		r = server_start(w->server_env, l, w->server_dir, &(struct server_limits){ 0 }, &w->server);
	return r;
}

static int server_close(void *arg)
{
	struct volume_world *w = arg;
	server_stop(w->server, NS_PER_S);
	int r = segment_server_close(w->server_dir);
	w->server = NULL;
	w->server_dir = NULL;
	return r;
}

static void server_begin(struct volume_world *w)
{
	struct scenario_task *t = calloc(1, sizeof *t);
	w->server_env = sim_process_create(w->sim, w->server_host);
	w->server_catalog = catalog_sim_open(w->catalogs, w->server_env);
	scenario_task_start(t, w->server_env, server_run, w);
	scenario_step_until(w->run, w->sim, &t->ended, STEPS_MAX);
	free(t);
}

static void server_end(struct volume_world *w, bool power)
{
	if (power)
		sim_power_loss(w->server_host);
	else
		sim_kill(w->server_env);
	sim_drain_dead(w->server_env);
	sim_run_fiber(w->server_env, server_close, w);
	catalog_close(w->server_catalog);
	sim_process_destroy(w->server_env);
	w->server_env = NULL;
}

/* ---- clients ---- */

/* A failed request is right only when something was broken, or there is no more space. */
static void note_failure(struct volume_world *w, int status)
{
	if (status < 0)
		w->io_failed = true;
}

static uint32_t pick_range(struct volume_world *w, uint32_t *ret_count)
{
	uint32_t sectors = oracle_sectors(w->oracle), count = 1 + (uint32_t)draw(w, draw(w, 4) ? 16 : OP_SECTORS_MAX);
	uint32_t first = (uint32_t)draw(w, draw(w, 2) ? 64 : sectors);
	if (draw(w, 2)) { /* whole blocks */
		first = first / 8 * 8;
		count = (uint32_t)round_up(count, 8);
	}
	first = MIN(first, sectors - 1);
	*ret_count = MIN(count, sectors - first);
	return first;
}

static void client_write(struct volume_world *w, bool zero)
{
	uint32_t count, first = pick_range(w, &count);
	uint8_t *b = zero ? NULL : env_alloc_aligned((size_t)count * ORACLE_SECTOR);
	unsigned flags = draw(w, 8) == 0 ? BLK_FUA : 0;
	uint64_t id = oracle_write_begin(w->oracle, first, count, zero, b);
	int r = zero ? blk_op_wait(w->node, draw(w, 2) ? BLK_ZERO : BLK_DISCARD, (uint64_t)first * ORACLE_SECTOR, (uint64_t)count * ORACLE_SECTOR, flags)
		     : blk_write_wait(w->node, b, (uint64_t)count * ORACLE_SECTOR, (uint64_t)first * ORACLE_SECTOR, flags);
	if (!w->env->dead)
		oracle_write_end(w->oracle, id, r == 0, flags & BLK_FUA);
	note_failure(w, r);
	free(b);
}

static void client_read(struct volume_world *w)
{
	uint32_t count, first = pick_range(w, &count);
	uint8_t *b = env_alloc_aligned((size_t)count * ORACLE_SECTOR);
	uint64_t began = oracle_now(w->oracle);
	int r = blk_read_wait(w->node, b, (uint64_t)count * ORACLE_SECTOR, (uint64_t)first * ORACLE_SECTOR);
	const char *why = r == 0 && !w->env->dead ? oracle_read(w->oracle, first, count, b, began) : NULL;
	if (why)
		FAIL(w, "life %u: %s", LIFE(w), why);
	note_failure(w, r);
	free(b);
}

static void client_flush(struct volume_world *w)
{
	uint64_t began = oracle_now(w->oracle);
	int r = blk_op_wait(w->node, BLK_FLUSH, 0, 0, 0);
	if (r == 0 && !w->env->dead)
		oracle_flushed(w->oracle, began);
	note_failure(w, r);
}

static struct snapshot *snapshot_free_slot(struct volume_world *w)
{
	for (unsigned i = 0; i < SNAPSHOTS_MAX; i++)
		if (!w->snapshots[i].used)
			return &w->snapshots[i];
	return NULL;
}

static void client_snapshot(struct volume_world *w)
{
	struct snapshot *s = snapshot_free_slot(w);
	if (!s)
		return;
	*s = (struct snapshot){ .used = true, .began = oracle_now(w->oracle), .ended = UINT64_MAX };
	snprintf(s->name, sizeof s->name, "s%u", w->next_name++);
	struct report report = { "" };
	int r = volume_snapshot(w->volume, s->name, &report);
	if (w->env->dead)
		return;
	s->ended = oracle_now(w->oracle);
	s->acked = r == 0;
	if (r == 0)
		oracle_flushed(w->oracle, s->began);
	note_failure(w, r);
}

static void client_delete_snapshot(struct volume_world *w)
{
	struct snapshot *s = &w->snapshots[draw(w, SNAPSHOTS_MAX)];
	uint64_t volume, mark;
	if (!s->used || !s->known || s->doomed)
		return;
	if (store_find_snapshot(&w->places, "v", s->name, &volume, &mark, NULL) < 0)
		return;
	s->doomed = true;
	if (store_doom_snapshot(&w->store, volume, mark) == 0 && draw(w, 2))
		note_failure(w, volume_checkpoint(w->volume));
}

static int client_run(void *arg)
{
	struct client *c = arg;
	struct volume_world *w = c->w;
	while (c->ops-- > 0 && !w->run->failed && !w->env->dead && !w->stopping) {
		switch (draw(w, 32)) {
		case 0: client_snapshot(w); break;
		case 1: client_delete_snapshot(w); break;
		case 2: note_failure(w, volume_checkpoint(w->volume)); break;
		case 3: case 4: case 5: client_flush(w); break;
		case 6: case 7: case 8: client_write(w, true); break;
		case 9: case 10: case 11: case 12: case 13: case 14: case 15: client_read(w); break;
		default: client_write(w, false); break;
		}
		if (draw(w, 4) == 0)
			fiber_sleep(&w->env->loop, draw(w, 2000000));
	}
	return 0;
}

/* ---- checking everything ---- */

/* The whole disk; asks again while the server is away. */
static int read_disk(struct volume_world *w, uint8_t **ret_bytes)
{
	uint64_t size = (uint64_t)oracle_sectors(w->oracle) * ORACLE_SECTOR;
	uint8_t *b = env_alloc_aligned(size);
	int r = 0;
	for (uint64_t at = 0; r == 0 && at < size; at += 256 << 10)
		for (unsigned attempt = 0; attempt < 100; attempt++) {
			r = blk_read_wait(w->node, b + at, MIN(size - at, (uint64_t)256 << 10), at);
			if (r != -ENOTCONN && r != -ETIMEDOUT)
				break;
			fiber_sleep(&w->env->loop, 100 * NS_PER_MS);
		}
	if (r < 0)
		free(b);
	else
		*ret_bytes = b;
	return r;
}

static int read_snapshot(struct volume_world *w, uint64_t volume, uint64_t mark, uint8_t *bytes, uint64_t size)
{
	struct volume_reader_open how = { .catalog = w->catalog, .places = &w->places.ops, .volume = volume, .mark_seq = mark, .cache_bytes = 1 << 20 };
	struct volume_reader *d;
	int r = volume_reader_open(w->env, &how, &d, NULL);
	if (r < 0)
		return r;
	memset(bytes, 0, size);
	for (uint64_t block = 0; r == 0 && block < div_up(size, BLOCK_BYTES); block++) {
		struct pointer p;
		struct job j;
		do {
			job_init(&j, &w->env->loop);
			r = volume_reader_lookup(d, block, 1, &p, &j);
		} while (r == -EAGAIN && (r = fiber_wait(&j)) == 0 && (r = -EAGAIN) && !w->env->dead);
		if (r == 0 && p.position) {
			uint8_t *page = env_alloc_aligned(BLOCK_BYTES);
			r = sources_read_wait(volume_reader_sources(d), &p, page);
			memcpy(bytes + block * BLOCK_BYTES, page, MIN((uint64_t)BLOCK_BYTES, size - block * BLOCK_BYTES));
			free(page);
		}
	}
	volume_reader_close(d);
	return r;
}

/* The snapshot's bytes, once it has its root. A catalog or a server that is away for a while is asked again. */
static int find_and_read(struct volume_world *w, struct snapshot *s, uint64_t *ret_mark, uint8_t *bytes, uint64_t size)
{
	uint64_t volume;
	int r = -ETIMEDOUT;
	for (unsigned attempt = 0; attempt < 100 && (r == -ETIMEDOUT || r == -ENOTCONN || r == -EAGAIN) && !w->env->dead; attempt++) {
		if (attempt)
			fiber_sleep(&w->env->loop, 100 * NS_PER_MS);
		r = store_find_snapshot(&w->places, "v", s->name, &volume, ret_mark, NULL);
		if (r == 0 && s->ended == UINT64_MAX)
			s->ended = oracle_now(w->oracle);
		if (r == 0)
			r = store_want_root(&w->places, volume, *ret_mark, NULL, NULL);
		if (r == 0)
			r = read_snapshot(w, volume, *ret_mark, bytes, size);
		else if (r == -ENOENT)
			return r;
	}
	return r == -ENOENT ? -EIO : r;
}

static void check_snapshot(struct volume_world *w, struct snapshot *s, uint8_t *bytes, uint64_t size)
{
	uint64_t mark;
	int r = find_and_read(w, s, &mark, bytes, size);
	if (w->env->dead)
		return;
	if (r == -ENOENT && (s->acked || s->known))
		FAIL(w, "life %u: snapshot %s is gone", LIFE(w), s->name);
	if (r == -ENOENT) {
		s->used = false;
		return;
	}
	if (r < 0) {
		s->unsure = true;
		if (!w->io_failed && !w->faults) /* on a full disk its root may have to wait */
			FAIL(w, "life %u: snapshot %s can't be read: %d", LIFE(w), s->name, r);
		return;
	}
	if (s->known) {
		if (memcmp(bytes, s->bytes, size))
			FAIL(w, "life %u: snapshot %s changed", LIFE(w), s->name);
		return;
	}
	const char *why = s->unsure ? NULL : oracle_snapshot(w->oracle, bytes, s->began, s->ended);
	if (why)
		FAIL(w, "life %u: snapshot %s: %s", LIFE(w), s->name, why);
	s->acked = s->known = true;
	s->mark = mark;
	s->bytes = malloc(size);
	memcpy(s->bytes, bytes, size);
}

/* Every snapshot shows what it always showed; what isn't known yet is checked against the oracle. */
static void check_snapshots(struct volume_world *w, bool all)
{
	uint64_t size = (uint64_t)oracle_sectors(w->oracle) * ORACLE_SECTOR;
	uint8_t *bytes = malloc(size + BLOCK_BYTES);
	for (unsigned i = 0; i < SNAPSHOTS_MAX && !w->run->failed && !w->env->dead; i++) {
		struct snapshot *s = &w->snapshots[i];
		if (s->used && !s->doomed && (all || !s->known))
			check_snapshot(w, s, bytes, size);
	}
	free(bytes);
}

static void check_space(struct volume_world *w)
{
	struct report report = { "" };
	int r = volume_verify_space(w->volume, &report);
	if (r == -EUCLEAN)
		FAIL(w, "life %u: space: %s", LIFE(w), report.text);
}

/* ---- a life ---- */

static int sim_driver_open(struct blk_node *node, const struct blk_open *how, struct report *report)
{
	(void)how;
	(void)report;
	const struct sim_volume_driver *d = container_of(node->driver, struct sim_volume_driver, driver);
	volume_node_init(container_of(node, struct volume_node, node), d->volume, NULL);
	return 0;
}

static int open_volume(struct volume_world *w, struct report *report)
{
	uint64_t id;
	int r = store_find_volume(&w->places, "v", &id, report);
	struct volume_open how = { .catalog = w->catalog, .places = &w->places.ops, .volume = id, .holder = "sim", .limits = w->limits };
	if (r == 0)
		r = volume_open(w->env, &how, &w->volume, report);
	if (r < 0)
		return r;
	w->driver = (struct sim_volume_driver){ { .name = "volume", .node_size = sizeof(struct volume_node),
		.frame_size = sizeof(struct volume_frame), .depth = 8, .open = sim_driver_open, .submit = volume_node_submit }, w->volume };
	struct blk_open node_how = { .node_name = "v" };
	return blk_open(w->env, &w->driver.driver, &node_how, NULL, 0, &w->node, report);
}

static int life_begin(void *arg)
{
	struct volume_world *w = arg;
	struct report report = { "" };
	int r = -ENOENT;
	for (unsigned attempt = 0; attempt < 100 && !w->env->dead; attempt++) {
		struct store_volume_options o = { .size_bytes = w->size_bytes };
		report.text[0] = '\0';
		if (w->life == 1)
			r = store_volume_create(&w->store, "v", &o, &report);
		r = open_volume(w, &report);
		if (r == 0 || r == -ESHUTDOWN || r == -EIO)
			break;
		fiber_sleep(&w->env->loop, 100 * NS_PER_MS);
	}
	if (r < 0) {
		if (!w->faults && !w->env->dead)
			FAIL(w, "life %u: open: %s", LIFE(w), report_text(&report, r));
		return r;
	}
	check_snapshots(w, false); /* before the oracle forgets what they are checked against */
	uint8_t *bytes;
	r = read_disk(w, &bytes);
	if (r < 0) {
		if (!w->faults && !w->env->dead)
			FAIL(w, "life %u: the disk can't be read: %d", LIFE(w), r);
		return r;
	}
	const char *why = oracle_recovered(w->oracle, bytes);
	if (why)
		FAIL(w, "life %u: %s", LIFE(w), why);
	free(bytes);
	if (draw(w, 3) == 0)
		check_snapshots(w, true);
	return 0;
}

/* In order: quiesce, recount, close. */
static int life_finish(void *arg)
{
	struct volume_world *w = arg;
	if (w->node && !w->env->dead) {
		check_snapshots(w, draw(w, 2));
		if (volume_checkpoint(w->volume) == 0 && volume_checkpoint(w->volume) == 0)
			check_space(w);
		uint8_t *bytes;
		if (!w->run->failed && read_disk(w, &bytes) == 0) {
			const char *why = oracle_read(w->oracle, 0, oracle_sectors(w->oracle), bytes, oracle_now(w->oracle));
			if (why)
				FAIL(w, "life %u: at the end: %s", LIFE(w), why);
			free(bytes);
		}
	}
	return 0;
}

static int life_close(void *arg)
{
	struct volume_world *w = arg;
	blk_close(w->node);
	int r = volume_close(w->volume);
	w->node = NULL;
	w->volume = NULL;
	return r;
}

static bool clients_ended(const struct volume_world *w, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (!w->clients[i].task.ended)
			return false;
	return true;
}

enum life_end { LIFE_CLEAN, LIFE_KILL, LIFE_POWER };

/* Clients run; the server may die and come back meanwhile. */
static void life_work(struct volume_world *w, enum life_end how)
{
	unsigned clients = 1 + (unsigned)draw(w, CLIENTS_MAX);
	uint64_t steps = how == LIFE_CLEAN ? STEPS_MAX : draw(w, draw(w, 2) ? 2000 : 40000);
	uint64_t server_dies = w->remote && draw(w, 2) ? draw(w, 20000) : UINT64_MAX;
	bool server_power = draw(w, 3) == 0;
	for (unsigned i = 0; i < clients; i++) {
		w->clients[i] = (struct client){ .w = w, .ops = 5 + (unsigned)draw(w, 80) };
		scenario_task_start(&w->clients[i].task, w->env, client_run, &w->clients[i]);
	}
	for (uint64_t n = 0; !clients_ended(w, clients) && n < steps && !w->run->failed; n++) {
		if (!sim_step(w->sim)) {
			FAIL(w, "life %u: all wait for something that will not happen", LIFE(w));
			return;
		}
		if (n == server_dies) {
			sim_note(w->sim, "the server %s", server_power ? "loses power" : "is killed");
			server_end(w, server_power);
			if (server_power)
				oracle_crash_server(w->oracle);
			server_begin(w);
		}
	}
	if (how == LIFE_CLEAN && !clients_ended(w, clients))
		FAIL(w, "life %u: requests do not end", LIFE(w));
}

static void begin_process(struct volume_world *w)
{
	w->env = sim_process_create(w->sim, w->host);
	w->catalog = catalog_sim_open(w->catalogs, w->env);
	w->places = (struct places){ .env = w->env, .catalog = w->catalog, .dir = "/",
		.ops = { .open_embedded = sim_embedded, .open_embedded_reader = sim_reader, .open_remote = sim_remote, .lock = sim_lock, .arg = w } };
	w->store = (struct store){ .env = w->env, .places = &w->places, .catalog = w->catalog };
	w->node = NULL;
	w->volume = NULL;
	w->stopping = w->io_failed = false;
}

static void end_process(struct volume_world *w)
{
	catalog_close(w->catalog);
	sim_process_destroy(w->env);
	w->env = NULL;
}

static void life(struct volume_world *w)
{
	struct scenario_task task;
	enum life_end how = draw(w, 4) == 0 ? LIFE_CLEAN : draw(w, 2) ? LIFE_KILL : LIFE_POWER;
	w->life++;
	sim_note(w->sim, "life %u begins", w->life);
	begin_process(w);
	scenario_task_start(&task, w->env, life_begin, w);
	/* now and then it dies while it recovers */
	uint64_t steps = draw(w, 6) == 0 && how != LIFE_CLEAN && w->life > 1 ? draw(w, 3000) : STEPS_MAX;
	bool opened = scenario_step_until(w->run, w->sim, &task.ended, steps) && task.status == 0;
	if (!task.ended && steps == STEPS_MAX)
		FAIL(w, "life %u: opening does not end", LIFE(w));
	if (opened)
		life_work(w, how);
	bool clean = false;
	if (how == LIFE_CLEAN && opened && !w->run->failed) {
		sim_run_fiber(w->env, life_finish, w);
		clean = sim_run_fiber(w->env, life_close, w) == 0;
		if (!clean && !w->faults && !w->io_failed)
			FAIL(w, "life %u: closing failed", LIFE(w));
	}
	if (how == LIFE_POWER)
		sim_power_loss(w->host);
	else if (w->volume || !clean)
		sim_kill(w->env);
	sim_note(w->sim, "life %u ends: %s", w->life, how == LIFE_POWER ? "power loss" : clean ? "closed" : "killed");
	oracle_crash(w->oracle, how == LIFE_POWER && !w->remote && !clean);
	if (w->env->dead)
		sim_drain_dead(w->env);
	if (w->volume)
		sim_run_fiber(w->env, life_close, w);
	end_process(w);
}

/* ---- all of it ---- */

static void volume_run(struct scenario_run *run)
{
	struct volume_world *w = calloc(1, sizeof *w);
	w->run = run;
	w->sim = scenario_sim(run, NULL);
	struct sim_doses *d = sim_doses(w->sim);
	d->slow = draw(w, 2) ? 20000 : 0;
	w->remote = draw(w, 3) == 0;
	d->read_flip = draw(w, 4) == 0 ? 1000 : 0;
	if (w->remote)
		d->drop = draw(w, 3) == 0 ? 300 : 0;
	/* now and then the disk is full much of the time: refusals, but nothing lost and no end of it (P7) */
	bool full = !w->remote && draw(w, 6) == 0;
	w->faults = full;
	w->host = sim_host_create(w->sim, "host", full ? (3 + draw(w, 14)) << 20 : (uint64_t)512 << 20, draw(w, 2) ? 512 : 4096);
	w->server_host = sim_host_create(w->sim, "server", 512 << 20, 4096);
	w->catalogs = catalog_sim_create(w->sim);
	catalog_sim_doses(w->catalogs)->timeout = draw(w, 2) ? 50000 : 0;
	w->limits = (struct volume_limits){ .cache_bytes = (16 + draw(w, 48)) * BLOCK_BYTES, .segment_blocks = 96 + (uint32_t)draw(w, 200),
		.replay_bytes = (64 + draw(w, 400)) * BLOCK_BYTES, .checkpoint_ns = (1 + draw(w, 50)) * 20 * NS_PER_MS,
		.window = 1 + (uint32_t)draw(w, 4) };
	w->size_bytes = (300 + draw(w, 3000)) * ORACLE_SECTOR;
	w->oracle = oracle_create((uint32_t)(w->size_bytes / ORACLE_SECTOR));
	if (w->remote)
		server_begin(w);
	unsigned lives = 3 + (unsigned)draw(w, 6);
	for (unsigned i = 0; i < lives && !run->failed; i++)
		life(w);
	if (w->server_env)
		server_end(w, false);
	for (unsigned i = 0; i < SNAPSHOTS_MAX; i++)
		free(w->snapshots[i].bytes);
	catalog_sim_destroy(w->catalogs);
	oracle_destroy(w->oracle);
	scenario_end(run, w->sim);
	free(w);
}

const struct scenario scenario_volume = {
	.name = "volume",
	.summary = "a volume of the store through kills, power losses and a server that dies",
	.run = volume_run,
};
