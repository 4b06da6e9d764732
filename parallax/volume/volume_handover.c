#include "parallax/volume/volume_handover.h"

#include <errno.h>

#include "core/plant.h"

static void hold(struct volume_node *n)
{
	n->intake.held = true;
	n->intake.stuck = false;
	n->intake.since_ns = env_now_ns(n->node.env);
	while (n->intake.in_flight > 0 && !PLANTED(handover_no_drain))
		fiber_cond_wait(n->node.loop, &n->intake.changed);
}

static struct volume_frame *next_waiting(struct volume_node *n)
{
	struct link *l = link_pop(&n->intake.waiting);
	return l ? container_of(l, struct volume_frame, link) : NULL;
}

static void resume(struct volume_node *n)
{
	n->intake.held = n->intake.clean = false;
	for (struct volume_frame *f; (f = next_waiting(n));)
		volume_node_start(f);
}

void volume_handover_prepare(struct volume_node *n, uint64_t size_bytes, uint64_t io_timeout_ns)
{
	n->node.info.size = size_bytes;
	n->io_timeout_ns = io_timeout_ns;
	n->intake.since_ns = env_now_ns(n->node.env);
	n->intake.held = n->intake.clean = true;
}

int volume_handover_take(struct volume_node *n, const struct volume_open *how, struct report *report)
{
	struct volume *v;
	struct volume_open open = *how;
	if (!n->intake.next) /* the same for every attempt: one that failed half-way may have it */
		n->intake.next = env_random(n->node.env);
	open.former = n->intake.former;
	open.acquisition = n->intake.next;
	int r = volume_open(n->node.env, &open, &v, report);
	if (r < 0)
		return r;
	n->volume = v;
	n->intake.next = n->intake.former = 0;
	n->node.info.size = volume_size(v);
	n->intake.stuck = false;
	resume(n);
	return 0;
}

int volume_handover_deactivate(struct volume_node *n, const struct volume_offer *to, struct report *report)
{
	/* most of it while requests go on; what comes until they are held is little */
	int r = volume_checkpoint(n->volume);
	if (r < 0)
		return report_set(report, r, "what was written can't be published: %s", errno_text(r));
	volume_ready_next(n->volume);
	hold(n);
	struct volume *v = n->volume;
	n->io_timeout_ns = volume_io_timeout_ns(v);
	n->volume = NULL;
	n->intake.former = volume_acquisition(v);
	r = volume_close_offering(v, to);
	return r < 0 ? report_set(report, r, "it can't be offered: %s", errno_text(r)) : 0;
}

void volume_handover_leave(struct volume_node *n, int status)
{
	n->intake.gone = status;
	n->intake.held = n->intake.clean = false;
	for (struct volume_frame *f; (f = next_waiting(n));)
		volume_node_finish(f, status);
}
