/* gc: R31's question for each copy in the directory; what is certainly nobody's is deleted. A copy that was never sealed, though
 * its volume's log says where it was cut, is sealed there: whoever recorded the cut may have died before he could tell.
 *
 * A fence of a segment that isn't here is forgotten when no volume lists it. Only a segment that is listed is ever fenced, so its id is not above its
 * volume's last_id, and what isn't listed any more can't be again (R1): nothing in it can be acknowledged, whoever writes it.
 * A copy whose slots can't be read, so that nobody knows whose it is, goes under the same condition: it counts for nothing, also if its segment should be listed later. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "server/keeper_private.h"

#define AGAIN_NS (60 * NS_PER_S)
enum { NAMELESS_MAX = 1024 }; /* in a round; there are few */

/* Segments of which there is a fence, or a copy, and not known whose. */
struct nameless {
	uint64_t ids[NAMELESS_MAX];
	unsigned count;
};

static bool is_known(const struct share_entry *e)
{
	static const uuid none;
	return memcmp(&e->header.volume, &none, sizeof none) != 0; /* else its slots can't be read */
}

static void take_cut(struct keeper *k, struct wanted *w, const struct share_entry *e)
{
	const struct wanted_volume *v = wanted_find(w, &e->header.volume);
	const struct wanted_cut *cut = v ? wanted_cut(v, e->header.segment) : NULL;
	if (!cut || (!e->whole && !wanted_holds(cut, &k->dir->id)))
		return;
	struct segment_io io = { .op = SEGMENT_SEAL, .segment = cut->segment, .epoch = UINT64_MAX, .block = cut->length, .crc = cut->prev };
	k->status.sealed += keeper_own(k, &io) == 0;
}

static int ask(struct keeper *k, struct wanted *w, const struct share_entry *e, uint64_t *unanswered)
{
	if (!is_known(e))
		return 0; /* among the nameless */
	enum wanted_answer a = wanted_ask(w, &e->header);
	*unanswered += a == WANTED_UNKNOWN;
	if (a == WANTED_YES && !e->sealed)
		take_cut(k, w, e);
	if (a != WANTED_NO)
		return 0;
	struct segment_io io = { .op = SEGMENT_DELETE, .segment = e->header.segment };
	int r = keeper_own(k, &io);
	k->status.gc_freed += r == 0;
	k->status.gc_freed_bytes += r == 0 ? (uint64_t)e->present * BLOCK_BYTES : 0;
	return r;
}

static int note_fence(void *arg, uint64_t segment)
{
	struct nameless *f = arg;
	if (f->count < NAMELESS_MAX)
		f->ids[f->count++] = segment;
	return 0;
}

static void note_copies(struct nameless *f, const struct found_list *list)
{
	for (size_t i = 0; i < list->count && !PLANTED(gc_keeps_nameless); i++)
		if (!is_known(&list->entries[i].e))
			note_fence(f, list->entries[i].e.header.segment);
}

static bool is_copy(const struct found_list *list, uint64_t segment)
{
	for (size_t i = 0; i < list->count; i++)
		if (list->entries[i].e.header.segment == segment && is_known(&list->entries[i].e))
			return true;
	return false;
}

/* Those stay that some volume lists; none goes unless all that the volumes list is known. A table is in memory while it is looked at. */
static int keep_listed(struct keeper *k, struct wanted *w, struct nameless *f)
{
	for (size_t i = 0; f->count && i < w->count; i++) {
		struct wanted_volume *v = &w->volumes[i];
		int r = v->embedded ? -ENOENT : keeper_ends(k) ? -ESHUTDOWN : wanted_load(w, v);
		unsigned left = 0;
		if (r < 0 && r != -ENOENT)
			return r;
		for (unsigned n = 0; r == 0 && n < f->count; n++)
			if (!wanted_lists(v, f->ids[n]))
				f->ids[left++] = f->ids[n];
		f->count = r == 0 ? left : f->count;
		wanted_unload(v);
	}
	return 0;
}

