/* Opening, closing and looking at a graph's nodes.
 *
 * Who writes what is decided before anything is opened, from the exports down; opening then goes from the
 * leaves up, because a driver's open() may read its children. What can go wrong: a node that can't be opened
 * (then those already open are closed again, in the opposite order); and a node that others rely on not to
 * change (below a copy-on-write layer) being written through another export, which is refused. */
#include "agent/graph/instance.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/graph/foreign.h"
#include "core/bytes.h"
#include "core/drivers.h"

#define LABEL_BYTES 64
#define ARGS_BYTES 256

struct opened {
	struct blk_node *blk;              /* NULL: not open */
	const struct blk_driver *driver;
	struct option_values options;      /* lives as long as the node does */
	char label[LABEL_BYTES];           /* its name, or DRIVER-N */
	bool writable;                     /* asked for by who uses it */
	bool relied_on;                    /* must not change: something keeps only what differs from it */
};

struct graph_instance {
	struct env *env;
	struct graph *graph;
	struct opened *nodes; /* by index into graph->nodes */
};

/* ---- what each node is ---- */

#define PROBE_BYTES (64u << 10)

/* Says which node failed, unless there is only one, which nobody gave a name. A FILE's name is its path, which the sentence has already. */
static int name_node(const struct graph_instance *g, struct report *report, int status, const char *name)
{
	bool alone = g->graph->node_count == 1 && !g->graph->nodes[0].name;
	return alone || (report && strchr(name, '/') && strstr(report->text, name)) ? status : report_prefix(report, status, "%s", name);
}

/* `*ret_head`: the first bytes, `*ret_length` of them, and, PROBE_BYTES later, the last FOREIGN_TAIL_BYTES, if it has so many. */
static int probe_read(struct env *env, const char *path, uint8_t **ret_head, size_t *ret_length, bool *ret_tail)
{
	struct file *f;
	struct file_info info;
	size_t tail = 0;
	int r = file_open(env, path, 0, &f);
	if (r < 0)
		return r;
	uint8_t *head = env_alloc_aligned(PROBE_BYTES + FOREIGN_TAIL_BYTES);
	r = head ? file_read_wait(f, head, PROBE_BYTES, 0, ret_length) : -ENOMEM;
	if (r == 0)
		r = file_stat(f, &info);
	if (r == 0 && info.size >= FOREIGN_TAIL_BYTES)
		r = file_read_wait(f, head + PROBE_BYTES, FOREIGN_TAIL_BYTES, info.size - FOREIGN_TAIL_BYTES, &tail);
	*ret_tail = tail == FOREIGN_TAIL_BYTES;
	int closed = file_close(env, f);
	r = r < 0 ? r : closed;
	if (r < 0)
		free(head);
	else
		*ret_head = head;
	return r;
}

int graph_probe(struct env *env, const struct blk_driver *const *drivers, const char *path, const struct blk_driver **ret_driver,
		struct report *report)
{
	uint8_t *head;
	size_t length;
	bool tail;
	int r = probe_read(env, path, &head, &length, &tail);
	if (r < 0)
		return report_path(report, r, "open", path);
	const struct blk_driver *found = NULL, *raw = NULL;
	for (const struct blk_driver *const *d = drivers; *d; d++) {
		if (strcmp((*d)->name, "raw") == 0)
			raw = *d;
		if (!(*d)->probe || !(*d)->probe(head, length))
			continue;
		if (found)
			r = report_set(report, -EINVAL, "%s could be %s or %s (name the format: %s(%s))", path, found->name,
				       (*d)->name, found->name, path);
		found = *d;
	}
	const struct foreign *foreign = found ? NULL : foreign_find(head, length, tail ? head + PROBE_BYTES : NULL);
	free(head);
	if (r == 0 && foreign)
		r = report_set(report, -EMEDIUMTYPE, "%s seems to be %s (%s; raw(FILE) takes its bytes as they are)", path, foreign->name, foreign->cure);
	if (r == 0 && !found && !raw)
		r = report_set(report, -EINVAL, "%s: no driver knows this format", path);
	if (r == 0)
		*ret_driver = found ? found : raw;
	return r;
}

/* Options by name: which positional word is which was decided by the check. */
static int parse_options(const struct graph_node *n, struct opened *o, struct report *report)
{
	const char *key[GRAPH_ARGS_MAX], *value[GRAPH_ARGS_MAX];
	const struct option_spec *spec = o->driver->options;
	unsigned count = 0;
	for (unsigned i = 0; i < n->arg_count; i++) {
		const struct graph_arg *a = &n->args[i];
		if (!a->word)
			continue;
		key[count] = n->driver ? spec[a->option].name : NULL; /* a probed file: the first positional one */
		value[count++] = a->word;
	}
	return option_parse(spec, key, value, count, &o->options, report);
}

