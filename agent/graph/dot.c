/* An open graph as a picture: Graphviz text with the counters in it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/graph/instance.h"

/* Inside a quoted label. */
static void dot_text(FILE *f, const char *text)
{
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			fputc('\\', f);
		fputc(*text, f);
	}
}

static void dot_item(void *arg, const char *key, uint64_t value)
{
	FILE *f = arg;
	fprintf(f, "\\n%s %" PRIu64, key, value);
}

static void dot_counters(FILE *f, const struct blk_counters *c)
{
	char bytes[24];
	for (int op = 0; op < BLK_OP_COUNT; op++) {
		if (!c->requests[op])
			continue;
		fprintf(f, "\\n%s %" PRIu64, blk_op_name(op), c->requests[op]);
		if (op != BLK_FLUSH)
			fprintf(f, ", %s", format_size_human(c->bytes[op], bytes));
		if (c->errors[op])
			fprintf(f, ", %" PRIu64 " failed", c->errors[op]);
	}
}

static void dot_node(void *arg, struct blk_node *n, const char *args)
{
	FILE *f = arg;
	char size[24];
	fprintf(f, "\t\"%s\" [label=\"%s\\n%s(", n->name, n->name, n->driver->name);
	dot_text(f, args);
	fprintf(f, ")\\n%s%s", format_size_human(n->info.size, size), n->info.read_only ? ", read only" : "");
	dot_counters(f, &n->counters);
	if (n->driver->describe)
		n->driver->describe(n, dot_item, f);
	fputs("\"];\n", f);
	for (unsigned i = 0; i < n->child_count; i++)
		fprintf(f, "\t\"%s\" -> \"%s\";\n", n->name, n->child[i]->name);
}

/* "device:" can't be a node's name, so the two kinds never meet. */
static void dot_device(FILE *f, const char *device, const char *type, const struct blk_node *n)
{
	fprintf(f, "\t\"device:%s\" [shape=ellipse, label=\"%s%s%s\"];\n\t\"device:%s\" -> \"%s\";\n", device, device, type ? "\\n" : "",
		type ? type : "", device, n->name);
}

char *graph_dot(const struct graph_instance *g, const char *device)
{
	char *text = NULL;
	size_t length;
	FILE *f = open_memstream(&text, &length);
	if (!f)
		return NULL;
	const struct graph *graph = graph_of(g);
	fputs("digraph aquifer {\n\tnode [shape=box, fontname=\"sans-serif\"];\n", f);
	if (graph_root_node(g))
		dot_device(f, device, NULL, graph_root_node(g));
	for (unsigned i = 0; i < graph->export_count; i++) {
		const struct graph_export *e = &graph->exports[i];
		dot_device(f, e->name ? e->name : e->node_name, e->type, graph_export_node(g, i));
	}
	graph_walk(g, dot_node, f);
	fputs("}\n", f);
	bool bad = ferror(f);
	if (fclose(f) != 0 || bad) {
		free(text);
		return NULL;
	}
	return text;
}
