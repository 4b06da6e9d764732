#include "parallax/store/store_check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/store/store_check_private.h"
#include "parallax/store/verify.h"
#include "parallax/volume/blob.h"
#include "parallax/volume/volume_status.h"

enum { ATTEMPTS = 4 };
#define AGAIN_NS (200 * NS_PER_MS)

int fault_lines_add(struct fault_lines *l, const char *format, ...)
{
	va_list ap;
	l->all++;
	if (l->count == STORE_CHECK_FAULTS_MAX)
		return 0;
	if (array_more(&l->text, l->count) < 0)
		return -ENOMEM;
	va_start(ap, format);
	int n = vasprintf(&l->text[l->count], format, ap);
	va_end(ap);
	l->count += n >= 0;
	return n < 0 ? -ENOMEM : 0;
}

static void fault_lines_free(struct fault_lines *l)
{
	for (size_t i = 0; i < l->count; i++)
		free(l->text[i]);
	free(l->text);
	*l = (struct fault_lines){ 0 };
}

/* ---- which volumes there are ---- */

struct listed {
	uint64_t id, live_blocks;
	char name[STORE_NAME_BYTES + 32];
};

struct owned { /* a segment, and whose it is */
	uint64_t segment, volume;
};

struct check {
	struct store *store;
	struct store_check *how;
	struct listed *volumes;
	size_t volume_count;
	uint64_t done_blocks, total_blocks;
	struct owned *owned;
	size_t owned_count;
	uint32_t owned_room;
	/* the volume that is being checked */
	struct store_checked now;
	bool left, recovered;            /* there are files that are nobody's; it was opened and closed because of them */
	struct meta_log log;
	struct sources sources;
	struct space space;
	struct fault_lines faults;
};

static int list_entry(void *arg, const char *key, const struct catalog_value *value)
{
	struct check *c = arg;
	uint64_t id;
	char rest[16];
	if (sscanf(key, "volume/%16" SCNx64 "/%15s", &id, rest) != 2 || strcmp(rest, "log") != 0)
		return 0;
	struct meta_log *log = array_more(&c->volumes, c->volume_count) == 0 ? malloc(sizeof *log) : NULL;
	if (!log)
		return -ENOMEM;
	struct listed *l = &c->volumes[c->volume_count++];
	*l = (struct listed){ .id = id };
	if (meta_log_decode(value->bytes, value->length, log) == 0) { /* else what follows says so */
		l->live_blocks = log->live_blocks;
		snprintf(l->name, sizeof l->name, "%s%s", log->name, log->doomed ? " (deleted)" : "");
	}
	if (!l->name[0])
		snprintf(l->name, sizeof l->name, "%016" PRIx64, id);
	c->total_blocks += l->live_blocks;
	free(log);
	return 0;
}

static int name_entry(void *arg, const char *key, const struct catalog_value *value)
{
	struct check *c = arg;
	struct meta_name m;
	if (meta_name_decode(value->bytes, value->length, &m) < 0)
		return 0; /* the catalog's check names it */
	size_t low = 0, high = c->volume_count;
	while (low < high) { /* they were listed by id */
		size_t middle = low + (high - low) / 2;
		if (c->volumes[middle].id < m.volume)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < c->volume_count && c->volumes[low].id == m.volume)
		snprintf(c->volumes[low].name, sizeof c->volumes[low].name, "%s", key + strlen("name/"));
	return 0;
}

static int list_volumes(struct check *c, struct report *report)
{
	struct catalog *catalog = c->store->catalog;
	uint64_t only = 0;
	int r = c->how->volume ? store_find_volume(c->store->places, c->how->volume, &only, report) : 0;
	if (r < 0)
		return r;
	r = catalog_list(catalog, "volume/", list_entry, c);
	if (r == 0)
		r = catalog_list(catalog, "name/", name_entry, c);
	for (size_t i = 0; only && i < c->volume_count; i++)
		if (c->volumes[i].id == only) {
			c->volumes[0] = c->volumes[i];
			c->volume_count = 1;
			c->total_blocks = c->volumes[0].live_blocks;
			break;
		}
	return r < 0 ? report_set(report, r, "the catalog: %s", catalog_text(catalog, r)) : 0;
}

