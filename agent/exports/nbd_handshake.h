/* NBD negotiation, the server's side: from the first byte to the moment requests may come. */
#ifndef AQ_NBD_HANDSHAKE_H
#define AQ_NBD_HANDSHAKE_H
#include <stdbool.h>
#include <stdint.h>

#include "core/env.h"

/* What is on offer: one export, found under its name and under the empty name. */
struct nbd_offer {
	const char *name;           /* at most 63 bytes */
	const char *description;    /* at most NBD_DESCRIPTION_MAX bytes */
	uint64_t size;              /* bytes */
	uint32_t block_size_min, block_size_preferred, transfer_max; /* bytes */
	uint16_t flags;             /* NBD_FLAG_…; SEND_DF is added when structured replies are agreed on */
};
#define NBD_DESCRIPTION_MAX 255

struct nbd_agreed {
	bool structured; /* READ and BLOCK_STATUS are answered in chunks */
	bool map;        /* base:allocation was selected, as context NBD_CONTEXT_ALLOCATION */
};
#define NBD_CONTEXT_ALLOCATION 1u

/* FIBER. 0: requests follow. -errno: hang up (the client left, broke the protocol or asked for what
 * isn't here). Ends only when the client moves on or the stream is shut down: the caller sets the
 * deadline. Memory: NBD_OPTION_DATA_MAX and little more, whatever the client sends. */
int nbd_handshake(struct stream *s, const struct nbd_offer *offer, struct nbd_agreed *ret_agreed);
#define NBD_OPTION_DATA_MAX (32u << 10)
#endif