static void drop_nameless(struct keeper *k, struct wanted *w, struct nameless *f, const struct found_list *list)
{
	unsigned left = 0;
	for (unsigned i = 0; i < f->count; i++)
		if (!is_copy(list, f->ids[i]))
			f->ids[left++] = f->ids[i];
	f->count = PLANTED(gc_keeps_fences) ? 0 : left;
	if (keep_listed(k, w, f) < 0)
		return;
	for (unsigned i = 0; i < f->count && !keeper_ends(k); i++) {
		struct segment_io io = { .op = SEGMENT_DELETE, .segment = f->ids[i] };
		keeper_own(k, &io);
	}
}

static int by_volume(const void *a, const void *b)
{
	const struct share_entry *x = &((const struct found *)a)->e, *y = &((const struct found *)b)->e;
	int c = memcmp(&x->header.volume, &y->header.volume, sizeof(uuid));
	return c ? c : x->header.segment < y->header.segment ? -1 : x->header.segment > y->header.segment;
}

/* The list is in order by now. */
static bool has_copies(const void *arg, const uuid *volume)
{
	const struct found_list *list = arg;
	struct found key = { .e.header.volume = *volume };
	size_t low = 0, high = list->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (by_volume(&list->entries[middle], &key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low < list->count && memcmp(&list->entries[low].e.header.volume, volume, sizeof *volume) == 0;
}

/* The tables of a hundred thousand volumes would be too much at once. */
static void unload_before(struct wanted *w, const struct found *entries, size_t i)
{
	if (i == 0 || memcmp(&entries[i - 1].e.header.volume, &entries[i].e.header.volume, sizeof(uuid)) == 0)
		return;
	struct wanted_volume *v = wanted_find(w, &entries[i - 1].e.header.volume);
	if (v)
		wanted_unload(v);
}

/* The lists come first: see wanted.h. */
static int gc_once(struct keeper *k)
{
	struct found_list list = { 0 };
	struct nameless *nameless = calloc(1, sizeof *nameless);
	struct wanted *w = NULL;
	uint64_t unanswered = 0;
	int r = nameless ? keeper_list(k, NULL, NULL, &list) : -ENOMEM;
	if (r == 0)
		r = segment_dir_fences(k->dir, note_fence, nameless);
	if (r == 0 && !PLANTED(gc_keeps_unwritten))
		segment_dir_tidy(k->dir); /* what is left does no harm */
	if (r == 0) {
		note_copies(nameless, &list);
		r = wanted_may_condemn(k->catalog);
	}
	k->status.gc_refused = r == -EPERM;
	if (r == 0)
		r = copies_read_map(k->copies);
	if (r == 0 && list.count)
		qsort(list.entries, list.count, sizeof *list.entries, by_volume);
	if (r == 0)
		r = wanted_open_for(k->catalog, k->copies, has_copies, &list, &w);
	for (size_t i = 0; r == 0 && i < list.count; i++) {
		unload_before(w, list.entries, i);
		r = keeper_ends(k) ? -ESHUTDOWN : ask(k, w, &list.entries[i].e, &unanswered);
	}
	if (r == 0)
		k->status.gc_unanswered = unanswered;
	if (r == 0)
		drop_nameless(k, w, nameless, &list); /* what isn't known is kept; it does no harm */
	if (r == 0 && w->failed)
		r = -EAGAIN;
	wanted_close(w);
	free(list.entries);
	free(nameless);
	return r;
}

int gc_fiber(void *arg)
{
	struct keeper *k = arg;
	keeper_nap(k, &k->gc_nap, k->options.gc_first_ns);
	while (!keeper_ends(k)) {
		k->gc_runs = true;
		k->status.gc_failed = gc_once(k) < 0; /* that is for the next round, which then comes sooner */
		k->gc_runs = false;
		k->status.gc_rounds++;
		if (k->status.gc_rounds >= k->status.gc_asked)
			keeper_nap(k, &k->gc_nap, k->status.gc_failed ? MIN(k->options.gc_ns, (uint64_t)AGAIN_NS) : k->options.gc_ns);
	}
	k->fibers--;
	fiber_cond_wake(&k->ended);
	return 0;
}
