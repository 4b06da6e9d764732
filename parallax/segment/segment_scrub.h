/* Reading copies again, and comparing them with their footers: what the disk has lost is found before it is needed, or when a reader
 * found it, and mended from another server's copy. A slice at a time, so that who scrubs can be slow and hold up nobody. */
#ifndef AQ_SEGMENT_SCRUB_H
#define AQ_SEGMENT_SCRUB_H
#include "parallax/segment/segment.h"

enum { SCRUB_SLICE_BLOCKS = 256 };

struct scrub_slice {
	uuid volume;         /* whose segment it is */
	uint32_t next;       /* go on from here; 0: that was all of it */
	uint32_t blocks;     /* were read and are right */
	bool bad;            /* then one isn't, or can't be read: */
	uint32_t bad_block, bad_crc; /* what it should be */
};

/* FIBER. The blocks from `from` on that aren't free, at most SCRUB_SLICE_BLOCKS, up to the first that is bad. `only`: if it is that volume's; NULL: anybody's. 0; -ENOENT: there is no
 * copy, or it isn't sealed; -EXDEV: it is another volume's, and nothing of it was read; -EBADMSG: its footer, or the map of a packed one, is damaged or can't be read; -EIO: the disk can't read what
 * it is; other: not now. */
int segment_dir_scrub(struct segment_server *dir, uint64_t segment, uint32_t from, const uuid *only, struct scrub_slice *ret);
/* FIBER. The same of the blocks from `from` up to `end`, and also of a copy that isn't sealed, if its server took all of its appends, or has
 * read it since and found it whole; or was restarted, and hasn't: then its records' headers say what should be there. */
int segment_dir_look(struct segment_server *dir, uint64_t segment, uint32_t from, uint32_t end, struct scrub_slice *ret);
/* FIBER. Writes the block that `page` (aligned) is known to be, in its place; durable, and read back. -EBADMSG: that isn't it, or it
 * reads back wrong. -ENODATA: it is free by now. As segment_dir_look(), also of a copy that isn't sealed: a block's content never
 * changes, so nobody who appends or reads notices. */
int segment_dir_mend(struct segment_server *dir, uint64_t segment, uint32_t block, const void *page);
/* FIBER. Nothing of the copy can be trusted: it is broken from now on, and is replaced when the map says that it belongs there. */
int segment_dir_give_up(struct segment_server *dir, uint64_t segment);
/* Who mends is told what the directory itself finds damaged, or can't read, while it copies blocks of sealed copies: to pack them, or for another server. `found`
 * never suspends; NULL: nobody is told any more. */
void segment_dir_on_damage(struct segment_server *dir, void (*found)(void *arg, uint64_t segment, uint32_t block, uint32_t blocks), void *arg);
/* FIBER. As the first, of a directory that another process may have open; nothing can be mended there. */
int segment_path_scrub(struct env *env, const char *path, uint64_t segment, uint32_t from, struct scrub_slice *ret);
#endif
