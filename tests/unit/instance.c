/* Graphs that are open: what is opened how and in which order, and that failure leaves nothing behind. */
#include "agent/graph/instance.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/drivers.h"
#include "core/env_sim.h"

/* ---- drivers that write down what happens to them ---- */

static char events[4096];

static void event(const char *what, const struct blk_node *n, const char *more)
{
	size_t used = strlen(events);
	snprintf(events + used, sizeof events - used, "%s%s %s%s", used ? ", " : "", what, n->name, more);
}

static int rec_open(struct blk_node *node, const struct blk_open *how, struct report *report)
{
	const char *fault = option_string(how->options, "fail");
	if (fault)
		return report_set(report, -EIO, "told to fail");
	if (!node->child_count)
		node->info = (struct blk_info){ .size = 1 << 20, .block_size = 512 };
	if (strcmp(node->driver->name, "layer") == 0)
		node->info.read_only = false;
	if (strcmp(node->driver->name, "guard") == 0)
		node->info.read_only = true;
	event("open", node, how->read_only ? " ro" : " rw");
	return 0;
}

static int rec_close(struct blk_node *node)
{
	event("close", node, "");
	return strcmp(node->name, "bad") == 0 ? -ENOSPC : 0;
}

static void rec_submit(struct blk_node *node, struct blk_io *io)
{
	(void)node;
	blk_end(io, 0);
}

static void rec_describe(struct blk_node *node, void (*item)(void *arg, const char *key, uint64_t value), void *arg)
{
	(void)node;
	item(arg, "answer", 42);
}

static const struct option_spec options[] = {
	{ "fail", OPTION_STRING, .help = "why to fail" },
	{ "file", OPTION_STRING, .positional = true, .help = "the file" },
	{ .name = NULL },
};
static bool probe_a(const uint8_t *head, size_t length) { return length >= 2 && memcmp(head, "AA", 2) == 0; }
static bool probe_b(const uint8_t *head, size_t length) { return length >= 3 && memcmp(head, "AAB", 3) == 0; }

#define DRIVER(id, min, max, ...) \
	static const struct blk_driver id = { .name = #id, .options = options, .children_min = min, .children_max = max, \
		.node_size = sizeof(struct blk_node), .open = rec_open, .close = rec_close, .submit = rec_submit, __VA_ARGS__ }
DRIVER(filter, 1, 1, .writes_child = true, .describe = rec_describe, .follows_size = true);
DRIVER(guard, 1, 1);
DRIVER(layer, 1, 1);
DRIVER(leaf, 0, 0);
DRIVER(pair, 2, 2, .writes_child = true, .follows_size = true);
DRIVER(raw, 0, 0);
DRIVER(aaa, 0, 0, .probe = probe_a);
DRIVER(aab, 0, 0, .probe = probe_b);
static const struct blk_driver *const drivers[] = { &aaa, &aab, &filter, &guard, &layer, &leaf, &pair, &raw, NULL };
static const struct export_driver t_nbd = { .name = "nbd" };
static const struct export_driver *const exports[] = { &t_nbd, NULL };
static const struct graph_tables tables = { drivers, exports };

/* ---- a world to run in ---- */

struct scene {
	struct env *env;
	struct graph *graph;
	struct graph_how how;
	struct report report;
	void (*look)(struct graph_instance *g);
};

static int scene_play(void *arg)
{
	struct scene *s = arg;
	struct graph_instance *g;
	int r = graph_open(s->env, s->graph, &s->how, &g, &s->report);
	if (r < 0) {
		graph_free(s->graph);
		return r;
	}
	if (s->look)
		s->look(g);
	return graph_close(g);
}

static int play(const char *text, struct scene *s)
{
	struct sim *sim = sim_create(1, NULL);
	struct sim_host *host = sim_host_create(sim, "h", 1 << 20, 512);
	s->env = sim_process_create(sim, host);
	struct report why = { "" };
	int r = graph_parse(text, strlen(text), &s->graph, &why);
	if (r == 0)
		r = graph_check(s->graph, &tables, &why);
	cr_assert_eq(r, 0, "%s", why.text);
	events[0] = '\0';
	r = sim_run_fiber(s->env, scene_play, s);
	sim_process_destroy(s->env);
	sim_destroy(sim);
	return r;
}

