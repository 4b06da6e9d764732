/* Connections of which it isn't known yet who they are, in the order in which they came, and which of them makes place when there
 * are too many: of the address (or user of a unix socket) that has the most here, the oldest. So who comes from one address, as often as he likes,
 * keeps nobody else out, and one who is alone may have all places. Addresses are whole ones: somebody who has many, as with IPv6, counts as
 * many; then the oldest of all goes, and an honest one has long said who he is. Each call takes time in proportion to how many are here. */
#ifndef AQ_STRANGERS_H
#define AQ_STRANGERS_H
#include "core/env.h"
#include "core/link.h"

struct stranger {
	struct link link;
	struct stream_peer peer;
	unsigned alike; /* here with the same address, itself included */
};

struct strangers { struct link all; };

void strangers_init(struct strangers *s);
void strangers_enter(struct strangers *s, struct stranger *who, struct stream *stream);
/* Harmless when it has left already. */
void strangers_leave(struct strangers *s, struct stranger *who);
/* Who makes place, or NULL: nobody is here. */
struct stranger *strangers_excess(const struct strangers *s);
#endif
