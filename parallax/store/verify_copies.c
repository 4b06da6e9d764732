/* What the servers have of a volume's segments, compared with what was found to be used (I9, I10). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "parallax/copies/copies.h"
#include "parallax/store/verify_private.h"
#include "parallax/volume/blob.h"

enum { ASKED_MAX = PLACEMENT_CANDIDATES_MAX + META_REPLICAS_MAX };

struct asked {
	struct peer *peers[ASKED_MAX];
	struct segment_io ios[ASKED_MAX];
	unsigned count;
	uint8_t *bits; /* of each, SEGMENT_BITMAP_BYTES */
	uint8_t unused[SEGMENT_BITMAP_BYTES]; /* what the table knows to be free, or has for itself */
};

static bool bit(const uint8_t *bits, uint32_t i) { return bits && bits[i / 8] >> i % 8 & 1; }
static void set(uint8_t *bits, uint32_t i) { bits[i / 8] |= (uint8_t)(1u << i % 8); }

static void add_peer(struct asked *a, struct peer *p)
{
	for (unsigned i = 0; i < a->count; i++)
		if (a->peers[i] == p)
			return;
	if (p && a->count < ASKED_MAX)
		a->peers[a->count++] = p;
}

/* Where it belongs, and where the log has it. */
static void find_peers(struct verify_work *w, uint64_t segment, struct asked *a)
{
	const struct meta_log *log = w->how->log;
	a->count = copies_candidates(w->how->copies, segment, a->peers);
	for (uint32_t i = 0; i < log->segment_count; i++)
		for (uint32_t k = 0; log->segments[i].id == segment && k < log->segments[i].ensemble_count; k++)
			add_peer(a, log->embedded ? w->how->copies->peers[0] : copies_peer(w->how->copies, &log->segments[i].ensemble[k].server));
}

/* As of before the servers are asked: what they confirm meanwhile is forgotten here, and is in their answer. */
static void find_unused(struct verify_work *w, const struct verify_segment *g, struct asked *a)
{
	const struct space_segment *now = space_find(w->how->space, g->id);
	memset(a->unused, 0, sizeof a->unused);
	for (enum frees_stage k = 0; now && k < FREES_STAGES; k++)
		if (frees_count(now->frees, k))
			frees_bits(now->frees, k, a->unused, g->blocks);
	for (size_t i = 0; i < w->table_count; i++)
		for (uint32_t b = 0; position_segment(w->table[i].position) == g->id && b < w->table[i].blocks; b++)
			if (position_block(w->table[i].position) + b < g->blocks)
				set(a->unused, position_block(w->table[i].position) + b);
}

static void ask(struct verify_work *w, const struct verify_segment *g, struct asked *a)
{
	find_unused(w, g, a);
	find_peers(w, g->id, a);
	memset(a->bits, 0, (size_t)a->count * SEGMENT_BITMAP_BYTES); /* of a broken copy nothing may be known */
	for (unsigned i = 0; i < a->count; i++)
		a->ios[i] = (struct segment_io){ .op = SEGMENT_STAT, .segment = g->id, .free_bits = a->bits + (size_t)i * SEGMENT_BITMAP_BYTES };
	peers_wait(a->peers, a->ios, a->count);
}

static const char *address(const struct verify_work *w, const struct peer *p)
{
	return w->how->log->embedded ? "its directory" : p->address[0] ? p->address : "an unknown server";
}

static uint32_t count_bits(const uint8_t *bits, uint32_t blocks)
{
	uint32_t n = 0;
	for (uint32_t b = 0; b < blocks; b++)
		n += bit(bits, b);
	return n;
}

