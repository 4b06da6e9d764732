/* The accounting against an oracle that keeps sets: a small volume's blocks and nodes, its snapshots as copies, and whatever
 * is reachable counted afresh after each checkpoint. */
#include "parallax/map/space.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "core/array.h"
#include "core/bytes.h"

enum { BLOCKS = 1200, GROUP = 40, NODES = BLOCKS / GROUP, SEGMENT = 200, SNAPSHOTS = 12, SEGMENTS_MAX = 4000 };

struct version {
	uint64_t data[BLOCKS], node[NODES];
};

struct shot {
	bool used, written;
	uint64_t seq, before;  /* before: the mark before it, when it was taken */
	struct version v;
};

struct model {
	struct space s;
	struct version head;
	struct version written;    /* what the last checkpoint wrote last: the head as it was then */
	uint64_t next, seq, random, newest;
	struct shot shot[SNAPSHOTS];
	unsigned shots;            /* in order of age */
	uint64_t (*disk)[SPACE_CHUNK_ENTRIES]; /* chunks' content, by the order they were written in */
	uint64_t *disk_at;
	size_t disk_count;
	unsigned indexes;          /* written; and taken apart again */
	unsigned taken_apart;
	bool gone[SEGMENTS_MAX];
	bool keeps;                /* no snapshot is dropped by chance */
};

static uint64_t draw(struct model *m, uint64_t below)
{
	m->random = m->random * 6364136223846793005u + 1442695040888963407u;
	return (m->random >> 33) % below;
}

/* The next position; block 0 of a segment is its header. */
static uint64_t place(struct model *m)
{
	if (position_block(m->next) == SEGMENT - 1 || m->next == 0) {
		m->next = position_make(position_segment(m->next) + 1, 0);
		cr_assert_lt(position_segment(m->next), SEGMENTS_MAX);
		cr_assert_eq(space_add_segment(&m->s, position_segment(m->next), SEGMENT), 0);
	}
	return ++m->next;
}

static void write_block(struct model *m, unsigned b, bool clear)
{
	uint64_t at = clear ? 0 : place(m), was = m->head.data[b];
	if (at)
		space_data_written(&m->s, at, 1);
	m->head.data[b] = at;
	cr_assert_eq(space_reserve(&m->s, 1), 0);
	if (was)
		cr_assert_eq(space_data_replaced(&m->s, was), 0);
}

static void write_some(struct model *m, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		write_block(m, (unsigned)draw(m, draw(m, 2) ? BLOCKS : 100), draw(m, 5) == 0);
}

static void mark(struct model *m)
{
	if (m->shots == SNAPSHOTS)
		return;
	struct shot *t = &m->shot[m->shots++];
	*t = (struct shot){ .used = true, .seq = ++m->seq, .before = m->newest, .v = m->head };
	uint64_t at = place(m);
	cr_assert_eq(space_mark(&m->s, t->seq, at), 0);
	space_unused(&m->s, at, 1);
	m->newest = t->seq;
}

/* Writes the nodes of a version that differ from what `last` has; `last` becomes this version. */
static uint64_t write_nodes(struct model *m, struct version *v, struct version *last, uint64_t newest_mark, uint64_t end)
{
	for (unsigned n = 0; n < NODES; n++) {
		bool same = memcmp(v->data + n * GROUP, last->data + n * GROUP, GROUP * sizeof v->data[0]) == 0, empty = true;
		for (unsigned i = 0; i < GROUP; i++)
			empty &= v->data[n * GROUP + i] == 0;
		v->node[n] = last->node[n];
		if (same)
			continue;
		v->node[n] = empty ? 0 : place(m);
		if (v->node[n])
			space_node_written(&m->s, v->node[n]);
		if (last->node[n])
			cr_assert_eq(space_node_replaced(&m->s, newest_mark, last->node[n]), 0);
		end = MAX(end, v->node[n]);
	}
	*last = *v;
	return end;
}

static const uint64_t *disk_read(const struct model *m, uint64_t at)
{
	for (size_t i = m->disk_count; i-- > 0;)
		if (m->disk_at[i] == at)
			return m->disk[i];
	cr_assert_fail("a chunk that was never written is asked for");
	return NULL;
}

