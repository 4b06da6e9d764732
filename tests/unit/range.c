/* The range lock against the obvious oracle: a list in order of arrival, in which a range is
 * owned when nothing before it conflicts. */
#include "core/range.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define SLOTS 48

struct holder {
	struct job job;
	struct range range;
	bool used, owned;
	uint64_t order;
};

struct world {
	struct loop loop;
	struct range_lock lock;
	struct holder holder[SLOTS];
	uint64_t random, next_order;
};

static uint64_t draw(struct world *w, uint64_t below)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return (w->random >> 11) % below;
}

static void owned_now(struct job *j)
{
	container_of(j, struct holder, job)->owned = true;
}

/* How many earlier ranges `h` has to wait for, the slow way. */
static unsigned oracle_waits(const struct world *w, const struct holder *h)
{
	unsigned n = 0;
	for (unsigned i = 0; i < SLOTS; i++) {
		const struct holder *o = &w->holder[i];
		if (!o->used || o->order >= h->order || !(o->range.exclusive || h->range.exclusive))
			continue;
		uint64_t from = o->range.start > h->range.start ? o->range.start : h->range.start;
		uint64_t to = o->range.end < h->range.end ? o->range.end : h->range.end;
		n += from < to;
	}
	return n;
}

static void take(struct world *w, struct holder *h, uint64_t start, uint64_t end, bool exclusive)
{
	h->range = (struct range){ .start = start, .end = end, .exclusive = exclusive };
	h->used = true;
	h->owned = false;
	h->order = w->next_order++;
	job_init(&h->job, &w->loop);
	range_acquire(&w->lock, &h->range, &h->job);
	job_then(&h->job, owned_now);
}

static void drop(struct world *w, struct holder *h)
{
	range_release(&w->lock, &h->range);
	h->used = false;
}

static void check_all(struct world *w, uint64_t seed)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		struct holder *h = &w->holder[i];
		if (!h->used)
			continue;
		unsigned want = oracle_waits(w, h);
		cr_assert(h->owned == (want == 0), "seed %lu: [%lu,%lu) owned %d, waits for %u", (unsigned long)seed,
			  (unsigned long)h->range.start, (unsigned long)h->range.end, h->owned, want);
		cr_assert(h->owned || h->job.pending == want, "seed %lu: waits for %u, counted %u",
			  (unsigned long)seed, want, h->job.pending);
	}
}

static struct world *world_new(uint64_t seed)
{
	struct world *w = calloc(1, sizeof *w);
	loop_init(&w->loop, NULL);
	range_lock_init(&w->lock);
	w->random = seed * UINT64_C(0x9E3779B97F4A7C15) | 1;
	return w;
}

static void random_sequence(uint64_t seed)
{
	struct world *w = world_new(seed);
	uint64_t span = 4 + draw(w, 60), shared_in_10 = draw(w, 10), longest = 1 + draw(w, span);
	for (unsigned step = 0; step < 150; step++) {
		struct holder *h = &w->holder[draw(w, SLOTS)];
		if (h->used && h->owned)
			drop(w, h);
		else if (!h->used) {
			uint64_t start = draw(w, span), length = 1 + draw(w, longest);
			take(w, h, start, start + length, draw(w, 10) >= shared_in_10);
		}
		loop_run_ready(&w->loop);
		check_all(w, seed);
	}
	for (bool any = true; any;) {
		any = false;
		for (unsigned i = 0; i < SLOTS; i++)
			if (w->holder[i].used && w->holder[i].owned) {
				drop(w, &w->holder[i]);
				any = true;
			}
		loop_run_ready(&w->loop);
	}
	cr_assert(range_lock_idle(&w->lock), "seed %lu: somebody waits for ever", (unsigned long)seed);
	free(w);
}

Test(range, random_sequences_agree_with_the_oracle)
{
	for (uint64_t seed = 1; seed <= 4000; seed++)
		random_sequence(seed);
}

Test(range, readers_share_and_writers_wait)
{
	struct world *w = world_new(1);
	struct holder *h = w->holder;
	take(w, &h[0], 0, 10, false);
	take(w, &h[1], 5, 15, false);
	take(w, &h[2], 9, 11, true);
	take(w, &h[3], 10, 11, false); /* behind the writer, though only readers are running */
	take(w, &h[4], 15, 16, true);  /* touches, doesn't overlap */
	loop_run_ready(&w->loop);
	cr_assert(h[0].owned && h[1].owned && !h[2].owned && !h[3].owned && h[4].owned);
	drop(w, &h[0]);
	loop_run_ready(&w->loop);
	cr_assert(!h[2].owned);
	drop(w, &h[1]);
	loop_run_ready(&w->loop);
	cr_assert(h[2].owned && !h[3].owned);
	drop(w, &h[2]);
	loop_run_ready(&w->loop);
	cr_assert(h[3].owned);
	drop(w, &h[3]);
	drop(w, &h[4]);
	cr_assert(range_lock_idle(&w->lock));
	free(w);
}

Test(range, ranges_of_one_job_do_not_wait_for_each_other)
{
	struct world *w = world_new(1);
	struct holder *h = w->holder;
	struct range second = { .start = 5, .end = 20, .exclusive = true };
	h[0].range = (struct range){ .start = 0, .end = 10, .exclusive = true };
	job_init(&h[0].job, &w->loop);
	range_acquire(&w->lock, &h[0].range, &h[0].job);
	range_acquire(&w->lock, &second, &h[0].job);
	job_then(&h[0].job, owned_now);
	take(w, &h[1], 8, 12, false); /* counts both */
	loop_run_ready(&w->loop);
	cr_assert(h[0].owned && !h[1].owned && h[1].job.pending == 2);
	range_release(&w->lock, &h[0].range);
	range_release(&w->lock, &second);
	loop_run_ready(&w->loop);
	cr_assert(h[1].owned);
	drop(w, &h[1]);
	free(w);
}

Test(range, many_in_flight_stay_shallow)
{
	enum { MANY = 20000 };
	struct loop loop;
	struct range_lock lock;
	struct holder *h = calloc(MANY, sizeof *h);
	loop_init(&loop, NULL);
	range_lock_init(&lock);
	for (unsigned i = 0; i < MANY; i++) { /* sorted starts: the worst for a plain tree */
		h[i].range = (struct range){ .start = i, .end = i + 1, .exclusive = true };
		job_init(&h[i].job, &loop);
		range_acquire(&lock, &h[i].range, &h[i].job);
		job_then(&h[i].job, owned_now);
	}
	loop_run_ready(&loop);
	unsigned depth_max = 0;
	for (unsigned i = 0; i < MANY; i++) {
		unsigned depth = 0;
		for (const struct range *t = lock.root; t != &h[i].range; depth++)
			t = h[i].range.start < t->start ? t->left : t->right;
		depth_max = depth > depth_max ? depth : depth_max;
		cr_assert(h[i].owned);
	}
	cr_assert(depth_max < 100, "depth %u", depth_max);
	for (unsigned i = 0; i < MANY; i++)
		range_release(&lock, &h[i].range);
	cr_assert(range_lock_idle(&lock));
	free(h);
}
