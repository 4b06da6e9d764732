/* The log is walked backwards. Each record names the checksum of the one before, so that the newest segment tells which record the one before it ended
 * with, and so on, until the newest checkpoint's summary has been met and the place where that says that replay begins. The newest segment is
 * the greatest of the greatest epoch with a record in it: what an older owner wrote after a younger one had cut the log is nobody's past.
 *
 *     … ─▶ [ ……… from … nodes table SUMMARY …… ] ─▶ [ ……… ] ─▶ [ ……… the end ]
 *                 ▲        this is looked for ◀────────◀──────────── here it begins
 */
#include "parallax/store/salvage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "core/plant.h"

enum { WINDOW_BLOCKS = 32, TAILS_MAX = 64, READ_TRIES = 3 };

struct met { /* a record */
	uint64_t seq;
	uint32_t crc, prev, block, end; /* where it begins; the block after it */
};

/* One segment's, as far as one copy of it goes: those that follow one another up to its end. */
struct walk {
	struct env *env;
	const struct salvage_copy *copy;
	uint32_t length;
	uint8_t *free_bits, *window;
	uint32_t window_block, window_blocks;
	struct met *met;
	size_t count;
	bool begun;              /* records before these have become free: nobody will replay them */
	struct {
		uint32_t block, blocks; /* of the payload */
		size_t at;              /* in `met` */
		bool damaged;           /* it can't be told whether it is one */
		uint32_t crcs[SUMMARY_BLOCKS_MAX];
	} *summaries;
	size_t summary_count;
	bool damaged;            /* one of those */
	uint64_t synced;         /* up to this record all was flushed, say those that were met */
};

struct search {
	struct env *env;
	const struct salvage_copy *copies;
	size_t count;
	const struct meta_log *known;
	struct salvage *ret;
	struct report *report;
	struct walk walk;
	/* of the chain that is followed */
	uint64_t need_seq;       /* the record before this one is looked for, */
	uint32_t need_prev;      /* with this checksum; need_seq 0: any */
	uint64_t from_position, from_seq; /* where replay will begin; from_seq 0: not known */
	struct meta_segment segments[META_SEGMENTS_MAX]; /* newest first */
	uint32_t segment_count;
	size_t end;              /* the index after its newest segment's last copy */
};

/* ---- reading a copy ---- */

static bool is_free(const struct walk *w, uint32_t block) { return w->free_bits[block / 8] >> block % 8 & 1; }

static int window_read(struct walk *w, uint32_t block, uint32_t blocks)
{
	struct iovec iov = { w->window, (size_t)blocks * BLOCK_BYTES };
	struct segment_io io = { .op = SEGMENT_READ, .segment = w->copy->entry.header.segment, .block = block, .blocks = blocks, .iov = &iov, .iov_count = 1 };
	int r = peer_wait(w->copy->peer, &io);
	w->window_block = block;
	w->window_blocks = r == 0 ? blocks : 0;
	return r;
}

/* [block, block + blocks), and what follows as far as that is there. */
static int window_load(struct walk *w, uint32_t block, uint32_t blocks)
{
	if (block >= w->window_block && block + blocks <= w->window_block + w->window_blocks)
		return 0;
	uint32_t n = 0;
	while (n < MAX(blocks, (uint32_t)WINDOW_BLOCKS) && block + n < w->length && !is_free(w, block + n))
		n++;
	int r = n < blocks ? -ENODATA : window_read(w, block, n);
	return r == -ENODATA && n > blocks ? window_read(w, block, blocks) : r; /* its server doesn't say which are free */
}

