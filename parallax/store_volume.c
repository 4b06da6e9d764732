/* Volumes, but for what is in them: making, listing, changing and renaming them. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "core/option.h"
#include "parallax/placement.h"
#include "parallax/store_private.h"
#include "parallax/volume_status.h"

/* How long a holder is waited for that only has to say how it is. */
#define HOLDER_PATIENCE_NS (2 * NS_PER_S)
#define HOLDER_CHECKPOINT_NS (5 * NS_PER_S)

/* ---- making ---- */

/* On the servers, if there are any; otherwise the volume is embedded. One copy in each failure domain, three at most. */
static int choose_replicas(struct store *s, const struct store_volume_options *options, struct meta_log *log, struct report *report)
{
	struct placement *map = malloc(sizeof *map);
	int r = map ? placement_read(s->catalog, map, NULL) : -ENOMEM;
	unsigned domains = r == 0 && map->server_count ? placement_domains(map) : 1;
	log->embedded = r == 0 && map->server_count == 0;
	free(map);
	if (r < 0)
		return report_set(report, r, "the catalog: %s", catalog_text(s->catalog, r));
	if (log->embedded && s->cluster)
		return report_set(report, -ENODEV, "there is no server in the cluster's catalog yet (start an aquifer-server first)");
	unsigned most = MIN(domains, (unsigned)META_REPLICAS_MAX);
	log->replicas = options->replicas ? options->replicas : most;
	log->io_timeout_ms = options->io_timeout_ms;
	log->min_replicas = options->min_replicas ? options->min_replicas : log->replicas == 3 ? 2 : 1;
	_Static_assert((int)STORE_REPLICAS_MAX == (int)META_REPLICAS_MAX, "what is offered is what a segment's record holds");
	if (log->replicas > STORE_REPLICAS_MAX)
		return report_set(report, -EINVAL, "a volume has at most %d replicas", STORE_REPLICAS_MAX);
	if (log->replicas > most && log->embedded)
		return report_set(report, -EINVAL, "%u replicas need as many servers, and there is none (start some: see aquifer-server(8))", log->replicas);
	if (log->replicas > most)
		return report_set(report, -EINVAL, "%u replicas need as many failure domains, and the servers are in %u (give each a --domain of its own)",
				  log->replicas, domains);
	if (log->min_replicas > log->replicas)
		return report_set(report, -EINVAL, "min-replicas is more than replicas");
	return 0;
}

int store_create(struct store *s, const char *name, const struct store_volume_options *options, const char *import, struct report *report)
{
	if (!name_valid(name))
		return report_set(report, -EINVAL, "'%s' is not a volume name (letters, digits, . _ -; at most 63)", name);
	if (options->size_bytes == 0 || options->size_bytes % 512 || options->size_bytes > STORE_VOLUME_BYTES_MAX)
		return report_set(report, -EINVAL, "the size must be a multiple of 512 bytes, from 512 to 64T");
	struct meta_log *log = calloc(1, sizeof *log);
	int r = log ? choose_replicas(s, options, log, report) : -ENOMEM;
	if (r == 0) {
		log->size_bytes = options->size_bytes;
		r = store_make(s, name, log, import, report);
	}
	free(log);
	return r;
}

int store_volume_create(struct store *s, const char *name, const struct store_volume_options *options, struct report *report)
{
	return store_create(s, name, options, NULL, report);
}

/* ---- which volume has which name ---- */

static int names_add(struct store_names *l, const char *name, const struct meta_name *named)
{
	if (array_more(&l->entries, l->count) < 0)
		return -ENOMEM;
	snprintf(l->entries[l->count].name, STORE_NAME_BYTES, "%s", name);
	l->entries[l->count++].named = *named;
	return 0;
}

static int names_entry(void *arg, const char *key, const struct catalog_value *value)
{
	struct meta_name named;
	int r = meta_name_decode(value->bytes, value->length, &named);
	return r < 0 ? r : names_add(arg, key + strlen("name/"), &named);
}

static int names_read(struct store *s, struct store_names *ret, struct report *report)
{
	*ret = (struct store_names){ 0 };
	int r = catalog_list(s->catalog, "name/", names_entry, ret);
	return r < 0 ? report_set(report, r, "the catalog: %s", catalog_text(s->catalog, r)) : 0;
}

