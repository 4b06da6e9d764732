/* Arrays that grow, at least by doubling, so that a thousand additions copy little. `array` is the address of a pointer that is NULL or
 * came from here; whoever has it frees it. 0, or -ENOMEM, also for more than ARRAY_BYTES_MAX: then nothing has changed. */
#ifndef AQ_ARRAY_H
#define AQ_ARRAY_H
#include <stddef.h>
#include <stdint.h>

#define ARRAY_BYTES_MAX ((size_t)1 << 30)

/* Room for one more behind `count` entries. Grows at the powers of two, so nobody has to remember how much room there is; which is why
 * every entry must have been added so. */
#define array_more(array, count) array_more_bytes((array), (count), sizeof **(array))
/* Room for `count` entries; `room` (uint32_t *) remembers for how many there is. */
#define array_reserve(array, room, count) array_reserve_bytes((array), (room), (count), sizeof **(array))

int array_more_bytes(void *array, size_t count, size_t size);
int array_reserve_bytes(void *array, uint32_t *room, size_t count, size_t size);
#endif
