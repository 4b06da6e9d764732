#include "parallax/store/store_scrub.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/array.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/copies/copies.h"
#include "parallax/segment/segment_remote.h"
#include "parallax/segment/segment_scrub.h"
#include "parallax/store/store_check_private.h"

#define POLL_NS (250 * NS_PER_MS)
enum { SILENT_MAX = 40 }; /* polls that weren't answered, one after the other */

/* ---- asking a server ---- */

void store_server_ask(struct copies *c, const char *id, struct store_server_work *ret)
{
	struct rpc_call call;
	struct peer *p = NULL;
	*ret = (struct store_server_work){ 0 };
	for (unsigned i = 0; i < c->count && !p; i++) {
		char text[33];
		for (unsigned k = 0; k < 16; k++)
			snprintf(text + 2 * k, 3, "%02x", c->peers[i]->id.bytes[k]);
		p = strcmp(text, id) == 0 ? c->peers[i] : NULL;
	}
	if (!p || !peer_reach(p))
		return;
	if (segment_remote_call(p->server, AQUIFER__SEGMENT__METHOD__STATUS, NULL, &aquifer__segment__status__descriptor, &call, NULL) == 0) {
		const Aquifer__Segment__Status *m = (const Aquifer__Segment__Status *)call.reply;
		ret->status = true;
		ret->copies = m->copies;
		ret->missing = m->missing;
		ret->missing_bytes = m->missing_bytes;
		ret->bytes_per_s = m->bytes_per_s;
		ret->misplaced = m->misplaced;
		ret->failures = m->failures;
		ret->failing = m->failing && m->failing < 4096 ? -(int)m->failing : 0;
		ret->gone = m->gone && m->gone < 4096 ? -(int)m->gone : 0;
		ret->silent = m->silent;
		ret->settled = m->settled;
	}
	rpc_call_clean(&call);
	if (segment_remote_call(p->server, AQUIFER__SEGMENT__METHOD__INFO, NULL, &aquifer__segment__info__descriptor, &call, NULL) == 0) {
		const Aquifer__Segment__Info *m = (const Aquifer__Segment__Info *)call.reply;
		for (size_t i = 0; m->software[i] && i + 1 < sizeof ret->software; i++)
			ret->software[i] = m->software[i] >= ' ' && m->software[i] < 127 ? m->software[i] : '?';
	}
	rpc_call_clean(&call);
	Aquifer__Segment__ScrubRequest q = AQUIFER__SEGMENT__SCRUB_REQUEST__INIT;
	if (segment_remote_call(p->server, AQUIFER__SEGMENT__METHOD__SCRUB, &q.base, &aquifer__segment__scrub__descriptor, &call, NULL) == 0) {
		const Aquifer__Segment__Scrub *m = (const Aquifer__Segment__Scrub *)call.reply;
		ret->scrub = true;
		ret->scrub_finished_ns = m->finished_ns;
		ret->scrub_bad = m->all_bad;
		ret->scrub_repaired = m->all_repaired;
		ret->scrub_unrepaired = m->unrepaired;
		ret->read_bad = m->read_bad;
		ret->read_repaired = m->read_repaired;
	}
	rpc_call_clean(&call);
}

/* ---- the servers' passes ---- */

struct target {
	struct peer *peer;
	uint64_t number;       /* of the pass that was asked for; 0: it could not be */
	uint64_t bytes, total_bytes;
	unsigned silent;
	bool done;
};

struct work {
	struct store *store;
	struct store_scrub *how;
	struct copies *copies;
	struct target *targets;
	unsigned count;
	uint64_t embedded_bytes, embedded_total;
};

static const char *address_of(const struct peer *p) { return p->address[0] ? p->address : "a server that isn't in the catalog"; }

static void skipped(struct work *w, const char *where, const char *why)
{
	w->how->incomplete++;
	if (w->how->skipped)
		w->how->skipped(w->how->arg, where, why);
}

static void progress(struct work *w)
{
	uint64_t done = w->embedded_bytes, total = MAX(w->embedded_total, w->embedded_bytes); /* headers and tables aren't among what lives */
	for (unsigned i = 0; i < w->count; i++) {
		done += w->targets[i].bytes;
		total += MAX(w->targets[i].total_bytes, w->targets[i].bytes);
	}
	if (w->how->progress)
		w->how->progress(w->how->arg, done, total);
}

