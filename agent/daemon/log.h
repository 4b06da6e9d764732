/* Log lines of the daemons: on stderr, which is a file for those started by an agent. One
 * line per event: what, why, what happens next. Library code returns errors instead. */
#ifndef AQ_LOG_H
#define AQ_LOG_H
#include "core/env.h"

/* Who speaks ("aquifer-agent", "tapdisk web1"), and whose clock; both kept by reference. */
void log_start(struct env *env, const char *speaker);
/* The file `path` (copied), if that is what stderr is: when it is as large as LOG_BYTES_MAX the next line begins another, and it is PATH.1, which takes the place
 * of the one before. */
enum { LOG_BYTES_MAX = 1 << 20 };
void log_limit(const char *path);
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
#endif
