/* Scenario `operator`: the catalog itself, when all is calm at the end. What is wrong with it is found by check, whatever it is; and all of it can be
 * moved to another place, or got out of a backup. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/store/store_check.h"
#include "parallax/store/store_status.h"
#include "parallax/volume/volume_private.h"
#include "tests/sim/catalog_url.h"
#include "tests/sim/operator.h"

#define NEW_WHERE "http://other:2379"
#define NEW_URL "etcd:" NEW_WHERE

/* ---- damage ---- */

enum damage { LOST, CUT_SHORT, TOO_LONG, INVENTED, DAMAGES };

struct damaged {
	struct operator_world *w;
	enum damage how;
	char key[CATALOG_KEY_MAX + 1];
	uint8_t *was;
	size_t length;
	unsigned seen;
};

/* Of a volume that is attached: its holder's, who must not find that somebody else has changed it. */
static bool is_held(const struct operator_world *w, const char *key)
{
	char id[17];
	for (unsigned i = 0; i < ATTACHED; i++) {
		snprintf(id, sizeof id, "%016llx", (unsigned long long)w->seats[i].o.volume->id);
		if (strstr(key, id))
			return true;
	}
	return false;
}

/* One that is lost must be one whose absence frees nothing, or servers would act on it before it is back. */
static bool may_be(const struct damaged *d, const char *key)
{
	static const char *const named[] = { "name/", "snapname/", "clone/" }, *const any[] = { "name/", "volume/", "snapshot/", "snapname/" };
	size_t n = strlen(key);
	bool found = d->how == LOST && n > 6 && strcmp(key + n - 6, "/owner") == 0;
	for (unsigned i = 0; d->how == LOST && i < ARRAY_COUNT(named); i++)
		found |= strncmp(key, named[i], strlen(named[i])) == 0;
	for (unsigned i = 0; d->how != LOST && i < ARRAY_COUNT(any); i++)
		found |= strncmp(key, any[i], strlen(any[i])) == 0;
	return found && !is_held(d->w, key);
}

/* Any of them, each as likely. */
static void choose(void *arg, const char *key, const struct catalog_value *value)
{
	struct damaged *d = arg;
	if (!may_be(d, key) || (d->how == CUT_SHORT && value->length == 0) || draw(d->w, ++d->seen) != 0)
		return;
	snprintf(d->key, sizeof d->key, "%s", key);
	free(d->was);
	d->was = calloc(1, value->length + 4);
	d->length = value->length;
	memcpy(d->was, value->bytes, value->length);
}

/* FIBER. `bytes` NULL: it goes. */
static void set_key(struct operator_world *w, const char *key, const void *bytes, size_t length)
{
	struct catalog_txn t;
	catalog_txn_init(&t);
	if (bytes)
		catalog_txn_put(&t, key, bytes, length);
	else
		catalog_txn_delete(&t, key);
	if (catalog_txn(w->desk.catalog, &t, NULL) < 0)
		FAIL(w, "the catalog can't be changed");
}

static void invent(struct operator_world *w, char ret_key[CATALOG_KEY_MAX + 1])
{
	static const char *const keys[] = { "volume/x", "volume/00000000000000ff/log", "snapshot/00000000000000ff/0000000000000001", "clone/00000000000000ff/1/2",
					    "import/00000000000000ff", "group/0000000000000001", "snapname/00000000000000ff/monday", "name/nobodys" };
	snprintf(ret_key, CATALOG_KEY_MAX + 1, "%s", keys[draw(w, ARRAY_COUNT(keys))]);
}

struct faults {
	unsigned count;
	char first[256];
};

static void note_fault(void *arg, const char *volume, const char *text)
{
	struct faults *f = arg;
	if (f->count++ == 0)
		snprintf(f->first, sizeof f->first, "%s: %s", volume ? volume : "the catalog", text);
}

/* FIBER. How many faults it finds; one that can't be done at all says why. */
static unsigned count_faults(struct operator_world *w, struct faults *f)
{
	struct report report = { "" };
	struct store_check how = { .fault = note_fault, .arg = f };
	struct store_status *t = NULL;
	int r = store_check(&w->desk.store, &how, &report);
	if (r < 0 && !report.text[0])
		FAIL(w, "check fails without a word: %d", r);
	if (r == 0 && f->count && store_status(&w->desk.store, &t, &report) == 0 && t->check.faults != how.faults)
		FAIL(w, "check found %llu faults, and status says %llu", (unsigned long long)how.faults, (unsigned long long)t->check.faults);
	store_status_free(t);
	return r < 0 ? 1 : f->count;
}

