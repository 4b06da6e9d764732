/* Reading nodes, and reading ahead.
 *
 * Who needs a node waits for its load, and others who need it join. Beside a leaf's, reads of its neighbours on disk may be
 * started, each of a run of them; nobody waits for these, unless he comes to need one. If one block of a run can't be read, those that
 * somebody waits for are read again, each alone, and the others are forgotten. */
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "parallax/map/tree_private.h"

enum {
	REACH = TREE_RUN_MAX - 1, /* how far from the leaf's position its neighbours may be */
	RUNS_MAX = 4,             /* reads of neighbours under way */
};

struct tree_waiter {
	struct job *parent;
	struct link link;
};

struct tree_load {
	struct job job;
	struct tree *tree;
	struct tree_node *node;
	struct link waiters;
	UT_hash_handle hh;
};

struct tree_run {
	struct job job;
	struct tree *tree;
	unsigned count;
	struct tree_load *loads[TREE_RUN_MAX];
};

/* What a node on disk may hold: pointers without memory flags. */
static bool node_sound(const struct tree_node *n)
{
	for (unsigned i = 0; i < NODE_FANOUT; i++)
		if (n->slots[i].flags != 0)
			return false;
	return true;
}

static void load_end(struct tree_load *load, int status)
{
	struct tree *t = load->tree;
	if (status == 0 && !node_sound(load->node))
		status = -EIO;
	HASH_DEL(t->loads, load);
	if (status == 0) {
		load->node->written = true;
		tree_cache_add(t, load->node);
		tree_node_unref(t, load->node);
	} else {
		tree_node_free(t, load->node);
	}
	for (struct link *l; (l = link_pop(&load->waiters));) {
		struct tree_waiter *w = container_of(l, struct tree_waiter, link);
		job_put(w->parent, status);
		free(w);
	}
	free(load);
	if (!t->loads)
		fiber_cond_wake(&t->settled);
}

static void load_done(struct job *j) { load_end(container_of(j, struct tree_load, job), j->status); }

static struct tree_load *load_find(struct tree *t, uint64_t position)
{
	struct tree_load *load;
	HASH_FIND(hh, t->loads, &position, sizeof position, load);
	return load;
}

static struct tree_load *load_new(struct tree *t, const struct pointer *at, uint32_t level, uint64_t first)
{
	struct tree_load *load = calloc(1, sizeof *load);
	struct tree_node *n = load ? tree_node_new(t, level, first) : NULL;
	if (!n) {
		free(load);
		return NULL;
	}
	n->at = *at;
	load->tree = t;
	load->node = n;
	link_init(&load->waiters);
	HASH_ADD_KEYPTR(hh, t->loads, &n->at.position, sizeof n->at.position, load);
	return load;
}

static void load_alone(struct tree_load *load)
{
	struct tree *t = load->tree;
	void *page = load->node->slots;
	job_init(&load->job, &t->env->loop);
	t->read(t->read_arg, &load->node->at, &page, 1, &load->job);
	job_then(&load->job, load_done);
}

/* ---- ahead ---- */

static void run_done(struct job *j)
{
	struct tree_run *run = container_of(j, struct tree_run, job);
	run->tree->runs--;
	for (unsigned i = 0; i < run->count; i++) {
		struct tree_load *load = run->loads[i];
		if (j->status && !link_empty(&load->waiters))
			load_alone(load);
		else
			load_end(load, j->status);
	}
	free(run);
}

static bool is_known(struct tree *t, uint64_t position)
{
	struct tree_node *n;
	HASH_FIND(hh, t->cached, &position, sizeof position, n);
	return n || load_find(t, position);
}

