/* Exact accounting of a volume's own segments (store.md R26–R29).
 *
 * Per segment: how many of its blocks are *live*: reachable from the head, from a snapshot, or
 * part of a dead list. Per snapshot M, oldest first: its *dead list*, what was replaced after M
 * and before the next snapshot but born before M; deleting M frees from it what was born after
 * M's predecessor and gives the rest to the predecessor. Dead lists live in the log in chunks of
 * 512 positions; only the newest list's unfinished chunk is in memory. Of which chunks there are the table tells, which each checkpoint writes: where
 * there are so many that this would be much, it names index blocks instead, of up to 102 chunks each, that are written once.
 *
 * Two hands change the numbers: applying guest writes (into `pending` parts) and the one
 * checkpoint that runs (into the others). space_fold() at the checkpoint's freeze moves what is
 * pending over, so the table written describes exactly the frozen instant. Blocks of the table
 * itself and record headers are not counted as live: the log's `from` protects them.
 *
 * What isn't live any more, or never was (headers), is kept segment by segment until the server has it (R28, frees.h).
 * So of a segment wholly before `from`: live + unsent + what its server knows to be free + block 0 = its length.
 * Memory: 40 bytes a segment, and what is in its `frees`; 48 a chunk or index. What is asked for each write doesn't depend on how many
 * snapshots there are. */
#ifndef AQ_SPACE_H
#define AQ_SPACE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "parallax/format.h"
#include "parallax/map/frees.h"

enum {
	SPACE_CHUNK_ENTRIES = BLOCK_BYTES / 8,
	SPACE_INDEX_CHUNKS = BLOCK_BYTES / 40,
	SPACE_INDEX_FROM = 1600000, /* so many chunks, 64 MiB of table, hold 3 TiB; no less, for programs of the version before don't read indexes */
};

struct space_segment {
	uint64_t id;
	uint32_t live;      /* as of the last fold, and what the checkpoint did since */
	int32_t pending;    /* applied since the fold */
	uint32_t blocks;
	uint32_t present;   /* blocks that take space on its server, as that said last; 0: it wasn't asked yet */
	struct frees *frees; /* NULL: none */
	bool stuck;         /* its server failed to take them, or to pack it: not until the next checkpoint, or space_unstick() */
};

struct space_chunk {
	struct pointer at;
	uint32_t count, entries; /* of an index: chunks; positions in all of them. Otherwise positions, both */
	bool nodes, index;
	uint64_t min, max;  /* positions in it */
};

struct space_tail {         /* positions not in a finished chunk */
	uint64_t *entries;
	uint32_t count, room;
	bool sorted;
};

struct space_list {
	uint64_t mark_seq, mark_position, node_end; /* node_end 0: the mark's nodes aren't written yet */
	struct space_chunk *chunks;
	uint32_t chunk_count, chunk_room;
	struct space_tail tail[2];      /* 0 data, 1 nodes */
	struct space_tail pending;      /* data, since the fold */
	struct space_chunk written[2];  /* where the tail was written last; count 0: nowhere */
	bool tail_changed[2];
	bool folded;                    /* known to the checkpoint that runs or to an earlier one */
};

struct space {
	struct space_segment *segments; /* by id */
	uint32_t segment_count, segment_room;
	struct space_list *lists;       /* by mark_seq */
	uint32_t list_count, list_room;
	uint64_t mapped, dead;          /* blocks mapped by the head; held by snapshots only: at the fold */
	int64_t mapped_pending, dead_pending;
	uint64_t frees_count;           /* about as many blocks are in frees */
	/* sums over all lists */
	uint64_t loose;                 /* positions not in a finished chunk */
	uint32_t loose_lists;           /* lists that have any */
	uint64_t chunk_sum;             /* chunks, the unfinished ones that are written too */
	uint32_t tail_at;               /* the list space_tail_next() was at */
	/* when there are more chunks than that in the table, those of a list that has so many of one kind are moved to an index */
	uint64_t index_from;
	uint32_t index_chunks;
};

void space_init(struct space *s);
void space_destroy(struct space *s);

/* A new segment of this volume; ids only grow. 0 or -ENOMEM. */
int space_add_segment(struct space *s, uint64_t id, uint32_t blocks);
struct space_segment *space_find(struct space *s, uint64_t id); /* NULL: not this volume's */
uint64_t space_last_segment(const struct space *s);             /* the greatest id; 0: none */

/* ---- applying guest writes ---- */
/* `count` data blocks at `position` are reachable now. */
void space_data_written(struct space *s, uint64_t position, uint32_t count);
/* The head lost this pointer. 0 or -ENOMEM. */
int space_data_replaced(struct space *s, uint64_t position);
/* Makes sure that `count` calls of space_data_replaced() will not fail. */
int space_reserve(struct space *s, uint32_t count);
/* A snapshot was taken: later replacements go to its list. */
int space_mark(struct space *s, uint64_t mark_seq, uint64_t mark_position);

/* `count` blocks at `position` that aren't live, nor ever were: headers, tables, and what nobody refers to. No checkpoint need be
 * published for them; `from` protects those that are needed. */
