/* The radix tree against an array: random changes, freezes, versions written to a fake log in order, failures on the way,
 * a cache of next to nothing, and growing. */
#include "parallax/map/tree.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"

enum { BLOCKS = 70000, PAGES_MAX = 20000, VERSIONS = 6 };

struct frozen {
	struct tree_version version;
	uint32_t *blocks;      /* what it shows */
	bool written;
};

struct rig {
	struct env env;
	struct tree tree;
	uint8_t (*pages)[BLOCK_BYTES]; /* the log: position n is page n */
	bool *live;                    /* written and not replaced since */
	uint64_t next, loads, random;
	uint32_t *blocks;              /* what the tree should show: numbers, 0: hole */
	uint64_t size;
	struct frozen frozen[VERSIONS];
	unsigned versions;
	bool broken, runs_broken;      /* reads fail; those of several blocks do */
};

static uint64_t draw(struct rig *r, uint64_t below)
{
	r->random = r->random * 6364136223846793005u + 1442695040888963407u;
	return (r->random >> 33) % below;
}

static void rig_read(void *arg, const struct pointer *at, void *const *pages, unsigned count, struct job *parent)
{
	struct rig *r = arg;
	r->loads++;
	cr_assert(count >= 1 && count <= TREE_RUN_MAX);
	for (unsigned i = 0; i < count; i++) {
		cr_assert(at[i].position > 0 && at[i].position < r->next);
		cr_assert_eq(at[i].position, at[0].position + i);
		memcpy(pages[i], r->pages[at[i].position], BLOCK_BYTES);
	}
	job_hold(parent);
	job_put(parent, r->broken || (r->runs_broken && count > 1) ? -EIO : 0);
}

static void rig_make(struct rig *r, uint64_t seed, unsigned budget, uint64_t size)
{
	struct pointer hole = { 0 };
	*r = (struct rig){ .next = 1, .random = seed * 7919 + 3, .size = size };
	loop_init(&r->env.loop, &r->env);
	r->pages = malloc(PAGES_MAX * sizeof *r->pages);
	r->live = calloc(PAGES_MAX, sizeof *r->live);
	r->blocks = calloc(BLOCKS, sizeof *r->blocks);
	tree_init(&r->tree, &r->env, rig_read, r, &hole, 0, budget);
	cr_assert_eq(tree_grow(&r->tree, size), 0);
}

static void nothing(struct job *j) { (void)j; }

static int load(struct rig *r, const struct tree_need *need)
{
	struct job j;
	job_init(&j, &r->env.loop);
	tree_load(&r->tree, need, &j);
	job_then(&j, nothing);
	loop_run_ready(&r->env.loop);
	return j.status;
}

static void set(struct rig *r, uint64_t block, uint32_t value)
{
	struct tree_node *leaf;
	struct tree_need need;
	int e;
	while ((e = tree_leaf_write(&r->tree, block, &leaf, &need)) == -EAGAIN)
		cr_assert_eq(load(r, &need), 0);
	cr_assert_eq(e, 0);
	leaf->slots[tree_slot(block)] = (struct pointer){ value, value * 31, 0 };
	r->blocks[block] = value;
}

static uint32_t get(struct rig *r, uint64_t block, uint64_t *ret_span)
{
	struct tree_node *leaf;
	struct tree_need need;
	int e;
	while ((e = tree_leaf_read(&r->tree, block, &leaf, ret_span, &need)) == -EAGAIN)
		cr_assert_eq(load(r, &need), 0);
	cr_assert_eq(e, 0);
	return leaf ? (uint32_t)leaf->slots[tree_slot(block)].position : 0;
}

static void check(struct rig *r)
{
	uint64_t span;
	for (uint64_t b = 0; b < r->size; b++) {
		uint32_t got = get(r, b, &span);
		cr_assert_eq(got, r->blocks[b], "block %llu: %u, %u was written", (unsigned long long)b, got, r->blocks[b]);
		cr_assert_geq(span, 1);
	}
}

