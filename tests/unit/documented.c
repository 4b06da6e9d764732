/* What docs/formats/ says, against the code: bytes made from the documents' tables are opened with it; numbers and names of messages'
 * fields, of methods and of keys are those of the programs. */
#include <criterion/criterion.h>
#include <errno.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/components/cow_format.h"
#include "core/bytes.h"
#include "parallax/access/access.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/catalog/catalog_etcd_wire.h"
#include "parallax/catalog/meta.h"
#include "parallax/map/space.h"
#include "parallax/segment/placement.h"
#include "parallax/segment/segment_dir.h"
#include "parallax/segment/segment_share.h"
#include "proto/access.pb-c.h"
#include "proto/control.pb-c.h"
#include "proto/frame.h"
#include "proto/segment.pb-c.h"
#include "proto/store.pb-c.h"
#include "tests/unit/doctable.h"

static const struct segment_header home = { .segment = 0x123456789abc, .volume = { "volume's 16 byte" }, .epoch = 0x0102030405060708,
					    .salt = 0xf0e0d0c0b0a09080, .size_blocks = 0x4000 };

static void is_home(const struct segment_header *h)
{
	cr_assert(h->segment == home.segment && h->epoch == home.epoch && h->salt == home.salt && h->size_blocks == home.size_blocks &&
		  memcmp(h->volume.bytes, home.volume.bytes, 16) == 0);
}

/* ---- segments ---- */

Test(documented, segment_header)
{
	static const struct doc_field fields[] = {
		{ .name = "magic `AQSEGMNT`", .bytes = "AQSEGMNT" }, { "version, 1", .number = 1 }, { "size in blocks, with this one: 2 to 28,672", .number = 0x4000 },
		{ "segment id", .number = 0x123456789abc }, { "UUID of the volume", .bytes = "volume's 16 byte" }, { "epoch", .number = 0x0102030405060708 },
		{ "salt", .number = 0xf0e0d0c0b0a09080 }, { "CRC of the bytes before", .crc = { { 0, 4092 } } }, { 0 },
	};
	uint8_t b[BLOCK_BYTES] = { 0 };
	struct segment_header h;
	doc_fill("store.md", "### Segment header: block 0", 0, fields, b);
	cr_assert_eq(segment_header_decode(b, &h), 0);
	is_home(&h);
	cr_assert_eq(SEGMENT_BLOCKS_MAX, 28672);
}

Test(documented, record)
{
	static const struct doc_field fields[] = {
		{ .name = "magic `AQRC`", .bytes = "AQRC" }, { "CRC of all header blocks, with zeroes here", .crc = { { 0, BLOCK_BYTES } } }, { "version, 1", .number = 1 },
		{ "kind", .number = RECORD_DISCARD }, { "H, header blocks: ⌈(96 + 16 E + 4 P) / 4096⌉", .number = 1 }, { "P, payload blocks", .number = 0 },
		{ "E, entries", .number = 1 }, { "segment id", .number = 0x123456789abc }, { "block of the segment", .number = 0x321 }, { "prev", .number = 0xcafef00d },
		{ "epoch", .number = 0x0102030405060708 }, { "seq: 1 for", .number = 0x1122334455 }, { "salt of the segment", .number = 0xf0e0d0c0b0a09080 },
		{ "acked", .number = 11 }, { "synced", .number = 10 }, { "reserved for the number of a mark; 0", .number = 0 }, { 0 },
	};
	uint8_t b[BLOCK_BYTES] = { 0 };
	struct record r;
	put_le64(b + 96, 0x123456); /* "entries: first (8 bytes), count (4), extra (4)", at 96 */
	put_le32(b + 104, 3);
	doc_fill("store.md", "## Records", 0, fields, b);
	cr_assert_eq(record_decode(b, sizeof b, &home, 0x321, &r), 0);
	struct record_entry e = record_entry_at(&r, 0);
	cr_assert(r.kind == RECORD_DISCARD && r.prev == 0xcafef00d && r.seq == 0x1122334455 && r.acked == 11 && r.synced == 10 && r.mark == 0);
	cr_assert(r.header_blocks == 1 && r.entry_count == 1 && r.payload_blocks == 0 && e.first == 0x123456 && e.count == 3 && e.extra == 0);
}

