/* Small files of text that are read and replaced as a whole: configuration, certificates, passwords. */
#ifndef AQ_TEXTFILE_H
#define AQ_TEXTFILE_H
#include "core/env.h"

/* FIBER. Its content and a NUL, malloc'd, the caller's; its length in bytes where `ret_length` isn't NULL. -EFBIG: more than `most` bytes;
 * other errors as file_open() and file_read_wait() have them. What was read of it when that fails is wiped. */
int textfile_read(struct env *env, const char *path, size_t most, char **ret_text, size_t *ret_length);
/* FIBER. Durable, and the old or the new one at any time; for its owner only (mode 0600). Uses PATH.part. */
int textfile_replace(struct env *env, const char *path, const char *text);
#endif
