/* Who has an image open: one writer, or any number of readers. */
#ifndef AQ_IMAGE_LOCK_H
#define AQ_IMAGE_LOCK_H
#include "core/env.h"

/* The lock itself lives with the open image file and dies with the process; this is the note that tells others who
 * has it. */
struct image_lock {
	struct file *note; /* NULL: nobody could be told */
	char path[512];
};

struct image_lock_who {
	const char *holder; /* a line about who opens */
	uint64_t pid;       /* the tapdisk that does; 0: another program, which nobody's --force ends */
	bool force;         /* end tapdisks that have it */
};

/* FIBER. Locks `image` (opened from `path`) for one writer or shared by readers. -EBUSY with a report that names the
 * holder. `root` is AQUIFER_ROOT. */
int image_lock_take(struct env *env, const char *root, struct file *image, const char *path, bool exclusive,
		    const struct image_lock_who *who, struct image_lock *ret_lock, struct report *report);
/* FIBER. Withdraws the note; the lock goes with file_close() of the image. Harmless on a zeroed or released one. */
void image_lock_release(struct env *env, struct image_lock *lock);
#endif
