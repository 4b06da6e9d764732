/* After the catalog was lost and restored from a backup (R5): volumes go on from what their segments say was published last, however old the backup is. */
#ifndef AQ_STORE_RECOVER_H
#define AQ_STORE_RECOVER_H
#include "parallax/store/store.h"

enum store_recovered_how {
	STORE_RECOVERED_SAME,    /* nothing was written since the backup */
	STORE_RECOVERED_NEWER,   /* it was, and that is back */
	STORE_RECOVERED_BACK,    /* made since the backup, and back */
	STORE_RECOVERED_GONE,    /* deleted since the backup: forgotten */
	STORE_RECOVERED_LEFT,    /* segments of one that was made since the backup, and lead to no checkpoint: deleted as well, or seconds old; `why` */
	STORE_RECOVERED_NOT,     /* `why`; it is left as it was */
};

struct store_recovered {
	char name[STORE_NAME_BYTES];  /* "" if it has none, as it is kept for its clones */
	uint64_t id;
	enum store_recovered_how how;
	uint64_t checkpoint_ns;       /* NEWER, BACK: of the checkpoint that was found, since 1970; 0: none, but a longer log */
	bool behind;                  /* what was written last is lost: something before it is nowhere. Only with force */
	uint64_t lost_blocks;         /* only with force: that it needs as of that checkpoint, and that no server has which answers */
	bool lost_more;               /* … and what is below those that belong to its map isn't counted */
	uint32_t snapshots_back, snapshots_gone; /* made since the backup, and deleted */
	char replaced[STORE_NAME_BYTES]; /* BACK: what the volume is called now that has its name by the backup; "": none had */
	char rolled_back[STORE_NAME_BYTES]; /* NEWER: it was deleted or rolled back since, nobody knows which, and not written; it is as in this snapshot, its newest */
	const char *why;
};

struct store_recover {
	bool force;                   /* also without servers that don't answer, and to what isn't the last that was written where that is nowhere */
	void (*volume)(void *arg, const struct store_recovered *v); /* in order of their numbers, those made since last */
	void (*progress)(void *arg, uint64_t done, uint64_t total); /* volumes; may be NULL */
	void *arg;
	uint64_t counts[STORE_RECOVERED_NOT + 1]; /* result */
};

/* FIBER. -EPERM: the catalog wasn't restored; -ENOTCONN: servers don't answer. */
int store_recover(struct store *s, struct store_recover *how, struct report *report);
#endif
