/* A function of the test's stands between a segment server and whoever asks it: it sees each operation, and hands it on or answers it. */
#ifndef AQ_BETWEEN_H
#define AQ_BETWEEN_H
#include "parallax/segment/segment.h"

typedef void between_submit(struct segment_server *s, struct segment_io *io);

/* The same function for all servers that have one, which are of one kind. */
void between(struct segment_server *s, between_submit *submit); /* NULL: nothing stands there any more */
void between_pass(struct segment_server *s, struct segment_io *io);
void between_answer(struct segment_io *io, int status);
#endif