/* The pass has ended: what came of it. */
static void take_result(struct work *w, struct target *t, const Aquifer__Segment__Scrub *m)
{
	char text[160];
	w->how->copies += m->copies;
	w->how->bytes += m->bytes;
	w->how->bad += m->bad;
	w->how->repaired += MIN(m->repaired, m->bad);
	for (size_t i = 0; i < m->n_faults && w->how->fault; i++) {
		const Aquifer__Segment__ScrubFault *f = m->faults[i];
		if (f->footer)
			snprintf(text, sizeof text, "segment %" PRIu64 ": its head or its footer is damaged, %s", f->segment, f->repaired ? "it will be replaced" : "and no other copy can replace it");
		else
			snprintf(text, sizeof text, "segment %" PRIu64 ", block %u is damaged, %s", f->segment, f->block, f->repaired ? "and was repaired" : "and no other copy has it");
		w->how->fault(w->how->arg, address_of(t->peer), text, f->repaired);
	}
	if (m->bad > m->n_faults && w->how->fault) {
		snprintf(text, sizeof text, "%" PRIu64 " more blocks are damaged", m->bad - m->n_faults);
		w->how->fault(w->how->arg, address_of(t->peer), text, m->repaired == m->bad);
	}
	if (m->skipped) {
		snprintf(text, sizeof text, "%" PRIu64 " copies could not be read", m->skipped);
		skipped(w, address_of(t->peer), text);
	}
}

/* Begins the pass, or looks how it goes. */
static void ask(struct work *w, struct target *t, const uuid *volume)
{
	Aquifer__Segment__ScrubRequest q = AQUIFER__SEGMENT__SCRUB_REQUEST__INIT;
	struct rpc_call call;
	struct report why = { "" };
	q.begin = t->number == 0;
	if (volume && q.begin)
		q.volume = (ProtobufCBinaryData){ sizeof *volume, (uint8_t *)(uintptr_t)volume->bytes };
	bool reached = peer_reach(t->peer);
	int r = reached ? segment_remote_call(t->peer->server, AQUIFER__SEGMENT__METHOD__SCRUB, &q.base, &aquifer__segment__scrub__descriptor, &call, &why) : -ENOTCONN;
	if (r == 0) {
		const Aquifer__Segment__Scrub *m = (const Aquifer__Segment__Scrub *)call.reply;
		t->silent = 0;
		if (q.begin)
			t->number = MAX(m->number, UINT64_C(1));
		bool current = m->ended + 1 >= t->number;
		t->bytes = current && !q.begin ? m->bytes : t->bytes;
		t->total_bytes = current && !q.begin ? m->total_bytes : t->total_bytes;
		t->done = !q.begin && m->ended >= t->number;
		if (t->done)
			take_result(w, t, m);
		/* it was started again: its numbers, too, and the pass is gone */
		if (!q.begin && !t->done && m->ended + 64 < t->number)
			t->silent = SILENT_MAX;
	} else {
		t->silent += segment_away(r) ? 1 : (unsigned)SILENT_MAX;
	}
	if (reached)
		rpc_call_clean(&call);
	if ((q.begin && r < 0) || (!t->done && t->silent >= SILENT_MAX)) {
		t->done = true;
		skipped(w, address_of(t->peer), segment_away(r) ? "it doesn't answer" : report_text(&why, r));
	}
}

static int scrub_servers(struct work *w, const uuid *volume, struct report *report)
{
	int r = copies_open(w->store->env, w->store->catalog, &w->copies, report);
	if (r < 0)
		return r;
	w->count = w->copies->map.server_count;
	w->targets = calloc(w->count + 1, sizeof *w->targets);
	r = w->targets ? 0 : -ENOMEM;
	if (r == 0 && w->copies->count)
		peers_await(w->copies->peers, w->copies->count, w->copies->count);
	for (unsigned i = 0; r == 0 && i < w->count; i++) {
		w->targets[i].peer = copies_peer(w->copies, &w->copies->map.servers[i].id);
		if (!w->targets[i].peer)
			r = -ENOMEM;
		else
			ask(w, &w->targets[i], volume);
	}
	for (bool more = true; r == 0 && more;) {
		fiber_sleep(&w->store->env->loop, POLL_NS);
		more = false;
		for (unsigned i = 0; i < w->count; i++) {
			if (!w->targets[i].done)
				ask(w, &w->targets[i], volume);
			more |= !w->targets[i].done;
		}
		progress(w);
	}
	copies_close(w->copies);
	return r;
}

/* ---- embedded volumes ---- */

struct embedded {
	struct work *w;
	char where[STORE_NAME_BYTES + 32], path[1100];
};

