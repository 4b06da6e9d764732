/* The store, as commands open it. */
#ifndef AQ_STORE_CLI_H
#define AQ_STORE_CLI_H
#include "agent/cli/cli.h"
#include "parallax/store/store.h"

/* FIBER. Opens the store of c->root; what a holder must do is asked of its tapdisk. -ENOENT without a store. */
int cli_store_open(struct cli *c, bool create, struct store **ret_store);
/* FIBER. By the agent of c->root, if there is one that has the catalog open: a catalog on etcd takes a command longer to open than to use. `verb` with the
 * command's arguments. -EOPNOTSUPP, without a report: it can't do it, and nothing was done. */
int cli_store_by_agent(struct cli *c, const char *verb);
/* FIBER. Closes it and returns `r`, or the first error of closing. */
int cli_store_close(struct cli *c, struct store *s, int r);

/* What a command that lists things prints: a table, or with --json an array. One of them is NULL. */
struct listing {
	struct table *table;
	json_t *json;
};
/* FIBER. Opens the store and begins the list. -ENOENT without a store: then there is nothing to list, and cli_list_empty() says so. */
int cli_list_begin(struct cli *c, const char *const *headings, struct listing *l, struct store **ret_store);
int cli_list_empty(struct cli *c); /* returns 0 */
/* FIBER. Closes the store and prints the list; as JSON only if `r` is 0. Returns as cli_store_close() does. */
int cli_list_end(struct cli *c, struct listing *l, struct store *s, int r);
#endif