static int decode(struct walk *w, uint32_t block, struct record *ret)
{
	const struct segment_header *in = &w->copy->entry.header;
	int r = window_load(w, block, 1);
	if (r == 0)
		r = record_decode(w->window + (size_t)(block - w->window_block) * BLOCK_BYTES, (size_t)(w->window_block + w->window_blocks - block) * BLOCK_BYTES, in, block, ret);
	if (r == -EAGAIN && ret->header_blocks <= RECORD_BLOCKS_MAX && (r = window_load(w, block, ret->header_blocks)) == 0)
		r = record_decode(w->window + (size_t)(block - w->window_block) * BLOCK_BYTES, (size_t)(w->window_block + w->window_blocks - block) * BLOCK_BYTES, in, block, ret);
	if (r == 0 && block + record_blocks(ret) > w->length)
		r = -EBADMSG;
	return r == -EAGAIN ? -EBADMSG : r;
}

/* By its first block. */
static int note_summary(struct walk *w, const struct record *r, uint32_t block)
{
	size_t length;
	uint32_t crc = record_crc_at(r, 0), blocks = r->payload_blocks, crcs[SUMMARY_BLOCKS_MAX];
	if (blocks == 0 || blocks > SUMMARY_BLOCKS_MAX)
		return 0;
	for (uint32_t i = 0; i < blocks; i++)
		crcs[i] = record_crc_at(r, i);
	int status = window_load(w, block, 1);
	const uint8_t *page = w->window + (size_t)(block - w->window_block) * BLOCK_BYTES;
	if (status < 0)
		return status == -ENODATA ? 0 : status;
	bool damaged = crc32c(0, page, BLOCK_BYTES) != crc;
	if (damaged) { /* or a bit has flipped on the way */
		w->window_blocks = 0;
		status = window_load(w, block, 1);
		if (status < 0)
			return status == -ENODATA ? 0 : status;
		page = w->window + (size_t)(block - w->window_block) * BLOCK_BYTES;
		damaged = crc32c(0, page, BLOCK_BYTES) != crc;
	}
	w->damaged |= damaged;
	if (damaged && !w->copy->entry.sealed)
		return 0; /* if no copy has it whole it was written when the power failed, and wasn't published */
	if (!damaged && (!summary_begins(page, &length) || div_up(length, BLOCK_BYTES) > blocks))
		return 0;
	if (array_more(&w->summaries, w->summary_count) < 0)
		return -ENOMEM;
	w->summaries[w->summary_count].block = block;
	w->summaries[w->summary_count].blocks = blocks;
	w->summaries[w->summary_count].damaged = damaged;
	memcpy(w->summaries[w->summary_count].crcs, crcs, sizeof crcs);
	w->summaries[w->summary_count++].at = w->count;
	return 0;
}

static int note_record(struct walk *w, const struct record *r, uint32_t block)
{
	uint32_t end = block + record_blocks(r);
	struct met m = { r->seq, r->header_crc, r->prev, block, end };
	int status = r->kind == RECORD_CHECKPOINT ? note_summary(w, r, block + r->header_blocks) : 0;
	if (status < 0)
		return status;
	if (array_more(&w->met, w->count) < 0)
		return -ENOMEM;
	w->met[w->count++] = m;
	w->synced = MAX(w->synced, r->synced);
	return 0;
}

/* What is sealed is what it was when it was, but for blocks that became free: headers, too, of records that come before where replay begins by now. Where one should be that
 * isn't free, and is none, the copy is damaged. What isn't sealed ends where its chain does. */
static int walk_blocks(struct walk *w)
{
	bool sealed = w->copy->entry.sealed, due = true;
	int r = 0;
	for (uint32_t block = 1; r == 0 && block < w->length;) {
		struct record rec;
		bool freed = is_free(w, block);
		r = freed ? -ENODATA : decode(w, block, &rec);
		for (unsigned tries = 1; !freed && due && (r == -EBADMSG || (r == -ENODATA && sealed)) && tries < READ_TRIES; tries++) { /* a bit may flip on the way */
			w->window_blocks = 0;
			r = decode(w, block, &rec);
		}
		if (r == 0 && w->count && (rec.seq != w->met[w->count - 1].seq + 1 || rec.prev != w->met[w->count - 1].crc))
			r = -EBADMSG;
		if (r == 0) {
			due = true;
			r = note_record(w, &rec, block);
			block += record_blocks(&rec);
		} else if ((r == -ENODATA || r == -EBADMSG) && sealed) {
			w->damaged |= due && !freed && !PLANTED(salvage_front_any);
			w->count = w->summary_count = 0;
			w->begun = true;
			due = false;
			block++;
			r = 0;
		} else {
			return r == -ENODATA || r == -EBADMSG ? 0 : r;
		}
	}
	return r;
}