static void freeze(struct rig *r)
{
	struct frozen *f = &r->frozen[r->versions++];
	tree_freeze(&r->tree, &f->version);
	f->written = false;
	f->blocks = malloc(BLOCKS * sizeof *f->blocks);
	memcpy(f->blocks, r->blocks, BLOCKS * sizeof *f->blocks);
}

/* Writes the version's nodes, at most `count`: false if that wasn't all. */
static bool write_version(struct rig *r, struct frozen *f, unsigned count)
{
	struct tree_batch b;
	cr_assert_eq(tree_collect(&r->tree, &f->version, &b), 0);
	unsigned n = MIN(b.count, count);
	bool all = n == b.count;
	for (unsigned i = 0; i < n; i++) {
		struct pointer at = { 0 }, replaced;
		if (!tree_resolve(&r->tree, b.nodes[i])) {
			cr_assert_lt(r->next, PAGES_MAX);
			at.position = r->next++;
			memcpy(r->pages[at.position], b.nodes[i]->slots, BLOCK_BYTES);
			r->live[at.position] = true;
		}
		tree_written(&r->tree, b.nodes[i], &at, &replaced);
		if (replaced.position) {
			cr_assert(r->live[replaced.position], "node %llu is replaced twice", (unsigned long long)replaced.position);
			r->live[replaced.position] = false;
		}
	}
	tree_batch_release(&r->tree, &b);
	f->written = all;
	return all;
}

/* What a pointer on disk shows; notes the nodes. */
static void walk(struct rig *r, struct pointer at, uint32_t level, uint64_t first, const uint32_t *want, bool *seen)
{
	uint64_t covers = UINT64_C(1) << (8 * (level + 1));
	if (at.position == 0) {
		for (uint64_t b = first; b < MIN(first + covers, (uint64_t)BLOCKS); b++)
			cr_assert_eq(want[b], 0, "block %llu is a hole on disk", (unsigned long long)b);
		return;
	}
	if (seen)
		seen[at.position] = true;
	const uint8_t *page = r->pages[at.position];
	for (unsigned i = 0; i < NODE_FANOUT; i++) {
		struct pointer p = pointer_decode(page + i * 16);
		uint64_t block = first + i * (covers / 256);
		cr_assert_eq(p.flags, 0, "a pointer into memory on disk");
		if (level > 0)
			walk(r, p, level - 1, block, want, seen);
		else if (block < BLOCKS)
			cr_assert_eq(p.position, want[block]);
	}
}

/* The nodes that were written and not replaced are those that the newest version reaches: no more, no less. */
static void check_disk(struct rig *r, const struct frozen *f)
{
	bool *seen = calloc(PAGES_MAX, sizeof *seen);
	walk(r, tree_version_root(&f->version), f->version.level, 0, f->blocks, seen);
	for (uint64_t p = 1; p < r->next; p++)
		cr_assert_eq(r->live[p], seen[p], "node %llu: %s", (unsigned long long)p, seen[p] ? "was given up" : "is left over");
	free(seen);
}

static void release_oldest(struct rig *r)
{
	tree_version_release(&r->tree, &r->frozen[0].version);
	free(r->frozen[0].blocks);
	memmove(&r->frozen[0], &r->frozen[1], (r->versions - 1) * sizeof r->frozen[0]);
	r->versions--;
}

static void change_some(struct rig *r, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		uint64_t b = draw(r, 2) ? draw(r, r->size) : draw(r, MIN(r->size, UINT64_C(600)));
		set(r, b, draw(r, 4) ? (uint32_t)draw(r, 1 << 30) + 1 : 0);
	}
	if (draw(r, 6) == 0) /* a whole leaf becomes empty */
		for (uint64_t first = draw(r, r->size / 256) * 256, i = 0; i < 256; i++)
			set(r, first + i, 0);
}

static void rig_free(struct rig *r)
{
	while (r->versions)
		release_oldest(r);
	tree_destroy(&r->tree);
	free(r->pages);
	free(r->live);
	free(r->blocks);
}

