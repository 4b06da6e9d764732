#include "parallax/map/space.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/map/positions.h"
#include "parallax/map/space_private.h"

void space_init(struct space *s) { *s = (struct space){ .index_from = SPACE_INDEX_FROM, .index_chunks = SPACE_INDEX_CHUNKS }; }

/* An older list gets more only when a younger snapshot is deleted: there may be ten thousand. */
static void tail_free(struct space_tail *t)
{
	free(t->entries);
	*t = (struct space_tail){ 0 };
}

static void list_clear(struct space_list *l)
{
	free(l->chunks);
	free(l->tail[0].entries);
	free(l->tail[1].entries);
	free(l->pending.entries);
}

void space_destroy(struct space *s)
{
	for (uint32_t i = 0; i < s->list_count; i++)
		list_clear(&s->lists[i]);
	for (uint32_t i = 0; i < s->segment_count; i++)
		frees_free(&s->segments[i].frees);
	free(s->lists);
	free(s->segments);
	space_init(s);
}

/* ---- segments ---- */

int space_add_segment(struct space *s, uint64_t id, uint32_t blocks)
{
	if (space_find(s, id))
		return 0;
	int r = array_reserve(&s->segments, &s->segment_room, s->segment_count + 1);
	if (r < 0)
		return r;
	uint32_t at = s->segment_count++;
	for (; at > 0 && s->segments[at - 1].id > id; at--) /* almost always the last */
		s->segments[at] = s->segments[at - 1];
	s->segments[at] = (struct space_segment){ .id = id, .blocks = blocks };
	return 0;
}

uint64_t space_last_segment(const struct space *s) { return s->segment_count ? s->segments[s->segment_count - 1].id : 0; }

struct space_segment *space_find(struct space *s, uint64_t id)
{
	size_t at = array_place(s->segments, s->segment_count, id, id);
	return at < s->segment_count && s->segments[at].id == id ? &s->segments[at] : NULL;
}

void space_frees_note(struct space *s, struct space_segment *g, enum frees_stage stage, uint32_t block)
{
	frees_add(&g->frees, stage, block, g->blocks);
	s->frees_count++;
}

/* By the checkpoint. What it takes away is free when that is published. */
static void live_add(struct space *s, uint64_t position, int32_t by)
{
	struct space_segment *g = space_find(s, position_segment(position));
	if (!g)
		return;
	assert(by > 0 || g->live >= (uint32_t)-by);
	g->live = (uint32_t)((int64_t)g->live + by);
	if (by < 0)
		space_frees_note(s, g, FREES_FOLDED, position_block(position));
}

static void live_pending_end(struct space *s, uint64_t position)
{
	struct space_segment *g = space_find(s, position_segment(position));
	if (!g)
		return;
	g->pending--;
	space_frees_note(s, g, PLANTED(space_free_early) ? FREES_UNSENT : FREES_PENDING, position_block(position));
}

void space_unused(struct space *s, uint64_t position, uint32_t count)
{
	struct space_segment *g = space_find(s, position_segment(position));
	for (uint32_t i = 0; g && i < count; i++)
		space_frees_note(s, g, FREES_FOLDED, position_block(position) + i);
}

uint64_t space_live(const struct space *s)
{
	uint64_t sum = 0;
	for (uint32_t i = 0; i < s->segment_count; i++)
		sum += (uint64_t)((int64_t)s->segments[i].live + s->segments[i].pending);
	return sum;
}

static bool segment_free(const struct space_segment *g, uint64_t before) { return g->id < before && g->live == 0; }

void space_take_free(struct space *s, uint64_t before, void (*each)(void *arg, uint64_t id), void *arg)
{
	uint32_t kept = 0;
	for (uint32_t i = 0; i < s->segment_count; i++) {
		if (segment_free(&s->segments[i], before)) {
			frees_free(&s->segments[i].frees);
			each(arg, s->segments[i].id);
		} else {
			s->segments[kept++] = s->segments[i];
		}
	}
	s->segment_count = kept;
}

