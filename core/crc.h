/* CRC32C (Castagnoli), as iSCSI, ext4 and NVMe define it. */
#ifndef AQ_CRC_H
#define AQ_CRC_H
#include <stddef.h>
#include <stdint.h>

/* CRC32C of `length` bytes; `seed` is 0 to begin, or the CRC of what comes before:
 * crc32c(crc32c(0, a), b) is the CRC of a and b together. */
uint32_t crc32c(uint32_t seed, const void *data, size_t length);
#endif
