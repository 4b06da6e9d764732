/* Graphs, as commands read and open them. */
#ifndef AQ_GRAPH_CLI_H
#define AQ_GRAPH_CLI_H
#include "agent/cli/cli.h"
#include "agent/cli/store_cli.h"
#include "agent/graph/graph.h"

/* The graph's text: of `file` (or of `word`, if that ends in .graph), else `word` itself; malloc'd. Its relative paths
 * start at ret_directory: the file's, or the working directory. */
int cli_graph_text(struct cli *c, const char *file, const char *word, char **ret_text, size_t *ret_length,
		   char ret_directory[PATHS_MAX]);
/* The same, parsed and checked, its paths absolute. */
int cli_graph_load(struct cli *c, const char *word, struct graph **ret_graph);
/* After it couldn't be read or opened, adds what was meant, perhaps: the bare word was taken for a volume that isn't there, and a file of that
 * name is; or the word looks like a file's name, and isn't. Returns `status`. */
int cli_graph_hint(struct cli *c, const char *word, int status);
#endif