/* Of the level above it, as far as that is in memory. */
static const struct tree_node *parent_of(struct tree *t, const struct tree_need *need)
{
	const struct pointer *slot = &t->root;
	for (uint32_t level = t->level; level > need->level; level--) {
		if (slot_hole(slot))
			return NULL;
		const struct tree_node *n = slot_in_memory(slot) ? slot_node(slot) : tree_cache_find(t, slot);
		if (!n)
			return NULL;
		slot = &n->slots[slot_index(need->first, level)];
		if (level == need->level + 1)
			return slot->position == need->at.position ? n : NULL;
	}
	return NULL;
}

/* The leaves of slots[0 …], which lie side by side. */
static void run_start(struct tree *t, const struct tree_node *parent, const struct pointer *const *slots, unsigned count)
{
	struct pointer at[TREE_RUN_MAX];
	void *pages[TREE_RUN_MAX];
	struct tree_run *run = count ? calloc(1, sizeof *run) : NULL;
	for (; run && run->count < count; run->count++) {
		unsigned i = run->count;
		struct tree_load *load = load_new(t, slots[i], 0, parent->first + (uint64_t)(slots[i] - parent->slots) * NODE_FANOUT);
		if (!load)
			break;
		run->loads[i] = load;
		at[i] = *slots[i];
		pages[i] = load->node->slots;
	}
	if (!run || run->count == 0) {
		free(run);
		return;
	}
	t->runs++;
	run->tree = t;
	job_init(&run->job, &t->env->loop);
	t->read(t->read_arg, at, pages, run->count, &run->job);
	job_then(&run->job, run_done);
}

static void load_ahead(struct tree *t, const struct tree_need *need)
{
	const struct pointer *near[2 * REACH + 1] = { 0 }; /* by position; the leaf's own in the middle */
	unsigned half = t->node_budget / 2, room = half > t->node_count ? (half - t->node_count) / 2 : 0; /* for each run */
	if (need->level > 0 || t->runs >= RUNS_MAX || room == 0)
		return;
	const struct tree_node *parent = parent_of(t, need);
	for (unsigned i = 0; parent && i < NODE_FANOUT; i++) {
		const struct pointer *slot = &parent->slots[i];
		uint64_t at = slot->position + REACH - need->at.position; /* below 0: great */
		if (!slot_hole(slot) && !slot_in_memory(slot) && at <= 2 * REACH && position_segment(slot->position) == position_segment(need->at.position))
			near[at] = slot;
	}
	unsigned low = REACH, high = REACH + 1;
	while (REACH - low < MIN(room, (unsigned)REACH) && near[low - 1] && !is_known(t, near[low - 1]->position))
		low--;
	while (high - REACH - 1 < MIN(room, (unsigned)REACH) && near[high] && !is_known(t, near[high]->position))
		high++;
	run_start(t, parent, near + low, REACH - low);
	run_start(t, parent, near + REACH + 1, high - REACH - 1);
}

/* ---- what callers see ---- */

void tree_load(struct tree *t, const struct tree_need *need, struct job *parent)
{
	job_hold(parent);
	if (tree_cache_find(t, &need->at)) {
		job_put(parent, 0);
		return;
	}
	struct tree_waiter *w = malloc(sizeof *w);
	struct tree_load *load = w ? load_find(t, need->at.position) : NULL;
	bool begun = w && !load && (load = load_new(t, &need->at, need->level, need->first));
	if (!load) {
		free(w);
		job_put(parent, -ENOMEM);
		return;
	}
	w->parent = parent;
	link_push(&load->waiters, &w->link);
	if (begun) {
		t->misses++;
		load_alone(load);
		load_ahead(t, need);
	}
}

void tree_abandon(struct tree *t, struct job *parent, int status)
{
	struct tree_load *load, *next;
	HASH_ITER(hh, t->loads, load, next)
		link_for_safe(k, n, &load->waiters) {
			struct tree_waiter *w = container_of(k, struct tree_waiter, link);
			if (w->parent != parent)
				continue;
			link_drop(&w->link);
			job_put(parent, status);
			free(w);
		}
}

void tree_settle(struct tree *t)
{
	while (t->loads)
		fiber_cond_wait(&t->env->loop, &t->settled);
}
