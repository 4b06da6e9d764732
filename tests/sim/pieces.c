#include "tests/sim/pieces.h"

#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/fiber.h"

enum { PIECES_MAX = 400, EXTENTS_MAX = 5, SECTOR = 512 };

static int submit(struct sim *sim, struct blk_node *n, enum blk_op op, uint8_t *buffer, uint64_t length, uint64_t offset, unsigned flags)
{
	struct iovec *iov = calloc(PIECES_MAX, sizeof *iov);
	struct blk_io io = { .op = op, .flags = flags, .offset = offset, .length = length, .iov = iov };
	uint64_t most = 1 + sim_random(sim) % (sim_random(sim) % 2 ? 200 : 5000);
	struct job j;
	for (uint64_t at = 0; at < length;) {
		uint64_t drawn = 1 + sim_random(sim) % most, piece = io.iov_count == PIECES_MAX - 1 ? length - at : MIN(drawn, length - at);
		iov[io.iov_count++] = (struct iovec){ buffer + at, piece };
		at += piece;
	}
	job_init(&j, n->loop);
	blk_submit(n, &io, &j);
	int r = fiber_wait(&j);
	free(iov);
	return r;
}

int pieces_read(struct sim *sim, struct blk_node *n, void *buffer, uint64_t length, uint64_t offset)
{
	return sim_random(sim) % 4 ? blk_read_wait(n, buffer, length, offset) : submit(sim, n, BLK_READ, buffer, length, offset, 0);
}

int pieces_write(struct sim *sim, struct blk_node *n, const void *buffer, uint64_t length, uint64_t offset, unsigned flags)
{
	return sim_random(sim) % 4 ? blk_write_wait(n, buffer, length, offset, flags) : submit(sim, n, BLK_WRITE, (void *)(uintptr_t)buffer, length, offset, flags);
}

int pieces_map(struct blk_node *n, uint64_t offset, uint64_t length, bool *ret_holes)
{
	struct blk_extent extents[EXTENTS_MAX];
	uint64_t done = 0;
	while (done < length) {
		struct blk_map map = { .extents = extents, .max = EXTENTS_MAX };
		int r = blk_map_wait(n, offset + done, length - done, &map);
		if (r < 0)
			return r;
		if (map.count == 0 || map.count > map.max)
			return -EPROTO;
		for (unsigned i = 0; i < map.count; i++) {
			if (extents[i].length == 0 || extents[i].length % SECTOR || extents[i].length > length - done)
				return -EPROTO;
			for (uint64_t end = done + extents[i].length; done < end; done += SECTOR)
				ret_holes[done / SECTOR] = extents[i].flags & BLK_EXTENT_ZERO;
		}
	}
	return 0;
}
