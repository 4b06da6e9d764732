/* What a tool of tests/tools reads and writes: a file, a block device, or, for a path that begins with "nbd" and holds
 * "://", an NBD server, through libnbd. Every call blocks and returns 0, or -1 with errno set. A target is used by one
 * thread at a time; several may have the same path open. */
#ifndef TOOLS_TARGET_H
#define TOOLS_TARGET_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct target;

struct target_options {
	bool buffered; /* through the page cache instead of O_DIRECT; means nothing over NBD */
	bool read_only;
};

int target_open(const char *path, const struct target_options *options, struct target **ret_target);
void target_close(struct target *t); /* NULL is fine */

/* The size, and the least that can be written: 512, or a device's logical block size, or an NBD server's minimum. */
int target_measure(struct target *t, uint64_t *ret_bytes, uint32_t *ret_sector);

int target_read(struct target *t, void *to, size_t bytes, uint64_t offset);
int target_write(struct target *t, const void *from, size_t bytes, uint64_t offset);
int target_flush(struct target *t);
int target_zero(struct target *t, size_t bytes, uint64_t offset);
int target_discard(struct target *t, size_t bytes, uint64_t offset);
/* The sentence behind the last failure of this thread, over NBD; else what errno says. */
const char *target_error(const struct target *t);
#endif
