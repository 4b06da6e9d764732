/* Checkpoint (R19): publishes the map and the accounting as of one instant, so that replay can start there.
 *
 *   freeze at c ─ nodes of each mark, then of the head, leaves first ─ doomed snapshots' lists ─
 *   dead lists ─ space table ─ summary ─ sync ─ one transaction ─ freed segments are deleted
 *
 * Only the freeze holds up anything, and only until no record is half applied. A checkpoint that fails
 * without the volume having failed (no space, the catalog refuses) leaves everything as good as before: what
 * it wrote is kept track of, and the next one goes on from there. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/volume/blob.h"
#include "parallax/volume/summary.h"
#include "parallax/volume/volume_private.h"

enum { DELETES_MAX = 256 }; /* freed segments at the end of a checkpoint: the next one waits for that */

/* A snapshot that gets its root. */
struct marked {
	const struct pending_mark *mark;
	uint64_t revision;
	char key[META_KEY_BYTES];
	uint8_t *bytes; /* its record, */
	size_t length;  /* and how long that is */
};

struct checkpoint {
	struct volume *v;
	struct link marks;
	unsigned mark_count;
	struct tree_version head;
	uint64_t newest_mark, version_end;
	struct pending_mark *rest; /* takes the head's version if this checkpoint fails */
	uint64_t from_position, from_seq, bytes;
	uint32_t from_prev;
	struct checkpoint_drops drops;
	struct meta_root space, summary;
	struct marked *marked;       /* by mark: the snapshots among `marks` */
	unsigned marked_count;
	uint64_t table_last;
	struct volume_closing *closing;
};

#define CHECKPOINT_FAILS_NS (5 * NS_PER_S) /* what passes sooner isn't told of */

/* ---- when ---- */

/* What one writes itself is no reason for the next. */
static uint64_t replay_most(const struct volume *v) { return MAX(v->limits.replay_bytes, checkpoint_table_reserve(v) * 2 * BLOCK_BYTES); }

static bool due(const struct volume *v)
{
	return v->checkpoint_wanted || v->tree.dirty_count >= v->node_limit || v->log.bytes_since_from >= replay_most(v) ||
	       v->meta.segment_count >= LOG_SEGMENTS_LISTED ||
	       (v->dirty && log_room(v) < checkpoint_reserve(v) * 2 + LOG_CLEAR_ROOM);
}

void checkpoint_consider(struct volume *v)
{
	if (!link_empty(&v->due.waiters) && due(v))
		fiber_cond_wake(&v->due);
}

static void tick(struct job *j)
{
	struct volume *v = container_of(j, struct volume, tick_job);
	v->ticking = false;
	if (j->status == 0)
		v->checkpoint_wanted = true;
	else if (j->status == -ECANCELED && v->dirty)
		checkpoint_dirty(v); /* changed again since the cancel */
	checkpoint_consider(v);
}

void checkpoint_dirty(struct volume *v)
{
	v->dirty = true;
	if (v->closing || v->failed || v->ticking)
		return;
	v->ticking = true;
	job_init(&v->tick_job, &v->env->loop);
	timer_start(v->env, &v->tick, v->limits.checkpoint_ns, &v->tick_job);
	job_then(&v->tick_job, tick);
}

uint64_t checkpoint_table_reserve(const struct volume *v)
{
	uint64_t table = space_table_blocks_max(&v->space) + 2;
	return table + table / 16 + space_indexes_max(&v->space) * 2;
}

uint64_t checkpoint_reserve(const struct volume *v)
{
	uint64_t nodes = v->tree.dirty_count + 8, dead = space_tail_blocks_max(&v->space);
	return nodes + nodes / CHECKPOINT_RECORD_NODES + dead * 2 + checkpoint_table_reserve(v) + SUMMARY_BLOCKS_MAX + 4 + 16 + CHECKPOINT_DROP_BLOCKS;
}

/* ---- freeze ---- */

/* The segment that the next record goes to while there is no current one; NULL: it isn't listed yet. */
static const struct log_segment *next_segment(const struct log *l)
{
	link_for(k, &l->segments) {
		const struct log_segment *g = container_of(k, struct log_segment, link);
		if (!g->finished)
			return g;
	}
	return NULL;
}