static void walk_end(struct walk *w)
{
	free(w->free_bits);
	free(w->window);
	free(w->met);
	free(w->summaries);
	*w = (struct walk){ 0 };
}

static int walk_copy(struct env *env, const struct salvage_copy *copy, struct walk *w)
{
	walk_end(w);
	*w = (struct walk){ .env = env, .copy = copy, .free_bits = calloc(1, SEGMENT_BITMAP_BYTES), .window = env_alloc_aligned(RECORD_BYTES_MAX) };
	if (!w->free_bits || !w->window)
		return -ENOMEM;
	struct segment_io io = { .op = SEGMENT_STAT, .segment = copy->entry.header.segment, .free_bits = copy->entry.sealed ? w->free_bits : NULL };
	int r = peer_wait(copy->peer, &io);
	if (r < 0)
		return r;
	w->length = copy->entry.sealed ? copy->entry.length : MIN(io.length, copy->entry.header.size_blocks);
	return walk_blocks(w);
}

/* ---- one segment in the chain ---- */

static bool same_segment(const struct salvage_copy *a, const struct salvage_copy *b) { return a->entry.header.segment == b->entry.header.segment; }

/* With which record it ends; seq 0: none is in it. Of a sealed one the footer tells, whatever became free. */
static struct met last_of(const struct walk *w)
{
	const struct share_entry *e = &w->copy->entry;
	struct met footer = { .seq = e->sealed ? e->last_seq : 0, .crc = e->prev };
	return w->count ? w->met[w->count - 1] : footer;
}

/* Does it belong to the chain? `*ret_count`: how many of its records do. */
static bool links(const struct search *s, const struct walk *w, size_t *ret_count)
{
	struct met last = last_of(w);
	*ret_count = w->count;
	if (s->need_seq == 0)
		return last.seq != 0;
	if (w->count == 0)
		return last.seq && last.seq + 1 == s->need_seq && last.crc == s->need_prev;
	for (size_t i = w->count; i-- > 0;)
		if (w->met[i].seq + 1 == s->need_seq) {
			*ret_count = i + 1;
			return w->met[i].crc == s->need_prev;
		}
	return false;
}

struct walked {
	const struct salvage_copy *copy;
	uint64_t reach; /* its last record, of one that isn't cut */
	bool damaged;
};

static bool is_better(const struct walked *a, const struct walked *b)
{
	if (!b->copy)
		return true;
	if (a->reach != b->reach)
		return a->reach > b->reach && !PLANTED(salvage_any_end);
	return a->reach == b->reach && b->damaged && !a->damaged;
}

/* Copies are walked until one belongs to the chain, with all summaries undamaged if there is such a one; what is sealed says where the segment ends, whatever others have. Of the
 * newest segment, where that isn't known, the one counts that goes furthest, as for a taker (R17.2): one that is damaged ends where that is, though its server calls it whole, and what was
 * published may be behind it. 1: with so many of its records; 0: none does;
 * -errno: so it is as far as they can be read. */
