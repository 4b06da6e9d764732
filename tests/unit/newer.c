/* What a newer program wrote, met by this one: it is refused by name, never taken for damage, and not a byte of it is changed, so that the
 * newer program finds everything when it is back. (Newer bytes are made of ours: the version is raised, and what covers it is sealed again.) */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/segment/segment_dir.h"
#include "parallax/segment/segment_scrub.h"
#include "parallax/segment/segment_share.h"
#include "tests/unit/volumetest.h"

enum { BLOCKS = 256 };
#define FILE_BYTES (COPY_BASE + (uint64_t)BLOCKS * BLOCK_BYTES)

/* ---- newer bytes ---- */

static void newer_record(uint8_t *b)
{
	put_le16(b + 8, FORMAT_VERSION + 1);
	put_le32(b + 4, 0);
	put_le32(b + 4, crc32c(0, b, (size_t)get_le32(b + 12) * BLOCK_BYTES));
}

static void newer_slot(uint8_t *b)
{
	put_le32(b + 8, DIR_VERSION + 1);
	put_le32(b + 508, crc32c(0, b, 508));
}

static void newer_map(uint8_t *b)
{
	put_le32(b + 8, DIR_VERSION + 1);
	put_le32(b + BLOCK_BYTES - 4, crc32c(0, b, BLOCK_BYTES - 4));
}

static void newer_footer(uint8_t *b)
{
	put_le32(b + 8, FORMAT_VERSION + 1);
	put_le32(b + 28, crc32c(crc32c(0, b, 28), b + 32, BLOCK_BYTES - 32));
}

/* ---- a volume ---- */

struct records {
	char path[64];
	uint32_t block[32]; /* of each */
	unsigned count;
};

static void records_path(struct records *l, uint64_t segment)
{
	snprintf(l->path, sizeof l->path, VOLUME_RIG_DIR "/segments/%02x/%012" PRIx64 ".seg", (unsigned)(segment & 0xff), segment);
}

/* The records of the volume's log, all in one segment. */
static struct records find_records(struct volume_rig *g, uint8_t *bytes)
{
	struct records l = { .count = 0 };
	struct segment_header h;
	struct record r;
	for (uint64_t id = 1; id < 16 && l.count == 0; id++) {
		records_path(&l, id);
		if (sim_disk_read(g->host, l.path, 0, bytes, FILE_BYTES) < 0 || segment_header_decode(bytes + COPY_BASE, &h) < 0)
			continue;
		for (uint32_t b = 1; b < BLOCKS && l.count < ARRAY_COUNT(l.block); b += record_blocks(&r)) {
			if (record_decode(bytes + COPY_BASE + (size_t)b * BLOCK_BYTES, (size_t)(BLOCKS - b) * BLOCK_BYTES, &h, b, &r) < 0)
				break;
			l.block[l.count++] = b;
		}
	}
	cr_assert_geq(l.count, VOLUME_RIG_WRITES);
	return l;
}

/* However the process before it ended: also by a power loss, after which a torn end is cut off. */
static void end_and_begin(struct volume_rig *g, bool power)
{
	if (power)
		sim_power_loss(g->host);
	volume_rig_kill(g);
	volume_rig_begin(g);
}

Test(newer, a_record_in_the_log_is_no_torn_end_of_it)
{
	struct volume_rig *g = volume_rig_make(1, 1 << 20);
	uint8_t *before = malloc(FILE_BYTES), *after = malloc(FILE_BYTES), record[BLOCK_BYTES], newer[BLOCK_BYTES];
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, volume_rig_write), 0);
	end_and_begin(g, false);
	struct records l = find_records(g, before);
	for (unsigned i = 0; i < l.count; i++) {
		uint64_t at = COPY_BASE + (uint64_t)l.block[i] * BLOCK_BYTES;
		cr_assert_eq(sim_disk_read(g->host, l.path, at, record, sizeof record), 0);
		memcpy(newer, record, sizeof newer);
		newer_record(newer);
		cr_assert_eq(sim_disk_write(g->host, l.path, at, newer, sizeof newer), 0);
		cr_assert_eq(sim_disk_read(g->host, l.path, 0, before, FILE_BYTES), 0);
		for (unsigned how = 0; how < 3; how++) {
			cr_assert_eq(volume_rig_open(g), -EPROTONOSUPPORT, "record %u: %s", i, g->report.text);
			cr_assert(strstr(g->report.text, "newer version") && strstr(g->report.text, "upgrade this program"), "%s", g->report.text);
			end_and_begin(g, how == 1);
			cr_assert_eq(sim_disk_read(g->host, l.path, 0, after, FILE_BYTES), 0);
			cr_assert_eq(memcmp(before + COPY_BASE, after + COPY_BASE, FILE_BYTES - COPY_BASE), 0, "record %u: it was changed", i);
		}
		cr_assert_eq(sim_disk_write(g->host, l.path, at, record, sizeof record), 0);
	}
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	volume_rig_run(g, volume_rig_check);
	volume_rig_free(g);
	free(before);
	free(after);
}

