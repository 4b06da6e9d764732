/* The merge scheduler over a simulated disk, which completes requests in any order. */
#include "core/merge.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "tests/unit/simfile.h"

#define BLOCK 4096u
#define BLOCKS 64u
#define REQUESTS 160

struct request {
	struct job job;
	struct merge_io io;
	struct iovec iov;
	uint8_t *data;
	uint8_t want[8]; /* per block, for reads */
	bool done;
	struct world *w;
};

struct world {
	struct simfile s;
	struct file *file;
	struct merge merge;
	struct merge_limits limits;
	struct request request[REQUESTS];
	unsigned count, live;
	uint8_t *memory;
};

static int world_open(void *arg)
{
	struct world *w = arg;
	cr_assert_eq(file_open(w->s.env, "/f", FILE_OPEN_WRITE | FILE_OPEN_DIRECT, &w->file), 0);
	return merge_init(&w->merge, w->s.env, w->file, &w->limits);
}

static int world_close(void *arg)
{
	struct world *w = arg;
	merge_destroy(&w->merge);
	return file_close(w->s.env, w->file);
}

static struct world *world_new(uint64_t seed, uint64_t size)
{
	struct world *w = calloc(1, sizeof *w);
	simfile_start(&w->s, seed, 512);
	simfile_make(&w->s, "/f", size);
	w->memory = env_alloc_aligned((size_t)REQUESTS * 8 * BLOCK);
	w->limits = MERGE_LIMITS_DEFAULT;
	cr_assert_eq(sim_run_fiber(w->s.env, world_open, w), 0);
	return w;
}

static void world_free(struct world *w)
{
	cr_assert_eq(sim_run_fiber(w->s.env, world_close, w), 0);
	simfile_stop(&w->s);
	free(w->memory);
	free(w);
}

static void request_done(struct job *j)
{
	struct request *r = container_of(j, struct request, job);
	r->done = true;
	r->w->live--;
}

/* Blocks [at, at + n) of the file; a write fills each with `fill`. */
static struct request *submit(struct world *w, enum file_op op, unsigned at, unsigned n, uint8_t fill)
{
	struct request *r = &w->request[w->count];
	*r = (struct request){ .w = w, .data = w->memory + (size_t)w->count * 8 * BLOCK };
	w->count++;
	w->live++;
	r->iov = (struct iovec){ r->data, (size_t)n * BLOCK };
	r->io = (struct merge_io){ .op = op, .offset = (uint64_t)at * BLOCK, .length = (uint64_t)n * BLOCK };
	if (op == FILE_READ || op == FILE_WRITE) {
		r->io.iov = &r->iov;
		r->io.iov_count = 1;
	}
	memset(r->data, fill, (size_t)n * BLOCK);
	job_init(&r->job, &w->s.env->loop);
	merge_submit(&w->merge, &r->io, &r->job);
	job_then(&r->job, request_done);
	return r;
}

static void finish(struct world *w)
{
	while (w->live && sim_step(w->s.sim))
		;
	cr_assert_eq(w->live, 0, "requests that never end");
	w->count = 0;
}

static uint8_t on_disk(struct world *w, unsigned block)
{
	uint8_t b[BLOCK];
	cr_assert_eq(sim_disk_read(w->s.host, "/f", (uint64_t)block * BLOCK, b, sizeof b), 0);
	for (unsigned i = 1; i < BLOCK; i++)
		cr_assert_eq(b[i], b[0]);
	return b[0];
}

Test(merge, neighbours_of_one_turn_become_one_request)
{
	struct world *w = world_new(1, 1 << 20);
	static const uint8_t order[] = { 3, 1, 7, 0, 2, 6, 4, 5 };
	for (unsigned i = 0; i < 8; i++)
		submit(w, FILE_WRITE, order[i], 1, order[i] + 1);
	submit(w, FILE_WRITE, 20, 1, 99); /* no neighbour */
	finish(w);
	cr_assert_eq(w->merge.counters.requests_in, 9);
	cr_assert_eq(w->merge.counters.requests_out, 2);
	for (unsigned i = 0; i < 8; i++)
		cr_assert_eq(on_disk(w, i), i + 1);
	cr_assert_eq(on_disk(w, 20), 99);
	for (unsigned i = 0; i < 8; i++)
		submit(w, FILE_READ, order[i], 1, 0);
	submit(w, FILE_WRITE, 8, 1, 9); /* a write is no neighbour of a read */
	finish(w);
	cr_assert_eq(w->merge.counters.requests_out, 4);
	for (unsigned i = 0; i < 8; i++)
		cr_assert_eq(w->request[i].data[BLOCK - 1], order[i] + 1);
	world_free(w);
}

