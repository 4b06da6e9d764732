/* What segments say of a volume when the catalog is that of an earlier time (parallax/store/store_recover.c), on three servers: who had it last is believed, not who has the
 * longest log; and what only a server has that doesn't answer isn't given up without a word. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/segment/segment_dir.h"
#include "parallax/store/salvage.h"
#include "tests/unit/salvagetest.h"

/* A server that was away has the first owner's log, unsealed, with writes that the second one overwrote. */
static void fork_log(bool checkpoint)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
	volume_rig_kill(&c->g);
	cluster_server_end(c, 0);
	volume_rig_begin(&c->g);
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
	if (checkpoint)
		cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
	volume_rig_kill(&c->g);
	cluster_server_begin(c, 0);
	volume_rig_begin(&c->g);
	cr_assert_eq(volume_rig_run(&c->g, salvage_restore), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	cr_assert_eq(salvage_counts[STORE_RECOVERED_NEWER], 1);
	salvage_must_have_all(c);
	cluster_free(c);
}

Test(salvage, who_had_it_last_is_believed) { fork_log(true); }
Test(salvage, without_any_checkpoint_since) { fork_log(false); }

Test(salvage, a_silent_server_is_waited_for)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
	salvage_lose_catalog(c);
	cluster_server_end(c, 2);
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), -ENOTCONN);
	cr_assert(strstr(c->g.report.text, "tcp:s2:7000"), "%s", c->g.report.text);
	cr_assert_eq(volume_rig_open(&c->g), -EPERM, "it isn't recovered yet");
	cr_assert_eq(volume_rig_run(&c->g, salvage_force), 0, "%s", c->g.report.text);
	cr_assert_eq(salvage_counts[STORE_RECOVERED_NEWER], 1);
	salvage_must_have_all(c);
	cluster_free(c);
}

/* Nothing was written since: nothing changes, and what was written up to then is there. */
Test(salvage, a_fresh_backup)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, cluster_close), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
	salvage_lose_catalog(c);
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	cr_assert_eq(salvage_counts[STORE_RECOVERED_SAME], 1);
	salvage_must_have_all(c);
	cluster_free(c);
}

/* Done again when volumes are in use, or were when somebody died. */
Test(salvage, one_that_is_in_use_was_recovered)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
	salvage_lose_catalog(c);
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	cr_assert_eq(salvage_counts[STORE_RECOVERED_SAME], 1);
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	cluster_free(c);
}

/* Attached and idle at the time of the salvage_image, then closed: what was listed ahead is gone. */
Test(salvage, an_idle_volume_that_was_closed)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
	cr_assert_eq(volume_rig_run(&c->g, cluster_close), 0);
	salvage_lose_catalog(c);
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	salvage_must_have_all(c);
	cluster_free(c);
}

static int body_open_another(void *arg)
{
	struct cluster_rig *c = arg;
	struct volume_open how = { .catalog = c->g.places.catalog, .places = &c->g.places.ops, .holder = "h", .force = true };
	cr_assert_eq(store_find_volume(&c->g.places, "w", &how.volume, &c->g.report), 0);
	cr_assert_eq(volume_open(c->g.env, &how, &c->g.volume, &c->g.report), 0, "%s", c->g.report.text); /* it ends with the rig's process */
	cr_assert_eq(c->g.volume->meta.summary.pointer.position, UINT64_C(0));
	return 0;
}

static int body_make_another(void *arg)
{
	struct cluster_rig *c = arg;
	struct store_volume_options o = { .size_bytes = BLOCKS * BLOCK_BYTES, .replicas = SERVERS, .min_replicas = 2 };
	cr_assert_eq(store_volume_create(&c->g.store, "w", &o, &c->g.report), 0, "%s", c->g.report.text);
	return body_open_another(arg);
}

/* It has segments, and nothing is in them: who had it died before the first checkpoint. */
Test(salvage, one_that_was_opened_and_never_written)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, cluster_close), 0);
	cr_assert_eq(volume_rig_run(&c->g, body_make_another), 0);
	salvage_next_owner(c);
	cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
	salvage_lose_catalog(c);
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	cr_assert_eq(salvage_counts[STORE_RECOVERED_SAME], 2);
	cr_assert_eq(volume_rig_run(&c->g, body_open_another), 0);
	cluster_free(c);
}

