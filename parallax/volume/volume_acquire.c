/* Getting a volume: its place on this host, locked (R34); then the owner record in the catalog (R3). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/plant.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/volume/volume_private.h"

#define ALIVE_S 10 /* a holder that died is seen as such by other hosts after so long */
enum { CATALOG_TRIES = 200 };
#define CATALOG_PAUSE_NS (20 * NS_PER_MS)
#define CATALOG_PATIENCE_NS (30 * NS_PER_S) /* each try may take seconds */

static bool is_namesake(const struct volume_open *how, const struct meta_owner *o)
{
	const struct volume_places *p = how->places;
	return o->boot[0] && p->boot && meta_pids_foreign(o->boot, o->pids, p->boot, p->pids) && how->host && strcmp(o->host, how->host) == 0;
}

static int held(const struct volume_open *how, const struct meta_owner *o, struct report *report)
{
	if (is_namesake(how, o))
		return report_set(report, -EBUSY, "it is attached as %s on another machine that is called %s too, or in another container (give each machine its own name: host = NAME in "
				  "etc/aquifer/aquifer.conf; or attach with --force to take it away)", o->holder, o->host);
	return report_set(report, -EBUSY, "it is attached as %s%s%s (detach it there, or attach with --force to take it away)",
			  o->holder[0] ? o->holder : "something unknown", o->host[0] ? " on host " : "", o->host);
}

/* Two nodes of one graph: neither is to be told of the other as of a stranger, nor to fence it. */
static bool is_ours(const struct meta_owner *o, const struct volume_open *how)
{
	return !how->offer && !is_namesake(how, o) && o->state != OWNER_FREE && how->pid && o->pid == how->pid && how->holder && strcmp(o->holder, how->holder) == 0 && how->host &&
	       strcmp(o->host, how->host) == 0;
}

/* Whoever has the lock will soon let it go: a command that maintains the volume, or a process that is about to
 * say who it is, or that has died. */
static bool lock_is_passing(const struct volume_places *p, const struct meta_owner *owner)
{
	return owner->state == OWNER_FREE || strcmp(owner->holder, VOLUME_MAINTENANCE) == 0 ||
	       (p->holder_alive && !p->holder_alive(p->arg, owner));
}

/* A lease that has run out says that its host can't reach the catalog; its guest may be served all the same. To take over is somebody's decision
 * (attach), not that of a command that only needs the volume for a moment. */
static int refuse_maintenance(const struct volume_open *how, const struct meta_owner *now, struct report *report)
{
	const struct volume_places *p = how->places;
	if (how->force || how->offer || !how->holder || strcmp(how->holder, VOLUME_MAINTENANCE) != 0 || !p->attached_elsewhere || !p->attached_elsewhere(p->arg, now))
		return 0;
	return report_set(report, -EBUSY, "it is attached as %s on host %s, which hasn't renewed its lease (attach it on another host to take it over, or mend that one)",
			  now->holder, now->host);
}

struct tries {
	unsigned count;
	uint64_t until_ns;
};

static struct tries tries_begin(const struct volume *v) { return (struct tries){ .until_ns = env_now_ns(v->env) + CATALOG_PATIENCE_NS }; }

/* FIBER. After a call to which the catalog didn't answer: is it to be made again? Then a moment has passed. */
static bool tries_left(struct volume *v, struct tries *t)
{
	if (++t->count == CATALOG_TRIES || env_now_ns(v->env) >= t->until_ns)
		return false;
	fiber_sleep(&v->env->loop, CATALOG_PAUSE_NS);
	return true;
}

/* What was written since the backup of the catalog is in no record of the volume yet: who opened it would go on from what it was then, and lose that for good. */
static int refuse_unrecovered(struct volume *v, struct report *report)
{
	struct tries tries = tries_begin(v);
	int r;
	do
		r = PLANTED(open_unrecovered) ? 0 : catalog_recover_wanted_of(v->catalog, v->id);
	while ((r == -ETIMEDOUT || r == -EBUSY) && tries_left(v, &tries));
	if (r == 1)
		return report_set(report, -EPERM, "the catalog was restored from a backup, and what was written since hasn't been %s (start all servers, then: aquifer cluster recover)",
				  catalog_recover_wanted(v->catalog, NULL) == 0 ? "found" : "looked for");
	return r < 0 && r != -ENOENT ? report_set(report, r, "the catalog can't be read: %s", catalog_text(v->catalog, r)) : 0;
}

