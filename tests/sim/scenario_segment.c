/* Scenario `segment`: one data directory through lives that end in every way, against a model
 * of what was answered.
 *
 * A life: open, check every segment against the model, then random operations, with appends in
 * flight together, until the process is killed, the power fails, or it stops in order. What is
 * checked (store.md): R6 answers are a prefix and are all there while the power stays; R7 what
 * a sync answered is there for ever; R8 a fence answered holds for ever; R9 a cut never changes;
 * states whole, doubtful, broken are never better than the truth; I1 a block reads as what was
 * appended there or not at all, and always if nobody said that it is free; R28 what a trim answered is known for ever; R30
 * packing changes nothing of this. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/segment/segment.h"
#include "tests/sim/catalog_sim.h"
#include "tests/sim/scenario.h"

#define SEGMENTS 6
#define SIZE_BLOCKS 160u
#define RECORDS_MAX 64
#define BURST_MAX 5
#define STEPS_MAX 400000u

struct model_record {
	uint32_t block, blocks, payload;
	uint32_t header_crc;
	uint8_t *header;    /* its bytes */
	uint32_t header_blocks;
};

struct model_segment {
	struct segment_header header;
	bool tried, created, deleted;   /* a create was sent; was answered; a delete was sent */
	uint64_t life_created;
	struct model_record records[RECORDS_MAX];
	unsigned sent, answered, synced; /* records */
	uint64_t fenced_sent, fenced;
	bool seal_sent, sealed;
	uint32_t cut, cut_crc;
	uint8_t trim_sent[SIZE_BLOCKS / 8], trim_answered[SIZE_BLOCKS / 8];
	uint32_t fence_length;          /* with the last fence answered: nothing beyond is ever answered */
	bool fence_known;
	bool sync_failed, write_failed;
	bool lost_power;                /* since it was made, not cleanly stopped before */
	bool unsynced;                  /* something answered isn't durable, for all the model knows */
	bool owned;                     /* its writer is in this life */
};

struct world {
	struct scenario_run *run;
	struct sim *sim;
	struct sim_host *host;
	struct catalog_sim *catalogs;
	struct env *env;
	struct catalog *catalog;
	struct segment_server *server;
	struct model_segment segments[SEGMENTS];
	uint64_t life, next_id;
	struct report report;
	unsigned bursts;                /* appends under way */
	bool errors;                    /* this seed's disk makes errors */
	bool brief;                     /* this life only fences and seals what it finds */
	bool stopped;
};

/* ---- records ---- */

static void payload_fill(uint64_t segment, uint64_t seq, uint32_t i, uint8_t *block)
{
	for (unsigned k = 0; k < BLOCK_BYTES; k += 8)
		put_le64(block + k, segment << 40 ^ seq << 24 ^ (uint64_t)i << 12 ^ k);
}

/* Makes the model's next record of `s` and its bytes (the caller's). */
static uint8_t *record_make(struct world *w, struct model_segment *s, uint32_t payload, struct model_record *ret)
{
	const struct model_record *last = s->sent ? &s->records[s->sent - 1] : NULL;
	uint32_t crcs[16], headers = record_header_blocks(1, payload);
	uint64_t seq = s->sent + 1 + s->header.segment * 1000;
	uint8_t *bytes = env_alloc_aligned((size_t)(headers + payload) * BLOCK_BYTES);
	for (uint32_t i = 0; i < payload; i++) {
		payload_fill(s->header.segment, seq, i, bytes + (size_t)(headers + i) * BLOCK_BYTES);
		crcs[i] = crc32c(0, bytes + (size_t)(headers + i) * BLOCK_BYTES, BLOCK_BYTES);
	}
	struct record_entry e = { .first = sim_random(w->sim) % 1000, .count = payload };
	struct record r = { .kind = RECORD_DATA, .segment = s->header.segment, .block = last ? last->block + last->blocks : 1,
			    .epoch = s->header.epoch, .seq = seq, .salt = s->header.salt, .prev = last ? last->header_crc : 77,
			    .acked = s->answered + s->header.segment * 1000, .synced = s->synced + s->header.segment * 1000,
			    .payload_blocks = payload, .entry_count = 1, .entries = &e, .crcs = crcs };
	record_encode(&r, bytes);
	*ret = (struct model_record){ .block = r.block, .blocks = record_blocks(&r), .payload = payload,
				      .header_crc = r.header_crc, .header_blocks = headers };
	ret->header = malloc((size_t)headers * BLOCK_BYTES);
	memcpy(ret->header, bytes, (size_t)headers * BLOCK_BYTES);
	return bytes;
}

