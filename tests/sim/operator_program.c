/* Scenario `operator`: what is done by processes as programs are, by their configuration, with the driver, locks and leases; and what is
 * asked of attached volumes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/drivers.h"
#include "core/fiber.h"
#include "core/option.h"
#include "tests/sim/catalog_url.h"
#include "tests/sim/operator.h"

#define WHERE "http://catalog:2379"
#define URL "etcd:" WHERE
#define LOOK_NS (3 * NS_PER_S) /* an agent's, at its entry */

/* ---- processes ---- */

static int desk_store(void *arg)
{
	struct operator_world *w = arg;
	struct report report = { "" };
	int r = owner_store(&w->desk, "desk", URL, &report);
	if (r < 0)
		FAIL(w, "the store can't be opened: %s", report_text(&report, r));
	return r;
}

/* As an agent is registered, so that holders on its host can be asked. */
static int agent_run(void *arg)
{
	struct operator_world *w = arg;
	struct report report = { "" };
	struct store_registration *reg = NULL;
	int r = owner_store(&w->agent, "host", URL, &report);
	if (r == 0)
		r = store_agent_register(&w->agent.store, "tcp:host:7001", "0.1", &reg, &report);
	if (r < 0)
		FAIL(w, "the agent: %s", report_text(&report, r));
	w->agent_there = r == 0;
	while (r == 0 && !w->agent_stop && !w->agent.env->dead) {
		fiber_sleep(&w->agent.env->loop, LOOK_NS);
		report.text[0] = '\0';
		if (store_agent_check(reg, &report) == -EEXIST)
			FAIL(w, "the agent: %s", report.text);
	}
	store_agent_leave(reg);
	return r;
}

void programs_begin(struct operator_world *w)
{
	catalog_url_name(w->sim, WHERE, w->catalogs);
	owner_begin(&w->agent, w->sim, w->host, w->catalogs, /* locks= */ false);
	scenario_task_start(&w->agent_task, w->agent.env, agent_run, w);
	while (!w->run->failed && !w->agent_there && sim_step(w->sim))
		;
	if (!w->run->failed)
		sim_run_fiber(w->desk.env, desk_store, w);
}

void programs_end(struct operator_world *w)
{
	w->agent_stop = true;
	if (w->run->failed)
		sim_kill(w->agent.env);
	while (!w->agent_task.ended && w->agent.env->dead)
		sim_drain_dead(w->agent.env);
	if (!w->agent_task.ended)
		scenario_step_until(w->run, w->sim, &w->agent_task.ended, STEPS_MAX);
	sim_run_fiber(w->agent.env, owner_store_close, &w->agent);
	owner_end(&w->agent);
	sim_run_fiber(w->desk.env, owner_store_close, &w->desk);
	catalog_url_forget(w->sim);
}

int operator_open(struct operator_world *w, struct owner *o, const char *name, struct report *report)
{
	return w->programs ? owner_attach(o, name, &w->limits, report) : owner_open(o, name, &w->limits, /* force= */ false, report);
}

/* FIBER of the desk. Runs in another process, which both live until the end. */
static int run_elsewhere(struct operator_world *w, struct env *env, int (*run)(void *arg), void *arg)
{
	struct scenario_task t;
	scenario_task_start(&t, env, run, arg);
	while (!t.ended && !w->desk.env->dead)
		fiber_sleep(&w->desk.env->loop, NS_PER_MS);
	if (!t.ended && !env->dead) /* the run has failed */
		sim_kill(env);
	while (!t.ended)
		sim_drain_dead(env);
	return t.status;
}

/* ---- settings ---- */

void command_set(struct operator_world *w, struct report *report)
{
	static const struct { const char *text; uint32_t ms; } times[] = { { "2h", 7200000 }, { "3000s", 3000000 }, { "90m", 5400000 }, { "1d", 86400000 },
									   { "4000001ms", 4000001 }, { "forever", 0 } };
	static const char *const bad[] = { "", "soon", "10", "0s", "999ms", "8d", "-1s", "1 h" };
	struct known_volume *v = any_volume(w, /* attached= */ true);
	struct store_volume shown;
	char text[24];
	uint32_t ms;
	if (!v)
		return;
	refused(w, store_volume_set(&w->desk.store, v->name, "colour", "red", report), "an unknown setting", report);
	report->text[0] = '\0';
	refused(w, store_volume_set(&w->desk.store, v->name, "io-timeout", bad[draw(w, ARRAY_COUNT(bad))], report), "a bad io-timeout", report);
	report->text[0] = '\0';
	unsigned i = (unsigned)draw(w, ARRAY_COUNT(times));
	if (!expect(w, store_volume_set(&w->desk.store, v->name, "io-timeout", times[i].text, report), "setting io-timeout of", v->name, report))
		return;
	if (expect(w, store_volume_show(&w->desk.store, v->name, &shown, report), "showing", v->name, report) && shown.io_timeout_ms != times[i].ms)
		FAIL(w, "%s: io-timeout was set to %s, and is %u ms", v->name, times[i].text, shown.io_timeout_ms);
	store_io_timeout_text(times[i].ms, text);
	if (store_parse_io_timeout(text, &ms, report) < 0 || ms != times[i].ms)
		FAIL(w, "io-timeout %u ms is shown as %s", times[i].ms, text);
}