/* The name that a volume, or what it was before a rollback, has now; NULL: none, it was deleted. */
static const char *names_find(const struct store_names *l, uint64_t volume)
{
	for (size_t i = 0; i < l->count; i++) {
		const struct meta_name *m = &l->entries[i].named;
		bool found = m->volume == volume;
		for (uint32_t k = 0; !found && k < m->history_count; k++)
			found = m->history[k] == volume;
		if (found)
			return l->entries[i].name;
	}
	return NULL;
}

static int count_snapshot(void *arg, const struct meta_snapshot *m)
{
	*(uint32_t *)arg += !m->doomed;
	return 0;
}


/* "web1@monday", as it is called now; untouched if the parent is gone. */
static void parent_text(struct store *s, const struct store_names *names, const struct meta_log *log, char *ret)
{
	struct meta_log *parent = malloc(sizeof *parent);
	struct meta_snapshot m;
	if (parent && meta_get_log(s->catalog, log->parent_volume, parent, NULL) == 0 &&
	    meta_get_snapshot(s->catalog, log->parent_volume, log->parent_mark, &m, NULL) == 0) {
		const char *name = names_find(names, log->parent_volume);
		snprintf(ret, STORE_PARENT_BYTES, "%s@%s%s", name ? name : parent->name, m.name, name && !m.doomed ? "" : " (deleted)");
	}
	free(parent);
}

/* What it was before a rollback is there for its snapshots alone. */
static int add_history(struct store *s, uint64_t volume, struct meta_log *log, struct store_volume *ret)
{
	int r = meta_get_log(s->catalog, volume, log, NULL);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	ret->exclusive_bytes += log->live_blocks * BLOCK_BYTES;
	ret->snapshot_bytes += log->live_blocks * BLOCK_BYTES;
	return store_each_snapshot(s->catalog, volume, count_snapshot, &ret->snapshot_count);
}

static int fill_volume(struct store *s, const struct store_names *names, const char *name, const struct meta_name *named,
		       struct store_volume *ret)
{
	struct meta_log *log = malloc(sizeof *log);
	struct meta_owner owner = { 0 };
	int r = log ? meta_get_log(s->catalog, named->volume, log, NULL) : -ENOMEM;
	if (r == 0)
		r = meta_get_owner(s->catalog, named->volume, &owner, NULL);
	if (r < 0) {
		free(log);
		return r;
	}
	*ret = (struct store_volume){ .id = named->volume, .size_bytes = log->size_bytes, .used_bytes = log->mapped_blocks * BLOCK_BYTES,
		.exclusive_bytes = log->live_blocks * BLOCK_BYTES, .snapshot_bytes = log->dead_blocks * BLOCK_BYTES, .epoch = owner.epoch,
		.replicas = log->replicas, .min_replicas = log->min_replicas, .io_timeout_ms = log->io_timeout_ms,
		.created_ns = log->created_ns };
	snprintf(ret->name, sizeof ret->name, "%s", name);
	if (log->parent_volume)
		parent_text(s, names, log, ret->parent);
	ret->embedded = log->embedded;
	bool alive = places_holder_alive(s->places, &owner);
	ret->state = !alive ? STORE_FREE : owner.state == OWNER_OFFERED ? STORE_OFFERED : STORE_HELD;
	const char *health = "good";
	if (store_importing(s, named->volume, name))
		health = alive ? STORE_IMPORTING : "a part of an import that didn't end (the next import deletes it)";
	else if (owner.state == OWNER_HELD && !alive)
		health = "its holder died; the next attach recovers it";
	snprintf(ret->health, sizeof ret->health, "%s", health);
	if (alive) {
		bool hosts = s->cluster && owner.host[0];
		snprintf(ret->holder.text, sizeof ret->holder.text, "%.115s%s%.63s", owner.holder, hosts ? " on host " : "", hosts ? owner.host : "");
		snprintf(ret->holder.control, sizeof ret->holder.control, "%s", owner.control);
		snprintf(ret->holder.volume, sizeof ret->holder.volume, "%s", name);
	}
	r = store_each_snapshot(s->catalog, named->volume, count_snapshot, &ret->snapshot_count);
	for (uint32_t i = 0; r == 0 && i < named->history_count; i++)
		r = add_history(s, named->history[i], log, ret);
	free(log);
	return r;
}