/* ---- one volume ---- */

static int volume_fault(void *arg, int status, const char *text)
{
	struct check *c = arg;
	(void)status;
	return fault_lines_add(&c->faults, "%s", text);
}

static void volume_progress(void *arg, uint64_t blocks)
{
	struct check *c = arg;
	if (c->how->progress)
		c->how->progress(c->how->arg, MIN(c->done_blocks + blocks, c->total_blocks) * BLOCK_BYTES, c->total_blocks * BLOCK_BYTES);
}

/* A checkpoint was published since, or the volume is gone. */
static bool volume_changed(void *arg)
{
	struct check *c = arg;
	struct meta_log *log = malloc(sizeof *log);
	int r = log ? meta_get_log(c->store->catalog, c->now.id, log, NULL) : -ENOMEM;
	bool changed = r == -ENOENT || (r == 0 && log->generation != c->log.generation);
	free(log);
	return changed;
}

static int read_table(struct check *c)
{
	uint8_t *bytes = NULL;
	int r = 0;
	space_init(&c->space);
	if (c->log.space.pointer.position) {
		r = blob_read(&c->sources, &c->log.space, &bytes);
		if (r == 0)
			r = space_decode(&c->space, bytes, c->log.space.length);
		free(bytes);
	}
	return r;
}

/* What is in the table, or listed, is its own; between where it began and the last it was given. */
static int note_segments(struct check *c)
{
	const struct meta_log *log = &c->log;
	uint64_t origin = position_segment(log->origin);
	int r = array_reserve(&c->owned, &c->owned_room, c->owned_count + c->space.segment_count + log->segment_count);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < c->space.segment_count; i++) {
		uint64_t id = c->space.segments[i].id;
		c->owned[c->owned_count++] = (struct owned){ id, c->now.id };
		if (r == 0 && (id <= origin || id > log->last_id))
			r = fault_lines_add(&c->faults, "segment %" PRIu64 " is in its table, and can't be its own", id);
	}
	for (uint32_t i = 0; i < log->segment_count; i++)
		if (!space_find(&c->space, log->segments[i].id))
			c->owned[c->owned_count++] = (struct owned){ log->segments[i].id, c->now.id };
	return r;
}

static bool known_segment(struct check *c, uint64_t segment)
{
	bool known = segment > c->log.last_id || space_find(&c->space, segment);
	for (uint32_t i = 0; i < c->log.segment_count; i++)
		known |= c->log.segments[i].id == segment;
	return known;
}

static int orphan_entry(void *arg, uint64_t segment)
{
	struct check *c = arg;
	return known_segment(c, segment) ? 0 : fault_lines_add(&c->faults, "segment %" PRIu64 " is in its directory and is nobody's", segment);
}

/* Those of one that is attached come and go. What a process leaves that is killed while it closes a volume goes when that is opened next (orphans.c), as what one
 * leaves that is killed before is replayed then: a fault is what stays. -EAGAIN: to be opened first. */
static int check_orphans(struct check *c)
{
	uint64_t before = c->faults.all;
	if (catalog_recover_wanted(c->store->catalog, NULL) >= 0) /* until a restoration is confirmed they are kept on purpose (orphans.c) */
		return 0;
	int r = places_embedded_ids(c->store->places, c->now.id, orphan_entry, c);
	c->left = before == 0 && c->faults.all && !c->recovered;
	return c->left && r != -ENOMEM ? -EAGAIN : r;
}

