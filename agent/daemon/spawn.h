/* Starting a daemon and hearing from it, once, whether it is up.
 *
 * The child gets descriptor 3, the write end of a pipe, closed on exec of anything it starts
 * itself. It says "good" and a text (JSON), or "bad", a -errno and one sentence; then closes it.
 * An end without a word means that it died; the last line of its log then says why, maybe.
 * A child that finds nobody listening any more (EPIPE) ends: nobody was told of its devices. */
#ifndef AQ_SPAWN_H
#define AQ_SPAWN_H
#include <sys/types.h>

#include "core/env.h"
#include "core/report.h"

#define SPAWN_READY_FD 3
#define SPAWN_READY_MAX (256 << 10)

/* Runs argv[0] in a session of its own, without our descriptors; stdout and stderr go to the end of `log`. 0 with
 * *ret_pid and *ret_ready (the caller's), or -errno with a report. The process survives its parent. */
int spawn_daemon(char *const *argv, const char *log, pid_t *ret_pid, int *ret_ready, struct report *report);
/* FIBER. Waits for the child's word. 0 with *ret_text (malloc'd); what the child said is wrong, with its sentence;
 * -ECHILD: it died without a word; -ETIMEDOUT. Doesn't close `ready`. */
int spawn_wait(struct env *env, int ready, uint64_t timeout_ns, char **ret_text, struct report *report);
/* The last line of a log, for the report of a death; "" if there is none. */
void spawn_last_line(const char *log, char *ret, size_t room);

/* The child's side; `fd` < 0: nobody waits. Closes it. 0, or -EPIPE: nobody listens any more. */
int ready_good(int fd, const char *text);
void ready_bad(int fd, int status, const char *sentence);
#endif
