#include "tests/sim/read_repair.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "parallax/segment/segment_dir.h"
#include "parallax/segment/segment_scrub.h"
#include "parallax/volume/volume_private.h"

enum { TRIES = 8, FLIPPED_AT = 1234 };
#define SOON_NS (10 * NS_PER_S)

/* A copy. */
struct damaged {
	struct block_server *server;
	struct peer *peer;
	uint64_t position;
	char path[96];
	uint64_t offset; /* of the block, in the file */
	uint8_t was[BLOCK_BYTES], mask;
};

struct check {
	struct scenario_run *run;
	struct sim *sim;
	struct owner *user;
	struct block_server *servers;
	unsigned count;
	struct pointer at, pair[2]; /* pair: of two blocks of the volume, from `block` on */
	uint64_t block;
	struct damaged copies[3]; /* the first `copy_count` are damaged */
	unsigned copy_count, now; /* now: which is looked for */
	uint64_t done[TRIES];     /* positions; a server isn't told of the same again so soon */
};

static int look_up(struct check *c, uint64_t block, uint32_t count, struct pointer *ret)
{
	int r = -EAGAIN;
	while (r == -EAGAIN) {
		struct job j;
		job_init(&j, &c->user->env->loop);
		r = volume_lookup(c->user->volume, block, count, ret, &j);
		int loaded = fiber_wait(&j);
		r = loaded < 0 ? loaded : r;
	}
	return r;
}

static int choose_run(void *arg)
{
	struct check *c = arg;
	return look_up(c, sim_random(c->sim) % div_up(volume_size(c->user->volume), BLOCK_BYTES), 1, &c->at);
}

static int choose_pair_run(void *arg)
{
	struct check *c = arg;
	c->block = sim_random(c->sim) % (volume_size(c->user->volume) / BLOCK_BYTES - 1);
	return look_up(c, c->block, 2, c->pair);
}

/* Where the copy has it; -ENOENT: it has it not, or not so that what it should be is known there. */
static int locate_run(void *arg)
{
	struct check *c = arg;
	struct damaged *d = &c->copies[c->now];
	uint64_t segment = position_segment(d->position);
	uint32_t block = position_block(d->position);
	struct scrub_slice slice;
	int r = segment_dir_look(d->server->dir, segment, block, block + 1, &slice);
	if (r < 0 || slice.bad || slice.blocks == 0)
		return -ENOENT;
	struct copy *copy = copy_hold(dir_of(d->server->dir), segment);
	fiber_mutex_lock(&d->server->env->loop, &copy->mutex);
	r = dir_load(copy);
	if (r == 0)
		r = copy_find(copy, block, 1, &d->offset);
	fiber_mutex_unlock(&copy->mutex);
	copy_release(copy);
	snprintf(d->path, sizeof d->path, "%s/segments/%02x/%012" PRIx64 ".seg", d->server->path ? d->server->path : "/data", (unsigned)(segment & 0xff), segment);
	return r;
}

static struct block_server *server_of(struct check *c, const struct peer *p)
{
	for (unsigned i = 0; i < c->count; i++)
		if (c->servers[i].env && memcmp(&c->servers[i].dir->id, &p->id, sizeof p->id) == 0)
			return &c->servers[i];
	return NULL;
}

/* Who is asked first, and perhaps who is next; another one has it right. */
static bool find_copies(struct check *c)
{
	struct peer *peers[PLACEMENT_CANDIDATES_MAX];
	unsigned n = copies_candidates(c->user->volume->copies, position_segment(c->at.position), peers), have = 0;
	for (unsigned i = 0; i < n && i < ARRAY_COUNT(c->copies); i++) {
		c->now = i;
		c->copies[i] = (struct damaged){ .server = server_of(c, peers[i]), .peer = peers[i], .position = c->at.position, .mask = (uint8_t)(1u << i) };
		if (!c->copies[i].server || sim_run_fiber(c->copies[i].server->env, locate_run, c) < 0)
			break;
		have++;
	}
	c->copy_count = have > 2 && sim_random(c->sim) % 4 ? 2 : 1;
	return have > 1 && copies_candidates(c->user->volume->copies, position_segment(c->at.position), peers) == n && peers[0] == c->copies[0].peer;
}

static void flip(const struct damaged *d) { sim_disk_flip(d->server->host, d->path, d->offset + FLIPPED_AT, d->mask); }

static bool is_whole(const struct damaged *d)
{
	uint8_t now[BLOCK_BYTES];
	return sim_disk_read(d->server->host, d->path, d->offset, now, BLOCK_BYTES) == 0 && memcmp(now, d->was, BLOCK_BYTES) == 0;
}

static int read_run(void *arg)
{
	struct check *c = arg;
	uint8_t *page = env_alloc_aligned(BLOCK_BYTES);
	int r = sources_read_wait(volume_sources(c->user->volume), &c->at, page);
	if (r == 0 && memcmp(page, c->copies[0].was, BLOCK_BYTES) != 0)
		r = -EBADMSG;
	free(page);
	return r;
}

