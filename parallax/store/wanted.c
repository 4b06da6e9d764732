#include "parallax/store/wanted.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "core/plant.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/map/space.h"
#include "parallax/volume/blob.h"

enum { LOAD_TRIES = 4, CATALOG_TRIES = 50 };

/* ---- the volumes ---- */

static int add(struct wanted *w, size_t at, const struct meta_log *log, uint64_t id)
{
	if (array_more(&w->volumes, w->count) < 0)
		return -ENOMEM;
	memmove(w->volumes + at + 1, w->volumes + at, (w->count - at) * sizeof *w->volumes);
	w->volumes[at] = (struct wanted_volume){ .volume = log->volume, .id = id, .replicas = log->replicas, .embedded = log->embedded };
	w->count++;
	return 0;
}

static void keep_log(struct wanted_volume *v, const struct catalog_value *value)
{
	v->log = malloc(value->length + 1);
	v->log_length = value->length;
	if (v->log)
		memcpy(v->log, value->bytes, value->length);
}

static void drop_log(struct wanted_volume *v)
{
	free(v->log);
	v->log = NULL;
}

static int note_volume(void *arg, const char *key, const struct catalog_value *value)
{
	struct wanted *w = arg;
	const char *end = strrchr(key, '/');
	if (!end || strcmp(end, "/log") != 0)
		return 0;
	struct meta_log *log = malloc(sizeof *log);
	int r = log ? meta_log_decode(value->bytes, value->length, log) : -ENOMEM;
	if (r == 0)
		r = add(w, w->count, log, strtoull(key + strlen("volume/"), NULL, 16));
	if (r == 0 && w->keep && w->keep(w->keep_arg, &log->volume))
		keep_log(&w->volumes[w->count - 1], value);
	free(log);
	return r; /* a record that can't be read: nothing is known of what it lists */
}

static int by_uuid(const void *a, const void *b)
{
	return memcmp(&((const struct wanted_volume *)a)->volume, &((const struct wanted_volume *)b)->volume, sizeof(uuid));
}

static void forget_all(struct wanted *w)
{
	for (size_t i = 0; i < w->count; i++) {
		wanted_unload(&w->volumes[i]);
		drop_log(&w->volumes[i]);
	}
	w->count = 0;
}

static int list_all(struct wanted *w)
{
	int r = -ETIMEDOUT;
	for (unsigned i = 0; i < CATALOG_TRIES && r == -ETIMEDOUT; i++) {
		if (i && fiber_sleep(&w->catalog->env->loop, 20 * NS_PER_MS) < 0)
			return -ESHUTDOWN;
		forget_all(w);
		r = catalog_list(w->catalog, "volume/", note_volume, w);
	}
	if (r == 0 && w->count)
		qsort(w->volumes, w->count, sizeof *w->volumes, by_uuid);
	w->lazy = r < 0;
	if (r < 0)
		forget_all(w);
	return r;
}

/* FIBER. All volumes are known after it. 0 or -errno. */
static int complete(struct wanted *w) { return w->lazy ? list_all(w) : 0; }

struct wanted *wanted_open_lazy(struct catalog *catalog, struct copies *copies)
{
	struct wanted *w = calloc(1, sizeof *w);
	if (!w)
		return NULL;
	w->catalog = catalog;
	w->copies = copies;
	w->lazy = true;
	return w;
}

int wanted_open_for(struct catalog *catalog, struct copies *copies, bool (*keep)(const void *arg, const uuid *volume), const void *arg, struct wanted **ret)
{
	struct wanted *w = wanted_open_lazy(catalog, copies);
	int r = -ENOMEM;
	if (w) {
		w->keep = keep;
		w->keep_arg = arg;
		r = complete(w);
		w->keep = NULL;
	}
	if (r < 0)
		wanted_close(w);
	else
		*ret = w;
	return r;
}

int wanted_open(struct catalog *catalog, struct copies *copies, struct wanted **ret) { return wanted_open_for(catalog, copies, NULL, NULL, ret); }

void wanted_unload(struct wanted_volume *v)
{
	free(v->segments);
	free(v->unused);
	free(v->cuts);
	v->segments = v->unused = NULL;
	v->cuts = NULL;
	v->count = v->unused_count = v->cut_count = 0;
	v->loaded = false;
}

void wanted_close(struct wanted *w)
{
	if (w) {
		forget_all(w);
		free(w->volumes);
	}
	free(w);
}