static void embedded_fault(struct embedded *e, const char *format, uint64_t segment, uint32_t block)
{
	char text[160];
	snprintf(text, sizeof text, format, segment, block);
	e->w->how->bad++;
	if (e->w->how->fault)
		e->w->how->fault(e->w->how->arg, e->where, text, /* repaired= */ false);
}

static int embedded_segment(void *arg, uint64_t segment)
{
	struct embedded *e = arg;
	struct work *w = e->w;
	uint32_t from = 0;
	do {
		struct scrub_slice s;
		int r = segment_path_scrub(w->store->env, e->path, segment, from, &s);
		if (r == -ENOENT) /* it isn't sealed, or is gone */
			return 0;
		if (r == -EBADMSG) {
			embedded_fault(e, "segment %" PRIu64 ": what says where its blocks are, and what they should be, is damaged", segment, 0);
			break;
		}
		if (r < 0) {
			skipped(w, e->where, errno_text(r));
			return r == -ENOMEM ? r : 0;
		}
		if (s.bad)
			embedded_fault(e, "segment %" PRIu64 ", block %u is damaged (there is no other copy)", segment, s.bad_block);
		w->embedded_bytes += (uint64_t)s.blocks * BLOCK_BYTES;
		w->how->bytes += (uint64_t)s.blocks * BLOCK_BYTES;
		progress(w);
		from = s.next;
	} while (from);
	w->how->copies++;
	return 0;
}

struct embedded_list {
	struct {
		uint64_t id;
		char name[64];
		uint64_t blocks;
	} *entries;
	size_t count;
};

static int list_embedded(void *arg, const char *key, const struct catalog_value *value)
{
	struct embedded_list *l = arg;
	uint64_t id;
	char rest[16];
	struct meta_log *log = malloc(sizeof *log);
	int r = log ? 0 : -ENOMEM;
	if (r == 0 && sscanf(key, "volume/%16" SCNx64 "/%15s", &id, rest) == 2 && strcmp(rest, "log") == 0 &&
	    meta_log_decode(value->bytes, value->length, log) == 0 && log->embedded) {
		r = array_more(&l->entries, l->count);
		if (r == 0) {
			l->entries[l->count].id = id;
			l->entries[l->count].blocks = log->live_blocks;
			snprintf(l->entries[l->count++].name, sizeof l->entries->name, "%s", log->name);
		}
	}
	free(log);
	return r;
}

static int scrub_embedded(struct work *w, uint64_t only, struct report *report)
{
	struct embedded_list l = { 0 };
	int r = catalog_list(w->store->catalog, "volume/", list_embedded, &l);
	if (r < 0)
		report_set(report, r, "the catalog: %s", catalog_text(w->store->catalog, r));
	for (size_t i = 0; i < l.count; i++)
		w->embedded_total += !only || l.entries[i].id == only ? l.entries[i].blocks * BLOCK_BYTES : 0;
	for (size_t i = 0; r == 0 && i < l.count; i++) {
		struct embedded e = { .w = w };
		if (only && l.entries[i].id != only)
			continue;
		snprintf(e.where, sizeof e.where, "volume %s", l.entries[i].name);
		places_embedded_path(w->store->places, l.entries[i].id, e.path, sizeof e.path);
		if (w->store->cluster && !places_embedded_here(w->store->places, l.entries[i].id)) {
			skipped(w, e.where, "its data is in a directory of another host (scrub it there)");
			continue;
		}
		r = segment_path_ids(w->store->env, e.path, embedded_segment, &e);
	}
	free(l.entries);
	return r;
}

int store_scrub(struct store *s, struct store_scrub *how, struct report *report)
{
	struct work w = { .store = s, .how = how };
	struct meta_log *log = malloc(sizeof *log);
	uint64_t only = 0;
	how->copies = how->bytes = how->bad = how->repaired = how->incomplete = 0;
	int r = log ? 0 : -ENOMEM;
	if (r == 0 && how->volume)
		r = store_find_volume(s->places, how->volume, &only, report);
	if (r == 0 && only && (r = meta_get_log(s->catalog, only, log, NULL)) < 0)
		report_set(report, r, "its record in the catalog can't be read: %s", catalog_text(s->catalog, r));
	if (r == 0 && !(only && !log->embedded))
		r = scrub_embedded(&w, only, report);
	if (r == 0 && !(only && log->embedded))
		r = scrub_servers(&w, only ? &log->volume : NULL, report);
	free(w.targets);
	free(log);
	if (r == 0 && !only)
		store_health_write(s, "scrub", how->bad - how->repaired, how->incomplete);
	return r;
}
