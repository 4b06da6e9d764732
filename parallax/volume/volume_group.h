/* A volume's part in a snapshot of several volumes at one instant (R22). Who takes it (store_group.c) marks all of
 * them, releases all of them, publishes all of the marks in one transaction, or none.
 *
 *   mark ─▶ held ─(release)─▶ released ─(looks for it; makes one when tired)─▶ the outcome ─▶ as before
 *              └──(deadline, end, closing)──▶ broken ──▶ ┘
 *
 * While it is held, nothing that follows the mark is acknowledged or shown to reads; sending goes on. From the mark to the outcome no
 * checkpoint is frozen (R21). The key group/G is there from before the first mark until the outcome: publishing the
 * snapshots deletes it, and deleting it otherwise means that they never will be published. So whoever finds it gone knows that the
 * volume's own snapshot key tells the outcome, for ever, and who is tired of waiting deletes it.
 *
 * All FIBER. Any number of these, and of other operations, may be under way at once. */
#ifndef AQ_VOLUME_GROUP_H
#define AQ_VOLUME_GROUP_H
#include "parallax/volume/volume.h"

struct volume_mark {
	uint64_t seq, position, size_bytes;
	uint64_t owner_revision; /* of the owner record: publishing compares it */
};

/* Marks, and holds from there on until it is released, at most for `hold_ns` from now. 0: marked, durably. -EBUSY: it is
 * in another group; -ETIME: the hold ended before the mark was durable. */
int volume_group_mark(struct volume *v, uint64_t group, uint64_t hold_ns, struct volume_mark *ret_mark, struct report *report);
/* Ends the hold. 0: it was unbroken. -ETIME: it had ended already; -ENOENT: it isn't in that group (any more). */
int volume_group_release(struct volume *v, uint64_t group, struct report *report);
/* Who took it gives it up: the volume waits no more. */
int volume_group_end(struct volume *v, uint64_t group);

/* The same as verbs of the block driver: "group-mark GROUP HOLD_MS" answers the mark, "group-release GROUP", "group-end GROUP";
 * GROUP in hex. -EOPNOTSUPP: it is none of these. */
int volume_group_control(struct volume *v, const char *verb, const char *const *args, char **ret_json, struct report *report);
int volume_mark_decode(const char *json, struct volume_mark *ret_mark); /* 0 or -EPROTO */
#endif
