#include "tests/sim/owner.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/drivers.h"
#include "core/fiber.h"
#include "core/option.h"
#include "parallax/segment/segment_reader.h"
#include "parallax/volume/volume_private.h"

#define START_STEPS 3000000

/* ---- where an owner's segments are ---- */

static void volume_path(uint64_t volume, char ret_path[64]) { snprintf(ret_path, 64, "/volumes/%016llx", (unsigned long long)volume); }

static int open_embedded(void *arg, uint64_t volume, bool create, struct segment_server **ret, struct report *report)
{
	struct owner *o = arg;
	char path[64];
	struct segment_dir_options options = { .create = create };
	volume_path(volume, path);
	env_mkdir(o->env, "/volumes");
	env_sync_dir(o->env, "/");
	return segment_dir_open(o->env, path, o->catalog, &options, ret, report);
}

static int open_embedded_reader(void *arg, uint64_t volume, struct segment_server **ret, struct report *report)
{
	struct owner *o = arg;
	char path[64];
	(void)report;
	volume_path(volume, path);
	return segment_reader_open(o->env, path, ret);
}

static int lock_volume(void *arg, uint64_t volume, struct file **ret, struct report *report)
{
	struct owner *o = arg;
	char path[64];
	(void)report;
	if (!o->locks)
		return 0;
	snprintf(path, sizeof path, "/lock-%llu", (unsigned long long)volume);
	int r = file_open(o->env, path, FILE_OPEN_WRITE | FILE_OPEN_CREATE, ret);
	if (r == 0 && (r = file_lock(*ret, true)) < 0) {
		file_close(o->env, *ret);
		*ret = NULL;
	}
	return r == -EAGAIN ? -EBUSY : r;
}

/* ---- an owner's life ---- */

void owner_begin(struct owner *o, struct sim *sim, struct sim_host *host, struct catalog_sim *catalogs, bool locks)
{
	*o = (struct owner){ .env = sim_process_create(sim, host), .locks = locks };
	o->catalog = catalog_sim_open(catalogs, o->env);
	o->places = (struct places){ .env = o->env, .catalog = o->catalog, .dir = "",
		.ops = { .open_embedded = open_embedded, .open_embedded_reader = open_embedded_reader,
			 .lock = lock_volume, .arg = o } };
	o->store = (struct store){ .env = o->env, .places = &o->places, .catalog = o->catalog };
}

uint64_t owner_idle_ns(const struct scenario_run *run) { return run->seed % 3 == 0 ? 0 : (1 + run->seed / 3 % 12) * 300 * NS_PER_MS; }

void owner_end(struct owner *o)
{
	catalog_close(o->catalog);
	sim_process_destroy(o->env);
	o->env = NULL;
}

static int driver_open(struct blk_node *node, const struct blk_open *how, struct report *report)
{
	(void)how;
	(void)report;
	const struct owner_driver *d = container_of(node->driver, struct owner_driver, driver);
	volume_node_init(container_of(node, struct volume_node, node), d->volume, NULL);
	return 0;
}

static int driver_close(struct blk_node *node)
{
	volume_node_end(container_of(node, struct volume_node, node));
	return 0;
}

int owner_node(struct owner *o, struct owner_driver *driver, struct volume *v, struct blk_node **ret_node, struct report *report)
{
	struct blk_open how = { .node_name = "v" };
	*driver = (struct owner_driver){ { .name = "volume", .node_size = sizeof(struct volume_node),
		.frame_size = sizeof(struct volume_frame), .depth = 8, .open = driver_open, .close = driver_close, .submit = volume_node_submit }, v };
	return blk_open(o->env, &driver->driver, &how, NULL, 0, ret_node, report);
}

void owner_limit_indexes(const struct scenario_run *run, struct volume_limits *l)
{
	if (run->seed % 3 == 0)
		return;
	l->index_from = 1 + (uint32_t)(run->seed / 3 % 5);
	l->index_chunks = 1 + (uint32_t)(run->seed / 15 % 4);
}

