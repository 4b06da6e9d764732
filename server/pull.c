/* One copy from its peers' (R33): pages are fetched while the one before is written; a page that doesn't come, or is damaged, is
 * asked of the next. What is free is asked at the end, of all; and once more when the copy is there, because who trims meanwhile
 * finds none here, and may have been answered by a peer after that was asked. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/plant.h"
#include "server/keeper_private.h"

enum { TRIES_EACH = 3 };
#define SLICE_NS (200 * NS_PER_MS)
#define WINDOW_NS (5 * NS_PER_S)

struct fetch {
	struct segment_io io;
	struct iovec v;
	struct job job;
	uint8_t *page;
	struct peer *peer;
};

struct pull {
	struct keeper *k;
	const struct found *sources;
	size_t count, at;     /* whom to ask */
	unsigned failed;
	uint32_t length;
	struct segment_install *install;
	struct fetch fetch[2];
};

/* ---- the limit ---- */

static void throttle(struct keeper *k)
{
	for (uint64_t now; k->options.bytes_per_s && (now = env_now_ns(k->env)) < k->due_ns && !keeper_ends(k);)
		fiber_sleep(&k->env->loop, MIN(k->due_ns - now, (uint64_t)SLICE_NS));
}

static void note_bytes(struct keeper *k, uint64_t bytes)
{
	uint64_t now = env_now_ns(k->env), rate = k->options.bytes_per_s;
	if (rate)
		k->due_ns = MAX(k->due_ns, now) + (uint64_t)((double)bytes * (double)NS_PER_S / (double)rate);
	if (k->window_ns == 0 || now - k->window_ns > 4 * WINDOW_NS) {
		k->window_ns = now;
		k->window_bytes = 0;
	}
	k->window_bytes += bytes;
	if (now - k->window_ns >= SLICE_NS) /* sooner it would be chance */
		k->status.bytes_per_s = (uint64_t)((double)k->window_bytes * (double)NS_PER_S / (double)(now - k->window_ns));
	if (now - k->window_ns >= WINDOW_NS)
		k->window_ns = 0;
	k->status.rebuilt_bytes += bytes;
	k->status.missing_bytes -= MIN(k->status.missing_bytes, bytes);
}

/* ---- pages ---- */

static void fetch_start(struct pull *p, struct fetch *f, uint32_t block)
{
	f->v = (struct iovec){ f->page, SHARE_HEAD_BYTES + SHARE_FETCH_MAX * (size_t)BLOCK_BYTES };
	f->io = (struct segment_io){ .op = SEGMENT_FETCH, .segment = p->sources[0].e.header.segment, .block = block, .blocks = SHARE_FETCH_MAX,
				     .iov = &f->v, .iov_count = 1 };
	f->peer = p->sources[p->at].peer;
	job_init(&f->job, &p->k->env->loop);
	peer_submit(f->peer, &f->io, &f->job);
}

static int fetch_wait(struct fetch *f)
{
	int r = fiber_wait(&f->job);
	peer_blame(f->peer, f->io.status);
	return r;
}

/* It was damaged, or the disk there couldn't read it: its server looks at that, and mends it. */
static void tell(struct pull *p, const struct fetch *f, uint64_t next)
{
	uint64_t blocks = next > f->io.block ? next - f->io.block : SHARE_FETCH_MAX;
	repairs_note(&p->k->repairs, f->peer, f->io.segment, f->io.block, (uint32_t)MIN(blocks, (uint64_t)REPAIR_BLOCKS_MAX));
}

/* Writes a page while the next one comes, if there is one. -EAGAIN: it is of no use. */
static int pull_page(struct pull *p, struct fetch *f, struct fetch *other, bool *ret_coming)
{
	uint64_t next = f->io.next;
	bool more = next > f->io.block && next < p->length;
	if (more) {
		throttle(p->k);
		fetch_start(p, other, (uint32_t)next);
	}
	int r = segment_dir_install_page(p->install, f->page, f->io.filled, next);
	if (r == 0)
		note_bytes(p->k, f->io.filled - SHARE_HEAD_BYTES);
	if (r == -EBADMSG)
		tell(p, f, next);
	if (r < 0 && more)
		fetch_wait(other);
	*ret_coming = r == 0 && more;
	return r == -EBADMSG ? -EAGAIN : r;
}