static struct pointer disk_write(struct model *m, const uint64_t *block)
{
	struct pointer at = { place(m), 1, 0 };
	m->disk = realloc(m->disk, (m->disk_count + 1) * sizeof *m->disk);
	m->disk_at = realloc(m->disk_at, (m->disk_count + 1) * sizeof *m->disk_at);
	memcpy(m->disk[m->disk_count], block, BLOCK_BYTES);
	m->disk_at[m->disk_count++] = at.position;
	return at;
}

static void write_tails(struct model *m)
{
	struct space_tail_write w;
	struct space_index_write x;
	uint64_t block[SPACE_CHUNK_ENTRIES];
	while (space_tail_next(&m->s, &w, block)) {
		struct pointer at = { 0 };
		if (w.count)
			at = disk_write(m, block);
		cr_assert_eq(space_tail_written(&m->s, &w, &at), 0);
	}
	uint64_t most = space_indexes_max(&m->s);
	for (; most > 0 && space_index_next(&m->s, &x, block); most--) {
		struct pointer at = disk_write(m, block);
		space_index_written(&m->s, &x, &at);
		m->indexes++;
	}
	cr_assert(most || !space_index_next(&m->s, &x, block), "there were to be no more of them");
}

static void drop(struct model *m, unsigned index)
{
	uint64_t seq = m->shot[index].seq;
	struct space_list *l;
	while ((l = space_list_find(&m->s, seq)) && l->chunk_count > 0) {
		struct space_chunk c = l->chunks[l->chunk_count - 1];
		const uint64_t *content = space_drop_reads(&m->s, seq, &c) ? disk_read(m, c.at.position) : NULL;
		cr_assert_eq(c.index && content ? space_drop_index(&m->s, seq, c, content) : space_drop_chunk(&m->s, seq, c, content), 0);
		m->taken_apart += c.index && content;
	}
	cr_assert_eq(space_drop_finish(&m->s, seq), 0);
	struct space_chunk c;
	while (space_merge_next(&m->s, seq, &c))
		cr_assert_eq(space_merge_chunk(&m->s, seq, c, disk_read(m, c.at.position)), 0);
	memmove(&m->shot[index], &m->shot[index + 1], (m->shots - index - 1) * sizeof m->shot[0]);
	m->shots--;
	m->newest = m->shots ? m->shot[m->shots - 1].seq : 0;
}

static void taken(void *arg, uint64_t id)
{
	struct model *m = arg;
	m->gone[id] = true;
}

/* ---- counting afresh ---- */

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static size_t add_version(uint64_t *set, size_t n, const struct version *v)
{
	for (unsigned i = 0; i < BLOCKS; i++)
		if (v->data[i])
			set[n++] = v->data[i];
	for (unsigned i = 0; i < NODES; i++)
		if (v->node[i])
			set[n++] = v->node[i];
	return n;
}

static size_t unique(uint64_t *set, size_t n)
{
	size_t kept = 0;
	qsort(set, n, sizeof *set, by_value);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || set[i] != set[i - 1])
			set[kept++] = set[i];
	return kept;
}

/* Where it is, and, of an index, where its chunks are. */
static size_t add_chunk(const struct model *m, uint64_t *set, size_t n, const struct space_chunk *c)
{
	uint32_t entries = 0;
	set[n++] = c->at.position;
	for (uint32_t i = 0; c->index && i < c->count; i++) {
		struct space_chunk below;
		cr_assert_eq(space_index_decode(c, disk_read(m, c->at.position), i, &below), 0);
		n = add_chunk(m, set, n, &below);
		entries += below.entries;
	}
	cr_assert_eq(c->entries, c->index ? entries : c->count);
	return n;
}

