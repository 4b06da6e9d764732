/* A tapdisk that is told to end and waits for a server or a disk that isn't there ends all the same, after a while:
 *
 *                                   it is hopeless    otherwise
 *     one SIGTERM                   10 s              60 s
 *     a second one, detach --force  1.5 s             8 s
 *
 * Hopeless: a node says what its trouble is; or all is flushed, and only closing takes long; or a volume has requests
 * under way of which none has ended in the last STUCK_NS. Of other nodes that proves nothing: a disk may take long for a flush, and what
 * a copy-on-write layer has not flushed would be lost.
 *
 * That is safe in the way that kill -9 is: a volume keeps all that was acknowledged, and the next attach recovers it. A device
 * that is in use and not taken away by force stops the clock; so does an ordinary detach, which waits as long as it takes. */
#include <string.h>
#include <unistd.h>

#include "agent/daemon/log.h"
#include "agent/daemon/tapdisk.h"

#define LOOK_NS (100 * NS_PER_MS)
#define STUCK_NS (3 * NS_PER_S / 2)

static uint64_t patience_ns(const struct tapdisk *t, bool hopeless)
{
	if (t->end_forced)
		return hopeless ? STUCK_NS : 8 * NS_PER_S;
	return (hopeless ? 10 : 60) * NS_PER_S;
}

struct work {
	uint64_t ended_ns; /* grows with each request that ends */
	uint64_t in_flight;
};

static void add_work(void *arg, struct blk_node *node, const char *args)
{
	struct work *w = arg;
	(void)args;
	if (strcmp(node->driver->name, "volume") != 0)
		return;
	for (int op = 0; op < BLK_OP_COUNT; op++)
		w->ended_ns += node->counters.busy_ns[op];
	w->in_flight += node->counters.in_flight;
}

static bool is_stuck(struct tapdisk *t)
{
	struct work w = { 0 };
	uint64_t now = env_now_ns(t->env);
	if (t->graph)
		graph_walk(t->graph, add_work, &w);
	if (w.in_flight == 0 || w.ended_ns != t->end_work_ns)
		t->end_moved_ns = now;
	t->end_work_ns = w.ended_ns;
	return now - t->end_moved_ns >= STUCK_NS;
}

static void give_up(const char *why)
{
	log_line("ended without waiting any longer%s%s; a volume keeps all that was acknowledged, the next attach recovers it", why[0] ? ": " : "", why);
	_exit(1);
}

static void look(struct job *j)
{
	struct tapdisk *t = container_of(j, struct tapdisk, ending);
	char why[sizeof t->trouble];
	if (t->end_since_ns == 0) {
		t->end_looks = false;
		fiber_cond_wake(&t->end);
		return;
	}
	tapdisk_trouble(t, why, sizeof why);
	bool stuck = is_stuck(t);
	if (stuck && !why[0])
		strcpy(why, "the volume's requests don't end");
	if (env_now_ns(t->env) - t->end_since_ns >= patience_ns(t, why[0] || t->flushed))
		give_up(why);
	timer_start(t->env, &t->end_timer, LOOK_NS, j);
	job_then(j, look);
}

void tapdisk_end_begin(struct tapdisk *t, bool forced)
{
	if (t->end_since_ns == 0 || (forced && !t->end_forced))
		t->end_since_ns = env_now_ns(t->env);
	t->end_forced |= forced;
	if (t->end_looks)
		return;
	t->end_looks = true;
	t->end_moved_ns = env_now_ns(t->env);
	timer_init(&t->end_timer);
	job_init(&t->ending, &t->env->loop);
	timer_start(t->env, &t->end_timer, LOOK_NS, &t->ending);
	job_then(&t->ending, look);
}

void tapdisk_end_over(struct tapdisk *t)
{
	t->end_since_ns = 0;
	t->end_forced = false;
	if (t->end_looks)
		timer_cancel(t->env, &t->end_timer);
}

void tapdisk_end_stop(struct tapdisk *t)
{
	tapdisk_end_over(t);
	while (t->end_looks)
		fiber_cond_wait(&t->env->loop, &t->end);
}
