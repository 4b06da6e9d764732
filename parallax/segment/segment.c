#include "parallax/segment/segment.h"

#include "core/fiber.h"

int segment_wait(struct segment_server *s, struct segment_io *io)
{
	struct job j;
	job_init(&j, &s->env->loop);
	segment_submit(s, io, &j);
	return fiber_wait(&j);
}

int segment_server_close(struct segment_server *s)
{
	return s ? s->ops->close(s) : 0;
}