static void check(struct model *m)
{
	uint64_t *set = malloc((SNAPSHOTS + 2) * (BLOCKS + NODES) * sizeof *set);
	size_t n = unique(set, add_version(set, 0, &m->head)), heads = n;
	for (unsigned i = 0; i < m->shots; i++)
		n = add_version(set, n, &m->shot[i].v);
	n = unique(set, n);
	cr_assert_eq(m->s.dead, n - heads, "dead: %llu, %zu are", (unsigned long long)m->s.dead, n - heads);
	for (uint32_t i = 0; i < m->s.list_count; i++) {
		const struct space_list *l = &m->s.lists[i];
		for (uint32_t c = 0; c < l->chunk_count; c++)
			n = add_chunk(m, set, n, &l->chunks[c]);
		for (unsigned k = 0; k < 2; k++)
			if (l->written[k].count)
				set[n++] = l->written[k].at.position;
	}
	cr_assert_eq(unique(set, n), n, "a chunk lies where something else is");
	qsort(set, n, sizeof *set, by_value);
	size_t at = 0;
	for (uint32_t i = 0; i < m->s.segment_count; i++) {
		const struct space_segment *g = &m->s.segments[i];
		uint32_t live = 0;
		while (at < n && position_segment(set[at]) == g->id)
			live++, at++;
		cr_assert_eq(g->live, live, "segment %llu: %u accounted, %u are", (unsigned long long)g->id, g->live, live);
		cr_assert(!m->gone[g->id] && g->pending == 0);
		uint8_t bits[SEGMENT / 8 + 1] = { 0 };
		for (unsigned k = 0; k < FREES_STAGES; k++)
			frees_bits(g->frees, k, bits, SEGMENT);
		uint32_t used = live, placed = g->id == position_segment(m->next) ? position_block(m->next) : SEGMENT - 1;
		for (uint32_t b = 0; b < SEGMENT; b++)
			used += bits[b / 8] >> b % 8 & 1;
		cr_assert_eq(used, placed, "segment %llu: %u of %u blocks are live or free", (unsigned long long)g->id, used, placed);
	}
	cr_assert_eq(at, n, "something lives in a segment that was given away");
	cr_assert_eq(space_live(&m->s), n);
	free(set);
}

/* What is written is what is read, and goes on working as the original. */
static void restart(struct model *m)
{
	size_t bytes = space_encoded_bytes(&m->s);
	cr_assert_geq(space_table_blocks_max(&m->s) * BLOCK_BYTES, bytes);
	uint8_t *a = malloc(bytes), *b = malloc(bytes);
	space_encode(&m->s, a);
	struct space fresh;
	space_init(&fresh);
	cr_assert_eq(space_decode(&fresh, a, bytes), 0);
	cr_assert_eq(space_encoded_bytes(&fresh), bytes);
	space_encode(&fresh, b);
	cr_assert_eq(memcmp(a, b, bytes), 0);
	fresh.index_from = m->s.index_from;
	fresh.index_chunks = m->s.index_chunks;
	space_destroy(&m->s);
	m->s = fresh;
	free(a);
	free(b);
}

static void checkpoint(struct model *m, bool busy)
{
	struct version frozen = m->head;
	unsigned marks = m->shots;
	uint64_t newest = m->newest;
	space_fold(&m->s);
	uint64_t end = 0;
	for (unsigned n = 0; n < NODES; n++)
		end = MAX(end, m->written.node[n]);
	for (unsigned i = 0; i < marks; i++) {
		if (m->shot[i].written)
			continue;
		if (busy)
			write_some(m, 10);
		end = write_nodes(m, &m->shot[i].v, &m->written, m->shot[i].before, end);
		m->shot[i].written = true;
		struct space_list *l = space_list_find(&m->s, m->shot[i].seq);
		space_node_end(&m->s, m->shot[i].seq, MAX(end, l->mark_position));
	}
	write_nodes(m, &frozen, &m->written, newest, end);
	memcpy(m->head.node, frozen.node, sizeof frozen.node);
	if (busy && draw(m, 2))
		mark(m);
	while (!m->keeps && marks > 0 && draw(m, 3) == 0) {
		drop(m, (unsigned)draw(m, marks));
		marks--;
	}
	if (busy)
		write_some(m, 30);
	write_tails(m);
	space_take_free(&m->s, position_segment(m->next), taken, m);
}

