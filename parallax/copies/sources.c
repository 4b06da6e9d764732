#include "parallax/copies/sources.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/blk.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "core/plant.h"
#include "parallax/map/tree.h"

/* How long a read waits before it asks again a server that can't be reached. */
#define AWAY_NS (50 * NS_PER_MS)
enum { LOOKS_MAX = 25 };

/* ---- opening ---- */

static int open_reader(struct sources *s, const struct volume_places *places, uint64_t volume, struct source *ret, struct report *report)
{
	int r = places->open_embedded_reader(places->arg, volume, &ret->reader, report);
	if (r == 0 && !(ret->copies = copies_embedded(s->env, ret->reader)))
		r = -ENOMEM;
	if (r < 0)
		segment_server_close(ret->reader);
	return r;
}

static int source_add(struct sources *s, struct catalog *catalog, const struct volume_places *places, uint64_t volume,
		      const struct meta_log *log, struct copies *own, struct report *report)
{
	if (s->count == SOURCES_MAX)
		return report_set(report, -EMLINK, "it is a clone of a clone … more than %d deep", SOURCES_MAX);
	struct source new = { .above = position_segment(log->origin), .copies = own };
	int r = array_more(&s->source, s->count);
	if (!log->embedded && !s->cluster && own)
		s->cluster = own;
	if (r == 0 && !log->embedded && !s->cluster)
		r = copies_open(s->env, catalog, &s->cluster, report);
	if (r == 0 && !log->embedded)
		new.copies = s->cluster;
	else if (r == 0 && !own)
		r = open_reader(s, places, volume, &new, report);
	if (r == 0 && !log->embedded && places->domain)
		copies_set_domain(s->cluster, places->domain);
	if (r == 0)
		s->source[s->count++] = new;
	return r;
}

int sources_open(struct sources *s, struct env *env, struct catalog *catalog, const struct volume_places *places,
		 uint64_t volume, const struct meta_log *log, struct copies *own, struct report *report)
{
	*s = (struct sources){ .env = env };
	link_init(&s->waiting);
	hedges_init(&s->hedges, env);
	repairs_init(&s->repairs, env);
	int r = source_add(s, catalog, places, volume, log, own, report);
	struct meta_log *ancestor = malloc(sizeof *ancestor);
	if (!ancestor)
		r = r ? r : -ENOMEM;
	uint64_t parent = log->parent_volume;
	while (r == 0 && parent) {
		r = meta_get_log(catalog, parent, ancestor, NULL);
		if (r < 0)
			report_set(report, r, "the volume it was cloned from can't be read in the catalog");
		else
			r = source_add(s, catalog, places, parent, ancestor, NULL, report);
		parent = r == 0 ? ancestor->parent_volume : 0;
	}
	free(ancestor);
	if (r == 0 && s->cluster)
		r = copies_await(s->cluster, report);
	if (r == 0 && s->cluster)
		r = hedges_start(&s->hedges);
	if (r == 0 && s->cluster)
		r = repairs_start(&s->repairs);
	if (r < 0)
		sources_close(s);
	return r;
}

void sources_close(struct sources *s)
{
	if (s->cluster)
		copies_cut(s->cluster); /* a server that hangs would let those that ask it wait */
	if (s->hedges.env)
		hedges_end(&s->hedges);
	if (s->repairs.env)
		repairs_end(&s->repairs);
	for (unsigned i = 0; i < s->count; i++) {
		if (!s->source[i].reader)
			continue;
		copies_close(s->source[i].copies);
		segment_server_close(s->source[i].reader);
	}
	copies_close(s->cluster);
	free(s->source);
	*s = (struct sources){ .env = s->env, .retries = s->retries, .errors = s->errors, .hedged = s->hedged, .hedges_won = s->hedges_won,
			       .damaged = s->damaged, .repairs.asked = s->repairs.asked };
}

int sources_depth(struct catalog *catalog, uint64_t volume)
{
	struct meta_log *log = malloc(sizeof *log);
	int depth = 1, r = log ? 0 : -ENOMEM;
	for (; r == 0 && volume; depth++) {
		r = meta_get_log(catalog, volume, log, NULL);
		volume = log->parent_volume;
	}
	free(log);
	return r < 0 ? r : depth;
}