/* ---- the catalog's value of it ---- */

static int put_log(struct volume_rig *g, const uint8_t *bytes, size_t length)
{
	struct catalog_txn *t = malloc(sizeof *t);
	char key[META_KEY_BYTES];
	meta_key_log(1, key);
	catalog_txn_init(t);
	catalog_txn_put(t, key, bytes, length);
	int r = catalog_txn(g->places.catalog, t, NULL);
	free(t);
	return r;
}

static int body_newer_log(void *arg)
{
	struct volume_rig *g = arg;
	struct catalog_value v, now;
	char key[META_KEY_BYTES];
	meta_key_log(1, key);
	cr_assert_eq(catalog_get(g->places.catalog, key, &v), 0);
	uint8_t *newer = malloc(v.length);
	memcpy(newer, v.bytes, v.length);
	cr_assert(newer[0] == 0x08 && newer[1] == 1, "field 1, the version, comes first");
	newer[1] = 2;
	cr_assert_eq(put_log(g, newer, v.length), 0);
	struct meta_log *m = malloc(sizeof *m);
	cr_assert_eq(meta_get_log(g->places.catalog, 1, m, NULL), -EPROTONOSUPPORT);
	struct report report = { "" };
	cr_assert_eq(store_volume_delete(&g->store, "v", true, &report), -EPROTONOSUPPORT);
	cr_assert(strstr(report.text, "newer version"), "%s", report.text);
	store_reap(&g->store);
	cr_assert_eq(catalog_get(g->places.catalog, key, &now), 0);
	cr_assert(now.length == v.length && memcmp(now.bytes, newer, v.length) == 0, "it was changed");
	catalog_value_free(&now);
	cr_assert_eq(put_log(g, v.bytes, v.length), 0);
	catalog_value_free(&v);
	free(newer);
	free(m);
	return 0;
}

Test(newer, a_volume_in_the_catalog)
{
	struct volume_rig *g = volume_rig_make(2, 1 << 20);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, volume_rig_write), 0);
	end_and_begin(g, false);
	volume_rig_run(g, body_newer_log);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	volume_rig_run(g, volume_rig_check);
	volume_rig_free(g);
}

/* ---- copies ---- */

struct dir {
	struct volume_rig *g;
	struct segment_server *server;
	struct records l;
	uint32_t length, crc;
	uint8_t *before, *after;
};

static int op(struct dir *d, enum segment_op what, uint64_t segment, void *bytes, uint32_t blocks)
{
	static uint8_t bits[SEGMENT_BITMAP_BYTES];
	struct iovec v = { bytes, (size_t)blocks * BLOCK_BYTES };
	struct segment_io io = { .op = what, .segment = segment, .epoch = 7, .incarnation = d->server->incarnation, .iov = &v, .iov_count = 1,
				 .block = what == SEGMENT_READ ? 1 : d->length, .blocks = what == SEGMENT_TRIM ? BLOCKS : blocks, .crc = d->crc,
				 .trim = bits, .pack = true };
	memset(bits, 0, sizeof bits);
	if (what == SEGMENT_TRIM)
		bits[0] = 1 << 2;
	return segment_wait(d->server, &io);
}

static void op_create(struct dir *d, uint64_t segment)
{
	struct segment_io io = { .op = SEGMENT_CREATE, .segment = segment, .epoch = 7,
				 .header = { .segment = segment, .volume = { "v" }, .epoch = 7, .salt = 99, .size_blocks = BLOCKS } };
	cr_assert_eq(segment_wait(d->server, &io), 0);
	d->length = 1;
	d->crc = 0;
}

static void op_append(struct dir *d, uint64_t segment, uint64_t seq)
{
	uint8_t *bytes = env_alloc_aligned(3 * BLOCK_BYTES);
	memset(bytes, (int)seq, 3 * BLOCK_BYTES);
	uint32_t sum = crc32c(0, bytes + BLOCK_BYTES, BLOCK_BYTES), sums[2] = { sum, sum };
	struct record_entry e = { .first = seq, .count = 2 };
	struct record r = { .kind = RECORD_DATA, .segment = segment, .block = d->length, .epoch = 7, .seq = seq, .salt = 99, .prev = d->crc,
			    .payload_blocks = 2, .entry_count = 1, .entries = &e, .crcs = sums };
	record_encode(&r, bytes);
	cr_assert_eq(op(d, SEGMENT_APPEND, segment, bytes, 3), 0);
	d->length += 3;
	d->crc = r.header_crc;
	free(bytes);
}

