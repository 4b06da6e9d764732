/* Maps of servers, and how much a server's loss moves. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "server/keeper_private.h"
#include "tests/bench/scale/scale.h"

static struct placement *map_of(unsigned count, const struct placed_server *list)
{
	struct placement *p = calloc(1, sizeof *p);
	if (placement_change(p, list, count, true) < 0)
		scale_fail("no map of %u servers", count);
	return p;
}

static void forget_formers(struct placement *p)
{
	uint8_t gone[PLACEMENT_SERVERS_MAX / 8];
	memset(gone, 0xff, sizeof gone);
	for (unsigned g = 0; g < p->group_count; g++)
		placement_forget_former(p, g, gone);
}

static bool has(const struct placement *p, unsigned group, uint16_t server)
{
	const struct placement_group *g = &p->groups[group];
	for (unsigned i = 0; i < g->target_count; i++)
		if (g->target[i] == server)
			return true;
	return false;
}

/* Between maps of the same servers. */
static unsigned moved(const struct placement *before, const struct placement *after)
{
	unsigned n = 0;
	for (unsigned g = 0; g < after->group_count; g++)
		for (unsigned i = 0; i < after->groups[g].target_count; i++)
			n += !has(before, g % before->group_count, after->groups[g].target[i]);
	return n;
}

static unsigned share(const struct placement *p, unsigned server)
{
	unsigned n = 0;
	for (unsigned g = 0; g < p->group_count; g++)
		n += has(p, g, (uint16_t)server);
	return n;
}

/* The worst, of what weights say. */
static void balance(const struct placement *p, double *ret_least, double *ret_most)
{
	double weight = 0;
	for (unsigned i = 0; i < p->server_count; i++)
		weight += p->servers[i].state == PLACED_IN ? p->servers[i].weight : 0;
	*ret_least = 1e9;
	*ret_most = 0;
	for (unsigned i = 0; i < p->server_count; i++) {
		if (p->servers[i].state != PLACED_IN)
			continue;
		double part = share(p, i) / (3.0 * p->group_count * p->servers[i].weight / weight);
		*ret_least = MIN(*ret_least, part);
		*ret_most = MAX(*ret_most, part);
	}
}

static void row(struct scale *s, unsigned count)
{
	struct placed_server *list = calloc(count, sizeof *list);
	struct placement *p = calloc(1, sizeof *p), *before = calloc(1, sizeof *before);
	scale_servers(list, count, 1);
	struct placement *last = map_of(count - 1, list);
	double begin = cpu_now(), least, most;
	free(map_of(count, list));
	double made = cpu_now() - begin;
	placement_copy(p, last);
	begin = cpu_now();
	placement_change(p, list, count, true);
	double joined = cpu_now() - begin;
	unsigned moved_by_join = moved(last, p), needed = share(p, count - 1);
	forget_formers(p);
	balance(p, &least, &most);
	placement_copy(before, p);
	list[count / 2].state = PLACED_LOST;
	begin = cpu_now();
	placement_change(p, list, count, true);
	double lost = cpu_now() - begin;
	size_t length = 0;
	begin = cpu_now();
	uint8_t *bytes = placement_encode(p, &length);
	struct placement *again = calloc(1, sizeof *again);
	if (!bytes || placement_decode(bytes, length, again) < 0)
		scale_fail("the map of %u servers can't be written", count);
	double coded = cpu_now() - begin;
	printf("%8u %7u %8.0f %8.1f %8.1f %9u %6.2f %9u %6.2f %7.2f %7.2f %9zu %8.1f\n", count, p->group_count, made * 1e3, joined * 1e3, lost * 1e3, moved_by_join,
	       (double)moved_by_join / needed, moved(before, p), (double)moved(before, p) / share(before, count / 2), least, most, length, coded * 1e3);
	if (count == s->servers)
		s->map_bytes = length;
	free(bytes);
	free(again);
	free(last);
	free(before);
	free(p);
	free(list);
}

void scale_placement(struct scale *s)
{
	static const unsigned counts[] = { 4, 10, 30, 100, 300 };
	printf("%8s %7s %8s %8s %8s %9s %6s %9s %6s %7s %7s %9s %8s\n", "servers", "groups", "made ms", "join ms", "loss ms", "moved by", "/need", "moved by", "/need", "least",
	       "most", "in the", "coded");
	printf("%8s %7s %8s %8s %8s %9s %6s %9s %6s %7s %7s %9s %8s\n", "", "", "", "", "", "join", "", "loss", "", "load", "load", "catalog", "ms");
	for (unsigned i = 0; i < ARRAY_COUNT(counts); i++)
		if (counts[i] < s->servers)
			row(s, counts[i]);
	row(s, s->servers);
	printf("   in memory: %zu bytes at most\n", sizeof(struct placement));
}

