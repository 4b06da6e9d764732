/* Scenarios `volume`, `cluster` and `rebuild`: between two lives the catalog is lost, with all that was done since some moment of a life before; it is restored, and what was
 * written since is found in the segments. Whatever happened meanwhile, takeovers, lost disks, late transactions: the next life must find what it would have found. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/store/store_recover.h"
#include "tests/sim/volume_world.h"

static void note_key(void *arg, const char *key, const struct catalog_value *value)
{
	if (strncmp(key, "store/", 6) != 0 && strncmp(key, META_ALIVE, strlen(META_ALIVE)) != 0 && strncmp(key, META_READERS, strlen(META_READERS)) != 0 && strcmp(key, META_MANAGER) != 0)
		catalog_image_add(arg, key, value->bytes, value->length);
}

void volume_backup(struct volume_world *w)
{
	catalog_image_free(&w->kept);
	catalog_sim_each(w->catalogs, "", note_key, &w->kept);
	w->kept_drained = w->drained;
	sim_note(w->sim, "a backup of the catalog: %zu keys", w->kept.count);
}

/* Of the same one perhaps for the second time. */
static int restore_run(void *arg)
{
	struct volume_world *w = arg;
	struct report report = { "" };
	struct catalog *c = w->o.catalog;
	struct catalog_image raised = { 0 };
	int r = catalog_image_erase(c, &report);
	for (size_t i = 0; r == 0 && i < w->kept.count; i++)
		r = catalog_image_add(&raised, w->kept.keys[i].key, w->kept.keys[i].bytes, w->kept.keys[i].length);
	if (r == 0)
		r = catalog_image_raise(&raised, &report);
	if (r == 0)
		r = catalog_image_write(c, &raised, &report);
	if (r == 0)
		r = catalog_mark_restored(c, &raised, "today", &report);
	catalog_image_free(&raised);
	if (r < 0)
		FAIL(w, "life %u: restoring: %s", LIFE(w), report_text(&report, r));
	return r;
}

static void note_recovered(void *arg, const struct store_recovered *v)
{
	struct volume_world *w = arg;
	sim_note(w->sim, "volume %llu, %s: %d, %u snapshots back, %u gone, %s", (unsigned long long)v->id, v->name, v->how, v->snapshots_back, v->snapshots_gone, v->why ? v->why : "");
	if (v->how == STORE_RECOVERED_NOT && !w->o.env->dead && !catalog_sim_doses(w->catalogs)->timeout && !w->may_fail) /* what is read wrong once is read again */
		FAIL(w, "life %u: volume %llu (%s) can't be recovered: %s", LIFE(w), (unsigned long long)v->id, v->name, v->why);
}

/* One whose root no checkpoint had written was said nowhere but in the catalog. */
static void find_snapshots(struct volume_world *w)
{
	for (unsigned i = 0; i < SNAPSHOTS_MAX; i++) {
		struct snapshot *s = &w->snapshots[i];
		uint64_t volume, mark;
		if (!s->used || store_find_snapshot(&w->o.places, "v", s->name, &volume, &mark, NULL) != -ENOENT)
			continue;
		if (s->known && !s->doomed)
			FAIL(w, "life %u: snapshot %s is gone", LIFE(w), s->name);
		s->used = false;
		free(s->bytes);
		s->bytes = NULL;
	}
}

static void find_clones(struct volume_world *w)
{
	for (unsigned i = 0; i < CLONES_MAX; i++) {
		struct clone *c = &w->clones[i];
		uint64_t id;
		if (!c->used || store_find_volume(&w->o.places, c->name, &id, NULL) != -ENOENT)
			continue;
		if (c->written && c->acked)
			FAIL(w, "life %u: clone %s is gone", LIFE(w), c->name);
		free(c->bytes);
		*c = (struct clone){ 0 };
	}
}

