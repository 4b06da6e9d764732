#include "server/found.h"

#include <errno.h>

#include "core/bytes.h"
#include "parallax/format.h"

static bool covers(const struct found_range *a, const struct found_range *b)
{
	return a->segment == b->segment && a->block <= b->block && b->block + b->blocks <= a->block + a->blocks;
}

int found_add(struct found *f, const struct found_range *range)
{
	if (range->segment == 0 || range->segment > SEGMENT_ID_MAX || range->blocks == 0 || range->blocks > FOUND_BLOCKS_MAX ||
	    !range_within(range->block, range->blocks, SEGMENT_BLOCKS_MAX))
		return -EINVAL;
	for (uint64_t i = f->taken; i < f->added; i++)
		if (covers(&f->range[i % FOUND_WAITING], range))
			return 0;
	if (f->added - f->taken == FOUND_WAITING)
		return -EBUSY;
	f->range[f->added++ % FOUND_WAITING] = *range;
	return 0;
}

bool found_take(struct found *f, struct found_range *ret)
{
	if (!found_waits(f))
		return false;
	*ret = f->range[f->taken++ % FOUND_WAITING];
	return true;
}

bool found_is_news(struct found *f, uint64_t segment, uint32_t block)
{
	struct found_range one = { segment, block, 1 };
	for (unsigned i = 0; i < MIN(f->known_count, (uint64_t)FOUND_KNOWN); i++)
		if (covers(&f->known[i], &one))
			return false;
	f->known[f->known_count++ % FOUND_KNOWN] = one;
	return true;
}
