/* Arrays that grow, at least by doubling, so that a thousand additions copy little. `array` is the address of a pointer that is NULL or
 * came from here; whoever has it frees it. 0, or -ENOMEM, also for more than ARRAY_BYTES_MAX: then nothing has changed. */
#ifndef AQ_ARRAY_H
#define AQ_ARRAY_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ARRAY_BYTES_MAX ((size_t)1 << 30)

/* Room for one more behind `count` entries. Grows at the powers of two, so nobody has to remember how much room there is; which is why
 * every entry must have been added so. */
#define array_more(array, count) array_more_bytes((array), (count), sizeof **(array))
/* Room for `count` entries; `room` (uint32_t *) remembers for how many there is. */
#define array_reserve(array, room, count) array_reserve_bytes((array), (room), (count), sizeof **(array))

/* Of an array in ascending order of its entries' `member`, a uint64_t: the index of the first that isn't below `key`; `count`: all are. */
#define array_place(array, count, member, key) array_place_bytes((array), (count), sizeof *(array), offsetof(__typeof__(*(array)), member), (key))
static inline size_t array_place_bytes(const void *array, size_t count, size_t size, size_t key_at, uint64_t key)
{
	size_t low = 0, high = count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		uint64_t there;
		memcpy(&there, (const char *)array + middle * size + key_at, sizeof there);
		if (there < key)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int array_more_bytes(void *array, size_t count, size_t size);
int array_reserve_bytes(void *array, uint32_t *room, size_t count, size_t size);
#endif