/* One that was open before has its directory; a new one in its place would be an empty volume. */
static int was_never_open(struct volume *v, bool *ret_fresh, struct report *report)
{
	struct meta_owner before;
	struct tries tries = tries_begin(v);
	int r;
	do
		r = meta_get_owner(v->catalog, v->id, &before, NULL);
	while ((r == -ETIMEDOUT || r == -EBUSY) && tries_left(v, &tries));
	if (r < 0 && r != -ENOENT)
		return report_set(report, r, "its owner record can't be read: %s", catalog_text(v->catalog, r));
	*ret_fresh = r == 0 && before.epoch == 0;
	return 0;
}

/* Once. -EBUSY: somebody has the lock; other errors with a report. */
static int lock_place(struct volume *v, const struct volume_open *how, bool fresh, struct report *report)
{
	const struct volume_places *p = how->places;
	struct meta_owner owner;
	struct report cause = { "" };
	int r = v->meta.embedded ? p->open_embedded(p->arg, v->id, fresh, &v->server, &cause) : p->lock ? p->lock(p->arg, v->id, &v->lock, &cause) : 0;
	if (r == -ENOENT && v->meta.embedded && meta_get_owner(v->catalog, v->id, &owner, NULL) == -ENOENT)
		return report_set(report, r, "it was deleted or rolled back meanwhile");
	if (r == -ENOENT && v->meta.embedded)
		return report_set(report, r, "its data is missing: %s (is the file system mounted? else restore it from a backup)", report_text(&cause, r));
	return r < 0 && r != -EBUSY ? report_set(report, r, "%s", report_text(&cause, r)) : r;
}

/* The place where its segments are, locked against a second opener on this host (R34). */
int volume_open_place(struct volume *v, const struct volume_open *how, struct report *report)
{
	const struct volume_places *p = how->places;
	bool fresh = false;
	int r = how->offer ? 0 : refuse_unrecovered(v, report); /* what is offered is open */
	if (r == 0 && !how->offer)
		r = was_never_open(v, &fresh, report);
	if (r < 0)
		return r;
	if (how->warm && how->warm->lock && !v->meta.embedded) {
		v->lock = how->warm->lock;
		how->warm->lock = NULL;
		return 0;
	}
	unsigned waited_ms = 0;
	bool evicted = false;
	while ((r = lock_place(v, how, fresh, report)) == -EBUSY) {
		struct meta_owner owner;
		if (meta_get_owner(v->catalog, v->id, &owner, NULL) < 0)
			owner = (struct meta_owner){ 0 };
		if (lock_is_passing(p, &owner) && waited_ms < VOLUME_MAINTENANCE_MS) {
			fiber_sleep(&v->env->loop, 20 * NS_PER_MS);
			waited_ms += 20;
			continue;
		}
		if (is_ours(&owner, how))
			return report_set(report, r, "this tapdisk has it already (use one node for both: name it in a graph file)");
		if (!how->force || evicted)
			return held(how, &owner, report);
		if (!v->meta.embedded) { /* the epoch fences it; the lock is politeness */
			r = 0;
			break;
		}
		if (!p->evict)
			return held(how, &owner, report);
		r = p->evict(p->arg, &owner, report);
		if (r < 0)
			return r;
		evicted = true;
	}
	if (r == 0 && v->server && !(v->copies = copies_embedded(v->env, v->server)))
		r = -ENOMEM;
	return r;
}

/* May it be taken, as far as offers are concerned? */
static int judge_offer(const struct volume_open *how, const struct meta_owner *now, struct report *report)
{
	const struct volume_places *p = how->places;
	bool offered = now->state == OWNER_OFFERED;
	bool ours = now->state == OWNER_HELD && now->stamp && (now->stamp == how->former || now->stamp == how->acquisition);
	if (how->offer && !ours && !(offered && now->stamp == how->offer) && !PLANTED(handover_offer_unchecked))
		return report_set(report, -ESTALE, "the offer is gone: %s%s", now->holder[0] ? "it is attached as " : "nobody has the volume", now->holder);
	if (offered && !how->offer && !how->force && !(p->holder_alive && !p->holder_alive(p->arg, now)))
		return report_set(report, -EBUSY, "it is being handed over to %s (attach with --force to take it away)", now->holder);
	return 0;
}

/* Before the owner record names us: whoever sees that finds us alive. Without that anybody would take the volume from a device in use, and not be told that
 * there is one; so it is tried as long as the rest is. */
