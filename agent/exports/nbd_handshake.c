/* Negotiation is a dialogue of options, each answered before the next is read:
 *
 *   hello → ← client flags  ┌─▶ option (head, data) ─▶ answer ─┐
 *                           └───────────────────────────────────┴─▶ GO or EXPORT_NAME: transmission
 *
 * Options too long to be honest are drained and refused; one that is absurdly long ends the
 * connection. The number of options is limited so that nobody haggles for ever. */
#include "agent/exports/nbd_handshake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/exports/nbd_wire.h"
#include "core/bytes.h"

#define OPTIONS_MAX 256u             /* per connection */
#define DRAIN_MAX (1u << 20)         /* bytes of an option that are read only to be dropped */
#define OUT_MAX 1024u                /* the longest answer: GO with name and description */

struct handshake {
	struct stream *stream;
	const struct nbd_offer *offer;
	struct nbd_agreed agreed;
	bool no_zeroes;
	uint32_t option;     /* the one being answered */
	uint32_t length;     /* of its data */
	uint8_t *data;
	uint8_t out[OUT_MAX];
	uint32_t out_bytes;
};

/* ---- answers, collected in `out` and sent at once ---- */

static uint8_t *answer_begin(struct handshake *h, uint32_t type, uint32_t length)
{
	assert(h->out_bytes + NBD_OPTION_REPLY_BYTES + length <= OUT_MAX);
	nbd_put_option_reply(h->out + h->out_bytes, h->option, type, length);
	uint8_t *data = h->out + h->out_bytes + NBD_OPTION_REPLY_BYTES;
	h->out_bytes += NBD_OPTION_REPLY_BYTES + length;
	return data;
}

static void answer(struct handshake *h, uint32_t type)
{
	answer_begin(h, type, 0);
}

static void answer_text(struct handshake *h, uint32_t type, const char *text)
{
	uint32_t length = (uint32_t)strlen(text);
	memcpy(answer_begin(h, type, length), text, length);
}

static int answer_send(struct handshake *h) /* FIBER */
{
	uint32_t bytes = h->out_bytes;
	h->out_bytes = 0;
	return bytes ? stream_send_wait(h->stream, h->out, bytes) : 0;
}

/* ---- the options ---- */

static bool name_is_ours(const struct handshake *h, const struct nbd_text *name)
{
	return name->length == 0 || nbd_text_is(name, h->offer->name);
}

static uint16_t transmission_flags(const struct handshake *h)
{
	return (uint16_t)(h->offer->flags | NBD_FLAG_HAS_FLAGS | (h->agreed.structured ? NBD_FLAG_SEND_DF : 0));
}

static void answer_info_text(struct handshake *h, uint16_t info, const char *text)
{
	uint32_t length = (uint32_t)strlen(text);
	uint8_t *p = answer_begin(h, NBD_REP_INFO, 2 + length);
	put_be16(p, info);
	memcpy(p + 2, text, length);
}

/* GO and INFO. True if transmission may begin. */
static bool option_go(struct handshake *h)
{
	struct nbd_go go;
	if (nbd_get_go(h->data, h->length, &go) < 0) {
		answer_text(h, NBD_REP_ERR_INVALID, "malformed option");
		return false;
	}
	if (!name_is_ours(h, &go.name)) {
		answer_text(h, NBD_REP_ERR_UNKNOWN, "no export of that name here; the list has what there is");
		return false;
	}
	uint8_t *p = answer_begin(h, NBD_REP_INFO, 12);
	put_be16(p, NBD_INFO_EXPORT);
	put_be64(p + 2, h->offer->size);
	put_be16(p + 10, transmission_flags(h));
	p = answer_begin(h, NBD_REP_INFO, 14);
	put_be16(p, NBD_INFO_BLOCK_SIZE);
	put_be32(p + 2, h->offer->block_size_min);
	put_be32(p + 6, h->offer->block_size_preferred);
	put_be32(p + 10, h->offer->transfer_max);
	if (go.want_name)
		answer_info_text(h, NBD_INFO_NAME, h->offer->name);
	if (go.want_description)
		answer_info_text(h, NBD_INFO_DESCRIPTION, h->offer->description);
	answer(h, NBD_REP_ACK);
	return h->option == NBD_OPT_GO;
}

static void option_list(struct handshake *h)
{
	if (h->length) {
		answer_text(h, NBD_REP_ERR_INVALID, "LIST takes no data");
		return;
	}
	uint32_t length = (uint32_t)strlen(h->offer->name);
	uint8_t *p = answer_begin(h, NBD_REP_SERVER, 4 + length);
	put_be32(p, length);
	memcpy(p + 4, h->offer->name, length);
	answer(h, NBD_REP_ACK);
}

static void option_structured(struct handshake *h)
{
	if (h->length) {
		answer_text(h, NBD_REP_ERR_INVALID, "STRUCTURED_REPLY takes no data");
		return;
	}
	h->agreed.structured = true;
	answer(h, NBD_REP_ACK);
}

static void answer_context(struct handshake *h, uint32_t id)
{
	uint8_t *p = answer_begin(h, NBD_REP_META_CONTEXT, 4 + sizeof NBD_META_ALLOCATION - 1);
	put_be32(p, id);
	memcpy(p + 4, NBD_META_ALLOCATION, sizeof NBD_META_ALLOCATION - 1);
}

