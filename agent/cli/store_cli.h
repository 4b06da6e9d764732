/* The store, as commands open it. */
#ifndef AQ_STORE_CLI_H
#define AQ_STORE_CLI_H
#include "agent/cli/cli.h"
#include "parallax/store.h"

/* FIBER. Opens the store of c->root; what a holder must do is asked of its tapdisk. -ENOENT without a store. */
int cli_store_open(struct cli *c, bool create, struct store **ret_store);
/* FIBER. Closes it and returns `r`, or the first error of closing. */
int cli_store_close(struct cli *c, struct store *s, int r);
#endif
