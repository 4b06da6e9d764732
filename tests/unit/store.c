/* The store's operations on a real directory: volumes, snapshots, clones, rollback and deletion in every order, against copies in
 * memory; and that nothing is left when everything is deleted. */
#include "parallax/store/store.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/drivers.h"
#include "core/fiber.h"
#include "parallax/store/verify.h"
#include "tests/unit/blktest.h"
#include "tests/unit/storetest.h"

enum { BLOCKS = 600, BYTES = BLOCKS * 4096, THINGS = 12, SHOTS = 24 };

static uint64_t draw(struct rig *r, uint64_t below)
{
	r->random = r->random * 6364136223846793005u + 1442695040888963407u;
	return (r->random >> 33) % below;
}

static void create(struct rig *r, const char *name, uint64_t bytes)
{
	struct store_volume_options o = { .size_bytes = bytes };
	OK(r, store_volume_create(r->store, name, &o, REPORT(r)));
}

static struct blk_node *attach(struct rig *r, const char *name, bool read_only)
{
	struct blk_node *n = NULL;
	OK(r, blktest_open(r->env, &driver_volume, NULL, read_only, (const char *[]){ name, NULL }, &n, REPORT(r)));
	return n;
}

static void snapshot(struct rig *r, const char *name) { OK(r, store_snapshot_create(r->store, &name, 1, REPORT(r))); }

/* ---- what is there ---- */

struct names {
	char text[4096];
	unsigned count;
};

static int note_volume(void *arg, const struct store_volume *v)
{
	struct names *n = arg;
	n->count++;
	snprintf(n->text + strlen(n->text), sizeof n->text - strlen(n->text), "%s ", v->name);
	return 0;
}

static int note_snapshot(void *arg, const struct store_snapshot *s)
{
	struct names *n = arg;
	n->count++;
	snprintf(n->text + strlen(n->text), sizeof n->text - strlen(n->text), "%s@%s ", s->volume, s->name);
	return 0;
}

static void expect_volumes(struct rig *r, const char *want)
{
	struct names n = { "", 0 };
	OK(r, store_volume_list(r->store, note_volume, &n, REPORT(r)));
	cr_assert_str_eq(n.text, want);
}

static void expect_snapshots(struct rig *r, const char *volume, const char *want)
{
	struct names n = { "", 0 };
	OK(r, store_snapshot_list(r->store, volume, note_snapshot, &n, REPORT(r)));
	cr_assert_str_eq(n.text, want);
}

static int note_key(void *arg, const char *key, const struct catalog_value *value)
{
	struct names *n = arg;
	(void)value;
	if (strncmp(key, "counter/", 8))
		snprintf(n->text + strlen(n->text), sizeof n->text - strlen(n->text), "%s ", key);
	return 0;
}

static void expect_nothing_left(struct rig *r)
{
	struct names n = { "", 0 };
	char path[128];
	cr_assert_eq(catalog_list(r->store->catalog, "", note_key, &n), 0);
	cr_assert_str_eq(n.text, "", "keys are left: %s", n.text);
	static const char *const dirs[] = { "volumes", "locks" };
	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof path, "%s/var/lib/aquifer/%s", r->dir, dirs[i]);
		DIR *d = opendir(path);
		for (struct dirent *e; d && (e = readdir(d));)
			cr_assert(e->d_name[0] == '.', "%s/%s is left", path, e->d_name);
		if (d)
			closedir(d);
	}
}

/* ---- names and sizes ---- */