static int walk_segment(struct search *s, const struct salvage_copy *copies, size_t count, size_t *ret_count)
{
	struct walked best = { .copy = NULL };
	int failed = 0;
	bool ended = false;
	for (unsigned rank = 3; rank-- > 0 && !ended && (!best.copy || best.damaged || (best.reach && !PLANTED(salvage_whole_alone)));)
		for (size_t i = 0; i < count; i++) {
			bool sealed = rank == 2;
			if (rank != (copies[i].entry.sealed ? 2u : copies[i].entry.whole))
				continue;
			int r = walk_copy(s->env, &copies[i], &s->walk);
			if (r == -ENOMEM || r == -ESHUTDOWN)
				return r;
			failed = r < 0 ? r : failed;
			ended |= r == 0 && sealed;
			if (r < 0 || !links(s, &s->walk, ret_count))
				continue;
			struct walked this = { &copies[i], sealed || s->need_seq ? 0 : last_of(&s->walk).seq, s->walk.damaged };
			if (this.reach == 0 && !this.damaged)
				return 1;
			if (is_better(&this, &best))
				best = this;
		}
	if (!best.copy)
		return failed;
	int r = walk_copy(s->env, best.copy, &s->walk);
	if (r == 0 && best.reach && last_of(&s->walk).seq < best.reach)
		r = -EBADMSG; /* it can't be read by now */
	return r ? r : links(s, &s->walk, ret_count);
}

static void add_holders(struct meta_segment *m, const struct salvage_copy *copies, size_t count, bool sealed)
{
	for (unsigned whole = 2; whole-- > 0;)
		for (size_t i = 0; i < count && m->ensemble_count < META_REPLICAS_MAX; i++) {
			const struct salvage_copy *c = &copies[i];
			if (c->entry.sealed == sealed && c->entry.whole == (whole == 1))
				m->ensemble[m->ensemble_count++] = (struct meta_replica){ c->peer->id, peer_incarnation(c->peer) };
		}
}

/* Which of the other copies have all up to where it ends. */
static int add_linked(struct search *s, struct meta_segment *m, const struct salvage_copy *copies, size_t count)
{
	int failed = -EIO; /* one had, as it was just read: if that can't be read any more, none has */
	for (size_t i = 0; i < count && m->ensemble_count < META_REPLICAS_MAX; i++) {
		struct walk w = { 0 };
		if (s->walk.copy->entry.sealed && copies[i].entry.sealed)
			continue; /* it is listed */
		int r = walk_copy(s->env, &copies[i], &w);
		bool has = false;
		for (size_t k = w.count; r == 0 && k-- > 0 && !has;)
			has = w.met[k].end == m->length && w.met[k].crc == m->prev;
		if (has)
			m->ensemble[m->ensemble_count++] = (struct meta_replica){ copies[i].peer->id, peer_incarnation(copies[i].peer) };
		walk_end(&w);
		if (r == -ENOMEM || r == -ESHUTDOWN)
			return r;
		failed = r < 0 ? r : failed;
	}
	return m->ensemble_count ? 0 : failed;
}

/* The newest one is left open: whoever takes the volume finds its end (R17). An older one ends where the next begins. */
static int list_segment(struct search *s, const struct salvage_copy *copies, size_t count, size_t linked)
{
	const struct share_entry *e = &s->walk.copy->entry;
	if (s->segment_count == META_SEGMENTS_MAX)
		return -EOVERFLOW;
	struct meta_segment *m = &s->segments[s->segment_count++];
	*m = (struct meta_segment){ .id = e->header.segment, .epoch = e->header.epoch, .salt = e->header.salt, .size_blocks = e->header.size_blocks };
	if (!e->sealed && s->need_seq == 0) {
		add_holders(m, copies, count, false);
		return 0;
	}
	m->cut = true;
	m->length = e->sealed ? e->length : s->walk.met[linked - 1].end;
	m->prev = e->sealed ? e->prev : s->walk.met[linked - 1].crc;
	if (e->sealed)
		add_holders(m, copies, count, true);
	return add_linked(s, m, copies, count);
}

/* ---- the summary ---- */