/* ---- what is to be sent, and packed ---- */

struct space_segment *space_unsent(struct space *s, uint64_t before, uint32_t least)
{
	struct space_segment *most = NULL;
	for (uint32_t i = 0; i < s->segment_count && s->segments[i].id < before; i++) {
		struct space_segment *g = &s->segments[i];
		uint32_t n = g->stuck ? 0 : frees_count(g->frees, FREES_UNSENT);
		if (n >= MAX(least, UINT32_C(1)) && (!most || n > frees_count(most->frees, FREES_UNSENT)))
			most = g;
	}
	return most;
}

static bool is_stuck(const struct space_segment *g) { return g->stuck && frees_count(g->frees, FREES_UNSENT); }

bool space_stuck(const struct space *s, uint64_t before)
{
	for (uint32_t i = 0; i < s->segment_count && s->segments[i].id < before; i++)
		if (is_stuck(&s->segments[i]))
			return true;
	return false;
}

void space_unstick(struct space *s)
{
	for (uint32_t i = 0; i < s->segment_count; i++)
		s->segments[i].stuck &= !is_stuck(&s->segments[i]);
}

void space_sent(struct space *s, uint64_t id, const uint8_t *bits)
{
	struct space_segment *g = space_find(s, id);
	if (g)
		frees_remove(g->frees, FREES_UNSENT, bits, g->blocks);
}

uint32_t space_present(const struct space_segment *g)
{
	uint32_t known = g->live + 1 + frees_count(g->frees, FREES_FOLDED) + frees_count(g->frees, FREES_UNSENT);
	return MAX(g->present ? g->present : known, g->live + 1);
}

static uint32_t frees_all(const struct frees *f)
{
	return frees_count(f, FREES_PENDING) + frees_count(f, FREES_FOLDED) + frees_count(f, FREES_UNSENT);
}

struct space_segment *space_sparsest(struct space *s, uint64_t before, unsigned percent, uint64_t slack)
{
	struct space_segment *best = NULL;
	uint64_t present = 0, live = 0, best_waste = 0;
	for (uint32_t i = 0; i < s->segment_count; i++) {
		struct space_segment *g = &s->segments[i];
		uint32_t live_now = (uint32_t)((int64_t)g->live + g->pending) + 1;
		present += MAX(space_present(g), live_now + frees_all(g->frees));
		live += live_now;
		if (g->id >= before)
			continue;
		/* what isn't published yet can't be given back yet */
		uint32_t takes = space_present(g), folded = frees_count(g->frees, FREES_FOLDED);
		uint32_t waste = takes - MIN(takes, g->live + 1 + folded);
		if (waste >= takes / 4 && waste > 0 && !g->stuck && (!best || waste * (uint64_t)space_present(best) > best_waste * takes)) {
			best = g;
			best_waste = waste;
		}
	}
	return present > live * percent / 100 + slack ? best : NULL;
}

/* ---- lists ---- */

/* How many of them are not after that mark. */
static uint32_t lists_up_to(const struct space *s, uint64_t mark_seq)
{
	return mark_seq == UINT64_MAX ? s->list_count : (uint32_t)array_place(s->lists, s->list_count, mark_seq, mark_seq + 1);
}

static uint32_t list_index(const struct space *s, uint64_t mark_seq)
{
	uint32_t n = lists_up_to(s, mark_seq);
	return n && s->lists[n - 1].mark_seq == mark_seq ? n - 1 : UINT32_MAX;
}

struct space_list *space_list_find(struct space *s, uint64_t mark_seq)
{
	uint32_t i = list_index(s, mark_seq);
	return i == UINT32_MAX ? NULL : &s->lists[i];
}

static uint32_t list_loose(const struct space_list *l) { return l->pending.count + l->tail[0].count + l->tail[1].count; }

