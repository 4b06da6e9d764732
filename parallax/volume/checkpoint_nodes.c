/* A checkpoint's nodes (R19.2). A parent's page has its children's addresses, so level by level each record would wait for the one before. Instead
 * records of one level fly together, and the last, whose nodes are of several levels, gets its addresses when it is placed: parents' pages are
 * made then, and again if the record has to go elsewhere. So a checkpoint waits once for up to CHECKPOINT_RECORD_NODES nodes, and seldom more than twice. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "parallax/volume/volume_private.h"

enum { FLY_MAX = 4 };

struct node_record {
	struct log_append append;
	struct job job;
	struct tree_node **nodes; /* of the batch, children first */
	unsigned count;
	bool flies;
	uint32_t at[CHECKPOINT_RECORD_NODES];      /* payload block of each node; UINT32_MAX: it holds nothing */
	uint8_t *pages;                            /* of those above the leaves; leaves are sent from where they are */
	uint8_t *page[CHECKPOINT_RECORD_NODES];    /* by node; NULL: a leaf */
	struct record_entry entries[CHECKPOINT_RECORD_NODES];
	uint32_t crcs[CHECKPOINT_RECORD_NODES];
	struct iovec iov[CHECKPOINT_RECORD_NODES];
};

struct nodes_writing {
	struct volume *v;
	uint64_t newest_mark, *end;
	struct tree_batch batch;
	struct node_record *records[FLY_MAX];
	unsigned flying;
};

static void note_places(struct log_append *a, uint64_t payload_position)
{
	struct node_record *r = container_of(a, struct node_record, append);
	static const struct pointer hole;
	for (unsigned i = 0; i < r->count; i++) {
		uint32_t at = r->at[i];
		if (at == UINT32_MAX) {
			tree_note_place(r->nodes[i], &hole);
			continue;
		}
		if (r->page[i]) {
			tree_page(r->nodes[i], (struct pointer *)(void *)r->page[i]);
			r->crcs[at] = crc32c(0, r->page[i], BLOCK_BYTES);
		}
		tree_note_place(r->nodes[i], &(struct pointer){ payload_position + at, r->crcs[at], 0 });
	}
}

/* Which are written, and from where. */
static int record_fill(struct node_record *r, struct tree_node **nodes, unsigned count)
{
	unsigned pages = 0;
	r->append = (struct log_append){ .kind = RECORD_NODES, .entries = r->entries, .crcs = r->crcs, .iov = r->iov, .placed = note_places };
	r->nodes = nodes;
	r->count = count;
	for (unsigned i = 0; i < count; i++) {
		bool none = tree_note_void(nodes[i]);
		r->at[i] = none ? UINT32_MAX : r->append.payload_blocks++;
		pages += !none && nodes[i]->level > 0;
	}
	r->append.entry_count = r->append.payload_blocks;
	r->append.iov_count = (int)r->append.payload_blocks;
	r->pages = pages ? env_alloc_aligned((size_t)pages * BLOCK_BYTES) : NULL;
	if (pages && !r->pages)
		return -ENOMEM;
	for (unsigned i = 0, page = 0; i < count; i++) {
		const struct tree_node *n = nodes[i];
		uint32_t at = r->at[i];
		r->page[i] = NULL;
		if (at == UINT32_MAX)
			continue;
		r->entries[at] = (struct record_entry){ n->first, 1, n->level };
		if (n->level > 0)
			r->page[i] = r->pages + (size_t)page++ * BLOCK_BYTES;
		else
			r->crcs[at] = crc32c(0, n->slots, BLOCK_BYTES);
		r->iov[at] = (struct iovec){ r->page[i] ? (void *)r->page[i] : (void *)n->slots, BLOCK_BYTES };
	}
	return 0;
}

/* It is acknowledged. */
static int record_account(struct nodes_writing *w, struct node_record *r)
{
	struct volume *v = w->v;
	int status = 0;
	for (unsigned i = 0; i < r->count; i++) {
		struct tree_node *n = r->nodes[i];
		struct pointer at = { 0 }, replaced;
		bool none = tree_resolve(&v->tree, n);
		assert(none == (r->at[i] == UINT32_MAX));
		if (!none) {
			at = (struct pointer){ r->append.payload_position + r->at[i], r->crcs[r->at[i]], 0 };
			assert(!r->page[i] || memcmp(r->page[i], n->slots, BLOCK_BYTES) == 0);
		}
		tree_written(&v->tree, n, &at, &replaced);
		if (!none) {
			space_node_written(&v->space, at.position);
			*w->end = MAX(*w->end, at.position);
		}
		if (status == 0 && replaced.position)
			status = space_node_replaced(&v->space, w->newest_mark, replaced.position);
	}
	return status;
}

static int fly(struct nodes_writing *w, struct tree_node **nodes, unsigned count)
{
	struct node_record *r = calloc(1, sizeof *r);
	if (!r)
		return -ENOMEM;
	w->records[w->flying++] = r;
	int status = record_fill(r, nodes, count);
	if (status < 0) {
		r->count = 0;
		return status;
	}
	if (r->append.payload_blocks) {
		r->flies = true;
		job_init(&r->job, &w->v->env->loop);
		log_append(w->v, &r->append, &r->job);
	}
	return 0;
}

/* Waits for all that fly. They are of one level, or it is one: what is in one is no child of what is in another. */
static int land(struct nodes_writing *w, int status)
{
	for (unsigned i = 0; i < w->flying; i++) {
		struct node_record *r = w->records[i];
		int r_status = r->flies ? fiber_wait(&r->job) : 0;
		if (r_status == 0)
			r_status = record_account(w, r);
		status = status ? status : r_status;
		free(r->pages);
		free(r);
	}
	w->flying = 0;
	return status;
}

static int write_batch(struct nodes_writing *w)
{
	const struct tree_batch *b = &w->batch;
	int status = 0;
	for (unsigned at = 0; status == 0 && at < b->count;) {
		unsigned n = MIN(b->count - at, (unsigned)CHECKPOINT_RECORD_NODES);
		uint32_t level = b->nodes[at]->level;
		bool mixed = b->nodes[at + n - 1]->level != level;
		bool beside = !mixed && w->flying < FLY_MAX && (w->flying == 0 || w->records[0]->nodes[0]->level == level);
		if (!beside && w->flying)
			status = land(w, 0);
		if (status == 0)
			status = fly(w, b->nodes + at, n);
		if (mixed || status)
			status = land(w, status);
		at += n;
	}
	return land(w, status);
}

int checkpoint_write_nodes(struct volume *v, const struct tree_version *version, uint64_t newest_mark, uint64_t *end)
{
	struct nodes_writing w = { .v = v, .newest_mark = newest_mark, .end = end };
	int r = tree_collect(&v->tree, version, &w.batch);
	if (r == 0)
		r = write_batch(&w);
	tree_batch_release(&v->tree, &w.batch);
	return r;
}
