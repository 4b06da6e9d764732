/* One volume's part in store_recover(). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/store/store_recover_private.h"
#include "parallax/volume/blob.h"

/* ---- what its segments say ---- */

static int by_id(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

/* How many that something lives in are nowhere. */
static int count_missing(const struct recovering *r, unsigned *ret)
{
	uint64_t *ids = malloc((r->found_count + 1) * sizeof *ids);
	if (!ids)
		return -ENOMEM;
	for (size_t i = 0; i < r->found_count; i++)
		ids[i] = r->found[i].entry.header.segment;
	qsort(ids, r->found_count, sizeof *ids, by_id);
	*ret = 0;
	for (uint32_t i = 0; i < r->table.segment_count; i++) {
		const struct space_segment *g = &r->table.segments[i];
		*ret += g->live && !bsearch(&g->id, ids, r->found_count, sizeof *ids, by_id);
	}
	free(ids);
	return 0;
}

/* The table of the record that it will go on with, and whether all that lives by that is there. */
int recover_load_table(struct recovering *r, const struct meta_log *log, struct report *report)
{
	struct source source = { .copies = r->copies };
	struct sources sources = { .env = r->store->env, .source = &source, .count = 1 };
	uint8_t *bytes = NULL;
	unsigned missing = 0;
	if (!log->space.pointer.position)
		return 0;
	int status = blob_read(&sources, &log->space, &bytes);
	if (status == 0)
		status = space_decode(&r->table, bytes, log->space.length);
	free(bytes);
	if (status < 0)
		return report_set(report, status, "its table of segments can't be read: %s", errno_text(status));
	status = count_missing(r, &missing);
	if (status < 0)
		return status;
	return missing ? report_set(report, -ENODATA, "%u of its %u segments are nowhere", missing, r->table.segment_count) : 0;
}

/* Newer segments that don't lead there are of no use, but tell that it isn't the end. */
static int judge_behind(struct recovering *r, struct report *report)
{
	bool lost = r->s.behind && !(r->s.unflushed && r->complete);
	r->ret->behind = lost && r->force;
	return lost && !r->force ? report_set(report, -ENODATA, "what was written last leads nowhere, as a segment before it is missing (is the server there that has it? --force goes on from what "
							       "was written before)") : 0;
}

enum { TRIES = 3 };

/* What was made ahead and deleted again is on no server, and yet its owner had that number, and may delete it once more: nobody else is to get it. Also if it can't be recovered
 * now, for others go on meanwhile. */
static int keep_numbers(struct recovering *r, struct report *report)
{
	uint64_t first;
	int status = r->s.what == SALVAGE_NOTHING ? 0 : catalog_counter_take(r->store->catalog, META_COUNTER_SEGMENT, r->s.log.last_id, 1, &first);
	return status < 0 ? report_set(report, status, "the catalog: %s", catalog_text(r->store->catalog, status)) : 0;
}

static int read_once(struct recovering *r, const struct meta_log *known, struct report *report)
{
	int status = r->force ? recover_fence(r, report) : 0;
	if (status == 0)
		status = salvage(r->store->env, r->found, r->found_count, known, &r->s, report);
	if (status == 0)
		status = keep_numbers(r, report);
	if (status == 0)
		status = judge_behind(r, report);
	return status < 0 || r->s.what == SALVAGE_NOTHING ? status : recover_load_table(r, &r->s.log, report);
}

/* Are all connected again that have something of it? */
static bool await_all(const struct recovering *r)
{
	for (size_t i = 0; i < r->found_count; i++) {
		struct peer *p = r->found[i].peer;
		if (!peers_await(&p, 1, 1))
			return false;
	}
	return true;
}

/* Fills r->s, and the table unless nothing is newer than what is known. Who loses a connection has another a moment later: nobody is to do all again for that. */
static int read_found(struct recovering *r, const struct meta_log *known, struct report *report)
{
	int status = read_once(r, known, report);
	for (unsigned tries = 1; segment_away(status) && tries < TRIES && await_all(r); tries++) {
		summary_free(&r->s.summary);
		space_destroy(&r->table);
		space_init(&r->table);
		report->text[0] = '\0';
		status = read_once(r, known, report);
	}
	return status;
}

/* ---- what the catalog is told ---- */

struct writing {
	struct catalog_txn txn;
	char log_key[META_KEY_BYTES], owner_key[META_KEY_BYTES], reap_key[META_KEY_BYTES], name_key[META_KEY_BYTES], hold_keys[2][META_KEY_BYTES];
	char other_key[META_KEY_BYTES];
	uint8_t *log, *owner, *name, *other;
	size_t log_length, owner_length, name_length, other_length;
};

/* Its log and its owner record, as they were when it was looked at. */
static int write_begin(struct recovering *r, struct writing *w, struct meta_log *log)
{
	log->stamp = env_random(r->store->env);
	r->owner = (struct meta_owner){ .epoch = MAX(r->owner.epoch, r->s.last_epoch + RECOVER_EPOCHS_APART), .state = OWNER_FREE };
	w->log = meta_log_encode(log, &w->log_length);
	w->owner = meta_owner_encode(&r->owner, &w->owner_length);
	if (!w->log || !w->owner)
		return -ENOMEM;
	meta_key_log(r->id, w->log_key);
	meta_key_owner(r->id, w->owner_key);
	meta_key_reap(r->id, w->reap_key);
	catalog_txn_init(&w->txn);
	catalog_txn_compare(&w->txn, w->log_key, r->log_revision);
	catalog_txn_compare(&w->txn, w->owner_key, r->owner_revision);
	catalog_txn_put(&w->txn, w->log_key, w->log, w->log_length);
	catalog_txn_put(&w->txn, w->owner_key, w->owner, w->owner_length);
	if (log->doomed)
		catalog_txn_put(&w->txn, w->reap_key, "", 0);
	return 0;
}

static int write_end(struct recovering *r, struct writing *w, int status, struct report *report)
{
	if (status == 0)
		status = store_txn(r->store->catalog, &w->txn);
	free(w->log);
	free(w->owner);
	free(w->name);
	free(w->other);
	free(w);
	return status < 0 ? report_set(report, status, "it can't be recorded: %s", status == -EAGAIN ? "somebody else has changed it" : catalog_text(r->store->catalog, status)) : 0;
}

static int write_known(struct recovering *r, struct report *report)
{
	struct writing *w = calloc(1, sizeof *w);
	int status = w ? write_begin(r, w, &r->s.log) : -ENOMEM;
	return w ? write_end(r, w, status, report) : status;
}

/* ---- one that the catalog knows ---- */

/* Nothing of it is anywhere. If it had a table that was deleted; else it was attached then, and detached unwritten. */
static int recover_absent(struct recovering *r, struct report *report)
{
	if (r->known.space.pointer.position) {
		r->ret->how = STORE_RECOVERED_GONE;
		return recover_forget(r->store, r->id, report);
	}
	if (r->known.segment_count == 0)
		return 0;
	r->s.log = r->known;
	r->s.log.segment_count = 0;
	return write_known(r, report);
}

/* Is there more than the end of what the backup lists, which may have grown? */
static bool lists_more(const struct recovering *r)
{
	for (uint32_t i = 0; i < r->s.log.segment_count; i++) {
		bool listed = r->s.log.segments[i].id <= position_segment(r->known.from_position);
		for (uint32_t k = 0; !listed && k < r->known.segment_count; k++)
			listed = r->known.segments[k].id == r->s.log.segments[i].id;
		if (!listed)
			return true;
	}
	return false;
}

int recover_known(struct recovering *r, struct report *report)
{
	r->ret->how = STORE_RECOVERED_SAME;
	if (r->found_count == 0)
		return recover_absent(r, report);
	int status = read_found(r, &r->known, report);
	if (status < 0 || r->s.what == SALVAGE_NOTHING)
		return status;
	bool newer = r->s.what == SALVAGE_NEWER;
	struct meta_log *log = &r->s.log;
	snprintf(log->name, sizeof log->name, "%s", r->known.name);
	/* before the log, which says that it was done: who comes after an interruption finds the summary newer once more */
	status = recover_snapshots(r, log->from_seq, r->s.summary.snapshots, newer ? r->s.summary.snapshot_count : 0, report);
	if (status == 0)
		status = write_known(r, report);
	r->ret->how = newer || lists_more(r) ? STORE_RECOVERED_NEWER : STORE_RECOVERED_SAME;
	r->ret->checkpoint_ns = newer ? r->s.summary.written_ns : 0;
	return status;
}

/* ---- one that it doesn't ---- */

/* It was rolled back to a snapshot that was listed under that name: all of these are listed under it. */
static void take_history(const struct recovering *r, const struct meta_name *was, struct meta_name *mine)
{
	bool rolled_back = was->volume == r->s.log.parent_volume;
	for (uint32_t k = 0; k < was->history_count; k++)
		rolled_back |= was->history[k] == r->s.log.parent_volume;
	if (!rolled_back || mine->history_count)
		return;
	mine->history[mine->history_count++] = was->volume;
	for (uint32_t k = 0; k < was->history_count && mine->history_count < META_HISTORY_MAX; k++)
		mine->history[mine->history_count++] = was->history[k];
}

/* Whoever has the name by the backup had it no more when this one got it: it was rolled back, renamed or deleted since. Which, nobody knows: it keeps all it has, under another
 * name. */
static int replace_name(struct recovering *r, struct writing *w, const struct meta_name *other, uint64_t revision, struct report *report)
{
	static const char *const forms[] = { "%.50s-replaced", "%.40s-replaced-%llu" };
	for (unsigned i = 0; i < ARRAY_COUNT(forms); i++) {
		char *name = r->ret->replaced;
		struct meta_name there;
		snprintf(name, STORE_NAME_BYTES, forms[i], r->s.log.name, (unsigned long long)other->volume);
		int status = store_get_name(r->store->catalog, name, &there);
		if (status == 0)
			continue;
		if (status != -ENOENT)
			return report_set(report, status, "a name can't be looked up: %s", catalog_text(r->store->catalog, status));
		meta_key_name(name, w->other_key);
		w->other = meta_name_encode(other, &w->other_length);
		if (!w->other)
			return -ENOMEM;
		catalog_txn_compare(&w->txn, w->name_key, revision);
		catalog_txn_compare(&w->txn, w->other_key, 0);
		catalog_txn_put(&w->txn, w->other_key, w->other, w->other_length);
		return 0;
	}
	return report_set(report, -EEXIST, "its name and those like it are taken");
}

/* Of those that had the name and have lost it by now, and of who has it still, by what was found so far (`other`; NULL: nobody), the last. */
static void take_past(const struct recovering *r, const struct meta_name *other, struct meta_name *mine)
{
	for (size_t i = r->names->count; i-- > 0;) {
		const struct store_named *n = &r->names->entries[i];
		if (strcmp(n->name, r->s.log.name) != 0)
			continue;
		if (other && other->volume >= n->named.volume && !PLANTED(recover_past_first))
			take_history(r, other, mine);
		take_history(r, &n->named, mine);
	}
	if (other)
		take_history(r, other, mine);
}

int recover_note_past(struct recovering *r)
{
	struct meta_name mine = { .volume = r->id };
	take_past(r, NULL, &mine);
	struct store_names *names = r->names;
	if (array_more(&names->entries, names->count) < 0)
		return -ENOMEM;
	size_t at = array_place(names->entries, names->count, named.volume, r->id);
	struct store_named *n = &names->entries[at];
	memmove(n + 1, n, (names->count++ - at) * sizeof *n);
	n->named = mine;
	snprintf(n->name, sizeof n->name, "%s", r->s.log.name);
	r->ret->name[0] = '\0';
	return 0;
}

/* Is it known to have been deleted or rolled back? 1, 0, -errno. */
static int is_doomed(struct recovering *r, uint64_t id, struct report *report)
{
	struct meta_log *log = malloc(sizeof *log);
	int status = log ? meta_get_log(r->store->catalog, id, log, NULL) : -ENOMEM;
	status = status == 0 ? log->doomed : status == -ENOENT ? 0 : report_set(report, status, "who has its name can't be read: %s", catalog_text(r->store->catalog, status));
	free(log);
	return status;
}

static int choose_name(struct recovering *r, struct writing *w, struct report *report)
{
	struct catalog *c = r->store->catalog;
	struct meta_name mine = { .volume = r->id }, other;
	uint64_t revision = 0;
	if (r->s.log.parent_volume && !r->force && recover_unfound_has(r->unfound, r->s.log.name))
		return report_set(report, -EAGAIN, "it may have the snapshots of another one of its name, which can't be recovered (recover that first, or give --force)");
	meta_key_name(r->s.log.name, w->name_key);
	int status = meta_get_name(c, r->s.log.name, &other, &revision);
	if (status == 0 && (status = is_doomed(r, other.volume, report)) == 1) {
		take_past(r, NULL, &mine);
		catalog_txn_compare(&w->txn, w->name_key, revision);
		status = 0;
	} else if (status == 0) {
		take_past(r, &other, &mine);
		status = replace_name(r, w, &other, revision, report);
	} else if (status == -ENOENT) {
		take_past(r, NULL, &mine);
		catalog_txn_compare(&w->txn, w->name_key, 0);
		status = 0;
	} else {
		report_set(report, status, "its name can't be looked up: %s", catalog_text(c, status));
	}
	w->name = status == 0 ? meta_name_encode(&mine, &w->name_length) : NULL;
	if (!w->name)
		return status ? status : -ENOMEM;
	catalog_txn_put(&w->txn, w->name_key, w->name, w->name_length);
	return 0;
}

static int hold_parent(struct recovering *r, struct writing *w, struct report *report)
{
	const struct meta_log *log = &r->s.log;
	struct meta_snapshot m;
	uint64_t revision;
	int status = meta_get_snapshot(r->store->catalog, log->parent_volume, log->parent_mark, &m, &revision);
	if (status < 0)
		return report_set(report, status, status == -ENOENT ? "the snapshot that it is a clone of isn't known" : "the snapshot that it is a clone of: %s",
				  catalog_text(r->store->catalog, status));
	store_hold_snapshot(r->id, log, revision, &w->txn, w->hold_keys);
	return 0;
}

static int write_unknown(struct recovering *r, struct report *report)
{
	struct writing *w = calloc(1, sizeof *w);
	struct meta_log *log = &r->s.log;
	int status = w ? write_begin(r, w, log) : -ENOMEM;
	if (status == 0)
		status = log->doomed ? recover_note_past(r) : choose_name(r, w, report);
	if (status == 0 && log->parent_volume)
		status = hold_parent(r, w, report);
	if (status == 0) /* before the log, as of one that is known */
		status = recover_snapshots(r, log->from_seq, r->s.summary.snapshots, r->s.summary.snapshot_count, report);
	return w ? write_end(r, w, status, report) : status;
}

/* Whoever deletes a volume begins with what the last checkpoint doesn't need. What only can't be read, or may be on a server that is silent, wasn't deleted. */
static bool is_left_over(const struct recovering *r, int status)
{
	const struct meta_log *log = &r->s.log;
	bool nowhere = status == -ENODATA;
	if (status == -EIO && log->space.pointer.position) {
		nowhere = true;
		for (size_t i = 0; i < r->found_count; i++)
			nowhere &= r->found[i].entry.header.segment != position_segment(log->space.pointer.position);
	}
	return nowhere && r->complete;
}

int recover_unknown(struct recovering *r, struct report *report)
{
	int status = read_found(r, NULL, report);
	struct meta_log *log = &r->s.log;
	snprintf(r->ret->name, sizeof r->ret->name, "%s", log->name);
	r->ret->how = is_left_over(r, status) ? STORE_RECOVERED_LEFT : STORE_RECOVERED_BACK;
	if (status < 0)
		return r->ret->how == STORE_RECOVERED_LEFT ? 0 : status;
	if (r->s.summary.volume != r->id)
		return report_set(report, -EUCLEAN, "its checkpoint says that it is another volume's");
	status = write_unknown(r, report);
	r->ret->checkpoint_ns = r->s.summary.written_ns;
	return status;
}
