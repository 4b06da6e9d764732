/* Deleting snapshots: what it costs, what is noted of it (parallax/volume/doomed.h), and that what is noted is freed, whoever noted it, and then forgotten. */
#include "parallax/volume/doomed.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/drivers.h"
#include "core/fiber.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/segment/segment_dir.h"
#include "parallax/store/store_recover.h"
#include "parallax/volume/volume_private.h"
#include "tests/unit/storetest.h"

enum { BYTES = 100 * BLOCK_BYTES };

/* The engine below, and what is asked of it. */
static struct {
	const struct catalog_ops *ops;
	unsigned calls, keys; /* keys: read or listed */
	unsigned spared, refused; /* so many transactions are, and so many after them aren't applied */
} meter;

static int meter_txn(struct catalog *c, const struct catalog_txn *t, uint64_t *ret_revision)
{
	meter.calls++;
	if (meter.spared) {
		meter.spared--;
	} else if (meter.refused) {
		meter.refused--;
		return -ENOMEM;
	}
	return meter.ops->txn(c, t, ret_revision);
}

static int meter_get(struct catalog *c, const char *key, struct catalog_value *ret)
{
	meter.calls++;
	meter.keys++;
	return meter.ops->get(c, key, ret);
}

static int meter_get_many(struct catalog *c, struct catalog_want *wants, unsigned count)
{
	meter.calls++;
	meter.keys += count;
	return meter.ops->get_many(c, wants, count);
}

static int meter_count(struct catalog *c, struct catalog_tally *tallies, unsigned count)
{
	meter.calls++;
	return meter.ops->count(c, tallies, count);
}

struct listing {
	int (*entry)(void *arg, const char *key, const struct catalog_value *value);
	void *arg;
};

static int meter_entry(void *arg, const char *key, const struct catalog_value *value)
{
	struct listing *l = arg;
	meter.keys++;
	return l->entry(l->arg, key, value);
}

static int meter_list(struct catalog *c, const char *prefix, int (*entry)(void *arg, const char *key, const struct catalog_value *value), void *arg)
{
	struct listing l = { entry, arg };
	meter.calls++;
	return meter.ops->list(c, prefix, meter_entry, &l);
}

static int (*metered)(struct rig *r);

static int run(struct rig *r)
{
	meter.ops = r->store->catalog->ops;
	struct catalog_ops ops = *meter.ops;
	ops.txn = meter_txn;
	ops.get = meter_get;
	ops.get_many = meter_get_many;
	ops.count = meter_count;
	ops.list = meter_list;
	r->store->catalog->ops = &ops;
	int e = metered(r);
	r->store->catalog->ops = meter.ops;
	return e;
}

static void metered_test(int (*body)(struct rig *r))
{
	metered = body;
	rig_test(run);
}

static void create(struct rig *r, const char *name)
{
	struct store_volume_options o = { .size_bytes = BYTES };
	OK(r, store_volume_create(r->store, name, &o, REPORT(r)));
}

static struct volume *volume_opened(struct rig *r, const char *name, uint64_t *ret_id)
{
	struct volume *v = NULL;
	OK(r, store_find_volume(r->store->places, name, ret_id, REPORT(r)));
	OK(r, store_maintain(r->store->places, *ret_id, &v, REPORT(r)));
	return v;
}

/* Snapshots sFIRST … of v, with a block written before each. */
static void take(struct rig *r, unsigned first, unsigned count)
{
	uint64_t id;
	struct volume *v = volume_opened(r, "v", &id);
	uint8_t *block = env_alloc_aligned(BLOCK_BYTES);
	for (unsigned i = first; i < first + count; i++) {
		char name[16];
		struct iovec iov = { block, BLOCK_BYTES };
		struct volume_write w = { .first = i % 100, .count = 1, .iov = &iov, .iov_count = 1 };
		struct job j;
		memset(block, (int)(i % 255 + 1), BLOCK_BYTES);
		job_init(&j, &r->env->loop);
		volume_write(v, &w, &j);
		cr_assert_eq(fiber_wait(&j), 0);
		snprintf(name, sizeof name, "s%u", i);
		OK(r, volume_snapshot(v, name, REPORT(r)));
	}
	free(block);
	cr_assert_eq(volume_close(v), 0);
}

