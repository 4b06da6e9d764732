/* What a disk may answer: every 512-byte sector's possible values under concurrency, crashes and
 * power losses (linearizability per sector, and P1 across them).
 *
 * Each write has an id and fills its sectors with it, so what is read names the write it came from. Times are
 * the oracle's own: each call is one tick. */
#ifndef AQ_ORACLE_H
#define AQ_ORACLE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ORACLE_SECTOR = 512 };

struct oracle;
struct oracle *oracle_create(uint32_t sectors);
void oracle_destroy(struct oracle *o);
uint32_t oracle_sectors(const struct oracle *o);

/* A write (or, with `zero`, anything after which the range reads as zeroes) begins; fills `ret_bytes` (NULL with zero). Returns its id. */
uint64_t oracle_write_begin(struct oracle *o, uint32_t first, uint32_t count, bool zero, void *ret_bytes);
void oracle_write_end(struct oracle *o, uint64_t id, bool acked, bool durable);
/* It has just begun, and must not show, ever: somebody else has the disk. It needn't end. */
void oracle_write_never(struct oracle *o, uint64_t id);
/* A flush (a snapshot …) that began at `began` has succeeded. */
uint64_t oracle_now(struct oracle *o);
void oracle_flushed(struct oracle *o, uint64_t began);

/* Was it right to read this, by a read that began at `began` and ends now? NULL, or what is wrong (static text). */
const char *oracle_read(struct oracle *o, uint32_t first, uint32_t count, const void *bytes, uint64_t began);

/* All that is under way ends without an answer. With `power`, what wasn't durable may be gone. */
void oracle_crash(struct oracle *o, bool power);
/* A server lost power under a living volume: what wasn't durable may be gone once the volume is opened anew. */
void oracle_crash_server(struct oracle *o);
/* The whole disk, as found after a crash: checks it, also that it is a prefix, and goes on from there: what was seen
 * must stay. NULL or what is wrong. */
const char *oracle_recovered(struct oracle *o, const void *bytes);
/* A write of a paused owner that is answered although the volume was recovered meanwhile: may it be (P2: only if what was
 * recovered shows it, or something that came after it)? */
bool oracle_late_ack(const struct oracle *o, uint64_t id);
/* The disk is this now, whatever it was (a rollback). */
void oracle_assume(struct oracle *o, const void *bytes);
/* The whole disk as a snapshot taken between `began` and `ended` shows it: NULL or what is wrong. */
const char *oracle_snapshot(struct oracle *o, const void *bytes, uint64_t began, uint64_t ended);
#endif
