/* Parsing, help and failing, from the table of commands. What can go wrong here is the
 * user's typing; each mistake gives one line that names the word and the cure. */
#include "agent/cli/cli.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/daemon/args.h"
#include "core/bytes.h"
#include "core/guess.h"
#include "core/option.h"
#include "core/version.h"
#include "proto/identity.h"

static const struct argp_option common_options[] = {
	{ "root", CLI_ROOT, "DIR", 0, "Put what lives under /etc, /run and /var/lib below DIR (default: $AQUIFER_ROOT)", 90 },
	{ "progress", CLI_PROGRESS, NULL, 0, "Print lines of progress also when this is no terminal", 90 },
	{ "help", CLI_HELP, NULL, 0, "Say all this", 91 },
	{ "version", CLI_VERSION, NULL, 0, "Print the version", 91 },
	{ 0 },
};
static const struct argp_option json_option = { "json", CLI_JSON, NULL, 0, "Print JSON", 90 };

#define OPTIONS_MAX 24

/* The command's own options and the common ones. */
static void gather_options(const struct cli_command *command, struct argp_option *ret)
{
	size_t n = 0;
	for (const struct argp_option *o = command ? command->options : NULL; o && o->name; o++)
		ret[n++] = *o;
	ret[n++] = json_option;
	for (const struct argp_option *o = common_options; o->name; o++)
		if (!command || o->key != CLI_VERSION)
			ret[n++] = *o;
	assert(n < OPTIONS_MAX);
	ret[n] = (struct argp_option){ 0 };
}

int cli_usage(struct cli *c, const char *format, ...)
{
	char text[sizeof c->report.text];
	va_list ap;
	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	c->usage = true;
	return report_set(&c->report, -EINVAL, "%s (see aquifer%s%s --help)", text, c->command ? " " : "",
			  c->command ? c->command->words : "");
}

int cli_size_of(struct cli *c, const char *text, uint64_t unit, uint64_t max, uint64_t *ret_bytes)
{
	char most[24];
	int r = parse_size(text, ret_bytes);
	if (r == -ERANGE)
		return cli_usage(c, "the size %s is too large", text);
	if (r < 0)
		return cli_usage(c, "'%s' is not a size: digits and K, M, G or T", text);
	if (*ret_bytes == 0 || *ret_bytes % unit)
		return cli_usage(c, "the size %s is not a positive multiple of %u", text, (unsigned)unit);
	if (*ret_bytes > max)
		return cli_usage(c, "the size %s is too large: the most is %s", text, format_size(max, most));
	return 0;
}

int cli_name(struct cli *c, const char *what, const char *name)
{
	const char *at = strchr(name, '@');
	if (name_valid(name))
		return 0;
	if (at && strcmp(what, "volume") == 0)
		return cli_usage(c, "'%s' can't be the name of a volume: it names a snapshot, of the volume %.*s", name, (int)(at - name), name);
	return cli_usage(c, "'%s' can't be the name of a %s: a letter or digit, then letters, digits, . _ -, at most 63", name, what);
}

/* ---- help ---- */

static void help_command(const struct cli_command *command)
{
	struct argp_option options[OPTIONS_MAX];
	gather_options(command, options);
	char *doc = NULL, *name = NULL;
	if (asprintf(&doc, "%s.%s%s", command->summary, command->text ? "\v" : "", command->text ? command->text : "") < 0 ||
	    asprintf(&name, "aquifer %s", command->words) < 0)
		abort();
	struct argp argp = { .options = options, .args_doc = command->args, .doc = doc };
	argp_help(&argp, stdout, ARGP_HELP_USAGE | ARGP_HELP_DOC | ARGP_HELP_LONG, name);
	free(doc);
	free(name);
}

/* All commands, or those of one group. */
static void help_list(const char *group)
{
	size_t n = group ? strlen(group) : 0;
	printf("Usage: aquifer%s%s COMMAND [OPTION...] [ARGUMENT...]\n", group ? " " : "", group ? group : "");
	if (!group)
		printf("Local block devices from images, graphs of block components and a snapshotting store.\n");
	printf("\n");
	for (const struct cli_command *k = cli_commands; k->words; k++) {
		if (group && (strncmp(k->words, group, n) || k->words[n] != ' '))
			continue;
		char usage[160];
		snprintf(usage, sizeof usage, "%s %s", k->words, k->args);
		if (strlen(usage) > 40)
			printf("  %s\n  %-40s %s\n", usage, "", k->summary);
		else
			printf("  %-40s %s\n", usage, k->summary);
	}
	printf("\n`aquifer COMMAND --help` says more. Everywhere: --root DIR (or AQUIFER_ROOT=DIR) puts what lives\n"
	       "under /etc, /run and /var/lib below DIR; sizes take K, M, G, T, powers of 1024.\n");
}