static void note_from(struct checkpoint *c)
{
	struct volume *v = c->v;
	const struct log *l = &v->log;
	const struct log_segment *g = l->current ? l->current : next_segment(l);
	c->from_seq = l->acked_seq + 1;
	c->from_prev = l->acked_crc;
	if (!link_empty(&l->flying)) {
		const struct log_record *r = container_of(l->flying.next, struct log_record, link);
		c->from_position = position_make(r->head.segment, r->head.block);
	} else if (g) {
		/* a full segment's end may be one past what 16 bits hold: begin with what follows */
		c->from_position = position_make(g->meta.id, MIN(g->next, UINT32_C(0xffff)));
	} else {
		c->from_position = position_make(v->meta.last_id, 0xffff);
	}
	c->bytes = l->bytes_since_from;
}

static void freeze(struct checkpoint *c)
{
	struct volume *v = c->v;
	fiber_mutex_lock(&v->env->loop, &v->marking);
	apply_settle(v);
	link_splice(&c->marks, &v->marks);
	c->mark_count = v->mark_count;
	v->mark_count = 0;
	c->newest_mark = v->newest_mark;
	tree_freeze(&v->tree, &c->head);
	space_fold(&v->space);
	note_from(c);
	v->dirty = v->checkpoint_wanted = false;
	timer_cancel(v->env, &v->tick);
	fiber_mutex_unlock(&v->marking);
}

/* ---- nodes ---- */

/* Oldest first. A version's nodes are those written for it and those it shares with older versions: the greatest
 * position among all these is its snapshot's border for nodes. */
static int write_versions(struct checkpoint *c)
{
	struct volume *v = c->v;
	uint64_t end = v->version_end;
	int r = 0;
	link_for(l, &c->marks) {
		struct pending_mark *m = container_of(l, struct pending_mark, link);
		if (r == 0)
			r = checkpoint_write_nodes(v, &m->version, m->newest_before, &m->last_node);
		end = MAX(end, m->last_node);
		const struct space_list *list = m->seq ? space_list_find(&v->space, m->seq) : NULL;
		m->node_end = MAX(end, list ? list->mark_position : 0);
		if (m->seq)
			space_node_end(&v->space, m->seq, m->node_end);
	}
	if (r == 0)
		r = checkpoint_write_nodes(v, &c->head, c->newest_mark, &c->rest->last_node);
	c->version_end = MAX(end, c->rest->last_node);
	return r;
}

/* ---- dead lists and the table ---- */

static int append_frees(struct volume *v, const void *block, struct pointer *ret_at)
{
	uint32_t crc = crc32c(0, block, BLOCK_BYTES);
	struct iovec iov = { (void *)(uintptr_t)block, BLOCK_BYTES };
	struct log_append a = { .kind = RECORD_FREES, .iov = &iov, .iov_count = 1, .crcs = &crc, .payload_blocks = 1 };
	int r = log_append_wait(v, &a);
	*ret_at = (struct pointer){ a.payload_position, crc, 0 };
	return r;
}

static int write_tails(struct checkpoint *c)
{
	struct volume *v = c->v;
	struct space_tail_write w;
	uint8_t *block = env_alloc_aligned(BLOCK_BYTES);
	int r = block ? 0 : -ENOMEM;
	while (r == 0 && space_tail_next(&v->space, &w, block)) {
		struct pointer at = { 0 };
		if (w.count)
			r = append_frees(v, block, &at);
		if (r == 0)
			r = space_tail_written(&v->space, &w, &at);
	}
	struct space_index_write x;
	for (uint64_t n = space_indexes_max(&v->space); r == 0 && n > 0 && space_index_next(&v->space, &x, block); n--) {
		struct pointer at;
		r = append_frees(v, block, &at);
		if (r == 0)
			space_index_written(&v->space, &x, &at);
	}
	free(block);
	return r;
}

static void note_freed(void *arg, uint64_t id)
{
	struct volume *v = arg;
	if (v->freed_count < v->freed_room)
		v->freed[v->freed_count++] = id;
}

/* Segments below this can go when nothing in them lives: replay begins behind them, and the catalog doesn't list them open. A
 * finished one may be, as long as its cut waits for the catalog; whoever takes over then fences it, so it must be there. */
static uint64_t free_before(const struct checkpoint *c)
{
	const struct meta_log *log = &c->v->meta;
	uint64_t before = position_segment(c->from_position);
	for (uint32_t i = 0; i < log->segment_count; i++)
		if (!log->segments[i].cut)
			before = MIN(before, log->segments[i].id);
	return before;
}

