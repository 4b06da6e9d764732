#include "tests/unit/blktest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/fiber.h"

#define SEGMENTS_MAX 6

struct slot {
	struct blktest *test;
	struct blk_io io;
	struct iovec iov[SEGMENTS_MAX];
	uint8_t *memory, *data;
	unsigned first, count; /* sectors of the model */
	uint64_t node_sector;  /* where they are */
	uint32_t id;
};

uint64_t blktest_draw(struct blktest *t, uint64_t below)
{
	t->random ^= t->random << 13;
	t->random ^= t->random >> 7;
	t->random ^= t->random << 17;
	return (t->random >> 11) % below;
}

static unsigned sector_count(const struct blktest *t)
{
	return (unsigned)(t->window / BLKTEST_SECTOR * t->base_count);
}

void blktest_init(struct blktest *t, uint32_t id)
{
	t->random = t->seed * UINT64_C(0x9E3779B97F4A7C15) | 1;
	t->next_id = 2;
	t->sequence = 1;
	t->sector = calloc(sector_count(t), sizeof *t->sector);
	for (unsigned i = 0; i < sector_count(t); i++) {
		t->sector[i].history[0] = (struct blktest_version){ id, 1 };
		t->sector[i].count = 1;
	}
}

void blktest_free(struct blktest *t) { free(t->sector); }

/* ---- contents ---- */

void blktest_fill(void *to, uint64_t sector, uint32_t id)
{
	for (unsigned i = 0; i < BLKTEST_SECTOR / 8; i++)
		put_le64((char *)to + i * 8, id == 0 ? 0 : (uint64_t)id << 32 | ((sector * 67 + i) & UINT32_MAX));
}

/* Which write the bytes are; BLKTEST_ANY if they are none's. */
static uint32_t content_id(const void *data, uint64_t sector)
{
	uint8_t want[BLKTEST_SECTOR];
	uint32_t id = (uint32_t)(get_le64(data) >> 32);
	blktest_fill(want, sector, id);
	return memcmp(want, data, sizeof want) == 0 ? id : BLKTEST_ANY;
}

static bool version_matches(const struct blktest_version *v, uint32_t id)
{
	return v->id == id || v->id == BLKTEST_ANY;
}

/* The last version that was acknowledged; later ones failed, and may be there or not. */
static unsigned version_last_done(const struct blktest_sector *s)
{
	unsigned i = s->count - 1;
	while (i > 0 && !s->history[i].done_seq)
		i--;
	return i;
}

static int check_sector(struct blktest *t, const struct blktest_sector *s, uint64_t sector, const void *data, bool crashed)
{
	uint32_t id = content_id(data, sector);
	bool lossy = t->lossy || (t->syncs_fail && t->syncing > 0); /* it may have failed, but we don't know yet */
	unsigned first = crashed || lossy ? 0 : version_last_done(s);
	for (unsigned i = first; i < s->count; i++)
		if (version_matches(&s->history[i], id))
			return 0;
	if (!t->failed)
		snprintf(t->why, sizeof t->why, "sector %lu is of write %u, wanted %u (%u possible)%s", (unsigned long)sector, id,
			 s->history[s->count - 1].id, s->count - first, crashed ? " after a crash" : "");
	t->failed = true;
	return -EILSEQ;
}

/* ---- choosing ---- */

static uint64_t model_to_node(const struct blktest *t, unsigned model)
{
	unsigned per_base = (unsigned)(t->window / BLKTEST_SECTOR);
	return t->base[model / per_base] / BLKTEST_SECTOR + model % per_base;
}

/* A range that nobody uses and whose histories have room; false if luck fails. */
static bool choose_range(struct slot *s)
{
	struct blktest *t = s->test;
	unsigned unit = t->node->info.block_size / BLKTEST_SECTOR, per_base = (unsigned)(t->window / BLKTEST_SECTOR);
	if (unit == 0)
		unit = 1;
	if (blktest_draw(t, 3) == 0)
		unit = 8;
	for (unsigned try = 0; try < 50; try++) {
		unsigned base = (unsigned)blktest_draw(t, t->base_count);
		unsigned at = (unsigned)blktest_draw(t, per_base) / unit * unit;
		unsigned n = unit + (unsigned)blktest_draw(t, t->length_max) / unit * unit;
		n = MIN(n, (per_base - at) / unit * unit);
		s->first = base * per_base + at;
		s->count = n;
		bool usable = n > 0;
		for (unsigned i = 0; i < n && usable; i++) {
			const struct blktest_sector *m = &t->sector[s->first + i];
			usable = !m->busy && m->count < BLKTEST_HISTORY;
		}
		if (usable)
			return true;
	}
	return false;
}

