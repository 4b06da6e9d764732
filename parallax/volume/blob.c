#include "parallax/volume/blob.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "parallax/volume/volume_private.h"

enum { BLOB_RECORD_BLOCKS = 64 };

static void append_init(struct log_append *a, struct iovec *iov, uint32_t *crcs, const uint8_t *blocks, uint32_t count)
{
	*iov = (struct iovec){ (void *)(uintptr_t)blocks, (size_t)count * BLOCK_BYTES };
	iov_block_crcs(iov, 1, 0, count, crcs);
	*a = (struct log_append){ .kind = RECORD_CHECKPOINT, .iov = iov, .iov_count = 1, .crcs = crcs, .payload_blocks = count };
}

/* Appends `count` blocks and fills their pointers. */
static int append_blocks(struct volume *v, const uint8_t *blocks, uint32_t count, struct pointer *ret_at)
{
	uint32_t crcs[BLOB_RECORD_BLOCKS];
	int r = 0;
	for (uint32_t done = 0; r == 0 && done < count; done += BLOB_RECORD_BLOCKS) {
		struct log_append a;
		struct iovec iov;
		append_init(&a, &iov, crcs, blocks + (size_t)done * BLOCK_BYTES, MIN(count - done, (uint32_t)BLOB_RECORD_BLOCKS));
		r = log_append_wait(v, &a);
		for (uint32_t i = 0; i < a.payload_blocks; i++)
			ret_at[done + i] = (struct pointer){ a.payload_position + i, crcs[i], 0 };
	}
	return r;
}

/* The last block, which the blob's root points to, and what follows. */
struct blob_end {
	struct log_append append;
	struct iovec iov;
	uint32_t crc;
	struct meta_root *root;
};

static void note_end(struct log_append *a, uint64_t payload_position)
{
	struct blob_end *e = container_of(a, struct blob_end, append);
	e->root->pointer.position = payload_position;
}

static int append_end(struct volume *v, const uint8_t *block, struct log_append *then, struct meta_root *ret_root)
{
	struct blob_end e = { .root = ret_root };
	struct job j;
	append_init(&e.append, &e.iov, &e.crc, block, 1);
	e.append.placed = note_end;
	ret_root->pointer = (struct pointer){ 0, e.crc, 0 };
	job_init(&j, &v->env->loop);
	log_append(v, &e.append, &j);
	if (then)
		log_append(v, then, &j);
	return fiber_wait(&j);
}

/* A page of pointers for every NODE_FANOUT of `count`. NULL: no memory. */
static uint8_t *make_pages(const struct pointer *at, uint32_t count, uint32_t *ret_blocks)
{
	*ret_blocks = (uint32_t)div_up(count, NODE_FANOUT);
	uint8_t *pages = env_alloc_aligned((size_t)*ret_blocks * BLOCK_BYTES);
	if (!pages)
		return NULL;
	memset(pages, 0, (size_t)*ret_blocks * BLOCK_BYTES);
	for (uint32_t i = 0; i < count; i++)
		pointer_encode(&at[i], pages + (size_t)i * sizeof *at);
	return pages;
}

int blob_write(struct volume *v, const void *bytes, size_t length, struct log_append *then, struct meta_root *ret_root)
{
	uint32_t count = (uint32_t)div_up(length, BLOCK_BYTES);
	struct pointer *at = malloc((size_t)count * sizeof *at);
	const uint8_t *blocks = bytes;
	uint8_t *pages = NULL;
	int r = at ? 0 : -ENOMEM;
	*ret_root = (struct meta_root){ .length = length };
	for (; r == 0 && count > 1; ret_root->level++) {
		r = append_blocks(v, blocks, count, at);
		free(pages);
		blocks = pages = r == 0 ? make_pages(at, count, &count) : NULL;
		if (r == 0 && !pages)
			r = -ENOMEM;
	}
	if (r == 0)
		r = append_end(v, blocks, then, ret_root);
	free(pages);
	free(at);
	return r;
}

/* The records that `count` blocks were written in. */
static void each_record(const struct pointer *at, uint32_t count, void (*record)(void *arg, uint64_t position, uint32_t blocks), void *arg)
{
	for (uint32_t done = 0; done < count; done += BLOB_RECORD_BLOCKS) {
		uint32_t n = MIN(count - done, (uint32_t)BLOB_RECORD_BLOCKS), header = record_header_blocks(0, n);
		record(arg, at[done].position - header, header + n);
	}
}

/* What lies side by side is read at once. */
static int read_blocks(struct sources *s, const struct pointer *at, uint32_t count, uint8_t *pages)
{
	int r = 0;
	for (uint32_t done = 0, n; r == 0 && done < count; done += n) {
		struct block_read b;
		struct iovec iov = { pages + (size_t)done * BLOCK_BYTES, 0 };
		struct job j;
		for (n = 1; done + n < count && n < BLOB_RECORD_BLOCKS && at[done + n].position == at[done].position + n; n++)
			;
		iov.iov_len = (size_t)n * BLOCK_BYTES;
		job_init(&j, &s->env->loop);
		sources_read(s, &b, at + done, n, &iov, 1, &j);
		r = fiber_wait(&j);
	}
	return r;
}

/* One of the two: its bytes, or its records. */
static int walk(struct sources *s, const struct meta_root *root, void (*record)(void *arg, uint64_t position, uint32_t blocks), void *arg,
		uint8_t **ret_bytes)
{
	uint32_t count = (uint32_t)div_up(root->length, BLOCK_BYTES);
	if (root->length == 0 || root->length > BLOB_BYTES_MAX || root->level > 3)
		return -EUCLEAN;
	struct pointer *at = malloc(sizeof *at);
	if (!at)
		return -ENOMEM;
	*at = root->pointer;
	uint32_t have = 1;
	int r = 0;
	for (uint32_t level = root->level + 1; r == 0 && level-- > 0;) {
		/* `have` blocks at this level; read them all */
		if (record)
			each_record(at, have, record, arg);
		if (record && level == 0)
			break;
		uint8_t *pages = env_alloc_aligned((size_t)have * BLOCK_BYTES);
		if (!pages)
			r = -ENOMEM;
		if (r == 0)
			r = read_blocks(s, at, have, pages);
		free(at);
		at = NULL;
		if (r == 0 && level == 0) {
			if (have != count)
				r = -EUCLEAN;
			else
				*ret_bytes = pages;
			pages = r ? pages : NULL;
		} else if (r == 0) {
			uint64_t below = count;
			for (uint32_t k = 1; k < level; k++)
				below = div_up(below, NODE_FANOUT);
			at = div_up(below, NODE_FANOUT) == have ? malloc(below * sizeof *at) : NULL;
			r = at ? 0 : -EUCLEAN;
			for (uint64_t i = 0; r == 0 && i < below; i++)
				at[i] = pointer_decode(pages + i * sizeof *at);
			have = (uint32_t)below;
		}
		free(pages);
	}
	free(at);
	return r;
}

int blob_read(struct sources *s, const struct meta_root *root, uint8_t **ret_bytes)
{
	return walk(s, root, NULL, NULL, ret_bytes);
}

int blob_records(struct sources *s, const struct meta_root *root, void (*record)(void *arg, uint64_t position, uint32_t blocks),
		 void *arg)
{
	return walk(s, root, record, arg, NULL);
}
