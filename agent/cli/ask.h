/* Asking an agent: one call, one answer in JSON. */
#ifndef AQ_ASK_H
#define AQ_ASK_H
#include "agent/cli/cli.h"
#include "agent/daemon/client.h"

/* A message's strings aren't const, but nobody writes to them. NULL: "". */
static inline char *cli_text(const char *s) { return (char *)(uintptr_t)(s ? s : ""); }

/* FIBER. This host's agent does `call`; with `start` it is started if it isn't running, else that is -ENOTCONN. `waits`: what for, once the
 * agent has been reached. *ret_json is the caller's. */
int cli_ask_agent(struct cli *c, bool start, const struct client_call *call, const char *waits, json_t **ret_json);
/* The answer's text, which is freed, as JSON. */
int cli_answer(struct cli *c, char *text, json_t **ret_json);
#endif
