/* An open volume's life: acquiring, opening, the operations of its owner, closing. */
#include "parallax/volume/volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/volume/volume_private.h"

#define CACHE_BYTES_DEFAULT (UINT64_C(64) << 20)
#define REPLAY_BYTES_DEFAULT (UINT64_C(192) << 20)
#define CHECKPOINT_NS_DEFAULT (20 * NS_PER_S)
#define WINDOW_DEFAULT 2
#define RETAIN_BYTES_DEFAULT (UINT64_C(16) << 20)
#define SEGMENTS_IN_SMALL_STORE 64
#define CLOSE_NS (30 * NS_PER_S)

/* Never 0. Of a volume, as its segments know it (so also after a catalog was lost, or it was renamed), and of a snapshot of it. */
static uint64_t identity_of(const uuid *volume, uint64_t mark_seq)
{
	uint64_t id = get_le64(volume->bytes) ^ get_le64(volume->bytes + 8) ^ (mark_seq * UINT64_C(0x9e3779b97f4a7c15));
	return id ? id : 1;
}

uint64_t volume_size(const struct volume *v) { return v->meta.size_bytes; }
uint64_t volume_identity(const struct volume *v) { return identity_of(&v->meta.volume, 0); }
uint64_t volume_acquisition(const struct volume *v) { return v->owner.stamp; }
struct sources *volume_sources(struct volume *v) { return &v->sources; }
struct tree *volume_tree(struct volume *v) { return &v->tree; }

/* ---- opening ---- */

static void set_limits(struct volume *v, const struct volume_limits *l)
{
	v->limits = *l;
	if (!v->limits.cache_bytes)
		v->limits.cache_bytes = CACHE_BYTES_DEFAULT;
	if (!v->limits.replay_bytes)
		v->limits.replay_bytes = REPLAY_BYTES_DEFAULT;
	if (!v->limits.checkpoint_ns)
		v->limits.checkpoint_ns = CHECKPOINT_NS_DEFAULT;
	if (!v->limits.retain_bytes)
		v->limits.retain_bytes = RETAIN_BYTES_DEFAULT;
	if (!v->limits.window)
		v->limits.window = WINDOW_DEFAULT;
	v->limits.window = MIN(v->limits.window, (uint32_t)LOG_WINDOW_MAX);
}

static struct volume *volume_new(struct env *env, const struct volume_open *how)
{
	struct volume *v = calloc(1, sizeof *v);
	if (!v)
		return NULL;
	v->env = env;
	v->catalog = how->catalog;
	v->places = how->places;
	v->id = how->volume;
	set_limits(v, &how->limits);
	fiber_mutex_init(&v->creating);
	fiber_mutex_init(&v->publishing);
	fiber_mutex_init(&v->checkpointing);
	fiber_mutex_init(&v->deleting);
	fiber_mutex_init(&v->marking);
	fiber_cond_init(&v->settled);
	fiber_cond_init(&v->due);
	fiber_cond_init(&v->trims);
	fiber_cond_init(&v->map_changed);
	link_init(&v->marks);
	timer_init(&v->tick);
	timer_init(&v->reap);
	timer_init(&v->look);
	space_init(&v->space);
	if (v->limits.index_from)
		v->space.index_from = v->limits.index_from;
	if (v->limits.index_chunks)
		v->space.index_chunks = MIN(v->limits.index_chunks, (uint32_t)SPACE_INDEX_CHUNKS);
	v->doomed_unknown = true;
	if (log_init(v) < 0) {
		log_destroy(v);
		free(v);
		return NULL;
	}
	return v;
}

static void volume_free(struct volume *v)
{
	catalog_lease_end(v->alive);
	timer_cancel(v->env, &v->tick);
	timer_cancel(v->env, &v->reap);
	timer_cancel(v->env, &v->look);
	for (struct link *l; (l = link_pop(&v->marks));) {
		struct pending_mark *m = container_of(l, struct pending_mark, link);
		tree_version_release(&v->tree, &m->version);
		free(m);
	}
	if (v->tree.env) {
		v->sources.patient = false;
		tree_settle(&v->tree);
		tree_destroy(&v->tree);
	}
	space_destroy(&v->space);
	log_destroy(v);
	if (v->server)
		copies_close(v->copies);
	sources_close(&v->sources);
	segment_server_close(v->server);
	file_close(v->env, v->lock);
	free(v->freed);
	free(v->newest);
	doomed_free(&v->doomed);
	free(v);
}

