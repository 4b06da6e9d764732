/* A graph that is open: its block nodes, shared parts once, in one process and on one loop. */
#ifndef AQ_GRAPH_INSTANCE_H
#define AQ_GRAPH_INSTANCE_H
#include "agent/graph/graph.h"
#include "core/blk.h"

struct graph_instance;

struct graph_how {
	const char *holder; /* for lock messages: "device NAME (tapdisk pid N)" */
	uint64_t pid;       /* of this tapdisk; 0: this is another program, which isn't to be ended by who takes over */
	const char *control; /* the control socket of this process, "unix:PATH"; NULL: it has none */
	const char *root;   /* AQUIFER_ROOT, "" or NULL if none */
	bool read_only;     /* of all devices, whatever their exports say */
	bool force;         /* take over from another holder where that can be done safely */
	bool accept_flushed; /* go on with what was flushed where later writes are lost */
	bool incoming;      /* see blk_open */
	uint64_t incoming_ms;
};

/* FIBER. Opens every node of a checked graph, children first, each once. A node is opened for writing only if something
 * above it needs that: an export that isn't read only, through drivers that write their children. On success the instance
 * owns the graph; on failure (-errno with a report that names the node) nothing is left open and the graph is still
 * the caller's. */
int graph_open(struct env *env, struct graph *graph, const struct graph_how *how, struct graph_instance **ret_instance,
	       struct report *report);
/* FIBER. Closes the nodes, users first, and frees all; nothing may use them any more. Returns the first error of a node
 * that still had something to write. Accepts NULL. */
int graph_close(struct graph_instance *instance);

const struct graph *graph_of(const struct graph_instance *instance);
/* The node that the graph's export number `index` serves. */
struct blk_node *graph_export_node(const struct graph_instance *instance, unsigned index);
/* The node of a graph without exports; NULL if it has some. */
struct blk_node *graph_root_node(const struct graph_instance *instance);
/* The node of that name, given or made ("cow-1"); NULL if there is none. */
struct blk_node *graph_named_node(const struct graph_instance *instance, const char *name);

/* A node's size has changed (a volume was resized): those above that have no size of their own have it too. */
void graph_follow_sizes(struct graph_instance *instance);

/* Calls `visit` for every node, users before what they use. The node tells its name, driver, children, size and counters;
 * `args` are its own arguments, as the language writes them, cut to a readable length: "/images/a.img, direct=off". */
void graph_walk(const struct graph_instance *instance, void (*visit)(void *arg, struct blk_node *node, const char *args), void *arg);
/* The graph with its counters in Graphviz's language; malloc'd, NULL without memory. `device` is shown as what uses the
 * root of a graph without exports. */
char *graph_dot(const struct graph_instance *instance, const char *device);

/* FIBER. The driver for a file whose format isn't named: the one of `drivers` (ends with NULL) whose probe knows the file's
 * head, or raw. -EINVAL if several do. */
int graph_probe(struct env *env, const struct blk_driver *const *drivers, const char *path, const struct blk_driver **ret_driver,
		struct report *report);
#endif
