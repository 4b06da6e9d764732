/* Scenarios `volume`, `cluster` and `rebuild`: what is asked of the store between lives, and at the end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/store/store_check.h"
#include "tests/sim/embedded_scrub.h"
#include "tests/sim/heal.h"
#include "tests/sim/volume_world.h"

/* ---- commands between lives: the store's operations, by a process that may be killed in the middle ---- */

static void expect(struct volume_world *w, int r, const char *what, const char *name, const struct report *report)
{
	if (r < 0 && r != -ETIMEDOUT && r != -ENOTCONN && !(r == -EIO && w->may_fail) && !w->o.env->dead && !w->faults)
		FAIL(w, "life %u: %s %s: %s", LIFE(w), what, name, report_text(report, r));
}

static void command_clone(struct volume_world *w)
{
	struct snapshot *s = known_snapshot(w);
	struct clone *c = &w->clones[draw(w, CLONES_MAX)];
	struct report report = { "" };
	char from[64];
	if (!s || c->used)
		return;
	*c = (struct clone){ .used = true };
	snprintf(c->name, sizeof c->name, "c%u", w->next_name++);
	snprintf(from, sizeof from, "v@%s", s->name);
	c->bytes = malloc(disk_bytes(w));
	memcpy(c->bytes, s->bytes, disk_bytes(w));
	int r = store_clone(&w->o.store, from, c->name, &report);
	c->acked = r == 0;
	expect(w, r, "clone", from, &report);
}

static int with_clone(struct volume_world *w, struct clone *c, struct report *report)
{
	uint64_t id;
	struct volume *v;
	int r = store_find_volume(&w->o.places, c->name, &id, report);
	struct volume_open how = { .catalog = w->o.catalog, .places = &w->o.places.ops, .volume = id, .holder = "sim", .limits = w->limits };
	if (r == 0)
		r = volume_open(w->o.env, &how, &v, report);
	if (r < 0)
		return r;
	struct owner_driver driver;
	struct blk_node *node = NULL;
	uint8_t *bytes = env_alloc_aligned(round_up(disk_bytes(w), BLOCK_BYTES));
	r = owner_node(&w->o, &driver, v, &node, report);
	for (uint64_t at = 0; r == 0 && at < disk_bytes(w); at += 64 << 10)
		r = blk_read_wait(node, bytes + at, MIN(disk_bytes(w) - at, (uint64_t)64 << 10), at);
	if (r == 0 && c->bytes && c->unflushed && sim_faults(w->sim, SIM_POWER_LOSS) != c->power_losses) { /* a prefix of what was written is there: P1 */
		free(c->bytes);
		c->bytes = NULL;
	}
	if (r == 0 && c->bytes && memcmp(bytes, c->bytes, disk_bytes(w)))
		FAIL(w, "life %u: clone %s isn't what its snapshot was", LIFE(w), c->name);
	if (r == 0 && !c->bytes) {
		c->bytes = malloc(disk_bytes(w));
		memcpy(c->bytes, bytes, disk_bytes(w));
	}
	c->unflushed &= r < 0; /* what was served stays */
	bool written = false;
	for (unsigned n = (unsigned)draw(w, 20); r == 0 && n > 0; n--) { /* a write of its own; the parent must not see it */
		uint64_t at = draw(w, disk_bytes(w) / BLOCK_BYTES) * BLOCK_BYTES;
		memset(bytes, (int)draw(w, 256), BLOCK_BYTES);
		uint8_t *kept = c->bytes;
		c->bytes = NULL;
		r = blk_write_wait(node, bytes, BLOCK_BYTES, at, 0);
		if (r == 0 && !w->o.env->dead) {
			memcpy(kept + at, bytes, BLOCK_BYTES);
			c->bytes = kept;
			written = true;
		} else {
			free(kept);
		}
	}
	free(bytes);
	blk_close(node);
	int closed = volume_close(v);
	c->written |= written && closed == 0;
	if (written && closed < 0) {
		c->unflushed = true;
		c->power_losses = sim_faults(w->sim, SIM_POWER_LOSS);
	}
	return r ? r : closed;
}

