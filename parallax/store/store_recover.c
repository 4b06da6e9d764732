/* Lists all copies that servers and embedded volumes' directories have, and goes through the volumes: first those that the catalog knows, so that snapshots are
 * there before what was cloned from them since. Each volume is done by itself, and can be done again. */
#include "parallax/store/store_recover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/store/store_recover_private.h"

struct listed_volume {
	uint64_t id;
	uuid volume;
	bool embedded;
};

struct listing {
	struct salvage_copy *copies;
	size_t count;
};

struct recovery {
	struct store *store;
	struct store_recover *how;
	struct report *report;
	struct copies *cluster;
	bool complete;                 /* all servers answered */
	struct listing on_servers;     /* by volume, then epoch and id */
	struct listed_volume *volumes; /* in the catalog, by number */
	size_t volume_count;
	struct store_names names;
	struct catalog_since since;    /* numbers of volumes that have been made since the backup */
	bool again;                    /* it was done before, */
	uint64_t *left;                /* but of these volumes */
	size_t left_count;
	uint64_t *doomed;              /* those that had a name by the backup, and were deleted or rolled back */
	size_t doomed_count;
	struct recover_unfound unfound;
	uint64_t done;
};

/* ---- copies ---- */

static int by_volume(const void *a, const void *b)
{
	const struct share_entry *x = &((const struct salvage_copy *)a)->entry, *y = &((const struct salvage_copy *)b)->entry;
	int r = memcmp(&x->header.volume, &y->header.volume, sizeof(uuid));
	if (r == 0)
		r = x->header.epoch < y->header.epoch ? -1 : x->header.epoch > y->header.epoch;
	return r ? r : x->header.segment < y->header.segment ? -1 : x->header.segment > y->header.segment;
}

static int note_copy(void *arg, struct peer *peer, const struct share_entry *e)
{
	struct listing *l = arg;
	if (array_more(&l->copies, l->count) < 0)
		return -ENOMEM;
	l->copies[l->count++] = (struct salvage_copy){ *e, peer };
	return 0;
}

/* Those of the peers that answer, by volume. */
static int list_all(struct peer *const *peers, unsigned count, struct listing *l, struct report *report)
{
	int r = 0;
	for (unsigned i = 0; r == 0 && i < count; i++)
		if (peer_usable(peers[i]) && (r = peer_list(peers[i], note_copy, l)) < 0)
			report_set(report, r, "what %s has can't be listed: %s", peers[i]->address[0] ? peers[i]->address : "its directory", errno_text(r));
	if (r == 0 && l->count)
		qsort(l->copies, l->count, sizeof *l->copies, by_volume);
	return r;
}

/* All that the catalog knows by now: those of the time of the backup, and those that came to it since. */
struct servers {
	struct copies *copies;
	struct peer **peers;
	size_t count;
};

static int note_server(void *arg, const char *key, const struct catalog_value *value)
{
	struct servers *s = arg;
	struct meta_server m;
	uuid id;
	int r = meta_server_decode(value->bytes, value->length, &m);
	if (r < 0 || !meta_server_id(key, &id) || m.removed || !m.address[0])
		return r;
	struct peer *p = copies_peer(s->copies, &id);
	if (!p || array_more(&s->peers, s->count) < 0)
		return -ENOMEM;
	s->peers[s->count++] = p;
	return 0;
}

static int list_cluster(struct recovery *y)
{
	struct servers s = { .copies = y->cluster };
	char who[META_TEXT_MAX];
	int r = catalog_list(y->store->catalog, "server/", note_server, &s);
	if (r < 0)
		report_set(y->report, r, "the catalog: %s", catalog_text(y->store->catalog, r));
	y->complete = r == 0 && (s.count == 0 || peers_await(s.peers, (unsigned)s.count, (unsigned)s.count));
	if (r == 0 && !y->complete && !y->how->force) {
		peers_missing(s.peers, (unsigned)s.count, who, sizeof who);
		r = report_set(y->report, -ENOTCONN, "servers don't answer that may have what was written since: %s (start them; or, if they are lost, give --force)", who);
	}
	if (r == 0)
		r = list_all(s.peers, (unsigned)s.count, &y->on_servers, y->report);
	free(s.peers);
	return r;
}