static uint32_t records_end(const struct model_segment *s, unsigned count)
{
	return count ? s->records[count - 1].block + s->records[count - 1].blocks : 1;
}

static void segment_reset(struct world *w, struct model_segment *s)
{
	for (unsigned i = 0; i < s->sent; i++)
		free(s->records[i].header);
	*s = (struct model_segment){ 0 };
	uint64_t id = ++w->next_id;
	s->header = (struct segment_header){ .segment = id, .volume = { "v" }, .epoch = 2 + sim_random(w->sim) % 3,
					     .salt = sim_random(w->sim), .size_blocks = SIZE_BLOCKS };
}

/* ---- checks ---- */

#define CHECK(w, s, condition, what, ...)                                                                   \
	SCENARIO_CHECK((w)->run, condition, "life %llu segment %llu: " what, (unsigned long long)(w)->life, \
		       (unsigned long long)(s)->header.segment __VA_OPT__(, ) __VA_ARGS__)

static int segment_op(struct world *w, struct segment_io *io)
{
	static const char *const names[] = { "create", "append", "read", "sync", "fence", "seal", "repair", "delete", "stat", "trim" };
	int r = w->env->dead ? -ESHUTDOWN : segment_wait(w->server, io);
	if (io->op != SEGMENT_READ)
		sim_note(w->sim, "%s %llu at %u epoch %llu: %d (length %u state %d sealed %d fenced %llu)", names[io->op],
			 (unsigned long long)io->segment, io->block, (unsigned long long)io->epoch, r, io->length, io->state,
			 io->sealed, (unsigned long long)io->fenced_epoch);
	return w->env->dead ? -ESHUTDOWN : r;
}

static bool bit(const uint8_t *bits, uint32_t b) { return bits[b / 8] >> (b % 8) & 1; }

static uint32_t bits_below(const uint8_t *bits, uint32_t end)
{
	uint32_t n = 0;
	for (uint32_t b = 1; b < end; b++)
		n += bit(bits, b);
	return n;
}

/* Each block below `length` reads as what was appended there. */
static void check_content(struct world *w, struct model_segment *s, uint32_t length)
{
	uint8_t *block = env_alloc_aligned(BLOCK_BYTES), *want = malloc(BLOCK_BYTES);
	if (s->seal_sent)
		length = MIN(length, s->cut);
	for (unsigned i = 0; i < s->sent && s->records[i].block < length && !w->run->failed; i++) {
		const struct model_record *r = &s->records[i];
		for (uint32_t b = 0; b < r->blocks; b++) {
			struct iovec v = { block, BLOCK_BYTES };
			struct segment_io io = { .op = SEGMENT_READ, .segment = s->header.segment, .block = r->block + b, .blocks = 1,
						 .iov = &v, .iov_count = 1 };
			int status = segment_op(w, &io);
			if (b < r->header_blocks)
				memcpy(want, r->header + (size_t)b * BLOCK_BYTES, BLOCK_BYTES);
			else
				payload_fill(s->header.segment, i + 1 + s->header.segment * 1000, b - r->header_blocks, want);
			/* Flipped on the way: a reader's to notice (P3). */
			for (int try = 0; try < 4 && status == 0 && w->errors && memcmp(block, want, BLOCK_BYTES); try++)
				status = segment_op(w, &io);
			if (status == -EIO && w->errors)
				continue;
			if (s->seal_sent && bit(s->trim_sent, r->block + b))
				continue; /* it is there or not */
			if (status == -ESHUTDOWN)
				break;
			CHECK(w, s, status == 0 && memcmp(block, want, BLOCK_BYTES) == 0, "block %u reads wrong (status %d)",
			      r->block + b, status);
		}
	}
	free(block);
	free(want);
}

