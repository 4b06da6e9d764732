/* Appends records to one segment of an aquifer-server and checks them:
 *
 *     segload append ADDRESS SEGMENT RECORDS DEPTH BLOCKS SYNC_EVERY [SIZE]
 *         creates the segment (if it isn't there) and appends records of BLOCKS payload blocks, at most DEPTH at a time;
 *         SYNC_EVERY records, a sync (0: never); SIZE: of the segment, in blocks (default: the most). Prints, also when the server goes away:
 *         acked=BLOCKS synced=BLOCKS status=ERRNO records=N per_second=N cpu_us=N (ours, per record)
 *     segload verify ADDRESS SEGMENT LENGTH
 *         the copy is at least LENGTH blocks, whole, and holds exactly those records
 *     segload stat|fence|sync|delete ADDRESS SEGMENT [NUMBER]   one operation (fence: epoch, sync: length)
 *     segload many ADDRESS SEGMENT COUNT VOLUME
 *         makes COUNT sealed segments of one record of two blocks each, MANY_DEPTH at a time; of the volume with that uuid (32 digits)
 *
 * Addresses as the server prints them. Everything in a segment follows from its id, so that a later run can check it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "core/bytes.h"
#include "core/fiber.h"
#include "parallax/segment/segment.h"

#define DEPTH_MAX 256u
enum { MANY_DEPTH = 16, MANY_SIZE_BLOCKS = 8, MANY_PAYLOAD = 2 };
#define DEADLINE_NS (5 * NS_PER_S)

struct load {
	struct env *env;
	struct segment_server *server;
	const char *mode, *address, *volume;
	struct segment_header header;
	uint64_t numbers[5];
	/* append */
	uint64_t incarnation, seq, records_left, done, sync_every;
	uint32_t block, prev, payload_blocks, acked, synced, under_way, epoch;
	int status;
	struct fiber_cond changed;
};

struct append {
	struct job job;
	struct load *load;
	struct segment_io io;
	struct iovec iov;
	bool busy;
};

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 31) * UINT64_C(0x9e3779b97f4a7c15);
	return (x ^ x >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
}

static struct segment_header header_of(uint64_t segment)
{
	struct segment_header h = { .segment = segment, .epoch = 1, .salt = mix(segment), .size_blocks = SEGMENT_BLOCKS_MAX };
	memset(h.volume.bytes, 'v', sizeof h.volume.bytes);
	return h;
}

static void fill(uint64_t segment, uint64_t seq, void *payload, uint32_t blocks)
{
	uint64_t *word = payload, x = mix(segment ^ seq << 20);
	for (uint32_t i = 0; i < blocks * BLOCK_BYTES / 8; i++)
		word[i] = x + i;
}

/* The next record, into the buffer. */
static void record_make(struct load *l, struct append *a)
{
	struct record_entry entry = { .first = l->seq, .count = l->payload_blocks };
	static uint32_t crcs[RECORD_BLOCKS_MAX];
	struct record r = { .kind = RECORD_DATA, .segment = l->header.segment, .block = l->block, .epoch = 1, .seq = ++l->seq,
			    .salt = l->header.salt, .prev = l->prev, .payload_blocks = l->payload_blocks, .entry_count = 1,
			    .entries = &entry, .crcs = crcs };
	uint8_t *buffer = a->iov.iov_base;
	uint32_t header_blocks = record_header_blocks(1, l->payload_blocks);
	uint8_t *payload = buffer + (size_t)header_blocks * BLOCK_BYTES;
	fill(r.segment, r.seq, payload, l->payload_blocks);
	for (uint32_t i = 0; i < l->payload_blocks; i++)
		crcs[i] = crc32c(0, payload + (size_t)i * BLOCK_BYTES, BLOCK_BYTES);
	record_encode(&r, buffer);
	l->prev = r.header_crc;
	a->iov.iov_len = (size_t)record_blocks(&r) * BLOCK_BYTES;
	a->io = (struct segment_io){ .op = SEGMENT_APPEND, .segment = r.segment, .epoch = 1, .incarnation = l->incarnation,
				     .block = r.block, .blocks = record_blocks(&r), .iov = &a->iov, .iov_count = 1 };
	l->block += record_blocks(&r);
}

