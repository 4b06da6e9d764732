/* The tapdisk: one process, one graph, its exports, and a control socket if an agent started it.
 *
 *     plan ─▶ lock the run directory ─▶ open the graph ─▶ open the exports ─▶ listen ─▶ say "good"
 *          ─▶ serve until SIGTERM or until the last device is closed ─▶ close in the opposite order
 *
 * A failure on the way up undoes what was done and is one sentence for who started it. */
#ifndef AQ_TAPDISK_H
#define AQ_TAPDISK_H
#include "agent/daemon/plan.h"
#include "agent/daemon/state.h"
#include "agent/graph/instance.h"
#include "core/fiber.h"
#include "proto/rpc.h"

struct tapdisk_options {
	struct plan *plan;       /* taken over */
	const char *root;        /* absolute, "" if none */
	const char *run_dir;     /* its own, exists; NULL: run by hand, no control socket */
	bool read_only, force, accept_flushed, incoming;
	uint64_t incoming_ms;    /* so long it waits for its volume; 0: for ever */
	int ready_fd;            /* see spawn.h; -1: none */
	void (*up)(void *arg, const struct tap_state *state); /* may be NULL: the devices are there */
	void *arg;
};

struct tapdisk {
	struct env *env;
	const struct tapdisk_options *options;
	struct graph_instance *graph;
	struct export *export[STATE_DEVICES_MAX]; /* NULL: closed, or never open */
	struct tap_state state;
	struct rpc_server *server;
	int lock_fd, directory_fd;
	struct fiber_mutex closing;  /* one closes at a time */
	struct fiber_mutex resizing; /* … and one makes devices follow their nodes' sizes, or forget what they keep */
	unsigned controls;           /* nodes' commands under way: until they have ended nothing is closed */
	struct fiber_cond controlled;
	struct fiber_cond end;
	unsigned terms;              /* signals to end so far */
	bool over;                   /* nothing is served any more */
	int closed_status;           /* what closing the graph said */
	bool flushed;                /* what was written to its graph, which is being closed, is durable */
	uint64_t size[STATE_DEVICES_MAX]; /* that the devices show */
	/* tapdisk_condition.c */
	char condition[256];         /* the graph's state and why, "" while it serves */
	/* tapdisk_trouble.c */
	char trouble[256];           /* what is wrong with the graph, "" if nothing */
	char trouble_about[256];     /* without what changes with each request */
	struct timer look_timer;
	struct job looking;
	bool looks, look_no_more;
	struct offload beat;
	struct job beating;
	bool beats;
	uint64_t beat_ns;
	/* tapdisk_end.c */
	uint64_t end_since_ns;       /* told to end, and nobody to wait for; 0: it isn't */
	struct timer end_timer;
	struct job ending;
	uint64_t end_work_ns, end_moved_ns; /* of all requests so far; when it last changed */
	bool end_forced, end_looks;
};

/* FIBER. Serves until the end. 0, or -errno with a report: it never came up, or could not write all that it should have. */
int tapdisk_run(struct env *env, const struct tapdisk_options *options, struct report *report);

/* FIBER. Takes device `index` away; with the last one closes the graph, and the tapdisk ends. -EBUSY: in use. */
int tapdisk_close(struct tapdisk *t, unsigned index, bool force, struct report *report);

/* tapdisk_trouble.c: the sentence now; looking for it from time to time, and its end (FIBER). */
void tapdisk_trouble(const struct tapdisk *t, char *ret_text, size_t bytes);
void tapdisk_trouble_watch(struct tapdisk *t);
void tapdisk_trouble_end(struct tapdisk *t);

/* tapdisk_condition.c: is it as a volume is that serves; looking for the graph's condition, and its end; who waits for a volume that comes waits no
 * more (FIBER); devices get their nodes' sizes (FIBER), also when nobody asked for it. */
bool tapdisk_serves(const struct blk_node *node);
bool tapdisk_moved(struct blk_node *node); /* its volume is another host's, and its requests fail */
/* FIBER. What the kernel keeps of the devices in memory is written out, as far as they take it, and forgotten. */
int tapdisk_forget(struct tapdisk *t, struct report *report);
void tapdisk_condition_look(struct tapdisk *t);
void tapdisk_condition_end(struct tapdisk *t);
void tapdisk_condition_let_go(struct tapdisk *t);
int tapdisk_follow_sizes(struct tapdisk *t, struct report *report);
void tapdisk_sizes_look(struct tapdisk *t);

/* tapdisk_end.c: it has begun to end, and _exits after a while if it hasn't ended by then; it goes on after all; no more of that (FIBER). */
void tapdisk_end_begin(struct tapdisk *t, bool forced);
void tapdisk_end_over(struct tapdisk *t);
void tapdisk_end_stop(struct tapdisk *t);

/* tapdisk_control.c: rpc_server_options.handle. FIBER. */
void tapdisk_handle(void *arg, struct rpc_request *r);
#endif