/* One copy, block by block. `settled`: nothing of the segment is replayed, so what isn't used must be free. */
static int compare_copy(struct verify_work *w, const struct verify_segment *g, const struct asked *a, unsigned i, bool settled)
{
	const struct segment_io *io = &a->ios[i];
	const char *who = address(w, a->peers[i]);
	unsigned long long id = (unsigned long long)g->id;
	uint32_t length = io->sealed ? MIN(io->length, g->blocks) : g->blocks, trimmed_used = 0, lost = 0, first_used = 0, first_lost = 0, beyond = 0;
	if (io->trimmed && count_bits(io->free_bits, SEGMENT_BLOCKS_MAX) == 0) { /* it only says how many */
		uint32_t least = g->reached + 1, unused = count_bits(a->unused, length);
		if (io->sealed && settled && !w->partial && (least + io->trimmed > length || least + io->trimmed + unused < length))
			return verify_fault(w, -EUCLEAN, "segment %llu: of %u blocks %u are in use, and %s knows %u to be free", id, length, g->reached, who, io->trimmed);
		return 0;
	}
	for (uint32_t b = 1; b < g->blocks; b++) {
		bool used = bit(g->used, b), free_there = bit(io->free_bits, b);
		beyond += used && b >= length;
		if (used && free_there && trimmed_used++ == 0)
			first_used = b;
		if (!used && !free_there && b < length && !bit(a->unused, b) && lost++ == 0)
			first_lost = b;
	}
	int r = 0;
	if (trimmed_used)
		r = verify_fault(w, -EUCLEAN, "segment %llu: %u blocks that are in use are free in %s, the first is block %u", id, trimmed_used, who, first_used);
	if (r == 0 && beyond)
		r = verify_fault(w, -EUCLEAN, "segment %llu: %u blocks that are in use are beyond the end of the copy in %s, %u blocks", id, beyond, who, length);
	if (r == 0 && lost && io->sealed && settled && !w->partial)
		r = verify_fault(w, -EUCLEAN, "segment %llu: %u blocks are neither in use nor free in %s, the first is block %u", id, lost, who, first_lost);
	return r;
}

/* Of a copy that says only how many blocks are free it isn't known which. */
static bool copy_has(const struct segment_io *io, uint32_t b)
{
	return io->status == 0 && io->state != COPY_ABSENT && b < io->length && !bit(io->free_bits, b);
}

static uint64_t count_lost(const struct verify_segment *g, const struct asked *a)
{
	uint64_t lost = 0;
	for (uint32_t b = 1; b < g->blocks; b++) {
		bool there = !bit(g->used, b);
		for (unsigned i = 0; i < a->count && !there; i++)
			there = copy_has(&a->ios[i], b);
		lost += !there;
	}
	return lost;
}

static int compare_segment(struct verify_work *w, const struct verify_segment *g, const struct asked *a)
{
	unsigned present = 0, healthy = 0, away = 0;
	bool settled = g->id < position_segment(w->how->log->from_position);
	int r = 0;
	for (unsigned i = 0; r == 0 && i < a->count; i++) {
		const struct segment_io *io = &a->ios[i];
		bool there = io->status == 0 && io->state != COPY_ABSENT;
		away += io->status < 0 && io->status != -ENOENT;
		present += there;
		healthy += there && io->state != COPY_BROKEN;
		if (there)
			r = compare_copy(w, g, a, i, settled);
	}
	w->how->lost += count_lost(g, a);
	uint32_t want = w->how->log->embedded ? 1 : w->how->log->replicas;
	if (r == 0 && g->reached && present == 0)
		r = verify_fault(w, away ? -ENOTCONN : -EUCLEAN, away ? "segment %llu, with %u blocks in use: none of the servers that answer has a copy"
								   : "segment %llu, with %u blocks in use: there is no copy", (unsigned long long)g->id, g->reached);
	if (g->reached && healthy < want) {
		uint32_t lacks = want - healthy;
		w->how->copies_away += MIN(lacks, away);
		w->how->copies_missing += lacks - MIN(lacks, away);
	}
	return r;
}

/* ---- the records of the table and the summary ---- */

static void note_table(void *arg, uint64_t position, uint32_t blocks)
{
	struct verify_work *w = arg;
	if (array_more(&w->table, w->table_count) < 0) {
		w->failed = -ENOMEM;
		return;
	}
	w->table[w->table_count].position = position;
	w->table[w->table_count++].blocks = blocks;
}

int verify_servers(struct verify_work *w)
{
	struct verify *y = w->how;
	struct asked *a = calloc(1, sizeof *a);
	int r = a && (a->bits = malloc((size_t)ASKED_MAX * SEGMENT_BITMAP_BYTES)) ? 0 : -ENOMEM;
	if (r == 0 && y->log->space.pointer.position)
		r = blob_records(y->sources, &y->log->space, note_table, w);
	if (y->log->summary.pointer.position)
		note_table(w, y->log->summary.pointer.position - 1, 1 + (uint32_t)div_up(y->log->summary.length, BLOCK_BYTES));
	if (w->failed == 0 && r < 0 && r != -ENOMEM) {
		w->partial = true;
		r = verify_fault(w, r, "where its table of segments lies can't be read: %s", errno_text(r));
	}
	r = r ? r : w->failed;
	for (uint32_t i = 0; r == 0 && i < w->segment_count; i++) {
		ask(w, &w->segments[i], a);
		r = compare_segment(w, &w->segments[i], a);
		if (r == 0 && i % 64 == 63 && y->changed && y->changed(y->arg))
			r = -EAGAIN;
	}
	if (a)
		free(a->bits);
	free(a);
	return r;
}