static void append_done(struct job *j)
{
	struct append *a = container_of(j, struct append, job);
	struct load *l = a->load;
	a->busy = false;
	l->under_way--;
	if (j->status < 0 && l->status == 0)
		l->status = j->status;
	if (j->status == 0 && l->status == 0) {
		l->acked = a->io.block + a->io.blocks;
		l->done++;
	}
	fiber_cond_wake(&l->changed);
}

static void append_start(struct load *l, struct append *a)
{
	record_make(l, a);
	l->records_left--;
	a->busy = true;
	l->under_way++;
	job_init(&a->job, &l->env->loop);
	segment_submit(l->server, &a->io, &a->job);
	job_then(&a->job, append_done);
}

static int one(struct load *l, enum segment_op op, uint64_t number, struct segment_io *ret_io)
{
	*ret_io = (struct segment_io){ .op = op, .segment = l->header.segment, .epoch = l->epoch, .block = (uint32_t)number,
				       .incarnation = l->incarnation, .header = l->header };
	return segment_wait(l->server, ret_io);
}

static void append_sync(struct load *l)
{
	struct segment_io io;
	uint32_t length = l->acked;
	int r = one(l, SEGMENT_SYNC, length, &io);
	if (r == 0)
		l->synced = length;
	else if (l->status == 0)
		l->status = r;
}