/* As of one publication. -EAGAIN: another one came, or has to. */
static int check_published(struct check *c)
{
	struct report why = { "" };
	size_t owned_before = c->owned_count;
	int r = sources_open(&c->sources, c->store->env, c->store->catalog, &c->store->places->ops, c->now.id, &c->log, NULL, &why);
	if (r < 0) {
		snprintf(c->now.why, sizeof c->now.why, "%s", report_text(&why, r));
		c->now.complete = false;
		return r == -ENOMEM ? r : 0;
	}
	r = read_table(c);
	if (r < 0 && r != -ENOMEM) {
		r = volume_changed(c) ? -EAGAIN : fault_lines_add(&c->faults, "its table of segments, in segment %" PRIu64 ", can't be read: %s",
								  position_segment(c->log.space.pointer.position), errno_text(r));
	} else if (r == 0) {
		struct verify y = { .env = c->store->env, .catalog = c->store->catalog, .volume = c->now.id, .log = &c->log, .sources = &c->sources,
				    .copies = c->sources.source[0].copies, .space = &c->space, .changed = volume_changed, .fault = volume_fault,
				    .progress = volume_progress, .arg = c };
		r = note_segments(c);
		if (r == 0)
			r = verify_run(&y);
		if (r == 0 && c->log.embedded && !c->now.attached)
			r = check_orphans(c);
		r = r == -ENOENT ? 0 : r;
		c->now.segments = y.segments;
		c->now.live_bytes = y.live * BLOCK_BYTES;
		c->now.copies_missing = y.copies_missing;
		c->now.copies_away = y.copies_away;
	}
	if (r == -EAGAIN)
		c->owned_count = owned_before;
	space_destroy(&c->space);
	sources_close(&c->sources);
	return r;
}

/* Nobody has it, and whoever had it last didn't close it in order: what it wrote since its last checkpoint is replayed, and published; what is nobody's goes. */
static int recover_first(struct check *c)
{
	struct volume *v;
	struct report why = { "" };
	c->recovered = true;
	int r = store_maintain(c->store->places, c->now.id, &v, &why);
	if (r == 0) {
		r = volume_close(v);
		if (r < 0)
			report_set(&why, r, "%s", errno_text(r));
	}
	if (r == 0 || r == -EBUSY) /* somebody has just attached it */
		return r == 0 ? 0 : -EAGAIN;
	if (r == -ENOMEM)
		return r;
	if (r == -ENOTCONN || r == -ETIMEDOUT) { /* too few servers answer: whether anything is wrong with it can't be seen */
		snprintf(c->now.why, sizeof c->now.why, "it can't be recovered now: %s", report_text(&why, r));
		c->now.complete = false;
		return 1;
	}
	return fault_lines_add(&c->faults, "it can't be recovered: %s", report_text(&why, r)) ? -ENOMEM : 1;
}

/* What it has published is checked all the same. */
static void note_lapsed(struct check *c, const struct meta_owner *owner, bool contained)
{
	int n = snprintf(c->now.why, sizeof c->now.why, "what was written since its last checkpoint: it is attached as %s ", owner->holder);
	size_t used = MIN((size_t)MAX(n, 0), sizeof c->now.why - 1);
	if (contained)
		snprintf(c->now.why + used, sizeof c->now.why - used, "in another container (check it there)");
	else
		snprintf(c->now.why + used, sizeof c->now.why - used, "on host %s, which hasn't renewed its lease (attach it on another host to take it over, or mend that one)",
			 owner->host);
	c->now.complete = false;
}

/* 1: that was all that can be done. */
static int prepare(struct check *c, const char *name)
{
	struct volume_status status;
	struct meta_owner owner = { 0 };
	struct catalog *catalog = c->store->catalog;
	int r = meta_get_log(catalog, c->now.id, &c->log, NULL);
	int o = meta_get_owner(catalog, c->now.id, &owner, NULL);
	if (r == -ENOENT)
		return 1;
	if (r < 0)
		return r == -EUCLEAN || r == -EPROTONOSUPPORT ? (fault_lines_add(&c->faults, "its record in the catalog can't be understood: %s", errno_text(r)) ? -ENOMEM : 1) : r;
	if (o < 0 && o != -ENOENT)
		return o == -EUCLEAN || o == -EPROTONOSUPPORT ? (fault_lines_add(&c->faults, "its owner record can't be understood: %s", errno_text(o)) ? -ENOMEM : 1) : o;
	if (c->log.embedded && c->store->cluster && !places_embedded_here(c->store->places, c->now.id) && c->log.space.pointer.position) {
		snprintf(c->now.why, sizeof c->now.why, "its data is in a directory of another host (check it there)");
		c->now.complete = false;
		return 1;
	}
	bool alive = places_holder_alive(c->store->places, &owner);
	bool contained = !alive && places_held_contained(c->store->places, c->now.id, &owner);
	c->now.attached = alive || contained || places_attached_elsewhere(c->store->places, &owner);
	if (alive)
		store_holder_fresh(c->store, name, c->now.id, &status); /* what was written up to now is in it, if it can be asked */
	else if (c->now.attached)
		note_lapsed(c, &owner, contained);
	else if (owner.state != OWNER_FREE || c->log.segment_count || c->left)
		r = recover_first(c);
	return r ? r : meta_get_log(catalog, c->now.id, &c->log, NULL) < 0 ? -EAGAIN : 0;
}