static void dir_open_limited(struct dir *d, uint64_t size_limit)
{
	struct segment_dir_options o = { .create = true, .size_limit = size_limit };
	cr_assert_eq(env_mkdir(d->g->env, "/volumes"), 0);
	cr_assert_eq(segment_dir_open(d->g->env, VOLUME_RIG_DIR, d->g->places.catalog, &o, &d->server, &d->g->report), 0, "%s", d->g->report.text);
}

static void dir_open(struct dir *d) { dir_open_limited(d, 0); }

/* Another process of this program, which has looked at nothing yet. */
static void dir_reopen(struct dir *d)
{
	cr_assert_eq(segment_server_close(d->server), 0);
	dir_open(d);
}

/* With the block at `at` made newer by `raise`, those operations are refused, and from byte `from` on the file stays as it is. */
static void refused(struct dir *d, uint64_t segment, uint64_t at, void (*raise)(uint8_t *b), uint64_t from, const enum segment_op *ops)
{
	uint8_t was[BLOCK_BYTES], newer[BLOCK_BYTES], *room = env_alloc_aligned(RECORD_BYTES_MAX);
	records_path(&d->l, segment);
	struct sim_host *host = d->g->host;
	cr_assert_eq(sim_disk_read(host, d->l.path, at, was, sizeof was), 0);
	memcpy(newer, was, sizeof newer);
	raise(newer);
	cr_assert_eq(sim_disk_write(host, d->l.path, at, newer, sizeof newer), 0);
	memset(d->before, 0, FILE_BYTES);
	memset(d->after, 0, FILE_BYTES);
	sim_disk_read(host, d->l.path, 0, d->before, FILE_BYTES);
	dir_reopen(d);
	for (; *ops; ops++) {
		int r = op(d, *ops, segment, room, *ops == SEGMENT_READ || *ops == SEGMENT_REPAIR);
		cr_assert_eq(r, -EPROTONOSUPPORT, "operation %u: %d", (unsigned)*ops, r);
		sim_disk_read(host, d->l.path, 0, d->after, FILE_BYTES);
		cr_assert_eq(memcmp(d->before + from, d->after + from, FILE_BYTES - from), 0, "operation %u changed it", (unsigned)*ops);
	}
	cr_assert_eq(sim_disk_write(host, d->l.path, at, was, sizeof was), 0);
	dir_reopen(d);
	free(room);
}

static int body_copies(void *arg)
{
	struct dir d = { .g = arg, .before = malloc(FILE_BYTES), .after = malloc(FILE_BYTES) };
	static const enum segment_op all[] = { SEGMENT_READ, SEGMENT_STAT, SEGMENT_FENCE, SEGMENT_SYNC, SEGMENT_SEAL, SEGMENT_REPAIR, SEGMENT_TRIM,
					       SEGMENT_HOLDS, SEGMENT_DELETE, 0 };
	static const enum segment_op scanning[] = { SEGMENT_STAT, SEGMENT_FENCE, SEGMENT_SYNC, SEGMENT_SEAL, SEGMENT_REPAIR, SEGMENT_TRIM, 0 };
	static const enum segment_op packing[] = { SEGMENT_TRIM, 0 };
	struct scrub_slice slice;
	dir_open(&d);
	op_create(&d, 5);
	for (uint64_t seq = 1; seq <= 3; seq++)
		op_append(&d, 5, seq);
	uint32_t length = d.length, crc = d.crc;
	for (unsigned slot = 0; slot < SLOT_COUNT; slot++)
		refused(&d, 5, (uint64_t)slot * BLOCK_BYTES, newer_slot, 0, all);
	for (uint32_t block = 1; block < length; block += 3) /* a fence is written into the slot, and may be */
		refused(&d, 5, COPY_BASE + (uint64_t)block * BLOCK_BYTES, newer_record, COPY_BASE, scanning);
	d.length = length;
	d.crc = crc;
	cr_assert_eq(op(&d, SEGMENT_SEAL, 5, NULL, 0), 0);
	for (unsigned slot = 0; slot < SLOT_COUNT; slot++)
		refused(&d, 5, (uint64_t)slot * BLOCK_BYTES, newer_slot, 0, all);
	/* nor does a copy from elsewhere take its place */
	struct share_entry e = { .header = { .segment = 5, .volume = { "v" }, .epoch = 7, .salt = 99, .size_blocks = BLOCKS }, .sealed = true, .whole = true,
				 .length = length, .prev = crc };
	struct segment_install *install;
	cr_assert_eq(segment_dir_install_begin(d.server, &e, &install), -EEXIST);
	cr_assert_eq(sim_disk_read(d.g->host, d.l.path, 0, d.before, BLOCK_BYTES), 0);
	memcpy(d.after, d.before, BLOCK_BYTES);
	newer_slot(d.after);
	cr_assert_eq(sim_disk_write(d.g->host, d.l.path, 0, d.after, BLOCK_BYTES), 0);
	dir_reopen(&d);
	cr_assert_eq(segment_dir_install_begin(d.server, &e, &install), -EPROTONOSUPPORT);
	cr_assert_eq(sim_disk_write(d.g->host, d.l.path, 0, d.before, BLOCK_BYTES), 0);
	dir_reopen(&d);
	/* its footer: what would be a damaged copy's is given up where there is another */
	uint64_t footer = COPY_BASE + (uint64_t)length * BLOCK_BYTES;
	refused(&d, 5, footer, newer_footer, COPY_BASE, packing);
	cr_assert_eq(sim_disk_read(d.g->host, d.l.path, footer, d.before, BLOCK_BYTES), 0);
	newer_footer(d.before);
	cr_assert_eq(sim_disk_write(d.g->host, d.l.path, footer, d.before, BLOCK_BYTES), 0);
	cr_assert_eq(segment_dir_scrub(d.server, 5, 0, NULL, &slice), -EPROTONOSUPPORT);
	cr_assert_eq(segment_server_close(d.server), 0);
	free(d.before);
	free(d.after);
	return 0;
}

