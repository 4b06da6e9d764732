/* Imports: a volume that appears under its name when all of it is there.
 *
 *     begin:  name/NAME.import-XXXXXXXX → V, import/V := "HOST PID.TICKS NAME.import-XXXXXXXX"  one transaction
 *     …       the volume is opened by that name, filled, flushed
 *     end:    name/NAME.import-… goes, name/NAME → V, import/V goes                        one transaction
 *
 * TICKS: when that process began. An older program wrote none, and leaves alone what has some.
 *
 * A volume with the key import/V whose process is gone, and that nobody else has open, is what an import that was killed left. Only
 * its own host can tell; so each host deletes what its own imports left. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/option.h"
#include "parallax/store/store_private.h"

#define SUFFIX ".import-"
enum { HOST_BYTES = 64, TEXT_BYTES = HOST_BYTES + STORE_NAME_BYTES + 48, FOUND_MAX = 64 };

void store_import_key(uint64_t volume, char ret_key[META_KEY_BYTES])
{
	snprintf(ret_key, META_KEY_BYTES, "import/%016" PRIx64, volume);
}

bool store_importing(struct store *s, uint64_t volume, const char *name)
{
	char key[META_KEY_BYTES];
	struct catalog_value v = { 0 };
	if (!strstr(name, SUFFIX))
		return false;
	store_import_key(volume, key);
	bool found = catalog_get(s->catalog, key, &v) == 0;
	catalog_value_free(&v);
	return found;
}

static void forget(struct store *s, uint64_t volume)
{
	char key[META_KEY_BYTES];
	struct catalog_txn *t = malloc(sizeof *t);
	if (!t)
		return;
	store_import_key(volume, key);
	catalog_txn_init(t);
	catalog_txn_delete(t, key);
	store_txn(s->catalog, t);
	free(t);
}

/* ---- what was left ---- */

struct found {
	char host[HOST_BYTES];
	unsigned count;
	struct {
		uint64_t volume, pid, ticks; /* 0: not known */
		char name[STORE_NAME_BYTES];
	} left[FOUND_MAX];
};

static int found_entry(void *arg, const char *key, const struct catalog_value *value)
{
	struct found *f = arg;
	char text[TEXT_BYTES], *name;
	size_t n = strlen(f->host);
	if (f->count == FOUND_MAX || value->length >= sizeof text)
		return 0;
	memcpy(text, value->bytes, value->length);
	text[value->length] = 0;
	if (strncmp(text, f->host, n) != 0 || text[n] != ' ')
		return 0;
	uint64_t pid = strtoull(text + n + 1, &name, 10), ticks = *name == '.' ? strtoull(name + 1, &name, 10) : 0;
	if (*name != ' ' || strlen(name + 1) >= STORE_NAME_BYTES)
		return 0;
	f->left[f->count].volume = strtoull(key + strlen("import/"), NULL, 16);
	f->left[f->count].pid = pid;
	f->left[f->count].ticks = ticks;
	strcpy(f->left[f->count++].name, name + 1);
	return 0;
}

/* Who has its number by now began later. */
static bool is_another(uint64_t pid, uint64_t ticks)
{
	uint64_t began;
	return ticks && process_start_ticks((pid_t)pid, &began) == 0 && began != ticks;
}

/* The importer had the volume open: its owner record names the same process, without saying when that began. Now it is as after a command that was killed. */
static void disown(struct store *s, uint64_t volume, uint64_t pid)
{
	struct meta_owner o;
	char key[META_KEY_BYTES];
	uint64_t revision;
	size_t length = 0;
	if (meta_get_owner(s->catalog, volume, &o, &revision) < 0 || o.state != OWNER_HELD || o.pid != pid || o.control[0] || strcmp(o.host, s->places->host) != 0 ||
	    !o.boot[0] || places_pids_foreign(s->env, o.boot, o.pids))
		return;
	o.pid = o.began_ticks = 0;
	snprintf(o.holder, sizeof o.holder, "%s", VOLUME_MAINTENANCE);
	uint8_t *bytes = meta_owner_encode(&o, &length);
	meta_key_owner(volume, key);
	if (bytes)
		catalog_put_at(s->catalog, key, revision, bytes, length); /* if that fails, the next time */
	free(bytes);
}

