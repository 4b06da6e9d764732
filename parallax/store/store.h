/* What one can do to the volumes of a store from outside: the commands `volume`, `snapshot`,
 * `clone` and `diff` in one header. The volume driver (parallax/store/volume_driver.c) serves I/O; this
 * is everything else.
 *
 * A volume that is attached somewhere is its holder's: what changes such a volume (mark a
 * snapshot, resize) is asked of the holder. The store finds out whether there is a live holder
 * and calls store_options.forward, which knows how to reach a tapdisk's control socket; what
 * only touches the catalog (list, clone, delete a snapshot, rename) it does itself.
 *
 * All functions are FIBER unless said otherwise; they return 0 or -errno with a report. */
#ifndef AQ_STORE_H
#define AQ_STORE_H
#include <stdbool.h>
#include <stdint.h>

#include "core/env.h"
#include "core/report.h"

enum {
	STORE_NAME_BYTES = 64,            /* a name of name_valid() and a NUL */
	STORE_SNAPSHOT_NAME_BYTES = 128,  /* VOLUME@SNAP */
	STORE_PARENT_BYTES = STORE_SNAPSHOT_NAME_BYTES + 16,
	STORE_HOLDER_BYTES = 192,
	STORE_CONTROL_BYTES = 768,        /* a path below a root of up to 512 bytes */
	STORE_REPLICAS_MAX = 3,           /* copies of a segment */
	STORE_GROUP_MAX = 30,             /* volumes in one `snapshot create`, R5 */
};
#define STORE_VOLUME_BYTES_MAX (UINT64_C(64) << 40)

/* A host's agent, where another host reaches it. */
struct store_agent {
	char host[64], address[256], version[32];
	uint32_t protocol;         /* the newest version that it speaks */
	uint8_t token[16];         /* to be shown with each call */
	uint64_t since_ns;         /* since 1970: when it started */
	bool alive;                /* as far as is known */
};

/* Who has a volume open for writing, as the catalog says. */
struct store_holder {
	char text[STORE_HOLDER_BYTES];     /* for people: "device web1 (tapdisk pid 812) on host a" */
	char control[STORE_CONTROL_BYTES]; /* its control socket: "unix:/run/…"; "" if it can't be asked */
	char volume[STORE_NAME_BYTES];     /* the volume's name, now */
	bool elsewhere;                    /* on another host: it is asked by way of that host's agent, */
	struct store_agent agent;          /* this one */
};

/* Asks the holder of an attached volume to do `verb` (blk_driver.control of the volume's node). FIBER; several may be under
 * way at once. `deadline_ns`: then it ends with -ETIMEDOUT, done or not; 0: when whoever implements it thinks right. */
typedef int store_forward(void *arg, const struct store_holder *holder, const char *verb, const char *const *args,
			  uint64_t deadline_ns, char **ret_json, struct report *report);

struct store_options {
	const char *root;           /* AQUIFER_ROOT, "" if none */
	const char *catalog_url;    /* NULL: etc/aquifer/aquifer.conf, else the embedded store below var/lib/aquifer */
	bool create;                /* make the store if there is none; without it -ENOENT */
	store_forward *forward;     /* NULL: operations on attached volumes fail with -EBUSY, naming the holder */
	void *forward_arg;
};

struct store;
int store_open(struct env *env, const struct store_options *options, struct store **ret_store,
	       struct report *report);
int store_close(struct store *s); /* accepts NULL */

/* ---- volumes ---- */

enum store_state { STORE_FREE, STORE_HELD, STORE_OFFERED };
static inline const char *store_state_name(enum store_state s)
{
	return s == STORE_FREE ? "free" : s == STORE_HELD ? "attached" : "offered";
}

struct store_volume {
	char name[STORE_NAME_BYTES];
	char parent[STORE_PARENT_BYTES]; /* clone of, as that is called now; "… (deleted)" if it only lives on for its clones; "" if none */
	uint64_t id;
	uint64_t size_bytes;
	uint64_t used_bytes;       /* reachable from its head, shared or not */
	uint64_t exclusive_bytes;  /* freed if it and its snapshots were deleted, but for what its clones need; with what only it keeps of: */
	uint64_t kept_bytes;       /* deleted volumes that it was cloned from, perhaps for other clones, too */
	uint64_t snapshot_bytes;   /* kept only by its snapshots and their clones; of what it was before a rollback, all */
	uint64_t table_bytes;      /* its space table, see volume_table_long() */
	uint64_t epoch;
	uint32_t replicas, min_replicas;
	uint32_t io_timeout_ms;    /* 0: requests wait for ever */
	uint32_t snapshot_count;
	uint64_t created_ns;       /* since 1970 */
	bool embedded;             /* its data is in a directory of this host, beside the catalog; else on a server */
	enum store_state state;
	bool lapsed;               /* its holder, on another host, hasn't renewed its lease */
	struct store_holder holder;
	char health[320];          /* "good", or one clause about what is wrong */
};

