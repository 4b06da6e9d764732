/* What a daemon asks of the kernel for itself: signals as events, limits. */
#ifndef AQ_PROCESS_H
#define AQ_PROCESS_H
#include "core/env.h"

/* SIGTERM, SIGINT and SIGHUP (a terminal was closed; not below nohup) become calls of `on_signal`, from the loop. SIGPIPE is ignored. */
struct process_signals {
	struct env *env;
	int fd;
	bool active;
	void (*on_signal)(void *arg, int signal_number);
	void *arg;
	struct fd_watch watch;
	struct job job;
};
int process_signals_start(struct process_signals *s, struct env *env, void (*on_signal)(void *arg, int signal_number),
			  void *arg);
void process_signals_stop(struct process_signals *s); /* FIBER */
/* Blocks those signals; main calls it before there are threads, so that all inherit it. */
void process_signals_block(void);
#endif