/* ---- finding the command ---- */

static bool is_group(const char *word)
{
	size_t n = strlen(word);
	for (const struct cli_command *k = cli_commands; k->words; k++)
		if (!strncmp(k->words, word, n) && k->words[n] == ' ')
			return true;
	return false;
}

static const struct cli_command *find_command(const char *first, const char *second)
{
	char two[80];
	snprintf(two, sizeof two, "%s %s", first, second ? second : "");
	for (const struct cli_command *k = cli_commands; k->words; k++)
		if (!strcmp(k->words, first) || (second && !strcmp(k->words, two)))
			return k;
	return NULL;
}

static int group_failed(struct cli *c, const char *group, const char *word)
{
	char list[256] = "";
	size_t n = strlen(group);
	struct guess g = { .word = word ? word : "" };
	for (const struct cli_command *k = cli_commands; k->words; k++)
		if (!strncmp(k->words, group, n) && k->words[n] == ' ') {
			snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", list[0] ? ", " : "",
				 k->words + n + 1);
			guess_try(&g, k->words + n + 1);
		}
	snprintf(c->what, sizeof c->what, "%s", group);
	c->usage = true;
	if (word && g.best)
		return report_set(&c->report, -EINVAL, "unknown command '%s %s' (did you mean %s %s?)", group, word, group, g.best);
	if (word)
		return report_set(&c->report, -EINVAL, "unknown command '%s %s' (there are: %s)", group, word, list);
	return report_set(&c->report, -EINVAL, "it needs one more word (one of: %s)", list);
}

/* One of one word, or a group, or the second word of a group, given alone: `aquifer create`. */
static int unknown_command(struct cli *c, const char *word)
{
	struct guess g = { .word = word };
	char first[32], list[160] = "";
	for (const struct cli_command *k = cli_commands; k->words; k++) {
		const char *blank = strchr(k->words, ' ');
		if (blank && !strcmp(blank + 1, word))
			snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", list[0] ? ", " : "", k->words);
	}
	if (list[0])
		return report_set(&c->report, -EINVAL, "unknown command '%s' (did you mean %s?)", word, list);
	for (const struct cli_command *k = cli_commands; k->words; k++) {
		snprintf(first, sizeof first, "%.*s", (int)strcspn(k->words, " "), k->words);
		unsigned before = g.best ? g.distance : UINT_MAX;
		guess_try(&g, first);
		if (g.best && g.distance < before)
			g.best = k->words;
	}
	if (!g.best)
		return cli_usage(c, "unknown command '%s'", word);
	return report_set(&c->report, -EINVAL, "unknown command '%s' (did you mean %.*s?)", word, (int)strcspn(g.best, " "), g.best);
}

/* `aquifer help WORD [WORD]`. 1, or wrong usage. */
static int help_words(struct cli *c, const char *word, const char *second)
{
	c->command = find_command(word, second);
	if (c->command)
		help_command(c->command);
	else if (is_group(word) && second)
		return group_failed(c, word, second);
	else if (is_group(word))
		help_list(word);
	else
		return cli_usage(c, "there is none named '%s'", word);
	return 1;
}

/* ---- one command's arguments ---- */

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct cli *c = state->input;
	if (key >= CLI_ROOT && key < CLI_OPTION_END) {
		if (arg && !arg[0])
			return cli_usage(c, "an option's value is empty"), EINVAL;
		c->option[key - CLI_ROOT] = arg ? arg : "";
		return 0;
	}
	if (key != ARGP_KEY_ARG)
		return key == ARGP_KEY_END || key == ARGP_KEY_NO_ARGS || key == ARGP_KEY_SUCCESS || key == ARGP_KEY_INIT ||
				       key == ARGP_KEY_FINI || key == ARGP_KEY_ERROR
			       ? 0
			       : ARGP_ERR_UNKNOWN;
	if (c->arg_count == CLI_ARGS_MAX)
		return cli_usage(c, "more than %d arguments", CLI_ARGS_MAX), EINVAL;
	c->arg[c->arg_count++] = arg;
	return 0;
}

static int check_count(struct cli *c)
{
	const struct cli_command *k = c->command;
	if (c->arg_count < k->args_min)
		return cli_usage(c, "an argument is missing: aquifer %s %s", k->words, k->args);
	if (c->arg_count > k->args_max)
		return cli_usage(c, "unexpected argument '%s'", c->arg[k->args_max]);
	for (int i = 0; i < c->arg_count; i++)
		if (!c->arg[i][0])
			return cli_usage(c, "an argument is empty: aquifer %s %s", k->words, k->args);
	return 0;
}

