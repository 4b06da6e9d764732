/* Sorting positions: a checkpoint has a hundred thousand of them, and the loop waits meanwhile. */
#ifndef AQ_POSITIONS_H
#define AQ_POSITIONS_H
#include <stddef.h>
#include <stdint.h>

/* In place, ascending. Takes as much memory again for a moment; where there is none, it is slower. */
void positions_sort(uint64_t *positions, size_t count);
#endif