/* -EFBIG: nobody could read it, so it isn't published. */
static int make_table(struct checkpoint *c, uint8_t **ret_table, size_t *ret_bytes)
{
	struct volume *v = c->v;
	uint64_t before = free_before(c);
	int r = array_reserve(&v->freed, &v->freed_room, v->freed_count + v->space.segment_count + 1);
	if (r < 0)
		return r;
	space_take_free(&v->space, before, note_freed, v);
	*ret_bytes = space_encoded_bytes(&v->space);
	if (*ret_bytes > BLOB_BYTES_MAX)
		return -EFBIG;
	uint8_t *table = env_alloc_aligned(*ret_bytes);
	if (!table)
		return -ENOMEM;
	memset(table, 0, round_up(*ret_bytes, BLOCK_BYTES));
	space_encode(&v->space, table);
	c->table_last = space_last_segment(&v->space);
	*ret_table = table;
	return 0;
}

/* ---- the snapshots and the summary ---- */

/* As the catalog has it, with its root. */
static int read_snapshot(struct checkpoint *c, struct marked *m, struct meta_snapshot *ret)
{
	struct volume *v = c->v;
	struct publish_tries tries = { .began_ns = env_now_ns(v->env) };
	int r;
	do
		r = meta_get_snapshot(v->catalog, v->id, m->mark->seq, ret, &m->revision);
	while (publish_again(v, r, &tries));
	if (r < 0)
		return r;
	size_t length = 0;
	ret->has_root = true;
	ret->root = (struct meta_root){ tree_version_root(&m->mark->version), m->mark->version.level, 0 };
	ret->node_end = m->mark->node_end;
	ret->mapped_blocks = m->mark->mapped;
	free(m->bytes);
	m->bytes = meta_snapshot_encode(ret, &length);
	m->length = length;
	return m->bytes ? 0 : -ENOMEM;
}

static int read_snapshots(struct checkpoint *c, struct meta_snapshot *ret)
{
	int r = 0;
	for (unsigned i = 0; r == 0 && i < c->marked_count; i++)
		r = read_snapshot(c, &c->marked[i], &ret[i]);
	return r;
}

static int note_marked(struct checkpoint *c)
{
	c->marked = calloc(c->mark_count + 1, sizeof *c->marked);
	if (!c->marked)
		return -ENOMEM;
	link_for(l, &c->marks) {
		const struct pending_mark *m = container_of(l, struct pending_mark, link);
		if (m->seq)
			c->marked[c->marked_count++].mark = m;
	}
	return 0;
}

static void fill_log(const struct checkpoint *c, struct meta_log *log)
{
	struct volume *v = c->v;
	log->root = (struct meta_root){ tree_version_root(&c->head), c->head.level, 0 };
	log->space = c->space;
	log->summary = c->summary;
	log->node_end = c->version_end;
	log->generation++;
	log->from_position = c->from_position;
	log->from_seq = c->from_seq;
	log->from_prev = c->from_prev;
	log->mapped_blocks = v->space.mapped;
	log->dead_blocks = v->space.dead;
	log->live_blocks = 0;
	for (uint32_t i = 0; i < v->space.segment_count; i++)
		log->live_blocks += v->space.segments[i].live;
}

static int make_summary(struct checkpoint *c, struct checkpoint_summary **ret)
{
	struct meta_log *log = malloc(sizeof *log);
	int r = log ? note_marked(c) : -ENOMEM;
	struct meta_snapshot *snapshots = r == 0 ? calloc(c->marked_count + 1, sizeof *snapshots) : NULL;
	if (r == 0)
		r = snapshots ? read_snapshots(c, snapshots) : -ENOMEM;
	if (r == 0) {
		*log = c->v->meta;
		fill_log(c, log);
		unsealed_let_go(c->v, log, position_segment(c->from_position));
		unsealed_foresee(c->v, log, position_segment(c->from_position));
		r = checkpoint_summary_make(c->v, log, snapshots, c->marked_count, &c->space, ret);
	}
	free(snapshots);
	free(log);
	return r;
}

