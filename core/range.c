/* The range lock: a treap ordered by (start, ticket), each node knowing the greatest end
 * below it, so that the ranges that overlap a given one are found without looking at others.
 *
 * The promise is kept by counting, not by state: a range that joins holds its job once for
 * each conflicting range in the tree (all are earlier); a range that leaves puts the job of
 * each conflicting range with a later ticket. Both sides ask ranges_conflict(), so holds and
 * puts can't differ. Priorities come from a generator in the lock: nothing depends on addresses. */
#include "core/range.h"

#include <stddef.h>

#include "core/bytes.h"
#include "core/plant.h"

void range_lock_init(struct range_lock *lock)
{
	*lock = (struct range_lock){ .random = UINT64_C(0x9E3779B97F4A7C15) };
}

static uint32_t next_priority(struct range_lock *lock)
{
	lock->random ^= lock->random << 13;
	lock->random ^= lock->random >> 7;
	lock->random ^= lock->random << 17;
	return (uint32_t)(lock->random >> 32);
}

/* Both overlap already. */
static bool ranges_conflict(const struct range *earlier, const struct range *later)
{
	if (earlier->job == later->job)
		return false;
	if (PLANTED(range_skip_overlap) && earlier->start < later->start && earlier->end > later->end)
		return false;
	if (PLANTED(range_shared_writes) && earlier->exclusive && later->exclusive)
		return false;
	return earlier->exclusive || later->exclusive;
}

/* ---- the treap ---- */

static bool range_before(const struct range *a, const struct range *b)
{
	return a->start < b->start || (a->start == b->start && a->ticket < b->ticket);
}

static void tree_update(struct range *t)
{
	t->max_end = t->end;
	if (t->left)
		t->max_end = MAX(t->max_end, t->left->max_end);
	if (t->right)
		t->max_end = MAX(t->max_end, t->right->max_end);
}

/* What is before `at` goes to *ret_left, the rest to *ret_right. */
static void tree_split(struct range *t, const struct range *at, struct range **ret_left, struct range **ret_right)
{
	if (!t) {
		*ret_left = *ret_right = NULL;
		return;
	}
	if (range_before(t, at)) {
		*ret_left = t;
		tree_split(t->right, at, &t->right, ret_right);
	} else {
		*ret_right = t;
		tree_split(t->left, at, ret_left, &t->left);
	}
	tree_update(t);
}

/* Everything in `a` is before everything in `b`. */
static struct range *tree_join(struct range *a, struct range *b)
{
	if (!a || !b)
		return a ? a : b;
	if (a->priority > b->priority) {
		a->right = tree_join(a->right, b);
		tree_update(a);
		return a;
	}
	b->left = tree_join(a, b->left);
	tree_update(b);
	return b;
}

static struct range *tree_insert(struct range *t, struct range *r)
{
	if (!t || r->priority > t->priority) {
		tree_split(t, r, &r->left, &r->right);
		t = r;
	} else if (range_before(r, t)) {
		t->left = tree_insert(t->left, r);
	} else {
		t->right = tree_insert(t->right, r);
	}
	tree_update(t);
	return t;
}

static struct range *tree_remove(struct range *t, const struct range *r)
{
	assert(t);
	if (t == r)
		return tree_join(t->left, t->right);
	if (range_before(r, t))
		t->left = tree_remove(t->left, r);
	else
		t->right = tree_remove(t->right, r);
	tree_update(t);
	return t;
}

/* Calls `each` for every range below `t` that overlaps `r`, by start. */
static void tree_overlaps(struct range *t, struct range *r, void (*each)(struct range *r, struct range *other))
{
	if (!t || t->max_end <= r->start)
		return;
	tree_overlaps(t->left, r, each);
	if (t->start >= r->end)
		return;
	if (t->end > r->start)
		each(r, t);
	tree_overlaps(t->right, r, each);
}

/* ---- the lock ---- */

static void wait_for(struct range *r, struct range *other)
{
	if (ranges_conflict(other, r))
		job_hold(r->job);
}

void range_acquire(struct range_lock *lock, struct range *r, struct job *job)
{
	assert(r->start < r->end);
	r->job = job;
	r->ticket = lock->next_ticket++;
	r->priority = next_priority(lock);
	r->left = r->right = NULL;
	tree_overlaps(lock->root, r, wait_for);
	lock->root = tree_insert(lock->root, r);
	lock->count++;
}

static void let_go(struct range *r, struct range *other)
{
	if (other->ticket > r->ticket && ranges_conflict(r, other))
		job_put(other->job, 0);
}

void range_release(struct range_lock *lock, struct range *r)
{
	assert(lock->count > 0);
	lock->count--;
	lock->root = tree_remove(lock->root, r);
	tree_overlaps(lock->root, r, let_go);
}
