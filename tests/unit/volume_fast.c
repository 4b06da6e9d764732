/* Who writes faster than the catalog takes transactions: the log's list of segments doesn't get longer and longer, and a checkpoint always finds a place. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/volume/volume_private.h"
#include "tests/unit/volumetest.h"

enum { PART = 128, PARTS = 800, RECORD = 64, RECORDS = 12 }; /* blocks: of a segment's 256 */

static int put(struct volume_rig *g, unsigned i)
{
	uint8_t *part = env_alloc_aligned(PART * BLOCK_BYTES);
	memset(part, (int)i + 1, PART * BLOCK_BYTES);
	int r = blk_write_wait(g->node, part, PART * BLOCK_BYTES, (uint64_t)i * PART * BLOCK_BYTES, 0);
	free(part);
	return r;
}

struct writer {
	struct volume_rig *g;
	unsigned written;
	bool ended;
};

static int write_on(void *arg)
{
	struct writer *w = arg;
	while (w->written < PARTS && put(w->g, w->written) == 0)
		w->written++;
	w->ended = true;
	return 0;
}

static void start(struct writer *w, struct job *j)
{
	job_init(j, &w->g->env->loop);
	job_hold(j);
	cr_assert_eq(fiber_start(&w->g->env->loop, write_on, w, j), 0);
}

static int body_write(void *arg)
{
	struct volume_rig *g = arg;
	struct writer w = { .g = g };
	struct job j;
	uint32_t most = 0;
	start(&w, &j);
	while (!w.ended) {
		most = MAX(most, g->volume->meta.segment_count);
		fiber_sleep(&g->env->loop, NS_PER_MS / 10);
	}
	cr_expect_lt(most, (uint32_t)LOG_SEGMENTS_ROLLED, "%u segments were listed", most);
	cr_expect_eq(w.written, (unsigned)PARTS);
	return fiber_wait(&j);
}

static void run(int (*body)(void *arg))
{
	struct volume_rig *g = volume_rig_make_on(1, UINT64_C(1) << 30, UINT64_C(4) << 30);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	cr_assert_eq(volume_rig_run(g, body), 0);
	volume_rig_free(g);
}

/* It hung when the list was full of segments whose cuts weren't recorded: there were two new ones with each cut. */
Test(volume_fast, the_log_goes_on) { run(body_write); }

/* As long as there is room for all that a checkpoint may be thought to need: this takes more than that. */
static int append_much(struct volume *v)
{
	uint8_t *blocks = env_alloc_aligned(RECORD * BLOCK_BYTES);
	uint32_t crcs[RECORD];
	struct iovec iov = { blocks, RECORD * BLOCK_BYTES };
	memset(blocks, 1, RECORD * BLOCK_BYTES);
	iov_block_crcs(&iov, 1, 0, RECORD, crcs);
	int r = 0;
	for (unsigned i = 0; r == 0 && i < RECORDS; i++) {
		struct log_append a = { .kind = RECORD_CHECKPOINT, .iov = &iov, .iov_count = 1, .crcs = crcs, .payload_blocks = RECORD };
		r = log_append_wait(v, &a);
	}
	free(blocks);
	return r;
}

static int body_long_list(void *arg)
{
	struct volume_rig *g = arg;
	struct volume *v = g->volume;
	struct writer w = { .g = g };
	struct job j;
	fiber_mutex_lock(&g->env->loop, &v->checkpointing); /* as one that takes long */
	start(&w, &j);
	fiber_sleep(&g->env->loop, 30 * NS_PER_S);
	cr_assert_geq(v->meta.segment_count, (uint32_t)LOG_SEGMENTS_ROLLED);
	cr_assert(!w.ended, "nothing stopped it");
	cr_expect_eq(append_much(v), 0);
	fiber_mutex_unlock(&v->checkpointing);
	int r = fiber_wait(&j);
	cr_expect_eq(w.written, (unsigned)PARTS);
	return r;
}

Test(volume_fast, a_checkpoint_finds_a_place_in_a_long_list) { run(body_long_list); }