/* The table and the summary, at once. */
static int write_end(struct checkpoint *c)
{
	struct checkpoint_summary *summary;
	uint8_t *table = NULL;
	size_t bytes;
	int r = make_table(c, &table, &bytes);
	if (r == 0) {
		unsealed_seal(c->v, position_segment(c->from_position));
		r = make_summary(c, &summary);
	}
	if (r == 0) {
		r = blob_write(c->v, table, bytes, checkpoint_summary_append(summary), &c->space);
		int ended = checkpoint_summary_end(summary, &c->summary);
		r = r ? r : ended;
	}
	free(table);
	return r;
}

/* ---- publishing ---- */

static int publish_once(struct checkpoint *c, struct publication *p, struct checkpoint_drop_keys *drops)
{
	struct volume *v = c->v;
	publish_begin(v, p);
	fill_log(c, &p->log);
	unsealed_let_go(v, &p->log, position_segment(c->from_position));
	for (unsigned i = 0; i < c->marked_count; i++) {
		struct marked *m = &c->marked[i];
		meta_key_snapshot(v->id, m->mark->seq, m->key);
		catalog_txn_compare(&p->txn, m->key, m->revision);
		catalog_txn_put(&p->txn, m->key, m->bytes, m->length);
	}
	checkpoint_drop_add(v, &c->drops, drops, p);
	bool last = c->closing && volume_closing_fits(v, c->table_last);
	if (last)
		volume_closing_add(c->closing, p);
	int r = publish_commit(p);
	if (r == 0 && last)
		c->closing->done = true;
	return r;
}

/* Somebody may have doomed a snapshot between our look and our transaction. */
static int look_again(struct checkpoint *c)
{
	struct meta_snapshot *snapshots = calloc(c->marked_count + 1, sizeof *snapshots);
	int r = snapshots ? read_snapshots(c, snapshots) : -ENOMEM;
	free(snapshots);
	return r ? r : -EAGAIN;
}

static int publish(struct checkpoint *c)
{
	struct volume *v = c->v;
	struct publication *p = malloc(sizeof *p);
	struct checkpoint_drop_keys *drops = malloc(sizeof *drops);
	int r = p && drops ? -EAGAIN : -ENOMEM;
	if (PLANTED(trim_before_publish)) {
		space_published(&v->space);
		trim_kick(v);
	}
	for (unsigned attempt = 0; r == -EAGAIN && attempt < 50; attempt++) {
		if (attempt)
			r = look_again(c);
		if (r == -EAGAIN)
			r = publish_once(c, p, drops);
	}
	free(drops);
	free(p);
	if (r == 0)
		space_published(&v->space);
	return r;
}

/* The first of those that are due; if it can't be deleted everywhere now it is the last of them. Others may be added meanwhile. */
static bool delete_one(struct volume *v)
{
	uint64_t id = v->freed[0];
	bool gone = log_delete_segment(v, id) == 0;
	memmove(v->freed, v->freed + 1, --v->freed_due * sizeof *v->freed);
	if (gone) {
		memmove(v->freed + v->freed_due, v->freed + v->freed_due + 1, (--v->freed_count - v->freed_due) * sizeof *v->freed);
		v->counters.segments_freed++;
	} else {
		v->freed[v->freed_due++] = id;
	}
	return gone;
}

unsigned checkpoint_delete_freed(struct volume *v, unsigned most)
{
	unsigned done = 0;
	fiber_mutex_lock(&v->env->loop, &v->deleting);
	for (most = MIN(most, v->freed_due); most-- > 0 && !v->failed;)
		done += delete_one(v);
	fiber_mutex_unlock(&v->deleting);
	return done;
}

void checkpoint_delete_all(struct volume *v)
{
	while (checkpoint_delete_freed(v, DELETES_MAX))
		;
}

/* ---- all of it ---- */

static void release(struct checkpoint *c, int status)
{
	struct volume *v = c->v;
	for (unsigned i = 0; i < c->marked_count; i++)
		free(c->marked[i].bytes);
	free(c->marked);
	if (status < 0) { /* all that was frozen is still to be written and published, in order */
		c->rest->version = c->head;
		c->rest->newest_before = c->newest_mark;
		link_push(&c->marks, &c->rest->link);
		link_splice(&c->marks, &v->marks);
		link_splice(&v->marks, &c->marks);
		v->mark_count += c->mark_count;
		v->checkpoint_wanted |= !v->failed;
		if (c->drops.count)
			checkpoint_drop_failed(v);
		checkpoint_dirty(v);
		return;
	}
	v->version_end = c->version_end;
	tree_version_release(&v->tree, &c->head);
	free(c->rest);
	for (struct link *l; (l = link_pop(&c->marks));) {
		struct pending_mark *m = container_of(l, struct pending_mark, link);
		tree_version_release(&v->tree, &m->version);
		free(m);
	}
}

