/* What is kept until it is synced (parallax/volume/log_retain.c), with a server whose syncs take as long as the test wants. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "core/env_sim.h"
#include "parallax/volume/volume_private.h"

enum { RECORD = 4, ROOM = 16 }; /* blocks: of each; that may be kept */

struct slow {
	struct segment_server server; /* first */
	struct segment_io *sync;      /* the one under way */
	unsigned syncs;
};

struct rig {
	struct sim *sim;
	struct slow server;
	struct volume volume;
	struct log_record record;
	struct log_segment *segment;
	uint8_t *bytes;
};

static void slow_submit(struct segment_server *server, struct segment_io *io)
{
	struct slow *s = (struct slow *)server;
	cr_assert(io->op == SEGMENT_SYNC && !s->sync);
	s->sync = io;
	s->syncs++;
}

static const struct segment_server_ops slow_ops = { .submit = slow_submit };

static struct rig *rig_make(void)
{
	struct rig *g = calloc(1, sizeof *g);
	struct volume *v = &g->volume;
	struct meta_segment m = { .id = 1, .epoch = 1, .size_blocks = 1000, .ensemble_count = 1 };
	g->sim = sim_create(1, NULL);
	v->env = sim_process_create(g->sim, sim_host_create(g->sim, "h", 1 << 20, 4096));
	v->limits.retain_bytes = ROOM * BLOCK_BYTES;
	v->copies = calloc(1, sizeof *v->copies);
	v->copies->env = v->env;
	fiber_cond_init(&v->copies->changed);
	fiber_cond_init(&v->log.changed);
	g->server.server = (struct segment_server){ .ops = &slow_ops, .env = v->env };
	copies_peer(v->copies, &m.ensemble[0].server)->server = &g->server.server;
	cr_assert_eq(log_init(v), 0);
	g->segment = log_segment_add(v, &m);
	g->bytes = calloc(RECORD, BLOCK_BYTES);
	return g;
}

static void rig_free(struct rig *g)
{
	struct volume *v = &g->volume;
	log_destroy(v);
	free(v->copies->peers[0]);
	free(v->copies);
	sim_process_destroy(v->env);
	sim_destroy(g->sim);
	free(g->bytes);
	free(g);
}

/* So many records more, of which each fills a quarter of the room. */
static void acknowledge(struct rig *g, unsigned count)
{
	struct log *l = &g->volume.log;
	for (unsigned i = 0; i < count; i++) {
		g->record.segment = g->segment;
		g->record.head = (struct record){ .seq = ++l->acked_seq, .block = g->segment->acked, .header_blocks = 1, .payload_blocks = RECORD - 1 };
		g->record.iov[0] = (struct iovec){ g->bytes, RECORD * BLOCK_BYTES };
		g->record.iov_count = 1;
		g->segment->acked += RECORD;
		log_retain(&g->volume, &g->record);
	}
}

/* The sync under way ends, and what comes of that. */
static int body_synced(void *arg)
{
	struct rig *g = arg;
	struct segment_io *io = g->server.sync;
	cr_assert(io, "nothing is being synced");
	g->server.sync = NULL;
	job_put(io->parent, io->status = 0);
	return fiber_sleep(&g->volume.env->loop, NS_PER_MS);
}

static void synced(struct rig *g) { cr_assert_eq(sim_run_fiber(g->volume.env, body_synced, g), 0); }

/* Nothing else may come that would have it synced: whoever writes waits. */
Test(log_retain, what_fills_the_room_during_a_sync_is_synced_next)
{
	struct rig *g = rig_make();
	acknowledge(g, 3);
	cr_assert_eq(g->server.syncs, 1);
	acknowledge(g, 5);
	cr_assert_eq(g->server.syncs, 1, "two at a time");
	synced(g);
	cr_assert(log_retain_full(&g->volume));
	cr_assert_eq(g->server.syncs, 2, "the room stays full");
	synced(g);
	cr_assert_eq(g->volume.log.retained_bytes, 0);
	cr_assert_eq(g->server.syncs, 2);
	rig_free(g);
}

Test(log_retain, what_is_little_after_a_sync_waits)
{
	struct rig *g = rig_make();
	acknowledge(g, 3);
	acknowledge(g, 2);
	synced(g);
	cr_assert_eq(g->volume.log.retained_bytes, 2 * RECORD * BLOCK_BYTES);
	cr_assert(!log_retain_full(&g->volume) && !g->server.sync);
	acknowledge(g, 1);
	cr_assert_eq(g->server.syncs, 2);
	synced(g);
	rig_free(g);
}