/* What a list has goes from the sums while it is changed, and comes back. */
static void sums_without(struct space *s, const struct space_list *l)
{
	s->loose -= list_loose(l);
	s->loose_lists -= list_loose(l) > 0;
	s->chunk_sum -= space_list_chunks(l);
}

static void sums_with(struct space *s, const struct space_list *l)
{
	s->loose += list_loose(l);
	s->loose_lists += list_loose(l) > 0;
	s->chunk_sum += space_list_chunks(l);
}

static bool sums_hold(const struct space *s)
{
	struct space sum = { 0 };
	for (uint32_t i = 0; i < s->list_count; i++)
		sums_with(&sum, &s->lists[i]);
	return sum.loose == s->loose && sum.loose_lists == s->loose_lists && sum.chunk_sum == s->chunk_sum;
}

/* The sums are the caller's. */
static int tail_push(struct space_tail *t, uint64_t position)
{
	int r = array_reserve(&t->entries, &t->room, t->count + 1);
	if (r == 0) {
		t->entries[t->count++] = position;
		t->sorted = false;
	}
	return r;
}

/* To a tail of `l`. */
static int tail_add(struct space *s, struct space_list *l, struct space_tail *t, uint64_t position)
{
	bool first = list_loose(l) == 0;
	int r = tail_push(t, position);
	if (r == 0) {
		s->loose++;
		s->loose_lists += first;
	}
	return r;
}

int space_mark(struct space *s, uint64_t mark_seq, uint64_t mark_position)
{
	if (space_list_find(s, mark_seq))
		return 0;
	assert(!space_newest(s) || space_newest(s)->mark_seq < mark_seq);
	int r = array_reserve(&s->lists, &s->list_room, s->list_count + 1);
	if (r == 0)
		s->lists[s->list_count++] = (struct space_list){ .mark_seq = mark_seq, .mark_position = mark_position };
	return r;
}

void space_node_end(struct space *s, uint64_t mark_seq, uint64_t node_end)
{
	struct space_list *l = space_list_find(s, mark_seq);
	if (l)
		l->node_end = node_end;
}

/* ---- applying ---- */

void space_data_written(struct space *s, uint64_t position, uint32_t count)
{
	struct space_segment *g = space_find(s, position_segment(position));
	assert(g);
	g->pending += (int32_t)count;
}

int space_reserve(struct space *s, uint32_t count)
{
	struct space_list *l = space_newest(s);
	return l ? array_reserve(&l->pending.entries, &l->pending.room, l->pending.count + count) : 0;
}

int space_data_replaced(struct space *s, uint64_t position)
{
	struct space_segment *g = space_find(s, position_segment(position));
	if (!g)
		return 0;
	struct space_list *l = space_newest(s);
	if (l && position < l->mark_position && !PLANTED(space_ignore_snapshot)) {
		s->dead_pending++;
		if (PLANTED(trim_snapshot_block))
			space_frees_note(s, space_find(s, position_segment(position)), FREES_PENDING, position_block(position));
		return tail_add(s, l, &l->pending, position);
	}
	live_pending_end(s, position);
	return 0;
}

/* ---- checkpoint ---- */

struct space_list *space_list_up_to(struct space *s, uint64_t mark_seq)
{
	uint32_t n = lists_up_to(s, mark_seq);
	return n ? &s->lists[n - 1] : NULL;
}