/* ---- imports ---- */

static int count_imports(void *arg, const struct store_volume *v)
{
	*(unsigned *)arg += strstr(v->name, ".import-") != NULL;
	return 0;
}

struct importer {
	struct operator_world *w;
	struct owner o;
	char temporary[STORE_NAME_BYTES];
};

static int import_some(void *arg)
{
	struct importer *m = arg;
	struct operator_world *w = m->w;
	struct report report = { "" };
	struct store_volume_options o = { .size_bytes = 80 * BLOCK_BYTES };
	int r = owner_store(&m->o, "desk", URL, &report);
	char name[STORE_NAME_BYTES];
	new_name(w, name);
	if (r == 0)
		r = store_import_begin(&m->o.store, name, &o, m->temporary, &report);
	if (r == 0)
		r = owner_attach(&m->o, m->temporary, &w->limits, &report);
	uint8_t *b = env_alloc_aligned(BLOCK_BYTES);
	memset(b, 7, BLOCK_BYTES);
	for (uint64_t n = draw(w, 40); r == 0 && n > 0; n--)
		r = blk_write_wait(m->o.node, b, BLOCK_BYTES, n * BLOCK_BYTES, 0);
	free(b);
	expect(w, r, "importing", name, &report);
	return r;
}

static int importer_close(void *arg)
{
	struct importer *m = arg;
	owner_close(&m->o);
	return owner_store_close(&m->o);
}

/* One that is killed in the middle leaves something until the next one begins on that host. */
void command_import_killed(struct operator_world *w, struct report *report)
{
	struct store_volume_options o = { .size_bytes = 60 * BLOCK_BYTES };
	char temporary[STORE_NAME_BYTES], name[STORE_NAME_BYTES];
	struct importer m = { .w = w };
	unsigned left = 0;
	if (!w->programs)
		return;
	owner_begin(&m.o, w->sim, w->desk_host, w->catalogs, /* locks= */ false);
	run_elsewhere(w, m.o.env, import_some, &m);
	sim_note(w->sim, "the importer is killed");
	sim_kill(m.o.env);
	sim_drain_dead(m.o.env);
	struct scenario_task t;
	scenario_task_start(&t, m.o.env, importer_close, &m);
	while (!t.ended)
		sim_drain_dead(m.o.env);
	owner_end(&m.o);
	new_name(w, name);
	if (!expect(w, store_import_begin(&w->desk.store, name, &o, temporary, report), "importing", name, report))
		return;
	if (expect(w, store_volume_list(&w->desk.store, count_imports, &left, report), "listing", "volumes", report) && left != 1 && w->calm)
		FAIL(w, "%u imports are there, and one is under way", left);
	store_import_cancel(&w->desk.store, temporary);
}

/* ---- snapshots that are attached ---- */

struct reading {
	struct operator_world *w;
	struct owner o;
	struct known_snapshot *of;
	struct contents was;
	char text[STORE_SNAPSHOT_NAME_BYTES];
	struct report report;
};

static int attach_snapshot(struct reading *d, bool read_only)
{
	struct option_values options;
	int r = option_parse(driver_volume.options, (const char *[]){ NULL }, (const char *[]){ d->text }, 1, &options, &d->report);
	struct blk_open how = { .options = &options, .node_name = "s", .holder = "sim", .root = "", .read_only = read_only };
	return r < 0 ? r : blk_open(d->o.env, &driver_volume, &how, NULL, 0, &d->o.node, &d->report);
}

