#include "agent/exports/nbd_wire.h"

#include <errno.h>
#include <string.h>

#include "core/bytes.h"

/* ---- reading hostile bytes in order ---- */

struct cursor {
	const uint8_t *at;
	uint32_t left; /* bytes */
};

static const uint8_t *cursor_take(struct cursor *c, uint32_t bytes)
{
	if (bytes > c->left)
		return NULL;
	const uint8_t *p = c->at;
	c->at += bytes;
	c->left -= bytes;
	return p;
}

static int cursor_u32(struct cursor *c, uint32_t *ret)
{
	const uint8_t *p = cursor_take(c, 4);
	if (!p)
		return -EINVAL;
	*ret = get_be32(p);
	return 0;
}

/* A counted string; the protocol limits them to NBD_NAME_MAX. */
static int cursor_text(struct cursor *c, struct nbd_text *ret)
{
	uint32_t length;
	if (cursor_u32(c, &length) < 0 || length > NBD_NAME_MAX)
		return -EINVAL;
	const uint8_t *p = cursor_take(c, length);
	if (!p)
		return -EINVAL;
	*ret = (struct nbd_text){ (const char *)p, length };
	return 0;
}

/* ---- negotiation ---- */

int nbd_get_option(const uint8_t head[NBD_OPTION_BYTES], struct nbd_option *ret_option)
{
	if (get_be64(head) != NBD_OPTION_MAGIC)
		return -EPROTO;
	*ret_option = (struct nbd_option){ .code = get_be32(head + 8), .length = get_be32(head + 12) };
	return 0;
}

bool nbd_text_is(const struct nbd_text *t, const char *text)
{
	return t->length == strlen(text) && memcmp(t->text, text, t->length) == 0;
}

int nbd_get_go(const uint8_t *data, uint32_t length, struct nbd_go *ret_go)
{
	struct cursor c = { data, length };
	struct nbd_go go = { 0 };
	const uint8_t *count = NULL;
	if (cursor_text(&c, &go.name) < 0 || !(count = cursor_take(&c, 2)) || c.left != 2u * get_be16(count))
		return -EINVAL;
	for (const uint8_t *info; (info = cursor_take(&c, 2));) {
		go.want_name |= get_be16(info) == NBD_INFO_NAME;
		go.want_description |= get_be16(info) == NBD_INFO_DESCRIPTION;
	}
	*ret_go = go;
	return 0;
}

int nbd_get_meta(const uint8_t *data, uint32_t length, struct nbd_meta *ret_meta)
{
	struct cursor c = { data, length };
	struct nbd_meta meta = { 0 };
	if (cursor_text(&c, &meta.name) < 0 || cursor_u32(&c, &meta.query_count) < 0)
		return -EINVAL;
	for (uint32_t i = 0; i < meta.query_count; i++) {
		struct nbd_text query;
		if (cursor_text(&c, &query) < 0)
			return -EINVAL;
		meta.allocation |= nbd_text_is(&query, NBD_META_ALLOCATION);
		meta.base_namespace |= nbd_text_is(&query, "base:");
	}
	if (c.left)
		return -EINVAL;
	*ret_meta = meta;
	return 0;
}

