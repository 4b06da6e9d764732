/* Block requests on a volume of the store: any size, offset and memory that the block interface allows. */
#include "parallax/volume/volume_node.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/drivers.h"
#include "core/fiber.h"
#include "parallax/store/store.h"
#include "tests/unit/blktest.h"
#include "tests/unit/tempdir.h"

enum { VOLUME_BYTES = 9 << 20 };

struct rig {
	struct env *env;
	char dir[64];
	struct blk_node *node;
	int (*body)(struct rig *r);
};

static int rig_run(void *arg)
{
	struct rig *r = arg;
	struct store *s;
	struct report report = { "" };
	struct store_options o = { .root = r->dir, .create = true };
	struct store_volume_options v = { .size_bytes = VOLUME_BYTES + 512 };
	cr_assert_eq(store_open(r->env, &o, &s, &report), 0, "%s", report.text);
	cr_assert_eq(store_volume_create(s, "v", &v, &report), 0, "%s", report.text);
	store_close(s);
	cr_assert_eq(blktest_open(r->env, &driver_volume, NULL, false, (const char *[]){ "v", NULL }, &r->node, &report), 0, "%s", report.text);
	int e = r->body(r);
	cr_assert_eq(blk_close(r->node), 0);
	return e;
}

static void rig_test(int (*body)(struct rig *r))
{
	struct rig r = { .dir = "/tmp/aqnode.XXXXXX", .body = body };
	cr_assert(mkdtemp(r.dir));
	blktest_root = r.dir;
	cr_assert_eq(env_linux_create(0, &r.env), 0);
	cr_assert_eq(env_linux_run_fiber(r.env, rig_run, &r), 0);
	env_linux_destroy(r.env);
	tempdir_remove(r.dir);
}

/* ---- a random user ---- */

static int body_random(struct rig *r)
{
	struct blktest t = { .seed = 11, .base = { 0, 1 << 20, VOLUME_BYTES + 512 - 128 * 512 }, .base_count = 3, .window = 128 * 512,
			     .slots = 16, .operations = 3000, .length_max = 70, .unaligned_memory = true };
	t.node = r->node;
	blktest_init(&t, 0);
	cr_assert_eq(blktest_run(&t), 0);
	cr_assert_eq(blktest_check(&t), 0);
	cr_assert_eq(t.errors, 0);
	blktest_free(&t);
	return 0;
}

Test(volume_node, random_user) { rig_test(body_random); }

/* ---- memory in pieces ---- */

static void pattern(uint8_t *b, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		b[i] = (uint8_t)(i * 31 + (i >> 8) * 7 + seed);
}

static int submit(struct rig *r, enum blk_op op, uint64_t at, const struct iovec *iov, int count, unsigned flags)
{
	struct blk_io io = { .op = op, .offset = at, .length = iov_bytes(iov, count), .iov = iov, .iov_count = count, .flags = flags };
	struct job j;
	job_init(&j, r->node->loop);
	blk_submit(r->node, &io, &j);
	return fiber_wait(&j);
}

/* `piece` bytes each, the last one shorter; pieces don't lie side by side. */
static int cut(uint8_t *b, size_t bytes, size_t piece, struct iovec *ret)
{
	int n = 0;
	for (size_t at = 0; at < bytes; at += piece, n++)
		ret[n] = (struct iovec){ b + at + (size_t)n * 3, MIN(piece, bytes - at) };
	return n;
}

static int body_pieces(struct rig *r)
{
	static const size_t pieces[] = { 1, 3, 40, 50, 100, 512, 700, 4096, 5000 };
	static const struct {
		uint64_t at;
		size_t bytes;
	} places[] = { { 0, 4096 }, { 512, 512 }, { 8192, 64 << 10 }, { 512 * 7, 40 * 512 }, { 100 * 4096 - 512, 1024 } };
	size_t room = 8 * (64 << 10);
	uint8_t *scattered = malloc(room), *flat = env_alloc_aligned(64 << 10), *want = malloc(64 << 10);
	struct iovec *iov = malloc((64 << 10) * sizeof *iov);
	for (unsigned p = 0; p < ARRAY_COUNT(pieces); p++)
		for (unsigned k = 0; k < ARRAY_COUNT(places); k++) {
			size_t bytes = places[k].bytes;
			int n = cut(scattered, bytes, pieces[p], iov);
			pattern(want, bytes, p * 10 + k);
			iov_scatter(iov, n, 0, want, bytes);
			cr_assert_eq(submit(r, BLK_WRITE, places[k].at, iov, n, 0), 0, "write: %zu in pieces of %zu", bytes, pieces[p]);
			cr_assert_eq(blk_read_wait(r->node, flat, bytes, places[k].at), 0);
			cr_assert_eq(memcmp(flat, want, bytes), 0, "write: %zu in pieces of %zu", bytes, pieces[p]);
			memset(scattered, 0, room);
			cr_assert_eq(submit(r, BLK_READ, places[k].at, iov, n, 0), 0, "read: %zu in pieces of %zu", bytes, pieces[p]);
			iov_gather(iov, n, 0, flat, bytes);
			cr_assert_eq(memcmp(flat, want, bytes), 0, "read: %zu in pieces of %zu", bytes, pieces[p]);
		}
	free(scattered);
	free(flat);
	free(want);
	free(iov);
	return 0;
}

/* Up to 65536 pieces of one byte. */
Test(volume_node, memory_in_pieces) { rig_test(body_pieces); }

/* A guest that goes on writing to the buffer it gave us: it may get anything in there, but never an error, and other blocks are
 * as they were. */
