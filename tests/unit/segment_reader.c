/* Reading an embedded volume's segments beside its owner: more of them at once than files are kept open. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/env_sim.h"
#include "core/fiber.h"
#include "parallax/segment/segment_dir.h"
#include "parallax/segment/segment_reader.h"

enum { SEGMENTS = 400 };

/* All in one set. */
static uint64_t id_of(unsigned i) { return 1 + (uint64_t)i * SEGMENT_READER_SETS; }

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
	for (unsigned i = 0; r == 0 && i < SEGMENTS; i++) {
		snprintf(path, sizeof path, "/v/segments/%02x/%012" PRIx64 ".seg", (unsigned)(id_of(i) & 0xff), id_of(i));
		memset(block, (int)i, sizeof block);
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
		r->io = (struct segment_io){ .op = SEGMENT_READ, .segment = id_of(i), .block = 1, .blocks = 1, .iov = &r->vec, .iov_count = 1 };
		segment_submit(s, &r->io, &j);
	}
	cr_assert_eq(fiber_wait(&j), 0);
	for (unsigned i = 0; i < SEGMENTS; i++) {
		const uint8_t *bytes = reads[i].vec.iov_base;
		cr_assert_eq(reads[i].io.status, 0, "read %u: %d", i, reads[i].io.status);
		cr_assert(bytes[0] == (uint8_t)i && bytes[BLOCK_BYTES - 1] == (uint8_t)i, "read %u: another's bytes", i);
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

/* ---- what a copy says of itself ---- */

static void write_slot(struct sim_host *host, unsigned i, uint64_t generation, const uint8_t *bits, uint32_t trimmed, bool torn)
{
	uint8_t block[BLOCK_BYTES];
	struct copy_slot slot = { .header = { .segment = 1, .epoch = 1, .size_blocks = 64 }, .generation = generation, .sealed = true, .length = 64,
				  .trim = bits, .trimmed = trimmed };
	copy_slot_encode(&slot, block);
	if (torn)
		block[512] ^= 1;
	cr_assert_eq(sim_disk_write(host, "/v/segments/01/000000000001.seg", (uint64_t)i * BLOCK_BYTES, block, sizeof block), 0);
}

static int stat_torn(void *arg)
{
	const struct world *w = arg;
	uint8_t bits[SEGMENT_BITMAP_BYTES] = { 0 }, older[SEGMENT_BITMAP_BYTES] = { 0x20 }, newer[SEGMENT_BITMAP_BYTES] = { 0x60 };
	struct segment_io io = { .op = SEGMENT_STAT, .segment = 1, .free_bits = bits };
	struct segment_server *s;
	cr_assert_eq(make_files(w->env, w->host), 0);
	write_slot(w->host, 1, 3, older, 1, /* torn= */ false);
	write_slot(w->host, 0, 4, newer, 2, /* torn= */ true);
	cr_assert_eq(segment_reader_open(w->env, "/v", &s), 0);
	cr_assert_eq(segment_wait(s, &io), 0);
	cr_assert_eq(io.state, COPY_WHOLE, "a power loss tore its newest bitmap, and it is said to be broken");
	cr_assert_eq(io.trimmed, 1);
	cr_assert_eq(memcmp(bits, older, sizeof bits), 0);
	return segment_server_close(s);
}

Test(segment_reader, takes_the_older_bitmap_where_the_newer_is_torn)
{
	struct sim *sim = sim_create(1, NULL);
	struct sim_host *host = sim_host_create(sim, "h", 64 << 20, 4096);
	struct world w = { sim_process_create(sim, host), host };
	cr_assert_eq(sim_run_fiber(w.env, stat_torn, &w), 0);
	sim_process_destroy(w.env);
	sim_destroy(sim);
}

/* ---- fewer descriptors than segments ---- */

enum { FEW = 64, MANY = 200 };

static void many_path(const char *directory, unsigned id, bool parent, char ret_path[128])
{
	int n = snprintf(ret_path, 128, "%s/segments/%02x", directory, id & 0xff);
	if (!parent)
		snprintf(ret_path + n, 128 - (size_t)n, "/%012x.seg", id);
}

static void make_many(const char *directory)
{
	char path[128];
	uint8_t block[BLOCK_BYTES];
	snprintf(path, sizeof path, "%s/segments", directory);
	cr_assert_eq(mkdir(path, 0700), 0);
	for (unsigned id = 1; id <= MANY; id++) {
		many_path(directory, id, true, path);
		cr_assert_eq(mkdir(path, 0700), 0);
		many_path(directory, id, false, path);
		int fd = open(path, O_WRONLY | O_CREAT, 0600);
		memset(block, (int)id, sizeof block);
		cr_assert_eq(pwrite(fd, block, sizeof block, COPY_BASE + BLOCK_BYTES), BLOCK_BYTES);
		close(fd);
	}
}

static void remove_many(const char *directory)
{
	char path[128];
	for (unsigned id = 1; id <= MANY; id++) {
		many_path(directory, id, false, path);
		unlink(path);
		many_path(directory, id, true, path);
		rmdir(path);
	}
	snprintf(path, sizeof path, "%s/segments", directory);
	rmdir(path);
	rmdir(directory);
}

struct few {
	struct env *env;
	const char *directory;
};

static int read_with_few(void *arg)
{
	const struct few *w = arg;
	struct segment_server *s;
	uint8_t *block = env_alloc_aligned(BLOCK_BYTES);
	struct iovec vec = { block, BLOCK_BYTES };
	cr_assert_eq(segment_reader_open(w->env, w->directory, &s), 0);
	for (unsigned round = 0; round < 2; round++)
		for (unsigned id = 1; id <= MANY; id++) {
			struct segment_io io = { .op = SEGMENT_READ, .segment = id, .block = 1, .blocks = 1, .iov = &vec, .iov_count = 1 };
			cr_assert_eq(segment_wait(s, &io), 0, "segment %u: %d", id, io.status);
			cr_assert(block[0] == (uint8_t)id && block[BLOCK_BYTES - 1] == (uint8_t)id);
		}
	free(block);
	return segment_server_close(s);
}

Test(segment_reader, goes_on_without_descriptors)
{
	char directory[] = "/var/tmp/aquifer-unit-XXXXXX";
	struct rlimit limit = { FEW, FEW };
	struct few w = { .directory = mkdtemp(directory) };
	make_many(directory);
	cr_assert_eq(env_linux_create(0, &w.env), 0);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	int r = env_linux_run_fiber(w.env, read_with_few, &w);
	env_linux_destroy(w.env);
	remove_many(directory);
	cr_assert_eq(r, 0);
}
