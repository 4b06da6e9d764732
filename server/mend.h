/* Mending a server's own copies with what others have: the one place where that is done, whoever found the damage (scrub.h). Nobody
 * is trusted: what is bad is known by the copy's own checksums, and so is what takes its place, before and after it is written. */
#ifndef AQ_MEND_H
#define AQ_MEND_H
#include "parallax/catalog/catalog.h"
#include "parallax/segment/segment_scrub.h"

struct mender {
	struct env *env;
	struct catalog *catalog;
	struct segment_server *dir;
	struct copies *copies; /* NULL: nothing was mended lately */
};

/* FIBER. The block that is bad by segment_dir_scrub() or segment_dir_look(), from whoever has it right. 0; -ENODATA: it is free by now; -EIO: no other copy
 * has it; other: it can't be written. */
int mend_block(struct mender *m, uint64_t segment, const struct scrub_slice *bad);
/* FIBER. Gives the copy up, if somebody else has a sealed, whole one, which then takes its place (keeper.h). False: it stays. `why`: as segment_dir_scrub()
 * said: after -EBADMSG it counts for nothing from now on; after -EIO that isn't written into it, as by now the disk may have it again. */
bool mend_copy(struct mender *m, uint64_t segment, int why);
void mend_rest(struct mender *m); /* FIBER. Nothing is to be mended for a while: lets the others go. */
#endif
