/* NBD transmission: one negotiated connection, from the first request to the last reply. */
#ifndef AQ_NBD_TRANSMISSION_H
#define AQ_NBD_TRANSMISSION_H
#include "agent/exports/nbd_handshake.h"
#include "agent/exports/slab.h"
#include "core/blk.h"

/* What the connections of one export share. All on one loop. */
struct nbd_service {
	struct env *env;
	struct blk_node *node;
	bool read_only;
	uint32_t transfer_max;  /* bytes of one READ or WRITE */
	unsigned depth;         /* requests under way per connection */
	struct slab slab;
	void *zeroes;           /* NBD_ZEROES_BYTES of them; NULL if nothing can be written */
	unsigned leaving;       /* connections that were cut off and aren't over yet */
	const char *name;       /* the export's, for the log */
	void (*log)(const char *format, ...) __attribute__((format(printf, 1, 2))); /* may be NULL */
	struct link starved;    /* connections that wait for anybody's memory: the first gets what is given back */
};
#define NBD_ZEROES_BYTES (64u << 10)

/* Memory for data: what one connection may hold at most, what it may hold whatever the others do,
 * and what all may hold beyond those shares. Beyond a limit a connection isn't read; those that wait for others' memory get it in turn. The shares of all (64, nbd.c) are half
 * of that, so that even the largest request gets its turn when what is under way has ended, and what its client doesn't take ends, too (nbd_unread.h). */
#define NBD_CONNECTION_BYTES (UINT64_C(64) << 20)
#define NBD_SHARE_BYTES (UINT64_C(4) << 20)
#define NBD_SERVICE_BYTES (UINT64_C(512) << 20)

struct nbd_transmission;

/* FIBER. Serves requests until the client leaves, breaks the protocol or nbd_transmission_finish()
 * is called, and all that it began has ended. `*handle` is set while it runs, for finish(). The
 * stream is shut down but stays the caller's. 0 or -ENOMEM. */
int nbd_transmission_run(struct nbd_service *service, struct stream *stream, const struct nbd_agreed *agreed,
			 struct nbd_transmission **handle);
/* Takes no further request; those under way are answered, then the client is disconnected. */
void nbd_transmission_finish(struct nbd_transmission *t);
#endif
