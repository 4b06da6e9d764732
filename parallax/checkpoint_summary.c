/* A checkpoint's last record, its summary: see summary.h. The newest snapshots are in it, too: what they are called and where their roots are is said
 * nowhere else but in the catalog. They are taken along from one summary to the next. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/blob.h"
#include "parallax/summary.h"
#include "parallax/volume_private.h"

static int note_newest(void *arg, const char *key, const struct catalog_value *value)
{
	struct volume *v = arg;
	struct meta_snapshot m;
	(void)key;
	if (meta_snapshot_decode(value->bytes, value->length, &m) < 0 || m.doomed || !m.has_root)
		return 0;
	if (v->newest_count == SUMMARY_SNAPSHOTS_MAX)
		memmove(v->newest, v->newest + 1, --v->newest_count * sizeof *v->newest);
	v->newest[v->newest_count++] = m;
	return 0;
}

/* There is no summary, as a program that writes none had the volume, or it was recovered. */
static int load_from_catalog(struct volume *v)
{
	char prefix[META_KEY_BYTES];
	meta_key_snapshots(v->id, prefix);
	v->newest = calloc(SUMMARY_SNAPSHOTS_MAX, sizeof *v->newest);
	int r = v->newest ? catalog_list(v->catalog, prefix, note_newest, v) : -ENOMEM;
	if (r < 0) {
		free(v->newest);
		v->newest = NULL;
		v->newest_count = 0;
	}
	return r;
}

static int load_summary(struct volume *v)
{
	const struct meta_root *at = &v->meta.summary;
	uint8_t *bytes = NULL;
	struct summary s;
	int r = at->length > (uint64_t)SUMMARY_BLOCKS_MAX * BLOCK_BYTES ? -EUCLEAN : blob_read(&v->sources, at, &bytes);
	if (r == 0)
		r = summary_decode(bytes, round_up(at->length, BLOCK_BYTES), &s);
	free(bytes);
	if (r == 0) {
		v->newest = s.snapshots;
		v->newest_count = s.snapshot_count;
	}
	return r;
}

/* What the summary before, of whoever had the volume then, knew. What can't be read now the next one will have. */
static void load(struct volume *v)
{
	free(v->newest);
	v->newest = NULL;
	v->newest_count = 0;
	v->newest_known = v->meta.summary.pointer.position && load_summary(v) == 0;
	if (!v->newest_known)
		v->newest_known = load_from_catalog(v) == 0;
}

/* Those that were deleted are gone from the table, or are about to go. */
static uint32_t drop_deleted(const struct volume *v, struct meta_snapshot *s, uint32_t count)
{
	uint32_t kept = 0;
	for (uint32_t i = 0; i < count; i++)
		if (space_list_find((struct space *)&v->space, s[i].mark_seq))
			s[kept++] = s[i];
	return kept;
}

/* Marks only grow, so that what is fresh comes last. */
static int take(struct volume *v, const struct meta_snapshot *fresh, uint32_t count, struct meta_snapshot **ret, uint32_t *ret_count)
{
	struct meta_snapshot *all = malloc((v->newest_count + count + 1) * sizeof *all);
	if (!all)
		return -ENOMEM;
	uint32_t n = 0;
	for (uint32_t i = 0; i < v->newest_count; i++) /* an attempt that failed had it already */
		if ((count == 0 || v->newest[i].mark_seq < fresh[0].mark_seq) && !PLANTED(summary_forgets))
			all[n++] = v->newest[i];
	memcpy(all + n, fresh, count * sizeof *all);
	n = drop_deleted(v, all, n + count);
	uint32_t excess = n > SUMMARY_SNAPSHOTS_MAX ? n - SUMMARY_SNAPSHOTS_MAX : 0;
	memmove(all, all + excess, (n - excess) * sizeof *all);
	*ret = all;
	*ret_count = n - excess;
	return 0;
}

int checkpoint_summary(struct volume *v, const struct meta_log *log, const struct meta_snapshot *fresh, uint32_t count, struct meta_root *ret)
{
	struct summary *s = calloc(1, sizeof *s);
	size_t length = 0;
	if (!s)
		return -ENOMEM;
	if (!v->newest_known)
		load(v);
	s->volume = v->id;
	s->written_ns = env_wall_ns(v->env);
	s->log = *log;
	s->log.segment_count = 0;
	s->log.summary = (struct meta_root){ 0 };
	int r = take(v, fresh, count, &s->snapshots, &s->snapshot_count);
	if (r == 0) {
		free(v->newest);
		v->newest = s->snapshots;
		v->newest_count = s->snapshot_count;
	}
	uint8_t *bytes = r == 0 ? summary_encode(s, &length) : NULL;
	r = r ? r : bytes ? blob_write(v, bytes, length, ret) : -ENOMEM;
	free(bytes);
	free(s);
	return r;
}
