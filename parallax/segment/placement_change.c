/* How the map changes. Each server has a *share*: how many copies of each group it should have, by its weight, but no domain more than one; and from
 * that for each position of the groups' targets a quota in groups, so that volumes with one copy, or two, are balanced as well. Quotas add up to
 * what there is to be given, and follow the shares to one group at each position and over all. Whoever has a group keeps it; what nobody has goes to
 * those that have room; then those that have more than their quota give to those that have less, what moves least. */
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "parallax/segment/placement.h"

enum { NOBODY = 0xffff, EVEN_OUT_TRIES = 16 };

struct change {
	const struct placement *before;
	struct placement *after;
	unsigned copies;                            /* of each group, at most */
	uint16_t moved_to[PLACEMENT_SERVERS_MAX];   /* index before → index after, or NOBODY */
	uint16_t domain[PLACEMENT_SERVERS_MAX];     /* the index of the first server that is in the same */
	double share[PLACEMENT_SERVERS_MAX];
	uint32_t given[PLACEMENT_SERVERS_MAX];      /* at the positions before */
	uint32_t quota[PLACEMENT_SERVERS_MAX], count[PLACEMENT_SERVERS_MAX]; /* at the one that is being filled */
	double want[PLACEMENT_SERVERS_MAX];         /* what the quota should be */
	bool kept[PLACEMENT_GROUPS_MAX];
};

static uint32_t weight_of(const struct placed_server *s) { return s->weight ? s->weight : 1; }
static bool is_in(const struct change *c, unsigned server) { return c->after->servers[server].state == PLACED_IN; }

/* ---- shares ---- */

static void find_domains(struct change *c)
{
	for (uint16_t s = 0; s < c->after->server_count; s++) {
		uint16_t d = 0;
		while (d < s && !placement_same_domain(&c->after->servers[d], &c->after->servers[s]))
			d++;
		c->domain[s] = d;
	}
}

/* A domain that is larger than a whole copy of everything gets that, and the others share what is left. */
static void find_shares(struct change *c)
{
	double weight[PLACEMENT_SERVERS_MAX] = { 0 }, whole = 0;
	bool full[PLACEMENT_SERVERS_MAX] = { false };
	unsigned domains = 0, left;
	uint32_t n = c->after->server_count;
	for (uint32_t s = 0; s < n; s++) {
		if (!is_in(c, s))
			continue;
		domains += weight[c->domain[s]] == 0;
		weight[c->domain[s]] += weight_of(&c->after->servers[s]);
		whole += weight_of(&c->after->servers[s]);
	}
	left = c->copies = MIN(domains, (unsigned)META_REPLICAS_MAX);
	for (bool changed = true; changed && left;) {
		changed = false;
		for (uint32_t d = 0; d < n && left; d++) {
			if (full[d] || weight[d] == 0 || weight[d] * left < whole * (1 - 1e-9))
				continue;
			full[d] = changed = true;
			whole -= weight[d];
			left--;
		}
	}
	for (uint32_t s = 0; s < n; s++) {
		double w = is_in(c, s) ? weight_of(&c->after->servers[s]) : 0;
		c->share[s] = w == 0 ? 0 : full[c->domain[s]] ? w / weight[c->domain[s]] : w * left / whole;
	}
}

/* The one whose quota is furthest below (by 1) or above (-1) what it should be. */
static uint16_t furthest(const struct change *c, int by)
{
	uint16_t found = NOBODY;
	for (uint16_t s = 0; s < c->after->server_count; s++) {
		if (c->share[s] == 0 || (by < 0 && c->quota[s] == 0))
			continue;
		if (found == NOBODY || by * (c->want[s] - c->quota[s]) > by * (c->want[found] - c->quota[found]))
			found = s;
	}
	return found;
}

/* As many as it has now, if that is right to one group, so that little moves; then what is too much or too little in all is taken from, or given to, those
 * that are furthest from right. */
static void find_quotas(struct change *c, unsigned position)
{
	int64_t left = c->after->group_count;
	memset(c->quota, 0, sizeof c->quota);
	for (unsigned g = 0; g < c->before->group_count; g++)
		if (position < c->before->groups[g].target_count && c->moved_to[c->before->groups[g].target[position]] != NOBODY)
			c->quota[c->moved_to[c->before->groups[g].target[position]]]++;
	for (uint16_t s = 0; s < c->after->server_count; s++) {
		double want = c->share[s] * c->after->group_count * (position + 1) / c->copies - c->given[s];
		uint32_t least = want > 1 ? (uint32_t)ceil(want - 1 + 1e-6) : 0, most = want > 0 ? (uint32_t)(want + 1 - 1e-6) : 0;
		c->want[s] = want;
		c->quota[s] = c->share[s] == 0 ? 0 : MIN(MAX(c->quota[s], least), most);
		c->count[s] = 0;
		left -= c->quota[s];
	}
	for (uint16_t s; left && (s = furthest(c, left > 0 ? 1 : -1)) != NOBODY; left += left > 0 ? -1 : 1)
		c->quota[s] += left > 0 ? 1 : UINT32_MAX;
}