/* ---- what can't be recovered ---- */

static int body_confirm(void *arg)
{
	struct cluster_rig *c = arg;
	return catalog_mark_confirmed(c->g.places.catalog, &c->g.report);
}

/* Would it be opened as it was in the salvage_image, what was written since would be nobody's any more. */
Test(salvage, what_is_not_recovered_stays_closed)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
	salvage_lose_catalog(c);
	for (unsigned i = 0; i < SERVERS; i++)
		cluster_server_end(c, i);
	salvage_may_fail = true;
	cr_assert_eq(volume_rig_run(&c->g, salvage_force), 0, "%s", c->g.report.text);
	cr_assert_eq(salvage_counts[STORE_RECOVERED_NOT], 1);
	for (unsigned i = 0; i < SERVERS; i++)
		cluster_server_begin(c, i);
	cr_assert_eq(volume_rig_open(&c->g), -EPERM, "it isn't recovered");
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	cr_assert_eq(salvage_counts[STORE_RECOVERED_NEWER], 1);
	salvage_must_have_all(c);
	cr_assert_eq(volume_rig_run(&c->g, body_confirm), 0);
	cluster_free(c);
}

static uint64_t counter;

static int body_counter(void *arg)
{
	struct volume_rig *g = arg;
	struct catalog_value v;
	int r = catalog_get(g->places.catalog, META_COUNTER_SEGMENT, &v);
	counter = r == 0 ? get_le64(v.bytes) : 0;
	catalog_value_free(&v);
	return r;
}

/* No number is given again, also in a directory, whether what had it is still there or, as what was made ahead is when it is closed, deleted: the same backup is restored twice, and
 * raised by as much both times. */
static void numbers(bool closed)
{
	struct volume_rig *g = volume_rig_make(1, UINT64_C(1) << 20);
	uint64_t last = 0;
	cr_assert_eq(volume_rig_run(g, salvage_backup), 0);
	struct catalog_image first = salvage_image;
	cr_assert_eq(volume_rig_run(g, salvage_backup), 0);
	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
		cr_assert_eq(volume_rig_run(g, volume_rig_write), 0);
		last = g->volume->meta.last_id;
		if (closed)
			cr_assert_eq(volume_rig_run(g, volume_rig_close), 0);
		volume_rig_kill(g);
		volume_rig_begin(g);
		cr_assert_eq(volume_rig_run(g, salvage_restore), 0);
		cr_assert_eq(volume_rig_run(g, salvage_recover), 0, "%s", g->report.text);
		salvage_image = first;
	}
	cr_assert_eq(volume_rig_run(g, body_counter), 0);
	cr_expect_geq(counter, last, "%llu is given next, and %llu was", (unsigned long long)counter + 1, (unsigned long long)last);
	volume_rig_free(g);
}

Test(salvage, numbers_of_an_embedded_volume_are_not_given_again) { numbers(false); }
Test(salvage, nor_are_those_that_were_deleted) { numbers(true); }

/* The backup says that it was never open, so that an opener expects nothing there. */
Test(salvage, an_embedded_volume_first_opened_since)
{
	struct volume_rig *g = volume_rig_make(1, UINT64_C(1) << 20);
	cr_assert_eq(volume_rig_run(g, salvage_backup), 0);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, volume_rig_write), 0);
	volume_rig_kill(g);
	volume_rig_begin(g);
	cr_assert_eq(volume_rig_run(g, salvage_restore), 0);
	cr_assert_eq(volume_rig_run(g, salvage_recover), 0, "%s", g->report.text);
	cr_assert_eq(salvage_counts[STORE_RECOVERED_NEWER], 1);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, volume_rig_check), 0);
	volume_rig_free(g);
}

/* ---- interrupted ---- */

static int body_snapshot(void *arg)
{
	struct cluster_rig *c = arg;
	return volume_snapshot(c->g.volume, "since", &c->g.report);
}

static unsigned live;

static int note_snapshot(void *arg, const struct meta_snapshot *m)
{
	(void)arg;
	live += !m->doomed && strcmp(m->name, "since") == 0 && m->has_root;
	return 0;
}

