/* Copies on servers that nobody will ever ask for: R31's question for each of them, as gc asks it. No fault: what dead writers and deletions that a
 * server missed leave behind is found and freed by gc; but it takes space until then. 100 bytes of memory for each copy. */
#include <errno.h>
#include <stdlib.h>

#include "core/array.h"
#include "core/bytes.h"
#include "parallax/copies/copies.h"
#include "parallax/segment/segment_share.h"
#include "parallax/store/store_check_private.h"
#include "parallax/store/wanted.h"

struct orphans {
	struct share_entry *entries;
	size_t count;
};

static int add(void *arg, struct peer *peer, const struct share_entry *e)
{
	struct orphans *o = arg;
	(void)peer;
	if (array_more(&o->entries, o->count) < 0)
		return -ENOMEM;
	o->entries[o->count++] = *e;
	return 0;
}

static int judge(struct catalog *catalog, struct copies *c, const struct orphans *o, uint64_t *ret_copies, uint64_t *ret_bytes)
{
	struct wanted *w = NULL;
	int r = wanted_open(catalog, c, &w);
	for (size_t i = 0; r == 0 && i < o->count; i++) {
		if (wanted_ask(w, &o->entries[i].header) != WANTED_NO)
			continue;
		(*ret_copies)++;
		*ret_bytes += (uint64_t)o->entries[i].present * BLOCK_BYTES;
	}
	wanted_close(w);
	return r;
}

int store_check_orphans(struct store *s, uint64_t *ret_copies, uint64_t *ret_bytes)
{
	struct copies *c;
	struct orphans o = { 0 };
	*ret_copies = *ret_bytes = 0;
	int r = copies_open(s->env, s->catalog, &c, NULL);
	if (r < 0)
		return r;
	if (c->count)
		peers_await(c->peers, c->count, c->count);
	for (uint32_t i = 0; r != -ENOMEM && i < c->map.server_count; i++) {
		struct peer *p = copies_peer(c, &c->map.servers[i].id);
		if (p && peer_usable(p)) /* what one that doesn't answer has, nobody knows */
			r = peer_list(p, add, &o);
	}
	r = r == -ENOMEM ? r : judge(s->catalog, c, &o, ret_copies, ret_bytes);
	copies_close(c);
	free(o.entries);
	return r;
}