/* 64 MiB, less in a small store: a few are always listed ahead, a reserve is counted in them, and only whole ones come back
 * at once. Never less than what a writer short of space asks for (LOG_RESERVE_BLOCKS), which has room for the longest record. */
static void choose_segment_size(struct volume *v)
{
	uint64_t total = copies_smallest(v->copies), part = total / SEGMENTS_IN_SMALL_STORE / BLOCK_BYTES;
	uint32_t blocks = SEGMENT_BLOCKS_DEFAULT;
	while (total && blocks > LOG_RESERVE_BLOCKS && blocks > part)
		blocks /= 2;
	if (!v->limits.segment_blocks)
		v->limits.segment_blocks = blocks;
}

static int open_tree(struct volume *v)
{
	uint64_t nodes = MAX(v->limits.cache_bytes / BLOCK_BYTES, UINT64_C(16));
	tree_init(&v->tree, v->env, sources_read_nodes, &v->sources, &v->meta.root.pointer, v->meta.root.level, (unsigned)nodes);
	v->node_limit = (unsigned)(nodes / 2);
	return tree_grow(&v->tree, div_up(v->meta.size_bytes, BLOCK_BYTES));
}

static struct copies *warm_copies(struct volume_warm *w)
{
	struct copies *c = w->copies;
	w->copies = NULL;
	return c;
}

/* The state as of its record, in memory. */
static int load_published(struct volume *v, const struct volume_open *how, struct report *report)
{
	int r = sources_open(&v->sources, v->env, v->catalog, v->places, v->id, &v->meta, v->server || !how->warm ? v->copies : warm_copies(how->warm), report);
	if (r == 0 && !v->server)
		v->copies = v->sources.cluster;
	if (r == 0 && !v->server)
		copies_want_log(v->copies, &v->meta);
	if (r == 0)
		choose_segment_size(v);
	return r ? r : open_tree(v);
}

struct loading {
	struct volume *v;
	const struct volume_open *how;
	struct report report;
};

static int load_beside(void *arg)
{
	struct loading *l = arg;
	int r = load_published(l->v, l->how, &l->report);
	return r ? r : recover_space(l->v, &l->report);
}

/* What was seen stays so until somebody acquires it, and if that is us it was right: so it is read meanwhile. */
static int acquire_as_seen(struct volume *v, const struct volume_open *how, struct report *report)
{
	struct loading l = { .v = v, .how = how, .report = { "" } };
	struct job j;
	job_init(&j, &v->env->loop);
	job_hold(&j);
	int r = fiber_start(&v->env->loop, load_beside, &l, &j);
	if (r < 0)
		return r;
	int acquired = volume_acquire(v, how, report); /* at once: the other one begins while this waits */
	r = fiber_wait(&j);
	if (acquired == 0 && r < 0)
		*report = l.report;
	return acquired < 0 ? acquired : r;
}

static int acquire_as_it_is(struct volume *v, const struct volume_open *how, struct report *report)
{
	int r = volume_acquire(v, how, report);
	if (r == 0)
		r = meta_get_log(v->catalog, v->id, &v->meta, &v->meta_revision);
	return r ? r : load_published(v, how, report);
}

