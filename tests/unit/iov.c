/* iovec helpers, against a flat copy of the same bytes. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/blk.h"

#define FLAT 64
static char memory[200];
/* Pieces of odd lengths, some empty, FLAT bytes in all, not adjacent in memory. */
static const size_t lengths[] = { 0, 1, 7, 0, 0, 16, 3, 24, 13, 0 };
#define COUNT ((int)(sizeof lengths / sizeof lengths[0]))
static struct iovec iov[COUNT];

static void setup(void)
{
	char *p = memory;
	for (int i = 0; i < COUNT; i++) {
		iov[i] = (struct iovec){ p, lengths[i] };
		p += lengths[i] + 5;
	}
	memset(memory, '#', sizeof memory);
}

static void flatten(char *to)
{
	for (int i = 0; i < COUNT; i++) {
		memcpy(to, iov[i].iov_base, iov[i].iov_len);
		to += iov[i].iov_len;
	}
}

/* Nothing was written between the pieces. */
static void check_gaps(void)
{
	for (int i = 0; i < COUNT; i++)
		for (size_t k = 0; k < 5; k++)
			cr_assert_eq(((char *)iov[i].iov_base)[iov[i].iov_len + k], '#');
}

TestSuite(iov, .init = setup);

Test(iov, bytes)
{
	cr_assert_eq(iov_bytes(iov, COUNT), FLAT);
	cr_assert_eq(iov_bytes(iov, 0), 0);
}

Test(iov, every_sub_range_scatters_gathers_and_zeroes)
{
	char from[FLAT], want[FLAT], got[FLAT];
	for (size_t i = 0; i < FLAT; i++)
		from[i] = (char)('A' + i % 26);
	for (size_t skip = 0; skip <= FLAT; skip++)
		for (size_t n = 0; skip + n <= FLAT; n++) {
			setup();
			memset(want, '#', FLAT);
			memcpy(want + skip, from, n);
			iov_scatter(iov, COUNT, skip, from, n);
			flatten(got);
			cr_assert_arr_eq(got, want, FLAT);
			iov_gather(iov, COUNT, skip, got, n);
			cr_assert_arr_eq(got, from, n);
			iov_zero(iov, COUNT, skip, n);
			memset(want + skip, 0, n);
			flatten(got);
			cr_assert_arr_eq(got, want, FLAT);
			check_gaps();
		}
}

Test(iov, every_slice_holds_the_right_bytes)
{
	char all[FLAT], part[FLAT];
	struct iovec slice[COUNT];
	for (size_t i = 0; i < FLAT; i++)
		all[i] = (char)i;
	iov_scatter(iov, COUNT, 0, all, FLAT);
	for (size_t skip = 0; skip <= FLAT; skip++)
		for (size_t n = 0; skip + n <= FLAT; n++) {
			int count = iov_slice(iov, COUNT, skip, n, slice, COUNT);
			cr_assert_geq(count, 0);
			cr_assert_eq(iov_bytes(slice, count), n);
			iov_gather(slice, count, 0, part, n);
			cr_assert_arr_eq(part, all + skip, n);
			/* exactly that many entries are needed, and one less is refused */
			cr_assert_eq(iov_slice(iov, COUNT, skip, n, slice, count), count);
			if (count > 0)
				cr_assert_eq(iov_slice(iov, COUNT, skip, n, slice, count - 1), -1);
		}
}

Test(iov, every_rest_holds_the_right_bytes)
{
	char all[FLAT], part[FLAT];
	struct iovec rest[COUNT];
	for (size_t i = 0; i < FLAT; i++)
		all[i] = (char)i;
	iov_scatter(iov, COUNT, 0, all, FLAT);
	for (size_t skip = 0; skip <= FLAT; skip++)
		for (int max = 1; max <= COUNT; max++) {
			int count;
			uint64_t n = iov_rest(iov, COUNT, skip, rest, max, &count);
			cr_assert_leq(count, max);
			cr_assert_eq(iov_bytes(rest, count), n);
			cr_assert(n == FLAT - skip || count == max);
			iov_gather(rest, count, 0, part, n);
			cr_assert_arr_eq(part, all + skip, n);
		}
}

Test(iov, aligned)
{
	char *p = aligned_alloc(4096, 8192);
	struct iovec v[2] = { { p, 512 }, { p + 4096, 1024 } };
	cr_assert(iov_aligned(v, 2, 512, 512));
	cr_assert(iov_aligned(v, 2, 4096, 512));
	cr_assert_not(iov_aligned(v, 2, 512, 1024));
	v[1].iov_base = p + 4096 + 256;
	cr_assert_not(iov_aligned(v, 2, 512, 512));
	cr_assert(iov_aligned(v, 2, 256, 512));
	cr_assert(iov_aligned(v, 2, 1, 1));
	free(p);
}
