/* What a checkpoint reads of dead lists lies where it may be that nobody answers: that can wait, and the checkpoint can't. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/store/behead.h"
#include "parallax/store/verify.h"
#include "tests/unit/clustertest.h"

enum { PATIENCE_S = 60 };
static struct {
	unsigned away;      /* the server that has the chunk alone */
	bool apart;         /* the log goes on elsewhere */
	bool done;
	int status;
} at;

static int create_alone(void *arg)
{
	struct cluster_rig *c = arg;
	struct store_volume_options o = { .size_bytes = BLOCKS * BLOCK_BYTES, .replicas = 1, .min_replicas = 1 };
	cr_assert_eq(store_volume_delete(&c->g.store, "v", true, &c->g.report), 0, "%s", c->g.report.text);
	return store_volume_create(&c->g.store, "v", &o, &c->g.report);
}

/* Whose the segment is that the log is in. */
static unsigned server_now(struct cluster_rig *c)
{
	const struct log_segment *g = c->g.volume->log.current;
	cr_assert(g);
	for (unsigned k = 0; k < SERVERS; k++)
		if (memcmp(&c->servers[k].dir->id, &g->meta.ensemble[0].server, sizeof g->meta.ensemble[0].server) == 0)
			return k;
	cr_assert_fail("segment %llu is nowhere", (unsigned long long)g->meta.id);
	return 0;
}

/* What is in memory of the dead list is written there. */
static int checkpoint_here(struct cluster_rig *c)
{
	int r = volume_checkpoint(c->g.volume);
	at.away = server_now(c);
	return r;
}

static int put_block(struct cluster_rig *c, unsigned block)
{
	int r = blk_write_wait(c->g.node, c->g.buffer, BLOCK_BYTES, block * BLOCK_BYTES, BLK_FUA);
	fiber_sleep(&c->g.env->loop, 100 * NS_PER_MS);
	return r;
}

static int body_begin(void *arg)
{
	struct cluster_rig *c = arg;
	for (unsigned b = 0; b < BLOCKS; b++)
		cr_assert_eq(put_block(c, b), 0);
	cr_assert_eq(volume_snapshot(c->g.volume, "s", &c->g.report), 0, "%s", c->g.report.text);
	cr_assert_eq(put_block(c, 0), 0);
	return checkpoint_here(c);
}

static uint32_t data_chunks(const struct cluster_rig *c)
{
	const struct space_list *l = &c->g.volume->space.lists[0];
	uint32_t n = 0;
	for (uint32_t i = 0; i < l->chunk_count; i++)
		n += !l->chunks[i].nodes;
	return n;
}

/* An owner who hasn't taken along yet what the one before had not finished. */
static int body_look(void *arg)
{
	struct cluster_rig *c = arg;
	cr_assert_eq(put_block(c, 1), 0);
	cr_assert_geq(c->g.volume->space.list_count, 1u);
	cr_assert_eq(data_chunks(c), 1u);
	at.apart = server_now(c) != at.away;
	return at.apart ? 0 : checkpoint_here(c);
}

static int run_checkpoint(void *arg)
{
	struct cluster_rig *c = arg;
	at.status = volume_checkpoint(c->g.volume);
	at.done = true;
	return 0;
}

/* It ends. */
static int run_patiently(struct cluster_rig *c, int (*run)(void *arg))
{
	at.done = false;
	cr_assert_eq(fiber_start(&c->g.env->loop, run, c, NULL), 0);
	for (unsigned s = 0; s < PATIENCE_S && !at.done; s++)
		fiber_sleep(&c->g.env->loop, NS_PER_S);
	cr_assert(at.done, "it waits for server %u", at.away);
	return at.status;
}

static int body_checkpoint(void *arg) { return run_patiently(arg, run_checkpoint); }

/* What there is of it is on one server. */
static struct cluster_rig *begin_written(void)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(volume_rig_run(&c->g, cluster_close), 0);
	cr_assert_eq(volume_rig_run(&c->g, create_alone), 0, "%s", c->g.report.text);
	cluster_open(c);
	cr_assert_eq(volume_rig_run(&c->g, body_begin), 0);
	return c;
}

static struct cluster_rig *begin_apart(void)
{
	struct cluster_rig *c = begin_written();
	at.apart = false;
	for (unsigned tries = 0; !at.apart; tries++) {
		cr_assert_lt(tries, 50u);
		cr_assert_eq(volume_rig_run(&c->g, cluster_close), 0);
		cluster_open(c);
		cr_assert_eq(volume_rig_run(&c->g, body_look), 0);
	}
	cluster_server_end(c, at.away);
	return c;
}

/* The server is there again. */
static int body_finished(void *arg)
{
	struct cluster_rig *c = arg;
	for (unsigned s = 0; s < PATIENCE_S && data_chunks(c); s++) {
		cr_assert_eq(put_block(c, 2 + s % 2), 0);
		cr_assert_eq(volume_checkpoint(c->g.volume), 0);
		fiber_sleep(&c->g.env->loop, NS_PER_S);
	}
	cr_assert_eq(data_chunks(c), 0u);
	cr_assert_eq(volume_verify_space(c->g.volume, &c->g.report), 0, "%s", c->g.report.text);
	return 0;
}