void space_fold(struct space *s)
{
	s->frees_count = 0;
	for (uint32_t i = 0; i < s->segment_count; i++) {
		struct space_segment *g = &s->segments[i];
		assert((int64_t)g->live + g->pending >= 0);
		g->live = (uint32_t)((int64_t)g->live + g->pending);
		g->pending = 0;
		frees_move(g->frees, FREES_PENDING, FREES_FOLDED, g->blocks);
		s->frees_count += frees_count(g->frees, FREES_FOLDED) + frees_count(g->frees, FREES_UNSENT);
	}
	s->mapped = (uint64_t)((int64_t)s->mapped + s->mapped_pending);
	s->dead = (uint64_t)((int64_t)s->dead + s->dead_pending);
	s->mapped_pending = s->dead_pending = 0;
	assert(sums_hold(s));
	for (uint32_t i = 0; i < s->list_count; i++) {
		struct space_list *l = &s->lists[i];
		l->folded = true;
		if (l->pending.count == 0) {
			if (l != space_newest(s))
				tail_free(&l->pending);
			continue;
		}
		l->tail_changed[0] = true;
		if (l->tail[0].count == 0) { /* the common case: hand the array over */
			struct space_tail t = l->tail[0];
			l->tail[0] = l->pending;
			l->pending = t;
			continue;
		}
		sums_without(s, l);
		for (uint32_t e = 0; e < l->pending.count; e++)
			if (tail_push(&l->tail[0], l->pending.entries[e]) < 0)
				abort(); /* a few KiB; without them the accounting would be wrong */
		l->pending.count = 0;
		sums_with(s, l);
	}
}

void space_published(struct space *s)
{
	for (uint32_t i = 0; i < s->segment_count; i++) {
		frees_move(s->segments[i].frees, FREES_FOLDED, FREES_UNSENT, s->segments[i].blocks);
		s->segments[i].stuck = false;
	}
}

void space_node_written(struct space *s, uint64_t position) { live_add(s, position, 1); }

int space_node_replaced(struct space *s, uint64_t newest_mark, uint64_t position)
{
	if (!space_find(s, position_segment(position)))
		return 0;
	struct space_list *l = space_list_up_to(s, newest_mark);
	if (l && position <= l->node_end) {
		l->tail_changed[1] = true;
		s->dead++;
		return tail_add(s, l, &l->tail[1], position);
	}
	live_add(s, position, -1);
	return 0;
}

/* The greatest positions first, so that what is left needs no moving. */
static void tail_take(struct space *s, uint32_t index, unsigned k, struct space_tail_write *ret_write, uint8_t *block)
{
	struct space_tail *t = &s->lists[index].tail[k];
	if (!t->sorted) /* so that chunks have narrow ranges of birth */
		positions_sort(t->entries, t->count);
	t->sorted = true;
	uint32_t count = MIN(t->count, (uint32_t)SPACE_CHUNK_ENTRIES);
	*ret_write = (struct space_tail_write){ .list = index, .nodes = k == 1, .count = count };
	ret_write->finish = count == SPACE_CHUNK_ENTRIES || index + 1 < s->list_count;
	memset(block, 0, BLOCK_BYTES);
	for (uint32_t e = 0; e < count; e++)
		put_le64(block + e * 8, t->entries[t->count - count + e]);
}

/* Begins with the list it was at, so that a thousand others aren't looked at for each block. */
bool space_tail_next(struct space *s, struct space_tail_write *ret_write, void *ret_block)
{
	for (uint32_t n = 0; n < s->list_count; n++) {
		uint32_t i = (s->tail_at + n) % s->list_count;
		const struct space_list *l = &s->lists[i];
		for (unsigned k = 0; l->folded && k < 2; k++) {
			if (!l->tail_changed[k])
				continue;
			s->tail_at = i;
			tail_take(s, i, k, ret_write, ret_block);
			return true;
		}
	}
	return false;
}

int space_chunk_add(struct space_list *l, const struct space_chunk *c)
{
	int r = array_reserve(&l->chunks, &l->chunk_room, l->chunk_count + 1);
	if (r == 0)
		l->chunks[l->chunk_count++] = *c;
	return r;
}

