/* What a tapdisk says of itself in its run directory, so that an agent that starts later finds
 * and knows it. The file is JSON and replaced as a whole; it is believed only while the
 * directory's lock is held and the process it names began when the file says, so that
 * whatever is left in /run after kill -9 or a power cut is harmless.
 *
 *     ROOT/run/aquifer/tapdisks/NAME/lock       held (an OFD lock) by the tapdisk all its life; its mtime, on the monotonic clock,
 *                                               is when the tapdisk last said that its loop runs, each second
 *                                   /status     this, written when the devices are up
 *                                   /control.sock, /log
 *                                   /trouble    what is wrong with its graph, while it is
 *                                   /condition  the state it is in instead of serving, while it is
 *                                   /died       why it ended, written by the agent that saw it */
#ifndef AQ_STATE_H
#define AQ_STATE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/link.h"
#include "core/report.h"

enum { STATE_DEVICES_MAX = 64, STATE_FILE_MAX = 256 << 10, STATE_GRAPH_MAX = 64 << 10 };

struct tap_device {
	char name[64];
	char export[16];   /* nbd, loop … */
	char device[256];  /* what the user is told */
	char node[64];     /* the node that is exported */
	bool unwanted;     /* the agent's, not in the text: somebody asked by force that it goes */
};

struct tap_state {
	pid_t pid;
	uint64_t start_ticks;  /* of the process, as /proc/PID/stat has it: with the pid it names a process for good */
	char boot_id[37];
	char name[64];
	bool read_only;
	char *graph;           /* canonical text; malloc'd */
	unsigned device_count;
	struct tap_device device[STATE_DEVICES_MAX];
};

void tap_state_free(struct tap_state *s); /* what it owns, not itself */
/* JSON text, malloc'd; NULL without memory. */
char *tap_state_encode(const struct tap_state *s);
/* 0, or -EBADMSG with a report; everything is checked, also the names. */
int tap_state_decode(const char *text, size_t length, struct tap_state *ret_state, struct report *report);

/* Small files of the run directory: read whole (malloc'd, with a NUL; -EFBIG above `max`), replaced whole. */
int state_file_read(const char *path, size_t max, char **ret_text, size_t *ret_length);
int state_file_write(const char *path, const char *text, size_t length);

/* A tapdisk says at `now_ns` (env_now_ns(), one clock for all processes of a host) that its loop runs; how long it hasn't, 0: not known, as of
 * one that is of an older version, or has just begun. Neither waits for the tapdisk. */
void state_beat(int lock_fd, uint64_t now_ns);
uint64_t state_silence_ns(const char *directory, uint64_t now_ns);
/* Stopped by a signal, or by a debugger. */
bool process_is_stopped(pid_t pid);
/* Has it been killed, and is only still ending? Freeing what it had may take a moment. */
bool process_is_ending(pid_t pid);

/* Makes, opens and locks a file for the life of the process. As state_lock(). */
int state_lock_file(const char *path, int *ret_fd, struct report *report);
/* Opens and locks DIR/lock. 0 with *ret_fd (close-on-exec); -EBUSY: a live process has it. */
int state_lock(const char *directory, int *ret_fd, struct report *report);
/* Is the file, or DIR/lock, held by a live process? */
bool state_file_locked(const char *path);
bool state_locked(const char *directory);
#endif
