/* What the files of the simulated disk share: env_sim_disk.c (files, durability, faults) and env_sim_dirs.c (names). */
#ifndef AQ_ENV_SIM_DISK_H
#define AQ_ENV_SIM_DISK_H
#include "core/env_sim_world.h"

struct entry {
	char *name;
	struct inode *inode;
};
struct entries { /* sorted by name; each counts its inode */
	struct entry *list;
	size_t count, room;
};

struct inode {
	uint64_t number;
	bool directory;
	bool unlinked;          /* no process can open it any more (a power loss may bring it back) */
	unsigned open;          /* by processes */
	unsigned refs;          /* entries, logged directory operations, open files */
	struct link link;       /* host.inodes */
	struct sim_host *host;
	struct image now, durable;
	struct link log;        /* disk_op, oldest first */
	uint64_t log_seq;       /* of the last completed operation */
	bool failing;           /* a sync error that stays, until it is closed */
	bool diverged;          /* a failed sync left bytes readable that will never be durable */
	struct entries entries_now, entries_durable;
	struct link lockers;    /* sim_file.lock_link */
};

enum disk_op_kind { OP_WRITE, OP_PUNCH, OP_TRUNCATE };
struct disk_op {
	struct link link;
	enum disk_op_kind kind;
	uint64_t seq, offset, length;
	uint8_t data[];
};

enum dir_op_kind { DIR_LINK, DIR_UNLINK, DIR_RENAME };
struct dir_op {
	struct link link;
	enum dir_op_kind kind;
	struct inode *dir, *to_dir, *inode; /* counted; to_dir only for RENAME */
	char *name, *to_name;
	bool chosen;           /* becomes durable */
};

struct sim_file {
	struct file file; /* first */
	struct sim_process *process;
	struct inode *inode;
	struct link link, lock_link;
	bool writable, direct, exclusive;
	unsigned under_way;
};

/* A system call that changes names: happens before or after the time it takes. */
struct call {
	struct sim_process *process;
	bool late;
};

/* env_sim_disk.c: inodes. Each entry, logged change and open file counts one. */
struct inode *inode_new(struct sim_host *h, bool directory);
void inode_drop(struct inode *n);
void inode_release(struct inode *n);
void dir_op_free(struct dir_op *op);

/* env_sim_dirs.c: lists of entries; `put` replaces what has this name. */
struct inode *entries_get(const struct entries *e, const char *name);
void entries_remove(struct entries *e, const char *name);
void entries_put(struct entries *e, const char *name, struct inode *n);
void entries_free(struct entries *e);
void entries_copy(struct entries *to, const struct entries *from);

/* Finds the directory that holds the last component, and that component (at most 255 bytes; "" for the root). */
int path_parent(struct sim_host *h, const char *path, struct inode **ret_dir, char ret_name[256]);
int path_find(struct sim_host *h, const char *path, struct inode **ret_inode);
/* A new name, logged until its directory is synced; and what a logged change makes durable. */
void dir_link(struct sim_host *h, struct inode *dir, const char *name, struct inode *n);
/* Makes the chosen changes durable, and those they stand on. */
void dir_ops_apply(struct sim_host *h);
/* Around the change itself. -ESHUTDOWN if the process died. */
int sim_call_begin(struct call *c, struct env *env);
int sim_call_end(struct call *c, int status);
#endif
