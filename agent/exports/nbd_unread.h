/* The answers that an NBD client hasn't taken, and whether it takes any. While there are some it is looked every NBD_LOOK_NS whether
 * there is progress: NBD_TAKES_BYTES went, or all that waited at the last progress. If there was none for NBD_STALLED_NS and others wait for
 * the memory that the answers have, the owner is told, once. While nobody waits they may lie there for ever: a client may have been
 * stopped, and go on after days, and its guest must find its disk then. */
#ifndef AQ_NBD_UNREAD_H
#define AQ_NBD_UNREAD_H
#include "core/env.h"
#include "core/job.h"
#include "core/link.h"

#define NBD_LOOK_NS (5 * NS_PER_S)
#define NBD_TAKES_BYTES (UINT64_C(1) << 20)
#define NBD_STALLED_NS (30 * NS_PER_S)

struct nbd_answer {
	struct stream_io send; /* the owner fills it, and sends it */
	struct link link;
	uint64_t number;
};

struct nbd_unread {
	struct env *env;
	struct job *over;                            /* held while it is looked */
	bool (*wanted)(struct nbd_unread *u);        /* do others wait for what the answers have? */
	void (*stalled)(struct nbd_unread *u, uint64_t for_ns);
	/* private */
	struct link answers;                         /* the oldest first */
	uint64_t count, taken_bytes;                 /* answers so far; bytes of those that are taken */
	uint64_t mark_ns, mark_count, mark_bytes;    /* when there was progress last */
	struct timer timer;
	struct job job;
	bool looks, told;
};

/* The fields above "private" are the caller's to fill. */
void nbd_unread_init(struct nbd_unread *u);
/* Before it is sent; and when all of it went, or never will. */
void nbd_unread_add(struct nbd_unread *u, struct nbd_answer *a);
void nbd_unread_taken(struct nbd_unread *u, struct nbd_answer *a);
/* It takes none either, and hasn't for half as long: what it waits for would lie there, too. So a client that was stopped isn't cut off for the sake
 * of another of its own connections. Half, since they stopped at the same moment and not all were looked at in it. */
bool nbd_unread_stands(const struct nbd_unread *u);
/* None are left and none will be added: lets go of `over`. */
void nbd_unread_stop(struct nbd_unread *u);
#endif