static enum blk_op choose_op(struct blktest *t)
{
	switch (blktest_draw(t, 16)) {
	case 0: return t->no_flush ? BLK_WRITE : BLK_FLUSH;
	case 1: return t->no_discard || !t->node->info.can_discard ? BLK_WRITE : BLK_DISCARD;
	case 2: return t->node->info.can_zero ? BLK_ZERO : BLK_WRITE;
	case 3:
	case 4: return BLK_READ;
	case 5:
	case 6:
	case 7:
	case 8: return t->urgent ? BLK_WRITE : BLK_READ;
	default: return BLK_WRITE;
	}
}

/* Cuts the request's memory into pieces of whole sectors, or at any byte. */
static void choose_iov(struct slot *s)
{
	struct blktest *t = s->test;
	uint64_t left = s->io.length, at = 0;
	int n = 0;
	s->data = s->memory + (t->unaligned_memory && blktest_draw(t, 2) ? blktest_draw(t, 4096) : 0);
	bool odd = t->unaligned_memory && blktest_draw(t, 2);
	while (left > 0) {
		uint64_t piece = n == SEGMENTS_MAX - 1 || blktest_draw(t, 2) ? left : odd ? 1 + blktest_draw(t, left)
				 : BLKTEST_SECTOR * (1 + blktest_draw(t, left / BLKTEST_SECTOR));
		s->iov[n++] = (struct iovec){ s->data + at, piece };
		at += piece;
		left -= piece;
	}
	s->io.iov = s->iov;
	s->io.iov_count = n;
}

/* ---- one request ---- */

static void version_add(struct blktest_sector *m, uint32_t id)
{
	m->history[m->count++] = (struct blktest_version){ id, 0 };
}

static void request_begin(struct slot *s)
{
	struct blktest *t = s->test;
	enum blk_op op = s->io.op;
	s->id = op == BLK_WRITE ? t->next_id++ : op == BLK_DISCARD && !t->node->info.discard_zeroes ? BLKTEST_ANY : 0;
	for (unsigned i = 0; i < s->count; i++) {
		struct blktest_sector *m = &t->sector[s->first + i];
		m->busy = true;
		if (op != BLK_READ)
			version_add(m, s->id);
		if (op == BLK_WRITE)
			blktest_fill(s->data + i * BLKTEST_SECTOR, s->node_sector + i, s->id);
	}
}

/* What is older than a version that is durable can't come back. */
static void history_cut(struct blktest_sector *m, unsigned keep_from)
{
	memmove(m->history, m->history + keep_from, (m->count - keep_from) * sizeof m->history[0]);
	m->count -= keep_from;
}

static int request_end(struct slot *s, int status)
{
	struct blktest *t = s->test;
	int wrong = 0;
	if (status != 0 && (s->io.flags & BLK_FUA))
		t->lossy = true;
	if (status != 0 && status != -ESHUTDOWN)
		t->errors++;
	for (unsigned i = 0; i < s->count; i++) {
		struct blktest_sector *m = &t->sector[s->first + i];
		m->busy = false;
		if (status != 0)
			continue;
		if (s->io.op == BLK_READ)
			wrong |= check_sector(t, m, s->node_sector + i, s->data + i * BLKTEST_SECTOR, /* crashed= */ false);
		else
			m->history[m->count - 1].done_seq = ++t->sequence;
		if (s->io.flags & BLK_FUA)
			history_cut(m, m->count - 1);
	}
	return wrong ? -EILSEQ : status;
}

static void flush_end(struct blktest *t, uint64_t sequence)
{
	for (unsigned i = 0; i < sector_count(t); i++) {
		struct blktest_sector *m = &t->sector[i];
		for (unsigned v = m->count; v-- > 0;)
			if (m->history[v].done_seq && m->history[v].done_seq <= sequence) {
				history_cut(m, v);
				break;
			}
	}
}

static int request_wait(struct slot *s)
{
	struct job j;
	bool sync = s->io.op == BLK_FLUSH || (s->io.flags & BLK_FUA);
	s->test->syncing += sync;
	job_init(&j, s->test->node->loop);
	blk_submit(s->test->node, &s->io, &j);
	int status = fiber_wait(&j);
	s->test->syncing -= sync;
	return s->test->node->env->dead ? -ESHUTDOWN : status; /* nobody hears what a dead process says */
}

