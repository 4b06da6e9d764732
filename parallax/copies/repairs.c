#include "parallax/copies/repairs.h"

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/copies/copies.h"
#include "parallax/segment/segment_remote.h"

#define AGAIN_NS (10 * NS_PER_S)  /* the same isn't told again before */
#define PAUSE_NS (20 * NS_PER_MS) /* between one and the next */

static bool covers(const struct repair *a, const struct repair *b)
{
	return a->peer == b->peer && a->segment == b->segment && a->block <= b->block && b->block + b->blocks <= a->block + a->blocks;
}

static bool is_known(const struct repairs *r, const struct repair *new)
{
	uint64_t now = env_now_ns(r->env);
	for (uint64_t i = r->noted - MIN(r->noted, (uint64_t)REPAIRS_MAX); i < r->noted; i++) {
		const struct repair *old = &r->ring[i % REPAIRS_MAX];
		if (covers(old, new) && (i >= r->told || now - old->told_ns < AGAIN_NS))
			return true;
	}
	return false;
}

void repairs_note(struct repairs *r, struct peer *peer, uint64_t segment, uint32_t block, uint32_t blocks)
{
	struct repair new = { .peer = peer, .segment = segment, .block = block, .blocks = MIN(blocks, (uint32_t)REPAIR_BLOCKS_MAX) };
	if (!r->running || r->closing || r->noted - r->told == REPAIRS_MAX || is_known(r, &new) || PLANTED(repair_forgets))
		return;
	r->ring[r->noted++ % REPAIRS_MAX] = new;
	fiber_cond_wake(&r->changed);
}

/* A server of an older version takes it for a question, and scrubs in its own time. */
static void tell(struct repairs *r, const struct repair *one)
{
	Aquifer__Segment__ScrubRequest q = AQUIFER__SEGMENT__SCRUB_REQUEST__INIT;
	struct rpc_call call;
	q.segment = one->segment;
	q.block = one->block;
	q.blocks = one->blocks;
	if (!peer_reach(one->peer))
		return;
	if (segment_remote_call(one->peer->server, AQUIFER__SEGMENT__METHOD__SCRUB, &q.base, &aquifer__segment__scrub__descriptor, &call, NULL) == 0)
		r->asked++;
	rpc_call_clean(&call);
}

static int teller(void *arg)
{
	struct repairs *r = arg;
	while (!r->closing && !r->env->dead) {
		if (r->told == r->noted) {
			fiber_cond_wait(&r->env->loop, &r->changed);
			continue;
		}
		struct repair *one = &r->ring[r->told++ % REPAIRS_MAX], copy = *one;
		one->told_ns = env_now_ns(r->env);
		tell(r, &copy);
		if (!r->closing)
			fiber_sleep(&r->env->loop, PAUSE_NS);
	}
	r->running = false;
	fiber_cond_wake(&r->changed);
	return 0;
}

void repairs_init(struct repairs *r, struct env *env)
{
	*r = (struct repairs){ .env = env };
	fiber_cond_init(&r->changed);
}

int repairs_start(struct repairs *r)
{
	r->running = true;
	int e = fiber_start(&r->env->loop, teller, r, NULL);
	r->running = e == 0;
	return e;
}

void repairs_end(struct repairs *r)
{
	r->closing = true;
	fiber_cond_wake(&r->changed);
	while (r->running)
		fiber_cond_wait(&r->env->loop, &r->changed);
}