static struct model *model_new(uint64_t seed)
{
	struct model *m = calloc(1, sizeof *m);
	m->random = seed * 7919 + 1;
	space_init(&m->s);
	return m;
}

static void model_free(struct model *m)
{
	space_destroy(&m->s);
	free(m->disk);
	free(m->disk_at);
	free(m);
}

/* `index_chunks` 0: no indexes. */
static void counts_what_is_reachable(uint32_t index_chunks)
{
	unsigned indexes = 0, taken_apart = 0;
	for (uint64_t seed = 1; seed <= 12; seed++) {
		struct model *m = model_new(seed);
		if (index_chunks) {
			m->s.index_from = seed;
			m->s.index_chunks = index_chunks;
		}
		for (unsigned round = 0; round < 40; round++) {
			write_some(m, 20 + (unsigned)draw(m, 900));
			for (unsigned i = (unsigned)draw(m, 3); i > 0; i--) {
				mark(m);
				write_some(m, (unsigned)draw(m, 300));
			}
			if (draw(m, 2))
				checkpoint(m, /* busy= */ true);
			checkpoint(m, /* busy= */ false);
			check(m);
			if (draw(m, 3) == 0)
				restart(m);
		}
		while (m->shots > 0) {
			drop(m, (unsigned)draw(m, m->shots));
			checkpoint(m, false);
			check(m);
		}
		cr_assert_eq(m->s.dead, 0);
		for (unsigned b = 0; b < BLOCKS; b++)
			write_block(m, b, /* clear= */ true);
		checkpoint(m, false);
		check(m);
		cr_assert_eq(space_live(&m->s), 0);
		indexes += m->indexes;
		taken_apart += m->taken_apart;
		model_free(m);
	}
	cr_assert_eq(indexes > 0, index_chunks > 0);
	cr_assert_eq(taken_apart > 0, index_chunks > 0);
}

Test(space, counts_what_is_reachable) { counts_what_is_reachable(0); }
Test(space, counts_what_is_reachable_by_indexes) { counts_what_is_reachable(3); }
Test(space, counts_what_is_reachable_by_indexes_of_one) { counts_what_is_reachable(1); }

/* One is kept, and others are taken and deleted: what is overwritten meanwhile comes to its list a few positions at a time. */
Test(space, short_chunks_are_merged)
{
	struct model *m = model_new(1);
	m->keeps = true;
	for (unsigned b = 0; b < BLOCKS; b++)
		write_block(m, b, false);
	mark(m);
	checkpoint(m, false);
	for (unsigned i = 0; i < BLOCKS / 3; i++) {
		mark(m);
		for (unsigned k = 0; k < 3; k++)
			write_block(m, i * 3 + k, false);
		checkpoint(m, false);
		if (m->shots < 3)
			continue;
		drop(m, 1);
		checkpoint(m, false);
		check(m);
	}
	uint64_t most = m->s.dead / (SPACE_CHUNK_ENTRIES / 2) + 2 * m->s.list_count;
	cr_assert_leq(m->s.chunk_sum, most, "%llu chunks of %llu positions", (unsigned long long)m->s.chunk_sum, (unsigned long long)m->s.dead);
	while (m->shots)
		drop(m, 0);
	checkpoint(m, false);
	check(m);
	cr_assert_eq(m->s.dead, 0);
	model_free(m);
}

/* A list that gets nothing takes no memory for it: there may be ten thousand. */
Test(space, a_list_that_gets_nothing_has_no_room)
{
	struct model *m = model_new(1);
	m->keeps = true;
	for (unsigned i = 0; i < 4; i++) { /* what the third is to lose it has alone */
		for (unsigned b = 0; b < BLOCKS; b++)
			write_block(m, b, false);
		if (i < 3)
			mark(m);
		checkpoint(m, false);
	}
	mark(m);
	checkpoint(m, false);
	cr_assert_gt(m->s.lists[2].chunk_count, 0u);
	uint64_t dead = m->s.dead;
	drop(m, 2);
	cr_assert_lt(m->s.dead, dead);
	cr_assert_null(m->s.lists[1].tail[0].entries);
	model_free(m);
}

