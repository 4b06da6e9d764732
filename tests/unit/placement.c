/* The map of where segments belong: balance, failure domains, how little moves when servers come and go, and what is refused. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/segment/placement.h"
#include "tests/sim/catalog_sim.h"

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
	cr_assert_eq(placement_change(p, list, count, true), 0);
	return p;
}

static unsigned share(const struct placement *p, unsigned s)
{
	unsigned n = 0;
	for (unsigned g = 0; g < p->group_count; g++)
		for (unsigned i = 0; i < p->groups[g].target_count; i++)
			n += p->groups[g].target[i] == s;
	return n;
}

Test(placement, domains_differ)
{
	static const char *const domains[] = { "a", "a", "b", "b", "c", "c", "d" };
	struct placement *p = make(7, domains, NULL);
	cr_assert_eq(placement_domains(p), 4);
	for (unsigned g = 0; g < p->group_count; g++) {
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
	for (unsigned g = 0; g < p->group_count; g++)
		cr_assert_eq(p->groups[g].target_count, 1);
	free(p);
}

Test(placement, balanced_by_weight)
{
	for (unsigned count = 3; count <= 20; count++) {
		struct placement *p = make(count, NULL, NULL);
		for (unsigned s = 0; s < count; s++) {
			unsigned fair = p->group_count * 3 / count, has = share(p, s);
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
	for (unsigned g = 0; g < after->group_count; g++)
		for (unsigned i = 0; i < after->groups[g].target_count; i++) {
			bool had = false;
			for (unsigned k = 0; k < before->groups[g % before->group_count].target_count; k++)
				had |= memcmp(&before->servers[before->groups[g % before->group_count].target[k]].id,
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
	cr_assert_eq(placement_change(p, list, 7, true), 0);
	unsigned fair = p->group_count * 3 / 7;
	cr_assert(moved(&before, p) <= fair * 3 / 2, "%u moved, its share is %u", moved(&before, p), fair);
	cr_assert(share(p, 6) * 10 >= fair * 9, "%u", share(p, 6));
	/* whoever gave something up is still named, so that it is found */
	for (unsigned g = 0; g < p->group_count; g++)
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
	cr_assert_eq(placement_change(p, list, 5, true), 0);
	cr_assert(moved(&before, p) <= had * 3 / 2, "%u moved, it had %u", moved(&before, p), had);
	for (unsigned g = 0; g < p->group_count; g++)
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
		r = placement_change(p, all, p->server_count + 3, true);
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
	cr_assert_eq(placement_change(p, list, 5, true), 0);
	cr_assert(share(p, 1) == 0 && share(p, 4) == 0 && share(p, 0) == 256 && share(p, 2) == 256 && share(p, 3) == 256);
	uint8_t gone[PLACEMENT_SERVERS_MAX / 8] = { 1 << 4 };
	unsigned forgotten = 0;
	for (unsigned g = 0; g < p->group_count; g++) {
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
	cr_assert_eq(placement_change(p, list, 5, true), 0);
	for (unsigned s = 0; s < 5; s++)
		cr_assert(share(p, s) >= 140 && share(p, s) <= 165, "%u: %u", s, share(p, s));
	free(got);
	free(p);
}

/* ---- balance: within a tenth of what the weights say, at each size, at each position, and next to nothing moves that need not ---- */

static double want(const struct placement *p, unsigned s)
{
	double all = 0;
	for (uint32_t i = 0; i < p->server_count; i++)
		all += p->servers[i].state == PLACED_IN ? p->servers[i].weight : 0;
	return 3.0 * p->group_count * p->servers[s].weight / all;
}

/* Of the first `copies` of each segment. */
static unsigned share_of_first(const struct placement *p, unsigned s, unsigned copies)
{
	unsigned n = 0;
	for (unsigned g = 0; g < p->group_count; g++)
		for (unsigned i = 0; i < copies && i < p->groups[g].target_count; i++)
			n += p->groups[g].target[i] == s;
	return n;
}

static void expect_balanced(const struct placement *p)
{
	for (unsigned s = 0; s < p->server_count; s++) {
		double fair = want(p, s);
		cr_assert(share(p, s) > 0.9 * fair && share(p, s) < 1.1 * fair, "%u of %u servers: %u of %u, fair is %.1f", s, p->server_count, share(p, s),
			  p->group_count * 3, fair);
		for (unsigned copies = 1; copies < 3; copies++)
			cr_assert(share_of_first(p, s, copies) + 1.1 > fair * copies / 3 && share_of_first(p, s, copies) < fair * copies / 3 + 1.1,
				  "%u of %u, the first %u: %u, fair is %.1f", s, p->server_count, copies, share_of_first(p, s, copies), fair * copies / 3);
	}
	for (unsigned g = 0; g < p->group_count; g++) {
		const struct placement_group *k = &p->groups[g];
		cr_assert(k->target_count == 3 && !placement_same_domain(&p->servers[k->target[0]], &p->servers[k->target[1]]) &&
			  !placement_same_domain(&p->servers[k->target[0]], &p->servers[k->target[2]]) &&
			  !placement_same_domain(&p->servers[k->target[1]], &p->servers[k->target[2]]));
	}
}