void space_unused(struct space *s, uint64_t position, uint32_t count);

/* ---- checkpoint ---- */
void space_fold(struct space *s);
void space_published(struct space *s); /* what was folded may be sent */
void space_node_written(struct space *s, uint64_t position);
/* The generation after mark `newest_mark` (0: none) replaced a node. */
int space_node_replaced(struct space *s, uint64_t newest_mark, uint64_t position);
void space_node_end(struct space *s, uint64_t mark_seq, uint64_t node_end);
/* The newest list whose mark isn't after `mark_seq` (that one may have been dropped meanwhile); NULL: none. */
struct space_list *space_list_up_to(struct space *s, uint64_t mark_seq);
struct space_list *space_list_find(struct space *s, uint64_t mark_seq);

/* The next tail block to be written: fills one block and says what it is; false: all are written. After it is at
 * `at`, call space_tail_written(). */
struct space_tail_write {
	uint32_t list;
	bool nodes, finish;
	uint32_t count;
};
bool space_tail_next(struct space *s, struct space_tail_write *ret_write, void *ret_block);
int space_tail_written(struct space *s, const struct space_tail_write *w, const struct pointer *at);

/* Then, while the table names too many chunks, the next index, likewise. */
struct space_index_write {
	uint64_t mark_seq;
	bool nodes;
};
bool space_index_next(struct space *s, struct space_index_write *ret_write, void *ret_block);
void space_index_written(struct space *s, const struct space_index_write *w, const struct pointer *at);
uint64_t space_indexes_max(const struct space *s); /* that one checkpoint writes */
/* Chunk `i` of an index block. -EUCLEAN: it is none. */
int space_index_decode(const struct space_chunk *index, const void *block, uint32_t i, struct space_chunk *ret);

/* Deleting a snapshot: for each finished chunk of its list that space_drop_reads() says must be read, its content goes
 * to space_drop_chunk(), and that of an index to space_drop_index(), by which its chunks are the list's own again; the others need none. At the end space_drop_finish() removes the list and re-files what is
 * still in memory. -ENOMEM: nothing has changed. */
uint64_t space_drop_border(const struct space *s, uint64_t mark_seq, bool nodes); /* what was born after it becomes free */
bool space_drop_reads(const struct space *s, uint64_t mark_seq, const struct space_chunk *chunk);
int space_drop_chunk(struct space *s, uint64_t mark_seq, struct space_chunk chunk, const void *content);
int space_drop_index(struct space *s, uint64_t mark_seq, struct space_chunk index, const void *content);
int space_drop_finish(struct space *s, uint64_t mark_seq);
/* Afterwards, of the list before that one, or of that with this mark: a chunk that is less than half full, and not the only one of its kind, if what is to be written is
 * counted, too. For each its content goes to space_merge_chunk(), to be written together: else a snapshot that is kept while others come and go would
 * have as many chunks as there were of these. false: none is left. Not merging is no error. */
bool space_merge_next(const struct space *s, uint64_t mark_seq, struct space_chunk *ret);
int space_merge_chunk(struct space *s, uint64_t mark_seq, struct space_chunk chunk, const void *content); /* 0 or -ENOMEM, then it stays */

/* One block is free, at once: for a volume that nobody writes (behead.c). */
void space_free(struct space *s, uint64_t position);
/* Empties a list; its positions are what the head reaches again. */
void space_list_clear(struct space *s, struct space_list *l);

/* The segment, wholly before `before`, that has most to be sent, and at least `least`; NULL: none. */
struct space_segment *space_unsent(struct space *s, uint64_t before, uint32_t least);
/* The one before that of which the greatest part is unused, a quarter at least. NULL: none, or all segments together take little
 * enough: no more than `percent` of what is live, and `slack` blocks. */
struct space_segment *space_sparsest(struct space *s, uint64_t before, unsigned percent, uint64_t slack);
/* Is there one with something to be sent that failed, and isn't to be tried again? From now on all of these are. */
bool space_stuck(const struct space *s, uint64_t before);
void space_unstick(struct space *s);
/* The server has what `bits` says. */
void space_sent(struct space *s, uint64_t id, const uint8_t *bits);
uint32_t space_present(const struct space_segment *g); /* blocks that it takes, as far as is known */

/* Segments with nothing live, wholly before segment `before`: calls `each`; then they are gone from the table. */
void space_take_free(struct space *s, uint64_t before, void (*each)(void *arg, uint64_t id), void *arg);
uint64_t space_live(const struct space *s); /* blocks, of all segments */

/* The most blocks that a checkpoint now would write: of finished and unfinished chunks, and of the table. */
uint64_t space_tail_blocks_max(const struct space *s);
uint64_t space_table_blocks_max(const struct space *s);
/* The table in bytes, without what is pending and lists that aren't folded. */
size_t space_encoded_bytes(const struct space *s);
void space_encode(const struct space *s, void *buffer);
int space_decode(struct space *s, const void *buffer, size_t length); /* 0, -EUCLEAN, -EPROTONOSUPPORT, -ENOMEM */
#endif
