/* Graphs of real drivers, opened in the simulator from their text. */
#ifndef AQ_GRAPHTEST_H
#define AQ_GRAPHTEST_H
#include "agent/graph/instance.h"
#include "core/env_sim.h"

struct graphtest {
	struct sim *sim;
	struct sim_host *host;
	struct env *env;
	struct graph_instance *graph;
	struct blk_node *root;
	struct report report;     /* why it couldn't be opened */
	void (*run)(struct graphtest *t); /* FIBER; NULL: only open and close */
	const char *text;
	void *arg;
};

/* Opens `text` in a new world, calls run, closes all. Returns the error of opening or closing. */
int graphtest(struct graphtest *t, uint64_t seed);
/* A counter of a node's describe(), UINT64_MAX if it has none of that name. */
uint64_t graphtest_item(struct graphtest *t, const char *node, const char *key);
/* FIBER. One write or read of `length` bytes of `fill`; the read fails the test if it isn't `fill` all over. */
int graphtest_write(struct blk_node *n, uint64_t offset, uint64_t length, uint8_t fill);
int graphtest_read(struct blk_node *n, uint64_t offset, uint64_t length, uint8_t fill);
#endif