static int body_names(struct rig *r)
{
	struct store *s = r->store;
	struct store_volume v;
	struct store_volume_options o = { .size_bytes = 1 << 20 };
	char longest[80];
	memset(longest, 'n', sizeof longest);
	longest[63] = '\0';
	create(r, "b", 1 << 20);
	create(r, "a", 4096);
	create(r, longest, 512);
	FAILS(r, store_volume_create(s, "a", &o, REPORT(r)), -EEXIST, "'a' already");
	longest[63] = 'n';
	longest[64] = '\0';
	FAILS(r, store_volume_create(s, longest, &o, REPORT(r)), -EINVAL, "not a volume name");
	FAILS(r, store_volume_create(s, "", &o, REPORT(r)), -EINVAL, "not a volume name");
	FAILS(r, store_volume_create(s, "../x", &o, REPORT(r)), -EINVAL, "not a volume name");
	FAILS(r, store_volume_create(s, "a@b", &o, REPORT(r)), -EINVAL, "not a volume name");
	static const uint64_t sizes[] = { 0, 1, 511, 4097, (UINT64_C(64) << 40) + 512, UINT64_MAX };
	for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
		o.size_bytes = sizes[i];
		FAILS(r, store_volume_create(s, "c", &o, REPORT(r)), -EINVAL, "size");
	}
	o = (struct store_volume_options){ .size_bytes = 4096, .replicas = 3 };
	FAILS(r, store_volume_create(s, "c", &o, REPORT(r)), -EINVAL, "need as many servers");
	o = (struct store_volume_options){ .size_bytes = 4096 };
	s->cluster = true; /* as with a catalog that other hosts have too: nothing is put where they can't reach it */
	FAILS(r, store_volume_create(s, "c", &o, REPORT(r)), -ENODEV, "no server");
	s->cluster = false;
	OK(r, store_volume_show(s, "b", &v, REPORT(r)));
	cr_assert(v.embedded && v.size_bytes == 1 << 20 && v.used_bytes == 0 && v.state == STORE_FREE && v.snapshot_count == 0 && !v.parent[0]);
	FAILS(r, store_volume_show(s, "z", &v, REPORT(r)), -ENOENT, "no volume 'z'");
	OK(r, store_volume_rename(s, "b", "c", REPORT(r)));
	FAILS(r, store_volume_rename(s, "b", "d", REPORT(r)), -ENOENT, "no volume 'b'");
	FAILS(r, store_volume_rename(s, "a", "c", REPORT(r)), -EEXIST, "'c' already");
	FAILS(r, store_volume_rename(s, "a", "x y", REPORT(r)), -EINVAL, "not a volume name");
	longest[63] = '\0';
	OK(r, store_volume_delete(s, longest, false, REPORT(r)));
	expect_volumes(r, "a c ");
	FAILS(r, store_volume_delete(s, "b", false, REPORT(r)), -ENOENT, "no volume 'b'");
	const char *bad[] = { "a", "a@", "@s", "a@b@c", "none@s" };
	for (unsigned i = 0; i < 4; i++)
		FAILS(r, store_snapshot_create(s, &bad[i], 1, REPORT(r)), -EINVAL, "VOLUME@SNAPSHOT");
	FAILS(r, store_snapshot_create(s, &bad[4], 1, REPORT(r)), -ENOENT, "no volume 'none'");
	FAILS(r, store_clone(s, "a@none", "n", REPORT(r)), -ENOENT, "no snapshot 'a@none'");
	FAILS(r, store_snapshot_rollback(s, "a@none", REPORT(r)), -ENOENT, "no snapshot 'a@none'");
	FAILS(r, store_snapshot_delete(s, "a@none", REPORT(r)), -ENOENT, "no snapshot 'a@none'");
	OK(r, store_volume_delete(s, "a", false, REPORT(r)));
	OK(r, store_volume_delete(s, "c", false, REPORT(r)));
	expect_nothing_left(r);
	return 0;
}

Test(store, names_and_sizes) { rig_test(body_names); }

/* ---- resizing ---- */

static void fill(struct blk_node *n, uint64_t at, uint64_t bytes, uint8_t value)
{
	uint8_t *b = env_alloc_aligned(bytes);
	memset(b, value, bytes);
	cr_assert_eq(blk_write_wait(n, b, bytes, at, 0), 0);
	free(b);
}

static void expect_bytes(struct blk_node *n, uint64_t at, uint64_t bytes, uint8_t value)
{
	uint8_t *b = env_alloc_aligned(bytes);
	cr_assert_eq(blk_read_wait(n, b, bytes, at), 0);
	for (uint64_t i = 0; i < bytes; i++)
		cr_assert_eq(b[i], value, "byte %llu is %u instead of %u", (unsigned long long)(at + i), b[i], value);
	free(b);
}

static int body_resize(struct rig *r)
{
	struct store *s = r->store;
	struct store_volume v;
	create(r, "v", 100 * 4096);
	struct blk_node *n = attach(r, "v", false);
	fill(n, 0, 100 * 4096, 7);
	cr_assert_eq(blk_close(n), 0);
	FAILS(r, store_volume_resize(s, "v", 50 * 4096 + 1, true, REPORT(r)), -EINVAL, "multiple of 512");
	FAILS(r, store_volume_resize(s, "v", 50 * 4096 + 512, false, REPORT(r)), -EINVAL, "--force");
	FAILS(r, store_volume_resize(s, "v", 0, true, REPORT(r)), -EINVAL, "size");
	snapshot(r, "v@s");
	OK(r, store_volume_resize(s, "v", 50 * 4096 + 512, true, REPORT(r)));
	OK(r, store_volume_show(s, "v", &v, REPORT(r)));
	cr_assert(v.size_bytes == 50 * 4096 + 512 && v.used_bytes == 51 * 4096, "%llu %llu", (unsigned long long)v.size_bytes,
		  (unsigned long long)v.used_bytes);
	/* what was cut off is gone, also the rest of a block */
	OK(r, store_volume_resize(s, "v", UINT64_C(1) << 40, false, REPORT(r)));
	n = attach(r, "v", false);
	cr_assert_eq(n->info.size, UINT64_C(1) << 40);
	expect_bytes(n, 0, 50 * 4096 + 512, 7);
	expect_bytes(n, 50 * 4096 + 512, 60 * 4096 - 512, 0);
	fill(n, (UINT64_C(1) << 40) - 4096, 4096, 9);
	expect_bytes(n, (UINT64_C(1) << 40) - 4096, 4096, 9);
	cr_assert_eq(blk_close(n), 0);
	n = attach(r, "v@s", true);
	cr_assert_eq(n->info.size, 100 * 4096);
	expect_bytes(n, 0, 100 * 4096, 7);
	cr_assert_eq(blk_close(n), 0);
	OK(r, store_snapshot_rollback(s, "v@s", REPORT(r)));
	n = attach(r, "v", false);
	cr_assert_eq(n->info.size, 100 * 4096);
	expect_bytes(n, 0, 100 * 4096, 7);
	cr_assert_eq(blk_close(n), 0);
	OK(r, store_volume_delete(s, "v", true, REPORT(r)));
	expect_nothing_left(r);
	return 0;
}

Test(store, resize) { rig_test(body_resize); }

