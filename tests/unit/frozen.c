/* Every format's bytes, as they were frozen in tests/fixtures/: today's encoders still write them, and today's decoders read from them what
 * was meant. For each: encode(value) is the fixture, and encode(decode(fixture)) is, too. What a program does not write any more but reads
 * (the space table's version 1) is there as well. Bytes that change need a new version: docs/formats/versions.md. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/components/cow_format.h"
#include "agent/daemon/state.h"
#include "core/bytes.h"
#include "parallax/access/access.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/catalog/meta.h"
#include "parallax/map/space.h"
#include "parallax/segment/placement.h"
#include "parallax/segment/segment_dir.h"
#include "parallax/segment/segment_share.h"
#include "parallax/segment/segment_wire.h"
#include "parallax/volume/volume_status.h"
#include "proto/frame.h"
#include "tests/unit/fixture.h"

/* ---- segments ---- */

static const struct segment_header home = { .segment = 0x123456789abc, .volume = { "volume's 16 byte" }, .epoch = 0x0102030405060708,
					    .salt = 0xf0e0d0c0b0a09080, .size_blocks = 0x4000 };

Test(frozen, segment_header)
{
	uint8_t b[BLOCK_BYTES];
	struct segment_header h;
	size_t n;
	segment_header_encode(&home, b);
	fixture_is("segment-header", b, sizeof b);
	uint8_t *f = fixture_load("segment-header", &n);
	cr_assert_eq(segment_header_decode(f, &h), 0);
	cr_assert(h.segment == home.segment && h.epoch == home.epoch && h.salt == home.salt && h.size_blocks == home.size_blocks &&
		  memcmp(h.volume.bytes, home.volume.bytes, 16) == 0);
	free(f);
}

/* Encodes what was decoded, with its entries and checksums as arrays. */
static void record_again(const struct record *from, uint8_t *to)
{
	struct record r = *from;
	struct record_entry entries[300];
	uint32_t crcs[2000];
	for (uint32_t i = 0; i < r.entry_count; i++)
		entries[i] = record_entry_at(from, i);
	for (uint32_t i = 0; i < r.payload_blocks; i++)
		crcs[i] = record_crc_at(from, i);
	r.entries = entries;
	r.crcs = crcs;
	record_encode(&r, to);
}

static void record_is(const char *name, struct record r)
{
	uint8_t b[3 * BLOCK_BYTES], again[3 * BLOCK_BYTES];
	uint32_t crcs[16];
	struct record got;
	size_t n;
	r.segment = home.segment;
	r.block = 0x321;
	r.epoch = home.epoch;
	r.salt = home.salt;
	r.seq = 0x1122334455;
	r.prev = 0xcafef00d;
	r.acked = 0x1122334450;
	r.synced = 0x1122334440;
	for (uint32_t i = 0; i < ARRAY_COUNT(crcs); i++)
		crcs[i] = 0x01010101 * (i + 1);
	r.crcs = crcs;
	record_encode(&r, b);
	fixture_is(name, b, (size_t)r.header_blocks * BLOCK_BYTES);
	uint8_t *f = fixture_load(name, &n);
	cr_assert_eq(record_decode(f, n, &home, 0x321, &got), 0);
	cr_assert(got.kind == r.kind && got.seq == r.seq && got.prev == r.prev && got.acked == r.acked && got.synced == r.synced && got.mark == r.mark &&
		  got.payload_blocks == r.payload_blocks && got.entry_count == r.entry_count && got.header_crc == r.header_crc);
	record_again(&got, again);
	cr_assert_eq(memcmp(again, f, n), 0);
	free(f);
}

