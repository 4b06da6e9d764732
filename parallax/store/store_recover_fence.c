/* Where --force may go back to a checkpoint before the last that was published, what was freed by that one is needed again, and whoever published it
 * may live and still send it (trim.c). So nothing is read before all copies that were found are fenced (R8) above all owners there ever were: from then on
 * they take no trim of his (segment_dir_trim.c), and delete nothing. Without --force all servers answer, so that the newest is found that was ever published,
 * and since the restoration nobody can publish another: what is free by that one is free for ever. */
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/store/store_recover_private.h"

enum { TOGETHER = 32 };

/* First in the catalog: whoever opens it next, whatever becomes of this recovery, is above the fence. */
static int raise_owner(struct recovering *r, uint64_t epoch, struct report *report)
{
	struct meta_owner raised = { .epoch = epoch, .state = OWNER_FREE };
	char key[META_KEY_BYTES];
	size_t length = 0;
	if (!r->owner_revision || r->owner.epoch >= epoch || PLANTED(recover_fence_untold))
		return 0;
	uint8_t *bytes = meta_owner_encode(&raised, &length);
	meta_key_owner(r->id, key);
	int status = bytes ? catalog_put_at(r->store->catalog, key, r->owner_revision, bytes, length) : -ENOMEM;
	free(bytes);
	if (status == 0)
		status = meta_get_owner(r->store->catalog, r->id, &r->owner, &r->owner_revision);
	if (status == 0 && (r->owner.epoch != epoch || r->owner.state != OWNER_FREE))
		status = -EAGAIN;
	return status < 0 ? report_set(report, status, "its owner record: %s", status == -EAGAIN ? "somebody else has changed it" : catalog_text(r->store->catalog, status)) : 0;
}

/* A copy that can't note it refuses all the same, as long as its server runs, and could note no trim either. */
static int fence_some(const struct salvage_copy *copies, unsigned count, uint64_t epoch)
{
	struct peer *peers[TOGETHER] = { NULL };
	struct segment_io ios[TOGETHER];
	for (unsigned i = 0; i < count; i++) {
		peers[i] = copies[i].peer;
		ios[i] = (struct segment_io){ .op = SEGMENT_FENCE, .segment = copies[i].entry.header.segment, .epoch = epoch };
	}
	peers_wait(peers, ios, count);
	for (unsigned i = 0; i < count; i++)
		if (segment_away(ios[i].status) || ios[i].status == -ESHUTDOWN || ios[i].status == -ENOMEM)
			return ios[i].status;
	return 0;
}

int recover_fence(struct recovering *r, struct report *report)
{
	uint64_t last = 0;
	int status = 0;
	for (size_t i = 0; i < r->found_count; i++)
		last = MAX(last, r->found[i].entry.header.epoch);
	if (last > SALVAGE_EPOCH_MAX || !r->copies->catalog)
		return 0; /* nothing is gone on from; or the directory is locked, so that no owner lives */
	uint64_t epoch = MAX(r->owner.epoch, last + RECOVER_EPOCHS_APART);
	status = raise_owner(r, epoch, report);
	if (status < 0)
		return status;
	for (size_t at = 0; status == 0 && at < r->found_count; at += TOGETHER)
		status = fence_some(r->found + at, (unsigned)MIN(r->found_count - at, (size_t)TOGETHER), epoch);
	return status < 0 ? report_set(report, status, "its copies can't be fenced: %s", errno_text(status)) : 0;
}
