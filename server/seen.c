#include "server/seen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/plant.h"
#include "server/keeper_private.h"

void groups_add(struct group_set *s, const struct group_set *more)
{
	for (unsigned i = 0; i < sizeof s->bits; i++)
		s->bits[i] |= more->bits[i];
}

void groups_remove(struct group_set *s, const struct group_set *less)
{
	for (unsigned i = 0; i < sizeof s->bits; i++)
		s->bits[i] &= (uint8_t)~less->bits[i];
}

bool groups_any(const struct group_set *s)
{
	bool any = false;
	for (unsigned i = 0; i < sizeof s->bits; i++)
		any |= s->bits[i] != 0;
	return any;
}

void seen_forget(struct seen *s)
{
	free(s->servers);
	free(s->of);
	*s = (struct seen){ .round = s->round };
}

int seen_begin(struct seen *s, const struct placement *map)
{
	s->round++;
	if (s->servers && s->revision == map->revision)
		return 0;
	seen_forget(s);
	s->servers = calloc(map->server_count + 1, sizeof *s->servers);
	s->of = calloc(map->group_count, sizeof *s->of);
	if (!s->servers || !s->of) {
		seen_forget(s);
		return -ENOMEM;
	}
	s->revision = map->revision;
	s->count = map->server_count + 1;
	s->groups = map->group_count;
	return 0;
}

/* A list of what is above all ids: an older server answers that there is nothing, and no more. */
static int ask(struct keeper *k, struct seen_server *v, struct peer *peer, uint8_t *page, struct group_set *changed)
{
	static const struct group_set none;
	struct iovec room = { page, SHARE_LIST_BYTES };
	struct segment_io io = { .op = SEGMENT_LIST, .segment = SEGMENT_ID_MAX, .groups = none.bits, .group_count = k->seen.groups, .iov = &room, .iov_count = 1,
				 .changed = changed->bits, .index = v->index, .change = v->change };
	int r = peer ? peer_wait(peer, &io) : keeper_own(k, &io);
	if (r < 0)
		return r;
	if (io.index == 0 || io.index != v->index)
		memset(changed->bits, 0xff, sizeof changed->bits);
	v->index = io.index;
	v->change = io.change;
	return 0;
}

int seen_ask(struct keeper *k, struct seen_server *v, struct peer *peer)
{
	if (v->asked == k->seen.round)
		return v->answered ? 0 : -ENOTCONN;
	struct group_set changed = { 0 };
	uint64_t round = k->seen.round;
	uint8_t *page = malloc(SHARE_LIST_BYTES);
	int r = page ? ask(k, v, peer, page, &changed) : -ENOMEM;
	free(page);
	v->asked = round;
	v->answered = r == 0;
	if (r == 0 && !PLANTED(seen_changes_ignored))
		groups_remove(&v->groups, &changed);
	return r;
}
