#include "proto/pool.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "proto/frame.h"

Test(pool, never_exceeds_its_limit)
{
	struct pool p;
	struct pool_buffer held[64] = { 0 };
	pool_init(&p, 9 << 20);
	uint64_t x = 1;
	uint64_t refused = 0;
	for (int i = 0; i < 20000; i++) {
		x = x * UINT64_C(6364136223846793005) + 1442695040888963407;
		unsigned slot = (unsigned)(x >> 58);
		if (held[slot].bytes) {
			pool_put(&p, &held[slot]);
			cr_assert_null(held[slot].bytes);
			continue;
		}
		size_t bytes = (x >> 20 & 0xffffff) % (x >> 50 & 1 ? 20000 : FRAME_PAYLOAD_MAX) + 1;
		uint64_t used = p.used;
		int r = pool_get(&p, bytes, &held[slot]);
		if (r == 0) {
			cr_assert_eq((uintptr_t)held[slot].bytes % 4096, 0);
			cr_assert_geq(pool_cost(bytes), bytes);
			cr_assert_eq(p.used, used + pool_cost(bytes));
			memset(held[slot].bytes, (int)slot, bytes);
		} else {
			cr_assert_eq(r, -EAGAIN);
			cr_assert_gt(used + pool_cost(bytes), p.limit);
			refused++;
		}
		cr_assert_leq(p.used + p.kept, p.limit);
	}
	cr_assert_gt(refused, 0);
	for (unsigned i = 0; i < 64; i++)
		pool_put(&p, &held[i]);
	cr_assert_eq(p.used, 0);
	pool_destroy(&p);
}

Test(pool, reuses_what_was_put_back)
{
	struct pool p;
	struct pool_buffer b;
	pool_init(&p, 1 << 20);
	cr_assert_eq(pool_get(&p, 5000, &b), 0);
	void *first = b.bytes;
	pool_put(&p, &b);
	cr_assert_eq(pool_get(&p, 8192, &b), 0);
	cr_assert_eq(b.bytes, first);
	pool_put(&p, &b);
	cr_assert_eq(pool_get(&p, 0, &b), 0);
	cr_assert_null(b.bytes);
	pool_put(&p, &b);
	pool_destroy(&p);
}
