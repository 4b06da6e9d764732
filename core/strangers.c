#include "core/strangers.h"

#include <string.h>

static struct stranger *stranger_of(struct link *l) { return container_of(l, struct stranger, link); }

static bool alike(const struct stranger *a, const struct stranger *b) { return memcmp(&a->peer, &b->peer, sizeof a->peer) == 0; }

void strangers_init(struct strangers *s) { link_init(&s->all); }

void strangers_enter(struct strangers *s, struct stranger *who, struct stream *stream)
{
	stream_peer(stream, &who->peer);
	who->alike = 1;
	link_for (l, &s->all)
		if (alike(stranger_of(l), who))
			who->alike = ++stranger_of(l)->alike;
	link_push(&s->all, &who->link);
}

void strangers_leave(struct strangers *s, struct stranger *who)
{
	if (link_empty(&who->link))
		return;
	link_drop(&who->link);
	link_for (l, &s->all)
		if (alike(stranger_of(l), who))
			stranger_of(l)->alike--;
}

struct stranger *strangers_excess(const struct strangers *s)
{
	struct stranger *most = NULL;
	link_for (l, &s->all)
		if (!most || stranger_of(l)->alike > most->alike)
			most = stranger_of(l);
	return most;
}
