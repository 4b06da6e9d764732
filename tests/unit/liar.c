#include "tests/unit/liar.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/segment/segment_share.h"

#define METHOD(name) AQUIFER__SEGMENT__METHOD__##name
#define SILENCE_NS (30 * NS_PER_S)

static uint64_t draw(struct liar *l, uint64_t below) { return l->draw(l->arg) % below; }

/* ---- what isn't asked of a directory ---- */

static void tell_info(struct liar *l, struct rpc_request *r, enum lie lie)
{
	uint8_t id[20];
	Aquifer__Segment__Info m = AQUIFER__SEGMENT__INFO__INIT;
	memset(id, 'x', sizeof id);
	memcpy(id, l->dir->id.bytes, 16);
	m.server = (ProtobufCBinaryData){ lie == LIE_CUT ? draw(l, 20) : 16, id };
	id[3] ^= lie == LIE_OTHER;
	m.incarnation = lie == LIE_EPOCH ? l->draw(l->arg) : l->dir->incarnation;
	m.free_bytes = l->dir->free_bytes;
	m.total_bytes = lie == LIE_HUGE ? UINT64_MAX : l->dir->total_bytes;
	m.software = (char *)(uintptr_t)(lie == LIE_DATA ? "\x1b[2Jx\n" : "liar");
	rpc_reply_bytes(r, &m.base, 0);
}

static void tell_status(struct liar *l, struct rpc_request *r, enum lie lie)
{
	uint8_t held[64];
	Aquifer__Segment__Status m = AQUIFER__SEGMENT__STATUS__INIT;
	uint64_t *numbers[] = { &m.map, &m.copies, &m.missing, &m.missing_bytes, &m.bytes_per_s, &m.rounds, &m.gc_rounds, &m.gc_freed };
	memset(held, 0, sizeof held);
	for (unsigned i = 0; lie && i < ARRAY_COUNT(numbers); i++)
		*numbers[i] = l->draw(l->arg) >> draw(l, 64);
	m.held = (ProtobufCBinaryData){ lie ? draw(l, 64) : 0, held };
	m.held_rounds = (uint32_t)l->draw(l->arg);
	m.settled = lie & 1;
	rpc_reply_bytes(r, &m.base, 0);
}

static void tell_scrub(struct liar *l, struct rpc_request *r, enum lie lie)
{
	Aquifer__Segment__ScrubFault f = AQUIFER__SEGMENT__SCRUB_FAULT__INIT, *faults[100];
	Aquifer__Segment__Scrub m = AQUIFER__SEGMENT__SCRUB__INIT;
	for (unsigned i = 0; i < ARRAY_COUNT(faults); i++)
		faults[i] = &f;
	f.segment = l->draw(l->arg);
	f.footer = f.segment & 1;
	m.number = lie ? l->draw(l->arg) >> draw(l, 64) : 1;
	m.ended = lie ? l->draw(l->arg) >> draw(l, 64) : UINT64_MAX;
	m.bytes = m.total_bytes = m.bad = m.read_bad = lie ? l->draw(l->arg) : 0;
	m.read_repaired = lie ? l->draw(l->arg) : 0;
	m.n_faults = lie ? draw(l, ARRAY_COUNT(faults)) : 0;
	m.faults = faults;
	rpc_reply_bytes(r, &m.base, 0);
}

/* ---- the rest ---- */

static void change_message(struct liar *l, enum lie lie, Aquifer__Segment__Reply *m, Aquifer__Segment__Reply *other)
{
	switch (lie) {
	case LIE_LONGER: m->length += 1 + (uint32_t)draw(l, 40); break;
	case LIE_SHORTER: {
		uint32_t less = 1 + (uint32_t)draw(l, 40);
		m->length -= MIN(m->length, less);
		break;
	}
	case LIE_HUGE: m->length = m->present = (uint32_t)(SEGMENT_BLOCKS_MAX + draw(l, 3)); break;
	case LIE_STATE:
		m->state = (Aquifer__Segment__State)draw(l, 6);
		m->sealed = (int)draw(l, 2);
		break;
	case LIE_EPOCH: m->fenced_epoch = l->draw(l->arg); break;
	case LIE_CHAIN:
		m->last_crc = (uint32_t)l->draw(l->arg);
		m->last_seq = l->draw(l->arg) >> draw(l, 64);
		break;
	case LIE_NEXT: m->next = draw(l, 2) ? l->draw(l->arg) >> draw(l, 64) : m->next + 1; break;
	case LIE_REPLAY: *m = *other; break;
	default: break;
	}
}

static uint32_t change_bytes(struct liar *l, enum lie lie, uint8_t *bytes, uint32_t n, uint32_t room)
{
	switch (lie) {
	case LIE_DATA:
		for (unsigned i = 0; n && i < 3; i++)
			bytes[draw(l, n)] ^= (uint8_t)(1u << draw(l, 8));
		return n;
	case LIE_REPLAY:
		if (room)
			memcpy(bytes, l->last_bytes, MIN(l->last_length, room));
		return MIN(l->last_length, room);
	case LIE_CUT: return n / 2;
	case LIE_NO_PAYLOAD: return 0;
	default: return n;
	}
}

