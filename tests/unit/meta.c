/* What the catalog says of volumes: round trips, limits, damage. */
#include "parallax/catalog/meta.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"

static struct meta_log *sample_log(void)
{
	struct meta_log *m = calloc(1, sizeof *m);
	*m = (struct meta_log){ .stamp = UINT64_MAX, .size_bytes = UINT64_C(64) << 40, .replicas = 3, .min_replicas = 2, .parent_volume = 7,
				.parent_mark = 99, .origin = position_make(50, 0xffff), .last_id = 1000, .node_end = 12345,
				.root = { { position_make(60, 3), 0xdead, 0 }, 4, 0 }, .space = { { position_make(61, 4), 0xbeef, 0 }, 1, 70000 },
				.generation = 12, .from_position = position_make(70, 1), .from_seq = 500, .from_prev = 0xabcd,
				.segment_count = META_SEGMENTS_MAX, .created_ns = 1700000000000000000u, .name = "web1", .doomed = true,
				.mapped_blocks = 11, .live_blocks = 12, .dead_blocks = 13 };
	memcpy(m->volume.bytes, "volumevolumevolu", 16);
	m->unsealed_count = META_UNSEALED_MAX;
	for (uint32_t i = 0; i < m->unsealed_count; i++) /* in no order */
		m->unsealed[i] = (struct meta_segment){ .id = 30 + i * 7 % META_UNSEALED_MAX, .epoch = 1, .salt = i, .size_blocks = 2 + i, .ensemble_count = 1, .cut = true,
							.length = 2 + i, .prev = i, .ensemble = { { .server.bytes = { (uint8_t)i }, .incarnation = i } } };
	for (uint32_t i = 0; i < m->segment_count; i++) {
		struct meta_segment *g = &m->segments[i];
		*g = (struct meta_segment){ .id = 70 + i, .epoch = i, .salt = UINT64_MAX - i, .size_blocks = SEGMENT_BLOCKS_MAX,
					    .ensemble_count = 1 + i % META_REPLICAS_MAX, .cut = i % 2, .length = i % 2 ? 100 + i : 0, .prev = i * 3 };
		for (uint32_t k = 0; k < g->ensemble_count; k++)
			g->ensemble[k] = (struct meta_replica){ .server.bytes = { (uint8_t)i, (uint8_t)k }, .incarnation = i + k };
	}
	return m;
}

Test(meta, log_round_trip)
{
	struct meta_log *m = sample_log(), *got = calloc(1, sizeof *got);
	size_t length = 0;
	uint8_t *bytes = meta_log_encode(m, &length);
	cr_assert(bytes && length < 16384, "%zu bytes", length); /* a few KiB per volume */
	cr_assert_eq(meta_log_decode(bytes, length, got), 0);
	cr_assert_eq(memcmp(m, got, sizeof *m), 0);
	free(bytes);
	m->embedded = true;
	m->segment_count = m->unsealed_count = 0;
	memset(m->segments, 0, sizeof m->segments);
	memset(m->unsealed, 0, sizeof m->unsealed);
	m->root = m->space = (struct meta_root){ 0 };
	bytes = meta_log_encode(m, &length);
	cr_assert_eq(meta_log_decode(bytes, length, got), 0);
	cr_assert_eq(memcmp(m, got, sizeof *m), 0);
	free(bytes);
	free(m);
	free(got);
}

static void refused(const struct meta_log *m, const char *what)
{
	struct meta_log *got = calloc(1, sizeof *got);
	size_t length = 0;
	uint8_t *bytes = meta_log_encode(m, &length);
	cr_assert_eq(meta_log_decode(bytes, length, got), -EUCLEAN, "%s", what);
	free(bytes);
	free(got);
}