static int body_list(void *arg)
{
	struct cluster_rig *c = arg;
	uint64_t id;
	live = 0;
	cr_assert_eq(store_find_volume(&c->g.places, "v", &id, NULL), 0);
	return store_each_snapshot(c->g.places.catalog, id, note_snapshot, NULL);
}

/* As a program leaves it that doesn't know of summaries: the field is gone with its next change. */
static int body_strip(void *arg)
{
	struct cluster_rig *c = arg;
	struct meta_log *log = malloc(sizeof *log);
	char key[META_KEY_BYTES];
	uint64_t id, revision;
	size_t length;
	cr_assert_eq(store_find_volume(&c->g.places, "v", &id, NULL), 0);
	cr_assert_eq(meta_get_log(c->g.places.catalog, id, log, &revision), 0);
	cr_assert(log->summary.pointer.position);
	log->summary = (struct meta_root){ 0 };
	uint8_t *bytes = meta_log_encode(log, &length);
	meta_key_log(id, key);
	cr_assert_eq(catalog_put_at(c->g.places.catalog, key, revision, bytes, length), 0);
	free(bytes);
	free(log);
	return 0;
}

/* Nobody would call the blocks of one free that the record doesn't lead to. */
static int body_summarized(void *arg)
{
	struct cluster_rig *c = arg;
	cr_assert(c->g.volume->meta.summary.pointer.position);
	return 0;
}

static const struct catalog_ops *real;
static unsigned away;

static int list_away(struct catalog *c, const char *prefix, int (*entry)(void *arg, const char *key, const struct catalog_value *value), void *arg)
{
	if (away && strncmp(prefix, "snapshot/", strlen("snapshot/")) == 0) {
		away--;
		return -ETIMEDOUT;
	}
	return real->list(c, prefix, entry, arg);
}

/* The same is so after a recovery. `times`: the catalog doesn't say what snapshots there are, so often. */
static void without_summary(unsigned times)
{
	struct catalog_ops ops;
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
	cr_assert_eq(volume_rig_run(&c->g, body_snapshot), 0, "%s", c->g.report.text);
	cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
	cr_assert_eq(volume_rig_run(&c->g, cluster_close), 0);
	cr_assert_eq(volume_rig_run(&c->g, body_strip), 0);
	struct catalog *catalog = c->g.places.catalog;
	real = catalog->ops;
	ops = *real;
	ops.list = list_away;
	away = times;
	catalog->ops = &ops;
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
	cr_assert_eq(volume_rig_run(&c->g, body_summarized), 0);
	salvage_lose_catalog(c);
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	cr_assert_eq(volume_rig_run(&c->g, body_list), 0);
	cr_assert_eq(live, 1);
	salvage_must_have_all(c);
	cluster_free(c);
}

Test(salvage, snapshots_are_in_the_summary_after_one_without) { without_summary(0); }
Test(salvage, a_summary_waits_for_the_catalog_to_tell_them) { without_summary(3); }

static unsigned txns_left;

static int few_txns(struct catalog *c, const struct catalog_txn *t, uint64_t *ret_revision)
{
	if (txns_left == 0)
		return -EIO;
	txns_left--;
	return real->txn(c, t, ret_revision);
}

/* After so many changes of the catalog nothing more comes through: was that enough? */
static bool recover_with(struct cluster_rig *c, unsigned txns)
{
	struct catalog *catalog = c->g.places.catalog;
	struct catalog_ops few = *catalog->ops;
	real = catalog->ops;
	few.txn = few_txns;
	txns_left = txns;
	catalog->ops = &few;
	int r = volume_rig_run(&c->g, salvage_recover);
	catalog->ops = real;
	return r == 0 && salvage_counts[STORE_RECOVERED_NOT] == 0;
}

/* Wherever it is interrupted, done again it finds everything. */
Test(salvage, interrupted)
{
	bool done = false;
	salvage_may_fail = true;
	for (unsigned txns = 0; !done; txns++) {
		struct cluster_rig *c = cluster_make();
		cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
		cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
		cr_assert_eq(volume_rig_run(&c->g, body_snapshot), 0, "%s", c->g.report.text);
		cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
		cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
		salvage_lose_catalog(c);
		done = recover_with(c, txns);
		cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
		cr_assert_eq(salvage_counts[STORE_RECOVERED_NOT], 0);
		cr_assert_eq(volume_rig_run(&c->g, body_list), 0);
		cr_assert_eq(live, 1, "the snapshot is gone after %u changes", txns);
		salvage_must_have_all(c);
		cluster_free(c);
	}
}

