/* The loop export: whatever messages come out of /dev/fuse, each ends exactly once, no buffer is lost and nothing outside the
 * device is touched. Input: messages, each behind a byte that says how long it is (in units of 8 bytes) and whether
 * requests under way end before it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "agent/exports/loop_request.h"
#include "core/bytes.h"
#include "core/drivers.h"

#define REQUIRE(condition)       \
	do {                     \
		if (!(condition)) \
			abort(); \
	} while (0)
#define DEPTH 4
#define CHUNKS (DEPTH + LOOP_CHUNKS_MAX)

static struct env *env;
static struct blk_node *node;
static char *pool;

static void set_up(void)
{
	struct option_values options;
	const char *key = NULL, *value = "8M";
	REQUIRE(option_parse(driver_null.options, &key, &value, 1, &options, NULL) == 0);
	struct blk_open how = { .options = &options };
	REQUIRE(env_linux_create(1, &env) == 0);
	REQUIRE(blk_open(env, &driver_null, &how, NULL, 0, &node, NULL) == 0);
	pool = calloc(CHUNKS, LOOP_CHUNK_BYTES);
	REQUIRE(pool);
}

static void connect(struct loop_fuse *f, struct loop_request *requests, char **chunks)
{
	*f = (struct loop_fuse){ .env = env, .node = node, .name = "disk", .transfer_max = LOOP_TRANSFER_MAX, .depth = DEPTH,
				 .chunks = chunks, .chunk_count = CHUNKS, .chunks_free = CHUNKS, .fd = -1 };
	link_init(&f->requests_free);
	fiber_cond_init(&f->idle);
	for (unsigned i = 0; i < CHUNKS; i++)
		chunks[i] = pool + (size_t)i * LOOP_CHUNK_BYTES;
	for (unsigned i = 0; i < DEPTH; i++) {
		requests[i] = (struct loop_request){ .fuse = f };
		link_push(&f->requests_free, &requests[i].link);
	}
}

/* As readv() would have put it. */
static size_t receive(struct loop_fuse *f, const uint8_t *data, size_t size)
{
	memset(f->head, 0, sizeof f->head);
	memcpy(f->head, data, MIN(size, sizeof f->head));
	if (size > sizeof f->head)
		memcpy(f->chunks[f->chunks_free - 1], data + sizeof f->head, size - sizeof f->head);
	return size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct loop_request requests[DEPTH];
	static char *chunks[CHUNKS];
	struct loop_fuse f;
	if (!env)
		set_up();
	connect(&f, requests, chunks);
	while (size > 1) {
		uint8_t how = *data++;
		size--;
		size_t n = MIN((size_t)(how & 127) * 8, size);
		if (how & 128 || link_empty(&f.requests_free) || f.chunks_free < LOOP_CHUNKS_MAX)
			loop_run_ready(&env->loop);
		int r = loop_request_take(&f, receive(&f, data, n));
		REQUIRE(r == 0 || r == -EPROTO);
		data += n;
		size -= n;
	}
	loop_run_ready(&env->loop);
	REQUIRE(f.in_flight == 0 && f.chunks_free == CHUNKS && node->counters.in_flight == 0);
	return 0;
}
