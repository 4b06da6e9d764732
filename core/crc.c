/* ISA-L does the work (SSE4.2, PCLMULQDQ); it leaves the inversions to the caller. */
#include "core/crc.h"

#include <isa-l/crc.h>

#define PIECE_BYTES (1u << 30) /* ISA-L counts in int */

uint32_t crc32c(uint32_t seed, const void *data, size_t length)
{
	const unsigned char *p = data;
	uint32_t crc = ~seed;
	while (length > 0) {
		size_t piece = length < PIECE_BYTES ? length : PIECE_BYTES;
		crc = crc32_iscsi((unsigned char *)(uintptr_t)p, (int)piece, crc);
		p += piece;
		length -= piece;
	}
	return ~crc;
}