static int read_summary(struct walk *w, size_t i, struct summary *ret)
{
	uint32_t block = w->summaries[i].block, blocks = w->summaries[i].blocks;
	int r = window_load(w, block, blocks);
	const uint8_t *bytes = w->window + (size_t)(block - w->window_block) * BLOCK_BYTES;
	for (uint32_t k = 0; r == 0 && k < blocks; k++)
		if (crc32c(0, bytes + (size_t)k * BLOCK_BYTES, BLOCK_BYTES) != w->summaries[i].crcs[k])
			r = -EBADMSG;
	return r ? r : summary_decode(bytes, (size_t)blocks * BLOCK_BYTES, ret);
}

/* What leads to it. */
static struct meta_root place_of(const struct walk *w, size_t i)
{
	struct meta_root at = { { position_make(w->copy->entry.header.segment, w->summaries[i].block), w->summaries[i].crcs[0], 0 }, 0, 0 };
	size_t length = 0;
	summary_begins(w->window + (size_t)(w->summaries[i].block - w->window_block) * BLOCK_BYTES, &length); /* it was just read */
	at.length = length;
	return at;
}

/* The newest that belongs to the chain and is newer than what is known. One that is damaged, or of a newer version, may be of a checkpoint that was published: then
 * what the one before needs may be gone, and that isn't gone back to. */
static int find_summary(struct search *s, size_t linked)
{
	struct walk *w = &s->walk;
	for (size_t i = w->summary_count; i-- > 0;) {
		struct summary found;
		if (w->summaries[i].at >= linked)
			continue;
		int r = w->summaries[i].damaged ? -EBADMSG : read_summary(w, i, &found);
		if (r == -ENODATA)
			continue; /* a part of it is free by now */
		if (r < 0)
			return r;
		if (memcmp(&found.log.volume, &w->copy->entry.header.volume, sizeof(uuid)) != 0 || (s->known && found.log.generation <= s->known->generation)) {
			summary_free(&found);
			continue;
		}
		s->ret->what = SALVAGE_NEWER;
		s->ret->summary = found;
		s->ret->summary.log.summary = place_of(w, i);
		s->from_position = found.log.from_position;
		s->from_seq = found.log.from_seq;
		return 0;
	}
	return 0;
}

/* ---- the chain ---- */

static void begin_chain(struct search *s)
{
	if (s->ret->what == SALVAGE_NEWER)
		summary_free(&s->ret->summary);
	s->ret->what = SALVAGE_NOTHING;
	s->need_seq = 0;
	s->segment_count = 0;
	s->from_seq = 0;
	s->ret->seq = 0;
}

/* Does the record with which it ends precede what is known? Then nothing was written since. */
static bool ends_as_known(const struct search *s)
{
	const struct met last = last_of(&s->walk);
	return s->known && last.seq + 1 == s->known->from_seq && last.crc == s->known->from_prev;
}

/* Has it come to where replay begins? */
static bool reaches(struct search *s, uint64_t segment)
{
	if (s->from_seq == 0 && s->known && s->need_seq <= s->known->from_seq) { /* no newer checkpoint is on the way */
		s->ret->what = SALVAGE_LONGER;
		s->from_position = s->known->from_position;
		s->from_seq = s->known->from_seq;
	}
	return s->from_seq && (s->need_seq < s->from_seq || (s->need_seq == s->from_seq && segment <= position_segment(s->from_position)));
}

/* What was before has become free, as replay began behind it by then: the volume was closed after that checkpoint, which all that it held is in. */
static bool begins_here(struct search *s, uint64_t segment)
{
	if (!s->walk.begun || s->ret->what != SALVAGE_NEWER)
		return false;
	struct meta_log *log = &s->ret->summary.log;
	log->from_position = s->walk.count ? position_make(segment, s->walk.met[0].block) : position_make(segment, 0xffff);
	log->from_seq = s->need_seq;
	log->from_prev = s->need_prev;
	return true;
}

/* 0: none is left in it that tells; then only a footer does, of any. */
static void need_before(struct search *s, size_t linked)
{
	s->need_seq = linked ? s->walk.met[0].seq : 0;
	s->need_prev = linked ? s->walk.met[0].prev : 0;
}

