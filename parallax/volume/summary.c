#include "parallax/volume/summary.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/env.h"
#include "proto/store.pb-c.h"

/* Before the message: 0 magic, 8 bytes of message u32, 12 zero, 16 CRC32C of its second block and each that follows. */
#define MAGIC UINT64_C(0x31594d4d55535141) /* "AQSUMMY1" */
enum { CRCS_AT = 16, HEADER_BYTES = CRCS_AT + 4 * SUMMARY_BLOCKS_MAX, SUMMARY_VERSION = 1 };

static uint8_t *pack(const Aquifer__Store__Summary *m, size_t *ret_length)
{
	size_t length = aquifer__store__summary__get_packed_size(m);
	uint8_t *b = length <= (size_t)SUMMARY_BLOCKS_MAX * BLOCK_BYTES - HEADER_BYTES ? env_alloc_aligned(round_up(HEADER_BYTES + length, BLOCK_BYTES)) : NULL;
	if (!b)
		return NULL;
	memset(b, 0, round_up(HEADER_BYTES + length, BLOCK_BYTES));
	put_le64(b, MAGIC);
	put_le32(b + 8, (uint32_t)length);
	aquifer__store__summary__pack(m, b + HEADER_BYTES);
	for (size_t i = 1; i < div_up(HEADER_BYTES + length, BLOCK_BYTES); i++)
		put_le32(b + CRCS_AT + 4 * (i - 1), crc32c(0, b + i * BLOCK_BYTES, BLOCK_BYTES));
	*ret_length = HEADER_BYTES + length;
	return b;
}

uint8_t *summary_encode(const struct summary *s, size_t *ret_length)
{
	Aquifer__Store__Summary m = AQUIFER__STORE__SUMMARY__INIT;
	ProtobufCBinaryData snapshots[SUMMARY_SNAPSHOTS_MAX] = { 0 };
	uint8_t *bytes = NULL;
	m.version = SUMMARY_VERSION;
	m.volume = s->volume;
	m.written_ns = s->written_ns;
	m.log.data = meta_log_encode(&s->log, &m.log.len);
	m.snapshots = snapshots;
	bool whole = m.log.data != NULL;
	for (; whole && m.n_snapshots < MIN(s->snapshot_count, (uint32_t)SUMMARY_SNAPSHOTS_MAX); m.n_snapshots++) {
		ProtobufCBinaryData *d = &snapshots[m.n_snapshots];
		d->data = meta_snapshot_encode(&s->snapshots[m.n_snapshots], &d->len);
		whole = d->data != NULL;
	}
	if (whole)
		bytes = pack(&m, ret_length);
	for (unsigned i = 0; i < SUMMARY_SNAPSHOTS_MAX; i++)
		free(snapshots[i].data);
	free(m.log.data);
	return bytes;
}

bool summary_begins(const void *block, size_t *ret_length)
{
	const uint8_t *b = block;
	*ret_length = HEADER_BYTES + (size_t)get_le32(b + 8);
	return get_le64(b) == MAGIC && *ret_length <= (size_t)SUMMARY_BLOCKS_MAX * BLOCK_BYTES;
}

uint32_t summary_crc(const void *block, uint32_t i) { return get_le32((const uint8_t *)block + CRCS_AT + 4 * (size_t)(i - 1)); }

static int unpack(const Aquifer__Store__Summary *m, struct summary *ret)
{
	if (m->version > SUMMARY_VERSION)
		return -EPROTONOSUPPORT;
	if (m->n_snapshots > SUMMARY_SNAPSHOTS_MAX || m->volume == 0)
		return -EUCLEAN;
	ret->volume = m->volume;
	ret->written_ns = m->written_ns;
	int r = meta_log_decode(m->log.data, m->log.len, &ret->log);
	ret->snapshots = calloc(m->n_snapshots + 1, sizeof *ret->snapshots);
	if (!ret->snapshots)
		return -ENOMEM;
	for (; r == 0 && ret->snapshot_count < m->n_snapshots; ret->snapshot_count++) {
		const ProtobufCBinaryData *d = &m->snapshots[ret->snapshot_count];
		r = meta_snapshot_decode(d->data, d->len, &ret->snapshots[ret->snapshot_count]);
	}
	return r;
}

int summary_decode(const void *bytes, size_t length, struct summary *ret)
{
	size_t said;
	*ret = (struct summary){ 0 };
	if (length < BLOCK_BYTES || !summary_begins(bytes, &said) || said > length)
		return -EUCLEAN;
	Aquifer__Store__Summary *m = aquifer__store__summary__unpack(NULL, said - HEADER_BYTES, (const uint8_t *)bytes + HEADER_BYTES);
	if (!m)
		return -EUCLEAN;
	int r = unpack(m, ret);
	aquifer__store__summary__free_unpacked(m, NULL);
	if (r < 0)
		summary_free(ret);
	return r;
}

void summary_free(struct summary *s)
{
	free(s->snapshots);
	*s = (struct summary){ 0 };
}