static bool all_whole(const struct check *c)
{
	bool whole = true;
	for (unsigned i = 0; i < c->copy_count; i++)
		whole &= is_whole(&c->copies[i]);
	return whole;
}

static void read_damaged(struct check *c)
{
	const struct sources *s = volume_sources(c->user->volume);
	uint64_t before = s->damaged;
	for (unsigned i = 0; i < c->copy_count; i++) {
		struct damaged *d = &c->copies[i];
		sim_disk_read(d->server->host, d->path, d->offset, d->was, BLOCK_BYTES);
		flip(d);
	}
	int r = sim_run_fiber(c->user->env, read_run, c);
	if (r < 0)
		scenario_fail(c->run, "a block that one server has right can't be read: %d", r);
	uint64_t found = s->damaged - before, until = sim_now_ns(c->sim) + SOON_NS;
	while (found == c->copy_count && !c->run->failed && !all_whole(c) && sim_now_ns(c->sim) < until && sim_step(c->sim))
		;
	for (unsigned i = 0; i < c->copy_count; i++) {
		struct damaged *d = &c->copies[i];
		if (is_whole(d))
			continue;
		if (found == c->copy_count)
			scenario_fail(c->run, "segment %" PRIu64 ", block %u: a read has found it damaged on %s, and it isn't repaired", position_segment(c->at.position),
				      position_block(c->at.position), d->server->domain);
		flip(d); /* another one was read */
	}
}

/* ---- a run of blocks that no copy has all of, and each of which some copy has ---- */

/* The second copy lacks the second of two blocks that lie side by side, the others the first. */
static bool find_pair(struct check *c)
{
	struct peer *peers[PLACEMENT_CANDIDATES_MAX];
	uint64_t first = c->pair[0].position;
	if (!first || c->pair[1].position != first + 1)
		return false;
	unsigned n = copies_candidates(c->user->volume->copies, position_segment(first), peers);
	c->copy_count = 0;
	for (unsigned i = 0; i < n && c->copy_count < ARRAY_COUNT(c->copies); i++) {
		unsigned at = c->now = c->copy_count;
		c->copies[at] = (struct damaged){ .server = server_of(c, peers[i]), .peer = peers[i], .position = first + (at == 1), .mask = (uint8_t)(1u << at) };
		if (c->copies[at].server && sim_run_fiber(c->copies[at].server->env, locate_run, c) == 0)
			c->copy_count++;
	}
	return c->copy_count > 1;
}

static int read_pair_run(void *arg)
{
	struct check *c = arg;
	uint8_t *b = env_alloc_aligned(2 * BLOCK_BYTES);
	int r = blk_read_wait(c->user->node, b, 2 * BLOCK_BYTES, c->block * BLOCK_BYTES);
	for (unsigned i = 0; r == 0 && i < 2; i++)
		if (memcmp(b + i * BLOCK_BYTES, c->copies[i].was, BLOCK_BYTES) != 0)
			r = -EBADMSG;
	free(b);
	return r;
}

static void read_pair(struct check *c)
{
	for (unsigned i = 0; i < c->copy_count; i++) {
		struct damaged *d = &c->copies[i];
		sim_disk_read(d->server->host, d->path, d->offset, d->was, BLOCK_BYTES);
		flip(d);
	}
	int r = sim_run_fiber(c->user->env, read_pair_run, c);
	if (r < 0)
		scenario_fail(c->run, "two blocks, each of which one server has right, can't be read: %d", r);
	for (uint64_t until = sim_now_ns(c->sim) + SOON_NS; !c->run->failed && !all_whole(c) && sim_now_ns(c->sim) < until && sim_step(c->sim);)
		;
	for (unsigned i = 0; i < c->copy_count; i++)
		if (!is_whole(&c->copies[i]))
			flip(&c->copies[i]);
}

static bool is_new(const struct check *c)
{
	bool new = c->at.position != 0;
	for (unsigned i = 0; i < TRIES; i++)
		new &= c->done[i] != c->at.position;
	return new;
}

void read_repair_check(struct scenario_run *run, struct sim *sim, struct owner *user, struct block_server *servers, unsigned count)
{
	struct check *c = calloc(1, sizeof *c);
	*c = (struct check){ .run = run, .sim = sim, .user = user, .servers = servers, .count = count };
	for (unsigned n = 0; n < TRIES && !run->failed; n++) {
		if (sim_run_fiber(user->env, choose_run, c) == 0 && is_new(c) && find_copies(c))
			read_damaged(c);
		c->done[n] = c->at.position;
	}
	for (unsigned n = 0; n < TRIES && !run->failed; n++)
		if (sim_run_fiber(user->env, choose_pair_run, c) == 0 && find_pair(c)) {
			read_pair(c);
			break; /* what is repaired is told of once */
		}
	free(c);
}