/* ---- something is nowhere ---- */

static uint64_t ids[64];
static unsigned id_count;

static int note_id(void *arg, uint64_t segment)
{
	(void)arg;
	cr_assert_lt(id_count, ARRAY_COUNT(ids));
	ids[id_count++] = segment;
	return 0;
}

static int body_ids(void *arg)
{
	const struct one_server *s = arg;
	id_count = 0;
	return segment_dir_ids(s->dir, note_id, NULL);
}

static int by_id(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static char path[64];
static int unlink_body(void *arg) { return env_unlink(arg, path); }

static void set_path(uint64_t id) { snprintf(path, sizeof path, "/data/segments/%02x/%012llx.seg", (unsigned)(id & 0xff), (unsigned long long)id); }

static void lose_copy(struct cluster_rig *c, unsigned i)
{
	cluster_server_end(c, i);
	struct env *env = sim_process_create(c->g.sim, c->servers[i].host);
	sim_run_fiber(env, unlink_body, env);
	sim_process_destroy(env);
	cluster_server_begin(c, i);
}

static void lose_segment(struct cluster_rig *c, uint64_t id)
{
	set_path(id);
	for (unsigned i = 0; i < SERVERS; i++)
		lose_copy(c, i);
}

/* Whichever segment is lost, but for the newest, which nobody can miss: what is opened afterwards is what was written last, or nothing is. `closed`: at the
 * time of the salvage_image; `checkpoint`: there was one since. */
static void lose_each(bool closed, bool checkpoint)
{
	unsigned count = 1;
	salvage_may_fail = true;
	for (unsigned which = 0; which < count; which++) {
		struct cluster_rig *c = cluster_make();
		if (closed)
			cr_assert_eq(volume_rig_run(&c->g, cluster_close), 0);
		cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
		if (closed)
			cluster_open(c);
		for (unsigned i = 0; i < 9; i++) {
			cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
			if (i == 4 && checkpoint)
				cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
		}
		salvage_next_owner(c);
		cr_assert_eq(sim_run_fiber(c->servers[0].env, body_ids, &c->servers[0]), 0);
		qsort(ids, id_count, sizeof *ids, by_id);
		uint64_t newest = cluster_find(c, 0, BLOCKS - 1).segment;
		for (count = 0; ids[count] < newest;)
			count++;
		lose_segment(c, ids[which]);
		cr_assert_eq(volume_rig_run(&c->g, salvage_restore), 0);
		cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
		if (volume_rig_open(&c->g) == 0) {
			int r = volume_rig_run(&c->g, cluster_read);
			cr_assert(r == 0 || r == -EIO, "segment %u: %d", which, r);
		} else if (volume_rig_run(&c->g, salvage_force) == 0 && salvage_counts[STORE_RECOVERED_NOT] == 0) {
			cr_assert(salvage_behind, "segment %u is missing without a word", which);
		}
		cluster_free(c);
	}
}

Test(salvage, a_gap_since_an_open_backup) { lose_each(false, true); }
Test(salvage, a_gap_since_a_closed_backup) { lose_each(true, true); }
Test(salvage, a_gap_without_any_checkpoint) { lose_each(false, false); }

/* ---- a power failure ---- */

static struct {
	uint64_t segment;       /* that is full; */
	uint32_t flushed, last; /* where its last record begins that was flushed, and the last one */
} full;

/* Unflushed, until one is full; the next one has a record then. Nothing changes by that. */
static int body_fill(void *arg)
{
	struct cluster_rig *c = arg;
	const struct log *l = &c->g.volume->log;
	full.segment = l->current->meta.id;
	full.flushed = l->current->acked - 2;
	for (unsigned b = 0; l->current && l->current->meta.id == full.segment; b = (b + 1) % BLOCKS) {
		full.last = l->current->acked - 2;
		memset(c->g.buffer, (int)(b + c->shift), BLOCK_BYTES);
		cr_assert_eq(blk_write_wait(c->g.node, c->g.buffer, BLOCK_BYTES, b * BLOCK_BYTES, 0), 0);
	}
	memset(c->g.buffer, (int)c->shift, BLOCK_BYTES);
	return blk_write_wait(c->g.node, c->g.buffer, BLOCK_BYTES, 0, BLK_FUA); /* that it is found for certain, though what is torn off is flushed by that, too */
}

/* The catalog is lost, and from a segment, which another one followed, its end; or all of it, on one server. */
static void tear(bool power, bool flushed, bool gone)
{
	struct cluster_rig *c = cluster_make();
	salvage_may_fail = true;
	cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
	cr_assert_eq(volume_rig_run(&c->g, body_fill), 0);
	cr_assert_gt(full.last, full.flushed);
	set_path(full.segment);
	for (unsigned i = 0; i < SERVERS; i++) {
		uint64_t offset = COPY_BASE + (uint64_t)(flushed ? full.flushed : full.last) * BLOCK_BYTES;
		if (power)
			sim_power_loss(c->servers[i].host);
		cr_assert_eq(sim_disk_flip(c->servers[i].host, path, offset + 99, 8), 0);
	}
	salvage_next_owner(c);
	for (unsigned i = 0; power && i < SERVERS; i++) {
		cluster_server_end(c, i);
		cluster_server_begin(c, i);
	}
	if (gone)
		lose_copy(c, 1);
	cr_assert_eq(volume_rig_run(&c->g, salvage_restore), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	bool lost = !power || flushed || gone;
	cr_assert_eq(salvage_counts[STORE_RECOVERED_NOT], lost);
	cr_assert_eq(volume_rig_run(&c->g, lost ? salvage_force : salvage_recover), 0, "%s", c->g.report.text);
	cr_assert_eq(salvage_behind, lost);
	cr_assert_eq(salvage_counts[STORE_RECOVERED_NOT], 0);
	if (!lost)
		salvage_must_have_all(c);
	cluster_free(c);
}

Test(salvage, what_a_power_failure_took_is_no_loss) { tear(true, false, false); }
Test(salvage, what_had_been_flushed_is_one) { tear(true, true, false); }
Test(salvage, without_a_power_failure_it_is_one) { tear(false, false, false); }
Test(salvage, a_copy_that_is_gone_may_have_had_it) { tear(true, false, true); }

/* ---- names ---- */

static int body_clone(void *arg)
{
	struct cluster_rig *c = arg;
	return store_clone(&c->g.store, "v@since", "w", &c->g.report);
}

static int body_delete(void *arg)
{
	struct cluster_rig *c = arg;
	return store_snapshot_delete(&c->g.store, "v@since", &c->g.report);
}

/* A clone holds a snapshot that was deleted; by the backup it is still called what another is called now. */
Test(salvage, the_older_of_two_snapshots_of_one_name_was_deleted)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, body_snapshot), 0, "%s", c->g.report.text);
	cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
	cr_assert_eq(volume_rig_run(&c->g, body_clone), 0, "%s", c->g.report.text);
	cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
	cr_assert_eq(volume_rig_run(&c->g, body_delete), 0, "%s", c->g.report.text);
	cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
	cr_assert_eq(volume_rig_run(&c->g, body_snapshot), 0, "%s", c->g.report.text);
	cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
	salvage_lose_catalog(c);
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	cr_assert_eq(volume_rig_run(&c->g, body_list), 0);
	cr_assert_eq(live, 1);
	salvage_must_have_all(c);
	cluster_free(c);
}

