#include "parallax/volume/volume_wait.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/map/tree.h"
#include "parallax/volume/volume_status.h"

#define TICK_NS_MAX (200 * NS_PER_MS)
#define TICK_NS_MIN (10 * NS_PER_MS)
#define SHOWN_NS (200 * NS_PER_MS) /* a request that took longer, and can't go on, waits */

static uint64_t limit_ns(const struct volume_node *n)
{
	return PLANTED(expire_never) ? 0 : n->volume ? volume_io_timeout_ns(n->volume) : n->io_timeout_ns;
}

static struct sources *sources_of(struct volume_node *n)
{
	return n->volume ? volume_sources(n->volume) : n->reader ? volume_reader_sources(n->reader) : NULL;
}

static bool reads_wait(struct volume_node *n)
{
	struct sources *s = sources_of(n);
	return s && !link_empty(&s->waiting);
}

static bool its_reads_wait(const struct volume_frame *f)
{
	for (unsigned i = 0; i < VOLUME_FRAME_READS; i++)
		if (f->reads[i].busy && !link_empty(&f->reads[i].waits))
			return true;
	return false;
}

/* Does it wait for what can't be reached? */
static bool is_stuck(const struct volume_frame *f)
{
	struct volume_node *n = f->n;
	bool writes = n->volume && volume_writes_wait(n->volume);
	switch (f->phase) {
	case PHASE_HELD: return n->intake.stuck;
	case PHASE_LOCK: return writes || reads_wait(n);
	case PHASE_MAP: return reads_wait(n);
	case PHASE_READ: return its_reads_wait(f);
	default: return writes;
	}
}

static uint64_t age_ns(const struct volume_frame *f) { return env_now_ns(f->n->node.env) - f->io->start_ns; }

/* ---- giving up ---- */

static const char *what_for(struct volume_node *n, char *text, size_t bytes, uint64_t *ret_since_ns)
{
	struct volume_status s;
	uint64_t since_ns, now_ns = env_now_ns(n->node.env), wall_ns = env_wall_ns(n->node.env);
	*ret_since_ns = 0;
	text[0] = '\0';
	if (n->volume && (volume_writes_wait(n->volume) || reads_wait(n))) {
		volume_status(n->volume, &s);
		snprintf(text, bytes, "%s", s.waits_for);
		*ret_since_ns = s.waits_since_ns;
	} else if (n->reader && sources_waits(sources_of(n), text, bytes, &since_ns)) {
		*ret_since_ns = wall_ns - (now_ns - since_ns);
	} else if (n->intake.held && n->intake.stuck) {
		snprintf(text, bytes, "its volume, which can't be opened here now");
		*ret_since_ns = wall_ns - (now_ns - n->intake.since_ns);
	}
	return text;
}

static void give_up(struct volume_frame *f)
{
	struct volume_node *n = f->n;
	uint64_t since_ns;
	if (!f->expired) {
		what_for(n, n->wait.last_for, sizeof n->wait.last_for, &since_ns);
		n->wait.last_op = f->io->op;
	}
	f->expired = true;
	if (f->phase == PHASE_HELD) {
		link_drop(&f->link);
		volume_node_finish(f, -EIO);
		return;
	}
	for (unsigned i = 0; i < VOLUME_FRAME_READS; i++)
		block_read_expire(&f->reads[i]);
	if (timer_running(&f->again))
		timer_cancel(n->node.env, &f->again);
	if (!n->volume) {
		tree_abandon(volume_reader_tree(n->reader), &f->job, -EIO);
		return;
	}
	tree_abandon(volume_tree(n->volume), &f->job, -EIO);
	for (unsigned i = 0; i < f->write_count; i++)
		volume_write_expire(n->volume, &f->writes[i]);
	volume_flush_expire(n->volume, &f->flush);
}

static void look(struct volume_node *n)
{
	uint64_t limit = limit_ns(n);
	link_for_safe(l, next, &n->wait.frames) {
		struct volume_frame *f = container_of(l, struct volume_frame, watched);
		if (!limit || age_ns(f) < limit)
			return;
		if (f->expired || is_stuck(f))
			give_up(f);
	}
}

static void tick(struct job *j);

static void tick_start(struct volume_node *n)
{
	uint64_t limit = limit_ns(n);
	n->wait.ticking = limit && !link_empty(&n->wait.frames) && !n->wait.ending && !n->node.env->dead;
	if (!n->wait.ticking) {
		fiber_cond_wake(&n->wait.ended);
		return;
	}
	job_init(&n->wait.job, n->node.loop);
	timer_start(n->node.env, &n->wait.timer, MIN(MAX(limit / 16, TICK_NS_MIN), TICK_NS_MAX), &n->wait.job);
	job_then(&n->wait.job, tick);
}

static void tick(struct job *j)
{
	struct volume_node *n = container_of(j, struct volume_node, wait.job);
	if (j->status == 0)
		look(n);
	tick_start(n);
}

/* ---- the watch ---- */

void volume_wait_init(struct volume_node *n)
{
	link_init(&n->wait.frames);
	timer_init(&n->wait.timer);
	fiber_cond_init(&n->wait.ended);
}

void volume_wait_end(struct volume_node *n)
{
	n->wait.ending = true;
	timer_cancel(n->node.env, &n->wait.timer);
	while (n->wait.ticking)
		fiber_cond_wait(n->node.loop, &n->wait.ended);
}

void volume_wait_kick(struct volume_node *n)
{
	if (!n->wait.ticking)
		tick_start(n);
}

void volume_wait_begin(struct volume_frame *f)
{
	f->expired = false;
	f->phase = PHASE_HELD;
	f->write_count = 0;
	link_init(&f->flush.link);
	timer_init(&f->again);
	link_push(&f->n->wait.frames, &f->watched);
	if (!f->n->wait.ticking && limit_ns(f->n))
		tick_start(f->n);
}

void volume_wait_over(struct volume_frame *f, int status)
{
	link_drop(&f->watched);
	if (!f->expired || status == 0)
		return;
	f->n->wait.timed_out++;
	f->n->wait.last_ns = env_wall_ns(f->n->node.env);
}

/* ---- what people see ---- */

bool volume_wait_tell(struct blk_node *node, struct blk_waits *ret)
{
	struct volume_node *n = container_of(node, struct volume_node, node);
	uint64_t wall_ns = env_wall_ns(node->env), oldest_ns = 0;
	*ret = (struct blk_waits){ .limit_ns = limit_ns(n), .timed_out = n->wait.timed_out, .last_ns = n->wait.last_ns, .last_op = n->wait.last_op };
	snprintf(ret->last_for, sizeof ret->last_for, "%s", n->wait.last_for);
	link_for(l, &n->wait.frames) {
		struct volume_frame *f = container_of(l, struct volume_frame, watched);
		if (age_ns(f) < SHOWN_NS || !is_stuck(f))
			continue;
		ret->requests[f->io->op]++;
		oldest_ns = MAX(oldest_ns, age_ns(f));
	}
	what_for(n, ret->what, sizeof ret->what, &ret->since_ns);
	if (oldest_ns)
		ret->oldest_ns = wall_ns - oldest_ns;
	return ret->what[0] || oldest_ns || ret->timed_out;
}
