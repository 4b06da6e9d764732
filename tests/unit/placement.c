/* The map of where segments belong: balance, failure domains, how little moves when servers come and go, and what is refused. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "parallax/placement.h"

static struct placed_server server(unsigned n, const char *domain, uint32_t weight)
{
	struct placed_server s = { .weight = weight };
	snprintf((char *)s.id.bytes, sizeof s.id.bytes, "server%u", n);
	snprintf(s.domain, sizeof s.domain, "%s", domain);
	return s;
}

static struct placement *make(unsigned count, const char *const *domains, const uint32_t *weights)
{
	struct placement *p = calloc(1, sizeof *p);
	struct placed_server list[PLACEMENT_SERVERS_MAX];
	for (unsigned i = 0; i < count; i++)
		list[i] = server(i, domains ? domains[i] : "", weights ? weights[i] : 1);
	cr_assert_eq(placement_change(p, list, count), 0);
	return p;
}

static unsigned share(const struct placement *p, unsigned s)
{
	unsigned n = 0;
	for (unsigned g = 0; g < PLACEMENT_GROUPS; g++)
		for (unsigned i = 0; i < p->groups[g].target_count; i++)
			n += p->groups[g].target[i] == s;
	return n;
}

Test(placement, domains_differ)
{
	static const char *const domains[] = { "a", "a", "b", "b", "c", "c", "d" };
	struct placement *p = make(7, domains, NULL);
	cr_assert_eq(placement_domains(p), 4);
	for (unsigned g = 0; g < PLACEMENT_GROUPS; g++) {
		const struct placement_group *k = &p->groups[g];
		cr_assert_eq(k->target_count, 3);
		for (unsigned i = 0; i < 3; i++)
			for (unsigned j = 0; j < i; j++)
				cr_assert_str_neq(p->servers[k->target[i]].domain, p->servers[k->target[j]].domain);
	}
	free(p);
	static const char *const one[] = { "x", "x" };
	p = make(2, one, NULL);
	cr_assert_eq(placement_domains(p), 1);
	for (unsigned g = 0; g < PLACEMENT_GROUPS; g++)
		cr_assert_eq(p->groups[g].target_count, 1);
	free(p);
}

Test(placement, balanced_by_weight)
{
	for (unsigned count = 3; count <= 20; count++) {
		struct placement *p = make(count, NULL, NULL);
		for (unsigned s = 0; s < count; s++) {
			unsigned fair = PLACEMENT_GROUPS * 3 / count, has = share(p, s);
			cr_assert(has * 10 >= fair * 9 - 10 && has * 10 <= fair * 11 + 10, "%u of %u: %u, fair is %u", s, count, has, fair);
		}
		free(p);
	}
	static const uint32_t weights[] = { 1, 1, 1, 1, 2, 2 };
	struct placement *p = make(6, NULL, weights);
	cr_assert(share(p, 4) > share(p, 0) * 3 / 2, "%u %u", share(p, 4), share(p, 0));
	free(p);
}

/* How many targets of `after` weren't targets of the same group in `before`. */
static unsigned moved(const struct placement *before, const struct placement *after)
{
	unsigned n = 0;
	for (unsigned g = 0; g < PLACEMENT_GROUPS; g++)
		for (unsigned i = 0; i < after->groups[g].target_count; i++) {
			bool had = false;
			for (unsigned k = 0; k < before->groups[g].target_count; k++)
				had |= memcmp(&before->servers[before->groups[g].target[k]].id,
					      &after->servers[after->groups[g].target[i]].id, sizeof(uuid)) == 0;
			n += !had;
		}
	return n;
}

Test(placement, a_new_server_moves_its_share_only)
{
	struct placement *p = make(6, NULL, NULL), before = *p;
	struct placed_server list[7];
	memcpy(list, p->servers, 6 * sizeof *list);
	list[6] = server(6, "", 1);
	cr_assert_eq(placement_change(p, list, 7), 0);
	unsigned fair = PLACEMENT_GROUPS * 3 / 7;
	cr_assert(moved(&before, p) <= fair * 3 / 2, "%u moved, its share is %u", moved(&before, p), fair);
	cr_assert(share(p, 6) * 10 >= fair * 9, "%u", share(p, 6));
	/* whoever gave something up is still named, so that it is found */
	for (unsigned g = 0; g < PLACEMENT_GROUPS; g++)
		for (unsigned k = 0; k < 3; k++) {
			uint16_t s = before.groups[g].target[k];
			const struct placement_group *now = &p->groups[g];
			bool named = false;
			for (unsigned i = 0; i < now->target_count; i++)
				named |= now->target[i] == s;
			for (unsigned i = 0; i < now->former_count; i++)
				named |= now->former[i] == s;
			cr_assert(named, "group %u: %u", g, s);
		}
	free(p);
}

