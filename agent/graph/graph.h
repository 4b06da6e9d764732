/* The graph language: text to a typed graph and back, and the rules a graph must obey.
 *
 * No I/O happens here: parsing, printing and checking are functions from bytes to a struct
 * or a report, and are fuzzed as such. What opens a graph is instance.h.
 *
 *     text ──graph_parse──▶ graph ──graph_check──▶ checked graph ──graph_open──▶ instance
 *       ▲                     │                          │
 *       └─────graph_print─────┴──────────────────────────┘
 *
 * Parsing knows no driver, so a bare word stays a word; checking knows the drivers' tables and
 * turns each word into an option, a reference to a named node, a volume or a file. Printing and
 * parsing again gives the same graph, before and after checking.
 *
 * The text is an operator's or a script's, but may come over a socket: everything it can make
 * us allocate is limited below, and reports quote it with escapes, so they stay one line. */
#ifndef AQ_GRAPH_H
#define AQ_GRAPH_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/exports/export.h"
#include "core/blk.h"
#include "core/option.h"
#include "core/report.h"

enum {
	GRAPH_TEXT_MAX = 64 << 10,  /* bytes of text */
	GRAPH_NODES_MAX = 1024,
	GRAPH_EXPORTS_MAX = 256,
	GRAPH_DEPTH_MAX = 32,       /* nodes from an export down to a leaf */
	GRAPH_ARGS_MAX = 24,        /* of one node: OPTION_MAX options and BLK_MAX_CHILDREN nodes */
	GRAPH_EXPORT_ARGS_MAX = 8,
};

struct graph_place {
	unsigned line, column; /* from 1; columns count characters */
};

/* An argument of a node: a word, a node, or key=value. */
struct graph_arg {
	const char *key;   /* NULL: positional */
	const char *word;  /* NULL: a node */
	int node;          /* index into nodes if word is NULL */
	int option;        /* checked: index into the driver's option table, -1 for a node */
	struct graph_place place;
};

struct graph_node {
	const char *name;   /* NULL: not named, and then used exactly once */
	const char *driver; /* NULL: a bare word, args[0]; once checked that is always a file to be probed */
	struct graph_arg *args;
	unsigned arg_count;
	struct graph_place place, name_place;
	const struct blk_driver *blk; /* checked: NULL for a file to be probed */
};

struct graph_export {
	const char *node_name;
	const char *type;
	const char *name; /* the device's; NULL: the node's name */
	struct graph_arg args[GRAPH_EXPORT_ARGS_MAX]; /* key=value */
	unsigned arg_count;
	struct graph_place place, type_place;
	/* checked: */
	int node;
	bool listens; /* its type takes an address */
	struct option_values options; /* listen, queue_depth, read_only */
};

struct graph {
	struct graph_node *nodes;
	unsigned node_count;
	struct graph_export *exports;
	unsigned export_count;
	int root;        /* the expression without a name, or once checked, without exports, the node nobody uses; -1: none */
	bool checked;
	unsigned *order; /* checked: node_count indices, children before those who use them */
	char *strings;   /* what the words point into */
	char **more_strings; /* words made later; each malloc'd */
	unsigned more_count;
};

/* The names a graph may use. */
struct graph_tables {
	const struct blk_driver *const *drivers; /* end with NULL */
	const struct export_driver *const *exports;
};

/* HOST:PORT, the port a number, an IPv6 host in brackets; or PORT alone, on the loopback? */
bool graph_listen_valid(const char *text);
#define GRAPH_LISTEN_FORM "give ADDR:PORT, like 127.0.0.1:10809, or PORT"

/* Parses `length` bytes. 0, -EINVAL or -ENOMEM with a report that names line, column and the cure. The
 * caller frees the graph with graph_free(). */
int graph_parse(const char *text, size_t length, struct graph **ret_graph, struct report *report);
/* Resolves words and enforces the rules. `tables` NULL: the built-in ones. On failure the graph is
 * only good for graph_free(). Checking a checked graph does nothing. */
int graph_check(struct graph *g, const struct graph_tables *tables, struct report *report);
/* Both, with the built-in tables: *ret_graph is checked, or not there. */
int graph_read(const char *text, size_t length, struct graph **ret_graph, struct report *report);
/* The canonical form, without a newline at the end; malloc'd, NULL without memory. */
char *graph_print(const struct graph *g);
/* Same names, drivers, arguments and exports, in the same order; places don't count. */
bool graph_equal(const struct graph *a, const struct graph *b);
void graph_free(struct graph *g); /* accepts NULL */

/* The default name of a device on a checked graph that is an expression: the volume's name, or the file's base name
 * without its suffix, if the graph has one leaf. -EINVAL with a report that asks for --name otherwise. */
int graph_default_name(const struct graph *g, char ret_name[64], struct report *report);
/* Makes the relative paths in a checked graph (files, and options named `file` or `path`) start at `directory`, because the process
 * that opens the graph has another working directory than the one that was given it. 0 or -ENOMEM. */
int graph_set_directory(struct graph *g, const char *directory);
/* The word of the first string option that may be given without its name (raw's file, volume's name), NULL if none is given. */
const char *graph_node_subject(const struct graph_node *n);

/* ---- between the files of this folder ---- */

/* Appends a node and returns its index; -E2BIG over the limit or -ENOMEM. */
int graph_add_node(struct graph *g, const char *driver, struct graph_place place);
/* Adds an argument in front of the first key=value one if it is positional, else at the end. 0, -E2BIG or -ENOMEM. */
int graph_add_arg(struct graph_node *n, struct graph_arg arg);
/* 0, -E2BIG or -ENOMEM. Copies *e. */
int graph_add_export(struct graph *g, const struct graph_export *e);
/* The named node, or -1. */
int graph_find(const struct graph *g, const char *name);
/* Bytes of the UTF-8 character at the start of `length` > 0 bytes; 0 if it is none. */
unsigned graph_utf8(const char *text, size_t length);
/* Characters that need no quotes. */
bool graph_plain_char(unsigned char c);
/* What some editors put before UTF-8: skipped at a text's beginning. */
#define GRAPH_UTF8_MARK "\xef\xbb\xbf"
/* Must the word be quoted? `element`: it stands alone, where DRIVER:WORD would be taken apart. */
bool graph_must_quote(const char *word, bool element);
/* Writes the character at `p` as it stands inside quotes; returns the bytes of it consumed. */
unsigned graph_escape(const char *p, char ret_text[8]);
/* A word for messages: quoted if it must be, cut with "…" to fit `max` bytes. Returns `buffer`. */
const char *graph_quote(const char *word, char *buffer, size_t max);
/* report_set(-EINVAL) with "line L, column C: " in front. */
int graph_error(struct report *report, struct graph_place place, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
#endif