/* It is being taken away: whatever is missing of it may be what has gone already, until it can be gone on with. */
static bool is_going(struct check *c)
{
	return meta_get_log(c->store->catalog, c->now.id, &c->log, NULL) == 0 && store_forsaken(c->store, c->now.id, &c->log) == 1;
}

static int check_volume(struct check *c, const struct listed *l)
{
	int r = -EAGAIN;
	c->left = c->recovered = false;
	for (unsigned attempt = 0; r == -EAGAIN && attempt < ATTEMPTS; attempt++) {
		if (attempt)
			fiber_sleep(&c->store->env->loop, AGAIN_NS);
		fault_lines_free(&c->faults);
		c->now = (struct store_checked){ .id = l->id, .complete = true };
		snprintf(c->now.name, sizeof c->now.name, "%s", l->name);
		r = prepare(c, l->name);
		if (r == 0)
			r = check_published(c);
	}
	if (r == -EAGAIN) { /* nothing that was found means anything */
		fault_lines_free(&c->faults);
		c->now.complete = false;
		snprintf(c->now.why, sizeof c->now.why, "it is being written: whenever its map was read, %d times, it was a new one before the end", ATTEMPTS);
		r = 0;
	}
	if (r >= 0 && c->faults.all && is_going(c))
		fault_lines_free(&c->faults);
	return r < 0 ? r : 0;
}

static void deliver(struct check *c, const char *volume)
{
	for (size_t i = 0; i < c->faults.count && c->how->fault; i++)
		c->how->fault(c->how->arg, volume, c->faults.text[i]);
	if (c->faults.all > c->faults.count && c->how->fault) {
		char more[64];
		snprintf(more, sizeof more, "and %" PRIu64 " more", c->faults.all - c->faults.count);
		c->how->fault(c->how->arg, volume, more);
	}
	c->how->faults += c->faults.all;
}

static int check_volumes(struct check *c, struct report *report)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < c->volume_count; i++) {
		r = check_volume(c, &c->volumes[i]);
		if (r < 0) {
			report_set(report, r, "volume %s: %s", c->volumes[i].name, r == -ENOMEM ? errno_text(r) : catalog_text(c->store->catalog, r));
			break;
		}
		c->now.faults = c->faults.all;
		deliver(c, c->now.name);
		fault_lines_free(&c->faults);
		c->how->volumes++;
		c->how->incomplete += !c->now.complete;
		if (c->how->checked)
			c->how->checked(c->how->arg, &c->now);
		c->done_blocks += c->volumes[i].live_blocks;
		volume_progress(c, 0);
	}
	fault_lines_free(&c->faults);
	return r;
}

/* ---- the catalog ---- */

static bool has_line(const struct fault_lines *l, const char *text)
{
	for (size_t i = 0; i < l->count; i++)
		if (strcmp(l->text[i], text) == 0)
			return true;
	return false;
}