struct store_volume_options {
	uint64_t size_bytes;       /* a multiple of 4096 */
	uint32_t replicas;         /* 0: default */
	uint32_t min_replicas;     /* 0: default */
	uint32_t io_timeout_ms;    /* requests that can't reach what they need end with -EIO after so long; 0: they wait for ever */
};
/* "forever", or a number with ms, s, m, h or d: from 1s to 7d. -EINVAL with a report. */
int store_parse_io_timeout(const char *text, uint32_t *ret_ms, struct report *report);
void store_io_timeout_text(uint32_t ms, char ret_text[24]);

int store_volume_create(struct store *s, const char *name, const struct store_volume_options *options,
			struct report *report);
/* In order of names. A non-zero result of `entry` ends and is returned. */
int store_volume_list(struct store *s, int (*entry)(void *arg, const struct store_volume *v), void *arg,
		      struct report *report);
int store_volume_show(struct store *s, const char *name, struct store_volume *ret_volume, struct report *report);
/* The only key is io-timeout. Attached: it holds at once, also for requests that wait already. */
int store_volume_set(struct store *s, const char *name, const char *key, const char *value, struct report *report);
/* -EINVAL if it would shrink and `force` is false. Attached: the guest sees the new size. */
int store_volume_resize(struct store *s, const char *name, uint64_t size_bytes, bool force, struct report *report);
int store_volume_rename(struct store *s, const char *from, const char *to, struct report *report);
/* -EBUSY while attached; -ENOTEMPTY with snapshots, unless `with_snapshots`. */
int store_volume_delete(struct store *s, const char *name, bool with_snapshots, struct report *report);

/* ---- imports ---- */

/* An import grows under a name of its own, NAME.import-…, and gets NAME when it is complete. What imports that were killed on this
 * host left is deleted when the next one begins. *ret_temporary is what to open. -EEXIST: there is a volume `name`. */
int store_import_begin(struct store *s, const char *name, const struct store_volume_options *options,
		       char ret_temporary[STORE_NAME_BYTES], struct report *report);
/* All of it is written and flushed: it gets its name. It may still be open. -EEXIST: the name was taken meanwhile. */
int store_import_end(struct store *s, const char *temporary, const char *name, struct report *report);
/* It failed, and is closed: nothing of it stays. */
void store_import_cancel(struct store *s, const char *temporary);

/* ---- snapshots ---- */

struct store_snapshot {
	char volume[STORE_NAME_BYTES];
	char name[STORE_NAME_BYTES];
	uint64_t size_bytes;       /* the volume's size then */
	uint64_t created_ns;       /* since 1970 */
	uint32_t clones;           /* volumes that began as it, rolled back ones included */
	uint64_t frees_bytes;      /* what deleting it, and no other, gives back; nothing while there are clones */
};

/* `names` are VOLUME@SNAP, at most STORE_GROUP_MAX, each volume once: one consistent instant, all or none. */
int store_snapshot_create(struct store *s, const char *const *names, unsigned count, struct report *report);
/* Of one volume, or of all (`volume` NULL; then without frees_bytes); by volume, then age. */
int store_snapshot_list(struct store *s, const char *volume,
			int (*entry)(void *arg, const struct store_snapshot *snapshot), void *arg,
			struct report *report);
int store_snapshot_delete(struct store *s, const char *name, struct report *report);
/* Several, of any volumes: none if one of them isn't there. A volume that nobody has is opened once to free what all of its took; who has one frees it soon. */
int store_snapshots_delete(struct store *s, const char *const *names, unsigned count, struct report *report);
int store_snapshot_rollback(struct store *s, const char *name, struct report *report); /* -EBUSY while attached */
int store_clone(struct store *s, const char *snapshot, const char *name, struct report *report);

/* ---- agents ---- */

/* The agent of `host`. -ENOENT: none is registered; -EHOSTDOWN: it was, and isn't alive. */
int store_agent_find(struct store *s, const char *host, struct store_agent *ret_agent, struct report *report);
/* In order of hosts. None without a catalog that hosts share. */
int store_agent_list(struct store *s, int (*entry)(void *arg, const struct store_agent *agent), void *arg, struct report *report);
/* An agent's own entry: there until it is ended, with a lease where the engine has them. -EADDRINUSE: another agent on this machine, which lives,
 * is called as this host is. */
