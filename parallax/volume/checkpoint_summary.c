/* A checkpoint's last record, its summary: see summary.h. The newest snapshots are in it, too: what they are called and where their roots are is said
 * nowhere else but in the catalog. They are taken along from one summary to the next. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/volume/summary.h"
#include "parallax/volume/volume_private.h"

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

/* One record, whose first block has the others' checksums. Where nobody answers the catalog does. */
static int read_blocks(struct volume *v, const struct meta_root *at, uint8_t *bytes)
{
	int r = sources_read_now(&v->sources, &at->pointer, bytes);
	for (uint32_t i = 1; r == 0 && i < div_up(at->length, BLOCK_BYTES); i++) {
		struct pointer p = { at->pointer.position + i, summary_crc(bytes, i), 0 };
		r = sources_read_now(&v->sources, &p, bytes + (size_t)i * BLOCK_BYTES);
	}
	return r;
}

static int load_summary(struct volume *v)
{
	const struct meta_root *at = &v->meta.summary;
	uint8_t *bytes = env_alloc_aligned((size_t)SUMMARY_BLOCKS_MAX * BLOCK_BYTES);
	struct summary s;
	int r = !bytes ? -ENOMEM : at->length > (uint64_t)SUMMARY_BLOCKS_MAX * BLOCK_BYTES ? -EUCLEAN : read_blocks(v, at, bytes);
	if (r == 0)
		r = summary_decode(bytes, round_up(at->length, BLOCK_BYTES), &s);
	free(bytes);
	if (r == 0) {
		v->newest = s.snapshots;
		v->newest_count = s.snapshot_count;
	}
	return r;
}

/* What the summary before, of whoever had the volume then, knew; or the catalog, which is waited for: it is needed for what this is a part of anyway. */
static int load(struct volume *v)
{
	free(v->newest);
	v->newest = NULL;
	v->newest_count = 0;
	int r = v->meta.summary.pointer.position ? load_summary(v) : -ENOENT;
	struct publish_tries tries = { .began_ns = env_now_ns(v->env) };
	if (r < 0)
		do
			r = load_from_catalog(v);
		while (publish_again(v, r, &tries));
	v->newest_known = r == 0;
	return r;
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

struct checkpoint_summary {
	struct summary s;
	const struct meta_root *space; /* of the table before it, once that is placed */
	struct log_append append;
	struct iovec iov;
	uint8_t *blocks;
	size_t length;
	uint32_t crcs[SUMMARY_BLOCKS_MAX];
	bool failed;
};

/* It says where the table is, which flies before it. */
static void fill(struct log_append *a, uint64_t payload_position)
{
	struct checkpoint_summary *c = container_of(a, struct checkpoint_summary, append);
	size_t length = 0, room = (size_t)a->payload_blocks * BLOCK_BYTES;
	(void)payload_position;
	c->s.log.space = *c->space;
	uint8_t *bytes = summary_encode(&c->s, &length);
	c->failed = !bytes || length > room;
	if (!c->failed) {
		memset(c->blocks, 0, room);
		memcpy(c->blocks, bytes, length);
		c->length = length;
	}
	free(bytes);
	iov_block_crcs(&c->iov, 1, 0, a->payload_blocks, c->crcs);
}

/* As long as it will be: what isn't known yet are numbers of fixed length, which are left out only where they are 0. */
static int measure(struct checkpoint_summary *c)
{
	const struct meta_root any = { { UINT64_MAX, UINT32_MAX, 0 }, 3, UINT32_MAX };
	c->s.log.space = any;
	c->blocks = summary_encode(&c->s, &c->length);
	if (!c->blocks)
		return -ENOMEM;
	uint32_t count = (uint32_t)div_up(c->length, BLOCK_BYTES);
	c->iov = (struct iovec){ c->blocks, (size_t)count * BLOCK_BYTES };
	c->append = (struct log_append){ .kind = RECORD_CHECKPOINT, .iov = &c->iov, .iov_count = 1, .crcs = c->crcs, .payload_blocks = count, .placed = fill };
	return 0;
}

int checkpoint_summary_make(struct volume *v, const struct meta_log *log, const struct meta_snapshot *fresh, uint32_t count, const struct meta_root *space,
			    struct checkpoint_summary **ret)
{
	int r = v->newest_known ? 0 : load(v);
	struct checkpoint_summary *c = r == 0 ? calloc(1, sizeof *c) : NULL;
	if (!c)
		return r ? r : -ENOMEM;
	c->space = space;
	c->s.volume = v->id;
	c->s.written_ns = env_wall_ns(v->env);
	c->s.log = *log;
	c->s.log.segment_count = 0;
	c->s.log.summary = (struct meta_root){ 0 };
	r = take(v, fresh, count, &c->s.snapshots, &c->s.snapshot_count);
	if (r == 0) {
		free(v->newest);
		v->newest = c->s.snapshots;
		v->newest_count = c->s.snapshot_count;
		r = measure(c);
	}
	if (r == 0)
		*ret = c;
	else
		free(c);
	return r;
}

struct log_append *checkpoint_summary_append(struct checkpoint_summary *c) { return &c->append; }

int checkpoint_summary_end(struct checkpoint_summary *c, struct meta_root *ret)
{
	int r = c->failed ? -ENOMEM : 0;
	*ret = (struct meta_root){ { c->append.payload_position, c->crcs[0], 0 }, 0, c->length };
	free(c->blocks);
	free(c);
	return r;
}