static int checkpoint_steps(struct checkpoint *c)
{
	struct volume *v = c->v;
	int r = write_versions(c);
	if (r == 0)
		r = checkpoint_drop(v, &c->drops);
	if (r == 0)
		r = write_tails(c);
	if (r == 0)
		r = write_end(c);
	if (r == 0 && !PLANTED(checkpoint_no_sync))
		r = log_flush_wait(v);
	return r ? r : publish(c);
}

/* For those who look. What is away is waited for, and told of elsewhere. */
static void note_outcome(struct volume *v, int status)
{
	if (status < 0 && (v->failed || v->closing || status == -EAGAIN || status == -ESHUTDOWN))
		return;
	if (status < 0 && !v->checkpoint_failed)
		v->checkpoint_failed_ns = env_now_ns(v->env);
	v->checkpoint_failed = status;
}

int volume_checkpoints_fail(const struct volume *v)
{
	bool lasts = v->checkpoint_failed == -EFBIG || env_now_ns(v->env) - v->checkpoint_failed_ns >= CHECKPOINT_FAILS_NS;
	return lasts ? v->checkpoint_failed : 0;
}

int checkpoint_closing(struct volume *v, struct volume_closing *closing)
{
	struct checkpoint *c = calloc(1, sizeof *c);
	if (c)
		c->rest = calloc(1, sizeof *c->rest);
	if (!c || !c->rest) {
		free(c);
		return -ENOMEM;
	}
	c->v = v;
	c->closing = closing;
	link_init(&c->marks);
	fiber_mutex_lock(&v->env->loop, &v->checkpointing);
	uint64_t began_ns = env_now_ns(v->env);
	freeze(c);
	/* the log's and an owner's record and a note beside the roots; of each drop the snapshot's and its note */
	c->drops.room = MIN((unsigned)CHECKPOINT_DROPS, (CATALOG_TXN_MAX - 3 - MIN(c->mark_count, CATALOG_TXN_MAX - 3u)) / 2);
	/* closed while it waited: what it would count as free is what the last table, and that itself, lies in */
	int r = v->failed ? v->failed : v->closing ? -ECANCELED : checkpoint_steps(c);
	note_outcome(v, r);
	if (r == 0) {
		v->log.bytes_since_from -= MIN(c->bytes, v->log.bytes_since_from);
		v->counters.checkpoints++;
		v->table_last = c->table_last;
		v->checkpoint_took_ns = env_now_ns(v->env) - began_ns;
		v->dropped += c->drops.count;
		v->end_dropped = false;
		v->freed_due = v->freed_count;
		if (!closing) /* else that has time until the volume is let go */
			checkpoint_delete_freed(v, DELETES_MAX); /* the rest is the trimmer's */
		trim_kick(v);
	}
	release(c, r);
	free(c);
	fiber_mutex_unlock(&v->checkpointing);
	if (r == 0 && checkpoint_reaps(v))
		checkpoint_reap_later(v);
	fiber_cond_wake(&v->settled);
	log_pump(v);
	return r;
}

int checkpoint_run(struct volume *v) { return checkpoint_closing(v, NULL); }

static int checkpointer(void *arg)
{
	struct volume *v = arg;
	while (!v->closing && !v->failed) {
		if (!due(v)) {
			fiber_cond_wait(&v->env->loop, &v->due);
			continue;
		}
		int r = checkpoint_run(v);
		if (r == -ESHUTDOWN || v->env->dead)
			volume_fail(v, -ESHUTDOWN);
		if (r < 0 && !v->failed && !v->closing)
			fiber_sleep(&v->env->loop, 200 * NS_PER_MS);
	}
	v->log.fibers--;
	fiber_cond_wake(&v->log.changed);
	return 0;
}

int checkpoint_start(struct volume *v)
{
	v->log.fibers++;
	int r = fiber_start(&v->env->loop, checkpointer, v, NULL);
	if (r < 0)
		v->log.fibers--;
	return r;
}
