/* How much memory is left for one more process, before the kernel would have to kill one for it. A tapdisk's memory is locked, and
 * killing one is an I/O error for whoever uses its device: one too many is refused instead. */
#ifndef AQ_MEMORY_H
#define AQ_MEMORY_H
#include <stdint.h>

#include "agent/graph/graph.h"

/* Bytes: the least of what the host has available, what each memory cgroup that this process is in has left (of both versions), and what a
 * process may map (RLIMIT_AS). `proc` and `cgroup`: where those file systems are. UINT64_MAX: there is no limit to be seen. */
uint64_t memory_room(const char *proc, const char *cgroup);
/* What the tapdisk of a checked graph may come to need. */
uint64_t memory_need(const struct graph *g);
#endif