static void damage_once(struct operator_world *w)
{
	static const char *const what[] = { "is lost", "is cut short", "is too long", "is invented" };
	struct damaged *d = calloc(1, sizeof *d);
	struct faults f = { 0 };
	*d = (struct damaged){ .w = w, .how = (enum damage)draw(w, DAMAGES) };
	if (d->how == INVENTED)
		invent(w, d->key);
	else
		catalog_sim_each(w->catalogs, "", choose, d);
	sim_note(w->sim, "%s %s", d->key, what[d->how]);
	switch (d->how) {
	case LOST: set_key(w, d->key, NULL, 0); break;
	case CUT_SHORT: set_key(w, d->key, d->was, d->length - 1); break; /* amid its last field */
	case TOO_LONG: set_key(w, d->key, d->was, d->length + 1 + draw(w, 3)); break;
	case INVENTED: case DAMAGES: set_key(w, d->key, "x", 1); break;
	}
	if (!w->run->failed && count_faults(w, &f) == 0)
		FAIL(w, "%s %s, and check finds nothing", d->key, what[d->how]);
	sim_note(w->sim, "%u faults: %s", f.count, f.first);
	set_key(w, d->key, d->how == INVENTED ? NULL : d->was, d->length);
	free(d->was);
	free(d);
}

void damage_catalog(struct operator_world *w)
{
	struct report report = { "" };
	for (unsigned n = 0; n < 6 && !w->run->failed; n++)
		damage_once(w);
	if (!w->run->failed)
		command_check(w, &report);
}

/* ---- moving ---- */

/* FIBER. Both as `aquifer cluster move-catalog` does: marks, the copy, and what keeps programs from using the wrong one meanwhile. */
static void must_not_open(struct operator_world *w, const char *url, int status)
{
	struct report report = { "" };
	struct store_options how = { .root = "", .catalog_url = url };
	struct store *s = NULL;
	int r = store_open(w->desk.env, &how, &s, &report);
	if (r != status || !report.text[0])
		FAIL(w, "the store in %s: opening it ends with %d (%s) instead of %d", url, r, report.text, status);
	store_close(s);
}

static int move_all(struct operator_world *w, struct catalog *from, struct catalog *to, struct report *report)
{
	struct catalog_image image = { 0 }, there = { 0 };
	int r = catalog_mark(from, STORE_MOVED, "moving " NEW_URL, report);
	if (r == 0)
		r = catalog_mark(to, STORE_INCOMING, w->desk.store.url, report);
	if (r == 0) {
		must_not_open(w, w->desk.store.url, -EREMCHG);
		must_not_open(w, NEW_URL, -EINPROGRESS);
		r = catalog_image_read(from, &image, report);
	}
	if (r == 0)
		r = catalog_image_write(to, &image, report);
	if (r == 0 && draw(w, 2)) { /* it was interrupted: once more */
		r = catalog_image_erase(to, report);
		if (r == 0)
			r = catalog_image_write(to, &image, report);
	}
	if (r == 0)
		r = catalog_image_read(to, &there, report);
	if (r == 0 && !catalog_image_equal(&image, &there))
		FAIL(w, "the catalog that was moved isn't what it was");
	if (r == 0)
		r = catalog_mark(from, STORE_MOVED, "moved " NEW_URL, report);
	if (r == 0)
		r = catalog_mark(to, STORE_INCOMING, NULL, report);
	catalog_image_free(&image);
	catalog_image_free(&there);
	return r;
}

struct names {
	struct operator_world *w;
	unsigned found;
};

static int find_known(void *arg, const struct store_volume *v)
{
	struct names *n = arg;
	for (unsigned i = 0; i < VOLUMES_MAX; i++)
		n->found += n->w->volumes[i].used && strcmp(n->w->volumes[i].name, v->name) == 0 &&
			    v->size_bytes == (uint64_t)n->w->volumes[i].now.blocks * BLOCK_BYTES;
	return 0;
}

/* FIBER. By its new address all that is known is there. */
static void look_there(struct operator_world *w, struct report *report)
{
	struct store_options how = { .root = "", .catalog_url = NEW_URL };
	struct names n = { .w = w };
	struct store *s = NULL;
	unsigned used = 0;
	for (unsigned i = 0; i < VOLUMES_MAX; i++)
		used += w->volumes[i].used;
	must_not_open(w, w->desk.store.url, -EREMCHG);
	if (!expect(w, store_open(w->desk.env, &how, &s, report), "opening the store in", NEW_URL, report))
		return;
	if (expect(w, store_volume_list(s, find_known, &n, report), "listing the volumes in", NEW_URL, report) && n.found != used)
		FAIL(w, "%u of %u volumes are found where the catalog was moved to", n.found, used);
	store_close(s);
}

void move_catalog(struct operator_world *w)
{
	struct report report = { "" };
	struct catalog_sim *other = catalog_sim_create(w->sim);
	struct catalog *to = NULL;
	catalog_url_name(w->sim, NEW_WHERE, other);
	int r = catalog_open_any(w->desk.env, NEW_URL, NULL, /* create= */ false, &to, &report);
	if (r == 0)
		r = move_all(w, w->desk.catalog, to, &report);
	if (expect(w, r, "moving", "the catalog", &report))
		look_there(w, &report);
	catalog_mark(w->desk.catalog, STORE_MOVED, NULL, &report); /* those that run still use it */
	catalog_close(to);
	catalog_url_name(w->sim, NEW_WHERE, NULL);
	catalog_sim_destroy(other);
}