static void played(const char *text, struct scene s, const char *expected)
{
	int r = play(text, &s);
	cr_assert_eq(r, 0, "%s", report_text(&s.report, r));
	cr_assert_str_eq(events, expected);
}

Test(instance, opens_children_first_and_closes_them_last)
{
	played("filter(leaf(/a))", (struct scene){ 0 }, "open leaf-1 rw, open filter-1 rw, close filter-1, close leaf-1");
	played("pair(leaf(/a), x)\nx = filter(leaf(/b))", (struct scene){ 0 },
	       "open leaf-1 rw, open leaf-2 rw, open x rw, open pair-1 rw, close pair-1, close x, close leaf-2, close leaf-1");
}

Test(instance, opens_a_shared_node_once)
{
	played("gold = filter(leaf(/g))\nvm1 = layer(/1, gold)\nvm2 = layer(/2, gold)\nexport vm1 as nbd\nexport vm2 as nbd", (struct scene){ 0 },
	       "open leaf-1 ro, open gold ro, open vm1 rw, open vm2 rw, close vm2, close vm1, close gold, close leaf-1");
}

Test(instance, writes_only_where_a_user_needs_it)
{
	played("filter(guard(filter(leaf(/a))))", (struct scene){ 0 },
	       "open leaf-1 ro, open filter-2 ro, open guard-1 rw, open filter-1 rw, close filter-1, close guard-1, close filter-2, close leaf-1");
	played("filter(leaf(/a))", (struct scene){ .how = { .read_only = true } },
	       "open leaf-1 ro, open filter-1 ro, close filter-1, close leaf-1");
	played("a = leaf(/a)\nexport a as nbd read_only=on", (struct scene){ 0 }, "open a ro, close a");
	played("a = leaf(/a)\nexport a as nbd read_only=on\nexport a as nbd b", (struct scene){ 0 }, "open a rw, close a");
}

Test(instance, refuses_to_write_what_a_layer_relies_on)
{
	struct scene s = { 0 };
	cr_assert_eq(play("gold = leaf(/g)\nvm = layer(/1, filter(gold))\nexport vm as nbd\nexport gold as nbd", &s), -EINVAL);
	cr_assert_str_eq(s.report.text, "gold is written, but a node above it relies on it not to change (export it with read_only=on)");
	cr_assert(strstr(events, "close gold"));
	played("gold = leaf(/g)\nvm = layer(/1, gold)\nexport vm as nbd\nexport gold as nbd read_only=on", (struct scene){ 0 },
	       "open gold ro, open vm rw, close vm, close gold");
	/* a read-only look at a live device is fine */
	played("a = leaf(/g)\nb = guard(a)\nexport a as nbd\nexport b as nbd", (struct scene){ 0 }, "open a rw, open b rw, close b, close a");
}

Test(instance, failure_closes_what_was_open)
{
	struct scene s = { 0 };
	cr_assert_eq(play("pair(leaf(/a), x)\nx = filter(leaf(/b, fail=yes))", &s), -EIO);
	cr_assert_str_eq(events, "open leaf-1 rw, close leaf-1");
	cr_assert_str_eq(s.report.text, "leaf-2: told to fail");
}

Test(instance, close_returns_the_first_error)
{
	struct scene s = { 0 };
	cr_assert_eq(play("bad = leaf(/b)\nfilter(bad)", &s), -ENOSPC);
	cr_assert_str_eq(events, "open bad rw, open filter-1 rw, close filter-1, close bad");
}

