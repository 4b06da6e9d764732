#include "proto/door.h"

#include <errno.h>
#include <stdlib.h>

#include "core/fiber.h"
#include "core/strangers.h"

struct door {
	struct env *env;
	unsigned roles, count;
	void (*admit)(void *arg, struct tls *tls);
	void *arg;
	struct strangers strangers; /* visitors that weren't sent away */
	struct link visitors;
	bool closing;
	struct fiber_cond left;
};

struct visitor {
	struct link link;
	struct stranger stranger;
	struct door *door;
	struct tls *tls;
	struct job job;
};

struct door *door_new(struct env *env, unsigned roles, void (*admit)(void *arg, struct tls *tls), void *arg)
{
	struct door *d = calloc(1, sizeof *d);
	if (!d)
		return NULL;
	*d = (struct door){ .env = env, .roles = roles, .admit = admit, .arg = arg };
	link_init(&d->visitors);
	strangers_init(&d->strangers);
	fiber_cond_init(&d->left);
	return d;
}

static void visitor_done(struct job *j)
{
	struct visitor *v = container_of(j, struct visitor, job);
	struct door *d = v->door;
	link_drop(&v->link);
	strangers_leave(&d->strangers, &v->stranger);
	d->count--;
	/* revoked while he stood here? */
	bool good = j->status == 0 && !d->closing && d->env->identity && !identity_is_revoked(d->env->identity, &v->tls->peer);
	if (good)
		d->admit(d->arg, v->tls);
	else
		tls_close(v->tls);
	free(v);
	fiber_cond_wake(&d->left);
}

int door_enter(struct door *d, struct stream *stream)
{
	struct visitor *v = NULL;
	int r = d->closing ? -ESHUTDOWN : d->env->identity ? 0 : -EACCES;
	if (r == 0 && !(v = malloc(sizeof *v)))
		r = -ENOMEM;
	if (r == 0)
		r = tls_create(d->env, d->env->identity, stream, /* client= */ false, d->roles, &v->tls);
	if (r < 0) {
		free(v);
		stream_close(stream);
		return r;
	}
	v->door = d;
	link_push(&d->visitors, &v->link);
	strangers_enter(&d->strangers, &v->stranger, stream);
	if (d->count++ >= DOOR_MAX) {
		struct stranger *out = strangers_excess(&d->strangers);
		tls_shutdown(container_of(out, struct visitor, stranger)->tls);
		strangers_leave(&d->strangers, out); /* it is gone in a moment */
	}
	job_init(&v->job, &d->env->loop);
	tls_handshake(v->tls, DOOR_NS, &v->job);
	job_then(&v->job, visitor_done);
	return 0;
}

unsigned door_count(const struct door *d) { return d->count; }

void door_close(struct door *d)
{
	if (!d)
		return;
	d->closing = true;
	link_for(l, &d->visitors)
		tls_shutdown(container_of(l, struct visitor, link)->tls);
	while (d->count > 0)
		fiber_cond_wait(&d->env->loop, &d->left);
	free(d);
}
