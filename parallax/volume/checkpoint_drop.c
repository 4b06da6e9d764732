/* A checkpoint's part in deleting snapshots (R25, R27): the dead lists of those that nothing holds are dealt with, and their keys go in its transaction.
 *
 * What waits is looked up once, and then dropped by as many checkpoints as that takes, CHECKPOINT_DROPS each, with a pause between two: a checkpoint writes the
 * whole space table, and meanwhile more may be deleted, which go along. Who opens a volume and doesn't write it looks without a checkpoint. */
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "core/plant.h"
#include "parallax/catalog/catalog_copy.h"
#include "parallax/volume/volume_private.h"

enum {
	DROP_READS_MAX = 4096,
	REAP_PAUSE_MS = 100,
	REAP_SHARE = 4,          /* checkpoints for deletions alone take one part in so many of the time */
	REAP_RETRY_MS = 5000,    /* the catalog didn't say what waits, or a list couldn't be read; doubled each time, */
	REAP_RETRIES_MAX = 3,    /* so many times: an idle volume writes a checkpoint in 40 s at most for a list that stays out of reach */
	LOOK_MS = 10000,         /* after it was opened; or while a lost catalog isn't recovered */
	LOOK_AGAIN_MS = 600000,  /* whoever deletes tells the holder, but may not reach him, or be killed; nor does a reader say that he has ended */
};

/* ---- when ---- */

bool checkpoint_reaps(const struct volume *v) { return v->doomed_unknown || v->doomed_at < v->doomed.count; }

static void reap_due(struct job *j)
{
	struct volume *v = container_of(j, struct volume, reap_job);
	v->reaping = false;
	if (j->status == 0)
		v->checkpoint_wanted = true;
	else if (j->status == -ECANCELED)
		checkpoint_reap_later(v); /* sooner */
	checkpoint_consider(v);
}

/* What of the same look hasn't had its turn yet doesn't wait for what couldn't be read. */
static uint64_t reap_pause_ns(struct volume *v)
{
	if (v->doomed_unread && v->doomed_at == v->doomed.count) {
		uint64_t retry_ns = (REAP_RETRY_MS * NS_PER_MS) << v->reap_retries;
		v->reap_retries = MIN(v->reap_retries + 1, (unsigned)REAP_RETRIES_MAX);
		return retry_ns;
	}
	v->reap_retries = 0;
	return MAX(REAP_PAUSE_MS * NS_PER_MS, v->checkpoint_took_ns * (REAP_SHARE - 1));
}

void checkpoint_reap_later(struct volume *v)
{
	if (v->closing || v->failed || v->reaping)
		return;
	v->reaping = true;
	job_init(&v->reap_job, &v->env->loop);
	timer_start(v->env, &v->reap, reap_pause_ns(v), &v->reap_job);
	job_then(&v->reap_job, reap_due);
}

void volume_reap_soon(struct volume *v)
{
	bool waits_long = v->reaping && v->doomed_unread;
	v->doomed_unknown = true;
	v->doomed_unread = false;
	if (waits_long)
		timer_cancel(v->env, &v->reap);
	else
		checkpoint_reap_later(v);
}

int volume_reap(struct volume *v, uint64_t *ret_dropped)
{
	uint64_t dropped = v->dropped;
	unsigned idle = 0; /* roots of some may come with the first */
	int r = 0;
	v->doomed_unknown = true;
	while (r == 0 && checkpoint_reaps(v) && idle < 2) {
		uint64_t before = v->drop_steps;
		r = v->failed ? -EIO : checkpoint_run(v);
		idle = v->drop_steps == before ? idle + 1 : 0;
	}
	checkpoint_delete_all(v); /* it won't be open for long */
	*ret_dropped = v->dropped - dropped;
	return r;
}

/* FIBER. Is there something that may be freed? 1, 0 or -errno. All of it waits until a lost catalog is recovered, or that is confirmed: -EAGAIN. */
static int waits(struct volume *v)
{
	char noted[META_KEY_BYTES];
	meta_key_reap(v->id, noted);
	int r = catalog_any(v->catalog, noted), unfinished = r > 0 ? catalog_recover_unfinished(v->catalog) : 0;
	return unfinished ? (unfinished < 0 ? unfinished : -EAGAIN) : r;
}

static void look_after(struct volume *v, unsigned ms);