Test(documented, footer)
{
	enum { LENGTH = 300 };
	static const struct doc_field fields[] = {
		{ .name = "magic `AQFOOTER`", .bytes = "AQFOOTER" }, { "version, 1", .number = 1 }, { "L |", .number = LENGTH }, { "segment id", .number = 0x123456789abc },
		{ "prev", .number = 0xcafef00d }, { "CRC of the footer's bytes but these four, to its end", .crc = { { 0, 28 }, { 32, BLOCK_BYTES } } },
		{ "seq of the last record", .number = 0x1122334455 }, { 0 },
	};
	uint8_t b[BLOCK_BYTES] = { 0 };
	struct segment_footer f;
	const uint8_t *crcs;
	for (uint32_t i = 0; i < LENGTH; i++)
		put_le32(b + 40 + 4 * i, i); /* "CRC of each block, block 0 first", at 40 */
	doc_fill("store.md", "### Footer", 0, fields, b);
	cr_assert_eq(segment_footer_decode(b, sizeof b, &f, &crcs), 0);
	cr_assert(f.segment == home.segment && f.length_blocks == LENGTH && f.prev == 0xcafef00d && f.last_seq == 0x1122334455 && get_le32(crcs + 4 * 299) == 299);
}

Test(documented, space_table)
{
	static const struct doc_field head[] = {
		{ .name = "magic `AQSPACE1`", .bytes = "AQSPACE1" }, { "version: 2", .number = 2 }, { "number of segments", .number = 0 }, { "number of lists", .number = 1 },
		{ "blocks that the head maps", .number = 123 }, { "blocks in dead lists", .number = 45 }, { 0 },
	};
	static const struct doc_field list[] = {
		{ .name = "seq of the mark", .number = 40 }, { "position of the mark", .number = 7 << 16 | 9 }, { "node_end", .number = 8 << 16 | 3 }, { "number of chunks", .number = 1 }, { 0 },
	};
	uint8_t b[48 + 32 + 40] = { 0 };
	struct space s;
	doc_fill("store.md", "## The space table", 0, head, b);
	doc_fill("store.md", "## The space table", 1, list, b + 48);
	put_le64(b + 80, 9 << 16 | 1); /* a chunk: position (8), CRC (4), number (4), smallest (8), greatest (8), flags (4), 0 (4) */
	put_le32(b + 88, 0xabcd);
	put_le32(b + 92, 12);
	put_le64(b + 96, 5 << 16);
	put_le64(b + 104, 6 << 16);
	put_le32(b + 112, 1);
	space_init(&s);
	cr_assert_eq(space_decode(&s, b, sizeof b), 0);
	const struct space_list *l = s.lists;
	cr_assert(s.mapped == 123 && s.dead == 45 && s.list_count == 1 && l->mark_seq == 40 && l->mark_position == (7 << 16 | 9) && l->node_end == (8 << 16 | 3));
	cr_assert(l->chunk_count == 1 && l->chunks[0].at.position == (9 << 16 | 1) && l->chunks[0].at.crc == 0xabcd && l->chunks[0].count == 12 && l->chunks[0].nodes &&
		  l->chunks[0].min == 5 << 16 && l->chunks[0].max == 6 << 16);
	space_destroy(&s);
}

/* ---- the data directory ---- */

Test(documented, server_file)
{
	static const struct doc_field fields[] = {
		{ .name = "magic `AQSERVER`", .bytes = "AQSERVER" }, { "version, 1", .number = 1 }, { "clean: 1 if", .number = 1 }, { "UUID", .bytes = "server's 16 byte" },
		{ "incarnation", .number = 12 }, { "intent", .number = 13 }, { "doubtful_before", .number = 3 }, { "stale_before", .number = 2 },
		{ "unsynced_before", .number = 5 }, { "boot id", .bytes = "01234567-89ab-cdef-0123-456789abcdef" }, { "CRC of the rest", .crc = { { 0, 4092 } } }, { 0 },
	};
	uint8_t b[BLOCK_BYTES] = { 0 };
	struct dir_server s;
	doc_fill("data-directory.md", "## server", 0, fields, b);
	cr_assert_eq(dir_server_decode(b, &s), 0);
	cr_assert(memcmp(s.id.bytes, "server's 16 byte", 16) == 0 && s.clean && s.incarnation == 12 && s.intent == 13 && s.doubtful_before == 3 && s.stale_before == 2 &&
		  s.unsynced_before == 5 && strcmp(s.boot_id, "01234567-89ab-cdef-0123-456789abcdef") == 0);
}

