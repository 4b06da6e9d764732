#include "proto/frame.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/crc.h"
#include "proto/arena.h"

struct frame_sample {
	size_t bytes;
	uint8_t buffer[1024];
};

static struct frame_sample sample(enum frame_kind kind, uint64_t id, uint32_t payload_bytes)
{
	struct frame_sample s;
	Aquifer__Envelope e = AQUIFER__ENVELOPE__INIT;
	Aquifer__Hello h = AQUIFER__HELLO__INIT;
	h.service = (char *)"segment";
	h.protocol = 3;
	e.method = 7;
	e.reply_limit = 4096;
	e.status = -ENOSPC;
	e.text = (char *)"the store is full";
	s.bytes = frame_bytes(&e, &h.base);
	cr_assert_leq(s.bytes, sizeof s.buffer);
	frame_encode(kind, &e, &h.base, payload_bytes, s.buffer);
	frame_seal(s.buffer, id);
	return s;
}

/* As frame_seal() would, after a header was tampered with by somebody who knows how. */
static void reseal(struct frame_sample *s)
{
	put_le32(s->buffer + 16, crc32c(crc32c(0, s->buffer, 16), s->buffer + 20, s->bytes - 20));
}

Test(frame, round_trip)
{
	struct frame_sample s = sample(FRAME_CALL, UINT64_C(0x123456789abcdef0), 12345);
	struct frame f;
	size_t need;
	cr_assert_eq(frame_decode(s.buffer, sizeof s.buffer, &f, &need), 0);
	cr_assert_eq(need, s.bytes);
	cr_assert_eq(f.kind, FRAME_CALL);
	cr_assert_eq(f.payload_bytes, 12345);
	cr_assert_eq(f.header_bytes, s.bytes - FRAME_PREFIX_BYTES);
	struct arena a;
	arena_init(&a);
	Aquifer__Envelope *e = frame_envelope(&f, &a.allocator);
	cr_assert(e);
	cr_assert_eq(e->id, UINT64_C(0x123456789abcdef0));
	cr_assert_eq(e->method, 7);
	cr_assert_eq(e->status, -ENOSPC);
	cr_assert_str_eq(e->text, "the store is full");
	Aquifer__Hello *h = aquifer__hello__unpack(&a.allocator, e->body.len, e->body.data);
	cr_assert_str_eq(h->service, "segment");
	cr_assert_eq(h->protocol, 3);
	arena_reset(&a);
}

/* What is on the wire is a contract: docs/formats/rpc.md. */
Test(frame, bytes_are_as_documented)
{
	Aquifer__Envelope e = AQUIFER__ENVELOPE__INIT;
	uint8_t b[64];
	cr_assert_eq(frame_bytes(&e, NULL), 20 + 9);
	frame_encode(FRAME_PING, &e, NULL, 0, b);
	frame_seal(b, 5);
	const uint8_t expect[] = { 0x41, 0x51, 0x50, 0x52, 1, 0, 4, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0x5e, 0x0f, 0x97, 0xaa,
				   0x09, 5, 0, 0, 0, 0, 0, 0, 0 };
	cr_assert_arr_eq(b, expect, sizeof expect);
	frame_encode(FRAME_PING, &e, NULL, 0x010203, b);
	cr_assert_eq(get_le32(b + 12), 0x010203);
}

/* A body of any size packs as protobuf-c itself would pack the envelope. */
Test(frame, body_is_plain_protobuf)
{
	static char text[20000];
	for (size_t n = 0; n < sizeof text; n = n * 3 + 1) {
		memset(text, 'x', n);
		text[n] = 0;
		Aquifer__Hello h = AQUIFER__HELLO__INIT;
		h.software = text;
		Aquifer__Envelope e = AQUIFER__ENVELOPE__INIT;
		e.method = 300;
		size_t bytes = frame_bytes(&e, &h.base);
		uint8_t *b = malloc(bytes);
		frame_encode(FRAME_CALL, &e, &h.base, 0, b);
		frame_seal(b, 77);
		e.id = 77;
		e.body.len = aquifer__hello__get_packed_size(&h);
		e.body.data = malloc(e.body.len + 1);
		aquifer__hello__pack(&h, e.body.data);
		cr_assert_eq(aquifer__envelope__get_packed_size(&e), bytes - 20);
		uint8_t *plain = malloc(bytes);
		aquifer__envelope__pack(&e, plain);
		cr_assert_arr_eq(plain, b + 20, bytes - 20);
		free(plain);
		free(e.body.data);
		free(b);
	}
}

