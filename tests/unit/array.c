#include "core/array.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

/* What was added is there, and there is always room for what is added next, also after some were taken away. */
Test(array, one_more_at_a_time)
{
	uint64_t *a = NULL;
	size_t count = 0;
	for (unsigned round = 0; round < 6; round++) {
		for (unsigned i = 0; i < 300; i++) {
			cr_assert_eq(array_more(&a, count), 0);
			cr_assert_geq(malloc_usable_size(a), (count + 1) * sizeof *a, "%zu", count);
			a[count] = count * 7;
			count++;
		}
		for (size_t i = 0; i < count; i++)
			cr_assert_eq(a[i], i * 7);
		count = round == 3 ? 0 : count - 299; /* down to what was there once */
	}
	free(a);
}

Test(array, grows_seldom)
{
	char (*a)[24] = NULL;
	unsigned moves = 0;
	for (size_t count = 0; count < 5000; count++) {
		size_t before = a ? malloc_usable_size(a) : 0;
		cr_assert_eq(array_more(&a, count), 0);
		moves += malloc_usable_size(a) != before;
	}
	cr_assert_leq(moves, 12);
	free(a);
}

Test(array, room_that_is_remembered)
{
	uint32_t *a = NULL, room = 0;
	cr_assert(array_reserve(&a, &room, 1) == 0 && room >= 1);
	cr_assert(array_reserve(&a, &room, 1000) == 0 && room >= 1000);
	uint32_t before = room;
	cr_assert(array_reserve(&a, &room, before) == 0 && room == before);
	cr_assert(array_reserve(&a, &room, before + 1) == 0 && room >= 2 * before);
	free(a);
}

Test(array, places)
{
	struct {
		char other;
		uint64_t id;
	} a[] = { { 'a', 3 }, { 'b', 5 }, { 'c', 5 }, { 'd', UINT64_MAX } };
	for (size_t count = 0; count <= 4; count++)
		for (uint64_t key = 0; key < 8; key++) {
			size_t slow = 0;
			while (slow < count && a[slow].id < key)
				slow++;
			cr_assert_eq(array_place(a, count, id, key), slow);
		}
	cr_assert_eq(array_place(a, 4, id, UINT64_MAX), 3);
}

/* Counts that a peer or a file says: never more memory than the limit, and never less than was asked for. */
Test(array, limits)
{
	uint64_t *a = NULL;
	uint32_t room = 0;
	cr_assert_eq(array_more(&a, ARRAY_BYTES_MAX / sizeof *a), -ENOMEM);
	cr_assert_eq(array_more(&a, (size_t)1 << 63), -ENOMEM);
	cr_assert_eq(array_reserve(&a, &room, ARRAY_BYTES_MAX / sizeof *a + 1), -ENOMEM);
	cr_assert_eq(array_reserve(&a, &room, SIZE_MAX / 2), -ENOMEM);
	cr_assert(a == NULL && room == 0);
	room = ARRAY_BYTES_MAX / sizeof *a - 10; /* doubled it would be too much */
	cr_assert_eq(array_reserve(&a, &room, ARRAY_BYTES_MAX / sizeof *a - 5), 0);
	cr_assert_eq(room, ARRAY_BYTES_MAX / sizeof *a - 5);
	free(a);
}