/* Writes all versions, oldest first, now and then giving up half way and beginning again later. */
static bool write_all(struct rig *r)
{
	for (unsigned i = 0; i < r->versions; i++)
		if (!write_version(r, &r->frozen[i], draw(r, 3) ? UINT32_MAX : (unsigned)draw(r, 30)))
			return false;
	return true;
}

Test(tree, shows_what_an_array_shows)
{
	for (uint64_t seed = 1; seed <= 6; seed++) {
		struct rig r;
		rig_make(&r, seed, 16, 20000);
		for (unsigned round = 0; round < 25; round++) {
			change_some(&r, (unsigned)draw(&r, 200));
			if (round == 12) {
				r.size = BLOCKS; /* another level */
				cr_assert_eq(tree_grow(&r.tree, r.size), 0);
			}
			if (r.versions == VERSIONS - 1)
				continue;
			freeze(&r);
			change_some(&r, (unsigned)draw(&r, 100)); /* while it is being written */
			if (!write_all(&r))
				continue;
			for (unsigned i = 0; i < r.versions; i++)
				walk(&r, tree_version_root(&r.frozen[i].version), r.frozen[i].version.level, 0, r.frozen[i].blocks, NULL);
			check_disk(&r, &r.frozen[r.versions - 1]);
			while (r.versions > 0)
				release_oldest(&r);
			if (round % 8 == 0)
				check(&r);
		}
		check(&r);
		cr_assert_gt(r.loads, 0);
		rig_free(&r);
	}
}

Test(tree, memory_stays_within_its_budget)
{
	struct rig r;
	rig_make(&r, 3, 20, BLOCKS);
	for (uint64_t b = 0; b < BLOCKS; b += 100)
		set(&r, b, (uint32_t)b + 1);
	cr_assert_gt(r.tree.node_count, 20); /* dirty ones can't be given up */
	freeze(&r);
	cr_assert(write_all(&r) || write_all(&r) || write_version(&r, &r.frozen[0], UINT32_MAX));
	cr_assert_eq(r.tree.dirty_count, 0);
	release_oldest(&r);
	uint64_t span;
	for (uint64_t b = 0; b < BLOCKS; b += 100)
		cr_assert_eq(get(&r, b, &span), b + 1);
	cr_assert_leq(r.tree.node_count, 20 + 8); /* 8: see PATH_NODES */
	rig_free(&r);
}

/* The same under changes that go on while each version is written: what was written is given up in the end. */
Test(tree, memory_stays_within_its_budget_under_load)
{
	struct rig r;
	rig_make(&r, 13, 40, BLOCKS);
	unsigned most = 0;
	for (unsigned round = 0; round < 60; round++) {
		for (unsigned i = 0; i < 8; i++)
			set(&r, draw(&r, BLOCKS), round + 1);
		freeze(&r);
		for (unsigned i = 0; i < 8; i++)
			set(&r, draw(&r, BLOCKS), round + 1);
		cr_assert(write_version(&r, &r.frozen[0], UINT32_MAX));
		release_oldest(&r);
		most = MAX(most, r.tree.node_count);
	}
	cr_assert_leq(most, 40 + 30, "%u nodes, 40 is the budget and some 20 are dirty at a time", most);
	check(&r);
	rig_free(&r);
}

/* A map that has room is in memory: what was replaced on disk is asked for by nobody, and takes no room from what is. */
Test(tree, what_was_replaced_is_given_up_first)
{
	enum { LEAVES = 50, BUDGET = 64, CHANGES = 4 };
	struct rig r;
	rig_make(&r, 17, BUDGET, BLOCKS);
	uint64_t before = 0;
	for (unsigned round = 0; round < 300; round++) {
		if (round == 50)
			before = r.loads;
		for (unsigned i = 0; i < CHANGES; i++)
			set(&r, draw(&r, LEAVES * NODE_FANOUT), round + 1);
		freeze(&r);
		for (unsigned i = 0; i < CHANGES; i++)
			set(&r, draw(&r, LEAVES * NODE_FANOUT), round + 1);
		cr_assert(write_version(&r, &r.frozen[0], UINT32_MAX));
		release_oldest(&r);
	}
	cr_assert_eq(r.loads, before, "%llu loads", (unsigned long long)(r.loads - before));
	rig_free(&r);
}

