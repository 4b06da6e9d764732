/* What the catalog says of volumes: bytes to structs. The first byte says which. What is accepted keeps within its limits, ends its
 * texts, and comes back the same when it is encoded and decoded again. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "parallax/meta.h"

#define TEXT(field) assert(memchr(field, 0, sizeof(field)))

static void fuzz_log(const uint8_t *b, size_t n)
{
	static struct meta_log m, again;
	if (meta_log_decode(b, n, &m) < 0)
		return;
	TEXT(m.name);
	assert(m.segment_count <= META_SEGMENTS_MAX && m.size_bytes);
	for (uint32_t i = 0; i < m.segment_count; i++) {
		const struct meta_segment *g = &m.segments[i];
		assert(g->ensemble_count >= 1 && g->ensemble_count <= META_REPLICAS_MAX && g->id && g->id >> 48 == 0);
		assert(g->size_blocks >= 2 && g->size_blocks <= SEGMENT_BLOCKS_MAX && (!g->cut || g->length <= g->size_blocks));
	}
	size_t length = 0;
	uint8_t *bytes = meta_log_encode(&m, &length);
	assert(bytes && length <= CATALOG_VALUE_MAX && meta_log_decode(bytes, length, &again) == 0);
	assert(again.segment_count == m.segment_count && again.last_id == m.last_id && again.from_seq == m.from_seq &&
	       memcmp(again.segments, m.segments, m.segment_count * sizeof m.segments[0]) == 0 && strcmp(again.name, m.name) == 0);
	free(bytes);
}

static void fuzz_owner(const uint8_t *b, size_t n)
{
	struct meta_owner m, again;
	if (meta_owner_decode(b, n, &m) < 0)
		return;
	TEXT(m.holder);
	TEXT(m.control);
	TEXT(m.host);
	assert(m.state <= OWNER_OFFERED);
	size_t length = 0;
	uint8_t *bytes = meta_owner_encode(&m, &length);
	assert(bytes && meta_owner_decode(bytes, length, &again) == 0 && again.epoch == m.epoch && again.pid == m.pid);
	free(bytes);
}

static void fuzz_snapshot(const uint8_t *b, size_t n)
{
	struct meta_snapshot m, again;
	if (meta_snapshot_decode(b, n, &m) < 0)
		return;
	TEXT(m.name);
	size_t length = 0;
	uint8_t *bytes = meta_snapshot_encode(&m, &length);
	assert(bytes && meta_snapshot_decode(bytes, length, &again) == 0 && again.mark_seq == m.mark_seq && again.node_end == m.node_end);
	free(bytes);
}

static void fuzz_name(const uint8_t *b, size_t n)
{
	struct meta_name m, again;
	if (meta_name_decode(b, n, &m) < 0)
		return;
	assert(m.volume && m.history_count <= META_HISTORY_MAX);
	size_t length = 0;
	uint8_t *bytes = meta_name_encode(&m, &length);
	assert(bytes && meta_name_decode(bytes, length, &again) == 0 && again.volume == m.volume &&
	       memcmp(again.history, m.history, m.history_count * sizeof m.history[0]) == 0);
	free(bytes);
}

static void fuzz_agent(const uint8_t *b, size_t n)
{
	struct meta_agent m;
	if (meta_agent_decode(b, n, &m) == 0) {
		TEXT(m.address);
		TEXT(m.version);
	}
}

static void fuzz_server(const uint8_t *b, size_t n)
{
	struct meta_server m;
	if (meta_server_decode(b, n, &m) == 0) {
		TEXT(m.address);
		TEXT(m.domain);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const what[])(const uint8_t *, size_t) = { fuzz_log, fuzz_owner, fuzz_snapshot, fuzz_name, fuzz_server, fuzz_agent };
	if (size >= 1 && data[0] < sizeof what / sizeof what[0])
		what[data[0]](data + 1, size - 1);
	return 0;
}