static bool under_way(struct store *s, uint64_t volume, uint64_t pid, uint64_t ticks)
{
	struct meta_owner owner = { 0 }, importer = { .state = OWNER_HELD, .pid = pid };
	bool another = is_another(pid, ticks);
	if (another)
		disown(s, volume, pid);
	return (places_holder_alive(s->places, &importer) && !another) || meta_get_owner(s->catalog, volume, &owner, NULL) < 0 ||
	       places_holder_alive(s->places, &owner);
}

/* Never an error: what can't be deleted now is left to the next time. */
static void clean_one(struct store *s, uint64_t volume, uint64_t pid, uint64_t ticks, const char *name)
{
	struct meta_name named;
	int r = meta_get_name(s->catalog, name, &named, NULL);
	if (r == 0 && named.volume == volume && under_way(s, volume, pid, ticks))
		return;
	if (r == 0 && named.volume == volume)
		r = store_volume_delete(s, name, /* with_snapshots= */ false, NULL);
	if (r == 0 || r == -ENOENT) /* also of one that was deleted, or renamed to be kept */
		forget(s, volume);
}

static void clean(struct store *s)
{
	struct found *f = calloc(1, sizeof *f);
	if (!f)
		return;
	snprintf(f->host, sizeof f->host, "%s", s->places->host);
	if (catalog_list(s->catalog, "import/", found_entry, f) == 0)
		for (unsigned i = 0; i < f->count; i++)
			clean_one(s, f->left[i].volume, f->left[i].pid, f->left[i].ticks, f->left[i].name);
	free(f);
}

/* ---- an import ---- */

int store_import_begin(struct store *s, const char *name, const struct store_volume_options *options,
		       char ret_temporary[STORE_NAME_BYTES], struct report *report)
{
	struct meta_name named;
	char text[TEXT_BYTES];
	uint64_t ticks = 0;
	int r = meta_get_name(s->catalog, name, &named, NULL);
	if (r == 0)
		return report_set(report, -EEXIST, "there is a volume '%s' already (choose another name, or delete it)", name);
	if (r != -ENOENT)
		return report_set(report, r, "the catalog: %s", catalog_text(s->catalog, r));
	clean(s);
	/* 63 characters at most */
	snprintf(ret_temporary, STORE_NAME_BYTES, "%.47s" SUFFIX "%08" PRIx32, name, (uint32_t)env_random(s->env));
	process_start_ticks(getpid(), &ticks);
	snprintf(text, sizeof text, "%s %d.%" PRIu64 " %s", s->places->host, (int)getpid(), ticks, ret_temporary);
	return store_create(s, ret_temporary, options, text, report);
}

int store_import_end(struct store *s, const char *temporary, const char *name, struct report *report)
{
	char import_key[META_KEY_BYTES];
	struct meta_name named;
	uint64_t revision;
	int r = meta_get_name(s->catalog, temporary, &named, &revision);
	if (r == -ENOENT)
		return report_set(report, r, "somebody deleted or renamed %s meanwhile (import it again)", temporary);
	if (r < 0)
		return report_set(report, r, "the catalog: %s", catalog_text(s->catalog, r));
	store_import_key(named.volume, import_key);
	return store_move_name(s, temporary, name, &named, revision, import_key, report);
}

void store_import_cancel(struct store *s, const char *temporary)
{
	struct meta_name named;
	if (meta_get_name(s->catalog, temporary, &named, NULL) == 0 && store_volume_delete(s, temporary, /* with_snapshots= */ false, NULL) == 0)
		forget(s, named.volume);
}