int owner_open(struct owner *o, const char *name, const struct volume_limits *limits, bool force, struct report *report)
{
	uint64_t id = 0;
	int r = store_find_volume(&o->places, name, &id, report);
	struct volume_open how = { .catalog = o->catalog, .places = &o->places.ops, .volume = id, .holder = "sim", .control = o->control,
				   .force = force, .accept_flushed = o->accept_flushed, .limits = *limits };
	if (r == 0)
		r = volume_open(o->env, &how, &o->volume, report);
	if (r == 0 && o->idle_ns && o->volume->copies->catalog) {
		o->volume->copies->idle_ns = o->idle_ns;
		timer_cancel(o->env, &o->volume->copies->sweep);
	}
	return r < 0 ? r : owner_node(o, &o->driver, o->volume, &o->node, report);
}

int owner_seize(struct owner *o, const char *name, const struct volume_limits *limits, struct report *report)
{
	int r = -EAGAIN;
	for (unsigned attempt = 0; r < 0 && attempt < 100; attempt++) {
		report->text[0] = '\0';
		if (attempt)
			fiber_sleep(&o->env->loop, 100 * NS_PER_MS);
		r = owner_open(o, name, limits, /* force= */ true, report);
	}
	return r;
}

/* ---- as programs do it ---- */

int owner_store(struct owner *o, const char *host, const char *url, struct report *report)
{
	struct store_options how = { .root = "" };
	int r = config_set(o->env, "", "host", host, report);
	if (r == 0)
		r = config_set(o->env, "", "catalog", url, report);
	if (r == 0)
		r = store_open(o->env, &how, &o->opened, report);
	if (r == 0)
		o->store = *o->opened;
	return r;
}

int owner_store_close(void *owner)
{
	struct owner *o = owner;
	int r = store_close(o->opened);
	o->opened = NULL;
	return r;
}

int owner_attach(struct owner *o, const char *name, const struct volume_limits *limits, struct report *report)
{
	struct option_values options;
	int r = option_parse(driver_volume.options, (const char *[]){ NULL }, (const char *[]){ name }, 1, &options, report);
	struct blk_open how = { .options = &options, .node_name = "v", .holder = "sim", .control = o->control, .root = "" };
	if (r == 0)
		r = blk_open(o->env, &driver_volume, &how, NULL, 0, &o->node, report);
	if (r < 0)
		return r;
	o->attached = true;
	o->volume = container_of(o->node, struct volume_node, node)->volume;
	o->volume->limits = *limits; /* as it opened it, it has more of everything */
	if (limits->index_from) {
		o->volume->space.index_from = limits->index_from;
		o->volume->space.index_chunks = limits->index_chunks;
	}
	return 0;
}

int owner_close(void *owner)
{
	struct owner *o = owner;
	int closed = blk_close(o->node), r = o->attached ? closed : volume_close(o->volume);
	o->attached = false;
	o->node = NULL;
	o->volume = NULL;
	return r;
}

/* ---- readers ---- */

static int change_key(struct owner *o, const char *key, const char *bytes)
{
	struct catalog_txn *t = calloc(1, sizeof *t);
	catalog_txn_init(t);
	if (bytes)
		catalog_txn_put(t, key, bytes, 0);
	else
		catalog_txn_delete(t, key);
	int r = catalog_txn(o->catalog, t, NULL);
	free(t);
	return r;
}

int owner_hold_snapshot(struct owner *o, uint64_t volume, uint64_t mark_seq, char ret_key[META_KEY_BYTES])
{
	meta_key_reader(volume, mark_seq, env_random(o->env), ret_key);
	return change_key(o, ret_key, "");
}

int owner_let_go(struct owner *o, const char *key) { return change_key(o, key, NULL); }

static int forget_hold(void *arg, const char *key, const struct catalog_value *value)
{
	(void)value;
	return owner_let_go(arg, key);
}

int owner_forget_holds(struct owner *o) { return catalog_list(o->catalog, META_READERS, forget_hold, o); }

/* ---- servers ---- */

void block_server_init(struct block_server *s, struct sim *sim, unsigned index, uint64_t disk_bytes)
{
	*s = (struct block_server){ 0 };
	snprintf(s->domain, sizeof s->domain, "server%u", index);
	snprintf(s->address, sizeof s->address, "tcp:%s:7000", s->domain);
	s->host = sim_host_create(sim, s->domain, disk_bytes, 4096);
}

static void scrub_says(void *arg, const char *text)
{
	const struct block_server *s = arg;
	sim_note(sim_of(s->env), "%s: %s", s->domain, text);
}

