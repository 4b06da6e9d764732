/* Exports: where a graph meets a user. A driver per kind, one line each in exports/table.c. */
#ifndef AQ_EXPORT_H
#define AQ_EXPORT_H
#include "core/blk.h"

struct export;

struct export_how {
	const char *name;       /* the device's name */
	const char *address;    /* nbd: "unix:PATH" or "tcp:HOST:PORT"; NULL: the export's default below run_dir */
	const char *run_dir;    /* where sockets and mount points go; exists, 0700 */
	bool read_only;
	unsigned queue_depth;   /* 0: the export's default */
	void (*log)(const char *format, ...) __attribute__((format(printf, 1, 2))); /* what happens later and nobody asked for; may be NULL */
};

struct export_driver {
	const char *name;
	const char *summary;
	bool listens; /* takes an address to listen on */
	/* FIBER. Serves `node` (borrowed until close). Several exports may serve one node. */
	int (*open)(struct env *env, struct blk_node *node, const struct export_how *how,
		    struct export **ret_export, struct report *report);
	/* FIBER. Stops intake, ends what is in flight, lets go of the device. `force`: do not wait for users. Without
	 * force -EBUSY with a report that names the user, and the export goes on. */
	int (*close)(struct export *e, bool force, struct report *report);
	/* FIBER. The node's size has changed: make the device's so too. NULL: users see it when they ask. */
	int (*resized)(struct export *e, struct report *report);
	/* FIBER. Has the kernel write out, and forget, what it keeps of the device in memory: another host writes to what is below, or did. NULL: it keeps nothing. */
	int (*forget)(struct export *e, struct report *report);
	/* Removes the files that a process which died left in run_dir for this device. Never suspends. May be NULL. */
	void (*clean)(const char *run_dir, const char *name);
};

struct export {
	const struct export_driver *driver;
	struct env *env;
	struct blk_node *node;
	char name[64];
	char device[256]; /* what the user is told: a /dev path, an NBD URI … */
	uint64_t clients; /* connected now */
};

extern const struct export_driver export_nbd, export_loop;
/* NULL if there is none of that name. */
const struct export_driver *export_find(const char *name);
extern const struct export_driver *const export_table[]; /* sorted, ends with NULL */
#endif
