/* The merge scheduler: where requests leave the graph for a file.
 *
 * It keeps four promises. Requests that overlap, one of them not a read, reach the file one after
 * the other, in order of arrival. A request is never held back while the file is idle; while it is
 * busy only requests that continue a sequential stream are, for a few completions at most. Each
 * request gets the result of its own bytes: a merged request that fails is repeated in its parts. And nobody
 * is overtaken for ever: while the file has all it takes, what waits leaves sorted, reads first, but
 * from time to time a line is drawn, and all in front of it goes before what comes behind it.
 *
 * Neighbours are found in what arrives in one turn of the loop and in what is held back; they leave
 * sorted, as one vectored request up to the limits. Requests on different sides of a sync are never
 * merged. Syncs that wait for a running one share the next. After a sync has failed the kernel may have
 * forgotten what it couldn't write, so every later one fails too, until the file is opened again. */
#ifndef AQ_MERGE_H
#define AQ_MERGE_H
#include "core/env.h"
#include "core/range.h"

struct merge_limits {
	uint64_t bytes_max;       /* of a merged request (single ones may be longer) */
	unsigned segments_max;    /* iovec entries of a merged request */
	unsigned in_flight_max;   /* requests at the file at once; the rest waits in the queue */
	unsigned hold_above;      /* sequential requests are held back when this many are in flight … */
	uint64_t hold_bytes_max;  /* … until they are this many bytes together */
};
#define MERGE_LIMITS_DEFAULT \
	((struct merge_limits){ .bytes_max = 1u << 20, .segments_max = 256, .in_flight_max = 64, \
				.hold_above = 4, .hold_bytes_max = 128u << 10 })

struct merge_counters {
	uint64_t requests_in, requests_out; /* of reads, writes, discards and zeroes */
	uint64_t syncs_in, syncs_out;
	uint64_t held, split;               /* times a sequential run was held back; merged requests repeated in parts */
};

/* Owned by the submitter until its parent is put. */
struct merge_io {
	enum file_op op;         /* READ, WRITE, DISCARD, ZERO, SYNC */
	bool locked;             /* the caller holds a range of merge->lock that covers this */
	uint64_t offset, length; /* bytes; not used by SYNC */
	const struct iovec *iov; /* READ, WRITE: borrowed, sums to length */
	int iov_count;
	size_t done;             /* READ: bytes read, less than length only at end of file */
	int status;
	struct job *parent;
	/* below: the scheduler's own */
	struct merge *merge;
	struct job job;
	struct range range;
	struct link link;
	uint64_t generation, hold_until;
	bool sequential;
};

#define MERGE_STREAMS 8

struct merge {
	struct env *env;
	struct file *file;           /* borrowed */
	struct merge_limits limits;
	struct merge_counters counters;
	struct range_lock lock;      /* what is under way; callers with read-modify-write cycles take it themselves */
	struct link queue;           /* by generation, operation, offset */
	unsigned queued, in_flight;
	struct link batches_free;
	struct merge_batch *batches;
	struct iovec *vectors;
	uint64_t generation;         /* grows with each sync, and when requests have been overtaken for long enough */
	unsigned full_turns;         /* dispatches in a row that had to leave some waiting */
	uint64_t completions;
	uint64_t stream_end[MERGE_STREAMS]; /* where recent requests ended */
	unsigned stream_next;
	bool dispatch_pending;
	struct job dispatch_job;
	struct job sync_job;
	struct file_io sync_io;
	struct link sync_waiting, sync_running;
	int sync_error;              /* of the first sync that failed */
};

/* 0 or -ENOMEM. Nothing may be under way when it is destroyed. */
int merge_init(struct merge *m, struct env *env, struct file *file, const struct merge_limits *limits);
void merge_destroy(struct merge *m); /* accepts one that was never initialised but zeroed */
/* Holds `parent`, puts it later with the request's status; never suspends. */
void merge_submit(struct merge *m, struct merge_io *io, struct job *parent);
#endif
