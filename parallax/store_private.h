/* What the store's operations share with the volume driver. */
#ifndef AQ_STORE_PRIVATE_H
#define AQ_STORE_PRIVATE_H
#include "parallax/places.h"
#include "parallax/store.h"
#include "parallax/volume.h"

struct store {
	struct env *env;
	struct places *places;
	struct catalog *catalog;
	store_forward *forward;
	void *forward_arg;
};

/* All FIBER; 0 or -errno with a report. -ENOENT: no such volume or snapshot. */
int store_find_volume(struct places *p, const char *name, uint64_t *ret_volume, struct report *report);
int store_find_snapshot(struct places *p, const char *name, const char *snapshot, uint64_t *ret_volume, uint64_t *ret_mark,
			struct report *report);
/* Waits until the snapshot has its root; opens the volume itself if its owner is dead. `s` may be NULL. */
int store_want_root(struct places *p, uint64_t volume, uint64_t mark, struct store *s, struct report *report);

/* Asks the live holder of a volume; -ENXIO: nobody has it. `args` ends with NULL. */
int store_ask_holder(struct store *s, const char *name, uint64_t volume, const char *verb, const char *const *args,
		     struct report *report);
/* Opens an idle volume for maintenance; -EBUSY if somebody has it. */
int store_maintain(struct places *p, uint64_t volume, struct volume **ret_volume, struct report *report);
/* Frees what can be freed of a volume: doomed snapshots nobody holds, and all of it if it is doomed itself and nobody holds
 * any of it; then its parent's, if that waited for it. What can't be done now is left for later: never an error. */
void store_reap(struct store *s, uint64_t volume);

int store_doom_snapshot(struct store *s, uint64_t volume, uint64_t mark);
/* One clone more or less. -ENOENT: it is doomed. */
int store_hold_snapshot(struct store *s, uint64_t volume, uint64_t mark, int by);
/* Writes a new volume's keys and its name, which must be free (-EEXIST). */
int store_create_keys(struct store *s, uint64_t id, const struct meta_log *log, const char *name, struct report *report);

/* One change of one value, read, changed and compared again until it fits: `change` returns 0, or -errno to give up. */
int store_change_snapshot(struct catalog *c, uint64_t volume, uint64_t mark, int (*change)(void *arg, struct meta_snapshot *m),
			  void *arg);
/* Calls `entry` for each snapshot of a volume, oldest first. */
int store_each_snapshot(struct catalog *c, uint64_t volume, int (*entry)(void *arg, const struct meta_snapshot *m), void *arg);
/* A transaction that is repeated while its outcome is unknown; -EAGAIN when a compare fails. Not for owners (publish.c). */
int store_txn(struct catalog *c, const struct catalog_txn *t);
#endif