static void fill_up(struct space_tail *t) { t->count = t->room = ARRAY_BYTES_MAX / sizeof *t->entries; }

/* What there is no memory for hasn't been begun, and can be done later. */
Test(space, what_lacks_memory_is_as_it_was)
{
	struct model *m = model_new(1);
	m->keeps = true;
	for (unsigned i = 0; i < 3; i++) {
		for (unsigned b = 0; b < BLOCKS; b++)
			write_block(m, b, false);
		mark(m);
		checkpoint(m, false);
	}
	for (unsigned b = 0; b < BLOCKS; b += 2) /* positions that the second has, and the first hasn't */
		write_block(m, b, false);
	checkpoint(m, false);
	for (unsigned b = 0; b < BLOCKS / 4; b++)
		write_block(m, b, false);
	drop(m, 1);
	struct space *s = &m->s;
	uint64_t seq = m->shot[1].seq;
	struct space_list *before = &s->lists[0], *l = &s->lists[1];
	const struct space_tail kept[2] = { before->tail[0], before->tail[1] };
	uint32_t count = l->chunk_count, room = before->chunk_room, had = before->chunk_count;
	cr_assert_gt(count, 0u);
	struct space_chunk c = l->chunks[count - 1];
	fill_up(&before->tail[0]);
	fill_up(&before->tail[1]);
	cr_assert_eq(space_drop_chunk(s, seq, c, disk_read(m, c.at.position)), -ENOMEM);
	before->tail[0] = kept[0];
	before->tail[1] = kept[1];
	before->chunk_count = before->chunk_room = ARRAY_BYTES_MAX / sizeof c;
	cr_assert_eq(space_drop_chunk(s, seq, c, NULL), -ENOMEM);
	before->chunk_count = had;
	before->chunk_room = room;
	cr_assert_eq(l->chunk_count, count);
	while (l->chunk_count) {
		c = l->chunks[l->chunk_count - 1];
		cr_assert_eq(space_drop_chunk(s, seq, c, space_drop_reads(s, seq, &c) ? disk_read(m, c.at.position) : NULL), 0);
	}
	uint64_t live = space_live(s);
	struct space_tail now = before->pending;
	cr_assert_gt(l->pending.count, 0u);
	fill_up(&before->pending);
	cr_assert_eq(space_drop_finish(s, seq), -ENOMEM);
	before->pending = now;
	cr_assert_eq(space_live(s), live);
	cr_assert_eq(s->list_count, 2u);
	drop(m, 1);
	checkpoint(m, false);
	check(m);
	while (m->shots)
		drop(m, 0);
	checkpoint(m, false);
	check(m);
	cr_assert_eq(m->s.dead, 0);
	model_free(m);
}

/* A mark that was never published is taken back: as if it had not been. */
Test(space, unpublished_mark)
{
	struct model *m = model_new(99);
	write_some(m, 500);
	mark(m);
	checkpoint(m, false);
	write_some(m, 200);
	mark(m);
	write_some(m, 300);
	cr_assert_eq(space_drop_finish(&m->s, m->shot[1].seq), 0);
	m->shots--;
	m->newest = m->shot[0].seq;
	checkpoint(m, false);
	check(m);
	model_free(m);
}

/* A clone's inherited blocks are its parent's to count. */
Test(space, foreign_segments_count_nothing)
{
	struct space s;
	space_init(&s);
	cr_assert_eq(space_add_segment(&s, 10, 100), 0);
	cr_assert_eq(space_data_replaced(&s, position_make(3, 5)), 0);
	cr_assert_eq(space_node_replaced(&s, 0, position_make(3, 6)), 0);
	cr_assert_eq(space_mark(&s, 1, position_make(10, 4)), 0);
	cr_assert_eq(space_data_replaced(&s, position_make(3, 7)), 0);
	space_fold(&s);
	cr_assert(s.segments[0].live == 0 && s.dead == 0 && s.lists[0].tail[0].count == 0);
	cr_assert(!space_find(&s, 3) && space_find(&s, 10));
	space_destroy(&s);
}