static uint64_t cpu_us(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 + (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static bool append_room(const struct load *l)
{
	return l->records_left && l->status == 0 && l->block + l->payload_blocks + 2 <= l->header.size_blocks;
}

static void append_loop(struct load *l, struct append *a, uint32_t depth)
{
	uint64_t next_sync = l->sync_every;
	while (append_room(l) || l->under_way > 0) {
		bool started = false;
		for (uint32_t i = 0; i < depth && append_room(l); i++) {
			if (!a[i].busy) {
				append_start(l, &a[i]);
				started = true;
			}
		}
		if (l->sync_every && l->done >= next_sync && l->status == 0) {
			append_sync(l);
			next_sync = l->done + l->sync_every;
		} else if (!started || !append_room(l)) {
			fiber_cond_wait(&l->env->loop, &l->changed);
		}
	}
}

static int run_append(struct load *l)
{
	struct segment_io io;
	uint32_t depth = (uint32_t)MIN(l->numbers[1], DEPTH_MAX);
	struct append *a = calloc(depth, sizeof *a);
	l->records_left = l->numbers[0];
	l->payload_blocks = (uint32_t)l->numbers[2];
	l->sync_every = l->numbers[3];
	l->block = 1;
	if (l->numbers[4])
		l->header.size_blocks = (uint32_t)l->numbers[4];
	int r = one(l, SEGMENT_CREATE, 0, &io);
	if (r < 0) {
		free(a);
		return r;
	}
	for (uint32_t i = 0; i < depth; i++) {
		a[i].load = l;
		a[i].iov.iov_base = env_alloc_aligned(RECORD_BYTES_MAX);
	}
	uint64_t begin = env_now_ns(l->env), cpu = cpu_us();
	append_loop(l, a, depth);
	uint64_t took = env_now_ns(l->env) - begin + 1;
	cpu = cpu_us() - cpu;
	printf("acked=%u synced=%u status=%d records=%" PRIu64 " per_second=%" PRIu64 " cpu_us=%.1f\n", l->acked, l->synced,
	       -l->status, l->done, l->done * NS_PER_S / took, (double)cpu / (double)MAX(l->done, 1));
	for (uint32_t i = 0; i < depth; i++)
		free(a[i].iov.iov_base);
	free(a);
	return 0;
}

/* ---- many ---- */

struct maker {
	struct load *all, load; /* the record and its chain are its own */
	struct append append;
};

static int make_one(struct load *l, struct append *a)
{
	struct segment_io io;
	int r = one(l, SEGMENT_CREATE, 0, &io);
	if (r < 0)
		return r;
	record_make(l, a);
	r = segment_wait(l->server, &a->io);
	if (r < 0)
		return r;
	io = (struct segment_io){ .op = SEGMENT_SEAL, .segment = l->header.segment, .epoch = 1, .block = l->block, .crc = l->prev };
	return segment_wait(l->server, &io);
}

/* FIBER. One after the other, while there are any. */
static int make_run(void *arg)
{
	struct maker *m = arg;
	struct load *all = m->all, *l = &m->load;
	while (all->records_left && all->status == 0) {
		uint64_t segment = all->header.segment + --all->records_left;
		struct segment_header h = header_of(segment);
		memcpy(h.volume.bytes, all->header.volume.bytes, sizeof h.volume.bytes);
		h.size_blocks = MANY_SIZE_BLOCKS;
		*l = (struct load){ .env = all->env, .server = all->server, .header = h, .incarnation = all->incarnation, .epoch = 1, .block = 1,
				    .payload_blocks = MANY_PAYLOAD };
		int r = make_one(l, &m->append);
		all->status = all->status ? all->status : r;
		all->done += r == 0;
	}
	all->under_way--;
	fiber_cond_wake(&all->changed);
	return 0;
}

static int run_many(struct load *l, const char *volume)
{
	struct maker *makers = calloc(MANY_DEPTH, sizeof *makers);
	for (unsigned i = 0; i < sizeof l->header.volume.bytes; i++)
		if (strlen(volume) != 32 || sscanf(volume + 2 * i, "%2hhx", &l->header.volume.bytes[i]) != 1)
			return -EINVAL;
	l->records_left = l->numbers[0];
	uint64_t begin = env_now_ns(l->env);
	for (unsigned i = 0; makers && i < MANY_DEPTH; i++) {
		makers[i].all = l;
		makers[i].append.iov.iov_base = env_alloc_aligned(RECORD_BYTES_MAX);
		l->under_way++;
		if (!makers[i].append.iov.iov_base || fiber_start(&l->env->loop, make_run, &makers[i], NULL) < 0) {
			l->under_way--;
			l->status = -ENOMEM;
		}
	}
	while (l->under_way)
		fiber_cond_wait(&l->env->loop, &l->changed);
	printf("made=%" PRIu64 " per_second=%" PRIu64 "\n", l->done, l->done * NS_PER_S / (env_now_ns(l->env) - begin + 1));
	for (unsigned i = 0; makers && i < MANY_DEPTH; i++)
		free(makers[i].append.iov.iov_base);
	free(makers);
	return l->status;
}

static int bad(uint32_t block, const char *what)
{
	fprintf(stderr, "segload: block %u: %s\n", block, what);
	return -EBADMSG;
}

/* FIBER. One record at `block`; *ret_blocks is its length. */
static int verify_record(struct load *l, uint32_t block, uint8_t *buffer, uint32_t *ret_blocks)
{
	uint64_t left = SEGMENT_BLOCKS_MAX - block;
	struct record rec;
	struct iovec v = { buffer, BLOCK_BYTES };
	struct segment_io io = { .op = SEGMENT_READ, .segment = l->header.segment, .block = block, .blocks = 1, .iov = &v, .iov_count = 1 };
	int r = segment_wait(l->server, &io);
	if (r < 0)
		return r;
	r = record_decode(buffer, BLOCK_BYTES, &l->header, block, &rec);
	if (r < 0 || rec.header_blocks != 1 || record_blocks(&rec) > left)
		return bad(block, "no record");
	if (rec.seq != l->seq + 1 || rec.prev != l->prev)
		return bad(block, "the chain is broken");
	io.blocks = record_blocks(&rec);
	v.iov_len = (size_t)io.blocks * BLOCK_BYTES;
	r = segment_wait(l->server, &io);
	if (r < 0)
		return r;
	uint64_t x = mix(rec.segment ^ rec.seq << 20), *word = (uint64_t *)(void *)(buffer + BLOCK_BYTES);
	for (uint32_t i = 0; i < rec.payload_blocks * BLOCK_BYTES / 8; i++)
		if (word[i] != x + i)
			return bad(block, "other content");
	l->seq = rec.seq;
	l->prev = rec.header_crc;
	*ret_blocks = io.blocks;
	return 0;
}

static int run_verify(struct load *l)
{
	struct segment_io io;
	int r = one(l, SEGMENT_STAT, 0, &io);
	if (r < 0)
		return r;
	if (io.length < l->numbers[0] || io.state != COPY_WHOLE)
		return bad(io.length, io.state == COPY_WHOLE ? "the copy is shorter than what was answered" : "the copy isn't whole");
	uint8_t *buffer = env_alloc_aligned(RECORD_BYTES_MAX);
	uint32_t blocks = 0;
	for (uint32_t block = 1; r == 0 && block < io.length; block += blocks)
		r = verify_record(l, block, buffer, &blocks);
	free(buffer);
	if (r == 0)
		printf("verified %u blocks, %" PRIu64 " records\n", io.length, l->seq);
	return r;
}

static int run_one(struct load *l, enum segment_op op)
{
	struct segment_io io;
	l->epoch = (uint32_t)l->numbers[0];
	int r = one(l, op, l->numbers[0], &io);
	if (r == 0)
		printf("length=%u state=%d sealed=%d fenced=%" PRIu64 " incarnation=%" PRIu64 "\n", io.length, io.state, io.sealed,
		       io.fenced_epoch, l->incarnation);
	return r;
}

static int run(void *arg)
{
	struct load *l = arg;
	struct report report = { 0 };
	int r = segment_remote_open(l->env, l->address, DEADLINE_NS, &l->server, &report);
	if (r < 0) {
		fprintf(stderr, "segload: %s\n", report_text(&report, r));
		return r;
	}
	l->incarnation = l->server->incarnation;
	if (strcmp(l->mode, "append") == 0)
		r = run_append(l);
	else if (strcmp(l->mode, "verify") == 0)
		r = run_verify(l);
	else if (strcmp(l->mode, "many") == 0)
		r = run_many(l, l->volume);
	else if (strcmp(l->mode, "fence") == 0)
		r = run_one(l, SEGMENT_FENCE);
	else if (strcmp(l->mode, "sync") == 0)
		r = run_one(l, SEGMENT_SYNC);
	else if (strcmp(l->mode, "delete") == 0)
		r = run_one(l, SEGMENT_DELETE);
	else
		r = run_one(l, SEGMENT_STAT);
	if (r < 0 && r != -EBADMSG)
		fprintf(stderr, "segload: %s of segment %" PRIu64 ": %s\n", l->mode, l->header.segment, strerror(-r));
	segment_server_close(l->server);
	return r;
}

int main(int argc, char **argv)
{
	struct load l = { .epoch = 1 };
	if (argc < 4) {
		fprintf(stderr, "usage: segload append|verify|stat|fence|sync|delete|many ADDRESS SEGMENT NUMBERS…\n");
		return 2;
	}
	l.mode = argv[1];
	l.address = argv[2];
	l.header = header_of(strtoull(argv[3], NULL, 10));
	for (int i = 4; i < argc && i < 9; i++)
		l.numbers[i - 4] = strtoull(argv[i], NULL, 10);
	l.volume = argc > 5 ? argv[5] : "";
	fiber_cond_init(&l.changed);
	if (env_linux_create(0, &l.env) < 0)
		return 1;
	int r = env_linux_run_fiber(l.env, run, &l);
	env_linux_destroy(l.env);
	return r == 0 ? 0 : 1;
}
