/* What store_recover*.c share. */
#ifndef AQ_STORE_RECOVER_PRIVATE_H
#define AQ_STORE_RECOVER_PRIVATE_H
#include <string.h>

#include "parallax/map/space.h"
#include "parallax/store/salvage.h"
#include "parallax/store/store_private.h"
#include "parallax/store/store_recover.h"

/* New volumes that can't be recovered now: their names, "" where that isn't known. */
struct recover_unfound {
	char (*names)[STORE_NAME_BYTES];
	size_t count;
};

/* May one of them have, or have had, that name? */
static inline bool recover_unfound_has(const struct recover_unfound *u, const char *name)
{
	for (size_t i = 0; i < u->count; i++)
		if (!u->names[i][0] || strcmp(u->names[i], name) == 0)
			return true;
	return false;
}

#define RECOVER_EPOCHS_APART (UINT64_C(1) << 32) /* as in a restored backup: no owner there ever was has a greater one */

/* A volume that is being recovered. */
struct recovering {
	struct store *store;
	struct copies *copies;          /* where its segments are */
	uint64_t id;
	const struct salvage_copy *found; /* all copies of its segments, by (epoch, id) */
	size_t found_count;
	struct meta_log known;          /* as the catalog has it; */
	uint64_t log_revision, owner_revision; /* … 0: it hasn't */
	struct meta_owner owner;
	struct salvage s;
	bool force;                     /* also to what isn't the last that was written */
	bool complete;                  /* all that may have something of it answered */
	struct space table;             /* of the newest checkpoint */
	const struct recover_unfound *unfound;
	struct store_names *names;      /* as they were before anything was recovered, by volume; and those that had one since, and have none any more */
	struct store_recovered *ret;
};

/* All FIBER; 0 or -errno, with a report where one is taken. */
/* store_recover_volume.c: one that the catalog knows; one that it doesn't. r->ret is filled but for what is known already. */
int recover_known(struct recovering *r, struct report *report);
int recover_unknown(struct recovering *r, struct report *report);
/* It, as r->s.log has it, was rolled back or deleted itself: who was rolled back from what it was has its snapshots. */
int recover_note_past(struct recovering *r);
int recover_load_table(struct recovering *r, const struct meta_log *log, struct report *report); /* … its segments, into r->table */
/* store_recover_lost.c: fills in what of it is lost, in r->ret. -ENOMEM, -ESHUTDOWN */
int recover_count_lost(struct recovering *r);
/* store_recover_fence.c: no owner that there was frees anything any more in the copies that were found. */
int recover_fence(struct recovering *r, struct report *report);
/* store_recover_snapshots.c: those in the catalog as the newest table has them: what was deleted goes, what was made is there again, as far as
 * the summary knows it (`newest`); what nobody knows any more is to be freed. `from_seq`: later marks are in the log. */
int recover_snapshots(struct recovering *r, uint64_t from_seq, const struct meta_snapshot *newest, uint32_t count, struct report *report);
/* store_recover_name.c: of one that was deleted or rolled back since: if nobody has got its name, and it has snapshots, a clone of the newest gets that, as by a
 * rollback. `ret` is filled; as it was, if there was nothing to do. */
int recover_name(struct store *s, const char *name, uint64_t id, struct store_recovered *ret, struct report *report);
/* store_recover_forget.c: a volume that was deleted since the backup, with its snapshots and all that were cloned from it. */
int recover_forget(struct store *s, uint64_t id, struct report *report);
#endif
