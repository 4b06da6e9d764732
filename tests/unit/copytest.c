#include "tests/unit/copytest.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"

int ask(struct segment_server *s, struct segment_io *io, void *bytes, size_t room)
{
	struct iovec v = { bytes, room };
	io->iov = &v;
	io->iov_count = 1;
	return segment_wait(s, io);
}

void make_copy(struct world *w, struct segment_server *s, uint64_t id, bool seal)
{
	struct segment_header h = { .segment = id, .volume = { "volume" }, .epoch = 5, .salt = id * 77, .size_blocks = SIZE_BLOCKS };
	struct segment_io io = { .op = SEGMENT_CREATE, .segment = id, .epoch = 5, .header = h };
	cr_assert_eq(segment_wait(s, &io), 0);
	uint32_t block = 1;
	w->crc = 0;
	for (unsigned n = 0; n < RECORDS; n++) {
		uint32_t crcs[PAYLOAD];
		struct record_entry e = { .first = n * 100, .count = PAYLOAD };
		for (uint32_t i = 0; i < PAYLOAD; i++) {
			memset(w->page + (size_t)(1 + i) * BLOCK_BYTES, (int)(n + i + id), BLOCK_BYTES);
			crcs[i] = crc32c(0, w->page + (size_t)(1 + i) * BLOCK_BYTES, BLOCK_BYTES);
		}
		struct record r = { .kind = RECORD_DATA, .segment = id, .block = block, .epoch = 5, .seq = n + 1, .salt = h.salt, .prev = w->crc,
				    .payload_blocks = PAYLOAD, .entry_count = 1, .entries = &e, .crcs = crcs };
		record_encode(&r, w->page);
		io = (struct segment_io){ .op = SEGMENT_APPEND, .segment = id, .epoch = 5, .incarnation = s->incarnation, .block = block,
					  .blocks = PAYLOAD + 1 };
		cr_assert_eq(ask(s, &io, w->page, (PAYLOAD + 1) * BLOCK_BYTES), 0);
		block += PAYLOAD + 1;
		w->crc = r.header_crc;
	}
	io = (struct segment_io){ .op = SEGMENT_SEAL, .segment = id, .epoch = 5, .block = LENGTH, .crc = w->crc };
	cr_assert(!seal || segment_wait(s, &io) == 0);
}

void trim(struct segment_server *s, uint64_t id, uint32_t from, uint32_t count, bool pack)
{
	uint8_t bits[SIZE_BLOCKS / 8] = { 0 };
	for (uint32_t b = from; b < from + count; b++)
		bits[b / 8] |= (uint8_t)(1u << b % 8);
	struct segment_io io = { .op = SEGMENT_TRIM, .segment = id, .blocks = SIZE_BLOCKS, .trim = bits, .pack = pack };
	cr_assert_eq(segment_wait(s, &io), 0);
}

void damage_slots(struct world *w, uint64_t id)
{
	char path[64];
	struct file *f;
	snprintf(path, sizeof path, "/a/segments/%02x/%012llx.seg", (unsigned)(id & 0xff), (unsigned long long)id);
	memset(w->page, 0, 2 * BLOCK_BYTES);
	cr_assert_eq(file_open(w->env, path, FILE_OPEN_WRITE, &f), 0);
	cr_assert_eq(file_write_wait(f, w->page, 2 * BLOCK_BYTES, 0), 0);
	file_close(w->env, f);
}

uint64_t segment_placed(struct copies *c, uint64_t after, unsigned place, const uuid *server)
{
	uint64_t id = after + 1;
	while (memcmp(&c->map.servers[placement_group_of(&c->map, id)->target[place]].id, server, sizeof *server) != 0)
		id++;
	return id;
}

void list_segment(struct world *w, uint64_t id)
{
	struct meta_log *log = calloc(1, sizeof *log);
	char key[META_KEY_BYTES];
	size_t length;
	*log = (struct meta_log){ .name = "v", .volume = { "volume" }, .size_bytes = 1 << 20, .from_seq = 1, .replicas = 1, .min_replicas = 1, .last_id = 1000000, .segment_count = 1 };
	log->segments[0] = (struct meta_segment){ .id = id, .epoch = 5, .salt = 1, .size_blocks = SIZE_BLOCKS, .ensemble_count = 1, .ensemble[0].server = w->a->id };
	uint8_t *bytes = meta_log_encode(log, &length);
	meta_key_log(0, key);
	cr_assert_eq(catalog_put_at(w->catalog, key, 0, bytes, length), 0);
	free(bytes);
	free(log);
}

void copytest_run(int (*body)(void *arg))
{
	struct world w = { .sim = sim_create(3, NULL) };
	struct sim_host *host = sim_host_create(w.sim, "h", 64 << 20, 4096);
	struct catalog_sim *catalogs = catalog_sim_create(w.sim);
	w.env = sim_process_create(w.sim, host);
	w.catalog = catalog_sim_open(catalogs, w.env);
	w.page = env_alloc_aligned(RECORD_BYTES_MAX);
	cr_assert_eq(sim_run_fiber(w.env, body, &w), 0);
	catalog_close(w.catalog);
	sim_process_destroy(w.env);
	catalog_sim_destroy(catalogs);
	sim_destroy(w.sim);
	free(w.page);
}
