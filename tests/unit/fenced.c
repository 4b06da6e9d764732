/* An owner who was paused, and whose volume another one has by now, goes on with what he was about to do. */
#include <criterion/criterion.h>
#include <errno.h>

#include "tests/unit/clustertest.h"

static int io_body(void *arg)
{
	struct one_server *s = arg;
	return segment_wait(s->dir, &s->rig->io);
}

static int ask(struct cluster_rig *c, unsigned server, enum segment_op op, uint64_t segment, uint64_t epoch)
{
	c->io = (struct segment_io){ .op = op, .segment = segment, .epoch = epoch };
	return sim_run_fiber(c->servers[server].env, io_body, &c->servers[server]);
}

/* It was to be made anew there: by now the next owner may have done that, and counts on it. */
Test(fenced, what_the_next_owner_has_is_not_deleted)
{
	struct cluster_rig *c = cluster_make();
	const struct log_segment *g = container_of(c->g.volume->log.segments.next, struct log_segment, link);
	uint64_t segment = g->meta.id, epoch = c->g.volume->epoch;
	volume_rig_kill(&c->g);
	volume_rig_begin(&c->g);
	cluster_open(c);
	for (unsigned i = 0; i < SERVERS; i++)
		cr_assert_eq(ask(c, i, SEGMENT_DELETE, segment, epoch), -EPERM);
	cr_assert_eq(volume_rig_run(&c->g, cluster_read), 0);
	for (unsigned i = 0; i < SERVERS; i++)
		cr_assert_eq(ask(c, i, SEGMENT_DELETE, segment, c->g.volume->epoch), 0);
	cluster_free(c);
}

/* Nor is it forgotten who may make it there. */
Test(fenced, nor_is_a_fence_where_no_copy_is)
{
	struct cluster_rig *c = cluster_make();
	cr_assert_eq(ask(c, 0, SEGMENT_FENCE, 999, 7), 0);
	cr_assert_eq(ask(c, 0, SEGMENT_DELETE, 999, 6), -EPERM);
	cr_assert_eq(ask(c, 0, SEGMENT_FENCE, 999, 6), -EPERM);
	cr_assert_eq(ask(c, 0, SEGMENT_DELETE, 999, 0), 0, "its server asked the catalog");
	cr_assert_eq(ask(c, 0, SEGMENT_FENCE, 999, 6), 0);
	cluster_free(c);
}