static int tail_written(struct space *s, const struct space_tail_write *w, const struct pointer *at)
{
	struct space_list *l = &s->lists[w->list];
	unsigned k = w->nodes;
	struct space_tail *t = &l->tail[k];
	struct space_chunk c = { .at = *at, .count = w->count, .entries = w->count, .nodes = w->nodes };
	if (w->count && w->finish && array_reserve(&l->chunks, &l->chunk_room, l->chunk_count + 1) < 0) {
		space_unused(s, at->position, 1);
		return -ENOMEM;
	}
	if (l->written[k].count) { /* the unfinished chunk's old place is free now */
		live_add(s, l->written[k].at.position, -1);
		l->written[k].count = 0;
	}
	if (w->count == 0) {
		l->tail_changed[k] = false;
		return 0;
	}
	assert(t->sorted && t->count >= w->count); /* as it was when the block was filled */
	c.min = t->entries[t->count - w->count];
	c.max = t->entries[t->count - 1];
	live_add(s, at->position, 1);
	if (!w->finish) {
		l->written[k] = c;
		l->tail_changed[k] = false;
		return 0;
	}
	l->chunks[l->chunk_count++] = c;
	t->count -= w->count;
	l->tail_changed[k] = t->count > 0;
	if (t->count == 0 && l != space_newest(s))
		tail_free(t);
	return 0;
}

int space_tail_written(struct space *s, const struct space_tail_write *w, const struct pointer *at)
{
	sums_without(s, &s->lists[w->list]);
	int r = tail_written(s, w, at);
	sums_with(s, &s->lists[w->list]);
	return r;
}

/* ---- indexes ---- */

/* So few at a time that a checkpoint doesn't grow by it. */
enum { INDEXES_TOGETHER = 256 };

uint64_t space_indexes_max(const struct space *s)
{
	return s->chunk_sum > s->index_from ? MIN(s->chunk_sum / s->index_chunks, (uint64_t)INDEXES_TOGETHER) : 0;
}

/* May a chunk go to an index with the others of its kind? */
static bool is_plain(const struct space_chunk *c, bool nodes) { return !c->index && c->nodes == nodes; }

/* Those that were added last: a list may have a million before them. From where on there are so many of that kind, the first of them there; UINT32_MAX: there aren't. */
static uint32_t plain_from(const struct space_list *l, bool nodes, uint32_t least)
{
	uint32_t i = l->chunk_count, n = 0;
	while (i > 0 && n < least)
		n += is_plain(&l->chunks[--i], nodes);
	return n == least ? i : UINT32_MAX;
}

static void index_fill(const struct space_list *l, bool nodes, uint32_t from, uint8_t *block)
{
	memset(block, 0, BLOCK_BYTES);
	for (uint32_t i = from; i < l->chunk_count; i++)
		if (is_plain(&l->chunks[i], nodes))
			block = space_chunk_encode(&l->chunks[i], block);
}

bool space_index_next(struct space *s, struct space_index_write *ret_write, void *ret_block)
{
	if (s->chunk_sum <= s->index_from)
		return false;
	for (uint32_t i = 0; i < s->list_count; i++) {
		const struct space_list *l = &s->lists[i];
		for (unsigned k = 0; l->folded && k < 2; k++) {
			uint32_t from = plain_from(l, k, s->index_chunks);
			if (from == UINT32_MAX)
				continue;
			*ret_write = (struct space_index_write){ l->mark_seq, k };
			index_fill(l, k, from, ret_block);
			return true;
		}
	}
	return false;
}

static void index_add(struct space_chunk *index, const struct space_chunk *c)
{
	index->min = index->count ? MIN(index->min, c->min) : c->min;
	index->max = MAX(index->max, c->max);
	index->count++;
	index->entries += c->count;
}