Test(frozen, records)
{
	static const struct record_entry data[] = { { 0x123456, 3, 0 }, { (UINT64_C(1) << 40) - 1, 1, 0 } };
	static const struct record_entry nodes[] = { { 0, 1, 2 }, { 0x10000, 1, 0 } };
	struct record_entry many[300];
	for (uint32_t i = 0; i < ARRAY_COUNT(many); i++)
		many[i] = (struct record_entry){ i * 1000, i + 1, 0 };
	record_is("record-data", (struct record){ .kind = RECORD_DATA, .entries = data, .entry_count = 2, .payload_blocks = 4 });
	record_is("record-discard", (struct record){ .kind = RECORD_DISCARD, .entries = data, .entry_count = 2 });
	record_is("record-discard-long", (struct record){ .kind = RECORD_DISCARD, .entries = many, .entry_count = ARRAY_COUNT(many) });
	record_is("record-nodes", (struct record){ .kind = RECORD_NODES, .entries = nodes, .entry_count = 2, .payload_blocks = 2 });
	record_is("record-frees", (struct record){ .kind = RECORD_FREES, .payload_blocks = 1 });
	record_is("record-mark", (struct record){ .kind = RECORD_MARK });
	record_is("record-checkpoint", (struct record){ .kind = RECORD_CHECKPOINT, .payload_blocks = 16 });
}

Test(frozen, footer)
{
	struct segment_footer s = { .segment = home.segment, .length_blocks = 300, .prev = 0xcafef00d, .last_seq = 0x1122334455 }, got;
	uint32_t crcs[300], again[300];
	uint8_t b[BLOCK_BYTES];
	const uint8_t *there;
	size_t n;
	for (uint32_t i = 0; i < 300; i++)
		crcs[i] = i * 0x9e3779b9;
	segment_footer_encode(&s, crcs, b);
	fixture_is("footer", b, sizeof b);
	uint8_t *f = fixture_load("footer", &n);
	cr_assert_eq(segment_footer_decode(f, n, &got, &there), 0);
	for (uint32_t i = 0; i < 300; i++)
		again[i] = get_le32(there + 4 * i);
	segment_footer_encode(&got, again, b);
	cr_assert_eq(memcmp(b, f, n), 0);
	free(f);
}

/* A node is nothing but pointers. */
Test(frozen, node)
{
	uint8_t b[BLOCK_BYTES] = { 0 };
	size_t n;
	for (uint32_t i = 0; i < NODE_FANOUT; i += 5)
		pointer_encode(&(struct pointer){ position_make(home.segment, i + 1), 0x01020304 * i, 0 }, b + (size_t)i * 16);
	fixture_is("node", b, sizeof b);
	uint8_t *f = fixture_load("node", &n);
	for (uint32_t i = 0; i < NODE_FANOUT; i++) {
		struct pointer p = pointer_decode(f + (size_t)i * 16);
		cr_assert(i % 5 ? p.position == 0 && p.crc == 0 : position_segment(p.position) == home.segment && position_block(p.position) == i + 1 && p.crc == 0x01020304 * i);
		cr_assert_eq(p.flags, 0);
	}
	free(f);
}

/* ---- the space table ---- */

static uint8_t *put_segment(uint8_t *p, uint64_t id, uint32_t live, uint32_t blocks, uint32_t present, uint32_t frees)
{
	put_le64(p, id);
	put_le32(p + 8, live);
	put_le32(p + 12, blocks);
	put_le32(p + 16, present);
	put_le32(p + 20, frees);
	return p + 24;
}

static uint8_t *put_list(uint8_t *p, uint64_t seq, uint32_t chunks)
{
	put_le64(p, seq);
	put_le64(p + 8, position_make(7, (uint32_t)seq));
	put_le64(p + 16, position_make(8, (uint32_t)seq));
	put_le32(p + 24, chunks);
	return p + 32;
}

static uint8_t *put_chunk(uint8_t *p, uint32_t block, uint32_t count, uint32_t flags)
{
	put_le64(p, position_make(9, block));
	put_le32(p + 8, 0xabcd0000 + block);
	put_le32(p + 12, count);
	put_le64(p + 16, position_make(5, 1));
	put_le64(p + 24, position_make(6, 200));
	put_le32(p + 32, flags);
	return p + 40;
}

