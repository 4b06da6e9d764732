#include "core/crc.h"

#include <criterion/criterion.h>
#include <string.h>

/* The obvious bit-by-bit form. */
static uint32_t crc_slow(const void *data, size_t length)
{
	const uint8_t *p = data;
	uint32_t crc = ~0u;
	for (size_t i = 0; i < length; i++) {
		crc ^= p[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

Test(crc, known_vectors)
{
	uint8_t block[32];
	cr_assert_eq(crc32c(0, "", 0), 0);
	cr_assert_eq(crc32c(0, "123456789", 9), 0xe3069283u);
	memset(block, 0, sizeof block); /* RFC 3720, B.4 */
	cr_assert_eq(crc32c(0, block, sizeof block), 0x8a9136aau);
	memset(block, 0xff, sizeof block);
	cr_assert_eq(crc32c(0, block, sizeof block), 0x62a8ab43u);
}

Test(crc, any_length_and_alignment_as_bit_by_bit)
{
	uint8_t data[4400];
	uint32_t x = 1;
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)((x = x * 1103515245u + 12345u) >> 16);
	for (size_t length = 0; length < 300; length++)
		cr_assert_eq(crc32c(0, data + length % 9, length), crc_slow(data + length % 9, length));
	for (size_t length = 4000; length < 4200; length += 7)
		cr_assert_eq(crc32c(0, data + length % 9, length), crc_slow(data + length % 9, length));
}

Test(crc, continues_from_a_seed)
{
	const char *text = "many taps, one body of water";
	size_t n = strlen(text);
	for (size_t cut = 0; cut <= n; cut++)
		cr_assert_eq(crc32c(crc32c(0, text, cut), text + cut, n - cut), crc32c(0, text, n));
}
