/* Where a host's store is: the catalog, and beside it the directories of embedded volumes and the locks.
 *
 *   DIR/catalog.db          (DIR is var/lib/aquifer below the root, or where the catalog's file is)
 *   DIR/volumes/<id>/       one data directory per embedded volume (R34)
 *   DIR/locks/<id>          held by who has a volume on servers attached, on this host
 *   DIR/locks/<id>-<mark>   shared: held by who reads a snapshot; the kernel lets go when they die */
#ifndef AQ_PLACES_H
#define AQ_PLACES_H
#include "parallax/copies/sources.h"

struct places {
	struct env *env;
	struct catalog *catalog;
	char dir[512];
	char host[64], domain[64], boot[META_BOOT_BYTES];
	struct volume_places ops;
	struct access_keeper *keeper; /* of env->identity */
};

/* FIBER. `catalog_url` NULL: as configured. `create`: make the store if there is none; otherwise -ENOENT. */
int places_open(struct env *env, const char *root, const char *catalog_url, bool create, struct places **ret_places,
		struct report *report);
/* FIBER. Makes a directory and those above it. */
int places_make_dirs(struct env *env, const char *dir);
void places_close(struct places *p); /* FIBER; accepts NULL */
/* FIBER. Removes an embedded volume's directory; -EBUSY while somebody has it. */
int places_remove_embedded(struct places *p, uint64_t volume, struct report *report);
/* FIBER. Is an embedded volume's directory on this host? */
bool places_embedded_here(struct places *p, uint64_t volume);
/* Where that is. */
void places_embedded_path(const struct places *p, uint64_t volume, char *ret_path, size_t bytes);
/* FIBER. The ids of the segments in it, whoever has it. -ENOENT: it isn't there. */
int places_embedded_ids(struct places *p, uint64_t volume, int (*entry)(void *arg, uint64_t segment), void *arg);
/* What keeps a snapshot's blocks while it is read: a lock that this host's owners look at, and a key with a lease for those of
 * others. Of zeroes: nothing. */
struct snapshot_hold {
	struct file *file;
	struct catalog_lease *lease; /* NULL: the engine has none, so there are no others */
};
/* FIBER. Holds a snapshot for reading. Only then look whether it is live: one that was doomed before may be taken apart all the same.
 * On failure, too, let go. */
int places_hold_snapshot(struct places *p, uint64_t volume, uint64_t mark_seq, struct snapshot_hold *ret_hold);
void places_let_go(struct places *p, struct snapshot_hold *h); /* FIBER */
/* Is the holder on another host, or on another machine of this name, and does its lease say that it lives, as far as is known? It may also be this machine before
 * it started anew, until the lease has run out. */
bool places_held_elsewhere(struct places *p, const struct meta_owner *owner);
bool places_holder_alive(struct places *p, const struct meta_owner *owner);
/* FIBER. Where there are no leases: a process of another container of this kernel can't be looked for, but the volume's lock, which it has, can. */
bool places_held_contained(struct places *p, uint64_t volume, const struct meta_owner *owner);
/* Is it held by a device on another host, or offered to one there, whether its lease says that it lives or not? One whose lease has run out may have lost only the catalog. */
bool places_attached_elsewhere(const struct places *p, const struct meta_owner *owner);

/* places_process.c: processes that records in the catalog name. */
/* When process `pid` began, in clock ticks since boot: who has its number later began later. 0 or -ESRCH. */
int process_start_ticks(pid_t pid, uint64_t *ret_ticks);
/* FIBER. Is the process that an owner record names alive on this host? Not if the machine has started anew since, nor if it is another one that is called so. */
bool places_owner_alive(struct env *env, const struct meta_owner *owner);
/* Do pids in a record with these say nothing here? It is another machine's, or container's, or this one's before it started anew. */
bool places_pids_foreign(struct env *env, const char *boot, uint64_t pids);
/* FIBER. Kills it, which is safe for volumes (R36), and quick. -ESRCH: it isn't there, or isn't that one. */
int places_owner_kill(struct env *env, const struct meta_owner *owner);
#endif