static void overwrite(struct rig *r, const char *name, uint32_t blocks)
{
	uint64_t id;
	struct volume *v = volume_opened(r, name, &id);
	struct iovec iov = { env_alloc_aligned(BYTES), blocks * BLOCK_BYTES };
	struct volume_write w = { .first = 0, .count = blocks, .iov = &iov, .iov_count = 1 };
	struct job j;
	memset(iov.iov_base, 7, BYTES);
	job_init(&j, &r->env->loop);
	volume_write(v, &w, &j);
	cr_assert_eq(fiber_wait(&j), 0);
	free(iov.iov_base);
	cr_assert_eq(volume_close(v), 0);
}

/* ---- what it costs ---- */

static void cost(struct rig *r, const char *name, unsigned *ret_calls, unsigned *ret_keys)
{
	meter.calls = meter.keys = 0;
	OK(r, store_snapshot_delete(r->store, name, REPORT(r)));
	*ret_calls = meter.calls;
	*ret_keys = meter.keys;
}

static int body_cost(struct rig *r)
{
	unsigned calls[2], keys[2], some, many;
	create(r, "v");
	take(r, 0, 10);
	cost(r, "v@s4", &calls[0], &keys[0]);
	take(r, 10, 150);
	cost(r, "v@s70", &calls[1], &keys[1]);
	cr_assert(calls[1] <= calls[0] + 1 && keys[1] <= keys[0] + 4, "%u calls and %u keys, with 15 times the snapshots %u and %u", calls[0], keys[0], calls[1], keys[1]);
	/* nor does it by how many are deleted and held by clones */
	for (unsigned i = 100; i < 130; i++) {
		char snap[16], clone[16];
		snprintf(snap, sizeof snap, "v@s%u", i);
		snprintf(clone, sizeof clone, "c%u", i);
		OK(r, store_clone(r->store, snap, clone, REPORT(r)));
		OK(r, store_snapshot_delete(r->store, snap, REPORT(r)));
	}
	cost(r, "v@s71", &some, &many);
	cr_assert(some <= calls[0] + 1 && many <= keys[0] + 4, "%u calls and %u keys, with 30 that are held %u and %u", calls[0], keys[0], some, many);
	rig_check(r);
	return 0;
}

Test(doomed, a_deletion_costs_the_same_with_many_snapshots) { metered_test(body_cost); }

/* ---- notes ---- */

static int body_notes(struct rig *r)
{
	create(r, "v");
	take(r, 0, 6);
	OK(r, store_clone(r->store, "v@s2", "c", REPORT(r)));
	OK(r, store_clone(r->store, "v@s2", "d", REPORT(r)));
	OK(r, store_snapshot_delete(r->store, "v@s2", REPORT(r)));
	cr_assert_eq(rig_keys(r, "reap/"), 0, "what clones hold is noted by nobody");
	cr_assert_eq(rig_keys(r, "snapshot/"), 6);
	rig_check(r);
	OK(r, store_volume_delete(r->store, "c", false, REPORT(r)));
	cr_assert_eq(rig_keys(r, "snapshot/"), 6);
	rig_check(r);
	OK(r, store_volume_delete(r->store, "d", false, REPORT(r)));
	cr_assert_eq(rig_keys(r, "snapshot/"), 5, "the last clone is gone");
	cr_assert_eq(rig_keys(r, "reap/"), 0);
	rig_check(r);
	return 0;
}

Test(doomed, the_last_clone_notes_what_it_held) { metered_test(body_notes); }

/* As older programs leave it: the volume is noted, and not the snapshot. */
static int body_older(struct rig *r)
{
	struct store_mark of[2];
	create(r, "v");
	take(r, 0, 5);
	for (unsigned i = 0; i < 2; i++)
		OK(r, store_find_snapshot(r->store->places, "v", i ? "s3" : "s1", &of[i].volume, &of[i].mark, REPORT(r)));
	OK(r, store_doom_all(r->store, of, 2));
	cr_assert(rig_keys(r, "reap/") == 1 && rig_keys(r, "snapname/") == 3 && rig_keys(r, "snapshot/") == 5);
	rig_check(r);
	store_reap(r->store);
	cr_assert_eq(rig_keys(r, "snapshot/"), 3);
	cr_assert_eq(rig_keys(r, "reap/"), 0);
	rig_check(r);
	return 0;
}