Test(documented, slot)
{
	uint8_t b[BLOCK_BYTES] = { 0 }, bits[BITMAP_BYTES] = { 0 }, got[BITMAP_BYTES];
	bit_set(bits, 7);
	bit_set(bits, 299);
	const struct doc_field fields[] = {
		{ .name = "magic `AQCOPY`, 0, 1", .bytes = "AQCOPY\0\1" }, { "version, 1", .number = 1 }, { "flags: 1 sealed, 2 broken, 4 packed", .number = 1 | 4 },
		{ "generation", .number = 9 }, { "incarnation", .number = 4 }, { "fenced epoch", .number = 77 }, { "segment id", .number = home.segment },
		{ "volume", .bytes = home.volume.bytes }, { "epoch of the segment", .number = home.epoch }, { "salt", .number = home.salt },
		{ "size in blocks, with block 0", .number = home.size_blocks }, { "sealed: length in blocks, with block 0", .number = 300 },
		{ "sealed: CRC of the last", .number = 0xcafef00d }, { "0: no bitmap; otherwise how many", .number = 2 }, { "sealed: seq", .number = 66 },
		{ "CRC of the 3584 bytes of the bitmap", .crc = { { 512, 4096 } } }, { "CRC of the bytes before", .crc = { { 0, 508 } } },
		{ "the bitmap", .bytes = bits }, { 0 },
	};
	struct copy_slot s;
	doc_fill("data-directory.md", "## A copy", 0, fields, b);
	cr_assert_eq(copy_slot_decode(b, &s), 0);
	is_home(&s.header);
	cr_assert(s.sealed && !s.broken && s.packed && s.generation == 9 && s.incarnation == 4 && s.fenced_epoch == 77 && s.length == 300 && s.prev == 0xcafef00d &&
		  s.trimmed == 2 && s.last_seq == 66);
	cr_assert(copy_slot_trim(b, &s, got) && memcmp(got, bits, sizeof bits) == 0);
}

Test(documented, map_of_a_packed_copy)
{
	uint8_t b[BLOCK_BYTES] = { 0 }, bits[BITMAP_BYTES] = { 0 };
	bit_set(bits, 0);
	bit_set(bits, 299);
	const struct doc_field fields[] = {
		{ .name = "magic `AQCMAP`, 0, 1", .bytes = "AQCMAP\0\1" }, { "version, 1", .number = 1 }, { "length of the segment", .number = 300 },
		{ "segment id", .number = home.segment }, { "n: how many blocks", .number = 2 }, { "a bit for each block", .bytes = bits },
		{ "CRC of the rest", .crc = { { 0, 4092 } } }, { 0 },
	};
	struct copy_map *m = calloc(1, sizeof *m);
	uint64_t offset;
	doc_fill("data-directory.md", "### A packed copy", 0, fields, b);
	cr_assert_eq(copy_map_decode(b, home.segment, m), 0);
	cr_assert(m->blocks == 300 && m->count == 2 && copy_map_find(m, 299, 1, &offset) == 0 && offset == 4 * BLOCK_BYTES);
	free(m);
}

/* ---- cow ---- */

Test(documented, cow_header)
{
	static const struct doc_field fields[] = {
		{ .name = "magic: \"AQFCOW\", CR, LF", .bytes = "AQFCOW\r\n" }, { "version: 1", .number = 1 }, { "CRC32C of the 4096 bytes, with zeroes here", .crc = { { 0, 4096 } } },
		{ "sequence", .number = 7 }, { "size of the disk, bytes: a multiple of 512, at most 64 TiB", .number = 1 << 30 }, { "size of the parent", .number = 512 },
		{ "id", .number = 0x1122334455667788 }, { "block: 4096", .number = 4096 }, { "clean", .number = 1 },
		{ "bytes of the disk in a group: 66060288", .number = 66060288 }, { "bytes of the file in a group: 67108864", .number = 67108864 },
		{ "identity of the parent", .number = 99 }, { 0 },
	};
	uint8_t b[COW_PAGE] = { 0 };
	struct cow_header h;
	doc_fill("cow.md", "## Header", 0, fields, b);
	cr_assert_eq(cow_header_decode(b, &h), COW_OK);
	cr_assert(h.sequence == 7 && h.size == 1 << 30 && h.parent_size == 512 && h.parent_identity == 99 && h.id == 0x1122334455667788 && h.clean);
}

