/* Scenario `operator`: at the very end the catalog is lost, with all that was done since some backup of it. It is restored, and what was written since is looked for:
 * every volume that had anything of its own is what it was, every snapshot is there, and check finds nothing wrong. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/store/store_recover.h"
#include "tests/sim/operator.h"

/* FIBER. The last one that was kept is the one there will be. */
void keep_backup(struct operator_world *w)
{
	struct report report = { "" };
	struct catalog_image i;
	if (catalog_image_read(w->desk.catalog, &i, &report) < 0)
		return;
	catalog_image_free(&w->kept);
	w->kept = i;
	sim_note(w->sim, "a backup is kept");
}

/* ---- what must be there ---- */

struct expected {
	struct {
		uint64_t id;
		bool has_own; /* segments */
	} volumes[VOLUMES_MAX];
	struct store_mark snapshots[SNAPSHOTS_MAX];
	unsigned attached; /* volumes that were, when the backup was made */
};

static int note_expected(struct operator_world *w, struct expected *x)
{
	struct meta_log *log = malloc(sizeof *log);
	int r = 0;
	for (unsigned i = 0; r == 0 && i < VOLUMES_MAX; i++) {
		if (!w->volumes[i].used)
			continue;
		r = store_find_volume(w->desk.store.places, w->volumes[i].name, &x->volumes[i].id, NULL);
		if (r == 0)
			r = meta_get_log(w->desk.catalog, x->volumes[i].id, log, NULL);
		x->volumes[i].has_own = log->space.pointer.position != 0;
	}
	for (unsigned i = 0; r == 0 && i < SNAPSHOTS_MAX; i++)
		if (w->snapshots[i].used)
			r = store_find_snapshot(w->desk.store.places, w->snapshots[i].of->name, w->snapshots[i].name, &x->snapshots[i].volume, &x->snapshots[i].mark, NULL);
	free(log);
	if (r < 0)
		FAIL(w, "what there is can't be read: %d", r);
	return r;
}

/* ---- lost and restored ---- */

static int restore(struct operator_world *w, struct report *report)
{
	struct catalog *c = w->desk.catalog;
	int r = catalog_image_erase(c, report);
	if (r == 0)
		r = catalog_image_raise(&w->kept, report);
	if (r == 0)
		r = catalog_image_write(c, &w->kept, report);
	if (r == 0)
		r = catalog_mark_restored(c, &w->kept, "today", report);
	return expect(w, r, "restoring", "the catalog", report) ? 0 : r;
}

struct lost {
	struct operator_world *w;
	struct expected x;
	bool recovered;
};

static int lose_run(void *arg)
{
	struct lost *l = arg;
	struct report report = { "" };
	int r = note_expected(l->w, &l->x);
	return r ? r : restore(l->w, &report);
}

/* ---- and recovered ---- */

static void note_recovered(void *arg, const struct store_recovered *v)
{
	static const char *const how[] = { "is as it was", "is newer", "is back", "is gone", "is left over", "can't be recovered" };
	struct operator_world *w = arg;
	sim_note(w->sim, "volume %llu, %s: %s, %u and %u snapshots, %s", (unsigned long long)v->id, v->name, how[v->how], v->snapshots_back, v->snapshots_gone, v->why ? v->why : "");
	if (v->how == STORE_RECOVERED_NOT && !catalog_sim_doses(w->catalogs)->timeout && !w->without)
		FAIL(w, "volume %llu (%s) can't be recovered: %s", (unsigned long long)v->id, v->name, v->why);
}

static void compare_volume(struct operator_world *w, struct known_volume *v, uint64_t id, bool has_own)
{
	struct store_names names = { 0 };
	bool found = false;
	if (store_names_read(&w->desk.store, &names, NULL) < 0)
		FAIL(w, "names can't be read");
	for (size_t i = 0; i < names.count && !w->run->failed; i++)
		if (names.entries[i].named.volume == id) {
			found = true;
			strcpy(v->name, names.entries[i].name); /* renamed since, it is called what it was then */
			use_volume(w, v, v->name);
		}
	if (!found && has_own)
		FAIL(w, "%s, volume %llu, isn't there any more", v->name, (unsigned long long)id);
	v->used = found;
	free(names.entries);
}

static int compare_all(struct operator_world *w, const struct expected *x)
{
	for (unsigned i = 0; i < SNAPSHOTS_MAX && !w->run->failed; i++)
		if (w->snapshots[i].used)
			expect(w, read_mark(w, &w->snapshots[i], x->snapshots[i].volume, x->snapshots[i].mark), "after the catalog was lost, reading", w->snapshots[i].name, NULL);
	for (unsigned i = 0; i < VOLUMES_MAX && !w->run->failed; i++)
		if (w->volumes[i].used && (x->volumes[i].has_own || !w->without)) /* else it may have been deleted, as far as they know who answer */
			compare_volume(w, &w->volumes[i], x->volumes[i].id, x->volumes[i].has_own);
	return 0;
}