static int one_flush(struct slot *s)
{
	uint64_t sequence = s->test->sequence;
	s->io = (struct blk_io){ .op = BLK_FLUSH };
	int status = request_wait(s);
	if (status == 0) {
		flush_end(s->test, sequence);
	} else if (status != -ESHUTDOWN) {
		s->test->errors++;
		s->test->lossy = true;
	}
	return status;
}

static int one_request(struct slot *s)
{
	struct blktest *t = s->test;
	enum blk_op op = choose_op(t);
	if (op == BLK_FLUSH || !choose_range(s))
		return one_flush(s);
	s->node_sector = model_to_node(t, s->first);
	s->io = (struct blk_io){ .op = op, .offset = s->node_sector * BLKTEST_SECTOR,
				 .length = (uint64_t)s->count * BLKTEST_SECTOR };
	if (op != BLK_READ && blktest_draw(t, t->urgent ? 4 : 20) == 0)
		s->io.flags |= BLK_FUA;
	if (op == BLK_ZERO && blktest_draw(t, 2))
		s->io.flags |= BLK_MAY_UNMAP;
	if (op <= BLK_WRITE)
		choose_iov(s);
	request_begin(s);
	return request_end(s, request_wait(s));
}

static int slot_run(void *arg)
{
	struct slot *s = arg;
	struct blktest *t = s->test;
	while (t->issued < t->operations && !t->failed) {
		t->issued++;
		int status = one_request(s);
		if (status == -ESHUTDOWN || status == -EILSEQ)
			return status;
		if (blktest_draw(t, 8) == 0)
			fiber_sleep(t->node->loop, 1);
	}
	return 0;
}

int blktest_run(void *arg)
{
	struct blktest *t = arg;
	struct slot *slot = calloc(t->slots, sizeof *slot);
	struct job all;
	job_init(&all, t->node->loop);
	t->issued = 0;
	for (unsigned i = 0; i < t->slots; i++) {
		slot[i].test = t;
		slot[i].memory = env_alloc_aligned((t->length_max + 8) * BLKTEST_SECTOR + 4096);
		job_hold(&all);
		if (fiber_start(t->node->loop, slot_run, &slot[i], &all) < 0)
			job_put(&all, -ENOMEM);
	}
	int status = fiber_wait(&all);
	for (unsigned i = 0; i < t->slots; i++)
		free(slot[i].memory);
	free(slot);
	return status;
}

int blktest_check(void *arg)
{
	struct blktest *t = arg;
	unsigned per_base = (unsigned)(t->window / BLKTEST_SECTOR);
	uint8_t *data = env_alloc_aligned(t->window);
	int status = 0;
	for (unsigned b = 0; b < t->base_count && status == 0; b++) {
		status = blk_read_wait(t->node, data, t->window, t->base[b]);
		for (unsigned i = 0; i < per_base && status == 0; i++) {
			struct blktest_sector *m = &t->sector[b * per_base + i];
			uint64_t sector = t->base[b] / BLKTEST_SECTOR + i;
			if (check_sector(t, m, sector, data + i * BLKTEST_SECTOR, /* crashed= */ true) < 0)
				status = -EILSEQ;
			m->history[0] = (struct blktest_version){ content_id(data + i * BLKTEST_SECTOR, sector), 1 };
			m->count = 1;
			m->busy = false;
		}
	}
	free(data);
	t->lossy = false;
	return status < 0 ? status : blk_op_wait(t->node, BLK_FLUSH, 0, 0, 0);
}

const char *blktest_root = "";

int blktest_open(struct env *env, const struct blk_driver *driver, struct blk_node *child, bool read_only,
		 const char *const *words, struct blk_node **ret_node, struct report *report)
{
	char copy[OPTION_MAX][256];
	const char *key[OPTION_MAX], *value[OPTION_MAX];
	unsigned n = 0;
	for (; words[n]; n++) {
		snprintf(copy[n], sizeof copy[n], "%s", words[n]);
		char *equals = strchr(copy[n], '=');
		key[n] = equals ? copy[n] : NULL;
		value[n] = equals ? equals + 1 : copy[n];
		if (equals)
			*equals = '\0';
	}
	struct option_values options;
	int r = option_parse(driver->options, key, value, n, &options, report);
	if (r < 0)
		return r;
	struct blk_open how = { .options = &options, .node_name = driver->name, .holder = "the unit test", .root = blktest_root,
				.read_only = read_only };
	return blk_open(env, driver, &how, child ? &child : NULL, child ? 1 : 0, ret_node, report);
}
