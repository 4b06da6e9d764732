/* Volumes, but for what is in them: making, changing and renaming them. Listing them is in store_list.c. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "core/option.h"
#include "parallax/segment/placement.h"
#include "parallax/store/store_private.h"

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
		return report_set(report, -EINVAL, "min-replicas is more than replicas, %u here (give less, or --replicas too)", log->replicas);
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
	r = store_ask_or_maintain(s, name, id, NULL, "io-timeout", args, &v, report);
	if (r < 0 || !v)
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
	struct volume *v = NULL;
	int r = store_find_volume(s->places, name, &id, report);
	if (r == 0)
		r = store_ask_or_maintain(s, name, id, NULL, "resize", args, &v, report);
	if (r < 0 || !v)
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
	return store_txn_report(s, found == -ENOENT ? r : -ETIMEDOUT, "somebody renamed or deleted it meanwhile (see: aquifer volume list)", report);
}

int store_volume_rename(struct store *s, const char *from, const char *to, struct report *report)
{
	struct meta_name named;
	uint64_t revision;
	if (!name_valid(to))
		return report_set(report, -EINVAL, "'%s' is not a volume name (letters, digits, . _ -; at most 63)", to);
	int r = store_find_name(s->catalog, from, &named, &revision, report);
	if (r == 0) /* its holder is asked for it by the name it was attached under */
		r = store_refuse_held(s->places, named.volume, report);
	if (r < 0)
		return r;
	return store_move_name(s, from, to, &named, revision, /* also= */ NULL, report);
}
