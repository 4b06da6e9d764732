/* Scrubbing a sealed copy on a simulated disk: each block that is flipped is found and mended, packed or not; nothing else is reported. */
#include "parallax/segment/segment_scrub.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "parallax/segment/segment_dir.h"
#include "parallax/volume/volume_private.h"
#include "tests/unit/volumetest.h"

static int body_write(void *arg)
{
	struct volume_rig *g = arg;
	int r = 0;
	for (unsigned b = 0; r == 0 && b < 60; b++) {
		memset(g->buffer, (int)(1 + b), BLOCK_BYTES);
		r = blk_write_wait(g->node, g->buffer, BLOCK_BYTES, b * BLOCK_BYTES, 0);
	}
	int closed = volume_rig_close(g);
	return r ? r : closed;
}

/* The directory, and the segment in it that has most. */
struct scrubbed {
	struct volume_rig *g;
	struct segment_server *dir;
	uint64_t segment;
	uint32_t length;
	char path[64];
};

static int note_segment(void *arg, uint64_t segment)
{
	struct scrubbed *s = arg;
	struct segment_io io = { .op = SEGMENT_STAT, .segment = segment };
	cr_assert_eq(segment_wait(s->dir, &io), 0);
	if (io.sealed && io.length > s->length) {
		s->segment = segment;
		s->length = io.length;
	}
	return 0;
}

/* Both ways say the same: how many are right, and the first that isn't (0: none). */
static int scrub(struct scrubbed *s, uint32_t *ret_right, uint32_t *ret_bad)
{
	struct scrub_slice a = { 0 }, b = { 0 };
	uint32_t from = 0;
	*ret_right = *ret_bad = 0;
	do {
		int r = segment_dir_scrub(s->dir, s->segment, from, NULL, &a), p = segment_path_scrub(s->g->env, VOLUME_RIG_DIR, s->segment, from, &b);
		cr_assert_eq(r, p, "%d, and by the path %d", r, p);
		if (r < 0)
			return r;
		cr_assert(a.next == b.next && a.blocks == b.blocks && a.bad == b.bad && a.bad_block == b.bad_block && a.bad_crc == b.bad_crc);
		cr_assert(a.next == 0 || a.next > from);
		*ret_right += a.blocks;
		if (a.bad && !*ret_bad)
			*ret_bad = a.bad_block;
		from = a.next;
	} while (from);
	return 0;
}

static bool is_free(struct scrubbed *s, uint32_t block)
{
	uint8_t bits[SEGMENT_BITMAP_BYTES];
	struct segment_io io = { .op = SEGMENT_STAT, .segment = s->segment, .free_bits = bits };
	cr_assert_eq(segment_wait(s->dir, &io), 0);
	return bit_get(bits, block);
}

/* Every place in the file where blocks are, once. */
static void flip_each(struct scrubbed *s, uint64_t base, uint32_t places, uint32_t expect)
{
	uint32_t right, bad, found = 0;
	uint8_t *page = env_alloc_aligned(BLOCK_BYTES), *wrong = env_alloc_aligned(BLOCK_BYTES);
	memset(wrong, 0x5a, BLOCK_BYTES);
	for (uint32_t place = 0; place < places; place++) {
		uint64_t offset = base + (uint64_t)place * BLOCK_BYTES;
		cr_assert_eq(sim_disk_read(s->g->host, s->path, offset, page, BLOCK_BYTES), 0);
		cr_assert_eq(sim_disk_flip(s->g->host, s->path, offset + 17, 4), 0);
		cr_assert_eq(scrub(s, &right, &bad), 0);
		if (right == expect) { /* it is free, and nobody looks at it; or block 0, which is reported as the first that is right */
			cr_assert_eq(sim_disk_flip(s->g->host, s->path, offset + 17, 4), 0);
			continue;
		}
		cr_assert_eq(right, expect - 1, "place %u", place);
		cr_assert(!is_free(s, bad));
		found++;
		cr_assert_eq(segment_dir_mend(s->dir, s->segment, bad, wrong), -EBADMSG);
		cr_assert_eq(segment_dir_mend(s->dir, s->segment, bad, page), 0, "place %u", place);
		cr_assert_eq(scrub(s, &right, &bad), 0);
		cr_assert(right == expect && bad == 0, "place %u: %u, %u", place, right, bad);
	}
	cr_assert_eq(found, expect);
	free(page);
	free(wrong);
}

/* Of a newer version, whichever of the slots is: it isn't damaged, and isn't judged by what the other slot says. */
static void newer_slots(struct scrubbed *s)
{
	enum { SLOT_CRC = 508 };
	uint8_t was[BLOCK_BYTES], newer[BLOCK_BYTES];
	struct scrub_slice slice;
	for (unsigned i = 0; i < SLOT_COUNT; i++) {
		cr_assert_eq(sim_disk_read(s->g->host, s->path, (uint64_t)i * BLOCK_BYTES, was, sizeof was), 0);
		memcpy(newer, was, sizeof newer);
		put_le32(newer + 8, DIR_VERSION + 1);
		put_le32(newer + SLOT_CRC, crc32c(0, newer, SLOT_CRC));
		cr_assert_eq(sim_disk_write(s->g->host, s->path, (uint64_t)i * BLOCK_BYTES, newer, sizeof newer), 0);
		cr_assert_eq(segment_path_scrub(s->g->env, VOLUME_RIG_DIR, s->segment, 0, &slice), -EPROTONOSUPPORT, "slot %u", i);
		cr_assert_eq(sim_disk_write(s->g->host, s->path, (uint64_t)i * BLOCK_BYTES, was, sizeof was), 0);
	}
}