Test(documented, cow_map)
{
	uint8_t b[COW_PAGE] = { 0 }, states[4032] = { 2 << 2 };
	const struct doc_field fields[] = {
		{ .name = "magic: \"cowm\"", .bytes = "cowm" }, { "CRC32C of the 4096 bytes, with zeroes here", .crc = { { 0, 4096 } } }, { "id", .number = 99 }, { "sequence", .number = 9 },
		{ "group", .number = 5 }, { "states of the group's 16128 blocks, 2 bits each", .bytes = states }, { 0 },
	};
	uint64_t sequence;
	doc_fill("cow.md", "## Map page", 0, fields, b);
	cr_assert_eq(cow_map_check(b, 99, 5, &sequence), COW_OK);
	cr_assert(sequence == 9 && cow_state_get(b + COW_STATE_START, 1) == COW_ZERO && cow_state_get(b + COW_STATE_START, 0) == COW_PARENT);
}

/* ---- access ---- */

Test(documented, token)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	static const struct doc_field fields[] = {
		{ .name = "ID, little-endian, not 0", .number = 0x123456789abcdef1 }, { "roles", .number = 2 }, { "an Ed25519 private key", .bytes = "the private key has 32 bytes ...." },
		{ "SHA-256 of the authority's certificate", .bytes = "so has the authority's SHA-256 .." }, { "CRC32C of the bytes before", .crc = { { 0, 73 } } }, { 0 },
	};
	uint8_t b[79] = { 0 };
	char text[128] = "aquifer1.";
	struct access_token t;
	doc_fill("access.md", "## Enrolment", 0, fields, b);
	for (unsigned i = 0; i < 103; i++)
		text[9 + i] = digits[((unsigned)b[i * 6 / 8] << 8 | b[i * 6 / 8 + 1]) >> (10 - i * 6 % 8) & 63];
	cr_assert_eq(access_token_parse(text, &t), 0);
	cr_assert(t.id == 0x123456789abcdef1 && t.roles == 2 && memcmp(t.seed, "the private key has 32 bytes ....", 32) == 0 &&
		  memcmp(t.authority, "so has the authority's SHA-256 ..", 32) == 0);
}

/* ---- the wire ---- */

Test(documented, frame)
{
	static const struct doc_field fields[] = {
		{ .name = "magic: \"AQPR\"", .bytes = "AQPR" }, { "version of this layout: 1", .number = 1 }, { "kind: 1 hello, 2 call, 3 reply, 4 ping, 5 cancel", .number = 4 },
		{ "header length H, at most 65,536", .number = 9 }, { "payload length P, at most 4,259,840", .number = 0 },
		{ "CRC32C of bytes 0–15 and of the header", .crc = { { 0, 16 }, { 20, 29 } } }, { 0 },
	};
	uint8_t b[29] = { [20] = 0x09, [21] = 5 };
	struct frame f;
	size_t need;
	doc_fill("rpc.md", "## Frames", 0, fields, b);
	cr_assert_eq(frame_decode(b, sizeof b, &f, &need), 0);
	cr_assert(f.kind == FRAME_PING && f.header_bytes == 9 && f.payload_bytes == 0);
	cr_assert(FRAME_HEADER_MAX == 65536 && FRAME_PAYLOAD_MAX == 4259840 && FRAME_HELLO == 1 && FRAME_CANCEL == 5);
}

Test(documented, entry_of_a_list)
{
	const struct doc_field fields[] = {
		{ .name = "id", .number = home.segment }, { "volume", .bytes = home.volume.bytes }, { "epoch", .number = home.epoch }, { "salt", .number = home.salt },
		{ "size in blocks", .number = home.size_blocks }, { "length: sealed", .number = 300 }, { "prev", .number = 0xcafef00d },
		{ "flags: 1 sealed, 2 whole", .number = 1 }, { "last seq", .number = 66 }, { "trimmed", .number = 27 }, { "trim CRC", .number = 0x12345678 },
		{ "present", .number = 273 }, { 0 },
	};
	uint8_t b[SHARE_ENTRY_BYTES] = { 0 };
	struct share_entry e;
	doc_fill("rpc.md", "## The service `segment`", 0, fields, b);
	cr_assert_eq(share_entry_decode(b, &e), 0);
	is_home(&e.header);
	cr_assert(e.sealed && !e.whole && e.length == 300 && e.prev == 0xcafef00d && e.last_seq == 66 && e.trimmed == 27 && e.trim_crc == 0x12345678 && e.present == 273);
}

