/* Requests that are given up because what they need can't be reached: see volume_io_timeout_ns().
 *
 *   queued   it leaves the queue, and never was
 *   flying   its record is at some servers, acknowledged by too few. The mender will cut the segment before it, so nothing that
 *            flies counts; once nobody reads the buffers any more all of it is taken back, what wasn't given up goes
 *            to the front of the queue, and gets new numbers. Should this process die first, the next owner may find it, as
 *            it may find any write that wasn't answered.
 *   applying it is acknowledged, so it will be in the map, after what came before and before what comes next
 *
 * A flush that is given up has no effect: segments stay unsynced until a sync of them succeeded. */
#include <errno.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/volume/volume_private.h"

/* Nothing of it was acknowledged (R2), as in log_withdraw(), but it isn't given up. */
void log_take_back(struct volume *v)
{
	struct log *l = &v->log;
	struct link writes, appends;
	link_init(&writes);
	link_init(&appends);
	for (struct link *k; (k = link_pop(&l->flying));) {
		struct log_record *r = container_of(k, struct log_record, link);
		for (struct link *w; (w = link_pop(&r->writes));) {
			container_of(w, struct volume_write, link)->record = NULL;
			link_push(&writes, w);
			l->queued++;
		}
		if (r->append)
			link_push(&appends, &r->append->link);
		r->append = NULL;
		link_push(&l->idle, &r->link);
	}
	link_splice(&writes, &l->writes);
	link_splice(&l->writes, &writes);
	link_splice(&appends, &l->appends);
	link_splice(&l->appends, &appends);
	l->flying_count = l->flying_writes = 0;
	l->next_seq = l->acked_seq + 1;
	l->last_crc = l->acked_crc;
}

bool volume_write_expire(struct volume *v, struct volume_write *w)
{
	struct log *l = &v->log;
	if (!w->busy)
		return true;
	if (w->record && !w->record->acked) {
		if (!l->mending_quiet || v->failed)
			return false;
		log_take_back(v);
	}
	if (w->record)
		l->expired_seq = MAX(l->expired_seq, w->seq);
	else
		l->queued--;
	link_drop(&w->link);
	w->busy = false;
	job_put(w->parent, PLANTED(expire_acknowledged) ? 0 : -EIO);
	return true;
}

void volume_flush_expire(struct volume *v, struct volume_flush *f)
{
	(void)v;
	if (link_empty(&f->link))
		return;
	link_drop(&f->link);
	job_put(f->parent, -EIO);
}

bool volume_expired_lands(const struct volume *v) { return !v->failed && v->applied_seq < v->log.expired_seq; }
