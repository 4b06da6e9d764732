/* Scenario `operator`: what is asked of the cluster as a whole. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/store/store_check.h"
#include "parallax/store/store_scrub.h"
#include "parallax/store/store_status.h"
#include "tests/sim/operator.h"

struct findings {
	struct operator_world *w;
	unsigned count;
	char first[256];
};

static void check_fault(void *arg, const char *volume, const char *text)
{
	struct findings *f = arg;
	if (f->count++ == 0)
		snprintf(f->first, sizeof f->first, "%s: %s", volume ? volume : "the catalog", text);
}

static void check_volume(void *arg, const struct store_checked *v) { (void)arg, (void)v; }
static void on_progress(void *arg, uint64_t done, uint64_t total) { (void)arg, (void)done, (void)total; }

/* What is found wrong may be a copy that is just made, or gone: it is looked at again. */
void command_check(struct operator_world *w, struct report *report)
{
	struct known_volume *v = draw(w, 3) == 0 ? any_volume(w, /* attached= */ true) : NULL;
	struct findings f;
	int r;
	for (unsigned attempt = 0; attempt < 6; attempt++) {
		f = (struct findings){ .w = w };
		struct store_check how = { .volume = v ? v->name : NULL, .fault = check_fault, .checked = check_volume, .progress = on_progress, .arg = &f };
		report->text[0] = '\0';
		r = store_check(&w->desk.store, &how, report);
		if (r < 0 || f.count == 0)
			break;
		fiber_sleep(&w->desk.env->loop, 10 * NS_PER_S);
	}
	if (expect(w, r, "checking", v ? v->name : "all", report) && f.count)
		FAIL(w, "check finds %u faults: %s", f.count, f.first);
}

static void scrub_fault(void *arg, const char *where, const char *text, bool repaired)
{
	struct findings *f = arg;
	(void)repaired;
	if (f->count++ == 0)
		snprintf(f->first, sizeof f->first, "%s: %s", where, text);
}

static void scrub_skipped(void *arg, const char *where, const char *why)
{
	struct findings *f = arg;
	if (f->w->calm)
		FAIL(f->w, "scrub skips %s: %s", where, why);
}

void command_scrub(struct operator_world *w, struct report *report)
{
	struct known_volume *v = draw(w, 3) == 0 ? any_volume(w, /* attached= */ true) : NULL;
	struct findings f = { .w = w };
	struct store_scrub how = { .volume = v ? v->name : NULL, .fault = scrub_fault, .skipped = scrub_skipped, .progress = on_progress, .arg = &f };
	expect(w, store_scrub(&w->desk.store, &how, report), "scrubbing", v ? v->name : "all", report);
	if (f.count)
		FAIL(w, "scrub finds %u faults: %s", f.count, f.first);
}

void command_gc(struct operator_world *w, struct report *report)
{
	struct store_gc gc;
	if (expect(w, store_gc(&w->desk.store, &gc, report), "gc of", "all", report) && w->calm && gc.silent)
		FAIL(w, "%u servers don't answer gc", gc.silent);
}

/* Problems that are only: nobody has checked, or scrubbed, or something moves. */
void judge_status(struct operator_world *w, const struct store_status *t, bool settled)
{
	if (!w->calm)
		return;
	if (t->server_count != w->server_count)
		FAIL(w, "status shows %zu servers of %u", t->server_count, w->server_count);
	for (size_t i = 0; i < t->server_count; i++)
		if (!t->servers[i].server.answers)
			FAIL(w, "status: %s doesn't answer", t->servers[i].server.address);
	for (size_t i = 0; i < t->volume_count; i++)
		if (t->volumes[i].volume.state == STORE_HELD && !t->volumes[i].asked)
			FAIL(w, "status: %s wasn't asked: %s", t->volumes[i].volume.name, t->volumes[i].why);
	if (settled && t->problem_count)
		FAIL(w, "status: %s", t->problems[0]);
}

