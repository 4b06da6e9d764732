/* The catalog's references: whether what names something finds it, and whether what holds something is known where it is held.
 * All keys are read into tables first: about 150 bytes for each volume, 100 for each snapshot, 24 for each clone. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "parallax/segment/placement.h"
#include "parallax/store/store_check_private.h"

#define GROUP_STALE_NS (3600 * NS_PER_S) /* the next snapshot of several volumes deletes those that were interrupted */

struct known_volume {
	uint64_t id, parent, mark, last_id;
	char name[STORE_NAME_BYTES];
	bool log, owner, doomed, named, reap, unclear;
	bool waits, cloned; /* something of it is noted; something began as one of its snapshots */
	bool snapshots; /* has some that aren't deleted: a head that was rolled back stays for them */
};

struct known_snapshot {
	uint64_t volume, mark;
	char name[STORE_NAME_BYTES];
	bool doomed, named, noted, cloned;
};

struct known_clone {
	uint64_t volume, mark, clone;
};

struct census {
	struct store *store;
	struct fault_lines *lines;
	struct known_volume *volumes;
	struct known_snapshot *snapshots;
	struct known_clone *clones;
	size_t volume_count, snapshot_count, clone_count;
};

static int unclear(struct census *c, const char *key, int status)
{
	return fault_lines_add(c->lines, "%s %s", key,
			       status == -EPROTONOSUPPORT ? "is of a newer version than this program knows (upgrade this program)" : "can't be understood: it is damaged");
}

/* ---- finding ---- */

/* Keys are read in order of ids. */
static struct known_volume *find_volume(struct census *c, uint64_t id)
{
	size_t at = array_place(c->volumes, c->volume_count, id, id);
	return at < c->volume_count && c->volumes[at].id == id ? &c->volumes[at] : NULL;
}