static void resized(struct graph_instance *g)
{
	struct blk_node *a = graph_named_node(g, "a"), *b = graph_named_node(g, "b"), *both = graph_named_node(g, "both");
	struct blk_node *kept = graph_named_node(g, "kept"), *top = graph_named_node(g, "top");
	a->info.size = 3 << 20;
	b->info.size = 2 << 20;
	graph_follow_sizes(g);
	cr_assert_eq(both->info.size, 2 << 20);
	cr_assert_eq(top->info.size, 2 << 20, "through another node");
	cr_assert_eq(kept->info.size, 1 << 20, "it has a size of its own");
	b->info.size = 512;
	graph_follow_sizes(g);
	cr_assert_eq(top->info.size, 512);
}

Test(instance, sizes_are_followed_by_those_who_have_none)
{
	struct scene s = { .look = resized };
	cr_assert_eq(play("a = leaf(/a)\nb = leaf(/b)\nboth = pair(a, b)\ntop = filter(both)\nkept = layer(/l, top)\nexport kept as nbd", &s), 0);
}

/* Real ones. */
Test(instance, which_drivers_have_no_size_of_their_own)
{
	static const char *const without[] = { "delay", "error", "ro" };
	for (unsigned i = 0; i < sizeof without / sizeof *without; i++)
		cr_assert(driver_find(without[i])->follows_size, "%s", without[i]);
	cr_assert(!driver_find("verify")->follows_size, "what a grown node has the oracle needn't have");
	cr_assert(!driver_find("cow")->follows_size);
}

Test(instance, made_names_avoid_given_ones)
{
	played("leaf-1 = filter(leaf(/a))\npair(leaf-1, leaf(/b))", (struct scene){ 0 },
	       "open leaf-2 rw, open leaf-1 rw, open leaf-3 rw, open pair-1 rw, close pair-1, close leaf-3, close leaf-1, close leaf-2");
}

/* ---- looking ---- */

static char seen[1024];

static void note(void *arg, struct blk_node *node, const char *args)
{
	(void)arg;
	size_t used = strlen(seen);
	snprintf(seen + used, sizeof seen - used, "%s(%s) ", node->name, args);
}

static void look(struct graph_instance *g)
{
	cr_assert_eq(graph_export_node(g, 1), graph_named_node(g, "vm2"));
	cr_assert_eq(graph_export_node(g, 0)->child[0], graph_named_node(g, "gold"));
	cr_assert_null(graph_root_node(g));
	cr_assert_null(graph_named_node(g, "none"));
	cr_assert_eq(graph_of(g)->export_count, 2);
	uint8_t block[512];
	cr_assert_eq(blk_read_wait(graph_named_node(g, "gold"), block, 512, 512), 0);
	cr_assert_eq(blk_read_wait(graph_named_node(g, "gold"), block, 512, 2 << 20), -EINVAL);
	seen[0] = '\0';
	graph_walk(g, note, NULL);
	cr_assert_str_eq(seen, "vm2(\"/2 \\\"x\\\"\") vm1(file=/1) gold() leaf-1(/g) ");
	char *dot = graph_dot(g, "unused");
	static const char *const lines[] = {
		"digraph aquifer {\n",
		"\t\"device:vm1\" -> \"vm1\";\n",
		"\t\"device:other\" [shape=ellipse, label=\"other\\nnbd\"];\n\t\"device:other\" -> \"vm2\";\n",
		"\t\"vm1\" -> \"gold\";\n",
		"\t\"vm2\" [label=\"vm2\\nlayer(\\\"/2 \\\\\\\"x\\\\\\\"\\\")\\n1.0 MiB\"];\n",
		"\t\"gold\" [label=\"gold\\nfilter()\\n1.0 MiB, read only\\nread 2, 1.0 KiB, 1 failed\\nanswer 42\"];\n",
	};
	for (unsigned i = 0; i < sizeof lines / sizeof *lines; i++)
		cr_assert(strstr(dot, lines[i]), "%s\nis not in\n%s", lines[i], dot);
	free(dot);
}

Test(instance, shows_itself)
{
	struct scene s = { .look = look };
	cr_assert_eq(play("gold = filter(leaf(/g))\nvm1 = layer(gold, file=/1)\nvm2 = layer(\"/2 \\\"x\\\"\", gold)\n"
			  "export vm1 as nbd\nexport vm2 as nbd other", &s), 0, "%s", s.report.text);
}