/* As they were when the block was filled: only a checkpoint changes finished chunks, and there is one. */
void space_index_written(struct space *s, const struct space_index_write *w, const struct pointer *at)
{
	struct space_list *l = space_list_find(s, w->mark_seq);
	struct space_chunk index = { .at = *at, .nodes = w->nodes, .index = true };
	uint32_t from = plain_from(l, w->nodes, s->index_chunks), kept = from;
	sums_without(s, l);
	for (uint32_t i = from; i < l->chunk_count; i++)
		if (is_plain(&l->chunks[i], w->nodes))
			index_add(&index, &l->chunks[i]);
		else
			l->chunks[kept++] = l->chunks[i];
	l->chunks[kept++] = index;
	l->chunk_count = kept;
	sums_with(s, l);
	live_add(s, at->position, 1);
}

/* ---- dropping a snapshot ---- */

/* The greatest position that the predecessor of a list's mark can hold; 0: no predecessor. */
static uint64_t border(const struct space *s, uint32_t index, bool nodes)
{
	if (index == 0)
		return 0;
	const struct space_list *before = &s->lists[index - 1];
	return nodes ? before->node_end : before->mark_position;
}

uint64_t space_drop_border(const struct space *s, uint64_t mark_seq, bool nodes)
{
	return border(s, list_index(s, mark_seq), nodes);
}

bool space_drop_reads(const struct space *s, uint64_t mark_seq, const struct space_chunk *chunk)
{
	uint32_t i = list_index(s, mark_seq);
	return i == 0 || chunk->max > border(s, i, chunk->nodes);
}

/* The predecessor may get so many. */
static int drop_reserve(struct space *s, uint32_t index, bool nodes, uint32_t count, bool pending)
{
	if (index == 0 || count == 0)
		return 0;
	struct space_list *before = &s->lists[index - 1];
	struct space_tail *t = pending ? &before->pending : &before->tail[nodes];
	return array_reserve(&t->entries, &t->room, t->count + count);
}

/* One position of a dropped mark's list: free, or the predecessor's. */
static int drop_entry(struct space *s, uint32_t index, bool nodes, uint64_t position, bool pending)
{
	if (index > 0 && position <= border(s, index, nodes)) {
		struct space_list *before = &s->lists[index - 1];
		if (!pending)
			before->tail_changed[nodes] = true;
		return tail_add(s, before, pending ? &before->pending : &before->tail[nodes], position);
	}
	if (pending) {
		live_pending_end(s, position);
		s->dead_pending--;
		return 0;
	}
	live_add(s, position, -1);
	s->dead--;
	return 0;
}

/* Those are dealt with that come last. */
static void take_chunk(struct space_list *l, const struct space_chunk *chunk)
{
	uint32_t at = l->chunk_count;
	do
		assert(at > 0);
	while (l->chunks[--at].at.position != chunk->at.position);
	l->chunks[at] = l->chunks[--l->chunk_count];
}

int space_drop_chunk(struct space *s, uint64_t mark_seq, struct space_chunk chunk, const void *content)
{
	uint32_t index = list_index(s, mark_seq);
	struct space_list *l = &s->lists[index];
	int r = content ? drop_reserve(s, index, chunk.nodes, chunk.count, /* pending= */ false) : space_chunk_add(l - 1, &chunk);
	if (r < 0)
		return r;
	take_chunk(l, &chunk);
	if (!content) /* wholly the predecessor's; the sums stay */
		return 0;
	s->chunk_sum--;
	live_add(s, chunk.at.position, -1);
	for (uint32_t e = 0; r == 0 && e < chunk.count; e++)
		r = drop_entry(s, index, chunk.nodes, get_le64((const uint8_t *)content + e * 8), /* pending= */ false);
	return r;
}

int space_drop_index(struct space *s, uint64_t mark_seq, struct space_chunk index, const void *content)
{
	struct space_list *l = space_list_find(s, mark_seq);
	struct space_chunk c;
	int r = 0;
	for (uint32_t i = 0; r == 0 && i < index.count; i++) /* all of it, or nothing */
		r = space_index_decode(&index, content, i, &c);
	r = r ? r : array_reserve(&l->chunks, &l->chunk_room, l->chunk_count + index.count);
	if (r < 0)
		return r;
	sums_without(s, l);
	take_chunk(l, &index);
	for (uint32_t i = 0; i < index.count; i++)
		space_index_decode(&index, content, i, &l->chunks[l->chunk_count++]);
	sums_with(s, l);
	if (!PLANTED(space_index_stays))
		live_add(s, index.at.position, -1);
	return 0;
}

