/* A run of bytes too long for one block, in the log: its blocks, then blocks of pointers to them, level by
 * level, as in the tree. The space table is kept so; nothing is counted of its blocks (space.h). */
#ifndef AQ_BLOB_H
#define AQ_BLOB_H
#include "parallax/catalog/meta.h"
#include "parallax/copies/sources.h"

#define BLOB_BYTES_MAX (UINT64_C(256) << 20) /* nobody reads a longer one */

struct volume;
struct log_append;
/* FIBER. `bytes` is padded to whole blocks and page aligned. `then` (may be NULL) is appended right behind it, without waiting in between: when it is placed
 * `*ret_root` is what it will be. */
int blob_write(struct volume *v, const void *bytes, size_t length, struct log_append *then, struct meta_root *ret_root);
/* FIBER. malloc'd, page aligned; -EUCLEAN if `root` makes no sense. */
int blob_read(struct sources *s, const struct meta_root *root, uint8_t **ret_bytes);
/* FIBER. The records it was written in: where each begins, and how long it is, with its header. */
int blob_records(struct sources *s, const struct meta_root *root, void (*record)(void *arg, uint64_t position, uint32_t blocks),
		 void *arg);
#endif