int store_holder_fresh(struct store *s, const char *name, uint64_t volume, struct volume_status *ret)
{
	static const char *const none[] = { NULL };
	struct store_holder holder;
	char *json = NULL;
	int r = store_find_holder(s, name, volume, NULL, &holder, NULL);
	if (r == 0)
		r = s->forward(s->forward_arg, &holder, "status", none, HOLDER_PATIENCE_NS, &json, NULL);
	if (r == 0)
		r = volume_status_decode(json ? json : "", ret);
	free(json);
	if (r == 0 && !ret->failed && !ret->waits_for[0]) { /* else it would wait, too; as it will if that just begins */
		json = NULL;
		s->forward(s->forward_arg, &holder, "checkpoint", none, HOLDER_CHECKPOINT_NS, &json, NULL);
		free(json);
	}
	return r;
}

int store_volume_show(struct store *s, const char *name, struct store_volume *ret_volume, struct report *report)
{
	struct meta_name named;
	struct volume_status status;
	int r = store_find_name(s->catalog, name, &named, NULL, report);
	struct store_names names = { 0 };
	bool asked = r == 0 && store_holder_fresh(s, name, named.volume, &status) == 0; /* so that the numbers are of now */
	if (r == 0)
		r = names_read(s, &names, report);
	if (r == 0 && (r = fill_volume(s, &names, name, &named, ret_volume)) < 0)
		report_set(report, r, "the catalog: %s", catalog_text(s->catalog, r));
	if (r == 0 && asked && ret_volume->state == STORE_HELD && strcmp(ret_volume->health, "good") == 0)
		volume_status_text(&status, ret_volume->replicas, env_wall_ns(s->env), ret_volume->health, sizeof ret_volume->health);
	free(names.entries);
	return r;
}

int store_volume_list(struct store *s, int (*entry)(void *arg, const struct store_volume *v), void *arg, struct report *report)
{
	struct store_names l;
	int r = names_read(s, &l, report);
	for (size_t i = 0; r == 0 && i < l.count; i++) {
		struct store_volume v;
		r = fill_volume(s, &l, l.entries[i].name, &l.entries[i].named, &v);
		if (r == -EUCLEAN || r == -EPROTONOSUPPORT) { /* the others are all right */
			v = (struct store_volume){ .state = STORE_FREE };
			snprintf(v.name, sizeof v.name, "%s", l.entries[i].name);
			snprintf(v.health, sizeof v.health, "%s", r == -EUCLEAN ? "its record in the catalog is damaged" :
								  "its record is of a newer version than this program knows (upgrade this program)");
			r = 0;
		}
		r = r == -ENOENT ? 0 : r == 0 ? entry(arg, &v) : r; /* deleted meanwhile */
	}
	free(l.entries);
	return r;
}

#define IO_TIMEOUT_MS_MAX (UINT64_C(7) * 86400 * 1000)

int store_parse_io_timeout(const char *text, uint32_t *ret_ms, struct report *report)
{
	static const struct { const char *unit; uint64_t ms; } units[] = { { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 }, { "d", 86400000 } };
	char *end;
	uint64_t n = text[0] >= '0' && text[0] <= '9' && strlen(text) < 12 ? strtoull(text, &end, 10) : 0, unit = 0;
	*ret_ms = 0;
	if (strcmp(text, "forever") == 0)
		return 0;
	for (unsigned i = 0; n && i < ARRAY_COUNT(units); i++)
		if (strcmp(end, units[i].unit) == 0)
			unit = units[i].ms;
	if (unit == 0)
		return report_set(report, -EINVAL, "io-timeout: '%s' is not a time (for example 30s, 5m, or forever)", text);
	if (n * unit < 1000 || n * unit > IO_TIMEOUT_MS_MAX)
		return report_set(report, -EINVAL, "io-timeout is from 1s to 7d, or forever");
	*ret_ms = (uint32_t)(n * unit);
	return 0;
}

