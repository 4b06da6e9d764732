/* A catalog as a whole: copied into another engine, into a file and back. For `aquifer cluster` only; nobody may use either catalog
 * meanwhile, which the marks here see to:
 *
 *   store/moved      "moving URL" or "moved URL": nobody opens this catalog any more
 *   store/incoming   the URL it is being filled from: nobody opens it yet
 *   store/restored   when it was restored from a backup: nothing is condemned (R31) until an operator says so
 *   store/recover    "wanted N" or "done N M": what was written since the backup is still to be looked for, and nobody opens a volume; or that was done
 *                    (store_recover.h). N: the greatest number that a volume had at the time of the backup; M: when it was done for the first time
 *   store/recover/V  why volume V could not be recovered: nobody opens it until it was, or until that is confirmed
 *
 * All functions are FIBER; 0 or -errno with a report. */
#ifndef AQ_CATALOG_COPY_H
#define AQ_CATALOG_COPY_H
#include "parallax/catalog/catalog.h"

#define STORE_MOVED "store/moved"
#define STORE_INCOMING "store/incoming"
#define STORE_RESTORED "store/restored"
#define STORE_RECOVER "store/recover"

/* All of a catalog but the marks and what is there with a lease, in order of keys. */
struct catalog_image {
	struct catalog_image_key {
		char *key;
		uint8_t *bytes;
		size_t length;
	} *keys;
	size_t count;
};
void catalog_image_free(struct catalog_image *i);
int catalog_image_read(struct catalog *c, struct catalog_image *ret, struct report *report);
int catalog_image_add(struct catalog_image *i, const char *key, const void *bytes, size_t length);
bool catalog_image_equal(const struct catalog_image *a, const struct catalog_image *b);
/* Into a catalog that has none of the keys. */
int catalog_image_write(struct catalog *c, const struct catalog_image *i, struct report *report);
/* Deletes what is there, but the marks. */
int catalog_image_erase(struct catalog *c, struct report *report);

/* As a file: lines of JSON, a header first, a count and a checksum last (docs/formats/catalog.md). encode: malloc'd; NULL: out of memory.
 * decode: -EUCLEAN with a report that says what is wrong with it; bytes are hostile. */
char *catalog_image_encode(const struct catalog_image *i, uint64_t now_ns, size_t *ret_length);
int catalog_image_decode(const char *text, size_t length, struct catalog_image *ret, struct report *report);

/* By how much: far more than can be used up between a backup and its restoration, and few enough of them in the numbers there are (segment ids have 48 bits). */
#define CATALOG_RAISE (UINT64_C(1) << 32)
/* R5: after a backup was restored, everything that was given away since then must be below what is given from now on. Counters
 * and epochs go up by more than can have been used; owners are free. */
int catalog_image_raise(struct catalog_image *i, struct report *report);

/* The numbers of volumes that have been made since the backup, until they were looked for for the first time: greater than `after`, and none greater than `upto`. */
struct catalog_since {
	uint64_t after, upto;
};

/* A backup was restored, and raised, `when`. */
int catalog_mark_restored(struct catalog *c, const struct catalog_image *i, const char *when, struct report *report);
/* Is what was written since the backup still to be looked for? 1, 0 or -errno; `ret` may be NULL. -ENOENT: nothing was restored. */
int catalog_recover_wanted(struct catalog *c, struct catalog_since *ret);
/* The same of one volume (by number), which may have been left when it was done. */
int catalog_recover_wanted_of(struct catalog *c, uint64_t volume);
/* It could not be recovered, `why`; NULL: it was. */
int catalog_mark_left(struct catalog *c, uint64_t volume, const char *why, struct report *report);
/* It was done; of `all` volumes. */
int catalog_mark_recovered(struct catalog *c, const struct catalog_since *since, bool all, struct report *report);
/* Is something still to be looked for, or couldn't a volume be recovered? Then what was deleted may be what that began as: nothing of it is freed. 1, 0 or -errno. */
int catalog_recover_unfinished(struct catalog *c);
/* Nothing more will be looked for, and what the catalog doesn't know may be deleted. */
int catalog_mark_confirmed(struct catalog *c, struct report *report);

/* A mark: bytes NULL deletes it. Repeated until the outcome is known. */
int catalog_mark(struct catalog *c, const char *key, const char *text, struct report *report);
/* The mark's text, or "" */
int catalog_mark_read(struct catalog *c, const char *key, char *ret_text, size_t bytes, struct report *report);
/* What catalog_open() refuses: a catalog that moved away, or isn't filled yet. By the marks as they were read; and read now. */
enum { CATALOG_MARKS = 2 };
void catalog_marks_wanted(struct catalog_want ret_wants[CATALOG_MARKS]);
int catalog_marks_judge(const struct catalog_want marks[CATALOG_MARKS], const char *url, struct report *report);
int catalog_marks_allow(struct catalog *c, const char *url, struct report *report);
#endif