/* ---- filling ---- */

/* May it have that group in the place of the target at `but` (or in addition)? */
static bool allowed(const struct change *c, const struct placement_group *g, uint16_t server, unsigned but)
{
	if (!is_in(c, server))
		return false;
	for (unsigned i = 0; i < g->target_count; i++)
		if (i != but && c->domain[g->target[i]] == c->domain[server])
			return false;
	return true;
}

static bool was_target(const struct change *c, unsigned group, uint16_t server)
{
	const struct placement_group *g = &c->before->groups[group];
	for (unsigned i = 0; i < g->target_count; i++)
		if (c->moved_to[g->target[i]] == server)
			return true;
	return false;
}

/* If it gets the group at this position, one that has it at a later one must give it up. */
static bool in_the_way(const struct change *c, unsigned group, unsigned position, uint16_t server)
{
	const struct placement_group *g = &c->before->groups[group];
	for (unsigned i = position + 1; i < g->target_count; i++) {
		uint16_t s = c->moved_to[g->target[i]];
		if (s != NOBODY && is_in(c, s) && c->domain[s] == c->domain[server])
			return true;
	}
	return false;
}

/* What is nearest to its quota from below, in parts of it; one that has the group's data already before others. Ties by hash,
 * so that not all groups choose alike. */
static uint16_t choose(const struct change *c, unsigned group, unsigned position)
{
	uint16_t best = NOBODY;
	uint64_t best_score = 0;
	for (uint16_t s = 0; s < c->after->server_count; s++) {
		if (!allowed(c, &c->after->groups[group], s, META_REPLICAS_MAX))
			continue;
		uint64_t room = c->count[s] < c->quota[s] ? (uint64_t)(c->quota[s] - c->count[s]) << 16 : 0;
		uint64_t moves = 1u + was_target(c, group, s) - in_the_way(c, group, position, s);
		uint64_t score = (room / (c->quota[s] ? c->quota[s] : 1)) << 24 | moves << 22;
		score |= placement_mix((uint64_t)group << 16 | s) & 0x3fffff;
		if (best == NOBODY || score > best_score) {
			best = s;
			best_score = score;
		}
	}
	return best;
}

static void give(struct change *c, unsigned group, uint16_t server)
{
	struct placement_group *g = &c->after->groups[group];
	g->target[g->target_count++] = server;
	c->count[server]++;
}

/* A group that `to` could have at this position instead of `from`, which moves least; NOBODY: none. */
static uint16_t find_group(const struct change *c, unsigned position, uint16_t from, uint16_t to)
{
	uint16_t found = NOBODY;
	int least = 0;
	for (unsigned g = 0; g < c->after->group_count; g++) {
		const struct placement_group *k = &c->after->groups[g];
		if (position >= k->target_count || k->target[position] != from || !allowed(c, k, to, position))
			continue;
		int moves = !was_target(c, g, to) - !was_target(c, g, from) + in_the_way(c, g, position, to);
		if (found == NOBODY || moves < least) {
			found = (uint16_t)g;
			least = moves;
		}
	}
	return found;
}

static void hand_on(struct change *c, unsigned position, uint16_t group, uint16_t to)
{
	uint16_t *target = &c->after->groups[group].target[position];
	c->count[*target]--;
	c->count[to]++;
	*target = to;
}

/* One of `from`'s goes to `to`. */
static bool move_one(struct change *c, unsigned position, uint16_t from, uint16_t to)
{
	uint16_t g = find_group(c, position, from, to);
	if (g != NOBODY)
		hand_on(c, position, g, to);
	return g != NOBODY;
}

/* … by way of a third. */
static bool move_two(struct change *c, unsigned position, uint16_t from, uint16_t to)
{
	for (uint16_t by = 0; by < c->after->server_count; by++) {
		if (by == from || by == to || c->count[by] == 0)
			continue;
		uint16_t second = find_group(c, position, by, to), first = second == NOBODY ? NOBODY : find_group(c, position, from, by);
		if (first == NOBODY)
			continue;
		hand_on(c, position, first, by);
		hand_on(c, position, second, to);
		return true;
	}
	return false;
}

/* Those that have too many give to those that have too few. Where domains stand in the way, not for ever: it may be impossible. */
static void even_out(struct change *c, unsigned position, bool (*move)(struct change *c, unsigned position, uint16_t from, uint16_t to))
{
	unsigned failed = 0;
	for (uint16_t to = 0; to < c->after->server_count; to++)
		for (uint16_t from = 0; from < c->after->server_count && c->count[to] < c->quota[to]; from++)
			while (c->count[from] > c->quota[from] && c->count[to] < c->quota[to])
				if (!move(c, position, from, to)) {
					if (move == move_two && ++failed == EVEN_OUT_TRIES)
						return;
					break;
				}
}