/* ---- the table as bytes ---- */

static int decode(const void *bytes, size_t length)
{
	struct space s;
	space_init(&s);
	int r = space_decode(&s, bytes, length);
	space_destroy(&s);
	return r;
}

Test(space, table_that_makes_no_sense)
{
	struct model *m = model_new(5);
	write_some(m, 2000);
	mark(m);
	write_some(m, 2000);
	checkpoint(m, false);
	size_t bytes = space_encoded_bytes(&m->s);
	uint8_t *b = malloc(bytes);
	space_encode(&m->s, b);
	cr_assert_eq(decode(b, bytes), 0);
	for (size_t n = 0; n < bytes; n += n < 100 ? 1 : 13)
		cr_assert_eq(decode(b, n), -EUCLEAN, "cut to %zu of %zu", n, bytes);
	struct {
		size_t at;
		uint32_t value;
		int want;
	} lies[] = {
		{ 0, 1, -EUCLEAN }, { 8, 4, -EPROTONOSUPPORT }, { 12, UINT32_MAX, -EUCLEAN }, { 16, UINT32_MAX, -EUCLEAN },
		{ 48, 0, -EUCLEAN },                       /* the first segment has no id */
		{ 48 + 24, 1, -EUCLEAN },                  /* the second has the first one's */
		{ 52, 0x10000, -EUCLEAN },                 /* an id of more than 48 bits */
		{ 56, SEGMENT + 1, -EUCLEAN },             /* more lives in it than fits */
		{ 60, SEGMENT_BLOCKS_MAX + 1, -EUCLEAN },  /* larger than segments are */
		{ 68, SEGMENT + 1, -EUCLEAN },             /* more of it is free than there is */
		{ 68, 1u << 31 | 1, -EUCLEAN },            /* neither a list nor a bitmap */
	};
	for (unsigned i = 0; i < ARRAY_COUNT(lies); i++) {
		uint32_t was = get_le32(b + lies[i].at);
		put_le32(b + lies[i].at, lies[i].value);
		cr_assert_eq(decode(b, bytes), lies[i].want, "case %u: %d", i, decode(b, bytes));
		put_le32(b + lies[i].at, was);
	}
	free(b);
	model_free(m);
}

/* What stands in an index is what the list said of it, and no index. */
Test(space, index_that_makes_no_sense)
{
	struct space_chunk index = { .count = 2, .entries = 20, .index = true, .min = 100, .max = 900 }, c;
	uint8_t b[BLOCK_BYTES] = { 0 };
	for (uint32_t i = 0; i < 2; i++) {
		put_le32(b + i * 40 + 12, 10);
		put_le64(b + i * 40 + 16, 100);
		put_le64(b + i * 40 + 24, 900);
	}
	cr_assert_eq(space_index_decode(&index, b, 1, &c), 0);
	cr_assert(c.count == 10 && c.entries == 10 && !c.index);
	static const struct {
		size_t at;
		uint32_t value;
	} lies[] = { { 12, 0 }, { 12, SPACE_CHUNK_ENTRIES + 1 }, { 16, 99 }, { 24, 901 }, { 32, 1 } };
	for (unsigned i = 0; i < ARRAY_COUNT(lies); i++) {
		uint32_t was = get_le32(b + 40 + lies[i].at);
		put_le32(b + 40 + lies[i].at, lies[i].value);
		cr_assert_eq(space_index_decode(&index, b, 1, &c), -EUCLEAN, "case %u", i);
		put_le32(b + 40 + lies[i].at, was);
	}
}