/* As docs/formats/store.md draws it. */
static size_t space_table(uint8_t *b, uint32_t version)
{
	uint8_t *p = b + 48;
	bool old = version == 1, index = version == 3;
	memcpy(b, "AQSPACE1", 8);
	put_le32(b + 8, version);
	put_le32(b + 12, 3);
	put_le32(b + 16, 2);
	put_le64(b + 24, 123456);
	put_le64(b + 32, 789);
	static const uint32_t frees[] = { 3, 0, UINT32_C(1) << 31 };
	for (uint32_t i = 0; i < 3; i++)
		p = put_segment(p, 5 + i, 100 + i, 256, old ? 0 : 200 + i, old ? 0 : frees[i]) - (old ? 8 : 0);
	p = put_list(p, 40, 3);
	p = put_chunk(p, 1, SPACE_CHUNK_ENTRIES, 0);
	p = put_chunk(p, 2, SPACE_CHUNK_ENTRIES, 1);
	p = put_chunk(p, 3, index ? 102 : SPACE_CHUNK_ENTRIES, index ? 2 : 0);
	if (index)
		put_le32(p - 4, 102 * SPACE_CHUNK_ENTRIES);
	p = put_list(p, 50, 0);
	if (old)
		return (size_t)(p - b);
	for (uint32_t i = 0; i < 3; i++, p += 2)
		put_le16(p, (uint16_t)(10 + i));
	for (uint32_t i = 0; i < 256; i += 3)
		p[i / 8] |= (uint8_t)(1 << i % 8);
	return (size_t)(p - b) + 32;
}

static void space_is(const char *name, const uint8_t *after, size_t length)
{
	struct space s;
	size_t n;
	uint8_t *f = fixture_load(name, &n), *again;
	space_init(&s);
	cr_assert_eq(space_decode(&s, f, n), 0);
	cr_assert(s.segment_count == 3 && s.list_count == 2 && s.mapped == 123456 && s.dead == 789 && s.segments[1].live == 101 && s.segments[2].id == 7);
	cr_assert(s.lists[0].mark_seq == 40 && s.lists[0].chunk_count == 3 && s.lists[0].chunks[1].nodes && s.lists[0].chunks[2].at.crc == 0xabcd0003);
	cr_assert_eq(space_encoded_bytes(&s), length);
	again = malloc(length);
	space_encode(&s, again);
	cr_assert_eq(memcmp(again, after, length), 0, "%s", name);
	free(again);
	free(f);
	space_destroy(&s);
}

Test(frozen, space_table)
{
	uint8_t now[1024] = { 0 }, old[1024] = { 0 };
	size_t length = space_table(now, 2);
	fixture_is("space-table-2", now, length);
	space_is("space-table-2", now, length);
	memset(now, 0, sizeof now);
	length = space_table(now, 3);
	fixture_is("space-table-3", now, length);
	space_is("space-table-3", now, length);
	fixture_is("space-table-1", old, space_table(old, 1));
	/* it knows nothing of frees, nor of what segments take; it is written as version 2 */
	memset(now, 0, sizeof now);
	uint8_t *p = now + 48;
	space_table(now, 2);
	memset(p, 0, sizeof now - 48);
	for (uint32_t i = 0; i < 3; i++)
		p = put_segment(p, 5 + i, 100 + i, 256, 0, 0);
	size_t first = 48 + 3 * 16, lists = space_table(old, 1) - first;
	memcpy(p, old + first, lists);
	space_is("space-table-1", now, (size_t)(p - now) + lists);
}

/* ---- the data directory ---- */

static void slot_is(const char *name, const struct copy_slot *s, const uint8_t *trim)
{
	uint8_t b[BLOCK_BYTES], bits[BITMAP_BYTES];
	struct copy_slot got;
	size_t n;
	copy_slot_encode(s, b);
	fixture_is(name, b, sizeof b);
	uint8_t *f = fixture_load(name, &n);
	cr_assert_eq(copy_slot_decode(f, &got), 0);
	cr_assert_eq(copy_slot_trim(f, &got, bits), trim != NULL);
	got.trim = trim ? bits : NULL;
	copy_slot_encode(&got, b);
	cr_assert_eq(memcmp(b, f, n), 0);
	free(f);
}