static int open_steps(struct volume *v, const struct volume_open *how, struct report *report)
{
	int r = 0;
	if (how->seen) {
		v->meta = how->seen->log;
		v->meta_revision = how->seen->log_revision;
	} else {
		r = meta_get_log(v->catalog, v->id, &v->meta, NULL);
	}
	if (r < 0)
		return report_set(report, r, "its record in the catalog can't be read: %s", catalog_text(v->catalog, r));
	r = volume_open_place(v, how, report);
	v->handed = how->offer != 0;
	if (r == 0)
		r = volume_show_life(v, how, report);
	if (r == 0)
		r = how->seen ? acquire_as_seen(v, how, report) : acquire_as_it_is(v, how, report);
	/* what is deleted, or was rolled back, is there for its snapshots, whose marks were flushed; nor can anybody attach it to accept more */
	if (r == 0)
		r = recover(v, how->accept_flushed || v->meta.doomed, report);
	if (r == 0)
		r = log_roll_start(v);
	/* snapshots that were replayed get their roots now: somebody may be waiting to read them; and from its first summary on a volume can be found again, should the
	 * catalog be lost */
	v->checkpoint_wanted |= v->mark_count > 0 || !v->meta.summary.pointer.position;
	if (r == 0)
		r = checkpoint_start(v);
	if (r == 0)
		r = trim_start(v);
	if (r == 0)
		r = log_leave_start(v);
	if (r == 0)
		checkpoint_look_later(v);
	/* the list is long: it is made short before it can get longer. Where that fails there may be no space, and reading works */
	if (r == 0 && v->meta.segment_count >= LOG_SEGMENTS_LISTED)
		checkpoint_run(v);
	return v->failed ? v->failed : r;
}

static void stop_fibers(struct volume *v)
{
	uint64_t pause_ns = 1; /* most end at once; one may sleep before its next attempt */
	v->closing = true;
	if (v->copies && v->copies->catalog)
		copies_cut(v->copies); /* nothing that is under way matters any more, and a server that hangs would be waited for */
	timer_cancel(v->env, &v->tick);
	timer_cancel(v->env, &v->reap);
	timer_cancel(v->env, &v->look);
	while (v->log.fibers || v->log.retain_syncing || v->ticking || v->reaping || v->looking || v->apply.busy || v->log.flying_count || v->log.syncing) {
		fiber_cond_wake(&v->due);
		fiber_cond_wake(&v->trims);
		fiber_cond_wake(&v->map_changed);
		fiber_cond_wake(&v->log.changed);
		fiber_sleep(&v->env->loop, pause_ns);
		pause_ns = MIN(pause_ns * 2, 10 * NS_PER_MS);
	}
}

int volume_open(struct env *env, const struct volume_open *how, struct volume **ret_volume, struct report *report)
{
	struct volume *v = volume_new(env, how);
	if (!v)
		return -ENOMEM;
	int r = open_steps(v, how, report);
	if (r < 0) {
		volume_fail(v, r);
		stop_fibers(v);
		volume_disown(v, how);
		volume_free(v);
		return r;
	}
	if (how->warm && how->warm->alive) {
		v->alive = how->warm->alive;
		how->warm->alive = NULL;
	}
	v->sources.patient = true;
	v->sources.unsettled = log_unsettled;
	v->sources.unsettled_arg = v;
	*ret_volume = v;
	return 0;
}

/* ---- closing ---- */

static int close_volume(struct volume *v, const struct volume_offer *to)
{
	int r = v->failed;
	v->close_by_ns = env_now_ns(v->env) + CLOSE_NS;
	if (!v->failed) {
		r = volume_close_cleanly(v, to);
		if (r == 0) { /* what was being made ahead is taken away again (log_roll.c) */
			fiber_mutex_lock(&v->env->loop, &v->creating);
			fiber_mutex_unlock(&v->creating);
		}
		volume_fail(v, r < 0 ? r : -ESHUTDOWN);
	}
	stop_fibers(v);
	volume_free(v);
	return r;
}

int volume_close(struct volume *v) { return v ? close_volume(v, NULL) : 0; }
int volume_close_offering(struct volume *v, const struct volume_offer *to) { return close_volume(v, to); }

/* What opening it again would need, should this be interrupted. */
static bool needed_to_open(const struct volume *v, uint64_t segment)
{
	bool needed = segment == position_segment(v->meta.space.pointer.position);
	for (uint32_t i = 0; i < v->meta.segment_count; i++)
		needed |= v->meta.segments[i].id == segment;
	return needed;
}

static int delete_segments(struct volume *v, bool needed)
{
	int r = 0;
	for (uint32_t i = 0; r == 0 && i < v->space.segment_count; i++) {
		uint64_t id = v->space.segments[i].id;
		if (needed_to_open(v, id) == needed)
			r = log_delete_segment(v, id);
	}
	return r;
}

