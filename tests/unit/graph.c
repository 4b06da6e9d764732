/* The graph language: what is read, what is refused and in which words, and that printing round-trips. */
#include "agent/graph/graph.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Drivers of the tests' own, so that what they prove doesn't change with the product's table. */
static const struct option_spec path_option[] = {
	{ "path", OPTION_STRING, .positional = true, .required = true, .help = "the file" },
	{ .name = NULL },
};
static const struct option_spec size_option[] = {
	{ "size", OPTION_SIZE, .positional = true, .help = "bytes (default: 64M)", .number_min = 4096 },
	{ .name = NULL },
};
static const struct option_spec name_option[] = {
	{ "name", OPTION_STRING, .positional = true, .required = true, .help = "the volume" },
	{ .name = NULL },
};
static bool is_speed(const char *text) { return !strcmp(text, "slow") || !strcmp(text, "fast"); }
static const struct option_spec throttle_options[] = {
	{ "bandwidth", OPTION_SIZE, .help = "bytes per second" },
	{ "burst", OPTION_BOOL, .help = "allow bursts" },
	{ "iops", OPTION_NUMBER, .help = "requests per second", .number_max = 1000000 },
	{ "speed", OPTION_STRING, .help = "a word", .valid = is_speed, .form = "no speed (give slow or fast)" },
	{ .name = NULL },
};
static const struct option_spec crypt_options[] = {
	{ "key", OPTION_STRING, .required = true, .help = "the key's file" },
	{ .name = NULL },
};
#define DRIVER(id, text, spec, min, max) \
	static const struct blk_driver id = { .name = text, .options = spec, .children_min = min, .children_max = max }
DRIVER(t_cache, "cache", size_option, 1, 1);
DRIVER(t_cow, "cow", path_option, 1, 1);
DRIVER(t_crypt, "crypt", crypt_options, 1, 1);
DRIVER(t_mirror, "mirror", NULL, 2, 4);
DRIVER(t_null, "null", size_option, 0, 0);
DRIVER(t_qcow2, "qcow2", path_option, 0, 0);
DRIVER(t_raw, "raw", path_option, 0, 0);
DRIVER(t_ro, "ro", NULL, 1, 1);
DRIVER(t_throttle, "throttle", throttle_options, 1, 1);
DRIVER(t_trace, "trace", path_option, 1, 1);
DRIVER(t_volume, "volume", name_option, 0, 0);
static const struct blk_driver *const drivers[] = { &t_cache, &t_cow, &t_crypt, &t_mirror, &t_null, &t_qcow2, &t_raw,
						    &t_ro, &t_throttle, &t_trace, &t_volume, NULL };
static const struct export_driver t_loop = { .name = "loop" }, t_nbd = { .name = "nbd", .listens = true }, t_ublk = { .name = "ublk" };
static const struct export_driver *const exports[] = { &t_loop, &t_nbd, &t_ublk, NULL };
static const struct graph_tables tables = { drivers, exports };

static struct graph *must_parse(const char *text)
{
	struct graph *g = NULL;
	struct report report = { "" };
	int r = graph_parse(text, strlen(text), &g, &report);
	cr_assert_eq(r, 0, "%s: %s", text, report_text(&report, r));
	return g;
}

static struct graph *must_check(const char *text)
{
	struct graph *g = must_parse(text);
	struct report report = { "" };
	int r = graph_check(g, &tables, &report);
	cr_assert_eq(r, 0, "%s: %s", text, report_text(&report, r));
	return g;
}

/* Parses, prints, parses again and compares; the same once more after checking. Expects `canonical` after checking. */
static void canonical(const char *text, const char *canonical)
{
	struct graph *a = must_parse(text);
	char *printed = graph_print(a);
	struct graph *b = must_parse(printed);
	cr_assert(graph_equal(a, b), "%s → %s", text, printed);
	struct report report = { "" };
	int r = graph_check(a, &tables, &report);
	cr_assert_eq(r, 0, "%s: %s", text, report_text(&report, r));
	cr_assert_eq(graph_check(b, &tables, NULL), 0);
	cr_assert(graph_equal(a, b));
	char *checked = graph_print(a);
	cr_assert_str_eq(checked, canonical);
	struct graph *c = must_check(checked);
	cr_assert(graph_equal(a, c));
	free(printed);
	free(checked);
	graph_free(a);
	graph_free(b);
	graph_free(c);
}