static int pick_root(struct cli *c)
{
	const char *given = cli_flag(c, CLI_ROOT) ? cli_option(c, CLI_ROOT) : getenv("AQUIFER_ROOT");
	return paths_resolve_root(given, c->root, &c->report);
}

static int run_argp(struct cli *c, const struct argp_option *options, int argc, char **argv)
{
	struct argp argp = { .options = options, .parser = parse_option };
	struct report why = { 0 };
	int r = args_parse(&argp, argc, argv, c, &why);
	if (r < 0 && !c->report.text[0])
		cli_usage(c, "%s", why.text);
	return r;
}

static int parse_command(struct cli *c, int argc, char **argv)
{
	struct argp_option options[OPTIONS_MAX];
	gather_options(c->command, options);
	snprintf(c->what, sizeof c->what, "%s", c->command->words);
	int r = run_argp(c, options, argc, argv);
	if (r < 0)
		return r;
	if (cli_flag(c, CLI_HELP)) {
		help_command(c->command);
		return 1;
	}
	if (c->arg_count && c->arg[0][0])
		snprintf(c->what, sizeof c->what, "%s %s", c->command->words, c->arg[0]);
	if ((r = check_count(c)) < 0)
		return r;
	return 0;
}

int cli_parse(struct cli *c, int argc, char **argv)
{
	struct argp_option options[OPTIONS_MAX];
	gather_options(NULL, options);
	snprintf(c->what, sizeof c->what, "command");
	/* Options before the command: stop at the first word that is none. */
	int r, first = 1;
	while (first < argc && argv[first][0] == '-') {
		bool value = !strcmp(argv[first], "--root");
		first += value ? 2 : 1;
	}
	if (first > argc)
		first = argc;
	if ((r = run_argp(c, options, first, argv)) < 0)
		return r;
	if (cli_flag(c, CLI_VERSION)) {
		printf("aquifer %s\n", AQ_VERSION);
		return 1;
	}
	const char *word = first < argc ? argv[first] : NULL;
	const char *second = word && first + 1 < argc ? argv[first + 1] : NULL;
	if (cli_flag(c, CLI_HELP) || (word && !strcmp(word, "help") && !second)) {
		help_list(NULL);
		return 1;
	}
	if (!word)
		return cli_usage(c, "none is given");
	if (!strcmp(word, "help"))
		return help_words(c, second, first + 2 < argc ? argv[first + 2] : NULL);
	if (is_group(word)) {
		if (second && !strcmp(second, "--help")) {
			help_list(word);
			return 1;
		}
		c->command = second ? find_command(word, second) : NULL;
		if (!c->command)
			return group_failed(c, word, second);
		first++;
	} else {
		c->command = find_command(word, NULL);
		if (!c->command)
			return unknown_command(c, word);
	}
	return parse_command(c, argc - first, argv + first);
}

/* ---- the program ---- */

static int run_fiber(void *arg)
{
	struct cli *c = arg;
	struct patience p;
	patience_begin(&p, c);
	int r = c->command->run(c);
	patience_end(&p);
	return r;
}

static int fail(struct cli *c, int r)
{
	/* One line, whatever is in the text. */
	const char *why = report_text(&c->report, r);
	char line[sizeof c->what + sizeof c->report.text + 32];
	int n = snprintf(line, sizeof line, "aquifer: %s failed: %s", c->what, why);
	for (int i = 0; i < n && i < (int)sizeof line; i++)
		if ((unsigned char)line[i] < ' ')
			line[i] = ' ';
	fflush(stdout);
	fprintf(stderr, "%s\n", line);
	return c->usage ? 2 : 1;
}

int cli_main(int argc, char **argv)
{
	static struct cli c;
	int r = cli_parse(&c, argc, argv);
	if (r < 0) {
		c.usage = true;
		return fail(&c, r);
	}
	if (r == 0) {
		if ((r = pick_root(&c)) < 0 || (r = env_linux_create(0, &c.env)) < 0)
			return fail(&c, r);
		c.env->solitary = true;
		r = env_linux_run_fiber(c.env, run_fiber, &c);
		identity_put(c.env->identity);
		env_linux_destroy(c.env);
		if (r < 0)
			return fail(&c, r);
		if (cli_flag(&c, CLI_JSON) && !c.command->json)
			puts("{}"); /* scripts can say --json always */
	}
	if (fflush(stdout) || ferror(stdout)) {
		report_set(&c.report, -EIO, "the output could not be written: %m");
		return fail(&c, -EIO);
	}
	return 0;
}