/* "NUMBER NAME" for each value. */
static void methods_are(const char *heading, const ProtobufCEnumDescriptor *d, const char *prefix)
{
	char *section = doc_section("rpc.md", heading), row[64];
	for (unsigned i = 0; i < d->n_values; i++) {
		snprintf(row, sizeof row, "\n| %d %s |", d->values[i].value, d->values[i].name + strlen(prefix));
		cr_assert(d->values[i].value == 0 || strstr(section, row), "docs/formats/rpc.md has no '%s'", row + 1);
	}
	free(section);
}

Test(documented, methods)
{
	methods_are("## The service `segment`", &aquifer__segment__method__descriptor, "");
	methods_are("## The services of hosts", &aquifer__agent_method__descriptor, "AGENT_");
	methods_are("## The services of hosts", &aquifer__peer_method__descriptor, "PEER_");
	methods_are("## The services of hosts", &aquifer__tapdisk_method__descriptor, "TAPDISK_");
}

/* ---- messages ---- */

static const char *type_name(const ProtobufCFieldDescriptor *f)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_UINT32: return "uint32";
	case PROTOBUF_C_TYPE_UINT64: return "uint64";
	case PROTOBUF_C_TYPE_FIXED32: return "fixed32";
	case PROTOBUF_C_TYPE_FIXED64: return "fixed64";
	case PROTOBUF_C_TYPE_INT32: return "int32";
	case PROTOBUF_C_TYPE_SINT32: return "sint32";
	case PROTOBUF_C_TYPE_BOOL: return "bool";
	case PROTOBUF_C_TYPE_STRING: return "string";
	case PROTOBUF_C_TYPE_BYTES: return "bytes";
	default: return "";
	}
}

/* "NUMBER name" for each field, or "NUMBER `name`"; and in tables its type behind. */
static void message_is(const char *file, const char *heading, const ProtobufCMessageDescriptor *d)
{
	char *section = doc_section(file, heading), plain[64], quoted[64];
	for (unsigned i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &d->fields[i];
		int n = snprintf(plain, sizeof plain, "%u %s", f->id, f->name);
		snprintf(quoted, sizeof quoted, "%u `%s`", f->id, f->name);
		const char *at = strstr(section, plain);
		while (at && (at[n] == '_' || (at > section && strchr("0123456789", at[-1]))))
			at = strstr(at + 1, plain);
		at = at ? at : strstr(section, quoted);
		cr_assert(at, "docs/formats/%s, %s: '%s' isn't there", file, heading, plain);
		const char *line = at;
		while (line > section && line[-1] != '\n')
			line--;
		size_t length = strcspn(line, "\n");
		if (*line == '|' && *type_name(f))
			cr_assert(memmem(line, length, type_name(f), strlen(type_name(f))), "docs/formats/%s, %s: %s isn't a %s there", file, heading, plain, type_name(f));
	}
	free(section);
}

Test(documented, messages)
{
	message_is("catalog.md", "### Log", &aquifer__store__log__descriptor);
	message_is("catalog.md", "### Log", &aquifer__store__root__descriptor);
	message_is("catalog.md", "### Log", &aquifer__store__segment__descriptor);
	message_is("catalog.md", "### Log", &aquifer__store__replica__descriptor);
	message_is("catalog.md", "### Owner", &aquifer__store__owner__descriptor);
	message_is("catalog.md", "### Snapshot", &aquifer__store__snapshot__descriptor);
	message_is("catalog.md", "### Name", &aquifer__store__name__descriptor);
	message_is("catalog.md", "### Server", &aquifer__store__server__descriptor);
	message_is("catalog.md", "### Agent", &aquifer__store__agent__descriptor);
	message_is("catalog.md", "### PgMap", &aquifer__store__pg_map__descriptor);
	message_is("catalog.md", "### PgMap", &aquifer__store__placed_server__descriptor);
	message_is("catalog.md", "### PgMap", &aquifer__store__group__descriptor);
	message_is("rpc.md", "## The envelope", &aquifer__envelope__descriptor);
	message_is("access.md", "## Enrolment", &aquifer__access__authority__descriptor);
	message_is("access.md", "## Enrolment", &aquifer__access__token__descriptor);
	message_is("access.md", "## Enrolment", &aquifer__access__request__descriptor);
	message_is("access.md", "## Enrolment", &aquifer__access__answer__descriptor);
	message_is("access.md", "## Enrolment", &aquifer__access__issued__descriptor);
	message_is("access.md", "## Enrolment", &aquifer__access__revoked__descriptor);
	message_is("access.md", "## Enrolment", &aquifer__access__question__descriptor);
}