/* ---- who has it ---- */

static int body_held(struct rig *r)
{
	struct store *s = r->store;
	struct store_volume v;
	struct blk_node *other = NULL;
	char name[16];
	/* a holder is alive if it is a program of ours */
	prctl(PR_GET_NAME, name);
	prctl(PR_SET_NAME, "aquifer-unit");
	create(r, "v", BYTES);
	struct blk_node *n = attach(r, "v", false);
	OK(r, store_volume_show(s, "v", &v, REPORT(r)));
	cr_assert(v.state == STORE_HELD && strstr(v.holder.text, "the unit test") && v.epoch > 0);
	FAILS(r, blktest_open(r->env, &driver_volume, NULL, false, (const char *[]){ "v", NULL }, &other, REPORT(r)), -EBUSY, "this tapdisk has it already");
	FAILS(r, store_volume_delete(s, "v", true, REPORT(r)), -EBUSY, "the unit test");
	const char *shot = "v@s";
	FAILS(r, store_snapshot_create(s, &shot, 1, REPORT(r)), -EBUSY, "the unit test");
	FAILS(r, store_volume_resize(s, "v", BYTES * 2, false, REPORT(r)), -EBUSY, "the unit test");
	cr_assert_eq(blk_close(n), 0);
	OK(r, store_volume_show(s, "v", &v, REPORT(r)));
	cr_assert_eq(v.state, STORE_FREE);
	snapshot(r, shot);
	FAILS(r, store_snapshot_create(s, &shot, 1, REPORT(r)), -EEXIST, "already");
	FAILS(r, blktest_open(r->env, &driver_volume, NULL, false, (const char *[]){ "v@s", NULL }, &other, REPORT(r)), -EROFS, "--read-only");
	FAILS(r, store_volume_delete(s, "v", false, REPORT(r)), -ENOTEMPTY, "--with-snapshots");
	/* a reader keeps what it reads, also of what is deleted */
	n = attach(r, "v@s", true);
	OK(r, store_volume_delete(s, "v", true, REPORT(r)));
	expect_volumes(r, "");
	expect_bytes(n, 0, 64 * 4096, 0);
	cr_assert_eq(blk_close(n), 0);
	create(r, "w", 4096); /* any command that frees looks again */
	OK(r, store_volume_delete(s, "w", false, REPORT(r)));
	expect_nothing_left(r);
	prctl(PR_SET_NAME, name);
	return 0;
}

Test(store, one_holder) { rig_test(body_held); }

/* ---- everything in every order ---- */

struct shot {
	bool used;
	char name[48];
	uint32_t blocks[BLOCKS];
};

struct thing {
	bool used;
	char name[24];
	uint32_t blocks[BLOCKS];   /* number written to each; 0: zeroes */
	struct shot shot[SHOTS];
	unsigned shots;
};

struct world {
	struct rig *r;
	struct thing thing[THINGS];
	unsigned next;
};

static void block_fill(uint8_t *b, uint32_t value)
{
	for (unsigned i = 0; i < 4096; i += 4)
		put_le32(b + i, value ? value + i : 0);
}

static void write_random(struct world *w, struct thing *t)
{
	struct blk_node *n = attach(w->r, t->name, false);
	uint8_t *b = env_alloc_aligned(64 * 4096);
	for (unsigned i = 0; i < 25; i++) {
		unsigned first = (unsigned)draw(w->r, BLOCKS - 64), count = 1 + (unsigned)draw(w->r, draw(w->r, 3) ? 4 : 64);
		bool clear = draw(w->r, 5) == 0;
		for (unsigned k = 0; k < count; k++) {
			t->blocks[first + k] = clear ? 0 : ++w->next * 5000;
			block_fill(b + k * 4096, t->blocks[first + k]);
		}
		cr_assert_eq(clear ? blk_op_wait(n, BLK_DISCARD, first * 4096, count * 4096, 0) : blk_write_wait(n, b, count * 4096, first * 4096, 0), 0);
	}
	free(b);
	cr_assert_eq(blk_close(n), 0);
}

static void compare_node(struct world *w, const char *name, const uint32_t *blocks)
{
	uint8_t *got = env_alloc_aligned(60 * 4096), *want = malloc(4096);
	struct blk_node *n = attach(w->r, name, true);
	for (unsigned at = 0; at < BLOCKS; at += 60) {
		cr_assert_eq(blk_read_wait(n, got, 60 * 4096, at * 4096), 0, "%s can't be read at %u", name, at);
		for (unsigned i = 0; i < 60; i++) {
			block_fill(want, blocks[at + i]);
			cr_assert_eq(memcmp(got + i * 4096, want, 4096), 0, "%s: block %u is wrong", name, at + i);
		}
	}
	cr_assert_eq(blk_close(n), 0);
	free(got);
	free(want);
}

static void compare_volume(struct world *w, struct thing *t)
{
	struct volume *v;
	uint64_t id;
	struct rig *r = w->r;
	OK(r, store_find_volume(r->store->places, t->name, &id, REPORT(r)));
	OK(r, store_maintain(r->store->places, id, &v, REPORT(r)));
	OK(r, volume_checkpoint(v));
	OK(r, volume_checkpoint(v));
	OK(r, volume_verify_space(v, REPORT(r)));
	cr_assert_eq(volume_close(v), 0);
	compare_node(w, t->name, t->blocks);
	for (unsigned i = 0; i < t->shots; i++)
		compare_node(w, t->shot[i].name, t->shot[i].blocks);
}