static int pull_pages(struct pull *p)
{
	struct fetch *f = &p->fetch[0], *other = &p->fetch[1], *swap;
	bool coming = false;
	while (segment_dir_install_next(p->install) < p->length) {
		if (!coming) {
			throttle(p->k);
			fetch_start(p, f, segment_dir_install_next(p->install));
		}
		int r = fetch_wait(f) < 0 ? -EAGAIN : 0;
		if (f->io.status == -EIO)
			tell(p, f, 0);
		coming = false;
		if (r == 0)
			r = pull_page(p, f, other, &coming);
		if (keeper_ends(p->k)) {
			if (coming)
				fetch_wait(other);
			return -ESHUTDOWN;
		}
		if (r == -EAGAIN && ++p->failed >= TRIES_EACH * p->count)
			return f->io.status < 0 ? f->io.status : -EIO;
		if (r == -EAGAIN)
			p->at = (p->at + 1) % p->count;
		else if (r < 0)
			return r;
		else if (coming) {
			swap = f;
			f = other;
			other = swap;
		}
	}
	return 0;
}

/* ---- what is free ---- */

/* United from all that answer. Returns how many did. */
static size_t ask_frees(const struct found *sources, size_t count, uint8_t *bits)
{
	uint8_t one[SEGMENT_BITMAP_BYTES];
	size_t answered = 0;
	memset(bits, 0, SEGMENT_BITMAP_BYTES);
	for (size_t i = 0; i < count; i++) {
		struct segment_io io = { .op = SEGMENT_STAT, .segment = sources[i].e.header.segment, .free_bits = one };
		if (!sources[i].peer || !peer_usable(sources[i].peer) || peer_wait(sources[i].peer, &io) < 0 || !io.sealed)
			continue;
		answered++;
		for (uint32_t b = 0; b < SEGMENT_BITMAP_BYTES; b++)
			bits[b] |= one[b];
	}
	return answered;
}

int pull_frees(struct keeper *k, const struct found *sources, size_t count)
{
	uint8_t bits[SEGMENT_BITMAP_BYTES];
	const struct share_entry *e = &sources[0].e;
	if (ask_frees(sources, count, bits) == 0)
		return -ENOTCONN;
	struct segment_io io = { .op = SEGMENT_TRIM, .segment = e->header.segment, .blocks = e->length, .trim = bits };
	return PLANTED(pull_no_frees) ? 0 : keeper_own(k, &io);
}

/* ---- all of it ---- */

static int pull_run(struct pull *p)
{
	const struct share_entry *e = &p->sources[0].e;
	uint8_t bits[SEGMENT_BITMAP_BYTES];
	int r = segment_dir_install_begin(p->k->dir, e, &p->install);
	if (r < 0)
		return r;
	r = pull_pages(p);
	if (r == 0 && ask_frees(p->sources, p->count, bits) == 0)
		r = -ENOTCONN;
	if (r < 0)
		segment_dir_install_abort(p->install);
	else
		r = segment_dir_install_end(p->install, bits);
	if (r == 0) /* a round that comes later finds what this misses */
		pull_frees(p->k, p->sources, p->count);
	return r;
}

size_t pull_source(uint64_t segment, size_t count) { return (size_t)(placement_mix(segment) >> 32) % count; }

int pull_copy(struct keeper *k, const struct found *sources, size_t count)
{
	/* not always the first, by its id: when a server is lost, its groups' others share what is to be sent */
	struct pull p = { .k = k, .sources = sources, .count = count, .length = sources[0].e.length, .at = pull_source(sources[0].e.header.segment, count) };
	size_t bytes = SHARE_HEAD_BYTES + SHARE_FETCH_MAX * (size_t)BLOCK_BYTES;
	p.fetch[0].page = env_alloc_aligned(bytes);
	p.fetch[1].page = env_alloc_aligned(bytes);
	int r = p.fetch[0].page && p.fetch[1].page ? pull_run(&p) : -ENOMEM;
	free(p.fetch[0].page);
	free(p.fetch[1].page);
	return r;
}
