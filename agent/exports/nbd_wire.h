/* The NBD protocol's bytes, as far as the server speaks them: fixed newstyle negotiation, simple and
 * structured replies. Pure: bytes in, a struct or an error out; no I/O, no allocation. The protocol is
 * public (NetworkBlockDevice/nbd, doc/proto.md); all numbers on the wire are big-endian. */
#ifndef AQ_NBD_WIRE_H
#define AQ_NBD_WIRE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NBD_MAGIC UINT64_C(0x4e42444d41474943)        /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC UINT64_C(0x49484156454f5054) /* "IHAVEOPT" */
#define NBD_OPTION_REPLY_MAGIC UINT64_C(0x0003e889045565a9)
#define NBD_REQUEST_MAGIC 0x25609513u
#define NBD_SIMPLE_REPLY_MAGIC 0x67446698u
#define NBD_CHUNK_MAGIC 0x668e33efu

/* Handshake flags: the server's, and the same bits from the client. */
enum { NBD_FIXED_NEWSTYLE = 1, NBD_NO_ZEROES = 2 };

enum {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
};

#define NBD_REP_ERROR(n) (UINT32_C(1) << 31 | (n))
#define NBD_REP_ACK 1u
#define NBD_REP_SERVER 2u
#define NBD_REP_INFO 3u
#define NBD_REP_META_CONTEXT 4u
#define NBD_REP_ERR_UNSUP NBD_REP_ERROR(1)
#define NBD_REP_ERR_POLICY NBD_REP_ERROR(2)
#define NBD_REP_ERR_INVALID NBD_REP_ERROR(3)
#define NBD_REP_ERR_UNKNOWN NBD_REP_ERROR(6)
#define NBD_REP_ERR_TOO_BIG NBD_REP_ERROR(9)

enum { NBD_INFO_EXPORT = 0, NBD_INFO_NAME = 1, NBD_INFO_DESCRIPTION = 2, NBD_INFO_BLOCK_SIZE = 3 };

/* Transmission flags: what the export can do. */
enum {
	NBD_FLAG_HAS_FLAGS = 1 << 0,
	NBD_FLAG_READ_ONLY = 1 << 1,
	NBD_FLAG_SEND_FLUSH = 1 << 2,
	NBD_FLAG_SEND_FUA = 1 << 3,
	NBD_FLAG_ROTATIONAL = 1 << 4,
	NBD_FLAG_SEND_TRIM = 1 << 5,
	NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
	NBD_FLAG_SEND_DF = 1 << 7,
	NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
	NBD_FLAG_SEND_CACHE = 1 << 10,
	NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
};

enum nbd_command {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
};
enum {
	NBD_CMD_FLAG_FUA = 1,
	NBD_CMD_FLAG_NO_HOLE = 2,
	NBD_CMD_FLAG_DF = 4,
	NBD_CMD_FLAG_REQ_ONE = 8,
	NBD_CMD_FLAG_FAST_ZERO = 16,
};

enum { NBD_CHUNK_DONE = 1 }; /* chunk flag: the last of its reply */
enum {
	NBD_CHUNK_NONE = 0,
	NBD_CHUNK_OFFSET_DATA = 1,
	NBD_CHUNK_BLOCK_STATUS = 5,
	NBD_CHUNK_ERROR = 0x8001,
};

#define NBD_HELLO_BYTES 18u        /* the server's first words */
#define NBD_OPTION_BYTES 16u       /* an option's head */
#define NBD_OPTION_REPLY_BYTES 20u /* an option reply's head */
#define NBD_EXPORT_BYTES 10u       /* the answer to EXPORT_NAME, without the zeroes */
#define NBD_EXPORT_ZEROES 124u
#define NBD_REQUEST_BYTES 28u
#define NBD_SIMPLE_REPLY_BYTES 16u
#define NBD_CHUNK_BYTES 20u
#define NBD_REPLY_HEAD_MAX 28u     /* the longest reply without its data */
#define NBD_NAME_MAX 4096u         /* the protocol's limit for names and queries */

/* ---- negotiation ---- */

struct nbd_option {
	uint32_t code, length; /* `length` bytes of data follow */
};
/* 0, or -EPROTO: not an option at all. */
int nbd_get_option(const uint8_t head[NBD_OPTION_BYTES], struct nbd_option *ret_option);

struct nbd_text { /* borrowed from the option's data; not NUL-terminated */
	const char *text;
	uint32_t length;
};
bool nbd_text_is(const struct nbd_text *t, const char *text);

/* The data of GO and INFO. */
struct nbd_go {
	struct nbd_text name;
	bool want_name, want_description; /* information asked for beyond what is always told */
};
/* 0, or -EINVAL. */
int nbd_get_go(const uint8_t *data, uint32_t length, struct nbd_go *ret_go);

/* The data of LIST_META_CONTEXT and SET_META_CONTEXT: the name, and what of our one context is asked for. */
struct nbd_meta {
	struct nbd_text name;
	uint32_t query_count;
	bool allocation;     /* "base:allocation" was named */
	bool base_namespace; /* "base:" was named: all contexts of that name space (LIST only) */
};
int nbd_get_meta(const uint8_t *data, uint32_t length, struct nbd_meta *ret_meta);
#define NBD_META_ALLOCATION "base:allocation"

void nbd_put_hello(uint8_t ret[NBD_HELLO_BYTES]);
void nbd_put_option_reply(uint8_t ret[NBD_OPTION_REPLY_BYTES], uint32_t option, uint32_t type, uint32_t length);

/* ---- transmission ---- */

struct nbd_request_head {
	uint16_t flags, type;
	uint64_t cookie; /* the client's own */
	uint64_t offset; /* bytes */
	uint32_t length; /* bytes */
};
/* 0, or -EPROTO: the stream is out of step. */
int nbd_get_request(const uint8_t bytes[NBD_REQUEST_BYTES], struct nbd_request_head *ret_head);

/* What requests are measured against. */
struct nbd_limits {
	uint64_t size;         /* bytes */
	uint32_t block_size;   /* bytes, a power of two */
	uint32_t transfer_max; /* bytes per READ and WRITE */
	bool read_only;
	bool structured;       /* negotiated */
	bool map;              /* base:allocation negotiated */
};
/* 0, or the -errno to answer. DISC is not a request that is answered and always passes. */
int nbd_check_request(const struct nbd_request_head *head, const struct nbd_limits *limits);

/* -errno to the protocol's error numbers; 0 stays 0. */
uint32_t nbd_error(int status);

/* Each writes the head of a reply and returns its length; data of `length` bytes follows where there is any. */
uint32_t nbd_put_simple(uint8_t *ret, uint64_t cookie, int status);
uint32_t nbd_put_chunk_data(uint8_t *ret, uint64_t cookie, uint64_t offset, uint32_t length);
uint32_t nbd_put_chunk_status(uint8_t *ret, uint64_t cookie, uint32_t context, uint32_t extent_count);
uint32_t nbd_put_chunk_error(uint8_t *ret, uint64_t cookie, int status);
#define NBD_EXTENT_BYTES 8u
static inline uint32_t nbd_status_bytes(uint32_t extent_count) { return extent_count * NBD_EXTENT_BYTES; }
void nbd_put_extent(uint8_t ret[NBD_EXTENT_BYTES], uint32_t length, uint32_t flags);
#endif