Test(checkpoint_away, an_unfinished_chunk_is_not_waited_for)
{
	struct cluster_rig *c = begin_apart();
	cr_assert_eq(volume_rig_run(&c->g, body_checkpoint), 0);
	cr_assert_eq(data_chunks(c), 1u);
	cluster_server_begin(c, at.away);
	cr_assert_eq(volume_rig_run(&c->g, body_finished), 0);
	cluster_free(c);
}

/* ---- a snapshot that was deleted ---- */

static int body_delete(void *arg)
{
	struct cluster_rig *c = arg;
	struct volume *v = c->g.volume;
	cr_assert_eq(store_doom_snapshot(&c->g.store, v->id, v->space.lists[0].mark_seq), 0);
	return body_checkpoint(c);
}

static int body_idle(void *arg)
{
	struct cluster_rig *c = arg;
	uint64_t before = c->g.volume->counters.checkpoints;
	fiber_sleep(&c->g.env->loop, 36 * NS_PER_S); /* one after 5 s, and 10, and 20 */
	uint64_t soon = c->g.volume->counters.checkpoints - before;
	cr_assert(soon == 3 || soon == 4, "%llu", (unsigned long long)soon); /* perhaps one that was due anyway */
	fiber_sleep(&c->g.env->loop, 600 * NS_PER_S);
	uint64_t made = c->g.volume->counters.checkpoints - before;
	cr_assert(made >= 17 && made <= 25, "%llu checkpoints", (unsigned long long)made);
	return 0;
}

/* Whoever asks isn't kept waiting for the next time. */
static int body_soon(void *arg)
{
	struct cluster_rig *c = arg;
	for (unsigned s = 0; s < 20 && c->g.volume->space.list_count; s++) { /* until it is connected */
		volume_reap_soon(c->g.volume);
		fiber_sleep(&c->g.env->loop, NS_PER_S);
	}
	cr_assert_eq(c->g.volume->space.list_count, 0u);
	return 0;
}

static int body_freed(void *arg)
{
	struct cluster_rig *c = arg;
	for (unsigned s = 0; s < PATIENCE_S && c->g.volume->space.list_count; s++)
		fiber_sleep(&c->g.env->loop, NS_PER_S);
	cr_assert_eq(c->g.volume->space.list_count, 0u);
	return 0;
}

Test(checkpoint_away, what_a_deleted_snapshot_had_is_not_waited_for)
{
	struct cluster_rig *c = begin_apart();
	cr_assert_eq(volume_rig_run(&c->g, body_delete), 0);
	cr_assert_geq(c->g.volume->space.list_count, 1u);
	cluster_server_begin(c, at.away);
	cr_assert_eq(volume_rig_run(&c->g, body_freed), 0);
	cluster_free(c);
}

/* An idle volume doesn't write one checkpoint after another meanwhile. */
Test(checkpoint_away, what_stays_away_is_asked_for_ever_less_often)
{
	struct cluster_rig *c = begin_apart();
	cr_assert_eq(volume_rig_run(&c->g, body_delete), 0);
	cr_assert_eq(volume_rig_run(&c->g, body_idle), 0);
	cluster_server_begin(c, at.away);
	cr_assert_eq(volume_rig_run(&c->g, body_soon), 0);
	cluster_free(c);
}

enum { MANY = 3 * CHECKPOINT_DROPS };

/* After the one that can't be read so many more than a checkpoint drops. */
static int body_delete_many(void *arg)
{
	struct cluster_rig *c = arg;
	struct volume *v = c->g.volume;
	uint64_t marks[MANY];
	for (unsigned i = 0; i < MANY; i++) {
		char name[16];
		snprintf(name, sizeof name, "s%u", i);
		cr_assert_eq(volume_snapshot(v, name, &c->g.report), 0, "%s", c->g.report.text);
		cr_assert_eq(put_block(c, 2), 0);
	}
	cr_assert_eq(volume_checkpoint(v), 0);
	cr_assert_eq(v->space.list_count, MANY + 1u);
	for (unsigned i = 0; i < MANY; i++)
		marks[i] = v->space.lists[i + 1].mark_seq;
	for (unsigned i = 0; i < MANY; i++)
		cr_assert_eq(store_doom_snapshot(&c->g.store, v->id, marks[i]), 0);
	volume_reap_soon(v);
	fiber_sleep(&c->g.env->loop, 4 * NS_PER_S);
	cr_assert_eq(v->space.list_count, 1u, "%u wait for what can't be read", v->space.list_count - 1);
	return 0;
}

Test(checkpoint_away, what_can_be_dropped_does_not_wait_for_what_stays_away)
{
	struct cluster_rig *c = begin_apart();
	cr_assert_eq(volume_rig_run(&c->g, body_delete), 0);
	cr_assert_eq(volume_rig_run(&c->g, body_delete_many), 0);
	cluster_free(c);
}

/* ---- a volume that was deleted ---- */

static int run_behead(void *arg)
{
	struct cluster_rig *c = arg;
	at.status = volume_behead(c->g.volume);
	at.done = true;
	return 0;
}

static int body_behead(void *arg) { return run_patiently(arg, run_behead); }

/* Its root is where nobody answers: who frees what it had says so, and doesn't wait for ever. */
Test(checkpoint_away, a_head_is_not_waited_for_long)
{
	struct cluster_rig *c = begin_written();
	cluster_server_end(c, at.away);
	cr_assert_lt(volume_rig_run(&c->g, body_behead), 0);
	cluster_free(c);
}