#define REFUSED(change)                       \
	do {                                  \
		struct meta_log *m = sample_log(); \
		change;                       \
		refused(m, #change);          \
		free(m);                      \
	} while (0)

Test(meta, log_that_makes_no_sense)
{
	REFUSED(m->size_bytes = 0);
	REFUSED(m->size_bytes = 1000);
	REFUSED(m->size_bytes = (UINT64_C(64) << 40) + 512);
	REFUSED(m->root.level = 5);
	REFUSED(m->space.length = UINT64_C(1) << 33);
	REFUSED(m->from_seq = 0);
	REFUSED(m->segments[3].id = 0);
	REFUSED(m->segments[3].id = UINT64_C(1) << 48);
	REFUSED(m->segments[3].id = m->segments[2].id);
	REFUSED(m->last_id = m->segments[63].id - 1);
	REFUSED(m->segments[0].size_blocks = 1);
	REFUSED(m->segments[0].size_blocks = SEGMENT_BLOCKS_MAX + 1);
	REFUSED(m->segments[0].ensemble_count = 0);
	REFUSED((m->segments[1].size_blocks = 90, m->segments[1].length = 91));
	REFUSED(m->unsealed[2].cut = false);
	REFUSED(m->unsealed[2].length = m->unsealed[2].size_blocks + 1);
	REFUSED(m->unsealed[2].id = m->last_id + 1);
	REFUSED(m->unsealed[2].ensemble_count = 0);
}

Test(meta, damaged_values)
{
	struct meta_log *m = sample_log(), *got = calloc(1, sizeof *got);
	size_t length = 0;
	uint8_t *bytes = meta_log_encode(m, &length);
	for (size_t n = 0; n < length; n += 7) /* cut off: refused, or a shorter value that makes sense */
		if (meta_log_decode(bytes, n, got) == 0)
			cr_assert(got->segment_count <= META_SEGMENTS_MAX && got->unsealed_count <= META_UNSEALED_MAX && got->size_bytes);
	cr_assert_eq(meta_log_decode(bytes, 0, got), -EUCLEAN);
	memset(bytes, 0xff, length);
	cr_assert_eq(meta_log_decode(bytes, length, got), -EUCLEAN);
	cr_assert_eq(meta_log_decode(bytes, CATALOG_VALUE_MAX + 1, got), -EUCLEAN);
	struct meta_name name;
	cr_assert_eq(meta_name_decode("", 0, &name), -EUCLEAN); /* of no volume */
	struct meta_owner owner;
	cr_assert_eq(meta_owner_decode("\x10\x07", 2, &owner), -EUCLEAN); /* state 7 */
	free(bytes);
	free(m);
	free(got);
}

/* Field 1 is the version. */
Test(meta, log_of_a_newer_version)
{
	struct meta_log *m = sample_log(), *got = calloc(1, sizeof *got);
	size_t length = 0;
	uint8_t *bytes = meta_log_encode(m, &length);
	cr_assert(bytes[0] == 0x08 && bytes[1] == 1);
	bytes[1] = 2;
	cr_assert_eq(meta_log_decode(bytes, length, got), -EPROTONOSUPPORT);
	free(bytes);
	free(m);
	free(got);
}

Test(meta, the_others_round_trip)
{
	size_t n = 0;
	struct meta_owner o = { .epoch = 5, .state = OWNER_OFFERED, .pid = 77, .stamp = 8 }, o2;
	memset(o.holder, 'h', sizeof o.holder - 1);
	memset(o.control, 'c', sizeof o.control - 1);
	memset(o.host, 'x', sizeof o.host - 1);
	uint8_t *b = meta_owner_encode(&o, &n);
	cr_assert(meta_owner_decode(b, n, &o2) == 0 && o2.epoch == 5 && o2.state == OWNER_OFFERED && o2.pid == 77 && o2.stamp == 8 &&
		  strcmp(o.holder, o2.holder) == 0 && strcmp(o.control, o2.control) == 0 && strcmp(o.host, o2.host) == 0);
	free(b);
	struct meta_snapshot s = { .name = "one", .mark_seq = 1, .mark_position = 2, .doomed = true, .has_root = true, .root = { { 3, 4, 0 }, 2, 0 },
				   .node_end = 5, .size_bytes = 6, .created_ns = 7, .mapped_blocks = 8 }, s2;
	b = meta_snapshot_encode(&s, &n);
	cr_assert_eq(meta_snapshot_decode(b, n, &s2), 0);
	cr_assert(strcmp(s2.name, "one") == 0 && s2.mark_seq == 1 && s2.mark_position == 2 && s2.doomed && s2.has_root && s2.root.pointer.position == 3 &&
		  s2.root.pointer.crc == 4 && s2.root.level == 2 && s2.node_end == 5 && s2.size_bytes == 6 && s2.created_ns == 7 && s2.mapped_blocks == 8);
	free(b);
	struct meta_name m = { .volume = 9, .history_count = META_HISTORY_MAX }, m2;
	for (unsigned i = 0; i < META_HISTORY_MAX; i++)
		m.history[i] = UINT64_MAX - i;
	b = meta_name_encode(&m, &n);
	cr_assert(meta_name_decode(b, n, &m2) == 0 && memcmp(&m, &m2, sizeof m) == 0);
	free(b);
	struct meta_agent a = { .address = "tcp:h:2", .version = "1.2", .token = { 1, 2, 15 }, .stamp = 5, .pid = 6, .since_ns = 7 }, a2;
	b = meta_agent_encode(&a, &n);
	cr_assert(meta_agent_decode(b, n, &a2) == 0 && memcmp(&a, &a2, sizeof a) == 0);
	free(b);
	cr_assert_eq(meta_agent_decode("", 0, &a2), -EUCLEAN, "without a token");
	struct meta_server v = { .incarnation = 3, .address = "tcp:h:1", .domain = "rack1", .host = "alpha", .draining = true }, v2;
	b = meta_server_encode(&v, &n);
	cr_assert(meta_server_decode(b, n, &v2) == 0 && v2.incarnation == 3 && strcmp(v2.address, v.address) == 0 && strcmp(v2.domain, v.domain) == 0 && strcmp(v2.host, v.host) == 0 &&
		  v2.draining && !v2.removed);
	free(b);
}

/* Keys sort as their numbers do, and fit. */
Test(meta, keys)
{
	char a[META_KEY_BYTES], b[META_KEY_BYTES], prefix[META_KEY_BYTES], long_name[64];
	meta_key_snapshot(1, 9, a);
	meta_key_snapshot(1, 10, b);
	meta_key_snapshots(1, prefix);
	cr_assert(strcmp(a, b) < 0 && strncmp(a, prefix, strlen(prefix)) == 0 && strncmp(b, prefix, strlen(prefix)) == 0);
	meta_key_snapshot(16, 0, a);
	cr_assert_neq(strncmp(a, prefix, strlen(prefix)), 0);
	memset(long_name, 'n', 63);
	long_name[63] = '\0';
	meta_key_snapshot_name(UINT64_MAX, long_name, a);
	cr_assert(strlen(a) < META_KEY_BYTES - 1 && strcmp(a + strlen(a) - 63, long_name) == 0);
	meta_key_name(long_name, a);
	cr_assert_eq(strlen(a), 5 + 63);
}