int volume_destroy(struct volume *v)
{
	/* so that nothing is replayed into a map that is gone, if this is interrupted and it is opened again */
	v->doomed_unknown = false; /* nor is any snapshot of it to be freed by itself */
	if (!v->failed)
		checkpoint_run(v);
	int r = v->failed ? v->failed : delete_segments(v, /* needed= */ false);
	if (r == 0)
		r = delete_segments(v, /* needed= */ true);
	volume_fail(v, -ESHUTDOWN);
	stop_fibers(v);
	volume_free(v);
	return r;
}

/* ---- looking up ---- */

static int lookup(struct tree *t, uint64_t first, uint32_t count, struct pointer *ret_pointers, struct job *parent)
{
	for (uint32_t done = 0; done < count;) {
		struct tree_node *leaf;
		struct tree_need need;
		uint64_t span;
		int r = tree_leaf_read(t, first + done, &leaf, &span, &need);
		if (r == -EAGAIN)
			tree_load(t, &need, parent);
		if (r < 0)
			return r;
		uint32_t n = (uint32_t)MIN(span, (uint64_t)(count - done));
		if (leaf)
			memcpy(ret_pointers + done, leaf->slots + tree_slot(first + done), n * sizeof *ret_pointers);
		else
			memset(ret_pointers + done, 0, n * sizeof *ret_pointers);
		done += n;
	}
	return 0;
}

int volume_lookup(struct volume *v, uint64_t first, uint32_t count, struct pointer *ret_pointers, struct job *parent)
{
	return v->failed ? -EIO : lookup(&v->tree, first, count, ret_pointers, parent);
}

enum { SKIP_STEPS_MAX = 1024 };

static int skip_holes(struct tree *t, uint64_t *first, uint64_t end, struct job *parent)
{
	for (unsigned step = 0; *first < end && step < SKIP_STEPS_MAX; step++) {
		struct tree_node *leaf;
		struct tree_need need;
		uint64_t span;
		int r = tree_leaf_read(t, *first, &leaf, &span, &need);
		if (r == -EAGAIN)
			tree_load(t, &need, parent);
		if (r < 0)
			return r;
		span = MIN(span, end - *first);
		uint64_t holes = leaf ? 0 : span;
		while (holes < span && !leaf->slots[tree_slot(*first + holes)].position)
			holes++;
		*first += holes;
		if (holes < span)
			return 0;
	}
	return *first < end ? -EAGAIN : 0;
}

int volume_skip_holes(struct volume *v, uint64_t *first, uint64_t end, struct job *parent)
{
	return v->failed ? -EIO : skip_holes(&v->tree, first, end, parent);
}

/* ---- checkpoints ---- */

int volume_checkpoint(struct volume *v)
{
	v->doomed_unknown = true;
	return v->failed ? -EIO : checkpoint_run(v);
}

/* ---- resizing ---- */

static int skip_holes_wait(struct volume *v, uint64_t *first, uint64_t end)
{
	for (;;) {
		struct job j;
		job_init(&j, &v->env->loop);
		int r = volume_skip_holes(v, first, end, &j);
		int loaded = fiber_wait(&j);
		if (r != -EAGAIN || loaded < 0)
			return loaded < 0 ? loaded : r;
	}
}

static int write_wait(struct volume *v, struct volume_write *w)
{
	struct job j;
	job_init(&j, &v->env->loop);
	volume_write(v, w, &j);
	return fiber_wait(&j);
}

/* The end of a block that the size cuts through: it must not come back when the volume grows again. */
static int clear_partial(struct volume *v, uint64_t from_bytes)
{
	struct pointer at;
	struct job j;
	int r = -EAGAIN;
	while (r == -EAGAIN) {
		job_init(&j, &v->env->loop);
		r = volume_lookup(v, from_bytes / BLOCK_BYTES, 1, &at, &j);
		int loaded = r == -EAGAIN ? fiber_wait(&j) : 0;
		r = loaded < 0 ? loaded : r;
	}
	if (r < 0 || at.position == 0)
		return r;
	uint8_t *page = env_alloc_aligned(BLOCK_BYTES);
	r = page ? sources_read_wait(&v->sources, &at, page) : -ENOMEM;
	if (r == 0) {
		struct iovec iov = { page, BLOCK_BYTES };
		struct volume_write w = { .first = from_bytes / BLOCK_BYTES, .count = 1, .iov = &iov, .iov_count = 1 };
		memset(page + from_bytes % BLOCK_BYTES, 0, BLOCK_BYTES - from_bytes % BLOCK_BYTES);
		r = write_wait(v, &w);
	}
	free(page);
	return r;
}