Test(frame, asks_for_more_until_whole)
{
	struct frame_sample s = sample(FRAME_REPLY, 1, 0);
	struct frame f;
	for (size_t n = 0; n < s.bytes; n++) {
		size_t need = 0;
		cr_assert_eq(frame_decode(s.buffer, n, &f, &need), -EAGAIN);
		cr_assert_eq(need, n < FRAME_PREFIX_BYTES ? (size_t)FRAME_PREFIX_BYTES : s.bytes);
	}
}

Test(frame, every_flipped_bit_is_noticed)
{
	struct frame_sample s = sample(FRAME_CALL, 99, 4096);
	for (size_t bit = 0; bit < s.bytes * 8; bit++) {
		struct frame f;
		size_t need;
		s.buffer[bit / 8] ^= (uint8_t)(1u << bit % 8);
		cr_assert_neq(frame_decode(s.buffer, sizeof s.buffer, &f, &need), 0, "bit %zu", bit);
		s.buffer[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

Test(frame, lengths_have_limits_before_the_checksum)
{
	struct frame_sample s = sample(FRAME_CALL, 1, 0);
	struct frame f;
	size_t need;
	put_le32(s.buffer + 8, FRAME_HEADER_MAX + 1);
	cr_assert_eq(frame_decode(s.buffer, FRAME_PREFIX_BYTES, &f, &need), -EMSGSIZE);
	put_le32(s.buffer + 8, UINT32_MAX);
	cr_assert_eq(frame_decode(s.buffer, FRAME_PREFIX_BYTES, &f, &need), -EMSGSIZE);
	put_le32(s.buffer + 8, (uint32_t)s.bytes - 20);
	put_le32(s.buffer + 12, FRAME_PAYLOAD_MAX + 1);
	cr_assert_eq(frame_decode(s.buffer, FRAME_PREFIX_BYTES, &f, &need), -EMSGSIZE);
	put_le32(s.buffer + 12, FRAME_PAYLOAD_MAX);
	reseal(&s);
	cr_assert_eq(frame_decode(s.buffer, s.bytes, &f, &need), 0);
}

Test(frame, refuses_newer_version_and_unknown_kind)
{
	struct frame_sample s = sample(FRAME_CALL, 1, 0);
	struct frame f;
	size_t need;
	put_le16(s.buffer + 4, FRAME_VERSION + 1);
	reseal(&s);
	cr_assert_eq(frame_decode(s.buffer, s.bytes, &f, &need), -EPROTONOSUPPORT);
	put_le16(s.buffer + 4, FRAME_VERSION);
	for (int kind = 0; kind < 256; kind++) {
		s.buffer[6] = (uint8_t)kind;
		reseal(&s);
		cr_assert_eq(frame_decode(s.buffer, s.bytes, &f, &need), kind >= 1 && kind <= 5 ? 0 : -EBADMSG);
	}
}

Test(frame, envelope_without_id_is_refused)
{
	struct frame_sample s = sample(FRAME_CALL, 1, 0);
	struct frame f;
	size_t need;
	struct arena a;
	arena_init(&a);
	put_le64(s.buffer + 21, 0);
	reseal(&s);
	cr_assert_eq(frame_decode(s.buffer, s.bytes, &f, &need), 0);
	cr_assert_null(frame_envelope(&f, &a.allocator));
	arena_reset(&a);
}

Test(arena, is_bounded_and_reusable)
{
	struct arena a;
	arena_init(&a);
	for (int round = 0; round < 3; round++) {
		size_t total = 0;
		void *p;
		for (size_t n = 1; (p = a.allocator.alloc(&a, n)); n = n * 5 % 9973 + 1) {
			cr_assert_eq((uintptr_t)p % 16, 0);
			memset(p, 0xee, n);
			total += n;
		}
		cr_assert_gt(total, ARENA_MAX / 2);
		cr_assert_leq(total, ARENA_MAX);
		arena_reset(&a);
	}
	cr_assert_null(a.allocator.alloc(&a, SIZE_MAX));
	cr_assert_null(a.allocator.alloc(&a, ARENA_MAX + 1));
	arena_reset(&a);
}
