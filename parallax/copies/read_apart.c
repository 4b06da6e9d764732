/* A run of blocks of which no copy has all, though each block may be right in another: they are read one by one, in order. That is rare, and may
 * be slow. */
#include <errno.h>
#include <stdlib.h>

#include "core/blk.h"
#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/copies/sources.h"

struct read_apart {
	struct block_read *read;
	struct block_read one; /* under way */
	struct job job;
	void *page;
};

static int read_one(struct read_apart *a, uint32_t i)
{
	struct block_read *r = a->read;
	struct iovec v = { a->page, BLOCK_BYTES };
	if (r->expired)
		return -EIO;
	job_init(&a->job, &r->sources->env->loop);
	sources_read(r->sources, &a->one, &r->pointers[i], 1, &v, 1, &a->job);
	int status = fiber_wait(&a->job);
	if (status == 0)
		iov_scatter(r->iov, r->iov_count, (uint64_t)i * BLOCK_BYTES, a->page, BLOCK_BYTES);
	return status;
}

static int read_all(void *arg)
{
	struct read_apart *a = arg;
	struct block_read *r = a->read;
	int status = 0;
	for (uint32_t i = 0; status == 0 && i < r->count; i++)
		status = read_one(a, i);
	r->apart = NULL;
	free(a->page);
	free(a);
	block_read_end(r, status);
	return 0;
}

bool block_read_apart(struct block_read *r)
{
	struct read_apart *a = calloc(1, sizeof *a);
	if (a && (a->page = env_alloc_aligned(BLOCK_BYTES))) {
		a->read = r;
		r->apart = a;
		if (fiber_start(&r->sources->env->loop, read_all, a, NULL) == 0)
			return true;
		r->apart = NULL;
		free(a->page);
	}
	free(a);
	return false;
}

void block_read_apart_expire(struct block_read *r) { block_read_expire(&r->apart->one); }