/* ---- the catalog ---- */

/* The key as the document has it, with numbers and names in the places of its letters. */
static void key_is(const char *pattern, const char *key)
{
	static const struct {
		char letter;
		const char *text;
	} places[] = { { 'V', "0000000000000012" }, { 'M', "0000000000000345" }, { 'C', "0000000000000067" }, { 'R', "0000000000000089" }, { 'G', "00000000000000ab" }, { 'N', "web1" }, { 'S', "monday" } };
	char row[64], made[META_KEY_BYTES] = "", *section = doc_section("catalog.md", "## Keys");
	snprintf(row, sizeof row, "\n| `%s` |", pattern);
	cr_assert(strstr(section, row), "docs/formats/catalog.md has no key '%s'", pattern);
	free(section);
	for (const char *p = pattern; *p; p++) {
		char one[2] = { *p, 0 };
		const char *text = one;
		for (unsigned i = 0; i < ARRAY_COUNT(places); i++)
			if (*p == places[i].letter)
				text = places[i].text;
		strcat(made, text);
	}
	cr_assert_str_eq(key, made);
}

Test(documented, keys)
{
	char key[META_KEY_BYTES];
	meta_key_name("web1", key);
	key_is("name/N", key);
	meta_key_log(0x12, key);
	key_is("volume/V/log", key);
	meta_key_owner(0x12, key);
	key_is("volume/V/owner", key);
	meta_key_snapshot(0x12, 0x345, key);
	key_is("snapshot/V/M", key);
	meta_key_snapshot_name(0x12, "monday", key);
	key_is("snapname/V/S", key);
	meta_key_clone(0x12, 0x345, 0x67, key);
	key_is("clone/V/M/C", key);
	meta_key_reader(0x12, 0x345, 0x89, key);
	key_is("reader/V/M/R", key);
	meta_key_group(0xab, key);
	key_is("group/G", key);
	meta_key_reap(0x12, key);
	key_is("reap/V", key);
	meta_key_reap_snapshot(0x12, 0x345, key);
	key_is("reap/V/M", key);
	key_is("pgmap", PLACEMENT_KEY);
	key_is("manager", META_MANAGER);
	key_is("store/moved", STORE_MOVED);
	key_is("store/incoming", STORE_INCOMING);
	key_is("store/restored", STORE_RESTORED);
}

Test(documented, backup)
{
	char *section = doc_section("catalog.md", "## A backup"), text[1024] = "";
	struct catalog_image i;
	struct report report = { "" };
	for (const char *line = section; line; line = strchr(line, '\n'), line = line ? line + 1 : NULL)
		if (strncmp(line, "    {", 5) == 0)
			strncat(text, line + 4, strcspn(line + 4, "\n") + 1);
	cr_assert_eq(catalog_image_decode(text, strlen(text), &i, &report), 0, "%s", report.text);
	cr_assert(i.count == 1 && strcmp(i.keys[0].key, "counter/segment") == 0 && i.keys[0].length == 8 && get_le64(i.keys[0].bytes) == 77);
	catalog_image_free(&i);
	free(section);
}

struct file_rig {
	struct env *env;
	char dir[32], path[64];
};

static int make_file(void *arg)
{
	struct file_rig *f = arg;
	struct catalog *c;
	char url[80];
	snprintf(url, sizeof url, "sqlite:%s", f->path);
	cr_assert_eq(catalog_open(f->env, url, NULL, true, &c, NULL), 0);
	catalog_close(c);
	return 0;
}

static int text_of(void *arg, int columns, char **values, char **names)
{
	(void)names;
	cr_assert_eq(columns, 1);
	snprintf(arg, 256, "%s", values[0]);
	return 0;
}