/* `answered`: records that had been answered when it was asked. */
static void check_state(struct world *w, struct model_segment *s, const struct segment_io *io, unsigned answered)
{
	bool may_break = s->sync_failed || s->write_failed || w->errors;
	if (io->state == COPY_ABSENT) {
		CHECK(w, s, !s->created || s->deleted, "it is gone");
		return;
	}
	CHECK(w, s, io->fenced_epoch >= s->fenced, "the fence at %llu is forgotten (%llu)", (unsigned long long)s->fenced,
	      (unsigned long long)io->fenced_epoch);
	CHECK(w, s, io->fenced_epoch <= MAX(s->fenced_sent, s->fenced), "a fence nobody asked for");
	if (s->sealed || io->sealed) {
		CHECK(w, s, !s->sealed || io->sealed, "the seal is gone");
		CHECK(w, s, s->seal_sent && io->length == s->cut && io->last_crc == s->cut_crc,
		      "sealed at %u instead of %u", io->length, s->cut);
		CHECK(w, s, io->trimmed >= bits_below(s->trim_answered, s->cut), "%u blocks are known to be free, %u were answered",
		      io->trimmed, bits_below(s->trim_answered, s->cut));
		CHECK(w, s, io->trimmed <= bits_below(s->trim_sent, s->cut), "more blocks are free than anybody said");
		CHECK(w, s, io->present >= io->length - io->trimmed && io->present <= io->length, "%u blocks of %u with %u free", io->present,
		      io->length, io->trimmed);
		return;
	}
	if (s->seal_sent)
		return; /* a seal that didn't get through has cut it, and what is left beyond speaks of what is gone; it is sealed again */
	CHECK(w, s, io->state != COPY_BROKEN || may_break, "broken without a reason");
	CHECK(w, s, io->state != COPY_DOUBTFUL || s->lost_power || w->errors, "doubtful without a power loss");
	CHECK(w, s, !s->sync_failed || io->state == COPY_BROKEN || !s->owned, "not broken after a failed sync");
	if (io->state == COPY_WHOLE && !s->sync_failed)
		CHECK(w, s, io->length >= records_end(s, answered), "whole, but %u is shorter than the %u answered", io->length,
		      records_end(s, answered));
	if (io->state == COPY_BROKEN)
		return; /* it may have anything */
	CHECK(w, s, io->length >= records_end(s, s->synced), "%u is shorter than the %u synced", io->length,
		      records_end(s, s->synced));
	unsigned whole = 0;
	while (whole < s->sent && records_end(s, whole) < io->length)
		whole++;
	CHECK(w, s, io->length == records_end(s, whole), "its length %u is not the end of a record", io->length);
	CHECK(w, s, whole == 0 || io->last_crc == s->records[whole - 1].header_crc, "another last record");
}

static void check_segment(struct world *w, struct model_segment *s)
{
	struct segment_io io = { .op = SEGMENT_STAT, .segment = s->header.segment };
	unsigned answered = s->answered;
	int r = segment_op(w, &io);
	if (r == -ESHUTDOWN || (r == -EIO && w->errors))
		return;
	CHECK(w, s, r == 0, "stat: %d", r);
	if (w->run->failed)
		return;
	check_state(w, s, &io, answered);
	if (io.state != COPY_ABSENT) /* of a broken copy only what was synced before */
		check_content(w, s, io.state == COPY_BROKEN ? records_end(s, s->synced) : io.length);
	if (s->owned || io.state == COPY_ABSENT || io.state == COPY_BROKEN || io.sealed)
		return;
	/* What a scan found, after the writer died, is what there is. */
	for (unsigned i = 0; i < s->sent; i++)
		if (s->records[i].block >= io.length) {
			while (s->sent > i)
				free(s->records[--s->sent].header);
			s->answered = MIN(s->answered, i);
		}
}

/* ---- operations ---- */

struct burst_append {
	struct job job;
	struct world *w;
	struct model_segment *s;
	uint64_t id;
	unsigned index;
	struct segment_io io;
	struct iovec vec[2];
	uint8_t *bytes;
};

