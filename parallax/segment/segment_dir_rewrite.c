/* Writing again what is there, when nobody can say that it is durable: a sync failed once, or may have failed in a process
 * that could write down neither its data nor that. What a read brought is checked against what the scan saw first, or a bit
 * that flipped on the way would stay. What a record says was flushed had been synced here, too, by a sync that succeeded: the
 * rest is at most what an owner keeps unsynced (R14). */
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "parallax/segment/segment_dir.h"

#define READ_TRIES 3

static bool as_scanned(const struct copy *c, const uint8_t *bytes, uint32_t block, uint32_t blocks)
{
	for (uint32_t i = 0; i < blocks; i++)
		if (crc32c(0, bytes + (size_t)i * BLOCK_BYTES, BLOCK_BYTES) != c->crcs[block + i])
			return false;
	return true;
}

static int read_scanned(const struct copy *c, uint8_t *bytes, uint32_t block, uint32_t blocks)
{
	size_t length = (size_t)blocks * BLOCK_BYTES;
	int r = -EIO;
	for (int i = 0; i < READ_TRIES && r == -EIO; i++) {
		size_t done = 0;
		r = file_read_wait(c->file, bytes, length, COPY_BASE + (uint64_t)block * BLOCK_BYTES, &done);
		if (r == 0 && (done != length || !as_scanned(c, bytes, block, blocks)))
			r = -EIO;
	}
	return r;
}

int copy_rewrite(struct copy *c)
{
	uint8_t *bytes = env_alloc_aligned(RECORD_BYTES_MAX);
	int r = bytes && c->crcs ? 0 : -ENOMEM;
	for (uint32_t block = c->flushed, n; r == 0 && block < c->length; block += n) {
		n = MIN(c->length - block, (uint32_t)RECORD_BLOCKS_MAX);
		r = read_scanned(c, bytes, block, n);
		if (r == 0)
			r = file_write_wait(c->file, bytes, (size_t)n * BLOCK_BYTES, COPY_BASE + (uint64_t)block * BLOCK_BYTES);
	}
	free(bytes);
	return r;
}
