/* The command line's pure parts: finding commands, options, usage errors, roots and plans. */
#include "agent/cli/cli.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/daemon/args.h"
#include "agent/daemon/plan.h"
#include "agent/daemon/spawn.h"
#include "core/bytes.h"

static int parse(struct cli *c, const char *const *words)
{
	char *argv[32];
	int argc = 0;
	*c = (struct cli){ 0 };
	argv[argc++] = (char *)(uintptr_t)"aquifer";
	for (; words[argc - 1]; argc++)
		argv[argc] = (char *)(uintptr_t)words[argc - 1];
	argv[argc] = NULL;
	return cli_parse(c, argc, argv);
}
#define PARSE(c, ...) parse(c, (const char *const[]){ __VA_ARGS__, NULL })

Test(cli, commands_and_groups_are_found)
{
	struct cli c;
	cr_assert_eq(PARSE(&c, "list"), 0);
	cr_assert_str_eq(c.command->words, "list");
	cr_assert_eq(PARSE(&c, "agent", "status", "--json"), 0);
	cr_assert_str_eq(c.command->words, "agent status");
	cr_assert(cli_flag(&c, CLI_JSON));
	cr_assert_eq(PARSE(&c, "--root", "/x", "agent", "stop"), 0);
	cr_assert_str_eq(cli_option(&c, CLI_ROOT), "/x");
	cr_assert_str_eq(c.command->words, "agent stop");
}

Test(cli, options_mix_with_arguments)
{
	struct cli c;
	cr_assert_eq(PARSE(&c, "attach", "--as", "nbd", "./x", "--name=n", "--read-only"), 0);
	cr_assert_eq(c.arg_count, 1);
	cr_assert_str_eq(c.arg[0], "./x");
	cr_assert_str_eq(cli_option(&c, CLI_AS), "nbd");
	cr_assert_str_eq(cli_option(&c, CLI_NAME), "n");
	cr_assert(cli_flag(&c, CLI_READ_ONLY));
	cr_assert_not(cli_flag(&c, CLI_FORCE));
	cr_assert_str_eq(c.what, "attach ./x");
}

Test(cli, every_command_takes_json)
{
	for (const struct cli_command *k = cli_commands; k->words; k++) {
		char words[64], *second;
		const char *argv[16];
		int n = 0;
		struct cli c;
		snprintf(words, sizeof words, "%s", k->words);
		argv[n++] = words;
		if ((second = strchr(words, ' '))) {
			*second++ = '\0';
			argv[n++] = second;
		}
		for (int i = 0; i < k->args_min; i++)
			argv[n++] = "x";
		argv[n++] = "--json";
		argv[n] = NULL;
		cr_assert_eq(parse(&c, argv), 0, "%s: %s", k->words, c.report.text);
		cr_assert(cli_flag(&c, CLI_JSON));
	}
}

Test(cli, usage_errors_name_the_word)
{
	static const struct {
		const char *words[6];
		const char *text;
	} bad[] = {
		{ { NULL }, "none is given" },
		{ { "frob" }, "unknown command 'frob'" },
		{ { "atach", "web1" }, "did you mean attach?" },
		{ { "volumes", "list" }, "did you mean volume?" },
		{ { "volume", "creat" }, "did you mean volume create?" },
		{ { "help", "frob" }, "there is none named 'frob'" },
		{ { "help", "volume", "frob" }, "unknown command 'volume frob'" },
		{ { "create", "web1" }, "did you mean image create, volume create, snapshot create?" },
		{ { "image", "frob" }, "image frob" },
		{ { "image" }, "create, info, check, convert" },
		{ { "list", "--frob" }, "unknown option --frob" },
		{ { "list", "-q" }, "unknown option -q" },
		{ { "attach", "--name" }, "--name needs a value" },
		{ { "attach", "--force=1", "x" }, "--force takes no value" },
		{ { "attach", "x", "y" }, "unexpected argument 'y'" },
		{ { "show" }, "missing" },
		{ { "--frob", "list" }, "unknown option --frob" },
		{ { "--root" }, "--root needs a value" },
		{ { "volume", "create", "w", "-1" }, "unknown option -1 (there are no negative sizes)" },
		{ { "volume", "show", "" }, "an argument is empty" },
		{ { "attach", "x", "--name", "" }, "value is empty" },
	};
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
		struct cli c;
		cr_assert_eq(parse(&c, bad[i].words), -EINVAL, "case %zu", i);
		cr_assert(strstr(c.report.text, bad[i].text), "case %zu: %s", i, c.report.text);
		cr_assert(c.what[0] && c.what[strlen(c.what) - 1] != ' ', "case %zu: '%s failed'", i, c.what);
	}
}