/* Of a segment that belongs to the chain. 1: that is whole; 0: it goes on; -errno. */
static int follow_segment(struct search *s, const struct salvage_copy *copies, size_t count, size_t linked)
{
	uint64_t segment = copies[0].entry.header.segment;
	int r = 0;
	if (s->need_seq == 0) {
		s->ret->seq = last_of(&s->walk).seq;
		if (ends_as_known(s))
			return 1;
	}
	if (s->from_seq == 0)
		r = find_summary(s, linked);
	if (r == 0 && linked)
		r = list_segment(s, copies, count, linked);
	if (r < 0)
		return r;
	if (linked)
		need_before(s, linked);
	return reaches(s, segment) || begins_here(s, segment);
}

/* Of the copies of one segment, of which index `end` - 1 is the last. */
static size_t first_copy(const struct search *s, size_t end)
{
	size_t begin = end ? end - 1 : 0;
	while (begin > 0 && same_segment(&s->copies[begin - 1], &s->copies[end - 1]))
		begin--;
	return begin;
}

static bool is_sealed(const struct salvage_copy *copies, size_t count)
{
	bool sealed = false;
	for (size_t i = 0; i < count; i++)
		sealed |= copies[i].entry.sealed;
	return sealed;
}

/* Somebody knows where it was cut: a footer tells, or the record does. */
static bool is_cut(const struct search *s, const struct salvage_copy *copies, size_t count)
{
	const struct meta_log *log = s->ret->what == SALVAGE_NEWER ? &s->ret->summary.log : s->known;
	bool cut = is_sealed(copies, count);
	for (uint32_t i = 0; i < log->unsealed_count; i++)
		cut |= log->unsealed[i].id == copies->entry.header.segment;
	return cut;
}

/* The backup was made while cuts waited for the catalog, and is all that is known: of this one or one before it no record has the cut, whoever may have been told. */
static bool waits_for_cut(const struct search *s, uint64_t segment)
{
	bool waits = false;
	for (uint32_t i = 0; s->ret->what == SALVAGE_LONGER && i < s->known->segment_count; i++)
		waits |= !s->known->segments[i].cut && s->known->segments[i].id <= segment;
	return waits && !PLANTED(salvage_uncut_forgotten);
}

/* Replay needs no more. But what had been finished, and not yet cut or not yet sealed anywhere, when the catalog was lost is listed with its cut, or nobody could seal it
 * any more, and it were never copied. Cuts are made in order: what comes before one that is known has been cut, too, and the summary says where, or the backup (unsealed.c). What can't be read here is no reason to go on from
 * something else. 1 or -errno. */
static int follow_uncut(struct search *s, size_t end)
{
	while (s->ret->what != SALVAGE_NOTHING && end > 0 && s->segment_count < META_SEGMENTS_MAX / 2) {
		size_t begin = first_copy(s, end), linked = 0;
		if (is_cut(s, s->copies + begin, end - begin) && !waits_for_cut(s, s->copies[begin].entry.header.segment))
			break;
		bool chained = s->need_seq || is_sealed(s->copies + begin, end - begin);
		int r = chained ? walk_segment(s, s->copies + begin, end - begin, &linked) : 0;
		if (r > 0 && (r = list_segment(s, s->copies + begin, end - begin, linked)) == 0)
			need_before(s, s->walk.begun ? 0 : linked);
		if (r == -ENOMEM || r == -ESHUTDOWN)
			return r;
		if (r < 0)
			break;
		end = begin;
	}
	return 1;
}

