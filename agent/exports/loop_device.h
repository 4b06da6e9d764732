/* The kernel's loop device. All of these block and are not for a loop's thread, because the kernel may
 * ask the FUSE file, which that thread serves, before they return. Each returns 0 or -errno. */
#ifndef AQ_LOOP_DEVICE_H
#define AQ_LOOP_DEVICE_H
#include <stdbool.h>
#include <stdint.h>

#include "core/report.h"

struct loop_device {
	char path[32];   /* "/dev/loop3" */
	int hold;        /* a socket that holds the device open, see loop_device.c; -1: none */
	uint64_t backing_dev; /* st_dev of the file behind it */
};

struct loop_bind {
	int file;            /* borrowed; the loop driver takes a reference of its own */
	const char *name;    /* shown by losetup */
	uint32_t block_size; /* 512 … 4096 */
	uint64_t size;       /* bytes, for the check that all of it came through */
	bool read_only;
	bool rotational;
};

/* A free loop device over the file, with direct I/O really on, that the kernel frees at its last
 * close. On failure nothing is left behind. */
int loop_device_bind(const struct loop_bind *how, struct loop_device *ret_device, struct report *report);
/* The served file (a descriptor, O_PATH will do) has another size now: so has the device afterwards. */
int loop_device_resize(const struct loop_device *device, int file, uint64_t size, struct report *report);
/* Writes out what is in its page cache, and drops it. What can't be written is lost, as the kernel does it: users hear of that when they sync. */
int loop_device_forget(const struct loop_device *device, struct report *report);
/* Lets go. Without `force`: writes out what is in the page cache, then -EBUSY with a report that names
 * the user if there is one, and the device goes on. With it: the kernel frees the device at its last close. */
int loop_device_release(struct loop_device *device, bool force, struct report *report);

/* For whoever finds a tapdisk hung (the agent's detach --force): ends the FUSE connection behind a loop device, so that I/O that
 * hangs fails, and so does all that follows. Also when the server is stopped. -ENOENT if it has ended already. */
int loop_connection_abort(const char *device, struct report *report);
#endif
