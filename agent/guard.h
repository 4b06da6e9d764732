/* What a process must arrange for before the kernel's memory management may depend on it: a
 * tapdisk under a block device is asked to write pages out exactly when memory is short. */
#ifndef AQ_GUARD_H
#define AQ_GUARD_H
#include "core/report.h"

/* Call at the start of main, before any thread exists (threads inherit the I/O-flusher flag). Harmless
 * to call again. Always goes on: `note` (may be NULL) says what could not be had, and how to get it. */
void guard_process(struct report *note);
#endif