/* `above` falls from one source to the next. */
static struct copies *source_of(struct sources *s, uint64_t segment)
{
	unsigned low = 0, high = s->count;
	while (low < high) {
		unsigned middle = low + (high - low) / 2;
		if (segment > s->source[middle].above)
			high = middle;
		else
			low = middle + 1;
	}
	return low < s->count ? s->source[low].copies : NULL;
}

/* ---- reading ---- */

void iov_block_crcs(const struct iovec *iov, int iov_count, uint64_t skip, uint32_t blocks, uint32_t *ret_crcs)
{
	int at = 0;
	while (at < iov_count && skip >= iov[at].iov_len)
		skip -= iov[at++].iov_len;
	for (uint32_t b = 0; b < blocks; b++) {
		uint32_t crc = 0;
		for (size_t left = BLOCK_BYTES; left > 0;) {
			assert(at < iov_count);
			size_t n = MIN(left, iov[at].iov_len - skip);
			crc = crc32c(crc, (const uint8_t *)iov[at].iov_base + skip, n);
			left -= n;
			skip += n;
			if (skip == iov[at].iov_len) {
				skip = 0;
				at++;
			}
		}
		ret_crcs[b] = crc;
	}
}

int block_read_verify(const struct block_read *r, const struct iovec *iov, int iov_count)
{
	uint32_t crcs[256];
	for (uint32_t done = 0; done < r->count;) {
		uint32_t n = MIN(r->count - done, (uint32_t)ARRAY_COUNT(crcs));
		iov_block_crcs(iov, iov_count, (uint64_t)done * BLOCK_BYTES, n, crcs);
		for (uint32_t i = 0; i < n; i++)
			if (crcs[i] != r->pointers[done + i].crc && !PLANTED(read_no_verify))
				return -EBADMSG;
		done += n;
	}
	return 0;
}

static void read_done(struct job *j);

/* Somebody had it right; who hadn't has a bad copy, probably. */
static void note_repairs(struct block_read *r)
{
	for (unsigned i = 0; r->bad >> i; i++)
		if (r->bad >> i & 1)
			repairs_note(&r->sources->repairs, r->asked[i], r->io.segment, r->io.block, r->count);
}

void block_read_end(struct block_read *r, int status)
{
	if (status == 0 && r->bad)
		note_repairs(r);
	link_drop(&r->waits);
	r->busy = false;
	job_put(r->parent, status);
}

static bool was_asked(const struct block_read *r, const struct peer *p)
{
	for (unsigned i = 0; i < r->attempts; i++)
		if (r->asked[i] == p)
			return true;
	return false;
}

/* The first that may have it and wasn't asked yet; NULL: there is none. */
struct peer *block_read_next_peer(const struct block_read *r)
{
	struct copies *copies = source_of(r->sources, position_segment(r->pointers[0].position));
	struct peer *candidates[PLACEMENT_CANDIDATES_MAX];
	unsigned n = copies ? copies_candidates(copies, position_segment(r->pointers[0].position), candidates) : 0;
	for (unsigned i = 0; i < n; i++)
		if (!was_asked(r, candidates[i]))
			return candidates[i];
	return NULL;
}

static void read_from(struct block_read *r, struct peer *peer)
{
	uint64_t position = r->pointers[0].position;
	job_init(&r->job, &r->sources->env->loop);
	r->io = (struct segment_io){ .op = SEGMENT_READ, .segment = position_segment(position), .block = position_block(position),
				     .blocks = r->count, .iov = r->iov, .iov_count = r->iov_count,
				     .again = was_asked(r, peer) };
	r->since_ns = env_now_ns(r->sources->env);
	if (peer) {
		peer_asked(peer);
		peer_submit(peer, &r->io, &r->job);
	} else {
		r->job.status = -ENOENT;
	}
	if (r->attempts < PLACEMENT_CANDIDATES_MAX && !r->io.again)
		r->asked[r->attempts++] = peer;
	r->peer = peer;
	hedge_watch(&r->sources->hedges, r);
	job_then(&r->job, read_done);
}

static void read_start(struct block_read *r)
{
	r->attempts = 0;
	r->away = r->gone = r->twice = r->absent = false;
	r->damaged = NULL;
	r->bad = 0;
	read_from(r, block_read_next_peer(r));
}

static void read_again(struct job *j)
{
	struct block_read *r = container_of(j, struct block_read, job);
	if (r->expired)
		block_read_end(r, -EIO);
	else
		read_start(r);
}