static void forget_all_formers(struct placement *p)
{
	uint8_t gone[PLACEMENT_SERVERS_MAX / 8];
	memset(gone, 0xff, sizeof gone);
	for (unsigned g = 0; g < p->group_count; g++)
		placement_forget_former(p, g, gone);
}

/* As in life: one joins after the other; then some go. `racks`: domains that share the servers; 0: each is one. */
static void grow_and_shrink(unsigned most, unsigned racks, const uint32_t *weights, unsigned weight_count)
{
	struct placement *p = calloc(1, sizeof *p), *before = calloc(1, sizeof *before);
	struct placed_server *list = calloc(PLACEMENT_SERVERS_MAX, sizeof *list);
	unsigned moved_all = 0, needed_all = 0;
	for (unsigned n = 1; n <= most; n++) {
		char domain[16] = "";
		if (racks)
			snprintf(domain, sizeof domain, "r%u", (n - 1) % racks);
		memcpy(list, p->servers, p->server_count * sizeof *list);
		list[n - 1] = server(n, domain, weights[(n - 1) % weight_count]);
		*before = *p;
		cr_assert_eq(placement_change(p, list, n, true), 0);
		forget_all_formers(p);
		if (n < (racks ? 2 * racks : 2 * weight_count + 4))
			continue; /* some are more than a whole copy of everything, or all that there is */
		expect_balanced(p);
		unsigned needed = share(p, n - 1), did = moved(before, p);
		cr_assert(did <= needed * 3 / 2 + n / 4 + 2, "server %u came: %u moved, its share is %u", n, did, needed);
		moved_all += did;
		needed_all += needed;
	}
	for (unsigned n = most; n > most * 3 / 4; n--) { /* one from the middle */
		unsigned at = n / 2, had = share(p, at);
		memcpy(list, p->servers, p->server_count * sizeof *list);
		memmove(list + at, list + at + 1, (n - at - 1) * sizeof *list);
		*before = *p;
		cr_assert_eq(placement_change(p, list, n - 1, true), 0);
		forget_all_formers(p);
		expect_balanced(p);
		unsigned did = moved(before, p);
		cr_assert(did <= had * 3 / 2 + n / 4 + 2, "one of %u went: %u moved, it had %u", n, did, had);
		moved_all += did;
		needed_all += had;
	}
	cr_assert(moved_all * 100 <= needed_all * 115, "in all %u moved, %u were needed", moved_all, needed_all);
	free(list);
	free(before);
	free(p);
}

Test(placement, balanced_at_every_size)
{
	static const uint32_t alike[] = { 1000 }, mixed[] = { 1000, 2000, 4000, 1000, 8000 };
	grow_and_shrink(80, 0, alike, 1);
	grow_and_shrink(60, 0, mixed, 5);
	grow_and_shrink(60, 6, alike, 1);
	grow_and_shrink(60, 6, mixed, 5);
}

/* More groups: each becomes two, and nothing moves by that. */
Test(placement, groups_split)
{
	struct placement *p = make(40, NULL, NULL), before = *p;
	struct placed_server list[41];
	cr_assert_eq(p->group_count, PLACEMENT_GROUPS_MIN);
	memcpy(list, p->servers, 40 * sizeof *list);
	list[40] = server(40, "", 1);
	list[40].weight = 1;
	for (unsigned i = 0; i < 40; i++)
		list[i].weight = 2; /* the new one's share is small: that takes more groups */
	cr_assert_eq(placement_change(p, list, 41, true), 0);
	cr_assert(p->group_count > before.group_count);
	cr_assert(moved(&before, p) < p->group_count * 3 / 20, "%u of %u moved", moved(&before, p), p->group_count * 3);
	for (uint64_t id = 1; id < 5000; id++) { /* what was where a segment belonged is still found */
		const struct placement_group *a = placement_group_of(&before, id), *b = placement_group_of(p, id);
		for (unsigned i = 0; i < a->target_count; i++) {
			bool named = false;
			for (unsigned k = 0; k < (unsigned)b->target_count + b->former_count; k++)
				named |= (k < b->target_count ? b->target[k] : b->former[k - b->target_count]) == a->target[i];
			cr_assert(named, "segment %llu", (unsigned long long)id);
		}
	}
	size_t length;
	uint8_t *bytes = placement_encode(p, &length);
	struct placement *got = calloc(1, sizeof *got);
	cr_assert(bytes && placement_decode(bytes, length, got) == 0 && got->group_count == p->group_count && memcmp(got, p, sizeof *p) == 0);
	free(bytes);
	p->group_count--;
	bytes = placement_encode(p, &length);
	cr_assert_eq(placement_decode(bytes, length, got), -EUCLEAN);
	free(bytes);
	free(got);
	free(p);
}