Test(frozen, slots)
{
	uint8_t trim[BITMAP_BYTES] = { 0 };
	for (uint32_t b = 7; b < 300; b += 11)
		bit_set(trim, b);
	slot_is("slot-open", &(struct copy_slot){ .header = home, .generation = 9, .incarnation = 4, .fenced_epoch = 0x0102030405060709 }, NULL);
	slot_is("slot-broken", &(struct copy_slot){ .header = home, .generation = 10, .incarnation = 4, .broken = true }, NULL);
	slot_is("slot-sealed", &(struct copy_slot){ .header = home, .generation = 11, .incarnation = 4, .sealed = true, .packed = true, .length = 300,
						    .prev = 0xcafef00d, .last_seq = 0x1122334455, .trimmed = 27, .trim = trim }, trim);
	slot_is("fence", &(struct copy_slot){ .header = { .segment = home.segment, .size_blocks = 2 }, .fenced_epoch = 77 }, NULL);
}

Test(frozen, map_of_a_packed_copy)
{
	struct copy_map *m = calloc(1, sizeof *m), *got = calloc(1, sizeof *got);
	uint8_t b[BLOCK_BYTES];
	size_t n;
	m->blocks = 300;
	for (uint32_t i = 0; i < 300; i += 1 + i % 3)
		bit_set(m->bits, i);
	map_rank(m);
	copy_map_encode(m, home.segment, b);
	fixture_is("map", b, sizeof b);
	uint8_t *f = fixture_load("map", &n);
	cr_assert_eq(copy_map_decode(f, home.segment, got), 0);
	cr_assert(got->blocks == 300 && got->count == m->count && memcmp(got->bits, m->bits, sizeof m->bits) == 0);
	free(f);
	free(m);
	free(got);
}

Test(frozen, server_file)
{
	struct dir_server s = { .id = { "server's 16 byte" }, .incarnation = 12, .intent = 13, .boot_id = "01234567-89ab-cdef-0123-456789abcdef", .clean = true,
				.doubtful_before = 3, .stale_before = 2, .unsynced_before = 5 }, got;
	uint8_t b[BLOCK_BYTES];
	size_t n;
	dir_server_encode(&s, b);
	fixture_is("server", b, sizeof b);
	uint8_t *f = fixture_load("server", &n);
	cr_assert_eq(dir_server_decode(f, &got), 0);
	dir_server_encode(&got, b);
	cr_assert_eq(memcmp(b, f, n), 0);
	cr_assert(got.incarnation == 12 && got.intent == 13 && got.clean && got.unsynced_before == 5);
	free(f);
}

Test(frozen, what_servers_tell_one_another)
{
	struct share_entry e = { .header = home, .sealed = true, .whole = true, .length = 300, .prev = 0xcafef00d, .last_seq = 0x1122334455, .trimmed = 27,
				 .trim_crc = 0x12345678, .present = 273 }, got;
	uint8_t b[SHARE_ENTRY_BYTES], *page = calloc(3, SHARE_HEAD_BYTES);
	uint32_t count;
	size_t n;
	share_entry_encode(&e, b);
	fixture_is("share-entry", b, sizeof b);
	uint8_t *f = fixture_load("share-entry", &n);
	cr_assert_eq(share_entry_decode(f, &got), 0);
	share_entry_encode(&got, b);
	cr_assert_eq(memcmp(b, f, n), 0);
	free(f);
	for (uint32_t i = 0; i < 2; i++) {
		memset(share_block(page, i), (int)(i + 1), 16);
		share_head_set(page, i, 5 + 2 * i, crc32c(0, share_block(page, i), BLOCK_BYTES));
	}
	share_head_end(page, 2);
	fixture_is("share-page", page, SHARE_HEAD_BYTES + 2 * BLOCK_BYTES);
	f = fixture_load("share-page", &n);
	cr_assert_eq(share_page_check(f, n, 5, 8, &count), 0);
	cr_assert(count == 2 && share_head_block(f, 1) == 7);
	free(f);
	free(page);
}