static void look_long(struct graph_instance *g)
{
	seen[0] = '\0';
	graph_walk(g, note, NULL);
	cr_assert(strlen(seen) < 300);
	cr_assert(strstr(seen, "…"));
	cr_assert_neq(graph_root_node(g), NULL);
	char *dot = graph_dot(g, "dev");
	cr_assert(strstr(dot, "\"device:dev\" -> \"leaf-1\""));
	free(dot);
}

Test(instance, cuts_long_arguments)
{
	char text[4096] = "leaf(\"/";
	for (unsigned i = 0; i < 500; i++)
		strcat(text, "ü?");
	strcat(text, "\")");
	struct scene s = { .look = look_long };
	cr_assert_eq(play(text, &s), 0);
}

/* ---- probing ---- */

struct probing {
	struct env *env;
	const char *content;
	const struct blk_driver *const *drivers, *found;
	struct report report;
};

static int probe_play(void *arg)
{
	struct probing *p = arg;
	struct file *f;
	int r = p->content ? file_open(p->env, "/image", FILE_OPEN_WRITE | FILE_OPEN_CREATE, &f) : 0;
	if (r == 0 && p->content) {
		r = file_write_wait(f, p->content, strlen(p->content), 0);
		file_close(p->env, f);
	}
	return r < 0 ? r : graph_probe(p->env, p->drivers, "/image", &p->found, &p->report);
}

static struct probing probed(const char *content, const struct blk_driver *const *which, int expected)
{
	struct sim *sim = sim_create(1, NULL);
	struct probing p = { .env = sim_process_create(sim, sim_host_create(sim, "h", 1 << 20, 512)), .content = content, .drivers = which };
	int r = sim_run_fiber(p.env, probe_play, &p);
	cr_assert_eq(r, expected, "%d: %s", r, p.report.text);
	sim_process_destroy(p.env);
	sim_destroy(sim);
	return p;
}

Test(instance, probing)
{
	cr_assert_eq(probed("nothing known", drivers, 0).found, &raw);
	cr_assert_eq(probed("", drivers, 0).found, &raw);
	cr_assert_eq(probed("AA", drivers, 0).found, &aaa);
	struct probing p = probed("AAB", drivers, -EINVAL);
	cr_assert_str_eq(p.report.text, "/image could be aaa or aab (name the format: aaa(/image))");
	/* what would be destroyed as a raw disk */
	p = probed("QFI\xfb and so on", drivers, -EMEDIUMTYPE);
	cr_assert_str_eq(p.report.text, "/image seems to be a qcow2 image (make a raw one of it: qemu-img convert -O raw; raw(FILE) takes its bytes as they are)");
	probed("vhdxfile", drivers, -EMEDIUMTYPE);
	probed("KDMV", drivers, -EMEDIUMTYPE);
	p = probed("AQFCOW\r\n", drivers, -EMEDIUMTYPE);
	cr_assert(strstr(p.report.text, "a copy-on-write layer (name what it stands on"), "%s", p.report.text);
	char fixed[2 * 512 + 1]; /* its footer is the last block */
	memset(fixed, 'x', sizeof fixed - 1);
	fixed[sizeof fixed - 1] = '\0';
	memcpy(fixed + 512, "conectix", 8);
	probed(fixed, drivers, -EMEDIUMTYPE);
	memcpy(fixed + 100, "conectix", 8);
	memcpy(fixed + 512, "xxxxxxxx", 8);
	cr_assert_eq(probed(fixed, drivers, 0).found, &raw);
	p = probed(NULL, drivers, -ENOENT);
	cr_assert_str_eq(p.report.text, "open /image: No such file or directory (check the name)");
	static const struct blk_driver *const none[] = { NULL };
	p = probed("x", none, -EINVAL);
	cr_assert_str_eq(p.report.text, "/image: no driver knows this format");
}