struct differences {
	bool changed[BLOCKS], data[BLOCKS];
	uint64_t end;
};

static int note_difference(void *arg, const struct store_extent *e)
{
	struct differences *d = arg;
	cr_assert(e->length > 0 && e->offset >= d->end && e->offset + e->length <= BYTES, "out of order or range");
	d->end = e->offset + e->length;
	for (uint64_t b = e->offset / 4096; b < d->end / 4096; b++) {
		d->changed[b] = true;
		d->data[b] = e->data;
	}
	return 0;
}

/* Whatever differs is listed, and what is listed as a hole is zeroes; equal blocks may be listed (written again with the same), but
 * those of our numbers never are. */
static void compare_diff(struct world *w, const char *from, const uint32_t *a, const char *to, const uint32_t *b)
{
	struct differences *d = calloc(1, sizeof *d);
	struct rig *r = w->r;
	OK(r, store_diff(r->store, from, to, note_difference, d, REPORT(r)));
	for (unsigned i = 0; i < BLOCKS; i++) {
		cr_assert_eq(d->changed[i], a[i] != b[i], "%s %s: block %u: %u %u", from, to, i, a[i], b[i]);
		if (d->changed[i])
			cr_assert_eq(d->data[i], b[i] != 0);
	}
	free(d);
}

static struct thing *free_thing(struct world *w)
{
	for (unsigned i = 0; i < THINGS; i++)
		if (!w->thing[i].used)
			return &w->thing[i];
	return NULL;
}

static struct thing *some_thing(struct world *w)
{
	for (unsigned i = 0; i < 20; i++) {
		struct thing *t = &w->thing[draw(w->r, THINGS)];
		if (t->used)
			return t;
	}
	return NULL;
}

static void do_snapshot(struct world *w, struct thing *t)
{
	if (t->shots == SHOTS)
		return;
	struct shot *s = &t->shot[t->shots++];
	snprintf(s->name, sizeof s->name, "%s@s%u", t->name, ++w->next);
	memcpy(s->blocks, t->blocks, sizeof s->blocks);
	snapshot(w->r, s->name);
}

static void do_delete_snapshot(struct world *w, struct thing *t)
{
	unsigned i = (unsigned)draw(w->r, t->shots);
	OK(w->r, store_snapshot_delete(w->r->store, t->shot[i].name, REPORT(w->r)));
	memmove(&t->shot[i], &t->shot[i + 1], (t->shots - i - 1) * sizeof t->shot[0]);
	t->shots--;
}

static void do_clone(struct world *w, struct thing *t)
{
	struct thing *c = free_thing(w);
	if (!c)
		return;
	const struct shot *s = &t->shot[draw(w->r, t->shots)];
	*c = (struct thing){ .used = true };
	snprintf(c->name, sizeof c->name, "c%u", ++w->next);
	memcpy(c->blocks, s->blocks, sizeof c->blocks);
	OK(w->r, store_clone(w->r->store, s->name, c->name, REPORT(w->r)));
}

static void do_rollback(struct world *w, struct thing *t)
{
	const struct shot *s = &t->shot[draw(w->r, t->shots)];
	OK(w->r, store_snapshot_rollback(w->r->store, s->name, REPORT(w->r)));
	memcpy(t->blocks, s->blocks, sizeof t->blocks);
}

static void do_delete(struct world *w, struct thing *t)
{
	OK(w->r, store_volume_delete(w->r->store, t->name, /* with_snapshots= */ true, REPORT(w->r)));
	t->used = false;
}

static void do_diff(struct world *w, struct thing *t)
{
	const struct shot *a = &t->shot[draw(w->r, t->shots)], *b = &t->shot[draw(w->r, t->shots)];
	compare_diff(w, a->name, a->blocks, b->name, b->blocks);
	compare_diff(w, a->name, a->blocks, t->name, t->blocks);
}

static void one_step(struct world *w)
{
	struct thing *t = some_thing(w);
	if (!t)
		return;
	switch (draw(w->r, 12)) {
	case 0: case 1: case 2: write_random(w, t); break;
	case 3: case 4: do_snapshot(w, t); break;
	case 5: if (t->shots) do_delete_snapshot(w, t); break;
	case 6: case 7: if (t->shots) do_clone(w, t); break;
	case 8: case 9: if (t->shots) do_rollback(w, t); break;
	case 10: if (t->shots) do_diff(w, t); break;
	default: if (draw(w->r, 3) == 0) do_delete(w, t); break;
	}
}

static void new_thing(struct world *w, const char *name)
{
	struct thing *t = free_thing(w);
	*t = (struct thing){ .used = true };
	snprintf(t->name, sizeof t->name, "%s", name);
	create(w->r, name, BYTES);
}

static int random_walk(struct rig *r, uint64_t seed)
{
	struct world *w = calloc(1, sizeof *w);
	w->r = r;
	r->random = seed;
	new_thing(w, "v");
	new_thing(w, "w");
	for (unsigned i = 0; i < 60; i++) {
		one_step(w);
		if (i % 20 == 19)
			for (unsigned k = 0; k < THINGS; k++)
				if (w->thing[k].used)
					compare_volume(w, &w->thing[k]);
	}
	for (struct thing *t; (t = some_thing(w));)
		do_delete(w, t);
	for (unsigned k = 0; k < THINGS; k++)
		if (w->thing[k].used)
			do_delete(w, &w->thing[k]);
	expect_volumes(r, "");
	expect_nothing_left(r);
	free(w);
	return 0;
}