/* Free blocks go through the stages, and of what is sent only the rest stays. */
Test(space, what_is_free_is_sent_once)
{
	for (uint32_t blocks = 40; blocks <= 4000; blocks *= 10) {
		struct space s, t;
		uint8_t bits[512] = { 0 };
		space_init(&s);
		space_init(&t);
		cr_assert_eq(space_add_segment(&s, 7, blocks), 0);
		cr_assert_eq(space_add_segment(&s, 8, blocks), 0);
		space_data_written(&s, position_make(7, 1), blocks - 1);
		for (uint32_t b = 1; b < blocks - 1; b += 3)
			cr_assert_eq(space_data_replaced(&s, position_make(7, b)), 0);
		cr_assert(!space_unsent(&s, 8, 1), "only applied");
		space_fold(&s);
		cr_assert(!space_unsent(&s, 8, 1), "not published");
		space_published(&s);
		cr_assert(!space_unsent(&s, 7, 1), "not wholly before");
		cr_assert_eq(space_unsent(&s, 8, 1)->id, 7);
		size_t bytes = space_encoded_bytes(&s);
		uint8_t *b = malloc(bytes);
		space_encode(&s, b);
		cr_assert_eq(space_decode(&t, b, bytes), 0);
		free(b);
		uint32_t count = frees_count(s.segments[0].frees, FREES_UNSENT);
		cr_assert_eq(frees_count(t.segments[0].frees, FREES_UNSENT), count, "a successor knows");
		for (uint32_t i = 1; i < blocks - 1; i += 6)
			bits[i / 8] |= (uint8_t)(1u << i % 8);
		space_sent(&t, 7, bits);
		cr_assert_eq(frees_count(t.segments[0].frees, FREES_UNSENT), count / 2);
		memset(bits, 0, sizeof bits);
		frees_bits(t.segments[0].frees, FREES_UNSENT, bits, blocks);
		for (uint32_t i = 0; i < blocks; i++)
			cr_assert_eq(bits[i / 8] >> i % 8 & 1, i % 6 == 4 && i < blocks - 1);
		space_sent(&t, 7, bits);
		cr_assert(!space_unsent(&t, 8, 1));
		space_destroy(&s);
		space_destroy(&t);
	}
}

Test(space, the_sparsest_is_packed_when_all_take_too_much)
{
	struct space s;
	space_init(&s);
	for (uint64_t id = 1; id <= 10; id++) {
		cr_assert_eq(space_add_segment(&s, id, 1000), 0);
		space_data_written(&s, position_make(id, 1), 999);
		for (uint32_t b = 1; b <= id * 50; b++)
			space_data_replaced(&s, position_make(id, b));
	}
	space_fold(&s);
	cr_assert(!space_sparsest(&s, 11, 100, 0), "none of it is published");
	space_published(&s);
	/* 7250 blocks are live, 2750 are not */
	cr_assert(!space_sparsest(&s, 11, 138, 0));
	cr_assert_eq(space_sparsest(&s, 11, 137, 0)->id, 10);
	cr_assert(!space_sparsest(&s, 11, 137, 100));
	cr_assert_eq(space_sparsest(&s, 10, 137, 0)->id, 9);
	s.segments[9].present = 500;
	cr_assert_eq(space_sparsest(&s, 11, 110, 0)->id, 9);
	s.segments[8].stuck = true;
	cr_assert_eq(space_sparsest(&s, 11, 110, 0)->id, 8);
	space_destroy(&s);
}

/* As a program without frees wrote it. */
Test(space, a_table_of_version_1_is_read)
{
	uint8_t b[48 + 2 * 16] = { 'A', 'Q', 'S', 'P', 'A', 'C', 'E', '1' };
	struct space s;
	space_init(&s);
	put_le32(b + 8, 1);
	put_le32(b + 12, 2);
	put_le64(b + 24, 77);
	put_le64(b + 48, 5);
	put_le32(b + 56, 70);
	put_le32(b + 60, 100);
	put_le64(b + 64, 6);
	put_le32(b + 72, 7);
	put_le32(b + 76, 200);
	cr_assert_eq(space_decode(&s, b, sizeof b), 0);
	cr_assert(s.segment_count == 2 && s.mapped == 77 && space_find(&s, 6)->live == 7 && space_find(&s, 5)->blocks == 100);
	cr_assert(space_find(&s, 5)->present == 0 && !space_find(&s, 5)->frees);
	space_destroy(&s);
}
