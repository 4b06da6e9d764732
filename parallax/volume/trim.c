/* What became free goes to the server that has it (R28), after the checkpoint that freed it is published; and when all
 * segments together take too much, the sparsest is packed (R30; the server does it, only we know when).
 *
 *     sparse, and too much in all ─▶ trim and pack          many free blocks ─▶ trim          few ─▶ trim, slowly
 *
 * Segments that are all free are deleted: those that were too many for the checkpoint itself, or couldn't be then.
 *
 * Only segments wholly before `from`: all others may be replayed. What the server has confirmed is forgotten; the rest is in the
 * space table, so that the next owner sends it. Sent by an owner that was fenced meanwhile, it is as true as ever; but where a volume of a lost
 * catalog was gone back with, by force: there all copies are fenced against that (store_recover_fence.c). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/volume/blob.h"
#include "parallax/volume/volume_private.h"

enum {
	STEP_MS = 20,
	SLOW_STEPS = 25,    /* a trim of few blocks comes after so many steps while the guest writes */
	AT_ONCE = 16,       /* this part of a segment isn't few */
	PACK_SOON = 1, PACK_BEHIND = 5, /* half segments, beside the log's length, that may be more than live */
	DELETES = 16,       /* segments at once */
	AGAIN_STEP_MS = 200, AGAIN_STEPS = 50, /* then what a server didn't take is tried again, though no checkpoint has come */
};

/* ---- what is never live ---- */

void trim_note_record(struct volume *v, const struct record *r)
{
	bool table = r->kind == RECORD_CHECKPOINT;
	space_unused(&v->space, position_make(r->segment, r->block), r->header_blocks + (table ? r->payload_blocks : 0));
}

/* What a checkpoint wrote is garbage if it wasn't published. The last one that was ends with its table and its summary, which
 * trim_note_table() deals with. */
void trim_note_replayed(struct volume *v, const struct record *r)
{
	uint64_t position = position_make(r->segment, r->block), published = MAX(v->meta.space.pointer.position, v->meta.summary.pointer.position);
	bool written = r->kind == RECORD_NODES || r->kind == RECORD_FREES || r->kind == RECORD_CHECKPOINT;
	if (r->kind == RECORD_CHECKPOINT && position < published)
		return;
	space_unused(&v->space, position, r->header_blocks + (written && position > published ? r->payload_blocks : 0));
}

static void note_table(void *arg, uint64_t position, uint32_t blocks)
{
	struct volume *v = arg;
	space_unused(&v->space, position, blocks);
}

int trim_note_table(struct volume *v)
{
	int r = v->meta.space.pointer.position ? blob_records(&v->sources, &v->meta.space, note_table, v) : 0;
	if (v->meta.summary.pointer.position)
		note_table(v, v->meta.summary.pointer.position - 1, 1 + (uint32_t)div_up(v->meta.summary.length, BLOCK_BYTES));
	return r;
}

/* ---- sending ---- */

static uint64_t from_segment(const struct volume *v) { return PLANTED(trim_what_is_replayed) ? UINT64_MAX : position_segment(v->meta.from_position); }

/* P6 allows half again of what is live and 512 MiB, which the log that may be replayed, recycled files (segment_dir_pool.c) and the rooms
 * of the segments ahead have a part in. Packing begins late, because the later, the less has to be copied; it is behind some
 * segments later, and then guest data waits; but not for what can't be, nor where a replica that hangs would make the guest wait for longer than R16 allows. */
static void set_behind(struct volume *v, bool behind)
{
	bool was = v->trim_behind;
	v->trim_behind = behind;
	if (was && !behind)
		log_pump(v);
}

static uint64_t allowance(const struct volume *v, unsigned half_segments)
{
	return v->limits.replay_bytes / BLOCK_BYTES + (uint64_t)v->limits.segment_blocks * half_segments / 2;
}

static void judge_behind(struct volume *v)
{
	set_behind(v, !v->closing && !v->failed && v->meta.replicas <= 1 && space_sparsest(&v->space, from_segment(v), 150, allowance(v, PACK_BEHIND)));
}

/* At all that may have a copy; one that has none needs nothing. 0 if all have it. If nobody has one, the map of servers is old, or the
 * copies were just on their way: -EAGAIN. */
static int trim_send(struct volume *v, const struct segment_io *how, struct segment_io *ret)
{
	struct peer *peers[PLACEMENT_CANDIDATES_MAX];
	struct segment_io ios[PLACEMENT_CANDIDATES_MAX];
	unsigned n = copies_candidates(v->copies, how->segment, peers);
	int r = n ? 0 : -ENOTCONN;
	for (unsigned i = 0; i < n; i++)
		ios[i] = *how;
	unsigned good = peers_wait(peers, ios, n);
	*ret = (struct segment_io){ 0 };
	for (unsigned i = 0; i < n; i++) {
		if (ios[i].status == 0 && ios[i].sealed && ios[i].present >= ret->present)
			*ret = ios[i];
		bool waits = good == 0 || !segment_away(ios[i].status) || copies_belongs(v->copies, how->segment, peers[i]);
		if (ios[i].status < 0 && ios[i].status != -ENOENT && waits)
			r = r ? r : ios[i].status;
	}
	if (r == 0 && good == 0 && v->copies->catalog && !PLANTED(trim_nobody_needs)) {
		copies_look(v->copies);
		r = -EAGAIN;
	}
	return r;
}

