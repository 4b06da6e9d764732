/* The agent's table of tapdisks, and what moves them:
 *
 *     (attach) ──▶ STARTING ──ready──▶ RUNNING ──detach──▶ STOPPING ──ends──▶ (gone)
 *                     │ failed            │ ends by itself, orderly ──────────▶ (gone)
 *                     ▼                   ▼ dies
 *                   (gone)              DIED ──detach, or its name is attached again──▶ (gone)
 *     (agent starts) ──▶ RUNNING or DIED, from the run directory
 *
 * A tapdisk lives by itself; the agent watches it by a pidfd. Nothing here waits for one
 * but the functions marked FIBER. */
#ifndef AQ_TAPS_H
#define AQ_TAPS_H
#include <jansson.h>

#include "agent/daemon/paths.h"
#include "agent/daemon/plan.h"
#include "agent/daemon/state.h"
#include "core/fiber.h"

enum {
	TAPS_DEVICES_MAX = 1024, /* on one host */
	TAPS_DEAD_MAX = 256,     /* tapdisks that died, kept to be shown; the oldest goes first */
};

enum tap_phase { TAP_STARTING, TAP_RUNNING, TAP_STOPPING, TAP_DIED };

struct taps {
	struct env *env;
	struct link list;
	char root[PATHS_MAX], directory[PATHS_MAX];
	char boot_id[37];
};

struct tap {
	struct taps *taps;
	struct link link;
	enum tap_phase phase;
	char directory[PATHS_MAX];
	struct tap_state state;     /* while STARTING: the names it will have */
	char died[600];             /* DIED: why */
	int pidfd;                  /* -1: ended */
	struct fd_watch watch;
	struct job watch_job;
	unsigned users;             /* fibers that look at it; freed with the last */
	bool listed;
};

void taps_init(struct taps *t, struct env *env, const char *root);
/* Stops watching; the tapdisks go on. FIBER. */
void taps_close(struct taps *t);

/* Finds who is there after the agent was away: live ones are adopted, the dead are shown as such if this kernel
 * has run them, what an earlier boot left is removed. */
int taps_scan(struct taps *t, struct report *report);

/* By a device's name or by what was printed for it. NULL: none. *ret_index may be NULL. */
struct tap *taps_find(struct taps *t, const char *device, unsigned *ret_index);
unsigned taps_device_count(const struct taps *t); /* not counting the dead */

/* Reserves the names of a plan and a directory. -EEXIST, -EBUSY or -EMFILE with a report. The caller has one use of it. */
int taps_reserve(struct taps *t, const struct plan *plan, struct tap **ret_tap, struct report *report);
/* The process has been started: watch it. 0 or -errno (it is gone already, or no descriptors). */
int tap_watch(struct tap *tap, pid_t pid);
/* FIBER. Until it has ended, at most so long. 0 or -ETIMEDOUT. */
int tap_wait_end(struct tap *tap, uint64_t timeout_ns);
/* kill -9 by its pidfd. */
void tap_kill(struct tap *tap);
/* Of several devices of one tapdisk, those that it has closed by itself go off the list: their closing took longer than who asked for it waited. */
void taps_refresh(struct taps *t);
/* Takes device `index` off the list; with the last one, the tap. */
void tap_forget_device(struct tap *tap, unsigned index);
/* Removes its directory, takes it off the list. */
void tap_forget(struct tap *tap);
static inline void tap_use(struct tap *tap) { tap->users++; }
void tap_unuse(struct tap *tap);

/* Running, but its graph isn't serving (incoming, moved …)? A word for that, and the rest for people. */
bool tap_condition(const struct tap *tap, char ret_state[16], char *ret_why, size_t bytes);
/* Running, but its loop hasn't moved for some seconds: it is stopped, or hangs, or gets no processor. A sentence for people. Doesn't wait for it. */
bool tap_hangs(const struct tap *tap, char *ret_why, size_t bytes);
/* One device, as `list --json` has it. */
json_t *tap_device_json(const struct tap *tap, unsigned index);
#endif
