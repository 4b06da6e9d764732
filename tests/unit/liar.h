/* A block server that lies: it does what it is asked, on a directory of its own, and answers something else. For the tests of who believes
 * servers, and how much. */
#ifndef AQ_LIAR_H
#define AQ_LIAR_H
#include "core/env_sim.h"
#include "parallax/segment/placement.h"
#include "parallax/segment/segment_wire.h"
#include "proto/rpc.h"

enum lie {
	LIE_NONE,
	LIE_ERROR,       /* some errno */
	LIE_LONGER, LIE_SHORTER, LIE_HUGE, /* the copy's length */
	LIE_STATE,       /* whole, sealed or not, whatever it is */
	LIE_EPOCH,       /* fenced by somebody else */
	LIE_CHAIN,       /* another last record */
	LIE_DATA,        /* bytes changed */
	LIE_OTHER,       /* the bytes of another segment, or of another place */
	LIE_REPLAY,      /* the answer to the question before */
	LIE_CUT,         /* half of the payload */
	LIE_NO_PAYLOAD, LIE_NO_MESSAGE,
	LIE_MESSAGE,     /* another message than was asked for */
	LIE_NEXT,        /* pages go on, or go back */
	LIE_WITHOUT,     /* it says that it did, and didn't */
	LIE_SILENT,      /* no answer for long */
	LIE_KINDS,
};

struct liar {
	struct env *env;
	struct segment_server *dir;
	struct rpc_server *rpc;
	/* What to answer this time. */
	enum lie (*choose)(void *arg, uint32_t method);
	uint64_t (*draw)(void *arg);         /* numbers for it */
	void *arg;
	unsigned told[LIE_KINDS];
	/* the answer before */
	Aquifer__Segment__Reply last;
	uint8_t *last_bytes;
	uint32_t last_length;
};

/* FIBER. On the directory `path` of the host, at `address`; in the map with weight 1. 0 or -errno. */
int liar_start(struct liar *l, struct env *env, struct catalog *catalog, const char *path, const char *address, const char *domain);
void liar_stop(struct liar *l); /* FIBER */
#endif
