/* Header and map pages of a cow layer: any bytes give an answer, and what is accepted keeps its promises. */
#include <stdlib.h>
#include <string.h>

#include "agent/components/cow_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t pages[2 * COW_PAGE];
	struct cow_header h;
	uint64_t sequence;
	memset(pages, 0, sizeof pages);
	memcpy(pages, data, size < sizeof pages ? size : sizeof pages);
	if (cow_header_choose(pages, &h) == COW_OK &&
	    (h.size == 0 || h.size > COW_SIZE_MAX || h.size % 512 || h.parent_size > h.size))
		abort();
	/* With a right checksum the fields behind it are reached as well. */
	cow_map_seal(pages, 1, 2, 3);
	if (cow_map_check(pages, 1, 2, &sequence) == COW_OK)
		for (unsigned b = 0; b < COW_GROUP_BLOCKS; b++)
			if (cow_state_get(pages + COW_STATE_START, b) == COW_INVALID)
				abort();
	return 0;
}