static int body_walk_1(struct rig *r) { return random_walk(r, 1); }
static int body_walk_2(struct rig *r) { return random_walk(r, 22); }
static int body_walk_3(struct rig *r) { return random_walk(r, 333); }
Test(store, in_every_order_1) { rig_test(body_walk_1); }
Test(store, in_every_order_2) { rig_test(body_walk_2); }
Test(store, in_every_order_3) { rig_test(body_walk_3); }

/* ---- some orders by name ---- */

static int body_clones(struct rig *r)
{
	struct world *w = calloc(1, sizeof *w);
	w->r = r;
	new_thing(w, "a");
	write_random(w, &w->thing[0]);
	do_snapshot(w, &w->thing[0]);
	for (unsigned i = 1; i < 5; i++) { /* a clone of a clone of a clone */
		do_clone(w, &w->thing[i - 1]);
		cr_assert(w->thing[i].used);
		write_random(w, &w->thing[i]);
		do_snapshot(w, &w->thing[i]);
	}
	for (unsigned i = 0; i < 5; i++)
		compare_volume(w, &w->thing[i]);
	/* the parents go first; what the clones need of them stays */
	for (unsigned i = 0; i < 4; i++) {
		do_delete(w, &w->thing[i]);
		compare_volume(w, &w->thing[4]);
	}
	do_delete(w, &w->thing[4]);
	expect_nothing_left(r);
	free(w);
	return 0;
}

Test(store, clones_of_clones) { rig_test(body_clones); }

static int body_rollbacks(struct rig *r)
{
	struct world *w = calloc(1, sizeof *w);
	struct thing *t = &w->thing[0];
	w->r = r;
	new_thing(w, "a");
	write_random(w, t);
	do_snapshot(w, t); /* s2 */
	write_random(w, t);
	do_snapshot(w, t);
	write_random(w, t);
	do_snapshot(w, t);
	for (unsigned i = 0; i < 6; i++) { /* back and forth: all of them stay listed */
		OK(r, store_snapshot_rollback(r->store, t->shot[i % 3].name, REPORT(r)));
		memcpy(t->blocks, t->shot[i % 3].blocks, sizeof t->blocks);
		compare_volume(w, t);
		write_random(w, t);
	}
	struct names n = { "", 0 };
	OK(r, store_snapshot_list(r->store, "a", note_snapshot, &n, REPORT(r)));
	cr_assert_eq(n.count, 3, "%s", n.text);
	do_delete_snapshot(w, t);
	do_snapshot(w, t);
	compare_volume(w, t);
	const char *taken = t->shot[0].name; /* of an earlier life of the name */
	FAILS(r, store_snapshot_create(r->store, &taken, 1, REPORT(r)), -EEXIST, "already");
	do_delete(w, t);
	expect_nothing_left(r);
	free(w);
	return 0;
}

Test(store, rollback_again_and_again) { rig_test(body_rollbacks); }

/* What is deleted at once is exactly what nobody else shows. */
static int body_exact(struct rig *r)
{
	struct store_volume v;
	create(r, "v", BYTES);
	struct blk_node *n = attach(r, "v", false);
	fill(n, 0, 100 * 4096, 1);
	cr_assert_eq(blk_close(n), 0);
	snapshot(r, "v@a");
	n = attach(r, "v", false);
	fill(n, 0, 40 * 4096, 2);
	cr_assert_eq(blk_close(n), 0);
	OK(r, store_volume_show(r->store, "v", &v, REPORT(r)));
	cr_assert(v.used_bytes == 100 * 4096 && v.snapshot_count == 1);
	cr_assert(v.snapshot_bytes >= 40 * 4096 && v.snapshot_bytes <= 44 * 4096, "%llu", (unsigned long long)v.snapshot_bytes);
	expect_snapshots(r, "v", "v@a ");
	OK(r, store_snapshot_delete(r->store, "v@a", REPORT(r)));
	OK(r, store_volume_show(r->store, "v", &v, REPORT(r)));
	cr_assert(v.used_bytes == 100 * 4096 && v.snapshot_bytes == 0 && v.snapshot_count == 0);
	cr_assert(v.exclusive_bytes >= 100 * 4096 && v.exclusive_bytes <= 104 * 4096, "%llu", (unsigned long long)v.exclusive_bytes);
	OK(r, store_volume_delete(r->store, "v", false, REPORT(r)));
	expect_nothing_left(r);
	return 0;
}

Test(store, sizes_are_exact) { rig_test(body_exact); }

/* ---- several snapshots at once ---- */