/* ---- the catalog ---- */

/* `bytes` is value, encoded; `again` what the decoded fixture is, encoded. */
#define VALUE_IS(what, value, decode, encode) \
	do { \
		size_t value_length, value_there; \
		__typeof__(value) *got = calloc(1, sizeof *got); \
		uint8_t *bytes = encode(&(value), &value_length), *again; \
		fixture_is(what, bytes, value_length); \
		uint8_t *value_frozen = fixture_load(what, &value_there); \
		cr_assert_eq(decode(value_frozen, value_there, got), 0, what); \
		again = encode(got, &value_length); \
		cr_assert(value_length == value_there && memcmp(again, value_frozen, value_there) == 0, what); \
		free(bytes); \
		free(again); \
		free(value_frozen); \
		free(got); \
	} while (0)

Test(frozen, catalog_values)
{
	static struct meta_log log = { .stamp = 0xfedcba9876543210, .size_bytes = UINT64_C(20) << 30, .replicas = 3, .min_replicas = 2,
		.volume = { "volume's 16 byte" }, .parent_volume = 7, .parent_mark = 99, .origin = UINT64_C(50) << 16, .last_id = 1000, .node_end = 12345,
		.root = { { UINT64_C(60) << 16 | 3, 0xdead, 0 }, 4, 0 }, .space = { { UINT64_C(61) << 16 | 4, 0xbeef, 0 }, 1, 70000 }, .generation = 12,
		.from_position = UINT64_C(70) << 16 | 1, .from_seq = 500, .from_prev = 0xabcd, .segment_count = 2, .created_ns = 1700000000000000000u,
		.name = "web1", .doomed = true, .mapped_blocks = 11, .live_blocks = 12, .dead_blocks = 13,
		.segments = { { .id = 70, .epoch = 3, .salt = 0x1111111122222222, .size_blocks = 16384, .ensemble_count = 2, .cut = true, .length = 400,
				.prev = 0xfeed, .ensemble = { { { "server's 16 byte" }, 5 }, { { "other's 16 bytes" }, 6 } } },
			      { .id = 71, .epoch = 4, .salt = 0x3333333344444444, .size_blocks = 16384, .ensemble_count = 1, .ensemble = { { { "server's 16 byte" }, 5 } } } } };
	static struct meta_log embedded = { .stamp = 1, .size_bytes = 4096, .replicas = 1, .min_replicas = 1, .volume = { "volume's 16 byte" }, .from_seq = 1,
					    .name = "v", .embedded = true };
	static struct meta_owner owner = { .epoch = 9, .state = OWNER_OFFERED, .holder = "aquifer-tapdisk on host a", .control = "/run/aquifer/tapdisks/web1/control.sock",
					   .host = "a", .pid = 4711, .stamp = 0x0123456789abcdef };
	static struct meta_snapshot snapshot = { .name = "monday", .mark_seq = 77, .mark_position = UINT64_C(70) << 16 | 9, .doomed = true, .has_root = true,
						 .root = { { UINT64_C(60) << 16 | 5, 0xfade, 0 }, 2, 0 }, .node_end = 4242, .size_bytes = UINT64_C(20) << 30,
						 .created_ns = 1700000000000000001u, .mapped_blocks = 17 };
	static struct meta_name name = { .volume = 5, .history = { 4, 2 }, .history_count = 2 };
	static struct meta_server server = { .incarnation = 6, .address = "tls:10.0.0.1:7700", .domain = "rack1", .draining = true, .removed = true };
	static struct meta_agent agent = { .address = "tls:10.0.0.2:7701", .version = "0.1", .protocol = 2, .token = "sixteen letters", .stamp = 0x1122334455667788,
					   .pid = 99, .since_ns = 1700000000000000002u };
	static struct placement map = { .revision = 3, .server_count = 2, .group_count = PLACEMENT_GROUPS_MIN, .servers = { { { "server's 16 byte" }, "rack1", 1000, PLACED_IN },
										      { { "other's 16 bytes" }, "", 2000, PLACED_LOST } } };
	for (unsigned g = 0; g < PLACEMENT_GROUPS_MIN; g++)
		map.groups[g] = (struct placement_group){ .target = { (uint16_t)(g % 2) }, .target_count = 1, .former = { (uint16_t)(1 - g % 2) },
							  .former_count = g % 5 == 0 };
	VALUE_IS("value-log", log, meta_log_decode, meta_log_encode);
	VALUE_IS("value-log-embedded", embedded, meta_log_decode, meta_log_encode);
	VALUE_IS("value-owner", owner, meta_owner_decode, meta_owner_encode);
	VALUE_IS("value-snapshot", snapshot, meta_snapshot_decode, meta_snapshot_encode);
	VALUE_IS("value-name", name, meta_name_decode, meta_name_encode);
	VALUE_IS("value-server", server, meta_server_decode, meta_server_encode);
	VALUE_IS("value-agent", agent, meta_agent_decode, meta_agent_encode);
	VALUE_IS("value-pgmap", map, placement_decode, placement_encode);
	for (unsigned g = 0; g < PLACEMENT_GROUPS_MIN; g++)
		map.groups[PLACEMENT_GROUPS_MIN + g] = map.groups[g];
	map.group_count *= 2;
	VALUE_IS("value-pgmap-2", map, placement_decode, placement_encode);
	server.map_version = agent.map_version = 2;
	VALUE_IS("value-server-2", server, meta_server_decode, meta_server_encode);
	VALUE_IS("value-agent-2", agent, meta_agent_decode, meta_agent_encode);
	strcpy(owner.boot, "01234567-89ab-cdef-0123-456789abcdef");
	strcpy(agent.boot, owner.boot);
	VALUE_IS("value-owner-2", owner, meta_owner_decode, meta_owner_encode);
	VALUE_IS("value-agent-3", agent, meta_agent_decode, meta_agent_encode);
	owner.pids = agent.pids = 4026531836;
	VALUE_IS("value-owner-3", owner, meta_owner_decode, meta_owner_encode);
	VALUE_IS("value-agent-4", agent, meta_agent_decode, meta_agent_encode);
	owner.began_ticks = agent.began_ticks = 123456;
	VALUE_IS("value-owner-4", owner, meta_owner_decode, meta_owner_encode);
	VALUE_IS("value-agent-5", agent, meta_agent_decode, meta_agent_encode);
}