int space_drop_finish(struct space *s, uint64_t mark_seq)
{
	uint32_t index = list_index(s, mark_seq);
	if (index == UINT32_MAX)
		return 0;
	struct space_list *l = &s->lists[index];
	assert(l->chunk_count == 0);
	int r = drop_reserve(s, index, false, l->pending.count, /* pending= */ true);
	for (unsigned k = 0; r == 0 && k < 2; k++)
		r = drop_reserve(s, index, k, l->tail[k].count, /* pending= */ false);
	if (r < 0)
		return r;
	for (unsigned k = 0; k < 2; k++) {
		if (l->written[k].count)
			live_add(s, l->written[k].at.position, -1);
		for (uint32_t e = 0; r == 0 && e < l->tail[k].count; e++)
			r = drop_entry(s, index, k == 1, l->tail[k].entries[e], false);
	}
	for (uint32_t e = 0; r == 0 && e < l->pending.count; e++)
		r = drop_entry(s, index, false, l->pending.entries[e], true);
	for (unsigned k = 0; index > 0 && k < 2; k++)
		if (!l[-1].tail[k].count) /* nothing came of what there was room for */
			tail_free(&l[-1].tail[k]);
	sums_without(s, l);
	list_clear(l);
	memmove(l, l + 1, (s->list_count - index - 1) * sizeof *l);
	s->list_count--;
	return r;
}

/* ---- merging ---- */

static bool is_short(const struct space_chunk *c, unsigned k) { return is_plain(c, k) && c->count < SPACE_CHUNK_ENTRIES / 2; }

bool space_merge_next(const struct space *s, uint64_t mark_seq, struct space_chunk *ret)
{
	uint32_t n = lists_up_to(s, mark_seq);
	const struct space_list *l = n ? &s->lists[n - 1] : NULL;
	for (unsigned k = 0; l && k < 2; k++) {
		uint32_t parts = l->tail_changed[k] && l->tail[k].count;
		for (uint32_t i = 0; i < l->chunk_count; i++) {
			if (!is_short(&l->chunks[i], k))
				continue;
			*ret = l->chunks[i];
			if (++parts == 2)
				return true;
		}
	}
	return false;
}

int space_merge_chunk(struct space *s, uint64_t mark_seq, struct space_chunk chunk, const void *content)
{
	struct space_list *l = space_list_up_to(s, mark_seq);
	struct space_tail *t = &l->tail[chunk.nodes];
	int r = array_reserve(&t->entries, &t->room, t->count + chunk.count);
	if (r < 0)
		return r;
	sums_without(s, l);
	take_chunk(l, &chunk);
	live_add(s, chunk.at.position, -1);
	for (uint32_t e = 0; e < chunk.count; e++)
		t->entries[t->count++] = get_le64((const uint8_t *)content + e * 8);
	t->sorted = false;
	l->tail_changed[chunk.nodes] = true;
	sums_with(s, l);
	return 0;
}

void space_free(struct space *s, uint64_t position) { live_add(s, position, -1); }

void space_list_clear(struct space *s, struct space_list *l)
{
	for (uint32_t i = 0; i < l->chunk_count; i++)
		s->dead -= l->chunks[i].entries;
	s->dead -= l->tail[0].count + l->tail[1].count;
	sums_without(s, l);
	struct space_list empty = { .mark_seq = l->mark_seq, .mark_position = l->mark_position, .node_end = l->node_end, .folded = l->folded };
	list_clear(l);
	*l = empty;
}