/* The one with index `end` - 1 is the newest. 1: it has come to its beginning; 0: it hasn't; -errno. */
static int follow(struct search *s, size_t end)
{
	int failed = 0;
	begin_chain(s);
	while (end > 0) {
		size_t begin = first_copy(s, end), linked;
		int r = walk_segment(s, s->copies + begin, end - begin, &linked);
		if (r == -ENOMEM || r == -ESHUTDOWN)
			return r;
		failed = r < 0 ? r : failed;
		if (r <= 0 && s->need_seq == 0)
			return failed; /* nothing is in it: it is no end */
		if (r > 0 && (r = follow_segment(s, s->copies + begin, end - begin, linked)) != 0)
			return r < 0 ? r : follow_uncut(s, begin);
		if (s->need_seq == 0)
			return failed; /* nothing in it is needed any more: something came after it */
		end = begin;
	}
	/* whose first record is the very one may have nothing before it that is still there */
	return s->from_seq && s->need_seq <= s->from_seq ? 1 : failed;
}

static int by_id(const void *a, const void *b)
{
	uint64_t x = ((const struct meta_segment *)a)->id, y = ((const struct meta_segment *)b)->id;
	return x < y ? -1 : x > y;
}

/* What was made ahead for writes that never came: listed as it was, it goes with the first checkpoint, and is nobody's otherwise. */
static void list_ahead(struct search *s, const struct salvage_copy *copies, const struct salvage_copy *end)
{
	for (const struct salvage_copy *next; copies < end && s->segment_count < META_SEGMENTS_MAX; copies = next) {
		const struct segment_header *h = &copies->entry.header;
		for (next = copies; next < end && same_segment(next, copies);)
			next++;
		struct meta_segment *m = &s->segments[s->segment_count++];
		*m = (struct meta_segment){ .id = h->segment, .epoch = h->epoch, .salt = h->salt, .size_blocks = h->size_blocks };
		add_holders(m, copies, (size_t)(next - copies), false);
	}
}

/* What the backup lists as cut, behind which replay begins: a checkpoint would have kept that (unsealed.c). */
static void keep_cuts(const struct search *s, struct meta_log *log)
{
	for (uint32_t i = 0; i < s->known->segment_count && log->unsealed_count < META_UNSEALED_MAX; i++) {
		const struct meta_segment *m = &s->known->segments[i];
		bool listed = !m->cut || m->id >= position_segment(log->from_position);
		for (uint32_t k = 0; k < s->segment_count && !listed; k++)
			listed = s->segments[k].id == m->id;
		if (!listed)
			log->unsealed[log->unsealed_count++] = *m;
	}
}

/* The record to go on with. */
static void fill(struct search *s)
{
	struct salvage *ret = s->ret;
	ret->log = ret->what == SALVAGE_NEWER ? ret->summary.log : *s->known;
	ret->log.segment_count = 0;
	if (ret->what == SALVAGE_LONGER)
		keep_cuts(s, &ret->log);
	qsort(s->segments, s->segment_count, sizeof *s->segments, by_id);
	for (uint32_t i = 0; i < s->segment_count; i++)
		if (s->segments[i].ensemble_count)
			ret->log.segments[ret->log.segment_count++] = s->segments[i];
	ret->log.last_id = MAX(ret->last_id, ret->log.last_id);
}

/* ---- what doesn't lead there ---- */

/* Of a segment behind the end: are there records in it, and up to which record do they say that all was flushed? Those that are sealed were, and all before. */
static int read_behind(const struct search *s, const struct salvage_copy *copies, size_t count, bool *ret_any, uint64_t *ret_synced)
{
	int r = 0;
	*ret_any = false;
	for (size_t i = 0; r == 0 && i < count; i++) {
		struct walk w = { 0 };
		r = walk_copy(s->env, &copies[i], &w);
		*ret_any |= last_of(&w).seq != 0;
		*ret_synced = copies[i].entry.sealed ? UINT64_MAX : MAX(*ret_synced, w.synced);
		walk_end(&w);
	}
	return r;
}

/* As many copies as there are to be, and none is as its owner left it: all their servers lost power. */
static bool is_torn(const struct search *s, const struct salvage_copy *copies, size_t count)
{
	const struct meta_log *log = s->known ? s->known : &s->ret->summary.log;
	bool intact = count < log->replicas;
	for (size_t i = 0; i < count; i++)
		intact |= copies[i].entry.sealed || copies[i].entry.whole;
	return !intact;
}