/* What it warns of must be so. */
static void watch_says(void *arg, const char *text)
{
	struct block_server *s = arg;
	unsigned percent = store_used_percent(s->dir->free_bytes, s->dir->total_bytes), said = percent;
	bool warns = strncmp(text, "warning: ", 9) == 0, full = strstr(text, "it is full") != NULL;
	sim_note(sim_of(s->env), "%s: %s", s->domain, text);
	if (!full && sscanf(warns ? text + 9 : text, "%u %% of the space is used", &said) != 1)
		scenario_fail(s->run, "%s says: %s", s->domain, text);
	if (said != percent || (full && s->dir->free_bytes >= store_reserve_bytes(s->dir->total_bytes)))
		scenario_fail(s->run, "%s says: %s, and has %u %% used", s->domain, text, percent);
	if (!full && warns != (said > s->warned))
		scenario_fail(s->run, "%s says: %s, and spoke of %u before", s->domain, text, s->warned);
	s->warned = full ? s->warned : said;
}

static int server_run(void *arg)
{
	struct block_server *s = arg;
	static const struct store_warn warn = { .percent = { 1, 2, 3, 50, 90 }, .count = 5 };
	struct segment_dir_options options = { .create = true, .address = s->address, .domain = s->domain };
	struct report report = { "" };
	struct server_limits limits = { 0 };
	struct listener *l;
	int r = -EAGAIN;
	while (r != 0 && !s->env->dead) {
		r = segment_dir_open(s->env, s->path ? s->path : "/data", s->catalog, &options, &s->dir, &report);
		if (r < 0)
			fiber_sleep(&s->env->loop, 50 * NS_PER_MS);
	}
	if (r == 0) {
		s->id = s->dir->id;
		r = stream_listen(s->env, s->address, &l);
	}
	if (r == 0)
		r = server_start(s->env, l, s->dir, &limits, &s->server);
	if (r == 0)
		r = watch_start(s->env, s->dir, &warn, watch_says, s, &s->watch);
	if (r < 0)
		return r;
	struct placed_server placed = { .id = s->dir->id, .weight = 1 };
	snprintf(placed.domain, sizeof placed.domain, "%s", s->domain);
	r = placement_join(s->catalog, &placed, &report);
	while (r == 0 && s->keeps && !s->keeper && !s->env->dead)
		if (keeper_start(s->env, s->catalog, s->dir, s->server, s->keeps, &s->keeper, &report) < 0)
			fiber_sleep(&s->env->loop, 50 * NS_PER_MS);
	if (r == 0 && s->keeper && !s->env->dead) {
		struct scrub_options scrubs = { .directory = s->path ? s->path : "/data", .period_ns = s->scrub_ns ? s->scrub_ns : NS_PER_S / 4, .log = scrub_says, .arg = s };
		r = scrub_start(s->env, s->catalog, s->dir, s->server, &scrubs, &s->scrub);
	}
	return r;
}

static int server_close(void *arg)
{
	struct block_server *s = arg;
	scrub_stop(s->scrub);
	s->scrub = NULL;
	keeper_stop(s->keeper);
	s->keeper = NULL;
	watch_stop(s->watch);
	s->watch = NULL;
	server_stop(s->server, NS_PER_S);
	int r = segment_server_close(s->dir);
	s->server = NULL;
	s->dir = NULL;
	return r;
}

void block_server_begin(struct block_server *s, struct scenario_run *run, struct sim *sim, struct catalog_sim *catalogs)
{
	struct scenario_task *t = calloc(1, sizeof *t);
	s->run = run;
	s->warned = 0;
	s->env = sim_process_create(sim, s->host);
	s->catalog = catalog_sim_open(catalogs, s->env);
	scenario_task_start(t, s->env, server_run, s);
	if (!scenario_step_until(run, sim, &t->ended, START_STEPS))
		scenario_fail(run, "%s doesn't start", s->domain);
	if (!t->ended) {
		sim_kill(s->env);
		sim_drain_dead(s->env);
	}
	free(t);
}

void block_server_end(struct block_server *s, bool power)
{
	if (power)
		sim_power_loss(s->host);
	else
		sim_kill(s->env);
	sim_drain_dead(s->env);
	sim_run_fiber(s->env, server_close, s);
	catalog_close(s->catalog);
	sim_process_destroy(s->env);
	s->env = NULL;
}