static int look_fiber(void *arg)
{
	struct volume *v = arg;
	int r = waits(v);
	v->looking = false;
	if (r > 0)
		volume_reap_soon(v);
	look_after(v, r < 0 ? LOOK_MS : LOOK_AGAIN_MS);
	return 0;
}

static void look_due(struct job *j)
{
	struct volume *v = container_of(j, struct volume, look_job);
	if (j->status == 0 && fiber_start(&v->env->loop, look_fiber, v, NULL) == 0)
		return;
	v->looking = false;
	if (j->status == 0 || j->status == -ECANCELED) /* else the process is ending */
		look_after(v, LOOK_MS);
}

static void look_after(struct volume *v, unsigned ms)
{
	if (v->closing || v->failed || v->looking)
		return;
	v->looking = true;
	v->looks_rarely = ms == LOOK_AGAIN_MS;
	job_init(&v->look_job, &v->env->loop);
	timer_start(v->env, &v->look, ms * NS_PER_MS, &v->look_job);
	job_then(&v->look_job, look_due);
}

void checkpoint_look_later(struct volume *v)
{
	if (v->looking && v->looks_rarely && timer_running(&v->look))
		timer_cancel(v->env, &v->look); /* sooner */
	else
		look_after(v, LOOK_MS);
}

/* ---- what ---- */

/* What is noted while this looks is looked at again. Where the catalog doesn't say, it can wait; the checkpoint can't. */
static void look(struct volume *v)
{
	doomed_free(&v->doomed);
	v->doomed_at = 0;
	v->doomed_unknown = false;
	int r = doomed_find(v->catalog, v->id, &v->doomed), unfinished = r == 0 && v->doomed.count ? catalog_recover_unfinished(v->catalog) : 0;
	v->doomed_unread = r < 0 || unfinished < 0;
	if (unfinished)
		doomed_free(&v->doomed);
	if (unfinished > 0)
		checkpoint_look_later(v); /* who recovers or confirms doesn't know all that have a volume */
	v->doomed_unknown |= v->doomed_unread;
	doomed_forget(v->catalog, v->id, &v->doomed);
	for (size_t i = 0; i < v->doomed.count; i++)
		v->doomed_unknown |= v->doomed.entries[i].revision && v->doomed.entries[i].rootless;
}

/* One that is held keeps none of the others waiting; it is looked at again when somebody asks. */
static bool can_drop(struct volume *v, const struct doomed_snapshot *s)
{
	const struct volume_places *p = v->places;
	return doomed_droppable(s) && !s->rootless && !(p->snapshot_idle && p->snapshot_idle(p->arg, v->id, s->mark_seq) != 0);
}

/* ---- dropping ---- */

enum drop_result { DROP_WHOLE, DROP_PART, DROP_UNREAD };

/* What is dealt with makes the checkpoint longer: what the list before gets of a chunk is written anew, and the table names what became free. Where the disk is
 * full that has to fit into what is certainly there (CHECKPOINT_DROP_BLOCKS of it were kept for this), or a checkpoint would fail that does nothing but free space. */
static bool fits(const struct volume *v) { return !v->log.full || log_room_certain(v) >= checkpoint_reserve(v) || PLANTED(drop_all_at_once); }

/* One that had no room is as long the next time: what it dealt with is still to be written. */
static bool failed_before(const struct volume *v) { return v->checkpoint_failed == -ENOSPC && !PLANTED(drop_more_each_time); }

/* What a list has got now is put together with what it has of that kind. One that can't be read, or for which there is no memory, stays as it is. */
static void merge(struct volume *v, uint64_t mark_seq, unsigned *reads, uint8_t *block)
{
	struct space_chunk chunk;
	while (*reads < DROP_READS_MAX && fits(v) && space_merge_next(&v->space, mark_seq, &chunk) && sources_read_now(&v->sources, &chunk.at, block) == 0 &&
	       space_merge_chunk(&v->space, mark_seq, chunk, block) == 0)
		++*reads;
}

/* What the owner before had not finished of the newest list is a chunk like the others now. */
static void merge_newest(struct volume *v, unsigned *reads)
{
	const struct space_list *l = space_list_up_to(&v->space, UINT64_MAX);
	struct space_chunk chunk;
	if (!l || !space_merge_next(&v->space, l->mark_seq, &chunk))
		return;
	uint64_t mark_seq = l->mark_seq; /* meanwhile there may be a newer one */
	uint8_t *block = env_alloc_aligned(BLOCK_BYTES);
	if (block)
		merge(v, mark_seq, reads, block);
	free(block);
}

