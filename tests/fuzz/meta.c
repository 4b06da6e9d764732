/* What the catalog says of volumes, servers and agents, what servers list of their copies, and what tapdisks answer to who asks about a volume: bytes to structs. The first
 * byte says which. What is accepted keeps within its limits, ends its
 * texts, and comes back the same when it is encoded and decoded again. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon/state.h"
#include "parallax/segment/placement.h"
#include "parallax/segment/segment_share.h"
#include "parallax/volume/volume_group.h"
#include "parallax/volume/volume_status.h"

#define TEXT(field) assert(memchr(field, 0, sizeof(field)))

/* Field by field: there is room between them, of which nothing is known. */
static bool segments_equal(const struct meta_segment *a, const struct meta_segment *b, uint32_t count)
{
	bool same = true;
	for (; count > 0; count--, a++, b++) {
		same &= a->id == b->id && a->epoch == b->epoch && a->salt == b->salt && a->size_blocks == b->size_blocks &&
			a->ensemble_count == b->ensemble_count && a->cut == b->cut && a->length == b->length && a->prev == b->prev;
		for (uint32_t i = 0; i < a->ensemble_count; i++)
			same &= memcmp(&a->ensemble[i].server, &b->ensemble[i].server, sizeof(uuid)) == 0 && a->ensemble[i].incarnation == b->ensemble[i].incarnation;
	}
	return same;
}

static void fuzz_log(const uint8_t *b, size_t n)
{
	static struct meta_log m, again;
	if (meta_log_decode(b, n, &m) < 0)
		return;
	TEXT(m.name);
	assert(m.segment_count <= META_SEGMENTS_MAX && m.unsealed_count <= META_UNSEALED_MAX && m.size_bytes);
	for (uint32_t i = 0; i < m.segment_count + m.unsealed_count; i++) {
		const struct meta_segment *g = i < m.segment_count ? &m.segments[i] : &m.unsealed[i - m.segment_count];
		assert(g->ensemble_count >= 1 && g->ensemble_count <= META_REPLICAS_MAX && g->id && g->id >> 48 == 0);
		assert(g->size_blocks >= 2 && g->size_blocks <= SEGMENT_BLOCKS_MAX && (!g->cut || g->length <= g->size_blocks));
	}
	size_t length = 0;
	uint8_t *bytes = meta_log_encode(&m, &length);
	assert(bytes && length <= CATALOG_VALUE_MAX && meta_log_decode(bytes, length, &again) == 0);
	assert(again.segment_count == m.segment_count && again.last_id == m.last_id && again.from_seq == m.from_seq &&
	       segments_equal(again.segments, m.segments, m.segment_count) && again.unsealed_count == m.unsealed_count &&
	       segments_equal(again.unsealed, m.unsealed, m.unsealed_count) && strcmp(again.name, m.name) == 0);
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
		TEXT(m.host);
	}
}

static void fuzz_placement(const uint8_t *b, size_t n)
{
	static struct placement m, again;
	if (placement_decode(b, n, &m) < 0)
		return;
	assert(m.server_count <= PLACEMENT_SERVERS_MAX);
	for (uint32_t i = 0; i < m.server_count; i++) {
		TEXT(m.servers[i].domain);
		assert(m.servers[i].state <= PLACED_LOST);
	}
	assert(placement_groups_valid(m.group_count));
	for (unsigned g = 0; g < m.group_count; g++) {
		const struct placement_group *p = &m.groups[g];
		assert(p->target_count <= META_REPLICAS_MAX && p->former_count <= PLACEMENT_FORMER_MAX);
		for (unsigned i = 0; i < p->target_count; i++)
			assert(p->target[i] < m.server_count);
		for (unsigned i = 0; i < p->former_count; i++)
			assert(p->former[i] < m.server_count);
	}
	size_t length = 0;
	uint8_t *bytes = placement_encode(&m, &length);
	assert(bytes && placement_decode(bytes, length, &again) == 0 && again.revision == m.revision && again.server_count == m.server_count && again.group_count == m.group_count);
	free(bytes);
}

/* Pages that servers give one another: entries, and blocks with their checksums, which the input needn't guess. */
static void fuzz_share(const uint8_t *b, size_t n)
{
	static uint8_t page[SHARE_HEAD_BYTES + 4 * BLOCK_BYTES];
	struct share_entry e;
	uint32_t count;
	if (n >= SHARE_ENTRY_BYTES && share_entry_decode(b, &e) == 0)
		assert(e.header.segment && e.header.segment >> 48 == 0 && e.header.size_blocks <= SEGMENT_BLOCKS_MAX && e.length <= e.header.size_blocks);
	if (n < 3)
		return;
	size_t blocks = b[0] % 5;
	uint32_t from = b[1], length = b[2];
	memset(page, 0, SHARE_HEAD_BYTES);
	memcpy(page, b + 3, n - 3 < SHARE_HEAD_BYTES ? n - 3 : SHARE_HEAD_BYTES);
	if (share_page_check(page, SHARE_HEAD_BYTES + blocks * BLOCK_BYTES, from, length, &count) == 0)
		assert(count == blocks && (count == 0 || (share_head_block(page, 0) >= from && share_head_block(page, count - 1) < length)));
}

static void fuzz_answers(const uint8_t *b, size_t n)
{
	char *text = strndup((const char *)b, n);
	struct volume_status status;
	struct volume_mark mark;
	struct tap_state state;
	if (!text)
		return;
	if (volume_status_decode(text, &status) == 0) {
		TEXT(status.waits_for);
		for (const char *p = status.waits_for; *p; p++)
			assert(*p >= ' ');
	}
	if (volume_mark_decode(text, &mark) == 0)
		assert(mark.seq);
	if (tap_state_decode(text, strlen(text), &state, NULL) == 0) {
		assert(state.pid > 0 && state.device_count <= STATE_DEVICES_MAX);
		TEXT(state.name);
		tap_state_free(&state);
	}
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const what[])(const uint8_t *, size_t) = { fuzz_log, fuzz_owner, fuzz_snapshot, fuzz_name, fuzz_server, fuzz_agent,
							   fuzz_placement, fuzz_share, fuzz_answers };
	if (size >= 1 && data[0] < sizeof what / sizeof what[0])
		what[data[0]](data + 1, size - 1);
	return 0;
}