static void refused(const char *text, const char *message)
{
	struct graph *g = NULL;
	struct report report = { "" };
	int r = graph_parse(text, strlen(text), &g, &report);
	if (r == 0)
		r = graph_check(g, &tables, &report);
	cr_assert_eq(r, -EINVAL, "%s was accepted", text);
	cr_assert_str_eq(report.text, message, "%s:\n%s, not\n%s", text, report.text, message);
	size_t length = strlen(report.text);
	cr_assert(strchr(report.text, '(') && report.text[length - 1] == ')', "%s: %s: no cure", text, report.text);
	graph_free(g);
}

/* ---- what is read ---- */

Test(graph, expressions)
{
	canonical("raw(/images/a.img)", "raw(/images/a.img)");
	canonical("  qcow2( /images/b.qcow2 )  ", "qcow2(/images/b.qcow2)");
	canonical("volume(web1)", "volume(web1)");
	canonical("\xef\xbb\xbf" "raw(/images/a.img)", "raw(/images/a.img)"); /* as some editors begin UTF-8 */
	canonical("\"\xef\xbb\xbf\"/", "\"\xef\xbb\xbf/\"");              /* found by the fuzzer */
	canonical("cow(/vms/top.raw, ro(qcow2(/images/gold.qcow2)))", "cow(/vms/top.raw, ro(qcow2(/images/gold.qcow2)))");
	canonical("throttle(volume(web1), iops=500)", "throttle(volume(web1), iops=500)");
	canonical("null()", "null()");
	canonical("null(size = 1G)", "null(size=1G)");
	canonical("mirror(a, b, /c)", "mirror(volume(a), volume(b), /c)");
	canonical("raw(\n /a # the file\n)\n", "raw(/a)");
}

Test(graph, bare_words)
{
	canonical("web1", "volume(web1)");
	canonical("web1@monday", "volume(web1@monday)");
	canonical("./a.img", "./a.img");
	canonical("/images/b.qcow2", "/images/b.qcow2");
	canonical("ro(web1)", "ro(volume(web1))");
	canonical("ro(/images/a.img)", "ro(/images/a.img)");
	canonical("cow(top, gold)", "cow(top, volume(gold))");
	canonical("export", "volume(export)");
}

Test(graph, words_and_quotes)
{
	canonical("raw(\"/my images/a,b.img\")", "raw(\"/my images/a,b.img\")");
	canonical("raw(\"/plain\")", "raw(/plain)");
	canonical("raw(/a\"b c\"d)", "raw(\"/ab cd\")");
	canonical("raw(\"\\\"\\\\\\n\\x01\\xff\")", "raw(\"\\\"\\\\\\n\\x01\\xff\")");
	canonical("raw(/bilder/größe.img)", "raw(/bilder/größe.img)");
	canonical("raw(/a#b)", "raw(/a#b)");
	canonical("raw(\"#b\")", "raw(\"#b\")");
	canonical("raw(\"\")", "raw(\"\")");
	canonical("\"raw:/x\"", "\"raw:/x\"");
	canonical("/images/a:b.img", "/images/a:b.img");
	canonical("cow(/c, path=\"/a b\")", "cow(/c, path=\"/a b\")");
	canonical("raw(tcp:host:10809)", "raw(tcp:host:10809)");
}

Test(graph, chains)
{
	canonical("trace:/tmp/t.trace | cache:256M | qcow2:/images/b.qcow2", "trace(/tmp/t.trace, cache(256M, qcow2(/images/b.qcow2)))");
	canonical("raw:/images/a.img", "raw(/images/a.img)");
	canonical("raw:\"/my images/a.img\"", "raw(\"/my images/a.img\")");
	canonical("trace:unix:/tmp/t | web1", "trace(unix:/tmp/t, volume(web1))");
	canonical("ro | /images/a.img", "ro(/images/a.img)");
	canonical("throttle(iops=5) | cow(/top)\n  | ro | raw:/x", "throttle(cow(/top, ro(raw(/x))), iops=5)");
	canonical("t = cache:1M | raw:/x\nexport t as nbd", "t = cache(1M, raw(/x))\nexport t as nbd");
}

