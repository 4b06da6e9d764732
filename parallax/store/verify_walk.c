/* Two trees side by side: see verify.h.
 *
 * A node's children are looked at WINDOW at a time: those that differ are read at once, both versions, then gone down into. A
 * base whose tree is lower than ours (the volume grew) is what our slot 0, or its slot 0 …, would be. */
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/store/verify_private.h"

enum { WINDOW = 32, LOOK_NODES = 4096 };

struct base {
	struct pointer at;
	uint32_t level;
};

struct child {
	struct pointer *ours, *theirs; /* their slots; NULL: nothing, or not at this level */
	struct base low;               /* position 0: none */
	bool skip;
};

struct verify_window {
	struct block_read reads[2 * WINDOW];
	struct job jobs[2 * WINDOW];
	struct iovec iov[2 * WINDOW];
	struct pointer at[2 * WINDOW];
	struct child children[WINDOW];
	unsigned count, read_count;
	uint8_t *pages;
};

static bool same(const struct pointer *a, const struct pointer *b) { return a->position == b->position && a->crc == b->crc; }

/* ---- reading ---- */

static struct verify_window *window_of(struct verify_work *w, uint32_t level)
{
	struct verify_window *n = w->windows[level];
	if (!n && (n = calloc(1, sizeof *n)) && !(n->pages = env_alloc_aligned((size_t)2 * WINDOW * BLOCK_BYTES))) {
		free(n);
		n = NULL;
	}
	w->windows[level] = n;
	return n;
}

void verify_walk_free(struct verify_work *w)
{
	for (unsigned i = 0; i < ARRAY_COUNT(w->windows); i++) {
		if (w->windows[i])
			free(w->windows[i]->pages);
		free(w->windows[i]);
	}
}

static struct pointer *read_later(struct verify_window *n, const struct pointer *at)
{
	unsigned i = n->read_count++;
	n->at[i] = *at;
	n->iov[i] = (struct iovec){ n->pages + (size_t)i * BLOCK_BYTES, BLOCK_BYTES };
	return n->iov[i].iov_base;
}

/* All at once; what can't be read is a fault, and its child is skipped. */
static int read_all(struct verify_work *w, struct verify_window *n)
{
	int r = 0;
	for (unsigned i = 0; i < n->read_count; i++) {
		job_init(&n->jobs[i], &w->how->env->loop);
		sources_read(w->how->sources, &n->reads[i], &n->at[i], 1, &n->iov[i], 1, &n->jobs[i]);
	}
	for (unsigned i = 0; i < n->read_count; i++) {
		int status = fiber_wait(&n->jobs[i]);
		if (status == 0)
			continue;
		for (unsigned k = 0; k < n->count; k++)
			n->children[k].skip |= n->children[k].ours == n->iov[i].iov_base || n->children[k].theirs == n->iov[i].iov_base;
		w->partial = true;
		if (r == 0)
			r = verify_fault(w, status, "a node of %s, in segment %llu, block %u, can't be read: %s", w->where,
					 (unsigned long long)position_segment(n->at[i].position), position_block(n->at[i].position), errno_text(status));
	}
	w->nodes += n->read_count;
	if (r == 0 && w->nodes % LOOK_NODES < n->read_count && w->how->changed && w->how->changed(w->how->arg))
		r = -EAGAIN;
	return r;
}

/* ---- what appears, what goes ---- */

static int gone(struct verify_work *w, struct verify_list *list, uint64_t position)
{
	struct verify_segment *g = verify_own(w, position) ? verify_find(w, position_segment(position)) : NULL;
	uint32_t block = position_block(position);
	if (!g || !list)
		return 0;
	list->gone++;
	if (block < g->blocks && g->dead && g->dead[block / 8] >> block % 8 & 1)
		return 0;
	return verify_fault(w, -EUCLEAN, "segment %llu, block %u: after snapshot %s nothing has it any more, and it isn't on its list",
			    (unsigned long long)g->id, block, list->name);
}

