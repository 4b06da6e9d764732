/* The rules a graph must obey, and what its words mean.
 *
 * A node's positional arguments are its driver's positional options, then its nodes. With `n` of them, a driver that needs
 * `c` nodes and has `p` positional options (those not given by key), `r` of them required, the first
 *
 *     min(p, max(r, n - c), place of the first argument that is surely a node)
 *
 * are options and the rest are nodes. There a word is a named node, else a file if it has a slash, else a volume.
 *
 * What can go wrong is the operator's text, so every message says where and what to write instead. */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/graph/graph.h"
#include "core/bytes.h"
#include "core/drivers.h"
#include "core/guess.h"

static bool is_port(const char *text)
{
	size_t digits = strspn(text, "0123456789");
	return digits > 0 && digits <= 5 && !text[digits] && atoi(text) <= 65535;
}

bool graph_listen_valid(const char *text)
{
	const char *colon = strrchr(text, ':');
	if (!colon)
		return is_port(text);
	return colon > text && is_port(colon + 1) && (!memchr(text, ':', (size_t)(colon - text)) || text[0] == '[');
}

/* Of an `export` line. */
static const struct option_spec export_options[] = {
	{ "listen", OPTION_STRING, .help = "for nbd: ADDR:PORT, or PORT on the loopback (default: a unix socket)",
	  .valid = graph_listen_valid, .form = "no address (" GRAPH_LISTEN_FORM ")" },
	{ "queue_depth", OPTION_NUMBER, .number_min = 1, .number_max = 4096, .help = "requests at a time (default: the export's)" },
	{ "read_only", OPTION_BOOL, .help = "refuse writes (default: off)" },
	{ .name = NULL },
};

static const struct graph_tables built_in = { driver_table, export_table };

struct check {
	struct graph *graph;
	const struct graph_tables *tables;
	struct report *report;
	unsigned ordered;      /* filled of graph->order */
	unsigned char *height; /* by node: nodes from it down to a leaf; 0: not known yet */
	bool *on_path, *used;
	int path[GRAPH_DEPTH_MAX];
};

#define SHOWN 64 /* bytes of a quoted word in a message */

