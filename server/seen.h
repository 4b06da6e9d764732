/* What rounds of rebuilding remember, so that one in which nothing changed asks for no lists (decisions.md, "Rebuilding"). Of each group whether nothing was to do
 * when it was looked at, and of each server what it had in which groups was part of that, and hasn't changed since. A group with nothing to do isn't looked at as
 * long as that is so for all servers that would be asked. Another map: all is forgotten. */
#ifndef AQ_SEEN_H
#define AQ_SEEN_H
#include "parallax/copies/copies.h"

/* Some of the placement groups. */
struct group_set {
	unsigned count; /* of all */
	uint8_t bits[PLACEMENT_GROUPS_MAX / 8];
};
static inline bool group_in(const struct group_set *s, unsigned g) { return s->bits[g / 8] >> g % 8 & 1; }
static inline void group_add(struct group_set *s, unsigned g) { s->bits[g / 8] |= (uint8_t)(1u << g % 8); }
static inline void group_remove(struct group_set *s, unsigned g) { s->bits[g / 8] &= (uint8_t)~(1u << g % 8); }
void groups_add(struct group_set *s, const struct group_set *more);
void groups_remove(struct group_set *s, const struct group_set *less);
bool groups_any(const struct group_set *s);

struct seen_server {
	uint64_t index, change;  /* where its list was when it was asked last; index 0: never, or it can't say */
	uint64_t asked;          /* in that round; … */
	bool answered;           /* … it did */
	struct group_set groups; /* what it has of these was looked at, and hasn't changed up to `change` */
};
struct seen_group {
	bool idle;                 /* nothing is to do */
	uint32_t copies, unsealed; /* of this server */
};
struct seen {
	uint64_t revision, round;
	unsigned count, groups;      /* servers of the map, and one: this one's directory is the last */
	struct seen_server *servers; /* by their numbers in the map */
	struct seen_group *of;       /* by number */
};

/* A round begins, under this map. 0 or -ENOMEM. */
int seen_begin(struct seen *s, const struct placement *map);
void seen_forget(struct seen *s);
static inline struct seen_server *seen_own(const struct seen *s) { return &s->servers[s->count - 1]; }
/* FIBER. Asks a server, NULL: this one, what has changed; once a round, for the answer is remembered. 0, or why there is none. */
struct keeper;
int seen_ask(struct keeper *k, struct seen_server *v, struct peer *peer);
static inline bool seen_answered(const struct seen *s, const struct seen_server *v) { return v->asked == s->round && v->answered; }
#endif
