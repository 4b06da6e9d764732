/* Taking a snapshot (R21): a mark in the log, durable with all before it; the map frozen at it; one catalog
 * transaction. No node is written: the next checkpoint, started at once, supplies the root. Of a group of volumes at one
 * instant the marks are made here too, the rest is volume_group.c's. */
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/volume/volume_private.h"

#define MARK_ROOM 8 /* blocks of log that a snapshot and its part of the next checkpoint take */

void snapshot_lock(struct volume *v)
{
	fiber_mutex_lock(&v->env->loop, &v->marking);
	while (v->mark_count >= VOLUME_MARKS_MAX && !v->failed) {
		fiber_mutex_unlock(&v->marking);
		v->checkpoint_wanted = true;
		checkpoint_consider(v);
		fiber_cond_wait(&v->env->loop, &v->settled);
		fiber_mutex_lock(&v->env->loop, &v->marking);
	}
}

/* It was never published: what it held is filed anew, as if it had not been. */
static void unmark(struct volume *v, uint64_t seq)
{
	link_for_safe(l, n, &v->marks) {
		struct pending_mark *m = container_of(l, struct pending_mark, link);
		if (m->seq != seq)
			continue;
		link_drop(&m->link);
		v->mark_count--;
		v->newest_mark = m->newest_before;
		tree_version_release(&v->tree, &m->version);
		space_drop_finish(&v->space, seq);
		free(m);
	}
}

int snapshot_mark(struct volume *v, struct log_append *mark)
{
	mark->kind = RECORD_MARK;
	int r = v->failed ? -EIO : v->log.full && log_room(v) <= checkpoint_reserve(v) + MARK_ROOM ? -ENOSPC : 0;
	if (r == 0)
		r = log_append_wait(v, mark);
	if (r < 0)
		return r;
	if (!PLANTED(snapshot_no_flush))
		r = log_flush_wait(v);
	if (r < 0 && !v->failed)
		unmark(v, mark->seq);
	return r;
}

void snapshot_settle(struct volume *v, uint64_t seq, bool published)
{
	if (published) {
		v->counters.snapshots++;
		v->checkpoint_wanted = true;
	} else if (!v->failed) {
		unmark(v, seq);
	}
	fiber_mutex_unlock(&v->marking);
	checkpoint_consider(v);
}

static int publish_snapshot(struct volume *v, const char *name, const struct log_append *mark, uint64_t size_bytes)
{
	struct publication *p = malloc(sizeof *p);
	struct meta_snapshot s = { .mark_seq = mark->seq, .mark_position = mark->position, .size_bytes = size_bytes,
				   .created_ns = env_wall_ns(v->env) };
	char key[META_KEY_BYTES], name_key[META_KEY_BYTES];
	uint8_t seq[8];
	size_t length = 0;
	snprintf(s.name, sizeof s.name, "%s", name);
	meta_key_snapshot(v->id, s.mark_seq, key);
	meta_key_snapshot_name(v->id, name, name_key);
	put_le64(seq, s.mark_seq);
	uint8_t *bytes = p ? meta_snapshot_encode(&s, &length) : NULL;
	int r = bytes ? 0 : -ENOMEM;
	if (r == 0) {
		publish_begin(v, p);
		p->impatient = true;
		catalog_txn_compare(&p->txn, name_key, 0);
		catalog_txn_put(&p->txn, name_key, seq, sizeof seq);
		catalog_txn_put(&p->txn, key, bytes, length);
		r = publish_commit(p);
	}
	free(bytes);
	free(p);
	return r;
}

int volume_snapshot(struct volume *v, const char *name, struct report *report)
{
	struct log_append mark = { 0 };
	if (!name_valid(name))
		return report_set(report, -EINVAL, "'%s' is not a snapshot name (letters, digits, . _ -; at most 63)", name);
	if (v->catalog_away)
		return report_set(report, -EBUSY, "the catalog takes nothing now: %s", v->catalog_why);
	snapshot_lock(v);
	uint64_t size_bytes = v->meta.size_bytes;
	int r = snapshot_mark(v, &mark);
	if (r < 0) {
		fiber_mutex_unlock(&v->marking);
	} else {
		r = publish_snapshot(v, name, &mark, size_bytes);
		snapshot_settle(v, mark.seq, r == 0);
	}
	return r < 0 ? report_set(report, r, r == -EAGAIN ? "there is a snapshot of that name already" : "it can't be recorded: %s", catalog_text(v->catalog, r)) : 0;
}