static void read_wait(struct block_read *r)
{
	struct env *env = r->sources->env;
	r->sources->retries++;
	job_init(&r->job, &env->loop);
	timer_init(&r->again);
	timer_start(env, &r->again, AWAY_NS, &r->job);
	job_then(&r->job, read_again);
}

/* Found nowhere: it may be where a newer map says. */
static bool look_again(struct block_read *r, int status)
{
	struct copies *copies = source_of(r->sources, r->io.segment);
	if (status != -ENOENT || !copies || copies->map.server_count < 2 || r->looks++ >= LOOKS_MAX)
		return false;
	copies_look(copies);
	return true;
}

/* What it came to when everybody has been asked. */
static void read_failed(struct block_read *r, int status)
{
	struct sources *s = r->sources;
	bool several_bad = r->bad & (r->bad - 1);
	if (several_bad && r->count > 1 && !r->gone && !s->env->dead && block_read_apart(r))
		return;
	if (r->gone)
		status = -ENODATA;
	else if (r->away && !segment_away(status))
		status = -ENOTCONN;
	bool again = segment_away(status) ? s->patient && !r->prompt : look_again(r, status) || (s->unsettled && s->unsettled(s->unsettled_arg));
	if (again && !s->env->dead) {
		if (segment_away(status) && link_empty(&r->waits)) {
			link_push(&s->waiting, &r->waits);
			r->away_ns = env_now_ns(s->env);
		}
		read_wait(r);
		return;
	}
	s->errors++;
	if (status == -EBADMSG || status == -ENOENT || status == -EINVAL || status == -ENODATA) /* gone, shorter than it was, or trimmed */
		status = -EIO;
	block_read_end(r, status);
}

static void read_good(struct block_read *r, struct peer *peer)
{
	if (r->absent && peer)
		copies_found(peer->copies, r->io.segment, peer);
	block_read_end(r, 0);
}

/* Asks the next server, if there is one. */
static void read_next(struct block_read *r, int status)
{
	if (r->expired) {
		block_read_end(r, -EIO);
		return;
	}
	struct peer *next = block_read_next_peer(r);
	if (next && r->attempts == PLACEMENT_CANDIDATES_MAX)
		next = NULL;
	if (!next && !r->twice && (next = r->damaged)) /* was it the way here? */
		r->twice = true;
	if (next) {
		r->sources->retries++;
		read_from(r, next);
		return;
	}
	read_failed(r, status);
}

static void note_bad(struct block_read *r, const struct peer *peer)
{
	for (unsigned i = 0; i < r->attempts && peer && peer->copies->catalog; i++)
		if (r->asked[i] == peer) {
			r->bad |= 1u << i;
			r->sources->damaged++;
			return;
		}
}

static void note_failure(struct block_read *r, struct peer *peer, int status)
{
	if (status == -EBADMSG)
		r->damaged = peer;
	if (status == -EBADMSG || status == -EIO)
		note_bad(r, peer);
	r->away |= segment_away(status);
	r->absent |= !segment_away(status) && status != -ECANCELED && status != -EBADMSG; /* other blocks may be good, and this one soon is */
	r->gone |= status == -ENODATA;
}

static void read_done(struct job *j)
{
	struct block_read *r = container_of(j, struct block_read, job);
	int status = j->status ? j->status : block_read_verify(r, r->iov, r->iov_count);
	if (r->peer)
		peer_blame(r->peer, status);
	hedge_answered(&r->sources->hedges, r, status);
	if (status == 0) {
		if (r->peer)
			peer_answered(r->peer, r->count, env_now_ns(r->sources->env) - r->since_ns);
		hedge_forget(r);
		read_good(r, r->peer);
		return;
	}
	note_failure(r, r->peer, status);
	if (r->rival && r->rival->good) {
		hedge_take(r);
		block_read_end(r, 0);
		return;
	}
	r->lost = r->rival != NULL;
	r->status = status;
	if (!r->lost)
		read_next(r, status);
}

void block_read_rival_done(struct block_read *r, int status)
{
	bool lost = r->lost;
	r->lost = false;
	if (status == 0 && lost) {
		hedge_take(r);
		block_read_end(r, 0);
	} else if (status < 0) {
		note_failure(r, r->rival->peer, status);
		r->sources->retries++;
		r->rival = NULL;
		if (lost)
			read_next(r, r->status);
	}
}