Test(frozen, catalog_keys)
{
	char text[2048], key[META_KEY_BYTES];
	size_t n = 0;
#define KEY(call)                                                            \
	do {                                                                 \
		call;                                                        \
		n += (size_t)snprintf(text + n, sizeof text - n, "%s\n", key); \
	} while (0)
	KEY(meta_key_log(0x12, key));
	KEY(meta_key_owner(0x12, key));
	KEY(meta_key_snapshot(0x12, 0x345, key));
	KEY(meta_key_snapshot_name(0x12, "monday", key));
	KEY(meta_key_clone(0x12, 0x345, 0x67, key));
	KEY(meta_key_name("web1", key));
	KEY(meta_key_alive(0x89, key));
	KEY(meta_key_reap(0x12, key));
	KEY(meta_key_group(0xab, key));
	KEY(meta_key_agent("host", key));
	KEY(meta_key_server(&home.volume, key));
#undef KEY
	fixture_is("keys", text, n);
}

Test(frozen, catalog_image)
{
	struct catalog_image i = { 0 }, got = { 0 };
	size_t length, n;
	cr_assert_eq(catalog_image_add(&i, "counter/volume", "\5\0\0\0\0\0\0\0", 8), 0);
	cr_assert_eq(catalog_image_add(&i, "reap/0000000000000012", "", 0), 0);
	char *text = catalog_image_encode(&i, 1700000000000000003u, &length);
	fixture_is("catalog-image", text, length);
	uint8_t *f = fixture_load("catalog-image", &n);
	cr_assert_eq(catalog_image_decode((const char *)f, n, &got, NULL), 0);
	cr_assert(catalog_image_equal(&i, &got));
	catalog_image_free(&i);
	catalog_image_free(&got);
	free(text);
	free(f);
}

