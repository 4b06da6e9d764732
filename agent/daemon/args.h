/* argp, with one line per mistake. */
#ifndef AQ_ARGS_H
#define AQ_ARGS_H
#include <argp.h>

#include "core/report.h"

/* Parses as argp_parse() does, but prints nothing and never exits: 0, or -EINVAL with a report that names the word and
 * the cure. A parser that has set the report itself returns EINVAL. --help is the caller's option. */
int args_parse(const struct argp *argp, int argc, char **argv, void *input, struct report *report);
/* --help or --version was printed: ends the program, with 1 and a line if it could not be written. */
void args_said(const char *program) __attribute__((noreturn));
#endif