Test(doomed, what_an_older_program_noted) { metered_test(body_older); }

/* ---- what it would give back ---- */

static void expect_kept(struct rig *r, const char *name, uint64_t exclusive_blocks, uint64_t kept_blocks)
{
	struct store_volume v;
	OK(r, store_volume_show(r->store, name, &v, REPORT(r)));
	uint64_t exclusive = v.exclusive_bytes / BLOCK_BYTES, kept = v.kept_bytes / BLOCK_BYTES; /* a few nodes are in them */
	cr_assert(exclusive >= exclusive_blocks && exclusive <= exclusive_blocks + 8, "%s: exclusive %llu blocks", name, (unsigned long long)exclusive);
	cr_assert(kept >= kept_blocks && kept <= kept_blocks + 8, "%s: keeps %llu blocks", name, (unsigned long long)kept);
}

/* What is deleted lives on for its clones, and goes with the last of them: that one's deletion gives it back. */
static int body_kept(struct rig *r)
{
	const char *const snapshots[] = { "v@a", "c@b", "e@x" };
	create(r, "v");
	overwrite(r, "v", 100);
	OK(r, store_snapshot_create(r->store, &snapshots[0], 1, REPORT(r)));
	OK(r, store_clone(r->store, "v@a", "c", REPORT(r)));
	OK(r, store_clone(r->store, "v@a", "d", REPORT(r)));
	overwrite(r, "c", 30);
	expect_kept(r, "c", 30, 0);
	OK(r, store_volume_delete(r->store, "v", true, REPORT(r)));
	expect_kept(r, "c", 30, 100);
	expect_kept(r, "d", 0, 100);
	OK(r, store_volume_delete(r->store, "d", false, REPORT(r)));
	expect_kept(r, "c", 130, 100);
	OK(r, store_snapshot_create(r->store, &snapshots[1], 1, REPORT(r)));
	OK(r, store_clone(r->store, "c@b", "e", REPORT(r)));
	OK(r, store_volume_delete(r->store, "c", true, REPORT(r)));
	expect_kept(r, "e", 130, 130);
	overwrite(r, "e", 20);
	OK(r, store_snapshot_create(r->store, &snapshots[2], 1, REPORT(r)));
	OK(r, store_snapshot_rollback(r->store, "e@x", REPORT(r)));
	expect_kept(r, "e", 150, 130);
	OK(r, store_volume_delete(r->store, "e", true, REPORT(r)));
	cr_assert(rig_keys(r, "volume/") == 0 && rig_keys(r, "clone/") == 0);
	return 0;
}

Test(doomed, what_was_deleted_is_its_only_clones) { metered_test(body_kept); }

/* The head that was rolled back is cut back to what is its newest snapshot then. */
static int rolled_back(struct rig *r, unsigned refused)
{
	uint64_t id;
	create(r, "v");
	take(r, 0, 4);
	OK(r, store_find_volume(r->store->places, "v", &id, REPORT(r)));
	OK(r, store_snapshot_rollback(r->store, "v@s1", REPORT(r)));
	struct meta_log *log = malloc(sizeof *log);
	uint64_t live[2];
	OK(r, meta_get_log(r->store->catalog, id, log, NULL));
	live[0] = log->live_blocks;
	OK(r, store_snapshot_delete(r->store, "v@s3", REPORT(r)));
	/* who drops the newest is killed before he cuts the head back: the next one does that */
	struct store_mark of;
	struct volume *v = NULL;
	uint64_t dropped = 0;
	OK(r, store_find_snapshot(r->store->places, "v", "s2", &of.volume, &of.mark, REPORT(r)));
	OK(r, store_doom_snapshot(r->store, of.volume, of.mark));
	OK(r, store_maintain(r->store->places, id, &v, REPORT(r)));
	meter.refused = refused;
	cr_assert_eq(volume_reap(v, &dropped), refused ? -ENOMEM : 0);
	if (refused)
		OK(r, volume_reap(v, &dropped));
	OK(r, volume_close(v));
	cr_assert_eq(dropped, 1u);
	cr_assert_eq(rig_keys(r, "reap/"), 1, "nobody knows that the head is to be cut back");
	store_reap(r->store);
	OK(r, meta_get_log(r->store->catalog, id, log, NULL));
	live[1] = log->live_blocks;
	free(log);
	cr_assert(live[1] + 2 <= live[0], "%llu of %llu blocks are live", (unsigned long long)live[1], (unsigned long long)live[0]);
	cr_assert_eq(rig_keys(r, "reap/"), 0);
	cr_assert_eq(rig_keys(r, "snapshot/"), 2);
	rig_check(r);
	OK(r, store_volume_delete(r->store, "v", true, REPORT(r)));
	cr_assert(rig_keys(r, "reap/") == 0 && rig_keys(r, "snapshot/") == 0 && rig_keys(r, "volume/") == 0);
	return 0;
}

