/* From what the user asked for to what a tapdisk does: a checked graph and its devices. Pure;
 * the agent and the tapdisk both make the plan, the agent to reserve the names. */
#ifndef AQ_PLAN_H
#define AQ_PLAN_H
#include "agent/daemon/state.h"
#include "agent/exports/export.h"
#include "agent/graph/graph.h"

struct plan_device {
	char name[64];
	const struct export_driver *export;
	char address[256];     /* "unix:PATH", "tcp:HOST:PORT"; "": the export's default */
	bool read_only;
	unsigned queue_depth;  /* 0: the export's default */
	int node;              /* index into graph->nodes; -1: the graph's root */
};

struct plan {
	struct graph *graph;
	unsigned device_count;
	struct plan_device device[STATE_DEVICES_MAX];
};

struct plan_how {
	const char *name;           /* of the first device; NULL or "": the default */
	const char *const *exports; /* "loop", "loop:NAME", "nbd", "nbd:PATH", "nbd:tcp:HOST:PORT"; */
	unsigned export_count;      /* 0: those of the graph, or loop */
	const char *listen;         /* "HOST:PORT" for the one nbd export; NULL or "": none */
	bool read_only;
	const char *directory;      /* where relative paths start; NULL: leave them */
};

/* 0, or -EINVAL with a report that says what is wrong and the cure. plan_free() after success. */
int plan_make(const char *text, size_t length, const struct plan_how *how, struct plan *ret_plan, struct report *report);
void plan_free(struct plan *p);
/* The volume's name, if the checked graph is a volume and nothing else, without exports; else NULL. Borrowed. */
const char *plan_volume(const struct graph *g);
/* graph_listen_valid(); -EINVAL with a report if it isn't. */
int plan_check_listen(const char *listen, struct report *report);
/* "loop, nbd" */
const char *plan_export_names(char buffer[128]);
#endif