Test(placement, a_lost_server_moves_its_share_only)
{
	struct placement *p = make(6, NULL, NULL), before = *p;
	struct placed_server list[5];
	memcpy(list, p->servers, 2 * sizeof *list);
	memcpy(list + 2, p->servers + 3, 3 * sizeof *list);
	unsigned had = share(p, 2);
	cr_assert_eq(placement_change(p, list, 5), 0);
	cr_assert(moved(&before, p) <= had * 3 / 2, "%u moved, it had %u", moved(&before, p), had);
	for (unsigned g = 0; g < PLACEMENT_GROUPS; g++)
		cr_assert_eq(p->groups[g].former_count + p->groups[g].target_count <= 6, 1);
	free(p);
}

Test(placement, round_trip_and_damage)
{
	static const char *const domains[] = { "a", "b", "c", "d" };
	struct placement *p = make(4, domains, NULL), *got = calloc(1, sizeof *got);
	size_t length;
	uint8_t *bytes = placement_encode(p, &length);
	cr_assert(bytes && length < 16384, "%zu", length);
	cr_assert_eq(placement_decode(bytes, length, got), 0);
	cr_assert_eq(memcmp(p, got, sizeof *p), 0);
	for (size_t n = 0; n < length; n += 7)
		cr_assert_eq(placement_decode(bytes, n, got), -EUCLEAN, "cut at %zu", n);
	free(bytes);
	p->groups[17].target[1] = 4; /* a server that isn't there */
	bytes = placement_encode(p, &length);
	cr_assert_eq(placement_decode(bytes, length, got), -EUCLEAN);
	free(bytes);
	free(p);
	free(got);
}

Test(placement, too_many_changes_wait)
{
	struct placement *p = make(3, NULL, NULL);
	struct placed_server list[3];
	int r = 0;
	for (unsigned n = 3; r == 0 && n < 30; n += 3) { /* all three replaced, again and again */
		struct placed_server all[PLACEMENT_SERVERS_MAX];
		memcpy(all, p->servers, p->server_count * sizeof *all);
		for (unsigned i = 0; i < 3; i++) {
			list[i] = server(n + i, "", 1000000); /* so heavy that they take everything */
			all[p->server_count + i] = list[i];
		}
		for (unsigned i = 0; i < p->server_count; i++)
			all[i].weight = 1;
		r = placement_change(p, all, p->server_count + 3);
	}
	cr_assert_eq(r, -EXFULL);
	free(p);
}

Test(placement, who_drains_or_is_lost_gives_up_everything_and_gets_it_back)
{
	struct placement *p = make(5, NULL, NULL), before = *p;
	struct placed_server list[5];
	memcpy(list, p->servers, sizeof list);
	list[1].state = PLACED_DRAINING;
	list[4].state = PLACED_LOST;
	cr_assert_eq(placement_change(p, list, 5), 0);
	cr_assert(share(p, 1) == 0 && share(p, 4) == 0 && share(p, 0) == 256 && share(p, 2) == 256 && share(p, 3) == 256);
	uint8_t gone[PLACEMENT_SERVERS_MAX / 8] = { 1 << 4 };
	unsigned forgotten = 0;
	for (unsigned g = 0; g < PLACEMENT_GROUPS; g++) {
		unsigned named = 0;
		forgotten += placement_forget_former(p, g, gone);
		for (unsigned i = 0; i < p->groups[g].former_count; i++) {
			cr_assert_neq(p->groups[g].former[i], 4);
			named += p->groups[g].former[i] == 1;
		}
		unsigned was = 0;
		for (unsigned i = 0; i < before.groups[g].target_count; i++)
			was += before.groups[g].target[i] == 1;
		cr_assert_eq(named, was, "what may be there still is found");
		cr_assert(!placement_forget_former(p, g, gone));
	}
	cr_assert_eq(forgotten, share(&before, 4));
	size_t length;
	uint8_t *bytes = placement_encode(p, &length);
	struct placement *got = calloc(1, sizeof *got);
	cr_assert(placement_decode(bytes, length, got) == 0 && got->servers[1].state == PLACED_DRAINING && got->servers[4].state == PLACED_LOST);
	free(bytes);
	list[1].state = list[4].state = PLACED_IN;
	cr_assert_eq(placement_change(p, list, 5), 0);
	for (unsigned s = 0; s < 5; s++)
		cr_assert(share(p, s) >= 140 && share(p, s) <= 165, "%u: %u", s, share(p, s));
	free(got);
	free(p);
}
