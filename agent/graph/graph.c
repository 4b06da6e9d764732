/* The graph as a data structure: adding, finding, comparing, freeing, and words as the language writes them. */
#include "agent/graph/graph.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"

int graph_error(struct report *report, struct graph_place place, const char *format, ...)
{
	char text[sizeof report->text];
	va_list ap;
	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	return report_set(report, -EINVAL, "line %u, column %u: %s", place.line, place.column, text);
}

/* ---- building ---- */

int graph_add_node(struct graph *g, const char *driver, struct graph_place place)
{
	int r = g->node_count < GRAPH_NODES_MAX ? array_more(&g->nodes, g->node_count) : -E2BIG;
	if (r < 0)
		return r;
	g->nodes[g->node_count] = (struct graph_node){ .driver = driver, .place = place };
	return (int)g->node_count++;
}

int graph_add_arg(struct graph_node *n, struct graph_arg arg)
{
	int r = n->arg_count < GRAPH_ARGS_MAX ? array_more(&n->args, n->arg_count) : -E2BIG;
	if (r < 0)
		return r;
	unsigned at = n->arg_count++;
	for (; !arg.key && at > 0 && n->args[at - 1].key; at--)
		n->args[at] = n->args[at - 1];
	n->args[at] = arg;
	return 0;
}

int graph_add_export(struct graph *g, const struct graph_export *e)
{
	int r = g->export_count < GRAPH_EXPORTS_MAX ? array_more(&g->exports, g->export_count) : -E2BIG;
	if (r == 0)
		g->exports[g->export_count++] = *e;
	return r;
}

int graph_find(const struct graph *g, const char *name)
{
	for (unsigned i = 0; i < g->node_count; i++)
		if (g->nodes[i].name && strcmp(g->nodes[i].name, name) == 0)
			return (int)i;
	return -1;
}

void graph_free(struct graph *g)
{
	if (!g)
		return;
	for (unsigned i = 0; i < g->node_count; i++)
		free(g->nodes[i].args);
	for (unsigned i = 0; i < g->more_count; i++)
		free(g->more_strings[i]);
	free(g->more_strings);
	free(g->nodes);
	free(g->exports);
	free(g->order);
	free(g->strings);
	free(g);
}

/* ---- comparing ---- */

static bool same(const char *a, const char *b) { return a == b || (a && b && strcmp(a, b) == 0); }

static bool equal_node(const struct graph *a, int i, const struct graph *b, int j);

static bool equal_arg(const struct graph *a, const struct graph_arg *x, const struct graph *b, const struct graph_arg *y)
{
	if (!same(x->key, y->key))
		return false;
	if (x->word || y->word)
		return same(x->word, y->word);
	return equal_node(a, x->node, b, y->node);
}

static bool equal_args(const struct graph *a, const struct graph_arg *x, unsigned x_count, const struct graph *b,
		       const struct graph_arg *y, unsigned y_count)
{
	if (x_count != y_count)
		return false;
	for (unsigned k = 0; k < x_count; k++)
		if (!equal_arg(a, &x[k], b, &y[k]))
			return false;
	return true;
}

static bool equal_body(const struct graph *a, int i, const struct graph *b, int j)
{
	const struct graph_node *x = &a->nodes[i], *y = &b->nodes[j];
	return same(x->driver, y->driver) && equal_args(a, x->args, x->arg_count, b, y->args, y->arg_count);
}

/* Seen from a user of the node: of a named one only the name counts, so that shared parts are compared once. */
static bool equal_node(const struct graph *a, int i, const struct graph *b, int j)
{
	if (i < 0 || j < 0)
		return i < 0 && j < 0;
	const char *x = a->nodes[i].name, *y = b->nodes[j].name;
	if (x || y)
		return same(x, y);
	return equal_body(a, i, b, j);
}

static unsigned next_named(const struct graph *g, unsigned i)
{
	while (i < g->node_count && !g->nodes[i].name)
		i++;
	return i;
}

bool graph_equal(const struct graph *a, const struct graph *b)
{
	unsigned i = next_named(a, 0), j = next_named(b, 0);
	for (; i < a->node_count && j < b->node_count; i = next_named(a, i + 1), j = next_named(b, j + 1))
		if (!same(a->nodes[i].name, b->nodes[j].name) || !equal_body(a, (int)i, b, (int)j))
			return false;
	if (i < a->node_count || j < b->node_count || a->export_count != b->export_count)
		return false;
	for (unsigned k = 0; k < a->export_count; k++) {
		const struct graph_export *x = &a->exports[k], *y = &b->exports[k];
		if (!same(x->node_name, y->node_name) || !same(x->type, y->type) || !same(x->name, y->name) ||
		    !equal_args(a, x->args, x->arg_count, b, y->args, y->arg_count))
			return false;
	}
	return equal_node(a, a->root, b, b->root);
}

/* ---- words ---- */