/* Again until nothing is left, where the catalog doesn't always answer, or doesn't say what became of a change. */
static int recover_all(struct operator_world *w, bool force, struct report *report)
{
	bool away = draw(w, 2);
	int r = -EAGAIN;
	catalog_sim_doses(w->catalogs)->timeout = away ? 30000 : 0;
	for (unsigned attempt = 0; attempt < 40 && r < 0 && (away || attempt == 0); attempt++) {
		struct store_recover how = { .force = force, .volume = note_recovered, .arg = w };
		report->text[0] = '\0';
		r = store_recover(&w->desk.store, &how, report);
		if (r == 0 && how.counts[STORE_RECOVERED_NOT] && !force)
			r = -EAGAIN;
	}
	catalog_sim_doses(w->catalogs)->timeout = 0;
	if (away && r == 0) { /* a mark that a volume isn't recovered may have come late; then that is to be done again */
		struct store_recover how = { .force = force, .volume = note_recovered, .arg = w };
		fiber_sleep(&w->desk.env->loop, 12 * NS_PER_S);
		r = store_recover(&w->desk.store, &how, report);
	}
	return r;
}

static int recover_run(void *arg)
{
	struct lost *l = arg;
	struct operator_world *w = l->w;
	struct report report = { "" };
	int r = owner_open(&w->desk, w->volumes[0].used ? w->volumes[0].name : "v0", &w->limits, /* force= */ false, &report);
	if (r != -EPERM && r != -ENOENT)
		FAIL(w, "a volume could be opened before it was recovered: %d", r);
	owner_close(&w->desk);
	report.text[0] = '\0';
	l->recovered = expect(w, recover_all(w, w->without != 0, &report), "recovering", "all", &report);
	return 0;
}

static int compare_run(void *arg)
{
	struct lost *l = arg;
	struct operator_world *w = l->w;
	return compare_all(w, &l->x);
}

static int settle_run(void *arg)
{
	struct lost *l = arg;
	struct operator_world *w = l->w;
	struct report report = { "" };
	struct store_gc gc;
	bool without = w->without;
	w->without = 0;
	if (!w->run->failed && (without || draw(w, 2))) { /* again: nothing is left to be done, unless it was for who is back */
		struct store_recover again = { .volume = note_recovered, .arg = w };
		expect(w, store_recover(&w->desk.store, &again, &report), "recovering again", "all", &report);
		if (!without && (again.counts[STORE_RECOVERED_NEWER] || again.counts[STORE_RECOVERED_BACK] || again.counts[STORE_RECOVERED_GONE]))
			FAIL(w, "recovered again, %llu volumes are newer, %llu back", (unsigned long long)again.counts[STORE_RECOVERED_NEWER],
			     (unsigned long long)again.counts[STORE_RECOVERED_BACK]);
	}
	expect(w, catalog_mark_confirmed(w->desk.catalog, &report), "confirming", "it", &report);
	if (!w->run->failed)
		expect(w, store_gc(&w->desk.store, &gc, &report), "gc of", "all", &report);
	fiber_sleep(&w->desk.env->loop, 60 * NS_PER_S);
	if (!w->run->failed)
		command_check(w, &report);
	return 0;
}

static void servers_end(struct operator_world *w)
{
	for (unsigned i = 0; i < w->server_count; i++)
		block_server_end(&w->servers[i], false);
}

static void servers_begin(struct operator_world *w, unsigned but)
{
	for (unsigned i = 0; i < w->server_count; i++)
		if (i + 1 != but && !w->servers[i].env)
			block_server_begin(&w->servers[i], w->run, w->sim, w->catalogs);
}

/* Who had a volume attached is gone; or nobody thought of him, and he goes on as long as he can: what he acknowledged is there, too. */
void lose_catalog(struct operator_world *w)
{
	struct lost *l = calloc(1, sizeof *l);
	bool live = draw(w, 2), restarted = !live || draw(w, 2);
	l->w = w;
	w->without = !live && draw(w, 3) == 0 ? 1 + (unsigned)draw(w, w->server_count) : 0;
	w->losing = live;
	if (live)
		seats_go_on(w);
	else
		seats_end(w);
	for (uint64_t n = live ? draw(w, 20000) : 0; n > 0 && !w->run->failed && sim_step(w->sim); n--)
		;
	if (restarted)
		servers_end(w);
	sim_run_fiber(w->desk.env, lose_run, l);
	if (restarted)
		servers_begin(w, w->without);
	if (!w->run->failed)
		sim_run_fiber(w->desk.env, recover_run, l);
	if (live)
		seats_end(w);
	if (!w->run->failed && l->recovered)
		sim_run_fiber(w->desk.env, compare_run, l);
	servers_begin(w, 0);
	if (!w->run->failed && l->recovered)
		sim_run_fiber(w->desk.env, settle_run, l);
	free(l);
}