void store_io_timeout_text(uint32_t ms, char ret_text[24])
{
	if (ms == 0)
		snprintf(ret_text, 24, "forever");
	else if (ms % 1000)
		snprintf(ret_text, 24, "%ums", ms);
	else
		snprintf(ret_text, 24, "%us", ms / 1000);
}

int store_volume_set(struct store *s, const char *name, const char *key, const char *value, struct report *report)
{
	uint64_t id = 0;
	uint32_t ms = 0;
	char text[16];
	const char *args[] = { text, NULL };
	struct volume *v;
	int r = store_find_volume(s->places, name, &id, report);
	if (r == 0 && strcmp(key, "io-timeout") != 0)
		r = report_set(report, -EINVAL, "a volume has no setting '%s' in this version (there is io-timeout)", key);
	if (r == 0)
		r = store_parse_io_timeout(value, &ms, report);
	if (r < 0)
		return r;
	snprintf(text, sizeof text, "%u", ms);
	r = store_ask_holder(s, name, id, "io-timeout", args, report);
	if (r != -ENXIO)
		return r;
	r = store_maintain(s->places, id, &v, report);
	if (r < 0)
		return r;
	r = volume_set_io_timeout(v, ms, report);
	int closed = volume_close(v);
	return r ? r : closed < 0 ? report_set(report, closed, "%s", errno_text(closed)) : 0;
}

int store_volume_resize(struct store *s, const char *name, uint64_t size_bytes, bool force, struct report *report)
{
	uint64_t id = 0;
	char size[24];
	snprintf(size, sizeof size, "%" PRIu64, size_bytes);
	const char *args[] = { size, force ? "force" : NULL, NULL };
	struct volume *v;
	int r = store_find_volume(s->places, name, &id, report);
	if (r == 0)
		r = store_ask_holder(s, name, id, "resize", args, report);
	if (r != -ENXIO)
		return r;
	r = store_maintain(s->places, id, &v, report);
	if (r < 0)
		return r;
	r = volume_resize(v, size_bytes, force, report);
	int closed = volume_close(v);
	return r ? r : closed < 0 ? report_set(report, closed, "%s", errno_text(closed)) : 0;
}

int store_move_name(struct store *s, const char *from, const char *to, const struct meta_name *named, uint64_t revision, const char *also,
		    struct report *report)
{
	char from_key[META_KEY_BYTES], to_key[META_KEY_BYTES];
	size_t length = 0;
	uint8_t *bytes = meta_name_encode(named, &length);
	struct catalog_txn *t = malloc(sizeof *t);
	int r = bytes && t ? 0 : -ENOMEM;
	meta_key_name(from, from_key);
	meta_key_name(to, to_key);
	if (r == 0) {
		catalog_txn_init(t);
		catalog_txn_compare(t, from_key, revision);
		catalog_txn_compare(t, to_key, 0);
		catalog_txn_delete(t, from_key);
		catalog_txn_put(t, to_key, bytes, length);
		if (also)
			catalog_txn_delete(t, also);
		r = store_txn(s->catalog, t);
	}
	free(t);
	free(bytes);
	struct meta_name there;
	int found = r == -EAGAIN ? store_get_name(s->catalog, to, &there) : -ENOENT;
	if (found == 0)
		return there.volume == named->volume ? 0 : report_set(report, -EEXIST, "there is a volume '%s' already (choose another name)", to);
	return store_txn_report(s, found == -ENOENT ? r : -ETIMEDOUT, "somebody renamed or deleted it meanwhile", report);
}

int store_volume_rename(struct store *s, const char *from, const char *to, struct report *report)
{
	struct meta_name named;
	uint64_t revision;
	if (!name_valid(to))
		return report_set(report, -EINVAL, "'%s' is not a volume name (letters, digits, . _ -; at most 63)", to);
	int r = store_find_name(s->catalog, from, &named, &revision, report);
	struct meta_owner owner;
	/* its holder is asked for it by the name it was attached under */
	if (r == 0 && store_holder(s->places, named.volume, &owner))
		r = report_set(report, -EBUSY, "it is attached as %s (detach it first)", owner.holder);
	if (r < 0)
		return r;
	return store_move_name(s, from, to, &named, revision, /* also= */ NULL, report);
}