Test(newer, copies_and_what_is_in_them)
{
	struct volume_rig *g = volume_rig_make(3, 1 << 20);
	cr_assert_eq(volume_rig_run(g, body_copies), 0);
	volume_rig_free(g);
}

static int body_packed(void *arg)
{
	struct dir d = { .g = arg, .before = malloc(FILE_BYTES), .after = malloc(FILE_BYTES) };
	static const enum segment_op all[] = { SEGMENT_READ, SEGMENT_STAT, SEGMENT_TRIM, SEGMENT_DELETE, 0 };
	struct scrub_slice slice;
	dir_open(&d);
	op_create(&d, 5);
	for (uint64_t seq = 1; seq <= 3; seq++)
		op_append(&d, 5, seq);
	cr_assert_eq(op(&d, SEGMENT_FENCE, 5, NULL, 0), 0);
	cr_assert_eq(op(&d, SEGMENT_SEAL, 5, NULL, 0), 0);
	cr_assert_eq(op(&d, SEGMENT_TRIM, 5, NULL, 0), 0);
	refused(&d, 5, MAP_BASE, newer_map, 0, all);
	cr_assert_eq(sim_disk_read(d.g->host, d.l.path, MAP_BASE, d.before, BLOCK_BYTES), 0);
	newer_map(d.before);
	cr_assert_eq(sim_disk_write(d.g->host, d.l.path, MAP_BASE, d.before, BLOCK_BYTES), 0);
	cr_assert_eq(segment_path_scrub(d.g->env, VOLUME_RIG_DIR, 5, 0, &slice), -EPROTONOSUPPORT);
	cr_assert_eq(segment_server_close(d.server), 0);
	free(d.before);
	free(d.after);
	return 0;
}

Test(newer, the_map_of_a_packed_copy)
{
	struct volume_rig *g = volume_rig_make(4, 1 << 20);
	cr_assert_eq(volume_rig_run(g, body_packed), 0);
	volume_rig_free(g);
}

/* Each copy is looked at when the directory is opened: what one can't be counted by is no reason not to serve the others. */
static int body_limited(void *arg)
{
	struct dir d = { .g = arg };
	uint8_t slot[BLOCK_BYTES], *room = env_alloc_aligned(RECORD_BYTES_MAX);
	dir_open(&d);
	for (uint64_t segment = 5; segment <= 6; segment++) {
		op_create(&d, segment);
		op_append(&d, segment, 1);
	}
	cr_assert_eq(segment_server_close(d.server), 0);
	records_path(&d.l, 5);
	cr_assert_eq(sim_disk_read(d.g->host, d.l.path, 0, slot, sizeof slot), 0);
	newer_slot(slot);
	cr_assert_eq(sim_disk_write(d.g->host, d.l.path, 0, slot, sizeof slot), 0);
	dir_open_limited(&d, 8 << 20);
	cr_assert_eq(op(&d, SEGMENT_READ, 6, room, 1), 0);
	cr_assert_eq(op(&d, SEGMENT_READ, 5, room, 1), -EPROTONOSUPPORT);
	uint64_t each = (COPY_BASE / BLOCK_BYTES + BLOCKS) * BLOCK_BYTES, used = (8 << 20) - d.server->free_bytes;
	cr_assert(used > each && used <= 2 * each, "%llu are used", (unsigned long long)used);
	cr_assert_eq(segment_server_close(d.server), 0);
	free(room);
	return 0;
}

Test(newer, a_copy_in_a_limited_directory)
{
	struct volume_rig *g = volume_rig_make(5, 1 << 20);
	cr_assert_eq(volume_rig_run(g, body_limited), 0);
	volume_rig_free(g);
}
