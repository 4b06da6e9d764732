/* Which member of etcd is asked first. */
#include <criterion/criterion.h>

#include "parallax/catalog/catalog_etcd_call.h"

static void expect(struct env *env, const char *addresses, unsigned first, unsigned last)
{
	struct etcd_endpoints at;
	unsigned seen = 0;
	cr_assert_eq(etcd_endpoints_parse(addresses, &at, NULL), 0);
	for (unsigned i = 0; i < 200; i++) {
		unsigned n = etcd_first(env, &at);
		cr_assert(n >= first && n <= last, "%s: %u", addresses, n);
		seen |= 1u << n;
	}
	cr_assert_eq(seen, (2u << last) - (1u << first), "%s: %x", addresses, seen);
}

Test(etcd_first, a_member_on_this_host_is_preferred)
{
	struct env *env;
	cr_assert_eq(env_linux_create(0, &env), 0);
	expect(env, "http://192.0.2.1:2379,127.0.0.1:2379,198.51.100.1:2379", 1, 1);
	expect(env, "https://192.0.2.1:2379,localhost:1,127.0.0.9:2", 1, 2);
	expect(env, "http://192.0.2.1:2379,198.51.100.1:2379,etcd3.example:2379", 0, 2);
	cr_assert_eq(env_own_address(env, "0.0.0.1.2"), false);
	if (env_own_address(env, "::1"))
		expect(env, "http://[2001:db8::1]:2379,[::1]:2379", 1, 1);
	env_linux_destroy(env);
}