Test(cli, sizes_that_are_none_are_wrong_usage)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
		{ "0", "positive multiple of 4096" }, { "4095", "positive multiple of 4096" }, { "1.5M", "is not a size" },
		{ "", "is not a size" },              { "-4096", "is not a size" },            { "1MX", "is not a size" },
		{ "65T", "the most is 64T" },         { "17E", "too large" },                  { "99999999999999999999", "too large" },
	};
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
		struct cli c = { 0 };
		uint64_t bytes = 7;
		cr_assert_eq(cli_size_of(&c, bad[i].text, 4096, UINT64_C(64) << 40, &bytes), -EINVAL, "'%s'", bad[i].text);
		cr_assert(c.usage, "'%s'", bad[i].text);
		cr_assert(strstr(c.report.text, bad[i].why), "'%s': %s", bad[i].text, c.report.text);
	}
	struct cli c = { 0 };
	uint64_t bytes = 0;
	cr_assert_eq(cli_size_of(&c, "64T", 4096, UINT64_C(64) << 40, &bytes), 0);
	cr_assert_eq(bytes, UINT64_C(64) << 40);
}

Test(cli, whoever_prints_json_is_on_its_page)
{
	static char page[1 << 16];
	FILE *f = fopen("docs/man/aquifer-json.7.md", "r");
	cr_assert(f, "run it from the top of the tree");
	page[fread(page, 1, sizeof page - 1, f)] = '\0';
	fclose(f);
	for (const struct cli_command *k = cli_commands; k->words; k++) {
		char term[80];
		snprintf(term, sizeof term, "**%s**", k->words);
		cr_assert(!k->json == !strstr(page, term), "%s: %s", k->words, k->json ? "isn't there" : "prints {}");
	}
}

Test(cli, table_is_consistent)
{
	for (const struct cli_command *k = cli_commands; k->words; k++) {
		cr_assert(k->run && k->summary && k->args, "%s", k->words);
		cr_assert_leq(k->args_min, k->args_max);
		cr_assert_neq(k->summary[strlen(k->summary) - 1], '.', "%s", k->words);
		cr_assert_leq(strlen(k->summary), 64, "%s: more than a line of aquifer --help", k->words);
		for (const struct cli_command *other = cli_commands; other != k; other++)
			cr_assert_str_neq(k->words, other->words);
		for (const struct argp_option *o = k->options; o && o->name; o++)
			cr_assert(o->key >= CLI_ROOT && o->key < CLI_OPTION_END, "%s --%s", k->words, o->name);
	}
}

Test(paths, roots)
{
	char root[PATHS_MAX], long_one[PATHS_ROOT_MAX + 2];
	struct report report = { 0 };
	cr_assert_eq(paths_resolve_root(NULL, root, &report), 0);
	cr_assert_str_eq(root, "");
	cr_assert_eq(paths_resolve_root("/", root, &report), 0);
	cr_assert_str_eq(root, "");
	cr_assert_eq(paths_resolve_root("/a/b//", root, &report), 0);
	cr_assert_str_eq(root, "/a/b");
	cr_assert_eq(paths_resolve_root("x", root, &report), 0);
	cr_assert_eq(root[0], '/');
	cr_assert_str_eq(strrchr(root, '/'), "/x");
	memset(long_one, 'a', sizeof long_one);
	long_one[0] = '/';
	long_one[sizeof long_one - 1] = 0;
	cr_assert_eq(paths_resolve_root(long_one, root, &report), -ENAMETOOLONG);
}

Test(paths, deep_sockets_go_through_a_descriptor)
{
	char address[PATHS_MAX];
	int fd;
	cr_assert_eq(paths_socket_address("/tmp", "s", address, &fd, NULL), 0);
	cr_assert_str_eq(address, "unix:/tmp/s");
	cr_assert_eq(fd, -1);
	char deep[200] = "/";
	while (strlen(deep) < 150)
		strcat(deep, "./././");
	cr_assert_eq(paths_socket_address(deep, "s", address, &fd, NULL), 0);
	cr_assert_geq(fd, 0);
	cr_assert_eq(strncmp(address, "unix:/proc/self/fd/", 19), 0);
	cr_assert_lt(strlen(address), PATHS_SOCKET_MAX);
	close(fd);
	strcpy(deep + 140, "/none");
	cr_assert_lt(paths_socket_address(deep, "s", address, &fd, NULL), 0);
}

/* ---- plans ---- */

static int plan(const char *text, const struct plan_how *how, struct plan *p, struct report *report)
{
	report->text[0] = 0;
	return plan_make(text, strlen(text), how, p, report);
}

