/* What flies when a segment fails, while there is no space for another: what is kept for checkpoints isn't for guest data (R32), nor would all of it fit there. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fiber.h"
#include "parallax/volume/volume_private.h"
#include "tests/unit/between.h"
#include "tests/unit/volumetest.h"

enum { WRITES = 4 };

/* Of the store: so long are its segments, and the writes; so much space leaves room only for what is kept. */
struct sizes {
	uint32_t segment_blocks, write_blocks;
	uint64_t left_bytes;
};
static const struct sizes *sizes;

static uint64_t bad_segment; /* nothing is appended to it */

static void bad_submit(struct segment_server *s, struct segment_io *io)
{
	if (io->op == SEGMENT_APPEND && io->segment == bad_segment)
		between_answer(io, -EIO);
	else
		between_pass(s, io);
}

static int body_resend(void *arg)
{
	struct volume_rig *g = arg;
	struct volume_write w[WRITES];
	struct job j[WRITES];
	size_t write_bytes = (size_t)sizes->write_blocks * BLOCK_BYTES;
	uint8_t *bytes = env_alloc_aligned(WRITES * write_bytes);
	struct iovec iov[WRITES];
	struct volume_counters n;
	between(g->volume->server, bad_submit);
	bad_segment = container_of(g->volume->log.segments.next, struct log_segment, link)->meta.id;
	for (unsigned i = 0; i < WRITES; i++) {
		iov[i] = (struct iovec){ bytes + i * write_bytes, write_bytes };
		memset(iov[i].iov_base, (int)i + 1, write_bytes);
		w[i] = (struct volume_write){ .first = (uint64_t)i * sizes->write_blocks, .count = sizes->write_blocks, .iov = &iov[i], .iov_count = 1 };
		job_init(&j[i], &g->env->loop);
		volume_write(g->volume, &w[i], &j[i]);
	}
	cr_assert_eq(g->volume->log.flying_count, 2, "the second one was to be sent beside the first");
	sim_host_fill(g->host, sizes->left_bytes);
	for (unsigned i = 0; i < WRITES; i++)
		cr_assert_eq(fiber_wait(&j[i]), -ENOSPC, "write %u took what is kept", i);
	cr_assert(g->volume->log.full && log_room(g->volume) <= WRITES * LOG_RESERVE_BLOCKS, "there is space");
	sim_host_fill(g->host, UINT64_MAX);
	while (g->volume->log.full)
		fiber_sleep(&g->env->loop, 10 * NS_PER_MS);
	volume_count(g->volume, &n);
	cr_assert_eq(n.mends, 1, "what was sent again failed in its turn: %llu times", (unsigned long long)n.mends - 1);
	job_init(&j[0], &g->env->loop);
	volume_write(g->volume, &w[0], &j[0]);
	cr_assert_eq(fiber_wait(&j[0]), 0);
	cr_assert_eq(volume_checkpoint(g->volume), 0);
	free(bytes);
	return 0;
}

static void resend(const struct sizes *how)
{
	sizes = how;
	struct volume_rig *g = volume_rig_make_on(1, (uint64_t)WRITES * how->write_blocks * BLOCK_BYTES, UINT64_C(256) << 20);
	g->segment_blocks = how->segment_blocks;
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body_resend), 0);
	volume_rig_free(g);
}

Test(log_resend, guest_data_does_not_go_on_in_what_is_kept)
{
	resend(&(struct sizes){ 4 * LOG_RESERVE_BLOCKS, LOG_DATA_BLOCKS, UINT64_C(40) << 20 });
}

/* There a segment of what is kept is as long as any. */
Test(log_resend, nor_in_a_small_store)
{
	resend(&(struct sizes){ LOG_RESERVE_BLOCKS, LOG_DATA_BLOCKS / 4, UINT64_C(20) << 20 });
}
