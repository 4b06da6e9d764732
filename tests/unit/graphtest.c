#include "tests/unit/graphtest.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int play(void *arg)
{
	struct graphtest *t = arg;
	struct graph *g = NULL;
	struct graph_how how = { .holder = "the unit test" };
	int r = graph_parse(t->text, strlen(t->text), &g, &t->report);
	if (r == 0)
		r = graph_check(g, NULL, &t->report);
	if (r == 0)
		r = graph_open(t->env, g, &how, &t->graph, &t->report);
	if (r < 0) {
		graph_free(g);
		return r;
	}
	t->root = graph_root_node(t->graph);
	if (t->run)
		t->run(t);
	return graph_close(t->graph);
}

int graphtest(struct graphtest *t, uint64_t seed)
{
	t->sim = sim_create(seed, NULL);
	t->host = sim_host_create(t->sim, "h", 64 << 20, 512);
	t->env = sim_process_create(t->sim, t->host);
	int r = sim_run_fiber(t->env, play, t);
	sim_process_destroy(t->env);
	sim_destroy(t->sim);
	return r;
}

struct wanted {
	const char *key;
	uint64_t value;
};

static void item(void *arg, const char *key, uint64_t value)
{
	struct wanted *w = arg;
	if (strcmp(key, w->key) == 0)
		w->value = value;
}

uint64_t graphtest_item(struct graphtest *t, const char *node, const char *key)
{
	struct blk_node *n = graph_named_node(t->graph, node);
	struct wanted w = { key, UINT64_MAX };
	cr_assert(n && n->driver->describe, "%s", node);
	n->driver->describe(n, item, &w);
	return w.value;
}

int graphtest_write(struct blk_node *n, uint64_t offset, uint64_t length, uint8_t fill)
{
	uint8_t *data = env_alloc_aligned(length);
	memset(data, fill, length);
	int r = blk_write_wait(n, data, length, offset, 0);
	free(data);
	return r;
}

int graphtest_read(struct blk_node *n, uint64_t offset, uint64_t length, uint8_t fill)
{
	uint8_t *data = env_alloc_aligned(length);
	memset(data, ~fill, length);
	int r = blk_read_wait(n, data, length, offset);
	for (uint64_t i = 0; r == 0 && i < length; i++)
		cr_assert_eq(data[i], fill, "byte %lu is %02x, not %02x", (unsigned long)(offset + i), data[i], fill);
	free(data);
	return r;
}