static void command_use_clone(struct volume_world *w)
{
	struct clone *c = &w->clones[draw(w, CLONES_MAX)];
	struct report report = { "" };
	if (!c->used)
		return;
	int r = with_clone(w, c, &report);
	if (r == -ENOENT && !c->acked) {
		free(c->bytes);
		*c = (struct clone){ 0 };
		return;
	}
	c->acked |= r == 0;
	expect(w, r, "using clone", c->name, &report);
}

static void command_delete_clone(struct volume_world *w)
{
	struct clone *c = &w->clones[draw(w, CLONES_MAX)];
	struct report report = { "" };
	if (!c->used)
		return;
	int r = store_volume_delete(&w->o.store, c->name, true, &report);
	if (r == 0 || (r == -ENOENT && !c->acked)) {
		free(c->bytes);
		*c = (struct clone){ 0 };
		return;
	}
	c->acked = false; /* it may be gone */
	expect(w, r, "deleting clone", c->name, &report);
}

static void command_rollback(struct volume_world *w)
{
	struct snapshot *s = known_snapshot(w);
	struct report report = { "" };
	char name[64];
	if (!s)
		return;
	for (unsigned i = 0; i < SNAPSHOTS_MAX; i++)
		if (w->snapshots[i].used && !w->snapshots[i].known)
			w->snapshots[i].late = true;
	snprintf(name, sizeof name, "v@%s", s->name);
	w->rolling_back = s;
	int r = store_snapshot_rollback(&w->o.store, name, &report);
	if (r == 0 && !w->o.env->dead) {
		oracle_assume(w->oracle, s->bytes);
		w->rolling_back = NULL;
	}
	if (r != -EAGAIN) /* a dead owner's last transaction arrived meanwhile: to be tried again */
		expect(w, r, "rollback to", name, &report);
}

static void command_delete_snapshot(struct volume_world *w)
{
	struct snapshot *s = known_snapshot(w);
	struct report report = { "" };
	char name[64];
	if (!s || s == w->rolling_back)
		return;
	s->doomed = true;
	snprintf(name, sizeof name, "v@%s", s->name);
	expect(w, store_snapshot_delete(&w->o.store, name, &report), "deleting", name, &report);
}

/* Of a disk that makes no errors of its own. */
static void command_look(struct volume_world *w)
{
	struct snapshot *s = known_snapshot(w);
	if (w->remote)
		return;
	embedded_status(w);
	if (s && !w->faults && !w->may_fail && w->run->seed % 2)
		embedded_scrub(w, s);
}

static int commands_run(void *arg)
{
	struct volume_world *w = arg;
	for (unsigned n = 1 + (unsigned)draw(w, 5); n > 0 && !w->run->failed && !w->o.env->dead; n--)
		switch (draw(w, 9)) {
		case 0: case 1: command_clone(w); break;
		case 2: case 3: command_use_clone(w); break;
		case 4: command_delete_clone(w); break;
		case 8: command_look(w); break;
		case 5: if (!w->rolling_back) command_rollback(w); break;
		default: command_delete_snapshot(w); break;
		}
	return 0;
}

void commands(struct volume_world *w)
{
	struct scenario_task task;
	sim_note(w->sim, "commands");
	owner_begin(&w->o, w->sim, w->host, w->catalogs, /* locks= */ true);
	scenario_task_start(&task, w->o.env, commands_run, w);
	uint64_t steps = draw(w, 3) == 0 ? draw(w, 8000) : STEPS_MAX;
	if (!scenario_step_until(w->run, w->sim, &task.ended, steps) && steps == STEPS_MAX)
		FAIL(w, "life %u: a command does not end", LIFE(w));
	if (!task.ended)
		sim_kill(w->o.env);
	while (!task.ended && w->o.env->dead)
		sim_drain_dead(w->o.env);
	owner_end(&w->o);
}

/* ---- what a life leaves ---- */

static bool says_alive(void *arg, const struct meta_owner *owner)
{
	(void)arg;
	return owner->state != OWNER_FREE;
}

static int nobody_answers(void *arg, const struct store_holder *holder, const char *verb, const char *const *args, uint64_t deadline_ns, char **ret_json,
			  struct report *report)
{
	(void)arg, (void)holder, (void)verb, (void)args, (void)deadline_ns, (void)ret_json;
	return report_set(report, -ECONNREFUSED, "nobody is there");
}

static void note_fault(void *arg, const char *volume, const char *text)
{
	struct report *first = arg;
	(void)volume;
	if (!first->text[0])
		snprintf(first->text, sizeof first->text, "%s", text);
}