static bool label_taken(const struct graph_instance *g, const char *label)
{
	for (unsigned i = 0; i < g->graph->node_count; i++)
		if (strcmp(g->nodes[i].label, label) == 0)
			return true;
	return graph_find(g->graph, label) >= 0;
}

/* The names people see: those given, else DRIVER-N, counted per driver in the order the nodes were written. */
static void make_labels(struct graph_instance *g)
{
	for (unsigned i = 0; i < g->graph->node_count; i++) {
		struct opened *o = &g->nodes[i];
		if (g->graph->nodes[i].name) {
			snprintf(o->label, sizeof o->label, "%s", g->graph->nodes[i].name);
			continue;
		}
		unsigned n = 1;
		for (unsigned k = 0; k < i; k++)
			n += !g->graph->nodes[k].name && g->nodes[k].driver == o->driver;
		char label[LABEL_BYTES];
		do
			snprintf(label, sizeof label, "%.50s-%u", o->driver->name, n++);
		while (label_taken(g, label));
		memcpy(o->label, label, sizeof label);
	}
}

/* Drivers, options and names. */
static int prepare(struct graph_instance *g, struct report *report)
{
	for (unsigned i = 0; i < g->graph->node_count; i++) {
		const struct graph_node *n = &g->graph->nodes[i];
		struct opened *o = &g->nodes[i];
		o->driver = n->blk;
		int r = n->driver ? 0 : graph_probe(g->env, driver_table, n->args[0].word, &o->driver, report);
		if (r == 0)
			r = parse_options(n, o, report);
		if (r < 0)
			return name_node(g, report, r, n->name ? n->name : n->driver ? n->driver : n->args[0].word);
	}
	make_labels(g);
	return 0;
}

/* ---- who writes what ---- */

static struct opened *child_of(const struct graph_instance *g, const struct graph_node *n, unsigned arg)
{
	return n->args[arg].word ? NULL : &g->nodes[n->args[arg].node];
}

/* From the exports down. */
static void mark_writable(struct graph_instance *g, bool read_only)
{
	const struct graph *graph = g->graph;
	if (graph->root >= 0)
		g->nodes[graph->root].writable = !read_only;
	for (unsigned i = 0; i < graph->export_count; i++) {
		const struct graph_export *e = &graph->exports[i];
		g->nodes[e->node].writable |= !read_only && !option_bool(&e->options, "read_only");
	}
	for (unsigned k = graph->node_count; k-- > 0;) {
		const struct opened *o = &g->nodes[graph->order[k]];
		const struct graph_node *n = &graph->nodes[graph->order[k]];
		for (unsigned i = 0; i < n->arg_count; i++) {
			struct opened *child = child_of(g, n, i);
			if (child)
				child->writable |= o->writable && o->driver->writes_child;
		}
	}
}

/* A node that takes writes and keeps them from its children keeps only what differs from them: all below must stay as it is. */
static int check_relied_on(struct graph_instance *g, struct report *report)
{
	const struct graph *graph = g->graph;
	for (unsigned k = graph->node_count; k-- > 0;) {
		unsigned index = graph->order[k];
		struct opened *o = &g->nodes[index];
		const struct graph_node *n = &graph->nodes[index];
		if (o->relied_on && o->writable && !o->blk->info.read_only)
			return report_set(report, -EINVAL, "%s is written, but a node above it relies on it not to change (export it with read_only=on)",
					  o->label);
		bool layer = o->writable && !o->blk->info.read_only && !o->driver->writes_child;
		for (unsigned i = 0; i < n->arg_count; i++) {
			struct opened *child = child_of(g, n, i);
			if (child)
				child->relied_on |= layer || o->relied_on;
		}
	}
	return 0;
}

/* ---- opening and closing ---- */

/* The file or volume at the bottom of a node's first child. */
static const char *subject_below(const struct graph *g, const struct graph_node *n)
{
	const struct graph_node *below = NULL;
	for (unsigned i = 0; i < n->arg_count;) {
		if (n->args[i].word) {
			i++;
			continue;
		}
		n = below = &g->nodes[n->args[i].node];
		i = 0;
	}
	return below ? graph_node_subject(below) : NULL;
}

