/* What an owner publishes last: nothing is listed, so that the next one has nothing to fence or replay, and the volume is free, or offered.
 *
 * Where it is offered somebody waits: that goes into the transaction of the last checkpoint, and the log lists one empty segment, made
 * beforehand with the epoch that whoever acquires it next will have. He goes on in that, and has nothing to create or to list first. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/plant.h"
#include "parallax/volume/volume_private.h"

#define CLEAR_OUT_NS (50 * NS_PER_MS)
#define TRIM_NS (2 * NS_PER_S)    /* what can't be trimmed and packed until then is left to the next opener */

enum { OFFER_EPOCHS = 2 };        /* offered, and acquired */
enum { DELETES = 256 };

bool volume_gives_up(const struct volume *v) { return v->close_by_ns && env_now_ns(v->env) > v->close_by_ns; }

/* ---- a segment for the next owner ---- */

int volume_ready_next(struct volume *v)
{
	int r = 0;
	fiber_mutex_lock(&v->env->loop, &v->creating); /* ids are given in order */
	if (!v->meta.embedded && !v->next.id && !v->failed)
		r = log_create_next(v, v->epoch + OFFER_EPOCHS, &v->next);
	fiber_mutex_unlock(&v->creating);
	return r;
}

/* It isn't listed when others were in the meantime: ids only grow (R1). */
static void drop_next(struct volume *v)
{
	bool listed = v->meta.segment_count && v->meta.segments[0].id == v->next.id;
	if (v->next.id && !listed)
		copies_delete(v->copies, v->next.id, v->epoch + OFFER_EPOCHS);
	v->next.id = 0;
}

/* ---- the last transaction ---- */

static void offer_to(struct meta_owner *o, const struct volume_offer *to)
{
	o->state = OWNER_OFFERED;
	o->epoch++;
	o->stamp = to->id;
	o->pid = to->pid;
	o->boot[0] = '\0';
	o->pids = o->began_ticks = 0;
	snprintf(o->holder, sizeof o->holder, "%s", to->holder ? to->holder : "");
	snprintf(o->control, sizeof o->control, "%s", to->control ? to->control : "");
	snprintf(o->host, sizeof o->host, "%s", to->host ? to->host : "");
}

static int closing_init(struct volume_closing *c, struct volume *v, const struct volume_offer *to)
{
	struct meta_owner owner = v->owner;
	*c = (struct volume_closing){ .to = to };
	owner.state = OWNER_FREE;
	owner.holder[0] = owner.control[0] = owner.host[0] = owner.boot[0] = '\0';
	owner.pid = owner.pids = owner.began_ticks = 0;
	if (to)
		offer_to(&owner, to);
	meta_key_owner(v->id, c->owner_key);
	c->owner = meta_owner_encode(&owner, &c->owner_bytes);
	return c->owner ? 0 : -ENOMEM;
}

/* A segment with records that the last table doesn't know, because the log went on in it after a failure, when the table was being
 * written: nobody would know of it once it isn't listed. */
static bool table_lacks(const struct volume *v, uint64_t table_last)
{
	link_for(l, &v->log.segments) {
		const struct log_segment *g = container_of(l, struct log_segment, link);
		if (g->acked > 1 && g->meta.id > table_last)
			return true;
	}
	return false;
}

bool volume_closing_fits(const struct volume *v, uint64_t table_last)
{
	return !v->dirty && !v->log.mending && v->log.synced_seq == v->log.next_seq - 1 && link_empty(&v->marks) && !table_lacks(v, table_last);
}

