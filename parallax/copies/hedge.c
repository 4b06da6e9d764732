#include "parallax/copies/hedge.h"

#include <errno.h>
#include <stdlib.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/copies/sources.h"

#define LOOK_NS (5 * NS_PER_MS)         /* how often what is under way is looked at */
#define LATE_NS (20 * NS_PER_MS)        /* a read isn't late before, */
#define LATE_MAX_NS (500 * NS_PER_MS)   /* and is after that; in between when it takes */
enum { LATE_TIMES = 4 };                /* so many times what is usual */

static void rival_free(struct rival *v)
{
	link_drop(&v->link);
	if (--v->hedges->count == 0)
		fiber_cond_wake(&v->hedges->changed);
	free(v->iov.iov_base);
	free(v);
}

/* ---- what a read sees ---- */

void hedge_forget(struct block_read *r)
{
	struct rival *v = r->rival;
	r->rival = NULL;
	if (!v)
		return;
	v->read = NULL;
	if (v->good)
		rival_free(v);
	else
		peer_cancel(v->peer, &v->io);
}

void hedge_take(struct block_read *r)
{
	iov_scatter(r->iov, r->iov_count, 0, r->rival->iov.iov_base, (size_t)r->count * BLOCK_BYTES);
	r->sources->hedges_won++;
	hedge_forget(r);
}

void hedge_watch(struct hedges *h, struct block_read *r)
{
	if (!h->running || !r->peer)
		return;
	if (link_empty(&h->reads))
		fiber_cond_wake(&h->changed);
	link_push(&h->reads, &r->slow);
}

void hedge_answered(struct hedges *h, struct block_read *r, int status)
{
	link_drop(&r->slow);
	if (h->running && status == 0)
		h->usual_ns += (env_now_ns(h->env) - r->since_ns) / 16 - h->usual_ns / 16;
}

/* ---- rivals ---- */

static void rival_done(struct job *j)
{
	struct rival *v = container_of(j, struct rival, job);
	struct block_read *r = v->read;
	if (!r) {
		rival_free(v);
		return;
	}
	int status = j->status || PLANTED(hedge_no_verify) ? j->status : block_read_verify(r, &v->iov, 1);
	peer_blame(v->peer, status);
	v->good = status == 0;
	if (v->good) {
		uint64_t now = env_now_ns(v->hedges->env);
		peer_late(r->peer, r->count, now - r->since_ns);
		peer_answered(v->peer, r->count, now - v->since_ns);
		peer_cancel(r->peer, &r->io);
	}
	block_read_rival_done(r, status); /* a good one may have been taken, and freed */
	if (status < 0)
		rival_free(v);
}

/* Nothing where there is nobody else, or no memory: it is answered late. */
static void rival_start(struct hedges *h, struct block_read *r, struct peer *peer)
{
	struct rival *v = calloc(1, sizeof *v);
	void *buffer = v ? env_alloc_aligned((size_t)r->count * BLOCK_BYTES) : NULL;
	if (!buffer) {
		free(v);
		return;
	}
	v->hedges = h;
	v->read = r;
	v->peer = peer;
	v->since_ns = env_now_ns(h->env);
	v->iov = (struct iovec){ buffer, (size_t)r->count * BLOCK_BYTES };
	v->io = (struct segment_io){ .op = SEGMENT_READ, .segment = r->io.segment, .block = r->io.block, .blocks = r->count,
				     .iov = &v->iov, .iov_count = 1 };
	link_push(&h->rivals, &v->link);
	h->count++;
	r->sources->hedged++;
	r->rival = v;
	r->asked[r->attempts++] = peer;
	job_init(&v->job, &h->env->loop);
	peer_submit(peer, &v->io, &v->job);
	job_then(&v->job, rival_done);
}

static void look(struct hedges *h)
{
	uint64_t now = env_now_ns(h->env), late = MIN(MAX(LATE_TIMES * h->usual_ns, LATE_NS), LATE_MAX_NS);
	link_for_safe(l, n, &h->reads) {
		struct block_read *r = container_of(l, struct block_read, slow);
		if (now - r->since_ns < late || h->count >= RIVALS_MAX)
			return;
		link_drop(&r->slow); /* one rival for each */
		struct peer *peer = r->count <= RIVAL_BLOCKS_MAX && !r->rival && r->attempts < PLACEMENT_CANDIDATES_MAX ? block_read_next_peer(r) : NULL;
		if (peer && peer_usable(peer))
			rival_start(h, r, peer);
	}
}

static int hedger(void *arg)
{
	struct hedges *h = arg;
	int r = 0;
	while (!h->closing && r == 0) {
		if (link_empty(&h->reads))
			fiber_cond_wait(&h->env->loop, &h->changed);
		else if ((r = fiber_sleep(&h->env->loop, LOOK_NS)) == 0)
			look(h);
	}
	h->running = false;
	fiber_cond_wake(&h->changed);
	return 0;
}

void hedges_init(struct hedges *h, struct env *env)
{
	*h = (struct hedges){ .env = env };
	link_init(&h->reads);
	link_init(&h->rivals);
	fiber_cond_init(&h->changed);
}

int hedges_start(struct hedges *h)
{
	int r = fiber_start(&h->env->loop, hedger, h, NULL);
	h->running = r == 0;
	return r;
}

void hedges_end(struct hedges *h)
{
	h->closing = true;
	fiber_cond_wake(&h->changed);
	link_for(l, &h->rivals) {
		struct rival *v = container_of(l, struct rival, link);
		peer_cancel(v->peer, &v->io);
	}
	while (h->running || h->count > 0)
		fiber_cond_wait(&h->env->loop, &h->changed);
}
