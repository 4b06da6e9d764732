#include "agent/exports/nbd_unread.h"

#include "core/bytes.h"

void nbd_unread_init(struct nbd_unread *u)
{
	link_init(&u->answers);
	timer_init(&u->timer);
}

static const struct nbd_answer *oldest(const struct nbd_unread *u) { return container_of(u->answers.next, struct nbd_answer, link); }

static bool progress(const struct nbd_unread *u)
{
	return oldest(u)->number > u->mark_count || u->taken_bytes + oldest(u)->send.sent >= u->mark_bytes + NBD_TAKES_BYTES;
}

static void mark(struct nbd_unread *u)
{
	u->mark_ns = env_now_ns(u->env);
	u->mark_count = u->count;
	u->mark_bytes = u->taken_bytes + oldest(u)->send.sent;
}

static void look(struct job *job);

static void look_later(struct nbd_unread *u)
{
	job_init(&u->job, u->over->loop);
	timer_start(u->env, &u->timer, NBD_LOOK_NS, &u->job);
	job_then(&u->job, look);
}

static void look(struct job *job)
{
	struct nbd_unread *u = container_of(job, struct nbd_unread, job);
	if (job->status < 0 || link_empty(&u->answers)) {
		u->looks = false;
		job_put(u->over, 0);
		return;
	}
	if (progress(u))
		mark(u);
	uint64_t for_ns = env_now_ns(u->env) - u->mark_ns;
	if (!u->told && for_ns >= NBD_STALLED_NS && u->wanted(u)) {
		u->told = true;
		u->stalled(u, for_ns);
	}
	look_later(u);
}

void nbd_unread_add(struct nbd_unread *u, struct nbd_answer *a)
{
	a->number = ++u->count;
	link_push(&u->answers, &a->link);
	if (u->looks)
		return;
	u->looks = true;
	mark(u);
	job_hold(u->over);
	look_later(u);
}

void nbd_unread_taken(struct nbd_unread *u, struct nbd_answer *a)
{
	link_drop(&a->link);
	u->taken_bytes += a->send.sent;
}

bool nbd_unread_stands(const struct nbd_unread *u)
{
	return !link_empty(&u->answers) && !progress(u) && env_now_ns(u->env) - u->mark_ns >= NBD_STALLED_NS / 2;
}

void nbd_unread_stop(struct nbd_unread *u) { timer_cancel(u->env, &u->timer); }