void volume_closing_add(struct volume_closing *c, struct publication *p)
{
	struct volume *v = p->volume;
	struct meta_log *log = &p->log;
	v->closing = true; /* nobody creates segments any more */
	link_for(l, &v->log.segments) {
		const struct log_segment *g = container_of(l, struct log_segment, link);
		if (g->acked > 1 && !g->cut)
			log_record_cut(log, g);
	}
	unsealed_let_go(v, log, UINT64_MAX);
	log->segment_count = 0;
	log->from_seq = v->log.acked_seq + 1;
	log->from_prev = v->log.acked_crc;
	log->from_position = position_make(log->last_id, 0xffff);
	if (c->to && v->next.id > log->last_id) {
		log->segments[log->segment_count++] = v->next;
		log->last_id = v->next.id;
		log->from_position = position_make(log->last_id, 1);
	}
	catalog_txn_put(&p->txn, c->owner_key, c->owner, c->owner_bytes);
}

static int publish_closed(struct volume *v, struct volume_closing *c)
{
	struct publication *p = malloc(sizeof *p);
	if (!p)
		return -ENOMEM;
	v->closing = true;
	publish_begin(v, p);
	volume_closing_add(c, p);
	int r = publish_commit(p);
	free(p);
	return r;
}

/* ---- afterwards ---- */

/* What was listed uncut: the used ones are sealed, so that they can be packed. Nobody knows of the others any more, unless a checkpoint came by. */
static void clear_out(struct volume *v)
{
	link_for(l, &v->log.segments) {
		const struct log_segment *g = container_of(l, struct log_segment, link);
		if (g->acked > 1 && !g->cut)
			log_seal(g);
		else if (g->acked <= 1)
			log_delete_segment(v, g->meta.id); /* after a kill right here the next opener does it, in an embedded volume */
	}
	drop_next(v);
	for (uint64_t until_ns = env_now_ns(v->env) + TRIM_NS; env_now_ns(v->env) < until_ns && checkpoint_delete_freed(v, DELETES);)
		;
}

/* What was given up may still be on its way into the map. */
static int await_applied(struct volume *v)
{
	while (!volume_gives_up(v) && volume_expired_lands(v) && fiber_sleep(&v->env->loop, NS_PER_MS) == 0)
		;
	return volume_expired_lands(v) ? -ETIMEDOUT : 0;
}

static bool needs_checkpoint(const struct volume *v, const struct volume_closing *c)
{
	return v->dirty || !link_empty(&v->marks) || v->checkpoint_wanted || table_lacks(v, v->table_last) || (v->reaping && checkpoint_reaps(v) && !c->to);
}

/* With all that was written published, and as far as that goes in the same transaction. */
static int close_within_checkpoint(struct volume *v, struct volume_closing *c)
{
	int r = 0;
	/* one that is under way has taken what is dirty, and isn't published yet */
	fiber_mutex_lock(&v->env->loop, &v->checkpointing);
	/* more than one: what the first one freed can be dropped by the second; of what was deleted and waits, the rest is noted in the catalog */
	for (unsigned i = 0; r == 0 && !c->done && i < 3 && needs_checkpoint(v, c); i++) {
		fiber_mutex_unlock(&v->checkpointing);
		r = checkpoint_closing(v, c->to ? c : NULL);
		fiber_mutex_lock(&v->env->loop, &v->checkpointing);
	}
	while (r == 0 && v->log.mending)
		fiber_sleep(&v->env->loop, NS_PER_MS);
	if (r == 0 && !c->done)
		r = v->failed ? v->failed : log_flush_wait(v);
	if (r == 0 && !c->done) {
		if (!c->to) /* somebody waits */
			trim_finish(v, env_now_ns(v->env) + TRIM_NS);
		r = publish_closed(v, c);
	}
	fiber_mutex_unlock(&v->checkpointing);
	return r;
}

int volume_close_cleanly(struct volume *v, const struct volume_offer *to)
{
	struct volume_closing c;
	int r = closing_init(&c, v, to);
	if (r == 0)
		r = await_applied(v);
	if (r == 0)
		r = close_within_checkpoint(v, &c);
	if (r == 0 && to && v->alive) /* who takes it has the servers to himself; without leases he waits for our lock */
		fiber_sleep(&v->env->loop, CLEAR_OUT_NS);
	if (r == 0)
		clear_out(v);
	free(c.owner);
	return r;
}