static int clear_tail(struct volume *v, uint64_t from_bytes)
{
	uint64_t first = div_up(from_bytes, BLOCK_BYTES), end = div_up(v->meta.size_bytes, BLOCK_BYTES);
	int r = from_bytes % BLOCK_BYTES ? clear_partial(v, from_bytes) : 0;
	while (r == 0 && (r = skip_holes_wait(v, &first, end)) == 0 && first < end) {
		struct volume_write w = { .clear = true, .first = first, .count = (uint32_t)MIN(end - first, UINT64_C(65536)) };
		r = write_wait(v, &w);
		first += w.count;
	}
	return r ? r : log_flush_wait(v);
}

int volume_resize(struct volume *v, uint64_t size_bytes, bool force, struct report *report)
{
	if (size_bytes == 0 || size_bytes % 512 || size_bytes > VOLUME_BYTES_MAX)
		return report_set(report, -EINVAL, "the size must be a multiple of 512 bytes, at most 64T");
	if (size_bytes < v->meta.size_bytes && !force)
		return report_set(report, -EINVAL, "it would shrink and lose what lies beyond (give --force if that is meant)");
	int r = size_bytes < v->meta.size_bytes ? clear_tail(v, size_bytes) : tree_grow(&v->tree, div_up(size_bytes, BLOCK_BYTES));
	struct publication *p = r == 0 ? malloc(sizeof *p) : NULL;
	if (r == 0 && !p)
		r = -ENOMEM;
	if (r == 0) {
		publish_begin(v, p);
		p->log.size_bytes = size_bytes;
		r = publish_commit(p);
		v->checkpoint_wanted = true; /* its summary is to have the new size */
		checkpoint_consider(v);
	}
	free(p);
	return r < 0 ? report_set(report, r, "%s", errno_text(r)) : 0;
}

/* ---- how long requests wait ---- */

uint64_t volume_io_timeout_ns(const struct volume *v) { return v->meta.io_timeout_ms * NS_PER_MS; }

bool volume_writes_wait(const struct volume *v)
{
	return v->away || v->catalog_away || (v->apply.waiting && !link_empty(&v->sources.waiting));
}

int volume_set_io_timeout(struct volume *v, uint32_t ms, struct report *report)
{
	if (v->catalog_away)
		return report_set(report, -ETIMEDOUT, "the catalog can't be reached: %s (try again when it is back)", v->catalog_why);
	struct publication *p = v->failed ? NULL : malloc(sizeof *p);
	int r = v->failed ? -EIO : p ? 0 : -ENOMEM;
	if (r == 0) {
		publish_begin(v, p);
		p->impatient = true;
		p->log.io_timeout_ms = ms;
		r = publish_commit(p);
	}
	free(p);
	return r < 0 ? report_set(report, r, "%s", errno_text(r)) : 0;
}

/* ---- what it is called ---- */

int volume_set_name(struct volume *v, const char *name, struct report *report)
{
	struct publication *p = v->failed ? NULL : malloc(sizeof *p);
	int r = v->failed ? -EIO : p ? 0 : -ENOMEM;
	if (r == 0) {
		publish_begin(v, p);
		p->impatient = true;
		snprintf(p->log.name, sizeof p->log.name, "%s", name);
		r = publish_commit(p);
		v->checkpoint_wanted = true; /* its summary is to say so */
		checkpoint_consider(v);
	}
	free(p);
	return r < 0 ? report_set(report, r, "%s", errno_text(r)) : 0;
}

/* ---- counters ---- */