static void read_begin(struct sources *s, struct block_read *r, const struct pointer *pointers, uint32_t count,
		       const struct iovec *iov, int iov_count, bool prompt, struct job *parent)
{
	job_hold(parent);
	r->sources = s;
	r->pointers = pointers;
	r->count = count;
	r->iov = iov;
	r->iov_count = iov_count;
	r->looks = 0;
	r->parent = parent;
	r->rival = NULL;
	r->apart = NULL;
	r->lost = r->expired = false;
	r->prompt = prompt;
	r->busy = true;
	link_init(&r->slow);
	link_init(&r->waits);
	timer_init(&r->again);
	read_start(r);
}

void sources_read(struct sources *s, struct block_read *r, const struct pointer *pointers, uint32_t count,
		  const struct iovec *iov, int iov_count, struct job *parent)
{
	read_begin(s, r, pointers, count, iov, iov_count, /* prompt= */ false, parent);
}

void block_read_expire(struct block_read *r)
{
	if (!r->busy)
		return;
	r->expired = true;
	if (r->apart) {
		block_read_apart_expire(r);
		return;
	}
	if (timer_running(&r->again)) {
		timer_cancel(r->sources->env, &r->again);
		return;
	}
	if (r->peer)
		peer_cancel(r->peer, &r->io);
	if (r->rival)
		peer_cancel(r->rival->peer, &r->rival->io);
}

bool sources_waits(struct sources *s, char *ret_text, size_t bytes, uint64_t *ret_since_ns)
{
	struct peer *candidates[PLACEMENT_CANDIDATES_MAX];
	char who[META_TEXT_MAX];
	if (link_empty(&s->waiting))
		return false;
	const struct block_read *r = container_of(s->waiting.next, struct block_read, waits);
	struct copies *copies = source_of(s, r->io.segment);
	unsigned n = copies ? copies_candidates(copies, r->io.segment, candidates) : 0;
	peers_missing(candidates, n, who, sizeof who);
	snprintf(ret_text, bytes, "segment %llu, which is where nobody answers; missing: %.160s", (unsigned long long)r->io.segment, who[0] ? who : "none now");
	*ret_since_ns = r->away_ns;
	return true;
}

enum { DESCRIBED_MAX = 32 };

void sources_describe(const struct sources *s, void (*item)(void *arg, const char *key, uint64_t value), void *arg)
{
	char key[META_TEXT_MAX + 16];
	for (unsigned i = 0, n = 0; s->cluster && i < s->cluster->count && n < DESCRIBED_MAX; i++) {
		const struct peer *p = s->cluster->peers[i];
		if (p->reads == 0)
			continue;
		snprintf(key, sizeof key, "reads %s", p->address);
		item(arg, key, p->reads);
		snprintf(key, sizeof key, "read_us %s", p->address);
		item(arg, key, p->read_ns / 1000);
		n++;
	}
}

struct nodes_read {
	struct job job;
	struct block_read read;
	struct pointer at[TREE_RUN_MAX];
	struct iovec iov[TREE_RUN_MAX];
	struct job *parent;
};

static void nodes_read_done(struct job *j)
{
	struct nodes_read *n = container_of(j, struct nodes_read, job);
	job_put(n->parent, j->status);
	free(n);
}

void sources_read_nodes(void *sources, const struct pointer *at, void *const *pages, unsigned count, struct job *parent)
{
	struct sources *s = sources;
	job_hold(parent);
	struct nodes_read *n = malloc(sizeof *n);
	if (!n) {
		job_put(parent, -ENOMEM);
		return;
	}
	for (unsigned i = 0; i < count; i++) {
		n->at[i] = at[i];
		n->iov[i] = (struct iovec){ pages[i], BLOCK_BYTES };
	}
	n->parent = parent;
	job_init(&n->job, &s->env->loop);
	sources_read(s, &n->read, n->at, count, n->iov, (int)count, &n->job);
	job_then(&n->job, nodes_read_done);
}

static int read_one_block(struct sources *s, const struct pointer *at, void *page, bool prompt)
{
	struct iovec v = { page, BLOCK_BYTES };
	struct block_read r;
	struct job j;
	job_init(&j, &s->env->loop);
	read_begin(s, &r, at, 1, &v, 1, prompt, &j);
	return fiber_wait(&j);
}

int sources_read_wait(struct sources *s, const struct pointer *at, void *page) { return read_one_block(s, at, page, /* prompt= */ false); }
int sources_read_now(struct sources *s, const struct pointer *at, void *page) { return read_one_block(s, at, page, /* prompt= */ true); }
