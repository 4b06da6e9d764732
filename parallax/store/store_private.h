/* What the store's operations share with the volume driver. */
#ifndef AQ_STORE_PRIVATE_H
#define AQ_STORE_PRIVATE_H
#include "core/config.h"
#include "parallax/store/store.h"
#include "parallax/volume/places.h"
#include "parallax/volume/volume.h"

/* What a name was when it was last looked up. A guess: whoever uses it reads the name along with what it names. */
struct store_guess {
	char name[STORE_NAME_BYTES];
	struct meta_name named;
};
enum { STORE_GUESSES = 16 };

struct store {
	struct env *env;
	struct places *places;
	struct catalog *catalog;
	store_forward *forward;
	void *forward_arg;
	char url[CONFIG_VALUE_BYTES]; /* the catalog's */
	char root[512];
	bool cluster; /* the catalog is one that several hosts share: what is kept on this one alone is no use to the others */
	struct store_guess guesses[STORE_GUESSES]; /* in turn */
	unsigned next_guess;
};

/* An owner record as it was a moment ago; status -ENOENT: it wasn't there. */
struct store_seen {
	int status;
	struct meta_owner owner;
};

/* Which snapshot. */
struct store_mark {
	uint64_t volume, mark;
};

/* What is said of the health of a volume that is just being made. */
#define STORE_IMPORTING "it is being imported"

/* All names, and what has them. */
struct store_names {
	struct store_named {
		char name[STORE_NAME_BYTES];
		struct meta_name named;
	} *entries; /* malloc'd */
	size_t count;
};

/* store.c: all FIBER; 0 or -errno with a report, as in what follows. -ENOENT: no such volume or snapshot. */
int store_find_name(struct catalog *c, const char *name, struct meta_name *ret, uint64_t *ret_revision, struct report *report);
int store_find_volume(struct places *p, const char *name, uint64_t *ret_volume, struct report *report);
int store_find_snapshot(struct places *p, const char *name, const char *snapshot, uint64_t *ret_volume, uint64_t *ret_mark,
			struct report *report);
/* The same, of what has a name; and that volume's owner record, which may not be that of the snapshot's. */
int store_find_named(struct places *p, const struct meta_name *m, const char *name, const char *snapshot, struct store_mark *ret, struct store_seen *ret_seen,
		     struct report *report);
/* A volume that has no such snapshot, and its owner record; -EEXIST: it has. One read of the catalog, if the name is what it was at the last call. */
int store_find_unmarked(struct store *s, const char *name, const char *snapshot, uint64_t *ret_volume, struct store_seen *ret_seen, struct report *report);
/* Waits until the snapshot has its root; opens the volume itself if its owner is dead. `s` may be NULL. */
int store_want_root(struct places *p, uint64_t volume, uint64_t mark, struct store *s, struct report *report);
/* Who has the volume attached: true, and its record. A command that has it for maintenance is waited for, up to VOLUME_MAINTENANCE_MS. */
bool store_holder(struct places *p, uint64_t volume, struct meta_owner *ret_owner);
/* Who has the volume attached, and could be asked; and can be asked by this store; -ENXIO: nobody has it. `seen` (NULL: nothing) spares the first look. */
int store_look_for_holder(struct store *s, const char *name, uint64_t volume, struct store_holder *ret_holder, struct report *report);
int store_find_holder(struct store *s, const char *name, uint64_t volume, const struct store_seen *seen, struct store_holder *ret_holder, struct report *report);
/* Asks the live holder of a volume; -ENXIO: nobody has it. `args` ends with NULL. */
int store_ask_holder(struct store *s, const char *name, uint64_t volume, const char *verb, const char *const *args,
		     struct report *report);
int store_ask_holder_seen(struct store *s, const char *name, uint64_t volume, const struct store_seen *seen, const char *verb, const char *const *args,
			  struct report *report);
/* -EBUSY if a device has it, also one on another host whose lease has run out. Maintenance is waited for. The first by what the catalog says now. */
int store_refuse_held(struct places *p, uint64_t volume, struct report *report);
int store_refuse_owner(struct places *p, uint64_t volume, const struct meta_owner *owner, struct report *report);
/* Opens an idle volume for maintenance; -EBUSY if a device has it, as above. */
int store_maintain(struct places *p, uint64_t volume, struct volume **ret_volume, struct report *report);
/* Of a volume that couldn't be opened for maintenance, for somebody has it, though nobody had it a moment ago: can he be asked by now, or has he let go of it? Not if
 * he is one whose lease has run out, and not after some seconds since `began_ns`. */
bool store_passes(struct places *p, uint64_t volume, uint64_t began_ns);
/* Has its holder do that; where there is none, opens it, and *ret_volume, else NULL, is the caller's to do it with. It may be being attached or detached: then
 * both are tried again. */