Test(plan, an_expression_is_one_loop_device)
{
	struct plan p;
	struct report report;
	cr_assert_eq(plan("raw(/images/web1.img)", &(struct plan_how){ 0 }, &p, &report), 0, "%s", report.text);
	cr_assert_eq(p.device_count, 1u);
	cr_assert_str_eq(p.device[0].name, "web1");
	cr_assert_eq(p.device[0].export, export_find("loop"));
	plan_free(&p);
}

Test(plan, exports_given_by_hand)
{
	static const char *const exports[] = { "nbd:/tmp/s.sock", "loop:other", "nbd:tcp:127.0.0.1:10809", "nbd" };
	struct plan p;
	struct report report;
	struct plan_how how = { .exports = exports, .export_count = 4, .read_only = true };
	cr_assert_eq(plan("raw(/images/web1.img)", &how, &p, &report), 0, "%s", report.text);
	cr_assert_eq(p.device_count, 4u);
	cr_assert_str_eq(p.device[0].name, "web1");
	cr_assert_str_eq(p.device[0].address, "unix:/tmp/s.sock");
	cr_assert_str_eq(p.device[1].name, "other");
	cr_assert_str_eq(p.device[2].address, "tcp:127.0.0.1:10809");
	cr_assert_str_eq(p.device[2].name, "web1.3");
	cr_assert_str_eq(p.device[3].address, "");
	cr_assert(p.device[3].read_only);
	plan_free(&p);
}

Test(plan, a_graph_names_its_devices)
{
	struct plan p;
	struct report report;
	const char *text = "disk = raw(/images/a.img)\nview = ro(disk)\nexport disk as nbd\nexport view as nbd\n";
	cr_assert_eq(plan(text, &(struct plan_how){ 0 }, &p, &report), 0, "%s", report.text);
	cr_assert_eq(p.device_count, 2u);
	cr_assert_str_eq(p.device[0].name, "disk");
	cr_assert_str_eq(p.device[1].name, "view");
	cr_assert_neq(p.device[0].node, p.device[1].node);
	plan_free(&p);
	cr_assert_eq(plan(text, &(struct plan_how){ .name = "x" }, &p, &report), -EINVAL);
	cr_assert(strstr(report.text, "--name"));
}

Test(plan, refusals)
{
	static const struct {
		const char *graph, *name, *export, *listen, *text;
	} bad[] = {
		{ "ram(1M)", NULL, "nbd", NULL, "--name" },
		{ "ram(1M)", "a b", "nbd", NULL, "can't be a device's name" },
		{ "ram(1M)", "x", "floppy", NULL, "there are: loop, nbd" },
		{ "ram(1M)", "x", "loop:a/b", NULL, "can't be a device's name" },
		{ "ram(1M)", "x", "loop", "1.2.3.4:5", "listens on no port" },
		{ "ram(1M)", "x", "nbd", "nonsense", "ADDR:PORT" },
		{ "ram(1M)", "x", "nbd:", NULL, "/PATH of a unix socket" },
		{ "ram(1M)", "x", "nbd:s.sock", NULL, "/PATH of a unix socket" },
		{ "ram(1M)", "x", "nbd:unix:s.sock", NULL, "/PATH of a unix socket" },
		{ "ram(1M)", "x", "nbd", ":5", "ADDR:PORT" },
		{ "ram(1M)", "x", "nbd", "::1:5", "ADDR:PORT" },
		{ "ram(1M)", "x", "nbd", "h:123456", "ADDR:PORT" },
		{ "ram(", "x", "nbd", NULL, "line 1" },
	};
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
		struct plan p;
		struct report report;
		struct plan_how how = { .name = bad[i].name, .exports = &bad[i].export, .export_count = 1, .listen = bad[i].listen };
		cr_assert_lt(plan(bad[i].graph, &how, &p, &report), 0, "case %zu", i);
		cr_assert(strstr(report.text, bad[i].text), "case %zu: %s", i, report.text);
	}
}

Test(spawn, last_line_of_a_log)
{
	char path[] = "/tmp/aquifer-unit-XXXXXX", line[64];
	int fd = mkstemp(path);
	cr_assert_geq(fd, 0);
	spawn_last_line(path, line, sizeof line);
	cr_assert_str_eq(line, "");
	cr_assert_eq(write(fd, "first\nsecond\n\n", 14), 14);
	spawn_last_line(path, line, sizeof line);
	cr_assert_str_eq(line, "second");
	for (int i = 0; i < 300; i++)
		cr_assert_eq(write(fd, "0123456789", 10), 10);
	spawn_last_line(path, line, sizeof line);
	cr_assert_eq(strlen(line), sizeof line - 1);
	close(fd);
	unlink(path);
	spawn_last_line(path, line, sizeof line);
	cr_assert_str_eq(line, "");
}