/* ---- a server's loss: who sends and gets how much ---- */

struct loss {
	struct placement *before, *after;
	uint64_t *got, *sent;         /* bytes, by server */
};

/* Those that have it, in the order that rebuilding finds them in: by their ids. */
static unsigned sources(const struct loss *l, unsigned group, unsigned lost, uint16_t ret[META_REPLICAS_MAX])
{
	unsigned n = 0;
	const struct placement_group *g = &l->before->groups[group];
	for (unsigned i = 0; i < g->target_count; i++) {
		unsigned k = n;
		if (g->target[i] == lost)
			continue;
		for (; k > 0 && memcmp(&l->after->servers[ret[k - 1]].id, &l->after->servers[g->target[i]].id, sizeof(uuid)) > 0; k--)
			ret[k] = ret[k - 1];
		ret[k] = g->target[i];
		n++;
	}
	return n;
}

static void loss_row(const struct scale *s, unsigned count)
{
	struct placed_server *list = calloc(count, sizeof *list);
	scale_servers(list, count, 1);
	struct loss l = { .before = map_of(count, list), .after = calloc(1, sizeof *l.after), .got = calloc(count, sizeof *l.got), .sent = calloc(count, sizeof *l.sent) };
	unsigned lost = count / 2, getters = 0;
	placement_copy(l.after, l.before);
	list[lost].state = PLACED_LOST;
	placement_change(l.after, list, count, true);
	uint64_t each = UINT64_C(64) << 20, all = 0, most_got = 0, most_sent = 0;
	uint64_t segments = (uint64_t)((double)s->volumes * ((double)s->volume_bytes / (double)each) * count / s->servers); /* as full as at the size that is asked for */
	for (uint64_t id = 1; id <= segments; id++) {
		unsigned g = placement_group_number(l.after->group_count, id);
		uint16_t from[META_REPLICAS_MAX];
		if (!has(l.before, g, (uint16_t)lost))
			continue;
		unsigned n = sources(&l, g, lost, from);
		for (unsigned i = 0; i < l.after->groups[g].target_count; i++) {
			uint16_t to = l.after->groups[g].target[i];
			if (has(l.before, g, to) || n == 0)
				continue;
			l.got[to] += each;
			l.sent[from[pull_source(id, n)]] += each;
			all += each;
		}
	}
	for (unsigned i = 0; i < count; i++) {
		getters += l.got[i] > 0;
		most_got = MAX(most_got, l.got[i]);
		most_sent = MAX(most_sent, l.sent[i]);
	}
	double rate = (double)MIN((uint64_t)KEEPER_REBUILD_RATE, s->link_bytes_per_s);
	double throttled = MAX((double)most_got / rate, (double)most_sent / (double)s->link_bytes_per_s);
	double free_of_it = (double)MAX(most_got, most_sent) / (double)s->link_bytes_per_s, gib = (double)(1 << 30);
	printf("%8u %10.0f %8u %10.1f %10.1f %10.1f %10.1f %12.0f %12.0f\n", count, (double)all / gib, getters, (double)all / gib / getters, (double)most_got / gib,
	       (double)all / gib / count, (double)most_sent / gib, throttled, free_of_it);
	free(l.before);
	free(l.after);
	free(l.got);
	free(l.sent);
	free(list);
}

void scale_loss(struct scale *s)
{
	static const unsigned counts[] = { 4, 10, 30, 100, 300 };
	printf("%8s %10s %8s %10s %10s %10s %10s %12s %12s\n", "servers", "GiB lost", "get some", "mean got", "most got", "mean sent", "most sent", "s, at the", "s, no limit");
	printf("%8s %10s %8s %10s %10s %10s %10s %8llu MiB/s %12s\n", "", "", "", "", "", "", "", (unsigned long long)(KEEPER_REBUILD_RATE >> 20), "");
	for (unsigned i = 0; i < ARRAY_COUNT(counts); i++)
		if (counts[i] < s->servers)
			loss_row(s, counts[i]);
	loss_row(s, s->servers);
	printf("   after the %llu s in which it might have come back; links of %llu MiB/s each way; the disks' speed isn't in it\n",
	       (unsigned long long)(KEEPER_LOST_NS / NS_PER_S), (unsigned long long)(s->link_bytes_per_s >> 20));
}