/* What programs of the version before can't read isn't written while there are any. */
Test(placement, stays_of_version_1_until_all_know_better)
{
	struct placement *p = make(40, NULL, NULL);
	struct placed_server *list = calloc(PLACEMENT_SERVERS_MAX, sizeof *list);
	for (unsigned i = 0; i < 300; i++)
		list[i] = server(i, "", i == 40 ? 1 : 1000);
	cr_assert(placement_version(p) == 1 && placement_wants_newer(p, list, 41) && !placement_wants_newer(p, list, 40));
	cr_assert_eq(placement_change(p, list, 41, false), 0);
	cr_assert(placement_version(p) == 1 && p->group_count == PLACEMENT_GROUPS_MIN && share(p, 40) <= 3);
	cr_assert_eq(placement_change(p, list, PLACEMENT_SERVERS_MAX_1 + 1, false), -EOVERFLOW);
	cr_assert_eq(placement_change(p, list, PLACEMENT_SERVERS_MAX_1, false), 0);
	cr_assert(placement_version(p) == 1 && placement_wants_newer(p, list, PLACEMENT_SERVERS_MAX_1));
	forget_all_formers(p);
	cr_assert_eq(placement_change(p, list, 300, true), 0);
	cr_assert(placement_version(p) == 2 && p->group_count > PLACEMENT_GROUPS_MIN && !placement_wants_newer(p, list, 299));
	uint32_t groups = p->group_count;
	forget_all_formers(p);
	cr_assert_eq(placement_change(p, list, 3, false), 0);
	cr_assert(p->group_count == groups, "never fewer: segments would move to groups that don't know them");
	free(list);
	free(p);
}

struct known_rig {
	struct catalog *catalog;
	bool old_agent, old_server;
	int result;
	unsigned version;
};

static void put_value(struct catalog *c, const char *key, uint8_t *bytes, size_t length)
{
	struct catalog_txn t;
	catalog_txn_init(&t);
	catalog_txn_put(&t, key, bytes, length);
	cr_assert_eq(catalog_txn(c, &t, NULL), 0);
	free(bytes);
}

static int body_known(void *arg)
{
	struct known_rig *g = arg;
	char key[META_KEY_BYTES];
	size_t length;
	uint8_t *bytes;
	for (uint8_t i = 1; i <= 3; i++) { /* an embedded volume's, which no map concerns; one that was removed; one that counts */
		uuid id = { { i } };
		struct meta_server m = { .incarnation = 1, .removed = i == 2, .map_version = i == 3 && !g->old_server ? 2 : 0 };
		snprintf(m.address, sizeof m.address, "%s", i == 1 ? "" : "tcp:h:1");
		bytes = meta_server_encode(&m, &length);
		meta_key_server(&id, key);
		put_value(g->catalog, key, bytes, length);
	}
	struct meta_agent a = { .address = "tcp:h:2", .map_version = g->old_agent ? 1 : 2 };
	bytes = meta_agent_encode(&a, &length);
	meta_key_agent("h", key);
	put_value(g->catalog, key, bytes, length);
	struct placement *p = calloc(1, sizeof *p);
	struct placed_server *list = calloc(PLACEMENT_SERVERS_MAX, sizeof *list);
	for (unsigned i = 0; i < 100; i++)
		list[i] = server(i, "", 1000);
	g->result = placement_change_known(g->catalog, p, list, 100);
	g->version = placement_version(p);
	free(list);
	free(p);
	return 0;
}

Test(placement, the_catalog_says_who_knows_what)
{
	for (unsigned i = 0; i < 3; i++) {
		struct sim *sim = sim_create(1, NULL);
		struct catalog_sim *catalogs = catalog_sim_create(sim);
		struct env *env = sim_process_create(sim, sim_host_create(sim, "h", 1 << 20, 4096));
		struct known_rig g = { .catalog = catalog_sim_open(catalogs, env), .old_agent = i == 1, .old_server = i == 2, .result = 1 };
		cr_assert_eq(fiber_start(&env->loop, body_known, &g, NULL), 0);
		while (g.result == 1 && sim_step(sim))
			;
		cr_assert(g.result == 0 && g.version == (i == 0 ? 2 : 1), "%u: %d, version %u", i, g.result, g.version);
		catalog_close(g.catalog);
		sim_process_destroy(env);
		catalog_sim_destroy(catalogs);
		sim_destroy(sim);
	}
}

Test(placement, a_thousand_servers_fit)
{
	struct placement *p = calloc(1, sizeof *p);
	struct placed_server *list = calloc(PLACEMENT_SERVERS_MAX, sizeof *list);
	for (unsigned i = 0; i < 1000; i++) {
		char rack[16];
		snprintf(rack, sizeof rack, "rack%u", i % 40);
		list[i] = server(i, rack, 4000 << i % 3);
	}
	cr_assert_eq(placement_change(p, list, 1000, true), 0);
	expect_balanced(p);
	size_t length;
	uint8_t *bytes = placement_encode(p, &length);
	cr_assert(bytes && length < CATALOG_VALUE_MAX, "%zu", length);
	free(bytes);
	free(list);
	free(p);
}
