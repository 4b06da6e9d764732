/* Block nodes: the one interface of everything that stores or transforms blocks.
 *
 * A request is a `blk_io`, owned by its submitter until its parent job is put. A node
 * handles it in a *frame* from a pool sized at open; the frame begins with a job. When
 * the pool is empty the core queues the request, in order. The core checks the contract
 * (range, alignment, read-only, limits, completed exactly once) here, once, so drivers stay small.
 *
 * Durability: FLUSH covers every write completed before it was submitted; BLK_FUA covers
 * its own. Completion of a write says nothing about durability. */
#ifndef AQ_BLK_H
#define AQ_BLK_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/uio.h>

#include "core/env.h"
#include "core/job.h"
#include "core/link.h"
#include "core/option.h"
#include "core/report.h"

enum blk_op {
	BLK_READ,
	BLK_WRITE,
	BLK_FLUSH,   /* no range */
	BLK_DISCARD, /* the content becomes undefined for this node's user unless info.discard_zeroes; may do nothing */
	BLK_ZERO,    /* reads as zeroes afterwards */
	BLK_MAP,     /* fills `map`: allocation extents from offset on */
	BLK_OP_COUNT
};

enum {
	BLK_FUA = 1,       /* WRITE, ZERO, DISCARD: durable when completed */
	BLK_MAY_UNMAP = 2, /* ZERO: may deallocate */
	BLK_FAST_ONLY = 4, /* ZERO: -ENOTSUP instead of being as slow as writing */
	BLK_UNSTABLE = 8,  /* WRITE: somebody may change the buffer while it is being written (guest memory) */
};

enum { BLK_EXTENT_DATA = 0, BLK_EXTENT_HOLE = 1, BLK_EXTENT_ZERO = 2 }; /* flags, as in NBD's base:allocation */
struct blk_extent {
	uint64_t length; /* bytes */
	uint32_t flags;
};
struct blk_map {
	struct blk_extent *extents; /* the submitter's */
	unsigned count, max;        /* filled by the driver: at least one; may cover less than asked */
};

struct blk_node;
struct blk_io {
	enum blk_op op;
	unsigned flags;
	uint64_t offset, length;   /* bytes; multiples of the node's info.block_size */
	const struct iovec *iov;   /* READ, WRITE: borrowed until completion; sums to length */
	int iov_count;
	struct blk_map *map;       /* MAP */
	int status;                /* 0 or -errno once completed */
	struct job *parent;
	/* below: the core's and the driver's until completion */
	struct link link;
	struct blk_node *node;
	uint64_t start_ns;
	bool busy;
};

/* What a node can do; filled by open() after its children are open. */
struct blk_info {
	uint64_t size;             /* bytes, a multiple of block_size */
	uint32_t block_size;       /* smallest unit of offset and length, bytes: 512 or 1 … 4096 */
	uint32_t preferred_size;   /* what costs no read-modify-write, bytes */
	uint32_t memory_align;     /* what buffers should be aligned to for speed; drivers cope with any */
	uint64_t max_transfer;     /* bytes per READ or WRITE; 0: no limit. The core splits nothing: exports do */
	bool read_only;
	bool can_discard, can_zero, can_map;
	bool discard_zeroes;       /* discarded ranges read as zeroes */
	bool multi_client;         /* a flush by one user covers what another's completed writes did */
	bool rotational;
	uint64_t identity;         /* of the content's origin, the same wherever and under whatever name it is opened: a volume, a snapshot, a layer; 0: not known */
};

/* Live counters of a node, kept by the core. */
struct blk_counters {
	uint64_t requests[BLK_OP_COUNT], bytes[BLK_OP_COUNT], errors[BLK_OP_COUNT], busy_ns[BLK_OP_COUNT];
	uint32_t in_flight, in_flight_max;
};

#define BLK_MAX_CHILDREN 8

struct blk_open {                     /* what open() is given */
	const struct option_values *options;
	const char *node_name;        /* for messages */
	const char *below;            /* for messages: the file or volume that its first child is, or has below it; NULL: not known */
	const char *holder;           /* who opens, for lock messages: "device NAME (tapdisk pid N)" */
	uint64_t pid;                 /* of the tapdisk that opens; 0: another program, which isn't to be ended by who takes over */
	const char *control;          /* the process' control socket, "unix:PATH"; NULL: it has none */
	const char *root;             /* AQUIFER_ROOT, "" if none */
	bool read_only;               /* nothing above will write */
	bool force;                   /* take over from another holder where that can be done safely */
	bool accept_flushed;          /* go on with what was flushed where later writes are lost */
	bool incoming;                /* somebody else has it: open over nothing, and let requests wait until he lets go, */
	uint64_t incoming_ms;         /* … for so long at most; 0: for ever */
};

/* Requests of a node that wait because something can't be reached, and those that waited too long. */
struct blk_waits {
	unsigned requests[BLK_OP_COUNT];
	uint64_t oldest_ns;           /* since when the first of them waits, since 1970; 0: none does */
	char what[256];               /* for what, one clause; also while no request has come to need it; "": nothing */
	uint64_t since_ns;            /* since when that can't be had, since 1970 */
	uint64_t limit_ns;            /* after which they end with -EIO; 0: they don't */
	uint64_t timed_out;           /* those that did */
	enum blk_op last_op;          /* the last of them, */
	uint64_t last_ns;             /* … since 1970, */
	char last_for[256];           /* … and what it had waited for */
};

