/* The NBD codec: every request rule, and options that lie about their lengths. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "agent/exports/nbd_wire.h"
#include "agent/exports/slab.h"
#include "core/bytes.h"

static const struct nbd_limits limits = {
	.size = 1 << 20, .block_size = 512, .transfer_max = 64 << 10, .structured = true, .map = true,
};

static int check(uint16_t type, uint16_t flags, uint64_t offset, uint32_t length)
{
	struct nbd_request_head h = { .type = type, .flags = flags, .offset = offset, .length = length };
	return nbd_check_request(&h, &limits);
}

Test(nbd_wire, request_decodes)
{
	static const uint8_t bytes[NBD_REQUEST_BYTES] = { 0x25, 0x60, 0x95, 0x13, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 7, 8,
							  0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 2, 0 };
	struct nbd_request_head h;
	cr_assert_eq(nbd_get_request(bytes, &h), 0);
	cr_assert_eq(h.flags, NBD_CMD_FLAG_FUA);
	cr_assert_eq(h.type, NBD_CMD_WRITE_ZEROES);
	cr_assert_eq(h.cookie, UINT64_C(0x0102030405060708));
	cr_assert_eq(h.offset, 4096);
	cr_assert_eq(h.length, 512);
	uint8_t bad[NBD_REQUEST_BYTES];
	memcpy(bad, bytes, sizeof bad);
	bad[3] ^= 1;
	cr_assert_eq(nbd_get_request(bad, &h), -EPROTO);
}

Test(nbd_wire, ranges)
{
	cr_assert_eq(check(NBD_CMD_READ, 0, 0, 4096), 0);
	cr_assert_eq(check(NBD_CMD_READ, 0, (1 << 20) - 512, 512), 0);
	cr_assert_eq(check(NBD_CMD_READ, 0, (1 << 20) - 512, 1024), -EINVAL);
	cr_assert_eq(check(NBD_CMD_WRITE, 0, (1 << 20) - 512, 1024), -ENOSPC);
	cr_assert_eq(check(NBD_CMD_WRITE_ZEROES, 0, 1 << 20, 512), -ENOSPC);
	cr_assert_eq(check(NBD_CMD_TRIM, 0, 1 << 20, 512), -EINVAL);
	cr_assert_eq(check(NBD_CMD_READ, 0, UINT64_MAX - 511, 1024), -EINVAL, "wraps round");
	cr_assert_eq(check(NBD_CMD_READ, 0, 0, 0), -EINVAL);
	cr_assert_eq(check(NBD_CMD_READ, 0, 100, 512), -EINVAL);
	cr_assert_eq(check(NBD_CMD_READ, 0, 512, 100), -EINVAL);
	cr_assert_eq(check(NBD_CMD_READ, 0, 0, 128 << 10), -EINVAL, "longer than a transfer");
	cr_assert_eq(check(NBD_CMD_WRITE_ZEROES, 0, 0, 128 << 10), 0, "carries no data");
	cr_assert_eq(check(NBD_CMD_FLUSH, 0, 12345, 99), 0, "the range means nothing");
}

Test(nbd_wire, flags_by_command)
{
	cr_assert_eq(check(NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, 0, 512), 0);
	cr_assert_eq(check(NBD_CMD_WRITE, NBD_CMD_FLAG_NO_HOLE, 0, 512), -EINVAL);
	cr_assert_eq(check(NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 512), 0);
	cr_assert_eq(check(NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 0, 512), 0);
	cr_assert_eq(check(NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO, 0, 512), 0);
	cr_assert_eq(check(NBD_CMD_TRIM, 1 << 15, 0, 512), -EINVAL);
	cr_assert_eq(check(99, 0, 0, 512), -EINVAL);
	cr_assert_eq(check(UINT16_MAX, 0, 0, 512), -EINVAL);
}

Test(nbd_wire, what_was_not_negotiated)
{
	struct nbd_limits l = limits;
	l.structured = l.map = false;
	struct nbd_request_head h = { .type = NBD_CMD_READ, .flags = NBD_CMD_FLAG_DF, .length = 512 };
	cr_assert_eq(nbd_check_request(&h, &l), -EINVAL);
	h = (struct nbd_request_head){ .type = NBD_CMD_BLOCK_STATUS, .length = 512 };
	cr_assert_eq(nbd_check_request(&h, &l), -EINVAL);
	l.read_only = true;
	static const uint16_t writing[] = { NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES };
	for (unsigned i = 0; i < ARRAY_COUNT(writing); i++) {
		h.type = writing[i];
		cr_assert_eq(nbd_check_request(&h, &l), -EPERM);
	}
}

/* A GO option: name, then `count` as told and `there` info requests as present. */
static uint32_t make_go(uint8_t *p, uint32_t name_told, const char *name, uint16_t count, unsigned there)
{
	uint32_t n = (uint32_t)strlen(name);
	put_be32(p, name_told);
	memcpy(p + 4, name, n);
	put_be16(p + 4 + n, count);
	for (unsigned i = 0; i < there; i++)
		put_be16(p + 6 + n + 2 * i, (uint16_t)(NBD_INFO_NAME + i));
	return 6 + n + 2 * there;
}

