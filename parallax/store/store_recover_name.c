/* The name of a volume that was deleted or rolled back since the backup, and whose head is gone by now. If it was rolled back and opened, another was found that has its name. If
 * it wasn't opened, or was deleted and is kept for a clone, there is nothing of a successor, and its snapshots could be named no more. */
#include <errno.h>
#include <stdio.h>

#include "parallax/store/store_recover_private.h"

static int note_newest(void *arg, const struct meta_snapshot *m)
{
	struct meta_snapshot *newest = arg;
	if (!m->doomed && m->has_root && m->mark_seq > newest->mark_seq)
		*newest = *m;
	return 0;
}

int recover_name(struct store *s, const char *name, uint64_t id, struct store_recovered *ret, struct report *report)
{
	char key[META_KEY_BYTES], snapshot[2 * STORE_NAME_BYTES];
	struct meta_snapshot newest = { 0 };
	struct meta_name named;
	uint64_t revision;
	int r = meta_get_name(s->catalog, name, &named, &revision);
	if (r == -ENOENT || (r == 0 && named.volume != id))
		return 0;
	if (r == 0)
		r = store_each_snapshot(s->catalog, id, note_newest, &newest);
	if (r < 0)
		return report_set(report, r, "its name and snapshots can't be read: %s", catalog_text(s->catalog, r));
	meta_key_name(name, key);
	if (!newest.mark_seq) {
		r = catalog_delete_at(s->catalog, key, revision);
		return r < 0 ? report_set(report, r, "its name can't be taken away: %s", catalog_text(s->catalog, r)) : 0;
	}
	snprintf(snapshot, sizeof snapshot, "%s@%s", name, newest.name);
	*ret = (struct store_recovered){ .id = id, .how = STORE_RECOVERED_NEWER };
	snprintf(ret->name, sizeof ret->name, "%s", name);
	snprintf(ret->rolled_back, sizeof ret->rolled_back, "%s", newest.name);
	return store_snapshot_rollback(s, snapshot, report);
}