static void append_ended(struct job *j)
{
	struct burst_append *a = container_of(j, struct burst_append, job);
	struct model_segment *s = a->s;
	struct world *w = a->w;
	w->bursts--;
	if (a->io.status == 0 && !w->env->dead) {
		CHECK(w, s, !s->fence_known || a->io.block + a->io.blocks <= s->fence_length, "an append beyond a fence was answered");
		CHECK(w, s, !s->sealed || a->io.block + a->io.blocks <= s->cut, "an append beyond a cut was answered");
		s->answered = MAX(s->answered, a->index + 1);
		s->unsynced = true;
	} else if (a->io.status == -EIO) {
		s->write_failed = true;
	}
	CHECK(w, s, a->io.status == 0 || w->env->dead || w->errors || s->fenced_sent || s->seal_sent, "append at %u: %d", a->io.block,
	      a->io.status);
	free(a->bytes);
	free(a);
}

static void append_submit(struct world *w, struct model_segment *s)
{
	struct burst_append *a = calloc(1, sizeof *a);
	struct model_record r;
	uint32_t payload = 1 + (uint32_t)(sim_random(w->sim) % 4);
	a->w = w;
	a->s = s;
	a->bytes = record_make(w, s, payload, &r);
	if (r.block + r.blocks > SIZE_BLOCKS || s->sent == RECORDS_MAX) {
		free(r.header);
		free(a->bytes);
		free(a);
		return;
	}
	a->index = s->sent;
	s->records[s->sent++] = r;
	size_t bytes = (size_t)r.blocks * BLOCK_BYTES, first = sim_random(w->sim) % 2 ? bytes : 512 + sim_random(w->sim) % 3000;
	a->vec[0] = (struct iovec){ a->bytes, first };
	a->vec[1] = (struct iovec){ a->bytes + first, bytes - first };
	a->io = (struct segment_io){ .op = SEGMENT_APPEND, .segment = s->header.segment, .epoch = s->header.epoch,
				     .incarnation = w->server->incarnation, .block = r.block, .blocks = r.blocks, .iov = a->vec,
				     .iov_count = first == bytes ? 1 : 2 };
	w->bursts++;
	job_init(&a->job, &w->env->loop);
	segment_submit(w->server, &a->io, &a->job);
	job_then(&a->job, append_ended);
}

static void bursts_wait(struct world *w)
{
	while (w->bursts && fiber_sleep(&w->env->loop, 20000) == 0)
		;
}

static void do_create(struct world *w, struct model_segment *s)
{
	segment_reset(w, s);
	s->tried = true;
	s->owned = true;
	struct segment_io io = { .op = SEGMENT_CREATE, .segment = s->header.segment, .epoch = s->header.epoch, .header = s->header,
				 .reserve = sim_random(w->sim) % 4 == 0 }; /* all of it is allocated then */
	int r = segment_op(w, &io);
	s->created = r == 0;
	CHECK(w, s, r == 0 || r == -ESHUTDOWN || w->errors, "create: %d", r);
	if (r == -EIO)
		s->owned = false;
}

static void do_appends(struct world *w, struct model_segment *s)
{
	if (!s->created || !s->owned || s->seal_sent || s->write_failed || s->sync_failed || s->fenced_sent)
		return;
	for (unsigned n = 1 + (unsigned)(sim_random(w->sim) % BURST_MAX); n > 0; n--)
		append_submit(w, s);
}

static void do_sync(struct world *w, struct model_segment *s)
{
	unsigned answered = s->answered;
	if (!s->created || !s->owned)
		return;
	struct segment_io io = { .op = SEGMENT_SYNC, .segment = s->header.segment, .epoch = MAX(s->header.epoch, s->fenced_sent),
				 .incarnation = w->server->incarnation, .block = records_end(s, answered) };
	if (s->seal_sent)
		io.block = MIN(io.block, s->cut);
	int r = segment_op(w, &io);
	if (r == 0 && !w->env->dead && io.block == records_end(s, answered)) {
		s->synced = MAX(s->synced, answered);
		s->unsynced = s->answered > answered;
	}
	s->sync_failed |= r == -EIO && !w->env->dead;
	CHECK(w, s, r == 0 || r == -ESHUTDOWN || w->errors, "sync: %d", r);
}

