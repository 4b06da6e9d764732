/* Says in the log when the space of a data directory is used up to one of several parts, and when it isn't any more; and when its segments aren't found any more. */
#ifndef AQ_WATCH_H
#define AQ_WATCH_H
#include "parallax/store/store_status.h"

struct watch;
/* FIBER. `log` gets a line without its end. Borrows `dir` until watch_stop(). */
int watch_start(struct env *env, struct segment_server *dir, const struct store_warn *warn, void (*log)(void *arg, const char *text), void *arg,
		struct watch **ret);
void watch_stop(struct watch *w); /* FIBER; accepts NULL */
#endif