int store_ask_or_maintain(struct store *s, const char *name, uint64_t volume, const struct store_seen *seen, const char *verb, const char *const *args,
			  struct volume **ret_volume, struct report *report);
/* FIBER. After a compare failed: had an attempt of ours of unknown outcome made the volume? 0: yes; -EAGAIN: no; -ETIMEDOUT: not known. */
int store_was_made(struct store *s, uint64_t id, const uuid *volume);
/* Says what a transaction ended with. `changed`: what it means that a compare failed. */
int store_txn_report(struct store *s, int status, const char *changed, struct report *report);
/* Calls `entry` for each snapshot of a volume, oldest first. */
int store_each_snapshot(struct catalog *c, uint64_t volume, int (*entry)(void *arg, const struct meta_snapshot *m), void *arg);
/* A transaction that is repeated while its outcome is unknown; -EAGAIN when a compare fails. Not for owners (publish.c). */
int store_txn(struct catalog *c, const struct catalog_txn *t);
/* FIBER. What a name is now, asked until it is known: after a compare that failed it tells whether an attempt of unknown outcome had
 * arrived. -ENOENT: there is no such volume. */
int store_get_name(struct catalog *c, const char *name, struct meta_name *ret);

/* store_list.c */
int store_names_read(struct store *s, struct store_names *ret, struct report *report);
struct volume_status;
/* What the live holder of a volume says of itself; if it waits for nothing, it has published what was written up to now. -ENXIO: nobody
 * has it; other: it can't be asked. */
int store_holder_fresh(struct store *s, const char *name, uint64_t volume, struct volume_status *ret);
/* store_status.c: one more line about what isn't as it should be. */
struct store_status;
int store_status_problem(struct store_status *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* store_status_catalog.c: asks each etcd. */
int store_status_members(struct env *env, const char *root, const char *catalog_url, struct store_status *t, struct report *report);

/* store_make.c: writes a new volume's keys and its name, which must be free (-EEXIST), and takes its numbers, in one transaction. What log says of them is
 * filled; for a clone, which has parent_volume and parent_mark, all but the name is. Its hold on the snapshot is in the same transaction,
 * which compares that the snapshot is live (R23): -ENOENT if it isn't. `import`: as of store_create(). */
int store_make(struct store *s, const char *name, struct meta_log *log, const char *import, struct report *report);
int store_too_deep(struct report *report); /* -EMLINK */
/* What a clone begins with, as its parent and the snapshot are. */
void store_clone_fill(struct store *s, uint64_t id, uint64_t border, const struct meta_log *parent, const struct meta_snapshot *m, struct meta_log *log);
/* Adds to a transaction that creates a clone what holds its snapshot, whose record has that revision. `keys`: room for two, until the transaction's end. */
void store_hold_snapshot(uint64_t clone, const struct meta_log *log, uint64_t revision, struct catalog_txn *t, char (*keys)[META_KEY_BYTES]);
/* store_volume.c: a new one; `import` (NULL: none): what its key import/V says, see store_import.c. */
int store_create(struct store *s, const char *name, const struct store_volume_options *options, const char *import, struct report *report);
/* A name becomes another one, if it still has that revision; `also` (NULL: none): a key that goes with it. */
int store_move_name(struct store *s, const char *from, const char *to, const struct meta_name *named, uint64_t revision, const char *also,
		    struct report *report);
/* store_import.c */
void store_import_key(uint64_t volume, char ret_key[META_KEY_BYTES]);
/* Is it the unfinished volume of an import? */
bool store_importing(struct store *s, uint64_t volume, const char *name);
/* store_group.c: store_snapshot_create() of several volumes. */
int store_group_create(struct store *s, const char *const *names, unsigned count, struct report *report);

/* store_doom.c: the name goes and the state is doomed at once; space comes later (R25). One that is gone is no error. */
int store_doom_snapshot(struct store *s, uint64_t volume, uint64_t mark);
int store_doom_snapshots(struct store *s, const struct store_mark *of, size_t count);
int store_doom_all(struct store *s, const struct store_mark *of, size_t count); /* all are of one volume, of which all is to be looked at then */
/* store_reap.c: 1: the volume is there for nobody any more: no snapshot of it is left that has a name, and nothing began as one. 0 or -errno. */
int store_forsaken(struct store *s, uint64_t volume, const struct meta_log *log);
/* store_space.c: what deleting a volume's snapshots would free, as of its last checkpoint. */
struct store_space;
int store_space_open(struct store *s, uint64_t volume, struct store_space **ret, struct report *report);
void store_space_close(struct store_space *p); /* accepts NULL */
int store_space_snapshot(struct store_space *p, uint64_t mark_seq, uint64_t *ret_bytes);
#endif