/* An error in a node, at `place`; says the node's name if it has one. */
static int node_error(struct check *c, const struct graph_node *n, struct graph_place place, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
static int node_error(struct check *c, const struct graph_node *n, struct graph_place place, const char *format, ...)
{
	char text[sizeof c->report->text];
	va_list ap;
	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	return graph_error(c->report, place, "%s%s%s", n->name ? n->name : "", n->name ? ": " : "", text);
}

/* ---- did you mean ---- */

/* " (did you mean X?)", or `otherwise`, in `text` of SHOWN * 2 bytes. */
static const char *guess_text(const struct guess *g, char *text, const char *otherwise)
{
	if (g->best)
		snprintf(text, SHOWN * 2, " (did you mean %s?)", g->best);
	else
		snprintf(text, SHOWN * 2, "%s", otherwise);
	return text;
}

/* ---- drivers and options ---- */

static const struct blk_driver *find_driver(struct check *c, const char *name)
{
	for (const struct blk_driver *const *d = c->tables->drivers; *d; d++)
		if (strcmp((*d)->name, name) == 0)
			return *d;
	return NULL;
}

static int unknown_driver(struct check *c, const struct graph_node *n)
{
	struct guess g = { .word = n->driver };
	char meant[SHOWN * 2];
	char shown[SHOWN], known[256] = " (drivers:";
	for (const struct blk_driver *const *d = c->tables->drivers; *d; d++) {
		guess_try(&g, (*d)->name);
		size_t used = strlen(known);
		snprintf(known + used, sizeof known - used, " %s%s", (*d)->name, d[1] ? "" : ")");
	}
	return node_error(c, n, n->place, "unknown driver %s%s", graph_quote(n->driver, shown, sizeof shown),
			  g.best ? guess_text(&g, meant, "") : known);
}

static unsigned option_count(const struct option_spec *spec)
{
	unsigned n = 0;
	while (spec && spec[n].name)
		n++;
	assert(n <= OPTION_MAX);
	return n;
}

static int find_option(const struct option_spec *spec, const char *key)
{
	for (unsigned i = 0; i < option_count(spec); i++)
		if (strcmp(spec[i].name, key) == 0)
			return (int)i;
	return -1;
}

static void upper(const char *word, char *ret, size_t max)
{
	size_t i = 0;
	for (; word[i] && i + 1 < max; i++)
		ret[i] = (char)(word[i] >= 'a' && word[i] <= 'z' ? word[i] - 'a' + 'A' : word[i]);
	ret[i] = '\0';
}

static void append(char *text, size_t max, const char *separator, const char *word)
{
	size_t used = strlen(text);
	snprintf(text + used, max - used, "%s%s", used && text[used - 1] != '(' ? separator : "", word);
}

static bool given_by_key(const struct graph_node *n, unsigned option)
{
	for (unsigned i = 0; i < n->arg_count; i++)
		if (n->args[i].key && n->args[i].option == (int)option)
			return true;
	return false;
}

/* How to write the node, with what was given kept: "cow(/top.raw, NODE)". The first `options` positional arguments
 * are options. */
static void usage(const struct graph *g, const struct graph_node *n, unsigned options, char *text, size_t max)
{
	const struct blk_driver *d = n->blk;
	char word[SHOWN];
	unsigned i = 0, children = 0;
	snprintf(text, max, "%s(", d->name);
	for (; i < options; i++)
		append(text, max, ", ", n->args[i].word ? graph_quote(n->args[i].word, word, sizeof word) : "?");
	for (unsigned s = 0, seen = 0; s < option_count(d->options); s++) {
		if (!d->options[s].positional || given_by_key(n, s) || seen++ < options || !d->options[s].required)
			continue;
		upper(d->options[s].name, word, sizeof word);
		append(text, max, ", ", word);
	}
	for (; i < n->arg_count && !n->args[i].key && children < d->children_max; i++, children++) {
		const struct graph_arg *a = &n->args[i];
		const char *name = a->word ? a->word : g->nodes[a->node].name;
		append(text, max, ", ", name ? graph_quote(name, word, sizeof word) : "NODE");
	}
	for (; children < d->children_min; children++)
		append(text, max, ", ", "NODE");
	for (i = 0; i < n->arg_count; i++) {
		if (!n->args[i].key)
			continue;
		append(text, max, ", ", n->args[i].key);
		append(text, max, "=", graph_quote(n->args[i].word, word, sizeof word));
	}
	append(text, max, "", ")");
}

/* A value of the wrong kind; option_parse() judges, one at a time, so that the place is known. */
static int check_value(struct check *c, const struct graph_node *n, const struct option_spec *spec, const struct graph_arg *a)
{
	struct option_spec one[2] = { spec[a->option] };
	struct option_values values;
	struct report why = { "" };
	if (option_parse(one, &one[0].name, &a->word, 1, &values, &why) == 0)
		return 0;
	char shown[SHOWN]; /* option_parse's own sentence quotes the word as it is: say it again, safely */
	const char *is = strstr(why.text, " is ");
	return node_error(c, n, a->place, "%s: %s=%s%.200s", n->driver ? n->driver : "export", one[0].name,
			  graph_quote(a->word, shown, sizeof shown), is && !strchr(a->word, ' ') ? is : " is not valid (see its manual page)");
}

/* Gives a->option to every key=value. */
static int check_keys(struct check *c, const struct graph_node *n, const struct option_spec *spec, struct graph_arg *args,
		      unsigned count, const char *what)
{
	for (unsigned i = 0; i < count; i++) {
		struct graph_arg *a = &args[i];
		if (!a->key)
			continue;
		a->option = find_option(spec, a->key);
		char shown[SHOWN], known[256] = "";
		struct guess g = { .word = a->key };
		char meant[SHOWN * 2];
		if (a->option < 0) {
			for (unsigned s = 0; s < option_count(spec); s++) {
				guess_try(&g, spec[s].name);
				append(known, sizeof known, ", ", spec[s].name);
			}
			return node_error(c, n, a->place, "%s has no option %s%s%s%s", what, graph_quote(a->key, shown, sizeof shown),
					  guess_text(&g, meant, " (it has "), g.best ? "" : known[0] ? known : "none", g.best ? "" : ")");
		}
		for (unsigned k = 0; k < i; k++)
			if (args[k].key && args[k].option == a->option)
				return node_error(c, n, a->place, "%s: option %s is given twice (remove one)", what, a->key);
		int r = check_value(c, n, spec, a);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- positional arguments ---- */

/* How many of the positional arguments are options; *ret_positional is the count of all of them. */
static unsigned options_given(const struct graph_node *n, unsigned *ret_positional)
{
	const struct blk_driver *d = n->blk;
	unsigned may = 0, must = 0, count = 0, sure = 0;
	for (unsigned s = 0; s < option_count(d->options); s++)
		if (d->options[s].positional && !given_by_key(n, s)) {
			may++;
			must += d->options[s].required;
		}
	while (count < n->arg_count && !n->args[count].key)
		count++;
	while (sure < count && n->args[sure].word)
		sure++;
	unsigned left = count > d->children_min ? count - d->children_min : 0;
	*ret_positional = count;
	return MIN(MIN(may, MAX(must, left)), sure);
}

static int check_options(struct check *c, struct graph_node *n, unsigned options, unsigned positional)
{
	const struct option_spec *spec = n->blk->options;
	unsigned next = 0;
	char text[256], word[SHOWN];
	for (unsigned s = 0; s < option_count(spec); s++) {
		if (given_by_key(n, s))
			continue;
		if (spec[s].positional && next < options) {
			n->args[next].option = (int)s;
			int r = check_value(c, n, spec, &n->args[next++]);
			if (r < 0)
				return r;
			continue;
		}
		if (!spec[s].required)
			continue;
		usage(c->graph, n, options, text, sizeof text);
		if (!spec[s].positional)
			return node_error(c, n, n->place, "%s needs the option %s (%s)", n->driver, spec[s].name, spec[s].help);
		upper(spec[s].name, word, sizeof word);
		return node_error(c, n, next < positional ? n->args[next].place : n->place, "%s needs %s as argument %u%s (write %s)",
				  n->driver, word, next + 1, next < positional ? ", not a node" : "", text);
	}
	return 0;
}

static int check_children(struct check *c, const struct graph_node *n, unsigned options, unsigned positional)
{
	const struct blk_driver *d = n->blk;
	unsigned children = positional - options;
	char text[256];
	usage(c->graph, n, options, text, sizeof text);
	if (children < d->children_min)
		return node_error(c, n, positional ? n->args[positional - 1].place : n->place, "%s needs a node as argument %u (write %s)",
				  n->driver, positional + 1, text);
	if (children <= d->children_max)
		return 0;
	const struct graph_arg *extra = &n->args[options + d->children_max];
	if (d->children_max == 0 && !extra->word)
		return node_error(c, n, extra->place, "%s takes no node (write %s)", n->driver, text);
	return node_error(c, n, extra->place, "%s: argument %u is one too many (write %s)", n->driver, options + d->children_max + 1, text);
}

static int bad_volume(struct check *c, const struct graph_node *n, const char *word, struct graph_place place)
{
	char shown[SHOWN];
	return node_error(c, n, place, "%s is no node and can't be a volume's name (a file's name contains a slash, like ./disk.img)",
			  graph_quote(word, shown, sizeof shown));
}

/* A word where a node is wanted becomes a node. New ones go to the end and are resolved in their turn. */
static int resolve_word(struct check *c, unsigned user, unsigned i)
{
	struct graph *g = c->graph;
	struct graph_arg *a = &g->nodes[user].args[i], word = *a;
	int node = graph_find(g, a->word);
	if (node < 0) {
		bool file = strchr(a->word, '/') != NULL;
		if (!file && !name_valid_volume(a->word))
			return bad_volume(c, &g->nodes[user], a->word, a->place);
		node = graph_add_node(g, file ? NULL : "volume", a->place);
		if (node == -E2BIG)
			return graph_error(c->report, word.place, "too many nodes (at most %u)", GRAPH_NODES_MAX);
		int r = node < 0 ? node : graph_add_arg(&g->nodes[node], word);
		if (r < 0)
			return r;
		a = &g->nodes[user].args[i];
	}
	a->word = NULL;
	a->node = node;
	return 0;
}

/* A node that is a bare word. */
static int resolve_bare(struct check *c, struct graph_node *n)
{
	const char *word = n->args[0].word;
	int node = graph_find(c->graph, word);
	if (node >= 0)
		return node_error(c, n, n->place, "%s is a node already (use it by that name)", word);
	if (strchr(word, '/'))
		return 0;
	if (!name_valid_volume(word))
		return bad_volume(c, n, word, n->place);
	n->driver = "volume";
	return 0;
}

static int check_node(struct check *c, unsigned i)
{
	struct graph_node *n = &c->graph->nodes[i];
	int r = n->driver ? 0 : resolve_bare(c, n);
	if (r < 0 || !n->driver)
		return r;
	n->blk = find_driver(c, n->driver);
	if (!n->blk)
		return unknown_driver(c, n);
	assert(n->blk->children_max <= BLK_MAX_CHILDREN);
	r = check_keys(c, n, n->blk->options, n->args, n->arg_count, n->driver);
	unsigned positional, options = options_given(n, &positional);
	if (r == 0)
		r = check_options(c, n, options, positional);
	if (r == 0)
		r = check_children(c, n, options, positional);
	for (unsigned a = options; r == 0 && a < positional; a++)
		if (c->graph->nodes[i].args[a].word)
			r = resolve_word(c, i, a);
	return r;
}

/* ---- names ---- */

static int check_names(struct check *c)
{
	for (unsigned i = 0; i < c->graph->node_count; i++) {
		const struct graph_node *n = &c->graph->nodes[i];
		int first = n->name ? graph_find(c->graph, n->name) : -1;
		if (first < 0 || first == (int)i)
			continue;
		return graph_error(c->report, n->name_place, "%s is the name of two nodes (the other is on line %u; rename one)", n->name,
				   c->graph->nodes[first].name_place.line);
	}
	return 0;
}

/* ---- exports ---- */

static int check_export_type(struct check *c, struct graph_export *e)
{
	struct guess g = { .word = e->type };
	char meant[SHOWN * 2];
	char shown[SHOWN], known[256] = "";
	for (const struct export_driver *const *t = c->tables->exports; *t; t++) {
		if (strcmp((*t)->name, e->type) == 0) {
			e->listens = (*t)->listens;
			return 0;
		}
		guess_try(&g, (*t)->name);
		append(known, sizeof known, ", ", (*t)->name);
	}
	return graph_error(c->report, e->type_place, "unknown export type %s%s%s%s", graph_quote(e->type, shown, sizeof shown),
			   guess_text(&g, meant, " (there are "), g.best ? "" : known, g.best ? "" : ")");
}

static int check_export_node(struct check *c, struct graph_export *e)
{
	e->node = graph_find(c->graph, e->node_name);
	if (e->node >= 0)
		return 0;
	char shown[SHOWN], cure[SHOWN * 2];
	graph_quote(e->node_name, shown, sizeof shown);
	struct guess g = { .word = e->node_name };
	char meant[SHOWN * 2];
	for (unsigned i = 0; i < c->graph->node_count; i++)
		if (c->graph->nodes[i].name)
			guess_try(&g, c->graph->nodes[i].name);
	snprintf(cure, sizeof cure, " (write %s = NODE on a line of its own)", name_valid(e->node_name) ? shown : "NAME");
	return graph_error(c->report, e->place, "there is no node %s to export%s", shown, guess_text(&g, meant, cure));
}

static const char *device_name(const struct graph_export *e) { return e->name ? e->name : e->node_name; }

static int check_export(struct check *c, unsigned i)
{
	struct graph_export *e = &c->graph->exports[i];
	struct graph_node label = { .place = e->place };
	char shown[SHOWN];
	int r = check_export_node(c, e);
	if (r == 0)
		r = check_export_type(c, e);
	if (r == 0 && e->name && !name_valid(e->name))
		r = graph_error(c->report, e->place, "%s can't be a device's name (letters, digits, '.', '_' and '-', at most 63)",
				graph_quote(e->name, shown, sizeof shown));
	for (unsigned k = 0; r == 0 && k < i; k++)
		if (strcmp(device_name(e), device_name(&c->graph->exports[k])) == 0)
			r = graph_error(c->report, e->place, "two exports are named %s (name one: export %s as %s NAME)", device_name(e),
					e->node_name, e->type);
	if (r == 0)
		r = check_keys(c, &label, export_options, e->args, e->arg_count, "export");
	if (r < 0)
		return r;
	const char *key[GRAPH_EXPORT_ARGS_MAX], *value[GRAPH_EXPORT_ARGS_MAX];
	for (unsigned k = 0; k < e->arg_count; k++) {
		key[k] = e->args[k].key;
		value[k] = e->args[k].word;
	}
	r = option_parse(export_options, key, value, e->arg_count, &e->options, c->report);
	for (unsigned k = 0; r == 0 && k < e->arg_count; k++)
		if (!e->listens && strcmp(e->args[k].key, "listen") == 0)
			r = graph_error(c->report, e->args[k].place, "export: %s listens on no port (remove listen, or use nbd)", e->type);
	return r;
}

/* ---- the shape: cycles, depth, order, what is used ---- */

static int cycle(struct check *c, int node, unsigned depth)
{
	const struct graph *g = c->graph;
	char text[400] = "";
	unsigned from = 0;
	while (c->path[from] != node)
		from++;
	for (unsigned i = from; i < depth; i++)
		if (g->nodes[c->path[i]].name)
			append(text, sizeof text, " → ", g->nodes[c->path[i]].name);
	append(text, sizeof text, " → ", g->nodes[node].name); /* what is used twice has a name */
	return graph_error(c->report, g->nodes[node].place, "%s uses itself: %s (a graph has no cycles)", g->nodes[node].name, text);
}

/* Visits what `node` stands on, then appends it to the order. The path is no longer than GRAPH_DEPTH_MAX. */
static int visit(struct check *c, int node, unsigned depth)
{
	const struct graph_node *n = &c->graph->nodes[node];
	if (c->on_path[node])
		return cycle(c, node, depth);
	if (depth + MAX(c->height[node], 1u) > GRAPH_DEPTH_MAX)
		return node_error(c, n, n->place, "the graph is too deep here (at most %u nodes below one another)", GRAPH_DEPTH_MAX);
	if (c->height[node])
		return 0;
	c->on_path[node] = true;
	c->path[depth] = node;
	unsigned below = 0;
	for (unsigned i = 0; i < n->arg_count; i++) {
		if (n->args[i].word)
			continue;
		int child = n->args[i].node, r = visit(c, child, depth + 1);
		if (r < 0)
			return r;
		c->used[child] = true;
		below = MAX(below, c->height[child]);
	}
	c->on_path[node] = false;
	c->height[node] = (unsigned char)(below + 1);
	c->graph->order[c->ordered++] = (unsigned)node;
	return 0;
}

/* Without exports and without an expression: the one node that nobody uses. */
static int find_root(struct check *c)
{
	struct graph *g = c->graph;
	for (unsigned i = 0; i < g->node_count; i++) {
		if (c->used[i])
			continue;
		if (g->root >= 0)
			return graph_error(c->report, g->nodes[i].name_place, "nothing is exported, and neither %s nor %s is used by another node (add export NODE as TYPE)",
					   g->nodes[g->root].name, g->nodes[i].name);
		g->root = (int)i;
	}
	return 0;
}

static int check_used(struct check *c)
{
	struct graph *g = c->graph;
	if (g->root >= 0 && g->export_count)
		return graph_error(c->report, g->nodes[g->root].place, "a node without a name can't be exported, and there are exports (write NAME = in front of it)");
	for (unsigned i = 0; i < g->export_count; i++)
		c->used[g->exports[i].node] = true;
	if (g->root < 0 && g->export_count == 0) {
		int r = find_root(c);
		if (r < 0)
			return r;
	}
	if (g->root >= 0)
		c->used[g->root] = true;
	for (unsigned i = 0; i < g->node_count; i++)
		if (!c->used[i])
			return graph_error(c->report, g->nodes[i].name_place, "%s is not used (export it, use it in another node, or remove it)",
					   g->nodes[i].name);
	return 0;
}

static int check_shape(struct check *c)
{
	unsigned count = c->graph->node_count;
	int r = 0;
	c->height = calloc(count + 1, 1);
	c->on_path = calloc(count + 1, sizeof *c->on_path);
	c->used = calloc(count + 1, sizeof *c->used);
	free(c->graph->order);
	c->graph->order = calloc(count + 1, sizeof *c->graph->order);
	if (!c->height || !c->on_path || !c->used || !c->graph->order)
		r = -ENOMEM;
	for (unsigned i = 0; r == 0 && i < count; i++)
		r = visit(c, (int)i, 0);
	if (r == 0)
		r = check_used(c);
	free(c->height);
	free(c->on_path);
	free(c->used);
	return r;
}

int graph_check(struct graph *g, const struct graph_tables *tables, struct report *report)
{
	if (g->checked)
		return 0;
	struct check c = { .graph = g, .tables = tables ? tables : &built_in, .report = report };
	int r = check_names(&c);
	for (unsigned i = 0; r == 0 && i < g->node_count; i++)
		r = check_node(&c, i);
	for (unsigned i = 0; r == 0 && i < g->export_count; i++)
		r = check_export(&c, i);
	if (r == 0)
		r = check_shape(&c);
	g->checked = r == 0;
	return r;
}

int graph_read(const char *text, size_t length, struct graph **ret_graph, struct report *report)
{
	struct graph *g = NULL;
	int r = graph_parse(text, length, &g, report);
	if (r == 0)
		r = graph_check(g, NULL, report);
	if (r == 0)
		*ret_graph = g;
	else
		graph_free(g);
	return r;
}
