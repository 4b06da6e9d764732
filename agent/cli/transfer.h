/* Images as commands open and make them: sources are graphs, targets new files of some format. */
#ifndef AQ_TRANSFER_H
#define AQ_TRANSFER_H
#include <signal.h>

#include "agent/cli/copy.h"
#include "agent/cli/graph_cli.h"
#include "agent/graph/instance.h"
#include "core/blk.h"

/* FIBER. Opens a graph without exports (a file, an expression, a volume or snapshot) for reading. */
int transfer_open(struct cli *c, const char *word, struct graph_instance **ret_graph, struct blk_node **ret_node);
/* FIBER. The graph `text` opened for writing. */
int transfer_open_text(struct cli *c, const char *text, bool read_only, struct graph_instance **ret_graph,
		       struct blk_node **ret_node);
/* The driver of an image format that can be made. Usage error, saying which there are, otherwise. */
int transfer_format(struct cli *c, const char *format, const struct blk_driver **ret_driver);
/* FIBER. copy_run() of a copy without a target, with progress. */
int transfer_read(struct cli *c, struct copy *copy);
/* From one to the other the first SIGINT, SIGTERM or SIGHUP ends transfer_copy(), also one that begins later, and nothing else. */
struct transfer_signals {
	struct sigaction interrupt, terminate, hang_up, pipe;
};
void transfer_catch(struct transfer_signals *ret_before);
void transfer_restore(const struct transfer_signals *before);
/* FIBER. Copies all of `from` into `to` with progress; SIGINT and SIGTERM end it with -EINTR. */
int transfer_copy(struct cli *c, struct blk_node *from, struct blk_node *to);
/* FIBER. May a new file take this name? -EEXIST without --force, with the cure; never in place of a device, a directory, or an image that
 * somebody has open. `ret_path`: the name that it takes, which is another where `path` is a symbolic link to a file. */
int transfer_target(struct cli *c, const char *path, const char *cure, char ret_path[PATHS_MAX]);
/* `part`, which is to replace `path`, gets its owner, as far as we may, and its mode, and `mode` beside it: before anything is in it that not everybody may read.
 * Where there is no `path` it stays as it is. */
void transfer_inherit(const char *path, const char *part, unsigned mode);
/* FIBER. Copies `source` into the new file `target`, which appears when it is complete. */
int transfer_to_file(struct cli *c, const char *source, const char *target);
#endif