/* ---- access ---- */

Test(frozen, tokens)
{
	struct access_token t = { .id = 0x123456789abcdef1, .roles = ROLE_ANY }, back;
	struct access_token_record r = { .roles = 1, .granted = ROLE_ANY, .expires_s = 1700000000, .host = "web", .signature = "the authority's", .signature_length = 16 };
	char text[ACCESS_TOKEN_BYTES];
	size_t n;
	for (unsigned i = 0; i < 32; i++) {
		t.seed[i] = (uint8_t)(i * 37);
		t.authority[i] = (uint8_t)(255 - i * 11);
		r.key[i] = (uint8_t)(i * 5);
	}
	access_token_print(&t, text);
	fixture_is("token", text, strlen(text) + 1);
	uint8_t *f = fixture_load("token", &n);
	cr_assert_eq(access_token_parse((const char *)f, &back), 0);
	cr_assert(back.id == t.id && back.roles == t.roles && memcmp(back.seed, t.seed, 32) == 0 && memcmp(back.authority, t.authority, 32) == 0);
	free(f);
	VALUE_IS("value-token", r, access_token_record_decode, access_token_record_encode);
	struct access_question *q = calloc(1, sizeof *q);
	*q = (struct access_question){ .role = ROLE_SERVER, .host = "web", .request = "a PKCS #10", .request_length = 10, .token = t.id,
				       .signature = "the token's", .signature_length = 11, .asked_s = 1700000001 };
	cr_assert_eq(access_question_pack(q), 0);
	VALUE_IS("value-request", *q, access_request_decode, access_request_encode);
	free(q);
}

/* ---- cow ---- */

Test(frozen, cow)
{
	struct cow_header h = { .sequence = 7, .size = 1 << 30, .parent_size = 512, .id = 0x1122334455667788, .clean = true }, got;
	uint8_t page[COW_PAGE];
	uint64_t sequence;
	size_t n;
	cow_header_encode(&h, page);
	fixture_is("cow-header", page, sizeof page);
	uint8_t *f = fixture_load("cow-header", &n);
	cr_assert_eq(cow_header_decode(f, &got), COW_OK);
	cow_header_encode(&got, page);
	cr_assert_eq(memcmp(page, f, n), 0);
	free(f);
	memset(page, 0, sizeof page);
	for (unsigned b = 3; b < COW_GROUP_BLOCKS; b += 700)
		cow_state_set(page + COW_STATE_START, b, b % 2 ? COW_DATA : COW_ZERO);
	cow_map_seal(page, h.id, 5, 9);
	fixture_is("cow-map", page, sizeof page);
	f = fixture_load("cow-map", &n);
	cr_assert_eq(cow_map_check(f, h.id, 5, &sequence), COW_OK);
	cr_assert(sequence == 9 && cow_state_get(f + COW_STATE_START, 703) == COW_DATA && cow_state_get(f + COW_STATE_START, 4) == COW_PARENT);
	free(f);
}

/* ---- texts ---- */