void nbd_put_hello(uint8_t ret[NBD_HELLO_BYTES])
{
	put_be64(ret, NBD_MAGIC);
	put_be64(ret + 8, NBD_OPTION_MAGIC);
	put_be16(ret + 16, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
}

void nbd_put_option_reply(uint8_t ret[NBD_OPTION_REPLY_BYTES], uint32_t option, uint32_t type, uint32_t length)
{
	put_be64(ret, NBD_OPTION_REPLY_MAGIC);
	put_be32(ret + 8, option);
	put_be32(ret + 12, type);
	put_be32(ret + 16, length);
}

/* ---- transmission ---- */

int nbd_get_request(const uint8_t bytes[NBD_REQUEST_BYTES], struct nbd_request_head *ret_head)
{
	if (get_be32(bytes) != NBD_REQUEST_MAGIC)
		return -EPROTO;
	*ret_head = (struct nbd_request_head){
		.flags = get_be16(bytes + 4),
		.type = get_be16(bytes + 6),
		.cookie = get_be64(bytes + 8),
		.offset = get_be64(bytes + 16),
		.length = get_be32(bytes + 24),
	};
	return 0;
}

/* What each command may carry: the one place that knows. */
static const struct {
	bool known, ranged, writes, limited;
	uint16_t flags;
	int beyond_end; /* the error for a range that isn't there */
} commands[] = {
	[NBD_CMD_READ] = { .known = true, .ranged = true, .limited = true, .beyond_end = -EINVAL,
			   .flags = NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_DF },
	[NBD_CMD_WRITE] = { .known = true, .ranged = true, .writes = true, .limited = true, .beyond_end = -ENOSPC,
			    .flags = NBD_CMD_FLAG_FUA },
	[NBD_CMD_FLUSH] = { .known = true, .flags = NBD_CMD_FLAG_FUA },
	[NBD_CMD_TRIM] = { .known = true, .ranged = true, .writes = true, .beyond_end = -EINVAL,
			   .flags = NBD_CMD_FLAG_FUA },
	[NBD_CMD_CACHE] = { .known = true, .ranged = true, .beyond_end = -EINVAL, .flags = NBD_CMD_FLAG_FUA },
	[NBD_CMD_WRITE_ZEROES] = { .known = true, .ranged = true, .writes = true, .beyond_end = -ENOSPC,
				   .flags = NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO },
	[NBD_CMD_BLOCK_STATUS] = { .known = true, .ranged = true, .beyond_end = -EINVAL,
				   .flags = NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE },
};

int nbd_check_request(const struct nbd_request_head *head, const struct nbd_limits *limits)
{
	if (head->type == NBD_CMD_DISC)
		return 0;
	if (head->type >= ARRAY_COUNT(commands) || !commands[head->type].known)
		return -EINVAL;
	if (head->flags & ~commands[head->type].flags)
		return -EINVAL;
	if ((head->flags & NBD_CMD_FLAG_DF) && !limits->structured)
		return -EINVAL;
	if (head->type == NBD_CMD_BLOCK_STATUS && !limits->map)
		return -EINVAL;
	if (commands[head->type].writes && limits->read_only)
		return -EPERM;
	if (!commands[head->type].ranged)
		return 0;
	if (head->length == 0 || ((head->offset | head->length) & (limits->block_size - 1)))
		return -EINVAL;
	if (commands[head->type].limited && head->length > limits->transfer_max)
		return -EINVAL;
	if (!range_within(head->offset, head->length, limits->size))
		return commands[head->type].beyond_end;
	return 0;
}

uint32_t nbd_error(int status)
{
	switch (-status) {
	case 0:
		return 0;
	case EPERM:
	case EROFS:
	case EACCES:
		return 1;
	case ENOMEM:
		return 12;
	case EINVAL:
		return 22;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return 28;
	case EOVERFLOW:
		return 75;
	case EOPNOTSUPP:
		return 95;
	case ESHUTDOWN:
		return 108;
	default:
		return 5; /* EIO */
	}
}

uint32_t nbd_put_simple(uint8_t *ret, uint64_t cookie, int status)
{
	put_be32(ret, NBD_SIMPLE_REPLY_MAGIC);
	put_be32(ret + 4, nbd_error(status));
	put_be64(ret + 8, cookie);
	return NBD_SIMPLE_REPLY_BYTES;
}

/* `length` counts all that follows the head. All our replies are one chunk. */
static void put_chunk(uint8_t *ret, uint16_t type, uint64_t cookie, uint32_t length)
{
	put_be32(ret, NBD_CHUNK_MAGIC);
	put_be16(ret + 4, NBD_CHUNK_DONE);
	put_be16(ret + 6, type);
	put_be64(ret + 8, cookie);
	put_be32(ret + 16, length);
}

uint32_t nbd_put_chunk_data(uint8_t *ret, uint64_t cookie, uint64_t offset, uint32_t length)
{
	put_chunk(ret, NBD_CHUNK_OFFSET_DATA, cookie, 8 + length);
	put_be64(ret + NBD_CHUNK_BYTES, offset);
	return NBD_CHUNK_BYTES + 8;
}

uint32_t nbd_put_chunk_status(uint8_t *ret, uint64_t cookie, uint32_t context, uint32_t extent_count)
{
	put_chunk(ret, NBD_CHUNK_BLOCK_STATUS, cookie, 4 + nbd_status_bytes(extent_count));
	put_be32(ret + NBD_CHUNK_BYTES, context);
	return NBD_CHUNK_BYTES + 4;
}

uint32_t nbd_put_chunk_error(uint8_t *ret, uint64_t cookie, int status)
{
	put_chunk(ret, NBD_CHUNK_ERROR, cookie, 6);
	put_be32(ret + NBD_CHUNK_BYTES, nbd_error(status));
	put_be16(ret + NBD_CHUNK_BYTES + 4, 0); /* no message: the number says it */
	return NBD_CHUNK_BYTES + 6;
}

void nbd_put_extent(uint8_t ret[NBD_EXTENT_BYTES], uint32_t length, uint32_t flags)
{
	put_be32(ret, length);
	put_be32(ret + 4, flags);
}