/* *ret_ours: it is ours, so what is below it may be. */
static int appears(struct verify_work *w, uint64_t position, bool *ret_ours)
{
	*ret_ours = verify_own(w, position);
	if (*ret_ours)
		return verify_use(w, position);
	return w->base_unknown ? 0 : verify_fault(w, -EUCLEAN, "segment %llu, block %u: %s has it from its parent, which doesn't have it there",
						  (unsigned long long)position_segment(position), position_block(position), w->where);
}

static int data_pair(struct verify_work *w, const struct pointer *ours, const struct pointer *theirs, struct verify_list *list)
{
	bool own;
	int r = 0;
	if (same(ours, theirs))
		return 0;
	w->mapped += (ours->position != 0) - (theirs->position != 0);
	if (ours->position)
		r = appears(w, ours->position, &own);
	if (r == 0 && theirs->position)
		r = gone(w, list, theirs->position);
	return r;
}

/* A child that is a node: noted, and to be gone down into if it differs. */
static int node_pair(struct verify_work *w, struct verify_window *n, uint32_t level, const struct pointer *ours, const struct base *theirs,
		     struct verify_list *list)
{
	struct child c = { 0 };
	bool own = false, beside = theirs->at.position && theirs->level == level;
	int r = 0;
	if ((beside && same(ours, &theirs->at)) || (!ours->position && !theirs->at.position))
		return 0;
	if (ours->position)
		r = appears(w, ours->position, &own);
	if (r == 0 && beside)
		r = gone(w, list, theirs->at.position);
	if (r < 0 || (ours->position && !own))
		return r;
	if (ours->position)
		c.ours = read_later(n, ours);
	if (beside)
		c.theirs = read_later(n, &theirs->at);
	else
		c.low = *theirs;
	n->children[n->count++] = c;
	return 0;
}

/* The slots of a node of ours and of one of the base's at the same place. */
static int slots_pair(struct verify_work *w, uint32_t level, const struct child *c, struct verify_list *list)
{
	static const struct pointer hole;
	struct verify_window *n = level ? window_of(w, level) : NULL;
	int r = level && !n ? -ENOMEM : 0;
	for (unsigned first = 0; r == 0 && first < NODE_FANOUT; first += WINDOW) {
		if (n)
			n->count = n->read_count = 0;
		for (unsigned i = first; r == 0 && i < first + WINDOW; i++) {
			const struct pointer *ours = c->ours ? &c->ours[i] : &hole;
			struct base theirs = { c->theirs ? c->theirs[i] : hole, level ? level - 1 : 0 };
			if (i == 0 && c->low.at.position)
				theirs = c->low;
			r = level ? node_pair(w, n, level - 1, ours, &theirs, list) : data_pair(w, ours, &theirs.at, list);
		}
		if (r == 0 && n && n->count)
			r = read_all(w, n);
		for (unsigned k = 0; r == 0 && n && k < n->count; k++)
			if (!n->children[k].skip)
				r = slots_pair(w, level - 1, &n->children[k], list);
	}
	if (r == 0 && w->how->progress)
		w->how->progress(w->how->arg, w->how->live);
	return r;
}

int verify_walk(struct verify_work *w, const struct meta_root *root, const struct meta_root *base, struct verify_list *list)
{
	static const struct pointer hole;
	struct base theirs = { base->pointer, base->level };
	uint32_t level = root->pointer.position ? root->level : base->level;
	if (level + 1 >= ARRAY_COUNT(w->windows))
		return verify_fault(w, -EUCLEAN, "%s has a map of %u levels", w->where, level);
	if (root->pointer.position && theirs.at.position && theirs.level > level) {
		w->partial = true;
		return verify_fault(w, -EUCLEAN, "the map of %s is lower than that of the snapshot before it", w->where);
	}
	/* as if both were the first child of one more level */
	struct verify_window *n = window_of(w, level + 1);
	if (!n)
		return -ENOMEM;
	n->count = n->read_count = 0;
	int r = node_pair(w, n, level, root->pointer.position ? &root->pointer : &hole, &theirs, list);
	if (r == 0 && n->count)
		r = read_all(w, n);
	if (r == 0 && n->count && !n->children[0].skip)
		r = slots_pair(w, level, &n->children[0], list);
	return r;
}