static int body_rolled_back(struct rig *r) { return rolled_back(r, 0); }
static int body_refused(struct rig *r) { return rolled_back(r, 1); }

Test(doomed, a_rolled_back_head_loses_its_newest_snapshot) { metered_test(body_rolled_back); }
Test(doomed, a_rolled_back_head_loses_its_newest_snapshot_by_a_second_checkpoint) { metered_test(body_refused); }

/* Its list is forgotten with what an index of it stands for. */
static int body_indexed(struct rig *r)
{
	enum { BLOCKS = 1000, TOGETHER = 100 };
	struct store_volume_options o = { .size_bytes = BLOCKS * BLOCK_BYTES };
	uint64_t id;
	uint8_t *bytes = env_alloc_aligned(TOGETHER * BLOCK_BYTES);
	OK(r, store_volume_create(r->store, "v", &o, REPORT(r)));
	struct volume *v = volume_opened(r, "v", &id);
	v->space.index_from = 0;
	v->space.index_chunks = 1;
	for (unsigned i = 0; i < 2 * BLOCKS; i += TOGETHER) {
		struct iovec iov = { bytes, TOGETHER * BLOCK_BYTES };
		struct volume_write w = { .first = i % BLOCKS, .count = TOGETHER, .iov = &iov, .iov_count = 1 };
		struct job j;
		memset(bytes, (int)(i / TOGETHER + 1), TOGETHER * BLOCK_BYTES);
		if (i == BLOCKS) {
			OK(r, volume_snapshot(v, "s0", REPORT(r)));
			OK(r, volume_snapshot(v, "s1", REPORT(r)));
		}
		job_init(&j, &r->env->loop);
		volume_write(v, &w, &j);
		cr_assert_eq(fiber_wait(&j), 0);
	}
	free(bytes);
	OK(r, volume_checkpoint(v));
	cr_assert(v->space.list_count == 2 && v->space.lists[1].chunk_count == 1 && v->space.lists[1].chunks[0].index);
	OK(r, volume_close(v));
	OK(r, store_snapshot_rollback(r->store, "v@s0", REPORT(r)));
	cr_assert_eq(rig_keys(r, "reap/"), 0);
	rig_check(r);
	return 0;
}

Test(doomed, a_rolled_back_head_has_an_index) { rig_test(body_indexed); }

/* ---- many ---- */

static int body_many(struct rig *r)
{
	enum { MANY = 150, GO = 80 };
	const char *names[GO];
	char text[GO][16];
	create(r, "v");
	take(r, 0, MANY);
	for (unsigned i = 0; i < GO; i++) {
		snprintf(text[i], sizeof text[i], "v@s%u", i * 7 % MANY); /* more than a transaction or a checkpoint takes */
		names[i] = text[i];
	}
	OK(r, store_snapshots_delete(r->store, names, GO, REPORT(r)));
	cr_assert_eq(rig_keys(r, "snapshot/"), MANY - GO);
	cr_assert_eq(rig_keys(r, "reap/"), 0);
	rig_check(r);
	OK(r, store_volume_delete(r->store, "v", true, REPORT(r)));
	cr_assert(rig_keys(r, "reap/") == 0 && rig_keys(r, "snap") == 0 && rig_keys(r, "volume/") == 0);
	return 0;
}

Test(doomed, many_at_once) { metered_test(body_many); }

/* What is being taken away, and was interrupted when a part of it had gone, is nobody's loss. */
static int body_half_gone(struct rig *r)
{
	create(r, "v");
	take(r, 0, 3);
	meter.spared = 3; /* its name goes, its snapshots and itself are doomed */
	meter.refused = 100;
	OK(r, store_volume_delete(r->store, "v", true, REPORT(r)));
	cr_assert_lt(meter.refused, 100u);
	meter.refused = 0;
	cr_assert_neq(rig_keys(r, "volume/"), 0);
	rig_check(r);
	store_reap(r->store);
	cr_assert_eq(rig_keys(r, "volume/"), 0);
	return 0;
}

