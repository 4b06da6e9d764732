/* Finds out from the copies of a volume's segments what its record in the catalog would say, had that not been lost: the newest checkpoint's summary, and
 * the log from there on. Reads only. */
#ifndef AQ_SALVAGE_H
#define AQ_SALVAGE_H
#include "core/report.h"
#include "parallax/copies/copies.h"
#include "parallax/segment/segment_share.h"
#include "parallax/volume/summary.h"

/* One copy, as its server lists it. */
struct salvage_copy {
	struct share_entry entry;
	struct peer *peer;
};

enum salvaged {
	SALVAGE_NOTHING,  /* nothing newer than `known` */
	SALVAGE_LONGER,   /* `known`'s checkpoint is the newest; the log goes on from there as `log` lists */
	SALVAGE_NEWER,    /* a newer checkpoint: `summary` */
};

struct salvage {
	enum salvaged what;
	struct summary summary;  /* SALVAGE_NEWER; summary_free() */
	struct meta_log log;     /* else: the record to go on with */
	uint64_t last_id, last_epoch; /* the greatest there are; SALVAGE_EPOCH_MAX at most */
	uint64_t seq;            /* of the newest record; 0: none is known */
	bool behind;             /* there are records that are newer than those `log` leads to, but something before them is nowhere: they were acknowledged, and
				    are lost if that is what the volume goes on from */
	bool unflushed;          /* … but they weren't flushed, nor was that, if `copies` are all there are: a power failure may have taken it, as it may from any volume */
};

/* The next owners' epochs have to be greater still. */
#define SALVAGE_EPOCH_MAX (UINT64_MAX - (UINT64_C(1) << 33))

/* FIBER. `copies`: all of one volume, by (epoch, id). `known`: what a backup of the catalog has of it, NULL: nothing. -ENODATA: they don't lead to any
 * checkpoint, nor to what is known; -EUCLEAN: one says what can't be; -ENOTCONN, -EIO, …: they can't be read, with a report. */
int salvage(struct env *env, const struct salvage_copy *copies, size_t count, const struct meta_log *known, struct salvage *ret, struct report *report);
#endif