/* ---- volumes ---- */

static int note_volume(void *arg, const char *key, const struct catalog_value *value)
{
	struct recovery *y = arg;
	const char *end = strrchr(key, '/');
	if (!end || strcmp(end, "/log") != 0)
		return 0;
	struct meta_log *log = malloc(sizeof *log);
	int r = !log || array_more(&y->volumes, y->volume_count) < 0 ? -ENOMEM : meta_log_decode(value->bytes, value->length, log);
	if (r == 0)
		y->volumes[y->volume_count++] = (struct listed_volume){ strtoull(key + strlen("volume/"), NULL, 16), log->volume, log->embedded };
	free(log);
	return r;
}

static int by_named(const void *a, const void *b)
{
	uint64_t x = ((const struct store_named *)a)->named.volume, y = ((const struct store_named *)b)->named.volume;
	return x < y ? -1 : x > y;
}

static const char *name_of(const struct recovery *y, uint64_t id)
{
	struct store_named key = { .named.volume = id };
	const struct store_named *n = y->names.count ? bsearch(&key, y->names.entries, y->names.count, sizeof key, by_named) : NULL;
	return n ? n->name : "";
}

/* Those of one volume. */
static const struct salvage_copy *copies_of(const struct recovery *y, const uuid *volume, size_t *ret_count)
{
	size_t low = 0, high = y->on_servers.count, end;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (memcmp(&y->on_servers.copies[middle].entry.header.volume, volume, sizeof *volume) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	for (end = low; end < y->on_servers.count && memcmp(&y->on_servers.copies[end].entry.header.volume, volume, sizeof *volume) == 0;)
		end++;
	*ret_count = end - low;
	return y->on_servers.copies + low;
}

static void say(struct recovery *y, struct recovering *r, int status, const struct report *why)
{
	struct store_recovered *v = r->ret;
	if (status < 0)
		v->how = STORE_RECOVERED_NOT;
	if (v->how >= STORE_RECOVERED_LEFT)
		v->why = report_text(why, status);
	y->how->counts[v->how]++;
	if (y->how->volume)
		y->how->volume(y->how->arg, v);
	y->done++;
	if (y->how->progress)
		y->how->progress(y->how->arg, y->done, MAX(y->done, (uint64_t)y->volume_count));
}

static struct recovering *recovering_new(struct recovery *y, uint64_t id, struct store_recovered *ret)
{
	struct recovering *r = calloc(1, sizeof *r);
	if (!r)
		return NULL;
	*ret = (struct store_recovered){ .id = id };
	snprintf(ret->name, sizeof ret->name, "%s", name_of(y, id));
	r->store = y->store;
	r->copies = y->cluster;
	r->id = id;
	r->ret = ret;
	r->names = &y->names;
	r->unfound = &y->unfound;
	r->force = y->how->force;
	r->complete = y->complete;
	space_init(&r->table);
	return r;
}

static void recovering_free(struct recovering *r)
{
	summary_free(&r->s.summary);
	space_destroy(&r->table);
	free(r);
}

/* ---- numbers ---- */

/* The same backup may have been restored before, so that what it raises is in use already: no number that is found is given again. */
static int raise_counter(struct recovery *y, const char *key, uint64_t found)
{
	uint64_t first;
	int r = found ? catalog_counter_take(y->store->catalog, key, found, 1, &first) : 0;
	return r < 0 ? report_set(y->report, r, "the catalog's %s: %s", key, catalog_text(y->store->catalog, r)) : 0;
}

static int raise_segments(struct recovery *y, const struct listing *l)
{
	uint64_t found = 0;
	for (size_t i = 0; i < l->count; i++)
		found = MAX(found, l->copies[i].entry.header.segment);
	return raise_counter(y, META_COUNTER_SEGMENT, found);
}

/* ---- one that the catalog knows ---- */

/* Its record may be gone by now: it was a clone of one that was deleted. */
static int read_known(struct recovering *r, struct report *report)
{
	struct catalog *c = r->store->catalog;
	int status = meta_get_log(c, r->id, &r->known, &r->log_revision);
	if (status == 0)
		status = meta_get_owner(c, r->id, &r->owner, &r->owner_revision);
	if (status < 0)
		return report_set(report, status, "its record can't be read: %s", catalog_text(c, status));
	if (r->owner.state != OWNER_FREE)
		return report_set(report, -EBUSY, "it is attached as %s%s%s", r->owner.holder, r->owner.host[0] ? " on host " : "", r->owner.host);
	return 0;
}

static int recover_on_servers(struct recovery *y, struct recovering *r, struct report *report)
{
	r->found = copies_of(y, &r->known.volume, &r->found_count);
	if (!y->complete && r->found_count == 0)
		return report_set(report, -ENOTCONN, "nothing of it is on the servers that answer");
	return recover_known(r, report);
}

/* Its directory is opened as its owner would. */
static int with_directory(struct recovery *y, struct recovering *r, int (*recover)(struct recovering *r, struct report *report), struct report *report)
{
	struct places *p = y->store->places;
	struct segment_server *server = NULL;
	struct copies *copies = NULL;
	struct listing l = { 0 };
	int status = p->ops.open_embedded(p->ops.arg, r->id, /* create= */ false, &server, report);
	if (status == 0 && !(copies = copies_embedded(y->store->env, server)))
		status = -ENOMEM;
	if (status == 0) {
		status = list_all(copies->peers, copies->count, &l, report);
		if (status == 0)
			status = raise_segments(y, &l);
		r->copies = copies;
		r->found = l.copies;
		r->found_count = l.count;
		r->complete = true;
	}
	if (status == 0)
		status = recover(r, report);
	free(l.copies);
	copies_close(copies);
	segment_server_close(server);
	return status;
}

static int recover_embedded(struct recovery *y, struct recovering *r, struct report *report)
{
	if (places_embedded_here(y->store->places, r->id))
		return with_directory(y, r, recover_known, report);
	if (r->owner.epoch == 0) /* it had never been open, nor has it since, here */
		return 0;
	if (y->store->cluster)
		return report_set(report, -ENOENT, "its directory isn't on this host (recover on the one that has it; if none has, it was deleted)");
	r->ret->how = STORE_RECOVERED_GONE;
	return recover_forget(y->store, r->id, report);
}

/* Where not all answered, or what was written last is missing, it may have gone back to a checkpoint before the last. */
static int count_lost(struct recovering *r, int status)
{
	bool back = status == 0 && r->force && (!r->complete || r->ret->behind) && r->ret->how <= STORE_RECOVERED_BACK;
	return back ? recover_count_lost(r) : status;
}

static bool was_left(const struct recovery *y, uint64_t id)
{
	for (size_t i = 0; i < y->left_count; i++)
		if (y->left[i] == id)
			return true;
	return false;
}

/* What isn't recovered isn't opened: it would go on from what it was, and what was written since would be nobody's. One that was when this was done before, or
 * has been made since, is used by now. */
static int mark(struct recovery *y, const struct recovering *r)
{
	bool failed = r->ret->how == STORE_RECOVERED_NOT;
	return was_left(y, r->id) || (failed && !y->again) ? catalog_mark_left(y->store->catalog, r->id, failed ? r->ret->why : NULL, y->report) : 0;
}

static int recover_one(struct recovery *y, const struct listed_volume *v)
{
	struct report report = { "" };
	struct store_recovered ret;
	struct recovering *r = recovering_new(y, v->id, &ret);
	if (!r)
		return -ENOMEM;
	int status = read_known(r, &report);
	bool gone = status == -ENOENT, used = status == -EBUSY && y->again && !was_left(y, v->id);
	if (used)
		status = 0; /* it was recovered then, or nobody could have opened it */
	else if (status == 0)
		status = v->embedded ? recover_embedded(y, r, &report) : count_lost(r, recover_on_servers(y, r, &report));
	if (r->s.what == SALVAGE_NOTHING)
		r->s.log = r->known;
	bool doomed = status == 0 && ret.how != STORE_RECOVERED_GONE && r->s.log.doomed;
	if (doomed && !ret.name[0])
		status = recover_note_past(r); /* found when this was done before */
	else if (doomed && array_more(&y->doomed, y->doomed_count) < 0)
		status = -ENOMEM;
	else if (doomed)
		y->doomed[y->doomed_count++] = v->id;
	if (doomed)
		ret.name[0] = '\0';
	if (!gone)
		say(y, r, status, &report);
	if (status != -ENOMEM && status != -ESHUTDOWN)
		status = gone ? 0 : mark(y, r);
	recovering_free(r);
	return status;
}

/* ---- those that it doesn't ---- */

/* A volume's id ends with its number. */
static uint64_t number_of(const uuid *volume) { return get_le64(volume->bytes + 8); }

struct unknown {
	uint64_t id;
	size_t begin, count; /* in copies; none: it has a directory here */
};

struct unknowns {
	const struct recovery *y;
	struct unknown *entries;
	size_t count;
};

static int by_number(const void *a, const void *b)
{
	uint64_t x = ((const struct unknown *)a)->id, y = ((const struct unknown *)b)->id;
	return x < y ? -1 : x > y;
}

/* Made since the backup; of older ones, which were deleted before it, a server that was away may still have something. Nor are those meant that have been made
 * since the restoration: what the catalog doesn't know of them was deleted. */
static bool is_new(const struct recovery *y, uint64_t id)
{
	size_t at = array_place(y->volumes, y->volume_count, id, id);
	return id > y->since.after && id <= y->since.upto && !(at < y->volume_count && y->volumes[at].id == id);
}

static int add_unknown(struct unknowns *u, uint64_t id, size_t begin, size_t count)
{
	if (!is_new(u->y, id))
		return 0;
	if (array_more(&u->entries, u->count) < 0)
		return -ENOMEM;
	u->entries[u->count++] = (struct unknown){ id, begin, count };
	return 0;
}

static int note_directory(void *arg, const char *name)
{
	char *end;
	uint64_t id = strtoull(name, &end, 16);
	return *end ? 0 : add_unknown(arg, id, 0, 0);
}

/* On servers, and in this host's directories. */
static int find_unknown(struct unknowns *u)
{
	const struct recovery *y = u->y;
	char path[1024];
	int r = 0;
	for (size_t begin = 0, end; r == 0 && begin < y->on_servers.count; begin = end) {
		const uuid *volume = &y->on_servers.copies[begin].entry.header.volume;
		for (end = begin; end < y->on_servers.count && memcmp(&y->on_servers.copies[end].entry.header.volume, volume, sizeof *volume) == 0;)
			end++;
		r = add_unknown(u, number_of(volume), begin, end - begin);
	}
	snprintf(path, sizeof path, "%s/volumes", y->store->places->dir);
	if (r == 0)
		r = env_list_dir(y->store->env, path, note_directory, u);
	if (u->count)
		qsort(u->entries, u->count, sizeof *u->entries, by_number);
	return r == -ENOENT ? 0 : r;
}

static int recover_new(struct recovery *y, const struct unknown *u)
{
	struct report report = { "" };
	struct store_recovered ret;
	struct recovering *r = recovering_new(y, u->id, &ret);
	if (!r)
		return -ENOMEM;
	r->found = y->on_servers.copies + u->begin;
	r->found_count = u->count;
	int status = u->count ? count_lost(r, recover_unknown(r, &report)) : with_directory(y, r, recover_unknown, &report);
	if (status < 0 && array_more(&y->unfound.names, y->unfound.count) < 0)
		status = -ENOMEM;
	else if (status < 0)
		snprintf(y->unfound.names[y->unfound.count++], STORE_NAME_BYTES, "%s", ret.name);
	say(y, r, status, &report);
	recovering_free(r);
	return status == -ENOMEM || status == -ESHUTDOWN ? status : 0;
}

/* By number, so that what a clone was made from comes before it. */
static int recover_all_new(struct recovery *y)
{
	struct unknowns u = { .y = y };
	int r = find_unknown(&u);
	if (r < 0)
		report_set(y->report, r, "what there is can't be listed: %s", errno_text(r));
	if (r == 0 && u.count)
		r = raise_counter(y, META_COUNTER_VOLUME, u.entries[u.count - 1].id);
	for (size_t i = 0; r == 0 && i < u.count; i++)
		r = recover_new(y, &u.entries[i]);
	free(u.entries);
	return r;
}

/* ---- all of it ---- */

/* Last, when those are there that may have got the names. */
static int recover_names(struct recovery *y)
{
	int status = 0;
	for (size_t i = 0; status == 0 && i < y->doomed_count; i++) {
		if (recover_unfound_has(&y->unfound, name_of(y, y->doomed[i])))
			continue; /* one may have it, as this finds when it is done again */
		struct report report = { "" };
		struct store_recovered ret = { .id = y->doomed[i] };
		int r = recover_name(y->store, name_of(y, ret.id), ret.id, &ret, &report);
		if (r < 0 || ret.rolled_back[0]) {
			struct recovering said = { .id = ret.id, .ret = &ret };
			snprintf(ret.name, sizeof ret.name, "%s", name_of(y, ret.id));
			say(y, &said, r, &report);
			status = r < 0 ? catalog_mark_left(y->store->catalog, ret.id, ret.why, y->report) : 0;
		}
	}
	return status;
}

static int note_left(void *arg, const char *key, const struct catalog_value *value)
{
	struct recovery *y = arg;
	(void)value;
	if (array_more(&y->left, y->left_count) < 0)
		return -ENOMEM;
	y->left[y->left_count++] = strtoull(strrchr(key, '/') + 1, NULL, 16);
	return 0;
}

static int note_import(void *arg, const char *key, const struct catalog_value *value) { return catalog_image_add(arg, key, value->bytes, value->length); }

/* An import may have been completed since, under another name: nobody is to take it for one that was killed. */
static int forget_imports(struct recovery *y)
{
	struct catalog_image imports = { 0 };
	int r = catalog_list(y->store->catalog, "import/", note_import, &imports);
	for (size_t i = 0; r == 0 && i < imports.count; i++)
		r = catalog_mark(y->store->catalog, imports.keys[i].key, NULL, y->report);
	catalog_image_free(&imports);
	return r < 0 ? report_set(y->report, r, "the catalog: %s", catalog_text(y->store->catalog, r)) : 0;
}

static int recover_all(struct recovery *y)
{
	int r = list_cluster(y);
	if (r == 0 && !y->again)
		r = forget_imports(y);
	if (r == 0)
		r = raise_segments(y, &y->on_servers);
	if (r == 0 && (r = catalog_list(y->store->catalog, STORE_RECOVER "/", note_left, y)) < 0)
		report_set(y->report, r, "the catalog: %s", catalog_text(y->store->catalog, r));
	if (r == 0 && (r = catalog_list(y->store->catalog, "volume/", note_volume, y)) < 0)
		report_set(y->report, r, "the catalog: %s", catalog_text(y->store->catalog, r));
	if (r == 0)
		r = store_names_read(y->store, &y->names, y->report);
	if (y->names.count)
		qsort(y->names.entries, y->names.count, sizeof *y->names.entries, by_named);
	for (size_t i = 0; r == 0 && i < y->volume_count; i++)
		r = recover_one(y, &y->volumes[i]);
	if (r == 0)
		r = recover_all_new(y);
	if (r == 0)
		r = recover_names(y);
	return r;
}

int store_recover(struct store *s, struct store_recover *how, struct report *report)
{
	struct recovery y = { .store = s, .how = how, .report = report };
	memset(how->counts, 0, sizeof how->counts);
	int r = catalog_recover_wanted(s->catalog, &y.since);
	if (r < 0)
		return report_set(report, r == -ENOENT ? -EPERM : r, r == -ENOENT ? "the catalog wasn't restored from a backup, or that was confirmed: there is nothing to recover" : "the catalog: %s",
				  catalog_text(s->catalog, r));
	y.again = r == 0;
	r = copies_open(s->env, s->catalog, &y.cluster, report);
	if (r == 0)
		r = recover_all(&y);
	if (r == 0 && !y.again && (r = catalog_counter_take(s->catalog, META_COUNTER_VOLUME, 0, 1, &y.since.upto)) < 0)
		report_set(report, r, "the catalog: %s", catalog_text(s->catalog, r));
	if (r == 0)
		r = catalog_mark_recovered(s->catalog, &y.since, how->counts[STORE_RECOVERED_NOT] == 0, report);
	copies_close(y.cluster);
	free(y.on_servers.copies);
	free(y.volumes);
	free(y.left);
	free(y.doomed);
	free(y.unfound.names);
	free(y.names.entries);
	if (r == 0)
		store_reap(s); /* snapshots and volumes that were deleted since */
	return r;
}