unsigned graph_utf8(const char *text, size_t length)
{
	const unsigned char *p = (const unsigned char *)text;
	unsigned n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
	if (n > length)
		return 0;
	for (unsigned i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	bool overlong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
	bool outside = (p[0] == 0xed && p[1] >= 0xa0) || (p[0] == 0xf4 && p[1] >= 0x90);
	return n > 1 && (overlong || outside) ? 0 : n;
}

bool graph_plain_char(unsigned char c)
{
	return isalnum(c) || c >= 0x80 || (c && strchr("._-/:@+%~^#", c));
}

bool graph_must_quote(const char *word, bool element)
{
	if (!word[0] || word[0] == '#' || strncmp(word, GRAPH_UTF8_MARK, sizeof GRAPH_UTF8_MARK - 1) == 0) /* at a text's beginning it would be skipped */
		return true;
	bool slash = false;
	for (unsigned n; *word; word += n) {
		n = graph_utf8(word, strlen(word));
		if (!n || !graph_plain_char((unsigned char)*word) || (*word == ':' && element && !slash))
			return true;
		slash |= *word == '/';
	}
	return false;
}

unsigned graph_escape(const char *p, char ret_text[8])
{
	static const char names[] = "\nn\tt\rr\"\"\\\\";
	unsigned char c = (unsigned char)*p;
	for (unsigned i = 0; names[i]; i += 2)
		if (*p == names[i]) {
			snprintf(ret_text, 8, "\\%c", names[i + 1]);
			return 1;
		}
	unsigned n = graph_utf8(p, strlen(p));
	if (!n || c < 0x20 || c == 0x7f)
		snprintf(ret_text, 8, "\\x%02x", c);
	else
		snprintf(ret_text, 8, "%.*s", (int)n, p);
	return n ? n : 1;
}

const char *graph_quote(const char *word, char *buffer, size_t max)
{
	bool quote = graph_must_quote(word, /* element= */ false);
	size_t used = 0, tail = sizeof "…\"";
	assert(max > tail + 1);
	if (quote)
		buffer[used++] = '"';
	while (*word) {
		char one[8];
		unsigned n = graph_escape(word, one);
		if (used + strlen(one) + tail > max)
			break;
		memcpy(buffer + used, one, strlen(one));
		used += strlen(one);
		word += n;
	}
	snprintf(buffer + used, max - used, "%s%s", *word ? "…" : "", quote ? "\"" : "");
	return buffer;
}

/* ---- what people call a graph ---- */

const char *graph_node_subject(const struct graph_node *n)
{
	if (!n->driver)
		return n->args[0].word;
	const struct option_spec *spec = n->blk ? n->blk->options : NULL;
	for (unsigned i = 0; spec && i < n->arg_count; i++) {
		const struct graph_arg *a = &n->args[i];
		if (a->option >= 0 && spec[a->option].positional && spec[a->option].type == OPTION_STRING)
			return a->word;
	}
	return NULL;
}

static bool is_leaf(const struct graph_node *n)
{
	for (unsigned i = 0; i < n->arg_count; i++)
		if (!n->args[i].word)
			return false;
	return true;
}

int graph_default_name(const struct graph *g, char ret_name[64], struct report *report)
{
	const struct graph_node *leaf = NULL;
	for (unsigned i = 0; i < g->node_count; i++) {
		if (!is_leaf(&g->nodes[i]))
			continue;
		if (leaf)
			return report_set(report, -EINVAL, "the graph has several leaves, so the device has no default name (give --name)");
		leaf = &g->nodes[i];
	}
	const char *subject = leaf ? graph_node_subject(leaf) : NULL;
	if (!subject)
		return report_set(report, -EINVAL, "the graph has no volume or file to name the device after (give --name)");
	char name[256];
	if (leaf->driver && strcmp(leaf->driver, "volume") == 0) {
		snprintf(name, sizeof name, "%.*s", (int)MIN(strcspn(subject, "@"), 255u), subject);
	} else {
		const char *slash = strrchr(subject, '/');
		snprintf(name, sizeof name, "%s", slash ? slash + 1 : subject);
		char *dot = strrchr(name, '.');
		if (dot)
			*dot = '\0';
	}
	if (!name_valid(name)) {
		char shown[80];
		return report_set(report, -EINVAL, name[0] ? "%s can't be a device's name (give --name)" : "it ends in no name that a device could have (give --name)", graph_quote(name, shown, sizeof shown));
	}
	memcpy(ret_name, name, strlen(name) + 1);
	return 0;
}

static int make_absolute(struct graph *g, struct graph_arg *a, const char *directory)
{
	if (a->word[0] == '/')
		return 0;
	const char *word = a->word;
	while (strncmp(word, "./", 2) == 0)
		word += 2;
	if (array_more(&g->more_strings, g->more_count) < 0)
		return -ENOMEM;
	char *text;
	if (asprintf(&text, "%s/%s", strcmp(directory, "/") == 0 ? "" : directory, word) < 0)
		return -ENOMEM;
	g->more_strings[g->more_count++] = text;
	a->word = text;
	return 0;
}

int graph_set_directory(struct graph *g, const char *directory)
{
	for (unsigned i = 0; i < g->node_count; i++) {
		struct graph_node *n = &g->nodes[i];
		for (unsigned k = 0; k < n->arg_count; k++) {
			struct graph_arg *a = &n->args[k];
			const char *option = a->option >= 0 && n->blk ? n->blk->options[a->option].name : "file";
			bool path = strcmp(option, "file") == 0 || strcmp(option, "path") == 0;
			int r = path && a->word ? make_absolute(g, a, directory) : 0;
			if (r < 0)
				return r;
		}
	}
	return 0;
}
