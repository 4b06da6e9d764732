/* Who uses a block device or one of its partitions: for the refusal to take it away. */
#ifndef AQ_USERS_H
#define AQ_USERS_H
#include <stdbool.h>
#include <stddef.h>

struct block_users {
	unsigned count;     /* mounts, holders and open descriptors found; 0: none that can be seen */
	bool only_probing;  /* all of them are udev or blkid, which leave by themselves */
	char text[400];     /* "mounted at /mnt/a, open by qemu-img (pid 12), …": the first few */
};

/* Blocks (reads all of /proc): not for a loop's thread. Sees other mount namespaces and other users' processes only as
 * root. The calling process itself doesn't count. `device` is a path; returns 0 or -errno if it is no block device. */
int block_users(const char *device, struct block_users *ret_users);
#endif