static void do_fence(struct world *w, struct model_segment *s)
{
	struct segment_io io = { .op = SEGMENT_FENCE, .segment = s->header.segment,
				 .epoch = MAX(s->header.epoch, s->fenced_sent) + sim_random(w->sim) % 2 };
	if (!s->tried)
		return;
	if (io.epoch == s->header.epoch)
		io.epoch++;
	s->fenced_sent = MAX(s->fenced_sent, io.epoch);
	int r = segment_op(w, &io);
	CHECK(w, s, r == 0 || r == -ESHUTDOWN || w->errors, "fence: %d", r);
	if (r < 0)
		return;
	s->fenced = MAX(s->fenced, io.epoch);
	if (io.state == COPY_ABSENT)
		return;
	s->fence_known = true;
	s->fence_length = io.length;
	check_state(w, s, &io, s->answered);
}

/* An append of the fenced writer, at the end of what there is: refused. */
static void do_fenced_append(struct world *w, struct model_segment *s)
{
	if (!s->created || !s->fence_known || s->seal_sent || s->sent == RECORDS_MAX || w->bursts)
		return;
	struct model_record m;
	uint8_t *bytes = record_make(w, s, 1, &m);
	struct iovec v = { bytes, (size_t)m.blocks * BLOCK_BYTES };
	struct segment_io io = { .op = SEGMENT_APPEND, .segment = s->header.segment, .epoch = s->header.epoch,
				 .incarnation = w->server->incarnation, .block = m.block, .blocks = m.blocks, .iov = &v, .iov_count = 1 };
	int r = segment_op(w, &io);
	CHECK(w, s, r < 0, "an append of a fenced epoch was accepted");
	free(m.header);
	free(bytes);
}

/* As an owner that finishes a segment, or a taker that has chosen a length. */
static void do_seal(struct world *w, struct model_segment *s)
{
	if (!s->created)
		return;
	bursts_wait(w);
	struct segment_io io = { .op = SEGMENT_STAT, .segment = s->header.segment };
	if (!s->seal_sent) {
		if (segment_op(w, &io) < 0 || io.state == COPY_BROKEN || io.state == COPY_ABSENT)
			return;
		if (io.state == COPY_DOUBTFUL || !s->owned) { /* a taker: what is chosen must be durable first */
			do_fence(w, s);
			struct segment_io repair = { .op = SEGMENT_REPAIR, .segment = s->header.segment, .epoch = s->fenced_sent,
						     .block = io.length };
			if (!s->fence_known || segment_op(w, &repair) < 0)
				return;
		}
		unsigned keep = 0;
		while (keep < s->sent && records_end(s, keep + 1) <= io.length)
			keep++;
		if (s->owned && io.state == COPY_WHOLE && !s->fence_known) { /* R15: a cut is recorded of what is synced */
			do_sync(w, s);
			keep = MIN(keep, s->synced);
		}
		if (s->owned && keep && sim_random(w->sim) % 2) /* R16: an owner cuts at what was acknowledged, or less was by others */
			keep -= (unsigned)(sim_random(w->sim) % keep) / 2;
		s->seal_sent = true;
		s->cut = records_end(s, keep);
		s->cut_crc = keep ? s->records[keep - 1].header_crc : 0;
		s->answered = MIN(s->answered, keep);
		s->synced = MIN(s->synced, keep);
	}
	io = (struct segment_io){ .op = SEGMENT_SEAL, .segment = s->header.segment, .epoch = MAX(s->header.epoch, s->fenced_sent),
				  .block = s->cut, .crc = s->cut_crc };
	int r = segment_op(w, &io);
	CHECK(w, s, r == 0 || r == -ESHUTDOWN || w->errors, "seal at %u: %d", s->cut, r);
	if (r == 0)
		s->sealed = true;
	if (r == 0)
		check_segment(w, s);
}