void command_status(struct operator_world *w, struct report *report)
{
	struct store_status *t = NULL;
	if (expect(w, store_status(&w->desk.store, &t, report), "status of", "all", report))
		judge_status(w, t, /* settled= */ false);
	store_status_free(t);
}

static int count_server(void *arg, const struct store_server *s)
{
	struct findings *f = arg;
	f->count++;
	if (!s->answers && f->w->calm)
		FAIL(f->w, "%s is listed as away", s->address);
	return 0;
}

void command_servers(struct operator_world *w, struct report *report)
{
	struct findings f = { .w = w };
	struct store_server found, again;
	unsigned i = (unsigned)draw(w, w->server_count);
	expect(w, store_server_list(&w->desk.store, count_server, &f, report), "listing", "servers", report);
	if (!expect(w, store_server_find(&w->desk.store, w->servers[i].address, &found, report), "finding", w->servers[i].address, report))
		return;
	if (expect(w, store_server_find(&w->desk.store, found.id, &again, report), "finding", found.id, report) && strcmp(again.address, found.address) != 0)
		FAIL(w, "%s is %s", found.id, again.address);
	report->text[0] = '\0';
	refused(w, store_server_find(&w->desk.store, "tcp:nobody:1", &again, report), "a server that isn't there", report);
	report->text[0] = '\0';
	switch (draw(w, 4)) {
	case 0: /* of four, one */
		if (w->server_count == SERVERS_MAX && !w->drained) {
			w->drained = true;
			expect(w, store_server_drain(&w->desk.store, found.id, /* undo= */ false, /* force= */ true, report), "draining", found.address, report);
			store_server_release(&w->desk.store, found.id, NULL);
		}
		break;
	case 1:
		expect(w, store_server_drain(&w->desk.store, found.id, /* undo= */ true, /* force= */ true, report), "using again", found.address, report);
		break;
	case 2: /* if nothing is only there; it is back when it is started again */
		if (!w->calm && !w->drained && !w->removed && store_server_remove(&w->desk.store, found.id, /* force= */ false, report) == 0)
			w->removed = 1 + i;
		break;
	default:
		store_server_release(&w->desk.store, found.id, NULL);
	}
}

static int count_agent(void *arg, const struct store_agent *a)
{
	struct findings *f = arg;
	f->count += strcmp(a->host, "desk") == 0;
	return 0;
}

void command_agents(struct operator_world *w, struct report *report)
{
	struct store_registration *reg = NULL;
	struct findings f = { .w = w };
	struct store_agent found;
	if (!expect(w, store_agent_register(&w->desk.store, "tcp:desk:7001", "0.1", &reg, report), "registering", "an agent", report))
		return;
	expect(w, store_agent_check(reg, report), "looking after", "an agent", report);
	if (expect(w, store_agent_list(&w->desk.store, count_agent, &f, report), "listing", "agents", report) && f.count != 1)
		FAIL(w, "%u agents of one name", f.count);
	store_agent_find(&w->desk.store, "desk", &found, report); /* nobody's process is on simulated hosts */
	report->text[0] = '\0';
	refused(w, store_agent_find(&w->desk.store, "elsewhere", &found, report), "an agent that isn't there", report);
	store_agent_leave(reg);
}

/* A backup is what there was, also after a way through a file. */
void command_backup(struct operator_world *w, struct report *report)
{
	struct catalog_image i, again = { 0 };
	size_t length = 0;
	if (!expect(w, catalog_image_read(w->desk.catalog, &i, report), "backup of", "the catalog", report))
		return;
	char *text = catalog_image_encode(&i, 1, &length);
	if (catalog_image_decode(text, length, &again, report) < 0 || !catalog_image_equal(&i, &again))
		FAIL(w, "a backup isn't what it was: %s", report->text);
	else if (catalog_image_raise(&again, report) < 0)
		FAIL(w, "a backup can't be restored: %s", report->text);
	free(text);
	catalog_image_free(&again);
	catalog_image_free(&i);
}
