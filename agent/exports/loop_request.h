/* Private to loop_fuse.c (connection, buffers) and loop_request.c (requests). */
#ifndef AQ_LOOP_REQUEST_H
#define AQ_LOOP_REQUEST_H
#include <linux/fuse.h>

#include "agent/exports/loop_fuse.h"
#include "core/fiber.h"

/* Data lies in page-aligned chunks. Receiving needs room for the largest request; a request
 * then keeps the chunks it uses, and only those, until it has been answered. */
#define LOOP_CHUNK_BYTES (64u << 10)
#define LOOP_TRANSFER_MAX (1u << 20) /* bytes: the most that FUSE's 256 pages hold */
#define LOOP_CHUNKS_MAX (LOOP_TRANSFER_MAX / LOOP_CHUNK_BYTES)
/* What comes before a WRITE's data; so the data begins exactly at a chunk. */
#define LOOP_HEAD_BYTES (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))

struct loop_request {
	struct job job;
	struct link link; /* in loop_fuse.requests_free */
	struct loop_fuse *fuse;
	struct blk_io io;
	uint32_t opcode;
	struct {
		struct fuse_out_header header;
		struct fuse_write_out write;
	} out;
	int iov_count;    /* of the data; what the chunks belong to */
	struct iovec iov[1 + LOOP_CHUNKS_MAX]; /* [0] the reply's header, then the data */
};

struct loop_fuse {
	struct env *env;
	struct blk_node *node;
	char name[64];
	bool read_only;
	uint32_t transfer_max;
	void (*gone)(void *arg);
	void *gone_arg;

	int fd; /* -1: cut */
	struct job pump;
	struct fd_watch watch;
	bool pump_running, paused; /* paused: waits for a request to end, not for input */
	struct fiber_cond idle;    /* woken when the pump or the last request ends */

	struct loop_request *requests;
	struct link requests_free;
	unsigned depth, in_flight;
	char *pool;
	char **chunks; /* a stack: the last freed is still in the processor's cache */
	unsigned chunk_count, chunks_free;
	char head[LOOP_HEAD_BYTES];
};

/* A request of `bytes` bytes has been received into head and the chunks on top of the stack. There is a
 * free request and there are LOOP_CHUNKS_MAX chunks. -EPROTO: the kernel speaks something else. */
int loop_request_take(struct loop_fuse *f, size_t bytes);
/* The first `bytes` of the chunks on top of the stack, which stay there; neighbours are joined. Returns the entries. */
int loop_chunks_iov(const struct loop_fuse *f, uint64_t bytes, struct iovec *ret_iov);
/* A request has ended and its buffers are free again. */
void loop_fuse_released(struct loop_fuse *f);
#endif