struct blk_driver {
	const char *name;
	const char *summary;                /* one line for --help and docs */
	const struct option_spec *options;  /* ends with a NULL name */
	unsigned children_min, children_max;/* positional arguments that are nodes */
	bool writes_child;                  /* needs its children writable when it is itself */
	bool follows_size;                  /* its size is that of its smallest child, also when that changes */
	size_t node_size, frame_size;       /* bytes; node_size includes struct blk_node at its start */
	unsigned depth;                     /* frames; 0: the default (BLK_DEFAULT_DEPTH) if frame_size isn't 0 */
	/* Is `head`, the first `length` bytes of a file, this format? A FILE in a graph whose format isn't named is opened
	 * with the driver that says so. NULL: must be named. */
	bool (*probe)(const uint8_t *head, size_t length);
	/* FIBER. node->child[] are open. On failure it cleans up after itself. NULL: pass child[0]'s info through. */
	int (*open)(struct blk_node *node, const struct blk_open *how, struct report *report);
	/* FIBER. No request is in flight. Returns the first error of what it still had to write. */
	int (*close)(struct blk_node *node);
	/* Exactly one blk_end(io, …) follows, from here or later. */
	void (*submit)(struct blk_node *node, struct blk_io *io);
	/* Adds driver counters as "key" and number. Some keys are looked at by the tapdisk: "failed", the errno with which all
	 * requests fail from now on; "checkpoint_failed", the errno with which what is written can't be published, so that writes will wait; "no_space", not 0 while writes fail for want of it; "read_errors". May be NULL. */
	void (*describe)(struct blk_node *node, void (*item)(void *arg, const char *key, uint64_t value), void *arg);
	/* Is it in another state than serving (a volume that comes from another host, or has gone to one)? A word for it, and the rest for
	 * people. NULL: never. */
	bool (*condition)(struct blk_node *node, char ret_state[16], char *ret_why, size_t bytes);
	/* What do its requests wait for, or did? False: nothing. NULL: nothing ever. */
	bool (*waits)(struct blk_node *node, struct blk_waits *ret);
	/* FIBER. Does something of the driver's own to a running node ("snapshot-create NAME"), as the operator or
	 * another process asked through the tapdisk's control socket. `args` ends with NULL. 0 or -errno with a report;
	 * *ret_json is NULL or a malloc'd JSON text, the caller's. -EOPNOTSUPP: no such verb. NULL: has none. */
	int (*control)(struct blk_node *node, const char *verb, const char *const *args, char **ret_json,
		       struct report *report);
	/* FIBER. Makes an empty image of `size` bytes in a new file, durably: `aquifer image create`. -EEXIST: the file is
	 * there. `backing` is a file that it starts as a layer over, or NULL. NULL: this is no format that can be made. */
	int (*create)(struct env *env, const char *path, uint64_t size, const char *backing, struct report *report);
};

#define BLK_DEFAULT_DEPTH 128

struct blk_node {
	const struct blk_driver *driver;
	struct env *env;
	struct loop *loop;
	char name[64];
	struct blk_info info;
	struct blk_node *child[BLK_MAX_CHILDREN];
	unsigned child_count;
	struct blk_counters counters;
	struct link backlog;       /* requests that wait for a frame */
	void *frames;              /* free frames */
	unsigned frames_free, frames_total;
	struct link drain_waiters;
};

/* FIBER. Opens a node over `children` (borrowed: they must outlive it). 0 or -errno with a report.
 * blk_close() waits for what is in flight, closes and frees. */
int blk_open(struct env *env, const struct blk_driver *driver, const struct blk_open *how,
	     struct blk_node *const *children, unsigned child_count, struct blk_node **ret_node,
	     struct report *report);
int blk_close(struct blk_node *node); /* FIBER; accepts NULL */

/* Holds `parent`; it is put with the request's status, never from inside this call. */
void blk_submit(struct blk_node *node, struct blk_io *io, struct job *parent);
/* A driver ends a request it was given. */
void blk_end(struct blk_io *io, int status);

/* A driver's frames (not zeroed; all of frame_size is the driver's). A driver with frame_size gets
 * submit() called only while a frame is free, so blk_frame_get() in submit() never fails. */
void *blk_frame_get(struct blk_node *node);
void blk_frame_put(struct blk_node *node, void *frame);

/* FIBER: one request, waited for. */
int blk_read_wait(struct blk_node *node, void *buffer, uint64_t length, uint64_t offset);
int blk_write_wait(struct blk_node *node, const void *buffer, uint64_t length, uint64_t offset, unsigned flags);
int blk_op_wait(struct blk_node *node, enum blk_op op, uint64_t offset, uint64_t length, unsigned flags);
int blk_map_wait(struct blk_node *node, uint64_t offset, uint64_t length, struct blk_map *map);

const char *blk_op_name(enum blk_op op);
/* "3 writes and 1 flush"; "nothing" if all are 0. */
void blk_waits_text(const struct blk_waits *w, char *ret_text, size_t bytes);

/* ---- iovec helpers (core/iov.c) ---- */
uint64_t iov_bytes(const struct iovec *iov, int count);
/* Copy `length` bytes between a buffer and the iovec, `skip` bytes into it. */
void iov_gather(const struct iovec *iov, int count, uint64_t skip, void *to, uint64_t length);
void iov_scatter(const struct iovec *iov, int count, uint64_t skip, const void *from, uint64_t length);
void iov_zero(const struct iovec *iov, int count, uint64_t skip, uint64_t length);
/* A sub-range as an iovec of at most `max` entries; returns the entries used, or -1 if more were needed. */
int iov_slice(const struct iovec *iov, int count, uint64_t skip, uint64_t length, struct iovec *ret, int max);
/* What is left after `skip` bytes, as far as it fits into `max` entries; returns the bytes they hold. */
uint64_t iov_rest(const struct iovec *iov, int count, uint64_t skip, struct iovec *ret, int max, int *ret_count);
bool iov_aligned(const struct iovec *iov, int count, uint32_t memory_align, uint32_t length_align);
#endif
