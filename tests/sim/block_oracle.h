/* What a block device may answer. Every sector written carries the id of its write, so what is
 * read says which write it is; the oracle knows which ones may be there:
 *
 *   - a read returns, for each sector, a write that had begun before the read ended and that no
 *     other write of the sector, begun after it ended, had replaced before the read began;
 *   - after a crash no write is there that one which was kept had replaced. Kept are: what
 *     completed before a flush began that completed, what was written with FUA, and, if the
 *     crash leaves acknowledged writes (a mere kill), everything that completed;
 *   - with `prefix` (P1): if a write is there, then so is everything that completed before it began;
 *   - a write that failed may be there or not.
 *
 * No I/O here, no time but the order of calls. */
#ifndef AQ_BLOCK_ORACLE_H
#define AQ_BLOCK_ORACLE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ORACLE_SECTOR 512u

struct block_oracle;

/* A device of zeroes, or of the base content (what block_oracle_fill() makes of id 1). */
struct block_oracle *block_oracle_create(uint64_t sectors, bool base_content);
void block_oracle_free(struct block_oracle *o);
struct block_oracle *block_oracle_copy(const struct block_oracle *o); /* for snapshots */
uint64_t block_oracle_sectors(const struct block_oracle *o);

/* The bytes of sector number `sector` as write `id` leaves them. */
void block_oracle_fill(void *to, uint64_t sector, uint64_t id);

/* A write begins; `zero`: it makes zeroes. Returns its id. */
uint64_t block_oracle_write(struct block_oracle *o, uint64_t sector, uint64_t count, bool zero);
void block_oracle_written(struct block_oracle *o, uint64_t id, int status, bool fua);
/* A read or a flush begins: a moment to give back when it ends. */
uint64_t block_oracle_begin(struct block_oracle *o);
/* 0, or what is wrong in `why`. */
int block_oracle_read(struct block_oracle *o, uint64_t began, uint64_t sector, uint64_t count, const void *bytes,
		      char *why, size_t why_size);
void block_oracle_flushed(struct block_oracle *o, uint64_t began, int status);

struct block_oracle_crash {
	bool keeps;   /* acknowledged writes are kept, flushed or not */
	bool prefix;  /* P1 */
	bool settles; /* what is read now is durable and is what counts from now on */
};
/* Everything was read (`bytes` holds all sectors) after a crash: judges it. Before or after that no write is under way. */
int block_oracle_recovered(struct block_oracle *o, const struct block_oracle_crash *how, const void *bytes, char *why,
			   size_t why_size);
#endif
