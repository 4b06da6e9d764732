/* What waits before it is given back to the file system: runs of free blocks in sealed copies, which become holes, and recycled files.
 *
 * A volume that is overwritten frees its segments piece by piece, and soon wholly. Holes made at once would cost a discard each, and
 * the file, not being whole any more, would be no use to the next segment, whose blocks then are allocated, and written for the first time, which
 * disks and file systems do at half the speed (128 KiB writes to three copies: 2,700 and 4,400 a second). So holes come HOLES_NS later, and a copy that is deleted before that
 * leaves a whole file. They come at once when many wait, and when space gets short (R32); what the size limit counts doesn't wait.
 *
 *     bitmap durable ─▶ copy_punch_late(): among d->late ─▶ 20 s later, or when the directory is closed ─▶ holes
 *                                          └─▶ deleted ─▶ recycle/ ─▶ unused for 30 s ─▶ unlinked
 *
 * What waits is lost when the process is killed. So a copy that is loaded, and whose file takes more than what isn't free, waits anew. */
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/segment/segment_dir.h"

#define HOLES_NS (20 * NS_PER_S)
#define POOL_IDLE_NS (30 * NS_PER_S)
#define TICK_NS (2 * NS_PER_S)
#define MISSING_BYTES_LEAST (PUNCH_BLOCKS * BLOCK_BYTES) /* file systems count something of their own */
#define LATE_BYTES_MAX (UINT64_C(128) << 20)
enum { LATE_PART = 64, SHORT_PART = 10 }; /* of the file system: what may wait; what is little free space */

static uint64_t now_ns(const struct segment_dir *d) { return env_now_ns(d->env); }

/* ---- which wait ---- */

static void late_count(struct copy *c, uint64_t bytes)
{
	c->dir->late_bytes += bytes - c->late_bytes;
	c->late_bytes = bytes;
}

void copy_late_forget(struct copy *c)
{
	link_drop(&c->late);
	late_count(c, 0);
	free(c->late_given);
	c->late_given = NULL;
}

static bool late_may_wait(const struct segment_dir *d, uint64_t more)
{
	uint64_t most = MIN(LATE_BYTES_MAX, d->server.total_bytes / LATE_PART);
	return !d->closing && d->late_bytes + more <= most && d->server.free_bytes > d->server.total_bytes / SHORT_PART;
}

/* Makes the holes that wait for it. FIBER, the copy's mutex held. */
static int late_punch(struct copy *c)
{
	uint8_t *given = c->late_given;
	c->late_given = NULL;
	copy_late_forget(c);
	int r = dir_load(c);
	if (r == 0 && c->exists && c->slot.sealed && given) {
		r = copy_settle(c); /* what this process found isn't durable because of that */
		if (r == 0)
			r = copy_punch(c, given, PUNCH_BLOCKS);
	}
	if (r < 0)
		c->found = false; /* whoever loads it again sees that they are missing */
	free(given);
	return r;
}

/* Notes that they are wanted; 0: there are none to be made, or no memory: then they are missing until somebody loads the copy again. */
static uint64_t late_want(struct copy *c, const uint8_t *given)
{
	if (!c->slot.sealed || c->mapless || c->dir->no_holes || copy_runs(c, given, PUNCH_BLOCKS) == 0)
		return 0;
	if (!c->late_given)
		c->late_given = calloc(1, BITMAP_BYTES);
	for (uint32_t i = 0; c->late_given && i < BITMAP_BYTES; i++)
		c->late_given[i] |= given ? given[i] : c->trim[i];
	return c->late_given ? (uint64_t)copy_runs(c, c->late_given, PUNCH_BLOCKS) * BLOCK_BYTES : 0;
}

static void late_wait(struct copy *c, uint64_t bytes)
{
	struct segment_dir *d = c->dir;
	late_count(c, bytes);
	if (link_empty(&c->late)) {
		c->late_ns = now_ns(d) + HOLES_NS;
		link_push(&d->late, &c->late);
	}
	dir_late_start(d);
}

/* The first ones are made at once: where there can't be any, what a copy takes mustn't be told as if there were. */
int copy_punch_late(struct copy *c, const uint8_t *given)
{
	struct segment_dir *d = c->dir;
	uint64_t bytes = late_want(c, given);
	if (bytes == 0)
		return 0;
	if (!d->holes || !late_may_wait(d, bytes - MIN(bytes, c->late_bytes)))
		return late_punch(c);
	late_wait(c, bytes);
	return 0;
}

void copy_late_found(struct copy *c)
{
	struct segment_dir *d = c->dir;
	if (c->found || !c->trim || !c->slot.sealed)
		return;
	uint64_t bytes = (uint64_t)copy_runs(c, NULL, PUNCH_BLOCKS) * BLOCK_BYTES;
	bool missing = bytes && c->info.allocated + bytes >= c->info.size + MISSING_BYTES_LEAST;
	if (missing && !late_may_wait(d, bytes))
		return; /* another time: there is no hurry */
	c->found = true;
	bytes = missing ? late_want(c, NULL) : 0;
	if (bytes)
		late_wait(c, bytes);
}

/* ---- when ---- */

/* All of them, or those that have waited long enough. FIBER */
static void late_punch_due(struct segment_dir *d, bool all)
{
	while (!link_empty(&d->late)) {
		struct copy *c = container_of(d->late.next, struct copy, late);
		if (!all && (now_ns(d) < c->late_ns || d->closing))
			break;
		c->users++;
		fiber_mutex_lock(&d->env->loop, &c->mutex);
		if (!link_empty(&c->late))
			late_punch(c);
		fiber_mutex_unlock(&c->mutex);
		copy_release(c);
	}
}

static int late_run(void *arg)
{
	struct segment_dir *d = arg;
	late_punch_due(d, /* all= */ false);
	if (!d->closing && d->pool_count && now_ns(d) - d->pool_ns > POOL_IDLE_NS)
		pool_drain(d);
	d->late_running = false;
	dir_late_start(d);
	fiber_cond_wake(&d->quiet);
	return 0;
}

static void late_tick(struct job *j)
{
	struct segment_dir *d = container_of(j, struct segment_dir, late_job);
	if (!d->closing && j->status == 0 && fiber_start(&d->env->loop, late_run, d, NULL) == 0)
		return;
	d->late_running = false; /* without memory: what comes next starts it */
	fiber_cond_wake(&d->quiet);
}

void dir_late_start(struct segment_dir *d)
{
	if (d->late_running || d->closing || (link_empty(&d->late) && d->pool_count == 0))
		return;
	d->late_running = true;
	job_init(&d->late_job, &d->env->loop);
	timer_start(d->env, &d->late_timer, TICK_NS, &d->late_job);
	job_then(&d->late_job, late_tick);
}

void dir_late_stop(struct segment_dir *d)
{
	timer_cancel(d->env, &d->late_timer);
	while (d->late_running)
		fiber_cond_wait(&d->env->loop, &d->quiet);
}

void dir_late_end(struct segment_dir *d)
{
	late_punch_due(d, /* all= */ true);
	pool_drain(d);
}
