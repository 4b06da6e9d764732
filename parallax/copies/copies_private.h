/* What copies.c and peers.c share. */
#ifndef AQ_COPIES_PRIVATE_H
#define AQ_COPIES_PRIVATE_H
#include "parallax/copies/copies.h"

#define PEER_AWAIT_STEP_NS (NS_PER_MS / 2)
#define PEER_AWAIT_ALL_NS (100 * NS_PER_MS)

struct peer *peer_new(struct copies *c, const uuid *id); /* NULL: no memory */
/* It has an address, and nobody needs it. */
bool peer_idle(const struct peer *p);
/* As peer_usable(), without looking for its address when it is away. */
bool peer_hopeful(struct peer *p);
/* FIBER. It has another address now. */
void peer_moved(struct peer *p, const char *address, const char *host);
/* FIBER. Their connections end, and with them what is under way or waits. */
void peers_end(struct peer *const *peers, unsigned count);
/* FIBER. Waits until it is known of all whether they answer; when `least` do, for a moment only; COPIES_DEADLINE_NS at most. */
void peers_try(struct peer *const *peers, unsigned count, unsigned least);
/* The fiber that ends connections which nobody needs; `copies` as argument. */
int peers_sweep(void *copies);
#endif