/* However many are dirty, a path can be followed. */
Test(tree, all_dirty_and_still_readable)
{
	struct rig r;
	rig_make(&r, 14, 16, BLOCKS);
	for (uint64_t b = 0; b < BLOCKS; b += 256)
		set(&r, b, 1);
	freeze(&r);
	cr_assert(write_version(&r, &r.frozen[0], UINT32_MAX));
	release_oldest(&r);
	for (uint64_t b = 0; b < BLOCKS / 2; b += 256)
		set(&r, b, 2);
	uint64_t span;
	for (uint64_t b = BLOCKS - 1; b > BLOCKS / 2; b -= 1000) {
		uint64_t before = r.loads;
		get(&r, b, &span);
		cr_assert_leq(r.loads - before, 4);
	}
	rig_free(&r);
}

Test(tree, holes_are_seen_whole)
{
	struct rig r;
	uint64_t span;
	rig_make(&r, 4, 64, BLOCKS);
	cr_assert_eq(get(&r, 10, &span), 0);
	cr_assert_geq(span, BLOCKS - 10);
	set(&r, 300, 7);
	cr_assert_eq(get(&r, 0, &span), 0);
	cr_assert_eq(span, 256);
	cr_assert_eq(get(&r, 299, &span), 0);
	cr_assert_eq(span, 512 - 299);
	cr_assert_eq(get(&r, 300, &span), 7);
	rig_free(&r);
}

/* A node that can't be read fails those who wait for it; later it can be read again. */
Test(tree, a_failed_load_is_forgotten)
{
	struct rig r;
	uint64_t span;
	rig_make(&r, 5, 16, BLOCKS);
	for (uint64_t b = 0; b < BLOCKS; b += 256)
		set(&r, b, 9);
	freeze(&r);
	cr_assert(write_version(&r, &r.frozen[0], UINT32_MAX));
	release_oldest(&r);
	for (uint64_t b = 0; b < BLOCKS; b += 256) /* the first ones are no longer in memory */
		get(&r, b, &span);
	struct tree_node *leaf;
	struct tree_need need;
	cr_assert_eq(tree_leaf_read(&r.tree, 0, &leaf, &span, &need), -EAGAIN);
	r.broken = true;
	unsigned before = r.tree.node_count;
	cr_assert_eq(load(&r, &need), -EIO);
	cr_assert_leq(r.tree.node_count, before);
	cr_assert_eq(tree_leaf_read(&r.tree, 0, &leaf, &span, &need), -EAGAIN);
	r.broken = false;
	check(&r);
	rig_free(&r);
}

/* A tree of which nothing is in memory, as what `r` has written shows it: every leaf has something, and they lie in order. */
static void reopen(struct rig *r, struct rig *other, unsigned budget)
{
	for (uint64_t b = 0; b < r->size; b += 256)
		set(r, b, (uint32_t)b + 1);
	freeze(r);
	cr_assert(write_version(r, &r->frozen[0], UINT32_MAX));
	struct pointer root = tree_version_root(&r->frozen[0].version);
	*other = *r;
	other->loads = other->versions = 0;
	loop_init(&other->env.loop, &other->env);
	tree_init(&other->tree, &other->env, rig_read, other, &root, r->frozen[0].version.level, budget);
}

Test(tree, neighbours_on_disk_come_with_a_leaf)
{
	struct rig r, other;
	rig_make(&r, 7, 1024, BLOCKS);
	reopen(&r, &other, 2048);
	check(&other);
	cr_assert_lt(other.loads, 20, "%llu reads for 274 leaves", (unsigned long long)other.loads);
	cr_assert_eq(other.tree.runs, 0);
	tree_destroy(&other.tree);
	rig_free(&r);
}