static void fill_position(struct change *c, unsigned position)
{
	unsigned groups = c->after->group_count;
	find_quotas(c, position);
	for (unsigned g = 0; g < groups; g++) {
		const struct placement_group *before = &c->before->groups[g];
		uint16_t s = position < before->target_count ? c->moved_to[before->target[position]] : NOBODY;
		c->kept[g] = s != NOBODY && allowed(c, &c->after->groups[g], s, META_REPLICAS_MAX);
		if (c->kept[g])
			give(c, g, s);
	}
	for (unsigned g = 0; g < groups; g++) {
		uint16_t s = c->kept[g] ? NOBODY : choose(c, g, position);
		if (s != NOBODY)
			give(c, g, s);
	}
	even_out(c, position, move_one);
	even_out(c, position, move_two);
	for (uint32_t s = 0; s < c->after->server_count; s++)
		c->given[s] += c->count[s];
}

/* ---- former servers ---- */

static bool listed(const uint16_t *list, unsigned count, uint16_t server)
{
	for (unsigned i = 0; i < count; i++)
		if (list[i] == server)
			return true;
	return false;
}

/* Whoever may have copies and isn't a target any more. */
static int keep_former(struct change *c, unsigned group)
{
	const struct placement_group *before = &c->before->groups[group];
	struct placement_group *after = &c->after->groups[group];
	for (unsigned i = 0; i < (unsigned)before->target_count + before->former_count; i++) {
		uint16_t s = c->moved_to[i < before->target_count ? before->target[i] : before->former[i - before->target_count]];
		if (s == NOBODY || listed(after->target, after->target_count, s) || listed(after->former, after->former_count, s))
			continue;
		if (after->former_count == PLACEMENT_FORMER_MAX)
			return -EXFULL;
		after->former[after->former_count++] = s;
	}
	return 0;
}

/* ---- the number of groups ---- */

/* The least share should be some groups, or it can't be met; but a hundred groups for each server are plenty. */
static bool too_few(const struct change *c)
{
	double least = 0;
	unsigned n = 0;
	for (uint32_t s = 0; s < c->after->server_count; s++)
		if (c->share[s] > 0) {
			least = n++ && least < c->share[s] ? least : c->share[s];
		}
	return n && least * c->after->group_count < PLACEMENT_SHARE_MIN && c->after->group_count < 64 * n;
}

/* Each group becomes two with the same servers: nothing moves by that, for a segment's number is taken from the same hash. */
static void double_groups(struct placement *p)
{
	for (uint32_t g = 0; g < p->group_count; g++)
		p->groups[p->group_count + g] = p->groups[g];
	p->group_count *= 2;
}

bool placement_wants_newer(const struct placement *p, const struct placed_server *servers, unsigned count)
{
	if (placement_version(p) == PLACEMENT_VERSION || count > PLACEMENT_SERVERS_MAX)
		return false;
	struct change *c = calloc(1, sizeof *c);
	struct placement *after = calloc(1, sizeof *after);
	bool wants = false;
	if (c && after) {
		c->after = after;
		after->server_count = count;
		after->group_count = PLACEMENT_GROUPS_MIN;
		memcpy(after->servers, servers, count * sizeof *servers);
		find_domains(c);
		find_shares(c);
		wants = count > PLACEMENT_SERVERS_MAX_1 || too_few(c);
	}
	free(after);
	free(c);
	return wants;
}

int placement_change(struct placement *p, const struct placed_server *servers, unsigned count, bool newer)
{
	newer |= placement_version(p) == PLACEMENT_VERSION;
	if (count > PLACEMENT_SERVERS_MAX)
		return -E2BIG;
	if (count > PLACEMENT_SERVERS_MAX_1 && !newer)
		return -EOVERFLOW;
	struct change *c = calloc(1, sizeof *c);
	struct placement *after = calloc(1, sizeof *after), *before = malloc(sizeof *before);
	int r = c && after && before ? 0 : -ENOMEM;
	if (r == 0) {
		*before = *p;
		before->group_count = MAX(before->group_count, (uint32_t)PLACEMENT_GROUPS_MIN);
		c->before = before;
		c->after = after;
		after->revision = p->revision + 1;
		after->server_count = count;
		after->group_count = before->group_count;
		memcpy(after->servers, servers, count * sizeof *servers);
		for (uint32_t i = 0; i < p->server_count; i++) {
			c->moved_to[i] = NOBODY;
			for (uint16_t k = 0; k < count; k++)
				if (memcmp(&p->servers[i].id, &servers[k].id, sizeof(uuid)) == 0)
					c->moved_to[i] = k;
		}
		find_domains(c);
		find_shares(c);
		while (newer && after->group_count < PLACEMENT_GROUPS_MAX && too_few(c)) {
			double_groups(before);
			after->group_count = before->group_count;
		}
		for (unsigned k = 0; k < c->copies; k++)
			fill_position(c, k);
		for (unsigned g = 0; r == 0 && g < after->group_count; g++)
			r = keep_former(c, g);
	}
	if (r == 0)
		*p = *after;
	free(before);
	free(after);
	free(c);
	return r;
}