/* A clone holds a snapshot that was deleted; by the backup it has no root yet, and no summary knows it any more. Its name is nobody's. */
Test(salvage, a_snapshot_that_is_lost_keeps_no_name)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, body_snapshot), 0, "%s", c->g.report.text);
	cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
	cr_assert_eq(volume_rig_run(&c->g, body_clone), 0, "%s", c->g.report.text);
	cr_assert_eq(volume_rig_run(&c->g, body_delete), 0, "%s", c->g.report.text);
	cr_assert_eq(volume_rig_run(&c->g, cluster_close), 0);
	cr_assert_eq(volume_rig_run(&c->g, body_strip), 0);
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
	salvage_lose_catalog(c);
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	cr_assert_eq(volume_rig_run(&c->g, body_list), 0);
	cr_assert_eq(live, 0);
	salvage_must_have_all(c);
	cr_assert_eq(volume_rig_run(&c->g, body_snapshot), 0, "%s", c->g.report.text);
	cluster_free(c);
}

/* And the old volume was opened to free what it had. */
static int body_rollback(void *arg)
{
	struct cluster_rig *c = arg;
	uint64_t id;
	cr_assert_eq(store_find_volume(&c->g.places, "v", &id, &c->g.report), 0);
	int r = store_snapshot_rollback(&c->g.store, "v@since", &c->g.report);
	struct volume_open how = { .catalog = c->g.places.catalog, .places = &c->g.places.ops, .volume = id, .holder = VOLUME_MAINTENANCE };
	struct volume *v;
	cr_assert_eq(volume_open(c->g.env, &how, &v, &c->g.report), 0, "%s", c->g.report.text);
	fiber_sleep(&c->g.env->loop, 60 * NS_PER_S);
	cr_assert_eq(volume_close(v), 0);
	return r;
}