Test(nbd_wire, go)
{
	uint8_t data[64];
	struct nbd_go go;
	cr_assert_eq(nbd_get_go(data, make_go(data, 2, "vm", 0, 0), &go), 0);
	cr_assert(nbd_text_is(&go.name, "vm") && !go.want_name && !go.want_description);
	cr_assert_eq(nbd_get_go(data, make_go(data, 2, "vm", 2, 2), &go), 0);
	cr_assert(go.want_name && go.want_description);
	cr_assert_eq(nbd_get_go(data, make_go(data, 2, "vm", 3, 2), &go), -EINVAL);
	cr_assert_eq(nbd_get_go(data, make_go(data, 2, "vm", 0xffff, 2), &go), -EINVAL);
	cr_assert_eq(nbd_get_go(data, make_go(data, 2, "vm", 1, 2), &go), -EINVAL, "bytes left over");
	cr_assert_eq(nbd_get_go(data, make_go(data, UINT32_MAX, "vm", 0, 0), &go), -EINVAL);
	for (uint32_t n = 0; n < 6; n++)
		cr_assert_eq(nbd_get_go(data, n, &go), -EINVAL, "%u bytes", n);
}

static uint32_t make_meta(uint8_t *p, uint32_t count, const char *query)
{
	uint32_t n = (uint32_t)strlen(query);
	put_be32(p, 0);
	put_be32(p + 4, count);
	put_be32(p + 8, n);
	memcpy(p + 12, query, n);
	return 12 + n;
}

Test(nbd_wire, meta)
{
	uint8_t data[128];
	struct nbd_meta m;
	cr_assert_eq(nbd_get_meta(data, make_meta(data, 1, "base:allocation"), &m), 0);
	cr_assert(m.allocation && !m.base_namespace && m.query_count == 1);
	cr_assert_eq(nbd_get_meta(data, make_meta(data, 1, "base:"), &m), 0);
	cr_assert(!m.allocation && m.base_namespace);
	cr_assert_eq(nbd_get_meta(data, make_meta(data, 1, "base:allocationX"), &m), 0);
	cr_assert(!m.allocation && !m.base_namespace);
	cr_assert_eq(nbd_get_meta(data, make_meta(data, UINT32_MAX, "base:"), &m), -EINVAL);
	cr_assert_eq(nbd_get_meta(data, make_meta(data, 0, "base:"), &m), -EINVAL, "bytes left over");
	cr_assert_eq(nbd_get_meta(data, 7, &m), -EINVAL);
}

Test(nbd_wire, errors)
{
	cr_assert_eq(nbd_error(0), 0);
	cr_assert_eq(nbd_error(-EROFS), 1);
	cr_assert_eq(nbd_error(-ENOSPC), 28);
	cr_assert_eq(nbd_error(-ENOTSUP), 95);
	cr_assert_eq(nbd_error(-ETIMEDOUT), 5);
}

Test(slab, classes_and_limit)
{
	cr_assert_eq(slab_class_bytes(1), 4096);
	cr_assert_eq(slab_class_bytes(4096), 4096);
	cr_assert_eq(slab_class_bytes(4097), 8192);
	cr_assert_eq(slab_class_bytes(SLAB_BYTES_MAX), SLAB_BYTES_MAX);
	cr_assert_eq(slab_class_bytes(SLAB_BYTES_MAX - 1), SLAB_BYTES_MAX);
	struct slab s;
	slab_init(&s, 8192);
	void *b[4];
	for (unsigned i = 0; i < 4; i++) {
		b[i] = slab_get(&s, 3000);
		cr_assert_eq((uintptr_t)b[i] % 4096, 0);
	}
	cr_assert_eq(s.used, 4 * 4096);
	for (unsigned i = 0; i < 4; i++)
		slab_put(&s, b[i], 3000);
	cr_assert_eq(s.used, 0);
	cr_assert_eq(s.kept, 8192, "no more is kept than allowed");
	cr_assert_eq(slab_get(&s, 4096), b[1], "the one kept last");
	slab_put(&s, b[1], 4096);
	slab_fini(&s);
}