static int body_several(struct rig *r)
{
	static const char *const wrong[] = { "v@a", "w@a", "v@none" }, *const names[] = { "v@a", "w@a", "v@c", "v@a" };
	struct meta_owner before, after;
	uint64_t id;
	for (unsigned k = 0; k < 2; k++) {
		create(r, k ? "w" : "v", BYTES);
		for (unsigned i = 0; i < 3; i++) {
			struct blk_node *n = attach(r, k ? "w" : "v", false);
			fill(n, 0, 50 * 4096, (uint8_t)(i + 1));
			cr_assert_eq(blk_close(n), 0);
			snapshot(r, k ? (i == 0 ? "w@a" : i == 1 ? "w@b" : "w@c") : i == 0 ? "v@a" : i == 1 ? "v@b" : "v@c");
		}
	}
	FAILS(r, store_snapshots_delete(r->store, wrong, 3, REPORT(r)), -ENOENT, "no snapshot 'v@none'");
	expect_snapshots(r, "v", "v@a v@b v@c ");
	OK(r, store_find_volume(r->store->places, "v", &id, REPORT(r)));
	cr_assert_eq(meta_get_owner(r->store->catalog, id, &before, NULL), 0);
	OK(r, store_snapshots_delete(r->store, names, 4, REPORT(r)));
	cr_assert_eq(meta_get_owner(r->store->catalog, id, &after, NULL), 0);
	cr_assert_eq(after.epoch, before.epoch + 1, "the volume was opened %u times", (unsigned)(after.epoch - before.epoch));
	expect_snapshots(r, "v", "v@b ");
	expect_snapshots(r, "w", "w@b w@c ");
	struct store_volume v;
	OK(r, store_volume_show(r->store, "v", &v, REPORT(r)));
	cr_assert(v.snapshot_bytes >= 50 * 4096 && v.snapshot_bytes <= 54 * 4096, "%llu", (unsigned long long)v.snapshot_bytes);
	OK(r, store_volume_delete(r->store, "v", true, REPORT(r)));
	OK(r, store_volume_delete(r->store, "w", true, REPORT(r)));
	expect_nothing_left(r);
	return 0;
}

Test(store, several_snapshots_are_deleted_at_once) { rig_test(body_several); }

/* ---- what deleting a snapshot would free ---- */

static int note_frees(void *arg, const struct store_snapshot *s)
{
	uint64_t *frees = arg;
	frees[s->name[0] - 'a'] = s->frees_bytes;
	return 0;
}

static void expect_freed(struct rig *r, const char *name, uint64_t said)
{
	struct store_volume before, after;
	OK(r, store_volume_show(r->store, "v", &before, REPORT(r)));
	OK(r, store_snapshot_delete(r->store, name, REPORT(r)));
	OK(r, store_volume_show(r->store, "v", &after, REPORT(r)));
	uint64_t freed = before.exclusive_bytes - after.exclusive_bytes; /* … and the list's own blocks */
	cr_assert(freed >= said && freed <= said + 4 * 4096, "%s: %llu, not %llu", name, (unsigned long long)freed, (unsigned long long)said);
}

static int body_frees(struct rig *r)
{
	uint64_t frees[3] = { 0 };
	create(r, "v", BYTES);
	for (unsigned i = 0; i < 3; i++) { /* each overwrites what the one before wrote, but for 20 blocks */
		struct blk_node *n = attach(r, "v", false);
		fill(n, i * 20 * 4096, (100 - i * 20) * 4096, (uint8_t)(i + 1));
		cr_assert_eq(blk_close(n), 0);
		snapshot(r, i == 0 ? "v@a" : i == 1 ? "v@b" : "v@c");
	}
	struct blk_node *n = attach(r, "v", false);
	fill(n, 0, 100 * 4096, 9);
	cr_assert_eq(blk_close(n), 0);
	OK(r, store_snapshot_list(r->store, "v", note_frees, frees, REPORT(r)));
	cr_assert(frees[0] >= 80 * 4096 && frees[0] <= 84 * 4096, "%llu", (unsigned long long)frees[0]);
	cr_assert(frees[1] >= 60 * 4096 && frees[1] <= 64 * 4096, "%llu", (unsigned long long)frees[1]);
	OK(r, store_clone(r->store, "v@c", "clone", REPORT(r)));
	OK(r, store_snapshot_list(r->store, "v", note_frees, frees, REPORT(r)));
	cr_assert_eq(frees[2], 0, "held by a clone");
	OK(r, store_volume_delete(r->store, "clone", false, REPORT(r)));
	expect_freed(r, "v@b", frees[1]);
	OK(r, store_snapshot_list(r->store, "v", note_frees, frees, REPORT(r)));
	cr_assert(frees[2] >= 60 * 4096, "what b shared with c is c's alone now, unless a has it");
	expect_freed(r, "v@a", frees[0]);
	OK(r, store_snapshot_list(r->store, "v", note_frees, frees, REPORT(r)));
	expect_freed(r, "v@c", frees[2]);
	OK(r, store_volume_delete(r->store, "v", false, REPORT(r)));
	expect_nothing_left(r);
	return 0;
}

Test(store, what_deleting_a_snapshot_frees_is_told_before) { rig_test(body_frees); }

/* ---- what a clone's parent is called, now ---- */

static void expect_parent(struct rig *r, const char *name, const char *want)
{
	struct store_volume v;
	OK(r, store_volume_show(r->store, name, &v, REPORT(r)));
	cr_assert_str_eq(v.parent, want);
}