static void reopen(struct scrubbed *s)
{
	struct segment_dir_options o = { 0 };
	if (s->dir)
		cr_assert_eq(segment_server_close(s->dir), 0);
	cr_assert_eq(segment_dir_open(s->g->env, VOLUME_RIG_DIR, s->g->places.catalog, &o, &s->dir, &s->g->report), 0, "%s", s->g->report.text);
}

static void without_map(struct scrubbed *s)
{
	uint32_t right, bad;
	uint8_t bits[SEGMENT_BITMAP_BYTES] = { 0x10 }, *page = env_alloc_aligned(BLOCK_BYTES);
	struct iovec v = { page, BLOCK_BYTES };
	reopen(s);
	cr_assert_eq(sim_disk_flip(s->g->host, s->path, MAP_BASE + 40, 1), 0);
	reopen(s);
	struct segment_io io = { .op = SEGMENT_STAT, .segment = s->segment };
	cr_assert_eq(segment_wait(s->dir, &io), 0);
	cr_assert(io.sealed && io.state == COPY_BROKEN);
	io = (struct segment_io){ .op = SEGMENT_READ, .segment = s->segment, .block = 1, .blocks = 1, .iov = &v, .iov_count = 1 };
	cr_assert_eq(segment_wait(s->dir, &io), -EIO);
	io = (struct segment_io){ .op = SEGMENT_TRIM, .segment = s->segment, .blocks = s->length, .trim = bits, .pack = true };
	cr_assert_eq(segment_wait(s->dir, &io), 0);
	cr_assert_eq(scrub(s, &right, &bad), -EBADMSG);
	cr_assert_eq(sim_disk_flip(s->g->host, s->path, MAP_BASE + 40, 1), 0);
	reopen(s);
	cr_assert_eq(scrub(s, &right, &bad), 0, "what was done meanwhile has damaged it");
	cr_assert_eq(bad, 0);
	free(page);
}

static int body_scrub(void *arg)
{
	struct scrubbed s = { .g = arg };
	struct volume_rig *g = s.g;
	uint32_t right, bad, free_count = 0;
	reopen(&s);
	cr_assert_eq(segment_dir_ids(s.dir, note_segment, &s), 0);
	cr_assert_gt(s.length, 60);
	snprintf(s.path, sizeof s.path, VOLUME_RIG_DIR "/segments/%02x/%012" PRIx64 ".seg", (unsigned)(s.segment & 0xff), s.segment);
	for (uint32_t b = 0; b < s.length; b++)
		free_count += is_free(&s, b);
	cr_assert_eq(scrub(&s, &right, &bad), 0);
	cr_assert(right == s.length - free_count && bad == 0, "%u of %u, %u free, %u is bad", right, s.length, free_count, bad);
	newer_slots(&s);
	flip_each(&s, COPY_BASE, s.length, right);

	/* packed: every third block is free */
	uint8_t bits[SEGMENT_BITMAP_BYTES] = { 0 };
	for (uint32_t b = 3; b < s.length; b += 3)
		bit_set(bits, b);
	struct segment_io io = { .op = SEGMENT_TRIM, .segment = s.segment, .blocks = s.length, .trim = bits, .pack = true };
	cr_assert_eq(segment_wait(s.dir, &io), 0);
	cr_assert_eq(scrub(&s, &right, &bad), 0);
	cr_assert(right == s.length - io.trimmed && bad == 0);
	flip_each(&s, PACK_BASE, right, right);

	/* of another volume nothing is read */
	struct scrub_slice slice;
	cr_assert_eq(segment_dir_scrub(s.dir, s.segment, 0, &(uuid){ "another one" }, &slice), -EXDEV);

	/* the map: nothing can be found, and the copy can be told for what it is, and given up */
	without_map(&s);

	/* the footer: then nothing can be verified, and the copy can be given up */
	uint64_t footer = PACK_BASE + (uint64_t)right * BLOCK_BYTES;
	cr_assert_eq(sim_disk_flip(g->host, s.path, footer + 100, 1), 0);
	cr_assert_eq(scrub(&s, &right, &bad), -EBADMSG);
	cr_assert_eq(segment_dir_scrub(s.dir, s.segment, 0, &(uuid){ "another one" }, &slice), -EXDEV, "another volume's is given up");
	cr_assert_eq(segment_dir_give_up(s.dir, s.segment), 0);
	cr_assert_eq(scrub(&s, &right, &bad), -ENOENT);
	io = (struct segment_io){ .op = SEGMENT_STAT, .segment = s.segment };
	cr_assert_eq(segment_wait(s.dir, &io), 0);
	cr_assert_eq(io.state, COPY_BROKEN);
	return segment_server_close(s.dir);
}

Test(segment_scrub, what_is_flipped_is_found_and_mended)
{
	struct volume_rig *g = volume_rig_make(6, 256 * BLOCK_BYTES);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_write), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_scrub), 0);
	volume_rig_free(g);
}
