/* Making and growing the file of a cow layer. */
#ifndef AQ_COW_FILE_H
#define AQ_COW_FILE_H
#include "core/blk.h"

/* FIBER. Makes the file if it is missing or empty, for a disk of `size` bytes (0: the parent's size) over that parent, or grows the disk
 * of an existing one to `size`, unless it isn't to be opened over this parent (see cow_header_fits()). A file that somebody else has open is left alone: opening it will say who.
 * 0 or -errno with a report. */
int cow_file_prepare(struct env *env, const char *path, uint64_t size, const struct blk_info *parent, bool rebase, struct report *report);
#endif