/* Until nothing is left: the catalog may not answer, or not say what became of a change. */
static int recover_run(void *arg)
{
	struct volume_world *w = arg;
	struct report report = { "" };
	int r = -ENOTCONN;
	for (unsigned attempt = 0; attempt < 40 && r < 0 && !w->o.env->dead; attempt++) {
		struct store_recover how = { .volume = note_recovered, .arg = w };
		if (attempt)
			fiber_sleep(&w->o.env->loop, NS_PER_S);
		report.text[0] = '\0';
		r = store_recover(&w->o.store, &how, &report);
		if (r == 0 && how.counts[STORE_RECOVERED_NOT])
			r = -EAGAIN;
	}
	if (r < 0 && !w->o.env->dead)
		FAIL(w, "life %u: recovering: %s", LIFE(w), report_text(&report, r));
	return r;
}

static int await_late(void *arg)
{
	struct volume_world *w = arg;
	return fiber_sleep(&w->o.env->loop, 12 * NS_PER_S);
}

static int recovered_run(void *arg)
{
	struct volume_world *w = arg;
	struct report report = { "" };
	find_snapshots(w);
	find_clones(w);
	if ((w->keeps.round_ns || draw(w, 2)) && catalog_mark_confirmed(w->o.catalog, &report) < 0)
		FAIL(w, "confirming: %s", report.text);
	return 0;
}

/* It may be interrupted, by being killed, and is done again. */
static void recover_all(struct volume_world *w)
{
	unsigned kills = draw(w, 3) ? 0 : 1 + (unsigned)draw(w, 3);
	uint32_t timeout = draw(w, 4) ? 0 : 20000;
	bool ended = false;
	catalog_sim_doses(w->catalogs)->timeout = timeout;
	while (!ended && !w->run->failed) {
		struct scenario_task t;
		scenario_task_start(&t, w->o.env, recover_run, w);
		ended = scenario_step_until(w->run, w->sim, &t.ended, kills ? draw(w, 3000) : STEPS_MAX);
		if (!ended && kills-- == 0)
			FAIL(w, "life %u: recovering doesn't end", LIFE(w));
		if (ended)
			break;
		sim_kill(w->o.env);
		while (!t.ended)
			sim_drain_dead(w->o.env);
		owner_end(&w->o);
		owner_begin(&w->o, w->sim, w->host, w->catalogs, /* locks= */ true);
	}
	catalog_sim_doses(w->catalogs)->timeout = 0;
	if (timeout && !w->run->failed) { /* a mark that a volume isn't recovered may have come late; then that is to be done again */
		sim_run_fiber(w->o.env, await_late, w);
		sim_run_fiber(w->o.env, recover_run, w);
	}
	if (!w->run->failed)
		sim_run_fiber(w->o.env, recovered_run, w);
}

/* Before its first checkpoint ends, soon after it was opened for the first time, nobody would find a volume. */
static void note_summary(void *arg, const char *key, const struct catalog_value *value)
{
	bool *found = arg;
	struct meta_log *log = malloc(sizeof *log);
	const char *end = strrchr(key, '/');
	if (end && strcmp(end, "/log") == 0 && meta_log_decode(value->bytes, value->length, log) == 0 && !log->doomed && strcmp(log->name, "v") == 0)
		*found = log->summary.pointer.position != 0;
	free(log);
}

bool volume_can_be_found(struct volume_world *w)
{
	bool found = false;
	catalog_sim_each(w->catalogs, "volume/", note_summary, &found);
	return found;
}

void volume_loses_catalog(struct volume_world *w)
{
	uint32_t timeout = catalog_sim_doses(w->catalogs)->timeout;
	sim_note(w->sim, "the catalog is lost, and restored");
	w->found_again = true;
	catalog_sim_doses(w->catalogs)->timeout = 0;
	for (unsigned i = 0; i < w->server_count; i++)
		block_server_end(&w->servers[i], false);
	owner_begin(&w->o, w->sim, w->host, w->catalogs, /* locks= */ true);
	sim_run_fiber(w->o.env, restore_run, w);
	w->drained = w->kept_drained;
	for (unsigned i = 0; i < w->server_count; i++)
		block_server_begin(&w->servers[i], w->run, w->sim, w->catalogs);
	if (!w->run->failed)
		recover_all(w);
	owner_end(&w->o);
	catalog_sim_doses(w->catalogs)->timeout = timeout;
}