Test(doomed, a_volume_that_is_half_gone_is_no_fault) { metered_test(body_half_gone); }

/* Whoever has the volume does it soon by himself; what he hasn't done when he closes is done then. */
static int body_soon(struct rig *r)
{
	enum { MANY = 40 };
	struct store_mark of[MANY];
	uint64_t id;
	create(r, "v");
	take(r, 0, MANY + 2);
	for (unsigned i = 0; i < MANY; i++) {
		char name[16];
		snprintf(name, sizeof name, "s%u", i);
		OK(r, store_find_snapshot(r->store->places, "v", name, &of[i].volume, &of[i].mark, REPORT(r)));
	}
	struct volume *v = volume_opened(r, "v", &id);
	OK(r, store_doom_snapshots(r->store, of, MANY - 2));
	volume_reap_soon(v);
	for (unsigned n = 0; n < 1000 && rig_keys(r, "reap/"); n++)
		fiber_sleep(&r->env->loop, 10 * NS_PER_MS);
	cr_assert_eq(rig_keys(r, "reap/"), 0);
	cr_assert_eq(rig_keys(r, "snapshot/"), 4);
	OK(r, store_doom_snapshots(r->store, of + MANY - 2, 2));
	volume_reap_soon(v);
	cr_assert_eq(volume_close(v), 0);
	cr_assert_eq(rig_keys(r, "reap/"), 0);
	cr_assert_eq(rig_keys(r, "snapshot/"), 2);
	rig_check(r);
	return 0;
}

Test(doomed, a_holder_frees_soon) { metered_test(body_soon); }

/* One byte of a block on the disk. */
static void flip(struct rig *r, uint64_t volume, uint64_t position)
{
	char directory[512], path[640], byte = 0;
	uint64_t segment = position_segment(position);
	places_embedded_path(r->store->places, volume, directory, sizeof directory);
	snprintf(path, sizeof path, "%s/segments/%02x/%012llx.seg", directory, (unsigned)(segment & 0xff), (unsigned long long)segment);
	FILE *f = fopen(path, "r+");
	cr_assert(f, "%s", path);
	cr_assert_eq(fseek(f, (long)(COPY_BASE + (uint64_t)position_block(position) * BLOCK_BYTES), SEEK_SET), 0);
	cr_assert_eq(fread(&byte, 1, 1, f), 1);
	byte ^= 1;
	cr_assert_eq(fseek(f, -1, SEEK_CUR), 0);
	cr_assert_eq(fwrite(&byte, 1, 1, f), 1);
	cr_assert_eq(fclose(f), 0);
}

/* A list that is damaged keeps neither the others waiting nor the checkpoint. */
static int body_unreadable(struct rig *r)
{
	struct store_mark of[2];
	uint64_t id;
	create(r, "v");
	take(r, 0, 6);
	for (unsigned i = 0; i < 2; i++)
		OK(r, store_find_snapshot(r->store->places, "v", i ? "s3" : "s1", &of[i].volume, &of[i].mark, REPORT(r)));
	struct volume *v = volume_opened(r, "v", &id);
	const struct space_list *l = space_list_find(&v->space, of[0].mark);
	cr_assert(l && l->chunk_count > 0);
	uint64_t at = l->chunks[0].at.position;
	flip(r, id, at);
	OK(r, store_doom_snapshots(r->store, of, 2));
	OK(r, volume_checkpoint(v));
	cr_assert_eq(rig_keys(r, "snapshot/"), 5, "the one that can be read is gone, the other one is there");
	cr_assert(space_list_find(&v->space, of[0].mark) && !space_list_find(&v->space, of[1].mark));
	cr_assert_eq(rig_keys(r, "reap/"), 1);
	flip(r, id, at);
	OK(r, volume_checkpoint(v));
	cr_assert(rig_keys(r, "snapshot/") == 4 && rig_keys(r, "reap/") == 0);
	cr_assert_eq(volume_close(v), 0);
	rig_check(r);
	return 0;
}

Test(doomed, a_list_that_cannot_be_read_waits) { metered_test(body_unreadable); }