/* Records are behind the end that don't follow it. A power failure may have taken what is between, which hadn't been flushed then: as far as those know nothing was that is missing, and
 * there is a segment where that may have been. Who takes a volume over that has its record goes by the same. */
static int was_unflushed(const struct search *s, bool *ret)
{
	uint64_t synced = 0;
	bool torn = false;
	*ret = false;
	for (size_t begin = first_copy(s, s->end), end; begin < s->count; begin = end) {
		bool any = false;
		for (end = begin; end < s->count && same_segment(&s->copies[end], &s->copies[begin]);)
			end++;
		int r = begin < s->end ? 0 : read_behind(s, s->copies + begin, end - begin, &any, &synced);
		if (r < 0)
			return r == -ENOMEM || r == -ESHUTDOWN || segment_away(r) ? r : 0; /* nobody knows */
		if (any && !torn)
			return 0;
		torn |= is_torn(s, s->copies + begin, end - begin);
	}
	*ret = synced <= s->ret->seq;
	return 0;
}

/* When it was backed up nothing had been written to it: who had opened it listed segments, which may be as empty still. */
static bool is_new(const struct search *s) { return s->known && !s->known->space.pointer.position && s->known->from_prev == 0; }

/* From the newest segment on that has something in it and leads anywhere. */
static int search(struct search *s)
{
	int r = 0, failed = 0;
	size_t end = s->count;
	for (unsigned tails = 0; r == 0 && end > 0 && tails < TAILS_MAX; tails++) {
		s->end = end;
		r = follow(s, end);
		s->ret->behind |= r == 0 && s->ret->seq != 0;
		if (r < 0 && r != -ENOMEM && r != -ESHUTDOWN) {
			failed = r;
			r = 0;
		}
		for (size_t last = end; end > 0 && same_segment(&s->copies[end - 1], &s->copies[last - 1]);)
			end--;
	}
	if (r == 0 && !failed && end == 0 && is_new(s)) {
		begin_chain(s);
		s->ret->what = SALVAGE_LONGER;
		s->end = 0;
		r = 1;
	}
	if (r < 0)
		return r;
	/* what can't be read now may be what is newest */
	if (r == 0 || failed)
		return report_set(s->report, failed ? failed : -ENODATA, failed ? "a part of its log can't be read: %s" : "its segments lead to no checkpoint",
				  errno_text(failed));
	return 0;
}

int salvage(struct env *env, const struct salvage_copy *copies, size_t count, const struct meta_log *known, struct salvage *ret, struct report *report)
{
	struct search *s = calloc(1, sizeof *s);
	memset(ret, 0, sizeof *ret);
	if (!s)
		return -ENOMEM;
	*s = (struct search){ .env = env, .copies = copies, .count = count, .known = known, .ret = ret, .report = report };
	for (size_t i = 0; i < count; i++) {
		ret->last_id = MAX(ret->last_id, copies[i].entry.header.segment);
		ret->last_epoch = MAX(ret->last_epoch, copies[i].entry.header.epoch);
		if (copies[i].entry.header.epoch > SALVAGE_EPOCH_MAX) {
			free(s);
			return report_set(report, -EUCLEAN, "the copy of segment %llu on %s says that it is of epoch %llu, which no volume gets to (is that server's data damaged?)",
					  (unsigned long long)copies[i].entry.header.segment, copies[i].peer->address[0] ? copies[i].peer->address : "this host",
					  (unsigned long long)copies[i].entry.header.epoch);
		}
	}
	int r = search(s);
	if (r == 0 && ret->behind)
		r = was_unflushed(s, &ret->unflushed);
	if (r == 0 && ret->what != SALVAGE_NOTHING) {
		list_ahead(s, copies + s->end, copies + count);
		fill(s);
	}
	if (r < 0 && ret->what == SALVAGE_NEWER)
		summary_free(&ret->summary);
	walk_end(&s->walk);
	free(s);
	return r;
}