Test(graph, files)
{
	canonical("# two machines, one golden image\n"
		  "gold = cache(256M, ro(qcow2(/images/gold.qcow2)))\r\n"
		  "vm1  = cow(/vms/vm1.raw, gold)   # the first\n"
		  "vm2  =\n   cow(/vms/vm2.raw,\n       gold)\n\n"
		  "export vm1 as ublk\n"
		  "export vm2 as nbd second listen=\"127.0.0.1:10809\" read_only=on\n",
		  "gold = cache(256M, ro(qcow2(/images/gold.qcow2)))\n"
		  "vm1 = cow(/vms/vm1.raw, gold)\n"
		  "vm2 = cow(/vms/vm2.raw, gold)\n"
		  "export vm1 as ublk\n"
		  "export vm2 as nbd second listen=127.0.0.1:10809 read_only=on");
	canonical("export a as nbd\na = ro(b)\nb = web1", "a = ro(b)\nb = volume(web1)\nexport a as nbd");
	canonical("b = /x\nro(b)", "b = /x\nro(b)");
	canonical("b = /x\na = ro(b)", "b = /x\na = ro(b)");
	canonical("a = null()\nexport a as nbd x\nexport a as loop y", "a = null()\nexport a as nbd x\nexport a as loop y");
}

Test(graph, what_check_fills_in)
{
	struct graph *g = must_check("gold = ro(/g)\nvm1 = cow(/1, gold)\nvm2 = cow(/2, gold)\nexport vm1 as nbd\nexport vm2 as nbd w queue_depth=32");
	cr_assert_eq(g->node_count, 4);
	cr_assert_eq(g->root, -1);
	bool seen[4] = { false };
	for (unsigned k = 0; k < g->node_count; k++) {
		const struct graph_node *n = &g->nodes[g->order[k]];
		for (unsigned i = 0; i < n->arg_count; i++)
			cr_assert(n->args[i].word || seen[n->args[i].node], "a child comes before its user");
		seen[g->order[k]] = true;
	}
	int gold = graph_find(g, "gold"), vm1 = graph_find(g, "vm1"), vm2 = graph_find(g, "vm2");
	cr_assert_eq(g->nodes[vm1].args[1].node, gold);
	cr_assert_eq(g->nodes[vm2].args[1].node, gold);
	cr_assert_eq(g->nodes[vm2].blk, &t_cow);
	cr_assert_null(g->nodes[g->nodes[gold].args[0].node].blk);
	cr_assert_eq(g->exports[1].node, vm2);
	cr_assert_eq(option_number(&g->exports[1].options, "queue_depth"), 32);
	cr_assert_not(option_given(&g->exports[0].options, "queue_depth"));
	graph_free(g);
	g = must_check("b = /x\na = ro(b)");
	cr_assert_eq(g->root, graph_find(g, "a"));
	graph_free(g);
}

Test(graph, differences_are_seen)
{
	static const char *const different[] = { "raw(/a)", "raw(/b)", "qcow2(/a)", "/a", "raw(path=/a)", "x = raw(/a)", "y = raw(/a)",
						 "x = raw(/a)\nexport x as nbd", "x = raw(/a)\nexport x as loop", "x = raw(/a)\nexport x as nbd y",
						 "x = raw(/a)\nexport x as nbd read_only=on", "ro(raw(/a))", "ro(/a)", "x = /a\nro(x)", "x = /a\ny = ro(x)" };
	for (unsigned i = 0; i < sizeof different / sizeof *different; i++)
		for (unsigned k = 0; k < sizeof different / sizeof *different; k++) {
			struct graph *a = must_check(different[i]), *b = must_check(different[k]);
			cr_assert_eq(graph_equal(a, b), i == k, "%s, %s", different[i], different[k]);
			graph_free(a);
			graph_free(b);
		}
}

/* ---- what is refused ---- */

