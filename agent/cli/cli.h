/* The command line: a table of commands, one way to parse, to explain and to fail.
 *
 * A command is a row of a table: words, arguments, options, text. Everything the user sees
 * about it (--help, usage errors, completion) comes from that row. Its run() is a fiber; it
 * returns 0, or -errno with c->report saying why, and main prints the one line
 *
 *     aquifer: WHAT failed: WHY (what to do)
 *
 * Exit status: 0, 1 for a failure, 2 for wrong usage: what the words alone show to be wrong, whatever is on the disk. A graph's
 * text is no such word: what is wrong in it is a failure, as in a file. */
#ifndef AQ_CLI_H
#define AQ_CLI_H
#include <argp.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "agent/daemon/paths.h"
#include "core/env.h"
#include "core/report.h"

/* Keys of options; common to all commands so that a value is found by one index. */
enum cli_option {
	CLI_ROOT = 0x100,
	CLI_JSON,
	CLI_PROGRESS,
	CLI_HELP,
	CLI_VERSION,
	CLI_NAME,
	CLI_AS,
	CLI_READ_ONLY,
	CLI_FORCE,
	CLI_ACCEPT_FLUSHED,
	CLI_INCOMING,
	CLI_LISTEN,
	CLI_GRAPH,
	CLI_ALL,
	CLI_DOT,
	CLI_SVG,
	CLI_TO,
	CLI_BACKING,
	CLI_REPLICAS,
	CLI_MIN_REPLICAS,
	CLI_IO_TIMEOUT,
	CLI_WITH_SNAPSHOTS,
	CLI_CATALOG,
	CLI_CONFIRM,
	CLI_FOR,
	CLI_TTL,
	CLI_HOST,
	CLI_AUTHORITY_ONLY,
	CLI_WAIT,
	CLI_UNDO,
	CLI_OPTION_END,
};
#define CLI_OPTION_COUNT (CLI_OPTION_END - CLI_ROOT)
#define CLI_ARGS_MAX 64

struct cli;
struct patience;
struct cli_command {
	const char *words;    /* "attach", "volume create" */
	const char *args;     /* "NAME SIZE" */
	const char *summary;  /* one line, no full stop */
	const char *text;     /* paragraphs below the options in --help; may be NULL */
	const struct argp_option *options; /* its own, ends with { 0 }; NULL: none */
	int args_min, args_max;
	bool json;            /* prints JSON with --json; others print nothing then, and their caller {} */
	int (*run)(struct cli *c); /* FIBER */
};
/* In the order of --help; ends with NULL words. A group is the first of two words. */
extern const struct cli_command cli_commands[];

struct cli {
	const struct cli_command *command;
	char root[PATHS_MAX];                /* absolute; "" if none */
	const char *option[CLI_OPTION_COUNT]; /* value, "" for a flag, NULL if not given */
	const char *arg[CLI_ARGS_MAX + 1];
	int arg_count;
	struct env *env;
	struct report report;
	char what[256];                      /* what failed; the command and its first argument unless set */
	bool usage;                          /* what failed is how it was called: exit 2 */
	char waits[160];                     /* what it waits for just now, for people who wonder; see cli_waits() */
	struct patience *patience;           /* NULL: nobody watches */
};

static inline const char *cli_option(const struct cli *c, enum cli_option key) { return c->option[key - CLI_ROOT]; }
static inline bool cli_flag(const struct cli *c, enum cli_option key) { return cli_option(c, key) != NULL; }

/* Finds the command and fills `c` from argv. 0; 1: help or version was printed, stop with 0;
 * -EINVAL with c->report and c->what (wrong usage). */