static int body_parents(struct rig *r)
{
	create(r, "v", 1 << 20);
	snapshot(r, "v@s");
	OK(r, store_clone(r->store, "v@s", "c", REPORT(r)));
	expect_parent(r, "v", "");
	expect_parent(r, "c", "v@s");
	OK(r, store_volume_rename(r->store, "v", "w", REPORT(r)));
	create(r, "v", 1 << 20); /* another one of that name has nothing to do with it */
	expect_parent(r, "c", "w@s");
	OK(r, store_snapshot_rollback(r->store, "w@s", REPORT(r)));
	expect_parent(r, "c", "w@s");
	OK(r, store_volume_rename(r->store, "w", "x", REPORT(r)));
	expect_parent(r, "c", "x@s");
	expect_parent(r, "x", "x@s");
	OK(r, store_snapshot_delete(r->store, "x@s", REPORT(r)));
	expect_parent(r, "c", "x@s (deleted)");
	OK(r, store_volume_delete(r->store, "x", true, REPORT(r)));
	expect_parent(r, "c", "v@s (deleted)"); /* it has no name any more: what it was made as */
	OK(r, store_volume_delete(r->store, "c", false, REPORT(r)));
	OK(r, store_volume_delete(r->store, "v", false, REPORT(r)));
	expect_nothing_left(r);
	return 0;
}

Test(store, a_parent_is_shown_by_its_present_name) { rig_test(body_parents); }

/* ---- imports ---- */

/* The import of that name is of a process that began a tick before this one. */
static void began_before(struct rig *r, const char *temporary)
{
	struct meta_name named;
	struct catalog_value v;
	struct catalog_txn t;
	char key[META_KEY_BYTES], was[256], text[256], *name;
	cr_assert_eq(meta_get_name(r->store->catalog, temporary, &named, NULL), 0);
	snprintf(key, sizeof key, "import/%016llx", (unsigned long long)named.volume);
	cr_assert_eq(catalog_get(r->store->catalog, key, &v), 0);
	snprintf(was, sizeof was, "%.*s", (int)v.length, (const char *)v.bytes);
	char *dot = strchr(strchr(was, ' '), '.');
	cr_assert(dot, "%s", was);
	uint64_t ticks = strtoull(dot + 1, &name, 10);
	int n = snprintf(text, sizeof text, "%.*s.%llu%s", (int)(dot - was), was, (unsigned long long)(ticks - 1), name);
	catalog_txn_init(&t);
	catalog_txn_put(&t, key, text, (size_t)n);
	cr_assert_eq(catalog_txn(r->store->catalog, &t, NULL), 0);
	catalog_value_free(&v);
}

/* … and was killed when it had the volume open. */
static void leave_open(struct rig *r, const char *temporary)
{
	struct meta_name named;
	struct meta_owner o, now;
	char key[META_KEY_BYTES];
	uint64_t revision;
	size_t length;
	struct blk_node *n = attach(r, temporary, false);
	cr_assert_eq(meta_get_name(r->store->catalog, temporary, &named, NULL), 0);
	cr_assert_eq(meta_get_owner(r->store->catalog, named.volume, &o, NULL), 0);
	fill(n, 0, 10 * 4096, 1);
	cr_assert_eq(blk_close(n), 0);
	meta_key_owner(named.volume, key);
	uint8_t *bytes = meta_owner_encode(&o, &length);
	cr_assert_eq(meta_get_owner(r->store->catalog, named.volume, &now, &revision), 0);
	cr_assert_eq(catalog_put_at(r->store->catalog, key, revision, bytes, length), 0);
	free(bytes);
}

/* So its record says. */
static void expect_called(struct rig *r, const char *name)
{
	struct meta_name named;
	struct meta_log *log = malloc(sizeof *log);
	cr_assert_eq(meta_get_name(r->store->catalog, name, &named, NULL), 0);
	cr_assert_eq(meta_get_log(r->store->catalog, named.volume, log, NULL), 0);
	cr_assert_str_eq(log->name, name);
	free(log);
}