/* LIST_META_CONTEXT and SET_META_CONTEXT. A SET, also one that fails, replaces the one before. */
static void option_meta(struct handshake *h)
{
	bool set = h->option == NBD_OPT_SET_META_CONTEXT;
	if (set)
		h->agreed.map = false;
	struct nbd_meta meta;
	if (nbd_get_meta(h->data, h->length, &meta) < 0) {
		answer_text(h, NBD_REP_ERR_INVALID, "malformed option");
	} else if (set && !h->agreed.structured) {
		answer_text(h, NBD_REP_ERR_INVALID, "contexts need structured replies: negotiate them first");
	} else if (!name_is_ours(h, &meta.name)) {
		answer_text(h, NBD_REP_ERR_UNKNOWN, "no export of that name here");
	} else {
		bool selected = meta.allocation || (!set && (meta.base_namespace || meta.query_count == 0));
		if (selected)
			answer_context(h, set ? NBD_CONTEXT_ALLOCATION : 0);
		if (set)
			h->agreed.map = selected;
		answer(h, NBD_REP_ACK);
	}
}

/* FIBER. The old way in: no answer but the export itself, or hanging up. */
static int option_export_name(struct handshake *h)
{
	struct nbd_text name = { (const char *)h->data, h->length };
	if (!name_is_ours(h, &name))
		return -ENOENT;
	uint8_t reply[NBD_EXPORT_BYTES + NBD_EXPORT_ZEROES] = { 0 };
	put_be64(reply, h->offer->size);
	put_be16(reply + 8, transmission_flags(h));
	return stream_send_wait(h->stream, reply, h->no_zeroes ? NBD_EXPORT_BYTES : sizeof reply);
}

/* FIBER. Answers one option. 0: more to come; 1: transmission; -errno: hang up. */
static int option_answer(struct handshake *h)
{
	bool over = false;
	switch (h->option) {
	case NBD_OPT_EXPORT_NAME: {
		int r = option_export_name(h);
		return r < 0 ? r : 1;
	}
	case NBD_OPT_ABORT:
		answer(h, NBD_REP_ACK);
		answer_send(h);
		return -ECONNABORTED;
	case NBD_OPT_LIST:
		option_list(h);
		break;
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		over = option_go(h);
		break;
	case NBD_OPT_STRUCTURED_REPLY:
		option_structured(h);
		break;
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		option_meta(h);
		break;
	default: /* also STARTTLS: a unix socket or loopback has no use for it */
		answer(h, NBD_REP_ERR_UNSUP);
		break;
	}
	int r = answer_send(h);
	return r < 0 ? r : over;
}

/* ---- reading ---- */

/* FIBER. An option that is too long for us: out of the way, and refused. */
static int option_too_big(struct handshake *h)
{
	if (h->length > DRAIN_MAX || h->option == NBD_OPT_EXPORT_NAME)
		return -EMSGSIZE;
	for (uint32_t left = h->length; left > 0;) {
		uint32_t n = MIN(left, NBD_OPTION_DATA_MAX);
		int r = stream_recv_wait(h->stream, h->data, n);
		if (r < 0)
			return r;
		left -= n;
	}
	answer(h, NBD_REP_ERR_TOO_BIG);
	return answer_send(h);
}

/* FIBER. Reads and answers one option; results as in option_answer(). */
static int option_next(struct handshake *h)
{
	uint8_t head[NBD_OPTION_BYTES];
	struct nbd_option option;
	int r = stream_recv_wait(h->stream, head, sizeof head);
	if (r == 0)
		r = nbd_get_option(head, &option);
	if (r < 0)
		return r;
	h->option = option.code;
	h->length = option.length;
	if (h->length > NBD_OPTION_DATA_MAX)
		return option_too_big(h);
	if (h->length)
		r = stream_recv_wait(h->stream, h->data, h->length);
	return r < 0 ? r : option_answer(h);
}

static int hello(struct handshake *h) /* FIBER */
{
	uint8_t out[NBD_HELLO_BYTES], in[4];
	nbd_put_hello(out);
	int r = stream_send_wait(h->stream, out, sizeof out);
	if (r == 0)
		r = stream_recv_wait(h->stream, in, sizeof in);
	if (r < 0)
		return r;
	uint32_t flags = get_be32(in);
	if (flags & ~(uint32_t)(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES))
		return -EPROTO;
	h->no_zeroes = flags & NBD_NO_ZEROES;
	return 0;
}

int nbd_handshake(struct stream *s, const struct nbd_offer *offer, struct nbd_agreed *ret_agreed)
{
	struct handshake *h = calloc(1, sizeof *h);
	uint8_t *data = malloc(NBD_OPTION_DATA_MAX);
	int r = h && data ? 0 : -ENOMEM;
	if (r == 0) {
		h->stream = s;
		h->offer = offer;
		h->data = data;
		r = hello(h);
	}
	for (unsigned i = 0; r == 0; i++)
		r = i < OPTIONS_MAX ? option_next(h) : -EPROTO;
	if (r > 0) {
		*ret_agreed = h->agreed;
		r = 0;
	}
	free(data);
	free(h);
	return r;
}
