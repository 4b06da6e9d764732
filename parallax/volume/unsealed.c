/* Cuts that the log needs no more, and some copy may.
 *
 * When replay needs a segment no more its cut leaves the log's list; nobody could seal a copy after that (R9). A copy that missed its seal, because its
 * server was away, takes it from another (R33). But it is a holder like that one, which may be lost for ever meanwhile: then it is all there is,
 * and without a seal it can't be copied, moved or packed. So a cut leaves the record of its volume only when
 *
 *     all of its holders have said that they are sealed, or
 *     all servers where the segment belongs now have, whoever they are: then the holders that haven't aren't needed, or
 *     the segment is free.
 *
 * Until then it is among `unsealed`, from where owners (at each checkpoint, and who closes leaves his last ones there) and servers (gc.c) seal it. What
 * they seal it with is the cut that was recorded, so that all copies stay alike, those too that come back one day. */
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "parallax/volume/volume_private.h"

/* ---- sealing ---- */

/* All of them are sealed. Those that can be asked are made to. */
static bool seal_at(const struct volume *v, const struct meta_segment *m, struct peer *const *peers, unsigned count)
{
	struct peer *asked[META_REPLICAS_MAX];
	struct segment_io ios[META_REPLICAS_MAX];
	unsigned n = 0;
	for (unsigned i = 0; i < count; i++) {
		if (!peers[i] || !peer_usable(peers[i]))
			continue;
		asked[n] = peers[i];
		ios[n++] = (struct segment_io){ .op = SEGMENT_SEAL, .segment = m->id, .epoch = v->epoch, .block = m->length, .crc = m->prev };
	}
	return n && peers_wait(asked, ios, n) == count;
}

static bool holders_sealed(const struct volume *v, const struct meta_segment *m)
{
	struct peer *peers[META_REPLICAS_MAX];
	for (uint32_t i = 0; i < m->ensemble_count; i++)
		peers[i] = copies_peer(v->copies, &m->ensemble[i].server);
	return seal_at(v, m, peers, m->ensemble_count);
}

static bool places_sealed(const struct volume *v, const struct meta_segment *m)
{
	struct peer *peers[META_REPLICAS_MAX];
	if (v->meta.embedded || v->copies->map.revision == 0)
		return false;
	const struct placement_group *g = placement_group_of(&v->copies->map, m->id);
	unsigned n = MIN((unsigned)g->target_count, v->meta.replicas);
	for (unsigned i = 0; i < n; i++)
		peers[i] = copies_placed(v->copies, g->target[i]);
	return seal_at(v, m, peers, n);
}

static void seal(struct volume *v, const struct meta_segment *m)
{
	if ((holders_sealed(v, m) || places_sealed(v, m)) && v->sealed_count < ARRAY_COUNT(v->sealed))
		v->sealed[v->sealed_count++] = m->id;
}

/* The lists may change while one is asked for; what is missed so is asked for by the next checkpoint. */
void unsealed_seal(struct volume *v, uint64_t before)
{
	v->sealed_count = 0;
	for (uint32_t i = 0; i < v->meta.unsealed_count; i++) {
		const struct meta_segment m = v->meta.unsealed[i];
		seal(v, &m);
	}
	for (uint32_t i = 0; i < v->meta.segment_count && v->meta.segments[i].id < before; i++) {
		const struct meta_segment m = v->meta.segments[i];
		if (m.cut)
			seal(v, &m);
	}
}

/* ---- what is kept ---- */

static bool is_needed(struct volume *v, uint64_t segment)
{
	for (unsigned i = 0; i < v->sealed_count; i++)
		if (v->sealed[i] == segment)
			return false;
	return space_find(&v->space, segment) != NULL; /* else the table that is published with this hasn't it */
}

/* Too many servers came and went: the oldest is the one whose copies others have had most time to take. */
static void keep(struct meta_log *log, const struct meta_segment *m)
{
	if (log->unsealed_count == META_UNSEALED_MAX)
		memmove(log->unsealed, log->unsealed + 1, --log->unsealed_count * sizeof *log->unsealed);
	log->unsealed[log->unsealed_count++] = *m;
}

/* Nothing is sent there any more, and all of it is acknowledged: it will be cut at its end, by us, or by who finds the log as it is. */
void unsealed_foresee(struct volume *v, struct meta_log *log, uint64_t before)
{
	link_for(l, &v->log.segments) {
		const struct log_segment *g = container_of(l, struct log_segment, link);
		struct meta_segment m = g->meta;
		if (!g->finished || g->cut || g->acked != g->next || g->acked == 1 || m.id >= before || !is_needed(v, m.id) || PLANTED(unsealed_unforeseen))
			continue;
		m.cut = true;
		m.length = g->acked;
		m.prev = g->acked_crc;
		keep(log, &m);
	}
}

void unsealed_let_go(struct volume *v, struct meta_log *log, uint64_t before)
{
	uint32_t unsealed = 0, listed = 0;
	for (uint32_t i = 0; i < log->unsealed_count; i++)
		if (is_needed(v, log->unsealed[i].id))
			log->unsealed[unsealed++] = log->unsealed[i];
	log->unsealed_count = unsealed;
	for (uint32_t i = 0; i < log->segment_count; i++) {
		const struct meta_segment m = log->segments[i];
		if (!m.cut || m.id >= before)
			log->segments[listed++] = m;
		else if (is_needed(v, m.id) && !PLANTED(unsealed_forgotten))
			keep(log, &m);
	}
	log->segment_count = listed;
}
