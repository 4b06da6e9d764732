/* ro(child): the child, but nothing above can write. Promises that no write, discard or zero
 * reaches the child: the core refuses them with -EROFS because info.read_only is set, and the
 * graph opens the child read only, so that its file is not even opened for writing. */
#include "agent/components/pass.h"
#include "core/drivers.h"

static int ro_open(struct blk_node *node, const struct blk_open *how, struct report *report)
{
	(void)how;
	(void)report;
	node->info.read_only = true;
	node->info.can_discard = node->info.can_zero = false;
	return 0;
}

/* ro_submit ─▶ ro_finish */
struct ro_frame {
	struct job job;
	struct blk_io *io, child_io;
};

static void ro_finish(struct job *job)
{
	struct ro_frame *f = container_of(job, struct ro_frame, job);
	struct blk_io *io = f->io;
	int status = job->status;
	blk_frame_put(io->node, f);
	blk_end(io, status);
}

static void ro_submit(struct blk_node *node, struct blk_io *io)
{
	struct ro_frame *f = blk_frame_get(node);
	job_init(&f->job, node->loop);
	f->io = io;
	f->child_io = pass_copy(io);
	blk_submit(node->child[0], &f->child_io, &f->job);
	job_then(&f->job, ro_finish);
}

const struct blk_driver driver_ro = {
	.name = "ro",
	.follows_size = true,
	.summary = "makes a node read only",
	.children_min = 1,
	.children_max = 1,
	.node_size = sizeof(struct blk_node),
	.frame_size = sizeof(struct ro_frame),
	.open = ro_open,
	.submit = ro_submit,
};