static int body_unstable(struct rig *r)
{
	enum { BYTES = 32 * 4096 };
	uint8_t *b = env_alloc_aligned(BYTES), *got = env_alloc_aligned(BYTES);
	for (unsigned round = 0; round < 40; round++) {
		struct iovec iov = { b, BYTES };
		struct blk_io io = { .op = BLK_WRITE, .length = BYTES, .iov = &iov, .iov_count = 1, .flags = BLK_UNSTABLE };
		struct job j;
		memset(b, (int)round, BYTES);
		job_init(&j, r->node->loop);
		blk_submit(r->node, &io, &j);
		for (unsigned i = 0; i < round; i++) {
			b[(i * 977) % BYTES] ^= 0xff; /* between the turns of the loop */
			fiber_sleep(r->node->loop, 1);
		}
		memset(b, 0xee, BYTES);
		cr_assert_eq(fiber_wait(&j), 0);
		cr_assert_eq(blk_read_wait(r->node, got, BYTES, 0), 0, "round %u: its checksum doesn't fit", round);
	}
	free(b);
	free(got);
	return 0;
}

Test(volume_node, unstable_memory) { rig_test(body_unstable); }

/* ---- zeroes and discards of parts ---- */

static int body_edges(struct rig *r)
{
	enum { BYTES = 12 * 4096 };
	uint8_t *model = malloc(BYTES), *got = env_alloc_aligned(BYTES), *b = env_alloc_aligned(BYTES);
	for (unsigned op = 0; op < 2; op++)
		for (unsigned first = 0; first < 20; first++)
			for (unsigned count = 1; count < 40; count += 3) {
				pattern(b, BYTES, first + count);
				memcpy(model, b, BYTES);
				cr_assert_eq(blk_write_wait(r->node, b, BYTES, 0, 0), 0);
				memset(model + first * 512, 0, count * 512);
				cr_assert_eq(blk_op_wait(r->node, op ? BLK_ZERO : BLK_DISCARD, first * 512, count * 512, op && count % 2 ? BLK_FUA : 0), 0);
				cr_assert_eq(blk_read_wait(r->node, got, BYTES, 0), 0);
				cr_assert_eq(memcmp(got, model, BYTES), 0, "%s of %u sectors at %u", op ? "zero" : "discard", count, first);
			}
	/* all there is, and the odd end of it */
	cr_assert_eq(blk_op_wait(r->node, BLK_DISCARD, 0, VOLUME_BYTES + 512, 0), 0);
	cr_assert_eq(blk_read_wait(r->node, got, BYTES, 0), 0);
	for (unsigned i = 0; i < BYTES; i++)
		cr_assert_eq(got[i], 0);
	pattern(b, 1024, 1);
	cr_assert_eq(blk_write_wait(r->node, b, 1024, VOLUME_BYTES - 512, 0), 0);
	cr_assert_eq(blk_op_wait(r->node, BLK_ZERO, VOLUME_BYTES, 512, 0), 0);
	cr_assert_eq(blk_read_wait(r->node, got, 1024, VOLUME_BYTES - 512), 0);
	memset(b + 512, 0, 512);
	cr_assert_eq(memcmp(got, b, 1024), 0);
	free(model);
	free(got);
	free(b);
	return 0;
}

Test(volume_node, zero_and_discard_parts) { rig_test(body_edges); }

/* ---- the map ---- */

static void expect_map(struct rig *r, uint64_t at, uint64_t length, unsigned max, const struct blk_extent *want, unsigned count)
{
	struct blk_extent extents[16];
	struct blk_map m = { .extents = extents, .max = max };
	cr_assert_eq(blk_map_wait(r->node, at, length, &m), 0);
	cr_assert_eq(m.count, count, "%u extents instead of %u", m.count, count);
	for (unsigned i = 0; i < count; i++)
		cr_assert(extents[i].length == want[i].length && extents[i].flags == want[i].flags, "extent %u: %llu %u", i,
			  (unsigned long long)extents[i].length, extents[i].flags);
}

static int body_map(struct rig *r)
{
	enum { HOLE = BLK_EXTENT_HOLE | BLK_EXTENT_ZERO };
	uint8_t *b = env_alloc_aligned(8192);
	pattern(b, 8192, 3);
	expect_map(r, 0, VOLUME_BYTES + 512, 16, (struct blk_extent[]){ { VOLUME_BYTES + 512, HOLE } }, 1);
	cr_assert_eq(blk_write_wait(r->node, b, 512, 4096 + 512, 0), 0);     /* block 1, in part */
	cr_assert_eq(blk_write_wait(r->node, b, 8192, 3000 * 512, 0), 0);    /* blocks 375 and 376 */
	expect_map(r, 0, 512 * 4096, 16,
		   (struct blk_extent[]){ { 4096, HOLE }, { 4096, 0 }, { 373 * 4096, HOLE }, { 8192, 0 }, { (512 - 377) * 4096, HOLE } }, 5);
	expect_map(r, 512, 4096 + 512, 16, (struct blk_extent[]){ { 3584, HOLE }, { 1024, 0 } }, 2);
	expect_map(r, 512, 4096 + 512, 1, (struct blk_extent[]){ { 3584, HOLE } }, 1); /* no room for more */
	expect_map(r, VOLUME_BYTES, 512, 16, (struct blk_extent[]){ { 512, HOLE } }, 1);
	cr_assert_eq(blk_op_wait(r->node, BLK_DISCARD, 4096, 4096, 0), 0);
	expect_map(r, 0, 16384, 16, (struct blk_extent[]){ { 16384, HOLE } }, 1);
	free(b);
	return 0;
}

Test(volume_node, map) { rig_test(body_map); }