Test(graph, syntax_errors)
{
	refused("", "line 1, column 1: there is no node (write one, like raw(/images/a.img))");
	refused("\n # nothing\n", "line 3, column 1: there is no node (write one, like raw(/images/a.img))");
	refused("raw(/a", "line 1, column 4: this parenthesis is not closed (add ')')");
	refused("raw(/a))", "line 1, column 8: expected the end of the line, not ')' (write each statement on a line of its own)");
	refused("raw(/a /b)", "line 1, column 8: expected ',' or ')', not /b (separate arguments by commas)");
	refused("raw(/a,)", "line 1, column 8: expected an argument, not ')' (write one, or remove the comma)");
	refused("raw(,)", "line 1, column 5: expected an argument, not ',' (write one, or remove the comma)");
	refused("(/a)", "line 1, column 1: expected a statement, not '(' (write DRIVER(…), a file, a volume, NAME = NODE, or export NODE as TYPE)");
	refused("raw(/a) raw(/b)", "line 1, column 9: expected the end of the line, not raw (write each statement on a line of its own)");
	refused("raw(/a)\nraw(/b)", "line 2, column 1: a second node without a name (write NAME = in front of all but one, or export them)");
	refused("raw(\"/a)", "line 1, column 5: the quote is not closed on this line (write \\n for a newline)");
	refused("raw(\"/a\n\")", "line 1, column 5: the quote is not closed on this line (write \\n for a newline)");
	refused("raw(\"\\q\")", "line 1, column 6: unknown escape after a backslash (there are \\\\ \\\" \\n \\t \\r and \\xHH)");
	refused("raw(\"\\", "line 1, column 6: the text ends after a backslash (write \\\\ for a backslash)");
	refused("raw(\"\\x4\")", "line 1, column 6: \\x needs two hexadecimal digits (like \\x0a)");
	refused("raw(\"\\x00\")", "line 1, column 6: \\x00 can't be part of a word (leave it out)");
	refused("raw(/a?b)", "line 1, column 7: unexpected '?' (words with such characters are quoted: \"…\")");
	refused("raw(/größe?)", "line 1, column 11: unexpected '?' (words with such characters are quoted: \"…\")");
	refused("raw(\x01)", "line 1, column 5: character 0x01 is not allowed here (write \\x01 inside quotes)");
	refused("raw(\"\x7f\")", "line 1, column 6: character 0x7f is not allowed here (write \\x7f inside quotes)");
	refused("raw(/\xff)", "line 1, column 6: byte 0xff is not UTF-8 (write \\xff inside quotes)");
	refused("\xff\xfer", "line 1, column 1: the text is UTF-16 (write it as UTF-8)");
	refused("\xfe\xff", "line 1, column 1: the text is UTF-16 (write it as UTF-8)");
	refused("raw(/\xc0\xaf)", "line 1, column 6: byte 0xc0 is not UTF-8 (write \\xc0 inside quotes)");
	refused("raw(/a=b)", "line 1, column 5: /a is not an option's name (quote a word that contains '=')");
	refused("raw(path=)", "line 1, column 10: expected the option's value, not ')' (write KEY=VALUE)");
	refused("raw(path=raw(/x))", "line 1, column 10: the value of option path must be a word, not a node (quote a word that contains '(')");
	refused("cow(path=/a, /b)", "line 1, column 14: /b comes after an option (key=value options are last)");
	refused("ro(ro | raw:/x)", "line 1, column 7: a chain can't be an argument (write the nodes inside one another, or give the chain a name)");
	refused("ro |", "line 1, column 5: expected a node after '|', not the end (write NODE | NODE)");
	refused(":x", "line 1, column 1: there is no driver before the colon (write DRIVER:WORD)");
	refused("raw:", "line 1, column 1: there is nothing after the colon (write DRIVER:WORD)");
	refused("a/b = raw(/x)", "line 1, column 1: a/b can't be a node's name (letters, digits, '.', '_' and '-', at most 63)");
	refused("a =", "line 1, column 4: expected a node after '=', not the end (write NAME = NODE)");
}

Test(graph, zero_byte_and_length)
{
	struct graph *g;
	struct report report = { "" };
	cr_assert_eq(graph_parse("raw(/a\0b)", 9, &g, &report), -EINVAL);
	cr_assert_str_eq(report.text, "line 1, column 7: a zero byte can't be part of a graph (remove it; or write the file as UTF-8, if it is UTF-16)");
	char *text = malloc(GRAPH_TEXT_MAX + 1);
	memset(text, ' ', GRAPH_TEXT_MAX + 1);
	memcpy(text, "raw(/a)", 7);
	report.text[0] = '\0';
	cr_assert_eq(graph_parse(text, GRAPH_TEXT_MAX + 1, &g, &report), -EINVAL);
	cr_assert_str_eq(report.text, "the graph is too long (65537 bytes, at most 65536)");
	cr_assert_eq(graph_parse(text, GRAPH_TEXT_MAX, &g, NULL), 0);
	graph_free(g);
	free(text);
}

