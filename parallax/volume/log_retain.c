/* R14: what a server acknowledged but hasn't synced yet is kept here, so that one that lost power can be
 * filled up again. Only for volumes on servers: an embedded one loses power together with this process. Bounded: when half of
 * limits.retain_bytes is taken a sync begins, and writes wait while all of it is. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/blk.h"
#include "core/plant.h"
#include "parallax/volume/volume_private.h"

struct retained {
	uint32_t block, blocks;
	struct link link;
	uint8_t *bytes;
};

static void retained_free(struct log *l, struct retained *k)
{
	l->retained_bytes -= (uint64_t)k->blocks * BLOCK_BYTES;
	link_drop(&k->link);
	free(k->bytes);
	free(k);
}

static void background_sync(struct volume *v);

static bool is_half_full(const struct volume *v) { return v->log.retained_bytes > v->limits.retain_bytes / 2; }

/* What was acknowledged meanwhile isn't covered; if that is as much again nothing else may come that would have it synced. */
static void background_synced(struct job *j)
{
	struct volume *v = container_of(j, struct volume, log.retain_job);
	v->log.retain_syncing = false;
	if (j->status == 0 && v->log.acked_seq > v->log.synced_seq && is_half_full(v) && !PLANTED(log_retain_one_sync))
		background_sync(v);
	fiber_cond_wake(&v->log.changed);
}

static void background_sync(struct volume *v)
{
	struct log *l = &v->log;
	if (l->retain_syncing)
		return;
	l->retain_syncing = true;
	job_init(&l->retain_job, &v->env->loop);
	volume_flush(v, &l->retain_flush, &l->retain_job);
	job_then(&l->retain_job, background_synced);
}

void log_retain(struct volume *v, const struct log_record *r)
{
	struct log *l = &v->log;
	if (v->meta.embedded || PLANTED(log_retain_nothing))
		return;
	struct retained *k = malloc(sizeof *k);
	size_t bytes = (size_t)record_blocks(&r->head) * BLOCK_BYTES;
	uint8_t *copy = k ? env_alloc_aligned(bytes) : NULL;
	if (!copy) { /* without it a power loss of the server would end the volume; it is only less safe */
		free(k);
		return;
	}
	iov_gather(r->iov, r->iov_count, 0, copy, bytes);
	*k = (struct retained){ .block = r->head.block, .blocks = record_blocks(&r->head), .bytes = copy };
	link_push(&r->segment->retained, &k->link);
	l->retained_bytes += bytes;
	if (is_half_full(v))
		background_sync(v);
}

void log_retain_drop(struct volume *v, struct log_segment *g, uint32_t synced)
{
	link_for_safe(k, n, &g->retained) {
		struct retained *r = container_of(k, struct retained, link);
		if (r->block + r->blocks <= synced)
			retained_free(&v->log, r);
	}
}

bool log_retain_full(const struct volume *v) { return v->log.retained_bytes > v->limits.retain_bytes; }

int log_retain_refill(struct volume *v, struct log_segment *g, struct peer *to, uint32_t length)
{
	int r = 0;
	link_for(k, &g->retained) {
		const struct retained *kept = container_of(k, struct retained, link);
		if (kept->block + kept->blocks <= length)
			continue;
		if (kept->block > length)
			return -EIO; /* a gap: what is missing was never kept, or is thought to be durable */
		struct iovec iov = { kept->bytes, (size_t)kept->blocks * BLOCK_BYTES };
		struct segment_io io = { .op = SEGMENT_REPAIR, .segment = g->meta.id, .epoch = v->epoch, .block = kept->block,
					 .blocks = kept->blocks, .iov = &iov, .iov_count = 1 };
		r = peer_wait(to, &io);
		if (r < 0)
			return log_failed_once(r);
		length = kept->block + kept->blocks;
	}
	return length < g->acked ? -EIO : 0;
}