/* `bits`: SEGMENT_BITMAP_BYTES, to work in. */
static int trim_one(struct volume *v, uint64_t id, bool pack, uint8_t *bits)
{
	struct space_segment *g = space_find(&v->space, id);
	uint32_t blocks = g->blocks, before = space_present(g);
	memset(bits, 0, SEGMENT_BITMAP_BYTES);
	frees_bits(g->frees, FREES_UNSENT, bits, blocks);
	struct segment_io io = { .op = SEGMENT_TRIM, .segment = id, .epoch = v->epoch, .blocks = blocks, .trim = bits, .pack = pack }, most;
	int r = trim_send(v, &io, &most);
	if (r == 0)
		space_sent(&v->space, id, bits);
	g = space_find(&v->space, id);
	if (g && most.sealed)
		g->present = most.present;
	v->counters.trims += r == 0;
	v->counters.packed += r == 0 && pack;
	if (g) /* one that wasn't made smaller isn't asked for again at once, and those that can be have their turn */
		g->stuck = r < 0 || (pack && (!most.sealed || most.present >= before));
	return r;
}

/* 0: nothing to do now. */
static uint64_t choose(struct volume *v, bool few, bool *ret_pack)
{
	bool full = v->log.full;
	struct space_segment *g = space_sparsest(&v->space, from_segment(v), full ? 110 : 150, full ? 0 : allowance(v, PACK_SOON));
	*ret_pack = g != NULL;
	if (!g)
		g = space_unsent(&v->space, from_segment(v), few ? 1 : v->limits.segment_blocks / AT_ONCE);
	return g ? g->id : 0;
}

/* Nothing to do. What is left is what servers didn't take: without a checkpoint nobody would begin again, and none comes while nothing is written. */
static void rest(struct volume *v, uint32_t failed)
{
	v->trim_idle = true;
	v->trim_kicked = false;
	if (!failed && !space_stuck(&v->space, from_segment(v)))
		fiber_cond_wait(&v->env->loop, &v->trims);
	for (unsigned i = 0; (failed || space_stuck(&v->space, from_segment(v))) && i < AGAIN_STEPS && !v->trim_kicked && !v->closing && !v->failed; i++)
		if (fiber_sleep(&v->env->loop, AGAIN_STEP_MS * NS_PER_MS) < 0)
			break;
	if (!v->trim_kicked)
		space_unstick(&v->space);
	v->trim_idle = false;
}

static int trimmer(void *arg)
{
	struct volume *v = arg;
	uint8_t *bits = v->trim_bits;
	uint64_t seq = 0;
	uint32_t failed = 0; /* of the segments that are to be deleted so many couldn't be, one after the other */
	unsigned steps = 0;
	while (!v->closing && !v->failed) {
		bool pack, idle = v->log.next_seq == seq || v->trim_hurry;
		uint64_t id = choose(v, idle || steps >= SLOW_STEPS, &pack);
		int r = id ? trim_one(v, id, pack, bits) : 0;
		judge_behind(v);
		bool deletes = v->freed_due > failed && !v->close_by_ns;
		if (deletes)
			failed = checkpoint_delete_freed(v, DELETES) ? 0 : failed + DELETES;
		if (r == -ESHUTDOWN || v->env->dead) {
			volume_fail(v, -ESHUTDOWN);
		} else if (segment_away(r)) {
			set_behind(v, false); /* if a server is away, that is for the mender to deal with */
			fiber_sleep(&v->env->loop, 200 * NS_PER_MS);
		} else if (!id && !deletes && !space_unsent(&v->space, from_segment(v), 1)) {
			rest(v, failed);
			failed = 0;
		} else if (!id || (!pack && idle && !v->trim_hurry)) {
			fiber_sleep(&v->env->loop, STEP_MS * NS_PER_MS);
			steps++;
		}
		if (id && !pack)
			steps = 0;
		if (!id || steps == 0)
			seq = v->log.next_seq;
	}
	set_behind(v, false);
	free(bits);
	v->log.fibers--;
	fiber_cond_wake(&v->log.changed);
	return 0;
}

int trim_start(struct volume *v)
{
	v->trim_bits = malloc(SEGMENT_BITMAP_BYTES); /* now, for who finds no memory later would try for ever */
	int r = v->trim_bits ? fiber_start(&v->env->loop, trimmer, v, NULL) : -ENOMEM;
	if (r < 0)
		free(v->trim_bits);
	else
		v->log.fibers++;
	return r;
}

void trim_kick(struct volume *v)
{
	judge_behind(v);
	v->trim_kicked = true;
	fiber_cond_wake(&v->trims);
}

/* What a server refused is tried once more: else nobody is told until the volume is opened again. */
void trim_finish(struct volume *v, uint64_t until_ns)
{
	v->trim_hurry = true;
	v->trim_idle = false; /* it may be waiting to try again, or not have seen yet what the last checkpoint freed */
	v->trim_kicked = true;
	space_unstick(&v->space);
	fiber_cond_wake(&v->trims);
	while (fiber_sleep(&v->env->loop, NS_PER_MS) == 0 && !v->trim_idle && !v->failed && env_now_ns(v->env) < until_ns)
		;
}
