#include "core/array.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"

enum { FIRST = 4 }; /* entries */

static int resize(void *array, size_t count, size_t size)
{
	size_t bytes;
	void *p;
	if (__builtin_mul_overflow(count, size, &bytes) || bytes > ARRAY_BYTES_MAX)
		return -ENOMEM;
	memcpy(&p, array, sizeof p);
	p = realloc(p, bytes);
	if (!p)
		return -ENOMEM;
	memcpy(array, &p, sizeof p);
	return 0;
}

int array_more_bytes(void *array, size_t count, size_t size)
{
	if (count == 0)
		return resize(array, FIRST, size);
	return count < FIRST || !is_power_of_two(count) ? 0 : count > SIZE_MAX / 2 ? -ENOMEM : resize(array, 2 * count, size);
}

int array_reserve_bytes(void *array, uint32_t *room, size_t count, size_t size)
{
	if (count <= *room)
		return 0;
	if (count > UINT32_MAX)
		return -ENOMEM;
	size_t want = MIN(MAX(count, *room ? (size_t)*room * 2 : FIRST), (size_t)UINT32_MAX);
	if (resize(array, want, size) < 0 && (want == count || resize(array, want = count, size) < 0)) /* no room to double may be room enough */
		return -ENOMEM;
	*room = (uint32_t)want;
	return 0;
}