static void do_trim(struct world *w, struct model_segment *s)
{
	uint8_t bits[SIZE_BLOCKS / 8] = { 0 };
	if (!s->created)
		return;
	uint32_t from = (uint32_t)(sim_random(w->sim) % SIZE_BLOCKS), count = (uint32_t)(sim_random(w->sim) % SIZE_BLOCKS), odds = 1 + (uint32_t)(sim_random(w->sim) % 3);
	for (uint32_t b = from; b < MIN(from + count, SIZE_BLOCKS); b++)
		if (sim_random(w->sim) % odds == 0)
			bits[b / 8] |= (uint8_t)(1u << b % 8);
	for (unsigned i = 0; i < sizeof bits; i++)
		s->trim_sent[i] |= bits[i];
	struct segment_io io = { .op = SEGMENT_TRIM, .segment = s->header.segment, .blocks = SIZE_BLOCKS, .trim = bits,
				 .pack = sim_random(w->sim) % 2 };
	unsigned answered = s->answered;
	int r = segment_op(w, &io);
	CHECK(w, s, r == 0 || r == -ESHUTDOWN || w->errors, "trim: %d", r);
	if (r < 0)
		return;
	for (unsigned i = 0; i < sizeof bits; i++)
		s->trim_answered[i] |= bits[i];
	check_state(w, s, &io, answered);
	CHECK(w, s, !io.sealed || !io.pack || w->errors || io.present == io.length - io.trimmed, "packed, and %u blocks are left of %u with %u free",
	      io.present, io.length, io.trimmed);
	if (sim_random(w->sim) % 2)
		check_segment(w, s);
}

static void do_delete(struct world *w, struct model_segment *s)
{
	if (!s->tried || !s->sealed)
		return;
	bool again = s->deleted;
	s->deleted = true;
	struct segment_io io = { .op = SEGMENT_DELETE, .segment = s->header.segment, .epoch = MAX(s->header.epoch, s->fenced_sent) };
	if (s->fenced > s->header.epoch && !again) {
		struct segment_io late = { .op = SEGMENT_DELETE, .segment = s->header.segment, .epoch = s->header.epoch };
		CHECK(w, s, segment_op(w, &late) < 0, "who was fenced deleted it");
	}
	int r = segment_op(w, &io);
	CHECK(w, s, r == 0 || r == -ESHUTDOWN || w->errors, "delete: %d", r);
	if (r < 0)
		return;
	io = (struct segment_io){ .op = SEGMENT_STAT, .segment = s->header.segment };
	r = segment_op(w, &io);
	CHECK(w, s, r < 0 || io.state == COPY_ABSENT, "still there after a delete");
	s->tried = s->created = false;
}

static void do_something(struct world *w)
{
	struct model_segment *s = &w->segments[sim_random(w->sim) % SEGMENTS];
	if (!s->tried) {
		do_create(w, s);
		return;
	}
	if (s->deleted) {
		do_delete(w, s);
		return;
	}
	switch (sim_random(w->sim) % 19) {
	case 0: do_fence(w, s); break;
	case 1: do_fenced_append(w, s); break;
	case 2: do_seal(w, s); break;
	case 3: check_segment(w, s); break;
	case 4: bursts_wait(w); break;
	case 5:
		if (sim_random(w->sim) % 2)
			do_delete(w, s);
		break;
	case 6: case 7: case 8: do_sync(w, s); break;
	case 9: case 10: case 11: do_trim(w, s); break;
	default: do_appends(w, s); break;
	}
}

/* ---- lives ---- */

/* A taker that doesn't get far: what it is answered must hold although nobody does anything else to the files. */
static void brief_run(struct world *w)
{
	for (unsigned i = 0; i < SEGMENTS && !w->run->failed && !w->env->dead; i++) {
		struct model_segment *s = &w->segments[i];
		if (s->tried && !s->deleted && sim_random(w->sim) % 2) {
			if (s->seal_sent || sim_random(w->sim) % 2)
				do_seal(w, s);
			else
				do_fence(w, s);
		}
	}
}

static int life_run(void *arg)
{
	struct world *w = arg;
	struct segment_dir_options options = { .create = true };
	w->report.text[0] = '\0';
	int r = segment_dir_open(w->env, "/data", w->catalog, &options, &w->server, &w->report);
	SCENARIO_CHECK(w->run, r == 0 || r == -ESHUTDOWN || w->errors, "life %llu: open: %s", (unsigned long long)w->life,
		       report_text(&w->report, r));
	if (r < 0) {
		w->server = NULL;
		return r;
	}
	if (w->brief) {
		brief_run(w);
		return 0;
	}
	for (unsigned i = 0; i < SEGMENTS && !w->run->failed; i++)
		if (w->segments[i].tried)
			check_segment(w, &w->segments[i]);
	for (unsigned n = 20 + (unsigned)(sim_random(w->sim) % 100); n > 0 && !w->run->failed && !w->env->dead; n--) {
		do_something(w);
		if (sim_random(w->sim) % 3 == 0)
			fiber_sleep(&w->env->loop, sim_random(w->sim) % 300000);
	}
	bursts_wait(w);
	return 0;
}

