/* Graph to text, in the canonical form: nested expressions, a line per named node in the order they were
 * written, then the node without a name or the exports. Reading it again gives the same graph. */
#include <stdio.h>
#include <stdlib.h>

#include "agent/graph/graph.h"

static void print_word(FILE *f, const char *word, bool element)
{
	if (!graph_must_quote(word, element)) {
		fputs(word, f);
		return;
	}
	fputc('"', f);
	char one[8];
	while (*word) {
		word += graph_escape(word, one);
		fputs(one, f);
	}
	fputc('"', f);
}

static void print_body(FILE *f, const struct graph *g, const struct graph_node *n);

static void print_arg(FILE *f, const struct graph *g, const struct graph_arg *a)
{
	if (a->key)
		fprintf(f, "%s=", a->key);
	if (a->word)
		print_word(f, a->word, false);
	else if (g->nodes[a->node].name)
		fputs(g->nodes[a->node].name, f);
	else
		print_body(f, g, &g->nodes[a->node]);
}

/* Recursion is as deep as the graph is nested: GRAPH_DEPTH_MAX. */
static void print_body(FILE *f, const struct graph *g, const struct graph_node *n)
{
	if (!n->driver) {
		print_word(f, n->args[0].word, /* element= */ true);
		return;
	}
	print_word(f, n->driver, false);
	fputc('(', f);
	for (unsigned i = 0; i < n->arg_count; i++) {
		fputs(i ? ", " : "", f);
		print_arg(f, g, &n->args[i]);
	}
	fputc(')', f);
}

static void print_export(FILE *f, const struct graph *g, const struct graph_export *e)
{
	fputs("export ", f);
	print_word(f, e->node_name, false);
	fputs(" as ", f);
	print_word(f, e->type, false);
	if (e->name) {
		fputc(' ', f);
		print_word(f, e->name, false);
	}
	for (unsigned i = 0; i < e->arg_count; i++) {
		fputc(' ', f);
		print_arg(f, g, &e->args[i]);
	}
}

static void print_graph(FILE *f, const struct graph *g)
{
	const char *newline = "";
	for (unsigned i = 0; i < g->node_count; i++) {
		const struct graph_node *n = &g->nodes[i];
		if (!n->name)
			continue;
		fprintf(f, "%s%s = ", newline, n->name);
		print_body(f, g, n);
		newline = "\n";
	}
	if (g->root >= 0 && !g->nodes[g->root].name) {
		fputs(newline, f);
		print_body(f, g, &g->nodes[g->root]);
		newline = "\n";
	}
	for (unsigned i = 0; i < g->export_count; i++) {
		fputs(newline, f);
		print_export(f, g, &g->exports[i]);
		newline = "\n";
	}
}

char *graph_print(const struct graph *g)
{
	char *text = NULL;
	size_t length;
	FILE *f = open_memstream(&text, &length);
	if (!f)
		return NULL;
	print_graph(f, g);
	bool bad = ferror(f);
	if (fclose(f) != 0 || bad) {
		free(text);
		return NULL;
	}
	return text;
}
