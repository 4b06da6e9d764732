/* Is a copy of a segment wanted? R31's question, asked by whoever condemns or rebuilds copies: a segment is wanted while its
 * volume's log or space table, as published, lists it. It isn't when the volume's key is gone, or when its id is not above last_id (so that
 * it can't be listed any more, R1) and neither of the two has it. Until that is known it is.
 *
 * What is condemned must have been there before wanted_open(): what is made later may belong to a volume that is made later. */
#ifndef AQ_WANTED_H
#define AQ_WANTED_H
#include "parallax/copies/copies.h"

struct wanted_cut {
	uint64_t segment;
	uint32_t length, prev;
	struct meta_replica holders[META_REPLICAS_MAX];
	uint32_t holder_count;
};

struct wanted_volume {
	uuid volume;
	uint64_t id;
	uint32_t replicas;
	bool embedded;
	uint8_t *log;            /* its record, for the next wanted_load(); NULL: that reads it */
	size_t log_length;
	/* once wanted_load() has succeeded */
	bool loaded;
	int status;              /* of the last attempt */
	uint64_t last_id;
	uint64_t *segments;      /* by id */
	size_t count;
	uint64_t *unused;        /* those of them that the table lists and that hold nothing; by id */
	size_t unused_count;
	struct wanted_cut *cuts;
	unsigned cut_count;
};

struct wanted {
	struct catalog *catalog;
	struct copies *copies;
	struct wanted_volume *volumes; /* by uuid */
	size_t count;
	bool failed;                   /* a table couldn't be read; it may be later */
	bool lazy;                     /* not all volumes are known yet */
	bool (*keep)(const void *arg, const uuid *volume); /* whose records are kept when all are listed; NULL: nobody's */
	const void *keep_arg;
};

enum wanted_answer { WANTED_NO, WANTED_YES, WANTED_UNKNOWN };

/* FIBER. All volumes, as the catalog has them now. `copies` (borrowed) is where their tables are read. 0 or -errno. */
int wanted_open(struct catalog *catalog, struct copies *copies, struct wanted **ret);
/* The same; the records of those that `keep` wants needn't be read again, one by one, to load what they list. `arg` is borrowed for this call. */
int wanted_open_for(struct catalog *catalog, struct copies *copies, bool (*keep)(const void *arg, const uuid *volume), const void *arg, struct wanted **ret);
/* Asks the catalog nothing: volumes are looked up as wanted_ask() and wanted_learn() need them; all, once there is one that isn't found by its number.
 * NULL: no memory. */
struct wanted *wanted_open_lazy(struct catalog *catalog, struct copies *copies);
void wanted_close(struct wanted *w); /* accepts NULL */
/* FIBER. As wanted_find(), of a lazy one too; valid until the next of these calls. 0; -ENOENT: its key is gone; other: not known. */
int wanted_learn(struct wanted *w, const uuid *volume, struct wanted_volume **ret);
struct wanted_volume *wanted_find(struct wanted *w, const uuid *volume); /* NULL: its key is gone */
/* FIBER. Reads its log and its table, unless that was done. 0; -ENOENT: its key is gone by now; other: not known. */
int wanted_load(struct wanted *w, struct wanted_volume *v);
/* Lets go of what that read: it will be read again. */
void wanted_unload(struct wanted_volume *v);
/* FIBER. */
enum wanted_answer wanted_ask(struct wanted *w, const struct segment_header *h);
bool wanted_lists(const struct wanted_volume *v, uint64_t segment);
/* Listed, but it holds nothing: reserved for writes that went elsewhere, by an owner that has left it since. It may be gone already. */
bool wanted_is_unused(const struct wanted_volume *v, uint64_t segment);
/* The cut that the log lists, or keeps for those that aren't sealed yet. */
const struct wanted_cut *wanted_cut(const struct wanted_volume *v, uint64_t segment);
bool wanted_holds(const struct wanted_cut *c, const uuid *server); /* it is among those that had it when that was recorded */
/* FIBER. 0: what isn't wanted may go. -EPERM: this catalog was restored, or moved, and may have forgotten things (R5). */
int wanted_may_condemn(struct catalog *catalog);
#endif
