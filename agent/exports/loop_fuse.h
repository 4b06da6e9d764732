/* A FUSE connection that serves one block node as one file, which the kernel's loop driver
 * then reads and writes with direct I/O.
 *
 * The FUSE file system is never mounted anywhere: the mount object lives behind a file
 * descriptor until the loop device has opened the file, then only in the kernel. So df,
 * updatedb or a curious shell can't touch it, and there is nothing to unmount when this
 * process dies. See docs/decisions.md, "The loop export". */
#ifndef AQ_LOOP_FUSE_H
#define AQ_LOOP_FUSE_H
#include "core/blk.h"

struct loop_fuse;

struct loop_fuse_how {
	const char *name;   /* of the file; copied */
	bool read_only;
	unsigned depth;     /* requests under way at most; 0: LOOP_FUSE_DEPTH */
	void (*gone)(void *arg); /* the kernel ended the connection (somebody aborted it); may be NULL */
	void *arg;
};
#define LOOP_FUSE_DEPTH 128u /* what the loop driver has under way at most */
#define LOOP_FUSE_DEPTH_MAX 512u

/* Opens /dev/fuse and makes a detached mount of it. On success *ret_fd is the connection, *ret_mount
 * an O_PATH descriptor of its root; the caller closes both. Never blocks on the server's answers. */
int loop_fuse_mount(uint32_t transfer_max, int *ret_fd, int *ret_mount, struct report *report);
/* READ and WRITE sizes the node can take, bytes; 0 if it can take none that FUSE can live with. */
uint32_t loop_fuse_transfer_max(const struct blk_node *node);
/* The file's path below the mount; buffer of at least 80. */
void loop_fuse_path(const char *name, char *ret_path);

/* Serves `node` (borrowed) on `fd`, which it takes over also on failure. All memory is allocated here, none later. */
int loop_fuse_serve(struct env *env, struct blk_node *node, const struct loop_fuse_how *how, int fd,
		    struct loop_fuse **ret_fuse, struct report *report);
/* Lets go of the connection: whoever still uses the file gets errors from now on. */
void loop_fuse_cut(struct loop_fuse *f);
/* FIBER. Cuts, waits until the node has answered what is under way, frees. Accepts NULL. */
void loop_fuse_destroy(struct loop_fuse *f);
#endif