int volume_show_life(struct volume *v, const struct volume_open *how, struct report *report)
{
	char key[META_KEY_BYTES];
	struct tries tries = tries_begin(v);
	int r;
	v->stamp = how->acquisition ? how->acquisition : env_random(v->env);
	meta_key_alive(v->stamp, key);
	if ((how->warm && how->warm->alive) || (how->holder && strcmp(how->holder, VOLUME_MAINTENANCE) == 0))
		return 0;
	do
		r = catalog_lease(v->catalog, ALIVE_S, key, &v->alive);
	while ((r == -ETIMEDOUT || r == -EBUSY || r == -ENOENT) && tries_left(v, &tries)); /* -ENOENT: what was granted has run out before the key was put */
	return r < 0 && r != -ENOTSUP ? report_set(report, r, "the catalog gives no lease: %s", catalog_text(v->catalog, r)) : 0;
}

static int put_owner(struct volume *v, const struct meta_owner *mine, uint64_t revision, const struct volume_seen *seen)
{
	char key[META_KEY_BYTES], log_key[META_KEY_BYTES];
	struct catalog_txn *t = malloc(sizeof *t);
	size_t length = 0;
	uint8_t *bytes = meta_owner_encode(mine, &length);
	int r = t && bytes ? 0 : -ENOMEM;
	meta_key_owner(v->id, key);
	meta_key_log(v->id, log_key);
	if (r == 0) {
		catalog_txn_init(t);
		if (!PLANTED(acquire_no_compare))
			catalog_txn_compare(t, key, revision);
		if (seen)
			catalog_txn_compare(t, log_key, seen->log_revision);
		catalog_txn_put(t, key, bytes, length);
		r = catalog_txn(v->catalog, t, &v->owner_revision);
	}
	free(bytes);
	free(t);
	return r;
}

/* Whose holder lives, as far as is known: it is for whoever attaches to say that it is to be taken from him. The lock decides that here, but who took it
 * by force has none; a command passes, and what has our number is us. */
static bool is_held(const struct volume *v, const struct volume_open *how, const struct meta_owner *now)
{
	const struct volume_places *p = how->places;
	if (now->state != OWNER_HELD || how->force || how->offer || (now->stamp && (now->stamp == how->former || now->stamp == how->acquisition)))
		return false;
	bool here = !v->server && now->pid != how->pid && strcmp(now->holder, VOLUME_MAINTENANCE) != 0;
	return (p->held_elsewhere && p->held_elsewhere(p->arg, now)) || (here && p->holder_alive && p->holder_alive(p->arg, now));
}

/* FIBER. The same; but who held it on this machine before it started anew is dead, which his lease may not say yet. */
static bool is_held_still(const struct volume *v, const struct volume_open *how, const struct meta_owner *now)
{
	bool is = is_held(v, how, now);
	for (unsigned waited_ms = 0; is && is_namesake(how, now) && waited_ms <= 1000 * (ALIVE_S + 1); waited_ms += 200) {
		fiber_sleep(&v->env->loop, 200 * NS_PER_MS);
		is = is_held(v, how, now);
	}
	return is;
}

/* What the record says now. `first`: it may be what was seen before. */
static int look_at_owner(const struct volume *v, const struct volume_seen *seen, bool first, struct meta_owner *ret, uint64_t *ret_revision)
{
	if (!first || !seen)
		return meta_get_owner(v->catalog, v->id, ret, ret_revision);
	*ret = seen->owner;
	*ret_revision = seen->owner_revision;
	return 0;
}

/* FIBER. 0: it is ours; -EAGAIN: it may be, or become so: to be tried again; other: with a report. `mine`: without an epoch before the first attempt. `refused`: what
 * was seen wasn't true any more. */
static int acquire_once(struct volume *v, const struct volume_open *how, bool first, struct meta_owner *mine, bool *refused, struct report *report)
{
	struct meta_owner now;
	uint64_t revision;
	int r = look_at_owner(v, how->seen, first, &now, &revision);
	bool there = r == 0;
	if (there && now.stamp == mine->stamp && now.epoch == mine->epoch && mine->epoch) {
		v->owner = now; /* an attempt of unknown outcome had arrived */
		v->owner_revision = revision;
		v->epoch = now.epoch;
		return 0;
	}
	if (r == -ETIMEDOUT || r == -EBUSY)
		return -EAGAIN;
	if (!there && r != -ENOENT)
		return report_set(report, r, "its owner record can't be read: %s", catalog_text(v->catalog, r));
	if (there && *refused)
		return report_set(report, -EBUSY, "it was changed meanwhile (try again)");
	if (there && !mine->epoch && is_held_still(v, how, &now))
		return held(how, &now, report);
	if (!mine->epoch) {
		r = there ? refuse_maintenance(how, &now, report) : 0;
		r = r ? r : judge_offer(how, &now, report);
		if (r < 0)
			return r;
		mine->epoch = now.epoch + 1;
		v->was_free = there && now.state == OWNER_FREE;
	}
	if (there && now.epoch >= mine->epoch)
		return held(how, &now, report); /* somebody was faster */
	r = put_owner(v, mine, revision, how->seen);
	if (r == 0) {
		v->owner = *mine;
		v->epoch = mine->epoch;
		return 0;
	}
	*refused = r == -EAGAIN && how->seen;
	return r == -EAGAIN || r == -ETIMEDOUT || r == -EBUSY ? -EAGAIN : report_set(report, r, "the catalog refuses: %s", catalog_text(v->catalog, r));
}