/* It is read in parts, between which others change it: what is wrong is so when it is looked at again. */
static int check_catalog(struct check *c, struct report *report)
{
	struct fault_lines first = { 0 }, second = { 0 };
	int r = store_check_catalog(c->store, &first);
	if (r == 0 && first.count) {
		fiber_sleep(&c->store->env->loop, AGAIN_NS);
		r = store_check_catalog(c->store, &second);
	}
	for (size_t i = 0; r == 0 && i < first.count; i++)
		if (has_line(&second, first.text[i]))
			r = fault_lines_add(&c->faults, "%s", first.text[i]);
	fault_lines_free(&first);
	fault_lines_free(&second);
	if (r == 0)
		deliver(c, NULL);
	fault_lines_free(&c->faults);
	return r < 0 ? report_set(report, r, "the catalog: %s", catalog_text(c->store->catalog, r)) : 0;
}

static int compare_owned(const void *a, const void *b)
{
	const struct owned *x = a, *y = b;
	return x->segment < y->segment ? -1 : x->segment > y->segment;
}

static int check_owned(struct check *c)
{
	int r = 0;
	if (c->owned_count)
		qsort(c->owned, c->owned_count, sizeof *c->owned, compare_owned);
	for (size_t i = 1; r == 0 && i < c->owned_count; i++)
		if (c->owned[i].segment == c->owned[i - 1].segment)
			r = fault_lines_add(&c->faults, "segment %" PRIu64 " is listed by the volumes %016" PRIx64 " and %016" PRIx64, c->owned[i].segment,
					    MIN(c->owned[i - 1].volume, c->owned[i].volume), MAX(c->owned[i - 1].volume, c->owned[i].volume));
	if (r == 0)
		deliver(c, NULL);
	fault_lines_free(&c->faults);
	return r;
}

/* ---- when, and how it ended ---- */

static void health_key(const char *what, char ret_key[META_KEY_BYTES]) { snprintf(ret_key, META_KEY_BYTES, "health/%s", what); }

int store_health_write(struct store *s, const char *what, uint64_t faults, uint64_t incomplete)
{
	char key[META_KEY_BYTES], text[80];
	struct catalog_txn *t = malloc(sizeof *t);
	if (!t)
		return -ENOMEM;
	health_key(what, key);
	snprintf(text, sizeof text, "%" PRIu64 " %" PRIu64 " %" PRIu64, env_wall_ns(s->env), faults, incomplete);
	catalog_txn_init(t);
	catalog_txn_put(t, key, text, strlen(text));
	int r = catalog_txn(s->catalog, t, NULL);
	free(t);
	return r;
}

int store_health_read(struct store *s, const char *what, struct store_health *ret)
{
	char key[META_KEY_BYTES], text[80] = "";
	struct catalog_value v;
	health_key(what, key);
	*ret = (struct store_health){ 0 };
	int r = catalog_get(s->catalog, key, &v);
	if (r == 0 && v.length < sizeof text)
		memcpy(text, v.bytes, v.length);
	catalog_value_free(&v);
	if (sscanf(text, "%" SCNu64 " %" SCNu64 " %" SCNu64, &ret->when_ns, &ret->faults, &ret->incomplete) != 3)
		*ret = (struct store_health){ 0 };
	return r == -ENOENT ? 0 : r;
}

int store_check(struct store *s, struct store_check *how, struct report *report)
{
	struct check *c = calloc(1, sizeof *c);
	if (!c)
		return -ENOMEM;
	c->store = s;
	c->how = how;
	how->faults = how->volumes = how->incomplete = how->orphans = how->orphan_bytes = 0;
	int r = list_volumes(c, report);
	if (r == 0 && !how->volume)
		r = check_catalog(c, report);
	if (r == 0)
		r = check_volumes(c, report);
	if (r == 0)
		r = check_owned(c);
	if (r == 0 && !how->volume && (r = store_check_orphans(s, &how->orphans, &how->orphan_bytes)) < 0)
		r = r == -ENOMEM ? r : how->faults ? 0 : report_set(report, r, "the servers' copies: %s", errno_text(r)); /* a record may be damaged: that was said */
	if (r == 0 && !how->volume)
		store_health_write(s, "check", how->faults, how->incomplete); /* a store that can't be written can be checked all the same */
	free(c->owned);
	free(c->volumes);
	free(c);
	return r;
}