int cli_parse(struct cli *c, int argc, char **argv);
/* Wrong usage found by a command itself: sets c->usage and returns -EINVAL. */
int cli_usage(struct cli *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Usage errors: a name that can't be one. */
int cli_name(struct cli *c, const char *what, const char *name);
int cli_catalog(struct cli *c, const char *url); /* and that can't stand in the configuration */
int cli_point_name(struct cli *c, const char *text); /* VOLUME or VOLUME@SNAP */
/* A usage error for what isn't a size, or not a positive multiple of `unit`, or more than `max`, both in bytes. */
int cli_size_of(struct cli *c, const char *text, uint64_t unit, uint64_t max, uint64_t *ret_bytes);
/* The whole program. */
int cli_main(int argc, char **argv);

/* ---- output (out.c) ---- */

/* Prints `j` indented on stdout and drops the reference. Always 0. */
int cli_print_json(json_t *j);

/* A table with aligned columns; cells are copied. */
struct table;
struct table *table_new(const char *const *headings); /* ends with NULL; a heading that begins with > is right-aligned */
void table_cell(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void table_elastic(struct table *t, unsigned column); /* which column is cut where a terminal is too narrow */
void table_note(struct table *t, const char *text); /* a line below the row that is complete now; copied */
void table_print(struct table *t, FILE *to); /* and frees; nothing for no rows */
/* Cuts `text` to so many columns of a terminal (at least 1), the last one "…" then; there is room for its three bytes. */
char *cut_text(char *text, size_t columns);

/* Progress of long work: a bar on a terminal, lines with --progress, silent otherwise. */
struct progress {
	const char *what;
	const char *unit; /* what is counted: "copies"; NULL: bytes */
	uint64_t total, last_ns, last_done;
	int last_percent;
	bool bar, lines, drawn;
	struct patience *patience;
};
void progress_start(struct progress *p, const struct cli *c, const char *what, uint64_t total);
void progress_set(struct progress *p, uint64_t now_ns, uint64_t done);
void progress_end(struct progress *p, bool good);

/* A line of output, now, while the work that `p` (which needn't have been started) shows goes on. */
void cli_say(const struct cli *c, struct progress *p, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- waiting (patience.c) ---- */

/* On a terminal, a command that has said nothing for two seconds says on standard error, in one line that changes and goes at the end,
 * for how long it has been waiting, and for what, if cli_waits() was told. FIBER, both. */
struct patience {
	struct cli *c;
	struct timer timer;
	struct job done;
	uint64_t began_ns;
	bool watching, over, quiet, shown;
};
void patience_begin(struct patience *p, struct cli *c);
void patience_end(struct patience *p);
/* Takes its line away; NULL is accepted. `quiet`: for good, because something else is shown from now on. */
void patience_clear(struct patience *p, bool quiet);
/* What the command waits for from now on ("the agent of host b"); "": for nothing that has a name. */
void cli_waits(struct cli *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

const char *cli_time(uint64_t ns, char buffer[32]); /* since 1970 → local time, to the second */

/* ---- the commands ---- */
int cli_attach(struct cli *c);
int cli_detach(struct cli *c);
int cli_migrate(struct cli *c);
int cli_list(struct cli *c);
int cli_show(struct cli *c);
int cli_agent_start(struct cli *c);
int cli_agent_stop(struct cli *c);
int cli_agent_status(struct cli *c);
int cli_agent_restart(struct cli *c);
int cli_agent_list(struct cli *c);
int cli_graph_check(struct cli *c);
int cli_image_create(struct cli *c);
int cli_image_info(struct cli *c);
int cli_image_check(struct cli *c);
int cli_image_convert(struct cli *c);
int cli_volume_create(struct cli *c);
int cli_volume_list(struct cli *c);
int cli_volume_show(struct cli *c);
int cli_volume_set(struct cli *c);
int cli_volume_resize(struct cli *c);
int cli_volume_rename(struct cli *c);
int cli_volume_delete(struct cli *c);
int cli_volume_import(struct cli *c);
int cli_volume_export(struct cli *c);
int cli_snapshot_create(struct cli *c);
int cli_snapshot_list(struct cli *c);
int cli_snapshot_delete(struct cli *c);
int cli_snapshot_rollback(struct cli *c);
int cli_clone(struct cli *c);
int cli_diff(struct cli *c);
int cli_server_list(struct cli *c);
int cli_server_drain(struct cli *c);
int cli_server_remove(struct cli *c);
int cli_cluster_gc(struct cli *c);
int cli_cluster_check(struct cli *c);
int cli_cluster_init(struct cli *c);
int cli_cluster_status(struct cli *c);
int cli_cluster_scrub(struct cli *c);
int cli_cluster_move_catalog(struct cli *c);
int cli_cluster_backup(struct cli *c);
int cli_cluster_restore(struct cli *c);
int cli_cluster_recover(struct cli *c);
int cli_cluster_token(struct cli *c);
int cli_cluster_join(struct cli *c);
int cli_cluster_renew(struct cli *c);
int cli_cluster_revoke(struct cli *c);
#endif