/* ---- after a restoration ---- */

static void restore(struct rig *r, struct catalog_image *backup)
{
	struct catalog *c = r->store->catalog;
	OK(r, catalog_image_raise(backup, REPORT(r)));
	OK(r, catalog_image_erase(c, REPORT(r)));
	OK(r, catalog_image_write(c, backup, REPORT(r)));
	OK(r, catalog_mark_restored(c, backup, "today", REPORT(r)));
	catalog_image_free(backup);
}

static void recover_now(struct rig *r, unsigned not_recovered)
{
	struct store_recover how = { .force = false };
	OK(r, store_recover(r->store, &how, REPORT(r)));
	cr_assert_eq(how.counts[STORE_RECOVERED_NOT], (uint64_t)not_recovered);
}

static uint8_t value_of(struct rig *r, const char *name, uint64_t block)
{
	uint64_t id;
	struct volume *v = volume_opened(r, name, &id);
	uint8_t *page = env_alloc_aligned(BLOCK_BYTES);
	struct pointer at;
	int status = -EAGAIN;
	while (status == -EAGAIN) {
		struct job j;
		job_init(&j, &r->env->loop);
		status = volume_lookup(v, block, 1, &at, &j);
		if (status == -EAGAIN)
			cr_assert_eq(fiber_wait(&j), 0);
	}
	cr_assert(status == 0 && at.position);
	cr_assert_eq(sources_read_wait(volume_sources(v), &at, page), 0, "what the clone began with is gone");
	uint8_t value = page[0];
	free(page);
	cr_assert_eq(volume_close(v), 0);
	return value;
}

/* A snapshot that was deleted since the backup, and has a successor of its name, is there for a clone, which can't be recovered at first. Until it could be,
 * nothing is freed: nobody knows yet for whom that is. */
static int body_unrecovered(struct rig *r)
{
	struct catalog_image backup;
	struct meta_log *log = malloc(sizeof *log);
	uint64_t id;
	create(r, "v");
	take(r, 0, 2);
	OK(r, catalog_image_read(r->store->catalog, &backup, REPORT(r)));
	take(r, 2, 1);
	OK(r, store_clone(r->store, "v@s2", "c", REPORT(r)));
	cr_assert_eq(volume_close(volume_opened(r, "c", &id)), 0);
	OK(r, meta_get_log(r->store->catalog, id, log, NULL));
	cr_assert(log->summary.pointer.position);
	OK(r, store_snapshot_delete(r->store, "v@s2", REPORT(r)));
	take(r, 2, 1);
	restore(r, &backup);
	flip(r, id, log->summary.pointer.position);
	recover_now(r, 1);
	OK(r, store_snapshot_delete(r->store, "v@s0", REPORT(r)));
	struct volume *v = volume_opened(r, "v", &(uint64_t){ 0 });
	OK(r, volume_checkpoint(v));
	cr_assert_eq(volume_close(v), 0);
	flip(r, id, log->summary.pointer.position);
	recover_now(r, 0);
	cr_assert_eq(value_of(r, "c", 2), 3);
	OK(r, store_volume_delete(r->store, "c", true, REPORT(r)));
	cr_assert_eq(rig_keys(r, "reap/"), 0);
	cr_assert_eq(rig_keys(r, "snapshot/"), 2, "s1 and the second s2");
	rig_check(r);
	free(log);
	return 0;
}

Test(doomed, nothing_is_freed_while_a_volume_is_not_recovered) { metered_test(body_unrecovered); }

Test(doomed, keys)
{
	uint64_t volume = 0, mark = 1;
	char key[META_KEY_BYTES];
	meta_key_reap(0x12, key);
	cr_assert(meta_reap_parse(key, &volume, &mark) && volume == 0x12 && mark == 0);
	meta_key_reap_snapshot(0x12, 0x345, key);
	cr_assert(meta_reap_parse(key, &volume, &mark) && volume == 0x12 && mark == 0x345);
	static const char *const bad[] = { "reap/", "reap/x", "reap/12/", "reap/12/x", "reap/12/0", "reap/12/34/5", "reap/12x", "snap/12" };
	for (unsigned i = 0; i < ARRAY_COUNT(bad); i++)
		cr_assert(!meta_reap_parse(bad[i], &volume, &mark), "%s", bad[i]);
}
