/* Reading an embedded volume's segments beside its owner: more of them at once than files are kept open. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/env_sim.h"
#include "core/fiber.h"
#include "parallax/segment_dir.h"
#include "parallax/segment_reader.h"

enum { SEGMENTS = 400 };

struct read {
	struct segment_io io;
	struct iovec vec;
};

struct world {
	struct env *env;
	struct sim_host *host;
};

static int make_files(struct env *env, struct sim_host *host)
{
	char path[64];
	uint8_t block[BLOCK_BYTES];
	int r = env_mkdir(env, "/v");
	if (r == 0)
		r = env_mkdir(env, "/v/segments");
	for (unsigned i = 0; r == 0 && i < 256; i++) {
		snprintf(path, sizeof path, "/v/segments/%02x", i);
		r = env_mkdir(env, path);
	}
	for (unsigned id = 1; r == 0 && id <= SEGMENTS; id++) {
		snprintf(path, sizeof path, "/v/segments/%02x/%012x.seg", id & 0xff, id);
		memset(block, (int)id, sizeof block);
		r = sim_disk_write(host, path, COPY_BASE + BLOCK_BYTES, block, sizeof block);
	}
	return r;
}

static int body(void *arg)
{
	const struct world *w = arg;
	struct env *env = w->env;
	struct segment_server *s;
	struct read *reads = calloc(SEGMENTS, sizeof *reads);
	struct job j;
	cr_assert_eq(make_files(env, w->host), 0);
	cr_assert_eq(segment_reader_open(env, "/v", &s), 0);
	job_init(&j, &env->loop);
	for (unsigned i = 0; i < SEGMENTS; i++) {
		struct read *r = &reads[i];
		r->vec = (struct iovec){ env_alloc_aligned(BLOCK_BYTES), BLOCK_BYTES };
		r->io = (struct segment_io){ .op = SEGMENT_READ, .segment = i + 1, .block = 1, .blocks = 1, .iov = &r->vec, .iov_count = 1 };
		segment_submit(s, &r->io, &j);
	}
	cr_assert_eq(fiber_wait(&j), 0);
	for (unsigned i = 0; i < SEGMENTS; i++) {
		const uint8_t *bytes = reads[i].vec.iov_base;
		cr_assert_eq(reads[i].io.status, 0, "segment %u: %d", i + 1, reads[i].io.status);
		cr_assert(bytes[0] == (uint8_t)(i + 1) && bytes[BLOCK_BYTES - 1] == (uint8_t)(i + 1), "segment %u: another's bytes", i + 1);
		free(reads[i].vec.iov_base);
	}
	free(reads);
	return segment_server_close(s);
}

Test(segment_reader, more_at_once_than_files_wait_for_one)
{
	for (uint64_t seed = 1; seed <= 3; seed++) {
		struct sim_doses doses = { .disk_ns = NS_PER_S };
		struct sim *sim = sim_create(seed, &doses);
		struct sim_host *host = sim_host_create(sim, "h", 64 << 20, 4096);
		struct world w = { sim_process_create(sim, host), host };
		cr_assert_eq(sim_run_fiber(w.env, body, &w), 0);
		sim_process_destroy(w.env);
		sim_destroy(sim);
	}
}
