/* Taking an embedded volume from who has it (parallax/volume/volume_acquire.c, --force), with a holder that can be ended. */
#include <criterion/criterion.h>
#include <errno.h>

#include "core/fiber.h"
#include "tests/unit/volumetest.h"

static struct {
	struct volume_rig *rig;
	struct volume *held;  /* by a command that maintains it, */
	uint64_t for_ns;      /* for so long; then it closes it */
	unsigned evicted;
} holder;

static int close_held(void *arg)
{
	(void)arg;
	fiber_sleep(&holder.rig->env->loop, holder.for_ns);
	struct volume *v = holder.held;
	holder.held = NULL;
	return v ? volume_close(v) : 0;
}

static int evict(void *arg, const struct meta_owner *owner, struct report *report)
{
	(void)arg;
	(void)report;
	cr_assert_str_eq(owner->holder, VOLUME_MAINTENANCE);
	struct volume *v = holder.held;
	holder.held = NULL;
	holder.evicted++;
	return v ? volume_close(v) : 0;
}

static int body_force(void *arg)
{
	struct volume_rig *g = arg;
	struct volume *v;
	uint64_t id;
	struct job closed;
	cr_assert_eq(store_find_volume(&g->places, "v", &id, &g->report), 0);
	g->places.ops.evict = evict;
	cr_assert_eq(store_maintain(&g->places, id, &holder.held, &g->report), 0, "%s", g->report.text);
	job_init(&closed, &g->env->loop);
	job_hold(&closed);
	cr_assert_eq(fiber_start(&g->env->loop, close_held, NULL, &closed), 0);
	struct volume_open how = { .catalog = g->places.catalog, .places = &g->places.ops, .volume = id, .holder = "test", .force = true };
	cr_assert_eq(volume_open(g->env, &how, &v, &g->report), 0, "%s", g->report.text);
	cr_assert_eq(volume_close(v), 0);
	return fiber_wait(&closed);
}

/* How often is the holder ended? */
static unsigned force_after(uint64_t for_ns)
{
	struct volume_rig *g = volume_rig_make(1, 4 << 20);
	holder.rig = g;
	holder.for_ns = for_ns;
	holder.evicted = 0;
	cr_assert_eq(volume_rig_run(g, body_force), 0);
	cr_assert_eq(volume_rig_open(g), 0, "%s", g->report.text);
	volume_rig_free(g);
	return holder.evicted;
}

/* It is about to end by itself, and has something to end. */
Test(volume_force, a_command_that_maintains_the_volume_is_waited_for) { cr_assert_eq(force_after(NS_PER_S), 0); }

Test(volume_force, but_not_for_ever) { cr_assert_eq(force_after(3600 * NS_PER_S), 1); }