Test(merge, limits_are_kept)
{
	struct world *w = world_new(1, 1 << 20);
	w->merge.limits.segments_max = 3;
	for (unsigned i = 0; i < 8; i++)
		submit(w, FILE_WRITE, i, 1, 1);
	finish(w);
	cr_assert_eq(w->merge.counters.requests_out, 3);
	w->merge.limits.segments_max = 256;
	w->merge.limits.bytes_max = 4 * BLOCK;
	for (unsigned i = 0; i < 8; i++)
		submit(w, FILE_WRITE, i, 1, 1);
	submit(w, FILE_WRITE, 8, 8, 1); /* larger than the limit: alone */
	finish(w);
	cr_assert_eq(w->merge.counters.requests_out, 3 + 3);
	w->merge.limits.in_flight_max = 2;
	for (unsigned i = 0; i < 30; i++)
		submit(w, FILE_WRITE, i * 2, 1, 2);
	while (w->live && sim_step(w->s.sim))
		cr_assert(w->merge.in_flight <= 2);
	w->count = 0;
	world_free(w);
}

Test(merge, never_across_a_sync)
{
	struct world *w = world_new(1, 1 << 20);
	submit(w, FILE_WRITE, 0, 1, 1);
	submit(w, FILE_SYNC, 0, 0, 0);
	submit(w, FILE_WRITE, 1, 1, 1);
	finish(w);
	cr_assert_eq(w->merge.counters.requests_out, 2);
	world_free(w);
}

Test(merge, waiting_syncs_share_one)
{
	struct world *w = world_new(1, 1 << 20);
	for (unsigned i = 0; i < 5; i++)
		submit(w, FILE_SYNC, 0, 0, 0);
	finish(w);
	cr_assert_eq(w->merge.counters.syncs_in, 5);
	cr_assert_eq(w->merge.counters.syncs_out, 2, "the first, and one for those that came while it ran");
	world_free(w);
}

Test(merge, after_a_failed_sync_those_that_wait_fail_too)
{
	struct world *w = world_new(1, 1 << 20);
	submit(w, FILE_SYNC, 0, 0, 0);
	submit(w, FILE_SYNC, 0, 0, 0);
	sim_doses(w->s.sim)->sync_error = 1000000;
	while (!w->request[0].done)
		sim_step(w->s.sim);
	*sim_doses(w->s.sim) = (struct sim_doses){ 0 };
	unsigned count = w->count;
	finish(w);
	for (unsigned i = 0; i < count; i++)
		cr_assert_eq(w->request[i].io.status, -EIO);
	cr_assert_eq(submit(w, FILE_SYNC, 0, 0, 0)->io.status, -EIO);
	finish(w);
	world_free(w);
}

Test(merge, a_stream_is_collected_and_random_requests_are_not)
{
	struct world *w = world_new(3, 4 << 20);
	unsigned next = 0;
	for (unsigned i = 0; i < 6; i++) /* busy: in flight, unmerged */
		submit(w, FILE_READ, 200 + i * 2, 1, 0);
	while (w->merge.in_flight < 6)
		sim_step(w->s.sim);
	for (; next < 40; next++) { /* one by one, each in a turn of its own */
		submit(w, FILE_WRITE, next, 1, (uint8_t)(next + 1));
		while (w->merge.dispatch_pending)
			sim_step(w->s.sim);
	}
	finish(w);
	for (unsigned i = 0; i < next; i++)
		cr_assert_eq(on_disk(w, i), i + 1);
	cr_assert(w->merge.counters.held > 0);
	cr_assert(w->merge.counters.requests_out < 6 + 20, "%lu out", (unsigned long)w->merge.counters.requests_out);

	uint64_t held = w->merge.counters.held, out = w->merge.counters.requests_out;
	for (unsigned i = 0; i < 32; i++) {
		submit(w, FILE_READ, 300 + i * 37 % 32 * 8, 1, 0);
		while (w->merge.dispatch_pending)
			sim_step(w->s.sim);
		cr_assert_eq(w->merge.queued, 0, "a random request had to wait");
	}
	finish(w);
	cr_assert_eq(w->merge.counters.held, held);
	cr_assert_eq(w->merge.counters.requests_out, out + 32);
	world_free(w);
}

/* Overlapping requests take effect in the order of their arrival, whatever the disk does. */
static void overlap_round(uint64_t seed)
{
	struct world *w = world_new(seed, 4 << 20);
	uint8_t model[BLOCKS + 8] = { 0 };
	if (seed % 2)
		w->merge.limits.in_flight_max = 3;
	for (unsigned i = 0; i < REQUESTS; i++) {
		unsigned at = (unsigned)(sim_random(w->s.sim) % BLOCKS), n = 1 + (unsigned)(sim_random(w->s.sim) % 8);
		unsigned kind = (unsigned)(sim_random(w->s.sim) % 10);
		enum file_op op = kind < 4 ? FILE_READ : kind < 8 ? FILE_WRITE : kind < 9 ? FILE_DISCARD : FILE_SYNC;
		struct request *r = submit(w, op, at, n, (uint8_t)(i + 1));
		memcpy(r->want, model + at, n);
		if (op == FILE_WRITE || op == FILE_DISCARD)
			memset(model + at, op == FILE_WRITE ? (int)(uint8_t)(i + 1) : 0, n);
		for (uint64_t steps = sim_random(w->s.sim) % 6; steps > 0; steps--)
			sim_step(w->s.sim);
	}
	unsigned count = w->count;
	finish(w);
	for (unsigned i = 0; i < count; i++) {
		struct request *r = &w->request[i];
		cr_assert_eq(r->io.status, 0);
		for (unsigned b = 0; r->io.op == FILE_READ && b < r->io.length / BLOCK; b++)
			cr_assert(r->data[b * BLOCK] == r->want[b] && r->data[b * BLOCK + BLOCK - 1] == r->want[b],
				  "seed %lu: request %u read %u, wanted %u", (unsigned long)seed, i, r->data[b * BLOCK], r->want[b]);
	}
	for (unsigned b = 0; b < BLOCKS; b++)
		cr_assert_eq(on_disk(w, b), model[b], "seed %lu: block %u", (unsigned long)seed, b);
	world_free(w);
}