Test(documented, catalog_file)
{
	struct file_rig f = { .dir = "/tmp/aqdoc.XXXXXX" };
	char text[256], says[300], *section = doc_section("catalog.md", "## The file"), command[64];
	sqlite3 *db;
	cr_assert(mkdtemp(f.dir));
	snprintf(f.path, sizeof f.path, "%s/c.db", f.dir);
	cr_assert_eq(env_linux_create(0, &f.env), 0);
	cr_assert_eq(env_linux_run_fiber(f.env, make_file, &f), 0);
	env_linux_destroy(f.env);
	cr_assert_eq(sqlite3_open(f.path, &db), SQLITE_OK);
	cr_assert_eq(sqlite3_exec(db, "SELECT sql FROM sqlite_master WHERE name = 'kv'", text_of, text, NULL), SQLITE_OK);
	snprintf(says, sizeof says, "    %s\n", text);
	cr_assert(strstr(section, says), "docs/formats/catalog.md: the table is made by: %s", text);
	cr_assert_eq(sqlite3_exec(db, "PRAGMA application_id", text_of, text, NULL), SQLITE_OK);
	snprintf(says, sizeof says, "`application_id` %s", text);
	cr_assert(strstr(section, says), "docs/formats/catalog.md hasn't '%s'", says);
	cr_assert_eq(sqlite3_exec(db, "PRAGMA user_version", text_of, text, NULL), SQLITE_OK);
	snprintf(says, sizeof says, "`user_version` %s", text);
	cr_assert(strstr(section, says), "docs/formats/catalog.md hasn't '%s'", says);
	sqlite3_close(db);
	free(section);
	snprintf(command, sizeof command, "rm -r %s", f.dir);
	cr_assert_eq(system(command), 0);
}

/* ---- limits ---- */

static void says(const char *file, const char *heading, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void says(const char *file, const char *heading, const char *format, ...)
{
	char text[256], *section = doc_section(file, heading);
	va_list ap;
	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	cr_assert(strstr(section, text), "docs/formats/%s, %s, doesn't say '%s'", file, heading, text);
	free(section);
}

Test(documented, limits)
{
	says("catalog.md", "## The file", "at most %d bytes; values at most %d KiB; a transaction has at most %d compares and %d changes", CATALOG_KEY_MAX, CATALOG_VALUE_MAX >> 10,
	     CATALOG_TXN_MAX, CATALOG_TXN_MAX);
	says("catalog.md", "## etcd", "\n    %s ", ETCD_FORMAT_KEY);
	says("catalog.md", "## etcd", "\n    %s ", ETCD_ID_KEY);
	says("catalog.md", "## etcd", "\n    %sKEY ", ETCD_PREFIX);
	says("catalog.md", "### Log", "17 segments | Segment, at most %d |", META_SEGMENTS_MAX);
	says("catalog.md", "### Log", "28 unsealed | Segment, at most %d |", META_UNSEALED_MAX);
	says("catalog.md", "### Log", "(`Replica`, 1 to %d:", META_REPLICAS_MAX);
	says("catalog.md", "### Name", "history (uint64, at most %d)", META_HISTORY_MAX);
	says("catalog.md", "### Agent", "token (bytes, %d:", META_TOKEN_BYTES);
	says("catalog.md", "### PgMap", "servers (`PlacedServer`, at most %d), 4 groups (`Group`: %d, or a greater power of two, at most\n%d)", PLACEMENT_SERVERS_MAX, PLACEMENT_GROUPS_MIN,
	     PLACEMENT_GROUPS_MAX);
	says("catalog.md", "### PgMap", "target (uint32, up to %d indices", META_REPLICAS_MAX);
	says("catalog.md", "### PgMap", "former (uint32, up to %d:", PLACEMENT_FORMER_MAX);
	says("store.md", "## Records", "It has at most %u MiB, header included", RECORD_BYTES_MAX >> 20);
	says("store.md", "## Pointers, nodes, the tree", "one block of %u pointers", NODE_FANOUT);
	says("rpc.md", "## The service `segment`", "blocks (1 … %d)", SHARE_FETCH_MAX);
	says("rpc.md", "## The service `segment`", "begins with %d bytes", SHARE_HEAD_BYTES);
	says("access.md", "## Certificates", "for %d days", (int)(CERTIFICATE_LIFE_S / 86400));
	says("access.md", "## Enrolment", "at most %d, P-256", CERTIFICATE_REQUEST_MAX);
	says("access.md", "## Enrolment", "PEM, less than %d bytes", ACCESS_PEM_MAX);
	says("access.md", "## Enrolment", "a signature %d.", CERTIFICATE_SIGNATURE_MAX);
	says("access.md", "## Enrolment", "At most %d are remembered", IDENTITY_REVOKED_MAX / 2);
	says("access.md", "## Enrolment", "At most %d requests are looked at", ACCESS_PASS_MAX);
}