/* A server that is being reconnected, or a copy that is being made, is looked at again; what is freed too early stays so. */
void check_published(struct volume_world *w)
{
	struct owner *o = &w->o;
	struct report report, fault = { "" };
	o->places.ops.holder_alive = says_alive; /* or it would be recovered first */
	o->store.forward = nobody_answers;
	for (unsigned attempt = 0; attempt < 8 && !o->env->dead; attempt++) {
		struct store_check how = { .volume = "v", .fault = note_fault, .arg = &fault };
		if (attempt)
			fiber_sleep(&o->env->loop, NS_PER_S);
		report.text[0] = fault.text[0] = '\0';
		if (store_check(&o->store, &how, &report) == 0 && !fault.text[0])
			break;
	}
	o->places.ops.holder_alive = NULL;
	o->store.forward = NULL;
	if (fault.text[0] && !o->env->dead)
		FAIL(w, "life %u: what the last one left published: %s", LIFE(w), fault.text);
}

/* Everything is deleted, also what a transaction that arrived late has made: nothing may be left but counters. */
struct names {
	char name[32][64];
	unsigned count;
};

static void note_name(void *arg, const char *key, const struct catalog_value *value)
{
	struct names *n = arg;
	(void)value;
	if (n->count < ARRAY_COUNT(n->name))
		snprintf(n->name[n->count++], sizeof n->name[0], "%s", key + strlen("name/"));
}

static void count_key(void *arg, const char *key, const struct catalog_value *value)
{
	(void)key;
	(void)value;
	++*(unsigned *)arg;
}

/* What a server that was away kept from being freed is freed by a later look, as an agent's would be. */
static int delete_all_run(void *arg)
{
	struct volume_world *w = arg;
	struct report report = { "" };
	struct names *names = calloc(1, sizeof *names);
	int r = 0;
	for (unsigned attempt = 0; attempt < 20; attempt++) {
		owner_forget_holds(&w->o);
		names->count = 0;
		catalog_sim_each(w->catalogs, "name/", note_name, names);
		for (unsigned i = 0; i < names->count; i++)
			r = store_volume_delete(&w->o.store, names->name[i], true, &report);
		store_reap(&w->o.store);
		unsigned left = 0;
		catalog_sim_each(w->catalogs, "reap/", count_key, &left);
		if (names->count == 0 && left == 0)
			break;
		fiber_sleep(&w->o.env->loop, NS_PER_S);
	}
	free(names);
	return r == -ENOENT ? 0 : r;
}

static void left_over(void *arg, const char *key, const struct catalog_value *value)
{
	struct volume_world *w = arg;
	(void)value;
	FAIL(w, "everything was deleted, but the catalog has %s", key);
}

void delete_all(struct volume_world *w)
{
	static const char *const kinds[] = { "name/", "volume/", "snapshot/", "snapname/", "clone/", "reap/" };
	catalog_sim_doses(w->catalogs)->timeout = 0;
	sim_note(w->sim, "everything is deleted");
	owner_begin(&w->o, w->sim, w->host, w->catalogs, /* locks= */ true);
	int r = sim_run_fiber(w->o.env, delete_all_run, w);
	owner_end(&w->o);
	if (r < 0)
		FAIL(w, "deleting everything: %d", r);
	for (unsigned i = 0; i < ARRAY_COUNT(kinds); i++)
		catalog_sim_each(w->catalogs, kinds[i], left_over, w);
}

static int undo_drains_run(void *arg)
{
	struct volume_world *w = arg;
	struct report report = { "" };
	int r = 0;
	for (unsigned i = 0; r == 0 && i < w->server_count; i++) {
		char id[33];
		id_text(&w->servers[i].id, id);
		r = store_server_drain(&w->o.store, id, /* undo= */ true, /* force= */ true, &report);
	}
	if (r < 0)
		FAIL(w, "a server can't be used again: %s", report_text(&report, r));
	return r;
}

void undo_drains(struct volume_world *w)
{
	catalog_sim_doses(w->catalogs)->timeout = 0;
	owner_begin(&w->o, w->sim, w->host, w->catalogs, /* locks= */ true);
	sim_run_fiber(w->o.env, undo_drains_run, w);
	owner_end(&w->o);
}