struct wanted_volume *wanted_find(struct wanted *w, const uuid *volume)
{
	struct wanted_volume key = { .volume = *volume };
	return w->count ? bsearch(&key, w->volumes, w->count, sizeof *w->volumes, by_uuid) : NULL;
}

static size_t place_of(const struct wanted *w, const uuid *volume)
{
	size_t low = 0, high = w->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (memcmp(&w->volumes[middle].volume, volume, sizeof *volume) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* By the number that its uuid ends with. -ENOENT: not under that. */
static int look_up(struct wanted *w, const uuid *volume)
{
	uint64_t id = get_le64(volume->bytes + 8);
	char key[META_KEY_BYTES];
	struct catalog_value value = { 0 };
	struct meta_log *log = malloc(sizeof *log);
	int r = log ? -ETIMEDOUT : -ENOMEM;
	meta_key_log(id, key);
	for (unsigned i = 0; i < CATALOG_TRIES && r == -ETIMEDOUT; i++)
		r = i && fiber_sleep(&w->catalog->env->loop, 20 * NS_PER_MS) < 0 ? -ESHUTDOWN : catalog_get(w->catalog, key, &value);
	if (r == 0)
		r = meta_log_decode(value.bytes, value.length, log);
	size_t at = place_of(w, volume);
	if (r == 0)
		r = memcmp(&log->volume, volume, sizeof *volume) == 0 ? add(w, at, log, id) : -ENOENT;
	if (r == 0)
		keep_log(&w->volumes[at], &value);
	catalog_value_free(&value);
	free(log);
	return r;
}

int wanted_learn(struct wanted *w, const uuid *volume, struct wanted_volume **ret)
{
	int r = 0;
	*ret = wanted_find(w, volume);
	if (!*ret && w->lazy) {
		r = look_up(w, volume);
		if (r == -ENOENT)
			r = complete(w);
		*ret = r == 0 ? wanted_find(w, volume) : NULL;
	}
	return r < 0 ? r : *ret ? 0 : -ENOENT;
}

/* ---- what one lists ---- */

static int by_id(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static bool log_lists(const struct meta_log *log, uint64_t segment)
{
	for (uint32_t i = 0; i < log->segment_count; i++)
		if (log->segments[i].id == segment)
			return true;
	return false;
}

/* What the table counts as live, and the table itself, is in others; what was written later the log lists, or it is in a later table. The
 * table's root is the last that was written of it. */
static void fill_unused(struct wanted_volume *v, const struct meta_log *log, const struct space *space)
{
	v->unused_count = 0;
	for (uint32_t i = 0; i < space->segment_count; i++) {
		const struct space_segment *g = &space->segments[i];
		if (g->live == 0 && g->id > position_segment(log->space.pointer.position) && !log_lists(log, g->id))
			v->unused[v->unused_count++] = g->id;
	}
}

static void add_cut(struct wanted_volume *v, const struct meta_segment *m)
{
	struct wanted_cut *c = &v->cuts[v->cut_count++];
	*c = (struct wanted_cut){ .segment = m->id, .length = m->length, .prev = m->prev, .holder_count = m->ensemble_count };
	memcpy(c->holders, m->ensemble, sizeof c->holders);
}

static int fill(struct wanted_volume *v, const struct meta_log *log, const struct space *space)
{
	wanted_unload(v);
	v->segments = malloc((log->segment_count + (size_t)space->segment_count + 1) * sizeof *v->segments);
	v->unused = malloc((space->segment_count + (size_t)1) * sizeof *v->unused);
	v->cuts = malloc((log->segment_count + (size_t)log->unsealed_count + 1) * sizeof *v->cuts);
	if (!v->segments || !v->unused || !v->cuts)
		return -ENOMEM;
	fill_unused(v, log, space);
	v->count = 0;
	v->cut_count = 0;
	for (uint32_t i = 0; i < space->segment_count && !PLANTED(wanted_forgets_table); i++)
		v->segments[v->count++] = space->segments[i].id;
	for (uint32_t i = 0; i < log->segment_count; i++) {
		const struct meta_segment *m = &log->segments[i];
		v->segments[v->count++] = m->id;
		if (m->cut)
			add_cut(v, m);
	}
	for (uint32_t i = 0; i < log->unsealed_count; i++)
		add_cut(v, &log->unsealed[i]);
	if (log->space.pointer.position) /* the table's own: it is listed, or may be one that a destruction has left for the last */
		v->segments[v->count++] = position_segment(log->space.pointer.position);
	qsort(v->segments, v->count, sizeof *v->segments, by_id);
	v->last_id = log->last_id;
	v->loaded = true;
	return 0;
}

static int load_once(struct wanted *w, struct wanted_volume *v)
{
	struct meta_log *log = malloc(sizeof *log);
	struct source source = { .copies = w->copies };
	struct sources sources = { .env = w->catalog->env, .source = &source, .count = 1 };
	struct space space;
	uint8_t *bytes = NULL;
	int r = !log ? -ENOMEM : v->log ? meta_log_decode(v->log, v->log_length, log) : meta_get_log(w->catalog, v->id, log, NULL);
	drop_log(v);
	space_init(&space);
	if (r == 0 && memcmp(&log->volume, &v->volume, sizeof v->volume) != 0)
		r = -ENOENT;
	if (r == 0 && log->space.pointer.position && !log->embedded) {
		r = blob_read(&sources, &log->space, &bytes);
		r = r == -ENOENT ? -EIO : r;
		if (r == 0)
			r = space_decode(&space, bytes, log->space.length);
	}
	if (r == 0)
		r = fill(v, log, &space);
	free(bytes);
	space_destroy(&space);
	free(log);
	return r;
}

/* Its table may be another one by the time it is read, and the one that was to be read deleted. */
int wanted_load(struct wanted *w, struct wanted_volume *v)
{
	struct env *env = w->catalog->env;
	if (v->loaded || v->status)
		return v->status;
	for (unsigned i = 0; i < LOAD_TRIES; i++) {
		v->status = i && fiber_sleep(&env->loop, 20 * NS_PER_MS) < 0 ? -ESHUTDOWN : load_once(w, v);
		if (v->status == 0 || v->status == -ENOENT || v->status == -ENOMEM || v->status == -ESHUTDOWN || env->dead)
			break;
	}
	return v->status;
}

bool wanted_lists(const struct wanted_volume *v, uint64_t segment)
{
	return v->count && bsearch(&segment, v->segments, v->count, sizeof segment, by_id) != NULL;
}

enum wanted_answer wanted_ask(struct wanted *w, const struct segment_header *h)
{
	struct wanted_volume *v;
	int r = wanted_learn(w, &h->volume, &v);
	if (r == 0)
		r = wanted_load(w, v);
	w->failed |= r < 0 && r != -ENOENT;
	if (r < 0)
		return r == -ENOENT ? WANTED_NO : WANTED_UNKNOWN;
	if (v->embedded || (h->segment > v->last_id && !PLANTED(wanted_ignores_last_id)))
		return WANTED_UNKNOWN;
	return wanted_lists(v, h->segment) ? WANTED_YES : WANTED_NO;
}

bool wanted_is_unused(const struct wanted_volume *v, uint64_t segment)
{
	return v->unused_count && bsearch(&segment, v->unused, v->unused_count, sizeof segment, by_id) != NULL;
}

const struct wanted_cut *wanted_cut(const struct wanted_volume *v, uint64_t segment)
{
	for (unsigned i = 0; i < v->cut_count; i++)
		if (v->cuts[i].segment == segment)
			return &v->cuts[i];
	return NULL;
}

bool wanted_holds(const struct wanted_cut *c, const uuid *server)
{
	for (uint32_t i = 0; i < c->holder_count; i++)
		if (memcmp(&c->holders[i].server, server, sizeof *server) == 0)
			return true;
	return false;
}

int wanted_may_condemn(struct catalog *catalog)
{
	static const char *const marks[] = { STORE_RESTORED, STORE_MOVED, STORE_INCOMING };
	int r = 0;
	for (unsigned i = 0; i < ARRAY_COUNT(marks); i++) {
		r = -ETIMEDOUT;
		for (unsigned n = 0; n < CATALOG_TRIES && r == -ETIMEDOUT && !catalog->env->dead; n++) {
			struct catalog_value mark;
			if (n)
				fiber_sleep(&catalog->env->loop, 20 * NS_PER_MS);
			r = catalog_get(catalog, marks[i], &mark);
			catalog_value_free(&mark);
		}
		if (r != -ENOENT)
			return r == 0 ? -EPERM : r;
	}
	return 0;
}
