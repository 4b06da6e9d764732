/* graph check, and what the other commands need to read a graph. */
#include "agent/cli/graph_cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/daemon/state.h"
#include "core/option.h"

static bool ends_in_graph(const char *word)
{
	size_t n = strlen(word);
	return n > 6 && !strcmp(word + n - 6, ".graph") && !strpbrk(word, "(|= \t\n");
}

static int working_directory(struct cli *c, char ret[PATHS_MAX])
{
	if (!getcwd(ret, PATHS_MAX))
		return report_set(&c->report, -errno, "the working directory: %m (use absolute paths from elsewhere)");
	return 0;
}

/* Where a file is, as an absolute path. */
static int directory_of(struct cli *c, const char *file, char ret[PATHS_MAX])
{
	while (strncmp(file, "./", 2) == 0)
		file += 2 + strspn(file + 2, "/");
	const char *slash = strrchr(file, '/');
	size_t n = slash ? (size_t)(slash - file) : 0;
	char here[PATHS_MAX] = "";
	int r = file[0] == '/' ? 0 : working_directory(c, here);
	if (r < 0)
		return r;
	if ((size_t)snprintf(ret, PATHS_MAX, "%s%s%.*s", here, here[0] && n ? "/" : "", (int)n, file) >= PATHS_MAX)
		return report_set(&c->report, -ENAMETOOLONG, "the path %.60s… is too long", file);
	if (!ret[0])
		strcpy(ret, "/");
	return 0;
}

/* A FILE whose name has characters of the language: the word is a path to something that is there, so it is no expression. */
static char *word_text(const char *word)
{
	size_t max = 4 * strlen(word) + 3; /* \xNN for each, quotes, NUL */
	if (!strchr(word, '/') || !graph_must_quote(word, /* element= */ true) || access(word, F_OK) < 0)
		return strdup(word);
	char *text = malloc(max);
	if (text)
		graph_quote(word, text, max);
	return text;
}

int cli_graph_text(struct cli *c, const char *file, const char *word, char **ret_text, size_t *ret_length,
		   char ret_directory[PATHS_MAX])
{
	if (!file && ends_in_graph(word))
		file = word;
	if (!file) {
		int here = working_directory(c, ret_directory);
		if (here < 0)
			return here;
		*ret_text = word_text(word);
		*ret_length = *ret_text ? strlen(*ret_text) : 0;
		return *ret_text ? 0 : -ENOMEM;
	}
	int r = directory_of(c, file, ret_directory);
	if (r < 0)
		return r;
	r = state_file_read(file, GRAPH_TEXT_MAX, ret_text, ret_length);
	if (r == -EFBIG)
		return report_set(&c->report, r, "the graph file %s is larger than %d bytes (make several of it)", file, GRAPH_TEXT_MAX);
	return r < 0 ? report_path(&c->report, r, "open", file) : 0;
}

/* The name in "there is no volume 'NAME' (…)"; false: the report says something else. `ret_cure`: where its parenthesis begins. */
static bool missing_volume(struct report *report, char ret_name[64], char **ret_cure)
{
	static const char is_missing[] = "there is no volume '";
	char *at = strstr(report->text, is_missing);
	if (!at)
		return false;
	at += sizeof is_missing - 1;
	size_t n = strcspn(at, "'");
	if (n >= 64 || strncmp(at + n, "' (", 3) != 0)
		return false;
	snprintf(ret_name, 64, "%.*s", (int)n, at);
	*ret_cure = at + n + 2;
	return true;
}

int cli_graph_hint(struct cli *c, const char *word, int status)
{
	char name[64], *cure;
	if (status == -ENOENT && strstr(c->report.text, "there is no store yet") && name_valid(word) && access(word, F_OK) == 0)
		snprintf(c->report.text, sizeof c->report.text, "there is no volume '%s' (if the file is meant: ./%s)", word, word);
	else if (status == -ENOENT && !ends_in_graph(word) && missing_volume(&c->report, name, &cure) && access(name, F_OK) == 0)
		snprintf(cure, sizeof c->report.text - (size_t)(cure - c->report.text), "(if the file is meant: ./%s)", name);
	if (status == -EINVAL && strchr("./", word[0]) && !strpbrk(word, "()|=") && access(word, F_OK) < 0 && errno == ENOENT) {
		struct report why = c->report;
		c->report.text[0] = 0;
		report_set(&c->report, status, "there is no file of that name, and as a graph: %s", why.text);
	}
	return status;
}

/* Parsed and checked. `ret_directory`: where its relative names begin. */
static int load(struct cli *c, const char *word, char ret_directory[PATHS_MAX], struct graph **ret_graph)
{
	char *text;
	size_t length;
	int r = cli_graph_text(c, NULL, word, &text, &length, ret_directory);
	if (r < 0)
		return r;
	r = graph_read(text, length, ret_graph, &c->report);
	free(text);
	return cli_graph_hint(c, word, r);
}

int cli_graph_load(struct cli *c, const char *word, struct graph **ret_graph)
{
	char directory[PATHS_MAX];
	int r = load(c, word, directory, ret_graph);
	if (r == 0 && (r = graph_set_directory(*ret_graph, directory)) < 0)
		graph_free(*ret_graph);
	return r;
}

int cli_graph_check(struct cli *c)
{
	char directory[PATHS_MAX];
	struct graph *g = NULL;
	int r = load(c, c->arg[0], directory, &g);
	if (r < 0)
		return r;
	char *canonical = graph_print(g);
	if (cli_flag(c, CLI_JSON))
		cli_print_json(json_pack("{s:s}", "graph", canonical ? canonical : ""));
	else
		puts(canonical ? canonical : "");
	free(canonical);
	graph_free(g);
	return 0;
}