/* Only what may be needed: not where they would displace something. */
Test(tree, neighbours_take_half_of_the_budget_at_most)
{
	struct rig r, other;
	uint64_t span;
	rig_make(&r, 8, 1024, BLOCKS);
	reopen(&r, &other, 400);
	for (uint64_t b = 0; b < BLOCKS && other.tree.node_count < 200; b += 256)
		get(&other, b, &span);
	cr_assert_leq(other.tree.node_count, 200);
	uint64_t before = other.loads;
	for (uint64_t b = BLOCKS - 1; b > BLOCKS - 5000; b -= 256)
		get(&other, b, &span);
	cr_assert_geq(other.loads - before, 15, "some came with others");
	tree_destroy(&other.tree);
	rig_free(&r);
}

/* Who came to wait for one of them gets it if it can be read, though others of the run can't. */
Test(tree, a_run_that_fails_fails_nobody)
{
	struct rig r, other;
	uint64_t span;
	struct tree_node *leaf;
	struct tree_need need[2];
	struct job j[2];
	rig_make(&r, 9, 1024, BLOCKS);
	reopen(&r, &other, 2048);
	other.runs_broken = true;
	cr_assert_eq(tree_leaf_read(&other.tree, 2560, &leaf, &span, &need[0]), -EAGAIN);
	while (need[0].level > 0) {
		cr_assert_eq(load(&other, &need[0]), 0);
		cr_assert_eq(tree_leaf_read(&other.tree, 2560, &leaf, &span, &need[0]), -EAGAIN);
	}
	for (unsigned i = 0; i < 2; i++) {
		job_init(&j[i], &other.env.loop);
		if (i == 1)
			cr_assert_eq(tree_leaf_read(&other.tree, 2560 + 256, &leaf, &span, &need[1]), -EAGAIN);
		tree_load(&other.tree, &need[i], &j[i]);
		job_then(&j[i], nothing);
	}
	uint64_t before = other.loads;
	loop_run_ready(&other.env.loop);
	cr_assert_eq(j[0].status, 0);
	cr_assert_eq(j[1].status, 0);
	cr_assert_eq(other.loads - before, 1, "only what somebody waits for is read again");
	cr_assert_eq(tree_leaf_read(&other.tree, 2560 + 256, &leaf, &span, &need[1]), 0);
	cr_assert_eq(leaf->slots[0].position, 2560 + 256 + 1);
	cr_assert_eq(tree_leaf_read(&other.tree, 2560 + 512, &leaf, &span, &need[1]), -EAGAIN, "forgotten");
	cr_assert_null(other.tree.loads);
	tree_destroy(&other.tree);
	rig_free(&r);
}

/* What lies on the disk where a node should be, with pointers that can't be. */
Test(tree, a_node_with_flags_is_refused)
{
	struct rig r;
	uint64_t span;
	struct tree_node *leaf;
	struct tree_need need;
	rig_make(&r, 6, 16, 5000);
	set(&r, 0, 1);
	freeze(&r);
	cr_assert(write_version(&r, &r.frozen[0], UINT32_MAX));
	struct pointer root = tree_version_root(&r.frozen[0].version);
	put_le32(r.pages[root.position] + 12, SLOT_MEMORY);
	struct tree other;
	tree_init(&other, &r.env, rig_read, &r, &root, r.frozen[0].version.level, 16);
	cr_assert_eq(tree_leaf_read(&other, 0, &leaf, &span, &need), -EAGAIN);
	struct job j;
	job_init(&j, &r.env.loop);
	tree_load(&other, &need, &j);
	job_then(&j, nothing);
	loop_run_ready(&r.env.loop);
	cr_assert_eq(j.status, -EIO);
	tree_destroy(&other);
	rig_free(&r);
}

Test(tree, levels)
{
	cr_assert_eq(tree_level_for(1), 0);
	cr_assert_eq(tree_level_for(256), 0);
	cr_assert_eq(tree_level_for(257), 1);
	cr_assert_eq(tree_level_for(65536), 1);
	cr_assert_eq(tree_level_for(65537), 2);
	cr_assert_eq(tree_level_for(UINT64_C(1) << 34), 4); /* 64 TiB */
}