static int body_find(void *arg)
{
	struct cluster_rig *c = arg;
	uint64_t id;
	return store_find_volume(&c->g.places, "v", &id, &c->g.report);
}

/* The old head is gone, and of the new one there is nothing. */
static void roll_back(bool interrupted)
{
	salvage_may_fail = interrupted;
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, body_snapshot), 0, "%s", c->g.report.text);
	cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
	cr_assert_eq(volume_rig_run(&c->g, cluster_close), 0);
	c->shift -= 7; /* as in the snapshot */
	cr_assert_geq(volume_rig_run(&c->g, body_rollback), 0, "%s", c->g.report.text);
	salvage_lose_catalog(c);
	if (interrupted)
		recover_with(c, 1);
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	cr_assert_eq(volume_rig_run(&c->g, body_find), 0, "%s", c->g.report.text);
	salvage_must_have_all(c);
	cluster_free(c);
}

Test(salvage, rolled_back_and_not_opened_since) { roll_back(false); }
Test(salvage, rolled_back_and_interrupted) { roll_back(true); }

static int body_roll(void *arg)
{
	struct cluster_rig *c = arg;
	return store_snapshot_rollback(&c->g.store, "v@since", &c->g.report);
}

static int body_find_snapshot(void *arg)
{
	struct cluster_rig *c = arg;
	uint64_t volume, mark;
	return store_find_snapshot(&c->g.places, "v", "since", &volume, &mark, &c->g.report);
}

/* Rolled back, the volume is a new one, which is opened and written. */
static void roll_on(struct cluster_rig *c, int (*roll)(void *arg))
{
	cr_assert_eq(volume_rig_run(&c->g, cluster_close), 0);
	cr_assert_geq(volume_rig_run(&c->g, roll), 0, "%s", c->g.report.text);
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
}

static int body_snapshot_again(void *arg)
{
	struct cluster_rig *c = arg;
	int r = volume_snapshot(c->g.volume, "again", &c->g.report);
	return r ? r : volume_checkpoint(c->g.volume);
}

static int body_find_again(void *arg)
{
	struct cluster_rig *c = arg;
	uint64_t volume, mark;
	return store_find_snapshot(&c->g.places, "v", "again", &volume, &mark, &c->g.report);
}

/* Its snapshots are those of all that had the name before, whichever it was rolled back to. */
static void roll_twice(unsigned before)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, body_snapshot), 0, "%s", c->g.report.text);
	cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
	for (unsigned i = 0; i < 2; i++) {
		if (i == before)
			cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
		roll_on(c, body_roll);
		if (i == 0)
			cr_assert_eq(volume_rig_run(&c->g, body_snapshot_again), 0, "%s", c->g.report.text);
	}
	salvage_lose_catalog(c);
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	cr_assert_eq(volume_rig_run(&c->g, body_find_snapshot), 0, "%s", c->g.report.text);
	cr_assert_eq(volume_rig_run(&c->g, body_find_again), 0, "%s", c->g.report.text);
	salvage_must_have_all(c);
	cluster_free(c);
}