struct store_registration;
int store_agent_register(struct store *s, const char *address, const char *version, struct store_registration **ret_registration, struct report *report);
/* Now and then: puts it there again if it got lost. -EEXIST: another agent has put its own there since. */
int store_agent_check(struct store_registration *r, struct report *report);
const uint8_t *store_agent_token(const struct store_registration *r); /* 16 bytes; not FIBER */
void store_agent_leave(struct store_registration *r); /* accepts NULL */

/* Who has the volume attached, with the host's name; -ENXIO: nobody has it. */
int store_volume_holder(struct store *s, const char *name, struct store_holder *ret_holder, struct report *report);
/* What this host is called there. Borrowed. Not FIBER. */
const char *store_url(const struct store *s); /* of its catalog */
const char *store_host(const struct store *s);

/* ---- servers ---- */

struct store_server {
	char id[33];               /* hex */
	char address[256], domain[64];
	uint32_t weight;           /* GiB */
	uint32_t share;            /* of all copies, how many thousandths belong there */
	uint64_t incarnation;      /* how often it was started */
	char why[128];             /* it doesn't: one clause, "" if that isn't known */
	const char *state;         /* "in", "draining", "drained", "lost" */
	bool answers;              /* now; what follows is 0 if it doesn't */
	uint32_t protocol;         /* the newest version that it speaks */
	uint64_t free_bytes, total_bytes;
	uint64_t copies, unsealed; /* that it has */
	uint64_t missing, missing_bytes, bytes_per_s; /* that it is making, or will; how fast */
	uint64_t misplaced;        /* that it has and will give up */
	bool settled;              /* it looked at all, and nothing is left to do */
};
/* Those in the map, in its order; waits up to two seconds for those that don't answer. None without a cluster. */
int store_server_list(struct store *s, int (*entry)(void *arg, const struct store_server *server), void *arg, struct report *report);

/* A server by the beginning of its id (at least 4 digits) or by its address. -ENOENT, -ENOTUNIQ. */
int store_server_find(struct store *s, const char *text, struct store_server *ret, struct report *report);
/* Nothing is to be on it any more; or (`undo`) it is to be used again. Its cluster's manager does it, soon. Unless `force`, -EBUSY if fewer
 * failure domains would be left than some volume has copies. */
int store_server_drain(struct store *s, const char *id, bool undo, bool force, struct report *report);
/* Volumes that nobody has open, and whose log goes on there, as their owners died, are opened and closed, so that it doesn't; and the
 * server looks for copies that nobody needs. How many stay open though their holders, on other hosts, haven't renewed their leases; who one of
 * them is goes to `ret_held`. */
unsigned store_server_release(struct store *s, const char *id, struct report *ret_held);
/* It leaves the map. Unless `force`, -EBUSY while something may be only there, saying what, and as for draining. */
int store_server_remove(struct store *s, const char *id, bool force, struct report *report);
/* FIBER. Frees what waits to be freed (doomed.h) of volumes that nobody has: doomed snapshots nobody holds, and all of a volume that is doomed itself and of
 * which nobody holds anything; then its parent's, if that waited for it. What can't be done now is left to the next time:
 * never an error. */
void store_reap(struct store *s);
/* R31 on all servers that answer: waits until each has gone through its copies. */
struct store_gc {
	unsigned servers, silent, refused; /* that were asked; that didn't answer; that keep everything, because the catalog was restored */
	uint64_t freed, freed_bytes, unanswered;
};
int store_gc(struct store *s, struct store_gc *ret, struct report *report);

/* ---- differences ---- */

struct store_extent {
	uint64_t offset, length; /* bytes */
	bool data;               /* false: reads as zeroes in the newer one */
};
/* What differs between `from` (VOLUME@A) and `to` (VOLUME, VOLUME@B), ascending, neighbours merged. */
int store_diff(struct store *s, const char *from, const char *to,
	       int (*extent)(void *arg, const struct store_extent *e), void *arg, struct report *report);

/* "web1@monday" into two buffers of STORE_NAME_BYTES; `snapshot` becomes "" without an @. 0 or -EINVAL with a
 * report. Not FIBER. */
int store_name_split(const char *text, char *ret_volume, char *ret_snapshot, struct report *report);
#endif