Test(graph, export_errors)
{
	refused("a = null()\nexport a", "line 2, column 9: expected 'as', not the end (write export NODE as TYPE [NAME] [KEY=VALUE …])");
	refused("a = null()\nexport a as", "line 2, column 12: expected the type of export after 'as', not the end (write export NODE as TYPE [NAME] [KEY=VALUE …])");
	refused("a = null()\nexport a as nbd b c", "line 2, column 19: one word too many (write export NODE as TYPE [NAME] [KEY=VALUE …])");
	refused("a = null()\nexport a as nbd )", "line 2, column 17: expected the end of the line, not ')' (write each statement on a line of its own)");
	refused("a = null()\nexport a as ndb", "line 2, column 13: unknown export type ndb (did you mean nbd?)");
	refused("a = null()\nexport a as floppy", "line 2, column 13: unknown export type floppy (there are loop, nbd, ublk)");
	refused("vm1 = null()\nexport vm2 as nbd", "line 2, column 8: there is no node vm2 to export (did you mean vm1?)");
	refused("vm1 = null()\nexport other as nbd", "line 2, column 8: there is no node other to export (write other = NODE on a line of its own)");
	refused("a = null()\nexport a as nbd b/c", "line 2, column 8: b/c can't be a device's name (letters, digits, '.', '_' and '-', at most 63)");
	refused("a = null()\nexport a as nbd\nexport a as loop", "line 3, column 8: two exports are named a (name one: export a as loop NAME)");
	refused("a = null()\nexport a as nbd readonly=on", "line 2, column 17: export has no option readonly (did you mean read_only?)");
	refused("a = null()\nexport a as nbd read_only=maybe", "line 2, column 17: export: read_only=maybe is not a switch (give on or off)");
	refused("a = null()\nexport a as nbd listen=tcp:1.2.3.4:5", "line 2, column 17: export: listen=tcp:1.2.3.4:5 is no address (give ADDR:PORT, like 127.0.0.1:10809, or PORT)");
	refused("a = null()\nexport a as loop listen=10809", "line 2, column 18: export: loop listens on no port (remove listen, or use nbd)");
	refused("a = null()\nexport a as nbd read_only=on read_only=on", "line 2, column 30: export: option read_only is given twice (remove one)");
	refused("null()\na = null()\nexport a as nbd", "line 1, column 1: a node without a name can't be exported, and there are exports (write NAME = in front of it)");
}

Test(graph, driver_errors)
{
	refused("rwa(/a)", "line 1, column 1: unknown driver rwa (did you mean raw?)");
	refused("ro(volumes(x))", "line 1, column 4: unknown driver volumes (did you mean volume?)");
	refused("tape(/a)", "line 1, column 1: unknown driver tape (drivers: cache cow crypt mirror null qcow2 raw ro throttle trace volume)");
	refused("\"a\\nb\"(x)", "line 1, column 1: unknown driver \"a\\nb\" (drivers: cache cow crypt mirror null qcow2 raw ro throttle trace volume)");
	refused("x = ro(rwa(/a))", "line 1, column 8: unknown driver rwa (did you mean raw?)");
	refused("x = rwa(/a)", "line 1, column 5: x: unknown driver rwa (did you mean raw?)");
	refused("cow(/top.raw)", "line 1, column 5: cow needs a node as argument 2 (write cow(/top.raw, NODE))");
	refused("cow()", "line 1, column 1: cow needs PATH as argument 1 (write cow(PATH, NODE))");
	refused("cow(raw(/a), raw(/b))", "line 1, column 5: cow needs PATH as argument 1, not a node (write cow(PATH, NODE))");
	refused("a = raw(/x)\ncow(/top, a, a)", "line 2, column 14: cow: argument 3 is one too many (write cow(/top, a))");
	refused("raw()", "line 1, column 1: raw needs PATH as argument 1 (write raw(PATH))");
	refused("raw(/a, /b)", "line 1, column 9: raw: argument 2 is one too many (write raw(/a))");
	refused("raw(/a, null())", "line 1, column 9: raw takes no node (write raw(/a))");
	refused("ro()", "line 1, column 1: ro needs a node as argument 1 (write ro(NODE))");
	refused("mirror(a)", "line 1, column 8: mirror needs a node as argument 2 (write mirror(a, NODE))");
	refused("crypt(web1)", "line 1, column 1: crypt needs the option key (the key's file)");
	refused("null(size=abc)", "line 1, column 6: null: size=abc is not a size (give digits and K, M, G or T)");
	refused("null(1)", "line 1, column 6: null: size=1 is out of range (4K to below 16E)");
	refused("throttle(a, iops=x)", "line 1, column 13: throttle: iops=x is not a number (give digits)");
	refused("throttle(a, iops=\"1\\n is 2\")", "line 1, column 13: throttle: iops=\"1\\n is 2\" is not valid (see its manual page)");
	refused("throttle(a, burst=2)", "line 1, column 13: throttle: burst=2 is not a switch (give on or off)");
	refused("throttle(a, speed=warp)", "line 1, column 13: throttle: speed=warp is no speed (give slow or fast)");
	refused("throttle(a, iop=5)", "line 1, column 13: throttle has no option iop (did you mean iops?)");
	refused("throttle(a, colour=red)", "line 1, column 13: throttle has no option colour (it has bandwidth, burst, iops, speed)");
	refused("ro(a, x=1)", "line 1, column 7: ro has no option x (it has none)");
	refused("throttle(a, iops=5, iops=6)", "line 1, column 21: throttle: option iops is given twice (remove one)");
	refused("raw(/a, path=/b)", "line 1, column 5: raw: argument 1 is one too many (write raw(path=/b))");
}