void volume_count(const struct volume *v, struct volume_counters *ret)
{
	*ret = v->counters;
	ret->log_bytes = v->log.bytes_since_from;
	ret->checkpoint_failed = volume_checkpoints_fail(v);
	ret->away = v->away;
	ret->catalog_away = v->catalog_away;
	ret->no_space = v->log.starved;
	ret->failed = v->failed;
	ret->read_retries = v->sources.retries;
	ret->hedged = v->sources.hedged;
	ret->hedges_won = v->sources.hedges_won;
	ret->read_errors = v->sources.errors;
	ret->read_damaged = v->sources.damaged;
	ret->repairs_asked = v->sources.repairs.asked;
	ret->nodes = v->tree.node_count;
	ret->dirty_nodes = v->tree.dirty_count;
	ret->node_hits = v->tree.hits;
	ret->node_misses = v->tree.misses;
	ret->mapped_blocks = (uint64_t)((int64_t)v->space.mapped + v->space.mapped_pending);
	ret->dead_blocks = (uint64_t)((int64_t)v->space.dead + v->space.dead_pending);
	ret->live_blocks = space_live(&v->space);
}

/* ---- readers ---- */

struct volume_reader {
	struct tree tree;
	struct sources sources;
	uint64_t size_bytes, io_timeout_ns, identity;
};

int volume_reader_open(struct env *env, const struct volume_reader_open *how, struct volume_reader **ret_reader,
		       struct report *report)
{
	struct volume_reader *d = calloc(1, sizeof *d);
	struct meta_log *log = malloc(sizeof *log);
	struct meta_snapshot s = { 0 };
	int r = d && log ? meta_get_log(how->catalog, how->volume, log, NULL) : -ENOMEM;
	if (r == 0)
		r = meta_get_snapshot(how->catalog, how->volume, how->mark_seq, &s, NULL);
	if (r == 0 && s.doomed)
		r = -ENOENT; /* it is being taken apart */
	if (r == 0 && !s.has_root)
		r = report_set(report, -EAGAIN, "the snapshot has no root yet");
	if (r == 0)
		r = sources_open(&d->sources, env, how->catalog, how->places, how->volume, log, NULL, report);
	if (r == 0) {
		d->io_timeout_ns = log->io_timeout_ms * NS_PER_MS;
		d->identity = identity_of(&log->volume, how->mark_seq);
	}
	free(log);
	if (r < 0) {
		free(d);
		return report_set(report, r, "the snapshot can't be read: %s", errno_text(r));
	}
	d->size_bytes = s.size_bytes;
	uint64_t cache = how->cache_bytes ? how->cache_bytes : CACHE_BYTES_DEFAULT;
	tree_init(&d->tree, env, sources_read_nodes, &d->sources, &s.root.pointer, s.root.level, (unsigned)MAX(cache / BLOCK_BYTES, UINT64_C(16)));
	d->sources.patient = true;
	r = tree_grow(&d->tree, div_up(s.size_bytes, BLOCK_BYTES));
	if (r < 0) {
		volume_reader_close(d);
		return r;
	}
	*ret_reader = d;
	return 0;
}

int volume_reader_close(struct volume_reader *d)
{
	if (!d)
		return 0;
	d->sources.patient = false;
	tree_settle(&d->tree);
	tree_destroy(&d->tree);
	sources_close(&d->sources);
	free(d);
	return 0;
}

uint64_t volume_reader_size(const struct volume_reader *d) { return d->size_bytes; }
uint64_t volume_reader_identity(const struct volume_reader *d) { return d->identity; }
struct sources *volume_reader_sources(struct volume_reader *d) { return &d->sources; }
struct tree *volume_reader_tree(struct volume_reader *d) { return &d->tree; }
uint64_t volume_reader_io_timeout_ns(const struct volume_reader *d) { return d->io_timeout_ns; }

int volume_reader_lookup(struct volume_reader *d, uint64_t first, uint32_t count, struct pointer *ret_pointers, struct job *parent)
{
	return lookup(&d->tree, first, count, ret_pointers, parent);
}

int volume_reader_skip_holes(struct volume_reader *d, uint64_t *first, uint64_t end, struct job *parent)
{
	return skip_holes(&d->tree, first, end, parent);
}