static struct known_snapshot *find_snapshot(struct census *c, uint64_t volume, uint64_t mark)
{
	size_t low = 0, high = c->snapshot_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		struct known_snapshot *s = &c->snapshots[middle];
		if (s->volume == volume && s->mark == mark)
			return s;
		if (s->volume < volume || (s->volume == volume && s->mark < mark))
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

static bool has_clone(const struct census *c, uint64_t volume, uint64_t mark, uint64_t clone)
{
	for (size_t low = 0, high = c->clone_count; low < high;) {
		size_t middle = low + (high - low) / 2;
		const struct known_clone *k = &c->clones[middle];
		if (k->volume == volume && k->mark == mark && k->clone == clone)
			return true;
		bool below = k->volume != volume ? k->volume < volume : k->mark != mark ? k->mark < mark : k->clone < clone;
		if (below)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}

/* ---- reading ---- */

static struct known_volume *add_volume(struct census *c, uint64_t id)
{
	struct known_volume *v = c->volume_count ? &c->volumes[c->volume_count - 1] : NULL;
	if (v && v->id == id)
		return v;
	if (array_more(&c->volumes, c->volume_count) < 0)
		return NULL;
	c->volumes[c->volume_count] = (struct known_volume){ .id = id };
	return &c->volumes[c->volume_count++];
}

static int read_log(struct census *c, struct known_volume *v, const char *key, const struct catalog_value *value)
{
	struct meta_log *log = malloc(sizeof *log);
	int r = log ? meta_log_decode(value->bytes, value->length, log) : -ENOMEM;
	v->log = true;
	v->unclear |= r < 0;
	if (r == 0) {
		v->parent = log->parent_volume;
		v->mark = log->parent_mark;
		v->doomed = log->doomed;
		v->last_id = log->last_id;
		snprintf(v->name, sizeof v->name, "%s", log->name);
	}
	free(log);
	return r == 0 || r == -ENOMEM ? r : unclear(c, key, r);
}

static int read_volume(void *arg, const char *key, const struct catalog_value *value)
{
	struct census *c = arg;
	struct meta_owner owner;
	uint64_t id;
	char what[16];
	if (sscanf(key, "volume/%16" SCNx64 "/%15s", &id, what) != 2)
		return fault_lines_add(c->lines, "%s is no key that a volume has", key);
	struct known_volume *v = add_volume(c, id);
	if (!v)
		return -ENOMEM;
	if (strcmp(what, "log") == 0)
		return read_log(c, v, key, value);
	if (strcmp(what, "owner") != 0)
		return fault_lines_add(c->lines, "%s is no key that a volume has", key);
	int r = meta_owner_decode(value->bytes, value->length, &owner);
	v->owner = true;
	return r < 0 ? unclear(c, key, r) : 0;
}

static int read_snapshot(void *arg, const char *key, const struct catalog_value *value)
{
	struct census *c = arg;
	struct meta_snapshot m;
	struct known_snapshot s = { 0 };
	if (sscanf(key, "snapshot/%16" SCNx64 "/%16" SCNx64, &s.volume, &s.mark) != 2)
		return fault_lines_add(c->lines, "%s is no key that a snapshot has", key);
	int r = meta_snapshot_decode(value->bytes, value->length, &m);
	if (r < 0)
		return unclear(c, key, r);
	if (m.mark_seq != s.mark && (r = fault_lines_add(c->lines, "%s is of mark %" PRIu64, key, m.mark_seq)) < 0)
		return r;
	s.doomed = m.doomed;
	snprintf(s.name, sizeof s.name, "%s", m.name);
	if (array_more(&c->snapshots, c->snapshot_count) < 0)
		return -ENOMEM;
	c->snapshots[c->snapshot_count++] = s;
	struct known_volume *v = find_volume(c, s.volume);
	if (v)
		v->snapshots |= !s.doomed;
	else
		return fault_lines_add(c->lines, "snapshot %s (%s) is of a volume that isn't there", s.name, key);
	return 0;
}

static int read_clone(void *arg, const char *key, const struct catalog_value *value)
{
	struct census *c = arg;
	struct known_clone k;
	(void)value;
	if (sscanf(key, "clone/%16" SCNx64 "/%16" SCNx64 "/%16" SCNx64, &k.volume, &k.mark, &k.clone) != 3)
		return fault_lines_add(c->lines, "%s is no key that a clone has", key);
	if (array_more(&c->clones, c->clone_count) < 0)
		return -ENOMEM;
	c->clones[c->clone_count++] = k;
	const struct known_volume *v = find_volume(c, k.clone);
	struct known_volume *parent = find_volume(c, k.volume);
	struct known_snapshot *origin = find_snapshot(c, k.volume, k.mark);
	if (parent)
		parent->cloned = true;
	if (origin)
		origin->cloned = true;
	else
		return fault_lines_add(c->lines, "%s holds a snapshot that isn't there", key);
	if (!v || (!v->unclear && (v->parent != k.volume || v->mark != k.mark)))
		return fault_lines_add(c->lines, "%s holds a snapshot for %s", key, v ? "a volume that isn't its clone" : "a volume that isn't there");
	return 0;
}

static int read_name(void *arg, const char *key, const struct catalog_value *value)
{
	struct census *c = arg;
	struct meta_name m;
	int r = meta_name_decode(value->bytes, value->length, &m);
	if (r < 0)
		return unclear(c, key, r);
	struct known_volume *v = find_volume(c, m.volume);
	if (!v || !v->log)
		return fault_lines_add(c->lines, "%s names a volume that isn't there", key);
	if (v->named && (r = fault_lines_add(c->lines, "%s names a volume that has another name, too", key)) < 0)
		return r;
	if (v->doomed && (r = fault_lines_add(c->lines, "%s names a volume that is deleted", key)) < 0)
		return r;
	v->named = true;
	return 0; /* of its history, those that are gone stay in it until the next rollback */
}

static int read_snapshot_name(void *arg, const char *key, const struct catalog_value *value)
{
	struct census *c = arg;
	uint64_t volume;
	int at = 0;
	if (sscanf(key, "snapname/%16" SCNx64 "/%n", &volume, &at) != 1 || !key[at] || value->length != 8)
		return fault_lines_add(c->lines, "%s is no name that a snapshot has", key);
	struct known_snapshot *s = find_snapshot(c, volume, get_le64(value->bytes));
	if (!s || s->doomed || strcmp(s->name, key + at) != 0)
		return fault_lines_add(c->lines, "%s names a snapshot that %s", key, !s ? "isn't there" : s->doomed ? "is deleted" : "has another name");
	s->named = true;
	return 0;
}

static int read_reap(void *arg, const char *key, const struct catalog_value *value)
{
	struct census *c = arg;
	uint64_t volume, mark;
	(void)value;
	if (!meta_reap_parse(key, &volume, &mark))
		return fault_lines_add(c->lines, "%s is no note of what is to be freed", key);
	struct known_volume *v = find_volume(c, volume);
	struct known_snapshot *s = find_snapshot(c, volume, mark);
	if (v)
		v->waits = true;
	if (v && !mark)
		v->reap = true;
	if (s)
		s->noted = true;
	return 0; /* of one that is gone it is forgotten by the next who deletes something */
}

static int read_import(void *arg, const char *key, const struct catalog_value *value)
{
	struct census *c = arg;
	(void)value;
	return find_volume(c, strtoull(key + strlen("import/"), NULL, 16)) ? 0 : fault_lines_add(c->lines, "%s is of a volume that isn't there", key);
}

static int read_group(void *arg, const char *key, const struct catalog_value *value)
{
	struct census *c = arg;
	uint64_t now = env_wall_ns(c->store->env);
	if (value->length != 8)
		return unclear(c, key, -EUCLEAN);
	return get_le64(value->bytes) + GROUP_STALE_NS > now ? 0 : fault_lines_add(c->lines, "%s: a snapshot of several volumes was interrupted; the next one deletes what is left", key);
}

static int read_server(void *arg, const char *key, const struct catalog_value *value)
{
	struct census *c = arg;
	struct meta_server m;
	int r = meta_server_decode(value->bytes, value->length, &m);
	return r < 0 ? unclear(c, key, r) : 0;
}

static int read_counter(void *arg, const char *key, const struct catalog_value *value)
{
	struct census *c = arg;
	bool volumes = strcmp(key, META_COUNTER_VOLUME) == 0;
	uint64_t given = value->length == 8 ? get_le64(value->bytes) : 0;
	int r = 0;
	if (!volumes && strcmp(key, META_COUNTER_SEGMENT) != 0)
		return 0;
	if (value->length != 8)
		return unclear(c, key, -EUCLEAN);
	for (size_t i = 0; r == 0 && i < c->volume_count; i++) {
		const struct known_volume *v = &c->volumes[i];
		if ((volumes ? v->id : v->last_id) > given)
			r = fault_lines_add(c->lines, "%s is behind: volume %s has %" PRIu64 ", and it stands at %" PRIu64, key, v->name, volumes ? v->id : v->last_id, given);
	}
	return r;
}

/* ---- what should be there ---- */

static int check_volumes(struct census *c)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < c->volume_count; i++) {
		const struct known_volume *v = &c->volumes[i];
		const char *name = v->name[0] ? v->name : "(unknown)";
		if (!v->log)
			r = fault_lines_add(c->lines, "volume %016" PRIx64 " has an owner record and no log", v->id);
		else if (!v->owner)
			r = fault_lines_add(c->lines, "volume %s (%016" PRIx64 ") has no owner record", name, v->id);
		if (r || v->unclear || !v->log)
			continue;
		if (v->parent && !has_clone(c, v->parent, v->mark, v->id))
			r = fault_lines_add(c->lines, "volume %s is a clone of a snapshot that nothing holds for it", name);
		if (r == 0 && !v->named && !v->doomed)
			r = fault_lines_add(c->lines, "volume %s (%016" PRIx64 ") has no name and isn't deleted", name, v->id);
		if (r == 0 && v->doomed && !v->waits && !v->snapshots && !v->cloned)
			r = fault_lines_add(c->lines, "volume %s (%016" PRIx64 ") is deleted, and nothing waits to free it", name, v->id);
	}
	return r;
}

