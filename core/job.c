#include "core/job.h"

void loop_init(struct loop *loop, struct env *env)
{
	*loop = (struct loop){ .env = env };
	link_init(&loop->ready);
}

static struct link *loop_pick(struct loop *loop)
{
	struct link *pick = loop->ready.next;
	if (loop->shuffle_state == 0)
		return pick;
	loop->shuffle_state ^= loop->shuffle_state << 13;
	loop->shuffle_state ^= loop->shuffle_state >> 7;
	loop->shuffle_state ^= loop->shuffle_state << 17;
	for (uint64_t n = loop->shuffle_state % 4; n > 0; n--)
		pick = pick->next == &loop->ready ? loop->ready.next : pick->next;
	return pick;
}

bool loop_run_one(struct loop *loop)
{
	if (link_empty(&loop->ready))
		return false;
	struct job *j = container_of(loop_pick(loop), struct job, link);
	link_drop(&j->link);
	j->pending = 1;
	loop->steps++;
	j->step(j);
	return true;
}

unsigned loop_run_ready(struct loop *loop)
{
	unsigned ran = 0;
	while (loop_run_one(loop))
		ran++;
	return ran;
}