Test(graph, reference_errors)
{
	refused("a = raw(/1)\na = raw(/2)", "line 2, column 1: a is the name of two nodes (the other is on line 1; rename one)");
	refused("a = raw(/1)\nb = a", "line 2, column 5: b: a is a node already (use it by that name)");
	refused("a = ro(a)", "line 1, column 5: a uses itself: a → a (a graph has no cycles)");
	refused("a = ro(b)\nb = cow(/x, ro(a))\nexport a as nbd", "line 1, column 5: a uses itself: a → b → a (a graph has no cycles)");
	refused("a = raw(/1)\nb = raw(/2)\nexport a as nbd", "line 2, column 1: b is not used (export it, use it in another node, or remove it)");
	refused("a = raw(/1)\nb = raw(/2)", "line 2, column 1: nothing is exported, and neither a nor b is used by another node (add export NODE as TYPE)");
	refused("a = raw(/1)\nraw(/2)", "line 1, column 1: a is not used (export it, use it in another node, or remove it)");
	refused("\"a b\"", "line 1, column 1: \"a b\" is no node and can't be a volume's name (a file's name contains a slash, like ./disk.img)");
	refused("ro(web1@a@b)", "line 1, column 4: web1@a@b is no node and can't be a volume's name (a file's name contains a slash, like ./disk.img)");
}

/* ---- limits ---- */

static char *repeated(unsigned count, const char *before, const char *middle, const char *after)
{
	char *text = NULL;
	size_t length;
	FILE *f = open_memstream(&text, &length);
	for (unsigned i = 0; i < count; i++)
		fputs(before, f);
	fputs(middle, f);
	for (unsigned i = 0; i < count; i++)
		fputs(after, f);
	fclose(f);
	return text;
}

Test(graph, depth_limit)
{
	char *text = repeated(GRAPH_DEPTH_MAX - 1, "ro(", "null()", ")");
	graph_free(must_check(text));
	free(text);
	text = repeated(GRAPH_DEPTH_MAX - 1, "ro(", "web1", ")");
	graph_free(must_check(text));
	free(text);
	text = repeated(GRAPH_DEPTH_MAX, "ro(", "null()", ")");
	refused(text, "line 1, column 97: nodes are nested too deep (at most 32)");
	free(text);
	text = repeated(GRAPH_DEPTH_MAX, "ro(", "web1", ")");
	refused(text, "line 1, column 97: the graph is too deep here (at most 32 nodes below one another)");
	free(text);
	text = repeated(20000, "ro(", "null()", "");
	refused(text, "line 1, column 97: nodes are nested too deep (at most 32)");
	free(text);
	text = repeated(GRAPH_DEPTH_MAX, "ro | ", "null()", "");
	refused(text, "line 1, column 161: the chain is too long (at most 32 nodes)");
	free(text);
}

/* Depth through names: n0 = null(), n1 = ro(n0) … written top first or bottom first. */
Test(graph, depth_limit_through_names)
{
	for (unsigned order = 0; order < 2; order++)
		for (unsigned count = GRAPH_DEPTH_MAX; count <= GRAPH_DEPTH_MAX + 1; count++) {
			char text[4096] = "", *at = text;
			for (unsigned k = 0; k < count; k++) {
				unsigned i = order ? k : count - 1 - k;
				at += i ? sprintf(at, "n%u = ro(n%u)\n", i, i - 1) : sprintf(at, "n0 = null()\n");
			}
			struct graph *g = must_parse(text);
			cr_assert_eq(graph_check(g, &tables, NULL), count > GRAPH_DEPTH_MAX ? -EINVAL : 0);
			graph_free(g);
		}
}

