/* A volume that moves between hosts, as the block driver of products does it: volume_handover.h with somebody to decide when. Whoever moves a
 * volume (the agents) only proposes; each side looks into the catalog by itself and ends in a state of its own, whoever dies meanwhile.
 *
 *   source  SERVES ─offer─▶ LEAVING ─offered─▶ OFFERED ─(another has it)─▶ MOVED ─expect─▶ INCOMING
 *              ▲               │ fails, or is told    │ told to take it back, or after the offer's time
 *              └───────────────┴──────────────────────┘
 *   target  INCOMING ─(offered to it, or nobody has the volume)─▶ SERVES
 *              └─told, or after the offer's time─▶ GIVEN_UP; MOVED, if it was that before; INCOMING, if nobody made it for the offer
 *
 * Requests wait while it is LEAVING (only at its end), OFFERED or INCOMING, and fail when it is MOVED or GIVEN_UP. What a node was told to do
 * comes as verbs of the driver, all FIBER; OFFER in hex:
 *
 *   handover-expect OFFER MS FROM       target: will be offered by host FROM, within so long. Answers who it is, for the offer
 *   handover-offer OFFER HOST HOLDER CONTROL PID    source: answers how long requests have waited, in ns
 *   handover-activate OFFER MS          target: until it serves, at most so long. Answers for how many ns it does
 *   handover-back OFFER MS              source: takes it back if that can be; answers which of them has it, when that is known. -ESTALE: a third has
 *   handover-moved OFFER MS             source: looks now, until it knows. -ESTALE: a third has
 *   handover-cancel OFFER               target: isn't to be had any more. OFFER 0: whatever it was waiting for */
#ifndef AQ_VOLUME_MOVE_H
#define AQ_VOLUME_MOVE_H
#include "parallax/volume/places.h"
#include "parallax/volume/volume_handover.h"

enum move_state { MOVE_SERVES, MOVE_LEAVING, MOVE_OFFERED, MOVE_MOVED, MOVE_INCOMING, MOVE_GIVEN_UP };

struct volume_move {
	struct volume_node *node;
	struct places *places;
	struct volume_open open;       /* how it is opened; texts are below */
	char holder[META_TEXT_MAX], control[META_TEXT_MAX];
	enum move_state state;
	bool returns, stays;           /* INCOMING: it was MOVED before; nobody made it for an offer */
	uint64_t offer;                /* 0: none */
	uint64_t left_by;              /* MOVED: the offer with which it went */
	uint64_t due_ns;               /* OFFERED: then it is taken back; INCOMING with an offer: then it is given up. 0: never */
	char whom[64];                 /* the other host; MOVED: which has it */
	uint64_t whom_pid;             /* its tapdisk's, as the offer names it; 0: not known */
	bool robbed;                   /* MOVED: another than the offer's target has it */
	char why[256];                 /* INCOMING: why it couldn't be opened */
	bool failed;                   /* INCOMING: an attempt did, perhaps half-way */
	bool owner_changed, log_changed; /* the watch said so since the last turn */
	bool back, cancel, hurry, tick, closing, taking, warming, deactivating, returning, running, ticking;
	unsigned commands;             /* of the node, under way */
	uint64_t looked_ns;
	struct fiber_cond changed;
	struct catalog_watch *watch;
	struct volume_warm warm;       /* for the offer, by whose number it will be acquired: alive/OFFER tells that its target lives */
	struct volume_seen seen, heard; /* in the catalog; of the watch: the last of each record, with its revision */
	uint64_t served_ns;            /* since when it serves */
};

/* Over a node that has its volume, or (to be followed by volume_move_begin()) one over nothing. `how`: its texts are copied, its places are not. */
void volume_move_init(struct volume_move *m, struct volume_node *n, struct places *p, const struct volume_open *how);
/* FIBER. The node is INCOMING, for so long unless it is told to expect an offer; 0: for ever. */
int volume_move_begin(struct volume_move *m, uint64_t lasts_ns, struct report *report);
/* FIBER. A verb of the node: its own, or one of those above. -ESTALE: it has gone, or is on its way: its holder is to be looked for again. */
int volume_move_control(struct volume_move *m, const char *verb, const char *const *args, char **ret_json, struct report *report);
/* FIBER. No request is under way. What is offered is settled first. */
void volume_move_end(struct volume_move *m);
/* For people: a word for the state, and the rest; false: it serves. */
bool volume_move_condition(const struct volume_move *m, char ret_state[16], char *ret_why, size_t bytes);
#endif