static void remember(struct liar *l, const Aquifer__Segment__Reply *m, const uint8_t *bytes, uint32_t n)
{
	l->last = *m;
	l->last.trim = (ProtobufCBinaryData){ 0, NULL };
	if (n)
		memcpy(l->last_bytes, bytes, n);
	l->last_length = n;
}

static int do_it(struct liar *l, enum lie lie, struct segment_io *io)
{
	static const int errors[] = { -EPERM, -ESTALE, -EINVAL, -EROFS, -ENOENT, -EEXIST, -ENOSPC, -EIO, -ENODATA, -EBUSY, -ETIMEDOUT, -ENOMEM, -4095 };
	bool keeps = io->op == SEGMENT_APPEND || io->op == SEGMENT_SYNC || io->op == SEGMENT_REPAIR || io->op == SEGMENT_CREATE || io->op == SEGMENT_FENCE;
	if (lie == LIE_ERROR)
		return errors[draw(l, ARRAY_COUNT(errors))];
	if (lie == LIE_OTHER && io->op == SEGMENT_READ)
		io->block = io->block ? io->block - 1 : 0;
	if (lie == LIE_OTHER && (io->op == SEGMENT_FETCH || io->op == SEGMENT_STAT))
		io->segment++;
	if (lie == LIE_WITHOUT && keeps)
		return 0;
	if (io->op == SEGMENT_HOLDS)
		return 0;
	return segment_wait(l->dir, io);
}

static void tell(struct liar *l, struct rpc_request *r, enum lie lie)
{
	const char *why;
	struct segment_io io;
	uint8_t bits[SEGMENT_BITMAP_BYTES];
	const Aquifer__Segment__Request *q = (const Aquifer__Segment__Request *)rpc_request_body(r, &aquifer__segment__request__descriptor);
	int status = q ? segment_wire_parse(r->method, q, r->payload_bytes, r->reply_limit, &io, &why) : -EBADMSG;
	if (status < 0) {
		rpc_reply(r, status, NULL, NULL, NULL, 0);
		return;
	}
	bool reads = io.op == SEGMENT_READ || segment_fills(io.op);
	struct iovec v = { reads ? r->reply_payload : r->payload, reads ? r->reply_limit : r->payload_bytes };
	io.iov = &v;
	io.iov_count = v.iov_len ? 1 : 0;
	io.free_bits = io.op == SEGMENT_STAT && q->want_trim ? bits : NULL;
	memset(bits, 0, sizeof bits);
	status = do_it(l, lie, &io);
	if (status < 0) {
		rpc_reply(r, status, "it is as it is", NULL, NULL, 0);
		return;
	}
	Aquifer__Segment__Reply m, before = l->last;
	Aquifer__Hello hello = AQUIFER__HELLO__INIT;
	hello.service = (char *)(uintptr_t)"that isn't what you asked for, is it?";
	segment_wire_reply(&io, &m);
	change_message(l, lie, &m, &before);
	if (lie == LIE_OTHER && m.trim.data)
		memset(bits, 0xff, m.trim.len);
	uint32_t n = io.op == SEGMENT_READ ? r->reply_limit : segment_fills(io.op) ? io.filled : 0, sent = n;
	sent = change_bytes(l, lie, r->reply_payload, n, r->reply_limit);
	if (lie != LIE_REPLAY)
		remember(l, &m, r->reply_payload, n);
	rpc_reply_bytes(r, lie == LIE_NO_MESSAGE ? NULL : lie == LIE_MESSAGE ? &hello.base : &m.base, sent);
}

static void handle(void *arg, struct rpc_request *r)
{
	struct liar *l = arg;
	enum lie lie = l->choose(l->arg, r->method);
	l->told[lie]++;
	if (lie == LIE_SILENT)
		fiber_sleep(&l->env->loop, SILENCE_NS);
	if (r->method == METHOD(INFO))
		tell_info(l, r, lie);
	else if (r->method == METHOD(STATUS) || r->method == METHOD(GC))
		tell_status(l, r, lie);
	else if (r->method == METHOD(SCRUB))
		tell_scrub(l, r, lie);
	else
		tell(l, r, lie);
}

int liar_start(struct liar *l, struct env *env, struct catalog *catalog, const char *path, const char *address, const char *domain)
{
	struct segment_dir_options o = { .create = true, .address = address, .domain = domain };
	struct rpc_server_options rpc = { .service = SEGMENT_SERVICE, .handle = handle, .arg = l, .in_fiber = true };
	struct placed_server placed = { .weight = 1 };
	l->env = env;
	aquifer__segment__reply__init(&l->last);
	l->last_bytes = calloc(1, RPC_PAYLOAD_MAX);
	int r = l->last_bytes ? segment_dir_open(env, path, catalog, &o, &l->dir, NULL) : -ENOMEM;
	if (r == 0)
		r = rpc_listen(env, address, &rpc, &l->rpc, NULL);
	if (r < 0)
		return r;
	placed.id = l->dir->id;
	snprintf(placed.domain, sizeof placed.domain, "%s", domain);
	return placement_join(catalog, &placed, NULL);
}

void liar_stop(struct liar *l)
{
	rpc_server_close(l->rpc, 0);
	segment_server_close(l->dir);
	free(l->last_bytes);
	*l = (struct liar){ 0 };
}