/* Wherever recovery is interrupted: what has the name at last isn't known until it is recovered itself, nor what had it between. */
Test(salvage, rolled_back_twice_and_interrupted)
{
	bool finished = false;
	salvage_may_fail = true;
	for (unsigned txns = 1; !finished; txns++) {
		struct cluster_rig *c = cluster_make();
		cr_assert_eq(volume_rig_run(&c->g, body_snapshot), 0, "%s", c->g.report.text);
		cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
		cr_assert_eq(volume_rig_run(&c->g, salvage_backup), 0);
		roll_on(c, body_rollback);
		cr_assert_eq(volume_rig_run(&c->g, body_snapshot_again), 0, "%s", c->g.report.text);
		cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
		roll_on(c, body_rollback);
		salvage_lose_catalog(c);
		finished = recover_with(c, txns);
		cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
		cr_assert_eq(volume_rig_run(&c->g, body_find_snapshot), 0, "after %u: %s", txns, c->g.report.text);
		cr_assert_eq(volume_rig_run(&c->g, body_find_again), 0, "after %u: %s", txns, c->g.report.text);
		salvage_must_have_all(c);
		cluster_free(c);
	}
}

Test(salvage, rolled_back_twice_since) { roll_twice(0); }
Test(salvage, rolled_back_to_what_it_was_before_the_backup) { roll_twice(1); }

/* The backup is from before there was any volume. */
static int body_backup_before(void *arg)
{
	struct cluster_rig *c = arg;
	struct catalog_image now;
	cr_assert_eq(catalog_image_read(c->g.places.catalog, &now, &c->g.report), 0);
	for (size_t i = 0; i < now.count; i++) {
		const struct catalog_image_key *k = &now.keys[i];
		static const uint8_t none[8];
		bool counts_volumes = strcmp(k->key, META_COUNTER_VOLUME) == 0;
		if (strncmp(k->key, "volume/", 7) != 0 && strncmp(k->key, "name/", 5) != 0)
			cr_assert_eq(catalog_image_add(&salvage_image, k->key, counts_volumes ? none : k->bytes, k->length), 0);
	}
	catalog_image_free(&now);
	return 0;
}

static struct pointer unreadable;

static void unreadable_submit(struct segment_server *s, struct segment_io *io)
{
	bool fails = io->op == SEGMENT_READ && io->segment == position_segment(unreadable.position) && io->block == position_block(unreadable.position) && io->blocks == 1;
	if (fails)
		between_answer(io, -EIO);
	else
		between_pass(s, io);
}

/* Its table is there, and can't be read just now: it isn't taken for what a deletion has left, which goes once that is confirmed. */
Test(salvage, what_cant_be_read_was_not_deleted)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, body_backup_before), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_write), 0);
	cr_assert_eq(volume_rig_run(&c->g, salvage_checkpoint), 0);
	unreadable = c->g.volume->meta.space.pointer;
	salvage_lose_catalog(c);
	cluster_between(c, unreadable_submit);
	salvage_may_fail = true;
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	cr_assert_eq(salvage_counts[STORE_RECOVERED_LEFT], 0);
	cr_assert_eq(salvage_counts[STORE_RECOVERED_NOT], 1);
	salvage_may_fail = false;
	cluster_between(c, NULL);
	cr_assert_eq(volume_rig_run(&c->g, salvage_recover), 0, "%s", c->g.report.text);
	cr_assert_eq(salvage_counts[STORE_RECOVERED_BACK], 1);
	salvage_must_have_all(c);
	cluster_free(c);
}

/* The owner's record would say a small one, by which nobody could be fenced. */
Test(salvage, an_epoch_that_leaves_none_is_refused)
{
	struct peer peer = { .address = "tcp:s1:7000" };
	struct salvage_copy copy = { .entry.header = { .segment = 5, .epoch = UINT64_MAX - 3 }, .peer = &peer };
	struct salvage s;
	struct report report = { "" };
	cr_assert_eq(salvage(NULL, &copy, 1, NULL, &s, &report), -EUCLEAN);
	cr_assert(strstr(report.text, "tcp:s1:7000"), "%s", report.text);
}