static int life_close(void *arg)
{
	struct world *w = arg;
	while (w->bursts && !w->env->dead)
		fiber_sleep(&w->env->loop, 20000);
	int r = segment_server_close(w->server);
	w->server = NULL;
	return r;
}

enum life_end { LIFE_CLEAN, LIFE_KILL, LIFE_POWER };

/* What the end of a life does to what the model may expect. */
static void life_ended(struct world *w, enum life_end how, bool clean)
{
	for (unsigned i = 0; i < SEGMENTS; i++) {
		struct model_segment *s = &w->segments[i];
		if (!s->tried)
			continue;
		if (s->owned && how == LIFE_KILL)
			s->unsynced = true;
		s->owned = false;
		if (how == LIFE_POWER && !clean) {
			s->lost_power = true;
			s->unsynced = false;
		}
	}
}

static void life(struct world *w)
{
	struct scenario_task task;
	enum life_end how = sim_random(w->sim) % 5 == 0 ? LIFE_CLEAN : sim_random(w->sim) % 2 ? LIFE_KILL : LIFE_POWER;
	uint64_t steps = how == LIFE_CLEAN ? STEPS_MAX : sim_random(w->sim) % (sim_random(w->sim) % 2 ? 200 : 4000);
	w->brief = w->life && sim_random(w->sim) % 2;
	if (w->brief && how != LIFE_CLEAN)
		steps = sim_random(w->sim) % 1000;
	w->life++;
	w->env = sim_process_create(w->sim, w->host);
	w->catalog = catalog_sim_open(w->catalogs, w->env);
	w->server = NULL;
	sim_note(w->sim, "life %llu begins", (unsigned long long)w->life);
	scenario_task_start(&task, w->env, life_run, w);
	bool ended = scenario_step_until(w->run, w->sim, &task.ended, steps);
	bool clean = false;
	if (how == LIFE_CLEAN && !ended)
		scenario_fail(w->run, "life %llu does not end", (unsigned long long)w->life);
	if (how == LIFE_CLEAN && ended && w->server)
		clean = sim_run_fiber(w->env, life_close, w) == 0;
	if (how == LIFE_POWER)
		sim_power_loss(w->host);
	else if (!clean)
		sim_kill(w->env);
	sim_note(w->sim, "life %llu ends: %s", (unsigned long long)w->life,
		 how == LIFE_POWER ? "power loss" : clean ? "stopped" : "killed");
	if (w->env->dead)
		sim_drain_dead(w->env);
	if (w->server)
		sim_run_fiber(w->env, life_close, w);
	life_ended(w, how, clean);
	catalog_close(w->catalog);
	sim_process_destroy(w->env);
}

static void scenario_segment_run(struct scenario_run *run)
{
	struct world w = { .run = run };
	w.sim = scenario_sim(run, NULL);
	struct sim_doses *d = sim_doses(w.sim);
	d->slow = sim_random(w.sim) % 2 ? 20000 : 0;
	w.errors = sim_random(w.sim) % 4 == 0;
	if (w.errors) {
		d->read_error = 1000;
		d->write_error = sim_random(w.sim) % 2 ? 3000 : 0;
		d->sync_error = sim_random(w.sim) % 2 ? 10000 : 0;
		d->read_flip = sim_random(w.sim) % 2 ? 2000 : 0;
	}
	w.host = sim_host_create(w.sim, "host", 256 << 20, sim_random(w.sim) % 2 ? 512 : 4096);
	w.catalogs = catalog_sim_create(w.sim);
	catalog_sim_doses(w.catalogs)->timeout = sim_random(w.sim) % 2 ? 100000 : 0;
	unsigned lives = 3 + (unsigned)(sim_random(w.sim) % 9);
	for (unsigned i = 0; i < lives && !run->failed; i++)
		life(&w);
	for (unsigned i = 0; i < SEGMENTS; i++)
		segment_reset(&w, &w.segments[i]);
	catalog_sim_destroy(w.catalogs);
	scenario_end(run, w.sim);
}

const struct scenario scenario_segment = {
	.name = "segment",
	.summary = "a data directory through kills, power losses and disk errors",
	.run = scenario_segment_run,
};