static int open_node(struct graph_instance *g, unsigned index, const struct graph_how *how, struct report *report)
{
	const struct graph_node *n = &g->graph->nodes[index];
	struct opened *o = &g->nodes[index];
	struct blk_node *children[BLK_MAX_CHILDREN];
	unsigned count = 0;
	for (unsigned i = 0; i < n->arg_count; i++) {
		struct opened *child = child_of(g, n, i);
		if (!child)
			continue;
		assert(child->blk && count < BLK_MAX_CHILDREN);
		children[count++] = child->blk;
	}
	struct blk_open open = { .options = &o->options, .node_name = o->label, .below = subject_below(g->graph, n), .holder = how->holder ? how->holder : "", .pid = how->pid,
				 .control = how->control,
				 .root = how->root ? how->root : "", .read_only = !o->writable, .force = how->force,
				 .accept_flushed = how->accept_flushed, .incoming = how->incoming, .incoming_ms = how->incoming_ms };
	int r = blk_open(g->env, o->driver, &open, children, count, &o->blk, report);
	return r < 0 ? name_node(g, report, r, o->label) : 0;
}

static int close_nodes(struct graph_instance *g)
{
	int status = 0;
	for (unsigned k = g->graph->node_count; k-- > 0;) {
		struct opened *o = &g->nodes[g->graph->order[k]];
		int r = blk_close(o->blk);
		o->blk = NULL;
		if (status == 0)
			status = r;
	}
	return status;
}

int graph_open(struct env *env, struct graph *graph, const struct graph_how *how, struct graph_instance **ret_instance,
	       struct report *report)
{
	assert(graph->checked);
	struct graph_instance *g = calloc(1, sizeof *g);
	struct opened *nodes = calloc(graph->node_count, sizeof *nodes);
	int r = -ENOMEM;
	if (!g || !nodes)
		goto err;
	*g = (struct graph_instance){ .env = env, .graph = graph, .nodes = nodes };
	r = prepare(g, report);
	if (r < 0)
		goto err;
	mark_writable(g, how->read_only);
	for (unsigned k = 0; r == 0 && k < graph->node_count; k++)
		r = open_node(g, graph->order[k], how, report);
	if (r == 0)
		r = check_relied_on(g, report);
	if (r < 0) {
		close_nodes(g);
		goto err;
	}
	*ret_instance = g;
	return 0;
err:
	free(nodes);
	free(g);
	return r;
}

int graph_close(struct graph_instance *g)
{
	if (!g)
		return 0;
	int r = close_nodes(g);
	graph_free(g->graph);
	free(g->nodes);
	free(g);
	return r;
}

/* ---- looking ---- */

const struct graph *graph_of(const struct graph_instance *g) { return g->graph; }

struct blk_node *graph_export_node(const struct graph_instance *g, unsigned index)
{
	assert(index < g->graph->export_count);
	return g->nodes[g->graph->exports[index].node].blk;
}

struct blk_node *graph_root_node(const struct graph_instance *g)
{
	return g->graph->root >= 0 ? g->nodes[g->graph->root].blk : NULL;
}

struct blk_node *graph_named_node(const struct graph_instance *g, const char *name)
{
	for (unsigned i = 0; i < g->graph->node_count; i++)
		if (strcmp(g->nodes[i].label, name) == 0)
			return g->nodes[i].blk;
	return NULL;
}

void graph_follow_sizes(struct graph_instance *g)
{
	for (unsigned k = 0; k < g->graph->node_count; k++) {
		struct blk_node *n = g->nodes[g->graph->order[k]].blk;
		uint64_t size = UINT64_MAX;
		for (unsigned i = 0; n->driver->follows_size && i < n->child_count; i++)
			size = MIN(size, n->child[i]->info.size);
		if (n->driver->follows_size)
			n->info.size = round_down(size, n->info.block_size);
	}
}

static void show_args(const struct graph_node *n, char text[ARGS_BYTES])
{
	char word[96];
	size_t used = 0;
	text[0] = '\0';
	for (unsigned i = 0; i < n->arg_count; i++) {
		const struct graph_arg *a = &n->args[i];
		if (!a->word)
			continue;
		graph_quote(a->word, word, sizeof word);
		size_t need = strlen(word) + (a->key ? strlen(a->key) + 1 : 0) + 2;
		if (used + need + sizeof ", …" > ARGS_BYTES) {
			snprintf(text + used, ARGS_BYTES - used, ", …");
			return;
		}
		used += (size_t)sprintf(text + used, "%s%s%s%s", used ? ", " : "", a->key ? a->key : "", a->key ? "=" : "", word);
	}
}

void graph_walk(const struct graph_instance *g, void (*visit)(void *arg, struct blk_node *node, const char *args), void *arg)
{
	for (unsigned k = g->graph->node_count; k-- > 0;) {
		unsigned i = g->graph->order[k];
		char args[ARGS_BYTES];
		show_args(&g->graph->nodes[i], args);
		visit(arg, g->nodes[i].blk, args);
	}
}