/* Reads of blocks 0 to 7 for ever: as each ends, it comes again. */
struct crowd {
	struct job job;
	struct merge_io io;
	struct iovec iov;
	struct world *w;
	bool *stop;
	unsigned *ended;
};

static void crowd_again(struct job *j);

static void crowd_submit(struct crowd *c)
{
	c->io = (struct merge_io){ .op = FILE_READ, .offset = c->io.offset, .length = BLOCK, .iov = &c->iov, .iov_count = 1 };
	job_init(&c->job, &c->w->s.env->loop);
	merge_submit(&c->w->merge, &c->io, &c->job);
	job_then(&c->job, crowd_again);
}

static void crowd_again(struct job *j)
{
	struct crowd *c = container_of(j, struct crowd, job);
	++*c->ended;
	if (*c->stop)
		c->w->live--;
	else
		crowd_submit(c);
}

Test(merge, nobody_is_overtaken_for_ever)
{
	struct world *w = world_new(1, 1 << 20);
	struct crowd crowd[8];
	bool stop = false;
	unsigned ended = 0;
	w->merge.limits.in_flight_max = 2;
	w->merge.limits.bytes_max = BLOCK;
	for (unsigned i = 0; i < 8; i++) {
		crowd[i] = (struct crowd){ .w = w, .stop = &stop, .ended = &ended, .io.offset = (uint64_t)(2 * i) * BLOCK };
		crowd[i].iov = (struct iovec){ w->memory + (size_t)(8 + i) * 8 * BLOCK, BLOCK };
		crowd_submit(&crowd[i]);
		w->live++;
	}
	struct request *far = submit(w, FILE_READ, 60, 1, 0), *written = submit(w, FILE_WRITE, 40, 1, 7);
	while (ended < 300 && !(far->done && written->done) && sim_step(w->s.sim))
		;
	stop = true;
	bool far_done = far->done, written_done = written->done;
	finish(w);
	cr_expect(far_done, "a read behind all others waited for %u of them", ended);
	cr_expect(written_done, "a write waited for %u reads", ended);
	world_free(w);
}

Test(merge, overlapping_requests_keep_their_order)
{
	for (uint64_t seed = 1; seed <= 60; seed++)
		overlap_round(seed);
}

Test(merge, an_error_is_only_for_whom_it_concerns)
{
	unsigned failed = 0, succeeded = 0;
	uint64_t split = 0;
	for (uint64_t seed = 1; seed <= 30; seed++) {
		struct world *w = world_new(seed, 1 << 20);
		for (unsigned i = 0; i < 8; i++)
			submit(w, FILE_WRITE, i, 1, (uint8_t)(i + 1));
		finish(w);
		sim_doses(w->s.sim)->read_error = 300000;
		for (unsigned i = 0; i < 8; i++)
			submit(w, FILE_READ, i, 1, 0);
		finish(w);
		*sim_doses(w->s.sim) = (struct sim_doses){ 0 };
		for (unsigned i = 0; i < 8; i++) {
			struct request *r = &w->request[i];
			failed += r->io.status == -EIO;
			succeeded += r->io.status == 0;
			cr_assert(r->io.status == -EIO || r->data[BLOCK - 1] == i + 1);
		}
		split += w->merge.counters.split;
		world_free(w);
	}
	cr_assert(split >= 5 && failed >= 5 && succeeded > 150, "%lu split, %u failed, %u fine", (unsigned long)split, failed,
		  succeeded);
	/* Were a merged error everybody's, eight would fail for each: */
	cr_assert(failed < split * 6);
}

Test(merge, the_end_of_the_file_is_only_for_whom_it_concerns)
{
	struct world *w = world_new(1, 2 * BLOCK + 1024);
	for (unsigned i = 0; i < 4; i++)
		submit(w, FILE_READ, i, 1, 7);
	finish(w);
	cr_assert_eq(w->merge.counters.requests_out, 1);
	cr_assert_eq(w->request[0].io.done, BLOCK);
	cr_assert_eq(w->request[1].io.done, BLOCK);
	cr_assert_eq(w->request[2].io.done, 1024);
	cr_assert_eq(w->request[3].io.done, 0);
	world_free(w);
}
