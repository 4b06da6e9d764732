/* The sort against the library's. */
#include "parallax/map/positions.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 88172645463325252u;

static uint64_t draw(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static void sorts(size_t count, uint64_t mask)
{
	size_t bytes = count * sizeof(uint64_t);
	uint64_t *a = malloc(bytes + 1), *b = malloc(bytes + 1);
	for (size_t i = 0; i < count; i++)
		a[i] = b[i] = draw() & mask;
	positions_sort(a, count);
	qsort(b, count, sizeof *b, by_value);
	cr_assert_eq(memcmp(a, b, bytes), 0, "%zu with mask %llx", count, (unsigned long long)mask);
	free(a);
	free(b);
}

Test(positions, sorted_as_by_the_library)
{
	static const size_t counts[] = { 0, 1, 2, 63, 64, 65, 1000, 20000 };
	static const uint64_t masks[] = { 0, 0xff, 0xff00, 0xffffff, 0xff000000ff, UINT64_C(0xff00000000000000), UINT64_MAX };
	for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
		for (size_t k = 0; k < sizeof masks / sizeof masks[0]; k++)
			sorts(counts[i], masks[k]);
}
