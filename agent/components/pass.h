/* Passing a request on to a child: what drivers that change little have in common. */
#ifndef AQ_PASS_H
#define AQ_PASS_H
#include "core/blk.h"

/* A request of one's own that asks for the same; it borrows the iovec and the map. */
static inline struct blk_io pass_copy(const struct blk_io *io)
{
	return (struct blk_io){ .op = io->op, .flags = io->flags, .offset = io->offset, .length = io->length,
				.iov = io->iov, .iov_count = io->iov_count, .map = io->map };
}
#endif