/* Of the whole list; the rest is the next checkpoint's. A part that can't be read keeps nothing else waiting, the checkpoint least of all. */
static int drop_list(struct volume *v, uint64_t mark_seq, unsigned *reads, enum drop_result *ret)
{
	struct space_list *l;
	uint8_t *block = env_alloc_aligned(BLOCK_BYTES);
	int r = block ? 0 : -ENOMEM;
	*ret = DROP_WHOLE;
	while (r == 0 && *ret == DROP_WHOLE && (l = space_list_find(&v->space, mark_seq)) && l->chunk_count > 0) {
		struct space_chunk chunk = l->chunks[l->chunk_count - 1];
		bool content = space_drop_reads(&v->space, mark_seq, &chunk);
		if (*reads == DROP_READS_MAX || ((*reads || failed_before(v)) && !fits(v)))
			*ret = DROP_PART;
		else if (content && sources_read_now(&v->sources, &chunk.at, block) < 0)
			*ret = DROP_UNREAD;
		else
			r = content && chunk.index ? space_drop_index(&v->space, mark_seq, chunk, block) :
						     space_drop_chunk(&v->space, mark_seq, chunk, content ? block : NULL);
		if (r == -EUCLEAN) {
			*ret = DROP_UNREAD;
			r = 0;
		}
		*reads += content && *ret == DROP_WHOLE;
		v->drop_steps += *ret == DROP_WHOLE;
	}
	if (r == 0 && *ret == DROP_WHOLE)
		r = space_drop_finish(&v->space, mark_seq);
	if (r == 0 && *ret == DROP_WHOLE)
		merge(v, mark_seq, reads, block);
	free(block);
	return r;
}

/* The head of a volume that was deleted or rolled back is what its newest snapshot is; without that one it is to be cut back to the one before. */
static bool is_end_of_doomed(const struct volume *v, uint64_t mark_seq)
{
	const struct space *s = &v->space;
	return v->meta.doomed && s->list_count && s->lists[s->list_count - 1].mark_seq == mark_seq;
}

/* One that is to be tried again: soon, but not at once. */
static void note_unread(struct volume *v) { v->doomed_unknown = v->doomed_unread = true; }

static void note_dropped(struct volume *v, struct checkpoint_drops *d, const struct doomed_snapshot *s, bool end)
{
	d->entries[d->count++] = (struct checkpoint_drop){ s->mark_seq, s->revision };
	v->end_dropped |= end;
	v->drop_steps++;
	fiber_sleep(&v->env->loop, 0); /* requests in between */
}

int checkpoint_drop(struct volume *v, struct checkpoint_drops *d)
{
	unsigned reads = 0;
	int r = 0;
	if (v->doomed_at == v->doomed.count && v->doomed_unknown)
		look(v);
	while (r == 0 && v->doomed_at < v->doomed.count && d->count < d->room) {
		const struct doomed_snapshot *s = &v->doomed.entries[v->doomed_at];
		enum drop_result result = DROP_WHOLE;
		bool drops = can_drop(v, s), end = is_end_of_doomed(v, s->mark_seq);
		if (drops)
			r = drop_list(v, s->mark_seq, &reads, &result);
		if (r < 0 || result == DROP_PART)
			break;
		if (result == DROP_UNREAD)
			note_unread(v);
		else if (drops)
			note_dropped(v, d, s, end);
		v->doomed_at++;
	}
	if (r == 0)
		merge_newest(v, &reads);
	return r;
}

void checkpoint_drop_add(const struct volume *v, const struct checkpoint_drops *d, struct checkpoint_drop_keys *keys, struct publication *p)
{
	for (unsigned i = 0; i < d->count; i++) {
		char *key = keys->snapshot[i], *note = keys->note[i];
		meta_key_snapshot(v->id, d->entries[i].mark_seq, key);
		meta_key_reap_snapshot(v->id, d->entries[i].mark_seq, note);
		catalog_txn_compare(&p->txn, key, d->entries[i].revision);
		catalog_txn_delete(&p->txn, key);
		catalog_txn_delete(&p->txn, note);
	}
	meta_key_reap(v->id, keys->whole);
	if (v->end_dropped)
		catalog_txn_put(&p->txn, keys->whole, "", 0);
}

/* Their lists are dealt with, their keys are still there: they are found again. */
void checkpoint_drop_failed(struct volume *v)
{
	doomed_free(&v->doomed);
	v->doomed_at = 0;
	v->doomed_unknown = true;
}