static int reading_begin(void *arg)
{
	struct reading *d = arg;
	char *json = NULL;
	refused(d->w, attach_snapshot(d, /* read_only= */ false), "writing a snapshot", &d->report);
	d->report.text[0] = '\0';
	int r = attach_snapshot(d, /* read_only= */ true);
	if (r < 0)
		return r;
	if (driver_volume.control(d->o.node, "checkpoint", (const char *[]){ NULL }, &json, &d->report) == 0)
		FAIL(d->w, "%s: a snapshot made a checkpoint", d->text);
	if (d->o.node->info.size != (uint64_t)d->was.blocks * BLOCK_BYTES)
		FAIL(d->w, "%s is attached with %llu bytes", d->text, (unsigned long long)d->o.node->info.size);
	return 0;
}

static int reading_read(void *arg)
{
	struct reading *d = arg;
	struct blk_waits waits;
	int r = read_node(d->w, d->text, d->o.node, &d->was);
	driver_volume.waits(d->o.node, &waits);
	return r;
}

static int reading_end(void *arg)
{
	struct reading *d = arg;
	return blk_close(d->o.node);
}

/* It stays what it is for who reads it, also when it is deleted meanwhile, and gc runs. */
void command_attach_snapshot(struct operator_world *w, struct report *report)
{
	struct known_snapshot *s = any_snapshot(w);
	if (!s || !w->programs)
		return;
	struct reading d = { .w = w, .of = s, .was = s->was };
	snapshot_text(s, d.text);
	owner_begin(&d.o, w->sim, w->host, w->catalogs, /* locks= */ false);
	int r = run_elsewhere(w, d.o.env, reading_begin, &d);
	if (expect(w, r, "attaching", d.text, &d.report)) {
		bool deleted = draw(w, 2);
		expect(w, run_elsewhere(w, d.o.env, reading_read, &d), "reading", d.text, report);
		if (deleted) {
			s->used = false;
			expect(w, store_snapshot_delete(&w->desk.store, d.text, report), "deleting", d.text, report);
			for (unsigned n = (unsigned)draw(w, 3); n > 0; n--) {
				command_gc(w, report);
				fiber_sleep(&w->desk.env->loop, draw(w, 10 * NS_PER_S));
			}
		}
		expect(w, run_elsewhere(w, d.o.env, reading_read, &d), deleted ? "reading what was deleted," : "reading again", d.text, report);
	}
	run_elsewhere(w, d.o.env, reading_end, &d);
	owner_end(&d.o);
}

/* ---- attached volumes ---- */

static void sum_item(void *arg, const char *key, uint64_t value)
{
	uint64_t *seen = arg;
	if (strcmp(key, "records") == 0)
		seen[0] = value;
	if (strcmp(key, "failed") == 0)
		seen[1] = value;
	seen[2]++;
}

static int ask_run(void *arg)
{
	struct seat *s = arg;
	struct operator_world *w = s->w;
	struct report report = { "" };
	struct blk_waits waits;
	char state[16], why[128], *json = NULL;
	uint64_t seen[3] = { 0 };
	volume_node_describe(s->o.node, sum_item, seen);
	if (seen[1] || seen[2] < 10)
		FAIL(w, "%s: %u counters, failed: %u", s->volume->name, (unsigned)seen[2], (unsigned)seen[1]);
	if (!w->programs)
		return 0;
	bool waiting = driver_volume.waits(s->o.node, &waits);
	if (waiting && w->calm && waits.timed_out)
		FAIL(w, "%s: %u requests timed out, and nothing was wrong", s->volume->name, (unsigned)waits.timed_out);
	if (driver_volume.condition(s->o.node, state, why, sizeof why))
		FAIL(w, "%s: is %s %s", s->volume->name, state, why);
	int r = driver_volume.control(s->o.node, "status", (const char *[]){ NULL }, &json, &report);
	if (expect(w, r, "asking", s->volume->name, &report) && (!json || json[0] != '{'))
		FAIL(w, "%s: its status is %s", s->volume->name, json ? json : "nothing");
	free(json);
	json = NULL;
	if (driver_volume.control(s->o.node, "sing", (const char *[]){ NULL }, &json, &report) != -EOPNOTSUPP)
		FAIL(w, "%s: an unknown verb isn't refused", s->volume->name);
	free(json);
	return 0;
}

void command_ask_seats(struct operator_world *w, struct report *report)
{
	(void)report;
	for (unsigned i = 0; i < ATTACHED; i++)
		if (w->seats[i].open)
			run_elsewhere(w, w->seats[i].o.env, ask_run, &w->seats[i]);
}