static int body_imports(struct rig *r)
{
	struct store_volume_options o = { .size_bytes = BYTES };
	struct store_volume v;
	char first[STORE_NAME_BYTES], second[STORE_NAME_BYTES], longest[STORE_NAME_BYTES];
	OK(r, store_import_begin(r->store, "a", &o, first, REPORT(r)));
	OK(r, store_volume_show(r->store, first, &v, REPORT(r)));
	cr_assert(strstr(v.health, "import"), "%s", v.health);
	struct blk_node *n = attach(r, first, false);
	fill(n, 0, 10 * 4096, 1);
	cr_assert_eq(blk_close(n), 0);
	/* the first was killed: the next begins, and takes it away */
	OK(r, store_import_begin(r->store, "a", &o, second, REPORT(r)));
	FAILS(r, store_volume_show(r->store, first, &v, REPORT(r)), -ENOENT, "no volume");
	FAILS(r, store_volume_show(r->store, "a", &v, REPORT(r)), -ENOENT, "no volume");
	n = attach(r, second, false);
	fill(n, 0, 20 * 4096, 2);
	OK(r, store_import_end(r->store, second, "a", REPORT(r))); /* while it is open */
	static const char *const called[] = { "a", NULL };
	char *json = NULL;
	OK(r, n->driver->control(n, "called", called, &json, REPORT(r)));
	cr_assert_eq(blk_close(n), 0);
	OK(r, store_volume_show(r->store, "a", &v, REPORT(r)));
	cr_assert(v.used_bytes == 20 * 4096 && strcmp(v.health, "good") == 0, "%s", v.health);
	expect_called(r, "a");
	FAILS(r, store_import_begin(r->store, "a", &o, first, REPORT(r)), -EEXIST, "'a' already");
	/* its name is taken meanwhile; one that isn't open yet isn't taken for dead; one that is kept under another name stays */
	memset(longest, 'n', sizeof longest);
	longest[63] = '\0';
	cr_assert_eq(prctl(PR_SET_NAME, "aquifer-unit"), 0); /* what a process of ours is called */
	OK(r, store_import_begin(r->store, longest, &o, first, REPORT(r)));
	OK(r, store_import_begin(r->store, "b", &o, second, REPORT(r)));
	OK(r, store_volume_show(r->store, first, &v, REPORT(r)));
	create(r, "b", 4096);
	FAILS(r, store_import_end(r->store, second, "b", REPORT(r)), -EEXIST, "'b' already");
	store_import_cancel(r->store, second);
	OK(r, store_import_end(r->store, first, longest, REPORT(r)));
	/* nor is one that was killed taken for alive because another program of ours has its number */
	OK(r, store_import_begin(r->store, "e", &o, first, REPORT(r)));
	began_before(r, first);
	OK(r, store_import_begin(r->store, "f", &o, second, REPORT(r)));
	FAILS(r, store_volume_show(r->store, first, &v, REPORT(r)), -ENOENT, "no volume");
	leave_open(r, second);
	began_before(r, second);
	OK(r, store_import_begin(r->store, "g", &o, first, REPORT(r)));
	FAILS(r, store_volume_show(r->store, second, &v, REPORT(r)), -ENOENT, "no volume");
	store_import_cancel(r->store, first);
	cr_assert_eq(prctl(PR_SET_NAME, "unit"), 0);
	OK(r, store_import_begin(r->store, "c", &o, first, REPORT(r)));
	OK(r, store_volume_rename(r->store, first, "kept", REPORT(r)));
	OK(r, store_import_begin(r->store, "d", &o, second, REPORT(r)));
	store_import_cancel(r->store, second);
	OK(r, store_volume_delete(r->store, longest, false, REPORT(r)));
	expect_volumes(r, "a b kept ");
	OK(r, store_volume_delete(r->store, "a", false, REPORT(r)));
	OK(r, store_volume_delete(r->store, "b", false, REPORT(r)));
	OK(r, store_volume_delete(r->store, "kept", false, REPORT(r)));
	expect_nothing_left(r);
	return 0;
}

Test(store, imports_appear_when_they_are_complete) { rig_test(body_imports); }

/* ---- many that wait ---- */

/* Deleted volumes that a clone keeps wait, by number; one that comes after all of them doesn't have to. */
static int body_many_wait(struct rig *r)
{
	enum { MANY = 66 };
	char name[32], snap[40], clone[40];
	uint64_t id;
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof name, "p%u", i);
		snprintf(snap, sizeof snap, "p%u@s", i);
		snprintf(clone, sizeof clone, "c%u", i);
		create(r, name, 1 << 20);
		snapshot(r, snap);
		OK(r, store_clone(r->store, snap, clone, REPORT(r)));
		OK(r, store_volume_delete(r->store, name, true, REPORT(r)));
	}
	create(r, "last", 1 << 20);
	OK(r, store_find_volume(r->store->places, "last", &id, REPORT(r)));
	OK(r, store_volume_delete(r->store, "last", false, REPORT(r)));
	struct meta_log *log = malloc(sizeof *log);
	cr_assert_eq(meta_get_log(r->store->catalog, id, log, NULL), -ENOENT, "it waits behind %d that wait for clones", MANY);
	free(log);
	return 0;
}

Test(store, one_that_can_go_does_not_wait_for_many) { rig_test(body_many_wait); }

/* Deleted snapshots that clones keep; more than one checkpoint drops. One that is younger than all of them doesn't wait for them. */
static int body_held_wait(struct rig *r)
{
	enum { MANY = 20 };
	char snap[32], clone[32];
	struct store_volume v;
	create(r, "v", BYTES);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(snap, sizeof snap, "v@s%u", i);
		snprintf(clone, sizeof clone, "c%u", i);
		snapshot(r, snap);
		OK(r, store_clone(r->store, snap, clone, REPORT(r)));
		OK(r, store_snapshot_delete(r->store, snap, REPORT(r)));
	}
	for (unsigned i = 0; i < 2; i++) {
		struct blk_node *n = attach(r, "v", false);
		fill(n, 0, 40 * 4096, (uint8_t)(i + 1));
		cr_assert_eq(blk_close(n), 0);
		if (i == 0)
			snapshot(r, "v@z");
	}
	OK(r, store_volume_show(r->store, "v", &v, REPORT(r)));
	cr_assert(v.snapshot_bytes >= 40 * 4096, "%llu", (unsigned long long)v.snapshot_bytes);
	OK(r, store_snapshot_delete(r->store, "v@z", REPORT(r)));
	OK(r, store_volume_show(r->store, "v", &v, REPORT(r)));
	cr_assert(v.snapshot_bytes < 10 * 4096, "it waits behind %d that wait for clones: %llu", MANY, (unsigned long long)v.snapshot_bytes);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(clone, sizeof clone, "c%u", i);
		OK(r, store_volume_delete(r->store, clone, false, REPORT(r)));
	}
	OK(r, store_volume_delete(r->store, "v", false, REPORT(r)));
	expect_nothing_left(r);
	return 0;
}

Test(store, a_snapshot_that_can_go_does_not_wait_for_many_that_clones_keep) { rig_test(body_held_wait); }
