/* Reading another process' data directory: for clones and readers of an embedded volume's snapshots. Takes
 * no lock and changes nothing; the pointer's checksum decides whether what was read is right. STAT tells what a copy's file says of
 * itself: of one that isn't sealed no length (0), and that it is doubtful, because only its owner knows. */
#ifndef AQ_SEGMENT_READER_H
#define AQ_SEGMENT_READER_H
#include "parallax/segment/segment.h"

/* FIBER. `path`: the data directory; it need not exist yet (reads fail with -ENOENT). */
/* Files kept open, by segment: WAYS for each remainder. What is read at random stays open up to 64 GiB, because opening costs
 * more than a read. */
enum { SEGMENT_READER_SETS = 128, SEGMENT_READER_WAYS = 8 };

int segment_reader_open(struct env *env, const char *path, struct segment_server **ret_server);
#endif