Test(graph, count_limits)
{
	char *text = repeated(GRAPH_NODES_MAX + 1, "a=a()\n", "", "");
	refused(text, "line 1025, column 3: too many nodes (at most 1024)");
	free(text);
	text = repeated(GRAPH_ARGS_MAX, "x, ", "x", "");
	char *call;
	cr_assert(asprintf(&call, "raw(%s)", text) > 0);
	refused(call, "line 1, column 77: too many arguments (at most 24)");
	free(call);
	free(text);
	text = repeated(GRAPH_EXPORTS_MAX + 1, "export a as b\n", "", "");
	refused(text, "line 257, column 1: too many exports (at most 256)");
	free(text);
	text = repeated(GRAPH_EXPORT_ARGS_MAX + 1, " a=b", "", "");
	cr_assert(asprintf(&call, "export a as b%s", text) > 0);
	refused(call, "line 1, column 47: too many options (at most 8)");
	free(call);
	free(text);
}

/* Many small nodes, each with words that become nodes when checked. */
Test(graph, too_many_nodes_when_resolved)
{
	char *text = NULL;
	size_t length;
	FILE *f = open_memstream(&text, &length);
	for (unsigned i = 0; i < 400; i++)
		fprintf(f, "n%u = mirror(a, b, c)\n", i);
	fclose(f);
	struct graph *g = must_parse(text);
	struct report report = { "" };
	cr_assert_eq(graph_check(g, &tables, &report), -EINVAL);
	cr_assert(strstr(report.text, "too many"), "%s", report.text);
	graph_free(g);
	free(text);
}

/* However long and strange a word is, a report is one line. */
Test(graph, reports_are_one_line)
{
	char *word = repeated(3000, "\\n\\xffü", "", ""), *text;
	cr_assert(asprintf(&text, "raw(\"%s\", size=1)", word) > 0);
	struct graph *g = must_parse(text);
	struct report report = { "" };
	cr_assert_eq(graph_check(g, &tables, &report), -EINVAL);
	cr_assert_null(strchr(report.text, '\n'));
	cr_assert(strlen(report.text) < 300);
	for (size_t i = 0; report.text[i]; i += graph_utf8(report.text + i, strlen(report.text + i)))
		cr_assert(graph_utf8(report.text + i, strlen(report.text + i)) > 0);
	graph_free(g);
	free(text);
	free(word);
}

/* ---- names of devices, directories ---- */

static void named(const char *text, const char *name)
{
	struct graph *g = must_check(text);
	char got[64] = "";
	struct report report = { "" };
	int r = graph_default_name(g, got, &report);
	if (name)
		cr_assert_str_eq(got, name, "%s: %s", text, report.text);
	else
		cr_assert(r == -EINVAL && strstr(report.text, "--name"), "%s: %s", text, report.text);
	graph_free(g);
}

Test(graph, default_names)
{
	named("web1", "web1");
	named("web1@monday", "web1");
	named("volume(web.1)", "web.1");
	named("/images/a.img", "a");
	named("raw(/images/a.tar.gz)", "a.tar");
	named("raw(/dev/vg/lv1)", "lv1");
	named("throttle(raw(/images/a.img), iops=5)", "a");
	named("cow(/top.raw, ro(/images/gold.qcow2))", "gold");
	named("mirror(/a, /b)", NULL);
	named("null(1G)", NULL);
	named("/images/.img", NULL);
	named("\"/images/my disk.img\"", NULL);
	named("/images/", NULL);
}

Test(graph, relative_paths)
{
	struct graph *g = must_check("cow(./top.raw, mirror(a, sub/b.img, raw(../c.img), /d.img))");
	cr_assert_eq(graph_set_directory(g, "/home/me"), 0);
	char *text = graph_print(g);
	cr_assert_str_eq(text, "cow(/home/me/top.raw, mirror(volume(a), /home/me/sub/b.img, raw(/home/me/../c.img), /d.img))");
	free(text);
	graph_free(g);
	g = must_check("./a.img");
	cr_assert_eq(graph_set_directory(g, "/"), 0);
	text = graph_print(g);
	cr_assert_str_eq(text, "/a.img");
	free(text);
	graph_free(g);
}