/* owner := (me, held, epoch + 1), whoever held it before. */
int volume_acquire(struct volume *v, const struct volume_open *how, struct report *report)
{
	struct meta_owner mine = { .state = OWNER_HELD, .pid = how->pid, .stamp = v->stamp, .pids = how->places->pids,
				   .began_ticks = how->pid ? how->places->began_ticks : 0 };
	snprintf(mine.holder, sizeof mine.holder, "%s", how->holder ? how->holder : "");
	snprintf(mine.control, sizeof mine.control, "%s", how->control ? how->control : "");
	snprintf(mine.host, sizeof mine.host, "%s", how->host ? how->host : "");
	snprintf(mine.boot, sizeof mine.boot, "%s", how->places->boot ? how->places->boot : "");
	struct tries tries = tries_begin(v);
	bool refused = false;
	int r;
	do
		r = acquire_once(v, how, tries.count == 0, &mine, &refused, report);
	while (r == -EAGAIN && tries_left(v, &tries));
	return r == -EAGAIN ? report_set(report, -ETIMEDOUT, "the catalog doesn't answer: %s", catalog_text(v->catalog, -ETIMEDOUT)) : r;
}

/* As it was, where it needs no recovery; else as after a command that was killed, so that whoever needs the volume next recovers it. Offers know
 * themselves how far they had come, by the number in the record. */
void volume_disown(struct volume *v, const struct volume_open *how)
{
	struct meta_owner left = v->owner;
	if (how->offer || how->acquisition || left.state != OWNER_HELD || left.stamp != v->stamp || PLANTED(failed_open_holds))
		return;
	left.control[0] = '\0';
	left.pid = left.began_ticks = 0; /* a tapdisk with other volumes lives on */
	if (v->was_free && v->meta.segment_count == 0) {
		left.state = OWNER_FREE;
		left.holder[0] = left.host[0] = left.boot[0] = '\0';
		left.pids = 0;
	} else {
		snprintf(left.holder, sizeof left.holder, "%s", VOLUME_MAINTENANCE);
	}
	put_owner(v, &left, v->owner_revision, NULL); /* if that fails, too, attaching takes it over */
}

/* ---- beforehand ---- */

void volume_warm_up(struct env *env, const struct volume_open *how, uint64_t acquisition, struct volume_warm *ret)
{
	const struct volume_places *p = how->places;
	struct catalog *catalog = how->catalog;
	char key[META_KEY_BYTES];
	struct meta_log *log = malloc(sizeof *log);
	*ret = (struct volume_warm){ 0 };
	meta_key_alive(acquisition, key);
	catalog_lease(catalog, ALIVE_S, key, &ret->alive);
	if (log && meta_get_log(catalog, how->volume, log, NULL) == 0 && !log->embedded) {
		if (copies_open(env, catalog, &ret->copies, NULL) == 0)
			copies_want_log(ret->copies, log);
		if (p->lock && p->lock(p->arg, how->volume, &ret->lock, NULL) < 0)
			ret->lock = NULL;
	}
	free(log);
}

void volume_warm_end(struct env *env, struct volume_warm *w)
{
	file_close(env, w->lock);
	catalog_lease_end(w->alive);
	copies_close(w->copies);
	*w = (struct volume_warm){ 0 };
}

struct looking {
	struct catalog *catalog;
	uint64_t volume;
	struct volume_seen *seen;
};

static int look_at_log(void *arg)
{
	const struct looking *l = arg;
	return meta_get_log(l->catalog, l->volume, &l->seen->log, &l->seen->log_revision);
}

int volume_look(struct env *env, struct catalog *catalog, uint64_t volume, struct volume_seen *ret)
{
	struct looking l = { catalog, volume, ret };
	struct job j;
	*ret = (struct volume_seen){ 0 };
	job_init(&j, &env->loop);
	job_hold(&j);
	int r = fiber_start(&env->loop, look_at_log, &l, &j);
	if (r < 0)
		return r;
	int owner = meta_get_owner(catalog, volume, &ret->owner, &ret->owner_revision);
	r = fiber_wait(&j);
	return owner < 0 ? owner : r;
}
