/* The graph language: any bytes are refused in one line, or give a graph that prints and reads back the same,
 * as written and as checked. */
#include <stdlib.h>
#include <string.h>

#include "agent/graph/graph.h"

#define REQUIRE(condition)       \
	do {                     \
		if (!(condition)) \
			abort(); \
	} while (0)

static const struct option_spec cow_options[] = {
	{ "path", OPTION_STRING, .positional = true, .required = true, .help = "the file" },
	{ .name = NULL },
};
static const struct option_spec cache_options[] = {
	{ "mode", OPTION_STRING, .help = "how" },
	{ "on", OPTION_BOOL, .help = "whether" },
	{ "size", OPTION_SIZE, .positional = true, .help = "bytes", .number_min = 512 },
	{ .name = NULL },
};
static const struct option_spec volume_options[] = {
	{ "name", OPTION_STRING, .positional = true, .required = true, .help = "the volume" },
	{ .name = NULL },
};
static const struct blk_driver cache = { .name = "cache", .options = cache_options, .children_min = 1, .children_max = 1 };
static const struct blk_driver cow = { .name = "cow", .options = cow_options, .children_min = 1, .children_max = 1 };
static const struct blk_driver mirror = { .name = "mirror", .children_min = 1, .children_max = 3 };
static const struct blk_driver raw = { .name = "raw", .options = cow_options };
static const struct blk_driver volume = { .name = "volume", .options = volume_options };
static const struct blk_driver *const drivers[] = { &cache, &cow, &mirror, &raw, &volume, NULL };
static const struct export_driver loop = { .name = "loop" }, nbd = { .name = "nbd" };
static const struct export_driver *const exports[] = { &loop, &nbd, NULL };
static const struct graph_tables tables = { drivers, exports };

/* A refusal says why, in one line of UTF-8. */
static void require_report(const struct report *report)
{
	REQUIRE(report->text[0]);
	for (const char *p = report->text; *p; p += graph_utf8(p, strlen(p)))
		REQUIRE(graph_utf8(p, strlen(p)) > 0 && *p != '\n');
}

/* The graph that printing `g` and reading that gives; it must be equal. */
static struct graph *again(const struct graph *g)
{
	char *text = graph_print(g);
	REQUIRE(text);
	struct graph *copy = NULL;
	if (strlen(text) <= GRAPH_TEXT_MAX)
		REQUIRE(graph_parse(text, strlen(text), &copy, NULL) == 0);
	free(text);
	return copy;
}

static void require_order(const struct graph *g)
{
	bool done[GRAPH_NODES_MAX] = { false };
	for (unsigned k = 0; k < g->node_count; k++) {
		const struct graph_node *n = &g->nodes[g->order[k]];
		for (unsigned i = 0; i < n->arg_count; i++)
			REQUIRE(n->args[i].word ? n->args[i].option >= 0 || !n->driver : done[n->args[i].node]);
		done[g->order[k]] = true;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct graph *g, *copy;
	struct report report = { "" };
	if (graph_parse((const char *)data, size, &g, &report) < 0) {
		require_report(&report);
		return 0;
	}
	copy = again(g);
	REQUIRE(!copy || graph_equal(g, copy));
	int r = graph_check(g, &tables, &report);
	if (r < 0)
		require_report(&report);
	if (copy)
		REQUIRE(graph_check(copy, &tables, NULL) == r);
	graph_free(copy);
	if (r == 0) {
		require_order(g);
		copy = again(g);
		REQUIRE(!copy || (graph_check(copy, &tables, NULL) == 0 && graph_equal(g, copy)));
		graph_free(copy);
		char name[64];
		(void)graph_default_name(g, name, NULL);
		REQUIRE(graph_set_directory(g, "/d") == 0);
	}
	graph_free(g);
	return 0;
}