static int check_snapshots(struct census *c)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < c->snapshot_count; i++) {
		const struct known_snapshot *s = &c->snapshots[i];
		const struct known_volume *v = find_volume(c, s->volume);
		if (!s->doomed && !s->named)
			r = fault_lines_add(c->lines, "snapshot %s of volume %s has no name in the catalog's index", s->name, v ? v->name : "(unknown)");
		if (r == 0 && s->doomed && v && !v->reap && !s->noted && !s->cloned)
			r = fault_lines_add(c->lines, "snapshot %s of volume %s is deleted, and nothing waits to free it", s->name, v->name);
	}
	return r;
}

static int check_map(struct census *c)
{
	struct placement *map = malloc(sizeof *map);
	int r = map ? placement_read(c->store->catalog, map, NULL) : -ENOMEM;
	if (r == -EUCLEAN || r == -EPROTONOSUPPORT)
		r = unclear(c, PLACEMENT_KEY, r);
	else
		for (uint32_t i = 0; r == 0 && map->revision && i < map->server_count; i++) {
			struct meta_server m;
			char key[META_KEY_BYTES];
			meta_key_server(&map->servers[i].id, key);
			if (meta_get_server(c->store->catalog, &map->servers[i].id, &m, NULL) == -ENOENT)
				r = fault_lines_add(c->lines, "the map has a server without a record, %s", key);
		}
	free(map);
	return r;
}

int store_check_catalog(struct store *s, struct fault_lines *ret)
{
	static const struct {
		const char *prefix;
		int (*entry)(void *arg, const char *key, const struct catalog_value *value);
	} parts[] = { /* what others refer to comes first */
		{ "volume/", read_volume }, { "snapshot/", read_snapshot }, { "clone/", read_clone }, { "name/", read_name }, { "snapname/", read_snapshot_name },
		{ "reap/", read_reap }, { "import/", read_import }, { "group/", read_group }, { "server/", read_server }, { "counter/", read_counter },
	};
	struct census c = { .store = s, .lines = ret };
	int r = 0;
	for (unsigned i = 0; r == 0 && i < ARRAY_COUNT(parts); i++)
		r = catalog_list(s->catalog, parts[i].prefix, parts[i].entry, &c);
	if (r == 0)
		r = check_volumes(&c);
	if (r == 0)
		r = check_snapshots(&c);
	if (r == 0)
		r = check_map(&c);
	free(c.volumes);
	free(c.snapshots);
	free(c.clones);
	return r;
}