Test(frozen, texts)
{
	static struct tap_state s = { .pid = 4711, .start_ticks = 123456, .boot_id = "01234567-89ab-cdef-0123-456789abcdef", .name = "web1", .read_only = true,
				      .graph = "ro(raw(/images/a.img))", .device_count = 1, .device = { { "web1", "nbd", "/run/web1.nbd", "ro-1" } } };
	struct tap_state got;
	struct volume_status v = { .failed = -5, .waits_for = "two servers", .waits_since_ns = 1700000000000000004u, .segments = 9, .below = 2, .full = true }, back;
	size_t n;
	char *text = tap_state_encode(&s);
	fixture_is("tapdisk-status", text, strlen(text));
	uint8_t *f = fixture_load("tapdisk-status", &n);
	cr_assert_eq(tap_state_decode((const char *)f, n, &got, NULL), 0);
	cr_assert(got.pid == 4711 && got.start_ticks == 123456 && got.read_only && strcmp(got.graph, s.graph) == 0 && strcmp(got.device[0].node, "ro-1") == 0);
	tap_state_free(&got);
	free(text);
	free(f);
	text = volume_status_encode(&v);
	fixture_is("volume-status", text, strlen(text) + 1);
	f = fixture_load("volume-status", &n);
	cr_assert_eq(volume_status_decode((const char *)f, &back), 0);
	cr_assert(back.failed == -5 && strcmp(back.waits_for, v.waits_for) == 0 && back.segments == 9 && back.below == 2 && back.full);
	free(text);
	free(f);
}

/* ---- frames ---- */

static void frame_is(const char *name, enum frame_kind kind, Aquifer__Envelope e, const ProtobufCMessage *body, uint32_t payload_bytes)
{
	uint8_t b[512];
	struct frame got;
	size_t n, need;
	frame_encode(kind, &e, body, payload_bytes, b);
	frame_seal(b, 0x1234);
	fixture_is(name, b, frame_bytes(&e, body));
	uint8_t *f = fixture_load(name, &n);
	cr_assert_eq(frame_decode(f, n, &got, &need), 0);
	cr_assert(got.kind == kind && got.payload_bytes == payload_bytes && need == n);
	Aquifer__Envelope *back = frame_envelope(&got, NULL);
	cr_assert(back->id == 0x1234 && back->method == e.method && back->reply_limit == e.reply_limit && back->status == e.status && strcmp(back->text, e.text) == 0);
	aquifer__envelope__free_unpacked(back, NULL);
	free(f);
}

Test(frozen, frames)
{
	Aquifer__Hello call = AQUIFER__HELLO__INIT, reply = AQUIFER__HELLO__INIT;
	Aquifer__Envelope none = AQUIFER__ENVELOPE__INIT, e = AQUIFER__ENVELOPE__INIT;
	struct segment_io io = { .op = SEGMENT_APPEND, .segment = home.segment, .epoch = 9, .incarnation = 4, .block = 3, .blocks = 2 };
	struct segment_request request;
	Aquifer__Segment__Reply m;
	call.service = reply.service = (char *)"segment";
	call.protocol_oldest = 1;
	call.protocol = 2;
	reply.protocol_oldest = reply.protocol = 1;
	reply.in_flight = 256;
	reply.payload_limit = FRAME_PAYLOAD_MAX;
	call.software = reply.software = (char *)"aquifer 0.1";
	frame_is("frame-hello", FRAME_HELLO, none, &call.base, 0);
	frame_is("frame-hello-reply", FRAME_REPLY, none, &reply.base, 0);
	frame_is("frame-ping", FRAME_PING, none, NULL, 0);
	frame_is("frame-cancel", FRAME_CANCEL, none, NULL, 0);
	segment_wire_request(&io, &request);
	e.method = segment_wire_method(io.op);
	frame_is("frame-append", FRAME_CALL, e, &request.message.base, 2 * BLOCK_BYTES);
	io.op = SEGMENT_READ;
	segment_wire_request(&io, &request);
	e.method = segment_wire_method(io.op);
	e.reply_limit = 2 * BLOCK_BYTES;
	frame_is("frame-read", FRAME_CALL, e, &request.message.base, 0);
	io.op = SEGMENT_STAT;
	io.length = 300;
	io.sealed = true;
	io.last_crc = 0xcafef00d;
	io.last_seq = 77;
	segment_wire_reply(&io, &m);
	frame_is("frame-reply", FRAME_REPLY, none, &m.base, 0);
	e = none;
	e.status = -EROFS;
	e.text = (char *)"the segment is sealed";
	frame_is("frame-refusal", FRAME_REPLY, e, NULL, 0);
}
